# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The conversation with a BMC: who it is, whether it is let in, and what goes wrong on the way."""

from __future__ import annotations

import http.server
import socket
import threading
import typing as t
from pathlib import Path

import pytest
from conftest import Clock, MakeBmc

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._firmware import _redfish
from tests.bmc import vendors
from tests.bmc.fake import PASSWORD, SESSIONS, USER, Fault, Request, explained
from tests.unit.conftest import RunModule

Json = dict[str, t.Any]
Params = t.Callable[..., Json]
NAME = "redfish_bios"
SRIOV = {"sriov": True}


def to(path: str, method: str = "GET") -> t.Callable[[Request], bool]:
    return lambda request: request.method == method and request.path.rstrip("/") == path


def problem(result: Json) -> str:
    """The only problem, after checking that the failure is a whole one."""
    assert result["failed"] and not result["changed"] and result["changes"] == []
    assert [set(blocker) for blocker in result["blockers"]] == [{"target", "problem", "remedy"}]
    blocker = result["blockers"][0]
    assert all(blocker.values()) and f"- {blocker['target']}: {blocker['problem']}. {blocker['remedy']}" in result["msg"]
    return str(blocker["problem"])


@pytest.mark.parametrize(
    ("address", "server"),
    [
        ("bmc.example.com", "https://bmc.example.com"),
        (" bmc:8443 ", "https://bmc:8443"),
        ("https://192.0.2.7/", "https://192.0.2.7"),
        ("2001:db8::7", "https://[2001:db8::7]"),
        ("[2001:db8::7]:8443", "https://[2001:db8::7]:8443"),
    ],
)
def test_addresses_that_are_understood(address: str, server: str) -> None:
    assert _redfish.server_of(address) == server


@pytest.mark.parametrize(
    "address", ["", "http://bmc", "root:x@bmc", "bmc/redfish", "bmc:port", "bmc:0", "b mc", "bmc?x", "[::1", "https://"]
)
def test_addresses_that_are_refused(address: str, run_module: RunModule, params: Params) -> None:
    result = run_module(NAME, params(address, attributes=SRIOV))
    assert "is no address of a BMC" in problem(result) and "gpufleet_bmc_address" in result["msg"]


@pytest.mark.parametrize("auth", ["session", "basic"])
def test_a_wrong_password_is_tried_once(auth: str, run_module: RunModule, make_bmc: MakeBmc, params: Params, clock: Clock) -> None:
    bmc = make_bmc(vendors.dell())
    result = run_module(NAME, params(bmc, auth=auth, password="not-it", attributes=SRIOV))
    assert f"it refuses user {USER} with this password" in problem(result)
    assert "gpufleet_bmc_password" in result["msg"] and "locks an account" in result["msg"] and "not-it" not in result["msg"]
    tried = [request for request in bmc.requests if request.path == SESSIONS or "authorization" in request.headers]
    assert len(tried) == 1 and clock.pauses == []


def test_a_session_that_ends_early_is_no_wrong_password(run_module: RunModule, make_bmc: MakeBmc, params: Params) -> None:
    bmc = make_bmc(vendors.dell())
    bmc.faults = [Fault(401, to("/redfish/v1/Systems"))]
    result = run_module(NAME, params(bmc, attributes=SRIOV))
    assert "no longer knows the session" in problem(result) and "password" not in result["msg"]


def test_an_account_without_rights_is_told_what_it_lacks(run_module: RunModule, make_bmc: MakeBmc, params: Params) -> None:
    bmc = make_bmc(vendors.dell())
    said = explained("Base.1.8.InsufficientPrivilege", "The account has insufficient privileges.")
    bmc.faults = [Fault(403, lambda request: request.method == "PATCH", body=said)]
    result = run_module(NAME, params(bmc, attributes=SRIOV))
    assert f"user {USER} may not PATCH" in problem(result) and "insufficient privileges (Base.1.8.InsufficientPrivilege)" in problem(result)
    assert not bmc.sessions


@pytest.mark.parametrize(
    ("certificate", "expected"),
    [
        ("own", "signed by itself"),
        ("expired", "has expired"),
        ("elsewhere", "is for another address"),
    ],
)
def test_a_certificate_that_proves_nothing_is_refused(
    certificate: str, expected: str, run_module: RunModule, make_bmc: MakeBmc, params: Params
) -> None:
    bmc = make_bmc(vendors.dell(), certificate)
    result = run_module(NAME, params(bmc, attributes=SRIOV))
    assert expected in problem(result) and "gpufleet_bmc_ca_path" in result["msg"] and bmc.requests == []
    if certificate == "own":
        assert run_module(NAME, params(bmc, validate_certs=False, attributes=SRIOV))["changed"]


