# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The plan: per GPU what is made on it, what that serves, what is free, and which running VMs it disturbs; per demand what is not served and why.

Objectives are minimised one after the other, each holding what the earlier ones reached; each comes with the bound that the solver proved.
"""

from __future__ import annotations

import collections
import time
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _fill, _fleet, _given_fleet, _model, _solve

#: The share of what is left of the time that one level may take, so that later levels have a turn.
SHARE = 0.6


def plan(
    fleet: t.Any,
    demands: t.Any,
    *,
    objectives: t.Any = None,
    right_size: t.Any = False,
    mix_series: t.Any = True,
    move_vms: t.Any = True,
    disturbs: t.Any = "gpu",
    headroom: t.Any = "none",
    time_limit: t.Any = 60,
    gap: t.Any = 0.0,
) -> dict[str, t.Any]:
    """The plan for a fleet and demands, as data. Shapes and options: documentation of the filter ``vgpu_plan``. ValueError names what is wrong."""
    options = _options(objectives, mix_series, move_vms, disturbs, headroom)
    seconds = _number("time_limit", time_limit, 0.001)
    tolerance = _number("gap", gap, 0.0)
    read = _given_fleet.read(fleet, demands, _flag("right_size", right_size))
    deadline = time.monotonic() + seconds
    model = _model.Model(read, options)
    solver = _solve.Solver(model.program)
    answers = _solve_levels(model, solver, deadline, tolerance)
    try:
        filled = _fill.fill(model, solver.whole())
    except _solve.OutOfTime as error:
        raise ValueError(f"no plan was found within {seconds:g} s; give time_limit more seconds") from error
    return _result(model, filled, answers)


def _flag(name: str, value: t.Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false, not {value!r}")
    return value


def _number(name: str, value: t.Any, least: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= least:
        raise ValueError(f"{name} must be a number of at least {least:g}, not {value!r}")
    return float(value)


def _word(name: str, value: t.Any, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError(f"{name} {value!r} is none of {', '.join(choices)}")
    return str(value)


def _options(objectives: t.Any, mix_series: t.Any, move_vms: t.Any, disturbs: t.Any, headroom: t.Any) -> _model.Options:
    order = objectives if objectives is not None else list(_model.Options().objectives)
    if not isinstance(order, list) or not order:
        raise ValueError(f"objectives must be a list with at least one of {', '.join(_model.OBJECTIVES)}, not {order!r}")
    for name in order:
        _word("objective", name, _model.OBJECTIVES)
        if order.count(name) > 1:
            raise ValueError(f"objective {name!r} is there twice; each counts once, in the order given")
    return _model.Options(
        objectives=tuple(order),
        mix_series=_flag("mix_series", mix_series),
        disturbs=_word("disturbs", disturbs, ("gpu", "node")),
        move_vms=_flag("move_vms", move_vms),
        headroom=_word("headroom", headroom, ("none", "gpu", "node")),
    )


def _solve_levels(model: _model.Model, solver: _solve.Solver, deadline: float, gap: float) -> list[dict[str, t.Any]]:
    answers: list[dict[str, t.Any]] = []
    levels = model.levels()
    for number, (name, terms) in enumerate(levels):
        left = deadline - time.monotonic()
        seconds = left if number == len(levels) - 1 else left * SHARE
        try:
            answer = solver.minimise(terms, seconds, gap if number and name != "unserved" else 0.0)
        except _solve.OutOfTime as error:
            raise ValueError("no plan was found within time_limit; give it more seconds") from error
        except _solve.Infeasible as error:
            raise ValueError(_impossible(model)) from error
        answers.append({"name": name, "value": answer.cost, "bound": answer.bound, "proven": answer.proven})
    return answers


def _impossible(model: _model.Model) -> str:
    """Only what is there now can make a plan impossible: serving nothing and keeping everything breaks no other rule."""
    pools: dict[tuple[str, str], set[str]] = collections.defaultdict(set)
    for gpu in model.open:
        if gpu.vfio_pool is not None and gpu.holdings:
            pools[gpu.vfio_pool, gpu.vendor_device] |= set(gpu.held())
    for (pool, pci), names in sorted(pools.items()):
        if len(names) > 1:
            return (
                f"fleet: in pool {pool} running VMs hold {', '.join(sorted(names))} on GPUs with PCI id {pci}, by which alone KubeVirt picks them; "
                "stop those of all but one type, or split the pool"
            )
    return "fleet: no plan keeps a vGPU for every running VM; exclude the GPUs whose VMs must stay as they are, or stop VMs"


def _result(model: _model.Model, filled: list[_fill.Bin], answers: list[dict[str, t.Any]]) -> dict[str, t.Any]:
    planned = {entry.gpu.name: entry for entry in filled}
    nodes: dict[str, list[dict[str, t.Any]]] = collections.defaultdict(list)
    for gpu in model.fleet.gpus:
        entry = planned.get(gpu.name)
        nodes[gpu.node].append(_untouched(gpu) if entry is None else _gpu(model, entry))
    if model.options.disturbs == "node":
        _disturb_nodes(model.fleet, nodes)
    served: dict[str, int] = {demand.name: 0 for demand in model.fleet.demands}
    for gpus in nodes.values():
        for shown in gpus:
            for serve in shown["serves"]:
                if serve["demand"] in served:
                    served[serve["demand"]] += serve["count"]
    unserved = [
        {"demand": demand.name, "type": demand.wish, "count": demand.count - served[demand.name], "why": _why(model, demand)}
        for demand in model.fleet.demands
        if served[demand.name] < demand.count
    ]
    return {
        "version": 1,
        "nodes": [{"node": name, "gpus": gpus} for name, gpus in sorted(nodes.items())],
        "served": served,
        "unserved": unserved,
        "objectives": answers,
        "status": "optimal" if all(answer["proven"] for answer in answers) else "time-limit",
        "caveats": _caveats(model, nodes, answers),
    }


def _head(gpu: _fleet.Gpu) -> dict[str, t.Any]:
    return {
        "index": gpu.index,
        "address": gpu.address,
        "gpu": gpu.offer.family,
        "vendor_device": gpu.vendor_device,
        "subsystem": gpu.subsystem,
    }


def _untouched(gpu: _fleet.Gpu) -> dict[str, t.Any]:
    """A GPU that the plan leaves out."""
    before = None if gpu.present is None else dict(gpu.present)
    return {
        **_head(gpu), "mode": "keep", "types": before or {}, "before": before, "changed": False,
        "serves": [], "holds": _holds(gpu), "free": _free(before or {}, gpu.held()), "disturbed": [],
    }  # fmt: skip


def _free(types: dict[str, int], used: t.Mapping[str, int]) -> dict[str, int]:
    return {name: count - used.get(name, 0) for name, count in sorted(types.items()) if count > used.get(name, 0)}


def _holds(gpu: _fleet.Gpu) -> list[dict[str, t.Any]]:
    return [{"vm": holding.vm, "type": holding.type, "count": holding.count} for holding in gpu.holdings]


def _gpu(model: _model.Model, entry: _fill.Bin) -> dict[str, t.Any]:
    gpu = entry.gpu
    before = None if gpu.present is None else dict(gpu.present)
    idle = not entry.serves and model.options.headroom == "none" and not gpu.holdings
    keep = entry.choice == "keep" or (bool(before) and (idle or gpu.mode == "keep"))
    if keep and gpu.vfio_pool is not None and not entry.busy and gpu.mode != "keep":
        keep = False  # An idle GPU of another type would be taken for one of the pool's own type.
    types = dict(before or {}) if keep else _made(model, entry)
    mode = "keep" if keep else ("unused" if not types else "mixed" if entry.choice == "mixed" else "equal")
    changed = types != (before or {})
    used: dict[str, int] = collections.Counter()
    for (_who, name), count in entry.serves.items():
        used[name] += count
    if keep:
        for name, count in gpu.held().items():
            used[name] += count
    shown = {
        **_head(gpu),
        "mode": mode,
        "types": dict(sorted(types.items())),
        "before": before,
        "changed": changed,
        "serves": [{"demand": who, "type": name, "count": count} for (who, name), count in sorted(entry.serves.items())],
        "holds": _holds(gpu) if keep else [],
        "free": _free(types, used),
        "disturbed": [] if keep else sorted({holding.vm for holding in gpu.holdings}),
    }
    if mode == "mixed":
        sizes = {kind.size_gb for kind in gpu.offer.kinds if kind.name in types}
        shown["placements"] = [{"id": start, "size_gb": size} for start, size in entry.placements if size in sizes]
    return shown


def _made(model: _model.Model, entry: _fill.Bin) -> dict[str, int]:
    """The types to make: what is served, and the rest of each slot as the type that is served most there."""
    if not entry.serves and model.options.headroom == "none":
        return {}
    types: dict[str, int] = collections.Counter()
    for (_who, name), count in entry.serves.items():
        types[name] += count
    for slot, room in entry.room.items():
        fit = [name for name in types if name in model.served_types(slot)] or ([slot[1]] if slot[0] == "type" else [])
        if room and fit:
            types[max(sorted(fit), key=lambda name: types[name])] += room
    return types


def _disturb_nodes(fleet: _fleet.Fleet, nodes: dict[str, list[dict[str, t.Any]]]) -> None:
    holdings = {(gpu.node, gpu.index): gpu.holdings for gpu in fleet.gpus}
    for node, gpus in nodes.items():
        if any(shown["changed"] for shown in gpus):
            for shown in gpus:
                shown["disturbed"] = sorted({holding.vm for holding in holdings[node, shown["index"]]})


def _why(model: _model.Model, demand: _fleet.Demand) -> str:
    scope = [gpu for gpu in model.open if gpu.name in demand.scope]
    nodes = {gpu.node for gpu in scope}
    if demand.spread is not None:
        members = sum(other.count for other in model.fleet.demands if other.spread == demand.spread)
        if members > len(nodes):
            return f"its group has {members} vGPUs for different nodes, and {len(nodes)} nodes could take this demand"
    where = f"the {len(scope)} GPUs that could serve it" if len(scope) > 1 else f"GPU {scope[0].name}, the only one that could serve it,"
    why = [
        f"{where} are taken by other demands and running VMs" if len(scope) > 1 else f"{where} is taken by other demands and running VMs"
    ]
    if model.options.headroom != "none":
        why.append(f"headroom for the loss of a {model.options.headroom} is kept")
    if not model.options.move_vms:
        why.append("GPUs with running VMs may not change")
    before = model.options.objectives[: model.options.objectives.index("unserved")] if "unserved" in model.options.objectives else ()
    if before:
        why.append(f"{', '.join(before)} came before serving")
    return "; ".join(why)


def _pools(fleet: _fleet.Fleet, nodes: dict[str, list[dict[str, t.Any]]]) -> t.Iterator[str]:
    """Where KubeVirt picks by PCI id and GPUs that must stay as they are have another type than what is planned."""
    shown = {(node, entry["index"]): entry["types"] for node, gpus in nodes.items() for entry in gpus}
    pools: dict[tuple[str, str], dict[str, list[str]]] = collections.defaultdict(lambda: collections.defaultdict(list))
    for gpu in fleet.gpus:
        for name in shown[gpu.node, gpu.index] if gpu.vfio_pool is not None else ():
            pools[gpu.vfio_pool or "", gpu.vendor_device][name].append(gpu.name)
    for (pool, pci), types in sorted(pools.items()):
        if len(types) > 1:
            where = ", ".join(
                f"{name} ({', '.join(gpus[:3])}{' and others' if len(gpus) > 3 else ''})" for name, gpus in sorted(types.items())
            )
            yield (
                f"In pool {pool} KubeVirt picks vGPUs of {pci} by that PCI id alone, and there are then several types: {where}. "
                "A VM can get any of them: remove those that are not wanted, or split the pool."
            )


def _caveats(model: _model.Model, nodes: dict[str, list[dict[str, t.Any]]], answers: list[dict[str, t.Any]]) -> list[str]:
    shown = [entry for gpus in nodes.values() for entry in gpus]
    made = {(entry["gpu"], name) for entry in shown if entry["changed"] for name in entry["types"]}
    offers = {gpu.offer.family: gpu.offer for gpu in model.fleet.gpus}
    series = {name: kind.series for family, name in made if (kind := offers[family].kind(name))}
    found = []
    late = [answer["name"] for answer in answers if not answer["proven"]]
    if late:
        found.append(
            f"Time or tolerance ended before {', '.join(late)} was proven: this is the best plan found, its bound says how far it can be off."
        )
    several = [entry for entry in shown if entry["changed"] and entry["mode"] == "equal" and len(entry["types"]) > 1]
    if several:
        found.append(
            "Several series of one size share a GPU, which KVM hosts allow from vGPU 17 on; for older drivers set mix_series to false."
        )
    if any(letter in "AB" for letter in series.values()):
        names = ", ".join(sorted(name for name, letter in series.items() if letter in "AB"))
        found.append(f"NVIDIA's stock configuration has no A and B series ({names}): the plan needs a configuration of its own.")
    found += _pools(model.fleet, nodes)
    if any(entry["mode"] == "mixed" for entry in shown):
        found.append(
            "Mixed sizes need the mixed-size mode (nvidia-smi vgpu -shm 1) on the host before anything is made, and the placements that are given."
        )
    if any(entry["disturbed"] for entry in shown):
        found.append(
            "Disturbed VMs lose their vGPU when their GPU changes: stop them before, start them after. Where else they may run is not known here."
        )
    if any(gpu.present is None and gpu.mode != "exclude" for gpu in model.fleet.gpus):
        found.append("Of some GPUs the present vGPUs are not known; they were planned as if they were empty.")
    if model.options.headroom != "none":
        found.append("Headroom counts idle vGPUs of each type; whether a restart keeps anti-affinity is not promised.")
    return found
