# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Guests for the tests: one per state, started when a test first asks for it, and put back before each test."""

from __future__ import annotations

import sys
import typing as t
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import pytest

from tests.kernel.guest import Guest
from tests.kernel.session import session
from tests.kernel.states import SNAPSHOT, Lab


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "smoke: the part of the suite that belongs to `make test`")


@pytest.fixture(scope="session")
def lab() -> t.Iterator[Lab]:
    with session() as lab:
        found = lab.versions
        print(
            f"\nlane: guest kernel {found.release} ({found.kernel}), QEMU {found.qemu}, emulated; not run: a real GPU, NVIDIA's driver, KVM"
        )
        yield lab


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
