# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where vGPUs can sit: the ids of every GPU, and what comes of them when all mixes of a GPU are tried."""

from __future__ import annotations

import dataclasses
import functools

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _mixes, _placement
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._placement import EVEN, HALVING, Region
from tests.vgpu import counting, placing
from tests.vgpu.gpus import gpus, published_ids

GPUS = gpus()


@pytest.mark.parametrize("family", sorted(GPUS))
def test_the_ids_of_mixed_size_mode_are_those_of_the_data_in_the_drivers_order(family):
    found = _placement.mixed_ids(GPUS[family])
    assert {size: list(ids) for size, ids in found.items()} == published_ids()[family]


@pytest.mark.parametrize("family", sorted(GPUS))
def test_vgpus_of_one_size_never_overlap_and_stay_inside(family):
    for size, ids in _placement.mixed_ids(GPUS[family]).items():
        assert all(later - earlier >= size for earlier, later in zip(ids, ids[1:], strict=False))
        assert ids[-1] + size <= GPUS[family].framebuffer_gb


@pytest.mark.parametrize(
    ("family", "size", "ids"),
    [
        ("L4", 8, (0, 8, 16)),
        ("H100L", 47, (0, 47)),
        ("GH200", 96, (0,)),
        ("A10", 8, None),
        ("T4", 8, None),
        ("DC-96", 48, (0, 48)),
        ("DC-96", 2, tuple(range(0, 96, 3))),
    ],
)
def test_ids_of_equal_size_mode_are_multiples_of_the_size_where_the_driver_shows_any(family, size, ids):
    assert _placement.equal_ids(GPUS[family], size) == ids


def test_a_gpu_before_ampere_or_with_whole_types_only_has_no_region_to_divide():
    assert [family for family in ("V100", "T4", "RTX8000P", "GH200", "B200X", "6000D") if _placement.region_of(GPUS[family])] == []


def test_a_gpu_that_is_given_as_a_whole_has_one_place_only_if_it_has_a_time_sliced_type_of_its_size():
    gpu = GPUS["B200X"]
    whole = [kind for kind in gpu.types if not kind.slices and kind.size_gb == gpu.framebuffer_gb]
    sliced = [kind for kind in gpu.types if kind.slices]
    smaller = [dataclasses.replace(whole[0], size_gb=1)]
    found = [_placement.mixed_ids(dataclasses.replace(gpu, types=tuple(types))) for types in (whole, sliced, smaller)]
    assert found == [{gpu.framebuffer_gb: (0,)}, {}, {}]


def test_a_size_that_a_gpu_does_not_have_has_no_place():
    assert _placement.equal_ids(GPUS["L40S"], 5) == ()


def test_two_gb_count_as_three_on_the_blackwell_of_96_gb_only():
    assert [_placement.placement_size(GPUS[family], 2) for family in ("DC-96", "L40S", "DC-32")] == [3, 2, 2]
    assert 2 not in (_placement.region_of(GPUS["DC-96"]) or pytest.fail("no region")).most


def test_a_region_is_known_again_by_its_values():
    one, other = (_placement.region_of(GPUS[family]) for family in ("L40S", "L40"))
    assert one == other and hash(one) == hash(other)
    assert one != _placement.region_of(GPUS["A40"])
    assert one != Region(48, EVEN, {48: 1})
    assert _placement.ids(Region(48, HALVING, {48: 1}), 7) == ()


#: The smaller rows of the table of ``tests/vgpu/counting.py``; all of it is counted in the campaign of ``make soak``.
SMALLER = [row for row in counting.TABLE if row.fitting <= 2000]


@pytest.mark.parametrize("row", SMALLER, ids=str)
def test_all_mixes_of_a_gpu_counted(row):
    assert counting.wrong(row) == []


@pytest.mark.parametrize("family", ["A30", "A100", "A16", "DC-32", "A100D"])
def test_exactly_those_mixes_fit_for_which_trying_finds_places(family):
    region = counting.region(family)
    packing, packed = _mixes.feasible(region)
    mixes = {tuple(sorted(packing.unpack(mix).items())) for mix in packed}
    for mix in placing.within(published_ids()[family], region.size_gb, region.sizes):
        assert placing.holds(published_ids()[family], mix) == (tuple(sorted(mix.items())) in mixes), mix


@functools.lru_cache
def maximal(family: str) -> list[dict[int, int]]:
    return _mixes.mixes(counting.region(family))


@pytest.mark.parametrize("family", ["A30", "A100D", "A16", "DC-32"])
def test_maximal_mixes_fit_take_no_further_vgpu_and_contain_every_mix_that_fits(family):
    region = counting.region(family)
    packing, packed = _mixes.feasible(region)
    for mix in maximal(family):
        assert packing.pack(mix) in packed
        assert not any(packing.pack({**mix, size: mix.get(size, 0) + 1}) in packed for size in region.sizes)
    for mix in map(packing.unpack, packed):
        assert any(all(larger.get(size, 0) >= count for size, count in mix.items()) for larger in maximal(family)), mix


def test_maximal_mixes_of_chosen_sizes_have_no_other_size():
    region = counting.region("A10")
    assert _mixes.mixes(region, [8, 6, 5]) == [{8: 2}, {8: 1, 6: 2}, {6: 4}]
    assert maximal("A10")[0] == {24: 1}


def test_no_mix_is_larger_than_the_driver_lets_a_gpu_without_mig_be():
    assert (
        max(sum(mix.values()) for family in ("A10", "A16", "L4", "H100", "DC-32") for mix in maximal(family)) <= _placement.MOST_TIME_SLICED
    )
