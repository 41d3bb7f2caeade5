# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Slots: how many GPU nodes may be out of service at once, over all runs, and what has to be put back on each.

One ConfigMap holds them: a key for each node that is out, and two that no node can be called, ``_budget`` and ``_failed``. Everything here
takes what was read and gives what is to be written; whoever writes does so with ``resourceVersion``, and decides anew after a conflict.

A slot ends when its node is given back or released by a person, never by time: a run that died has left a node in an unknown state.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import Blocker

NAMESPACE = "gpufleet-system"
NAME = "gpufleet-slots"
OBJECT = f"ConfigMap {NAMESPACE}/{NAME}"
#: An underscore is in no node's name.
_BUDGET = "_budget"
_FAILED = "_failed"
#: A mark stops a run that may still be at work; the oldest marks are those of runs long over.
_MARKS = 50


@dataclasses.dataclass(frozen=True)
class Slot:
    """One node that is out. ``since`` and ``touched``: seconds of the API server's clock. ``restore``: one entry per VM that was stopped.

    ``cleared``: something on the node was stopped, moved or evicted, so it is no longer what it was.
    """

    run: str
    since: int
    touched: int
    scope: str = "gpu"
    cleared: bool = False
    restore: tuple[dict[str, t.Any], ...] = ()

    def text(self) -> str:
        content = {**dataclasses.asdict(self), "restore": list(self.restore), "since": _iso(self.since), "touched": _iso(self.touched)}
        return json.dumps(content, sort_keys=True)


@dataclasses.dataclass(frozen=True)
class Slots:
    """What the ConfigMap says. ``budget``: as the first of those that are out gave it. ``failed``: run -> on which node its gate failed, and why."""

    nodes: t.Mapping[str, Slot] = dataclasses.field(default_factory=dict)
    budget: str | None = None
    failed: t.Mapping[str, str] = dataclasses.field(default_factory=dict)

    def data(self) -> dict[str, str]:
        found = {name: self.nodes[name].text() for name in sorted(self.nodes)}
        if self.budget is not None:
            found[_BUDGET] = self.budget
        if self.failed:
            found[_FAILED] = json.dumps(dict(self.failed))
        return found


@dataclasses.dataclass(frozen=True)
class Answer:
    """What a question gave: what is to be written, or what stands in the way, and whether waiting can help."""

    slots: Slots | None = None
    blocker: Blocker | None = None
    waiting_helps: bool = False


def _iso(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _seconds(text: str) -> int:
    return int(datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.timezone.utc).timestamp())


