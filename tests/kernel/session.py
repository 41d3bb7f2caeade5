# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where one session's guests have their disks, for as long as it lives, and what sessions that were killed have left."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
import time
import typing as t
from pathlib import Path

from tests.kernel.states import Lab

PREFIX, LOCK = "gpufleet-kernel-", "lock"


def remove_what_was_left(directory: Path) -> None:
    """The guests' disks of sessions that were killed. One that lives holds its lock; one that has just begun may not have it yet."""
    for other in directory.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - other.stat().st_mtime < 60:
                continue
            with open(other / LOCK, "rb+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(other, ignore_errors=True)


@contextlib.contextmanager
def session() -> t.Iterator[Lab]:
    """What guests are started from. Their disks are gone in the end."""
    # A short name, because sockets' paths are short.
    directory = Path(tempfile.mkdtemp(prefix=PREFIX))
    remove_what_was_left(directory.parent)
    with open(directory / LOCK, "w", encoding="utf-8") as lock:  # held to the end of the session, or of its process
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield Lab(directory)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
