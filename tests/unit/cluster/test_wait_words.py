# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a node waits for, word by word, and the small print of the conditions."""

from __future__ import annotations

import typing as t

import pytest
from gpu_objects import A10, DEPLOY, OPERANDS, STATE, VGPU, WORKLOAD, Json, policy
from test_wait import Scene

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _wait

VALIDATOR = "sandbox-validator"


def statuses(scene: Scene, operand: str, **status: t.Any) -> Scene:
    scene.pod(operand)["status"].update({"conditions": [{"type": "Ready", "status": "False"}], **status})
    return scene


def waits(name: str, reason: str) -> list[Json]:
    return [{"name": name, "state": {"waiting": {"reason": reason}}}]


@pytest.mark.parametrize(
    ("status", "why"),
    [
        ({"containerStatuses": waits("main", "ErrImagePull")}, f"container main: ErrImagePull; {_wait.CAUSES['ImagePullBackOff']}"),
        (
            {"containerStatuses": waits("main", "CreateContainerConfigError")},
            "container main: CreateContainerConfigError; a ConfigMap or Secret that it names is missing",
        ),
        (
            {"initContainerStatuses": [{"name": "k8s-driver-manager", "state": {"running": {}}, "ready": False}]},
            "its init container k8s-driver-manager has not ended",
        ),
        ({"initContainerStatuses": [{"name": "sidecar", "state": {"running": {}}, "ready": True}], "phase": "Running"}, "Running"),
        ({"containerStatuses": [{"name": "main", "state": {"running": {}}, "ready": False}], "phase": "Running"}, "Running"),
        ({"initContainerStatuses": [{"name": "done", "state": {"terminated": {}}, "ready": False}], "phase": "Pending"}, "Pending"),
        ({"phase": None}, ""),
    ],
)
def test_why_a_pod_is_not_ready(status: Json, why: str) -> None:
    scene = statuses(Scene("vm-passthrough"), VALIDATOR, **status)
    assert scene.unmet() == f"pod {VALIDATOR}-a is not ready" + (f" ({why})" if why else "")


def test_a_pod_of_a_daemonset_that_is_gone_is_said_so() -> None:
    scene = Scene("vm-passthrough")
    scene.pod(VALIDATOR)["metadata"]["ownerReferences"][0]["uid"] = "another"
    assert scene.unmet() == f"pod {VALIDATOR}-a belongs to a DaemonSet that is gone"


def test_the_newest_revision_is_that_of_the_pods_own_daemonset() -> None:
    scene = Scene("vm-passthrough")
    scene.revisions.append(
        {
            "metadata": {
                "name": "other",
                "labels": {"controller-revision-hash": "newer"},
                "ownerReferences": [{"kind": "Other", "uid": "x"}, {"kind": "DaemonSet", "uid": "ds-other"}],
            },
            "revision": 99,
        }
    )
    assert scene.unmet() == ""
    [mine] = [item for item in scene.revisions if item["metadata"]["name"] == f"{VALIDATOR}-old"]
    mine["revision"] = 11
    # One of two owners is enough.
    mine["metadata"]["ownerReferences"].insert(0, {"kind": "Other", "uid": "x"})
    assert "is of an older revision" in scene.unmet()


def test_a_revision_without_a_number_is_the_oldest() -> None:
    scene = Scene("vm-passthrough")
    own = [item for item in scene.revisions if item["metadata"]["name"].startswith(VALIDATOR)]
    own[0].pop("revision")
    own[1]["revision"] = 1
    assert scene.unmet() == ""
    own[0], own[1] = own[1], own[0]
    scene.revisions.sort(key=lambda item: item.get("revision") is not None)
    assert scene.unmet() == ""


@pytest.mark.parametrize(("observed", "wanted", "waited"), [(None, None, False), (None, 1, True), (1, 1, False)])
def test_a_daemonset_that_its_controller_has_not_seen_yet(observed: int | None, wanted: int | None, waited: bool) -> None:
    scene = Scene("vm-passthrough")
    [item] = [item for item in scene.daemonsets if item["metadata"]["name"] == VALIDATOR]
    item["status"], item["metadata"]["generation"] = {"observedGeneration": observed}, wanted
    assert ("was changed a moment ago" in scene.unmet()) is waited


