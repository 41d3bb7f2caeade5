# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The report as text for people, 100 columns wide."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._report import _report

Facts = t.Mapping[str, t.Any]
_WIDTH = 100
#: A list in the text names this many, so that a terminal shows the text of a large fleet; the JSON has all.
_MOST = 200
_COLUMNS = ("MODEL", "PROFILE", "GPUS", "MAX", "MADE", "ALLOC", "USED", "FREE", "STRANDED")


def fleet_report_text(report: t.Any) -> str:
    """The report for people."""
    report = _report.check(report)
    lines = [
        f"GPU fleet of {report['cluster']['server']}, {report['generated'] or 'now'}: {report['status']}",
        f"GPU Operator {report['operator']['version'] or 'not installed'}, KubeVirt {report['kubevirt']['version'] or 'not installed'}",
        "",
        *_nodes(report["nodes"]),
    ]
    if report["capacity"]:
        lines += ["", *_capacity(report["capacity"])]
    notes = [entry["says"] for entry in report["drift"]]
    notes += [f"{entry['target']}: {entry['problem']}. {entry['remedy']}" for entry in report["findings"]]
    for node in report["nodes"]:
        notes += [f"{node['name']}: {text}" for text in _notes(node)]
    if notes:
        lines += ["", *(line for note in notes[:_MOST] for line in _wrapped(note))]
        if len(notes) > _MOST:
            lines.append(f"- and {len(notes) - _MOST} more, all in fleet.json and fleet.html")
    remedies = sorted({entry["remedy"] for part in [report, *report["nodes"]] for entry in part["drift"]})
    end = [f"What differs from the inventory is mended by {', '.join(remedies)}"] if remedies else []
    end += [f"not compared: {entry['what']} ({entry['why']})" for entry in report["unknown"]]
    if end:
        lines += ["", *(line for note in end for line in _wrapped(note))]
    return "\n".join(lines) + "\n"


def _notes(node: Facts) -> t.Iterator[str]:
    yield from node["problems"]
    if node["reading"]["state"] in _report.LOST:
        yield f"host {node['host']} {node['reading']['state']}: {node['reading']['why']}"
    for entry in node["findings"]:
        if entry["signature"] != "node_not_ready":
            yield f"{entry['target']}: {entry['problem']}. {entry['remedy']}"
    yield from node["warnings"]


def _nodes(nodes: t.Iterable[Facts]) -> list[str]:
    table: list[tuple[str, str, str, list[str]]] = [("NODE", "WORKLOAD", "STATE", ["ADVERTISES (USED)"])]
    for node in nodes:
        resources = [f"{name}: {count} ({node['used'].get(name, 0)})" for name, count in node["allocatable"].items()]
        marks = [node["state"]]
        marks += ["cordoned"] if node["schedulable"] is False else []
        marks += [node["reading"]["state"]] if node["reading"]["state"] in _report.LOST else []
        table.append((node["name"], node["workload"] or "-", ", ".join(marks), resources or ["-"]))
    widths = [max(len(str(row[column])) for row in table) for column in range(3)]
    lines = []
    for *cells, resources in table:
        head = "".join(f"{cell:<{width}}  " for cell, width in zip(cells, widths, strict=True))
        for line in _filled(resources, _WIDTH - len(head)):
            lines.append(head + line)
            head = " " * len(head)
    return lines


def _capacity(rows: t.Iterable[Facts]) -> list[str]:
    """Figures by model and profile; ``?`` is what nobody knows, ``+`` behind a figure that some GPU does not tell."""
    table: list[tuple[str, ...]] = [_COLUMNS]
    for row in rows:
        figures = []
        for key in ("max", "created", "allocatable", "used", "free", "stranded"):
            figures.append("?" if row[key] is None else f"{row[key]}{'+' if key in row['partly'] else ''}")
        table.append((row["model"], row["profile"], str(row["gpus"]), *figures))
    widths = [max(len(row[column]) for row in table) for column in range(len(_COLUMNS))]
    lines = []
    for line in table:
        cells = [
            f"{cell:<{width}}" if column < 2 else f"{cell:>{width}}" for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    if any("?" in line or "+" in line for line in lines):
        lines.append("(?: not known; +: at least, some GPUs do not tell)")
    return lines


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
