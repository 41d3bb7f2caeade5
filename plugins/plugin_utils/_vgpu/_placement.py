# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Where on a GPU's framebuffer vGPUs of different sizes can sit (mixed-size mode), as the driver's own rule has it.

Unit: 1 GB. A vGPU of placement size ``s`` with placement id ``i`` occupies ``[i, i + s)`` of the region ``[0, region)``.

Source of the rules: NVIDIA/open-gpu-kernel-modules df1c9a3d (595.45.04), src/nvidia/src/kernel/virtualization/kernel_vgpu_mgr.c, by line:
3005-3041 ids that are never used, 3069-3302 Ampere to Hopper, 3307-3369 and 3703-3718 ids of equal-size mode, 3461-3555 Blackwell, 3647-3660 the
placement size of 2 GB on 96 GB. Limits: ctrla081.h:46-49. None of it was measured on hardware.
"""

from __future__ import annotations

import dataclasses
import functools
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._gpu import Gpu

HALVING = "recursive-halving"
EVEN = "blackwell-even"

#: Most vGPUs on one GPU, and on one GPU without MIG.
MOST_PER_GPU = 48
MOST_TIME_SLICED = 32
#: The halving goes on while a segment is at most this part of the region: half of the most vGPUs of a GPU.
MOST_PARTS = MOST_PER_GPU // 2
#: Ids that types of 1 GB never get on boards of 48 GB, by architecture.
DENIED_BOARD_GB = 48
_SINCE_ADA = frozenset({2, 3, 8, 9, 14, 15, 20, 21, 26, 27, 32, 33, 38, 39, 44, 45})
DENIED = {"ampere": frozenset({8, 32}), "ada": _SINCE_ADA, "hopper": _SINCE_ADA}

Ids = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Region:
    """A GPU's framebuffer in mixed-size mode.

    ``most`` is the equal-size maximum by placement size in GB, ``deny`` the ids that a size never gets.
    """

    size_gb: int
    rule: str
    most: t.Mapping[int, int]
    deny: t.Mapping[int, t.Collection[int]] = dataclasses.field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.size_gb, self.rule, tuple(sorted(self.most.items()))))

    @property
    def sizes(self) -> Ids:
        """Placement sizes in GB, the largest first."""
        return tuple(sorted(self.most, reverse=True))


def placement_size(gpu: Gpu, size_gb: int) -> int:
    """The GB that a type of this size occupies: its own, but 2 GB count as 3 on a Blackwell of 96 GB."""
    return 3 if gpu.mixed_rule == EVEN and gpu.framebuffer_gb == 96 and size_gb == 2 else size_gb


@functools.lru_cache(maxsize=256)
def _region(rule: str, size_gb: int, architecture: str, most: tuple[tuple[int, int], ...]) -> Region:
    deny = {1: DENIED[architecture]} if rule == HALVING and size_gb == DENIED_BOARD_GB and architecture in DENIED else {}
    return Region(size_gb, rule, dict(most), deny)


def region_of(gpu: Gpu) -> Region | None:
    """A GPU's region, or None if it has no mixed-size mode (before Ampere, or only types of the whole GPU)."""
    if gpu.mixed_rule is None:
        return None
    most: dict[int, int] = {}
    for kind in gpu.types:
        if not kind.slices:
            size = placement_size(gpu, kind.size_gb)
            most[size] = max(most.get(size, 0), kind.most)
    return _region(gpu.mixed_rule, gpu.framebuffer_gb, gpu.architecture, tuple(sorted(most.items())))


def _halves(region: Region, size: int, most: int) -> t.Iterator[int]:
    """Ids of one size by recursive halving. A segment is one of ``parts`` parts; in a left half a single vGPU sits left, else right."""
    power = 1 << (most.bit_length() - 1)

    def segment(low: int, high: int, parts: int, left: bool) -> t.Iterator[int]:
        if parts > MOST_PARTS:
            return
        if most == 2 * parts:
            yield low
            yield high - size
        elif (power < most and power == parts) or (parts == 1 and most == 1):
            yield low if left else high - size
        middle = (low + high) // 2
        yield from segment(low, middle, 2 * parts, True)
        yield from segment(middle, high, 2 * parts, False)

    return segment(0, region.size_gb, 1, True)


@functools.lru_cache(maxsize=1024)
def ids(region: Region, size: int) -> Ids:
    """The placement ids of a placement size in mixed-size mode, in the driver's order. Their number is the mixed-size maximum.

    Empty if the region has no such size.
    """
    most = region.most.get(size, 0)
    if most < 1:
        return ()
    if region.rule == EVEN:
        return tuple(region.size_gb * number // most for number in range(most))
    return tuple(place for place in _halves(region, size, most) if place not in region.deny.get(size, ()))


def mixed_ids(gpu: Gpu) -> dict[int, Ids]:
    """Placement ids by placement size in mixed-size mode; a GPU that has only whole types has id 0, one without SR-IOV vGPUs has none."""
    region = region_of(gpu)
    if region is not None:
        return {size: ids(region, size) for size in region.sizes}
    whole = gpu.framebuffer_gb
    return {whole: (0,)} if gpu.sriov and any(not kind.slices and kind.size_gb == whole for kind in gpu.types) else {}


def equal_ids(gpu: Gpu, size_gb: int) -> Ids | None:
    """The placement ids of a size when all vGPUs have it; None if the driver shows none in that mode (Ampere and older).

    Blackwell's ids are those of mixed-size mode.
    """
    if gpu.mixed_rule == EVEN:
        return mixed_ids(gpu).get(placement_size(gpu, size_gb))
    most = max((kind.most for kind in gpu.types if not kind.slices and kind.size_gb == size_gb), default=0)
    return tuple(number * size_gb for number in range(most)) if gpu.equal_size_ids else None
