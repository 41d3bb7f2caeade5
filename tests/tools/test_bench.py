# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmark import bench, modules, table
from tests.benchmark.table import Row


@pytest.mark.parametrize(("bound", "kept"), [(0.5, True), (0.3, True), (0.29, False), (None, True)])
def test_a_bound_is_on_the_median(bound: float | None, kept: bool) -> None:
    row = Row("reading", [0.1, 9.0, 0.3], "s", bound)
    assert row.kept is kept
    assert ("TOO MUCH" in table.text([row])) is not kept
    assert table.text([row]).splitlines()[-1].split()[:5] == ["reading", "3", "0.100", "0.300", "9.000"]


@pytest.mark.parametrize(("bound", "code"), [(1.0, 0), (0.1, 1)])
def test_a_bound_that_is_not_kept_fails_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bound: float, code: int
) -> None:
    monkeypatch.setattr(bench, "PARTS", [lambda scratch: [Row("a module", [0.5], "s", bound)]])
    assert bench.main() == code
    assert "ansible-core" in capsys.readouterr().out


def test_a_measurement_of_what_did_not_happen_is_none() -> None:
    with pytest.raises(SystemExit, match="127, but 128 were expected"):
        modules.expect("mdev_create", 127, 128)


def test_a_module_that_fails_is_not_measured(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="Measuring mdev_create: it failed"):
        modules.call("mdev_create", modules.host(tmp_path / "host", 0), host_root=str(tmp_path / "host"), gpus=[], backend="no such")
