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

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _covers, _fleet, _solve

OBJECTIVES = ("unserved", "disturbed", "gpus", "nodes", "profiles")

#: ("size", family, GB, most on a GPU) | ("mixed", family, GB) | ("type", name)
Slot = tuple[t.Any, ...]
#: Node where it matters, else "", and the number of the set of demands whose scope the GPU is in.
Place = tuple[str, int]


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


@dataclasses.dataclass
class Choice:
    """One thing that GPUs of a cell can become: ``slots`` on each, and the column that counts how many do."""

    name: str
    slots: dict[Slot, int]
    column: int
    changed: bool
    used: bool
    profiles: tuple[Slot, ...] = ()


@dataclasses.dataclass
class Cell:
    gpus: list[_fleet.Gpu]
    place: Place
    choices: list[Choice]
    #: Mixed sizes: (from, to, GB or 0 where nothing lies) and its column.
    arcs: list[tuple[int, int, int, int]] = dataclasses.field(default_factory=list)

    @property
    def vms(self) -> int:
        return len({holding.vm for holding in self.gpus[0].holdings})


@dataclasses.dataclass
class Group:
    """Demands that are the same to the program. ``spread`` numbers the class of anti-affinity groups that they are members of."""

    accepts: frozenset[str]
    scope: int
    spread: int | None
    demands: list[_fleet.Demand]
    count: int
    unserved: int = -1
    serves: list[tuple[Place, Slot, int]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Spread:
    """Anti-affinity groups with the same members: their names, and which demand classes with how many vGPUs each has."""

    groups: list[str]
    members: list[Group]


class Model:
    """Built once; columns and rows are in ``program``, what they mean in the rest."""

    def __init__(self, fleet: _fleet.Fleet, options: Options) -> None:
        self.fleet = fleet
        self.options = options
        self.program = _solve.Program()
        self.open = [gpu for gpu in fleet.gpus if gpu.mode != "exclude"]
        self.scopes: list[frozenset[str]] = sorted({demand.scope for demand in fleet.demands}, key=sorted)
        self.groups: list[Group] = []
        self.spreads: list[Spread] = []
        self.moved: dict[str, Group] = {}
        self.cells: list[Cell] = []
        self._slots: dict[tuple[Place, Slot], list[tuple[int, float]]] = collections.defaultdict(list)
        self._taken: dict[tuple[Place, Slot], list[tuple[int, float]]] = collections.defaultdict(list)
        self._short: list[tuple[int, float]] = []
        self._group_demands()
        self._make_cells()
        self._make_serves()
        self._limit_spread()
        self._limit_vfio()
        self._tighten()
        if len(self.open) < _covers.LARGE:
            for terms, least in list(_covers.rows(self, self._slots)):
                self.program.row(terms, lower=least)
        if options.headroom != "none":
            self._keep_headroom()
        self._objectives = {name: self._objective(name) for name in options.objectives}

    # demands

    def _group_demands(self) -> None:
        number = {scope: index for index, scope in enumerate(self.scopes)}
        plain: dict[tuple[tuple[str, ...], int], list[_fleet.Demand]] = collections.defaultdict(list)
        spread: dict[str, list[_fleet.Demand]] = collections.defaultdict(list)
        for demand in self.fleet.demands:
            if demand.spread is None:
                plain[tuple(sorted(demand.accepts)), number[demand.scope]].append(demand)
            else:
                spread[demand.spread].append(demand)
        for (accepts, scope), demands in sorted(plain.items()):
            self.groups.append(Group(frozenset(accepts), scope, None, demands, sum(demand.count for demand in demands)))
        alike: dict[tuple[tuple[tuple[tuple[str, ...], int], int], ...], list[str]] = collections.defaultdict(list)
        for name, demands in sorted(spread.items()):
            members: dict[tuple[tuple[str, ...], int], int] = collections.Counter()
            for demand in demands:
                members[tuple(sorted(demand.accepts)), number[demand.scope]] += demand.count
            alike[tuple(sorted(members.items()))].append(name)
        for composition, names in sorted(alike.items()):
            group = Spread(names, [])
            for (accepts, scope), count in composition:
                demands = [
                    demand
                    for name in names
                    for demand in spread[name]
                    if tuple(sorted(demand.accepts)) == accepts and number[demand.scope] == scope
                ]
                group.members.append(Group(frozenset(accepts), scope, len(self.spreads), demands, count * len(names)))
            self.spreads.append(group)
            self.groups.extend(group.members)

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
            self.moved[name] = Group(frozenset({name}), -1, None, [], 0)

    def _may_change(self, gpu: _fleet.Gpu) -> bool:
        return gpu.mode in ("equal", "mixed") and (self.options.move_vms or not gpu.holdings)

    def _make_cell(self, gpus: list[_fleet.Gpu], place: Place, wanted: set[str]) -> None:
        gpu, many = gpus[0], len(gpus)
        cell = Cell(gpus, place, [])
        held = gpu.held()

        def choice(name: str, slots: dict[Slot, int], changed: bool, used: bool, profiles: tuple[Slot, ...] = ()) -> None:
            column = self.program.column(many)
            cell.choices.append(Choice(name, slots, column, changed, used, profiles))
            for slot, count in slots.items():
                if count:
                    self._slots[place, slot].append((column, count))

        if gpu.present:
            slots: dict[Slot, int] = {("type", name): count - held.get(name, 0) for name, count in gpu.present}
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

    def _equal_slots(self, gpu: _fleet.Gpu, wanted: set[str]) -> list[tuple[Slot, int]]:
        """One size, or one type, that somebody wants: the slot and how many of it fit."""
        kinds = [kind for kind in gpu.offer.kinds if kind.name in wanted]
        alone = not self.options.mix_series or gpu.vfio_pool is not None or self.options.headroom != "none"
        found: dict[Slot, int] = {("type", kind.name): kind.most for kind in kinds if kind.mig or alone}
        if not alone:
            sizes: dict[frozenset[str], Slot] = {}
            for kind in sorted((kind for kind in kinds if not kind.mig), key=lambda kind: -kind.most):
                # Types of one size can have different maxima (RTX8000P-4C: 8, -4Q: 12); together they have the least.
                served = frozenset(
                    other.name for other in kinds if not other.mig and other.size_gb == kind.size_gb and other.most >= kind.most
                )
                sizes.setdefault(served, ("size", gpu.offer.family, kind.size_gb, kind.most))
            found.update({slot: slot[3] for slot in sizes.values()})
        return sorted(found.items(), key=str)

    def _make_mixed(self, cell: Cell, wanted: set[str]) -> None:
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
            Choice("mixed", {}, column, changed=True, used=True, profiles=tuple(("mixed", offer.family, size) for size in sizes))
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

    def _profile(self, gpu: _fleet.Gpu, name: str) -> Slot:
        kind = gpu.offer.kind(name)
        if kind is None or kind.mig:
            return ("type", gpu.offer.family, name)
        return ("size", gpu.offer.family, kind.size_gb)

    def _profile_of(self, gpu: _fleet.Gpu, slot: Slot) -> Slot:
        return self._profile(gpu, slot[1]) if slot[0] == "type" else ("size", slot[1], slot[2])

    # serves

    def served_types(self, slot: Slot) -> frozenset[str]:
        """The types that fit a slot."""
        if slot[0] == "type":
            return frozenset({slot[1]})
        if not hasattr(self, "_served_types"):
            self._served_types: dict[Slot, frozenset[str]] = {}
            self._offers = {gpu.offer.family: gpu.offer for gpu in self.open}
        if slot not in self._served_types:
            most = slot[3] if slot[0] == "size" else 0
            kinds = self._offers[slot[1]].kinds
            self._served_types[slot] = frozenset(
                kind.name for kind in kinds if not kind.mig and kind.size_gb == slot[2] and kind.most >= most
            )
        return self._served_types[slot]

    def type_for(self, group: Group, slot: Slot) -> str:
        """The type that a demand gets in a slot."""
        return min(group.accepts & self.served_types(slot))

    def _make_serves(self) -> None:
        """Columns from each demand class to what may serve it. Without anti-affinity the node does not matter: one column per region."""
        by_region: dict[int, dict[Slot, list[str]]] = collections.defaultdict(lambda: collections.defaultdict(list))
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

    def _serve(self, group: Group, region: int, slots: dict[Slot, list[str]]) -> None:
        for slot, nodes in slots.items():
            if not group.accepts & self.served_types(slot):
                continue
            for node in nodes if group.spread is not None else ("*",):
                column = self.program.column(integer=False)
                group.serves.append(((node, region), slot, column))
                self._taken[(node, region), slot].append((column, 1.0))

    def _limit_slots(self, by_region: dict[int, dict[Slot, list[str]]]) -> None:
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

    def _limit_spread(self) -> None:
        """At most one vGPU of a group per node. Groups with the same members share a row: see ``_spread.deal`` for why that is enough."""
        for spread in self.spreads:
            rows: dict[str, list[tuple[int, float]]] = collections.defaultdict(list)
            for member in spread.members:
                for (node, _region), _slot, column in member.serves:
                    rows[node].append((column, 1.0))
            for _node, terms in sorted(rows.items()):
                self.program.row(terms, upper=len(spread.groups))

    def _limit_vfio(self) -> None:
        """KubeVirt picks vendor VFIO functions by PCI id: one type per id and pool."""
        types: dict[tuple[str, str], dict[str, int]] = collections.defaultdict(dict)
        for cell in self.cells:
            gpu = cell.gpus[0]
            if gpu.vfio_pool is None:
                continue
            known = types[gpu.vfio_pool, gpu.vendor_device]
            for choice in cell.choices:
                names = [name for name, _count in gpu.present or ()] if choice.name == "keep" else [slot[1] for slot in choice.slots]
                for name in names:
                    if name not in known:
                        known[name] = self.program.column(1)
                    self.program.row([(choice.column, 1.0), (known[name], -float(len(cell.gpus)))], upper=0)
        for columns in types.values():
            self.program.row([(column, 1.0) for column in columns.values()], upper=1)

    def _tighten(self) -> None:
        """Rows that cut off fractions of GPUs and no plan: mixed-integer rounding of "demands <= most * GPUs".

        Where all demands on a kind of slot in a scope are D, and a GPU has m such slots, the last GPU that it takes to serve all of them serves only
        what is left over, r = D - m * (ceil(D/m) - 1): so served <= D - r * (ceil(D/m) - GPUs).
        """
        regions = [sum(1 << region for region, members in enumerate(self.members) if scope in members) for scope in range(len(self.scopes))]
        cells: dict[Slot, list[tuple[int, int]]] = collections.defaultdict(list)
        for cell in self.cells:
            for choice in cell.choices:
                if choice.name == "equal":
                    cells[next(iter(choice.slots))].append((1 << cell.place[1], choice.column))
        for slot, columns in sorted(cells.items(), key=str):
            served = self.served_types(slot)
            takers = [(regions[group.scope], group) for group in self.groups if group.accepts & served]
            most = slot[3] if slot[0] == "size" else self._most_of(slot[1])
            for within in sorted({mask for mask, _group in takers}):
                inside = [group for mask, group in takers if not mask & ~within]
                demand = sum(group.count for group in inside)
                gpus = -(-demand // most)
                rest = demand - most * (gpus - 1)
                terms = [(column, 1.0) for group in inside for _place, kind, column in group.serves if kind == slot]
                made = [(column, -float(rest)) for mask, column in columns if mask & within]
                if terms and made and rest < most and gpus <= sum(len(cell.gpus) for cell in self.cells if 1 << cell.place[1] & within):
                    self.program.row([*terms, *made], upper=demand - rest * gpus)

    def _most_of(self, name: str) -> int:
        return max(kind.most for gpu in self.open for kind in gpu.offer.kinds if kind.name == name)

    # headroom

    def _keep_headroom(self) -> None:
        """As many idle vGPUs of a type as any one GPU (or node) has of it, in the fleet and in every set of GPUs that demands are pinned to.

        What a lost unit had busy fits into what is idle elsewhere exactly if what it had made is no more than what is idle everywhere.
        """
        whole = frozenset(gpu.name for gpu in self.open)
        scopes: dict[frozenset[str], set[str]] = {whole: {name for cell in self.cells for name in cell.gpus[0].held()}}
        for group in self.groups:
            scopes.setdefault(self.scopes[group.scope], set()).update(group.accepts)
            scopes[whole] |= group.accepts
        for scope, names in sorted(scopes.items(), key=lambda entry: sorted(entry[0])):
            cells = [cell for cell in self.cells if cell.gpus[0].name in scope]
            if len({gpu.node if self.options.headroom == "node" else gpu.name for cell in cells for gpu in cell.gpus}) < 2:
                continue
            for name in sorted(names):
                self._keep_idle(name, cells)

    def _keep_idle(self, name: str, cells: list[Cell]) -> None:
        made = [(cell, choice, self._made(cell, choice, name)) for cell in cells for choice in cell.choices]
        made = [entry for entry in made if entry[2]]
        if not made:
            return
        regions = {cell.place[1] for cell in cells}
        idle: list[tuple[int, float]] = [(choice.column, float(choice.slots[("type", name)])) for _cell, choice, _count in made]
        groups = [*self.groups, *([self.moved[name]] if name in self.moved else [])]
        idle += [
            (column, -1.0)
            for group in groups
            for (_node, region), slot, column in group.serves
            if slot == ("type", name) and region in regions
        ]
        short = self.program.column(integer=False)
        self._short.append((short, 1.0))
        if self.options.headroom == "node":
            nodes: dict[str, list[tuple[int, float]]] = collections.defaultdict(list)
            for cell, choice, count in made:
                nodes[cell.gpus[0].node].append((choice.column, float(count)))
            for _node, terms in sorted(nodes.items()):
                self.program.row([*idle, (short, 1.0), *((column, -factor) for column, factor in terms)], lower=0)
            return
        for level in sorted({count for _cell, _choice, count in made}):
            some = self.program.column(1)
            for cell, choice, count in made:
                if count == level:
                    self.program.row([(choice.column, 1.0), (some, -float(len(cell.gpus)))], upper=0)
            self.program.row([*idle, (short, 1.0), (some, -float(level))], lower=0)

    def _made(self, cell: Cell, choice: Choice, name: str) -> int:
        if choice.name == "keep":
            return dict(cell.gpus[0].present or ()).get(name, 0)
        return choice.slots.get(("type", name), 0)

    # objectives

    def levels(self) -> list[tuple[str, list[tuple[int, float]]]]:
        """The objectives in order, each with what it sums up. Headroom goes first: serving more never eats it up."""
        first = [("headroom", self._short)] if self.options.headroom != "none" else []
        return [*first, *((name, self._objectives[name]) for name in self.options.objectives)]

    def _objective(self, name: str) -> list[tuple[int, float]]:
        if name == "unserved":
            return [(group.unserved, 1.0) for group in self.groups]
        choices = [(cell, choice) for cell in self.cells for choice in cell.choices]
        if name == "disturbed" and self.options.disturbs == "gpu":
            return [(choice.column, float(cell.vms)) for cell, choice in choices if choice.changed and cell.vms]
        if name == "gpus":
            return [(choice.column, 1.0) for _cell, choice in choices if choice.used]
        if name == "profiles":
            return self._count_profiles()
        switches: dict[str, int] = {}
        for cell, choice in choices:
            if choice.changed if name == "disturbed" else choice.used:
                column = switches.get(cell.place[0])
                if column is None:
                    column = switches[cell.place[0]] = self.program.column(1)
                self.program.row([(choice.column, 1.0), (column, -float(len(cell.gpus)))], upper=0)
        weights: dict[str, set[str]] = collections.defaultdict(set)
        for gpu in self.fleet.gpus:
            weights[gpu.node] |= {holding.vm for holding in gpu.holdings}
        return [(column, float(len(weights[node])) if name == "disturbed" else 1.0) for node, column in sorted(switches.items())]

    def _count_profiles(self) -> list[tuple[int, float]]:
        """One for each size or MIG type that some GPU model is made into."""
        switches: dict[Slot, int] = {}

        def on(profile: Slot, column: int, many: int) -> None:
            if profile not in switches:
                switches[profile] = self.program.column(1)
            self.program.row([(column, 1.0), (switches[profile], -float(many))], upper=0)

        for cell in self.cells:
            for choice in cell.choices:
                if choice.name != "mixed":
                    for profile in choice.profiles:
                        on(profile, choice.column, len(cell.gpus))
            for _start, _end, size, arc in cell.arcs:
                if size:
                    on(("size", cell.gpus[0].offer.family, size), arc, len(cell.gpus))
        return [(column, 1.0) for _profile, column in sorted(switches.items(), key=str)]
