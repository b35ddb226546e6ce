"""The search for objectives of mean and variance: branch and bound over a convex function.

Minus the variance, mean minus variance and the Sharpe ratio depend on a law through ``m = E G`` and ``q = E G**2``
alone and are largest at some maximizer of ``2 b m - q``, that is, of ``-E (G - b)**2``. With

    V(-b) = max_pi -E (G - b)**2,        h(b) = V(-b) + b**2 = max_pi { 2 b E G - E G**2 },

each is a maximum over ``b`` of a score that grows with ``V(-b)``:

=================  =====================================  ===================================
objective          score                                  best ``b`` on a line ``alpha + beta b``
=================  =====================================  ===================================
minus variance     ``V(-b)``                              ``beta / 2``
mean - w variance  ``b - 1/(4w) + w V(-b)``               ``beta / 2 + 1/(2w)``
Sharpe, squared    ``(b**2 + V(-b)) / -V(-b)``, b > 0     ``-2 alpha / beta``
=================  =====================================  ===================================

The score has several hills, but ``h`` is a maximum of lines, hence convex. A solve at ``b`` gives a line below ``h``,
``2 b m - q`` of the policy found, and between two solved points the chord lies above ``h``. So on each cell the score
of the chord is a bound, in closed form, and a cell that cannot beat the best policy found is dropped. The others are
split where the lines from their ends meet. If ``h`` is not above the lines there, it is those two lines on the whole
cell, and nothing is left to find. Each solve finds a new line or settles a cell, so the search ends, and it is never
local. Where tables are certified only, cells are halved until their bounds are as close as the tables'.

Which ``b`` can be best. Variance: ``b`` is the mean of the best policy, between the least and the greatest mean. Mean
minus variance: it exceeds that mean by ``1/(2w)``, and a policy is never worth more than its mean. Sharpe ratio: with
the greatest mean ``M`` the score of ``h / b**2`` is at most ``2 M / b``.

Derived here.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rdolib._outer import GAP, HALVINGS, Found, Start
from rdolib._tables import Table
from rdolib.distributions import Distribution
from rdolib.errors import NotOptimizableError
from rdolib.objectives import Quadratic, TwoSlope
from rdolib.risk import MeanVariance, OuterSearch, Sharpe, Variance

_MOST = 400  # points of one search
_MOST_CERTIFIED = 12  # where each is a certified table of its own
_ROUNDED = 4e-15  # part of b by which a stock is rounded
_SMALLEST = 1e-5  # ratios below are lost in rounding
_POSITIVE = 1e-12  # a mean below this part of the largest reward is not positive


@dataclass(frozen=True)
class _Score:
    """An objective as a function of ``b`` and ``V(-b)``, and its best ``b`` on a line ``alpha + beta b`` of ``h``."""

    objective: OuterSearch
    of: Callable[[float, float], float]
    peak: Callable[[float, float], float]
    greatest: float = np.inf  # of the objective, whatever the problem


@dataclass(frozen=True)
class _Point:
    """A solved ``b``: ``V(-b)`` is at most ``upper``, and a policy attains ``lower``.

    Where the table is exact, ``mean`` and ``variance`` are those of the policy; else they are not known (nan).
    """

    b: float
    lower: float
    upper: float
    mean: float
    variance: float
    table: Table
    value: float  # of the objective, attained

    def line(self, b: float) -> float:
        """``-E (G - b)**2`` under the policy of this point."""
        return -(self.variance + (self.mean - b) ** 2)


def variance(start: Start, objectives: list[Variance]) -> list[Found]:
    """The least variance."""
    return start.apart(lambda one: _variance(start, one), objectives)


def _variance(start: Start, objective: Variance) -> Found:
    search = _Search(start, _Score(objective, lambda b, v: v, lambda alpha, beta: beta / 2, 0.0))
    top = search.solve(start.best_mean[0])
    if top.value == 0:
        return search.run([top])
    least = -float(start.solve(TwoSlope(-1.0, -1.0), np.zeros(1)).upper[0])
    return search.run([search.solve(least), top])


def mean_variance(start: Start, objectives: list[MeanVariance]) -> list[Found]:
    """The best of each; every weight has its own search."""
    return start.apart(lambda one: _mean_variance(start, one), objectives)


def _mean_variance(start: Start, objective: MeanVariance) -> Found:
    w = objective.weight
    shift = 1 / (2 * w)
    score = _Score(objective, lambda b, v: b - shift / 2 + w * v, lambda alpha, beta: beta / 2 + shift)
    search = _Search(start, score)
    mean, table = start.best_mean
    top = search.solve(mean + shift)
    if top.table.exact and table.exact:  # nearly the best where the weight is small and b is far away
        law = start.law(table, 0.0)
        if start.sharp(law):
            search.keep(_Point(0.0, top.lower, top.upper, float(law.mean()), float(law.var()), table, objective(law)))
    return search.run([search.solve(min(max(top.value, start.least) + shift, top.b)), top])


def sharpe(start: Start, objectives: list[Sharpe]) -> list[Found]:
    """The best ratio, if some policy has a positive mean."""
    mean, _ = start.best_mean
    if mean <= _POSITIVE * float(np.abs(start.mdp.reward).max(initial=0.0)):
        raise NotOptimizableError(
            f"{objectives[0]!r} needs a policy with a positive mean, and the greatest mean is {start.given(mean):.6g}: "
            "among returns with negative means the ratio prefers the larger deviation; use rdo.MeanVariance(weight)"
        )
    return start.apart(lambda one: _sharpe(start, one, mean), objectives)


def _sharpe(start: Start, objective: Sharpe, mean: float) -> Found:
    search = _Search(start, _Score(objective, _ratio, _ratio_peak))
    top = search.solve(4 * mean)
    while not _certain(top):  # a policy with a positive mean is preferred only farther up
        if top.b > mean / _SMALLEST**2:
            raise NotOptimizableError(
                f"{objective!r} is too small to be certified: no policy is known to have a ratio above {_SMALLEST}; "
                "raise memory=, or use rdo.MeanVariance(weight)"
            )
        top = search.solve(4 * top.b)
    highest = 2 * mean * (1 + 1 / _certain(top) ** 2)
    return search.run([search.solve(0.0), top if top.b >= highest else search.solve(highest)])


def _certain(point: _Point) -> float:
    """The ratio of a point's policy, or 0 where none is certain."""
    if not np.isfinite(point.mean):
        return point.value if point.value > _SMALLEST else 0.0
    if point.mean <= 0:
        return 0.0
    return point.mean / float(np.sqrt(point.variance)) if point.variance > 0 else np.inf


