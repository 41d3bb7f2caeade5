# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Hosts that own their devices, one with mediated devices and one with vGPUs on virtual functions, beside a node of the operator's and one that
somebody keeps the operands off: devices, permits for KubeVirt's own plugin, VMs, and a second run that changes nothing.

What takes a run of the playbook more is tried with GPUFLEET_LONG=1.
"""

from __future__ import annotations

import json
import os
import time
import typing as t
from pathlib import Path

import pytest

from .conftest import CHECKOUT, Lab, Run
from .test_site import allocatable, labels, operand_nodes, permits

MDEV, FUNCTIONS, WHOLE, KEPT_OFF = "gpu-owned-mdev-0", "gpu-owned-vf-0", "gpu-passthrough-1", "gpu-container-0"
OWNED = {MDEV: {"nvidia.com/NVIDIA_A10-8Q": 6}, FUNCTIONS: {"nvidia.com/NVIDIA_A10-12Q": 4}}
PLANS = {MDEV: "A10-8Q", FUNCTIONS: "A10-12Q"}
LONG = pytest.mark.skipif(not os.environ.get("GPUFLEET_LONG"), reason="takes a minute more: GPUFLEET_LONG=1, as make soak does it")


class Story:
    """The lab with these hosts added, and the playbooks on an inventory of four."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab, self.inventory = lab, directory / "hosts.json"
        self.write()

    def write(self, *more: str) -> None:
        vgpu = {name: {"gpufleet_device_owner": "host", "gpufleet_vgpu_profile": PLANS[name]} for name in OWNED}
        groups = {
            "gpu_container": {"hosts": {KEPT_OFF: {}}},
            "gpu_vm_passthrough": {"hosts": {WHOLE: {}, **{name: {} for name in more}}},
            "gpu_vm_vgpu": {"hosts": vgpu},
        }
        self.inventory.write_text(json.dumps({"all": {"children": {"gpu_nodes": {"children": groups}}}}), encoding="utf-8")

    def play(self, playbook: str, *arguments: str) -> Run:
        where = ("-e", f"@{CHECKOUT}/inventories/lab/group_vars/all.yml", "-e", f"lab_checkout={CHECKOUT}")
        return self.lab.play(playbook, *where, *arguments, inventory=(self.inventory,))

    def wait(self, holds: t.Callable[[], bool], seconds: float = 20) -> None:
        until = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < until, "the lab did not get there"
            time.sleep(0.3)

    def handlers(self) -> dict[str, str]:
        """The virt-handler of each node, by uid."""
        pods = self.lab.kubectl("get", "pods", "-n", "kubevirt", "-l", "kubevirt.io=virt-handler")["items"]
        return {pod["spec"]["nodeName"]: pod["metadata"]["uid"] for pod in pods}


def mdevs(lab: Lab) -> set[str]:
    return {path.name for path in (lab.dir / "hosts" / MDEV / "sys/bus/mdev/devices").iterdir()}


@pytest.fixture(scope="module")
def story(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Story]:
    lab("reset")
    lab("owned")
    lab("kubectl", "label", "node", KEPT_OFF, "nvidia.com/gpu.deploy.operands=false")
    yield Story(lab, tmp_path_factory.mktemp("owned"))
    lab("reset")


@pytest.fixture(scope="module")
def before(lab: Lab, story: Story) -> tuple[set[str], dict[str, str]]:
    return mdevs(lab), story.handlers()


@pytest.fixture(scope="module")
def first(story: Story, before: object) -> Run:
    return story.play("site.yml")


def test_only_the_node_that_somebody_keeps_operands_off_is_left_out(first: Run) -> None:
    assert first.rc == 2, first.output
    assert set(first.failures()) == {KEPT_OFF}, first.output
    assert "gpu.deploy.operands is false" in first.failures()[KEPT_OFF] and "the others go on" in first.failures()[KEPT_OFF]


@pytest.mark.parametrize("node", OWNED)
def test_a_host_that_owns_its_devices_advertises_them_through_kubevirt(lab: Lab, first: Run, node: str) -> None:
    assert allocatable(lab, node) == OWNED[node], first.output


