# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``kubevirt_permit`` on a real API server with KubeVirt's real definitions, from before 1.8 and from 1.8 on.

Real here: etcd, kube-apiserver (pruning, validation, conflicts, dry runs), and the definition of each release. Nothing of KubeVirt runs, so the
object's status is written here. HyperConverged's definition is a stand-in with the fields, list keys and types that its Go types have: no Go
module of it is to be had.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args

from tests.lab import build, cluster, definitions, pki, processes
from tests.lab.api import Api, ApiError
from tests.lab.layout import Layout

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
NAMESPACE = "/apis/{}/namespaces/default/{}"
KUBEVIRTS = NAMESPACE.format("kubevirt.io/v1", "kubevirts")
KUBEVIRT = f"{KUBEVIRTS}/kubevirt"
HCOS = NAMESPACE.format("hco.kubevirt.io/{}", "hyperconvergeds")
BEFORE, SINCE = ("v1.7.0",), ("v1.8.0", "v1.9.0")
OFF = "DisableMDEVConfiguration"
A10 = {"selector": "10de:2236", "resource_name": "nvidia.com/GA102GL_A10"}
A10_RAW = {"pciVendorSelector": "10DE:2236", "resourceName": "nvidia.com/GA102GL_A10", "externalResourceProvider": True}
NIC = {"pciVendorSelector": "8086:1572", "resourceName": "example.com/nic", "externalResourceProvider": True}

Object = dict[str, Any]


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Layout]:
    """etcd and an API server, and nothing else."""
    layout = Layout(tmp_path_factory.mktemp("versions") / "lab")
    directory = build.programs()
    ports = processes.free_ports(cluster.PORTS)
    layout.create({"ports": ports, "programs": str(directory)})
    try:
        pki.make(layout.pki)
        pki.write_kubeconfigs(layout, ports["kube-apiserver"])
        cluster.start_api_server(layout, cluster.commands(layout, directory, ports), cluster.health(layout, ports))
        yield layout
    finally:
        processes.stop(layout, seconds=1)
        layout.remove()
    assert processes.running(layout) == {}


@pytest.fixture(scope="module")
def api(layout: Layout) -> Api:
    return Api(layout, layout.read()["ports"]["kube-apiserver"])


def define(api: Api, definition: Object) -> None:
    """Install a definition in place of one that may be there, with all that was made with that, and wait until it is served."""
    name = definition["metadata"]["name"]
    collection = f"/apis/{definition['spec']['group']}/{definition['spec']['versions'][0]['name']}/{definition['spec']['names']['plural']}"
    api.delete(f"{DEFINITIONS}/{name}")
    until(lambda: api.find(f"{DEFINITIONS}/{name}") is None)
    api.create(DEFINITIONS, definition)  # the API server holds the first object back until it is 2 s old
    until(lambda: api.trouble(collection) is None)


def define_kubevirt(api: Api, version: str) -> None:
    if installed != [version]:
        define(api, definitions.kubevirt(version))
        installed[:] = [version]


#: The release whose definition the API server has.
installed: list[str] = []


def until(what: Any, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module", params=[*BEFORE, *SINCE])
def version(api: Api, request: pytest.FixtureRequest) -> str:
    """A release of KubeVirt, whose definition the API server has."""
    define_kubevirt(api, request.param)
    return str(request.param)


@pytest.fixture(scope="module")
def newest(api: Api) -> None:
    define_kubevirt(api, SINCE[-1])


def write(api: Api, configuration: Object, version: str | None = None, **metadata: Any) -> Object:
    """The KubeVirt object, made anew. Without a version as if no operator had looked at it yet."""
    api.delete(KUBEVIRT)
    body = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "KubeVirt",
        "metadata": {"name": "kubevirt", **metadata},
        "spec": {"configuration": configuration},
    }
    made: Object = api.create(KUBEVIRTS, body)
    if version:
        made = api.patch(f"{KUBEVIRT}/status", {"status": {"observedKubeVirtVersion": version}})
    return made


