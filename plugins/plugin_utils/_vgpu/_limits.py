# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Rows beyond those of demands and slots: anti-affinity, one type per PCI id where KubeVirt picks by it, and what rounding implies."""

from __future__ import annotations

import collections
import typing as t

if t.TYPE_CHECKING:
    from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _cells, _model


def spread_rows(model: _model.Model) -> None:
    """At most one vGPU of a group per node. Groups with the same members share a row: see ``_spread.deal`` for why that is enough."""
    for spread in model.spreads:
        rows: dict[str, list[tuple[int, float]]] = collections.defaultdict(list)
        for member in spread.members:
            for (node, _region), _slot, column in member.serves:
                rows[node].append((column, 1.0))
        for _node, terms in sorted(rows.items()):
            model.program.row(terms, upper=len(spread.groups))


def vfio_rows(model: _model.Model) -> None:
    """KubeVirt picks vendor VFIO functions by PCI id: one type per id and pool."""
    types: dict[tuple[str, str], dict[str, int]] = collections.defaultdict(dict)
    stays: dict[tuple[str, str], set[str]] = collections.defaultdict(set)
    kept = set()
    for cell in model.cells:
        gpu = cell.gpus[0]
        if gpu.vfio_pool is None:
            continue
        pool = (gpu.vfio_pool, gpu.vendor_device)
        known = types[pool]
        stays[pool] |= set(gpu.held())
        if gpu.mode == "keep" and gpu.present:
            kept.add(pool)
            stays[pool] |= {name for name, _count in gpu.present}
        for choice in cell.choices:
            names = [name for name, _count in gpu.present or ()] if choice.name == "keep" else [slot[1] for slot in choice.slots]
            for name in names:
                if name not in known:
                    known[name] = model.program.column(1)
                model.program.row([(choice.column, 1.0), (known[name], -float(len(cell.gpus)))], upper=0)
    for pool, columns in types.items():
        model.program.row([(column, 1.0) for column in columns.values()], upper=1)
        # What must not change has decided; of several types the plan says that VMs can get any.
        if pool in kept and len(stays[pool]) == 1:
            model.program.row([(columns[next(iter(stays[pool]))], 1.0)], lower=1)


def rounded_rows(model: _model.Model) -> None:
    """Rows that cut off fractions of GPUs and no plan: mixed-integer rounding of "demands <= most * GPUs".

    Where all demands on a kind of slot in a scope are D, and a GPU has m such slots, the last GPU that it takes to serve all of them serves only
    what is left over, r = D - m * (ceil(D/m) - 1): so served <= D - r * (ceil(D/m) - GPUs). What is free on GPUs that are kept comes on top.
    """
    regions = [sum(1 << region for region, members in enumerate(model.members) if scope in members) for scope in range(len(model.scopes))]
    cells: dict[_cells.Slot, list[tuple[int, int]]] = collections.defaultdict(list)
    kept: dict[_cells.Slot, list[tuple[int, tuple[int, float]]]] = collections.defaultdict(list)
    for cell in model.cells:
        for choice in cell.choices:
            if choice.name == "equal":
                cells[next(iter(choice.slots))].append((1 << cell.place[1], choice.column))
            elif choice.name == "keep":
                for slot, free in choice.slots.items():
                    kept[slot].append((1 << cell.place[1], (choice.column, -float(free))))
    for slot, columns in sorted(cells.items(), key=str):
        served = model.served_types(slot)
        takers = [(regions[group.scope], group) for group in model.groups if group.accepts & served]
        most = slot[3] if slot[0] == "size" else _most_of(model, slot[1])
        for within in sorted({mask for mask, _group in takers}):
            inside = [group for mask, group in takers if not mask & ~within]
            demand = sum(group.count for group in inside)
            gpus = -(-demand // most)
            rest = demand - most * (gpus - 1)
            terms = [(column, 1.0) for group in inside for _place, kind, column in group.serves if kind == slot]
            made = [(column, -float(rest)) for mask, column in columns if mask & within]
            if terms and made and rest < most and gpus <= sum(len(cell.gpus) for cell in model.cells if 1 << cell.place[1] & within):
                besides = [term for mask, term in kept[slot] if mask & within]
                model.program.row([*terms, *made, *besides], upper=demand - rest * gpus)


def _most_of(model: _model.Model, name: str) -> int:
    return max(kind.most for gpu in model.open for kind in gpu.offer.kinds if kind.name == name)
