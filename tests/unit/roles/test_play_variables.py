# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""With --tags a step runs without those before it: what they would have left is not there, and that must neither end nor mislead it."""

from __future__ import annotations

import json
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
NODE = {"name": "g", "gpu": True, "operands": [], "labels": {}}
DECIDED = {**NODE, "name": "h", "labels": {"nvidia.com/gpu.workload.config": "container"}}
#: What is there without any of the steps; a module's own result is there once its step has run.
VARIABLES = {
    "gpufleet_plan": {"intents": [], "vgpu_config": {"name": ""}},
    "preflight_cluster": {"nodes": [NODE, DECIDED], "possible_gpu_nodes": ["g", "h"]},
    "gpufleet_limited": False,
    "gpu_operator_release_result": {"changed": False},
}
# In a process of its own, because Ansible loads its plugins once in a process.
RENDER = """
import json, sys
from tests.vgpu.examples import render
print(json.dumps(render([tuple(pair) for pair in json.load(sys.stdin)])))
"""


@pytest.fixture(scope="module")
def handed_on() -> dict[str, dict[str, t.Any]]:
    """What each step of the play hands to its role, by role and file, if no other step has run."""
    [play] = yaml.safe_load((ROOT / "playbooks/parts/cluster.yml").read_text(encoding="utf-8"))
    steps = [step for step in play["tasks"][0]["block"] if "ansible.builtin.import_role" in step]
    asked = json.dumps([(step.get("vars") or {}, VARIABLES) for step in steps])
    done = subprocess.run([sys.executable, "-c", RENDER], input=asked, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    names = [
        (step["ansible.builtin.import_role"]["name"].rpartition(".")[2], step["ansible.builtin.import_role"].get("tasks_from", "main"))
        for step in steps
    ]
    return {f"{role}/{file}": given for (role, file), given in zip(names, json.loads(done.stdout), strict=True)}


def test_no_step_of_the_cluster_play_needs_the_result_of_another_tag(handed_on: dict[str, dict[str, t.Any]]) -> None:
    assert handed_on["vgpu_config/restart"]["vgpu_config_fresh"] is False
    assert handed_on["gpu_operator/ready"]["gpu_operator_changed"] is False
    assert handed_on["gpu_operator/ready"]["gpu_operator_since"] == []


def test_the_operator_alone_is_not_installed_over_nodes_without_a_decision(handed_on: dict[str, dict[str, t.Any]]) -> None:
    assert handed_on["gpu_operator/release"]["gpu_operator_undecided"] == ["g"]
