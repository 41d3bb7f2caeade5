# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a report of a large fleet costs on the controller: the filters in seconds of the processor, and the role through Ansible.

The role is run as the playbook runs it, with what was read of each host as a variable of the host; only the reads themselves are left out.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
import typing as t
from pathlib import Path

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._report import _json, _page, _report, _text
from tests.benchmark.table import Row
from tests.report import fleets

NODES, GPUS, RUNS = 1000, 8, 3
GROUPS = {"container": "gpu_container", "vm-passthrough": "gpu_vm_passthrough", "vm-vgpu": "gpu_vm_vgpu"}
#: From the brief of the report: seconds to make it, MB of its page.
MAKE, SIZE = 10.0, 5.0

_ALL = "groups['gpu_nodes'] | map('extract', hostvars)"
PLAY: list[dict[str, t.Any]] = [
    {
        "name": "Report",
        "hosts": "gpu_nodes",
        "connection": "local",
        "gather_facts": False,
        "tasks": [
            {
                "name": "Report once",
                "run_once": True,
                "delegate_to": "localhost",
                "block": [
                    {
                        "name": "Report",
                        "ansible.builtin.import_role": {"name": "gpufleet.kubevirt.fleet_report", "tasks_from": "write"},
                        "vars": {
                            "fleet_report_intents": f"{{{{ ({_ALL} | list | gpufleet.kubevirt.node_intents(run_hosts=ansible_play_hosts_all, "
                            "fleet=fleet_report_cluster)).intents }}",
                            "fleet_report_facts": f"{{{{ dict(groups['gpu_nodes'] | zip({_ALL} "
                            "| map(attribute='preflight_host', default={}))) }}",
                        },
                    }
                ],
            }
        ],
    }
]


def inventory(fleet: fleets.Fleet) -> dict[str, t.Any]:
    """The fleet's hosts with what was read of them."""
    groups: dict[str, t.Any] = {name: {"hosts": {}} for name in GROUPS.values()}
    for intent in fleet.intents:
        given = {"gpufleet_node_name": intent["node"], "preflight_host": fleet.facts[intent["host"]]}
        given |= {"gpufleet_vgpu_profile": "A10-4Q"} if intent["workload"] == "vm-vgpu" else {}
        groups[GROUPS[intent["workload"]]]["hosts"][intent["host"]] = given
    return {"all": {"children": {"gpu_nodes": {"children": groups}}}}


def _of_children() -> float:
    """Seconds of the processor that processes which have ended took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def through_ansible(fleet: fleets.Fleet, scratch: Path) -> tuple[float, float]:
    """Seconds of the processor: of a run that makes the report, and of one on the same inventory that makes none."""
    (scratch / "inventory.json").write_text(json.dumps(inventory(fleet)))
    (scratch / "cluster.json").write_text(json.dumps({"fleet_report_cluster": fleet.cluster, "fleet_report_dir": str(scratch / "report")}))
    nothing = {"name": "Nothing", "run_once": True, "ansible.builtin.meta": "noop"}
    took = []
    for name, play in (("report", PLAY), ("nothing", [{**PLAY[0], "tasks": [nothing]}])):
        (scratch / f"{name}.yml").write_text(json.dumps(play))
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(scratch / "inventory.json")]
        command += ["-e", f"@{scratch / 'cluster.json'}", str(scratch / f"{name}.yml")]
        started = _of_children()
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env={**os.environ})
        took.append(_of_children() - started)
        if done.returncode:
            raise RuntimeError(f"{name}: ansible-playbook ended with {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    made = json.loads((scratch / "report" / "fleet.json").read_text())
    assert made["summary"]["nodes"] == len(fleet.intents) and made["summary"]["gpus"], "the report is not of this fleet"
    return took[0], took[1]


def rows(scratch: Path) -> list[Row]:
    fleet = fleets.large(NODES, GPUS)
    seconds: list[float] = []
    html = ""
    for _run in range(RUNS):
        started = time.process_time()
        report = _report.fleet_report(**fleet.arguments())
        _text.fleet_report_text(report)
        _json.text(report)
        html = _page.page(report)
        seconds.append(time.process_time() - started)
    crowded = _page.page(_report.fleet_report(**fleets.large(NODES, GPUS, crowded=True).arguments()))
    run, nothing = through_ansible(fleet, scratch)
    what = f"{NODES} nodes x {GPUS} GPUs"
    return [
        Row(f"report of {what}", seconds, "s", MAKE),
        Row(f"report of {what}, role", [run - nothing], "s", MAKE),
        Row(f"page of {what}", [len(html.encode()) / 1e6], "MB", SIZE),
        Row("the same, every vGPU held", [len(crowded.encode()) / 1e6], "MB", SIZE),
    ]


def main() -> int:
    import tempfile

    from tests.benchmark import table

    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        found = rows(Path(scratch))
    print(table.text(found))
    return 0 if all(row.kept for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
