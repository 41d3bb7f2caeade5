# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""In which order to create the vGPUs of a mix so that the driver, which picks the places itself, can place all of them.

Without a placement id, the driver takes the first id of the size, in its own order, that no vGPU overlaps
(NVIDIA/open-gpu-kernel-modules, kernel_vgpu_mgr.c:4303-4385 and 4645-4730).
"""

from __future__ import annotations

import functools
import itertools
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _placement
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._placement import Region

#: Every order of creation places all of the mix; the largest or the smallest first does; only written placement ids do.
ANY, LARGEST_FIRST, SMALLEST_FIRST, IDS = "any", "largest-first", "smallest-first", "placement-ids"
#: States after which the search for an order that fails gives up: then ``any`` is not claimed.
TRIED = 400

Masks = tuple[tuple[int, int], ...]


@functools.lru_cache(maxsize=1024)
def masks(region: Region, size: int) -> Masks:
    """The ids of a size in the driver's order, each with the GB it covers as a mask of bits."""
    return tuple((place, ((1 << size) - 1) << place) for place in _placement.ids(region, size))


def next_place(region: Region, size: int, taken: int) -> tuple[int, int] | None:
    """The id that the driver takes for a size when these GB are taken, and the GB it covers; None if it has none left."""
    return next((entry for entry in masks(region, size) if not entry[1] & taken), None)


def first_fit(region: Region, sizes: t.Iterable[int]) -> tuple[tuple[int, int], ...] | None:
    """Size and id of each vGPU when they are created in this order; None if the driver refuses one of them."""
    taken = 0
    placed = []
    for size in sizes:
        entry = next_place(region, size, taken)
        if entry is None:
            return None
        placed.append((size, entry[0]))
        taken |= entry[1]
    return tuple(placed)


def _divisible(region: Region, sizes: t.Sequence[int]) -> bool:
    """Are these sizes a chain of powers of two of each other, at all multiples of themselves?

    Then the free spaces that first-fit leaves are ever larger towards the end, each size once, so a mix that has room always finds a place.
    """
    chain = [*sorted(sizes), region.size_gb]
    doubling = all(large % small == 0 and (large // small).bit_count() == 1 for small, large in itertools.pairwise(chain))
    return doubling and all(_placement.ids(region, size) == tuple(range(0, region.size_gb, size)) for size in sizes)


def every_order(region: Region, counts: t.Mapping[int, int], tried: int = TRIED) -> bool | None:
    """Does the driver place all of the mix in whatever order they are created? None if that was not found out with ``tried`` states."""
    sizes = sorted(counts)
    if len(sizes) == 1 or _divisible(region, sizes):
        return first_fit(region, [size for size in sizes for _one in range(counts[size])]) is not None
    start = (0, tuple(counts[size] for size in sizes))
    seen, todo = {start}, [start]
    while todo:
        taken, left = todo.pop()
        for number, size in enumerate(sizes):
            if not left[number]:
                continue
            entry = next_place(region, size, taken)
            if entry is None:
                return False
            state = (taken | entry[1], (*left[:number], left[number] - 1, *left[number + 1 :]))
            if state not in seen:
                if len(seen) >= tried:
                    return None
                seen.add(state)
                todo.append(state)
    return True


def safe_order(region: Region, counts: t.Mapping[int, int]) -> str:
    """How to create a mix that fits so that all of it is placed: one of ``any``, ``largest-first``, ``smallest-first``, ``placement-ids``.

    ``any`` only if it is proven; the largest first is then named too where it works.
    """
    ascending = [size for size in sorted(counts) for _one in range(counts[size])]
    largest, smallest = first_fit(region, reversed(ascending)) is not None, first_fit(region, ascending) is not None
    if largest and smallest and every_order(region, counts):
        return ANY
    return LARGEST_FIRST if largest else SMALLEST_FIRST if smallest else IDS
