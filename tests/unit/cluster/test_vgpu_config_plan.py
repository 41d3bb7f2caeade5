# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is decided about the vGPU Device Manager's ConfigMap and its restarts, word by word."""

from __future__ import annotations

import typing as t

import pytest
import yaml
from gpu_objects import DEPLOY, PROFILE, STATE, VGPU, Json, node, operand_pod

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import Plan
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _vgpu_config
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._fleet import Use
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._vgpu_config import Request, Seen

OURS = {"app.kubernetes.io/managed-by": "gpufleet.kubevirt"}
SIX = [{"devices": "all", "vgpu-devices": {"A10-4Q": 6}}]
FIVE = [{"devices": "all", "vgpu-devices": {"A10-4Q": 5}}]


def manager(on: str, mounted: str = "ours") -> Json:
    pod = operand_pod("vgpu-device-manager", on)
    pod["spec"]["volumes"] = [{"name": "vgpu-config", "configMap": {"name": mounted}}]
    return pod


def seen(configs: Json | None = None, vms: int = 0, **nodes: Json) -> Seen:
    there = None if configs is None else {"metadata": {"labels": OURS}, "data": {"config.yaml": yaml.safe_dump({"vgpu-configs": configs})}}
    own = nodes or {"a": node("a", {PROFILE: "A10-4Q", STATE: "success"}, {VGPU: 6})}
    uses = tuple(Use("a", "ml", f"vm-{n}", f"vm-{n}", {VGPU: 1}) for n in range(vms))
    return Seen(there, configs, own, {"a": manager("a")}, uses)


def request(configs: Json | None = None, profile: str = "A10-4Q", **more: t.Any) -> Request:
    return Request("ours", {"a": profile}, None if configs is None else yaml.safe_dump({"vgpu-configs": configs}), configs, **more)


def planned(asked: Request, found: Seen) -> tuple[Plan, str | None]:
    return _vgpu_config.plan_config(asked, found, yaml.safe_dump)


def only_problem(plan: Plan) -> str:
    [blocker] = plan.blockers
    assert plan.changes == []
    return str(blocker)


def test_what_stands_on_a_node_is_what_earlier_releases_wrote_there() -> None:
    """Another key, or another mark of the same content, would restart every device manager of a fleet once more."""
    assert _vgpu_config.APPLIED == "gpufleet.kubevirt/vgpu-config"
    assert _vgpu_config.mark(SIX) == _vgpu_config.mark([dict(reversed(SIX[0].items()))]) == "cd0511a77f"
    assert _vgpu_config.note(request(SIX), {"A10-4Q": SIX}, "a") == "A10-4Q cd0511a77f"
    assert _vgpu_config.note(Request("", {"a": "A10-4Q"}), {}, "a") is None


def test_by_itself_a_request_keeps_nothing_and_takes_no_config_map_for_new() -> None:
    asked = Request("ours", {})
    assert (asked.mounted, asked.keep, asked.fresh, asked.relabelled) == ("ours", "nothing", False, frozenset())


def test_a_device_manager_is_a_pod_of_its_daemonset_that_has_a_node_and_has_not_ended() -> None:
    unscheduled, ended, other = manager("a"), manager("b"), operand_pod("vgpu-manager", "c")
    del unscheduled["spec"]["nodeName"]
    ended["status"]["phase"] = "Failed"
    first, second = manager("d"), manager("d")
    assert _vgpu_config.managers([unscheduled, ended, other]) == {}
    assert _vgpu_config.managers([first, second])["d"] is first


def test_what_is_kept_is_written_out_as_a_whole_configuration() -> None:
    plan, text = planned(request({"A10-4Q": SIX}, keep="all"), seen({"B": FIVE}))
    assert yaml.safe_load(text or "") == {"version": "v1", "vgpu-configs": {"A10-4Q": SIX, "B": FIVE}}
    [change] = plan.changes
    assert (change.action, change.reason) == ("update", "its content differs")
    assert change.before == {"config.yaml": yaml.safe_dump({"vgpu-configs": {"B": FIVE}})} and change.after == {"config.yaml": text}


