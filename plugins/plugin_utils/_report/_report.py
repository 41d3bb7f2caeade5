# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The report: what the cluster says, what the inventory wants, what preflight found, per node and in a stable order."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _names

Facts = t.Mapping[str, t.Any]

#: From good to bad; the worst of all nodes is the fleet's status.
STATES = ("ok", "foreign", "undecided", "refused", "unread", "drift")
_GOOD = ("ok", "foreign")
_WIDTH = 100


def fleet_report(fleet: Facts, intents: t.Iterable[Facts] = (), verdicts: Facts | None = None, generated: str = "") -> dict[str, t.Any]:
    """One structure for text and JSON. ``verdicts``: by host. A node's ``state`` is one of STATES."""
    by_node = {str(intent["node"]): intent for intent in intents}
    possible = {str(name) for name in fleet["possible_gpu_nodes"]}
    rows = []
    for node in sorted(fleet["nodes"], key=lambda entry: str(entry["name"])):
        name = str(node["name"])
        if name in by_node or name in possible:
            rows.append(_row(node, by_node.get(name), (verdicts or {}).get(str((by_node.get(name) or {}).get("host"))) or {}))
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


def _row(node: Facts, intent: Facts | None, verdict: Facts) -> dict[str, t.Any]:
    allocatable = {str(name): int(count) for name, count in sorted((node.get("allocatable") or {}).items())}
    used = {str(name): sum(int(use["count"]) for use in uses) for name, uses in sorted((node.get("used") or {}).items())}
    state, problems = _state(node, intent, allocatable)
    warnings = [str(rule["problem"]) for rule in verdict.get("rules") or [] if rule.get("counts_as") == "warn"]
    return {
        "name": str(node["name"]),
        "host": intent["host"] if intent else None,
        "workload": node.get("workload"),
        "wanted": intent["workload"] if intent else None,
        "profile": (node.get("labels") or {}).get(_names.VGPU_CONFIG_LABEL),
        "state": state,
        "ready": bool(node.get("ready")),
        "schedulable": bool(node.get("schedulable")),
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
    if intent["workload"] == "vm-vgpu" and profile != intent["profile"]:
        problems.append(f"its profile is {profile or 'not set'}, the inventory says {intent['profile']}")
    if intent["state"] == "unread":
        # Nothing is known of the host itself in a limited run or a plain report; what the cluster shows still counts.
        return ("drift" if problems else "ok", problems)
    problems += [_missing(expected, allocatable) for expected in intent["expect"] if not _met(expected, allocatable)]
    return ("drift" if problems else "ok", problems)


def _met(expected: Facts, allocatable: dict[str, int]) -> bool:
    count = int(expected["count"])
    if "resource" in expected:
        return allocatable.get(str(expected["resource"]), 0) == count
    if "vgpu_type" in expected:
        return any(_names.plain_type(name) == expected["vgpu_type"] and found == count for name, found in allocatable.items())
    return any(found == count and not _names.plain_type(name) and name != "nvidia.com/gpu" for name, found in allocatable.items())


def _missing(expected: Facts, allocatable: dict[str, int]) -> str:
    what = expected.get("resource") or expected.get("vgpu_type") or expected.get("pci")
    have = ", ".join(f"{name}: {count}" for name, count in allocatable.items()) or "nothing"
    return f"{what}: {expected['count']} expected, and it advertises {have}"


def fleet_report_text(report: Facts) -> str:
    """The report for people."""
    rows = [("NODE", "WORKLOAD", "STATE", "ADVERTISES (USED)")]
    for node in report["nodes"]:
        resources = [f"{name}: {count} ({node['used'].get(name, 0)})" for name, count in node["allocatable"].items()]
        state = node["state"] + ("" if node["schedulable"] else ", cordoned")
        rows.append((node["name"], node["workload"] or "-", state, ", ".join(resources) or "-"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        f"GPU fleet of {report['cluster']['server']}, {report['generated'] or 'now'}: {report['status']}",
        f"GPU Operator {report['operator']['version'] or 'not installed'}, KubeVirt {report['kubevirt']['version'] or 'not installed'}",
        "",
    ]
    lines += ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip() for row in rows]
    notes = [f"{node['name']}: {text}" for node in report["nodes"] for text in [*node["problems"], *node["warnings"]]]
    if notes:
        lines += ["", *(line for note in notes for line in _wrapped(note))]
    return "\n".join(lines) + "\n"


def _wrapped(text: str) -> list[str]:
    lines, line = [], "-"
    for word in text.split():
        if len(line) + 1 + len(word) > _WIDTH and line.strip() != "-":
            lines.append(line)
            line = " "
        line += f" {word}"
    return [*lines, line]
