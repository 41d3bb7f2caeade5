# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``gpu_vm`` and ``gpu_vm_info`` on a simulated API server."""

from __future__ import annotations

import base64
import json
import typing as t
from pathlib import Path

import pytest
from fake_api import FakeApi, Fault, Request
from gpu_objects import A10, VGPU, Clock, Json, launcher, node

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _vm_io

VMS = "/apis/kubevirt.io/v1/namespaces/ml/virtualmachines"
VM = f"{VMS}/vm"
VMI = "/apis/kubevirt.io/v1/namespaces/ml/virtualmachineinstances/vm"
KUBEVIRT = "/apis/kubevirt.io/v1/namespaces/kubevirt/kubevirts/kubevirt"
SECRET = "/api/v1/namespaces/ml/secrets/gpufleet-licence"
TYPE = "/apis/instancetype.kubevirt.io/v1beta1/virtualmachineclusterinstancetypes/big"
TOKEN = "head.a-token-that-nobody-may-see.tail"
KEY = "client_configuration_token.tok"
OURS = {"annotations": {"gpufleet.kubevirt/made-by": "gpu_vm"}}


def there(api: FakeApi) -> FakeApi:
    """A passthrough node and a vGPU node; both kinds of device are permitted."""
    for name, offers in (("gpu0", {A10: 2}), ("gpu1", {VGPU: 4})):
        api.add(f"/api/v1/nodes/{name}", node(name, {"kubevirt.io/schedulable": "true"}, offers))
    listed = {
        "pciHostDevices": [{"pciVendorSelector": "10DE:2236", "resourceName": A10}],
        "mediatedDevices": [{"mdevNameSelector": "NVIDIA A10-4Q", "resourceName": VGPU}],
    }
    spec = {"configuration": {"permittedHostDevices": listed}}
    api.add(KUBEVIRT, {"spec": spec, "status": {"observedKubeVirtVersion": "v1.7.0"}})
    for path in ("/api/v1/namespaces/ml", "/api/v1/namespaces/kubevirt"):
        api.add(path)
    api.add("/apis/kubevirt.io/v1/namespaces/other/virtualmachineinstances/theirs", {"spec": {"domain": {"devices": {}}}})
    return api


@pytest.fixture
def cluster(api: FakeApi) -> FakeApi:
    return there(api)


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token.tok"
    path.write_text(TOKEN, encoding="utf-8")
    path.chmod(0o600)
    return path


def arguments(api: FakeApi, **more: t.Any) -> Json:
    # Ansible hides secrets in results wherever they appear, so the key to the API server is no word that does.
    return {
        **api.params,
        "api_key": "a key of its own",
        "name": "vm",
        "namespace": "ml",
        "gpus": [{"resource": VGPU}],
        "memory": "16Gi",
        **more,
    }


def runs(api: FakeApi, phase: str = "Running") -> None:
    gpus = [{"name": "gpu0", "deviceName": VGPU}]
    api.add(VMI, {"spec": {"domain": {"devices": {"gpus": gpus}}}, "status": {"phase": phase, "nodeName": "gpu1"}})


def test_a_vm_is_made_once_and_as_check_mode_has_said(cluster: FakeApi, run_module) -> None:
    checked = run_module("gpu_vm", arguments(cluster), check=True)
    assert cluster.written == []
    done = run_module("gpu_vm", arguments(cluster))
    assert not done["failed"], done["msg"]
    assert done["changes"] == checked["changes"]
    assert [(change["target"], change["action"]) for change in done["changes"]] == [("VM ml/vm", "create")]
    assert done["resources"] == {VGPU: 1}
    made = cluster.objects[VM]["spec"]
    assert made["runStrategy"] == done["changes"][0]["after"]["spec.runStrategy"] == "Always"
    assert made["template"]["spec"]["domain"]["devices"]["gpus"] == [{"name": "gpu0", "deviceName": VGPU}]
    written = len(cluster.written)
    assert not run_module("gpu_vm", arguments(cluster))["changed"]
    assert len(cluster.written) == written


