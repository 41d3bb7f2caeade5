# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``kubevirt_permit`` where HyperConverged owns the KubeVirt object: its own object is changed, in its own words.

HyperConverged is simulated here. Its operator, its webhook (a gate that contradicts the field is refused) and its definition are written from
its Go types and sources, since no Go module of it is to be had that a real API server could be given.
"""

from __future__ import annotations

import copy
import typing as t

import pytest
from fake_api import FakeApi, Fault, merge
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _kubevirt, _kubevirt_hco, _kubevirt_seen
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._kubevirt_request import Request
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._kubevirt_seen import Entry, Seen

KUBEVIRT = "/apis/kubevirt.io/v1/namespaces/kubevirt-hyperconverged/kubevirts/kubevirt-kubevirt-hyperconverged"
HCO = "/apis/hco.kubevirt.io/{}/namespaces/kubevirt-hyperconverged/hyperconvergeds/kubevirt-hyperconverged"
CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/hyperconvergeds.hco.kubevirt.io"
A10 = {"selector": "10de:2236", "resource_name": "nvidia.com/GA102GL_A10"}
VGPU = {"selector": "NVIDIA A10-4Q", "resource_name": "nvidia.com/NVIDIA_A10-4Q"}
NIC = {"pciDeviceSelector": "8086:1572", "resourceName": "example.com/nic", "externalResourceProvider": True}
OFF = {"mdev_handling": "disabled"}
# The two shapes that its definition has had: where settings are, and how its feature gates are written.
SHAPES = {"v1beta1": {"disableMDevConfiguration": True}, "v1": [{"name": "disableMDevConfiguration", "enabled": "True"}]}


class HyperConverged:
    """Its object beside the KubeVirt object that its operator makes of it, in one API version."""

    def __init__(self, api: FakeApi, version: str, field: bool = True) -> None:
        self.api, self.version, self.path = api, version, HCO.format(version)
        self.reference: dict[str, t.Any] = {"apiVersion": f"hco.kubevirt.io/{version}", "kind": "HyperConverged", "controller": True}
        node: dict[str, t.Any] = {"properties": {"enabled": {"type": "boolean"}} if field else {}}
        for name in ("mediatedDevicesConfiguration", *reversed(_kubevirt_hco.VERSIONS[version]), "spec"):
            node = {"properties": {name: node}}
        # The version that is asked for counts, not the one that is stored.
        versions = [{"name": version, "storage": False, "schema": {"openAPIV3Schema": node}}]
        api.add(CRD, {"spec": {"versions": [*versions, {"name": "other", "storage": True, "schema": {"openAPIV3Schema": {}}}]}})

    def write(self, settings: dict[str, t.Any], gates: t.Any = None, **metadata: t.Any) -> None:
        spec: dict[str, t.Any] = copy.deepcopy(settings)
        for name in reversed(_kubevirt_hco.VERSIONS[self.version]):
            spec = {name: spec}
        spec.update({"featureGates": gates} if gates is not None else {}, deployment={"kept": True})
        self.api.add(self.path, {"apiVersion": f"hco.kubevirt.io/{self.version}", "metadata": metadata, "spec": spec})
        owner = {**self.reference, "name": "kubevirt-hyperconverged"}
        configuration = {"developerConfiguration": {"featureGates": ["HostDevices"]}}
        self.api.add(KUBEVIRT, {"metadata": {"ownerReferences": [owner]}, "spec": {"configuration": configuration}})

    @property
    def spec(self) -> dict[str, t.Any]:
        return self.api.objects[self.path]["spec"]

    @property
    def settings(self) -> dict[str, t.Any]:
        return _kubevirt_hco.at(self.spec, _kubevirt_hco.VERSIONS[self.version])


@pytest.fixture(params=SHAPES)
def hco(api: FakeApi, request: pytest.FixtureRequest) -> HyperConverged:
    api.add("/api/v1/nodes/n1")
    return HyperConverged(api, request.param)


def test_its_own_object_is_changed_in_its_own_words_and_kubevirts_is_not(api: FakeApi, hco: HyperConverged, run_module) -> None:
    usb = {"resourceName": "example.com/usb", "selectors": [{"vendor": "1", "product": "2"}]}
    hco.write({"permittedHostDevices": {"pciHostDevices": [NIC], "usbHostDevices": [usb]}, "evictionStrategy": "None"})
    arguments = {**api.params, "pci_devices": [A10], "mediated_devices": [VGPU]}
    checked = run_module("kubevirt_permit", arguments, check=True)
    assert not checked["failed"] and api.written == []
    done = run_module("kubevirt_permit", arguments)
    assert not done["failed"] and done["changes"] == checked["changes"] and len(done["changes"]) == 2
    assert [request.path for request in api.written] == [hco.path]
    assert hco.settings["permittedHostDevices"] == {
        "pciHostDevices": [
            NIC,
            {"pciDeviceSelector": "10DE:2236", "resourceName": "nvidia.com/GA102GL_A10", "externalResourceProvider": True},
        ],
        "usbHostDevices": [usb],
        "mediatedDevices": [
            {"mdevNameSelector": "NVIDIA A10-4Q", "resourceName": "nvidia.com/NVIDIA_A10-4Q", "externalResourceProvider": True}
        ],
    }
    assert hco.settings["evictionStrategy"] == "None" and hco.spec["deployment"] == {"kept": True}
    assert [raw["pciVendorSelector"] for raw in done["permitted"]["pciHostDevices"]] == ["8086:1572", "10DE:2236"]
    api.requests.clear()
    assert not run_module("kubevirt_permit", arguments)["changed"]
    assert [request.method for request in api.requests] == ["GET", "GET"]


@pytest.mark.parametrize("key", ["selector", "pciVendorSelector", "pciDeviceSelector"])
def test_any_of_the_selectors_names_is_understood_and_none_is_sent_on(api: FakeApi, hco: HyperConverged, run_module, key: str) -> None:
    hco.write({"permittedHostDevices": {}})
    entry = {key: "10de:2236", "resourceName": "nvidia.com/GA102GL_A10", "externalResourceProvider": False}
    done = run_module("kubevirt_permit", {**api.params, "pci_devices": [entry]})
    assert not done["failed"] and not done.get("warnings")
    expected = {"pciDeviceSelector": "10DE:2236", "resourceName": "nvidia.com/GA102GL_A10", "externalResourceProvider": False}
    assert hco.settings["permittedHostDevices"]["pciHostDevices"] == [expected]


@pytest.mark.parametrize("version", SHAPES)
@pytest.mark.parametrize(
    ("field", "gate", "enabled", "changed"),
    [
        (True, None, None, {"enabled": False}),
        (True, False, None, {"enabled": False, "gate": True}),
        (True, True, None, {"enabled": False, "gate": True}),
        (True, False, True, {"enabled": False, "gate": True}),
        (True, True, False, None),
        (False, None, None, {"gate": True}),
        (False, False, None, {"gate": True}),
        (False, True, None, None),
    ],
)
def test_handling_is_turned_off_by_its_field_and_its_gate_never_contradicts(
    api: FakeApi, run_module, version: str, field: bool, gate: bool | None, enabled: bool | None, changed: dict[str, bool] | None
) -> None:
    api.add("/api/v1/nodes/n1")
    hco = HyperConverged(api, version, field)
    gates: t.Any = {"downwardMetrics": True} if version == "v1beta1" else [{"name": "downwardMetrics"}]
    if gate is not None and version == "v1beta1":
        gates["disableMDevConfiguration"] = gate
    elif gate is not None:
        gates.append({"name": "disableMDevConfiguration", "enabled": str(gate)})
    hco.write(
        {} if enabled is None else {"mediatedDevicesConfiguration": {"enabled": enabled, "mediatedDeviceTypes": ["nvidia-222"]}}, gates
    )
    done = run_module("kubevirt_permit", {**api.params, **OFF})
    assert not done["failed"] and done["mdev_handling"] == "disabled"
    assert done["changed"] is (changed is not None) is bool(api.written)
    expected = {"enabled": enabled, "gate": gate, **(changed or {})}
    assert (hco.settings.get("mediatedDevicesConfiguration") or {}).get("enabled") == expected["enabled"]
    assert _kubevirt_hco.gate_off(api.objects[hco.path]) == expected["gate"]
    assert "downwardMetrics" in str(hco.spec["featureGates"])
    if enabled is not None:
        assert hco.settings["mediatedDevicesConfiguration"]["mediatedDeviceTypes"] == ["nvidia-222"]
    assert not run_module("kubevirt_permit", {**api.params, **OFF})["changed"]


@pytest.mark.parametrize("enabled", [None, False])
def test_handling_is_turned_on_by_both(api: FakeApi, hco: HyperConverged, run_module, enabled: bool | None) -> None:
    hco.write({} if enabled is None else {"mediatedDevicesConfiguration": {"enabled": enabled}}, SHAPES[hco.version])
    done = run_module("kubevirt_permit", {**api.params, "mdev_handling": "enabled"})
    assert not done["failed"] and done["mdev_handling"] == "enabled"
    assert {change["target"] for change in done["changes"]} >= {"feature gate disableMDevConfiguration"}
    assert _kubevirt_hco.gate_off(api.objects[hco.path]) is False
    assert (hco.settings.get("mediatedDevicesConfiguration") or {}).get("enabled") is (None if enabled is None else True)


def test_the_api_servers_no_to_a_contradiction_is_passed_on(api: FakeApi, hco: HyperConverged, run_module) -> None:
    """Simulated: HyperConverged's webhook."""
    hco.write({})
    api.faults = [Fault(403, when=lambda request: request.method == "PATCH", reason="Forbidden", message="the feature gate contradicts")]
    result = run_module("kubevirt_permit", {**api.params, **OFF})
    assert (
        result["failed"]
        and "the feature gate contradicts" in result["msg"]
        and result["blockers"][0]["target"].startswith("HyperConverged ")
    )


