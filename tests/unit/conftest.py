# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import importlib
import json
import os
import typing as t

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from hypothesis import settings

# "few" where the same properties have been tried with many examples already.
settings.register_profile("few", max_examples=10, deadline=None)
settings.load_profile(os.environ.get("GPUFLEET_HYPOTHESIS", "default"))

Result = dict[str, t.Any]


class RunModule(t.Protocol):
    def __call__(self, name: str, params: dict[str, t.Any] | None = None, check: bool = False, diff: bool = False) -> Result: ...


@pytest.fixture
def run_module(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> RunModule:
    """Run a module of this collection through its ``main()``, as Ansible does; its result, with ``failed`` always there."""

    def run(name: str, params: dict[str, t.Any] | None = None, check: bool = False, diff: bool = False) -> Result:
        module = importlib.import_module(f"ansible_collections.gpufleet.kubevirt.plugins.modules.{name}")
        capsys.readouterr()
        # Ansible keeps warnings per process, and in a process that has loaded its controller part it prints them instead.
        warned: list[str] = []
        monkeypatch.setattr(AnsibleModule, "warn", lambda self, warning, **kwargs: warned.append(str(warning)))
        arguments = {**(params or {}), "_ansible_check_mode": check, "_ansible_diff": diff, "_ansible_remote_tmp": "/tmp"}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            module.main()
        printed = capsys.readouterr().out
        result: Result = json.loads(printed.strip().splitlines()[-1])
        result.setdefault("failed", False)
        if warned:
            result["warnings"] = warned
        return result

    return run