def test_a_certificate_of_another_ca_is_refused(run_module: RunModule, make_bmc: MakeBmc, params: Params, pki: Path) -> None:
    bmc = make_bmc(vendors.dell())
    for ca_path in (str(pki / "other-ca.crt"), None):
        result = run_module(NAME, params(bmc, ca_path=ca_path, attributes=SRIOV))
        assert "comes from a CA that is not trusted here" in problem(result) and bmc.requests == []


@pytest.mark.parametrize(("content", "expected"), [(None, "No such file"), ("no certificate", "NO_CERTIFICATE")])
def test_a_file_without_certificates_is_named(
    content: str | None, expected: str, run_module: RunModule, params: Params, tmp_path: Path
) -> None:
    if content:
        (tmp_path / "trust.crt").write_text(content)
    found = problem(run_module(NAME, params("bmc.invalid", ca_path=str(tmp_path / "trust.crt"), attributes=SRIOV)))
    assert "trust.crt cannot be read as CA certificates" in found and expected in found


def test_nobody_at_the_address(run_module: RunModule, params: Params) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        result = run_module(NAME, params(f"127.0.0.1:{taken.getsockname()[1]}", attributes=SRIOV))
    assert "no connection: Connection refused" in problem(result) and "management network" in result["msg"]


def test_a_name_that_nobody_knows(run_module: RunModule, params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*arguments: t.Any, **more: t.Any) -> t.NoReturn:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert "Name or service not known" in problem(run_module(NAME, params("bmc.invalid", attributes=SRIOV)))


def test_somebody_who_takes_connections_and_says_nothing(run_module: RunModule, params: Params) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        result = run_module(NAME, params(f"127.0.0.1:{silent.getsockname()[1]}", timeout=1, attributes=SRIOV))
    assert "no answer within 1 s" in problem(result)


def test_somebody_who_speaks_no_tls(run_module: RunModule, params: Params) -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as plain:
        threading.Thread(target=plain.handle_request, daemon=True).start()
        result = run_module(NAME, params(f"127.0.0.1:{plain.server_address[1]}", attributes=SRIOV))
    assert "no TLS connection" in problem(result)


@pytest.mark.parametrize(
    ("status", "body"),
    [(404, None), (200, b"<html>hello</html>"), (200, {"version": "1"}), (200, []), (200, {"RedfishVersion": "1.6.0"}), (403, None)],
)
def test_somebody_who_is_no_redfish_service(status: int, body: t.Any, run_module: RunModule, make_bmc: MakeBmc, params: Params) -> None:
    bmc = make_bmc(vendors.dell())
    bmc.faults = [Fault(status, times=9, body=body)]
    assert "there is no Redfish service" in problem(run_module(NAME, params(bmc, attributes=SRIOV)))
    assert [request.path for request in bmc.requests] == ["/redfish/v1/"]


def test_a_broken_answer_is_named(run_module: RunModule, make_bmc: MakeBmc, params: Params) -> None:
    bmc = make_bmc(vendors.dell())
    bmc.faults = [Fault(200, to("/redfish/v1/Systems"), body=b"{")]
    assert "what /redfish/v1/Systems answers is no JSON object" in problem(run_module(NAME, params(bmc, attributes=SRIOV)))


def test_a_busy_service_is_waited_for_as_long_as_it_says(run_module: RunModule, make_bmc: MakeBmc, params: Params, clock: Clock) -> None:
    bmc = make_bmc(vendors.dell())
    bmc.faults = [
        Fault(503, to("/redfish/v1/Systems"), headers={"Retry-After": "7"}),
        Fault(503, lambda request: request.method == "PATCH", headers={"Retry-After": "3"}),
        Fault(503, to(SESSIONS, "POST")),
    ]
    assert run_module(NAME, params(bmc, attributes=SRIOV))["changed"]
    assert clock.pauses == [2.0, 7.0, 3.0] and len(bmc.patches) == 2


def test_a_service_that_stays_busy_is_given_up(run_module: RunModule, make_bmc: MakeBmc, params: Params, clock: Clock) -> None:
    bmc = make_bmc(vendors.dell())
    bmc.faults = [Fault(503, to("/redfish/v1/Systems"), times=99, headers={"Retry-After": "20"})]
    result = run_module(NAME, params(bmc, attributes=SRIOV))
    assert "status 503" in problem(result) and "Run again later" in result["msg"]
    assert clock.pauses == [20.0] * 4 and not bmc.sessions
    bmc.faults = [Fault(503, to("/redfish/v1/Systems"), times=99, headers={"Retry-After": "3600"})]
    assert "status 503" in problem(run_module(NAME, params(bmc, attributes=SRIOV)))
    assert len(clock.pauses) == 4


