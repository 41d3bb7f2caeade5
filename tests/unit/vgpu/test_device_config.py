# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The vGPU Device Manager's configuration: it makes what was asked for, counts as applied, and what it cannot make is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from ansible.errors import AnsibleFilterError
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.filter.vgpu_device_config import FilterModule
from ansible_collections.gpufleet.kubevirt.plugins.filter.vgpu_plan import vgpu_plan
from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _names
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _device_config
from tests.vgpu import device_manager
from tests.vgpu.device_manager import Device
from tests.vgpu.gpus import gpus, table

SCHEMA = json.loads(Path(_device_config.__file__).with_name("device_config.schema.json").read_text(encoding="utf-8"))
IDS = {row["family"]: (row["pci"][0]["device"], next(iter(row["pci"][0]["subsystems"]), [""])[0].upper()) for row in table()["gpus"]}


def gpu(index, family, types=None, **more):
    device, subsystem = IDS.get(family, ("2684", ""))
    found = {"index": index, "address": f"0000:{65 + index:02x}:00.0", "gpu": family, "vendor_device": f"10DE:{device}"}
    found |= {"subsystem": subsystem or None, "mode": "equal" if types else "unused", "types": types or {}, "before": {}, "changed": True}
    return found | more


def plan(**nodes):
    return {"version": 1, "nodes": [{"node": node, "gpus": list(entries)} for node, entries in nodes.items()]}


def made(given, **options):
    return FilterModule().filters()["vgpu_device_config"](given, **options)


def entries(result, node):
    return result["config"]["vgpu-configs"][result["profiles"][node]]


# What it makes


def test_gpus_that_hold_the_same_are_one_entry_named_after_the_type():
    found = made(plan(a=[gpu(0, "A10", {"A10-4Q": 6}), gpu(1, "A10", {"A10-4Q": 6})], b=[gpu(0, "A10", {"A10-4Q": 6})]))
    assert found["profiles"] == {"a": "A10-4Q", "b": "A10-4Q"}
    assert found["config"] == {
        "version": "v1",
        "vgpu-configs": {"A10-4Q": [{"device-filter": "0x223610DE", "devices": "all", "vgpu-devices": {"A10-4Q": 6}}]},
    }
    assert yaml.safe_load(found["yaml"]) == found["config"] and (found["caveats"], found["unread"]) == ([], [])


def test_gpus_that_hold_different_things_are_told_by_index_and_an_unused_one_is_there_too():
    found = made(plan(a=[gpu(0, "A10", {"A10-4Q": 6}), gpu(1, "A10"), gpu(2, "A10", {"A10-8Q": 3})]))
    assert entries(found, "a") == [
        {"device-filter": "0x223610DE", "devices": [0], "vgpu-devices": {"A10-4Q": 6}},
        {"device-filter": "0x223610DE", "devices": [1], "vgpu-devices": {}},
        {"device-filter": "0x223610DE", "devices": [2], "vgpu-devices": {"A10-8Q": 3}},
    ]


def test_two_products_of_one_id_are_told_by_subsystem_also_if_nobody_knows_the_board():
    found = made(plan(a=[gpu(0, "A16", {"A16-4Q": 4}), gpu(1, "A2"), gpu(2, "A2", subsystem="1028:ABCD")]))
    assert sorted(entry["device-filter"] for entry in entries(found, "a")) == [
        "0x25B610DE:0x14A910DE",
        "0x25B610DE:0x157E10DE",
        "0x25B610DE:0xABCD1028",
    ]


def test_all_ids_of_a_family_are_in_its_filter():
    found = made(plan(a=[gpu(0, "A100D", {"A100D-40C": 2})]))
    assert entries(found, "a")[0]["device-filter"] == ["0x20B510DE", "0x20B810DE"]


def test_a_gpu_without_vgpu_types_gets_an_empty_entry():
    found = made(plan(a=[gpu(0, "A10", {"A10-4Q": 6}), gpu(1, "GeForce RTX 4090")]))
    assert {"device-filter": "0x268410DE", "devices": "all", "vgpu-devices": {}} in entries(found, "a")


def test_a_type_of_two_gpus_is_no_name_by_itself():
    found = made(plan(a=[gpu(0, "DC-96", {"DC-16Q": 6})], b=[gpu(0, "DC-32", {"DC-16Q": 2})]))
    assert len(set(found["profiles"].values())) == 2
    assert all(name.startswith("DC-16Q-") for name in found["profiles"].values())


def test_instances_with_graphics_are_asked_for_by_the_alias_with_a_caveat():
    found = made(plan(a=[gpu(0, "DC-96", {"DC-1-2Q": 48})]))
    assert entries(found, "a")[0]["vgpu-devices"] == {"DC-1-2QGFX": 48}
    assert "asks for the GPU instance 1g.2gb+gfx, and the type needs 1g.24gb+gfx" in found["caveats"][0]
    assert "never takes a name with the suffix GFX for applied" in found["caveats"][1]


