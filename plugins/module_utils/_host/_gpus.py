# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is said of each GPU and NVSwitch of a host: what it is, who drives and holds it, and the vGPUs that it can make."""

from __future__ import annotations

import re
import typing as t

from .._device_names import GPU_CLASSES, NVIDIA, plain_type
from . import _holders, _pci
from ._pci import NVSWITCH_CLASS, Function
from ._sysfs import Host, HostError
from ._system import Facts, Unknown

_PCI_IDS = ("/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids")


def gpus(host: Host, found: t.Sequence[Function], unknown: Unknown) -> t.List[Facts]:
    """Every physical GPU of the host, by address."""
    models = model_names(_pci_ids(host, unknown))
    opened = _holders.Opened(host)
    if opened.unknown is not None:
        unknown.reasons["gpus.users"] = opened.unknown
    made = _pci.mdevs(host)
    facts = []
    for function in found:
        if not function.is_gpu:
            continue
        address, path = function.address, function.path
        virtual = [other for other in found if other.parent == address]
        companions = [
            other for other in found if other.vendor == NVIDIA and other.address != address and _slot(other.address) == _slot(address)
            and other.parent is None and other.kind not in GPU_CLASSES
        ]  # fmt: skip
        minor = _holders.nvidia_minor(host, address)
        power = unknown.text(host, f"gpus.{address}.power_state", f"{path}/power_state")
        override = host.quiet(f"{path}/driver_override")
        if host.is_silent(path):
            silent = "the kernel does not answer: it still does something else to this GPU, such as an unbind that waits for who holds it"
            unknown.reasons.update({f"gpus.{address}.driver_override": silent, f"gpus.{address}.sriov.enabled": silent})
        facts.append(
            {
                "address": address,
                "vendor_device": f"{function.vendor}:{function.device}".upper(),
                "subsystem": ":".join(_pci.hexadecimal(host, f"{path}/subsystem_{part}") for part in ("vendor", "device")).upper(),
                "class": function.kind,
                "model": models.get(function.device),
                "driver": function.driver,
                "driver_override": None if override in (None, "", "(null)") else override,
                "iommu_group": _number(function.group),
                "numa_node": _number(host.quiet(f"{path}/numa_node")),
                "boot_vga": host.quiet(f"{path}/boot_vga") == "1",
                "bars": bars(unknown.text(host, f"gpus.{address}.bars", f"{path}/resource")),
                "power_state": power,
                "fell_off_bus": _fell_off_bus(host, path, power, unknown, address),
                "sriov": {
                    "total": _number(host.quiet(f"{path}/sriov_totalvfs")),
                    "enabled": _number(host.quiet(f"{path}/sriov_numvfs")),
                },
                "vgpu": _vgpu(host, function, virtual, made, opened),
                "mig": _mig(host, minor, unknown, address),
                "companions": [other.address for other in companions],
                "users": users(host, function, virtual, opened),
            }
        )
    return facts


def _slot(address: str) -> str:
    return address.rpartition(".")[0]


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"-?\d+", text) else None


def bars(resource: str | None) -> t.Optional[t.List[int]]:
    """Sizes in bytes of the six base address registers, from the text of sysfs' ``resource``; 0 for one that has no room."""
    if resource is None:
        return None
    sizes = []
    for line in resource.splitlines()[:6]:
        start, end, _flags = (int(word, 16) for word in line.split())
        sizes.append(end - start + 1 if end > start else 0)
    return sizes


def _fell_off_bus(host: Host, path: str, power: str | None, unknown: Unknown, address: str) -> bool | None:
    if power == "D3cold":
        unknown.reasons[f"gpus.{address}.fell_off_bus"] = "the GPU sleeps (D3cold) and is not woken to ask"
        return None
    try:
        head = host.read_bytes(f"{path}/config")
    except HostError as error:
        unknown.reasons[f"gpus.{address}.fell_off_bus"] = str(error)
        return None
    if not head:
        unknown.reasons[f"gpus.{address}.fell_off_bus"] = f"there is no {path}/config"
        return None
    return head[:4] == b"\xff\xff\xff\xff"  # a function that does not answer reads as all ones


