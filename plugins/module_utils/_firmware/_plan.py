# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Which BIOS settings to write so that the next reset brings what is asked for. Pure: values in, a plan out."""

from __future__ import annotations

import dataclasses
import difflib
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import Blocker, Change, Plan, shown
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._firmware import _registry, _terms
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._firmware._bios import ON_RESET, Observed

_LEAVE_OUT = "or leave the term out for this host, if its firmware always has it on (gpufleet_firmware_attributes: {%s: null})"


@dataclasses.dataclass(frozen=True)
class Wish:
    """One attribute and the value that it must have, and what was asked for."""

    name: str
    value: t.Any
    asked: str


def target_of(name: str) -> str:
    return f"setting {name}"


def wishes(wanted: t.Mapping[str, t.Any], seen: Observed, vendor: t.Optional[str]) -> t.Tuple[t.List[Wish], t.List[Blocker]]:
    """What the terms and names of ``wanted`` mean on this machine, in the order of attribute names."""
    made: t.Dict[str, Wish] = {}
    blockers: t.List[Blocker] = []
    for key in sorted(wanted):
        result = _term(key, wanted[key], seen, vendor) if key in _terms.TERMS else _named(key, wanted[key], seen)
        if isinstance(result, Blocker):
            blockers.append(result)
            continue
        other = made.setdefault(result.name, result)
        if other.value != result.value:
            problem = f"{other.asked} and {result.asked} contradict each other: {shown(other.value)} and {shown(result.value)}"
            blockers.append(Blocker(target_of(result.name), problem, "Ask for one of them"))
    return [made[name] for name in sorted(made)], blockers


def _named(name: str, value: t.Any, seen: Observed) -> t.Union[Wish, Blocker]:
    names = _terms.found(name, seen.current)
    if not names:
        near = _nearest(name, seen.current)
        there = f"the nearest are {', '.join(near)}" if near else f"the terms are {', '.join(_terms.TERMS)}"
        return Blocker(target_of(name), f"this machine has no such setting; {there}", "Correct the name")
    if len(names) > 1:
        return Blocker(target_of(name), f"this machine has several: {', '.join(names)}", "Write the one that is meant with its suffix")
    attribute = seen.attribute(names[0])
    if attribute.kind == "Password":
        return Blocker(target_of(names[0]), "it is a password, and what is written here can be seen", "Set it by other means")
    try:
        return Wish(names[0], _registry.checked(attribute, seen.current[names[0]], value), f"{name}: {shown(value)}")
    except ValueError as error:
        return Blocker(target_of(names[0]), f"{shown(value)!r} is no value for it: {error}", "Correct the value")


def _term(term: str, value: t.Any, seen: Observed, vendor: t.Optional[str]) -> t.Union[Wish, Blocker]:
    target = f"term {term}"
    on = _terms.yes_or_no(value)
    if on is None:
        return Blocker(target, f"{shown(value)!r} is neither yes nor no", "Write true or false")
    if vendor is None:
        who = ", ".join(str(name) for name in seen.names if name) or "nobody"
        return Blocker(
            target,
            f"the vendor of this machine is not one of {', '.join(_terms.VENDORS)}: it says {who}",
            "Ask for the setting by its own name",
        )
    candidates = _terms.SETTINGS[vendor].get(term, ())
    for candidate in candidates:
        names = _terms.found(candidate.name, seen.current)
        if len(names) > 1:
            problem = f"this machine has several settings for it: {', '.join(names)}"
            return Blocker(target, problem, "Ask for the one that is meant by its own name")
        if names:
            return _spelled(term, on, names[0], candidate, seen)
    alike = sorted(name for name in seen.current if _terms.LOOKS_LIKE[term].search(name))[:5]
    tried = f" (none of {', '.join(candidate.name for candidate in candidates)})" if candidates else ""
    there = f"; by their names these could be meant: {', '.join(alike)}" if alike else ""
    problem = f"this machine has no setting that is known for it{tried}{there}"
    return Blocker(target, problem, f"Ask for the setting by its own name, {_LEAVE_OUT % term}")


