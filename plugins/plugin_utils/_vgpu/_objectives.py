# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What each objective sums up, with the columns that count nodes and profiles."""

from __future__ import annotations

import collections
import typing as t

if t.TYPE_CHECKING:
    from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _cells, _model


def terms(model: _model.Model, name: str) -> list[tuple[int, float]]:
    """(column, factor) of an objective. Its counting columns are made here, so it is asked for once."""
    if name == "unserved":
        return [(group.unserved, 1.0) for group in model.groups]
    choices = [(cell, choice) for cell in model.cells for choice in cell.choices]
    if name == "disturbed" and model.options.disturbs == "gpu":
        return [(choice.column, float(cell.vms)) for cell, choice in choices if choice.changed and cell.vms]
    if name == "gpus":
        return [(choice.column, 1.0) for _cell, choice in choices if choice.used]
    if name == "profiles":
        return _count_profiles(model)
    switches: dict[str, int] = {}
    for cell, choice in choices:
        if choice.changed if name == "disturbed" else choice.used:
            column = switches.get(cell.place[0])
            if column is None:
                column = switches[cell.place[0]] = model.program.column(1)
            model.program.row([(choice.column, 1.0), (column, -float(len(cell.gpus)))], upper=0)
    weights: dict[str, set[str]] = collections.defaultdict(set)
    for gpu in model.fleet.gpus:
        weights[gpu.node] |= {holding.vm for holding in gpu.holdings}
    return [(column, float(len(weights[node])) if name == "disturbed" else 1.0) for node, column in sorted(switches.items())]


def _count_profiles(model: _model.Model) -> list[tuple[int, float]]:
    """One for each size or MIG type that some GPU model is made into."""
    switches: dict[_cells.Slot, int] = {}

    def on(profile: _cells.Slot, column: int, many: int) -> None:
        if profile not in switches:
            switches[profile] = model.program.column(1)
        model.program.row([(column, 1.0), (switches[profile], -float(many))], upper=0)

    for cell in model.cells:
        for choice in cell.choices:
            if choice.name != "mixed":
                for profile in choice.profiles:
                    on(profile, choice.column, len(cell.gpus))
        for _start, _end, size, arc in cell.arcs:
            if size:
                on(("size", cell.gpus[0].offer.family, size), arc, len(cell.gpus))
    return [(column, 1.0) for _profile, column in sorted(switches.items(), key=str)]
