# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""NVIDIA's PCI functions of a host: GPUs, what is on their boards, and the vGPUs that they can make.

Keyed by PCI address throughout: IOMMU group numbers change from boot to boot.
"""

from __future__ import annotations

import posixpath
import re
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _holders, _system
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host, HostError
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._names import GPU_CLASSES, NVIDIA, plain_type

Facts = _system.Facts
Unknown = _system.Unknown

_DEVICES = "/sys/bus/pci/devices"
_NVSWITCH_CLASS = "0680"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PCI_IDS = ("/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids")


class Function(t.NamedTuple):
    """One PCI function. ``kind`` is the class without its programming interface, such as ``0302``."""

    address: str
    vendor: str
    device: str
    kind: str
    driver: t.Optional[str]
    group: t.Optional[str]
    parent: t.Optional[str]  #: the physical function if this is a virtual one

    @property
    def path(self) -> str:
        return f"{_DEVICES}/{self.address}"

    @property
    def is_gpu(self) -> bool:
        return self.vendor == NVIDIA and self.kind in GPU_CLASSES and self.parent is None

    @property
    def is_bridge(self) -> bool:
        """Bridges stay with the kernel and never count in a group. An NVSwitch has a bridge's class, and is a device that a VM can have."""
        return self.kind.startswith("06") and self.kind != _NVSWITCH_CLASS

    @property
    def on_vfio(self) -> bool:
        return "vfio" in (self.driver or "")


def functions(host: Host) -> t.List[Function]:
    """All PCI functions of the host, sorted by address."""
    return [function(host, address) for address in host.names(_DEVICES)]


def function(host: Host, address: str) -> Function:
    """One PCI function, as it is now."""
    path = f"{_DEVICES}/{address}"
    return Function(
        address=address,
        vendor=_hex(host, f"{path}/vendor"),
        device=_hex(host, f"{path}/device"),
        kind=_hex(host, f"{path}/class")[:4],
        driver=_target(host, f"{path}/driver"),
        group=_target(host, f"{path}/iommu_group"),
        parent=_target(host, f"{path}/physfn"),
    )


def _hex(host: Host, path: str) -> str:
    return (_system.quiet(host, path) or "").lower().removeprefix("0x")


def _target(host: Host, path: str) -> str | None:
    """The last part of what a link points to."""
    link = host.link(path)
    return None if link is None else posixpath.basename(link.rstrip("/"))


def gpus(host: Host, found: t.Sequence[Function], unknown: Unknown) -> t.List[Facts]:
    """Every physical GPU of the host, by address."""
    models = model_names(_pci_ids(host, unknown))
    opened = _holders.Opened(host)
    if opened.unknown is not None:
        unknown.reasons["gpus.users"] = opened.unknown
    made = mdevs(host)
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
        override = _system.quiet(host, f"{path}/driver_override")
        if host.is_silent(path):
            silent = "the kernel does not answer: it still does something else to this GPU, such as an unbind that waits for who holds it"
            unknown.reasons.update({f"gpus.{address}.driver_override": silent, f"gpus.{address}.sriov.enabled": silent})
        facts.append(
            {
                "address": address,
                "vendor_device": f"{function.vendor}:{function.device}".upper(),
                "subsystem": ":".join(_hex(host, f"{path}/subsystem_{part}") for part in ("vendor", "device")).upper(),
                "class": function.kind,
                "model": models.get(function.device),
                "driver": function.driver,
                "driver_override": None if override in (None, "", "(null)") else override,
                "iommu_group": _number(function.group),
                "numa_node": _number(_system.quiet(host, f"{path}/numa_node")),
                "boot_vga": _system.quiet(host, f"{path}/boot_vga") == "1",
                "bars": bars(unknown.text(host, f"gpus.{address}.bars", f"{path}/resource")),
                "power_state": power,
                "fell_off_bus": _fell_off_bus(host, path, power, unknown, address),
                "sriov": {
                    "total": _number(_system.quiet(host, f"{path}/sriov_totalvfs")),
                    "enabled": _number(_system.quiet(host, f"{path}/sriov_numvfs")),
                },
                "vgpu": _vgpu(host, function, virtual, made),
                "mig": _mig(host, minor, unknown, address),
                "companions": [other.address for other in companions],
                "users": users(host, function, virtual, opened),
            }
        )
    return facts


def in_order(host: Host, physical: Function, virtual: t.Sequence[Function]) -> t.List[str]:
    """The addresses of virtual functions in the order of their numbers, which is that of ``virtfnN``; those without a number last."""
    numbers = {}
    for name in host.names(physical.path):
        if name.startswith("virtfn") and name[len("virtfn") :].isdigit():
            numbers[_target(host, f"{physical.path}/{name}")] = int(name[len("virtfn") :])
    return sorted((function.address for function in virtual), key=lambda address: (numbers.get(address, len(numbers) + 1), address))


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


def nvswitches(found: t.Sequence[Function]) -> t.List[Facts]:
    return [
        {
            "address": function.address,
            "vendor_device": f"{function.vendor}:{function.device}".upper(),
            "driver": function.driver,
            "iommu_group": _number(function.group),
        }
        for function in found
        if function.vendor == NVIDIA and function.kind == _NVSWITCH_CLASS
    ]


