"""Plans for objectives that choose their initial stock, against answers that know nothing of stocks.

The witnesses are lists of all return laws in fractions (`tests.naive`), closed forms, and each plan's own law. An
optimum over randomized policies is compared with the lowest point of the maximum over that list.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction as F
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import rdolib as rdo
from rdolib import examples
from rdolib.risk import OuterSearch
from tests import naive, strategies
from tests.naive import Law, Table

modest = settings(
    deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
TINY = 1e-11
#: Bounds of a search may be this far apart, relative; quantiles look no closer.
GAP = 1e-9

TWO_HILLS: Table = {
    0: {0: [(F(1), 0, F(1), True)], 1: [(F(1, 4), 0, F(-2), True), (F(3, 4), 0, F(5), True)]},
}
COIN_HELPS: Table = {
    0: {0: [(F(1), 0, F(1), True)], 1: [(F(1, 4), 0, F(2), True), (F(3, 4), 0, F(0), True)]},
}


@dataclass(frozen=True)
class Case:
    """An objective of the library beside its exact functional, a function of a law and the level."""

    make: Callable[[float], OuterSearch]
    exact: Callable[[Law, F], Any]


def mean_cvar(nu: Law, tau: F) -> F:
    return F(3, 4) * naive.mean(nu) + F(1, 4) * naive.cvar(nu, tau)


CASES = {
    "cvar": Case(rdo.CVaR, naive.cvar),
    "mean-cvar": Case(lambda t: rdo.MeanCVaR(t, 0.25), mean_cvar),
    "expectile": Case(rdo.Expectile, naive.expectile),
    "lower quantile": Case(rdo.Quantile, naive.lower_quantile),
    "upper quantile": Case(lambda t: rdo.Quantile(t, side="upper"), naive.upper_quantile),
    "median": Case(lambda t: rdo.Median(), lambda nu, tau: naive.lower_quantile(nu, F(1, 2))),
    "variance": Case(lambda t: rdo.Variance(), lambda nu, tau: -naive.var(nu)),
    "mean-variance": Case(rdo.MeanVariance, lambda nu, tau: naive.mean(nu) - tau * naive.var(nu)),
}


def sharpe(nu: Law) -> float:
    if naive.var(nu) == 0:
        return math.inf if naive.mean(nu) > 0 else -math.inf if naive.mean(nu) < 0 else 0.0
    return float(naive.mean(nu)) / math.sqrt(naive.var(nu))


@dataclass(frozen=True)
class Problem:
    """A tiny problem, and the laws of all its policies."""

    table: Table
    gamma: F
    start: naive.Start
    horizon: int | None
    laws: tuple[Law, ...]

    @property
    def mdp(self) -> rdo.MDP:
        start = self.start if isinstance(self.start, int) else [float(p) for p in self.start.values()]
        return rdo.MDP.from_outcomes(strategies.floats(self.table), gamma=float(self.gamma), initial=start)

    @property
    def steps(self) -> int:
        return self.horizon or len(self.table)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Problems with a horizon, or in which every path ends; the start may be random."""
    layered = draw(st.booleans())
    table = draw(strategies.tables(layered=layered, max_outcomes=3))
    horizon = None if layered and draw(st.booleans()) else draw(st.integers(1, 4))
    gamma = draw(st.sampled_from(strategies.GAMMAS))
    weights = {s: F(2 if s == 0 else 1, len(table) + 1) for s in table}
    start: naive.Start = weights if draw(st.booleans()) else 0
    try:
        laws = naive.laws(table, gamma, start, horizon or len(table), limit=1500)
    except naive.TooManyLawsError:
        assume(False)
        raise
    return Problem(table, gamma, start, horizon, tuple(laws))


def fraction(x: float) -> F:
    return F(x).limit_denominator(10**9)


def assert_plan(plan: rdo.Plan, exact: Any, leftover: float = 0.0) -> None:
    """The value is exact, the bounds hold it and have met, and the plan's own law has it.

    ``leftover``: how far an endless law that is cut may move the value.
    """
    slack = TINY * max(1.0, abs(float(exact)))
    assert abs(plan.value - float(exact)) <= slack
    low, high = plan.bounds
    assert low <= plan.value <= high and low - slack <= float(exact) <= high + slack
    assert plan.residual == high - low <= GAP * max(1.0, abs(float(exact)))
    assert plan.converged and plan.iterations >= 1
    assert abs(plan.objective(plan.returns) - plan.value) <= slack + leftover


# --------------------------------------------------------------------------------------------------
# problems made up by hypothesis


@settings(modest, max_examples=150)
@given(problems(), strategies.levels(), st.sampled_from(sorted(CASES)))
def test_against_all_laws(problem: Problem, tau: F, name: str) -> None:
    tau = min(tau, F(23, 24))
    exact = max(CASES[name].exact(nu, tau) for nu in problem.laws)
    plan = rdo.optimize(problem.mdp, CASES[name].make(float(tau)), horizon=problem.horizon)
    assert_plan(plan, exact)
    assert plan.mixture == () and plan.pure is plan


