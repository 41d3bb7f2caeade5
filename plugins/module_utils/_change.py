# Copyright (c) 2026 the gpufleet.kubevirt authors
# SPDX-License-Identifier: GPL-3.0-or-later

# PRIVATE to the collection: it can change at any time.

"""What every writing module of this collection says: what it changes, and what stops it.

A module observes, plans, applies and reads back. Only the plan is a decision, and it is pure: values in, a
:class:`Plan` out. :func:`run` is the order of those steps, so that check mode, diff mode, partial failures and
read-back are the same everywhere.
"""

from __future__ import annotations

import dataclasses
import typing as t

#: Stands for a value that no plan can know before the steps before it have run (an image digest, a group number).
KNOWN_AFTER_APPLY = "known after apply"


@dataclasses.dataclass(frozen=True)
class Change:
    """One thing that differs: on what, what will be done, from what to what, and why.

    ``target`` names one thing of the domain (a file, a node, an entry); ``action`` is one lower-case verb.
    ``before`` and ``after`` are plain data or text that may be shown: never a secret.
    """

    target: str
    action: str
    before: t.Any
    after: t.Any
    reason: str

    def as_dict(self) -> dict[str, t.Any]:
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Blocker:
    """What stops a change: on what, what was found, and what to do about it.

    ``stops`` is ``all`` (nothing may be written) or ``target`` (other targets go on).
    """

    target: str
    problem: str
    remedy: str
    stops: t.Literal["all", "target"] = "all"
    unknown = False

    def as_dict(self) -> dict[str, str]:
        return {"target": self.target, "problem": self.problem, "remedy": self.remedy}

    def __str__(self) -> str:
        return f"{self.target}: {self.problem}. {self.remedy}"


@dataclasses.dataclass
class Plan:
    """What to change, in order, and what stops it. An empty plan means: already as wanted."""

    changes: list[Change] = dataclasses.field(default_factory=list)
    blockers: list[Blocker] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)

    @property
    def stopped(self) -> bool:
        return any(blocker.stops == "all" for blocker in self.blockers)


class Module(t.Protocol):
    """The part of AnsibleModule that :func:`run` needs."""

    check_mode: bool

    def exit_json(self, **kwargs: t.Any) -> t.NoReturn: ...

    def fail_json(self, msg: str, **kwargs: t.Any) -> t.NoReturn: ...

    def warn(self, warning: str) -> None: ...


def shown(value: t.Any) -> str:
    """A value as one piece of text: mappings sorted by key, lists in their order, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, dict):
        return "\n".join(f"{key}: {shown(value[key])}" for key in sorted(value, key=str))
    if isinstance(value, (list, tuple)):
        return "\n".join(shown(entry) for entry in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def diff(changes: t.Iterable[Change]) -> dict[str, str]:
    """``before`` and ``after`` as text for diff mode, one block per target, sorted by target."""
    sides: dict[str, list[str]] = {"before": [], "after": []}
    for change in sorted(changes, key=lambda c: (c.target, c.action)):
        for side, value in (("before", change.before), ("after", change.after)):
            text = shown(value)
            if text:
                sides[side].append(f"{change.target}:\n" + "".join(f"  {line}\n" for line in text.splitlines()))
    return {side: "".join(blocks) for side, blocks in sides.items()}


def message(doing: str, blockers: t.Sequence[Blocker], done: t.Sequence[Change] = (), check_mode: bool = False) -> str:
    """The text of a failure, complete by itself: what was being done, where it stopped and why, what was done.

    In check mode ``done`` is what a run would do.
    """
    lines = [f"{doing}: stopped by {len(blockers)} problem{'s' if len(blockers) != 1 else ''}."]
    lines += [f"- {blocker}" for blocker in blockers]
    acts = ", ".join(f"{change.action} {change.target}" for change in done)
    if acts and not check_mode:
        lines.append(f"What was done: {acts}.")
    elif not check_mode and any(blocker.unknown for blocker in blockers):
        lines.append("Whether that was done is not known.")
    else:
        lines.append(f"Nothing was changed; a run would do this: {acts}." if acts else "Nothing was changed.")
    return "\n".join(lines)


Observed = t.TypeVar("Observed")


def _not_taken(plan: Plan) -> list[Blocker]:
    """Of a plan after the writes."""
    return [
        Blocker(change.target, f"{change.action} was written but did not take", "Look for another writer of it") for change in plan.changes
    ]


def run(
    module: Module,
    doing: str,
    observe: t.Callable[[], Observed],
    make_plan: t.Callable[[Observed], Plan],
    apply: t.Callable[[list[Change]], list[Blocker]],
    result: t.Callable[[Observed, Plan], dict[str, t.Any]] = lambda observed, plan: {},
    verify: t.Callable[[Observed], list[Blocker]] | None = None,
    unreadable: tuple[type[Exception], ...] = (),
    settle: t.Callable[[list[Blocker], Plan, Plan], list[Blocker]] = lambda blockers, *plans: blockers,
) -> t.NoReturn:
    """Observe, plan, apply, read back, exit: the same for every writing module.

    ``doing`` is what the module does, as a phrase that starts a failure ("Setting the kernel arguments").
    ``apply`` gets the changes in the plan's order and returns a Blocker for each target on which it failed.
    In check mode ``apply`` is called too if it has ``dry_runs`` (true): it then asks the API
    with ``dryRun=All`` and writes nothing.
    ``result`` gives the module's further return values, from what was seen last and the plan of the start.
    ``verify`` judges a second observation; left out, planning again must find nothing left to do.
    ``settle`` judges failures anew after a second observation, which may raise ``unreadable``.
    """
    observed = observe()
    plan = make_plan(observed)
    for warning in plan.warnings:
        module.warn(warning)
    out: dict[str, t.Any] = {
        "changed": bool(plan.changes),
        "changes": [change.as_dict() for change in plan.changes],
        "diff": diff(plan.changes),
    }
    if plan.stopped:
        out.update(changed=False, changes=[], diff=diff(()))
        module.fail_json(msg=message(doing, plan.blockers), blockers=[b.as_dict() for b in plan.blockers], **out, **result(observed, plan))

    blockers = list(plan.blockers)
    failed: list[Blocker] = []
    if plan.changes and (not module.check_mode or getattr(apply, "dry_runs", False)):
        failed = apply(plan.changes)
        blockers += failed
    if plan.changes and not module.check_mode:
        tried = {blocker.target for blocker in blockers}
        try:
            observed = observe()
        except unreadable as error:
            problem = f"what was written could not be read again: {error}"
            written = any(change.target not in tried for change in plan.changes)
            left = [Blocker("reading back", problem, "Run again: what is right stays as it is")] if written else []
        else:
            blockers = settle(blockers, plan, make_plan(observed))
            left = _not_taken(make_plan(observed)) if verify is None else verify(observed)
        blockers += [blocker for blocker in left if blocker.target not in tried]
    if blockers:
        stopped = {blocker.target for blocker in blockers}
        done = [change for change in plan.changes if change.target not in stopped]
        out.update(changed=bool(done), changes=[change.as_dict() for change in done], diff=diff(done))
        msg = message(doing, blockers, done, module.check_mode)
        module.fail_json(msg=msg, blockers=[b.as_dict() for b in blockers], **out, **result(observed, plan))
    module.exit_json(**out, **result(observed, plan))
