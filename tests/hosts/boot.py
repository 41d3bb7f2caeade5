# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Host trees with other boot loaders than the GRUB of Debian that :mod:`tests.hosts.tree` builds: one builder per boot loader."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.hosts import tree

MACHINE = "5d1a3c0f6e4b4c0f9a53ce1f2b7d9e10"
#: The kernels of these hosts, newest first; the newest runs.
RELEASES = (tree.KERNEL, "5.15.0-100-generic")
ROOT = "root=UUID=4f5f1b8e ro"


def write(root: Path, path: str, text: str) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def _bare(root: Path) -> None:
    """A host without any boot loader's files, whose kernels have their headers."""
    tree.build(root, tree.HostSpec())
    for path in ("etc/default", "boot"):
        shutil.rmtree(root / path)
    (root / "usr/sbin/update-grub").unlink()
    write(root, "etc/machine-id", f"{MACHINE}\n")
    for release in RELEASES:
        write(root, f"lib/modules/{release}/vmlinuz", "kernel")
        write(root, f"lib/modules/{release}/build/Makefile", "")


def grub(root: Path, line: str) -> None:
    """Debian's GRUB, with ``line`` in GRUB_CMDLINE_LINUX."""
    tree.build(root, tree.HostSpec(cmdline=line, cmdline_default=""))
    write(root, f"lib/modules/{tree.KERNEL}/build/Makefile", "")


def grubby(root: Path, line: str, kernelopts: bool = False) -> None:
    """Enterprise Linux: two entries and the three places that new kernels take their arguments from."""
    _bare(root)
    write(root, "etc/os-release", 'ID="rhel"\nVERSION_ID="9.4"\n')
    for program in ("usr/sbin/grubby", "usr/bin/grub2-editenv"):
        write(root, program, "")
    options = "$kernelopts" if kernelopts else f"{ROOT} {line}".strip()
    for release in RELEASES:
        write(root, f"boot/vmlinuz-{release}", "kernel")
        write(root, f"boot/initramfs-{release}.img", "initrd")
        write(
            root,
            f"boot/loader/entries/{MACHINE}-{release}.conf",
            f"title Lab Linux ({release})\nversion {release}\nlinux /vmlinuz-{release}\n"
            f"initrd /initramfs-{release}.img $tuned_initrd\noptions {options} $tuned_params\ngrub_users $grub_users\n",
        )
    block = f"# GRUB Environment Block\nsaved_entry={MACHINE}-{RELEASES[0]}\n"
    block += f"kernelopts={ROOT} {line}\n" if kernelopts else ""
    write(root, "boot/grub2/grubenv", block.ljust(1024, "#"))
    write(root, "etc/default/grub", f'GRUB_TIMEOUT=5\nGRUB_DEFAULT=saved\nGRUB_CMDLINE_LINUX="{line}"\nGRUB_ENABLE_BLSCFG=true\n')
    if not kernelopts:
        write(root, "etc/kernel/cmdline", f"{ROOT} {line}\n")
    write(root, "proc/cmdline", f"BOOT_IMAGE=(hd0,gpt2)/vmlinuz-{RELEASES[0]} {ROOT} {line}\n")


def systemd_boot(root: Path, line: str) -> None:
    """systemd-boot with its entries on the EFI system partition."""
    _bare(root)
    write(root, "usr/bin/kernel-install", "")
    write(root, "efi/loader/loader.conf", "timeout 3\n")
    for release in RELEASES:
        directory = f"{MACHINE}/{release}"
        write(root, f"efi/{directory}/linux", "kernel")
        write(root, f"efi/{directory}/initrd", "initrd")
        write(
            root,
            f"efi/loader/entries/{MACHINE}-{release}.conf",
            f"title      Lab\nversion    {release}\nmachine-id {MACHINE}\nsort-key   lab\n"
            f"options    {ROOT} {line} systemd.machine_id={MACHINE}\nlinux      /{directory}/linux\ninitrd     /{directory}/initrd\n",
        )
    write(root, "etc/kernel/cmdline", f"{ROOT} {line}\n")
    write(root, "proc/cmdline", f"initrd=\\{MACHINE}\\initrd {ROOT} {line} systemd.machine_id={MACHINE}\n")


BUILDERS = {"grub": grub, "grubby": grubby, "systemd_boot": systemd_boot}


def entry_file(root: Path, release: str = RELEASES[0]) -> Path:
    """The file of a boot entry."""
    return next(root.glob(f"*/loader/entries/*-{release}.conf"))


def snapshot(root: Path) -> dict[str, bytes]:
    """The content of every file of a tree that is not the kernel's, but for what the stand-ins record."""
    skipped = ("proc", "sys", "run", "commands.log", "faults.json")
    files = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(root)): path.read_bytes() for path in files if path.relative_to(root).parts[0] not in skipped}
