# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A host's files below a root directory: ``/`` on a node, any other directory in tests and in the lab.

:class:`Host` is the only thing in this collection that opens a file of a host. Paths are the host's own, absolute ones. A link is
followed inside the root: an absolute target starts at the root again, and one that climbs out of it is an error, so that a tree
never shows, and a write never hits, a file of the machine that the tree lies on.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile

_MAX_LINKS = 40
_MISSING = (errno.ENOENT, errno.ENOTDIR)


class HostError(Exception):
    """A file of the host that could not be read or written: ``path`` as the host names it, and why."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class Host:
    """The files of one host."""

    def __init__(self, root: str = "/") -> None:
        if not os.path.isabs(root):
            raise HostError(root, "the root of a host must be an absolute path")
        self.root = os.path.normpath(root)
        if not os.path.isdir(self.root):
            raise HostError(self.root, "the root of this host is no directory")

    @property
    def is_real(self) -> bool:
        """Is this the machine that runs us, and not a tree?"""
        return self.root == "/"

    def resolve(self, path: str, last: bool = True) -> str:
        """``path`` with its links resolved inside the root, as a path of the host; ``last`` says whether a link at its end is followed too.

        A part that does not exist ends the following of links: the rest is taken as it stands.
        """
        todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        done: list[str] = []
        links = 0
        while todo:
            part = todo.pop()
            if part == "..":
                if not done:
                    raise HostError(path, "leads out of the root of this host")
                done.pop()
                continue
            done.append(part)
            if not todo and not last:
                break
            try:
                target = os.readlink(self._at(done))
            except OSError:
                continue
            links += 1
            if links > _MAX_LINKS:
                raise HostError(path, "too many links")
            done = [] if target.startswith("/") else done[:-1]
            todo += [part for part in reversed(target.split("/")) if part not in ("", ".")]
        return "/" + "/".join(done)

    def _at(self, parts: list[str]) -> str:
        return "/".join([self.root.rstrip("/"), *parts])

    def _real(self, path: str, last: bool = True) -> str:
        return self.root.rstrip("/") + self.resolve(path, last) if not self.is_real else path

    def exists(self, path: str) -> bool:
        """Is there anything at ``path``? A link that points nowhere is nothing."""
        return os.path.lexists(self._real(path)) if not self.is_real else os.path.exists(path)

    def read_bytes(self, path: str) -> bytes | None:
        """The content, or None if there is no such file."""
        try:
            descriptor = os.open(self._real(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                return file.read()
        except OSError as error:
            if error.errno in _MISSING:
                return None
            raise HostError(path, error.strerror or str(error)) from error

    def read_text(self, path: str) -> str | None:
        """The content as text (bytes that are no UTF-8 are replaced), or None if there is no such file."""
        content = self.read_bytes(path)
        return None if content is None else content.decode("utf-8", "replace")

    def read_records(self, path: str, limit: int = 1 << 20) -> str | None:
        """What a device such as ``/dev/kmsg`` has to say now, without waiting for more; at most ``limit`` bytes, the newest ones."""
        try:
            descriptor = os.open(self._real(path), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in _MISSING:
                return None
            raise HostError(path, error.strerror or str(error)) from error
        content = b""
        try:
            while True:
                try:
                    piece = os.read(descriptor, 8192)
                except OSError as error:
                    if error.errno == errno.EPIPE:  # the kernel has overwritten the record meanwhile: go on with the next one
                        continue
                    break
                if not piece:
                    break
                content = (content + piece)[-limit:]
        finally:
            os.close(descriptor)
        return content.decode("utf-8", "replace")

    def names(self, path: str) -> list[str]:
        """The names in a directory, sorted; none if there is no such directory."""
        try:
            return sorted(os.listdir(self._real(path)))
        except OSError as error:
            if error.errno in _MISSING:
                return []
            raise HostError(path, error.strerror or str(error)) from error

    def link(self, path: str) -> str | None:
        """What the link at ``path`` says, as it says it; None if there is no link there."""
        try:
            return os.readlink(self._real(path, last=False))
        except OSError as error:
            if error.errno in (*_MISSING, errno.EINVAL):
                return None
            raise HostError(path, error.strerror or str(error)) from error

    def write_text(self, path: str, text: str, mode: int | None = None) -> None:
        """Write a whole file at once: readers see the old one or the new one, never half of one.

        An existing file keeps its mode, owner and SELinux context unless ``mode`` says otherwise; a new one gets ``mode`` or 0644.
        A missing directory is made. A link is written through.
        """
        self._refuse_kernel_file(path)
        real = self._real(path)
        real = os.path.realpath(real) if self.is_real else real
        try:
            os.makedirs(os.path.dirname(real), mode=0o755, exist_ok=True)
            before = os.stat(real) if os.path.exists(real) else None
            descriptor, beside = tempfile.mkstemp(dir=os.path.dirname(real), prefix=f".{os.path.basename(real)}.")
            try:
                with open(descriptor, "w", encoding="utf-8", newline="") as file:
                    file.write(text)
                    file.flush()
                    os.fchmod(file.fileno(), mode if mode is not None else (stat.S_IMODE(before.st_mode) if before else 0o644))
                    if before and (before.st_uid, before.st_gid) != (os.geteuid(), os.getegid()):
                        os.fchown(file.fileno(), before.st_uid, before.st_gid)
                    if before:
                        _copy_context(real, file.fileno())
                    os.fsync(file.fileno())
                os.replace(beside, real)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(beside)
                raise
            _sync_directory(os.path.dirname(real))
        except OSError as error:
            raise HostError(path, error.strerror or str(error)) from error

    def remove(self, path: str) -> None:
        """Remove a file; nothing happens if there is none."""
        self._refuse_kernel_file(path)
        try:
            os.unlink(self._real(path, last=False))
        except OSError as error:
            if error.errno not in _MISSING:
                raise HostError(path, error.strerror or str(error)) from error

    def _refuse_kernel_file(self, path: str) -> None:
        if self.resolve(path).startswith(("/sys/", "/proc/", "/dev/")):
            raise HostError(path, "is a file of the kernel and is not written like a file on disk")


def _copy_context(source: str, descriptor: int) -> None:
    # Not every file system knows the attribute, and not every system has it set.
    with contextlib.suppress(OSError, AttributeError):
        os.setxattr(descriptor, "security.selinux", os.getxattr(source, "security.selinux"))


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
