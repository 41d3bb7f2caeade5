# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mutation testing of the files that decide: every small fault in them is noticed by a unit test, or listed with the reason why not.

    python -m tests.soak.mutation --shard 3/20          a shard; ends with the first survivor that is not listed
    python -m tests.soak.mutation --all FILE...         all mutants of these files, and all survivors
    python -m tests.soak.mutation --all --tests TEST FILE...    the same on few tests, to see which of the rest they miss

A survivor is listed in ``survivors.yml``. At least 80 % of the mutants of each file must be killed, that is, not be listed. An entry that is
no mutant any more is an error, and so is one of a mutant that is killed.

Results are kept in the cache. That a mutant was killed holds as long as its file and the test that killed it are the same; that it survived
holds as long as plugins and tests are.
"""

from __future__ import annotations

import argparse
import collections
import functools
import hashlib
import json
import os
import re
import sys
import time
import typing as t
from pathlib import Path

import yaml

from tests.soak import trial
from tests.soak.mutants import Mutant, mutants
from tests.tools import env

LIST = Path(__file__).with_name("survivors.yml")
LEAST = 0.80
UTILS = "plugins/module_utils"
#: What makes a file one that plans.
PLANS = re.compile(r"^def (make_plan|plan)\(", re.MULTILINE)
#: Beside every file that plans: what it rests on, the merge of permits, the parsing of command lines, and whether groups are viable.
ALSO = (f"{UTILS}/_change.py", f"{UTILS}/_cluster/_kubevirt_merge.py", f"{UTILS}/_host/_cmdline.py", f"{UTILS}/_host/_groups.py")
#: What a plan of vGPUs rests on, and what shows it, each with its tests.
VGPU = "plugins/plugin_utils/_vgpu"
PLANNED = {
    f"{VGPU}/_demands.py": ("tests/unit/vgpu/test_plan_text.py",),
    f"{VGPU}/_fleet_facts.py": ("tests/unit/vgpu/test_fleet_facts.py",),
    f"{VGPU}/_holdings.py": ("tests/unit/vgpu/test_fleet_facts.py",),
    f"{VGPU}/_placement.py": ("tests/unit/vgpu/test_placement.py", "tests/unit/vgpu/test_fits.py"),
    f"{VGPU}/_plan_shape.py": ("tests/unit/vgpu/test_plan_text.py",),
    f"{VGPU}/_plan_text.py": ("tests/unit/vgpu/test_plan_text.py",),
    f"{VGPU}/_type_names.py": ("tests/unit/vgpu/test_type_names.py",),
}
#: What decides beside the plans that a module carries out, each with its tests.
CLUSTER = f"{UTILS}/_cluster"
DECIDING = {
    f"{CLUSTER}/_paused.py": ("tests/unit/cluster/test_paused.py",),
    f"{CLUSTER}/_vgpu_config.py": ("tests/unit/cluster/test_vgpu_config_plan.py", "tests/unit/cluster/test_vgpu_config.py"),
    f"{CLUSTER}/_wait.py": ("tests/unit/cluster/test_wait_words.py", "tests/unit/cluster/test_wait.py"),
}
#: What a VM with GPUs rests on, each with its tests.
CLUSTER = f"{UTILS}/_cluster"
MACHINES = {
    f"{CLUSTER}/_vm.py": ("tests/unit/cluster/test_vm_request.py", "tests/unit/cluster/test_vm_plan.py"),
    f"{CLUSTER}/_vm_request.py": ("tests/unit/cluster/test_vm_request.py",),
    f"{CLUSTER}/_vm_why.py": ("tests/unit/cluster/test_vm_why.py",),
}
#: Where the unit tests of a file are.
TESTS = {
    **MACHINES,
    **DECIDING,
    f"{UTILS}/_host/": ("tests/unit/host",),
    f"{UTILS}/_cluster/": ("tests/unit/cluster",),
    f"{UTILS}/_firmware/": ("tests/unit/firmware",),
    f"{UTILS}/_image/": ("tests/unit/image",),
    f"{UTILS}/_change.py": ("tests/unit/test_change.py", "tests/unit/cluster/test_cordon.py"),
    **PLANNED,
}
Key = tuple[str, str, str, str]


def files() -> list[str]:
    """The files that are tried: those with a plan that a module carries out, by rule, so that a new one is not forgotten."""
    planning = (path for path in (env.CHECKOUT / UTILS).rglob("*.py") if PLANS.search(path.read_text()))
    return sorted({*ALSO, *PLANNED, *MACHINES, *DECIDING, *(str(path.relative_to(env.CHECKOUT)) for path in planning)})


def tests_of(file: str) -> tuple[str, ...]:
    for start, tests in TESTS.items():
        if file.startswith(start):
            return tests
    raise SystemExit(f"Trying {file}: where its unit tests are is not in TESTS of {Path(__file__).name}.")


def listed(text: str) -> dict[Key, str]:
    """The accepted survivors and their reasons."""
    found: dict[Key, str] = {}
    for file, entries in (yaml.safe_load(text) or {}).items():
        for entry in entries:
            if not str(entry.get("reason", "")).strip():
                raise SystemExit(f"{LIST.name}: {file}: {entry.get('mutant')} has no reason.")
            for mutant in entry["mutant"] if isinstance(entry["mutant"], list) else [entry["mutant"]]:
                found[file, entry["in"], entry["line"], mutant] = entry["reason"]
    return found


def wrong(accepted: t.Mapping[Key, str], made: t.Mapping[str, list[Mutant]]) -> list[str]:
    """What is wrong with the list: entries that are no mutants, files with too many."""
    known = {mutant.key for found in made.values() for mutant in found}
    trouble = [f"listed, but no mutant: {' | '.join(key)}" for key in accepted if key not in known]
    count = collections.Counter(key[0] for key in accepted if key in known)
    for file, found in made.items():
        if found and 1 - count[file] / len(found) < LEAST:
            trouble.append(f"{file}: {count[file]} of {len(found)} mutants are listed as survivors; at least {LEAST:.0%} must be killed")
    return trouble


def in_shard(mutant: Mutant, shard: tuple[int, int]) -> bool:
    number, total = shard
    return int(hashlib.sha256("\0".join(mutant.key).encode()).hexdigest()[:8], 16) % total == number - 1


@functools.lru_cache
def around(tests: tuple[str, ...]) -> str:
    """A digest of all that these tests rest on."""
    return trial.digest([env.CHECKOUT / path for path in ("plugins", "tests/unit/conftest.py", "tests/hosts", "tests/bmc", *tests)])


class Results:
    """What earlier runs found, one JSON object a line."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "results.jsonl"
        self.digests: dict[str, str] = {}
        self.known: dict[Key, dict[str, str]] = {}
        if self.path.exists():
            for line in self.path.read_text().splitlines():
                kept = json.loads(line)
                self.known[t.cast(Key, tuple(kept["key"]))] = kept

    def _digest(self, file: str) -> str:
        if file not in self.digests:
            path = env.CHECKOUT / file
            self.digests[file] = trial.digest([path]) if path.exists() else ""
        return self.digests[file]

    def find(self, mutant: Mutant) -> trial.Trial | None:
        kept = self.known.get(mutant.key)
        if kept is None or kept["source"] != self._digest(mutant.file):
            return None
        noticed = kept["state"] in ("killed", "timeout")
        if kept["tests"] != (
            self._digest(kept["by"].partition("::")[0]) if noticed and "::" in kept["by"] else around(tests_of(mutant.file))
        ):
            return None
        return trial.Trial(mutant, kept["state"], kept["by"])

    def add(self, found: trial.Trial) -> None:
        test = found.by.partition("::")[0]
        kept = {
            "key": list(found.mutant.key),
            "source": self._digest(found.mutant.file),
            "state": found.state,
            "by": found.by,
            "tests": self._digest(test) if "::" in found.by else around(tests_of(found.mutant.file)),
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as results:
            results.write(json.dumps(kept) + "\n")


class Verdict:
    """Counts results and says which are losses."""

    def __init__(self, accepted: t.Mapping[Key, str], go_on: bool) -> None:
        self.accepted, self.go_on = accepted, go_on
        self.counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        self.losses: list[str] = []

    def add(self, found: trial.Trial) -> bool:
        """Take a result; whether to stop."""
        noticed = found.state in ("killed", "timeout")
        self.counts[found.mutant.file]["killed" if noticed else "listed" if found.mutant.key in self.accepted else "survived"] += 1
        if noticed == (found.mutant.key in self.accepted):
            word = f"listed as a survivor, but killed by {found.by or 'a time limit'}" if noticed else found.state
            self.losses.append(f"{word}: {found.mutant}")
            print(self.losses[-1], flush=True)
        return bool(self.losses) and not self.go_on

    def table(self) -> str:
        lines = [f"{'file':55} mutants  killed  listed  survived   rate"]
        for file, count in sorted(self.counts.items()):
            total = sum(count.values())
            rate = count["killed"] / total
            lines.append(f"{file:55} {total:7} {count['killed']:7} {count['listed']:7} {count['survived']:9} {rate:6.1%}")
        return "\n".join(lines)


def shard(text: str) -> tuple[int, int]:
    number, _slash, total = text.partition("/")
    if not (number.isdecimal() and total.isdecimal() and 1 <= int(number) <= int(total)):
        raise argparse.ArgumentTypeError(f"{text}: not like 3/20")
    return int(number), int(total)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Mutation testing of the files that decide.")
    parser.add_argument("--shard", type=shard, default=(1, 1), help="which part, such as 3/20")
    parser.add_argument("--all", action="store_true", help="go on after a loss")
    parser.add_argument("--tests", action="append", default=[], help="only these tests (several: once each); a survivor is then no result")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("files", nargs="*", help="only these files")
    asked = parser.parse_args(arguments)
    if sys.version_info < (3, 12):
        raise SystemExit("Mutation testing needs Python 3.12 or newer: it asks which lines a test runs.")

    started = time.monotonic()
    made = {file: mutants(file, (env.CHECKOUT / file).read_text()) for file in files()}
    accepted = listed(LIST.read_text())
    trouble = wrong(accepted, made)
    print("\n".join(trouble), flush=True)
    if trouble and not asked.all:
        return 1

    directory = env.cache() / "mutation"
    results = Results(directory)
    verdict = Verdict(accepted, asked.all)
    by_tests: dict[tuple[str, ...], list[Mutant]] = collections.defaultdict(list)
    for file in asked.files or made:
        for mutant in made[file]:
            if in_shard(mutant, asked.shard):
                known = results.find(mutant)
                if known is None:
                    by_tests[tuple(asked.tests) or tests_of(file)].append(mutant)
                elif verdict.add(known):
                    return 1

    def report(found: trial.Trial) -> bool:
        if found.by or not asked.tests:
            results.add(found)
        return verdict.add(found)

    code = 0
    for tests, chosen in by_tests.items():
        if verdict.losses and not asked.all:
            break
        env.say(f"Trying {len(chosen)} mutants on {' '.join(tests)}")
        group = sorted({mutant.file for mutant in chosen}) if asked.tests else [file for file in made if tests_of(file) == tests]
        name = hashlib.sha256(json.dumps([around(tests), tests, group]).encode()).hexdigest()[:16]
        code = code or trial.run(chosen, group, tests, asked.jobs, report, directory / f"baseline-{name}")
    print(f"{verdict.table()}\n{time.monotonic() - started:.0f} s", flush=True)
    return 1 if code or verdict.losses or trouble else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
