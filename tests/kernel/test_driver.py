# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""host_driver: a driver that the host itself has installed goes through the host's package manager, and VFIO gets the GPUs."""

from __future__ import annotations

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._preflight._verdicts import preflight_verdicts
from tests.kernel.devices import AUDIO, GPU, SECOND_GPU, SRIOV_GPU
from tests.kernel.guest import Guest
from tests.kernel.playbooks import module, three_runs

PACKAGE = "nvidia-driver-580"
#: As NVIDIA's packages do it: the module below the kernel's directory and in the initramfs, settings, and programs. What the guest has of a
#: driver from the start becomes the package's, so that it goes with it.
INSTALL = f"""
set -e
release=$(uname -r)
cd $(mktemp -d)
mkdir -p DEBIAN usr/bin usr/lib/nvidia etc/modprobe.d usr/share/initramfs-tools/modules.d lib/modules/$release/extra
cp /lib/modules/$release/extra/nvidia.ko lib/modules/$release/extra/
cp -a /usr/lib/nvidia/. usr/lib/nvidia/
echo nvidia > usr/share/initramfs-tools/modules.d/nvidia
echo 'blacklist nouveau' > etc/modprobe.d/nvidia-graphics-drivers.conf
echo /etc/modprobe.d/nvidia-graphics-drivers.conf > DEBIAN/conffiles
printf '#!/bin/sh\\necho no devices\\n' > usr/bin/nvidia-smi
printf 'Package: {PACKAGE}\\nVersion: 580.95.05-1\\nArchitecture: amd64\\nMaintainer: nobody\\nDescription: stand-in\\n' > DEBIAN/control
printf '#!/bin/sh\\nset -e\\ndepmod\\nupdate-initramfs -u\\n' | tee DEBIAN/postinst > DEBIAN/postrm
chmod 755 DEBIAN/postinst DEBIAN/postrm usr/bin/nvidia-smi
dpkg-deb --build . /tmp/driver.deb
dpkg --install /tmp/driver.deb
"""
IN_THE_IMAGE = "lsinitramfs /boot/initrd.img-$(uname -r) | grep -c /nvidia.ko || true"


def verdict(guest: Guest, **more: list[str]) -> str:
    """What preflight says of the driver, if the host is to hand its GPUs to VMs."""
    judged = preflight_verdicts(module(guest, "gpu_node_info"), intent={"host": "guest", "workload": "vm-passthrough"}, **more)
    return str(next(rule["verdict"] for rule in judged["rules"] if rule["id"] == "driver_on_host"))


def test_a_driver_that_was_left_behind_goes_and_vfio_has_the_gpus_after_one_reboot(on: Guest) -> None:
    on.run(INSTALL, timeout=600)
    assert on.drivers([GPU, SECOND_GPU]) == {GPU: "nvidia", SECOND_GPU: "nvidia"} and on.run(IN_THE_IMAGE).strip() == "1"
    assert (verdict(on), verdict(on, fixers=["host_driver"])) == ("fail", "will_fix")

    done = three_runs(on, "host_driver")
    assert f"package {PACKAGE}" in [change["target"] for change in done["changes"]] and done["reboot_required"]
    module(on, "kernel_modules", load=["vfio-pci"], block=["nouveau"])
    three_runs(on, "vfio_bind", devices=[{"vendor_device": "10DE:2236"}], persist="boot")
    on.reboot()
    assert on.drivers([GPU, AUDIO, SRIOV_GPU, SECOND_GPU]) == dict.fromkeys([GPU, AUDIO, SRIOV_GPU, SECOND_GPU], "vfio-pci")
    assert not any(line.startswith("nvidia ") for line in (on.read("/proc/modules") or "").splitlines())
    assert on.run(IN_THE_IMAGE).strip() == "0" and verdict(on) == "pass"
