# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Does a report end a run, and what of it is handed to AWX."""

from __future__ import annotations

import json
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._report import _health, _report

Facts = t.Mapping[str, t.Any]

#: What ``gpufleet_report_fail_on`` can name.
REASONS = ("drift", "unhealthy", "unreachable")
_DRIFT = ("drift", "missing", "undecided")
#: Bytes of JSON: AWX keeps the artifacts of a job with the job, and shows them.
LIMIT = 8 * 1024
#: A sentence names this many.
_NAMED = 5


def verdict(report: t.Any, fail_on: t.Any = (), path: str = "") -> dict[str, t.Any]:
    """``{failed, text, stats}``. ``fail_on``: words of REASONS that are to end the run. ``path``: where the files of the report are.

    :raises ValueError: ``fail_on`` names something else, or what is given is no report of this schema.
    """
    report = _report.check(report)
    wanted = _reasons(fail_on)
    found = _found(report)
    failed = [reason for reason in wanted if found[reason]]
    text = ""
    if failed:
        lines = [
            f"Reporting on the fleet: {', '.join(failed)} (gpufleet_report_fail_on). Nothing was changed, and the report is in {path}."
        ]
        lines += [f"- {reason}: {_some(found[reason])}. {_REMEDIES[reason]}" for reason in failed]
        text = "\n".join(lines)
    return {"failed": failed, "text": text, "stats": _stats(report, wanted, failed, found, path)}


_REMEDIES = {
    "drift": "The report names for each difference the playbook that mends it.",
    "unhealthy": "The report says what is wrong and what to do.",
    "unreachable": "Look at power, network and SSH of these hosts, and report again.",
}


def _reasons(given: t.Any) -> list[str]:
    words = [given] if isinstance(given, str) else given if isinstance(given, t.Sequence) else None
    if words is None or not all(isinstance(word, str) for word in words):
        raise ValueError(f"Reporting on the fleet: gpufleet_report_fail_on is {given!r}. Give a list of {', '.join(REASONS)}")
    words = [word.strip() for entry in words for word in entry.split(",") if word.strip()]
    for word in words:
        if word not in REASONS:
            raise ValueError(f"Reporting on the fleet: gpufleet_report_fail_on has {word!r}. Use {', '.join(REASONS)}")
    return list(dict.fromkeys(words))


def _found(report: Facts) -> dict[str, list[str]]:
    """By reason, the nodes that it is about; ``the cluster`` for what is fleet-wide."""
    whole = {"drift": bool(report["drift"]), "unhealthy": _bad(report), "unreachable": False}
    nodes = {
        "drift": [node["name"] for node in report["nodes"] if node["state"] in _DRIFT],
        "unhealthy": [node["name"] for node in report["nodes"] if _bad(node)],
        "unreachable": [node["name"] for node in report["nodes"] if node["reading"]["state"] in _report.LOST],
    }
    return {reason: [*(["the cluster"] if whole[reason] else []), *nodes[reason]] for reason in REASONS}


def _bad(part: Facts) -> bool:
    return any(entry["level"] == _health.BAD for entry in part["findings"])


def _some(names: t.Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _stats(report: Facts, wanted: list[str], failed: list[str], found: Facts, path: str) -> dict[str, t.Any]:
    """Totals, verdict and path; as many names and rows as fit into LIMIT."""
    for most in (20, 10, 5, 2, 0):
        stats = {
            "schema": report["schema"],
            "status": report["status"],
            "generated": report["generated"],
            "path": path,
            "fail_on": wanted,
            "failed": failed,
            **{key: report["summary"][key] for key in ("nodes", "gpus")},
            "states": {name: count for name, count in report["summary"]["states"].items() if count},
            "readings": {name: count for name, count in report["summary"]["readings"].items() if count},
            **{reason: {"count": len(names), "names": names[:most]} for reason, names in found.items()},
            "totals": dict(list(report["totals"].items())[:most]),
            "capacity": [{key: row[key] for key in ("model", "profile", *_FIGURES)} for row in report["capacity"][:most]],
        }
        if len(json.dumps(stats)) <= LIMIT or most == 0:
            return stats
    raise AssertionError("the last one was returned")


_FIGURES = ("gpus", "max", "created", "used", "free", "stranded")
