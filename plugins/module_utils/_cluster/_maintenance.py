# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What it takes to have one node out of service, or back: pure plans from what was read. Who acts is ``_maintenance_io``."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import Blocker, Change, Plan
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _cordon, _evacuation, _operands, _slots
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._evacuation import Item, Rules
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._operands import Object
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._slots import Answer, Slot, Slots

STAYS_OUT = "The node stays out of service, with its slot. Mend it and run again with resume: true"
_NO_NODE = "Compare gpufleet_node_name with the names of the cluster's nodes"


@dataclasses.dataclass(frozen=True)
class Wish:
    """The module's arguments. ``boot_id`` and ``expect`` (resource -> at least how many) are the gate's; ``problems``: what a gate
    elsewhere has found already. ``planned``: in check mode, an earlier step would have taken the node out."""

    node: str
    state: str
    run: str
    budget: str = "1"
    rules: Rules = dataclasses.field(default_factory=Rules)
    reason: str = "maintenance"
    resume: bool = False
    stale_after: int = 0
    boot_id: str | None = None
    expect: t.Mapping[str, int] = dataclasses.field(default_factory=dict)
    problems: tuple[str, ...] = ()
    planned: bool = False

    @property
    def target(self) -> str:
        return f"node {self.node}"

    @property
    def slot(self) -> str:
        return f"slot of node {self.node}"


@dataclasses.dataclass(frozen=True)
class Seen:
    """``configmap``: that of the slots, None if there is none. ``items``: of :func:`_evacuation.classify`. ``vms``: VirtualMachines by
    ``NAMESPACE/NAME``, those to be restored too. ``running``: names of all instances. ``now``: the API server's clock, in seconds."""

    nodes: t.Sequence[Object]
    configmap: Object | None
    items: t.Sequence[Item]
    vms: t.Mapping[str, Object]
    running: frozenset[str]
    now: int

    @property
    def slots(self) -> Slots:
        return _slots.read(self.configmap)

    def node(self, name: str) -> Object | None:
        return next((node for node in self.nodes if node["metadata"]["name"] == name), None)


def _whose(slot: Slot | None) -> Object | None:
    return None if slot is None else {"run": slot.run, "scope": slot.scope}


def take(wish: Wish, seen: Seen) -> Answer:
    """A slot for the node, or why there is none (yet)."""
    node = seen.node(wish.node)
    if node is None:
        return Answer(blocker=Blocker(wish.target, "no such node", _NO_NODE))
    slots = seen.slots
    if wish.rules.scope == "node" and wish.node not in slots.nodes and _evacuation.control_plane(node):
        answer = _control_plane(wish, seen, slots)
        if answer is not None:
            return answer
    total, others = _evacuation.gpu_nodes_out(seen.nodes)
    return _slots.take(slots, wish.node, wish.run, wish.budget, total, others, seen.now, wish.rules.scope, wish.resume, wish.stale_after)


def _control_plane(wish: Wish, seen: Seen, slots: Slots) -> Answer | None:
    others = {n["metadata"]["name"]: n for n in seen.nodes if _evacuation.control_plane(n) and n["metadata"]["name"] != wish.node}
    if not others:
        problem = "it is the only control-plane node: without it there is no cluster that could take it back"
        return Answer(blocker=Blocker(wish.target, problem, "Do this by hand, outside of a run"))
    out = {name: why for name, node in others.items() if (why := _evacuation.why_out(node))}
    out.update({name: f"run {slots.nodes[name].run}" for name in others if name in slots.nodes})
    if out:
        problem = f"it is a control-plane node, of which one at a time may be out, and these are: {_slots.names(out)}"
        return Answer(blocker=Blocker(wish.target, problem, "Wait until they are back"), waiting_helps=True)
    return None


def refusals(items: t.Iterable[Item]) -> list[Blocker]:
    """A Blocker for everything on the node that may not be touched."""
    return [Blocker(item.target, item.why, item.remedy) for item in items if item.act == "refuse"]


def out_of_service(wish: Wish, seen: Seen) -> Plan:
    """Slot, cordon, and what becomes of everything on the node."""
    plan = Plan()
    answer = take(wish, seen)
    if answer.blocker is not None and not answer.waiting_helps:
        plan.blockers.append(answer.blocker)
        return plan
    plan.blockers += refusals(seen.items)
    was = seen.slots.nodes.get(wish.node)
    mine = Slot(wish.run, seen.now, seen.now, wish.rules.scope) if answer.slots is None else answer.slots.nodes[wish.node]
    if answer.slots is None or answer.slots != seen.slots:
        why = f"for: {wish.reason}" + (f"; {answer.blocker.problem}" if answer.blocker is not None else "")
        action = "take" if was is None else "take over"
        plan.changes.append(Change(wish.slot, action, _whose(was), _whose(mine), why))
    node = seen.node(wish.node)
    plan.changes += _cordon.make_plan(wish.node, "cordoned", wish.reason, node).changes
    for item in seen.items:
        if item.act in (*_evacuation.ACTS, "wait"):
            plan.changes.append(Change(item.target, item.act, f"on {wish.node}", "stopped" if item.act == "stop" else "gone", item.why))
    return plan