def _spelled(term: str, on: bool, name: str, setting: _terms.Setting, seen: Observed) -> t.Union[Wish, Blocker]:
    due, current = seen.due(name), seen.current[name]
    asked = f"{term}: {shown(on)}"
    if on and due in setting.also_on:
        return Wish(name, due, asked)
    value = _terms.spelling(on, seen.attribute(name).choices(current), current)
    if value is None:
        problem = f"it is {shown(current)!r}, and nothing tells how it says {'on' if on else 'off'}"
        return Blocker(target_of(name), problem, f"Ask for {name} with its value instead of {term}")
    return Wish(name, value, asked)


def _nearest(name: str, known: t.Iterable[str]) -> t.List[str]:
    """At most five names like ``name``: those that contain it, then those that are written much like it."""
    names = sorted(known)
    plain = {other: _terms.plain_name(other).casefold() for other in names}
    wanted = _terms.plain_name(name).casefold()
    inside = [other for other in names if len(wanted) > 2 and wanted in plain[other]]
    close = difflib.get_close_matches(wanted, plain.values(), n=5, cutoff=0.6)
    written = sorted((other for other in names if plain[other] in close), key=lambda other: close.index(plain[other]))
    return list(dict.fromkeys([*inside, *written]))[:5]


def make_plan(wanted: t.Mapping[str, t.Any], seen: Observed, vendor: t.Optional[str]) -> Plan:
    """The settings whose value after the next reset would not be the wanted one."""
    asked, blockers = wishes(wanted, seen, vendor)
    plan = Plan(blockers=blockers)
    for wish in asked:
        due = seen.due(wish.name)
        if due == wish.value:
            continue
        if seen.attribute(wish.name).read_only:
            problem = f"it is {shown(due)!r}, and the firmware does not let it be written"
            remedy = "Look for a setting that it depends on, a lockdown of the configuration, or a job that waits for a reboot"
            plan.blockers.append(Blocker(target_of(wish.name), problem, remedy))
            continue
        plan.changes.append(Change(target_of(wish.name), "set", due, wish.value, wish.asked))
    if plan.changes and not seen.settings:
        problem = "the service offers no pending settings (@Redfish.Settings), so it would change them under the running host or not at all"
        plan.blockers.append(Blocker(f"system {seen.system}", problem, "Update the BMC's firmware, or make the settings by hand"))
    elif plan.changes and seen.apply_times and ON_RESET not in seen.apply_times:
        problem = f"the service applies settings only at {', '.join(seen.apply_times)}, not at a reset of the host's own"
        plan.blockers.append(Blocker(f"system {seen.system}", problem, "Make the settings by hand, in a maintenance window"))
    foreign = others_pending(seen, asked)
    if foreign:
        plan.warnings.append(f"The next reset of this host also changes settings that were not asked for: {', '.join(foreign)}")
    return plan


def passwords(wanted: t.Mapping[str, t.Any], seen: Observed) -> t.Set[str]:
    """Values that were asked for although they are passwords. They are refused, and must not be shown either."""
    names = {key: _terms.found(key, seen.current) for key in wanted if key not in _terms.TERMS}
    secret = {key for key, found in names.items() if any(seen.attribute(name).kind == "Password" for name in found)}
    return {str(wanted[key]) for key in secret if wanted[key]}


def others_pending(seen: Observed, asked: t.Iterable[Wish]) -> t.List[str]:
    """Names of attributes that wait for the next reset although nobody asks for them here. Names only: a value may be a password."""
    names = {wish.name for wish in asked}
    return sorted(
        name for name, value in seen.pending.items() if name not in names and name in seen.current and value != seen.current[name]
    )


def not_taken(changes: t.Iterable[Change], seen: Observed) -> t.List[Blocker]:
    """What was written and is not pending."""
    found: t.List[Blocker] = []
    for change in changes:
        due = seen.due(change.target[len("setting ") :])
        if due != change.after:
            problem = f"{shown(change.after)} was written, and after the next reset it would still be {shown(due)}"
            found.append(Blocker(change.target, problem, "Look into the BMC's log and job queue, and for a lockdown of the configuration"))
    return found
