# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""KubeVirt's list of devices that VMs may use, and its own handling of mediated devices: a merge that keeps what is not ours.

The lists are atomic for the API server, so a writer replaces them whole: foreign entries and their order are kept by computing the
whole list anew and writing it with the resource version that it was computed from. Without any list KubeVirt lets VMs use everything;
with an empty one, nothing. So the list is never removed, and making the first one is a decision about everybody's VMs.

Sources: kubevirt/kubevirt, pkg/virt-controller/services/renderresources.go and pkg/virt-handler/device-manager (v1.7).
"""

from __future__ import annotations

import copy
import dataclasses
import json
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _device_names, _names
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import Blocker, Change, Plan
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _fleet
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._kubevirt_seen import (
    FIELDS,
    GATE_OFF,
    PERMITTED,
    Entry,
    Object,
    Seen,
    User,
    handling,
    names_in,
    read,
)


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked for; the module's options."""

    entries: t.Tuple[Entry, ...] = ()
    state: str = "present"
    prefix: t.Optional[str] = None
    mdev_handling: str = "unmanaged"
    gates_present: t.Tuple[str, ...] = ()
    gates_absent: t.Tuple[str, ...] = ()
    in_use: str = "refuse"
    adopt_in_use: bool = False


def request_problems(request: Request, check_mode: bool) -> t.List[Blocker]:
    """What is wrong with the request by itself, before anything is read."""
    found = []
    for entry in request.entries:
        try:
            (_device_names.check_pci_id if entry.kind == "pci" else _device_names.check_mdev_name)(entry.selector)
            if not (check_mode and entry.planned):
                _names.check_resource_name(entry.resource_name)
        except ValueError as error:
            found.append(Blocker(entry.target, str(error), "Correct it"))
            continue
        if request.state == "exact" and not entry.planned and not entry.resource_name.startswith(request.prefix or ""):
            found.append(
                Blocker(
                    entry.target, f"{entry.resource_name} is outside the prefix {request.prefix}", "Widen resource_prefix or leave it out"
                )
            )
    if request.state == "exact" and not request.prefix:
        found.append(
            Blocker("resource_prefix", "exact would remove everybody's entries", "Say which resource names are yours, such as nvidia.com/")
        )
    names: t.Dict[str, Entry] = {}
    for entry in request.entries:
        other = names.setdefault(entry.resource_name, entry)
        if not entry.planned and other.same_device != entry.same_device and "mdev" in (entry.kind, other.kind):
            found.append(
                Blocker(entry.target, f"{entry.resource_name} is also asked for as {other.target}", "One mediated type per resource name")
            )
    kinds = {entry.key: entry for entry in request.entries}
    for entry in dict.fromkeys(request.entries):
        if kinds[entry.key].external != entry.external:
            found.append(Blocker(entry.target, f"{entry.resource_name} is asked for both as external and not", "Choose one"))
    if request.mdev_handling != "unmanaged" and GATE_OFF in (*request.gates_present, *request.gates_absent):
        found.append(Blocker(f"feature gate {GATE_OFF}", "mdev_handling decides about it", "Leave it out of feature_gates"))
    for gate in sorted(set(request.gates_present) & set(request.gates_absent)):
        found.append(Blocker(f"feature gate {gate}", "it is asked for and forbidden", "Choose one"))
    return found


def needs_users(request: Request, configuration: t.Mapping[str, t.Any]) -> bool:
    """Does the decision depend on who uses devices?"""
    if configuration.get(PERMITTED) is None:
        return bool(request.entries) and request.state != "absent"
    return request.state != "present"


# ------------------------------------------------------------------ permits


