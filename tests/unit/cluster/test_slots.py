# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import typing as t

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster import _slots
from ansible_collections.gpufleet.kubevirt.plugins.module_utils._cluster._slots import Slot, Slots

NOW = 1_800_000_000
WEB = {"uid": "u1", "namespace": "ml", "name": "web", "field": "runStrategy", "value": "Always"}


def held(*nodes: str, run: str = "a", budget: str = "9") -> Slots:
    return Slots({name: Slot(run, NOW, NOW) for name in nodes}, budget)


def taken(slots: Slots, node: str = "n1", run: str = "a", budget: str = "1", total: int = 10, **more: t.Any) -> _slots.Answer:
    return _slots.take(slots, node, run, budget, total, more.pop("others", {}), more.pop("now", NOW), **more)


def stored(slots: Slots) -> Slots:
    return _slots.read({"data": slots.data()})


@pytest.mark.parametrize(
    ("text", "total", "allowed"),
    [("1", 100, 1), ("7", 3, 7), ("10%", 100, 10), ("10%", 19, 1), ("10%", 9, 1), ("50%", 5, 2), ("100%", 4, 4), ("1%", 0, 1)],
)
def test_a_percentage_rounds_down_and_is_at_least_one(text: str, total: int, allowed: int) -> None:
    assert _slots.budget_of(text, total) == allowed


@pytest.mark.parametrize("text", ["0", "0%", "-1", "", "%", "1.5", "101%", "two", "1 %", "²"])
def test_a_budget_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="budget"):
        _slots.check_budget(text)


@pytest.mark.parametrize(
    ("others", "budget", "gets_one"),
    [
        ({}, "1", True),
        ({"n2": "cordoned"}, "1", False),
        ({"n2": "not ready"}, "2", True),
        ({"n1": "cordoned"}, "1", True),
        ({"n1": "cordoned", "n2": "not ready"}, "1", False),
    ],
)
def test_a_node_that_is_out_without_a_slot_counts_but_not_twice(others: dict[str, str], budget: str, gets_one: bool) -> None:
    answer = taken(Slots(), budget=budget, others=others)
    assert (answer.slots is not None) == gets_one
    if not gets_one:
        assert answer.waiting_helps
        assert "n2" in str(answer.blocker)


def test_a_budget_larger_than_that_of_those_who_are_out_is_refused_and_the_smaller_one_kept() -> None:
    first = taken(Slots(), budget="2").slots
    assert first is not None
    larger = taken(first, "n2", "b", budget="3")
    assert larger.slots is None
    assert not larger.waiting_helps
    assert "taken with a budget of 2: n1 (run a)" in str(larger.blocker)
    smaller = taken(first, "n2", "b", budget="1")
    assert smaller.slots is None
    assert smaller.waiting_helps
    assert first.budget == "2"
    empty = _slots.give_back(first, "n1", "a")
    assert empty.budget is None
    assert taken(empty, "n2", "b", budget="3").slots is not None


@pytest.mark.parametrize(
    ("more", "gets_it"),
    [
        ({}, False),
        ({"resume": True}, True),
        ({"stale_after": 600}, False),
        ({"stale_after": 600, "now": NOW + 600}, True),
        ({"now": NOW + 10**7}, False),
    ],
)
def test_another_runs_node_is_taken_over_only_by_resume_or_when_its_record_is_stale(more: dict[str, t.Any], gets_it: bool) -> None:
    before = Slots({"n1": Slot("a", NOW, NOW, "node", True, (WEB,))}, "1")
    answer = taken(before, run="b", **more)
    assert (answer.slots is not None) == gets_it
    if answer.slots is None:
        assert "run a has taken it" in str(answer.blocker)
    else:
        mine = answer.slots.nodes["n1"]
        assert (mine.run, mine.since, mine.restore, mine.scope, mine.cleared) == ("b", NOW, (WEB,), "node", True)


def test_a_run_whose_gate_has_failed_gets_no_further_slot_and_another_one_does() -> None:
    slots = stored(_slots.mark_failed(Slots(), "n1", "a", "a GPU is gone"))
    assert "a GPU is gone" in str(taken(slots, "n2").blocker)
    assert taken(slots, "n2", run="b").slots is not None
    assert _slots.mark_failed(slots, "n3", "a", "later").failed == slots.failed


def test_a_run_goes_on_when_the_node_over_which_it_failed_is_back() -> None:
    slots = _slots.mark_failed(held("n1", "n2"), "n1", "a", "a GPU is gone")
    assert _slots.give_back(slots, "n2", "a").failed == slots.failed
    assert _slots.give_back(slots, "n1", "a").failed == {}


def test_marks_of_old_runs_go_when_there_are_many() -> None:
    slots = Slots()
    for number in range(60):
        slots = stored(_slots.mark_failed(slots, "n1", f"r{number}", "x"))
    assert list(slots.failed) == [f"r{number}" for number in range(10, 60)]


def test_what_a_vm_was_is_written_down_once_as_it_was_first_seen() -> None:
    slots = _slots.note(held("n1"), "n1", "a", NOW + 5, [WEB])
    again = _slots.note(slots, "n1", "a", NOW + 6, [{**WEB, "value": "Halted"}])
    assert again.nodes["n1"].restore == (WEB,)
    assert again.nodes["n1"].touched == NOW + 6


