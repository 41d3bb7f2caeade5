# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An interactive shell in the development environment; with a lab that is up, its kubectl, helm and cluster are the shell's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def main() -> None:
    lab = subprocess.run(
        [sys.executable, str(CHECKOUT / "tests" / "lab" / "lab.py"), "env"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    state = "the lab's cluster" if lab.returncode == 0 else "no lab is up: make lab-up"
    print(f"The development environment ({state}). Leave it with exit.", flush=True)
    # A shell's own start-up files would put other programs first on PATH.
    script = f"{lab.stdout if lab.returncode == 0 else ''}\nexport PS1='(gpufleet) \\w\\$ '\nexec bash --noprofile --norc"
    os.execvp("bash", ["bash", "--noprofile", "--norc", "-c", script])


if __name__ == "__main__":
    main()
