"""The nodes of a shaped problem: reachable (state, stock) pairs, and what their outcomes are worth.

As in `rdolib._reachable`, with two differences: every pair that is asked for has a node of its own, saturated or not,
and where the stock matters no more, but the reward does, one node per state goes on. Its key is infinite.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdolib._canonical import Bools, Floats, Ints
from rdolib._graph import ranges
from rdolib._progress import bar
from rdolib._reachable import BYTES_PER_OUTCOME, SAME_STOCK, Codes, Expansion, Problem, code, unknown_stock
from rdolib.errors import MemoryLimitError, NotOptimizableError

_HUGE = 1e200  # a stock of this size grows for ever
_PATIENCE = 50_000_000  # node insertions after which an endless set that keeps growing is given up
_GIVE_UP = 400 * 2**20  # and the memory it may take: a few seconds


@dataclass(frozen=True, eq=False)
class Nodes:
    """Reachable nodes, one array without a horizon, else one per step; and the end as one more node.

    A key of plus or minus infinity stands for every stock that matters no more because it is too high or too low.
    """

    problem: Problem
    layers: list[Codes]
    horizon: int | None

    @classmethod
    def reachable(cls, problem: Problem, stocks: Floats, horizon: int | None, memory: int) -> Nodes:
        live = np.flatnonzero(~problem.mdp.terminal)
        key = problem.units.key(stocks)
        starts = np.unique(code(np.repeat(live, len(key)), np.tile(key, len(live))))
        memory = memory if horizon is not None else min(memory, _GIVE_UP)
        limit = memory / (BYTES_PER_OUTCOME * max(1.0, problem.mdp.n_outcomes / problem.mdp.n_states))
        layers = [_close(problem, starts, limit)] if horizon is None else _unroll(problem, starts, horizon, limit)
        return cls(problem, layers, horizon)

    @cached_property
    def first(self) -> Ints:
        """Where the nodes of each layer begin; last, the end."""
        return np.cumsum([0, *map(len, self.layers)])

    @property
    def end(self) -> int:
        return int(self.first[-1])

    def left(self, t: int) -> int:
        """Steps left at step ``t``."""
        return 0 if self.horizon is None else self.horizon - t

    def layer(self, t: int) -> int:
        return 0 if self.horizon is None else t

    def last(self, t: int) -> bool:
        """Whether the horizon ends after step ``t``."""
        return self.horizon is not None and t + 1 == self.horizon

    # ------------------------------------------------------------- what the nodes are

    def states(self) -> Ints:
        return np.append(np.concatenate(self.layers).real.astype(np.int64), -1)

    def times(self) -> Ints:
        return np.append(np.repeat(np.arange(len(self.layers)), np.diff(self.first)), 0)

    def stocks(self) -> Floats:
        stock = self.problem.units.stock(np.concatenate(self.layers).imag)
        return np.concatenate([stock, np.full((1, *stock.shape[1:]), np.nan)])

    def find(self, state: Ints, stock: Floats, t: int) -> Ints:
        """Nodes of states (n,) and stocks (n,) or (n, m) at step ``t``."""
        problem, left = self.problem, self.left(t)
        done = self.horizon is not None and t == self.horizon
        codes = self.layers[0][:0] if done else self.layers[self.layer(t)]
        found = replace(problem, saturation=None).locate(codes, state, stock, left, SAME_STOCK)
        side = problem.side(state, problem.units.key(stock), left)
        lost = (found < 0) & (side == 0)
        found[lost] = problem.locate(codes, state[lost], stock[lost], left, SAME_STOCK)
        beyond = (found < 0) & (side != 0)
        if len(codes):
            wanted = code(state, _beyond(side))
            place = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
            found[beyond & (codes[place] == wanted)] = place[beyond & (codes[place] == wanted)]
        found[found >= 0] += 0 if done else self.first[self.layer(t)]
        over = problem.mdp.terminal[state] | (beyond & (end_slope(problem, side) == 0))
        found[over | done] = self.end
        if (found < 0).any():
            raise unknown_stock(state[found < 0][0], stock[found < 0][0], t)
        return found


def _close(problem: Problem, starts: Codes, limit: float) -> Codes:
    """All nodes reachable without a horizon."""
    nodes = frontier = starts
    work = 0
    with bar("reachable stocks") as progress:
        while len(frontier):
            work += len(nodes)
            found = Outcomes(problem, frontier, 0, False).nodes()
            place = np.searchsorted(nodes, found)
            known = nodes[np.minimum(place, len(nodes) - 1)] == found
            frontier = found[~known]
            nodes = np.insert(nodes, place[~known], frontier)
            progress.update()
            grows = problem.saturation is None and (np.abs(problem.units.stock(frontier.imag)) > _HUGE).any()
            if grows or len(nodes) > limit or work > _PATIENCE:
                raise NotOptimizableError(
                    "infinitely many stocks can be reached, or more than can be listed, so the shaped reward of "
                    f"{problem.objective!r} has no finite MDP; pass horizon=, or use rdo.value_iteration, which bounds "
                    "what it cuts off"
                )
    return nodes


def _unroll(problem: Problem, starts: Codes, horizon: int, limit: float) -> list[Codes]:
    """The nodes of every step of a finite horizon."""
    layers, count = [starts], len(starts)
    for t in bar("reachable stocks", steps=range(1, horizon)):
        layers.append(Outcomes(problem, layers[-1], horizon - t, False).nodes())
        count += len(layers[-1])
        if count > limit:
            raise MemoryLimitError(
                f"more than {count} (state, stock) pairs can be reached within {horizon} steps, which need more "
                "memory than the limit; shorten the horizon, ask for fewer stocks, or raise memory="
            )
    return layers


class Outcomes:
    """All outcomes of all actions at some nodes; ``left``: steps left after them, ``last``: there are none.

    ``over``: nothing more can be gained. ``key``: where the others lead, infinite where the stock matters no more.
    """

    def __init__(self, problem: Problem, codes: Codes, left: int, last: bool) -> None:
        self.problem, self.codes = problem, codes
        self.step = step = Expansion(problem, codes, left)
        self.side = np.zeros(len(step.key), dtype=np.int8)
        on = ~step.ended
        self.side[on] = problem.side(step.state[on], step.key[on], left)
        self.slope = end_slope(problem, self.side)
        self.over = step.ended | last | ((self.side != 0) & (self.slope == 0))
        self.key = np.where(self.side != 0, _beyond(self.side), step.key)

    @cached_property
    def node(self) -> Ints:
        """The node, by its place in the codes, that each outcome starts from."""
        return np.repeat(np.arange(len(self.codes)), self.step.pair_count)[self.step.owner]

    def nodes(self) -> Codes:
        """The distinct nodes they lead to."""
        return np.unique(code(self.step.state[~self.over], self.key[~self.over]))

    def earned(self) -> Floats:
        """The original rewards."""
        mdp, pair = self.problem.mdp, self.step.pair
        return np.asarray(mdp.reward[ranges(mdp.outcome_ptr[pair], mdp.outcome_ptr[pair + 1])[0]])

    def rewards(self, t: int) -> Floats:
        """The shaped rewards of step ``t``: what the stock has become worth, ``a r`` where it matters no more."""
        problem, key = self.problem, self.codes.imag
        before = np.zeros(len(key))
        before[np.isfinite(key)] = problem.payoff(key[np.isfinite(key)], t)
        on_line = np.isinf(key)[self.node]
        reward = np.empty(len(self.key))
        with np.errstate(invalid="ignore"):  # a utility that is infinite is refused by the caller
            reward[~on_line] = problem.factor * self._worth(t + 1, ~on_line) - before[self.node[~on_line]]
        if on_line.any():
            reward[on_line] = end_slope(problem, np.sign(key[self.node[on_line]])) * self.earned()[on_line]
        return reward

    def _worth(self, t: int, among: Bools) -> Floats:
        """What the stocks reached are worth at step ``t``: ``f``, or where they matter no more the line it ends on."""
        problem, side = self.problem, self.side[among]
        worth = problem.payoff(self.step.key[among], t)
        if problem.objective.indicator:
            return np.where(side != 0, side > 0, worth)
        if not side.any():  # always, for vector stocks
            return worth
        return np.where(side != 0, self.slope[among] * problem.units.stock(self.step.key[among]), worth)


def _beyond(side: NDArray[Any]) -> Floats:
    """The key of what is saturated from above (1) or below (-1)."""
    return np.where(side > 0, np.inf, -np.inf)


def end_slope(problem: Problem, side: NDArray[Any]) -> Floats:
    """Slope of the line on which the utility ends at saturated stocks; 0 for the indicator, which ends flat."""
    slopes = None if problem.saturation is None else problem.saturation.slopes
    below, above = (0.0, 0.0) if slopes is None else slopes
    return np.where(side > 0, above, np.where(side < 0, below, 0.0))
