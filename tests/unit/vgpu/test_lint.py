# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A given configuration of the vGPU Device Manager: what is wrong with it is said by name, and what has no error is applied whole."""

from __future__ import annotations

import jsonschema
import pytest
import yaml
from ansible.errors import AnsibleFilterError
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.filter.vgpu_device_config_lint import FilterModule
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _device_config, _lint
from tests.vgpu import device_manager
from tests.vgpu.device_manager import Device

A10, A16, A2, PRO = "0x223610DE", "0x25B610DE:0x14A910DE", "0x25B610DE:0x157E10DE", "0x2BB510DE"


def entry(types, pattern=A10, devices="all", **more):
    return {"device-filter": pattern, "devices": devices, "vgpu-devices": types} | more


def config(*entries, name="one"):
    return {"version": "v1", "vgpu-configs": {name: list(entries)}}


def checked(given_config, **options):
    return FilterModule().filters()["vgpu_device_config_lint"](given_config, **options)


def board(vendor_device, subsystem="", address="0000:41:00.0"):
    return {"address": address, "vendor_device": vendor_device, "subsystem": subsystem}


def without(key, found=None):
    return {name: value for name, value in (found or entry({"A10-4Q": 6})).items() if name != key}


@pytest.mark.parametrize(
    "good",
    [
        config(entry({"A10-4Q": 6})),
        config(entry({"A10-4Q": 3, "A10-4C": 3})),
        config(entry({"A16-4Q": 4}, A16), entry({}, A2)),
        config(entry({"A10-4Q": 6}, [A10, "0x223510de"], ["A40"]) | {"devices": "all", "device-filter": [A10]}),
        config(entry({"A30-1-6C": 4}, ["0x20B710DE", "0x20B910DE"])),
        {"version": "v1"},
        {"apiVersion": "v1", "kind": "ConfigMap", "data": {"config.yaml": yaml.safe_dump(config(entry({"A10-4Q": 6})))}},
        yaml.safe_dump(config(entry({"A10-8Q": 3}))),
    ],
)
def test_nothing_is_wrong_with_a_good_file(good):
    assert checked(good) == {"ok": True, "findings": [], "text": ""}


