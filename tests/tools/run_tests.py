# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the given parts of ``make test`` one after the other, and say at both ends which lane that was and what did not run."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
PYTHONS = ("3.11", "3.12", "3.13")


def lane() -> str:
    core = importlib.metadata.version("ansible-core")
    missing = ["kernel suite: there is none yet"]
    if core.startswith("2.19"):
        missing.append("the newest ansible-core: needs Python 3.12")
    else:
        missing.append("ansible-core 2.19 on Python 3.11: make test GPUFLEET_PYTHON=python3.11")
    return f"ansible-core {core}, Python {platform.python_version()}, Linux {platform.release()}; not run: {'; '.join(missing)}"


def main(parts: list[str]) -> int:
    print(f"lane: {lane()}", flush=True)
    results: dict[str, tuple[bool, float]] = {}
    for part in parts:
        print(f"\n=== {part}", flush=True)
        started = time.monotonic()
        code = subprocess.run(["make", part], cwd=CHECKOUT, stdin=subprocess.DEVNULL, check=False).returncode
        results[part] = (code == 0, time.monotonic() - started)
    print()
    for part, (passed, seconds) in results.items():
        print(f"{'passed' if passed else 'FAILED'}  {part} ({seconds:.0f} s)")
    print(f"lane: {lane()}", flush=True)
    return 0 if all(passed for passed, _seconds in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
