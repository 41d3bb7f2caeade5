# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter as templates see it, and the examples of its documentation, which must run as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from jinja2.nativetypes import NativeEnvironment

from ansible_collections.gpufleet.kubevirt.plugins.filter.vgpu_plan import FilterModule
from tests.vgpu import checker

DOCUMENTED = Path(__file__).resolve().parents[3] / "plugins" / "filter" / "vgpu_plan.yml"
TASKS = yaml.safe_load(yaml.safe_load(DOCUMENTED.read_text(encoding="utf-8"))["EXAMPLES"])
vgpu_plan = FilterModule().filters()["vgpu_plan"]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task["name"])
def test_documented_examples_run(task):
    expression = task["ansible.builtin.set_fact"]["plan"]
    environment = NativeEnvironment(autoescape=False)
    environment.filters["gpufleet.kubevirt.vgpu_plan"] = vgpu_plan
    plan = environment.from_string(expression).render(**task["vars"])
    assert (plan["unserved"], plan["status"]) == ([], "optimal")
    assert checker.problems(task["vars"]["fleet"], task["vars"]["demands"], plan) == []


def test_what_is_wrong_is_an_error_of_the_filter():
    with pytest.raises(AnsibleFilterError, match="vgpu_plan: demands: a list is needed"):
        vgpu_plan([{"name": "n1", "gpus": [{"index": 0, "gpu": "A10"}]}], None)
    with pytest.raises(AnsibleFilterError, match=r"vgpu_plan: .*unexpected keyword"):
        vgpu_plan([], [], objective=["gpus"])