def merged(permitted: t.Optional[Object], request: Request) -> t.Tuple[t.Optional[Object], t.List[Change], t.List[Blocker]]:
    """The list as it should be, what changes, and what cannot be. Entries that were not asked about keep their place and spelling."""
    if permitted is None and (not request.entries or request.state == "absent"):
        return None, [], []
    after = copy.deepcopy(permitted) if permitted is not None else {}
    changes: t.List[Change] = []
    blockers: t.List[Blocker] = []
    if request.state == "exact":
        keys = {entry.key for entry in request.entries}
        devices = {entry.same_device for entry in request.entries if entry.planned}
        prefix = request.prefix or ""
        for kind in FIELDS:
            changes += _removed(
                after, kind, lambda e: e.resource_name.startswith(prefix) and e.key not in keys and e.same_device not in devices
            )
    for entry in dict.fromkeys(request.entries):
        if request.state == "absent":
            changes += _removed(after, entry.kind, lambda other, key=entry.key: other.key == key)  # type: ignore[misc]
        else:
            blocker = _conflict(after, entry)
            if blocker:
                blockers.append(blocker)
            else:
                changes += _ensured(after, entry)
    return after, changes, blockers


def _conflict(after: Object, entry: Entry) -> Blocker | None:
    for kind, (field, _selector) in FIELDS.items():
        for raw in after.get(field) or []:
            other = read(kind, raw)
            if other.key == entry.key:
                continue
            if other.resource_name == entry.resource_name and "mdev" in (kind, entry.kind):
                problem = f"{entry.resource_name} already stands for {kind} {other.selector}, and a mediated type cannot share a name"
                return Blocker(entry.target, problem, "Choose another resource name, or remove that entry")
            if other.same_device == entry.same_device and not entry.planned and not other.external and not entry.external:
                problem = f"KubeVirt's own plugin already offers it as {other.resource_name}, and it would take only one of the two"
                return Blocker(entry.target, problem, "Remove that entry, or say external: true if another plugin advertises it")
    return None


def _ensured(after: Object, entry: Entry) -> t.List[Change]:
    field, selector = FIELDS[entry.kind]
    entries = after.get(field) or []
    if entry.planned:
        if any(read(entry.kind, raw).same_device == entry.same_device for raw in entries):
            return []
        return [Change(entry.target, "permit", None, entry.shown(), "its resource name is known once a node advertises it")]
    same = [raw for raw in entries if read(entry.kind, raw).key == entry.key]
    if len(same) == 1 and read(entry.kind, same[0]).external == entry.external:
        return []
    if not same:
        after[field] = [*entries, entry.raw()]
        return [Change(entry.target, "permit", None, entry.shown(), "not permitted so far")]
    kept = {**same[0], "externalResourceProvider": entry.external}
    rewritten, first = [], True
    for raw in entries:
        if raw not in same:
            rewritten.append(raw)
        elif first:
            rewritten.append(kept)
            first = False
    after[field] = rewritten
    reason = "listed more than once" if len(same) > 1 else f"external must be {str(entry.external).lower()}"
    return [
        Change(
            entry.target, "correct", [read(entry.kind, raw).shown() for raw in same], [{**entry.shown(), selector: kept[selector]}], reason
        )
    ]


def _removed(after: Object, kind: str, gone: t.Callable[[Entry], bool]) -> t.List[Change]:
    field = FIELDS[kind][0]
    entries = after.get(field) or []
    out = [read(kind, raw) for raw in entries if gone(read(kind, raw))]
    if not out:
        return []
    after[field] = [raw for raw in entries if not gone(read(kind, raw))]
    return [Change(entry.target, "forbid", entry.shown(), None, "no longer wanted") for entry in dict.fromkeys(out)]


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
    after, changes, blockers = merged(before, request)
    cut_off = _cut_off(before, after, seen.users or ()) if after is not None and (changes or before is None) else {}
    if before is None and after is not None and cut_off and request.adopt_in_use:
        extended = dataclasses.replace(request, entries=(*request.entries, *adopted(cut_off)))
        after, changes, blockers = merged(before, extended)
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
    _warn_of_deletion(seen, request, changes, plan)
    return after


def _warn_of_deletion(seen: Seen, request: Request, changes: t.Iterable[Change], plan: Plan) -> None:
    """An external entry is also what keeps KubeVirt from deleting mediated devices of that type."""
    stays = request.mdev_handling if request.mdev_handling != "unmanaged" else handling(seen)
    for change in changes:
        if stays == "enabled" and change.action == "forbid" and change.target.startswith("permit mdev ") and change.before["external"]:
            plan.warnings.append(
                f"{change.target}: without it KubeVirt deletes the devices of this type, since it handles mediated devices."
            )


