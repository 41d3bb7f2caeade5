# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The best plan of a very small fleet by trying everything: all choices for all GPUs, and all ways to serve. Shares nothing with the planner."""

from __future__ import annotations

import functools
import itertools
import typing as t

from tests.vgpu import checker

Choice = tuple[str, tuple[tuple[str, int], ...], int]  # name, slots (size "4" or type) with counts, most


def _choices(node: dict[str, t.Any], gpu: dict[str, t.Any], sizes: list[int]) -> list[tuple[str, t.Any]]:
    mode = gpu.get("mode", node.get("mode", "equal"))
    found: list[tuple[str, t.Any]] = []
    if gpu.get("present"):
        found.append(("keep", gpu["present"]))
    if not gpu.get("vms") or mode == "equal":
        found.append(("unused", None))
    if mode == "equal":
        found += [("equal", size) for size in sizes if checker.GPUS[gpu["gpu"]] >= size]
    return found


def best(fleet: list[dict[str, t.Any]], demands: list[dict[str, t.Any]]) -> tuple[int, int, int, int]:
    """(unserved, disturbed, gpus, profiles), the least in this order."""
    gpus = [(node, gpu) for node in fleet for gpu in node["gpus"]]
    vms = [(node, gpu, vm) for node, gpu in gpus for vm in gpu.get("vms", [])]
    sizes = sorted(
        {demand.get("size_gb") or checker.size_of(demand["type"]) for demand in demands}
        | {checker.size_of(vm["type"]) for _n, _g, vm in vms}
    )
    units = [demand for demand in demands for _each in range(demand.get("count", 1))]
    results = []
    for choice in itertools.product(*(_choices(node, gpu, sizes) for node, gpu in gpus)):
        room: list[dict[t.Any, int]] = []
        moved: list[str] = []
        disturbed = 0
        for (name, what), (_node, gpu) in zip(choice, gpus, strict=True):
            held = [vm["type"] for vm in gpu.get("vms", [])]
            if name == "keep":
                room.append({kind: count - held.count(kind) for kind, count in what.items()})
            else:
                disturbed += len(held)
                moved += held
                room.append({what: min(32, checker.GPUS[gpu["gpu"]] // what)} if name == "equal" else {})
        served = _serve(gpus, choice, room, moved, units)
        if served is None:
            continue
        used = [
            (name, what, gpu)
            for (name, what), (_node, gpu) in zip(choice, gpus, strict=True)
            if name != "unused" and gpu.get("mode") != "exclude"
        ]
        profiles = {(gpu["gpu"], size) for name, what, gpu in used for size in ([what] if name == "equal" else map(checker.size_of, what))}
        results.append((len(units) - served, disturbed, len(used), len(profiles)))
    return min(results)


def _serve(gpus: t.Any, choice: t.Any, room: list[dict[t.Any, int]], moved: list[str], units: list[dict[str, t.Any]]) -> int | None:
    """How many of the units can be served once every moved VM has its type again, or None if one cannot."""
    wishes: list[dict[str, t.Any]] = [{"name": "vm", "type": kind, "must": True} for kind in moved] + units

    def fits(wish: dict[str, t.Any], position: int, slot: t.Any) -> bool:
        node, gpu = gpus[position]
        if gpu.get("mode", node.get("mode")) == "exclude" or not checker.allowed(wish, node, gpu["index"]):
            return False
        if isinstance(slot, str):
            return checker.accepts(wish, slot, False)
        series = wish.get("series") or wish["type"][-1]
        return checker.accepts(wish, f"{gpu['gpu'].removesuffix('-96')}-{slot}{series}", False)

    keys = [(position, slot) for position, slots in enumerate(room) for slot in slots]

    @functools.cache
    def go(number: int, left: tuple[int, ...], used: frozenset[tuple[str, str]]) -> int:
        if number == len(wishes):
            return 0
        wish = wishes[number]
        top = -1000 if wish.get("must") else go(number + 1, left, used)
        for key, (position, slot) in enumerate(keys):
            spread = (wish.get("spread"), gpus[position][0]["name"])
            if left[key] and fits(wish, position, slot) and not (spread[0] and spread in used):
                rest = (*left[:key], left[key] - 1, *left[key + 1 :])
                gain = 0 if wish.get("must") else 1
                top = max(top, gain + go(number + 1, rest, used | {spread} if spread[0] else used))
        return top

    found = go(0, tuple(room[position][slot] for position, slot in keys), frozenset())
    return found if found >= 0 else None
