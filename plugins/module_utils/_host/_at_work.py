# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether a package manager, or a generator of boot files, is at work on a host: what it makes and what we make must not mix."""

from __future__ import annotations

import fcntl
import os
import struct
import typing as t

from .._change import Blocker
from ._sysfs import MISSING, Host, HostError, refuse_no_file

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


def is_locked(host: Host, path: str) -> bool:
    """Has a process locked the file at ``path`` for writing (fcntl)? No such file is not locked.

    The lock itself is not taken, not even for a moment: a package manager that starts in that moment would fail.
    """
    try:
        real = host.real(path)
        refuse_no_file(path, os.stat(real))
        descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in MISSING:
            return False
        raise HostError(path, error.strerror or str(error)) from error
    try:
        # struct flock of fcntl(2): type, whence, start, length, process. For a reader, only writers are in the way.
        asked = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
        kind: int = struct.unpack_from("h", fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))[0]
    except OSError as error:
        raise HostError(path, error.strerror or str(error)) from error
    finally:
        os.close(descriptor)
    return kind != fcntl.F_UNLCK


def at_work(host: Host) -> t.List[Blocker]:
    """A Blocker for each lock that is held and each process that is at work."""
    found = []
    for path in LOCKS:
        try:
            if is_locked(host, path):
                found.append(Blocker(f"file {path}", "a package manager is at work", "Wait until it has ended, and run again"))
        except HostError as error:
            found.append(Blocker(f"file {path}", f"it cannot be told whether a package manager is at work: {error.reason}", "Become root"))
    for pid in host.processes():
        name = host.quiet(f"/proc/{pid}/comm")
        if name in PROCESSES:
            found.append(Blocker(f"process {pid}", f"{name} is at work", "Wait until it has ended, and run again"))
    return found
