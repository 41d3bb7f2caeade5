# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""When is a GPU node what it was planned to be? Conditions over one snapshot of the cluster, pure, the first that fails named.

A label is not a fact: the operands' pods must be ready and of the newest revision, and the node must advertise exactly what was planned.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _device_names
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _operands, _rollout
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._operands import Object, labels

CONTAINER_RESOURCE = "nvidia.com/gpu"
#: A ``failed`` that stood there before may be an old one: it counts after this many seconds.
FAILED_SECONDS = 60.0

_PULL = "the tag must carry the suffix of the node's OS (such as -ubuntu22.04), and the pull secret must be valid"
#: What the kubelet says about a container that does not start -> what is known to cause it.
CAUSES = {
    "ImagePullBackOff": _PULL,
    "ErrImagePull": _PULL,
    "CrashLoopBackOff": "look at the container's log: a driver on the host, Secure Boot or missing kernel headers are the usual causes",
    "CreateContainerConfigError": "a ConfigMap or Secret that it names is missing",
}
#: Container -> what is known to keep it from ending well; more exact than the kubelet's reason.
CONTAINER_CAUSES = {
    "k8s-driver-manager": "the host has an NVIDIA driver of its own, or a process uses a GPU; purge the one or stop the other",
}


@dataclasses.dataclass(frozen=True)
class Wanted:
    """One node to wait for. ``expect``: ``[{resource|pci|vgpu_type, count}]``.
    ``failed_before``: the vGPU Device Manager said ``failed`` before our change, or nobody looked."""

    name: str
    workload: str
    expect: t.Tuple[t.Mapping[str, t.Any], ...]
    failed_before: bool = True
    owner: str = "operator"  #: of its devices; without operands nothing but what it advertises tells how far it is


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """Plain API objects as they were read at one time; ``policy`` is the ClusterPolicy in use, or None."""

    nodes: t.Mapping[str, Object]
    pods: t.Sequence[Object]
    daemonsets: t.Sequence[Object]
    revisions: t.Sequence[Object]
    policy: t.Optional[Object]


@dataclasses.dataclass(frozen=True)
class Unmet:
    """A condition that does not hold: what, and why as far as it is known. ``final``: waiting longer does not help.
    ``ripens``: it becomes final once it has stood for FAILED_SECONDS. ``lags``: nothing but what the node advertises is not as planned."""

    what: str
    cause: str = ""
    final: bool = False
    ripens: bool = False
    lags: bool = False

    def __str__(self) -> str:
        return f"{self.what} ({self.cause})" if self.cause else self.what


@dataclasses.dataclass(frozen=True)
class Case:
    """One node of a snapshot, and what is wanted of it."""

    snapshot: Snapshot
    wanted: Wanted
    node: Object

    @property
    def required(self) -> t.List[str]:
        """Operands without which the workload cannot work. Those that somebody switched off with ``false`` do without, as the operator does."""
        own = labels(self.node)
        return [o for o in _operands.REQUIRED[self.wanted.workload] if own.get(_operands.DEPLOY_PREFIX + o) != "false"]

    def pods(self, operand: str) -> t.List[Object]:
        return [
            pod
            for pod in self.snapshot.pods
            if (pod.get("spec") or {}).get("nodeName") == self.wanted.name
            and not _operands.terminal(pod)
            and _operands.operand_of_pod(pod) == operand
        ]


Condition = t.Callable[[Case], t.Optional[Unmet]]


def ready(item: Object) -> bool:
    """True if a node or a pod has the condition Ready."""
    conditions = (item.get("status") or {}).get("conditions") or []
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def _is_ready(case: Case) -> Unmet | None:
    return None if ready(case.node) else Unmet("the node is not ready")


def _has_workload(case: Case) -> Unmet | None:
    own = labels(case.node)
    workload = own.get(_operands.WORKLOAD)
    if workload != case.wanted.workload:
        cause = "somebody else changed it" if workload else "nobody has labelled it yet, or somebody took the label away"
        return Unmet(f"its label {_operands.WORKLOAD} is {workload or 'not set'}, not {case.wanted.workload}", cause, final=True)
    if own.get(_operands.OPERANDS) == "false":
        return Unmet(f"its label {_operands.OPERANDS} is false", "operands are kept off it by somebody's decision", final=True)
    return None


def _keeps_operands_off(case: Case) -> Unmet | None:
    """The other way round, on a host that owns its devices."""
    value = labels(case.node).get(_operands.OPERANDS)
    if value == "false":
        return None
    cause = "the operator may change devices that are the host's own"
    return Unmet(f"its label {_operands.OPERANDS} is {value or 'not set'}, not false", cause, final=True)


def _has_not_failed(case: Case) -> Unmet | None:
    """Before the labels and pods: after a failure the device manager leaves them paused, which would hide why."""
    if case.wanted.workload != "vm-vgpu" or labels(case.node).get(_operands.VGPU_STATE) != "failed":
        return None
    if not any(ready(pod) for pod in case.pods("vgpu-device-manager")):
        return None  # an old label: nobody who could have written it runs
    cause = "the profile is not in its configuration or does not fit, or a VM holds a vGPU; see the log of the vgpu-device-manager pod"
    return Unmet("the vGPU Device Manager says failed", cause, final=not case.wanted.failed_before, ripens=True)


