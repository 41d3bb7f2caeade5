# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An operator that somebody else has installed by hand: adopted under a running VM, neither reinstalled nor restarted; and what is refused."""

from __future__ import annotations

import json
import os
import time
import typing as t

import pytest

from tests.thread.conftest import CHECKOUT, Lab, Run

pytestmark = pytest.mark.skipif(not os.environ.get("GPUFLEET_LONG"), reason="takes two minutes more: GPUFLEET_LONG=1, as make soak does it")

CHART = CHECKOUT / "tests/lab/chart/gpu-operator"
NODE = "gpu-passthrough-1"
WORKLOADS = {"gpu-container-0": "container", NODE: "vm-passthrough", "gpu-vgpu-0": "vm-vgpu"}
A6000 = "nvidia.com/GA102GL_RTX_A6000"
PLAYBOOK = [
    {"ansible.builtin.import_playbook": str(CHECKOUT / "playbooks/parts" / f"{part}.yml")}
    for part in ("request", "chart", "judge", "cluster")
]
#: What the inventory would give, but for the update strategy: this is how NVIDIA's guide installs it.
SET = (
    "sandboxWorkloads.enabled=true,sandboxWorkloads.defaultWorkload=container,ccManager.enabled=false,vgpuManager.enabled=true,"
    "vgpuManager.repository=registry.example.com/nvidia,vgpuManager.image=vgpu-manager,vgpuManager.version=580.95.02,"
    "vgpuManager.imagePullSecrets={vgpu-manager-pull}"
)
LAUNCHER = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {
        "name": "virt-launcher-worker",
        "labels": {"kubevirt.io": "virt-launcher"},
        "annotations": {"kubevirt.io/domain": "worker"},
    },
    "spec": {
        "nodeSelector": {"kubernetes.io/hostname": NODE},
        "tolerations": [{"operator": "Exists"}],
        "containers": [{"name": "compute", "image": "registry.example.com/launcher", "resources": {"limits": {A6000: "1"}}}],
    },
}


