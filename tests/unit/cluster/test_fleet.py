# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import base64
import gzip
import json
import typing as t

import pytest
from fake_api import FakeApi, Fault
from gpu_objects import A10, NAMESPACE, REFUSED, VGPU, WORKLOAD, Json, launcher, node, operand_pod, pod, policy, vmi
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _fleet, _operands

MODULE = "gpu_fleet_info"
NFD = "feature.node.kubernetes.io/"


def secret(version: int, status: str = "deployed", content: Json | None = None, name: str = "gpu-operator") -> Json:
    """What Helm keeps of a release."""
    release = {
        "name": name,
        "namespace": NAMESPACE,
        "chart": {"metadata": {"name": "gpu-operator", "version": "v26.7.0", "appVersion": "v26.7.0"}},
        "config": {"driver": {"enabled": False}},
        **(content or {}),
    }
    packed = base64.b64encode(gzip.compress(json.dumps(release).encode()))
    return {
        "metadata": {
            "name": f"sh.helm.release.v1.{name}.v{version}",
            "namespace": NAMESPACE,
            "labels": {"owner": "helm", "name": name, "status": status, "version": str(version)},
        },
        "type": "helm.sh/release.v1",
        "data": {"release": base64.b64encode(packed).decode()},
    }


def fill(api: FakeApi) -> None:
    """A cluster with an operator, KubeVirt, and a VM on a passthrough node."""
    api.add("/api/v1/namespaces/kube-system", {"metadata": {"uid": "cluster-1"}})
    api.add(
        "/api/v1/nodes/gpu", node("gpu", {WORKLOAD: "vm-passthrough", f"{NFD}pci-10de.present": "true", "team": "ml"}, {A10: 2, VGPU: 0})
    )
    api.add("/api/v1/nodes/plain", node("plain", {f"{NFD}cpu": "x"}, notes={REFUSED: "no", "other/note": "x"}))
    for item in (
        operand_pod("vfio-manager", "gpu"),
        operand_pod("sandbox-device-plugin", "gpu", phase="Failed"),
        launcher("v", "gpu", {A10: "1"}),
        pod("web", "gpu", owner="ReplicaSet"),
        pod("agent", "gpu", owner="DaemonSet"),
        pod("etcd", "gpu", owner="Node"),
        pod("job", "gpu", phase="Succeeded"),
    ):
        api.add(f"/api/v1/namespaces/{item['metadata']['namespace']}/pods/{item['metadata']['name']}", item)
    api.add("/apis/kubevirt.io/v1/namespaces/ml/virtualmachineinstances/v", vmi("v", "gpu", [A10]))
    api.add(
        "/apis/kubevirt.io/v1/namespaces/kubevirt/kubevirts/kubevirt",
        {
            "metadata": {"name": "kubevirt"},
            "spec": {"configuration": {"developerConfiguration": {"featureGates": ["DisableMDEVConfiguration"]}}},
            "status": {"phase": "Deployed", "observedKubeVirtVersion": "v1.7.0"},
        },
    )
    api.add("/apis/nvidia.com/v1/clusterpolicies/cluster-policy", policy())
    for item in (secret(9, "superseded"), secret(10)):
        api.add(f"/api/v1/namespaces/{NAMESPACE}/secrets/{item['metadata']['name']}", item)


def test_one_read_says_what_there_is_and_who_uses_it(api: FakeApi, run_module) -> None:
    fill(api)
    found = run_module(MODULE, api.params)
    assert (found["failed"], found["changed"]) == (False, False)
    assert found["cluster"]["uid"] == "cluster-1"
    assert found["cluster"]["server"] == api.url
    assert [entry["name"] for entry in found["nodes"]] == ["gpu", "plain"]
    gpu, plain = found["nodes"]
    assert gpu == {
        "name": "gpu",
        "boot_id": "boot-gpu",
        "ready": True,
        "schedulable": True,
        "taints": [],
        "gpu": True,
        "labels": {WORKLOAD: "vm-passthrough", f"{NFD}pci-10de.present": "true"},
        "annotations": {},
        "workload": "vm-passthrough",
        "operands": ["nvidia-vfio-manager"],
        "at_work": [],
        "allocatable": {A10: 2},
        "withdrawn": [VGPU],
        "used": {A10: [{"namespace": "ml", "pod": "virt-launcher-v-x", "vmi": "v", "count": 1}]},
        "pods": [
            {"namespace": "ml", "name": "virt-launcher-v-x", "kind": "VirtualMachineInstance", "phase": "Running"},
            {"namespace": "ml", "name": "web", "kind": "ReplicaSet", "phase": "Running"},
        ],
    }
    assert (plain["gpu"], plain["annotations"]) == (False, {REFUSED: "no"})
    assert (found["release"]["revision"], found["release"]["version"], found["release"]["status"]) == (10, "v26.7.0", "deployed")
    assert found["release"]["values"] == {"driver": {"enabled": False}}
    assert (found["cluster_policy"]["reason"], found["cluster_policy"]["sandbox_enabled"]) == ("Reconciled", True)
    assert found["kubevirt"]["version"] == "v1.7.0"
    assert found["kubevirt"]["permitted"] is None
    assert found["possible_gpu_nodes"] == ["gpu"]
    assert all(request.method == "GET" for request in api.requests)


