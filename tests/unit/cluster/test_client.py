# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import importlib.util
import socket
import sys
import threading
import time
import typing as t

import pytest
from fake_api import FakeApi, Fault

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _client

NODE = "/api/v1/nodes/n"


@pytest.fixture
def client(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> _client.Client:
    return connected(api.params, monkeypatch)


def connected(params: dict[str, t.Any], monkeypatch: pytest.MonkeyPatch) -> _client.Client:
    class Module:
        def __init__(self) -> None:
            self.params = {**dict.fromkeys(_client.auth_argument_spec()), **params}

        def fail_json(self, msg: str, **_more: t.Any) -> t.NoReturn:
            raise AssertionError(msg)

    return _client.connect(Module())  # type: ignore[arg-type]


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits between attempts, which pass at once."""
    clock = [0.0]
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(_client.time, "sleep", sleep)
    monkeypatch.setattr(_client.time, "monotonic", lambda: clock[0])
    return waits


def test_objects_and_lists(api: FakeApi, client: _client.Client) -> None:
    for number in range(7):
        api.add(f"/api/v1/nodes/n{number}", {"spec": {"number": number}})
    assert client.get("/api/v1/nodes/n3")["spec"] == {"number": 3}
    assert client.find("/api/v1/nodes/missing") is None
    with pytest.raises(_client.ApiError, match=r"GET /api/v1/nodes/missing on http://127.*: 404 NotFound: ") as caught:
        client.get("/api/v1/nodes/missing")
    assert caught.value.status == 404
    assert [node["spec"]["number"] for node in client.list("/api/v1/nodes")] == list(range(7))


def test_a_list_is_read_in_pages(api: FakeApi, client: _client.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_client, "_PAGE", 3)
    for number in range(7):
        api.add(f"/api/v1/nodes/n{number}")
    assert [node["metadata"]["name"] for node in client.list("/api/v1/nodes")] == [f"n{number}" for number in range(7)]
    assert [request.query["limit"] for request in api.requests] == ["3", "3", "3"]


def test_a_list_that_grew_too_old_is_read_anew_once(api: FakeApi, client: _client.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_client, "_PAGE", 3)
    for number in range(7):
        api.add(f"/api/v1/nodes/n{number}")
    api.faults = [Fault(410, when=lambda request: "continue" in request.query, reason="Expired")]
    assert len(client.list("/api/v1/nodes")) == 7
    api.faults = [Fault(410, times=9, when=lambda request: "continue" in request.query, reason="Expired")]
    with pytest.raises(_client.ApiError, match="410 Expired"):
        client.list("/api/v1/nodes")


def test_a_dry_run_writes_nothing(api: FakeApi, client: _client.Client) -> None:
    api.add(NODE, {"metadata": {"labels": {"a": "1"}}})
    client.patch(NODE, {"metadata": {"labels": {"a": "2"}}}, dry_run=True)
    client.create("/api/v1/nodes", {"metadata": {"name": "m"}}, dry_run=True)
    client.delete(NODE, dry_run=True)
    assert api.written == []
    assert list(api.objects) == [NODE]
    client.patch(NODE, {"metadata": {"labels": {"a": "2"}}})
    assert api.objects[NODE]["metadata"]["labels"] == {"a": "2"}
    client.delete(NODE)
    client.delete(NODE)
    assert api.objects == {}


def test_a_conflict_is_the_callers(api: FakeApi, client: _client.Client, pauses: list[float]) -> None:
    api.add(NODE)
    with pytest.raises(_client.ApiError) as caught:
        client.patch(NODE, {"metadata": {"resourceVersion": "1", "labels": {"a": "2"}}})
    assert (caught.value.status, pauses) == (409, [])


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(api: FakeApi, client: _client.Client, pauses: list[float], status: int) -> None:
    api.add(NODE)
    api.faults = [Fault(status, times=3)]
    assert client.get(NODE)["metadata"]["name"] == "n"
    assert len(pauses) == 3
    assert pauses == sorted(pauses)


def test_the_wait_that_the_server_asks_for_is_kept(api: FakeApi, client: _client.Client, pauses: list[float]) -> None:
    api.add(NODE)
    api.faults = [Fault(429, headers={"Retry-After": "7"})]
    client.get(NODE)
    assert pauses == [7.0]


@pytest.mark.parametrize("said", ["0", "²", "soon"])
def test_a_server_that_asks_for_no_wait_is_not_asked_without_one(
    api: FakeApi, client: _client.Client, pauses: list[float], said: str
) -> None:
    api.add(NODE)
    api.faults = [Fault(429, times=4, headers={"Retry-After": said})]
    client.get(NODE)
    assert len(pauses) == 4 and min(pauses) >= 0.5 and pauses == sorted(pauses)


@pytest.mark.parametrize("answer", [{}, [], None, "ok", {"kind": "Status"}])
def test_what_is_no_list_is_not_taken_for_an_empty_one(
    api: FakeApi, client: _client.Client, pauses: list[float], monkeypatch: pytest.MonkeyPatch, answer: t.Any
) -> None:
    """No VM in it would be taken for the proof that nobody uses a device."""
    monkeypatch.setattr(api, "_get", lambda request: (200, answer))
    with pytest.raises(_client.ApiError, match="the answer is no "):
        client.list("/api/v1/pods")


def test_patience_ends(api: FakeApi, client: _client.Client, pauses: list[float]) -> None:
    api.faults = [Fault(500, times=10**6, message="etcd is down")]
    with pytest.raises(_client.ApiError, match=r"GET /api/v1/nodes/n on http.*: 500 Fault: etcd is down"):
        client.get(NODE)
    assert 30 < sum(pauses) <= _client._BUSY_SECONDS


def test_forbidden_is_not_tried_again(api: FakeApi, client: _client.Client, pauses: list[float]) -> None:
    api.faults = [Fault(403, times=9, reason="Forbidden")]
    with pytest.raises(_client.ApiError, match="403 Forbidden"):
        client.get(NODE)
    assert pauses == []


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between attempts pass at once, and the clock says that they have passed."""
    waits: list[float] = []
    clock = time.monotonic
    monkeypatch.setattr(_client.time, "sleep", waits.append)
    monkeypatch.setattr(_client.time, "monotonic", lambda: clock() + sum(waits))


@pytest.mark.parametrize("kind", ["refused", "silent", "no HTTP"])
@pytest.mark.usefixtures("hasty")
def test_a_server_that_does_not_answer_is_named_within_15_seconds(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        if kind != "refused":
            server.listen(16)
        if kind == "no HTTP":

            def babble() -> None:
                while True:
                    try:
                        connection = server.accept()[0]
                    except OSError:
                        return
                    connection.sendall(b"SSH-2.0-babble\r\n")
                    connection.close()

            threading.Thread(target=babble, daemon=True).start()
        client = connected({"host": address, "api_key": "secret-token"}, monkeypatch)
        began = time.monotonic()
        with pytest.raises(_client.ApiError) as caught:
            client.get(NODE)
    text = str(caught.value)
    assert time.monotonic() - began < 15
    assert address in text
    assert "no answer" in text
    assert "0x" not in text
    assert "secret-token" not in text
    assert caught.value.status is None


@pytest.mark.parametrize(
    ("params", "environment", "words"),
    [
        ({"kubeconfig": "/a/b"}, {"K8S_AUTH_KUBECONFIG": "/c"}, "the kubeconfig /a/b"),
        ({"kubeconfig": {"users": [{"token": "secret"}]}}, {}, "the kubeconfig that was given"),
        ({"context": "prod"}, {}, "the context prod"),
        ({}, {"K8S_AUTH_KUBECONFIG": "/c"}, "K8S_AUTH_KUBECONFIG=/c"),
        ({}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "the service account of the pod"),
        ({}, {}, "~/.kube/config"),
        ({}, {"KUBECONFIG": "/d"}, "default kubeconfig /d"),
    ],
)
def test_where_credentials_come_from_is_said(params: dict[str, t.Any], environment: dict[str, str], words: str) -> None:
    said = _client.credentials_from(params, environment)
    assert words in said
    assert "secret" not in said


def test_no_credentials_end_the_module_with_what_to_set(run_module, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    for name in ("K8S_AUTH_KUBECONFIG", "KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    result = run_module("gpu_node_cordon", {"node": "n", "state": "cordoned", "kubeconfig": str(tmp_path / "missing")})
    assert result["failed"]
    assert "gpufleet_kubeconfig" in result["msg"]
    assert str(tmp_path / "missing") in result["msg"]


@pytest.mark.parametrize(
    ("absent", "words"),
    [
        ("kubernetes.client", ["kubernetes", "on", "Python"]),
        (
            "ansible_collections.kubernetes.core.plugins.module_utils.args_common",
            ["collection kubernetes.core 6.4.0 or newer", "Install it"],
        ),
    ],
)
def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, absent: str, words: list[str]) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    spec = importlib.util.spec_from_file_location("client_without", _client.__file__)
    assert spec is not None and spec.loader is not None
    without = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(without)
    said: list[str] = []

    class Module:
        # What the playbooks hand over must be known even then, or the module ends with "Unsupported parameters" instead.
        params = {key: None for key in without.auth_argument_spec() if key in ("kubeconfig", "context")}

        def fail_json(self, msg: str, **_more: t.Any) -> t.NoReturn:
            said.append(msg)
            raise SystemExit

    assert set(Module.params) == {"kubeconfig", "context"}
    with pytest.raises(SystemExit):
        without.connect(Module())
    assert all(word in said[0] for word in words), said


def test_cordon_through_main(api: FakeApi, run_module) -> None:
    api.add(NODE)
    arguments = {**api.params, "node": "n", "state": "cordoned", "reason": "reboot"}
    checked = run_module("gpu_node_cordon", arguments, check=True)
    assert checked["changed"]
    assert api.written == []
    done = run_module("gpu_node_cordon", arguments)
    assert done["changes"] == checked["changes"]
    assert api.objects[NODE]["spec"] == {"unschedulable": True}
    assert not run_module("gpu_node_cordon", arguments)["changed"]
    assert run_module("gpu_node_cordon", {**arguments, "state": "uncordoned"})["changed"]
    assert api.objects[NODE]["spec"] == {}
