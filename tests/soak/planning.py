# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plans of many seeded fleets, each checked: twenty seeds at three loads, and fleets of up to 4 000 GPUs. What a shard plans is chosen by its number.

A plan that is not proven in its time is shown with its bounds; a plan that the checker refuses, or none, is a failure.

python -m tests.soak.planning --shard 3/20
"""

from __future__ import annotations

import argparse
import sys

from tests.soak.mutation import shard
from tests.vgpu.planning import Case, planned

#: Seconds for a plan of the fleets that grow.
LONG = 300
CASES = (
    *(Case(64, 500, load, seed) for load in (0.70, 0.95, 1.10) for seed in range(20)),
    *(Case(gpus, 5 * gpus, 0.95, 0, LONG) for gpus in (250, 500, 1000, 2000, 4000)),
)


def main(arguments: list[str], cases: tuple[Case, ...] = CASES) -> int:
    parser = argparse.ArgumentParser(description="Plans of many seeded fleets, each checked.")
    parser.add_argument("--shard", type=shard, default=(1, 1), help="which part, such as 3/20")
    number, total = parser.parse_args(arguments).shard
    wrong = []
    for case in cases[number - 1 :: total]:
        found = planned(case)
        wrong += [f"{case}: {words}" for words in found.wrong]
        how = "WRONG" if found.wrong else f"not proven in {case.seconds:g} s: {'; '.join(found.unproven)}" if found.unproven else "proven"
        print(f"{case}: {found.seconds:.1f} s, {found.megabytes:.0f} MB, {how}", flush=True)
    print("\n".join(wrong), flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
