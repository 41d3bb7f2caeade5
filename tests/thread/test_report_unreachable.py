# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The report playbook where hosts cannot be reached, on host trees and an API server of its own; it needs no lab.

One host's SSH port is closed. Its Node is there all the same, as after a broken cable of the management network.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest

from tests.hosts import tree
from tests.report import api
from tests.report.fleets import node

from .conftest import CHECKOUT

AWAY, PASSTHROUGH = "away", "gpu-passthrough-0"
FILES = {"fleet.json", "fleet.txt", "fleet.html"}


class Played(t.NamedTuple):
    rc: int
    output: str
    report: dict[str, t.Any]
    files: set[str]

    def node(self, name: str) -> dict[str, t.Any]:
        [found] = [entry for entry in self.report["nodes"] if entry["name"] == name]
        return t.cast("dict[str, t.Any]", found)


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[t.Callable[..., Played]]:
    home = tmp_path_factory.mktemp("report")
    root = home / "hosts" / PASSTHROUGH
    tree.build(root, tree.LAB_HOSTS[PASSTHROUGH])
    boot_id = (root / "proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    nodes = [
        node(PASSTHROUGH, "vm-passthrough", {"nvidia.com/GA102GL_A10": 2}, boot_id=boot_id),
        node(AWAY, "container", {"nvidia.com/gpu": 8}),
    ]
    groups = {
        "gpu_container": {"hosts": {AWAY: {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": port}}},
        "gpu_vm_passthrough": {"hosts": {PASSTHROUGH: {"ansible_connection": "local", "gpufleet_host_root": str(root)}}},
    }
    variables = {"gpufleet_kubeconfig": str(home / "kubeconfig"), "ansible_python_interpreter": sys.executable}
    inventory = {"all": {"vars": variables, "children": {"gpu_nodes": {"children": groups}}}}
    (home / "inventory.json").write_text(json.dumps(inventory), encoding="utf-8")
    count = 0

    def run(playbook: str, *arguments: str) -> Played:
        nonlocal count
        count += 1
        directory = home / f"report-{count}"
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(home / "inventory.json"), playbook]
        command += ["-e", f"gpufleet_report_dir={directory}", *arguments]
        environment = {**os.environ, "ANSIBLE_SHOW_CUSTOM_STATS": "true", "ANSIBLE_NOCOLOR": "1"}
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, cwd=CHECKOUT, env=environment, stdin=subprocess.DEVNULL, timeout=120
        )
        assert (directory / "fleet.json").exists(), done.stdout + done.stderr
        report = json.loads((directory / "fleet.json").read_text(encoding="utf-8"))
        return Played(done.returncode, done.stdout + done.stderr, report, {path.name for path in directory.iterdir()})

    with api.served(nodes, home / "kubeconfig"):
        yield run


def test_a_host_that_cannot_be_reached_is_marked_in_the_report_which_is_written_before_the_run_ends(play: t.Callable[..., Played]) -> None:
    found = play("playbooks/report.yml", "-e", "gpufleet_report_fail_on=unreachable,drift")
    assert found.rc == 2 and found.files == FILES, found.output
    away = found.node(AWAY)
    assert (away["reading"]["state"], away["gpus"], away["allocatable"]) == ("unreachable", None, {"nvidia.com/gpu": 8})
    assert "ssh" in away["reading"]["why"]
    read = found.node(PASSTHROUGH)
    assert read["reading"]["state"] == "read" and len(read["gpus"]) == 2
    # No VFIO Manager has run here.
    assert {entry["where"].partition(" of ")[0] for entry in read["drift"]} == {"driver"}
    for words in (f"- unreachable: {AWAY}.", f"- drift: {PASSTHROUGH}.", "the report is in"):
        assert words in found.output
    stats = found.output.partition("CUSTOM STATS")[2]
    assert "gpufleet_report" in stats and len(stats) < 8192


def test_where_every_host_is_unreachable_there_is_a_report(play: t.Callable[..., Played]) -> None:
    found = play("playbooks/report.yml", "--limit", AWAY)
    assert (found.rc, found.node(AWAY)["reading"]["state"], found.node(PASSTHROUGH)["reading"]["state"]) == (0, "unreachable", "unread")


def test_a_run_that_reaches_none_of_its_hosts_says_so_and_writes_its_report_all_the_same(play: t.Callable[..., Played]) -> None:
    found = play("playbooks/validate.yml", "--limit", AWAY)
    assert found.rc == 2 and found.files == FILES, found.output
    assert found.node(AWAY)["reading"]["state"] == "unreachable"
    assert f"Reading host {AWAY}: it cannot be reached" in found.output
