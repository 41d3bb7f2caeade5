# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The simulated GPU Operator of one lab: `python -m tests.lab.operands --kubeconfig FILE --hosts DIR --events FILE`."""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.lab.api import Api
from tests.lab.layout import Layout
from tests.lab.operands.driver import Simulation, run
from tests.lab.operands.virt_handlers import VirtHandlers


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.lab.operands",
        description="Simulate the GPU Operator and its operands on a lab that is up.",
        epilog="Its faults are those of `lab fault`.",
    )
    parser.add_argument("--kubeconfig", type=Path, required=True, help="in the lab's state directory")
    parser.add_argument("--hosts", type=Path, required=True, help="the hosts' trees")
    parser.add_argument("--events", type=Path, required=True, help="file to which events are appended")
    parser.add_argument("--speed", type=float, default=1.0, metavar="FACTOR", help="2 is twice as fast (default: 1)")
    given = parser.parse_args()
    if given.speed <= 0:
        parser.error("--speed must be above 0")
    layout = Layout(given.kubeconfig.parent)
    if (layout.hosts, layout.events) != (given.hosts, given.events):
        parser.error(f"--hosts and --events are not those of the lab in {layout.directory}")
    api = Api(layout, layout.read()["ports"]["kube-apiserver"], "simulation")
    run(Simulation(layout, api, speed=given.speed), VirtHandlers(layout, api, speed=given.speed))


if __name__ == "__main__":
    main()
