# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""From what a GPU has to what it should have: which vGPUs stay, go and come, and what forbids that. Pure: no I/O.

What a change does is in its ``before`` (what is removed) or ``after`` (what is made), in the words of :data:`Parts`.
"""

from __future__ import annotations

import dataclasses
import typing as t
import uuid

from .._change import KNOWN_AFTER_APPLY, Blocker, Change, Plan
from . import _vgpu_backends, _vgpu_wish
from ._vgpu import Gpu, Placed, Vgpu, VgpuType, size_mib, verdict
from ._vgpu_wish import TypeWish, Wish

CREATE, REMOVE, SET = "create", "remove", "set"


@dataclasses.dataclass(frozen=True)
class Rules:
    """``waits``: a held vGPU that must go is waited for, not refused. ``asks_driver``: nvidia-smi can be run."""

    waits: bool
    asks_driver: bool
    space: t.Optional[uuid.UUID]  #: of this machine's UUIDs


@dataclasses.dataclass
class Sorted:
    """The vGPUs of a GPU that stay and that go, and what is to come."""

    keep: t.List[Vgpu] = dataclasses.field(default_factory=list)
    remove: t.List[Vgpu] = dataclasses.field(default_factory=list)
    create: t.List[Placed] = dataclasses.field(default_factory=list)


def plan(gpu: Gpu, wish: Wish, rules: Rules) -> Plan:
    """The changes of one GPU, removals first, then the mixed-size mode, then the largest types first."""
    if gpu.backend is None:
        if wish.state == "absent" or not any(entry.count for entry in wish.types):
            return Plan()
        return Plan(blockers=[_stop(gpu, f"it cannot make vGPUs: {gpu.why}", "Mend that first (driver, sriov_vfs), then run again")])
    wanted, blockers = _resolved(gpu, wish)
    if blockers:
        return Plan(blockers=blockers)
    parts = _sort(gpu, wanted, wish)
    out = Plan()
    out.blockers += _held(gpu, parts, rules, out.warnings)
    out.blockers += _forbidden(gpu, parts, wish)
    if parts.create and gpu.backend == "mdev" and rules.space is None:
        out.blockers.append(_stop(gpu, "the host has no machine id, from which the UUIDs are made", "Run systemd-machine-id-setup"))
    mode = _mode(gpu, parts, wish, rules)
    out.blockers += mode.blockers
    if out.blockers:
        return out
    out.changes = [_removal(gpu, vgpu, wish) for vgpu in parts.remove] + mode.changes + _creations(gpu, parts, rules)
    return out


def _stop(gpu: Gpu, problem: str, remedy: str) -> Blocker:
    return Blocker(gpu.target, problem, remedy, stops="target")


def _resolved(gpu: Gpu, wish: Wish) -> t.Tuple[t.Dict[str, t.Tuple[VgpuType, TypeWish]], t.List[Blocker]]:
    wanted: t.Dict[str, t.Tuple[VgpuType, TypeWish]] = {}
    blockers: t.List[Blocker] = []
    if wish.state == "absent" and not gpu.vgpus:
        return wanted, blockers
    for entry in wish.types:
        kind, blocker = _vgpu_wish.resolve(gpu, entry.type)
        if blocker:
            blockers.append(blocker)
        elif kind and kind.name in wanted:
            blockers.append(_stop(gpu, f"{kind.name} is listed more than once", "Add the counts up in one entry"))
        elif kind:
            wanted[kind.name] = (kind, entry)
            if entry.placement_ids and gpu.backend != "vendor_vfio":
                blockers.append(
                    _stop(gpu, f"placement_ids are given for {kind.name}, and mediated devices take none", "Remove placement_ids")
                )
    return wanted, blockers


def _sort(gpu: Gpu, wanted: t.Mapping[str, t.Tuple[VgpuType, TypeWish]], wish: Wish) -> Sorted:
    parts = Sorted()
    if wish.state == "absent":
        return Sorted(remove=[vgpu for vgpu in gpu.vgpus if not wish.types or vgpu.name in wanted])
    for name, (kind, entry) in wanted.items():
        # What a VM holds stays before what is idle.
        have = sorted((vgpu for vgpu in gpu.vgpus if vgpu.name == name), key=lambda vgpu: (not vgpu.held, gpu.parents.index(vgpu.parent)))
        fitting, other, free = _by_placement(have, entry.placement_ids)
        if wish.state == "present":
            fitting, other = have, []
        stays = fitting[: entry.count] if wish.state == "exact" else fitting
        parts.keep += stays
        parts.remove += other + [vgpu for vgpu in fitting if vgpu not in stays]
        missing = max(0, entry.count - len(stays))
        parts.create += [(kind, place) for place in (free[:missing] if entry.placement_ids else [None] * missing)]
    strangers = [vgpu for vgpu in gpu.vgpus if vgpu.name not in wanted]
    (parts.remove if wish.state == "exact" else parts.keep).extend(strangers)
    parts.create.sort(key=lambda placed: (-(placed[0].size_mib or 0), placed[0].name, placed[1] or 0))
    return parts


def _by_placement(have: t.Sequence[Vgpu], places: t.Tuple[int, ...]) -> t.Tuple[t.List[Vgpu], t.List[Vgpu], t.List[t.Optional[int]]]:
    """vGPUs that are where one is wanted, those that are elsewhere, and the places that are left.

    A vGPU whose place the driver does not tell counts as right.
    """
    if not places:
        return list(have), [], []
    free: t.List[t.Optional[int]] = list(places)
    fitting, other, unsaid = [], [], []
    for vgpu in have:
        if vgpu.placement_id is None:
            unsaid.append(vgpu)
        elif vgpu.placement_id in free:
            free.remove(vgpu.placement_id)
            fitting.append(vgpu)
        else:
            other.append(vgpu)
    for vgpu in unsaid:
        fitting.append(vgpu)
        del free[:1]
    return fitting, other, free


def _held(gpu: Gpu, parts: Sorted, rules: Rules, warnings: t.List[str]) -> t.List[Blocker]:
    """A vGPU that is held never goes. One Blocker for each that would have to."""
    found = []
    for vgpu in parts.remove:
        if not vgpu.held:
            continue
        name = f"{vgpu.name or 'the vGPU of type ' + vgpu.type_id} ({vgpu.device})"
        by = "it cannot be told by whom" if vgpu.holders is None else ", ".join(str(holder) for holder in vgpu.holders)
        if rules.waits:
            warnings.append(f"{gpu.target}: {name} is in use by {by}; this would wait until it is not")
        else:
            problem = f"{name} would have to go, and is in use: {by}"
            remedy = "Become root on the host itself" if vgpu.holders is None else "Stop that VM or process, or use in_use: wait"
            found.append(_stop(gpu, problem, remedy))
    return found


def _forbidden(gpu: Gpu, parts: Sorted, wish: Wish) -> t.List[Blocker]:
    """What would fail half-way. Nothing is removed before all that shall come is known to fit."""
    if not parts.create:
        return []
    unnamed = [vgpu for vgpu in parts.keep + parts.remove if vgpu.name is None]
    if unnamed:
        problem = f"{unnamed[0].device} has a vGPU of type {unnamed[0].type_id}, whose name cannot be read back from the driver"
        return [_stop(gpu, problem, "Remove it (state: absent without types) and run again")]
    final = [
        (gpu.named(vgpu.name) or VgpuType(vgpu.type_id, vgpu.name, size_mib(vgpu.name)), vgpu.placement_id)
        for vgpu in parts.keep
        if vgpu.name is not None
    ]
    final += parts.create
    sizes = {kind.size_mib for kind, _place in final if not kind.mig_backed}
    if len(sizes) > 1 and wish.mixed_size != "on" and not (wish.mixed_size == "unmanaged" and gpu.mixed):
        names = ", ".join(sorted({kind.name for kind, _place in final}))
        return [_stop(gpu, f"it would have types of different sizes ({names}) outside mixed-size mode", "Use one size, or mixed_size: on")]
    judged = verdict(gpu, final)
    if judged.fits is False:
        return [_stop(gpu, f"that does not fit: {judged.why}", "Lower the counts")]
    if judged.fits is None and parts.remove:
        problem = f"vGPUs would have to go before it is known that the wanted ones fit: {judged.why}"
        return [_stop(gpu, problem, "Remove them first on purpose (state: absent), then run again")]
    refused = sorted({kind.name for kind, _place in parts.create if kind.offered is False})
    if refused and not parts.remove and (not gpu.vgpus or len(sizes) <= 1):
        problem = f"the driver has no room for {', '.join(refused)} now" + ("" if gpu.vgpus else ", although it has no vGPU (is MIG on?)")
        return [_stop(gpu, problem, "See what occupies it, or correct the type")]
    return []


def _mode(gpu: Gpu, parts: Sorted, wish: Wish, rules: Rules) -> Plan:
    if wish.mixed_size == "unmanaged" or not rules.asks_driver or wish.state == "absent":
        return Plan()
    on = wish.mixed_size == "on"
    if gpu.mixed is on or (gpu.mixed is None and (not parts.create or parts.keep)):
        return Plan()
    if parts.keep:
        problem = f"mixed-size mode is {'off' if on else 'on'} and can be changed only while the GPU has no vGPU; {len(parts.keep)} stay"
        return Plan(blockers=[_stop(gpu, problem, "Remove its vGPUs first, or use mixed_size: unmanaged")])
    before = None if gpu.mixed is None else ("on" if gpu.mixed else "off")
    after = {"gpu": gpu.address, "mixed_size": wish.mixed_size}
    return Plan([Change(f"{gpu.target} mixed-size mode", SET, before, after, f"mixed_size is {wish.mixed_size}")])


def _removal(gpu: Gpu, vgpu: Vgpu, wish: Wish) -> Change:
    before = {"gpu": gpu.address, "parent": vgpu.parent, "device": vgpu.device, "type": vgpu.name or vgpu.type_id}
    reason = "it is not among what is wanted" if wish.state == "exact" else "it shall be absent"
    return Change(f"vGPU {vgpu.device}", REMOVE, before, None, reason)


def _creations(gpu: Gpu, parts: Sorted, rules: Rules) -> t.List[Change]:
    taken = {vgpu.parent for vgpu in parts.keep}
    free = [parent for parent in gpu.parents if not gpu.one_each or parent not in taken]
    devices = {vgpu.device for vgpu in parts.keep}
    changes = []
    for number, (kind, place) in enumerate(parts.create):
        parent = free[number] if gpu.one_each else free[0]
        device = parent
        if gpu.backend == "mdev" and rules.space is not None:
            device = _first_free(rules.space, parent, kind.name, devices)
            devices.add(device)
        after = {"gpu": gpu.address, "parent": parent, "device": device, "type": kind.name}
        if place is not None:
            after["placement_id"] = str(place)
        changes.append(Change(f"vGPU {device}", CREATE, None, after, f"{kind.plain} is wanted"))
    return changes


def _first_free(space: uuid.UUID, parent: str, name: str, devices: t.Container[str]) -> str:
    ordinal = 0
    while _vgpu_backends.identity(space, parent, name, ordinal) in devices:
        ordinal += 1
    return _vgpu_backends.identity(space, parent, name, ordinal)


def planned(wish: Wish, vfs: int) -> Plan:
    """What will be made on a GPU whose virtual functions do not exist yet: all that can be said before they do."""
    target = f"GPU {wish.address}"
    total = sum(entry.count for entry in wish.types)
    if wish.state == "absent" or not total:
        return Plan()
    if total > vfs:
        problem = f"{total} vGPUs are wanted, and {vfs} virtual functions are planned, which take one each"
        return Plan(blockers=[Blocker(target, problem, "Lower the counts, or make more virtual functions", stops="target")])
    changes: t.List[Change] = []
    for entry in wish.types:
        for _number in range(entry.count):
            after = {"gpu": wish.address, "parent": KNOWN_AFTER_APPLY, "device": KNOWN_AFTER_APPLY, "type": entry.type}
            changes.append(Change(f"vGPU {len(changes) + 1} of {target}", CREATE, None, after, f"{entry.type} is wanted"))
    return Plan(changes=changes)