@settings(modest, max_examples=80)
@given(problems(), strategies.levels(), st.sampled_from(sorted(CASES)))
def test_policies_attain_their_values(problem: Problem, tau: F, name: str) -> None:
    """A walk over all histories, asking the policy, gives a law with the value: the plan is what it says."""
    tau = min(tau, F(23, 24))
    plan = rdo.optimize(problem.mdp, CASES[name].make(float(tau)), horizon=problem.horizon)
    attained = naive.replay(
        problem.table, problem.gamma, problem.start, problem.steps,
        lambda s, c, t: int(plan.policy.action(s, float(c), t)), F(plan.stock),
    )  # fmt: skip
    assert float(CASES[name].exact(attained, tau)) == pytest.approx(plan.value, rel=TINY, abs=TINY)


@settings(modest, max_examples=150)
@given(problems())
def test_sharpe_against_all_laws(problem: Problem) -> None:
    if all(naive.mean(nu) <= 0 for nu in problem.laws):
        with pytest.raises(rdo.NotOptimizableError, match="needs a policy with a positive mean"):
            rdo.optimize(problem.mdp, rdo.Sharpe(), horizon=problem.horizon)
        return
    exact = max(sharpe(nu) for nu in problem.laws)
    plan = rdo.optimize(problem.mdp, rdo.Sharpe(), horizon=problem.horizon)
    if exact == math.inf:
        assert plan.value == math.inf and plan.bounds == (math.inf, math.inf) and plan.residual == 0
        assert plan.returns.n_atoms == 1
    else:
        assert_plan(plan, exact)


@settings(modest, max_examples=150)
@given(problems(), strategies.levels())
def test_optimistic_cvar_against_all_laws(problem: Problem, tau: F) -> None:
    """The randomized optimum; the lottery attains it, and each component is worth what it says."""
    assume(len(problem.laws) <= 150 and len({x for nu in problem.laws for x, _ in nu}) <= 60)
    exact = naive.best_optimistic_cvar(problem.table, problem.gamma, problem.start, problem.steps, tau)
    plan = rdo.optimize(problem.mdp, rdo.OptimisticCVaR(float(tau)), horizon=problem.horizon)
    assert_plan(plan, exact)
    assert sum(p for p, _ in plan.mixture) == pytest.approx(1.0, abs=1e-15)
    assert len(plan.mixture) <= 2 and all(p > 0 for p, _ in plan.mixture)
    for _, part in plan.mixture:
        assert part.objective(part.returns) == pytest.approx(part.value, rel=TINY, abs=TINY)
        assert part.mixture == () and part.bounds[1] == plan.bounds[1]
    assert plan.pure.value == max(part.value for _, part in plan.mixture) <= plan.bounds[1]
    assert plan.pure.residual == plan.bounds[1] - plan.pure.value
    assert (plan.stock, plan.policy) == (plan.pure.stock, plan.pure.policy)


@settings(modest, max_examples=25)
@given(problems(), st.sampled_from(sorted(CASES)))
def test_frontiers_equal_single_plans(problem: Problem, name: str) -> None:
    levels = [0.75, 0.05, 1 / 3]
    front = rdo.frontier(problem.mdp, CASES[name].make, levels=levels, horizon=problem.horizon)
    assert front.levels == tuple(levels)
    for level, plan in zip(levels, front.plans, strict=True):
        alone = rdo.optimize(problem.mdp, CASES[name].make(level), horizon=problem.horizon)
        assert plan.iterations <= alone.iterations + 2  # its own, not those of the levels before
        assert plan.value == pytest.approx(alone.value, rel=TINY, abs=TINY)
        assert plan.objective(plan.returns) == pytest.approx(plan.value, rel=TINY, abs=TINY)


# --------------------------------------------------------------------------------------------------
# the facts


@pytest.mark.parametrize("name", [name for name in examples.forks() if name != "exponential"])
def test_forks(name: str) -> None:
    """What value iteration on the objective itself gets wrong, the search gets right."""
    fork = examples.forks()[name]
    plan = rdo.optimize(fork.mdp, fork.objective, horizon=fork.horizon)
    assert_plan(plan, fork.optimum)
    assert plan.value > fork.naive
    assert rdo.optimize(fork.mdp, fork.objective).value == pytest.approx(fork.optimum, rel=TINY)


@pytest.mark.parametrize("gamma", [1.0, 0.5, 0.9])
def test_two_hills(gamma: float) -> None:
    """At level 1/2, g(1) = 1, g(2) = 0, g(5) = 3/2; a climb from the lower hill would stay there."""
    mdp = rdo.MDP.from_outcomes(strategies.floats(TWO_HILLS), gamma=gamma)
    assert_plan(rdo.optimize(mdp, rdo.CVaR(0.5)), F(3, 2))
    # With half of the mean: A is worth 1, B (13/4 + 3/2) / 2.
    plan = rdo.optimize(mdp, rdo.MeanCVaR(0.5, 0.5))
    assert_plan(plan, F(19, 8))
    assert plan.policy.action(0, plan.stock) == 1


