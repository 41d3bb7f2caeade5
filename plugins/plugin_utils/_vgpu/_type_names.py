# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Names of vGPU types: read in every spelling that is in use, and spelled for every place that wants one.

Spellings: plain (``A10-4Q``), the driver's (``NVIDIA A10-4Q``), a resource (``nvidia.com/NVIDIA_A10-4Q``), a selector of KubeVirt (the driver's,
blanks or ``_``), a name of the vGPU Device Manager's configuration (plain, or an alias such as ``DC-1-2QGFX``), and that of vSphere
(``nvidia_a10-4q``). Sources: NVIDIA/open-gpu-kernel-modules g_nv_name_released.h (the driver's names), NVIDIA/vgpu-device-manager
pkg/types/vgpu_type.go:38,42 (grammar), NVIDIA/kubevirt-gpu-device-plugin device_plugin.go:334-343 (resource), kubevirt device_controller.go:301-307.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t

#: The two patterns of the vGPU Device Manager. It tries the time-sliced one first.
TIME_SLICED = re.compile(r"(?P<code>[A-Z0-9]+(-[a-zA-Z]+)*)-(?P<gb>0|[1-9][0-9]*)(?P<series>[ABCQ])")
MIG_BACKED = re.compile(r"(?P<code>[A-Z0-9]+)-(?P<slices>[1-9])-(?P<gb>0|[1-9][0-9]*)(?P<series>[ABCQ])(?P<attribute>ME|NOME|MEALL|GFX)?")
#: Types of 1 and 2 GB of old drivers, which the vGPU Device Manager does not read.
_OLD_B = re.compile(r"(?P<code>[A-Z0-9]+)-(?P<gb>[12])B4")
#: The suffixes of configuration names that no type has: the type that is made has the name without.
ALIASES = ("GFX", "NOME", "MEALL")
#: What a suffix is in the GPU-instance profile that the vGPU Device Manager asks for. Source: its api/spec/v1/spec.go:186-197.
PROFILE_SUFFIX = {"": "", "ME": "+me", "NOME": "-me", "MEALL": "+me.all", "GFX": "+gfx"}
DOMAIN = "nvidia.com"

_GAMING = re.compile(r"[A-Z0-9]+(-[A-Z]+)*(-[1-9])?-\d+")
_TYPE_ID = re.compile(r"(NVIDIA-)?\d+")
_SLUG = re.compile(r"(\d+-)?\d+[ABCQ]")


@dataclasses.dataclass(frozen=True, slots=True)
class TypeName:
    """The parts of a name: ``code`` of the GPU family, GB (0 stands for 512 MB), series; on MIG its slices and a suffix; ``brand`` before it."""

    code: str
    size_gb: int
    series: str
    slices: int = 0
    attribute: str = ""
    brand: str = ""
    old: bool = False

    @property
    def key(self) -> str:
        """The plain name, with an alias's suffix if it has one."""
        slices = f"{self.slices}-" if self.slices else ""
        return f"{self.code}-{slices}{self.size_gb}{self.series}{'4' if self.old else ''}{self.attribute}"

    @property
    def plain(self) -> str:
        """The name of the type that is made: an alias's suffix is not part of it."""
        return self.key.removesuffix(self.attribute) if self.attribute in ALIASES else self.key

    @property
    def asked_profile(self) -> str | None:
        """The GPU-instance profile that the vGPU Device Manager derives from the name, of the vGPU's own size. None if time-sliced."""
        return f"{self.slices}g.{self.size_gb}gb{PROFILE_SUFFIX[self.attribute]}" if self.slices else None


@dataclasses.dataclass(frozen=True, slots=True)
class Spellings:
    """One type of one GPU, spelled for each place. What needs the driver's name is None where nobody has seen it."""

    plain: str
    mdev: str | None
    resource: str | None
    selector: str | None
    vsphere: str | None
    config_keys: tuple[str, ...]


def device_manager_reads(name: str) -> bool:
    """Does the vGPU Device Manager take this for the name of a type?"""
    return bool(TIME_SLICED.fullmatch(name) or MIG_BACKED.fullmatch(name))


def _canonical(word: str) -> str:
    """In the case that NVIDIA writes: all upper, but ``Ada``."""
    return re.sub(r"-ADA(?=-)", "-Ada", word.upper())


def parse(text: str) -> TypeName:
    """The parts of a vGPU type's name in any spelling.

    :raises ValueError: it is no name of a type; says why.
    """
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{text!r} is no vGPU type: write one such as A10-4Q")
    words = re.split(r"[ _\t\n]+", text.strip().rpartition("/")[2])
    name = _canonical(words[-1])
    match = TIME_SLICED.fullmatch(name) or MIG_BACKED.fullmatch(name) or _OLD_B.fullmatch(name)
    if not match:
        raise ValueError(f"{text!r} is no vGPU type: {_reason(name)}")
    parts = match.groupdict()
    return TypeName(
        parts["code"],
        int(parts["gb"]),
        parts.get("series") or "B",
        int(parts.get("slices") or 0),
        parts.get("attribute") or "",
        " ".join(words[:-1]),
        "series" not in parts,
    )


def _reason(name: str) -> str:
    if _TYPE_ID.fullmatch(name):
        return "it is the number that one host gives to a type; write the type's name, such as A10-4Q"
    if _SLUG.fullmatch(name):
        return "the GPU is missing; write it before the size, such as A10-4Q"
    if _GAMING.fullmatch(name):
        return "the series is missing (a type of vGaming has none); write Q, C, B or A behind the size, such as A10-4Q"
    if re.fullmatch(r"[A-Z0-9]+(-[A-Za-z]+)+-[1-9]-\d+[ABCQ].*", name):
        return "a GPU with a dash in its code has no types on GPU instances"
    if re.fullmatch(r".*-0\d+[ABCQ].*", name):
        return "its size has a zero in front"
    return "write the GPU, the size in GB and the series (Q, C, B, A), such as A10-4Q or, on a GPU instance, A30-1-6C"


def resource_of(mdev: str) -> str:
    """The extended resource of a mediated device's type: every run of white space becomes ``_``."""
    return f"{DOMAIN}/{'_'.join(mdev.split())}"


def mdev_of(resource: str) -> str:
    """The driver's name behind a resource; the driver's names have no ``_`` themselves."""
    return resource.removeprefix(f"{DOMAIN}/").replace("_", " ")


def vsphere_of(mdev: str) -> str:
    return "_".join(mdev.split()).lower()


def spell(plain: str, mdev: str | None, aliases: t.Iterable[str] = ()) -> Spellings:
    """All spellings of a type, from its plain name, the driver's (None: unknown), and its aliases in NVIDIA's stock configuration."""
    if not mdev:
        return Spellings(plain, None, None, None, None, (plain, *aliases))
    return Spellings(plain, mdev, resource_of(mdev), mdev, vsphere_of(mdev), (plain, *aliases))
