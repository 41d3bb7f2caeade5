# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from gpu_objects import A10, Json, node
from hypothesis import given, settings
from hypothesis import strategies as st
from maintenance_objects import NODE, claim, launcher, pod, vm, vmi

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _evacuation
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._evacuation import OnNode, Rules

GOING = {"targetNode": "gpu2", "sourceNode": NODE}
COMING = {"targetNode": NODE, "sourceNode": "gpu2"}
FORCE = frozenset({"ml/web"})


def acts(
    rules: Rules,
    pods: t.Sequence[Json] = (),
    vmis: t.Sequence[Json] = (),
    vms: t.Sequence[Json] | None = None,
    claims: t.Sequence[Json] = (),
) -> dict[str, str]:
    owners = {f"ml/{each['metadata']['name']}": each for each in ([vm()] if vms is None else vms)}
    return {item.target: item.act for item in _evacuation.classify(OnNode(NODE, pods, vmis, owners, claims), rules)}


VMS = [
    # what it is, {evacuate: act}
    ("with a GPU", vmi(), {"refuse": "refuse", "stop": "stop", "migrate": "refuse", "auto": "stop"}),
    ("migratable", vmi(migratable=True), {"refuse": "refuse", "stop": "stop", "migrate": "migrate", "auto": "migrate"}),
    ("not yet known whether migratable", vmi(migratable=None), {"refuse": "refuse", "stop": "stop", "migrate": "refuse", "auto": "stop"}),
    (
        "still scheduling",
        vmi(phase="Scheduling", migratable=True),
        {"refuse": "refuse", "stop": "stop", "migrate": "refuse", "auto": "stop"},
    ),
    ("bare", vmi(owner=None), {"refuse": "refuse", "stop": "refuse", "migrate": "refuse", "auto": "refuse"}),
    (
        "bare and migratable",
        vmi(owner=None, migratable=True),
        {"refuse": "refuse", "stop": "refuse", "migrate": "migrate", "auto": "migrate"},
    ),
    (
        "of a set",
        vmi(owner="VirtualMachineInstanceReplicaSet"),
        {"refuse": "refuse", "stop": "delete", "migrate": "refuse", "auto": "delete"},
    ),
    ("by claim", vmi(claim="c"), {"refuse": "refuse", "stop": "stop", "migrate": "refuse", "auto": "stop"}),
    ("shutting down", vmi(ending=True), dict.fromkeys(_evacuation.POLICIES, "wait")),
    ("migrating away", vmi(migratable=True, state=GOING), {"refuse": "refuse", "stop": "wait", "migrate": "wait", "auto": "wait"}),
    (
        "migrating to here",
        vmi(migratable=True, on="gpu2", state=COMING),
        {"refuse": "refuse", "stop": "wait", "migrate": "wait", "auto": "wait"},
    ),
    (
        "moved here before",
        vmi(state={**COMING, "completed": True}),
        {"refuse": "refuse", "stop": "stop", "migrate": "refuse", "auto": "stop"},
    ),
]


@pytest.mark.parametrize("scope", ["gpu", "node"])
@pytest.mark.parametrize("evacuate", _evacuation.POLICIES)
@pytest.mark.parametrize(("what", "instance", "expected"), VMS, ids=[case[0] for case in VMS])
def test_what_becomes_of_a_vm(what: str, instance: Json, expected: dict[str, str], evacuate: str, scope: str) -> None:
    assert acts(Rules(scope, evacuate), [launcher("web")], [instance]) == {"VM ml/web": expected[evacuate]}


@pytest.mark.parametrize("evacuate", _evacuation.POLICIES)
def test_a_named_vm_is_taken_down_in_any_case(evacuate: str) -> None:
    assert acts(Rules("gpu", evacuate, FORCE), [launcher("web")], [vmi()]) == {"VM ml/web": "stop"}
    assert acts(Rules("gpu", evacuate, FORCE), [launcher("web")], [vmi(owner=None)]) == {"VM ml/web": "delete"}


