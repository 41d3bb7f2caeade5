# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Labels of GPU nodes: what a node should carry, what differs, and what a difference would do to those who use the node.

Workload and vGPU profile go into one patch: written one after the other, the vGPU Device Manager would first apply its
default to a fresh vm-vgpu node.
"""

from __future__ import annotations

import dataclasses
import difflib
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _names
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import Blocker, Change, Plan
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _operands, _paused
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._fleet import Use
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._operands import Object, annotations_of, labels

#: An annotation has room for far more; a reason longer than this is a log.
_REASON_LENGTH = 400


@dataclasses.dataclass(frozen=True)
class Desired:
    """What one node should carry; None leaves a thing as it is. ``labels``: key -> value, or None to remove it."""

    name: str
    workload: str | None = None
    vgpu_config: str | None = None
    operands: bool | None = None
    why: str | None = None
    labels: t.Mapping[str, str | None] = dataclasses.field(default_factory=dict)

    @property
    def target(self) -> str:
        return f"node {self.name}"

    def stated(self) -> dict[str, str | None]:
        """All labels that are asked for by name, without the operands switch."""
        own = {_operands.WORKLOAD: self.workload, _operands.VGPU_CONFIG: self.vgpu_config}
        return {**{k: v for k, v in own.items() if v is not None}, **self.labels}


@dataclasses.dataclass(frozen=True)
class Observed:
    """``nodes`` by name; ``profiles`` of the device manager's ConfigMap, None if unknown; ``uses`` of the nodes that would
    change; ``managers``: node -> uid of its vGPU Device Manager pod; ``at_work``: node -> who is in the middle of changing it."""

    nodes: t.Mapping[str, Object]
    profiles: frozenset[str] | None = None
    uses: tuple[Use, ...] = ()
    operands: t.Mapping[str, frozenset[str]] = dataclasses.field(default_factory=dict)
    managers: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    at_work: t.Mapping[str, t.Sequence[str]] = dataclasses.field(default_factory=dict)


# ------------------------------------------------------------------ the request by itself


def _syntax(checks: t.Iterable[tuple[t.Callable[[str], str], str, str]]) -> list[str]:
    """What is wrong with names and values, each said of ``what``."""
    found = []
    for check, what, text in checks:
        try:
            check(text)
        except ValueError as error:
            found.append(f"{what}: {error}" if what else str(error))
    return found


def desired(entry: t.Mapping[str, t.Any]) -> Desired:
    """One entry of the module's ``nodes``. Values of ``labels`` become text, so that ``true`` is ``"true"``."""

    def text(value: t.Any) -> str | None:
        if value is None:
            return None
        return ("true" if value else "false") if isinstance(value, bool) else str(value)

    return Desired(
        name=entry["name"],
        workload=entry.get("workload"),
        vgpu_config=entry.get("vgpu_config"),
        operands=entry.get("operands"),
        why=entry.get("why"),
        labels={str(key): text(value) for key, value in (entry.get("labels") or {}).items()},
    )


def request_problems(wanted: t.Sequence[Desired]) -> list[Blocker]:
    """What is wrong with the request by itself, before anything is read."""
    found: list[Blocker] = []
    names = [node.name for node in wanted]
    for name in sorted({name for name in names if names.count(name) > 1}):
        found.append(Blocker(f"node {name}", f"it is listed {names.count(name)} times", "List every node once"))
    for node in wanted:
        problems = _syntax((_names.check_label_key, "", key) for key in node.labels)
        problems += _syntax((_names.check_label_value, f"label {key}", value) for key, value in node.stated().items() if value is not None)
        for key, option in ((_operands.WORKLOAD, "workload"), (_operands.VGPU_CONFIG, "vgpu_config"), (_operands.OPERANDS, "operands")):
            if key in node.labels:
                problems.append(f"label {key} is set by the option {option}")
        if node.operands is False and (node.workload is not None or node.vgpu_config is not None):
            problems.append("operands are refused and a workload is asked for")
        found += [Blocker(node.target, problem, "Correct the entry") for problem in problems]
    return found


# ------------------------------------------------------------------ one node


def difference(node: Object, wanted: Desired) -> tuple[dict[str, str | None], dict[str, str | None]]:
    """Labels and annotations of a Node object that differ from what is wanted: key -> wanted value, None to remove."""
    own, notes = labels(node), annotations_of(node)
    to_label = {key: value for key, value in wanted.stated().items() if own.get(key) != value}
    to_note: dict[str, str | None] = {}
    ours = _operands.OPERANDS_REFUSED in notes
    off = own.get(_operands.OPERANDS) == "false"
    if wanted.operands is False and (ours or not off):
        reason = (wanted.why or "refused")[:_REASON_LENGTH]
        if not off:
            to_label[_operands.OPERANDS] = "false"
        if notes.get(_operands.OPERANDS_REFUSED) != reason:
            to_note[_operands.OPERANDS_REFUSED] = reason
    if wanted.operands is True and ours:
        to_note[_operands.OPERANDS_REFUSED] = None
        if off:
            to_label[_operands.OPERANDS] = None
    return to_label, to_note


