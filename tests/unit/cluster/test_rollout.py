# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from fake_api import FakeApi
from gpu_objects import A10, NAMESPACE, Json, daemonset, operand_pod, revisions, vmi
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _rollout

MODULE = "gpu_operator_rollout_info"
OPERANDS = ("vfio-manager", "sandbox-device-plugin")


def seen(*pods: Json, sets: t.Sequence[Json] = (), vms: Json | None = None) -> _rollout.Seen:
    every = [revision for operand in OPERANDS for revision in revisions(operand)]
    return _rollout.Seen(list(sets) or [daemonset(operand) for operand in OPERANDS], every, list(pods), vms or {})


def fill(api: FakeApi, strategies: t.Mapping[str, str], *pods: Json) -> None:
    base = f"/apis/apps/v1/namespaces/{NAMESPACE}"
    for operand, strategy in strategies.items():
        api.add(f"{base}/daemonsets/{operand}", daemonset(operand, strategy))
        for item in revisions(operand):
            api.add(f"{base}/controllerrevisions/{item['metadata']['name']}", item)
    for item in pods:
        api.add(f"/api/v1/namespaces/{NAMESPACE}/pods/{item['metadata']['name']}", item)


def test_a_node_with_an_old_pod_is_pending_with_its_vms_and_one_with_new_pods_is_not() -> None:
    old, new = operand_pod("vfio-manager", "a", revision="old"), operand_pod("vfio-manager", "b")
    [entry] = _rollout.pending(seen(old, new, vms={"a": ["ml/v"]}))
    assert entry == {"node": "a", "pods": [old["metadata"]["name"]], "vms": ["ml/v"]}


@pytest.mark.parametrize(
    "change", [{"deletionTimestamp": "2026-01-01T00:00:00Z"}, {"ownerReferences": [{"kind": "DaemonSet", "uid": "other"}]}]
)
def test_what_is_going_or_belongs_to_no_operand_is_not_pending(change: Json) -> None:
    item = operand_pod("vfio-manager", "a", revision="old")
    item["metadata"].update(change)
    assert _rollout.pending(seen(item)) == []
    assert _rollout.pending(seen(operand_pod("vfio-manager", "a", revision="old", phase="Failed"))) == []


def test_a_daemonset_without_a_selector_for_operands_is_none() -> None:
    nfd = daemonset("vfio-manager", "RollingUpdate")
    nfd["spec"]["template"]["spec"]["nodeSelector"] = {}
    assert _rollout.other_strategy(seen(sets=[nfd, daemonset("sandbox-device-plugin")]), "OnDelete") == []


def test_without_a_strategy_a_daemonset_is_rolled_by_itself() -> None:
    item = daemonset("vfio-manager")
    del item["spec"]["updateStrategy"]
    assert _rollout.other_strategy(seen(sets=[item]), "OnDelete") == ["vfio-manager (RollingUpdate)"]


def test_the_message_says_how_many_nodes_which_pods_and_which_vms() -> None:
    said = _rollout.text([{"node": "a", "pods": ["p1", "p2"], "vms": ["ml/v"]}, {"node": "b", "pods": ["p3"], "vms": []}], "ns")
    assert "2 nodes are pending roll" in said
    assert "node a: p1, p2; VMs with GPUs: ml/v" in said
    assert "-n ns" in said
    assert _rollout.text([], "ns") == ""


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["old", "new"])), max_size=6), st.sets(st.sampled_from("abc")))
def test_pending_are_exactly_the_nodes_with_old_pods_among_those_that_are_asked_for(
    entries: list[tuple[str, str]], nodes: set[str]
) -> None:
    pods = [operand_pod(OPERANDS[number % 2], node, revision) for number, (node, revision) in enumerate(entries)]
    old = {node for node, revision in entries if revision == "old"}
    assert {entry["node"] for entry in _rollout.pending(seen(*pods), nodes)} == (old & nodes if nodes else old)


# ------------------------------------------------------------------ the module


def test_the_module_reads_strategies_and_pending_nodes(api: FakeApi, run_module) -> None:
    fill(api, dict.fromkeys(OPERANDS, "OnDelete"), operand_pod("vfio-manager", "a", revision="old"))
    api.add("/apis/kubevirt.io/v1/namespaces/ml/virtualmachineinstances/v", vmi("v", "a", [A10]))
    found = run_module(MODULE, {**api.params, "update_strategy": "OnDelete"})
    assert (found["failed"], found["changed"]) == (False, False)
    assert {entry["name"]: entry["update_strategy"] for entry in found["daemonsets"]} == dict.fromkeys(OPERANDS, "OnDelete")
    assert [(entry["node"], entry["vms"]) for entry in found["pending"]] == [("a", ["ml/v"])]
    assert "1 node is pending roll" in found["text"]
    assert all(request.method == "GET" for request in api.requests)


def test_a_daemonset_that_is_still_rolled_by_itself_is_named_at_the_end_of_the_wait(api: FakeApi, run_module) -> None:
    fill(api, {"vfio-manager": "OnDelete", "sandbox-device-plugin": "RollingUpdate"})
    found = run_module(MODULE, {**api.params, "update_strategy": "OnDelete", "timeout": 0})
    assert found["failed"]
    assert "DaemonSet sandbox-device-plugin (RollingUpdate): it must be OnDelete" in found["msg"]
    assert "vfio-manager" not in found["msg"]


def test_a_change_that_its_controller_has_not_seen_is_waited_for(api: FakeApi, run_module) -> None:
    fill(api, {"vfio-manager": "OnDelete"})
    api.objects[f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/vfio-manager"]["status"]["observedGeneration"] = 1
    found = run_module(MODULE, {**api.params, "timeout": 0})
    assert found["failed"] and "has not seen its last change" in found["msg"]


def test_an_operator_without_operands_has_nothing_to_wait_for(api: FakeApi, run_module) -> None:
    fill(api, {})
    api.add(f"/api/v1/namespaces/{NAMESPACE}")
    api.add(f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/x", {**daemonset("vfio-manager"), "spec": {}})
    api.add(f"/apis/apps/v1/namespaces/{NAMESPACE}/controllerrevisions/x", {"metadata": {}})
    api.add(f"/api/v1/namespaces/{NAMESPACE}/pods/x", {"metadata": {"name": "x"}})
    found = run_module(MODULE, {**api.params, "update_strategy": "OnDelete"})
    assert not found["failed"], found["msg"]
    assert found["daemonsets"] == []
