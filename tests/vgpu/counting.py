# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Counting all mixes of a GPU, against figures that were computed by another program from the same rule of the driver."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _mixes, _orders, _placement
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._placement import Region
from tests.vgpu import placing
from tests.vgpu.gpus import gpus, published_ids


@dataclasses.dataclass(frozen=True)
class Row:
    """A GPU family without some of its sizes; None: there is no figure.

    How many mixes fit, how many do not although their GB do, and how many fit but are not placed by the driver with the largest, or the
    smallest, created first.
    """

    family: str
    without: tuple[int, ...]
    fitting: int
    overlapping: int | None
    largest_first_fails: int | None
    smallest_first_fails: int | None

    def __str__(self) -> str:
        return f"{self.family}-without-{'-'.join(map(str, self.without)) or 'none'}"


TABLE = [
    Row("A16", (3,), 202, 0, 0, 0),
    Row("A10", (), 1888, 741, 0, 717),
    Row("A30", (), 37, 5, 0, 5),
    Row("RTX5000-Ada", (3,), 1828, None, 0, None),
    Row("A100", (), 207, 41, 0, 0),
    Row("L40S", (1, 2), 1420, 373, 0, 318),
    Row("L40S", (1,), 6931, 2600, 0, 2525),
    Row("L40S", (), 26654, None, 0, None),
    Row("A40", (), 57937, None, 2848, None),
    Row("H100", (), 3967, 1251, 0, 411),
    Row("H100L", (), 1499, 1082, 0, 526),
    Row("H20", (), 6931, 2600, 0, 2525),
    Row("H200", (4,), 4095, 1762, 115, 526),
    Row("DC-96", (3, 4), 1822, 0, 71, 263),
    Row("DC-96", (3,), 9676, None, 211, None),
]


def region(family: str, without: t.Collection[int] = ()) -> Region:
    """A family's region in mixed-size mode, as if it had not these sizes."""
    whole = _placement.region_of(gpus()[family])
    assert whole is not None, f"{family} has no mixed-size mode"
    return dataclasses.replace(whole, most={size: most for size, most in whole.most.items() if size not in without})


def _driven(region: Region, sizes: t.Sequence[int]) -> set[tuple[int, ...]]:
    """The counts of all mixes that the driver places when these sizes are created in this order; a walk over the tree of counts."""
    found = set()

    def walk(number: int, counts: tuple[int, ...], taken: int) -> None:
        if number == len(sizes):
            found.add(counts)
            return
        count = 0
        while True:
            walk(number + 1, (*counts, count), taken)
            entry = _orders.next_place(region, sizes[number], taken)
            if entry is None:
                return
            taken, count = taken | entry[1], count + 1

    walk(0, (), 0)
    return found


def counted(row: Row) -> Row:
    """The same GPU with the figures that the collection's placement gives."""
    part = region(row.family, row.without)
    ids = {size: published_ids()[row.family][size] for size in part.sizes}
    packing, packed = _mixes.feasible(part)
    mixes = {tuple(packing.unpack(mix).get(size, 0) for size in part.sizes) for mix in packed}
    largest = _driven(part, part.sizes)
    smallest = {counts[::-1] for counts in _driven(part, part.sizes[::-1])} if row.smallest_first_fails is not None else set()
    if not largest <= mixes or not smallest <= mixes:
        raise AssertionError(f"{row}: the driver would place a mix that is said not to fit")
    within = sum(1 for _mix in placing.within(ids, part.size_gb, part.sizes)) if row.overlapping is not None else 0
    return Row(row.family, row.without, len(mixes), within - len(mixes), len(mixes - largest), len(mixes - smallest))


def wrong(row: Row) -> list[str]:
    """The figures of a row that come out otherwise."""
    found = counted(row)
    pairs = [(field.name, getattr(row, field.name), getattr(found, field.name)) for field in dataclasses.fields(Row)]
    return [f"{row}: {name} is {now}, not {then}" for name, then, now in pairs if then is not None and then != now]
