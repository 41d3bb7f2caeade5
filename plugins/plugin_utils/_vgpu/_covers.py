# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Rows that say of whole classes of demands what all their serves together imply. They cut off no plan; the solver makes its cuts of them.

Whoever is not served of a class, and all slots that could serve one of it, are together at least the class. Every column in that is whole, so that it
can be rounded, where the network of serves between demands and slots hides it: fractions of GPUs elsewhere fill each single row.
"""

from __future__ import annotations

import typing as t

if t.TYPE_CHECKING:
    from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _cells, _model

#: GPUs from which on these rows are so long that they cost more than they bring: of 1 000 GPUs the first level was not proven with them.
LARGE = 200

Term = tuple[int, float]


def rows(model: _model.Model, slots: t.Mapping[tuple[_cells.Place, _cells.Slot], list[Term]]) -> t.Iterator[tuple[list[Term], int]]:
    """(terms, their least sum), for the demands of each set of types and scope. ``slots`` are the columns that make each kind of slot, by place."""
    regions = [sum(1 << region for region, members in enumerate(model.members) if scope in members) for scope in range(len(model.scopes))]
    everywhere = (1 << len(model.members)) - 1
    made = [(1 << place[1], model.served_types(slot), terms) for (place, slot), terms in sorted(slots.items(), key=str)]
    accepted = {group.accepts for group in model.groups} | {group.accepts for group in model.moved.values()}
    seen: set[tuple[int, ...]] = set()
    for types in sorted(accepted, key=sorted):
        fitting = [(number, group) for number, group in enumerate(model.groups) if group.accepts <= types]
        for within in sorted({everywhere, *(regions[group.scope] for _number, group in fitting)}, reverse=True):
            chosen = [(number, group) for number, group in fitting if not regions[group.scope] & ~within]
            key = tuple(number for number, _group in chosen)
            if not chosen or key in seen:
                continue
            seen.add(key)
            wanted = frozenset().union(*(group.accepts for _number, group in chosen))
            terms = [(group.unserved, 1.0) for _number, group in chosen]
            for region, served, columns in made:
                if region & within and not served.isdisjoint(wanted):
                    terms += columns
            if within == everywhere:
                terms += _moved(model, wanted)
            yield terms, sum(group.count for _number, group in chosen)


def _moved(model: _model.Model, types: frozenset[str]) -> t.Iterator[Term]:
    """What VMs whose GPU changes take of the slots: they may go anywhere, so that only a row over all regions knows."""
    for cell in model.cells:
        taken = sum(count for name, count in cell.gpus[0].held().items() if name in types)
        if taken:
            yield from ((choice.column, -float(taken)) for choice in cell.choices if choice.changed)