def test_what_is_not_installed_is_null_and_silent_nodes_may_have_a_gpu(api: FakeApi, run_module) -> None:
    api.add("/api/v1/namespaces/kube-system")
    api.add("/api/v1/nodes/a", node("a"))
    found = run_module(MODULE, api.params)
    assert not found["failed"], found["msg"]
    assert (found["cluster_policy"], found["release"], found["kubevirt"]) == (None, None, None)
    assert found["nodes"][0]["gpu"] is None
    assert found["possible_gpu_nodes"] == ["a"]


def test_each_list_is_read_once_and_in_pages(api: FakeApi, run_module) -> None:
    fill(api)
    for number in range(1200):
        api.add(f"/api/v1/nodes/n{number:04d}", node(f"n{number:04d}"))
    found = run_module(MODULE, api.params)
    assert len(found["nodes"]) == 1202
    paths = [request.path for request in api.requests]
    assert paths.count("/api/v1/nodes") == 3
    assert {path: paths.count(path) for path in paths if path != "/api/v1/nodes"} == dict.fromkeys(set(paths) - {"/api/v1/nodes"}, 1)


def test_the_policy_says_which_release_is_the_operators(api: FakeApi, run_module) -> None:
    fill(api)
    other = policy()
    other["metadata"]["annotations"] = {"meta.helm.sh/release-name": "nv", "meta.helm.sh/release-namespace": NAMESPACE}
    api.add("/apis/nvidia.com/v1/clusterpolicies/cluster-policy", other)
    item = secret(1, name="nv")
    api.add(f"/api/v1/namespaces/{NAMESPACE}/secrets/{item['metadata']['name']}", item)
    assert run_module(MODULE, api.params)["release"]["name"] == "nv"


def deployment(name: str, namespace: str, notes: Json | None = None, **metadata: t.Any) -> Json:
    return {"metadata": {"name": name, "namespace": namespace, "annotations": notes or {}, **metadata}}


