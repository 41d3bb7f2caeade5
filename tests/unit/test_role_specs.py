# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a role says about its variables is what it does: its argument specs equal its defaults, rendered with an empty inventory."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROLES = sorted(path for path in (Path(__file__).parents[2] / "roles").iterdir() if path.is_dir())
NOT_SET = "no default: the inventory decides"


def rendered(value: t.Any) -> t.Any:
    """The value of a default where nobody has set anything."""
    if isinstance(value, str):
        try:
            return Templar(loader=DataLoader(), variables={}).template(trust_as_template(value))
        except AnsibleError:
            return NOT_SET
    return value


def defaults(role: Path) -> dict[str, t.Any]:
    return {name: rendered(value) for name, value in (yaml.safe_load((role / "defaults" / "main.yml").read_text()) or {}).items()}


def entry_points(role: Path) -> dict[str, t.Any]:
    return dict(yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"])


def test_there_are_roles() -> None:
    assert len(ROLES) >= 8


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_specs_equal_defaults(role: Path) -> None:
    found = defaults(role)
    described: set[str] = set()
    for entry in entry_points(role).values():
        for name, option in (entry.get("options") or {}).items():
            described.add(name)
            if not option.get("required"):
                assert name in found, f"{name} has no default"
                assert option.get("default", NOT_SET) == found[name], name
    assert described == set(found), "described and defaulted variables differ"


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_variables_carry_the_roles_name(role: Path) -> None:
    assert [name for name in defaults(role) if not name.startswith(f"{role.name}_")] == []


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_entry_point_is_described_and_exists(role: Path) -> None:
    """One that is not is only a part of others: it is named by them."""
    tasks = {path.stem: path.read_text() for path in (role / "tasks").glob("*.yml")}
    described = set(entry_points(role))
    assert described <= set(tasks)
    for part in set(tasks) - described:
        assert any(f"{part}.yml" in text for name, text in tasks.items() if name != part), part
