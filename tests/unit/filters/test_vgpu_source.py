# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a fleet's vGPU configuration comes from, and what its profiles make of each host's GPUs."""

from __future__ import annotations

import typing as t

import pytest
import yaml

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._intents._intents import node_intents
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._operations._awaited import vgpu_config_nodes
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._operator._values import operator_values
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._permits._permits import permitted_devices
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._preflight import _profiles
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _lint

A10, A100, L40S = "10DE:2236", "10DE:20F1", "10DE:26B9"
OURS = "gpufleet-vgpu-devices"
FILE = """
version: v1
vgpu-configs:
  half: [{device-filter: "0x223610DE", devices: all, vgpu-devices: {A10-12Q: 2}}]
  first:
  - {device-filter: "0x223610DE", devices: [0], vgpu-devices: {A10-24Q: 1}}
  - {device-filter: "0x223610DE", devices: [1], vgpu-devices: {}}
  small: [{device-filter: "0x223610DE", devices: [0, 1], vgpu-devices: {A10-1B: 24}}]
"""


def host(name: str = "v", profile: t.Any = "A10-4Q", gpus: t.Sequence[str] = (A10, A10), **more: t.Any) -> dict[str, t.Any]:
    facts = [
        {"address": f"0000:{slot:02x}:00.0", "vendor_device": pci, "subsystem": "", "class": "0302"}
        for slot, pci in enumerate(gpus, start=0x41)
    ]
    return {
        "inventory_hostname": name,
        "group_names": ["gpu_vm_vgpu", "gpu_nodes"],
        "gpufleet_vgpu_profile": profile,
        "preflight_host": {"gpus": facts, "host": {}},
        **more,
    }


def given(profile: t.Any, gpus: t.Sequence[str] = (A10, A10), text: str | None = FILE, **more: t.Any) -> dict[str, t.Any]:
    read = {} if text is None else {"preflight_vgpu_config": {"text": text}}
    return host(profile=profile, gpus=gpus, gpufleet_vgpu_config_file="/srv/vgpu.yml", **read, **more)


def expect(**counts: int) -> list[dict[str, t.Any]]:
    return [{"vgpu_type": name.replace("_", "-"), "count": count} for name, count in counts.items()]


@pytest.mark.parametrize(
    ("one", "profile", "expected"),
    [
        # The file, with names of its own and types that NVIDIA's configuration has not.
        (given("half"), "half", expect(A10_12Q=4)),
        (given("first"), "first", expect(A10_24Q=1)),
        (given("small"), "small", expect(A10_1B=48)),
        # Types per GPU.
        (host(profile={"all": "A10-4Q"}), "A10-4Q", expect(A10_4Q=12)),
        (host(profile={"all": "NVIDIA A10-4Q"}), "A10-4Q", expect(A10_4Q=12)),
        (host(profile={"A10": {"A10-8Q": 2}}), "A10-8Q-", expect(A10_8Q=4)),
        (host(profile={0: "A10-24Q", "all": {}}), "A10-24Q-", expect(A10_24Q=1)),
        (host(profile={"0000:42:00.0": "A10-4Q", "A10": "A10-8Q"}), "A10-4Q.A10-8Q-", expect(A10_8Q=3, A10_4Q=6)),
        (host(profile={"all": "A10-4Q", "L40S": "L40S-8Q"}, gpus=[A10, L40S]), "A10-4Q.L40S-8Q-", expect(A10_4Q=6, L40S_8Q=6)),
    ],
)  # fmt: skip
def test_what_a_profile_makes(one: dict[str, t.Any], profile: str, expected: list[dict[str, t.Any]]) -> None:
    found = node_intents([one], run_hosts=["v"])
    assert found["text"] == ""
    [intent] = found["intents"]
    assert intent["expect"] == expected
    # One that does not say all in its name carries a mark of its content.
    assert intent["profile"].startswith(profile) if profile.endswith("-") else intent["profile"] == profile
    config = found["vgpu_config"]
    assert config["name"] == OURS
    assert vgpu_config_nodes(found["intents"]) == [{"name": "v", "profile": intent["profile"]}]
    # The ConfigMap has the profile, and nothing is wrong with it on this very host.
    gpus = {"v": one["preflight_host"]["gpus"]}
    assert _lint.lint(config["content"], gpus, {"v": intent["profile"]})["ok"]
    assert _profiles.misfits(gpus["v"], intent["device_config"]) == []


