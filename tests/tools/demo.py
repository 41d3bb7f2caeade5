# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The main job on the embedded lab: lab up, ``site.yml``, report, ``site.yml`` again.

One of the five hosts is refused on purpose, so ``site.yml`` exits with 2 and names that host. The demo succeeds only
if it was exactly that code and that host, twice, and if the second run changed nothing.
``KEEP=1`` leaves the lab up.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
LAB = [sys.executable, str(CHECKOUT / "tests" / "lab" / "lab.py")]
REFUSED = "gpu-refused-0"


def say(text: str) -> None:
    print(f"\n=== {text}", flush=True)


def lab(*arguments: str, quiet: bool = False) -> int:
    return subprocess.run([*LAB, *arguments], check=False, stdin=subprocess.DEVNULL, capture_output=quiet).returncode


def site() -> tuple[int, dict[str, dict[str, int]], float]:
    """Run ``site.yml``; its exit code, its recap by host, and its seconds. The output is shown as it comes."""
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
    return process.returncode, counts, time.monotonic() - started


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


def main() -> int:
    started = time.monotonic()
    say("lab up: etcd, API server, controllers, KubeVirt's webhooks and controller, simulated GPU operands")
    fresh = "reset" if lab("status", quiet=True) == 0 else "up"
    if lab(fresh):
        return 1
    up = time.monotonic() - started
    wrong = []
    try:
        say(f"site.yml, first run; {REFUSED} has its IOMMU off in the firmware and will be refused")
        code, recap, first = site()
        wrong += judge(code, recap, unchanged=False)
        if not wrong:
            say("site.yml, second run: nothing may change")
            code, recap, second = site()
            wrong += judge(code, recap, unchanged=True)
    finally:
        if os.environ.get("KEEP") == "1":
            say("the lab stays up; stop it with: make lab-down")
        else:
            lab("down")
    if wrong:
        say("the demo FAILED")
        print("\n".join(f"- {line}" for line in wrong))
        return 1
    say(
        f"the demo is done: lab up in {up:.0f} s, first run {first:.0f} s, second run {second:.0f} s with nothing changed; "
        f"{REFUSED} was refused both times, as it should be"
    )
    print("The report is in gpufleet-report/fleet.txt and gpufleet-report/fleet.json.")
    print("Real: etcd, Kubernetes' control plane, Helm, KubeVirt 1.7's CRDs, webhooks and controller.")
    print("Simulated: the hosts (directory trees), kubelets (kwok), the GPU Operator's chart and operands.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
