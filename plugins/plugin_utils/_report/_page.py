# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The report as a page to look at: one file, nothing is fetched. It shows a report and decides nothing.

Whatever comes from hosts and cluster is escaped, and the page forbids every script but its own (Content-Security-Policy).
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._report import _page_node, _report
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._report._page_node import badge, figure, grid, scroll, several
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._report._page_style import SCRIPT, STYLE
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._report._regions import HATCH, Regions

Facts = t.Mapping[str, t.Any]
esc = functools.partial(html.escape, quote=True)

#: With more GPUs than this, nodes that need nobody's attention are shown closed, and a GPU's region only small.
OPEN_UP_TO = 40
#: So many nodes are named in the list of what needs attention; the filter finds all.
ATTENTION = 20

_TOOLS = """<div class="tools" role="search" aria-label="Filter nodes" hidden>
<label>Find <input type="search" id="find" placeholder="node, VM, GPU, type, problem" autocomplete="off" spellcheck="false"></label>
<label>Workload <select><option value="">all</option>{workloads}</select></label>
<label>Status <select><option value="">all</option>{states}</select></label>
<label class="box"><input type="checkbox" value="has-free"> has free devices</label>
<label class="box"><input type="checkbox" value="has-stranded"> has stranded capacity</label>
<button type="button" id="open">Open all shown</button><button type="button" id="close">Close all</button>
<span id="said" class="soft" role="status" aria-live="polite"></span></div>"""


def _tiles(report: Facts) -> str:
    summary = report["summary"]
    states, lost = summary["states"], sum(summary["readings"][name] for name in _report.LOST)
    whole = [row for row in report["capacity"] if row["profile"] == _page_node.WHOLE]
    sliced = [row for row in report["capacity"] if row["profile"] != _page_node.WHOLE]
    rows = [
        ("Nodes", str(summary["nodes"]), ""),
        ("As wanted", str(states["ok"]), "ok" if states["ok"] else ""),
        ("Drift", str(states["drift"] + states["missing"] + states["undecided"]), "warn"),
        ("Refused", str(states["refused"]), "warn"),
        ("Not readable", str(lost), "bad"),
        ("Unhealthy", str(summary["unhealthy"]), "bad"),
    ]
    tiles = [f'<div class="{mark if value != "0" else ""}"><dt>{name}</dt><dd>{value}</dd></div>' for name, value, mark in rows]
    for name, part in (("GPUs in use", whole), ("vGPUs in use", sliced)):
        if part:
            used, made = _sum(part, "used"), _sum(part, "created")
            tiles.append(f"<div><dt>{name}</dt><dd>{used} <small>of {made} made</small></dd></div>")
    if sliced:
        stranded = _sum(sliced, "stranded")
        tiles.append(f'<div class="{"" if stranded == "0" else "warn"}"><dt>vGPUs stranded</dt><dd>{stranded}</dd></div>')
    return f'<dl class="tiles">{"".join(tiles)}</dl>'


def _sum(rows: t.Iterable[Facts], key: str) -> str:
    known = [row[key] for row in rows if row[key] is not None]
    more = "+" if any(row[key] is None or key in row["partly"] for row in rows) else ""
    return f"{sum(known)}{more}" if known else "?"


def _fleet_notes(report: Facts) -> str:
    parts = []
    if report["drift"]:
        rows = [(entry["where"], entry["wanted"], entry["found"], entry["remedy"]) for entry in report["drift"]]
        parts.append(grid("What of the cluster differs from what is wanted", ("Where", "Wanted", "Found", "Mended by"), rows))
    if report["findings"]:
        signs = [(entry["target"], entry["problem"], entry["remedy"]) for entry in report["findings"]]
        parts.append(grid("What of the cluster does not work", ("What", "Problem", "What to do"), signs))
    return "".join(parts)


