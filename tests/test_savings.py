"""The savings problem: rewards that are changes of a potential, real months, bounds on the discretization error."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rdolib as rdo
from rdolib import _potential, _rungs, _wealth
from rdolib._lattice import WindowTable
from rdolib._potential import PotentialTable, find_potential
from rdolib.savings import MonthlyReturns, Savings, market_returns
from tests import naive
from tests.strategies import floats, tables

FINE = Fraction(1, 2)  # mesh of the potentials drawn

OBJECTIVES: dict[str, tuple[Any, Any]] = {
    "threshold": (rdo.Threshold(), lambda x: Fraction(x >= 0)),
    "shortfall": (rdo.Shortfall(), lambda x: min(x, Fraction(0))),
    "target": (rdo.TargetReturn(), lambda x: -abs(x)),
    "quadratic": (rdo.Quadratic(), lambda x: -x * x),
    "mean": (rdo.Mean(), lambda x: x),
}


@st.composite
def potential_tables(draw: st.DrawFn) -> naive.Table:
    """A table whose outcomes pay the change of a potential where they go on, and anything where they end."""
    table = draw(tables(rewards=(Fraction(0), Fraction(1), Fraction(-3, 2))))
    heights = st.integers(-4, 4).map(lambda n: n * FINE)
    states = {s for rows in table.values() for outs in rows.values() for _, s, _, _ in outs} | set(table)
    phi = {s: draw(heights) for s in sorted(states)}
    return {
        s: {a: [(p, n, r if ended else phi[n] - phi[s], ended) for p, n, r, ended in outs] for a, outs in rows.items()}
        for s, rows in table.items()
    }


def terminal_as_listed(table: naive.Table, mdp: rdo.MDP) -> naive.Table:
    """The table without the states that the library takes for terminal."""
    return {s: rows for s, rows in table.items() if not mdp.terminal[s]}


# --------------------------------------------------------------------------------------------------
# potentials


@settings(max_examples=150, deadline=None)
@given(potential_tables(), st.sampled_from(sorted(OBJECTIVES)), st.integers(1, 3), st.data())
def test_potential_against_exhaustive_search(table: naive.Table, name: str, horizon: int, data: st.DataObject) -> None:
    objective, utility = OBJECTIVES[name]
    mdp = rdo.MDP.from_outcomes(floats(table))
    stocks = data.draw(st.lists(st.sampled_from([Fraction(n, 6) for n in range(-18, 19)]), min_size=1, max_size=4))
    one = solve_by_potential(mdp, objective, [float(c) for c in stocks], horizon)
    listed = terminal_as_listed(table, mdp)
    for state in range(mdp.n_states):
        for stock in stocks:
            best = naive.best_utility(listed, Fraction(1), state, horizon, utility, stock)
            assert one.objective_value(state, float(stock)) == pytest.approx(float(best), abs=1e-12)
            # The policy attains it: the law of its return says so.
            law = one.returns(state, float(stock)) + float(stock)
            assert objective(law) == pytest.approx(float(best), abs=1e-11)


def solve_by_potential(mdp: rdo.MDP, objective: Any, stocks: list[float], horizon: int) -> rdo.Solution:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_rungs, "_ANY_WAY", -1)
        solution = rdo.value_iteration(mdp, objective, stock=stocks, horizon=horizon)
    assert isinstance(solution.policy.table, PotentialTable)
    return solution


@pytest.mark.parametrize(
    "rises",
    [
        [(0, 1, 2.0), (1, 2, -3.0), (0, 2, 0.0)],  # two ways to state 2 that differ
        [(0, 1, 2.0), (1, 0, -1.0)],  # a gaining cycle
        [(0, 0, 1.0)],  # a gaining loop
        [(0, 1, 2.0), (0, 1, 1.0)],  # two rewards for one move
    ],
)
def test_what_is_no_potential(rises: list[tuple[int, int, float]]) -> None:
    table: dict[int, dict[int, Any]] = {s: {9: [(1.0, 2, 0.0, True)]} for s in range(2)}
    for a, (tail, head, rise) in enumerate(rises):
        table[tail][a] = [(1.0, head, rise, False), (0.0, head, 0.0, True)]
    table[2] = {0: [(1.0, 2, 7.0, True)]}
    mdp = rdo.MDP.from_outcomes(table)
    assert find_potential(mdp, 1.0) is None and find_potential(mdp, None) is None


def test_potential_of_a_long_chain_and_of_parts() -> None:
    table = {s: {0: [(0.5, s + 1, 1.5, False), (0.5, s, 5.0, True)]} for s in range(3000) if s != 1500}
    table[1500] = {0: [(1.0, 0, -7.0, True)]}
    table[3000] = {0: [(1.0, 0, 1.0, True)]}
    found = find_potential(rdo.MDP.from_outcomes(table), 0.5)
    assert found is not None and found[1] == 0.5
    phi = found[0]
    # Two parts, since 1500 only ends: up to 1500, and from 1501 on.
    np.testing.assert_array_equal(phi[:1501] - phi[0], 3 * np.arange(1501))
    np.testing.assert_array_equal(phi[1501:] - phi[1501], 3 * np.arange(1500))


def wealth_walk(levels: int, seed: int = 0, initial: Any = 0) -> rdo.MDP:
    """Random moves between levels of wealth, three actions; the reward is the change of wealth."""
    rng = np.random.default_rng(seed)
    table = {}
    for w in range(levels):
        table[w] = {
            a: [(float(p), int(n), float(n - w), False) for p, n in zip(rng.dirichlet(np.ones(4)), nexts, strict=True)]
            for a, nexts in enumerate(np.clip(w + rng.integers(-6, 8, size=(3, 4)), 0, levels - 1))
        }
    return rdo.MDP.from_outcomes(table, initial=initial)


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_potential_equals_lattice(name: str) -> None:
    mdp = wealth_walk(60, initial=20)
    stocks = 20.0 - np.array([5, 25.5, 40, 59])
    solution = solve_by_potential(mdp, OBJECTIVES[name][0], stocks.tolist(), 15)
    problem = solution.policy.table.problem  # type: ignore[attr-defined]
    lattice = WindowTable.exact_lattice(problem, 1.0, np.sort(stocks), 15)
    state, stock = np.repeat(np.arange(60), 4), np.tile(stocks, 60)
    expected = lattice.bounds(state, stock)[0]
    for got in solution.policy.table.bounds(state, stock):
        np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-12)
    # From the same augmented states the actions agree, at any step.
    here = np.array([20, 21, 22])
    for stock in stocks:
        for t in (3, 7, 14):
            mine = solution.policy.actions(here, stock + here - 20.0, t)
            np.testing.assert_array_equal(mine, lattice.action(here, stock + here - 20.0, t))


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_levels_of_wealth_that_are_no_fractions(name: str) -> None:
    # Levels as one would choose them on a logarithmic scale; goals are levels, so that thresholds are met exactly.
    money = [Fraction(float(x)) for x in 1e4 * np.exp(0.37 * np.arange(7))]
    moves = {w: [(Fraction(1, 3), max(w - 1, 0)), (Fraction(2, 3), min(w + 2, 6))] for w in range(7)}
    table: dict[int, Any] = {
        w: {
            0: [(p, n, money[n] - money[w], False) for p, n in moves[w]],
            1: [(Fraction(1), w, Fraction(0), False)],
            2: [(Fraction(1, 2), w, Fraction(1000), True), (Fraction(1, 2), 0, money[0] - money[w], False)],
        }
        for w in range(7)
    }
    objective, utility = OBJECTIVES[name]
    mdp = rdo.MDP.from_outcomes(floats(table))
    stocks = [money[2] - money[g] for g in range(7)]
    solution = solve_by_potential(mdp, objective, [float(c) for c in stocks], 3)
    for state in (0, 2, 5):
        for stock in stocks:
            best = float(naive.best_utility(table, Fraction(1), state, 3, utility, stock))
            assert solution.objective_value(state, float(stock)) == pytest.approx(best, rel=1e-9, abs=1e-6)


def test_the_method_is_chosen_and_says_so() -> None:
    mdp = wealth_walk(150, initial=50)
    solution = rdo.value_iteration(mdp, rdo.Threshold(), stock=50.0 - np.arange(55, 145, 9), horizon=60)
    assert solution.method == "exact: rewards are changes of a potential, 10 stocks at each of 150 states, 60 sweeps"
    assert solution.converged and solution.residual == 0
    # A mean needs no stocks at all.
    assert "no stock matters" in solve_by_potential(mdp, rdo.Mean(), [0.0], 60).method


def test_other_states_are_solved_for_when_asked_and_old_parts_make_room() -> None:
    mdp = wealth_walk(40, initial=np.eye(40)[[10, 30]].mean(axis=0))
    stocks = 10.3 - np.array([12.0, 20.0, 33.0])
    solution = solve_by_potential(mdp, rdo.Quadratic(), stocks.tolist(), 8)
    table: Any = solution.policy.table
    assert (table.part >= 0).sum() == 6 and len(table.distances) == 61  # -61.7, ..., -1.7
    first = [solution.objective_value(s, c) for s in range(40) for c in stocks]
    assert (table.part >= 0).all()
    room = 6 * 40 * (8 + 24)  # for six distances: one part of six, then parts of three
    stocks = np.sort(stocks)
    small = PotentialTable(table.problem, table.potential, table.mesh, True, stocks, 8, room)
    again = small.bounds(np.repeat(np.arange(40), 3), np.tile(stocks, 40))[0].reshape(40, 3)[:, ::-1].ravel()
    assert (small.part >= 0).sum() <= 6
    with pytest.raises(rdo.MemoryLimitError, match="6 stocks at one of 40 states over 8 steps need more than 0 MiB"):
        PotentialTable(table.problem, table.potential, table.mesh, True, stocks, 8, room - 1)
    np.testing.assert_allclose(again, first, rtol=1e-12)
    with pytest.raises(rdo.InvalidArgumentError, match="cannot be reached from the stocks"):
        solution.objective_value(3, 0.123)


def test_a_logarithm_where_some_stocks_have_none() -> None:
    # From the stock 2 and up nothing negative is reached at level 0, from the stock 1 and level 3 it is.
    mdp = wealth_walk(30, initial=0)
    log = rdo.ExpectedUtility(lambda x: np.log1p(x))
    solution = solve_by_potential(mdp, log, [2.0], 5)
    lattice = rdo.value_iteration(mdp, rdo.ExpectedUtility(lambda x: np.log1p(np.maximum(x, -0.5))), 2.0, horizon=5)
    assert solution.objective_value(0, 2.0) == pytest.approx(lattice.objective_value(0, 2.0), rel=1e-12)


def test_endless_problem_cut_after_enough_steps_uses_the_step() -> None:
    # Every path ends at last; the table stands for an endless horizon, and its policy counts steps.
    table = {
        w: {
            a: [(0.25, w, float(-a), True), *((0.375, n, float(n - w), False) for n in ((w + 1 + a) % 9, (w + 8) % 9))]
            for a in range(2)
        }
        for w in range(9)
    }
    mdp = rdo.MDP.from_outcomes(table)
    smooth = rdo.ExpectedUtility(np.tanh, lipschitz=1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_rungs, "_ANY_WAY", -1)
        patch.setattr(_rungs, "close", lambda *_: None)
        plan = rdo.optimize(mdp, smooth)
    assert "potential" in plan.method
    assert smooth(plan.returns) == pytest.approx(plan.value, abs=1e-9)


def test_joining_states_runs_as_plain_python() -> None:
    tail, head = np.array([0, 1, 0, 3]), np.array([1, 2, 2, 4])
    for join in (_potential._join, _potential._join_states):
        parent, above = np.arange(5), np.zeros(5)
        assert join(tail, head, np.array([2.0, 3, 5, 1]), parent, above, 0.0)
        np.testing.assert_array_equal(above - above[0], [0, 2, 5, above[3] - above[0], above[3] - above[0] + 1])
        assert not join(tail, head, np.array([2.0, 3, 4, 1]), np.arange(5), np.zeros(5), 0.0)


# --------------------------------------------------------------------------------------------------
# months


def months(n: int = 12, seed: int = 0) -> MonthlyReturns:
    rng = np.random.default_rng(seed)
    return MonthlyReturns(np.datetime64("2001-01") + np.arange(n), rng.normal(0.02, 0.2, n), rng.uniform(0, 0.01, n))


def test_the_market_of_the_package() -> None:
    returns = market_returns()
    assert (returns.first, returns.last, len(returns)) == ("1926-07", "2018-11", 1109)
    # The first month of the file: market less bills 2.96 percent, bills 0.22 percent. October 1987: -23.24 and 0.60.
    assert returns.market[0] == pytest.approx(0.0318) and returns.cash[0] == pytest.approx(0.0022)
    crash = returns.between("1987-10", "1987-10")
    assert crash.market[0] == pytest.approx(-0.2264) and crash.cash[0] == pytest.approx(0.0060)
    assert len(returns.between("1980-01", "1989-12")) == 120


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"rdolib\[data\]"):
        market_returns()


@pytest.mark.parametrize(
    ("listed", "market", "message"),
    [
        (["1999-01", "1999-02", "1999-05"], [0.1] * 3, "months are missing: 1999-03, 1999-04; fill them in"),
        (["1999-01", "2000-01"], [0.1] * 2, r"1999-02, 1999-03, .*\(11 in all\)"),
        (["1999-02", "1999-01"], [0.1] * 2, "1999-01 does not follow"),
        (["1999-01", "1999-01"], [0.1] * 2, "1999-01 does not follow"),
        (["1999-01", "1999-02"], [0.1, np.nan], "the market return of 1999-02 is not a number above -1"),
        (["1999-01", "1999-02"], [-1.0, 0.1], "the market return of 1999-01"),
        (["1999-01", "1999-02"], [0.1], r"shape \(2,\)"),
        ([], [], "at least one"),
    ],
)
def test_months_that_are_refused(listed: list[str], market: list[float], message: str) -> None:
    with pytest.raises(rdo.InvalidArgumentError, match=message):
        MonthlyReturns(np.array(listed, dtype="datetime64[M]"), market, [0.0] * len(market))


def test_stretches_outside_the_data_are_refused() -> None:
    for ends in (("2000-12", "2001-02"), ("2001-02", "2002-01"), ("2001-05", "2001-04")):
        with pytest.raises(rdo.InvalidArgumentError, match="does not lie in the data, 2001-01 to 2001-12"):
            months().between(*ends)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: MonthlyReturns(["x"], [0.0], [0.0]), 'months must be months such as "1987-10": .*"x"'),
        (lambda: MonthlyReturns(["2001-13"], [0.0], [0.0]), "months must be months"),
        (lambda: MonthlyReturns([["2001-01"], []], [0.0], [0.0]), "months must be months"),
        (lambda: MonthlyReturns(["NaT"], [0.0], [0.0]), "month number 0 is NaT"),
        (lambda: MonthlyReturns(["2001-01", "NaT", "2001-03"], [0.0] * 3, [0.0] * 3), "month number 1 is NaT"),
        (lambda: MonthlyReturns(["2001-01"], ["a"], [0.0]), "market is not an array of numbers"),
        (lambda: MonthlyReturns(["2001-01"], [0.0], ["0.1"]), "cash is not an array of numbers"),
        (lambda: MonthlyReturns(["2001-01"] * 2, [0.0, [1.0]], [0.0] * 2), "market is not an array of numbers"),
        (lambda: months().between("x", "2001-02"), "first and last must be months such as"),
        (lambda: months().between("2001-01", ["2001-02"]), "first and last must be months such as"),
        (lambda: months().between("NaT", "2001-02"), "does not lie in the data"),
    ],
)
def test_what_is_no_month_and_no_return(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(rdo.InvalidArgumentError, match=message):
        call()


@pytest.mark.parametrize("n", [3, 21, 50])
def test_outcomes_keep_means_and_the_variance_of_the_market(n: int) -> None:
    returns = months(100)
    prob, market, cash = returns.outcomes(n)
    assert prob.sum() == pytest.approx(1, abs=1e-15) and len(prob) == n
    assert prob @ market == pytest.approx(returns.market.mean(), rel=1e-12)
    assert prob @ cash == pytest.approx(returns.cash.mean(), rel=1e-12)
    assert prob @ (market - prob @ market) ** 2 == pytest.approx(returns.market.var(), rel=1e-12)
    np.testing.assert_array_equal(returns.outcomes(None)[1], returns.market)


# --------------------------------------------------------------------------------------------------
# the problem


def small(flow: float = 0.7, top: int = 24) -> Savings:
    return Savings.from_returns(months(), top=top, flow=flow, mixes=3, outcomes=4)


def best_exactly(savings: Savings, f: Any, wealth: float, left: int) -> float:
    """Max E f(W) by listing all outcomes, wealth not rounded, no top."""
    if left == 0:
        return float(f(wealth))
    invested = max(wealth + savings.flow, 0.0)
    return max(
        sum(p * best_exactly(savings, f, invested * g, left - 1) for p, g in zip(savings.prob, row, strict=True))
        for row in savings.growth
    )


def exactly(savings: Savings, mixes: Any, f: Any, wealth: float, t: int, horizon: int) -> float:
    """E f(W) under a strategy (horizon, levels), in the same way."""
    if t == horizon:
        return float(f(wealth))
    row = savings.growth[mixes[t, min(int(wealth), savings.top)]]
    invested = max(wealth + savings.flow, 0.0)
    return sum(
        p * exactly(savings, mixes, f, invested * g, t + 1, horizon) for p, g in zip(savings.prob, row, strict=True)
    )


@pytest.mark.parametrize("flow", [0.7, 0.0, -0.9])
@pytest.mark.parametrize("objective", [rdo.Threshold(), rdo.Shortfall()])
def test_bounds_contain_exhaustive_search_and_close(flow: float, objective: rdo.ExpectedUtility) -> None:
    savings, goal, horizon = small(flow), 14.0, 4
    rng = np.random.default_rng(1)
    mixes = rng.integers(0, 3, size=(horizon, savings.top + 1))

    def payoff(w: float) -> Any:
        return objective.utility(np.array(w - goal))

    for wealth in (8.0, 11.5):
        gaps = []
        for fine in (2, 16, 256):
            for strategy, value in (
                (None, best_exactly(savings, payoff, wealth, horizon)),
                (mixes, exactly(savings, mixes, payoff, wealth, 0, horizon)),
            ):
                low, high = savings.bounds(objective, goal, horizon, wealth, strategy, fine)
                assert low - 1e-9 <= value <= high + 1e-9
            gaps.append(high - low)
        assert gaps[-1] < 0.2 * gaps[0] + 1e-12


@pytest.mark.parametrize("flow", [0.7, -0.9])
@pytest.mark.parametrize("objective", [rdo.Threshold(), rdo.Shortfall()])
def test_bounds_with_cells_of_a_level_are_those_of_the_rounded_mdps(
    flow: float, objective: rdo.ExpectedUtility
) -> None:
    savings, goal, horizon = small(flow), 14.0, 7
    level = np.arange(savings.top + 1.0)
    below = rdo.value_iteration(savings.mdp("down"), objective, stock=level - goal, horizon=horizon)
    # A cell does not hold its upper end, so a wealth of just the goal must not count at the end.
    short = 0.5 if objective.indicator else 0.0
    above = rdo.value_iteration(savings.mdp("up"), objective, stock=level - goal - short, horizon=horizon)
    for w in range(savings.top):
        low, high = savings.bounds(objective, goal, horizon, w, fine=1)
        assert low == pytest.approx(below.objective_value(w, w - goal), abs=1e-12)
        # The upper end of the cell is the next level.
        assert high == pytest.approx(above.objective_value(w + 1, w + 1 - goal - short), abs=1e-11)


def test_split_rounding_keeps_the_mean_below_the_top() -> None:
    savings = small(0.7, top=60)
    mdp = savings.mdp(wealth=10)
    assert mdp.initial == 10
    for level in (1, 10, 30):
        for action in range(3):
            listed = mdp.outcomes(level, action)
            assert all(reward == after - level for _, after, reward, _ in listed)
            mean = sum(p * after for p, after, _, _ in listed)
            assert mean == pytest.approx((level + 0.7) * (savings.prob @ savings.growth[action]), rel=1e-12)


def test_ruin_is_an_end() -> None:
    mdp = small(-1.0).mdp("down")
    assert mdp.terminal[0] and all(after == 0 for _, after, _, _ in mdp.outcomes(1, 2))


def test_goals_from_one_solve_and_the_strategies_of_their_plans() -> None:
    savings = Savings.from_returns(months(60), top=150, flow=0.5, mixes=5, outcomes=7)
    wealth, horizon, goals = 40, 36, np.array([60, 80, 110])
    mdp = savings.mdp(wealth=wealth)
    solution = rdo.value_iteration(mdp, rdo.Threshold(), stock=wealth - goals, horizon=horizon)
    assert "potential, 3 stocks" in solution.method
    for goal in goals:
        mixes = savings.strategy(solution.policy, -goal, horizon)
        low, high = savings.bounds(rdo.Threshold(), goal, horizon, wealth, mixes, 32)
        best_low, best_high = savings.bounds(rdo.Threshold(), goal, horizon, wealth, fine=32)
        value = solution.objective_value(wealth, wealth - goal)
        assert low <= best_high and best_low - 0.02 <= value <= best_high + 0.02
        alone = rdo.optimize(mdp, rdo.Threshold(), stock=wealth - goal, horizon=horizon)
        assert alone.value == pytest.approx(value, abs=1e-12)
        np.testing.assert_array_equal(savings.strategy(alone.policy, alone.stock - wealth, horizon), mixes)
        # Months drawn at random, wealth not rounded: the share that reaches the goal lies between the bounds.
        rng = np.random.default_rng(3)
        drawn = rng.choice(len(savings.prob), size=(20_000, horizon), p=savings.prob)
        market, cash = savings.growth[-1][drawn] - 1, savings.growth[0][drawn] - 1
        share = (savings.replay(mixes, market, cash, wealth)[:, -1] >= goal).mean()
        error = 4 * np.sqrt(0.25 / 20_000)
        assert low - error <= share <= high + error


def worth(savings: Savings, mdp: rdo.MDP, mixes: Any, goal: float, wealth: int) -> float:
    """P(level >= goal at the end) when the levels are rounded as in the MDP and the mixes are those of a strategy."""
    value = (np.arange(savings.top + 1) >= goal).astype(float)
    for mix in mixes[::-1]:
        value = np.array(
            [
                value[s] if mdp.terminal[s] else sum(p * value[after] for p, after, _, _ in mdp.outcomes(s, mix[s]))
                for s in range(savings.top + 1)
            ]
        )
    return float(value[wealth])


def test_a_strategy_where_the_policy_knows_few_levels() -> None:
    # One month of half or one and a half. From the level 1 two are out of reach but by the market; from 2 they are kept
    # in cash. The level 3, where 2 cannot be missed in cash, has the stock 1, of which the policy knows nothing.
    returns = MonthlyReturns(["2000-01", "2000-02"], np.array([0.5, -0.5]), np.zeros(2))
    savings = Savings.from_returns(returns, top=3, mixes=2, outcomes=None)
    solution = rdo.value_iteration(savings.mdp(wealth=0), rdo.Threshold(), stock=-2, horizon=1)
    with pytest.raises(rdo.InvalidArgumentError, match="stock 1 at state 3, step 0 cannot be reached"):
        solution.policy.action(3, 1.0)
    np.testing.assert_array_equal(savings.strategy(solution.policy, -2, 1), [[0, 1, 0, 0]])


def test_a_strategy_takes_the_mix_of_the_nearest_level_known() -> None:
    savings = small(0.0, top=12)
    calls: list[int] = []

    class Sparse:
        """A table that knows the levels 2, 7, 8 and 11, in the order of the mixes 1, 2, 0, 1."""

        def action(self, state: Any, stock: Any, t: int) -> Any:
            calls.append(t)
            chosen = np.full(13, -1)
            chosen[[0, 2, 7, 8, 11]] = [0, 1, 2, 0, 1]
            if (chosen[state] < 0).any():
                raise rdo.InvalidArgumentError("unknown")
            return chosen[state].astype(np.int32)

        def side(self, state: Any, stock: Any, t: int) -> Any:
            return np.zeros(len(state), dtype=np.int8)

    policy = rdo.dp.Policy(savings.mdp("down"), Sparse(), 1)  # type: ignore[arg-type]
    assert policy.mdp.terminal[0]  # so its mix serves nobody else, and is not passed on to the level 1
    #         level    0  1  2  3  4  5  6  7  8  9  10 11 12
    expected = [[0, 1, 1, 1, 1, 2, 2, 2, 0, 0, 1, 1, 1]]
    np.testing.assert_array_equal(savings.strategy(policy, -9, 1), expected)


@pytest.mark.parametrize("rounding", ["split", "down", "up"])
@pytest.mark.parametrize("flow", [0.0, 0.7, -0.9])
@pytest.mark.parametrize("wealth", [3, 8])
def test_strategies_of_small_problems_attain_the_optimum(rounding: Any, flow: float, wealth: int) -> None:
    savings, goal = small(flow), 14
    mdp = savings.mdp(rounding, wealth)
    for horizon in (1, 3, 6):
        for stock in ([wealth - goal], np.arange(savings.top + 1) - goal):
            solution = rdo.value_iteration(mdp, rdo.Threshold(), stock=stock, horizon=horizon)
            mixes = savings.strategy(solution.policy, -goal, horizon)
            assert mixes.shape == (horizon, savings.top + 1)
            value = solution.objective_value(wealth, wealth - goal)
            assert worth(savings, mdp, mixes, goal, wealth) == pytest.approx(value, abs=1e-12)


def test_a_plan_that_ends_in_ruin_has_a_strategy() -> None:
    # Withdrawals of 3 a month ruin the level 2 at once: after that no level that lives can occur.
    savings = small(-3.0)
    plan = rdo.optimize(savings.mdp(wealth=2), rdo.Shortfall(), stock=2 - 5, horizon=3)
    assert savings.strategy(plan.policy, -5, 3).shape == (3, 25)


def test_offsets_that_nobody_solved_for_are_refused() -> None:
    savings = small()
    for objective in (rdo.Threshold(), rdo.Shortfall(), rdo.Mean()):
        policy = rdo.value_iteration(savings.mdp(wealth=8), objective, stock=8 - 14, horizon=2).policy
        if not isinstance(objective, type(rdo.Mean())):  # for the mean no stock matters
            for offset in (-14.5, -13.7):
                with pytest.raises(rdo.InvalidArgumentError, match=f"offset {offset}: the policy knows no level"):
                    savings.strategy(policy, offset, 2)
        for call, message in (
            (lambda p: savings.strategy(p, "a", 2), "offset must be a finite number of levels; got 'a'"),
            (lambda p: savings.strategy(p, np.nan, 2), "offset must be a finite number of levels; got nan"),
            (lambda p: savings.strategy(p, -14, 3), "horizon must be at most the policy's, 2; got 3"),
            (lambda p: savings.strategy(p, -14, None), "horizon must be a number of months; got None"),
            (lambda p: small(top=23).strategy(p, -14, 2), "mdp.., with 24 states; got 25 states"),
            (lambda p: savings.strategy(5, -14, 2), "policy must be the policy of a solution or plan; got 5"),
        ):
            with pytest.raises(rdo.InvalidArgumentError, match=message):
                call(policy)


def test_replay_by_hand() -> None:
    savings = Savings.from_returns(months(), top=20, flow=-2.0, mixes=3, outcomes=4)
    market, cash = [[0.5, -0.5], [0.0, -0.25]], [[0.1, 0.0], [0.0, 0.0]]
    # All in the market first, then half: (10 - 2) 1.5 = 12, (12 - 2) 0.75 = 7.5; (10 - 2) 1 = 8, 6 (1 - 1/8) = 5.25.
    glide = np.array([[2], [1]])
    np.testing.assert_allclose(savings.replay(glide, market, cash, 10.0), [[10, 12, 7.5], [10, 8, 5.25]])
    np.testing.assert_allclose(savings.replay(0, market, cash, 1.0)[:, 1:], 0.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Savings.from_returns(months(), top=0), "top must be a positive integer"),
        (lambda: Savings.from_returns(months(), top=9, mixes=1), "mixes must be an integer of at least 2"),
        (lambda: Savings.from_returns(months(), top=9, flow=np.inf), "flow must be a finite number"),
        (lambda: Savings.from_returns(months(), top=9, flow="a"), "flow must be a finite number"),  # type: ignore[arg-type]
        (lambda: Savings.from_returns([0.1], top=9), "returns must be MonthlyReturns, .*; got list"),  # type: ignore[arg-type]
        (
            lambda: Savings.from_returns(months(), top=9, outcomes=13),
            "outcomes must be an integer from 1 to 12, or None",
        ),
        (
            lambda: Savings.from_returns(
                MonthlyReturns(np.datetime64("2001-01") + np.arange(4), [-0.9, -0.9, 0, 9], [0] * 4), 9, outcomes=2
            ),
            "use more outcomes",
        ),
        (lambda: small().mdp("nearest"), 'rounding must be "split", "down" or "up"'),  # type: ignore[arg-type]
        (lambda: small().mdp(wealth=25), "wealth must be a level, an integer from 0 to 24"),
        (lambda: small().bounds(rdo.Threshold(), 25, 3, 5), "a goal of at most the top"),
        (lambda: small().bounds(rdo.Mean(), 5, 3, 5), "must be nondecreasing and constant above the top"),
        (lambda: small().bounds(rdo.TargetReturn(), 5, 3, 5), "must be nondecreasing and constant above the top"),
        (lambda: small().bounds(rdo.Threshold(), 5, 3, 5, fine=0), "fine must be a positive integer"),
        (lambda: small().bounds(rdo.Threshold(), 5, None, 5), "horizon must be a number of months"),  # type: ignore[arg-type]
        (lambda: small().bounds(rdo.Threshold(), 5, 3, 5, np.zeros((2, 25), int)), "must broadcast to"),
        (lambda: small().bounds(rdo.Threshold(), 5, 3, 5, 3), "integers from 0 to 2"),
        (lambda: small().bounds(rdo.Threshold(), 5, 3, 5, 0.5), "integers from 0 to 2"),
        (lambda: small().bounds(rdo.Threshold(), 5, 3, 5, [[1], [1, 2]]), "must broadcast to"),
        (lambda: small().bounds(rdo.Threshold(), 5, 3, -1.0), "wealth must be .* of at least 0; got -1.0"),
        (lambda: small().bounds(rdo.Threshold(), 5, 3, np.nan), "wealth must be a finite number of levels"),
        (lambda: small().bounds(rdo.Threshold(), 5, 3, "a"), "wealth must be a finite number .*; got 'a'"),  # type: ignore[arg-type]
        (lambda: small().bounds(rdo.Threshold(), np.nan, 3, 5), "goal must be a finite number of levels; got nan"),
        (lambda: small().bounds(rdo.Threshold(), "a", 3, 5), "goal must be a finite number"),  # type: ignore[arg-type]
        (lambda: small().replay(0, [[0.0]], [[0.0]], -1), "wealth must be .* of at least 0; got -1"),
        (lambda: small().replay(0, [[0.0]], [[0.0]], np.nan), "wealth must be a finite number"),
        (lambda: small().replay(0, [[0.0, np.nan]], [[0.0, 0.0]], 5), "market return nan in row 0, month 1"),
        (lambda: small().replay(0, [[0.0]], [[np.inf]], 5), "cash return inf in row 0, month 0"),
        (lambda: small().replay(0, [[-1.5]], [[0.0]], 5), "is not a number of at least -1"),
        (lambda: small().replay(0, [["a"]], [[0.0]], 5), "market is not an array of numbers"),
        (lambda: small().replay(0, np.zeros((2, 0)), np.zeros((2, 0)), 5), r"one shape, \(n, horizon\)"),
        (lambda: small().replay(0, np.zeros((2, 3)), np.zeros((2, 2)), 5), r"one shape, \(n, horizon\)"),
    ],
)
def test_refusals(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(rdo.InvalidArgumentError, match=message):
        call()


def test_kernels_of_wealth_run_as_plain_python() -> None:
    rng = np.random.default_rng(2)
    growth, prob = 1 + rng.normal(0, 0.2, size=(2, 3)), np.full(3, 1 / 3)
    value = np.sort(rng.random(9))
    for up in (False, True):
        got, expected = np.empty(9), np.empty(9)
        _wealth.best(growth, prob, 0.5, up, value, got, 0, 9)
        _wealth._best(growth, prob, 0.5, up, value, expected, 0, 9)
        np.testing.assert_allclose(got, expected, rtol=1e-14)
    bounds: list[Any] = []
    for follow in (_wealth.follow, _wealth._follow):
        low, high = np.empty(9), np.empty(9)
        follow(growth, prob, -0.5, np.array([0, 1, 0]), 4, value, value + 0.1, low, high, 0, 9)
        bounds.append((low, high))
    np.testing.assert_allclose(bounds[0], bounds[1], rtol=1e-14)


@pytest.mark.slow
def test_a_hundred_goals_at_full_size() -> None:
    """1000 levels, 360 months, 11 mixes, 21 outcomes, 100 goals; the optimum of a few by induction over the wealth."""
    savings = Savings.from_returns(months(60), top=999, flow=1.0)
    savings = dataclasses.replace(savings, growth=1 + 0.25 * (savings.growth - 1))
    wealth, goals = 100, np.linspace(300, 999, 100).round()
    mdp = savings.mdp("down", wealth=wealth)
    solution = rdo.value_iteration(mdp, rdo.Threshold(), stock=wealth - goals, horizon=360)
    assert "100 stocks at each of 1000 states" in solution.method
    after = np.minimum(np.floor((np.arange(1000) + 1.0)[:, None, None] * savings.growth + 1e-9), 999).astype(int)
    for goal in goals[[10, 60, 99]]:
        value = (np.arange(1000) >= goal).astype(float)
        for _ in range(360):
            value = (value[after] @ savings.prob).max(axis=1)
        assert solution.objective_value(wealth, wealth - goal) == pytest.approx(value[wealth], abs=1e-11)
        assert solution.objective_value(500, 500 - goal) == pytest.approx(value[500], abs=1e-11)
