# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""From intents to what is waited for, and what is proven by a VM or a pod."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._intents._intents import OWNERS

#: A resource that no plugin advertises. It proves that the allow list forbids what it does not name.
UNLISTED = "gpufleet.kubevirt/NOT_PERMITTED"


def awaited_nodes(intents: t.Iterable[t.Mapping[str, t.Any]], owners: t.Collection[str] = OWNERS) -> list[dict[str, t.Any]]:
    """Arguments of ``gpu_operator_wait``: the nodes of this run that should work, each with what it should advertise.

    ``owners``: only those whose devices these make.
    """
    return [
        {"name": intent["node"], "workload": intent["workload"], "owner": intent.get("owner", "operator"), "expect": list(intent["expect"])}
        for intent in intents
        if intent["state"] == "wanted" and intent["limited"] and intent.get("owner", "operator") in owners
    ]


def vgpu_config_nodes(intents: t.Iterable[t.Mapping[str, t.Any]]) -> list[dict[str, t.Any]]:
    """Arguments of ``gpu_vgpu_config``: the nodes of this run whose vGPUs the Device Manager makes, each with its profile."""
    return [
        {"name": intent["node"], "profile": intent["profile"]}
        for intent in intents
        if intent["workload"] == "vm-vgpu"
        and intent["owner"] == "operator"
        and intent["state"] == "wanted"
        and intent["limited"]
        and intent["profile"]
    ]


def smoke_tests(
    intents: t.Iterable[t.Mapping[str, t.Any]],
    before: t.Iterable[t.Mapping[str, t.Any]],
    after: t.Iterable[t.Mapping[str, t.Any]],
    permits: t.Iterable[t.Mapping[str, t.Any]],
    mode: str = "changed",
) -> list[dict[str, t.Any]]:
    """Arguments of ``gpu_vm_probe``: one VM per resource, a pod for those of containers, and one VM that must be refused.

    ``before``: nodes as ``gpu_fleet_info`` saw them at the start of the run. ``after``: nodes as
    ``gpu_operator_wait`` left them (empty in check mode). ``permits``: changes of ``kubevirt_permit``.
    ``mode`` ``changed`` proves a resource if a node of it advertises another count than before or if a permit was
    changed; ``always`` proves every one; ``never`` none. Of several nodes that is the one with the most free units at the start, among
    those that are not cordoned. The order is that of the resource names.
    """
    if mode not in ("changed", "always", "never"):
        raise ValueError(f"gpufleet_smoke_test is {mode!r}; it can be changed, always or never")
    workloads = {intent["node"]: intent["workload"] for intent in intents if intent["state"] == "wanted"}
    then = {node["name"]: node for node in before}
    permitted = bool(list(permits))
    chosen: dict[str, list[tuple[tuple[t.Any, ...], str]]] = {}
    for node in after if mode != "never" else ():
        name = str(node["name"])
        was = then.get(name) or {}
        if name not in workloads:
            continue
        container = workloads[name] == "container"
        for resource, count in dict(node.get("allocatable") or {}).items():
            if int(count) <= 0 or resource not in node.get("resources", [resource]):
                continue
            moved = int((was.get("allocatable") or {}).get(resource, 0)) != int(count)
            if mode == "always" or moved or (permitted and not container):
                used = sum(int(use["count"]) for use in (was.get("used") or {}).get(resource, []))
                rank = (not was.get("schedulable", True), used - int(count), name)
                chosen.setdefault(resource, []).append((rank, "pod" if container else "vm"))
    tests: list[dict[str, t.Any]] = []
    for resource, candidates in sorted(chosen.items()):
        rank, kind = min(candidates)
        tests.append({"name": resource, "node": rank[-1], "expect": "scheduled", "kind": kind})
    if any(test["kind"] == "vm" for test in tests):
        tests.append({"name": UNLISTED, "node": None, "expect": "denied", "kind": "vm"})
    return tests
