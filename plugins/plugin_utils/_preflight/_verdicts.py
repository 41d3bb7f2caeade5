# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Preflight rules are data; this judges a host by them.

A rule's ``query`` is JMESPath over ``{facts, intent, node}`` and returns the offenders: a list of them, or anything true. A ``needs``
path that is null makes the rule unknown, because a query over nothing would find nobody guilty.
"""

from __future__ import annotations

import re
import typing as t

try:
    import jmespath
    from jmespath import functions
    from jmespath.exceptions import JMESPathError
except ImportError as error:
    raise ValueError(f"the Python package jmespath is missing on the controller ({error})") from error

Facts = t.Mapping[str, t.Any]

REQUIRED = ("id", "title", "workloads", "severity", "query", "problem", "remedy")
KNOWN = frozenset((*REQUIRED, "needs", "unknown", "fixed_by", "reference"))
SEVERITIES = ("fail", "warn")
#: From harmless to bad: the worst verdict of a rule is the host's.
ORDER = ("pass", "warn", "will_fix", "fail")


class _Functions(functions.Functions):  # type: ignore[misc]
    @functions.signature({"types": ["string"]}, {"types": ["string"]})  # type: ignore[untyped-decorator]
    def _func_version_lt(self, left: str, right: str) -> bool:
        """Is a version older than another? Numbers are compared as numbers, as far as both have them."""
        return _numbers(left) < _numbers(right)


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version.partition("-")[0])]


_OPTIONS = jmespath.Options(custom_functions=_Functions())


def compiled_rules(rules: t.Iterable[Facts], site_rules: t.Iterable[Facts] = ()) -> list[dict[str, t.Any]]:
    """The rules of the collection with those of the site, checked. Raises ValueError that names the rule."""
    found: dict[str, dict[str, t.Any]] = {}
    silenced: dict[str, str] = {}
    for rule in rules:
        found[str(rule.get("id"))] = _checked(rule)
    for rule in site_rules:
        name = str(rule.get("id"))
        if "silence" in rule:
            if name not in found:
                raise ValueError(f"preflight rule {name!r} is silenced, but there is none of this name")
            if not str(rule["silence"] or "").strip():
                raise ValueError(f"preflight rule {name!r} is silenced without a reason")
            silenced[name] = str(rule["silence"])
        else:
            found[name] = _checked(rule)
    return [{**rule, "silence": silenced.get(name)} for name, rule in found.items()]


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
    data = {"facts": _plain(facts), "intent": _plain(intent or {}), "node": _plain(node or {})}
    workload = data["intent"].get("workload")
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
    missing = [path for path, compiled in rule["_needs"] if compiled.search(data, _OPTIONS) is None]
    result = {"id": rule["id"], "title": rule["title"], "problem": "", "remedy": "", "offenders": []}
    if rule["silence"]:
        return {**result, "verdict": "silenced", "counts_as": "pass", "problem": f"silenced: {rule['silence']}"}
    if missing:
        reasons = data["facts"].get("unknown") or {}
        known = [
            f"{path} ({reason})" for path in missing for fact, reason in reasons.items() if path.startswith(f"facts.{fact}")
        ] or missing
        return {
            **result,
            "verdict": "unknown",
            "counts_as": rule.get("unknown") or rule["severity"],
            "problem": f"{rule['title']}: cannot be told, because this is not known: {', '.join(known)}",
            "remedy": "Make it readable (root?), or silence the rule with a reason",
        }
    try:
        offenders = rule["_query"].search(data, _OPTIONS)
    except JMESPathError as error:
        raise ValueError(f"preflight rule {rule['id']!r}: its query fails on this host: {error}") from error
    if not offenders:
        return {**result, "verdict": "pass", "counts_as": "pass"}
    listed = offenders if isinstance(offenders, list) else []
    verdict = "will_fix" if rule.get("fixed_by") in fixers else rule["severity"]
    filled = {key: _filled(str(rule[key]), data, listed) for key in ("problem", "remedy")}
    return {**result, **filled, "offenders": listed, "verdict": verdict, "counts_as": verdict}


def _filled(text: str, data: dict[str, t.Any], offenders: list[t.Any]) -> str:
    """``{offenders}``, and ``{path}`` for any path into the data."""

    def value(match: re.Match[str]) -> str:
        found = offenders if match.group(1) == "offenders" else jmespath.search(match.group(1), data)
        return ", ".join(map(str, found)) if isinstance(found, list) else str(found)

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


def _plain(value: t.Any) -> t.Any:
    """Plain containers: JMESPath asks for exact types, and Ansible hands in its own."""
    if isinstance(value, t.Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, str):
        return str(value)
    return value