@pytest.mark.parametrize(
    ("what", "on_it", "gpu", "whole"),
    [
        ("an ordinary pod", pod(), "leave", "evict"),
        ("one with a GPU", pod(gpu=True), "evict", "evict"),
        ("one with a GPU by a claim", pod(claims=["ours"]), "evict", "evict"),
        ("one with a claim that is not there", pod(claims=["none"]), "evict", "evict"),
        ("one with a claim of another driver", pod(claims=["theirs"]), "leave", "evict"),
        ("with local data", pod(gpu=True, empty=True), "refuse", "refuse"),
        ("made by nobody", pod(owner=None, gpu=True), "refuse", "refuse"),
        ("of a DaemonSet", pod(owner="DaemonSet", empty=True), "leave", "leave"),
        ("of a DaemonSet, with a GPU", pod(owner="DaemonSet", gpu=True), "refuse", "leave"),
        ("the kubelet's", pod(owner="Node", empty=True), "leave", "leave"),
        ("a mirror", pod(owner=None, notes={"kubernetes.io/config.mirror": "x"}), "leave", "leave"),
        ("finished", pod(owner=None, gpu=True, phase="Succeeded"), "leave", "leave"),
        ("going", pod(gpu=True, ending=True), "wait", "wait"),
        ("a launcher without its VM", launcher("gone"), "refuse", "refuse"),
        ("a launcher without its VM that goes", launcher("gone", ending=True), "wait", "wait"),
        (
            "a target of a migration",
            launcher("web", labels={"kubevirt.io": "virt-launcher", "kubevirt.io/migrationJobUID": "x"}),
            "wait",
            "wait",
        ),
    ],
)
def test_what_becomes_of_a_pod(what: str, on_it: Json, gpu: str, whole: str) -> None:
    claims = [claim("ours"), claim("theirs", "dra.example.com")]
    for scope, expected in (("gpu", gpu), ("node", whole)):
        found = acts(Rules(scope, "auto"), [on_it, *([] if on_it["metadata"]["name"] == "app" else [pod()])], claims=claims)
        assert found[f"pod ml/{on_it['metadata']['name']}"] == expected, scope


def test_pods_that_nobody_makes_again_go_only_with_consent_and_nothing_goes_under_refuse() -> None:
    for each in (pod(gpu=True, empty=True), pod(owner=None, gpu=True)):
        assert acts(Rules("gpu", "stop", force_pods=True), [each]) == {"pod ml/app": "evict"}
        assert acts(Rules("node", "refuse", force_pods=True), [each]) == {"pod ml/app": "refuse"}


def test_a_vm_without_a_gpu_counts_for_a_whole_node_only() -> None:
    assert acts(Rules("gpu", "refuse"), [launcher("web", gpu=False)], [vmi(gpu=False)]) == {"VM ml/web": "leave"}
    assert acts(Rules("node", "refuse"), [launcher("web", gpu=False)], [vmi(gpu=False)]) == {"VM ml/web": "refuse"}
    assert acts(Rules("gpu", "refuse"), [launcher("web", gpu=True)], [vmi(gpu=False)]) == {"VM ml/web": "refuse"}, "the sources disagree"


def test_a_gpu_that_is_allocated_for_a_pod_elsewhere_refuses() -> None:
    assert acts(Rules("gpu", "auto"), [], claims=[claim("lost")]) == {"claim ml/lost": "refuse"}
    assert acts(Rules("gpu", "auto"), [], claims=[claim("lost", node="gpu2"), claim("nic", "nic.example.com")]) == {}


@pytest.mark.parametrize(
    ("spec", "act", "restore"),
    [
        ({"runStrategy": "Always"}, "stop", ("runStrategy", "Always")),
        ({"runStrategy": "Manual"}, "stop", ("runStrategy", "Manual")),
        ({"runStrategy": "Once"}, "stop", ("runStrategy", "Once")),
        ({"running": True}, "stop", ("running", True)),
        ({"running": False}, "wait", None),
        ({"runStrategy": "Halted"}, "wait", None),
    ],
)
def test_what_to_restore_is_the_vms_own_setting(spec: Json, act: str, restore: t.Any) -> None:
    (item,) = _evacuation.classify(OnNode(NODE, [launcher("web")], [vmi()], {"ml/web": vm(**spec)}), Rules("gpu", "stop"))
    assert item.act == act
    assert (item.restore and (item.restore["field"], item.restore["value"])) == restore


