"""Vector rewards through the public API, against exhaustive search in exact fractions.

Two dimensions, discounts 1 and 1/2; the utilities are norms, minimum and maximum, sums and the indicator of the
orthant. Every value is compared with the best of all histories, every policy with its replay, every law with the law
of that replay.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction as F
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import rdolib as rdo
from tests import naive, strategies
from tests.naive import Table, Vector
from tests.theory import modest, theory, tidy

TINY = 1e-12
CORNERS = tuple(map(Vector, itertools.product((-1, 0, 1), repeat=2)))
TENTHS = tuple(map(Vector, itertools.product((F(-3, 10), F(0), F(1, 10)), (F(-1, 2), F(0), F(1)))))
STOCKS = tuple(Vector(c) for c in ((0, 0), (-1, 1), (F(-1, 2), F(-3, 2)), (F(1, 10), 0)))


@dataclass(frozen=True)
class Case:
    """An objective of the library beside its utility on vectors of fractions."""

    name: str
    K: rdo.Objective
    f: naive.Utility

    def __repr__(self) -> str:
        return self.name


def utility(f: Callable[[Any], Any]) -> rdo.ExpectedUtility:
    return rdo.ExpectedUtility(f, lipschitz=1.0, degree=1.0)


CASES = (
    Case("norm 1", rdo.Homeostasis(norm=1), lambda x: -sum(map(abs, x))),
    Case("norm 2", rdo.Homeostasis(norm=2), lambda x: -math.hypot(*x)),
    Case("norm infinity", rdo.Homeostasis(norm=math.inf), lambda x: -max(map(abs, x))),
    Case("minimum", utility(lambda x: x.min(axis=-1)), min),
    Case("maximum", utility(lambda x: x.max(axis=-1)), max),
    Case("orthant", rdo.Threshold(), lambda x: F(min(x) >= 0)),
    Case("shortfalls", rdo.Shortfall(), lambda x: sum((min(a, F(0)) for a in x), F(0))),
    Case("two slopes", rdo.TwoSlope(2.0, -0.5), lambda x: sum((2 * min(a, F(0)) - max(a, F(0)) / 2 for a in x), F(0))),
    Case("mean", rdo.Mean(), sum),
    Case("square", rdo.Quadratic(), lambda x: -sum(a * a for a in x)),
)
cases = pytest.mark.parametrize("case", CASES, ids=repr)


@st.composite
def planes(draw: st.DrawFn, layered: bool) -> Table:
    """Return a table with rewards in the plane."""
    rewards = draw(st.sampled_from((CORNERS, TENTHS)))
    table = tidy(draw(strategies.tables(max_states=3, layered=layered, rewards=rewards)))
    zero = Vector((0, 0))  # the terminal state of the strategy pays a scalar zero
    return {
        s: {a: [(p, after, r or zero, ended) for p, after, r, ended in o] for a, o in rows.items()}
        for s, rows in table.items()
    }


def made(table: Table, gamma: F) -> rdo.MDP:
    return rdo.MDP.from_outcomes(
        {
            s: {a: [(float(p), z, tuple(map(float, r)), e) for p, z, r, e in o] for a, o in rows.items()}
            for s, rows in table.items()
        },
        gamma=float(gamma),
        initial=0,
    )


def floats(x: Vector) -> list[float]:
    return [float(a) for a in x]


def assert_solved(case: Case, table: Table, gamma: F, horizon: int, solution: Any, stock: Vector) -> None:
    """Assert value, bounds, policy and law at every state."""
    c = floats(stock)
    for state in table:
        exact = float(naive.best_utility(table, gamma, state, horizon, case.f, stock))
        slack = TINY * max(1.0, abs(exact))
        assert abs(solution.objective_value(state, c) - exact) <= slack
        low, high = solution.bounds(state, c)
        assert low - slack <= exact <= high + slack and high - low <= 4 * slack
        attained = naive.replay(
            table, gamma, state, horizon, lambda s, held, t: int(solution.policy.action(s, floats(held), t)), stock
        )
        assert abs(float(naive.expect(naive.shift(attained, stock), case.f)) - exact) <= slack
        shown = solution.returns(state, c)
        atoms = np.array([floats(x) for x, _ in attained])
        np.testing.assert_allclose(np.asarray(shown.atoms), atoms, atol=1e-9)
        np.testing.assert_allclose(np.asarray(shown.probs), [float(p) for _, p in attained], atol=TINY)


@theory("4.4")
@cases
@pytest.mark.parametrize("gamma", [F(1), F(1, 2)], ids=str)
def test_a_number_of_steps(case: Case, gamma: F) -> None:
    """With a horizon, self-loops included, every utility."""

    @settings(modest, max_examples=25)
    @given(planes(layered=False), st.sampled_from(STOCKS), st.integers(1, 3))
    def holds(table: Table, stock: Vector, horizon: int) -> None:
        widest = max(sum(len(o) for o in rows.values()) for rows in table.values())
        assume(widest**horizon <= 300)
        solution = rdo.value_iteration(made(table, gamma), case.K, stock=floats(stock), horizon=horizon)
        assert_solved(case, table, gamma, horizon, solution, stock)

    holds()


@theory("4.4")
@cases
@pytest.mark.parametrize("gamma", [F(1), F(1, 2)], ids=str)
def test_every_policy_ends(case: Case, gamma: F) -> None:
    """Without a horizon, where every path ends: one stationary policy of state and stock."""

    @settings(modest, max_examples=20)
    @given(planes(layered=True), st.sampled_from(STOCKS))
    def holds(table: Table, stock: Vector) -> None:
        solution = rdo.value_iteration(made(table, gamma), case.K, stock=floats(stock))
        assert_solved(case, table, gamma, len(table), solution, stock)

    holds()


@cases
def test_many_stocks_and_policy_iteration(case: Case) -> None:
    """Several stocks at once, and policy iteration, give the same optimum."""

    @settings(modest, max_examples=15)
    @given(planes(layered=True), st.sampled_from((F(1), F(1, 2))))
    def holds(table: Table, gamma: F) -> None:
        mdp, horizon = made(table, gamma), len(table)
        stocks = np.array([floats(c) for c in STOCKS])
        solutions = [
            solver(mdp, case.K, stock=stocks, horizon=horizon) for solver in (rdo.value_iteration, rdo.policy_iteration)
        ]
        for state, stock in itertools.product(table, STOCKS):
            exact = float(naive.best_utility(table, gamma, state, horizon, case.f, stock))
            for solution in solutions:
                value = solution.objective_value(state, floats(stock))
                assert value == pytest.approx(exact, rel=TINY, abs=TINY)

    holds()


@theory("4.4")
def test_balance_by_hand() -> None:
    """Food or water, one unit a step, both needed: from (-1, -1) two steps reach the set point only by taking turns."""
    turns = {0: {0: [(1.0, 0, (1.0, 0.0), False)], 1: [(1.0, 0, (0.0, 1.0), False)]}}
    mdp = rdo.MDP.from_outcomes(turns)
    for norm, one_step in ((1, -1.0), (2, -1.0), (math.inf, -1.0)):
        K = rdo.Homeostasis(norm=norm)
        assert rdo.value_iteration(mdp, K, stock=[-1.0, -1.0], horizon=1).objective_value(0, [-1.0, -1.0]) == one_step
        two = rdo.value_iteration(mdp, K, stock=[-1.0, -1.0], horizon=2)
        assert two.objective_value(0, [-1.0, -1.0]) == 0.0
        assert {two.policy.action(0, [-1.0, -1.0], 0), two.policy.action(0, [0.0, -1.0], 1)} == {0, 1}
    # With gamma = 1/2 the second unit counts half: the best from (-1, -1/2) is food first.
    discounted = rdo.MDP.from_outcomes(turns, gamma=0.5)
    solution = rdo.value_iteration(discounted, rdo.Threshold(), stock=[-1.0, -0.5], horizon=2)
    assert solution.objective_value(0, [-1.0, -0.5]) == 1.0 and solution.policy.action(0, [-1.0, -0.5]) == 0
