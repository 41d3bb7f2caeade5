# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The operator's images from mirrors, for a cluster that does not reach the registries that the chart names."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._operator._mappings import Values

_KEY = "repository"


def mirrored(chart: t.Mapping[str, t.Any] | None, mirrors: t.Any) -> Values:
    """The values that take every image of ``chart`` (its own values) from its mirror.

    ``mirrors``: registry, with or without a path, to what takes its place: ``{nvcr.io: mirror.example.com/nvcr}``; of several the longest counts.
    Raises ValueError for what is no such mapping, without the chart's values, and for a registry that the chart does not name.
    """
    if not isinstance(mirrors, dict) or not all(isinstance(part, str) and part for pair in mirrors.items() for part in pair):
        raise ValueError(
            f"gpufleet_operator_mirrors: it maps registries to mirrors ({{nvcr.io: mirror.example.com/nvcr}}), not {mirrors!r}"
        )
    if not mirrors:
        return {}
    if chart is None:
        raise ValueError(
            "gpufleet_operator_mirrors: which images there are stands in the chart, and it is not at hand. Unpack it (helm pull --untar) and set "
            "gpufleet_operator_chart to its directory"
        )
    used: set[str] = set()
    found = _walk(chart, mirrors, used)
    unused = sorted(set(mirrors) - used)
    if unused:
        raise ValueError(f"gpufleet_operator_mirrors: the chart takes no image from {', '.join(unused)}. Correct or remove it")
    return found


def _walk(values: t.Mapping[str, t.Any], mirrors: t.Mapping[str, str], used: set[str]) -> Values:
    found: Values = {}
    for key, value in values.items():
        if isinstance(value, dict):
            below = _walk(value, mirrors, used)
            if below:
                found[key] = below
        elif key == _KEY and isinstance(value, str):
            registry = max((name for name in mirrors if f"{value}/".startswith(f"{name.rstrip('/')}/")), key=len, default=None)
            if registry:
                used.add(registry)
                found[key] = mirrors[registry].rstrip("/") + value[len(registry.rstrip("/")) :]
    return found
