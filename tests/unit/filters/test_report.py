# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import random

import pytest
from ansible.errors import AnsibleFilterError
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.filter.fleet_report import FilterModule
from ansible_collections.gpufleet.kubevirt.plugins.filter.fleet_report_text import FilterModule as TextFilterModule
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._report._report import STATES, fleet_report
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._report._text import fleet_report_text

WORKLOAD = "nvidia.com/gpu.workload.config"
A10, A40, AUDIO, VGPU = (
    "nvidia.com/GA102GL_A10",
    "nvidia.com/GA102GL_A40",
    "nvidia.com/GA102_HIGH_DEFINITION_AUDIO",
    "nvidia.com/NVIDIA_A10-4Q",
)


def node(name, workload=None, allocatable=None, **more):
    labels = {WORKLOAD: workload} if workload else {}
    return {
        "name": name,
        "ready": True,
        "schedulable": True,
        "workload": workload,
        "allocatable": allocatable or {},
        "used": {},
        **more,
        "labels": {**labels, **more.get("labels", {})},
    }


def intent(name, workload, expect=(), **more):
    return {"host": f"{name}.example", "node": name, "workload": workload, "profile": None, "state": "wanted", "why": None,
            "limited": True, "expect": list(expect), **more}  # fmt: skip


def fleet(*nodes, possible=None, **more):
    return {
        "cluster": {"server": "https://127.0.0.1:6443", "uid": "u", "version": "v1.34.0"},
        "nodes": list(nodes),
        "cluster_policy": None,
        "release": None,
        "kubevirt": None,
        "possible_gpu_nodes": [entry["name"] for entry in nodes] if possible is None else possible,
        **more,
    }


def only(report):
    assert len(report["nodes"]) == 1
    return report["nodes"][0]


C = intent("n", "container", [{"resource": "nvidia.com/gpu", "count": 2}])
P = intent("n", "vm-passthrough", [{"pci": "10DE:2236", "count": 2}])
TWO = intent("n", "vm-passthrough", [{"pci": "10DE:2236", "count": 1}, {"pci": "10DE:2235", "count": 1}])
V = intent("n", "vm-vgpu", [{"vgpu_type": "A10-4Q", "count": 12}], profile="A10-4Q")
PROFILE = {"nvidia.com/vgpu.config": "A10-4Q"}
OFF = {"nvidia.com/gpu.deploy.operands": "false"}


@pytest.mark.parametrize(
    ("found", "wanted", "state", "words"),
    [
        (node("n", "container", {"nvidia.com/gpu": 2}), C, "ok", []),
        (node("n", "container", {"nvidia.com/gpu": 1}), C, "drift", ["nvidia.com/gpu: 2 expected", "nvidia.com/gpu: 1"]),
        (node("n", "container"), C, "drift", ["advertises nothing"]),
        (node("n", "container", {"nvidia.com/gpu": 2, A10: 2}), C, "drift", [f"also advertises {A10}"]),
        (node("n", "vm-vgpu", {"nvidia.com/gpu": 2}), C, "drift", ["its label says vm-vgpu, the inventory container"]),
        (node("n", None, {"nvidia.com/gpu": 2}), C, "drift", ["its label says nothing"]),
        (node("n", "container", {"nvidia.com/gpu": 2}, ready=False), C, "drift", ["not ready"]),
        (node("n", "vm-passthrough", {A10: 2}), P, "ok", []),
        (node("n", "vm-passthrough", {A10: 2, AUDIO: 2}), P, "ok", []),
        (node("n", "vm-passthrough", {AUDIO: 2}), P, "drift", ["10DE:2236: 2 expected"]),
        (node("n", "vm-passthrough", {"nvidia.com/gpu": 2}), P, "drift", ["10DE:2236: 2 expected"]),
        (node("n", "vm-passthrough", {VGPU: 2}), P, "drift", ["10DE:2236: 2 expected"]),
        (node("n", "vm-passthrough", {A10: 1, A40: 1}), TWO, "ok", []),
        # One resource stands for one model.
        (node("n", "vm-passthrough", {A10: 1}), TWO, "drift", ["1 expected"]),
        (node("n", "vm-vgpu", {VGPU: 12}, labels=PROFILE), V, "ok", []),
        (node("n", "vm-vgpu", {VGPU: 11}, labels=PROFILE), V, "drift", ["A10-4Q: 12 expected"]),
        (node("n", "vm-vgpu", {"nvidia.com/NVIDIA_A10-8Q": 12}, labels=PROFILE), V, "drift", ["A10-4Q: 12 expected"]),
        (node("n", "vm-vgpu", {VGPU: 12}), V, "drift", ["its profile is not set, the inventory says A10-4Q"]),
        (node("n", "container", {}), {**C, "state": "refused", "why": "off in the firmware"}, "refused", ["off in the firmware"]),
        (node("n", None, {}, ready=False), {**C, "state": "refused", "why": "off"}, "refused", ["off", "not ready"]),
        # Of a host that was not read, the cluster still tells something.
        (node("n", "container", {}), {**C, "state": "unread", "expect": []}, "ok", []),
        (node("n", "vm-vgpu", {}), {**C, "state": "unread", "expect": []}, "drift", ["its label says vm-vgpu"]),
        (node("n", None, {}, labels=OFF), None, "foreign", []),
        (node("n", "container", {}), None, "foreign", []),
        (node("n"), None, "undecided", ["no decision"]),
        (node("n", "vm-magic"), None, "undecided", ["no decision"]),
    ],
)
def test_the_state_of_a_node(found, wanted, state, words):
    report = fleet_report(fleet(found), [wanted] if wanted else [])
    row = only(report)
    assert row["state"] == state and state in STATES
    assert report["status"] == ("ok" if state in ("ok", "foreign") else "attention")
    assert bool(row["problems"]) == bool(words)
    for word in words:
        assert word in " | ".join(row["problems"])


