# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Throwaway VMs and pods that prove a device: what they look like, and what their state says."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _fleet, _vm_why
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._operands import Object
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._vm_why import NOT_PERMITTED, Fleet, advertised

LABEL = "gpufleet.kubevirt/probe"
#: Kind of a probe -> the value of its label.
VALUES = {"vm": "true", "pod": "pod"}
NAMESPACE_NOTE = "gpufleet.kubevirt/made-for-probes"
#: A new permit reaches virt-controller after some seconds (KubeVirt's own tests allow 10); a refusal before that says nothing.
PERMIT_SECONDS = 15.0
#: The kubelet refuses a device within a second or two. A pod that has had its node for longer only waits for its image.
BOUND_SECONDS = 20.0


#: GPU nodes are often kept for those who want a GPU by a taint of this key; NVIDIA's own operands tolerate it, too.
_TOLERATIONS = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]


@dataclasses.dataclass(frozen=True)
class Probe:
    """One device to prove. ``expect`` is ``scheduled`` (who asks for it gets a place) or ``denied`` (KubeVirt refuses it).
    ``kind`` is who asks: a ``vm``, or a ``pod`` where the device is for containers."""

    resource: str
    node: t.Optional[str]
    expect: str
    kind: str = "vm"

    @property
    def asker(self) -> str:
        return "a VM" if self.kind == "vm" else "a pod"

    def __str__(self) -> str:
        where = f"on node {self.node}" if self.node else "on any node"
        return f"{self.resource} with {self.asker} {where}" + (", which must be refused" if self.expect == "denied" else "")


@dataclasses.dataclass(frozen=True)
class Verdict:
    """``proven``, ``denied``, ``failed``, ``not tested``, or ``waiting``; ``explanation`` is one sentence.
    ``waiting`` with a ``node``: the VM's pod has that node, and nothing runs yet."""

    verdict: str
    explanation: str
    node: t.Optional[str] = None


def instance(probe: Probe, name: str, memory: str, hostnames: t.Mapping[str, str]) -> Object:
    """A VirtualMachineInstance with one device, no disk and no network."""
    spec: Object = {
        "terminationGracePeriodSeconds": 0,
        "domain": {
            "devices": {"gpus": [{"name": "probe", "deviceName": probe.resource}], "autoattachPodInterface": False},
            "resources": {"requests": {"memory": memory}},
        },
        "networks": [],
        "tolerations": _TOLERATIONS,
        **_selector(probe, hostnames),
    }
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": name, "labels": {LABEL: VALUES["vm"]}},
        "spec": spec,
    }


def pod(probe: Probe, name: str, image: str, hostnames: t.Mapping[str, str]) -> Object:
    """A pod that asks for one device and does nothing with it. The pod security standard ``restricted`` admits it."""
    container: Object = {
        "name": "probe",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "resources": {"limits": {probe.resource: "1"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {LABEL: VALUES["pod"]}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 65534, "seccompProfile": {"type": "RuntimeDefault"}},
            "tolerations": _TOLERATIONS,
            "containers": [container],
            **_selector(probe, hostnames),
        },
    }


def _selector(probe: Probe, hostnames: t.Mapping[str, str]) -> Object:
    """By label, not by name: so the scheduler decides, which is part of what is proven."""
    return {"nodeSelector": {_vm_why.HOSTNAME: hostnames.get(probe.node, probe.node)}} if probe.node else {}


def free(probe: Probe, nodes: t.Iterable[Object]) -> t.Tuple[int, int, t.List[str]]:
    """Units that are free and units that there are, on the probe's node or anywhere, and who has the others."""
    left = total = 0
    who: t.List[str] = []
    for node in nodes:
        if probe.node in (None, node["name"]):
            here = int(node["allocatable"].get(probe.resource, 0))
            holders = node["used"].get(probe.resource, [])
            total += here
            # Per node: one that holds more than it advertises any more has none to spare, but takes none from others.
            left += max(0, here - sum(int(use["count"]) for use in holders))
            who += [f"{use['namespace']}/{use['vmi'] or use['pod']}" for use in holders]
    return left, total, who


def before(probe: Probe, fleet: Fleet) -> t.Optional[Verdict]:
    """What can be said without trying: a device that KubeVirt's list lacks, that nobody advertises, or that is all in use. None: try it."""
    found = next((node for node in fleet.nodes if node["name"] == probe.node), None)
    if probe.node is not None and found is None:
        return Verdict("failed", f"{probe.resource}: there is no node {probe.node}")
    if probe.expect == "denied":
        if fleet.permitted is None:
            return Verdict("failed", f"{probe.resource}: KubeVirt has no list of permitted devices, so it refuses none")
        return None
    if probe.kind == "vm" and fleet.permitted is not None and probe.resource not in fleet.permitted:
        return Verdict("denied", f"{probe.resource}: KubeVirt does not permit it; {_remedy(probe, fleet)}")
    left, total, who = free(probe, fleet.nodes)
    where = f"node {probe.node}" if probe.node else "any node"
    if total == 0:
        return Verdict("failed", f"{probe.resource}: not advertised by {where}; {advertised(fleet.nodes)}")
    if left == 0:
        return Verdict(
            "not tested", f"{probe.resource}: all {total} on {where} are in use by {', '.join(who)}, so nothing was started", probe.node
        )
    if found is not None and not found["schedulable"]:
        return Verdict("not tested", f"{probe.resource}: node {probe.node} is cordoned, so nothing was started", probe.node)
    return None


