# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a plan costs, in seconds of the processor and memory of a process of its own. All plans are checked.

The bounds are the aims for a fleet of 64 GPUs: a median of 2 s and 10 s at worst. Of a large fleet it shows how near a plan comes in the time given.
"""

from __future__ import annotations

import typing as t

from tests.benchmark.table import Row
from tests.vgpu.planning import Case, Planned, planned

LOADS, SEEDS = (0.70, 0.95, 1.10), 3
LARGE = Case(1000, 5000, 0.95, 0, seconds=60)
#: MB that a plan may take at most.
MEMORY = 500


def right(case: Case) -> Planned:
    found = planned(case)
    if found.wrong:
        raise SystemExit(f"Measuring vgpu_plan: the plan for {case} is wrong: {'; '.join(found.wrong[:5])}")
    return found


def rows(gpus: int = 64, demands: int = 500, large: Case = LARGE) -> t.Iterator[Row]:
    everything = []
    for load in LOADS:
        found = [right(Case(gpus, demands, load, seed)) for seed in range(SEEDS)]
        everything += found
        name, seconds = f"vgpu_plan, {gpus}/{demands} at {load:.2f}", [entry.seconds for entry in found]
        yield Row(name, seconds, "s", 2)
        yield Row(f"{name}, worst", [max(seconds)], "s", 10)
    yield Row(f"vgpu_plan, {gpus}/{demands}, not proven", [sum(bool(entry.unproven) for entry in everything)], "plans", 0)
    yield Row(f"vgpu_plan, {gpus}/{demands}, most memory", [max(entry.megabytes for entry in everything)], "MB", MEMORY)
    found_large = right(large)
    name = f"vgpu_plan, {large.gpus}/{large.demands} in {large.seconds:g} s"
    yield Row(name, [found_large.seconds], "s")
    yield Row(f"{name}, objectives not proven", [len(found_large.unproven)], "")
    for objective in ("unserved", "gpus"):
        yield Row(f"{name}, {objective} over bound", [found_large.over(objective)], "%")
    yield Row(f"{name}, memory", [found_large.megabytes], "MB", MEMORY)
