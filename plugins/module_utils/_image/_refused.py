# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""What stops the image before anything is written, or between two steps: on what, what was found, what to do."""

from __future__ import annotations

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import Blocker


class Refused(Exception):
    """Carries a :class:`Blocker`. No part of it is ever a password. ``status`` is the registry's HTTP status, if one came."""

    def __init__(self, target: str, problem: str, remedy: str, status: int | None = None) -> None:
        super().__init__(f"{target}: {problem}. {remedy}")
        self.target, self.problem, self.remedy, self.status = target, problem, remedy, status

    def blocker(self) -> Blocker:
        return Blocker(self.target, self.problem, self.remedy)
