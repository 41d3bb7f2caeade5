# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A guest for those who are not pytest: molecule, or a person.

python -m tests.kernel.serve up DIRECTORY [STATE]     starts a guest in this state (``on``); DIRECTORY/hosts.json is its inventory
python -m tests.kernel.serve down DIRECTORY           stops it, by its own process id
python -m tests.kernel.serve run DIRECTORY STATE      the process that has the guest; QEMU ends with it, whatever ends it
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.kernel.cached import KernelLabError
from tests.kernel.playbooks import inventory
from tests.kernel.session import session
from tests.kernel.states import STATES

CHECKOUT = Path(__file__).resolve().parents[2]
INVENTORY, PID, LOG = "hosts.json", "pid", "log"
#: A guest that nobody stops, because who started it was killed, ends by itself.
LIFE_SECONDS = 1800


def run(directory: Path, state: str) -> None:
    # By default it would end us without a word to what we hold.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with session() as lab:
        guest = lab.start(state)
        try:
            new = directory / f"{INVENTORY}.new"
            new.write_text(inventory(guest), encoding="utf-8")
            new.rename(directory / INVENTORY)
            time.sleep(LIFE_SECONDS)
        finally:
            guest.stop()


def up(directory: Path, state: str = "on") -> None:
    if state not in STATES:
        raise KernelLabError(f"Starting a guest: there is no state {state!r}. Choose one of {', '.join(STATES)}.")
    down(directory)
    directory.mkdir(mode=0o700, parents=True)
    command = [sys.executable, "-m", "tests.kernel.serve", "run", str(directory), state]
    with (directory / LOG).open("wb") as log:
        process = subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    (directory / PID).write_text(str(process.pid), encoding="utf-8")
    # How long it takes is for the process to say: what is not cached is built first, and each boot has its own limit.
    while not (directory / INVENTORY).exists():
        if process.poll() is not None:
            said = (directory / LOG).read_text(encoding="utf-8", errors="replace")[-3000:]
            raise KernelLabError(f"Starting a guest in the state {state!r}: it ended before it could be reached.\n{said}")
        time.sleep(0.05)


def down(directory: Path) -> None:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        pid = int((directory / PID).read_text(encoding="utf-8"))
        # A process id may be somebody else's by now.
        if str(directory) in Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0"):
            os.kill(pid, signal.SIGTERM)
            while Path(f"/proc/{pid}/cmdline").read_bytes():
                time.sleep(0.02)
    shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    verb, where, *rest = sys.argv[1:]
    try:
        {"up": up, "down": down, "run": run}[verb](Path(where), *rest)
    except KernelLabError as error:
        sys.exit(str(error))
