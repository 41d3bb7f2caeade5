# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ``gpu_node_label`` decides about one node, and how it says so: values in, a plan out."""

from __future__ import annotations

import typing as t

import pytest
from gpu_objects import DEPLOY, OPERANDS, PROFILE, REFUSED, WORKLOAD, Json, node

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _names
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import Plan
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _labels
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._fleet import Use
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._labels import Desired, Observed

THEIRS = {OPERANDS: "false"}
OURS: tuple[Json, Json] = ({OPERANDS: "false"}, {REFUSED: "x"})


def plan(labels: Json, wanted: Desired, notes: Json | None = None, running: t.Iterable[str] = (), vms: int = 0, **more: t.Any) -> Plan:
    """The plan for node ``a``, which carries these labels and so many VMs."""
    uses = tuple(Use("a", "ml", None, str(number), {}) for number in range(vms))
    keys = ("in_use", "unknown_nodes")
    observed = Observed({"a": node("a", labels, notes=notes)}, uses=uses, operands={"a": frozenset(running)}, **_without(more, keys))
    return _labels.make_plan([wanted], observed, **{key: value for key, value in more.items() if key in keys})


def _without(values: Json, keys: t.Iterable[str]) -> Json:
    return {key: value for key, value in values.items() if key not in keys}


# ------------------------------------------------------------------ somebody else's decision


@pytest.mark.parametrize(
    ("labels", "notes", "operands", "warned"),
    [
        (THEIRS, {}, True, True),
        (THEIRS, {}, None, False),
        (THEIRS, {}, False, False),
        ({OPERANDS: "true"}, {}, True, False),
        ({}, {}, True, False),
        (*OURS, True, False),
    ],
    ids=["wanted", "not asked", "not wanted either", "on", "nothing said", "ours"],
)
def test_operands_that_somebody_else_keeps_off_are_warned_of_if_they_are_wanted(
    labels: Json, notes: Json, operands: bool | None, warned: bool
) -> None:
    found = plan(labels, Desired("a", operands=operands), notes)
    assert any("somebody else has set" in warning for warning in found.warnings) is warned


# ------------------------------------------------------------------ what would happen to devices


@pytest.mark.parametrize(
    ("labels", "running", "workload"),
    [
        ({WORKLOAD: "container"}, ["vfio-manager"], "container"),
        ({WORKLOAD: "unknown"}, ["vfio-manager"], "vm-passthrough"),
        ({}, ["vgpu-manager"], "vm-vgpu"),
        ({DEPLOY + "vfio-manager": "true"}, [], "vm-passthrough"),
        ({DEPLOY + "vfio-manager": "false"}, [], None),
        ({"vfio-manager": "true", "nvidia.com/gpu.xdeploy.vfio-manager": "true"}, [], None),
        ({DEPLOY + "device-plugin": "true"}, [], "container"),
        ({}, [], None),
    ],
)
def test_the_workload_of_a_node_is_its_label_or_what_its_operands_show(labels: Json, running: list[str], workload: str | None) -> None:
    assert _labels.effective_workload(node("a", labels), frozenset(running)) == workload


@pytest.mark.parametrize(
    ("labels", "change", "phrase"),
    [
        ({WORKLOAD: "container"}, {WORKLOAD: "vm-vgpu"}, "the operator would take the devices of workload container for vm-vgpu"),
        ({}, {WORKLOAD: "vm-vgpu"}, "the operator would take devices that are not the operator's yet for vm-vgpu"),
        ({WORKLOAD: "vm-vgpu"}, {WORKLOAD: None}, "the operator would take the devices of workload vm-vgpu for its default workload"),
        ({PROFILE: "A10-4Q"}, {PROFILE: "A10-8Q"}, "the vGPU Device Manager would remove the vGPUs of A10-4Q for A10-8Q"),
        ({}, {PROFILE: None}, "the vGPU Device Manager would remove the vGPUs of the default for the default"),
        ({}, {OPERANDS: "false"}, "the operator would remove its operands"),
        ({}, {OPERANDS: None}, "the operator would start operands for workload its default"),
        ({WORKLOAD: "vm-vgpu"}, {OPERANDS: None}, "the operator would start operands for workload vm-vgpu"),
        ({WORKLOAD: "vm-vgpu"}, {OPERANDS: None, WORKLOAD: "vm-vgpu"}, "the operator would start operands for workload vm-vgpu"),
        ({WORKLOAD: "vm-vgpu"}, {WORKLOAD: "vm-vgpu", "team": "ml"}, None),
        ({}, {"team": "ml"}, None),
    ],
)
def test_what_the_operator_would_do_is_said(labels: Json, change: Json, phrase: str | None) -> None:
    assert _labels.disturbance(node("a", labels), change, frozenset()) == phrase


