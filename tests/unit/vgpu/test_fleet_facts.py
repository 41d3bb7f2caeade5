# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which VM sits on which GPU, and that no GPU is planned as if it were empty when that is not known."""

from __future__ import annotations

import collections
import typing as t

import pytest
from ansible.errors import AnsibleFilterError
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.filter.vgpu_fleet import FilterModule
from ansible_collections.gpufleet.kubevirt.plugins.filter.vgpu_plan_noted import FilterModule as Noted
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _holdings, _plan

vgpu_fleet = FilterModule().filters()["vgpu_fleet"]
noted = Noted().filters()["vgpu_plan_noted"]
RESOURCE = "nvidia.com/NVIDIA_A10-4Q"
TYPES = [{"id": "nvidia-593", "name": "NVIDIA A10-4Q", "plain": "A10-4Q", "available": 0}]
Facts = dict[str, t.Any]


def qemu(vm: str | None, pid: int = 7, comm: str = "qemu-kvm") -> Facts:
    return {"pid": pid, "comm": comm, "vm": vm}


def vgpu(*users: Facts, kind: str = "NVIDIA A10-4Q", known: bool = True) -> Facts:
    return {"parent": "0000:41:00.4", "type": kind, "uuid": "u", "users": list(users) if known else None}


def gpu(*active: Facts, address: str = "0000:41:00.0", backend: str = "mdev", **more: t.Any) -> Facts:
    return {
        "address": address,
        "vendor_device": "10DE:2236",
        "subsystem": "10DE:1482",
        "class": "0302",
        "sriov": {"total": 32, "enabled": 32},
        "users": [],
        "vgpu": {"backend": backend, "why": None if backend != "none" else "no driver", "types": TYPES, "active": list(active)},
        **more,
    }


def second(*active: Facts, **more: t.Any) -> Facts:
    return gpu(*active, address="0000:a1:00.0", **more)


def use(who: str, count: int = 1) -> Facts:
    namespace, _slash, name = who.partition("/")
    return {"namespace": namespace, "pod": f"virt-launcher-{name}-x", "vmi": name, "count": count}


def fleet(gpus: list[Facts], *used: Facts, resource: str = RESOURCE, kubevirt: Facts | None = None, **host: t.Any) -> Facts:
    """One host n1 with these GPUs, on whose node these pods use a resource."""
    intent = {"host": "h1", "node": "n1", "workload": "vm-vgpu", "owner": host.pop("owner", "operator"), "limited": True, "state": "wanted"}
    unknown, also = host.pop("unknown", {}), host.pop("also", {})
    variables = {"inventory_hostname": "h1", "preflight_host": {"gpus": gpus, "unknown": unknown}, "secret": object(), **host}
    cluster = {
        "nodes": [{"name": "n1", "labels": {"a": "b"}, "used": {**({resource: list(used)} if used else {}), **also}}],
        "kubevirt": kubevirt,
    }
    return vgpu_fleet([variables], [intent], cluster)


def planned(found: Facts) -> list[tuple[str | None, dict[str, int] | None, list[tuple[str, str, int]]]]:
    """Mode, present vGPUs and VMs of each GPU."""
    [node] = found["fleet"]
    return [
        (entry.get("mode"), entry.get("present"), [(vm["name"], vm["type"], vm["count"]) for vm in entry.get("vms", [])])
        for entry in node["gpus"]
    ]


SIX = {"A10-4Q": 1}