@pytest.mark.parametrize(
    ("bad", "severity", "words"),
    [
        # What cannot be read.
        ("a: [", "error", ["it is no YAML"]),
        ("version: v1\nversion: v1", "error", ["'version' is there twice"]),
        ("version: v1\nvgpu-configs:\n  one:\n  - {devices: all, devices: [0], vgpu-devices: {}}", "error", ["'devices' is there twice"]),
        ({"kind": "ConfigMap", "data": {"config": ""}}, "error", ["no key config.yaml", "config"]),
        ({"kind": "ConfigMap", "data": 5}, "error", ["no key config.yaml"]),
        ("", "error", ["configuration: None is not possible here"]),
        ([], "error", ["configuration"]),
        # The grammar.
        ({"vgpu-configs": {"one": [entry({})]}}, "error", ["'version' is missing"]),
        (config(entry({})) | {"version": "v2"}, "error", ["version: 'v2' is not possible here", "v1"]),
        (config(entry({})) | {"vgpu-config": {}}, "error", ["field 'vgpu-config' is unknown", "Write vgpu-configs"]),
        ({"version": "v1", "vgpu-configs": {}}, "error", ["vgpu-configs"]),
        (config(), "error", ["one: [] is not possible here"]),
        (config(entry({}), name="no blanks"), "error", ["'no blanks'", "label value"]),
        (config(entry({}), name="x" * 64), "error", ["label value"]),
        (config(entry({}, device_filter=A10)), "error", ["one, entry 1", "field 'device_filter' is unknown", "Write device-filter"]),
        (config(without("devices")), "error", ["one, entry 1", "'devices' is missing"]),
        (config(without("vgpu-devices")), "error", ["'vgpu-devices' is missing"]),
        (config(entry({}, devices="some")), "error", ["one, entry 1, devices", "'some'", "all, or a list of indexes"]),
        (config(entry({}, devices=[-1])), "error", ["one, entry 1, devices"]),
        (config(entry({}, "0x2236")), "error", ["'0x2236' is no device-filter", "ignores it silently", "0x223610DE"]),
        (config(entry({}, "10DE:2236")), "error", ["is no device-filter"]),
        (config(entry({"A10-4Q": 0})), "error", ["one, entry 1, vgpu-devices.A10-4Q", "a whole number from 1 on"]),
        (config(entry({"A10-4Q": True})), "error", ["a whole number from 1 on"]),
        (config(entry({"NVIDIA A10-4Q": 6})), "error", ["'NVIDIA A10-4Q' is not the plain name", "Write A10-4Q"]),
        (config(entry({"a10-4q": 6})), "error", ["Write A10-4Q"]),
        (config(entry({"A10-4": 6})), "error", ["the series is missing"]),
        (config(entry({"T4-2B4": 6}, "0x1EB810DE")), "error", ["does not read 'T4-2B4'"]),
        # What it would do.
        (config(entry({"A10-4Q": 6}, "0x10DE2236")), "error", ["has the vendor 2236", "matches no GPU", "0x223610DE"]),
        (config(entry({"A16-4Q": 4}, "0x25B610DE")), "error", ["matches A2 and A16", A16, A2]),
        (config(entry({"A10-4Q": 6}, "0x268410DE")), "warning", ["no vGPU types are known"]),
        (config(without("device-filter")), "warning", ["no device-filter", "another model", "the filter of A10"]),
        (config(without("device-filter", entry({"A10-4Q": 7}))), "error", ["7 x 4 GB", "6 x A10-4Q"]),
        (config(without("device-filter", entry({"A11-4Q": 7}))), "warning", ["A11-4Q is no vGPU type that is known", "A10-4Q"]),
        (config(entry({"A10-4Q": 7})), "error", ["one, entry 1", "on A10, 7 x 4 GB", "The nearest that fit: 6 x A10-4Q"]),
        (config(entry({"A16-4Q": 4})), "error", ["A16-4Q is no vGPU type of A10", "A10-4Q"]),
        (config(entry({"A10-4Q": 3, "A10-6Q": 2})), "error", ["several sizes", "removes all vGPUs", "Use one size"]),
        (config(entry({"A30-1-6C": 1, "A30-4C": 1}, "0x20B710DE")), "error", ["A30-1-6C need MIG mode", "rejects both"]),
        (config(entry({"A30-1-6C": 5}, "0x20B710DE")), "error", ["at most 4 of 1g.6gb"]),
        (config(entry({"DC-16Q": 6}, "0x2C3A10DE")), "error", ["on DC-32", "at most 2"]),
        (config(entry({"DC-1-2QGFX": 48}, PRO)), "warning", ["1g.2gb+gfx", "1g.24gb+gfx"]),
        (config(entry({"DC-1-24QGFX": 4}, PRO)), "warning", ["never takes DC-1-24QGFX for applied"]),
        (config(entry({"A10-4Q": 6}), entry({"A10-8Q": 3})), "error", ["entries 1 and 2 are both for 0x223610DE", "one entry"]),
        (config(entry({"A10-4Q": 6}, devices=[0, 1]), entry({}, devices=[1])), "error", ["entries 1 and 2"]),
        (config(entry({"A16-4Q": 4}, A16), entry({}, "0x25B610DE")), "error", ["entries 1 and 2 are both for 0x25B610DE:0x14A910DE"]),
        (config(entry({"A10-4Q": 6}), without("device-filter", entry({}))), "error", ["entries 1 and 2 are both for the same GPU"]),
        (config(entry({"A10-4Q": 6}, devices=[1])), "error", ["no entry is for GPU 0", "an empty entry"]),
        (config(entry({"A10-4Q": 6}, devices=[0])), "warning", ["GPUs 0 to 0 only"]),
    ],
)
def test_what_is_wrong_is_said_with_its_place_and_what_to_do(bad, severity, words):
    found = checked(bad)
    said = [str(_lint.Finding(**finding)) for finding in found["findings"] if finding["severity"] == severity]
    assert any(all(word in text for word in words) for text in said), found["text"]
    assert found["ok"] is (not any(finding["severity"] == "error" for finding in found["findings"]))
    assert all(finding["where"] and finding["problem"] and finding["remedy"] for finding in found["findings"])


