# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Feature gates by KubeVirt's version: what is needed, what is ignored, what cannot be turned off.

The check of virt-operator's webhook (no gate in both lists) is simulated here; virt-operator runs in no test of this collection.
"""

from __future__ import annotations

import copy
import typing as t

import pytest
from fake_api import FakeApi, Fault, merge

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _kubevirt_gates
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._kubevirt_gates import parse

PATH = "/apis/kubevirt.io/v1/namespaces/kubevirt/kubevirts/kubevirt"
A10 = {"selector": "10de:2236", "resource_name": "nvidia.com/GA102GL_A10"}
OFF = "DisableMDEVConfiguration"


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("v1.7.0", (1, 7, 0)),
        ("1.9.1", (1, 9, 1)),
        ("v1.8.0-rc.1", (1, 8, 0)),
        ("v1.7.0-43-gabcdef", (1, 7, 0)),
        ("", None),
        (None, None),
        ("devel", None),
    ],
)
def test_a_version_is_read_or_nothing_is_concluded(text: str | None, version: t.Any) -> None:
    assert parse(text) == version


@pytest.mark.parametrize(
    ("gate", "version", "stage"),
    [
        ("GPU", "v1.3.1", "alpha"),
        ("GPU", "v1.4.0", "ga"),
        ("HostDevices", "v1.9.0", "alpha"),
        (OFF, "v0.58.1", "missing"),
        (OFF, "v0.58.2", "alpha"),
        (OFF, "v0.59.0", "missing"),
        (OFF, "v0.59.1", "alpha"),
        (OFF, "v1.7.4", "alpha"),
        (OFF, "v1.8.0", "deprecated"),
        ("GPUsWithDRA", "v1.5.3", "missing"),
        ("GPUsWithDRA", "v1.8.4", "alpha"),
        ("GPUsWithDRA", "v1.9.0", "beta"),
        ("VGPULiveMigration", "v1.8.4", "missing"),
        ("PCINUMAAwareTopology", "v1.7.0", "missing"),
        ("PCINUMAAwareTopology", "v1.8.0", "alpha"),
        ("Snapshot", "v1.9.0", None),
        ("GPU", None, None),
    ],
)
def test_the_stage_of_a_gate_is_that_of_the_tag(gate: str, version: str | None, stage: str | None) -> None:
    assert _kubevirt_gates.stage(gate, parse(version)) == stage


@pytest.mark.parametrize(
    ("gate", "version", "listed", "disabled", "on"),
    [
        ("GPU", "v1.7.0", [], [], True),
        ("GPU", "v1.7.0", [], ["GPU"], True),
        ("GPU", "v1.3.0", [], [], False),
        ("GPU", "v1.3.0", ["GPU"], [], True),
        ("GPUsWithDRA", "v1.9.0", [], [], True),
        ("GPUsWithDRA", "v1.9.0", [], ["GPUsWithDRA"], False),
        ("GPUsWithDRA", "v1.9.0", ["GPUsWithDRA"], ["GPUsWithDRA"], True),
        ("GPUsWithDRA", "v1.8.0", [], [], False),
        (OFF, "v1.9.0", [OFF], [], True),
        (OFF, "v0.59.0", [OFF], [], False),
        ("Snapshot", "v1.9.0", ["Snapshot"], [], True),
        ("Snapshot", None, [], [], False),
    ],
)
def test_a_gate_is_on_by_the_order_in_which_kubevirt_looks(
    gate: str, version: str | None, listed: t.Any, disabled: t.Any, on: bool
) -> None:
    assert _kubevirt_gates.on(gate, parse(version), listed, disabled) is on


# ------------------------------------------------------------------ through the module


@pytest.fixture
def kubevirt(api: FakeApi):
    def make(version: str | None, configuration: t.Any = None) -> None:
        spec = {"configuration": {"permittedHostDevices": {}, **(configuration or {})}}
        api.add(PATH, {"spec": spec, "status": {"observedKubeVirtVersion": version} if version else {}})
        api.faults = [Fault(422, 99, lambda request: in_both_lists(api, request), reason="Invalid", message="in both lists")]

    return make


def in_both_lists(api: FakeApi, request: t.Any) -> bool:
    """Simulated: what virt-operator's webhook for the KubeVirt object refuses."""
    if request.method != "PATCH":
        return False
    after = merge(copy.deepcopy(api.objects[PATH]), request.body)["spec"]["configuration"].get("developerConfiguration") or {}
    return bool({*after.get("featureGates", [])} & {*after.get("disabledFeatureGates", [])})


