# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import ast
import sys
import types
import typing as t

import pytest

from tests.soak import mutation
from tests.soak.graft import graft
from tests.soak.mutants import Mutant, mutants
from tests.soak.trial import Trial

SOURCE = '''"""What it is."""
from __future__ import annotations
import dataclasses
LIMIT = 3
DOUBLE = LIMIT * 2

@dataclasses.dataclass(frozen=True)
class Thing:
    """A thing."""
    size: int = 1

    @property
    def large(self) -> bool:
        return self.size >= LIMIT

def judge(thing: Thing, least: int = 0) -> str:
    if not thing.large and thing.size > least:
        raise ValueError(f"{thing} is small")
    return "large"
'''


@pytest.fixture
def module() -> t.Iterator[types.ModuleType]:
    made = types.ModuleType("things")
    made.__file__ = "things.py"
    sys.modules["things"] = made
    exec(SOURCE, made.__dict__)  # noqa: S102
    yield made
    del sys.modules["things"]


def put(module: types.ModuleType, what: str) -> None:
    tree = ast.parse(SOURCE)
    mutant = next(mutant for mutant in mutants("things.py", SOURCE) if mutant.what == what)
    graft(module, tree, mutant.top, mutant.statement(tree))


def test_every_fault_is_named_with_its_place() -> None:
    assert [(mutant.function, mutant.what) for mutant in mutants("things.py", SOURCE)] == [
        ("the module", "3 → 4"),
        ("the module", "LIMIT * 2 → LIMIT // 2"),
        ("the module", "2 → 3"),
        ("Thing", "1 → 2"),
        ("Thing.large", "return self.size >= LIMIT → return None"),
        ("Thing.large", "self.size >= LIMIT → self.size > LIMIT"),
        ("judge", "0 → 1"),
        ("judge", "not thing.large and thing.size > least → not (not thing.large and thing.size > least)"),
        ("judge", "raise ValueError(f'{thing} is small') → removed"),
        ("judge", "not thing.large and thing.size > least → not thing.large or thing.size > least"),
        ("judge", "not thing.large → not not thing.large"),
        ("judge", "thing.size > least → thing.size >= least"),
        ("judge", "return 'large' → return None"),
        ("judge", "'large' → 'xlargex'"),
    ]


@pytest.mark.parametrize(
    ("what", "before", "after"),
    [
        ("3 → 4", "things.Thing(3).large, things.DOUBLE", (False, 8)),
        ("1 → 2", "things.Thing().size", 2),
        ("self.size >= LIMIT → self.size > LIMIT", "old.large", False),
        ("0 → 1", "judge(things.Thing(3)), judge.__defaults__", ("large", (1,))),
        ("'large' → 'xlargex'", "judge(things.Thing(3))", "xlargex"),
    ],
)
def test_a_fault_reaches_what_was_there_before_it(module: types.ModuleType, what: str, before: str, after: t.Any) -> None:
    names = {"things": module, "judge": module.judge, "old": module.Thing(3)}
    assert eval(before, names) != after  # noqa: S307
    put(module, what)
    assert eval(before, names) == after  # noqa: S307


def test_the_tree_of_a_file_stays_as_it_is() -> None:
    tree = ast.parse(SOURCE)
    for mutant in mutants("things.py", SOURCE):
        assert ast.dump(mutant.statement(tree)) != ast.dump(tree.body[mutant.top])
    assert ast.dump(tree) == ast.dump(ast.parse(SOURCE))


def test_the_list_holds_mutants_only_and_not_too_many() -> None:
    made = {"things.py": mutants("things.py", SOURCE)}
    keys = [mutant.key for mutant in made["things.py"]]
    assert mutation.wrong(dict.fromkeys(keys[:2], "why"), made) == []
    assert "2 of 14" not in str(mutation.wrong(dict.fromkeys(keys[:2], "why"), made))
    assert "3 of 14 mutants are listed" in mutation.wrong(dict.fromkeys(keys[:3], "why"), made)[0]
    assert "listed, but no mutant" in mutation.wrong({("things.py", "judge", "gone", "1 → 2"): "why"}, made)[0]


def test_an_accepted_survivor_has_a_reason() -> None:
    entry = "things.py:\n  - {in: judge, line: x, mutant: [a, b], reason: 'equivalent'}\n"
    assert list(mutation.listed(entry).values()) == ["equivalent"] * 2
    with pytest.raises(SystemExit, match="no reason"):
        mutation.listed(entry.replace("equivalent", " "))


def test_the_shards_hold_each_mutant_once() -> None:
    found = mutants("things.py", SOURCE)
    shards: list[list[Mutant]] = [[mutant for mutant in found if mutation.in_shard(mutant, (number, 3))] for number in (1, 2, 3)]
    assert sorted(mutant.key for shard in shards for mutant in shard) == sorted(mutant.key for mutant in found)


@pytest.mark.parametrize(
    ("state", "accepted", "lost"),
    [
        ("killed", False, False),
        ("survived", True, False),
        ("survived", False, True),
        ("killed", True, True),
        ("unreached", False, True),
    ],
)
def test_a_survivor_that_is_not_listed_is_a_loss_and_so_is_an_entry_that_is_killed(state: str, accepted: bool, lost: bool) -> None:
    mutant = mutants("things.py", SOURCE)[0]
    verdict = mutation.Verdict({mutant.key: "why"} if accepted else {}, go_on=False)
    assert verdict.add(Trial(mutant, state)) == lost == bool(verdict.losses)


def test_every_file_that_plans_has_tests_to_try() -> None:
    found = mutation.files()
    assert set(mutation.ALSO) < set(found)
    assert all(mutation.tests_of(file) for file in found)