def test_a_config_map_that_is_not_there_is_created_whole() -> None:
    asked = request({"A10-4Q": SIX})
    plan, text = planned(asked, seen())
    assert [(change.action, change.before, change.reason) for change in plan.changes] == [("create", None, "there is none")]
    assert _vgpu_config.body(asked, "operator", text or "") == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "ours", "namespace": "operator", "labels": OURS},
        "data": {"config.yaml": asked.text},
    }


@pytest.mark.parametrize(
    ("profile", "names", "nearest"),
    [
        ("A10-4", ["A10-4Q", "A10-4C", "A10-4A", "A10-4B", "A10-44"], "A10-4Q, A10-4C, A10-4B, A10-4A"),
        ("zzz", [f"N{n}" for n in range(8)], "N0, N1, N2, N3, N4, N5"),
        ("zzz", [], "none"),
    ],
)
def test_a_profile_that_is_not_there_is_answered_with_the_nearest(profile: str, names: list[str], nearest: str) -> None:
    said = only_problem(planned(request(dict.fromkeys(names, SIX), profile), seen())[0])
    assert said == f"node a: ConfigMap ours has no profile {profile!r}. Nearest: {nearest}"


@pytest.mark.parametrize(("vms", "use"), [(1, "VM ml/vm-0 uses its vGPUs"), (2, "VM ml/vm-0, VM ml/vm-1 use its vGPUs")])
def test_who_would_lose_vgpus_is_named_in_every_refusal(vms: int, use: str) -> None:
    other = seen({"A10-4Q": SIX}, vms)
    elsewhere = Seen(other.config_map, other.configs, other.nodes, {"a": manager("a", "theirs")}, other.uses)
    remedy = "Stop or move them and run again"
    changed = only_problem(planned(request({"A10-4Q": FIVE}), other)[0])
    assert changed == f"node a: its profile A10-4Q would become another, and {use}. {remedy}"
    moved = only_problem(planned(request({"A10-4Q": SIX}), elsewhere)[0])
    assert moved == f"node a: its device manager reads ConfigMap theirs and has to be restarted to read ours, and {use}. {remedy}"
    restart = _vgpu_config.plan_restarts(request({"A10-4Q": SIX}), elsewhere)
    assert only_problem(restart) == (
        f"node a: its device manager has to be restarted (it reads ConfigMap theirs, not ours), and {use}. {remedy}"
    )
    assert [blocker.stops for blocker in restart.blockers] == ["target"]


def test_a_node_without_the_label_has_the_default() -> None:
    unlabelled = node("a", {DEPLOY + "vgpu-manager": "true"}, {VGPU: 6})
    asked = Request("ours", {}, "x", {"default": FIVE})
    assert "its profile default would become another" in only_problem(planned(asked, seen({"default": SIX}, vms=1, a=unlabelled))[0])
    kept = Request("ours", {}, "x", {"A10-4Q": SIX}, keep="used")
    for found, left in (
        (seen({"default": SIX, "C": SIX}, a=unlabelled), {"A10-4Q", "default"}),
        (seen({"default": SIX}, b=unlabelled), {"A10-4Q"}),
    ):
        assert set(_vgpu_config.wanted_configs(kept, found)[0]) == left


def test_nothing_is_restarted_for_a_config_map_that_is_not_there_nor_on_a_node_that_is_not() -> None:
    assert only_problem(_vgpu_config.plan_restarts(request(), Seen())).startswith("ConfigMap ours: there is none.")
    gone = Request("ours", {"a": "A10-4Q", "gone": "A10-4Q"}, "x", {"A10-4Q": SIX})
    assert [change.target for change in _vgpu_config.plan_restarts(gone, seen({"A10-4Q": SIX})).changes] == ["node a"]
