# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The PCI functions of a host, each with its driver and its IOMMU group, and the vGPUs on them as sysfs shows them, on either backend.

Keyed by PCI address throughout: IOMMU group numbers change from boot to boot.
"""

from __future__ import annotations

import posixpath
import re
import typing as t

from .._device_names import GPU_CLASSES, NVIDIA
from ._sysfs import Host

_DEVICES = "/sys/bus/pci/devices"
NVSWITCH_CLASS = "0680"
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


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
        return self.kind.startswith("06") and self.kind != NVSWITCH_CLASS

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
        vendor=hexadecimal(host, f"{path}/vendor"),
        device=hexadecimal(host, f"{path}/device"),
        kind=hexadecimal(host, f"{path}/class")[:4],
        driver=link_name(host, f"{path}/driver"),
        group=link_name(host, f"{path}/iommu_group"),
        parent=link_name(host, f"{path}/physfn"),
    )


def hexadecimal(host: Host, path: str) -> str:
    """The number in a file of sysfs, in lower case and without ``0x``; empty if there is none."""
    return (host.quiet(path) or "").lower().removeprefix("0x")


def link_name(host: Host, path: str) -> str | None:
    """The last part of what a link points to."""
    link = host.link(path)
    return None if link is None else posixpath.basename(link.rstrip("/"))


def in_order(host: Host, physical: Function, virtual: t.Sequence[Function]) -> t.List[str]:
    """The addresses of virtual functions in the order of their numbers, which is that of ``virtfnN``; those without a number last."""
    numbers = {}
    for name in host.names(physical.path):
        if name.startswith("virtfn") and name[len("virtfn") :].isdigit():
            numbers[link_name(host, f"{physical.path}/{name}")] = int(name[len("virtfn") :])
    return sorted((function.address for function in virtual), key=lambda address: (numbers.get(address, len(numbers) + 1), address))


def creatable(text: str) -> t.List[t.Tuple[str, str]]:
    """``[(type id, name)]`` from the driver's list of vGPU types; lines of another form (its heading) are passed over."""
    return [match.groups() for match in re.finditer(r"^\s*(\d+)\s*:\s*(\S.*?)\s*$", text, re.MULTILINE)]  # type: ignore[misc]


def mdevs(host: Host) -> t.List[t.Tuple[str, str, str]]:
    """``(uuid, address of the parent, type id)`` of every mediated device."""
    found = []
    for uuid in host.names("/sys/bus/mdev/devices"):
        path = host.resolve(f"/sys/bus/mdev/devices/{uuid}")
        kind = link_name(host, f"{path}/mdev_type")
        found.append((uuid, posixpath.basename(posixpath.dirname(path)), kind or ""))
    return sorted(found, key=lambda mdev: (mdev[1], mdev[0]))


def mdevs_on(host: Host, function: Function) -> t.List[str]:
    """The UUIDs of the mediated devices on one function."""
    return [name for name in host.names(function.path) if _UUID.fullmatch(name)]


def vgpus_on(host: Host, function: Function) -> int:
    """How many vGPUs there are on one function, on either backend."""
    current = host.quiet(f"{function.path}/nvidia/current_vgpu_type")
    return len(mdevs_on(host, function)) + (current not in (None, "", "0"))


def no_backend(function: Function, virtual: t.Sequence[Function]) -> str:
    if function.driver != "nvidia":
        return f"the GPU's driver is {function.driver or 'none'}; the vGPU manager has not taken it"
    if not virtual:
        return "the driver nvidia has it, without virtual functions and without vGPU types: no vGPU manager, or a GPU without vGPU"
    return "virtual functions exist, but the driver offers no vGPU types on them"
