# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The operands' DaemonSets, and what the operator says about them in the ClusterPolicy. Pure.

Source: NVIDIA/gpu-operator v26.7.0, controllers/object_controls.go, clusterpolicy_controller.go, internal/conditions, assets/.
"""

from __future__ import annotations

import dataclasses

from tests.lab.operands import labels
from tests.lab.operands.labels import DEPLOY, Json


@dataclasses.dataclass(frozen=True)
class Operand:
    """One DaemonSet: its name, the key of the label that its pods carry, and its switch in the ClusterPolicy (None: always on)."""

    daemonset: str
    switch: str | None = None
    key: str = "app"
    sandbox: bool = False


#: Operand -> its DaemonSet. In the order in which they wait for each other on a node.
DAEMONSETS = {
    "driver": Operand("nvidia-driver-daemonset", "driver"),
    "container-toolkit": Operand("nvidia-container-toolkit-daemonset", "toolkit"),
    "device-plugin": Operand("nvidia-device-plugin-daemonset", "devicePlugin"),
    "gpu-feature-discovery": Operand("gpu-feature-discovery", "gfd"),
    "dcgm": Operand("nvidia-dcgm", "dcgm"),
    "dcgm-exporter": Operand("nvidia-dcgm-exporter", "dcgmExporter"),
    "mig-manager": Operand("nvidia-mig-manager", "migManager"),
    "node-status-exporter": Operand("nvidia-node-status-exporter", "nodeStatusExporter"),
    "operator-validator": Operand("nvidia-operator-validator"),
    "vfio-manager": Operand("nvidia-vfio-manager", "vfioManager", key="name", sandbox=True),
    "vgpu-manager": Operand("nvidia-vgpu-manager-daemonset", "vgpuManager", sandbox=True),
    "vgpu-device-manager": Operand("nvidia-vgpu-device-manager", "vgpuDeviceManager", sandbox=True),
    "sandbox-validator": Operand("nvidia-sandbox-validator", sandbox=True),
    "sandbox-device-plugin": Operand("nvidia-sandbox-device-plugin-daemonset", "sandboxDevicePlugin", sandbox=True),
}
#: The ConfigMap that the operator writes where the policy names no other.
STOCK_CONFIG_MAP = "default-vgpu-devices-config"
#: The operator's name of a state, where it is not the operand's with `state-` before it.
_STATES = {
    "gpu-feature-discovery": "gpu-feature-discovery",
    "operator-validator": "state-operator-validation",
    "sandbox-validator": "state-sandbox-validation",
}


def operand_of(item: Json) -> str | None:
    """The operand that a pod or a DaemonSet is, by the labels of its pods."""
    template = item["spec"].get("template")
    own = labels.of(template or item)
    return next((name for name, operand in DAEMONSETS.items() if own.get(operand.key) == operand.daemonset), None)


def enabled(policy: Json) -> list[str]:
    """The operands that have a DaemonSet. The vGPU Device Manager does not ask for the vGPU manager."""
    spec = policy["spec"]
    crd = (spec.get("driver") or {}).get("useNvidiaDriverCRD")  # then the driver and the vGPU manager are an NVIDIADriver's
    sandbox = (spec.get("sandboxWorkloads") or {}).get("enabled")
    found = []
    for name, operand in DAEMONSETS.items():
        on = operand.switch is None or (spec.get(operand.switch) or {}).get("enabled")
        if on and (sandbox or not operand.sandbox) and not (crd and name in ("driver", "vgpu-manager")):
            found.append(name)
    return found


def image_problem(policy: Json) -> str | None:
    """What the operator says to an incomplete image of the vGPU manager, the only one that has no default."""
    own = policy["spec"].get("vgpuManager") or {}
    given = [bool(own.get(key)) for key in ("repository", "image", "version")]
    if "vgpu-manager" not in enabled(policy) or given in ([True, True, True], [False, True, False]):
        return None
    return "failed to handle vGPU manager: invalid image specification: repository, image and version must all be set"


def config_map(policy: Json) -> str:
    """The ConfigMap that the vGPU Device Manager mounts; without a name it is the one that the operator writes."""
    config = (policy["spec"].get("vgpuDeviceManager") or {}).get("config") or {}
    return config.get("name") or STOCK_CONFIG_MAP


def mounted(pod: Json) -> str:
    """The ConfigMap that a device manager's pod, or its template, has mounted."""
    for volume in pod.get("volumes") or []:
        if volume["name"] == "vgpu-config":
            return str(volume["configMap"]["name"])
    return STOCK_CONFIG_MAP


