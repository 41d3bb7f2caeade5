# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import time
import typing as t
from pathlib import Path

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._firmware import _bios, _redfish
from tests.bmc import certificates
from tests.bmc.fake import PASSWORD, USER, Bmc
from tests.bmc.vendors import Machine

Json = dict[str, t.Any]


class MakeBmc(t.Protocol):
    def __call__(self, machine: Machine, certificate: str = "server", sessions: bool = True) -> Bmc: ...


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pki")
    certificates.make(directory)
    return directory


@pytest.fixture
def make_bmc(pki: Path) -> t.Iterator[MakeBmc]:
    """BMCs of this test's own."""
    made: list[Bmc] = []

    def make(machine: Machine, certificate: str = "server", sessions: bool = True) -> Bmc:
        made.append(Bmc(machine, pki, certificate, sessions))
        return made[-1]

    yield make
    for bmc in made:
        bmc.close()


@pytest.fixture
def params(pki: Path) -> t.Callable[..., Json]:
    """Module arguments that lead to a BMC."""

    def make(bmc: Bmc | str, **more: t.Any) -> Json:
        address = bmc if isinstance(bmc, str) else bmc.address
        return {"address": address, "username": USER, "password": PASSWORD, "ca_path": str(pki / "ca.crt"), "timeout": 5, **more}

    return make


class Clock:
    """Stands for the module ``time``: waits are noted in ``pauses``, not waited for, and the clock goes on by them."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def monotonic(self) -> float:
        return time.monotonic() + sum(self.pauses)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(_redfish, "time", made)
    monkeypatch.setattr(_bios, "time", made)
    return made