@pytest.mark.parametrize("gamma", [1.0, 0.5, 0.9])
def test_a_coin_helps(gamma: float) -> None:
    """A = 1, B = 2 or 0: each is worth 1, the lottery of a third and two thirds 4/3; b = 2/3 is no possible return."""
    mdp = rdo.MDP.from_outcomes(strategies.floats(COIN_HELPS), gamma=gamma)
    plan = rdo.optimize(mdp, rdo.OptimisticCVaR(0.5))
    assert_plan(plan, F(4, 3))
    (p, a), (q, b) = sorted(plan.mixture, key=lambda part: part[1].policy.action(0, part[1].stock))
    assert [a.policy.action(0, a.stock), b.policy.action(0, b.stock)] == [0, 1]
    assert (p, q) == (pytest.approx(1 / 3, abs=1e-12), pytest.approx(2 / 3, abs=1e-12))
    assert plan.pure.value == 1 and plan.pure.residual == pytest.approx(1 / 3, abs=1e-11)
    assert "component of a lottery" in plan.pure.method
    assert plan.returns.atoms.tolist() == [0, 1, 2]
    assert plan.returns.probs == pytest.approx([1 / 2, 1 / 3, 1 / 6], abs=1e-12)
    # Scanning the possible returns only would find 3/2, which no lottery attains.
    surplus = rdo.value_iteration(mdp, rdo.Surplus(), stock=[0.0, -1.0, -2.0])
    assert min(b + surplus.objective_value(0, -b) / 0.5 for b in (0.0, 1.0, 2.0)) == pytest.approx(1.5)


@settings(modest, max_examples=40)
@given(problems(), strategies.levels())
def test_no_coin_where_one_plan_is_as_good_alone(problem: Problem, tau: F) -> None:
    plan = rdo.optimize(problem.mdp, rdo.OptimisticCVaR(float(tau)), horizon=problem.horizon)
    if plan.pure.value >= plan.value - TINY * max(1.0, abs(plan.value)):
        assert [p for p, _ in plan.mixture] == [1.0]


def test_lotteries_are_rolled_out() -> None:
    plan = rdo.optimize(rdo.MDP.from_outcomes(strategies.floats(COIN_HELPS)), rdo.OptimisticCVaR(0.5))
    runs = rdo.rollout(plan.mdp, plan, episodes=40_000, seed=5)
    for x, p in zip(plan.returns.atoms, plan.returns.probs, strict=True):
        assert abs(np.mean(runs.returns == x) - p) <= 5 * math.sqrt(p * (1 - p) / 40_000)
    alone = rdo.rollout(plan.mdp, plan.pure, episodes=1000, seed=5)
    assert set(alone.returns) <= ({1.0} if plan.pure.returns.n_atoms == 1 else {0.0, 2.0})


def test_the_best_sharpe_ratio_takes_a_dominated_action() -> None:
    """At the choice A pays {5, 6} and B {4, 5}; the rest pays 4, and B is nearer to it."""
    fork = examples.forks()["sharpe"]
    plan = rdo.optimize(fork.mdp, rdo.Sharpe(), horizon=2)
    assert plan.policy.action(1, plan.stock, 1) == 1
    assert plan.value**2 == pytest.approx(1089 / 7, rel=1e-12)


def test_variance_may_stand_far_below_the_best_mean() -> None:
    """Three sure returns and a wild one: every sure one has variance 0, and the ratio of a sure gain is infinite."""
    wild = [(0.5, 0, 100.0, True), (0.5, 0, -90.0, True)]
    mdp = rdo.MDP.from_outcomes({0: {0: wild, 1: [(1.0, 0, -3.0, True)]}})
    assert_plan(rdo.optimize(mdp, rdo.Variance()), 0)
    assert_plan(rdo.optimize(mdp, rdo.MeanVariance(0.0005)), F(5) - F(95**2, 2000))
    assert_plan(rdo.optimize(mdp, rdo.MeanVariance(0.01)), -3)
    assert_plan(rdo.optimize(mdp, rdo.Sharpe()), F(5, 95))
    mdp = rdo.MDP.from_outcomes({0: {0: wild, 1: [(1.0, 0, 0.001, True)]}})
    assert rdo.optimize(mdp, rdo.Sharpe()).value == math.inf


# --------------------------------------------------------------------------------------------------
# how it is found


LADDER = rdo.MDP.from_outcomes(
    {s: {0: [(1.0, s + 1, 1.0, s == 5)], 1: [(0.5, s + 1, 3.0, s == 5), (0.5, s + 1, 0.0, s == 5)]} for s in range(6)}
)


@pytest.mark.parametrize("K", [rdo.CVaR, rdo.Quantile, lambda t: rdo.Quantile(t, side="upper")])
def test_one_solve_serves_every_level_on_a_lattice(K: Callable[[float], Any]) -> None:
    front = rdo.frontier(LADDER, K, levels=np.linspace(0.01, 0.99, 99))
    assert [plan.iterations for plan in front.plans] == [1] * 99
    assert len({id(plan.policy.table) for plan in front.plans}) == 1
    assert (np.diff(front.values) >= -1e-12).all()
    assert len(set(front.values)) > 3


