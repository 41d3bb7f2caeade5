# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Operands that a change has paused which died."""

from __future__ import annotations

import typing as t

import pytest
from fake_api import FakeApi
from gpu_objects import DEPLOY, NAMESPACE, PROFILE, STATE, VGPU, WORKLOAD, Json, launcher, node, operand_pod, vmi
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _labels, _operands, _paused

PAUSED = "paused-for-vgpu-change"
UPGRADE = "paused-for-driver-upgrade"
MIG_MANAGER = DEPLOY + "mig-manager"
PLUGIN, VALIDATOR = DEPLOY + "sandbox-device-plugin", DEPLOY + "sandbox-validator"
VGPU_NODE = {WORKLOAD: "vm-vgpu", PROFILE: "A10-4Q", PLUGIN: PAUSED, VALIDATOR: PAUSED, DEPLOY + "vgpu-manager": "true"}
WISH = {"name": "a", "workload": "vm-vgpu", "vgpu_config": "A10-4Q"}


@pytest.mark.parametrize(
    ("workload", "before", "after"),
    [
        ("vm-vgpu", {PLUGIN: PAUSED, VALIDATOR: ""}, {PLUGIN: "true", VALIDATOR: "true"}),
        ("vm-vgpu", {PLUGIN: UPGRADE, VALIDATOR: "pre-installed_" + UPGRADE}, {PLUGIN: "true", VALIDATOR: "pre-installed"}),
        ("vm-vgpu", {PLUGIN: "false", VALIDATOR: "pre-installed"}, {}),
        ("vm-vgpu", {DEPLOY + "driver": PAUSED, DEPLOY + "device-plugin": ""}, {}),
        ("vm-passthrough", {DEPLOY + "vgpu-manager": PAUSED, VALIDATOR: PAUSED}, {VALIDATOR: "true"}),
        ("container", {DEPLOY + "device-plugin": "custom_" + UPGRADE, PLUGIN: PAUSED}, {DEPLOY + "device-plugin": "custom"}),
        (None, {PLUGIN: PAUSED}, {}),
        # k8s-driver-manager leaves an empty label of what was never there, and a GPU without MIG has no MIG manager.
        ("container", {MIG_MANAGER: ""}, {}),
        ("container", {MIG_MANAGER: "", "nvidia.com/mig.capable": "false"}, {}),
        ("container", {MIG_MANAGER: "", "nvidia.com/mig.capable": "true"}, {MIG_MANAGER: "true"}),
        ("container", {MIG_MANAGER: UPGRADE}, {MIG_MANAGER: "true"}),
        ("vm-vgpu", {DEPLOY + "operands": PAUSED, "team": PAUSED}, {}),
    ],
)
def test_operands_of_the_nodes_own_workload_are_set_free(workload: str | None, before: Json, after: Json) -> None:
    assert _paused.freed(node("a", before), workload) == after


def test_what_is_paused_is_said_with_its_value_and_an_empty_one_is_not_paused() -> None:
    own = {PLUGIN: PAUSED, VALIDATOR: "", DEPLOY + "driver": PAUSED, DEPLOY + "vgpu-manager": "true_" + UPGRADE}
    assert _paused.paused(own, "vm-vgpu") == [f"{PLUGIN}={PAUSED}", f"{DEPLOY}vgpu-manager=true_{UPGRADE}"]


VALUES = st.sampled_from(["true", "false", "", "pre-installed", PAUSED, UPGRADE, "true_" + UPGRADE, "false_" + UPGRADE])
OPERANDS = st.sampled_from(sorted({DEPLOY + operand for found in _operands.DEPLOYED.values() for operand in found} | {DEPLOY + "operands"}))


