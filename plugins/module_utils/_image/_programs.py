# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Run a program on the machine that builds, in a process group of its own, with a time limit."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import typing as t


class Failed(Exception):
    """``end`` is the end of what the program printed; ``status`` its exit status, or None where it ran out of time or did not start."""

    def __init__(self, end: str, status: int | None = None) -> None:
        super().__init__(end)
        self.end, self.status = end, status


def run(command: t.Sequence[str], timeout: float, environment: t.Mapping[str, str] | None = None) -> str:
    """What it printed on standard output. Raises Failed. Its output goes through files, so that what it leaves behind cannot hold us."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            process = subprocess.Popen(  # pylint: disable=ansible-bad-function
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                env={**os.environ, "LC_ALL": "C.UTF-8", **(environment or {})},
            )
        except OSError as error:
            raise Failed(f"{command[0]}: {error.strerror or error}") from None
        try:
            status = process.wait(timeout)
        except BaseException as error:
            # It is in a group of its own, so whatever ends us would leave it at work, with a context that is gone.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise Failed(f"{os.path.basename(command[0])} was stopped after {timeout:g} s") from None
            raise
        out.seek(0)
        err.seek(0)
        printed = out.read().decode(errors="replace")
        if status:
            lines = (printed + err.read().decode(errors="replace")).strip().splitlines()
            raise Failed("\n".join(line[:400] for line in lines[-20:]) or "it printed nothing", status)
        return printed
