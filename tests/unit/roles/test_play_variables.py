# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What plays make of what is there: after --tags, where the steps before have not run, and of a fleet with hosts of several kinds."""

from __future__ import annotations

import json
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
Json = dict[str, t.Any]

NODE = {"name": "g", "gpu": True, "operands": [], "labels": {}}
DECIDED = {**NODE, "name": "h", "labels": {"nvidia.com/gpu.workload.config": "container"}}
#: What is there without any of the steps of the cluster play. Ansible checks the arguments of every imported role, whatever --tags says.
CLUSTER = {
    "gpufleet_plan": {"intents": [], "vgpu_config": {"name": ""}},
    "preflight_cluster": {"nodes": [NODE, DECIDED], "possible_gpu_nodes": ["g", "h"]},
    "gpufleet_limited": False,
}
# In a process of its own, because Ansible loads its plugins once in a process.
RENDER = """
import json, sys
from tests.vgpu.examples import render
print(json.dumps(render([tuple(pair) for pair in json.load(sys.stdin)])))
"""


def play(name: str) -> Json:
    """The first play of a part."""
    found, *_others = yaml.safe_load((ROOT / "playbooks" / "parts" / f"{name}.yml").read_text(encoding="utf-8"))
    return found


def hosts(*archs: str | None) -> Json:
    """Variables as they are after hosts have been read; None for one that could not be."""
    read = [{} if arch is None else {"preflight_host": {"host": {"arch": arch}}} for arch in archs]
    return {"groups": {"gpu_vm_vgpu": [f"h{n}" for n in range(len(read))]}, "hostvars": {f"h{n}": facts for n, facts in enumerate(read)}}


FLEETS = {"one kind": hosts("x86_64", None, "x86_64"), "two kinds": hosts("x86_64", "aarch64"), "not read": hosts(None)}


@pytest.fixture(scope="module")
def rendered() -> Json:
    """What each step of the cluster play hands to its role, by role and file, if no other has run; and the image play's variables, by fleet."""
    steps = [step for step in play("cluster")["tasks"][0]["block"] if "ansible.builtin.import_role" in step]
    roles = [step["ansible.builtin.import_role"] for step in steps]
    names = [f"{role['name'].rpartition('.')[2]}/{role.get('tasks_from', 'main')}" for role in roles]
    own = {key: value for key, value in play("image")["vars"].items() if "arch" in key or key == "gpufleet_image_hosts"}
    asked = [(step.get("vars") or {}, CLUSTER) for step in steps] + [(own, {**fleet, **own}) for fleet in FLEETS.values()]
    done = subprocess.run([sys.executable, "-c", RENDER], input=json.dumps(asked), capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return dict(zip([*names, *FLEETS], json.loads(done.stdout), strict=True))


def test_no_step_of_the_cluster_play_needs_the_result_of_another_tag(rendered: Json) -> None:
    assert rendered["vgpu_config/restart"]["vgpu_config_fresh"] is False
    assert rendered["gpu_operator/ready"]["gpu_operator_changed"] is False
    assert rendered["gpu_operator/ready"]["gpu_operator_since"] == []


def test_the_operator_alone_is_not_installed_over_nodes_without_a_decision(rendered: Json) -> None:
    assert rendered["gpu_operator/release"]["gpu_operator_undecided"] == ["g"]


@pytest.mark.parametrize(
    ("fleet", "archs", "arch"), [("one kind", ["x86_64"], "x86_64"), ("not read", [], "x86_64"), ("two kinds", ["aarch64", "x86_64"], None)]
)
def test_an_image_is_built_for_hosts_of_one_kind_and_two_kinds_are_seen(
    rendered: Json, fleet: str, archs: list[str], arch: str | None
) -> None:
    assert rendered[fleet]["gpufleet_image_archs"] == archs
    assert arch is None or rendered[fleet]["vgpu_manager_image_arch"] == arch
    tasks = play("image")["tasks"][0]["block"]
    [stop] = [task for task in tasks if "ansible.builtin.assert" in task]
    assert stop["ansible.builtin.assert"]["that"] == "gpufleet_image_archs | length <= 1"
    assert tasks.index(stop) == 0
