# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Writes that the kernel may answer late, or never: in a process of their own, with a limit on the time that we wait.

Unbinding a VFIO device that a process holds blocks in the kernel until the holder lets go, and a process that waits there cannot be
killed. So the write happens in a forked child, in a session of its own and with its streams on ``/dev/null``: past the limit the
parent says so and ends. (A child that kept our streams would keep the SSH connection of the task open until the kernel lets go.)
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import typing as t

#: Longest answer of a child: an error number, or nothing.
_ANSWER = 16


class NoAnswer(Exception):
    """The time was up. The kernel may still do what was asked."""


def write(path: str, text: str, timeout: float) -> None:
    """One ``write(2)`` of ``text`` to the file at ``path``. Raises OSError as the kernel answered, or NoAnswer after ``timeout`` seconds."""

    def do() -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        data = text.encode()
        if os.write(descriptor, data) != len(data):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    detached(do, timeout)


def detached(do: t.Callable[[], None], timeout: float) -> None:
    """Call ``do`` in a child that outlives us if it must. Raises the OSError that it raised, or NoAnswer after ``timeout`` seconds."""
    answer, tell = os.pipe()
    child = os.fork()
    if child == 0:
        _in_child(do, tell)
    os.close(tell)
    try:
        ready, _writable, _failed = select.select([answer], [], [], timeout)
        if not ready:
            raise NoAnswer(f"no answer from the kernel within {timeout:g} s")
        said = os.read(answer, _ANSWER)
    finally:
        os.close(answer)
    os.waitpid(child, 0)
    number = int(said) if said else errno.EIO  # a child that ended without a word was killed
    if number:
        raise OSError(number, os.strerror(number))


def _in_child(do: t.Callable[[], None], tell: int) -> t.NoReturn:
    number = errno.EIO
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        for name in os.listdir("/proc/self/fd"):
            if int(name) > 2 and int(name) != tell:
                with contextlib.suppress(OSError):  # the listing's own descriptor is closed already
                    os.close(int(name))
        do()
        number = 0
    except OSError as error:
        number = error.errno or errno.EIO
    finally:
        # Whatever happened: this process must never return into the program that it is a copy of.
        try:
            os.write(tell, str(number).encode())
        finally:
            os._exit(0)
