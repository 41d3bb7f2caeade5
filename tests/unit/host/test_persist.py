# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What makes devices at boot, as files: which are written in which order, and which go. Its use by modules is in test_devices_at_boot."""

from __future__ import annotations

import ast
import dataclasses
import json
import typing as t
from pathlib import Path

import pytest

from ansible_collections.gpufleet.kubevirt.plugins.module_utils import _change
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host import _persist
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._commands import Commands
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._host._sysfs import Host, HostError

A, B = "0000:41:00.0", "0000:a1:00.0"
DIRECTORY, FILE, LINKS = (
    "directory /usr/local/lib/gpufleet/sriov_vfs",
    "file /etc/systemd/system/gpufleet-devices.service",
    "links of gpufleet-devices.service",
)
EMPTY = _persist.Seen({"sriov_vfs": {}, "mdev_create": {}}, None, None, frozenset(), True)
ENTRY = {"count": 4}
CODE, UNIT = "code-1", "unit-1"


def having(sriov: t.Any = None, mdev: t.Any = None, **more: t.Any) -> _persist.Seen:
    """A host on which it is all in place, with these entries."""
    there: dict[str, t.Any] = {"code": CODE, "unit": UNIT, "links": frozenset(_persist.links())}
    entries = {"sriov_vfs": sriov or {}, "mdev_create": mdev or {}}
    return dataclasses.replace(EMPTY, **{**there, "entries": entries, **more})


def plan(seen: _persist.Seen, **updates: t.Any) -> list[tuple[str, str]]:
    made = _persist.plan(seen, "sriov_vfs", {{"a": A, "b": B}[name]: entry for name, entry in updates.items()}, CODE, UNIT)
    assert not made.blockers, made.blockers
    return [(change.action, change.target) for change in made.changes]


ENTRY_A, ENTRY_B = f"boot entry sriov_vfs {A}", f"boot entry sriov_vfs {B}"


@pytest.mark.parametrize(
    ("seen", "updates", "expected"),
    [
        (EMPTY, {"a": None}, []),
        # The code is there before the unit, and the unit before what enables it; they go the other way round.
        (EMPTY, {"a": ENTRY}, [("write", ENTRY_A), ("write", DIRECTORY), ("write", FILE), ("write", LINKS)]),
        (having({A: ENTRY}), {"a": None}, [("remove", ENTRY_A), ("remove", LINKS), ("remove", FILE), ("remove", DIRECTORY)]),
        (having({A: ENTRY}), {"a": ENTRY}, []),
        (having({A: ENTRY}), {"a": {"count": 2}, "b": ENTRY}, [("write", ENTRY_A), ("write", ENTRY_B)]),
        (having({A: ENTRY, B: ENTRY}), {"b": None}, [("remove", ENTRY_B)]),
        # Of the other module's devices nothing is taken away: unit and links stay, and only our own code goes.
        (having({A: ENTRY}, {B: {}}), {"a": None}, [("remove", ENTRY_A), ("remove", DIRECTORY)]),
        (having({}, {B: {}}, code="old"), {"a": None}, [("remove", DIRECTORY)]),
        (having({}, {B: {}}, code=None, unit="old"), {"a": None}, []),
        # Code of another version is brought up to date by who persists something.
        (having({A: ENTRY}, code="old"), {"a": ENTRY}, [("write", DIRECTORY)]),
        (having({A: ENTRY}, code="old"), {"a": ENTRY, "b": None}, [("write", DIRECTORY)]),
        (having({A: ENTRY}, code=None, unit=None, links=frozenset()), {"a": None}, [("remove", ENTRY_A)]),
        (having({A: ENTRY}, unit="old"), {"a": ENTRY}, [("write", FILE)]),
        (having({A: ENTRY}, links=frozenset()), {"a": ENTRY}, [("write", LINKS)]),
        # What a run that was cut off has left goes.
        (having(), {"a": None}, [("remove", LINKS), ("remove", FILE), ("remove", DIRECTORY)]),
        (having(code=None, unit=None), {"a": None}, [("remove", LINKS)]),
        (having(code=None, links=frozenset()), {}, [("remove", FILE)]),
        (having(unit=None, links=frozenset()), {}, [("remove", DIRECTORY)]),
        (dataclasses.replace(EMPTY, systemd=False), {"a": None}, []),
    ],
)
def test_what_is_needed_is_written_and_nothing_else_is_left(
    seen: _persist.Seen, updates: dict[str, t.Any], expected: list[tuple[str, str]]
) -> None:
    assert plan(seen, **updates) == expected


