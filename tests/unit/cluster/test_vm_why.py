# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Why a VM has no place: one cause, named from three sides."""

from __future__ import annotations

import typing as t

import pytest
from gpu_objects import A10, VGPU, Json, launcher, node, vmi
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _vm_why

HANDLED = {"kubevirt.io/schedulable": "true"}
OTHER = "nvidia.com/GA102GL_RTX_A6000"
SAYS = f"Unschedulable: 0/2 nodes are available: 2 Insufficient {A10}."


def fleet(*nodes: Json, permitted: t.Sequence[str] | None = (A10, VGPU), held: t.Sequence[Json] = ()) -> _vm_why.Fleet:
    return _vm_why.fleet_of(nodes, held, [], permitted)


def gpu_node(name: str, allocatable: Json, cordoned: bool = False, ready: bool = True, handled: bool = True) -> Json:
    found = node(name, HANDLED if handled else None, allocatable, ready=ready)
    if cordoned:
        found["spec"]["unschedulable"] = True
    return found


TWO = (gpu_node("gpu0", {A10: 2}), gpu_node("gpu1", {A10: 1}))

CASES = [
    pytest.param({A10: 1}, fleet(), "not advertised", "no node advertises a GPU", "device plugin", id="nobody"),
    pytest.param({A10: 1}, fleet(gpu_node("gpu0", {VGPU: 4})), "not advertised", f"gpu0 has {VGPU}: 4", "device plugin", id="others only"),
    pytest.param(
        {A10: 1},
        fleet(gpu_node("gpu0", {"nvidia.com/ga102gl-a10": 1})),
        "not advertised",
        f"no node advertises {A10}",
        "only the spelling",
        id="spelling",
    ),
    pytest.param(
        {A10: 3},
        fleet(*TWO),
        "not together",
        f"no node has 3 of {A10} together: gpu0 has 2 of {A10}; gpu1 has 1",
        "one node",
        id="too many",
    ),
    pytest.param(
        {A10: 1, VGPU: 1},
        fleet(gpu_node("a", {A10: 1}), gpu_node("b", {VGPU: 1})),
        "not together",
        f"a has 1 of {A10}, 0 of {VGPU}; b has 0 of {A10}, 1 of {VGPU}",
        "one node",
        id="two kinds",
    ),
    pytest.param(
        {A10: 1},
        fleet(*TWO, held=[launcher("v", "gpu0", {A10: "2"}), launcher("w", "gpu1", {A10: "1"})]),
        "in use",
        "held by gpu0: ml/v; gpu1: ml/w",
        "Stop one",
        id="all held",
    ),
    pytest.param(
        {A10: 2},
        fleet(*TWO, held=[launcher("v", "gpu0", {A10: "1"})]),
        "in use",
        "held by gpu0: ml/v",
        "Stop one",
        id="too few left on the one",
    ),
    pytest.param(
        {A10: 1},
        fleet(
            gpu_node("gpu0", {A10: 1}, cordoned=True), gpu_node("gpu1", {A10: 1}, ready=False), gpu_node("gpu2", {A10: 1}, handled=False)
        ),
        "node not available",
        "gpu0 is cordoned, gpu1 is not ready, gpu2 has no virt-handler that answers",
        "back into service",
        id="shut",
    ),
    pytest.param(
        {A10: 1},
        fleet(gpu_node("gpu0", {A10: 1}, cordoned=True), gpu_node("gpu1", {A10: 1})),
        "scheduler",
        f"{A10} is free on gpu1, and the scheduler says: {SAYS}",
        "besides the device",
        id="something else",
    ),
    pytest.param({}, fleet(*TWO), "scheduler", "it asks for no device", "Mend", id="no device"),
]


@pytest.mark.parametrize(("asked", "cluster", "name", "problem", "remedy"), CASES)
def test_no_place_has_one_cause(asked: dict[str, int], cluster: _vm_why.Fleet, name: str, problem: str, remedy: str) -> None:
    cause = _vm_why.no_place(asked, cluster, SAYS)
    assert cause.name == name
    assert problem in cause.problem
    assert remedy in cause.remedy


def test_a_pod_needs_no_virt_handler() -> None:
    cluster = fleet(gpu_node("gpu0", {A10: 1}, handled=False))
    assert _vm_why.no_place({A10: 1}, cluster, SAYS, "pod").name == "scheduler"
    assert _vm_why.no_place({A10: 1}, cluster, SAYS).name == "node not available"


def test_a_pod_that_holds_a_device_is_named_and_one_too_many_frees_none() -> None:
    theirs = launcher("x", "gpu0", {A10: "5"})
    theirs["metadata"].update(name="trainer", labels={}, annotations={})
    cause = _vm_why.no_place({A10: 1}, fleet(gpu_node("gpu0", {A10: 2}), held=[theirs]), SAYS)
    assert cause.problem == f"every node that has {A10} has too few free, held by gpu0: ml/trainer"


