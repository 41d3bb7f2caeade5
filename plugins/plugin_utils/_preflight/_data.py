# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""The data that lies beside this file: the rules, their schema, and which driver knows which GPU."""

from __future__ import annotations

import functools
import json
import typing as t
from pathlib import Path

import yaml


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


@functools.cache
def own_rules() -> list[dict[str, t.Any]]:
    """The collection's own rules, as they are written."""
    return yaml.safe_load(_read("rules.yml"))  # type: ignore[no-any-return]


@functools.cache
def schema() -> dict[str, t.Any]:
    """The JSON Schema of rules."""
    return json.loads(_read("rules.schema.json"))  # type: ignore[no-any-return]


@functools.cache
def generations() -> dict[str, dict[str, int]]:
    """By generation of GPUs: ``first`` and ``last`` branch of the driver that knows it, where there is a bound."""
    return yaml.safe_load(_read("gpu_drivers.yml"))["generations"]  # type: ignore[no-any-return]
