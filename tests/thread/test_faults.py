# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``site.yml`` under every fault of the lab's table: it ends as the table says, the next run mends all, and what is somebody else's stays.

Each takes two to four minutes: GPUFLEET_LONG=1, as make soak does it, a share of the table in each shard.
"""

from __future__ import annotations

import json
import time
import typing as t

import pytest

from tests.lab.faults import FAULTS, SECONDS_AFTER, misjudged

from .conftest import LONG, Lab, share
from .test_site import FOREIGN, GOOD, REFUSED, allocatable, permits

#: Of hosts that own their devices, which this inventory does not have.
ELSEWHERE = {"deaf-virt-handler"}
KUBEVIRT = ("kubevirt", "kubevirt", "-n", "kubevirt", "--type=merge")


@LONG
@pytest.mark.parametrize("name", share(sorted(FAULTS.keys() - ELSEWHERE)))
def test_a_run_that_meets_a_fault_ends_as_the_table_says_and_the_next_one_mends_all(
    lab: Lab, fault: t.Callable[..., None], name: str
) -> None:
    lab("reset")
    spec = {"spec": {"configuration": {"permittedHostDevices": {"pciHostDevices": [FOREIGN]}}}}
    lab("kubectl", "patch", *KUBEVIRT, "-p", json.dumps(spec))
    fault(name)
    run = lab.play("site.yml")
    assert misjudged(name, run.failures().keys() == {REFUSED}, run.output) == [], run.output
    assert "Traceback" not in run.output
    fault()
    time.sleep(SECONDS_AFTER if FAULTS[name].where == "operand" else 0)
    again = lab.play("site.yml")
    assert again.failures().keys() == {REFUSED}, again.output
    assert all(allocatable(lab, host) for host in GOOD)
    assert FOREIGN in permits(lab)["pciHostDevices"]
    third = lab.play("site.yml")
    assert third.failures().keys() == {REFUSED} and third.changes() == set()
