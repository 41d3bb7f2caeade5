# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Looks, asks the pure parts, and acts: objects on the API server, devices in the host trees, events in a file."""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from typing import Protocol

from tests.hosts import tree
from tests.lab import nodes as lab_nodes
from tests.lab.api import STRATEGIC, Api, ApiError
from tests.lab.layout import Layout
from tests.lab.operands import daemonsets, device_manager, devices, labels, readiness
from tests.lab.operands.labels import Json
from tests.lab.operands.snapshot import Run, Seen, is_ready, look

#: Operands whose start (k8s-driver-manager) and, but for the container driver, whose end takes every GPU from VFIO or off its driver.
_TAKERS = ("driver", "vfio-manager", "vgpu-manager")
_PLUGINS = ("device-plugin", "sandbox-device-plugin")


class Simulation:
    """One simulated operator with its operands."""

    def __init__(self, layout: Layout, api: Api, faults: Collection[str] = (), speed: float = 1.0) -> None:
        self.layout, self.api, self.faults, self.slow = layout, api, faults, 1 / speed
        self.acted = False
        self.looked: dict[str, object] = {}  # node -> what made the operator look at its labels last
        self.runs: dict[Run, float] = {}  # what runs -> since when, in seconds
        self.before = _started_before(layout)  # keys of runs that a simulation before this one has started
        self.passed: set[Run] = set()
        self.found: dict[Run, dict[str, int]] = {}  # plugin -> what it found at its start
        self.unhealthy: set[Run] = set()  # plugins whose devices count for nothing while the fault lasts
        self.advertising: set[str] = set()
        self.managers: dict[Run, device_manager.Manager] = {}
        self.blocked: dict[Run, float] = {}  # what k8s-driver-manager has not yet let begin -> when it looks again

    def round(self) -> bool:
        """Look once and do what is to be done; True if anything was."""
        self.acted = False
        seen = look(self.api)
        if seen.namespace is None:
            self.looked.clear()
        elif seen.policies:
            policy = seen.policies[0]
            for node in seen.nodes:
                self.label(seen, policy, node)
            self.write_daemonsets(seen, policy)
            self.write_status(seen)
        self.follow(seen.runs(), seen)
        if seen.policies:
            for node in seen.nodes:
                self.operate(seen, seen.policies[0], node)
        for node in seen.nodes:
            self.advertise(node)
        return self.acted

    # ------------------------------------------------------------------ the operator

    def label(self, seen: Seen, policy: Json, node: Json) -> None:
        name = node["metadata"]["name"]
        if seen.nfd and "no-nfd" not in self.faults:
            self.patch_labels(node, dict(labels.nfd(node, name == lab_nodes.STRANGER or (self.layout.hosts / name).is_dir())))
        if self.looked.get(name) != labels.triggers(node, policy):
            self.patch_labels(node, labels.deploy(node, policy))
            self.looked[name] = labels.triggers(node, policy)

    def write_daemonsets(self, seen: Seen, policy: Json) -> None:
        path = f"/apis/apps/v1/namespaces/{seen.namespace}/daemonsets"
        now = {item["metadata"]["name"]: item for item in seen.daemonsets}
        wanted = {}
        for operand in daemonsets.enabled(policy):
            if not (operand == "vgpu-manager" and daemonsets.image_problem(policy)):
                body = daemonsets.daemonset(operand, policy, seen.namespace or "")
                wanted[body["metadata"]["name"]] = body
        for name, body in wanted.items():
            if name in now:
                if change := daemonsets.update(now[name], body):
                    self.api.patch(f"{path}/{name}", change, STRATEGIC)
                    self.acted = True
            elif any(labels.is_gpu(node) for node in seen.nodes):
                self.api.create(path, body)
                self.acted = True
        for name in now.keys() - wanted.keys():
            self.api.delete(f"{path}/{name}")
            self.acted = True

    def write_status(self, seen: Seen) -> None:
        for position, policy in enumerate(seen.policies):
            now = policy.get("status") or {}
            if position:
                wanted: Json = {"state": "ignored"}
            else:
                state, reason, message = daemonsets.status(policy, list(seen.nodes), list(seen.daemonsets))
                wanted = {"state": state, "namespace": seen.namespace, "conditions": daemonsets.conditions(state, reason, message)}
            shown = [{key: value for key, value in c.items() if key != "lastTransitionTime"} for c in now.get("conditions") or []]
            if now.get("state") == wanted["state"] and shown == wanted.get("conditions", shown):
                continue
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            for condition in wanted.get("conditions", []):
                condition["lastTransitionTime"] = stamp
            self.api.patch(f"/apis/nvidia.com/v1/clusterpolicies/{policy['metadata']['name']}/status", {"status": wanted})
            self.acted = True

    # ------------------------------------------------------------------ the operands

    def follow(self, now: dict[Run, Json], seen: Seen) -> None:
        """Pods that have gone and pods that have come, in this order."""
        left = {pod["metadata"]["uid"] for pod in seen.pods if not pod["metadata"].get("deletionTimestamp")}
        for run in [run for run in self.runs if run not in now]:
            del self.runs[run]
            self.passed.discard(run)
            self.found.pop(run, None)
            self.unhealthy.discard(run)
            self.managers.pop(run, None)
            self.blocked.pop(run, None)
            self.acted = True
            if run.pod not in left and run.operand in ("vfio-manager", "vgpu-manager"):  # it was stopped: a reboot stops nothing
                self.lose_machines(run.node, f"{run.operand} was stopped")
                if run.operand == "vfio-manager":
                    self.bind(run.node, None)
        for run, pod in now.items():
            if run in self.runs:
                continue
            self.acted = True
            if run.key in self.before:
                self.runs[run] = float("-inf")
                continue
            self.runs[run] = time.monotonic()
            lab_nodes.record(
                self.layout, event="operand_started", node=run.node, operand=run.operand, pod=pod["metadata"]["name"], run=run.key
            )
            self.blocked[run] = 0.0
        for run in list(self.blocked):
            if self.finds_driver(run):
                self.say_preinstalled(run, seen)
            else:
                del self.blocked[run]
                self.begin(run)

    def finds_driver(self, run: Run) -> bool:
        """Does k8s-driver-manager, which vfio-manager and vGPU manager have before them, find a driver on the host itself?"""
        return "preinstalled-driver" in self.faults and run.operand in ("vfio-manager", "vgpu-manager")

    def say_preinstalled(self, run: Run, seen: Seen) -> None:
        """Each time that it looks (here every 5 s, really after a minute and more) it labels the node, and the operator takes the label away."""
        now = time.monotonic()
        if now < self.blocked[run]:
            return
        self.blocked[run] = now + 5.0 * self.slow
        for node in seen.nodes:
            if node["metadata"]["name"] == run.node:
                self.patch_labels(node, {labels.DEPLOY + "driver": "pre-installed"})
                self.looked.pop(run.node, None)

    def begin(self, run: Run) -> None:
        """What an operand does to its host when it starts."""
        if run.operand in _TAKERS:
            self.lose_machines(run.node, f"{run.operand} was started and took every GPU from VFIO")
        if run.operand == "driver":
            self.bind(run.node, "nvidia")
        elif run.operand == "vfio-manager":
            # Without an IOMMU vfio-pci refuses the device, and vfio-manager only warns.
            self.bind(run.node, "vfio-pci" if any(gpu.group for gpu in self.host(run.node).gpus) else None)
        elif run.operand == "vgpu-manager" and (root := self.layout.hosts / run.node).is_dir():
            tree.start_vgpu_manager(root)

    def operate(self, seen: Seen, policy: Json, node: Json) -> None:
        """Readiness, device manager and plugins of one node."""
        name = node["metadata"]["name"]
        mine = {run.operand: run for run in self.runs if run.node == name}
        if not mine or not is_ready(node):
            return
        passed = frozenset(operand for operand, run in mine.items() if run in self.passed)
        waiting: dict[str, str] = {}
        if passed != mine.keys():
            ages = {operand: time.monotonic() - self.runs[run] for operand, run in mine.items()}
            more = 20.0 if "slow-operands" in self.faults else 0.0
            enabled = frozenset(daemonsets.enabled(policy))
            held = frozenset(run.operand for run in self.blocked if run.node == name)
            here = readiness.Here(labels.workload(node, policy), ages, self.host(name), enabled, passed, held, self.slow, more)
            waiting = readiness.waiting(here)
            self.passed.update(run for operand, run in mine.items() if operand not in waiting)
        pods = {pod["metadata"]["uid"]: pod for pod in seen.pods}
        for operand, run in mine.items():
            self.patch_readiness(pods[run.pod], waiting.get(operand), run in self.blocked)
            if operand in _PLUGINS and run in self.passed and run not in self.found:
                self.found[run] = self.advertised(operand, self.host(name))
                if "plugin-at-0" in self.faults:
                    self.unhealthy.add(run)
        manager = mine.get("vgpu-device-manager")
        if manager in self.passed:
            self.manage_vgpus(seen, policy, node, manager)

    def advertised(self, operand: str, host: devices.Host) -> dict[str, int]:
        """What a device plugin finds at its start."""
        if operand == "device-plugin":
            found = devices.container_resources(host)
        else:
            found = devices.sandbox_resources(host, {} if "renamed-resource" in self.faults else devices.PLUGIN_NAMES)
        return found

    def manage_vgpus(self, seen: Seen, policy: Json, node: Json, run: Run) -> None:
        now = time.monotonic()
        config = (policy["spec"].get("vgpuDeviceManager") or {}).get("config") or {}
        manager = self.managers.get(run)
        if manager is None:
            manager = device_manager.start(node, config.get("default") or "default", now, self.configs(seen, run))
        configs = manager.configs
        if "default-fails" in self.faults and "default" in configs:
            configs = {**configs, "default": [*configs["default"], device_manager.SECOND_ENTRY]}
        around = device_manager.Around(
            node,
            self.host(run.node) if manager.step == "looking" else devices.Host(),
            now,
            gone="sticky-pause" not in self.faults and not seen.has_pod(run.node, ("sandbox-device-plugin", "sandbox-validator")),
            look=(10.0 if "stale-success" in self.faults else 0.3) * self.slow,
            work=0.6 * self.slow,
            patience=(3.0 if "sticky-pause" in self.faults else 120.0) * self.slow,
        )
        self.managers[run], changes = device_manager.step(
            manager, around, lambda config: self.make_vgpus(run.node, config, configs[config])
        )
        self.patch_labels(node, changes)

    def configs(self, seen: Seen, run: Run) -> device_manager.Configs:
        """What the configuration holds that a device manager's pod has mounted."""
        pod = next(pod for pod in seen.pods if pod["metadata"]["uid"] == run.pod)
        name = daemonsets.mounted(pod["spec"])
        if name == daemonsets.STOCK_CONFIG_MAP:
            return device_manager.STOCK_CONFIGS
        import yaml  # the lab starts without it, and needs it only here

        for item in self.api.items(f"/api/v1/namespaces/{seen.namespace}/configmaps"):
            if item["metadata"]["name"] == name:
                return dict(yaml.safe_load(item["data"]["config.yaml"])["vgpu-configs"])
        return {}

    def make_vgpus(self, node: str, config: str, entries: list[Json]) -> bool:
        self.lose_machines(node, f"the vGPU Device Manager made new vGPUs for {config}")
        host = self.host(node)
        if "vgpu-failed" in self.faults or device_manager.wanted(entries, host) is None:
            return False
        types, through = device_manager.walk(entries, host)
        return tree.make_vgpus(self.layout.hosts / node, types) and through

    def host(self, node: str) -> devices.Host:
        return devices.read(self.layout.hosts / node)

    def bind(self, node: str, driver: str | None) -> None:
        if (self.layout.hosts / node).is_dir():
            tree.bind(self.layout.hosts / node, driver, devices.companions(self.layout.hosts / node))

    def lose_machines(self, node: str, why: str) -> None:
        """Virtual machines that have a GPU of the node end."""
        for pod in self.api.items("/api/v1/pods", labelSelector="kubevirt.io=virt-launcher", fieldSelector=f"spec.nodeName={node}"):
            meta = pod["metadata"]
            limits = [key for box in pod["spec"]["containers"] for key in (box.get("resources") or {}).get("limits") or {}]
            if pod["status"].get("phase") in ("Succeeded", "Failed") or not any(key.startswith("nvidia.com/") for key in limits):
                continue
            machine = (meta.get("annotations") or {}).get("kubevirt.io/domain", "?")
            lab_nodes.record(self.layout, event="vm_lost", vm=f"{meta['namespace']}/{machine}", node=node, why=why)
            self.api.delete(f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}", {"gracePeriodSeconds": 0})

    # ------------------------------------------------------------------ writing

    def patch_labels(self, node: Json, changes: dict[str, str | None]) -> None:
        if not changes:
            return
        self.api.patch(f"/api/v1/nodes/{node['metadata']['name']}", {"metadata": {"labels": changes}})
        own = node["metadata"].setdefault("labels", {})
        own.update({key: value for key, value in changes.items() if value is not None})
        for key in [key for key, value in changes.items() if value is None]:
            own.pop(key, None)
        self.acted = True

    def patch_readiness(self, pod: Json, waits_for: str | None, crashes: bool) -> None:
        """kwok makes each new pod ready at once; one whose init containers still wait is not. ``crashes``: k8s-driver-manager ends with 1."""
        ready = {"status": "True"} if waits_for is None else {"status": "False", "reason": "ContainersNotReady", "message": waits_for}
        status = pod["status"]
        now: Json = next((c for c in status.get("conditions") or [] if c["type"] == "Ready"), {})
        if now.get("status") == ready["status"] and (waits_for is None or now.get("message") == waits_for):
            return
        meta = pod["metadata"]
        body: Json = {"conditions": [{"type": kind, **ready} for kind in ("ContainersReady", "Ready")]}
        if crashes or status.get("initContainerStatuses"):
            body["initContainerStatuses"] = [readiness.CRASHES] if crashes else []
        self.api.patch(f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/status", {"status": body}, STRATEGIC)
        self.acted = True

    def advertise(self, node: Json) -> None:
        """What the node's plugins have found; when the last plugin has gone, nothing."""
        name = node["metadata"]["name"]
        if "plugin-at-0" not in self.faults:
            self.unhealthy.clear()
        found = {
            key: 0 if run in self.unhealthy else count
            for run, resources in self.found.items()
            if run.node == name
            for key, count in resources.items()
        }
        if found:
            self.advertising.add(name)
        elif name not in self.advertising:
            return
        changes = devices.allocatable(node["status"].get("allocatable") or {}, found)
        if changes:
            body = {"status": {"capacity": changes, "allocatable": changes}}
            self.api.patch(f"/api/v1/nodes/{name}/status", body, STRATEGIC)
            self.acted = True
        if not found:
            self.advertising.discard(name)


class Part(Protocol):
    """Something that is simulated in rounds."""

    def round(self) -> bool: ...


def _started_before(layout: Layout) -> set[str]:
    """Keys of the runs in the events file: started again, the simulation must not start its operands again."""
    try:
        lines = layout.events.read_text().splitlines()
    except OSError:
        return set()
    events = (json.loads(line) for line in lines)
    return {event["run"] for event in events if event.get("event") == "operand_started" and "run" in event}


def run(simulation: Simulation, *others: Part) -> None:
    """For ever: quickly while something happens, slowly while nothing does. The faults are those that the lab's record has."""
    last = time.monotonic()
    while True:
        try:
            simulation.faults = frozenset(simulation.layout.read()["faults"])
            acted = [part.round() for part in (simulation, *others)]
            if True in acted:
                last = time.monotonic()
        except ApiError as error:
            # Objects come and go under us (a reset, an uninstall): the next round sees what there is.
            print(f"round given up: {error}", flush=True)
        time.sleep(0.2 if time.monotonic() - last < 10 else 0.6)