def test_a_second_name_for_a_selector_is_refused_since_its_list_has_one_per_selector(api: FakeApi, hco: HyperConverged, run_module) -> None:
    hco.write({"permittedHostDevices": {"pciHostDevices": [NIC]}})
    entry = {"selector": "8086:1572", "resource_name": "example.com/other"}
    result = run_module("kubevirt_permit", {**api.params, "pci_devices": [entry]})
    assert result["failed"] and "one entry per selector" in result["msg"] and "example.com/nic" in result["msg"] and api.written == []
    both = [{**A10, "resource_name": name} for name in ("nvidia.com/A", "nvidia.com/B")]
    assert "one entry per selector" in run_module("kubevirt_permit", {**api.params, "pci_devices": both})["msg"]


def test_a_disabled_entry_permits_nothing_and_is_enabled_where_it_stands(api: FakeApi, hco: HyperConverged, run_module) -> None:
    ours = {"pciDeviceSelector": "10DE:2236", "resourceName": "nvidia.com/GA102GL_A10", "externalResourceProvider": True, "disabled": True}
    hco.write({"permittedHostDevices": {"pciHostDevices": [ours, NIC]}})
    assert not run_module("kubevirt_permit", {**api.params, "pci_devices": [A10], "state": "absent"})["changed"]
    asked = {**api.params, "pci_devices": [{**A10, "resource_name": "known after apply"}]}
    planned = run_module("kubevirt_permit", asked, check=True)
    other = {"selector": "NVIDIA A10-4Q", "resource_name": "nvidia.com/NVIDIA_A10-4Q"}
    for result in (planned, run_module("kubevirt_permit", {**asked, "mediated_devices": [other]}, check=True)):
        assert not result["failed"], result["msg"]
    done = run_module("kubevirt_permit", {**api.params, "pci_devices": [A10]})
    for result in (planned, done):
        assert [(change["action"], change["reason"]) for change in result["changes"]] == [("correct", "it is disabled there")]
    ours.pop("disabled")
    assert hco.settings["permittedHostDevices"]["pciHostDevices"] == [ours, NIC]