def test_what_is_not_asked_for_any_more_goes_and_what_others_have_set_stays(cluster: FakeApi, run_module) -> None:
    run_module("gpu_vm", arguments(cluster, cpu_cores=4))
    cluster.objects[VM]["spec"]["template"]["spec"]["nodeSelector"] = {"rack": "7"}
    done = run_module("gpu_vm", arguments(cluster), diff=True)
    [change] = done["changes"]
    assert (change["action"], change["before"], change["after"]) == ("update", {"spec.template.spec.domain.cpu.cores": 4}, {})
    assert "cpu" not in cluster.objects[VM]["spec"]["template"]["spec"]["domain"]
    assert cluster.objects[VM]["spec"]["template"]["spec"]["nodeSelector"] == {"rack": "7"}


def test_a_change_of_a_vm_that_runs_waits_for_its_next_start_and_nothing_is_restarted(cluster: FakeApi, run_module) -> None:
    run_module("gpu_vm", arguments(cluster))
    runs(cluster)
    before = len(cluster.written)
    done = run_module("gpu_vm", arguments(cluster, cpu_cores=8))
    assert "takes effect at its next start" in done["changes"][0]["reason"]
    assert "Nothing was restarted" in str(done["warnings"])
    assert [(request.method, request.path) for request in cluster.written[before:]] == [("PATCH", VM)]
    assert VMI in cluster.objects


@pytest.mark.parametrize(("given", "after"), [(None, "Halted"), ("Always", "Always")])
def test_a_vm_that_somebody_has_stopped_stays_so_unless_it_is_to_run(cluster: FakeApi, run_module, given: str | None, after: str) -> None:
    run_module("gpu_vm", arguments(cluster))
    cluster.objects[VM]["spec"]["runStrategy"] = "Halted"
    done = run_module("gpu_vm", arguments(cluster, **({"run_strategy": given} if given else {})))
    assert done["changed"] is (given is not None)
    assert cluster.objects[VM]["spec"]["runStrategy"] == after


def lose_permits(api: FakeApi) -> None:
    api.objects[KUBEVIRT]["spec"]["configuration"]["permittedHostDevices"] = {}


def test_a_vm_that_has_its_device_or_is_not_to_run_is_only_warned_of(cluster: FakeApi, run_module) -> None:
    lose_permits(cluster)
    halted = run_module("gpu_vm", arguments(cluster, run_strategy="Halted"))
    assert not halted["failed"], halted["msg"]
    assert f"could not be started now: KubeVirt does not permit {VGPU}" in str(halted["warnings"])
    refused = run_module("gpu_vm", arguments(cluster, run_strategy="Always"))
    assert refused["failed"]
    runs(cluster)
    assert not run_module("gpu_vm", arguments(cluster, run_strategy="Always"))["failed"]


def kind(**spec: t.Any) -> t.Callable[[FakeApi], object]:
    return lambda api: api.add(TYPE, {"spec": spec})


def vm_of(metadata: Json, **spec: t.Any) -> t.Callable[[FakeApi], object]:
    return lambda api: api.add(VM, {"metadata": metadata, "spec": spec})


