# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The report: what the cluster says, what the inventory wants, what preflight found, per node and in a stable order."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _names
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _operands, _wait

Facts = t.Mapping[str, t.Any]

#: What a node can be. ``foreign``: in no inventory, with a decision; ``undecided``: in no inventory, without one; ``missing``: in the
#: inventory only. The fleet is ok if every node is one of the first two.
STATES = ("ok", "foreign", "undecided", "refused", "drift", "missing")
_GOOD = STATES[:2]
_WIDTH = 100


def fleet_report(fleet: Facts, intents: t.Iterable[Facts] = (), verdicts: Facts | None = None, generated: str = "") -> dict[str, t.Any]:
    """One structure for text and JSON. ``verdicts``: by host. A node's ``state`` is one of STATES."""
    by_node = {str(intent["node"]): intent for intent in intents}
    possible = {str(name) for name in fleet["possible_gpu_nodes"]}
    nodes = {str(node["name"]): node for node in fleet["nodes"]}
    rows = []
    for name in sorted(by_node.keys() | (possible & nodes.keys())):
        intent = by_node.get(name)
        rows.append(_row(name, nodes.get(name), intent, (verdicts or {}).get(str((intent or {}).get("host"))) or {}))
    totals: dict[str, dict[str, int]] = {}
    for row in rows:
        for resource, count in row["allocatable"].items():
            entry = totals.setdefault(resource, {"allocatable": 0, "used": 0})
            entry["allocatable"] += count
            entry["used"] += row["used"].get(resource, 0)
    policy, release, kubevirt = (fleet.get(key) or {} for key in ("cluster_policy", "release", "kubevirt"))
    return {
        "status": "ok" if all(row["state"] in _GOOD for row in rows) else "attention",
        "generated": str(generated),
        "cluster": dict(fleet["cluster"]),
        "operator": {
            "chart": release.get("chart"),
            "version": release.get("version"),
            "release_status": release.get("status"),
            "policy_state": policy.get("state"),
        },
        "kubevirt": {"version": kubevirt.get("version"), "permitted": kubevirt.get("permitted")},
        "nodes": rows,
        "totals": {name: totals[name] for name in sorted(totals)},
    }


def _row(name: str, found: Facts | None, intent: Facts | None, verdict: Facts) -> dict[str, t.Any]:
    node = found or {}
    allocatable = {str(name): int(count) for name, count in sorted((node.get("allocatable") or {}).items())}
    used = {str(name): sum(int(use["count"]) for use in uses) for name, uses in sorted((node.get("used") or {}).items())}
    state, problems = ("missing", ["the cluster has no such Node"]) if found is None else _state(node, intent, allocatable)
    warnings = [str(rule["problem"]) for rule in verdict.get("rules") or [] if rule.get("counts_as") == "warn"]
    return {
        "name": name,
        "host": intent["host"] if intent else None,
        "workload": node.get("workload"),
        "wanted": intent["workload"] if intent else None,
        "profile": (node.get("labels") or {}).get(_names.VGPU_CONFIG_LABEL),
        "state": state,
        "ready": bool(node.get("ready")),
        "schedulable": bool(node.get("schedulable")) if found is not None else None,
        "allocatable": allocatable,
        "used": used,
        "problems": problems,
        "warnings": warnings,
    }


def _state(node: Facts, intent: Facts | None, allocatable: dict[str, int]) -> tuple[str, list[str]]:
    labels = node.get("labels") or {}
    off = labels.get(_names.OPERANDS_LABEL) == "false"
    if intent is None:
        if off or labels.get(_names.WORKLOAD_LABEL) in _names.WORKLOADS:
            return "foreign", []
        return "undecided", ["it may have a GPU, is in no inventory, and carries no decision"]
    problems = []
    if not node.get("ready"):
        problems.append("the node is not ready")
    if intent["state"] == "refused":
        return "refused", [str(intent["why"]), *problems]
    if node.get("workload") != intent["workload"]:
        problems.append(f"its label says {node.get('workload') or 'nothing'}, the inventory {intent['workload']}")
    profile = labels.get(_names.VGPU_CONFIG_LABEL)
    # Types per GPU have a name only once the GPUs have been read.
    named = intent["profile"] is not None or intent.get("device_config") is None
    if intent["workload"] == "vm-vgpu" and named and profile != intent["profile"]:
        problems.append(f"its profile is {profile or 'not set'}, the inventory says {intent['profile']}")
    if intent["state"] == "unread":
        # Nothing is known of the host itself in a limited run or a plain report; what the cluster shows still counts.
        return ("drift" if problems else "ok", problems)
    # The same rule that the run waited by.
    matched, missing = _wait.match(intent["expect"], allocatable)
    problems += [_missing(expected, allocatable) for expected in missing]
    extra = [resource for resource in allocatable if resource not in matched and not _operands.companion(resource)]
    if extra and not missing:
        problems.append(f"it also advertises {', '.join(extra)}, which nobody planned")
    return ("drift" if problems else "ok", problems)


def _missing(expected: Facts, allocatable: dict[str, int]) -> str:
    what = expected.get("resource") or expected.get("vgpu_type") or expected.get("pci")
    have = ", ".join(f"{name}: {count}" for name, count in allocatable.items()) or "nothing"
    return f"{what}: {expected['count']} expected, and it advertises {have}"


def fleet_report_text(report: Facts) -> str:
    """The report for people."""
    table: list[tuple[str, str, str, list[str]]] = [("NODE", "WORKLOAD", "STATE", ["ADVERTISES (USED)"])]
    for node in report["nodes"]:
        resources = [f"{name}: {count} ({node['used'].get(name, 0)})" for name, count in node["allocatable"].items()]
        state = node["state"] + (", cordoned" if node["schedulable"] is False else "")
        table.append((node["name"], node["workload"] or "-", state, resources or ["-"]))
    widths = [max(len(str(row[column])) for row in table) for column in range(3)]
    lines = [
        f"GPU fleet of {report['cluster']['server']}, {report['generated'] or 'now'}: {report['status']}",
        f"GPU Operator {report['operator']['version'] or 'not installed'}, KubeVirt {report['kubevirt']['version'] or 'not installed'}",
        "",
    ]
    for *cells, resources in table:
        head = "".join(f"{cell:<{width}}  " for cell, width in zip(cells, widths, strict=True))
        for line in _filled(resources, _WIDTH - len(head)):
            lines.append(head + line)
            head = " " * len(head)
    notes = [f"{node['name']}: {text}" for node in report["nodes"] for text in [*node["problems"], *node["warnings"]]]
    if notes:
        lines += ["", *(line for note in notes for line in _wrapped(note))]
    return "\n".join(lines) + "\n"


def _filled(parts: list[str], width: int) -> list[str]:
    """The parts, separated by commas, as many per line as fit."""
    lines = [parts[0]]
    for part in parts[1:]:
        if len(lines[-1]) + len(part) + 3 > width:
            lines[-1] += ","
            lines.append(part)
        else:
            lines[-1] += f", {part}"
    return lines


def _wrapped(text: str) -> list[str]:
    lines, line = [], "-"
    for word in text.split():
        if len(line) + 1 + len(word) > _WIDTH and line.strip() != "-":
            lines.append(line)
            line = " "
        line += f" {word}"
    return [*lines, line]
