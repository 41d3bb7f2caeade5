# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""A GPU of the catalogue and its vGPU types."""

from __future__ import annotations

import dataclasses
import functools
import typing as t

#: MiB of a type of size 0.
HALF_A_GB = 512


def code_of(family: str) -> str:
    """What the type names of a family begin with: the family, but two boards have types that begin with ``DC``."""
    return "DC" if family.startswith("DC-") else family


@dataclasses.dataclass(frozen=True, slots=True)
class Display:
    """Most monitors, most pixels and most frames per second of a vGPU."""

    heads: int
    max_resolution: str
    frl: int


@dataclasses.dataclass(frozen=True, slots=True)
class VgpuType:
    """A vGPU type of one GPU. The same name can be a type of another GPU too, with other figures.

    ``size_gb`` is the size in the name (0 stands for 512 MiB). ``most`` is how many of it, and of types of its size, one GPU holds.
    ``slices`` is 0 for a time-sliced type. Of a MIG-backed type, ``mig_instances`` is the most GPU instances of its profile on one GPU;
    where ``most`` is more, an instance holds several. ``type_id`` (on the host) and ``guest_subsystem`` (PCI, seen by the guest) are hints.
    ``evidence`` says where ``most`` comes from and ``sources`` where the row does: keys of the catalogue's tables of these names.
    """

    name: str
    series: str
    size_gb: int
    most: int
    slices: int
    mig_profile: str | None
    mig_instances: int | None
    partition_flag: str | None
    type_id: int | None
    guest_subsystem: str | None
    evidence: str
    sources: str
    licence: str
    display: Display

    @property
    def framebuffer_mib(self) -> int:
        return self.size_gb * 1024 or HALF_A_GB


@dataclasses.dataclass(frozen=True, slots=True)
class PciId:
    """A device id of NVIDIA (``2236``), with the subsystems that are known for it (``10DE:1482``) and what the driver calls each.

    ``filter`` is what selects the GPU in the vGPU Device Manager; ``needs_subsystem``: another product of the catalogue has the id too.
    """

    device: str
    subsystems: tuple[tuple[str, str], ...]
    filter: str
    needs_subsystem: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Gpu:
    """A GPU family. Two are equal only if they are the same object: the catalogue makes each once.

    ``family`` is the code in its type names, but ``DC-96`` and ``DC-32`` for the two boards whose types begin with ``DC-``. ``prefix`` are the
    words before a type in the driver's name; None where nobody has seen it. ``stock``: NVIDIA's stock configuration has its types.
    """

    family: str
    product: str
    architecture: str
    framebuffer_gb: int
    gpus_per_board: int
    pci: tuple[PciId, ...]
    sriov: bool
    mig_capable: bool
    prefix: str | None
    mixed_rule: str | None
    equal_size_ids: bool
    legacy: bool
    stock: bool
    gfx_keys: bool
    also: tuple[str, ...]
    types: tuple[VgpuType, ...]

    @functools.cached_property
    def by_name(self) -> t.Mapping[str, VgpuType]:
        return {kind.name: kind for kind in self.types}

    @property
    def code(self) -> str:
        """What its type names begin with."""
        return code_of(self.family)

    def mdev_name(self, kind: str) -> str | None:
        """A type as the driver spells it (``NVIDIA A10-4Q``); None if nobody has seen how it does."""
        return f"{self.prefix} {kind}" if self.prefix else None
