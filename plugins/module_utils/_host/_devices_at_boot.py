# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the unit runs at boot: the virtual functions first, then the vGPUs, again and again until all are there or the time is up.

It uses the same code as the modules. It only ever adds: nothing that exists is removed.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import Blocker, Change
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _mdev, _persist, _readings, _sriov, _vgpu_plan, _vgpu_wish
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._commands import Commands
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sriov_host import SriovHost
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host, HostError
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._vgpu_host import VgpuHost

_PAUSE = 2.0
_WRITE = 60.0  # seconds per kernel write: at boot drivers are slower than later

Missing = t.List[str]


def main(arguments: t.Sequence[str]) -> int:
    """Make all devices of the list; 0 if they are there, else 1, with what is missing on standard error."""
    parser = argparse.ArgumentParser(description="Make the virtual functions and vGPUs that this host shall have from boot on")
    parser.add_argument("--root", default="/", help="directory that holds the host's files")
    parser.add_argument("--wait", type=float, default=_persist.WAIT, help="seconds to wait for drivers that start slowly")
    given = parser.parse_args(arguments)
    missing = until_there(Host(given.root), given.wait)
    for line in missing:
        sys.stderr.write(f"missing: {line}\n")
    return 1 if missing else 0


def until_there(host: Host, wait: float) -> Missing:
    """Try until nothing is missing, or ``wait`` seconds are over; what is missing then."""
    end = time.monotonic() + wait
    while True:
        try:
            missing = attempt(host)
        except HostError as error:
            missing = [str(error)]
        if not missing or time.monotonic() >= end:
            return missing
        time.sleep(min(_PAUSE, max(0.0, end - time.monotonic())))


def attempt(host: Host) -> Missing:
    """Make what is not there yet; what is still missing afterwards, one line each."""
    entries = _persist.read_entries(host)
    commands = Commands(host)
    moved = _moved(host, entries)
    missing = [f"function {address}: {problem}" for address, problem in sorted(moved.items())]
    missing += _virtual_functions(host, commands, {a: e for a, e in entries["sriov_vfs"].items() if a not in moved})
    return missing + _vgpus(host, commands, {a: e for a, e in entries["mdev_create"].items() if a not in moved})


def _moved(host: Host, entries: _persist.Entries) -> t.Dict[str, str]:
    """Addresses where nothing is, or something else than what was persisted, with what is there: addresses move when hardware changes."""
    found = {}
    for address, entry in {**entries["sriov_vfs"], **entries["mdev_create"]}.items():
        path = f"/sys/bus/pci/devices/{address}"
        now = ":".join((_readings.quiet(host, f"{path}/{part}") or "").removeprefix("0x").upper() for part in ("vendor", "device"))
        if now != entry.get("id"):
            found[address] = f"it is {now if now != ':' else 'not there'}, and was {entry.get('id')} when this was persisted"
    return found


def _virtual_functions(host: Host, commands: Commands, entries: t.Mapping[str, _persist.Entry]) -> Missing:
    if not entries:
        return []
    sriov = SriovHost(host, commands, _WRITE)
    wishes, bad = _sriov.wishes([{"address": address, "count": entry["count"]} for address, entry in sorted(entries.items())], "auto")
    wishes = [dataclasses.replace(wish, method=entries[wish.address]["method"]) for wish in wishes]

    def plan() -> t.Tuple[t.List[Change], t.List[Blocker]]:
        seen = sriov.observe(list(entries))
        plans = [_sriov.plan(seen.get(wish.address), wish, sriov.has_program) for wish in wishes]
        return [c for p in plans for c in p.changes], [b for p in plans for b in p.blockers]

    return _lines(bad) + _made(plan, sriov.apply)


def _vgpus(host: Host, commands: Commands, entries: t.Mapping[str, _persist.Entry]) -> Missing:
    if not entries:
        return []
    machine = (host.read_text("/etc/machine-id") or "").strip()
    rules = _vgpu_plan.Rules(waits=False, asks_driver=commands.can_run, space=_mdev.namespace(machine) if machine else None)
    found: Missing = []
    for backend in sorted({entry["backend"] for entry in entries.values()}):
        vgpus = VgpuHost(host, commands, _WRITE, backend)
        wishes = [wish_of(address, entry) for address, entry in sorted(entries.items()) if entry["backend"] == backend]

        def plan(vgpus: VgpuHost = vgpus, wishes: t.Sequence[_vgpu_wish.Wish] = tuple(wishes)) -> t.Tuple[t.List[Change], t.List[Blocker]]:
            asked = [wish.address for wish in wishes if wish.mixed_size != "unmanaged"]
            seen = vgpus.observe([wish.address for wish in wishes], asked)
            plans = [_vgpu_plan.plan(seen[wish.address], wish, rules) for wish in wishes if wish.address in seen]
            return [c for p in plans for c in p.changes], [b for p in plans for b in p.blockers]

        found += _made(plan, vgpus.apply)
    return found


def wish_of(address: str, entry: _persist.Entry) -> _vgpu_wish.Wish:
    """What an entry asks for. ``present``: at boot nothing is ever removed."""
    types = tuple(_vgpu_wish.TypeWish(w["type"], int(w["count"]), tuple(w.get("placement_ids") or ())) for w in entry["types"])
    return _vgpu_wish.Wish(address, types, "present", entry["mixed_size"])


def _made(
    plan: t.Callable[[], t.Tuple[t.List[Change], t.List[Blocker]]], apply: t.Callable[[t.Sequence[Change]], t.List[Blocker]]
) -> Missing:
    """Plan, apply, read back; what is missing after that."""
    changes, blockers = plan()
    if changes:
        failed = apply(changes)
        left, blockers = plan()
        told = {blocker.target for blocker in failed}
        blockers = failed + blockers + [Blocker(c.target, f"is still to be done: {c.action}", "") for c in left if c.target not in told]
    return _lines(blockers)


def _lines(blockers: t.Sequence[Blocker]) -> Missing:
    return [f"{blocker.target}: {blocker.problem}" for blocker in blockers]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
