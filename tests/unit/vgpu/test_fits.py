# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Does a mix fit on one GPU in mixed-size mode; in which order to create it; and what is said of one that does not fit."""

from __future__ import annotations

import functools
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _fits, _mixes, _orders, _placement
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._fits import fits
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._orders import ANY, IDS, LARGEST_FIRST, SMALLEST_FIRST
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._placement import EVEN, Region
from tests.vgpu import placing
from tests.vgpu.counting import region
from tests.vgpu.gpus import gpus, published_ids, table

FAMILIES = ["A10", "A16", "A40", "L40S", "A100", "A100D", "H100", "H100L", "H200", "DC-96"]


def proves(family: str, counts: dict[int, int], placements: tuple[tuple[int, int], ...]) -> bool:
    """Are these placements the mix, at ids of the GPU, without overlap?"""
    taken: set[int] = set()
    for size, place in placements:
        cells = set(range(place, place + size))
        if place not in published_ids()[family][size] or taken & cells:
            return False
        taken |= cells
    return sorted(size for size, _place in placements) == sorted(size for size, count in counts.items() for _one in range(count))


@st.composite
def asked(draw: st.DrawFn) -> tuple[str, dict[int, int]]:
    """A GPU and a mix near what it holds: some of a maximal mix, with or without one vGPU more."""
    family = draw(st.sampled_from(FAMILIES))
    mix = dict(draw(st.sampled_from(_mixes.mixes(region(family, () if family == "A10" else (1, 2, 3, 4))))))
    for size in list(mix):
        mix[size] = draw(st.integers(0, mix[size]) if draw(st.booleans()) else st.just(mix[size]))
    extra = draw(st.sampled_from([0, *region(family).sizes]))
    mix[extra] = mix.get(extra, 0) + 1
    return family, {size: count for size, count in mix.items() if size and count}


@settings(max_examples=60, deadline=None)
@given(asked())
def test_an_answer_is_what_trying_finds_and_proven_by_placements(case):
    family, mix = case
    found = fits(region(family), mix)
    assert found.fits == placing.holds(published_ids()[family], mix)
    if found.fits:
        assert proves(family, mix, found.placements) and found.order and not found.why
    else:
        assert found.why and found.nearest
        for near in found.nearest:
            assert placing.holds(published_ids()[family], near)
            assert all(mix[size] >= count for size, count in near.items()) and near != mix


@settings(max_examples=60, deadline=None)
@given(asked())
def test_the_order_that_is_named_places_all_of_the_mix(case):
    family, mix = case
    found = fits(region(family), mix)
    ids, ascending = published_ids()[family], [size for size, count in sorted(mix.items()) for _one in range(count)]
    if found.fits:
        down, up = placing.created(ids, ascending[::-1]) is not None, placing.created(ids, ascending) is not None
        assert (found.order in (ANY, LARGEST_FIRST)) == down
        assert found.order != ANY or up
        assert (found.order == SMALLEST_FIRST) == (up and not down)
        if down:
            assert list(found.placements) == placing.created(ids, ascending[::-1])


def small_mixes(family: str, most: int) -> list[dict[int, int]]:
    sizes = region(family).sizes
    drawn = (
        {size: chosen.count(size) for size in set(chosen)}
        for number in range(1, most)
        for chosen in itertools.combinations_with_replacement(sizes, number)
    )
    return [mix for mix in drawn if sum(size * count for size, count in mix.items()) <= region(family).size_gb]


@pytest.mark.parametrize("family", ["A10", "A16", "A100", "H100L"])
def test_any_order_is_claimed_only_where_all_orders_were_tried(family):
    for mix in small_mixes(family, 5):
        if placing.holds(published_ids()[family], mix):
            assert _orders.every_order(region(family), mix) == (placing.orders_that_fail(published_ids()[family], mix) == 0), mix


def test_one_order_that_works_is_not_every_order():
    assert placing.created(published_ids()["H200"], [8] * 13 + [28]) and not placing.created(published_ids()["H200"], [28] + [8] * 13)
    assert _orders.every_order(region("H200"), {28: 1, 8: 13}) is False


