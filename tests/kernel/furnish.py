# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a guest's root directory needs beside its packages."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from pathlib import Path

from tests.kernel import devices, disk

ENABLED = ("systemd-networkd", "ssh")
#: What costs time at each boot under emulation and does nothing for a test.
MASKED = (
    "apt-daily-upgrade.timer", "apt-daily.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer",
    "getty@tty1.service", "ldconfig.service", "modprobe@drm.service", "modprobe@efi_pstore.service", "serial-getty@ttyS0.service",
    "sys-kernel-debug.mount", "sys-kernel-tracing.mount", "systemd-binfmt.service", "systemd-journal-catalog-update.service",
    "systemd-networkd-wait-online.service", "systemd-pstore.service", "systemd-random-seed.service", "systemd-timesyncd.service",
    "systemd-update-utmp.service",
)  # fmt: skip


def chroot(root: Path, *command: str) -> None:
    subprocess.run(["chroot", str(root), *command], check=True, stdin=subprocess.DEVNULL)


def ssh(root: Path, public_key: Path) -> None:
    (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
    shutil.copyfile(public_key, root / "root/.ssh/authorized_keys")
    # One host key: the others' handshakes are slow under emulation.
    for kind in ("rsa", "ecdsa"):
        for path in (root / "etc/ssh").glob(f"ssh_host_{kind}_key*"):
            path.unlink()


def test_modules(root: Path, release: str, modules: Path) -> None:
    extra = root / "lib/modules" / release / "extra"
    extra.mkdir()
    for module in modules.glob("*.ko"):
        shutil.copyfile(module, extra / module.name)
    chroot(root, "depmod", release)
    (root / "etc/modprobe.d/lab.conf").write_text(f"options pciidshim map={','.join(devices.identities())}\nblacklist nouveau\n")
    (root / "etc/modules-load.d/lab.conf").write_text("pciidshim\n")


def first_menu(root: Path, release: str) -> str:
    """A grub.cfg in the shape that update-grub makes, which itself needs the real disk."""
    settings = dict(
        line.split("=", 1) for line in (root / "etc/default/grub").read_text().splitlines() if "=" in line and not line.startswith("#")
    )
    arguments = " ".join(shlex.split(settings[key])[0] for key in ("GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT"))
    return f"""serial --unit=0 --speed=115200
terminal_input serial; terminal_output serial
set timeout=0
insmod part_msdos
insmod ext2
search --no-floppy --fs-uuid --set=root {disk.UUID}
menuentry 'Debian' {{
        linux /boot/vmlinuz-{release} root=UUID={disk.UUID} ro {arguments}
        initrd /boot/initrd.img-{release}
}}
"""


def furnish(root: Path, public_key: Path, modules: Path) -> None:
    release = max(path.name for path in (root / "lib/modules").iterdir())
    ssh(root, public_key)
    chroot(root, "systemctl", "enable", "-q", *ENABLED)
    chroot(root, "systemctl", "mask", "-q", *MASKED)
    test_modules(root, release, modules)
    shutil.copytree(root / "usr/lib/grub/i386-pc", root / "boot/grub/i386-pc", dirs_exist_ok=True)
    (root / "boot/grub/grub.cfg").write_text(first_menu(root, release))
    for place in ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "var/lib/apt/lists"):
        shutil.rmtree(root / place, ignore_errors=True)
