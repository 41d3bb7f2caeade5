# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What the solved program says about each GPU: what is made on it, what that serves, and who is disturbed."""

from __future__ import annotations

import collections
import dataclasses
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _cells, _demand_classes, _fleet, _model, _spread


@dataclasses.dataclass
class Bin:
    """One GPU while it is filled. ``room`` is per kind of slot."""

    gpu: _fleet.Gpu
    choice: str
    room: dict[_cells.Slot, int]
    made: dict[_cells.Slot, int]
    serves: dict[tuple[str, str], int] = dataclasses.field(default_factory=lambda: collections.defaultdict(int))
    placements: list[tuple[int, int]] = dataclasses.field(default_factory=list)

    @property
    def busy(self) -> bool:
        return bool(self.serves) or (self.choice == "keep" and bool(self.gpu.holdings))


def fill(model: _model.Model, values: list[int]) -> list[Bin]:
    """Every GPU of the plan, with what it serves: demands by name, and moved VMs as ``vm NAMESPACE/NAME``."""
    bins: dict[_cells.Place, list[Bin]] = collections.defaultdict(list)
    for cell in model.cells:
        bins[cell.place].extend(_become(cell, values))
    _serve_spread(model, values, bins)
    _serve_regions(model, values, bins)
    return sorted((entry for entries in bins.values() for entry in entries), key=lambda entry: (entry.gpu.node, entry.gpu.index))


def _become(cell: _cells.Cell, values: list[int]) -> t.Iterator[Bin]:
    gpus = collections.deque(cell.gpus)
    for choice in cell.choices:
        for _each in range(values[choice.column] if choice.name != "mixed" else 0):
            yield Bin(gpus.popleft(), choice.name, dict(choice.slots), dict(choice.slots))
    for path in _paths(cell, values):
        gpu = gpus.popleft()
        slots: dict[_cells.Slot, int] = collections.Counter(("mixed", gpu.offer.family, size) for _start, size in path)
        yield Bin(gpu, "mixed", dict(slots), dict(slots), placements=path)


def _paths(cell: _cells.Cell, values: list[int]) -> t.Iterator[list[tuple[int, int]]]:
    """The flow through the region, taken apart: per GPU, (placement id, GB) of each vGPU."""
    left = {(start, end, size): values[column] for start, end, size, column in cell.arcs if values[column]}
    many = sum(values[choice.column] for choice in cell.choices if choice.name == "mixed")
    for _each in range(many):
        path, stop = [], 0
        while stop < cell.gpus[0].offer.region_gb:
            arc = max((arc for arc, count in left.items() if count and arc[0] == stop), key=lambda arc: arc[2])
            left[arc] -= 1
            if arc[2]:
                path.append((arc[0], arc[2]))
            stop = arc[1]
        yield path


def _order(entry: Bin) -> tuple[bool, str, int]:
    """Busy GPUs first, one after the other, so that whole GPUs stay free."""
    return (not entry.busy, entry.gpu.node, entry.gpu.index)


def _give(entries: list[Bin], slot: _cells.Slot, who: str, kind: str, count: int) -> None:
    """From the front of ``entries``; those that are full leave it."""
    while count:
        if not entries:
            raise AssertionError(f"the plan has no room for {who}: {slot}")
        entry = entries[0]
        taken = min(count, entry.room.get(slot, 0))
        if taken:
            entry.room[slot] -= taken
            entry.serves[who, kind] += taken
            count -= taken
        if not entry.room.get(slot):
            entries.pop(0)


def _serve_spread(model: _model.Model, values: list[int], bins: dict[_cells.Place, list[Bin]]) -> None:
    for spread in model.spreads:
        places: list[tuple[str, int]] = []
        slots: list[tuple[_cells.Place, _cells.Slot]] = []
        for member, group in enumerate(spread.members):
            for place, slot, column in group.serves:
                places += [(place[0], member)] * values[column]
                slots += [(place, slot)] * values[column]
        sizes = [group.count // len(spread.groups) for group in spread.members]
        dealt = _spread.deal(places, len(spread.groups), sizes)
        waiting = {
            (number, member): [demand.name for demand in group.demands if demand.spread == name for _each in range(demand.count)]
            for member, group in enumerate(spread.members)
            for number, name in enumerate(spread.groups)
        }
        for (node_and_region, slot), (_node, member), number in zip(slots, places, dealt, strict=True):
            name = waiting[number, member].pop(0)
            entries = sorted((entry for entry in bins[node_and_region] if entry.room.get(slot)), key=_order)
            _give(entries, slot, name, model.type_for(spread.members[member], slot), 1)


def _serve_regions(model: _model.Model, values: list[int], bins: dict[_cells.Place, list[Bin]]) -> None:
    regions: dict[int, list[Bin]] = collections.defaultdict(list)
    for (_node, region), entries in sorted(bins.items()):
        regions[region].extend(entries)
    displaced: dict[str, list[tuple[str, int]]] = collections.defaultdict(list)
    for entries in regions.values():
        for entry in entries:
            if entry.choice != "keep":
                for holding in entry.gpu.holdings:
                    displaced[holding.type].append((f"vm {holding.vm}", holding.count))
    queues: dict[tuple[int, _cells.Slot], list[Bin]] = {}
    for name, group in sorted(model.moved.items()):
        _hand_out(model, values, regions, queues, group, sorted(displaced[name]))
    for group in model.groups:
        if group.spread is None:
            _hand_out(model, values, regions, queues, group, [(demand.name, demand.count) for demand in group.demands])


def _hand_out(
    model: _model.Model,
    values: list[int],
    regions: dict[int, list[Bin]],
    queues: dict[tuple[int, _cells.Slot], list[Bin]],
    group: _demand_classes.Group,
    waiting: list[tuple[str, int]],
) -> None:
    """What the program gives a demand class, to its demands in the order of their names."""
    waiting = list(reversed(waiting))
    for (_node, region), slot, column in group.serves:
        if values[column] and (region, slot) not in queues:
            queues[region, slot] = sorted((entry for entry in regions[region] if entry.room.get(slot)), key=_order)
        room = values[column]
        while room:
            name, count = waiting.pop()
            taken = min(room, count)
            _give(queues[region, slot], slot, name, model.type_for(group, slot), taken)
            room -= taken
            if count > taken:
                waiting.append((name, count - taken))
