# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``check-machine`` names all that is missing in one message, and the Python that is chosen really runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tools import run_parts

TOOLS = Path(__file__).parent
#: What the scripts themselves use.
NEEDED = ("sh", "awk", "sed", "grep", "df", "uname", "dirname", "mkdir", "paste", "sort", "head", "cut", "ls", "cat", "test")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A directory of programs that has what the scripts use, and nothing of what they look for."""
    directory = tmp_path / "bin"
    directory.mkdir()
    for name in NEEDED:
        found = next((Path(place) / name for place in ("/usr/bin", "/bin") if (Path(place) / name).exists()), None)
        if found:
            (directory / name).symlink_to(found)
    return directory


def call(script: str, path: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(path), "HOME": str(path.parent / "home"), "GPUFLEET_CACHE": str(path.parent / "cache"), **variables}
    return subprocess.run([str(TOOLS / script), *arguments], env=environment, capture_output=True, text=True, check=False)


def program(path: Path, name: str, text: str) -> None:
    (path / name).write_text(f"#!/bin/sh\n{text}\n")
    (path / name).chmod(0o755)


def test_all_that_is_missing_is_named_in_one_message_quickly(path: Path) -> None:
    began = time.monotonic()
    done = call("check-machine", path)
    assert time.monotonic() - began <= 5
    assert done.returncode == 1
    for word in ("Python 3.12 or newer", "git: apt-get install git", "make: apt-get", "openssl: apt-get"):
        assert word in done.stderr
    assert done.stderr.count("This machine lacks:") == 1


def test_what_only_the_kernel_suite_needs_is_asked_for_only_with_it(path: Path) -> None:
    words = ("gcc, for the kernel suite: apt-get install gcc", "ssh, for the kernel suite: apt-get install openssh-client")
    assert not any(word in call("check-machine", path).stderr for word in words)
    said = call("check-machine", path, "kernel").stderr
    assert all(word in said for word in words)
    # Container engines only with the third, which needs nothing of the second.
    engine = "for building an image: apt-get install --no-install-recommends podman"
    assert engine not in said and engine in (asked := call("check-machine", path, "image").stderr) and "kernel suite" not in asked
    # Who is nobody special needs a guest that somebody else has made.
    program(path, "id", "echo 1000")
    assert " root, for the kernel suite" in call("check-machine", path, "kernel").stderr
    (path.parent / "cache" / "kernel-image-0a").mkdir(parents=True)
    assert " root, for the kernel suite" not in call("check-machine", path, "kernel").stderr


def test_a_python_that_is_too_old_is_named_with_what_was_found(path: Path) -> None:
    program(path, "python3", "case \"$*\" in *find-python*|*ensurepip*) exit 0 ;; esac\necho '/usr/bin/python3 3.9'")
    assert "found: /usr/bin/python3 3.9" in call("check-machine", path).stderr


def test_a_cache_that_cannot_be_written_is_named(path: Path) -> None:
    done = call("check-machine", path, GPUFLEET_CACHE="/proc/nothing")
    assert "the right to write to the cache /proc/nothing" in done.stderr


def test_a_python_that_only_pretends_is_passed_over(path: Path) -> None:
    program(path, "python3.14", "echo 'pyenv: python3.14: command not found' >&2; exit 127")
    (path / "python3.13").symlink_to(sys.executable)
    found = call("find-python", path).stdout.strip()
    assert found and os.access(found, os.X_OK)
    assert call("find-python", path, "3.1").stdout == ""
    assert call("find-python", path, GPUFLEET_PYTHON=str(path / "python3.14")).stdout == ""


def test_a_part_that_fails_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(run_parts, "run", lambda part: int(part == "bad"))
    assert run_parts.main(["--lane", "good", "bad", "last"]) == 1
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[0] == lines[-1] and lines[0].startswith("lane: ansible-core ")
    assert [line.split()[0] for line in lines if line.split()[:1] in (["passed"], ["FAILED"])] == ["passed", "FAILED", "passed"]
    assert run_parts.main(["good"]) == 0
