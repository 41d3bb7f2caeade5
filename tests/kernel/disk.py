# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A bootable disk from a directory: an MBR, one ext4 file system, GRUB. No loop device, no mount, no machine that runs."""

from __future__ import annotations

import os
import struct
import subprocess
import tempfile
import typing as t
from pathlib import Path

SECTOR = 512
#: First sector of the file system. GRUB's core image lies in the gap before it.
START = 2048
#: Known, so that GRUB's core image can look for it.
UUID = "1ab0c0de-0000-4000-8000-00000000beef"
_CORE = ("biosdisk", "part_msdos", "ext2", "search_fs_uuid", "normal", "linux", "serial", "terminal", "configfile", "echo")


def file_system(root: Path, disk: Path, size: int, mke2fs: t.Sequence[str]) -> None:
    """An ext4 file system of ``size`` bytes with the content of ``root``, at its place on the disk."""
    part = disk.with_suffix(".part")
    with open(part, "wb") as file:
        file.truncate(size)
    # Without a journal: what a guest loses when it is killed is thrown away with it.
    options = ["-q", "-t", "ext4", "-O", "^has_journal", "-E", "lazy_itable_init=1,root_owner=0:0", "-m", "0", "-L", "labroot", "-U", UUID]
    subprocess.run([*mke2fs, *options, "-d", str(root), str(part)], check=True, stdin=subprocess.DEVNULL)
    with open(disk, "wb") as file:
        file.truncate(START * SECTOR + size)
    _copy_sparse(part, disk, START * SECTOR)
    part.unlink()


def _copy_sparse(source: Path, target: Path, at: int) -> None:
    """Copy only what is not a hole."""
    with open(source, "rb") as reading, open(target, "rb+") as writing:
        end = os.fstat(reading.fileno()).st_size
        place = 0
        while place < end:
            try:
                data = os.lseek(reading.fileno(), place, os.SEEK_DATA)
            except OSError:  # nothing but a hole up to the end
                return
            place = os.lseek(reading.fileno(), data, os.SEEK_HOLE)
            os.lseek(reading.fileno(), data, os.SEEK_SET)
            os.lseek(writing.fileno(), at + data, os.SEEK_SET)
            left = place - data
            while left:
                chunk = os.read(reading.fileno(), min(left, 1 << 20))
                os.write(writing.fileno(), chunk)
                left -= len(chunk)


def partition_table(sectors: int) -> bytes:
    """Bytes 440 to 511 of an MBR: a disk signature and one active Linux partition from :data:`START` to the end."""
    unused_chs = b"\xfe\xff\xff"
    entry = struct.pack("<B3sB3sII", 0x80, unused_chs, 0x83, unused_chs, START, sectors - START)
    return struct.pack("<IH", 0x1AB0C0DE, 0) + entry + bytes(48) + b"\x55\xaa"


def boot_loader(root: Path, disk: Path) -> None:
    """Put GRUB's boot sector and core image onto the disk, made by the guest's own GRUB so that they fit its modules."""
    with tempfile.TemporaryDirectory(dir=root / "tmp") as scratch:
        inside = Path("/tmp") / Path(scratch).name
        (Path(scratch) / "early.cfg").write_text(f"search.fs_uuid {UUID} root\nset prefix=($root)/boot/grub\n")
        command = [
            "grub-mkimage",
            "-O",
            "i386-pc",
            "-c",
            str(inside / "early.cfg"),
            "-p",
            "/boot/grub",
            "-o",
            str(inside / "core.img"),
            *_CORE,
        ]
        subprocess.run(["chroot", str(root), *command], check=True, stdin=subprocess.DEVNULL)
        core = (Path(scratch) / "core.img").read_bytes()
    if len(core) > (START - 1) * SECTOR:
        raise ValueError(f"GRUB's core image has {len(core)} bytes, more than fit before the file system")
    boot = (root / "usr/lib/grub/i386-pc/boot.img").read_bytes()[:440]
    with open(disk, "rb+") as file:
        sectors = os.fstat(file.fileno()).st_size // SECTOR
        file.write(boot + partition_table(sectors) + core)
