# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What ``kubevirt_permit`` must not get wrong at the edges: names not known yet, first lists, contradictions, failures half way."""

from __future__ import annotations

import json
import typing as t

import pytest
from fake_api import FakeApi, Fault
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import KNOWN_AFTER_APPLY
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import (
    _kubevirt,
    _kubevirt_merge,
    _kubevirt_request,
    _kubevirt_seen,
)
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._kubevirt_request import Request
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._kubevirt_seen import Entry, Seen, User

PATH = "/apis/kubevirt.io/v1/namespaces/kubevirt/kubevirts/kubevirt"
PLANNED = Entry("pci", "10de:2236", KNOWN_AFTER_APPLY)
A10 = {"pciVendorSelector": "10DE:2236", "resourceName": "nvidia.com/GA102GL_A10", "externalResourceProvider": True}


def seen(configuration: t.Any = None, users: t.Iterable[tuple[str, str]] = (), **more: t.Any) -> Seen:
    kubevirt = {"metadata": {"name": "kubevirt", "namespace": "kubevirt"}, "spec": {"configuration": configuration or {}}}
    return Seen(kubevirt, more.pop("has_enabled_field", False), tuple(User(who, frozenset({name})) for who, name in users), **more)


def targets(plan: t.Any) -> list[tuple[str, str]]:
    return [(change.action, change.target) for change in plan.changes]


# ------------------------------------------------------------------ names not known yet


def test_exact_keeps_what_may_turn_out_to_be_the_planned_device() -> None:
    permitted = {"pciHostDevices": [A10, {**A10, "pciVendorSelector": "10DE:1EB8", "resourceName": "nvidia.com/TU104GL"}]}
    after, changes, _ = _kubevirt_merge.merged(permitted, Request((PLANNED,), "exact", "nvidia.com/"))
    assert [change.target for change in changes] == ["permit pci 10DE:1EB8"]
    assert after == {"pciHostDevices": [A10]}


@pytest.mark.parametrize(
    ("entry", "name", "blocked"),
    [
        (PLANNED, "nvidia.com/GA102GL_A10", False),
        (PLANNED, "nvidia.com/NVIDIA_A10-4Q", True),
        (Entry("mdev", "NVIDIA A10-4Q", KNOWN_AFTER_APPLY), "nvidia.com/NVIDIA_A10-4Q", False),
        (Entry("mdev", "NVIDIA A10-4Q", KNOWN_AFTER_APPLY), "nvidia.com/NVIDIA_A10-8Q", True),
        (Entry("mdev", "NVIDIA A10-4Q", KNOWN_AFTER_APPLY), "nvidia.com/GA102GL_A10", True),
    ],
)
def test_a_first_list_with_unknown_names_blocks_only_what_they_cannot_be(entry: Entry, name: str, blocked: bool) -> None:
    plan, _ = _kubevirt.make_plan(Request((entry,)), seen(users=[("VM ml/a", name)]))
    assert plan.stopped is blocked
    assert bool(plan.warnings) is not blocked


# ------------------------------------------------------------------ the first list


def test_a_name_without_a_domain_is_not_adopted() -> None:
    """A mediated entry whose resource name has no slash would crash virt-handler."""
    users = [("VM ml/a", "NVIDIA_A10-4Q"), ("VM ml/b", "nvidia.com/NVIDIA_A10-8Q")]
    plan, body = _kubevirt.make_plan(Request((Entry("pci", "10de:2236", "nvidia.com/X"),), adopt_in_use=True), seen(users=users))
    assert [blocker.target for blocker in plan.blockers] == ["device NVIDIA_A10-4Q"]
    assert [raw["resourceName"] for raw in body["permittedHostDevices"]["mediatedDevices"]] == ["nvidia.com/NVIDIA_A10-8Q"]


def test_the_first_list_is_made_where_nobody_uses_devices() -> None:
    plan, body = _kubevirt.make_plan(Request((Entry("pci", "10de:2236", "nvidia.com/GA102GL_A10"),)), seen())
    assert targets(plan) == [("restrict", "KubeVirt kubevirt/kubevirt"), ("permit", "permit pci 10DE:2236")]
    assert body == {"permittedHostDevices": {"pciHostDevices": [A10]}}


@given(
    st.lists(st.sampled_from(["nvidia.com/A", "nvidia.com/NVIDIA_A10-4Q", "x.example/N", "bare", "NVIDIA_A10-4Q"]), max_size=4),
    st.booleans(),
)
def test_nobody_is_cut_off_by_a_first_list_that_is_not_stopped(names: list[str], adopt: bool) -> None:
    request = Request((Entry("pci", "10de:2236", "nvidia.com/A"),), adopt_in_use=adopt)
    plan, body = _kubevirt.make_plan(request, seen(users=[(f"VM ml/{name}", name) for name in names]))
    allowed = _kubevirt_seen.names_in(body["permittedHostDevices"])
    assert plan.stopped is bool(set(names) - allowed)
    assert all("/" in name for name in allowed)


