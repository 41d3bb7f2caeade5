# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What else stands in a host's tree: disks, network interfaces, consoles, processes, and other functions in a GPU's IOMMU group."""

from __future__ import annotations

import os
from pathlib import Path

from tests.hosts import tree


def _real(root: Path, address: str) -> str:
    """The place of a function below the root."""
    link = root / "sys/bus/pci/devices" / address
    return os.path.normpath(os.path.join("sys/bus/pci/devices", os.readlink(link)))


def _write(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def _link(root: Path, path: str, target: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.symlink_to(os.path.relpath(target, os.path.dirname(path)))


def function_beside(root: Path, gpu: str, address: str, vendor: str, device: str, kind: str, driver: str | None) -> None:
    """Another PCI function in the IOMMU group of a GPU."""
    port = os.path.dirname(_real(root, gpu))
    path = tree._function(root, f"{port.removeprefix('sys/devices/')}/{address}", vendor, device, kind, driver)
    link = root / _real(root, gpu) / "iommu_group"
    if link.is_symlink():
        number = os.path.basename(os.readlink(link))
        _link(root, f"sys/kernel/iommu_groups/{number}/devices/{address}", path)
        _link(root, f"{path}/iommu_group", f"sys/kernel/iommu_groups/{number}")


def mounts(root: Path, *lines: str) -> None:
    """The host's mounts (lines of mountinfo beside that of ``/proc``) and its swaps, none."""
    _write(root, "proc/1/mountinfo", "\n".join(["23 28 0:21 / /proc rw - proc proc rw", *lines]) + "\n")
    if not (root / "proc/swaps").exists():
        _write(root, "proc/swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n")


def disk(root: Path, address: str, name: str, number: str) -> str:
    """A block device on a function; its place below the root."""
    return block(root, f"{_real(root, address)}/block/{name}", number)


def block(root: Path, place: str, number: str) -> str:
    _write(root, f"{place}/dev", f"{number}\n")
    (root / place / "holders").mkdir()
    name = os.path.basename(place)
    _link(root, f"sys/class/block/{name}", place)
    _link(root, f"sys/dev/block/{number}", place)
    return place


def holds(root: Path, lower: str, upper: str) -> None:
    """A block device that is made of another one, such as dm-0 of sda."""
    if not (root / "sys/class/block" / upper).exists():
        block(root, f"sys/devices/virtual/block/{upper}", f"253:{upper[-1]}")
    _link(root, f"sys/class/block/{lower}/holders/{upper}", f"sys/devices/virtual/block/{upper}")


def interface(root: Path, address: str, name: str, flags: int = 0x1002) -> None:
    """A network interface on a function; down unless its flags say otherwise."""
    place = f"{_real(root, address)}/net/{name}"
    _write(root, f"{place}/flags", f"{flags:#x}\n")
    _link(root, f"sys/class/net/{name}", place)


def node(root: Path, address: str, place: str, number: str) -> None:
    """A character device on a function, such as ``input/input3/event3``."""
    _write(root, f"{_real(root, address)}/{place}/dev", f"{number}\n")
    _link(root, f"sys/dev/char/{number}", f"{_real(root, address)}/{place}")


def process(root: Path, pid: int, comm: str, *opened: str, cmdline: str = "") -> None:
    """A process that has these open."""
    directory = root / f"proc/{pid}/fd"
    directory.mkdir(parents=True, exist_ok=True)
    _write(root, f"proc/{pid}/comm", f"{comm}\n")
    _write(root, f"proc/{pid}/cmdline", cmdline)
    for number, name in enumerate(opened, 3):
        (directory / str(number)).symlink_to(name)
