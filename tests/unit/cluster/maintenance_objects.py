# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plain API objects of what runs on a node, as small as the tests of maintenance need them."""

from __future__ import annotations

import typing as t

from gpu_objects import A10, Json

NODE = "gpu1"


def pod(name: str = "app", owner: str | None = "ReplicaSet", gpu: bool = False, **more: t.Any) -> Json:
    """A pod on NODE. ``empty``: with local data; ``ending``, ``phase``, ``labels``, ``notes``, ``claims``: as in the API."""
    limits = {"limits": {A10: "1"}} if gpu else {}
    metadata: Json = {
        "name": name,
        "namespace": "ml",
        "uid": f"uid-{name}",
        "labels": more.get("labels", {}),
        "annotations": more.get("notes", {}),
    }
    if owner:
        metadata["ownerReferences"] = [{"kind": owner, "name": "owner", "controller": True}]
    if more.get("ending"):
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    spec: Json = {"nodeName": more.get("on", NODE), "containers": [{"name": "c", "resources": limits}]}
    if more.get("empty"):
        spec["volumes"] = [{"name": "scratch", "emptyDir": {}}]
    if more.get("claims"):
        spec["resourceClaims"] = [{"name": claim, "resourceClaimName": claim} for claim in more["claims"]]
    return {"metadata": metadata, "spec": spec, "status": {"phase": more.get("phase", "Running")}}


def launcher(vmi: str, gpu: bool = True, **more: t.Any) -> Json:
    return pod(
        f"virt-launcher-{vmi}",
        "VirtualMachineInstance",
        gpu,
        **{"labels": {"kubevirt.io": "virt-launcher"}, "notes": {"kubevirt.io/domain": vmi}, "empty": True, **more},
    )


def vmi(name: str = "web", gpu: bool = True, owner: str | None = "VirtualMachine", migratable: bool | None = False, **more: t.Any) -> Json:
    """An instance on NODE. ``state``: its migrationState; ``on``: another node; ``ending``, ``phase``, ``claim``."""
    metadata: Json = {"name": name, "namespace": "ml", "uid": f"uid-vmi-{name}", "labels": {}}
    if owner:
        metadata["ownerReferences"] = [{"kind": owner, "name": name, "controller": True}]
    if more.get("ending"):
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    devices: Json = {"gpus": [{"name": "g", "deviceName": A10}]} if gpu else {}
    if more.get("claim"):
        devices = {"gpus": [{"name": "g", "claimName": more["claim"], "requestName": "r"}]}
    conditions = (
        []
        if migratable is None
        else [{"type": "LiveMigratable", "status": str(migratable), "reason": None if migratable else "HostDeviceNotLiveMigratable"}]
    )
    status = {"nodeName": more.get("on", NODE), "phase": more.get("phase", "Running"), "conditions": conditions}
    if more.get("state"):
        status["migrationState"] = more["state"]
    return {"metadata": metadata, "spec": {"domain": {"devices": devices}}, "status": status}


def vm(name: str = "web", **spec: t.Any) -> Json:
    return {"metadata": {"name": name, "namespace": "ml", "uid": f"uid-vm-{name}"}, "spec": spec or {"runStrategy": "Always"}}


def claim(name: str, driver: str = "gpu.nvidia.com", node: str = NODE, user: str = "app") -> Json:
    terms = [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]
    return {
        "metadata": {"name": name, "namespace": "ml"},
        "status": {
            "allocation": {"devices": {"results": [{"driver": driver}]}, "nodeSelector": {"nodeSelectorTerms": terms}},
            "reservedFor": [{"resource": "pods", "name": user, "uid": f"uid-{user}"}],
        },
    }
