# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What the collection knows of GPUs and their vGPU types: which GPU has which, and how many of one size it takes.

``catalogue.toml`` beside this file holds it, with the source of each figure. The key is always a GPU and a type, never a type alone:
``DC-16Q`` fits six times on one GPU family and twice on another.
"""

from __future__ import annotations

import functools
import tomllib
import typing as t
from pathlib import Path

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu import _derive
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._find import Index
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._vgpu._gpu import Gpu, VgpuType

DEFAULT = "default"
#: The suffix of names in NVIDIA's stock configuration that stand for a type without it.
GFX = "GFX"


@functools.lru_cache(maxsize=1)
def _tables() -> dict[str, t.Any]:
    return tomllib.loads(Path(__file__).with_name("catalogue.toml").read_text(encoding="utf-8"))


@functools.lru_cache(maxsize=1)
def gpus() -> tuple[Gpu, ...]:
    """All GPUs, legacy ones (old software only) at the end."""
    return _derive.gpus(_tables())


@functools.lru_cache(maxsize=1)
def _index() -> Index:
    return Index(gpus())


def find(gpu: str, subsystem: str = "") -> Gpu:
    """The GPU that is meant by a family code, a model name or a PCI id; see :meth:`_find.Index.find` for the spellings.

    :raises ValueError: none or several are meant; names them or the nearest.
    """
    return _index().find(gpu, subsystem)


def at(pci_id: str, subsystem: str = "") -> tuple[Gpu, ...]:
    """The GPUs with this PCI id (``10DE:2236``); where several share it, the one with this subsystem (``10DE:1482``) if there is one."""
    return _index().at(pci_id, subsystem)


def evidence(kind: VgpuType) -> str:
    """In words, where a type's maximum comes from."""
    return str(_tables()["evidence"][kind.evidence])


def sources(kind: VgpuType) -> list[str]:
    """Where what is known of a type comes from."""
    return [str(_tables()["sources"][letter]) for letter in kind.sources]


def limits() -> dict[str, int]:
    """The driver's own limits on the number of vGPUs: ``per_gpu``, ``per_gpu_time_sliced``, ``per_gpu_instance``, ``per_vm``."""
    return dict(_tables()["limits"])


def _in_stock(kind: VgpuType) -> bool:
    """Does NVIDIA's stock configuration have this type? Its data is source V."""
    return kind.series in "QC" and "V" in kind.sources


@functools.lru_cache(maxsize=1)
def stock_aliases() -> dict[str, str]:
    """Names of the stock configuration that stand for a type of another name: ``DC-1-2QGFX`` for ``DC-1-2Q``."""
    return {f"{kind.name}{GFX}": kind.name for gpu in gpus() if gpu.gfx_keys for kind in gpu.types if kind.slices and _in_stock(kind)}


@functools.lru_cache(maxsize=1)
def known_profiles() -> frozenset[str]:
    """The names that the stock configuration of the vGPU Device Manager has. It has no A and B series, and no longer the oldest GPUs."""
    names = {kind.name for gpu in gpus() for kind in gpu.types if _in_stock(kind)}
    return frozenset(names | set(stock_aliases()) | {DEFAULT})


def type_of(profile: str) -> str:
    """The type that a profile of the stock configuration creates: an alias with the suffix ``GFX`` stands for the type without it."""
    return stock_aliases().get(profile, profile)


def most(pci_id: str, subsystem: str, kind: str) -> int | None:
    """How many vGPUs of one type fit on one GPU, time-sliced or on MIG instances, or None if the catalogue knows no such type for it."""
    return next((gpu.by_name[kind].most for gpu in at(pci_id, subsystem) if kind in gpu.by_name), None)


def mdev_name(pci_id: str, subsystem: str, kind: str) -> str | None:
    """A type as the driver spells it (``NVIDIA A10-4Q``), or None if no such type is known for the GPU, or not how it is spelled."""
    return next((name for gpu in at(pci_id, subsystem) if kind in gpu.by_name and (name := gpu.mdev_name(kind))), None)


def default_type(gpu: Gpu) -> tuple[str, int]:
    """What the stock profile ``default`` makes of a GPU: Q if it has Q, else C; the largest of which two fit, else one of the only size."""
    sliced = [kind for kind in gpu.types if not kind.slices]
    series = "Q" if any(kind.series == "Q" for kind in sliced) else "C"
    sliced = sorted((kind for kind in sliced if kind.series == series), key=lambda kind: kind.size_gb)
    halves = [kind for kind in sliced if kind.most >= 2]
    return (halves[-1].name, 2) if halves else (sliced[-1].name, 1)


@functools.lru_cache(maxsize=1)
def default_config() -> tuple[tuple[str, str, int], ...]:
    """The stock profile ``default``, in its order: device id, type and count per GPU.

    The vGPU Device Manager applies each entry to each GPU of the id, so where two products share one, it fails on both.
    Source: NVIDIA/vgpu-device-manager acb72704, pkg/vgpu/config.go.
    """
    stock = [gpu for gpu in gpus() if gpu.stock]
    stock.sort(key=lambda gpu: (gpu.pci[0].device, gpu.pci[0].subsystems))
    return tuple((pci.device, *default_type(gpu)) for gpu in stock for pci in gpu.pci)


def default_types(pci_id: str) -> list[tuple[str, int]]:
    """What the stock profile ``default`` makes of a GPU: ``[(type, count)]``, more than one where the stock configuration is ambiguous."""
    device = pci_id.upper().partition(":")[2]
    return [(kind, count) for found, kind, count in default_config() if found == device]


def uses_virtual_functions(pci_id: str, subsystem: str = "") -> bool | None:
    """Are this GPU's vGPUs made on virtual functions? None if it is not known. (A T4 shows virtual functions and uses none.)"""
    found = {gpu.sriov for gpu in at(pci_id, subsystem)}
    return found.pop() if len(found) == 1 else None
