# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host's files below a root directory: ``/`` on a node, any other directory in tests and in the lab.

:class:`Host` is the only way to a file of a host (what few modules ask of files is in :mod:`_disk`). Paths are the host's own, absolute ones.
A link is followed inside the root: an absolute target starts at the root again, and one that climbs out of it is an error, so that a tree
never shows, and a write never hits, a file of the machine that the tree lies on.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
import typing as t

from . import _kernel

_MAX_LINKS = 40
MISSING = (errno.ENOENT, errno.ENOTDIR)


class HostError(Exception):
    """A file of the host that could not be read or written: ``path`` as the host names it, and why."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class KernelError(HostError):
    """The kernel refused a write: ``errno`` is what it answered, such as EBUSY or ENOSPC."""

    def __init__(self, path: str, number: int) -> None:
        super().__init__(path, os.strerror(number))
        self.errno = number


class KernelTimeout(HostError):
    """The kernel has not answered in time, and may still do what was asked."""


#: Files of a device that the kernel shows only while nothing else has the device's lock. An unbind has it, and one that waits for a holder
#: keeps it for as long: whoever reads one of these then waits too, and cannot be killed (drivers/pci/pci-sysfs.c, drivers/base/core.c).
_BEHIND_LOCK = frozenset(("driver_override", "reset_method", "sriov_numvfs", "uevent"))
#: Seconds to wait for one of them.
_PATIENCE = 2.0

#: What may stand where a file of a host is expected, and is none.
_KINDS = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISSOCK, "a socket"),
)


class Host:
    """The files of one host."""

    def __init__(self, root: str = "/") -> None:
        if not os.path.isabs(root):
            raise HostError(root, "the root of a host must be an absolute path")
        self.root = os.path.normpath(root)
        if not os.path.isdir(self.root):
            raise HostError(self.root, "the root of this host is no directory")
        self._reader: t.Optional[_kernel.Reader] = None
        self._silent: t.Set[str] = set()  #: directories of devices that have not answered
        self._sysfs: t.Optional[t.Set[int]] = None

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

    def real(self, path: str, last: bool = True) -> str:
        """Where ``path`` lies on the machine that runs us."""
        return self.root.rstrip("/") + self.resolve(path, last) if not self.is_real else path

    def exists(self, path: str) -> bool:
        """Is there anything at ``path``? A link that points nowhere is nothing."""
        return os.path.lexists(self.real(path)) if not self.is_real else os.path.exists(path)

    def read_bytes(self, path: str) -> bytes | None:
        """The content, or None if there is no such file."""
        try:
            real = self.real(path)
            found = os.stat(real)
            refuse_no_file(path, found)  # before it is opened: opening a FIFO or a device can already do something
            if os.path.basename(path) in _BEHIND_LOCK and self._is_sysfs(found.st_dev):
                return self._read_patiently(path, os.path.realpath(real))
            descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                return file.read()
        except OSError as error:
            if error.errno in MISSING:
                return None
            raise HostError(path, error.strerror or str(error)) from error

    def _is_sysfs(self, device: int) -> bool:
        if self._sysfs is None:
            self._sysfs = _sysfs_devices()
        return device in self._sysfs

    def _read_patiently(self, path: str, real: str) -> bytes:
        """Read what the kernel may not show now. A device that has not answered once is not asked again."""
        if self._reader is None:
            self._reader = _kernel.Reader(_PATIENCE)
        directory = os.path.dirname(real)
        try:
            if directory in self._silent:
                raise _kernel.NoAnswer("no answer from the kernel")
            return self._reader.read(real)
        except _kernel.NoAnswer as error:
            self._silent.add(directory)
            raise KernelTimeout(path, f"{error}: it still does something else to this device, such as an unbind that waits") from error

    def is_silent(self, directory: str) -> bool:
        """Has the device of this directory of sysfs not answered when it was read? The kernel is at something else with it then."""
        return bool(self._silent) and os.path.realpath(self.real(directory)) in self._silent

    def read_text(self, path: str) -> str | None:
        """The content as text (bytes that are no UTF-8 are replaced), or None if there is no such file."""
        content = self.read_bytes(path)
        return None if content is None else content.decode("utf-8", "replace")

    def quiet(self, path: str) -> str | None:
        """The stripped text of a file that many hosts lack, or cannot read: None then."""
        try:
            content = self.read_text(path)
        except HostError:
            return None
        return None if content is None else content.strip()

    def os_release(self) -> t.Dict[str, str]:
        """``/etc/os-release`` as a mapping, quotes removed."""
        lines = (self.read_text("/etc/os-release") or "").splitlines()
        pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
        return {key.strip(): value.strip().strip("\"'") for key, _equals, value in pairs}

    def processes(self) -> t.List[int]:
        """The numbers of the processes that ``/proc`` shows."""
        return sorted(int(name) for name in self.names("/proc") if name.isdigit())

    def names(self, path: str) -> list[str]:
        """The names in a directory, sorted; none if there is no such directory."""
        try:
            return sorted(os.listdir(self.real(path)))
        except OSError as error:
            if error.errno in MISSING:
                return []
            raise HostError(path, error.strerror or str(error)) from error

    def link(self, path: str) -> str | None:
        """What the link at ``path`` says, as it says it; None if there is no link there."""
        try:
            return os.readlink(self.real(path, last=False))
        except OSError as error:
            if error.errno in (*MISSING, errno.EINVAL):
                return None
            raise HostError(path, error.strerror or str(error)) from error

    def write_text(self, path: str, text: str, mode: int | None = None) -> None:
        """Write a whole file at once: readers see the old one or the new one, never half of one.

        An existing file keeps its mode, owner and SELinux context unless ``mode`` says otherwise; a new one gets ``mode`` or 0644.
        A missing directory is made. A link is written through.
        """
        self.refuse_kernel_file(path)
        real = self.real(path)
        real = os.path.realpath(real) if self.is_real else real
        try:
            os.makedirs(os.path.dirname(real), mode=0o755, exist_ok=True)
            before = os.stat(real) if os.path.exists(real) else None
            if before is not None:
                refuse_no_file(path, before)
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
            sync_directory(os.path.dirname(real))
        except OSError as error:
            raise HostError(path, error.strerror or str(error)) from error

    def make_link(self, path: str, target: str) -> None:
        """A symbolic link at ``path`` that says ``target``, in the place of what is there; a missing directory is made."""
        self.refuse_kernel_file(path)
        real = self.real(path, last=False)
        beside = f"{os.path.dirname(real)}/.{os.path.basename(real)}.{os.getpid()}"
        try:
            os.makedirs(os.path.dirname(real), mode=0o755, exist_ok=True)
            os.symlink(target, beside)
            os.replace(beside, real)
            sync_directory(os.path.dirname(real))
        except OSError as error:
            raise HostError(path, error.strerror or str(error)) from error

    def remove_directory(self, path: str) -> None:
        """Remove a directory if it is empty; nothing happens otherwise."""
        self.refuse_kernel_file(path)
        with contextlib.suppress(OSError):
            os.rmdir(self.real(path, last=False))

    def remove(self, path: str) -> None:
        """Remove a file; nothing happens if there is none."""
        self.refuse_kernel_file(path)
        try:
            os.unlink(self.real(path, last=False))
        except OSError as error:
            if error.errno not in MISSING:
                raise HostError(path, error.strerror or str(error)) from error

    def write_kernel(self, path: str, text: str, timeout: float = 30) -> None:
        """Write to a file below ``/sys``, waiting at most ``timeout`` seconds for the kernel's answer.

        Raises KernelError with the kernel's answer, or KernelTimeout. A directory that only looks like sysfs is refused: nothing
        would react to what is written there.
        """
        resolved = self.resolve(path)
        real = self.root.rstrip("/") + resolved
        try:
            if not resolved.startswith("/sys/") or os.stat(real).st_dev not in _sysfs_devices():
                raise HostError(path, "is no file of a running kernel's sysfs")
            _kernel.write(real, text, timeout)
        except _kernel.NoAnswer as error:
            raise KernelTimeout(path, f"{error}; it may still do what was asked") from error
        except OSError as error:
            raise KernelError(path, error.errno or errno.EIO) from error

    def device_number(self, path: str) -> str | None:
        """``major:minor`` of the device that ``path`` is, or None if it is none (or is not there)."""
        try:
            found = os.stat(self.real(path))
        except OSError:
            return None
        if not (stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)):
            return None
        return f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"

    def open_devices(self, pid: int) -> t.List[t.Tuple[str, str | None]]:
        """What a process has open below a ``/dev``, or as a VFIO device without a name: ``[(name, major:minor)]``.

        The name is the one in the process's own view. In a tree, whose links lead to no device, there is no number.
        Raises HostError where its descriptors cannot be seen.
        """
        directory = f"/proc/{pid}/fd"
        found = []
        for number in self.names(directory):
            name = self.link(f"{directory}/{number}") or ""
            if "/dev/" in name:  # nothing else is asked: a file on a server that is gone would make us wait
                found.append((name, self._open_number(f"{directory}/{number}")))
            elif name == "anon_inode:[vfio-device]":
                found.append((name, None))
        return found

    def _open_number(self, descriptor: str) -> str | None:
        # The link of a descriptor is followed by the kernel, not by its text: the process may live in another mount namespace.
        try:
            found = os.stat(self.real(descriptor, last=False))
        except OSError:
            return None
        if not (stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)):
            return None
        return f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"

    def refuse_kernel_file(self, path: str) -> None:
        if self.resolve(path).startswith(("/sys/", "/proc/", "/dev/")):
            raise HostError(path, "is a file of the kernel and is not written like a file on disk")


def refuse_no_file(path: str, found: os.stat_result) -> None:
    for is_kind, name in _KINDS:
        if is_kind(found.st_mode):
            raise HostError(path, f"is {name}, where a file is expected")


def _sysfs_devices() -> t.Set[int]:
    """The device numbers of all mounted sysfs, from our own list of mounts (proc_pid_mountinfo(5))."""
    devices = set()
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        for line in mounts:
            mount, _dash, source = line.partition(" - ")
            if source.startswith("sysfs "):
                major, _colon, minor = mount.split()[2].partition(":")
                devices.add(os.makedev(int(major), int(minor)))
    return devices


def _copy_context(source: str, descriptor: int) -> None:
    # Not every file system knows the attribute, and not every system has it set.
    with contextlib.suppress(OSError, AttributeError):
        os.setxattr(descriptor, "security.selinux", os.getxattr(source, "security.selinux"))


def sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
