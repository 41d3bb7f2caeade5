# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""vGPUs as mediated devices: made by writing a UUID to a type's ``create``, gone by writing 1 to their ``remove``.

Parents are the GPU itself before Ampere, its virtual functions after. Sources: the kernel's Documentation/driver-api/vfio-mediated-device.rst.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import re
import typing as t
import uuid

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _pci, _vgpu_sysfs
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host, KernelError
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._vgpu import Vgpu, VgpuType, size_mib

_PCI = "/sys/bus/pci/devices"
_MDEV = "/sys/bus/mdev/devices"
#: Makes the namespace of our UUIDs, so that they say nothing of the machine id (machine-id(5) asks for a keyed hash).
_KEY = b"gpufleet.kubevirt mediated devices"


class Mdev:
    """The backend of kernels whose vGPU manager uses the mediated device framework."""

    name = "mdev"

    def __init__(self, host: Host, timeout: float) -> None:
        self._host = host
        self._timeout = timeout
        self._ids: t.Dict[str, t.Dict[str, str]] = {}  # parent -> name -> id

    def parents(self, functions: t.Sequence[str]) -> t.List[str]:
        on_bus = set(self._host.names("/sys/class/mdev_bus"))
        return [address for address in functions if address in on_bus]

    def types(self, parents: t.Sequence[str], used: t.Container[str]) -> t.Tuple[VgpuType, ...]:
        """Siblings list the same types, so one without a vGPU is asked: only there the number of instances says what the GPU has room for."""
        if not parents:
            return ()
        parent = next((address for address in parents if address not in used), parents[0])
        found = []
        for number in self._host.names(f"{_PCI}/{parent}/mdev_supported_types"):
            base = f"{_PCI}/{parent}/mdev_supported_types/{number}"
            name = self._host.quiet(f"{base}/name") or number
            description = self._host.quiet(f"{base}/description") or ""
            available = self._host.quiet(f"{base}/available_instances") or ""
            framebuffer, most = (re.search(rf"{word}=(\d+)", description) for word in ("framebuffer", "max_instance"))
            found.append(
                VgpuType(
                    id=number,
                    name=name,
                    size_mib=int(framebuffer.group(1)) if framebuffer else size_mib(name),
                    most=int(most.group(1)) if most else None,
                    offered=int(available) > 0 if available.isdigit() else None,
                )
            )
        return tuple(found)

    def vgpus(self, parents: t.Sequence[str]) -> t.List[Vgpu]:
        wanted = set(parents)
        names: t.Dict[str, str] = {}
        found = []
        for device, parent, kind in _vgpu_sysfs.mdevs(self._host):
            if parent not in wanted:
                continue
            if kind not in names:
                names[kind] = self._host.quiet(f"{_PCI}/{parent}/mdev_supported_types/{kind}/name") or kind
            found.append(Vgpu(device, parent, kind, names[kind]))
        return found

    def create(self, wanted: t.Mapping[str, str]) -> None:
        number = self._id(wanted["parent"], wanted["type"])
        self._host.write_kernel(f"{_PCI}/{wanted['parent']}/mdev_supported_types/{number}/create", wanted["device"], self._timeout)

    def _id(self, parent: str, name: str) -> str:
        base = f"{_PCI}/{parent}/mdev_supported_types"
        # The driver numbers its types once for all GPUs of a model; a guess is taken only after its name was read here.
        for known in self._ids.values():
            if name in known and self._host.quiet(f"{base}/{known[name]}/name") == name:
                return known[name]
        self._ids[parent] = {self._host.quiet(f"{base}/{n}/name") or n: n for n in self._host.names(base)}
        if name not in self._ids[parent]:
            raise KernelError(f"{base}/{name}", errno.ENOENT)
        return self._ids[parent][name]

    def remove(self, device: str) -> None:
        self._host.write_kernel(f"{_MDEV}/{device}/remove", "1", self._timeout)

    def place(self, device: str) -> t.Tuple[str, t.Optional[str]]:
        path = f"{_MDEV}/{device}"
        return path, _pci.link_name(self._host, f"{path}/iommu_group")


def namespace(machine_id: str) -> uuid.UUID:
    """The namespace of this machine's UUIDs: a keyed hash of its machine id, so that no two hosts make the same ones."""
    return uuid.UUID(bytes=hmac.new(_KEY, machine_id.strip().encode(), hashlib.sha256).digest()[:16])


def identity(space: uuid.UUID, parent: str, name: str, ordinal: int) -> str:
    """The UUID of the ``ordinal``-th vGPU of a type on a parent: the same in each run on this machine."""
    return str(uuid.uuid5(space, f"{parent}/{name}/{ordinal}"))
