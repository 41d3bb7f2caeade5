# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Hosts that own their devices: what they make, and as what KubeVirt's own device plugin advertises it.

That plugin advertises what is permitted with ``externalResourceProvider: false``, on every node that has such a device, under the name of the
entry. It tells mediated devices apart by their type, and everything else by PCI vendor and device alone: a virtual function has the ids of its
GPU, whatever its vGPU is (kubevirt/kubevirt v1.9, pkg/virt-handler/device-manager/device_controller.go).
"""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _device_names, _names
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._intents import _vgpu_config
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._permits import _plugin_names
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _catalogue, _type_names

Facts = t.Mapping[str, t.Any]

HOST = "host"
#: A device whose kind only the host's driver decides, and it has not come up yet.
UNKNOWN = "unknown"


class Device(t.NamedTuple):
    """``kind``: pci, mdev or UNKNOWN. ``selector`` and ``name`` as KubeVirt takes them; ``plain``: the vGPU type, None for a whole GPU."""

    kind: str
    selector: str
    name: str
    plain: str | None


class Found(t.NamedTuple):
    """Something that is wrong with one node."""

    node: str
    problem: str
    remedy: str


def full_name(intent: Facts, plain: str) -> str | None:
    """The full name of a type: as the host's driver spells it, or, before there is a driver, as the data does. None if neither says it."""
    told = (name for gpu in intent["gpus"] for name in gpu["types"] if _device_names.plain_type(name) == plain)
    known = (_catalogue.mdev_name(gpu["pci"], gpu.get("subsystem", ""), plain) for gpu in intent["gpus"])
    return next(told, None) or next((name for name in known if name), None)


def vgpus(
    given: t.Sequence[Facts], profile: str | None, made: t.Any, gpus: t.Sequence[Facts]
) -> tuple[list[dict[str, t.Any]], list[Found]]:
    """``[{address, types: {type: count}}]`` for the GPUs of a host. ``given``: its ``gpufleet_vgpus``, which wins over its profile."""
    problems: list[Found] = []
    if given:
        return _as_given(given, gpus), problems
    asked: list[str] = []
    if made is not None:
        found, wrong = _vgpu_config.types(made, gpus)
        problems += [Found("", *problem) for problem in wrong]
        asked = [kind for gpu in found for kind in gpu["types"]]
    else:
        found = []
        for gpu in gpus if profile else ():
            kinds = _of_profile(str(profile), gpu)
            asked += [kind for kind, _most in kinds]
            if len(kinds) != 1 or not kinds[0][1]:
                have = " and ".join(kind for kind, most in kinds if most) or "none"
                problem = f"GPU {gpu['address']} ({gpu['pci']}) has no single type for the profile {profile}: {have}"
                problems.append(Found("", problem, "Choose a profile of this GPU, or say the types per GPU in gpufleet_vgpus"))
                continue
            found.append({"address": str(gpu["address"]), "types": {kinds[0][0]: int(kinds[0][1])}})
    backed = sorted({kind for kind in asked if _type_names.parse(kind).slices})
    if backed:
        problem = f"{', '.join(backed)} lives in a MIG GPU instance, which only the operator makes, and the host owns its devices"
        remedy = "Set gpufleet_device_owner: operator, choose a time-sliced type, or make the instances yourself and say gpufleet_vgpus"
        problems.append(Found("", problem, remedy))
    return found, problems


def _of_profile(profile: str, gpu: Facts) -> list[tuple[str, int | None]]:
    if profile == _catalogue.DEFAULT:
        return list(_catalogue.default_types(gpu["pci"]))
    kind = _catalogue.type_of(profile)
    return [(kind, _catalogue.most(gpu["pci"], gpu.get("subsystem") or "", kind))]


