# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The restart of virt-handler: of named nodes only, never during a migration, and until it is back."""

from __future__ import annotations

import types
import typing as t

import pytest
from fake_api import FakeApi

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _virt_handler
from ansible_collections.gpufleet.kubevirt.plugins.modules import virt_handler_restart

Json = t.Dict[str, t.Any]
MODULE = "virt_handler_restart"
PODS = "/api/v1/namespaces/kubevirt/pods"


def pod(node: str, uid: str = "old", owner: str | None = "DaemonSet", is_ready: bool = True, created: str = "1", **meta: t.Any) -> Json:
    owners = [{"kind": owner, "name": "virt-handler", "controller": True}] if owner else []
    return {
        "metadata": {
            "name": f"virt-handler-{node}-{uid}", "namespace": "kubevirt", "uid": uid, "labels": {"kubevirt.io": "virt-handler"},
            "creationTimestamp": created, "ownerReferences": owners, **meta,
        },
        "spec": {"nodeName": node},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True" if is_ready else "False"}]},
    }  # fmt: skip


def vmi(node: str = "a", **migration: t.Any) -> Json:
    return {"metadata": {"namespace": "shop", "name": "vm-1"}, "status": {"nodeName": node, "migrationState": migration}}


@pytest.mark.parametrize(
    ("pods", "vmis", "problem"),
    [
        ([pod("a")], [], ""),
        ([pod("a")], [vmi()], ""),
        ([pod("a")], [vmi(sourceNode="a", targetNode="b", completed=True)], ""),
        ([pod("a")], [vmi(sourceNode="a", targetNode="b", failed=True)], ""),
        ([pod("a")], [vmi("c", sourceNode="c", targetNode="b")], ""),
        ([pod("a")], [vmi(sourceNode="a", targetNode="b")], "shop/vm-1 migrates from or to it"),
        ([pod("a")], [vmi("b", sourceNode="b", targetNode="a", startTimestamp="2026-01-01T00:00:00Z")], "shop/vm-1 migrates"),
        ([pod("b")], [], "no virt-handler runs on it"),
        ([], [], "no virt-handler runs on it"),
        ([pod("a", owner=None)], [], "is of no DaemonSet"),
    ],
)
def test_a_node_is_restarted_unless_something_is_in_the_way(pods: list[Json], vmis: list[Json], problem: str) -> None:
    plan = _virt_handler.make_plan(["a"], _virt_handler.Observed(pods, vmis))
    assert [blocker.stops for blocker in plan.blockers] == (["target"] if problem else [])
    assert [change.target for change in plan.changes] == ([] if problem else ["node a"])
    assert problem in "".join(str(blocker) for blocker in plan.blockers)


class Daemons:
    """A clock whose seconds let the DaemonSet make a pod in place of each that was deleted."""

    def __init__(self, api: FakeApi, comes: bool) -> None:
        self.api, self.comes, self.now = api, comes, 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for node in ("a", "b") if self.comes else ():
            if not any(item["spec"].get("nodeName") == node for path, item in self.api.objects.items() if path.startswith(PODS)):
                self.api.add(f"{PODS}/virt-handler-{node}-new", pod(node, "new", created="2"))


@pytest.fixture
def daemons(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> t.Callable[[bool], Daemons]:
    def start(comes: bool = True) -> Daemons:
        made = Daemons(api, comes)
        monkeypatch.setattr(virt_handler_restart, "time", types.SimpleNamespace(monotonic=made.monotonic, sleep=made.sleep))
        for node in ("a", "b"):
            api.add(f"{PODS}/virt-handler-{node}-old", pod(node))
        return made

    return start


def deleted(api: FakeApi) -> list[str]:
    return [request.path for request in api.written if request.method == "DELETE"]


def test_only_the_pod_of_the_named_node_is_deleted_and_its_successor_waited_for(api: FakeApi, run_module, daemons) -> None:
    daemons()
    done = run_module(MODULE, {**api.params, "nodes": ["a"]})
    assert not done["failed"] and done["changed"], done
    assert deleted(api) == [f"{PODS}/virt-handler-a-old"]


def test_check_mode_names_the_pod_and_deletes_none(api: FakeApi, run_module, daemons) -> None:
    daemons()
    done = run_module(MODULE, {**api.params, "nodes": ["a"]}, True)
    assert done["changed"] and done["changes"][0]["before"]["pod"] == "virt-handler-a-old"
    assert not api.written


def test_one_that_does_not_come_back_is_named(api: FakeApi, run_module, daemons) -> None:
    daemons(comes=False)
    done = run_module(MODULE, {**api.params, "nodes": ["a"], "timeout": 5})
    assert done["failed"]
    assert "node a: its new virt-handler has not come, 5 s after the old one was deleted" in done["msg"]


def test_a_node_that_must_not_be_restarted_keeps_no_other_from_it(api: FakeApi, run_module, daemons) -> None:
    daemons()
    done = run_module(MODULE, {**api.params, "nodes": ["nowhere", "b"]})
    assert done["failed"] and "node nowhere: no virt-handler runs on it" in done["msg"]
    assert deleted(api) == [f"{PODS}/virt-handler-b-old"]
    assert [change["target"] for change in done["changes"]] == ["node b"]


@pytest.mark.parametrize(
    ("pods", "why"),
    [
        ([pod("a", "new", created="2")], ""),
        ([pod("a"), pod("a", "new", created="2")], ""),
        ([pod("a")], "has not come"),
        ([], "has not come"),
        ([pod("a", "new", created="2", deletionTimestamp="2026-01-01T00:00:00Z")], "has not come"),
        ([pod("a", "new", is_ready=False, created="2")], "pod virt-handler-a-new is not ready"),
    ],
)
def test_it_is_back_when_a_new_pod_is_ready(pods: list[Json], why: str) -> None:
    [change] = _virt_handler.make_plan(["a"], _virt_handler.Observed([pod("a")], [])).changes
    found = _virt_handler.not_back([change], _virt_handler.Observed(pods, []))
    assert why in found["node a"] if why else found == {}