def test_a_host_whose_node_is_gone_is_not_forgotten():
    report = fleet_report(fleet(), [C])
    assert (only(report)["state"], only(report)["name"], only(report)["host"], report["status"]) == (
        "missing",
        "n",
        "n.example",
        "attention",
    )
    assert "cordoned" not in fleet_report_text(report)


def test_nodes_that_can_have_no_gpu_are_left_out():
    report = fleet_report(fleet(node("cpu"), node("gpu", labels=OFF), possible=["gpu", "gone"]))
    assert [row["name"] for row in report["nodes"]] == ["gpu"]


def test_an_inventory_host_is_shown_even_if_no_gpu_is_seen():
    assert only(fleet_report(fleet(node("n"), possible=[]), [C]))["state"] == "drift"


def test_totals_and_uses_are_sums():
    used = {A10: [{"namespace": "a", "pod": "p", "vmi": "v", "count": 1}, {"namespace": "b", "pod": "q", "vmi": None, "count": 1}]}
    report = fleet_report(fleet(node("a", "vm-passthrough", {A10: 2}, used=used), node("b", "vm-passthrough", {A10: 2, VGPU: 3})))
    assert report["nodes"][0]["used"] == {A10: 2}
    assert report["totals"] == {A10: {"allocatable": 4, "used": 2}, VGPU: {"allocatable": 3, "used": 0}}


def test_warnings_of_preflight_are_told_and_change_no_state():
    rules = [{"problem": "Dusty", "counts_as": "warn"}, {"problem": "Fine", "counts_as": "pass"}]
    report = fleet_report(fleet(node("n", "container", {"nvidia.com/gpu": 2})), [C], verdicts={"n.example": {"rules": rules}, "other": {}})
    assert (only(report)["state"], only(report)["warnings"]) == ("ok", ["Dusty"])
    assert "- n: Dusty" in fleet_report_text(report)


def test_what_the_cluster_runs_is_in_it():
    report = fleet_report(
        fleet(
            cluster_policy={"state": "ready"},
            release={"chart": "gpu-operator", "version": "v26.7.0", "status": "deployed"},
            kubevirt={"version": "v1.7.0", "permitted": {"pciHostDevices": []}},
        ),
        generated="2026-01-31T10:00:00Z",
    )
    assert report["operator"] == {"chart": "gpu-operator", "version": "v26.7.0", "release_status": "deployed", "policy_state": "ready"}
    assert report["kubevirt"] == {"version": "v1.7.0", "permitted": {"pciHostDevices": []}}
    text = fleet_report_text(report)
    for word in ("v26.7.0", "v1.7.0", "2026-01-31T10:00:00Z", "https://127.0.0.1:6443"):
        assert word in text


