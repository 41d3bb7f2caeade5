# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._intents._decisions import node_decisions
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._intents._intents import node_intents
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._permits._permits import permitted_devices
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _catalogue

A10 = {"address": "0000:41:00.0", "vendor_device": "10DE:2236", "subsystem": "10DE:1482", "class": "0302"}


def gpu(address: str = "0000:41:00.0", pci: str = "10DE:2236", types: t.Sequence[str] = ()) -> dict[str, t.Any]:
    vgpu = {"backend": "mdev" if types else "none", "types": [{"name": name} for name in types]}
    return {**A10, "address": address, "vendor_device": pci, "subsystem": "", "vgpu": vgpu}


def host(name: str, group: str, gpus: t.Sequence[t.Any] | None = (gpu(), gpu("0000:a1:00.0")), **more: t.Any) -> dict[str, t.Any]:
    facts = {} if gpus is None else {"preflight_host": {"gpus": list(gpus), "host": {"boot_id": f"boot-{name}"}}}
    return {"inventory_hostname": name, "group_names": [group, "gpu_nodes"], **facts, **more}


def node(name: str, **more: t.Any) -> dict[str, t.Any]:
    return {"name": name, "labels": {}, "operands": [], **more}


def fleet(*nodes: dict[str, t.Any], enabled: bool = False) -> dict[str, t.Any]:
    policy = {"sandbox_enabled": True} if enabled else None
    return {"nodes": list(nodes), "possible_gpu_nodes": [entry["name"] for entry in nodes], "cluster_policy": policy}


HOSTS = [
    host("c", "gpu_container"),
    host("p", "gpu_vm_passthrough"),
    host(
        "v",
        "gpu_vm_vgpu",
        gpus=[gpu(types=["NVIDIA A10-4Q"]), gpu("0000:a1:00.0", types=["NVIDIA A10-4Q"])],
        gpufleet_vgpu_profile="A10-4Q",
    ),
]


def test_an_intent_per_host() -> None:
    found = node_intents(HOSTS, run_hosts=["c", "p"], fleet=fleet(node("c"), node("p"), node("v")))
    assert (found["problems"], found["text"]) == ([], "")
    c, p, v = found["intents"]
    assert [(i["workload"], i["profile"], i["limited"], i["state"]) for i in (c, p, v)] == [
        ("container", None, True, "wanted"), ("vm-passthrough", None, True, "wanted"), ("vm-vgpu", "A10-4Q", False, "wanted"),
    ]  # fmt: skip
    assert c["expect"] == [{"resource": "nvidia.com/gpu", "count": 2}]
    assert p["expect"] == [{"pci": "10DE:2236", "count": 2}]
    assert v["expect"] == [{"vgpu_type": "A10-4Q", "count": 12}]


def test_refused_and_unread_hosts() -> None:
    refused, unread = node_intents([host("r", "gpu_container", preflight_refused="no IOMMU"), host("u", "gpu_container", gpus=None)])[
        "intents"
    ]
    assert (refused["state"], refused["why"], refused["expect"]) == ("refused", "no IOMMU", [])
    assert unread["state"] == "unread" and unread["why"]


def test_a_host_that_failed_after_preflight_is_not_taken_in() -> None:
    hosts = [*HOSTS, host("u", "gpu_container", gpus=None), host("r", "gpu_container", preflight_refused="no IOMMU")]
    found = {entry["host"]: entry for entry in node_intents(hosts, lost_hosts=["p", "u", "r"])["intents"]}
    assert {name: entry["state"] for name, entry in found.items()} == {
        "c": "wanted", "p": "refused", "v": "wanted", "u": "unread", "r": "refused",
    }  # fmt: skip
    assert (found["p"]["expect"], found["r"]["why"]) == ([], "no IOMMU")
    assert "failed" in found["p"]["why"]