def test_a_name_stays_a_label_value_with_many_models():
    families = ["A10", "A16", "A40", "L4", "L40S", "RTX6000-Ada", "RTXA6000", "T4"]
    found = made(plan(a=[gpu(i, family, {f"{family}-8Q": 1}) for i, family in enumerate(families)]))
    assert len(_names.check_label_value(found["profiles"]["a"])) <= 63 and found["profiles"]["a"].startswith("A10-8Q.A16-8Q.")


def test_default_only_if_it_is_asked_for_with_what_nvidia_s_rule_makes_of_each_gpu():
    a16 = plan(a=[gpu(0, "A16", {"A16-4Q": 4}), gpu(1, "A2", {"A2-16Q": 1}), gpu(2, "A10G", {"A10G-4Q": 6})])
    assert "default" not in made(a16)["config"]["vgpu-configs"]
    assert made(a16, with_default=True)["config"]["vgpu-configs"]["default"] == [
        {"device-filter": "0x223710DE", "devices": "all", "vgpu-devices": {}},
        {"device-filter": "0x25B610DE:0x14A910DE", "devices": "all", "vgpu-devices": {"A16-8Q": 2}},
        {"device-filter": "0x25B610DE:0x157E10DE", "devices": "all", "vgpu-devices": {"A2-8Q": 2}},
    ]


def intent(host, profile, *families, **more):
    boards = [
        {"address": f"0000:{i}:00.0", "pci": f"10DE:{IDS[family][0]}", "subsystem": IDS[family][1], "class": "0302"}
        for i, family in enumerate(families)
    ]
    return {
        "host": host,
        "node": host,
        "workload": "vm-vgpu",
        "profile": profile,
        "owner": "operator",
        "state": "wanted",
        "gpus": boards,
    } | more


def test_intents_keep_their_profile_as_name_and_share_it():
    found = made(
        [
            intent("a", "default", "A16", "A16"),
            intent("b", "default", "A2"),
            intent("c", "A10-4Q", "A10"),
            intent("d", "A10-2B", "A10", owner="host"),
            intent("e", "A10-4Q", "A10", workload="container"),
            intent("f", "A10-4Q", state="unread"),
        ]
    )
    assert found["profiles"] == {"a": "default", "b": "default", "c": "A10-4Q"}
    assert [entry["vgpu-devices"] for entry in entries(found, "b")] == [{"A16-8Q": 2}, {"A2-8Q": 2}]
    assert found["unread"] == ["f"]


def test_only_the_nodes_that_are_named():
    both = plan(a=[gpu(0, "A10", {"A10-4Q": 6})], b=[gpu(0, "A10", {"A10-8Q": 1, "A10-4Q": 1}, mode="mixed")])
    assert made(both, nodes=["a"])["profiles"] == {"a": "A10-4Q"}


@st.composite
def fleets(draw):
    """Nodes with GPUs of a few models, each GPU with nothing or with types of one size."""
    nodes = {}
    for number in range(draw(st.integers(1, 3))):
        families = draw(st.lists(st.sampled_from(["A10", "A16", "A2", "A100D", "L40S", "A30", "H200X", "T4"]), min_size=1, max_size=4))
        chosen = []
        for index, family in enumerate(families):
            kind = draw(st.sampled_from([None, *gpus()[family].types]))
            count = kind and draw(st.sampled_from([kind.most, 1]))
            # A type of old drivers is in no configuration.
            chosen.append(gpu(index, family, {kind.name: count} if kind and not kind.name.endswith("B4") else {}))
        nodes[f"n{number}"] = chosen
    return plan(**nodes)


@settings(max_examples=60, deadline=None)
@given(fleets())
def test_the_device_manager_makes_what_the_plan_says_and_takes_it_for_applied(given_plan):
    found = made(given_plan)
    jsonschema.validate(found["config"], SCHEMA, cls=jsonschema.Draft202012Validator)
    assert yaml.safe_load(found["yaml"]) == found["config"]
    for node in given_plan["nodes"]:
        content = entries(found, node["node"])
        devices = [Device(entry["gpu"], entry["vendor_device"][5:], entry["subsystem"] or "") for entry in node["gpus"]]
        device_manager.apply(content, devices)
        assert [device.holds for device in devices] == [entry["types"] for entry in node["gpus"]]
        assert device_manager.holds(content, devices)
    names = {json.dumps(entries(found, node), sort_keys=True): name for node, name in found["profiles"].items()}
    assert len(names) == len(found["config"]["vgpu-configs"]) == len(set(names.values()))


def test_a_plan_of_the_planner_is_made_as_it_is_and_applied_whole():
    fleet = [
        {"name": "a", "gpus": [{"index": 0, "gpu": "A10", "present": {"A10-12Q": 2}}, {"index": 1, "gpu": "A10"}]},
        {"name": "b", "gpus": [{"index": 0, "gpu": "A16"}, {"index": 1, "gpu": "A2"}, {"index": 2, "gpu": "A30"}]},
    ]
    demands = [
        {"name": "web", "type": "A10-4Q", "count": 8},
        {"name": "desk", "type": "A16-4Q", "count": 3},
        {"name": "ml", "type": "A30-1-6C"},
    ]
    planned = vgpu_plan(fleet, demands)
    found = made(planned)
    for node in planned["nodes"]:
        devices = [Device(entry["gpu"], *IDS[entry["gpu"]]) for entry in node["gpus"]]
        device_manager.apply(entries(found, node["node"]), devices)
        assert [device.holds for device in devices] == [entry["types"] for entry in node["gpus"]]
        assert device_manager.holds(entries(found, node["node"]), devices)
    assert planned["unserved"] == []


