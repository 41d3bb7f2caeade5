# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""All that the role ``fleet_report`` writes, shows and hands on, from one call: a large report passes through Ansible's templates only as text."""

from __future__ import annotations

import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.plugin_utils._report import _json, _page, _report, _text, _verdict


def files(fleet: t.Mapping[str, t.Any], fail_on: t.Any = (), path: str = "", shown: int = 150, **more: t.Any) -> dict[str, t.Any]:
    """``{files, shown, failed, text, stats}``. ``more``: as for :func:`_report.fleet_report`. ``files``: content by name; ``shown``: so many lines.

    A ``fail_on`` that cannot be is no reason to have no report: it fails the run behind it.
    """
    report = _report.fleet_report(fleet, **more)
    text = _text.fleet_report_text(report)
    try:
        said = _verdict.verdict(report, fail_on, path)
    except ValueError as error:
        said = {**_verdict.verdict(report, (), path), "failed": ["fail_on"], "text": f"{error}. The report is in {path}"}
    lines = text.splitlines()
    if len(lines) > shown:
        lines = [*lines[:shown], f"({len(lines) - shown} more lines in {path}/fleet.txt)"]
    contents = {"fleet.json": _json.text(report), "fleet.txt": text, "fleet.html": _page.page(report)}
    return {"files": contents, "shown": lines, **said}