def daemonset(name: str, policy: Json, namespace: str) -> Json:
    """The DaemonSet of one operand. The chart's version is in the pod template, so every other version of it is another revision."""
    operand = DAEMONSETS[name]
    common = policy["spec"].get("daemonsets") or {}
    # The driver's is always updated by hand, or by the upgrade controller, whatever the policy says.
    strategy = "OnDelete" if name == "driver" else common.get("updateStrategy") or "RollingUpdate"
    own = policy["spec"].get(operand.switch or "") or {}
    image = f"{own.get('repository') or 'registry.example.com/nvidia'}/{own.get('image') or name}:{own.get('version') or 'lab'}"
    selector = {operand.key: operand.daemonset}
    volumes = [{"name": "vgpu-config", "configMap": {"name": config_map(policy)}}]
    meta = policy["metadata"]
    owner = {"apiVersion": "nvidia.com/v1", "kind": "ClusterPolicy", "name": meta["name"], "uid": meta["uid"], "controller": True}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {
            "name": operand.daemonset,
            "namespace": namespace,
            "labels": {**(common.get("labels") or {}), **selector},
            "ownerReferences": [owner],
        },
        "spec": {
            "selector": {"matchLabels": selector},
            "updateStrategy": {"type": strategy},
            "template": {
                "metadata": {"labels": {**(common.get("labels") or {}), **selector}},
                "spec": {
                    "nodeSelector": {DEPLOY + name: "true"},
                    "tolerations": common.get("tolerations") or [],
                    "priorityClassName": common.get("priorityClassName") or "system-node-critical",
                    "containers": [{"name": operand.daemonset, "image": image}],
                    **({"volumes": volumes} if name == "vgpu-device-manager" else {}),
                },
            },
        },
    }


def update(now: Json, wanted: Json) -> Json | None:
    """The patch that the operator sends to a DaemonSet, or None. The API server adds defaults, so only what matters is compared."""

    def essence(spec: Json) -> list[object]:
        pod = spec["template"]["spec"]
        image = pod["containers"][0]["image"]
        own = spec["template"]["metadata"].get("labels")
        return [spec["updateStrategy"]["type"], own, image, pod.get("tolerations") or [], mounted(pod)]

    if essence(now["spec"]) == essence(wanted["spec"]):
        return None
    strategy = {"type": wanted["spec"]["updateStrategy"]["type"]}
    if strategy["type"] == "OnDelete":
        strategy["rollingUpdate"] = None
    pod = wanted["spec"]["template"]
    template = {"metadata": {"labels": {"$patch": "replace", **pod["metadata"]["labels"]}}, "spec": pod["spec"]}
    return {"spec": {"updateStrategy": strategy, "template": template}}


def rolled_out(item: Json) -> bool:
    """Ready to the operator: no pod wanted, or all of them available and none of an old revision (under OnDelete too)."""
    now = item.get("status") or {}
    wanted = now.get("desiredNumberScheduled", 0)
    return bool(
        now.get("observedGeneration") == item["metadata"].get("generation")
        and now.get("numberAvailable", 0) == wanted
        and now.get("updatedNumberScheduled", 0) == wanted
    )


def status(policy: Json, nodes: list[Json], daemonsets: list[Json]) -> tuple[str, str, str]:
    """State, reason and message. To be without NFD or without GPU nodes is to be ready."""
    if problem := image_problem(policy):
        return "notReady", "ReconcileFailed", problem
    waiting = [operand_of(item) or "" for item in daemonsets if not rolled_out(item)]
    if waiting:
        names = " ".join(_STATES.get(name, f"state-{name}") for name in DAEMONSETS if name in waiting)
        return "notReady", "OperandNotReady", f"ClusterPolicy is not ready, states not ready: [{names}]"
    if not labels.any_nfd(nodes):
        return "ready", "NFDLabelsMissing", "No NFD labels found"
    if not any(labels.is_gpu(node) for node in nodes):
        return "ready", "NoGPUNodes", "No GPU node found, watching for new nodes to join the cluster."
    return "ready", "Reconciled", "ClusterPolicy is ready as all resources have been successfully reconciled"


def conditions(state: str, reason: str, message: str) -> list[Json]:
    """The two conditions of a ClusterPolicy. When it is not ready, only `Error` says why."""
    if state == "ready":
        return [
            {"type": "Ready", "status": "True", "reason": reason, "message": message},
            {"type": "Error", "status": "False", "reason": "Ready", "message": ""},
        ]
    return [
        {"type": "Ready", "status": "False", "reason": "Error", "message": ""},
        {"type": "Error", "status": "True", "reason": reason, "message": message},
    ]
