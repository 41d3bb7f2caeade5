# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Guests for the tests: one per state, started when a test first asks for it, and put back before each test."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import sys
import tempfile
import time
import typing as t
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import pytest

from tests.kernel.guest import Guest
from tests.kernel.states import SNAPSHOT, Lab


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "smoke: the part of the suite that belongs to `make test`")


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


@pytest.fixture(scope="session")
def lab() -> t.Iterator[Lab]:
    # A short name, because sockets' paths are short.
    directory = Path(tempfile.mkdtemp(prefix=PREFIX))
    remove_what_was_left(directory.parent)
    lock = open(directory / LOCK, "w", encoding="utf-8")  # noqa: SIM115  # held to the end of the session, or of its process
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        lab = Lab(directory)
        found = lab.versions
        print(
            f"\nlane: guest kernel {found.release} ({found.kernel}), QEMU {found.qemu}, emulated; not run: a real GPU, NVIDIA's driver, KVM"
        )
        yield lab
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        lock.close()


@pytest.fixture(scope="session")
def guests(lab: Lab) -> t.Iterator[t.Callable[[str], Guest]]:
    running: dict[str, Guest] = {}

    def restored(state: str) -> Guest:
        if state in running:
            running[state].load(SNAPSHOT)
        else:
            running[state] = lab.start(state)
        return running[state]

    try:
        yield restored
    finally:
        for guest in running.values():
            guest.stop()


@pytest.fixture
def nofw(guests: t.Callable[[str], Guest]) -> Guest:
    """A guest whose firmware describes no IOMMU."""
    return guests("nofw")


@pytest.fixture
def off(guests: t.Callable[[str], Guest]) -> Guest:
    """A guest whose kernel is told to leave the IOMMU off."""
    return guests("off")


@pytest.fixture
def on(guests: t.Callable[[str], Guest]) -> Guest:
    """A guest whose IOMMU is on."""
    return guests("on")


@pytest.fixture
def amd(lab: Lab) -> t.Iterator[Guest]:
    """A freshly booted guest with an AMD IOMMU."""
    guest = lab.start_amd()
    try:
        yield guest
    finally:
        guest.stop()
