# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""One node on the page of a report: its line, and below it what differs, what is sick, its GPUs, and who holds what."""

from __future__ import annotations

import functools
import html
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._report import _health, _report
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._report._capacity import WHOLE
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._report._regions import Regions, strip_of

Facts = t.Mapping[str, t.Any]
esc = functools.partial(html.escape, quote=True)

FIGURES = ("max", "created", "allocatable", "used", "free", "stranded")
_HEADS = ("GPU", "Model", "Profile", "Max", "Made", "Alloc.", "Used", "Free", "Stranded", "Region", "Held by")
_HEAD = f"<thead><tr>{''.join(f'<th scope=col>{name}</th>' for name in _HEADS)}</tr></thead>"
#: A state's colour, and where it stands among what needs attention.
STATES = {"ok": "ok", "foreign": "soft", "undecided": "warn", "refused": "bad", "drift": "warn", "missing": "bad"}


def several(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def badge(text: str, mark: str) -> str:
    return f'<span class="badge {mark}">{esc(text)}</span>'


def figure(value: int | None, partly: bool = False) -> str:
    return '<abbr title="not known">?</abbr>' if value is None else f"{value}{'+' if partly else ''}"


def scroll(label: str, inner: str) -> str:
    """What may be wider than the screen; it can be scrolled with the keyboard."""
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{esc(label)}">{inner}</div>'


def grid(caption: str, columns: t.Sequence[str], rows: t.Iterable[t.Sequence[t.Any]]) -> str:
    """A table; the first cell of each row names it, numbers stand right."""
    lines = []
    for first, *rest in rows:
        cells = "".join(f'<td class="n">{cell}</td>' if isinstance(cell, int) else f"<td>{esc(str(cell))}</td>" for cell in rest)
        lines.append(f'<tr><th scope="row">{esc(str(first))}</th>{cells}</tr>')
    head = "".join(f'<th scope="col">{esc(column)}</th>' for column in columns)
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return scroll(caption, f"<table><caption>{esc(caption)}</caption>{body}</table>")


def bad(node: Facts) -> bool:
    return any(entry["level"] == _health.BAD for entry in node["findings"])


def rank(node: Facts) -> tuple[int, str]:
    """What needs somebody most comes first: what is sick, what cannot be read, then by state."""
    lost = node["reading"]["state"] in _report.LOST
    order = 0 if bad(node) else 1 if lost else 2 + ("missing", "refused", "undecided", "drift", "ok", "foreign").index(node["state"])
    return order, node["name"]


def badges(node: Facts) -> str:
    lost = node["reading"]["state"] in _report.LOST
    found = [] if lost and node["state"] == "ok" else [badge(node["state"], STATES[node["state"]])]
    if lost:
        found.append(badge(node["reading"]["state"], "bad"))
    if bad(node):
        found.append(badge("unhealthy", "bad"))
    if node["schedulable"] is False:
        found.append(badge("cordoned", "soft"))
    return " ".join(found)


def sentences(node: Facts) -> list[str]:
    """All that needs somebody, the most urgent first."""
    found = [f"{entry['target']}: {entry['problem']}" for entry in node["findings"] if entry["level"] == _health.BAD]
    if node["reading"]["state"] in _report.LOST:
        found.append(f"Host {node['host']}: {node['reading']['why']}")
    return [*found, *(text for text in node["problems"] if not (text == "the node is not ready" and found))]


def _marks(node: Facts) -> str:
    """The words that the filter goes by."""
    profiles = [profile for gpu in node["gpus"] or () for profile in gpu["profiles"]]
    free = any(profile["free"] for profile in profiles) or any(
        count > node["used"].get(name, 0) for name, count in node["allocatable"].items() if node["gpus"] is None
    )
    words = [node["state"], f"w-{node['wanted'] or node['workload'] or 'none'}"]
    words += [node["reading"]["state"]] if node["reading"]["state"] in _report.LOST else []
    words += ["unhealthy"] if bad(node) else []
    words += ["has-free"] if free else []
    words += ["has-stranded"] if any(profile["stranded"] for profile in profiles) else []
    return " ".join(words)


def _use(node: Facts) -> str:
    if node["allocatable"]:
        used = sum(node["used"].get(name, 0) for name in node["allocatable"])
        return f"{used} of {sum(node['allocatable'].values())} in use"
    return "advertises nothing"


def _holders(gpu: Facts) -> str:
    if gpu["used"] is None:
        return f'<span class="soft">not known: {esc(str(gpu["why"]))}</span>'
    held = [f"{one['vm']}{' (' + str(one['count']) + ')' if one['count'] > 1 else ''}" for one in gpu["used"]]
    return esc(", ".join(held)) or '<span class="soft">nobody</span>'


def _rows(gpu: Facts, regions: Regions) -> str:
    strip = strip_of(gpu)
    picture = regions.use(regions.of(strip)) if strip else '<span class="soft">not known</span>'
    profiles = gpu["profiles"]
    span = f' rowspan="{len(profiles)}"' if len(profiles) > 1 else ""
    lines = []
    for number, profile in enumerate(profiles or [None]):
        figures = "".join(f"<td>{figure(profile[key])}</td>" for key in FIGURES) if profile else "<td></td>" * len(FIGURES)
        name = f"<td>{esc(profile['profile'])}</td>{figures}" if profile else f'<td class="soft">none</td>{figures}'
        if number:
            lines.append(f"<tr>{name}<td></td><td></td></tr>")
        else:
            model = f"<td{span}>{esc(str(gpu['model'] or gpu['pci']))}</td>"
            head = f'<th scope="row"{span}>{gpu["index"]} <i class="soft">{esc(gpu["address"])}</i></th>{model}'
            lines.append(f"<tr>{head}{name}<td>{picture}</td><td>{_holders(gpu)}</td></tr>")
    return "".join(lines)


def _gpus(node: Facts, key: str, regions: Regions) -> str:
    if node["gpus"] is None:
        return f'<p class="soft">Its GPUs are not known: {esc(str(node["reading"]["why"]))}.</p>'
    if not node["gpus"]:
        return '<p class="soft">The host shows no NVIDIA GPU.</p>'
    name = f"GPUs of {node['name']}"
    body = f"<tbody>{''.join(_rows(gpu, regions) for gpu in node['gpus'])}</tbody>"
    table = scroll(name, f'<table class="g"><caption>{esc(name)}</caption>{_HEAD}{body}</table>')
    if not regions.small:
        return table
    bars = []
    for number, gpu in enumerate(node["gpus"]):
        strip = strip_of(gpu)
        if strip and gpu["placements"] is not None:
            title = f"{node['name']} GPU {gpu['index']}, {gpu['model']}: its framebuffer"
            picture = regions.picture(gpu, strip, f"{key}g{number}", title)
            bars.append(f"<p>GPU {gpu['index']}, {esc(str(gpu['model']))}</p>{scroll(title, picture)}")
    return table + (f'<div class="bars">{"".join(bars)}</div>' if bars else "")


def _text(node: Facts) -> str:
    """What is to be said of a node in words."""
    parts = []
    if node["drift"]:
        rows = [(entry["where"], entry["wanted"], entry["found"], entry["remedy"]) for entry in node["drift"]]
        parts.append(grid("Differs from the inventory", ("Where", "Wanted", "Found", "Mended by"), rows))
    items = [(entry["level"], f"{entry['target']}: {entry['problem']}. {entry['remedy']}.") for entry in node["findings"]]
    if node["reading"]["state"] in _report.LOST:
        items.append(("bad", f"Host {node['host']} {node['reading']['state']}: {node['reading']['why']}."))
    told = {entry["says"] for entry in node["drift"]} | ({"the node is not ready"} if node["findings"] else set())
    items += [("bad", text) for text in node["problems"] if text not in told]
    items += [("warn", text) for text in node["warnings"]]
    if items:
        parts.append(f"<ul>{''.join(f'<li class={mark}>{esc(text)}</li>' for mark, text in items)}</ul>")
    return "".join(parts)


def _advertised(node: Facts, known: bool) -> str:
    """What the node advertises, and who holds it where the GPUs do not say so."""
    words = [f"{name}: {count} ({node['used'].get(name, 0)} used)" for name, count in node["allocatable"].items()]
    line = f"<p>Advertises {esc(', '.join(words) or 'nothing')}.</p>"
    if not known and node["users"]:
        users = [f"{one['who']}: {one['count']} {one['resource']}" for one in node["users"]]
        line += f"<p>Held by {esc('; '.join(users))}.</p>"
    return line


def _facts(node: Facts) -> str:
    words = [f"workload {node['workload'] or 'not set'}"]
    if node["wanted"] and node["wanted"] != node["workload"]:
        words.append(f"wanted {node['wanted']}")
    words += [f"profile {node['profile']}"] if node["profile"] else []
    words += [f"devices made by the {node['owner']}"] if node["owner"] else []
    words += [f"host {node['host']}"] if node["host"] and node["host"] != node["name"] else []
    return f'<p class="soft">{esc(", ".join(words))}</p>'


def node(entry: Facts, key: str, regions: Regions, small: bool) -> str:
    """One node, opened where there is room for all."""
    gpus = entry["gpus"]
    known = gpus is not None and all(gpu["used"] is not None for gpu in gpus)
    count = several(len(gpus), "GPU") if gpus is not None else "GPUs not known"
    name = f'<h3>{esc(entry["name"])}</h3>{badges(entry)}<span class="soft">{esc(entry["workload"] or "no workload")}</span>'
    inner = f"{_facts(entry)}{_text(entry)}{_advertised(entry, known)}{_gpus(entry, key, regions)}"
    return (
        f'<details class="node" id="{key}" data-is="{esc(_marks(entry))}"{" open" if small else ""}><summary>{name}'
        f'<span class="soft end">{count}, {_use(entry)}</span></summary><div class="in">{inner}</div></details>'
    )


__all__ = ["FIGURES", "STATES", "WHOLE", "badge", "badges", "figure", "grid", "node", "rank", "scroll", "sentences", "several"]
