# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's nodes: Node objects that kwok keeps, each with the boot id of its host's directory tree, and their reboots."""

from __future__ import annotations

import json
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.hosts import tree
from tests.lab import profiles
from tests.lab.api import STRATEGIC, Api
from tests.lab.layout import LabError, Layout

STRANGER = "gpu-stranger-0"  # a GPU node that no inventory has; it has no tree
NODES = "/api/v1/nodes"
# What a real virt-handler sets on its node and what launcher pods of virt-controller 1.7 select. It would also keep the annotation
# kubevirt.io/heartbeat up to date: without one virt-controller takes the node for responsive, with an old one it would not.
_VIRT_HANDLER_LABELS = {"kubevirt.io/schedulable": "true", "machine-type.node.kubevirt.io/q35": "true"}
_CAPACITY = {
    "cpu": "64",
    "memory": "512Gi",
    "ephemeral-storage": "1Ti",
    "pods": "250",
    # virt-handler's own device plugins
    "devices.kubevirt.io/kvm": "1k",
    "devices.kubevirt.io/tun": "1k",
    "devices.kubevirt.io/vhost-net": "1k",
}


def build_trees(layout: Layout) -> None:
    """Write the tree of every simulated host afresh."""
    for name, spec in profiles.of(layout).hosts.items():
        tree.build(layout.hosts / name, spec)


def names(layout: Layout, plain: int) -> list[str]:
    """The names of all nodes: those with a tree, the stranger, and `plain` ones without a GPU."""
    return [*sorted(p.name for p in layout.hosts.iterdir()), STRANGER, *(f"plain-{n}" for n in range(plain))]


def boot_id(root: Path) -> str:
    """The boot id that a host tree shows."""
    return (root / "proc/sys/kernel/random/boot_id").read_text().strip()


def _line(path: Path, default: str) -> str:
    try:
        return path.read_text().splitlines()[0].strip()
    except (OSError, IndexError):
        return default


def node_object(name: str, root: Path) -> dict[str, Any]:
    """A Node as its kubelet would register it; of a host without a tree, with a boot id of its own."""
    now = _now()
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake"},
            "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", **_VIRT_HANDLER_LABELS},
        },
        "status": {
            "phase": "Running",
            "capacity": _CAPACITY,
            "allocatable": _CAPACITY,
            "addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": "127.0.0.1"}],
            "conditions": [_ready(now)],
            "nodeInfo": {
                "bootID": boot_id(root) if root.is_dir() else str(uuid.uuid4()),
                "machineID": uuid.uuid4().hex,
                "systemUUID": str(uuid.uuid4()),
                "architecture": "amd64",
                "operatingSystem": "linux",
                "osImage": "Ubuntu 22.04.5 LTS",
                "kernelVersion": _line(root / "proc/sys/kernel/osrelease", "5.15.0-161-generic"),
                "containerRuntimeVersion": "containerd://2.1.4",
                "kubeletVersion": "v1.37.2",
                "kubeProxyVersion": "",
            },
        },
    }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _ready(now: str, status: str = "True", reason: str = "KubeletReady") -> dict[str, str]:
    return {
        "type": "Ready",
        "status": status,
        "reason": reason,
        "message": "set by the lab",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    }


def create(layout: Layout, api: Api, plain: int) -> None:
    """Create all Node objects."""
    for name in names(layout, plain):
        api.create(NODES, node_object(name, layout.hosts / name))


def recreate(layout: Layout, api: Api, plain: int) -> None:
    """Delete all Node objects, those that others made too, and create the lab's afresh."""
    for node in api.items(NODES):
        api.delete(f"{NODES}/{node['metadata']['name']}")
    create(layout, api, plain)


def _tree(layout: Layout, name: str) -> Path:
    known = sorted(p.name for p in layout.hosts.iterdir())
    if name not in known:
        raise LabError(f"Rebooting {name}: the lab in {layout.directory} has no such host. It has: {', '.join(known)}.")
    return layout.hosts / name


def reboot(layout: Layout, api: Api, name: str) -> str:
    """What a reboot does to a node: not ready, its virtual machines lost, the tree booted, ready with a new boot id (returned).

    Nothing is evicted and nothing is refused: a machine does not ask what runs on it.
    """
    root = _tree(layout, name)
    _condition(api, name, _ready(_now(), "False", "NodeRebooting"))
    lose_machines(layout, api, name, "reboot")
    tree.reboot(root)
    new = boot_id(root)
    _condition(api, name, _ready(_now()), nodeInfo={"bootID": new})
    return new


def mend(layout: Layout, api: Api, name: str) -> str:
    """Turn the host's IOMMU on in its firmware, as a person at the console would, and reboot it."""
    tree.mend_firmware(_tree(layout, name))
    return reboot(layout, api, name)


def _condition(api: Api, name: str, condition: dict[str, str], **more: Any) -> None:
    api.patch(f"{NODES}/{name}/status", {"status": {"conditions": [condition], **more}}, STRATEGIC)


def lose_machines(layout: Layout, api: Api, node: str, why: str) -> None:
    """Take down what ran in virtual machines on a node, recording each as lost, as when its power goes."""
    for pod in api.items("/api/v1/pods", labelSelector="kubevirt.io=virt-launcher", fieldSelector=f"spec.nodeName={node}"):
        if pod["status"].get("phase") in ("Succeeded", "Failed"):
            continue
        namespace, machine = (pod["metadata"]["namespace"], pod["metadata"].get("annotations", {}).get("kubevirt.io/domain", "?"))
        record(layout, event="vm_lost", vm=f"{namespace}/{machine}", node=node, why=why)
        api.delete(f"/api/v1/namespaces/{namespace}/pods/{pod['metadata']['name']}", {"gracePeriodSeconds": 0})


def record(layout: Layout, **event: Any) -> None:
    """Append one event, as one line written at once: other processes append too."""
    line = json.dumps({"time": time.time(), **event}) + "\n"
    with open(layout.events, "a") as file:
        file.write(line)
