# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The main job on the embedded lab: lab up, ``site.yml``, report, ``site.yml`` again.

One of the five hosts is refused on purpose, so ``site.yml`` exits with 2 and names that host. The demo succeeds only
if it was exactly that code and that host, twice, and if the second run changed nothing.
``KEEP=1`` leaves the lab up. ``FAULT=NAME`` has the lab misbehave during the first run (`lab fault` lists how): that run must end as the
table of faults says, and the second, without the fault, as it should.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(CHECKOUT))

from tests.lab.faults import FAULTS, SECONDS_AFTER, chosen, misjudged
from tests.lab.layout import LabError

LAB = [sys.executable, str(CHECKOUT / "tests" / "lab" / "lab.py")]
REFUSED = "gpu-refused-0"
REPORT = ("fleet.txt", "fleet.json", "fleet.html")


def say(text: str) -> None:
    print(f"\n=== {text}", flush=True)


def lab(*arguments: str, quiet: bool = False) -> int:
    return subprocess.run([*LAB, *arguments], check=False, stdin=subprocess.DEVNULL, capture_output=quiet).returncode


def site() -> tuple[int, dict[str, dict[str, int]], float, str]:
    """Run ``site.yml``; its exit code, its recap by host, its seconds, and its output, which is shown as it comes."""
    started = time.monotonic()
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "inventories/lab", "site.yml"]
    lines = []
    with subprocess.Popen(
        command, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    recap = "".join(lines).rpartition("PLAY RECAP")[2]
    counts = {
        host: {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", text)}
        for host, text in re.findall(r"^(\S+)\s+: (ok=.*)$", recap, re.MULTILINE)
    }
    return process.returncode, counts, time.monotonic() - started, "".join(lines)


def judge(code: int, recap: dict[str, dict[str, int]], unchanged: bool) -> list[str]:
    """What is not as the demo promises, in words; empty if all is well."""
    wrong = []
    failed = sorted(host for host, count in recap.items() if count["failed"] or count["unreachable"])
    if code != 2:
        wrong.append(f"site.yml exited with {code} instead of 2")
    if failed != [REFUSED]:
        wrong.append(f"failed hosts are {failed} instead of [{REFUSED!r}]")
    changed = {host: count["changed"] for host, count in recap.items() if count["changed"]}
    if unchanged and changed:
        wrong.append(f"the second run changed something: {changed}")
    return wrong


def two_runs() -> tuple[list[str], float, float]:
    """The demo: what is wrong, and the seconds of both runs."""
    say(f"site.yml, first run; {REFUSED} has its IOMMU off in the firmware and will be refused")
    code, recap, first, _output = site()
    wrong, second = judge(code, recap, unchanged=False), 0.0
    if not wrong:
        say("site.yml, second run: nothing may change")
        code, recap, second, _output = site()
        wrong = judge(code, recap, unchanged=True)
    return wrong, first, second


def with_fault(name: str) -> tuple[list[str], float, float]:
    """The same where the first run meets a fault."""
    fault = FAULTS[name]
    ending = {"converges": "converge", "fails": f"fail and say {fault.says!r}", "either": f"converge, or fail and say {fault.says!r}"}[
        fault.ends
    ]
    say(f"site.yml, first run, with the fault {name}: {fault.what}. It has to {ending}")
    code, recap, first, output = site()
    wrong, second = misjudged(name, not judge(code, recap, unchanged=False), output), 0.0
    lab("fault", "none")
    if not wrong:
        if fault.where == "operand":
            time.sleep(SECONDS_AFTER)
        say("site.yml, second run, without the fault: it has to converge")
        code, recap, second, _output = site()
        wrong = judge(code, recap, unchanged=False)
    return wrong, first, second


def main() -> int:
    started = time.monotonic()
    name = os.environ.get("FAULT") or "none"
    try:
        chosen([name])
    except LabError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    say("lab up: etcd, API server, controllers, KubeVirt's webhooks and controller, simulated GPU operands")
    fresh = "reset" if lab("status", quiet=True) == 0 else "up"
    if lab(fresh) or lab("fault", name):
        return 1
    up = time.monotonic() - started
    try:
        if name == "none":
            wrong, first, second = two_runs()
        else:
            wrong, first, second = with_fault(name)
    finally:
        if os.environ.get("KEEP") == "1":
            say("the lab stays up; stop it with: make lab-down")
        else:
            lab("down")
    if wrong:
        say("the demo FAILED")
        print("\n".join(f"- {line}" for line in wrong))
        return 1
    outcome = "with nothing changed" if name == "none" else f"after {name} was gone"
    say(
        f"the demo is done: lab up in {up:.0f} s, first run {first:.0f} s, second run {second:.0f} s {outcome}; "
        f"{REFUSED} was refused both times, as it should be"
    )
    print(
        f"The report is in gpufleet-report: fleet.txt, fleet.json, and a page to look at: {(CHECKOUT / 'gpufleet-report' / 'fleet.html').as_uri()}"
    )
    print("Real: etcd, Kubernetes' control plane, Helm, KubeVirt 1.7's CRDs, webhooks and controller.")
    print("Simulated: the hosts (directory trees), kubelets (kwok), the GPU Operator's chart and operands.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
