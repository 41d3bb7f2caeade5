# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The report: what the cluster says, what the inventory wants, what the hosts show, per node and in a stable order.

Its shape is published as ``docs/schemas/fleet-report.schema.json``. What is not known is None, never 0, and ``reading`` of a node or
``unknown`` of the report says why.
"""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _names
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._report import _capacity, _drift, _health

Facts = t.Mapping[str, t.Any]

#: Version of the report's shape. A key that is added does not change it; one that goes, or means something else, does.
SCHEMA = 1
#: What a node can be. ``foreign``: in no inventory, with a decision; ``undecided``: in no inventory, without one; ``missing``: in the
#: inventory only. The fleet is ok if every node is one of the first two, every host was read that was tried, and nothing is unhealthy.
STATES = ("ok", "foreign", "undecided", "refused", "drift", "missing")
_GOOD = STATES[:2]
#: What became of reading a host. ``unread``: nobody tried, or it is not in this run; ``stale``: its facts are of another boot than the node's;
#: ``old``: its facts lack what this release needs. The last four could not be read.
READINGS = ("read", "unread", "unreachable", "failed", "stale", "old")
LOST = READINGS[2:]
#: What the facts of a GPU must have (``gpu_node_info``).
_GPU_KEYS = ("address", "vendor_device", "class", "vgpu", "users", "driver")


def fleet_report(
    fleet: Facts,
    intents: t.Iterable[Facts] = (),
    verdicts: Facts | None = None,
    generated: str = "",
    facts: Facts | None = None,
    wanted: Facts | None = None,
) -> dict[str, t.Any]:
    """One structure for text, JSON and page.

    ``fleet``: what ``gpu_fleet_info`` returned. ``verdicts`` and ``facts``: what preflight and ``gpu_node_info`` said, by host; the result of a
    task that did not reach its host counts as such. ``wanted``: ``{version, values}`` of the operator's chart.
    """
    intents = list(intents)
    by_node = {str(intent["node"]): intent for intent in intents}
    possible = {str(name) for name in fleet["possible_gpu_nodes"]}
    nodes = {str(node["name"]): node for node in fleet["nodes"]}
    rows = []
    for name in sorted(by_node.keys() | (possible & nodes.keys())):
        intent = by_node.get(name)
        host = str((intent or {}).get("host"))
        seen = (facts or {}).get(host) or {}
        rows.append(_row(name, nodes.get(name), intent, (verdicts or {}).get(host) or {}, seen, fleet.get("kubevirt")))
    drift, findings = _drift.cluster(fleet, intents, wanted or {}), _health.cluster(fleet)
    policy, release, kubevirt = (fleet.get(key) or {} for key in ("cluster_policy", "release", "kubevirt"))
    report = {
        "schema": SCHEMA,
        "status": "ok",
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
        "totals": _resources(rows),
        "summary": _summary(rows),
        "capacity": _capacity_rows(rows),
        "drift": [entry._asdict() for entry in drift],
        "findings": [entry._asdict() for entry in findings],
        "unknown": _unknown(intents, wanted),
    }
    well = all(row["state"] in _GOOD and row["reading"]["state"] not in LOST for row in rows)
    bad = any(entry["level"] == _health.BAD for part in [report, *rows] for entry in part["findings"])
    report["status"] = "ok" if well and not bad and not drift else "attention"
    return report


def check(report: t.Any) -> Facts:
    """A report of this schema.

    :raises ValueError: it is none, or one of another schema; the message names it.
    """
    if not isinstance(report, t.Mapping) or not isinstance(report.get("nodes"), t.Sequence):
        raise ValueError("Reading a fleet report: it has no list of nodes. Hand over what the filter fleet_report returned")
    if report.get("schema") != SCHEMA:
        raise ValueError(
            f"Reading a fleet report: its schema is {report.get('schema')!r}, and this release reads {SCHEMA}. Make the report anew with "
            "gpufleet.kubevirt.report"
        )
    return report


# ------------------------------------------------------------------ one node


def _row(name: str, found: Facts | None, intent: Facts | None, verdict: Facts, seen: Facts, kubevirt: Facts | None) -> dict[str, t.Any]:
    node = found or {}
    allocatable = {str(key): int(count) for key, count in sorted((node.get("allocatable") or {}).items())}
    used = {str(key): sum(int(use["count"]) for use in uses) for key, uses in sorted((node.get("used") or {}).items())}
    reading = _reading(seen, node, intent)
    gpus = None
    if reading["state"] == "read" and intent:
        gpus = _capacity.gpus(seen, found, kubevirt, intent, str(intent["workload"]))
    state, drift, others = ("missing", [], ["the cluster has no such Node"]) if found is None else _state(node, intent, allocatable, gpus)
    warnings = [str(rule["problem"]) for rule in verdict.get("rules") or [] if rule.get("counts_as") == "warn"]
    return {
        "name": name,
        "host": intent["host"] if intent else None,
        "workload": node.get("workload"),
        "wanted": intent["workload"] if intent else None,
        "owner": intent.get("owner") if intent else None,
        "profile": (node.get("labels") or {}).get(_names.VGPU_CONFIG_LABEL),
        "state": state,
        "reading": reading,
        "ready": bool(node.get("ready")),
        "schedulable": bool(node.get("schedulable")) if found is not None else None,
        "allocatable": allocatable,
        "used": used,
        "users": _users(node),
        "gpus": gpus,
        "drift": [entry._asdict() for entry in drift],
        "findings": [entry._asdict() for entry in _health.node(found, seen if reading["state"] == "read" else None)],
        "problems": [*(entry.says for entry in drift), *others],
        "warnings": warnings,
    }


def _users(node: Facts) -> list[dict[str, t.Any]]:
    """Who holds what of a node, by the cluster: known also where the host was not read."""
    found = []
    for resource, uses in sorted((node.get("used") or {}).items()):
        for use in uses:
            if use.get("pod") or use.get("vmi"):
                found.append({"who": _capacity.who(use), "resource": resource, "count": int(use["count"])})
    return sorted(found, key=lambda entry: (entry["resource"], entry["who"]))


def _reading(seen: Facts, node: Facts, intent: Facts | None) -> dict[str, t.Any]:
    """Can the facts of a host be taken for this node's, and if not, why not?"""
    if intent is None:
        return {"state": "unread", "why": "it is in no inventory"}
    if seen.get("unreachable"):
        return {"state": "unreachable", "why": _first_line(seen, "the host cannot be reached")}
    if seen.get("failed"):
        return {"state": "failed", "why": _first_line(seen, "reading the host failed")}
    if seen.get("gpus") is None:
        return {"state": "unread", "why": "the host was not read in this run"}
    for number, gpu in enumerate(seen["gpus"]):
        missing = [key for key in _GPU_KEYS if key not in gpu]
        if missing:
            return {
                "state": "old",
                "why": f"its facts are of another release of gpu_node_info: gpus[{number}] has no {missing[0]}; read the host again",
            }
    own, known = (seen.get("host") or {}).get("boot_id"), node.get("boot_id")
    if own and known and own != known:
        return {"state": "stale", "why": f"its facts are of boot {own}, and the node runs boot {known}; read the host again"}
    return {"state": "read", "why": None}


