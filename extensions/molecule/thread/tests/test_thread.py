# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the four good hosts and their nodes are after ``site``: asked of the trees and of the API server."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

WORKLOADS = {
    "gpu-container-0": "container",
    "gpu-passthrough-0": "vm-passthrough",
    "gpu-passthrough-1": "vm-passthrough",
    "gpu-vgpu-0": "vm-vgpu",
}
ALLOCATABLE = {
    "gpu-container-0": {"nvidia.com/gpu": "2"},
    "gpu-passthrough-0": {"nvidia.com/GA102GL_A10": "2"},
    "gpu-passthrough-1": {"nvidia.com/GA102GL_RTX_A6000": "2", "nvidia.com/GA102_HIGH_DEFINITION_AUDIO_CONTROLLER": "2"},
    "gpu-vgpu-0": {"nvidia.com/NVIDIA_A10-4Q": "12"},
}


@pytest.fixture
def variables(host):
    return host.ansible.get_variables()


@pytest.fixture
def kubectl(host, variables):
    lab_dir = host.ansible("debug", "msg={{ lab_dir }}")["msg"]

    def get(*arguments):
        command = [f"{lab_dir}/bin/kubectl", "--kubeconfig", f"{lab_dir}/operator.kubeconfig", "get", *arguments, "-o", "json"]
        return json.loads(host.check_output(" ".join(command)))

    return get


@pytest.fixture
def root(host):
    return host.ansible("debug", "msg={{ gpufleet_host_root }}")["msg"]


def test_the_node_is_this_boot_of_the_host(host, variables, kubectl, root):
    node = kubectl("node", variables["inventory_hostname"])
    assert host.file(f"{root}/proc/sys/kernel/random/boot_id").content_string.strip() == node["status"]["nodeInfo"]["bootID"]
    assert not node["spec"].get("unschedulable")


def test_the_node_advertises_what_its_workload_needs(variables, kubectl):
    name = variables["inventory_hostname"]
    node = kubectl("node", name)
    assert node["metadata"]["labels"]["nvidia.com/gpu.workload.config"] == WORKLOADS[name]
    found = {key: value for key, value in node["status"]["allocatable"].items() if key.startswith("nvidia.com/") and value != "0"}
    assert found == ALLOCATABLE[name]


def test_vm_hosts_have_an_iommu(host, variables, root):
    if WORKLOADS[variables["inventory_hostname"]] == "container":
        assert "60-gpufleet.cfg" not in host.file(f"{root}/etc/default/grub.d").listdir()
        return
    assert "intel_iommu=on" in host.file(f"{root}/proc/cmdline").content_string.split()
    assert host.file(f"{root}/sys/kernel/iommu_groups").listdir()


def test_nodes_outside_the_inventory_run_no_operand(kubectl):
    for name in ("gpu-refused-0", "gpu-stranger-0"):
        node = kubectl("node", name)
        assert node["metadata"]["labels"]["nvidia.com/gpu.deploy.operands"] == "false"
        assert not [key for key, value in node["status"]["allocatable"].items() if key.startswith("nvidia.com/") and value != "0"]


def test_vms_may_use_what_nodes_advertise_and_nothing_else_of_nvidia(kubectl):
    permitted = kubectl("kubevirt", "kubevirt", "-n", "kubevirt")["spec"]["configuration"]["permittedHostDevices"]
    names = {entry["resourceName"] for entries in permitted.values() for entry in entries}
    assert names == {"nvidia.com/GA102GL_A10", "nvidia.com/GA102GL_RTX_A6000", "nvidia.com/NVIDIA_A10-4Q"}
    assert all(entry["externalResourceProvider"] for entries in permitted.values() for entry in entries)


def test_nodes_outside_the_inventory_say_why_they_run_none(kubectl):
    for name, why in [("gpu-refused-0", "not in the inventory"), ("gpu-stranger-0", "not in the inventory")]:
        assert why in kubectl("node", name)["metadata"]["annotations"]["gpufleet.kubevirt/operands-refused"]


def test_the_operator_has_its_namespace_its_secret_and_a_release_that_restarts_nothing_by_itself(kubectl):
    labels = kubectl("namespace", "gpu-operator")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "privileged"
    secret = kubectl("secret", "vgpu-manager-pull", "-n", "gpu-operator")
    assert secret["type"] == "kubernetes.io/dockerconfigjson"
    assert list(json.loads(base64.b64decode(secret["data"][".dockerconfigjson"]))["auths"]) == ["registry.example.com"]
    [policy] = kubectl("clusterpolicies.nvidia.com")["items"]
    assert policy["spec"]["sandboxWorkloads"]["enabled"] is True
    assert policy["spec"]["daemonsets"]["updateStrategy"] == "OnDelete"
    assert policy["status"]["state"] == "ready"


def test_a_vgpu_node_has_its_profile_and_it_was_made(variables, kubectl):
    name = variables["inventory_hostname"]
    labels = kubectl("node", name)["metadata"]["labels"]
    vgpu = WORKLOADS[name] == "vm-vgpu"
    assert labels.get("nvidia.com/vgpu.config") == ("A10-4Q" if vgpu else None)
    assert labels.get("nvidia.com/vgpu.config.state") == ("success" if vgpu else None)


def test_kubevirt_keeps_its_hands_off_mediated_devices(kubectl):
    configuration = kubectl("kubevirt", "kubevirt", "-n", "kubevirt")["spec"]["configuration"]
    gates = (configuration.get("developerConfiguration") or {}).get("featureGates") or []
    off = (configuration.get("mediatedDevicesConfiguration") or {}).get("enabled") is False
    assert off or "DisableMDEVConfiguration" in gates


def test_the_probes_are_gone(kubectl):
    assert kubectl("vmi", "-A")["items"] == []
    assert kubectl("pods", "-n", "gpufleet-probe")["items"] == []


def test_nothing_takes_the_gpus_of_a_vm_host_at_boot(host, variables, root):
    if WORKLOADS[variables["inventory_hostname"]] == "container":
        return
    words = host.file(f"{root}/etc/modprobe.d/gpufleet.conf").content_string.split()
    assert {"nouveau", "nvidiafb"} <= set(words)


def test_companions_of_a_passed_gpu_are_on_vfio(host, variables, root):
    if variables["inventory_hostname"] != "gpu-passthrough-1":
        return
    for address in ("0000:41:00.1", "0000:a1:00.1"):
        assert host.file(f"{root}/sys/bus/pci/devices/{address}/driver").linked_to.endswith("/vfio-pci")


def test_the_report_is_of_this_fleet(variables):
    [written] = Path(__file__).parents[1].rglob("gpufleet-report/fleet.json")
    nodes = {node["name"]: node for node in json.loads(written.read_text(encoding="utf-8"))["nodes"]}
    name = variables["inventory_hostname"]
    assert nodes[name]["workload"] == WORKLOADS[name]
    assert nodes[name]["allocatable"] == {resource: int(count) for resource, count in ALLOCATABLE[name].items()}
