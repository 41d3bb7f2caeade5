# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the guest machines are made of: QEMU's devices, and which hardware's identity each function bears.

All devices of :func:`snapshot_machine` have migration state, so that a snapshot keeps them whole (pci-testdev, edu and nvme have none).
``igb`` is the SR-IOV device: 7 VFs at +0x80, stride 2. ``ivshmem-plain`` gives a GPU its large 64-bit BAR 2.
"""

from __future__ import annotations

#: address -> identity as vendor:device:class:subsystem[:device id of its VFs].
_A10 = "10de:2236:030200:10de:1482"
IDENTITIES = {
    "0000:01:00.0": _A10,
    "0000:01:00.1": "10de:1aef:040300:10de:1482",
    "0000:02:00.0": f"{_A10}:2236",
    "0000:03:00.0": "10de:1eb8:030200:10de:12a2",
    "0000:04:00.0": _A10,
    "0000:07:01.0": "10de:27b8:030200:10de:16ca",
}
#: A GPU and its audio function, in one IOMMU group.
GPU, AUDIO = "0000:01:00.0", "0000:01:00.1"
#: A GPU with SR-IOV: an A10, whose VFs are the parents of its vGPUs.
SRIOV_GPU = "0000:02:00.0"
#: A GPU without SR-IOV: a T4, itself the parent of its vGPUs.
OLD_GPU = "0000:03:00.0"
#: A second GPU of the first one's model, alone in its group.
SECOND_GPU = "0000:04:00.0"
#: A network card with SR-IOV and its real driver.
NIC = "0000:05:00.0"
#: A GPU behind a bridge without ACS, and the device of somebody else that therefore shares its group.
BRIDGED_GPU, NEIGHBOUR = "0000:07:01.0", "0000:07:02.0"


def identities() -> list[str]:
    """The argument of the module pciidshim."""
    return [f"{address}={identity}" for address, identity in IDENTITIES.items()]


def _port(number: int, options: str = "") -> list[str]:
    return ["-device", f"pcie-root-port,id=rp{number},bus=pcie.0,chassis={number},slot={number},addr=0x1{number}.0{options}"]


def _memory(number: int, where: str, size: str) -> list[str]:
    return [
        "-object",
        f"memory-backend-ram,id=mem{number},size={size}",
        "-device",
        f"ivshmem-plain,master=on,memdev=mem{number},bus={where}",
    ]


def _nic(number: int, where: str) -> list[str]:
    return ["-netdev", f"user,id=n{number},restrict=on", "-device", f"igb,bus={where},netdev=n{number},mac=52:54:00:aa:00:0{number}"]


def snapshot_machine() -> list[str]:
    """QEMU 8.0 or newer."""
    return [
        *_port(0), *_memory(0, "rp0,addr=0.0,multifunction=on", "64M"), "-device", "ich9-intel-hda,bus=rp0,addr=0.1,multifunction=on",
        *_port(1), *_nic(1, "rp1"),
        *_port(2), *_memory(2, "rp2", "16M"),
        *_port(3), *_memory(3, "rp3", "16M"),
        *_port(4), *_nic(2, "rp4"),
        *_port(5), "-device", "pcie-pci-bridge,id=pb0,bus=rp5", *_memory(5, "pb0,addr=1.0", "16M"), *_memory(6, "pb0,addr=2.0", "16M"),
    ]  # fmt: skip


def plain_machine() -> list[str]:
    """QEMU 7.2, which has no igb: as far as it goes the same, without the SR-IOV GPU and the network card."""
    return [
        *_port(0), *_memory(0, "rp0,addr=0.0,multifunction=on", "64M"), "-device", "ich9-intel-hda,bus=rp0,addr=0.1,multifunction=on",
        *_port(1), *_memory(1, "rp1", "16M"),
        *_port(2), *_memory(2, "rp2", "16M"),
        *_port(3), *_memory(3, "rp3", "16M"),
    ]  # fmt: skip