@pytest.mark.parametrize(
    ("gates", "words"),
    [
        ({"present": ["HostDevices"]}, None),
        ({"absent": ["Sidecar"]}, None),
        ({"present": ["Sidecar"]}, "no setting"),
        ({"absent": ["HostDevices"]}, "no setting"),
    ],
)
def test_other_gates_are_hyperconvergeds_to_decide(api: FakeApi, hco: HyperConverged, run_module, gates, words: str | None) -> None:
    hco.write({})
    result = run_module("kubevirt_permit", {**api.params, "feature_gates": gates})
    assert result["failed"] is (words is not None) and (words or "") in result.get("msg", "") and api.written == []


def test_a_first_list_is_as_grave_there(api: FakeApi, hco: HyperConverged, run_module) -> None:
    hco.write({})
    devices = {"gpus": [{"name": "g", "deviceName": "example.com/nic"}]}
    machine = {"spec": {"template": {"spec": {"domain": {"devices": devices}}}}}
    api.add("/apis/kubevirt.io/v1/namespaces/net/virtualmachines/router", machine)
    result = run_module("kubevirt_permit", {**api.params, "pci_devices": [A10]})
    assert result["failed"] and "VM net/router" in result["msg"] and api.written == []


def test_where_argo_cd_applies_it_the_patch_is_in_its_own_words(api: FakeApi, hco: HyperConverged, run_module) -> None:
    hco.write({"permittedHostDevices": {"pciHostDevices": [NIC]}}, annotations={"argocd.argoproj.io/tracking-id": "x"})
    result = run_module("kubevirt_permit", {**api.params, "pci_devices": [A10]})
    assert result["failed"] and "Argo CD" in result["msg"] and api.written == []
    assert (result["patch"]["kind"], result["patch"]["apiVersion"]) == ("HyperConverged", f"hco.kubevirt.io/{hco.version}")
    settings = _kubevirt_hco.at(result["patch"]["spec"], _kubevirt_hco.VERSIONS[hco.version])
    assert [raw["pciDeviceSelector"] for raw in settings["permittedHostDevices"]["pciHostDevices"]] == ["8086:1572", "10DE:2236"]