@pytest.mark.parametrize(
    ("hosts", "words"),
    [
        (
            [{**host("a", "gpu_container"), "group_names": ["gpu_container", "gpu_vm_vgpu", "gpu_nodes"]}],
            ["host a", "gpu_container and gpu_vm_vgpu"],
        ),
        ([{**host("a", "x")}], ["host a", "in no workload's group"]),
        ([host("a", "gpu_container", gpufleet_workload="vm-magic")], ["unknown workload 'vm-magic'"]),
        ([host("a", "gpu_container", gpufleet_workload="vm-vgpu")], ["stands for container"]),
        ([host("a", "gpu_container", gpufleet_node_name="ghost")], ["the cluster has no Node ghost"]),
        ([host("a", "gpu_container", gpufleet_node_name="A b")], ["'A b' is no node name"]),
        ([host("a", "gpu_container"), host("b", "gpu_container", gpufleet_node_name="a")], ["node a", "a, b"]),
        ([host("a", "gpu_vm_vgpu")], ["gpufleet_vgpu_profile is not set"]),
        ([host("a", "gpu_vm_vgpu", gpufleet_vgpu_profile="A10-5Q")], ["'A10-5Q'", "A10-4Q", "A10-6Q"]),
        ([host("a", "gpu_vm_vgpu", gpufleet_vgpu_profile="A16-4Q")], ["cannot have the profile A16-4Q"]),
        ([host("a", "gpu_container", gpufleet_device_owner="host")], ["the host's own", "nothing would advertise them to containers"]),
        ([host("a", "gpu_container", gpufleet_device_owner="me")], ["'me'"]),
    ],
)
def test_a_wrong_request_is_named_with_what_to_do(hosts: list[dict[str, t.Any]], words: list[str]) -> None:
    found = node_intents(hosts, fleet=fleet(node("a"), node("b")))
    assert found["problems"] and all(problem["remedy"] for problem in found["problems"])
    for word in words:
        assert word in found["text"]


def test_profiles() -> None:
    default = node_intents([host("a", "gpu_vm_vgpu", gpufleet_vgpu_profile="default")])["intents"][0]
    assert default["expect"] == [{"vgpu_type": "A10-12Q", "count": 4}]
    # Two entries of the stock configuration share this PCI id, so it would fail on the node.
    broken = node_intents([host("a", "gpu_vm_vgpu", gpus=[gpu(pci="10DE:25B6")], gpufleet_vgpu_profile="default")])
    assert "stock configuration" in broken["text"]
    assert _catalogue.most("10DE:2236", "", "A10-4Q") == 6
    assert _catalogue.most("10DE:2236", "", "A16-4Q") is None
    assert {"A10-4Q", "default", "DC-1-2QGFX"} <= _catalogue.known_profiles()


@pytest.mark.parametrize(
    ("pci", "profile", "expected"),
    [
        ("10DE:20B7", "A30-1-6C", {"vgpu_type": "A30-1-6C", "count": 4}),
        # An alias of the stock configuration: what is created, and so what is advertised, has the name without the suffix.
        ("10DE:2BB5", "DC-1-24QGFX", {"vgpu_type": "DC-1-24Q", "count": 4}),
        # One name, two GPU families.
        ("10DE:2BB5", "DC-16Q", {"vgpu_type": "DC-16Q", "count": 6}),
        ("10DE:2C3A", "DC-16Q", {"vgpu_type": "DC-16Q", "count": 2}),
    ],
)
def test_a_profile_of_mig_instances_an_alias_and_a_shared_name(pci: str, profile: str, expected: dict[str, t.Any]) -> None:
    found = node_intents([host("a", "gpu_vm_vgpu", gpus=[gpu(pci=pci)], gpufleet_vgpu_profile=profile)])
    assert (found["problems"], found["intents"][0]["expect"]) == ([], [expected])


@pytest.mark.parametrize("profile", ["A10-2B", "A10-1A", "A10G-4Q", "P40-4Q"])
def test_a_type_that_the_stock_configuration_leaves_out_is_no_profile(profile: str) -> None:
    assert "stock configuration has no profile" in node_intents([host("a", "gpu_vm_vgpu", gpufleet_vgpu_profile=profile)])["text"]


def test_the_profiles_are_those_of_the_stock_configuration() -> None:
    assert len(_catalogue.known_profiles()) == 711
    assert all(_catalogue.type_of(name).removesuffix("GFX") == _catalogue.type_of(name) for name in _catalogue.known_profiles())


