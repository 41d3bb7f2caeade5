# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""QEMU's monitor: commands over its socket, answered one by one."""

from __future__ import annotations

import json
import socket
import typing as t
from pathlib import Path

from tests.kernel.cached import KernelLabError


class Monitor:
    """A connection to the monitor of one machine (QMP, see QEMU's docs/interop/qmp-spec)."""

    def __init__(self, path: Path, timeout: float = 180) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(timeout)
        self._socket.connect(str(path))
        self._stream = self._socket.makefile("rw", encoding="utf-8")
        self._answer()  # the greeting
        self.execute("qmp_capabilities")

    def _answer(self) -> dict[str, t.Any]:
        """The next message that is no event."""
        while True:
            line = self._stream.readline()
            if not line:
                raise KernelLabError("Asking QEMU's monitor: QEMU has closed it. See qemu.log of the machine.")
            message: dict[str, t.Any] = json.loads(line)
            if "event" not in message:
                return message

    def execute(self, command: str, **arguments: t.Any) -> t.Any:
        self._stream.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._stream.flush()
        answer = self._answer()
        if "error" in answer:
            raise KernelLabError(f"Asking QEMU's monitor for {command}: {answer['error']['desc']}.")
        return answer["return"]

    def human(self, line: str) -> str:
        """A command of the monitor for people, which alone saves and loads snapshots by name; what it says is an error."""
        said: str = self.execute("human-monitor-command", **{"command-line": line})
        if said.strip():
            raise KernelLabError(f"Asking QEMU's monitor for {line}: {said.strip()}.")
        return said

    def close(self) -> None:
        self._stream.close()
        self._socket.close()
