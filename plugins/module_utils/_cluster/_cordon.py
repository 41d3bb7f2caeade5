# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Cordon: keep new pods off a node, and know later whose cordon it is.

An annotation says that the cordon is ours and why. Only such a cordon is ever taken away: somebody else's
decision to keep a node out of service stays.
"""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import Blocker, Change, Plan

ANNOTATION = "gpufleet.kubevirt/cordoned"


def seen(node: dict[str, t.Any]) -> dict[str, t.Any]:
    """What matters of a Node object: ``{unschedulable: bool, reason: str or None}``."""
    return {
        "unschedulable": bool((node.get("spec") or {}).get("unschedulable")),
        "reason": ((node.get("metadata") or {}).get("annotations") or {}).get(ANNOTATION),
    }


def make_plan(name: str, state: str, reason: str, node: dict[str, t.Any] | None) -> Plan:
    """The plan for one node; ``node`` is its Node object or None if there is none."""
    plan = Plan()
    target = f"node {name}"
    if node is None:
        plan.blockers.append(Blocker(target, "no such node", "Compare gpufleet_node_name with the names of the cluster's nodes"))
        return plan
    now = seen(node)
    if state == "cordoned" and not now["unschedulable"]:
        after = {"unschedulable": True, "reason": reason}
        plan.changes.append(Change(target, "cordon", now, after, f"no new pods before: {reason}"))
    if state == "uncordoned" and now["reason"] is not None:
        after = {"unschedulable": False, "reason": None}
        plan.changes.append(Change(target, "uncordon", now, after, f"cordoned by this collection for: {now['reason']}"))
    return plan


def patch(change: Change) -> dict[str, t.Any]:
    """The merge patch of one change."""
    return {
        "metadata": {"annotations": {ANNOTATION: change.after["reason"]}},
        "spec": {"unschedulable": True if change.after["unschedulable"] else None},
    }


def planned(node: dict[str, t.Any], reason: str) -> dict[str, t.Any]:
    """The Node object as an earlier step of this run would leave it, for check mode."""
    metadata = dict(node.get("metadata") or {})
    metadata["annotations"] = {**(metadata.get("annotations") or {}), ANNOTATION: reason}
    return {**node, "metadata": metadata, "spec": {**(node.get("spec") or {}), "unschedulable": True}}
