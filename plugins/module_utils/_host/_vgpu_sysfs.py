# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The vGPUs on a function as sysfs shows them, on either backend, and who holds a function or one of its vGPUs."""

from __future__ import annotations

import posixpath
import re
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _holders, _pci
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._pci import Function
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def creatable(text: str) -> t.List[t.Tuple[str, str]]:
    """``[(type id, name)]`` from the driver's list of vGPU types; lines of another form (its heading) are passed over."""
    return [match.groups() for match in re.finditer(r"^\s*(\d+)\s*:\s*(\S.*?)\s*$", text, re.MULTILINE)]  # type: ignore[misc]


def mdevs(host: Host) -> t.List[t.Tuple[str, str, str]]:
    """``(uuid, address of the parent, type id)`` of every mediated device."""
    found = []
    for uuid in host.names("/sys/bus/mdev/devices"):
        path = host.resolve(f"/sys/bus/mdev/devices/{uuid}")
        kind = _pci.link_name(host, f"{path}/mdev_type")
        found.append((uuid, posixpath.basename(posixpath.dirname(path)), kind or ""))
    return sorted(found, key=lambda mdev: (mdev[1], mdev[0]))


def vgpus_on(host: Host, function: Function) -> int:
    """How many vGPUs there are on one function, on either backend."""
    current = host.quiet(f"{function.path}/nvidia/current_vgpu_type")
    return sum(1 for name in host.names(function.path) if _UUID.fullmatch(name)) + (current not in (None, "", "0"))


def holders_of(host: Host, function: Function, opened: _holders.Opened) -> t.Optional[t.List[_holders.Holder]]:
    """Who holds one function, or a mediated device on it; None if that is unknown."""
    nodes = _holders.nodes(host, function.path, function.group, function.address if function.parent is None else None)
    for name in host.names(function.path):
        if _UUID.fullmatch(name):
            nodes.update(_holders.nodes(host, f"{function.path}/{name}", _pci.link_name(host, f"{function.path}/{name}/iommu_group")))
    return opened.of(nodes, vfio=function.on_vfio)


def no_backend(function: Function, virtual: t.Sequence[Function]) -> str:
    if function.driver != "nvidia":
        return f"the GPU's driver is {function.driver or 'none'}; the vGPU manager has not taken it"
    if not virtual:
        return "the driver nvidia has it, without virtual functions and without vGPU types: no vGPU manager, or a GPU without vGPU"
    return "virtual functions exist, but the driver offers no vGPU types on them"
