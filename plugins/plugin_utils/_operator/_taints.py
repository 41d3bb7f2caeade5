# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Tolerations for tainted GPU nodes: without one for Node Feature Discovery a node is never seen, and without one for operands none comes."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._operator._mappings import at

Facts = t.Mapping[str, t.Any]
Toleration = t.Dict[str, t.Any]

#: What Kubernetes sets by itself, for a while; DaemonSets tolerate it anyway.
_TRANSIENT = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/")

_GPU: Toleration = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
_CONTROL_PLANE: Toleration = {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"}

#: Path of a list of tolerations -> what is in it where the chart is not at hand. A list that is set replaces the chart's, so it has all of it.
LISTS: dict[tuple[str, ...], list[Toleration]] = {
    ("daemonsets", "tolerations"): [_GPU],
    ("node-feature-discovery", "worker", "tolerations"): [_CONTROL_PLANE, _GPU],
}


def tolerates(toleration: Facts, taint: Facts) -> bool:
    """As the scheduler compares them: no effect is every effect, no key with ``Exists`` is every key."""
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint["key"])
    return toleration.get("key") == taint["key"] and (toleration.get("value") or "") == (taint.get("value") or "")


def taints_of(intents: t.Iterable[Facts], nodes: t.Iterable[Facts]) -> list[Facts]:
    """Taints of the nodes on which operands are wanted, each once, sorted. Those that only advise, or come and go, are left out."""
    wanted = {intent.get("node") for intent in intents if intent.get("state") == "wanted"}
    found = {
        (taint["key"], taint.get("value") or "", taint["effect"])
        for node in nodes
        if node["name"] in wanted
        for taint in node.get("taints") or []
        if taint["effect"] in ("NoSchedule", "NoExecute") and not taint["key"].startswith(_TRANSIENT)
    }
    return [{"key": key, "value": value, "effect": effect} for key, value, effect in sorted(found)]


def tolerations(taints: t.Sequence[Facts], present: Facts, chart: Facts) -> dict[tuple[str, ...], list[Toleration]]:
    """Path -> the list that it must have; none where the chart's own list serves.

    ``present``: values of the release. What it tolerates, it goes on tolerating: another list is another revision of every operand.
    """
    found: dict[tuple[str, ...], list[Toleration]] = {}
    for path, without_chart in LISTS.items():
        has, own = at(present, path), at(chart, path)
        start = list(has if isinstance(has, list) else own if isinstance(own, list) else without_chart)
        missing = [_for(taint) for taint in taints if not any(tolerates(toleration, taint) for toleration in start)]
        if missing or isinstance(has, list):
            found[path] = start + missing
    return found


def _for(taint: Facts) -> Toleration:
    if taint["value"]:
        return {"key": taint["key"], "operator": "Equal", "value": taint["value"], "effect": taint["effect"]}
    return {"key": taint["key"], "operator": "Exists", "effect": taint["effect"]}
