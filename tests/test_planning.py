"""Solvers, bounds and refusals: what `tests.test_exactness` does not reach.

Expected numbers are derived in comments.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import rdolib as rdo
from rdolib import _graph
from rdolib.stock import (
    Units,
    as_fraction,
    end_components,
    expected_time,
    greatest_common_mesh,
    inverse_discount,
    resting_pairs,
    return_range,
)

#: Action 0 pays 1 and ends; action 1 pays 3 or 0, half each, and ends.
SURE_OR_EVEN = {0: {0: [(1.0, 0, 1.0, True)], 1: [(0.5, 0, 3.0, True), (0.5, 0, 0.0, True)]}}
#: A walk that every policy ends: steps of both signs, stopped with probability 1/4 each time.
WALK = {0: {0: [(0.375, 0, 1.0, False), (0.375, 0, -1.0, False), (0.25, 0, 0.0, True)]}}
ENDLESS = {0: {0: [(0.5, 0, 1.0, False), (0.5, 0, 0.0, False)], 1: [(1.0, 0, 0.3, False)]}}


def sure_or_even(gamma: float = 1.0) -> rdo.MDP:
    return rdo.MDP.from_outcomes(SURE_OR_EVEN, gamma=gamma)


# --------------------------------------------------------------------------------------------------
# refusals

REFUSALS: dict[str, tuple[Callable[[], Any], type[rdo.RdoError], str]] = {
    "level zero": (lambda: rdo.CVaR(0.0), rdo.InvalidArgumentError, r"level must lie in \(0, 1\]; got 0"),
    "level above one": (lambda: rdo.CVaR(1.5), rdo.InvalidArgumentError, r"level must lie in \(0, 1\]; got 1.5"),
    "level nan": (lambda: rdo.CVaR(float("nan")), rdo.InvalidArgumentError, r"level must lie in \(0, 1\]"),
    "beta zero": (lambda: rdo.Exponential(0.0), rdo.InvalidArgumentError, "beta must be a finite number other than 0"),
    "slopes": (lambda: rdo.TwoSlope(np.inf, 1.0), rdo.InvalidArgumentError, "slopes must be finite"),
    "utility no function": (
        lambda: rdo.ExpectedUtility(3.0),  # type: ignore[arg-type]
        rdo.InvalidArgumentError,
        "the utility must be callable",
    ),
    "utility nan": (
        lambda: rdo.optimize(sure_or_even(), rdo.ExpectedUtility(lambda x: x * np.nan), horizon=1),
        rdo.InvalidArgumentError,
        "the utility is NaN at x =",
    ),
    "utility not vectorized": (
        lambda: rdo.optimize(sure_or_even(), rdo.ExpectedUtility(lambda x: 1.0), horizon=1),
        rdo.InvalidArgumentError,
        "it must be vectorized",
    ),
    "horizon zero": (
        lambda: rdo.optimize(sure_or_even(), rdo.Mean(), horizon=0),
        rdo.InvalidArgumentError,
        "horizon must be a positive integer, or None for endless; got 0",
    ),
    "horizon fraction": (
        lambda: rdo.value_iteration(sure_or_even(), rdo.Mean(), horizon=2.5),  # type: ignore[arg-type]
        rdo.InvalidArgumentError,
        "horizon must be a positive integer",
    ),
    "horizon missing": (
        lambda: rdo.optimize(rdo.MDP.from_outcomes(WALK, gamma=0.9), rdo.Exponential(-1.0)),
        rdo.NotOptimizableError,
        "lacks indifference to gamma, .* pass horizon=",
    ),
    "tol": (
        lambda: rdo.optimize(sure_or_even(), rdo.Mean(), tol=0.0),
        rdo.InvalidArgumentError,
        "tol must be a positive number; got 0.0",
    ),
    "tol text": (
        lambda: rdo.optimize(sure_or_even(), rdo.CVaR(0.5), tol="fine"),  # type: ignore[arg-type]
        rdo.InvalidArgumentError,
        "tol must be a positive number; got 'fine'",
    ),
    "memory zero": (
        lambda: rdo.optimize(sure_or_even(), rdo.Mean(), memory=0),
        rdo.InvalidArgumentError,
        "memory must be a positive number; got 0",
    ),
    "stock vector": (
        lambda: rdo.optimize(sure_or_even(), rdo.Mean(), stock=[1.0, 2.0]),  # type: ignore[arg-type]
        rdo.InvalidArgumentError,
        r"stock must be a number; got shape \(2,\)",
    ),
    "stock matrix": (
        lambda: rdo.value_iteration(sure_or_even(), rdo.Mean(), stock=[[1.0, 2.0]]),
        rdo.InvalidArgumentError,
        r"stock must be a number, or an array of several, shape \(n,\); got shape \(1, 2\)",
    ),
    "stock nan": (
        lambda: rdo.optimize(sure_or_even(), rdo.Mean(), stock=float("nan")),
        rdo.InvalidArgumentError,
        "stock must be finite; got nan",
    ),
    "stock with CVaR": (
        lambda: rdo.optimize(sure_or_even(), rdo.CVaR(0.5), stock=1.0),
        rdo.InvalidArgumentError,
        "chooses its own initial stock; leave stock= out",
    ),
    "CVaR in value iteration": (
        lambda: rdo.value_iteration(sure_or_even(), rdo.CVaR(0.5)),
        rdo.NotOptimizableError,
        r"CVaR\(0.5\) lacks indifference to mixtures, .* rdo.optimize",
    ),
    "state": (
        lambda: rdo.optimize(sure_or_even(), rdo.Mean(), state=3),
        rdo.InvalidArgumentError,
        "state 3 does not exist; states are 0 to 0",
    ),
    "state text": (
        lambda: rdo.optimize(sure_or_even(), rdo.CVaR(0.5), state="a"),  # type: ignore[arg-type]
        rdo.InvalidArgumentError,
        "state a does not exist",
    ),
    "state fraction": (
        lambda: rdo.optimize(sure_or_even(), rdo.Mean()).policy.action(0.5, 0.0),  # type: ignore[arg-type]
        rdo.InvalidArgumentError,
        "states must be integers",
    ),
    "stock text": (
        lambda: rdo.optimize(sure_or_even(), rdo.Mean(), stock="much"),  # type: ignore[arg-type]
        rdo.InvalidArgumentError,
        "stock must be a number",
    ),
    "no MDP": (
        lambda: rdo.optimize(SURE_OR_EVEN, rdo.Mean()),  # type: ignore[arg-type]
        rdo.InvalidArgumentError,
        "the first argument must be an rdo.MDP; got dict",
    ),
    "frontier of one objective": (
        lambda: rdo.frontier(sure_or_even(), rdo.CVaR(0.5), levels=[0.5]),  # type: ignore[arg-type]
        rdo.InvalidArgumentError,
        "takes a family of objectives",
    ),
    "one level": (
        lambda: rdo.frontier(sure_or_even(), rdo.CVaR, levels=0.5),  # type: ignore[arg-type]
        rdo.InvalidArgumentError,
        "levels must be several numbers",
    ),
    "vector rewards with CVaR": (
        lambda: rdo.optimize(rdo.MDP.from_outcomes({0: {0: [(1.0, 0, (1.0, 2.0), True)]}}), rdo.CVaR(0.5)),
        rdo.NotOptimizableError,
        "reward_dim = 2",
    ),
    "levels empty": (
        lambda: rdo.frontier(sure_or_even(), rdo.CVaR, levels=[]),
        rdo.InvalidArgumentError,
        "levels is empty",
    ),
    "unknown stock": (
        lambda: rdo.value_iteration(rdo.MDP.from_outcomes(WALK), rdo.Threshold(), horizon=3).objective_value(0, 0.5),
        rdo.InvalidArgumentError,
        "solve again with this stock in stock=",
    ),
    "stock between those of the lattice": (
        lambda: rdo.value_iteration(
            rdo.MDP.from_outcomes(WALK, gamma=0.5), rdo.Threshold(), stock=0.5, horizon=3
        ).objective_value(0, 0.7),
        rdo.InvalidArgumentError,
        "stock 0.7 at state 0, step 0 cannot be reached",
    ),
    "gaining cycle": (
        lambda: rdo.optimize(
            rdo.MDP.from_outcomes({0: {0: [(1.0, 0, 2.0, False)], 1: [(1.0, 0, 0.0, True)]}}), rdo.Mean()
        ),
        rdo.NotOptimizableError,
        r"the states \[0\] can be cycled through for ever, and the outcome 0 -> 0 on that cycle pays 2",
    ),
    "exponential without bound": (
        lambda: rdo.optimize(
            rdo.MDP.from_outcomes({0: {0: [(0.5, 0, -1.0, False), (0.5, 0, -1.0, True)]}}), rdo.Exponential(-1.0)
        ),
        rdo.NotOptimizableError,
        "minus infinity under the policy of the best mean",
    ),
    "curved and unbounded": (
        lambda: rdo.optimize(rdo.MDP.from_outcomes(WALK), rdo.Quadratic()),
        rdo.NotOptimizableError,
        "pass horizon=",
    ),
    "vector rewards": (
        lambda: rdo.optimize(rdo.MDP.from_outcomes({0: {0: [(1.0, 0, (1.0, 2.0), True)]}}), rdo.EssInf()),
        rdo.NotOptimizableError,
        "reward_dim = 2",
    ),
    "lexicographic without horizon": (
        lambda: rdo.optimize(rdo.MDP.from_outcomes(WALK, gamma=0.5), rdo.Lexicographic(rdo.Shortfall(), rdo.Mean())),
        rdo.NotOptimizableError,
        "lacks continuity: .* pass horizon=",
    ),
    "worst case first": (
        lambda: rdo.optimize(sure_or_even(), rdo.Lexicographic(rdo.EssInf(), rdo.Mean()), horizon=2),
        rdo.NotOptimizableError,
        "lacks indifference to mixtures, .* only the last may be of another kind",
    ),
    "no objective among ordered ones": (
        lambda: rdo.Lexicographic(rdo.Mean(), 3),  # type: ignore[arg-type]
        rdo.InvalidArgumentError,
        "takes objectives such as rdo.Mean\\(\\); got 3",
    ),
    "worst case of a path without end": (
        lambda: rdo.optimize(rdo.MDP.from_outcomes(WALK), rdo.EssSup()),
        rdo.NotOptimizableError,
        "some path can go on for ever",
    ),
    "stock of another dimension": (
        lambda: rdo.optimize(
            rdo.MDP.from_outcomes({0: {0: [(1.0, 0, (1.0, 2.0), True)]}}), rdo.Homeostasis(), stock=[1.0, 2.0, 3.0]
        ),
        rdo.InvalidArgumentError,
        r"stock must be a vector of 2 numbers, like a reward; got shape \(3,\)",
    ),
    "exponential of vectors": (
        lambda: rdo.optimize(rdo.MDP.from_outcomes({0: {0: [(1.0, 0, (1.0, 2.0), True)]}}), rdo.Exponential(1.0)),
        rdo.InvalidArgumentError,
        "say how the components are to be weighed",
    ),
    "memory": (
        lambda: rdo.optimize(rdo.MDP.garnet(200, 2, 2, gamma=0.95), rdo.Shortfall(), memory=10_000),
        rdo.MemoryLimitError,
        "raise memory=",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_say_what_to_do(case: str) -> None:
    action, error, text = REFUSALS[case]
    with pytest.raises(error, match=text):
        action()


# --------------------------------------------------------------------------------------------------
# exact rungs


def test_units_keep_tenths_exact() -> None:
    """0.1 + 0.2 - 0.3 is 0 in mesh units, on the lattice and off it."""
    table = {0: {0: [(1.0, 1, 0.1, False)]}, 1: {0: [(1.0, 2, 0.2, False)]}, 2: {0: [(1.0, 0, -0.3, True)]}}
    for gamma in (1.0, 1.0 - 1e-3):
        mdp = rdo.MDP.from_outcomes(table, gamma=gamma)
        units = Units.of(mdp, np.zeros(1))
        key = units.key(np.zeros(1))
        for reward in (0.1, 0.2, -0.3):
            step = reward / units.mesh
            key = units.step(key, np.array([np.rint(step) if units.exact else step])) * (1 if gamma == 1 else gamma)
        assert units.exact == (gamma == 1)
        if gamma == 1:
            assert key[0] == 0
    assert rdo.optimize(rdo.MDP.from_outcomes(table), rdo.Threshold()).value == 1.0


def test_fractions_and_discounts_are_recognized() -> None:
    assert as_fraction(1 / 3) is not None
    assert as_fraction(np.pi) is None
    assert greatest_common_mesh(np.array([0.1, 0.25, -3.0])) == as_fraction(0.05)
    assert [inverse_discount(g) for g in (1.0, 0.5, 1 / 3, 0.9)] == [1, 2, 3, None]


def test_exact_values_by_hand() -> None:
    """Action 1 is worth (c+3)+ and c+ halves, and so on; see the table at the top."""
    solution = rdo.value_iteration(sure_or_even(), rdo.Shortfall(), stock=[-2.0, -1.0, 0.5])
    # c = -2: action 0 gives -1, action 1 gives (0 - 2)/2 = -1: a tie, broken by the lowest index.
    assert solution.objective_value(0, -2.0) == -1.0
    assert solution.policy.action(0, -2.0) == 0
    assert solution.objective_value(0, -1.0) == 0.0
    assert solution.objective_value(0, 0.5) == 0.0
    assert solution.converged
    assert solution.residual == 0.0


@pytest.mark.parametrize("gamma", [1.0, 0.5, 0.9])
def test_horizon_and_rungs_agree(gamma: float) -> None:
    """A terminating problem solved with a long horizon and without one has the same value."""
    mdp = rdo.MDP.garnet(6, 2, 2, seed=3, gamma=gamma, rewards=[-2, -1], terminal_probability=0.5)
    for objective in (rdo.Mean(), rdo.Threshold(), rdo.TargetReturn(), rdo.Shortfall()):
        endless = rdo.optimize(mdp, objective, stock=4.0)
        long = rdo.optimize(mdp, objective, stock=4.0, horizon=60)
        slack = 1e-9 + (endless.bounds[1] - endless.bounds[0]) + (long.bounds[1] - long.bounds[0])
        assert abs(endless.value - long.value) <= slack


def test_walk_that_every_policy_ends() -> None:
    """One action, so the law is a geometric random walk: P(G >= 0) = (1 + P(G = 0)) / 2 by symmetry.

    P(G = 0) = 1/4 sum_n (3/4)^(2n) C(2n, n) / 4^n = (1/4) / sqrt(1 - 9/16).
    """
    mdp = rdo.MDP.from_outcomes(WALK)
    plan = rdo.optimize(mdp, rdo.Threshold())
    at_zero = 0.25 / np.sqrt(1 - 9 / 16)
    assert plan.value == pytest.approx((1 + at_zero) / 2, abs=1e-11)
    assert plan.bounds[0] <= (1 + at_zero) / 2 <= plan.bounds[1] + 1e-15
    assert rdo.Threshold()(plan.returns) == pytest.approx(plan.value, abs=1e-11)
    cvar = rdo.optimize(mdp, rdo.CVaR(0.25))
    assert cvar.value == pytest.approx(plan.returns.cvar(0.25), abs=1e-10)


def test_return_range_and_end_components() -> None:
    mdp = rdo.MDP.from_outcomes(
        {
            0: {0: [(0.5, 1, -1.0, False), (0.5, 2, 5.0, True)]},
            1: {0: [(1.0, 0, -2.0, False)], 1: [(1.0, 1, 0.0, False)]},
            2: {0: [(1.0, 2, 0.0, True)]},
        }
    )
    # Best from 0: end at once with 5. Worst: go round for ever.
    assert return_range(mdp, 1.0).tolist() == [5.0, 3.0, 0.0]
    assert (-return_range(mdp, -1.0)).tolist() == [-np.inf, -np.inf, 0.0]
    assert (end_components(mdp) >= 0).tolist() == [False, True, False]
    assert resting_pairs(mdp).tolist() == [False, False, True]
    # Without the resting action every policy ends: T(0) = 1 + T(1)/2, T(1) = 1 + T(0) gives 3 and 4.
    proper = rdo.MDP.from_outcomes(
        {0: {0: [(0.5, 1, -1.0, False), (0.5, 1, 5.0, True)]}, 1: {0: [(1.0, 0, -2.0, False)]}}
    )
    assert expected_time(proper).tolist() == pytest.approx([3.0, 4.0])


def test_graph_with_ties_makes_progress() -> None:
    """Two nodes that can circle at no cost or leave with worth 1: the policy leaves."""
    graph = _graph.Graph(
        pair_ptr=np.array([0, 1, 3]),
        base=np.array([0.0, 0.0, 1.0]),
        leaks=np.array([False, False, True]),
        edge_ptr=np.array([0, 1, 2, 2]),
        edge_to=np.array([1, 0], dtype=np.int32),
        edge_weight=np.array([1.0, 1.0]),
        stop=np.array([-np.inf, 0.0]),
    )
    value, choice = _graph.solve(graph, discounted=False)
    assert value.tolist() == [1.0, 1.0]
    assert choice.tolist() == [0, 1]


# --------------------------------------------------------------------------------------------------
# certified rungs


@pytest.mark.theory("8.3")
@pytest.mark.parametrize(
    "objective",
    [rdo.Threshold(), rdo.Shortfall(), rdo.TargetReturn(), rdo.TwoSlope(0.5, 2.0), rdo.TwoSlope(2.0, -1.0)],
    ids=repr,
)
def test_grid_bounds_contain_the_truth(objective: rdo.Objective) -> None:
    """Discount 0.8 without a horizon. The truth lies between two cut problems with the rest at its worst and best.

    Rewards are 0.3 or in {0, 1}, so after t steps the rest of the return is between 0 and 0.8**t / 0.2.
    """
    mdp = rdo.MDP.from_outcomes(ENDLESS, gamma=0.8)
    stock = -2.0
    plan = rdo.optimize(mdp, objective, stock=stock, memory=2**21)
    assert plan.method.startswith("certified")
    steps, rest = 14, 0.8**14 / 0.2
    assert isinstance(objective, rdo.ExpectedUtility)
    low, high = _bracket(objective, stock, steps, rest)
    assert low - 1e-12 <= plan.bounds[1]
    assert plan.bounds[0] <= high + 1e-12
    assert plan.bounds[0] <= plan.bounds[1]
    tight = rdo.optimize(mdp, objective, stock=stock, tol=0.2, memory=2**21)
    assert tight.converged
    assert tight.bounds[1] - tight.bounds[0] <= 0.2


def _bracket(objective: rdo.ExpectedUtility, stock: float, steps: int, rest: float) -> tuple[float, float]:
    """Backward over the sums of `ENDLESS`: x is the return so far in the money of step 0."""
    grid: list[dict[float, None]] = [{0.0: None}]
    for t in range(steps):
        grid.append({round(x + 0.8**t * r, 12): None for x in grid[-1] for r in (0.0, 1.0, 0.3)})
        if len(grid[-1]) > 2_000:
            steps, rest = t + 1, 0.8 ** (t + 1) / 0.2
            break
    x = np.array(sorted(grid[steps]))
    low, high = objective.range_on(stock + x, stock + x + rest)
    for t in reversed(range(steps)):
        here = np.array(sorted(grid[t]))

        def at(values: np.ndarray, add: float, x: np.ndarray = x, here: np.ndarray = here) -> np.ndarray:
            index = np.clip(np.searchsorted(x, here + add), 1, len(x) - 1)
            index -= np.abs(x[index - 1] - here - add) < np.abs(x[index] - here - add)
            return np.asarray(values[index])

        low, high = (np.maximum(0.5 * at(v, 0.8**t) + 0.5 * at(v, 0.0), at(v, 0.8**t * 0.3)) for v in (low, high))
        x = here
    return float(low[0]), float(high[0])


def test_certified_window_contains_the_exact_value() -> None:
    """The same problem on the exact rung and, for want of memory, on the certified one."""
    mdp = rdo.MDP.garnet(4, 2, 3, seed=5, gamma=0.9, rewards=[-1.0, 0.5, 2.0])
    for objective in (rdo.Shortfall(), rdo.Exponential(-0.5), rdo.Quadratic(), rdo.TargetReturn()):
        exact = rdo.optimize(mdp, objective, horizon=6, stock=-3.0)
        rough = rdo.optimize(mdp, objective, horizon=6, stock=-3.0, memory=150_000, tol=1e-6)
        assert exact.method.startswith("exact")
        assert rough.method.startswith("certified")
        assert rough.bounds[0] - 1e-12 <= exact.value <= rough.bounds[1] + 1e-12
        assert not rough.converged


@pytest.mark.theory("8.3")
def test_certified_policy_attains_its_bound() -> None:
    """The policy of the lower table, fed the true stock, is worth at least the lower bound (three standard errors)."""
    mdp = rdo.MDP.garnet(5, 2, 3, seed=2, gamma=0.9)
    plan = rdo.optimize(mdp, rdo.Shortfall(), stock=1.0, tol=0.02)
    assert plan.method.startswith("certified")
    worth = np.minimum(plan.stock + rdo.rollout(mdp, plan, episodes=20_000, seed=1).returns, 0.0)
    assert worth.mean() >= plan.bounds[0] - 3 * worth.std() / np.sqrt(len(worth))
    assert rdo.Shortfall()(plan.returns + plan.stock) >= plan.bounds[0] - plan.returns.w1_error


# --------------------------------------------------------------------------------------------------
# plans


def test_frontier_equals_single_plans() -> None:
    mdp = rdo.MDP.from_gymnasium("CliffWalking-v1", is_slippery=True)
    levels = [1.0, 0.05, 0.3]
    front = rdo.frontier(mdp, rdo.CVaR, levels=levels)
    assert front.levels == (1.0, 0.05, 0.3)
    for level, plan in zip(levels, front.plans, strict=True):
        alone = rdo.optimize(mdp, rdo.CVaR(level))
        assert plan.value == pytest.approx(alone.value, rel=1e-12)
        assert plan.returns.cvar(level) == pytest.approx(plan.value, rel=1e-9)
    assert front.plans[0].value == pytest.approx(rdo.optimize(mdp, rdo.Mean()).value, rel=1e-12)


def test_other_families_have_frontiers_too() -> None:
    front = rdo.frontier(sure_or_even(), lambda price: rdo.TwoSlope(price, 1.0), levels=[1.0, 4.0])
    assert front.values.tolist() == [1.5, 1.5]  # returns are never negative, so the price of a shortfall is not paid


def test_random_start_uses_one_stock() -> None:
    """From two states at once: returns 1 or 5 surely, so CVaR at one half is 1 and at one 3."""
    table = {0: {0: [(1.0, 2, 1.0, True)]}, 1: {0: [(1.0, 2, 5.0, True)]}}
    mdp = rdo.MDP.from_outcomes(table, initial=[0.5, 0.5, 0.0])
    assert rdo.optimize(mdp, rdo.CVaR(0.5)).value == pytest.approx(1.0)
    assert rdo.optimize(mdp, rdo.CVaR(1.0)).value == pytest.approx(3.0)
    assert rdo.optimize(mdp, rdo.CVaR(0.5), state=1).value == pytest.approx(5.0)


def test_cvar_search_is_not_fooled_by_two_hills() -> None:
    """A pays 1; B pays -2 with probability 1/4, else 5. At level 1/2, g(1) = 1, g(2) = 0, g(5) = 3/2."""
    table = {0: {0: [(1.0, 0, 1.0, True)], 1: [(0.25, 0, -2.0, True), (0.75, 0, 5.0, True)]}}
    for gamma in (1.0, 0.5, 0.9):
        plan = rdo.optimize(rdo.MDP.from_outcomes(table, gamma=gamma), rdo.CVaR(0.5))
        assert plan.value == pytest.approx(1.5, abs=1e-12)
        assert plan.bounds[1] == pytest.approx(1.5, abs=1e-9)
        assert plan.policy.action(0, plan.stock) == 1


def test_cvar_on_the_certified_rung() -> None:
    """Many reachable stocks: the bounds hold the CVaR of the plan's own simulated law, and the optimum of the mean."""
    mdp = rdo.MDP.garnet(6, 2, 3, seed=4, gamma=0.95)
    for horizon in (12, None):
        plan = rdo.optimize(mdp, rdo.CVaR(0.3), horizon=horizon, memory=2**24)
        assert plan.method.startswith("certified")
        worst = np.sort(rdo.rollout(mdp, plan, episodes=20_000, seed=3).returns)[:6000]
        assert plan.bounds[0] - 6 * worst.std() / np.sqrt(6000) <= worst.mean() <= plan.bounds[1] + 0.1
        assert plan.bounds[1] <= rdo.optimize(mdp, rdo.Mean(), horizon=horizon).value + plan.residual


