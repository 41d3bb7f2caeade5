# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Switches of the operator that would take GPUs from running VMs: OnDelete keeps old pods, but not those of a DaemonSet that goes or comes."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _installs
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._intents._intents import Problem
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._operator._mappings import at

Facts = t.Mapping[str, t.Any]

_CRD = ("driver", "nvidiaDriverCRD", "enabled")
#: Operands that the chart has off where nothing is said (values.yaml, v26.7.0). All others are on.
OFF = frozenset({"dcgm", "node-status-exporter", "vgpu-manager"})


def crd(wanted: Facts) -> t.Iterator[Problem]:
    """NVIDIADriver objects are refused, so what makes the operator look for them is, too."""
    if at(wanted, _CRD) is True:
        problem = "driver.nvidiaDriverCRD.enabled is true: drivers would follow NVIDIADriver objects, which this collection does not make"
        yield Problem("gpufleet_operator_values", problem, "Leave it out")


def running(fleet: Facts) -> dict[str, list[str]]:
    """Node -> VMs (``namespace/name``) on it that have GPUs."""
    found: dict[str, set[str]] = {}
    for node in fleet["nodes"]:
        for uses in node["used"].values():
            for use in uses:
                if use["vmi"]:
                    found.setdefault(str(node["name"]), set()).add(f"{use['namespace']}/{use['vmi']}")
    return {name: sorted(vms) for name, vms in sorted(found.items())}


def enabled(operand: str, wanted: Facts, defaults: Facts) -> bool:
    """Would these values have the operand? ``defaults``: the chart's own values, where they are at hand."""
    path = (_installs.SWITCHES[operand], "enabled")
    for side in (wanted, defaults):
        if at(side, path) is not None:
            return bool(at(side, path))
    return operand not in OFF


def disturbing(wanted: Facts, fleet: Facts, defaults: Facts) -> t.Iterator[Problem]:
    """Switches that these values would turn, as far as running VMs with GPUs would notice; none without a ClusterPolicy."""
    policy, vms = fleet["cluster_policy"], running(fleet)
    if not policy or not vms:
        return
    everyone = sorted({vm for names in vms.values() for vm in names})
    modes = [
        ("sandboxWorkloads.enabled", policy["sandbox_enabled"], at(wanted, ("sandboxWorkloads", "enabled")) is True),
        ("driver.nvidiaDriverCRD.enabled", policy["driver_crd"], at(wanted, _CRD) is True),
    ]
    for key, before, after in modes:
        if before != after:
            yield _refused(key, before, after, "it takes operands off nodes and puts others there", everyone)
    for operand, before in policy["operands"].items():
        after = enabled(operand, wanted, defaults)
        key = f"{_installs.SWITCHES[operand]}.enabled"
        if before is True and not after:
            yield _refused(key, before, after, "it takes an operand off its nodes, and devices with it", everyone)
        elif before is False and after:
            hit = sorted(
                vm for node in fleet["nodes"] if _installs.deployed_on(operand, node["workload"]) for vm in vms.get(node["name"], [])
            )
            if hit:
                yield _refused(key, before, after, "a node on which they run would get a pod of it", hit)


def _refused(key: str, before: bool, after: bool, why: str, vms: list[str]) -> Problem:
    problem = f"{key} would become {str(after).lower()} (it is {str(before).lower()}) while VMs with GPUs run: {', '.join(vms)}; {why}"
    return Problem(
        "ClusterPolicy", problem, f"Stop these VMs first, or keep {key} as it is with gpufleet_operator_values where that is possible"
    )
