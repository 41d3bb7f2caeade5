# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.bmc import certificates
from tests.tools.children import alive

STARTS_A_BMC = """
import pathlib, sys, time
from tests.bmc import serve
print(serve.start("dell", pathlib.Path(sys.argv[1]))[0].pid, flush=True)
time.sleep(600)
"""


def ends(pid: int) -> bool:
    """Does it end by itself? If not, it is ended here."""
    deadline = time.monotonic() + 10
    while alive(pid):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            return False
        time.sleep(0.01)
    return True


def test_a_test_bmc_ends_with_who_started_it_even_if_that_is_killed(tmp_path: Path) -> None:
    certificates.make(tmp_path)
    with subprocess.Popen([sys.executable, "-c", STARTS_A_BMC, str(tmp_path)], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout
        bmc = int(starter.stdout.readline())
        assert alive(bmc)
        starter.send_signal(signal.SIGKILL)
    assert ends(bmc)


# In a process of its own: this one may have other children, of other tests.
STARTS_A_GROUP = """
import os, subprocess, sys
from tests.tools.children import wait_for_a_group
said, say = os.pipe()
leader = os.fork()
if not leader:
    os.setpgid(0, 0)
    sleeper = subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL)
    os.write(say, str(sleeper.pid).encode())
    os._exit(int(sys.argv[1]))
sleeper = os.read(said, 20).decode()
found, code = wait_for_a_group()
print(sleeper, found == leader, code)
"""


@pytest.mark.parametrize("code", [0, 3])
def test_what_a_trial_has_started_ends_with_it(code: int) -> None:
    said = subprocess.run([sys.executable, "-c", STARTS_A_GROUP, str(code)], capture_output=True, text=True, check=True, timeout=60).stdout
    sleeper, *told = said.split()
    assert told == ["True", str(code)]
    assert ends(int(sleeper))
