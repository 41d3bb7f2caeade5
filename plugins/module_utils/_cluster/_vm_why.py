# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Why a VM or a pod has no place for its GPUs: one named cause, and what to do about it.

It is said from three sides: who permits a device, which nodes advertise it and who holds it there, and what is asked for.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _fleet
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._operands import Object, labels

HOSTNAME = "kubernetes.io/hostname"
#: virt-handler keeps it at ``true`` while it answers; KubeVirt's pods ask for it (pkg/virt-handler/heartbeat).
HANDLED = "kubevirt.io/schedulable"
NOT_PERMITTED = "not permitted in permittedHostDevices"
_START = "Start it (virtctl start), or set run_strategy: Always"
#: virt-launcher's words where a device plugin has handed it nothing that it can use (pkg/virt-launcher, hostdevice/gpu).
_NO_DEVICE = "do not match the number of devices"


@dataclasses.dataclass(frozen=True)
class Fleet:
    """``nodes`` as gpu_fleet_info has them; ``hostnames``: node -> its label ``kubernetes.io/hostname``;
    ``permitted``: resource names of KubeVirt's allow list, None if there is no list, empty if there is no KubeVirt;
    ``closed``: nodes on which KubeVirt starts no VM, because its virt-handler does not answer for them."""

    nodes: t.Sequence[Object] = ()
    hostnames: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    permitted: t.Optional[t.Sequence[str]] = ()
    closed: t.FrozenSet[str] = frozenset()


def permitted_names(permitted: t.Optional[t.Mapping[str, t.Any]]) -> t.Optional[t.List[str]]:
    """Resource names in a KubeVirt object's ``permittedHostDevices``; None stays None: no list, nothing is forbidden."""
    if permitted is None:
        return None
    entries = [entry for kind in ("pciHostDevices", "mediatedDevices", "usb") for entry in permitted.get(kind) or []]
    return sorted({str(entry["resourceName"]) for entry in entries if entry.get("resourceName")})


def fleet_of(
    nodes: t.Sequence[Object], pods: t.Sequence[Object], vmis: t.Iterable[Object], permitted: t.Optional[t.Sequence[str]]
) -> Fleet:
    """From plain API objects."""
    return Fleet(
        _fleet.node_facts(nodes, pods, vmis),
        {node["metadata"]["name"]: labels(node).get(HOSTNAME, node["metadata"]["name"]) for node in nodes},
        permitted,
        frozenset(node["metadata"]["name"] for node in nodes if labels(node).get(HANDLED) != "true"),
    )


@dataclasses.dataclass(frozen=True)
class Cause:
    """``name`` is one of ``not permitted``, ``not advertised``, ``not together``, ``in use``, ``node not available``, ``scheduler``,
    ``device refused``, ``not to run``, ``kubevirt`` or ``waiting``."""

    name: str
    problem: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.problem}; {self.remedy[:1].lower()}{self.remedy[1:]}"


Asked = t.Mapping[str, int]


def shown(asked: Asked) -> str:
    """Devices in words: ``nvidia.com/GA102GL_A10``, ``2 of nvidia.com/NVIDIA_A10-4Q``."""
    return " and ".join(name if count == 1 else f"{count} of {name}" for name, count in sorted(asked.items()))


def alike(name: str, others: t.Iterable[str]) -> t.List[str]:
    """Names that differ from this one only by case and punctuation: most often what was meant."""
    return sorted(other for other in set(others) if other != name and _loose(other) == _loose(name))


