# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Cells, GPUs that are the same to the plan, and what each of them can become."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _fleet

#: ("size", family, GB, most on a GPU) | ("mixed", family, GB) | ("type", name)
Slot = tuple[t.Any, ...]
#: Node where it matters, else "", and the number of the set of demands whose scope the GPU is in.
Place = tuple[str, int]


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
