# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the unit runs at boot: a program for the virtual functions first, then one for the vGPUs, again and again until all are there.

Copied to the host as it stands, beside the programs, each of which is in a directory of its own with all that it imports: so each module
brings, and keeps up to date, only what makes its own devices.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import typing as t

#: What is to be made, by kind. Its entries are for the programs; here it only counts whether there are any.
ENTRIES = "/etc/gpufleet/devices.json"
#: The directories of the programs, in the order in which they run, and the file that is run there.
KINDS = ("sriov_vfs", "mdev_create")
ATTEMPT = "attempt.py"
#: Seconds that the unit waits at most for drivers that start slowly.
WAIT = 300

_PAUSE = 2.0

Missing = t.List[str]


def main(arguments: t.Sequence[str]) -> int:
    """Make all devices of the list; 0 if they are there, else 1, with what is missing on standard error."""
    parser = argparse.ArgumentParser(description="Make the virtual functions and vGPUs that this host shall have from boot on")
    parser.add_argument("--root", default="/", help="directory that holds the host's files")
    parser.add_argument("--wait", type=float, default=WAIT, help="seconds to wait for drivers that start slowly")
    given = parser.parse_args(arguments)
    beside = os.path.dirname(os.path.abspath(__file__))
    programs = [os.path.join(beside, kind, ATTEMPT) for kind in wanted(given.root.rstrip("/") + ENTRIES)]
    return told(until_there([lambda path=path: attempted(path, given.root) for path in programs], given.wait))  # type: ignore[misc]


def wanted(entries: str) -> t.List[str]:
    """The kinds of which something is to be made, in order. All of them if that cannot be read: the programs say what is wrong."""
    try:
        with open(entries, encoding="utf-8") as file:
            kept = json.load(file)
        return [kind for kind in KINDS if kept.get(kind)]
    except (OSError, ValueError, AttributeError):
        return list(KINDS)


def until_there(attempts: t.Sequence[t.Callable[[], Missing]], wait: float) -> Missing:
    """Try until nothing is missing, or ``wait`` seconds are over; what is missing then."""
    end = time.monotonic() + wait
    while True:
        missing = [line for attempt in attempts for line in attempt()]
        if not missing or time.monotonic() >= end:
            return missing
        time.sleep(min(_PAUSE, max(0.0, end - time.monotonic())))


def attempted(program: str, root: str) -> Missing:
    """Run one program once: it prints what is missing, one line each, and ends with 0 if nothing is."""
    ended = subprocess.run(  # pylint: disable=ansible-bad-function
        [sys.executable, "-B", program, "--root", root],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode == 0:
        return []
    return ended.stdout.splitlines() or [f"{program} ended with {ended.returncode}: {' '.join(ended.stderr.splitlines()[-1:])}"]


def told(missing: Missing) -> int:
    for line in missing:
        sys.stderr.write(f"missing: {line}\n")
    return 1 if missing else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
