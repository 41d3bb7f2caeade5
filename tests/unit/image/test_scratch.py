# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What must not stay behind: the directory with credentials, and the engine at work."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image import _programs, _scratch
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._image._refused import Refused


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_module_that_is_told_to_stop_leaves_neither_credentials_nor_an_engine(number: int, tmp_path: Path) -> None:
    handlers = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)]
    said = tmp_path / "pid"
    with pytest.raises((SystemExit, KeyboardInterrupt)), _scratch.directory() as scratch:
        assert os.stat(scratch).st_mode & 0o777 == 0o700
        _programs.run(["sh", "-c", f"echo $$ >{said}; sleep 0.5; kill -{int(number)} $PPID; sleep 60 & wait"], 30)
    assert not os.path.exists(scratch)
    with pytest.raises(ProcessLookupError):
        os.kill(int(said.read_text()), 0)
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP)] == handlers


def test_no_room_for_a_directory_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    with pytest.raises(Refused, match="TMPDIR /nowhere: no directory can be made: No such file or directory"), _scratch.directory():
        pass
