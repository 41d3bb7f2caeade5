# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What Ansible sends to every node for a module stays small. It is packed in a process of its own, as Ansible's loader wants it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmark import payload

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def sizes() -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmark.payload", "--json"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_no_module_of_a_node_is_larger_than_it_may_be(sizes: dict[str, int]) -> None:
    assert {payload.PING, "gpu_node_info", "kernel_cmdline"} <= set(sizes)
    assert not payload.too_large(sizes)


def test_a_module_that_has_grown_is_named() -> None:
    found = {payload.PING: 1000, "small": 1000 + 60 * 1024, "grown": 1000 + 61 * 1024}
    assert payload.too_large(found) == {"grown": 1.0}
