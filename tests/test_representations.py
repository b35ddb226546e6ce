"""Value iteration on projected laws against the scalar path, exhaustive search, and its own bounds."""

from __future__ import annotations

from fractions import Fraction as F
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import rdolib as rdo
from rdolib._projections import Exact
from tests import naive, strategies
from tests.naive import Table
from tests.test_exactness import CASES, Case, leaves

modest = settings(
    deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
TINY = 1e-12
ROUNDING = 1e-10
GAMMAS = (F(1), F(1, 2))


@st.composite
def problems(draw: st.DrawFn) -> tuple[rdo.MDP, Table, F, int]:
    table = draw(strategies.tables(max_outcomes=2))
    gamma, horizon = draw(st.sampled_from(GAMMAS)), draw(st.integers(1, 4))
    assume(leaves(table, horizon) <= 700)
    return rdo.MDP.from_outcomes(strategies.floats(table), gamma=float(gamma)), table, gamma, horizon


def reached(mdp: rdo.MDP, stock: float, horizon: int) -> list[tuple[int, int, float]]:
    """(step, state, stock) that some policy reaches, by brute force."""
    layer, out = {(s, stock) for s in range(mdp.n_states)}, []
    for t in range(horizon):
        out += [(t, s, c) for s, c in layer if not mdp.terminal[s]]
        layer = {
            (after, round((c + r) / mdp.gamma, 12))
            for s, c in layer
            for a in mdp.actions(s)
            for _, after, r, ended in mdp.outcomes(s, int(a))
            if not ended
        }
    return out


@settings(modest, max_examples=150)
@given(problems(), st.sampled_from(CASES), strategies.stocks())
def test_exact_laws_give_the_scalar_answer(problem: Any, case: Case, stock: F) -> None:
    """Every atom kept, finite horizon: values of the scalar path, its policy everywhere, its law."""
    mdp, _, _, horizon = problem
    c = float(stock)
    scalar = rdo.value_iteration(mdp, case.objective, stock=c, horizon=horizon)
    full = rdo.value_iteration(mdp, case.objective, stock=c, horizon=horizon, representation=Exact())
    assert full.converged
    for s in range(mdp.n_states):
        value = scalar.objective_value(s, c)
        slack = TINY * max(1.0, abs(value))
        assert full.bounds(s, c)[0] == pytest.approx(value, abs=slack)
        assert full.bounds(s, c)[1] == pytest.approx(value, abs=slack)
        assert case.objective(full.returns(s, c) + c) == pytest.approx(value, abs=10 * slack)
        assert full.returns(s, c).w1_error == 0
    for t, s, now in reached(mdp, c, horizon):
        assert full.policy.action(s, now, t) == scalar.policy.action(s, now, t)


@settings(modest, max_examples=120)
@given(problems(), st.sampled_from(CASES), strategies.stocks(), st.integers(1, 12), st.booleans())
def test_bounds_hold_for_every_size(problem: Any, case: Case, stock: F, n: int, quantiles: bool) -> None:
    """However coarse the representation: bounds contain the optimum, and laws are as near as they claim."""
    mdp, table, gamma, horizon = problem
    c = float(stock)
    room = horizon * float(np.abs(mdp.reward).max(initial=0.0)) + 2.0
    grid: Any = rdo.QuantileGrid(n) if quantiles else rdo.CategoricalGrid(-room, room + 1, 8 * n)
    try:
        solution = rdo.value_iteration(mdp, case.objective, stock=c, horizon=horizon, representation=grid)
    except rdo.InvalidArgumentError:
        assert not quantiles and n < 5
        return
    exact = naive.best_utility(table, gamma, 0, horizon, case.f, stock)
    low, high = solution.bounds(0, c)
    slack = ROUNDING * max(1.0, abs(float(exact)))
    assert low - slack <= float(exact) <= high + slack
    walked = naive.replay(table, gamma, 0, horizon, lambda s, x, t: solution.policy.action(s, float(x), t), stock)
    nu = solution.returns(0, c)
    law = rdo.Distribution([float(x) for x, _ in walked], [float(p) for _, p in walked])
    assert rdo.wasserstein(nu, law) <= nu.w1_error + 1e-11
    # The value of any policy is at most the optimum, so the policy that was found is worth no more than the bound.
    assert float(naive.expect(naive.shift(walked, stock), case.f)) <= high + slack


RATE = rdo.MDP.garnet(6, 2, 3, seed=9, gamma=0.5, rewards=[-1.0, 0.0, 1.0])
SIZES = (8, 16, 32, 64, 128, 256)


@pytest.mark.parametrize("horizon", [6, None])
@pytest.mark.parametrize("objective", [rdo.TargetReturn(), rdo.Shortfall(), rdo.TwoSlope(2.0, -0.5)])
@pytest.mark.parametrize("quantiles", [True, False])
def test_bounds_close_at_the_rate_of_the_theory(horizon: int | None, objective: Any, quantiles: bool) -> None:
    """The gap between the bounds falls at least like 1/n, within the a-priori bound, and the policy becomes optimal."""
    scalar = rdo.value_iteration(RATE, objective, stock=0.3, horizon=horizon)
    gaps = []
    for n in SIZES:
        grid: Any = rdo.QuantileGrid(n) if quantiles else rdo.CategoricalGrid(-3.0, 3.0, n + 1)
        solution = rdo.value_iteration(RATE, objective, stock=0.3, horizon=horizon, representation=grid)
        gaps.append(solution.residual)
        # Each projection moves a law on [-2.5, 2.5] by at most one half of its width over n (quantiles) or half a
        # cell, each worth at most the Lipschitz constant; a discount of 1/2 doubles the sum; and there are two sides.
        eps = (5.0 if quantiles else 6.0) / (2 * n)
        assert solution.residual <= 2 * objective.lipschitz * 2 * eps + 1e-8
        for s in range(6):
            low, high = solution.bounds(s, 0.3)
            assert low - 1e-9 <= scalar.objective_value(s, 0.3) <= high + 1e-9
    assert np.polyfit(np.log(SIZES), np.log(gaps), 1)[0] < -0.8
    achieved = objective(rdo.evaluate(RATE, solution.policy, horizon=horizon)(1, 0.3) + 0.3)
    assert achieved >= scalar.objective_value(1, 0.3) - 2 * gaps[-1]


@pytest.mark.parametrize("objective", [rdo.Mean(), rdo.TargetReturn(), rdo.Shortfall(), rdo.Surplus(), rdo.Threshold()])
def test_endless_with_a_discount(objective: Any) -> None:
    """Closed sets of nodes: bounds contain the exact value, and laws that of the policy, at every state and stock."""
    mdp = rdo.MDP.garnet(5, 2, 2, seed=3, gamma=0.5, terminal_probability=0.1)
    stocks = [-1.0, 0.5, 30.0]
    scalar = rdo.value_iteration(mdp, objective, stock=stocks)
    for grid in (rdo.QuantileGrid(128), rdo.CategoricalGrid(-7.0, 7.0, 141)):
        solution = rdo.value_iteration(mdp, objective, stock=stocks, representation=grid)
        for s in range(5):
            for c in stocks:
                low, high = solution.bounds(s, c)
                assert low - 1e-9 <= scalar.objective_value(s, c) <= high + 1e-9
                # Without continuity the gap has no reason to be small.
                assert high - low <= 0.1 or isinstance(objective, rdo.Threshold)
                if s != 2:
                    continue
                nu, followed = solution.returns(s, c), rdo.evaluate(mdp, solution.policy)(s, c)
                assert rdo.wasserstein(nu, followed) <= nu.w1_error + followed.w1_error + 1e-9


def test_paths_that_all_end() -> None:
    """A cubic utility without a horizon, gamma = 1/2, on paths that all end: exact on closed nodes."""
    mdp = rdo.MDP.from_outcomes(
        {
            0: {0: [(0.5, 1, 1.0, False), (0.5, 2, -1.0, False)], 1: [(1.0, 2, 0.5, False)]},
            1: {0: [(1.0, 2, 2.0, True)], 1: [(0.5, 2, 6.0, True), (0.5, 2, -3.0, True)]},
            2: {0: [(1.0, 3, 1.0, True)], 1: [(0.25, 3, 4.0, True), (0.75, 3, -1.0, True)]},
        },
        gamma=0.5,
    )
    cube = rdo.ExpectedUtility(lambda x: x**3, degree=3)
    scalar = rdo.value_iteration(mdp, cube, stock=0.25, horizon=3)
    full = rdo.value_iteration(mdp, cube, stock=0.25, representation=Exact())
    for s in range(3):
        assert full.objective_value(s, 0.25) == pytest.approx(scalar.objective_value(s, 0.25), abs=1e-12)
        assert full.returns(s, 0.25).allclose(scalar.returns(s, 0.25))


def test_layers_of_an_endless_problem() -> None:
    """A utility that does not saturate: layers, closed with the law of the lowest actions; few branches, so deep."""
    mdp = rdo.MDP.from_outcomes(
        {
            0: {0: [(0.9, 0, 0.0, True), (0.1, 1, 1.0, False)], 1: [(1.0, 1, -0.5, False)]},
            1: {0: [(1.0, 0, 1.0, False)]},
        },
        gamma=0.25,
    )
    scalar = rdo.value_iteration(mdp, rdo.Quadratic(), stock=-0.75)
    for n in (4, 64):
        solution = rdo.value_iteration(mdp, rdo.Quadratic(), stock=-0.75, representation=rdo.QuantileGrid(n))
        assert "projected" in solution.method
        low, high = solution.bounds(0, -0.75)
        assert low - 1e-8 <= scalar.objective_value(0, -0.75) <= high + 1e-8
        nu, exact = solution.returns(0, -0.75), scalar.returns(0, -0.75)
        assert rdo.wasserstein(nu, rdo.evaluate(mdp, solution.policy)(0, -0.75)) <= nu.w1_error + 1e-9
    assert rdo.wasserstein(nu, exact) < 0.02


def test_gamma_one_without_a_horizon_makes_progress() -> None:
    """A zero-reward self-loop ties with the way to the goal; the goal must be reached, in the law too."""
    mdp = rdo.MDP.from_outcomes({0: {0: [(1.0, 0, 0.0, False)], 1: [(0.5, 0, 0.0, False), (0.5, 1, 1.0, True)]}})
    solution = rdo.value_iteration(mdp, rdo.Mean(), representation=rdo.QuantileGrid(16))
    assert solution.policy.action(0, 0.0) == 1
    assert solution.objective_value(0) == pytest.approx(1.0)
    nu = solution.returns(0)
    assert rdo.wasserstein(nu, rdo.Distribution([1.0], [1.0])) <= nu.w1_error + 1e-9


def test_no_false_certainty_without_continuity() -> None:
    """THEORY 5.10: from most starts sweeps never see that action 0 is worth 1; the bounds must not exclude it."""
    table = {
        0: {0: [(1.0, 1, 1.0, False)], 1: [(0.5, 2, 4.0, True), (0.5, 2, 0.0, True)]},
        1: {0: [(1.0, 1, 1.0, False)]},
        2: {0: [(1.0, 2, 0.0, True)]},
    }
    mdp = rdo.MDP.from_outcomes(table, gamma=0.5)
    for grid in (rdo.QuantileGrid(32), rdo.CategoricalGrid(-1.0, 5.0, 61)):
        low, high = rdo.value_iteration(mdp, rdo.Threshold(), stock=-2.0, representation=grid).bounds(0, -2.0)
        assert low <= 1.0 <= high


# --------------------------------------------------------------------------------------------------
# vectors


def vector_best(mdp: rdo.MDP, f: Any, state: int, stock: Any, horizon: int, t: int = 0) -> float:
    """The optimum over all histories: ``stock`` is what has been earned, in the money of step 0."""
    if horizon == t or mdp.terminal[state]:
        return float(f(stock))
    values = []
    for action in mdp.actions(state):
        value = 0.0
        for p, after, reward, ended in mdp.outcomes(state, int(action)):
            now = stock + mdp.gamma**t * np.asarray(reward)
            value += p * (float(f(now)) if ended else vector_best(mdp, f, after, now, horizon, t + 1))
        values.append(value)
    return max(values)


VECTOR = [
    (rdo.Homeostasis(1), lambda x: -np.abs(x).sum()),
    (rdo.Homeostasis(2), lambda x: -np.sqrt((x * x).sum())),
    (rdo.Homeostasis(float("inf")), lambda x: -np.abs(x).max()),
    (rdo.ExpectedUtility(lambda x: x.min(axis=-1), lipschitz=1.0, degree=1.0), lambda x: x.min()),
    (rdo.Threshold(), lambda x: float((x >= -1e-12).all())),
]


@pytest.mark.parametrize("gamma", [1.0, 0.5])
@pytest.mark.parametrize("case", VECTOR, ids=lambda case: repr(case[0]))
def test_vectors(gamma: float, case: Any) -> None:
    """Two components: every atom kept equals exhaustive search; a product grid gives bounds around it."""
    objective, f = case
    mdp = rdo.MDP.garnet(4, 2, 2, seed=6, gamma=gamma, rewards=[(1, 0), (0, 1), (-1, 1), (0, -1)])
    stock = np.array([0.5, -1.0])
    full = rdo.value_iteration(mdp, objective, stock=stock, horizon=4, representation=Exact())
    grid = rdo.CategoricalGrid([-4.5, -5.0], [5.0, 4.5], [39, 39])
    coarse = rdo.value_iteration(mdp, objective, stock=stock, horizon=4, representation=grid)
    for s in range(4):
        best = vector_best(mdp, f, s, stock, 4)
        assert full.objective_value(s, stock) == pytest.approx(best, abs=1e-12)
        assert objective(full.returns(s, stock) + stock) == pytest.approx(best, abs=1e-12)
        low, high = coarse.bounds(s, stock)
        assert low - 1e-11 <= best <= high + 1e-11
        nu = coarse.returns(s, stock)
        assert rdo.wasserstein(nu, rdo.evaluate(mdp, coarse.policy, horizon=4)(s, stock)) <= nu.w1_error + 1e-9


# --------------------------------------------------------------------------------------------------
# refusals


def test_refusals() -> None:
    """What a representation cannot do is said, with the remedy."""
    mdp = rdo.MDP.garnet(3, 2, 2, seed=0, gamma=0.5)
    vector = rdo.MDP.garnet(3, 2, 2, seed=0, rewards=[(1, 0), (0, 1)])
    with pytest.raises(rdo.InvalidArgumentError, match="representation must be None, QuantileGrid"):
        rdo.value_iteration(mdp, rdo.Mean(), horizon=2, representation=64)  # type: ignore[arg-type]
    with pytest.raises(rdo.InvalidArgumentError, match="QuantileGrid holds scalar laws"):
        rdo.value_iteration(vector, rdo.Homeostasis(), horizon=2, representation=rdo.QuantileGrid(8))
    with pytest.raises(rdo.InvalidArgumentError, match="the grid cannot hold the returns: mass"):
        rdo.value_iteration(mdp, rdo.Mean(), horizon=3, representation=rdo.CategoricalGrid(0.0, 1.0, 11))
    with pytest.raises(rdo.NotOptimizableError, match="takes expected utilities"):
        rdo.value_iteration(mdp, rdo.EssInf(), horizon=2, representation=rdo.QuantileGrid(8))
    with pytest.raises(rdo.NotOptimizableError, match="indifference to mixtures"):
        rdo.value_iteration(mdp, rdo.CVaR(0.5), horizon=2, representation=rdo.QuantileGrid(8))
    with pytest.raises(rdo.NotOptimizableError, match="indifference to gamma"):
        rdo.value_iteration(mdp, rdo.Exponential(-1.0), representation=rdo.QuantileGrid(8))
    with pytest.raises(rdo.MemoryLimitError, match="raise memory="):
        rdo.value_iteration(mdp, rdo.Mean(), horizon=12, representation=rdo.QuantileGrid(64), memory=10_000)
    with pytest.raises(rdo.MemoryLimitError, match="keeps every atom"):
        rdo.value_iteration(mdp, rdo.TargetReturn(), stock=0.5, representation=Exact())
    solution = rdo.value_iteration(mdp, rdo.TargetReturn(), stock=0.5, horizon=3, representation=rdo.QuantileGrid(8))
    with pytest.raises(rdo.InvalidArgumentError, match=r"stock 0.7 at state 0, step 0 cannot be reached"):
        solution.returns(0, 0.7)
