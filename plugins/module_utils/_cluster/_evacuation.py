# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What is on a node, and what has to become of each: plain API objects in, one :class:`Item` per virtual machine or pod out.

Sources: kubevirt/kubevirt pkg/virt-controller/watch/vm/vm.go (run strategies), pkg/virt-api/webhooks/validating-webhook/admitters (eviction,
migration), staging/src/kubevirt.io/api/core/v1/types.go (labels, conditions); kubernetes/kubectl pkg/drain/filters.go (pods).
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _fleet, _operands
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._operands import Object, annotations_of, labels, owner

POLICIES = ("refuse", "stop", "migrate", "auto")
_MIRROR = "kubernetes.io/config.mirror"
_TARGET_JOB = "kubevirt.io/migrationJobUID"
#: Acts that do something to the item. The others: ``leave``, ``wait``, ``refuse``.
ACTS = ("migrate", "stop", "delete", "evict")


@dataclasses.dataclass(frozen=True)
class Rules:
    """``scope``: ``gpu`` clears what uses a GPU, ``node`` everything. ``force_vms``: ``NAMESPACE/NAME`` of VMs that may be taken down in any
    case, also for good. ``force_pods``: pods that have local data, or that nobody makes again, may be evicted."""

    scope: str = "gpu"
    evacuate: str = "refuse"
    force_vms: frozenset[str] = frozenset()
    force_pods: bool = False


