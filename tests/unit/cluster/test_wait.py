# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import dataclasses
import typing as t

import pytest
from fake_api import FakeApi, Fault
from gpu_objects import (
    A10,
    DEPLOY,
    NAMESPACE,
    OPERANDS,
    PROOF,
    STATE,
    VGPU,
    WORKLOAD,
    Clock,
    Json,
    daemonset,
    node,
    operand_pod,
    policy,
    revisions,
)
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _wait
from ansible_collections.gpufleet.kubevirt.plugins.modules import gpu_operator_wait

MODULE = "gpu_operator_wait"
EXPECT: dict[str, list[Json]] = {
    "container": [{"resource": "nvidia.com/gpu", "count": 2}],
    "vm-passthrough": [{"pci": "10DE:2236", "count": 2}],
    "vm-vgpu": [{"vgpu_type": "A10-4Q", "count": 12}],
}
ALLOCATABLE = {"container": {"nvidia.com/gpu": 2}, "vm-passthrough": {A10: 2}, "vm-vgpu": {VGPU: 12}}
EVERY = sorted({operand for operands in PROOF.values() for operand in operands})


class Scene:
    """A cluster in which one node of a workload is what it should be; a case spoils something."""

    def __init__(self, workload: str, failed_before: bool = True) -> None:
        own = {WORKLOAD: workload, **{DEPLOY + operand: "true" for operand in PROOF[workload]}}
        if workload == "vm-vgpu":
            own[STATE] = "success"
        self.node = node("a", own, ALLOCATABLE[workload])
        self.pods = [operand_pod(operand, "a") for operand in PROOF[workload]]
        self.daemonsets = [daemonset(operand) for operand in EVERY]
        self.revisions = [revision for operand in EVERY for revision in revisions(operand)]
        self.wanted = _wait.Wanted("a", workload, tuple(EXPECT[workload]), failed_before)

    def label(self, key: str, value: str | None) -> None:
        self.node["metadata"]["labels"][key] = value
        if value is None:
            del self.node["metadata"]["labels"][key]

    def offer(self, **resources: int) -> None:
        offered = {f"nvidia.com/{name}": str(count) for name, count in resources.items()}
        self.node["status"]["allocatable"] = offered

    def pod(self, operand: str) -> Json:
        return next(pod for pod in self.pods if pod["metadata"]["name"] == f"{operand}-a")

    def snapshot(self, policy: Json | None = None) -> _wait.Snapshot:
        return _wait.Snapshot({"a": copy.deepcopy(self.node)}, self.pods, self.daemonsets, self.revisions, policy)

    def unmet(self) -> str:
        return str(_wait.unmet(self.snapshot(), self.wanted) or "")


@pytest.mark.parametrize("workload", sorted(PROOF))
def test_a_node_that_is_what_it_should_be_is_met(workload: str) -> None:
    assert Scene(workload).unmet() == ""


def crash(scene: Scene) -> None:
    pod = scene.pod("vgpu-manager")
    pod["status"] = {
        "phase": "Pending",
        "initContainerStatuses": [{"name": "k8s-driver-manager", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}],
    }


