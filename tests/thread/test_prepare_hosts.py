# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``prepare_hosts.yml`` on the lab: predict, two reasons and one reboot, a second run, and a GPU that does not come back.

Afterwards the lab is fresh again.
"""

from __future__ import annotations

import json
import sys
import typing as t
from pathlib import Path

import pytest

from tests.hosts import tree

from .conftest import CHECKOUT, Lab, Run
from .test_site import GOOD, REFUSED, REPORT, labels, writes

HOST = "gpu-passthrough-0"  # its IOMMU is off in the kernel; here nouveau has its GPUs as well
SECOND = "0000:a1:00.0"
PLAYBOOK = "playbooks/prepare_hosts.yml"


@pytest.fixture(scope="module")
def host(lab: Lab) -> t.Iterator[Path]:
    root = lab.dir / "hosts" / HOST
    tree.bind(root, "nouveau", at_boot=True)
    yield root
    lab("reset")


class Checked(t.NamedTuple):
    run: Run
    trees: tuple[dict[str, str], dict[str, str]]
    writes: list[str]


@pytest.fixture(scope="module")
def checked(lab: Lab, host: Path) -> Checked:
    before, position = lab.tree_digest(), lab.audit_size()
    run = lab.play(PLAYBOOK, "--check", "--diff")
    return Checked(run, (before, lab.tree_digest()), writes(lab.audit(position)))


@pytest.fixture(scope="module")
def first(lab: Lab, checked: Checked) -> Run:
    return lab.play(PLAYBOOK, "--diff")


@pytest.fixture(scope="module")
def second(lab: Lab, first: Run) -> Run:
    """With everything that can be asked for."""
    return lab.play(PLAYBOOK, "-e", "gpufleet_remove_host_driver=true")


def rebooted(run: Run) -> list[str]:
    return [result["host"] for result in run.results if "Reboot with the given command" in result["task"] and result["changed"]]


def test_check_mode_writes_nothing_and_lists_what_the_first_run_changes(checked: Checked, first: Run) -> None:
    assert set(checked.run.failures()) == {REFUSED}, checked.run.output
    assert checked.writes == [] and checked.trees[0] == checked.trees[1]
    assert checked.run.changes() == first.changes()


def test_two_reasons_share_one_reboot(lab: Lab, host: Path, first: Run) -> None:
    assert set(first.failures()) == {REFUSED}, first.output
    assert rebooted(first) == [HOST]
    assert tree.has_groups(host) and set(tree.drivers(host).values()) == {None}
    assert not lab.kubectl("get", "node", HOST)["spec"].get("unschedulable")


@pytest.mark.parametrize(
    ("name", "load", "block"),
    [
        ("gpu-container-0", [], []),
        (HOST, ["vfio-pci", "vfio_iommu_type1"], ["nouveau", "nova_core", "nova_drm", "nvidiafb"]),
        ("gpu-vgpu-0", ["vfio-pci", "vfio_iommu_type1", "mdev"], ["nouveau", "nova_core", "nova_drm", "nvidiafb"]),
        (REFUSED, [], []),
    ],
)
def test_each_workload_has_its_modules(lab: Lab, first: Run, name: str, load: list[str], block: list[str]) -> None:
    found = []
    for path in ("etc/modules-load.d/gpufleet.conf", "etc/modprobe.d/gpufleet.conf"):
        file = lab.dir / "hosts" / name / path
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        found.append([line.removeprefix("blacklist ") for line in lines if not line.startswith("#")])
    assert found == [load, block]


def test_the_cluster_is_left_alone_but_for_the_cordon(lab: Lab, first: Run) -> None:
    assert not [key for found in labels(lab).values() for key in found if key.startswith("nvidia.com/")]
    assert {target for host, target, _ in first.changes() if target.startswith("node ")} == {f"node {HOST}"}


def test_the_second_run_changes_nothing_in_at_most_four_remote_tasks(second: Run) -> None:
    assert {name: counts["changed"] for name, counts in second.recap.items()} == dict.fromkeys([*GOOD, REFUSED], 0), second.changes()
    for name in GOOD:
        tasks = second.remote_tasks(name)
        assert 1 <= len(tasks) <= 4, tasks
        assert any("Remove the host's own NVIDIA driver" in task for task in tasks)


def test_a_gpu_that_does_not_come_back_keeps_the_node_out(lab: Lab, host: Path, second: Run, tmp_path: Path) -> None:
    gpus: list[tree.Gpu] = tree.seat(host, [])
    tree.seat(host, gpus)
    tree.bind(host, "nouveau")
    losing = tmp_path / "reboot.py"
    losing.write_text(
        f"import subprocess, sys\nsys.path.insert(0, {str(CHECKOUT)!r})\nfrom pathlib import Path\nfrom tests.hosts import tree\n"
        f"subprocess.run([sys.executable, {str(CHECKOUT / 'tests/lab/lab.py')!r}, 'reboot', {HOST!r}], check=True)\n"
        f"root = Path({str(host)!r})\ngpus = tree.seat(root, [])\ntree.seat(root, gpus[:1])\n",
        encoding="utf-8",
    )
    # The same steps in site, which reports, although the run ends here.
    REPORT.unlink(missing_ok=True)
    run = lab.play("site.yml", "--limit", HOST, "-e", f"gpufleet_reboot_command='{sys.executable} {losing}'")
    assert rebooted(run) == [HOST]
    [reported] = [node for node in json.loads(REPORT.read_text(encoding="utf-8"))["nodes"] if node["name"] == HOST]
    assert (reported["state"], reported["schedulable"]) == ("refused", False)
    assert f"not back: {SECOND}" in run.failures()[HOST], run.output
    assert lab.kubectl("get", "node", HOST)["spec"].get("unschedulable")
    # The next run has not seen it before, and knows it all the same.
    again = lab.play(PLAYBOOK, "--limit", HOST)
    assert f"not back: {SECOND}" in again.failures()[HOST] and rebooted(again) == []
    assert lab.kubectl("get", "node", HOST)["spec"].get("unschedulable")
    tree.seat(host, gpus)
    tree.bind(host, None)
    mended = lab.play(PLAYBOOK, "--limit", HOST)
    assert mended.rc == 0, mended.output
    assert not lab.kubectl("get", "node", HOST)["spec"].get("unschedulable")
