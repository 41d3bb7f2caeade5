# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a request for a VM with GPUs becomes, and what is refused of it before anything is read."""

from __future__ import annotations

import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _vm, _vm_request

WHOLE = "nvidia.com/GA102GL_A10"
VGPU = "nvidia.com/NVIDIA_A10-4Q"
LICENCE = _vm.Licence("token", "client_configuration_token.tok")


def request(*resources: str, **more: t.Any) -> _vm.Request:
    gpus = tuple(_vm.Gpu(f"gpu{number}", resource) for number, resource in enumerate(resources or (VGPU,)))
    return _vm.Request(**{"name": "vm", "namespace": "ml", "gpus": gpus, "memory": "16Gi", **more})


def inside(**spec: t.Any) -> dict[str, t.Any]:
    return {"spec": {"template": {"spec": spec}}}


def template(asked: _vm.Request) -> dict[str, t.Any]:
    assert _vm_request.problems(asked) == []
    found = _vm.manifest(asked, "Always")["spec"]["template"]["spec"]
    assert isinstance(found, dict)
    return found


def test_a_vm_has_its_devices_its_memory_and_a_run_strategy() -> None:
    made = _vm.manifest(request(VGPU, VGPU, cpu_cores=4), "Halted")
    assert (made["apiVersion"], made["kind"]) == ("kubevirt.io/v1", "VirtualMachine")
    assert made["metadata"] == {"name": "vm", "namespace": "ml", "annotations": {"gpufleet.kubevirt/made-by": "gpu_vm"}}
    assert made["spec"]["runStrategy"] == "Halted"
    assert "running" not in made["spec"]
    domain = made["spec"]["template"]["spec"]["domain"]
    assert domain["devices"]["gpus"] == [{"name": "gpu0", "deviceName": VGPU}, {"name": "gpu1", "deviceName": VGPU}]
    assert domain["cpu"] == {"cores": 4}


def test_all_of_the_guests_memory_is_requested_wherever_it_was_said() -> None:
    said = inside(domain={"memory": {"guest": "16Gi", "hugepages": {"pageSize": "1Gi"}}})
    for domain in (template(request())["domain"], template(request(memory=None, **said))["domain"]):
        assert domain["memory"]["guest"] == "16Gi"
        assert domain["resources"] == {"requests": {"memory": "16Gi"}}


def test_an_instancetype_has_processors_and_memory_and_the_vm_says_nothing_of_them() -> None:
    asked = request(instancetype=("big", "cluster"), preference=("linux", "namespace"), memory=None)
    made = _vm.manifest(asked, "Always")["spec"]
    assert made["instancetype"] == {"name": "big", "kind": "VirtualMachineClusterInstancetype"}
    assert made["preference"] == {"name": "linux", "kind": "VirtualMachinePreference"}
    assert not {"memory", "resources", "cpu"} & set(template(asked)["domain"])


@pytest.mark.parametrize(
    ("said", "networks"),
    [
        ({}, [{"name": "default", "pod": {}}]),
        ({"networks": []}, []),
        ({"networks": [{"name": "lan", "multus": {"networkName": "lan"}}]}, [{"name": "lan", "multus": {"networkName": "lan"}}]),
        ({"domain": {"devices": {"interfaces": []}}}, None),
        ({"domain": {"devices": {"autoattachPodInterface": False}}}, None),
    ],
)
def test_only_a_vm_of_which_nothing_is_said_gets_the_pod_network(said: dict[str, t.Any], networks: t.Any) -> None:
    made = template(request(**inside(**said)))
    assert made.get("networks") == networks
    if not said:
        assert made["domain"]["devices"]["interfaces"] == [{"name": "default", "masquerade": {}}]
    assert ("interfaces" in made["domain"]["devices"]) is (not said or "interfaces" in str(said))


