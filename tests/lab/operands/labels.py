# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Labels of nodes, as Node Feature Discovery and the operator's node-labelling controller write them. Pure.

Source: NVIDIA/gpu-operator v26.7.0, controllers/state_manager.go and nodelabeling_controller.go. Independent of the collection's tables.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

WORKLOAD = "nvidia.com/gpu.workload.config"
OPERANDS = "nvidia.com/gpu.deploy.operands"
DEPLOY = "nvidia.com/gpu.deploy."
PRESENT = "nvidia.com/gpu.present"
CONFIG = "nvidia.com/vgpu.config"
STATE = "nvidia.com/vgpu.config.state"

_FEATURE = "feature.node.kubernetes.io/"
NFD = _FEATURE + "pci-10de.present"
#: The operator takes any of these for a GPU.
NFD_FORMS = (NFD, _FEATURE + "pci-0302_10de.present", _FEATURE + "pci-0300_10de.present")

#: Workload -> operands for which the operator labels a node (KubeVirt mode; the label of the MIG manager needs a GPU with MIG).
OPERANDS_OF = {
    "container": [
        "driver", "gpu-feature-discovery", "container-toolkit", "device-plugin", "dcgm", "dcgm-exporter", "node-status-exporter",
        "operator-validator", "client",
    ],
    "vm-passthrough": ["sandbox-device-plugin", "sandbox-validator", "vfio-manager", "kata-manager", "cc-manager", "client"],
    "vm-vgpu": ["sandbox-device-plugin", "vgpu-manager", "vgpu-device-manager", "sandbox-validator", "cc-manager", "client"],
}  # fmt: skip


def of(item: Json) -> dict[str, str]:
    """The labels of any object."""
    return item["metadata"].get("labels") or {}


def nfd(node: Json, has_gpu: bool) -> dict[str, str]:
    """The labels that Node Feature Discovery adds to a node that lacks them."""
    wanted = {
        _FEATURE + "kernel-version.full": node["status"]["nodeInfo"]["kernelVersion"],
        _FEATURE + "system-os_release.ID": "ubuntu",
        _FEATURE + "system-os_release.VERSION_ID": "22.04",
        **({NFD: "true"} if has_gpu else {}),
    }
    return {key: value for key, value in wanted.items() if of(node).get(key) != value}


def any_nfd(nodes: list[Json]) -> bool:
    return any(key.startswith(_FEATURE) for node in nodes for key in of(node))


def is_gpu(node: Json) -> bool:
    return any(of(node).get(key) == "true" for key in NFD_FORMS)


def workload(node: Json, policy: Json) -> str:
    """Missing or invalid: the default workload. Without sandbox workloads every node is a container node, whatever its label says."""
    sandbox = policy["spec"].get("sandboxWorkloads") or {}
    if not sandbox.get("enabled"):
        return "container"
    given = of(node).get(WORKLOAD, "")
    return given if given in OPERANDS_OF else sandbox.get("defaultWorkload") or "container"


def triggers(node: Json, policy: Json) -> tuple[Any, ...]:
    """What makes the operator look at a node's labels again. Changing a deploy label does not."""
    own = of(node)
    return (is_gpu(node), own.get(PRESENT), own.get(WORKLOAD), own.get(OPERANDS), policy["metadata"].get("generation"))


def deploy(node: Json, policy: Json) -> dict[str, str | None]:
    """Changes (None: remove): what is missing or empty is added, what stands there is honoured, what belongs to another workload goes."""
    own = of(node)
    if not is_gpu(node):
        return {PRESENT: "false"} if own.get(PRESENT) == "true" else {}
    present = {key for key in own if key.startswith(DEPLOY) and key != OPERANDS}
    changes: dict[str, str | None] = {} if own.get(PRESENT) == "true" else {PRESENT: "true"}
    if own.get(OPERANDS) == "false":
        return {**changes, **dict.fromkeys(sorted(present))}
    wanted = {DEPLOY + name for name in OPERANDS_OF[workload(node, policy)]}
    changes.update({key: "true" for key in sorted(wanted) if not own.get(key)})
    changes.update(dict.fromkeys(sorted(present - wanted)))
    return changes
