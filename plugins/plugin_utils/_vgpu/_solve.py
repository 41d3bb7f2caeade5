# Copyright (c) 2026 the gpufleet.kubevirt authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

"""An integer program, and the solver behind it: HiGHS through ``highspy``, the only file that knows it.

One thread and a fixed seed, so that the same program has the same answer. CP-SAT (ortools) was as fast or slower on the instances tried, and asks
for more packages.
"""

from __future__ import annotations

import dataclasses
import math
import typing as t

INSTALL = "python3 -m pip install 'highspy>=1.10'"
INFINITY = float("inf")
#: How far an integer may be off after the solver's arithmetic.
TOLERANCE = 1e-6
#: HiGHS' word for a solution that fulfils all rows.
FEASIBLE = 2
#: Objectives are whole numbers, so that less than one off is none off.
OPTIONS = (("threads", 1), ("random_seed", 1), ("mip_abs_gap", 0.99), ("mip_rel_gap", 0.0))
#: Columns up to which the heuristic RENS is left out: on fleets of 64 GPUs (1 700 columns) it took a third of the time and found little.
SMALL = 10_000

Terms = t.Sequence[tuple[int, float]]


class Program:
    """Columns with bounds, rows over them. Nothing is solved here."""

    def __init__(self) -> None:
        self.lower: list[float] = []
        self.upper: list[float] = []
        self.integer: list[bool] = []
        self.starts: list[int] = [0]
        self.columns: list[int] = []
        self.factors: list[float] = []
        self.row_lower: list[float] = []
        self.row_upper: list[float] = []

    def column(self, upper: float = INFINITY, integer: bool = True) -> int:
        """A new column between 0 and ``upper``; its index."""
        self.lower.append(0.0)
        self.upper.append(float(upper))
        self.integer.append(integer)
        return len(self.lower) - 1

    def row(self, terms: Terms, lower: float = -INFINITY, upper: float = INFINITY) -> None:
        """``lower <= sum of factor * column <= upper``. A column may be named more than once."""
        summed: dict[int, float] = {}
        for column, factor in terms:
            summed[column] = summed.get(column, 0.0) + factor
        self.columns.extend(summed)
        self.factors.extend(summed.values())
        self.starts.append(len(self.columns))
        self.row_lower.append(float(lower))
        self.row_upper.append(float(upper))


@dataclasses.dataclass(frozen=True)
class Answer:
    """The best values found, what they cost, and below which cost nothing exists. ``proven``: nothing better exists."""

    values: list[float]
    cost: int
    bound: int
    proven: bool


class OutOfTime(Exception):
    """Nothing was found in the time given."""


class Infeasible(Exception):
    """Nothing fulfils all rows."""


def _highspy() -> t.Any:
    try:
        import highspy
    except ImportError as error:
        raise ValueError(f"the solver is missing ({error}); install it where Ansible runs: {INSTALL}") from error
    return highspy


def _quiet(highspy: t.Any) -> t.Any:
    """A solver that says nothing: the wrapper's own constructor prints its version before it can be told not to."""

    class Quiet(highspy.Highs):  # type: ignore[misc]
        def __init__(self) -> None:
            super(highspy.Highs, self).__init__()
            self.setOptionValue("output_flag", False)

    return Quiet()