def test_an_empty_list_is_not_no_list() -> None:
    entry = Entry("pci", "10de:2236", "nvidia.com/A")
    plan, _ = _kubevirt.make_plan(Request((entry,)), seen({"permittedHostDevices": {}}, [("VM net/router", "example.com/nic")]))
    assert not plan.stopped
    assert targets(plan) == [("permit", "permit pci 10DE:2236")]


def test_removing_from_where_no_list_is_makes_none() -> None:
    plan, body = _kubevirt.make_plan(Request((Entry("pci", "10de:2236", "nvidia.com/A"),), "absent"), seen())
    assert (plan.changes, body) == ([], {})


# ------------------------------------------------------------------ contradictions and gates


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request((Entry("pci", "10de:2236", "a.b/C"), Entry("pci", "10DE:2236", "a.b/C", False))), "both as external and not"),
        (Request(mdev_handling="disabled", gates_absent=("DisableMDEVConfiguration",)), "mdev_handling decides"),
        (Request(mdev_handling="enabled", gates_present=("DisableMDEVConfiguration",)), "mdev_handling decides"),
    ],
)
def test_a_request_that_would_never_settle_is_refused(request_: Request, words: str) -> None:
    assert [problem for problem in _kubevirt_request.request_problems(request_, False) if words in str(problem)]


def test_one_device_in_two_spellings_is_one_entry() -> None:
    request = Request((Entry("pci", "10de:2236", "a.b/C"), Entry("pci", "10DE:2236", "a.b/C")))
    assert _kubevirt_request.request_problems(request, False) == []
    after, changes, _ = _kubevirt_merge.merged({}, request)
    assert len(changes) == len((after or {})["pciHostDevices"]) == 1


gates = st.lists(st.sampled_from(["HostDevices", "GPU", "Snapshot", "DisableMDEVConfiguration"]), max_size=4)


@given(gates, st.sampled_from(["enabled", "disabled", "unmanaged"]), st.booleans(), st.sampled_from([None, True, False]), gates)
def test_handling_is_as_asked_and_settles(before: list[str], wanted: str, known: bool, field: bool | None, present: list[str]) -> None:
    configuration: dict[str, t.Any] = {"developerConfiguration": {"featureGates": before}}
    if known and field is not None:
        configuration["mediatedDevicesConfiguration"] = {"enabled": field}
    request = Request(mdev_handling=wanted, gates_present=tuple(dict.fromkeys(present)))
    if _kubevirt_request.request_problems(request, False):
        return
    start = seen(configuration, has_enabled_field=known)
    plan, body = _kubevirt.make_plan(request, start)
    assert bool(body) is bool(plan.changes)
    end = seen({**configuration, **body}, has_enabled_field=known)
    if wanted != "unmanaged":
        assert _kubevirt_seen.handling(end) == wanted
    after = end.configuration["developerConfiguration"]["featureGates"]
    assert [gate for gate in after if gate in before] == [gate for gate in before if gate in after]
    assert set(present) <= set(after)
    again, rest = _kubevirt.make_plan(request, end)
    assert (again.changes, rest) == ([], {})


def test_a_gate_that_stands_among_the_disabled_ones_is_a_blocker() -> None:
    configuration = {"developerConfiguration": {"disabledFeatureGates": ["HostDevices"]}}
    plan, _ = _kubevirt.make_plan(Request(gates_present=("HostDevices",)), seen(configuration))
    assert [blocker.target for blocker in plan.blockers] == ["feature gate HostDevices"]


@pytest.mark.parametrize(("handling", "warned"), [({}, True), ({"mediatedDevicesConfiguration": {"enabled": False}}, False)])
def test_forbidding_a_type_that_kubevirt_would_then_delete_warns(handling: dict[str, t.Any], warned: bool) -> None:
    raw = {"mdevNameSelector": "NVIDIA A10-4Q", "resourceName": "nvidia.com/M", "externalResourceProvider": True}
    now = seen({"permittedHostDevices": {"mediatedDevices": [raw]}, **handling})
    plan, _ = _kubevirt.make_plan(Request((Entry("mdev", "NVIDIA A10-4Q", "nvidia.com/M"),), "absent"), now)
    assert any("deletes the devices" in warning for warning in plan.warnings) is warned


# ------------------------------------------------------------------ who uses devices


def test_users_are_found_in_vmis_templates_and_instancetypes() -> None:
    devices = {"gpus": [{"name": "g", "deviceName": "nvidia.com/A"}], "hostDevices": [{"name": "h", "deviceName": "example.com/nic"}]}
    claim = {"gpus": [{"name": "g", "claimName": "c", "requestName": "r"}]}
    vmi = {"metadata": {"name": "i", "namespace": "ml"}, "spec": {"domain": {"devices": devices}}}
    vm = {"metadata": {"name": "v", "namespace": "ml"}, "spec": {"template": {"spec": {"domain": {"devices": devices}}}}}
    bare = {"metadata": {"name": "w", "namespace": "ml"}, "spec": {"template": {"spec": {"domain": {"devices": claim}}}}}
    kind = {"metadata": {"name": "t"}, "spec": devices}
    both = frozenset({"nvidia.com/A", "example.com/nic"})
    assert _kubevirt_seen.users([vmi], [vm, bare], [kind]) == (User("VMI ml/i", both), User("VM ml/v", both), User("instancetype t", both))


