# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Preflight rules are data; this judges a host by them.

A rule's ``query`` is JMESPath over ``{facts, node, cluster, intent, wanted}`` and returns the offenders: a list of them, or anything true.
A rule is unknown where a path of its ``needs`` is null, or a list with a null in it, and where its query has no answer (null, or an error
of JMESPath): a query over nothing would find nobody guilty. (JMESPath's projections drop nulls; ``map(&bars, facts.gpus)`` keeps them.)
"""

from __future__ import annotations

import re
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _names
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._plain import plain
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._preflight import _functions, _known, _rules, _table

Facts = t.Mapping[str, t.Any]

#: From harmless to bad: the worst verdict of a rule is the host's.
ORDER = ("pass", "warn", "will_fix", "fail")
WHEN = ("before", "after")


def preflight_verdicts(
    facts: Facts,
    intent: Facts | None = None,
    node: Facts | None = None,
    cluster: Facts | None = None,
    wanted: Facts | None = None,
    fixers: t.Collection[str] = (),
    when: str = "before",
    site_rules: t.Iterable[t.Any] = (),
    rules: t.Iterable[t.Any] | None = None,
) -> dict[str, t.Any]:
    """``{host, workload, when, verdict, rules, why, text}`` of one host.

    ``fixers``: repairs that this run makes; they excuse only ``before`` them. ``cluster``: what ``gpu_fleet_info`` returned.
    ``rules``: others than the collection's own.
    """
    if _functions.MISSING:
        raise ValueError(_rules.missing("jmespath", _functions.MISSING))
    if when not in WHEN:
        raise ValueError(f"when is {when!r}; a host is judged {' or '.join(WHEN)} the repairs")
    data = {
        "facts": _known.with_known(plain(facts)),
        "node": plain(node) or None,
        "cluster": plain(cluster) or None,
        "intent": plain(intent or {}),
        "wanted": plain(wanted or {}),
    }
    workload = data["intent"].get("workload")
    if workload not in _names.WORKLOADS:
        # No rule would apply, and nothing judged must not look like nothing found.
        raise ValueError(f"the intent's workload is {workload!r}; a host is judged as one of {', '.join(_names.WORKLOADS)}")
    own = None if rules is None else plain(list(rules))
    repairs = frozenset(fixers) if when == "before" else frozenset()
    compiled = [rule for rule in _rules.rules(plain(list(site_rules)), own) if rule.speaks(workload, when)]
    judged = [_judge(rule, data, repairs) for rule in compiled]
    verdict = max((entry["counts_as"] for entry in judged), key=ORDER.index, default="pass")
    host = data["intent"].get("host")
    return {
        "host": host,
        "workload": workload,
        "when": when,
        "verdict": verdict,
        "rules": judged,
        "why": "; ".join(entry["problem"] for entry in judged if entry["counts_as"] == "fail"),
        "text": _table.text(str(host), workload, when, judged),
    }


def _judge(rule: _rules.Rule, data: dict[str, t.Any], repairs: t.Collection[str]) -> dict[str, t.Any]:
    result = {"id": rule.id, "title": rule.title, "problem": "", "remedy": "", "reference": rule.reference, "offenders": []}
    if rule.silenced:
        return {**result, "verdict": "silenced", "counts_as": "pass", "problem": f"silenced: {rule.silenced}"}
    missing = [path for path, compiled in rule.needs if _is_unknown(compiled, data)]
    if missing:
        return _unknown(rule, result, f"this is not known: {', '.join(_reasoned(path, data['facts']) for path in missing)}")
    try:
        found = _functions.answer(rule.query, data)
    except _functions.NotAnswered as error:
        return _unknown(rule, result, f"its query has no answer on this host: {error}")
    if found is None:
        return _unknown(rule, result, "its query finds nothing to look at on this host")
    if not found:
        return {**result, "verdict": "pass", "counts_as": "pass"}
    offenders = found if isinstance(found, list) else []
    verdict = "will_fix" if rule.fixed_by in repairs else rule.severity
    texts = {"problem": _rules.filled(rule.problem, data, offenders), "remedy": _rules.filled(rule.remedy, data, offenders)}
    return {**result, **texts, "offenders": offenders, "verdict": verdict, "counts_as": verdict}


def _unknown(rule: _rules.Rule, result: dict[str, t.Any], why: str) -> dict[str, t.Any]:
    because = f" (counts as {rule.unknown_as}: {rule.unknown_because})" if rule.unknown_because else ""
    return {
        **result,
        "verdict": "unknown",
        "counts_as": rule.unknown_as,
        "problem": f"{rule.title}: cannot be told, because {why}{because}",
        "remedy": "Make it readable (root?), or silence the rule with a reason",
    }


def _is_unknown(path: t.Any, data: dict[str, t.Any]) -> bool:
    try:
        found = _functions.answer(path, data)
    except _functions.NotAnswered:
        return True  # a function over what is not there
    return found is None or (isinstance(found, list) and None in found)


def _reasoned(path: str, facts: t.Any) -> str:
    """A path with why its facts are not known: ``gpus.0000:41:00.0.bars`` is the reason of ``map(&bars, facts.gpus)``."""
    reasons = facts.get("unknown") if isinstance(facts, dict) else None
    if not isinstance(reasons, dict):
        return path
    words = set(re.findall(r"\w+", path))
    why = [str(reason) for fact, reason in sorted(reasons.items()) if {fact.partition(".")[0], fact.rpartition(".")[2]} <= words]
    return f"{path} ({'; '.join(dict.fromkeys(why))})" if why else path