def test_the_licence_is_one_more_disk_that_the_guest_finds_by_its_serial_number() -> None:
    given_disks = inside(domain={"devices": {"disks": [{"name": "root"}]}}, volumes=[{"name": "root", "emptyDisk": {"capacity": "1Gi"}}])
    made = template(request(licence=LICENCE, **given_disks))
    assert [disk["name"] for disk in made["domain"]["devices"]["disks"]] == ["root", "gpufleet-licence"]
    disk = {"name": "gpufleet-licence", "serial": "GPUFLEETLICENCE", "disk": {"bus": "virtio", "readonly": True}}
    assert made["domain"]["devices"]["disks"][1] == disk
    assert made["volumes"][1] == {"name": "gpufleet-licence", "secret": {"secretName": "token", "volumeLabel": "GPUFLEETLICENCE"}}
    # virtio has 20 bytes for a serial number.
    assert len(_vm.SERIAL) <= 20


@pytest.mark.parametrize(
    ("gpu", "options"),
    [
        (_vm.Gpu("g", VGPU), None),
        (_vm.Gpu("g", VGPU, False), {"display": {"enabled": False}}),
        (_vm.Gpu("g", VGPU, True), {"display": {"enabled": True}}),
        (_vm.Gpu("g", VGPU, True, False), {"display": {"enabled": True, "ramFB": {"enabled": False}}}),
    ],
)
def test_a_display_is_only_spoken_of_where_one_was_asked_about(gpu: _vm.Gpu, options: t.Any) -> None:
    assert gpu.raw().get("virtualGPUOptions") == options


