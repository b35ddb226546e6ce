"""The search over the initial stock for CVaR: exact on lattices, a certified zoom elsewhere.

With ``V(s, c) = max_pi E min(c + G, 0)`` and ``g(b) = b + V(s_0, -b) / tau``, the optimum is ``max_b g(b)``.

*Lattice* (``gamma = 1``): the possible returns are multiples of the mesh; all of them are tried, from the greatest
down, until the best value found exceeds the next candidate (``g(b) <= b``).

*Zoom* (``gamma < 1``): cells of ``b`` are kept while their bound beats the best value found, and split. Inside a cell
the slope of ``g`` is ``1 - P(G < b) / tau`` for the policy that is optimal there, so a range ``[low, high]`` of that
probability bounds ``g`` by two lines from the ends of the cell. The range is carried backward from where paths end or
saturate; actions that are beaten on the whole cell are left out, which makes it narrow. Derived in the book, chapter 3.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rdolib._graph import ranges, total
from rdolib._reachable import ReachableTable, code
from rdolib._rungs import check_steps, solve_table
from rdolib._tables import Table
from rdolib.dp import Policy, law
from rdolib.errors import NotOptimizableError
from rdolib.mdp import MDP
from rdolib.objectives import Mean, Shortfall
from rdolib.stock import (
    best_mean,
    end_components,
    greatest_common_mesh,
    inverse_discount,
    return_range,
    return_range_by_step,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

#: Relative gap at which the zoom is finished.
GAP = 1e-10
_FIRST_SCAN = 256  # possible returns tried first on a lattice; more until the best is surely among them
_FIRST_CELLS = 16  # cells the zoom starts with
_SPLIT = 8  # a cell is split into at least this many
_MOST_CELLS = 3000  # more than this many open cells are not split: the bounds reached are returned
_MOST_NODES = 300_000  # nodes followed when the slopes of cells are bounded
_SCAN = 4001  # points at which a certified table is read
_LAWS = 4  # laws computed per search, to hit the best b exactly


@dataclass(frozen=True)
class Found:
    """Result for one level: value and bounds of the optimum, the stock, and the table of the policy."""

    value: float
    upper: float
    stock: float
    table: Table
    solves: int


class CVaRSearch:
    """The search over ``b`` for one start."""

    def __init__(self, mdp: MDP, start: Floats, horizon: int | None, tol: float | None, memory: int) -> None:
        self.mdp, self.start, self.horizon, self.tol, self.memory = mdp, start, horizon, tol, memory
        self.states = np.flatnonzero(start > 0)
        self.solves = 0
        check_steps(mdp, horizon, memory)
        if horizon is None:
            greatest, least = return_range(mdp, 1.0), -return_range(mdp, -1.0)
        else:
            greatest = return_range_by_step(mdp, 1.0, horizon)[-1]
            least = -return_range_by_step(mdp, -1.0, horizon)[-1]
        self.greatest = float(greatest[self.states].max())
        self.least = float(least[self.states].min())
        if self.greatest == np.inf and (end_components(mdp) < 0).all():
            return  # unbounded but ending: the scan finds its own top
        if not np.isfinite(self.greatest):
            where = self.states[~np.isfinite(greatest[self.states])][0]
            raise NotOptimizableError(
                f"from state {where} the greatest possible return is {self.greatest}; CVaR needs a return that is "
                "bounded above and can end: pass horizon=, or use gamma < 1"
            )

    def find(self, levels: list[float]) -> list[Found]:
        """The optimum at each level."""
        mesh = greatest_common_mesh(self.mdp.reward) if self.mdp.gamma == 1 else None
        if mesh is None:
            return [self._zoom(level) for level in levels]
        below_one = [level for level in levels if level < 1] if self.greatest == np.inf else levels
        if self.greatest == np.inf and below_one:
            self.greatest = self._top(max(below_one))
        scan = self._scan_lattice(float(mesh), min(below_one)) if below_one else None
        return [self._best(level, *scan) if scan and level in below_one else self._mean() for level in levels]

    def _mean(self) -> Found:
        """Level 1 where returns are unbounded above: there ``g`` only approaches the best mean."""
        table = solve_table(self.mdp, Mean(), np.zeros(1), self.horizon, self.tol, self.memory, self.states)
        value = float(self.start[self.states] @ table.bounds(self.states, np.zeros(len(self.states)))[0])
        return Found(value, value, 0.0, table, self.solves + 1)

    def solve(self, b: Floats) -> tuple[Table, Floats, Floats]:
        """One solve for the stocks ``-b``, and bounds of ``V`` averaged over the initial states."""
        table = solve_table(self.mdp, Shortfall(), np.unique(-b), self.horizon, self.tol, self.memory, self.states)
        self.solves += 1
        return table, *self.read(table, b)

    def read(self, table: Table, b: Floats) -> tuple[Floats, Floats]:
        """Bounds of ``V`` at the stocks ``-b``, averaged over the initial states."""
        n = len(b)
        lower, upper = table.bounds(np.repeat(self.states, n), np.tile(-b, len(self.states)))
        weight = self.start[self.states]
        low, high = weight @ lower.reshape(-1, n), weight @ upper.reshape(-1, n)
        if not np.isfinite(low).all():
            raise NotOptimizableError(
                "no policy has a return with a finite expected shortfall from the initial state; pass horizon="
            )
        return low, high

    def _best(self, level: float, table: Table, b: Floats, lower: Floats, upper: Floats) -> Found:
        g = b + lower / level
        chosen = int(np.argmax(g >= g.max() - 1e-12 * max(1.0, abs(float(g.max())))))
        value = float(g[chosen])
        return Found(value, max(value, float((b + upper / level).max())), -float(b[chosen]) + 0.0, table, self.solves)

    # ------------------------------------------------------------- lattice

    def _top(self, level: float) -> float:
        """A bound on the best ``b`` for unbounded returns: ``V(-b) <= M - b`` gives ``g(b) <= b + (M - b) / tau``."""
        mean = float(self.start @ best_mean(self.mdp, 1.0, np.ones(self.mdp.n_states, dtype=np.bool_))[0])
        at_zero = float(self.solve(np.zeros(1))[1][0])
        return max(0.0, (mean - at_zero) / (1 - level))

    def _scan_lattice(self, mesh: float, level: float) -> tuple[Table, Floats, Floats, Floats]:
        """All possible returns from the greatest down, until the best for ``level`` is surely among them."""
        top, bottom = np.ceil(self.greatest / mesh - 1e-9), np.floor(self.least / mesh + 1e-9)
        count = _FIRST_SCAN
        while True:
            n = int(min(count, top - bottom + 1))
            b = mesh * (top - np.arange(n))
            table, lower, upper = self.solve(b)
            if n > top - bottom or float((b + lower / level).max()) >= b[-1]:
                return table, b, lower, upper
            count *= 4

    # ---------------------------------------------------------------- zoom

    def _zoom(self, level: float) -> Found:
        if not np.isfinite([self.least, self.greatest]).all():
            raise NotOptimizableError(
                f"CVaR with gamma = 1 and no horizon: returns lie between {self.least:.6g} and {self.greatest:.6g}, "
                "and the rewards are not fractions with denominators up to a million, so the search has no finite "
                "set of candidates; round the rewards, or pass horizon="
            )
        unit, split = self._first_unit()
        first = int(np.floor(self.least / unit))
        left = np.arange(first, max(int(np.ceil(self.greatest / unit)), first + 1))
        value, best, laws = -np.inf, 0.0, 0
        closed = unsplit = -np.inf  # bounds of the cells that are done, and of those about to be split
        while len(left):
            ends = np.unique(np.concatenate([left, left + 1]))
            table, lower, _ = self.solve(ends * unit)
            if not isinstance(table, ReachableTable):
                if value == -np.inf:
                    return self._read_certified(level, table)
                closed = max(closed, unsplit)
                break
            g = ends * unit + lower / level
            if g.max() > value:
                value, best = float(g.max()), float(ends[g.argmax()] * unit)
                if laws < _LAWS:  # a plan's own law says at which b it does best: a kink the cells only approach
                    laws += 1
                    value, best = max((value, best), self._at_own_quantile(best, level))
            at = np.searchsorted(ends, left)
            g_left, g_right = g[at], g[at + 1]
            slopes = _slopes(
                self, table, (left * unit).astype(np.float64), ((left + 1) * unit).astype(np.float64), level
            )
            bound = _peak(g_left, g_right, unit, *slopes)
            bound = np.minimum(bound, (left + 1) * unit)  # g(b) <= b
            open_ = bound > value + GAP * max(abs(value), 1e-3 * self._span)
            if unit <= 1e-13 * self._span or open_.sum() > _MOST_CELLS:
                closed = max(closed, float(bound.max()))
                break
            closed = max(closed, float(bound[~open_].max(initial=-np.inf)))
            unsplit = float(bound[open_].max(initial=-np.inf))
            left = (left[open_][:, None] * split + np.arange(split)).ravel()
            unit /= split
        table = self.solve(np.array([best]))[0]
        return Found(value, max(value, closed), -best + 0.0, table, self.solves)

    @property
    def _span(self) -> float:
        return max(self.greatest - self.least, 1e-6 * max(1.0, abs(self.greatest)))

    def _first_unit(self) -> tuple[float, int]:
        """Width of the first cells, and into how many each is split.

        With ``gamma = 1/k`` cells are ``mesh / k**j`` wide: then their ends reach the lattice of the rewards after
        ``j`` steps, and few stocks are reachable from them.
        """
        k = inverse_discount(self.mdp.gamma)
        mesh = greatest_common_mesh(self.mdp.reward) if k is not None else None
        if k is None or mesh is None:
            return self._span / _FIRST_CELLS, _SPLIT
        unit = float(mesh)
        while unit * _FIRST_CELLS > self._span:
            unit /= k
        while unit * k * _FIRST_CELLS <= self._span:
            unit *= k
        split = k
        while split < _SPLIT:
            split *= k
        return unit, split

    def _at_own_quantile(self, b: float, level: float) -> tuple[float, float]:
        """``g`` at the quantile of the return under the policy that is greedy for ``b``, and that quantile."""
        policy = Policy(self.mdp, self.solve(np.array([b]))[0], self.horizon)
        own = float(law(policy, self.start, -b, self.horizon).quantile(level))
        if inverse_discount(self.mdp.gamma) is not None:  # on a cell's end, like every b that is tried
            unit, split = self._first_unit()
            while unit > 1e-12 * self._span:
                unit /= split
            own = float(np.rint(own / unit) * unit)
        table, lower, _ = self.solve(np.array([own]))
        return (own + float(lower[0]) / level, own) if table.exact else (-np.inf, b)

    def _read_certified(self, level: float, table: Table) -> Found:
        """A certified table answers for every stock between the ends; between the points the slopes bound ``g``."""
        b = np.linspace(self.least, self.greatest, _SCAN)
        lower, upper = self.read(table, b)
        found = self._best(level, table, b, lower, upper)
        g = b + upper / level
        between = _peak(g[:-1], g[1:], np.diff(b), np.full(len(b) - 1, 1 - 1 / level), np.ones(len(b) - 1))
        top = float(np.minimum(between, b[1:]).max(initial=-np.inf))
        return Found(found.value, max(found.upper, top), found.stock, table, self.solves)


def _peak(g_left: Floats, g_right: Floats, width: Floats | float, least: Floats, most: Floats) -> Floats:
    """Greatest value on a cell of a function with these values at its ends and slopes in ``[least, most]``."""
    rise, fall = np.maximum(most, 0.0), np.maximum(-least, 0.0)
    meet = (g_left * fall + g_right * rise + rise * fall * width) / np.maximum(rise + fall, np.finfo(float).tiny)
    peak = np.where(rise + fall > 0, meet, np.maximum(g_left, g_right))
    return np.asarray(np.maximum(np.maximum(g_left, g_right), peak))


def _slopes(
    search: CVaRSearch, table: ReachableTable, left: Floats, right: Floats, level: float
) -> tuple[Floats, Floats]:
    """Least and greatest slope of ``g`` on the cells ``[left, right]``."""
    problem = table.problem
    n = len(left)
    state = np.repeat(search.states, n)
    low, high = (
        problem.units.key(np.tile(-right, len(search.states))),
        problem.units.key(np.tile(-left, len(search.states))),
    )
    fewest, most = _Crossing(table, search.greatest - search.least).probability(state, low, high)
    weight = search.start[search.states]
    fewest, most = weight @ fewest.reshape(-1, n), weight @ most.reshape(-1, n)
    return 1 - most / level, 1 - fewest / level


@dataclass(frozen=True)
class _Level:
    """All outcomes of one layer of cells, and how they lead to the next layer."""

    t: int  # step after the outcomes
    n_cells: int
    width: Floats  # of each pair's cell, in stock
    pair_cell: Ints
    owner: Ints  # pair of each outcome
    prob: Floats
    state: Ints
    low: Floats
    high: Floats
    ended: Bools
    p_low: Floats  # bounds of P(c + G < 0) after each outcome, where they are known already
    p_high: Floats
    open_: Ints  # outcomes for which they are not
    child: Ints  # cell of the next layer of each of those


class _Crossing:
    """Range of ``P(c + G < 0)``, the slope of ``V`` in the stock, over cells and the policies optimal in them."""

    def __init__(self, table: ReachableTable, widest: float) -> None:
        self.table, self.problem, self.mdp = table, table.problem, table.problem.mdp
        self.widest = widest / table.problem.units.mesh

    def probability(self, state: Ints, low: Floats, high: Floats) -> tuple[Floats, Floats]:
        """Bounds for the cells ``[low, high]`` of keys at the given states and step 0; all equally wide."""
        levels: list[_Level] = []
        nodes = 0
        while len(state):
            nodes += len(state)
            if nodes > _MOST_NODES or float((high - low).max()) > self.widest:
                break  # given up: anything between 0 and 1
            level, first = self._expand(state, low, high, len(levels))
            levels.append(level)
            after = level.open_[first]
            state, low, high = level.state[after], level.low[after], level.high[after]
        fewest, most = np.zeros(len(state)), np.ones(len(state))
        for level in reversed(levels):
            fewest, most = self._combine(level, fewest, most)
        return fewest, most

    def _expand(self, state: Ints, low: Floats, high: Floats, t: int) -> tuple[_Level, Ints]:
        """The outcomes of a layer, and which of the open ones represent the cells of the next layer."""
        mdp, units, saturation = self.mdp, self.problem.units, self.problem.saturation
        assert saturation is not None
        pair, pair_cell = ranges(mdp.pair_ptr[state], mdp.pair_ptr[state + 1])
        outcome, owner = ranges(mdp.outcome_ptr[pair], mdp.outcome_ptr[pair + 1])
        reward, cell = self.problem.outcome_reward[outcome], pair_cell[owner]
        after = mdp.next_state[outcome].astype(np.int64)
        next_low, next_high = units.step(low[cell], reward), units.step(high[cell], reward)
        ended = mdp.terminated[outcome] | (t + 1 == self.table.horizon)
        left = 0 if self.table.horizon is None else self.table.horizon - t - 1
        below = saturation.side(after, units.stock(next_high), left) < 0
        above = saturation.side(after, units.stock(next_low), left) > 0
        under = np.where(ended, next_high <= 0, below)  # surely below zero
        over = np.where(ended, next_low >= 0, above)  # surely not
        open_ = np.flatnonzero(~ended & ~under & ~over)
        _, first, child = np.unique(code(after[open_], next_low[open_]), return_index=True, return_inverse=True)
        level = _Level(
            t + 1, len(state), (high - low)[pair_cell] * units.mesh, pair_cell, owner, mdp.prob[outcome], after,
            next_low, next_high, ended, under.astype(np.float64), 1.0 - over, open_, child,
        )  # fmt: skip
        return level, first

    def _combine(self, level: _Level, child_low: Floats, child_high: Floats) -> tuple[Floats, Floats]:
        """Bounds for a layer from those of the next, over the actions that are not beaten on their whole cell."""
        p_low, p_high = level.p_low.copy(), level.p_high.copy()
        p_low[level.open_], p_high[level.open_] = child_low[level.child], child_high[level.child]
        cell, n_pairs = level.pair_cell, len(level.pair_cell)
        pair_low = total(level.owner, level.prob * p_low, n_pairs)
        pair_high = total(level.owner, level.prob * p_high, n_pairs)
        lost, size = [], np.zeros(n_pairs)
        for key in (level.low, level.high):  # what each action loses at either end of its cell
            value = self._value(level.state, key, level.ended, level.t)
            worth = self.mdp.gamma * total(level.owner, level.prob * value, n_pairs)
            best = np.full(level.n_cells, -np.inf)
            np.maximum.at(best, cell, worth)
            lost.append(best[cell] - worth)
            size = np.maximum(size, np.abs(worth))
        noise = 1e-13 * (1 + size)
        kept = np.ones(n_pairs, dtype=np.bool_)
        for _ in range(3):  # fewer actions make the range of V narrower, which beats more actions
            fewest, most = np.ones(level.n_cells), np.zeros(level.n_cells)
            np.minimum.at(fewest, cell[kept], pair_low[kept])
            np.maximum.at(most, cell[kept], pair_high[kept])
            from_left = np.maximum(pair_high - fewest[cell], 0.0) * level.width
            from_right = np.maximum(most[cell] - pair_low, 0.0) * level.width
            beaten = (lost[0] > from_left + noise) | (lost[1] > from_right + noise)
            if (kept == ~beaten).all():
                break
            kept = ~beaten
        return fewest, most

    def _value(self, state: Ints, key: Floats, ended: Bools, t: int) -> Floats:
        value = np.empty(len(state))
        value[ended] = self.problem.payoff(key[ended], t)
        if not ended.all():
            value[~ended] = self.table.values_at(state[~ended], key[~ended], t)
        return value
