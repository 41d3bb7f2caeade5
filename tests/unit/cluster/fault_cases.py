# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What each module of the cluster domain is asked for when it meets a fault: a cluster, what is done there, and what is not its own."""

from __future__ import annotations

import dataclasses
import typing as t

from fake_api import FakeApi
from gpu_objects import A10, NAMESPACE, STATE, VGPU, WORKLOAD, Json, node
from maintenance_cluster import NODE, SLOTS, Cluster
from test_permit import A10 as PERMITTED
from test_permit import A10_RAW, FOREIGN
from test_permit import PATH as KUBEVIRT
from test_probe import KubeVirt
from test_vgpu_config import NAME, SIX, text
from test_vm import VM, VMS, runs, there
from test_wait import EXPECT, fill
from test_wait import Scene as Settled

TEAM = {"team": "ml"}


@dataclasses.dataclass
class Scene:
    """``done``: is it so, by the module's result and the cluster? ``foreign``: what no run may change."""

    done: t.Callable[[Json], bool]
    foreign: t.Callable[[], t.Any]


@dataclasses.dataclass(frozen=True)
class Case:
    """``sends``: requests of the module, to tell that rules fit any."""

    name: str
    module: str
    prepare: t.Callable[[FakeApi], Scene]
    arguments: Json
    sends: tuple[tuple[str, str], ...]
    writes: bool = True


def _meta(api: FakeApi, path: str, kind: str = "labels") -> Json:
    return dict(api.objects.get(path, {}).get("metadata", {}).get(kind) or {})


def _labels(api: FakeApi) -> Scene:
    for name in "abc":
        api.add(f"/api/v1/nodes/{name}", node(name, TEAM, notes={"note": name}))

    def done(_result: Json) -> bool:
        return all(_meta(api, f"/api/v1/nodes/{name}")[WORKLOAD] == "vm-passthrough" for name in "abc")

    def foreign() -> t.Any:
        return [(_meta(api, f"/api/v1/nodes/{name}")["team"], _meta(api, f"/api/v1/nodes/{name}", "annotations")["note"]) for name in "abc"]

    return Scene(done, foreign)


def _permit(api: FakeApi) -> Scene:
    api.add("/apis/kubevirt.io/v1/namespaces/ml/virtualmachines/theirs", {"spec": {"template": {"spec": {"domain": {"devices": {}}}}}})
    listed = {"pciHostDevices": [FOREIGN], "usb": [{"resourceName": "example.com/usb", "selectors": []}]}
    api.add(KUBEVIRT, {"spec": {"configuration": {"permittedHostDevices": listed, "network": {"x": 1}}, "certificateRotateStrategy": {}}})

    def spec() -> Json:
        return dict(api.objects[KUBEVIRT]["spec"])

    def entries() -> list[Json]:
        return list(spec()["configuration"]["permittedHostDevices"]["pciHostDevices"])

    def foreign() -> t.Any:
        configuration = spec()["configuration"]
        return [e for e in entries() if e == FOREIGN], configuration["permittedHostDevices"]["usb"], configuration["network"]

    return Scene(lambda _result: entries() == [FOREIGN, A10_RAW], foreign)


def _permit_info(api: FakeApi) -> Scene:
    scene = _permit(api)
    api.add("/api/v1/nodes/a", node("a", TEAM, {A10: 2}))
    return Scene(lambda result: [d["resource_name"] for d in result["devices"]].count(A10) == 1, scene.foreign)


def _wait(api: FakeApi) -> Scene:
    fill(api, Settled("vm-vgpu"))
    return Scene(lambda result: [n["met"] for n in result["nodes"]] == [True], lambda: _meta(api, "/api/v1/nodes/a"))


def _rollout(api: FakeApi) -> Scene:
    fill(api, Settled("vm-vgpu"))
    return Scene(lambda result: result["pending"] == [] and len(result["daemonsets"]) > 0, lambda: _meta(api, "/api/v1/nodes/a"))


def _fleet(api: FakeApi) -> Scene:
    api.add("/api/v1/namespaces/kube-system")
    fill(api, Settled("vm-vgpu"))
    return Scene(lambda result: [n["name"] for n in result["nodes"]] == ["a"], lambda: _meta(api, "/api/v1/nodes/a"))


def _vgpu_config(api: FakeApi) -> Scene:
    place = f"/api/v1/namespaces/{NAMESPACE}"
    api.add(place)
    api.add(f"{place}/configmaps/theirs", {"data": {"x": "y"}})
    api.add("/api/v1/nodes/a", node("a", {**TEAM, STATE: "success"}, {VGPU: 6}))

    def foreign() -> t.Any:
        return api.objects[f"{place}/configmaps/theirs"]["data"], _meta(api, "/api/v1/nodes/a")

    return Scene(lambda _result: f"{place}/configmaps/{NAME}" in api.objects, foreign)


def _cordon(api: FakeApi) -> Scene:
    api.add("/api/v1/nodes/a", node("a", TEAM, notes={"note": "kept"}))

    def foreign() -> t.Any:
        return _meta(api, "/api/v1/nodes/a"), _meta(api, "/api/v1/nodes/a", "annotations")["note"]

    return Scene(lambda _result: api.objects["/api/v1/nodes/a"]["spec"].get("unschedulable") is True, foreign)


