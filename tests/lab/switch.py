# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Switches the faults of a lab that is up. The record in ``lab.json`` says which are on; the simulated operator looks there in every round."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tests.lab import faults
from tests.lab.layout import Layout


def switch(layout: Layout, names: Iterable[str]) -> list[str]:
    """Have exactly these faults; none of them, or ``none``: a lab without. Returns those that are on."""
    wanted = faults.chosen(names)
    with layout.lock():
        record = layout.read()
        layout.write({**record, "faults": wanted})
    return wanted


def active(layout: Layout) -> list[str]:
    """The faults that are on."""
    found: Sequence[str] = layout.read()["faults"]
    return list(found)
