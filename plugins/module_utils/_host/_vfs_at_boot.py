# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The virtual functions that a host shall have from boot on: the program that makes them."""

from __future__ import annotations

import dataclasses
import typing as t

from .._change import Blocker, Change
from . import _at_boot, _sriov
from ._at_boot import WRITE, Missing, lines, made
from ._commands import Commands
from ._persist import Entry
from ._sriov_host import SriovHost
from ._sysfs import Host

KIND = "sriov_vfs"


def main(arguments: t.Sequence[str]) -> int:
    return _at_boot.main(arguments, KIND, make)


def make(host: Host, commands: Commands, entries: t.Mapping[str, Entry]) -> Missing:
    """Make the virtual functions of these entries, by address; what is missing then."""
    sriov = SriovHost(host, commands, WRITE)
    wishes, bad = _sriov.wishes([{"address": address, "count": entry["count"]} for address, entry in sorted(entries.items())], "auto")
    wishes = [dataclasses.replace(wish, method=entries[wish.address]["method"]) for wish in wishes]

    def plan() -> t.Tuple[t.List[Change], t.List[Blocker]]:
        seen = sriov.observe(list(entries))
        plans = [_sriov.plan(seen.get(wish.address), wish, sriov.has_program) for wish in wishes]
        return [c for p in plans for c in p.changes], [b for p in plans for b in p.blockers]

    return lines(bad) + made(plan, sriov.apply)
