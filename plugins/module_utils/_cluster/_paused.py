# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Operands that a change has paused: is the change still under way, and what sets them free if it has died?

The vGPU Device Manager and k8s-driver-manager take other operands off a node by overwriting their ``nvidia.com/gpu.deploy.*`` labels, and
write them back in the end. Killed in between, they leave them: the operator honours any value, and the next device manager waits for a file
that only an operand writes which is paused. Sources: NVIDIA/vgpu-device-manager v0.5.0, cmd/nvidia-k8s-vgpu-dm/main.go;
NVIDIA/k8s-driver-manager, cmd/driver-manager/main.go.
"""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _operands
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._operands import Object, labels

#: What they write in place of ``true``, and behind any other value.
_PAUSED = "paused-for-"
_BEHIND = "_paused-for-driver-upgrade"
#: Operand -> the label without which the operator does not deploy it on a node of its workload (controllers/state_manager.go, v26.7.0).
_ONLY_WITH = {"mig-manager": "nvidia.com/mig.capable"}
#: Operands whose init container is k8s-driver-manager.
_WITH_DRIVER_MANAGER = frozenset({"driver", "vgpu-manager", "vfio-manager"})


def _ready(pod: t.Mapping[str, t.Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(entry.get("type") == "Ready" and entry.get("status") == "True" for entry in conditions)


def _preparing(pod: t.Mapping[str, t.Any]) -> bool:
    """Does an init container of it run now?"""
    statuses = (pod.get("status") or {}).get("initContainerStatuses") or []
    return any((status.get("state") or {}).get("running") is not None for status in statuses)


def at_work(node: t.Mapping[str, t.Any], pods: t.Iterable[t.Mapping[str, t.Any]]) -> list[str]:
    """Who is in the middle of a change of this node, as names of operands' pods.

    ``pods``: at least those of the node. The device manager says ``pending`` before it pauses anything and something else after it has
    set all free; one that has died is not there, or not ready, because it waits.
    """
    found = set()
    for pod in pods:
        if (pod.get("spec") or {}).get("nodeName") != node["metadata"]["name"] or _operands.terminal(pod):
            continue
        operand = _operands.operand_of_pod(pod)
        if operand == "vgpu-device-manager":
            busy = _ready(pod) and labels(node).get(_operands.VGPU_STATE) == "pending"
        else:
            busy = operand in _WITH_DRIVER_MANAGER and _preparing(pod)
        if busy:
            found.add(_operands.app_of_pod(pod) or str(operand))
    return sorted(found)


def _for(node: Object, operand: str) -> bool:
    """Would the operator deploy it on this node of its workload?"""
    needed = _ONLY_WITH.get(operand)
    return needed is None or labels(node).get(needed) == "true"


def paused(own: t.Mapping[str, str], workload: str | None) -> list[str]:
    """The operands of a workload that labels of a node say are paused, as ``KEY=VALUE``: those that :func:`freed` sets free, empty ones aside."""
    return [f"{key}={own[key]}" for key in freed({"metadata": {"labels": dict(own)}}, workload) if _PAUSED in own[key]]


def freed(node: Object, workload: str | None) -> dict[str, str | None]:
    """The labels that set paused operands of this workload free: key -> value.

    Those of other workloads stay as they are: ``true`` would deploy, for instance, the container driver on a node of VMs. ``false`` and
    ``pre-installed`` are somebody's decision. An empty value is what k8s-driver-manager leaves of an operand that was not there yet, which may
    also be one that is not for this node.
    """
    found: dict[str, str | None] = {}
    for operand in _operands.DEPLOYED.get(workload or "", ()):
        key = f"{_operands.DEPLOY_PREFIX}{operand}"
        value = labels(node).get(key)
        if value is None:
            continue
        if value.endswith(_BEHIND):
            found[key] = value[: -len(_BEHIND)]
        elif value.startswith(_PAUSED) or (value == "" and _for(node, operand)):
            found[key] = "true"
    return found