def test_searches_are_short() -> None:
    """Solves counted, so that a search that turns into a scan is noticed."""
    most = {
        rdo.MeanCVaR(0.3, 0.5): 2,
        rdo.OptimisticCVaR(0.3): 8,
        rdo.Expectile(0.3): 5,
        rdo.Variance(): 12,
        rdo.MeanVariance(0.3): 8,
        rdo.Sharpe(): 12,
    }
    for K, solves in most.items():
        plan = rdo.optimize(LADDER, K)
        assert plan.iterations <= solves, plan
        assert plan.method.startswith("exact")


# --------------------------------------------------------------------------------------------------
# without a horizon


def test_endless_fair_coins() -> None:
    """0 or 1 for ever, gamma = 1/2: uniform on [0, 2]. Beside it a sure 9/10 in all, which only some want."""
    flips = [(0.5, 0, 0.0, False), (0.5, 0, 1.0, False)]
    mdp = rdo.MDP.from_outcomes({0: {0: flips}}, gamma=0.5)
    e = 1.0 / (1.0 + math.sqrt(0.8 / 0.2)) * 2  # 0.2 (2 - e)^2 = 0.8 e^2
    cases = [
        (rdo.MeanCVaR(0.25, 0.5), 0.625),
        (rdo.OptimisticCVaR(0.25), 1.75),
        (rdo.Expectile(0.2), e),
        (rdo.Quantile(0.3), 0.6),
        (rdo.Quantile(0.3, side="upper"), 0.6),
    ]
    for K, exact in cases:
        plan = rdo.optimize(mdp, K)
        assert plan.value == pytest.approx(exact, abs=1e-9), K
        assert plan.bounds[0] - TINY <= exact <= plan.bounds[1] + TINY, K
        assert plan.residual <= 1e-9
    mdp = rdo.MDP.from_outcomes({0: {0: flips, 1: [(1.0, 0, 0.9, True)]}}, gamma=0.5)
    # In doubt flip first: 1 and then the sure 0.9 / 2, or 0 and what is best with half the money.
    assert rdo.optimize(mdp, rdo.Quantile(0.3)).value >= 0.9 - 1e-9
    assert rdo.optimize(mdp, rdo.Expectile(0.2)).value >= 0.9 - 1e-12


def test_unbounded_returns() -> None:
    """Geometric gains, P(G >= n) = (2/3)^n: no greatest return."""
    mdp = rdo.MDP.from_outcomes({0: {0: [(2 / 3, 0, 1.0, False), (1 / 3, 0, 0.0, True)]}})
    nu = rdo.Distribution(np.arange(150.0), np.append((1 / 3) * (2 / 3) ** np.arange(149), (2 / 3) ** 149))
    for K in (
        rdo.MeanCVaR(0.5, 0.5),
        rdo.OptimisticCVaR(0.1),
        rdo.Expectile(0.8),
        rdo.Quantile(0.9),
        rdo.Quantile(0.3, side="upper"),
    ):
        assert_plan(rdo.optimize(mdp, K), K(nu), leftover=1e-9)
    assert rdo.optimize(mdp, rdo.MeanCVaR(1.0, 0.5)).value == pytest.approx(2.0, abs=1e-12)


@pytest.mark.parametrize("K", [rdo.Variance(), rdo.MeanVariance(0.2), rdo.Median(), rdo.Expectile(0.4)], ids=repr)
def test_falling_stock_agrees_with_a_long_horizon(K: Any) -> None:
    """Every step ends with probability at least 1/2: after 60 steps nothing is left but 2**-60."""
    mdp = rdo.MDP.from_outcomes(
        {
            0: {0: [(0.5, 1, -1.0, False), (0.5, 1, -3.0, True)], 1: [(0.2, 0, -4.0, False), (0.8, 0, -1.0, True)]},
            1: {0: [(0.4, 0, -2.0, False), (0.6, 0, -1.0, True)], 1: [(1.0, 0, -1.5, True)]},
        }
    )
    for state in (0, 1):
        plan = rdo.optimize(mdp, K, state=state)
        assert_plan(plan, rdo.optimize(mdp, K, state=state, horizon=60).value, leftover=1e-9)


# --------------------------------------------------------------------------------------------------
# certified tables


@pytest.mark.parametrize(
    ("K", "memory"),
    [
        (rdo.MeanCVaR(0.3, 0.5), 400_000),
        (rdo.OptimisticCVaR(0.3), 400_000),
        (rdo.Expectile(0.3), 400_000),
        (rdo.Quantile(0.3), 400_000),
        (rdo.Quantile(0.3, side="upper"), 400_000),
        (rdo.Variance(), 20_000_000),
        (rdo.MeanVariance(0.3), 20_000_000),
        (rdo.Sharpe(), 20_000_000),
    ],
    ids=repr,
)
def test_bounds_of_certified_tables_hold_the_optimum(K: Any, memory: int) -> None:
    """With little memory stocks are rounded; with more the answer is exact, and lies between the bounds."""
    mdp = rdo.MDP.garnet(4, 2, 2, seed=5, gamma=0.9)
    exact = rdo.optimize(mdp, K, horizon=9)
    rough = rdo.optimize(mdp, K, horizon=9, memory=memory, tol=1e-9)
    assert exact.method.startswith("exact") and exact.residual <= 1e-9
    assert "certified" in rough.method + rough.pure.method
    assert not rough.converged and rough.residual > 1e-9
    assert rough.bounds[0] - 1e-9 <= exact.value <= rough.bounds[1] + 1e-9
    assert rough.residual <= 0.75 * max(1.0, abs(exact.value))  # and the bounds are not empty
    # The law of a rounded policy has an error of its own, a few thousandths here.
    assert rough.value - 0.01 <= K(rough.returns) <= exact.value + 0.01


