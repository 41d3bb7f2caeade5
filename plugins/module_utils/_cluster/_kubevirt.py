# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""KubeVirt's list of devices that VMs may use, its feature gates, and its own handling of mediated devices: the plan for all three.

The lists are atomic for the API server, so a writer replaces them whole: foreign entries and their order are kept by computing the
whole list anew and writing it with the resource version that it was computed from. Without any list KubeVirt lets VMs use everything;
with an empty one, nothing. So the list is never removed, and making the first one is a decision about everybody's VMs.

Sources: kubevirt/kubevirt, pkg/virt-controller/services/renderresources.go and pkg/virt-handler/device-manager (v1.7).
"""

from __future__ import annotations

import dataclasses
import json
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _device_names, _names
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import KNOWN_AFTER_APPLY, Blocker, Change, Plan
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _fleet, _kubevirt_hco, _kubevirt_settings
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._kubevirt_merge import merged
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._kubevirt_request import Request
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._kubevirt_seen import (
    GATE_OFF,
    PERMITTED,
    Entry,
    Object,
    Seen,
    User,
    environment_name,
    handling,
    names_in,
)

# ------------------------------------------------------------------ permits


def _cut_off(before: t.Optional[Object], after: t.Optional[Object], users: t.Iterable[User]) -> t.Dict[str, t.List[str]]:
    """Resource name -> who uses it and could no longer start: permitted before (or everything was), not afterwards."""
    allowed = names_in(after)
    found: t.Dict[str, t.List[str]] = {}
    for user in users:
        for name in user.resources:
            if name not in allowed and (before is None or name in names_in(before)):
                found.setdefault(name, []).append(user.who)
    return {name: sorted(found[name]) for name in sorted(found)}


def adopted(cut_off: t.Iterable[str]) -> t.List[Entry]:
    """Entries for devices in use that no list had. Only a vGPU's name tells its selector; that of a PCI device cannot be guessed.

    A name that is no resource name is not adopted: virt-handler panics on one without a slash.
    """
    return [Entry("mdev", name.partition("/")[2], name) for name in cut_off if _device_names.plain_type(name) and not _name_problem(name)]


def _name_problem(name: str) -> str:
    try:
        _names.check_resource_name(name)
    except ValueError as error:
        return str(error)
    return ""


def _may_be_meant(name: str, request: Request) -> bool:
    """May a planned entry, whose resource name nobody knows yet, turn out to be this one?"""
    planned = [entry for entry in request.entries if entry.planned]
    plain = _device_names.plain_type(name)
    if plain is None:
        return any(entry.kind == "pci" for entry in planned)
    return any(entry.kind == "mdev" and _device_names.plain_type(entry.selector) == plain for entry in planned)


def _permits(seen: Seen, request: Request, plan: Plan) -> t.Optional[Object]:
    before = seen.configuration.get(PERMITTED)
    after, changes, blockers = merged(before, request, seen.hco is not None)
    cut_off = _cut_off(before, after, seen.users or ()) if after is not None and (changes or before is None) else {}
    if before is None and after is not None and cut_off and request.adopt_in_use:
        extended = dataclasses.replace(request, entries=(*request.entries, *adopted(cut_off)))
        after, changes, blockers = merged(before, extended, seen.hco is not None)
        cut_off = _cut_off(before, after, seen.users or ())
    if before is None and after is not None:
        changes.insert(
            0, Change(seen.target, "restrict", "VMs may use every device", "VMs may use the listed devices", "there was no list")
        )
    plan.blockers += blockers
    for name, who in cut_off.items():
        problem = (
            f"{', '.join(who[:5])}{' and others' if len(who) > 5 else ''} use{'s' if len(who) == 1 else ''} it and could not start again"
        )
        if before is None and _may_be_meant(name, request):
            plan.warnings.append(f"device {name}: {problem}, unless it is one of the devices whose resource name is not known yet.")
        elif before is None:
            plan.blockers.append(
                Blocker(
                    f"device {name}",
                    f"no list exists so far, so every device is allowed; {problem}",
                    "List it too, or set adopt_in_use for vGPUs",
                )
            )
        elif request.in_use == "refuse":
            plan.blockers.append(Blocker(f"device {name}", problem, "Stop them, or set in_use: warn"))
        elif request.in_use == "warn":
            plan.warnings.append(f"device {name}: {problem}.")
    plan.changes += changes
    _stop_at_what_is_advertised(seen, request, after, changes, plan)
    _warn_of_deletion(seen, request, changes, plan)
    _warn_of_one_variable(request, after, plan)
    return after


def _stop_at_what_is_advertised(seen: Seen, request: Request, after: t.Optional[Object], changes: t.Iterable[Change], plan: Plan) -> None:
    """A node that advertises what nobody asked for shows that an exact request was made from a part of the fleet."""
    if request.state != "exact" or request.in_use == "ignore":
        return
    out = {change.before["resource_name"] for change in changes if change.action == "forbid"} - names_in(after)
    for name in sorted(out & set(seen.advertised)):
        nodes = [node if count else f"{node} (not ready)" for node, count in sorted(seen.advertised[name].items())]
        problem = f"{', '.join(nodes[:5])}{' and others' if len(nodes) > 5 else ''} advertise{'s' if len(nodes) == 1 else ''} it"
        if request.in_use == "warn":
            plan.warnings.append(f"device {name}: {problem}, and no VM can use it any more.")
        else:
            remedy = "Ask for it too if this is a part of the fleet, let the nodes give it up first, or set in_use: warn"
            plan.blockers.append(Blocker(f"device {name}", f"{problem}, and exact would forbid it", remedy))


def _warn_of_deletion(seen: Seen, request: Request, changes: t.Iterable[Change], plan: Plan) -> None:
    """An external entry is also what keeps KubeVirt from deleting mediated devices of that type."""
    stays = request.mdev_handling if request.mdev_handling != "unmanaged" else handling(seen)
    for change in changes:
        if stays == "enabled" and change.action == "forbid" and change.target.startswith("permit mdev ") and change.before["external"]:
            plan.warnings.append(
                f"{change.target}: without it KubeVirt deletes the devices of this type, since it handles mediated devices."
            )


def _warn_of_one_variable(request: Request, after: t.Optional[Object], plan: Plan) -> None:
    """virt-launcher reads a device from an environment variable that is made of its name: two names can mean the same one."""
    names: t.Dict[str, t.Set[str]] = {}
    for name in names_in(after):
        names.setdefault(environment_name(name), set()).add(name)
    for name in sorted({entry.resource_name for entry in request.entries if not entry.planned}):
        others = sorted(names.get(environment_name(name), set()) - {name})
        if others and request.permits:
            same = f"{', '.join(others)} and {name} differ only in case, dots or underscores"
            plan.warnings.append(f"device {name}: {same}, and a VM that uses both gets one for the other.")


# ------------------------------------------------------------------ the whole


def make_plan(request: Request, seen: Seen) -> t.Tuple[Plan, Object]:
    """The plan, and the merge patch of ``spec.configuration`` that carries it out (empty if there is nothing to do)."""
    plan = Plan()
    configuration: Object = {}
    permitted = _permits(seen, request, plan)
    if permitted is not None and permitted != seen.configuration.get(PERMITTED):
        configuration[PERMITTED] = permitted
    already = len(plan.changes)
    developer = _kubevirt_settings.gates(seen, request, plan)
    if seen.hco is not None:
        plan.blockers += [
            _not_hyperconvergeds(seen, change) for change in plan.changes[already:] if GATE_OFF not in (change.before, change.after)
        ]
    if developer:
        configuration["developerConfiguration"] = developer
    enabled = _kubevirt_settings.handling_field(seen, request, plan)
    if enabled is not None:
        configuration["mediatedDevicesConfiguration"] = {"enabled": enabled}
    writer = _fleet.writer_of(seen.written)
    if plan.changes and writer:
        plan.blockers.append(_somebody_elses(seen, writer, configuration))
    return plan, configuration


def _somebody_elses(seen: Seen, writer: str, configuration: Object) -> Blocker:
    text = json.dumps(patch(seen, configuration)["spec"], sort_keys=True)
    remedy = f"Make this change in what {writer} applies: {text}"
    if _ownerless(seen):
        remedy = f"It was not found beside the KubeVirt object, so make this change there, in HyperConverged's own terms: {text}"
    return Blocker(seen.target, f"{writer} owns it and would take a change back", remedy)


def _ownerless(seen: Seen) -> bool:
    """Does the KubeVirt object name a HyperConverged object that is not there?"""
    return seen.hco is None and _kubevirt_hco.reference(seen.kubevirt) is not None


def _not_hyperconvergeds(seen: Seen, change: Change) -> Blocker:
    problem = f"{seen.target} decides about KubeVirt's feature gates and has no setting for this one"
    return Blocker(change.target, problem, "Leave it out, or have HyperConverged changed by its jsonpatch annotation for KubeVirt")


def patch(seen: Seen, configuration: Object) -> Object:
    """The merge patch of the object that is written, which fails with a conflict if that has changed since it was read."""
    spec = _kubevirt_hco.spec_patch(seen.hco, configuration, GATE_OFF) if seen.hco is not None else {"configuration": configuration}
    return {"metadata": {"resourceVersion": seen.written["metadata"].get("resourceVersion")}, "spec": spec}


def known(change: Change) -> bool:
    """Can a change be in the object at all, or is it one of a plan whose names are not known yet?"""
    entries = change.after if isinstance(change.after, list) else [change.after]
    return not any(isinstance(entry, dict) and entry.get("resource_name") == KNOWN_AFTER_APPLY for entry in entries)


def to_commit(request: Request, seen: Seen) -> t.Optional[Object]:
    """What has to go into the source that somebody else applies the object from; None if nobody does, or nothing is to be changed.

    Lists are whole, since a merge of the two would replace them.
    """
    plan, configuration = make_plan(request, seen)
    if not plan.changes or not _fleet.writer_of(seen.written) or _ownerless(seen):
        return None
    metadata = seen.written["metadata"]
    return {
        "apiVersion": seen.api_version,
        "kind": seen.kind,
        "metadata": {"name": metadata["name"], "namespace": metadata.get("namespace")},
        "spec": patch(seen, configuration)["spec"],
    }
