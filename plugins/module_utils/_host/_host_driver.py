# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Removing an NVIDIA driver that the host itself has installed, through its package manager and nothing else.

What NVIDIA's installer (a ``.run`` file) has put there only that installer can take away.
"""

from __future__ import annotations

import typing as t

from .._change import Blocker, Change, Plan
from . import _driver_seen, _holders, _initramfs
from ._commands import Commands
from ._driver_seen import Seen
from ._sysfs import Host, HostError

REMOVE_SECONDS = 1200
STOP_SECONDS = 90
#: Daemons of the driver that hold its devices as long as they run: name of the process, cut at 15 characters, and unit.
DAEMONS = {
    "nvidia-persiste": "nvidia-persistenced.service",
    "nv-fabricmanage": "nvidia-fabricmanager.service",
    "nvidia-powerd": "nvidia-powerd.service",
    "nvidia-vgpud": "nvidia-vgpud.service",
    "nvidia-vgpu-mgr": "nvidia-vgpu-mgr.service",
}


def foreign(holders: t.Iterable[_holders.Holder]) -> t.List[_holders.Holder]:
    """The holders that are no daemons of the driver itself."""
    return [holder for holder in holders if holder.comm not in DAEMONS]


def units(seen: Seen) -> t.List[str]:
    """The units of the driver's daemons that hold its devices."""
    return sorted({DAEMONS[holder.comm] for holder in seen.holders or () if holder.comm in DAEMONS})


def make_plan(seen: Seen, owner: str, can_run: bool) -> Plan:
    """What to remove. Without ``can_run``, only files are: the rest is left to whoever can run the package manager."""
    plan = Plan()
    if not seen.present:
        if seen.unread is not None and seen.running is not None:
            plan.blockers.append(_undecided(seen.unread))
        return plan
    plan.blockers += _refusals(seen, owner)
    if can_run:
        if not seen.packages and seen.traces:
            plan.blockers.append(
                Blocker(
                    "host driver",
                    f"no package owns it ({', '.join(seen.traces)}), so NVIDIA's installer has put it there",
                    "Run nvidia-uninstall (or the .run file with --uninstall) yourself, and run this again",
                )
                if seen.unread is None
                else _undecided(seen.unread)
            )
        plan.changes += [Change(f"unit {unit}", "stop", "running", None, "it holds the driver's devices") for unit in units(seen)]
        verb = "purge" if seen.manager == _driver_seen.APT else "remove"
        plan.changes += [
            Change(f"package {package.name}", verb, f"{package.version} {package.arch}".strip(), None, "it is part of an NVIDIA driver")
            for package in seen.packages
        ]
        if not any("dkms" in package.name for package in seen.packages):
            plan.changes += [Change(f"dkms {name}", "remove", None, None, "no package removes it") for name in seen.dkms]
    plan.changes += [
        Change(f"file {path}", "remove", None, None, "it sets modules of the driver, and no package owns it") for path in seen.settings
    ]
    if can_run:
        plan.changes += [Change(f"image {image.path}", "rebuild", None, None, "the driver is in it") for image in seen.images]
    return plan


def _undecided(why: str) -> Blocker:
    return Blocker("host driver", f"which packages it is made of is not known: {why}", "Remove it yourself, and run this again")


def _refusals(seen: Seen, owner: str) -> t.List[Blocker]:
    found = []
    if seen.has_manager and owner == "host":
        problem = "it is a vGPU manager, and this host makes its own vGPUs with it (gpufleet_device_owner: host)"
        found.append(Blocker("host driver", problem, "Leave it, or give the devices to the operator first"))
    if seen.holders is None:
        found.append(Blocker("GPUs", f"who holds them is not known: {seen.unseen}", "Run this as root in the host's own process namespace"))
    found += [
        Blocker(f"process {holder.pid}", f"{holder} has {holder.device} open", "End it (a pod: drain the node) and run again")
        for holder in foreign(seen.holders or ())
    ]
    if seen.refusal is not None:
        found.append(Blocker("packages", seen.refusal, "Mend that, or remove the packages yourself"))
    if seen.side_effects:
        problem = f"removing the driver would also {', '.join(seen.side_effects)}"
        found.append(Blocker("packages", problem, "Remove what depends on the driver yourself, if you do not need it, and run again"))
    return found + list(seen.obstacles)


def apply(host: Host, commands: Commands, seen: Seen, changes: t.Sequence[Change]) -> t.List[Blocker]:
    """Stop the daemons, look once more who holds a GPU, keep the images, remove, and build the images anew. The first failure ends it."""
    by_kind: t.Dict[str, t.List[Change]] = {}
    for change in changes:
        by_kind.setdefault(change.target.partition(" ")[0], []).append(change)
    try:
        for change in by_kind.get("unit", []):
            failed = _run(commands, change.target, ["/usr/bin/systemctl", "stop", change.target.partition(" ")[2]], STOP_SECONDS)
            if failed:
                return [failed]
        if by_kind.get("package") or by_kind.get("dkms"):
            late = _held_now(host)
            if late:
                return late
        for image in seen.images:
            _initramfs.keep(host, image)
        if by_kind.get("package") and seen.manager is not None:
            failed = _run(commands, "packages", _driver_seen.removal(seen.manager, seen.packages), REMOVE_SECONDS)
            if failed:
                return [failed]
        for change in by_kind.get("dkms", []):
            name, _slash, version = change.target.partition(" ")[2].partition("/")
            failed = _run(commands, change.target, ["/usr/sbin/dkms", "remove", "-m", name, "-v", version, "--all"], REMOVE_SECONDS)
            if failed:
                return [failed]
        for change in by_kind.get("file", []):
            host.remove(change.target.partition(" ")[2])
    except HostError as error:
        return [Blocker(f"file {error.path}", error.reason, "Mend that and run again before you reboot")]
    return _rebuilt(host, commands)


def _held_now(host: Host) -> t.List[Blocker]:
    holders, unknown = _driver_seen.holding(host)
    if holders is None:
        return [Blocker("GPUs", f"who holds them is not known: {unknown}", "Run this as root in the host's own process namespace")]
    return [
        Blocker(f"process {holder.pid}", f"{holder} has {holder.device} open", "End it and run again; no package was removed")
        for holder in holders
    ]


def _rebuilt(host: Host, commands: Commands) -> t.List[Blocker]:
    """Build the images that still hold the driver: those of Debian's packages have been built by the package manager already."""
    return [
        found
        for image in _initramfs.images(host, commands, look=True)
        if (image.modules or frozenset()) & _driver_seen.MODULES
        for found in [_initramfs.rebuild(host, commands, image)]
        if found
    ]


def _run(commands: Commands, target: str, command: t.Sequence[str], seconds: int) -> t.Optional[Blocker]:
    problem = commands.run(command, seconds).problem(" ".join(command[:2]), seconds)
    return Blocker(target, problem, "Mend that and run again before you reboot") if problem else None


def left(seen: Seen) -> t.List[Blocker]:
    """What is still there after the removal."""
    found = [Blocker(f"package {package.name}", "it is still there", "Look at the package manager's log") for package in seen.packages]
    found += [Blocker(f"dkms {name}", "it is still there", f"Run: dkms remove {name} --all") for name in seen.dkms]
    found += [Blocker(f"file {path}", "it is still there", "Look for another writer of it") for path in seen.settings]
    found += [
        Blocker(f"file {path}", "it is still there, and no package owned it", "Run nvidia-uninstall, or remove it yourself")
        for path in seen.traces
    ]
    return found + [
        Blocker(f"image {image.path}", "the driver is still in it", "Look at what your own configuration puts into it")
        for image in seen.images
    ]
