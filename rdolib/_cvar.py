"""The search over the initial stock for CVaR and its mixtures with the mean: a scan of lattices, a zoom elsewhere.

With a weight ``w``, a level ``tau`` and the concave utility ``f(x) = (1-w) max(x, 0) + (1-w + w/tau) min(x, 0)``,

    max_pi { (1-w) E G + w CVaR_tau(G) } = max_b g(b),        g(b) = b + max_pi E f(G - b),

and the plan runs the policy that is greedy from the stock ``-b``. CVaR is ``w = 1``. There ``f = min(x, 0) / tau``, so
one table of ``max_pi E min(G - b, 0)`` serves every level. Three facts make the search exact:

* ``b`` may be restricted to possible returns: for each policy the bracket is concave with kinks at its own returns;
* ``g(b) <= w b + (1-w) M`` with ``M = max_pi E G``, so nothing far below the best value found has to be tried;
* the slope of ``g`` is ``w (1 - P(G < b) / tau)`` under the policy that is optimal for ``b``.

``g`` is a maximum of concave functions and not concave itself: it can have several hills, so no point is skipped
without a bound.

*Lattice* (``gamma = 1``): the possible returns are multiples of the mesh; all of them are tried, from the greatest
down, until the best value found exceeds the line.

*Zoom* (``gamma < 1``, or a lattice too wide for that): cells of ``b`` are kept while their bound beats the best value
found, and split. On a lattice they end at its points, and the smallest hold no other. Inside a cell a range
``[low, high]`` of ``P(G < b)`` bounds ``g`` by two lines from the ends of the cell. The range is carried backward from
where paths end or saturate; actions that are beaten on the whole cell are left out, which makes it
narrow. Derived in the book, chapter 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rdolib._graph import ranges, total
from rdolib._outer import Found, Solved, Start
from rdolib._reachable import ReachableTable, code
from rdolib._tables import Table
from rdolib.objectives import Shortfall, TwoSlope
from rdolib.risk import CVaR, MeanCVaR
from rdolib.stock import greatest_common_mesh, inverse_discount

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
_AT_ONCE = 1000  # cells whose slopes are bounded in one go
_LAWS = 4  # laws computed per search, to hit the best b exactly


def cvar(start: Start, objectives: list[CVaR]) -> list[Found]:
    """The optimum at each level, from one table on lattices."""
    return _TwoSlopeSearch(start, Shortfall()).find([_Bracket(one.level, 1.0, 1.0 / one.level) for one in objectives])


def mean_cvar(start: Start, objectives: list[MeanCVaR]) -> list[Found]:
    """The optimum of each; every level and weight has its own utility."""

    def search(one: MeanCVaR) -> Found:
        utility = TwoSlope(*one.two_slopes)
        return _TwoSlopeSearch(start, utility).find([_Bracket(one.level, one.weight, 1.0)])[0]

    return start.apart(search, objectives)


@dataclass(frozen=True)
class _Bracket:
    """``g(b) = b + scale * V(-b)`` at one level and weight."""

    level: float
    weight: float
    scale: float

    def slope(self, below: Floats) -> Floats:
        """Slope of ``g`` where the optimal policy has ``P(G < b) = below``."""
        return self.weight * (1 - below / self.level)


class _TwoSlopeSearch:
    """The search over ``b`` for one start and one concave utility of two slopes."""

    def __init__(self, start: Start, utility: TwoSlope) -> None:
        self.start, self.utility = start, utility
        assert utility.slopes is not None
        self.below, self.above = utility.slopes

    def find(self, brackets: list[_Bracket]) -> list[Found]:
        """The optimum of each bracket."""
        start = self.start
        if not start.scans(self.utility):
            return self._zoom(brackets)
        assert start.mesh is not None
        open_above = start.greatest == np.inf
        # Without a greatest return and a price for falling short, g only approaches the best mean.
        by_mean = [open_above and one.scale * self.below == 1 for one in brackets]
        searched = [one for one, mean in zip(brackets, by_mean, strict=True) if not mean]
        if not searched:
            return [self._mean() for _ in brackets]
        top = max(self._top(one) for one in searched) if open_above else start.greatest
        scan = self._scan_lattice(start.mesh, top, min(searched, key=lambda one: one.level))
        best = iter(self._best(searched, *scan))
        return [self._mean() if mean else next(best) for mean in by_mean]

    def _mean(self) -> Found:
        value, table = self.start.best_mean
        return Found(value, value, 0.0, table, self.start.solves)

    def solve(self, b: Floats) -> Solved:
        """One solve for the stocks ``-b``."""
        return self.start.solve(self.utility, b)

    def _ceiling(self, bracket: _Bracket, b: Floats | float) -> Floats:
        """``w b + (1-w) M``, an upper bound of ``g``."""
        rest = 0.0 if bracket.weight == 1 else (1 - bracket.weight) * self.start.best_mean[0]
        return np.asarray(bracket.weight * b + rest)

    def _best(self, brackets: list[_Bracket], b: Floats, solved: Solved) -> list[Found]:
        """The best of many points for each bracket."""
        found: list[Found] = []
        at_once = max(1, _AT_ONCE**2 // len(b))
        for first in range(0, len(brackets), at_once):
            scale = np.array([[one.scale] for one in brackets[first : first + at_once]])
            g = b + scale * solved.lower
            top = g.max(axis=1, keepdims=True)
            chosen = np.argmax(g >= top - 1e-12 * np.maximum(1.0, np.abs(top)), axis=1)
            value = np.take_along_axis(g, chosen[:, None], axis=1)[:, 0]
            upper = np.maximum(value, (b + scale * solved.upper).max(axis=1))
            found += [
                Found(v, u, -at + 0.0, solved.table, self.start.solves)
                for v, u, at in zip(value.tolist(), upper.tolist(), b[chosen].tolist(), strict=True)
            ]
        return found

    # ------------------------------------------------------------- lattice

    def _top(self, bracket: _Bracket) -> float:
        """A bound on the best ``b`` for unbounded returns: ``f(x) <= below x`` gives ``g(b) <= b + B (M - b)``."""
        steep = bracket.scale * self.below  # B > 1
        at_zero = bracket.scale * float(self.solve(np.zeros(1)).lower[0])
        return max(0.0, (steep * self.start.best_mean[0] - at_zero) / (steep - 1))

    def _scan_lattice(self, mesh: float, greatest: float, bracket: _Bracket) -> tuple[Floats, Solved]:
        """All possible returns from the greatest down, until the best of ``bracket`` is surely among them."""
        top, bottom = np.ceil(greatest / mesh - 1e-9), np.floor(self.start.least / mesh + 1e-9)
        count = _FIRST_SCAN
        while True:
            n = int(min(count, top - bottom + 1))
            b = mesh * (top - np.arange(n))
            solved = self.solve(b)
            if n > top - bottom or (b + bracket.scale * solved.lower).max() >= self._ceiling(bracket, b[-1]):
                return b, solved
            count *= 4

    # ---------------------------------------------------------------- zoom

    def _zoom(self, brackets: list[_Bracket]) -> list[Found]:
        """Cells of all brackets are as wide, so that one solve serves them all at every width."""
        start = self.start
        start.require_bounded(self.utility)
        unit, split = self._first_unit
        first = int(np.floor(start.least / unit))
        left = np.arange(first, max(int(np.ceil(start.greatest / unit)), first + 1))
        every = [_Cells(one, left) for one in brackets]
        while zoomed := [cells for cells in every if len(cells.left)]:
            left = np.unique(np.concatenate([cells.left for cells in zoomed]))
            ends = np.unique(np.concatenate([left, left + 1]))
            solved = self.solve(ends * unit)
            if not solved.table.exact:
                if len(brackets) > 1:  # fewer cells at once may fit
                    return [found for one in brackets for found in self._zoom([one])]
                if zoomed[0].value == -np.inf:
                    return [self._read_certified(brackets[0])]
                zoomed[0].stop()
                break
            for cells in zoomed:
                cells.look(ends * unit, solved.lower)
            self._look_at_own_quantiles([cells for cells in zoomed if cells.improved and cells.laws < _LAWS])
            below = self._below(solved.table, unit * left.astype(np.float64), unit * (left + 1).astype(np.float64))
            for cells in zoomed:
                at = np.searchsorted(left, cells.left)
                ceiling = self._ceiling(cells.bracket, (cells.left + 1).astype(np.float64) * unit)
                bound = cells.bounds(ends, solved.lower, unit, (below[0][at], below[1][at]), ceiling)
                if start.mesh is not None and unit <= start.mesh:  # no return lies between the ends, nor a better b
                    bound = np.minimum(bound, cells.value)
                cells.split(bound, start.span, split, last=unit <= 1e-13 * start.span)
            unit /= split
        table = self.solve(np.array([cells.best for cells in every])).table
        return [
            Found(cells.value, max(cells.value, cells.closed), -cells.best + 0.0, table, start.solves)
            for cells in every
        ]

    @cached_property
    def _first_unit(self) -> tuple[float, int]:
        """Width of the first cells, and into how many each is split.

        With ``gamma = 1/k`` cells are ``mesh / k**j`` wide: then their ends reach the lattice of the rewards after
        ``j`` steps, and few stocks are reachable from them. With ``gamma = 1`` they end on the lattice of returns.
        """
        mdp, span = self.start.mdp, self.start.span
        k = inverse_discount(mdp.gamma)
        mesh = greatest_common_mesh(mdp.reward) if k is not None else None
        if k is None or mesh is None:
            return span / _FIRST_CELLS, _SPLIT
        k = _SPLIT if k == 1 else k
        unit = float(mesh)
        while unit * _FIRST_CELLS > span:
            unit /= k
        while unit * k * _FIRST_CELLS <= span:
            unit *= k
        split = k
        while split < _SPLIT:
            split *= k
        return unit, split

    def _look_at_own_quantiles(self, improved: list[_Cells]) -> None:
        """A plan's own law says at which ``b`` it does best; with ``gamma = 1/k`` the ends of cells get there."""
        if not improved or (inverse_discount(self.start.mdp.gamma) or 1) > 1:
            return
        table = self.solve(np.array([cells.best for cells in improved])).table
        laws = {b: self.start.law(table, b) for b in {cells.best for cells in improved}}
        own = np.array([laws[cells.best].quantile(cells.bracket.level) for cells in improved])
        solved = self.solve(own)
        for cells, b, lower in zip(improved, own, solved.lower, strict=True):
            cells.laws += 1
            if solved.table.exact:
                cells.look(np.array([b]), np.array([lower]))

    def _read_certified(self, bracket: _Bracket) -> Found:
        """A certified table answers for many stocks; between the points the slopes bound ``g``."""
        b, solved = self.start.scan(self.utility)
        found = self._best([bracket], b, solved)[0]
        g = b + bracket.scale * solved.upper
        least, most = (np.full(len(b) - 1, bracket.slope(np.array(below))) for below in (1.0, 0.0))
        between = _peak(g[:-1], g[1:], np.diff(b), least, most)
        top = float(np.minimum(between, self._ceiling(bracket, b[1:])).max(initial=-np.inf))
        return Found(found.value, max(found.upper, top), found.stock, solved.table, self.start.solves)

    def _below(self, table: Table, left: Floats, right: Floats) -> tuple[Floats, Floats]:
        """Least and greatest ``P(G < b)`` on the cells ``[left, right]`` under policies that are optimal there."""
        if not isinstance(table, ReachableTable):
            return np.zeros(len(left)), np.ones(len(left))
        start, units = self.start, table.problem.units
        crossing = _Crossing(table, start.greatest - start.least, self.below - self.above)
        ended, weight = start.mdp.terminal[start.states], start.weights[start.states]
        sure = weight[ended].sum()  # nothing follows there: the return is 0
        states, weight = start.states[~ended], weight[~ended]
        least, most = sure * (left >= 0), sure * (right > 0)
        for first in range(0, len(left), _AT_ONCE):
            part = slice(first, first + _AT_ONCE)
            n = len(left[part])
            low, high = (units.key(np.tile(-end[part], len(states))) for end in (right, left))
            fewest, greatest = crossing.probability(np.repeat(states, n), low, high)
            least[part] += weight @ fewest.reshape(-1, n)
            most[part] += weight @ greatest.reshape(-1, n)
        return least, most


