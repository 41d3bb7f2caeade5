# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One module call beside the loop of tasks that does the same: is there a vGPU of the wanted type on each of 16 virtual functions?

The loop is the pattern of roles that write mediated devices by hand: per virtual function, look for the type, read how many are left, and
create one where none is. Both sides find everything as wanted, on the same tree, over the local connection with pipelining. The time of a
play without remote tasks is taken off both, so that the start of ansible-playbook counts for neither.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import typing as t
from pathlib import Path

from tests.benchmark.table import Row
from tests.hosts import tree

RUNS = 3
GPU, TYPE, NUMBER, COUNT = "0000:41:00.0", "A10-1Q", 590, 16
CALLBACKS = Path(__file__).resolve().parents[1] / "thread" / "callback_plugins"

_PLAY: dict[str, t.Any] = {"hosts": "localhost", "connection": "local", "gather_facts": False}
_BASE = "{{ root }}/sys/bus/pci/devices/{{ item }}/mdev_supported_types/nvidia-{{ number }}"
_LOOP: dict[str, t.Any] = {"loop": "{{ functions }}", "loop_control": {"label": "{{ item }}"}}
LOOP = [
    {"name": "Look for the type", "ansible.builtin.stat": {"path": _BASE}, "register": "found", **_LOOP},
    {"name": "Read how many are left", "ansible.builtin.slurp": {"src": f"{_BASE}/available_instances"}, "register": "left", **_LOOP},
    {
        "name": "Create a vGPU where one is left",
        "ansible.builtin.copy": {
            "dest": "{{ root }}/sys/bus/pci/devices/{{ item.item }}/mdev_supported_types/nvidia-{{ number }}/create",
            "content": "{{ item.item | to_uuid }}",
            "unsafe_writes": True,
        },
        "when": "(item.content | b64decode | int) > 0",
        "loop": "{{ left.results }}",
        "loop_control": {"label": "{{ item.item }}"},
    },
]
MODULE = [
    {
        "name": "Have the vGPUs",
        "gpufleet.kubevirt.mdev_create": {
            "host_root": "{{ root }}",
            "gpus": [{"address": GPU, "types": [{"type": TYPE, "count": COUNT}]}],
        },
    }
]


def play(scratch: Path, name: str, tasks: list[dict[str, t.Any]], variables: dict[str, t.Any], tasks_sent: int) -> float:
    """Run a play; its seconds. It must succeed, change nothing and report as many results as ``tasks_sent``."""
    book, record = scratch / f"{name}.yml", scratch / f"{name}.jsonl"
    book.write_text(json.dumps([{**_PLAY, "name": name, "vars": variables, "tasks": tasks}]))
    record.write_text("")
    environment = {
        **os.environ,
        "ANSIBLE_CALLBACK_PLUGINS": str(CALLBACKS),
        "ANSIBLE_CALLBACKS_ENABLED": "record",
        "ANSIBLE_PIPELINING": "true",
        "GPUFLEET_RECORD": str(record),
    }
    command = [
        str(Path(sys.executable).with_name("ansible-playbook")),
        "-i",
        "localhost,",
        "-e",
        f"ansible_python_interpreter={sys.executable}",
    ]
    started = time.monotonic()
    done = subprocess.run([*command, str(book)], capture_output=True, text=True, check=False, env=environment, stdin=subprocess.DEVNULL)
    took = time.monotonic() - started
    results = [json.loads(line) for line in record.read_text().splitlines()]
    if done.returncode or len(results) != tasks_sent or any(result["changed"] for result in results):
        raise SystemExit(f"Measuring {name}: it did not do what it should.\n{done.stdout}{done.stderr}")
    return took


def rows(scratch: Path) -> t.Iterator[Row]:
    root = scratch / "host"
    gpu = tree.Gpu(GPU, driver="nvidia", vfs=COUNT, active=dict.fromkeys(range(COUNT), NUMBER))
    tree.build(root, tree.HostSpec([gpu], cmdline="intel_iommu=on"))
    (root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    functions = [os.path.basename(os.readlink(root / f"sys/bus/pci/devices/{GPU}/virtfn{number}")) for number in range(COUNT)]
    variables = {"root": str(root), "functions": functions, "number": NUMBER}
    empty, loop, module = [], [], []
    for _run in range(RUNS):
        empty.append(play(scratch, "nothing", [{"ansible.builtin.meta": "noop"}], variables, 0))
        loop.append(play(scratch, "loop", LOOP, variables, len(LOOP)))
        module.append(play(scratch, "module", MODULE, variables, len(MODULE)))
    start = min(empty)
    yield Row("ansible-playbook without a remote task", empty, "s")
    yield Row("loop of tasks, 16 VFs (32 remote tasks)", [value - start for value in loop], "s")
    yield Row("mdev_create, 16 VFs (1 remote task)", [value - start for value in module], "s")
    # A time of less than a tenth of a second is within what the start of ansible-playbook varies.
    yield Row("loop of tasks / one module call", [(a - start) / max(b - start, 0.1) for a, b in zip(loop, module, strict=True)], "times")
