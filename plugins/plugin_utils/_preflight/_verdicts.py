# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Preflight rules are data; this judges a host by them.

A rule's ``query`` is JMESPath over ``{facts, intent, node}`` and returns the offenders: a list of them, or anything true. A ``needs``
path that is null, or a list with a null in it, makes the rule unknown, because a query over nothing would find nobody guilty.
(JMESPath's own projections drop nulls; ``map(&bars, facts.gpus)`` keeps them.)
"""

from __future__ import annotations

import functools
import itertools
import re
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _names
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._plain import plain

try:
    import jmespath
    from jmespath import functions
    from jmespath.exceptions import JMESPathError
except ImportError as error:
    # Said when the filter is used: a filter that cannot even be loaded is "No filter named" to Ansible.
    MISSING: str | None = str(error)
else:
    MISSING = None

Facts = t.Mapping[str, t.Any]

REQUIRED = ("id", "title", "workloads", "severity", "query", "problem", "remedy")
KNOWN = frozenset((*REQUIRED, "needs", "unknown", "fixed_by", "reference"))
SEVERITIES = ("fail", "warn")
#: From harmless to bad: the worst verdict of a rule is the host's.
ORDER = ("pass", "warn", "will_fix", "fail")


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version.partition("-")[0])]


def _older(left: str, right: str) -> bool:
    """Is a version older than another? Numbers are compared as numbers; a missing one counts as 0."""
    pairs = list(itertools.zip_longest(_numbers(left), _numbers(right), fillvalue=0))
    return [a for a, _b in pairs] < [b for _a, b in pairs]


@functools.cache
def _options() -> t.Any:
    class Functions(functions.Functions):  # type: ignore[misc]
        @functions.signature({"types": ["string"]}, {"types": ["string"]})  # type: ignore[untyped-decorator]
        def _func_version_lt(self, left: str, right: str) -> bool:
            return _older(left, right)

    return jmespath.Options(custom_functions=Functions())


def compiled_rules(rules: t.Iterable[Facts], site_rules: t.Iterable[Facts] = ()) -> list[dict[str, t.Any]]:
    """The rules of the collection with those of the site, checked. Raises ValueError that names the rule."""
    found: dict[str, dict[str, t.Any]] = {}
    silenced: dict[str, str] = {}
    for rule in rules:
        found[str(_mapping(rule).get("id"))] = _checked(rule)
    for rule in site_rules:
        if "silence" in _mapping(rule):
            name = str(rule.get("id"))
            if set(rule) != {"id", "silence"}:
                raise ValueError(f"preflight rule {name!r} is silenced; it can have no other field beside id and silence")
            if name not in found:
                raise ValueError(f"preflight rule {name!r} is silenced, but there is none of this name")
            if not str(rule["silence"] or "").strip():
                raise ValueError(f"preflight rule {name!r} is silenced without a reason")
            silenced[name] = str(rule["silence"])
        else:
            found[str(rule.get("id"))] = _checked(rule)
    return [{**rule, "silence": silenced.get(name)} for name, rule in found.items()]


def _mapping(rule: t.Any) -> Facts:
    if not isinstance(rule, t.Mapping):
        raise ValueError(f"a preflight rule is a mapping with id, title and so on, not {rule!r}")
    return rule


def _checked(rule: Facts) -> dict[str, t.Any]:
    name = rule.get("id") or "(without id)"
    missing = [key for key in REQUIRED if not rule.get(key)]
    unknown = sorted(set(rule) - KNOWN)
    if missing or unknown:
        raise ValueError(
            f"preflight rule {name!r}: "
            + "; ".join([f"{key} is missing" for key in missing] + [f"{key} is no field of a rule" for key in unknown])
        )
    if rule["severity"] not in SEVERITIES or rule.get("unknown", "fail") not in ("fail", "warn", "pass"):
        raise ValueError(f"preflight rule {name!r}: severity is fail or warn, unknown is fail, warn or pass")
    for key, allowed in (("workloads", _names.WORKLOADS), ("needs", None)):
        # A string is a list of letters to Python, and a workload that nobody has would make a rule that never speaks.
        value = rule.get(key) or []
        wrong = [str(value)] if isinstance(value, str) else [str(entry) for entry in value if allowed and entry not in allowed]
        if wrong:
            of = f" of {', '.join(allowed)}" if allowed else ""
            raise ValueError(f"preflight rule {name!r}: {key} is a list{of}, not {', '.join(wrong)}")
    try:
        return {
            **rule,
            "_query": jmespath.compile(str(rule["query"])),
            "_needs": [(str(path), jmespath.compile(str(path))) for path in rule.get("needs") or []],
        }
    except JMESPathError as error:
        raise ValueError(f"preflight rule {name!r}: its query or a path in needs is no JMESPath: {error}") from error


def preflight_verdicts(
    facts: Facts,
    rules: t.Iterable[Facts],
    intent: Facts | None = None,
    node: Facts | None = None,
    fixers: t.Collection[str] = (),
    site_rules: t.Iterable[Facts] = (),
) -> dict[str, t.Any]:
    """``{verdict, rules, why, text}`` of one host. ``fixers``: repairs that this run makes; after them, judge again with none."""
    if MISSING:
        raise ValueError(
            f"the Python package jmespath is missing on the controller ({MISSING}); install it for the Python that runs Ansible"
        )
    data = {"facts": plain(facts), "intent": plain(intent or {}), "node": plain(node or {})}
    workload = data["intent"].get("workload")
    if workload not in _names.WORKLOADS:
        # No rule would apply, and nothing judged must not look like nothing found.
        raise ValueError(f"the intent's workload is {workload!r}; a host is judged as one of {', '.join(_names.WORKLOADS)}")
    judged = [_judge(rule, data, fixers) for rule in compiled_rules(rules, site_rules) if workload in rule["workloads"]]
    counts = [entry["counts_as"] for entry in judged]
    verdict = max(counts, key=ORDER.index, default="pass")
    bad = [entry for entry in judged if entry["counts_as"] == "fail"]
    return {
        "verdict": verdict,
        "rules": judged,
        "why": "; ".join(entry["problem"] for entry in bad),
        "text": _text(data["intent"], judged, bad),
    }


def _judge(rule: t.Mapping[str, t.Any], data: dict[str, t.Any], fixers: t.Collection[str]) -> dict[str, t.Any]:
    missing = [path for path, compiled in rule["_needs"] if _is_unknown(compiled, data)]
    result = {"id": rule["id"], "title": rule["title"], "problem": "", "remedy": "", "offenders": []}
    if rule["silence"]:
        return {**result, "verdict": "silenced", "counts_as": "pass", "problem": f"silenced: {rule['silence']}"}
    if missing:
        known = [_reasoned(path, data["facts"].get("unknown") or {}) for path in missing]
        return {
            **result,
            "verdict": "unknown",
            "counts_as": rule.get("unknown") or rule["severity"],
            "problem": f"{rule['title']}: cannot be told, because this is not known: {', '.join(known)}",
            "remedy": "Make it readable (root?), or silence the rule with a reason",
        }
    try:
        offenders = rule["_query"].search(data, _options())
    except JMESPathError as error:
        raise ValueError(f"preflight rule {rule['id']!r}: its query fails on this host: {error}") from error
    if not offenders:
        return {**result, "verdict": "pass", "counts_as": "pass"}
    listed = offenders if isinstance(offenders, list) else []
    verdict = "will_fix" if rule.get("fixed_by") in fixers else rule["severity"]
    filled = {key: _filled(str(rule[key]), data, listed) for key in ("problem", "remedy")}
    return {**result, **filled, "offenders": listed, "verdict": verdict, "counts_as": verdict}


def _is_unknown(path: t.Any, data: dict[str, t.Any]) -> bool:
    try:
        found = path.search(data, _options())
    except JMESPathError:
        return True  # a function over what is not there
    return found is None or (isinstance(found, list) and None in found)


def _reasoned(path: str, reasons: t.Mapping[str, str]) -> str:
    """A path with why its facts are not known: ``gpus.0000:41:00.0.bars`` is the reason of ``map(&bars, facts.gpus)``."""
    words = set(re.findall(r"\w+", path))
    why = [reason for fact, reason in sorted(reasons.items()) if {fact.partition(".")[0], fact.rpartition(".")[2]} <= words]
    return f"{path} ({'; '.join(dict.fromkeys(why))})" if why else path


def _filled(text: str, data: dict[str, t.Any], offenders: list[t.Any]) -> str:
    """``{offenders}``, and ``{path}`` for any path into the data."""

    def value(match: re.Match[str]) -> str:
        found = offenders if match.group(1) == "offenders" else jmespath.search(match.group(1), data)
        if isinstance(found, list):
            return ", ".join(map(str, found))
        return "unknown" if found is None else str(found)

    return re.sub(r"\{([a-z][\w.\[\]*]*)\}", value, text)


def _text(intent: Facts, judged: list[dict[str, t.Any]], bad: list[dict[str, t.Any]]) -> str:
    what = f"{intent.get('host')} as {intent.get('workload')}"
    head = (
        f"Judging {what}: refused for {len(bad)} reason{'s' if len(bad) != 1 else ''}."
        if bad
        else f"Judging {what}: nothing stands in the way."
    )
    shown = [entry for entry in judged if entry["verdict"] not in ("pass", "silenced")]
    width = max((len(entry["id"]) for entry in shown), default=0)
    lines = [f"- {entry['counts_as']:<8}  {entry['id']:<{width}}  {entry['problem']}. {entry['remedy']}" for entry in shown]
    tail = ["Nothing was changed on this host. The other hosts go on."] if bad else []
    return "\n".join([head, *lines, *tail])