def test_steps_beyond_the_horizon_are_refused() -> None:
    plan = rdo.optimize(rdo.MDP.from_outcomes(WALK), rdo.Threshold(), horizon=3)
    with pytest.raises(rdo.InvalidArgumentError, match="less than the horizon, 3; got 3"):
        plan.policy.action(0, 0.0, 3)


def test_unbounded_returns_scan_from_high_enough() -> None:
    """Geometric gains: P(G = n) = (1/3)(2/3)^n, so more than a third of the law is 0 and CVaR is 0 up to level 1/3."""
    mdp = rdo.MDP.from_outcomes({0: {0: [(2 / 3, 0, 1.0, False), (1 / 3, 0, 0.0, True)]}})
    front = rdo.frontier(mdp, rdo.CVaR, [0.05, 0.2, 0.5, 1.0])
    # At level 1/2: mean of the worst half is (0 * 1/3 + 1 * (1/2 - 1/3)) / (1/2) = 1/3. The mean is 2.
    assert front.values == pytest.approx([0.0, 0.0, 1 / 3, 2.0], abs=1e-9)
    for level, value in zip(front.levels, front.values, strict=True):
        assert rdo.optimize(mdp, rdo.CVaR(level)).value == pytest.approx(value, abs=1e-9)


@pytest.mark.filterwarnings("error")
def test_return_that_never_ends_has_no_law() -> None:
    plan = rdo.optimize(rdo.MDP.from_outcomes({0: {0: [(1.0, 0, 1.0, False)]}}), rdo.Threshold(), stock=-4.0)
    assert plan.value == 1.0
    with pytest.raises(rdo.NotOptimizableError, match="goes on for ever"):
        _ = plan.returns


