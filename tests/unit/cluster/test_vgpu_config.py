# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The vGPU Device Manager's ConfigMap and the restarts that it needs, through the module's main()."""

from __future__ import annotations

import typing as t

import pytest
import yaml
from fake_api import FakeApi, Fault
from gpu_objects import DEPLOY, NAMESPACE, PROFILE, STATE, VGPU, Json, launcher, node, operand_pod, pod

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _vgpu_config

MODULE = "gpu_vgpu_config"
NAME = "gpufleet-vgpu-devices"
PATH = f"/api/v1/namespaces/{NAMESPACE}/configmaps/{NAME}"
SIX = [{"device-filter": "0x223610DE", "devices": "all", "vgpu-devices": {"A10-4Q": 6}}]
FIVE = [{"device-filter": "0x223610DE", "devices": "all", "vgpu-devices": {"A10-4Q": 5}}]
TWO = [{"device-filter": "0x223610DE", "devices": "all", "vgpu-devices": {"A10-12Q": 2}}]
OURS = {"app.kubernetes.io/managed-by": "gpufleet.kubevirt"}


def text(**configs: t.Any) -> str:
    return yaml.safe_dump({"version": "v1", "vgpu-configs": configs})


def config_map(content: str, labels: Json | None = None) -> Json:
    return {"metadata": {"labels": dict(OURS if labels is None else labels)}, "data": {"config.yaml": content}}


def manager(on: str, mounted: str = NAME) -> Json:
    pod = operand_pod("vgpu-device-manager", on)
    pod["spec"]["volumes"] = [{"name": "host-sys"}, {"name": "vgpu-config", "configMap": {"name": mounted}}]
    return pod


def daemonset(mounted: str) -> Json:
    volumes = [{"name": "vgpu-config", "configMap": {"name": mounted}}]
    template = {"spec": {"nodeSelector": {DEPLOY + "vgpu-device-manager": "true"}, "volumes": volumes}}
    return {"spec": {"template": template}}


