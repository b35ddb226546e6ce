"""Curved utilities without discount and horizon, where every unfinished reward is negative.

The stock only falls, so one pass over a window of stocks gives the value once it is known below the window. There it is
bracketed. Let ``M(s)`` be the best mean return, and ``m``, ``q`` the first two moments of the return under the policy
that attains it. A concave utility that increases on the values in question has ``E f(c + G) <= f(c + M)`` (Jensen):

    Quadratic:                 -((c + m)**2 + q - m**2)     <= V(s, c) <= -min(c + M, 0)**2
    Exponential, beta < 0:     E f(c + G) under that policy <= V(s, c) <= f(c + M)
    Exponential, beta > 0:     -1 / beta                    <= V(s, c) <= f(c + greatest return)

The chance of ever coming below the window falls geometrically with its length, and with it the gap between the two
passes; the window grows until the gap is at the level of rounding. Derived here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rdolib import _graph, _kernels
from rdolib.errors import InvalidArgumentError, MemoryLimitError, NotOptimizableError
from rdolib.mdp import MDP
from rdolib.objectives import ExpectedUtility, Exponential, Quadratic
from rdolib.stock import best_mean, return_range

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_FIRST = 256  # stocks of the first window; four times as many each time
_ENOUGH = 1e-12  # relative gap at which the window is long enough
_NEAR = 1e-6


class FallingTable:
    """Lower and upper values and the actions of the lower ones, on ``offset + mesh * Z`` for one initial stock each."""

    endless = True
    horizon = None

    def __init__(
        self,
        mdp: MDP,
        objective: ExpectedUtility,
        mesh: float,
        stocks: Floats,
        states: Ints,
        tol: float | None,
        memory: int,
    ) -> None:
        self.mdp, self.objective, self.mesh, self.stocks = mdp, objective, mesh, stocks
        self.best, self.far_action = best_mean(mdp, 1.0, np.ones(mdp.n_states, dtype=np.bool_))
        self.greatest = return_range(mdp, 1.0)
        self.first, self.second, self.growth = self._moments()
        count, self.iterations = _FIRST, 0
        while True:
            needed = len(stocks) * count * (mdp.n_states + 1) * 40.0
            if needed > memory:
                if self.iterations:
                    break  # the bounds reached so far stand
                raise MemoryLimitError(f"a window of {count} stocks needs {needed / 2**20:.3g} MiB; raise memory=")
            self.count = count
            self.tables = [self._solve(float(c0)) for c0 in stocks]
            self.iterations += 1
            lower, upper = self.bounds(np.repeat(states, len(stocks)), np.tile(stocks, len(states)))
            known = np.isfinite(upper)
            gap = float((upper[known] - lower[known]).max(initial=0.0))
            size = float(np.abs(lower[known]).max(initial=0.0))
            if not np.isfinite(gap):
                raise NotOptimizableError(
                    f"{objective!r} without a horizon: it is minus infinity under the policy of the best mean, so no "
                    "finite lower bound is known; pass horizon="
                )
            if gap <= (_ENOUGH * size if tol is None else tol):
                break
            count *= 4
        self.exact = gap <= _ENOUGH * size
        self.rung = (
            f"{'exact' if self.exact else 'certified'}: lattice of {self.count} stocks with mesh {mesh:.6g}, one pass"
        )

    def _moments(self) -> tuple[Floats, Floats, Floats]:
        """Mean and second moment of the return, and ``E exp(beta G)``, under the policy of the best mean."""
        mdp = self.mdp
        live = np.flatnonzero(~mdp.terminal & np.isfinite(self.best))
        pair = mdp.pair_index(live, self.far_action[live])
        outcome, owner = _graph.ranges(mdp.outcome_ptr[pair], mdp.outcome_ptr[pair + 1])
        prob, reward, after = mdp.prob[outcome], mdp.reward[outcome], mdp.next_state[outcome]
        on = ~mdp.terminated[outcome]
        position = np.full(mdp.n_states, -1)
        position[live] = np.arange(len(live))

        def solve(weight: Floats, known: Floats) -> Floats:
            matrix = np.eye(len(live))
            np.subtract.at(matrix, (owner[on], position[after[on]]), weight[on])
            out = np.where(mdp.terminal, 0.0, np.nan)
            out[live] = np.linalg.solve(matrix, _graph.total(owner, known, len(live)))
            return out

        first = solve(prob, prob * reward)
        carried = np.where(on, 2 * reward * first[after], 0.0)
        second = solve(prob, prob * (reward**2 + carried))
        growth = np.zeros(mdp.n_states)
        if isinstance(self.objective, Exponential):
            weight = prob * np.exp(self.objective.beta * reward)
            growth = solve(weight, np.where(on, 0.0, weight))
            growth[live[growth[live] <= 0]] = np.inf  # the series diverges
        return first, second, growth

    def _far(self, stock: Floats) -> tuple[Floats, Floats]:
        """The brackets of the module's docstring for all states, (stocks, S)."""
        c, f = stock[:, None], self.objective.utility
        if isinstance(self.objective, Quadratic):
            lower = -(np.square(c + self.first) + self.second - np.square(self.first))
            upper = -np.square(np.minimum(c + self.best, 0.0))
        else:
            assert isinstance(self.objective, Exponential)
            beta = self.objective.beta
            if beta > 0:
                lower = np.full((len(stock), self.mdp.n_states), -1.0 / beta)
                upper = f(c + self.greatest)
            else:
                lower = (np.exp(beta * c) * self.growth - 1.0) / beta
                upper = f(c + self.best)
        never = ~np.isfinite(self.best)  # no policy ends from here
        if never.any() and not (isinstance(self.objective, Exponential) and self.objective.beta > 0):
            lower[:, never] = upper[:, never] = -np.inf
        return lower, upper

    def _solve(self, c0: float) -> tuple[Floats, Floats, NDArray[np.unsignedinteger]]:
        mdp = self.mdp
        shift = np.rint(mdp.reward / self.mesh).astype(np.int64)
        pad = int(np.abs(shift).max(initial=0)) + 1
        stock = c0 + self.mesh * np.arange(1 - self.count, 1)
        padded = np.asarray(c0 + self.mesh * np.arange(1 - self.count - pad, 1 + pad), dtype=np.float64)
        succ = np.where(mdp.terminated, mdp.n_states, mdp.next_state).astype(np.int64)
        choices = np.empty((self.count, mdp.n_states), dtype=_kernels.index_type(mdp.pair_ptr))
        spare = choices.copy()
        zeros, counts = np.zeros(mdp.n_states), np.zeros(mdp.n_states, dtype=np.int64)
        values = []
        for far, choice in zip(self._far(padded), (choices, spare), strict=True):
            value = np.empty((len(padded), mdp.n_states + 1))
            value[:, :-1], value[:, -1] = far, self.objective.utility(padded)
            value[:, :-1][:, mdp.terminal] = value[:, -1:]
            _kernels.recurse_stocks(
                mdp.pair_ptr, mdp.outcome_ptr, mdp.prob, succ, shift, counts, zeros, 0.0, stock, 1, pad, _graph.TIE,
                value, choice, int(np.iinfo(choices.dtype).max),
            )  # fmt: skip
            values.append(value[pad : pad + self.count, :-1].copy())
        return values[0], values[1], choices

    def _locate(self, stock: Floats) -> tuple[Ints, Ints, NDArray[np.bool_]]:
        """Number of the lattice, row from the top, and whether the stock is on that lattice (or below its window)."""
        place = (self.stocks[None, :] - stock[:, None]) / self.mesh
        near = _NEAR + 1e-12 * (np.abs(place) + np.abs(stock)[:, None] / self.mesh)
        miss = np.where(place > -near, np.abs(place - np.rint(place)), np.inf)
        lattice = miss.argmin(axis=1)
        each = np.arange(len(stock))
        depth = np.rint(place[each, lattice])
        return lattice, depth.astype(np.int64), miss[each, lattice] <= near[each, lattice]

    def _refuse(self, state: Ints, stock: Floats, unknown: NDArray[np.bool_]) -> None:
        if unknown.any():
            raise InvalidArgumentError(
                f"stock {stock[unknown][0]:.12g} at state {state[unknown][0]} cannot be reached from the stocks this "
                "problem was solved for; solve again with this stock in stock="
            )

    def bounds(self, state: Ints, stock: Floats) -> tuple[Floats, Floats]:
        ended = self.mdp.terminal[state]
        lattice, depth, on = self._locate(stock)
        self._refuse(state, stock, ~ended & ~(on & (depth < self.count)))
        lower, upper = self.objective.utility(stock), self.objective.utility(stock)
        for i in np.flatnonzero(~ended):
            low, high, _ = self.tables[lattice[i]]
            row = self.count - 1 - depth[i]
            lower[i], upper[i] = low[row, state[i]], max(low[row, state[i]], high[row, state[i]])
        return lower, upper

    def action(self, state: Ints, stock: Floats, t: int) -> NDArray[np.int32]:
        ended = self.mdp.terminal[state]
        lattice, depth, on = self._locate(stock)
        self._refuse(state, stock, ~ended & ~on)
        action = np.where(ended, 0, self.far_action[state]).astype(np.int32)
        inside = ~ended & (depth < self.count)
        choice = np.array(
            [
                self.tables[n][2][self.count - 1 - d, s]
                for n, d, s in zip(lattice[inside], depth[inside], state[inside], strict=True)
            ],
            dtype=np.int64,
        )
        action[inside] = self.mdp.pair_action[self.mdp.pair_ptr[state[inside]] + choice]
        return action

    def side(self, state: Ints, stock: Floats, t: int) -> NDArray[np.int8]:
        return np.zeros(len(state), dtype=np.int8)

    def rests(self, state: Ints, stock: Floats) -> NDArray[np.bool_]:
        return np.zeros(len(state), dtype=np.bool_)