def test_wide_rewards_do_not_start_with_a_cell_per_mesh() -> None:
    """Rewards of a million and of a tenth, discount 1/3: at level 1 the zoom must find the mean."""
    table = {0: {0: [(0.75, 0, 1e6, False), (0.25, 0, -0.1, False)], 1: [(1.0, 0, 1e6, False)]}}
    mdp = rdo.MDP.from_outcomes(table, gamma=1 / 3)
    assert rdo.optimize(mdp, rdo.CVaR(0.5), horizon=2).value == pytest.approx(4e6 / 3, rel=1e-9)


def test_long_horizons_are_refused_before_they_allocate() -> None:
    for objective in (rdo.Threshold(), rdo.CVaR(0.5)):
        with pytest.raises(rdo.MemoryLimitError, match="shorten the horizon"):
            rdo.optimize(rdo.MDP.from_outcomes(WALK), objective, horizon=10**9)


def test_curved_utilities_while_the_stock_only_falls() -> None:
    """Ends half of the time: G = -T, T geometric, E T = 2, E T**2 = 6, E x**T = (x/2) / (1 - x/2)."""
    mdp = rdo.MDP.from_outcomes({0: {0: [(0.5, 0, -1.0, False), (0.5, 0, -1.0, True)]}})
    plan = rdo.optimize(mdp, rdo.Quadratic(), stock=2.0)
    assert plan.value == pytest.approx(-2.0, rel=1e-12)  # -(4 - 2 * 2 * 2 + 6)
    assert plan.bounds[1] == pytest.approx(-2.0, rel=1e-11)
    assert rdo.Quadratic()(plan.returns + 2.0) == pytest.approx(-2.0, rel=1e-9)
    for beta in (0.3, -0.3):
        x = np.exp(-beta)
        exact = ((x / 2) / (1 - x / 2) - 1) / beta
        assert rdo.optimize(mdp, rdo.Exponential(beta)).value == pytest.approx(exact, rel=1e-11)