@pytest.mark.parametrize(
    ("said", "allowed"),
    [
        (True, True),
        ("true", True),
        ("yes", True),
        (False, False),
        ("false", False),
        ("False", False),
        ("no", False),
        (None, False),
        ("", False),
    ],
)
def test_a_reboot_is_allowed_by_a_true_value_and_not_by_text(said: t.Any, allowed: bool) -> None:
    found = node_intents([host("a", "gpu_container", gpufleet_reboot_ok=said)])
    assert (found["intents"][0]["reboot_ok"], found["problems"]) == (allowed, [])


def test_a_reboot_permission_that_is_no_boolean_is_a_problem() -> None:
    found = node_intents([host("a", "gpu_container", gpufleet_reboot_ok="perhaps")])
    assert found["intents"][0]["reboot_ok"] is False and "gpufleet_reboot_ok is 'perhaps'" in found["text"]


@pytest.mark.parametrize("broken", [{}, {"failed": True, "msg": "no route"}, {"nodes": None}])
def test_a_read_of_the_cluster_that_failed_is_no_empty_cluster(broken: dict[str, t.Any]) -> None:
    for ask in (lambda: node_intents(HOSTS, fleet=broken), lambda: node_decisions([], broken)):
        with pytest.raises(ValueError, match="what gpu_fleet_info returned"):
            ask()


# ------------------------------------------------------------------ decisions


def intents(*hosts: dict[str, t.Any], run: t.Sequence[str] | None = None) -> list[dict[str, t.Any]]:
    return node_intents(hosts, run_hosts=run if run is not None else [h["inventory_hostname"] for h in hosts])["intents"]


def test_every_possible_gpu_node_gets_a_decision() -> None:
    refused = host("r", "gpu_vm_passthrough", preflight_refused="no IOMMU")
    found = node_decisions(intents(*HOSTS, refused), fleet(*(node(name) for name in "cprvs")))
    assert found["nodes"] == [
        {"name": "c", "workload": "container", "operands": True},
        {"name": "p", "workload": "vm-passthrough", "operands": True},
        {"name": "v", "workload": "vm-vgpu", "vgpu_config": "A10-4Q", "operands": True},
        {"name": "r", "operands": False, "why": "no IOMMU"},
        {"name": "s", "operands": False, "why": "it is not in the inventory"},
    ]
    assert (found["undecided"], found["blockers"], found["left"], found["text"]) == ([], [], [], "")


def test_a_limited_run_decides_for_its_hosts_only_and_names_the_others() -> None:
    found = node_decisions(intents(*HOSTS, run=["c"]), fleet(*(node(name) for name in "cpvs")), limited=True)
    assert [entry["name"] for entry in found["nodes"]] == ["c"]
    assert found["undecided"] == ["p", "v", "s"]


@pytest.mark.parametrize("labels", [{"nvidia.com/gpu.workload.config": "container"}, {"nvidia.com/gpu.deploy.operands": "false"}])
def test_a_decision_of_somebody_else_stands(labels: dict[str, str]) -> None:
    found = node_decisions([], fleet(node("s", labels=labels)))
    assert (found["nodes"], found["undecided"]) == ([], [])


