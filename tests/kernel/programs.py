# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Programs that the suite needs, unpacked with all their libraries into the cache, and run from there: nothing is installed."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from pathlib import Path

from tests.kernel.archive import BACKPORTS, BELIEVED, Archive, call
from tests.kernel.cached import HERE, KernelLabError, key, made
from tests.tools import env

#: The guest's kernel. Never the -cloud one: it has neither VFIO_MDEV nor AMD_IOMMU.
KERNEL = "linux-image-amd64"


@dataclasses.dataclass(frozen=True)
class Versions:
    """What the archive has: of the kernel its release (``6.1.0-56-amd64``) and the package's version; of QEMU the backport and the stock one."""

    release: str
    kernel: str
    qemu: str
    qemu_stock: str


def versions(archive: Archive, fresh: bool = False) -> Versions:
    """Asked of the archive at most once a day, and whenever something is built; without the archive, what it said last."""
    remembered = env.cache() / "kernel-versions.json"
    known = None
    if remembered.exists():
        try:
            known = Versions(**json.loads(remembered.read_text()))
        except (ValueError, TypeError):
            remembered.unlink()
    if known and not fresh and time.time() - remembered.stat().st_mtime < BELIEVED:
        return known
    try:
        archive.update()
    except KernelLabError as error:
        if known and not fresh:
            env.say(f"Debian's archive does not answer, so going on with what it had before ({error})")
            return known
        raise
    release = archive.shown(KERNEL, "Depends").split()[0].rstrip(",").removeprefix("linux-image-")
    found = Versions(
        release=release,
        kernel=archive.shown(f"linux-image-{release}", "Version"),
        qemu=archive.shown("qemu-system-x86", "Version", BACKPORTS),
        qemu_stock=archive.shown("qemu-system-x86", "Version"),
    )
    remembered.write_text(json.dumps(dataclasses.asdict(found)))
    return found


class Programs:
    """A directory of unpacked packages. Its programs run on its own C library, so that they run on any Linux."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._libraries = ":".join(str(root / path) for path in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"))

    def command(self, name: str, *arguments: str | Path) -> list[str]:
        """How to run one of the programs."""
        program = next(
            (path for path in (self.root / "usr/bin" / name, self.root / "sbin" / name, self.root / "usr/sbin" / name) if path.exists()),
            None,
        )
        if program is None:
            raise KernelLabError(f"Running {name}: it is not in {self.root}. Remove that directory and run again.")
        loader = self.root / "lib64" / "ld-linux-x86-64.so.2"
        return [str(loader), "--library-path", self._libraries, "--argv0", name, str(program), *map(str, arguments)]

    def perl(self, name: str, *arguments: str | Path) -> list[str]:
        """How to run one that is written in Perl. The places of its modules are arguments: the environment would reach other Perl programs."""
        places = [
            self.root / place
            for place in (
                "usr/share/perl5",
                "usr/share/perl/5.36",
                "usr/lib/x86_64-linux-gnu/perl/5.36",
                "usr/lib/x86_64-linux-gnu/perl-base",
            )
        ]
        return self.command("perl", *(f"-I{place}" for place in places), self.root / "usr/bin" / name, *arguments)

    @property
    def path(self) -> str:
        """``PATH`` for programs that call others of their package by name."""
        return f"{self.root / 'path'}:{os.environ.get('PATH', os.defpath)}"

    def qemu(self, *arguments: str | Path) -> list[str]:
        data = [self.root / place for place in ("usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu")]
        return self.command("qemu-system-x86_64", *(part for place in data for part in ("-L", place)), *arguments)

    @property
    def environment(self) -> dict[str, str]:
        """For QEMU, which looks for its accelerators where it was compiled to be."""
        return {**os.environ, "QEMU_MODULE_DIR": str(self.root / "usr/lib/x86_64-linux-gnu/qemu")}


def tools(archive: Archive, found: Versions) -> Programs:
    """QEMU that can take snapshots of machines with SR-IOV (8.0 or newer, so the backport), and what makes a guest's disk."""
    packages = ["qemu-system-x86", "qemu-utils", "e2fsprogs", "mmdebstrap"]

    def make(directory: Path) -> None:
        archive.update()
        archive.unpack(packages, directory, BACKPORTS)
        # mmdebstrap calls this one by its name; it is a Python script, and must not find the other programs beside it.
        (directory / "path").mkdir()
        (directory / "path" / "mmtarfilter").symlink_to("../usr/bin/mmtarfilter")

    return Programs(made("tools", key(found.qemu, *packages, "path"), make, f"Fetching QEMU {found.qemu}"))


def stock_qemu(archive: Archive, found: Versions) -> Programs:
    """The suite's own QEMU: the backport's AMD IOMMU does not bring a guest of kernel 6.1 up under TCG."""
    packages = ["qemu-system-x86"]

    def make(directory: Path) -> None:
        archive.update()
        archive.unpack(packages, directory)

    return Programs(made("qemu-stock", key(found.qemu_stock, *packages), make, f"Fetching QEMU {found.qemu_stock}"))


def modules(archive: Archive, found: Versions) -> Path:
    """The directory of the two test modules, compiled for the guest's kernel."""
    sources = HERE / "modules"

    def make(directory: Path) -> None:
        archive.update()
        headers = directory / "headers"
        release = found.release
        needed = [
            f"linux-headers-{release}",
            f"linux-headers-{release.rpartition('-')[0]}-common",
            f"linux-kbuild-{'.'.join(release.split('.')[:2])}",
        ]
        archive.unpack([*needed, "libelf1"], headers, closure=False)
        tree = headers / "usr/src" / f"linux-headers-{release}"
        makefile = tree / "Makefile"
        makefile.write_text(makefile.read_text().replace("include /usr/src/", f"include {headers}/usr/src/"))
        build = directory / "build"
        build.mkdir()
        for source in sources.glob("*.c"):
            (build / source.name).write_text(source.read_text())
        names = sorted(source.stem for source in sources.glob("*.c"))
        (build / "Makefile").write_text(f"obj-m := {' '.join(f'{name}.o' for name in names)}\n")
        # objtool wants libelf, which a machine need not have.
        environment = {**os.environ, "LD_LIBRARY_PATH": f"{headers}/usr/lib/x86_64-linux-gnu"}
        compiler = ["CC=gcc", "HOSTCC=gcc"]
        call(
            "Compiling the test modules",
            "make",
            "-s",
            f"-j{os.cpu_count()}",
            "-C",
            tree,
            f"M={build}",
            *compiler,
            "CONFIG_DEBUG_INFO_BTF_MODULES=",
            "modules",
            env=environment,
        )
        for name in names:
            call("Compiling the test modules", "strip", "--strip-debug", build / f"{name}.ko")
            (build / f"{name}.ko").rename(directory / f"{name}.ko")
        call("Clearing up", "rm", "-r", build, headers)

    return made("modules", key(found.kernel, sources, HERE / "programs.py"), make, f"Compiling the test modules for kernel {found.release}")