def test_a_reason_names_the_equal_size_maximum_only_where_it_is_larger():
    wanted = "3 x 8 GB were asked for, and in mixed-size mode the driver has 2 places of that size"
    assert fits(region("A16"), {8: 3}).why == wanted
    assert fits(region("A10"), {8: 3}).why == f"{wanted} (3 if all vGPUs of the GPU have this size, in equal-size mode)"


def test_a_search_for_an_order_that_is_too_long_claims_nothing():
    mix = {12: 3, 6: 2, 4: 2}
    assert _orders.every_order(region("H20"), mix) is not None
    assert _orders.every_order(region("H20"), mix, tried=3) is None or _orders.every_order(region("H20"), mix) is False
    assert _orders.every_order(region("A100"), {8: 1, 5: 3, 4: 3}, tried=3) is None


@pytest.mark.parametrize("family", ["A16", "RTX5000-Ada", "H100XS"])
def test_sizes_that_double_are_placed_in_any_order(family):
    chain = [size for size in region(family).sizes if size != 3]
    for mix in _mixes.mixes(region(family), chain):
        assert fits(region(family), mix).order == ANY
    some = next(mix for mix in _mixes.mixes(region("A16"), [8, 4, 2, 1]) if len(mix) == 4 and sum(mix.values()) <= 7)
    assert placing.orders_that_fail(published_ids()["A16"], some) == 0


WORKED = [
    (family, {int(kind[:-1]): count for kind, count in entry["mix"].items()}, entry["valid"])
    for entry in table()["worked"]["mixed_size"]
    for family in entry["gpu"].split("/")
]


@pytest.mark.parametrize(("family", "mix", "valid"), WORKED)
def test_the_worked_mixes_of_the_data(family, mix, valid):
    assert fits(region(family), mix).fits is valid


@pytest.mark.parametrize(
    ("family", "mix", "why"),
    [
        ("A10", {8: 2, 6: 1}, "2 x 8 GB + 1 x 6 GB are 22 of 24 GB, but the places that the driver has for these sizes overlap"),
        ("A30", {8: 2, 6: 1}, "overlap"),
        ("A100", {20: 1, 8: 2, 4: 1}, "overlap"),
        ("L40S", {16: 2, 12: 1}, "overlap"),
        ("H100", {40: 1, 16: 2, 5: 1}, "overlap"),
        ("H100L", {47: 1, 15: 2, 11: 1}, "overlap"),
        ("A10", {24: 1, 1: 1}, "1 x 24 GB + 1 x 1 GB are 25 GB, and the GPU has 24 GB"),
        ("A10", {12: 1, 6: 2, 1: 1}, "1 x 12 GB + 2 x 6 GB + 1 x 1 GB are 25 GB, and the GPU has 24 GB"),
        ("A10", {4: 5}, "in mixed-size mode the driver has 4 places of that size (6 if all vGPUs of the GPU have this size"),
        ("A16", {8: 3}, "3 x 8 GB were asked for, and in mixed-size mode the driver has 2 places of that size"),
        ("A10", {7: 1}, "this GPU has no size of 7 GB: its sizes are 24, 12, 8, 6, 4, 3, 2, 1 GB"),
    ],
)
def test_a_mix_that_does_not_fit_says_why(family, mix, why):
    assert why in fits(region(family), mix).why


@pytest.mark.parametrize(
    ("family", "mix", "nearest"),
    [
        ("A10", {6: 2, 4: 3}, ({6: 2, 4: 2}, {6: 1, 4: 3})),
        ("A10", {6: 1, 8: 2}, ({8: 2}, {8: 1, 6: 1})),
        ("A10", {24: 2}, ({24: 1},)),
        ("A10", {7: 1}, ()),
    ],
)
def test_the_nearest_mixes_lack_the_fewest_vgpus_then_the_fewest_gb(family, mix, nearest):
    found = fits(region(family), mix).nearest
    assert found[: len(nearest)] == nearest and bool(found) == bool(nearest)


