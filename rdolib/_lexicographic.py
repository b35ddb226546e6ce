"""Several objectives in order of importance, for a finite horizon.

Every reachable (state, stock) carries one value for each objective. Going backward, the actions that maximize the first
are kept, among these the ones that maximize the second, and so on; the lowest that remains is taken. This is optimal
because each objective but the last is an expectation: a branch can be improved in the order without harm elsewhere
(book, chapter 7).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rdolib import _graph
from rdolib._reachable import Codes, Problem, ReachableTable
from rdolib.objectives import EssInf, ExpectedUtility, Lexicographic, Mean

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class LexicographicTable:
    """One `ReachableTable` for each objective, on the same nodes and with the same actions."""

    exact = True

    def __init__(self, problem: Problem, objective: Lexicographic, nodes: list[Codes], horizon: int) -> None:
        self.objectives = objective.objectives
        # The worst case of a sum is kept in the same money as its mean.
        utilities = [one if isinstance(one, ExpectedUtility) else Mean() for one in self.objectives]
        problems = [Problem(problem.mdp, one, problem.units, None) for one in utilities]
        self.tables = [ReachableTable(one, nodes, horizon) for one in problems]
        self.iterations = len(nodes)
        count = sum(len(n) for n in nodes)
        self.rung = f"exact: {count} reachable (state, stock) pairs over {len(nodes)} steps"
        self._solve(len(nodes))

    def _solve(self, steps: int) -> None:
        values: list[list[Floats]] = [[] for _ in self.tables]
        choices: list[Ints] = []
        following: list[Floats | None] = [None] * len(self.tables)
        for t in reversed(range(steps)):
            best, choice = self._layer(t, following)
            for j, one in enumerate(best):
                following[j] = one
                values[j].append(one)
            choices.append(choice)
        for table, value in zip(self.tables, values, strict=True):
            table.store(value[::-1], choices[::-1])

    def _layer(self, t: int, following: list[Floats | None]) -> tuple[list[Floats], Ints]:
        best: list[Floats] = []
        allowed: NDArray[np.bool_] | None = None
        for table, objective, after in zip(self.tables, self.objectives, following, strict=True):
            step, worth, _, _ = table.outcomes(t, after)
            if not len(step.pair):
                return [np.empty(0)] * len(self.tables), np.empty(0, dtype=np.int64)
            if isinstance(objective, EssInf):
                first = np.searchsorted(step.owner, np.arange(len(step.pair)))
                pair_worth = objective.sign * np.minimum.reduceat(objective.sign * worth, first)
            else:
                pair_worth = _graph.total(step.owner, step.prob * worth, len(step.pair))
            pair_worth = table.problem.factor * pair_worth
            node = np.repeat(np.arange(len(step.pair_count)), step.pair_count)
            first_pair = np.cumsum(step.pair_count) - step.pair_count
            q = pair_worth if allowed is None else np.where(allowed, pair_worth, -np.inf)
            value = np.maximum.reduceat(q, first_pair)
            allowed = q >= (value - _graph.TIE * np.maximum(1.0, np.abs(value)))[node]
            best.append(value)
        assert allowed is not None
        ties = np.flatnonzero(allowed)[::-1]
        choice = np.empty(len(first_pair), dtype=np.int64)
        choice[node[ties]] = ties
        return best, choice - first_pair

    def bounds(self, state: Ints, stock: Floats) -> tuple[Floats, Floats]:
        """(n, k) values, one column for each objective."""
        value = np.stack([table.bounds(state, stock)[0] for table in self.tables], axis=1)
        return value, value

    def action(self, state: Ints, stock: Floats, t: int) -> NDArray[np.int32]:
        return self.tables[0].action(state, stock, t)

    def side(self, state: Ints, stock: Floats, t: int) -> NDArray[np.int8]:
        return np.zeros(len(state), dtype=np.int8)

    def rests(self, state: Ints, stock: Floats) -> NDArray[np.bool_]:
        return np.zeros(len(state), dtype=np.bool_)