def theirs(node: Object) -> bool:
    """True if somebody other than this collection keeps operands off the node."""
    return labels(node).get(_operands.OPERANDS) == "false" and _operands.OPERANDS_REFUSED not in annotations_of(node)


def effective_workload(node: Object, operands: t.AbstractSet[str]) -> str | None:
    """The workload that the operator serves on a node now: its label, or else what its operands show; None if neither does."""
    stated = labels(node).get(_operands.WORKLOAD)
    if stated in _operands.DEPLOYED:
        return stated
    deployed = {k[len(_operands.DEPLOY_PREFIX) :] for k, v in labels(node).items() if k.startswith(_operands.DEPLOY_PREFIX) and v == "true"}
    return _operands.workload_of_operands(operands | deployed)


def freed(node: Object, wanted: Desired, operands: t.AbstractSet[str] = frozenset()) -> dict[str, str | None]:
    """Labels that set free what a change has paused that died, among the operands of what the node is or is to be."""
    return _paused.freed(node, wanted.workload or effective_workload(node, operands))


def disturbance(node: Object, to_label: t.Mapping[str, str | None], operands: t.AbstractSet[str]) -> str | None:
    """What the operator would do to devices in use because of these labels, as a phrase; None if it would leave them alone."""
    now = effective_workload(node, operands)
    if _operands.WORKLOAD in to_label and to_label[_operands.WORKLOAD] != now:
        whose = f"the devices of workload {now}" if now else "devices that are not the operator's yet"
        return f"the operator would take {whose} for {to_label[_operands.WORKLOAD] or 'its default workload'}"
    if _operands.VGPU_CONFIG in to_label:
        before = labels(node).get(_operands.VGPU_CONFIG) or "the default"
        return f"the vGPU Device Manager would remove the vGPUs of {before} for {to_label[_operands.VGPU_CONFIG] or 'the default'}"
    if to_label.get(_operands.OPERANDS) == "false":
        return "the operator would remove its operands"
    if _operands.OPERANDS in to_label:
        return f"the operator would start operands for workload {to_label.get(_operands.WORKLOAD) or now or 'its default'}"
    unfinished = now == "vm-vgpu" and labels(node).get(_operands.VGPU_STATE) != "success"
    if unfinished and any(key.startswith(_operands.DEPLOY_PREFIX) for key in to_label):
        return "the vGPU Device Manager would go on with the change that died, and may remove vGPUs"
    return None


def disturbed(node: Object, to_label: t.Mapping[str, str | None], uses: t.Iterable[Use], operands: t.AbstractSet[str]) -> list[str]:
    """Names of those whose devices these labels would take away. Pods that are no VM lose theirs only when a workload ends."""
    here = [use for use in uses if use.node == node["metadata"]["name"]]
    now = effective_workload(node, operands)
    switched = now is not None and _operands.WORKLOAD in to_label and to_label[_operands.WORKLOAD] != now
    return sorted({use.who for use in here if use.vmi or switched})


def may_disturb(observed: Observed, wanted: t.Iterable[Desired], repair_paused: bool = False) -> list[str]:
    """Nodes whose change has to know who uses them and who is at work there, before anything about pods has been read."""
    found = []
    for entry in wanted:
        node = observed.nodes.get(entry.name)
        if node is not None:
            to_label, _notes = difference(node, entry)
            disturbing = {_operands.WORKLOAD, _operands.VGPU_CONFIG, _operands.OPERANDS} & set(to_label)
            if disturbing or (repair_paused and freed(node, entry)):
                found.append(entry.name)
    return found


def _profile_problem(entry: Desired, profiles: frozenset[str] | None) -> Blocker | None:
    if profiles is None or entry.vgpu_config is None or entry.vgpu_config in profiles:
        return None
    near = difflib.get_close_matches(entry.vgpu_config, sorted(profiles), n=3)
    remedy = f"Nearest: {', '.join(near)}" if near else f"It has {', '.join(sorted(profiles)[:8]) or 'none'}"
    return Blocker(entry.target, f"the device configuration has no profile {entry.vgpu_config!r}", remedy)


# ------------------------------------------------------------------ the plan


