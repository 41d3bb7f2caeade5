# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The faults that a lab shows on command: the one table of them. What switches them is in ``switch.py``.

A fault is carried out by what it is a fault of: ``operand`` by the simulated operator (``operands/driver.py``), ``api`` by a proxy before
the API server (``fault_proxy.py``), ``webhook`` by the real API server, which asks a webhook that nobody serves.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

from tests.lab.layout import LabError

#: Answers of a rule that are no HTTP status.
RESET = "reset"  #: the connection is reset, and the request was not carried out
LOST = "lost"  #: the request is carried out, and the connection is reset in place of its answer
SILENT = "silent"  #: the connection is taken, and no answer comes


@dataclasses.dataclass(frozen=True)
class Rule:
    """Which requests are answered wrongly: each ``every``-th of those whose method and path fit, counted from the fault's start."""

    answer: int | str  #: an HTTP status, or one of the three above
    every: int
    methods: frozenset[str] = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})
    path: str = ".*"  #: a regular expression for the whole path
    reason: str = ""  #: of the answer's Status object
    message: str = ""
    retry_after: int | None = None  #: seconds, for a header of this name

    def fits(self, method: str, path: str) -> bool:
        return method in self.methods and re.fullmatch(self.path, path) is not None


@dataclasses.dataclass(frozen=True)
class Fault:
    """One fault. ``ends``: how a run of ``site.yml`` ends that meets it: ``converges``, or ``fails`` with a message in which ``says``, a regular
    expression, is found; or ``either``, where that hangs on whose request it hits: Helm rides out less than our modules do.

    Where a run fails, the next one after the fault converges.
    """

    where: str  #: operand, api, webhook
    what: str  #: what the lab does
    source: str  #: where the real thing was read or reported
    ends: str
    says: str = ""
    rule: Rule | None = None  #: of an api fault; of a webhook fault, what its clients see
    kinds: tuple[str, ...] = ()  #: of a webhook fault: resources of KubeVirt that nobody can write


WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"
WEBHOOK = "fault.lab.gpufleet.kubevirt"
NOWHERE = "https://127.0.0.1:1/"  #: nobody listens there
_DM = "NVIDIA/vgpu-device-manager v0.5.0, cmd/nvidia-k8s-vgpu-dm/main.go"
_API = "kubernetes/kubernetes, "