# What it refuses


@pytest.mark.parametrize(
    ("given_plan", "words"),
    [
        (plan(a=[gpu(0, "A10", {"A10-4Q": 2, "A10-8Q": 1})]), ["node a, GPU 0", "several sizes", "remove all vGPUs", "one size per GPU"]),
        (plan(a=[gpu(0, "T4", {"T4-4Q": 2, "T4-8Q": 1})]), ["node a, GPU 0", "no mixed-size mode"]),
        (plan(a=[gpu(0, "A30", {"A30-1-6C": 1, "A30-4C": 1})]), ["A30-1-6C need MIG mode", "never share a GPU", "1 x A30-4C"]),
        (plan(a=[gpu(0, "A10", {"A10-4Q": 7})]), ["7 x 4 GB", "at most 6", "6 x A10-4Q"]),
        (plan(a=[gpu(0, "A10", {"A16-4Q": 1})]), ["'A16-4Q' is no vGPU type of A10"]),
        (plan(a=[gpu(0, "A11", {"A10-4Q": 1}, vendor_device=None)]), ["'A11'", "A10"]),
        (plan(a=[gpu(0, "A10", {"A10-4Q": 1}, vendor_device="10DE:2235")]), ["called A10", "10DE:2235 is that of A40"]),
        (plan(a=[gpu(0, "GeForce RTX 4090", {"A10-4Q": 1})]), ["no vGPU types are known"]),
        (plan(a=[gpu(0, "", {"A10-4Q": 1}, vendor_device=None)]), ["nothing says which GPU it is"]),
        (plan(a=[gpu(0, "A10", {"A10-4Q": 6}), gpu(2, "A10")]), ["node a", "nothing is said of GPU 1", "never count as applied"]),
        (plan(a=[gpu(0, "A10", address="0000:b0:00.0"), gpu(1, "A10", address="0000:0a:00.0")]), ["not counted by PCI address"]),
        (plan(a=[gpu(0, "A10", mode="keep", before=None)]), ["node a, GPU 0", "would clear it"]),
        (plan(a=[]), ["node a", "no GPU"]),
        (plan(), ["no node is to hold vGPUs"]),
        ([], ["no node is to hold vGPUs"]),
        ([intent("a", "A10-4Q", "L40S")], ["node a, GPU 0000:0:00.0", "no vGPU type of L40S"]),
        ([intent("a", "default", "A10G")], ["no default for its PCI id 10DE:2237"]),
        ([intent("a", "A16-4Q", "A16", gpus=[{"address": "0000:1:00.0", "pci": "10DE:25B6"}])], ["A2 and A16", "Give its subsystem"]),
        ([intent("a", "A10-4Q", gpus=[{"address": "0000:1:00.0", "pci": "10DE:2684"}])], ["no vGPU types are known for its PCI id"]),
        ([intent("a", "A10-4Q", gpus=[{"pci": "10DE:2236"}])], ["node a", "no address or no pci"]),
        (plan(a=[gpu(0, "T4", {"T4-2B4": 1})]), ["node a, GPU 0", "does not read T4-2B4"]),
        ("A10", ["neither a plan of vgpu_plan nor a list of intents"]),
        ([1], ["neither a plan"]),
        (None, ["neither a plan"]),
        ({"nodes": []}, ["version"]),
        (plan(a=[gpu(0, "A10", {"A10-4Q": "six"})]), ["node a, gpus[0], types, A10-4Q", "whole number"]),
    ],
)
def test_what_cannot_be_made_is_refused_by_name(given_plan, words):
    with pytest.raises(AnsibleFilterError) as caught:
        made(given_plan)
    assert [word for word in words if word not in str(caught.value)] == [], str(caught.value)


def test_an_unknown_node_is_refused_with_those_of_the_plan():
    with pytest.raises(AnsibleFilterError, match=r"node c: the plan has no such node\. It has a, b"):
        made(plan(a=[gpu(0, "A10")], b=[gpu(0, "A10")]), nodes=["a", "c"])


def test_nodes_are_a_list():
    with pytest.raises(AnsibleFilterError, match="nodes is 'a': write a list of names"):
        made(plan(a=[gpu(0, "A10")]), nodes="a")


def test_all_problems_are_told_at_once():
    with pytest.raises(AnsibleFilterError) as caught:
        made(plan(a=[gpu(0, "A10", {"A10-4Q": 7})], b=[gpu(0, "A10", {"A10-8Q": 4})]))
    assert "node a, GPU 0" in str(caught.value) and "node b, GPU 0" in str(caught.value)