def judge(probe: Probe, vmi: t.Optional[Object], pod: t.Optional[Object], fleet: Fleet) -> Verdict:
    """What a VM's state says now."""
    if vmi is None:
        return Verdict("failed", f"{probe.resource}: the VM went away while we looked; somebody else deleted it")
    status = vmi.get("status") or {}
    for condition in status.get("conditions") or []:
        message = condition.get("message") or ""
        if condition.get("type") == "Synchronized" and condition.get("status") == "False" and NOT_PERMITTED in message:
            return Verdict("denied", f"{probe.resource}: KubeVirt refuses it ({message}); {_remedy(probe, fleet)}")
    phase = status.get("phase")
    pod_status = (pod or {}).get("status") or {}
    node = ((pod or {}).get("spec") or {}).get("nodeName")
    if pod_status.get("phase") == "Failed" or phase == "Failed":
        where = f" on {node}" if node else ""
        why = [str(text) for text in (pod_status.get("reason"), pod_status.get("message"), status.get("reason")) if text]
        return Verdict("failed", f"{probe.resource}: the VM failed{where}: {': '.join(why) or 'no reason given'}", node)
    miscounted = _miscounted(probe, pod, node)
    if miscounted:
        return miscounted
    if node and (phase in ("Scheduled", "Running") or pod_status.get("phase") == "Running"):
        return Verdict("proven", f"{probe.resource}: a VM with it was admitted, permitted, counted as one and scheduled to {node}", node)
    return Verdict("waiting", f"{probe.resource}: {why_waiting(probe, vmi, pod, fleet)}", node)


def judge_pod(probe: Probe, found: t.Optional[Object], fleet: Fleet) -> Verdict:
    """What a pod's state says now."""
    if found is None:
        return Verdict("failed", f"{probe.resource}: the pod went away while we looked; somebody else deleted it")
    status = found.get("status") or {}
    node, phase = (found.get("spec") or {}).get("nodeName"), status.get("phase")
    if phase == "Failed":
        # The kubelet refuses a device with a reason of the pod; a runtime that cannot hand it over, with one of the container.
        ended = [((container.get("state") or {}).get("terminated") or {}) for container in status.get("containerStatuses") or []]
        why = [str(text) for item in (status, *ended) for text in (item.get("reason"), item.get("message")) if text]
        return Verdict(
            "failed", f"{probe.resource}: the pod failed{f' on {node}' if node else ''}: {': '.join(why) or 'no reason given'}", node
        )
    miscounted = _miscounted(probe, found, node)
    if miscounted:
        return miscounted
    if node and phase in ("Running", "Succeeded"):
        return Verdict(
            "proven", f"{probe.resource}: a pod with it was admitted, counted as one and scheduled to {node}, and runs there", node
        )
    waits = [_explained(probe, said, fleet) for said in _vm_why.messages(found)]
    return Verdict("waiting", f"{probe.resource}: {'; '.join(waits) or f'the pod is {phase}'}", node)


def _miscounted(probe: Probe, pod: t.Optional[Object], node: t.Optional[str]) -> t.Optional[Verdict]:
    """A pod that has a node without one unit of the resource: somebody has changed it, and the device would not be kept for it."""
    # Of the same vendor only: processors and memory are no whole numbers.
    counted = _fleet.limits(pod or {}, probe.resource.partition("/")[0] + "/")
    if node is None or counted.get(probe.resource, 0) == 1:
        return None
    others = ", ".join(f"{count} of {name}" for name, count in counted.items()) or "no device"
    words = f"{probe.resource}: the pod on {node} asks for {others} instead of one of it; a webhook or a mutating policy has changed it"
    return Verdict("failed", words, node)


def _remedy(probe: Probe, fleet: Fleet) -> str:
    listed = ", ".join(fleet.permitted or []) or "nothing"
    return f"permitted are {listed}; a VM may use it once permittedHostDevices has an entry with resourceName {probe.resource}"


def aged(probe: Probe, verdict: Verdict, seconds: float, bound: t.Optional[float], timeout: float) -> Verdict:
    """What a verdict is worth ``seconds`` after it was made, its pod having had a node for ``bound`` seconds (None: it has none)."""
    if verdict.verdict == "denied" and probe.expect == "scheduled" and seconds < min(PERMIT_SECONDS, timeout):
        return dataclasses.replace(verdict, verdict="waiting")
    if verdict.verdict != "waiting":
        return verdict
    if verdict.node and bound is not None and (bound >= BOUND_SECONDS or seconds >= timeout):
        return Verdict(
            "proven",
            f"{probe.resource}: {probe.asker} with it was admitted{', permitted' if probe.kind == 'vm' else ''} and scheduled to "
            f"{verdict.node}, where it did not start within {bound:.0f} s",
            verdict.node,
        )
    if seconds >= timeout:
        return Verdict("failed", f"{verdict.explanation} (after {timeout:.0f} s)")
    return verdict


def why_waiting(probe: Probe, vmi: Object, pod: t.Optional[Object], fleet: Fleet) -> str:
    """What a VM that does not run waits for."""
    for item in (pod, vmi):
        for said in _vm_why.messages(item):
            return _explained(probe, said, fleet)
    return f"the VM is {(vmi.get('status') or {}).get('phase') or 'not seen by virt-controller yet'}"


def _explained(probe: Probe, said: str, fleet: Fleet) -> str:
    """The scheduler's words, with the cause where it found no node with the device."""
    if "Insufficient" not in said:
        return said
    where = [node for node in fleet.nodes if probe.node in (None, node["name"])]
    cause = _vm_why.no_place({probe.resource: 1}, dataclasses.replace(fleet, nodes=where), said, "VM" if probe.kind == "vm" else "pod")
    return f"{cause}" if cause.name == "scheduler" else f"{cause} (the scheduler says: {said})"


def contradicts(probe: Probe, verdict: Verdict) -> bool:
    """Is this not what was expected?"""
    if verdict.verdict == "not tested":
        return False
    return verdict.verdict != ("proven" if probe.expect == "scheduled" else "denied")