# --------------------------------------------------------------------------------------------------
# laws that the searches rest on


def test_curved_utilities_are_planned_for_closely_where_the_stock_is_wide() -> None:
    """Returns reach -10,000 here; actions may tie to within rounding of values near the plan, not of 10,000 squared."""
    mdp = rdo.MDP.from_gymnasium("CliffWalking-v1", is_slippery=True)
    plan = rdo.optimize(mdp, rdo.Quadratic(), horizon=100, stock=98.0)
    assert rdo.Quadratic()(plan.returns + 98.0) == pytest.approx(plan.value, rel=1e-7)


def test_laws_go_on_where_the_table_of_reachable_stocks_ends() -> None:
    """Fair coins for ever, uniform on [0, 2]: the table stops after a few steps, the law does not."""
    mdp = rdo.MDP.from_outcomes({0: {0: [(0.5, 0, 0.0, False), (0.5, 0, 1.0, False)]}}, gamma=0.5)
    plan = rdo.optimize(mdp, rdo.Quadratic(), stock=-1.0, memory=2**25)
    assert plan.method.startswith("certified") and "reachable" in plan.method
    assert plan.bounds[0] <= -1 / 3 <= plan.bounds[1]
    assert rdo.Quadratic()(plan.returns - 1.0) == pytest.approx(-1 / 3, abs=1e-8)


def test_small_ratios_need_far_stocks() -> None:
    """The best b of a ratio S is E G (1 + 1 / S^2): here 20,000, where a mesh of 1e-4 is hard to tell from rounding."""

    def bet(gain: float) -> rdo.MDP:
        return rdo.MDP.from_outcomes(
            {0: {0: [(1.0, 0, 0.0, True)], 1: [(0.5, 0, 1 + gain, True), (0.5, 0, -1.0, True)]}}
        )

    plan = rdo.optimize(bet(1e-4), rdo.Sharpe())
    assert plan.value == pytest.approx(5e-5 / 1.00005, rel=1e-11)
    assert plan.bounds[1] == pytest.approx(plan.value, rel=1e-9)
    with pytest.raises(rdo.NotOptimizableError, match="too small to be certified"):
        rdo.optimize(bet(1e-6), rdo.Sharpe())


def test_cells_whose_ends_have_saturated() -> None:
    """Rounding put a saturated stock of a cell back into the band, where no table knows it."""
    table = {0: {0: [(1.0, 0, 0.3, False), (0.0, 0, -0.7, False)], 1: [(1.0, 0, -0.1, False)]}}
    plan = rdo.optimize(rdo.MDP.from_outcomes(table, gamma=0.9), rdo.CVaR(0.05), horizon=4)
    assert plan.value == pytest.approx(0.3 * (1 - 0.9**4) / 0.1, rel=1e-12)


def test_a_start_that_may_have_ended() -> None:
    """Half of the starts return 0 at once; the cells took their slopes there for zero, and the search stopped early."""
    mdp = rdo.MDP.from_outcomes(
        {0: {0: [(1.0, 1, 1.0, False)]}, 1: {0: [(1.0, 1, 0.0, True)]}}, gamma=0.5, initial=[0.5, 0.5]
    )
    for level in (0.25, 0.625, 0.999999):
        assert_plan(rdo.optimize(mdp, rdo.CVaR(level)), max(0.0, (level - 0.5) / level))


# --------------------------------------------------------------------------------------------------
# large rewards, fine meshes


BIG = F(10**9 + 1, 1000)
WIDE: Table = {
    0: {
        0: [(F(1, 2), 1, BIG, False), (F(1, 2), 1, F(-(10**6)), False)],
        1: [(F(1), 1, F(7, 2), False)],
    },
    1: {
        0: [(F(3, 4), 1, BIG, True), (F(1, 4), 1, F(-(10**6)), True)],
        1: [(F(1), 1, F(7, 2), True)],
    },
}
#: All unfinished rewards are negative, which a lattice of 2 * 10**9 stocks would solve in one pass.
FALLING: Table = {
    0: {
        0: [(F(1), 1, F(-(10**6)), False)],
        1: [(F(3, 7), 1, F(-1, 1000), False), (F(1, 7), 1, F(10**6), True), (F(3, 7), 1, F(-1), False)],
    },
    1: {0: [(F(1, 2), 1, F(-2), True), (F(1, 2), 1, F(3), True)], 1: [(F(1), 1, F(0), True)]},
}


