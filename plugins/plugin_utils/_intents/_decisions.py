# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""One decision per node that may have a GPU, before the operator may act on it.

The operator takes an unlabelled GPU node for a container node, and its driver container first unbinds every VFIO device there. So a node
is labelled with its workload, or told to have no operands, as one is whose host owns its devices. A node on which operands run already is
never told so.
"""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _names
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._intents._intents import Problem, nodes_of

Facts = t.Mapping[str, t.Any]

NOT_OURS = "it is not in the inventory"
#: Its host makes the devices; the operator would take them.
OWNED = "its host owns its devices (gpufleet_device_owner: host)"


def node_decisions(intents: t.Iterable[Facts], fleet: Facts, limited: bool = False) -> dict[str, t.Any]:
    """``{nodes, left, blockers, undecided, text}``.

    ``nodes``: entries for ``gpu_node_label``. ``left``: ``[{node, why}]``, refused hosts on which operands run already. ``undecided``: nodes
    that may have a GPU and would still carry no decision after this run. ``limited``: this run is about a part of the inventory.
    """
    intents = list(intents)
    seen = {str(node["name"]): node for node in nodes_of(fleet)}
    ours = {str(intent["node"]) for intent in intents}
    entries: list[dict[str, t.Any]] = []
    left: list[dict[str, str]] = []
    blockers: list[Problem] = []
    for intent in intents:
        if not intent["limited"]:
            continue
        node = str(intent["node"])
        if intent["state"] == "wanted" and intent.get("owner") == "host":
            entries.append({"name": node, "operands": False, "why": OWNED})
        elif intent["state"] == "wanted":
            profile = {"vgpu_config": intent["profile"]} if intent["workload"] == "vm-vgpu" else {}
            entries.append({"name": node, "workload": intent["workload"], **profile, "operands": True})
        elif (seen.get(node) or {}).get("operands"):
            left.append({"node": node, "why": str(intent["why"])})
        else:
            entries.append({"name": node, "operands": False, "why": str(intent["why"])})
    possible = [name for name in map(str, fleet["possible_gpu_nodes"]) if name in seen]
    enabled = bool((fleet.get("cluster_policy") or {}).get("sandbox_enabled"))
    for name in possible:
        if name in ours or _decided(seen[name]):
            continue
        running = seen[name]["operands"]
        if running and not enabled:
            problem = f"{NOT_OURS}, carries no decision, and runs {', '.join(running)}"
            blockers.append(Problem(f"node {name}", problem, f"Put it into the inventory, or label it {_names.WORKLOAD_LABEL}=container"))
        elif not running and not limited:
            entries.append({"name": name, "operands": False, "why": NOT_OURS})
    written = {entry["name"] for entry in entries}
    undecided = [name for name in possible if name not in written and not _decided(seen[name])]
    text = ""
    if blockers:
        head = "Labelling the nodes: stopped, because turning the VM workloads on would reach nodes that nobody decided about. Nothing was changed."
        text = "\n".join([head, *(f"- {blocker}" for blocker in blockers)])
    return {"nodes": entries, "left": left, "blockers": [blocker._asdict() for blocker in blockers], "undecided": undecided, "text": text}


def _decided(node: Facts) -> bool:
    labels = node.get("labels") or {}
    return labels.get(_names.WORKLOAD_LABEL) in _names.WORKLOADS or labels.get(_names.OPERANDS_LABEL) == "false"
