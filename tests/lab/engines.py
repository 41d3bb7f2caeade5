# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Container engines for the lab's tests: kept to one directory, with the lab's registry in place of public ones, and what is built from.

Nothing of NVIDIA's is in it: the base image is BusyBox, and sources and installer are stand-ins with the outer shape of the real ones.
"""

from __future__ import annotations

import gzip
import io
import os
import resource
import shutil
import subprocess
import tarfile
from pathlib import Path

from tests.lab import registry
from tests.lab.layout import LabError, Layout

PROGRAMS = {"podman": "podman", "buildah": "buildah", "runc": "runc", "busybox": "busybox-static"}
#: The first lines of the vendor's Dockerfiles name bases like this one; in the lab such names lead to the lab's registry.
BASE = "nvcr.io/nvidia/cuda:13.3.1-base-ubuntu22.04"
_DOCKERFILE = f"""FROM {BASE}
ARG DRIVER_VERSION
ARG DRIVER_ARCH=x86_64
WORKDIR /driver
COPY NVIDIA-Linux-${{DRIVER_ARCH}}-${{DRIVER_VERSION}}-vgpu-kvm.run nvidia-driver ./
RUN n=NVIDIA-Linux-${{DRIVER_ARCH}}-${{DRIVER_VERSION}}-vgpu-kvm; sh "$n.run" -x && test -e "$n/.manifest"
ENTRYPOINT ["/driver/nvidia-driver", "init"]
"""
_INSTALLER = b"""#!/bin/sh
n=@NAME@
case "${1:-}" in
-x) rm -rf "$n"; tail -n +7 "$0" | tar xz && echo "extracted to $n" ;;
*) echo "would install $n $*" ;;
esac; exit $?
"""


def check() -> None:
    """LabError that says how to get what is missing."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    missing = [package for program, package in PROGRAMS.items() if not shutil.which(program, path=path)]
    if missing:
        raise LabError(
            f"Building an image in the lab: {', '.join(missing)} missing on this machine. As root: "
            f"apt-get install --no-install-recommends {' '.join(missing)}"
        )
    if os.geteuid():
        raise LabError(
            "Building an image in the lab: it needs root, because engines for other users need more of a machine. Run it as root."
        )


def environment(layout: Layout, host: str) -> dict[str, str]:
    """Settings that keep podman and buildah to `engines/` of the lab; on any machine, also in a container without systemd or iptables."""
    own = layout.directory / "engines"
    own.mkdir(mode=0o700, exist_ok=True)
    files, processes = (
        min(limit, most) for limit, most in ((_hard(resource.RLIMIT_NOFILE), 1048576), (_hard(resource.RLIMIT_NPROC), 32768))
    )
    texts = {
        "storage.conf": f'[storage]\ndriver = "{_driver(own)}"\ngraphroot = "{own}/store"\nrunroot = "{own}/run"\n',
        # Pulls and builds find the base image there, under its public name.
        "registries.conf": f'unqualified-search-registries = []\n[[registry]]\nprefix = "nvcr.io"\nlocation = "{host}/nvcr.io"\n',
        "containers.conf": '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\n[containers]\nnetns = "host"\n'
        f'default_ulimits = ["nofile={files}:{files}", "nproc={processes}:{processes}"]\n',
    }
    for name, text in texts.items():
        (own / name).write_text(text)
    return {
        "CONTAINERS_STORAGE_CONF": str(own / "storage.conf"),
        "CONTAINERS_REGISTRIES_CONF": str(own / "registries.conf"),
        "CONTAINERS_CONF": str(own / "containers.conf"),
        # Needs no runtime, no cgroups and no network of its own.
        "BUILDAH_ISOLATION": "chroot",
        "TMPDIR": str(_made(own / "tmp")),
    }


def clear(layout: Layout, env: dict[str, str]) -> None:
    """Remove what the engines keep; layers may be mounted, so an engine has to do it."""
    subprocess.run(["buildah", "rm", "--all"], env={**os.environ, **env}, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    subprocess.run(
        ["buildah", "rmi", "--all", "--force"], env={**os.environ, **env}, capture_output=True, stdin=subprocess.DEVNULL, check=False
    )
    own = layout.directory / "engines"
    for mount in ("store/overlay", "run"):
        subprocess.run(["umount", "--recursive", str(own / mount)], capture_output=True, stdin=subprocess.DEVNULL, check=False)
    shutil.rmtree(own, ignore_errors=True)


def push_base(layout: Layout, host: str, env: dict[str, str]) -> None:
    """Have the base image in the lab's registry."""
    tar = layout.directory / "engines" / "base.tar"
    busybox = Path(shutil.which("busybox", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin") or "/bin/busybox")
    with tarfile.open(tar, "w") as archive:
        for name in ("bin", "driver", "tmp", "etc"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        archive.add(busybox.resolve(), "bin/busybox")
        for name in ("sh", "test", "tail", "tar", "rm", "echo", "gzip", "gunzip", "zcat"):
            entry = tarfile.TarInfo(f"bin/{name}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(entry)
    image = f"{host}/{BASE}"
    access = ["--authfile", str(registry.directory(layout) / "config.json"), "--cert-dir", str(certificates(layout))]
    _run(env, "podman", "--log-level=error", "import", "-q", "-c", "ENV PATH=/bin", str(tar), image)
    _run(env, "podman", "--log-level=error", "push", "-q", *access, image)
    _run(env, "podman", "--log-level=error", "rmi", "-f", image)


def certificates(layout: Layout) -> Path:
    """A directory with the lab's CA, as engines want it."""
    own = _made(layout.directory / "engines" / "ca")
    shutil.copyfile(layout.pki / "ca.crt", own / "ca.crt")
    return own


def write_installer(directory: Path, version: str) -> Path:
    """A stand-in for the installer: a script with an archive behind it that `-x` unpacks."""
    name = f"NVIDIA-Linux-x86_64-{version}-vgpu-kvm"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo(f"{name}/.manifest")
        entry.size = len(version)
        archive.addfile(entry, io.BytesIO(version.encode()))
    file = directory / f"{name}.run"
    file.write_bytes(_INSTALLER.replace(b"@NAME@", name.encode()) + gzip.compress(packed.getvalue(), mtime=0))
    return file


def write_sources(directory: Path) -> Path:
    """A stand-in for the driver container's sources, for two operating systems."""
    for system in ("ubuntu22.04", "rhel9"):
        place = _made(directory / "vgpu-manager" / system)
        (place / "Dockerfile").write_text(_DOCKERFILE)
        (place / "nvidia-driver").write_text(f"#!/bin/sh\n# {system}\n")
        (place / "nvidia-driver").chmod(0o755)
    return directory


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _hard(limit: int) -> int:
    hard = resource.getrlimit(limit)[1]
    return 1 << 30 if hard == resource.RLIM_INFINITY else hard


def _driver(directory: Path) -> str:
    """Overlay, except on an overlay, which cannot be stacked on itself."""
    kind = subprocess.run(["stat", "-f", "-c", "%T", str(directory)], capture_output=True, text=True, check=False).stdout.strip()
    return "vfs" if kind.startswith("overlay") else "overlay"


def _run(env: dict[str, str], *command: str) -> None:
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise LabError(f"Preparing the lab's base image: `{' '.join(command)}` ended with {done.returncode}: {done.stderr.strip()[-800:]}")