@pytest.mark.parametrize(
    ("gpus", "used", "expected", "said"),
    [
        pytest.param([gpu()], [], [(None, {}, [])], "", id="nothing is made, so nothing is held"),
        pytest.param(
            [gpu(vgpu(qemu("ml_a"))), second(vgpu())],
            [use("ml/a")],
            [(None, SIX, [("ml/a", "A10-4Q", 1)]), (None, SIX, [])],
            "",
            id="the host names the VM",
        ),
        pytest.param(
            [gpu(vgpu(qemu("ml_a", 7)), vgpu(qemu("ml_a", 7)), vgpu())],
            [use("ml/a", 2)],
            [(None, {"A10-4Q": 3}, [("ml/a", "A10-4Q", 2)])],
            "",
            id="a VM with two vGPUs of one GPU",
        ),
        pytest.param(
            [gpu(vgpu()), second()],
            [use("ml/a")],
            [(None, SIX, [("ml/a", "A10-4Q", 1)]), (None, {}, [])],
            "",
            id="the VM has not started, and only one GPU has its type",
        ),
        pytest.param(
            [gpu(vgpu()), second(vgpu())],
            [use("ml/a", 2)],
            [(None, SIX, [("ml/a", "A10-4Q", 1)]), (None, SIX, [("ml/a", "A10-4Q", 1)])],
            "",
            id="one VM has all that is there",
        ),
        pytest.param(
            [gpu(vgpu()), second(vgpu())],
            [use("ml/a")],
            [("keep", SIX, [("ml/a", "A10-4Q", 1)]), ("keep", SIX, [("ml/a", "A10-4Q", 1)])],
            "ml/a has 1 of nvidia.com/NVIDIA_A10-4Q, and on which GPU is not known: the host shows no QEMU process of it",
            id="the VM has not started, and two GPUs have its type",
        ),
        pytest.param(
            [gpu(vgpu(), vgpu()), second(vgpu(qemu("ml_b")))],
            [use("ml/a"), use("ml/b")],
            [(None, {"A10-4Q": 2}, [("ml/a", "A10-4Q", 1)]), (None, SIX, [("ml/b", "A10-4Q", 1)])],
            "",
            id="what the host sees leaves one place for the other",
        ),
        pytest.param(
            [gpu(vgpu()), second(vgpu()), gpu(vgpu(kind="NVIDIA A10-8Q"), address="0000:c1:00.0")],
            [use("ml/a"), use("ml/b")],
            [("keep", SIX, [("one of ml/a, ml/b", "A10-4Q", 1)])] * 2 + [(None, {"A10-8Q": 1}, [])],
            "ml/a, ml/b have 2 of",
            id="two VMs that the host does not see, on two GPUs",
        ),
        pytest.param(
            [gpu(vgpu(qemu("ml_a")))],
            [],
            [("keep", SIX, [("ml/a", "A10-4Q", 1)])],
            "ml/a holds a A10-4Q on it, and the cluster does not show that",
            id="a VM that the cluster does not know",
        ),
        pytest.param(
            [gpu(vgpu(qemu("win10")))],
            [],
            [("keep", SIX, [("win10", "A10-4Q", 1)])],
            "win10 holds",
            id="a guest of somebody else's libvirt",
        ),
        pytest.param(
            [gpu(vgpu(qemu(None, comm="trex")))],
            [],
            [("keep", SIX, [("process 7 (trex)", "A10-4Q", 1)])],
            "process 7 (trex), which names no VM, holds a vGPU on it",
            id="a process that is no VM",
        ),
        pytest.param(
            [gpu(vgpu(qemu(None, comm="trex"), qemu("ml_a", 8)))],
            [use("ml/a")],
            [("keep", SIX, [("ml/a", "A10-4Q", 1)])],
            "process 7 (trex), which names no VM, holds a vGPU on it",
            id="a process beside the VM that has it",
        ),
        pytest.param(
            [gpu(vgpu(), vgpu(), vgpu())],
            [use("ml/a"), {**use("ml/a"), "pod": "virt-launcher-a-y"}],
            [(None, {"A10-4Q": 3}, [("ml/a", "A10-4Q", 2)])],
            "",
            id="a VM of which two pods are there",
        ),
        pytest.param(
            [gpu(), second(vgpu(qemu("ml_a")))],
            [use("ml/a", 3)],
            [("keep", {}, []), ("keep", SIX, [("ml/a", "A10-4Q", 1)])],
            "ml/a has 2 of",
            id="the cluster says more than there is: the sources disagree",
        ),
        pytest.param(
            [gpu(vgpu(qemu("ml_a"), qemu("ml_b", 8)))],
            [use("ml/a"), use("ml/b")],
            [("keep", SIX, [("one of ml/a, ml/b", "A10-4Q", 1)])],
            "which of ml/a, ml/b hold its A10-4Q cannot be told",
            id="two processes that do not show which vGPU they hold",
        ),
        pytest.param(
            [gpu(vgpu(qemu("ml_a"), qemu("ml_b", 8)))],
            [],
            [("keep", SIX, [("one of ml/a, ml/b", "A10-4Q", 1)])],
            "which of ml/a, ml/b hold its A10-4Q cannot be told",
            id="two processes of which the cluster knows nothing either",
        ),
        pytest.param(
            [gpu(vgpu())],
            [{"namespace": "ml", "pod": "job", "vmi": None, "count": 1}],
            [(None, SIX, [("pod ml/job", "A10-4Q", 1)])],
            "",
            id="a pod that is no VM",
        ),
    ],
)
def test_who_holds_what(gpus: list[Facts], used: list[Facts], expected: list[t.Any], said: str) -> None:
    found = fleet(gpus, *used)
    assert planned(found) == expected
    assert bool(found["notes"]) == bool(said), found["notes"]
    assert said in " ".join(found["notes"])


