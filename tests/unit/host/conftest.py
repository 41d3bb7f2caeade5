# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import importlib
import typing as t

import pytest

from tests.hosts.kernel import ReactingHost

Reacting = t.Callable[..., ReactingHost]


@pytest.fixture
def reacting(monkeypatch: pytest.MonkeyPatch) -> Reacting:
    """``reacting("vfio_bind", root)``: this module of ours then acts on a tree with a kernel; that host, the same in each run."""

    def use(module: str, root: str) -> ReactingHost:
        host = ReactingHost(root)
        loaded = importlib.import_module(f"ansible_collections.gpufleet.kubevirt.plugins.modules.{module}")
        monkeypatch.setattr(loaded, "Host", lambda given: host if given == root else pytest.fail(f"another root: {given}"))
        return host

    return use