@pytest.mark.parametrize(("vms", "words"), [(1, "which VM ml/0 uses"), (2, "which VM ml/0, VM ml/1 use")])
def test_devices_in_use_stop_their_node_only_unless_that_is_to_be_ignored(vms: int, words: str) -> None:
    wanted = Desired("a", workload="vm-vgpu")
    refused = plan({WORKLOAD: "container"}, wanted, vms=vms)
    assert [blocker.stops for blocker in refused.blockers] == ["target"] and refused.blockers[0].problem.endswith(words)
    assert not refused.changes and not refused.warnings
    ignored = plan({WORKLOAD: "container"}, wanted, vms=vms, in_use="ignore")
    assert len(ignored.changes) == 1 and not ignored.blockers
    assert ignored.warnings[0].endswith(f"although {words[6:].rsplit(' ', 1)[0]} use it.")
    assert plan({WORKLOAD: "container"}, wanted, in_use="ignore").warnings == []


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(("why", "words"), [("the IOMMU is off", "(the IOMMU is off)"), (None, "(refused)")])
def test_operands_that_run_are_left_and_stop_their_node_only(why: str | None, words: str) -> None:
    found = plan({}, Desired("a", operands=False, why=why), running=["vfio-manager"])
    assert [(blocker.target, blocker.stops, words in blocker.problem) for blocker in found.blockers] == [("node a", "target", True)]


def test_the_reason_of_a_refusal_is_noted_and_kept_short() -> None:
    def noted(why: str | None) -> str:
        return t.cast(str, plan({}, Desired("a", operands=False, why=why)).changes[0].after["annotations"][REFUSED])

    assert (noted("the IOMMU is off"), noted(None), noted("x" * 1000)) == ("the IOMMU is off", "refused", "x" * 400)


def test_an_unknown_node_stops_all_unless_it_may_be_left_out() -> None:
    wanted = [Desired("nobody", workload="container"), Desired("a", workload="container")]
    observed = Observed({"a": node("a")})
    assert [blocker.target for blocker in _labels.make_plan(wanted, observed).blockers] == ["node nobody"]
    lenient = _labels.make_plan(wanted, observed, unknown_nodes="warn")
    assert (lenient.blockers, lenient.warnings) == ([], ["node nobody: no such node, left out."])
    assert [change.target for change in lenient.changes] == ["node a"]


@pytest.mark.parametrize(
    ("profiles", "remedy"),
    [
        ({"A10-4Q", "A10-8Q"}, "Nearest: A10-4Q, A10-8Q"),
        ({"A10-4Q", "A10-4C", "A10-4A", "A10-4B"}, "Nearest: A10-4Q, A10-4C, A10-4B"),
        ({f"x{number}" for number in range(9)}, "It has x0, x1, x2, x3, x4, x5, x6, x7"),
        (set(), "It has none"),
    ],
)
def test_a_profile_that_there_is_not_is_answered_with_those_that_there_are(profiles: set[str], remedy: str) -> None:
    found = plan({}, Desired("a", vgpu_config="A10-44Q"), profiles=frozenset(profiles))
    assert ([blocker.remedy for blocker in found.blockers], found.changes) == ([remedy], [])


# ------------------------------------------------------------------ the request and the change


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        ({OPERANDS: "x"}, f"label {OPERANDS} is set by the option operands"),
        ({PROFILE: "x"}, f"label {PROFILE} is set by the option vgpu_config"),
        ({WORKLOAD: "x"}, f"label {WORKLOAD} is set by the option workload"),
    ],
)
def test_a_label_that_an_option_sets_names_the_option(labels: Json, problem: str) -> None:
    assert [blocker.problem for blocker in _labels.request_problems([Desired("a", labels=labels)])] == [problem]


def test_a_bad_value_names_its_label_and_a_bad_key_stands_for_itself() -> None:
    value, key = (_labels.request_problems([Desired("a", labels=labels)])[0].problem for labels in ({"x": "no blanks"}, {"-x": "1"}))
    with pytest.raises(ValueError, match="-x") as error:
        _names.check_label_key("-x")
    assert value.startswith("label x: ") and key == str(error.value)


@pytest.mark.parametrize(("value", "text"), [(True, "true"), (False, "false"), (7, "7"), ("x", "x"), (None, None)])
def test_the_values_of_labels_are_text(value: t.Any, text: str | None) -> None:
    assert _labels.desired({"name": "a", "labels": {"x": value}}).labels == {"x": text}


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (Desired("a", operands=False, why="the IOMMU is off"), "no operands: the IOMMU is off"),
        (Desired("a", operands=False), "no operands: refused"),
        (Desired("a", workload="vm-vgpu", vgpu_config="A10-4Q"), "workload vm-vgpu, profile A10-4Q"),
        (Desired("a", workload="container", operands=True), "workload container"),
        (Desired("a", labels={"team": "ml"}), "labels differ"),
    ],
)
def test_a_change_says_why(wanted: Desired, reason: str) -> None:
    assert [(change.action, change.reason) for change in plan({}, wanted).changes] == [("label", reason)]


def test_a_token_carries_when_it_was_read() -> None:
    token = _labels.tokens([Desired("a", workload="vm-vgpu")], Observed({"a": node("a")}, managers={"a": "u"}), "2026-01-02T03:04:05Z")
    assert token == [{"name": "a", "state": None, "pod": "u", "time": "2026-01-02T03:04:05Z"}]
