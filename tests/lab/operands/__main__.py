# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m tests.lab.operands --kubeconfig FILE --hosts DIR --events FILE [--fault NAME ...]`: the simulated GPU Operator of one lab."""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.lab.api import Api
from tests.lab.layout import Layout
from tests.lab.operands.driver import FAULTS, Simulation, run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True, help="in the lab's state directory")
    parser.add_argument("--hosts", type=Path, required=True)
    parser.add_argument("--events", type=Path, required=True)
    parser.add_argument("--fault", action="append", choices=sorted(FAULTS), default=[])
    given = parser.parse_args()
    layout = Layout(given.kubeconfig.parent)
    if (layout.hosts, layout.events) != (given.hosts, given.events):
        parser.error(f"--hosts and --events are not those of the lab in {layout.directory}")
    run(Simulation(layout, Api(layout, layout.read()["ports"]["kube-apiserver"], "simulation"), tuple(given.fault)))


if __name__ == "__main__":
    main()