def pull(scene: Scene) -> None:
    pod = scene.pod("vgpu-manager")
    pod["status"] = {"phase": "Pending", "containerStatuses": [{"name": "main", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]}


def replace(scene: Scene) -> None:
    scene.pod("sandbox-device-plugin")["metadata"]["labels"]["controller-revision-hash"] = "old"


SPOILT: dict[str, tuple[str, t.Callable[[Scene], t.Any], str]] = {
    "not ready": ("container", lambda s: s.node["status"].update(conditions=[]), "the node is not ready"),
    "another workload": ("container", lambda s: s.label(WORKLOAD, "vm-vgpu"), "is vm-vgpu, not container (somebody else changed it)"),
    "no workload": ("container", lambda s: s.label(WORKLOAD, None), "is not set, not container (nobody has labelled it"),
    "operands kept off": ("container", lambda s: s.label(OPERANDS, "false"), f"{OPERANDS} is false"),
    "operator has not come": ("vm-passthrough", lambda s: s.label(f"{DEPLOY}vfio-manager", None), "the operator has not seen the node"),
    "paused": ("vm-vgpu", lambda s: s.label(f"{DEPLOY}sandbox-validator", "paused-for-vgpu-change"), "set the label to true"),
    "emptied": ("vm-passthrough", lambda s: s.label(f"{DEPLOY}vfio-manager", ""), "vfio-manager is empty, not true"),
    "no DaemonSet": ("vm-passthrough", lambda s: s.daemonsets.clear(), "there is no DaemonSet for vfio-manager"),
    "no pod": ("vm-passthrough", lambda s: s.pods.clear(), "no pod of vfio-manager runs on it"),
    "a pod elsewhere": ("container", lambda s: s.pod("device-plugin")["spec"].update(nodeName="b"), "no pod of device-plugin"),
    "an ended pod": ("container", lambda s: s.pod("device-plugin")["status"].update(phase="Failed"), "no pod of device-plugin"),
    "pod not ready": ("container", lambda s: s.pod("device-plugin")["status"].update(conditions=[]), "device-plugin-a is not ready"),
    "driver on the host": ("vm-vgpu", crash, "the host has an NVIDIA driver of its own"),
    "image": ("vm-vgpu", pull, "suffix of the node's OS"),
    "old revision": ("vm-vgpu", replace, "sandbox-device-plugin-a is of an older revision (its update strategy is OnDelete"),
    "going": ("vm-vgpu", lambda s: s.pod("vgpu-manager")["metadata"].update(deletionTimestamp="x"), "vgpu-manager-a is being deleted"),
    "unseen change": ("container", lambda s: s.daemonsets[0]["metadata"].update(generation=3), "was changed a moment ago"),
    "pending": ("vm-vgpu", lambda s: s.label(STATE, "pending"), "says pending"),
    "silent": ("vm-vgpu", lambda s: s.label(STATE, None), "says nothing yet"),
    "failed": ("vm-vgpu", lambda s: s.label(STATE, "failed"), "says failed"),
    "nothing offered": ("vm-passthrough", lambda s: s.offer(), "it should advertise 10DE:2236: 2, and advertises nothing"),
    "one too few": (
        "vm-passthrough",
        lambda s: s.offer(GA102GL_A10=1),
        "advertises nvidia.com/GA102GL_A10: 1 (the device plugin looks once",
    ),
    "old profile": ("vm-vgpu", lambda s: s.offer(**{"NVIDIA_A10-8Q": 12}), "should advertise A10-4Q: 12"),
    "left over": ("vm-passthrough", lambda s: s.offer(GA102GL_A10=2, gpu=2), "it also advertises nvidia.com/gpu"),
    "GPUs for containers are not for VMs": ("vm-passthrough", lambda s: s.offer(gpu=2), "should advertise 10DE:2236"),
    "a slice is no whole GPU": ("vm-passthrough", lambda s: s.offer(**{"NVIDIA_A10-4Q": 2}), "should advertise 10DE:2236"),
}


@pytest.mark.parametrize("case", sorted(SPOILT))
def test_the_first_condition_that_fails_is_named(case: str) -> None:
    workload, spoil, words = SPOILT[case]
    scene = Scene(workload)
    assert words not in scene.unmet()
    spoil(scene)
    assert words in scene.unmet()


@pytest.mark.parametrize(
    ("workload", "spare"),
    [
        ("vm-passthrough", lambda s: s.offer(GA102GL_A10=2, GA102_HIGH_DEFINITION_AUDIO_CONTROLLER=2)),
        ("vm-passthrough", lambda s: s.offer(GA102GL_A10=2, gpu=0, **{"NVIDIA_A10-4Q": 0})),
        ("vm-passthrough", lambda s: s.offer(**{"26b5": 2})),
        ("vm-vgpu", lambda s: s.offer(**{"A10-4Q": 12})),
        ("vm-vgpu", lambda s: (s.label(f"{DEPLOY}vgpu-manager", "false"), s.pods.remove(s.pod("vgpu-manager")))),
        ("container", lambda s: s.label(f"{DEPLOY}driver", "pre-installed")),
        ("container", lambda s: s.pods.append(operand_pod("device-plugin", "a", "old", False, "Failed"))),
    ],
    ids=["companion", "zeros stay behind", "a name that is an id", "no brand", "switched off", "driver on the host", "an ended pod"],
)
def test_what_does_not_matter_is_not_waited_for(workload: str, spare: t.Callable[[Scene], t.Any]) -> None:
    scene = Scene(workload)
    spare(scene)
    assert scene.unmet() == ""


def test_a_revision_is_judged_by_its_own_daemonset_where_there_are_several() -> None:
    scene = Scene("vm-vgpu")
    other = daemonset("vgpu-manager")
    other["metadata"].update(name="for-another-kernel", uid="ds-other")
    scene.daemonsets.append(other)
    assert scene.unmet() == ""


@pytest.mark.parametrize(
    ("policy_object", "words"),
    [
        (policy(), None),
        (policy("NoGPUNodes"), "ready (NoGPUNodes) (because NoGPUNodes)"),
        (policy("NFDLabelsMissing"), "NFDLabelsMissing"),
        (policy("Reconciled", "notReady"), "notReady"),
        (None, "no ClusterPolicy"),
    ],
)
def test_ready_counts_only_if_something_was_reconciled(policy_object: Json | None, words: str | None) -> None:
    found = _wait.cluster_unmet(Scene("container").snapshot(policy_object))
    assert found is None if words is None else words in str(found)


def test_what_the_operator_says_in_its_condition_of_errors_is_named() -> None:
    ready = {"type": "Ready", "status": "False", "reason": "Error", "message": ""}
    error = {"type": "Error", "status": "True", "reason": "OperandNotReady", "message": "states not ready: [state-vgpu-manager]"}
    found = _wait.cluster_unmet(Scene("container").snapshot({"status": {"state": "notReady", "conditions": [ready, error]}}))
    assert "OperandNotReady" in str(found) and "state-vgpu-manager" in str(found)


# ------------------------------------------------------------------ time


def test_everything_must_hold_unchanged_for_a_while() -> None:
    scene = Scene("container")
    waiting = _wait.Waiting([scene.wanted], cluster=False, settle=10)
    assert waiting.look(scene.snapshot(), 0) == "waiting"
    assert waiting.look(scene.snapshot(), 9) == "waiting"
    scene.node["status"]["allocatable"]["nvidia.com/AUDIO"] = "2"  # a companion, but a change
    assert waiting.look(scene.snapshot(), 11) == "waiting"
    assert waiting.look(scene.snapshot(), 20) == "waiting"
    scene.node["status"]["conditions"] = []
    assert waiting.look(scene.snapshot(), 21) == "waiting"
    scene.node["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
    assert waiting.look(scene.snapshot(), 22) == "waiting"
    assert waiting.look(scene.snapshot(), 32) == "done"


def test_a_failure_after_our_change_ends_the_wait_at_once() -> None:
    scene = Scene("vm-vgpu", failed_before=False)
    scene.label(STATE, "failed")
    assert _wait.Waiting([scene.wanted], False, 0).look(scene.snapshot(), 0) == "hopeless"


def test_a_lost_node_ends_no_others_wait_and_all_are_named() -> None:
    scene, gone = Scene("vm-vgpu"), _wait.Wanted("gone", "container", ())
    waiting = _wait.Waiting([gone, scene.wanted], cluster=True, settle=10)
    scene.label(STATE, "pending")
    assert waiting.look(scene.snapshot(policy("OperandNotReady", "notReady")), 0) == "waiting"
    assert {target: problem.final for target, problem in waiting.problems.items()} == {
        "node gone": True,
        "node a": False,
        "the operator": False,
    }
    scene.label(STATE, "success")
    # The other node is there. It still has to stay so, and nobody waits for an operator that a lost node keeps from being done.
    assert waiting.look(scene.snapshot(policy("OperandNotReady", "notReady")), 500) == "waiting"
    scene.offer()
    assert waiting.look(scene.snapshot(policy()), 505) == "waiting"
    scene.offer(**{"NVIDIA_A10-4Q": 12})
    assert waiting.look(scene.snapshot(policy()), 509) == "waiting"
    assert waiting.look(scene.snapshot(policy("OperandNotReady", "notReady")), 519) == "hopeless"
    assert list(waiting.problems) == ["node gone", "the operator"]
    assert waiting.met_at == {"a": 509}


def test_where_every_node_is_lost_nobody_settles() -> None:
    wanted = [_wait.Wanted(name, "container", ()) for name in ("gone", "lost")]
    waiting = _wait.Waiting(wanted, cluster=False, settle=10)
    assert waiting.look(Scene("container").snapshot(), 0) == "hopeless"
    assert list(waiting.problems) == ["node gone", "node lost"]


def test_a_failure_that_may_be_old_ends_the_wait_after_a_minute_without_a_break() -> None:
    scene = Scene("vm-vgpu")
    waiting = _wait.Waiting([scene.wanted], False, 0)
    for state, now, outcome in (
        ("failed", 0, "waiting"),
        ("failed", 59, "waiting"),
        ("pending", 60, "waiting"),
        ("failed", 61, "waiting"),
        ("failed", 120, "waiting"),
        ("failed", 121, "hopeless"),
    ):
        scene.label(STATE, state)
        assert waiting.look(scene.snapshot(), now) == outcome, (state, now)


def test_a_failed_that_nobody_could_have_written_is_an_old_label() -> None:
    scene = Scene("vm-vgpu", failed_before=False)
    scene.label(STATE, "failed")
    scene.pod("vgpu-device-manager")["status"]["conditions"] = []
    waiting = _wait.Waiting([scene.wanted], False, 0)
    assert waiting.look(scene.snapshot(), 0) == "waiting"
    assert waiting.look(scene.snapshot(), 500) == "waiting"


def test_a_failure_is_named_although_it_left_labels_paused() -> None:
    scene = Scene("vm-vgpu")
    scene.label(STATE, "failed")
    scene.label(f"{DEPLOY}sandbox-validator", "paused-for-vgpu-change")
    assert "says failed" in scene.unmet()


@given(
    st.lists(
        st.sampled_from([{"resource": "nvidia.com/gpu"}, {"pci": "10DE:2236"}, {"pci": "10DE:1EB8"}, {"vgpu_type": "A10-4Q"}]),
        max_size=4,
    ),
    st.lists(st.integers(1, 3), min_size=4, max_size=4),
    st.dictionaries(
        st.sampled_from(["nvidia.com/gpu", A10, "nvidia.com/TU104GL_TESLA_T4", VGPU, "nvidia.com/A10_AUDIO"]), st.integers(1, 3)
    ),
)
def test_a_resource_meets_at_most_one_expectation_and_always_with_its_count(
    whats: list[Json], counts: list[int], have: dict[str, int]
) -> None:
    expect = [{**what, "count": count} for what, count in zip(whats, counts, strict=False)]
    matched, missing = _wait.match(expect, have)
    assert len(matched) + len(missing) == len(expect)
    assert len(set(matched)) == len(matched)
    assert sum(have[name] for name in matched) + sum(e["count"] for e in missing) == sum(e["count"] for e in expect)
    assert not any("AUDIO" in name for name in matched)


# ------------------------------------------------------------------ the module


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(gpu_operator_wait, "time", clock)
    return clock


def fill(api: FakeApi, scene: Scene) -> None:
    api.add("/api/v1/nodes/a", scene.node)
    for pod in scene.pods:
        api.add(f"/api/v1/namespaces/{NAMESPACE}/pods/{pod['metadata']['name']}", pod)
    for item in scene.daemonsets:
        api.add(f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/{item['metadata']['name']}", item)
    for item in scene.revisions:
        api.add(f"/apis/apps/v1/namespaces/{NAMESPACE}/controllerrevisions/{item['metadata']['name']}", item)
    api.add("/apis/nvidia.com/v1/clusterpolicies/cluster-policy", policy())


def arguments(api: FakeApi, workload: str, **more: t.Any) -> Json:
    return {**api.params, "nodes": [{"name": "a", "workload": workload, "expect": EXPECT[workload]}], **more}


def owned(**resources: int) -> Scene:
    """A node of a host that owns its devices: no operand is there, and none may come."""
    scene = Scene("vm-vgpu")
    scene.node = node("a", {OPERANDS: "false"}, {})
    scene.pods, scene.wanted = [], dataclasses.replace(scene.wanted, owner="host")
    scene.offer(**resources)
    return scene


@pytest.mark.parametrize(
    ("resources", "operands", "why"),
    [
        ({"NVIDIA_A10-4Q": 12}, "false", ""),
        ({"NVIDIA_A10-4Q": 11}, "false", "should advertise A10-4Q: 12, and advertises nvidia.com/NVIDIA_A10-4Q: 11 (KubeVirt's own device"),
        (
            {},
            "false",
            "advertises nothing (KubeVirt's own device plugin advertises what is permitted; a restart of the node's virt-handler",
        ),
        ({"NVIDIA_A10-4Q": 12, "NVIDIA_A10-8Q": 6}, "false", "it also advertises nvidia.com/NVIDIA_A10-8Q"),
        ({"NVIDIA_A10-4Q": 12}, "true", "deploy.operands is true, not false"),
        ({"NVIDIA_A10-4Q": 12}, None, "deploy.operands is not set, not false"),
    ],
)
def test_of_a_host_that_owns_its_devices_only_what_it_advertises_counts(resources: dict[str, int], operands: str | None, why: str) -> None:
    scene = owned(**resources)
    scene.label(OPERANDS, operands)
    found = scene.unmet()
    assert why in found if why else found == ""


def test_an_unmet_node_that_is_only_to_be_reported_fails_nothing(api: FakeApi, run_module, clock: Clock) -> None:
    scene = Scene("container")
    scene.label(OPERANDS, "false")
    fill(api, scene)
    done = run_module(MODULE, arguments(api, "container", unmet="report"))
    assert not done["failed"] and not done["changed"]
    assert list(done["problems"]) == ["node a"] and "operands is false" in done["problems"]["node a"]
    assert [node["met"] for node in done["nodes"]] == [False]


def test_what_has_not_held_long_enough_is_given_time_for_that_before_others_suffer(api: FakeApi, run_module, clock: Clock) -> None:
    fill(api, Scene("container"))
    done = run_module(MODULE, arguments(api, "container", timeout=5, settle=60, unmet="report"))
    assert not done["failed"] and done["nodes"][0]["met"]
    assert clock.now - 1000 == pytest.approx(60, abs=1.5)


@pytest.mark.parametrize("workload", sorted(PROOF))
def test_a_finished_node_is_returned_with_what_it_advertises(api: FakeApi, run_module, clock: Clock, workload: str) -> None:
    fill(api, Scene(workload))
    done = run_module(MODULE, arguments(api, workload, settle=5))
    assert not done["failed"], done["msg"]
    assert not done["changed"]
    expected = {
        "name": "a",
        "met": True,
        "lags": False,
        "allocatable": ALLOCATABLE[workload],
        "resources": list(ALLOCATABLE[workload]),
        "waited": 0,
    }
    assert done["nodes"] == [expected]
    assert clock.now - 1000 == pytest.approx(5, abs=1.5)
    assert not api.written


def test_a_node_that_gets_there_is_waited_for(api: FakeApi, run_module, clock: Clock) -> None:
    scene = Scene("vm-vgpu")
    scene.offer()
    fill(api, scene)
    sleeps = []

    def later() -> None:
        sleeps.append(clock.now)
        if len(sleeps) == 7:
            api.objects["/api/v1/nodes/a"]["status"]["allocatable"] = {VGPU: "12"}

    clock.on_sleep = later
    done = run_module(MODULE, arguments(api, "vm-vgpu", settle=3, poll=2))
    assert [node["waited"] for node in done["nodes"]] == [14]


def test_time_out_names_node_condition_and_cause(api: FakeApi, run_module, clock: Clock) -> None:
    scene = Scene("vm-vgpu")
    pull(scene)
    fill(api, scene)
    done = run_module(MODULE, arguments(api, "vm-vgpu", timeout=30))
    assert done["failed"]
    assert "node a: pod vgpu-manager-a is not ready (container main: ImagePullBackOff" in done["msg"]
    assert "not done after 30 s" in done["msg"]
    assert list(done["problems"]) == ["node a"]
    assert [(node["met"], node["waited"]) for node in done["nodes"]] == [(False, None)]


def test_time_out_while_settling_says_so(api: FakeApi, run_module, clock: Clock) -> None:
    fill(api, Scene("container"))
    done = run_module(MODULE, arguments(api, "container", timeout=5, settle=60))
    assert done["failed"]
    assert "not long enough" in done["msg"]


@pytest.mark.parametrize(
    ("since", "seconds"),
    [([], 60), ([{"name": "a", "state": "failed"}], 60), ([{"name": "a", "state": None}], 0), ([{"name": "a", "state": "success"}], 0)],
    ids=["nobody looked", "it had failed before", "it had said nothing", "it had succeeded"],
)
def test_a_failure_counts_at_once_only_if_it_is_newer_than_the_token(
    api, run_module, clock: Clock, since: list[Json], seconds: int
) -> None:
    scene = Scene("vm-vgpu")
    scene.label(STATE, "failed")
    fill(api, scene)
    done = run_module(MODULE, arguments(api, "vm-vgpu", since=since, timeout=600))
    assert done["failed"]
    assert "waiting longer does not help" in done["msg"]
    assert clock.now - 1000 == pytest.approx(seconds, abs=1.5)


def test_an_unknown_node_is_not_waited_for(api: FakeApi, run_module, clock: Clock) -> None:
    fill(api, Scene("container"))
    done = run_module(MODULE, {**api.params, "nodes": [{"name": "b", "workload": "container"}]})
    assert done["failed"]
    assert "node b: there is no such node" in done["msg"]
    assert clock.now == 1000


def test_only_the_scope_cluster_asks_for_the_policy(api: FakeApi, run_module, clock: Clock) -> None:
    fill(api, Scene("container"))
    api.add("/apis/nvidia.com/v1/clusterpolicies/cluster-policy", policy("OperandNotReady", "notReady"))
    assert not run_module(MODULE, arguments(api, "container", scope="nodes", timeout=20))["failed"]
    whole = run_module(MODULE, arguments(api, "container", scope="cluster", timeout=20))
    assert whole["failed"]
    assert "the operator: the ClusterPolicy is notReady" in whole["msg"]


def test_check_mode_asks_nothing_and_returns_at_once(api: FakeApi, run_module, clock: Clock) -> None:
    done = run_module(MODULE, arguments(api, "container"), check=True)
    assert (done["failed"], done["changed"], done["nodes"]) == (False, False, [])
    assert "Would wait for a" in done["msg"]
    assert not api.requests
    assert clock.now == 1000


@pytest.mark.parametrize("expect", [{"count": 2}, {"resource": "nvidia.com/gpu", "pci": "10DE:2236", "count": 2}, {"pci": "10DE:2236"}])
def test_an_expectation_names_one_thing_and_a_count(api: FakeApi, run_module, expect: Json) -> None:
    assert run_module(MODULE, {**api.params, "nodes": [{"name": "a", "workload": "container", "expect": [expect]}]})["failed"]


def test_a_server_that_refuses_is_quoted(api: FakeApi, run_module, clock: Clock) -> None:
    api.faults.append(Fault(403, 99, reason="Forbidden", message="nodes is forbidden"))
    done = run_module(MODULE, arguments(api, "container"))
    assert done["failed"]
    assert "nodes is forbidden" in done["msg"]