def _loose(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def _holders(node: Object, resource: str) -> t.List[str]:
    return [f"{use['namespace']}/{use['vmi'] or use['pod']}" for use in node["used"].get(resource, [])]


def _left(node: Object, resource: str) -> int:
    # One that holds more than the node advertises any more has none to spare.
    return max(0, int(node["allocatable"][resource]) - sum(int(use["count"]) for use in node["used"].get(resource, [])))


def unpermitted(asked: Asked, fleet: Fleet) -> t.Optional[Cause]:
    """A device that KubeVirt's list lacks, if there is one."""
    if fleet.permitted is None:
        return None
    missing = sorted(name for name in asked if name not in fleet.permitted)
    if not missing:
        return None
    like = [other for name in missing for other in alike(name, fleet.permitted)]
    listed = ", ".join(fleet.permitted) or "nothing"
    return Cause(
        "not permitted",
        f"KubeVirt does not permit {' and '.join(missing)}: permitted are {listed}",
        f"Ask for {', '.join(like)}: only the spelling differs"
        if like
        else f"Permit it with kubevirt_permit: an entry with resourceName {missing[0]}",
    )


def unavailable(asked: Asked, fleet: Fleet) -> t.Optional[Cause]:
    """Devices that no node has, or that no one node has together, whoever holds them now. None if a node has them."""
    names = sorted({name for node in fleet.nodes for name in node["allocatable"]})
    for resource in sorted(asked):
        if not any(int(node["allocatable"].get(resource, 0)) for node in fleet.nodes):
            like = alike(resource, names)
            return Cause(
                "not advertised",
                f"no node advertises {resource}: {advertised(fleet.nodes)}",
                f"Ask for {', '.join(like)}: only the spelling differs"
                if like
                else "See that its device plugin runs and its devices are made: gpufleet.kubevirt.validate names what a node lacks",
            )
    if any(_has(node, asked) for node in fleet.nodes):
        return None
    where = []
    for node in fleet.nodes:
        offers = {name: int(node["allocatable"].get(name, 0)) for name in sorted(asked)}
        if any(offers.values()):
            where.append(f"{node['name']} has {', '.join(f'{count} of {name}' for name, count in offers.items())}")
    problem = f"no node has {shown(asked)} together: {'; '.join(where)}"
    return Cause("not together", problem, "A VM runs on one node: ask for fewer, or for what one node has")


def _has(node: Object, asked: Asked) -> bool:
    return all(int(node["allocatable"].get(name, 0)) >= count for name, count in asked.items())


def _free(node: Object, asked: Asked) -> bool:
    return all(_left(node, name) >= count for name, count in asked.items())


def sides(device: t.Mapping[str, t.Any]) -> str:
    """Who permits, advertises and asks for a device, as a phrase. ``device``: an entry of the three-way view (kubevirt_permit_info)."""
    nodes = [f"{node} ({count})" for node, count in device["advertised"].items()]
    return "; ".join(
        [
            f"permitted: {'yes' if device['permitted'] else 'no'}",
            f"advertised by: {', '.join(nodes) or 'no node'}",
            f"asked for by: {', '.join(device['requested_by']) or 'nobody'}",
        ]
    )


def advertised(nodes: t.Iterable[Object]) -> str:
    """What each node offers to VMs and pods, as a phrase."""
    found = [
        f"{node['name']} has {', '.join(f'{name}: {count}' for name, count in node['allocatable'].items())}"
        for node in nodes
        if node["allocatable"]
    ]
    return "; ".join(found) or "no node advertises a GPU"


def no_place(asked: Asked, fleet: Fleet, words: str, asker: str = "VM") -> Cause:
    """Why the scheduler found no node. ``words``: what it said. ``asker``: ``VM``, for which a node also needs KubeVirt, or ``pod``."""
    if not asked:
        return Cause("scheduler", f"it asks for no device, and the scheduler says: {words}", "Mend what it names")
    missing = unavailable(asked, fleet)
    if missing:
        return missing
    able = [node for node in fleet.nodes if _has(node, asked)]
    free = [node for node in able if _free(node, asked)]
    if not free:
        held = "; ".join(f"{node['name']}: {', '.join(sorted({who for name in asked for who in _holders(node, name)}))}" for node in able)
        return Cause("in use", f"every node that has {shown(asked)} has too few free, held by {held}", "Stop one of these, or add devices")
    shut = [(node["name"], why) for node in free for why in [_shut(node, fleet, asker)] if why]
    if len(shut) == len(free):
        listed = ", ".join(f"{name} {why}" for name, why in shut)
        return Cause(
            "node not available", f"{shown(asked)} is free only where nothing is started: {listed}", "Put the node back into service"
        )
    open_to = ", ".join(node["name"] for node in free if not _shut(node, fleet, asker))
    return Cause(
        "scheduler",
        f"{shown(asked)} is free on {open_to}, and the scheduler says: {words}",
        "Mend what it names besides the device: node selector, taints, processors, memory",
    )


def _shut(node: Object, fleet: Fleet, asker: str) -> t.Optional[str]:
    """Why nothing is started on a node, as a phrase after its name; None if it is."""
    if not node["ready"]:
        return "is not ready"
    if not node["schedulable"]:
        return "is cordoned"
    return "has no virt-handler that answers" if asker == "VM" and node["name"] in fleet.closed else None


def messages(item: t.Optional[Object], *only: str) -> t.List[str]:
    """``reason: message`` of each condition that is False and says why; ``only``: of these types."""
    found = []
    for condition in ((item or {}).get("status") or {}).get("conditions") or []:
        if condition.get("status") == "False" and condition.get("message") and (not only or condition.get("type") in only):
            found.append(f"{condition.get('reason')}: {condition['message']}")
    return found


def cause(asked: Asked, vm: t.Optional[Object], vmi: t.Optional[Object], pod: t.Optional[Object], fleet: Fleet) -> Cause:
    """Why a VM does not run. ``vm``, ``vmi`` and ``pod`` (its virt-launcher) as the API has them, None where there is none."""
    if vmi is None:
        return _not_made(vm)
    refused = [text for text in messages(vmi, "Synchronized") if NOT_PERMITTED in text]
    if refused:
        known = unpermitted(asked, fleet)
        if known:
            return dataclasses.replace(known, problem=f"{known.problem} (KubeVirt says: {refused[0]})")
        return Cause("not permitted", f"KubeVirt refused it ({refused[0]})", "It is permitted by now: KubeVirt tries again by itself")
    status, pod_status = vmi.get("status") or {}, (pod or {}).get("status") or {}
    ended = [str(text) for text in (pod_status.get("reason"), pod_status.get("message"), status.get("reason")) if text]
    if pod_status.get("phase") == "Failed" or status.get("phase") == "Failed":
        node = ((pod or {}).get("spec") or {}).get("nodeName")
        words = ": ".join(ended) or "no reason given"
        return Cause(
            "device refused", f"it failed{f' on {node}' if node else ''}: {words}", "See the kubelet and the device plugin of that node"
        )
    if status.get("phase") == "Succeeded":
        return Cause("not to run", "its guest has shut down", _START)
    said = messages(pod, "PodScheduled")
    if said:
        return no_place(asked, fleet, said[0])
    other = messages(vmi, "Synchronized", "Provisioning") or messages(pod) or messages(vmi)
    if any(_NO_DEVICE in text for text in other):
        remedy = "Permit it with externalResourceProvider: true, and see that the resource is one for VMs"
        return Cause("device refused", f"the device plugin handed over no device: {other[0]}", remedy)
    if other:
        return Cause("kubevirt", f"KubeVirt says: {other[0]}", "Mend what it names")
    return Cause("waiting", f"it is {status.get('phase') or 'not seen by virt-controller yet'}", "Wait, or look at its events")


def _not_made(vm: t.Optional[Object]) -> Cause:
    """Why there is no instance of a VM."""
    strategy = ((vm or {}).get("spec") or {}).get("runStrategy")
    failed = _failures(vm)
    if failed:
        return Cause("kubevirt", f"KubeVirt says: {failed[0]}", "Mend what it names")
    if strategy in ("Halted", "Manual"):
        return Cause("not to run", f"it does not run, and its run strategy is {strategy}", _START)
    return Cause("waiting", "KubeVirt has made no instance of it yet", "See that virt-controller runs")


def _failures(vm: t.Optional[Object]) -> t.List[str]:
    """What a VM's own conditions say that failed: a missing instancetype, a refused instance."""
    found = ((vm or {}).get("status") or {}).get("conditions") or []
    return [f"{c.get('reason')}: {c.get('message')}" for c in found if c.get("type") == "Failure" and c.get("status") == "True"]
