# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two more nodes, whose hosts own their devices and have them already, and virt-handler on every node. ``lab reset`` takes them away.

They are no part of every lab: their devices and those of the other hosts cannot be used side by side, as KubeVirt tells them apart by their
PCI id only.
"""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from tests.hosts import specification, tree
from tests.lab import kubevirt, nodes
from tests.lab.api import Api
from tests.lab.layout import LabError, Layout

_DAEMONSETS = f"/apis/apps/v1/namespaces/{kubevirt.NAMESPACE}/daemonsets"
_LABELS = {"kubevirt.io": "virt-handler"}
#: From this version on KubeVirt's own plugin knows virtual functions that have a vGPU.
VERSION = "v1.9.0"


def add(layout: Layout, api: Api) -> list[str]:
    """Their names. KubeVirt says that it is of another version than it is, and leaves mediated devices alone, as whoever made some had to see to."""
    there = sorted(name for name in specification.OWNED_HOSTS if (layout.hosts / name).exists())
    if there:
        raise LabError(f"Adding hosts that own their devices: the lab in {layout.directory} has {', '.join(there)} already.")
    gate = {"configuration": {"developerConfiguration": {"featureGates": ["DisableMDEVConfiguration"]}}}
    api.patch(kubevirt.OBJECT, {"spec": gate})
    api.patch(f"{kubevirt.OBJECT}/status", {"status": {"observedKubeVirtVersion": VERSION}})
    for name, spec in specification.OWNED_HOSTS.items():
        build(layout.hosts / name, spec)
        api.create(nodes.NODES, nodes.node_object(name, layout.hosts / name))
    api.create(_DAEMONSETS, _daemonset())
    return list(specification.OWNED_HOSTS)


def build(root: Path, spec: specification.HostSpec) -> None:
    """A tree with what no recording has: an id of the machine, of which UUIDs are made, systemd, and the names of types.

    On virtual functions that all have a vGPU the driver names no type any more: whoever made them has noted the names (mdev_create).
    """
    tree.build(root, spec)
    names = {str(number): name for number, (name, _most) in specification.A10_TYPES.items()}
    noted = root / "var/lib/gpufleet/vgpu_types.json"
    noted.parent.mkdir(parents=True, exist_ok=True)
    noted.write_text(json.dumps({"driver": spec.host_driver, "types": {"0x10de:0x2236": names}}))
    (root / "etc/machine-id").write_text(f"{uuid.uuid5(uuid.NAMESPACE_OID, root.name).hex}\n")
    (root / "usr/bin/nvidia-vgpud").write_text("")  # a driver that brings this is a vGPU manager
    (root / "etc/systemd/system").mkdir(parents=True, exist_ok=True)


def remove(api: Api) -> None:
    """What is not in the nodes and the KubeVirt object, which are made afresh anyway."""
    api.delete(f"{_DAEMONSETS}/virt-handler")
    for pod in api.items(f"/api/v1/namespaces/{kubevirt.NAMESPACE}/pods", labelSelector="kubevirt.io=virt-handler"):
        api.delete(f"/api/v1/namespaces/{kubevirt.NAMESPACE}/pods/{pod['metadata']['name']}", {"gracePeriodSeconds": 0})


def _daemonset() -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "virt-handler", "labels": _LABELS},
        "spec": {
            "selector": {"matchLabels": _LABELS},
            "template": {
                "metadata": {"labels": _LABELS},
                "spec": {
                    "containers": [{"name": "virt-handler", "image": f"quay.io/kubevirt/virt-handler:{VERSION}"}],
                    "nodeSelector": {"kubernetes.io/os": "linux"},
                    "tolerations": [{"operator": "Exists"}],
                },
            },
        },
    }
