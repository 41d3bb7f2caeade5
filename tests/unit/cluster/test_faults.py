# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every fault of the API that the lab has, met by every module of the cluster domain through its main(): the lab's proxy and its rules,
before the API server that is simulated here.

A module rides a fault out or fails and names it; it never says that nothing was changed where something was; run again without the fault
it converges; and what is not its own is as before.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import http.client
import itertools
import threading
import typing as t

import pytest
from fake_api import FakeApi
from fault_cases import CASES, Case, Scene
from gpu_objects import Clock, Json

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import (
    _client,
    _maintenance_io,
    _maintenance_out,
    _probe_io,
    _slots_io,
)
from ansible_collections.gpufleet.kubevirt.plugins.modules import gpu_operator_wait, kubevirt_permit
from tests.lab.fault_proxy import Counter, Proxy
from tests.lab.faults import FAULTS, LOST, RESET, SILENT, Rule

RULES = {name: fault.rule for name, fault in FAULTS.items() if fault.rule is not None}
#: Fault -> what a module says that cannot ride it out.
SAYS = {
    "api-conflict": "409 Conflict",
    "api-busy": "429 TooManyRequests: Too many requests",
    "api-error": "500 InternalError: etcdserver: leader changed",
    "api-unavailable": "503 ServiceUnavailable",
    "api-reset": "no answer: ",
    "api-lost-answer": "no answer: ",
    "api-silent": "no answer: it takes connections and does not answer",
    "webhook-down": "failed calling webhook",
}


class Relay:
    """The lab's proxy before whatever API server a test has."""

    def __init__(self) -> None:
        self.port = 0
        self.proxy = Proxy(0, self.connect, Counter({}))
        self.proxy.silent_seconds = 0.2
        threading.Thread(target=self.proxy.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.proxy.server_address[1]}"

    def have(self, counter: Counter) -> None:
        self.proxy.counter = counter


@pytest.fixture(scope="module")
def relay() -> t.Iterator[Relay]:
    relay = Relay()
    yield relay
    relay.proxy.shutdown()
    relay.proxy.server_close()


class Trial:
    """One module, its cluster, and the proxy between them."""

    def __init__(self, case: Case, api: FakeApi, relay: Relay, run_module: t.Any) -> None:
        self.case, self.api, self.relay, self.run_module = case, api, relay, run_module
        self.scene: Scene = case.prepare(api)
        self.foreign = copy.deepcopy(self.scene.foreign())
        relay.port = int(api.url.rpartition(":")[2])
        relay.have(Counter({}))

    def run(self) -> Json:
        written = len(self.api.written)
        access = {"host": self.relay.url, "api_key": "a secret of its own"}
        result: Json = self.run_module(self.case.module, {**access, **self.case.arguments})
        assert "Traceback" not in str(result.get("exception", "")) + result.get("msg", "")
        if len(self.api.written) > written:
            assert "Nothing was changed" not in result.get("msg", ""), (result["msg"], self.api.written[written:])
        assert self.scene.foreign() == self.foreign
        return result

    def converges(self) -> None:
        """A run without a fault is what is wanted."""
        self.relay.have(Counter({}))
        done = self.run()
        assert not done["failed"], done["msg"]
        assert self.scene.done(done)