@pytest.mark.parametrize(
    ("used", "expected"),
    [
        ([], [(None, SIX, []), (None, SIX, [])]),
        ([use("ml/a", 2)], [(None, SIX, [("ml/a", "A10-4Q", 1)])] * 2),
        ([use("ml/a")], [("keep", SIX, [("ml/a", "A10-4Q", 1)])] * 2),
    ],
)
def test_a_host_that_cannot_tell_leaves_it_to_the_cluster_and_says_so(used: list[Facts], expected: list[t.Any]) -> None:
    why = "/proc shows the processes of a container, not those of the host"
    found = fleet([gpu(vgpu(known=False)), second(vgpu(known=False))], *used, unknown={"gpus.users": why})
    assert planned(found) == expected
    assert f"node n1: who holds its vGPUs is known from the cluster alone: {why}." in found["notes"]
    assert "known from the cluster alone" in " ".join(fleet([gpu(vgpu(known=False)), second(vgpu())])["notes"])


@pytest.mark.parametrize("backend", ["mdev", "vendor_vfio"])
@pytest.mark.parametrize("wanted", ["A10-4Q", "A10-8Q"])
@pytest.mark.parametrize("comm", ["qemu-kvm", "trex"])
def test_a_vgpu_that_a_process_without_a_vm_holds_is_neither_given_away_nor_taken_away(backend: str, wanted: str, comm: str) -> None:
    gpus = [gpu(vgpu(qemu(None, comm=comm)), backend=backend), second(backend=backend)]
    plan = _plan.plan(fleet(gpus)["fleet"], [{"name": "web", "type": wanted, "count": 1, "gpus": ["n1/0"] if wanted == "A10-4Q" else []}])
    kept = plan["nodes"][0]["gpus"][0]
    assert (kept["changed"], kept["types"], kept["serves"], kept["free"]) == (False, SIX, [], {})
    assert kept["holds"] == [{"vm": f"process 7 ({comm})", "type": "A10-4Q", "count": 1}]


def test_a_vm_with_two_names_for_the_same_vgpus_holds_both() -> None:
    entries = [{"pciVendorSelector": "10DE:2236", "resourceName": f"example.com/{name}"} for name in "ab"]
    gpus = [gpu(*[vgpu(kind="nvidia-593")] * 3, backend="vendor_vfio")]
    found = fleet(
        gpus,
        use("ml/a"),
        resource="example.com/a",
        kubevirt={"permitted": {"pciHostDevices": entries}},
        also={"example.com/b": [use("ml/a")]},
    )
    assert planned(found) == [(None, {"A10-4Q": 3}, [("ml/a", "A10-4Q", 2)])]


@pytest.mark.parametrize("resource", ["claim gpus", "nvidia.com/GA102GL_A10", "nvidia.com/gpu"])
def test_what_cannot_be_told_from_a_resource_can_be_on_every_gpu(resource: str) -> None:
    found = fleet([gpu(vgpu()), second()], use("ml/a"), resource=resource)
    assert planned(found) == [("keep", SIX, [("ml/a", "A10-4Q", 1)]), ("keep", {}, [])]
    assert planned(fleet([gpu(vgpu(qemu("ml_a"))), second()], use("ml/a"), resource=resource))[1] == (None, {}, [])


