# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What of a cluster is not as the inventory wants it, as far as waiting for the nodes and trying the devices do not show it."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _names
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _vm_why
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._intents._intents import Problem, nodes_of
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._permits._permits import permitted_devices

Facts = t.Mapping[str, t.Any]

_REPAIR = "Run gpufleet.kubevirt.cluster"


def fleet_findings(
    intents: t.Iterable[Facts], fleet: Facts, nodes: t.Iterable[Facts] = (), permits: Facts | None = None, limited: bool = False
) -> dict[str, t.Any]:
    """``{problems, notes, text}``: what is not as wanted, with the remedy, and what others ask for and cannot get.

    ``fleet``: what ``gpu_fleet_info`` returned. ``nodes``: what ``gpu_operator_wait`` returned; permits are compared with what the nodes
    advertise that are as they should be. ``permits``: what ``kubevirt_permit_info`` returned, None where nothing is for VMs. ``limited``:
    this run is about a part of the inventory, so nodes outside it are nobody's concern.
    """
    intents = list(intents)
    seen = {str(node["name"]): node for node in nodes_of(fleet)}
    problems = [problem for intent in intents for problem in _profile(intent, seen)]
    if not limited:
        problems += _undecided(intents, seen, fleet)
    notes = []
    if permits:
        problems += list(_permits(intents, [node for node in nodes if node["met"]], permits))
        notes = [
            f"{miss['resource_name']}: {miss['problem']}: {', '.join(miss['requested_by'])}. {miss['remedy']}" for miss in permits["misses"]
        ]
    text = ""
    if problems:
        head = f"Comparing the cluster with the inventory: {len(problems)} not as wanted. Nothing was changed."
        text = "\n".join([head, *(f"- {problem}." for problem in problems)])
    return {"problems": [problem._asdict() for problem in problems], "notes": notes, "text": text}


def _profile(intent: Facts, seen: t.Mapping[str, Facts]) -> t.Iterator[Problem]:
    if intent["state"] != "wanted" or not intent["limited"] or intent["workload"] != "vm-vgpu" or intent.get("owner") == "host":
        return
    if intent["node"] not in seen:
        return
    found = (seen[intent["node"]].get("labels") or {}).get(_names.VGPU_CONFIG_LABEL)
    if found != intent["profile"]:
        problem = f"its label {_names.VGPU_CONFIG_LABEL} is {found or 'not set'}, and the inventory says {intent['profile']}"
        yield Problem(f"node {intent['node']}", problem, _REPAIR)


def _undecided(intents: list[Facts], seen: t.Mapping[str, Facts], fleet: Facts) -> t.Iterator[Problem]:
    ours = {str(intent["node"]) for intent in intents}
    for name in sorted(map(str, fleet["possible_gpu_nodes"])):
        labels = (seen.get(name) or {}).get("labels") or {}
        decided = labels.get(_names.WORKLOAD_LABEL) in _names.WORKLOADS or labels.get(_names.OPERANDS_LABEL) == "false"
        if name in seen and name not in ours and not decided:
            problem = "it may have a GPU, is not in the inventory, and carries no decision: the operator takes it for a container node"
            yield Problem(
                f"node {name}", problem, f"Put it into the inventory, or {_REPAIR[0].lower()}{_REPAIR[1:]}, which keeps operands off it"
            )


def _permits(intents: list[Facts], nodes: list[Facts], permits: Facts) -> t.Iterator[Problem]:
    met = {str(node["name"]) for node in nodes}
    wanted = permitted_devices([intent for intent in intents if str(intent["node"]) in met], nodes)
    yield from (Problem(**blocker) for blocker in wanted["blockers"])
    kubevirt = permits["kubevirt"]
    where = f"KubeVirt {kubevirt['namespace']}/{kubevirt['name']}"
    if kubevirt["mdev_handling"] != "disabled" and any(intent["workload"] == "vm-vgpu" for intent in intents):
        problem = "it handles mediated devices itself, and deletes vGPUs that it does not know"
        yield Problem(where, problem, f"{_REPAIR}, which turns that off")
    devices = [("pci", entry) for entry in wanted["pci_devices"]] + [("mdev", entry) for entry in wanted["mediated_devices"]]
    if devices and not kubevirt["allow_list"]:
        yield Problem(where, "it has no list of permitted devices, so any VM may take any device", _REPAIR)
        return
    known = {str(device["resource_name"]): device for device in permits["devices"]}
    for kind, entry in devices:
        name = str(entry["resource_name"])
        device = known.get(name) or {"permitted": False, "entries": [], "advertised": {}, "requested_by": []}
        reason = _not_permitted(kind, entry, device)
        if reason:
            yield Problem(f"device {name}", f"{reason} ({_vm_why.sides(device)})", f"{_REPAIR}, which permits it")


def _not_permitted(kind: str, wanted: Facts, device: Facts) -> str:
    """Why a device's entries do not permit what is wanted; empty if one does."""
    if not device["permitted"]:
        return "KubeVirt does not permit it"
    like = [
        entry for entry in device["entries"] if entry["kind"] == kind and _key(kind, entry["selector"]) == _key(kind, wanted["selector"])
    ]
    if not like:
        others = ", ".join(f"{entry['kind']} {entry['selector']}" for entry in device["entries"])
        return f"KubeVirt permits it for {others}, and on the nodes it is {kind} {wanted['selector']}"
    # KubeVirt starts a plugin of its own for each entry without it (pkg/virt-handler/device-manager/device_controller.go).
    if not wanted["external"]:
        if all(entry["external"] for entry in like):
            return "KubeVirt leaves it to another plugin (externalResourceProvider is true), and its host has none"
    elif not all(entry["external"] for entry in like):
        return (
            "KubeVirt takes it for a device that it has to advertise itself (externalResourceProvider is not true), beside NVIDIA's plugin"
        )
    return ""


def _key(kind: str, selector: str | None) -> str:
    return _names.pci_id_key(selector or "") if kind == "pci" else _names.mdev_name_key(selector or "")
