# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._change import Blocker, Change, Plan, diff, message, run, shown
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _unanswered


class Ended(Exception):
    pass


class FakeModule:
    """Collects what a module says at its end."""

    def __init__(self, check: bool = False) -> None:
        self.check_mode = check
        self.result: dict[str, t.Any] = {}
        self.warnings: list[str] = []

    def exit_json(self, **kwargs: t.Any) -> t.NoReturn:
        self.result = {"failed": False, **kwargs}
        raise Ended

    def fail_json(self, msg: str, **kwargs: t.Any) -> t.NoReturn:
        self.result = {"failed": True, "msg": msg, **kwargs}
        raise Ended

    def warn(self, warning: str) -> None:
        self.warnings.append(warning)


class Store:
    """Numbers by name, which a plan sets to what is wanted. ``broken`` names cannot be written, ``stuck`` ones do not keep a write."""

    def __init__(self, values: dict[str, int], broken: t.Collection[str] = (), stuck: t.Collection[str] = ()) -> None:
        self.values = values
        self.broken = broken
        self.stuck = stuck
        self.written: list[str] = []

    def apply(self, changes: list[Change]) -> list[Blocker]:
        failed = []
        for change in changes:
            self.written.append(change.target)
            if change.target in self.broken:
                failed.append(Blocker(change.target, "the write failed", "Mend it", stops="target"))
            elif change.target not in self.stuck:
                self.values[change.target] = change.after
        return failed


def go(
    store: Store, wanted: dict[str, int], check: bool = False, blockers: t.Sequence[Blocker] = (), dry_runs: bool = False
) -> dict[str, t.Any]:
    def make_plan(seen: dict[str, int]) -> Plan:
        stopped = {blocker.target for blocker in blockers}
        changes = [Change(k, "set", seen.get(k), v, "wanted") for k, v in wanted.items() if seen.get(k) != v and k not in stopped]
        return Plan(changes, list(blockers), ["look out"] if blockers else [])

    def apply(changes: list[Change]) -> list[Blocker]:
        return store.apply(changes)

    if dry_runs:
        apply.dry_runs = True  # type: ignore[attr-defined]
    module = FakeModule(check)
    with pytest.raises(Ended):
        run(module, "Setting numbers", lambda: dict(store.values), make_plan, apply, lambda seen, plan: {"seen": seen})
    assert module.warnings == (["look out"] if blockers else [])
    return module.result


@given(st.dictionaries(st.text(max_size=3), st.integers(0, 3)), st.dictionaries(st.text(max_size=3), st.integers(0, 3)))
def test_check_mode_says_what_the_run_does_and_the_second_run_does_nothing(before: dict[str, int], wanted: dict[str, int]) -> None:
    checked = go(Store(dict(before)), wanted, check=True)
    store = Store(dict(before))
    first = go(store, wanted)
    assert {key: checked[key] for key in ("changed", "changes", "diff")} == {key: first[key] for key in ("changed", "changes", "diff")}
    assert checked["seen"] == before
    assert first["seen"] == store.values == {**before, **wanted}
    second = go(store, wanted)
    assert (second["changed"], second["changes"], second["diff"]) == (False, [], {"before": "", "after": ""})


def test_check_mode_writes_nothing_unless_apply_asks_with_dry_run() -> None:
    store = Store({"a": 1})
    go(store, {"a": 2}, check=True)
    assert store.written == []
    go(store, {"a": 2}, check=True, dry_runs=True)
    assert store.written == ["a"]


def test_a_blocker_of_all_stops_before_the_first_write() -> None:
    store = Store({"a": 1})
    result = go(store, {"a": 2, "b": 3}, blockers=[Blocker("b", "is held by VM x", "Stop VM x")])
    assert store.written == []
    assert (result["failed"], result["changed"], result["changes"]) == (True, False, [])
    assert result["msg"] == "Setting numbers: stopped by 1 problem.\n- b: is held by VM x. Stop VM x\nNothing was changed."
    assert result["blockers"] == [{"target": "b", "problem": "is held by VM x", "remedy": "Stop VM x"}]


def test_a_blocker_of_one_target_lets_the_others_go_on_and_fails_at_the_end() -> None:
    store = Store({})
    result = go(store, {"a": 2, "b": 3}, blockers=[Blocker("b", "is held", "Stop it", stops="target")])
    assert store.values == {"a": 2}
    assert (result["failed"], result["changed"]) == (True, True)
    assert [change["target"] for change in result["changes"]] == ["a"]
    assert "\nWhat was done: set a." in result["msg"]