@contextlib.contextmanager
def impatience(name: str, seconds: float) -> t.Iterator[None]:
    """Where a server is silent, it is given up after so long: soon, yet not sooner than it answers on a busy machine, if it is to."""
    with pytest.MonkeyPatch.context() as patch:
        for limit in ("_FIRST_ANSWER_SECONDS", "_ANSWER_SECONDS") if RULES[name].answer == SILENT else ():
            patch.setattr(_client, limit, seconds)
        yield


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between attempts pass at once."""
    clock = Clock()
    for module in (_client, _maintenance_io, _maintenance_out, _probe_io, _slots_io, gpu_operator_wait, kubevirt_permit):
        monkeypatch.setattr(module, "time", clock)
    for name in ("_BUSY_SECONDS", "_UNREACHABLE_SECONDS"):
        monkeypatch.setattr(_client, name, 3.0)


@pytest.fixture
def trial(request: pytest.FixtureRequest, api: FakeApi, relay: Relay, run_module, quick: None) -> Trial:
    return Trial(request.param, api, relay, run_module)


every_module = pytest.mark.parametrize("trial", CASES, indirect=True, ids=lambda case: case.name)


@every_module
def test_without_a_fault_the_proxy_changes_nothing(trial: Trial) -> None:
    trial.converges()
    assert not trial.run()["changed"]


@every_module
@pytest.mark.parametrize("name", RULES)
def test_a_fault_of_now_and_then_is_ridden_out_or_named_and_the_next_run_converges(trial: Trial, name: str) -> None:
    counter = Counter({name: RULES[name]}, seed=RULES[name].every - 1)  # the first that fits meets it
    trial.relay.have(counter)
    with impatience(name, 0.4):
        result = trial.run()
    if RULES[name].answer in (429, 503, RESET, SILENT) or name == "api-error" or not counter.hits:
        assert not result["failed"], result["msg"]
        assert trial.scene.done(result)
    elif result["failed"]:
        assert SAYS[name] in result["msg"] or (RULES[name].answer == LOST and "AlreadyExists" in result["msg"])
    trial.converges()


@every_module
@pytest.mark.parametrize("name", RULES)
def test_a_fault_that_lasts_is_named_and_the_run_after_it_converges(trial: Trial, name: str) -> None:
    trial.relay.have(Counter({name: dataclasses.replace(RULES[name], every=1)}))
    with impatience(name, 0.1):
        result = trial.run()
    if not trial.relay.proxy.counter.hits:
        assert not result["failed"], result["msg"]
    elif RULES[name].answer != LOST:
        assert result["failed"] and SAYS[name] in result["msg"]
    trial.converges()


@pytest.mark.parametrize("trial", [case for case in CASES if case.name == "permit"], indirect=True, ids=["permit"])
def test_of_a_webhook_that_is_down_it_is_said_who_serves_it(trial: Trial) -> None:
    trial.relay.have(Counter({"webhook-down": RULES["webhook-down"]}))
    assert "of KubeVirt: virt-operator and virt-api" in trial.run()["msg"]


class DownAfterWrite(Counter):
    """From the answer of the first write on the API server is away."""

    def decide(self, method: str, path: str) -> Rule | None:
        if method != "GET" and not self.hits:
            self.hits.append(("down", method, path))
            return None
        return RULES["api-unavailable"] if self.hits else None


@pytest.mark.parametrize("trial", [case for case in CASES if case.writes], indirect=True, ids=lambda case: case.name)
def test_an_api_server_that_goes_after_a_write_does_not_make_a_module_deny_it(trial: Trial) -> None:
    trial.relay.have(DownAfterWrite({}))
    result = trial.run()
    if result["failed"]:
        assert SAYS["api-unavailable"] in result["msg"]
    else:  # the answer to the write was enough
        assert trial.scene.done(result)
    trial.converges()


def test_every_rule_is_met_by_a_module() -> None:
    """A rule that no request of theirs fits would make all of the above pass."""
    requests = {(method, path) for case in CASES for method, path in case.sends}
    for name, rule in RULES.items():
        assert any(rule.fits(method, path) for method, path in requests), name


# ------------------------------------------------------------------ the proxy by itself


def test_each_nth_request_that_fits_meets_a_rule_whatever_else_is_asked() -> None:
    counter = Counter({"a": Rule(500, 3, frozenset({"GET"}), "/x"), "b": Rule(409, 2, frozenset({"PATCH"}))})
    asked = itertools.cycle([("GET", "/x"), ("GET", "/y"), ("PATCH", "/x")])
    met = [rule.answer if (rule := counter.decide(*next(asked))) else None for _ in range(18)]
    assert met == [None, None, None, None, None, 409, 500, None, None, None, None, 409, None, None, None, 500, None, 409]
    assert [name for name, _method, _path in counter.hits] == ["b", "a", "b", "a", "b"]


def test_answers_without_a_length_pass_as_they_come(relay: Relay) -> None:
    """As those of a watch do: the first event is read before the second is sent."""
    import http.server

    go_on = threading.Event()

    class Watch(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b'9\r\n{"one":1}\r\n')
            assert go_on.wait(5)
            self.wfile.write(b'9\r\n{"two":2}\r\n0\r\n\r\n')

        def log_message(self, *arguments: t.Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Watch) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        relay.port = server.server_address[1]
        relay.have(Counter({}))
        connection = http.client.HTTPConnection(relay.url.removeprefix("http://"), timeout=5)
        connection.request("GET", "/api/v1/nodes?watch=1")
        answer = connection.getresponse()
        assert answer.read1() == b'{"one":1}'
        go_on.set()
        assert answer.read() == b'{"two":2}'
        connection.close()
        server.shutdown()
