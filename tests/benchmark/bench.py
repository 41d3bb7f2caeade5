# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the collection costs on this machine, in one table. Ends with 1 if a bound is not kept.

How many remote tasks a converged ``prepare_hosts.yml`` has is counted in ``tests/thread``, since it takes a cluster.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import tempfile
import typing as t
from pathlib import Path

from tests.benchmark import modules, payload, permits, report, table, task_loop, vgpu, vgpu_plan
from tests.benchmark.table import Row
from tests.tools import env


def machine() -> str:
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores (load {load:.1f}), {platform.machine()}, Python {platform.python_version()}, "
        f"ansible-core {importlib.metadata.version('ansible-core')}; bounds are on the median"
    )


def payloads() -> list[Row]:
    """In a process of its own, as Ansible's loader wants it."""
    command = [sys.executable, "-m", "tests.benchmark.payload", "--json"]
    done = subprocess.run(command, cwd=env.CHECKOUT, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return [
        Row(f"payload of {name} beyond ping's", [(size - found[payload.PING]) / 1024], "KiB", payload.LARGER.get(name, payload.ROOM))
        for name, size in sorted(found.items())
        if name != payload.PING
    ]


#: What is measured, each with a directory for what it leaves behind.
PARTS: list[t.Callable[[Path], t.Iterable[Row]]] = [
    modules.rows,
    lambda _scratch: permits.rows(),
    lambda _scratch: payloads(),
    lambda _scratch: vgpu.rows(),
    lambda _scratch: vgpu_plan.rows(),
    task_loop.rows,
    report.rows,
]


def main() -> int:
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        rows = [row for part in PARTS for row in part(Path(scratch))]
    print(table.text(rows))
    return 0 if all(row.kept for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
