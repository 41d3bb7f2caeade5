# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole simulation, round by round, on host trees and a cluster in memory: what happens to a fleet, and what is lost."""

from __future__ import annotations

import copy
import json
import os
import re
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hosts import tree
from tests.lab.faults import FAULTS
from tests.lab.layout import Layout
from tests.lab.operands import driver, virt_handlers
from tests.lab.operands.driver import Simulation
from tests.lab.operands.labels import CONFIG, DEPLOY, NFD, OPERANDS, PRESENT, STATE, WORKLOAD, Json

CONTAINER, PASSTHROUGH, VGPU, STRANGER = "gpu-container-0", "gpu-passthrough-0", "gpu-vgpu-0", "gpu-stranger-0"
DISPLAY = "gpu-passthrough-1"  # its GPUs are VGA devices, with audio functions
DECIDED = {
    CONTAINER: {WORKLOAD: "container"},
    PASSTHROUGH: {WORKLOAD: "vm-passthrough"},
    VGPU: {WORKLOAD: "vm-vgpu", CONFIG: "A10-24Q"},
    STRANGER: {OPERANDS: "false"},
}
FLEET = {CONTAINER: {"nvidia.com/gpu": 2}, PASSTHROUGH: {"nvidia.com/GA102GL_A10": 2}, VGPU: {"nvidia.com/NVIDIA_A10-24Q": 2}, STRANGER: {}}


def merged(now: Any, change: Any) -> Any:
    """A merge patch, with the two things of a strategic one that the simulation uses: conditions by type, and whole maps replaced."""
    if not isinstance(change, dict) or change.get("$patch") == "replace":
        return {key: value for key, value in change.items() if key != "$patch"} if isinstance(change, dict) else change
    result = dict(now or {})
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        elif key == "conditions":
            kinds = [c["type"] for c in value]
            result[key] = [c for c in result.get(key) or [] if c["type"] not in kinds] + value
        else:
            result[key] = merged(result.get(key), value)
    return result


class Cluster:
    """API server, DaemonSet controller and kubelets, as far as the simulation meets them."""

    def __init__(self) -> None:
        self.objects: dict[str, Json] = {}

    @staticmethod
    def _matches(path: str, collection: str) -> bool:
        place, _, _name = path.rpartition("/")
        return place == collection or re.sub(r"/namespaces/[^/]+", "", place) == collection

    def items(self, path: str, **query: str) -> list[Json]:
        found = [item for key, item in self.objects.items() if self._matches(key, path)]
        if selector := query.get("labelSelector"):
            key, value = selector.split("=")
            found = [item for item in found if (item["metadata"].get("labels") or {}).get(key) == value]
        if selector := query.get("fieldSelector"):
            found = [item for item in found if item["spec"].get("nodeName") == selector.split("=")[1]]
        return copy.deepcopy(found)

    def create(self, path: str, body: Json) -> None:
        body = copy.deepcopy(body)
        stamp = f"{len(self.objects):04}"
        body["metadata"] = {"generation": 1, "creationTimestamp": stamp, "uid": str(uuid.uuid4()), **body["metadata"]}
        self.objects[f"{path}/{body['metadata']['name']}"] = body

    def patch(self, path: str, body: Json, kind: str = "") -> None:
        path = path.removesuffix("/status")
        before = self.objects[path]
        self.objects[path] = after = merged(before, copy.deepcopy(body))
        if after.get("spec") != before.get("spec"):
            after["metadata"]["generation"] += 1

    def delete(self, path: str, body: Json | None = None) -> None:
        self.objects.pop(path, None)

    def reconcile(self) -> None:
        """A pod on each node that a DaemonSet selects, ready at once as kwok makes it; those of an old revision stay (OnDelete)."""
        pods = "/api/v1/namespaces/gpu-operator/pods"
        sets = {item["metadata"]["name"]: item for item in self.items("/apis/apps/v1/daemonsets")}
        nodes = {item["metadata"]["name"]: item["metadata"].get("labels") or {} for item in self.items("/api/v1/nodes")}
        wanted = {
            f"{name}-{node}": (item, node)
            for name, item in sets.items()
            for node, own in nodes.items()
            if item["spec"]["template"]["spec"]["nodeSelector"].items() <= own.items()
        }
        for path in [key for key in self.objects if key.startswith(f"{pods}/") and key.rpartition("/")[2] not in wanted]:
            del self.objects[path]
        for name, (item, node) in wanted.items():
            if f"{pods}/{name}" not in self.objects:
                status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
                meta = {"name": name, "namespace": "gpu-operator", "labels": item["spec"]["template"]["metadata"]["labels"]}
                self.create(pods, {"metadata": meta, "spec": {"nodeName": node}, "status": status})
        for name, item in sets.items():
            own = [self.objects[f"{pods}/{pod}"] for pod, (of, _node) in wanted.items() if of is item]
            self.objects[f"/apis/apps/v1/namespaces/gpu-operator/daemonsets/{name}"]["status"] = {
                "observedGeneration": item["metadata"]["generation"],
                "desiredNumberScheduled": len(own),
                "numberAvailable": sum(c["status"] == "True" for pod in own for c in pod["status"]["conditions"] if c["type"] == "Ready"),
                "updatedNumberScheduled": sum(pod["metadata"]["labels"] == item["spec"]["template"]["metadata"]["labels"] for pod in own),
            }


