# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fleets and demands for the planner, made from a seed: what is measured and what the checker looks at."""

from __future__ import annotations

import random
import typing as t

#: GPU model: framebuffer in GB, equal-size maxima by GB, whether it has mixed sizes, and the series with the sizes they have.
MODELS: dict[str, tuple[int, dict[int, int]]] = {
    "A10": (24, {1: 24, 2: 12, 3: 8, 4: 6, 6: 4, 8: 3, 12: 2, 24: 1}),
    "L4": (24, {1: 24, 2: 12, 3: 8, 4: 6, 6: 4, 8: 3, 12: 2, 24: 1}),
    "A16": (16, {1: 16, 2: 8, 4: 4, 8: 2, 16: 1}),
    "A40": (48, {1: 32, 2: 24, 3: 16, 4: 12, 6: 8, 8: 6, 12: 4, 16: 3, 24: 2, 48: 1}),
    "L40S": (48, {1: 32, 2: 24, 3: 16, 4: 12, 6: 8, 8: 6, 12: 4, 16: 3, 24: 2, 48: 1}),
    "DC-96": (96, {3: 32, 4: 24, 6: 16, 8: 12, 12: 8, 16: 6, 24: 4, 32: 3, 48: 2, 96: 1}),
}
#: What the demands ask for: 20 types in three series. Users are offered a handful of sizes per model, not all of them.
MENU: dict[str, tuple[tuple[str, int], ...]] = {
    "A10": (("Q", 4), ("Q", 8), ("C", 12)),
    "L4": (("B", 2), ("Q", 4), ("C", 8)),
    "A16": (("B", 1), ("B", 2), ("Q", 4)),
    "A40": (("B", 2), ("Q", 8), ("C", 12)),
    "L40S": (("Q", 4), ("Q", 8), ("C", 12), ("Q", 24)),
    "DC-96": (("Q", 4), ("Q", 8), ("C", 12), ("Q", 24)),
}
#: How often a node has a model.
SHARES = {"A10": 2, "L4": 2, "A16": 1, "A40": 3, "L40S": 3, "DC-96": 3}
#: GB up to which a wish counts as small; the share of small and large ones makes the load.
SMALL_GB = 4


def type_name(model: str, size: int, series: str) -> str:
    return f"{model.removesuffix('-96')}-{size}{series}"


