# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Does a mix of sizes fit on one GPU in mixed-size mode: exactly, with the placements, or with the reason and the nearest mixes that fit."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _mixes, _placement
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._mixes import Counts, Packing
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._orders import ANY, first_fit, next_place, safe_order
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._placement import Region

#: How many nearest mixes are named.
NEAREST = 3


@dataclasses.dataclass(frozen=True)
class Fit:
    """Whether a mix fits.

    ``placements`` are pairs of size and id, in the order in which to create them. ``order`` says how the driver, left to itself, comes to
    place all of them: in any order of creation (``any``), with the largest or the smallest first, or only when each placement id is written
    (``placement-ids``). ``why`` and ``nearest`` are of a mix that does not fit.
    """

    fits: bool
    placements: tuple[tuple[int, int], ...] = ()
    order: str = ""
    why: str = ""
    nearest: tuple[dict[int, int], ...] = ()


def _counts(counts: Counts) -> dict[int, int]:
    """The mix with the largest size first; a count below one is an error."""
    for size, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"{count!r} vGPUs of {size} GB were asked for: a count is a whole number from 1 on")
    return dict(sorted(counts.items(), reverse=True))


def _shown(counts: Counts) -> str:
    return " + ".join(f"{count} x {size} GB" for size, count in counts.items()) or "nothing"


def _refusal(region: Region, wanted: dict[int, int]) -> str:
    """What counting alone says against a mix."""
    for size, count in wanted.items():
        places = len(_placement.ids(region, size))
        if not places:
            return f"this GPU has no size of {size} GB: its sizes are {', '.join(map(str, region.sizes))} GB"
        if count > places:
            equal = region.most[size]
            more = f" ({equal} if all vGPUs of the GPU have this size, in equal-size mode)" if equal > places else ""
            return f"{count} x {size} GB were asked for, and in mixed-size mode the driver has {places} places of that size{more}"
    total = sum(size * count for size, count in wanted.items())
    if total > region.size_gb:
        return f"{_shown(wanted)} are {total} GB, and the GPU has {region.size_gb} GB"
    if sum(wanted.values()) > _placement.MOST_TIME_SLICED:
        return (
            f"{sum(wanted.values())} vGPUs were asked for, and the driver makes at most {_placement.MOST_TIME_SLICED} on a GPU without MIG"
        )
    return ""


def _reach(region: Region, wanted: dict[int, int], packing: Packing, missing: int) -> dict[int, set[int]]:
    """The parts of a mix that each prefix of the region can hold, if all but ``missing`` GB of the rest have room behind the prefix."""
    total = sum(size * count for size, count in wanted.items())
    limit = {size: (packing.unit(size), packing.field(size)[1], wanted[size] << packing.field(size)[0]) for size in packing.sizes}
    above = _mixes.FIELD * len(packing.sizes)
    reached: dict[int, set[int]] = {}
    last: set[int] = {0}
    for end, placements in _mixes.steps(region, packing.sizes).items():
        now = set(last)
        for begin, size in placements:
            unit, mask, most = limit[size]
            now.update([more for mix in reached[begin] if (more := mix + unit) & mask <= most])
        least = total - missing - (region.size_gb - end)
        if least > 0:
            now = {mix for mix in now if mix >= least << above}
        reached[end] = last = now
    return reached


def _witness(region: Region, packing: Packing, reached: dict[int, set[int]], mix: int) -> tuple[tuple[int, int], ...]:
    """Placements of a mix that the whole region holds: the way back through the prefixes."""
    ends = _mixes.steps(region, packing.sizes)
    found: list[tuple[int, int]] = []
    place = region.size_gb
    while mix:
        shorter = max((end for end in reached if end < place), default=0)
        for begin, size in ends.get(place, ()):
            if mix not in reached[shorter] and mix - packing.unit(size) in reached[begin]:
                found.append((size, begin))
                mix, shorter = mix - packing.unit(size), begin
                break
        place = shorter
    return tuple(sorted(found, key=lambda placed: (-placed[0], placed[1])))


def _greedy(region: Region, wanted: dict[int, int]) -> int:
    """GB of a mix that the driver places, the largest first, if those it refuses are left out."""
    taken = 0
    for size, count in wanted.items():
        for _one in range(count):
            if entry := next_place(region, size, taken):
                taken |= entry[1]
    return taken.bit_count()


def _nearest(region: Region, wanted: dict[int, int]) -> tuple[dict[int, int], ...]:
    """The parts of a mix that fit and lack the fewest vGPUs, then the fewest GB."""
    possible = {size: min(count, len(_placement.ids(region, size))) for size, count in wanted.items() if _placement.ids(region, size)}
    if not possible:
        return ()
    packing = Packing(tuple(possible))
    total = sum(size * count for size, count in possible.items())
    # What the driver would place of it bounds what may be missing; a part of a vGPU more, so that there is a choice.
    found = _reach(region, possible, packing, total - _greedy(region, possible) + max(possible) // 2)[region.size_gb]
    units = [packing.unit(size) for size in packing.sizes]
    largest = [packing.unpack(mix) for mix in found if mix and not any(mix + unit in found for unit in units)]
    largest.sort(key=lambda mix: (-sum(mix.values()), -sum(size * count for size, count in mix.items()), tuple(mix.items())))
    return tuple(largest[:NEAREST])


def fits(region: Region, counts: t.Mapping[int, int]) -> Fit:
    """Does a GPU in mixed-size mode hold these vGPUs, counts by placement size in GB?

    :raises ValueError: a count is not a whole number from 1 on.
    """
    wanted = _counts(counts)
    if not wanted:
        return Fit(True, order=ANY)
    why = _refusal(region, wanted)
    if why:
        return Fit(False, why=why, nearest=_nearest(region, wanted))
    placed = first_fit(region, [size for size, count in wanted.items() for _one in range(count)])
    if placed is None:
        packing = Packing(tuple(wanted))
        reached = _reach(region, wanted, packing, 0)
        if not reached[region.size_gb]:
            total = sum(size * count for size, count in wanted.items())
            why = f"{_shown(wanted)} are {total} of {region.size_gb} GB, but the places that the driver has for these sizes overlap"
            return Fit(False, why=why, nearest=_nearest(region, wanted))
        return Fit(True, _witness(region, packing, reached, packing.pack(wanted)), safe_order(region, wanted))
    return Fit(True, placed, safe_order(region, wanted))
