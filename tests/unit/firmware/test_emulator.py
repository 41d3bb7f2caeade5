# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""redfish_bios against a Redfish service that somebody else wrote: OpenStack's emulator, over TLS, with its own registry and passwords.

The emulator applies settings at once, so nothing waits for a reset here; pending settings are in test_bios.
"""

from __future__ import annotations

import json
import shutil
import ssl
import typing as t
import urllib.request
from pathlib import Path

import pytest

from tests.bmc import serve
from tests.bmc.fake import PASSWORD, USER
from tests.unit.conftest import RunModule

Json = dict[str, t.Any]
NAME = "redfish_bios"


@pytest.fixture(scope="module")
def address(pki: Path, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[str]:
    directory = tmp_path_factory.mktemp("emulator")
    for file in pki.iterdir():
        shutil.copy(file, directory)
    process, found = serve.start("emulator", directory)
    yield found
    process.terminate()
    process.wait(timeout=20)


@pytest.fixture
def arguments(address: str, pki: Path) -> t.Callable[..., Json]:
    def make(**more: t.Any) -> Json:
        return {"address": address, "username": USER, "password": PASSWORD, "ca_path": str(pki / "ca.crt"), "vendor": "dell", **more}

    return make


@pytest.fixture
def settings(address: str, pki: Path) -> t.Callable[[], Json]:
    """What the emulator holds, asked without the module."""

    def get() -> Json:
        passwords = urllib.request.HTTPPasswordMgrWithPriorAuth()
        passwords.add_password(None, f"https://{address}/", USER, PASSWORD, is_authenticated=True)
        trust = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=pki / "ca.crt"))
        opener = urllib.request.build_opener(trust, urllib.request.HTTPBasicAuthHandler(passwords))
        with opener.open(f"https://{address}/redfish/v1/Systems/{serve.SYSTEM}/BIOS") as answer:
            found: Json = json.load(answer)["Attributes"]
        return found

    return get


def test_settings_are_planned_written_and_found_there(
    run_module: RunModule, arguments: t.Callable[..., Json], settings: t.Callable[[], Json]
) -> None:
    before = settings()
    asked = arguments(attributes={"sriov": True, "iommu": True, "above_4g": True, "NicBoot1": "Disabled"})
    planned = run_module(NAME, asked, check=True)
    assert [change["target"] for change in planned["changes"]] == [
        "setting NicBoot1",
        "setting ProcVirtualization",
        "setting SriovGlobalEnable",
    ]
    assert settings() == before
    first = run_module(NAME, asked)
    assert first["changes"] == planned["changes"] and first["system"]["id"] == serve.SYSTEM and not first["failed"]
    assert settings() == {**before, "NicBoot1": "Disabled", "ProcVirtualization": "Enabled", "SriovGlobalEnable": "Enabled"}
    assert not run_module(NAME, asked)["changed"]


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"NicBoot1": "Sometimes"}, "it must be one of NetworkBoot, Disabled"),
        ({"NicBoot": "Disabled"}, "the nearest are NicBoot1"),
        ({"SysPassword": "hunter2"}, "it is a password"),
        ({"NumCores": 12}, "does not let it be written"),
        ({"NumCores": 30}, "it must be at most 20"),
        ({"SerialNumber": "x" * 17}, "at most 16 characters"),
    ],
)
def test_the_services_own_registry_is_heeded(
    attributes: Json, expected: str, run_module: RunModule, arguments: t.Callable[..., Json], settings: t.Callable[[], Json]
) -> None:
    before = settings()
    result = run_module(NAME, arguments(attributes=attributes))
    assert result["failed"] and expected in result["blockers"][0]["problem"] and settings() == before


def test_trust_and_password_are_demanded(run_module: RunModule, arguments: t.Callable[..., Json], pki: Path) -> None:
    asked = {"attributes": {"sriov": True}}
    refused = run_module(NAME, arguments(ca_path=str(pki / "other-ca.crt"), **asked))
    assert "comes from a CA that is not trusted here" in refused["msg"]
    refused = run_module(NAME, arguments(password="not-it", **asked))
    assert f"refuses user {USER}" in refused["msg"] and "not-it" not in json.dumps(refused)
    refused = run_module(NAME, arguments(vendor="auto", **asked))
    assert "it says Sushy Emulator" in refused["msg"]
