# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _cordon

OURS = {_cordon.ANNOTATION: "reboot"}


def node(unschedulable=False, annotations=None):
    return {"metadata": {"name": "n", "annotations": annotations}, "spec": {"unschedulable": unschedulable}}


@pytest.mark.parametrize(
    ("state", "seen", "actions"),
    [
        ("cordoned", node(), ["cordon"]),
        ("cordoned", node(True), []),
        ("cordoned", node(True, OURS), []),
        ("uncordoned", node(True, OURS), ["uncordon"]),
        ("uncordoned", node(True), []),
        ("uncordoned", node(), []),
        ("uncordoned", node(False, OURS), ["uncordon"]),
    ],
    ids=["free", "theirs", "ours", "take ours back", "leave theirs", "nothing to do", "note left behind"],
)
def test_only_our_own_cordon_is_made_and_taken_back(state, seen, actions):
    assert [change.action for change in _cordon.make_plan("n", state, "reboot", seen).changes] == actions


def test_a_missing_node_is_a_blocker():
    assert _cordon.make_plan("n", "cordoned", "reboot", None).stopped


def test_the_patch_of_an_uncordon_removes_note_and_cordon():
    plan = _cordon.make_plan("n", "uncordoned", "", node(True, OURS))
    assert _cordon.patch(plan.changes[0]) == {"metadata": {"annotations": {_cordon.ANNOTATION: None}}, "spec": {"unschedulable": None}}


def test_a_planned_cordon_is_seen_by_the_uncordon_of_check_mode():
    planned = _cordon.planned(node(), "reboot")
    assert [change.action for change in _cordon.make_plan("n", "uncordoned", "", planned).changes] == ["uncordon"]


def test_a_planned_cordon_keeps_what_else_the_node_has():
    before = {"kind": "Node", "metadata": {"name": "n", "annotations": {"team": "ml"}}, "spec": {"podCIDR": "10.0.0.0/24"}}
    assert _cordon.planned(before, "reboot") == {
        "kind": "Node",
        "metadata": {"name": "n", "annotations": {"team": "ml", _cordon.ANNOTATION: "reboot"}},
        "spec": {"podCIDR": "10.0.0.0/24", "unschedulable": True},
    }
    assert "unschedulable" not in before["spec"] and _cordon.ANNOTATION not in before["metadata"]["annotations"]
