# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ansible on this machine, the guest its host: over SSH, as root, as users run it."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import subprocess
import sys
import time
import typing as t
from pathlib import Path

from tests.kernel.cached import HERE, KernelLabError
from tests.kernel.guest import Guest, differences

Result = dict[str, t.Any]
HOST = "guest"
_SETTINGS = f"""\
[defaults]
callback_plugins = {HERE / "callback_plugins"}
callbacks_enabled = results
inject_facts_as_vars = false
"""


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of ansible-playbook: its exit code, its output, how long it took, and what each task returned."""

    rc: int
    output: str
    seconds: float
    outcomes: list[str]
    results: list[Result]


def inventory(guest: Guest) -> str:
    variables = {
        "ansible_host": "127.0.0.1",
        "ansible_port": guest.qemu.port,
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(guest.identity),
        # Where testinfra looks for them too.
        "ansible_ssh_common_args": shlex.join(guest.ssh_options),
        "ansible_ssh_args": "",
        "ansible_ssh_pipelining": True,
        "ansible_python_interpreter": "/usr/bin/python3",
    }
    return json.dumps({"all": {"hosts": {HOST: variables}}})


def playbook(
    guest: Guest, book: Path | list[dict[str, t.Any]], *arguments: str, variables: dict[str, t.Any] | None = None, timeout: float = 900
) -> Run:
    """Run a playbook, given as a file or as plays, on the guest."""
    directory = guest.directory
    (directory / "ansible.cfg").write_text(_SETTINGS)
    (directory / "inventory.json").write_text(inventory(guest))
    results = directory / f"results-{time.monotonic_ns()}.jsonl"
    results.touch()
    if not isinstance(book, Path):
        written = directory / "playbook.json"
        written.write_text(json.dumps(book))
        book = written
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(directory / "inventory.json"), str(book), *arguments]
    if variables:
        command += ["-e", json.dumps(variables)]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(directory / "ansible.cfg"), "GPUFLEET_RESULTS": str(results), "ANSIBLE_NOCOLOR": "1"}
    began = time.monotonic()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=environment, timeout=timeout)
    seconds = time.monotonic() - began
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    output = done.stdout + done.stderr
    if any(line["outcome"] == "unreachable" for line in lines) or (done.returncode and not lines):
        raise KernelLabError(
            f"Running {book.name} on the guest: it could not be run.\n{output[-3000:]}\nThe guest's console ends with:\n{guest.qemu.console()}"
        )
    return Run(
        done.returncode,
        output,
        seconds,
        [line["outcome"] for line in lines],
        [{"seconds": line["seconds"], **line["result"]} for line in lines],
    )


def tasks(guest: Guest, *wanted: dict[str, t.Any], check: bool = False) -> Run:
    """One play with these tasks, in which a failure does not keep the later ones from running."""
    play = {"hosts": HOST, "gather_facts": False, "tasks": [{"ignore_errors": True, **task} for task in wanted]}
    return playbook(guest, [play], *(["--check"] if check else []))


def task(name: str, check: bool | None = None, **parameters: t.Any) -> dict[str, t.Any]:
    """A task that calls a module of this collection; ``check`` as the task's own keyword."""
    return {f"gpufleet.kubevirt.{name}": parameters, **({} if check is None else {"check_mode": check})}


def module(guest: Guest, name: str, check: bool = False, **parameters: t.Any) -> Result:
    """What a module of this collection returns, with ``failed`` always there, and ``seconds`` that the task took."""
    run = tasks(guest, task(name, check=check, **parameters))
    return {"failed": run.outcomes[-1] == "failed", **run.results[-1]}


def three_runs(guest: Guest, name: str, **parameters: t.Any) -> Result:
    """Check mode predicts and writes nothing, the real run does just that, a second run changes nothing; the real run's result."""
    before = guest.state()
    predicted = module(guest, name, check=True, **parameters)
    assert not predicted["failed"], predicted["msg"]
    assert differences(before, guest.state()) == {}
    run = tasks(guest, task(name, **parameters), task(name, **parameters))
    assert run.outcomes == ["ok", "ok"], run.output
    first, second = run.results
    assert first["changed"] and first["changes"] == predicted["changes"]
    assert not second["changed"], second["changes"]
    return first


def refused(guest: Guest, name: str, **parameters: t.Any) -> str:
    """The module fails and writes nothing; its message."""
    before = guest.state()
    result = module(guest, name, **parameters)
    assert result["failed"] and not result["changed"], result
    assert differences(before, guest.state()) == {}
    message: str = result["msg"]
    return message
