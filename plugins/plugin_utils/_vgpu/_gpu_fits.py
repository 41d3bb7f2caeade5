# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Does one GPU hold these vGPUs: all of one size, of several sizes, or on GPU instances; with the placements, or with the reason and the nearest.

Modes: ``equal`` (the default of a host: all vGPUs of a GPU have one size, of any series), ``mixed`` (mixed-size mode must be switched on),
``mig`` (MIG mode and GPU instances must be there). Time-sliced and MIG-backed vGPUs never share a GPU.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _fits, _mig, _placement
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._gpu import Gpu, VgpuType
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._orders import ANY, IDS, LARGEST_FIRST, SMALLEST_FIRST

EQUAL, MIXED, MIG = "equal", "mixed", "mig"

SERIES_SHARE = "Several series of one size share a GPU from vGPU 17 on; before, all vGPUs of a GPU are of one type."
MIXED_SIZE = (
    "Sizes differ: mixed-size mode must be on (vGPU 17 or newer, 'nvidia-smi vgpu -i GPU -shm 1'). A reboot and 'sriov-manage' clear it, "
    "and nothing in the GPU Operator switches it on."
)
COMPUTED = (
    "[C] Places in mixed-size mode are computed from the driver's source, not measured: compare with 'nvidia-smi vgpu -s -v' on the host."
)
ORDERS = {
    LARGEST_FIRST: "[C] Create the largest first: in another order the driver may put a vGPU where a larger one has to be.",
    SMALLEST_FIRST: "[C] Create the smallest first, or write the placement ids: with the largest first the driver cannot place all.",
    IDS: "[C] Write the placement ids (vendor-specific VFIO only): left to itself, the driver cannot place all, largest or smallest first.",
}


@dataclasses.dataclass(frozen=True)
class Placed:
    """One vGPU: its type, GB it occupies, placement id (None: the driver shows none in this mode); on MIG, its profile and instance."""

    type: str
    size_gb: int
    id: int | None = None
    instance: str | None = None


@dataclasses.dataclass(frozen=True)
class GpuFit:
    """Whether a mix fits on one GPU. ``mode`` is set if it does; ``placements`` stand in the order in which to create them."""

    fits: bool
    mode: str = ""
    placements: tuple[Placed, ...] = ()
    order: str = ""
    why: str = ""
    nearest: tuple[dict[str, int], ...] = ()
    caveats: tuple[str, ...] = ()


def check(gpu: Gpu, mix: t.Mapping[str, int]) -> dict[str, t.Any]:
    """The types of a mix by name, in its order.

    :raises ValueError: the GPU has no such type, or a count is no whole number from 1 on.
    """
    types = {kind.name: kind for kind in gpu.types}
    for name, count in mix.items():
        if name not in types:
            near = difflib.get_close_matches(name, types, n=3, cutoff=0) or sorted(types)[:3]
            raise ValueError(f"{name!r} is no vGPU type of {gpu.family}; the nearest are {', '.join(near)}")
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ValueError(f"{count!r} x {name} were asked for on {gpu.family}: write a whole number from 1 on, or leave the type out")
    return {name: types[name] for name in mix}


def _by_size(kinds: t.Mapping[str, VgpuType], mix: t.Mapping[str, int], size_of: t.Callable[[int], int]) -> dict[int, list[str]]:
    """The names of the vGPUs of a mix, one each, by placement size."""
    found: dict[int, list[str]] = {}
    for name, count in mix.items():
        found.setdefault(size_of(kinds[name].size_gb), []).extend([name] * count)
    return found


def _named(counts: t.Mapping[int, int], names: t.Mapping[int, list[str]]) -> dict[str, int]:
    """Counts by size as counts by type: the types of a size in the order of the mix, the last ones lacking."""
    found: dict[str, int] = {}
    for size, count in counts.items():
        for name in names[size][:count]:
            found[name] = found.get(name, 0) + 1
    return found