def test_a_resource_that_is_picked_by_pci_id_is_no_mediated_device_of_that_model() -> None:
    permitted = {"pciHostDevices": [{"pciVendorSelector": "10DE:2236", "resourceName": "nvidia.com/GA102GL_A10"}]}
    found = fleet([gpu(vgpu()), second()], use("ml/a"), resource="nvidia.com/GA102GL_A10", kubevirt={"permitted": permitted})
    assert [mode for mode, _present, _vms in planned(found)] == ["keep", "keep"]


def test_what_is_known_by_its_type_is_settled_before_what_is_not() -> None:
    same = fleet([gpu(vgpu(qemu("ml_a"))), second(vgpu())], use("ml/a"), also={"claim gpus": [use("ml/a")]})
    assert planned(same) == [("keep", SIX, [("ml/a", "A10-4Q", 1)])] * 2
    two = fleet([gpu(vgpu(), vgpu())], use("ml/b"), also={"claim gpus": [use("ml/a")]})
    assert planned(two) == [("keep", {"A10-4Q": 2}, [("ml/a", "A10-4Q", 1), ("ml/b", "A10-4Q", 1)])]


def test_a_vm_with_all_that_is_left_on_a_gpu_of_two_types_leaves_its_gpus_as_they_are() -> None:
    types = [{"id": kind, "name": name, "plain": name.split()[-1]} for kind, name in (("1", "NVIDIA A10-4Q"), ("2", "NVIDIA A10-4C"))]
    gpus = [gpu(vgpu(kind="1"), backend="vendor_vfio"), second(vgpu(kind="1"), vgpu(kind="2"), backend="vendor_vfio")]
    for entry in gpus:
        entry["vgpu"]["types"] = types
    permitted = {"pciHostDevices": [{"pciVendorSelector": "10DE:2236", "resourceName": "example.com/vgpu"}]}
    found = fleet(gpus, use("ml/a", 3), resource="example.com/vgpu", kubevirt={"permitted": permitted})
    assert planned(found) == [
        ("keep", SIX, [("ml/a", "A10-4Q", 1)]),
        ("keep", {"A10-4C": 1, "A10-4Q": 1}, [("ml/a", "A10-4C", 1), ("ml/a", "A10-4Q", 1)]),
    ]


def test_vgpus_of_another_type_on_such_a_gpu_are_not_in_question() -> None:
    both = [vgpu(), vgpu(kind="NVIDIA A10-4C")]
    found = fleet([gpu(*both), second(*both)], use("ml/a"), use("ml/b"))
    assert planned(found) == [("keep", {"A10-4C": 1, "A10-4Q": 1}, [("one of ml/a, ml/b", "A10-4Q", 1)])] * 2


def test_names_of_resources_are_those_that_kubevirt_permits() -> None:
    permitted = {"mediatedDevices": [{"mdevNameSelector": "NVIDIA A10-4Q", "resourceName": "example.com/small"}]}
    found = fleet(
        [gpu(vgpu()), second(vgpu(kind="NVIDIA A10-8Q"))], use("ml/a"), resource="example.com/small", kubevirt={"permitted": permitted}
    )
    assert planned(found) == [(None, SIX, [("ml/a", "A10-4Q", 1)]), (None, {"A10-8Q": 1}, [])]