def gate(wish: Wish, node: Object | None) -> list[str]:
    """What keeps a node from being in service again."""
    if node is None:
        return ["the Node does not exist"]
    found = []
    status = node.get("status") or {}
    if not any(c.get("type") == "Ready" and c.get("status") == "True" for c in status.get("conditions") or []):
        found.append("the Node is not ready")
    boot_id = (status.get("nodeInfo") or {}).get("bootID")
    if wish.boot_id is not None and boot_id != wish.boot_id:
        found.append(f"the Node's boot id is {boot_id}, the host's is {wish.boot_id}")
    if _operands.labels(node).get("kubevirt.io/schedulable") == "false":
        found.append("KubeVirt's virt-handler says that no VM can run on it (label kubevirt.io/schedulable is false)")
    there = _operands.resources(node)
    found += [f"it has {there.get(name, 0)} of {name}, not {count}" for name, count in wish.expect.items() if there.get(name, 0) < count]
    return found


@dataclasses.dataclass(frozen=True)
class Restore:
    """A VM to be put back: its VirtualMachine, and whether it must be started by hand besides (run strategy Manual)."""

    namespace: str
    name: str
    field: str
    value: t.Any
    version: str
    patched: bool
    started: bool

    @property
    def target(self) -> str:
        return f"VM {self.namespace}/{self.name}"


def restores(slot: Slot | None, seen: Seen) -> tuple[list[Restore], list[str]]:
    """What of a slot is still to be put back, and what cannot be, in words: a VM that was deleted or changed by somebody else stays."""
    todo, notes = [], []
    for entry in slot.restore if slot is not None else ():
        full_name = f"{entry['namespace']}/{entry['name']}"
        vm = seen.vms.get(full_name)
        if vm is None or vm["metadata"].get("uid") != entry["uid"]:
            notes.append(f"VM {full_name}, which was stopped for this, has been deleted since: there is nothing to start.")
            continue
        field, value = _evacuation.run_setting(vm)
        by_hand = entry["value"] == "Manual" and full_name not in seen.running
        patched = field == entry["field"] and value == _evacuation.halted(field)
        if not patched and value != entry["value"]:
            was = f"{entry['field']} {entry['value']}"
            notes.append(f"VM {full_name} was stopped for this with {was}; somebody has set {field} to {value} since, and that stays.")
        elif patched or by_hand:
            version = vm["metadata"].get("resourceVersion", "")
            todo.append(Restore(entry["namespace"], entry["name"], entry["field"], entry["value"], version, patched, by_hand))
    return todo, notes


def in_service(wish: Wish, seen: Seen) -> Plan:
    """Put back what was stopped, uncordon, give the slot back."""
    plan = Plan()
    node = seen.node(wish.node)
    if node is None:
        plan.blockers.append(
            Blocker(wish.target, "no such node", f"{_NO_NODE}; a slot of a node that is gone is given up with state: released")
        )
        return plan
    answer = _slots.own(seen.slots, wish.node, wish.run, wish.resume, wish.stale_after, seen.now)
    if answer.blocker is not None:
        plan.blockers.append(answer.blocker)
        return plan
    if wish.problems:
        # Not "all": that this run takes no further node out has to be written down.
        plan.blockers += [Blocker(wish.target, problem, STAYS_OUT, "target") for problem in wish.problems]
        if wish.run not in seen.slots.failed:
            plan.changes.append(
                Change(f"run {wish.run}", "mark as failed", None, wish.problems[0], "it takes no further node out of service")
            )
        return plan
    slot = seen.slots.nodes.get(wish.node)
    todo, notes = restores(slot, seen)
    plan.warnings += notes
    for each in todo:
        before = _evacuation.halted(each.field) if each.patched else each.value
        plan.changes.append(
            Change(each.target, "start", {each.field: before}, {each.field: each.value}, "it ran before this node went out of service")
        )
    shown = _cordon.planned(node, wish.reason) if wish.planned and slot is None else node
    plan.changes += _cordon.make_plan(wish.node, "uncordoned", wish.reason, shown).changes
    if slot is not None or wish.planned:
        whose = _whose(slot) or {"run": wish.run, "scope": wish.rules.scope}
        plan.changes.append(Change(wish.slot, "give back", whose, None, "the node is in service"))
    return plan


def released(wish: Wish, seen: Seen) -> Plan:
    """Give up the slot of a node, whoever holds it."""
    plan = Plan()
    slot = seen.slots.nodes.get(wish.node)
    if slot is not None:
        plan.changes.append(Change(wish.slot, "release", _whose(slot), None, wish.reason))
        names = ", ".join(f"{entry['namespace']}/{entry['name']} ({entry['field']}: {entry['value']})" for entry in slot.restore)
        if names:
            plan.warnings.append(f"These VMs were stopped for node {wish.node} and nothing will start them: {names}.")
    return plan


PLANS: dict[str, t.Callable[[Wish, Seen], Plan]] = {"out_of_service": out_of_service, "in_service": in_service, "released": released}
