# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""kernel_modules: what loads at boot and what does not, through modprobe and the initramfs."""

from __future__ import annotations

from tests.kernel.devices import NIC
from tests.kernel.guest import Guest
from tests.kernel.playbooks import module, three_runs


def loaded(guest: Guest) -> set[str]:
    return {line.split()[0] for line in (guest.read("/proc/modules") or "").splitlines()}


def test_a_blocked_module_stays_out_even_if_the_initramfs_had_it(on: Guest) -> None:
    on.run("echo igb >> /etc/initramfs-tools/modules; update-initramfs -u -k $(uname -r)", timeout=600)
    assert "igb" in loaded(on) and "vfio_pci" not in loaded(on) and on.driver(NIC) == "igb"
    wish = {"load": ["vfio-pci"], "block": ["igb"]}
    three_runs(on, "kernel_modules", **wish)
    on.reboot()
    assert "igb" not in loaded(on) and "vfio_pci" in loaded(on) and on.driver(NIC) is None
    # The initramfs from before is kept until a boot has shown the new one to work.
    module(on, "kernel_modules", **wish)
    assert not module(on, "kernel_modules", **wish)["changed"]
