# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The suite's own machinery, where it can go wrong without a guest."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.kernel import archive, cached, disk, session
from tests.tools import env
from tests.tools.children import alive

pytestmark = pytest.mark.smoke

STARTS_ONE = """
import subprocess, time
from tests.tools.children import die_with_parent
print(subprocess.Popen(["sleep", "600"], preexec_fn=die_with_parent).pid, flush=True)
time.sleep(600)
"""


def test_a_machine_ends_with_who_started_it_even_if_that_is_killed() -> None:
    starter = subprocess.Popen([sys.executable, "-c", STARTS_ONE], stdout=subprocess.PIPE, text=True)
    assert starter.stdout
    machine = int(starter.stdout.readline())
    assert alive(machine)
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    deadline = time.monotonic() + 10
    while alive(machine) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(machine)


def test_what_a_killed_session_left_is_removed_and_what_a_living_one_has_is_not(tmp_path: Path) -> None:
    for name in ("dead", "living", "new"):
        (tmp_path / f"{session.PREFIX}{name}").mkdir()
        if name != "new":
            (tmp_path / f"{session.PREFIX}{name}" / session.LOCK).touch()
            os.utime(tmp_path / f"{session.PREFIX}{name}", (0, 0))
    with open(tmp_path / f"{session.PREFIX}living" / session.LOCK, "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        session.remove_what_was_left(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{session.PREFIX}living", f"{session.PREFIX}new"]


def test_what_is_made_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUFLEET_CACHE", str(tmp_path))

    def half(directory: Path) -> None:
        (directory / "half").touch()
        raise cached.KernelLabError("Making it: no")

    with pytest.raises(cached.KernelLabError):
        cached.made("thing", "0a", half, "Making it")
    assert not cached.is_made("thing", "0a")
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
    made = cached.made("thing", "0a", lambda directory: (directory / "all").touch(), "Making it")
    assert [path.name for path in made.iterdir()] == ["all"]
    assert cached.made("thing", "0a", half, "Making it") == made == env.cache() / "kernel-thing-0a"


def test_a_key_changes_with_content_name_and_mode(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    directory.mkdir()
    file = directory / "f"
    seen = set()
    for change in (
        lambda: file.write_text("1"),
        lambda: file.write_text("2"),
        lambda: file.chmod(0o755),
        lambda: file.rename(directory / "g"),
    ):
        change()
        seen.add(cached.key("v", directory))
    assert len(seen) == 4
    assert cached.key("v", directory) in seen and cached.key("w", directory) not in seen


def test_without_a_debian_archive_the_suite_fails_and_says_how_to_name_one(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = subprocess.CompletedProcess([], 0, stdout="noble an-archive/\nnoble-security an-archive/\n")
    monkeypatch.setattr(archive.subprocess, "run", lambda *_, **__: printed)
    archive.addresses.cache_clear()
    with pytest.raises(
        cached.KernelLabError, match=r"none of its sources is one \(it has noble, noble-security\)\. Set GPUFLEET_DEBIAN_ARCHIVE"
    ):
        archive.addresses()
    monkeypatch.setenv("GPUFLEET_DEBIAN_ARCHIVE", "an-archive")
    assert archive.addresses() == ("an-archive", "an-archive-security")
    archive.addresses.cache_clear()


def test_the_disk_has_one_active_partition_behind_the_boot_loader() -> None:
    table = disk.partition_table(sectors=1 << 22)
    assert len(table) == 512 - 440 and table[-2:] == b"\x55\xaa"
    active, _start, kind, _end, first, count = struct.unpack("<B3sB3sII", table[6:22])
    assert (active, kind, first, first + count) == (0x80, 0x83, disk.START, 1 << 22)
