# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Is this a plan, as ``vgpu_plan`` makes one? Whoever reads plans from a file asks first, and says what is wrong by name."""

from __future__ import annotations

import typing as t

Entry = t.Mapping[str, t.Any]


def _wrong(where: str, found: t.Any, wanted: str) -> ValueError:
    shown = repr(found)
    shown = shown if len(shown) <= 60 else f"{shown[:57]}..."
    return ValueError(f"reading a plan: {where} is {shown}; {wanted}. Give what vgpu_plan returned, or its JSON")


def _counted(where: str, types: t.Any) -> None:
    if not isinstance(types, t.Mapping):
        raise _wrong(where, types, "it maps a type to how many are made")
    for name, count in types.items():
        if not isinstance(name, str) or isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise _wrong(f"{where}, {name}", count, "it is a whole number from 0 on")


def _listed(where: str, entries: t.Any, keys: t.Mapping[str, type | tuple[type, ...]]) -> None:
    if not isinstance(entries, list):
        raise _wrong(where, entries, "it is a list")
    for number, entry in enumerate(entries):
        if not isinstance(entry, t.Mapping):
            raise _wrong(f"{where}[{number}]", entry, "it is a mapping")
        for key, kind in keys.items():
            if not isinstance(entry.get(key), kind) or isinstance(entry.get(key), bool) != (kind is bool):
                raise _wrong(f"{where}[{number}], {key}", entry.get(key), "that is no value for it")


def _gpu(where: str, entry: t.Any, seen: set[int]) -> None:
    if not isinstance(entry, t.Mapping):
        raise _wrong(where, entry, "it is a mapping")
    index = entry.get("index")
    if isinstance(index, bool) or not isinstance(index, int):
        raise _wrong(f"{where}, index", index, "it is the number of the GPU on its node")
    if index in seen:
        raise _wrong(f"{where}, index", index, "another GPU of the node has it")
    seen.add(index)
    if not isinstance(entry.get("mode"), str):
        raise _wrong(f"{where}, mode", entry.get("mode"), "it is one of equal, mixed, keep, unused")
    _counted(f"{where}, types", entry.get("types"))
    if entry.get("before") is not None:
        _counted(f"{where}, before", entry["before"])
    _listed(f"{where}, serves", entry.get("serves", []), {"demand": str, "type": str, "count": int})
    _listed(f"{where}, holds", entry.get("holds", []), {"vm": str, "type": str})
    _listed(f"{where}, placements", entry.get("placements", []), {"id": int, "size_gb": int})
    if not isinstance(entry.get("disturbed", []), list):
        raise _wrong(f"{where}, disturbed", entry["disturbed"], "it is a list of VMs")


def check(plan: t.Any) -> list[tuple[str, list[Entry]]]:
    """The nodes of a plan with their GPUs.

    :raises ValueError: it is none; the message names the item.
    """
    if not isinstance(plan, t.Mapping):
        raise _wrong("the plan", plan, "it is a mapping")
    if plan.get("version") != 1:
        raise _wrong("version", plan.get("version"), "this release reads version 1")
    _listed("nodes", plan.get("nodes"), {"node": str, "gpus": list})
    _counted("served", plan.get("served", {}))
    _listed("unserved", plan.get("unserved", []), {"demand": str, "count": int})
    _listed("objectives", plan.get("objectives", []), {"name": str, "value": (int, float), "bound": (int, float), "proven": bool})
    if not isinstance(plan.get("caveats", []), list):
        raise _wrong("caveats", plan["caveats"], "it is a list of sentences")
    found: dict[str, list[Entry]] = {}
    for node in plan["nodes"]:
        if node["node"] in found:
            raise _wrong("nodes", node["node"], "the node is there twice")
        seen: set[int] = set()
        for number, entry in enumerate(node["gpus"]):
            _gpu(f"node {node['node']}, gpus[{number}]", entry, seen)
        found[node["node"]] = list(node["gpus"])
    return list(found.items())
