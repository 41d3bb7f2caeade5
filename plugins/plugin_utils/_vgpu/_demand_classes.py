# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Demand classes and anti-affinity groups: which demands the program need not tell apart."""

from __future__ import annotations

import collections
import dataclasses
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _cells, _fleet

if t.TYPE_CHECKING:
    from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _model


@dataclasses.dataclass
class Group:
    """Demands that are the same to the program. ``spread`` numbers the class of anti-affinity groups that they are members of."""

    accepts: frozenset[str]
    scope: int
    spread: int | None
    demands: list[_fleet.Demand]
    count: int
    unserved: int = -1
    serves: list[tuple[_cells.Place, _cells.Slot, int]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Spread:
    """Anti-affinity groups with the same members: their names, and which demand classes with how many vGPUs each has."""

    groups: list[str]
    members: list[Group]


def group(model: _model.Model) -> None:
    """Demands that are the same to the program become one class of it; anti-affinity groups with the same members, one ``Spread``."""
    number = {scope: index for index, scope in enumerate(model.scopes)}
    plain: dict[tuple[tuple[str, ...], int], list[_fleet.Demand]] = collections.defaultdict(list)
    spread: dict[str, list[_fleet.Demand]] = collections.defaultdict(list)
    for demand in model.fleet.demands:
        if demand.spread is None:
            plain[tuple(sorted(demand.accepts)), number[demand.scope]].append(demand)
        else:
            spread[demand.spread].append(demand)
    for (accepts, scope), demands in sorted(plain.items()):
        model.groups.append(Group(frozenset(accepts), scope, None, demands, sum(demand.count for demand in demands)))
    alike: dict[tuple[tuple[tuple[tuple[str, ...], int], int], ...], list[str]] = collections.defaultdict(list)
    for name, demands in sorted(spread.items()):
        members: dict[tuple[tuple[str, ...], int], int] = collections.Counter()
        for demand in demands:
            members[tuple(sorted(demand.accepts)), number[demand.scope]] += demand.count
        alike[tuple(sorted(members.items()))].append(name)
    for composition, names in sorted(alike.items()):
        alike_groups = Spread(names, [])
        for (accepts, scope), count in composition:
            demands = [
                demand
                for name in names
                for demand in spread[name]
                if tuple(sorted(demand.accepts)) == accepts and number[demand.scope] == scope
            ]
            alike_groups.members.append(Group(frozenset(accepts), scope, len(model.spreads), demands, count * len(names)))
        model.spreads.append(alike_groups)
        model.groups.extend(alike_groups.members)
