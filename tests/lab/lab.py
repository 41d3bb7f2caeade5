#!/usr/bin/env python3
# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The embedded lab's command line: `tests/lab/lab up | status | fault | reset | reboot | mend | owned | kubectl | helm | env | build | down`."""

import argparse
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 - said here, for a Python that cannot read the other files
    sys.exit(
        f"lab: this is Python {sys.version.split()[0]} ({sys.executable}); the lab needs 3.11 or newer. Name one with GPUFLEET_PYTHON."
    )
_HERE = Path(__file__).resolve().parent
# Started as a file, Python looks for modules beside it first; the lab's are imported by their full names from the checkout.
sys.path[:] = [str(_HERE.parents[1]), *(p for p in sys.path if Path(p or ".").resolve() != _HERE)]
sys.dont_write_bytecode = True

from tests.lab import build, faults, lifecycle, nodes, profiles, registry, switch
from tests.lab.api import ApiError
from tests.lab.layout import LabError, Layout


def parser() -> argparse.ArgumentParser:
    """The commands and their arguments."""
    top = argparse.ArgumentParser(prog="lab", description="A Kubernetes and KubeVirt control plane on 127.0.0.1 with simulated GPU hosts.")
    commands = top.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start a lab (builds its programs if the cache does not have them)")
    up.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="NAME",
        help="a fault to start with, of those that `lab fault` lists; may be given again",
    )
    up.add_argument("--profile", default="mixed", metavar="NAME", help=f"the fleet: {', '.join(profiles.PROFILES)} (default: mixed)")
    up.add_argument("--nodes", type=int, default=0, metavar="N", help="so many more nodes, without a GPU (plain-0 ...)")
    commands.add_parser("status", help="parts, addresses and nodes; exit 1 when something is wrong")
    commands.add_parser("reset", help="back to the fresh lab, the control plane keeps running")
    commands.add_parser("down", help="stop everything and remove the state")
    commands.add_parser("build", help="build the programs only")
    commands.add_parser("fault", help="have exactly these faults from now on (none: no fault); without a name, list them").add_argument(
        "names", nargs="*", metavar="NAME"
    )
    commands.add_parser("registry", help="start an OCI registry beside the lab that is up; it stops with the lab")
    commands.add_parser("owned", help="add two hosts that own their devices, and virt-handler on every node, to the lab that is up")
    commands.add_parser("env", help="shell lines that make kubectl, helm and the playbooks use this lab")
    for name, text in (("reboot", "what a reboot of a host does"), ("mend", "turn the IOMMU on in a host's firmware, and reboot it")):
        commands.add_parser(name, help=text).add_argument("host")
    for name in ("kubectl", "helm"):
        commands.add_parser(name, help=f"{name} as the lab's admin", add_help=False)
    return top


def _tool(layout: Layout, name: str, arguments: Sequence[str]) -> int:
    """Run kubectl or helm; what they cache stays in the lab's state."""
    directory = Path(layout.read()["programs"])
    home = layout.directory / "home"
    environment = {
        **os.environ,
        "KUBECONFIG": str(layout.kubeconfig("admin")),
        "KUBECACHEDIR": str(home / "kube"),
        "HELM_CACHE_HOME": str(home / "helm-cache"),
        "HELM_CONFIG_HOME": str(home / "helm-config"),
        "HELM_DATA_HOME": str(home / "helm-data"),
    }
    return subprocess.run([build.program(directory, name), *arguments], env=environment, check=False).returncode


def _environment(layout: Layout) -> None:
    layout.read()
    print(f"export GPUFLEET_LAB_DIR={shlex.quote(str(layout.directory))}")
    print(f"export KUBECONFIG={shlex.quote(str(layout.kubeconfig('operator')))}")
    print(f'export PATH={shlex.quote(str(layout.programs))}:"$PATH"')


def run(argv: Sequence[str]) -> int:
    """One command; its exit status."""
    layout = Layout.from_environment()
    if argv and argv[0] in ("kubectl", "helm"):  # everything after it is theirs
        return _tool(layout, argv[0], argv[1:])
    arguments = parser().parse_args(argv)
    if arguments.command == "up":
        lifecycle.up(layout, arguments.fault, arguments.nodes, arguments.profile)
    elif arguments.command == "status":
        return 0 if lifecycle.status(layout) else 1
    elif arguments.command == "reset":
        lifecycle.reset(layout)
    elif arguments.command == "down":
        lifecycle.down(layout)
    elif arguments.command == "build":
        print(build.programs())
    elif arguments.command == "fault":
        if arguments.names:
            print(f"The lab's faults: {', '.join(switch.switch(layout, arguments.names)) or 'none'}")
        else:
            print(faults.listing())
    elif arguments.command == "registry":
        print(registry.start(layout))
    elif arguments.command == "owned":
        print("\n".join(lifecycle.own(layout)))
    elif arguments.command == "env":
        _environment(layout)
    elif arguments.command == "reboot":
        print(f"{arguments.host} has booted: {nodes.reboot(layout, lifecycle.admin(layout), arguments.host)}")
    elif arguments.command == "mend":
        print(
            f"{arguments.host} has its IOMMU on in firmware and has booted: {nodes.mend(layout, lifecycle.admin(layout), arguments.host)}"
        )
    return 0


def main() -> int:
    """As `run`, with errors for people to read."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a half-started lab is stopped
    try:
        return run(sys.argv[1:])
    except (LabError, ApiError) as e:
        print(f"lab: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