class Lab:
    """Hosts, a cluster and the simulation over them. Time passes by rounds."""

    def __init__(self, directory: Path, clock: Callable[[float], None]) -> None:
        self.layout, self.cluster, self.clock = Layout(directory), Cluster(), clock
        self.layout.events.touch()
        self.start()

    def start(self, *faults: str) -> None:
        self.simulation = Simulation(self.layout, self.cluster, faults)  # type: ignore[arg-type]

    def add_node(self, name: str, **own: str) -> None:
        root = self.layout.hosts / name
        if name in tree.LAB_HOSTS:
            spec = copy.deepcopy(tree.LAB_HOSTS[name])
            for gpu in spec.gpus:
                gpu.vfs_total, gpu.vfs = 2, min(gpu.vfs, 2)  # as many as A10-12Q needs: they are many files
            if name == PASSTHROUGH:
                spec.cmdline = "intel_iommu=on"
            tree.build(root, spec)
        info = {"bootID": self.boot_id(name), "kernelVersion": "5.15.0"}
        status = {"nodeInfo": info, "allocatable": {"cpu": "4"}, "conditions": [{"type": "Ready", "status": "True"}]}
        self.cluster.create("/api/v1/nodes", {"metadata": {"name": name, "labels": own}, "spec": {}, "status": status})

    def boot_id(self, name: str) -> str:
        file = self.layout.hosts / name / "proc/sys/kernel/random/boot_id"
        return file.read_text().strip() if file.exists() else "of-its-own"

    def install(self, chart: str = "gpu-operator-1", **spec: Json) -> None:
        on = {"enabled": True}
        names = ("driver", "toolkit", "devicePlugin", "gfd", "dcgmExporter", "vfioManager", "vgpuDeviceManager", "sandboxDevicePlugin")
        body = {
            "metadata": {"name": "cluster-policy"},
            "spec": {
                **dict.fromkeys(names, on),
                "vgpuManager": {**on, "repository": "r", "image": "i", "version": "1"},
                "sandboxWorkloads": {**on, "defaultWorkload": "container"},
                "daemonsets": {"updateStrategy": "OnDelete", "labels": {"helm.sh/chart": chart}},
                **spec,
            },
        }
        at = {"namespace": "gpu-operator"}
        self.cluster.create(
            "/apis/apps/v1/namespaces/gpu-operator/deployments",
            {"metadata": {"name": "gpu-operator", **at, "labels": {"app": "gpu-operator"}}},
        )
        self.cluster.create(
            "/api/v1/namespaces/gpu-operator/configmaps",
            {"metadata": {"name": "nfd", **at, "labels": {"app.kubernetes.io/name": "node-feature-discovery"}}},
        )
        self.cluster.create("/apis/nvidia.com/v1/clusterpolicies", body)

    def uninstall(self) -> None:
        """What Helm and the garbage collector do."""
        for path in [path for path in self.cluster.objects if "/deployments/" in path or "/configmaps/" in path or "/daemonsets/" in path]:
            del self.cluster.objects[path]
        del self.cluster.objects["/apis/nvidia.com/v1/clusterpolicies/cluster-policy"]

    def settle(self, rounds: int = 30) -> None:
        for _ in range(rounds):
            self.simulation.round()
            self.cluster.reconcile()
            self.clock(0.5)

    def node(self, name: str) -> Json:
        return self.cluster.objects[f"/api/v1/nodes/{name}"]

    def labels(self, name: str) -> dict[str, str]:
        own: dict[str, str] = self.node(name)["metadata"]["labels"]
        return own

    def label(self, name: str, **own: str | None) -> None:
        self.cluster.patch(f"/api/v1/nodes/{name}", {"metadata": {"labels": own}})

    def advertised(self, name: str) -> dict[str, int]:
        return {
            key: int(value) for key, value in self.node(name)["status"]["allocatable"].items() if key.startswith("nvidia") and value != "0"
        }

    def fleet(self) -> dict[str, dict[str, int]]:
        return {name: self.advertised(name) for name in DECIDED}

    def pods(self, daemonset: str, node: str) -> list[Json]:
        return [pod for key, pod in self.cluster.objects.items() if key.endswith(f"/pods/{daemonset}-{node}")]

    def kill(self, daemonset: str, node: str) -> None:
        self.cluster.delete(f"/api/v1/namespaces/gpu-operator/pods/{daemonset}-{node}")

    def reboot(self, name: str) -> None:
        tree.reboot(self.layout.hosts / name)
        self.cluster.patch(f"/api/v1/nodes/{name}/status", {"status": {"nodeInfo": {"bootID": self.boot_id(name)}}})

    def machine(self, name: str, node: str, resource: str | None) -> None:
        limits = {resource: "1"} if resource else {"cpu": "1"}
        meta = {"name": name, "namespace": "vms", "labels": {"kubevirt.io": "virt-launcher"}, "annotations": {"kubevirt.io/domain": name}}
        spec = {"nodeName": node, "containers": [{"name": "compute", "resources": {"limits": limits}}]}
        self.cluster.create("/api/v1/namespaces/vms/pods", {"metadata": meta, "spec": spec, "status": {"phase": "Running"}})

    def events(self, kind: str) -> list[Json]:
        return [event for event in map(json.loads, self.layout.events.read_text().splitlines()) if event["event"] == kind]

    def lost(self) -> list[tuple[str, str]]:
        return [(event["vm"], event["node"]) for event in self.events("vm_lost")]

    def policy(self) -> Json:
        found: Json = self.cluster.objects["/apis/nvidia.com/v1/clusterpolicies/cluster-policy"]["status"]
        return found


