# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is wanted on which GPU: arguments checked, GPUs found, type names resolved to what the driver offers."""

from __future__ import annotations

import dataclasses
import difflib
import typing as t

from .. import _device_names
from .._change import Blocker
from ._vgpu import Gpu, VgpuType

_NEAREST = 3
_SELECTORS = ("address", "index", "vendor_device")


@dataclasses.dataclass(frozen=True)
class TypeWish:
    """So many vGPUs of a type, by its full or plain name; with a placement id for each, or none."""

    type: str
    count: int
    placement_ids: t.Tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Wish:
    """What one GPU should have. ``state``: exact, present or absent. ``mixed_size``: unmanaged, on or off."""

    address: str
    types: t.Tuple[TypeWish, ...]
    state: str = "exact"
    mixed_size: str = "unmanaged"


@dataclasses.dataclass(frozen=True)
class GpuName:
    """A GPU of the host, as far as it is needed to find it."""

    address: str
    vendor_device: str


def argument_problems(gpus: t.Sequence[t.Mapping[str, t.Any]], state: str) -> t.List[Blocker]:
    """What is wrong with the arguments themselves, before the host is asked."""
    found = []
    for number, entry in enumerate(gpus, 1):
        target = f"entry {number} of gpus"
        given = [name for name in _SELECTORS if entry.get(name) is not None]
        if len(given) != 1:
            said = " and ".join(given) or "none"
            found.append(
                Blocker(target, f"a GPU is chosen by one of {', '.join(_SELECTORS)}, and here by {said}", "Keep exactly one of them")
            )
        for name, check in (("address", _device_names.check_pci_address), ("vendor_device", _device_names.check_pci_id)):
            if entry.get(name) is not None:
                try:
                    check(entry[name])
                except ValueError as error:
                    found.append(Blocker(target, str(error), "Write it that way"))
        found += _type_problems(target, entry.get("types") or [], state)
        if not entry.get("types") and state == "present":
            found.append(Blocker(target, "it names no type, so nothing would be made", "List the types, or remove the entry"))
    return found


def _type_problems(target: str, types: t.Sequence[t.Mapping[str, t.Any]], state: str) -> t.Iterator[Blocker]:
    for entry in types:
        name, count, placements = entry["type"], entry.get("count"), entry.get("placement_ids") or []
        least = 1 if state == "present" else 0
        if state != "absent" and (count is None or count < least):
            yield Blocker(target, f"the count of {name} is {count}", f"Write a number of at least {least}" + _ZERO[least])
        if placements and count is not None and len(placements) != count:
            yield Blocker(target, f"{name} has {len(placements)} placement_ids for {count} vGPUs", "Give one for each, or none")
        if any(place < 0 for place in placements) or len(set(placements)) != len(placements):
            yield Blocker(target, f"the placement_ids of {name} are not different numbers of at least 0", "Correct them")


_ZERO = {0: "; 0 means none of it", 1: "; to remove vGPUs, use state: exact or absent"}


def planned_problems(planned: t.Sequence[t.Mapping[str, t.Any]]) -> t.List[Blocker]:
    """What is wrong with planned virtual functions, which come from another module's result."""
    return [
        Blocker(f"entry {number} of planned_vfs", "it has no address and count", "Give it planned_vfs of sriov_vfs's result")
        for number, entry in enumerate(planned, 1)
        if not str(entry.get("count", "")).isdigit() or "address" not in entry
    ]


def select(
    gpus: t.Sequence[t.Mapping[str, t.Any]], found: t.Sequence[GpuName], state: str, mixed_size: str
) -> t.Tuple[t.List[Wish], t.List[Blocker]]:
    """Each entry with the GPUs that it means, by address. An entry that means none, and a GPU that two entries mean, is a Blocker."""
    by_address = sorted(found, key=lambda gpu: gpu.address)
    wishes: t.Dict[str, Wish] = {}
    blockers = []
    for number, entry in enumerate(gpus, 1):
        chosen = _chosen(entry, by_address)
        if not chosen:
            said = ", ".join(f"{name}: {entry[name]}" for name in _SELECTORS if entry.get(name) is not None)
            have = ", ".join(f"{gpu.address} ({gpu.vendor_device})" for gpu in by_address) or "none"
            blockers.append(Blocker(f"entry {number} of gpus", f"no GPU of this host is {said}; it has {have}", "Name one of these"))
        for gpu in chosen:
            if gpu.address in wishes:
                blockers.append(
                    Blocker(f"GPU {gpu.address}", "more than one entry of gpus means it", "Say in one entry all that it should have")
                )
            types = tuple(TypeWish(w["type"], w.get("count") or 0, tuple(w.get("placement_ids") or ())) for w in entry.get("types") or [])
            wishes[gpu.address] = Wish(gpu.address, types, state, mixed_size)
    return [wishes[address] for address in sorted(wishes)], blockers


def _chosen(entry: t.Mapping[str, t.Any], by_address: t.Sequence[GpuName]) -> t.List[GpuName]:
    if entry.get("address") is not None:
        return [gpu for gpu in by_address if gpu.address == entry["address"].lower()]
    if entry.get("vendor_device") is not None:
        return [gpu for gpu in by_address if gpu.vendor_device == entry["vendor_device"].upper()]
    index = entry["index"]
    return [by_address[index]] if 0 <= index < len(by_address) else []


def resolve(gpu: Gpu, wished: str) -> t.Tuple[t.Optional[VgpuType], t.Optional[Blocker]]:
    """The driver's type that a name means: its full name, or the part without the brand. A GPU never has to guess."""
    meant = [kind for kind in gpu.types if kind.name == wished] or [kind for kind in gpu.types if kind.plain == wished]
    if len(meant) == 1:
        return meant[0], None
    if meant:
        names = ", ".join(kind.name for kind in meant)
        return None, Blocker(gpu.target, f"{wished} means more than one type: {names}", "Write the full name", stops="target")
    offered = {kind.plain: kind.name for kind in gpu.types}
    near = difflib.get_close_matches(wished.rpartition(" ")[2], list(offered), _NEAREST, 0.5) or list(offered)
    if not offered:
        return None, Blocker(
            gpu.target,
            f"the driver names no type, so {wished} cannot be found (is every instance taken, or MIG on?)",
            "Remove what is there (state: absent) and run again",
            stops="target",
        )
    return None, Blocker(
        gpu.target, f"the driver offers no type {wished}", f"The nearest are {', '.join(offered[n] for n in near)}", stops="target"
    )
