# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One seeded fleet planned in a process of its own: seconds of its processor, its peak memory, and what the checker says of the plan.

python -m tests.vgpu.planning '{"gpus": 64, "demands": 500, "load": 0.7, "seed": 0, "seconds": 60}'
"""

from __future__ import annotations

import dataclasses
import json
import resource
import subprocess
import sys
import time
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _plan
from tests.tools import env
from tests.vgpu import checker, instances


@dataclasses.dataclass(frozen=True)
class Case:
    """What is planned, see ``instances.instance``; ``seconds`` is the plan's time limit."""

    gpus: int
    demands: int
    load: float
    seed: int
    seconds: float = 60

    def __str__(self) -> str:
        return f"{self.gpus} GPUs, {self.demands} demands, load {self.load:.2f}, seed {self.seed}"


@dataclasses.dataclass(frozen=True)
class Planned:
    """Processor seconds of the plan, peak MB of its process before the plan is checked, the plan's objectives, and what is wrong with it."""

    seconds: float
    megabytes: float
    objectives: list[dict[str, t.Any]]
    wrong: list[str]

    @property
    def unproven(self) -> list[str]:
        return [f"{entry['name']} {entry['value']}, bound {entry['bound']}" for entry in self.objectives if not entry["proven"]]

    def over(self, name: str) -> float:
        """How far an objective is above its bound, in %."""
        [entry] = [entry for entry in self.objectives if entry["name"] == name]
        return 100.0 * (entry["value"] - entry["bound"]) / max(entry["bound"], 1)


def planned(case: Case) -> Planned:
    """The case planned in a new process. A planner that gives no plan is wrong, too."""
    command = [sys.executable, "-m", "tests.vgpu.planning", json.dumps(dataclasses.asdict(case))]
    done = subprocess.run(command, cwd=env.CHECKOUT, capture_output=True, text=True, check=False)
    if done.returncode:
        return Planned(0.0, 0.0, [], [f"no plan: {(done.stderr.strip().splitlines() or ['it said nothing'])[-1]}"])
    return Planned(**json.loads(done.stdout.splitlines()[-1]))


def here(case: Case) -> Planned:
    fleet, demands = instances.instance(case.gpus, case.demands, case.load, case.seed)
    started = time.process_time()
    plan = _plan.plan(fleet, demands, time_limit=case.seconds)
    seconds = time.process_time() - started
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Planned(seconds, megabytes, plan["objectives"], checker.problems(fleet, demands, plan))


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(here(Case(**json.loads(sys.argv[1]))))))