def _first_line(seen: Facts, default: str) -> str:
    lines = str(seen.get("msg") or "").strip().splitlines()
    return lines[0][:300] if lines else default


def _state(
    node: Facts, intent: Facts | None, allocatable: dict[str, int], gpus: list[dict[str, t.Any]] | None
) -> tuple[str, list[_drift.Drift], list[str]]:
    """State, differences, and what else is to be said."""
    if intent is None:
        if (node.get("labels") or {}).get(_names.OPERANDS_LABEL) == "false" or node.get("workload") in _names.WORKLOADS:
            return "foreign", [], []
        return "undecided", [], ["it may have a GPU, is in no inventory, and carries no decision"]
    others = [] if node.get("ready") else ["the node is not ready"]
    if intent["state"] == "refused":
        return "refused", [], [str(intent["why"]), *others]
    drift = _drift.labels(node, intent)
    # Nothing is known of the host itself in a limited run or where it cannot be reached; what the cluster shows still counts.
    if intent["state"] != "unread":
        drift += _drift.advertised(intent, allocatable)
        drift += _drift.devices(intent, gpus) if gpus is not None else []
    return ("drift" if drift or others else "ok", drift, others)


# ------------------------------------------------------------------ the whole fleet


def _resources(rows: t.Iterable[Facts]) -> dict[str, dict[str, int]]:
    totals: dict[str, dict[str, int]] = {}
    for row in rows:
        for resource, count in row["allocatable"].items():
            entry = totals.setdefault(resource, {"allocatable": 0, "used": 0})
            entry["allocatable"] += count
            entry["used"] += row["used"].get(resource, 0)
    return {name: totals[name] for name in sorted(totals)}


def _summary(rows: t.Sequence[Facts]) -> dict[str, t.Any]:
    """Counts of nodes and GPUs. ``gpus`` counts those of the hosts that were read."""
    return {
        "nodes": len(rows),
        "states": {state: sum(row["state"] == state for row in rows) for state in STATES},
        "readings": {reading: sum(row["reading"]["state"] == reading for row in rows) for reading in READINGS},
        "gpus": sum(len(row["gpus"] or ()) for row in rows),
        "unhealthy": sum(any(entry["level"] == _health.BAD for entry in row["findings"]) for row in rows),
    }


FIGURES = ("max", "created", "creatable", "allocatable", "used", "free", "stranded")


def _capacity_rows(rows: t.Iterable[Facts]) -> list[dict[str, t.Any]]:
    """By model and profile: how many GPUs, and the sums of what is known; ``partly`` names the figures that some GPU does not tell.

    A sum of which no part is known is None.
    """
    groups: dict[tuple[str, str], list[Facts]] = {}
    for row in rows:
        for gpu in row["gpus"] or ():
            for profile in gpu["profiles"]:
                groups.setdefault((str(gpu["model"] or gpu["pci"]), profile["profile"]), []).append(profile)
    found = []
    for (model, name), profiles in sorted(groups.items()):
        entry: dict[str, t.Any] = {"model": model, "profile": name, "gpus": len(profiles), "partly": []}
        for figure in FIGURES:
            known = [profile[figure] for profile in profiles if profile[figure] is not None]
            entry[figure] = sum(known) if known else None
            if known and len(known) < len(profiles):
                entry["partly"].append(figure)
        found.append(entry)
    return found


def _unknown(intents: t.Sequence[Facts], wanted: Facts | None) -> list[dict[str, str]]:
    """What this report does not compare, so that nobody takes silence for agreement."""
    found = []
    if not (wanted or {}).get("version"):
        found.append({"what": "version of the operator's release", "why": "gpufleet_operator_version is not set"})
    if any(intent["workload"] == "vm-vgpu" for intent in intents):
        why = "which image the nodes run is not read; gpufleet.kubevirt.image compares the registry with its sources"
        found.append({"what": "digest of the vGPU manager's image", "why": why})
    return found
