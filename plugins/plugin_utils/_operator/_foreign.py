# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Operators and GPUs that are not this collection's to change: others' installs, OLM's, and what no ClusterPolicy governs."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._intents._intents import Problem
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._operator._mappings import at

Facts = t.Mapping[str, t.Any]


def by_olm(fleet: Facts) -> bool:
    """Is the operator OLM's? Then OLM writes the Deployment, and people the ClusterPolicy."""
    operator = fleet["operator"]
    return bool(operator["subscriptions"]) or any(entry["by"] == "OLM" for entry in operator["installs"])


def olm_lacks(wanted: Facts, fleet: Facts) -> t.Iterator[Problem]:
    """What OLM's ClusterPolicy lacks of what the fleet needs. It is compared, never written."""
    policy = fleet["cluster_policy"]
    whose = ", ".join(fleet["operator"]["subscriptions"]) or "of a bundle without Subscription"
    if policy is None:
        yield Problem(
            f"OLM's GPU Operator ({whose})",
            "it has no ClusterPolicy yet",
            "Create one, as NVIDIA's guide for OpenShift says, and run again",
        )
        return
    needs = [
        ("sandboxWorkloads.enabled", True, policy["sandbox_enabled"]),
        ("sandboxWorkloads.defaultWorkload", "container", policy["default_workload"]),
        ("daemonsets.updateStrategy", "OnDelete", policy["update_strategy"]),
    ]
    if at(wanted, ("vgpuManager", "enabled")):
        needs.append(("vgpuManager.enabled", True, bool(policy["operands"]["vgpu-manager"])))
    wrong = [f"{key} is {_shown(found)}, not {_shown(value)}" for key, value, found in needs if found != value]
    if wrong:
        problem = f"OLM's GPU Operator ({whose}) is not changed by this collection, and of its fields {'; '.join(wrong)}"
        yield Problem(f"ClusterPolicy {policy['name']}", problem, "Set them there, while no GPU VM runs, and run again")


def _shown(value: t.Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def installs(fleet: Facts) -> t.Iterator[Problem]:
    """Second operators and second policies, and those that nobody could update."""
    operator, present = fleet["operator"], fleet["release"]
    policies = operator["policies"]
    if len(policies) > 1:
        problem = f"there are {len(policies)}: the operator follows the oldest, {policies[0]}, and ignores {', '.join(policies[1:])}"
        yield Problem("ClusterPolicy", problem, f"Delete those that are ignored: kubectl delete clusterpolicy {' '.join(policies[1:])}")
    releases = sorted({(entry["release"], entry["release_namespace"]) for entry in operator["installs"] if entry["by"] == "Helm"})
    if len(releases) > 1:
        names = ", ".join(f"release {name} in namespace {namespace}" for name, namespace in releases)
        yield Problem("GPU Operator", f"it is installed {len(releases)} times: {names}", "Uninstall all but one of them")
    if present is None and policies:
        problem = "no Helm release that can be found has made it, so Helm would refuse to take it"
        remedy = (
            "Let the one who made it (a GitOps tool, kubectl) change it and use --skip-tags gpu_operator, or delete it while no GPU VM runs"
        )
        yield Problem(f"ClusterPolicy {policies[0]}", problem, remedy)
    elif present is None and operator["installs"]:
        names = ", ".join(f"{entry['namespace']}/gpu-operator" for entry in operator["installs"])
        problem = "a GPU Operator runs there, and no Helm release of it can be found"
        yield Problem(f"Deployment {names}", problem, "Remove it, or let the one who made it change it and use --skip-tags gpu_operator")


def not_governed(fleet: Facts) -> t.Iterator[Problem]:
    """GPUs whose drivers and devices follow no ClusterPolicy: what is set here would not reach them, or take them away."""
    operator = fleet["operator"]
    for name in operator["drivers"]:
        problem = (
            "it decides the driver or vGPU manager of its nodes, in place of the ClusterPolicy, so what is set here would not reach them"
        )
        yield Problem(f"NVIDIADriver {name}", problem, "Delete it and set driver.nvidiaDriverCRD.enabled to false, while no GPU VM runs")
    for name in operator["gpu_clusters"]:
        problem = "it gives GPUs out by resource claims (DRA), and excludes a ClusterPolicy"
        yield Problem(f"GPUCluster {name}", problem, "Use this collection for a cluster without it, or delete it while no GPU VM runs")
    for entry in operator["claims"]:
        problem = f"it has GPUs by resource claims (DRA: {', '.join(entry['claims'])}), which no ClusterPolicy governs"
        yield Problem(f"VM {entry['vmi']}", problem, "Stop it, or use this collection for a cluster without such VMs")