def developer(api: FakeApi) -> dict[str, t.Any]:
    found: dict[str, t.Any] = api.objects[PATH]["spec"]["configuration"].get("developerConfiguration") or {}
    return found


@pytest.mark.parametrize(
    ("version", "gates"),
    [("v0.59.1", ["GPU"]), ("v1.3.1", ["GPU"]), ("v1.4.0", None), ("v1.9.0", None), (None, None)],
)
def test_permitting_lists_the_gpu_gate_where_the_version_needs_it(api: FakeApi, kubevirt, run_module, version, gates) -> None:
    kubevirt(version)
    done = run_module("kubevirt_permit", {**api.params, "pci_devices": [A10]})
    assert not done["failed"] and developer(api).get("featureGates") == gates
    assert not run_module("kubevirt_permit", {**api.params, "pci_devices": [A10]})["changed"]
    assert done["feature_gates"].get("GPU", False) is (version is not None)


@pytest.mark.parametrize(
    "arguments", [{"pci_devices": [A10], "feature_gates": {"absent": ["GPU"]}}, {"pci_devices": [A10], "state": "absent"}]
)
def test_the_gpu_gate_is_not_listed_unasked_where_it_is_unwanted(api: FakeApi, kubevirt, run_module, arguments) -> None:
    kubevirt("v1.3.1")
    assert not run_module("kubevirt_permit", {**api.params, **arguments})["failed"] and developer(api) == {}


@pytest.mark.parametrize("version", ["v0.57.0", "v0.58.0", "v0.58.1", "v0.59.0"])
def test_a_version_that_cannot_stop_deleting_mediated_devices_is_refused(api: FakeApi, kubevirt, run_module, version: str) -> None:
    kubevirt(version)
    result = run_module("kubevirt_permit", {**api.params, "mdev_handling": "disabled"})
    assert result["failed"] and version in result["msg"] and "0.58.2" in result["msg"] and "0.59.1" in result["msg"] and api.written == []


@pytest.mark.parametrize("version", ["v0.58.2", "v0.59.1", "v1.7.0", None])
def test_others_before_1_8_get_the_gate(api: FakeApi, kubevirt, run_module, version: str | None) -> None:
    kubevirt(version)
    done = run_module("kubevirt_permit", {**api.params, "mdev_handling": "disabled"})
    assert not done["failed"] and developer(api)["featureGates"] == [OFF] and done["mdev_handling"] == "disabled"


@pytest.mark.parametrize(
    ("version", "gates", "failed", "words"),
    [
        ("v1.7.0", {"present": ["GPU"]}, False, "always on since KubeVirt 1.4"),
        ("v1.8.0", {"present": ["VGPULiveMigration"]}, True, "came with 1.9"),
        ("v0.59.0", {"present": [OFF]}, True, "came with 0.58.2"),
        ("v1.9.0", {"absent": ["GPUsWithDRA"]}, False, "feature_gates.disabled"),
        ("v1.9.0", {"absent": ["GPU"]}, False, "cannot be turned off"),
        ("v1.7.0", {"disabled": ["HostDevices"]}, True, "came with 1.8"),
        ("v1.9.0", {"disabled": ["GPU"]}, True, "always on since KubeVirt 1.4"),
        ("v1.9.0", {"present": ["HostDevices"], "disabled": ["HostDevices"]}, True, "asked for and forbidden"),
    ],
)
def test_a_gate_that_would_have_no_effect_is_said(api: FakeApi, kubevirt, run_module, version, gates, failed: bool, words: str) -> None:
    kubevirt(version)
    result = run_module("kubevirt_permit", {**api.params, "feature_gates": gates})
    assert result["failed"] is failed and api.written == []
    assert words in result.get("msg", "") + " ".join(result.get("warnings", []))


