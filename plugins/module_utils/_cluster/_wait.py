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

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _names
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _operands
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._operands import Object, labels

CONTAINER_RESOURCE = "nvidia.com/gpu"
#: A ``failed`` that stood there before may be an old one: it counts after this many seconds.
FAILED_SECONDS = 60.0

#: What the kubelet says about a container that does not start -> what is known to cause it.
CAUSES = {
    "ImagePullBackOff": "the image cannot be pulled: its tag must carry the suffix of the node's OS (such as -ubuntu22.04), and the pull secret must be valid",
    "ErrImagePull": "the image cannot be pulled: its tag must carry the suffix of the node's OS (such as -ubuntu22.04), and the pull secret must be valid",
    "CrashLoopBackOff": "look at the pod's log: a driver on the host, Secure Boot or missing kernel headers are the usual causes",
    "CreateContainerConfigError": "a ConfigMap or Secret that it names is missing",
}


@dataclasses.dataclass(frozen=True)
class Wanted:
    """One node to wait for. ``expect``: ``[{resource|pci|vgpu_type, count}]``."""

    name: str
    workload: str
    expect: t.Tuple[t.Mapping[str, t.Any], ...]
    state_before: t.Optional[str] = None  #: the vGPU Device Manager's state label before our change


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
    """A condition that does not hold: what, and why as far as it is known. ``final``: waiting longer does not help."""

    what: str
    cause: str = ""
    final: bool = False

    def __str__(self) -> str:
        return f"{self.what} ({self.cause})" if self.cause else self.what


Condition = t.Callable[[Snapshot, Wanted, Object], t.Optional[Unmet]]


def _is_ready(snapshot: Snapshot, wanted: Wanted, node: Object) -> Unmet | None:
    conditions = (node.get("status") or {}).get("conditions") or []
    if any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions):
        return None
    return Unmet("the node is not ready")


def _has_workload(snapshot: Snapshot, wanted: Wanted, node: Object) -> Unmet | None:
    own = labels(node)
    if own.get(_operands.WORKLOAD) != wanted.workload:
        return Unmet(
            f"its label {_operands.WORKLOAD} is {own.get(_operands.WORKLOAD) or 'not set'}, not {wanted.workload}",
            "somebody else changed it",
            True,
        )
    if own.get(_operands.OPERANDS) == "false":
        return Unmet(f"its label {_operands.OPERANDS} is false", "operands are kept off it by somebody's decision", True)
    return None


def _has_deploy_labels(snapshot: Snapshot, wanted: Wanted, node: Object) -> Unmet | None:
    own = labels(node)
    for operand in _operands.REQUIRED[wanted.workload]:
        value = own.get(_operands.DEPLOY_PREFIX + operand)
        if value != "true":
            cause = "the vGPU Device Manager or a driver upgrade paused it" if (value or "").startswith("paused") else ""
            cause = cause or ("the operator has not seen the node, or is not running" if value is None else "")
            return Unmet(f"its label {_operands.DEPLOY_PREFIX}{operand} is {value or 'not set'}, not true", cause)
    return None


def _newest(snapshot: Snapshot, daemonset: Object) -> str | None:
    """The revision hash that pods of this DaemonSet should carry."""
    uid = daemonset["metadata"].get("uid")
    own = [r for r in snapshot.revisions if any(o.get("uid") == uid for o in r["metadata"].get("ownerReferences") or [])]
    newest = max(own, key=lambda r: int(r.get("revision") or 0), default=None)
    return None if newest is None else labels(newest).get("controller-revision-hash")


def _has_operands(snapshot: Snapshot, wanted: Wanted, node: Object) -> Unmet | None:
    sets = {_operands.operand_of_set(item): item for item in snapshot.daemonsets}
    here = [pod for pod in snapshot.pods if (pod.get("spec") or {}).get("nodeName") == wanted.name and not _operands.terminal(pod)]
    for operand in _operands.REQUIRED[wanted.workload]:
        daemonset = sets.get(operand)
        if daemonset is None:
            return Unmet(f"there is no DaemonSet for {operand}", "the operator has not made it: look at the ClusterPolicy")
        pods = [pod for pod in here if _operands.operand_of_pod(pod) == operand]
        if not pods:
            return Unmet(f"no pod of {operand} runs on it")
        hash_wanted = _newest(snapshot, daemonset)
        for pod in pods:
            name = pod["metadata"]["name"]
            if hash_wanted and labels(pod).get("controller-revision-hash") != hash_wanted:
                return Unmet(
                    f"pod {name} is of an older revision", "its update strategy is OnDelete: it is replaced when somebody deletes it"
                )
            conditions = (pod.get("status") or {}).get("conditions") or []
            if not any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions):
                return Unmet(f"pod {name} is not ready", _why_not(pod))
    return None


def _why_not(pod: Object) -> str:
    status = pod.get("status") or {}
    for kind in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(kind) or []:
            waiting = (container.get("state") or {}).get("waiting") or {}
            if waiting.get("reason") in CAUSES:
                return f"container {container['name']}: {waiting['reason']}; {CAUSES[waiting['reason']]}"
    return str(status.get("phase") or "")


