# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""How the operands' DaemonSets are updated, and the pods that are still of an older revision. Pure.

Under ``OnDelete`` a changed pod template reaches a node only when somebody deletes its pod: until then the node is pending.
"""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _operands
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._operands import Object, labels


@dataclasses.dataclass(frozen=True)
class Seen:
    """Plain API objects of the operator's namespace, read at one time, and who uses GPUs: node -> VMs."""

    daemonsets: t.Sequence[Object]
    revisions: t.Sequence[Object]
    pods: t.Sequence[Object]
    vms: t.Mapping[str, t.Sequence[str]]

    @property
    def operands(self) -> list[Object]:
        """The DaemonSets of operands, by name. Node Feature Discovery's is none."""
        found = [item for item in self.daemonsets if _operands.operand_of_set(item) is not None]
        return sorted(found, key=lambda item: str(item["metadata"]["name"]))


def strategy_of(daemonset: Object) -> str:
    """The update strategy; left out, it is RollingUpdate."""
    return str(((daemonset.get("spec") or {}).get("updateStrategy") or {}).get("type") or "RollingUpdate")


def newest(revisions: t.Iterable[Object], daemonset: Object) -> str | None:
    """The revision hash that pods of this DaemonSet should carry."""
    uid = daemonset["metadata"].get("uid")
    own = [r for r in revisions if any(o.get("uid") == uid for o in r["metadata"].get("ownerReferences") or [])]
    latest = max(own, key=lambda r: int(r.get("revision") or 0), default=None)
    return None if latest is None else labels(latest).get("controller-revision-hash")


def unsettled(seen: Seen) -> list[str]:
    """Names of the operands' DaemonSets whose last change the DaemonSet controller has not seen yet."""
    return [
        str(item["metadata"]["name"])
        for item in seen.operands
        if ((item.get("status") or {}).get("observedGeneration") or 0) < (item["metadata"].get("generation") or 0)
    ]


def other_strategy(seen: Seen, strategy: str) -> list[str]:
    """Names of the operands' DaemonSets that are updated in another way, with that way."""
    return [f"{item['metadata']['name']} ({strategy_of(item)})" for item in seen.operands if strategy_of(item) != strategy]


def state(seen: Seen) -> list[t.Any]:
    """What must stay the same for a while before the DaemonSets count as settled."""
    return [[item["metadata"].get("uid"), item["metadata"].get("generation")] for item in seen.operands]


def pending(seen: Seen, nodes: t.Collection[str] = ()) -> list[Object]:
    """Nodes with pods of an older revision: ``{node, pods, vms}``, by node. ``nodes``: only these, if there are any."""
    hashes = {item["metadata"].get("uid"): newest(seen.revisions, item) for item in seen.operands}
    found: dict[str, list[str]] = {}
    for pod in seen.pods:
        node, wanted = (pod.get("spec") or {}).get("nodeName"), hashes.get(_operands.owner(pod).get("uid"))
        if not node or not wanted or _operands.terminal(pod) or pod["metadata"].get("deletionTimestamp"):
            continue
        if labels(pod).get("controller-revision-hash") != wanted and (not nodes or node in nodes):
            found.setdefault(node, []).append(pod["metadata"]["name"])
    return [{"node": node, "pods": sorted(found[node]), "vms": list(seen.vms.get(node, ()))} for node in sorted(found)]


def text(waiting: t.Sequence[Object], namespace: str) -> str:
    """What to say of pending nodes, complete by itself; empty if there are none."""
    if not waiting:
        return ""
    lines = [
        (
            f"Rolling the operands: {len(waiting)} node{' is' if len(waiting) == 1 else 's are'} pending roll: pods of an older revision run there, "
            "and with OnDelete they stay until somebody deletes them."
        )
    ]
    for entry in waiting:
        vms = f"; VMs with GPUs: {', '.join(entry['vms'])}" if entry["vms"] else ""
        lines.append(f"- node {entry['node']}: {', '.join(entry['pods'])}{vms}.")
    lines.append(
        "Nothing was deleted. Node by node: stop its VMs with GPUs, then kubectl delete pod with the names above "
        f"(-n {namespace}), and run again."
    )
    return "\n".join(lines)
