# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""vGPU types, vGPUs and the GPUs that make them, as values, and whether a set of vGPUs fits on a GPU.

What fits is said only as far as the driver's own numbers, or its published rules, prove it: NVIDIA/open-gpu-kernel-modules,
src/nvidia/src/kernel/virtualization/kernel_vgpu_mgr.c (equal sizes, placement) and src/nvidia/inc/ctrl/ctrla081.h (at most 32 vGPUs on a
GPU without MIG).
"""

from __future__ import annotations

import dataclasses
import re
import typing as t

from .._device_names import plain_type
from ._holders import Holder

_MIG_BACKED = re.compile(r"[A-Za-z0-9]+-([1-9])-\d+[ABCQ](ME)?")
_SIZE = re.compile(r"-(\d+)[ABCQ](ME|4)?$")
_MOST_WITHOUT_MIG = 32
#: (framebuffer of the GPU, of the type) in GB -> how many, where the driver's table has fewer than fit by size (141 GB H200, H20).
_FEWER = {(141, 8): 16}
#: The type's family whose MIG GPU instances take several vGPUs each.
_SHARES_INSTANCES = "DC-"


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


@dataclasses.dataclass(frozen=True)
class Verdict:
    """``fits`` None: cannot be proven. ``why`` says what was compared."""

    fits: t.Optional[bool]
    why: str


Placed = t.Tuple[VgpuType, t.Optional[int]]


def verdict(gpu: Gpu, wanted: t.Sequence[Placed]) -> Verdict:
    """Do these vGPUs, each with its placement id if it has one, fit together on the GPU when nothing else is on it?"""
    if not wanted:
        return Verdict(True, "nothing is wanted")
    if gpu.one_each and len(wanted) > len(gpu.parents):
        return Verdict(False, f"{len(wanted)} vGPUs are wanted, and it has {len(gpu.parents)} virtual functions, which take one each")
    kinds = {kind.name: kind for kind, _place in wanted}
    if any(kind.mig_backed for kind in kinds.values()):
        return _mig(gpu, wanted, list(kinds.values()))
    sizes = {kind.size_mib for kind in kinds.values()}
    if None in sizes:
        return Verdict(None, "the size of a type is neither in its name nor in its description")
    if len(sizes) == 1:
        return _equal(gpu, wanted, list(kinds.values()))
    return _mixed(gpu, wanted)


def _mig(gpu: Gpu, wanted: t.Sequence[Placed], kinds: t.Sequence[VgpuType]) -> Verdict:
    if not all(kind.mig_backed for kind in kinds):
        return Verdict(False, "MIG-backed and time-sliced types never share a GPU")
    if not gpu.gpu_instances:
        return Verdict(False, "its types are MIG-backed, and it has no MIG GPU instance")
    if not all(kind.plain.startswith(_SHARES_INSTANCES) for kind in kinds) and len(wanted) > gpu.gpu_instances:
        return Verdict(
            False, f"{len(wanted)} MIG-backed vGPUs are wanted, and it has {gpu.gpu_instances} MIG GPU instances, which take one each"
        )
    if any(kind.most is not None and sum(1 for other, _p in wanted if other.name == kind.name) > kind.most for kind in kinds):
        return Verdict(False, "the driver says that fewer of that type fit")
    return Verdict(None, "which MIG GPU instance a type needs is known to the driver only")


def _equal(gpu: Gpu, wanted: t.Sequence[Placed], kinds: t.Sequence[VgpuType]) -> Verdict:
    said = [kind.most for kind in kinds if kind.most is not None]
    region = framebuffer_mib(gpu)
    if said:
        most, source = min(said), "the driver says"
    elif region is not None:
        most, source = most_equal(region, kinds[0].size_mib or 0), f"by its {region // 1024} GB"
    else:
        return Verdict(None, "the driver says neither how many fit nor the GPU's whole size while vGPUs are on it")
    names = ", ".join(sorted(kind.name for kind in kinds))
    return Verdict(len(wanted) <= most, f"{len(wanted)} of {names} are wanted, and {source} {most} fit")


def most_equal(region_mib: int, size_mib: int) -> int:
    """How many vGPUs of one size fit on a GPU of this framebuffer, when all have that size."""
    fewer = _FEWER.get((region_mib // 1024, size_mib // 1024))
    return fewer if fewer is not None else min(_MOST_WITHOUT_MIG, region_mib // size_mib)


def framebuffer_mib(gpu: Gpu) -> t.Optional[int]:
    """The framebuffer of the GPU: that of the type that takes all of it, if the driver has been seen to list it (it does while the GPU is empty)."""
    sliced = [kind for kind in gpu.types if not kind.mig_backed and kind.size_mib]
    whole = max((kind.size_mib or 0 for kind in sliced), default=0)
    products = [(kind.size_mib or 0) * kind.most for kind in sliced if kind.most]
    return max([whole, *products]) or None


def _mixed(gpu: Gpu, wanted: t.Sequence[Placed]) -> Verdict:
    region = framebuffer_mib(gpu)
    total = sum(kind.size_mib or 0 for kind, _place in wanted)
    if region is None:
        return Verdict(None, "the driver does not say the GPU's whole size")
    if total > region:
        return Verdict(False, f"{total // 1024} GB are wanted together, and it has {region // 1024} GB")
    if any(place is None for _kind, place in wanted):
        return Verdict(
            None, "of different sizes not every sum fits: the driver places each size at certain places only, and does not list them all"
        )
    end = 0
    for begin, size in sorted((place or 0, -(-(kind.size_mib or 0) // 1024)) for kind, place in wanted):
        if begin < end or (begin + size) * 1024 > region:
            return Verdict(False, f"the placement_ids overlap, or leave the GPU, at {begin}")
        end = begin + size
    return Verdict(True, "the placement_ids do not overlap")