def _fleet(random_: random.Random, gpus: int) -> tuple[list[dict[str, t.Any]], dict[str, int]]:
    """Nodes of one to eight GPUs of one or two models, and the GB per model that running VMs hold."""
    nodes: list[dict[str, t.Any]] = []
    held: dict[str, int] = {}
    left, number = gpus, 0
    while left:
        size = min(left, random_.choice((1, 2, 2, 4, 4, 8)))
        left -= size
        models = sorted(
            {random_.choices(sorted(SHARES), [SHARES[model] for model in sorted(SHARES)])[0] for _each in range(random_.choice((1, 1, 2)))}
        )
        mixed = random_.random() < 0.2
        name = f"n{len(nodes):04}"
        node: dict[str, t.Any] = {
            "name": name,
            "labels": {"zone": f"z{random_.randrange(4)}"},
            "owner": "host" if mixed else "operator",
            "mode": "mixed" if mixed else "equal",
            "gpus": [],
        }
        for index in range(size):
            model = models[index % len(models)]
            gpu: dict[str, t.Any] = {"index": index, "gpu": model, "present": {}, "vms": []}
            if random_.random() < 0.6:
                series, gb = random_.choice(MENU[model])
                most = MODELS[model][1][gb]
                kind = type_name(model, gb, series)
                gpu["present"] = {kind: most}
                for _each in range(random_.randint(1, -(-most // 2))):
                    gpu["vms"].append({"name": f"ns/vm-{number:05}", "type": kind, "count": 1})
                    held[model] = held.get(model, 0) + gb
                    number += 1
            if random_.random() < 0.03:
                gpu["mode"] = "keep"
            node["gpus"].append(gpu)
        nodes.append(node)
    return nodes, held


def _racks(nodes: list[dict[str, t.Any]]) -> list[list[str]]:
    """What pins and exclusions name: racks of nodes, at most 20 of them."""
    size = max(4, -(-len(nodes) // 20))
    return [[node["name"] for node in nodes[start : start + size]] for start in range(0, len(nodes), size)]


def _limits(random_: random.Random, nodes: list[dict[str, t.Any]], able: list[str]) -> dict[str, t.Any]:
    """A pin or an exclusion that leaves something."""
    kind = random_.choice(("nodes", "labels", "exclude"))
    chosen = random_.choice(able)
    rack = next(rack for rack in _racks(nodes) if chosen in rack)
    if kind == "nodes":
        return {"nodes": rack}
    if kind == "labels":
        return {"node_labels": dict(next(node["labels"] for node in nodes if node["name"] == chosen))}
    return {"exclude_nodes": rack} if set(able) - set(rack) else {}


def _mean(model: str, share: float) -> float:
    """GB of an average wish for a model, if ``share`` of them are large."""
    small, large = ([size for _series, size in MENU[model] if (size <= SMALL_GB) == wanted] for wanted in (True, False))
    return (1 - share) * sum(small) / len(small) + share * sum(large) / len(large) if large else sum(small) / len(small)


def _wishes(budget: dict[str, float], demands: int) -> tuple[float, dict[str, float]]:
    """The share of large wishes, and how many wishes per model, so that ``demands`` wishes use the budget (GB per model) up."""
    shares = [number / 200 for number in range(201)]
    share = min(shares, key=lambda share: abs(sum(gb / _mean(model, share) for model, gb in budget.items()) - demands))
    return share, {model: gb / _mean(model, share) for model, gb in budget.items()}


def instance(gpus: int, demands: int, load: float, seed: int) -> tuple[list[dict[str, t.Any]], list[dict[str, t.Any]]]:
    """A fleet and ``demands`` demands of one vGPU each, so that with what runs ``load`` of the fleet's framebuffer is asked for."""
    random_ = random.Random(f"{gpus}/{demands}/{load}/{seed}")
    nodes, held = _fleet(random_, gpus)
    models = sorted(gpu["gpu"] for node in nodes for gpu in node["gpus"])
    budget = {model: max(1.0, load * MODELS[model][0] * models.count(model) - held.get(model, 0)) for model in sorted(set(models))}
    share, counts = _wishes(budget, demands)
    hosts: dict[str, list[str]] = {}
    for node in nodes:
        for model in sorted({gpu["gpu"] for gpu in node["gpus"]}):
            hosts.setdefault(model, []).append(node["name"])
    found: list[dict[str, t.Any]] = []
    while len(found) < demands:
        [model] = random_.choices(sorted(counts), [counts[model] for model in sorted(counts)])
        pick = random_.random() < share
        pool = [entry for entry in MENU[model] if (entry[1] > SMALL_GB) == pick] or list(MENU[model])
        series, size = random_.choice(pool)
        fit = {entry for entry, menu in MENU.items() if (series, size) in menu and entry in hosts}
        named = random_.random() < 0.5
        wish: dict[str, t.Any] = {"type": type_name(model, size, series)} if named else {"size_gb": size, "series": series}
        able = sorted({name for entry in ({model} if named else fit) for name in hosts[entry]})
        if random_.random() < 0.2:
            wish.update(_limits(random_, nodes, able))
        many = 3 if random_.random() < 0.06 and demands - len(found) >= 3 else 1
        for member in range(many):
            demand: dict[str, t.Any] = {"name": f"d{len(found):05}", "count": 1, **wish}
            if many > 1:
                demand["spread"] = f"g{len(found) - member:05}"
            found.append(demand)
    return nodes, found
