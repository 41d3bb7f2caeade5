# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one test double of a running kernel: a host tree that reacts to what is written to its sysfs.

A tree is passive, so a write to ``unbind`` or ``create`` would only leave a file behind. Here each file that the kernel reacts to has
a reaction, registered by :func:`reaction` in the module that knows that part of the kernel. A file without one refuses the write,
as a read-only attribute does. What the kernel suite measures on a real kernel is what these reactions answer.
"""

from __future__ import annotations

import errno
import re
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host, KernelError, KernelTimeout

Reaction = t.Callable[["ReactingHost", "re.Match[str]", str], None]
_REACTIONS: list[tuple[re.Pattern[str], Reaction]] = []


def reaction(pattern: str) -> t.Callable[[Reaction], Reaction]:
    """Register what happens on a write to the (resolved) path that ``pattern`` matches whole. It raises OSError to refuse."""

    def register(function: Reaction) -> Reaction:
        _REACTIONS.append((re.compile(pattern), function))
        return function

    return register


class ReactingHost(Host):
    """A tree with a kernel. ``written`` is what was written, in order, as ``(path as given, text)``.

    ``faults`` maps a pattern of (resolved) paths to what happens instead, as often as the number says (-1: always): an error number,
    or ``"blocks"`` for a kernel that does not answer in time, or a callable that gets the path and the text.
    """

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.written: list[tuple[str, str]] = []
        self.faults: list[list[t.Any]] = []

    def fault(self, pattern: str, answer: int | str | t.Callable[[str, str], None], times: int = -1) -> None:
        self.faults.append([re.compile(pattern), answer, times])

    def write_kernel(self, path: str, text: str, timeout: float = 30) -> None:
        resolved = self.resolve(path)
        self.written.append((path, text))
        for entry in self.faults:
            pattern, answer, times = entry
            if times and pattern.fullmatch(resolved):
                entry[2] -= 1
                if answer == "blocks":
                    raise KernelTimeout(path, f"no answer from the kernel within {timeout:g} s; it may still do what was asked")
                if callable(answer):
                    answer(path, text)
                    break
                raise KernelError(path, int(answer))
        for pattern, function in _REACTIONS:
            match = pattern.fullmatch(resolved)
            if match:
                try:
                    function(self, match, text)
                except OSError as error:
                    raise KernelError(path, error.errno or errno.EIO) from error
                return
        raise KernelError(path, errno.ENOENT if not self.exists(path) else errno.EACCES)

    # What reactions use to change the tree, below the kernel's own directories.

    def put(self, path: str, text: str) -> None:
        """Write a file of the kernel."""
        with open(self.real(path), "w", encoding="utf-8") as file:
            file.write(text)
