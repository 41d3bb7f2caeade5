# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.gpufleet.kubevirt.plugins.filter.fleet_findings import FilterModule
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _kubevirt_view
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._kubevirt_seen import User

WORKLOAD = "nvidia.com/gpu.workload.config"
PROFILE = "nvidia.com/vgpu.config"
OPERANDS = "nvidia.com/gpu.deploy.operands"
A10, VGPU = "nvidia.com/GA102GL_A10", "nvidia.com/NVIDIA_A10-4Q"
PCI = {"pciVendorSelector": "10de:2236", "resourceName": A10, "externalResourceProvider": True}
MDEV = {"mdevNameSelector": "NVIDIA A10-4Q", "resourceName": VGPU, "externalResourceProvider": True}


class Fleet:
    """A container node, a passthrough node and a vGPU node that are as the inventory wants them; a case spoils something."""

    def __init__(self):
        gpu = {
            "address": "0000:41:00.0",
            "pci": "10DE:2236",
            "subsystem": "",
            "class": "0302",
            "backend": "mdev",
            "types": ["NVIDIA A10-4Q"],
        }
        self.intents = [
            self.intent("c", "container", gpu, None, {"resource": "nvidia.com/gpu", "count": 1}),
            self.intent("p", "vm-passthrough", gpu, None, {"pci": "10DE:2236", "count": 1}),
            self.intent("v", "vm-vgpu", gpu, "A10-4Q", {"vgpu_type": "A10-4Q", "count": 6}),
        ]
        offers = {"c": {"nvidia.com/gpu": 1}, "p": {A10: 1}, "v": {VGPU: 6}}
        self.nodes = [{"name": name, "met": True, "allocatable": offer, "resources": list(offer)} for name, offer in offers.items()]
        self.labels = {intent["node"]: {WORKLOAD: intent["workload"]} for intent in self.intents}
        self.labels["v"][PROFILE] = "A10-4Q"
        self.permitted = {"pciHostDevices": [dict(PCI)], "mediatedDevices": [dict(MDEV)]}
        self.users = []
        self.handling = "disabled"
        self.limited = False

    @staticmethod
    def intent(name, workload, gpu, profile, expected):
        return {"host": name, "node": name, "workload": workload, "profile": profile, "state": "wanted", "limited": True, "why": None,
                "gpus": [gpu], "expect": [expected]}  # fmt: skip

    def permits(self):
        objects = [
            {
                "metadata": {"name": node["name"]},
                "status": {"allocatable": {name: str(count) for name, count in node["allocatable"].items()}},
            }
            for node in self.nodes
        ]
        kubevirt = {
            "namespace": "kubevirt",
            "name": "kv",
            "allow_list": self.permitted is not None,
            "mdev_handling": self.handling,
        }
        return {"kubevirt": kubevirt, **_kubevirt_view.view(self.permitted, objects, self.users, "nvidia.com/")}

    def findings(self):
        fleet = {
            "nodes": [{"name": name, "labels": labels} for name, labels in self.labels.items()],
            "possible_gpu_nodes": list(self.labels),
        }
        filters = FilterModule().filters()
        return filters["fleet_findings"](self.intents, fleet, nodes=self.nodes, permits=self.permits(), limited=self.limited)


def test_nothing_is_found_where_everything_is_as_wanted():
    assert Fleet().findings() == {"problems": [], "notes": [], "text": ""}


