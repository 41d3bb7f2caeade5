# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Which anti-affinity group gets which vGPU, once it is known how many each node gives to groups with the same members."""

from __future__ import annotations

import typing as t


def deal(places: t.Sequence[tuple[str, int]], groups: int, members: t.Sequence[int]) -> list[int]:
    """Groups for places.

    ``places`` are (node, member) of vGPUs, ``members`` says how many vGPUs of each member one group has. No node has more than ``groups`` places,
    no member more than ``groups`` times its number; then there is always an answer: one group per place, none twice on a node, and none with more of
    a member than it has. It is an edge colouring of a bipartite graph (Koenig), with each member split into as many vertices as it has vGPUs.
    """
    dealt = [-1] * len(places)
    tables: dict[tuple[str, t.Any], dict[int, int]] = {}
    ends: list[tuple[tuple[str, t.Any], tuple[str, t.Any]]] = []
    seen = [0] * len(members)
    for node, member in places:
        ends.append((("node", node), ("member", (member, seen[member] // groups))))
        seen[member] += 1
    for edge, (left, right) in enumerate(ends):
        at_left, at_right = tables.setdefault(left, {}), tables.setdefault(right, {})
        here = next(group for group in range(groups) if group not in at_left)
        there = next(group for group in range(groups) if group not in at_right)
        if here in at_right:
            _swap(tables, ends, dealt, right, here, there)
        dealt[edge] = here
        at_left[here] = at_right[here] = edge
    return dealt


def _swap(
    tables: dict[tuple[str, t.Any], dict[int, int]],
    ends: list[tuple[tuple[str, t.Any], tuple[str, t.Any]]],
    dealt: list[int],
    vertex: tuple[str, t.Any],
    have: int,
    want: int,
) -> None:
    """Exchange two groups along the path that leaves ``vertex`` by ``have``, so that ``have`` becomes free there."""
    path = []
    group = have
    while group in tables[vertex]:
        edge = tables[vertex][group]
        path.append(edge)
        left, right = ends[edge]
        vertex = right if vertex == left else left
        group = want if group == have else have
    for edge in path:
        for end in ends[edge]:
            tables[end].pop(dealt[edge], None)
    for edge in path:
        dealt[edge] = want if dealt[edge] == have else have
        for end in ends[edge]:
            tables[end][dealt[edge]] = edge