def test_who_has_lost_the_slot_writes_nothing_more() -> None:
    theirs = held("n1", run="b")
    for act in (
        lambda: _slots.note(theirs, "n1", "a", NOW, [WEB]),
        lambda: _slots.give_back(theirs, "n1", "a"),
        lambda: _slots.note(Slots(), "n1", "a", NOW),
    ):
        with pytest.raises(_slots.Lost, match="no longer that of run a"):
            act()


@pytest.mark.parametrize(
    "data",
    [
        {"n1": "{}"},
        {"n1": "no json"},
        {"n1": '{"run": "a", "since": "yesterday"}'},
        {"n1": "[]"},
        {"_failed": "[1]"},
        {"_failed": "x"},
        {"_budget": "0"},
    ],
)
def test_a_record_that_nobody_here_wrote_is_an_error_and_not_a_free_slot(data: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="gpufleet-slots"):
        _slots.read({"data": data})


def test_a_patch_names_only_what_differs() -> None:
    before = held("n1", "n2")
    after = _slots.release(before, "n1")
    assert _slots.patch(before, after) == {"n1": None}
    assert _slots.patch(before, before) == {}
    assert _slots.patch(after, _slots.release(after, "n2")) == {"n2": None, "_budget": None}


texts = st.text(alphabet="abcdefgh-", min_size=1, max_size=8)
slots_strategy = st.builds(
    Slots,
    st.dictionaries(
        texts,
        st.builds(
            Slot,
            texts,
            st.integers(0, 2**31),
            st.integers(0, 2**31),
            st.sampled_from(["gpu", "node"]),
            st.booleans(),
            st.lists(st.fixed_dictionaries({"uid": texts, "name": texts}), max_size=2).map(tuple),
        ),
        max_size=4,
    ),
    st.none() | st.integers(1, 99).map(str) | st.integers(1, 99).map("{}%".format),
    st.dictionaries(texts, texts, max_size=3),
)


@settings(max_examples=50)
@given(slots_strategy)
def test_what_is_written_is_read_back_as_it_was(slots: Slots) -> None:
    assert stored(slots) == slots


class Store:
    """The ConfigMap with its version: a write on an old version is a conflict."""

    def __init__(self) -> None:
        self.data: dict[str, str] = {}
        self.version = 0

    def write(self, seen: int, change: dict[str, str | None]) -> bool:
        if seen != self.version:
            return False
        self.version += 1
        merged = {**self.data, **change}
        self.data = {key: value for key, value in merged.items() if value is not None}
        return True


NODES = ["n0", "n1", "n2", "n3", "n4"]
steps = st.lists(
    st.tuples(
        st.integers(0, 3),  # which run
        st.sampled_from(NODES),
        st.sampled_from(["read", "take", "give", "note", "fail", "resume", "die", "break", "mend"]),
    ),
    max_size=60,
)


@settings(max_examples=60)
@given(st.integers(1, 3), steps)
def test_never_more_than_the_budget_is_out_however_writers_interleave_conflict_and_die(
    budget: int, sequence: list[tuple[int, str, str]]
) -> None:
    store = Store()
    seen: dict[int, tuple[int, Slots]] = {}
    broken: set[str] = set()
    for now, (run, node, what) in enumerate(sequence, NOW):
        name = f"run{run}"
        if what == "die":  # and comes back knowing nothing
            seen.pop(run, None)
        elif what == "break":
            # A machine that breaks by itself asks nobody; the budget then bounds what runs add.
            broken.add(node)
        elif what == "mend":
            broken.discard(node)
        elif what == "read" or run not in seen:
            seen[run] = (store.version, _slots.read({"data": store.data}))
        else:
            version, slots = seen.pop(run)
            others = dict.fromkeys(broken, "not ready")
            before = _slots.read({"data": store.data})
            try:
                if what in ("take", "resume"):
                    after = _slots.take(slots, node, name, str(budget), 5, others, now, resume=what == "resume").slots
                elif what == "give":
                    after = _slots.give_back(slots, node, name)
                elif what == "note":
                    after = _slots.note(slots, node, name, now, [{**WEB, "uid": node}])
                else:
                    after = _slots.mark_failed(slots, node, name, "x")
            except _slots.Lost:
                continue
            if after is None or not store.write(version, _slots.patch(slots, after)):
                continue
            result = _slots.read({"data": store.data})
            assert result == after
            if set(result.nodes) - set(before.nodes):
                assert len({*result.nodes, *broken}) <= budget
                assert name not in before.failed
            if what != "give":
                assert set(before.nodes) <= set(result.nodes), "a slot ended by itself"
            for kept in set(before.nodes) & set(result.nodes):
                assert result.nodes[kept].restore[: len(before.nodes[kept].restore)] == before.nodes[kept].restore
        assert len(_slots.read({"data": store.data}).nodes) <= budget


@given(slots_strategy, st.sampled_from(NODES), st.integers(1, 9).map(str))
def test_taking_and_giving_back_twice_is_the_same_as_once(slots: Slots, node: str, budget: str) -> None:
    first = _slots.take(slots, node, "me", budget, 5, {}, NOW)
    if first.slots is None:
        return
    again = _slots.take(first.slots, node, "me", budget, 5, {}, NOW + 60)
    assert again.slots == first.slots
    back = _slots.give_back(first.slots, node, "me")
    assert node not in back.nodes
    assert _slots.give_back(back, node, "me") == back