@pytest.fixture
def directory() -> Iterator[Path]:
    """In memory where there is such a place: host trees are thousands of small files, and a disk takes its time to remove them."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as made:
        yield Path(made)


@pytest.fixture
def lab(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    # Two types are enough here, and every one is many files.
    few = {number: kind for number, kind in tree.A10_TYPES.items() if kind[0] in ("NVIDIA A10-24Q", "NVIDIA A10-12Q")}
    monkeypatch.setattr(tree, "A10_TYPES", few)
    (directory / "hosts").mkdir()

    def clock(seconds: float) -> None:
        now[0] += seconds

    made = Lab(directory, clock)
    for name, own in DECIDED.items():
        made.add_node(name, **own)
    return made


@pytest.fixture
def fleet(lab: Lab) -> Lab:
    """The lab with its operator, settled."""
    lab.install()
    lab.settle()
    assert lab.fleet() == FLEET
    return lab


def test_a_fleet_converges(fleet: Lab) -> None:
    state = fleet.policy()
    assert state["state"] == "ready"
    assert [(c["type"], c["status"], c["reason"]) for c in state["conditions"]] == [
        ("Ready", "True", "Reconciled"),
        ("Error", "False", "Ready"),
    ]
    assert fleet.labels(VGPU)[STATE] == "success"
    assert {event["node"] for event in fleet.events("operand_started")} == {CONTAINER, PASSTHROUGH, VGPU}
    assert fleet.lost() == []


def test_nothing_happens_before_the_chart_is_there(lab: Lab) -> None:
    lab.settle(5)
    assert all(NFD not in lab.labels(name) and PRESENT not in lab.labels(name) for name in DECIDED)
    assert lab.cluster.items("/apis/apps/v1/daemonsets") == []
    assert lab.events("operand_started") == []


def test_a_settled_fleet_is_left_alone(fleet: Lab) -> None:
    before = copy.deepcopy(fleet.cluster.objects)
    assert fleet.simulation.round() is False
    assert fleet.cluster.objects == before


def test_without_nfd_the_operator_is_ready_and_does_nothing(lab: Lab) -> None:
    lab.start("no-nfd")
    lab.install()
    lab.settle(10)
    assert (lab.policy()["state"], lab.policy()["conditions"][0]["reason"]) == ("ready", "NFDLabelsMissing")
    assert lab.cluster.items("/apis/apps/v1/daemonsets") == []


def test_an_unlabelled_gpu_node_gets_the_container_driver_and_its_machine_is_lost(fleet: Lab) -> None:
    fleet.machine("vm-1", STRANGER, "nvidia.com/GA102GL_A10")
    fleet.machine("vm-2", STRANGER, None)
    fleet.label(STRANGER, **{OPERANDS: None})
    fleet.settle()
    assert fleet.lost() == [("vms/vm-1", STRANGER)]
    assert fleet.advertised(STRANGER) == {"nvidia.com/gpu": 2}


def test_without_sandbox_workloads_every_node_is_a_container_node(fleet: Lab) -> None:
    fleet.machine("vm-1", PASSTHROUGH, "nvidia.com/GA102GL_A10")
    fleet.cluster.patch("/apis/nvidia.com/v1/clusterpolicies/cluster-policy", {"spec": {"sandboxWorkloads": {"enabled": False}}})
    fleet.settle()
    assert fleet.lost() == [("vms/vm-1", PASSTHROUGH)]
    assert fleet.advertised(PASSTHROUGH) == {"nvidia.com/gpu": 2}
    assert fleet.node(PASSTHROUGH)["status"]["allocatable"]["nvidia.com/GA102GL_A10"] == "0"


@pytest.mark.parametrize(
    ("daemonset", "node", "lost"),
    [
        ("nvidia-vfio-manager", PASSTHROUGH, True),
        ("nvidia-vgpu-manager-daemonset", VGPU, True),
        ("nvidia-sandbox-device-plugin-daemonset", PASSTHROUGH, False),
        ("nvidia-vgpu-device-manager", VGPU, False),
    ],
)
def test_which_restart_takes_machines_down(fleet: Lab, daemonset: str, node: str, lost: bool) -> None:
    resource = "nvidia.com/GA102GL_A10" if node == PASSTHROUGH else "nvidia.com/NVIDIA_A10-24Q"
    fleet.machine("vm-1", node, resource)
    fleet.kill(daemonset, node)
    fleet.settle()
    assert fleet.lost() == ([("vms/vm-1", node)] if lost else [])
    assert fleet.fleet() == FLEET


def test_a_new_chart_under_ondelete_restarts_nothing_and_is_not_ready_until_the_last_old_pod_is_gone(fleet: Lab) -> None:
    fleet.machine("vm-1", PASSTHROUGH, "nvidia.com/GA102GL_A10")
    change = {"spec": {"daemonsets": {"labels": {"helm.sh/chart": "gpu-operator-2"}}}}
    fleet.cluster.patch("/apis/nvidia.com/v1/clusterpolicies/cluster-policy", change)
    fleet.settle()
    assert fleet.lost() == []
    assert (fleet.policy()["state"], fleet.policy()["conditions"][1]["reason"]) == ("notReady", "OperandNotReady")
    for pod in fleet.cluster.items("/api/v1/namespaces/gpu-operator/pods"):
        assert fleet.policy()["state"] == "notReady"
        fleet.cluster.delete(f"/api/v1/namespaces/gpu-operator/pods/{pod['metadata']['name']}")
        fleet.settle(12)
    assert fleet.policy()["state"] == "ready"
    assert fleet.fleet() == FLEET


def test_an_unready_operand_is_seen_in_its_pod(lab: Lab) -> None:
    tree.build(lab.layout.hosts / PASSTHROUGH, tree.LAB_HOSTS[PASSTHROUGH])  # IOMMU off: vfio-pci refuses the device
    lab.install()
    lab.settle()
    conditions = lab.pods("nvidia-sandbox-validator", PASSTHROUGH)[0]["status"]["conditions"]
    ready = next(c for c in conditions if c["type"] == "Ready")
    assert ready["status"] == "False" and "not bound to 'vfio-pci'" in ready["message"]
    assert lab.policy()["state"] == "notReady"
    assert lab.advertised(PASSTHROUGH) == {}


@pytest.mark.parametrize("name", [PASSTHROUGH, VGPU])
def test_after_a_reboot_the_same_pods_do_their_work_again(fleet: Lab, name: str) -> None:
    pods = {pod["metadata"]["uid"] for pod in fleet.cluster.items("/api/v1/namespaces/gpu-operator/pods")}
    fleet.machine("vm-1", name, "nvidia.com/any")  # `lab reboot` would have taken it
    fleet.reboot(name)
    fleet.simulation.round()
    assert fleet.advertised(name) == {}
    assert ["started" in event["why"] for event in fleet.events("vm_lost")] == [True]  # a reboot stops no container in order
    fleet.settle()
    assert fleet.fleet() == FLEET
    if name == PASSTHROUGH:
        assert pods == {pod["metadata"]["uid"] for pod in fleet.cluster.items("/api/v1/namespaces/gpu-operator/pods")}


def test_a_new_profile_takes_the_machines_of_the_old_one(fleet: Lab) -> None:
    fleet.machine("vm-1", VGPU, "nvidia.com/NVIDIA_A10-24Q")
    fleet.label(VGPU, **{CONFIG: "A10-12Q"})
    fleet.settle()
    assert fleet.lost() == [("vms/vm-1", VGPU)]
    assert fleet.advertised(VGPU) == {"nvidia.com/NVIDIA_A10-12Q": 4}


def test_plugins_do_not_look_twice(fleet: Lab) -> None:
    tree.bind(fleet.layout.hosts / PASSTHROUGH, None)
    fleet.settle(5)
    assert fleet.fleet() == FLEET
    fleet.kill("nvidia-sandbox-device-plugin-daemonset", PASSTHROUGH)
    fleet.settle()
    assert fleet.advertised(PASSTHROUGH) == {}


def test_a_removed_deploy_label_is_not_repaired(fleet: Lab) -> None:
    fleet.label(CONTAINER, **{DEPLOY + "device-plugin": None})
    fleet.settle()
    assert DEPLOY + "device-plugin" not in fleet.labels(CONTAINER)
    assert fleet.advertised(CONTAINER) == {}
    fleet.label(CONTAINER, **{WORKLOAD: "containers"})  # invalid, so the default, but a trigger
    fleet.settle()
    assert fleet.fleet() == FLEET


def test_an_uninstalled_operator_leaves_labels_and_resources_of_0(fleet: Lab) -> None:
    fleet.uninstall()
    fleet.settle(5)
    assert fleet.fleet() == {name: {} for name in DECIDED}
    assert fleet.node(PASSTHROUGH)["status"]["allocatable"]["nvidia.com/GA102GL_A10"] == "0"
    assert fleet.labels(PASSTHROUGH)[DEPLOY + "vfio-manager"] == "true"
    assert set(tree.drivers(fleet.layout.hosts / PASSTHROUGH).values()) == {None}


def test_vfio_manager_takes_the_audio_function_of_a_display_and_lets_go_of_it_without_giving_it_back(fleet: Lab) -> None:
    fleet.add_node(DISPLAY, **{WORKLOAD: "vm-passthrough"})
    audio = fleet.layout.hosts / DISPLAY / "sys/bus/pci/devices/0000:41:00.1/driver"
    assert audio.resolve().name == "snd_hda_intel"
    fleet.settle()
    assert audio.resolve().name == "vfio-pci"
    assert fleet.advertised(DISPLAY) == {"nvidia.com/GA102GL_RTX_A6000": 2, "nvidia.com/GA102_HIGH_DEFINITION_AUDIO_CONTROLLER": 2}
    fleet.uninstall()
    fleet.settle(5)
    assert not audio.exists() and fleet.advertised(DISPLAY) == {}


def test_a_simulation_that_is_started_again_starts_no_operand_again(fleet: Lab) -> None:
    fleet.machine("vm-1", PASSTHROUGH, "nvidia.com/GA102GL_A10")
    started = len(fleet.events("operand_started"))
    fleet.start()
    fleet.settle()
    assert (len(fleet.events("operand_started")), fleet.lost(), fleet.fleet()) == (started, [], FLEET)


def test_only_the_oldest_policy_counts(fleet: Lab) -> None:
    fleet.cluster.create("/apis/nvidia.com/v1/clusterpolicies", {"metadata": {"name": "a-second"}, "spec": {"driver": {}}})
    fleet.settle()
    assert fleet.cluster.objects["/apis/nvidia.com/v1/clusterpolicies/a-second"]["status"] == {"state": "ignored"}
    assert fleet.policy()["state"] == "ready" and fleet.fleet() == FLEET


# ------------------------------------------------------------------ faults


def test_a_pre_installed_driver_is_found_again_and_again_and_nothing_begins(lab: Lab) -> None:
    lab.start("preinstalled-driver")
    lab.install()
    lab.settle(20)
    assert lab.fleet() == {**FLEET, PASSTHROUGH: {}, VGPU: {}}
    [status] = lab.pods("nvidia-vfio-manager", PASSTHROUGH)[0]["status"]["initContainerStatuses"]
    assert (status["name"], status["state"]["waiting"]["reason"]) == ("k8s-driver-manager", "CrashLoopBackOff")
    seen = []
    for _ in range(12):
        lab.settle(1)
        seen.append(lab.labels(PASSTHROUGH).get(DEPLOY + "driver"))
    assert seen.count("pre-installed") >= 1 and seen.count(None) >= 1
    lab.simulation.faults = ()
    lab.settle(60)
    assert lab.fleet() == FLEET and DEPLOY + "driver" not in lab.labels(PASSTHROUGH)
    assert lab.pods("nvidia-vfio-manager", PASSTHROUGH)[0]["status"]["initContainerStatuses"] == []


def test_plugins_that_restart_advertise_0_until_their_devices_are_well(fleet: Lab) -> None:
    fleet.simulation.faults = ("plugin-at-0",)
    fleet.settle(5)
    assert fleet.fleet() == FLEET
    fleet.kill("nvidia-sandbox-device-plugin-daemonset", PASSTHROUGH)
    fleet.settle()
    assert fleet.node(PASSTHROUGH)["status"]["allocatable"]["nvidia.com/GA102GL_A10"] == "0"
    fleet.simulation.faults = ()
    fleet.settle(5)
    assert fleet.fleet() == FLEET


def test_a_plugin_that_knows_no_name_advertises_the_device_id_and_leaves_the_old_name_at_0(fleet: Lab) -> None:
    fleet.simulation.faults = ("renamed-resource",)
    fleet.kill("nvidia-sandbox-device-plugin-daemonset", PASSTHROUGH)
    fleet.settle()
    assert fleet.advertised(PASSTHROUGH) == {"nvidia.com/2236": 2}
    assert fleet.node(PASSTHROUGH)["status"]["allocatable"]["nvidia.com/GA102GL_A10"] == "0"


@pytest.mark.parametrize(("config", "state"), [("default", "failed"), ("A10-24Q", "success")])
def test_a_default_that_names_a_gpu_twice_fails_after_the_first_and_others_do_not(fleet: Lab, config: str, state: str) -> None:
    fleet.simulation.faults = ("default-fails",)
    fleet.label(VGPU, **{CONFIG: config})
    fleet.settle()
    assert fleet.labels(VGPU)[STATE] == state
    assert fleet.advertised(VGPU) == ({"nvidia.com/NVIDIA_A10-12Q": 4} if state == "failed" else FLEET[VGPU])


def test_every_fault_of_operands_is_carried_out_and_no_other() -> None:
    source = "".join(Path(part.__file__).read_text() for part in (driver, virt_handlers))
    assert set(re.findall(r'"([a-z0-9-]+)" (?:not )?in self\.faults', source)) == {n for n, f in FAULTS.items() if f.where == "operand"}


@pytest.mark.parametrize(
    ("fault", "state", "paused"),
    [("vgpu-failed", "failed", False), ("sticky-pause", "failed", True)],
)
def test_a_device_manager_that_fails(lab: Lab, fault: str, state: str, paused: bool) -> None:
    lab.start(fault)
    lab.install()
    lab.settle()
    assert lab.labels(VGPU)[STATE] == state
    assert lab.labels(VGPU)[DEPLOY + "sandbox-validator"].startswith("paused") is paused
    assert lab.fleet() == {**FLEET, VGPU: {}}


def test_stale_success_is_there_and_goes(fleet: Lab) -> None:
    fleet.start("stale-success")
    fleet.settle()
    fleet.label(VGPU, **{CONFIG: "A10-12Q"})
    fleet.settle(8)
    assert fleet.labels(VGPU)[STATE] == "success" and fleet.advertised(VGPU) == FLEET[VGPU]
    fleet.settle(40)
    assert fleet.labels(VGPU)[STATE] == "success" and fleet.advertised(VGPU) == {"nvidia.com/NVIDIA_A10-12Q": 4}


def test_slow_operands_get_there(lab: Lab) -> None:
    lab.start("slow-operands")
    lab.install()
    lab.settle(30)
    assert lab.fleet() == {name: {} for name in DECIDED} and lab.policy()["state"] == "notReady"
    lab.settle(60)
    assert lab.fleet() == FLEET
