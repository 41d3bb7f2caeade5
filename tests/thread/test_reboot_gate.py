# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""No reboot under a VM or a pod, or of another machine; and a host that is not rebooted does not keep the others from finishing.

All of it in check mode on a fresh lab: the gate decides there as it does for real, and nothing is written.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import typing as t
from pathlib import Path

import pytest

from .conftest import Lab, Run
from .test_bad_input import attempt, groups
from .test_site import REFUSED

HOST = "gpu-passthrough-0"  # its IOMMU is off in the kernel, so a reboot is due
ELSEWHERE = "00000000-0000-4000-8000-000000000000"

#: The role alone, as somebody may use it, without the judgement that comes before it in `site`.
REBOOT = """
- name: Reboot one node
  hosts: gpu-passthrough-0
  gather_facts: false
  module_defaults:
    group/gpufleet.kubevirt.k8s:
      kubeconfig: "{{ gpufleet_kubeconfig }}"
  tasks:
    - name: Reboot
      ansible.builtin.import_role:
        name: gpufleet.kubevirt.node_maintenance
        tasks_from: reboot
      vars:
        node_maintenance_reboot_required: true
        node_maintenance_reboot_reasons: [a test]
"""


@contextlib.contextmanager
def qemu(lab: Lab) -> t.Iterator[None]:
    """A QEMU process on the host."""
    process = lab.dir / "hosts" / HOST / "proc" / "4711"
    (process / "fd").mkdir(parents=True)
    (process / "comm").write_text("qemu-system-x86\n", encoding="utf-8")
    try:
        yield
    finally:
        shutil.rmtree(process)


@contextlib.contextmanager
def pod(lab: Lab) -> t.Iterator[None]:
    """A pod on the node that no DaemonSet made."""
    spec = {"nodeName": HOST, "containers": [{"name": "c", "image": "registry.example.com/app"}]}
    overrides = {"apiVersion": "v1", "metadata": {"name": "app"}, "spec": spec}
    lab("kubectl", "run", "app", "--image=registry.example.com/app", "--overrides", json.dumps(overrides))
    try:
        yield
    finally:
        lab("kubectl", "delete", "pod", "app", "--force", "--grace-period=0")


@contextlib.contextmanager
def another_machine(lab: Lab) -> t.Iterator[None]:
    """The host is another boot than its Node."""
    file = lab.dir / "hosts" / HOST / "proc" / "sys" / "kernel" / "random" / "boot_id"
    before = file.read_text(encoding="utf-8")
    file.write_text(f"{ELSEWHERE}\n", encoding="utf-8")
    try:
        yield
    finally:
        file.write_text(before, encoding="utf-8")


def rebooted(run: Run) -> bool:
    return any("Reboot with the given command" in result["task"] and result["changed"] for result in run.results)


def reboot(lab: Lab, tmp_path: Path, *arguments: str) -> Run:
    playbook = tmp_path / "reboot.yml"
    playbook.write_text(REBOOT, encoding="utf-8")
    return lab.play(str(playbook), "--check", *arguments)


def test_a_free_host_is_rebooted(lab: Lab, tmp_path: Path) -> None:
    run = reboot(lab, tmp_path)
    assert run.rc == 0, run.output
    assert rebooted(run)


@pytest.mark.parametrize(("what", "word"), [(qemu, "4711"), (pod, "app"), (another_machine, ELSEWHERE)])
def test_a_reboot_is_refused_while(
    lab: Lab, tmp_path: Path, what: t.Callable[[Lab], contextlib.AbstractContextManager[None]], word: str
) -> None:
    with what(lab):
        run = reboot(lab, tmp_path)
    assert run.rc == 2, run.output
    assert not rebooted(run)
    assert "refused" in run.failures()[HOST]
    assert word in run.failures()[HOST]


def test_a_reboot_that_is_not_allowed_is_refused_by_the_role_itself(lab: Lab, tmp_path: Path) -> None:
    run = reboot(lab, tmp_path, "-e", "gpufleet_reboot_ok=false")
    assert run.rc == 2
    assert "not allowed" in run.failures()[HOST]
    assert run.changes() == set()


@pytest.mark.parametrize(
    ("busy", "variables", "word"),
    [(qemu, {}, "4711"), (contextlib.nullcontext, {"gpufleet_reboot_ok": False}, "not allowed")],
    ids=["under a VM", "not allowed"],
)
def test_a_host_that_is_not_rebooted_is_left_out_and_the_others_finish(
    lab: Lab, tmp_path: Path, busy: t.Callable[[Lab], contextlib.AbstractContextManager[None]], variables: dict[str, t.Any], word: str
) -> None:
    with busy(lab):
        run = attempt(lab, tmp_path, groups(gpu_vm_passthrough={HOST: variables}), "--check")
    assert run.rc == 2, run.output
    assert set(run.failures()) == {REFUSED, HOST}, run.output
    assert word in run.failures()[HOST]
    assert not rebooted(run)
    labelled = {
        change["target"]: change["after"]["labels"] for result in run.results for change in result["changes"] if change["action"] == "label"
    }
    assert labelled["node gpu-vgpu-0"]["nvidia.com/gpu.workload.config"] == "vm-vgpu"
    assert labelled[f"node {HOST}"] == {"nvidia.com/gpu.deploy.operands": "false"}
    assert any("Show the report" in result["task"] for result in run.results)
