# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Giving the running kernel a driver: one modprobe, time-limited like every other thing that a kernel may not answer."""

from __future__ import annotations

import errno
import subprocess

from . import _kernel
from ._sysfs import Host, HostError


def load(host: Host, modprobe: str, driver: str, timeout: float) -> None:
    """Load the module of a driver with this ``modprobe``. Raises HostError with the reason if the kernel does not have the driver then."""

    def run() -> None:
        # In a child of our own, where run_command would wait for ever.
        if subprocess.run([modprobe, "--", driver], check=False).returncode:  # pylint: disable=ansible-bad-function
            raise OSError(errno.ENOEXEC, "")

    try:
        _kernel.detached(run, timeout)
    except _kernel.NoAnswer as error:
        raise HostError(modprobe, f"{error}; it may still load {driver}") from error
    except OSError as error:
        raise HostError(modprobe, f"could not load {driver}: {_why(host)}") from error


def _why(host: Host) -> str:
    if "[none]" not in (host.quiet("/sys/kernel/security/lockdown") or "[none]"):
        return "the kernel is locked down and takes only signed modules; the kernel log says which it refused"
    return "the kernel log says why"
