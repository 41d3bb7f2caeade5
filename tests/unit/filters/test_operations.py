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
        ("changed", [], ["nvidia.com/V", UNLISTED]),
        ("changed", [{"target": "permit pci"}], ["nvidia.com/A", "nvidia.com/V", UNLISTED]),
        ("always", [], ["nvidia.com/A", "nvidia.com/V", UNLISTED]),
        ("never", [{"target": "permit pci"}], []),
    ],
)
def test_smoke_tests_prove_what_the_mode_asks_for(mode, permits, expected):
    assert names(smoke_tests(INTENTS, BEFORE, AFTER, permits, mode)) == expected


def test_nothing_is_proven_when_nothing_changed():
    assert smoke_tests(INTENTS, AFTER, AFTER, []) == []


def test_a_container_node_is_never_proven_by_a_vm():
    assert "nvidia.com/gpu" not in names(smoke_tests(INTENTS, [], AFTER, [], "always"))


def test_the_unlisted_resource_must_be_denied():
    assert smoke_tests(INTENTS, [], AFTER, [], "always")[-1] == {"name": UNLISTED, "node": None, "expect": "denied"}


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
    assert awaited_nodes(intents) == [{"name": "a", "workload": "container", "expect": [{"resource": "nvidia.com/gpu", "count": 1}]}]
