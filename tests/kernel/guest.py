# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A guest as the tests use it: commands and files over SSH, its kernel's view of its devices, reboots, snapshots."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
import typing as t
from pathlib import Path

from tests.kernel.cached import HERE, KernelLabError
from tests.kernel.qemu import Qemu

#: Under emulation, beside other load. A quiet machine needs 20.
BOOT_SECONDS = 300
DEVICES = "/sys/bus/pci/devices"


def differences(before: dict[str, str], after: dict[str, str]) -> dict[str, tuple[str | None, str | None]]:
    """What differs between two states of a guest: path -> (before, after)."""
    return {
        path: (before.get(path), after.get(path)) for path in sorted(before.keys() | after.keys()) if before.get(path) != after.get(path)
    }


class Guest:
    """One running machine, and the way in."""

    def __init__(self, qemu: Qemu, identity: Path) -> None:
        self.qemu = qemu
        self.directory = qemu.directory
        self.identity = identity

    # --- the way in

    @property
    def ssh_options(self) -> list[str]:
        return [
            "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "GlobalKnownHostsFile=/dev/null", "-F", "none",
            "-o", "LogLevel=ERROR", "-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=30", "-o", "ServerAliveInterval=15",
            "-o", "ControlMaster=auto", "-o", "ControlPersist=60", "-o", f"ControlPath={self.directory}/ssh",
        ]  # fmt: skip

    def _ssh(self, *command: str) -> list[str]:
        return ["ssh", *self.ssh_options, "-i", str(self.identity), "-p", str(self.qemu.port), "root@127.0.0.1", *command]

    def hang_up(self) -> None:
        """Close the shared connection: it would not survive a snapshot or a reboot."""
        command = ["ssh", *self.ssh_options, "-O", "exit", "root@127.0.0.1"]
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=30)

    def try_run(self, script: str, stdin: str = "", timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run shell lines in the guest, whatever comes of it."""
        return subprocess.run(self._ssh(script), input=stdin, capture_output=True, text=True, check=False, timeout=timeout)

    def run(self, script: str, stdin: str = "", timeout: float = 120) -> str:
        """Run shell lines in the guest; what they printed."""
        done = self.try_run(f"set -eu; {script}", stdin, timeout)
        assert done.returncode == 0, f"{script!r} ended with {done.returncode} in the guest:\n{done.stdout}{done.stderr}"
        return done.stdout

    def wait(self, not_boot: str = "", seconds: float = BOOT_SECONDS) -> str:
        """Until it answers, with another boot id than the one given; its boot id."""
        deadline = time.monotonic() + seconds
        while True:
            self.qemu.check()
            try:
                done = self.try_run("cat /proc/sys/kernel/random/boot_id; systemctl is-system-running", timeout=45)
                boot, _newline, state = done.stdout.strip().partition("\n")
                if boot and boot != not_boot and state.strip() not in ("starting", "initializing", "stopping", ""):
                    return boot
            except subprocess.TimeoutExpired:
                self.hang_up()
            if time.monotonic() > deadline or "Kernel panic" in self.qemu.console():
                raise KernelLabError(
                    f"Waiting for the guest in {self.directory}: no answer after {seconds:.0f} s. Its console ends with:\n{self.qemu.console()}"
                )
            time.sleep(0.3)

    # --- what the kernel says

    def read(self, path: str) -> str | None:
        """A file of the guest without its last newline, or None if it is not there."""
        done = self.try_run(f"cat {shlex.quote(path)}")
        return done.stdout.rstrip("\n") if done.returncode == 0 else None

    def write(self, path: str, content: str) -> None:
        self.run(f'mkdir -p "$(dirname {shlex.quote(path)})"; cat > {shlex.quote(path)}', stdin=content)

    def names(self, path: str) -> list[str]:
        """The entries of a directory, sorted; none if it is not there."""
        return self.run(f"ls -1A {shlex.quote(path)} 2>/dev/null || true").split()

    def driver(self, address: str) -> str | None:
        """The name of the driver that a function is bound to."""
        return self.run(f"readlink {DEVICES}/{address}/driver || true").strip().rpartition("/")[2] or None

    def drivers(self, addresses: t.Iterable[str]) -> dict[str, str | None]:
        """Those of several functions, in one go."""
        script = "; ".join(f'echo "{address} $(readlink {DEVICES}/{address}/driver || true)"' for address in addresses)
        return {
            line.split()[0]: (line.split()[1].rpartition("/")[2] if len(line.split()) > 1 else None)
            for line in self.run(script).splitlines()
        }

    def iommu_group(self, address: str) -> int:
        return int(self.run(f"readlink {DEVICES}/{address}/iommu_group").strip().rpartition("/")[2])

    def iommu_groups(self) -> int:
        return len(self.names("/sys/kernel/iommu_groups"))

    # --- what only a program in the guest can tell

    def python(self, name: str, *arguments: str) -> str:
        """Run one of the programs for guests, ``in_guest/NAME``; what it printed."""
        return self.run(f"python3 - {shlex.join(arguments)}", stdin=(HERE / "in_guest" / name).read_text())

    def state(self) -> dict[str, str]:
        """All that the collection could change in the guest."""
        found: dict[str, str] = json.loads(self.python("state.py"))
        return found

    def viable(self, address: str) -> bool:
        """What the kernel itself says about a function's IOMMU group, through its /dev/vfio node."""
        return self.python("holder.py", address, "viable").splitlines()[0] == "viable"

    def hand_over(self, address: str) -> None:
        """Give a function to vfio-pci, as an administrator does by hand."""
        path = f"{DEVICES}/{address}"
        self.run(
            f"echo vfio-pci > {path}/driver_override; [ ! -e {path}/driver ] || echo {address} > {path}/driver/unbind; "
            f"echo {address} > /sys/bus/pci/drivers_probe"
        )
        assert self.driver(address) == "vfio-pci"

    def hold(self, address: str, seconds: int = 600, hidden: bool = False) -> int:
        """Have a process hold a device, as a virtual machine does, if need be so that nobody can see it; its pid."""
        self.write("/run/holder.py", (HERE / "in_guest" / "holder.py").read_text())
        unit = f"holder-{address.replace(':', '-')}"
        arguments = f"{address} {seconds} {'hidden' if hidden else ''}"
        self.run(
            f"systemd-run -q --unit={unit} -p StandardOutput=file:/run/{unit} python3 /run/holder.py {arguments}; "
            f"for i in $(seq 100); do ! grep -q open /run/{unit} 2>/dev/null || break; sleep 0.1; done; grep -q open /run/{unit}"
        )
        return int(self.run(f"systemctl show -p MainPID --value {unit}"))

    def holds(self, address: str) -> bool:
        return self.try_run(f"systemctl is-active -q holder-{address.replace(':', '-')}").returncode == 0

    def let_go(self, address: str) -> None:
        self.run(f"systemctl stop holder-{address.replace(':', '-')}")

    def waits_for(self, function: str) -> bool:
        """Does a process wait in this function of the kernel?"""
        return self.try_run(f"grep -l {function} /proc/[0-9]*/wchan 2>/dev/null | grep -q .").returncode == 0

    def until_nobody_waits_for(self, function: str, seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while self.waits_for(function):
            assert time.monotonic() < deadline, f"after {seconds} s a process still waits in {function}"
            time.sleep(0.2)

    def vgpus(self) -> dict[str, str]:
        """The mediated devices that the kernel has: UUID -> name of the type."""
        script = 'for d in /sys/bus/mdev/devices/*; do [ ! -e "$d" ] || echo "$(basename "$d") $(cat "$d/mdev_type/name")"; done'
        return dict(line.split(maxsplit=1) for line in self.run(script).splitlines())

    def virtual_functions(self, address: str) -> list[str]:
        """In the kernel's order."""
        script = f"for i in $(seq 0 63); do readlink {DEVICES}/{address}/virtfn$i || true; done"
        return [line.rpartition("/")[2] for line in self.run(script).splitlines()]

    # --- time

    def reboot(self) -> None:
        """Through the firmware and GRUB; returns when the guest is up again."""
        boot = self.wait()
        self.try_run("systemctl reboot")
        self.hang_up()
        self.wait(not_boot=boot)

    def save(self, name: str) -> None:
        self.run("sync")
        self.hang_up()
        self.qemu.monitor.human(f"savevm {name}")

    def load(self, name: str) -> None:
        """Back to a snapshot: memory, devices and disk."""
        self.hang_up()
        self.qemu.monitor.human(f"loadvm {name}")
        self.wait(seconds=60)

    def stop(self) -> None:
        self.hang_up()
        self.qemu.stop()
