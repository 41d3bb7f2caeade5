# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The fleet as an integer program.

GPUs that are the same in every respect that the plan can see (model, state, VMs, who may use them, and the node where that matters) are one *cell*,
and the program only counts how many of a cell become what. That keeps it small and free of symmetry, whatever the size of the fleet.

- A GPU of a cell makes one **choice**: keep what it has, nothing, one equal size, one type, or mixed sizes.
- A choice makes **slots** of some kind: one size of one GPU model, which any series of that size may take (kernel_vgpu_mgr.c:239-291, vGPU 17 and
  newer on KVM), or one type. Mixed sizes are a flow through the region from 0 to its end over placement ids: a unit of flow is a GPU, the ids that it
  passes are its placements. No list of mixes is needed.
- **Serves** carry demands to slots. Given the choices they are a network, so that they need not be integers.
- A VM whose GPU changes needs a vGPU of its type again; that is never left out.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import (
    _cells,
    _covers,
    _demand_classes,
    _fleet,
    _headroom,
    _limits,
    _objectives,
    _solve,
)

OBJECTIVES = ("unserved", "disturbed", "gpus", "nodes", "profiles")


@dataclasses.dataclass(frozen=True)
class Options:
    objectives: tuple[str, ...] = ("unserved", "disturbed", "gpus", "profiles")
    #: Whether types of one size and different series may share a GPU.
    mix_series: bool = True
    #: What a changed GPU disturbs: the VMs on it, or all with a vGPU on the node.
    disturbs: str = "gpu"
    #: Whether GPUs with VMs may change at all.
    move_vms: bool = True
    headroom: str = "none"


