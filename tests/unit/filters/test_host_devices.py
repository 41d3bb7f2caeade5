# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._operations._host_devices import host_device_requests

A10, A6000, T4 = "10DE:2236", "10DE:2230", "10DE:1EB8"
EMPTY: dict[str, t.Any] = {"vfio": [], "scope": "group", "sriov": [], "vgpus": [], "shared": []}


def intent(workload: str, owner: str = "host", profile: str | None = None) -> dict[str, t.Any]:
    return {"host": "h", "node": "h", "workload": workload, "owner": owner, "profile": profile}


def gpu(address: str = "0000:41:00.0", pci: str = A10, group: int | None = 7, **more: t.Any) -> dict[str, t.Any]:
    return {"address": address, "vendor_device": pci, "subsystem": "", "iommu_group": group, "sriov": {"total": 32, "enabled": 0}, **more}


def facts(*gpus: dict[str, t.Any], blockers: dict[str, list[str]] | None = None) -> dict[str, t.Any]:
    groups = {number: {"blockers": [{"address": address} for address in found]} for number, found in (blockers or {}).items()}
    return {"gpus": list(gpus), "groups": groups}


def asked(*args: t.Any, **kwargs: t.Any) -> dict[str, t.Any]:
    found = host_device_requests(*args, **kwargs)
    assert bool(found["text"]) == bool(found["problems"])
    return {key: found[key] for key in EMPTY}


@pytest.mark.parametrize("owner", ["host", "operator"])
def test_a_container_host_needs_no_devices(owner: str) -> None:
    assert asked(intent("container", owner), facts(gpu())) == EMPTY


def test_an_owner_of_whole_gpus_binds_them_with_their_groups() -> None:
    assert asked(intent("vm-passthrough"), facts(gpu(), gpu("0000:a1:00.0"))) == {
        **EMPTY,
        "vfio": [{"address": "0000:41:00.0"}, {"address": "0000:a1:00.0"}],
    }


def test_the_operator_s_gpus_are_left_to_it_but_not_what_it_leaves_behind() -> None:
    bound = {"driver": "vfio-pci"}
    seen = facts(
        gpu(**bound),  # its companion was left
        gpu("0000:a1:00.0", group=8, **bound),  # it is alone
        gpu("0000:c1:00.0", group=None),
        gpu("0000:e1:00.0", group=9),  # the operator has not bound it yet: who knows what it leaves
        blockers={"7": ["0000:41:00.1"], "8": ["0000:a1:00.0"], "9": ["0000:e1:00.0", "0000:e1:00.1"]},
    )
    assert asked(intent("vm-passthrough", "operator"), seen) == {
        **EMPTY,
        "scope": "companions",
        "vfio": [{"address": "0000:41:00.0"}],
        "shared": ["0000:41:00.0", "0000:e1:00.0"],
    }


def test_vgpus_of_the_operator_are_not_ours() -> None:
    assert asked(intent("vm-vgpu", "operator", "A10-4Q"), facts(gpu())) == EMPTY
    found = host_device_requests(intent("vm-vgpu", "operator", "A10-4Q"), facts(gpu()), vgpus=[{"address": "0000:41:00.0", "types": []}])
    assert "gpufleet_vgpus is set" in found["text"]


def test_a_profile_fills_each_gpu() -> None:
    assert asked(intent("vm-vgpu", profile="A10-4Q"), facts(gpu(), gpu("0000:a1:00.0"))) == {
        **EMPTY,
        "sriov": [{"address": "0000:41:00.0", "count": "max"}, {"address": "0000:a1:00.0", "count": "max"}],
        "vgpus": [
            {"address": "0000:41:00.0", "types": [{"type": "A10-4Q", "count": 6}]},
            {"address": "0000:a1:00.0", "types": [{"type": "A10-4Q", "count": 6}]},
        ],
    }


def test_a_gpu_that_shows_virtual_functions_and_uses_none_gets_none() -> None:
    found = asked(intent("vm-vgpu", profile="T4-4Q"), facts(gpu(pci=T4)))
    assert (found["sriov"], found["vgpus"]) == ([], [{"address": "0000:41:00.0", "types": [{"type": "T4-4Q", "count": 4}]}])


@pytest.mark.parametrize(("total", "sriov"), [(16, [{"address": "0000:41:00.0", "count": "max"}]), (None, []), (0, [])])
def test_a_gpu_that_the_data_does_not_have_is_asked_itself(total: int | None, sriov: list[t.Any]) -> None:
    chosen = [{"address": "0000:41:00.0", "types": [{"type": "X1-4Q", "count": 2}]}]
    found = asked(intent("vm-vgpu", profile="A10-4Q"), facts(gpu(pci="10DE:FFFF", sriov={"total": total, "enabled": 0})), vgpus=chosen)
    assert (found["sriov"], found["vgpus"]) == (sriov, chosen)


def test_types_per_gpu_take_the_place_of_the_profile() -> None:
    chosen = [{"address": "0000:41:00.0", "types": [{"type": "A10-12Q", "count": 2}]}]
    assert asked(intent("vm-vgpu", profile="A10-4Q"), facts(gpu()), vgpus=chosen)["vgpus"] == chosen


@pytest.mark.parametrize("profile", ["A16-4Q", "default"])
def test_a_profile_that_a_gpu_cannot_have_is_named(profile: str) -> None:
    found = host_device_requests(intent("vm-vgpu", profile=profile), facts(gpu(pci="10DE:FFFF")))
    assert "GPU 0000:41:00.0: it has no single type for the profile" in found["text"]
    assert found["vgpus"] == []


@pytest.mark.parametrize("more", [{"profile": "A100-1-5C"}, {"device_config": {"all": "A100-1-5C"}}])
def test_a_mig_backed_profile_on_a_host_that_owns_its_devices_says_why_not(more: dict[str, t.Any]) -> None:
    found = host_device_requests({**intent("vm-vgpu"), **more}, facts(gpu(pci="10DE:20F1")))
    assert "lives in a MIG GPU instance" in found["text"] and "gpufleet_device_owner: operator" in found["text"]
    # Whoever has made instances asks for the types himself, and mdev_create looks for the instances.
    asked = [{"address": "0000:41:00.0", "types": [{"type": "A100-1-5C", "count": 1}]}]
    assert host_device_requests(intent("vm-vgpu"), facts(gpu(pci="10DE:20F1")), vgpus=asked)["problems"] == []


def test_types_per_gpu_of_the_profile_are_made_on_a_host_that_owns_its_devices() -> None:
    found = host_device_requests({**intent("vm-vgpu"), "device_config": {"all": {"A10-4Q": 2}}}, facts(gpu()))
    assert (found["problems"], found["vgpus"]) == ([], [{"address": "0000:41:00.0", "types": [{"type": "A10-4Q", "count": 2}]}])
    refused = host_device_requests({**intent("vm-vgpu"), "device_config": {"all": "L40S-4Q"}}, facts(gpu()))
    assert "is no vGPU type of A10" in refused["text"]