def test_vgpus_of_vendor_vfio_are_told_by_pci_id_and_by_a_sibling_that_still_lists_the_type() -> None:
    types = [{"id": "593", "name": "NVIDIA A10-4Q", "plain": "A10-4Q", "available": 1}]
    full = gpu(vgpu(kind="593"), backend="vendor_vfio")
    full["vgpu"]["types"] = []
    sibling = second(backend="vendor_vfio")
    sibling["vgpu"]["types"] = types
    permitted = {"pciHostDevices": [{"pciVendorSelector": "10de:2236", "resourceName": "example.com/vgpu"}]}
    found = fleet([full, sibling], use("ml/a"), resource="example.com/vgpu", kubevirt={"permitted": permitted}, gpufleet_plan_pool="east")
    assert planned(found) == [(None, SIX, [("ml/a", "A10-4Q", 1)]), (None, {}, [])]
    assert (found["fleet"][0]["backend"], found["fleet"][0]["pool"], found["configurable"]) == ("vendor_vfio", "east", [])
    assert found["notes"] == [
        "node n1: it has no device configuration: the vGPU Device Manager makes mediated devices only, and its vGPUs are vendor VFIO."
    ]
    half = fleet([gpu(backend="vendor_vfio"), second(backend="none")])
    assert half["fleet"][0]["backend"] == "vendor_vfio" and "no driver offers" not in " ".join(half["notes"])
    alone = fleet([full])
    assert planned(alone) == [("exclude", None, [])]
    assert "a vGPU of type 593, which the host no longer names" in " ".join(alone["notes"])


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (gpu(*[vgpu()] * 7), "it has 7 x A10-4Q, and by the catalogue at most 6 fit"),
        (gpu(vgpu(kind="NVIDIA A10-5Q")), "it has 1 x A10-5Q, which is no type of the A10"),
        (gpu(vgpu(kind="nvidia-999")), "type nvidia-999, which the host no longer names"),
        (
            gpu(vgpu(kind="NVIDIA A30-6C"), vgpu(kind="NVIDIA A30-1-6C"), vendor_device="10DE:20B7", subsystem="10DE:1532"),
            "time-sliced and MIG-backed",
        ),
    ],
)
def test_a_gpu_of_which_it_is_not_known_what_is_made_is_left_alone_and_its_node_gets_no_configuration(entry: Facts, said: str) -> None:
    found = fleet([entry, second()])
    assert [mode for mode, _present, _vms in planned(found)] == ["exclude", None]
    assert said in found["notes"][0]
    assert found["configurable"] == []
    assert found["notes"][1].startswith("node n1: it has no device configuration: the vGPU Device Manager would clear the GPU")


def test_a_gpu_that_no_plan_can_take_is_left_out_and_the_others_keep_their_numbers() -> None:
    found = fleet([gpu(vendor_device="10DE:1234", subsystem="10DE:0000"), second()])
    assert [entry["index"] for entry in found["fleet"][0]["gpus"]] == [1]
    assert found["configurable"] == []
    lost = fleet([gpu(fell_off_bus=True), second()])
    assert "GPU 0: left out: it has fallen off the bus" in " ".join(lost["notes"])
    assert [entry["index"] for entry in lost["fleet"][0]["gpus"]] == [1]
    with pytest.raises(AnsibleFilterError, match="node n1: it has no GPU"):
        fleet([])


def test_a_gpu_is_handed_on_with_all_that_tells_it_and_notes_come_in_the_order_of_the_gpus() -> None:
    one, two = fleet([gpu(vgpu(qemu(None, 9))), second(vgpu(qemu("a_b")), subsystem="")])["fleet"][0]["gpus"]
    assert {key: one[key] for key in ("index", "address", "gpu", "vendor_device", "subsystem")} == {
        "index": 0, "address": "0000:41:00.0", "gpu": "A10", "vendor_device": "10DE:2236", "subsystem": "10DE:1482",
    }  # fmt: skip
    assert (two["address"], two["subsystem"]) == ("0000:a1:00.0", None)
    found = fleet([second(vgpu(qemu("a_b"))), gpu(vgpu(qemu(None, 9)))])
    assert [note[: len("node n1, GPU 0")] for note in found["notes"]] == ["node n1, GPU 0", "node n1, GPU 1"]
    assert found["fleet"][0]["pool"] == "default"


