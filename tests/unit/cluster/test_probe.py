# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import time
import typing as t

import pytest
from fake_api import FakeApi, Fault, Request
from gpu_objects import A10, Clock, Json, launcher, node
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _probe, _probe_io, _vm_why

MODULE = "gpu_vm_probe"
NAMESPACE = "/api/v1/namespaces/gpufleet-probe"
INSTANCES = "/apis/kubevirt.io/v1/namespaces/gpufleet-probe/virtualmachineinstances"
KUBEVIRT = "/apis/kubevirt.io/v1/namespaces/kubevirt/kubevirts/kubevirt"
UNLISTED = "example.com/NOT_LISTED"
GPU = "nvidia.com/gpu"
HANDLED = {"kubevirt.io/schedulable": "true"}


class KubeVirt:
    """What virt-controller, the scheduler and the kubelet make of a VM: ``outcome`` says which of them stops it, if any."""

    def __init__(self, api: FakeApi) -> None:
        self.api = api
        self.outcome = "runs"
        #: What virt-controller has seen of the list; None: all of it.
        self.seen: list[str] | None = None
        self.made: list[Json] = []
        self.clock: Clock | None = None
        api.prune = self.on_store
        self.get = api._get
        api._get = self.on_get  # type: ignore[method-assign]
        api.before_write = self.on_write
        for number in (0, 1):
            api.add(f"/api/v1/nodes/gpu{number}", node(f"gpu{number}", {"kubernetes.io/hostname": f"host{number}", **HANDLED}, {A10: 2}))
        # A VM of somebody else, so that the kind is served.
        api.add("/apis/kubevirt.io/v1/namespaces/other/virtualmachineinstances/theirs", {"spec": {"domain": {"devices": {}}}})
        self.permit(A10)
        api.add("/api/v1/namespaces/default")
        api.add("/api/v1/nodes/box", node("box", {"kubernetes.io/hostname": "box"}, {GPU: 1}))

    def permit(self, *names: str) -> None:
        listed = {"pciHostDevices": [{"pciVendorSelector": "10DE:2236", "resourceName": name} for name in names]}
        self.api.add(KUBEVIRT, {"spec": {"configuration": {"permittedHostDevices": listed}}})

    def permitted(self) -> list[str]:
        entries = self.api.objects[KUBEVIRT]["spec"]["configuration"]["permittedHostDevices"]["pciHostDevices"]
        return [entry["resourceName"] for entry in entries]

    def on_get(self, request: Request) -> tuple[int, Json]:
        """A kind that is served has an empty list where there is none of it."""
        status, answer = self.get(request)
        return (200, {"items": [], "metadata": {}}) if status == 404 and request.path == INSTANCES else (status, answer)

    def on_store(self, path: str, item: Json) -> None:
        if path.startswith(f"{INSTANCES}/") and "creationTimestamp" not in item["metadata"]:
            item["metadata"]["creationTimestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            self.made.append(item)
            self.control(item)
        if path.startswith(f"{NAMESPACE}/pods/probe-") and "creationTimestamp" not in item["metadata"]:
            item["metadata"]["creationTimestamp"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            self.made.append(item)
            self.schedule(item)

    def schedule(self, pod: Json) -> None:
        """What scheduler and kubelet make of a pod."""
        pod["status"] = {"phase": "Running"}
        if self.outcome == "no place":
            message = f"0/3 nodes: 3 Insufficient {GPU}."
            condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
            pod["status"] = {"phase": "Pending", "conditions": [condition]}
            return
        pod["spec"]["nodeName"] = pod["spec"].get("nodeSelector", {}).get("kubernetes.io/hostname", "box")
        if self.outcome == "no device":
            pod["spec"]["containers"][0]["resources"] = {}
        if self.outcome == "pulls":
            pod["status"] = {"phase": "Pending"}
        elif self.outcome == "kubelet refuses":
            pod["status"] = {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "unhealthy devices"}
        elif self.outcome == "runtime refuses":
            ended = {"reason": "StartError", "message": "nvidia-container-cli: initialization error: driver not loaded"}
            pod["status"] = {"phase": "Failed", "containerStatuses": [{"name": "probe", "state": {"terminated": ended}}]}

    def control(self, vm: Json) -> None:
        name, device = vm["metadata"]["name"], vm["spec"]["domain"]["devices"]["gpus"][0]["deviceName"]
        if device not in (self.permitted() if self.seen is None else self.seen):
            message = f"failed to render launch manifest: GPU {device} is not permitted in permittedHostDevices configuration"
            vm["status"] = {"phase": "Pending", "conditions": [{"type": "Synchronized", "status": "False", "message": message}]}
            return
        host = (vm["spec"].get("nodeSelector") or {}).get("kubernetes.io/hostname", "host0")
        on = next((n for n in ("gpu0", "gpu1") if host == n.replace("gpu", "host")), None)
        pod = launcher(name, on, {device: "1"}, "gpufleet-probe")
        pod["metadata"]["labels"]["kubevirt.io/created-by"] = vm["metadata"]["uid"]
        vm["status"] = {"phase": "Scheduled"}
        if self.outcome == "other device":
            pod["spec"]["containers"][0]["resources"]["limits"] = {"nvidia.com/OTHER": "1"}
            pod["spec"]["containers"][0]["resources"]["requests"] = {}
        if on is None or self.outcome == "no place":
            vm["status"]["phase"] = "Scheduling"
            pod["spec"]["nodeName"] = None
            condition = {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": f"0/2 nodes: 2 Insufficient {device}.",
            }
            pod["status"] = {"phase": "Pending", "conditions": [condition]}
        elif self.outcome == "pulls":
            vm["status"]["phase"] = "Scheduling"
            pod["status"] = {"phase": "Pending"}
        elif self.outcome == "kubelet refuses":
            vm["status"]["phase"] = "Scheduling"
            pod["status"] = {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "unhealthy devices"}
        self.api.add(f"{NAMESPACE}/pods/{pod['metadata']['name']}", pod)

    def on_write(self, request: Request) -> None:
        if request.method == "DELETE" and request.path.startswith(f"{INSTANCES}/"):
            name = request.path.rpartition("/")[2]
            self.api.objects.pop(f"{NAMESPACE}/pods/virt-launcher-{name}-x", None)

    def left(self) -> list[str]:
        return [path for path in self.api.objects if "gpufleet-probe" in path]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(_probe_io, "time", clock)
    return clock


@pytest.fixture
def kubevirt(api: FakeApi, clock: Clock) -> KubeVirt:
    return KubeVirt(api)


def arguments(kubevirt: KubeVirt, *resources: Json, **more: t.Any) -> Json:
    # Ansible hides secrets in results wherever they appear: "test" would also go from "not tested".
    return {**kubevirt.api.params, "api_key": "a secret of its own", "resources": list(resources), **more}


def test_a_vm_with_a_place_proves_the_device_and_nothing_is_left(kubevirt: KubeVirt, run_module) -> None:
    done = run_module(MODULE, arguments(kubevirt, {"name": A10, "node": "gpu1"}, {"name": UNLISTED, "expect": "denied"}))
    assert not done["failed"], done["msg"]
    assert not done["changed"]
    proven, denied = done["results"]
    assert (proven["name"], proven["verdict"], proven["node"]) == (A10, "proven", "gpu1")
    assert denied["verdict"] == "denied"
    assert f"GPU {UNLISTED} is not permitted" in denied["explanation"]
    assert f"permitted are {A10}" in denied["explanation"]
    assert kubevirt.made[0]["spec"]["nodeSelector"] == {"kubernetes.io/hostname": "host1"}
    # Only a refusal that nobody expected is worth reading who asks for what.
    assert not [request for request in kubevirt.api.requests if "instancetypes" in request.path]
    assert kubevirt.made[0]["spec"]["domain"]["devices"]["gpus"] == [{"name": "probe", "deviceName": A10}]
    assert kubevirt.left() == []


def test_a_namespace_that_was_there_stays(kubevirt: KubeVirt, run_module) -> None:
    kubevirt.api.add(NAMESPACE)
    assert not run_module(MODULE, arguments(kubevirt, {"name": A10}))["failed"]
    assert kubevirt.left() == [NAMESPACE]


def test_a_device_in_use_is_not_tested_and_that_is_no_failure(kubevirt: KubeVirt, run_module) -> None:
    for vm in ("v", "w"):
        kubevirt.api.add(f"/api/v1/namespaces/ml/pods/{vm}", launcher(vm, "gpu1", {A10: "1"}))
    done = run_module(MODULE, arguments(kubevirt, {"name": A10, "node": "gpu1"}))
    assert not done["failed"]
    assert done["results"][0]["verdict"] == "not tested"
    assert "all 2 on node gpu1 are in use by ml/v, ml/w" in done["results"][0]["explanation"]
    assert not kubevirt.api.written


@pytest.mark.parametrize(
    ("outcome", "resource", "words", "seconds"),
    [
        pytest.param("runs", {"name": GPU, "node": "gpu0", "kind": "pod"}, f"{GPU}: not advertised by node gpu0; box has", 0, id="nobody"),
        pytest.param("runs", {"name": A10, "node": "gpu7"}, "there is no node gpu7", 0, id="no such node"),
        pytest.param("runs", {"name": A10, "expect": "denied"}, "expected denied", 0, id="permitted, and should not be"),
        pytest.param(
            "no place",
            {"name": A10},
            f"{A10} is free on gpu0, gpu1, and the scheduler says: Unschedulable: 0/2 nodes: 2 Insufficient {A10}.;",
            300,
            id="no place",
        ),
        pytest.param(
            "other device", {"name": A10}, "the pod on gpu0 asks for 1 of nvidia.com/OTHER instead of one of it", 0, id="vm miscounted"
        ),
        pytest.param(
            "no device", {"name": GPU, "kind": "pod"}, "the pod on box asks for no device instead of one of it", 0, id="pod miscounted"
        ),
        pytest.param("kubelet refuses", {"name": A10}, "failed on gpu0: UnexpectedAdmissionError: unhealthy devices", 0, id="kubelet"),
    ],
)
def test_what_is_not_as_expected_is_explained(
    kubevirt: KubeVirt, run_module, clock: Clock, outcome: str, resource: Json, words: str, seconds: int
) -> None:
    kubevirt.outcome = outcome
    done = run_module(MODULE, arguments(kubevirt, resource))
    assert done["failed"]
    assert words in done["msg"]
    assert clock.now - 1000 == pytest.approx(seconds, abs=2)
    assert kubevirt.left() == []


def test_a_slow_image_is_no_failure(kubevirt: KubeVirt, run_module, clock: Clock) -> None:
    kubevirt.outcome = "pulls"
    done = run_module(MODULE, arguments(kubevirt, {"name": A10}))
    assert done["results"][0]["verdict"] == "proven"
    assert "did not start within" in done["results"][0]["explanation"]
    assert clock.now - 1000 == pytest.approx(_probe.BOUND_SECONDS, abs=2)


def test_a_permit_may_take_a_moment_to_arrive(kubevirt: KubeVirt, run_module, clock: Clock) -> None:
    kubevirt.seen = []

    def arrive() -> None:
        if clock.now > 1010 and kubevirt.seen is not None:
            kubevirt.seen = None
            kubevirt.control(kubevirt.made[0])

    clock.on_sleep = arrive
    done = run_module(MODULE, arguments(kubevirt, {"name": A10}))
    assert done["results"][0]["verdict"] == "proven"


def test_a_device_that_stays_refused_is_shown_from_three_sides(kubevirt: KubeVirt, run_module, clock: Clock) -> None:
    kubevirt.seen = []
    done = run_module(MODULE, arguments(kubevirt, {"name": A10}))
    assert done["failed"]
    assert f"GPU {A10} is not permitted in permittedHostDevices configuration" in done["msg"]
    assert "(permitted: yes; advertised by: gpu0 (2), gpu1 (2); asked for by: nobody)" in done["msg"]
    assert clock.now - 1000 == pytest.approx(_probe.PERMIT_SECONDS, abs=2)
    assert kubevirt.left() == []


def test_a_device_that_the_list_lacks_takes_no_vm_to_be_refused(kubevirt: KubeVirt, run_module, clock: Clock) -> None:
    kubevirt.permit("nvidia.com/OTHER")
    theirs = kubevirt.api.objects["/apis/kubevirt.io/v1/namespaces/other/virtualmachineinstances/theirs"]
    theirs["spec"]["domain"]["devices"]["gpus"] = [{"name": "g", "deviceName": A10}]
    done = run_module(MODULE, arguments(kubevirt, {"name": A10}))
    assert done["failed"]
    assert f"permitted are nvidia.com/OTHER; a VM may use it once permittedHostDevices has an entry with resourceName {A10}" in done["msg"]
    assert "(permitted: no; advertised by: gpu0 (2), gpu1 (2); asked for by: VMI other/theirs)" in done["msg"]
    assert clock.now == 1000
    assert not kubevirt.api.written


def test_three_sides_that_cannot_be_read_do_not_hide_the_refusal(kubevirt: KubeVirt, run_module, clock: Clock) -> None:
    kubevirt.permit("nvidia.com/OTHER")
    kubevirt.api.faults.append(Fault(403, 1, lambda request: "instancetypes" in request.path, message="no types for you"))
    done = run_module(MODULE, arguments(kubevirt, {"name": A10}))
    assert done["failed"]
    assert "KubeVirt does not permit it" in done["msg"]
    assert "no types for you" in str(done["warnings"])


# ------------------------------------------------------------------ pods


def test_a_pod_that_runs_proves_a_device_for_containers_and_nothing_is_left(kubevirt: KubeVirt, run_module) -> None:
    done = run_module(MODULE, arguments(kubevirt, {"name": GPU, "node": "box", "kind": "pod"}, {"name": A10, "node": "gpu1"}))
    assert not done["failed"], done["msg"]
    assert [(r["kind"], r["verdict"], r["node"]) for r in done["results"]] == [("pod", "proven", "box"), ("vm", "proven", "gpu1")]
    [pod] = [item for item in kubevirt.made if item.get("kind") == "Pod"]
    assert pod["spec"]["containers"][0]["resources"] == {"limits": {GPU: "1"}}
    assert pod["spec"]["nodeSelector"] == {"kubernetes.io/hostname": "box"}
    assert kubevirt.left() == []


@pytest.mark.parametrize(
    ("outcome", "verdict", "words", "seconds"),
    [
        ("no place", "failed", f"{GPU} is free on box, and the scheduler says: Unschedulable: 0/3 nodes: 3 Insufficient {GPU}.", 300),
        ("kubelet refuses", "failed", "the pod failed on box: UnexpectedAdmissionError: unhealthy devices", 0),
        ("runtime refuses", "failed", "the pod failed on box: StartError: nvidia-container-cli: initialization error", 0),
        ("pulls", "proven", "a pod with it was admitted and scheduled to box, where it did not start within 20 s", 20),
    ],
)
def test_what_becomes_of_a_pod_is_told(
    kubevirt: KubeVirt, run_module, clock: Clock, outcome: str, verdict: str, words: str, seconds: int
) -> None:
    kubevirt.outcome = outcome
    done = run_module(MODULE, arguments(kubevirt, {"name": GPU, "node": "box", "kind": "pod"}))
    assert done["failed"] is (verdict == "failed")
    [result] = done["results"]
    assert result["verdict"] == verdict
    assert words in result["explanation"]
    assert clock.now - 1000 == pytest.approx(seconds, abs=2)
    assert kubevirt.left() == []


def test_pods_need_no_kubevirt(api: FakeApi, run_module, clock: Clock) -> None:
    cluster = KubeVirt(api)
    for path in [path for path in api.objects if "kubevirt.io" in path]:
        del api.objects[path]
    done = run_module(MODULE, arguments(cluster, {"name": GPU, "node": "box", "kind": "pod"}))
    assert not done["failed"], done["msg"]
    assert cluster.left() == []


def test_a_new_namespace_may_lack_its_service_account_for_a_moment(kubevirt: KubeVirt, run_module, clock: Clock) -> None:
    def posts(request: Request) -> bool:
        return request.method == "POST" and request.path.endswith("/pods")

    message = 'error looking up service account gpufleet-probe/default: serviceaccount "default" not found'
    kubevirt.api.faults.append(Fault(403, 3, posts, reason="Forbidden", message=message))
    assert not run_module(MODULE, arguments(kubevirt, {"name": GPU, "kind": "pod"}))["failed"]
    kubevirt.api.faults.append(Fault(403, 99, posts, reason="Forbidden", message=message))
    done = run_module(MODULE, arguments(kubevirt, {"name": GPU, "kind": "pod"}))
    assert done["failed"]
    assert "the pod was not admitted" in done["msg"]
    assert clock.now - 1000 < 15


def test_a_pod_that_a_killed_run_left_is_removed_before_anybody_counts(kubevirt: KubeVirt, run_module) -> None:
    kubevirt.api.add(NAMESPACE, {"metadata": {"annotations": {_probe.NAMESPACE_NOTE: "true"}}})
    old = _probe.pod(_probe.Probe(GPU, "box", "scheduled", "pod"), "probe-0-old", "image", {})
    old["metadata"]["creationTimestamp"] = "2020-01-01T00:00:00Z"
    old["spec"]["nodeName"], old["status"] = "box", {"phase": "Running"}
    kubevirt.api.add(f"{NAMESPACE}/pods/probe-0-old", old)
    done = run_module(MODULE, arguments(kubevirt, {"name": GPU, "node": "box", "kind": "pod"}))
    assert done["results"][0]["verdict"] == "proven"
    assert kubevirt.left() == []


def test_a_cordoned_node_is_not_tested_and_that_is_no_failure(kubevirt: KubeVirt, run_module) -> None:
    kubevirt.api.objects["/api/v1/nodes/box"]["spec"]["unschedulable"] = True
    done = run_module(MODULE, arguments(kubevirt, {"name": GPU, "node": "box", "kind": "pod"}))
    assert not done["failed"]
    assert done["results"][0]["verdict"] == "not tested"
    assert "cordoned" in done["results"][0]["explanation"]
    assert not kubevirt.api.written


def test_no_pod_can_be_denied_by_kubevirts_list(kubevirt: KubeVirt, run_module) -> None:
    done = run_module(MODULE, arguments(kubevirt, {"name": GPU, "kind": "pod", "expect": "denied"}))
    assert done["failed"]
    assert "does not concern pods" in done["msg"]
    assert not kubevirt.api.requests


# ------------------------------------------------------------------ what stops a run


def test_without_a_list_nothing_is_refused(kubevirt: KubeVirt, run_module) -> None:
    kubevirt.api.add(KUBEVIRT, {"spec": {"configuration": {}}})
    done = run_module(MODULE, arguments(kubevirt, {"name": UNLISTED, "expect": "denied"}))
    assert done["failed"]
    assert "no list of permitted devices" in done["msg"]
    assert not kubevirt.made


def test_a_vm_that_is_not_admitted_is_quoted_and_the_others_go_on(kubevirt: KubeVirt, run_module) -> None:
    fault = Fault(422, 1, lambda request: request.method == "POST" and "virtualmachineinstances" in request.path, message="webhook says no")
    kubevirt.api.faults.append(fault)
    done = run_module(MODULE, arguments(kubevirt, {"name": A10}, {"name": A10}))
    assert done["failed"]
    assert [result["verdict"] for result in done["results"]] == ["failed", "proven"]
    assert "webhook says no" in done["results"][0]["explanation"]
    assert kubevirt.left() == []


def test_a_failure_in_the_middle_leaves_nothing_behind(kubevirt: KubeVirt, run_module) -> None:
    def when(request: Request) -> bool:
        return request.method == "GET" and request.path == f"{NAMESPACE}/pods" and bool(kubevirt.made)

    kubevirt.api.faults.append(Fault(403, 1, when, reason="Forbidden", message="no pods for you"))
    done = run_module(MODULE, arguments(kubevirt, {"name": A10}))
    assert done["failed"]
    assert "no pods for you" in done["msg"]
    assert kubevirt.left() == []


@pytest.mark.parametrize(("age", "goes"), [(10_000, True), (10, False)], ids=["killed long ago", "another run's"])
def test_only_what_a_killed_run_left_is_removed(kubevirt: KubeVirt, run_module, age: int, goes: bool) -> None:
    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - age))
    kubevirt.api.add(NAMESPACE, {"metadata": {"annotations": {_probe.NAMESPACE_NOTE: "true"}}})
    old = {"metadata": {"labels": {_probe.LABEL: "true"}, "creationTimestamp": made}, "spec": {"domain": {"devices": {}}}}
    kubevirt.api.add(f"{INSTANCES}/probe-0-old", old)
    kubevirt.api.add(f"{NAMESPACE}/pods/virt-launcher-probe-0-old-x", launcher("probe-0-old", "gpu0", {A10: "2"}, "gpufleet-probe"))
    done = run_module(MODULE, arguments(kubevirt, {"name": A10, "node": "gpu0"}))
    # What a killed run left does not count as in use; what another run holds does.
    assert done["results"][0]["verdict"] == ("proven" if goes else "not tested")
    assert (kubevirt.left() == []) is goes


