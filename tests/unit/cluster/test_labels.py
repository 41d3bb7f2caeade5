# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import typing as t

import pytest
from fake_api import FakeApi, Fault, merge
from gpu_objects import A10, OPERANDS, PROFILE, REFUSED, STATE, VGPU, WORKLOAD, Json, launcher, node, operand_pod, pod, vmi
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _labels

MODULE = "gpu_node_label"
VMIS = "/apis/kubevirt.io/v1/namespaces/ml/virtualmachineinstances"


def fill(api: FakeApi, *items: Json) -> None:
    """Put nodes, pods and virtual machine instances where they live."""
    for item in items:
        metadata = item["metadata"]
        if "nodeInfo" in item.get("status", {}):
            api.add(f"/api/v1/nodes/{metadata['name']}", item)
        elif "domain" in item["spec"]:
            api.add(f"{VMIS}/{metadata['name']}", item)
        else:
            api.add(f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}", item)


def labels(api: FakeApi, name: str) -> Json:
    return dict(api.objects[f"/api/v1/nodes/{name}"]["metadata"]["labels"])


def notes(api: FakeApi, name: str) -> Json:
    return dict(api.objects[f"/api/v1/nodes/{name}"]["metadata"].get("annotations") or {})


def test_workload_and_profile_arrive_in_one_patch_per_node_and_foreign_labels_stay(api: FakeApi, run_module) -> None:
    fill(api, node("a", {"team": "ml"}), node("b"), node("c", {WORKLOAD: "container"}))
    wanted = [
        {"name": "a", "workload": "vm-vgpu", "vgpu_config": "A10-4Q", "operands": True},
        {"name": "b", "workload": "vm-passthrough", "labels": {"rack": "r1"}},
        {"name": "c", "workload": "container"},
    ]
    checked = run_module(MODULE, {**api.params, "nodes": wanted}, check=True, diff=True)
    assert not api.written
    done = run_module(MODULE, {**api.params, "nodes": wanted}, diff=True)
    assert done["changes"] == checked["changes"]
    assert done["diff"] == checked["diff"]
    assert sorted(change["target"] for change in done["changes"]) == ["node a", "node b"]
    assert sorted(request.path for request in api.written) == ["/api/v1/nodes/a", "/api/v1/nodes/b"]
    assert labels(api, "a") == {"team": "ml", WORKLOAD: "vm-vgpu", PROFILE: "A10-4Q"}
    assert labels(api, "b") == {WORKLOAD: "vm-passthrough", "rack": "r1"}
    api.requests.clear()
    again = run_module(MODULE, {**api.params, "nodes": wanted})
    assert not again["changed"]
    assert not api.written


def test_nothing_but_the_nodes_is_read_when_nobody_can_be_disturbed(api: FakeApi, run_module) -> None:
    fill(api, node("a", {WORKLOAD: "container"}))
    run_module(MODULE, {**api.params, "nodes": [{"name": "a", "workload": "container"}]})
    assert [request.path for request in api.requests] == ["/api/v1/nodes"]


def test_a_refused_node_is_kept_free_of_operands_and_taken_in_again(api: FakeApi, run_module) -> None:
    fill(api, node("a"))
    refuse = {"name": "a", "operands": False, "why": "the IOMMU is off"}
    assert run_module(MODULE, {**api.params, "nodes": [refuse]})["changed"]
    assert labels(api, "a") == {OPERANDS: "false"}
    assert notes(api, "a") == {REFUSED: "the IOMMU is off"}
    assert not run_module(MODULE, {**api.params, "nodes": [refuse]})["changed"]
    run_module(MODULE, {**api.params, "nodes": [{"name": "a", "operands": True, "workload": "vm-passthrough"}]})
    assert labels(api, "a") == {WORKLOAD: "vm-passthrough"}
    assert notes(api, "a") == {}


