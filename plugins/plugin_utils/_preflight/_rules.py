# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Rules of preflight: read, checked against their JSON Schema, merged with those of the site, and compiled.

Beyond the schema, a rule must ask for what it reads: each path of its ``query`` stands in ``needs``, itself or deeper. A query over a
fact that nobody asked for would find nobody guilty where the fact is missing.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._preflight import _data, _functions

try:
    import jsonschema
except ImportError as error:
    MISSING: str | None = str(error)
else:
    MISSING = None

#: What a rule can look at. `intent` and `wanted` are what we were asked for: nothing there means that it was not asked for.
TOPS = ("facts", "node", "cluster", "intent", "wanted")
_ASKED = ("intent", "wanted")

_PLACE = re.compile(r"\{([a-z][\w.\[\]*]*)\}")


@dataclasses.dataclass(frozen=True)
class Rule:
    """One rule, ready to be asked."""

    id: str
    title: str
    workloads: tuple[str, ...]
    severity: str
    needs: tuple[tuple[str, t.Any], ...]  #: each path as written, and compiled
    query: t.Any
    problem: str
    remedy: str
    reference: str
    fixed_by: str | None
    when: str | None
    unknown_as: str
    unknown_because: str
    silenced: str | None = None

    def speaks(self, workload: str, when: str) -> bool:
        return workload in self.workloads and self.when in (None, when)


def rules(site_rules: t.Iterable[t.Any] = (), own: t.Iterable[t.Any] | None = None) -> list[Rule]:
    """The rules of the collection (or ``own``) with those of the site. Raises ValueError that names rule and field."""
    found = {rule.id: rule for rule in (_own() if own is None else _each(own, {}))}
    added: dict[str, Rule] = {}
    for rule in _each(site_rules, found):
        if rule.id in added:
            raise ValueError(f"preflight rule {rule.id!r}: id: the site has two of this name")
        added[rule.id] = rule
    return list({**found, **added}.values())


@functools.cache
def _own() -> list[Rule]:
    return list(_each(_data.own_rules(), {}))


def _each(given: t.Iterable[t.Any], known: t.Mapping[str, Rule]) -> t.Iterator[Rule]:
    for entry in given:
        if not isinstance(entry, t.Mapping):
            raise ValueError(f"a preflight rule is a mapping with id, title and so on, not {entry!r}")
        name = str(entry.get("id") or "(without id)")
        kind = "silence" if "silence" in entry else "rule"
        problems = _by_schema(entry, kind)
        if problems:
            raise ValueError(f"preflight rule {name!r}: {'; '.join(problems)}")
        if kind == "rule":
            yield _compiled(name, entry)
        elif name in known:
            yield dataclasses.replace(known[name], silenced=entry["silence"].strip())
        else:
            raise ValueError(f"preflight rule {name!r}: silence: there is none of this name")


def _by_schema(entry: t.Mapping[str, t.Any], kind: str) -> list[str]:
    """What the schema has against an entry, each with the field that it is about."""
    if MISSING:
        raise ValueError(missing("jsonschema", MISSING))
    definitions = _data.schema()["$defs"]
    validator = jsonschema.Draft202012Validator({**definitions[kind], "$defs": definitions})
    problems = []
    for error in sorted(validator.iter_errors(entry), key=lambda error: [str(part) for part in error.absolute_path]):
        if error.validator == "required":
            problems += [f"{name} is missing" for name in error.validator_value if name not in error.instance]
        elif error.validator == "additionalProperties":
            names = sorted(str(name) for name in set(error.instance) - set(error.schema["properties"]))
            problems += [f"{name} is no field of a {kind}" for name in names]
        else:
            described = error.schema.get("description")
            where = ".".join(str(part) for part in error.absolute_path)
            problems.append(f"{where}: {error.message}" + (f" ({described})" if described else ""))
    return list(dict.fromkeys(problems))


def missing(package: str, why: str) -> str:
    return f"the Python package {package} is missing on the controller ({why}); install it for the Python that runs Ansible"


def _compiled(name: str, entry: t.Mapping[str, t.Any]) -> Rule:
    query = _expression(name, "query", entry["query"])
    needs = tuple((path, _expression(name, "needs", path)) for path in entry["needs"])
    asked = set().union(*(_functions.paths(path) for _text, path in needs))
    for path in sorted(_functions.paths(query)):
        if path[0] not in _ASKED and not any(one[: len(path)] == path for one in asked):
            raise ValueError(
                f"preflight rule {name!r}: query: it reads {'.'.join(path)}, which no path in needs asks for; "
                "where that is not known, the rule would pass"
            )
    for field in ("problem", "remedy"):
        for place in _PLACE.findall(entry[field]):
            if place != "offenders":
                _expression(name, field, place)
    unknown = entry.get("unknown") or {"as": entry["severity"], "because": ""}
    return Rule(
        id=name,
        title=entry["title"],
        workloads=tuple(entry["workloads"]),
        severity=entry["severity"],
        needs=needs,
        query=query,
        problem=entry["problem"],
        remedy=entry["remedy"],
        reference=entry.get("reference", ""),
        fixed_by=entry.get("fixed_by"),
        when=entry.get("when"),
        unknown_as=unknown["as"],
        unknown_because=unknown["because"],
    )


def _expression(rule: str, field: str, text: str) -> t.Any:
    try:
        expression = _functions.compiled(text)
    except ValueError as error:
        raise ValueError(f"preflight rule {rule!r}: {field}: {text!r} {error}") from error
    for path in sorted(_functions.paths(expression)):
        if path[0] not in TOPS:
            raise ValueError(f"preflight rule {rule!r}: {field}: it reads {path[0]}; a rule can read {', '.join(TOPS)}")
    return expression


def filled(text: str, data: t.Mapping[str, t.Any], offenders: t.Sequence[t.Any]) -> str:
    """``{offenders}``, and ``{path}`` for any path into the data; what is not known reads ``unknown``."""

    def value(match: re.Match[str]) -> str:
        if match.group(1) == "offenders":
            return ", ".join(map(str, offenders))
        try:
            found = _functions.answer(_functions.compiled(match.group(1)), data)
        except _functions.NotAnswered:
            found = None
        if isinstance(found, list):
            return ", ".join(map(str, found))
        return "unknown" if found is None else str(found)

    return _PLACE.sub(value, text)
