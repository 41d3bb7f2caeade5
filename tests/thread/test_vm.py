# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A VM with a vGPU and its licence, as the README of ``gpu_vm`` has it, on KubeVirt's real webhooks and virt-controller."""

from __future__ import annotations

import base64
import typing as t
from pathlib import Path

import pytest
import yaml

from .conftest import CHECKOUT, Lab, Run
from .test_site import REFUSED, writes

NAMESPACE = "design"
VGPU = "nvidia.com/NVIDIA_A10-4Q"
TOKEN = "head.a-token-that-nobody-may-see.tail"
VM = f"VM {NAMESPACE}/workstation"
SECRET = f"secret {NAMESPACE}/gpufleet-licence"


def documented() -> list[dict[str, t.Any]]:
    """The README's first example."""
    text = (CHECKOUT / "roles/gpu_vm/README.md").read_text(encoding="utf-8")
    plays = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert isinstance(plays, list)
    return plays


class Story:
    """Plays of the README's machine. ``writes``: what the last one wrote."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab, self.directory = lab, directory
        self.token = directory / "token.tok"
        self.token.write_text(TOKEN, encoding="utf-8")
        self.token.chmod(0o600)
        self.writes: list[str] = []

    def machine(self, *arguments: str, **changes: t.Any) -> Run:
        plays = documented()
        variables = plays[0]["tasks"][0]["vars"]
        variables["gpu_vm_machine"].update(changes)
        variables["gpu_vm_timeout"] = 15
        return self.play(plays, *arguments, "-e", f"gpufleet_licence_token_file={self.token}")

    def play(self, plays: list[dict[str, t.Any]], *arguments: str) -> Run:
        path = self.directory / "play.yml"
        path.write_text(yaml.safe_dump(plays), encoding="utf-8")
        position = self.lab.audit_size()
        run = self.lab.play(str(path), *arguments, "-vvv")
        self.writes = writes(self.lab.audit(position))
        assert TOKEN not in run.output and base64.b64encode(TOKEN.encode()).decode() not in run.output
        return run

    def object(self, kind: str, name: str = "workstation") -> dict[str, t.Any]:
        found = self.lab.kubectl("get", kind, name, "-n", NAMESPACE)
        assert isinstance(found, dict)
        return found


@pytest.fixture(scope="module")
def story(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Story]:
    if not lab.kubectl("get", "secrets", "-A", "-l", "owner=helm")["items"]:  # this file alone
        lab("mend", REFUSED)
        assert lab.play("site.yml").rc == 0
    lab("kubectl", "create", "namespace", NAMESPACE)
    yield Story(lab, tmp_path_factory.mktemp("vm"))
    lab("kubectl", "delete", "namespace", NAMESPACE, "--wait=false", check=False)


def test_check_mode_says_what_a_run_then_does_and_writes_nothing(story: Story) -> None:
    checked = story.machine("--check", "--diff")
    assert checked.rc == 0, checked.output
    assert story.writes == []
    done = story.machine("--diff")
    assert done.rc == 0, done.output
    assert done.changes() == checked.changes() == {("cluster", SECRET, "create"), ("cluster", VM, "create")}
    assert base64.b64decode(story.object("secret", "gpufleet-licence")["data"]["client_configuration_token.tok"]).decode() == TOKEN
    instance = story.object("vmi")
    assert instance["status"]["phase"] == "Scheduled"
    assert instance["spec"]["domain"]["devices"]["gpus"][0]["deviceName"] == VGPU
    assert {"name": "gpufleet-licence", "secret": {"secretName": "gpufleet-licence", "volumeLabel": "GPUFLEETLICENCE"}} in instance["spec"][
        "volumes"
    ]


def test_a_second_run_changes_nothing(story: Story) -> None:
    again = story.machine()
    assert again.rc == 0, again.output
    assert (again.changes(), story.writes) == (set(), [])


def test_a_change_of_a_vm_that_runs_restarts_nothing(story: Story) -> None:
    before = story.object("vmi")["metadata"]["uid"]
    done = story.machine(cpu_cores=4)
    assert done.rc == 0, done.output
    assert done.changes() == {("cluster", VM, "update")}
    assert "takes effect at its next start. Nothing was restarted." in " ".join(done.output.split())
    assert story.object("vmi")["metadata"]["uid"] == before
    assert story.object("vm")["spec"]["template"]["spec"]["domain"]["cpu"]["cores"] == 4
