# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Runs the playbooks on the embedded lab. One lab for the session; a story that starts fresh resets it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
LAB_DIR = Path(os.environ.get("GPUFLEET_LAB_DIR") or CHECKOUT / ".lab")
INVENTORY = CHECKOUT / "inventories" / "lab"
#: For :meth:`Lab.play`: with the table of failures at the end, as the repository's ansible.cfg has it.
SUMMED_UP = {"ANSIBLE_CALLBACKS_ENABLED": "record,gpufleet.kubevirt.failure_summary"}
#: Actions that Ansible carries out on the controller without a connection to the host.
CONTROLLER_ONLY = {
    "ansible.builtin." + name
    for name in (
        "assert",
        "debug",
        "fail",
        "group_by",
        "include_role",
        "include_tasks",
        "import_role",
        "meta",
        "set_fact",
        "validate_argument_spec",
    )
}


#: For stories that are no part of make lab-test.
LONG = pytest.mark.skipif(not os.environ.get("GPUFLEET_LONG"), reason="takes minutes: GPUFLEET_LONG=1, as make soak does it")


def share(names: t.Sequence[str]) -> list[str]:
    """Those of a table that this shard of make soak tries: every n-th from the i-th on, for GPUFLEET_SHARD=i/n; without it all."""
    number, _slash, of = (os.environ.get("GPUFLEET_SHARD") or "1/1").partition("/")
    return list(names)[int(number) - 1 :: int(of)]


@dataclasses.dataclass
class Run:
    """One run of ansible-playbook: its exit code, its output and what the tasks returned."""

    rc: int
    output: str
    seconds: float
    results: list[dict[str, t.Any]]

    @property
    def recap(self) -> dict[str, dict[str, int]]:
        """Counts per host from the recap, ``{host: {ok: 3, changed: 0, ...}}``."""
        text = self.output.rsplit("PLAY RECAP", 1)[1]
        lines = re.findall(r"^(\S+)\s+: (ok=.*)$", text, re.MULTILINE)
        return {host: {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", counts)} for host, counts in lines}

    def changes(self) -> set[tuple[str, str, str]]:
        """(host, target, action) of all that was changed; a task of another collection stands for its own change."""
        found = set()
        for result in self.results:
            host = "cluster" if result["run_once"] else result["host"]
            for change in result["changes"]:
                found.add((host, change["target"], change["action"]))
            if result["changed"] and not result["changes"]:
                found.add((host, result["task"], "changed"))
        return found

    def known_after_apply(self) -> set[tuple[str, str, str]]:
        """Those of :meth:`changes` whose value no plan can know."""
        return {
            ("cluster" if result["run_once"] else result["host"], change["target"], change["action"])
            for result in self.results
            for change in result["changes"]
            if "known after apply" in json.dumps(change)
        }

    def remote_tasks(self, host: str) -> list[str]:
        """Names of the tasks that were sent to the host."""
        return [
            result["task"]
            for result in self.results
            if result["host"] == host
            and not result["delegated"]
            and result["outcome"] != "skipped"
            and result["action"] not in CONTROLLER_ONLY
        ]

    def failures(self) -> dict[str, str]:
        """Failure message per host."""
        return {result["host"]: result["msg"] for result in self.results if result["outcome"] in ("failed", "unreachable")}


class Lab:
    """The embedded lab as the tests use it."""

    dir = LAB_DIR

    def __call__(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(CHECKOUT / "tests" / "lab" / "lab.py"), *arguments],
            env={**os.environ, "GPUFLEET_LAB_DIR": str(self.dir)},
            check=check,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=1800,
        )

    def kubectl(self, *arguments: str) -> t.Any:
        """``kubectl … -o json`` as the lab's admin."""
        done = self("kubectl", *arguments, "-o", "json")
        return json.loads(done.stdout)

    def play(self, playbook: str, *arguments: str, inventory: t.Sequence[Path | str] = (INVENTORY,), env: t.Mapping[str, str] = {}) -> Run:
        """Run a playbook of the collection on the lab's inventory."""
        record = self.dir / f"record-{time.monotonic_ns()}.jsonl"
        record.touch()
        command = [str(Path(sys.executable).with_name("ansible-playbook"))]
        command += [part for path in inventory for part in ("-i", str(path))]
        environment = {
            **os.environ,
            "ANSIBLE_CALLBACK_PLUGINS": str(Path(__file__).parent / "callback_plugins"),
            "ANSIBLE_CALLBACKS_ENABLED": "record",
            "ANSIBLE_NOCOLOR": "1",
            "GPUFLEET_LAB_DIR": str(self.dir),
            "GPUFLEET_RECORD": str(record),
            **env,
        }
        started = time.monotonic()
        done = subprocess.run(
            [*command, playbook, *arguments],
            check=False,
            capture_output=True,
            text=True,
            cwd=CHECKOUT,
            env=environment,
            stdin=subprocess.DEVNULL,
            timeout=900,
        )
        seconds = time.monotonic() - started
        results = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
        record.unlink()
        return Run(done.returncode, done.stdout + done.stderr, seconds, results)

    def tree_digest(self) -> dict[str, str]:
        """A digest per host of every path, link and content of its tree."""
        digests = {}
        for host in sorted((self.dir / "hosts").iterdir()):
            digest = hashlib.sha256()
            for path in sorted(host.rglob("*")):
                digest.update(str(path.relative_to(host)).encode())
                if path.is_symlink():
                    digest.update(os.readlink(path).encode())
                elif path.is_file():
                    digest.update(path.read_bytes())
            digests[host.name] = digest.hexdigest()
        return digests

    def audit(self, since: int = 0) -> list[dict[str, t.Any]]:
        """Audit events of the playbooks' identity, from the given byte of the log on."""
        with open(self.dir / "audit.log", "rb") as stream:
            stream.seek(since)
            events = [json.loads(line) for line in stream.read().decode().splitlines() if line]
        return [event for event in events if event["user"]["username"] == "gpufleet"]

    def audit_size(self) -> int:
        return (self.dir / "audit.log").stat().st_size


@pytest.fixture
def fault(lab: Lab) -> t.Iterator[t.Callable[..., None]]:
    """Switches the lab's faults: ``fault("sticky-pause")`` has exactly this one on, ``fault()`` none. In the end there is none."""

    def switch(*names: str) -> None:
        done = lab("fault", *(names or ["none"]), check=False)
        assert done.returncode == 0, done.stderr

    yield switch
    switch()


@pytest.fixture(scope="session")
def lab() -> t.Iterator[Lab]:
    """A fresh lab: started, or reset if it is up already. Stopped in the end if it was started here."""
    handle = Lab()
    was_up = handle("status", check=False).returncode == 0
    started = handle("reset" if was_up else "up", check=False)
    if started.returncode:
        pytest.fail(f"the lab did not start:\n{started.stdout}{started.stderr}", pytrace=False)
    yield handle
    if not was_up:
        handle("down", check=False)
