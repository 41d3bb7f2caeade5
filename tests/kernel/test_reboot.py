# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is persisted is there again after a reboot, before a kubelet may start."""

from __future__ import annotations

import errno
import json
import os

from tests.kernel.devices import SECOND_GPU, SRIOV_GPU
from tests.kernel.guest import Guest
from tests.kernel.playbooks import Result, task, tasks, three_runs

#: Stands where a kubelet would: notes what it finds when it is started.
KUBELET = """\
[Unit]
Description=Stand-in for the kubelet
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/python3 /usr/local/bin/kubelet
[Install]
WantedBy=multi-user.target
"""
#: What it runs only looks. A unit whose program names a GPU and one of these attributes is taken for somebody else's way to make devices at boot.
LOOK = f"""\
import glob, json, os

divided, bound = "{SRIOV_GPU}", "{SECOND_GPU}"

def text(path):
    try:
        return open(path).read().strip()
    except OSError:
        return None

devices = "/sys/bus/pci/devices/"
found = dict(
    virtual_functions=text(devices + divided + "/sriov" + "_numvfs"),
    mdevs=sorted(text(path + "/mdev_type/name") for path in glob.glob("/sys/bus/mdev/devices/*")),
    identities=sorted(os.path.basename(path) for path in glob.glob("/sys/bus/mdev/devices/*")),
    vendor=sorted(filter(None, (text(path) for path in glob.glob(devices + divided + "/virtfn*/nvidia/current" + "_vgpu_type")))),
    driver=os.path.basename(os.readlink(devices + bound + "/driver")) if os.path.exists(devices + bound + "/driver") else None,
)
json.dump(found, open("/run/kubelet-found", "w"))
"""
TYPES = [{"type": "A10-4Q", "count": 3}]
WISHES = [
    task("sriov_vfs", devices=[{"address": SRIOV_GPU, "count": "4"}], method="sysfs", persist="boot"),
    task("mdev_create", gpus=[{"address": SRIOV_GPU, "types": TYPES}], persist="boot"),
    task("vfio_bind", devices=[{"address": SECOND_GPU}], persist="boot"),
]


def rebooted(guest: Guest) -> Result:
    """What the stand-in for the kubelet found when it was started after a reboot."""
    guest.write("/usr/local/bin/kubelet", LOOK)
    guest.write("/etc/systemd/system/kubelet.service", KUBELET)
    guest.run("systemctl daemon-reload; systemctl enable -q kubelet.service")
    guest.reboot()
    assert guest.run("systemctl is-active kubelet.service").strip() == "active"
    assert guest.run("systemctl show -p Result --value gpufleet-devices.service").strip() == "success", guest.run(
        "journalctl -b -u gpufleet-devices"
    )
    found: Result = json.loads(guest.read("/run/kubelet-found") or "null")
    return found


def persisted(guest: Guest) -> None:
    changed(guest, True)


def nothing_is_left_to_do(guest: Guest) -> None:
    changed(guest, False)


def changed(guest: Guest, expected: bool) -> None:
    run = tasks(guest, *WISHES)
    assert run.outcomes == ["ok"] * 3 and [result["changed"] for result in run.results] == [expected] * 3, run.output


def test_binding_virtual_functions_and_mediated_devices_are_back_before_a_kubelet_starts(on: Guest) -> None:
    for wish in WISHES:
        ((name, parameters),) = wish.items()
        three_runs(on, name.rpartition(".")[2], **parameters)
    before = on.vgpus()
    assert rebooted(on) == {
        "virtual_functions": "4",
        "mdevs": ["NVIDIA A10-4Q"] * 3,
        "identities": sorted(before),  # the same machine gives the same identities
        "vendor": [],
        "driver": "vfio-pci",
    }
    nothing_is_left_to_do(on)


def test_binding_virtual_functions_and_vgpus_of_the_vendor_framework_are_back_before_a_kubelet_starts(on: Guest) -> None:
    on.write("/etc/modprobe.d/nvidia.conf", "options nvidia framework=vendor\n")
    on.run("modprobe -r nvidia; modprobe nvidia")
    persisted(on)
    assert rebooted(on) == {
        "virtual_functions": "4",
        "mdevs": [],
        "identities": [],
        "vendor": ["0", "593", "593", "593"],
        "driver": "vfio-pci",
    }
    nothing_is_left_to_do(on)


def test_a_kubelet_starts_late_but_starts_if_devices_do_not_come_and_the_unit_says_why(on: Guest) -> None:
    persisted(on)
    # At the next boot the driver makes no vGPU, and the unit does not wait five minutes for it.
    on.write("/etc/modprobe.d/nvidia.conf", "options nvidia create_error=5\n")
    on.run("sed -i 's/boot.py$/boot.py --wait 10/' /etc/systemd/system/gpufleet-devices.service; systemctl daemon-reload")
    on.write("/usr/local/bin/kubelet", LOOK)
    on.write("/etc/systemd/system/kubelet.service", KUBELET)
    on.run("systemctl daemon-reload; systemctl enable -q kubelet.service")
    on.reboot()
    assert on.run("systemctl is-active kubelet.service").strip() == "active"
    assert on.run("systemctl show -p Result --value gpufleet-devices.service").strip() == "exit-code"
    journal = on.run("journalctl -b -u gpufleet-devices.service")
    assert "missing: vGPU" in journal and os.strerror(errno.EIO) in journal, journal
    assert json.loads(on.read("/run/kubelet-found") or "null")["virtual_functions"] == "4"
