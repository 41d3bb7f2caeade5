# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Commands of a host that is a tree: they list what is in an image, build it, and keep a diary."""

from __future__ import annotations

import typing as t
from pathlib import Path

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._commands import Ended
from tests.hosts import tree


class FakeCommands:
    """Stands for :class:`Commands` of a tree that is a machine."""

    can_run = True

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ran: list[list[str]] = []
        self.answers: dict[str, Ended] = {}  #: answers by program that are not the usual ones
        self.generic = False  #: images are built without the files of modprobe.d
        self.more: dict[str, t.Callable[[list[str]], Ended]] = {}  #: further commands

    def built(self) -> list[list[str]]:
        """The commands that built an image."""
        return [command for command in self.ran if command[0].endswith(("update-initramfs", "dracut"))]

    def run(self, command: t.Sequence[str], seconds: int) -> Ended:
        self.ran.append(list(command))
        name = Path(command[0]).name
        if name in self.answers:
            return self.answers[name]
        if name in self.more:
            return self.more[name](list(command))
        if name == "lsinitramfs":
            return Ended(0, (self.root / command[1].lstrip("/")).read_text(), 1)
        if name == "lsinitrd":
            lines = (self.root / command[1].lstrip("/")).read_text().splitlines()
            return Ended(0, "".join(f"-rw-r--r--   1 root     root   123 Jan  1  1970 {line}\n" for line in ["Image: x", *lines]), 1)
        if name in ("update-initramfs", "dracut"):
            tree.build_initramfs(self.root)
            if self.generic:
                image = self.root / f"boot/initrd.img-{tree.KERNEL}"
                image.write_text("".join(line for line in image.read_text().splitlines(keepends=True) if "modprobe.d" not in line))
            return Ended(0, "", 1)
        raise AssertionError(command)
