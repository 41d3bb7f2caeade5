# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The PCI functions of a host, each with its driver and its IOMMU group.

Keyed by PCI address throughout: IOMMU group numbers change from boot to boot.
"""

from __future__ import annotations

import posixpath
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._device_names import GPU_CLASSES, NVIDIA
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host

_DEVICES = "/sys/bus/pci/devices"
NVSWITCH_CLASS = "0680"


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
