# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run in a guest: print all that the collection could change there, as one JSON object of path and value.

That is every file below /etc, /boot, /usr/local, /root and /var/lib (content, mode, owner, time of change), the attributes of PCI functions
that the kernel lets one write, what is bound to what, and which modules are loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys

FILES = ("/etc", "/boot", "/usr/local", "/usr/lib/systemd", "/usr/lib/udev", "/root", "/var/lib")
#: What services of the guest itself write while we look.
OTHERS = ("/var/lib/systemd", "/root/.ansible", "/var/lib/private")
ATTRIBUTES = ("driver_override", "sriov_numvfs", "nvidia/current_vgpu_type", "nvidia/vgpu_params", "power/control")


def files():
    for top in FILES:
        for place, directories, names in os.walk(top):
            directories[:] = [name for name in directories if os.path.join(place, name) not in OTHERS]
            for path in [place] + [os.path.join(place, name) for name in names]:
                try:
                    seen = os.lstat(path)
                    if stat.S_ISLNK(seen.st_mode):
                        what = os.readlink(path)
                    elif stat.S_ISREG(seen.st_mode):
                        with open(path, "rb") as file:
                            what = hashlib.sha256(file.read()).hexdigest()
                    else:
                        what = ""
                except FileNotFoundError:
                    continue
                yield path, f"{seen.st_mode:o} {seen.st_uid}:{seen.st_gid} {seen.st_mtime_ns} {what}"


def devices():
    for bus in ("pci", "mdev"):
        top = f"/sys/bus/{bus}/devices"
        for name in os.listdir(top) if os.path.isdir(top) else []:
            path = os.path.join(top, name)
            yield path, "there"
            for link in ("driver", "iommu_group", "mdev_type"):
                if os.path.islink(os.path.join(path, link)):
                    yield os.path.join(path, link), os.readlink(os.path.join(path, link))
            for attribute in ATTRIBUTES:
                try:
                    with open(os.path.join(path, attribute)) as file:
                        yield os.path.join(path, attribute), file.read().strip()
                except OSError:
                    pass


def main():
    found = dict(files())
    found.update(devices())
    with open("/proc/modules") as file:
        found["modules"] = " ".join(sorted(line.split()[0] for line in file))
    found["vfio"] = " ".join(sorted(os.listdir("/dev/vfio"))) if os.path.isdir("/dev/vfio") else ""
    with open("/proc/sys/kernel/random/boot_id") as file:
        found["boot"] = file.read().strip()
    json.dump(found, sys.stdout)


main()
