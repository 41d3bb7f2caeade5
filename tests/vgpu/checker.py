# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Says what is wrong with a plan, from the fleet and the demands alone. It shares no code and no data with the planner.

Numbers of vGPUs per GPU and placement ids are written down here, from knowledge of the driver (kernel_vgpu_mgr.c and NVIDIA's tables), for the GPU
models that the tests use.
"""

from __future__ import annotations

import collections
import re
import typing as t

#: GB of the GPU, and the exceptions to min(32, GB // size).
GPUS = {"A10": 24, "L4": 24, "A16": 16, "A40": 48, "L40S": 48, "DC-96": 96, "A30": 24, "A100": 40, "T4": 16}
#: vGPUs on MIG instances: how many of a type fit on one GPU.
MIG = {"A30-1-6C": 4, "A30-2-12C": 2, "A30-4-24C": 1, "A100-1-5C": 7, "A100-2-10C": 3, "A100-3-20C": 2, "DC-1-24Q": 4, "DC-2-48Q": 2}
_48 = {
    2: (0, 4, 6, 10, 12, 16, 18, 22, 24, 28, 30, 34, 36, 40, 42, 46),
    3: tuple(range(0, 48, 3)),
    4: (0, 8, 12, 20, 24, 32, 36, 44),
    6: tuple(range(0, 48, 6)),
    8: (0, 16, 24, 40),
    12: (0, 12, 24, 36),
    16: (0, 32),
    24: (0, 24),
    48: (0,),
}
_24 = {
    1: (0, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18, 20, 21, 23),
    2: (0, 4, 6, 10, 12, 16, 18, 22),
    3: tuple(range(0, 24, 3)),
    4: (0, 8, 12, 20),
    6: (0, 6, 12, 18),
    8: (0, 16),
    12: (0, 12),
    24: (0,),
}
_16 = {size: tuple(range(0, 16, size)) for size in (1, 2, 4, 8, 16)}
_96 = {size: tuple(range(0, 96, size)) for size in (3, 4, 6, 8, 12, 16, 24, 32, 48, 96)}
_96[2] = _96[3]
#: 1 GB lies elsewhere on Ampere than on Ada.
_AMPERE = {**_48, 1: tuple(at for third in range(0, 48, 3) for at in (third, third + 2) if at not in (8, 32))}
_ADA = {**_48, 1: (0, 5, 6, 11, 12, 17, 18, 23, 24, 29, 30, 35, 36, 41, 42, 47)}
IDS = {"A10": _24, "L4": _24, "A16": _16, "A40": _AMPERE, "L40S": _ADA, "DC-96": _96}

Plan = dict[str, t.Any]


def size_of(name: str) -> int:
    found = re.fullmatch(r".+-(\d+)[ABCQ]", name)
    assert found, name
    return int(found[1])


def most(gpu: str, name: str) -> int:
    return MIG[name] if name in MIG else min(32, GPUS[gpu] // size_of(name)) if GPUS[gpu] > 24 else GPUS[gpu] // size_of(name)


def accepts(demand: dict[str, t.Any], name: str, right_size: bool) -> bool:
    if demand.get("type") == name:
        return True
    if name in MIG:
        return False
    if "type" in demand:
        family, _dash, _rest = demand["type"].rpartition("-")
        same = right_size and demand["type"] not in MIG and name.rpartition("-")[0] == family and name[-1] == demand["type"][-1]
        return same and size_of(name) >= size_of(demand["type"])
    return name[-1] == demand["series"] and (size_of(name) == demand["size_gb"] or (right_size and size_of(name) > demand["size_gb"]))


def allowed(demand: dict[str, t.Any], node: dict[str, t.Any], index: int) -> bool:
    pins, gpus = demand.get("nodes"), demand.get("gpus")
    labels = demand.get("node_labels") or {}
    return (
        (not pins or node["name"] in pins)
        and (not gpus or f"{node['name']}/{index}" in gpus)
        and node["name"] not in (demand.get("exclude_nodes") or ())
        and all(node.get("labels", {}).get(key) == value for key, value in labels.items())
    )


class Check:
    """Collects what is wrong."""

    def __init__(self, fleet: list[dict[str, t.Any]], demands: list[dict[str, t.Any]], plan: Plan, **options: t.Any) -> None:
        self.nodes = {node["name"]: node for node in fleet}
        self.demands = {demand["name"]: demand for demand in demands}
        self.plan = plan
        self.options = options
        self.wrong: list[str] = []
        self.served: dict[str, int] = collections.Counter()
        self.on_node: dict[tuple[str, str], int] = collections.Counter()
        self.vms: dict[tuple[str, str], int] = collections.Counter()

    def expect(self, right: bool, words: str) -> None:
        if not right:
            self.wrong.append(words)

    def all(self) -> list[str]:
        shown = {(node["node"], gpu["index"]): gpu for node in self.plan["nodes"] for gpu in node["gpus"]}
        given = {(name, gpu["index"]): gpu for name, node in self.nodes.items() for gpu in node["gpus"]}
        self.expect(set(shown) == set(given), "the plan's GPUs are not the fleet's")
        for (name, index), gpu in shown.items():
            self._gpu(self.nodes[name], given[name, index], gpu, f"{name}/{index}")
        self._totals()
        self._objectives(shown, given)
        self._pools(shown, given)
        if self.options.get("headroom", "none") != "none":
            self._headroom(shown)
        return self.wrong

    def _gpu(self, node: dict[str, t.Any], given: dict[str, t.Any], gpu: dict[str, t.Any], where: str) -> None:
        model, types, before = gpu["gpu"], gpu["types"], given.get("present")
        mode = given.get("mode", node.get("mode", "equal"))
        self.expect(gpu["changed"] == (types != (before or {})), f"{where}: changed is wrong")
        if mode in ("keep", "exclude") and before is not None:
            self.expect(types == before, f"{where}: it was to keep {before} and has {types}")
        if mode == "exclude":
            self.expect(not gpu["serves"], f"{where}: it is excluded and serves")
        if types != (before or {}):
            self._capacity(model, gpu, node, where)
        taken: dict[str, int] = collections.Counter()
        for serve in gpu["serves"]:
            taken[serve["type"]] += serve["count"]
            if serve["demand"].startswith("vm "):
                self.vms[serve["demand"][3:], serve["type"]] += serve["count"]
                continue
            demand = self.demands[serve["demand"]]
            self.expect(accepts(demand, serve["type"], self.options.get("right_size", False)), f"{where}: {serve} does not fit {demand}")
            self.expect(allowed(demand, node, gpu["index"]), f"{where}: {serve['demand']} may not be there")
            self.served[serve["demand"]] += serve["count"]
            spread = demand.get("spread")
            if spread:
                self.on_node[node["name"], f"its own {serve['demand']}" if spread is True else spread] += serve["count"]
        held = {(vm["name"], vm["type"]): vm.get("count", 1) for vm in given.get("vms", [])}
        stays = {(hold["vm"], hold["type"]): hold["count"] for hold in gpu["holds"]}
        self.expect(stays in ({}, held), f"{where}: some VMs stay and some go")
        self.expect(not stays or types == before, f"{where}: VMs stay on a GPU that changes")
        self.expect(bool(held) == bool(stays) or bool(gpu["disturbed"]), f"{where}: its VMs are forgotten")
        if self.options.get("disturbs", "gpu") == "gpu":
            self.expect(gpu["disturbed"] == ([] if stays else sorted({vm for vm, _type in held})), f"{where}: disturbed {gpu['disturbed']}")
        for (vm, name), count in (stays or {}).items():
            taken[name] += count
            self.vms[vm, name] += count
        free = {name: count - taken[name] for name, count in types.items() if count > taken[name]}
        self.expect(all(types.get(name, 0) >= count for name, count in taken.items()), f"{where}: {dict(taken)} do not fit {types}")
        self.expect(gpu["free"] == free, f"{where}: free is {free}, not {gpu['free']}")

    def _capacity(self, model: str, gpu: dict[str, t.Any], node: dict[str, t.Any], where: str) -> None:
        types = gpu["types"]
        if gpu["mode"] == "mixed":
            self.expect(node.get("mode") == "mixed" or gpu["mode"] == "mixed", f"{where}: mixed sizes where they are not allowed")
            end = 0
            sizes: dict[int, int] = collections.Counter()
            for place in sorted(gpu["placements"], key=lambda place: place["id"]):
                self.expect(place["id"] >= end, f"{where}: placements overlap")
                self.expect(place["id"] in IDS[model][place["size_gb"]], f"{where}: {place} is no placement of a {model}")
                end = place["id"] + (3 if model == "DC-96" and place["size_gb"] == 2 else place["size_gb"])
                sizes[place["size_gb"]] += 1
            self.expect(end <= GPUS[model], f"{where}: placements leave the region")
            made: dict[int, int] = collections.Counter()
            for name, count in types.items():
                made[size_of(name)] += count
            self.expect(made == sizes, f"{where}: {types} are not its placements")
            return
        for name in types:
            self.expect(name.rpartition("-")[0].partition("-")[0] == model.partition("-")[0], f"{where}: {name} is of another GPU")
        self.expect(len({(size_of(name), name in MIG) for name in types}) <= 1, f"{where}: {types} are of several sizes")
        total = sum(types.values())
        self.expect(all(total <= most(model, name) for name in types), f"{where}: {types} do not fit a {model}")
        if not self.options.get("mix_series", True) or any(name in MIG for name in types):
            self.expect(len(types) <= 1, f"{where}: {types} share a GPU")

    def _totals(self) -> None:
        missing = {entry["demand"]: entry["count"] for entry in self.plan["unserved"]}
        for name, demand in self.demands.items():
            count = demand.get("count", 1)
            self.expect(
                self.served[name] + missing.get(name, 0) == count,
                f"demand {name}: {self.served[name]} served, {missing.get(name, 0)} not, of {count}",
            )
            self.expect(self.plan["served"][name] == self.served[name], f"demand {name}: served is told wrong")
        for (node, group), count in self.on_node.items():
            self.expect(count <= 1, f"node {node}: {count} of group {group}")
        for node in self.nodes.values():
            for gpu in node["gpus"]:
                for vm in gpu.get("vms", []):
                    self.vms[vm["name"], vm["type"]] -= vm.get("count", 1)
        self.expect(not any(self.vms.values()), f"VMs without their vGPU: {[key for key, count in self.vms.items() if count]}")

    def _objectives(self, shown: dict[tuple[str, int], dict[str, t.Any]], given: dict[tuple[str, int], dict[str, t.Any]]) -> None:
        busy = {key: gpu for key, gpu in shown.items() if (gpu["serves"] or gpu["holds"])}
        counted = {key: gpu for key, gpu in busy.items() if self._mode(key, given) != "exclude"}
        profiles = {(gpu["gpu"], name if name in MIG else size_of(name)) for gpu in counted.values() for name in gpu["types"]}
        found = {
            "unserved": sum(entry["count"] for entry in self.plan["unserved"]),
            "disturbed": sum(len(gpu["disturbed"]) for gpu in shown.values()),
            "gpus": len(counted),
            "nodes": len({node for node, _index in counted}),
            "profiles": len(profiles),
        }
        for objective in self.plan["objectives"]:
            name = objective["name"]
            if name in found and not (name == "gpus" and self.options.get("headroom", "none") != "none"):
                exact = objective["proven"] and (name in ("unserved", "disturbed", "gpus"))
                right = found[name] == objective["value"] if exact else found[name] <= objective["value"]
                self.expect(right, f"{name}: it is {found[name]}, and told as {objective}")
            self.expect(objective["bound"] <= objective["value"], f"{name}: bound above value")

    def _mode(self, key: tuple[str, int], given: dict[tuple[str, int], dict[str, t.Any]]) -> str:
        return str(given[key].get("mode", self.nodes[key[0]].get("mode", "equal")))

    def _pools(self, shown: dict[tuple[str, int], dict[str, t.Any]], given: dict[tuple[str, int], dict[str, t.Any]]) -> None:
        types: dict[tuple[str, str], set[str]] = collections.defaultdict(set)
        for key, gpu in shown.items():
            node = self.nodes[key[0]]
            if node.get("backend") == "vendor_vfio" and self._mode(key, given) != "exclude":
                types[node.get("pool", "default"), gpu["vendor_device"]] |= set(gpu["types"])
        for key, names in types.items():
            self.expect(len(names) <= 1, f"pool {key}: {names} cannot be told apart")

    def _headroom(self, shown: dict[tuple[str, int], dict[str, t.Any]]) -> None:
        """After the loss of any one unit, what was busy on it fits into what is idle of the same type elsewhere."""
        idle: dict[str, int] = collections.Counter()
        unit_idle: dict[tuple[t.Any, str], int] = collections.Counter()
        unit_busy: dict[tuple[t.Any, str], int] = collections.Counter()
        for key, gpu in shown.items():
            unit = key[0] if self.options["headroom"] == "node" else key
            for name, count in gpu["types"].items():
                free = gpu["free"].get(name, 0)
                idle[name] += free
                unit_idle[unit, name] += free
                unit_busy[unit, name] += count - free
        short = next(entry["value"] for entry in self.plan["objectives"] if entry["name"] == "headroom")
        missing = sum(
            max([0, *(busy - (idle[name] - unit_idle[unit, name]) for (unit, other), busy in unit_busy.items() if other == name and busy)])
            for name in idle
        )
        self.expect(missing <= short, f"headroom: {missing} vGPUs are short, told as {short}")


def problems(fleet: list[dict[str, t.Any]], demands: list[dict[str, t.Any]], plan: Plan, **options: t.Any) -> list[str]:
    """What is wrong with a plan: nothing, if it is right."""
    return Check(fleet, demands, plan, **options).all()
