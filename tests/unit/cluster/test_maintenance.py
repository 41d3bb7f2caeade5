# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import typing as t

import pytest
from fake_api import FakeApi, Fault, Request
from gpu_objects import A10, Clock, Json
from maintenance_cluster import KV, NODE, SLOTS, Cluster

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import (
    _client,
    _maintenance_io,
    _maintenance_out,
    _slots,
    _slots_io,
)

CONTROL_PLANE = {"node-role.kubernetes.io/control-plane": ""}


class Killed(BaseException):
    """The process of the module has ended."""


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (_client, _maintenance_io, _maintenance_out, _slots_io):
        monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def cluster(api: FakeApi, clock: Clock) -> Cluster:
    return Cluster(api)


@pytest.fixture
def go(cluster: Cluster, run_module) -> t.Callable[..., Json]:
    def run(state: str, check: bool = False, **more: t.Any) -> Json:
        arguments = {"node": NODE, "run": "a", "scope": "node", "evacuate": "auto", "slot_timeout": 0, "timeout": 30, "poll": 1}
        result: Json = run_module("gpu_node_maintenance", {**cluster.api.params, "state": state, **arguments, **more}, check=check)
        assert "Traceback" not in str(result)
        return result

    return run


def full(cluster: Cluster) -> Cluster:
    """A node with one of each: VMs that run always, by hand, and by the old field; one that can migrate; pods."""
    cluster.run_vm("web", runStrategy="Always")
    cluster.run_vm("hand", runStrategy="Manual")
    cluster.run_vm("old", running=True)
    cluster.run_vm("moves", migratable=True, runStrategy="Always")
    cluster.run_pod("app")
    cluster.run_pod("logs", owner="DaemonSet")
    return cluster


def done(result: Json) -> list[tuple[str, str]]:
    return [(change["action"], change["target"]) for change in result["changes"]]


OUT = [
    ("take", "slot of node gpu1"),
    ("cordon", "node gpu1"),
    ("stop", "VM ml/hand"),
    ("migrate", "VM ml/moves"),
    ("stop", "VM ml/old"),
    ("stop", "VM ml/web"),
    ("evict", "pod ml/app"),
]
BACK = [
    ("start", "VM ml/hand"),
    ("start", "VM ml/old"),
    ("start", "VM ml/web"),
    ("uncordon", "node gpu1"),
    ("give back", "slot of node gpu1"),
]


def test_a_node_goes_out_and_comes_back_and_everything_is_as_before(cluster: Cluster, go) -> None:
    before = full(cluster).state()
    planned = go("out_of_service", check=True)
    assert cluster.api.written == []
    out = go("out_of_service")
    assert not out["failed"], out["msg"]
    assert done(out) == OUT
    assert planned["changes"] == out["changes"]
    assert cluster.on_node() == {"logs"}
    assert [entry["value"] for entry in out["slot"]["restore"]] == ["Manual", True, "Always"]
    assert out["out"] == {"gpu1": "run a"}
    assert not go("out_of_service")["changed"]
    foreseen = go("in_service", check=True)
    back = go("in_service")
    assert not back["failed"], back["msg"]
    assert done(back) == BACK
    assert foreseen["changes"] == back["changes"]
    assert cluster.state() == before
    assert not go("in_service")["changed"]
    assert cluster.unrecorded == []


def test_refuse_names_all_that_is_there_and_writes_nothing(cluster: Cluster, go) -> None:
    full(cluster)
    result = go("out_of_service", evacuate="refuse")
    assert [blocker["target"] for blocker in result["blockers"]] == ["VM ml/hand", "VM ml/moves", "VM ml/old", "VM ml/web", "pod ml/app"]
    assert result["msg"].endswith("Nothing was changed.")
    assert cluster.api.written == []


def kill_at(monkeypatch: pytest.MonkeyPatch, number: int, served: bool) -> list[int]:
    """The process ends at its ``number``-th writing request, before or after the server has carried it out."""
    real, count = _client.Client._request, [0]

    def request(self: t.Any, method: str, *arguments: t.Any, **more: t.Any) -> t.Any:
        if method == "GET":
            return real(self, method, *arguments, **more)
        count[0] += 1
        if count[0] == number and not served:
            raise Killed
        answer = real(self, method, *arguments, **more)
        if count[0] == number:
            raise Killed
        return answer

    monkeypatch.setattr(_client.Client, "_request", request)
    return count


