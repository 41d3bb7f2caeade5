# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from fake_api import FakeApi, Fault
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _kubevirt_view
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._kubevirt_seen import User

PATH = "/apis/kubevirt.io/v1/namespaces/kubevirt/kubevirts/kubevirt"
A10 = "nvidia.com/GA102GL_A10"
PERMITTED = {"pciHostDevices": [{"pciVendorSelector": "10de:2236", "resourceName": A10, "externalResourceProvider": True}]}


def node(name: str, **allocatable: str) -> dict[str, t.Any]:
    return {"metadata": {"name": name}, "status": {"allocatable": {"cpu": "4", **{f"nvidia.com/{k}": v for k, v in allocatable.items()}}}}


def user(name: str, who: str = "VM ml/a") -> User:
    return User(who, frozenset({name}))


@pytest.mark.parametrize(
    ("permitted", "nodes", "users", "orphans", "misses", "unpermitted"),
    [
        (PERMITTED, [node("n", GA102GL_A10="2")], [user(A10)], [], [], []),
        (PERMITTED, [node("n", GA102GL_A10="0")], [], [A10], [], []),
        (PERMITTED, [node("n")], [user(A10)], [A10], [(A10, "no node")], []),
        ({}, [node("n", GA102GL_A10="2")], [user(A10)], [], [(A10, "does not permit")], [A10]),
        ({}, [], [user(A10)], [], [(A10, "does not permit"), (A10, "no node")], []),
        (None, [node("n", GA102GL_A10="2")], [user(A10)], [], [], []),
        (None, [], [user("x.y/Z")], [], [("x.y/Z", "no node")], []),
        ({}, [node("n", gpu="2", GA102_HIGH_DEFINITION_AUDIO_CONTROLLER="2", **{"mig-1g.5gb": "7"})], [], [], [], []),
        ({"usb": [{"resourceName": "x.y/usb", "selectors": []}]}, [], [], ["x.y/usb"], [], []),
    ],
    ids=["agree", "withdrawn", "gone", "forbidden", "neither", "no list", "no list, no device", "not for VMs", "usb"],
)
def test_where_the_views_disagree(permitted, nodes, users, orphans, misses, unpermitted) -> None:
    found = _kubevirt_view.view(permitted, nodes, users, "nvidia.com/")
    assert found["orphans"] == orphans
    assert found["unpermitted"] == unpermitted
    assert len(found["misses"]) == len(misses)
    for miss, (name, words) in zip(found["misses"], misses, strict=True):
        assert miss["resource_name"] == name and words in miss["problem"]


def test_another_spelling_is_pointed_out() -> None:
    found = _kubevirt_view.view(PERMITTED, [node("n", GA102GL_A10="2")], [user("nvidia.com/GA102GL-A10")], "nvidia.com/")
    assert all(A10 in miss["remedy"] for miss in found["misses"]) and len(found["misses"]) == 2


names = st.sampled_from([A10, "nvidia.com/NVIDIA_A10-4Q", "nvidia.com/gpu", "x.y/Z"])


@given(st.none() | st.lists(names, max_size=3), st.dictionaries(names, st.integers(0, 3)), st.lists(names, max_size=3))
def test_every_request_is_either_met_or_a_miss(listed: list[str] | None, offers: dict[str, int], asked: list[str]) -> None:
    raw = [{"pciVendorSelector": "10de:2236", "resourceName": name} for name in listed or []]
    nodes = [{"metadata": {"name": "n"}, "status": {"allocatable": {name: str(number) for name, number in offers.items()}}}]
    found = _kubevirt_view.view(None if listed is None else {"pciHostDevices": raw}, nodes, [user(name) for name in asked], "nvidia.com/")
    devices = {device["resource_name"]: device for device in found["devices"]}
    missed = {miss["resource_name"] for miss in found["misses"]}
    assert {*asked, *(listed or [])} <= set(devices)
    for name in asked:
        assert (name in missed) is not (devices[name]["permitted"] and bool(devices[name]["advertised"]))
    assert not set(found["orphans"]) & {name for name, number in offers.items() if number}


def test_the_module_shows_all_three_sides_and_only_reads(api: FakeApi, run_module) -> None:
    api.add(PATH, {"spec": {"configuration": {"permittedHostDevices": PERMITTED}}, "status": {"observedKubeVirtVersion": "v1.7.0"}})
    api.add("/api/v1/nodes/n1", node("n1", GA102GL_A10="2"))
    devices = {"gpus": [{"name": "g", "deviceName": A10}]}
    api.add("/apis/kubevirt.io/v1/namespaces/ml/virtualmachines/a", {"spec": {"template": {"spec": {"domain": {"devices": devices}}}}})
    api.add("/apis/kubevirt.io/v1/namespaces/ml/virtualmachineinstances/a", {"spec": {"domain": {"devices": devices}}})
    result = run_module("kubevirt_permit_info", api.params)
    assert not result["failed"] and not result["changed"]
    assert result["devices"] == [
        {
            "resource_name": A10,
            "permitted": True,
            "entries": [{"kind": "pci", "selector": "10de:2236", "external": True}],
            "advertised": {"n1": 2},
            "requested_by": ["VM ml/a", "VMI ml/a"],
        }
    ]
    assert result["kubevirt"]["allow_list"] and result["kubevirt"]["version"] == "v1.7.0"
    gates = result["kubevirt"]["gates_in_effect"]
    assert gates["GPU"] and not gates["HostDevices"] and "VGPULiveMigration" not in gates
    assert {request.method for request in api.requests} == {"GET"}


def test_a_cluster_without_kubevirt_and_a_forbidden_read_are_named(api: FakeApi, run_module) -> None:
    assert "not installed" in run_module("kubevirt_permit_info", api.params)["msg"]
    api.add(PATH)
    api.faults = [Fault(403, when=lambda request: request.path == "/api/v1/nodes", reason="Forbidden")]
    result = run_module("kubevirt_permit_info", api.params)
    assert result["failed"] and "/api/v1/nodes" in result["msg"] and "403 Forbidden" in result["msg"]
