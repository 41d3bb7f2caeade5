# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import copy
import threading
import typing as t

import pytest
from fake_api import FakeApi, Fault
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _kubevirt, _kubevirt_merge, _kubevirt_seen
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._kubevirt_request import Request
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._kubevirt_seen import Entry

PATH = "/apis/kubevirt.io/v1/namespaces/kubevirt/kubevirts/kubevirt"
CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/kubevirts.kubevirt.io"
FOREIGN = {"pciVendorSelector": "8086:1572", "resourceName": "example.com/nic", "externalResourceProvider": True, "note": "kept"}
A10 = {"selector": "10de:2236", "resource_name": "nvidia.com/GA102GL_A10"}
A10_RAW = {"pciVendorSelector": "10DE:2236", "resourceName": "nvidia.com/GA102GL_A10", "externalResourceProvider": True}
VGPU = {"selector": "NVIDIA A10-4Q", "resource_name": "nvidia.com/NVIDIA_A10-4Q"}

# ------------------------------------------------------------------ the merge by itself

raw_pci = st.fixed_dictionaries(
    {
        "pciVendorSelector": st.sampled_from(["10DE:2236", "10de:2236", "8086:1572", "10de:25b6"]),
        "resourceName": st.sampled_from(["nvidia.com/A", "nvidia.com/B", "example.com/nic"]),
        "externalResourceProvider": st.booleans(),
    }
)
raw_mdev = st.fixed_dictionaries(
    {
        "mdevNameSelector": st.sampled_from(["NVIDIA A10-4Q", "NVIDIA_A10-4Q", "i915-GVTg_V5_4"]),
        "resourceName": st.sampled_from(["nvidia.com/M", "nvidia.com/N", "intel.com/gvt"]),
    }
)
usb = st.lists(st.just({"resourceName": "example.com/usb", "selectors": [{"vendor": "1", "product": "2"}]}), max_size=1)
permitted = st.none() | st.fixed_dictionaries(
    {}, optional={"pciHostDevices": st.lists(raw_pci, max_size=5), "mediatedDevices": st.lists(raw_mdev, max_size=4), "usb": usb}
)
entry = st.builds(
    Entry, st.just("pci"), st.sampled_from(["10de:2236", "10DE:25B6"]), st.sampled_from(["nvidia.com/A", "nvidia.com/C"]), st.booleans()
) | st.builds(
    Entry,
    st.just("mdev"),
    st.sampled_from(["NVIDIA A10-4Q", "NVIDIA A10-8Q"]),
    st.sampled_from(["nvidia.com/M", "nvidia.com/O"]),
    st.booleans(),
)
requests = st.builds(
    Request,
    st.lists(entry, max_size=3, unique_by=lambda e: e.key).map(tuple),
    st.sampled_from(["present", "absent", "exact"]),
    st.just("nvidia.com/"),
)


def read(after: t.Any) -> list[Entry]:
    return [_kubevirt_seen.read(kind, raw) for kind, (field, _) in _kubevirt_seen.FIELDS.items() for raw in (after or {}).get(field) or []]


@given(permitted, requests)
def test_the_merge_is_idempotent_and_does_what_was_asked(before: t.Any, request: Request) -> None:
    kept = copy.deepcopy(before)
    after, changes, blockers = _kubevirt_merge.merged(before, request)
    assert before == kept  # the input is not touched
    if blockers:
        return  # nothing is written then
    again, second, _ = _kubevirt_merge.merged(after, request)
    assert (again, second) == (after, [])
    assert (changes == []) == (after == before) or before is None
    keys = [found.key for found in read(after)]
    for wanted in request.entries:
        if request.state == "absent":
            assert wanted.key not in keys
        elif before is not None or request.entries:
            assert keys.count(wanted.key) == 1


@given(permitted, requests)
def test_entries_of_others_keep_their_place_and_spelling(before: t.Any, request: Request) -> None:
    after, _, _ = _kubevirt_merge.merged(before, request)
    ours = {wanted.key for wanted in request.entries}

    def foreign(spec: t.Any) -> list[t.Any]:
        return [
            raw
            for kind, (field, _) in _kubevirt_seen.FIELDS.items()
            for raw in (spec or {}).get(field) or []
            if _kubevirt_seen.read(kind, raw).key not in ours
            and not (request.state == "exact" and raw["resourceName"].startswith("nvidia.com/"))
        ]

    assert foreign(after) == foreign(before)
    assert (after or {}).get("usb") == (before or {}).get("usb")
    if before is not None:
        assert after is not None  # a list that goes would permit everything