FAULTS: dict[str, Fault] = {
    "no-nfd": Fault(
        "operand",
        "Node Feature Discovery never labels a node",
        "NVIDIA/gpu-operator v26.7.0, controllers/clusterpolicy_controller.go: ready, with the reason NFDLabelsMissing",
        "fails",
        "NFDLabelsMissing",
    ),
    "slow-operands": Fault(
        "operand",
        "drivers and managers take 20 s more to start",
        "NVIDIA/gpu-operator v26.7.0, deployments/gpu-operator/values.yaml: driver.startupProbe waits for up to 2 hours",
        "converges",
    ),
    "vgpu-failed": Fault("operand", "the vGPU Device Manager cannot make vGPUs", f"{_DM}, state failed", "fails", "says failed"),
    "stale-success": Fault(
        "operand",
        "the vGPU Device Manager looks at a new configuration only after 10 s; its old state stands meanwhile",
        f"{_DM}: the state label is written after two asserts",
        "converges",
    ),
    "sticky-pause": Fault(
        "operand",
        "the vGPU Device Manager gives up on the pods that it paused, and leaves the labels paused",
        f"{_DM}, updateConfig: a time-out returns before the step that restores them is registered",
        "fails",
        "says failed",
    ),
    "default-fails": Fault(
        "operand",
        "the configuration `default` names a GPU twice, the second time with a type that it does not have; others work",
        "NVIDIA/vgpu-device-manager v0.5.0, the stock default of device 25B6: A16-8Q, then A2-8Q; pkg/vgpu/config.go refuses the second",
        "converges",  # with a profile, which a site names: only the stock default is broken
    ),
    "renamed-resource": Fault(
        "operand",
        "the sandbox device plugin knows no GPU by name, and advertises whole ones by their device ids",
        "NVIDIA/kubevirt-gpu-device-plugin v1.6.0, pkg/device_plugin/device_plugin.go: an id that its pci.ids lacks is the name",
        "converges",
    ),
    "preinstalled-driver": Fault(
        "operand",
        "vfio-manager and vGPU manager find a driver on the host: they label it pre-installed, the operator takes the label away, again and again",
        "NVIDIA/k8s-driver-manager v0.12.0, cmd/driver-manager/main.go; NVIDIA/gpu-operator v26.7.0, controllers/nodelabeling_controller.go",
        "fails",
        "k8s-driver-manager",
    ),
    "deaf-virt-handler": Fault(
        "operand",
        "KubeVirt's own device plugin sees what is permitted only when its pod starts; there is one after `lab owned` alone",
        "kubevirt/kubevirt#7084, #8608, #9379, #16602: devices that are permitted appear after a restart of virt-handler",
        "converges",
    ),
    "plugin-at-0": Fault(
        "operand",
        "device plugins that start advertise their resources with the number 0",
        "kubernetes/kubernetes, pkg/kubelet/cm/devicemanager: a plugin whose devices are unhealthy, or that lists none, leaves its resource at 0",
        "fails",
        "advertises nothing",
    ),
    "api-conflict": Fault(
        "api",
        "every second change of an object is refused, as if another writer had been faster",
        _API + "staging/src/k8s.io/apiserver/pkg/registry/generic/registry/store.go, OptimisticLockErrorMsg",
        "either",
        "the object has been modified",
        Rule(409, 2, frozenset({"PATCH", "PUT"}), reason="Conflict", message=f"Operation cannot be fulfilled: {_MODIFIED}"),
    ),
    "api-busy": Fault(
        "api",
        "every third request is refused for a second, because there are too many",
        _API + "staging/src/k8s.io/apiserver/pkg/server/filters/priority-and-fairness.go, tooManyRequests",
        "converges",
        rule=Rule(429, 3, reason="TooManyRequests", message="Too many requests, please try again later.", retry_after=1),
    ),
    "api-error": Fault(
        "api",
        "every seventh request fails in the API server, because etcd changes its leader",
        "etcd-io/etcd, server/etcdserver/errors/errors.go, ErrLeaderChanged; " + _API + "its text in an answer with status 500",
        "either",
        "leader changed",
        Rule(500, 7, reason="InternalError", message="etcdserver: leader changed"),
    ),
    "api-unavailable": Fault(
        "api",
        "every seventh request is answered with status 503, as where a load balancer has no API server",
        _API + "staging/src/k8s.io/apimachinery/pkg/api/errors/errors.go, NewServiceUnavailable",
        "either",
        "No server is available",
        Rule(503, 7, reason="ServiceUnavailable", message="No server is available to handle this request."),
    ),
    "api-reset": Fault(
        "api",
        "the connection of every seventh request is reset before the request is carried out",
        _API + "an API server that is restarted behind its load balancer",
        "either",
        "reset by peer",
        Rule(RESET, 7),
    ),
    "api-lost-answer": Fault(
        "api",
        "the connection of every third writing request is reset after it was carried out",
        _API + "an API server that is killed between its write to etcd and its answer",
        "either",
        "reset by peer",
        Rule(LOST, 3, WRITES),
    ),
    "api-silent": Fault(
        "api",
        "every twentieth read is not answered for 15 s, and then the connection is closed",
        _API + "an API server whose etcd does not answer: connections are taken, requests wait",
        "either",
        "EOF|does not answer",
        Rule(SILENT, 20, frozenset({"GET"})),
    ),
    "webhook-down": Fault(
        "webhook",
        "a webhook that must be asked about KubeVirt objects and virtual machines does not answer",
        "kubevirt/kubevirt, pkg/virt-operator/resource/generate/components/webhooks.go: failurePolicy Fail, served by virt-operator and virt-api",
        "fails",
        "failed calling webhook",
        Rule(
            500,
            1,
            WRITES,
            r"/apis/kubevirt\.io/.*(kubevirts|virtualmachines|virtualmachineinstances)(/.*)?",
            reason="InternalError",
            message=f'Internal error occurred: failed calling webhook "{WEBHOOK}": failed to call webhook: Post "{NOWHERE}": '
            "dial tcp 127.0.0.1:1: connect: connection refused",
        ),
        ("kubevirts", "virtualmachines", "virtualmachineinstances"),
    ),
}

#: How long operands of the lab take, at the most, to do what a fault has kept them from. Until then a node may be in the middle of a change,
#: which the next run refuses, as it should.
SECONDS_AFTER = 20


def chosen(names: Iterable[str]) -> list[str]:
    """Names as they are recorded: each once, in order; ``none`` alone is no fault. LabError for a name that is none."""
    given = [name for name in names if name != "none"]
    if unknown := sorted(set(given) - FAULTS.keys()):
        raise LabError(f"Setting the lab's faults: {', '.join(unknown)} is not known. Known: none, {', '.join(FAULTS)}.")
    return sorted(set(given))


def misjudged(name: str, converged: bool, output: str) -> list[str]:
    """What is not as the table says of a run that met this fault, in words. ``converged``: did it go through, but for what it always refuses?"""
    fault = FAULTS[name]
    if converged:
        return [f"site.yml went through in spite of {name}"] if fault.ends == "fails" else []
    if fault.ends == "converges":
        return [f"site.yml did not get over {name}"]
    return [] if re.search(fault.says, output) else [f"site.yml failed and did not say {fault.says!r}"]


def listing() -> str:
    """The table, for people."""
    return "\n".join(f"{name:<20} {fault.where:<8} {fault.what}" for name, fault in FAULTS.items())