@pytest.mark.parametrize("entry", [{"operands": True, "workload": "container"}, {"operands": False, "why": "ours now"}])
def test_somebody_elses_decision_against_operands_stays(api: FakeApi, run_module, entry: Json) -> None:
    fill(api, node("a", {OPERANDS: "false"}))
    done = run_module(MODULE, {**api.params, "nodes": [{"name": "a", **entry}]})
    assert not done["failed"]
    assert labels(api, "a")[OPERANDS] == "false"
    assert notes(api, "a") == {}


def test_operands_that_run_are_never_taken_away_and_other_nodes_go_on(api: FakeApi, run_module) -> None:
    fill(api, node("a"), node("b"), operand_pod("vfio-manager", "a"))
    entries = [{"name": "a", "operands": False, "why": "refused"}, {"name": "b", "workload": "container"}]
    done = run_module(MODULE, {**api.params, "nodes": entries})
    assert done["failed"]
    assert [(b["target"], "vfio-manager run" in b["problem"]) for b in done["blockers"]] == [("node a", True)]
    assert OPERANDS not in labels(api, "a")
    assert labels(api, "b") == {WORKLOAD: "container"}
    assert [change["target"] for change in done["changes"]] == ["node b"]


def test_what_was_labelled_is_said_also_where_the_api_server_goes_away_then(api: FakeApi, run_module) -> None:
    fill(api, node("a"))
    api.faults = [Fault(403, 9, when=lambda request: any(sent.method == "PATCH" and sent is not request for sent in api.requests))]
    done = run_module(MODULE, {**api.params, "nodes": [{"name": "a", "workload": "container"}]})
    assert done["failed"] and labels(api, "a") == {WORKLOAD: "container"}
    assert [change["target"] for change in done["changes"]] == ["node a"] and "Nothing was changed" not in done["msg"]


def passthrough(name: str = "a") -> Json:
    return node(name, {WORKLOAD: "vm-passthrough"}, {A10: 2})


def profile(name: str = "a") -> Json:
    return node(name, {WORKLOAD: "vm-vgpu", PROFILE: "A10-4Q"}, {VGPU: 12})


@pytest.mark.parametrize(
    ("items", "entry", "who"),
    [
        pytest.param([passthrough(), launcher("v", "a", {A10: "1"})], {"workload": "vm-vgpu"}, "VM ml/v", id="workload"),
        pytest.param([profile(), launcher("v", "a", {VGPU: "1"})], {"vgpu_config": "A10-8Q"}, "VM ml/v", id="profile"),
        pytest.param([profile(), vmi("w", "a", [VGPU])], {"vgpu_config": "A10-8Q"}, "VM ml/w", id="a VM without a pod in sight"),
        pytest.param([profile(), launcher("v", "a", {VGPU: "1"})], {"operands": False}, "VM ml/v", id="operands"),
        pytest.param([node("a"), launcher("v", "a", {A10: "1"})], {"workload": "vm-passthrough"}, "VM ml/v", id="KubeVirt's own devices"),
        pytest.param(
            [node("a", {WORKLOAD: "container"}), pod("train", "a", {"nvidia.com/gpu": "1"})],
            {"workload": "vm-vgpu"},
            "pod ml/train",
            id="a pod loses its GPU with the workload",
        ),
    ],
)
def test_devices_in_use_stop_a_change_by_name(api: FakeApi, run_module, items: list[Json], entry: Json, who: str) -> None:
    fill(api, *items)
    before = labels(api, "a")
    done = run_module(MODULE, {**api.params, "nodes": [{"name": "a", **entry}]})
    assert done["failed"]
    assert who in done["blockers"][0]["problem"]
    assert who in done["msg"]
    assert labels(api, "a") == before
    forced = run_module(MODULE, {**api.params, "nodes": [{"name": "a", **entry}], "in_use": "ignore"})
    assert not forced["failed"]
    assert forced["changed"]