@pytest.mark.parametrize("objective", [rdo.Quadratic(), rdo.Exponential(-0.2), rdo.Exponential(0.2)], ids=repr)
def test_falling_stock_agrees_with_a_long_horizon(objective: rdo.Objective) -> None:
    """Every step ends with probability at least 1/2: after 60 steps nothing is left but 2**-60."""
    mdp = rdo.MDP.from_outcomes(
        {
            0: {0: [(0.5, 1, -1.0, False), (0.5, 1, -3.0, True)], 1: [(0.2, 0, -4.0, False), (0.8, 0, 1.0, True)]},
            1: {0: [(0.4, 0, -2.0, False), (0.6, 0, 0.0, True)], 1: [(1.0, 0, -1.5, True)]},
        }
    )
    for stock in (0.0, 3.25):
        endless = rdo.value_iteration(mdp, objective, stock=stock)
        for state in (0, 1):
            truth = rdo.optimize(mdp, objective, stock=stock, state=state, horizon=60).value
            low, high = endless.bounds(state, stock)
            assert low == pytest.approx(truth, rel=1e-11, abs=1e-11)
            assert high == pytest.approx(truth, rel=1e-11, abs=1e-11)


def test_zoom_follows_cells_for_many_steps() -> None:
    """Discount 0.99: a narrow cell takes hundreds of steps to widen. The plan's own law is the second witness."""
    plan = rdo.optimize(rdo.MDP.from_gymnasium("FrozenLake-v1", gamma=0.99), rdo.CVaR(0.2))
    assert plan.returns.cvar(0.2) == pytest.approx(plan.value, rel=1e-9)
    assert plan.residual <= 1e-9 * plan.value


