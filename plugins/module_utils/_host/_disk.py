# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What only those ask of a host's files who make images and boot entries: room, sizes, times, and copies of whole files."""

from __future__ import annotations

import contextlib
import os
import shutil

from ._sysfs import MISSING, Host, HostError, sync_directory


def modified(host: Host, path: str) -> float | None:
    """When the file at ``path`` was last written, in seconds since 1970; None if there is no such file."""
    found = _stat(host, path)
    return None if found is None else found.st_mtime


def size(host: Host, path: str) -> int | None:
    """How many bytes the file at ``path`` has; None if there is no such file."""
    found = _stat(host, path)
    return None if found is None else found.st_size


def _stat(host: Host, path: str) -> os.stat_result | None:
    try:
        return os.stat(host.real(path))
    except OSError as error:
        if error.errno in MISSING:
            return None
        raise HostError(path, error.strerror or str(error)) from error


def free(host: Host, directory: str) -> int:
    """How many bytes can still be written below ``directory``."""
    space = _file_system(host, directory)
    return space.f_bavail * space.f_frsize


def is_read_only(host: Host, directory: str) -> bool:
    """Is the file system of a directory mounted so that nothing can be written?"""
    return bool(_file_system(host, directory).f_flag & os.ST_RDONLY)


def _file_system(host: Host, directory: str) -> os.statvfs_result:
    try:
        return os.statvfs(host.real(directory))
    except OSError as error:
        raise HostError(directory, error.strerror or str(error)) from error


def copy(host: Host, source: str, target: str) -> None:
    """Copy a file, with its mode and times: ``target`` is whole or not there."""
    host.refuse_kernel_file(target)
    real = host.real(target)
    beside = f"{real}.part"
    try:
        shutil.copy2(host.real(source), beside)
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(beside, real)
        sync_directory(os.path.dirname(real))
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise HostError(target, error.strerror or str(error)) from error