@pytest.mark.parametrize("served", [False, True])
def test_a_run_that_dies_at_any_write_is_gone_on_from_and_loses_no_vm(api: FakeApi, clock: Clock, run_module, served: bool) -> None:
    number, killed = 0, True
    while killed:
        number += 1
        killed = False
        api.objects.clear()
        cluster = Cluster(api)
        before = full(cluster).state()
        for state, run in (("out_of_service", "a"), ("in_service", "b")):
            arguments = {**api.params, "node": NODE, "state": state, "scope": "node", "evacuate": "auto", "poll": 1, "slot_timeout": 0}
            with pytest.MonkeyPatch.context() as patched:
                count = kill_at(patched, number, served)
                try:
                    run_module("gpu_node_maintenance", {**arguments, "run": run, "resume": run != "a"})
                except Killed:
                    killed = True
                assert count[0] <= number or not killed
            again = run_module("gpu_node_maintenance", {**arguments, "run": f"{run}2", "resume": True})
            assert not again["failed"], (number, again["msg"])
            if state == "out_of_service":
                assert cluster.on_node() == {"logs"}, number
        after = cluster.state()
        assert after == before, number
        assert cluster.unrecorded == []
        api.answer = cluster.serve  # type: ignore[method-assign]
    assert number > 8


@pytest.mark.parametrize("status", [409, 500])
def test_a_fault_at_any_write_is_ridden_out_or_named_and_the_next_run_converges(
    api: FakeApi, clock: Clock, run_module, status: int
) -> None:
    for number in range(1, 12):
        api.objects.clear()
        cluster = Cluster(api)
        before = full(cluster).state()
        for state in ("out_of_service", "in_service"):
            arguments = {**api.params, "node": NODE, "state": state, "run": "a", "scope": "node", "evacuate": "auto", "poll": 1}
            writes = [0]

            def nth(request: t.Any, writes: list[int] = writes, number: int = number) -> bool:
                writes[0] += request.writes
                return bool(request.writes and writes[0] == number)

            api.faults = [Fault(status, when=nth)]
            result = run_module("gpu_node_maintenance", arguments)
            api.faults = []
            if result["failed"]:
                assert str(status) in result["msg"], result["msg"]
                result = run_module("gpu_node_maintenance", arguments)
            assert not result["failed"], (number, state, result["msg"])
        assert cluster.state() == before, number
        api.answer = cluster.serve  # type: ignore[method-assign]


def test_a_second_node_waits_for_a_slot_and_names_the_holder(cluster: Cluster, clock: Clock, go) -> None:
    assert not go("out_of_service", node="gpu2")["failed"]
    began = clock.now
    result = go("out_of_service", run="b", slot_timeout=60)
    assert "after 60 s, 1 may be out of service at once, and these are: gpu2 (run a)" in result["msg"]
    assert clock.now - began == 60
    assert NODE not in cluster.slots()
    assert not go("out_of_service", run="b", check=True)["failed"], "check mode waits for nothing"
    clock.on_sleep = lambda: go("in_service", node="gpu2") if "gpu2" in cluster.slots() and clock.now > began + 70 else None
    assert not go("out_of_service", run="b", slot_timeout=600)["failed"]
    assert set(cluster.slots()) == {NODE, "_budget"}


@pytest.mark.parametrize("spec", [{"unschedulable": True}, None])
def test_a_node_that_is_out_without_a_slot_counts(cluster: Cluster, go, spec: Json | None) -> None:
    if spec:
        cluster.api.objects["/api/v1/nodes/gpu2"]["spec"] = spec
    else:
        cluster.api.objects["/api/v1/nodes/gpu2"]["status"]["conditions"] = []
    result = go("out_of_service")
    assert result["failed"]
    assert f"gpu2 ({'cordoned' if spec else 'not ready'})" in result["msg"]
    assert not go("out_of_service", budget="67%")["failed"]


def test_an_eviction_that_a_budget_refuses_is_asked_for_now_and_then_and_the_budget_is_named(cluster: Cluster, go) -> None:
    cluster.run_pod("app")
    cluster.budgeted = {"app"}
    result = go("out_of_service", timeout=60)
    assert "it is still there after 60 s" in result["msg"]
    assert "The disruption budget web-pdb needs 2 healthy pods" in result["msg"]
    assert len([request for request in cluster.api.requests if request.path.endswith("/eviction")]) <= 7
    assert NODE in cluster.slots(), "something was asked for, so nobody can say that the node is as it was"
    cluster.budgeted = set()
    assert not go("out_of_service")["failed"]


def test_a_vm_that_does_not_shut_down_is_named_and_started_again_when_the_node_comes_back(cluster: Cluster, go) -> None:
    cluster.run_vm("web", runStrategy="Always")
    cluster.hung = {"web"}
    assert "VM ml/web: it is still there after 30 s: it has been told to stop" in go("out_of_service")["msg"]
    assert not go("in_service")["failed"]
    assert cluster.objects("virtualmachines")["web"]["spec"] == {"runStrategy": "Always"}