def test_a_state_that_pays_for_ever_has_a_return_of_minus_infinity() -> None:
    mdp = rdo.MDP.from_outcomes({0: {0: [(1.0, 0, -2.0, False)]}})
    values = {K: rdo.value_iteration(mdp, K).objective_value(0, 0.0) for K in (rdo.Mean(), rdo.Shortfall())}
    assert set(values.values()) == {-math.inf}
    assert rdo.value_iteration(mdp, rdo.Threshold()).objective_value(0, 0.0) == 0.0
    with pytest.raises(rdo.NotOptimizableError, match="no policy has a return"):
        rdo.optimize(mdp, rdo.Shortfall())


@pytest.mark.parametrize("denominator", [1, 7, 97, 123_457, 999_983])
@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e3, 1e8])
@pytest.mark.parametrize("gamma", [1.0, 0.5, 1 / 3, 0.9])
def test_one_step_at_any_scale(denominator: int, scale: float, gamma: float) -> None:
    """Rewards that are fractions, or none: what has to be counted together must have a mesh in common."""
    rng = np.random.default_rng([denominator, int(1e6 * scale), round(100 * gamma)])
    for _ in range(4):
        odd = rng.choice([0.0, scale], size=5) * rng.random(5)
        *rewards, stock = (rng.integers(-50, 50, size=5) * scale / denominator + odd).tolist()
        a, b = (
            [(0.5, 0, rewards[0], True), (0.5, 0, rewards[1], True)],
            [(0.25, 0, rewards[2], True), (0.75, 0, rewards[3], True)],
        )
        mdp = rdo.MDP.from_outcomes({0: {0: a, 1: b}}, gamma=gamma)
        for K in (rdo.Surplus(), rdo.TargetReturn()):
            best = max(
                sum(p * float(K.utility(np.array([stock + r]))[0]) for p, _, r, _ in action) for action in (a, b)
            )
            value = rdo.value_iteration(mdp, K, stock=stock, horizon=1).objective_value(0, stock)
            assert value == pytest.approx(best, abs=1e-9 * max(map(abs, [stock, *rewards])) + 1e-15)