# ------------------------------------------------------------------ through the module


@pytest.fixture
def kubevirt(api: FakeApi):
    def make(configuration: dict[str, t.Any] | None = None, **metadata: t.Any) -> None:
        api.add("/api/v1/nodes/n1")
        api.add(PATH, {"metadata": metadata, "spec": {"configuration": configuration or {}}})

    return make


WANTED = {"pci_devices": [{"selector": "10de:2236", "resource_name": "nvidia.com/GA102GL_A10"}]}


def test_the_handling_is_told_truly_without_managing_it(api: FakeApi, kubevirt, run_module) -> None:
    kubevirt({"permittedHostDevices": {}, "mediatedDevicesConfiguration": {"enabled": False}})
    assert run_module("kubevirt_permit", {**api.params, **WANTED})["mdev_handling"] == "disabled"


def test_a_refused_write_changes_nothing_and_says_so(api: FakeApi, kubevirt, run_module) -> None:
    kubevirt({"permittedHostDevices": {}})
    api.faults = [Fault(422, when=lambda request: request.method == "PATCH", reason="Invalid", message="the webhook said no")]
    result = run_module("kubevirt_permit", {**api.params, **WANTED})
    assert result["failed"] and not result["changed"] and "the webhook said no" in result["msg"]
    assert "Nothing was changed" in result["msg"] and "pruned" not in result["msg"]


def test_the_answer_to_the_write_is_what_is_read_back(api: FakeApi, kubevirt, run_module) -> None:
    kubevirt({"permittedHostDevices": {}})
    api.faults = [Fault(403, when=lambda request: request.method == "GET" and bool(api.written), reason="Forbidden")]
    result = run_module("kubevirt_permit", {**api.params, **WANTED})
    assert not result["failed"] and result["permitted"] == {"pciHostDevices": [A10]}


def test_five_hundred_entries_take_one_get_and_one_patch_and_then_one_get(api: FakeApi, kubevirt, run_module) -> None:
    old = [{**A10, "pciVendorSelector": f"8086:{number:04X}", "resourceName": f"example.com/nic{number}"} for number in range(500)]
    kubevirt({"permittedHostDevices": {"pciHostDevices": old}})
    entries = [{"selector": f"10DE:{number:04X}", "resource_name": f"nvidia.com/GPU{number}"} for number in range(500)]
    done = run_module("kubevirt_permit", {**api.params, "pci_devices": entries})
    assert not done["failed"] and len(done["changes"]) == 500
    assert [request.method for request in api.requests] == ["GET", "PATCH"]
    assert api.objects[PATH]["spec"]["configuration"]["permittedHostDevices"]["pciHostDevices"][:500] == old
    api.requests.clear()
    assert not run_module("kubevirt_permit", {**api.params, "pci_devices": entries})["changed"]
    assert [request.method for request in api.requests] == ["GET"]


def test_a_busy_server_is_asked_again(api: FakeApi, kubevirt, run_module, monkeypatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    kubevirt({"permittedHostDevices": {}})
    api.faults = [Fault(status, when=lambda request: request.method == "PATCH", headers={"Retry-After": "0"}) for status in (429, 500, 503)]
    assert not run_module("kubevirt_permit", {**api.params, **WANTED})["failed"]
    assert sum(request.method == "PATCH" for request in api.requests) == 4


def test_somebody_elses_gates_and_settings_survive(api: FakeApi, kubevirt, run_module) -> None:
    configuration = {
        "permittedHostDevices": {"pciHostDevices": [], "usb": [{"resourceName": "example.com/usb", "selectors": []}]},
        "developerConfiguration": {"featureGates": ["Snapshot"], "logVerbosity": {"virtHandler": 4}},
        "network": {"defaultNetworkInterface": "masquerade"},
    }
    kubevirt(configuration)
    arguments = {**api.params, **WANTED, "mdev_handling": "disabled", "feature_gates": {"present": ["HostDevices"]}}
    assert not run_module("kubevirt_permit", arguments)["failed"]
    after = api.objects[PATH]["spec"]["configuration"]
    assert after["developerConfiguration"]["featureGates"] == ["Snapshot", "HostDevices", "DisableMDEVConfiguration"]
    assert after["developerConfiguration"]["logVerbosity"] == {"virtHandler": 4}
    assert after["network"] == configuration["network"]
    assert after["permittedHostDevices"]["usb"] == configuration["permittedHostDevices"]["usb"]


def test_the_patch_to_commit_is_json(api: FakeApi, kubevirt, run_module) -> None:
    kubevirt({"permittedHostDevices": {}}, annotations={"argocd.argoproj.io/tracking-id": "x"})
    result = run_module("kubevirt_permit", {**api.params, **WANTED})
    remedy = result["blockers"][0]["remedy"]
    assert json.loads(remedy[remedy.index("{") :]) == {"configuration": {"permittedHostDevices": {"pciHostDevices": [A10]}}}
