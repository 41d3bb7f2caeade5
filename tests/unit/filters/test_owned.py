# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts that own their devices: what is expected and permitted of them, and what cannot be in one fleet."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._intents._decisions import OWNED, node_decisions
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._intents._intents import node_intents
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._operator._values import operator_values
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._permits._permits import permitted_devices

Json = t.Dict[str, t.Any]
A10, A6000, A100 = "10DE:2236", "10DE:2230", "10DE:20B5"


def gpu(number: int = 0, pci: str = A10, backend: str = "none", types: t.Sequence[str] = ()) -> Json:
    vgpu = {"backend": backend, "types": [{"name": name} for name in types]}
    return {"address": f"0000:{0x41 + number:02x}:00.0", "vendor_device": pci, "subsystem": "", "class": "0302", "vgpu": vgpu}


def host(name: str, group: str, *gpus: Json, **more: t.Any) -> Json:
    return {
        "inventory_hostname": name,
        "group_names": [group, "gpu_nodes"],
        "gpufleet_device_owner": "host",
        "preflight_host": {"gpus": list(gpus), "host": {}},
        **more,
    }


def vgpu(name: str, backend: str, profile: str | None = "A10-12Q", pci: str = A10, **more: t.Any) -> Json:
    more = {**({"gpufleet_vgpu_profile": profile} if profile else {}), **more}
    return host(name, "gpu_vm_vgpu", gpu(0, pci, backend), gpu(1, pci, backend), **more)


def whole(name: str, pci: str = A10, **more: t.Any) -> Json:
    return host(name, "gpu_vm_passthrough", gpu(0, pci), gpu(1, pci), **more)


OPERATORS = {"gpufleet_device_owner": "operator"}


def plan(*hosts: Json) -> Json:
    names = [entry["inventory_hostname"] for entry in hosts]
    nodes = [{"name": name, "labels": {}, "operands": []} for name in names]
    return node_intents(hosts, run_hosts=names, fleet={"nodes": nodes, "possible_gpu_nodes": names, "cluster_policy": None})


def pci(selector: str, name: str) -> tuple[str, str, str, bool]:
    return ("pci", selector, f"nvidia.com/{name}", False)


def mdev(selector: str) -> tuple[str, str, str, bool]:
    return ("mdev", selector, f"nvidia.com/{selector.replace(' ', '_')}", False)


