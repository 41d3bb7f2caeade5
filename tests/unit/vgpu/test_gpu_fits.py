# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One GPU and a mix of its types: one size, several sizes, GPU instances; what is refused and what is nearest to it."""

from __future__ import annotations

import itertools

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _gpu_fits, _mig
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._gpu_fits import fits
from tests.vgpu.gpus import gpus, table

GPUS = gpus()
SLICED = sorted(family for family, gpu in GPUS.items() if any(kind.slices for kind in gpu.types))


@pytest.mark.parametrize("family", sorted(GPUS))
def test_as_many_of_each_type_fit_as_the_data_says_and_not_one_more(family):
    for kind in GPUS[family].types:
        found = fits(GPUS[family], {kind.name: kind.most})
        assert found.fits and len(found.placements) == kind.most and found.mode == ("mig" if kind.slices else "equal"), kind.name
        more = fits(GPUS[family], {kind.name: kind.most + 1})
        assert not more.fits and more.why and more.nearest == ({kind.name: kind.most},), kind.name


@pytest.mark.parametrize("family", SLICED)
def test_where_instances_begin_follows_from_how_many_a_gpu_has(family):
    slices = 8 if any(kind.slices == 7 for kind in GPUS[family].types) else max(kind.slices for kind in GPUS[family].types)
    for profile in _mig.profiles(GPUS[family]).values():
        most = 0
        for start in range(slices):
            if start in profile.starts:
                most += 1
                assert start + profile.covers <= slices
        # Starts of one profile never overlap; one instance at most has the media engines.
        assert all(b - a >= profile.covers for a, b in itertools.pairwise(profile.starts))
        assert most == profile.most or (profile.name.endswith("+me") and profile.most == 1)


def test_the_starts_on_seven_slices_are_those_of_the_data():
    known = table()["mig_gi_placements_7slice"].values()
    assert sorted((entry["memory_slices"], tuple(entry["starts"]), entry["max"]) for entry in known) == sorted(
        (covers, starts, most) for (_digit, most), (covers, starts) in _mig.SEVEN_SLICES.items()
    )


def instance_sets(family: str) -> set[tuple[tuple[str, int], ...]]:
    """All maximal sets of instances, by trying all sets of places."""
    profiles = _mig.profiles(GPUS[family])
    places = [(name, set(range(start, start + profile.covers))) for name, profile in profiles.items() for start in profile.starts]

    def grow(first: int, taken: set[int], names: tuple[str, ...]) -> None:
        found.add(tuple(sorted(names)))
        for number in range(first, len(places)):
            name, cover = places[number]
            media = name.endswith("+me") and any(other.endswith("+me") for other in names)
            if not taken & cover and not media:
                grow(number + 1, taken | cover, (*names, name))

    found: set[tuple[str, ...]] = set()
    grow(0, set(), ())
    largest = {names for names in found if not any(tuple(sorted((*names, name))) in found for name in profiles)}
    return {tuple(sorted((name, names.count(name)) for name in set(names))) for names in largest}


@pytest.mark.parametrize("family", ["A100", "A30", "DC-96", "DC-32", "6000D"])
def test_the_maximal_sets_of_gpu_instances_are_those_that_trying_finds(family):
    found = [tuple(sorted(layout.items())) for layout in _mig.layouts(GPUS[family])]
    assert len(found) == len(set(found)) and set(found) == instance_sets(family)


@pytest.mark.parametrize(
    ("family", "mix", "instances"),
    [
        ("A100", {"A100-3-20C": 1, "A100-2-10C": 1, "A100-1-5C": 2}, 4),
        ("A100", {"A100-1-10C": 3, "A100-1-5C": 2}, 5),
        ("A30", {"A30-2-12C": 1, "A30-1-6C": 2}, 3),
        ("DC-96", {"DC-1-24Q": 2, "DC-2-48Q": 1}, 3),
        ("DC-96", {"DC-1-2Q": 12, "DC-1-3Q": 8, "DC-1-24C": 1}, 3),
        # Types of one size share an instance.
        ("DC-96", {"DC-1-8Q": 1, "DC-1-8C": 1, "DC-1-8A": 1}, 1),
        ("DC-96", {"DC-1-2Q": 12, "DC-1-2B": 36}, 4),
        ("DC-32", {"DC-1-8C": 2, "DC-1-16Q": 1}, 2),
        ("DC-32", {"DC-2-8Q": 4}, 1),
        ("6000D", {"6000D-1-42Q": 1, "6000D-1-42C": 1}, 2),
    ],
)
def test_mig_backed_types_that_fit(family, mix, instances):
    found = fits(GPUS[family], mix)
    assert found.fits and found.mode == "mig"
    assert len({placed.instance for placed in found.placements}) == instances
    assert {name: sum(placed.type == name for placed in found.placements) for name in mix} == mix
    assert (_mig.UNPROVEN in found.caveats) == (len({kind.mig_profile for kind in GPUS[family].types if kind.name in mix}) > 1)
    assert (_mig.SHARED in found.caveats) == (len(found.placements) > instances)