class _Cells:
    """The cells that are open in the search for one bracket, and the best ``b`` it has found."""

    def __init__(self, bracket: _Bracket, left: Ints) -> None:
        self.bracket, self.left = bracket, left
        self.value, self.best, self.improved, self.laws = -np.inf, 0.0, False, 0
        self.closed = self.unsplit = -np.inf  # bounds of the cells that are done, and of those about to be split

    def look(self, b: Floats, v: Floats) -> None:
        """Keep the best of several ``b`` with values ``V(-b)``."""
        g = b + self.bracket.scale * v
        self.improved = bool(g.max() > self.value)
        if self.improved:
            self.value, self.best = float(g.max()), float(b[g.argmax()])

    def bounds(self, ends: Ints, v: Floats, unit: float, below: tuple[Floats, Floats], ceiling: Floats) -> Floats:
        """Upper bound of ``g`` on each cell, from its values at the ends and the range of ``P(G < b)``."""
        at = np.searchsorted(ends, self.left)
        g_left, g_right = (ends[i] * unit + self.bracket.scale * v[i] for i in (at, at + 1))
        least, most = self.bracket.slope(below[1]), self.bracket.slope(below[0])
        return np.minimum(_peak(g_left, g_right, unit, least, most), ceiling)

    def split(self, bound: Floats, span: float, pieces: int, last: bool) -> None:
        """Go on with the pieces of the cells that may hold more than the best so far."""
        open_ = bound > self.value + GAP * max(abs(self.value), 1e-3 * span)
        if last or open_.sum() > _MOST_CELLS:
            self.closed, self.left = max(self.closed, float(bound.max())), self.left[:0]
            return
        self.closed = max(self.closed, float(bound[~open_].max(initial=-np.inf)))
        self.unsplit = float(bound[open_].max(initial=-np.inf))
        self.left = (self.left[open_][:, None] * pieces + np.arange(pieces)).ravel()

    def stop(self) -> None:
        """Leave the open cells as they are."""
        self.closed, self.left = max(self.closed, self.unsplit), self.left[:0]