def _vgpu(
    host: Host, function: Function, virtual: t.Sequence[Function], made: t.Sequence[t.Tuple[str, str, str]], opened: _holders.Opened
) -> Facts:
    parents = [function, *virtual]

    def held(path: str, group: t.Optional[str]) -> t.Optional[t.List[Facts]]:
        return _shown(opened.of(_holders.nodes(host, path, group), vfio=True))

    vendor = [p for p in parents if host.exists(f"{p.path}/nvidia/current_vgpu_type")]
    if vendor:
        types: t.Dict[str, Facts] = {}
        active = []
        for parent in vendor:
            for number, name in _pci.creatable(host.quiet(f"{parent.path}/nvidia/creatable_vgpu_types") or ""):
                entry = types.setdefault(number, {"id": number, "name": name, "plain": plain_type(name), "available": 0})
                entry["available"] += 1
            current = host.quiet(f"{parent.path}/nvidia/current_vgpu_type")
            if current not in (None, "", "0"):
                active.append({"parent": parent.address, "type": current, "vf": parent.address, "users": held(parent.path, parent.group)})
        return {"backend": "vendor_vfio", "why": None, "types": list(types.values()), "active": active}

    on_bus = [p for p in parents if host.exists(f"/sys/class/mdev_bus/{p.address}")]
    if on_bus:
        types = {}
        for parent in on_bus:
            base = f"{parent.path}/mdev_supported_types"
            for number in host.names(base):
                name = host.quiet(f"{base}/{number}/name") or number
                entry = types.setdefault(number, {"id": number, "name": name, "plain": plain_type(name), "available": 0})
                entry["available"] += _number(host.quiet(f"{base}/{number}/available_instances")) or 0
        addresses = {p.address for p in on_bus}
        active = [
            {"parent": parent, "type": types.get(kind, {}).get("name", kind), "uuid": uuid,
             "users": held(f"/sys/bus/mdev/devices/{uuid}", _pci.link_name(host, f"/sys/bus/mdev/devices/{uuid}/iommu_group"))}
            for uuid, parent, kind in made
            if parent in addresses
        ]  # fmt: skip
        return {"backend": "mdev", "why": None, "types": list(types.values()), "active": active}
    return {"backend": "none", "why": _pci.no_backend(function, virtual), "types": [], "active": []}


def _mig(host: Host, minor: int | None, unknown: Unknown, address: str) -> Facts:
    if minor is None:
        unknown.reasons[f"gpus.{address}.mig"] = "NVIDIA's driver does not run this GPU, and only it knows"
        return {"mode": None, "instances": None}
    instances = [name for name in host.names(f"/proc/driver/nvidia/capabilities/gpu{minor}/mig") if name.startswith("gi")]
    if not instances:
        unknown.reasons[f"gpus.{address}.mig.mode"] = "no GPU instance exists; MIG may be on without any"
    return {"mode": "enabled" if instances else None, "instances": len(instances)}


def users(host: Host, function: Function, virtual: t.Sequence[Function], opened: _holders.Opened) -> t.Optional[t.List[Facts]]:
    """Who holds a GPU, one of its virtual functions or a vGPU on one of them; None if that is unknown."""
    found: t.List[_holders.Holder] = []
    for part in (function, *virtual):
        holders = _holders.holders_of(host, part, opened)
        if holders is None:
            return None
        found += holders
    return _shown(found)


def _shown(holders: t.Optional[t.Sequence[_holders.Holder]]) -> t.Optional[t.List[Facts]]:
    """``[{pid, comm, vm}]``, each process once."""
    if holders is None:
        return None
    found = {holder.pid: {"pid": holder.pid, "comm": holder.comm, "vm": holder.vm} for holder in holders}
    return [found[pid] for pid in sorted(found)]


def _pci_ids(host: Host, unknown: Unknown) -> str:
    for path in _PCI_IDS:
        text = host.quiet(path)
        if text is not None:
            return text
    unknown.reasons["gpus.model"] = "the host has no pci.ids"
    return ""


def model_names(pci_ids: str) -> t.Dict[str, str]:
    """NVIDIA's device names by device id (four digits, lower case), from the text of ``pci.ids``."""
    block = re.search(rf"^{NVIDIA}\s.*\n((?:[\t#].*\n|\n)*)", pci_ids, re.MULTILINE)
    return dict(re.findall(r"^\t([0-9a-f]{4})\s+(.*\S)", block.group(1), re.MULTILINE)) if block else {}


def nvswitches(found: t.Sequence[Function]) -> t.List[Facts]:
    return [
        {
            "address": function.address,
            "vendor_device": f"{function.vendor}:{function.device}".upper(),
            "driver": function.driver,
            "iommu_group": _number(function.group),
        }
        for function in found
        if function.vendor == NVIDIA and function.kind == NVSWITCH_CLASS
    ]