def _has_deploy_labels(case: Case) -> Unmet | None:
    own = labels(case.node)
    for operand in case.required:
        value = own.get(_operands.DEPLOY_PREFIX + operand)
        if value == "true":
            continue
        cause = ""
        if value is None:
            cause = "the operator has not seen the node, or is not running"
        elif "paused" in value:
            cause = "the vGPU Device Manager or a driver upgrade paused it; if none is at work, one was killed: set the label to true"
        return Unmet(f"its label {_operands.DEPLOY_PREFIX}{operand} is {value or ('empty' if value == '' else 'not set')}, not true", cause)
    return None


def _has_operands(case: Case) -> Unmet | None:
    for operand in case.required:
        # More than one where there is one per OS or kernel.
        sets = {item["metadata"].get("uid"): item for item in case.snapshot.daemonsets if _operands.operand_of_set(item) == operand}
        if not sets:
            return Unmet(f"there is no DaemonSet for {operand}", "the operator has not made it: look at the ClusterPolicy")
        pods = case.pods(operand)
        if not pods:
            return Unmet(f"no pod of {operand} runs on it")
        for pod in pods:
            found = _pod_unmet(case.snapshot, pod, sets.get(_operands.owner(pod).get("uid")))
            if found:
                return found
    return None


def _pod_unmet(snapshot: Snapshot, pod: Object, daemonset: t.Optional[Object]) -> Unmet | None:
    name = pod["metadata"]["name"]
    if pod["metadata"].get("deletionTimestamp"):
        return Unmet(f"pod {name} is being deleted")
    if daemonset is None:
        return Unmet(f"pod {name} belongs to a DaemonSet that is gone")
    if ((daemonset.get("status") or {}).get("observedGeneration") or 0) < (daemonset["metadata"].get("generation") or 0):
        return Unmet(f"DaemonSet {daemonset['metadata']['name']} was changed a moment ago", "its controller has not seen it yet")
    wanted = _rollout.newest(snapshot.revisions, daemonset)
    if wanted and labels(pod).get("controller-revision-hash") != wanted:
        strategy = ((daemonset.get("spec") or {}).get("updateStrategy") or {}).get("type")
        cause = (
            "its update strategy is OnDelete: it is replaced when somebody deletes it" if strategy == "OnDelete" else "it is to be replaced"
        )
        return Unmet(f"pod {name} is of an older revision", cause)
    return None if ready(pod) else Unmet(f"pod {name} is not ready", _why_not(pod))


def _why_not(pod: Object) -> str:
    status = pod.get("status") or {}
    for kind in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(kind) or []:
            state = container.get("state") or {}
            reason = (state.get("waiting") or {}).get("reason")
            if reason in CAUSES:
                return f"container {container['name']}: {reason}; {CONTAINER_CAUSES.get(container['name'], CAUSES[reason])}"
            if kind == "initContainerStatuses" and "running" in state and not container.get("ready"):
                return f"its init container {container['name']} has not ended"
    return str(status.get("phase") or "")


def _has_vgpu_state(case: Case) -> Unmet | None:
    state = labels(case.node).get(_operands.VGPU_STATE)
    if case.wanted.workload != "vm-vgpu" or state == "success" or "vgpu-device-manager" not in case.required:
        return None
    return Unmet(f"the vGPU Device Manager says {state or 'nothing yet'}")


def _advertises(case: Case) -> Unmet | None:
    advertised = {name: count for name, count in _operands.resources(case.node).items() if count}
    matched, missing = match(case.wanted.expect, advertised)
    if missing:
        want = ", ".join(f"{e.get('resource') or e.get('vgpu_type') or e.get('pci')}: {e['count']}" for e in missing)
        have = ", ".join(f"{name}: {count}" for name, count in advertised.items()) or "nothing"
        cause = "the device plugin looks once, at its start" if advertised else ""
        if case.wanted.owner == "host":
            cause = "KubeVirt's own device plugin advertises what is permitted; a restart of the node's virt-handler makes it look again"
        return Unmet(f"it should advertise {want}, and advertises {have}", cause, lags=True)
    extra = sorted(name for name in advertised if name not in matched and not _operands.companion(name))
    if extra:
        return Unmet(f"it also advertises {', '.join(extra)}", "left over from another workload or profile", lags=True)
    return None


