# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The report as JSON: a line per node, which programs read fast and people can compare."""

from __future__ import annotations

import json
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._report import _report


def text(report: t.Any) -> str:
    """The report of a fleet as the content of ``fleet.json``.

    :raises ValueError: what is given is no report of this schema.
    """
    report = _report.check(report)
    lines = []
    for key, value in report.items():
        if key in ("nodes", "capacity", "drift", "findings") and value:
            inner = ",\n".join(f"  {json.dumps(entry)}" for entry in value)
            lines.append(f"{json.dumps(key)}: [\n{inner}\n ]")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value)}")
    inner = ",\n ".join(lines)
    return f"{{\n {inner}\n}}\n"
