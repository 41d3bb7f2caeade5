# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``tools/record-host`` as a module: it is a program that is copied to hosts alone, and bears no suffix."""

from __future__ import annotations

import sys
import typing as t
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

PROGRAM = Path(__file__).resolve().parents[2] / "tools" / "record-host"


def _load() -> t.Any:
    loader = SourceFileLoader("record_host", str(PROGRAM))
    spec = spec_from_loader("record_host", loader)
    assert spec is not None
    module = module_from_spec(spec)
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = written
    return module


recorder = _load()