@pytest.mark.parametrize(
    ("items", "entry"),
    [
        pytest.param([passthrough(), launcher("v", "b", {A10: "1"})], {"workload": "vm-vgpu"}, id="on another node"),
        pytest.param([passthrough(), launcher("v", "a", {A10: "1"}, phase="Succeeded")], {"workload": "vm-vgpu"}, id="ended"),
        pytest.param([passthrough(), launcher("v", "a", {})], {"workload": "vm-vgpu"}, id="without a device"),
        pytest.param([passthrough(), launcher("v", "a", {A10: "1"})], {"labels": {"rack": "r1"}}, id="another label"),
        pytest.param([node("a"), operand_pod("device-plugin", "a"), pod("train", "a", {"nvidia.com/gpu": "1"})],
                     {"workload": "container"}, id="says what is already so"),
    ],
)  # fmt: skip
def test_a_change_that_takes_nothing_away_goes_on(api: FakeApi, run_module, items: list[Json], entry: Json) -> None:
    fill(api, *items)
    done = run_module(MODULE, {**api.params, "nodes": [{"name": "a", **entry}]})
    assert not done["failed"], done["msg"]
    assert done["changed"]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([{"name": "nobody", "workload": "container"}], "no such node"),
        ([{"name": "a"}, {"name": "a"}], "2 times"),
        ([{"name": "a", "labels": {"-x": "1"}}], "label key"),
        ([{"name": "a", "labels": {"x": "no blanks"}}], "label value"),
        ([{"name": "a", "vgpu_config": "A10 4Q"}], "label value"),
        ([{"name": "a", "labels": {WORKLOAD: "container"}}], "set by the option workload"),
        ([{"name": "a", "operands": False, "workload": "container"}], "workload is asked for"),
    ],
)
def test_bad_input_stops_everything(api: FakeApi, run_module, entries: list[Json], words: str) -> None:
    fill(api, node("a"), node("b"))
    done = run_module(MODULE, {**api.params, "nodes": [*entries, {"name": "b", "workload": "container"}]})
    assert done["failed"]
    assert words in done["msg"]
    assert not api.written


def test_an_unknown_workload_is_refused_before_anything_is_read(api: FakeApi, run_module) -> None:
    done = run_module(MODULE, {**api.params, "nodes": [{"name": "a", "workload": "vm-gpu"}]})
    assert done["failed"]
    assert "vm-passthrough" in done["msg"]
    assert not api.requests


def test_unknown_nodes_can_be_left_out(api: FakeApi, run_module) -> None:
    fill(api, node("a"))
    entries = [{"name": "nobody", "workload": "container"}, {"name": "a", "workload": "container"}]
    done = run_module(MODULE, {**api.params, "nodes": entries, "unknown_nodes": "warn"})
    assert not done["failed"]
    assert labels(api, "a") == {WORKLOAD: "container"}


CONFIG = {"name": "profiles", "namespace": "gpu-operator"}


@pytest.mark.parametrize(
    ("data", "failed"),
    [
        ({"config.yaml": "vgpu-configs: {A10-4Q: [], A10-8Q: []}"}, True),
        ({"config.yaml": "vgpu-configs: {A10-44Q: []}"}, False),
        ({"config.yaml": "[1, 2]"}, False),
        ({"config.yaml": "{"}, False),
        ({}, False),
        (None, False),
    ],
    ids=["not among them", "is one", "no mapping", "no YAML", "no key", "no ConfigMap"],
)
def test_a_profile_must_be_in_the_configuration_if_there_is_one(api: FakeApi, run_module, data: Json | None, failed: bool) -> None:
    fill(api, node("a"))
    if data is not None:
        api.add("/api/v1/namespaces/gpu-operator/configmaps/profiles", {"data": data})
    entry = {"name": "a", "workload": "vm-vgpu", "vgpu_config": "A10-44Q"}
    done = run_module(MODULE, {**api.params, "nodes": [entry], "config_map": CONFIG})
    assert done["failed"] is failed
    if failed:
        assert "A10-4Q" in done["blockers"][0]["remedy"]


