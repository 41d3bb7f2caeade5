# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A host with two A10 whose kernel reacts, and our modules on it."""

from __future__ import annotations

import json
import os
import typing as t
from pathlib import Path

from tests.hosts import kernel_vgpu, tree
from tests.hosts.kernel import ReactingHost

Result = dict[str, t.Any]
A, B = "0000:41:00.0", "0000:a1:00.0"
VF0, VF1 = "0000:41:00.4", "0000:41:00.5"
MACHINE = "0123456789abcdef0123456789abcdef"

Params = dict[str, t.Any]


class Node:
    """A host with two A10, and the module on it."""

    def __init__(self, host: ReactingHost, run: t.Callable[..., Result], root: Path) -> None:
        self.host, self.root, self._run = host, root, run

    def vfs(self, *devices: Params, check: bool = False, **more: t.Any) -> Result:
        return self._run("sriov_vfs", {"host_root": str(self.root), "devices": list(devices), **more}, check)

    def run(self, *gpus: Params, check: bool = False, **more: t.Any) -> Result:
        return self._run("mdev_create", {"host_root": str(self.root), "gpus": list(gpus), **more}, check)

    def counts(self) -> dict[str, dict[str, int]]:
        """What the kernel really has, per GPU: read from the double, not from the module."""
        found: dict[str, dict[str, int]] = {}
        for address in (A, B):
            path = self.host.resolve(f"/sys/bus/pci/devices/{address}")
            for _parent, kind in kernel_vgpu.board(self.host, path).vgpus.values():
                name = tree.A10_TYPES[kind][0]
                found.setdefault(address, {}).setdefault(name, 0)
                found[address][name] += 1
        return found

    def snapshot(self) -> dict[str, str]:
        return {
            str(path.relative_to(self.root)): os.readlink(path) if path.is_symlink() else path.read_text(errors="replace")
            for path in sorted(self.root.rglob("*"))
            if path.is_symlink() or path.is_file()
        }


def build(root: Path, backend: str = "mdev", **gpu: t.Any) -> None:
    """The tree, right after the driver has come up."""
    tree.build(
        root, tree.HostSpec(tree.a10s(driver="nvidia", **{"vfs": 6, "vfs_total": 6, "backend": backend, **gpu}), cmdline="intel_iommu=on")
    )
    (root / "etc/machine-id").write_text(f"{MACHINE}\n")
    (root / "etc/systemd/system").mkdir(parents=True)


def gpu(*types: tuple[str, int], address: str = A, **more: t.Any) -> Params:
    return {"address": address, "types": [{"type": name, "count": count} for name, count in types], **more}


def said(result: Result) -> str:
    """All that a failure says."""
    return json.dumps(result.get("blockers", [])) + result.get("msg", "")