def test_a_migration_that_fails_again_and_again_is_given_up(cluster: Cluster, go) -> None:
    cluster.run_vm("web", migratable=True, runStrategy="Always")
    cluster.stranded = True
    result = go("out_of_service", timeout=10**6)
    assert "its migration has failed 3 times" in result["msg"]
    assert len(cluster.objects("virtualmachineinstancemigrations")) == 3


def test_what_turns_up_between_plan_and_cordon_is_refused_and_the_node_goes_back(cluster: Cluster, go) -> None:
    def late(request: t.Any) -> None:
        if request.path == "/api/v1/nodes/gpu1" and (request.body.get("spec") or {}).get("unschedulable"):
            cluster.run_pod("late", owner=None)

    cluster.api.before_write = late
    result = go("out_of_service")
    assert "pod ml/late: nothing would make it again" in result["msg"]
    assert cluster.slots() == {}
    assert "unschedulable" not in cluster.objects("nodes")[NODE]["spec"]


def test_a_cordon_by_hand_stays(cluster: Cluster, go) -> None:
    cluster.objects("nodes")[NODE]["spec"]["unschedulable"] = True
    assert not go("out_of_service")["failed"]
    assert done(go("in_service")) == [("give back", "slot of node gpu1")]
    assert cluster.objects("nodes")[NODE]["spec"]["unschedulable"] is True


def test_another_runs_node_is_left_alone_without_resume(cluster: Cluster, go) -> None:
    full(cluster)
    assert not go("out_of_service")["failed"]
    before = cluster.state()
    for state in ("out_of_service", "in_service"):
        result = go(state, run="b")
        assert "run a has taken it out of service" in result["msg"]
        assert "resume: true" in result["msg"]
    assert cluster.state() == before


def test_a_stale_record_is_taken_over_by_the_servers_clock(cluster: Cluster, go) -> None:
    assert not go("out_of_service")["failed"]
    slots = cluster.api.objects[SLOTS]["data"]
    slots[NODE] = json.dumps({**json.loads(slots[NODE]), "touched": "2020-01-01T00:00:00Z"})
    assert go("in_service", run="b", stale_after=0)["failed"]
    assert not go("in_service", run="b")["failed"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"problems": ["a GPU is gone"]}, "a GPU is gone"),
        ({"expect": {A10: 3}}, f"it has 2 of {A10}, not 3"),
        ({"boot_id": "other"}, "the Node's boot id is boot-gpu1, the host's is other"),
        ({"unschedulable": True}, "KubeVirt's virt-handler says that no VM can run on it"),
    ],
)
def test_a_gate_that_fails_keeps_the_node_and_gives_the_run_no_further_slot(cluster: Cluster, go, more: Json, words: str) -> None:
    full(cluster)
    assert not go("out_of_service", budget="2")["failed"]
    held = cluster.state()["vms"]
    labels = cluster.objects("nodes")[NODE]["metadata"].setdefault("labels", {})
    if more.pop("unschedulable", False):
        labels["kubevirt.io/schedulable"] = "false"
    result = go("in_service", **more)
    labels.pop("kubevirt.io/schedulable", None)
    assert result["failed"]
    assert words in result["msg"]
    assert cluster.state()["vms"] == held
    assert cluster.objects("nodes")[NODE]["spec"]["unschedulable"] is True
    further = go("out_of_service", node="gpu3", budget="2")
    assert "run a has failed already: node gpu1" in further["msg"]
    assert not go("out_of_service", node="gpu3", budget="2", run="b")["failed"]
    assert not go("in_service", run="b", resume=True)["failed"]


def test_the_gate_waits_until_the_node_is_ready(cluster: Cluster, clock: Clock, go) -> None:
    assert not go("out_of_service")["failed"]
    status = cluster.objects("nodes")[NODE]["status"]
    ready, status["conditions"] = status["conditions"], []
    began = clock.now
    clock.on_sleep = lambda: status.update(conditions=ready) if clock.now > began + 20 else None
    assert not go("in_service")["failed"]


def test_a_vm_that_somebody_changed_or_deleted_meanwhile_stays_as_it_is(cluster: Cluster, go) -> None:
    full(cluster)
    assert not go("out_of_service")["failed"]
    cluster.api.objects[f"{KV}/virtualmachines/web"]["spec"] = {"runStrategy": "RerunOnFailure"}
    del cluster.api.objects[f"{KV}/virtualmachines/old"]
    result = go("in_service")
    assert [target for action, target in done(result) if action == "start"] == ["VM ml/hand"]
    assert any("ml/web" in warning and "RerunOnFailure" in warning for warning in result["warnings"])
    assert any("ml/old" in warning and "deleted" in warning for warning in result["warnings"])


