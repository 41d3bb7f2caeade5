# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the vGPU Device Manager does with a configuration, on GPUs that are simulated; made from the table, without the catalogue.

Source: NVIDIA/vgpu-device-manager acb72704: pkg/vgpu/config.go (apply), cmd/nvidia-vgpu-dm/assert/config.go, api/spec/v1/helpers.go.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t

from tests.vgpu.gpus import gpus

FILTER = re.compile(r"0x([0-9A-F]{4})10DE(:0x([0-9A-F]{4})([0-9A-F]{4}))?", re.IGNORECASE)
SUFFIX = re.compile(r"(GFX|NOME|MEALL|ME)$")


@dataclasses.dataclass
class Device:
    """A GPU of a node and its vGPUs by type."""

    family: str
    device: str
    subsystem: str = ""
    holds: dict[str, int] = dataclasses.field(default_factory=dict)


class Failed(Exception):
    """The Device Manager gave up; what it did before stays."""


def _matches(entry: dict[str, t.Any], device: Device) -> bool:
    filters = entry.get("device-filter") or []
    filters = [filters] if isinstance(filters, str) else filters
    if not filters:
        return True
    for text in filters:
        match = FILTER.fullmatch(text)
        if match and match[1].upper() == device.device.upper():
            board = f"{match[4]}:{match[3]}" if match[2] else ""
            if not board or board.upper() == device.subsystem.upper():
                return True
    return False


def _walk(entries: list[dict[str, t.Any]], node: list[Device]) -> t.Iterator[tuple[dict[str, t.Any], int, Device]]:
    for entry in entries:
        for index, device in enumerate(node):
            if _matches(entry, device) and (entry["devices"] == "all" or index in entry["devices"]):
                yield entry, index, device


def apply(entries: list[dict[str, t.Any]], node: list[Device]) -> None:
    for entry, index, device in _walk(entries, node):
        wanted = entry["vgpu-devices"]
        if device.holds == wanted:
            continue
        known = {kind.name: kind for kind in gpus()[device.family].types} if device.family in gpus() else {}
        made = {}
        for name, count in wanted.items():
            plain = name if name in known else SUFFIX.sub("", name)
            if plain not in known:
                raise Failed(f"vGPU type {name} is not supported on GPU (index={index})")
            made[plain] = count
        device.holds = {}
        for name, count in made.items():
            size, most = known[name].size_gb, known[name].most
            if any(known[other].size_gb != size for other in device.holds) or sum(device.holds.values()) + count > most:
                raise Failed(f"failed to create {count} {name} vGPU devices on the GPU")
            device.holds[name] = count


def holds(entries: list[dict[str, t.Any]], node: list[Device]) -> bool:
    """Does it count as applied?"""
    matched = set()
    for entry, index, device in _walk(entries, node):
        matched.add(index)
        if device.holds != entry["vgpu-devices"]:
            return False
    return matched == set(range(len(node)))
