# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Placement a second time, by trying: shares no code with the collection, and takes the placement ids from the data."""

from __future__ import annotations

import functools
import itertools
import typing as t

Ids = t.Mapping[int, t.Sequence[int]]
Mix = tuple[tuple[int, int], ...]  #: size and count, the largest size first


def holds(ids: Ids, mix: t.Mapping[int, int]) -> bool:
    """Can this mix be placed? The sizes one after the other, every choice of places for each."""

    @functools.cache
    def rest(number: int, taken: int) -> bool:
        if number == len(wanted):
            return True
        size, count = wanted[number]
        covers = [((1 << size) - 1) << place for place in ids.get(size, ())]
        free = [cover for cover in covers if not cover & taken]
        return any(rest(number + 1, taken | sum(chosen)) for chosen in itertools.combinations(free, count))

    wanted = sorted(((size, count) for size, count in mix.items() if count), reverse=True)
    return rest(0, 0)


def within(ids: Ids, region: int, sizes: t.Sequence[int]) -> t.Iterator[dict[int, int]]:
    """All mixes of these sizes whose GB and counts do not exceed what there is, the empty one first."""

    def rest(number: int, left: int) -> t.Iterator[dict[int, int]]:
        if number == len(sizes):
            yield {}
            return
        size = sizes[number]
        for count in range(min(len(ids[size]), left // size) + 1):
            for more in rest(number + 1, left - count * size):
                yield {size: count, **more} if count else more

    return rest(0, region)


def created(ids: Ids, order: t.Iterable[int]) -> list[tuple[int, int]] | None:
    """Size and place of each when the driver takes the first free id of each size in this order; None if it refuses one."""
    taken: set[int] = set()
    placed = []
    for size in order:
        for place in ids[size]:
            if taken.isdisjoint(range(place, place + size)):
                taken.update(range(place, place + size))
                placed.append((size, place))
                break
        else:
            return None
    return placed


def orders_that_fail(ids: Ids, mix: t.Mapping[int, int]) -> int:
    """How many of all orders of creation the driver does not get through."""
    every = set(itertools.permutations([size for size, count in mix.items() for _one in range(count)]))
    return sum(created(ids, order) is None for order in every)