def test_in_one_fleet_hosts_may_name_a_stock_profile_and_give_types() -> None:
    found = node_intents([host("a", {"0": "A10-4Q", "all": {}}), host("b", "default"), host("c", "A10-8Q")], run_hosts=["a", "b", "c"])
    assert found["text"] == ""
    configs = yaml.safe_load(found["vgpu_config"]["content"])["vgpu-configs"]
    assert {intent["profile"] for intent in found["intents"]} == set(configs)
    assert configs["default"] == [{"device-filter": "0x223610DE", "devices": "all", "vgpu-devices": {"A10-12Q": 2}}]


def test_the_stock_configuration_stays_the_operators() -> None:
    found = node_intents([host()], run_hosts=["v"])
    assert found["vgpu_config"] == {"kind": "stock", "where": "", "name": "", "content": None}
    assert found["intents"][0]["device_config"] is None


def test_a_config_map_of_somebody_else_is_named_and_not_ours_to_write() -> None:
    one = host(profile="half", gpufleet_vgpu_config_name="team-vgpus")
    before = node_intents([one], run_hosts=["v"])
    assert before["text"] == "" and before["vgpu_config"]["where"] == "team-vgpus"
    found = node_intents([{**one, "preflight_vgpu_config": {"text": FILE}}], run_hosts=["v"])
    assert found["vgpu_config"] == {"kind": "config_map", "where": "team-vgpus", "name": "team-vgpus", "content": None}
    assert found["intents"][0]["expect"] == expect(A10_12Q=4)


OTHER = {"gpufleet_vgpu_config_name": "team-vgpus"}
BROKEN = FILE.replace("A10-12Q: 2", "A10-12Q: 3")


