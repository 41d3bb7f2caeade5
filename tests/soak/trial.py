# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tries mutants on unit tests that pytest has collected once.

Each mutant is tried in a fork, on the tests that run its lines, the likeliest and quickest first. A value that a test makes while it is
collected (in a table of cases) was made without the mutant.
"""

from __future__ import annotations

import ast
import dataclasses
import gc
import hashlib
import importlib
import json
import os
import pickle
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import types
import typing as t
from pathlib import Path

import hypothesis
import pytest

from tests.soak.graft import graft
from tests.soak.mutants import Mutant
from tests.tools import env
from tests.tools.children import die_with_parent, wait_for_a_group

PACKAGE = "ansible_collections.gpufleet.kubevirt"
#: Exit codes of a child.
SURVIVED, KILLED, BROKEN = 0, 1, 3
#: CPU seconds that a mutant has beyond five times what its tests need without it.
ROOM = 10
MEMORY = 4 << 30


@dataclasses.dataclass(frozen=True)
class Trial:
    """How a mutant ended: killed, timeout, survived or unreached (no test runs it); and the test that killed it."""

    mutant: Mutant
    state: str
    by: str = ""


@dataclasses.dataclass
class Baseline:
    """The tests without a mutant: CPU seconds of each, and which of them run a line (by file and line number)."""

    seconds: dict[str, float]
    runs: dict[tuple[str, int], set[str]]

    def tests(self, mutant: Mutant, functions: t.Mapping[str, range]) -> list[str]:
        """The tests that can notice a mutant, the likeliest and quickest first."""
        first, last = mutant.lines
        body = functions.get(mutant.function)
        found = self._of(mutant.file, range(first, last + 1))
        if body is None or body.start == first:
            # What is evaluated when the module is loaded is seen by whoever runs anything of it.
            lines = body or range(1, 100_000)
            found = self._of(mutant.file, lines) or self._of(mutant.file, range(1, 100_000))
        # A file's own tests notice most.
        own = Path(mutant.file).stem.strip("_")
        return sorted(found, key=lambda name: (own not in name.partition("::")[0], self.seconds[name], name))

    def _of(self, file: str, lines: range) -> set[str]:
        return {name for (of, line), names in self.runs.items() if of == file and line in lines for name in names}


def functions(source: str) -> dict[str, range]:
    """The lines of each function, by qualified name."""
    found: dict[str, range] = {}

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                name = f"{prefix}.{child.name}" if prefix else child.name
                if isinstance(child, ast.FunctionDef):
                    found[name] = range(child.lineno, (child.end_lineno or child.lineno) + 1)
                visit(child, name)

    visit(ast.parse(source), "")
    return found


class Session:
    """A pytest plugin that, in place of running the collected tests, tries mutants on them."""

    def __init__(
        self,
        mutants: list[Mutant],
        files: t.Sequence[str],
        scratch: Path,
        jobs: int,
        report: t.Callable[[Trial], bool],
        remembered: Path,
    ) -> None:
        self.mutants, self.files, self.scratch = mutants, files, scratch
        self.jobs, self.report, self.remembered = jobs, report, remembered
        self.failed = ""
        self.killers: dict[str, int] = {}
        self.error = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed = report.nodeid
            self.error = str(report.longrepr)

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed or not session.items:
            raise SystemExit(f"The tests could not be collected ({session.testsfailed} errors).")
        for item in session.items:
            function = getattr(item, "obj", None)
            if getattr(function, "is_hypothesis_test", False):
                # The same examples in each run, so that a survivor is one everywhere; no time is spent on a nicer counterexample.
                function._hypothesis_internal_use_settings = hypothesis.settings(
                    function._hypothesis_internal_use_settings,
                    database=None,
                    deadline=None,
                    derandomize=True,
                    phases=(hypothesis.Phase.explicit, hypothesis.Phase.generate),
                )
        self.items = {item.nodeid: item for item in session.items}
        self.modules = {file: importlib.import_module(f"{PACKAGE}.{file.removesuffix('.py').replace('/', '.')}") for file in self.files}
        baseline = self._baseline()
        gc.collect()
        gc.freeze()
        try:
            self._all(baseline)
        finally:
            gc.unfreeze()
        return True

    # The tests as they are

    def _baseline(self) -> Baseline:
        if self.remembered.exists():
            kept = pickle.loads(self.remembered.read_bytes())  # noqa: S301 - written below, in our own cache
            return t.cast(Baseline, kept)
        answer = self.scratch / "baseline"
        self._fork(lambda: self._measure(answer))
        _child, code = wait_for_a_group()
        if code:
            raise SystemExit(f"Without any mutant the tests ended with {code}: mend them first.")
        self.remembered.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(answer, f"{self.remembered}.new")
        os.replace(f"{self.remembered}.new", self.remembered)
        return t.cast(Baseline, pickle.loads(answer.read_bytes()))  # noqa: S301

    def _measure(self, answer: Path) -> int:
        by_code: dict[types.CodeType, str] = {}
        of = {os.path.realpath(module.__file__ or ""): file for file, module in self.modules.items()}
        for thing in gc.get_objects():
            if isinstance(thing, types.FunctionType) and (file := of.get(os.path.realpath(thing.__code__.co_filename))):
                _nested(thing.__code__, file, by_code)
        found = Baseline({}, {})
        running = [""]
        monitoring = sys.monitoring
        monitoring.use_tool_id(monitoring.COVERAGE_ID, "mutation")

        def line(code: types.CodeType, number: int) -> t.Any:
            found.runs.setdefault((by_code[code], number), set()).add(running[0])
            return monitoring.DISABLE

        monitoring.register_callback(monitoring.COVERAGE_ID, monitoring.events.LINE, line)
        for code in by_code:
            monitoring.set_local_events(monitoring.COVERAGE_ID, code, monitoring.events.LINE)
        items = list(self.items.values())
        for item, following in zip(items, [*items[1:], None], strict=True):
            running[0] = item.nodeid
            monitoring.restart_events()
            started = time.process_time()
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            found.seconds[item.nodeid] = time.process_time() - started
            if self.failed:
                print(f"{self.failed} fails without any mutant:\n{self.error}", file=sys.stderr)
                return KILLED
        if unseen := set(self.files) - {file for file, _line in found.runs}:
            print(f"No test runs anything of {', '.join(sorted(unseen))}.", file=sys.stderr)
            return KILLED
        answer.write_bytes(pickle.dumps(found))
        return SURVIVED

    # One mutant

    def _all(self, baseline: Baseline) -> None:
        sources = {file: (env.CHECKOUT / file).read_text() for file in self.files}
        trees = {file: ast.parse(source) for file, source in sources.items()}
        within = {file: functions(source) for file, source in sources.items()}
        waiting = list(reversed(self.mutants))
        running: dict[int, Mutant] = {}
        try:
            while waiting or running:
                while waiting and len(running) < self.jobs:
                    mutant = waiting.pop()
                    names = baseline.tests(mutant, within[mutant.file])
                    if not names:
                        if self.report(Trial(mutant, "unreached")):
                            return
                        continue
                    names.sort(key=lambda name: -self.killers.get(name, 0))
                    budget = ROOM + 5 * int(sum(baseline.seconds[name] for name in names))
                    running[self._fork(self._trial(mutant, trees[mutant.file], names, budget))] = mutant
                if not running:
                    break
                child, code = wait_for_a_group()
                mutant = running.pop(child)
                if self.report(self._ended(child, mutant, code)):
                    return
        finally:
            for child in running:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)

    def _ended(self, child: int, mutant: Mutant, code: int) -> Trial:
        note = self.scratch / f"{child}.killer"
        by = note.read_text() if note.exists() else ""
        shutil.rmtree(self.scratch / str(child), ignore_errors=True)
        note.unlink(missing_ok=True)
        if code == KILLED:
            self.killers[by] = self.killers.get(by, 0) + 1
            return Trial(mutant, "killed", by)
        if code < 0:
            return Trial(mutant, "timeout")
        if code != SURVIVED:
            raise SystemExit(f"Trying {mutant}: the trial itself broke (exit code {code}):\n{by}")
        return Trial(mutant, "survived")

    def _trial(self, mutant: Mutant, tree: ast.Module, names: list[str], budget: int) -> t.Callable[[], int]:
        def run() -> int:
            # Processor time, so that a loaded machine does not kill mutants; wall time only against what waits for ever.
            resource.setrlimit(resource.RLIMIT_CPU, (budget, budget))
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            os.dup2(1, 2)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(120 + 10 * budget)
            try:
                graft(self.modules[mutant.file], tree, mutant.top, mutant.statement(tree))
            except Exception:  # noqa: BLE001 - whatever a fault leads to
                # A module that cannot be loaded is noticed by every test.
                (self.scratch / f"{os.getpid()}.killer").write_text(f"loading: {traceback.format_exc(limit=-1)}")
                return KILLED
            for name, following in zip(names, [*names[1:], ""], strict=True):
                item = self.items[name]
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=self.items.get(following))
                if self.failed:
                    (self.scratch / f"{os.getpid()}.killer").write_text(self.failed)
                    return KILLED
            return SURVIVED

        return run

    def _fork(self, run: t.Callable[[], int]) -> int:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child:
            return child
        code = BROKEN
        try:
            os.setpgid(0, 0)
            die_with_parent()
            silence = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1):
                os.dup2(silence, number)
            factory = next(iter(self.items.values())).config._tmp_path_factory  # type: ignore[attr-defined]
            factory._given_basetemp, factory._basetemp = self.scratch / str(os.getpid()), None
            code = run()
        except BaseException:  # noqa: BLE001 - pytest's own ends, too
            (self.scratch / f"{os.getpid()}.killer").write_text(traceback.format_exc())
        finally:
            sys.stderr.flush()
            os._exit(code)


def _nested(code: types.CodeType, file: str, into: dict[types.CodeType, str]) -> None:
    into[code] = file
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            _nested(constant, file, into)


def digest(paths: t.Iterable[Path]) -> str:
    """What a set of files and directories holds."""
    total = hashlib.sha256()
    for path in paths:
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            total.update(json.dumps([str(file.relative_to(env.CHECKOUT)), file.read_text()]).encode())
    return total.hexdigest()[:16]


def run(
    mutants: list[Mutant], files: t.Sequence[str], tests: t.Sequence[str], jobs: int, report: t.Callable[[Trial], bool], remembered: Path
) -> int:
    """Try mutants of some of these files on tests; ``report`` gets each result and says whether to stop.

    0, or an exit code if the trials themselves broke. Which test runs what is kept in the file ``remembered``.
    """
    with tempfile.TemporaryDirectory(prefix="mutation-") as scratch:
        plugin = Session(mutants, files, Path(scratch), jobs, report, remembered)
        arguments = ["-q", "-s", "-p", "no:terminalreporter", "--basetemp", f"{scratch}/parent", *tests]
        return int(pytest.main(arguments, plugins=[plugin]))
