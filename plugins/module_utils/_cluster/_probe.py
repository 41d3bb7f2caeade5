# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Throwaway VMs that prove a device: what they look like, and what their state says."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._operands import Object

LABEL = "gpufleet.kubevirt/probe"
NAMESPACE_NOTE = "gpufleet.kubevirt/made-for-probes"
_NOT_PERMITTED = "not permitted in permittedHostDevices"


@dataclasses.dataclass(frozen=True)
class Probe:
    """One device to prove. ``expect`` is ``scheduled`` (a VM with it gets a place) or ``denied`` (KubeVirt refuses it)."""

    resource: str
    node: t.Optional[str]
    expect: str


@dataclasses.dataclass(frozen=True)
class Verdict:
    """``proven``, ``denied``, ``failed``, ``not tested``, or ``waiting``; ``explanation`` is one sentence."""

    verdict: str
    explanation: str
    node: t.Optional[str] = None


def instance(probe: Probe, name: str, memory: str) -> Object:
    """A VirtualMachineInstance with one device, no disk and no network."""
    spec: Object = {
        "terminationGracePeriodSeconds": 0,
        "domain": {
            "devices": {"gpus": [{"name": "probe", "deviceName": probe.resource}], "autoattachPodInterface": False},
            "resources": {"requests": {"memory": memory}},
        },
        "networks": [],
    }
    if probe.node:
        spec["nodeSelector"] = {"kubernetes.io/hostname": probe.node}
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": name, "labels": {LABEL: "true"}},
        "spec": spec,
    }


def free(probe: Probe, nodes: t.Iterable[Object]) -> t.Tuple[int, int, t.List[str]]:
    """Units that are free and units that there are, on the probe's node or anywhere, and who has the others. ``nodes`` as gpu_fleet_info has them."""
    total = used = 0
    who: t.List[str] = []
    for node in nodes:
        if probe.node in (None, node["name"]):
            total += int(node["allocatable"].get(probe.resource, 0))
            for use in node["used"].get(probe.resource, []):
                used += int(use["count"])
                who.append(f"{use['namespace']}/{use['vmi'] or use['pod']}")
    return max(0, total - used), total, who


def before(probe: Probe, nodes: t.Sequence[Object]) -> Verdict | None:
    """What can be said without a VM: a device that nobody advertises, or that is all in use. None: a VM is needed."""
    if probe.expect == "denied":
        return None
    left, total, who = free(probe, nodes)
    where = f"node {probe.node}" if probe.node else "any node"
    if total == 0:
        have = sorted({name for node in nodes for name in node["allocatable"]})
        return Verdict(
            "failed", f"{probe.resource}: {where} does not advertise it; the cluster advertises {', '.join(have) or 'no GPU at all'}"
        )
    if left == 0:
        return Verdict(
            "not tested", f"{probe.resource}: all {total} on {where} are in use by {', '.join(who)}, so no VM was started", probe.node
        )
    return None


def judge(probe: Probe, vmi: t.Optional[Object], pod: t.Optional[Object]) -> Verdict:
    """What a VM's state says now."""
    if vmi is None:
        return Verdict("failed", f"{probe.resource}: the VM went away while we looked; somebody else deleted it")
    status = vmi.get("status") or {}
    for condition in status.get("conditions") or []:
        message = condition.get("message") or ""
        if condition.get("type") == "Synchronized" and condition.get("status") == "False" and _NOT_PERMITTED in message:
            return Verdict(
                "denied",
                f"{probe.resource}: KubeVirt refuses it as not permitted ({message}); it must be in permittedHostDevices to be used",
            )
    node = (pod.get("spec") or {}).get("nodeName") if pod else None
    if node:
        return Verdict("proven", f"{probe.resource}: a VM with it was admitted, permitted and scheduled to {node}", node)
    if status.get("phase") == "Failed":
        return Verdict("failed", f"{probe.resource}: the VM failed: {status.get('reason') or 'no reason given'}")
    return Verdict("waiting", f"{probe.resource}: {why_waiting(vmi, pod)}")


def why_waiting(vmi: Object, pod: t.Optional[Object]) -> str:
    """What a VM that has no place waits for."""
    for item in (pod, vmi):
        for condition in ((item or {}).get("status") or {}).get("conditions") or []:
            if condition.get("status") == "False" and condition.get("message"):
                return f"{condition.get('reason')}: {condition['message']}"
    return f"the VM is {(vmi.get('status') or {}).get('phase') or 'not seen by virt-controller yet'}"


def contradicts(probe: Probe, verdict: Verdict) -> bool:
    """Is this not what was expected?"""
    if verdict.verdict == "not tested":
        return False
    return verdict.verdict != ("proven" if probe.expect == "scheduled" else "denied")
