# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The guest's disk: Debian with its stock kernel, sshd, Python, GRUB, and the two test modules. It has no network but this machine's loopback."""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
from pathlib import Path

from tests.kernel import disk
from tests.kernel.archive import SUITE, Archive, call, keyring, sources
from tests.kernel.cached import HERE, KernelLabError, key, made
from tests.kernel.furnish import furnish
from tests.kernel.programs import KERNEL, Programs, Versions, modules, tools

SIZE = 2047 << 20  # bytes; sparse, about 550 MB of it used
PACKAGES = (
    "systemd-sysv", "udev", "dbus", "openssh-server", "python3-minimal", "python3", "kmod", "iproute2", "pciutils", "initramfs-tools",
    "busybox", "lz4", "zstd", "grub-pc-bin", "grub2-common", "mdevctl", "driverctl", KERNEL,
)  # fmt: skip
#: Drivers that no guest has a device for. cec is one that nouveau could not be loaded without.
_DRIVERS = "/lib/modules/*/kernel"
EXCLUDED = (
    "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*",
    f"{_DRIVERS}/drivers/gpu/drm/amd/*", f"{_DRIVERS}/drivers/net/wireless/*", f"{_DRIVERS}/drivers/media/*", f"{_DRIVERS}/drivers/infiniband/*",
    f"{_DRIVERS}/drivers/scsi/*", f"{_DRIVERS}/sound/soc/*",
)  # fmt: skip
INCLUDED = (f"{_DRIVERS}/drivers/media/cec/*",)


@dataclasses.dataclass(frozen=True)
class Image:
    directory: Path
    digest: str

    @property
    def disk(self) -> Path:
        return self.directory / "disk.raw"

    @property
    def identity(self) -> Path:
        """The private key that lets us in."""
        return self.directory / "id_ed25519"


def image_digest(found: Versions) -> str:
    inputs = ("image.py", "furnish.py", "disk.py", "devices.py", "guest", "modules", "programs.py")
    return key(found.kernel, *(HERE / name for name in inputs))


def image(archive: Archive, found: Versions) -> Image:
    digest = image_digest(found)

    def make(directory: Path) -> None:
        if os.geteuid() != 0:
            raise KernelLabError(
                "Making the guest's disk: not root. Packages are configured in a chroot and files get their owners: become root."
            )
        programs, compiled = tools(archive, found), modules(archive, found)
        _build(archive, programs, compiled, directory)

    return Image(made("image", digest, make, f"Making the guest's disk with kernel {found.release}"), digest)


def _build(archive: Archive, programs: Programs, compiled: Path, directory: Path) -> None:
    identity = directory / "id_ed25519"
    call("Making a key for the guest", "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", identity)
    copy = f'cp -r {shlex.quote(str(HERE / "guest"))}/. "$1/"'
    root = directory / "root"
    options = ["--quiet", "--mode=root", "--variant=minbase", "--format=directory", "--skip=check/empty", f"--keyring={keyring()}"]
    options += [f"--aptopt={line}" for line in ('Acquire::Languages "none"', 'Apt::Install-Recommends "false"', *archive.proxies())]
    options += [f"--dpkgopt=path-exclude={path}" for path in EXCLUDED] + [f"--dpkgopt=path-include={path}" for path in INCLUDED]
    # Our files come before the packages whose settings they are: the large initrd that others would make is then never made.
    options += ["--dpkgopt=force-confold", f"--essential-hook={copy}", f"--include={','.join(PACKAGES)}"]
    lines = [line for line in sources() if "backports" not in line]
    environment = {**os.environ, "PATH": programs.path, "TMPDIR": str(directory), "LC_ALL": "C.UTF-8"}
    call("Making the guest's disk", *programs.perl("mmdebstrap"), *options, SUITE, root, *lines, env=environment)
    furnish(root, identity.with_suffix(".pub"), compiled)
    disk.file_system(root, directory / "disk.raw", SIZE, programs.command("mke2fs"))
    disk.boot_loader(root, directory / "disk.raw")
    shutil.rmtree(root)