def test_a_node_with_operands_is_never_told_to_have_none() -> None:
    refused = intents(host("r", "gpu_vm_passthrough", preflight_refused="no IOMMU"))
    left = node_decisions(refused, fleet(node("r", operands=["nvidia-vfio-manager"])))
    assert (left["nodes"], left["left"]) == ([], [{"node": "r", "why": "no IOMMU"}])
    stranger = node_decisions([], fleet(node("s", operands=["nvidia-device-plugin-daemonset"])))
    assert "node s" in stranger["text"] and stranger["nodes"] == []
    enabled = node_decisions([], fleet(node("s", operands=["x"]), enabled=True))
    assert (enabled["blockers"], enabled["nodes"]) == ([], [])


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "labels": st.sampled_from([{}, {"nvidia.com/gpu.workload.config": "vm-vgpu"}, {"nvidia.com/gpu.deploy.operands": "false"}]),
                "operands": st.sampled_from([[], ["x"]]),
            }
        ),
        max_size=6,
    ),
    st.sets(st.integers(0, 5)),
    st.booleans(),
)
def test_no_decision_ever_takes_operands_away(found: list[dict[str, t.Any]], ours: set[int], refused: bool) -> None:
    nodes = [node(f"n{number}", **entry) for number, entry in enumerate(found)]
    hosts = [
        host(f"n{number}", "gpu_container", **({"preflight_refused": "x"} if refused else {})) for number in ours if number < len(nodes)
    ]
    made = node_decisions(intents(*hosts), fleet(*nodes))
    by_name = {entry["name"]: entry for entry in nodes}
    for entry in made["nodes"]:
        assert entry["operands"] or not by_name[entry["name"]]["operands"]
    decided = {entry["name"] for entry in made["nodes"]} | {n["name"] for n in nodes if n["labels"]}
    assert {n["name"] for n in nodes} - decided == set(made["undecided"])


def test_intents_that_can_be_read_once_are_all_decided_about() -> None:
    assert len(node_decisions(iter(intents(*HOSTS)), fleet(*(node(name) for name in "cpv")))["nodes"]) == 3


# ------------------------------------------------------------------ permits


def advertised(name: str, *resources: str, count: int = 2) -> dict[str, t.Any]:
    return {"name": name, "allocatable": dict.fromkeys(resources, count), "resources": list(resources)}


def test_permits_follow_what_nodes_advertise() -> None:
    nodes = [
        advertised("c", "nvidia.com/gpu"),
        advertised("p", "nvidia.com/GA102GL_A10"),
        advertised("v", "nvidia.com/NVIDIA_A10-4Q", count=12),
    ]
    found = permitted_devices(intents(*HOSTS), nodes)
    assert found["pci_devices"] == [{"selector": "10DE:2236", "resource_name": "nvidia.com/GA102GL_A10", "external": True}]
    assert found["mediated_devices"] == [{"selector": "NVIDIA A10-4Q", "resource_name": "nvidia.com/NVIDIA_A10-4Q", "external": True}]
    assert found["text"] == ""


def test_before_an_install_only_the_plugins_own_names_are_unknown() -> None:
    found = permitted_devices(intents(*HOSTS), [], planned=True)
    assert found["pci_devices"] == [{"selector": "10DE:2236", "resource_name": "known after apply", "external": True}]
    assert found["mediated_devices"] == [{"selector": "NVIDIA A10-4Q", "resource_name": "nvidia.com/NVIDIA_A10-4Q", "external": True}]


def test_two_models_are_told_apart_by_their_counts_or_not_at_all() -> None:
    mixed = [gpu(), gpu("0000:61:00.0", pci="10DE:20B5"), gpu("0000:a1:00.0", pci="10DE:20B5")]
    wanted = intents(host("p", "gpu_vm_passthrough", gpus=mixed))
    node_ = {"name": "p", "allocatable": {"nvidia.com/ONE": 1, "nvidia.com/TWO": 2}, "resources": ["nvidia.com/ONE", "nvidia.com/TWO"]}
    found = {entry["selector"]: entry["resource_name"] for entry in permitted_devices(wanted, [node_])["pci_devices"]}
    assert found == {"10DE:2236": "nvidia.com/ONE", "10DE:20B5": "nvidia.com/TWO"}
    same = intents(host("p", "gpu_vm_passthrough", gpus=mixed[:2]))
    node_["allocatable"] = {"nvidia.com/ONE": 1, "nvidia.com/TWO": 1}
    assert "cannot be told" in permitted_devices(same, [node_])["text"]


def test_refused_hosts_and_hosts_of_other_runs_add_nothing() -> None:
    refused = host("p", "gpu_vm_passthrough", preflight_refused="x")
    assert permitted_devices(intents(refused), [advertised("p", "nvidia.com/X")])["pci_devices"] == []
    assert permitted_devices(intents(HOSTS[1], run=[]), [advertised("p", "nvidia.com/X")])["pci_devices"] == []


