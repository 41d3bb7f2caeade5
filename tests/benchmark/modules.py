# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Modules of a node on the largest host that we have in mind: 8 GPUs with 16 virtual functions each, on a tree whose kernel reacts.

What is measured is a module's ``main()``: arguments in, JSON out, without the start of Python. It is the time of the processor, because a
module waits for nothing here and what else the machine does is not its cost.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import time
import typing as t
from pathlib import Path

from ansible.module_utils.testing import patch_module_args

from tests.benchmark.table import Row
from tests.hosts import kernel_vgpu, tree
from tests.hosts.kernel import ReactingHost

RUNS = 5
ADDRESSES = [f"0000:{bus:02x}:00.0" for bus in range(0x21, 0x21 + 8 * 16, 16)]
WISH = [{"address": address, "types": [{"type": "A10-1Q", "count": 16}]} for address in ADDRESSES]
assert kernel_vgpu.SIZES, "what a kernel with vGPUs does is registered when it is imported"


def call(name: str, host: ReactingHost | None, **params: t.Any) -> tuple[float, dict[str, t.Any]]:
    """Run a module; the seconds that it took, and its result."""
    module = importlib.import_module(f"ansible_collections.gpufleet.kubevirt.plugins.modules.{name}")
    kept, printed = module.Host, io.StringIO()
    module.Host = (lambda root: host) if host else kept
    try:
        with patch_module_args({**params, "_ansible_remote_tmp": "/tmp"}), contextlib.redirect_stdout(printed):
            started = time.process_time()
            with contextlib.suppress(SystemExit):
                module.main()
            took = time.process_time() - started
    finally:
        module.Host = kept
    result = json.loads(printed.getvalue().strip().splitlines()[-1])
    if result.get("failed"):
        raise SystemExit(f"Measuring {name}: it failed: {result['msg']}")
    return took, result


def host(root: Path, vfs: int, backend: str = "mdev") -> ReactingHost:
    gpus = [tree.Gpu(address, driver="nvidia", vfs=vfs, vfs_total=16, backend=backend) for address in ADDRESSES]
    tree.build(root, tree.HostSpec(gpus, cmdline="intel_iommu=on"))
    (root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    return ReactingHost(str(root))


def expect(what: str, found: t.Any, wanted: t.Any) -> None:
    """A measurement of something that did not happen is worth nothing."""
    if found != wanted:
        raise SystemExit(f"Measuring {what}: {found}, but {wanted} were expected.")


def rows(scratch: Path) -> t.Iterator[Row]:
    root = scratch / "host"
    host(root, 16)
    samples = []
    for _run in range(RUNS):
        took, result = call("gpu_node_info", None, host_root=str(root))
        expect("gpu_node_info", sum(gpu["sriov"]["enabled"] for gpu in result["gpus"]), 128)
        samples.append(took)
    yield Row("gpu_node_info, 8 GPUs x 16 VFs", samples, "s", 0.5)

    samples = []
    for _run in range(RUNS):
        took, result = call("kernel_cmdline", None, host_root=str(root), present=["intel_iommu=on"])
        expect("kernel_cmdline", result["changed"], False)
        samples.append(took)
    yield Row("kernel_cmdline, converged", samples, "s")

    first, second = [], []
    for _run in range(RUNS):
        reacting = host(root, 0)
        devices = [{"address": address, "count": "16"} for address in ADDRESSES]
        for samples, changes in ((first, len(ADDRESSES)), (second, 0)):
            took, result = call("sriov_vfs", reacting, host_root=str(root), devices=devices, method="sysfs")
            expect("sriov_vfs", len(result["changes"]), changes)
            samples.append(took)
    yield Row("sriov_vfs, 128 VFs made", first, "s")
    yield Row("sriov_vfs, converged", second, "s")

    for backend in ("mdev", "vendor_vfio"):
        first, second = [], []
        for _run in range(RUNS):
            reacting = host(root, 16, backend)
            for samples, changes in ((first, 128), (second, 0)):
                took, result = call("mdev_create", reacting, host_root=str(root), gpus=WISH)
                expect(f"mdev_create ({backend})", len(result["changes"]), changes)
                samples.append(took)
        yield Row(f"mdev_create ({backend}), 128 vGPUs made", first, "s", 1.5)
        yield Row(f"mdev_create ({backend}), converged", second, "s", 0.5)
