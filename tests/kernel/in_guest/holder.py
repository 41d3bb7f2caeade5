# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run in a guest: hold a device as a virtual machine does, and say so.

python3 holder.py ADDRESS SECONDS     opens the device through its IOMMU group (VFIO type 1), and keeps it so long
python3 holder.py ADDRESS SECONDS hidden   the same, with the open files in flight over a socket, where nobody who looks into /proc sees them
python3 holder.py ADDRESS viable      only says whether the group is viable, and whether the device can be opened

The device is a PCI function or an mdev. Numbers: include/uapi/linux/vfio.h.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import sys
import time

SET_IOMMU, GROUP_STATUS, SET_CONTAINER, DEVICE_FD = 0x3B66, 0x3B67, 0x3B68, 0x3B6A
TYPE1, VIABLE = 1, 1


def main(address, seconds, hidden=""):
    bus = "mdev" if "-" in address else "pci"
    number = os.path.basename(os.readlink(f"/sys/bus/{bus}/devices/{address}/iommu_group"))
    container = os.open("/dev/vfio/vfio", os.O_RDWR)
    group = os.open("/dev/vfio/" + number, os.O_RDWR)
    status = bytearray(struct.pack("II", 8, 0))
    fcntl.ioctl(group, GROUP_STATUS, status)
    viable = bool(struct.unpack("II", status)[1] & VIABLE)
    print("viable" if viable else "not viable", flush=True)
    if not viable:
        return
    fcntl.ioctl(group, SET_CONTAINER, struct.pack("i", container))
    fcntl.ioctl(container, SET_IOMMU, TYPE1)
    device = fcntl.ioctl(group, DEVICE_FD, bytearray(address.encode() + b"\0"))
    ends = socket.socketpair()
    if hidden:
        socket.send_fds(ends[0], [b"held"], [container, group, device])
        for descriptor in (container, group, device):
            os.close(descriptor)
    print("open", flush=True)
    if seconds != "viable":
        time.sleep(float(seconds))


main(*sys.argv[1:])
