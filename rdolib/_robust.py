"""The best worst case and the best best case: essential infimum and supremum of the return.

Both add the stock to their value, ``K(c + G) = c + K(G)``, so no stock has to be considered. With ``sign = +1`` for the
infimum and ``-1`` for the supremum,

    m(s) = max_a  sign * min over outcomes of sign * (r + gamma m(s')).

Endless and ``gamma < 1``: value iteration, then the values of the choices it arrived at, solved exactly by doubling
(after ``j`` doublings ``2**j`` steps are counted), until a further backup changes nothing but rounding.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rdolib import _graph
from rdolib.errors import NotOptimizableError
from rdolib.mdp import MDP
from rdolib.objectives import EssInf
from rdolib.stock import ends_within

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_SWEEPS = 100  # sweeps between two attempts to solve for the choices found so far
_ROUNDING = 1e-13


class RobustTable:
    """Worth and action of each state: one row for every number of steps left, or one row for ever."""

    exact = True

    def __init__(self, mdp: MDP, worth: Floats, actions: NDArray[np.int32], horizon: int | None, steps: int) -> None:
        self.mdp, self.worth, self.actions, self.horizon = mdp, worth, actions, horizon
        self.iterations = steps
        self.rung = "exact: no stock matters"

    @classmethod
    def solve(cls, mdp: MDP, objective: EssInf, horizon: int | None) -> RobustTable:
        """With a horizon, with ``gamma < 1``, or where every path ends."""
        backup = _Backup(mdp, objective.sign)
        steps = ends_within(mdp) if horizon is None and mdp.gamma == 1 else horizon
        if steps is not None:
            worth = np.zeros((steps + 1, mdp.n_states))
            actions = np.zeros((steps + 1, mdp.n_states), dtype=np.int32)
            for n in range(1, steps + 1):
                worth[n], actions[n] = backup.best(worth[n - 1])
            rows = slice(None) if horizon is not None else slice(steps, None)
            return cls(mdp, worth[rows], actions[rows], horizon, steps)
        if mdp.gamma == 1:
            raise NotOptimizableError(
                f"{objective!r} with gamma = 1 and no horizon: some path can go on for ever, and its return has no "
                "least or greatest value that a finite computation could find; pass horizon=, or use gamma < 1"
            )
        value, sweeps = np.zeros(mdp.n_states), 0
        while True:
            for _ in range(_SWEEPS):
                value, _ = backup.best(value)
            sweeps += _SWEEPS
            exact = backup.value_of_choices(value)
            again, action = backup.best(exact)
            if np.abs(again - exact).max(initial=0.0) <= _ROUNDING * max(1.0, np.abs(exact).max(initial=0.0)):
                return cls(mdp, exact[None], action[None], None, sweeps)

    def _left(self, t: int) -> int:
        return 0 if self.horizon is None else self.horizon - t

    def bounds(self, state: Ints, stock: Floats) -> tuple[Floats, Floats]:
        value = stock + self.worth[self._left(0), state]
        return value, value

    def action(self, state: Ints, stock: Floats, t: int) -> NDArray[np.int32]:
        return np.asarray(self.actions[self._left(t), state])

    def side(self, state: Ints, stock: Floats, t: int) -> NDArray[np.int8]:
        return np.full(len(state), -1, dtype=np.int8)

    def rests(self, state: Ints, stock: Floats) -> NDArray[np.bool_]:
        return np.zeros(len(state), dtype=np.bool_)


class _Backup:
    """One step of the recursion in the module's docstring."""

    def __init__(self, mdp: MDP, sign: float) -> None:
        self.mdp, self.sign = mdp, sign
        self.states = np.flatnonzero(~mdp.terminal)
        self.first_pair = mdp.pair_ptr[self.states]
        self.pair_row = np.repeat(np.arange(len(self.states)), np.diff(mdp.pair_ptr)[self.states])

    def _outcomes(self, value: Floats) -> Floats:
        rest = np.where(self.mdp.terminated, 0.0, value[self.mdp.next_state])
        return np.asarray(self.sign * (self.mdp.reward + self.mdp.gamma * rest))

    def _pairs(self, value: Floats) -> Floats:
        if not len(self.states):
            return np.empty(0)
        return np.asarray(self.sign * np.minimum.reduceat(self._outcomes(value), self.mdp.outcome_ptr[:-1]))

    def _choose(self, worth: Floats) -> tuple[Floats, Ints]:
        """Greatest worth of each live state and the lowest pair that attains it."""
        best = np.maximum.reduceat(worth, self.first_pair)
        ties = np.flatnonzero(worth >= (best - _graph.TIE * np.maximum(1.0, np.abs(best)))[self.pair_row])[::-1]
        chosen = np.empty(len(best), dtype=np.int64)
        chosen[self.pair_row[ties]] = ties
        return best, chosen

    def best(self, value: Floats) -> tuple[Floats, NDArray[np.int32]]:
        """Values one step earlier, and the actions."""
        new, action = np.zeros(self.mdp.n_states), np.zeros(self.mdp.n_states, dtype=np.int32)
        if len(self.states):
            new[self.states], chosen = self._choose(self._pairs(value))
            action[self.states] = self.mdp.pair_action[chosen]
        return new, action

    def value_of_choices(self, value: Floats) -> Floats:
        """Value of following, for ever, the actions and the outcomes that are decisive under ``value``."""
        mdp = self.mdp
        if not len(self.states):
            return value
        _, pair = self._choose(self._pairs(value))
        outcome = np.array([self._decisive(value, p) for p in pair], dtype=np.int64)
        total, to = np.zeros(mdp.n_states + 1), np.full(mdp.n_states + 1, mdp.n_states)
        total[self.states] = mdp.reward[outcome]
        to[self.states] = np.where(mdp.terminated[outcome], mdp.n_states, mdp.next_state[outcome])
        weight = mdp.gamma
        while weight > 0:
            total = total + weight * total[to]
            to, weight = to[to], weight * weight
        return total[:-1]

    def _decisive(self, value: Floats, pair: int) -> int:
        first, last = self.mdp.outcome_ptr[pair], self.mdp.outcome_ptr[pair + 1]
        return int(first + self._outcomes_of(value, first, last).argmin())

    def _outcomes_of(self, value: Floats, first: int, last: int) -> Floats:
        mdp = self.mdp
        rest = np.where(mdp.terminated[first:last], 0.0, value[mdp.next_state[first:last]])
        return np.asarray(self.sign * (mdp.reward[first:last] + mdp.gamma * rest))
