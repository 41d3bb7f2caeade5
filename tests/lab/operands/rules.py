# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the simulated operator decides, as pure functions of what it sees.

The facts are those of NVIDIA/gpu-operator v26.7.0 (controllers/state_manager.go, nodelabeling_controller.go, assets/), of
NVIDIA/vgpu-device-manager v0.5.0 and NVIDIA/kubevirt-gpu-device-plugin v1.6.0. Independent of the collection's own tables on purpose.
"""

from __future__ import annotations

import dataclasses
from typing import Any

Json = dict[str, Any]

WORKLOAD = "nvidia.com/gpu.workload.config"
OPERANDS = "nvidia.com/gpu.deploy.operands"
DEPLOY = "nvidia.com/gpu.deploy."
PRESENT = "nvidia.com/gpu.present"
NFD = "feature.node.kubernetes.io/pci-10de.present"
CONFIG = "nvidia.com/vgpu.config"
STATE = "nvidia.com/vgpu.config.state"
PAUSED = "paused-for-vgpu-change"

#: Workload -> operands for which the operator labels a node.
OPERANDS_OF = {
    "container": [
        "driver", "gpu-feature-discovery", "container-toolkit", "device-plugin", "dcgm", "dcgm-exporter", "node-status-exporter",
        "operator-validator", "client",
    ],
    "vm-passthrough": ["sandbox-device-plugin", "sandbox-validator", "vfio-manager", "kata-manager", "cc-manager", "client"],
    "vm-vgpu": ["sandbox-device-plugin", "vgpu-manager", "vgpu-device-manager", "sandbox-validator", "cc-manager", "client"],
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Operand:
    """One DaemonSet: its name, the label that its pods carry, and the path of the switch in the ClusterPolicy (None: always on)."""

    daemonset: str
    key: str = "app"
    switch: str | None = None
    sandbox: bool = False


#: Operand -> its DaemonSet. vfio-manager's pods carry `name`, the others `app`.
DAEMONSETS = {
    "driver": Operand("nvidia-driver-daemonset", switch="driver"),
    "container-toolkit": Operand("nvidia-container-toolkit-daemonset", switch="toolkit"),
    "device-plugin": Operand("nvidia-device-plugin-daemonset", switch="devicePlugin"),
    "operator-validator": Operand("nvidia-operator-validator"),
    "gpu-feature-discovery": Operand("gpu-feature-discovery", switch="gfd"),
    "dcgm-exporter": Operand("nvidia-dcgm-exporter", switch="dcgmExporter"),
    "vfio-manager": Operand("nvidia-vfio-manager", key="name", switch="vfioManager", sandbox=True),
    "vgpu-manager": Operand("nvidia-vgpu-manager-daemonset", switch="vgpuManager", sandbox=True),
    "vgpu-device-manager": Operand("nvidia-vgpu-device-manager", switch="vgpuDeviceManager", sandbox=True),
    "sandbox-validator": Operand("nvidia-sandbox-validator", sandbox=True),
    "sandbox-device-plugin": Operand("nvidia-sandbox-device-plugin-daemonset", switch="sandboxDevicePlugin", sandbox=True),
}
#: These DaemonSets are always updated by hand, whatever the policy says.
ALWAYS_ON_DELETE = ("driver",)


def labels(item: Json) -> dict[str, str]:
    return item["metadata"].get("labels") or {}


def sandbox(policy: Json) -> Json:
    return policy["spec"].get("sandboxWorkloads") or {}


# ------------------------------------------------------------------ NFD and node labels


def nfd_labels(node: Json, has_gpu: bool) -> dict[str, str]:
    """The labels that Node Feature Discovery adds to a node that lacks them."""
    wanted = {
        "feature.node.kubernetes.io/kernel-version.full": "5.15.0-119-generic",
        "feature.node.kubernetes.io/system-os_release.ID": "ubuntu",
        "feature.node.kubernetes.io/system-os_release.VERSION_ID": "22.04",
        **({NFD: "true"} if has_gpu else {}),
    }
    return {key: value for key, value in wanted.items() if labels(node).get(key) != value}


def effective_workload(node: Json, policy: Json) -> str:
    """Missing or invalid: the default workload. Without sandbox workloads every node is a container node, whatever its label says."""
    if not sandbox(policy).get("enabled"):
        return "container"
    given = labels(node).get(WORKLOAD, "")
    return given if given in OPERANDS_OF else sandbox(policy).get("defaultWorkload") or "container"


def triggers(node: Json, policy: Json) -> tuple[Any, ...]:
    """What makes the operator look at a node's labels again. Changing a deploy label does not."""
    own = labels(node)
    return (own.get(NFD), own.get(WORKLOAD), own.get(OPERANDS), policy["metadata"].get("generation"))