def test_a_service_that_refuses_the_values_is_quoted(run_module: RunModule, make_bmc: MakeBmc, params: Params) -> None:
    bmc = make_bmc(vendors.dell())
    said = explained("IDRAC.2.8.SYS429", "Unable to modify the attribute because the configuration is locked.")
    bmc.faults = [Fault(400, lambda request: request.method == "PATCH", body=said)]
    result = run_module(NAME, params(bmc, attributes=SRIOV))
    assert "status 400: Unable to modify the attribute because the configuration is locked (IDRAC.2.8.SYS429)" in problem(result)
    assert len(bmc.patches) == 1 and "Nothing was changed" in result["msg"]


def test_a_connection_that_breaks_while_writing_leaves_a_doubt_and_says_so(
    run_module: RunModule, make_bmc: MakeBmc, params: Params
) -> None:
    bmc = make_bmc(vendors.dell())
    bmc.faults = [Fault(0, lambda request: request.method == "PATCH")]
    result = run_module(NAME, params(bmc, attributes=SRIOV))
    assert "whether it took the settings is not known" in problem(result) and "what is pending is read first" in result["msg"]


def test_a_connection_that_breaks_after_writing_does_not_hide_what_was_done(
    run_module: RunModule, make_bmc: MakeBmc, params: Params
) -> None:
    bmc = make_bmc(vendors.dell())
    bmc.before_patch = lambda: bmc.faults.append(Fault(0, lambda request: request.path.endswith("/Settings") and request.method == "GET"))
    result = run_module(NAME, params(bmc, attributes=SRIOV))
    assert result["failed"] and result["changed"] and [change["target"] for change in result["changes"]] == ["setting SriovGlobalEnable"]
    assert "What was done: set setting SriovGlobalEnable." in result["msg"]


def test_credentials_go_to_no_other_server(run_module: RunModule, make_bmc: MakeBmc, params: Params) -> None:
    bmc, other = make_bmc(vendors.dell()), make_bmc(vendors.dell())
    bmc.faults = [Fault(307, to("/redfish/v1/Systems"), headers={"Location": f"https://{other.address}/redfish/v1/Systems"})]
    assert "another server" in problem(run_module(NAME, params(bmc, attributes=SRIOV)))
    bmc.faults = [Fault(200, to("/redfish/v1/Systems"), body={"Members": [{"@odata.id": f".invalid:{other.address}/x"}]})]
    assert "which is no path" in problem(run_module(NAME, params(bmc, attributes=SRIOV)))
    assert other.requests == []


def test_redirects_in_a_circle_end(run_module: RunModule, make_bmc: MakeBmc, params: Params) -> None:
    bmc = make_bmc(vendors.dell())
    bmc.faults = [Fault(308, to("/redfish/v1/Systems"), times=99, headers={"Location": "/redfish/v1/Systems"})]
    assert "status 308" in problem(run_module(NAME, params(bmc, attributes=SRIOV)))


@pytest.mark.parametrize("status", [404, 500])
def test_a_service_that_offers_no_registry_is_used_without(status: int, run_module: RunModule, make_bmc: MakeBmc, params: Params) -> None:
    bmc = make_bmc(vendors.dell())
    bmc.faults = [Fault(status, to(vendors.dell().registry_path), times=9)]
    assert run_module(NAME, params(bmc, attributes=SRIOV))["changed"]


def test_several_registries_that_could_be_meant_are_not_guessed_at(run_module: RunModule, make_bmc: MakeBmc, params: Params) -> None:
    bmc = make_bmc(vendors.dell())
    members = [{"@odata.id": f"/redfish/v1/Registries/BiosAttributeRegistry.v1_0_{number}"} for number in (0, 1)]
    bmc.faults = [Fault(200, to("/redfish/v1/Registries"), times=9, body={"Members": members})]
    result = run_module(NAME, params(bmc, attributes={"SysProfile": "Whatever"}))
    assert result["changed"] and PASSWORD not in str(result)


def test_a_service_that_has_no_room_for_a_session_says_what_to_do(run_module: RunModule, make_bmc: MakeBmc, params: Params) -> None:
    bmc = make_bmc(vendors.dell())
    bmc.faults = [Fault(400, to(SESSIONS, "POST"), body=explained("IDRAC.2.8.RAC0218", "The maximum number of user sessions is reached."))]
    result = run_module(NAME, params(bmc, attributes=SRIOV))
    assert "it opens no session" in problem(result) and "set auth: basic" in result["msg"]
    bmc.faults = [Fault(201, to(SESSIONS, "POST"), body={})]
    assert "without a token" in problem(run_module(NAME, params(bmc, attributes=SRIOV)))


def test_a_session_that_cannot_be_closed_changes_no_result(run_module: RunModule, make_bmc: MakeBmc, params: Params) -> None:
    bmc = make_bmc(vendors.dell())
    bmc.faults = [Fault(500, lambda request: request.method == "DELETE")]
    assert not run_module(NAME, params(bmc, attributes=SRIOV))["failed"]
