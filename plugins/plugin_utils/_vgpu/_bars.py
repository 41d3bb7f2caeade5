# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Strips as SVG: the bar of one GPU with its labels, and its small tile in the overview."""

from __future__ import annotations

import html
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._strips import FREE, IDLE, LOST, USED, Stretch, Strip

#: Units of a bar's picture: width, height of the bar, of the line with GB below it. A letter is about this wide.
WIDTH, HEIGHT, AXIS, LETTER = 1120, 40, 16, 6.9
#: A vGPU that is narrower gets no label of its own if its neighbour is of the same kind.
NARROW = 48
#: A GB label needs this much room.
TICK = 26

#: The sign for "times".
TIMES = "\u00d7"

WORDS = {USED: "", IDLE: "idle (made, not used)", FREE: "free", LOST: "lost"}


def gb(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")


def short(name: str) -> str:
    """A type without its GPU, as a bar shows it: ``4Q`` of ``A10-4Q``, ``1-5C`` of ``A100-1-5C``."""
    parts = name.split("-")
    return "-".join(parts[-2:]) if len(parts) > 2 and parts[-2].isdecimal() else parts[-1]


def cut(text: str, width: float) -> str:
    """As much of a text as fits into this many units, or nothing if that would be less than two letters."""
    room = int((width - 8) / LETTER)
    if len(text) <= room:
        return text
    return f"{text[: room - 1]}…" if room >= 3 else ""


def said(run: t.Sequence[Stretch], known_gb: bool) -> str:
    """Equal neighbours in words."""
    first, count = run[0], f"{len(run)} {TIMES} " if len(run) > 1 else ""
    where = f"{gb(first.begin)} to {gb(run[-1].end)} GB: " if known_gb else ""
    if first.what == USED:
        return f"{where}{count}{first.type} for {'VM ' if first.is_vm else ''}{first.who}"
    return f"{where}{count}{first.type}, {WORDS[IDLE]}" if first.what == IDLE else f"{where}{WORDS[first.what]}"


def _runs(strip: Strip, narrower: float) -> list[tuple[Stretch, ...]]:
    """The stretches of a strip; neighbours of fewer GB than this that are the same but for their place together."""
    runs: list[tuple[Stretch, ...]] = []
    for stretch in strip.stretches:
        last = runs[-1][-1] if runs else None
        same = last is not None and (last.what, last.type, last.who, last.end) == (stretch.what, stretch.type, stretch.who, stretch.begin)
        if same and stretch.end - stretch.begin < narrower:
            runs[-1] = (*runs[-1], stretch)
        else:
            runs.append((stretch,))
    return runs


def words(strip: Strip, known_gb: bool) -> str:
    """A strip in words from left to right, equal neighbours together."""
    return "; ".join(said(run, known_gb) for run in _runs(strip, strip.size_gb + 1))


def colour(stretch: Stretch, colours: t.Mapping[str, str]) -> str:
    if stretch.what == USED:
        return "vm" if stretch.is_vm else colours.get(stretch.who, "vm")
    return stretch.what


def _box(run: tuple[Stretch, ...], scale: float, colours: t.Mapping[str, str], known_gb: bool) -> str:
    """One stretch, or narrow equal ones with lines between them."""
    first, last = run[0], run[-1]
    x, width = first.begin * scale, (last.end - first.begin) * scale
    above = short(first.type) if first.type else WORDS[first.what]
    if len(run) > 1:
        full = f"{len(run)} {TIMES} {above}"
        above = full if cut(full, width) == full else f"{len(run)}{TIMES}{above}"
    below = first.who if first.what == USED else (IDLE if first.what == IDLE else f"{gb(last.end - first.begin)} GB")
    size = f'width="{max(width - 1, 1):.1f}" height="{HEIGHT - 1}"'
    box = f'<rect class="k {colour(first, colours)}" x="{x + 0.5:.1f}" y="0.5" {size} rx="3"/>'
    parts = [f"<g><title>{html.escape(said(run, known_gb))}</title>{box}"]
    if len(run) > 1:
        lines = "".join(f"M{stretch.begin * scale:.1f} {HEIGHT - 8}v7" for stretch in run[1:])
        parts.append(f'<path class="k" d="{lines}"/>')
    tall = 0 if len(run) == 1 else 3
    tight = width < NARROW and len(run) == 1
    above, below = cut(above, width + (4 if tight else 0)), cut(below, width)
    place = f'x="{x + width / 2:.1f}" text-anchor="middle"' if tight else f'x="{x + 5:.1f}"'
    if above:
        parts.append(f'<text class="t" {place} y="{(16 if below else 25) - tall}">{html.escape(above)}</text>')
    if below:
        parts.append(f'<text {place} y="{32 - 2 * tall}">{html.escape(below)}</text>')
    return "".join(parts) + "</g>"


def _axis(strip: Strip, scale: float) -> str:
    """The GB at which something begins or ends, as many as have room; the two ends always."""
    marks = sorted({0.0, strip.size_gb, *(stretch.begin for stretch in strip.stretches)})
    shown: list[float] = []
    last = -float(TICK)
    for mark in marks:
        place = mark * scale
        if place - last >= TICK and (mark == strip.size_gb or WIDTH - place >= 2 * TICK):
            shown.append(mark)
            last = place
    texts = []
    for mark in shown:
        anchor = "end" if mark == strip.size_gb else "start" if mark == 0 else "middle"
        unit = " GB" if mark == strip.size_gb else ""
        texts.append(f'<text class="axis" x="{mark * scale:.1f}" y="{HEIGHT + 13}" text-anchor="{anchor}">{gb(mark)}{unit}</text>')
    return "".join(texts)


def gpu_bar(strip: Strip, key: str, title: str, colours: t.Mapping[str, str], known_gb: bool) -> str:
    """The bar of a GPU. ``key`` is unique on the page, ``title`` what the bar is, for who does not see it."""
    scale = WIDTH / strip.size_gb
    boxes = "".join(_box(run, scale, colours, known_gb) for run in _runs(strip, NARROW / scale))
    return (
        f'<svg class="bar" viewBox="0 0 {WIDTH} {HEIGHT + AXIS}" role="img" aria-labelledby="{key}-t {key}-d">'
        f'<title id="{key}-t">{html.escape(title)}</title><desc id="{key}-d">{html.escape(words(strip, known_gb))}</desc>'
        f"{boxes}{_axis(strip, scale) if known_gb else ''}</svg>"
    )


def tile(strip: Strip, x: int, changed: bool) -> str:
    """A GPU in the overview: how much of it is used and idle, and a mark if it changes. 14 units wide, 22 high, at ``x``."""
    used, idle = strip.gb(USED) / strip.size_gb * 20, strip.gb(IDLE) / strip.size_gb * 20
    mark = f'<path class="m-mark" d="M{x + 14} 0v6l-6-6z"/>' if changed else ""
    return (
        f'<rect class="m-line" x="{x + 0.5}" y="0.5" width="13" height="21"/>'
        f'<rect class="m-used" x="{x + 1}" y="{21 - used:.1f}" width="12" height="{used:.1f}"/>'
        f'<rect class="m-idle" x="{x + 1}" y="{21 - used - idle:.1f}" width="12" height="{idle:.1f}"/>{mark}'
    )