BIG = {"instancetype": {"name": "big"}, "memory": None}
G = [{"name": "g", "deviceName": VGPU}]
STOPS = [
    pytest.param(lambda api: api.objects.pop("/api/v1/namespaces/ml"), {}, "namespace ml: there is none. Make it first", id="namespace"),
    pytest.param(lambda api: api.add("/api/v1/namespaces/ml", {"status": {"phase": "Terminating"}}), {}, "is being deleted", id="going"),
    pytest.param(vm_of({}), {}, "was not made by this collection. Choose another name, or hand it over", id="foreign"),
    pytest.param(vm_of({**OURS, "deletionTimestamp": "x"}), {}, "VM ml/vm: it is being deleted. Wait", id="vm going"),
    pytest.param(vm_of(OURS, running=True), {}, "spec.running, which is deprecated", id="running"),
    pytest.param(
        lose_permits, {}, f"KubeVirt does not permit {VGPU}: permitted are nothing. Permit it with kubevirt_permit", id="not permitted"
    ),
    pytest.param(
        lambda api: api.objects.pop("/api/v1/nodes/gpu1"), {}, f"no node advertises {VGPU}: gpu0 has {A10}: 2. See", id="not advertised"
    ),
    pytest.param(None, {"gpus": [{"resource": VGPU}, {"resource": A10}]}, f"no node has {A10} and {VGPU} together", id="not together"),
    pytest.param(
        None, {"gpus": [{"resource": A10, "display": True}]}, f"{A10} is a whole PCI device: they are for vGPUs. Leave", id="display"
    ),
    pytest.param(None, BIG, "cluster instancetype big: there is none. Make it, or see", id="no type"),
    pytest.param(kind(gpus=G), BIG, f"it brings GPUs already ({VGPU}), and KubeVirt refuses", id="type with GPUs"),
    pytest.param(kind(), {**BIG, "gpus": []}, "it has no GPU, and none is asked for", id="no GPU at all"),
    pytest.param(kind(memory={"overcommitPercent": 10}), BIG, "overcommits memory by 10 %, and VFIO pins", id="overcommit"),
    pytest.param(
        kind(gpus=[*G, {"name": "h", "deviceName": "nvidia.com/NVIDIA_A40-8Q"}]),
        {**BIG, "gpus": []},
        "not all of one board",
        id="type mixes",
    ),
    pytest.param(
        None, {"licence": {}}, "secret ml/gpufleet-licence: there is none. Make it, with the client token under the key", id="no secret"
    ),
    pytest.param(
        lambda api: api.add(SECRET, {"data": {"a": "eA=="}}),
        {"licence": {}},
        f"nothing under the key {KEY}; its keys are: a. Set",
        id="no key",
    ),
    pytest.param(
        lambda api: api.faults.append(Fault(422, 1, lambda request: request.query.get("force") == "true", message="webhook says no")),
        {},
        "the API server refuses it: PATCH",
        id="webhook",
    ),
]


@pytest.mark.parametrize(("prepare", "more", "words"), STOPS)
def test_what_could_not_start_is_refused_before_anything_is_written(
    cluster: FakeApi, run_module, prepare: t.Callable[[FakeApi], object] | None, more: Json, words: str
) -> None:
    if prepare:
        prepare(cluster)
    done = run_module("gpu_vm", arguments(cluster, **more))
    assert done["failed"]
    assert done["msg"].startswith("Having VM ml/vm: stopped by ")
    assert words in done["msg"]
    assert "Nothing was changed." in done["msg"]
    assert cluster.written == []


@pytest.mark.parametrize("name", ["v1.8.0", "v1.9.0"])
def test_a_display_of_a_vgpu_that_is_permitted_as_a_pci_device_takes_kubevirt_1_9(cluster: FakeApi, run_module, name: str) -> None:
    listed = {"pciHostDevices": [{"pciVendorSelector": "10DE:2236", "resourceName": VGPU}]}
    spec = {"configuration": {"permittedHostDevices": listed}}
    cluster.add(KUBEVIRT, {"spec": spec, "status": {"observedKubeVirtVersion": name}})
    done = run_module("gpu_vm", arguments(cluster, gpus=[{"resource": VGPU, "display": True}]))
    assert done["failed"] is (name == "v1.8.0")
    assert not done["failed"] or "use KubeVirt 1.9 or newer" in done["msg"]


def test_an_instancetype_brings_the_gpus(cluster: FakeApi, run_module) -> None:
    cluster.add(TYPE, {"spec": {"gpus": G}})
    done = run_module("gpu_vm", arguments(cluster, **{**BIG, "gpus": []}))
    assert not done["failed"], done["msg"]
    assert done["resources"] == {VGPU: 1}
    assert "gpus" not in cluster.objects[VM]["spec"]["template"]["spec"]["domain"]["devices"]


