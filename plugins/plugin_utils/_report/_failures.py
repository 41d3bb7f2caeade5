# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What failed in a run, as one table at its end: host, step, what, why, what to do, and what was left as it was."""

from __future__ import annotations

import textwrap
import typing as t

#: Columns of the text, as terminals and AWX show them without wrapping.
WIDTH = 120
#: A message that is longer is cut: it stands in full where the task failed.
LINES = 12
UNREACHABLE = "Look at its power, network and SSH, and run again for it alone"
_LABELS = ("step", "what", "why", "do", "left")
_INDENT = 8


class Failure(t.NamedTuple):
    """One thing that went wrong on one host. An empty text is one that nobody knows."""

    host: str
    step: str  #: the task
    what: str  #: the thing of the domain on which it stopped: a function, a Node, a file
    why: str
    remedy: str
    left: str  #: what was changed all the same, or that nothing was


def failures(host: str, step: str, result: t.Mapping[str, t.Any], unreachable: bool = False) -> list[Failure]:
    """What a failed task's result says, one entry per blocker; without blockers, its message is the reason."""
    if result.get("censored"):
        return [Failure(host, step, "", str(result["censored"]), "", "")]
    if unreachable:
        return [Failure(host, step, host, _message(result) or "it cannot be reached", UNREACHABLE, "")]
    items = [item for item in result.get("results") or () if isinstance(item, t.Mapping) and item.get("failed")]
    if items:
        return [entry for item in items for entry in failures(host, step, item)]
    left = _left(result)
    blockers = [blocker for blocker in result.get("blockers") or () if isinstance(blocker, t.Mapping)]
    if not blockers:
        return [Failure(host, step, "", _message(result) or "no reason was given", "", left)]
    return [
        Failure(host, step, str(entry.get("target") or ""), str(entry.get("problem") or ""), str(entry.get("remedy") or ""), left)
        for entry in blockers
    ]


def _message(result: t.Mapping[str, t.Any]) -> str:
    lines = [*str(result.get("msg") or "").strip().splitlines()]
    error = str(result.get("stderr") or "").strip().splitlines()
    lines += error[-3:]
    return "\n".join([*lines[:LINES], *([f"({len(lines) - LINES} more lines above)"] if len(lines) > LINES else [])])


def _left(result: t.Mapping[str, t.Any]) -> str:
    """What the failed step changed all the same: only modules that list their changes say so."""
    changes = result.get("changes")
    if not isinstance(changes, list):
        return ""
    done = [f"{change.get('action')} {change.get('target')}" for change in changes if isinstance(change, t.Mapping)]
    return f"done by this step: {', '.join(done)}" if done else "everything is as it was before this step"


def text(found: t.Iterable[Failure], hosts: int) -> str:
    """The table, or an empty text if nothing failed. ``hosts``: how many took part.

    What is the same on several hosts stands there once, with all their names.
    """
    rows: dict[Failure, list[str]] = {}
    for failure in found:
        names = rows.setdefault(failure._replace(host=""), [])
        if failure.host not in names:
            names.append(failure.host)
    if not rows:
        return ""
    failed = {name for names in rows.values() for name in names}
    lines = [f"FAILURE SUMMARY: {_count(len(rows), 'problem')} on {len(failed)} of {_count(hosts, 'host')}"]
    for row, names in rows.items():
        lines += ["", *_wrapped("", ", ".join(sorted(names)))]
        for label in _LABELS:
            value = row.remedy if label == "do" else getattr(row, label)
            lines += _wrapped(label, value) if value else []
    return "\n".join(lines)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _wrapped(label: str, value: str) -> list[str]:
    """A value behind its label, later lines below the first one; a word that is too long (a command, a path) stays whole."""
    indent = " " * (_INDENT if label else 0)
    width = WIDTH - len(indent)
    lines = [
        part
        for line in value.splitlines()
        for part in textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False, subsequent_indent="  ") or [""]
    ]
    return [(f"  {label:<{_INDENT - 2}}" if label and not number else indent) + line for number, line in enumerate(lines)]