def make_plan(
    wanted: t.Sequence[Desired], observed: Observed, in_use: str = "refuse", unknown_nodes: str = "fail", repair_paused: bool = False
) -> Plan:
    """One Change per node that differs. What is wrong with the request stops all, what holds one node stops that node.

    ``repair_paused``: set operands free that a change has paused, if nobody is at work on the node any more.
    """
    plan = Plan(blockers=request_problems(wanted))
    for entry in wanted:
        node = observed.nodes.get(entry.name)
        if node is None:
            if unknown_nodes == "fail":
                plan.blockers.append(
                    Blocker(entry.target, "no such node", "Compare gpufleet_node_name with the names of the cluster's nodes")
                )
            else:
                plan.warnings.append(f"{entry.target}: no such node, left out.")
            continue
        problem = _profile_problem(entry, observed.profiles)
        if problem:
            plan.blockers.append(problem)
            continue
        if entry.operands is True and theirs(node):
            plan.warnings.append(
                f"{entry.target}: somebody else has set {_operands.OPERANDS}=false, so no operand will run there; it was left. "
                "Remove that label if this collection is to have the node."
            )
        to_label, to_note = difference(node, entry)
        running = observed.operands.get(entry.name, frozenset())
        to_free = freed(node, entry, running) if repair_paused and entry.operands is not False else {}
        busy = observed.at_work.get(entry.name, ())
        if to_free and busy:
            plan.blockers.append(_busy(entry, to_free, busy))
            continue
        to_label.update(to_free)
        if not to_label and not to_note:
            continue
        if to_label.get(_operands.OPERANDS) == "false" and running:
            plan.blockers.append(
                Blocker(
                    entry.target,
                    f"operands are to be kept off ({entry.why or 'refused'}), but {', '.join(sorted(running))} run there already",
                    "Leave the node as it is and mend it, or clear it and take it out of the fleet first",
                    stops="target",
                )
            )
            continue
        phrase = disturbance(node, to_label, running)
        names = disturbed(node, to_label, observed.uses, running) if phrase else []
        if names and in_use == "refuse":
            plan.blockers.append(
                Blocker(
                    entry.target,
                    f"{phrase}, which {', '.join(names)} use{'s' if len(names) == 1 else ''}",
                    "Stop or move them and run again",
                    stops="target",
                )
            )
            continue
        if names:
            plan.warnings.append(f"{entry.target}: {phrase}, although {', '.join(names)} use it.")
        plan.changes.append(_change(entry, node, to_label, to_note))
    return plan


def _busy(entry: Desired, to_free: t.Iterable[str], busy: t.Iterable[str]) -> Blocker:
    what = ", ".join(sorted(key[len(_operands.DEPLOY_PREFIX) :] for key in to_free))
    return Blocker(
        entry.target,
        f"{', '.join(busy)} is in the middle of a change and has paused {what}",
        "Wait until it has ended and run again",
        stops="target",
    )


def _change(entry: Desired, node: Object, to_label: dict[str, str | None], to_note: dict[str, str | None]) -> Change:
    def now(values: t.Mapping[str, str], keys: t.Iterable[str]) -> dict[str, str]:
        return {key: values[key] for key in keys if key in values}

    def then(values: t.Mapping[str, str | None]) -> dict[str, str]:
        return {key: value for key, value in values.items() if value is not None}

    before = {"labels": now(labels(node), to_label), "annotations": now(annotations_of(node), to_note)}
    after = {"labels": then(to_label), "annotations": then(to_note)}
    if entry.operands is False:
        reason = f"no operands: {entry.why or 'refused'}"
    elif entry.workload:
        reason = f"workload {entry.workload}" + (f", profile {entry.vgpu_config}" if entry.vgpu_config else "")
    else:
        reason = "labels differ"
    if any(key.startswith(_operands.DEPLOY_PREFIX) and key != _operands.OPERANDS for key in to_label):
        reason += "; what a change has paused that died is set free"
    return Change(entry.target, "label", before, after, reason)


def patch(change: Change) -> Object:
    """The merge patch of one change: all labels and annotations of the node at once, None where one goes."""
    body: Object = {}
    for kind in ("labels", "annotations"):
        keys = {**dict.fromkeys(change.before[kind]), **change.after[kind]}
        if keys:
            body[kind] = keys
    return {"metadata": body}


def tokens(wanted: t.Iterable[Desired], observed: Observed, time: str) -> list[Object]:
    """What the vGPU Device Manager said last about each vm-vgpu node, and when this was read: what is older is not about this change."""
    return [
        {
            "name": entry.name,
            "state": labels(observed.nodes[entry.name]).get(_operands.VGPU_STATE),
            "pod": observed.managers.get(entry.name),
            "time": time,
        }
        for entry in wanted
        if entry.workload == "vm-vgpu" and entry.name in observed.nodes
    ]
