# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The table of the measurements."""

from __future__ import annotations

import dataclasses
import statistics
import typing as t


@dataclasses.dataclass(frozen=True)
class Row:
    """One measurement: what, its samples, their unit, and what they may be at most (None: shown only)."""

    name: str
    samples: t.Sequence[float]
    unit: str
    bound: float | None = None

    @property
    def kept(self) -> bool:
        return self.bound is None or statistics.median(self.samples) <= self.bound


def text(rows: t.Iterable[Row]) -> str:
    lines = [f"{'':48} {'runs':>4} {'min':>9} {'median':>9} {'max':>9} {'bound':>9}"]
    for row in rows:
        figures = [f"{value:9.3f}" if row.unit == "s" else f"{value:9.1f}" for value in _three(row.samples)]
        bound = "-" if row.bound is None else f"{row.bound:g}"
        mark = "" if row.kept else "  TOO MUCH"
        lines.append(f"{row.name:48} {len(row.samples):4} {' '.join(figures)} {bound:>9} {row.unit}{mark}")
    return "\n".join(lines)


def _three(samples: t.Sequence[float]) -> tuple[float, float, float]:
    return min(samples), statistics.median(samples), max(samples)
