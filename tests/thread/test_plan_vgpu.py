# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``plan_vgpu.yml`` on the lab: two A10 full of A10-4Q, three VMs on them; of the demands one needs another profile, and one cannot be served."""

from __future__ import annotations

import json
import os
import shutil
import typing as t
from pathlib import Path

import pytest
import yaml

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host
from tests.hosts import furniture, tree
from tests.vgpu import checker

from .conftest import Lab, Run
from .test_site import writes

HOST = "gpu-vgpu-0"
RESOURCE = "nvidia.com/NVIDIA_A10-4Q"
#: VM -> its GPU, and the number of the virtual function that its vGPU is on.
VMS = {"train": ("0000:41:00", 0), "serve": ("0000:41:00", 1), "desk": ("0000:a1:00", 2)}
DEMANDS = [
    {"name": "render", "type": "A10-12Q", "count": 2},
    {"name": "desktops", "size_gb": 4, "series": "Q", "count": 3},
    {"name": "huge", "type": "A10-24Q"},
]
#: The fleet as it is, written down once more for the checker: it knows nothing of how the playbook found out.
FLEET = [
    {
        "name": HOST,
        "gpus": [
            {"index": 0, "gpu": "A10", "present": {"A10-4Q": 6}, "vms": [{"name": f"default/{vm}", "type": "A10-4Q"} for vm in ("serve", "train")]},
            {"index": 1, "gpu": "A10", "present": {"A10-4Q": 6}, "vms": [{"name": "default/desk", "type": "A10-4Q"}]},
        ],
    }
]  # fmt: skip


def hold(root: Path, vm: str, pid: int) -> None:
    """A QEMU of KubeVirt has a vGPU open."""
    slot, number = VMS[vm]
    host = Host(str(root))
    function = f"/sys/bus/pci/devices/{slot}.{number + tree.FIRST_VF}"
    [device] = [name for name in host.names(function) if name.count("-") == 4]
    group = os.path.basename(host.link(f"{function}/{device}/iommu_group") or "")
    furniture.process(root, pid, "qemu-kvm", f"/dev/vfio/{group}", cmdline=f"qemu-kvm\0-name\0guest=default_{vm},debug-threads=on\0")


def launcher(vm: str) -> dict[str, t.Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"virt-launcher-{vm}",
            "namespace": "default",
            "labels": {"kubevirt.io": "virt-launcher"},
            "annotations": {"kubevirt.io/domain": vm},
        },
        "spec": {
            "nodeName": HOST,
            "containers": [{"name": "compute", "image": "registry.example.com/launcher", "resources": {"limits": {RESOURCE: "1"}}}],
        },
    }


class Planned(t.NamedTuple):
    checked: Run
    made_by_check: bool
    run: Run
    again: Run
    limited: Run
    trees: tuple[dict[str, str], dict[str, str]]
    writes: list[str]
    files: dict[str, str]
    unchanged: bool


@pytest.fixture(scope="module")
def planned(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Planned]:
    """What the playbook did, with the lab put back as it was."""
    scratch = tmp_path_factory.mktemp("plan")
    root, aside, where = lab.dir / "hosts" / HOST, scratch / "aside", scratch / "plans" / "today"
    shutil.copytree(root, aside, symlinks=True)
    tree.set_vgpus(root, "A10-4Q")
    for pid, vm in enumerate(VMS, 4711):
        hold(root, vm, pid)
    pods = scratch / "pods.json"
    pods.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [launcher(vm) for vm in VMS]}), encoding="utf-8")
    demands = scratch / "demands.yml"
    demands.write_text(yaml.safe_dump({"demands": DEMANDS}), encoding="utf-8")
    options = ["-e", f"gpufleet_plan_dir={where}", "-e", f"gpufleet_demands_file={demands}"]
    lab("kubectl", "create", "-f", str(pods))
    try:
        before, position = lab.tree_digest(), lab.audit_size()
        checked = lab.play("playbooks/plan_vgpu.yml", "--check", "--diff", *options)
        made_by_check = where.exists()
        run = lab.play("playbooks/plan_vgpu.yml", *options)
        assert run.rc == 0, run.output
        files = {path.name: path.read_text(encoding="utf-8") for path in sorted(where.iterdir())}
        times = {path.name: path.stat().st_mtime_ns for path in where.iterdir()}
        again = lab.play("playbooks/plan_vgpu.yml", "--limit", HOST, *options)
        unchanged = times == {path.name: path.stat().st_mtime_ns for path in where.iterdir()}
        limited = lab.play("playbooks/plan_vgpu.yml", "--limit", "gpu-container-0", *options)
        trees, written = (before, lab.tree_digest()), writes(lab.audit(position))
        yield Planned(checked, made_by_check, run, again, limited, trees, written, files, unchanged)
    finally:
        lab("kubectl", "delete", "pod", *(f"virt-launcher-{vm}" for vm in VMS), "--force", "--grace-period=0")
        shutil.rmtree(root)
        shutil.move(aside, root)