class Model:
    """Built once; columns and rows are in ``program``, what they mean in the rest."""

    def __init__(self, fleet: _fleet.Fleet, options: Options) -> None:
        self.fleet = fleet
        self.options = options
        self.program = _solve.Program()
        self.open = [gpu for gpu in fleet.gpus if gpu.mode != "exclude"]
        self.scopes: list[frozenset[str]] = sorted({demand.scope for demand in fleet.demands}, key=sorted)
        self.groups: list[_demand_classes.Group] = []
        self.spreads: list[_demand_classes.Spread] = []
        self.moved: dict[str, _demand_classes.Group] = {}
        self.cells: list[_cells.Cell] = []
        self._slots: dict[tuple[_cells.Place, _cells.Slot], list[tuple[int, float]]] = collections.defaultdict(list)
        self._taken: dict[tuple[_cells.Place, _cells.Slot], list[tuple[int, float]]] = collections.defaultdict(list)
        #: Columns that count the idle vGPUs which headroom lacks.
        self.short: list[tuple[int, float]] = []
        _demand_classes.group(self)
        self._make_cells()
        self._make_serves()
        _limits.spread_rows(self)
        _limits.vfio_rows(self)
        _limits.rounded_rows(self)
        if len(self.open) < _covers.LARGE:
            for terms, least in list(_covers.rows(self, self._slots)):
                self.program.row(terms, lower=least)
        if options.headroom != "none":
            _headroom.keep(self)
        self._objectives = {name: _objectives.terms(self, name) for name in options.objectives}

    # cells and choices

    def _make_cells(self) -> None:
        coupled = self.options.disturbs == "node" or self.options.headroom == "node" or "nodes" in self.options.objectives
        spread_scopes = {member.scope for spread in self.spreads for member in spread.members}
        spread_gpus = {name for scope in spread_scopes for name in self.scopes[scope]}
        spread_nodes = {gpu.node for gpu in self.open if gpu.name in spread_gpus}
        memberships: dict[str, list[int]] = {gpu.name: [] for gpu in self.open}
        for index, scope in enumerate(self.scopes):
            for name in scope:
                memberships[name].append(index)
        self.members: list[frozenset[int]] = []
        numbers: dict[tuple[int, ...], int] = {}
        found: dict[tuple[t.Any, ...], list[_fleet.Gpu]] = collections.defaultdict(list)
        for gpu in self.open:
            membership = tuple(memberships[gpu.name])
            if membership not in numbers:
                numbers[membership] = len(self.members)
                self.members.append(frozenset(membership))
            node = gpu.node if coupled or gpu.node in spread_nodes else ""
            vms = len({holding.vm for holding in gpu.holdings})
            state = (gpu.mode, gpu.present or (), tuple(sorted(gpu.held().items())), vms)
            found[node, numbers[membership], gpu.offer.family, gpu.vendor_device, gpu.vfio_pool or "", state].append(gpu)
        movable = {name for gpu in self.open if self._may_change(gpu) for name in gpu.held()}
        wanted: list[set[str]] = [set(movable) for _member in self.members]
        for group in self.groups:
            for index, members in enumerate(self.members):
                if group.scope in members:
                    wanted[index] |= group.accepts
        for key, gpus in sorted(found.items()):
            place = (key[0], key[1])
            self._make_cell(gpus, place, wanted[key[1]])
        for name in sorted(movable):
            self.moved[name] = _demand_classes.Group(frozenset({name}), -1, None, [], 0)

    def _may_change(self, gpu: _fleet.Gpu) -> bool:
        return gpu.mode in ("equal", "mixed") and (self.options.move_vms or not gpu.holdings)

    def _make_cell(self, gpus: list[_fleet.Gpu], place: _cells.Place, wanted: set[str]) -> None:
        gpu, many = gpus[0], len(gpus)
        cell = _cells.Cell(gpus, place, [])
        held = gpu.held()

        def choice(name: str, slots: dict[_cells.Slot, int], changed: bool, used: bool, profiles: tuple[_cells.Slot, ...] = ()) -> None:
            column = self.program.column(many)
            cell.choices.append(_cells.Choice(name, slots, column, changed, used, profiles))
            for slot, count in slots.items():
                if count:
                    self._slots[place, slot].append((column, count))

        if gpu.present:
            slots: dict[_cells.Slot, int] = {("type", name): count - held.get(name, 0) for name, count in gpu.present}
            choice(
                "keep", slots, changed=False, used=True, profiles=tuple(sorted({self._profile(gpu, name) for name, _count in gpu.present}))
            )
        if self._may_change(gpu) or not gpu.holdings:
            choice("unused", {}, changed=bool(gpu.holdings), used=False)
        if self._may_change(gpu):
            for slot, count in self._equal_slots(gpu, wanted):
                choice("equal", {slot: count}, changed=True, used=True, profiles=(self._profile_of(gpu, slot),))
            if gpu.mode == "mixed":
                self._make_mixed(cell, wanted)
        self.program.row([(entry.column, 1.0) for entry in cell.choices], many, many)
        self.cells.append(cell)

    def _equal_slots(self, gpu: _fleet.Gpu, wanted: set[str]) -> list[tuple[_cells.Slot, int]]:
        """One size, or one type, that somebody wants: the slot and how many of it fit."""
        kinds = [kind for kind in gpu.offer.kinds if kind.name in wanted]
        alone = not self.options.mix_series or gpu.vfio_pool is not None or self.options.headroom != "none"
        found: dict[_cells.Slot, int] = {("type", kind.name): kind.most for kind in kinds if kind.mig or alone}
        if not alone:
            sizes: dict[frozenset[str], _cells.Slot] = {}
            for kind in sorted((kind for kind in kinds if not kind.mig), key=lambda kind: -kind.most):
                # Types of one size can have different maxima (RTX8000P-4C: 8, -4Q: 12); together they have the least.
                served = frozenset(
                    other.name for other in kinds if not other.mig and other.size_gb == kind.size_gb and other.most >= kind.most
                )
                sizes.setdefault(served, ("size", gpu.offer.family, kind.size_gb, kind.most))
            found.update({slot: slot[3] for slot in sizes.values()})
        return sorted(found.items(), key=str)

    def _make_mixed(self, cell: _cells.Cell, wanted: set[str]) -> None:
        gpu, many = cell.gpus[0], len(cell.gpus)
        offer = gpu.offer
        sizes = sorted({kind.size_gb for kind in offer.kinds if not kind.mig and kind.name in wanted})
        spans = {(start, start + taken, size) for size, taken, ids in offer.places if size in sizes for start in ids}
        if not spans:
            return
        stops = sorted({0, offer.region_gb} | {stop for start, end, _size in spans for stop in (start, end)})
        spans |= {(start, end, 0) for start, end in itertools.pairwise(stops)}
        column = self.program.column(many)
        cell.choices.append(
            _cells.Choice("mixed", {}, column, changed=True, used=True, profiles=tuple(("mixed", offer.family, size) for size in sizes))
        )
        balance: dict[int, list[tuple[int, float]]] = collections.defaultdict(list)
        for start, end, size in sorted(spans):
            arc = self.program.column(many)
            cell.arcs.append((start, end, size, arc))
            balance[start].append((arc, 1.0))
            balance[end].append((arc, -1.0))
            if size:
                self._slots[cell.place, ("mixed", offer.family, size)].append((arc, 1.0))
        balance[0].append((column, -1.0))
        balance[offer.region_gb].append((column, 1.0))
        for _stop, terms in sorted(balance.items()):
            self.program.row(terms, 0, 0)

    def _profile(self, gpu: _fleet.Gpu, name: str) -> _cells.Slot:
        kind = gpu.offer.kind(name)
        if kind is None or kind.mig:
            return ("type", gpu.offer.family, name)
        return ("size", gpu.offer.family, kind.size_gb)

    def _profile_of(self, gpu: _fleet.Gpu, slot: _cells.Slot) -> _cells.Slot:
        return self._profile(gpu, slot[1]) if slot[0] == "type" else ("size", slot[1], slot[2])

    # serves

    def served_types(self, slot: _cells.Slot) -> frozenset[str]:
        """The types that fit a slot."""
        if slot[0] == "type":
            return frozenset({slot[1]})
        if not hasattr(self, "_served_types"):
            self._served_types: dict[_cells.Slot, frozenset[str]] = {}
            self._offers = {gpu.offer.family: gpu.offer for gpu in self.open}
        if slot not in self._served_types:
            most = slot[3] if slot[0] == "size" else 0
            kinds = self._offers[slot[1]].kinds
            self._served_types[slot] = frozenset(
                kind.name for kind in kinds if not kind.mig and kind.size_gb == slot[2] and kind.most >= most
            )
        return self._served_types[slot]

    def type_for(self, group: _demand_classes.Group, slot: _cells.Slot) -> str:
        """The type that a demand gets in a slot."""
        return min(group.accepts & self.served_types(slot))

    def _make_serves(self) -> None:
        """Columns from each demand class to what may serve it. Without anti-affinity the node does not matter: one column per region."""
        by_region: dict[int, dict[_cells.Slot, list[str]]] = collections.defaultdict(lambda: collections.defaultdict(list))
        for (node, region), slot in sorted(self._slots, key=str):
            by_region[region][slot].append(node)
        for group in self.groups:
            for region, slots in by_region.items():
                if group.scope in self.members[region]:
                    self._serve(group, region, slots)
            group.unserved = self.program.column(group.count, integer=False)
            self.program.row([(column, 1.0) for _place, _slot, column in group.serves] + [(group.unserved, 1.0)], group.count, group.count)
        for name, group in sorted(self.moved.items()):
            for region, slots in by_region.items():
                self._serve(group, region, slots)
            needs = [
                (choice.column, -float(cell.gpus[0].held().get(name, 0)))
                for cell in self.cells
                if cell.gpus[0].held().get(name)
                for choice in cell.choices
                if choice.changed
            ]
            self.program.row([(column, 1.0) for _place, _slot, column in group.serves] + needs, 0, 0)
        self._limit_slots(by_region)

    def _serve(self, group: _demand_classes.Group, region: int, slots: dict[_cells.Slot, list[str]]) -> None:
        for slot, nodes in slots.items():
            if not group.accepts & self.served_types(slot):
                continue
            for node in nodes if group.spread is not None else ("*",):
                column = self.program.column(integer=False)
                group.serves.append(((node, region), slot, column))
                self._taken[(node, region), slot].append((column, 1.0))

    def _limit_slots(self, by_region: dict[int, dict[_cells.Slot, list[str]]]) -> None:
        for region, slots in by_region.items():
            for slot, nodes in slots.items():
                everywhere = list(self._taken.get((("*", region), slot), []))
                made: list[tuple[int, float]] = []
                for node in nodes:
                    here = self._taken.get(((node, region), slot), [])
                    slots_here = [(column, -factor) for column, factor in self._slots[(node, region), slot]]
                    made += slots_here
                    everywhere += here
                    if here and len(nodes) > 1:
                        self.program.row([*here, *slots_here], upper=0)
                if everywhere:
                    self.program.row([*everywhere, *made], upper=0)

    # objectives

    def levels(self) -> list[tuple[str, list[tuple[int, float]]]]:
        """The objectives in order, each with what it sums up. Headroom goes first: serving more never eats it up."""
        first = [("headroom", self.short)] if self.options.headroom != "none" else []
        return [*first, *((name, self._objectives[name]) for name in self.options.objectives)]