def configuration(api: Api) -> Object:
    found: Object = api.get(KUBEVIRT)["spec"]["configuration"]
    return found


class Requests(list[str]):
    """The methods of the requests that a module sent, as its client sent them to the API server."""


@pytest.fixture
def permit(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run ``kubevirt_permit`` through its ``main()``; its result, with the requests that it took."""
    client = importlib.import_module("ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._client")
    module = importlib.import_module("ansible_collections.gpufleet.kubevirt.plugins.modules.kubevirt_permit")
    kept = client.Client._send

    def run(check: bool = False, **params: Any) -> Object:
        sent, warned, printed = Requests(), [], io.StringIO()
        monkeypatch.setattr(client.Client, "_send", lambda self, method, *rest: (sent.append(method), kept(self, method, *rest))[1])
        monkeypatch.setattr(AnsibleModule, "warn", lambda self, warning, **kwargs: warned.append(str(warning)))
        arguments = {
            "kubeconfig": str(layout.kubeconfig("operator")),
            **params,
            "_ansible_check_mode": check,
            "_ansible_remote_tmp": "/tmp",
        }
        with patch_module_args(arguments), contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            module.main()
        result: Object = json.loads(printed.getvalue().strip().splitlines()[-1])
        return {"failed": False, **result, "requests": sent, "warnings": warned}

    return run


# ------------------------------------------------------------------ each release


def test_what_a_definition_does_not_know_is_pruned_without_a_word(api: Api, version: str) -> None:
    """The reason for all that follows: the field that older definitions lack looks as if it had been taken."""
    write(api, {})
    fields = {"mediatedDevicesConfiguration": {"enabled": False}, "developerConfiguration": {"disabledFeatureGates": ["GPUsWithDRA"]}}
    api.patch(KUBEVIRT, {"spec": {"configuration": fields}})
    assert configuration(api) == (fields if version in SINCE else {"mediatedDevicesConfiguration": {}, "developerConfiguration": {}})


@pytest.mark.parametrize("told", [True, False], ids=["version told", "version not told"])
def test_handling_is_turned_off_by_what_the_definition_has(api: Api, version: str, permit: Any, told: bool) -> None:
    before = {"developerConfiguration": {"featureGates": ["Snapshot"]}, "permittedHostDevices": {"pciHostDevices": [NIC]}}
    start = write(api, before, version if told else None)
    checked = permit(check=True, mdev_handling="disabled")
    assert not checked["failed"] and checked["changed"] and api.get(KUBEVIRT) == start
    done = permit(mdev_handling="disabled")
    assert not done["failed"] and done["changes"] == checked["changes"] and done["mdev_handling"] == "disabled"
    if version in SINCE:
        assert configuration(api) == {**before, "mediatedDevicesConfiguration": {"enabled": False}}
    else:
        assert configuration(api) == {**before, "developerConfiguration": {"featureGates": ["Snapshot", OFF]}}
    assert (done["requests"], permit(mdev_handling="disabled")["changed"]) == (["GET", "GET", "PATCH"], False)


def test_handling_is_turned_on_again(api: Api, version: str, permit: Any) -> None:
    field = {"mediatedDevicesConfiguration": {"enabled": False}} if version in SINCE else {}
    write(api, {"developerConfiguration": {"featureGates": [OFF, "Snapshot"]}, **field})
    done = permit(mdev_handling="enabled")
    assert not done["failed"] and done["mdev_handling"] == "enabled"
    assert configuration(api)["developerConfiguration"] == {"featureGates": ["Snapshot"]}
    assert configuration(api).get("mediatedDevicesConfiguration") == ({"enabled": True} if version in SINCE else None)


def test_entries_are_merged_and_others_keep_their_place(api: Api, version: str, permit: Any) -> None:
    usb = [{"resourceName": "example.com/usb", "selectors": [{"product": "2", "vendor": "1"}]}]
    write(api, {"permittedHostDevices": {"pciHostDevices": [NIC], "usb": usb}})
    vgpu = {"mdevNameSelector": "NVIDIA A10-4Q", "resourceName": "nvidia.com/NVIDIA_A10-4Q"}
    done = permit(pci_devices=[A10], mediated_devices=[vgpu])
    assert not done["failed"], done
    expected = {
        "pciHostDevices": [NIC, A10_RAW],
        "mediatedDevices": [{**vgpu, "externalResourceProvider": True}],
        "usb": usb,
    }
    assert configuration(api)["permittedHostDevices"] == expected == done["permitted"]
    assert not permit(pci_devices=[A10], mediated_devices=[vgpu])["changed"]


def test_the_list_of_disabled_gates_is_kept_or_its_loss_is_seen(api: Api, version: str, permit: Any) -> None:
    """Without a told version nothing but the API server can know; in check mode, too."""
    write(api, {})
    for check in (True, False):
        result = permit(check=check, feature_gates={"disabled": ["GPUsWithDRA"]})
        assert result["failed"] is (version in BEFORE)
        assert not result["failed"] or "pruned" in result["msg"]
        assert (
            any('unknown field "spec.configuration.developerConfiguration.disabledFeatureGates"' in w for w in result["warnings"])
            is result["failed"]
        )
    assert configuration(api)["developerConfiguration"] == ({"disabledFeatureGates": ["GPUsWithDRA"]} if version in SINCE else {})


def test_an_empty_list_stays_one_since_none_would_permit_everything(api: Api, version: str, permit: Any) -> None:
    write(api, {})
    made = permit(pci_devices=[A10])
    assert [change["action"] for change in made["changes"]] == ["restrict", "permit"]
    assert not permit(pci_devices=[A10], state="absent")["failed"]
    assert configuration(api)["permittedHostDevices"] == {"pciHostDevices": []}
    write(api, {"permittedHostDevices": {}})
    assert configuration(api)["permittedHostDevices"] == {}
    assert [change["action"] for change in permit(pci_devices=[A10])["changes"]] == ["permit"]


def test_hyperconvergeds_word_for_the_selector_would_be_refused_and_is_never_sent(api: Api, version: str, permit: Any) -> None:
    write(api, {"permittedHostDevices": {}})
    wrong = {"pciDeviceSelector": "10DE:2236", "resourceName": "nvidia.com/GA102GL_A10"}
    with pytest.raises(ApiError, match=r"422.*pciVendorSelector: Required value"):
        api.patch(KUBEVIRT, {"spec": {"configuration": {"permittedHostDevices": {"pciHostDevices": [wrong]}}}})
    done = permit(pci_devices=[wrong])
    assert not done["failed"] and len(done["warnings"]) == 1
    assert configuration(api)["permittedHostDevices"]["pciHostDevices"] == [A10_RAW]


# ------------------------------------------------------------------ requests, and others at the same time


def test_five_hundred_entries_cost_one_get_and_one_patch_and_then_one_get(api: Api, newest: None, permit: Any) -> None:
    others = [{**NIC, "resourceName": f"example.com/nic{number}"} for number in range(500)]
    write(api, {"permittedHostDevices": {"pciHostDevices": others}})
    entries = [{"selector": f"10DE:{number:04X}", "resource_name": f"nvidia.com/GPU{number}"} for number in range(500)]
    done = permit(pci_devices=entries)
    assert not done["failed"] and (len(done["changes"]), done["requests"]) == (500, ["GET", "PATCH"])
    found = configuration(api)["permittedHostDevices"]["pciHostDevices"]
    assert found[:500] == others and len(found) == 1000
    again = permit(pci_devices=entries)
    assert (again["changed"], again["requests"]) == (False, ["GET"])


def test_of_writers_at_the_same_time_all_win(layout: Layout, api: Api, newest: None) -> None:
    """They read before any of them writes, so that all but one meet the API server's conflict at least once."""
    writers = 3
    client = importlib.import_module("ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._client")
    module = importlib.import_module("ansible_collections.gpufleet.kubevirt.plugins.modules.kubevirt_permit")
    write(api, {"permittedHostDevices": {"pciHostDevices": [NIC]}})
    all_have_read, conflicts, left = threading.Barrier(writers), [], []

    class Asked:
        check_mode = False

        def __init__(self, number: int) -> None:
            auth = dict.fromkeys(client.auth_argument_spec())
            entries = {"pci_devices": [{**A10, "resource_name": f"nvidia.com/GPU{number}", "external": True}], "mediated_devices": []}
            rest = {"state": "present", "resource_prefix": None, "mdev_handling": "unmanaged", "feature_gates": None, "in_use": "refuse"}
            self.params = {
                **auth, **entries, **rest, "adopt_in_use": False, "name": None, "namespace": None,
                "kubeconfig": str(layout.kubeconfig("operator")),
            }  # fmt: skip

    def one(number: int) -> None:
        asked = Asked(number)
        run = module.Permit(asked, client.connect(asked))
        patch = run.client.patch

        def counted(*arguments: Any, **options: Any) -> Any:
            if run.client.patch is counted and not first:
                first.append(True)
                all_have_read.wait(20)
            try:
                return patch(*arguments, **options)
            except client.ApiError as error:
                conflicts.append(error.status)
                raise

        first: list[bool] = []
        run.client.patch = counted
        run.plan(run.observe())
        left.extend([*run.apply([]), *run.verify(run.observe())])

    threads = [threading.Thread(target=one, args=(number,)) for number in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert left == []
    assert set(conflicts) == {409} and len(conflicts) >= writers - 1
    names = [raw["resourceName"] for raw in configuration(api)["permittedHostDevices"]["pciHostDevices"]]
    assert names[0] == "example.com/nic" and sorted(names[1:]) == [f"nvidia.com/GPU{number}" for number in range(writers)]


# ------------------------------------------------------------------ HyperConverged, its definition a stand-in


def stand_in(version: str, field: bool) -> Object:
    """A definition with what matters here of HyperConverged's in one API version: names, required fields, list keys."""

    def entries(key: str) -> Object:
        fields = {key: {"type": "string"}, "resourceName": {"type": "string"}}
        flags = {"externalResourceProvider": {"type": "boolean"}, "disabled": {"type": "boolean"}}
        item = {"type": "object", "required": sorted(fields), "properties": {**fields, **flags}}
        return {"type": "array", "items": item, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}

    permitted = {"pciHostDevices": entries("pciDeviceSelector"), "mediatedDevices": entries("mdevNameSelector")}
    handling = {
        "mediatedDeviceTypes": {"type": "array", "items": {"type": "string"}},
        **({"enabled": {"type": "boolean"}} if field else {}),
    }
    settings: Object = {
        "permittedHostDevices": {"type": "object", "properties": permitted},
        "mediatedDevicesConfiguration": {"type": "object", "properties": handling},
    }
    gates: Object = {
        "type": "object",
        "properties": {"disableMDevConfiguration": {"type": "boolean"}, "downwardMetrics": {"type": "boolean"}},
    }
    if version == "v1":
        gate = {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string"}, "enabled": {"enum": ["True", "False"], "type": "string"}},
        }
        gates = {"type": "array", "items": gate}
        settings = {"virtualization": {"type": "object", "properties": settings}}
    spec = {"type": "object", "properties": {**settings, "featureGates": gates}}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}
    names = {"plural": "hyperconvergeds", "singular": "hyperconverged", "kind": "HyperConverged"}
    versions = [{"name": version, "served": True, "storage": True, "schema": schema}]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "hyperconvergeds.hco.kubevirt.io"},
        "spec": {"group": "hco.kubevirt.io", "scope": "Namespaced", "names": names, "versions": versions},
    }


