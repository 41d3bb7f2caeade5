# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""May a host be rebooted, and is it back as it was: judged on facts of host trees."""

from __future__ import annotations

import copy
import typing as t

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.filter import reboot_blockers, reboot_gate, reboot_note
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _node
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host
from tests.hosts import tree

FIRST, SECOND = "0000:41:00.0", "0000:a1:00.0"
Facts = dict[str, t.Any]


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    root = tmp_path_factory.mktemp("host") / "root"
    tree.build(root, tree.HostSpec(tree.a10s(), cmdline="intel_iommu=on foo=bar"))
    return _node.read(Host(str(root)))


@pytest.fixture
def before(read: Facts) -> Facts:
    return copy.deepcopy(read)


@pytest.fixture
def after(read: Facts) -> Facts:
    facts = copy.deepcopy(read)
    facts["host"]["boot_id"] = "another"
    return facts


def gate(after: Facts, before: Facts | None = None, **more: t.Any) -> Facts:
    return reboot_gate.reboot_gate(after, before, name="gpu01", **{"workload": "vm-passthrough", **more})


def problems(answer: Facts) -> list[str]:
    assert answer["passed"] is (not answer["problems"])
    for entry in answer["problems"]:
        assert all(entry[part] and entry[part] in answer["text"] for part in ("target", "problem", "remedy"))
    if answer["problems"]:
        assert answer["text"].startswith("Checking gpu01 after its reboot: stopped by ") and answer["text"].endswith(
            "The node stays cordoned."
        )
    return [f"{entry['target']}: {entry['problem']}" for entry in answer["problems"]]


@pytest.mark.parametrize("workload", ["container", "vm-passthrough", "vm-vgpu"])
@pytest.mark.parametrize("owner", ["operator", "host"])
def test_a_host_that_is_back_passes(before: Facts, after: Facts, workload: str, owner: str) -> None:
    wanted = {"arguments": ["intel_iommu=on", "foo=bar"], "absent": ["iommu=off"], "blocked": ["nouveau"]}
    assert problems(gate(after, before, workload=workload, owner=owner, **wanted)) == []


def test_a_host_that_did_not_reboot(before: Facts) -> None:
    assert "did not reboot" in problems(gate(before, before))[0]
    assert problems(gate(before)) == []  # it was not this run that rebooted it


def test_a_boot_that_is_not_known(before: Facts, after: Facts) -> None:
    after["host"]["boot_id"] = None
    assert "not known" in problems(gate(after, before))[0]


@pytest.mark.parametrize(
    ("running", "wanted", "words"),
    [
        (["ro"], {"arguments": ["intel_iommu=on"]}, "lacks intel_iommu=on"),
        (["intel_iommu=on", "intel_iommu=off"], {"arguments": ["intel_iommu=on"]}, "lacks intel_iommu=on"),
        (["intel_iommu=on", "iommu=off"], {"arguments": ["intel_iommu=on"]}, "iommu=off, which nothing else takes back"),
        (["iommu=off"], {"absent": ["iommu=off"]}, "iommu=off, which must not be there"),
        (None, {"arguments": ["intel_iommu=on"]}, "not known"),
        (["intel_iommu=on,sm_on", "foo=(not shown)"], {"arguments": ["intel_iommu=on", "foo=bar"]}, None),
        (None, {}, None),
    ],
)
def test_the_arguments_of_the_running_kernel(
    before: Facts, after: Facts, running: list[str] | None, wanted: Facts, words: str | None
) -> None:
    after["boot"]["running"] = running
    found = problems(gate(after, before, **wanted))
    assert len(found) == (words is not None)
    assert not found or words in found[0]


@pytest.mark.parametrize(("workload", "count"), [("container", 0), ("vm-passthrough", 1), ("vm-vgpu", 1)])
def test_an_iommu_that_is_off(before: Facts, after: Facts, workload: str, count: int) -> None:
    after["iommu"]["enabled"] = False
    assert len(problems(gate(after, before, workload=workload))) == count


def test_a_gpu_that_is_not_back_is_named(before: Facts, after: Facts) -> None:
    del after["gpus"][1]
    found = problems(gate(after, before, workload="container"))
    assert len(found) == 1 and f"2 were there before the reboot, 1 are now; not back: {SECOND}" in found[0]


def test_a_gpu_of_another_kind_in_its_place_is_not_back(before: Facts, after: Facts) -> None:
    after["gpus"][1]["vendor_device"] = "10DE:20B5"
    assert f"not back: {SECOND}" in problems(gate(after, before))[0]


def test_gpus_that_have_moved_are_back_and_that_is_said(before: Facts, after: Facts) -> None:
    after["gpus"][1]["address"] = "0000:a2:00.0"
    answer = gate(after, before)
    assert problems(answer) == [] and SECOND in answer["notes"][0] and SECOND in answer["text"]


def test_an_nvswitch_that_is_not_back(before: Facts, after: Facts) -> None:
    before["nvswitches"] = [{"address": "0000:c1:00.0", "vendor_device": "10DE:22A3", "driver": None, "iommu_group": 7}]
    assert "not back: 0000:c1:00.0" in problems(gate(after, before))[0]


