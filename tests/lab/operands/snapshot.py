# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One look at the cluster: the objects that the simulated operator goes by, and questions about them."""

from __future__ import annotations

import dataclasses

from tests.lab.api import Api
from tests.lab.operands.daemonsets import operand_of
from tests.lab.operands.labels import Json


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of an operand's pod: a pod that outlives a reboot of its node runs anew."""

    pod: str  #: uid
    boot: str
    node: str
    operand: str

    @property
    def key(self) -> str:
        return f"{self.pod} {self.boot}"


@dataclasses.dataclass(frozen=True)
class Seen:
    """Everything that was there at one time."""

    namespace: str | None  #: of the operator's Deployment; None: it is not installed
    policies: tuple[Json, ...] = ()  #: the first is in force, the others are ignored
    nodes: tuple[Json, ...] = ()
    daemonsets: tuple[Json, ...] = ()
    pods: tuple[Json, ...] = ()
    nfd: bool = False  #: is Node Feature Discovery installed?

    def boot(self, node: str) -> str:
        return next((n["status"]["nodeInfo"]["bootID"] for n in self.nodes if n["metadata"]["name"] == node), "")

    def runs(self) -> dict[Run, Json]:
        """The operands' pods that run, oldest first."""
        found = {}
        for pod in sorted(self.pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"])):
            operand, node = operand_of(pod), pod["spec"].get("nodeName") or ""
            boot, alive = self.boot(node), pod["status"].get("phase") == "Running" and not pod["metadata"].get("deletionTimestamp")
            if operand and boot and alive:
                found[Run(pod["metadata"]["uid"], boot, node, operand)] = pod
        return found

    def has_pod(self, node: str, operands: tuple[str, ...]) -> bool:
        """Is there any pod of these operands on the node, be it on its way out?"""
        return any(pod["spec"].get("nodeName") == node and operand_of(pod) in operands for pod in self.pods)


def look(api: Api) -> Seen:
    """Read it."""
    nodes = tuple(api.items("/api/v1/nodes"))
    deployments = api.items("/apis/apps/v1/deployments", labelSelector="app=gpu-operator")
    if not deployments:
        return Seen(None, nodes=nodes)
    namespace = deployments[0]["metadata"]["namespace"]
    policies = api.items("/apis/nvidia.com/v1/clusterpolicies")
    return Seen(
        namespace,
        tuple(sorted(policies, key=lambda item: (item["metadata"]["creationTimestamp"], item["metadata"]["name"]))),
        nodes,
        tuple(item for item in api.items(f"/apis/apps/v1/namespaces/{namespace}/daemonsets") if operand_of(item)),
        tuple(api.items(f"/api/v1/namespaces/{namespace}/pods")),
        bool(api.items(f"/api/v1/namespaces/{namespace}/configmaps", labelSelector="app.kubernetes.io/name=node-feature-discovery")),
    )


def is_ready(item: Json) -> bool:
    """Is a node or a pod ready?"""
    return any(c["type"] == "Ready" and c["status"] == "True" for c in item["status"].get("conditions") or [])
