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
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _names
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import KNOWN_AFTER_APPLY, Blocker, Change, Plan
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _fleet

Object = t.Dict[str, t.Any]

PERMITTED = "permittedHostDevices"
GATE_OFF = "DisableMDEVConfiguration"
#: Kind of device -> name of its list and of its selector in the KubeVirt object.
FIELDS = {"pci": ("pciHostDevices", "pciVendorSelector"), "mdev": ("mediatedDevices", "mdevNameSelector")}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One device that VMs may use. ``kind`` is pci or mdev; ``external``: another device plugin than KubeVirt's advertises it."""

    kind: str
    selector: str
    resource_name: str
    external: bool = True

    @property
    def target(self) -> str:
        return f"permit {self.kind} {self.shown_selector}"

    @property
    def shown_selector(self) -> str:
        return _names.pci_id_key(self.selector) if self.kind == "pci" else self.selector

    @property
    def same_device(self) -> t.Tuple[str, str]:
        key = _names.pci_id_key(self.selector) if self.kind == "pci" else _names.mdev_name_key(self.selector)
        return self.kind, key

    @property
    def key(self) -> t.Tuple[str, str, str]:
        return (*self.same_device, self.resource_name)

    @property
    def planned(self) -> bool:
        return self.resource_name == KNOWN_AFTER_APPLY

    def raw(self) -> Object:
        return {FIELDS[self.kind][1]: self.shown_selector, "resourceName": self.resource_name, "externalResourceProvider": self.external}

    def shown(self) -> Object:
        return {"resource_name": self.resource_name, "external": self.external}


def read(kind: str, raw: t.Mapping[str, t.Any]) -> Entry:
    """An entry of the KubeVirt object."""
    return Entry(kind, raw.get(FIELDS[kind][1]) or "", raw.get("resourceName") or "", bool(raw.get("externalResourceProvider")))


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


@dataclasses.dataclass(frozen=True)
class User:
    """A VM, VMI or instancetype that asks for devices by resource name."""

    who: str
    resources: t.FrozenSet[str]


@dataclasses.dataclass(frozen=True)
class Seen:
    """The KubeVirt object, what its CRD knows, who uses devices (None: not read), and which nodes advertise vGPUs."""

    kubevirt: Object
    has_enabled_field: bool
    users: t.Optional[t.Tuple[User, ...]] = None
    vgpus: t.Mapping[str, t.Tuple[str, ...]] = dataclasses.field(default_factory=dict)

    @property
    def configuration(self) -> Object:
        return (self.kubevirt.get("spec") or {}).get("configuration") or {}

    @property
    def target(self) -> str:
        metadata = self.kubevirt["metadata"]
        return f"KubeVirt {metadata.get('namespace')}/{metadata['name']}"


def request_problems(request: Request, check_mode: bool) -> t.List[Blocker]:
    """What is wrong with the request by itself, before anything is read."""
    found = []
    for entry in request.entries:
        try:
            (_names.check_pci_id if entry.kind == "pci" else _names.check_mdev_name)(entry.selector)
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
        wanted = {entry.key for entry in request.entries}
        prefix = request.prefix or ""
        for kind in FIELDS:
            changes += _removed(after, kind, lambda other: other.resource_name.startswith(prefix) and other.key not in wanted)
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


def names_in(permitted: t.Optional[Object]) -> t.Set[str]:
    """All resource names that a list permits, of any kind."""
    return {raw.get("resourceName", "") for entries in (permitted or {}).values() if isinstance(entries, list) for raw in entries}


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
    """Entries for devices in use that no list had. Only a vGPU's name tells its selector; that of a PCI device cannot be guessed."""
    return [Entry("mdev", name.partition("/")[2], name) for name in cut_off if _names.plain_type(name)]


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
        if before is None:
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
    return after


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


def handling(seen: Seen) -> str:
    """Does KubeVirt create and delete mediated devices now: enabled or disabled? The field wins over the gate where there is one."""
    field = (seen.configuration.get("mediatedDevicesConfiguration") or {}).get("enabled") if seen.has_enabled_field else None
    gates = (seen.configuration.get("developerConfiguration") or {}).get("featureGates") or []
    on = field if field is not None else GATE_OFF not in gates
    return "enabled" if on else "disabled"


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
                f"Make this change {where}: {patch(seen, configuration)['spec']}",
            )
        )
    return plan, configuration


def patch(seen: Seen, configuration: Object) -> Object:
    """The merge patch, which fails with a conflict if the object has changed since it was read."""
    return {"metadata": {"resourceVersion": seen.kubevirt["metadata"].get("resourceVersion")}, "spec": {"configuration": configuration}}


def has_enabled_field(crd: t.Optional[t.Mapping[str, t.Any]]) -> bool:
    """Does this CRD of KubeVirt know ``mediatedDevicesConfiguration.enabled`` (KubeVirt 1.8 and newer)? A field that it does not know is pruned."""
    for version in ((crd or {}).get("spec") or {}).get("versions") or []:
        node: t.Any = (version.get("schema") or {}).get("openAPIV3Schema") or {}
        for name in ("spec", "configuration", "mediatedDevicesConfiguration", "enabled"):
            node = (node.get("properties") or {}).get(name) or {}
        if version.get("storage") and node:
            return True
    return False


def users(vmis: t.Iterable[Object], machines: t.Iterable[Object], types: t.Iterable[Object]) -> t.Tuple[User, ...]:
    """Everybody who names a device: running VMIs, VMs' templates, instancetypes."""
    found = []
    for kind, items, path in (("VMI", vmis, ()), ("VM", machines, ("template",)), ("instancetype", types, None)):
        for item in items:
            spec: t.Any = item.get("spec") or {}
            if path is None:
                devices = spec
            else:
                for step in path:
                    spec = spec.get(step) or {}
                devices = ((spec.get("spec") if path else spec) or {}).get("domain", {}).get("devices") or {}
            asked = {
                entry["deviceName"] for field in ("gpus", "hostDevices") for entry in devices.get(field) or [] if entry.get("deviceName")
            }
            if asked:
                metadata = item["metadata"]
                name = "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))
                found.append(User(f"{kind} {name}", frozenset(asked)))
    return tuple(found)


def vgpus(nodes: t.Iterable[Object]) -> t.Dict[str, t.Tuple[str, ...]]:
    """Node -> the vGPU resources that it advertises now."""
    found = {}
    for node in nodes:
        allocatable = (node.get("status") or {}).get("allocatable") or {}
        names = tuple(sorted(name for name, count in allocatable.items() if str(count) != "0" and "/" in name and _names.plain_type(name)))
        if names:
            found[node["metadata"]["name"]] = names
    return found
