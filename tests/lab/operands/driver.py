# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the cluster, asks the rules, and acts: objects on the API server, devices in the host trees, events in a file."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import Any

from tests.hosts import tree
from tests.lab import nodes as lab_nodes
from tests.lab.api import STRATEGIC, Api, ApiError
from tests.lab.layout import Layout
from tests.lab.operands import rules
from tests.lab.operands.rules import Json

FAULTS = {
    "no-nfd": "Node Feature Discovery never labels a node",
    "vgpu-failed": "the vGPU Device Manager fails on every configuration",
    "stale-success": "the vGPU Device Manager leaves its last state and does nothing",
    "sticky-pause": "the vGPU Device Manager does not give the plugin its label back",
    "slow-operands": "everything takes 20 seconds more",
}
#: GPUs of a node that has no tree, as device id by address.
_WITHOUT_TREE = {"0000:41:00.0": "2236", "0000:a1:00.0": "2236"}
#: How long the vGPU Device Manager takes for each of its steps, in seconds.
_STEP = 0.6


@dataclasses.dataclass
class Seen:
    policy: Json | None
    installed: str | None  #: namespace of the operator's Deployment
    nodes: list[Json]
    daemonsets: list[Json]
    pods: list[Json]


class Simulation:
    """One simulated operator with its operands."""

    def __init__(self, layout: Layout, api: Api, faults: tuple[str, ...] = ()) -> None:
        self.layout, self.api, self.faults = layout, api, faults
        self.looked: dict[str, tuple[Any, ...]] = {}  # node -> what made us look at its labels last
        self.started: set[str] = set()  # uids of pods whose start has been carried out
        self.advertised: dict[str, tuple[str, dict[str, int]]] = {}  # node -> plugin pod and what it found at its start
        self.managers: dict[str, rules.Manager] = {}
        self.waiting_since: dict[str, float] = {}

    # -------------------------------------------------------------- one round

    def round(self) -> bool:
        """Look once and do what is to be done; True if anything was."""
        seen = self.look()
        self.acted = False
        if seen.installed is None or seen.policy is None:
            if seen.installed is None:
                self.clear(seen)
            return self.acted
        for node in seen.nodes:
            self.label(seen, node)
        self.daemonsets(seen)
        for pod in sorted(seen.pods, key=lambda item: item["metadata"].get("creationTimestamp") or ""):
            self.start(seen, pod)
        for node in seen.nodes:
            self.device_manager(seen, node)
            self.plugin(seen, node)
        self.write_status(seen)
        return self.acted

    def look(self) -> Seen:
        deployments = self.api.items("/apis/apps/v1/deployments", labelSelector="app=gpu-operator")
        installed = deployments[0]["metadata"]["namespace"] if deployments else None
        policies = self.api.items("/apis/nvidia.com/v1/clusterpolicies")
        daemonsets = self.api.items(f"/apis/apps/v1/namespaces/{installed}/daemonsets") if installed else []
        pods = self.api.items(f"/api/v1/namespaces/{installed}/pods") if installed else []
        return Seen(policies[0] if policies else None, installed, self.api.items("/api/v1/nodes"), daemonsets, pods)

    def clear(self, seen: Seen) -> None:
        """The operator is gone: its pods went with its namespace or will; what was advertised becomes 0."""
        self.looked.clear()
        self.managers.clear()
        self.started.clear()
        for node in seen.nodes:
            if self.advertised.pop(node["metadata"]["name"], None):
                self.advertise(node, {})

    def has_gpu(self, name: str) -> bool:
        return name == lab_nodes.STRANGER or (self.layout.hosts / name).is_dir()

    def label(self, seen: Seen, node: Json) -> None:
        assert seen.policy is not None
        name = node["metadata"]["name"]
        if "no-nfd" not in self.faults:
            self.patch_labels(node, dict(rules.nfd_labels(node, self.has_gpu(name))))
        if rules.labels(node).get(rules.NFD) != "true":
            return
        trigger = rules.triggers(node, seen.policy)
        if self.looked.get(name) != trigger:
            self.patch_labels(node, rules.deploy_labels(node, seen.policy))
            self.looked[name] = trigger

    def daemonsets(self, seen: Seen) -> None:
        assert seen.policy is not None and seen.installed is not None
        path = f"/apis/apps/v1/namespaces/{seen.installed}/daemonsets"
        now = {item["metadata"]["name"]: item for item in seen.daemonsets}
        wanted = {
            rules.DAEMONSETS[name].daemonset: rules.daemonset(name, seen.policy, seen.installed) for name in rules.enabled(seen.policy)
        }
        for name, body in wanted.items():
            if name not in now:
                self.api.create(path, body)
                self.acted = True
            elif rules.differs(now[name], body):
                self.api.patch(
                    f"{path}/{name}",
                    {"spec": {"updateStrategy": body["spec"]["updateStrategy"], "template": body["spec"]["template"]}},
                    STRATEGIC,
                )
                self.acted = True
        for name in now.keys() - wanted.keys():
            self.api.delete(f"{path}/{name}")
            self.acted = True

    # -------------------------------------------------------------- operands at work

    def operand(self, pod: Json) -> str | None:
        own = rules.labels(pod)
        return next((name for name, operand in rules.DAEMONSETS.items() if own.get(operand.key) == operand.daemonset), None)

    def running(self, seen: Seen, node: str, operand: str) -> Json | None:
        for pod in seen.pods:
            ready = pod["status"].get("phase") == "Running" and not pod["metadata"].get("deletionTimestamp")
            if ready and pod["spec"].get("nodeName") == node and self.operand(pod) == operand:
                return pod
        return None

    def start(self, seen: Seen, pod: Json) -> None:
        """What an operand does first when its pod starts."""
        uid, node, operand = pod["metadata"]["uid"], pod["spec"].get("nodeName"), self.operand(pod)
        if uid in self.started or not node or operand is None or pod["status"].get("phase") != "Running":
            return
        self.started.add(uid)
        self.acted = True
        lab_nodes.record(self.layout, event="operand_started", node=node, operand=operand, pod=pod["metadata"]["name"])
        root = self.layout.hosts / node
        if operand in ("driver", "vfio-manager", "vgpu-manager"):
            # The first act of each is to take every GPU from VFIO; a VM that has one dies of it.
            lab_nodes.lose_machines(self.layout, self.api, node, f"{operand} started and unbound every vfio device")
        if not root.is_dir():
            return
        if operand == "driver":
            tree.bind(root, "nvidia")
        elif operand == "vfio-manager":
            tree.bind(root, "vfio-pci" if tree.has_groups(root) else None)
        elif operand == "vgpu-manager":
            tree.start_vgpu_manager(root)

    def device_manager(self, seen: Seen, node: Json) -> None:
        assert seen.policy is not None
        name = node["metadata"]["name"]
        pod = self.running(seen, name, "vgpu-device-manager")
        if pod is None:
            self.managers.pop(name, None)
            return
        if self.running(seen, name, "vgpu-manager") is None or "stale-success" in self.faults:
            return  # it waits for the driver
        manager = self.managers.get(name)
        if manager is None or manager.pod != pod["metadata"]["uid"]:
            manager = rules.Manager(pod["metadata"]["uid"])
        config = (seen.policy["spec"].get("vgpuDeviceManager") or {}).get("config") or {}
        delay = _STEP + (20 if "slow-operands" in self.faults else 0)
        manager, actions = rules.manager_step(manager, node, config.get("default") or "default", time.monotonic(), delay)
        self.managers[name] = manager
        for what, value in actions:
            if what == "label":
                self.patch_labels(node, value)
            elif what == "apply":
                self.apply(node, value)
            elif what == "resume" and "sticky-pause" not in self.faults:
                self.patch_labels(node, value)

    def apply(self, node: Json, config: str) -> None:
        """Make the vGPUs of a configuration; the result is the state label."""
        name = node["metadata"]["name"]
        root = self.layout.hosts / name
        try:
            if "vgpu-failed" in self.faults or not root.is_dir():
                raise KeyError(config)
            made = tree.set_vgpus(root, "A10-12Q" if config == "default" else config)
            state = "success" if made else "failed"
        except KeyError:
            state = "failed"
        self.patch_labels(node, {rules.STATE: state})

    def plugin(self, seen: Seen, node: Json) -> None:
        """Device plugins look once, at their start, after the validator in front of them has let them through."""
        name = node["metadata"]["name"]
        kind = next((k for k in ("device-plugin", "sandbox-device-plugin") if self.running(seen, name, k)), None)
        if kind is None:
            if name in self.advertised:
                del self.advertised[name]
                self.advertise(node, {})
            return
        pod = self.running(seen, name, kind)
        assert pod is not None and seen.policy is not None
        uid = pod["metadata"]["uid"]
        if self.advertised.get(name, ("", {}))[0] == uid or not self.let_through(seen, node, kind):
            return
        if "slow-operands" in self.faults and time.monotonic() - self.waiting_since.setdefault(uid, time.monotonic()) < 20:
            return
        found = self.find(seen, node, kind)
        self.advertised[name] = (uid, found)
        self.advertise(node, found)

    def let_through(self, seen: Seen, node: Json, kind: str) -> bool:
        assert seen.policy is not None
        name = node["metadata"]["name"]
        if kind == "device-plugin":
            return self.running(seen, name, "driver") is not None
        if rules.effective_workload(node, seen.policy) == "vm-vgpu":
            manager = self.managers.get(name)
            return manager is not None and manager.step == "idle" and rules.labels(node).get(rules.STATE) == "success"
        started = self.running(seen, name, "vfio-manager")
        return started is not None and started["metadata"]["uid"] in self.started

    def find(self, seen: Seen, node: Json, kind: str) -> dict[str, int]:
        assert seen.policy is not None
        name = node["metadata"]["name"]
        root = self.layout.hosts / name
        gpus = _gpus(root)
        if kind == "device-plugin":
            return {"nvidia.com/gpu": len(gpus)}
        if rules.effective_workload(node, seen.policy) == "vm-vgpu":
            return rules.vgpu_resources(_vgpus(root))
        drivers = tree.drivers(root) if root.is_dir() else dict.fromkeys(gpus, "vfio-pci")
        return rules.passthrough_resources(gpus, dict(drivers))

    # -------------------------------------------------------------- writing

    def patch_labels(self, node: Json, changes: dict[str, str | None]) -> None:
        if not changes:
            return
        self.api.patch(f"/api/v1/nodes/{node['metadata']['name']}", {"metadata": {"labels": changes}})
        own = node["metadata"].setdefault("labels", {})
        for key, value in changes.items():
            if value is None:
                own.pop(key, None)
            else:
                own[key] = value
        self.acted = True

    def advertise(self, node: Json, wanted: dict[str, int]) -> None:
        changes = rules.allocatable(node["status"].get("allocatable") or {}, wanted)
        if changes:
            body = {"status": {"capacity": changes, "allocatable": changes}}
            self.api.patch(f"/api/v1/nodes/{node['metadata']['name']}/status", body, STRATEGIC)
            self.acted = True

    def write_status(self, seen: Seen) -> None:
        assert seen.policy is not None
        state, reason, message = rules.status(seen.policy, seen.nodes, seen.daemonsets)
        ready = {"type": "Ready", "status": "True" if state == "ready" else "False", "reason": reason, "message": message}
        now = seen.policy.get("status") or {}
        before = [{key: c.get(key) for key in ready} for c in now.get("conditions") or []]
        if now.get("state") == state and before == [ready]:
            return
        stamped = {**ready, "lastTransitionTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        path = f"/apis/nvidia.com/v1/clusterpolicies/{seen.policy['metadata']['name']}/status"
        self.api.patch(path, {"status": {"state": state, "namespace": seen.installed, "conditions": [stamped]}})
        self.acted = True


def _gpus(root: Any) -> dict[str, str]:
    """Device id by address of the GPUs of a host."""
    if not root.is_dir():
        return dict(_WITHOUT_TREE)
    found = {}
    for device in (root / "sys/bus/pci/devices").iterdir():
        with contextlib.suppress(OSError):
            if (device / "class").read_text().startswith("0x03") and not (device / "physfn").exists():
                found[device.name] = (device / "device").read_text().strip().removeprefix("0x")
    return found


def _vgpus(root: Any) -> list[str]:
    """The full type names of the vGPUs that a host has."""
    devices = root / "sys/bus/mdev/devices"
    return [(device / "mdev_type" / "name").read_text().strip() for device in devices.iterdir()] if devices.is_dir() else []


def run(simulation: Simulation) -> None:
    """For ever: quickly while something happens, slowly while nothing does."""
    last = time.monotonic()
    while True:
        try:
            if simulation.round():
                last = time.monotonic()
        except ApiError as error:
            # Objects come and go under us (a reset, an uninstall): the next round sees what there is.
            print(f"round given up: {error}", flush=True)
        time.sleep(0.2 if time.monotonic() - last < 10 else 0.6)
