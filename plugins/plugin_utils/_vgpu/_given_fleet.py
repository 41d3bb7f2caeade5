# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A fleet and the demands on it, read from what ``vgpu_plan`` is given."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _fleet, _given_demands, _given_nodes


def read(fleet: t.Any, demands: t.Any, right_size: bool = False) -> _fleet.Fleet:
    """The fleet and demands of ``vgpu_plan`` (shapes in its documentation), sorted, so that their order never matters. ValueError if wrong."""
    gpus, labels = _given_nodes.nodes(fleet)
    if not gpus:
        raise ValueError("fleet: none of its nodes has a GPU; list them under gpus")
    if not isinstance(demands, list):
        raise ValueError(f"demands: a list is needed, not {demands!r}")
    models = {gpu.offer.family: gpu.offer for gpu in gpus}
    offers = _given_demands.Offers(models, {kind.name: kind for offer in models.values() for kind in offer.kinds})
    scopes: _given_demands.Scopes = {}
    found: dict[str, _fleet.Demand] = {}
    for value in demands:
        demand = _given_demands.demand(value, gpus, offers, labels, right_size, scopes)
        if demand.name in found:
            raise ValueError(f"demand {demand.name}: it is there twice; add its counts or name them apart")
        found[demand.name] = demand
    return _fleet.Fleet(tuple(gpus), tuple(found[name] for name in sorted(found)))
