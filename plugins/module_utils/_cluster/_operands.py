# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The GPU Operator's operands: which labels call for them, which workload they belong to, which one proves what.

Tables with the questions that are asked of them. Sources: NVIDIA/gpu-operator controllers/state_manager.go (labels per
workload) and assets/*/*daemonset.yaml (node selectors, pod labels), read at v26.7.0.
"""

from __future__ import annotations

import re
import typing as t
from decimal import Decimal

Object = t.Dict[str, t.Any]

WORKLOAD = "nvidia.com/gpu.workload.config"
VGPU_CONFIG = "nvidia.com/vgpu.config"
VGPU_STATE = "nvidia.com/vgpu.config.state"
OPERANDS = "nvidia.com/gpu.deploy.operands"
PRESENT = "nvidia.com/gpu.present"
DEPLOY_PREFIX = "nvidia.com/gpu.deploy."
RESOURCE_PREFIX = "nvidia.com/"
NFD_PREFIX = "feature.node.kubernetes.io/"
#: Labels by which the operator takes a node for one with a GPU.
NFD_GPU = tuple(NFD_PREFIX + name for name in ("pci-10de.present", "pci-0302_10de.present", "pci-0300_10de.present"))

#: Why this collection keeps operands off a node. Without this annotation the decision is somebody else's.
OPERANDS_REFUSED = "gpufleet.kubevirt/operands-refused"
ANNOTATION_PREFIX = "gpufleet.kubevirt/"

#: Workload -> the operands that the operator labels the node for, each as in ``nvidia.com/gpu.deploy.<operand>``.
DEPLOYED: dict[str, tuple[str, ...]] = {
    "container": (
        "driver",
        "gpu-feature-discovery",
        "container-toolkit",
        "device-plugin",
        "dcgm",
        "dcgm-exporter",
        "node-status-exporter",
        "operator-validator",
        "mig-manager",
        "client",
    ),
    "vm-passthrough": (
        "sandbox-device-plugin",
        "kata-sandbox-device-plugin",
        "sandbox-validator",
        "vfio-manager",
        "kata-manager",
        "cc-manager",
        "client",
    ),
    "vm-vgpu": ("sandbox-device-plugin", "vgpu-manager", "vgpu-device-manager", "sandbox-validator", "cc-manager", "client"),
}

#: Workload -> the operands without which it cannot work, in the order in which they wait for each other.
REQUIRED: dict[str, tuple[str, ...]] = {
    "container": ("device-plugin", "operator-validator"),
    "vm-passthrough": ("vfio-manager", "sandbox-validator", "sandbox-device-plugin"),
    "vm-vgpu": ("vgpu-manager", "vgpu-device-manager", "sandbox-validator", "sandbox-device-plugin"),
}

#: Operand -> value of its pods' label ``app``; of those in NAMED, of their label ``name``.
APPS: dict[str, str] = {
    "driver": "nvidia-driver-daemonset",
    "gpu-feature-discovery": "gpu-feature-discovery",
    "container-toolkit": "nvidia-container-toolkit-daemonset",
    "device-plugin": "nvidia-device-plugin-daemonset",
    "dcgm": "nvidia-dcgm",
    "dcgm-exporter": "nvidia-dcgm-exporter",
    "node-status-exporter": "nvidia-node-status-exporter",
    "operator-validator": "nvidia-operator-validator",
    "mig-manager": "nvidia-mig-manager",
    "vfio-manager": "nvidia-vfio-manager",
    "cc-manager": "nvidia-cc-manager",
    "vgpu-manager": "nvidia-vgpu-manager-daemonset",
    "vgpu-device-manager": "nvidia-vgpu-device-manager",
    "sandbox-device-plugin": "nvidia-sandbox-device-plugin-daemonset",
    "sandbox-validator": "nvidia-sandbox-validator",
    "kata-sandbox-device-plugin": "nvidia-kata-sandbox-device-plugin-daemonset",
}
NAMED = frozenset({"vfio-manager", "cc-manager"})

#: Words in a resource name that say: another function of a GPU's board, or an NVSwitch, not a GPU. Names are those of
#: pci.ids in upper case, as NVIDIA's sandbox device plugin makes them (kubevirt-gpu-device-plugin, device_plugin.go).
_COMPANION_WORDS = frozenset({"AUDIO", "USB", "UCSI", "NVSWITCH"})


def labels(item: t.Mapping[str, t.Any]) -> dict[str, str]:
    """The labels of an object; none is an empty mapping."""
    return (item.get("metadata") or {}).get("labels") or {}


def annotations_of(item: t.Mapping[str, t.Any]) -> dict[str, str]:
    """The annotations of an object; none is an empty mapping."""
    return (item.get("metadata") or {}).get("annotations") or {}


def terminal(pod: t.Mapping[str, t.Any]) -> bool:
    """True if the pod has ended and holds nothing any more."""
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def owner(item: t.Mapping[str, t.Any]) -> Object:
    """The controlling owner reference of an object, or an empty mapping."""
    references = (item.get("metadata") or {}).get("ownerReferences") or []
    return next((r for r in references if r.get("controller")), references[0] if references else {})


def _by_selector(selector: t.Mapping[str, str] | None) -> str | None:
    for key in selector or {}:
        if key.startswith(DEPLOY_PREFIX):
            return key[len(DEPLOY_PREFIX) :]
    return None


def operand_of_set(daemonset: t.Mapping[str, t.Any]) -> str | None:
    """The operand that a DaemonSet runs, or None. Told by its node selector: names vary with OS, kernel and NVIDIADriver."""
    template = ((daemonset.get("spec") or {}).get("template") or {}).get("spec") or {}
    return _by_selector(template.get("nodeSelector"))


def operand_of_pod(pod: t.Mapping[str, t.Any]) -> str | None:
    """The operand that a pod is, or None if no DaemonSet made it or if it is none of the operator's."""
    if owner(pod).get("kind") != "DaemonSet":
        return None
    found = _by_selector((pod.get("spec") or {}).get("nodeSelector"))
    if found is None:
        own = labels(pod)
        found = next((o for o, app in APPS.items() if own.get("name" if o in NAMED else "app") == app), None)
    return found


def app_of_pod(pod: t.Mapping[str, t.Any]) -> str | None:
    """The name under which an operand's pod is known (``nvidia-vfio-manager``), or None if it is no operand."""
    operand = operand_of_pod(pod)
    if operand is None:
        return None
    own = labels(pod)
    return own.get("app") or own.get("name") or APPS.get(operand, operand)


def workload_of_operands(operands: t.Iterable[str]) -> str | None:
    """The workload that these operands serve, or None if they tell none. What only one workload has decides."""
    for workload, proof in (("vm-vgpu", "vgpu-manager"), ("vm-vgpu", "vgpu-device-manager"), ("vm-passthrough", "vfio-manager")):
        if proof in operands:
            return workload
    only_container = set(DEPLOYED["container"]) - set(DEPLOYED["vm-passthrough"]) - set(DEPLOYED["vm-vgpu"])
    return "container" if only_container & set(operands) else None


#: Suffixes of Kubernetes quantities (apimachinery, pkg/api/resource/quantity.go): the API server writes 2000 as ``2k``, and keeps ``1e3`` as it is.
_SUFFIXES = {suffix: Decimal(10) ** (3 * power) for power, suffix in enumerate(("n", "u", "m", "", "k", "M", "G", "T", "P", "E"), -3)}
_SUFFIXES.update({f"{suffix}i": Decimal(2) ** (10 * power) for power, suffix in enumerate("KMGTPE", 1)})
_QUANTITY = re.compile(r"(?P<digits>[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+))(?:[eE](?P<exponent>[+-]?[0-9]{1,2})|(?P<suffix>[A-Za-z]{0,2}))")


def number(quantity: t.Any) -> Decimal:
    """The value of a Kubernetes quantity (``"16Gi"``, ``"100m"``, ``"1e3"``, 2). ValueError if it is none."""
    found = _QUANTITY.fullmatch(str(quantity))
    if not found or (found["suffix"] or "") not in _SUFFIXES:
        raise ValueError(f"{quantity!r} is no quantity")
    return Decimal(found["digits"]).scaleb(int(found["exponent"] or 0)) * _SUFFIXES[found["suffix"] or ""]


def count(quantity: t.Any) -> int:
    """A whole number from a Kubernetes quantity (``"2"``, 2, ``"1k"``, ``"1e3"``); extended resources are nothing else. ValueError if it is none.

    Whoever may create a pod chooses how its quantities are written.
    """
    try:
        value = number(quantity)
    except ValueError:
        value = None
    if value is None or value != value.to_integral_value():
        raise ValueError(f"{quantity!r} is no whole number of devices")
    return int(value)


def resources(node: t.Mapping[str, t.Any]) -> dict[str, int]:
    """What a node advertises below ``nvidia.com/``, with values of 0 (plugins leave them behind), sorted by name."""
    found = ((node.get("status") or {}).get("allocatable") or {}).items()
    return {key: count(value) for key, value in sorted(found) if key.startswith(RESOURCE_PREFIX)}


def companion(resource: str) -> bool:
    """True if a resource name is that of a companion function or an NVSwitch, not of a GPU."""
    return bool(_COMPANION_WORDS & set(re.split("[_.]", resource.rsplit("/", 1)[-1])))


def gpu_evidence(node: t.Mapping[str, t.Any]) -> bool | None:
    """Has the node an NVIDIA GPU? True or False by its labels and allocatable; None while NFD has said nothing at all."""
    own = labels(node)
    if own.get(PRESENT) == "true" or any(own.get(key) == "true" for key in NFD_GPU) or any(resources(node).values()):
        return True
    return False if any(key.startswith(NFD_PREFIX) for key in own) else None
