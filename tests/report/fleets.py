# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fleets to report: what the cluster, the inventory and the hosts say, in the shapes of ``gpu_fleet_info``, ``node_intents``, ``gpu_node_info``."""

from __future__ import annotations

import random
import typing as t

WORKLOAD, PROFILE = "nvidia.com/gpu.workload.config", "nvidia.com/vgpu.config"
A10 = "nvidia.com/GA102GL_A10"
Facts = dict[str, t.Any]
#: Type ids as the driver gives them, with how many an A10 holds.
A10_TYPES = {"A10-4Q": ("nvidia-593", 6), "A10-8Q": ("nvidia-594", 3), "A10-12Q": ("nvidia-595", 2), "A10-24Q": ("nvidia-596", 1)}


def qemu(vm: str, pid: int = 7) -> Facts:
    return {"pid": pid, "comm": "qemu-kvm", "vm": vm.replace("/", "_", 1)}


def vgpu(kind: str, *vms: str) -> Facts:
    return {"parent": "0000:41:00.4", "type": f"NVIDIA {kind}", "uuid": "u", "users": [qemu(vm) for vm in vms]}


def gpu(number: int = 0, *active: Facts, driver: str | None = "nvidia", backend: str = "mdev", **more: t.Any) -> Facts:
    """An A10. Of an equal-size GPU the driver offers the rest of the type that is there, or each type of an empty one."""
    here = {entry["type"].split()[-1] for entry in active}
    types = [
        {"id": number_, "name": f"NVIDIA {name}", "plain": name, "available": most - len(active) if not here or name in here else 0}
        for name, (number_, most) in A10_TYPES.items()
    ]
    vgpus = {"backend": backend, "why": None if backend != "none" else "no driver", "types": types if backend != "none" else []}
    return {
        "address": f"0000:{0x10 + number * 0x10:02x}:00.0",
        "vendor_device": "10DE:2236",
        "subsystem": "10DE:1482",
        "class": "0302",
        "model": "GA102GL [A10]",
        "driver": driver,
        "sriov": {"total": 32, "enabled": 32},
        "users": [],
        "fell_off_bus": False,
        "vgpu": {**vgpus, "active": list(active)},
        **more,
    }


def host(*gpus: Facts, boot_id: str = "b", **more: t.Any) -> Facts:
    return {"gpus": list(gpus), "host": {"boot_id": boot_id}, "kernel_log": [], "unknown": {}, **more}


def use(who: str, count: int = 1) -> Facts:
    namespace, _slash, name = who.partition("/")
    return {"namespace": namespace, "pod": f"virt-launcher-{name}-x", "vmi": name, "count": count}


def node(name: str, workload: str | None, allocatable: Facts | None = None, **more: t.Any) -> Facts:
    labels = {WORKLOAD: workload} if workload else {}
    labels |= {PROFILE: "A10-4Q"} if workload == "vm-vgpu" else {}
    found = {
        "name": name,
        "ready": True,
        "schedulable": True,
        "workload": workload,
        "boot_id": "b",
        "used": {},
        "withdrawn": [],
        "at_work": [],
    }
    return {**found, "allocatable": allocatable or {}, **more, "labels": {**labels, **more.get("labels", {})}}


def intent(name: str, workload: str, expect: t.Sequence[Facts] = (), **more: t.Any) -> Facts:
    found: Facts = {"host": f"{name}.example", "node": name, "workload": workload, "profile": None, "device_config": None, "vgpus": None}
    found |= {"owner": "operator", "limited": True, "state": "wanted", "why": None, "expect": list(expect)}
    return {**found, **({"profile": "A10-4Q"} if workload == "vm-vgpu" else {}), **more}


def cluster(*nodes: Facts, **more: t.Any) -> Facts:
    return {
        "cluster": {"server": "https://127.0.0.1:6443", "uid": "u", "version": "v1.34.0"},
        "nodes": list(nodes),
        "cluster_policy": None,
        "release": None,
        "kubevirt": None,
        "possible_gpu_nodes": [entry["name"] for entry in nodes],
        **more,
    }


class Fleet(t.NamedTuple):
    cluster: Facts
    intents: list[Facts]
    facts: dict[str, Facts]

    def arguments(self) -> Facts:
        return {"fleet": self.cluster, "intents": self.intents, "facts": self.facts, "generated": "2026-01-31T10:00:00Z"}


def large(nodes: int, gpus: int, seed: int = 1, crowded: bool = False) -> Fleet:
    """Many nodes with vGPUs, whole GPUs and containers; some differ from what is wanted, some cannot be reached, some are sick.

    ``crowded``: all have vGPUs, and each is held.
    """
    chance = random.Random(seed)
    found, intents, facts = [], [], {}
    for number in range(nodes):
        name = f"gpu-{number:04}"
        workload = "vm-vgpu" if crowded else ("vm-vgpu", "vm-vgpu", "vm-passthrough", "container")[number % 4]
        used: dict[str, list[Facts]] = {}
        cards = []
        for index in range(gpus):
            vms = [
                f"team-{chance.randrange(40)}/desk-{number:04}-{index}-{place}" for place in range(6 if crowded else chance.randrange(7))
            ]
            if workload == "vm-vgpu":
                kind, most = ("A10-4Q", 6) if chance.random() < 0.9 else ("A10-8Q", 3)
                vms = vms[:most]
                active = [vgpu(kind, *vms[place : place + 1]) for place in range(most if chance.random() < 0.9 else max(len(vms), 1))]
                used.setdefault(f"nvidia.com/NVIDIA_{kind}", []).extend(use(vm) for vm in vms)
                cards.append(gpu(index, *active))
            else:
                whole = workload == "vm-passthrough"
                seen = [qemu(vms[0])] if vms and whole else []
                if vms:
                    used.setdefault(A10 if whole else "nvidia.com/gpu", []).append(use(vms[0]))
                cards.append(gpu(index, driver="vfio-pci" if whole else "nvidia", backend="none", users=seen))
        made: dict[str, int] = {}
        for card in cards:
            for entry in card["vgpu"]["active"]:
                resource = f"nvidia.com/{entry['type'].replace(' ', '_')}"
                made[resource] = made.get(resource, 0) + 1
        expect: list[Facts] = [{"vgpu_type": "A10-4Q", "count": 6 * gpus}]
        if workload != "vm-vgpu":
            made = {A10 if workload == "vm-passthrough" else "nvidia.com/gpu": gpus}
            expect = [
                {"pci": "10DE:2236", "count": gpus} if workload == "vm-passthrough" else {"resource": "nvidia.com/gpu", "count": gpus}
            ]
        found.append(node(name, workload, made, used=used, ready=number % 97 != 5))
        away = number % 53 == 7
        intents.append(intent(name, workload, [] if away else expect, state="unread" if away else "wanted"))
        facts[f"{name}.example"] = {"unreachable": True, "msg": "Connection timed out"} if away else host(*cards)
    return Fleet(cluster(*found), intents, facts)
