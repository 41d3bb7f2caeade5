# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role on host trees: what it refuses, what it writes down, and that it leaves the hosts alone. What it takes from a cluster is given."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
import yaml

from tests.hosts import tree

WORKLOAD = {"gpu-container-0": "container", "gpu-passthrough-0": "vm-passthrough", "gpu-refused-0": "vm-passthrough"}
#: A rule that is broken only after the repairs, and only on one of the hosts.
LATE = {
    "id": "late", "title": "Late", "workloads": ["container"], "severity": "fail", "when": "after", "needs": ["facts.host.kernel"],
    "query": "facts.host.kernel != ''", "problem": "It is late on {facts.host.kernel}", "remedy": "Sleep",
}  # fmt: skip


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[dict[str, t.Any]]:
    """One run: every host is judged before; those that are left, after repairs that were none."""
    home = tmp_path_factory.mktemp("role")
    for name in WORKLOAD:
        tree.build(home / "hosts" / name, tree.LAB_HOSTS[name])
    boot_ids = {name: (home / "hosts" / name / "proc/sys/kernel/random/boot_id").read_text().strip() for name in WORKLOAD}
    given = {
        "preflight_intents": [{"host": n, "node": n, "workload": w, "owner": "operator", "reboot_ok": True} for n, w in WORKLOAD.items()],
        "preflight_cluster": {
            "cluster": {"uid": "u"},
            "cluster_policy": None,
            "release": {"name": "gpu-operator", "chart": "gpu-operator", "version": "v26.7.0", "values": {"password": "hunter2"}},
            "kubevirt": {"name": "kubevirt", "version": "v1.7.0", "owner": None},
            "nodes": [
                {"name": n, "boot_id": boot_ids[n], "labels": {}, "workload": None, "used": {}, "operands": [], "at_work": []}
                for n in WORKLOAD
            ],
        },
        "gpufleet_preflight_rules": [LATE, {"id": "other_driver_at_boot", "silence": "kernel_modules comes next"}],
        "gpufleet_gpu_count": 2,
        "preflight_report_dir": "./out",
    }
    role = {"name": "gpufleet.kubevirt.preflight"}
    play = {
        "hosts": "all",
        "gather_facts": False,
        "vars": given,
        "tasks": [
            {"name": "Before", "ansible.builtin.import_role": role, "vars": {"preflight_fixers": ["kernel_cmdline"]}},
            {"name": "After", "ansible.builtin.include_role": {**role, "tasks_from": "again"}, "when": "inventory_hostname != 'gpu-passthrough-0'"},
        ],
    }  # fmt: skip
    (home / "play.yml").write_text(yaml.safe_dump([play], sort_keys=False))
    common = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    hosts = {name: {**common, "gpufleet_host_root": str(home / "hosts" / name)} for name in WORKLOAD}
    (home / "inventory.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    before = digests(home / "hosts")
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "inventory.yml", "--check", "--diff", "play.yml"]
    done = subprocess.run(command, cwd=home, env={**os.environ, "ANSIBLE_NOCOLOR": "1"}, capture_output=True, text=True, check=False)
    out = home / "out" / "preflight"
    yield {
        "rc": done.returncode,
        "output": done.stdout + done.stderr,
        "json": {path.stem: json.loads(path.read_text()) for path in out.glob("*.json")},
        "text": {path.stem: path.read_text() for path in out.glob("*.txt")},
        "untouched": before == digests(home / "hosts"),
    }


def digests(directory: Path) -> dict[str, str]:
    files = (path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def failed(ran: dict[str, t.Any]) -> dict[str, int]:
    return {host: int(count) for host, count in re.findall(r"^(\S+)\s+: ok=.*failed=(\d+)", ran["output"], re.MULTILINE)}


def test_hosts_that_fail_stop_and_others_go_on(ran) -> None:
    assert ran["rc"] == 2, ran["output"]
    assert failed(ran) == {"gpu-container-0": 1, "gpu-passthrough-0": 0, "gpu-refused-0": 1}
    assert "refused for 1 reason" in ran["output"] and "off in the firmware" in ran["output"]


def test_each_host_has_its_verdicts_for_machines(ran) -> None:
    verdicts = {host: found["verdict"] for host, found in ran["json"].items()}
    # The last judgement counts: of the container host, that after the repairs.
    assert verdicts == {"gpu-container-0": "fail", "gpu-passthrough-0": "will_fix", "gpu-refused-0": "fail"}
    passthrough = {entry["id"]: entry["verdict"] for entry in ran["json"]["gpu-passthrough-0"]["rules"]}
    assert (passthrough["iommu_kernel"], passthrough["other_driver_at_boot"]) == ("will_fix", "silenced")
    late = next(entry for entry in ran["json"]["gpu-container-0"]["rules"] if entry["id"] == "late")
    assert late["problem"] == f"It is late on {tree.KERNEL}"
    assert all("text" not in found for found in ran["json"].values())


def test_each_host_has_its_table_for_people(ran) -> None:
    assert "iommu_kernel" in ran["text"]["gpu-passthrough-0"]
    for line in ran["text"]["gpu-refused-0"].splitlines()[:2]:
        assert line in ran["output"]


def test_judging_changes_nothing_and_shows_no_secret(ran) -> None:
    assert ran["untouched"]
    assert set(re.findall(r"changed=(\d+)", ran["output"])) == {"0"}
    assert "hunter2" not in ran["output"] + json.dumps(ran["json"])
