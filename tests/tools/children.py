# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Processes that tests start, and that are not left behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """For ``preexec_fn``: the kernel ends the program when the process that started it ends, however that happens (prctl(2))."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def wait_for_a_group() -> tuple[int, int]:
    """Wait until a child that leads a process group ends, and end the rest of its group. Its process id and its exit code (as in subprocess)."""
    leader = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
    assert leader is not None
    # As long as it is not reaped its number is nobody else's.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader.si_pid, signal.SIGKILL)
    _pid, status = os.waitpid(leader.si_pid, 0)
    return leader.si_pid, os.waitstatus_to_exitcode(status)


def alive(pid: int) -> bool:
    """Does it run? One that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
