# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""All mixes of the GPUs with the most of them, counted; what a shard counts is chosen by its number.

python -m tests.soak.placement --shard 3/20
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.soak.mutation import shard
from tests.vgpu import counting


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="All mixes of the GPUs with the most of them, counted.")
    parser.add_argument("--shard", type=shard, default=(1, 1), help="which part, such as 3/20")
    number, total = parser.parse_args(arguments).shard
    wrong = []
    for row in counting.TABLE[number - 1 :: total]:
        started = time.monotonic()
        wrong += counting.wrong(row)
        print(f"{row}: {row.fitting} mixes, {time.monotonic() - started:.1f} s", flush=True)
    print("\n".join(wrong), flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
