# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The repository's workflows and issue forms call what exists."""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

import pytest
import yaml

from tests.tools import env

GITHUB = env.CHECKOUT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")


def targets() -> set[str]:
    return set(re.findall(r"^([a-z0-9-]+):", (env.CHECKOUT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def steps(workflow: dict[str, t.Any]) -> list[dict[str, t.Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_calls_only_what_a_developer_can_call(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    commands = [step["run"] for step in steps(workflow) if "run" in step]
    assert commands
    for command in commands:
        words = command.split()
        assert words == [".ci/run"] or (words[0] == "make" and words[1] in targets()), command


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_only_read_and_ends(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    assert all(0 < job["timeout-minutes"] <= 90 for job in workflow["jobs"].values())


def test_all_shards_of_the_campaigns_run() -> None:
    jobs = yaml.safe_load((GITHUB / "workflows/campaigns.yml").read_text(encoding="utf-8"))["jobs"]
    shards = jobs["soak"]["strategy"]["matrix"]["shard"]
    assert shards == list(range(1, 21))
    assert [step["run"] for step in jobs["soak"]["steps"] if "run" in step] == ["make soak SHARD=${{ matrix.shard }}/20"]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_asks_each_thing_once(path: Path) -> None:
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= set(form)
    asked = [entry["id"] for entry in form["body"] if entry["type"] != "markdown"]
    assert len(asked) == len(set(asked)) > 0
    programs = re.findall(r"scp (\S+)", path.read_text(encoding="utf-8"))
    assert all((env.CHECKOUT / program).is_file() for program in programs)
