# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every playbook that talks to a cluster compares it with gpufleet_expected_cluster before anything else."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
OURS = "gpufleet.kubevirt."
CLUSTER = {OURS + name for name in yaml.safe_load((ROOT / "meta/runtime.yml").read_text())["action_groups"]["k8s"]}
PLAYBOOKS = sorted((ROOT / "playbooks").glob("*.yml"))
IMPORT = "ansible.builtin.import_playbook"


def load(path: Path) -> t.Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def imported(path: Path, name: str) -> Path:
    return ROOT / "playbooks" / f"{name.removeprefix(OURS)}.yml" if name.startswith(OURS) else path.parent / name


def plays(path: Path) -> t.Iterator[tuple[Path, t.Any]]:
    """The plays of a playbook in their order, each with the file that it stands in."""
    for entry in load(path):
        if IMPORT in entry:
            yield from plays(imported(path, entry[IMPORT]))
        else:
            yield path, entry


def modules(tasks: t.Iterable[t.Any], here: Path) -> t.Iterator[str]:
    """Modules that these tasks call, in their order, those of roles and of other files included. Other words of a task come along."""
    for task in tasks or []:
        for key, value in task.items():
            if key in ("block", "rescue", "always"):
                yield from modules(value, here)
            elif key in ("ansible.builtin.import_role", "ansible.builtin.include_role"):
                folder = ROOT / "roles" / value["name"].removeprefix(OURS) / "tasks"
                path = folder / f"{value.get('tasks_from', 'main').removesuffix('.yml')}.yml"
                yield from modules(load(path), path)
            elif key in ("ansible.builtin.import_tasks", "ansible.builtin.include_tasks"):
                name = value["file"] if isinstance(value, dict) else value
                # The report after a failure reads what the request has compared; where there was no request it is turned off.
                if "{{" not in name and not name.endswith("last_report.yml"):
                    yield from modules(load(here.parent / name), here.parent / name)
            else:
                yield key


def of_play(path: Path, play: t.Any) -> list[str]:
    return [name for part in ("pre_tasks", "tasks", "post_tasks") for name in modules(play.get(part) or [], path)]


def talks(names: t.Iterable[str]) -> bool:
    return any(name in CLUSTER or name.startswith("kubernetes.core.") for name in names)


def test_there_are_playbooks_that_talk_to_a_cluster() -> None:
    assert len([path for path in PLAYBOOKS if any(talks(of_play(*play)) for play in plays(path))]) >= 6


@pytest.mark.parametrize("path", PLAYBOOKS, ids=lambda path: path.stem)
def test_a_playbook_that_talks_to_a_cluster_starts_with_the_request(path: Path) -> None:
    in_order = list(plays(path))
    if any(talks(of_play(*play)) for play in in_order):
        assert in_order[0][0].name == "request.yml"


def test_the_request_reads_the_cluster_and_compares_it_before_it_asks_anything_else_of_it() -> None:
    tasks = load(ROOT / "roles/preflight/tasks/request.yml")
    asking = [number for number, task in enumerate(tasks) if talks(task)]
    [compares] = [number for number, task in enumerate(tasks) if "preflight_expected_cluster" in str(task.get("ansible.builtin.assert"))]
    assert asking[0] < compares
    assert all(number > compares for number in asking[1:])
    assert tasks[compares]["ansible.builtin.assert"]["that"] == "preflight_expected_cluster in ['', preflight_cluster.cluster.uid]"
    assert "when" not in tasks[compares] and tasks[asking[0]].keys() & {"gpufleet.kubevirt.gpu_fleet_info"}


def test_a_playbook_without_the_request_reports_nothing_of_a_cluster() -> None:
    without = [path for path in PLAYBOOKS if next(plays(path))[0].name != "request.yml"]
    assert [path.stem for path in without] == ["image"]
    for path in without:
        assert all(entry["vars"]["gpufleet_reports"] is False for entry in load(path) if IMPORT in entry)