def _attention(report: Facts, keys: t.Mapping[str, str]) -> str:
    """The nodes that need somebody, the worst first, with a sentence each."""
    rows = []
    for node in report["nodes"]:
        said = _page_node.sentences(node)
        if said:
            link = f'<a href="#{keys[node["name"]]}">{esc(node["name"])}</a>'
            more = f' <span class="soft">and {len(said) - 1} more</span>' if len(said) > 1 else ""
            rows.append(
                (
                    _page_node.rank(node),
                    f'<tr><th scope="row">{link}</th><td>{_page_node.badges(node)}</td><td>{esc(said[0])}{more}</td></tr>',
                )
            )
    inner = _fleet_notes(report)
    if rows:
        shown = "".join(text for _rank, text in sorted(rows, key=lambda row: row[0])[:ATTENTION])
        caption = several(len(rows), "node needs", "nodes need") + " somebody"
        caption += f"; {ATTENTION} are listed, the filter below finds all" if len(rows) > ATTENTION else ""
        head = "".join(f'<th scope="col">{name}</th>' for name in ("Node", "Status", "What"))
        inner += scroll(caption, f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{shown}</tbody></table>")
    return f'<section><h2 id="attention">Needs attention</h2>{inner}</section>' if inner else ""


def _capacity(report: Facts, regions: Regions) -> str:
    if not report["capacity"]:
        return '<p class="soft">No host was read, so nothing is known of its GPUs. What nodes advertise stands with each node.</p>'
    heads = ("Model", "Profile", "GPUs", "Maximum", "Made", "Allocatable", "Used", "Free", "Stranded", "Use")
    lines = []
    for row in report["capacity"]:
        figures = "".join(f'<td class="n">{figure(row[key], key in row["partly"])}</td>' for key in _page_node.FIGURES)
        lines.append(
            f'<tr><th scope="row">{esc(row["model"])}</th><td>{esc(row["profile"])}</td><td class="n">{row["gpus"]}</td>{figures}'
            f"<td>{regions.use(regions.shares(row))}</td></tr>"
        )
    head = "".join(f'<th scope="col"{" class=n" if 2 <= column <= 8 else ""}>{name}</th>' for column, name in enumerate(heads))
    caption = "By GPU model and profile"
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return (
        scroll(caption, f'<table class="wide"><caption>{caption}</caption>{body}</table>')
        + '<p class="soft">Free is made and not held. Stranded would fit by size, but cannot be made: all vGPUs of a GPU have one size, or no place '
        "or virtual function is left. <b>?</b> is not known; <b>+</b> marks a sum to which some GPUs add what nobody knows.</p>"
    )


def _resources(report: Facts) -> str:
    rows = [(name, entry["allocatable"], entry["used"], entry["allocatable"] - entry["used"]) for name, entry in report["totals"].items()]
    table = grid("What the nodes advertise", ("Resource", "Allocatable", "Used", "Free"), rows) if rows else ""
    return f"<details><summary>By resource of the nodes</summary>{table}</details>" if table else ""


def _options(values: t.Iterable[tuple[str, str]]) -> str:
    return "".join(f'<option value="{esc(value)}">{esc(text)}</option>' for value, text in values)


def _tools(report: Facts) -> str:
    workloads = sorted({str(node["wanted"] or node["workload"] or "") for node in report["nodes"]} - {""})
    summary = report["summary"]
    states = [(state, f"{state} ({count})") for state, count in summary["states"].items() if count]
    states += [(name, f"{name} ({summary['readings'][name]})") for name in _report.LOST if summary["readings"][name]]
    states += [("unhealthy", f"unhealthy ({summary['unhealthy']})")] if summary["unhealthy"] else []
    return _TOOLS.format(workloads=_options((f"w-{name}", name) for name in workloads), states=_options(states))


def _unknown(report: Facts) -> str:
    items = "".join(f"<li>{esc(entry['what'])}: {esc(entry['why'])}</li>" for entry in report["unknown"])
    return f'<section><h2>Not compared</h2><ul class="plain">{items}</ul></section>' if items else ""


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def page(report: t.Any) -> str:
    """The page of a report, as ``fleet_report`` returns it.

    :raises ValueError: what is given is no report, or one of another schema; the message names it.
    """
    report = _report.check(report)
    small = report["summary"]["gpus"] <= OPEN_UP_TO
    regions = Regions(small)
    keys = {node["name"]: f"n{number}" for number, node in enumerate(report["nodes"])}
    nodes = "".join(_page_node.node(node, keys[node["name"]], regions, small) for node in report["nodes"])
    capacity = _capacity(report, regions)
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src {_digest(SCRIPT)}; base-uri 'none'; form-action 'none'"
    status = badge(report["status"], "ok" if report["status"] == "ok" else "warn")
    versions = (
        f"GPU Operator {report['operator']['version'] or 'not installed'}, KubeVirt {report['kubevirt']['version'] or 'not installed'}"
    )
    where = f"{report['cluster']['server']}, {report['generated'] or 'time not given'}. {versions}."
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{esc(policy)}"><title>GPU fleet: {esc(report["status"])}</title>'
        f'<style>{STYLE}</style></head><body><a class="skip" href="#nodes">Skip to the nodes</a>{HATCH}{regions.symbols()}'
        f'<header><h1>GPU fleet</h1>{status}<p class="soft">{esc(where)}</p></header><main><section aria-label="Summary">{_tiles(report)}</section>'
        f"{_attention(report, keys)}<section><h2>Capacity</h2>{capacity}{_resources(report)}</section>"
        f'<section><h2 id="nodes">Nodes</h2>{regions.legend()}{_tools(report)}{nodes}'
        f'<p class="none" role="note"{" hidden" if report["nodes"] else ""}>No node to show.</p></section>{_unknown(report)}</main>'
        f"<footer>Schema {report['schema']} of fleet.json has the same for programs. Cluster {esc(str(report['cluster'].get('uid')))}. "
        "Regions: hosts do not say where vGPUs lie; they are drawn where the driver's rule puts them, or side by side where it shows no "
        "places.</footer>"
        f"<script>{SCRIPT}</script></body></html>\n"
    )
