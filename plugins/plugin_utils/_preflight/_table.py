# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The verdicts of a host as text: one line for each finding, the worst first, rules that pass only counted."""

from __future__ import annotations

import typing as t

_WORST_FIRST = ("fail", "will_fix", "warn", "pass")
_QUIET = {"pass": "passed", "silenced": "silenced"}


def text(host: str, workload: str, when: str, judged: t.Sequence[t.Mapping[str, t.Any]]) -> str:
    """A table for people: what it counts as, the rule, what was found (a verdict ``unknown`` says so itself), and what to do."""
    bad = [entry for entry in judged if entry["counts_as"] == "fail"]
    what = f"Judging {host} as {workload}:"
    if bad:
        what += f" refused for {len(bad)} reason{'s' if len(bad) != 1 else ''}."
    else:
        what += " nothing stands in the way."
    shown = sorted((entry for entry in judged if entry["verdict"] not in _QUIET), key=lambda entry: _WORST_FIRST.index(entry["counts_as"]))
    width = max((len(entry["id"]) for entry in shown), default=0)
    lines = [f"- {entry['counts_as']:<8}  {entry['id']:<{width}}  {entry['problem']}. {entry['remedy']}." for entry in shown]
    quiet = [f"{sum(entry['verdict'] == verdict for entry in judged)} {word}" for verdict, word in _QUIET.items()]
    tail = []
    if bad:
        tail = [
            "Nothing was changed on this host. The other hosts go on." if when == "before" else "This is after the repairs of this run."
        ]
    return "\n".join([f"{what} Rules: {len(judged)}, {', '.join(quiet)}.", *lines, *tail])