def test_tokens_say_what_was_there_before_the_first_patch(api: FakeApi, run_module) -> None:
    fill(api, node("a", {STATE: "failed"}), node("b"), operand_pod("vgpu-device-manager", "a"))
    api.before_write = lambda request: api.objects["/api/v1/nodes/a"]["metadata"]["labels"].update({STATE: "success"})
    entries = [{"name": "a", "workload": "vm-vgpu", "vgpu_config": "A10-4Q"}, {"name": "b", "workload": "container"}]
    done = run_module(MODULE, {**api.params, "nodes": entries, "in_use": "ignore"})
    token = done["tokens"][0]
    assert len(done["tokens"]) == 1
    assert (token["name"], token["state"], token["pod"]) == ("a", "failed", "uid-vgpu-device-manager-a")
    assert labels(api, "a")[STATE] == "success"


def test_one_node_that_cannot_be_written_does_not_stop_the_others(api: FakeApi, run_module) -> None:
    fill(api, *(node(name) for name in "abc"))
    api.faults.append(Fault(403, 99, lambda request: request.method == "PATCH" and request.path.endswith("/b"), reason="Forbidden"))
    done = run_module(MODULE, {**api.params, "nodes": [{"name": name, "workload": "container"} for name in "abc"]})
    assert done["failed"]
    assert [blocker["target"] for blocker in done["blockers"]] == ["node b"]
    assert [labels(api, name).get(WORKLOAD) for name in "abc"] == ["container", None, "container"]


def test_a_label_that_does_not_stay_is_an_error(api: FakeApi, run_module) -> None:
    fill(api, node("a"))
    api.prune = lambda path, item: item["metadata"].get("labels", {}).pop(WORKLOAD, None)
    done = run_module(MODULE, {**api.params, "nodes": [{"name": "a", "workload": "container"}]})
    assert done["failed"]
    assert "did not take" in done["msg"]


KEYS = st.sampled_from([WORKLOAD, PROFILE, OPERANDS, "team", "rack"])
NODES = st.builds(
    lambda own, ours: node("a", own, None, {REFUSED: "x"} if ours else {}),
    st.dictionaries(KEYS, st.sampled_from(["container", "vm-vgpu", "vm-passthrough", "false", "x"])),
    st.booleans(),
)
WANTED = st.builds(
    _labels.Desired,
    name=st.just("a"),
    workload=st.sampled_from([None, "container", "vm-passthrough", "vm-vgpu"]),
    vgpu_config=st.sampled_from([None, "A10-4Q"]),
    operands=st.sampled_from([None, True, False]),
    why=st.sampled_from([None, "because", "b" * 1000]),
    labels=st.dictionaries(st.sampled_from(["team", "rack"]), st.sampled_from([None, "", "x", "y"])),
)


@given(NODES, WANTED)
def test_what_is_planned_is_reached_in_one_write_and_nothing_else_is_touched(before: Json, wanted: _labels.Desired) -> None:
    plan = _labels.make_plan([wanted], _labels.Observed({"a": before}))
    if plan.blockers:
        return
    after = copy.deepcopy(before)
    for change in plan.changes:
        after = t.cast(Json, merge(after, _labels.patch(change)))
    again = _labels.make_plan([wanted], _labels.Observed({"a": after}))
    assert not again.changes
    touchable = {WORKLOAD, PROFILE, OPERANDS, *wanted.labels}
    own, now = before["metadata"]["labels"], after["metadata"]["labels"]
    assert {k: v for k, v in own.items() if k not in touchable} == {k: v for k, v in now.items() if k not in touchable}
    if own.get(OPERANDS) == "false" and REFUSED not in before["metadata"]["annotations"]:
        assert now[OPERANDS] == "false"
