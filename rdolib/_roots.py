"""Searches for a root or a step of a falling function of ``b``: expectiles and quantiles.

*Expectile.* With ``f(x) = tau max(x, 0) + (1-tau) min(x, 0)`` each policy's expectile is the root of ``E f(G - e)``,
which falls in ``e`` with slopes between ``-max(tau, 1-tau)`` and ``-min(tau, 1-tau)``. So does the maximum ``V(-e)``,
and its root is the largest expectile. A value ``v = V(-e)`` puts the root between ``e`` and two points:

    e + v / max(tau, 1-tau)  and  e + v / min(tau, 1-tau).

The next ``e`` is the expectile of the policy that is greedy at the present one. Unless ``v = 0`` that policy is better
than all before it, so the search ends, like policy iteration, and its last value is exact.

*Quantile.* Let ``P(b) = max_pi P(G >= b)``. The largest upper quantile is the largest ``b`` with ``P(b) >= 1 - tau``,
the largest lower one the largest with ``P(b) > 1 - tau``; ``P`` steps down at possible returns only.

* On a lattice of returns one table answers for all of them and all levels, unless the lattice is too wide.
* Elsewhere by bisection: where ``P`` is large enough, the quantile of the policy's own law is a better lower end than
  ``b`` itself. It is then tried whether anything lies just above it.

Where tables are certified only, one is read at many points; its two sides bound the root.

Sources: Newey and Powell (1987) for expectiles; the searches are derived here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rdolib._outer import GAP, SCAN, Found, Solved, Start, answers_between
from rdolib.errors import NotOptimizableError
from rdolib.objectives import Threshold, TwoSlope
from rdolib.risk import Expectile, Quantile

Floats = NDArray[np.float64]

_MOST_SOLVES = 100
_FIRST_SCAN = 2**10  # possible returns tried first on a lattice
_MOST_SCANNED = 2**24
_STEP = 2e-11  # relative width of the interval above a quantile in which nothing is looked for


# -------------------------------------------------------------------- expectiles


def expectile(start: Start, objectives: list[Expectile]) -> list[Found]:
    """The optimum at each level, by a search for each."""
    return start.apart(lambda one: _expectile(start, one.level), objectives)


def _expectile(start: Start, level: float) -> Found:
    utility = TwoSlope(1 - level, level)
    e = start.snap(start.law(start.best_mean[1], 0.0).expectile(level))
    best, upper, tried = None, np.inf, set[float]()
    while e not in tried and len(tried) < _MOST_SOLVES:
        tried.add(e)
        solved = start.solve(utility, np.array([e]))
        if not solved.table.exact and start.bounded:
            return _read(start, level, *start.scan(utility))
        lower, above = (float(x[0]) for x in _between(level, np.array([e]), solved))
        upper, law = min(upper, above), start.law(solved.table, e)
        own = law.expectile(level)
        value = own if start.sharp(law) else lower
        if best is None or value > best.value:
            best = Found(value, np.inf, -e + 0.0, solved.table, 0)
        if upper - best.value <= GAP * max(1.0, abs(upper)):
            break
        e = start.snap(own)
        if e in tried:  # a law that is not sharp has no more to say
            e = start.snap(0.5 * (best.value + upper))
    assert best is not None
    return Found(best.value, max(upper, best.value), best.stock, best.table, start.solves)


def _between(level: float, e: Floats, solved: Solved) -> tuple[Floats, Floats]:
    """Bounds of the root from the values at each ``e``: the first is attained by the policy for that ``e``."""
    steep, flat = max(level, 1 - level), min(level, 1 - level)
    lower = e + solved.lower / np.where(solved.lower >= 0, steep, flat)
    upper = e + solved.upper / np.where(solved.upper >= 0, flat, steep)
    return lower, upper


def _read(start: Start, level: float, e: Floats, solved: Solved) -> Found:
    lower, upper = _between(level, e, solved)
    i = int(np.argmax(lower))
    value = float(lower[i])
    return Found(value, max(value, float(upper.min())), -float(e[i]) + 0.0, solved.table, start.solves)


# --------------------------------------------------------------------- quantiles


def quantile(start: Start, objectives: list[Quantile]) -> list[Found]:
    """The optimum at each level; on a lattice of returns from one table."""
    needs = [_Need(one) for one in objectives]
    if start.scans(Threshold()):
        read = _on_lattice(start, needs)
        return [_step(start, need, *read) for need in needs]
    return start.apart(lambda need: _bisect(start, need), needs)


@dataclass(frozen=True)
class _Need:
    """Which probabilities of reaching ``b`` are enough for a quantile of at least ``b``."""

    objective: Quantile

    def met(self, p: Floats) -> NDArray[np.bool_]:
        level = self.objective.level
        slack = GAP * min(level, 1 - level) + np.spacing(1 - level)
        return np.asarray(p > 1 - level + slack if self.objective.side == "lower" else p >= 1 - level - slack)


def _on_lattice(start: Start, needs: list[_Need]) -> tuple[Floats, Solved]:
    """Possible returns, descending, from one that no level asks for down to one that all reach; and one solve."""
    mesh = start.mesh
    assert mesh is not None
    utility = Threshold()
    top, bottom = np.ceil(start.greatest / mesh - 1e-9), np.floor(start.least / mesh + 1e-9)
    above = 1.0
    while top == np.inf:  # the chance of reaching b vanishes as b grows
        if not any(need.met(start.solve(utility, np.array([above * mesh])).upper)[0] for need in needs):
            top = above
        above *= 4
    count = _FIRST_SCAN
    while True:
        n = int(min(count, top - bottom + 1))
        b = mesh * (top - np.arange(n))
        solved = start.solve(utility, b)
        if n > top - bottom or all(need.met(solved.lower[-1:])[0] for need in needs):
            return b, solved
        if n >= _MOST_SCANNED:
            raise NotOptimizableError(
                f"no policy reaches a return of {start.given(b[-1]):.6g} with the probability that the quantile needs: "
                "returns may not end; pass horizon="
            )
        count *= 16


def _step(start: Start, need: _Need, b: Floats, solved: Solved, between: bool = False) -> Found:
    """The largest ``b`` (descending) that is surely reached often enough, and the largest that may be.

    ``between``: whether returns may lie between the points.
    """
    sure, maybe = np.flatnonzero(need.met(solved.lower)), np.flatnonzero(need.met(solved.upper))
    if len(sure) == 0:
        raise NotOptimizableError(
            f"no policy is known to reach even the least possible return, {start.given(b[-1]):.6g}, with the "
            f"probability that {need.objective!r} needs; raise memory=, or pass horizon="
        )
    value, above = float(b[sure[0]]), max(0, int(maybe[0]) - 1) if between else int(maybe[0])
    return Found(value, float(b[above]), -value + 0.0, solved.table, start.solves)


def _read_steps(start: Start, need: _Need) -> Found:
    """From a certified table, first over the whole range of returns, then over what this leaves open."""
    points, solved = start.scan(Threshold())
    found = _step(start, need, points[::-1], Solved(solved.table, solved.lower[::-1], solved.upper[::-1]), True)
    if found.upper > found.value and answers_between(solved.table):
        points = np.linspace(found.upper, found.value, SCAN)
        found = _step(start, need, points, start.read(Threshold(), solved.table, points), True)
    return found


def _bisect(start: Start, need: _Need) -> Found:
    """Narrow ``[low, high]`` down: a policy attains ``low``, and none attains more than ``high``.

    On a lattice that is too wide to be scanned all ``b`` are its points, and nothing lies between two of them.
    """
    start.require_bounded(need.objective)
    utility, mesh = Threshold(), start.mesh
    step = max(_STEP * start.size, start.unit) if mesh is None else mesh
    low, best = -np.inf, Found(-np.inf, np.inf, 0.0, start.best_mean[1], 0)
    high = start.greatest if mesh is None else start.greatest + step
    snap = start.snap if mesh is None else start.on_lattice
    b, sharp, middle = snap(start.least - step), True, True  # b is surely reached; laws show exact quantiles
    while high - low > 1.6 * step:
        solved = start.solve(utility, np.array([b]))
        if not solved.table.exact:
            return _read_steps(start, need)
        if need.met(solved.lower)[0]:
            law = start.law(solved.table, b) if sharp else None
            sharp = law is not None and start.shows_quantiles(law)
            low = max(b, float(need.objective(law))) if law is not None and sharp else b
            best = Found(low, np.inf, -b + 0.0, solved.table, 0)
        else:
            high = min(high, b)
        middle = not (sharp and middle)  # every other time, because most often nothing lies above
        b = snap(0.5 * (low + high) if middle else low + step)
    return Found(low, low if mesh is not None else max(low, high), best.stock, best.table, start.solves)
