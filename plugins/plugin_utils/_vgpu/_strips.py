# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""One GPU of a plan as a strip: which GB each vGPU takes and whose it is, which are free, and which no further vGPU can reach."""

from __future__ import annotations

import dataclasses
import functools
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _gpu_fits, _mig, _placement
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._gpu import Gpu
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._gpu_fits import EQUAL, MIG

#: What a stretch of a strip is: a vGPU that serves or is held, one that is made and idle, GB for another vGPU, GB that are lost.
USED, IDLE, FREE, LOST = "used", "idle", "free", "lost"

Cell = tuple[float, float]  #: first GB and the one behind the last


@dataclasses.dataclass(frozen=True)
class Stretch:
    """GB from ``begin`` to ``end``, what they are, the type on them and whose it is (a demand or a VM)."""

    begin: float
    end: float
    what: str
    type: str = ""
    who: str = ""
    is_vm: bool = False


@dataclasses.dataclass(frozen=True)
class Strip:
    """A GPU's region from left to right.

    ``note`` says what is not as it should be or not known, ``order_known`` whether the places are the driver's.
    """

    size_gb: float
    stretches: tuple[Stretch, ...]
    note: str = ""
    order_known: bool = True

    def gb(self, what: str) -> float:
        return sum(stretch.end - stretch.begin for stretch in self.stretches if stretch.what == what)


@dataclasses.dataclass(frozen=True)
class _Layout:
    size_gb: float
    placed: tuple[tuple[Cell, str], ...]
    free: tuple[Cell, ...]
    note: str = ""
    order_known: bool = True


def _unknown(types: tuple[tuple[str, int], ...], note: str) -> _Layout:
    """A GPU whose size is not known, or a mix that does not fit: the vGPUs side by side, each as wide as the others."""
    names = [name for name, count in types for _one in range(count)]
    return _Layout(float(max(len(names), 1)), tuple(((place, place + 1.0), name) for place, name in enumerate(names)), (), note, False)


def _gaps(size_gb: float, taken: t.Iterable[Cell]) -> list[Cell]:
    """The GB that no cell takes."""
    gaps, place = [], 0.0
    for begin, end in sorted(taken):
        if begin > place:
            gaps.append((place, begin))
        place = max(place, end)
    return [*gaps, (place, size_gb)] if place < size_gb else gaps


def _within(gaps: t.Iterable[Cell], cells: t.Iterable[Cell]) -> tuple[Cell, ...]:
    """The parts of the gaps that cells which lie in them reach."""
    candidates = list(cells)
    reached: list[Cell] = []
    for low, high in gaps:
        for begin, end in sorted(cell for cell in candidates if cell[0] >= low and cell[1] <= high):
            if reached and begin <= reached[-1][1]:
                reached[-1] = (reached[-1][0], max(reached[-1][1], end))
            else:
                reached.append((begin, end))
    return tuple(reached)


def _time_sliced(gpu: Gpu, placed: list[tuple[Cell, str]], equal_size: int) -> _Layout:
    """Time-sliced vGPUs at places. ``equal_size``: the GB that all have, or 0 in mixed-size mode."""
    region = _placement.region_of(gpu)
    gaps = _gaps(gpu.framebuffer_gb, [cell for cell, _name in placed])
    if not placed:
        return _Layout(gpu.framebuffer_gb, (), tuple(gaps))
    if equal_size:
        size = _placement.placement_size(gpu, equal_size)
        most = max(kind.most for kind in gpu.types if not kind.slices and kind.size_gb == equal_size)
        ids = _placement.equal_ids(gpu, equal_size) or tuple(number * size for number in range(most))
        cells = [(float(place), float(place + size)) for place in ids]
    else:
        sizes = region.sizes if region else ()
        cells = [(float(place), float(place + size)) for size in sizes for place in _placement.ids(region, size)] if region else []
    known = not equal_size or _placement.equal_ids(gpu, equal_size) is not None
    return _Layout(gpu.framebuffer_gb, tuple(placed), _within(gaps, cells), order_known=known)