# ------------------------------------------------------------------ gates and mdev handling


def _gates(seen: Seen, request: Request, plan: Plan) -> t.Optional[t.List[str]]:
    developer = seen.configuration.get("developerConfiguration") or {}
    before = list(developer.get("featureGates") or [])
    disabled = developer.get("disabledFeatureGates") or []
    present, absent = list(request.gates_present), list(request.gates_absent)
    if request.mdev_handling == "disabled" and not seen.has_enabled_field:
        present.append(GATE_OFF)
    if request.mdev_handling == "enabled":
        absent.append(GATE_OFF)
    after = [gate for gate in before if gate not in absent]
    for gate in present:
        if gate in disabled:
            plan.blockers.append(Blocker(f"feature gate {gate}", "it stands in disabledFeatureGates", "Remove it there first"))
        elif gate not in after:
            after.append(gate)
    for gate in after:
        if gate not in before:
            plan.changes.append(Change(f"feature gate {gate}", "add", None, gate, _why_gate(gate)))
    for gate in dict.fromkeys(before):
        if gate not in after:
            plan.changes.append(Change(f"feature gate {gate}", "remove", gate, None, "not wanted"))
    return after if after != before else None


def _why_gate(gate: str) -> str:
    return "KubeVirt must not create or delete mediated devices" if gate == GATE_OFF else "asked for"


def _handling(seen: Seen, request: Request, plan: Plan) -> t.Optional[bool]:
    """The value that ``mediatedDevicesConfiguration.enabled`` must get, or None if it stays."""
    if request.mdev_handling == "enabled" and seen.vgpus and handling(seen) == "disabled":
        shown = ", ".join(f"{node} ({', '.join(names)})" for node, names in sorted(seen.vgpus.items()))
        problem = f"KubeVirt deletes mediated devices that it was not told to create, and these nodes have vGPUs: {shown}"
        plan.blockers.append(Blocker("mediated device handling", problem, "Remove those vGPUs first"))
    if not seen.has_enabled_field or request.mdev_handling == "unmanaged":
        return None
    wanted = request.mdev_handling == "enabled"
    now = (seen.configuration.get("mediatedDevicesConfiguration") or {}).get("enabled")
    if now == wanted or (wanted and now is None):
        return None
    plan.changes.append(
        Change("mediated device handling", "enable" if wanted else "disable", now, wanted, "asked for" if wanted else _why_gate(GATE_OFF))
    )
    return wanted


# ------------------------------------------------------------------ the whole


def make_plan(request: Request, seen: Seen) -> t.Tuple[Plan, Object]:
    """The plan, and the merge patch of ``spec.configuration`` that carries it out (empty if there is nothing to do)."""
    plan = Plan()
    configuration: Object = {}
    permitted = _permits(seen, request, plan)
    if permitted is not None and permitted != seen.configuration.get(PERMITTED):
        configuration[PERMITTED] = permitted
    gates = _gates(seen, request, plan)
    if gates is not None:
        configuration["developerConfiguration"] = {"featureGates": gates}
    enabled = _handling(seen, request, plan)
    if enabled is not None:
        configuration["mediatedDevicesConfiguration"] = {"enabled": enabled}
    writer = _fleet.writer_of(seen.kubevirt)
    if plan.changes and writer:
        where = f"in {writer}'s own terms" if writer.startswith("HyperConverged") else f"in what {writer} applies"
        plan.blockers.append(
            Blocker(
                seen.target,
                f"{writer} owns it and would take a change back",
                f"Make this change {where}: {json.dumps(patch(seen, configuration)['spec'], sort_keys=True)}",
            )
        )
    return plan, configuration


def patch(seen: Seen, configuration: Object) -> Object:
    """The merge patch, which fails with a conflict if the object has changed since it was read."""
    return {"metadata": {"resourceVersion": seen.kubevirt["metadata"].get("resourceVersion")}, "spec": {"configuration": configuration}}
