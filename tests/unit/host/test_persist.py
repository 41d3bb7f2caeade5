# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _persist

A = "0000:41:00.0"


@pytest.mark.parametrize("updates", [{}, {A: None}, {A: {"count": 4}}])
def test_a_list_that_cannot_be_read_keeps_the_unit_and_stops(updates: dict[str, t.Any]) -> None:
    seen = _persist.Seen({"sriov_vfs": {}, "mdev_create": {}}, "code", "unit", frozenset(_persist.links()), True, "is of version 9")
    refused = _persist.plan(seen, "sriov_vfs", updates, "code", "unit")
    assert not refused.changes
    assert [(b.target, b.problem) for b in refused.blockers] == [("file /etc/gpufleet/devices.json", "is of version 9")]