def _has_vgpu_state(snapshot: Snapshot, wanted: Wanted, node: Object) -> Unmet | None:
    if wanted.workload != "vm-vgpu":
        return None
    state = labels(node).get(_operands.VGPU_STATE)
    if state == "success":
        return None
    if state == "failed":
        cause = "the profile is not in its configuration, or a VM holds a vGPU; see the log of the vgpu-device-manager pod"
        return Unmet("the vGPU Device Manager says failed", cause, final=wanted.state_before != "failed")
    return Unmet(f"the vGPU Device Manager says {state or 'nothing yet'}")


def _advertises(snapshot: Snapshot, wanted: Wanted, node: Object) -> Unmet | None:
    advertised = {name: count for name, count in _operands.resources(node).items() if count}
    matched, missing = match(wanted.expect, advertised)
    if missing:
        want = ", ".join(f"{e.get('resource') or e.get('vgpu_type') or e.get('pci')}: {e['count']}" for e in missing)
        have = ", ".join(f"{name}: {count}" for name, count in advertised.items()) or "nothing"
        return Unmet(
            f"it should advertise {want}, and advertises {have}", "the device plugin looks once, at its start" if advertised else ""
        )
    extra = sorted(name for name in advertised if name not in matched and not _operands.companion(name))
    if extra:
        return Unmet(f"it also advertises {', '.join(extra)}", "left over from another workload or profile")
    return None


def match(
    expect: t.Iterable[t.Mapping[str, t.Any]], advertised: t.Mapping[str, int]
) -> t.Tuple[t.List[str], t.List[t.Mapping[str, t.Any]]]:
    """Which resources meet the expectations, each used once, and which expectations are not met."""
    free = dict(advertised)
    matched: t.List[str] = []
    missing: t.List[t.Mapping[str, t.Any]] = []
    # Those that name a resource choose first: a PCI id takes whatever whole GPU is left.
    for expected in sorted(expect, key=lambda e: "pci" in e):
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
        return _names.plain_type(name) == expected["vgpu_type"]
    return name != CONTAINER_RESOURCE and _names.plain_type(name) is None and not _operands.companion(name)


#: In the order in which a node gets there. The first that fails is what it waits for.
CONDITIONS: t.Tuple[Condition, ...] = (_is_ready, _has_workload, _has_deploy_labels, _has_operands, _has_vgpu_state, _advertises)


def unmet(snapshot: Snapshot, wanted: Wanted) -> Unmet | None:
    """The first condition of a node that does not hold, or None."""
    node = snapshot.nodes.get(wanted.name)
    if node is None:
        return Unmet("there is no such node", final=True)
    for condition in CONDITIONS:
        found = condition(snapshot, wanted, node)
        if found:
            return found
    return None


def cluster_unmet(snapshot: Snapshot) -> Unmet | None:
    """What keeps the operator as a whole from being done, or None. ``ready`` alone proves nothing: without GPU nodes it is ready too."""
    if snapshot.policy is None:
        return Unmet("there is no ClusterPolicy")
    status = snapshot.policy.get("status") or {}
    ready: t.Mapping[str, t.Any] = next((c for c in status.get("conditions") or [] if c.get("type") == "Ready"), {})
    if status.get("state") == "ready" and ready.get("status") == "True" and ready.get("reason") == "Reconciled":
        return None
    return Unmet(
        f"the ClusterPolicy is {status.get('state') or 'without state'} ({ready.get('reason') or 'no reason'})",
        str(ready.get("message") or ""),
    )


class Waiting:
    """Follows snapshots until all conditions have held, unchanged, for ``settle`` seconds. Time is given by the caller, in seconds."""

    def __init__(self, wanted: t.Sequence[Wanted], cluster: bool, settle: float) -> None:
        self.wanted = wanted
        self.cluster = cluster
        self.settle = settle
        self.problems: t.Dict[str, Unmet] = {}
        self.met_at: t.Dict[str, float] = {}
        self._failed_since: t.Dict[str, float] = {}
        self._held: t.Optional[t.Tuple[t.Any, float]] = None

    def look(self, snapshot: Snapshot, now: float) -> str:
        """``done``, ``waiting``, or ``hopeless`` (a condition that waiting does not mend)."""
        self.problems = {}
        for wanted in self.wanted:
            found = unmet(snapshot, wanted)
            if found is None:
                self.met_at.setdefault(wanted.name, now)
                self._failed_since.pop(wanted.name, None)
                continue
            self.met_at.pop(wanted.name, None)
            self.problems[f"node {wanted.name}"] = self._aged(wanted.name, found, now)
        whole = cluster_unmet(snapshot) if self.cluster else None
        if whole:
            self.problems["the operator"] = whole
        if any(problem.final for problem in self.problems.values()):
            return "hopeless"
        if self.problems:
            self._held = None
            return "waiting"
        state = [sorted(_operands.resources(snapshot.nodes[w.name]).items()) for w in self.wanted]
        if self._held is None or self._held[0] != state:
            self._held = (state, now)
        return "done" if now - self._held[1] >= self.settle else "waiting"

    def _aged(self, name: str, found: Unmet, now: float) -> Unmet:
        """A ``failed`` from before our change counts once it has stood for a while."""
        if "failed" not in found.what or found.final:
            self._failed_since.pop(name, None)
            return found
        since = self._failed_since.setdefault(name, now)
        return dataclasses.replace(found, final=now - since >= FAILED_SECONDS)