@pytest.mark.parametrize(("key", "value"), [(WORKLOAD, "container"), (WORKLOAD, None), (OPERANDS, "false")])
def test_a_decision_of_somebody_else_is_nothing_to_wait_for(key: str, value: str | None) -> None:
    scene = Scene("vm-passthrough")
    scene.label(key, value)
    found = _wait.unmet(scene.snapshot(), scene.wanted)
    assert found is not None and found.final and not found.ripens


def test_of_a_label_that_is_wrong_only_what_is_known_is_said() -> None:
    scene = Scene("vm-passthrough")
    scene.label(DEPLOY + "vfio-manager", "pre-installed")
    assert scene.unmet() == f"its label {DEPLOY}vfio-manager is pre-installed, not true"


@pytest.mark.parametrize(("ready", "counts"), [(["False", "False"], False), (["True", "False"], True)])
def test_a_failure_counts_if_a_device_manager_is_there_that_could_have_said_it(ready: list[str], counts: bool) -> None:
    scene = Scene("vm-vgpu", failed_before=False)
    scene.label(STATE, "failed")
    manager = scene.pod("vgpu-device-manager")
    scene.pods += [{**manager, "status": {**manager["status"], "conditions": [{"type": "Ready", "status": status}]}} for status in ready]
    scene.pods.remove(manager)
    found = _wait.unmet(scene.snapshot(), scene.wanted)
    assert (found is not None and found.final) is counts


def test_ready_is_the_condition_of_that_name() -> None:
    other = [{"type": "Ready", "status": "False"}, {"type": "Initialized", "status": "True"}]
    assert not _wait.ready({"status": {"conditions": other}})
    assert _wait.ready({"status": {"conditions": [*other[1:], {"type": "Ready", "status": "True"}]}})


def test_by_itself_a_failure_may_be_an_old_one_and_has_no_cause() -> None:
    assert _wait.Wanted("a", "vm-vgpu", ()).failed_before and str(_wait.Unmet("x")) == "x"


@pytest.mark.parametrize(
    ("offered", "said"),
    [
        (
            {"GA102GL_A10": 1},
            "it should advertise 10DE:2236: 2, and advertises nvidia.com/GA102GL_A10: 1 (the device plugin looks once, at its start)",
        ),
        ({}, "it should advertise 10DE:2236: 2, and advertises nothing"),
    ],
)
def test_what_is_missing_is_said_with_what_is_there(offered: dict[str, int], said: str) -> None:
    scene = Scene("vm-passthrough")
    scene.offer(**offered)
    assert scene.unmet() == said


def test_a_resource_that_is_missing_is_said_by_its_name() -> None:
    scene = Scene("container")
    scene.offer()
    assert scene.unmet() == "it should advertise nvidia.com/gpu: 2, and advertises nothing"


@pytest.mark.parametrize("backwards", [False, True])
def test_the_more_exact_wish_chooses_first(backwards: bool) -> None:
    expect: list[Json] = [{"pci": "10DE:2236", "count": 2}, {"resource": A10, "count": 2}]
    advertised = {A10: 2, "nvidia.com/OTHER": 2}
    assert _wait.match(reversed(expect) if backwards else expect, advertised) == ([A10, "nvidia.com/OTHER"], [])
    expect = [{"vgpu_type": "A10-4Q", "count": 2}, {"resource": VGPU, "count": 2}]
    advertised = {VGPU: 2, "nvidia.com/GRID_A10-4Q": 2}
    assert _wait.match(reversed(expect) if backwards else expect, advertised)[1] == []


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        ([{"type": "Error", "status": "True", "reason": "R", "message": "why"}], "the ClusterPolicy is notReady (R) (why)"),
        (
            [{"type": "Error", "status": "True", "reason": "R"}, {"type": "Ready", "status": "False", "message": "because"}],
            "the ClusterPolicy is notReady (R) (because)",
        ),
        ([], "the ClusterPolicy is notReady (no reason)"),
    ],
)
def test_what_the_operator_says_of_itself_is_handed_on(conditions: list[Json], said: str) -> None:
    scene = Scene("container")
    item = {**policy(), "status": {"state": "notReady", "conditions": conditions}}
    assert str(_wait.cluster_unmet(scene.snapshot(item))) == said
