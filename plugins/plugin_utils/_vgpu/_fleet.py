# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A fleet and the demands on it, as the planner sees them."""

from __future__ import annotations

import dataclasses

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _offers

MODES = ("equal", "mixed", "keep", "exclude")
SERIES = ("A", "B", "C", "Q")


@dataclasses.dataclass(frozen=True)
class Holding:
    """A running VM's vGPUs of one type on one GPU."""

    vm: str
    type: str
    count: int


@dataclasses.dataclass(frozen=True)
class Gpu:
    """One GPU. ``present`` is what is made on it now, or None if nobody knows; ``mode`` is what the planner may do with it."""

    node: str
    index: int
    address: str | None
    offer: _offers.Offer
    vendor_device: str
    subsystem: str | None
    mode: str
    present: tuple[tuple[str, int], ...] | None
    holdings: tuple[Holding, ...]
    #: The cluster pool in which KubeVirt picks virtual functions by PCI id, or None on the mdev backend.
    vfio_pool: str | None

    @property
    def name(self) -> str:
        return f"{self.node}/{self.index}"

    def held(self) -> dict[str, int]:
        held: dict[str, int] = {}
        for holding in self.holdings:
            held[holding.type] = held.get(holding.type, 0) + holding.count
        return held


@dataclasses.dataclass(frozen=True)
class Demand:
    """``count`` vGPUs of any of the types ``accepts`` on the GPUs ``scope``; two of one ``spread`` group never on one node."""

    name: str
    wish: str
    count: int
    accepts: frozenset[str]
    scope: frozenset[str]
    spread: str | None


@dataclasses.dataclass(frozen=True)
class Fleet:
    gpus: tuple[Gpu, ...]
    demands: tuple[Demand, ...]