@pytest.mark.parametrize(
    ("family", "mix", "order"),
    [
        # 48 @ 0, 32 @ 64, 8 @ 56, 6 @ 48 is possible; the driver itself would put the 8 GB at 48.
        ("DC-96", {48: 1, 32: 1, 8: 1, 6: 1}, IDS),
        ("H200", {28: 1, 8: 13}, SMALLEST_FIRST),
        ("A10", {12: 1, 8: 1, 4: 1}, LARGEST_FIRST),
        ("A10", {8: 1, 6: 2}, ANY),
        ("A10", {24: 1}, ANY),
    ],
)
def test_the_safest_order_of_creation_is_named(family, mix, order):
    found = fits(region(family), mix)
    assert found.order == order and proves(family, mix, found.placements)


def test_more_vgpus_than_the_driver_makes_are_refused():
    crowd = Region(96, EVEN, {2: 48, 1: 48})
    assert "48 vGPUs were asked for, and the driver makes at most 32 on a GPU without MIG" in fits(crowd, {2: 40, 1: 8}).why


@pytest.mark.parametrize("count", [0, -1, True, 1.0, "2"])
def test_a_count_below_one_or_no_number_is_an_error(count):
    with pytest.raises(ValueError, match="a count is a whole number from 1 on"):
        fits(region("A10"), {4: count})


def test_nothing_fits_everywhere():
    assert fits(region("A10"), {}) == _fits.Fit(True, order=ANY)


@functools.lru_cache
def patterns(family: str, sizes: tuple[int, ...], mixed: bool) -> list[tuple[int, ...]]:
    """What one GPU can hold of these sizes, as counts: all of one size, and in mixed-size mode the maximal mixes."""
    gpu = gpus()[family]
    equal = [
        tuple(
            max((kind.most for kind in gpu.types if not kind.slices and kind.size_gb == one and kind.series == "Q"), default=0)
            * (one == size)
            for one in sizes
        )
        for size in sizes
    ]
    region_of = _placement.region_of(gpu)
    more = _mixes.mixes(region_of, sizes) if mixed and region_of else []
    return equal + [tuple(mix.get(size, 0) for size in sizes) for mix in more]


def fewest_gpus(family: str, demand: dict[int, int], mixed: bool) -> int | None:
    """The least number of GPUs that serve a demand: all remainders are tried."""
    sizes = tuple(sorted(demand, reverse=True))
    chosen = patterns(family, sizes, mixed)
    if not all(any(pattern[number] for pattern in chosen) for number in range(len(sizes))):
        return None

    frontier, gpus_used = {tuple(demand[size] for size in sizes)}, 0
    while not any(not any(left) for left in frontier):
        reached = {tuple(max(0, a - b) for a, b in zip(left, pattern, strict=True)) for left in frontier for pattern in chosen}
        # A remainder that is part of another one leaves less to do.
        frontier = {
            left for left in reached if not any(less != left and all(a <= b for a, b in zip(less, left, strict=True)) for less in reached)
        }
        gpus_used += 1
    return gpus_used


FLEETS = table()["worked"]["fleet_min_gpus"]


@pytest.mark.parametrize(
    "entry", FLEETS, ids=lambda entry: f"{entry['gpu']}-{'-'.join(f'{n}x{kind}' for kind, n in entry['demand_q'].items())}"
)
def test_the_fewest_gpus_for_a_demand_by_trying_all_that_one_gpu_can_hold(entry):
    demand = {int(kind[:-1]): count for kind, count in entry["demand_q"].items()}
    assert fewest_gpus(entry["gpu"], demand, mixed=False) == entry["equal_size"]
    assert fewest_gpus(entry["gpu"], demand, mixed=True) == entry["mixed_size_allowed"]
    for packing in entry["witness"] or []:
        held = tuple(packing.get(f"{size}Q", 0) for size in sorted(demand, reverse=True))
        known = patterns(entry["gpu"], tuple(sorted(demand, reverse=True)), mixed=True)
        assert any(all(a <= b for a, b in zip(held, pattern, strict=True)) for pattern in known), packing