REFUSALS = [
    pytest.param({"name": "My VM"}, "name is 'My VM'", "63 lower-case", id="name"),
    pytest.param({"name": "v" * 64}, "name is", "63 lower-case", id="long name"),
    pytest.param({"namespace": "a/b"}, "namespace is 'a/b'", "63 lower-case", id="namespace"),
    pytest.param({"gpus": (_vm.Gpu("G_0", VGPU),)}, "gpus[0].name is 'G_0'", "63 lower-case", id="gpu name"),
    pytest.param({"gpus": (_vm.Gpu("g", VGPU),) * 2}, "gpus[1].name g is there twice", "name of its own", id="gpu twice"),
    pytest.param({"gpus": (_vm.Gpu("g", "A10"),)}, "'A10' is no resource name", "kubevirt_permit_info", id="resource"),
    pytest.param({"instancetype": ("Big", "cluster"), "memory": None}, "instancetype is 'Big'", "name of the object", id="type name"),
    pytest.param({"gpus": ()}, "no GPU is asked for", "instancetype that has some", id="no gpu"),
    pytest.param({"spec": {"running": True}}, "spec.running is deprecated", "run_strategy: Always", id="running"),
    pytest.param({"spec": {"runStrategy": "Always"}}, "option of its own", "Use run_strategy", id="run strategy"),
    pytest.param({"spec": {"instancetype": {}}}, "option of its own", "Use instancetype", id="instancetype in spec"),
    pytest.param({"spec": {"template": []}}, "spec.template is a list", "Make it a mapping", id="shape"),
    pytest.param(inside(volumes={}), "spec.template.spec.volumes is a mapping", "Make it a list", id="list"),
    pytest.param(inside(domain={"devices": {"gpus": []}}), "devices.gpus has an option", "Use gpus", id="gpus in spec"),
    pytest.param(inside(resourceClaims=[{"name": "c"}]), "by resource claim", "resource name in gpus", id="claim"),
    pytest.param(
        inside(domain={"devices": {"hostDevices": [{"name": "h", "claimName": "c"}]}}),
        "by resource claim",
        "without this module",
        id="host claim",
    ),
    pytest.param({"memory": None}, "no memory of the guest", "Set memory", id="no memory"),
    pytest.param(
        {"memory": None, **inside(domain={"resources": {"requests": {"memory": "1Gi"}}})},
        "only a request or a limit",
        "Set memory",
        id="only pod's",
    ),
    pytest.param({"memory": "sixteen"}, "memory is 'sixteen'", "16Gi", id="no quantity"),
    pytest.param({"memory": "0"}, "memory is '0'", "above 0", id="nothing"),
    pytest.param(
        inside(domain={"resources": {"requests": {"memory": "8Gi"}}}),
        "resources.requests.memory is 8Gi",
        "Leave resources.requests.memory",
        id="less",
    ),
    pytest.param(inside(domain={"resources": {"limits": {"memory": "8Gi"}}}), "VFIO pins all", "Leave resources.limits.memory", id="limit"),
    pytest.param({"instancetype": ("big", "cluster")}, "memory is given beside an instancetype", "Leave it out", id="memory twice"),
    pytest.param(
        {"instancetype": ("big", "cluster"), "memory": None, "cpu_cores": 2}, "cpu_cores is given beside", "Leave it out", id="cores twice"
    ),
    pytest.param({"cpu_cores": 0}, "cpu_cores is 0", "at least 1", id="no cores"),
    pytest.param(
        {"cpu_cores": 2, **inside(domain={"cpu": {"cores": 4}})}, "spec.template.spec.domain.cpu.cores is 4", "one place", id="said twice"
    ),
    pytest.param({"licence": _vm.Licence("A b", "k")}, "licence.secret is 'A b'", "lower-case", id="secret name"),
    pytest.param({"licence": _vm.Licence("a", "k/l")}, "licence.key is 'k/l'", "Use letters", id="key"),
    pytest.param(
        {"licence": LICENCE, **inside(volumes=[{"name": "gpufleet-licence"}])}, "a volume of the name", "another name", id="volume"
    ),
    pytest.param(
        {"gpus": (_vm.Gpu("a", VGPU, True), _vm.Gpu("b", VGPU, True))},
        "a, b would each have a boot framebuffer",
        "ramfb: false",
        id="two pictures",
    ),
    pytest.param({"gpus": (_vm.Gpu("a", VGPU, False, True),)}, "(ramfb) and no display", "display: true", id="ramfb without"),
    pytest.param({"spec": {"preference": {}}}, "spec.preference has an option", "Use preference", id="preference in spec"),
    pytest.param({"preference": ("A", "cluster")}, "preference is 'A'", "name of the object", id="preference name"),
    pytest.param(
        inside(domain={"resources": {"requests": {"memory": "32Gi"}}}), "requests.memory is 32Gi", "Leave resources.requests", id="more"
    ),
    pytest.param(inside(domain={"resources": {"limits": {"memory": "x"}}}), "limits.memory is x", "Leave resources.limits", id="no limit"),
    pytest.param(
        {"instancetype": ("big", "cluster"), "memory": None, **inside(domain={"memory": {"guest": "1Gi"}, "cpu": {"cores": 2}})},
        "memory and cpu_cores are given beside an instancetype",
        "Leave it out",
        id="in spec beside a type",
    ),
    pytest.param(
        {"instancetype": ("big", "cluster"), "memory": None, **inside(domain={"resources": {"limits": {"memory": "1Gi"}}})},
        "resources.limits is given beside an instancetype",
        "Leave it out",
        id="limit beside a type",
    ),
    pytest.param(
        {"licence": LICENCE, **inside(domain={"devices": {"disks": [{"name": "gpufleet-licence"}]}})},
        "a disk of the name",
        "another",
        id="disk",
    ),
    pytest.param(
        {"cpu_cores": 2, **inside(domain={"cpu": {"cores": {}}})}, "cpu.cores is a mapping, and would have", "one place", id="kind"
    ),
    pytest.param({"gpus": (_vm.Gpu("a", VGPU, None, True),)}, "(ramfb) and no display", "display: true", id="ramfb alone"),
]


MAPPINGS = ["template", "template.metadata", "template.spec", "template.spec.domain"]
MAPPINGS += [f"template.spec.domain.{key}" for key in ("cpu", "memory", "resources", "resources.requests", "resources.limits", "devices")]
LISTS = ["template.spec.volumes", "template.spec.networks"]
LISTS += [f"template.spec.domain.devices.{key}" for key in ("disks", "interfaces", "hostDevices")]