@pytest.mark.parametrize(("version_", "field"), [("v1beta1", False), ("v1", True)])
def test_hyperconvergeds_object_is_changed_in_its_own_words(api: Api, newest: None, permit: Any, version_: str, field: bool) -> None:
    define(api, stand_in(version_, field))
    nested = version_ == "v1"
    own_nic = {"pciDeviceSelector": "8086:1572", "resourceName": "example.com/nic", "externalResourceProvider": True}
    settings: Object = {"permittedHostDevices": {"pciHostDevices": [own_nic]}}
    gates: Any = [{"name": "disableMDevConfiguration", "enabled": "False"}] if nested else {"disableMDevConfiguration": False}
    spec = {"featureGates": gates, **({"virtualization": settings} if nested else settings)}
    body = {
        "apiVersion": f"hco.kubevirt.io/{version_}",
        "kind": "HyperConverged",
        "metadata": {"name": "kubevirt-hyperconverged"},
        "spec": spec,
    }
    made = api.create(HCOS.format(version_), body)
    owner = {**{key: made[key] for key in ("apiVersion", "kind")}, "name": made["metadata"]["name"], "uid": made["metadata"]["uid"]}
    start = write(api, {"permittedHostDevices": {"pciHostDevices": [NIC]}}, ownerReferences=[{**owner, "controller": True}])
    wanted = {"pci_devices": [A10], "mdev_handling": "disabled"}
    checked, done = permit(check=True, **wanted), permit(**wanted)
    assert not done["failed"] and done["changes"] == checked["changes"] and done["mdev_handling"] == "disabled"
    assert api.get(KUBEVIRT)["metadata"]["resourceVersion"] == start["metadata"]["resourceVersion"]  # that is its operator's
    found = api.get(f"{HCOS.format(version_)}/kubevirt-hyperconverged")["spec"]
    now = found["virtualization"] if nested else found
    own_a10 = {"pciDeviceSelector": "10DE:2236", "resourceName": "nvidia.com/GA102GL_A10", "externalResourceProvider": True}
    assert now["permittedHostDevices"]["pciHostDevices"] == [own_nic, own_a10]
    assert now.get("mediatedDevicesConfiguration") == ({"enabled": False} if field else None)
    assert found["featureGates"] == (
        [{"name": "disableMDevConfiguration", "enabled": "True"}] if nested else {"disableMDevConfiguration": True}
    )
    assert not permit(**wanted)["changed"]
    refused = permit(pci_devices=[{**A10, "resource_name": "nvidia.com/OTHER"}])
    assert refused["failed"] and "one entry per selector" in refused["msg"]
    twice = {"permittedHostDevices": {"pciHostDevices": [own_a10, {**own_a10, "resourceName": "nvidia.com/OTHER"}]}}
    with pytest.raises(ApiError, match=r"422.*Duplicate value"):  # what it would have met
        api.patch(f"{HCOS.format(version_)}/kubevirt-hyperconverged", {"spec": {"virtualization": twice} if nested else twice})
    # What its operator makes of it, simulated: the KubeVirt definition takes it.
    api.patch(KUBEVIRT, {"spec": {"configuration": {"permittedHostDevices": done["permitted"]}}})
    assert configuration(api)["permittedHostDevices"]["pciHostDevices"] == [NIC, A10_RAW]


def test_what_argo_cd_applies_is_left_and_the_patch_to_commit_is_one(api: Api, newest: None, permit: Any) -> None:
    start = write(api, {"permittedHostDevices": {"pciHostDevices": [NIC]}}, annotations={"argocd.argoproj.io/tracking-id": "x"})
    refused = permit(pci_devices=[A10], mdev_handling="disabled")
    assert refused["failed"] and "Argo CD" in refused["msg"] and api.get(KUBEVIRT) == start
    api.request("PATCH", KUBEVIRT, refused["patch"], "application/merge-patch+json", fieldValidation="Strict")
    assert not permit(pci_devices=[A10], mdev_handling="disabled")["changed"]
