# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reads and writes that the kernel may answer late, or never: in a process of their own, with a limit on the time that we wait.

Unbinding a VFIO device that a process holds blocks in the kernel until the holder lets go, and a process that waits there cannot be
killed. So the write happens in a forked child, in a session of its own and with its streams on ``/dev/null``: past the limit the
parent says so and ends. (A child that kept our streams would keep the SSH connection of the task open until the kernel lets go.)
Meanwhile the kernel holds the device's lock, and a mere look at ``driver_override`` blocks in the same way: see :class:`Reader`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import struct
import typing as t
import weakref

#: Longest answer of a child: an error number, or nothing.
_ANSWER = 16
#: Before what a :class:`Reader`'s child has read: an error number, and how many bytes follow.
_HEAD = struct.Struct("<iI")


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


class Reader:
    """Reads files in a child, one after the other, and gives the child up when the kernel does not answer it in time.

    One child serves all reads until it is stuck, so that a read costs no fork.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._pipes: t.Optional[t.Tuple[int, int]] = None  #: where we ask, where the answers come
        self._end: t.Optional[weakref.finalize[t.Any, Reader]] = None

    def read(self, path: str) -> bytes:
        """The content of a small file. Raises OSError as the kernel answered, or NoAnswer."""
        ask, answers = self._pipes or self._start()
        os.write(ask, os.fsencode(path) + b"\n")
        ready, _writable, _failed = select.select([answers], [], [], self._timeout)
        if not ready:
            self._give_up()
            raise NoAnswer(f"no answer from the kernel within {self._timeout:g} s")
        number, length = _HEAD.unpack(_exactly(answers, _HEAD.size))
        content = _exactly(answers, length)
        if number:
            raise OSError(number, os.strerror(number))
        return content

    def _start(self) -> t.Tuple[int, int]:
        asked, ask = os.pipe()
        answers, answer = os.pipe()
        child = os.fork()
        if child == 0:
            _serve(asked, answer)
        os.close(asked)
        os.close(answer)
        self._pipes = (ask, answers)
        self._end = weakref.finalize(self, _dismiss, child, ask, answers)
        return self._pipes

    def _give_up(self) -> None:
        """Leave the child alone: it ends by itself when the kernel lets it, and finds its pipes closed."""
        for descriptor in self._pipes or ():
            os.close(descriptor)
        self._pipes = None
        if self._end is not None:
            self._end.detach()


def _dismiss(child: int, ask: int, answers: int) -> None:
    os.close(ask)
    os.close(answers)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(child, 0)  # it is waiting for a question, and ends when there can be none any more


def _exactly(descriptor: int, length: int) -> bytes:
    content = b""
    while len(content) < length:
        piece = os.read(descriptor, length - len(content))
        if not piece:
            raise OSError(errno.EIO, "the process that reads has ended")
        content += piece
    return content


def _serve(asked: int, answer: int) -> t.NoReturn:
    try:
        _leave(asked, answer)
        with open(asked, "rb", buffering=0) as questions:
            pending = b""
            while True:
                piece = questions.read(4096)
                if not piece:
                    break
                pending += piece
                *paths, pending = pending.split(b"\n")
                for path in paths:
                    os.write(answer, _answer(path))
    finally:
        os._exit(0)


def _answer(path: bytes) -> bytes:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            content = file.read()
    except OSError as error:
        return _HEAD.pack(error.errno or errno.EIO, 0)
    return _HEAD.pack(0, len(content)) + content


def _leave(*keep: int) -> None:
    """In a child: a session of our own, no stream and no open file of the parent's."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and int(name) not in keep:
            with contextlib.suppress(OSError):  # the listing's own descriptor is closed already
                os.close(int(name))


def _in_child(do: t.Callable[[], None], tell: int) -> t.NoReturn:
    number = errno.EIO
    try:
        _leave(tell)
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
