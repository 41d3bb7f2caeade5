# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each operand on a node waits for before it is ready, as its init containers would say. Pure.

Source: NVIDIA/gpu-operator v26.7.0, assets/*/*daemonset.yaml and cmd/nvidia-validator/main.go.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tests.lab.operands.daemonsets import DAEMONSETS
from tests.lab.operands.devices import Host

#: Operand -> the operands that must be ready first, as far as the policy has them.
NEEDS = {
    "container-toolkit": ("driver",),
    "device-plugin": ("driver", "container-toolkit"),
    "gpu-feature-discovery": ("driver", "container-toolkit"),
    "dcgm": ("driver", "container-toolkit"),
    "dcgm-exporter": ("driver", "container-toolkit"),
    "mig-manager": ("driver", "container-toolkit"),
    "operator-validator": ("driver", "container-toolkit", "device-plugin"),
    "sandbox-device-plugin": ("sandbox-validator",),
}
#: How long an operand works before it is ready, in seconds.
DELAYS = {"driver": 1.0, "vgpu-manager": 1.0, "vfio-manager": 0.5}
#: The status of an operand's init container that ends with 1 again and again, as a kubelet writes it.
CRASHES: dict[str, Any] = {
    "name": "k8s-driver-manager",
    "image": "",
    "imageID": "",
    "ready": False,
    "started": False,
    "restartCount": 5,
    "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 2m40s restarting failed container=k8s-driver-manager"}},
}


@dataclasses.dataclass(frozen=True)
class Here:
    """One node at one time. `passed`: operands whose init containers are through; those are not asked again until they restart."""

    workload: str
    running: Mapping[str, float]  #: operand that has a pod -> seconds since it started
    host: Host
    enabled: frozenset[str]
    passed: frozenset[str] = frozenset()
    held: frozenset[str] = frozenset()  #: operands whose k8s-driver-manager finds a driver on the host
    slow: float = 1.0  #: factor of all delays
    more: float = 0.0  #: seconds on top, for those that have a delay


def waiting(here: Here) -> dict[str, str]:
    """Operands that are not ready -> what they wait for."""
    found: dict[str, str] = {}
    for operand in DAEMONSETS:
        if operand in here.running and operand not in here.passed:
            reason = _reason(operand, here, found)
            if reason:
                found[operand] = reason
    return found


def _reason(operand: str, here: Here, found: Mapping[str, str]) -> str | None:
    def lacks(other: str) -> bool:
        return other in here.enabled and (other not in here.running or other in found)

    if operand in here.held:
        return "driver is pre-installed on host"
    if operand in DELAYS and here.running[operand] < DELAYS[operand] * here.slow + here.more:
        return f"{operand} is at work"
    if missing := next((other for other in NEEDS.get(operand, ()) if lacks(other)), None):
        return f"waiting for {missing}"
    if operand == "vgpu-device-manager" and (lacks("vgpu-manager") or not here.host.parents or "sandbox-validator" not in here.running):
        # Only a running validator writes the file that it waits for: paused by a device manager that was killed, it never does.
        return "waiting for NVIDIA vGPU Manager to be setup"
    if operand == "sandbox-validator":
        return _not_valid(here, lacks("vgpu-manager" if here.workload == "vm-vgpu" else "vfio-manager"))
    return None


def _not_valid(here: Here, lacks_driver: bool) -> str | None:
    if here.workload == "vm-vgpu":
        if lacks_driver:
            return "waiting for vGPU manager"
        return None if here.host.vgpus else "No vGPU devices found, retrying"
    if lacks_driver:
        return "waiting for vfio-pci driver"
    wrong = next((gpu for gpu in here.host.gpus if gpu.driver != "vfio-pci"), None)
    return f"device not bound to 'vfio-pci'; device: {wrong.address} driver: '{wrong.driver or ''}'" if wrong else None
