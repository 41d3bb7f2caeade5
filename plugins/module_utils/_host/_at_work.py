# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a package manager, or a generator of boot files, is at work on a host: what it makes and what we make must not mix."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import Blocker
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _readings
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host, HostError

#: Files whose lock a package manager holds while it works: dpkg's and rpm's (the second is where rpm keeps its data since Fedora 36).
LOCKS = ("/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/rpm/.rpm.lock", "/usr/lib/sysimage/rpm/.rpm.lock")
#: Names of processes, cut at 15 characters as the kernel does, for which no lock tells. unattended-upgrades waits all day under its name.
PROCESSES = (
    "dpkg",
    "dnf",
    "dnf5",
    "yum",
    "rpm",
    "zypper",
    "update-initramf",
    "mkinitramfs",
    "dracut",
    "update-grub",
    "grub-mkconfig",
    "grubby",
    "kernel-install",
    "dkms",
)


def at_work(host: Host) -> t.List[Blocker]:
    """A Blocker for each lock that is held and each process that is at work."""
    found = []
    for path in LOCKS:
        try:
            if host.is_locked(path):
                found.append(Blocker(f"file {path}", "a package manager is at work", "Wait until it has ended, and run again"))
        except HostError as error:
            found.append(Blocker(f"file {path}", f"it cannot be told whether a package manager is at work: {error.reason}", "Become root"))
    for pid in _readings.processes(host):
        name = _readings.quiet(host, f"/proc/{pid}/comm")
        if name in PROCESSES:
            found.append(Blocker(f"process {pid}", f"{name} is at work", "Wait until it has ended, and run again"))
    return found