def _equal(gpu: Gpu, kinds: t.Mapping[str, VgpuType], mix: t.Mapping[str, int]) -> GpuFit:
    size, most, total = next(iter(kinds.values())).size_gb, min(kind.most for kind in kinds.values()), sum(mix.values())
    caveats = (SERIES_SHARE,) if len(mix) > 1 else ()
    names = [name for name, count in mix.items() for _one in range(count)]
    if total > most:
        why = f"{total} x {size} GB were asked for, and {gpu.family} holds at most {most} of this size"
        return GpuFit(False, why=why, nearest=(_named({size: most}, {size: names}),), caveats=caveats)
    ids = _placement.equal_ids(gpu, size)
    occupied = _placement.placement_size(gpu, size)
    placed = tuple(Placed(name, occupied, ids[number] if ids is not None else None) for number, name in enumerate(names))
    return GpuFit(True, EQUAL, placed, ANY, caveats=caveats)


def _mixed(gpu: Gpu, kinds: t.Mapping[str, VgpuType], mix: t.Mapping[str, int]) -> GpuFit:
    region = _placement.region_of(gpu)
    if region is None:
        sizes = sorted({kind.size_gb for kind in kinds.values()}, reverse=True)
        why = (
            f"{gpu.family} ({gpu.architecture}) has no mixed-size mode, which needs virtual functions (Ampere or newer): "
            f"all its vGPUs have one size, and {', '.join(map(str, sizes))} GB were asked for"
        )
        parts = [{name: min(count, kinds[name].most) for name, count in mix.items() if kinds[name].size_gb == size} for size in sizes]
        fitting = [
            part if sum(part.values()) <= min(kinds[name].most for name in part) else dict([next(iter(part.items()))]) for part in parts
        ]
        return GpuFit(False, why=why, nearest=tuple(sorted(fitting, key=lambda part: -sum(part.values()))[: _fits.NEAREST]))
    names = _by_size(kinds, mix, lambda size: _placement.placement_size(gpu, size))
    found = _fits.fits(region, {size: len(held) for size, held in names.items()})
    if not found.fits:
        near = tuple(_named(counts, names) for counts in found.nearest)
        return GpuFit(False, why=found.why, nearest=near, caveats=(MIXED_SIZE, COMPUTED))
    waiting = {size: iter(held) for size, held in names.items()}
    placed = tuple(Placed(next(waiting[size]), size, place) for size, place in found.placements)
    said = (ORDERS[found.order],) if found.order in ORDERS else ()
    return GpuFit(True, MIXED, placed, found.order, caveats=(MIXED_SIZE, COMPUTED, *said))


def _sliced(gpu: Gpu, kinds: t.Mapping[str, VgpuType], mix: t.Mapping[str, int]) -> GpuFit:
    found = _mig.fits(gpu, mix)
    # How many instances of one profile a GPU has is a figure of NVIDIA's; only how profiles combine is not.
    unproven = (_mig.UNPROVEN,) if len({kind.mig_profile for kind in kinds.values()}) > 1 else ()
    if not found.fits:
        return GpuFit(False, why=found.why, nearest=found.nearest, caveats=unproven)
    numbered = [
        (instance, f"{instance.profile} #{sum(other.profile == instance.profile for other in found.instances[:place])}")
        for place, instance in enumerate(found.instances)
    ]
    placed = tuple(
        Placed(name, kinds[name].size_gb, instance=label)
        for instance, label in numbered
        for name, count in instance.vgpus
        for _one in range(count)
    )
    shared = (_mig.SHARED,) if len(placed) > len(found.instances) else ()
    return GpuFit(True, MIG, placed, ANY, caveats=unproven + shared)


def fits(gpu: Gpu, mix: t.Mapping[str, int]) -> GpuFit:
    """Does one GPU hold these vGPUs, counts by type name?

    :raises ValueError: the GPU has no such type, or a count is no whole number from 1 on.
    """
    kinds = check(gpu, mix)
    if not kinds:
        return GpuFit(True, EQUAL, order=ANY)
    sliced = {name: count for name, count in mix.items() if kinds[name].slices}
    rest = {name: count for name, count in mix.items() if not kinds[name].slices}
    if sliced and rest:
        why = f"{', '.join(sliced)} need MIG mode and {', '.join(rest)} need it off: they never share a GPU"
        parts = [part for part in (rest, sliced) if fits(gpu, part).fits]
        return GpuFit(False, why=why, nearest=tuple(parts))
    if sliced:
        return _sliced(gpu, kinds, mix)
    return _equal(gpu, kinds, mix) if len({kind.size_gb for kind in kinds.values()}) == 1 else _mixed(gpu, kinds, mix)
