# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What the data says about vGPU types: which GPU has which, and how many of one size it takes.

The data's own source per row is in it. The key is always a GPU and a type, never a type alone: ``DC-16Q`` fits six times on one GPU
family and twice on another.
"""

from __future__ import annotations

import functools
import json
import typing as t
from pathlib import Path

DEFAULT = "default"


@functools.lru_cache(maxsize=1)
def _data() -> dict[str, t.Any]:
    return json.loads(Path(__file__).with_name("vgpu_types.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=1)
def known_profiles() -> frozenset[str]:
    """The names that the stock configuration of the vGPU Device Manager has.

    Its types are those that the data has from that source (``V``); it has no A and B series, and no longer the oldest GPUs.
    """
    data = _data()
    names = {kind["name"] for gpu in data["gpus"] for kind in gpu["types"] if kind["series"] in "QC" and "V" in kind["src"]}
    return frozenset(names | set(data["config_aliases_gfx"]) | {DEFAULT})


def type_of(profile: str) -> str:
    """The type that a profile of the stock configuration creates: an alias with the suffix ``GFX`` stands for the type without it."""
    return profile.removesuffix("GFX") if profile in _data()["config_aliases_gfx"] else profile


def families(pci_id: str, subsystem: str = "") -> list[dict[str, t.Any]]:
    """The GPU families with this PCI id (``10DE:2236``); where several share it, those with this subsystem if one has it."""
    device = pci_id.upper().partition(":")[2]
    found = [(gpu, pci) for gpu in _data()["gpus"] for pci in gpu["pci"] if pci["device"].upper() == device]
    exact = [gpu for gpu, pci in found if any(entry[0].upper() == subsystem.upper() for entry in pci["subsystems"])]
    return exact or [gpu for gpu, _pci in found]


def most(pci_id: str, subsystem: str, kind: str) -> int | None:
    """How many vGPUs of one type fit on one GPU, time-sliced or on MIG instances, or None if the data knows no such type for it."""
    for gpu in families(pci_id, subsystem):
        for entry in gpu["types"]:
            if entry["name"] == kind:
                return int(entry.get("max_equal_size") or entry["max_per_gpu"])
    return None


def mdev_name(pci_id: str, subsystem: str, kind: str) -> str | None:
    """A type as the driver spells it (``NVIDIA A10-4Q``), or None if the data knows no such type for the GPU, or not how it is spelled."""
    for gpu in families(pci_id, subsystem):
        if gpu["mdev_name_prefix"] and any(entry["name"] == kind for entry in gpu["types"]):
            return f"{gpu['mdev_name_prefix']} {kind}"
    return None


def default_types(pci_id: str) -> list[tuple[str, int]]:
    """What the stock profile ``default`` makes of a GPU: ``[(type, count)]``, more than one where the stock configuration is ambiguous."""
    device = pci_id.upper().partition(":")[2]
    return [(kind, count) for pattern, kind, count in _data()["default_config"] if pattern.upper() == f"0X{device}10DE"]


def uses_virtual_functions(pci_id: str, subsystem: str = "") -> bool | None:
    """Are this GPU's vGPUs made on virtual functions? None if the data does not have the GPU. (A T4 shows virtual functions and uses none.)"""
    found = {bool(gpu["sriov"]) for gpu in families(pci_id, subsystem)}
    return found.pop() if len(found) == 1 else None
