# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Rows that keep idle vGPUs for the loss of a GPU or a node."""

from __future__ import annotations

import collections
import typing as t

if t.TYPE_CHECKING:
    from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _cells, _model


def keep(model: _model.Model) -> None:
    """As many idle vGPUs of a type as any one GPU (or node) has of it, in the fleet and in every set of GPUs that demands are pinned to.

    What a lost unit had busy fits into what is idle elsewhere exactly if what it had made is no more than what is idle everywhere.
    """
    whole = frozenset(gpu.name for gpu in model.open)
    scopes: dict[frozenset[str], set[str]] = {whole: {name for cell in model.cells for name in cell.gpus[0].held()}}
    for group in model.groups:
        scopes.setdefault(model.scopes[group.scope], set()).update(group.accepts)
        scopes[whole] |= group.accepts
    for scope, names in sorted(scopes.items(), key=lambda entry: sorted(entry[0])):
        cells = [cell for cell in model.cells if cell.gpus[0].name in scope]
        if len({gpu.node if model.options.headroom == "node" else gpu.name for cell in cells for gpu in cell.gpus}) < 2:
            continue
        for name in sorted(names):
            _keep_idle(model, name, cells)


def _keep_idle(model: _model.Model, name: str, cells: list[_cells.Cell]) -> None:
    made = [(cell, choice, _made(cell, choice, name)) for cell in cells for choice in cell.choices]
    made = [entry for entry in made if entry[2]]
    if not made:
        return
    regions = {cell.place[1] for cell in cells}
    idle: list[tuple[int, float]] = [(choice.column, float(choice.slots[("type", name)])) for _cell, choice, _count in made]
    groups = [*model.groups, *([model.moved[name]] if name in model.moved else [])]
    idle += [
        (column, -1.0) for group in groups for (_node, region), slot, column in group.serves if slot == ("type", name) and region in regions
    ]
    short = model.program.column(integer=False)
    model.short.append((short, 1.0))
    if model.options.headroom == "node":
        nodes: dict[str, list[tuple[int, float]]] = collections.defaultdict(list)
        for cell, choice, count in made:
            nodes[cell.gpus[0].node].append((choice.column, float(count)))
        for _node, terms in sorted(nodes.items()):
            model.program.row([*idle, (short, 1.0), *((column, -factor) for column, factor in terms)], lower=0)
        return
    for level in sorted({count for _cell, _choice, count in made}):
        some = model.program.column(1)
        for cell, choice, count in made:
            if count == level:
                model.program.row([(choice.column, 1.0), (some, -float(len(cell.gpus)))], upper=0)
        model.program.row([*idle, (short, 1.0), (some, -float(level))], lower=0)


def _made(cell: _cells.Cell, choice: _cells.Choice, name: str) -> int:
    if choice.name == "keep":
        return dict(cell.gpus[0].present or ()).get(name, 0)
    return choice.slots.get(("type", name), 0)