def _on_instances(gpu: Gpu, mix: dict[str, int]) -> _Layout:
    """MIG-backed vGPUs: each instance takes its memory slices; one vGPU fills it, several lie side by side."""
    profiles = _mig.profiles(gpu)
    slices = 8 if any(kind.slices == 7 for kind in gpu.types) else max(kind.slices for kind in gpu.types)
    unit = gpu.framebuffer_gb / slices
    sizes = {kind.name: kind for kind in gpu.types}
    placed: list[tuple[Cell, str]] = []
    covered: list[Cell] = []
    free: list[Cell] = []
    for instance in _mig.fits(gpu, mix).instances:
        begin, end = instance.start * unit, (instance.start + profiles[instance.profile].covers) * unit
        covered.append((begin, end))
        names = [name for name, count in instance.vgpus for _one in range(count)]
        room = _mig.per_instance(sizes[names[0]])
        width = (end - begin) if room == 1 else min(float(sizes[names[0]].size_gb), (end - begin) / room)
        placed += [((begin + number * width, begin + (number + 1) * width), name) for number, name in enumerate(names)]
        if room > len(names):
            free.append((begin + len(names) * width, begin + room * width))
    cells = [(start * unit, (start + kind.covers) * unit) for kind in profiles.values() for start in kind.starts]
    reached = _within(_gaps(gpu.framebuffer_gb, covered), cells)
    return _Layout(gpu.framebuffer_gb, tuple(placed), tuple(sorted([*free, *reached])), order_known=False)


@functools.lru_cache(maxsize=4096)
def _layout(gpu: t.Any, types: tuple[tuple[str, int], ...], given: tuple[tuple[int, int], ...]) -> _Layout:
    """Where the vGPUs of these types lie. ``given``: ids and GB that the plan says, of all of them, or nothing."""
    mix = dict(types)
    try:
        found = _gpu_fits.fits(gpu, mix)
    except ValueError as error:
        return _unknown(types, str(error))
    if not found.fits:
        return _unknown(types, f"This does not fit on one GPU: {found.why}.")
    if found.mode == MIG:
        return _on_instances(gpu, mix)
    if given:
        names: dict[int, list[str]] = {}
        for kind in gpu.types:
            names.setdefault(_placement.placement_size(gpu, kind.size_gb), []).extend([kind.name] * mix.get(kind.name, 0))
        if sorted(size for _place, size in given) == sorted(size for size, held in names.items() for _one in held):
            placed = [((float(place), float(place + size)), names[size].pop(0)) for place, size in sorted(given)]
            return _time_sliced(gpu, placed, 0)
    sizes = {kind.size_gb for kind in gpu.types if kind.name in mix}
    equal = sizes.pop() if found.mode == EQUAL and sizes else 0
    cells = []
    for number, entry in enumerate(found.placements):
        begin = float(entry.id if entry.id is not None else number * entry.size_gb)
        cells.append(((begin, begin + entry.size_gb), entry.type))
    return _time_sliced(gpu, cells, equal)


def _owners(entry: t.Mapping[str, t.Any]) -> dict[str, list[tuple[str, bool]]]:
    """By type, who has each vGPU: the demands it serves, then the VMs that hold one."""
    found: dict[str, list[tuple[str, bool]]] = {}
    for serve in entry.get("serves") or ():
        found.setdefault(serve["type"], []).extend([(str(serve["demand"]), False)] * serve["count"])
    for hold in entry.get("holds") or ():
        found.setdefault(hold["type"], []).extend([(str(hold["vm"]), True)] * hold.get("count", 1))
    return found


def strip(entry: t.Mapping[str, t.Any], gpu: Gpu | None) -> Strip:
    """A GPU of a plan as a strip. ``gpu``: its entry in the catalogue, or None if it has none."""
    types = tuple((name, count) for name, count in entry["types"].items() if count)
    given = tuple((place["id"], place["size_gb"]) for place in entry.get("placements") or ())
    if gpu is None:
        layout = _unknown(types, "The catalogue does not have this GPU: sizes and free space are not known.")
    else:
        layout = _layout(t.cast(t.Any, gpu), types, given)
    owners = {name: iter(held) for name, held in _owners(entry).items()}
    stretches = []
    for (begin, end), name in sorted(layout.placed):
        who, is_vm = next(owners.get(name, iter(())), ("", False))
        stretches.append(Stretch(begin, end, USED if who else IDLE, name, who, is_vm))
    stretches += [Stretch(begin, end, FREE) for begin, end in layout.free]
    if gpu is not None and layout.size_gb == gpu.framebuffer_gb:
        lost = _gaps(layout.size_gb, [(stretch.begin, stretch.end) for stretch in stretches])
        stretches += [Stretch(begin, end, LOST) for begin, end in lost]
    return Strip(layout.size_gb, tuple(sorted(stretches, key=lambda stretch: stretch.begin)), layout.note, layout.order_known)