def test_a_vm_that_does_not_go_is_reported(kubevirt: KubeVirt, run_module) -> None:
    kubevirt.api.faults.append(Fault(200, 99, lambda request: request.method == "DELETE"))
    done = run_module(MODULE, arguments(kubevirt, {"name": A10}))
    assert not done["failed"]
    assert "do not go away" in str(done["warnings"])


def test_a_cluster_without_kubevirt_is_named(api: FakeApi, run_module) -> None:
    api.add("/api/v1/nodes/gpu0", node("gpu0", None, {A10: 2}))
    done = run_module(MODULE, {**api.params, "resources": [{"name": A10}]})
    assert done["failed"]
    assert "no KubeVirt" in done["msg"]


def test_check_mode_says_what_it_would_prove(kubevirt: KubeVirt, run_module) -> None:
    asked = [{"name": A10}, {"name": GPU, "node": "box", "kind": "pod"}, {"name": UNLISTED, "expect": "denied"}]
    done = run_module(MODULE, arguments(kubevirt, *asked), check=True)
    assert (done["failed"], done["changed"], done["results"]) == (False, False, [])
    assert (
        f"{A10} with a VM on any node; {GPU} with a pod on node box; {UNLISTED} with a VM on any node, which must be refused" in done["msg"]
    )
    assert not kubevirt.api.requests


