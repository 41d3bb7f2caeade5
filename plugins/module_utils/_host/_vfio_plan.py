# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Binding to VFIO and releasing: what to change, and what stops it. Pure: a wish and one look at the host in, a plan out.

What may be bound goes by the IOMMU group. A group is changed as a whole or not at all: the first refusal stops its plan, and the plans of
other groups go on.
"""

from __future__ import annotations

import typing as t

from .._change import KNOWN_AFTER_APPLY, Blocker, Change, Plan
from . import _boot_binding
from ._boot_binding import Rule
from ._vfio import Member, Seen, Unit, Wish, driver_of

BIND, RELEASE, LOAD = "bind", "release", "load"


def make_plan(wish: Wish, seen: Seen) -> Plan:
    """Changes in the order in which they are made: drivers to load, functions group by group, the rules for the next boot."""
    plan = Plan()
    if wish.owner == "operator" and wish.scope != "companions":
        problem = "the GPU Operator binds the devices of this host, and there must be one owner"
        remedy = (
            "Leave it to the operator, use scope: companions for what it leaves, or make the host the owner (gpufleet_device_owner: host)"
        )
        plan.blockers.append(Blocker("host", problem, remedy))
        return plan
    rules, strange = _boot_binding.own(seen.rules)
    wanted_rules = dict(rules)
    for selector in seen.unmatched:
        if wish.state == "released" and selector.address in wanted_rules:
            del wanted_rules[selector.address]  # the device is gone, and the rule goes too
            continue
        problem = "there is no such function on this host"
        plan.blockers.append(Blocker(str(selector), problem, "Look at gpu_node_info, or at lspci -Dnn; a GPU may be lost", "target"))
    loads: t.Dict[str, Change] = {}
    changes: t.List[Change] = []
    for unit in seen.units:
        targets = targets_of(wish, unit, rules)
        moves = [change for member in targets for change in [_move(wish, member, seen)] if change is not None]
        kept = {rule.address: rule for rule in _rules(wish, targets, seen)}
        stale = {member.address for member in targets if rules.get(member.address) != kept.get(member.address)}
        refused = _unfit(wish, unit, rules) + _refusals(wish, unit, targets, {move.target for move in moves}, stale, seen)
        if refused:
            plan.blockers += refused
            continue
        changes += moves
        for move in moves:
            if move.action == BIND and move.after not in seen.drivers:
                loads.setdefault(move.after, Change(f"driver {move.after}", LOAD, None, "loaded", f"{move.target} is to have it"))
        for member in targets:
            wanted_rules.pop(member.address, None)
        wanted_rules.update(kept)
        plan.warnings += _warnings(wish, unit, targets, {move.target for move in moves})
    plan.changes = [*loads.values(), *changes]
    _plan_rules(plan, seen.rules, rules, wanted_rules, strange)
    return plan


def targets_of(wish: Wish, unit: Unit, ruled: t.Collection[str]) -> t.List[Member]:
    """The functions of a group that the wish is about, GPUs first: what the kernel is most likely to refuse is tried first.

    Foreign ones are those that the user lists, and for a release those that we have bound (``ruled``: addresses that have a rule of ours).
    """
    endpoints = [member for member in unit.members if not member.function.is_bridge]
    if wish.scope == "function":
        found = [member for member in endpoints if member.address in unit.chosen]
    else:
        found = [
            member
            for member in endpoints
            if (not member.foreign or member.address in wish.foreign or (wish.state == "released" and _ours(member, ruled)))
            and not (wish.scope == "companions" and member.function.is_gpu)
        ]
    return sorted(found, key=lambda member: (not member.function.is_gpu, member.address))


def _ours(member: Member, ruled: t.Collection[str]) -> bool:
    return member.displaced is not None or member.address in ruled


def _move(wish: Wish, member: Member, seen: Seen) -> t.Optional[Change]:
    """What is to be done to one function now, or None."""
    present = member.function.driver
    if wish.state == "bound":
        driver = driver_of(wish, member, seen.drivers)
        if present == driver:
            return None
        return Change(member.address, BIND, present, driver, "VFIO is to have it")
    override = member.override or ""
    before = member.displaced.driver if member.displaced else None
    half_way = "vfio" in override or (member.displaced is not None and override == before)
    if not member.function.on_vfio and not half_way:
        return None
    if present is not None and not member.function.on_vfio:
        return Change(member.address, RELEASE, present, present, "the host keeps it")
    if wish.release_to == "none":
        return Change(member.address, RELEASE, present, None, "no driver is to have it")
    known = before is not None and before in seen.drivers
    return Change(member.address, RELEASE, present, before if known else KNOWN_AFTER_APPLY, "the host is to have it back")


def _rules(wish: Wish, targets: t.Sequence[Member], seen: Seen) -> t.List[Rule]:
    if wish.state != "bound" or wish.persist != "boot":
        return []
    return [Rule(m.address, m.function.vendor, m.function.device, driver_of(wish, m, seen.drivers)) for m in targets]


def _plan_rules(
    plan: Plan, text: t.Optional[str], rules: t.Mapping[str, Rule], wanted: t.Mapping[str, Rule], strange: t.Sequence[str]
) -> None:
    if wanted == rules:
        return
    target = f"file {_boot_binding.RULES}"
    if strange:
        problem = f"it has a line that is not ours: {strange[0][:100]}"
        plan.blockers.append(Blocker(target, problem, "Move that line into a file of its own, then run this again", "target"))
        return
    after = _boot_binding.text_of(wanted.values())
    plan.changes.append(Change(target, "write" if after else "remove", text, after, "what is bound when the host boots"))


def _refusals(
    wish: Wish, unit: Unit, targets: t.Sequence[Member], moving: t.Collection[str], stale: t.Collection[str], seen: Seen
) -> t.List[Blocker]:
    """What stops this group from what is planned for it."""
    found = _unfit_to_bind(wish, unit, targets, moving, seen) if wish.state == "bound" else []
    for member in targets:
        if member.elsewhere and (member.address in moving or member.address in stale):
            problem = f"{', '.join(member.elsewhere)} already says which driver has it at boot"
            found.append(_blocker(member, problem, "Remove that first (and rebuild the initramfs): one place decides"))
        if member.address not in moving:
            continue
        if member.virtual:
            problem = f"it has {member.virtual} virtual functions, which would vanish"
            found.append(_blocker(member, problem, "Remove them first (sriov_vfs with count: 0), or name the virtual functions themselves"))
        if member.vgpus:
            problem = f"it has {member.vgpus} vGPUs, which would vanish"
            found.append(_blocker(member, problem, "Remove them first (mdev_create with state: absent)"))
    return found + (_held(wish, unit, moving, seen) if moving else [])


def _blocker(member: Member, problem: str, remedy: str) -> Blocker:
    return Blocker(member.address, problem, remedy, "target")


def _unfit(wish: Wish, unit: Unit, ruled: t.Collection[str]) -> t.List[Blocker]:
    """What is wrong with the functions that the user named, or with their whole group."""
    found = []
    for member in unit.members:
        if member.silent:
            problem = "the kernel does not answer: it still does something else to it, such as an unbind that waits for who holds it"
            found.append(_blocker(member, problem, "Stop the VM or process that has it, then run again"))
        if member.address not in unit.chosen:
            continue
        if member.function.is_bridge:
            found.append(_blocker(member, "it is a bridge, which stays with the kernel", "Name the devices behind it"))
        elif member.foreign and member.address not in wish.foreign and not (wish.state == "released" and _ours(member, ruled)):
            problem = f"it is no NVIDIA device ({_named(member)})"
            found.append(_blocker(member, problem, "Name it in allow.foreign too if it is really meant"))
    return found


def _unfit_to_bind(wish: Wish, unit: Unit, targets: t.Sequence[Member], moving: t.Collection[str], seen: Seen) -> t.List[Blocker]:
    found = []
    head = ", ".join(sorted(unit.chosen))
    if unit.group is None:
        found.append(Blocker(head, "it has no IOMMU group", "Turn the IOMMU on (firmware, then kernel_cmdline) and reboot", "target"))
    for member in unit.members:
        listed = member.address in wish.foreign or member.address in unit.chosen
        if member.foreign and not member.function.is_bridge and not member.function.on_vfio and not listed:
            problem = f"it is in group {unit.group} of {head} and is no NVIDIA device ({_named(member)})"
            found.append(_blocker(member, problem, "Use another slot, or name it in allow.foreign if it may go to the VM too"))
    for member in targets:
        if member.boot_vga and not member.foreign and not wish.boot_vga:
            problem = "it is the display that the firmware booted with (boot_vga)"
            found.append(_blocker(member, problem, "Make another display the first one in the firmware, or set allow.boot_vga"))
        if member.address not in moving:
            continue
        found += [_blocker(member, f"it {use}", "Free it first; nothing overrides this") for use in member.uses]
        driver = driver_of(wish, member, seen.drivers)
        if driver in seen.absent:
            found.append(_blocker(member, *seen.absent[driver]))
        elif driver in seen.by_hand:
            problem = f"the driver {driver} is not loaded, and no program runs for a host in a directory"
            found.append(_blocker(member, problem, f"Run modprobe {driver} on the host, then run this again"))
    return found


def _held(wish: Wish, unit: Unit, moving: t.Collection[str], seen: Seen) -> t.List[Blocker]:
    """Holders of what would be changed. Unknown holders count, whatever the user says."""
    found = []
    for member in concerned(wish, unit, moving):
        if member.holders is None:
            problem = f"it cannot be told who holds it: {seen.unseen}"
            found.append(_blocker(member, problem, "Run on the host itself as root, with its own /proc"))
        elif member.holders and not wish.wait:
            problem = f"it is held by {', '.join(map(str, member.holders))}"
            found.append(_blocker(member, problem, "Stop the VM or process first, or set in_use: wait"))
    return found


def concerned(wish: Wish, unit: Unit, moving: t.Collection[str]) -> t.List[Member]:
    """Whose holders matter: what is changed, what of its group a VM can have, and on behalf of the operator the whole group."""
    return [
        member
        for member in unit.members
        if not member.function.is_bridge and (member.address in moving or member.function.on_vfio or wish.scope == "companions")
    ]


def _warnings(wish: Wish, unit: Unit, targets: t.Sequence[Member], moving: t.Collection[str]) -> t.List[str]:
    found = [
        f"{member.address}: {', '.join(member.elsewhere)} has it bound at boot, not this collection"
        for member in targets
        if member.elsewhere and member.address not in moving
    ]
    if moving:
        found += [
            f"{member.address} is held by {', '.join(map(str, member.holders))}: waiting for that to end"
            for member in concerned(wish, unit, moving)
            if member.holders
        ]
    if wish.state != "bound":
        return found
    bound = {member.address for member in targets}
    left = [
        member
        for member in unit.members
        if not member.function.is_bridge and member.address not in bound and member.function.driver and not member.function.on_vfio
    ]
    if left and wish.scope == "function":
        names = ", ".join(f"{member.address} ({_named(member)})" for member in left)
        found.append(f"group {unit.group} also holds {names}: no VM can have the group until that is bound too (scope: group)")
    return found


def _named(member: Member) -> str:
    function = member.function
    return f"{function.vendor}:{function.device}, class {function.kind}, {'driver ' + function.driver if function.driver else 'no driver'}"
