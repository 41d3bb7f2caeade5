# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""JMESPath as the rules speak it: its own functions and a few of ours.

A function over something that it is not for (null above all) is an error of JMESPath, and whoever asks takes it for "not known".
"""

from __future__ import annotations

import collections
import functools
import itertools
import re
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _paused
from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._preflight import _data, _profiles

try:
    import jmespath
    from jmespath import functions
    from jmespath.exceptions import JMESPathError
except ImportError as error:
    # Said when the filter is used: a filter that cannot even be loaded is "No filter named" to Ansible.
    MISSING: str | None = str(error)
else:
    MISSING = None


class NotAnswered(Exception):
    """An expression that cannot be answered over this data."""


def numbers(version: str) -> list[int]:
    """The numbers of a version, those behind a dash (a build, a pre-release) left out. ValueError if it has none."""
    found = [int(number) for number in re.findall(r"\d+", version.partition("-")[0])]
    if not found:
        raise ValueError(f"{version!r} is no version")
    return found


def older(left: str, right: str) -> bool:
    """Is a version older than another? Numbers are compared as numbers; a missing one counts as 0."""
    pairs = list(itertools.zip_longest(numbers(left), numbers(right), fillvalue=0))
    return [a for a, _b in pairs] < [b for _a, b in pairs]


def among(version: str, entries: t.Iterable[str]) -> bool:
    """Is a version one of these? ``1.6.*`` stands for all that begin with these numbers."""
    for entry in entries:
        if entry.endswith(".*"):
            start = numbers(entry)
            if numbers(version)[: len(start)] == start:
                return True
        elif not older(version, entry) and not older(entry, version):
            return True
    return False


def misfits(gpus: t.Iterable[t.Any], version: str) -> list[t.Any]:
    """Addresses of the GPUs whose generation no driver of this version's branch knows. GPUs that the data does not know are left out."""
    branch = numbers(version)[0]
    found = []
    for gpu in gpus:
        known = (gpu.get("known") if isinstance(gpu, t.Mapping) else None) or {}
        bounds = _data.generations().get(str(known.get("architecture")), {})
        if not bounds.get("first", branch) <= branch <= bounds.get("last", branch):
            found.append(gpu.get("address"))
    return found


@functools.cache
def _options() -> t.Any:
    class Functions(functions.Functions):  # type: ignore[misc]
        @functions.signature({"types": ["string"]}, {"types": ["string"]})  # type: ignore[untyped-decorator]
        def _func_version_lt(self, left: str, right: str) -> bool:
            return older(left, right)

        @functions.signature({"types": ["string"]}, {"types": ["array-string"]})  # type: ignore[untyped-decorator]
        def _func_version_in(self, version: str, entries: list[str]) -> bool:
            return among(version, entries)

        @functions.signature({"types": ["string"]}, {"types": ["string"]})  # type: ignore[untyped-decorator]
        def _func_matches(self, text: str, pattern: str) -> bool:
            return re.search(pattern, text) is not None

        @functions.signature({"types": ["string"]})  # type: ignore[untyped-decorator]
        def _func_hex(self, text: str) -> int:
            return int(text, 16)

        @functions.signature({"types": ["array"]})  # type: ignore[untyped-decorator]
        def _func_repeated(self, values: list[t.Any]) -> list[t.Any]:
            counted = collections.Counter(value for value in values if isinstance(value, (str, int)))
            return [value for value, count in counted.items() if count > 1]

        @functions.signature({"types": ["array"]}, {"types": ["string"]})  # type: ignore[untyped-decorator]
        def _func_driver_misfits(self, gpus: list[t.Any], version: str) -> list[t.Any]:
            return misfits(gpus, version)

        @functions.signature({"types": ["array"]}, {"types": ["string", "array", "object"]})  # type: ignore[untyped-decorator]
        def _func_profile_misfits(self, gpus: list[t.Any], profile: t.Any) -> list[str]:
            return _profiles.misfits(gpus, profile)

        @functions.signature({"types": ["object"]}, {"types": ["string"]})  # type: ignore[untyped-decorator]
        def _func_paused(self, labels: dict[str, t.Any], workload: str) -> list[str]:
            return _paused.paused({str(key): str(value) for key, value in labels.items()}, workload)

    return jmespath.Options(custom_functions=Functions())


def compiled(expression: str) -> t.Any:
    """An expression, ready to be asked. ValueError if it is no JMESPath."""
    try:
        return jmespath.compile(expression)
    except JMESPathError as error:
        raise ValueError(f"is no JMESPath: {' '.join(str(error).split())}") from error


def answer(expression: t.Any, data: t.Any) -> t.Any:
    """What a compiled expression finds in the data. Raises NotAnswered."""
    try:
        return expression.search(data, _options())
    except (JMESPathError, ValueError, TypeError, AttributeError, re.error) as error:
        raise NotAnswered(" ".join(str(error).split())) from error


# ------------------------------------------------------------------ what an expression reads

Path = tuple[str, ...]


#: Nodes whose later parts are asked of what the first one has found.
_CHAINS = ("subexpression", "index_expression", "slice", "projection", "filter_projection", "value_projection", "flatten", "pipe")


def paths(expression: t.Any) -> set[Path]:
    """The paths from the top of the data that an expression reads: ``facts.gpus[?a].b`` reads ``facts.gpus``."""
    return _read(expression.parsed)


def _read(node: t.Mapping[str, t.Any]) -> set[Path]:
    path, _whole = _start(node)
    if path:
        return {path}
    if node["type"] == "expref":
        return set()
    asked = node["children"][:1] if node["type"] in _CHAINS else node["children"]
    return set().union(*(_read(child) for child in asked if isinstance(child, t.Mapping)))


def _start(node: t.Mapping[str, t.Any]) -> tuple[Path, bool]:
    """The names with which an expression begins, and whether it is nothing but these."""
    if node["type"] == "field":
        return (str(node["value"]),), True
    path: Path = ()
    if node["type"] in _CHAINS:
        for child in node["children"] if node["type"] == "subexpression" else node["children"][:1]:
            more, whole = _start(child)
            path += more
            if not whole:
                return path, False
    return path, node["type"] == "subexpression"