class Solver:
    """Minimises one objective after the other over the same program; each later one keeps what the earlier ones reached."""

    def __init__(self, program: Program) -> None:
        self._highspy = _highspy()
        self._program = program
        self._best: list[float] | None = None
        self._highs = self._load(program)

    def _load(self, program: Program) -> t.Any:
        import numpy

        highs = _quiet(self._highspy)
        for option, value in OPTIONS:
            highs.setOptionValue(option, value)
        highs.setOptionValue("mip_heuristic_run_rens", len(program.lower) > SMALL)
        lp = self._highspy.HighsLp()
        lp.num_col_ = len(program.lower)
        lp.num_row_ = len(program.row_lower)
        lp.col_cost_ = numpy.zeros(lp.num_col_)
        lp.col_lower_ = numpy.array(program.lower)
        lp.col_upper_ = numpy.array(program.upper)
        lp.row_lower_ = numpy.array(program.row_lower)
        lp.row_upper_ = numpy.array(program.row_upper)
        lp.a_matrix_.format_ = self._highspy.MatrixFormat.kRowwise
        lp.a_matrix_.start_ = numpy.array(program.starts)
        lp.a_matrix_.index_ = numpy.array(program.columns)
        lp.a_matrix_.value_ = numpy.array(program.factors)
        kinds = self._highspy.HighsVarType
        lp.integrality_ = [kinds.kInteger if integer else kinds.kContinuous for integer in program.integer]
        highs.passModel(lp)
        return highs

    def minimise(self, terms: Terms, seconds: float, gap: float = 0.0) -> Answer:
        """The least value of ``terms``, or the best within ``seconds`` or within ``gap`` of its bound, and hold it from now on."""
        import numpy

        cost = numpy.zeros(len(self._program.lower))
        for column, factor in terms:
            cost[column] += factor
        columns = numpy.arange(len(cost), dtype=numpy.int32)
        self._highs.changeColsCost(len(cost), columns, cost)
        self._highs.setOptionValue("time_limit", max(seconds, 0.01))
        self._highs.setOptionValue("mip_rel_gap", gap)
        status, info, values = self._run(start=True)
        reached = self._cost(terms, values)
        if info.primal_solution_status == FEASIBLE and reached != round(info.objective_function_value):
            # HiGHS 1.16 can find a better solution in its presolve and yet hand out the one that it started from.
            self._highs.clearSolver()
            status, info, values = self._run(start=False)
            reached = self._cost(terms, values)
        statuses = self._highspy.HighsModelStatus
        if status == statuses.kInfeasible:
            raise Infeasible
        if status != statuses.kOptimal and (
            info.primal_solution_status != FEASIBLE or (self._best and reached > self._cost(terms, self._best))
        ):
            if self._best is None:
                raise OutOfTime
            values = self._best
            reached = self._cost(terms, values)
        bound = max(0, math.ceil(info.mip_dual_bound - TOLERANCE)) if math.isfinite(info.mip_dual_bound) else 0
        bound = min(bound, reached)
        self._best = values
        self._hold(terms, reached)
        return Answer(values, reached, bound, reached <= bound)

    def _run(self, start: bool) -> tuple[t.Any, t.Any, list[float]]:
        if start and self._best is not None:
            solution = self._highspy.HighsSolution()
            solution.col_value = self._best
            self._highs.setSolution(solution)
        self._highs.run()
        return self._highs.getModelStatus(), self._highs.getInfo(), list(self._highs.getSolution().col_value)

    @staticmethod
    def _cost(terms: Terms, values: list[float]) -> int:
        return round(sum(factor * values[column] for column, factor in terms)) if values else 0

    def _hold(self, terms: Terms, reached: int) -> None:
        import numpy

        summed: dict[int, float] = {}
        for column, factor in terms:
            summed[column] = summed.get(column, 0.0) + factor
        if summed:
            columns, factors = numpy.array(list(summed), dtype=numpy.int32), numpy.array(list(summed.values()))
            self._highs.addRow(-INFINITY, float(reached), len(summed), columns, factors)
            self._program.row(terms, upper=reached)

    def whole(self) -> list[int]:
        """The values with every integer column fixed, as whole numbers: what is left is a network, whose corner points are whole."""
        if self._best is None:
            raise OutOfTime
        fixed = Program()
        fixed.__dict__.update({key: list(value) for key, value in self._program.__dict__.items()})
        for column, integer in enumerate(fixed.integer):
            if integer:
                fixed.lower[column] = fixed.upper[column] = float(round(self._best[column]))
        fixed.integer = [False] * len(fixed.integer)
        return [round(value) for value in self._corner(fixed)]

    def _corner(self, program: Program) -> list[float]:
        highs = self._load(program)
        highs.run()
        if highs.getModelStatus() != self._highspy.HighsModelStatus.kOptimal:
            raise Infeasible
        return list(highs.getSolution().col_value)
