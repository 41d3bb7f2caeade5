# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""vGPUs on newer kernels, without mediated devices: the type's number is written to an attribute of the virtual function, 0 takes it away.

A type's name cannot be read back from ``current_vgpu_type``, and once a vGPU exists the siblings list only what still fits. So the names
that were seen are kept in a file of ours, per model and for the version of the driver that said them.
"""

from __future__ import annotations

import errno
import json
import posixpath
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _vgpu_sysfs
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host, KernelError
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._vgpu import Vgpu, VgpuType, size_mib

MEMORY = "/var/lib/gpufleet/vgpu_types.json"
_PCI = "/sys/bus/pci/devices"


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
        return _vgpu_sysfs.creatable(self._host.quiet(f"{_PCI}/{parent}/nvidia/creatable_vgpu_types") or "")

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
        link = self._host.link(f"{_PCI}/{device}/iommu_group")
        return f"{_PCI}/{device}", None if link is None else posixpath.basename(link.rstrip("/"))

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