@pytest.mark.parametrize(
    ("hosts", "said"),
    [
        ([given("A10-4Q")], "the file /srv/vgpu.yml has no profile 'A10-4Q'. Nearest: first, half, small"),
        ([given("half", text="[")], "the file /srv/vgpu.yml: configuration: it is no YAML"),
        ([given("half", text="version: v2")], "'v2' is not possible here"),
        ([given("half", text=BROKEN)], "half, entry 1: on A10, 3 x 12 GB were asked for"),
        ([given("half", gpus=[A10, L40S])], "no entry of the profile is for GPU 0000:42:00.0 (10DE:26B9)"),
        ([given("first", gpus=[A10, A10, A10])], "no entry of the profile is for GPU 0000:43:00.0"),
        ([given({"all": "A10-4Q"})], "gives types per GPU, and the configurations are those of the file /srv/vgpu.yml"),
        ([given("half", **OTHER)], "both set, and only one of them can count"),
        ([given("half"), host("w", gpufleet_vgpu_config_file="/srv/other.yml")], "/srv/other.yml and /srv/vgpu.yml"),
        ([host(gpufleet_vgpu_config_name="default-vgpu-devices-config")], "the operator writes over it"),
        ([host(gpufleet_vgpu_config_name=OURS)], "this collection writes it itself"),
        ([host(gpufleet_vgpu_config_name="No Name")], "is no name of a ConfigMap"),
        ([host(profile="A10-4Q!")], "label value"),
        ([host(profile=["A10-4Q"])], "Write the name of a profile"),
        ([host(profile={})], "names no GPU"),
        ([host(profile={"all": 3})], "3 is no vGPU type"),
        ([host(profile={"all": {"A10-4Q": 0}})], "0 is no number of vGPUs"),
        ([host(profile={"all": {"A10-4Q": True}})], "True is no number of vGPUs"),
        ([host(profile={"all": "nonsense"})], "gpufleet_vgpu_profile, all"),
        ([host(profile={"all": {}})], "makes no vGPU at all"),
        ([host(profile={"B17": "A10-4Q"})], "no vGPU types are known for a GPU of this name"),
        ([host(profile={0: "A10-4Q"})], "says nothing of GPU 0000:42:00.0"),
        ([host(profile={7: "A10-4Q", "all": "A10-4Q"})], "is about GPU 7"),
        ([host(profile={"all": "L40S-4Q"})], "'L40S-4Q' is no vGPU type of A10"),
        ([host(profile={"all": {"A10-4Q": 7}})], "holds at most 6 of this size. The nearest that fit: 6 x A10-4Q"),
        ([host(profile={"all": {"A10-4Q": 3, "A10-8Q": 1}})], "does not switch mixed-size mode on"),
        ([host(profile={"all": "A10-4Q"}, gpus=[A10, "10DE:FFFF"])], "GPU 0000:42:00.0 (10DE:FFFF) is no GPU with vGPU types"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_and_says_why(hosts: list[dict[str, t.Any]], said: str) -> None:
    found = node_intents(hosts, run_hosts=["v"])
    assert said in found["text"], found["text"]
    assert "Nothing was changed" in found["text"]


@pytest.mark.parametrize("profile", ["A10-4Q", {"all": {"A10-4Q": 0}}])
def test_a_wrong_request_is_seen_before_a_host_is_read(profile: t.Any) -> None:
    one = given(profile) if isinstance(profile, str) else host(profile=profile)
    del one["preflight_host"]
    assert node_intents([one], run_hosts=["v"])["problems"]


def test_preflight_refuses_the_host_whose_gpus_cannot_have_it_before_anything_is_written() -> None:
    one = given("half")
    del one["preflight_host"]
    [intent] = node_intents([one], run_hosts=["v"])["intents"]
    [problem] = _profiles.misfits(given("half", gpus=[L40S])["preflight_host"]["gpus"], intent["device_config"])
    assert "no entry of the profile is for GPU 0000:41:00.0" in problem
    [intent] = node_intents([{**one, "gpufleet_vgpu_config_file": "", "gpufleet_vgpu_profile": {"all": "A10-4Q"}}])["intents"]
    assert "is no vGPU type of L40S" in _profiles.misfits(given("half", gpus=[L40S])["preflight_host"]["gpus"], intent["device_config"])[0]


# ------------------------------------------------------------------ MIG-backed types


@pytest.mark.parametrize("profile", ["A100-1-5C", {"all": "A100-1-5C"}])
def test_a_mig_backed_profile_through_the_operator_keeps_the_slice_in_all_names(profile: t.Any) -> None:
    found = node_intents([host(profile=profile, gpus=[A100])], run_hosts=["v"])
    assert found["text"] == ""
    [intent] = found["intents"]
    assert (intent["profile"], intent["expect"]) == ("A100-1-5C", [{"vgpu_type": "A100-1-5C", "count": 7}])
    advertised = [{"name": "v", "allocatable": {"nvidia.com/GRID_A100-1-5C": 7}}]
    permits = permitted_devices(found["intents"], advertised)
    assert permits["mediated_devices"] == [{"selector": "GRID A100-1-5C", "resource_name": "nvidia.com/GRID_A100-1-5C", "external": True}]


@pytest.mark.parametrize("profile", ["A100-1-5C", {"all": "A100-1-5C"}])
def test_a_mig_backed_profile_is_refused_where_the_gpu_has_no_such_slice(profile: t.Any) -> None:
    found = node_intents([host(profile=profile, gpus=[A10])], run_hosts=["v"])
    assert "A100-1-5C" in found["text"] and "0000:41:00.0" in found["text"]


# ------------------------------------------------------------------ Helm values

OPTIONS = {"registry": "registry.example.com", "vgpu_version": "595.45.04"}


def test_the_chart_is_told_the_config_map() -> None:
    intents = node_intents([given("half")], run_hosts=["v"])["intents"]
    assert operator_values(intents, {**OPTIONS, "vgpu_config_name": OURS})["vgpuDeviceManager"] == {"config": {"name": OURS}}
    assert "vgpuDeviceManager" not in operator_values(intents, OPTIONS)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"values": {"vgpuDeviceManager": {"config": {"name": "mine"}}}}, "gives 'mine' as vgpuDeviceManager.config.name"),
        ({"present": {"vgpuDeviceManager": {"config": {"name": "mine"}}}}, "keeps 'mine' as vgpuDeviceManager.config.name"),
        ({"present": {"sandboxWorkloads": {"enabled": True}, "vgpuManager": {"enabled": True}}}, "keeps 'default-vgpu-devices-config'"),
        ({"vgpu_config_name": "", "values": {"vgpuDeviceManager": {"config": {"name": "mine"}}}}, "Set gpufleet_vgpu_config_name: mine"),
        ({"vgpu_config_name": "", "present": {"vgpuDeviceManager": {"config": {"name": "mine"}}}}, "Set gpufleet_vgpu_config_name: mine"),
    ],
)
def test_another_config_map_in_the_chart_is_refused(more: dict[str, t.Any], said: str) -> None:
    intents = node_intents([given("half")], run_hosts=["v"])["intents"]
    with pytest.raises(ValueError, match=r"vgpuDeviceManager\.config\.name") as error:
        operator_values(intents, {**OPTIONS, "vgpu_config_name": OURS, **more})
    assert said in str(error.value)


def test_the_stock_config_map_by_its_name_is_the_stock_one() -> None:
    intents = node_intents([host()], run_hosts=["v"])["intents"]
    for name in ("", "default-vgpu-devices-config"):
        operator_values(intents, {**OPTIONS, "values": {"vgpuDeviceManager": {"config": {"name": name}}}})
