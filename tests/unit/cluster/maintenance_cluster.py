# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A cluster whose VMs follow their run strategy, whose migrations succeed and whose evictions evict: what maintenance acts on."""

from __future__ import annotations

import copy
import typing as t

from fake_api import FakeApi, Request
from gpu_objects import A10, Json, node
from maintenance_objects import NODE, launcher, pod, vm, vmi

ML = "/api/v1/namespaces/ml"
KV = "/apis/kubevirt.io/v1/namespaces/ml"
SLOTS = "/api/v1/namespaces/gpufleet-system/configmaps/gpufleet-slots"
NFD = {"feature.node.kubernetes.io/cpu-model.id": "1"}


class Cluster:
    """``budgeted``: pods whose eviction a budget refuses. ``hung``: VMs that do not shut down. ``stranded``: migrations fail."""

    def __init__(self, api: FakeApi) -> None:
        self.api = api
        self.budgeted: set[str] = set()
        self.hung: set[str] = set()
        self.stranded = False
        #: VMs that ran when their run setting had not been written down, as (VM, slots): must stay empty.
        self.unrecorded: list[str] = []
        api.add(ML)
        for name in ("gpu1", "gpu2", "gpu3"):
            api.add(f"/api/v1/nodes/{name}", node(name, NFD, {A10: 2}))
        self.serve = api.answer
        api.answer = self.answer  # type: ignore[method-assign]

    def objects(self, kind: str) -> dict[str, Json]:
        return {path.rpartition("/")[2]: item for path, item in self.api.objects.items() if f"/{kind}/" in path}

    def run_vm(self, name: str, on: str = NODE, migratable: bool = False, **spec: t.Any) -> None:
        self.api.add(f"{KV}/virtualmachines/{name}", vm(name, **spec))
        self._place(name, on, migratable)

    def _place(self, name: str, on: str, migratable: bool = False, phase: str = "Running") -> None:
        self.api.add(f"{KV}/virtualmachineinstances/{name}", vmi(name, on=on, migratable=migratable, phase=phase))
        self.api.add(f"{ML}/pods/virt-launcher-{name}", launcher(name, on=on))

    def run_pod(self, name: str, **more: t.Any) -> None:
        self.api.add(f"{ML}/pods/{name}", pod(name, **more))

    def on_node(self) -> set[str]:
        return {name for name, item in self.objects("pods").items() if item["spec"].get("nodeName") == NODE}

    def state(self) -> Json:
        """What counts in the end: settings and places, no versions or names that the server makes."""
        vms = {name: item["spec"] for name, item in self.objects("virtualmachines").items()}
        nodes = {n: (i["spec"].get("unschedulable"), sorted(i["metadata"]["annotations"])) for n, i in self.objects("nodes").items()}
        slots = dict.fromkeys(self.slots(), "held")
        return copy.deepcopy({"vms": vms, "nodes": nodes, "slots": slots, "running": sorted(self.objects("virtualmachineinstances"))})

    def slots(self) -> Json:
        return dict(self.api.objects.get(SLOTS, {}).get("data") or {})

    def answer(self, request: Request) -> tuple[int, Json, dict[str, str]]:
        if request.path.endswith("/eviction") and request.method == "POST":
            self.api.requests.append(request)
            name = request.path.split("/")[-2]
            if name in self.budgeted:
                causes = [
                    {"reason": "DisruptionBudget", "message": "The disruption budget web-pdb needs 2 healthy pods and has 2 currently"}
                ]
                message = "Cannot evict pod as it would violate the pod's disruption budget."
                return 429, {"kind": "Status", "reason": "TooManyRequests", "message": message, "details": {"causes": causes}}, {}
            self.api.objects.pop(f"{ML}/pods/{name}", None)
            return 201, {}, {}
        if request.method == "PUT" and request.path.endswith("/start"):
            self.api.requests.append(request)
            self._place(request.path.split("/")[-2], "gpu2")
            return 202, {}, {}
        answer = self.serve(request)
        if request.writes:
            self._react()
        return answer

    def _react(self) -> None:
        running = self.objects("virtualmachineinstances")
        slots = "".join(self.slots().values())
        for name, item in self.objects("virtualmachines").items():
            spec = item["spec"]
            halted = spec.get("runStrategy") == "Halted" or spec.get("running") is False
            if halted and f'"{item["metadata"]["uid"]}"' not in slots and name in running:
                self.unrecorded.append(name)
            if halted and name in running and name not in self.hung:
                del self.api.objects[f"{KV}/virtualmachineinstances/{name}"]
                del self.api.objects[f"{ML}/pods/virt-launcher-{name}"]
            elif not halted and spec.get("runStrategy") != "Manual" and name not in running:
                self._place(name, "gpu2")
        for item in self.objects("virtualmachineinstancemigrations").values():
            if not item.get("status"):
                item["status"] = {"phase": "Failed" if self.stranded else "Succeeded"}
                if not self.stranded:
                    self._place(item["spec"]["vmiName"], "gpu2", True)