@given(permitted.filter(bool), st.lists(requests, min_size=2, max_size=5))
def test_no_sequence_of_requests_moves_changes_or_loses_an_entry_of_others(before: t.Any, sequence: list[Request]) -> None:
    """Others' are: what no request names, and no exact one reaches by its prefix."""
    named = {wanted.key for request in sequence for wanted in request.entries}
    reached = any(request.state == "exact" for request in sequence)

    def others(spec: t.Any) -> t.Any:
        pairs = [
            (raw, _kubevirt_seen.read(kind, raw)) for kind, (field, _) in _kubevirt_seen.FIELDS.items() for raw in spec.get(field) or []
        ]
        return [
            raw for raw, found in pairs if found.key not in named and not (reached and found.resource_name.startswith("nvidia.com/"))
        ], spec.get("usb")

    now = before
    for request in sequence:
        after, _, blockers = _kubevirt_merge.merged(now, request)
        if not blockers:  # else nothing is written
            assert after is not None
            now = after
            assert _kubevirt_merge.merged(now, request)[:2] == (now, [])
        assert others(now) == others(before)


def test_an_existing_spelling_is_kept() -> None:
    before = {
        "pciHostDevices": [{"pciVendorSelector": "10de:2236", "resourceName": "nvidia.com/A", "externalResourceProvider": True}],
        "mediatedDevices": [{"mdevNameSelector": "NVIDIA_A10-4Q", "resourceName": "nvidia.com/M", "externalResourceProvider": True}],
    }
    wanted = (Entry("pci", "10DE:2236", "nvidia.com/A"), Entry("mdev", "NVIDIA A10-4Q", "nvidia.com/M"))
    assert _kubevirt_merge.merged(before, Request(wanted)) == (before, [], [])


@pytest.mark.parametrize(
    ("raw", "wanted", "blocked"),
    [
        ({"mediatedDevices": [{"mdevNameSelector": "X", "resourceName": "nvidia.com/M"}]}, Entry("mdev", "Y", "nvidia.com/M"), True),
        ({"pciHostDevices": [{"pciVendorSelector": "1:2", "resourceName": "nvidia.com/M"}]}, Entry("mdev", "Y", "nvidia.com/M"), True),
        (
            {"pciHostDevices": [{"pciVendorSelector": "10de:1", "resourceName": "nvidia.com/A"}]},
            Entry("pci", "10de:2", "nvidia.com/A"),
            False,
        ),
        ({"pciHostDevices": [{"pciVendorSelector": "10de:2", "resourceName": "x.y/A"}]}, Entry("pci", "10de:2", "x.y/B", False), True),
        ({"pciHostDevices": [{"pciVendorSelector": "10de:2", "resourceName": "x.y/A"}]}, Entry("pci", "10de:2", "x.y/B", True), False),
    ],
)
def test_what_would_break_a_plugin_is_a_blocker(raw: t.Any, wanted: Entry, blocked: bool) -> None:
    assert bool(_kubevirt_merge.merged(raw, Request((wanted,)))[2]) is blocked


# ------------------------------------------------------------------ the module


@pytest.fixture
def kubevirt(api: FakeApi):
    def make(configuration: dict[str, t.Any] | None = None, **metadata: t.Any) -> dict[str, t.Any]:
        api.add("/api/v1/nodes/n1", {"status": {"allocatable": {"nvidia.com/NVIDIA_A10-4Q": "12", "cpu": "4"}}})
        return api.add(PATH, {"metadata": metadata, "spec": {"configuration": configuration or {}}})

    return make


def field_known(api: FakeApi) -> None:
    node: dict[str, t.Any] = {"type": "boolean"}
    for name in ("enabled", "mediatedDevicesConfiguration", "configuration", "spec"):
        node = {"properties": {name: node}}
    api.add(CRD, {"spec": {"versions": [{"name": "v1", "storage": True, "schema": {"openAPIV3Schema": node}}]}})


def configuration(api: FakeApi) -> t.Any:
    return api.objects[PATH]["spec"]["configuration"]