def _peak(g_left: Floats, g_right: Floats, width: Floats | float, least: Floats, most: Floats) -> Floats:
    """Greatest value on a cell of a function with these values at its ends and slopes in ``[least, most]``."""
    rise, fall = np.maximum(most, 0.0), np.maximum(-least, 0.0)
    meet = (g_left * fall + g_right * rise + rise * fall * width) / np.maximum(rise + fall, np.finfo(float).tiny)
    peak = np.where(rise + fall > 0, meet, np.maximum(g_left, g_right))
    return np.asarray(np.maximum(np.maximum(g_left, g_right), peak))


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
    """Range of ``P(c + G < 0)``, over cells and the policies optimal in them.

    The slope of ``V`` in the stock is ``above + steeper * P(c + G < 0)``.
    """

    def __init__(self, table: ReachableTable, widest: float, steeper: float) -> None:
        self.table, self.problem, self.mdp, self.steeper = table, table.problem, table.problem.mdp, steeper
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
            from_left = np.maximum(pair_high - fewest[cell], 0.0) * level.width * self.steeper
            from_right = np.maximum(most[cell] - pair_low, 0.0) * level.width * self.steeper
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
        # A stock that has stopped mattering is no node any more, and rounding may put it just inside the band again.
        lost = np.isnan(value)
        if lost.any():
            left = 0 if self.table.horizon is None else self.table.horizon - t
            stock = self.problem.units.stock(key[lost])
            side = self.problem.side_asked(state[lost], stock, left, t)
            assert self.problem.saturation is not None
            value[lost] = self.problem.saturation.value(state[lost], stock, side, left)
        return value
