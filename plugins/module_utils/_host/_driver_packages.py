# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which packages are an NVIDIA driver, and what the package database says about them.

Names are those of Debian, Ubuntu, NVIDIA's own repositories for Debian, Ubuntu and EL, and RPM Fusion. A name that is not known to be a
part of the driver is none: the container toolkit, CUDA, DCGM and Ubuntu's kernels of the flavour "nvidia" stay.
"""

from __future__ import annotations

import re
import typing as t

_PARTS = "|".join(
    (
        r"nvidia-driver(-.*)?",
        r"nvidia-(headless|dkms|kernel|utils|compute-utils|firmware|legacy|persistenced|modprobe|smi|alternative|settings|xconfig)(-.*)?",
        r"nvidia-open(-\d.*)?",
        r"nvidia-(prime|powerd|imex|support|kmod-common|cuda-mps|installer-cleanup|suspend-common|libXNVCtrl)(-.*)?",
        r"nvidia-(vulkan|egl|opencl)-(icd|common)(-.*)?",
        r"nvidia-vdpau-driver",
        r"nvidia-fabric-?manager(-.*)?",
        r"nvidia-(vgpu|linux-grid)-.*",
        r"NVIDIA-(vGPU|Linux)-.*",
        r"libnvidia-(?!container|egl-).*",
        r"lib(cuda1|cudadebugger1|nvcuvid1|nvoptix1|xnvctrl0|nvsdm)(-\d.*)?",
        r"lib(gl1|egl1|glx|egl|gles1|gles2)-nvidia.*",
        r"xserver-xorg-video-nvidia(-.*)?",
        r"xorg-x11-(drv-)?nvidia(-.*)?",
        r"linux-(modules|objects|signatures)-nvidia-\d.*",
        r"firmware-nvidia-gsp",
        r"glx-alternative-nvidia",
        r"cuda-drivers(-.*)?",
        r"(a?kmod|dkms)-nvidia(-.*)?",
    )
)
_DRIVER = re.compile(rf"(?:{_PARTS})")
_VGPU_HOST = re.compile(r"nvidia-vgpu-.*|NVIDIA-vGPU-.*")


class Package(t.NamedTuple):
    """One package that is installed, or of which only the configuration is left (``state`` is then ``config-files``)."""

    name: str
    arch: str
    version: str
    state: str
    files: t.Tuple[str, ...]  #: its configuration files

    @property
    def is_driver(self) -> bool:
        return bool(_DRIVER.fullmatch(self.name))

    @property
    def is_vgpu_host(self) -> bool:
        """Is it the host's part of vGPU (the vGPU manager)?"""
        return bool(_VGPU_HOST.fullmatch(self.name))


def dpkg(status: str) -> t.List[Package]:
    """What dpkg has, from the text of its ``status`` file (deb822; dpkg(1), "PACKAGE STATES")."""
    found = []
    for block in re.split(r"\n{2,}", status):
        fields = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(.*(?:\n[ \t].*)*)", block, re.MULTILINE))
        state = (fields.get("Status") or "").split()[-1:]
        if "Package" not in fields or state in ([], ["not-installed"]):
            continue
        files = re.findall(r"^ (/\S+) ", fields.get("Conffiles") or "", re.MULTILINE)
        found.append(Package(fields["Package"], fields.get("Architecture", ""), fields.get("Version", ""), state[0], tuple(files)))
    return found


#: What ``rpm --query --all`` is asked to print about each package.
RPM_FORMAT = r"%{NAME}\t%{ARCH}\t%{VERSION}-%{RELEASE}\n"


def rpm(listed: str) -> t.List[Package]:
    """What rpm has, from what it prints in :data:`RPM_FORMAT`."""
    lines = [line.split("\t") for line in listed.splitlines() if line.count("\t") == 2]
    return [Package(name, arch, version, "installed", ()) for name, arch, version in lines]


def apt_side_effects(simulated: str, asked: t.Collection[str]) -> t.List[str]:
    """What apt would do beside removing what it was asked to, from the text of ``apt-get --simulate purge``."""
    found = []
    for verb, name in re.findall(r"^(Inst|Remv|Purg) (\S+)", simulated, re.MULTILINE):
        plain = name.partition(":")[0]
        if verb == "Inst":
            found.append(f"install {plain}")
        elif plain not in asked:
            found.append(f"remove {plain}")
    return list(dict.fromkeys(found))