def test_how_many_are_asked_for_is_said_where_it_is_more_than_one() -> None:
    assert _vm_why.shown({VGPU: 1, A10: 2}) == f"2 of {A10} and {VGPU}"


@pytest.mark.parametrize(("one", "other", "same"), [("a/B-1", "a/b_1", True), ("a/b1", "a/b2", False), ("a/b", "a/b", False)])
def test_names_are_alike_that_differ_in_case_and_punctuation_only(one: str, other: str, same: bool) -> None:
    assert _vm_why.alike(one, [other]) == [other] * same


@pytest.mark.parametrize(
    ("device", "words"),
    [
        (
            {"permitted": True, "advertised": {"a": 2}, "requested_by": ["VM x/y"]},
            "permitted: yes; advertised by: a (2); asked for by: VM x/y",
        ),
        ({"permitted": False, "advertised": {}, "requested_by": []}, "permitted: no; advertised by: no node; asked for by: nobody"),
    ],
)
def test_a_device_has_three_sides(device: Json, words: str) -> None:
    assert _vm_why.sides(device) == words


def test_only_what_is_wrong_and_says_why_is_a_message() -> None:
    found = [condition("A", "r", "m"), condition("A", "r", "m", "True"), condition("A", "r", ""), condition("B", "s", "n")]
    item = {"status": {"conditions": found}}
    assert _vm_why.messages(item) == ["r: m", "s: n"]
    assert _vm_why.messages(item, "B") == ["s: n"]
    assert _vm_why.messages(None) == []


@pytest.mark.parametrize(
    ("permitted", "names"),
    [
        (None, None),
        ({}, []),
        ({"usb": [{"resourceName": "u"}], "pciHostDevices": [{"resourceName": "p"}, {}]}, ["p", "u"]),
        ({"mediatedDevices": [{"resourceName": "m"}]}, ["m"]),
    ],
)
def test_all_kinds_of_permits_count(permitted: Json | None, names: list[str] | None) -> None:
    assert _vm_why.permitted_names(permitted) == names


def test_a_cause_is_one_sentence_and_a_node_has_its_host_name() -> None:
    assert str(_vm_why.Cause("x", "it is so", "Do that")) == "it is so; do that"
    found = _vm_why.fleet_of([node("a", {"kubernetes.io/hostname": "h"}), node("b")], [], [], None)
    assert found.hostnames == {"a": "h", "b": "b"}
    assert found.closed == {"a", "b"}


@pytest.mark.parametrize(
    ("permitted", "problem", "remedy"),
    [
        (None, None, None),
        ([A10], None, None),
        ([], f"KubeVirt does not permit {A10}: permitted are nothing", f"resourceName {A10}"),
        ([VGPU], f"permitted are {VGPU}", f"resourceName {A10}"),
        (["nvidia.com/ga102gl_a10"], "permitted are nvidia.com/ga102gl_a10", "Ask for nvidia.com/ga102gl_a10: only the spelling differs"),
    ],
)
def test_what_the_list_lacks_is_not_permitted_and_no_list_permits_all(
    permitted: list[str] | None, problem: str | None, remedy: str | None
) -> None:
    cause = _vm_why.unpermitted({A10: 1}, fleet(*TWO, permitted=permitted))
    assert (cause is None) is (problem is None)
    if cause is not None and problem is not None and remedy is not None:
        assert cause.name == "not permitted"
        assert problem in cause.problem
        assert remedy in cause.remedy


def condition(kind: str, reason: str, message: str, status: str = "False") -> Json:
    return {"type": kind, "status": status, "reason": reason, "message": message}


DENIED = f"failed to render launch manifest: GPU {OTHER} is not permitted in permittedHostDevices configuration"
MISMATCH = "failed to create GPU host-devices: the number of device plugin GPU/s do not match the number of devices"
FAILURE = condition("Failure", "FailedCreate", "instancetype not found", "True")