@pytest.mark.parametrize(
    ("family", "mix", "why", "nearest"),
    [
        ("A100", {"A100-3-20C": 2, "A100-1-5C": 1}, "do not fit beside each other", {"A100-3-20C": 2}),
        ("A100", {"A100-1-5C": 8}, "at most 7 of 1g.5gb", {"A100-1-5C": 7}),
        ("A30", {"A30-1-6CME": 1, "A30-2-12CME": 1}, "only one of those with +me can exist", {"A30-2-12CME": 1}),
        ("DC-96", {"DC-1-2Q": 49}, "at most 4 of 1g.24gb+gfx", {"DC-1-2Q": 48}),
        ("DC-96", {"DC-1-2Q": 37, "DC-1-3Q": 1}, "5 x 1g.24gb+gfx", {"DC-1-2Q": 37}),
        ("DC-96", {"DC-48Q": 1, "DC-2-48Q": 1}, "never share a GPU", {"DC-48Q": 1}),
        ("A10", {"A10-8Q": 2, "A10-6C": 1}, "the places that the driver has for these sizes overlap", {"A10-8Q": 2}),
        ("A10", {"A10-4Q": 7}, "A10 holds at most 6 of this size", {"A10-4Q": 6}),
        ("A10", {"A10-4Q": 4, "A10-4C": 4}, "A10 holds at most 6 of this size", {"A10-4Q": 4, "A10-4C": 2}),
        ("T4", {"T4-8Q": 1, "T4-4Q": 2}, "T4 (turing) has no mixed-size mode", {"T4-4Q": 2}),
        ("V100", {"V100-8Q": 1, "V100-4Q": 1}, "V100 (volta) has no mixed-size mode", {"V100-8Q": 1}),
    ],
)
def test_a_mix_that_does_not_fit_on_a_gpu_says_why_and_what_is_nearest(family, mix, why, nearest):
    found = fits(GPUS[family], mix)
    assert not found.fits and not found.mode and why in found.why
    assert found.nearest[0] == nearest
    assert all(fits(GPUS[family], part).fits for part in found.nearest)


def test_types_of_one_size_and_several_series_share_a_gpu_and_the_answer_names_the_release():
    found = fits(GPUS["L4"], {"L4-8Q": 1, "L4-8C": 2})
    assert found.fits and found.mode == "equal" and found.caveats == (_gpu_fits.SERIES_SHARE,)
    assert [(placed.type, placed.id) for placed in found.placements] == [("L4-8Q", 0), ("L4-8C", 8), ("L4-8C", 16)]


def test_several_sizes_need_mixed_size_mode_and_the_answer_says_what_switches_it_on():
    found = fits(GPUS["A10"], {"A10-4Q": 1, "A10-12Q": 1, "A10-8A": 1})
    assert [(placed.type, placed.id) for placed in found.placements] == [("A10-12Q", 0), ("A10-8A", 16), ("A10-4Q", 12)]
    assert (found.mode, found.order) == ("mixed", "largest-first")
    assert found.caveats == (_gpu_fits.MIXED_SIZE, _gpu_fits.COMPUTED, _gpu_fits.ORDERS["largest-first"])


def test_placements_that_only_ids_reach_say_so():
    found = fits(GPUS["DC-96"], {"DC-48Q": 1, "DC-32Q": 1, "DC-8Q": 1, "DC-6Q": 1})
    assert found.order == "placement-ids" and "placement ids" in found.caveats[-1]


def test_two_gb_of_a_blackwell_take_the_places_of_three():
    found = fits(GPUS["DC-96"], {"DC-2B": 3, "DC-24Q": 1})
    assert [(placed.type, placed.size_gb, placed.id) for placed in found.placements][1:] == [
        ("DC-2B", 3, 24),
        ("DC-2B", 3, 27),
        ("DC-2B", 3, 30),
    ]


@pytest.mark.parametrize(
    ("mix", "error"),
    [
        ({"A10-5Q": 1}, "'A10-5Q' is no vGPU type of A10; the nearest are A10-"),
        ({"A16-8Q": 1}, "'A16-8Q' is no vGPU type of A10; the nearest are A10-8Q"),
        ({"A10-4Q": 0}, "0 x A10-4Q were asked for on A10: write a whole number from 1 on, or leave the type out"),
        ({"A10-4Q": -2}, "-2 x A10-4Q"),
        ({"A10-4Q": "3"}, "'3' x A10-4Q"),
        ({"A10-4Q": True}, "True x A10-4Q"),
    ],
)
def test_what_is_no_mix_of_the_gpu_is_an_error_that_names_the_item(mix, error):
    with pytest.raises(ValueError, match="A10") as raised:
        fits(GPUS["A10"], mix)
    assert error in str(raised.value)


def test_an_empty_mix_fits():
    assert fits(GPUS["A10"], {}).fits