# ------------------------------------------------------------------ the text


def test_the_text_is_a_table_with_notes():
    report = fleet_report(
        fleet(
            node("gpu-a", "container", {"nvidia.com/gpu": 2}, used={"nvidia.com/gpu": [{"count": 1}]}),
            node("gpu-bb", "vm-passthrough", {}, schedulable=False),
        ),
        [
            intent("gpu-a", "container", [{"resource": "nvidia.com/gpu", "count": 2}]),
            intent("gpu-bb", "vm-passthrough", [{"pci": "10DE:2236", "count": 1}]),
        ],
        generated="2026-01-31T10:00:00Z",
        wanted={"version": "v26.7.0"},
    )
    assert fleet_report_text(report).splitlines() == [
        "GPU fleet of https://127.0.0.1:6443, 2026-01-31T10:00:00Z: attention",
        "GPU Operator not installed, KubeVirt not installed",
        "",
        "NODE    WORKLOAD        STATE            ADVERTISES (USED)",
        "gpu-a   container       ok               nvidia.com/gpu: 2 (1)",
        "gpu-bb  vm-passthrough  drift, cordoned  -",
        "",
        "- gpu-bb: 10DE:2236: 1 expected, and it advertises nothing",
        "",
        "- What differs from the inventory is mended by gpufleet.kubevirt.site",
    ]


def test_an_empty_fleet_has_a_report():
    report = fleet_report(fleet(), wanted={"version": "v26.7.0"})
    assert (report["status"], report["nodes"], report["totals"]) == ("ok", [], {})
    assert fleet_report_text(report).splitlines()[-1].startswith("NODE")
    assert "not compared: version" in fleet_report_text(fleet_report(fleet()))


NAMES = st.text("abcdefgh-", min_size=1, max_size=20)
RESOURCES = st.dictionaries(st.text("ABC_", min_size=1, max_size=25).map(lambda name: f"nvidia.com/{name}"), st.integers(1, 99), max_size=6)
NODES = st.lists(
    st.builds(node, NAMES, st.sampled_from([None, "container", "vm-passthrough", "vm-vgpu"]), RESOURCES),
    max_size=5,
    unique_by=lambda entry: entry["name"],
)


@given(NODES, st.randoms())
def test_the_report_does_not_depend_on_the_order_of_what_was_read(nodes, order: random.Random):
    intents = [intent(entry["name"], "vm-passthrough", [{"pci": "10DE:2236", "count": 2}]) for entry in nodes[::2]]
    report = fleet_report(fleet(*nodes), intents)
    mixed = [{**entry, "allocatable": dict(sorted(entry["allocatable"].items(), key=lambda _pair: order.random()))} for entry in nodes]
    order.shuffle(mixed)
    order.shuffle(intents)
    assert json.dumps(fleet_report(fleet(*mixed), intents)) == json.dumps(report)
    assert json.loads(json.dumps(report)) == report


@given(NODES)
def test_the_text_keeps_to_100_columns_and_loses_nothing(nodes):
    text = fleet_report_text(fleet_report(fleet(*nodes), [C]))
    assert max(map(len, text.splitlines())) <= 100
    for entry in nodes:
        assert any(line.startswith(entry["name"]) for line in text.splitlines())
        for resource, count in entry["allocatable"].items():
            assert f"{resource}: {count} (0)" in text


def test_a_long_note_is_wrapped_between_words():
    report = fleet_report(fleet(node("n")), [{**C, "state": "refused", "why": "word " * 60}])
    lines = fleet_report_text(report).splitlines()
    assert max(map(len, lines)) <= 100
    assert " ".join(lines).count("word") == 60


# ------------------------------------------------------------------ as filters


def test_the_filters_fail_with_a_sentence():
    make, show = FilterModule().filters()["fleet_report"], TextFilterModule().filters()["fleet_report_text"]
    assert show(make(fleet())).startswith("GPU fleet of")
    with pytest.raises(AnsibleFilterError, match="fleet_report: 'possible_gpu_nodes'"):
        make({"nodes": []})
    with pytest.raises(AnsibleFilterError, match="fleet_report_text: Reading a fleet report: it has no list of nodes"):
        show({})