@pytest.mark.parametrize(
    ("percent", "words"), [(None, None), (100, None), (150, "requests only 66 % of it of the node (memoryOvercommit: 150)")]
)
def test_an_instancetypes_memory_that_kubevirt_overcommits_is_warned_of(
    cluster: FakeApi, run_module, percent: int | None, words: str | None
) -> None:
    cluster.add(TYPE, {"spec": {"gpus": G}})
    cluster.objects[KUBEVIRT]["spec"]["configuration"]["developerConfiguration"] = {"memoryOvercommit": percent} if percent else {}
    warned = str(run_module("gpu_vm", arguments(cluster, **{**BIG, "gpus": []})).get("warnings"))
    assert ("memoryOvercommit" in warned) is (words is not None)
    assert words is None or words in warned
    assert "memoryOvercommit" not in str(run_module("gpu_vm", {**arguments(cluster), "name": "other"}).get("warnings"))


def test_a_cluster_without_kubevirt_is_named(api: FakeApi, run_module) -> None:
    done = run_module("gpu_vm", arguments(api))
    assert "has no KubeVirt. Install it first" in done["msg"]


def test_a_request_that_cannot_be_is_refused_before_anything_is_read(cluster: FakeApi, run_module) -> None:
    done = run_module("gpu_vm", arguments(cluster, spec={"running": True}))
    assert "spec.running is deprecated" in done["msg"]
    assert cluster.requests == []


# ------------------------------------------------------------------ the licence


def test_the_token_goes_from_the_file_into_the_secret_and_is_shown_nowhere(cluster: FakeApi, run_module, token: Path) -> None:
    asked = arguments(cluster, licence={"token_file": str(token)})
    checked = run_module("gpu_vm", asked, check=True, diff=True)
    done = run_module("gpu_vm", asked, diff=True)
    assert [change["target"] for change in done["changes"]] == ["secret ml/gpufleet-licence", "VM ml/vm"]
    assert base64.b64decode(cluster.objects[SECRET]["data"][KEY]).decode() == TOKEN
    token.write_text(TOKEN + "2", encoding="utf-8")
    updated = run_module("gpu_vm", asked, diff=True)
    assert [(change["target"], change["action"]) for change in updated["changes"]] == [("secret ml/gpufleet-licence", "update")]
    assert not run_module("gpu_vm", asked)["changed"]
    for result in (checked, done, updated):
        for secret in (TOKEN, base64.b64encode(TOKEN.encode()).decode()):
            assert secret not in json.dumps(result)
    bodies = [json.dumps(request.body) for request in cluster.requests if not request.path.startswith("/api/v1/namespaces/ml/secrets")]
    assert not any(base64.b64encode(TOKEN.encode()).decode() in body for body in bodies)


def test_a_new_token_reaches_a_vm_that_runs_at_its_next_start(cluster: FakeApi, run_module, token: Path) -> None:
    asked = arguments(cluster, licence={"token_file": str(token)})
    run_module("gpu_vm", asked)
    runs(cluster)
    token.write_text("another", encoding="utf-8")
    assert "its guest sees the new licence token after its next start" in str(run_module("gpu_vm", asked)["warnings"])


def test_a_secret_of_others_is_used_and_never_overwritten(cluster: FakeApi, run_module, token: Path) -> None:
    cluster.add(SECRET, {"data": {KEY: base64.b64encode(TOKEN.encode()).decode()}})
    for licence in ({}, {"token_file": str(token)}):
        assert not run_module("gpu_vm", arguments(cluster, licence=licence))["failed"]
    token.write_text("another", encoding="utf-8")
    done = run_module("gpu_vm", arguments(cluster, licence={"token_file": str(token)}))
    assert "holds something else under that key, and was not made by this collection" in done["msg"]
    assert base64.b64decode(cluster.objects[SECRET]["data"][KEY]).decode() == TOKEN


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file"),
        (b" \n", "is empty"),
        (b"x" * (513 * 1024), "more than 512 KiB"),
        (b"$ANSIBLE_VAULT;1.1", "Vault"),
    ],
)
def test_a_file_without_a_token_is_refused_and_not_quoted(
    cluster: FakeApi, run_module, token: Path, content: bytes | None, words: str
) -> None:
    token.unlink() if content is None else token.write_bytes(content)
    done = run_module("gpu_vm", arguments(cluster, licence={"token_file": str(token)}))
    assert done["failed"]
    assert f"licence.token_file {token}" in done["msg"] and words in done["msg"]
    assert cluster.requests == []