@pytest.mark.parametrize("name", ["A10", "nvidia.com/", "nvidia.com/A 10", "nvidia/A10"])
def test_a_malformed_resource_is_refused_before_anything_is_read(kubevirt: KubeVirt, run_module, name: str) -> None:
    done = run_module(MODULE, arguments(kubevirt, {"name": name}))
    assert done["failed"]
    assert "is no resource name" in done["msg"]
    assert not kubevirt.api.requests


# ------------------------------------------------------------------ the pure parts


@pytest.mark.parametrize(
    ("expect", "verdict", "wrong"),
    [
        ("scheduled", "proven", False),
        ("scheduled", "denied", True),
        ("scheduled", "failed", True),
        ("scheduled", "not tested", False),
        ("denied", "denied", False),
        ("denied", "proven", True),
        ("denied", "failed", True),
    ],
)
def test_a_verdict_contradicts_what_was_expected_or_not(expect: str, verdict: str, wrong: bool) -> None:
    assert _probe.contradicts(_probe.Probe(A10, None, expect), _probe.Verdict(verdict, "")) is wrong


@pytest.mark.parametrize(
    ("permitted", "names"),
    [
        (None, None),
        ({}, []),
        ({"pciHostDevices": [{"resourceName": "b/x"}], "mediatedDevices": [{"resourceName": "a/x"}], "usb": None}, ["a/x", "b/x"]),
    ],
)
def test_no_list_is_not_an_empty_list(permitted: Json | None, names: list[str] | None) -> None:
    assert _vm_why.permitted_names(permitted) == names


def test_a_node_that_holds_more_than_it_offers_takes_nothing_from_others() -> None:
    use = {"namespace": "ml", "vmi": "v", "pod": "p", "count": 5}
    nodes = [{"name": "a", "allocatable": {A10: 1}, "used": {A10: [use]}}, {"name": "b", "allocatable": {A10: 2}, "used": {}}]
    assert _probe.free(_probe.Probe(A10, None, "scheduled"), nodes) == (2, 3, ["ml/v"])


VERDICTS = st.builds(
    _probe.Verdict, st.sampled_from(["waiting", "denied", "proven", "failed"]), st.just("why"), st.sampled_from([None, "a"])
)


@given(VERDICTS, st.sampled_from(["scheduled", "denied"]), st.floats(0, 600), st.none() | st.floats(0, 600), st.floats(1, 300))
def test_there_is_a_verdict_when_time_is_up(
    verdict: _probe.Verdict, expect: str, seconds: float, bound: float | None, timeout: float
) -> None:
    aged = _probe.aged(_probe.Probe(A10, None, expect), verdict, seconds, bound, timeout)
    if seconds >= timeout:
        assert aged.verdict != "waiting"
    if aged.verdict == "proven" and verdict.verdict != "proven":
        assert verdict.node