def test_a_gpu_that_does_not_answer(before: Facts, after: Facts) -> None:
    after["gpus"][0]["fell_off_bus"] = True
    assert problems(gate(after, before)) == [f"GPU {FIRST}: it does not answer on the bus"]


@pytest.mark.parametrize("side", ["before", "after"])
def test_gpus_that_are_not_known(before: Facts, after: Facts, side: str) -> None:
    {"before": before, "after": after}[side]["gpus"] = None
    assert "not known" in problems(gate(after, before))[0]


def test_what_was_written_down_counts_where_a_run_was_killed(before: Facts, after: Facts) -> None:
    note = reboot_note.reboot_note(before)
    assert note == f"reboot {FIRST}=10DE:2236 {SECOND}=10DE:2236"
    assert problems(gate(after, note=note)) == []
    del after["gpus"][0]
    assert f"not back: {FIRST}" in problems(gate(after, note=note))[0]
    assert f"not back: {FIRST}" in problems(gate(after, copy.deepcopy(before) | {"gpus": after["gpus"]}, note=note))[0]
    assert problems(gate(after, note="maintenance")) == [] and problems(gate(after)) == []


@pytest.mark.parametrize(
    ("driver", "blocked", "count"),
    [("nouveau", ["nouveau"], 1), ("NovaCore", ["nova-core"], 1), ("nvidia", ["nouveau"], 0), (None, ["nouveau"], 0)],
)
def test_a_blocked_module_that_holds_a_gpu_again(before: Facts, after: Facts, driver: str | None, blocked: list[str], count: int) -> None:
    after["gpus"][0]["driver"] = driver
    assert len(problems(gate(after, before, blocked=blocked))) == count


@pytest.mark.parametrize(
    ("foreign", "workload", "owner", "count"),
    [
        (False, "vm-passthrough", "operator", 0),  # the operator, or host_devices, binds companions later
        (False, "vm-passthrough", "host", 0),
        (True, "vm-passthrough", "operator", 1),
        (True, "vm-passthrough", "host", 1),
        (True, "vm-vgpu", "operator", 0),  # a virtual function has a group of its own
        (True, "container", "operator", 0),
    ],
)
def test_what_else_is_in_the_group_of_a_gpu(before: Facts, after: Facts, foreign: bool, workload: str, owner: str, count: int) -> None:
    after["groups"]["27"] = {
        "members": [FIRST, "0000:41:01.0"],
        "viable": False,
        "blockers": [{"address": "0000:41:01.0", "class": "0200", "driver": "igb", "foreign": foreign}],
    }
    found = problems(gate(after, before, workload=workload, owner=owner))
    assert len(found) == count and all("0000:41:01.0 (class 0200, driver igb)" in text for text in found)


@pytest.mark.parametrize(
    ("owner", "driver", "count"), [("host", "nvidia", 1), ("operator", "nvidia", 0), ("host", None, 0), ("host", "vfio-pci", 0)]
)
def test_a_binding_that_the_boot_has_lost(before: Facts, after: Facts, owner: str, driver: str | None, count: int) -> None:
    before["gpus"][0]["driver"], after["gpus"][0]["driver"] = "vfio-pci", driver
    found = problems(gate(after, before, owner=owner))
    assert len(found) == count and all(f"{driver} has it now" in text for text in found)


# ------------------------------------------------------------------ before the reboot


@pytest.fixture
def node(read: Facts) -> Facts:
    return {"name": "gpu01", "boot_id": read["host"]["boot_id"], "pods": []}


def test_an_empty_node_may_be_rebooted(before: Facts, node: Facts) -> None:
    assert reboot_blockers.reboot_blockers(before, node, name="gpu01")["passed"]


@pytest.mark.parametrize(
    ("facts", "seen", "words"),
    [
        ({"host": {"boot_id": "x"}}, {}, "they are not one machine"),
        ({"host": {"boot_id": None}}, {"boot_id": None}, "not known"),
        ({"qemu": [{"pid": 4711, "comm": "qemu-kvm"}]}, {}, "QEMU runs on it: qemu-kvm (4711)"),
        ({"qemu": None, "unknown": {"qemu": "a container"}}, {}, "not known (a container)"),
        ({}, {"pods": [{"namespace": "default", "name": "job-1"}]}, "default/job-1"),
        ({}, {"pods": None}, "which pods are on it is not known"),
    ],
)
def test_what_forbids_a_reboot(before: Facts, node: Facts, facts: Facts, seen: Facts, words: str) -> None:
    answer = reboot_blockers.reboot_blockers({**before, **facts}, {**node, **seen}, name="gpu01")
    assert not answer["passed"] and len(answer["problems"]) == 1
    assert words in answer["text"] and answer["problems"][0]["remedy"] in answer["text"]
    assert answer["text"].startswith("Rebooting gpu01: refused for 1 problem.") and answer["text"].endswith("The node stays cordoned.")