@pytest.mark.parametrize(
    ("path", "kind", "other"), [*((p, "a mapping", 7) for p in MAPPINGS), *((p, "a list", "secret: x") for p in LISTS)]
)
def test_what_has_the_wrong_shape_is_named(path: str, kind: str, other: t.Any) -> None:
    spec: t.Any = other
    for key in reversed(path.split(".")):
        spec = {key: spec}
    [blocker] = _vm_request.problems(request(spec=spec))
    assert blocker.problem == f"spec.{path} is {other!r}"
    assert blocker.remedy == f"Make it {kind}, as KubeVirt's VirtualMachine has it"


@pytest.mark.parametrize(("change", "problem", "remedy"), REFUSALS)
def test_what_cannot_be_is_refused_with_its_remedy(change: dict[str, t.Any], problem: str, remedy: str) -> None:
    [blocker] = _vm_request.problems(request(**change))
    assert blocker.target == f"VM {change.get('namespace', 'ml')}/{change.get('name', 'vm')}"
    assert problem in blocker.problem
    assert remedy in blocker.remedy


@pytest.mark.parametrize(
    "change",
    [
        {"cpu_cores": 1},
        {"memory": "1"},
        inside(domain={"resources": {"requests": {"memory": "16384Mi"}, "limits": {"memory": "17Gi"}}}) | {"memory": "16384Mi"},
        inside(domain={"resources": {"limits": {"memory": "16Gi"}}}),
        inside(domain={"devices": {"hostDevices": [{"name": "nic", "deviceName": "example.com/nic"}, "odd"]}}),
        {"licence": LICENCE, **inside(volumes=["odd", {"name": "other"}])},
    ],
)
def test_what_may_be_is_not_refused(change: dict[str, t.Any]) -> None:
    assert _vm_request.problems(request(**change)) == []


def test_beside_an_instancetype_a_vm_never_says_what_that_says() -> None:
    domain = _vm.manifest(request(instancetype=("big", "cluster")), "Always")["spec"]["template"]["spec"]["domain"]
    assert not {"memory", "resources"} & set(domain)


@pytest.mark.parametrize(
    ("memory", "words"),
    [
        ({}, "it has no memory of the guest"),
        ({"requests": {"memory": "1Gi"}}, "it has no memory of the guest, only a request or a limit of its pod"),
    ],
)
def test_no_memory_is_told_from_only_that_of_the_pod(memory: dict[str, t.Any], words: str) -> None:
    [blocker] = _vm_request.problems(request(memory=None, **inside(domain={"resources": memory})))
    assert blocker.problem == words


@pytest.mark.parametrize(
    ("given", "ours", "merged"),
    [
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 2}}),
        ([1], [2], [1, 2]),
        ("x", "x", "x"),
        ({}, [], "a mapping, and would have to be a list"),
        ([], {}, "a list, and would have to be a mapping"),
        (1, 2, "1, and would have to be 2"),
        ([1], 2, "a list, and would have to be 2"),
    ],
)
def test_two_sayings_are_merged_or_contradict_each_other(given: t.Any, ours: t.Any, merged: t.Any) -> None:
    if not isinstance(merged, str) or merged == given:
        assert _vm.merge(given, ours) == merged
        return
    with pytest.raises(ValueError, match=f"^spec is {merged}$"):
        _vm.merge(given, ours)


def test_displays_of_which_one_boots_go_together() -> None:
    assert _vm_request.problems(request(gpus=(_vm.Gpu("a", VGPU, True), _vm.Gpu("b", VGPU, True, False), _vm.Gpu("c", VGPU, False)))) == []


@pytest.mark.parametrize(
    ("types", "words"),
    [
        (("A40-48C", "A40-16C"), None),
        (("A100-4-20C", "A100-2-10C"), None),
        (("RTX6000-Ada-2Q", "RTX6000-Ada-4Q"), None),
        (("A30-8C", "A16-8C"), "(A16-8C, A30-8C) are not all of one board and one series"),
        (("A100-1-5C", "A100-1-5CME"), None),
        (("A100-2-10C", "A100-10C"), None),
        (("A10-4Q", "A10-4C"), "not all of one board and one series"),
        (("A10-1Q",) * 16, None),
        (("A10-1Q",) * 17, "it asks for 17 vGPUs"),
    ],
)
def test_several_vgpus_are_of_one_board_and_one_series(types: tuple[str, ...], words: str | None) -> None:
    found = [str(blocker) for blocker in _vm_request.combination([f"nvidia.com/NVIDIA_{kind}" for kind in types], "VM ml/vm")]
    assert len(found) == (words is not None)
    assert words is None or words in found[0]