def test_a_token_that_others_may_read_is_warned_of(cluster: FakeApi, run_module, token: Path) -> None:
    token.chmod(0o644)
    done = run_module("gpu_vm", arguments(cluster, licence={"token_file": str(token)}))
    assert "may be read by others than its owner" in str(done["warnings"])


# ------------------------------------------------------------------ away with it


def test_only_what_this_collection_has_made_is_removed(cluster: FakeApi, run_module, token: Path) -> None:
    run_module("gpu_vm", arguments(cluster, licence={"token_file": str(token)}))
    gone = {**cluster.params, "name": "vm", "namespace": "ml", "state": "absent"}
    checked = run_module("gpu_vm", gone, check=True)
    assert VM in cluster.objects
    done = run_module("gpu_vm", gone)
    assert [(c["target"], c["action"]) for c in done["changes"]] == [("VM ml/vm", "delete"), ("secret ml/gpufleet-licence", "delete")]
    assert done["changes"] == checked["changes"]
    assert VM not in cluster.objects and SECRET not in cluster.objects
    assert not run_module("gpu_vm", gone)["changed"]
    cluster.add(VM, {"spec": {}})
    refused = run_module("gpu_vm", gone)
    assert "was not made by this collection, so it is left alone" in refused["msg"]
    assert VM in cluster.objects


def test_a_secret_that_another_vm_has_stays(cluster: FakeApi, run_module, token: Path) -> None:
    for name in ("vm", "next"):
        run_module("gpu_vm", {**arguments(cluster, licence={"token_file": str(token)}), "name": name})
    gone = {**cluster.params, "namespace": "ml", "state": "absent"}
    assert len(run_module("gpu_vm", {**gone, "name": "vm"})["changes"]) == 1
    assert SECRET in cluster.objects
    assert len(run_module("gpu_vm", {**gone, "name": "next"})["changes"]) == 2
    assert SECRET not in cluster.objects


def test_a_secret_of_others_stays_when_the_vm_goes(cluster: FakeApi, run_module) -> None:
    cluster.add(SECRET, {"data": {KEY: "eA=="}})
    run_module("gpu_vm", arguments(cluster, licence={}))
    run_module("gpu_vm", {**cluster.params, "name": "vm", "namespace": "ml", "state": "absent"})
    assert VM not in cluster.objects and SECRET in cluster.objects


def test_a_secret_that_cannot_be_written_leaves_no_vm_without_it(cluster: FakeApi, run_module, token: Path) -> None:
    cluster.faults.append(
        Fault(403, 9, lambda r: r.method == "POST" and "/secrets" in r.path, reason="Forbidden", message="no secrets for you")
    )
    done = run_module("gpu_vm", arguments(cluster, licence={"token_file": str(token)}))
    assert "secret ml/gpufleet-licence: POST" in done["msg"] and "no secrets for you" in done["msg"]
    assert VM not in cluster.objects


# ------------------------------------------------------------------ has it its place


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(_vm_io, "time", clock)
    return clock


def ask(api: FakeApi, **more: t.Any) -> Json:
    return {**api.params, "name": "vm", "namespace": "ml", **more}


def test_a_vm_is_waited_for_until_it_has_its_place(cluster: FakeApi, run_module, clock: Clock) -> None:
    run_module("gpu_vm", arguments(cluster))
    clock.on_sleep = lambda: runs(cluster, "Scheduled") if clock.now > 1010 else None
    done = run_module("gpu_vm_info", ask(cluster, wait=True))
    assert not done["failed"], done["msg"]
    assert (done["vm"]["node"], done["vm"]["phase"], done["vm"]["resources"], done["cause"]) == ("gpu1", "Scheduled", {VGPU: 1}, None)
    assert 1010 < clock.now < 1015