def test_check_mode_the_run_and_the_second_run_agree(api: FakeApi, kubevirt, run_module) -> None:
    kubevirt({"permittedHostDevices": {"pciHostDevices": [FOREIGN]}})
    arguments = {**api.params, "pci_devices": [A10], "mediated_devices": [VGPU], "mdev_handling": "disabled"}
    checked = run_module("kubevirt_permit", arguments, check=True)
    assert api.written == [] and any(request.method == "PATCH" for request in api.requests)
    done = run_module("kubevirt_permit", arguments, diff=True)
    assert not done["failed"]
    assert done["changes"] == checked["changes"]
    assert {change["target"] for change in done["changes"]} == {
        "permit pci 10DE:2236", "permit mdev NVIDIA A10-4Q", "feature gate DisableMDEVConfiguration",
    }  # fmt: skip
    lists = configuration(api)["permittedHostDevices"]
    assert lists["pciHostDevices"] == [
        FOREIGN,
        {"pciVendorSelector": "10DE:2236", "resourceName": "nvidia.com/GA102GL_A10", "externalResourceProvider": True},
    ]
    assert done["mdev_handling"] == "disabled"
    count = len(api.written)
    assert not run_module("kubevirt_permit", arguments)["changed"]
    assert len(api.written) == count == 1


def test_handling_is_turned_off_by_the_field_where_the_crd_has_it(api: FakeApi, kubevirt, run_module) -> None:
    kubevirt()
    field_known(api)
    done = run_module("kubevirt_permit", {**api.params, "mdev_handling": "disabled"})
    assert configuration(api) == {"mediatedDevicesConfiguration": {"enabled": False}}
    assert done["mdev_handling"] == "disabled"
    assert not run_module("kubevirt_permit", {**api.params, "mdev_handling": "disabled"})["changed"]


def test_handling_is_not_turned_on_under_vgpus(api: FakeApi, kubevirt, run_module) -> None:
    kubevirt({"developerConfiguration": {"featureGates": ["DisableMDEVConfiguration", "HostDevices"]}})
    result = run_module("kubevirt_permit", {**api.params, "mdev_handling": "enabled"})
    assert result["failed"] and "n1 (nvidia.com/NVIDIA_A10-4Q)" in result["msg"] and api.written == []
    del api.objects["/api/v1/nodes/n1"]["status"]["allocatable"]["nvidia.com/NVIDIA_A10-4Q"]
    assert run_module("kubevirt_permit", {**api.params, "mdev_handling": "enabled"})["changed"]
    assert configuration(api)["developerConfiguration"]["featureGates"] == ["HostDevices"]


def vm(name: str) -> dict[str, t.Any]:
    devices = {"gpus": [{"name": "g", "deviceName": name}]}
    return {"spec": {"template": {"spec": {"domain": {"devices": devices}}}}}


def test_the_first_list_is_not_made_over_other_peoples_heads(api: FakeApi, kubevirt, run_module) -> None:
    kubevirt()
    api.add("/apis/kubevirt.io/v1/namespaces/net/virtualmachines/router", vm("example.com/nic"))
    api.add("/apis/kubevirt.io/v1/namespaces/ml/virtualmachines/a", vm("nvidia.com/NVIDIA_A10-8Q"))
    arguments = {**api.params, "pci_devices": [A10]}
    result = run_module("kubevirt_permit", arguments)
    assert result["failed"] and api.written == []
    assert "VM net/router" in result["msg"] and "VM ml/a" in result["msg"]
    adopting = run_module("kubevirt_permit", {**arguments, "adopt_in_use": True})
    assert adopting["failed"] and "ml/a" not in adopting["msg"] and "net/router" in adopting["msg"]
    listed = {"selector": "8086:1572", "resource_name": "example.com/nic"}
    done = run_module("kubevirt_permit", {**arguments, "pci_devices": [A10, listed], "adopt_in_use": True})
    assert not done["failed"], done
    assert configuration(api)["permittedHostDevices"]["mediatedDevices"][0]["resourceName"] == "nvidia.com/NVIDIA_A10-8Q"
    assert done["changes"][0]["target"] == "KubeVirt kubevirt/kubevirt"


@pytest.mark.parametrize(("in_use", "failed", "warned"), [("refuse", True, False), ("warn", False, True), ("ignore", False, False)])
def test_removing_what_is_in_use(api: FakeApi, kubevirt, run_module, in_use: str, failed: bool, warned: bool) -> None:
    raw = {"pciVendorSelector": "10DE:2236", "resourceName": "nvidia.com/GA102GL_A10", "externalResourceProvider": True}
    kubevirt({"permittedHostDevices": {"pciHostDevices": [raw]}})
    api.add("/apis/kubevirt.io/v1/namespaces/ml/virtualmachines/a", vm("nvidia.com/GA102GL_A10"))
    result = run_module("kubevirt_permit", {**api.params, "pci_devices": [A10], "state": "absent", "in_use": in_use})
    assert (result["failed"], bool(result.get("warnings"))) == (failed, warned)
    if not failed:
        assert configuration(api)["permittedHostDevices"] == {"pciHostDevices": []}