def test_control_plane_nodes_go_one_at_a_time_and_the_only_one_never(cluster: Cluster, go) -> None:
    nodes = cluster.objects("nodes")
    nodes[NODE]["metadata"]["labels"].update(CONTROL_PLANE)
    assert "the only control-plane node" in go("out_of_service", budget="3")["msg"]
    nodes["gpu2"]["metadata"]["labels"].update(CONTROL_PLANE)
    assert not go("out_of_service", budget="3")["failed"]
    assert "one at a time" in go("out_of_service", budget="3", node="gpu2")["msg"]
    assert not go("out_of_service", budget="3", node="gpu3")["failed"]
    assert not go("out_of_service", budget="3")["failed"], "a node that is out already may be gone on with"


def test_a_slot_is_released_with_a_reason_and_says_what_nobody_will_start(cluster: Cluster, go) -> None:
    full(cluster)
    assert not go("out_of_service")["failed"]
    assert go("released", run="me")["failed"]
    result = go("released", run="me", reason="scrapped")
    assert done(result) == [("release", "slot of node gpu1")]
    assert any("ml/web (runStrategy: Always)" in warning for warning in result["warnings"])
    assert cluster.slots() == {}
    assert not go("released", run="me", reason="scrapped")["changed"]


def test_without_the_right_to_slots_the_message_has_the_command(cluster: Cluster, go) -> None:
    cluster.api.faults = [
        Fault(403, when=lambda r: r.method == "POST" and r.path == "/api/v1/namespaces", reason="Forbidden", message="no")
    ]
    result = go("out_of_service")
    assert "kubectl create namespace gpufleet-system" in result["msg"]
    assert "unschedulable" not in cluster.objects("nodes")[NODE]["spec"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"budget": "0"}, "write at least 1"),
        ({"node": "GPU 1"}, "no node name"),
        ({"node": "gpu9"}, "no such node"),
        ({"run": " "}, "run: it is empty"),
        ({"force_vms": ["web"]}, "NAMESPACE/NAME"),
        ({"timeout": -1}, "timeout: -1"),
        ({"expect": {A10: "many"}}, "expect: 'many'"),
    ],
)
def test_bad_input_is_named_before_anything_is_written(cluster: Cluster, go, more: Json, words: str) -> None:
    result = go("out_of_service", **more)
    assert result["failed"]
    assert words in result["msg"]
    assert cluster.api.written == []


def test_slots_that_nobody_here_wrote_stop_everything(cluster: Cluster, go) -> None:
    cluster.api.add(SLOTS, {"data": {"gpu2": "mine"}})
    result = go("out_of_service")
    assert f"{_slots.OBJECT}: what stands under gpu2 is no slot" in result["msg"]
    assert cluster.api.written == []


def test_of_two_runs_that_take_the_last_slot_at_once_one_gets_it(cluster: Cluster, go) -> None:
    assert not go("out_of_service", node="gpu3")["failed"]
    assert not go("in_service", node="gpu3")["failed"]

    def other(request: Request) -> None:
        if request.path == SLOTS and "gpu2" not in cluster.slots():
            theirs = {"run": "b", "since": "2026-01-01T00:00:00Z", "touched": "2026-01-01T00:00:00Z", "scope": "gpu", "cleared": False}
            data = {"_budget": "1", "gpu2": json.dumps({**theirs, "restore": []})}
            cluster.api.add(SLOTS, {**cluster.api.objects[SLOTS], "data": data})

    cluster.api.before_write = other
    result = go("out_of_service")
    assert result["failed"] and "gpu2 (run b)" in result["msg"]
    assert set(cluster.slots()) == {"_budget", "gpu2"}


def test_what_is_stopped_or_evicted_is_what_was_seen_and_nothing_that_came_in_its_place(cluster: Cluster, go) -> None:
    full(cluster)
    versions = {name: item["metadata"]["resourceVersion"] for name, item in cluster.objects("virtualmachines").items()}
    uid = cluster.objects("pods")["app"]["metadata"]["uid"]
    assert not go("out_of_service")["failed"]
    stops = {r.path.rpartition("/")[2]: r.body for r in cluster.api.requests if r.method == "PATCH" and "/virtualmachines/" in r.path}
    assert {name: body["metadata"]["resourceVersion"] for name, body in stops.items()} == {
        name: versions[name] for name in ("web", "hand", "old")
    }
    (eviction,) = [request.body for request in cluster.api.requests if request.path.endswith("/pods/app/eviction")]
    assert eviction["deleteOptions"] == {"preconditions": {"uid": uid}}
