# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Which pods of virt-handler may be restarted, so that KubeVirt's own device plugins look at a node's devices anew. Pure.

A plugin that runs is never refreshed, and devices that come later are seen with the next change of the KubeVirt object at best
(kubevirt/kubevirt v1.9, pkg/virt-handler/device-manager/device_controller.go). Running VMs are QEMU in pods of their own. A migration is
not: virt-handler of both nodes carries it out.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _change
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _operands, _wait
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._operands import Object

#: Label of its pods (kubevirt/kubevirt, pkg/virt-operator/resource/generate/components/daemonsets.go).
SELECTOR = "kubevirt.io=virt-handler"
ACTION = "restart virt-handler"


@dataclasses.dataclass(frozen=True)
class Observed:
    """Pods of virt-handler, and all VirtualMachineInstances."""

    pods: t.Sequence[Object]
    vmis: t.Sequence[Object]

    def handler(self, node: str) -> Object | None:
        """The newest pod of a node."""
        here = [pod for pod in self.pods if (pod.get("spec") or {}).get("nodeName") == node and not _operands.terminal(pod)]
        return max(here, key=lambda pod: str(pod["metadata"].get("creationTimestamp") or ""), default=None)


def make_plan(nodes: t.Sequence[str], observed: Observed) -> _change.Plan:
    """One restart per node. A node that cannot have one stops no other."""
    plan = _change.Plan()
    for node in dict.fromkeys(nodes):
        target = f"node {node}"
        pod, moving = observed.handler(node), migrating(node, observed.vmis)
        if pod is None:
            problem, remedy = "no virt-handler runs on it", "Look at KubeVirt's DaemonSet virt-handler and its node placement"
        elif _operands.owner(pod).get("kind") != "DaemonSet":
            problem, remedy = f"pod {pod['metadata']['name']} is of no DaemonSet, and would not come back", "Restart it yourself"
        elif moving:
            problem, remedy = f"{', '.join(moving)} migrates from or to it, which virt-handler carries out", "Run again when that is over"
        else:
            before, after = {"pod": pod["metadata"]["name"], "uid": pod["metadata"].get("uid")}, {"pod": "a new one"}
            plan.changes.append(_change.Change(target, ACTION, before, after, "it looks at the node's devices only at its start"))
            continue
        plan.blockers.append(_change.Blocker(target, problem, remedy, stops="target"))
    return plan


def migrating(node: str, vmis: t.Iterable[Object]) -> list[str]:
    """VMs on their way from or to a node, as ``namespace/name``."""
    found = []
    for vmi in vmis:
        state = (vmi.get("status") or {}).get("migrationState") or {}
        over = not state or state.get("completed") or state.get("failed") or state.get("endTimestamp")
        if not over and node in (state.get("sourceNode"), state.get("targetNode"), (vmi.get("status") or {}).get("nodeName")):
            found.append(f"{vmi['metadata'].get('namespace')}/{vmi['metadata']['name']}")
    return sorted(found)


def not_back(changes: t.Iterable[_change.Change], observed: Observed) -> dict[str, str]:
    """Why a restarted virt-handler is not back yet, by target; empty when all are."""
    found = {}
    for change in changes:
        pod = observed.handler(change.target[len("node ") :])
        if pod is None or pod["metadata"].get("uid") == change.before["uid"] or pod["metadata"].get("deletionTimestamp"):
            found[change.target] = "its new virt-handler has not come"
        elif not _wait.ready(pod):
            found[change.target] = f"pod {pod['metadata']['name']} is not ready"
    return found