def _as_given(given: t.Sequence[Facts], gpus: t.Sequence[Facts]) -> list[dict[str, t.Any]]:
    """As ``mdev_create`` chooses GPUs. What it would refuse is left out here: it says so itself, on the host."""
    found = []
    ordered = sorted(gpus, key=lambda gpu: str(gpu["address"]).lower())
    for entry in given:
        for index, gpu in enumerate(ordered):
            means = (entry.get("address"), entry.get("vendor_device"), entry.get("index"))
            here = (str(gpu["address"]), str(gpu["pci"]), index)
            if any(wish is not None and str(wish).lower() == str(has).lower() for wish, has in zip(means, here, strict=True)):
                types = {}
                for kind in entry.get("types") or ():
                    name = _device_names.plain_type(str(kind["type"])) or str(kind["type"])
                    types[name] = int(kind.get("count") or _catalogue.most(gpu["pci"], gpu.get("subsystem") or "", name) or 0)
                found.append({"address": str(gpu["address"]), "types": types})
    return found


def devices(intent: Facts) -> list[Device]:
    """What KubeVirt must permit for a host that owns its devices, each once."""
    by_address = {str(gpu["address"]): gpu for gpu in intent["gpus"]}
    found: list[Device] = []
    if intent["workload"] == "vm-passthrough":
        found = [Device("pci", _names.pci_id_key(gpu["pci"]), _plugin_names.resource(gpu["pci"]), None) for gpu in intent["gpus"]]
    for made in intent["vgpus"] or () if intent["workload"] == "vm-vgpu" else ():
        gpu = by_address[made["address"]]
        for plain, count in made["types"].items():
            full = full_name(intent, plain) or plain
            name = f"nvidia.com/{_names.mdev_name_key(full)}"
            kind = {"mdev": "mdev", "vendor_vfio": "pci"}.get(str(gpu["backend"]), UNKNOWN)
            selector = _names.pci_id_key(gpu["pci"]) if kind == "pci" else full
            if count:
                found.append(Device(kind, selector, name, plain))
    return list(dict.fromkeys(found))


def conflicts(intents: t.Iterable[Facts]) -> list[Found]:
    """Devices that KubeVirt could not tell apart, or that two plugins would advertise, among the hosts of a fleet that have been read."""
    wanted = [intent for intent in intents if intent["state"] == "wanted"]
    owned = [(str(intent["node"]), device) for intent in wanted if intent["owner"] == HOST for device in devices(intent)]
    found = []
    for node, device in owned:
        rivals = [(other, rival) for other, rival in owned if rival.kind == device.kind == "pci" and rival.selector == device.selector]
        other, rival = next(((other, rival) for other, rival in rivals if rival.name != device.name), ("", device))
        if rival.name != device.name:
            problem = (
                f"{device.name} here and {rival.name} on node {other} are both PCI id {device.selector}, and KubeVirt tells such devices "
            )
            remedy = "Have all GPUs of this id on such hosts make one vGPU type, or be given to VMs whole"
            found.append(Found(node, f"{problem}apart by nothing else", remedy))
        taken = [str(intent["node"]) for intent in wanted if intent["owner"] != HOST and _reaches(device, intent)]
        if taken:
            problem = (
                f"KubeVirt's own device plugin would advertise {device.name} ({device.selector}) on {', '.join(taken)} too, whose devices"
            )
            remedy = "Give these hosts one gpufleet_device_owner, or another vGPU type or model"
            found.append(Found(node, f"{problem} the operator's plugin advertises", remedy))
    return list(dict.fromkeys(found))


def _reaches(device: Device, intent: Facts) -> bool:
    """Would permitting it for KubeVirt's own plugin advertise devices of a node that the operator owns, or be one name for two kinds?"""
    if intent["workload"] == "vm-passthrough":
        return device.kind == "pci" and any(_names.pci_id_key(gpu["pci"]) == device.selector for gpu in intent["gpus"])
    types = [expected.get("vgpu_type") for expected in intent["expect"]]
    return intent["workload"] == "vm-vgpu" and device.plain is not None and device.plain in types