SPOILT = {
    "a device is not permitted": (
        lambda f: f.permitted["mediatedDevices"].clear(),
        f"device {VGPU}",
        "KubeVirt does not permit it (permitted: no; advertised by: v (6); asked for by: VM ml/a)",
        "Run gpufleet.kubevirt.cluster, which permits it",
    ),
    "it is permitted for another device": (
        lambda f: f.permitted["pciHostDevices"][0].update(pciVendorSelector="10DE:2230"),
        f"device {A10}",
        "KubeVirt permits it for pci 10DE:2230, and on the nodes it is pci 10DE:2236 (permitted: yes; advertised by: p (1)",
        "which permits it",
    ),
    "KubeVirt would advertise it, too": (
        lambda f: f.permitted["pciHostDevices"][0].pop("externalResourceProvider"),
        f"device {A10}",
        "externalResourceProvider is not true",
        "which permits it",
    ),
    "KubeVirt would advertise it, too, by one of two entries": (
        lambda f: f.permitted["pciHostDevices"].append({**PCI, "externalResourceProvider": False}),
        f"device {A10}",
        "externalResourceProvider is not true",
        "which permits it",
    ),
    "there is no list": (
        lambda f: setattr(f, "permitted", None),
        "KubeVirt kubevirt/kv",
        "no list of permitted devices",
        "Run gpufleet.kubevirt.cluster",
    ),
    "KubeVirt handles vGPUs": (
        lambda f: setattr(f, "handling", "enabled"),
        "KubeVirt kubevirt/kv",
        "deletes vGPUs",
        "which turns that off",
    ),
    "another profile": (
        lambda f: f.labels["v"].update({PROFILE: "A10-8Q"}),
        "node v",
        f"its label {PROFILE} is A10-8Q, and the inventory says A10-4Q",
        "Run gpufleet.kubevirt.cluster",
    ),
    "no profile": (lambda f: f.labels["v"].pop(PROFILE), "node v", "is not set", "Run gpufleet.kubevirt.cluster"),
    "a foreign node": (lambda f: f.labels.update(z={}), "node z", "carries no decision", "or run gpufleet.kubevirt.cluster, which keeps"),
    "devices that cannot be told apart": (
        lambda f: f.nodes[1].update(allocatable={A10: 1, "nvidia.com/B": 1}, resources=[A10, "nvidia.com/B"]),
        "node p",
        "which is which cannot be told",
        "kubevirt_permit",
    ),
}


@pytest.mark.parametrize("case", SPOILT)
def test_what_is_not_as_wanted_is_named_with_its_remedy(case):
    spoil, target, problem, remedy = SPOILT[case]
    fleet = Fleet()
    fleet.users = [User("VM ml/a", frozenset([VGPU]))]
    spoil(fleet)
    found = fleet.findings()
    [only] = found["problems"]
    assert only["target"] == target
    assert problem in only["problem"]
    assert remedy in only["remedy"]
    assert f"- {target}: {only['problem']}" in found["text"]


SPARED = {
    "a foreign node with a decision": lambda f: f.labels.update(z={OPERANDS: "false"}),
    "a foreign node with a workload": lambda f: f.labels.update(z={WORKLOAD: "container"}),
    "a foreign node, in a run of a part": lambda f: (setattr(f, "limited", True), f.labels.update(z={})),
    "a host outside the run": lambda f: (f.intents[2].update(limited=False), f.labels["v"].clear(), f.nodes.pop()),
    "a refused host": lambda f: (f.intents[2].update(state="refused"), f.labels["v"].pop(PROFILE), f.nodes.pop()),
    # The wait has named it already.
    "a node that is not what it should be": lambda f: f.nodes[2].update(met=False, allocatable={}, resources=[]),
    "a mediated device spelt with underscores": lambda f: f.permitted["mediatedDevices"][0].update(mdevNameSelector="NVIDIA_A10-4Q"),
    "another entry of the same name": lambda f: f.permitted["pciHostDevices"].insert(0, {**PCI, "pciVendorSelector": "10DE:2230"}),
    "KubeVirt handles mediated devices where nobody has vGPUs": lambda f: (
        setattr(f, "handling", "enabled"), f.intents.pop(), f.nodes.pop(), f.labels.pop("v"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SPARED)
def test_what_is_nobodys_concern_is_not_found(case):
    fleet = Fleet()
    SPARED[case](fleet)
    assert fleet.findings()["problems"] == []


def test_what_somebody_asks_for_and_cannot_get_is_a_note():
    fleet = Fleet()
    fleet.users = [User("VM ml/b", frozenset(["nvidia.com/NVIDIA-A10_4Q"]))]
    found = fleet.findings()
    assert found["problems"] == []
    assert any("VM ml/b" in note and f"Only the spelling differs from {VGPU}" in note for note in found["notes"])


def test_a_fleet_of_containers_needs_no_kubevirt():
    fleet = Fleet()
    filters = FilterModule().filters()
    assert filters["fleet_findings"](fleet.intents[:1], {"nodes": [], "possible_gpu_nodes": []}, fleet.nodes[:1])["problems"] == []


def test_a_fleet_that_was_not_read_is_named():
    with pytest.raises(AnsibleFilterError, match="fleet has no list of nodes"):
        FilterModule().filters()["fleet_findings"]([], {"failed": True})