@pytest.mark.parametrize("horizon", [2, None])
@pytest.mark.parametrize("table", [WIDE, FALLING], ids=["wide", "falling"])
@pytest.mark.parametrize("name", sorted(CASES))
def test_lattices_too_wide_to_be_scanned(name: str, table: Table, horizon: int | None) -> None:
    """Two steps and a few returns, on a lattice of some thousand million points."""
    laws = naive.laws(table, F(1), 0, 2)
    mdp = rdo.MDP.from_outcomes(strategies.floats(table))
    for tau in (F(1, 8), F(1, 2), F(7, 8)):
        exact = max(CASES[name].exact(nu, tau) for nu in laws)
        plan = rdo.optimize(mdp, CASES[name].make(float(tau)), horizon=horizon)
        assert plan.value == pytest.approx(float(exact), rel=1e-12, abs=1e-12), tau
        assert plan.bounds[0] <= plan.value <= plan.bounds[1] <= plan.value + 1e-5
        assert plan.objective(plan.returns) == pytest.approx(float(exact), rel=1e-12, abs=1e-12)


def test_frontier_on_a_wide_lattice() -> None:
    laws = naive.laws(WIDE, F(1), 0, 2)
    mdp, levels = rdo.MDP.from_outcomes(strategies.floats(WIDE)), [k / 16 for k in range(1, 16)]
    for K, exact in ((rdo.CVaR, naive.cvar), (rdo.Quantile, naive.lower_quantile)):
        front = rdo.frontier(mdp, K, levels=levels, horizon=2)
        best = [float(max(exact(nu, F(level)) for nu in laws)) for level in levels]
        assert front.values == pytest.approx(best, rel=1e-12, abs=1e-12)


def test_small_spreads_far_from_zero() -> None:
    """Around a million, a spread of one is lost in b squared; cells were taken for settled, and 3 percent were lost."""
    base = F(10**6)
    table: Table = {
        0: {0: [(F(2, 5), 1, base, False), (F(3, 5), 2, base + 2, False)]},
        1: {
            0: [(F(3, 5), 2, base + 2, False), (F(2, 5), 0, base + 2, False)],
            1: [(F(1, 2), 0, base, False), (F(1, 2), 2, base, False)],
            2: [(F(1, 2), 0, base, False), (F(1, 8), 0, base + 1, False), (F(3, 8), 0, base + 2, True)],
        },
        2: {
            0: [(F(1), 0, base + 1, False)],
            1: [(F(2, 5), 2, base + 2, False), (F(3, 5), 2, base + 1, False)],
        },
    }
    laws = naive.laws(table, F(1, 2), 0, 3)
    mdp = rdo.MDP.from_outcomes(strategies.floats(table), gamma=0.5)
    assert_plan(rdo.optimize(mdp, rdo.Sharpe(), horizon=3), max(sharpe(nu) for nu in laws))
    assert_plan(rdo.optimize(mdp, rdo.Variance(), horizon=3), max(-naive.var(nu) for nu in laws))


@pytest.mark.parametrize("gamma", [1.0, 0.5, 1 / 3, 0.9])
def test_a_sure_gain_beside_an_almost_sure_one(gamma: float) -> None:
    rows = {0: [(1 - 1e-9, 0, 1e6 + 1, True), (1e-9, 0, 1e6, True)], 1: [(1.0, 0, 1e6, True)]}
    assert rdo.optimize(rdo.MDP.from_outcomes({0: rows}, gamma=gamma), rdo.Sharpe()).value == math.inf


def test_stocks_that_nearly_cancel_large_rewards() -> None:
    """What is left of two millions was rounded in the table but not on the way of the plan, which then got lost."""
    large = F(5999999, 3)
    table: Table = {
        0: {0: [(F(1, 2), 1, -large, False), (F(1, 2), 1, F(0), False)]},
        1: {0: [(F(1), 1, -large, True)], 1: [(F(1), 1, F(2 * 10**6), True)]},
    }
    plan = rdo.optimize(rdo.MDP.from_outcomes(strategies.floats(table), gamma=0.5), rdo.Variance())
    exact = max(-naive.var(nu) for nu in naive.laws(table, F(1, 2), 0, 2))
    assert plan.value == pytest.approx(float(exact), rel=1e-8)


@pytest.mark.parametrize("gamma", [1.0, 0.5, 0.9])
def test_small_weights_of_the_variance(gamma: float) -> None:
    """The best b is half a million away, where the squares hide what the means tell apart."""
    rare = F(1, 10**9)
    table: Table = {
        0: {a: [(1 - rare, 0, F(-1, 10), True), (rare, 0, x, True)] for a, x in ((0, F(-7, 10)), (1, F(3, 10)))}
    }
    plan = rdo.optimize(rdo.MDP.from_outcomes(strategies.floats(table), gamma=gamma), rdo.MeanVariance(1e-6))
    exact = max(naive.mean(nu) - F(1e-6) * naive.var(nu) for nu in naive.laws(table, F(gamma), 0, 1))
    assert plan.value == pytest.approx(float(exact), rel=1e-15)
    assert plan.policy.action(0, plan.stock) == 1


