# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the suite keeps what, what makes a cached thing stale, and how a build is whole or not there at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
import typing as t
from pathlib import Path

from tests.tools import env

HERE = Path(__file__).resolve().parent
#: What nobody has used for so long is removed when something is built, in seconds.
UNUSED = 14 * 86400


class KernelLabError(Exception):
    """Something a person has to read: what was being done, on what, what was found, what to do."""


def key(*parts: str | Path) -> str:
    """A hash of texts, files and directories of files."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            digest.update(part.encode() + b"\0")
            continue
        files = [part] if part.is_file() else sorted(path for path in part.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        for path in files:
            digest.update(f"{path.relative_to(part.parent)} {os.access(path, os.X_OK)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def place(name: str, digest: str) -> Path:
    return env.cache() / f"kernel-{name}-{digest}"


def is_made(name: str, digest: str) -> bool:
    return place(name, digest).is_dir()


def made(name: str, digest: str, make: t.Callable[[Path], None], doing: str) -> Path:
    """The directory ``name-digest`` of the cache, made by ``make(directory)`` if it is not there."""
    directory = place(name, digest)
    if not directory.exists():
        with env.alone(directory):
            if not directory.exists():
                env.say(doing)
                began = time.monotonic()
                # Anybody on this machine may walk through: the builder's child runs with other rights than we do.
                with tempfile.TemporaryDirectory(dir=env.cache(), prefix="new-kernel-") as scratch:
                    Path(scratch).chmod(0o755)
                    (Path(scratch) / "whole").mkdir()
                    make(Path(scratch) / "whole")
                    (Path(scratch) / "whole").rename(directory)
                env.say(f"{doing}: done after {time.monotonic() - began:.0f} s")
                _forget(name, directory)
    with contextlib.suppress(OSError):
        os.utime(directory)
    return directory


def _forget(name: str, but: Path) -> None:
    """Remove what this suite made of other inputs and nobody has used for long."""
    for other in env.cache().glob(f"kernel-{name}-*"):
        if other.is_dir() and other != but and time.time() - other.stat().st_mtime > UNUSED:
            shutil.rmtree(other, ignore_errors=True)
            Path(f"{other}.lock").unlink(missing_ok=True)