def test_one_broken_configuration_does_not_hide_another():
    both = {"version": "v1", "vgpu-configs": {"a": [entry({"A10-4Q": 0})], "b": [entry({"A10-4Q": 7})]}}
    assert [finding["where"].partition(",")[0] for finding in checked(both)["findings"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("given_config", "nodes", "profiles", "words"),
    [
        (
            config(entry({"A10-4Q": 6})),
            {"n": [board("10DE:2235")]},
            {"n": "one"},
            ["one, entry 1: it matches no GPU", "ignores it silently"],
        ),
        (config(entry({"A10-4Q": 6})), {"n": [board("10DE:2235")]}, None, ["one, entry 1: it matches no GPU"]),
        (config(entry({"A10-4Q": 6})), {"n": [board("10DE:2235")]}, {"n": "one"}, ["error: node n", "is for GPU 0 (0000:41:00.0)"]),
        (
            config(entry({"A10-4Q": 6})),
            {"n": [board("10DE:2236")]},
            {"n": "onne"},
            ["error: node n: there is no configuration 'onne'", "one"],
        ),
        (config(entry({"A10-4Q": 6})), {}, {"n": "one"}, ["warning: node n: its GPUs were not given"]),
        (
            config(entry({}, devices=[0])),
            {"n": [board("10DE:2236"), board("10DE:2236", "", "0000:a1:00.0")]},
            {"n": "one"},
            ["GPU 1 (0000:a1"],
        ),
        (
            config(without("device-filter")),
            {"n": [board("10DE:2235")]},
            {"n": "one"},
            ["error: node n, GPU 0, one, entry 1: A10-4Q is no vGPU type of A40"],
        ),
    ],
)
def test_what_a_configuration_does_on_nodes_is_said(given_config, nodes, profiles, words):
    text = checked(given_config, nodes=nodes, profiles=profiles)["text"]
    assert any(all(word in line for word in words) for line in text.splitlines()), text


def test_the_index_counts_by_address_whatever_the_order_of_the_input():
    two = config(entry({"A10-4Q": 6}, devices=[0]), entry({"A16-4Q": 4}, A16, [1]))
    gpus = [board("10DE:25B6", "10DE:14A9", "0000:a1:00.0"), board("10DE:2236", "", "0000:41:00.0")]
    assert checked(two, nodes={"n": gpus}, profiles={"n": "one"})["ok"]


@pytest.mark.parametrize(
    "options", [{"nodes": []}, {"nodes": {"n": "A10"}}, {"nodes": {"n": ["A10"]}}, {"profiles": ["n"]}, {"profiles": {"n": 1}}]
)
def test_nodes_and_profiles_of_another_shape_are_refused(options):
    with pytest.raises(AnsibleFilterError, match=f"{next(iter(options))}: write"):
        checked(config(entry({})), **options)


def test_a_missing_package_is_named_with_the_command(monkeypatch):
    monkeypatch.setattr(_lint, "MISSING", "No module named 'jsonschema'")
    with pytest.raises(AnsibleFilterError, match=r"jsonschema is missing on the controller .*pip install jsonschema"):
        checked(config(entry({})))


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(_lint.schema())


BOARDS = [("A10", "2236", "10DE:1482"), ("A16", "25B6", "10DE:14A9"), ("A2", "25B6", "10DE:157E"), ("A30", "20B7", "10DE:1532")]
TYPES = ["A10-4Q", "A10-4C", "A10-8Q", "A16-4Q", "A2-4Q", "A2-16Q", "A30-4C", "A30-1-6C"]
#: Entries that are right on the GPU of their filter, and any.
RIGHT = st.builds(
    lambda pair, devices: entry(dict(pair[1]), pair[0], devices),
    st.sampled_from(
        [(A10, {"A10-4Q": 6}), (A10, {"A10-4Q": 3, "A10-4C": 3}), (A16, {"A16-4Q": 4}), (A2, {"A2-16Q": 1}), (A2, {})]
        + [("0x20B710DE", {"A30-4C": 6}), ("0x20B710DE", {"A30-1-6C": 4}), (["0x20B710DE", A10], {})]
    ),
    st.sampled_from(["all", "all", [0], [1]]),
)
ANY = st.builds(
    lambda pattern, devices, types: {"devices": devices, "vgpu-devices": types} | ({"device-filter": pattern} if pattern else {}),
    st.sampled_from([None, A10, A16, A2, "0x25B610DE", [A10, "0x20B710DE"], "0x20B710DE", "0x10DE2236"]),
    st.sampled_from(["all", [0], [1], [0, 1]]),
    st.dictionaries(st.sampled_from(TYPES), st.sampled_from([1, 3, 4, 6]), max_size=2),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(RIGHT, RIGHT, RIGHT, ANY), min_size=1, max_size=3), st.lists(st.sampled_from(BOARDS), min_size=1, max_size=2))
def test_what_has_no_error_is_applied_whole_and_counts_as_applied(entries, boards):
    given_config = config(*entries)
    nodes = {"n": [board(f"10DE:{device}", subsystem, f"0000:{i}1:00.0") for i, (_family, device, subsystem) in enumerate(boards)]}
    devices = [Device(family, device, subsystem) for family, device, subsystem in boards]
    if checked(given_config, nodes=nodes, profiles={"n": "one"})["ok"]:
        device_manager.apply(entries, devices)
        assert device_manager.holds(entries, devices)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(BOARDS), st.booleans()), min_size=1, max_size=4))
def test_what_the_collection_makes_has_no_finding(chosen):
    kinds = {"A10": {"A10-8Q": 3}, "A16": {"A16-4Q": 4}, "A2": {"A2-16Q": 1}, "A30": {"A30-1-6C": 4}}
    gpus = [
        {"index": i, "address": f"0000:{i}1:00.0", "gpu": family, "vendor_device": f"10DE:{device}", "subsystem": subsystem}
        | {"mode": "equal" if full else "unused", "types": kinds[family] if full else {}}
        for i, ((family, device, subsystem), full) in enumerate(chosen)
    ]
    made = _device_config.device_config({"version": 1, "nodes": [{"node": "n", "gpus": gpus}]})
    found = checked(made["yaml"], nodes={"n": gpus}, profiles=made["profiles"])
    # Where each GPU has an index of its own, it is said that a larger node would not do.
    assert [finding for finding in found["findings"] if "0 to" not in finding["problem"]] == []