def test_a_conflict_is_planned_anew_and_the_other_writer_survives(api: FakeApi, kubevirt, run_module) -> None:
    kubevirt({"permittedHostDevices": {"pciHostDevices": []}})
    others = iter(range(3))

    def somebody_else(request: t.Any) -> None:
        number = next(others, None)
        if number is not None:
            item = copy.deepcopy(api.objects[PATH])
            item["spec"]["configuration"]["permittedHostDevices"]["pciHostDevices"].append(
                {**FOREIGN, "resourceName": f"example.com/nic{number}"}
            )
            api._store(PATH, item)

    api.before_write = somebody_else
    done = run_module("kubevirt_permit", {**api.params, "pci_devices": [A10]})
    assert not done["failed"], done
    names = [raw["resourceName"] for raw in configuration(api)["permittedHostDevices"]["pciHostDevices"]]
    assert names == ["example.com/nic0", "example.com/nic1", "example.com/nic2", "nvidia.com/GA102GL_A10"]


def test_endless_conflicts_end_with_a_failure(api: FakeApi, kubevirt, run_module) -> None:
    kubevirt({"permittedHostDevices": {}})
    api.faults = [Fault(409, times=99, when=lambda request: request.method == "PATCH", reason="Conflict")]
    result = run_module("kubevirt_permit", {**api.params, "pci_devices": [A10]})
    assert result["failed"] and "409 Conflict" in result["msg"] and "attempt 5" in result["msg"]


def test_two_runs_at_once_lose_nothing(api: FakeApi, kubevirt, run_module) -> None:
    """Two clients race for one object; the module's own parts are used, since its main() prints to one place."""
    from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _client, _permit_io

    kubevirt({"permittedHostDevices": {"pciHostDevices": [FOREIGN]}})

    class Module:
        params = {**dict.fromkeys(_client.auth_argument_spec()), **api.params}

    def permit(number: int) -> None:
        request = Request((Entry("pci", "10de:2236", f"nvidia.com/X{number}"),))
        client = _client.connect(Module())  # type: ignore[arg-type]
        for _ in range(50):
            seen = _permit_io.observe(client, request, None, None)
            _, body = _kubevirt.make_plan(request, seen)
            if not body:
                return
            try:
                client.patch(PATH, _kubevirt.patch(seen, body))
            except _client.ApiError as error:
                assert error.status == 409

    threads = [threading.Thread(target=permit, args=(number,)) for number in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    names = {raw["resourceName"] for raw in configuration(api)["permittedHostDevices"]["pciHostDevices"]}
    assert names == {"example.com/nic", *(f"nvidia.com/X{number}" for number in range(4))}


def test_pruning_is_seen(api: FakeApi, kubevirt, run_module) -> None:
    kubevirt()
    field_known(api)
    api.prune = lambda path, item: item.get("spec", {}).get("configuration", {}).pop("mediatedDevicesConfiguration", None)
    result = run_module("kubevirt_permit", {**api.params, "mdev_handling": "disabled"})
    assert result["failed"] and "pruned" in result["msg"]


def test_a_forbidden_dry_run_is_computed_here_with_a_warning(api: FakeApi, kubevirt, run_module) -> None:
    kubevirt({"permittedHostDevices": {}})
    api.faults = [Fault(403, times=99, when=lambda request: request.method == "PATCH", reason="Forbidden")]
    result = run_module("kubevirt_permit", {**api.params, "pci_devices": [A10]}, check=True)
    assert not result["failed"] and result["changed"] and result["warnings"]


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"ownerReferences": [{"kind": "HyperConverged", "name": "hco", "controller": True}]}, "HyperConverged hco"),
        ({"annotations": {"argocd.argoproj.io/tracking-id": "x"}}, "Argo CD"),
        ({"labels": {"kustomize.toolkit.fluxcd.io/name": "x"}}, "Flux"),
    ],
)
def test_an_object_that_somebody_else_applies_is_refused_with_the_patch(api: FakeApi, kubevirt, run_module, metadata, words: str) -> None:
    kubevirt({"permittedHostDevices": {}}, **metadata)
    result = run_module("kubevirt_permit", {**api.params, "pci_devices": [A10]})
    assert result["failed"] and words in result["msg"] and "10DE:2236" in result["msg"] and api.written == []
    if words != "HyperConverged hco":  # its own object is not there: tried where it is
        assert result["patch"] == {
            "apiVersion": "kubevirt.io/v1",
            "kind": "KubeVirt",
            "metadata": {"name": "kubevirt", "namespace": "kubevirt"},
            "spec": {"configuration": {"permittedHostDevices": {"pciHostDevices": [A10_RAW]}}},
        }
    assert not run_module("kubevirt_permit", {**api.params, "pci_devices": [], "mdev_handling": "unmanaged"})["failed"]


