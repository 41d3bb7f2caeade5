# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the BMCs hold after the role, asked of them without the collection."""

from __future__ import annotations

import json
import os

import pytest

# Where each host's BMC keeps the settings; the third host has none, and the role must pass it by.
BIOS = {"emulator": "b1b1b1b1-0000-4000-8000-000000000001/BIOS", "dell": "System.Embedded.1/Bios"}
KINDS = {"gpu-emulated": "emulator", "gpu-pending": "dell"}
ON = {"MmioAbove4Gb": "Enabled", "ProcVirtualization": "Enabled", "SriovGlobalEnable": "Enabled"}


@pytest.fixture
def kind(host):
    return KINDS[host.backend.get_pytest_id().removeprefix("ansible://")]


@pytest.fixture
def bios(host, kind):
    """The attributes of the host's BIOS resource, or of one below it."""
    bmcs = f"{os.environ['MOLECULE_EPHEMERAL_DIRECTORY']}/bmcs"
    address = host.file(f"{bmcs}/{kind}.address").content_string

    def get(below=""):
        url = f"https://{address}/redfish/v1/Systems/{BIOS[kind]}{below}"
        command = "curl --silent --fail --cacert %s --user fleet:geheim-42 %s"
        return json.loads(host.check_output(command, f"{bmcs}/ca.crt", url))["Attributes"]

    return get


def test_settings_are_on_or_wait_for_the_reset(kind, bios):
    present = {name: value for name, value in bios().items() if name in ON}
    if kind == "emulator":
        assert present == ON
    else:
        assert present == {**dict.fromkeys(ON, "Disabled"), "ProcVirtualization": "Enabled"}
        assert {**present, **bios("/Settings")} == ON


def test_settings_that_were_not_asked_for_are_as_they_were(kind, bios):
    if kind == "emulator":
        assert (bios()["NicBoot1"], bios()["BootMode"]) == ("NetworkBoot", "Uefi")
    else:
        assert set(bios("/Settings")) < set(ON) and bios()["SysProfile"] == "PerfPerWattOptimizedDapc"