@given(st.dictionaries(OPERANDS, VALUES), st.sampled_from(sorted(_operands.DEPLOYED)))
def test_setting_free_again_does_nothing_and_takes_back_nobodys_decision(own: dict[str, str], workload: str) -> None:
    freed = _paused.freed(node("a", own), workload)
    assert _paused.freed(node("a", {**own, **freed}), workload) == {}
    assert all(own[key] not in ("true", "false", "pre-installed") for key in freed)
    assert set(freed) <= {DEPLOY + operand for operand in _operands.DEPLOYED[workload]}


def preparing(operand: str, running: bool = True) -> Json:
    item = operand_pod(operand, "a", ready=False, phase="Pending")
    item["status"]["initContainerStatuses"] = [{"state": {"running": {}} if running else {"waiting": {"reason": "ImagePullBackOff"}}}]
    return item


def driver_preparing() -> Json:
    """The container driver, whose first init container has ended."""
    item = preparing("vfio-manager")
    item["metadata"]["labels"] = {"app": "nvidia-driver-daemonset"}
    item["spec"]["nodeSelector"] = {DEPLOY + "driver": "true"}
    item["status"]["initContainerStatuses"].insert(0, {"state": {"terminated": {}}})
    return item


def ready_by_its_last_condition() -> Json:
    item = operand_pod("vgpu-device-manager", "a")
    item["status"]["conditions"].insert(0, {"type": "Initialized", "status": "True"})
    return item


@pytest.mark.parametrize(
    ("state", "pods", "expected"),
    [
        ("pending", [operand_pod("vgpu-device-manager", "a")], ["nvidia-vgpu-device-manager"]),
        ("success", [operand_pod("vgpu-device-manager", "a")], []),
        ("failed", [operand_pod("vgpu-device-manager", "a")], []),
        ("pending", [operand_pod("vgpu-device-manager", "a", ready=False, phase="Pending")], []),
        ("pending", [operand_pod("vgpu-device-manager", "a", phase="Failed")], []),
        ("pending", [operand_pod("vgpu-device-manager", "b")], []),
        ("pending", [], []),
        ("success", [preparing("vgpu-manager")], ["nvidia-vgpu-manager-daemonset"]),
        ("success", [preparing("vfio-manager")], ["nvidia-vfio-manager"]),
        ("success", [preparing("vgpu-manager", running=False)], []),
        ("success", [preparing("sandbox-validator")], []),
        ("success", [driver_preparing()], ["nvidia-driver-daemonset"]),
        ("pending", [ready_by_its_last_condition()], ["nvidia-vgpu-device-manager"]),
    ],
)
def test_who_is_in_the_middle_of_a_change(state: str, pods: list[Json], expected: list[str]) -> None:
    assert _paused.at_work(node("a", {STATE: state}), pods) == expected


def fill(api: FakeApi, state: str, *pods: Json, vm: bool = False) -> None:
    api.add("/api/v1/nodes/a", node("a", {**VGPU_NODE, STATE: state}, {VGPU: 12}))
    for item in (*pods, *([launcher("x", "a", {VGPU: 1})] if vm else [])):
        api.add(f"/api/v1/namespaces/{item['metadata'].get('namespace', NAMESPACE)}/pods/{item['metadata']['name']}", item)
    if vm:
        api.add("/apis/kubevirt.io/v1/namespaces/ml/virtualmachineinstances/x", vmi("x", "a", [VGPU]))


def label(api: FakeApi, run_module: t.Callable[..., Json], check: bool = False, **more: t.Any) -> Json:
    return run_module("gpu_node_label", {**api.params, "nodes": [WISH], "repair_paused": True, **more}, check=check)


def test_what_a_dead_change_left_is_repaired_once_and_as_check_mode_said(api: FakeApi, run_module: t.Callable[..., Json]) -> None:
    fill(api, "pending", operand_pod("vgpu-device-manager", "a", ready=False, phase="Pending"))
    checked = label(api, run_module, check=True)
    assert not api.written
    done = label(api, run_module)
    assert done["changes"] == checked["changes"]
    assert done["changes"][0]["after"]["labels"] == {PLUGIN: "true", VALIDATOR: "true"}
    assert "a change has paused that died" in done["changes"][0]["reason"]
    assert not label(api, run_module)["changed"]