def test_a_planned_name_counts_in_check_mode_only(api: FakeApi, kubevirt, run_module) -> None:
    kubevirt({"permittedHostDevices": {}})
    planned = {"selector": "10DE:2236", "resource_name": "known after apply"}
    checked = run_module("kubevirt_permit", {**api.params, "pci_devices": [planned]}, check=True)
    assert [change["after"]["resource_name"] for change in checked["changes"]] == ["known after apply"]
    assert run_module("kubevirt_permit", {**api.params, "pci_devices": [planned]})["failed"]
    run_module("kubevirt_permit", {**api.params, "pci_devices": [A10]})
    assert not run_module("kubevirt_permit", {**api.params, "pci_devices": [planned]}, check=True)["changed"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"pci_devices": [{"selector": "10de", "resource_name": "nvidia.com/A"}]}, "no PCI vendor:device"),
        ({"pci_devices": [{"selector": "10de:2236", "resource_name": "A10"}]}, "no resource name"),
        ({"mediated_devices": [{"selector": " x", "resource_name": "nvidia.com/A"}]}, "no type name"),
        ({"mediated_devices": [VGPU, {**VGPU, "selector": "NVIDIA A10-8Q"}]}, "also asked for"),
        ({"state": "exact", "pci_devices": [A10]}, "resource_prefix"),
        ({"state": "exact", "resource_prefix": "amd.com/", "pci_devices": [A10]}, "outside the prefix"),
        ({"feature_gates": {"present": ["A"], "absent": ["A"]}}, "asked for and forbidden"),
    ],
)
def test_bad_input_is_refused_before_any_request(api: FakeApi, run_module, arguments, words: str) -> None:
    result = run_module("kubevirt_permit", {**api.params, **arguments})
    assert result["failed"] and words in result["msg"] and api.requests == []


def test_hyperconvergeds_word_for_a_selector_is_taken_for_kubevirts(api: FakeApi, kubevirt, run_module) -> None:
    """Kubevirt's definition would prune it, and then miss the selector."""
    kubevirt({"permittedHostDevices": {}})
    entry = {"pciDeviceSelector": "10DE:2236", "resourceName": "nvidia.com/GA102GL_A10"}
    done = run_module("kubevirt_permit", {**api.params, "pci_devices": [entry]})
    assert not done["failed"] and ["pciVendorSelector" in warning for warning in done["warnings"]] == [True]
    expected = {"pciVendorSelector": "10DE:2236", "resourceName": "nvidia.com/GA102GL_A10", "externalResourceProvider": True}
    assert configuration(api)["permittedHostDevices"] == {"pciHostDevices": [expected]}


def test_two_names_in_one_variable_are_warned_of(api: FakeApi, kubevirt, run_module) -> None:
    kubevirt({"permittedHostDevices": {"pciHostDevices": [FOREIGN, {**FOREIGN, "resourceName": "nvidia.com/ga102gl.a10"}]}})
    done = run_module("kubevirt_permit", {**api.params, "pci_devices": [A10]})
    assert not done["failed"] and [warning.split(":")[0] for warning in done["warnings"]] == ["device nvidia.com/GA102GL_A10"]
    assert "nvidia.com/ga102gl.a10" in done["warnings"][0]


def test_a_field_that_a_dry_run_loses_fails_check_mode_too(api: FakeApi, kubevirt, run_module) -> None:
    kubevirt()
    field_known(api)
    answer = api._patch

    def pruned(request: t.Any) -> t.Any:
        status, item = answer(request)
        item = copy.deepcopy(item)
        item["spec"]["configuration"].pop("mediatedDevicesConfiguration", None)
        return status, item

    api._patch = pruned
    checked = run_module("kubevirt_permit", {**api.params, "mdev_handling": "disabled"}, check=True)
    assert checked["failed"] and "pruned" in checked["msg"] and api.written == []


