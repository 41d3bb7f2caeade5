# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``site.yml`` on the lab's other fleets. Each is a lab of its own: GPUFLEET_LONG=1, as make soak does it, a share of them in each shard."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest

from tests.lab import profiles
from tests.lab.layout import Layout

from .conftest import LONG, Lab, Run, share
from .test_site import allocatable

#: Profile -> what the vm-vgpu hosts advertise in the end.
ADVERTISED = {
    "mig": {"nvidia.com/GRID_A100-1-5C": 14},
    "a16": {"nvidia.com/NVIDIA_A16-8Q": 8},
    "two-models": {"nvidia.com/GRID_T4-8Q": 2, "nvidia.com/NVIDIA_A10-12Q": 2},
    "twenty": {"nvidia.com/NVIDIA_A10-4Q": 12},
}
#: What is said of an A16 under the stock configuration's `default`, which has two entries for it, and what to do.
DEFAULT_FAILS = ("A16-8Q and A2-8Q in the stock configuration's default", "Set gpufleet_vgpu_profile to what all GPUs of the host can have")


class Fleet(Lab):
    """A lab with another profile, in a directory of its own."""

    def __init__(self, directory: Path, name: str) -> None:
        self.dir, self.name = directory, name

    def site(self, **variables: t.Any) -> Run:
        return self.play("site.yml", "-e", json.dumps(variables), inventory=[profiles.inventory(Layout(self.dir), self.name)])


@pytest.fixture
def fleet(request: pytest.FixtureRequest, tmp_path: Path) -> t.Iterator[Fleet]:
    made = Fleet(tmp_path / "lab", request.param)
    try:
        up = made("up", "--profile", request.param, check=False)
        assert up.returncode == 0, up.stderr
        yield made
    finally:
        made("down", check=False)


@LONG
@pytest.mark.parametrize("fleet", share(sorted(ADVERTISED)), indirect=True)
def test_a_fleet_converges_and_where_nvidias_default_cannot_the_remedy_is_named(fleet: Fleet) -> None:
    hosts = profiles.PROFILES[fleet.name].hosts
    run, variables = fleet.site(), {}
    if fleet.name == "a16":
        assert run.failures().keys() == {"gpu-vgpu-0"}, run.output
        assert all(words in run.failures()["gpu-vgpu-0"] for words in DEFAULT_FAILS)
        variables = {"gpufleet_vgpu_profile": "A16-8Q"}
        run = fleet.site(**variables)
    assert run.failures() == {}, run.output
    for host in hosts:
        if host.startswith("gpu-vgpu"):
            assert allocatable(fleet, host) == ADVERTISED[fleet.name]
    again = fleet.site(**variables)
    assert again.failures() == {} and again.changes() == set(), again.output
