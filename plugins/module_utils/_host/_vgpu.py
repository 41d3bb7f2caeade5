# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""vGPU types, vGPUs and the GPUs that make them, as values: what a backend reads, and what a plan is made from."""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._device_names import plain_type
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._holders import Holder

BACKENDS = ("mdev", "vendor_vfio")

_MIG_BACKED = re.compile(r"[A-Za-z0-9]+-([1-9])-\d+[ABCQ](ME)?")
_SIZE = re.compile(r"-(\d+)[ABCQ](ME|4)?$")


@dataclasses.dataclass(frozen=True)
class VgpuType:
    """A type as the driver offers it. ``most``: how many of it fit on the GPU, as the driver says; ``offered``: could one be made right now?"""

    id: str
    name: str
    size_mib: t.Optional[int]
    most: t.Optional[int] = None
    offered: t.Optional[bool] = None

    @property
    def plain(self) -> str:
        return plain_type(self.name) or self.name

    @property
    def mig_backed(self) -> bool:
        """Does a vGPU of it live in a MIG GPU instance? (``A100-1-5C``: slices, then framebuffer.)"""
        return bool(_MIG_BACKED.fullmatch(self.plain))


def size_mib(name: str) -> t.Optional[int]:
    """The framebuffer that a type's name says, in MiB; ``0`` stands for 512 MB. None if it says none."""
    found = _SIZE.search(name)
    return None if not found else (int(found.group(1)) * 1024 or 512)


@dataclasses.dataclass(frozen=True)
class Vgpu:
    """A vGPU that exists. ``device`` is its UUID (mdev) or its virtual function (vendor VFIO); ``name`` None: its type's name is not known.

    ``holders`` None: it cannot be told who holds it.
    """

    device: str
    parent: str
    type_id: str
    name: t.Optional[str]
    holders: t.Optional[t.Tuple[Holder, ...]] = ()
    placement_id: t.Optional[int] = None

    @property
    def held(self) -> bool:
        return self.holders is None or bool(self.holders)


@dataclasses.dataclass(frozen=True)
class Gpu:
    """A physical GPU. ``parents`` are the functions on which vGPUs are made, in the order of their numbers."""

    address: str
    vendor_device: str
    driver: t.Optional[str]
    backend: t.Optional[str]
    why: t.Optional[str]  #: why it has no backend
    parents: t.Tuple[str, ...] = ()
    one_each: bool = True  #: each parent takes one vGPU (a virtual function), not several (a GPU before Ampere)
    types: t.Tuple[VgpuType, ...] = ()
    vgpus: t.Tuple[Vgpu, ...] = ()
    mixed: t.Optional[bool] = None  #: mixed-size mode, where it could be asked
    gpu_instances: t.Optional[int] = None  #: MIG GPU instances, where they can be counted

    @property
    def target(self) -> str:
        return f"GPU {self.address}"

    def named(self, name: str) -> t.Optional[VgpuType]:
        return next((kind for kind in self.types if kind.name == name), None)


class Backend(t.Protocol):
    """How a host makes vGPUs. All of it raises HostError; what a driver refuses, KernelError."""

    name: str

    def types(self, parents: t.Sequence[str], used: t.Container[str]) -> t.Tuple[VgpuType, ...]:
        """The types of a GPU, as one of its parents lists them."""

    def vgpus(self, parents: t.Sequence[str]) -> t.List[Vgpu]:
        """What exists on these parents, without holders."""

    def create(self, wanted: t.Mapping[str, str]) -> None:
        """Make one vGPU: ``parent``, name of its ``type`` (resolved now), ``device``, and ``placement_id`` where one is given."""

    def remove(self, device: str) -> None: ...

    def place(self, device: str) -> t.Tuple[str, t.Optional[str]]:
        """The directory of a vGPU in sysfs, and the number of its IOMMU group: through these it is held."""
