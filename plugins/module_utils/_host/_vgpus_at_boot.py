# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The vGPUs that a host shall have from boot on: the program that makes them."""

from __future__ import annotations

import typing as t

from .._change import Blocker, Change
from . import _at_boot, _vgpu_backends, _vgpu_plan, _vgpu_wish
from ._at_boot import WRITE, Missing, made
from ._commands import Commands
from ._persist import Entry
from ._sysfs import Host
from ._vgpu_host import VgpuHost

KIND = "mdev_create"


def main(arguments: t.Sequence[str]) -> int:
    return _at_boot.main(arguments, KIND, make)


def make(host: Host, commands: Commands, entries: t.Mapping[str, Entry]) -> Missing:
    """Make the vGPUs of these entries, by the address of the GPU; what is missing then."""
    space = _vgpu_backends.namespace(host.quiet(_vgpu_backends.MACHINE_ID))
    rules = _vgpu_plan.Rules(waits=False, asks_driver=commands.can_run, space=space)
    found: Missing = []
    for backend in sorted({entry["backend"] for entry in entries.values()}):
        vgpus = VgpuHost(host, commands, WRITE, backend)
        wishes = [wish_of(address, entry) for address, entry in sorted(entries.items()) if entry["backend"] == backend]

        def plan(vgpus: VgpuHost = vgpus, wishes: t.Sequence[_vgpu_wish.Wish] = tuple(wishes)) -> t.Tuple[t.List[Change], t.List[Blocker]]:
            asked = [wish.address for wish in wishes if wish.mixed_size != "unmanaged"]
            seen = vgpus.observe([wish.address for wish in wishes], asked)
            plans = [_vgpu_plan.plan(seen[wish.address], wish, rules) for wish in wishes if wish.address in seen]
            return [c for p in plans for c in p.changes], [b for p in plans for b in p.blockers]

        found += made(plan, vgpus.apply)
    return found


def wish_of(address: str, entry: Entry) -> _vgpu_wish.Wish:
    """What an entry asks for. ``present``: at boot nothing is ever removed."""
    types = tuple(_vgpu_wish.TypeWish(w["type"], int(w["count"]), tuple(w.get("placement_ids") or ())) for w in entry["types"])
    return _vgpu_wish.Wish(address, types, "present", entry["mixed_size"])