def match(
    expect: t.Iterable[t.Mapping[str, t.Any]], advertised: t.Mapping[str, int]
) -> t.Tuple[t.List[str], t.List[t.Mapping[str, t.Any]]]:
    """Which resources meet the expectations, each used once, and which expectations are not met."""
    free = dict(advertised)
    matched: t.List[str] = []
    missing: t.List[t.Mapping[str, t.Any]] = []
    # Those that name a resource choose first, then those that name a type: a PCI id takes whatever whole GPU is left.
    for expected in sorted(expect, key=lambda e: (not e.get("resource"), not e.get("vgpu_type"))):
        fitting = [name for name, count in sorted(free.items()) if count == int(expected["count"]) and _fits(expected, name)]
        if fitting:
            matched.append(fitting[0])
            del free[fitting[0]]
        else:
            missing.append(expected)
    return sorted(matched), missing


def _fits(expected: t.Mapping[str, t.Any], name: str) -> bool:
    if expected.get("resource"):
        return bool(name == expected["resource"])
    if expected.get("vgpu_type"):
        return bool(_device_names.plain_type(name) == expected["vgpu_type"])
    return name != CONTAINER_RESOURCE and _device_names.plain_type(name) is None and not _operands.companion(name)


#: In the order in which a node gets there. The first that fails is what it waits for.
CONDITIONS: t.Tuple[Condition, ...] = (
    _is_ready,
    _has_workload,
    _has_not_failed,
    _has_deploy_labels,
    _has_operands,
    _has_vgpu_state,
    _advertises,
)

#: Of a host that owns its devices. KubeVirt's own plugin advertises them, and it tells of nothing else.
OWNED_CONDITIONS: t.Tuple[Condition, ...] = (_is_ready, _keeps_operands_off, _advertises)


def unmet(snapshot: Snapshot, wanted: Wanted) -> Unmet | None:
    """The first condition of a node that does not hold, or None."""
    node = snapshot.nodes.get(wanted.name)
    if node is None:
        return Unmet("there is no such node", final=True)
    case = Case(snapshot, wanted, node)
    for condition in OWNED_CONDITIONS if wanted.owner == "host" else CONDITIONS:
        found = condition(case)
        if found:
            return found
    return None


def cluster_unmet(snapshot: Snapshot) -> Unmet | None:
    """What keeps the operator as a whole from being done, or None. ``ready`` alone proves nothing: without GPU nodes it is ready too."""
    if snapshot.policy is None:
        return Unmet("there is no ClusterPolicy")
    status = snapshot.policy.get("status") or {}
    conditions = {c.get("type"): c for c in status.get("conditions") or []}
    ready = conditions.get("Ready") or {}
    if status.get("state") == "ready" and ready.get("status") == "True" and ready.get("reason") == "Reconciled":
        return None
    # While something is wrong the operator says what in a condition of its own (internal/conditions/clusterpolicy.go, v26.7.0).
    error = conditions.get("Error") or {}
    told = error if error.get("status") == "True" else ready
    return Unmet(
        f"the ClusterPolicy is {status.get('state') or 'without state'} ({told.get('reason') or 'no reason'})",
        str(told.get("message") or ready.get("message") or ""),
    )


class Waiting:
    """Follows snapshots until all conditions have held, unchanged, for ``settle`` seconds. Time is given by the caller, in seconds."""

    def __init__(self, wanted: t.Sequence[Wanted], cluster: bool, settle: float) -> None:
        self.wanted = wanted
        self.cluster = cluster
        self.settle = settle
        self.problems: t.Dict[str, Unmet] = {}
        self.met_at: t.Dict[str, float] = {}
        self._ripe_at: t.Dict[str, float] = {}
        self._held: t.Optional[t.Tuple[t.Any, float]] = None

    def look(self, snapshot: Snapshot, now: float) -> str:
        """``done``, ``waiting``, or ``hopeless``: waiting does not mend some nodes, and all others are there.

        One that waiting does not mend ends no other's wait: what the others wait for may hold a moment later.
        """
        self.problems = {}
        for wanted in self.wanted:
            found = unmet(snapshot, wanted)
            if found is None:
                self.met_at.setdefault(wanted.name, now)
            else:
                self.met_at.pop(wanted.name, None)
                self.problems[f"node {wanted.name}"] = found
            self._ripen(wanted.name, found, now)
        lost = any(problem.final for problem in self.problems.values())
        coming = any(not problem.final for problem in self.problems.values())
        whole = cluster_unmet(snapshot) if self.cluster else None
        if whole:
            self.problems["the operator"] = whole
        # The operator is never done while a node is lost, so nobody waits for it then.
        if coming or (whole and not lost):
            self._held = None
            return "waiting"
        state = [(name, sorted(_operands.resources(snapshot.nodes[name]).items())) for name in sorted(self.met_at)]
        if self._held is None or self._held[0] != state:
            self._held = (state, now)
        settled = now - self._held[1] >= self.settle
        if lost:
            return "hopeless" if settled or not state else "waiting"
        return "done" if settled else "waiting"

    def _ripen(self, name: str, found: Unmet | None, now: float) -> None:
        """A ``failed`` from before our change counts once it has stood for a while."""
        if found is None or not found.ripens:
            self._ripe_at.pop(name, None)
        elif now >= self._ripe_at.setdefault(name, now + FAILED_SECONDS):
            self.problems[f"node {name}"] = dataclasses.replace(found, final=True)