def test_rewards_that_no_mesh_counts_together_are_not_called_exact() -> None:
    gamble = [(0.5, 0, 3 + 1 / 999983, True), (0.5, 0, -3 - 1 / 999979, True)]
    mdp = rdo.MDP.from_outcomes({0: {0: gamble, 1: [(1.0, 0, 1 / 999961, True)]}}, gamma=0.5)
    value = rdo.value_iteration(mdp, rdo.Surplus(), stock=-2.0, horizon=1).objective_value(0, -2.0)
    assert value == pytest.approx((1 + 1 / 999983) / 2, abs=1e-12)


@pytest.mark.parametrize("scale", [1e3, 1e5, 1e6])
@pytest.mark.parametrize("decimals", [1, 2, 3])
def test_sums_of_large_decimals_meet_their_own_threshold(scale: float, decimals: int) -> None:
    rng = np.random.default_rng(decimals)
    for a, b in np.round(scale * rng.random((12, 2)), decimals).tolist():
        mdp = rdo.MDP.from_outcomes({0: {0: [(1.0, 1, a, False)]}, 1: {0: [(1.0, 0, b, True)]}})
        total = round(a + b, decimals)
        value = rdo.value_iteration(mdp, rdo.Threshold(), stock=-total, horizon=2).objective_value(0, -total)
        assert value == 1.0
        assert rdo.optimize(mdp, rdo.Median(), horizon=2).value == pytest.approx(total, rel=1e-12)


