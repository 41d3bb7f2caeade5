# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the end of a run says about what failed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._report import _failures
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._report._failures import Failure, failures

HELD = {"target": "0000:41:00.0", "problem": "qemu (4711) holds it", "remedy": "Stop VM a/b"}
UNTOUCHED = "everything is as it was before this step"


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"blockers": [HELD], "changes": []}, [("0000:41:00.0", "qemu (4711) holds it", "Stop VM a/b", UNTOUCHED)]),
        (
            {"blockers": [HELD], "changes": [{"action": "bind", "target": "0000:a1:00.0"}]},
            [("0000:41:00.0", "qemu (4711) holds it", "Stop VM a/b", "done by this step: bind 0000:a1:00.0")],
        ),
        ({"msg": "no chart at x\n"}, [("", "no chart at x", "", "")]),
        (
            {"msg": "non-zero return code", "stderr": "1\n2\n3\nhelm: timed out"},
            [("", "non-zero return code\n2\n3\nhelm: timed out", "", "")],
        ),
        ({}, [("", "no reason was given", "", "")]),
        ({"censored": "hidden", "msg": "password is x", "blockers": [HELD]}, [("", "hidden", "", "")]),
        ({"msg": "One or more items failed", "results": [{"failed": False}, {"failed": True, "msg": "two"}]}, [("", "two", "", "")]),
        ({"msg": "\n".join(map(str, range(15)))}, [("", "\n".join([*map(str, range(12)), "(3 more lines above)"]), "", "")]),
    ],
)
def test_a_result_is_told_by_what_stopped_it(result: dict[str, t.Any], expected: list[tuple[str, str, str, str]]) -> None:
    assert failures("gpu01", "Bind", result) == [Failure("gpu01", "Bind", *entry) for entry in expected]


def test_a_host_that_cannot_be_reached_has_a_remedy() -> None:
    [failure] = failures("gpu01", "Read the host", {"msg": "No route to host", "unreachable": True}, unreachable=True)
    assert (failure.what, failure.why, failure.remedy) == ("gpu01", "No route to host", _failures.UNREACHABLE)


def test_what_is_the_same_on_several_hosts_stands_there_once() -> None:
    found = [Failure(host, "Bind", "group 14", "it is held", "Stop the VM", "") for host in ("b", "a", "b")]
    text = _failures.text([*found, Failure("c", "Bind", "group 15", "it is held", "Stop the VM", "")], 5)
    assert text.splitlines() == [
        "FAILURE SUMMARY: 2 problems on 3 of 5 hosts",
        "",
        "a, b",
        "  step  Bind",
        "  what  group 14",
        "  why   it is held",
        "  do    Stop the VM",
        "",
        "c",
        "  step  Bind",
        "  what  group 15",
        "  why   it is held",
        "  do    Stop the VM",
    ]
    assert _failures.text([], 5) == ""


@given(st.lists(st.text("abc \n", max_size=300), min_size=4, max_size=4))
def test_nothing_of_a_reason_is_lost_in_wrapping_and_lines_fit(values: list[str]) -> None:
    lines = _failures.text([Failure("h", *values, "")], 1).splitlines()
    assert "".join("".join(values).split()) == "".join("".join(line[8:] if line.startswith("  ") else line for line in lines[3:]).split())
    assert all(len(line) <= _failures.WIDTH or " " not in line.strip() for line in lines)


def test_only_what_ended_a_hosts_part_of_a_run_is_printed(tmp_path: Path) -> None:
    """Ignored and rescued failures are none, and what no_log hides stays hidden."""
    fail = {"ansible.builtin.fail": {"msg": "no GPU here"}}
    plays = [
        {
            "hosts": "a,b,good",
            "gather_facts": False,
            "tasks": [
                {"name": "Ignored", "ansible.builtin.fail": {"msg": "ignored"}, "ignore_errors": True},
                {"name": "Look for GPUs", **fail, "when": "inventory_hostname == 'a'"},
                {"name": "Log in", "ansible.builtin.fail": {"msg": "s3cret"}, "no_log": True, "when": "inventory_hostname == 'b'"},
            ],
        },
        {
            "hosts": "c",
            "gather_facts": False,
            "tasks": [{"block": [{"name": "Rescued", **fail}], "rescue": [{"ansible.builtin.debug": {}}]}],
        },
        {"hosts": "d", "gather_facts": False, "tasks": [{"name": "Read the host", "ansible.builtin.ping": {}}]},
    ]
    book = tmp_path / "book.json"
    book.write_text(json.dumps(plays), encoding="utf-8")
    (tmp_path / "hosts").write_text("a\nb\ngood\nc\nd ansible_connection=ssh ansible_host=127.0.0.1 ansible_port=1\n", encoding="utf-8")
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), "-c", "local", "-i", "hosts", str(book)],
        cwd=tmp_path,
        env={**os.environ, "ANSIBLE_CALLBACKS_ENABLED": "gpufleet.kubevirt.failure_summary", "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    summary = done.stdout.partition("FAILURE SUMMARY: ")[2]
    assert summary.startswith("3 problems on 3 of 5 hosts\n"), done.stdout + done.stderr
    assert "\na\n  step  Look for GPUs\n  why   no GPU here\n" in summary
    assert "\nb\n  step  Log in\n" in summary and "s3cret" not in summary
    assert "\nd\n  step  Read the host\n  what  d\n" in summary and _failures.UNREACHABLE in summary
    assert "gnored" not in summary and "escued" not in summary
