# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a real kernel shows, for the trees that stand for hosts: taken from the recordings of the kernel suite's guests.

A tree gets of each PCI function all that the kernel shows of one of its kind, with :func:`varied` what is another on a host of a fleet:

=======================================  ========================================================================================
ids, class, and with them ``modalias``   the guest's ports, disks and network cards are QEMU's
addresses, IOMMU groups                  two sockets with a GPU each; NVIDIA's virtual functions begin at function 4 and follow each
                                         other, those of the guest's device (igb) are 2 apart from 0x80 on
``numa_node``                            the guest has one node and says none
``resource``                             sizes of a GPU's BARs are those of the board
``sriov_*``                              an A10 has 16 virtual functions or more, the guest's device 8
=======================================  ========================================================================================

The rest of a tree (kernel and boot files of an Ubuntu host, firmware, processes) is written in ``tree.py``: a guest is neither.
"""

from __future__ import annotations

import functools
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


@functools.cache
def recording() -> recorder.Recording:  # type: ignore[name-defined]
    return recorder.load(str(RECORDED / "guest-vgpu.json"))


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
