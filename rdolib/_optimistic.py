"""The search for the optimistic CVaR: the lowest point of a convex function, and the lottery that attains it.

The mean of the best fraction ``tau`` of returns is concave in the law, so over randomized policies (minimax theorem)

    max OCVaR_tau(G) = min_b g(b),        g(b) = b + max_pi E max(G - b, 0) / tau,        b real.

``g`` is a maximum of one convex function for each policy. At ``b``, the policy that is greedy there gives a line below
its own function, with any slope between ``1 - P(G >= b) / tau`` and ``1 - P(G > b) / tau``. Two such lines, one falling
and one rising, meet at a height ``h``. Draw the first policy with the probability that makes the mean slope 0: then the
mean of the two functions is at least ``h`` for every ``b``, so the lottery is worth at least ``h``; and ``h <= min g``.

The search solves where the two lines meet. If ``g`` is ``h`` there, the lottery is optimal. If the slopes of the new
policy have 0 between them, that policy alone is. Otherwise its line replaces the one with slopes of the same sign. Each
solve leaves a linear piece of ``g`` behind, so the search ends; its bounds hold at any time. The first two lines need
no search: ``b + (M - b) / tau`` and ``b``, of the policy with the best mean ``M``, meet at ``b = M``.

Where the table is exact to rounding, so are the lines. Where it is certified, the value is that of the lottery's law.
Derived here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rdolib._outer import GAP, Found, Start
from rdolib._tables import Table
from rdolib.distributions import Distribution, mixture
from rdolib.objectives import Surplus
from rdolib.risk import OptimisticCVaR

_MOST_SOLVES = 100
_MOST_CERTIFIED = 12  # more solves gain little on the error of a certified table
_NEAR = 1e-11  # relative distance at which a return is b


@dataclass(frozen=True)
class _Line:
    """``height + slope * (x - b)``, below the function of one policy."""

    b: float
    height: float
    slope: float
    table: Table
    law: Distribution


@dataclass(frozen=True)
class _Lottery:
    """A value that is attained for certain, and the (probability, line) of each component."""

    value: float
    parts: tuple[tuple[float, _Line], ...]

    @classmethod
    def of(cls, start: Start, objective: OptimisticCVaR, falling: _Line, rising: _Line) -> _Lottery:
        _, height, weight = _meet(falling, rising)
        parts = ((1.0, falling),) if falling is rising else ((weight, falling), (1 - weight, rising))
        law = mixture([line.law for _, line in parts], [p for p, _ in parts])
        blurred = all(line.table.exact for _, line in parts) and not start.sharp(law)
        value = height if blurred else _worth(objective, law)
        for _, line in parts:  # no coin where one policy is as good alone
            alone = _worth(objective, line.law)
            if alone >= value - GAP * max(1.0, abs(value)):
                return cls(alone, ((1.0, line),))
        return cls(value, parts)


def optimistic_cvar(start: Start, objectives: list[OptimisticCVaR]) -> list[Found]:
    """The optimum over randomized policies at each level, by a search for each."""
    return start.apart(lambda one: _search(start, one), objectives)


def _search(start: Start, objective: OptimisticCVaR) -> Found:
    mean, mean_table = start.best_mean
    law = start.law(mean_table, mean)
    falling = _Line(mean, mean, _rounded(1 - 1 / objective.level), mean_table, law)
    rising = _Line(mean, mean, 1.0, mean_table, law)
    if falling.slope == 0:
        return _found(start, objective, _Lottery.of(start, objective, falling, falling), mean)
    utility, upper, tried = Surplus(), np.inf, 0
    best: _Lottery | None = None
    table: Table | None = None  # one that answers for every b
    b, before = start.snap(mean), np.nan
    while b != before:
        if table is None:
            solved = start.solve(utility, np.array([b]))
            certified = start.bounded and not solved.table.exact
            table = start.table_between(utility, start.least, start.greatest) if certified else None
        else:
            solved = start.read(utility, table, np.array([b]))
        tried += 1
        low, high = (b + float(v[0]) / objective.level for v in (solved.lower, solved.upper))
        upper = min(upper, high)
        line = _line(b, low, solved.table, start.law(solved.table, b), objective.level)
        falling = line if line.slope <= 0 else falling
        rising = line if line.slope >= 0 else rising
        lottery = _Lottery.of(start, objective, falling, rising)
        best = lottery if best is None or lottery.value > best.value else best
        closed = line.slope == 0 or upper - best.value <= GAP * max(1.0, abs(upper))
        if closed or tried >= (_MOST_SOLVES if solved.table.exact else _MOST_CERTIFIED):
            break
        b, before = start.snap(_meet(falling, rising)[0]), b
    assert best is not None
    return _found(start, objective, best, upper)


def _line(b: float, height: float, table: Table, law: Distribution, level: float) -> _Line:
    """The line of a policy at ``b`` whose slope is nearest to 0."""
    near = _NEAR * max(1.0, abs(b))
    least, greatest = (_rounded(1 - float(law.probs[law.atoms >= b + d].sum()) / level) for d in (-near, near))
    return _Line(b, height, min(max(0.0, least), greatest), table, law)


def _rounded(slope: float) -> float:
    return 0.0 if abs(slope) <= GAP else slope


def _meet(falling: _Line, rising: _Line) -> tuple[float, float, float]:
    """Where the lines meet, at which height, and the weight of the falling one that makes the mean slope 0."""
    if falling is rising:
        return falling.b, falling.height, 1.0
    weight = rising.slope / (rising.slope - falling.slope)
    offset = rising.height - falling.height + rising.slope * (falling.b - rising.b)
    b = falling.b + offset / (falling.slope - rising.slope)
    return b, falling.height + falling.slope * (b - falling.b), weight


def _worth(objective: OptimisticCVaR, law: Distribution) -> float:
    """A lower bound of the objective of a law that is known up to its Wasserstein error."""
    return objective(law) - law.w1_error / objective.level


def _found(start: Start, objective: OptimisticCVaR, lottery: _Lottery, upper: float) -> Found:
    upper = max(upper, lottery.value)

    def component(line: _Line) -> Found:
        value = lottery.value if len(lottery.parts) == 1 else min(_worth(objective, line.law), upper)
        return Found(value, upper, -line.b + 0.0, line.table, start.solves)

    components = tuple((p, component(line)) for p, line in lottery.parts)
    better = max((one for _, one in components), key=lambda one: one.value)
    return Found(lottery.value, upper, better.stock, better.table, start.solves, components)