def test_a_gate_that_it_cannot_disable_is_refused_also_where_argo_cd_applies_it(api: FakeApi, hco: HyperConverged, run_module) -> None:
    hco.write({}, annotations={"argocd.argoproj.io/tracking-id": "x"})
    api.objects[KUBEVIRT]["status"] = {"observedKubeVirtVersion": "v1.9.0"}
    result = run_module("kubevirt_permit", {**api.params, "feature_gates": {"disabled": ["GPUsWithDRA"]}})
    assert result["failed"] and "has no setting for this one" in result["msg"] and "Argo CD" in result["msg"] and api.written == []


@pytest.mark.parametrize(("reached", "warned"), [(False, True), (True, False)])
def test_handling_that_its_operator_has_not_turned_off_yet_is_warned_of(
    api: FakeApi, hco: HyperConverged, run_module, reached: bool, warned: bool
) -> None:
    hco.write({"mediatedDevicesConfiguration": {"enabled": False}})
    if reached:
        api.objects[KUBEVIRT]["spec"]["configuration"]["mediatedDevicesConfiguration"] = {"enabled": False}
    for check in (True, False):
        done = run_module("kubevirt_permit", {**api.params, **OFF}, check=check)
        assert not done["failed"] and not done["changed"]
        words = " ".join(done.get("warnings") or [])
        assert ("KubeVirt kubevirt-hyperconverged/kubevirt-kubevirt-hyperconverged still handles mediated devices" in words) is warned


def test_a_conflict_there_is_planned_anew(api: FakeApi, hco: HyperConverged, run_module) -> None:
    hco.write({"permittedHostDevices": {"pciHostDevices": []}})
    others = iter(range(2))

    def somebody_else(_request: t.Any) -> None:
        number = next(others, None)
        if number is not None:
            item = copy.deepcopy(api.objects[hco.path])
            entries = _kubevirt_hco.at(item["spec"], _kubevirt_hco.VERSIONS[hco.version])["permittedHostDevices"]["pciHostDevices"]
            entries.append({**NIC, "pciDeviceSelector": f"8086:000{number}"})
            api._store(hco.path, item)

    api.before_write = somebody_else
    assert not run_module("kubevirt_permit", {**api.params, "pci_devices": [A10]})["failed"]
    entries = hco.settings["permittedHostDevices"]["pciHostDevices"]
    assert [raw["pciDeviceSelector"] for raw in entries] == ["8086:0000", "8086:0001", "10DE:2236"]