@pytest.mark.parametrize("gamma", [1.0, 0.5, 0.9])
@pytest.mark.parametrize("level", [1e-6, 1 - 1e-9])
def test_extreme_levels(gamma: float, level: float) -> None:
    """At the least level the worst case decides, and at the greatest the mean or the best case."""
    tau = F(level)
    laws = naive.laws(TWO_HILLS, F(gamma).limit_denominator(10), 0, 1)
    mdp = rdo.MDP.from_outcomes(strategies.floats(TWO_HILLS), gamma=gamma)
    for name, case in CASES.items():
        exact = max(case.exact(nu, tau) for nu in laws)
        assert rdo.optimize(mdp, case.make(level)).value == pytest.approx(float(exact), rel=1e-9, abs=1e-9), name
    exact = naive.best_optimistic_cvar(TWO_HILLS, F(gamma), 0, 1, tau)
    assert rdo.optimize(mdp, rdo.OptimisticCVaR(level)).value == pytest.approx(float(exact), rel=1e-9)


@pytest.mark.parametrize("gamma", [1.0, 0.5, 0.9])
@pytest.mark.parametrize("horizon", [1, 3, None])
def test_nothing_is_ever_paid(gamma: float, horizon: int | None) -> None:
    """One state, one action, no reward: every objective is 0, whatever the horizon."""
    mdp = rdo.MDP.from_outcomes({0: {0: [(1.0, 0, 0.0, False)]}}, gamma=gamma)
    for K in [case.make(0.3) for case in CASES.values()] + [rdo.OptimisticCVaR(0.3)]:
        assert_plan(rdo.optimize(mdp, K, horizon=horizon), 0)
    with pytest.raises(rdo.NotOptimizableError, match="needs a policy with a positive mean"):
        rdo.optimize(mdp, rdo.Sharpe(), horizon=horizon)


# --------------------------------------------------------------------------------------------------
# small rewards, and endless problems that no table answers exactly

SPREAD: Table = {
    0: {0: [(F(1, 2), 1, F(1), False), (F(1, 2), 0, F(3), True)], 1: [(F(1), 1, F(1, 2), False)]},
    1: {0: [(F(1, 2), 0, F(1), True), (F(1, 2), 0, F(3), True)], 1: [(F(1), 0, F(5, 2), True)]},
}


@pytest.mark.parametrize("unit", [2.0**-20, 1e-7, 1e-12])
@pytest.mark.parametrize("gamma", [1.0, 0.5])
@pytest.mark.parametrize(
    ("K", "power"),
    [
        (lambda _: rdo.Sharpe(), 0),
        (lambda _: rdo.Variance(), 2),
        (lambda u: rdo.MeanVariance(0.5 / u), 1),
        (lambda _: rdo.CVaR(0.3), 1),
        (lambda _: rdo.MeanCVaR(0.3, 0.5), 1),
        (lambda _: rdo.OptimisticCVaR(0.3), 1),
        (lambda _: rdo.Expectile(0.2), 1),
        (lambda _: rdo.Median(), 1),
    ],
)
def test_small_rewards_are_the_same_problem(
    K: Callable[[float], OuterSearch], power: int, gamma: float, unit: float
) -> None:
    """Every optimum is homogeneous, and so are its bounds; the policy takes the stocks of the problem as given."""

    def plan(u: float) -> rdo.Plan:
        table = {s: {a: [(float(p), t, float(r) * u, e) for p, t, r, e in o] for a, o in acts.items()}
                 for s, acts in SPREAD.items()}  # fmt: skip
        return rdo.optimize(rdo.MDP.from_outcomes(table, gamma=gamma), K(u), horizon=2)

    large, small = plan(1.0), plan(unit)
    scale = unit**power
    assert small.value / scale == pytest.approx(large.value, rel=TINY)
    assert np.array(small.bounds) / scale == pytest.approx(large.bounds, rel=GAP)
    assert small.objective(small.returns) / scale == pytest.approx(large.value, rel=TINY)


def test_messages_about_small_rewards_are_in_their_units() -> None:
    loss = rdo.MDP.from_outcomes({0: {0: [(0.5, 0, -1e-7, True), (0.5, 0, -3e-7, True)]}})
    with pytest.raises(rdo.NotOptimizableError, match="greatest mean is -2e-07"):
        rdo.optimize(loss, rdo.Sharpe())


def endless(gamma: float) -> rdo.MDP:
    """Earn 1/2 or 1 for ever: all returns up to the greatest, each of them for sure."""
    return rdo.MDP.from_outcomes({0: {0: [(1.0, 0, 0.5, False)], 1: [(1.0, 0, 1.0, False)]}}, gamma=gamma)


@pytest.mark.parametrize("gamma", [0.1, 1 / 7])
def test_laws_count_stocks_as_their_tables_do(gamma: float) -> None:
    """Stocks grow by 1/gamma a step, and so does any difference between two ways to round them."""
    assert_plan(rdo.optimize(endless(gamma), rdo.Variance()), 0.0)
    assert_plan(rdo.optimize(endless(gamma), rdo.MeanVariance(0.5)), 1 / (1 - gamma))


