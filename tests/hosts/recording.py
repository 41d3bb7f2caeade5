# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a real kernel shows, for the trees that stand for hosts: taken from the recordings of the kernel suite's guests.

A tree gets of each PCI function all that the kernel shows of one of its kind, with another identity (:func:`varied`), and all the rest of a
guest whose IOMMU is in the same state (:func:`machine`). What differs, and why, is in ``variations.py`` and nowhere else.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from pathlib import Path

from tests.hosts.recorder import recorder

RECORDED = Path(__file__).resolve().parent / "recorded"
#: Kind of function -> one of that kind in the guest (``tests/kernel/devices.py``).
KINDS = {
    "host bridge": "0000:00:00.0",
    "disk": "0000:00:02.0",
    "port": "0000:00:10.0",
    "GPU": "0000:01:00.0",
    "audio": "0000:01:00.1",
    "GPU with SR-IOV": "0000:02:00.0",
    "virtual function": "0000:02:10.2",
    "network card": "0000:05:00.0",
}
#: What of a recording is made for each tree: functions, their drivers and groups, and vGPUs.
MADE_PER_TREE = re.compile(r"sys/(bus/pci|bus/mdev|devices/pci|devices/virtual/devlink|kernel/iommu_groups/|class/mdev_bus|class/vfio).*")


@functools.cache
def recording(name: str = "guest-vgpu") -> recorder.Recording:  # type: ignore[name-defined]
    return recorder.load(str(RECORDED / f"{name}.json"))


@dataclasses.dataclass
class Machine:
    """What a recording holds beside PCI functions: files, links and directories by path below the root."""

    files: dict[str, bytes]
    links: dict[str, str]
    directories: set[str]

    def text(self, path: str) -> str:
        return self.files[path].decode()

    def write(self, path: str, text: str | bytes) -> None:
        self.files[path] = text if isinstance(text, bytes) else text.encode()


def machine(name: str) -> Machine:
    """A recording without what is made for each tree; the caller may change it."""
    found = recording(name)
    files = {path: content for path, content in found.files.items() if not MADE_PER_TREE.fullmatch(path)}
    links = {path: target for path, target in found.links.items() if not MADE_PER_TREE.fullmatch(path)}
    return Machine(files, links, {path for path in found.directories if not MADE_PER_TREE.fullmatch(path)})


@functools.cache
def function(kind: str) -> Mapping[str, bytes]:
    """The files in the directory of a function of this kind, by name."""
    found = recording()
    base = f"{found.links[f'sys/bus/pci/devices/{KINDS[kind]}']}/".replace("../../../", "sys/")
    return {
        path.removeprefix(base): content
        for path, content in found.files.items()
        if path.startswith(base) and "/" not in path.removeprefix(base)
    }


def varied(kind: str, vendor: str, device: str, code: str, subsystem: str, node: int) -> dict[str, bytes]:
    """The files of a function of this kind with another identity, at a NUMA node. ``code`` is its class, ``subsystem`` as ``10de:1482``."""
    seen = function(kind)
    maker, _colon, board = subsystem.partition(":")
    alias = f"pci:v0000{vendor.upper()}d0000{device.upper()}sv0000{maker.upper()}sd0000{board.upper()}"
    alias += f"bc{code[:2].upper()}sc{code[2:4].upper()}i{code[4:].upper()}"
    lines = {
        "vendor": f"0x{vendor}",
        "device": f"0x{device}",
        "class": f"0x{code}",
        "subsystem_vendor": f"0x{maker}",
        "subsystem_device": f"0x{board}",
        "modalias": alias,
        "numa_node": f"{node}",
        "driver_override": "(null)",
    }
    return {
        **seen,
        **{name: f"{text}\n".encode() for name, text in lines.items()},
        "config": _config(seen["config"], vendor, device, code, subsystem),
    }


def _config(seen: bytes, vendor: str, device: str, code: str, subsystem: str) -> bytes:
    """The first 64 bytes of configuration space with another identity. A virtual function has none: its ids read as all ones."""
    if seen[:4] == b"\xff" * 4:
        return seen
    found = bytearray(seen)
    found[0:4] = _little(vendor) + _little(device)
    found[9:12] = bytes.fromhex(code)[::-1]
    if not found[14] & 0x7F:  # a bridge has none there
        found[0x2C:0x30] = b"".join(_little(word) for word in subsystem.split(":"))
    return bytes(found)


def _little(word: str) -> bytes:
    return bytes.fromhex(word)[::-1]