def test_a_vm_that_gets_no_place_is_explained_as_things_are_then(cluster: FakeApi, run_module, clock: Clock) -> None:
    run_module("gpu_vm", arguments(cluster))
    cluster.add(VMI, {"spec": {"domain": {"devices": {"gpus": G}}}, "status": {"phase": "Scheduling"}})
    pod = launcher("vm", None, {VGPU: "1"})
    pod["metadata"]["labels"]["kubevirt.io/created-by"] = cluster.objects[VMI]["metadata"]["uid"]
    says = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": f"0/2 nodes: 2 Insufficient {VGPU}."}
    pod["status"] = {"phase": "Pending", "conditions": [says]}
    cluster.add("/api/v1/namespaces/ml/pods/virt-launcher-vm-x", pod)
    clock.on_sleep = lambda: cluster.add("/api/v1/namespaces/ml/pods/theirs", launcher("theirs", "gpu1", {VGPU: "4"})) and None
    done = run_module("gpu_vm_info", ask(cluster, wait=True, wait_timeout=5))
    assert done["failed"]
    assert (
        f"it has no place after 5 s: every node that has {VGPU} has too few free, held by gpu1: ml/theirs. Stop one of these" in done["msg"]
    )
    assert done["cause"]["name"] == "in use"
    assert clock.now == pytest.approx(1005, abs=1)


def test_a_refusal_by_kubevirt_is_shown_from_three_sides(cluster: FakeApi, run_module, clock: Clock) -> None:
    run_module("gpu_vm", arguments(cluster))
    lose_permits(cluster)
    message = f"failed to render launch manifest: GPU {VGPU} is not permitted in permittedHostDevices configuration"
    says = {"type": "Synchronized", "status": "False", "reason": "FailedCreate", "message": message}
    cluster.add(VMI, {"spec": {"domain": {"devices": {"gpus": G}}}, "status": {"phase": "Pending", "conditions": [says]}})
    done = run_module("gpu_vm_info", ask(cluster))
    assert done["cause"]["name"] == "not permitted"
    assert message in done["cause"]["problem"]
    assert f"{VGPU} is permitted: no; advertised by: gpu1 (4); asked for by: VM ml/vm, VMI ml/vm" in done["cause"]["problem"]
    assert [device["advertised"] for device in done["devices"]] == [{"gpu1": 4}]


def test_a_vm_that_is_not_to_run_is_not_waited_for(cluster: FakeApi, run_module, clock: Clock) -> None:
    run_module("gpu_vm", arguments(cluster, run_strategy="Halted"))
    done = run_module("gpu_vm_info", ask(cluster, wait=True))
    assert not done["failed"]
    assert (done["vm"]["phase"], done["cause"]["name"]) == (None, "not to run")
    assert clock.now == 1000


@pytest.mark.parametrize(("wait", "check", "failed"), [(False, False, False), (True, False, True), (True, True, False)])
def test_a_vm_that_is_not_there_fails_only_who_waits_for_it(
    cluster: FakeApi, run_module, clock: Clock, wait: bool, check: bool, failed: bool
) -> None:
    done = run_module("gpu_vm_info", ask(cluster, wait=wait), check=check)
    assert done["failed"] is failed
    assert done["vm"] is None
    assert clock.now == 1000


def test_looking_writes_nothing(cluster: FakeApi, run_module, clock: Clock) -> None:
    run_module("gpu_vm_info", ask(cluster, wait=True))
    assert not [request for request in cluster.requests if request.method != "GET"]


def test_a_change_that_kubevirt_holds_back_shows(cluster: FakeApi, run_module) -> None:
    run_module("gpu_vm", arguments(cluster))
    cluster.objects[VM]["status"] = {"conditions": [{"type": "RestartRequired", "status": "True"}]}
    assert run_module("gpu_vm_info", ask(cluster))["vm"]["restart_required"] is True


def reads(request: Request) -> bool:
    return request.method == "GET" and request.path.endswith("/kubevirts")


def test_a_cluster_that_lets_nobody_read_is_quoted(cluster: FakeApi, run_module) -> None:
    cluster.faults.append(Fault(403, 1, reads, reason="Forbidden", message="not for you"))
    assert "Looking at VM ml/vm: GET" in run_module("gpu_vm_info", ask(cluster))["msg"]
