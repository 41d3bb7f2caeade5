# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._operations._awaited import UNLISTED, awaited_nodes, smoke_tests


def intent(node, workload, **more):
    return {"node": node, "workload": workload, "state": "wanted", "limited": True, "expect": [], **more}


INTENTS = [intent("c", "container"), intent("p", "vm-passthrough"), intent("v", "vm-vgpu")]
BEFORE = [{"name": "c", "allocatable": {}}, {"name": "p", "allocatable": {"nvidia.com/A": 2}}, {"name": "v", "allocatable": {}}]
AFTER = [
    {"name": "c", "allocatable": {"nvidia.com/gpu": 2}, "resources": ["nvidia.com/gpu"]},
    {"name": "p", "allocatable": {"nvidia.com/A": 2}, "resources": ["nvidia.com/A"]},
    {"name": "v", "allocatable": {"nvidia.com/V": 12, "nvidia.com/AUDIO": 1}, "resources": ["nvidia.com/V"]},
]


def names(tests):
    return [test["name"] for test in tests]


@pytest.mark.parametrize(
    ("mode", "permits", "expected"),
    [
        ("changed", [], ["nvidia.com/V", "nvidia.com/gpu", UNLISTED]),
        ("changed", [{"target": "permit pci"}], ["nvidia.com/A", "nvidia.com/V", "nvidia.com/gpu", UNLISTED]),
        ("always", [], ["nvidia.com/A", "nvidia.com/V", "nvidia.com/gpu", UNLISTED]),
        ("never", [{"target": "permit pci"}], []),
    ],
)
def test_smoke_tests_prove_what_the_mode_asks_for(mode, permits, expected):
    assert names(smoke_tests(INTENTS, BEFORE, AFTER, permits, mode)) == expected


def test_nothing_is_proven_when_nothing_changed():
    assert smoke_tests(INTENTS, AFTER, AFTER, []) == []


def test_a_container_node_is_proven_by_a_pod_and_the_others_by_vms():
    kinds = {test["name"]: test["kind"] for test in smoke_tests(INTENTS, [], AFTER, [], "always")}
    assert kinds == {"nvidia.com/A": "vm", "nvidia.com/V": "vm", "nvidia.com/gpu": "pod", UNLISTED: "vm"}


def test_a_permit_that_changed_says_nothing_of_containers():
    assert names(smoke_tests(INTENTS[:1], AFTER, AFTER, [{"target": "permit pci"}])) == []


def test_the_unlisted_resource_must_be_denied_where_there_are_vms():
    assert smoke_tests(INTENTS, [], AFTER, [], "always")[-1] == {"name": UNLISTED, "node": None, "expect": "denied", "kind": "vm"}
    assert names(smoke_tests(INTENTS[:1], [], AFTER, [], "always")) == ["nvidia.com/gpu"]


def test_a_node_that_is_not_wanted_proves_nothing():
    assert smoke_tests([intent("p", "vm-passthrough", state="refused")], [], AFTER, [], "always") == []


@pytest.mark.parametrize(
    ("spoilt", "chosen"),
    [
        ({}, "p1"),
        ({"p1": {"used": {"nvidia.com/A": [{"count": 2}]}}}, "p2"),
        ({"p1": {"used": {"nvidia.com/A": [{"count": 1}]}}, "p2": {"used": {"nvidia.com/A": [{"count": 2}]}}}, "p1"),
        ({"p1": {"schedulable": False}}, "p2"),
        ({"p1": {"schedulable": False}, "p2": {"used": {"nvidia.com/A": [{"count": 2}]}}}, "p2"),
    ],
    ids=["by name", "not the full one", "the one with more left", "not the cordoned one", "rather full than cordoned"],
)
def test_of_several_nodes_one_with_free_units_is_chosen(spoilt, chosen):
    intents = [intent(name, "vm-passthrough") for name in ("p2", "p1")]
    nodes = [{"name": name, "allocatable": {"nvidia.com/A": 2}, "schedulable": True, **spoilt.get(name, {})} for name in ("p1", "p2")]
    assert smoke_tests(intents, nodes, nodes, [], "always")[0]["node"] == chosen


def test_check_mode_has_nothing_to_prove_yet():
    assert smoke_tests(INTENTS, BEFORE, [], [{"target": "permit pci"}]) == []


def test_an_unknown_mode_is_named():
    with pytest.raises(ValueError, match="sometimes"):
        smoke_tests(INTENTS, BEFORE, AFTER, [], "sometimes")


def test_refused_hosts_and_hosts_outside_the_run_are_not_awaited():
    intents = [
        intent("a", "container", expect=[{"resource": "nvidia.com/gpu", "count": 1}]),
        intent("b", "container", state="refused"),
        intent("c", "container", limited=False),
    ]
    [node] = awaited_nodes(intents)
    assert node == {"name": "a", "workload": "container", "owner": "operator", "expect": [{"resource": "nvidia.com/gpu", "count": 1}]}


def test_only_nodes_of_the_owners_that_are_asked_for_are_awaited():
    intents = [intent("a", "container"), intent("b", "vm-vgpu", owner="host")]
    assert [[node["name"] for node in awaited_nodes(intents, owners)] for owners in (["operator"], ["host"], ["operator", "host"])] == [
        ["a"],
        ["b"],
        ["a", "b"],
    ]