@pytest.mark.parametrize(
    ("vm", "instance", "pod", "name", "words"),
    [
        ({"spec": {"runStrategy": "Halted"}}, None, None, "not to run", "its run strategy is Halted"),
        ({"spec": {"runStrategy": "Always"}}, None, None, "waiting", "no instance of it yet"),
        (
            {"spec": {"runStrategy": "Always"}, "status": {"conditions": [FAILURE]}},
            None,
            None,
            "kubevirt",
            "FailedCreate: instancetype not found",
        ),
        ({"spec": {"runStrategy": "Manual"}}, None, None, "not to run", "its run strategy is Manual"),
        ({"spec": {"runStrategy": "Halted"}, "status": {"conditions": [FAILURE]}}, None, None, "kubevirt", "instancetype not found"),
        ({"spec": {"runStrategy": "Once"}}, None, None, "waiting", "no instance of it yet"),
        (
            {"spec": {"runStrategy": "RerunOnFailure"}, "status": {"conditions": [condition("Failure", "x", "old")]}},
            None,
            None,
            "waiting",
            "no",
        ),
        (
            {"spec": {"runStrategy": "Always"}, "status": {"conditions": [condition("Ready", "x", "y", "True")]}},
            None,
            None,
            "waiting",
            "no",
        ),
        ({"spec": {"runStrategy": "Once"}, "status": {"conditions": [FAILURE]}}, None, None, "kubevirt", "instancetype not found"),
        (None, [condition("Synchronized", "FailedCreate", DENIED)], None, "not permitted", f"KubeVirt says: FailedCreate: {DENIED}"),
        (None, [condition("Synchronized", "x", MISMATCH)], None, "device refused", "handed over no device"),
        (None, [condition("Synchronized", "x", "no such claim")], None, "kubevirt", "KubeVirt says: x: no such claim"),
        (None, [condition("Ready", "GuestNotRunning", "Guest VM is not reported as running")], None, "kubevirt", "not reported"),
        (None, [], None, "waiting", "it is Scheduling"),
        (None, [], {"conditions": [condition("PodScheduled", "Unschedulable", SAYS)]}, "not advertised", f"no node advertises {OTHER}"),
        (
            None,
            [],
            {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "unhealthy devices"},
            "device refused",
            "it failed on gpu0: UnexpectedAdmissionError: unhealthy devices",
        ),
    ],
)
def test_the_cause_is_read_from_what_is_there(
    vm: Json | None, instance: list[Json] | None, pod: Json | None, name: str, words: str
) -> None:
    item = None if instance is None else vmi("vm", None, [OTHER], "Scheduling")
    if item is not None:
        item["status"]["conditions"] = instance
    runs = None if pod is None else {**launcher("vm", "gpu0", {OTHER: "1"}), "status": pod}
    cause = _vm_why.cause({OTHER: 1}, vm, item, runs, fleet(*TWO))
    assert cause.name == name
    assert words in cause.problem


@pytest.mark.parametrize(
    ("status", "name", "words"),
    [
        ({"phase": "Failed"}, "device refused", "it failed: no reason given"),
        ({"phase": "Failed", "reason": "NodeUnresponsive"}, "device refused", "it failed: NodeUnresponsive"),
        ({"phase": "Succeeded"}, "not to run", "its guest has shut down"),
        ({}, "waiting", "it is not seen by virt-controller yet"),
        ({"conditions": [condition("Ready", "a", "b"), condition("Synchronized", "c", "d")]}, "kubevirt", "KubeVirt says: c: d"),
        ({"conditions": [condition("Ready", "a", "b"), condition("Provisioning", "c", "d")]}, "kubevirt", "KubeVirt says: c: d"),
    ],
)
def test_an_instance_without_a_pod_has_a_cause_too(status: Json, name: str, words: str) -> None:
    cause = _vm_why.cause({OTHER: 1}, None, {"metadata": {"name": "vm"}, "status": status}, None, fleet(*TWO))
    assert (cause.name, cause.problem) == (name, words)


def test_a_refusal_that_a_new_permit_has_overtaken_is_said_to_pass() -> None:
    item = vmi("vm", None, [OTHER], "Pending")
    item["status"]["conditions"] = [condition("Synchronized", "FailedCreate", DENIED)]
    cause = _vm_why.cause({OTHER: 1}, None, item, None, fleet(*TWO, permitted=[OTHER]))
    assert (cause.name, "tries again by itself" in cause.remedy) == ("not permitted", True)


COUNTS = st.dictionaries(st.sampled_from([A10, VGPU]), st.integers(1, 3), min_size=1)
NODES = st.lists(st.tuples(st.dictionaries(st.sampled_from([A10, VGPU]), st.integers(0, 3)), st.booleans(), st.integers(0, 3)), max_size=3)


@given(COUNTS, NODES)
def test_something_is_said_to_be_free_exactly_where_one_node_has_all_of_it_left(
    asked: dict[str, int], rows: list[tuple[Json, bool, int]]
) -> None:
    nodes = [gpu_node(f"n{number}", offers, cordoned) for number, (offers, cordoned, _held) in enumerate(rows)]
    held = [launcher(f"v{number}", f"n{number}", {A10: str(count)}) for number, (_offers, _cordoned, count) in enumerate(rows) if count]
    cause = _vm_why.no_place(asked, fleet(*nodes, held=held), SAYS)
    left = [{**offers, A10: offers.get(A10, 0) - count} for offers, _cordoned, count in rows]
    fits = [all(here.get(name, 0) >= count for name, count in asked.items()) for here in left]
    assert (cause.name in ("scheduler", "node not available")) is any(fits)
    if any(fits):
        assert (cause.name == "scheduler") is any(fit and not cordoned for fit, (_offers, cordoned, _count) in zip(fits, rows, strict=True))
    assert cause.problem and cause.remedy