def test_changes_show_what_was_there_and_why() -> None:
    links = "\n".join(sorted(_persist.links()))
    made = _persist.plan(having({A: ENTRY}, code="old", links=frozenset()), "sriov_vfs", {A: {"count": 2}}, CODE, UNIT)
    assert [(change.before, change.after, change.reason) for change in made.changes] == [
        (ENTRY, {"count": 2}, "persist: boot"),
        ("old", CODE, "the devices are made at boot"),
        (None, links, "the devices are made at boot"),
    ]
    gone = _persist.plan(having({A: ENTRY}), "sriov_vfs", {A: None}, CODE, UNIT)
    assert [(change.before, change.after) for change in gone.changes] == [(ENTRY, None), (links, None), (UNIT, None), (CODE, None)]
    assert {change.reason for change in gone.changes[1:]} == {"no such devices are made at boot any more"}


@pytest.mark.parametrize("updates", [{}, {A: None}, {A: ENTRY}])
def test_a_list_that_cannot_be_read_keeps_the_unit_and_stops(updates: dict[str, t.Any]) -> None:
    refused = _persist.plan(having(broken="it is of version 9"), "sriov_vfs", updates, CODE, UNIT)
    assert not refused.changes and [(b.target, b.problem) for b in refused.blockers] == [
        ("file /etc/gpufleet/devices.json", "it is of version 9")
    ]


def test_without_systemd_nothing_can_be_persisted_and_all_can_be_forgotten() -> None:
    bare = having({A: ENTRY}, {B: {}}, systemd=False)
    refused = _persist.plan(bare, "sriov_vfs", {A: {"count": 1}, B: None}, CODE, UNIT)
    assert not refused.changes
    assert [(b.target, b.problem) for b in refused.blockers] == [("host", "it has no systemd, and persist: boot is a unit of it")]
    assert plan(bare, a=None) == [("remove", ENTRY_A), ("remove", DIRECTORY)]


def test_systemd_is_told_of_what_is_its_own_only() -> None:
    everything = _persist.plan(EMPTY, "sriov_vfs", {A: ENTRY}, CODE, UNIT).changes
    told = {change.target for change in everything if _persist.needs_reload([change])}
    assert told == {FILE, LINKS}
    assert _persist.pending(everything, False) == ["systemctl daemon-reload"]
    assert _persist.pending(everything, True) == _persist.pending(everything[:2], False) == []


def test_the_unit_has_longer_than_it_waits() -> None:
    text = _persist.unit_text("/usr/bin/python3")
    assert _persist.WAIT == 300 and "TimeoutStartSec=420\n" in text  # five minutes for drivers, two for the work
    assert "ExecStart=/usr/bin/python3 -B /usr/local/lib/gpufleet/boot.py\n" in text
    assert "ConditionPathExists=/etc/gpufleet/devices.json\n" in text


# On a host


def on(root: Path) -> _persist.Persistence:
    host = Host(str(root))
    return _persist.Persistence(host, Commands(host), "sriov_vfs", _change.__name__)


def apply(root: Path, **updates: t.Any) -> list[_change.Blocker]:
    here = on(root)
    made = _persist.plan(here.observe(), "sriov_vfs", {{"a": A, "b": B}[k]: entry for k, entry in updates.items()}, here.code, here.unit)
    assert not made.blockers, made.blockers
    return here.apply(made.changes, {B})


def found(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): oct(path.lstat().st_mode & 0o777) for path in root.rglob("*") if not path.is_dir()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc/systemd/system").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize("path", ["etc/systemd", "usr/lib/systemd", "lib/systemd"])
def test_systemd_is_found_wherever_its_files_are(tmp_path: Path, path: str) -> None:
    assert not on(tmp_path).observe().systemd
    (tmp_path / path).mkdir(parents=True)
    assert on(tmp_path).observe().systemd