class Cluster:
    """Two vm-vgpu nodes, ``a`` and ``b``, whose device managers run, with a ConfigMap of ours."""

    def __init__(self, api: FakeApi) -> None:
        self.api = api
        api.add(f"/api/v1/namespaces/{NAMESPACE}")
        self.mount(NAME)
        for name in "ab":
            self.node(name)

    def mount(self, name: str, pods: str = "ab") -> None:
        self.api.add(f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/nvidia-vgpu-device-manager", daemonset(name))
        for on in pods:
            self.api.add(self.pod(on), manager(on, name))

    def node(self, name: str, state: str = "success", note: str | None = None, profile: str = "A10-4Q") -> None:
        notes = {} if note is None else {_vgpu_config.APPLIED: note}
        self.api.add(f"/api/v1/nodes/{name}", node(name, {PROFILE: profile, STATE: state}, {VGPU: 6}, notes))

    def vm(self, on: str) -> None:
        self.api.add(f"/api/v1/namespaces/ml/pods/vm-{on}", launcher(f"vm-{on}", on, {VGPU: 1}))

    def note(self, name: str) -> str | None:
        return (self.api.objects[f"/api/v1/nodes/{name}"]["metadata"].get("annotations") or {}).get(_vgpu_config.APPLIED)

    @staticmethod
    def pod(on: str) -> str:
        return f"/api/v1/namespaces/{NAMESPACE}/pods/vgpu-device-manager-{on}"

    def running(self) -> str:
        return "".join(name for name in "ab" if self.pod(name) in self.api.objects)


@pytest.fixture
def cluster(api: FakeApi) -> Cluster:
    return Cluster(api)


def arguments(api: FakeApi, content: str | None = None, profile: str = "A10-4Q", **more: t.Any) -> Json:
    nodes = [{"name": name, "profile": profile} for name in "ab"]
    return {**api.params, "name": NAME, "namespace": NAMESPACE, "nodes": nodes, "timeout": 0, "content": content, **more}


# ------------------------------------------------------------------ the ConfigMap


def test_a_missing_one_is_made_as_ours_and_a_second_run_changes_nothing(cluster: Cluster, run_module) -> None:
    asked = arguments(cluster.api, text(**{"A10-4Q": SIX}))
    checked = run_module(MODULE, asked, check=True, diff=True)
    assert cluster.api.written == []
    done = run_module(MODULE, asked, diff=True)
    assert not done["failed"] and done["changes"] == checked["changes"] and done["diff"] == checked["diff"]
    made = cluster.api.objects[PATH]
    assert made["data"]["config.yaml"] == asked["content"] == done["content"] and made["metadata"]["labels"] == OURS
    assert not run_module(MODULE, asked)["changed"]


def test_check_mode_plans_it_for_a_namespace_that_does_not_exist_yet(api: FakeApi, run_module) -> None:
    api.add("/api/v1/namespaces/default")
    done = run_module(MODULE, {**arguments(api, text(**{"A10-4Q": SIX})), "nodes": []}, check=True)
    assert [change["action"] for change in done["changes"]] == ["create"], done


def test_somebody_elses_is_not_written_to(cluster: Cluster, run_module) -> None:
    cluster.api.add(PATH, config_map(text(other=SIX), {}))
    done = run_module(MODULE, arguments(cluster.api, text(**{"A10-4Q": SIX})))
    assert done["failed"] and "not this collection's" in done["msg"] and "gpufleet_vgpu_config_name" in done["msg"]
    assert cluster.api.written == []


def test_without_content_it_is_read_and_returned(cluster: Cluster, run_module) -> None:
    cluster.api.add(PATH, config_map(text(**{"A10-4Q": SIX}), {}))
    done = run_module(MODULE, arguments(cluster.api))
    assert (done["failed"], done["changed"], done["content"]) == (False, False, text(**{"A10-4Q": SIX}))


@pytest.mark.parametrize(
    ("there", "content", "profile", "said"),
    [
        (None, None, "A10-4Q", "there is none"),
        ("nonsense", None, "A10-4Q", "is no configuration"),
        (text(**{"A10-12Q": TWO}), None, "A10-4Q", "has no profile 'A10-4Q'. Nearest: A10-12Q"),
        (None, text(**{"A10-12Q": TWO}), "A10-4Q", "has no profile 'A10-4Q'. Nearest: A10-12Q"),
        (None, "[", "A10-4Q", "vgpu_device_config_lint"),
        ("vgpu-configs: {1: [], A10-12Q: [], true: []}", None, "A10-4Q", "has no profile 'A10-4Q'. Nearest: "),
        ("vgpu-configs: {A10-4Q: [2026-13-01]}", None, "A10-4Q", "is no configuration"),
        ("vgpu-configs: {A10-4Q: [2026-01-01]}", None, "A10-4Q", "is no configuration"),
    ],
)
def test_what_cannot_be_used_stops_it(
    cluster: Cluster, run_module, there: str | None, content: str | None, profile: str, said: str
) -> None:
    if there is not None:
        cluster.api.add(PATH, config_map(there))
    done = run_module(MODULE, arguments(cluster.api, content, profile))
    assert done["failed"] and said in done["msg"]
    assert cluster.api.written == []


@pytest.mark.parametrize("name", ["", "default-vgpu-devices-config"])
def test_the_operators_own_is_never_written(cluster: Cluster, run_module, name: str) -> None:
    done = run_module(MODULE, arguments(cluster.api, text(**{"A10-4Q": SIX}), name=name))
    assert done["failed"] and "is the operator's" in done["msg"]


@pytest.mark.parametrize(("after", "refused"), [({"A10-4Q": FIVE}, True), ({"A10-4Q": SIX, "A10-12Q": TWO}, False)])
def test_a_content_that_would_cost_a_vm_its_vgpu_is_refused_with_its_name(cluster: Cluster, run_module, after: Json, refused: bool) -> None:
    cluster.api.add(PATH, config_map(text(**{"A10-4Q": SIX})))
    cluster.vm("b")
    done = run_module(MODULE, arguments(cluster.api, text(**after)))
    assert done["failed"] is refused
    if refused:
        assert [blocker["target"] for blocker in done["blockers"]] == ["node b"] and "VM ml/vm-b uses its vGPUs" in done["msg"]
        assert cluster.api.written == []


def test_another_config_map_under_a_vm_is_refused_with_its_name(cluster: Cluster, run_module) -> None:
    cluster.mount("default-vgpu-devices-config")
    cluster.vm("a")
    done = run_module(MODULE, arguments(cluster.api, text(**{"A10-4Q": SIX})))
    assert done["failed"] and "default-vgpu-devices-config" in done["msg"] and "VM ml/vm-a" in done["msg"]
    assert cluster.api.written == []


@pytest.mark.parametrize(
    ("keep", "left"), [("nothing", {"A10-12Q"}), ("used", {"A10-12Q", "A10-4Q"}), ("all", {"A10-12Q", "A10-4Q", "idle"})]
)
def test_entries_that_others_need_stay(cluster: Cluster, run_module, keep: str, left: set[str]) -> None:
    cluster.api.add(PATH, config_map(text(**{"A10-4Q": SIX, "idle": []})))
    asked = arguments(cluster.api, text(**{"A10-12Q": TWO}), "A10-12Q", keep=keep)
    assert not run_module(MODULE, asked)["failed"]
    assert set(yaml.safe_load(cluster.api.objects[PATH]["data"]["config.yaml"])["vgpu-configs"]) == left
    assert not run_module(MODULE, asked)["changed"]


def test_what_is_kept_has_the_new_content_where_there_is_one_and_the_order_is_no_difference(cluster: Cluster, run_module) -> None:
    cluster.api.add(PATH, config_map(text(**{"A10-4Q": SIX})))
    assert run_module(MODULE, arguments(cluster.api, text(**{"A10-4Q": FIVE}), keep="used"))["changed"]
    assert yaml.safe_load(cluster.api.objects[PATH]["data"]["config.yaml"])["vgpu-configs"] == {"A10-4Q": FIVE}
    assert cluster.api.written[-1].body["metadata"]["resourceVersion"]
    cluster.api.add(
        PATH, config_map("vgpu-configs: " + yaml.safe_dump({"idle": [], "A10-4Q": FIVE}, default_flow_style=True, sort_keys=False))
    )
    assert not run_module(MODULE, arguments(cluster.api, text(**{"A10-4Q": FIVE}), keep="all"))["changed"]


def test_neither_a_pod_that_is_no_vm_nor_a_node_with_another_config_map_stops_it(cluster: Cluster, run_module) -> None:
    cluster.api.add(PATH, config_map(text(**{"A10-4Q": SIX})))
    cluster.api.add("/api/v1/namespaces/ml/pods/job", pod("job", "a", {VGPU: 1}))
    cluster.mount("default-vgpu-devices-config", pods="b")
    cluster.vm("b")
    asked = arguments(cluster.api, text(**{"A10-4Q": FIVE}))
    assert not run_module(MODULE, {**asked, "nodes": asked["nodes"][:1]})["failed"]


def test_a_run_of_a_part_changes_no_entry(cluster: Cluster, run_module) -> None:
    cluster.api.add(PATH, config_map(text(**{"A10-4Q": SIX})))
    done = run_module(MODULE, arguments(cluster.api, text(**{"A10-4Q": FIVE}), keep="all"))
    assert done["failed"] and "only adds" in done["msg"] and "--limit" in done["msg"]
    assert cluster.api.written == []


# ------------------------------------------------------------------ the device managers


def noted(entries: t.Any, profile: str = "A10-4Q") -> str:
    return f"{profile} {_vgpu_config.mark(entries)}"


#: What is on the cluster -> the nodes whose device manager still runs after it, and what their annotation says.
RESTARTS: dict[str, tuple[t.Callable[[Cluster], t.Any], Json, str, str]] = {
    "nothing has changed": (lambda c: [c.node(n, note=noted(SIX)) for n in "ab"], {}, "ab", ""),
    "it is only not written down yet": (lambda c: None, {}, "ab", ""),
    "the content of one node's profile": (lambda c: [c.node("a", note=noted(FIVE)), c.node("b", note=noted(SIX))], {}, "b", "has changed"),
    "another profile before, and it was labelled": (lambda c: c.node("a", note=noted(TWO, "A10-12Q")), {}, "ab", ""),
    "the ConfigMap was written in this run": (lambda c: c.node("a", note=noted(SIX)), {"fresh": True}, "a", "may be older"),
    "it failed": (lambda c: c.node("b", "failed", noted(SIX)), {}, "a", "does not try again"),
    "it failed with another profile": (lambda c: c.node("b", "failed", noted(SIX), "A10-12Q"), {}, "ab", ""),
    "it failed before it was labelled": (lambda c: c.node("b", "failed", noted(SIX)), {"relabelled": ["b"]}, "ab", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", RESTARTS)
def test_device_managers_are_restarted_where_they_have_to_be_and_nowhere_else(cluster: Cluster, run_module, case: str) -> None:
    prepare, more, left, why = RESTARTS[case]
    cluster.api.add(PATH, config_map(text(**{"A10-4Q": SIX})))
    prepare(cluster)
    asked = arguments(cluster.api, restart=True, **more)
    checked = run_module(MODULE, asked, check=True)
    assert cluster.running() == "ab"
    states = {name: cluster.api.objects[f"/api/v1/nodes/{name}"]["metadata"]["labels"][STATE] for name in "ab"}
    # The new device manager may be quick to say something: a token is what was said before.
    cluster.api.before_write = lambda request: (
        request.method == "DELETE"
        and [cluster.api.objects[f"/api/v1/nodes/{name}"]["metadata"]["labels"].update({STATE: "pending"}) for name in "ab"]
    )
    done = run_module(MODULE, asked)
    assert not done["failed"], done
    assert cluster.running() == left
    assert [cluster.note(name) for name in "ab"] == [noted(SIX)] * 2
    assert done["changes"] == checked["changes"]
    restarted = [change for change in done["changes"] if change["action"] == "restart device manager"]
    assert [change["target"] for change in restarted] == [f"node {name}" for name in "ab" if name not in left]
    assert all(why in change["reason"] for change in restarted)
    assert done["tokens"] == [
        {"name": name, "state": states[name], "pod": None, "time": done["tokens"][0]["time"]} for name in "ab" if name not in left
    ]
    deleted = [request for request in cluster.api.written if request.method == "DELETE"]
    assert all(request.body["preconditions"]["uid"].startswith("uid-vgpu-device-manager-") for request in deleted)


def test_of_two_pods_the_one_that_stays_counts() -> None:
    old, new = manager("a"), manager("a")
    old["metadata"].update(deletionTimestamp="2026-01-01T00:00:00Z", uid="old")
    assert _vgpu_config.managers([old, new])["a"] is new and _vgpu_config.managers([new, old])["a"] is new


def test_one_that_reads_another_config_map_is_restarted(cluster: Cluster, run_module) -> None:
    cluster.api.add(PATH, config_map(text(**{"A10-4Q": SIX})))
    cluster.mount("default-vgpu-devices-config", pods="a")
    cluster.mount(NAME, pods="")
    assert not run_module(MODULE, arguments(cluster.api, restart=True))["failed"]
    assert cluster.running() == "b"


def test_back_to_the_stock_configuration(cluster: Cluster, run_module) -> None:
    cluster.node("a", note=noted(SIX))
    cluster.mount("default-vgpu-devices-config", pods="b")
    done = run_module(MODULE, arguments(cluster.api, restart=True, name=""))
    assert not done["failed"] and cluster.running() == "b" and cluster.note("a") is None


@pytest.mark.parametrize("state", ["failed", "success"])
def test_none_is_restarted_under_a_vm_while_the_others_are(cluster: Cluster, run_module, state: str) -> None:
    cluster.api.add(PATH, config_map(text(**{"A10-4Q": SIX})))
    for name in "ab":
        cluster.node(name, state, noted(FIVE))
    cluster.vm("a")
    checked = run_module(MODULE, arguments(cluster.api, restart=True), check=True)
    done = run_module(MODULE, arguments(cluster.api, restart=True))
    assert done["failed"] and "VM ml/vm-a uses its vGPUs" in done["msg"] and done["blockers"] == checked["blockers"]
    assert cluster.running() == "a"
    assert (cluster.note("a"), cluster.note("b")) == (noted(FIVE), noted(SIX))


def test_a_vm_that_comes_at_the_last_moment_is_seen(cluster: Cluster, run_module, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.api.add(PATH, config_map(text(**{"A10-4Q": SIX})))
    cluster.node("a", "failed", noted(SIX))
    planned = _vgpu_config.plan_restarts

    def plan(*arguments: t.Any) -> t.Any:
        found = planned(*arguments)
        cluster.vm("a")
        return found

    monkeypatch.setattr(_vgpu_config, "plan_restarts", plan)
    done = run_module(MODULE, arguments(cluster.api, restart=True))
    assert done["failed"] and "VM ml/vm-a" in done["msg"] and cluster.running() == "ab"


@pytest.mark.parametrize(("what", "said"), [("pending", "in the middle of a change"), ("old template", "still mounts")])
def test_what_is_under_way_is_waited_for_and_not_broken_off(cluster: Cluster, run_module, what: str, said: str) -> None:
    cluster.api.add(PATH, config_map(text(**{"A10-4Q": SIX})))
    cluster.node("a", "pending" if what == "pending" else "success", noted(FIVE))
    if what == "old template":
        cluster.mount("default-vgpu-devices-config", pods="")
    done = run_module(MODULE, arguments(cluster.api, restart=True))
    assert done["failed"] and said in done["msg"]
    assert cluster.running() == "ab" and cluster.note("a") == noted(FIVE)


def test_what_was_restarted_is_said_also_where_the_api_server_goes_away_then(cluster: Cluster, run_module) -> None:
    cluster.api.add(PATH, config_map(text(**{"A10-4Q": SIX})))
    cluster.node("a", "failed", noted(SIX))
    cluster.node("b", note=noted(SIX))
    cluster.api.faults = [
        Fault(403, 9, when=lambda request: any(sent.method == "PATCH" and sent is not request for sent in cluster.api.requests))
    ]
    done = run_module(MODULE, arguments(cluster.api, restart=True))
    assert done["failed"] and cluster.running() == "b" and cluster.note("a") == noted(SIX)
    assert [change["target"] for change in done["changes"]] == ["node a"] and done["changed"]
    assert "could not be read again" in done["msg"] and "Nothing was changed" not in done["msg"]


def test_a_run_that_died_after_the_config_map_was_written_is_finished_by_the_next(cluster: Cluster, run_module) -> None:
    cluster.api.add(PATH, config_map(text(**{"A10-4Q": SIX})))
    assert not run_module(MODULE, arguments(cluster.api, restart=True))["failed"]
    assert run_module(MODULE, arguments(cluster.api, text(**{"A10-4Q": FIVE})))["changed"]
    # Here it died. The next run finds the ConfigMap as it should be.
    assert not run_module(MODULE, arguments(cluster.api, text(**{"A10-4Q": FIVE})))["changed"]
    assert not run_module(MODULE, arguments(cluster.api, text(**{"A10-4Q": FIVE}), restart=True))["failed"]
    assert cluster.running() == ""
