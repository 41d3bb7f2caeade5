# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""GPU regions as small pictures. Equal ones are drawn once: a fleet of thousands of GPUs has few different ones."""

from __future__ import annotations

import html
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._report import _capacity
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _bars, _host_gpu
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._strips import FREE, IDLE, LOST, USED, Stretch, Strip

Facts = t.Mapping[str, t.Any]
Part = tuple[float, float, str]  #: first unit, the one behind the last, what it is

WIDTH, HEIGHT = 160, 18
#: What a part is -> how it is drawn (classes of the plan's page).
CLASSES = {USED: "c0", IDLE: "idle", FREE: "free", LOST: "lost"}
LEGEND = (
    (USED, "held by a VM or a pod"),
    (IDLE, "made and free"),
    (FREE, "room for more"),
    (LOST, "stranded: nothing more can be made there"),
)

HATCH = (
    '<svg width="0" height="0" aria-hidden="true" style="position:absolute"><defs><pattern id="hatch" width="8" height="8" '
    'patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="8" height="8"/><path d="M0 0V8"/></pattern></defs></svg>'
)


def strip_of(gpu: Facts) -> Strip | None:
    """The region of a GPU of a report; None if it is not known."""
    if gpu["placements"] is None:
        [whole] = [one for one in gpu["profiles"] if one["profile"] == _capacity.WHOLE] or [None]
        if whole is None or whole["used"] is None or whole["created"] is None:
            return None
        who = ", ".join(one["vm"] for one in gpu["used"] or ())
        what = USED if whole["used"] else IDLE if whole["created"] else FREE
        return Strip(1.0, (Stretch(0.0, 1.0, what, _capacity.WHOLE if what != FREE else "", who, True),))
    found = _host_gpu.of_plan({"gpu": gpu["model"], "vendor_device": gpu["pci"]})
    made = {one["profile"]: one["created"] for one in gpu["profiles"] if one["created"]}
    return _capacity.strip_of(found, made, gpu["used"])


class Regions:
    """The pictures of a page, each kept once. ``small``: the page has room for large ones, too."""

    def __init__(self, small: bool) -> None:
        self.small = small
        self._known: dict[tuple[float, tuple[Part, ...]], str] = {}

    def of(self, strip: Strip) -> str:
        """A small picture of a region."""
        return self._name(strip.size_gb, tuple((part.begin, part.end, part.what) for part in strip.stretches))

    def shares(self, row: Facts) -> str:
        """Of all that could be: what is held, made and free, still to be made, stranded."""
        most, begin, parts = row["max"], 0.0, []
        if not most or any(row[key] is None for key in ("used", "free", "creatable", "stranded")):
            return ""
        for what, key in ((USED, "used"), (IDLE, "free"), (FREE, "creatable"), (LOST, "stranded")):
            if row[key]:
                parts.append((begin, begin + row[key], what))
                begin += row[key]
        return self._name(float(max(most, begin)), tuple(parts))

    def _name(self, size: float, parts: tuple[Part, ...]) -> str:
        return self._known.setdefault((size, parts), f"r{len(self._known)}")

    def use(self, name: str) -> str:
        return f'<svg class="r" aria-hidden="true"><use href="#{name}"/></svg>' if name else ""

    def symbols(self) -> str:
        found = []
        for (size, parts), name in self._known.items():
            scale = (WIDTH - 1) / size
            boxes = "".join(
                f'<rect class="k {CLASSES[what]}" x="{begin * scale + 0.5:.1f}" y=".5" width="{max((end - begin) * scale - 1, 1):.1f}" height="17"/>'
                for begin, end, what in parts
            )
            found.append(f'<symbol id="{name}" viewBox="0 0 {WIDTH} {HEIGHT}">{boxes}</symbol>')
        return f'<svg width="0" height="0" aria-hidden="true" style="position:absolute">{"".join(found)}</svg>'

    def legend(self) -> str:
        items = "".join(
            f'<li><svg width="26" height="18" aria-hidden="true"><rect class="k {CLASSES[what]}" x="1" y="1" width="24" height="16" rx="3"/></svg>'
            f"{html.escape(text)}</li>"
            for what, text in LEGEND
        )
        return f'<ul class="legend" aria-label="Legend of the GPU regions">{items}</ul>'

    def picture(self, gpu: Facts, strip: Strip, key: str, title: str) -> str:
        """A large picture with names."""
        colours = {str(one["vm"]): CLASSES[USED] for one in gpu["used"] or ()}
        shown = Strip(strip.size_gb, tuple(Stretch(p.begin, p.end, p.what, p.type, p.who) for p in strip.stretches), strip.note)
        return _bars.gpu_bar(shown, key, title, colours, True)