def test_nothing_is_repaired_unless_it_is_asked_for(api: FakeApi, run_module: t.Callable[..., Json]) -> None:
    fill(api, "pending")
    assert not label(api, run_module, repair_paused=False)["changed"]


def test_a_node_that_is_kept_free_of_operands_gets_none_back(api: FakeApi, run_module: t.Callable[..., Json]) -> None:
    fill(api, "success")
    done = label(api, run_module, nodes=[{"name": "a", "operands": False, "why": "no IOMMU"}])
    [change] = done["changes"]
    assert change["after"]["labels"] == {DEPLOY + "operands": "false"}
    taken = label(api, run_module, nodes=[{**WISH, "operands": True}])
    assert {PLUGIN, VALIDATOR} <= set(taken["changes"][0]["after"]["labels"])


def test_another_profile_and_paused_operands_are_one_patch(api: FakeApi, run_module: t.Callable[..., Json]) -> None:
    fill(api, "failed")
    [change] = label(api, run_module, nodes=[{**WISH, "vgpu_config": "A10-8Q"}])["changes"]
    assert change["after"]["labels"] == {PROFILE: "A10-8Q", PLUGIN: "true", VALIDATOR: "true"}
    assert change["reason"] == "workload vm-vgpu, profile A10-8Q; what a change has paused that died is set free"


def test_a_change_that_is_under_way_is_left_alone_and_named(api: FakeApi, run_module: t.Callable[..., Json]) -> None:
    fill(api, "pending", operand_pod("vgpu-device-manager", "a"))
    api.add("/api/v1/nodes/b", node("b"))
    done = label(api, run_module, nodes=[WISH, {"name": "b", "workload": "container"}])
    # The other node is labelled all the same.
    assert done["failed"] and [request.path for request in api.written] == ["/api/v1/nodes/b"]
    assert "nvidia-vgpu-device-manager is in the middle of a change and has paused sandbox-device-plugin, sandbox-validator" in done["msg"]


@pytest.mark.parametrize(("state", "refused"), [("pending", True), ("failed", True), ("success", False)])
def test_a_change_that_would_go_on_under_a_vm_is_not_set_free(
    api: FakeApi, run_module: t.Callable[..., Json], state: str, refused: bool
) -> None:
    fill(api, state, vm=True)
    done = label(api, run_module)
    assert done["failed"] is refused, done
    assert ("ml/x" in done.get("msg", "") and "may remove vGPUs" in done.get("msg", "")) is refused
    assert bool(api.written) is not refused


def test_without_a_workload_in_the_request_that_of_the_node_counts(api: FakeApi, run_module: t.Callable[..., Json]) -> None:
    fill(api, "success")
    assert label(api, run_module, nodes=[{"name": "a"}])["changes"][0]["after"]["labels"] == {PLUGIN: "true", VALIDATOR: "true"}


def test_a_change_that_would_go_on_under_a_vm_is_seen_beside_other_labels(api: FakeApi, run_module: t.Callable[..., Json]) -> None:
    fill(api, "pending", vm=True)
    done = label(api, run_module, nodes=[{**WISH, "labels": {"rack": "r1"}}])
    assert done["failed"] and "ml/x" in done["msg"] and not api.written


def test_pods_are_read_only_where_something_is_to_be_set_free() -> None:
    wanted = [_labels.desired(WISH)]
    paused = _labels.Observed({"a": node("a", VGPU_NODE)})
    converged = _labels.Observed({"a": node("a", {**VGPU_NODE, PLUGIN: "true", VALIDATOR: "true"})})
    assert _labels.may_disturb(paused, wanted, repair_paused=True) == ["a"]
    assert _labels.may_disturb(paused, wanted) == _labels.may_disturb(converged, wanted, repair_paused=True) == []
    assert _labels.make_plan(wanted, paused).changes == []