def test_a_vm_whose_owner_cannot_be_read_is_not_stopped() -> None:
    assert acts(Rules("gpu", "stop"), [launcher("web")], [vmi()], vms=[]) == {"VM ml/web": "refuse"}


anything = st.one_of(
    st.builds(
        pod,
        st.sampled_from("abc"),
        st.sampled_from([None, "ReplicaSet", "DaemonSet", "Node"]),
        st.booleans(),
        empty=st.booleans(),
        ending=st.booleans(),
    ),
    st.builds(
        launcher,
        st.sampled_from(["web", "db"]),
        st.booleans(),
        ending=st.booleans(),
        phase=st.sampled_from(["Pending", "Running", "Failed"]),
    ),
)
instances = st.builds(
    vmi,
    st.sampled_from(["web", "db"]),
    st.booleans(),
    st.sampled_from([None, "VirtualMachine", "VirtualMachineInstanceReplicaSet"]),
    st.sampled_from([None, True, False]),
    on=st.sampled_from([NODE, "gpu2"]),
    phase=st.sampled_from(["Scheduling", "Running", "Succeeded"]),
    state=st.sampled_from([None, GOING, COMING, {**GOING, "completed": True}]),
)


@settings(max_examples=60)
@given(
    st.lists(anything, max_size=4, unique_by=lambda p: p["metadata"]["name"]),
    st.lists(instances, max_size=2, unique_by=lambda v: v["metadata"]["name"]),
    st.sampled_from(["gpu", "node"]),
    st.booleans(),
)
def test_nothing_is_done_unasked_and_nothing_that_holds_a_gpu_is_overlooked(
    pods: list[Json], vmis: list[Json], scope: str, force: bool
) -> None:
    seen = OnNode(NODE, pods, vmis, {"ml/web": vm(), "ml/db": vm("db")})
    for evacuate in _evacuation.POLICIES:
        items = _evacuation.classify(seen, Rules(scope, evacuate, force_pods=force))
        assert len({item.target for item in items}) == len(items)
        for item in items:
            assert evacuate != "refuse" or item.act not in _evacuation.ACTS
            assert item.act != "migrate" or evacuate in ("migrate", "auto")
            assert item.act not in ("stop", "delete") or evacuate in ("stop", "auto")
            assert (item.restore is not None) == (item.act == "stop")
            assert item.act != "refuse" or item.remedy
        present = {item.target for item in items if item.present}
        for each in pods:
            if each["spec"]["containers"][0]["resources"] and each["status"]["phase"] == "Running":
                kind = (each["metadata"].get("ownerReferences") or [{}])[0].get("kind")
                if kind == "Node" or (kind == "DaemonSet" and scope == "node"):
                    continue
                name = each["metadata"]["name"]
                assert present & {f"pod ml/{name}", f"VM ml/{name.removeprefix('virt-launcher-')}"}, name


def test_nodes_that_are_out_by_themselves_count_where_they_have_or_may_have_a_gpu() -> None:
    nfd = {"feature.node.kubernetes.io/cpu-model.id": "1"}
    fleet = [
        node("a", nfd, {A10: 1}),
        node("b", nfd, {A10: 1}, ready=False),
        node("c", nfd, ready=False),
        node("d", ready=False),
        node("e", nfd, {A10: 1}),
    ]
    fleet[4]["spec"]["unschedulable"] = True
    assert _evacuation.gpu_nodes_out(fleet) == (3, {"b": "not ready", "d": "not ready", "e": "cordoned"})
    assert _evacuation.gpu_nodes_out([node("a"), node("b", ready=False)]) == (2, {"b": "not ready"})
