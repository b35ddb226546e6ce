"""Functionals and problems for the tests of the theory, in exact fractions.

Endless discounted problems are exact too. Either every path ends in a state that pays the same reward for ever, whose
return is known (`naive.closed`), or the utility has two slopes and gamma = 1/2, where saturation leaves one finite
linear system (`naive.best_two_slope`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction as F
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests import naive, strategies
from tests.naive import Eta, Law, Table, law, point

modest = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
theory = pytest.mark.theory
HALF, ONE, ZERO = F(1, 2), F(1), F(0)


# --------------------------------------------------------------------------------------------------
# functionals


@dataclass(frozen=True)
class Case:
    """A functional of laws, with what the theory asks about it."""

    name: str
    K: naive.Functional
    #: Indifferent to gamma = 1/2 (with gamma = 1 everybody is).
    discounts: bool = True
    #: A Lipschitz constant for W_1, or for W_inf if ``sup``.
    lipschitz: F | None = None
    sup: bool = False

    def __repr__(self) -> str:
        return self.name


def mean_of(f: naive.Utility) -> naive.Functional:
    return lambda nu: naive.expect(nu, f)


def two_slope(below: F, above: F) -> naive.Utility:
    return lambda x: below * min(x, ZERO) + above * max(x, ZERO)


def wavy(x: F) -> F:
    """Homogeneous for gamma = 1/2 only: f(2x) = 2 f(x), slope 2 on [1, 3/2] and 0 on [3/2, 2]."""
    if x <= 0:
        return x
    scale = ONE
    while x < scale:
        scale /= 2
    while x >= 2 * scale:
        scale *= 2
    return min(scale + 2 * (x - scale), 2 * scale)


def shortfall(x: F) -> F:
    return min(x, ZERO)


UTILITIES = (
    Case("mean", mean_of(lambda x: x), lipschitz=ONE),
    Case("shortfall", mean_of(shortfall), lipschitz=ONE),
    Case("surplus", mean_of(lambda x: max(x, ZERO)), lipschitz=ONE),
    Case("distance", mean_of(lambda x: -abs(x)), lipschitz=ONE),
    Case("kinked", mean_of(two_slope(F(2), HALF)), lipschitz=F(2)),
    Case("valley", mean_of(two_slope(F(-1), HALF)), lipschitz=ONE),
    Case("wavy", mean_of(wavy), lipschitz=F(2)),
    Case("square", mean_of(lambda x: x * x)),
    Case("minus square", mean_of(lambda x: -x * x)),
    Case("signed square", mean_of(lambda x: x * abs(x))),
    Case("reached", mean_of(lambda x: F(x >= 0))),
    Case("exceeded", mean_of(lambda x: F(x > 0))),
    Case("hit", mean_of(lambda x: F(x == 0))),
    Case("cubic", mean_of(lambda x: x**3 - x), discounts=False),
    Case("two kinks", mean_of(lambda x: abs(x - 1) - abs(x + 1) / 2), discounts=False),
)
BEYOND = (
    Case("worst", naive.ess_inf, lipschitz=ONE, sup=True),
    Case("best", naive.ess_sup, lipschitz=ONE, sup=True),
    Case("shortfall, then mean", naive.lexicographic(mean_of(shortfall), naive.mean)),
    Case("reached, then distance", naive.lexicographic(naive.chance, mean_of(lambda x: -abs(x)))),
    Case("mean, then worst", naive.lexicographic(naive.mean, naive.ess_inf)),
)
CASES = UTILITIES + BEYOND
LIPSCHITZ = tuple(case for case in CASES if case.lipschitz is not None)
TWO_SLOPES = ((ONE, ZERO), (ONE, -ONE), (F(2), HALF), (-ONE, HALF))


def fits(case: Case, gamma: F) -> bool:
    return case.discounts or gamma == 1


def distance(case: Case) -> Callable[[Law, Law], F]:
    return naive.w_inf if case.sup else naive.w_power


# --------------------------------------------------------------------------------------------------
# problems

LAWS = (point(0), point(-1), law({-2: HALF, 1: HALF}), law({0: F(1, 4), 3: F(3, 4)}), point(F(5, 2)))
GAMMAS = (ONE, HALF)
#: The discount of endless problems.
GAMMA = HALF
TIES: tuple[Callable[[Any], int], ...] = (min, max)
layered = strategies.tables(layered=True, rewards=strategies.INTEGERS)
gammas = st.sampled_from(GAMMAS)
ties = st.sampled_from(TIES)


def scattered(salt: int) -> Eta:
    """Return a law for every state and stock, without any pattern."""
    return lambda state, stock: LAWS[(salt + 3 * state + stock.numerator * 7 + stock.denominator) % len(LAWS)]


def tidy(table: Table) -> Table:
    """Drop outcomes of probability zero and merge equal ones."""
    return {s: {a: naive.merged(outcomes) for a, outcomes in rows.items()} for s, rows in table.items()}


@st.composite
def lasting(draw: st.DrawFn, max_states: int = 3) -> Table:
    """Return a table whose every path ends or reaches the last state, which pays the same reward for ever."""
    table = tidy(draw(strategies.tables(layered=True, max_states=max_states, rewards=strategies.INTEGERS)))
    last = len(table) - 1
    return {**table, last: {0: [(ONE, last, draw(st.sampled_from(strategies.INTEGERS)), False)]}}


def exact_optimum(table: Table, gamma: F, case: Case, state: int, stock: F) -> Any:
    """Return F* of a `lasting` table, by listing every law."""
    return naive.best(naive.closed(table, gamma), gamma, state, len(table), case.K, stock)


def every_law(table: Table, gamma: F, state: int) -> set[Law]:
    """Return the endless return laws of a `lasting` table."""
    return naive.laws(naive.closed(table, gamma), gamma, state, len(table))


def constants(table: Table, gamma: F, case: Case) -> tuple[F, F]:
    """Return D_0 and d_0 of the start delta_0, exactly: nothing is bounded, everything is listed."""
    size = naive.ess_sup if case.sup else naive.mean
    absolute = {s: [law((abs(x), p) for x, p in nu) for nu in every_law(table, gamma, s)] for s in table}
    start = max(size(nu) for laws in absolute.values() for nu in laws)
    step = max(
        min(size(law((abs(r), p) for p, _, r, _ in outcomes if p)) for outcomes in rows.values())
        for rows in table.values()
    )
    return start, step


def perpetual(policy: Callable[[int, F], int], table: Table, gamma: F, state: int, stock: F) -> Law:
    """Return the endless return law of a stationary policy on a `lasting` table."""
    return naive.replay(naive.closed(table, gamma), gamma, state, len(table), lambda s, c, t: policy(s, c), stock)


def successors(table: Table, gamma: F, state: int, stock: naive.Number) -> Iterator[tuple[int, naive.Number]]:
    """Yield the augmented states that may follow."""
    for outcomes in table[state].values():
        for p, after, r, ended in outcomes:
            if p and not ended and after in table:
                yield after, (stock + r) / gamma


def pay(nu: Law, end: int) -> list[naive.Outcome]:
    return [(p, end, x, True) for x, p in nu]


def extreme(table: Table, which: int) -> Eta:
    """Return the sure least (0) or greatest (-1) return of every state."""
    ends = {s: sorted({nu[which][0] for nu in every_law(table, GAMMA, s)})[which] for s in table}
    return lambda state, stock: point(ends[state])
