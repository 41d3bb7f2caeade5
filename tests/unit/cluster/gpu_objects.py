# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plain API objects of a GPU cluster, as small as the tests need them."""

from __future__ import annotations

import types
import typing as t

Json = dict[str, t.Any]

NAMESPACE = "gpu-operator"
WORKLOAD = "nvidia.com/gpu.workload.config"
PROFILE = "nvidia.com/vgpu.config"
STATE = "nvidia.com/vgpu.config.state"
OPERANDS = "nvidia.com/gpu.deploy.operands"
DEPLOY = "nvidia.com/gpu.deploy."
REFUSED = "gpufleet.kubevirt/operands-refused"
A10 = "nvidia.com/GA102GL_A10"
VGPU = "nvidia.com/NVIDIA_A10-4Q"
READY = [{"type": "Ready", "status": "True"}]

#: Operand -> label of its pods.
POD_LABEL = {
    "device-plugin": {"app": "nvidia-device-plugin-daemonset"},
    "operator-validator": {"app": "nvidia-operator-validator"},
    "vfio-manager": {"name": "nvidia-vfio-manager"},
    "sandbox-validator": {"app": "nvidia-sandbox-validator"},
    "sandbox-device-plugin": {"app": "nvidia-sandbox-device-plugin-daemonset"},
    "vgpu-manager": {"app": "nvidia-vgpu-manager-daemonset"},
    "vgpu-device-manager": {"app": "nvidia-vgpu-device-manager"},
}
#: Workload -> operands that prove it.
PROOF = {
    "container": ("device-plugin", "operator-validator"),
    "vm-passthrough": ("vfio-manager", "sandbox-validator", "sandbox-device-plugin"),
    "vm-vgpu": ("vgpu-manager", "vgpu-device-manager", "sandbox-validator", "sandbox-device-plugin"),
}


def node(name: str, labels: Json | None = None, allocatable: Json | None = None, notes: Json | None = None, ready: bool = True) -> Json:
    return {
        "metadata": {"name": name, "labels": dict(labels or {}), "annotations": dict(notes or {})},
        "spec": {},
        "status": {
            "allocatable": {"cpu": "8", **{key: str(value) for key, value in (allocatable or {}).items()}},
            "nodeInfo": {"bootID": f"boot-{name}"},
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }


def operand_pod(operand: str, on: str, revision: str = "new", ready: bool = True, phase: str = "Running") -> Json:
    return {
        "metadata": {
            "name": f"{operand}-{on}",
            "namespace": NAMESPACE,
            "uid": f"uid-{operand}-{on}",
            "labels": {**POD_LABEL[operand], "controller-revision-hash": revision},
            "ownerReferences": [{"kind": "DaemonSet", "name": operand, "uid": f"ds-{operand}", "controller": True}],
        },
        "spec": {"nodeName": on, "nodeSelector": {DEPLOY + operand: "true"}, "containers": [{"name": "main"}]},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
    }


def daemonset(operand: str, strategy: str = "OnDelete") -> Json:
    return {
        "metadata": {"name": operand, "uid": f"ds-{operand}", "generation": 2},
        "spec": {"template": {"spec": {"nodeSelector": {DEPLOY + operand: "true"}}}, "updateStrategy": {"type": strategy}},
        "status": {"observedGeneration": 2},
    }


def revisions(operand: str) -> list[Json]:
    return [
        {
            "metadata": {
                "name": f"{operand}-{label}",
                "labels": {"controller-revision-hash": label},
                "ownerReferences": [{"kind": "DaemonSet", "uid": f"ds-{operand}"}],
            },
            "revision": number,
        }
        for number, label in ((9, "old"), (10, "new"))
    ]


def pod(
    name: str, on: str | None, asks: Json | None = None, namespace: str = "ml", phase: str = "Running", owner: str | None = None
) -> Json:
    item: Json = {
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"nodeName": on, "containers": [{"name": "main", "resources": {"limits": dict(asks or {}), "requests": dict(asks or {})}}]},
        "status": {"phase": phase},
    }
    if owner:
        item["metadata"]["ownerReferences"] = [{"kind": owner, "name": "o", "uid": "o", "controller": True}]
    return item


def launcher(vm: str, on: str | None, asks: Json, namespace: str = "ml", phase: str = "Running") -> Json:
    """The virt-launcher pod of a virtual machine instance."""
    item = pod(f"virt-launcher-{vm}-x", on, {"cpu": "100m", "memory": "1.5Gi", **asks}, namespace, phase, "VirtualMachineInstance")
    item["metadata"]["labels"] = {"kubevirt.io": "virt-launcher", "kubevirt.io/created-by": f"uid-{vm}"}
    item["metadata"]["annotations"] = {"kubevirt.io/domain": vm}
    return item


def vmi(name: str, on: str | None, devices: t.Iterable[str] = (), phase: str = "Running", namespace: str = "ml") -> Json:
    return {
        "metadata": {"name": name, "namespace": namespace, "uid": f"uid-{name}", "labels": {}},
        "spec": {"domain": {"devices": {"gpus": [{"name": f"g{n}", "deviceName": device} for n, device in enumerate(devices)]}}},
        "status": {"phase": phase, **({"nodeName": on} if on else {})},
    }


def policy(reason: str = "Reconciled", state: str = "ready") -> Json:
    return {
        "metadata": {"name": "cluster-policy", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"sandboxWorkloads": {"enabled": True, "defaultWorkload": "container"}},
        "status": {"state": state, "conditions": [{"type": "Ready", "status": "True", "reason": reason, "message": f"because {reason}"}]},
    }


class Clock(types.SimpleNamespace):
    """Stands for the module ``time``: a sleep takes no time and moves the clock."""

    def __init__(self) -> None:
        import time

        super().__init__(now=1000.0, wall=time.time(), strptime=time.strptime, on_sleep=lambda: None)

    def monotonic(self) -> float:
        return float(self.now)

    def time(self) -> float:
        return float(self.wall + self.now - 1000.0)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.on_sleep()