def test_stocks_carried_by_hand_are_known() -> None:
    """Each division by gamma multiplies the rounding of what was added."""
    loop = {0: {0: [(0.5, 1, 2.0, False), (0.5, 0, 2.0, False)], 1: [(1.0, 0, 2.0, False)]}}
    table = {**loop, 1: {0: [(1.0, 0, 0.0, False)], 1: [(0.75, 1, 0.0, False), (0.25, 0, 2.0, False)]}}
    mdp = rdo.MDP.from_outcomes(table, gamma=1 / 3, initial=1)
    plan = rdo.optimize(mdp, rdo.CVaR(0.05))
    rng = np.random.default_rng(0)
    for _ in range(20):
        state, stock = 1, plan.stock
        for t in range(60):
            outcomes = table[state][plan.policy.action(state, stock, t)]
            _, state, reward, _ = outcomes[rng.choice(len(outcomes), p=[p for p, *_ in outcomes])]
            stock = (stock + reward) / mdp.gamma


def test_a_potential_of_floats_is_not_counted_in_whole_numbers() -> None:
    stock = 0.8510999631616176
    walk = {0: {0: [(1.0, 1, -stock, False)]}, 2: {0: [(1.0, 2, 0.0, True)]}}
    walk |= {1: {0: [(0.5, 2, -0.30001512364818494, False), (0.5, 1, 0.0, False)]}}
    plan = rdo.optimize(rdo.MDP.from_outcomes(walk), rdo.Quadratic(), stock=stock, horizon=2)
    assert rdo.Quadratic()(plan.returns + stock) == pytest.approx(plan.value, abs=1e-12)


