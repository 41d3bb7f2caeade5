# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""Writes of which nobody knows whether they were carried out: the answer was lost, or said that the server failed. Reading back decides."""

from __future__ import annotations

import dataclasses
import typing as t

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _change
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _client


@dataclasses.dataclass(frozen=True)
class Unanswered(_change.Blocker):
    """A write that failed and may have been carried out."""

    unknown = True


def blocker(
    target: str, error: _client.ApiError, remedy: str, stops: t.Literal["all", "target"] = "all", note: str = ""
) -> _change.Blocker:
    """The Blocker of a write that failed; ``note`` goes after what the server said."""
    if "failed calling webhook" in error.message:
        remedy = "See whether the pods run that serve this webhook (of KubeVirt: virt-operator and virt-api), and run again"
    kind = Unanswered if error.unknown else _change.Blocker
    return kind(target, f"{error}{note}", remedy, stops)


def settle(blockers: t.Sequence[_change.Blocker], plan: _change.Plan, left: _change.Plan) -> t.List[_change.Blocker]:
    """Blockers after reading back, for ``_change.run``: none for a write that was carried out, and what is ``left`` to do was not.

    A blocker that names no target of the plan stands for all of it.
    """
    targets, still = {change.target for change in plan.changes}, {change.target for change in left.changes}
    found: t.List[_change.Blocker] = []
    for each in blockers:
        if not each.unknown:
            found.append(each)
        elif each.target in still if each.target in targets else still:
            found.append(_change.Blocker(each.target, each.problem, each.remedy, each.stops))
    return found
