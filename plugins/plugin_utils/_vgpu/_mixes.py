# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""All mixes of sizes that one GPU can hold in mixed-size mode: those that leave a prefix of the region, by dynamic programming over it.

A mix is packed into one integer: for each size of ``Packing.sizes`` (the largest first) a field of ``FIELD`` bits, and above them the GB used.
So a step is an addition, and the mixes of a prefix are a set of integers.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _placement
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._placement import Region

#: Bits of a count: no size has more than 32 placements (``_placement.MOST_TIME_SLICED``).
FIELD = 7

Counts = t.Mapping[int, int]


@dataclasses.dataclass(frozen=True)
class Packing:
    """How mixes of these sizes are packed into integers."""

    sizes: tuple[int, ...]

    def unit(self, size: int) -> int:
        """What one more vGPU of a size adds."""
        return (1 << (FIELD * self.sizes.index(size))) + (size << (FIELD * len(self.sizes)))

    def field(self, size: int) -> tuple[int, int]:
        """Where the count of a size is: its first bit, and the mask of its bits."""
        first = FIELD * self.sizes.index(size)
        return first, ((1 << FIELD) - 1) << first

    def pack(self, counts: Counts) -> int:
        return sum(self.unit(size) * count for size, count in counts.items())

    def unpack(self, mix: int) -> dict[int, int]:
        """Counts by size, the largest first; sizes without a vGPU are left out."""
        found = {}
        for size in self.sizes:
            if count := mix & ((1 << FIELD) - 1):
                found[size] = count
            mix >>= FIELD
        return found


Steps = dict[int, list[tuple[int, int]]]


@functools.lru_cache(maxsize=1024)
def steps(region: Region, sizes: tuple[int, ...]) -> Steps:
    """By the GB where a placement ends, the GB where it begins and its size; the ends in ascending order."""
    found: Steps = collections.defaultdict(list)
    for size in sizes:
        for place in _placement.ids(region, size):
            found[place + size].append((place, size))
    for place in {begin for entries in found.values() for begin, _size in entries} | {region.size_gb}:
        found.setdefault(place, [])
    return dict(sorted(found.items()))


@functools.lru_cache(maxsize=32)
def feasible(region: Region, sizes: tuple[int, ...] | None = None) -> tuple[Packing, frozenset[int]]:
    """All mixes of these sizes (default: all that the region has) that can be placed, the empty one included, and how they are packed."""
    packing = Packing(region.sizes if sizes is None else tuple(sorted(sizes, reverse=True)))
    reached: dict[int, set[int]] = {}
    last: set[int] = {0}
    for end, placements in steps(region, packing.sizes).items():
        now = set(last)
        for begin, size in placements:
            unit = packing.unit(size)
            now.update([mix + unit for mix in reached[begin]])
        reached[end] = last = now
    return packing, frozenset(last)


@functools.lru_cache(maxsize=32)
def _maximal(region: Region, sizes: tuple[int, ...] | None) -> tuple[tuple[tuple[int, int], ...], ...]:
    packing, found = feasible(region, sizes)
    units = [packing.unit(size) for size in packing.sizes]
    kept = [packing.unpack(mix) for mix in found if not any(mix + unit in found for unit in units)]
    order = sorted(kept, key=lambda mix: tuple(-mix.get(size, 0) for size in packing.sizes))
    return tuple(tuple(mix.items()) for mix in order)


def mixes(region: Region, sizes: t.Iterable[int] | None = None) -> list[dict[int, int]]:
    """The maximal mixes: those to which no vGPU of any size can be added. Counts by placement size in GB, the largest first.

    With ``sizes``, only of these. A mix fits exactly if it is part of a maximal one. None of them has more vGPUs than the driver's limit of
    ``_placement.MOST_TIME_SLICED``: of every catalogued GPU, a test says so.
    """
    chosen = None if sizes is None else tuple(sorted({size for size in sizes if size in region.most}, reverse=True))
    return [dict(mix) for mix in _maximal(region, chosen)]