def test_whole_gpus_go_together_with_one_another() -> None:
    assert list(_vm_request.combination([WHOLE, "nvidia.com/GA100_A100_PCIE_40GB"], "VM ml/vm")) == []


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("16Gi", 16 * 2**30),
        ("1.5Gi", 3 * 2**29),
        ("64M", 64 * 10**6),
        ("2k", 2000),
        ("7", 7),
        ("1gi", None),
        ("-1Gi", None),
        ("", None),
        ("1 Gi", None),
        ("0", None),
        ("1e3", 1000),
    ],
)
def test_a_quantity_is_read_as_kubernetes_reads_it(text: str, size: int | None) -> None:
    assert _vm_request.quantity(text) == size


# ------------------------------------------------------------------ properties

LEAVES = st.none() | st.booleans() | st.integers(0, 9) | st.sampled_from(["1Gi", "x", ""])
KEYS = st.sampled_from(
    [
        "template",
        "spec",
        "domain",
        "devices",
        "memory",
        "guest",
        "resources",
        "requests",
        "limits",
        "cpu",
        "cores",
        "disks",
        "volumes",
        "networks",
    ]
    + ["gpus", "hostDevices", "running", "resourceClaims", "interfaces", "metadata", "name", "claimName"]
)
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8)
#: As the API has them: what has no value is not there.
STORED = st.recursive(
    LEAVES.filter(lambda leaf: leaf is not None),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(KEYS, STORED, max_size=3)
SPECS = (
    st.dictionaries(KEYS, TREES, max_size=3)
    | TREES.map(lambda tree: {"template": {"spec": {"domain": tree}}})
    | st.builds(lambda tree: {"template": {"spec": tree}}, TREES)
)
REQUESTS = st.builds(
    request,
    st.sampled_from([WHOLE, VGPU]),
    spec=SPECS,
    memory=st.sampled_from([None, "1Gi"]),
    cpu_cores=st.sampled_from([None, 2]),
    instancetype=st.sampled_from([None, ("big", "cluster")]),
    licence=st.sampled_from([None, LICENCE]),
)


@given(REQUESTS)
def test_a_spec_of_any_shape_is_refused_or_becomes_a_vm_that_contains_it(asked: _vm.Request) -> None:
    if _vm_request.problems(asked):
        return
    made = _vm.manifest(asked, "Always")
    assert made["spec"]["template"]["spec"]["domain"]["devices"]["gpus"] == [gpu.raw() for gpu in asked.gpus]
    assert contains(made["spec"], asked.spec)


def contains(whole: t.Any, part: t.Any) -> bool:
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(key in whole and contains(whole[key], value) for key, value in part.items())
    if isinstance(part, list) and isinstance(whole, list):
        return whole[: len(part)] == part
    return bool(whole == part)


@given(OBJECTS, OBJECTS)
def test_differences_are_none_only_between_what_is_equal(before: dict[str, t.Any], after: dict[str, t.Any]) -> None:
    found = _vm.differences(before, after)
    assert bool(found) is (before != after)
    assert all(one != other for one, other in found.values())
    assert _vm.differences(None, after).keys() == ({"spec"} if after == {} else _vm.differences({}, after).keys())


@pytest.mark.parametrize("key", ["userData", "userDataBase64", "networkData", "networkDataBase64"])
def test_what_may_hold_a_password_is_not_shown(key: str) -> None:
    shown = _vm.hidden({"volumes": [{"name": "ci", "cloudInitNoCloud": {key: "password: hunter2", "secretRef": {"name": "s"}}}]})
    assert shown["volumes"][0] == {"name": "ci", "cloudInitNoCloud": {key: "not shown", "secretRef": {"name": "s"}}}