def test_a_gpu_without_a_backend_is_empty_unless_a_vm_has_it_as_a_whole() -> None:
    daemon = qemu(None, comm="nvidia-persiste")
    found = fleet(
        [gpu(backend="none", users=[daemon]), second(backend="none", users=[qemu("ml_a")])], use("ml/a"), resource="nvidia.com/GA102GL_A10"
    )
    assert planned(found) == [(None, {}, []), ("exclude", {}, [])]
    assert "GPU 1: stays as it is: ml/a has the whole GPU" in " ".join(found["notes"])
    assert "no driver offers vGPUs yet (no driver)" in " ".join(found["notes"])
    assert len(found["notes"]) == 2, "the host could tell"
    blind = fleet([gpu(backend="none", users=None)], use("ml/a"), resource="nvidia.com/GA102GL_A10")
    assert planned(blind) == [("exclude", {}, [])]
    assert "known from the cluster alone" in " ".join(blind["notes"])
    nameless = fleet([gpu(backend="none", users=[qemu(None)])])
    assert planned(nameless) == [("exclude", {}, [])]
    assert "GPU 0: stays as it is: process 7 (qemu-kvm) has the whole GPU." in " ".join(nameless["notes"])
    assert "the cluster does not show" not in " ".join(nameless["notes"])
    assert planned(fleet([gpu(backend="none", users=[qemu("ml_a", comm="cloud-hyperviso")])])) == [("exclude", {}, [])]
    more = fleet([gpu(backend="none", users=[qemu("ml_a", comm="cloud-hyperviso")]), second(vgpu())], use("ml/a", 2), resource="claim gpus")
    assert planned(more) == [("exclude", {}, []), ("keep", SIX, [("ml/a", "A10-4Q", 1)])]


def test_wishes_of_a_host_reach_the_fleet() -> None:
    found = fleet([gpu()], gpufleet_plan_mode="keep", gpufleet_plan_labels={"zone": 1}, owner="host")
    [node] = found["fleet"]
    assert (node["name"], node["mode"], node["owner"], node["labels"]) == ("n1", "keep", "host", {"a": "b", "zone": "1"})
    assert found["configurable"] == []  # nobody but the operator's device manager reads one
    assert fleet([gpu()])["configurable"] == ["n1"]
    excluded = fleet([gpu(vgpu(qemu("x")))], gpufleet_plan_mode="exclude")
    assert planned(excluded)[0][0] is None


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("gpufleet_plan_mode", "fast", "host h1: gpufleet_plan_mode is 'fast'; use one of equal, mixed"),
        ("gpufleet_plan_pool", ["a"], "gpufleet_plan_pool is"),
        ("gpufleet_plan_labels", "zone=b", "gpufleet_plan_labels is 'zone=b'; give a mapping"),
    ],
)
def test_a_wrong_variable_is_named(variable: str, value: t.Any, said: str) -> None:
    with pytest.raises(AnsibleFilterError, match=said.replace("(", r"\(")):
        fleet([gpu()], **{variable: value})


def test_hosts_outside_the_run_and_hosts_that_were_not_read_are_left_out_by_name() -> None:
    common = {"workload": "vm-vgpu", "owner": "operator", "why": "not in a box.\nmore"}
    intents = [
        {**common, "host": f"h{number}", "node": f"n{number}", "limited": limited, "state": state}
        for number, limited, state in [(1, True, "wanted"), (2, False, "unread"), (3, True, "refused")]
    ]
    intents.append({**intents[0], "host": "h4", "node": "n4", "workload": "container"})
    hosts = [{"inventory_hostname": f"h{number}", "preflight_host": {"gpus": [gpu()]}} for number in (1, 2, 3, 4)]
    cluster = {"nodes": [{"name": f"n{number}", "used": {}} for number in (1, 2, 3, 4)], "kubevirt": None}
    found = vgpu_fleet(hosts, intents, cluster)
    assert [node["name"] for node in found["fleet"]] == ["n1"]
    assert found["notes"] == [
        "Left out, with all that runs there: h3 (not in a box).",
        "Not in this run, and so neither read nor planned: h2. Demands are served by the others alone.",
        "The device configuration has no entry for h2, h3: in the place of one that has, it takes theirs away.",
    ]
    with pytest.raises(AnsibleFilterError, match=r"no GPU can be planned\. Left out.*h3.*Not in this run.*h2"):
        vgpu_fleet(hosts, intents[1:], cluster)
    with pytest.raises(AnsibleFilterError, match="No host has vGPUs as its workload"):
        vgpu_fleet(hosts, intents[3:], cluster)


