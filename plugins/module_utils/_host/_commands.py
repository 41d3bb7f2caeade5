# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Commands of the host, run by their names and a list of arguments, with a time limit and never through a shell.

A program that is still at work when its time is over is not killed: a package manager or a generator of images that is killed half-way
leaves a host that does not boot. It is left running in a session of its own, and that is said.
"""

from __future__ import annotations

import subprocess
import tempfile
import typing as t

from ._sysfs import Host

_ENVIRONMENT = {
    "DEBIAN_FRONTEND": "noninteractive",
    "LC_ALL": "C",
    # Ubuntu's package manager would otherwise restart services, the kubelet among them.
    "NEEDRESTART_SUSPEND": "1",
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
}
_SHOWN = 600  # characters of a program's output that are shown


class Ended(t.NamedTuple):
    """How a program ended: ``code`` is None if it still runs (as process ``pid``)."""

    code: t.Optional[int]
    output: str
    pid: int

    def problem(self, program: str, seconds: int) -> str:
        """What went wrong, in words; empty if nothing did."""
        said = self.output.strip()[-_SHOWN:]
        if self.code is None:
            return f"{program} has not ended within {seconds} s and still runs as process {self.pid}; it is not killed"
        return f"{program} ended with {self.code}: {said or 'it said nothing'}" if self.code else ""


class Commands:
    """Runs commands on one host. Those of a tree run only if ``in_root`` says how (``chroot``)."""

    def __init__(self, host: Host, in_root: str = "never") -> None:
        self._prefix = [] if host.is_real else ["chroot", host.root]
        self.can_run = host.is_real or in_root == "chroot"

    def run(self, command: t.Sequence[str], seconds: int) -> Ended:
        """Run a program to its end, or until its time is over. Both of its output streams are returned as one text."""
        with tempfile.TemporaryFile() as output:
            try:
                # run_command would kill a program whose time is over.
                process = subprocess.Popen(  # pylint: disable=ansible-bad-function
                    [*self._prefix, *command],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    cwd="/",
                    env=_ENVIRONMENT,
                    start_new_session=True,
                )
            except OSError as error:
                return Ended(127, f"cannot be started: {error.strerror}", 0)
            try:
                code: t.Optional[int] = process.wait(seconds)
            except subprocess.TimeoutExpired:
                code = None
                process.returncode = 0  # it is left running on purpose: nobody waits for it any more
            output.seek(0)
            return Ended(code, output.read().decode("utf-8", "replace"), process.pid)