@dataclasses.dataclass(frozen=True)
class Item:
    """One virtual machine instance (with its launcher pods) or one pod.

    ``act``: what is to be done. ``why``: for ``refuse`` the problem, otherwise the reason. ``restore``: what to write down before a ``stop``.
    """

    kind: str
    namespace: str
    name: str
    uid: str
    act: str
    why: str
    remedy: str = ""
    restore: t.Mapping[str, t.Any] | None = None

    @property
    def target(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"

    @property
    def full_name(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def present(self) -> bool:
        """True while it keeps the node from being clear."""
        return self.act != "leave"


@dataclasses.dataclass(frozen=True)
class OnNode:
    """What was read. ``pods``: those of the node; ``vmis``: of the whole cluster; ``vms``: the owners of those on the node, by
    ``NAMESPACE/NAME``; ``claims``: resource claims of the whole cluster."""

    node: str
    pods: t.Sequence[Object]
    vmis: t.Sequence[Object] = ()
    vms: t.Mapping[str, Object] = dataclasses.field(default_factory=dict)
    claims: t.Sequence[Object] = ()


def vmis_on(node: str, vmis: t.Iterable[Object]) -> list[Object]:
    """Instances that run on, are bound for, or migrate to a node."""
    return [vmi for vmi in vmis if node in (_node_of(vmi), _migrating_to(vmi)) and not _ended(vmi)]


def vm_of(vmi: Object) -> str | None:
    """``NAMESPACE/NAME`` of the VirtualMachine that made an instance; None if none did."""
    made_by = owner(vmi)
    return f"{vmi['metadata'].get('namespace', '')}/{made_by['name']}" if made_by.get("kind") == "VirtualMachine" else None


def classify(seen: OnNode, rules: Rules) -> list[Item]:
    """What has to become of everything on a node, sorted by name. What stays (``leave``) is in it too."""
    vmis = vmis_on(seen.node, seen.vmis)
    known = {(vmi["metadata"].get("namespace", ""), vmi["metadata"]["name"]) for vmi in vmis}
    launchers: dict[tuple[str, str], list[Object]] = {}
    items = []
    for pod in seen.pods:
        vmi_name = _fleet.vmi_of(pod)
        key = (pod["metadata"].get("namespace", ""), vmi_name or "")
        if vmi_name and key in known and not _operands.terminal(pod):
            launchers.setdefault(key, []).append(pod)
        else:
            items.append(_pod(pod, seen, rules, vmi_name))
    for vmi in vmis:
        key = (vmi["metadata"].get("namespace", ""), vmi["metadata"]["name"])
        items.append(_vmi(vmi, launchers.get(key, []), seen, rules))
    items += _foreign_claims(seen)
    return sorted(items, key=lambda item: (item.kind != "VM", item.namespace, item.name))


# ------------------------------------------------------------------ virtual machines


def _node_of(vmi: Object) -> str | None:
    return (vmi.get("status") or {}).get("nodeName") or labels(vmi).get("kubevirt.io/nodeName")


def _migration(vmi: Object) -> Object:
    """The state of a migration that goes on; empty if none does."""
    state = (vmi.get("status") or {}).get("migrationState") or {}
    return {} if state.get("completed") or state.get("failed") else state


def _migrating_to(vmi: Object) -> str | None:
    """Its target. The label comes before the state, and may outlive it."""
    if (vmi.get("status") or {}).get("migrationState") and not _migration(vmi):
        return None
    return _migration(vmi).get("targetNode") or labels(vmi).get("kubevirt.io/migrationTargetNodeName")


def _ended(vmi: Object) -> bool:
    return (vmi.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _migratable(vmi: Object) -> tuple[bool, str]:
    for condition in (vmi.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "LiveMigratable":
            return condition.get("status") == "True", str(condition.get("reason") or condition.get("message") or "no reason was given")
    return False, "KubeVirt has not said that it can be"


def _vmi(vmi: Object, pods: t.Sequence[Object], seen: OnNode, rules: Rules) -> Item:
    metadata = vmi["metadata"]
    status = vmi.get("status") or {}
    name = f"{metadata.get('namespace', '')}/{metadata['name']}"
    make = _maker("VM", metadata)
    uses_gpu = bool(_fleet.devices_of(vmi)) or any(_holds_gpu(pod, seen) for pod in pods)
    if rules.scope == "gpu" and not uses_gpu:
        return make("leave", "it uses no GPU")
    forced = name in rules.force_vms
    told = rules.evacuate != "refuse" or forced
    if metadata.get("deletionTimestamp"):
        return make("wait", "it is being shut down")
    if _node_of(vmi) != seen.node or _migration(vmi):
        moves = "it is being migrated"
        return make("wait", moves) if told else make("refuse", f"{moves} from or to this node", "Wait until that is over and run again")
    can_move, why_not = _migratable(vmi)
    if can_move and status.get("phase") == "Running" and rules.evacuate in ("migrate", "auto"):
        return make("migrate", "it can be migrated")
    if rules.evacuate in ("stop", "auto") or forced:
        return _take_down(vmi, seen, forced, make)
    if rules.evacuate == "migrate":
        return make(
            "refuse",
            f"it cannot be migrated ({why_not if not can_move else 'it is ' + str(status.get('phase'))})",
            "Stop it, or allow that with gpufleet_evacuate: auto",
        )
    return make(
        "refuse",
        "it runs on this node" + (", with a GPU" if uses_gpu else ""),
        "Stop or move it, or allow that with gpufleet_evacuate: stop, migrate or auto",
    )


def _take_down(vmi: Object, seen: OnNode, forced: bool, make: t.Callable[..., Item]) -> Item:
    vm_name = vm_of(vmi)
    if vm_name is not None:
        vm = seen.vms.get(vm_name)
        if vm is None:
            return make("refuse", f"its VirtualMachine {vm_name} cannot be read", "Look whether it is being deleted, and run again")
        field, value = run_setting(vm)
        if value in ("Halted", False):
            return make("wait", "it has been told to stop")
        what = {"kind": "VirtualMachine", "namespace": vm["metadata"].get("namespace", ""), "name": vm["metadata"]["name"]}
        return make("stop", "it is started again later", restore={**what, "uid": vm["metadata"]["uid"], "field": field, "value": value})
    if owner(vmi).get("controller"):
        return make("delete", f"its {owner(vmi).get('kind')} makes another one")
    if forced:
        return make("delete", "it is named in force_vms; nothing makes it again")
    return make(
        "refuse",
        "no VirtualMachine made it, so it would be gone for good",
        "Delete it yourself, or name it in force_vms",
    )


def run_setting(vm: Object) -> tuple[str, t.Any]:
    """The field of a VirtualMachine that says whether it runs, and its value; KubeVirt's own default is Halted."""
    spec = vm.get("spec") or {}
    if spec.get("runStrategy") is not None:
        return "runStrategy", spec["runStrategy"]
    return ("running", spec["running"]) if spec.get("running") is not None else ("runStrategy", "Halted")


def halted(field: str) -> t.Any:
    """The value of that field that stops a VM."""
    return False if field == "running" else "Halted"


# ------------------------------------------------------------------ pods


def _maker(kind: str, metadata: Object) -> t.Callable[..., Item]:
    def make(act: str, why: str, remedy: str = "", restore: t.Mapping[str, t.Any] | None = None) -> Item:
        return Item(kind, metadata.get("namespace", ""), metadata["name"], metadata.get("uid", ""), act, why, remedy, restore)

    return make


def _holds_gpu(pod: Object, seen: OnNode) -> bool:
    return bool(_fleet.limits(pod)) or any(_is_gpu_claim(name, pod, seen) for name in _claims_of(pod))


def _claims_of(pod: Object) -> list[str | None]:
    """Names of a pod's resource claims; None for one whose object is not there yet."""
    made = {entry.get("name"): entry.get("resourceClaimName") for entry in (pod.get("status") or {}).get("resourceClaimStatuses") or []}
    return [entry.get("resourceClaimName") or made.get(entry.get("name")) for entry in (pod.get("spec") or {}).get("resourceClaims") or []]


def _drivers(claim: Object) -> set[str]:
    results = (((claim.get("status") or {}).get("allocation") or {}).get("devices") or {}).get("results") or []
    return {str(result.get("driver")) for result in results}


def _nvidia(drivers: t.Iterable[str]) -> bool:
    return any(driver == "nvidia.com" or driver.endswith(".nvidia.com") for driver in drivers)


def _is_gpu_claim(name: str | None, pod: Object, seen: OnNode) -> bool:
    """What is not known counts as one: a claim that is not allocated yet, or cannot be found."""
    found = [c for c in seen.claims if c["metadata"]["name"] == name and c["metadata"].get("namespace") == pod["metadata"].get("namespace")]
    drivers = _drivers(found[0]) if found else set()
    return not drivers or _nvidia(drivers)


def _pod(pod: Object, seen: OnNode, rules: Rules, vmi_name: str | None) -> Item:
    metadata = pod["metadata"]
    make = _maker("pod", metadata)
    made_by = owner(pod)
    if _operands.terminal(pod):
        return make("leave", "it has ended")
    if _MIRROR in annotations_of(pod) or made_by.get("kind") == "Node":
        return make("leave", "it is the kubelet's own")
    uses_gpu = _holds_gpu(pod, seen)
    if made_by.get("kind") == "DaemonSet":
        if rules.scope == "node" or not uses_gpu:
            return make("leave", f"DaemonSet {made_by.get('name')} keeps it on the node")
        return make(
            "refuse",
            f"it uses a GPU, and DaemonSet {made_by.get('name')} would make it again here at once",
            f"Keep DaemonSet {metadata.get('namespace')}/{made_by.get('name')} off this node",
        )
    if rules.scope == "gpu" and not uses_gpu:
        return make("leave", "it uses no GPU")
    if metadata.get("deletionTimestamp"):
        return make("wait", "it is being shut down")
    if vmi_name is not None:
        # A target pod before its VMI says so, or a launcher whose VMI has gone: both change by themselves, or somebody has to look.
        if _TARGET_JOB in {*labels(pod), *annotations_of(pod)} and rules.evacuate != "refuse":
            return make("wait", f"VM {vmi_name} is being migrated to this node")
        return make(
            "refuse", f"it runs VM {vmi_name}, which says that it is not on this node", "Wait until KubeVirt has settled that and run again"
        )
    if rules.evacuate == "refuse":
        return make(
            "refuse", "it runs on this node" + (", with a GPU" if uses_gpu else ""), "Move it, or allow that with gpufleet_evacuate"
        )
    if not rules.force_pods:
        if not made_by.get("controller"):
            return make("refuse", "nothing would make it again", "Delete it yourself, or allow that with force_pods")
        if any("emptyDir" in volume for volume in (pod.get("spec") or {}).get("volumes") or []):
            return make(
                "refuse", "it has data on this node (emptyDir) that would be lost", "Delete it yourself, or allow that with force_pods"
            )
    return make("evict", f"{made_by.get('kind') or 'force_pods'} {made_by.get('name') or ''}".strip())


def _foreign_claims(seen: OnNode) -> list[Item]:
    """GPU claims that are allocated on this node for a pod that is not among its pods: the sources disagree, so nothing is safe."""
    pods = {pod["metadata"].get("uid") for pod in seen.pods}
    found = []
    for claim in seen.claims:
        reserved = (claim.get("status") or {}).get("reservedFor") or []
        if not _nvidia(_drivers(claim)) or not reserved or not _allocated_on(claim, seen.node):
            continue
        for user in reserved:
            if user.get("uid") not in pods:
                make = _maker("claim", claim["metadata"])
                problem = f"it has a GPU of this node for {user.get('resource')} {user.get('name')}, which is not on the node"
                found.append(make("refuse", problem, "Wait until the scheduler has settled that and run again"))
                break
    return found


def _allocated_on(claim: Object, node: str) -> bool:
    selector = ((claim.get("status") or {}).get("allocation") or {}).get("nodeSelector") or {}
    terms = selector.get("nodeSelectorTerms") or []
    named = [
        value
        for term in terms
        for requirement in [*(term.get("matchFields") or []), *(term.get("matchExpressions") or [])]
        if requirement.get("key") in ("metadata.name", "kubernetes.io/hostname") and requirement.get("operator") == "In"
        for value in requirement.get("values") or []
    ]
    return node in named


# ------------------------------------------------------------------ nodes


def control_plane(node: Object) -> bool:
    """True for a node that runs the cluster itself."""
    return any(key in labels(node) for key in ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"))


def why_out(node: Object) -> str | None:
    """``cordoned`` or ``not ready``; None for a node in service."""
    if (node.get("spec") or {}).get("unschedulable"):
        return "cordoned"
    conditions = (node.get("status") or {}).get("conditions") or []
    return None if any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions) else "not ready"


def gpu_nodes_out(nodes: t.Iterable[Object]) -> tuple[int, dict[str, str]]:
    """How many nodes have a GPU, and which nodes that have or may have one are out by themselves, with why.

    Before NFD is there (it comes with the operator), a node without its labels may have one; then all of them count.
    """
    found = list(nodes)
    evidence = {node["metadata"]["name"]: _operands.gpu_evidence(node) for node in found}
    out = {node["metadata"]["name"]: why for node in found if evidence[node["metadata"]["name"]] is not False and (why := why_out(node))}
    certain = sum(1 for is_gpu in evidence.values() if is_gpu)
    return certain or sum(1 for is_gpu in evidence.values() if is_gpu is None), out
