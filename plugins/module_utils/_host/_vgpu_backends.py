# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The two ways in which a host makes vGPUs. All of them raise HostError; what a driver refuses, KernelError.

:class:`Mdev`: made by writing a UUID to a type's ``create``, gone by writing 1 to their ``remove``. Parents are the GPU itself before
Ampere, its virtual functions after. Sources: the kernel's Documentation/driver-api/vfio-mediated-device.rst.

:class:`VendorVfio`: the type's number is written to an attribute of the virtual function, 0 takes it away. A type's name cannot be read back
from ``current_vgpu_type``, and once a vGPU exists the siblings list only what still fits. So the names that were seen are kept in a file of
ours, per model and for the version of the driver that said them.
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import json
import re
import typing as t
import uuid

from . import _pci
from ._sysfs import Host, KernelError
from ._vgpu import Vgpu, VgpuType, size_mib

MEMORY = "/var/lib/gpufleet/vgpu_types.json"
_PCI = "/sys/bus/pci/devices"
_MDEV = "/sys/bus/mdev/devices"
#: Makes the namespace of our UUIDs, so that they say nothing of the machine id (machine-id(5) asks for a keyed hash).
_KEY = b"gpufleet.kubevirt mediated devices"
MACHINE_ID = "/etc/machine-id"


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
        for device, parent, kind in _pci.mdevs(self._host):
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


class VendorVfio:
    """The backend of kernels whose vGPU manager brings its own VFIO."""

    name = "vendor_vfio"

    def __init__(self, host: Host, timeout: float) -> None:
        self._host = host
        self._timeout = timeout
        self._driver = host.quiet("/sys/module/nvidia/version") or ""
        self._kept = self._read_memory()
        self._models: t.Dict[str, str] = {}  # virtual function -> vendor:device

    def parents(self, functions: t.Sequence[str]) -> t.List[str]:
        return [address for address in functions if self._host.exists(f"{_PCI}/{address}/nvidia/current_vgpu_type")]

    def types(self, parents: t.Sequence[str], used: t.Container[str]) -> t.Tuple[VgpuType, ...]:
        """What a virtual function without a vGPU lists now, and what the driver was seen to list before."""
        model = self._model(parents[0])  # virtual functions carry the ids of their GPU
        free = next((address for address in parents if address not in used), None)
        now = dict(self._creatable(free)) if free else {}
        if now:
            self._kept.setdefault(model, {}).update(now)
        known = {**self._kept.get(model, {}), **now}
        return tuple(
            VgpuType(id=number, name=known[number], size_mib=size_mib(known[number]), offered=number in now)
            for number in sorted(known, key=int)
        )

    def _model(self, address: str) -> str:
        if address not in self._models:
            path = f"{_PCI}/{address}"
            self._models[address] = ":".join((self._host.quiet(f"{path}/{part}") or "").lower() for part in ("vendor", "device"))
        return self._models[address]

    def _creatable(self, parent: str) -> t.List[t.Tuple[str, str]]:
        return _pci.creatable(self._host.quiet(f"{_PCI}/{parent}/nvidia/creatable_vgpu_types") or "")

    def vgpus(self, parents: t.Sequence[str]) -> t.List[Vgpu]:
        found = []
        for parent in parents:
            base = f"{_PCI}/{parent}/nvidia"
            number = self._host.quiet(f"{base}/current_vgpu_type")
            if number in (None, "", "0"):
                continue
            name = self._kept.get(self._model(parent), {}).get(str(number))
            placement = self._host.quiet(f"{base}/placement_id") or ""
            found.append(Vgpu(parent, parent, str(number), name, placement_id=int(placement) if placement.isdigit() else None))
        return found

    def create(self, wanted: t.Mapping[str, str]) -> None:
        base = f"{_PCI}/{wanted['parent']}/nvidia"
        # Read anew for each one: making a vGPU changes what its siblings can take.
        number = next((number for number, offered in self._creatable(wanted["parent"]) if offered == wanted["type"]), None)
        if number is None:
            raise KernelError(f"{base}/creatable_vgpu_types", errno.ENOSPC)
        if "placement_id" in wanted:
            self._host.write_kernel(f"{base}/placement_id", wanted["placement_id"], self._timeout)
        self._host.write_kernel(f"{base}/current_vgpu_type", number, self._timeout)

    def remove(self, device: str) -> None:
        self._host.write_kernel(f"{_PCI}/{device}/nvidia/current_vgpu_type", "0", self._timeout)

    def place(self, device: str) -> t.Tuple[str, t.Optional[str]]:
        return f"{_PCI}/{device}", _pci.link_name(self._host, f"{_PCI}/{device}/iommu_group")

    def _read_memory(self) -> t.Dict[str, t.Dict[str, str]]:
        try:
            kept = json.loads(self._host.read_text(MEMORY) or "{}")
            if kept.get("driver") != self._driver:
                return {}  # another driver may number its types otherwise
            return {str(model): {str(n): str(name) for n, name in names.items()} for model, names in kept["types"].items()}
        except (ValueError, AttributeError, KeyError, TypeError):
            return {}

    def remember(self) -> None:
        """Keep the names that were seen, before a vGPU is made that can only be named by them."""
        text = json.dumps({"driver": self._driver, "types": self._kept}, indent=1, sort_keys=True) + "\n"
        if self._kept and self._host.read_text(MEMORY) != text:
            self._host.write_text(MEMORY, text, 0o600)


#: ``create`` takes ``parent``, the name of the ``type``, ``device``, and ``placement_id`` where one is given; ``place`` says the directory of
#: a vGPU in sysfs and the number of its IOMMU group: through these it is held.
Backend = t.Union[Mdev, VendorVfio]


def namespace(machine_id: t.Optional[str]) -> t.Optional[uuid.UUID]:
    """The namespace of this machine's UUIDs: a keyed hash of its machine id, so that no two hosts make the same ones. None without such an id.

    A machine that has not been started yet says ``uninitialized`` (machine-id(5)), and others would say it too.
    """
    if not re.fullmatch("[0-9a-fA-F]{32}", machine_id or ""):
        return None
    return uuid.UUID(bytes=hmac.new(_KEY, str(machine_id).encode(), hashlib.sha256).digest()[:16])


def identity(space: uuid.UUID, parent: str, name: str, ordinal: int) -> str:
    """The UUID of the ``ordinal``-th vGPU of a type on a parent: the same in each run on this machine."""
    return str(uuid.uuid5(space, f"{parent}/{name}/{ordinal}"))
