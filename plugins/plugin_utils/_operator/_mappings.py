# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Helm values as the mappings that they are: one over another, and what stands under a path."""

from __future__ import annotations

import copy
import typing as t

Values = t.Dict[str, t.Any]


def merged(base: t.Mapping[str, t.Any], top: t.Mapping[str, t.Any]) -> Values:
    """``top`` over ``base``: mappings key by key, anything else as a whole."""
    result = copy.deepcopy(dict(base))
    for key, value in top.items():
        below = result.get(key)
        result[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, t.Mapping) else copy.deepcopy(value)
    return result


def at(values: t.Mapping[str, t.Any], path: t.Sequence[str]) -> t.Any:
    """The value under a path of keys, None where there is none."""
    found: t.Any = values
    for key in path:
        found = found.get(key) if isinstance(found, t.Mapping) else None
    return found


def nested(path: t.Sequence[str], value: t.Any) -> Values:
    """A mapping that has nothing but this value under this path."""
    for key in reversed(path):
        value = {key: value}
    return dict(value)
