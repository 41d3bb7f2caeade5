# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The demands that a fleet is planned for, from the text of a file. What a demand may say is the planner's; here is the file."""

from __future__ import annotations

import typing as t

import yaml


class _Loader(yaml.SafeLoader):
    """YAML of which no key is there twice: of two, the first would be ignored without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[t.Any, t.Any]:
        seen = set()
        for key_node, _value in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, t.Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is there twice", key_node.start_mark)
            if isinstance(key, t.Hashable):
                seen.add(key)
        return super().construct_mapping(node, deep)


def _shown(value: t.Any) -> str:
    found = repr(value)
    return found if len(found) <= 60 else f"{found[:57]}..."


def demands(text: str, path: str) -> list[dict[str, t.Any]]:
    """The demands of a file: a list of mappings in YAML or JSON, or a mapping whose only key is ``demands``. ``path`` is for messages.

    :raises ValueError: it is none; the message names file and place.
    """

    def wrong(found: str, remedy: str) -> ValueError:
        return ValueError(f"reading the demands, {path}: {found}. {remedy}. Nothing was planned")

    example = "Write a list such as - {name: desktops, type: A10-4Q, count: 5}"
    try:
        # A subclass of the safe loader: it makes plain data only.
        found = yaml.load(text, Loader=_Loader)  # noqa: S506
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        why = getattr(error, "problem", None) or " ".join(str(error).split())
        raise wrong(f"it is neither YAML nor JSON: {place}{why}", "Correct it there") from None
    except ValueError as error:  # what looks like a date or a number, and is none
        raise wrong(f"it is neither YAML nor JSON: {error}", "Correct it, or put the word into quotes") from None
    if isinstance(found, t.Mapping) and set(found) == {"demands"}:
        found = found["demands"]
    if found is None or found == []:
        raise wrong("it holds no demand", example)
    if not isinstance(found, list):
        raise wrong(f"it holds {_shown(found)}, and a list is needed", example)
    for number, entry in enumerate(found, 1):
        if not isinstance(entry, t.Mapping):
            raise wrong(f"its entry {number} is {_shown(entry)}, and a mapping is needed", example)
    return [dict(entry) for entry in found]
