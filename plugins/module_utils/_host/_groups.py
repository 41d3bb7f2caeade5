# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""IOMMU groups: what the kernel isolates together, and so can only be given away together.

A group can be given to a VM when each member but the bridges is on a VFIO driver or on none. Group numbers change from boot to boot.
"""

from __future__ import annotations

import typing as t

from .._device_names import NVIDIA
from ._pci import Function


def members(found: t.Iterable[Function]) -> t.Dict[str, t.List[Function]]:
    """The functions of each group, by its number; a function without a group is in none."""
    by_group: t.Dict[str, t.List[Function]] = {}
    for function in found:
        if function.group is not None:
            by_group.setdefault(function.group, []).append(function)
    return by_group


def facts(group: t.Sequence[Function]) -> t.Dict[str, t.Any]:
    """One group: its members, whether a VM could take it, and who stands in the way."""
    blockers = [member for member in group if not member.is_bridge and member.driver is not None and not member.on_vfio]
    return {
        "members": [member.address for member in group],
        "viable": not blockers,
        "blockers": [{"address": b.address, "class": b.kind, "driver": b.driver, "foreign": b.vendor != NVIDIA} for b in blockers],
    }


def of_nvidia(found: t.Iterable[Function]) -> t.Dict[str, t.Dict[str, t.Any]]:
    """The groups that hold a physical NVIDIA function, by number."""
    return {
        number: facts(group)
        for number, group in members(found).items()
        if any(member.vendor == NVIDIA and member.parent is None for member in group)
    }