def test_a_gate_that_is_disabled_leaves_the_other_list_in_the_same_write(api: FakeApi, kubevirt, run_module) -> None:
    kubevirt("v1.9.0", {"developerConfiguration": {"featureGates": ["GPUsWithDRA", "Snapshot"], "disabledFeatureGates": ["IOMMUFD"]}})
    arguments = {**api.params, "feature_gates": {"disabled": ["GPUsWithDRA"]}}
    done = run_module("kubevirt_permit", arguments)
    assert not done["failed"], done
    assert developer(api) == {"featureGates": ["Snapshot"], "disabledFeatureGates": ["IOMMUFD", "GPUsWithDRA"]}
    assert done["feature_gates"]["GPUsWithDRA"] is False
    assert not run_module("kubevirt_permit", arguments)["changed"]


def test_a_gate_that_another_writer_disables_meanwhile_is_not_put_into_both_lists(api: FakeApi, kubevirt, run_module) -> None:
    kubevirt("v1.9.0")
    once = iter([True])

    def somebody_else(_request: t.Any) -> None:
        if next(once, False):
            api._store(PATH, merge(copy.deepcopy(api.objects[PATH]), DISABLED))

    api.before_write = somebody_else
    result = run_module("kubevirt_permit", {**api.params, "feature_gates": {"present": ["HostDevices"]}})
    assert result["failed"] and "disabledFeatureGates" in result["msg"] and developer(api) == {"disabledFeatureGates": ["HostDevices"]}


def test_what_the_api_server_warns_of_is_passed_on_and_blanks_are_not(api: FakeApi, kubevirt, run_module) -> None:
    kubevirt("v1.9.0")
    answer = api.answer

    def warned(request: t.Any) -> t.Any:
        status, item, headers = answer(request)
        said = (
            '299 - "gate \\"HostDevices\\" is alpha", 299 - "", 299 - " "'
            if request.method == "PATCH"
            else '299 - "v1alpha3 is deprecated"'
        )
        return status, item, {**headers, **({"Warning": said} if said else {})}

    api.answer = warned  # type: ignore[method-assign]
    done = run_module("kubevirt_permit", {**api.params, "feature_gates": {"present": ["HostDevices"]}})
    assert not done["failed"]
    assert done["warnings"] == ['The API server says of KubeVirt kubevirt/kubevirt: gate "HostDevices" is alpha']


DISABLED = {"spec": {"configuration": {"developerConfiguration": {"disabledFeatureGates": ["HostDevices"]}}}}


def test_the_simulated_webhook_refuses_a_gate_in_both_lists(api: FakeApi, kubevirt) -> None:
    kubevirt("v1.9.0", {"developerConfiguration": {"featureGates": ["HostDevices"]}})
    from fake_api import Request

    assert in_both_lists(api, Request("PATCH", PATH, {}, DISABLED))


@pytest.mark.parametrize(
    ("version", "handling"),
    [
        ("v0.58.1", "enabled"),
        ("v0.58.2", "disabled"),
        ("v0.59.0", "enabled"),
        ("v1.7.0", "disabled"),
        ("v1.9.0", "disabled"),
        (None, "disabled"),
    ],
)
def test_a_gate_that_a_version_does_not_have_turns_no_handling_off(api: FakeApi, run_module, version: str | None, handling: str) -> None:
    configuration = {"developerConfiguration": {"featureGates": [OFF]}}
    status = {"observedKubeVirtVersion": version} if version else {}
    api.add(PATH, {"spec": {"configuration": configuration}, "status": status})
    api.add("/api/v1/nodes/n1")
    assert run_module("kubevirt_permit", api.params)["mdev_handling"] == handling
    assert run_module("kubevirt_permit_info", api.params)["kubevirt"]["mdev_handling"] == handling