def test_a_definition_without_an_object_is_said(api: FakeApi, run_module) -> None:
    api.add(PATH)
    api.objects.pop(PATH)
    api._get = lambda request: (200, {"items": [], "metadata": {}})
    result = run_module("kubevirt_permit", {**api.params, "pci_devices": [A10]})
    assert result["failed"] and "must have one KubeVirt object, and has: none" in result["msg"]


def test_no_kubevirt_and_two_kubevirts_are_named(api: FakeApi, run_module) -> None:
    assert "not installed" in run_module("kubevirt_permit", {**api.params, "pci_devices": [A10]})["msg"]
    api.add(PATH)
    api.add(PATH.replace("kubevirts/kubevirt", "kubevirts/other"))
    assert "kubevirt/other" in run_module("kubevirt_permit", {**api.params, "pci_devices": [A10]})["msg"]


@pytest.mark.parametrize(("in_use", "failed", "warned"), [("refuse", True, 0), ("warn", False, 1), ("ignore", False, 0)])
@pytest.mark.parametrize("count", ["2", "0"])
def test_exact_with_a_part_of_the_fleet_stops_at_what_other_nodes_advertise(
    api: FakeApi, kubevirt, run_module, in_use: str, failed: bool, warned: int, count: str
) -> None:
    old = {**A10_RAW, "pciVendorSelector": "10DE:1EB8", "resourceName": "nvidia.com/TU104GL"}
    kubevirt({"permittedHostDevices": {"pciHostDevices": [old, FOREIGN]}})
    status = {"allocatable": {"nvidia.com/TU104GL": count, "example.com/nic": "4"}, "conditions": [{"type": "Ready", "status": "True"}]}
    api.add("/api/v1/nodes/elsewhere", {"status": status})
    arguments = {**api.params, "pci_devices": [A10], "state": "exact", "resource_prefix": "nvidia.com/", "in_use": in_use}
    result = run_module("kubevirt_permit", arguments)
    assert result["failed"] is (failed and count == "2")
    assert len(result.get("warnings", [])) == (warned if count == "2" else 0)
    if result["failed"]:
        assert "elsewhere advertises it" in result["msg"] and "part of the fleet" in result["msg"] and api.written == []


@pytest.mark.parametrize(("ready", "stops"), [("True", False), ("Unknown", True)])
def test_exact_stops_at_what_a_node_that_is_down_may_advertise_again(api: FakeApi, kubevirt, run_module, ready: str, stops: bool) -> None:
    kubevirt(
        {"permittedHostDevices": {"pciHostDevices": [{**A10_RAW, "pciVendorSelector": "10DE:1EB8", "resourceName": "nvidia.com/TU104GL"}]}}
    )
    status = {"allocatable": {"nvidia.com/TU104GL": "0"}, "conditions": [{"type": "Ready", "status": ready}]}
    api.add("/api/v1/nodes/down", {"status": status})
    result = run_module("kubevirt_permit", {**api.params, "pci_devices": [A10], "state": "exact", "resource_prefix": "nvidia.com/"})
    assert result["failed"] is stops
    assert not stops or "down (not ready) advertises it" in result["msg"]


@pytest.mark.parametrize("name", ["kubevirt_permit", "kubevirt_permit_info"])
def test_a_mistake_in_what_is_read_is_not_told_as_one_of_the_user(api: FakeApi, kubevirt, run_module, monkeypatch, name: str) -> None:
    kubevirt({})

    def broken(*_arguments: t.Any) -> t.NoReturn:
        raise KeyError("metadata")

    monkeypatch.setattr("ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._permit_io.users", broken)
    with pytest.raises(KeyError):
        run_module(name, {**api.params, **({"pci_devices": [A10]} if name == "kubevirt_permit" else {})})


def test_exact_removes_only_below_its_prefix(api: FakeApi, kubevirt, run_module) -> None:
    old = {"pciVendorSelector": "10DE:1EB8", "resourceName": "nvidia.com/TU104GL", "externalResourceProvider": True}
    kubevirt({"permittedHostDevices": {"pciHostDevices": [old, FOREIGN]}})
    done = run_module("kubevirt_permit", {**api.params, "pci_devices": [A10], "state": "exact", "resource_prefix": "nvidia.com/"})
    assert [raw["resourceName"] for raw in configuration(api)["permittedHostDevices"]["pciHostDevices"]] == [
        "example.com/nic",
        "nvidia.com/GA102GL_A10",
    ]
    assert {change["action"] for change in done["changes"]} == {"permit", "forbid"}
