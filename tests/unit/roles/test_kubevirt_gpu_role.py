# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether KubeVirt is asked for anything, by what a fleet is: one of containers may have none, and whole GPUs need nothing of an old one."""

from __future__ import annotations

import typing as t
from pathlib import Path

import jinja2
import pytest
import yaml

ROOT = Path(__file__).parents[3]


def asked(when: t.Any, **variables: t.Any) -> bool:
    """Does a task run with this condition? Without one, always."""
    return when is None or bool(jinja2.Environment(autoescape=True).compile_expression(when)(**variables))


def handling() -> t.Any:
    """The condition of the step of the playbooks that turns KubeVirt's handling of mediated devices off."""
    play, _leave_out = yaml.safe_load((ROOT / "playbooks/parts/cluster.yml").read_text(encoding="utf-8"))
    [step] = [task for task in play["tasks"][0]["block"] if task.get("ansible.builtin.import_role", {}).get("tasks_from") == "handling"]
    return step.get("when")


@pytest.mark.parametrize(
    ("workloads", "expected"),
    [
        (["container"], False),
        (["vm-passthrough", "container"], False),
        (["vm-passthrough", "vm-vgpu"], True),
        (["vm-vgpu"], True),
        ([], False),
    ],
)
def test_handling_is_turned_off_for_fleets_with_vgpus_only(workloads: list[str], expected: bool) -> None:
    assert asked(handling(), gpufleet_plan={"intents": [{"workload": name} for name in workloads]}) is expected


@pytest.mark.parametrize(
    ("devices", "expected"),
    [({"pci_devices": [], "mediated_devices": []}, False), ({"pci_devices": [{}], "mediated_devices": []}, True),
     ({"pci_devices": [], "mediated_devices": [{}]}, True)],
)  # fmt: skip
def test_kubevirt_is_not_asked_for_when_there_is_nothing_to_permit(devices: dict[str, t.Any], expected: bool) -> None:
    tasks = yaml.safe_load((ROOT / "roles/kubevirt_gpu/tasks/permits.yml").read_text(encoding="utf-8"))
    [permit] = [task for task in tasks if "gpufleet.kubevirt.kubevirt_permit" in task]
    assert asked(permit.get("when"), kubevirt_gpu_wanted=devices) is expected
