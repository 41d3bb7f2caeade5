# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Who has installed a GPU Operator in a cluster, and what of it a ClusterPolicy does not govern.

Sources: NVIDIA/gpu-operator v26.7.0 (name of the Deployment, ClusterPolicy, NVIDIADriver, GPUCluster), Helm's annotations of what it owns,
OLM's label ``olm.owner`` and its Subscriptions.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _operands
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._operands import Object, annotations_of, labels

RELEASE_NAME = "meta.helm.sh/release-name"
RELEASE_NAMESPACE = "meta.helm.sh/release-namespace"

DEPLOYMENTS = "/apis/apps/v1/deployments"
#: Chart and OLM bundle give the operator's Deployment the same name.
NAMED = {"fieldSelector": "metadata.name=gpu-operator"}
DRIVERS = "/apis/nvidia.com/v1alpha1/nvidiadrivers"
GPU_CLUSTERS = "/apis/nvidia.com/v1alpha1/gpuclusters"
SUBSCRIPTIONS = "/apis/operators.coreos.com/v1alpha1/subscriptions"
OPENSHIFT = "/apis/config.openshift.io/v1/clusterversions"
#: What OLM's catalogues call the operator.
PACKAGES = ("gpu-operator-certified", "gpu-operator")

#: Operand -> the key of its switch in the chart's values and in the ClusterPolicy.
SWITCHES: dict[str, str] = {
    "driver": "driver",
    "container-toolkit": "toolkit",
    "device-plugin": "devicePlugin",
    "gpu-feature-discovery": "gfd",
    "dcgm": "dcgm",
    "dcgm-exporter": "dcgmExporter",
    "mig-manager": "migManager",
    "node-status-exporter": "nodeStatusExporter",
    "vfio-manager": "vfioManager",
    "vgpu-manager": "vgpuManager",
    "vgpu-device-manager": "vgpuDeviceManager",
    "sandbox-device-plugin": "sandboxDevicePlugin",
}


@dataclasses.dataclass(frozen=True)
class Installs:
    """Plain API objects; None where the API server does not know the kind."""

    deployments: list[Object]
    drivers: t.Optional[list[Object]] = None
    gpu_clusters: t.Optional[list[Object]] = None
    subscriptions: t.Optional[list[Object]] = None
    openshift: bool = False


def release_named(items: t.Iterable[Object]) -> tuple[str, str] | None:
    """Name and namespace of the Helm release that owns the first of these objects that Helm owns."""
    for item in items:
        notes = annotations_of(item)
        if notes.get(RELEASE_NAME) and notes.get(RELEASE_NAMESPACE):
            return notes[RELEASE_NAME], notes[RELEASE_NAMESPACE]
    return None


def _name(item: Object) -> str:
    metadata = item["metadata"]
    return f"{metadata['namespace']}/{metadata['name']}" if metadata.get("namespace") else str(metadata["name"])


def _install(deployment: Object) -> Object:
    own = release_named([deployment])
    by_olm = "olm.owner" in labels(deployment) or any(
        reference.get("kind") == "ClusterServiceVersion" for reference in deployment["metadata"].get("ownerReferences") or []
    )
    return {
        "namespace": deployment["metadata"].get("namespace"),
        "by": "OLM" if by_olm else "Helm" if own else None,
        "release": own[0] if own else None,
        "release_namespace": own[1] if own else None,
    }


def _claims(vmi: Object) -> list[str]:
    """Names of the resource claims by which a virtual machine instance asks for GPUs."""
    gpus = (((vmi.get("spec") or {}).get("domain") or {}).get("devices") or {}).get("gpus") or []
    return sorted({str(gpu["claimName"]) for gpu in gpus if gpu.get("claimName")})


def installs_of(seen: Installs, policies: t.Iterable[Object], vmis: t.Iterable[Object]) -> Object:
    """``operator`` in the result of ``gpu_fleet_info``."""
    by_age = sorted(policies, key=lambda p: (p["metadata"].get("creationTimestamp") or "", p["metadata"]["name"]))
    running = [vmi for vmi in vmis if (vmi.get("status") or {}).get("phase") not in ("Succeeded", "Failed")]
    return {
        "installs": sorted((_install(item) for item in seen.deployments), key=lambda entry: str(entry["namespace"])),
        "policies": [str(policy["metadata"]["name"]) for policy in by_age],
        "drivers": sorted(_name(item) for item in seen.drivers or []),
        "gpu_clusters": sorted(_name(item) for item in seen.gpu_clusters or []),
        "subscriptions": sorted(_name(item) for item in seen.subscriptions or [] if (item.get("spec") or {}).get("name") in PACKAGES),
        "claims": sorted(
            ({"vmi": _name(vmi), "claims": _claims(vmi)} for vmi in running if _claims(vmi)), key=lambda entry: str(entry["vmi"])
        ),
        "openshift": seen.openshift,
    }


def switches_of(policy: Object) -> dict[str, bool | None]:
    """Operand -> on, off, or None where the ClusterPolicy says nothing."""
    spec = policy.get("spec") or {}
    return {operand: (spec.get(key) or {}).get("enabled") for operand, key in SWITCHES.items()}


def deployed_on(operand: str, workload: str | None) -> bool:
    """Would a node of this workload get a pod of the operand? A workload that is none counts as ``container``, as for the operator."""
    return operand in _operands.DEPLOYED.get(workload or "container", _operands.DEPLOYED["container"])