def deploy_labels(node: Json, policy: Json) -> dict[str, str | None]:
    """Changes of a GPU node's labels: what is missing is added, what is there is honoured, what belongs to another workload goes."""
    own = labels(node)
    present = {key for key in own if key.startswith(DEPLOY) and key != OPERANDS}
    changes: dict[str, str | None] = {} if own.get(PRESENT) == "true" else {PRESENT: "true"}
    if own.get(OPERANDS) == "false":
        return {**changes, **dict.fromkeys(sorted(present))}
    wanted = {DEPLOY + name for name in OPERANDS_OF[effective_workload(node, policy)]}
    changes.update({key: "true" for key in sorted(wanted) if not own.get(key)})
    changes.update(dict.fromkeys(sorted(present - wanted)))
    return changes


# ------------------------------------------------------------------ DaemonSets and status


def enabled(policy: Json) -> list[str]:
    """The operands whose DaemonSet should exist. The vGPU Device Manager does not ask for the vGPU manager."""
    found = []
    for name, operand in DAEMONSETS.items():
        on = operand.switch is None or bool((policy["spec"].get(operand.switch) or {}).get("enabled"))
        if on and (not operand.sandbox or sandbox(policy).get("enabled")):
            found.append(name)
    return found


def daemonset(name: str, policy: Json, namespace: str) -> Json:
    """The DaemonSet of one operand. The chart's version is in the pod template, so every other version of it is another revision."""
    operand = DAEMONSETS[name]
    common = policy["spec"].get("daemonsets") or {}
    strategy = "OnDelete" if name in ALWAYS_ON_DELETE else common.get("updateStrategy") or "RollingUpdate"
    own = policy["spec"].get(operand.switch or "") or {}
    image = f"{own.get('repository') or 'example.invalid'}/{own.get('image') or name}:{own.get('version') or 'lab'}"
    selector = {operand.key: operand.daemonset}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": operand.daemonset, "namespace": namespace, "labels": {"app": operand.daemonset}},
        "spec": {
            "selector": {"matchLabels": selector},
            "updateStrategy": {"type": strategy},
            "template": {
                "metadata": {"labels": {**(common.get("labels") or {}), **selector}},
                "spec": {
                    "nodeSelector": {DEPLOY + name: "true"},
                    "tolerations": common.get("tolerations") or [],
                    "priorityClassName": "system-node-critical",
                    "containers": [{"name": name, "image": image}],
                },
            },
        },
    }


def differs(now: Json, wanted: Json) -> bool:
    """Would the operator update this DaemonSet?"""
    a, b = now["spec"], wanted["spec"]
    return (
        a["updateStrategy"]["type"] != b["updateStrategy"]["type"]
        or a["template"]["metadata"].get("labels") != b["template"]["metadata"]["labels"]
        or a["template"]["spec"]["containers"][0]["image"] != b["template"]["spec"]["containers"][0]["image"]
    )