def test_an_owner_that_is_served_in_another_version_than_its_reference_says_is_found(api: FakeApi, run_module) -> None:
    hco = HyperConverged(api, "v1")
    hco.reference["apiVersion"] = "hco.kubevirt.io/v1beta1"
    hco.write({"permittedHostDevices": {}})
    assert not run_module("kubevirt_permit", {**api.params, "pci_devices": [A10]})["failed"]
    assert [request.path for request in api.written] == [hco.path]


def test_an_owner_that_is_not_there_leaves_the_object_alone(api: FakeApi, hco: HyperConverged, run_module) -> None:
    hco.write({"permittedHostDevices": {}})
    del api.objects[hco.path]
    result = run_module("kubevirt_permit", {**api.params, "pci_devices": [A10]})
    assert result["failed"] and "was not found" in result["msg"] and api.written == [] and "patch" not in result


raw = st.fixed_dictionaries(
    {"pciDeviceSelector": st.sampled_from(["10DE:2236", "8086:1572"]), "resourceName": st.sampled_from(["nvidia.com/A", "x.y/N"])},
    optional={"externalResourceProvider": st.booleans(), "disabled": st.booleans(), "note": st.just("kept")},
)
lists = st.fixed_dictionaries(
    {}, optional={"pciHostDevices": st.lists(raw, max_size=2, unique_by=lambda r: r["pciDeviceSelector"]), "usbHostDevices": st.just([])}
)


@settings(max_examples=60)
@given(
    st.sampled_from(sorted(SHAPES)),
    lists,
    st.none() | st.booleans(),
    st.sampled_from(["present", "absent", "exact"]),
    st.sampled_from(["enabled", "disabled", "unmanaged"]),
    st.booleans(),
)
def test_what_is_written_settles_and_leaves_others_alone(version, before, gate, state, handling, field) -> None:
    gates: t.Any = None
    if gate is not None:
        gates = {"disableMDevConfiguration": gate} if version == "v1beta1" else [{"name": "disableMDevConfiguration", "enabled": str(gate)}]
    spec: dict[str, t.Any] = {"permittedHostDevices": before}
    spec = {"virtualization": spec} if version == "v1" else spec
    hco = {"apiVersion": f"hco.kubevirt.io/{version}", "metadata": {"name": "h", "namespace": "k"}, "spec": {**spec, "featureGates": gates}}
    kubevirt = {"metadata": {"name": "k", "namespace": "k"}, "spec": {}}
    now = Seen(kubevirt, field, (), hco=hco)
    request = Request((Entry("pci", "10de:2236", "nvidia.com/A"),), state, "nvidia.com/", mdev_handling=handling)
    plan, configuration = _kubevirt.make_plan(request, now)
    if plan.stopped:
        return
    # What its operator makes of it.
    made = {**kubevirt, "spec": {"configuration": {"mediatedDevicesConfiguration": {"enabled": handling != "disabled"}}}}
    after = Seen(made, field, (), hco=merge(copy.deepcopy(hco), {"spec": _kubevirt.patch(now, configuration)["spec"]}))
    assert _kubevirt.make_plan(request, after) == (type(plan)(), {})
    if handling != "unmanaged":
        assert _kubevirt_seen.handling(after) == handling
    where = _kubevirt_hco.VERSIONS[version]
    found = _kubevirt_hco.at(after.hco["spec"], where)["permittedHostDevices"]  # type: ignore[index]
    kept = [raw for raw in before.get("pciHostDevices", []) if raw["resourceName"] == "x.y/N"]
    assert [raw for raw in found.get("pciHostDevices", []) if raw["resourceName"] == "x.y/N"] == kept
    assert "pciVendorSelector" not in str(after.hco)
