# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The ``fleet`` that ``vgpu_plan`` takes, from what hosts and the cluster say: which GPUs there are, what is made on each, which VMs hold it.

A GPU is never planned as if it were empty when that is not known: it stays as it is, and a note says why. So does one whose VMs cannot be
told, one that something other than a VM of the cluster holds, and one that has more than the catalogue says a GPU can hold.
"""

from __future__ import annotations

import collections
import dataclasses
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._device_names import plain_type
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _holdings, _host_gpu, _plan_shape
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._gpu import Gpu

Facts = t.Mapping[str, t.Any]
WORKLOAD = "vm-vgpu"
MODES = ("equal", "mixed", "keep", "exclude")
#: The variables of a host that are read.
HOST_KEYS = ("inventory_hostname", "preflight_host", "gpufleet_plan_mode", "gpufleet_plan_pool", "gpufleet_plan_labels")
NO_CONFIG = "it has no device configuration"


@dataclasses.dataclass
class Seen:
    """A GPU as it was read. ``active``: type and users of each vGPU.

    ``unknown``: why it cannot be told what is made on it; ``left_out``: why the planner cannot take it at all.
    """

    index: int
    facts: Facts
    gpu: Gpu | None
    board: _holdings.Board
    backend: str
    active: list[tuple[str, t.Sequence[Facts] | None]]
    unknown: str | None = None
    left_out: str | None = None


class Reading:
    """Collects the fleet and the notes, host by host."""

    def __init__(self, kubevirt: Facts | None) -> None:
        self.kubevirt = kubevirt
        self.nodes: list[dict[str, t.Any]] = []
        self.notes: list[str] = []
        self.configurable: list[str] = []
        self.functions: dict[str, int] = {}

    def add(self, host: Facts, intent: Facts, node: Facts) -> None:
        name, owner = str(intent["node"]), str(intent["owner"])
        mode, pool, labels = _wishes(host)
        seen, blind = look(host["preflight_host"], node, self.kubevirt)
        if blind:
            self.notes.append(f"node {name}: who holds its vGPUs is known from the cluster alone: {blind}.")
        if not seen:
            self.notes.append(f"node {name}: it has no GPU.")
        vfio = any(entry.backend == "vendor_vfio" for entry in seen)
        if all(entry.backend == "none" for entry in seen) and seen:
            self.notes.append(
                f"node {name}: no driver offers vGPUs yet ({seen[0].facts['vgpu'].get('why')}); planned as if mediated devices came."
            )
        self._reasons(name, seen)
        self._configuration(name, owner, seen, vfio)
        planned = [_planned(entry, entry.gpu, mode) for entry in seen if entry.gpu and not entry.left_out]
        if planned:
            self.nodes.append(
                {
                    "name": name,
                    "owner": owner,
                    "mode": mode,
                    "backend": "vendor_vfio" if vfio else "mdev",
                    "pool": pool,
                    "labels": {**(node.get("labels") or {}), **labels},
                    "gpus": planned,
                }
            )

    def _reasons(self, name: str, seen: t.Iterable[Seen]) -> None:
        by_reason: dict[str, list[int]] = collections.defaultdict(list)
        for entry in seen:
            total = (entry.facts.get("sriov") or {}).get("total")
            if entry.gpu and entry.gpu.sriov and isinstance(total, int) and total > 0:
                self.functions[f"{name}/{entry.index}"] = total
            if entry.left_out:
                by_reason[f"left out: {entry.left_out}"].append(entry.index)
            for reason in dict.fromkeys([*([entry.unknown] if entry.unknown else []), *entry.board.stays]):
                by_reason[f"stays as it is: {reason}"].append(entry.index)
        for reason, indexes in sorted(by_reason.items(), key=lambda item: item[1]):
            self.notes.append(f"node {name}, GPU {', '.join(map(str, indexes))}: {reason}.")

    def _configuration(self, name: str, owner: str, seen: t.Sequence[Seen], vfio: bool) -> None:
        """Can the vGPU Device Manager be given a configuration for this node? It acts on every GPU that a filter selects."""
        if owner != "operator" or not seen:
            return
        if vfio:
            self.notes.append(
                f"node {name}: {NO_CONFIG}: the vGPU Device Manager makes mediated devices only, and its vGPUs are vendor VFIO."
            )
        elif any(entry.unknown or entry.left_out for entry in seen):
            self.notes.append(
                f"node {name}: {NO_CONFIG}: the vGPU Device Manager would clear the GPU of which it is not known what it holds."
            )
        else:
            self.configurable.append(name)


def _wishes(host: Facts) -> tuple[str, str, dict[str, str]]:
    """Mode, pool and labels of a host, from its variables."""
    name = host["inventory_hostname"]
    mode, pool = host.get("gpufleet_plan_mode") or "equal", host.get("gpufleet_plan_pool") or "default"
    labels = host.get("gpufleet_plan_labels") or {}
    if mode not in MODES:
        raise ValueError(f"reading host {name}: gpufleet_plan_mode is {mode!r}; use one of {', '.join(MODES)}")
    if not isinstance(pool, str):
        raise ValueError(f"reading host {name}: gpufleet_plan_pool is {pool!r}; give the name of a pool of nodes")
    if not isinstance(labels, t.Mapping):
        raise ValueError(f"reading host {name}: gpufleet_plan_labels is {labels!r}; give a mapping of labels that demands may ask for")
    return mode, pool, {str(key): str(value) for key, value in labels.items()}


def _stranger(host: Facts, node: Facts) -> str | None:
    """Why a host is not the Node that it is taken for, whose VMs are then not on its GPUs; None if it is."""
    own, known = (host["preflight_host"].get("host") or {}).get("boot_id"), node.get("boot_id")
    if not own or not known or own == known:
        return None
    return f"its boot id {own} is not that of Node {node['name']}, {known}: another machine, or one that booted meanwhile"


def _names_of_types(gpus: t.Iterable[Facts]) -> dict[tuple[str, str], str]:
    """Plain types by PCI id and type id: a GPU that is full no longer lists its type, but another of its model may (one driver, one numbering)."""
    found = {}
    for gpu in gpus:
        for kind in gpu["vgpu"].get("types") or []:
            if kind.get("plain"):
                found[str(gpu["vendor_device"]), str(kind["id"])] = str(kind["plain"])
    return found


def _gpu(index: int, facts: Facts, names: t.Mapping[tuple[str, str], str]) -> Seen:
    pci, backend = str(facts["vendor_device"]).upper(), str(facts["vgpu"].get("backend"))
    active, unread = [], []
    for vgpu in facts["vgpu"].get("active") or []:
        kind = str(vgpu["type"])
        plain = plain_type(kind) or names.get((str(facts["vendor_device"]), kind))
        active.append((plain or kind, vgpu.get("users")))
        unread += [] if plain else [kind]
    present = collections.Counter(name for name, _users in active)
    board = _holdings.Board(index, pci, dict(sorted(present.items())), vfio=backend == "vendor_vfio")
    entry = Seen(index, facts, None, board, backend, active)
    try:
        entry.gpu = _host_gpu.of(facts).gpu
    except ValueError as error:
        entry.left_out = str(error)
        return entry
    if facts.get("fell_off_bus"):
        entry.left_out = "it has fallen off the bus, and the host must be looked after"
    elif unread:
        entry.unknown = f"it has a vGPU of type {unread[0]}, which the host no longer names, so what is made on it is not known"
    else:
        entry.unknown = _impossible(entry.gpu, present)
    return entry


def _impossible(gpu: Gpu, present: t.Mapping[str, int]) -> str | None:
    """What is made there now, but cannot be by the catalogue."""
    for name, count in sorted(present.items()):
        kind = gpu.by_name.get(name)
        if kind is None:
            return f"it has {count} x {name}, which is no type of the {gpu.family} in the catalogue"
        if count > kind.most:
            return f"it has {count} x {name}, and by the catalogue at most {kind.most} fit"
    if len({bool(gpu.by_name[name].slices) for name in present}) > 1:
        return f"it has time-sliced and MIG-backed vGPUs ({', '.join(sorted(present))}), which by the catalogue never share a GPU"
    return None


def _who(entry: Seen) -> bool:
    """Note who holds the GPU or its vGPUs; False if the host cannot tell."""
    if entry.backend == "none":
        users = entry.facts.get("users")
        _holdings.see_whole(entry.board, users or [])
        return users is not None
    return _holdings.see(entry.board, entry.active)


def look(facts: Facts, node: Facts, kubevirt: Facts | None) -> tuple[list[Seen], str]:
    """The GPUs of a host in the order of their addresses, with who holds which vGPU, and why the host cannot see that (empty: it can)."""
    gpus = sorted(facts["gpus"], key=lambda gpu: str(gpu["address"]).lower())
    names = _names_of_types(gpus)
    seen = [_gpu(index, gpu, names) for index, gpu in enumerate(gpus)]
    told = [_who(entry) for entry in seen]
    why = "" if all(told) else (facts.get("unknown") or {}).get("gpus.users") or "the host does not say who holds its vGPUs"
    boards = [entry.board for entry in seen]
    _holdings.settle(boards, _holdings.uses(node, kubevirt, boards), why or "the host shows no QEMU process of it")
    return seen, why


def _planned(entry: Seen, gpu: Gpu, mode: str) -> dict[str, t.Any]:
    """The GPU as ``vgpu_plan`` takes it."""
    board = entry.board
    found: dict[str, t.Any] = {
        "index": entry.index,
        "address": entry.facts["address"],
        "gpu": gpu.family,
        "vendor_device": board.pci,
        "subsystem": entry.facts.get("subsystem") or None,
    }
    if entry.unknown:
        return {**found, "mode": "exclude"}
    vms = [{"name": who, "type": name, "count": count} for (who, name), count in sorted(board.held.items()) if name in board.present]
    found.update(present=board.present, vms=vms)
    if board.stays and mode != "exclude":
        found["mode"] = "exclude" if entry.backend == "none" else "keep"
    return found


def read(hosts: t.Iterable[Facts], intents: t.Iterable[Facts], cluster: Facts) -> dict[str, t.Any]:
    """``{fleet, notes, configurable, functions}`` from the variables of all GPU hosts, their intents, and what ``gpu_fleet_info`` returned.

    ``fleet`` is what ``vgpu_plan`` takes: the hosts of this run with vGPUs as their workload. ``notes`` say what is not known, left out or kept
    and why; ``configurable`` are the nodes for which the vGPU Device Manager can be given a configuration; ``functions`` the virtual functions
    that a GPU can have, by ``NODE/INDEX``, where each holds one vGPU.

    :raises ValueError: no host of the run can be planned, or a host's variable is wrong.
    """
    variables = {str(host["inventory_hostname"]): host for host in hosts}
    nodes = {str(node["name"]): node for node in cluster["nodes"]}
    reading = Reading(cluster.get("kubevirt"))
    away, lost, without = [], [], []
    for intent in sorted((intent for intent in intents if intent["workload"] == WORKLOAD), key=lambda intent: str(intent["node"])):
        host = str(intent["host"])
        operators = [host] if intent["owner"] == "operator" else []
        if not intent["limited"]:
            away.append(host)
            without += operators
            continue
        why = str(intent["why"]) if intent["state"] != "wanted" else _stranger(variables[host], nodes[str(intent["node"])])
        if why:
            lost.append(f"{host} ({why.splitlines()[0].rstrip('.')})")
            without += operators
        else:
            reading.add(variables[host], intent, nodes[str(intent["node"])])
    if lost:
        reading.notes.append(f"Left out, with all that runs there: {', '.join(lost)}.")
    if away:
        reading.notes.append(
            f"Not in this run, and so neither read nor planned: {', '.join(away)}. Demands are served by the others alone."
        )
    if reading.configurable and without:
        reading.notes.append(
            f"The device configuration has no entry for {', '.join(without)}: in the place of one that has, it takes theirs away."
        )
    if not reading.nodes:
        reasons = " ".join(reading.notes) or "No host has vGPUs as its workload."
        raise ValueError(
            f"reading the fleet: no GPU can be planned. {reasons} Put hosts into gpu_vm_vgpu, choose another limit, or mend them"
        )
    return {"fleet": reading.nodes, "notes": reading.notes, "configurable": reading.configurable, "functions": reading.functions}


def noted(plan: t.Any, seen: Facts) -> dict[str, t.Any]:
    """The plan with what :func:`read` noted among its caveats, and with GPUs that would get more vGPUs than they have virtual functions.

    On SR-IOV GPUs each virtual function takes one vGPU (NVIDIA vGPU User Guide, "Creating an NVIDIA vGPU that supports SR-IOV").
    """
    found = []
    for node, gpus in _plan_shape.check(plan):
        for gpu in gpus:
            total, most = sum(gpu["types"].values()), seen["functions"].get(f"{node}/{gpu['index']}")
            if most is not None and total > most and gpu["changed"]:
                found.append(
                    f"node {node}, GPU {gpu['index']}: CANNOT BE MADE: {total} vGPUs are planned, and it can have {most} virtual functions, of "
                    "which each holds one. Exclude the GPU (gpufleet_plan_mode), or ask for larger vGPUs."
                )
    return {**plan, "caveats": [*found, *seen["notes"], *(plan.get("caveats") or [])]}
