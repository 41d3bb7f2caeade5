# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every node's virt-handler, beside the simulated operator: looks, asks the pure part, and writes what the nodes advertise."""

from __future__ import annotations

import time
from collections.abc import Collection

from tests.hosts import tree
from tests.lab import kubevirt
from tests.lab import nodes as lab_nodes
from tests.lab.api import STRATEGIC, Api
from tests.lab.layout import Layout
from tests.lab.operands import virt_handler
from tests.lab.operands.labels import Json

_PODS = f"/api/v1/namespaces/{kubevirt.NAMESPACE}/pods"
#: Seconds; the real one comes every 1 to 2.2 minutes (pkg/virt-handler/heartbeat).
_HEARTBEAT = 60.0


class VirtHandlers:
    """Those whose pods the lab has (``lab owned``)."""

    def __init__(self, layout: Layout, api: Api, speed: float = 1.0) -> None:
        self.layout, self.api, self.speed = layout, api, speed
        self.faults: frozenset[str] = frozenset()
        self.handlers: dict[str, tuple[str, virt_handler.Handler]] = {}  # node -> uid of the pod, and its state

    def round(self) -> bool:
        """Look once and do what is to be done; True if anything was."""
        pods = virt_handler.running(self.api.items(_PODS, labelSelector="kubevirt.io=virt-handler"))
        if not pods and not self.handlers:
            return False
        self.faults = frozenset(self.layout.read()["faults"])
        allowed = virt_handler.permits(self.api.find(kubevirt.OBJECT) or {})
        nodes = {node["metadata"]["name"]: node for node in self.api.items(lab_nodes.NODES)}
        done = [self._node(nodes[name], pods.get(name), allowed) for name in sorted(pods.keys() | self.handlers.keys()) if name in nodes]
        self.handlers = {name: kept for name, kept in self.handlers.items() if name in nodes}
        return any(done)

    def _node(self, node: Json, pod: Json | None, allowed: virt_handler.Permits) -> bool:
        name = node["metadata"]["name"]
        uid, before = self.handlers.get(name, ("", None))
        was = set(before.plugins) if before else set()
        if pod is None:
            # The kubelet takes the devices of a plugin that has gone for lost.
            del self.handlers[name]
            return self._advertise(node, {}, was)
        around = virt_handler.Around(allowed, time.monotonic(), _HEARTBEAT / self.speed, "deaf-virt-handler" in self.faults)
        root = self.layout.hosts / name
        now = virt_handler.step(before if uid == pod["metadata"]["uid"] else None, around, lambda: self._found(name, allowed))
        self.handlers[name] = (pod["metadata"]["uid"], now)
        if now.crashed and not (before and before.crashed):
            lab_nodes.record(self.layout, event="virt_handler_crashed", node=name, why=now.crashed)
        return root.is_dir() and self._advertise(node, dict(now.plugins), was - now.plugins.keys())

    def _found(self, name: str, allowed: virt_handler.Permits) -> dict[str, int]:
        root = self.layout.hosts / name
        if unwanted := virt_handler.unwanted(root, allowed):
            lab_nodes.record(self.layout, event="mdevs_deleted", node=name, devices=unwanted)
            tree.drop_vgpus(root, unwanted)
        return virt_handler.discover(root, allowed)

    def _advertise(self, node: Json, plugins: dict[str, int], ended: Collection[str]) -> bool:
        changes = virt_handler.changes(node["status"].get("allocatable") or {}, plugins, ended)
        if changes:
            body = {"status": {"capacity": changes, "allocatable": changes}}
            self.api.patch(f"{lab_nodes.NODES}/{node['metadata']['name']}/status", body, STRATEGIC)
        return bool(changes)
