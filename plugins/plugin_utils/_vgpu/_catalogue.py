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
    """Every name that a profile can have: a type of any GPU, an alias with graphics, or ``default``."""
    data = _data()
    names = {kind["name"] for gpu in data["gpus"] for kind in gpu["types"]}
    names |= {name for gpu in data["legacy_gpus"] for name in gpu["types"]}
    return frozenset(names | set(data["config_aliases_gfx"]) | {DEFAULT})


def families(pci_id: str, subsystem: str = "") -> list[dict[str, t.Any]]:
    """The GPU families with this PCI id (``10DE:2236``); where several share it, those with this subsystem if one has it."""
    device = pci_id.upper().partition(":")[2]
    found = [(gpu, pci) for gpu in _data()["gpus"] for pci in gpu["pci"] if pci["device"].upper() == device]
    exact = [gpu for gpu, pci in found if any(entry[0].upper() == subsystem.upper() for entry in pci["subsystems"])]
    return exact or [gpu for gpu, _pci in found]


def most(pci_id: str, subsystem: str, kind: str) -> int | None:
    """How many vGPUs of one type fit on one GPU, or None if the data knows no such type for it."""
    data = _data()
    for gpu in families(pci_id, subsystem):
        for entry in gpu["types"]:
            if entry["name"] == kind:
                return int(entry["max_equal_size"]) if entry.get("max_equal_size") else None
        if kind in data["config_aliases_gfx"] and gpu["family"].startswith("RTX PRO"):
            return int(data["config_aliases_gfx"][kind])
    device = pci_id.upper().partition(":")[2]
    for gpu in data["legacy_gpus"]:
        if gpu["pci_device"].upper() == device and kind in gpu["types"]:
            return int(gpu["types"][kind])
    return None


def default_types(pci_id: str) -> list[tuple[str, int]]:
    """What the stock profile ``default`` makes of a GPU: ``[(type, count)]``, more than one where the stock configuration is ambiguous."""
    device = pci_id.upper().partition(":")[2]
    return [(kind, count) for pattern, kind, count in _data()["default_config"] if pattern.upper() == f"0X{device}10DE"]
