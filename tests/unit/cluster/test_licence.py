# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Secret with a licence's token, as values."""

from __future__ import annotations

import base64
import typing as t
from pathlib import Path

import pytest
from gpu_objects import Json

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _licence, _vm

LICENCE = _vm.Licence("token", "key.tok", "/a/file")
TOKEN = _licence.Token(b"head.body.tail", False)
OURS = {"annotations": {"gpufleet.kubevirt/made-by": "gpu_vm"}}


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def test_a_secret_is_what_kubernetes_takes_for_one_and_a_token_hides_itself() -> None:
    assert _licence.body(LICENCE, TOKEN) == {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {"name": "token", **OURS},
        "data": {"key.tok": encoded(TOKEN.content)},
    }
    assert "head" not in repr(TOKEN)


@pytest.mark.parametrize(("mode", "open_to_others"), [(0o600, False), (0o700, False), (0o640, True), (0o604, True), (0o622, False)])
def test_who_else_may_read_a_token_is_seen(tmp_path: Path, mode: int, open_to_others: bool) -> None:
    path = tmp_path / "token"
    path.write_bytes(b"t")
    path.chmod(mode)
    assert _licence.read(str(path)).open_to_others is open_to_others


@pytest.mark.parametrize(("size", "fits"), [(512 * 1024, True), (512 * 1024 + 1, False)])
def test_a_token_may_have_half_a_mebibyte(tmp_path: Path, size: int, fits: bool) -> None:
    path = tmp_path / "token"
    path.write_bytes(b"x" * size)
    if fits:
        assert len(_licence.read(str(path)).content) == size
        return
    with pytest.raises(ValueError, match="has more than 512 KiB, which no token has"):
        _licence.read(str(path))


MADE = {"target": "secret ml/token", "action": "create", "before": None, "after": {"keys": ["key.tok"]}, "reason": "there is none"}
NEWER = {**MADE, "action": "update", "before": {"key.tok": "other content"}, "after": {"key.tok": "as given"}, "reason": "content differs"}
THEIRS = "it holds something else under that key, and was not made by this collection"
NOTHING = "it has nothing under the key key.tok; its keys are: "


@pytest.mark.parametrize(
    ("token", "secret", "change", "problem"),
    [
        (TOKEN, None, MADE, None),
        (TOKEN, {"metadata": {}, "data": {"key.tok": encoded(TOKEN.content)}}, None, None),
        (TOKEN, {"metadata": OURS, "data": {"key.tok": encoded(b"other")}}, NEWER, None),
        # Kubernetes would not read this as the same, whatever a lenient reader makes of it.
        (TOKEN, {"metadata": OURS, "data": {"key.tok": "%" + encoded(TOKEN.content)}}, NEWER, None),
        (TOKEN, {"metadata": OURS}, NEWER, None),
        (TOKEN, {"metadata": {}, "data": {"key.tok": encoded(b"other")}}, None, THEIRS),
        (None, {"data": {"key.tok": "eA=="}}, None, None),
        (None, None, None, "there is none"),
        (None, {"data": {"b": "eA==", "a": "eA=="}}, None, NOTHING + "a, b"),
        (None, {"data": {"key.tok": ""}}, None, NOTHING + "key.tok"),
        (None, {}, None, NOTHING + "none"),
        (_licence.Token(b"", False), {"metadata": {}}, None, None),
    ],
)
def test_what_is_done_to_a_secret(token: _licence.Token | None, secret: Json | None, change: Json | None, problem: str | None) -> None:
    plan = _licence.plan("ml", LICENCE, token, secret)
    assert [made.as_dict() for made in plan.changes] == [change] * (change is not None)
    assert [(blocker.target, blocker.problem) for blocker in plan.blockers] == [("secret ml/token", problem)] * (problem is not None)
    assert all(blocker.remedy for blocker in plan.blockers)


@pytest.mark.parametrize(
    ("item", "ours"),
    [(None, False), ({}, False), ({"metadata": {"annotations": {"gpufleet.kubevirt/made-by": "x"}}}, False), ({"metadata": OURS}, True)],
)
def test_what_is_ours_says_so(item: t.Any, ours: bool) -> None:
    assert _licence.ours(item) is ours