@pytest.mark.parametrize("memory", ["a", None, math.nan, math.inf, -1, True, [1]])
@pytest.mark.parametrize("horizon", [None, 2])
def test_a_memory_that_is_no_number_of_bytes(memory: Any, horizon: int | None) -> None:
    mdp, rest = sure_or_even(), {"horizon": horizon, "memory": memory}
    calls: list[Callable[[], Any]] = [
        lambda: rdo.optimize(mdp, rdo.Mean(), **rest),
        lambda: rdo.optimize(mdp, rdo.CVaR(0.5), **rest),
        lambda: rdo.frontier(mdp, rdo.Quantile, [0.5], **rest),
        lambda: rdo.frontier(mdp, rdo.TwoSlope, [0.5], **rest),
        lambda: rdo.value_iteration(mdp, rdo.Threshold(), **rest),
        lambda: rdo.value_iteration(mdp, rdo.Threshold(), representation=rdo.Exact(), **rest),
        lambda: rdo.policy_iteration(mdp, rdo.Threshold(), **rest),
        lambda: rdo.shaped_rewards(mdp, rdo.Surplus(), **rest),
    ]
    for call in calls:
        with pytest.raises(rdo.InvalidArgumentError, match="memory must be a positive number; got"):
            call()


def test_a_tolerance_is_checked_with_a_representation_too() -> None:
    with pytest.raises(rdo.InvalidArgumentError, match="tol must be a positive number; got 'fine'"):
        rdo.value_iteration(sure_or_even(), rdo.Threshold(), horizon=2, representation=rdo.Exact(), tol="fine")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (["a"], "each of levels must be a number, such as 0.05; got 'a'"),
        (["0.5"], "each of levels must be a number"),
        ([None], "each of levels must be a number, such as 0.05; got None"),
        ([0.5, True], "each of levels must be a number, such as 0.05; got True"),
        ([0.5, 1j], "each of levels must be a number"),
        ([[0.1, 0.2]], r"each of levels must be a number, such as 0.05; got \[0.1, 0.2\]"),
        (np.ones((2, 2)), "each of levels must be a number"),
        ("abc", "each of levels must be a number, such as 0.05; got 'a'"),
        (np.array(0.5), "levels must be several numbers"),
        (0.5, "levels must be several numbers, such as .*; got 0.5"),
        (iter([]), "levels is empty"),
    ],
)
def test_levels_that_are_no_numbers(levels: Any, message: str) -> None:
    with pytest.raises(rdo.InvalidArgumentError, match=message):
        rdo.frontier(sure_or_even(), rdo.CVaR, levels)


def test_levels_of_any_kind_of_number() -> None:
    front = rdo.frontier(sure_or_even(), rdo.CVaR, (x for x in [np.float32(0.5), 1, np.int64(1)]))
    assert front.levels == (0.5, 1.0, 1.0) and front.values == pytest.approx([1.0, 1.5, 1.5])