def _maintenance(api: FakeApi) -> Scene:
    api.add("/api/v1/namespaces/gpufleet-system")
    api.add(SLOTS, {"data": {"_failed": '{"old": "node z: gone"}'}})
    cluster = Cluster(api)
    cluster.run_vm("web", runStrategy="Always")
    cluster.run_pod("logs", owner="DaemonSet")

    def out(_result: Json) -> bool:
        return cluster.on_node() == {"logs"} and NODE in cluster.slots() and cluster.unrecorded == []

    return Scene(out, lambda: (cluster.slots()["_failed"], cluster.objects("nodes")["gpu2"]["spec"]))


def _namespace(api: FakeApi) -> Scene:
    place = f"/api/v1/namespaces/{NAMESPACE}"
    api.add("/api/v1/namespaces/default")
    api.add("/api/v1/namespaces/default/secrets/theirs", {"data": {"a": "b"}})
    return Scene(
        lambda _result: {place, f"{place}/secrets/pull"} <= api.objects.keys(),
        lambda: api.objects["/api/v1/namespaces/default/secrets/theirs"],
    )


def _probe(api: FakeApi) -> Scene:
    simulated = KubeVirt(api)
    theirs = "/apis/kubevirt.io/v1/namespaces/other/virtualmachineinstances/theirs"
    return Scene(lambda result: result["results"][0]["verdict"] == "proven" and not simulated.left(), lambda: api.objects[theirs])


def _vm(api: FakeApi) -> Scene:
    there(api)
    api.add(f"{VMS}/theirs", {"spec": {"runStrategy": "Always"}})
    return Scene(lambda _result: VM in api.objects, lambda: api.objects[f"{VMS}/theirs"])


def _vm_info(api: FakeApi) -> Scene:
    there(api)
    api.add(VM, {"spec": {"runStrategy": "Always"}})
    runs(api)
    return Scene(lambda result: result["vm"]["node"] == "gpu1", lambda: api.objects[VM])


_NODES = ("GET", "/api/v1/nodes")
_PULL = {"name": "pull", "registry": "registry.example.com/nvidia", "username": "robot", "password": "hunter2-and-more"}
_SETTLED = [{"name": "a", "workload": "vm-vgpu", "expect": EXPECT["vm-vgpu"]}]
_VGPU_CONFIG = {
    "name": NAME,
    "namespace": NAMESPACE,
    "content": text(**{"A10-4Q": SIX}),
    "nodes": [{"name": "a", "profile": "A10-4Q"}],
    "timeout": 0,
}
CASES = [
    Case(
        "labels",
        "gpu_node_label",
        _labels,
        {"nodes": [{"name": name, "workload": "vm-passthrough"} for name in "abc"]},
        (_NODES, ("PATCH", "/api/v1/nodes/a")),
    ),
    Case("permit", "kubevirt_permit", _permit, {"pci_devices": [PERMITTED]}, (("PATCH", KUBEVIRT),)),
    Case("permit-info", "kubevirt_permit_info", _permit_info, {}, (_NODES,), writes=False),
    Case("wait", "gpu_operator_wait", _wait, {"nodes": _SETTLED, "settle": 2}, (_NODES,), writes=False),
    Case(
        "rollout", "gpu_operator_rollout_info", _rollout, {}, (("GET", f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets"),), writes=False
    ),
    Case("fleet", "gpu_fleet_info", _fleet, {}, (_NODES,), writes=False),
    Case("vgpu-config", "gpu_vgpu_config", _vgpu_config, _VGPU_CONFIG, (("POST", f"/api/v1/namespaces/{NAMESPACE}/configmaps"),)),
    Case("cordon", "gpu_node_cordon", _cordon, {"node": "a", "state": "cordoned"}, (("PATCH", "/api/v1/nodes/a"),)),
    Case(
        "maintenance",
        "gpu_node_maintenance",
        _maintenance,
        {"node": NODE, "state": "out_of_service", "run": "a", "evacuate": "stop", "poll": 1, "slot_timeout": 0, "timeout": 30},
        (_NODES, ("PATCH", SLOTS), ("PATCH", f"/api/v1/nodes/{NODE}")),
    ),
    Case(
        "namespace",
        "gpu_operator_namespace",
        _namespace,
        {"name": NAMESPACE, "pod_security": "privileged", "pull_secret": _PULL},
        (("POST", "/api/v1/namespaces"),),
    ),
    Case(
        "probe",
        "gpu_vm_probe",
        _probe,
        {"resources": [{"name": A10, "node": "gpu1"}]},
        (("POST", "/apis/kubevirt.io/v1/namespaces/gpufleet-probe/virtualmachineinstances"),),
    ),
    Case("vm", "gpu_vm", _vm, {"name": "vm", "namespace": "ml", "gpus": [{"resource": VGPU}], "memory": "1Gi"}, (("PATCH", VM),)),
    Case("vm-info", "gpu_vm_info", _vm_info, {"name": "vm", "namespace": "ml"}, (_NODES,), writes=False),
]