def test_a_release_without_a_policy_is_found_by_the_operators_deployment(api: FakeApi, run_module) -> None:
    fill(api)
    del api.objects["/apis/nvidia.com/v1/clusterpolicies/cluster-policy"]
    notes = {"meta.helm.sh/release-name": "nv", "meta.helm.sh/release-namespace": NAMESPACE}
    api.add(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/gpu-operator", deployment("gpu-operator", NAMESPACE, notes))
    item = secret(1, name="nv")
    api.add(f"/api/v1/namespaces/{NAMESPACE}/secrets/{item['metadata']['name']}", item)
    found = run_module(MODULE, api.params)
    assert (found["release"]["name"], found["operator"]["policies"]) == ("nv", [])
    assert found["operator"]["installs"] == [{"namespace": NAMESPACE, "by": "Helm", "release": "nv", "release_namespace": NAMESPACE}]


def test_what_no_policy_governs_is_told(api: FakeApi, run_module) -> None:
    fill(api)
    by_olm = {"ownerReferences": [{"kind": "ClusterServiceVersion", "name": "gpu-operator-certified.v26.3.0"}]}
    api.add("/apis/apps/v1/namespaces/n/deployments/gpu-operator", deployment("gpu-operator", "n", **by_olm))
    api.add("/apis/nvidia.com/v1alpha1/nvidiadrivers/a10", {"metadata": {"name": "a10"}})
    api.add("/apis/nvidia.com/v1alpha1/gpuclusters/gpu-cluster", {"metadata": {"name": "gpu-cluster"}})
    for name, package in (("gpu", "gpu-operator-certified"), ("other", "nfd")):
        path = f"/apis/operators.coreos.com/v1alpha1/namespaces/n/subscriptions/{name}"
        api.add(path, {"metadata": {"name": name, "namespace": "n"}, "spec": {"name": package}})
    api.add("/apis/config.openshift.io/v1/clusterversions/version", {"metadata": {"name": "version"}})
    for name, phase in (("claimed", "Running"), ("over", "Succeeded")):
        item = vmi(name, "gpu", [])
        item["spec"]["domain"]["devices"]["gpus"] = [{"name": "a", "claimName": "mine", "requestName": "r"}]
        item["status"]["phase"] = phase
        api.add(f"/apis/kubevirt.io/v1/namespaces/ml/virtualmachineinstances/{name}", item)
    found = run_module(MODULE, api.params)
    assert not found["failed"], found["msg"]
    assert found["operator"] == {
        "installs": [{"namespace": "n", "by": "OLM", "release": None, "release_namespace": None}],
        "policies": ["cluster-policy"],
        "drivers": ["a10"],
        "gpu_clusters": ["gpu-cluster"],
        "subscriptions": ["n/gpu"],
        "claims": [{"vmi": "ml/claimed", "claims": ["mine"]}],
        "openshift": True,
    }


def test_a_server_that_refuses_is_an_error_and_not_an_absence(api: FakeApi, run_module) -> None:
    fill(api)
    api.faults.append(Fault(403, 99, lambda request: "clusterpolicies" in request.path, reason="Forbidden"))
    found = run_module(MODULE, api.params)
    assert found["failed"]
    assert "clusterpolicies" in found["msg"]


def test_a_record_of_helm_that_cannot_be_read_is_named(api: FakeApi, run_module) -> None:
    fill(api)
    item = secret(11)
    item["data"]["release"] = "AAAA"
    api.add(f"/api/v1/namespaces/{NAMESPACE}/secrets/{item['metadata']['name']}", item)
    found = run_module(MODULE, api.params)
    assert found["failed"]
    assert "sh.helm.release.v1.gpu-operator.v11" in found["msg"]


# ------------------------------------------------------------------ the pure parts


@pytest.mark.parametrize(
    ("labels", "allocatable", "evidence"),
    [
        ({}, {}, None),
        ({"kubernetes.io/hostname": "a"}, {}, None),
        ({f"{NFD}cpu": "x"}, {}, False),
        ({f"{NFD}cpu": "x", "nvidia.com/gpu.present": "false"}, {VGPU: 0}, False),
        ({f"{NFD}pci-0302_10de.present": "true"}, {}, True),
        ({"nvidia.com/gpu.present": "true"}, {}, True),
        ({}, {"nvidia.com/gpu": 1}, True),
    ],
)
def test_a_gpu_is_proven_or_excluded_or_unknown(labels: Json, allocatable: Json, evidence: bool | None) -> None:
    assert _operands.gpu_evidence(node("a", labels, allocatable)) is evidence


@pytest.mark.parametrize(
    ("gpu", "release", "is_possible"),
    [(True, None, True), (True, {}, True), (False, None, False), (None, None, True), (None, {}, False)],
)
def test_silence_proves_nothing_before_the_first_install(gpu: bool | None, release: Json | None, is_possible: bool) -> None:
    assert _fleet.possible([{"name": "a", "gpu": gpu}], release) == (["a"] if is_possible else [])


@pytest.mark.parametrize(
    ("secrets", "revision"),
    [
        ([], None),
        ([secret(1)], 1),
        ([secret(10), secret(9, "superseded")], 10),
        ([secret(1, "superseded"), secret(2, "uninstalled")], None),
        ([secret(1), secret(2, "failed")], 2),
    ],
)
def test_the_newest_revision_is_the_release(secrets: list[Json], revision: int | None) -> None:
    found = _fleet.release_of(secrets)
    assert (found or {}).get("revision") == revision


@pytest.mark.parametrize(
    ("metadata", "writer"),
    [
        ({}, None),
        ({"ownerReferences": [{"kind": "HyperConverged", "name": "hco"}]}, "HyperConverged hco"),
        ({"annotations": {"argocd.argoproj.io/tracking-id": "x"}}, "Argo CD"),
        ({"labels": {"kustomize.toolkit.fluxcd.io/name": "x"}}, "Flux"),
        ({"labels": {"olm.owner": "x"}}, "OLM"),
    ],
)
def test_who_else_writes_the_kubevirt_object_is_told(metadata: Json, writer: str | None) -> None:
    found = _fleet.kubevirt_of([{"metadata": {"name": "kubevirt", **metadata}}])
    assert found is not None
    assert found["owner"] == writer


def test_an_old_policy_counts_before_a_new_one() -> None:
    old, new = policy(), policy()
    old["metadata"].update(name="z", creationTimestamp="2025-01-01T00:00:00Z")
    assert (_fleet.policy_of([new, old]) or {})["name"] == "z"


@pytest.mark.parametrize(
    ("spec", "held"),
    [
        ({"containers": [{"resources": {"limits": {A10: "1", "cpu": "1"}}}, {"resources": {"limits": {A10: 1}}}]}, {A10: 2}),
        ({"containers": [{"resources": {"requests": {A10: "1"}}}], "initContainers": [{"resources": {"limits": {A10: "3"}}}]}, {A10: 3}),
        ({"containers": [{"resources": {"limits": {A10: "0", "example.com/nic": "1"}}}]}, {}),
        ({"containers": [{}]}, {}),
    ],
)
def test_a_pod_holds_what_its_containers_ask_for(spec: Json, held: Json) -> None:
    assert _fleet.limits({"spec": spec}) == held


def test_a_vm_is_counted_once_and_by_its_pod() -> None:
    found = _fleet.uses([launcher("v", "a", {A10: "1"})], [vmi("v", "a", [A10]), vmi("w", "b", [VGPU, VGPU]), vmi("x", None, [A10])])
    assert [(use.node, use.who, use.resources) for use in found] == [("a", "VM ml/v", {A10: 1}), ("b", "VM ml/w", {VGPU: 2})]


def test_a_vm_with_resource_claims_is_a_use_and_one_with_other_host_devices_is_not() -> None:
    claimed, other = vmi("c", "a"), vmi("o", "a")
    claimed["spec"]["domain"]["devices"]["gpus"] = [{"name": "g", "claimName": "mine"}]
    other["spec"]["domain"]["devices"]["hostDevices"] = [{"name": "n", "deviceName": "example.com/nic"}]
    assert [(use.who, use.resources) for use in _fleet.uses([], [claimed, other])] == [("VM ml/c", {"claim mine": 1})]


@pytest.mark.parametrize(
    ("quantity", "number"),
    [
        ("2", 2),
        (2, 2),
        ("0", 0),
        ("1k", 1000),
        ("2Ki", 2048),
        ("3M", 3_000_000),
        ("1E", 10**18),
        ("1e3", 1000),
        ("2E3", 2000),
        ("1000m", 1),
        ("2.5k", 2500),
        ("+3", 3),
    ],
)
def test_quantities_are_whole_numbers(quantity: t.Any, number: int) -> None:
    assert _operands.count(quantity) == number


@pytest.mark.parametrize("quantity", ["", "100m", "1.5", "two", "1e-3", "1e999", "3x", "1ki", "-", "."])
def test_what_is_no_whole_number_of_devices_is_refused(quantity: str) -> None:
    with pytest.raises(ValueError):
        _operands.count(quantity)


@pytest.mark.parametrize(
    ("resource", "is_companion"),
    [
        (A10, False),
        (VGPU, False),
        ("nvidia.com/GA102_HIGH_DEFINITION_AUDIO_CONTROLLER", True),
        ("nvidia.com/TU104_USB_3_1_HOST_CONTROLLER", True),
        ("nvidia.com/GH100_H100_NVSWITCH", True),
    ],
)
def test_companions_are_told_from_gpus(resource: str, is_companion: bool) -> None:
    assert _operands.companion(resource) is is_companion


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from("pqr"), st.integers(0, 3), st.sampled_from(["Running", "Pending", "Succeeded"])),
        unique_by=lambda entry: entry[1],
    )
)
def test_used_adds_up_to_what_living_pods_hold(entries: list[tuple[str, str, int, str]]) -> None:
    pods = [pod(name, on, {A10: str(count)}, phase=phase) for on, name, count, phase in entries]
    found = _fleet.node_facts([node("a"), node("b")], pods, [])
    for item in found:
        held = sum(use["count"] for use in item["used"].get(A10, []))
        assert held == sum(count for on, _name, count, phase in entries if on == item["name"] and phase != "Succeeded")