def test_searches_with_squares_solve_light_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """With gamma = 1/2 all 2**t stocks of step t differ: memory does not make the table exact, it only takes time."""
    monkeypatch.setattr("rdolib._outer._LIGHT", 2**20)
    plan = rdo.optimize(endless(0.5), rdo.Variance())
    assert plan.bounds[0] <= 0 == plan.bounds[1]
    assert plan.residual < 1e-7 and plan.iterations <= 5  # no more can be known than the table's own error
    assert int(plan.method.split()[1]) < 5000


def test_quantiles_are_read_between_the_points_of_a_scan() -> None:
    plan = rdo.optimize(endless(0.7), rdo.Quantile(0.05), memory=2**23)
    assert plan.method.startswith("certified")
    low, high = plan.bounds
    assert low <= 1 / 0.3 <= high + TINY and plan.value == low
    assert high - low < (high - high / 2) / 4000 / 2  # half a step of the scan


@pytest.mark.parametrize("K", [rdo.Quantile(0.05), rdo.Expectile(0.05)], ids=repr)
def test_a_sure_endless_return(K: OuterSearch) -> None:
    sure = rdo.MDP.from_outcomes({0: {0: [(1.0, 1, 0.0, False)]}, 1: {0: [(1.0, 1, 200.0, False)]}}, gamma=1 / 3)
    assert_plan(rdo.optimize(sure, K), 100.0)


# --------------------------------------------------------------------------------------------------
# refusals

VECTOR = rdo.MDP.from_outcomes({0: {0: [(1.0, 0, (1.0, 2.0), True)]}})
WAIT = rdo.MDP.from_outcomes({0: {0: [(1.0, 0, -1.0, False)], 1: [(1.0, 0, -5.0, True)]}})
LOSS = rdo.MDP.from_outcomes({0: {0: [(0.5, 0, -1.0, True), (0.5, 0, 1.0, True)], 1: [(1.0, 0, -2.0, True)]}})
EVERY = [case.make(0.5) for case in CASES.values()] + [rdo.OptimisticCVaR(0.5), rdo.Sharpe()]


@pytest.mark.parametrize("K", EVERY, ids=repr)
def test_every_search_refuses(K: Any) -> None:
    with pytest.raises(rdo.InvalidArgumentError, match="chooses its own initial stock; leave stock= out"):
        rdo.optimize(LADDER, K, stock=0.0)
    with pytest.raises(rdo.NotOptimizableError, match="defined for scalar returns, and the MDP has reward_dim = 2"):
        rdo.optimize(VECTOR, K)
    with pytest.raises(rdo.InvalidArgumentError, match="state 9 does not exist"):
        rdo.optimize(LADDER, K, state=9)
    with pytest.raises(rdo.InvalidArgumentError, match="horizon must be a positive integer"):
        rdo.optimize(LADDER, K, horizon=0)
    gain = rdo.MDP.from_outcomes({0: {0: [(1.0, 0, 1.0, False)]}})
    with pytest.raises(rdo.NotOptimizableError, match=r"greatest possible return is -?inf; .* pass horizon="):
        rdo.optimize(gain, K)


def test_sharpe_needs_a_gain() -> None:
    with pytest.raises(rdo.NotOptimizableError, match=r"greatest mean is 0.*use rdo\.MeanVariance"):
        rdo.optimize(LOSS, rdo.Sharpe())


def test_variance_needs_a_least_mean() -> None:
    """Waiting costs 1 a step and may go on for ever, so the mean, which is the b that is looked for, has no end."""
    assert rdo.optimize(WAIT, rdo.Variance()).value == 0  # the best mean is sure here, and nothing beats that
    wild = rdo.MDP.from_outcomes({0: {0: [(1.0, 0, -1.0, False)], 1: [(0.5, 0, -5.0, True), (0.5, 0, -1.0, True)]}})
    with pytest.raises(rdo.NotOptimizableError, match="least expected return may be infinite; pass horizon="):
        rdo.optimize(wild, rdo.Variance())
    assert rdo.optimize(wild, rdo.MeanVariance(1.0)).value == pytest.approx(-7.0)  # -3 - 4: it ends at once


@pytest.mark.parametrize(
    ("K", "level", "message"),
    [
        (rdo.Quantile, 1.0, "strictly between 0 and 1; got 1.0"),
        (rdo.Expectile, 0.0, "strictly between 0 and 1; got 0.0"),
        (rdo.OptimisticCVaR, 1.5, r"level must lie in \(0, 1\]; got 1.5"),
        (rdo.MeanVariance, 0.0, "weight of the variance must be a positive number"),
        (lambda w: rdo.MeanCVaR(0.1, w), 2.0, r"weight of the CVaR must lie in \[0, 1\]"),
    ],
)
def test_bad_levels_of_a_frontier(K: Callable[[float], Any], level: float, message: str) -> None:
    with pytest.raises(rdo.InvalidArgumentError, match=message):
        rdo.frontier(LADDER, K, levels=[0.5, level])


def test_an_objective_without_a_search_is_refused() -> None:
    class Skewness(OuterSearch):
        reduction = "there is none"

    with pytest.raises(rdo.NotOptimizableError, match=r"Skewness\(\) has no search of its own; there is none"):
        rdo.optimize(LADDER, Skewness())