def test_files_are_for_root_to_write_and_the_list_for_root_to_read(root: Path) -> None:
    assert not apply(root, a=ENTRY)
    modes = found(root)
    own = "usr/local/lib/gpufleet/sriov_vfs"
    base = f"{own}/ansible_collections"
    packages = ["", "/gpufleet", "/gpufleet/kubevirt", "/gpufleet/kubevirt/plugins", "/gpufleet/kubevirt/plugins/module_utils"]
    code = {"usr/local/lib/gpufleet/boot.py", f"{own}/attempt.py", f"{base}/gpufleet/kubevirt/plugins/module_utils/_change.py"}
    code |= {f"{base}{package}/__init__.py" for package in packages}
    links = {path.lstrip("/") for path in _persist.links()}
    assert set(modes) == code | links | {"etc/gpufleet/devices.json", "etc/systemd/system/gpufleet-devices.service"}
    assert {modes[path] for path in code} == {"0o644"} == {modes["etc/systemd/system/gpufleet-devices.service"]}
    assert modes["etc/gpufleet/devices.json"] == "0o600"
    assert json.loads((root / "etc/gpufleet/devices.json").read_text()) == {"version": 1, "sriov_vfs": {A: ENTRY}, "mdev_create": {}}
    seen = on(root).observe()
    assert seen.entries["sriov_vfs"] == {A: ENTRY} and seen.links == frozenset(_persist.links()) and seen.broken is None
    assert not apply(root, a=None) and not found(root)


def test_a_device_that_failed_is_not_persisted_and_the_others_are(root: Path) -> None:
    blockers = apply(root, a=ENTRY, b=ENTRY)
    assert [blocker.target for blocker in blockers] == [ENTRY_B]
    assert on(root).observe().entries["sriov_vfs"] == {A: ENTRY}


def test_where_every_device_failed_there_is_no_list(root: Path) -> None:
    assert len(apply(root, b=ENTRY)) == 1
    assert not (root / "etc/gpufleet").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"version": 9}', "is of version 9, and this is version 1"),
        ("[]", "cannot be understood (TypeError)"),
        ("{", "cannot be understood (JSONDecodeError)"),
        ('{"version": 1, "sriov_vfs": {}}', "cannot be understood (KeyError)"),
    ],
)
def test_a_list_of_somebody_else_s_is_not_taken_for_ours(root: Path, text: str, words: str) -> None:
    (root / "etc/gpufleet").mkdir()
    (root / "etc/gpufleet/devices.json").write_text(text)
    with pytest.raises(HostError, match=words.replace("(", r"\(").replace(")", r"\)")):
        _persist.read_entries(Host(str(root)))
    assert words in (on(root).observe().broken or "")


def test_a_list_that_changed_meanwhile_into_none_of_ours_stops_before_the_files(root: Path) -> None:
    here = on(root)
    made = _persist.plan(here.observe(), "sriov_vfs", {A: ENTRY}, here.code, here.unit)
    (root / "etc/gpufleet").mkdir()
    (root / "etc/gpufleet/devices.json").write_text("{")
    assert [blocker.target for blocker in here.apply(made.changes, ())] == ["file /etc/gpufleet/devices.json"]
    assert set(found(root)) == {"etc/gpufleet/devices.json"}


@pytest.mark.parametrize(
    ("statement", "modules"),
    [
        ("from . import _boot_loop, _sysfs", ["_host._boot_loop", "_host._sysfs"]),
        ("from ._sysfs import Host", ["_host._sysfs"]),
        ("from .. import _change", ["_change"]),
        ("from .._change import Plan, Change", ["_change", "_change"]),
        (f"from {_persist._BASE}._host import _boot_loop", ["_host._boot_loop"]),
        (f"from {_persist._BASE}._change import Plan", ["_change"]),
        ("from __future__ import annotations", []),
        ("from os import path", []),
    ],
)
def test_what_a_module_imports_of_ours_goes_with_it(statement: str, modules: list[str]) -> None:
    node = ast.parse(statement).body[0]
    assert isinstance(node, ast.ImportFrom)
    assert _persist._imported(node, f"{_persist._BASE}._host") == [f"{_persist._BASE}.{module}" for module in modules]


def test_a_module_without_its_source_cannot_be_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_change, "__spec__", None)
    with pytest.raises(HostError, match="its source is not where it was loaded from"):
        _persist.code_files("sriov_vfs", _change.__name__)