def _ratio(b: float, v: float) -> float:
    """``S`` with ``S**2 / (1 + S**2) = 1 + v / b**2``, or 0 where there is none."""
    room = b * b + v
    if b <= 0 or room <= 0:
        return 0.0
    return float(np.sqrt(room / -v)) if v < 0 else np.inf


def _ratio_peak(alpha: float, beta: float) -> float:
    """``h = alpha + beta b``, ``alpha <= 0``; without an ``alpha`` the score grows towards ``b = 0``."""
    if beta <= 0:
        return np.inf
    return -2 * alpha / beta if alpha < 0 else np.finfo(float).tiny


class _Search:
    """Branch and bound over cells of ``b``."""

    def __init__(self, start: Start, score: _Score) -> None:
        self.start, self.score, self.utility = start, score, Quadratic()
        self.best: _Point | None = None
        self.table: Table | None = None  # a certified one that answers for every b

    def solve(self, b: float) -> _Point:
        """A new point; the best of all is kept."""
        point, law = self._point(b)
        self.keep(point)
        assert self.best is not None
        if law is not None and not self.start.sharp(law) and self.score.objective(law) > self.best.value:
            # The law only hints at a better policy: the value at its own best b is certain.
            self.keep(self._point(self.score.peak(-point.variance - point.mean**2, 2 * point.mean))[0])
        return point

    def keep(self, point: _Point) -> None:
        if self.best is None or point.value > self.best.value:
            self.best = point

    def _point(self, b: float) -> tuple[_Point, Distribution | None]:
        start, b = self.start, self.start.snap(b)
        at = np.array([b])
        solved = start.solve(self.utility, at) if self.table is None else start.read(self.utility, self.table, at)
        lower, upper = float(solved.lower[0]), float(solved.upper[0])
        value = self.score.of(b, lower)
        if not solved.table.exact:
            return _Point(b, lower, upper, np.nan, np.nan, solved.table, value), None
        law = start.law(solved.table, b)
        value = float(self.score.objective(law)) if start.sharp(law) else value
        return _Point(b, lower, upper, float(law.mean()), float(law.var()), solved.table, value), law

    def run(self, ends: list[_Point]) -> Found:
        """Split cells until none can beat the best policy."""
        start, points = self.start, len(ends)
        closed = -np.inf  # bound of the cells that are not split any further
        if not all(end.table.exact for end in ends):
            self.table = start.table_between(self.utility, ends[0].b, ends[-1].b)
        width = (ends[-1].b - ends[0].b) / 2**HALVINGS
        cells = [self._cell(left, right) for left, right in itertools.pairwise(ends)]
        while cells and self._beats(-cells[0][0]):
            bound, _, left, right = heapq.heappop(cells)
            b = start.snap(self._split(left, right))
            fine = self.table is not None and right.b - left.b < 1.5 * width
            if not left.b < b < right.b or fine or points >= (_MOST if self._cheap(left) else _MOST_CERTIFIED):
                closed = max(closed, -bound)
                continue
            point = self.solve(b)
            points += 1
            if self._settled(left, point, right):
                continue
            # No more can be known of a certified cell than its table's own error.
            noise = 2 * (self.score.of(b, point.upper) - self.score.of(b, point.lower))
            for half in (self._cell(left, point), self._cell(point, right)):
                if self._beats(-half[0] - noise):
                    heapq.heappush(cells, half)
                else:
                    closed = max(closed, -half[0])
        assert self.best is not None
        closed = max([closed, *(-cell[0] for cell in cells)])
        upper = max(self.best.value, min(closed, self.score.greatest))
        return Found(self.best.value, upper, -self.best.b + 0.0, self.best.table, start.solves)

    def _cheap(self, point: _Point) -> bool:
        return self.table is not None or point.table.exact

    def _settled(self, left: _Point, point: _Point, right: _Point) -> bool:
        """Whether ``h`` is not above the lines of the ends: the cell then has their policies and no better ones."""
        above = point.upper - max(left.line(point.b), right.line(point.b))
        exact = all(one.table.exact for one in (left, point, right))
        far, spread = _ROUNDED * abs(point.b), float(np.sqrt(abs(point.upper)))
        return exact and above <= GAP * abs(point.upper) + far * (spread + far)

    def _beats(self, bound: float) -> bool:
        assert self.best is not None
        best, greatest = self.best.value, self.score.greatest
        # Within the table's error of the greatest value there is, no policy can be told to be better.
        if greatest < np.inf:
            best += self.score.of(self.best.b, self.best.upper) - self.score.of(self.best.b, self.best.lower)
        return best < greatest and bound > best + GAP * max(1.0, abs(best))

    def _cell(self, left: _Point, right: _Point) -> tuple[float, float, _Point, _Point]:
        """Minus the bound of a cell, so that the most promising comes first; ``b`` breaks ties."""
        width = right.b - left.b
        beta = (right.upper - left.upper) / width + left.b + right.b if width else 0.0
        alpha = left.upper + left.b**2 - beta * left.b

        def chord(b: float) -> float:
            share = (b - left.b) / width if width else 0.0
            return (1 - share) * left.upper + share * right.upper + (b - left.b) * (right.b - b)

        tried = (left.b, right.b, min(max(self.score.peak(alpha, beta), left.b), right.b))
        return -max(self.score.of(b, chord(b)) for b in tried), left.b, left, right

    def _split(self, left: _Point, right: _Point) -> float:
        """Where the lines of the two ends meet; the middle where certified tables make that meaningless."""
        apart = right.mean - left.mean
        if self.table is not None or not apart > 0:
            return 0.5 * (left.b + right.b)
        meet = (right.variance - left.variance) / (2 * apart) + 0.5 * (left.mean + right.mean)
        return meet if left.b < meet < right.b else 0.5 * (left.b + right.b)
