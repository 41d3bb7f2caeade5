# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import importlib
import json
import typing as t

import pytest
from ansible.module_utils.common import warnings
from ansible.module_utils.testing import patch_module_args

Result = dict[str, t.Any]


class RunModule(t.Protocol):
    def __call__(self, name: str, params: dict[str, t.Any] | None = None, check: bool = False, diff: bool = False) -> Result: ...


@pytest.fixture
def run_module(capsys: pytest.CaptureFixture[str]) -> RunModule:
    """Run a module of this collection through its ``main()``, as Ansible does; its result, with ``failed`` always there."""

    def run(name: str, params: dict[str, t.Any] | None = None, check: bool = False, diff: bool = False) -> Result:
        module = importlib.import_module(f"ansible_collections.gpufleet.kubevirt.plugins.modules.{name}")
        capsys.readouterr()
        warnings._global_warnings.clear()  # a module process starts without any
        arguments = {**(params or {}), "_ansible_check_mode": check, "_ansible_diff": diff, "_ansible_remote_tmp": "/tmp"}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            module.main()
        printed = capsys.readouterr().out
        result: Result = json.loads(printed.strip().splitlines()[-1])
        result.setdefault("failed", False)
        return result

    return run