def test_devices_are_permitted_for_the_plugin_that_advertises_them(lab: Lab, first: Run) -> None:
    found = permits(lab)
    assert sorted(found["pciHostDevices"], key=lambda entry: entry["pciVendorSelector"]) == [
        {"pciVendorSelector": "10DE:2230", "resourceName": "nvidia.com/GA102GL_RTX_A6000", "externalResourceProvider": True},
        {"pciVendorSelector": "10DE:2236", "resourceName": "nvidia.com/NVIDIA_A10-12Q", "externalResourceProvider": False},
    ]
    assert found["mediatedDevices"] == [
        {"mdevNameSelector": "NVIDIA A10-8Q", "resourceName": "nvidia.com/NVIDIA_A10-8Q", "externalResourceProvider": False}
    ]


def test_operands_are_kept_off_with_the_reason(lab: Lab, first: Run) -> None:
    for name in OWNED:
        node = lab.kubectl("get", "node", name)["metadata"]
        assert node["labels"]["nvidia.com/gpu.deploy.operands"] == "false"
        assert "owns its devices" in node["annotations"]["gpufleet.kubevirt/operands-refused"]
        assert "nvidia.com/gpu.workload.config" not in labels(lab)[name]
    assert operand_nodes(lab) == {WHOLE}


def test_devices_that_are_there_are_not_made_anew_and_come_back_at_boot(
    lab: Lab, first: Run, before: tuple[set[str], dict[str, str]]
) -> None:
    assert mdevs(lab) == before[0]
    for name in OWNED:
        assert list((lab.dir / "hosts" / name / "etc/systemd/system").glob("gpufleet*.service"))


def test_no_virt_handler_is_restarted_that_does_not_lag(story: Story, first: Run, before: tuple[set[str], dict[str, str]]) -> None:
    assert story.handlers() == before[1]


def test_a_vm_has_a_place_with_each_device(first: Run) -> None:
    said = next(result for result in first.results if "Say what was proven" in result["task"])["msg"]
    for word in ("nvidia.com/NVIDIA_A10-8Q", "nvidia.com/NVIDIA_A10-12Q", "nvidia.com/GA102GL_RTX_A6000", "NOT_PERMITTED"):
        assert word in said


@pytest.fixture(scope="module")
def second(story: Story, first: Run) -> Run:
    return story.play("site.yml")


@LONG
def test_the_second_run_changes_nothing(second: Run) -> None:
    assert set(second.failures()) == {KEPT_OFF}, second.output
    assert {host: counts["changed"] for host, counts in second.recap.items()} == dict.fromkeys(second.recap, 0), second.changes()


@LONG
def test_cluster_serves_such_hosts_too_and_writes_nothing_on_them(story: Story, second: Run) -> None:
    trees = story.lab.tree_digest()
    run = story.play("playbooks/cluster.yml")
    assert set(run.failures()) == {KEPT_OFF}, run.output
    assert story.lab.tree_digest() == trees and run.changes() == set()


@LONG
def test_a_plugin_that_does_not_look_is_restarted_on_its_node_alone(story: Story, second: Run) -> None:
    lab = story.lab
    lab("kubectl", "label", "node", KEPT_OFF, "nvidia.com/gpu.deploy.operands-")
    none = {"spec": {"configuration": {"permittedHostDevices": {"mediatedDevices": []}}}}
    lab("kubectl", "patch", "kubevirt", "kubevirt", "-n", "kubevirt", "--type=merge", "-p", json.dumps(none))
    story.wait(lambda: allocatable(lab, MDEV) == {})
    lab("fault", "deaf-virt-handler")
    was = story.handlers()
    run = story.play("site.yml", "-e", "gpufleet_advertise_patience=3")
    lab("fault", "none")
    assert run.rc == 0, run.output
    assert allocatable(lab, MDEV) == OWNED[MDEV]
    now = story.handlers()
    assert {name for name in was if was[name] != now[name]} == {MDEV}


@LONG
def test_whole_gpus_of_the_operator_that_kubevirt_would_advertise_too_stop_the_run(story: Story, second: Run) -> None:
    story.write("gpu-passthrough-0")
    run = story.play("site.yml", "--check")
    story.write()
    message = " ".join(run.failures().values())
    assert "would advertise nvidia.com/NVIDIA_A10-12Q (10DE:2236) on gpu-passthrough-0 too" in message, run.output


@LONG
def test_a_profile_in_gpu_instances_is_refused_on_such_a_host(story: Story, second: Run) -> None:
    run = story.play("site.yml", "-e", "gpufleet_vgpu_profile=A100-1-5C", "--check")
    assert run.rc == 2, run.output
    assert "MIG GPU instance, which only the operator makes" in " ".join(run.failures().values()), run.output
