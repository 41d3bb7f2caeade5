# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The demands on a fleet, read from what ``vgpu_plan`` is given."""

from __future__ import annotations

import dataclasses
import re
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _fleet, _given, _offers


@dataclasses.dataclass(frozen=True)
class Offers:
    """The GPU models of a fleet by family code, and all their types by name."""

    models: dict[str, _offers.Offer]
    kinds: dict[str, _offers.Kind]


def _accepted(item: _given.Item, offers: Offers, right_size: bool) -> tuple[str, frozenset[str]]:
    """What would serve a demand, by name, and how the demand is put."""
    kinds = offers.kinds
    named = item.optional("type")
    if named:
        if "size_gb" in item.value or "series" in item.value:
            item.wrong("give either type, or size_gb and series")
        if named not in kinds:
            why = "no GPU of this fleet has it" if named in _offers.every_type() else "no GPU has it"
            item.wrong(f"type {named}: {why}; nearest: {_offers.nearest(named, kinds)}")
        wanted = kinds[named]
        families = [offer for offer in offers.models.values() if offer.kind(named)]
        more = [] if wanted.mig or not right_size else [kind for offer in families for kind in offer.kinds]
        larger = {kind.name for kind in more if not kind.mig and kind.series == wanted.series and kind.size_gb >= wanted.size_gb}
        return named, frozenset(larger | {named})
    size, series = item.whole("size_gb", 0), item.choice("series", _fleet.SERIES, "")
    sizes = sorted({kind.size_gb for kind in kinds.values() if kind.series == series and not kind.mig})
    if size not in sizes and not (right_size and sizes and size < sizes[-1]):
        have = f"series {series} has {', '.join(map(str, sizes))} GB here" if sizes else f"no GPU of this fleet has series {series}"
        close = f"; nearest: {min(sizes, key=lambda known: (abs(known - size), known))}" if sizes else ""
        item.wrong(f"no GPU of this fleet has {size} GB of series {series}; {have}{close}")
    fit = {
        kind.name
        for kind in kinds.values()
        if not kind.mig and kind.series == series and (kind.size_gb == size or (right_size and kind.size_gb > size))
    }
    return f"{size}{series}", frozenset(fit)


_DEMAND_KEYS = ("name", "type", "size_gb", "series", "count", "nodes", "gpus", "node_labels", "exclude_nodes", "spread")


def _scope(item: _given.Item, gpus: list[_fleet.Gpu], labels: dict[str, dict[str, str]]) -> list[_fleet.Gpu]:
    """The GPUs that the demand's pins and exclusions leave."""
    for key in ("nodes", "exclude_nodes"):
        for name in item.words(key):
            if name not in labels:
                item.wrong(f"{key}: the fleet has no node {name!r}; nearest: {_offers.nearest(name, labels)}")
    names = {gpu.name for gpu in gpus}
    for name in item.words("gpus"):
        if not re.fullmatch(r".+/[0-9]+", name) or name not in names:
            item.wrong(f"gpus: the fleet has no GPU {name!r}, put as NODE/INDEX; nearest: {_offers.nearest(name, names)}")
    wanted = {str(key): str(value) for key, value in (item.mapping("node_labels") or {}).items()}
    pinned, pinned_gpus, left_out = item.words("nodes"), item.words("gpus"), item.words("exclude_nodes")
    found = [
        gpu
        for gpu in gpus
        if (not pinned or gpu.node in pinned)
        and (not pinned_gpus or gpu.name in pinned_gpus)
        and gpu.node not in left_out
        and wanted.items() <= labels[gpu.node].items()
    ]
    if not found:
        known = sorted({f"{key}={value}" for given in labels.values() for key, value in given.items() if key in wanted})
        hint = f"; nodes have {', '.join(known)}" if wanted and known else ""
        item.wrong(f"its pins and exclusions (nodes, gpus, node_labels, exclude_nodes) contradict each other: no GPU is left{hint}")
    open_ = [gpu for gpu in found if gpu.mode != "exclude"]
    if not open_:
        item.wrong(f"it is pinned to {', '.join(sorted({gpu.name for gpu in found}))}, which the plan excludes; free it or pin elsewhere")
    return open_


#: What pins leave, by wish and pins: most demands share it.
Scopes = dict[tuple[str, ...], frozenset[str]]


def demand(
    value: t.Any, gpus: list[_fleet.Gpu], offers: Offers, labels: dict[str, dict[str, str]], right_size: bool, scopes: Scopes
) -> _fleet.Demand:
    item = _given.Item("demands", value, _DEMAND_KEYS)
    name = item.text("name")
    item.where = f"demand {name}"
    count = item.whole("count", 1, 1)
    wish, accepts = _accepted(item, offers, right_size)
    key = (wish, *(repr(item.value.get(entry)) for entry in ("nodes", "gpus", "node_labels", "exclude_nodes")))
    if key not in scopes:
        scope = _scope(item, gpus, labels)
        scopes[key] = frozenset(gpu.name for gpu in scope if not accepts.isdisjoint(gpu.offer.names))
    able = scopes[key]
    if not able:
        others = sorted({gpu.node for gpu in gpus if not accepts.isdisjoint(gpu.offer.names)})
        item.wrong(f"its pins leave only GPUs that have no {wish}; nodes that have it: {', '.join(others[:5])}")
    spread = item.value.get("spread")
    if spread is True:
        spread = f"demand {name}"
    elif spread in (None, False):
        spread = None
    elif not isinstance(spread, str):
        item.wrong(f"spread must be true or the name of a group, not {spread!r}")
    return _fleet.Demand(name, wish, count, accepts, able, spread)