def wait(until: t.Callable[[], bool], what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, what
        time.sleep(0.3)


class Story:
    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.playbook = lab.dir / "adopt.yml"
        self.playbook.write_text(json.dumps(PLAYBOOK), encoding="utf-8")

    def play(self, *arguments: str) -> Run:
        return self.lab.play(str(self.playbook), *arguments)

    def release(self) -> t.Any:
        return json.loads(self.lab("helm", "list", "-A", "-o", "json").stdout)

    def values(self, revision: str) -> t.Any:
        [found] = self.release()
        return json.loads(
            self.lab("helm", "get", "values", found["name"], "-n", found["namespace"], "--revision", revision, "-o", "json").stdout
        )

    def pods(self) -> dict[str, str]:
        """Operands' pods of the node, with their uid."""
        items = self.lab.kubectl("get", "pods", "-n", "nvidia", f"--field-selector=spec.nodeName={NODE}")["items"]
        return {item["metadata"]["name"]: item["metadata"]["uid"] for item in items}

    def lost(self) -> list[t.Any]:
        events = (json.loads(line) for line in (self.lab.dir / "events.jsonl").read_text(encoding="utf-8").splitlines())
        return [event for event in events if event.get("event") == "vm_lost"]


@pytest.fixture(scope="module")
def hand(lab: Lab) -> t.Iterator[Story]:
    """An operator by hand, with nodes that somebody has labelled, and a VM with a GPU on one of them."""
    lab("reset")
    story = Story(lab)
    for node, workload in WORKLOADS.items():
        lab("kubectl", "label", "node", node, f"nvidia.com/gpu.workload.config={workload}")
    lab("kubectl", "label", "node", "gpu-vgpu-0", "nvidia.com/vgpu.config=A10-4Q")
    others = {n["metadata"]["name"] for n in lab.kubectl("get", "nodes")["items"]} - set(WORKLOADS)
    lab("kubectl", "label", "node", *others, "nvidia.com/gpu.deploy.operands=false")
    lab("helm", "install", "--generate-name", "-n", "nvidia", "--create-namespace", str(CHART), "--set", SET)
    for node, resource in ((NODE, A6000), ("gpu-vgpu-0", "nvidia.com/NVIDIA_A10-4Q"), ("gpu-container-0", "nvidia.com/gpu")):
        wait(
            lambda n=node, r=resource: lab.kubectl("get", "node", n)["status"]["allocatable"].get(r, "0") != "0",
            f"no {resource} is advertised",
        )
    path = lab.dir / "launcher.json"
    path.write_text(json.dumps(LAUNCHER), encoding="utf-8")
    lab("kubectl", "apply", "-n", "default", "-f", str(path))
    of_vm = ("get", "pod", "virt-launcher-worker", "-n", "default")
    wait(lambda: bool(lab.kubectl(*of_vm)["status"].get("phase") == "Running"), "the VM does not run")
    yield story
    lab("reset")


def test_another_name_and_a_switch_that_a_running_vm_would_notice_are_refused(hand: Story) -> None:
    for variables, word in (
        ({"gpufleet_operator_values": {"driver": {"enabled": False}}}, "driver.enabled"),
        ({"gpufleet_operator_release": "mine"}, "mine"),
    ):
        run = hand.play("-e", json.dumps(variables))
        assert run.rc == 2, run.output
        assert word in " ".join(run.failures().values()) or "gpufleet_operator_release" in run.output
    [release] = hand.release()
    assert release["revision"] == "1"


def test_a_release_installed_by_hand_is_adopted_and_its_vm_runs_on(hand: Story) -> None:
    [before] = hand.release()
    pods = hand.pods()
    run = hand.play("--limit", "gpu-container-0")
    assert run.rc == 2 and "without --limit" in " ".join(run.failures().values()), run.output
    run = hand.play()
    assert not set(run.failures()) & set(WORKLOADS), run.output
    [after] = hand.release()
    assert (after["name"], after["namespace"], after["chart"]) == (before["name"], before["namespace"], before["chart"])
    assert after["name"] != "gpu-operator"
    first, second = hand.values("1"), hand.values("2")
    assert second == {**first, "daemonsets": {"updateStrategy": "OnDelete"}}
    assert pods.items() <= hand.pods().items()
    assert hand.lost() == []
    sets = hand.lab.kubectl("get", "daemonsets", "-n", "nvidia")["items"]
    assert sets and {item["spec"]["updateStrategy"]["type"] for item in sets} == {"OnDelete"}


def test_the_second_run_changes_nothing(hand: Story) -> None:
    [before] = hand.release()
    run = hand.play()
    assert all(counts["changed"] == 0 for counts in run.recap.values()), run.changes()
    assert hand.release() == [before]


def test_an_nvidia_driver_object_stops_the_run_with_its_name(hand: Story) -> None:
    body = {
        "apiVersion": "nvidia.com/v1alpha1",
        "kind": "NVIDIADriver",
        "metadata": {"name": "mine"},
        "spec": {"driverType": "gpu", "image": "driver"},
    }
    path = hand.lab.dir / "driver.json"
    path.write_text(json.dumps(body), encoding="utf-8")
    hand.lab("kubectl", "apply", "-f", str(path))
    try:
        run = hand.play()
        assert run.rc == 2 and "NVIDIADriver mine" in " ".join(run.failures().values()), run.output
    finally:
        hand.lab("kubectl", "delete", "nvidiadriver", "mine")


def test_values_that_change_a_pod_end_as_nodes_pending_roll_with_their_vms(hand: Story) -> None:
    run = hand.play("-e", json.dumps({"gpufleet_operator_values": {"vfioManager": {"version": "v0.12.1"}}}))
    assert run.rc == 2, run.output
    message = " ".join(run.failures().values())
    assert "pending roll" in message and NODE in message and "nvidia-vfio-manager" in message, run.output
    assert hand.lost() == []