def test_a_vgpu_has_the_same_selector_before_and_after_its_driver_is_there() -> None:
    """Check mode and the run are compared by it, and so are two runs."""
    blank = host("v", "gpu_vm_vgpu", gpus=[gpu()], gpufleet_vgpu_profile="A10-4Q")
    nodes = [advertised("v", "nvidia.com/NVIDIA_A10-4Q", count=6)]
    planned = permitted_devices(intents(blank), [], planned=True)["mediated_devices"]
    assert planned == permitted_devices(intents(blank), nodes)["mediated_devices"]
    assert planned == permitted_devices(intents(HOSTS[2]), nodes)["mediated_devices"]


def test_a_vgpu_that_is_advertised_under_another_brand_keeps_the_advertised_name() -> None:
    found = permitted_devices(intents(HOSTS[2]), [advertised("v", "nvidia.com/GRID_A10-4Q", count=12)])
    assert [entry["selector"] for entry in found["mediated_devices"]] == ["GRID_A10-4Q"]


def test_two_models_with_equal_counts_are_told_apart_by_known_names() -> None:
    wanted = intents(host("p", "gpu_vm_passthrough", gpus=[gpu(), gpu("0000:61:00.0", pci="10DE:20B5")]))
    found = permitted_devices(wanted, [advertised("p", "nvidia.com/GA102GL_A10", "nvidia.com/NEW_NAME_OF_AN_A100", count=1)])
    assert (found["blockers"], {entry["selector"]: entry["resource_name"] for entry in found["pci_devices"]}) == (
        [],
        {"10DE:2236": "nvidia.com/GA102GL_A10", "10DE:20B5": "nvidia.com/NEW_NAME_OF_AN_A100"},
    )
    by_id = permitted_devices(wanted, [advertised("p", "nvidia.com/2236", "nvidia.com/20b5", count=1)])["pci_devices"]
    assert {entry["selector"]: entry["resource_name"] for entry in by_id} == {
        "10DE:2236": "nvidia.com/2236",
        "10DE:20B5": "nvidia.com/20b5",
    }


@pytest.mark.parametrize("wanted", HOSTS[1:], ids=["passthrough", "vgpu"])
@pytest.mark.parametrize("allocatable", [None, {}, {"nvidia.com/gpu": 2}, {"nvidia.com/GA102GL_A10": 0, "nvidia.com/NVIDIA_A10-4Q": 0}])
def test_a_vm_node_without_any_device_stops_instead_of_permitting_nothing(wanted: dict[str, t.Any], allocatable: t.Any) -> None:
    name = wanted["inventory_hostname"]
    nodes = [] if allocatable is None else [{"name": name, "allocatable": allocatable}]
    found = permitted_devices(intents(wanted), nodes)
    assert f"node {name}" in found["text"] and (found["pci_devices"], found["mediated_devices"]) == ([], [])


@given(st.lists(st.sampled_from(["10DE:2236", "10DE:20B5", "10DE:26B9", "10DE:2BB9"]), min_size=1, max_size=6), st.randoms())
def test_whatever_the_mix_a_permit_never_names_another_model(models: list[str], shuffle: t.Any) -> None:
    """Whole GPUs under the plugin's own names: all of them are permitted, each under its own."""
    own = {"10DE:2236": "GA102GL_A10", "10DE:20B5": "GA100_A100_PCIE_80GB", "10DE:26B9": "AD102GL_L40S", "10DE:2BB9": "2bb9"}
    gpus = [gpu(f"0000:{bus:02x}:00.0", pci=pci) for bus, pci in enumerate(models)]
    names = [f"nvidia.com/{own[pci]}" for pci in dict.fromkeys(models)]
    shuffle.shuffle(names)
    allocatable = {name: sum(name == f"nvidia.com/{own[pci]}" for pci in models) for name in names}
    found = permitted_devices(intents(host("p", "gpu_vm_passthrough", gpus=gpus)), [{"name": "p", "allocatable": allocatable}])
    assert {entry["selector"]: entry["resource_name"] for entry in found["pci_devices"]} == {
        pci: f"nvidia.com/{own[pci]}" for pci in models
    }
