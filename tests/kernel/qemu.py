# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One QEMU process: always emulated, so that it is the same everywhere, and never outliving the process that started it."""

from __future__ import annotations

import dataclasses
import socket
import subprocess
import time
from pathlib import Path

from tests.kernel.cached import KernelLabError
from tests.kernel.monitor import Monitor
from tests.kernel.programs import Programs
from tests.tools.children import die_with_parent

#: Two processors make a boot a third faster than one. A snapshot loads only into the same machine.
PROCESSORS, MEMORY = 2, 1024
#: Without AVX, which emulation is slow at.
CPU = "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+rdrand"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclasses.dataclass(frozen=True)
class Machine:
    """What a machine is made of, beside its disk. ``iommu`` is the QEMU device, or nothing for a firmware without one."""

    iommu: str
    devices: list[str]

    def arguments(self, disk: Path, base: Path, port: int) -> list[str]:
        # The IOMMU comes before the functions that it translates for.
        iommu = ["-device", self.iommu] if self.iommu else []
        drive = f"if=none,id=root,driver=qcow2,cache.direct=off,cache.no-flush=on,discard=unmap,file.driver=file,file.filename={disk},"
        drive += f"backing.driver=raw,backing.file.driver=file,backing.file.filename={base}"
        return [
            "-machine", "q35", "-m", str(MEMORY), "-smp", str(PROCESSORS), "-nodefaults", "-no-user-config", "-display", "none",
            "-accel", "tcg,thread=multi,tb-size=512", "-cpu", CPU, *iommu,
            "-drive", drive, "-device", "virtio-blk-pci,drive=root,bus=pcie.0,addr=0x2",
            "-netdev", f"user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22",
            "-device", "virtio-net-pci,netdev=n0,bus=pcie.0,addr=0x3,romfile=", "-device", "virtio-rng-pci,bus=pcie.0,addr=0x4",
            *self.devices,
        ]  # fmt: skip


class Qemu:
    """A machine that runs. ``directory`` gets its log, its console and its monitor's socket."""

    def __init__(self, programs: Programs, machine: Machine, disk: Path, base: Path, directory: Path, snapshot: str = "") -> None:
        self.directory = directory
        self.port = free_port()
        self._socket = directory / "monitor"
        arguments = machine.arguments(disk, base, self.port)
        arguments += ["-serial", f"file:{directory}/console.log", "-qmp", f"unix:{self._socket},server=on,wait=off"]
        arguments += ["-loadvm", snapshot] if snapshot else []
        with open(directory / "qemu.log", "wb") as log:
            self._process = subprocess.Popen(
                programs.qemu(*arguments),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=programs.environment,
                start_new_session=True,
                preexec_fn=die_with_parent,  # noqa: PLW1509  # no thread of ours holds a lock at this time
            )
        try:
            self.monitor = self._connect()
        except BaseException:
            self.stop()
            raise

    def _connect(self) -> Monitor:
        deadline = time.monotonic() + 60
        while True:
            self.check()
            try:
                return Monitor(self._socket)
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > deadline:
                    raise KernelLabError(f"Starting QEMU: its monitor did not open within 60 s. See {self.directory}/qemu.log.") from None
                time.sleep(0.05)

    def check(self) -> None:
        """KernelLabError if it has ended."""
        if (code := self._process.poll()) is not None:
            said = (self.directory / "qemu.log").read_text(errors="replace").strip()[-2000:]
            raise KernelLabError(f"Running QEMU: it ended with {code}: {said or 'without a word'}.")

    def console(self) -> str:
        """The end of what the guest has said on its console."""
        try:
            return (self.directory / "console.log").read_text(errors="replace")[-3000:]
        except OSError:
            return ""

    def stop(self) -> None:
        """End it at once: its disk is thrown away."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
