# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The vGPU manager's installer as NVIDIA ships it: what its file name says, and whether the file is what it should be."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image._refused import Refused

#: ``NVIDIA-Linux-x86_64-580.95.02-vgpu-kvm.run``; that of NVIDIA AI Enterprise ends with ``-vgpu-kvm-aie.run``
#: (NVIDIA/cloud-native-docs, gpu-operator-kubevirt.rst, "Building the NVIDIA vGPU Manager Image").
_NAME = re.compile(r"NVIDIA-Linux-(?P<arch>[a-z0-9_]+)-(?P<version>\d+(?:\.\d+){1,3})-vgpu-kvm(?P<aie>-aie)?\.run")
_GUEST = re.compile(r"NVIDIA-Linux-.*-grid(-aie)?\.run")
_DRIVER = re.compile(r"NVIDIA-Linux-[a-z0-9_]+-[\d.]+\.run")
_CHECKSUM = re.compile(r"(?:sha256:)?(?P<digest>[0-9a-fA-F]{64})")

ARCHITECTURES = ("x86_64", "aarch64")
_WANTED = (
    "Give the host driver of the vGPU software's zip, NVIDIA-Linux-ARCH-VERSION-vgpu-kvm.run, in gpufleet_vgpu_run_file (option run_file)"
)


@dataclasses.dataclass(frozen=True)
class Installer:
    """An installer on the machine that builds. ``sha256`` is that of its content, in hexadecimal."""

    path: str
    version: str
    arch: str
    sha256: str = ""

    @property
    def name_in_context(self) -> str:
        """The name that NVIDIA's Dockerfiles copy: the one of NVIDIA AI Enterprise is renamed to it."""
        return f"NVIDIA-Linux-{self.arch}-{self.version}-vgpu-kvm.run"


def of_name(path: str, version: str | None = None, arch: str = "x86_64") -> Installer:
    """What the file's name says, held against the version and the architecture of the hosts. Raises Refused."""
    name = os.path.basename(path)
    target = f"installer {name}"
    match = _NAME.fullmatch(name)
    if not match:
        if _GUEST.fullmatch(name):
            raise Refused(target, "it is the driver for guests (-grid), which no host can use", _WANTED)
        if name.endswith(".zip"):
            raise Refused(target, "it is an archive, not the installer in it", f"Unpack it. {_WANTED}")
        if _DRIVER.fullmatch(name):
            raise Refused(target, "it is a driver for containers, not the vGPU manager (-vgpu-kvm is missing in its name)", _WANTED)
        raise Refused(target, "its name is none of a vGPU manager's installer", _WANTED)
    if match["arch"] != arch:
        raise Refused(target, f"it is for {match['arch']}, and the hosts are {arch}", f"Download the installer for {arch}")
    if version and match["version"] != version:
        raise Refused(
            target,
            f"it is version {match['version']}, and version {version} is asked for",
            "Correct gpufleet_vgpu_version (option driver_version), or give the installer of that version",
        )
    return Installer(path, match["version"], match["arch"])


def of_checksum(text: str) -> str:
    """The SHA-256 of an option, with or without ``sha256:``, in lower case. Raises Refused."""
    match = _CHECKSUM.fullmatch(text.strip())
    if not match:
        raise Refused("checksum", f"{text!r} is no SHA-256: 64 hexadecimal digits, sha256: before them if you like", "Correct checksum")
    return match["digest"].lower()


def sha256_of(path: str) -> str:
    """The SHA-256 of a file's content, in hexadecimal. Raises OSError."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def read(named: Installer, checksum: str | None = None) -> Installer:
    """The installer with its checksum, which must be the given one. Raises Refused where the file is missing or is something else."""
    target = f"installer {os.path.basename(named.path)}"
    again = "Download it again, or copy it to the machine that builds (gpufleet_vgpu_run_file, option run_file)"
    try:
        with open(named.path, "rb") as file:
            start = file.read(2)
        found = sha256_of(named.path)
    except OSError as error:
        raise Refused(target, f"{named.path} cannot be read: {error.strerror or error}", again) from None
    if start != b"#!":
        raise Refused(target, f"{named.path} does not begin like an installer (#!): it may be empty, cut off or an error page", again)
    if checksum and found != checksum:
        raise Refused(target, f"its SHA-256 is {found}, not {checksum}", f"{again}; or correct checksum")
    return dataclasses.replace(named, sha256=found)