def test_check_mode_says_what_a_run_does_to_the_targets_that_nothing_blocks() -> None:
    store = Store({})
    blockers = [Blocker("b", "is held", "Stop it", stops="target")]
    checked = go(store, {"a": 2, "b": 3}, check=True, blockers=blockers)
    assert store.written == []
    assert "\nNothing was changed; a run would do this: set a." in checked["msg"]
    done = go(store, {"a": 2, "b": 3}, blockers=blockers)
    same = ("failed", "changed", "changes", "diff", "blockers")
    assert {key: checked[key] for key in same} == {key: done[key] for key in same}


def test_a_write_that_fails_is_reported_with_what_was_done() -> None:
    result = go(Store({}, broken={"b"}), {"a": 2, "b": 3})
    assert result["failed"]
    assert [change["target"] for change in result["changes"]] == ["a"]
    assert [blocker["problem"] for blocker in result["blockers"]] == ["the write failed"]


def test_a_write_that_does_not_take_is_found_by_reading_back() -> None:
    result = go(Store({}, stuck={"b"}), {"a": 2, "b": 3})
    assert result["failed"]
    assert [(blocker["target"], blocker["problem"]) for blocker in result["blockers"]] == [("b", "set was written but did not take")]


@pytest.mark.parametrize("broken", [set(), {"b"}, {"a", "b"}])
def test_what_was_written_is_said_also_where_it_cannot_be_read_back(broken: set[str]) -> None:
    store = Store({}, broken=broken)
    looks = iter([{}])

    def observe() -> dict[str, int]:
        for seen in looks:
            return seen
        raise ConnectionError("no answer")

    def make_plan(seen: dict[str, int]) -> Plan:
        return Plan([Change(key, "set", seen.get(key), 2, "wanted") for key in "ab"])

    module = FakeModule(False)
    with pytest.raises(Ended):
        run(module, "Setting numbers", observe, make_plan, store.apply, unreadable=(ConnectionError,))
    done = {"a", "b"} - broken
    assert (module.result["failed"], module.result["changed"]) == (True, bool(done))
    assert {change["target"] for change in module.result["changes"]} == done == set(store.values)
    assert ("could not be read again: no answer" in module.result["msg"]) is bool(done)
    assert ("Nothing was changed" in module.result["msg"]) is not bool(done)


@pytest.mark.parametrize(
    ("carried_out", "readable", "failed", "words"),
    [
        ({"a"}, True, False, None),
        (set(), True, True, "Nothing was changed."),
        ({"a"}, False, True, "Whether that was done is not known."),
    ],
    ids=["it was", "it was not", "nobody knows"],
)
def test_a_write_without_an_answer_counts_as_what_is_read_back(
    carried_out: set[str], readable: bool, failed: bool, words: str | None
) -> None:
    values: dict[str, int] = {}
    looks: list[None] = []

    def observe() -> dict[str, int]:
        looks.append(None)
        if len(looks) > 1 and not readable:
            raise ConnectionError("no answer")
        return dict(values)

    def apply(changes: list[Change]) -> list[Blocker]:
        values.update({change.target: change.after for change in changes if change.target in carried_out})
        return [_unanswered.Unanswered(change.target, "no answer", "Run again") for change in changes]

    def make_plan(seen: dict[str, int]) -> Plan:
        return Plan([Change(key, "set", None, 2, "wanted") for key in "a" if key not in seen])

    module = FakeModule(False)
    with pytest.raises(Ended):
        run(module, "Setting numbers", observe, make_plan, apply, settle=_unanswered.settle, unreadable=(ConnectionError,))
    assert (module.result["failed"], module.result["changed"]) == (failed, not failed)
    assert words is None or module.result["msg"].endswith(words)


def test_a_text_that_can_be_read_by_a_person() -> None:
    changes = [Change("node b", "label", {"x": None, "w": True}, {"x": "1"}, ""), Change("file a", "write", None, ["one", "two"], "")]
    assert diff(changes) == {"before": "node b:\n  w: true\n  x: \n", "after": "file a:\n  one\n  two\nnode b:\n  x: 1\n"}
    assert [shown(value) for value in (None, True, False, 7)] == ["", "true", "false", "7"]
    assert message("Doing", [Blocker("a", "p", "R"), Blocker("b", "p", "R")]).startswith("Doing: stopped by 2 problems.\n- a: p. R\n")