def status(policy: Json, nodes: list[Json], daemonsets: list[Json]) -> tuple[str, str, str]:
    """State, reason and message of the ClusterPolicy. Under OnDelete it is not ready until the last old pod is gone."""
    del policy
    if not any(key.startswith("feature.node.kubernetes.io/") for node in nodes for key in labels(node)):
        return "notReady", "NFDLabelsMissing", "No NFD labels found in the cluster"
    if not any(labels(node).get(NFD) == "true" for node in nodes):
        return "ready", "NoGPUNodes", "No GPU node found, watching for new nodes to join the cluster."
    waiting = [item["metadata"]["name"] for item in daemonsets if not rolled_out(item)]
    if waiting:
        return "notReady", "OperandNotReady", f"ClusterPolicy is not ready, states not ready: {sorted(waiting)}"
    return "ready", "Reconciled", "ClusterPolicy is ready as all resources have been successfully reconciled"


def rolled_out(item: Json) -> bool:
    now = item.get("status") or {}
    wanted = now.get("desiredNumberScheduled", 0)
    return (
        now.get("observedGeneration") == item["metadata"].get("generation")
        and now.get("numberAvailable", 0) == wanted
        and now.get("updatedNumberScheduled", 0) == wanted
    )


# ------------------------------------------------------------------ devices


#: Names that the sandbox device plugin makes of NVIDIA's names in pci.ids, by device id.
PLUGIN_NAMES = {"2236": "GA102GL_A10"}


def passthrough_resources(gpus: dict[str, str], drivers: dict[str, str | None]) -> dict[str, int]:
    """What the sandbox plugin finds at its start: GPUs (device id by address) on vfio-pci. An id without a name is advertised as it is."""
    found: dict[str, int] = {}
    for address, device in gpus.items():
        if drivers.get(address) == "vfio-pci":
            name = f"nvidia.com/{PLUGIN_NAMES.get(device, device.lower())}"
            found[name] = found.get(name, 0) + 1
    return found


def vgpu_resources(kinds: list[str]) -> dict[str, int]:
    """What the sandbox plugin finds at its start: vGPUs by the full name of their type."""
    found: dict[str, int] = {}
    for kind in kinds:
        name = "nvidia.com/" + "_".join(kind.split())
        found[name] = found.get(name, 0) + 1
    return found


def allocatable(now: dict[str, str], wanted: dict[str, int]) -> dict[str, str]:
    """Changes of a node's nvidia.com resources. A resource that goes stays behind with the value 0, as the kubelet leaves it."""
    own = {key: value for key, value in now.items() if key.startswith("nvidia.com/")}
    changes = {key: str(count) for key, count in wanted.items() if own.get(key) != str(count)}
    changes.update({key: "0" for key, value in own.items() if key not in wanted and value != "0"})
    return changes


# ------------------------------------------------------------------ the vGPU Device Manager


@dataclasses.dataclass(frozen=True)
class Manager:
    """What one device-manager pod remembers: the configuration that it saw last, the step it is in, and since when (seconds)."""

    pod: str
    applied: str | None = None
    step: str = "idle"  #: idle, pausing, applying
    since: float = 0.0


def manager_step(manager: Manager, node: Json, default: str, now: float, delay: float) -> tuple[Manager, list[tuple[str, Any]]]:
    """The next step of a device manager, and what it does: ("label", {...}) or ("apply", configuration).

    A label that is removed is ignored; the same value written again makes no transition. While it works, the plugin and the validator
    are taken off the node through their labels. A state of before stays until it is overwritten.
    """
    own = labels(node)
    wanted = own.get(CONFIG) or manager.applied or default
    pausable = [DEPLOY + name for name in ("sandbox-device-plugin", "sandbox-validator")]
    if manager.step == "idle":
        if wanted == manager.applied:
            return manager, []
        pause = {key: PAUSED for key in pausable if own.get(key) == "true"}
        return dataclasses.replace(manager, step="pausing", since=now), [("label", {STATE: "pending", **pause})]
    if now - manager.since < delay:
        return manager, []
    if manager.step == "pausing":
        return dataclasses.replace(manager, step="applying", since=now), [("apply", wanted)]
    resume = {key: "true" for key in pausable if own.get(key) == PAUSED}
    return dataclasses.replace(manager, step="idle", applied=wanted, since=now), [("resume", resume)]
