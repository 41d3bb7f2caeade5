# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the programs that the unit runs at boot have in common: one attempt to make what is not there, and what is still missing then.

They use the same code as the modules. They only ever add: nothing that exists is removed.
"""

from __future__ import annotations

import argparse
import sys
import typing as t

from .._change import Blocker, Change
from . import _persist
from ._commands import Commands
from ._persist import Entry
from ._sysfs import Host, HostError

WRITE = 60.0  # seconds per kernel write: at boot drivers are slower than later

Missing = t.List[str]
Make = t.Callable[[Host, Commands, t.Mapping[str, Entry]], Missing]


def main(arguments: t.Sequence[str], kind: str, make: Make) -> int:
    """Make the devices of one kind once; 0 if they are there, else 1, with what is missing on standard output."""
    parser = argparse.ArgumentParser(description=f"Make the devices of this host that {kind} has persisted, once")
    parser.add_argument("--root", default="/", help="directory that holds the host's files")
    missing = attempt(Host(parser.parse_args(arguments).root), kind, make)
    for line in missing:
        sys.stdout.write(f"{line}\n")
    return 1 if missing else 0


def attempt(host: Host, kind: str, make: Make) -> Missing:
    """Make what is not there yet; what is still missing afterwards, one line each."""
    try:
        entries = _persist.read_entries(host)[kind]
        elsewhere = moved(host, entries)
        missing = [f"function {address}: {problem}" for address, problem in sorted(elsewhere.items())]
        there = {address: entry for address, entry in entries.items() if address not in elsewhere}
        return missing + (make(host, Commands(host), there) if there else [])
    except HostError as error:
        return [str(error)]


def moved(host: Host, entries: t.Mapping[str, Entry]) -> t.Dict[str, str]:
    """Addresses where nothing is, or something else than what was persisted, with what is there: addresses move when hardware changes."""
    found = {}
    for address, entry in entries.items():
        path = f"/sys/bus/pci/devices/{address}"
        now = ":".join((host.quiet(f"{path}/{part}") or "").removeprefix("0x").upper() for part in ("vendor", "device"))
        if now != entry.get("id"):
            found[address] = f"it is {now if now != ':' else 'not there'}, and was {entry.get('id')} when this was persisted"
    return found


def made(
    plan: t.Callable[[], t.Tuple[t.List[Change], t.List[Blocker]]], apply: t.Callable[[t.Sequence[Change]], t.List[Blocker]]
) -> Missing:
    """Plan, apply, read back; what is missing after that."""
    changes, blockers = plan()
    if changes:
        failed = apply(changes)
        left, blockers = plan()
        told = {blocker.target for blocker in failed}
        blockers = failed + blockers + [Blocker(c.target, f"is still to be done: {c.action}", "") for c in left if c.target not in told]
    return lines(blockers)


def lines(blockers: t.Sequence[Blocker]) -> Missing:
    return [f"{blocker.target}: {blocker.problem}" for blocker in blockers]
