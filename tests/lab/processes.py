# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's parts as processes: started in a session of their own, found by a mark in their environment, stopped by their own pid.

The mark, not a pid file, says which processes are the lab's: it survives a lost state directory, and no other process that later
gets the same pid has it. The pid files in `run/` are for people.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.lab.layout import COMMAND, LabError, Layout

MARK = "GPUFLEET_LAB_PART"


def _mark(layout: Layout, part: str) -> str:
    return f"{layout.directory}:{part}"


def running(layout: Layout) -> dict[str, list[int]]:
    """The lab's processes: part -> pids. Zombies have no environment left and do not count."""
    prefix = f"{MARK}={_mark(layout, '')}".encode()
    found: dict[str, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:  # it ended, or it is somebody else's
            continue
        for line in environment.split(b"\0"):
            if line.startswith(prefix):
                found.setdefault(os.fsdecode(line[len(prefix) :]), []).append(int(entry.name))
    return found


def start(layout: Layout, part: str, argv: Sequence[str], cwd: Path | None = None, environment: Mapping[str, str] | None = None) -> int:
    """Start one part; its output goes to `log/<part>.log`. Returns its pid."""
    with open(layout.log / f"{part}.log", "ab") as log:
        try:
            process = subprocess.Popen(
                argv,
                cwd=cwd or layout.directory,
                env={**os.environ, **(environment or {}), MARK: _mark(layout, part)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as e:
            raise LabError(f"Starting {part} of the lab in {layout.directory}: {argv[0]}: {e.strerror}.") from e
    (layout.run / f"{part}.pid").write_text(f"{process.pid}\n")
    # The kernel gives a new program its environment a moment after it has let us go on; before that nobody would know whose it is.
    while process.poll() is None and MARK.encode() not in Path(f"/proc/{process.pid}/environ").read_bytes():
        time.sleep(0.005)
    return process.pid


def stop(layout: Layout, parts: Sequence[str] | None = None, seconds: float = 10) -> list[str]:
    """Stop these parts of the lab, or all that runs of it, also what no record knows. Returns the names of what was stopped."""
    stopped: set[str] = set()
    for number, grace in ((signal.SIGTERM, seconds), (signal.SIGKILL, 5.0)):
        left = _of(layout, parts)
        stopped.update(left)
        for pid in _pids(left):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + grace
        while left and time.monotonic() < deadline:
            time.sleep(0.05)
            _reap(_pids(left))
            left = _of(layout, parts)
        if not left:
            break
    else:
        raise LabError(f"Stopping the lab in {layout.directory}: {describe(left)} still there after SIGKILL.")
    for part in stopped:
        (layout.run / f"{part}.pid").unlink(missing_ok=True)
    return sorted(stopped)


def _of(layout: Layout, parts: Sequence[str] | None) -> dict[str, list[int]]:
    return {part: pids for part, pids in running(layout).items() if parts is None or part in parts}


def _pids(found: Mapping[str, Sequence[int]]) -> list[int]:
    return [pid for pids in found.values() for pid in pids]


def describe(found: Mapping[str, Sequence[int]]) -> str:
    return ", ".join(f"{part} (pid {pid})" for part, pids in sorted(found.items()) for pid in pids)


def _reap(pids: Sequence[int]) -> None:
    """Collect our own children, so that they do not stay zombies while this command runs."""
    for pid in pids:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def wait(layout: Layout, part: str, trouble: Callable[[], str | None], seconds: float = 60) -> None:
    """Wait until there is no `trouble`; LabError with the end of the part's log when the part has died, or when it takes too long."""
    began = time.monotonic()
    while found := trouble():
        if part not in running(layout):
            raise LabError(
                f"Starting {part} of the lab in {layout.directory}: it ended by itself. The end of {layout.log / part}.log:\n{tail(layout, part)}"
            )
        if time.monotonic() - began > seconds:
            raise LabError(
                f"Starting {part} of the lab in {layout.directory}: it is not ready after {seconds:.0f} s ({found}). "
                f"The end of {layout.log / part}.log:\n{tail(layout, part)}"
            )
        time.sleep(0.1)


def tail(layout: Layout, part: str, lines: int = 15) -> str:
    """The last lines that a part wrote."""
    try:
        text = (layout.log / f"{part}.log").read_text(errors="replace")
    except OSError:
        return "  (no log)"
    return "\n".join("  " + line[:400] for line in text.splitlines()[-lines:]) or "  (empty)"


def free_ports(names: Sequence[str]) -> dict[str, int]:
    """One free port of 127.0.0.1 for each name, as the kernel gives them."""
    sockets: list[socket.socket] = []
    try:
        for _ in names:
            s = socket.socket()
            sockets.append(s)
            s.bind(("127.0.0.1", 0))
        return {name: s.getsockname()[1] for name, s in zip(names, sockets, strict=True)}
    except OSError as e:
        raise LabError(
            f"Looking for {len(names)} free ports on 127.0.0.1 for the lab: {e.strerror}. "
            f"Is another lab left over (`{COMMAND} down` in its checkout), or is net.ipv4.ip_local_port_range used up?"
        ) from e
    finally:
        for s in sockets:
            s.close()