def shown(run: Run) -> str:
    return next(result["msg"] for result in run.results if "Show the plan" in result["task"])


def test_the_plan_is_right_for_the_fleet_as_it_is(planned: Planned) -> None:
    plan = json.loads(planned.files["plan.json"])
    assert checker.problems(FLEET, DEMANDS, plan) == []
    assert (plan["status"], plan["served"]) == ("optimal", {"desktops": 3, "huge": 0, "render": 2})
    assert [(entry["demand"], entry["count"]) for entry in plan["unserved"]] == [("huge", 1)]
    assert {gpu["index"]: (gpu["before"], gpu["types"], gpu["disturbed"]) for gpu in plan["nodes"][0]["gpus"]} == {
        0: ({"A10-4Q": 6}, {"A10-4Q": 6}, []),
        1: ({"A10-4Q": 6}, {"A10-12Q": 2}, ["default/desk"]),
    }
    assert plan["caveats"] == [caveat for caveat in plan["caveats"] if "node" not in caveat], "the fleet was not fully known"


def test_the_table_says_what_changes_whom_it_disturbs_and_what_is_not_served(planned: Planned) -> None:
    text = planned.files["plan.txt"]
    for words in (
        "GPUs     1 of 2 change, 0 freed",
        "VMs      1 disturbed",
        "demands  2 of 3 served in full; 1 of 6 vGPUs NOT served",
        "6 x A10-4Q -> 2 x A10-12Q",
        "disturbs default/desk",
        "held by  default/serve: 1 x A10-4Q; default/train: 1 x A10-4Q",
        "huge: 1 x A10-24Q; ",
    ):
        assert words in text, text
    assert max(map(len, text.splitlines())) <= 100
    assert all(line in shown(planned.run) for line in text.splitlines() if "'" not in line)


def test_the_page_and_the_configuration_are_those_of_the_plan(planned: Planned) -> None:
    assert planned.files["plan.html"].startswith("<!DOCTYPE html>") and "A10-12Q for render" in planned.files["plan.html"]
    configs = yaml.safe_load(planned.files["config.yaml"])["vgpu-configs"]
    [(name, entries)] = configs.items()
    assert json.loads(planned.files["plan.json"])["device_config"]["profiles"] == {HOST: name}
    assert {(tuple(entry["devices"]), tuple(entry["vgpu-devices"].items())) for entry in entries} == {
        ((0,), (("A10-4Q", 6),)),
        ((1,), (("A10-12Q", 2),)),
    }


def test_nothing_is_applied(planned: Planned) -> None:
    assert planned.trees[0] == planned.trees[1]
    assert planned.writes == []


def test_the_same_plan_leaves_the_files_as_they_are(planned: Planned) -> None:
    assert planned.again.rc == 0, planned.again.output
    assert {counts["changed"] for counts in planned.again.recap.values()} == {0}
    assert planned.unchanged
    assert sum(counts["changed"] for counts in planned.run.recap.values()) == 3  # directory, plan, configuration


def test_check_mode_says_what_it_would_write_and_writes_nothing(planned: Planned) -> None:
    assert planned.checked.rc == 0, planned.checked.output
    assert not planned.made_by_check
    assert "Check mode: would write plan.json, plan.txt, plan.html, config.yaml in " in shown(planned.checked)
    assert "6 x A10-4Q -> 2 x A10-12Q" in shown(planned.checked)


def test_a_limit_without_a_host_with_vgpus_fails_and_names_those_that_are_outside(planned: Planned) -> None:
    assert planned.limited.rc == 2
    message = " ".join(planned.limited.failures().values())
    assert "no GPU can be planned" in message and f"Not in this run, and so neither read nor planned: {HOST}" in message
    assert "Traceback" not in planned.limited.output


def test_missing_demands_are_named_before_a_host_is_read(lab: Lab, tmp_path: Path) -> None:
    demands = tmp_path / "demands.yml"
    run = lab.play("playbooks/plan_vgpu.yml", "-e", f"gpufleet_demands_file={demands}", "-e", f"gpufleet_plan_dir={tmp_path}/plan")
    assert run.rc == 2, run.output
    [message] = run.failures().values()
    assert f"there is no file {demands}" in message and "gpufleet_demands_file" in message
    assert run.remote_tasks(HOST) == []
    assert not (tmp_path / "plan").exists()