def read(configmap: t.Mapping[str, t.Any] | None) -> Slots:
    """The slots in a ConfigMap; none if there is no ConfigMap. Raises ValueError where it says what this collection did not write."""
    data = (configmap or {}).get("data") or {}
    nodes = {}
    for name in sorted(data):
        if name in (_BUDGET, _FAILED):
            continue
        try:
            raw = json.loads(data[name])
            restore = tuple(dict(entry) for entry in raw["restore"])
            nodes[name] = Slot(
                str(raw["run"]), _seconds(raw["since"]), _seconds(raw["touched"]), raw["scope"], bool(raw["cleared"]), restore
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{OBJECT}: what stands under {name} is no slot ({type(error).__name__}: {error})") from error
    try:
        failed = {str(run): str(why) for run, why in json.loads(data.get(_FAILED) or "{}").items()}
        budget = data.get(_BUDGET)
        if budget is not None:
            check_budget(budget)
    except (AttributeError, ValueError) as error:
        raise ValueError(f"{OBJECT}: its budget or its failed runs cannot be read ({error})") from error
    return Slots(nodes, budget, failed)


def patch(before: Slots, after: Slots) -> dict[str, str | None]:
    """The part of ``data`` that differs, for a merge patch: what goes is None."""
    was, now = before.data(), after.data()
    return {**{key: None for key in was if key not in now}, **{key: value for key, value in now.items() if was.get(key) != value}}


def check_budget(text: str) -> str:
    """A number of nodes or a percentage, at least 1. Raises ValueError with a reason that can be shown as it is."""
    number = text[:-1] if text.endswith("%") else text
    if not (number.isascii() and number.isdigit()):
        raise ValueError(f"{text!r} is no budget: write a number of nodes, such as 2, or a percentage, such as 10%")
    if int(number) == 0:
        raise ValueError(f"a budget of {text} lets no node go out of service at all: write at least 1")
    if text.endswith("%") and int(number) > 100:
        raise ValueError(f"{text!r} is no budget: a percentage is at most 100%")
    return text


def budget_of(text: str, total: int) -> int:
    """How many of ``total`` nodes may be out. A percentage rounds down, and is at least 1."""
    check_budget(text)
    return max(1, total * int(text[:-1]) // 100) if text.endswith("%") else int(text)


def names(out: t.Mapping[str, str]) -> str:
    """``gpu02 (run 7), gpu03 (cordoned)``."""
    return ", ".join(f"{name} ({out[name]})" for name in sorted(out))


def out_of_service(slots: Slots, others: t.Mapping[str, str]) -> dict[str, str]:
    """Every node that is out, with by whom or why. ``others``: GPU nodes that are cordoned or not ready, with which of it."""
    return {**others, **{name: f"run {slot.run}" for name, slot in slots.nodes.items()}}


def take(
    slots: Slots,
    node: str,
    run: str,
    budget: str,
    total: int,
    others: t.Mapping[str, str],
    now: int,
    scope: str = "gpu",
    resume: bool = False,
    stale_after: int = 0,
) -> Answer:
    """A slot for ``node``, or the one that it has: that of this run, or another's if it may be taken over.

    ``total``: how many GPU nodes there are, for percentages. ``others``: as for :func:`out_of_service`. ``stale_after``: seconds after which
    a record that nobody has touched may be taken over, 0 for never.
    """
    target = f"node {node}"
    if run in slots.failed:
        return Answer(
            blocker=Blocker(target, f"run {run} has failed already: {slots.failed[run]}", "Mend that node and start another run"),
        )
    held = slots.nodes.get(node)
    if held is not None:
        return _take_over(slots, node, held, run, now, scope, resume, stale_after)
    mine = budget_of(budget, total)
    if slots.nodes and slots.budget is not None and mine > budget_of(slots.budget, total):
        who = names({name: f"run {slot.run}" for name, slot in slots.nodes.items()})
        return Answer(
            blocker=Blocker(
                target,
                f"{budget} nodes may be out of service for this run, but those that are out now were taken with a budget of {slots.budget}: {who}",
                f"Run with gpufleet_max_unavailable: {slots.budget}, or wait until they are back",
            )
        )
    out = out_of_service(slots, others)
    if len({*out, node}) > mine:
        rest = {name: why for name, why in out.items() if name != node}
        return Answer(
            blocker=Blocker(
                target,
                f"{mine} may be out of service at once, and these are: {names(rest)}",
                "Wait until they are back. A node that was cordoned by hand counts until it is uncordoned; a slot that nobody needs any more "
                "is given up with gpu_node_maintenance, state: released",
            ),
            waiting_helps=True,
        )
    given = Slot(run, now, now, scope)
    return Answer(slots=dataclasses.replace(slots, nodes={**slots.nodes, node: given}, budget=slots.budget if slots.nodes else budget))


def _take_over(slots: Slots, node: str, held: Slot, run: str, now: int, scope: str, resume: bool, stale_after: int) -> Answer:
    wider = "node" if "node" in (held.scope, scope) else held.scope
    if held.run == run and held.scope == wider:
        return Answer(slots=slots)
    idle = now - held.touched
    if held.run == run or resume or (stale_after > 0 and idle >= stale_after):
        mine = dataclasses.replace(held, run=run, touched=max(now, held.touched), scope=wider)
        return Answer(slots=dataclasses.replace(slots, nodes={**slots.nodes, node: mine}))
    return Answer(
        blocker=Blocker(
            f"node {node}",
            f"run {held.run} has taken it out of service at {_iso(held.since)} and last wrote about it {max(0, idle)} s ago",
            "If that run is over, run again with resume: true; it then finishes what that run began",
        )
    )


def own(slots: Slots, node: str, run: str, resume: bool = False, stale_after: int = 0, now: int = 0) -> Answer:
    """Whether this run may go on with ``node``: by its own slot, by one that it may take over, or because there is none."""
    held = slots.nodes.get(node)
    return Answer(slots=slots) if held is None else _take_over(slots, node, held, run, now, held.scope, resume, stale_after)


class Lost(Exception):
    """The slot is not this run's any more. As text it is one complete sentence."""


def _held(slots: Slots, node: str, run: str) -> Slot:
    slot = slots.nodes.get(node)
    if slot is None or slot.run != run:
        now = "nobody" if slot is None else f"run {slot.run}"
        raise Lost(f"the slot of node {node} is no longer that of run {run}, but of {now}")
    return slot


def note(slots: Slots, node: str, run: str, now: int, restore: t.Iterable[dict[str, t.Any]] = ()) -> Slots:
    """Write down what is about to be done: VMs that will be stopped, each once, as the first one to write saw it."""
    slot = _held(slots, node, run)
    known = {entry["uid"] for entry in slot.restore}
    entries = (*slot.restore, *(entry for entry in restore if entry["uid"] not in known))
    changed = dataclasses.replace(slot, touched=max(now, slot.touched), cleared=True, restore=entries)
    return dataclasses.replace(slots, nodes={**slots.nodes, node: changed})


def give_back(slots: Slots, node: str, run: str) -> Slots:
    """The slot is free again. Without one, nothing changes."""
    if node not in slots.nodes:
        return slots
    _held(slots, node, run)
    return release(slots, node)


def release(slots: Slots, node: str) -> Slots:
    """Take a slot away, whoever holds it: a person has decided so. The runs that failed over this node may go on."""
    left = {name: slot for name, slot in slots.nodes.items() if name != node}
    failed = {run: why for run, why in slots.failed.items() if not why.startswith(f"node {node}: ")}
    return dataclasses.replace(slots, nodes=left, budget=slots.budget if left else None, failed=failed)


def mark_failed(slots: Slots, node: str, run: str, why: str) -> Slots:
    """The gate of a node has failed: this run takes no further slot. The first reason stays."""
    if run in slots.failed:
        return slots
    kept = [*slots.failed.items(), (run, f"node {node}: {why}")][-_MARKS:]
    return dataclasses.replace(slots, failed=dict(kept))
