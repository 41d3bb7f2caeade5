# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A plan as a page to look at: every GPU's framebuffer with who sits where, what is free and what is lost. One file, nothing is fetched.

The page shows a plan; it decides nothing. A mix that cannot be is drawn as such and marked.
"""

from __future__ import annotations

import base64
import collections
import dataclasses
import functools
import hashlib
import html
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _bars, _host_gpu, _plan_shape
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._gpu import Gpu
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._picture_style import COLOURS, SCRIPT, STYLE
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._strips import FREE, IDLE, LOST, USED, Strip, strip

#: With more GPUs than this, nodes are shown closed.
OPEN_UP_TO = 40
MODES = {"equal": "one size", "mixed": "mixed sizes", "keep": "kept as it is", "unused": "unused"}

esc = functools.partial(html.escape, quote=True)


@dataclasses.dataclass(frozen=True)
class Shown:
    """A GPU of the plan with all that is shown of it."""

    node: str
    entry: t.Mapping[str, t.Any]
    gpu: Gpu | None
    strip: Strip

    @property
    def known(self) -> bool:
        return self.gpu is not None and self.strip.size_gb == self.gpu.framebuffer_gb

    @property
    def name(self) -> str:
        return f"{self.node} GPU {self.entry['index']}"


def _mix(types: t.Mapping[str, int] | None) -> str:
    if types is None:
        return "not known"
    return ", ".join(f"{count} {_bars.TIMES} {name}" for name, count in types.items()) or "none"


def _several(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def _grid(caption: str, columns: t.Sequence[str], rows: t.Iterable[t.Sequence[str | float]]) -> str:
    """A table; the first cell of each row names it, numbers stand right."""
    lines = []
    for first, *rest in rows:
        cells = "".join(f"<td>{esc(cell)}</td>" if isinstance(cell, str) else f'<td class="n">{cell}</td>' for cell in rest)
        lines.append(f'<tr><th scope="row">{esc(str(first))}</th>{cells}</tr>')
    head = "".join(f'<th scope="col">{esc(column)}</th>' for column in columns)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{esc(caption)}"><table><caption>{esc(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def _demands(plan: t.Mapping[str, t.Any], shown: t.Iterable[Shown]) -> list[str]:
    """All demands, those first that the plan names first."""
    names = [*(plan.get("served") or {}), *(serve["demand"] for gpu in shown for serve in gpu.entry.get("serves") or ())]
    return list(dict.fromkeys(str(name) for name in names))


def _numbers(plan: t.Mapping[str, t.Any], shown: t.Sequence[Shown]) -> str:
    served, missing = sum((plan.get("served") or {}).values()), sum(entry["count"] for entry in plan.get("unserved") or ())
    changed = sum(1 for gpu in shown if gpu.entry.get("changed"))
    disturbed = len({vm for gpu in shown for vm in gpu.entry.get("disturbed") or ()})
    known = [gpu.strip for gpu in shown if gpu.known]
    total = sum(part.size_gb for part in known) or 1
    lost = sum(part.gb(LOST) for part in known)
    rows = [
        ("Nodes", str(len({gpu.node for gpu in shown})), ""),
        ("GPUs in use", f"{sum(1 for gpu in shown if gpu.entry['types'])} of {len(shown)}", ""),
        ("vGPUs served", str(served), ""),
        ("Not served", str(missing), "bad" if missing else ""),
        ("GPUs that change", str(changed), "warn" if changed else ""),
        ("VMs disturbed", str(disturbed), "warn" if disturbed else ""),
        ("GB in use", f"{sum(part.gb(USED) for part in known) / total:.0%}", ""),
        ("GB lost", f"{_bars.gb(lost)} ({lost / total:.0%})", ""),
    ]
    return "".join(f'<div class="{mark}"><dt>{name}</dt><dd>{esc(value)}</dd></div>' for name, value, mark in rows)


def _verdict(plan: t.Mapping[str, t.Any]) -> str:
    status = str(plan.get("status", ""))
    good = "Proven: no plan is better by its objectives." if status == "optimal" else ""
    word = good or (
        "Best plan found in the time given; not proven to be the best." if status == "time-limit" else f"Status: {status or 'not given'}."
    )
    parts = [f'<p class="soft">{esc(word)}</p>']
    if unserved := plan.get("unserved"):
        rows = [(str(entry["demand"]), entry["count"], str(entry.get("why", ""))) for entry in unserved]
        parts.append(_grid("Demands that are not served", ("Demand", "vGPUs", "Why"), rows))
    if caveats := plan.get("caveats"):
        parts.append(f'<div class="note"><b>To know</b><ul>{"".join(f"<li>{esc(str(one))}</li>" for one in caveats)}</ul></div>')
    if objectives := plan.get("objectives"):
        levels = [(str(one["name"]), one["value"], one["bound"], "yes" if one["proven"] else "no") for one in objectives]
        grid = _grid("In the order in which they count", ("Objective", "Value", "No plan is below", "Proven"), levels)
        parts.append(f"<details><summary>Objectives</summary>{grid}</details>")
    return "".join(parts)


def _map(nodes: t.Mapping[str, list[Shown]], keys: t.Mapping[str, str]) -> str:
    items = []
    for node, gpus in nodes.items():
        tiles = "".join(_bars.tile(gpu.strip, 17 * number, bool(gpu.entry.get("changed"))) for number, gpu in enumerate(gpus))
        link = f'<a href="#{keys[node]}" title="{esc(node)}">{esc(node)}</a>'
        items.append(f'<li>{link}<svg width="{17 * len(gpus)}" height="22" aria-hidden="true">{tiles}</svg></li>')
    return f'<ul class="map">{"".join(items)}</ul>'


def _legend(demands: t.Sequence[str], colours: t.Mapping[str, str]) -> str:
    def item(mark: str, text: str) -> str:
        box = f'<rect class="k {mark}" x="1" y="1" width="24" height="16" rx="3"/>'
        return f'<li><svg width="26" height="18" aria-hidden="true">{box}</svg>{esc(text)}</li>'

    named = [item(colours[name], name) for name in demands[: 2 * COLOURS]]
    if len(demands) > 2 * COLOURS:
        named.append(f"<li>and {len(demands) - 2 * COLOURS} more demands</li>")
    fixed = [
        ("vm", "a VM that stays"),
        (IDLE, "idle: made, not used"),
        (FREE, "free: room for a vGPU"),
        (LOST, "lost: no further vGPU can reach it"),
    ]
    return f'<ul class="legend">{"".join(named)}{"".join(item(mark, text) for mark, text in fixed)}</ul>'


def _room(gpu: Shown) -> str:
    if not gpu.known:
        return "size not known" if gpu.gpu is None else "does not fit"
    said = [f"{_bars.gb(gpu.strip.gb(what))} {what}" for what in (USED, IDLE, FREE, LOST) if gpu.strip.gb(what)]
    return f"{', '.join(said)} of {_bars.gb(gpu.strip.size_gb)} GB"


def _mode(gpu: Shown) -> str:
    sliced = gpu.gpu is not None and any(kind.slices and kind.name in gpu.entry["types"] for kind in gpu.gpu.types)
    return "GPU instances (MIG)" if sliced and gpu.entry["mode"] != "keep" else MODES.get(gpu.entry["mode"], str(gpu.entry["mode"]))


def _gpu(gpu: Shown, key: str, colours: t.Mapping[str, str]) -> str:
    entry = gpu.entry
    model = str(entry.get("gpu") or entry.get("vendor_device") or "unknown GPU")
    disturbed = [str(vm) for vm in entry.get("disturbed") or ()]
    marks = [
        word
        for word, on in (("changed", entry.get("changed")), ("disturbs", disturbed), ("room", gpu.strip.gb(FREE) + gpu.strip.gb(IDLE)))
        if on
    ]
    words = [
        gpu.node,
        model,
        str(entry.get("address") or ""),
        *entry["types"],
        *disturbed,
        *(stretch.who for stretch in gpu.strip.stretches),
    ]
    head = [f"<b>GPU {entry['index']}</b>", f"<span>{esc(model)}</span>"]
    if entry.get("address"):
        head.append(f'<span class="soft">{esc(str(entry["address"]))}</span>')
    head.append(f'<span class="tag">{esc(_mode(gpu))}</span>')
    if entry.get("changed"):
        head.append(f'<span class="tag change">changes</span><span>{esc(_mix(entry.get("before")))} → {esc(_mix(entry["types"]))}</span>')
    elif entry["types"]:
        head.append(f"<span>{esc(_mix(entry['types']))}</span>")
    head.append(f'<span class="room">{esc(_room(gpu))}</span>')
    below = [f'<p class="hit">Disturbs {_several(len(disturbed), "VM")}: {esc(", ".join(disturbed))}</p>'] if disturbed else []
    if gpu.strip.note:
        below.append(f'<p class="hit fault">{esc(gpu.strip.note)}</p>')
    return (
        f'<div class="gpu" data-is="{" ".join(marks)}" data-find="{esc(" ".join(words).lower())}"><p class="head">{"".join(head)}</p>'
        f'<div class="scroll">{_bars.gpu_bar(gpu.strip, key, f"{gpu.name}, {model}: {_room(gpu)}", colours, gpu.known)}</div>{"".join(below)}</div>'
    )


def _node(node: str, gpus: t.Sequence[Shown], key: str, colours: t.Mapping[str, str], is_open: bool) -> str:
    changed = sum(1 for gpu in gpus if gpu.entry.get("changed"))
    disturbed = len({vm for gpu in gpus for vm in gpu.entry.get("disturbed") or ()})
    facts = [_several(len(gpus), "GPU"), f"{changed} change" if changed else "no change"]
    if disturbed:
        facts.append(f"{_several(disturbed, 'VM')} disturbed")
    if all(gpu.known for gpu in gpus) and gpus:
        facts.append(f"{sum(gpu.strip.gb(USED) for gpu in gpus) / sum(gpu.strip.size_gb for gpu in gpus):.0%} in use")
    inner = "".join(_gpu(gpu, f"{key}g{number}", colours) for number, gpu in enumerate(gpus))
    return (
        f'<details class="node" id="{key}"{" open" if is_open else ""}><summary><h3>{esc(node)}</h3>'
        f'<span class="soft">{", ".join(facts)}</span></summary>{inner}</details>'
    )


def _table(shown: t.Sequence[Shown]) -> str:
    rows = []
    for gpu in shown:
        entry = gpu.entry
        cells = [
            str(entry.get("gpu") or ""),
            str(entry.get("address") or ""),
            _mode(gpu),
            _mix(entry.get("before")) if entry.get("changed") else "unchanged",
            _bars.words(gpu.strip, gpu.known),
            _room(gpu),
            ", ".join(str(vm) for vm in entry.get("disturbed") or ()) or "none",
        ]
        rows.append([gpu.node, entry["index"], *cells])
    names = ("Node", "GPU", "Model", "Address", "Mode", "Before", "From left to right", "GB", "VMs disturbed")
    grid = _grid("The same as the bars, in words", names, rows)
    return f'<details id="table"><summary>All GPUs as a table</summary>{grid}</details>'


_TOOLS = """<div class="tools" role="group" aria-label="What is shown" hidden>
<label>Find <input type="search" id="find" placeholder="node, type, demand or VM" autocomplete="off"></label>
<label><input type="checkbox" value="changed"> changes</label><label><input type="checkbox" value="disturbs"> disturbs VMs</label>
<label><input type="checkbox" value="room"> has room</label>
<button type="button" id="open">Open all</button><button type="button" id="close">Close all</button>
<span id="said" class="soft" role="status"></span></div>"""

_HATCH = (
    '<svg width="0" height="0" aria-hidden="true" style="position:absolute"><defs><pattern id="hatch" width="8" height="8" '
    'patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="8" height="8"/><path d="M0 0V8"/></pattern></defs></svg>'
)


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def draw(plan: t.Any, find: t.Callable[[t.Mapping[str, t.Any]], Gpu | None]) -> str:
    """The page of a plan. ``find`` gives the catalogue's entry of a GPU of the plan, or None.

    :raises ValueError: what is given is no plan; the message names the item.
    """
    nodes = _plan_shape.check(plan)
    shown = []
    for node, entries in nodes:
        for entry in entries:
            gpu = find(entry)
            shown.append(Shown(node, entry, gpu, strip(entry, gpu)))
    by_node: dict[str, list[Shown]] = collections.defaultdict(list)
    for each in shown:
        by_node[each.node].append(each)
    keys = {node: f"n{number}" for number, node in enumerate(by_node)}
    demands = _demands(plan, shown)
    colours = {name: f"c{number % COLOURS}" for number, name in enumerate(demands)}
    bars = "".join(_node(node, gpus, keys[node], colours, len(shown) <= OPEN_UP_TO) for node, gpus in by_node.items())
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src {_digest(SCRIPT)}"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{esc(policy)}"><title>vGPU plan</title><style>{STYLE}</style></head><body>'
        f'<a class="skip" href="#gpus">Skip to the GPUs</a> <a class="skip" href="#table">Skip to the table</a>{_HATCH}'
        '<header><h1>vGPU plan</h1></header><main><section aria-label="Result">'
        f'<dl class="tiles">{_numbers(plan, shown)}</dl>{_verdict(plan)}</section>'
        '<section><h2>Overview</h2><p class="soft">One tile a GPU, filled as far as it is used (grey: idle); a marked corner: it changes.</p>'
        f'{_map(by_node, keys)}</section><section><h2 id="gpus">GPUs</h2>{_legend(demands, colours)}{_TOOLS}{bars}</section>'
        f"<section><h2>In words</h2>{_table(shown)}"
        '<p class="soft">Where a host does not show places (one size on Ampere and older, GPU instances), vGPUs are drawn side by side; '
        "the driver may put them in another order.</p></section>"
        f"</main><script>{SCRIPT}</script></body></html>\n"
    )


def page(plan: t.Any) -> str:
    """The page of a plan, as ``vgpu_plan`` returns it, with the GPUs of the catalogue. See :func:`draw`."""
    return draw(plan, _host_gpu.of_plan)