def _vgpu(host: Host, function: Function, virtual: t.Sequence[Function], made: t.Sequence[t.Tuple[str, str, str]]) -> Facts:
    parents = [function, *virtual]
    vendor = [p for p in parents if host.exists(f"{p.path}/nvidia/current_vgpu_type")]
    if vendor:
        types: t.Dict[str, Facts] = {}
        active = []
        for parent in vendor:
            for number, name in creatable(_system.quiet(host, f"{parent.path}/nvidia/creatable_vgpu_types") or ""):
                entry = types.setdefault(number, {"id": number, "name": name, "plain": plain_type(name), "available": 0})
                entry["available"] += 1
            current = _system.quiet(host, f"{parent.path}/nvidia/current_vgpu_type")
            if current not in (None, "", "0"):
                active.append({"parent": parent.address, "type": current, "vf": parent.address})
        return {"backend": "vendor_vfio", "why": None, "types": list(types.values()), "active": active}

    on_bus = [p for p in parents if host.exists(f"/sys/class/mdev_bus/{p.address}")]
    if on_bus:
        types = {}
        for parent in on_bus:
            base = f"{parent.path}/mdev_supported_types"
            for number in host.names(base):
                name = _system.quiet(host, f"{base}/{number}/name") or number
                entry = types.setdefault(number, {"id": number, "name": name, "plain": plain_type(name), "available": 0})
                entry["available"] += _number(_system.quiet(host, f"{base}/{number}/available_instances")) or 0
        addresses = {p.address for p in on_bus}
        active = [
            {"parent": parent, "type": types.get(kind, {}).get("name", kind), "uuid": uuid}
            for uuid, parent, kind in made
            if parent in addresses
        ]
        return {"backend": "mdev", "why": None, "types": list(types.values()), "active": active}
    return {"backend": "none", "why": no_backend(function, virtual), "types": [], "active": []}


def no_backend(function: Function, virtual: t.Sequence[Function]) -> str:
    if function.driver != "nvidia":
        return f"the GPU's driver is {function.driver or 'none'}; the vGPU manager has not taken it"
    if not virtual:
        return "the driver nvidia has it, without virtual functions and without vGPU types: no vGPU manager, or a GPU without vGPU"
    return "virtual functions exist, but the driver offers no vGPU types on them"


def creatable(text: str) -> t.List[t.Tuple[str, str]]:
    """``[(type id, name)]`` from the driver's list of vGPU types; lines of another form (its heading) are passed over."""
    return [match.groups() for match in re.finditer(r"^\s*(\d+)\s*:\s*(\S.*?)\s*$", text, re.MULTILINE)]  # type: ignore[misc]


def mdevs(host: Host) -> t.List[t.Tuple[str, str, str]]:
    """``(uuid, address of the parent, type id)`` of every mediated device."""
    found = []
    for uuid in host.names("/sys/bus/mdev/devices"):
        path = host.resolve(f"/sys/bus/mdev/devices/{uuid}")
        kind = _target(host, f"{path}/mdev_type")
        found.append((uuid, posixpath.basename(posixpath.dirname(path)), kind or ""))
    return sorted(found, key=lambda mdev: (mdev[1], mdev[0]))


def vgpus_on(host: Host, function: Function) -> int:
    """How many vGPUs there are on one function, on either backend."""
    current = _system.quiet(host, f"{function.path}/nvidia/current_vgpu_type")
    return sum(1 for name in host.names(function.path) if _UUID.fullmatch(name)) + (current not in (None, "", "0"))


def _mig(host: Host, minor: int | None, unknown: Unknown, address: str) -> Facts:
    if minor is None:
        unknown.reasons[f"gpus.{address}.mig"] = "NVIDIA's driver does not run this GPU, and only it knows"
        return {"mode": None, "instances": None}
    instances = [name for name in host.names(f"/proc/driver/nvidia/capabilities/gpu{minor}/mig") if name.startswith("gi")]
    if not instances:
        unknown.reasons[f"gpus.{address}.mig.mode"] = "no GPU instance exists; MIG may be on without any"
    return {"mode": "enabled" if instances else None, "instances": len(instances)}


def users(host: Host, function: Function, virtual: t.Sequence[Function], opened: _holders.Opened) -> t.Optional[t.List[Facts]]:
    """``[{pid, comm}]`` of who holds a GPU, one of its virtual functions or a vGPU on one of them; None if that is unknown."""
    found: t.Dict[int, str] = {}
    for part in (function, *virtual):
        holders = holders_of(host, part, opened)
        if holders is None:
            return None
        found.update({holder.pid: holder.comm for holder in holders})
    return [{"pid": pid, "comm": found[pid]} for pid in sorted(found)]


def holders_of(host: Host, function: Function, opened: _holders.Opened) -> t.Optional[t.List[_holders.Holder]]:
    """Who holds one function, or a mediated device on it; None if that is unknown."""
    nodes = _holders.nodes(host, function.path, function.group, function.address if function.parent is None else None)
    for name in host.names(function.path):
        if _UUID.fullmatch(name):
            nodes.update(_holders.nodes(host, f"{function.path}/{name}", _target(host, f"{function.path}/{name}/iommu_group")))
    return opened.of(nodes, vfio=function.on_vfio)


def _pci_ids(host: Host, unknown: Unknown) -> str:
    for path in _PCI_IDS:
        text = _system.quiet(host, path)
        if text is not None:
            return text
    unknown.reasons["gpus.model"] = "the host has no pci.ids"
    return ""


def model_names(pci_ids: str) -> t.Dict[str, str]:
    """NVIDIA's device names by device id (four digits, lower case), from the text of ``pci.ids``."""
    block = re.search(rf"^{NVIDIA}\s.*\n((?:[\t#].*\n|\n)*)", pci_ids, re.MULTILINE)
    return dict(re.findall(r"^\t([0-9a-f]{4})\s+(.*\S)", block.group(1), re.MULTILINE)) if block else {}