@pytest.mark.parametrize(("own", "known", "taken"), [("a", "a", True), ("a", "b", False), (None, "b", True), ("a", None, True)])
def test_a_host_that_is_another_machine_than_its_node_is_left_out(own: str | None, known: str | None, taken: bool) -> None:
    intent = {"host": "h1", "node": "n1", "workload": "vm-vgpu", "owner": "operator", "limited": True, "state": "wanted"}
    hosts = [{"inventory_hostname": "h1", "preflight_host": {"gpus": [gpu()], "host": {"boot_id": own}}}]
    cluster = {"nodes": [{"name": "n1", "used": {}, "boot_id": known}], "kubevirt": None}
    if taken:
        assert vgpu_fleet(hosts, [intent], cluster)["notes"] == []
        return
    with pytest.raises(AnsibleFilterError, match=r"Left out, with all that runs there: h1 \(its boot id a is not that of Node n1, b: "):
        vgpu_fleet(hosts, [intent], cluster)


def test_more_vgpus_than_virtual_functions_cannot_be_made() -> None:
    none = gpu(sriov={"total": 0, "enabled": 0}, address="0000:c1:00.0")
    found = fleet([gpu(sriov={"total": 16, "enabled": 0}), second(sriov={"total": 24, "enabled": 0}), none])
    assert found["functions"] == {"n1/0": 16, "n1/1": 24}
    assert fleet([gpu(sriov={"total": 1, "enabled": 0})])["functions"] == {"n1/0": 1}
    demand = {"name": "many", "type": "A10-1Q", "count": 24}
    plan = _plan.plan(found["fleet"], [{**demand, "gpus": ["n1/0"]}])
    many = noted({**plan, "caveats": ["its own"]}, {**found, "notes": ["of the fleet"]})
    assert many["caveats"][1:] == ["of the fleet", "its own"]
    assert many["caveats"][0].startswith("node n1, GPU 0: CANNOT BE MADE: 24 vGPUs are planned, and it can have 16 virtual functions")
    assert not any("CANNOT" in caveat for caveat in noted(_plan.plan(found["fleet"], [{**demand, "gpus": ["n1/1"]}]), found)["caveats"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [("ml_train", "ml/train"), ("ml_a.b", "ml/a.b"), ("win10", "win10"), ("my_old_vm", "my/old_vm"), ("_x", "_x"), ("x_", "x_")],
)
def test_the_name_of_a_guest_is_namespace_and_name(name: str, expected: str) -> None:
    assert _holdings.guest(name) == expected


KINDS = ("A10-4Q", "A10-8Q")
TRUTH = st.lists(  # per GPU: its type, and per vGPU who holds it and whether the host sees that
    st.tuples(
        st.sampled_from(KINDS), st.lists(st.tuples(st.sampled_from([None, "ml/a", "ml/b", "ml/c"]), st.booleans()), min_size=1, max_size=3)
    ),
    min_size=1,
    max_size=3,
)


@settings(max_examples=150, deadline=None)
@given(truth=TRUTH, blind=st.booleans())
def test_a_gpu_that_may_change_holds_exactly_what_is_said_of_it_and_no_other_holds_more(truth: list[t.Any], blind: bool) -> None:
    gpus, used = [], collections.Counter()
    for number, (kind, vgpus) in enumerate(truth):
        active = []
        for who, seen in vgpus:
            users = [qemu(who.replace("/", "_"))] if who and seen else []
            active.append(vgpu(*users, kind=f"NVIDIA {kind}", known=not blind))
            if who:
                used[who, kind] += 1
        gpus.append(gpu(*active, address=f"0000:{number:02x}:00.0"))
    resources: dict[str, list[Facts]] = collections.defaultdict(list)
    for (who, kind), count in used.items():
        resources[f"nvidia.com/NVIDIA_{kind}"].append(use(who, count))
    intent = {"host": "h1", "node": "n1", "workload": "vm-vgpu", "owner": "operator", "limited": True, "state": "wanted"}
    host = {"inventory_hostname": "h1", "preflight_host": {"gpus": gpus}}
    found = vgpu_fleet([host], [intent], {"nodes": [{"name": "n1", "used": dict(resources)}], "kubevirt": None})
    for (kind, vgpus), (mode, present, vms) in zip(truth, planned(found), strict=True):
        held = collections.Counter(who for who, _seen in vgpus if who)
        assert present == {kind: len(vgpus)}
        assert sum(count for _who, _kind, count in vms) >= held.total()
        if mode is None:
            assert {who: count for who, _kind, count in vms} == held