@pytest.mark.parametrize(
    ("given", "expect", "permits"),
    [
        (whole("a"), [{"pci": A10, "count": 2}], [pci(A10, "GA102GL_A10")]),
        (whole("a", A6000), [{"pci": A6000, "count": 2}], [pci(A6000, "2230")]),
        (vgpu("a", "mdev"), [{"vgpu_type": "A10-12Q", "count": 4}], [mdev("NVIDIA A10-12Q")]),
        (vgpu("a", "vendor_vfio"), [{"vgpu_type": "A10-12Q", "count": 4}], [pci(A10, "NVIDIA_A10-12Q")]),
        (vgpu("a", "mdev", {"all": "A10-8Q"}), [{"vgpu_type": "A10-8Q", "count": 6}], [mdev("NVIDIA A10-8Q")]),
        (
            vgpu("a", "mdev", None, gpufleet_vgpus=[
                {"address": "0000:41:00.0", "types": [{"type": "A10-4Q", "count": 6}]},
                {"index": 1, "types": [{"type": "NVIDIA A10-12Q"}]},
            ]),
            [{"vgpu_type": "A10-4Q", "count": 6}, {"vgpu_type": "A10-12Q", "count": 2}],
            [mdev("NVIDIA A10-12Q"), mdev("NVIDIA A10-4Q")],
        ),
        (
            vgpu("a", "vendor_vfio", "A10-4Q", gpufleet_vgpus=[{"vendor_device": "10de:2236", "types": [{"type": "A10-24Q", "count": 1}]}]),
            [{"vgpu_type": "A10-24Q", "count": 2}],
            [pci(A10, "NVIDIA_A10-24Q")],
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("planned", [False, True])
def test_kubevirts_own_plugin_is_permitted_what_the_host_makes(given: Json, expect: Json, permits: list[t.Any], planned: bool) -> None:
    made = plan(given)
    assert made["text"] == ""
    assert made["intents"][0]["expect"] == expect
    found = permitted_devices(made["intents"], [], planned)
    entries = [("pci", *entry.values()) for entry in found["pci_devices"]] + [
        ("mdev", *entry.values()) for entry in found["mediated_devices"]
    ]
    assert (entries, found["blockers"]) == (permits, [])


def test_before_the_driver_tells_only_a_plan_can_be_made() -> None:
    intents = plan(vgpu("a", "none"))["intents"]
    [entry] = permitted_devices(intents, [], True)["mediated_devices"]
    assert entry == {"selector": "NVIDIA A10-12Q", "resource_name": "known after apply", "external": False}
    [blocker] = permitted_devices(intents, [])["blockers"]
    assert blocker["target"] == "node a" and "A10-12Q" in blocker["problem"]


@pytest.mark.parametrize(
    ("hosts", "words"),
    [
        ([vgpu("a", "vendor_vfio"), vgpu("b", "vendor_vfio")], []),
        ([vgpu("a", "mdev"), vgpu("b", "mdev", "A10-8Q")], []),
        ([vgpu("a", "vendor_vfio"), whole("b", A6000, **OPERATORS)], []),
        ([vgpu("a", "mdev"), whole("b", **OPERATORS)], []),
        ([vgpu("a", "mdev"), vgpu("b", "mdev", "A10-8Q", **OPERATORS)], []),
        ([vgpu("a", "vendor_vfio"), vgpu("b", "vendor_vfio", "A10-8Q")], ["node a", "NVIDIA_A10-8Q on node b", "PCI id 10DE:2236"]),
        ([vgpu("a", "vendor_vfio"), whole("b")], ["node a", "GA102GL_A10 on node b", "one vGPU type"]),
        ([vgpu("a", "vendor_vfio"), whole("b", **OPERATORS)], ["node a", "(10DE:2236) on b too", "one gpufleet_device_owner"]),
        ([whole("a"), whole("b", **OPERATORS)], ["node a", "nvidia.com/GA102GL_A10 (10DE:2236) on b too"]),
        ([vgpu("a", "mdev"), vgpu("b", "mdev", **OPERATORS)], ["node a", "nvidia.com/NVIDIA_A10-12Q (NVIDIA A10-12Q) on b too"]),
        ([vgpu("a", "mdev", "A100D-1-10C", A100)], ["host a", "A100D-1-10C lives in a MIG GPU instance, which only the operator makes"]),
        ([vgpu("a", "mdev", {"all": "A100D-1-10C"}, A100)], ["host a", "A100D-1-10C lives in a MIG GPU instance"]),
        ([vgpu("a", "mdev", "A16-4Q")], ["host a", "no single type for the profile A16-4Q"]),
        ([host("a", "gpu_container", gpu())], ["host a", "nothing would advertise them to containers"]),
        ([vgpu("a", "mdev", None)], ["host a", "gpufleet_vgpu_profile is not set"]),
    ],
)
def test_what_cannot_be_in_one_fleet_is_named_before_anything_is_touched(hosts: list[Json], words: list[str]) -> None:
    made = plan(*hosts)
    assert bool(made["text"]) is bool(words), made["text"]
    for word in words:
        assert word in made["text"]


def test_operands_are_kept_off_and_the_operator_has_nothing_to_do_there() -> None:
    intents = plan(vgpu("a", "mdev"))["intents"]
    fleet = {"nodes": [{"name": "a", "labels": {}, "operands": []}], "possible_gpu_nodes": ["a"], "cluster_policy": None}
    assert node_decisions(intents, fleet)["nodes"] == [{"name": "a", "operands": False, "why": OWNED}]
    assert operator_values(intents)["vgpuManager"] == {"enabled": False}
