# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run targets of the Makefile one after the other, all of them whatever happens, and say in the end how each of them ended.

With ``--lane`` the first and the last line name what they ran on, and what did not run: that is never counted as passed.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def lane(core: str) -> str:
    """What the parts run on with this ansible-core, and which lane that leaves out."""
    if core.startswith("2.19."):
        other = "the newest ansible-core, which needs Python 3.12 or newer"
    else:
        other = "ansible-core 2.19 (make test-core219, needs Python 3.11)"
    left = f"{other}, the further scenarios of make kernel-test, make image-test, the campaigns of make soak"
    return f"lane: ansible-core {core}, Python {platform.python_version()}, Linux {platform.release()}; not run: {left}"


def run(part: str) -> int:
    # A part is not told about the make that we are called by: it shares no jobs with it.
    environment = {key: value for key, value in os.environ.items() if key not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")}
    return subprocess.run(
        ["make", "--no-print-directory", part], cwd=CHECKOUT, env=environment, stdin=subprocess.DEVNULL, check=False
    ).returncode


def main(arguments: list[str]) -> int:
    heading = lane(importlib.metadata.version("ansible-core")) if "--lane" in arguments else ""
    parts = [argument for argument in arguments if argument != "--lane"]
    if heading:
        print(heading, flush=True)
    ends: list[tuple[str, int, float]] = []
    for part in parts:
        print(f"\n=== {part}", flush=True)
        started = time.monotonic()
        try:
            code = run(part)
        except KeyboardInterrupt:
            print(f"\nInterrupted in {part}; not run: {', '.join(parts[len(ends) + 1 :]) or 'nothing else'}")
            return 130
        ends.append((part, code, time.monotonic() - started))
    print()
    for part, code, seconds in ends:
        print(f"{'FAILED' if code else 'passed'}  {part} ({seconds:.0f} s)")
    if heading:
        print(heading, flush=True)
    return 1 if any(code for _part, code, _seconds in ends) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
