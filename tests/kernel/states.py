# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The states that tests start from, each a snapshot of a booted guest: memory, devices and disk.

=======  ==========================================================================================
nofw     the firmware describes no IOMMU
off      it does, and the kernel is told ``intel_iommu=off``
on       it does, and the kernel is told ``intel_iommu=on iommu=pt``
=======  ==========================================================================================
"""

from __future__ import annotations

import functools
import shutil
import tempfile
from pathlib import Path

from tests.kernel import devices
from tests.kernel.archive import Archive, call
from tests.kernel.cached import HERE, is_made, key, made
from tests.kernel.guest import Guest
from tests.kernel.image import Image, image, image_digest
from tests.kernel.programs import Programs, Versions, stock_qemu, tools, versions
from tests.kernel.qemu import Machine, Qemu

SNAPSHOT = "base"
#: The words of the kernel's line that tell the states apart, as the image has them.
OFF, ON = "intel_iommu=off", "intel_iommu=on iommu=pt"
INTEL = Machine("intel-iommu,intremap=on", devices.snapshot_machine())
NO_IOMMU = Machine("", devices.snapshot_machine())
AMD = Machine("amd-iommu,intremap=on", devices.plain_machine())
STATES = {"nofw": NO_IOMMU, "off": INTEL, "on": INTEL}


class Lab:
    """Everything that guests are started from, made when it is first asked for. Guests' disks and logs are below ``directory``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._archive = Archive()

    @functools.cached_property
    def versions(self) -> Versions:
        found = versions(self._archive)
        # If something is to be built, what the archive has now is what counts.
        return found if is_made("image", image_digest(found)) else versions(self._archive, fresh=True)

    @functools.cached_property
    def image(self) -> Image:
        return image(self._archive, self.versions)

    @functools.cached_property
    def programs(self) -> Programs:
        return tools(self._archive, self.versions)

    def start(self, state: str) -> Guest:
        """A guest in one of the states, from its snapshot, on a disk of its own."""
        snapshot = self._snapshot(state)
        directory = self._directory(state)
        disk = directory / "disk.qcow2"
        shutil.copyfile(snapshot, disk)
        guest = Guest(Qemu(self.programs, STATES[state], disk, self.image.disk, directory, SNAPSHOT), self.image.identity)
        return _awaited(guest)

    def start_amd(self) -> Guest:
        """A guest with an AMD IOMMU, booted: QEMU can take no snapshot of it."""
        return self._boot(stock_qemu(self._archive, self.versions), AMD, self._directory("amd"))

    def _directory(self, name: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.directory))

    def _boot(self, programs: Programs, machine: Machine, directory: Path) -> Guest:
        disk = directory / "disk.qcow2"
        base = ["-F", "raw", "-b", str(self.image.disk)]
        call("Making a guest's disk", *self.programs.command("qemu-img", "create", "-q", "-f", "qcow2", *base, str(disk)))
        return _awaited(Guest(Qemu(programs, machine, disk, self.image.disk, directory), self.image.identity))

    def _snapshot(self, state: str) -> Path:
        inputs = [HERE / name for name in ("qemu.py", "devices.py", "states.py")]
        digest = key(self.image.digest, self.versions.qemu, *inputs)

        def make(directory: Path) -> None:
            # A guest that is up already needs one boot less.
            guest = self.start("off") if state == "on" else self._boot(self.programs, STATES[state], directory)
            try:
                if state == "on":
                    # Faster than update-grub, and the same to the boot loader.
                    guest.run(f"sed -i 's/{OFF}/{ON}/' /etc/default/grub /boot/grub/grub.cfg")
                    guest.reboot()
                guest.save(SNAPSHOT)
            finally:
                guest.stop()
            shutil.move(guest.directory / "disk.qcow2", directory / "saved.qcow2")
            for path in directory.iterdir():
                if path.name != "saved.qcow2":
                    path.unlink()

        return made(f"state-{state}", digest, make, f"Booting a guest for the state {state!r}") / "saved.qcow2"


def _awaited(guest: Guest) -> Guest:
    try:
        guest.wait()
    except BaseException:
        guest.stop()
        raise
    return guest
