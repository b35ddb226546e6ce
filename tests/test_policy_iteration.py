"""Policy iteration: the optimum by another road, monotone everywhere, never behind value iteration."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from fractions import Fraction as F
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import rdolib as rdo
from rdolib import bounds
from rdolib._graph import Graph, evaluate, ways_out
from tests import naive, strategies
from tests.naive import Table
from tests.test_exactness import CASES, Case, leaves

modest = settings(
    deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
STOCKS = (F(-3, 2), F(0), F(1, 3))
NUMBERS = np.array([float(c) for c in STOCKS])
TINY = 1e-12


@st.composite
def problems(draw: st.DrawFn, max_leaves: int = 300) -> tuple[Table, F, int]:
    """Return a table, a discount and a horizon for which listing all histories is affordable."""
    table = draw(strategies.tables(max_outcomes=3))
    horizon = draw(strategies.mostly_large(1, 4))
    assume(leaves(table, horizon) <= max_leaves)
    return table, draw(st.sampled_from((F(1), F(1, 2), F(9, 10)))), horizon


def library(table: Table, gamma: F) -> rdo.MDP:
    return rdo.MDP.from_outcomes(strategies.floats(table), gamma=float(gamma), initial=0)


def close(value: float, exact: Any) -> bool:
    return abs(value - float(exact)) <= TINY * max(1.0, abs(float(exact)))


def stopped(*args: Any, **options: Any) -> rdo.Solution:
    """Policy iteration that may stop early without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return rdo.policy_iteration(*args, **options)


def every_k(mdp: rdo.MDP, objective: Any, **options: Any) -> list[rdo.Solution]:
    """The policies after 0, 1, 2, ... improvements, up to the last."""
    solutions = [stopped(mdp, objective, max_iter=0, **options)]
    while not solutions[-1].converged:
        solutions.append(stopped(mdp, objective, max_iter=len(solutions), **options))
    return solutions


def all_values(solution: rdo.Solution) -> np.ndarray:
    """Values at every augmented state: the nodes of all steps, and the means where the stock matters no more."""
    table: Any = solution.policy.table
    table = getattr(table, "table", table)
    means = [] if table.problem.saturation is None else [
        getattr(table.problem.saturation, name).ravel() for name in ("low_mean", "high_mean")
        if hasattr(table.problem.saturation, name)
    ]  # fmt: skip
    return np.concatenate([*table.values, *means])


# --------------------------------------------------------------------------------------------------
# the optimum


@pytest.mark.theory("4.3")
@settings(modest, max_examples=200)
@given(problems(), st.sampled_from(CASES))
def test_equals_value_iteration_within_a_horizon(problem: tuple[Table, F, int], case: Case) -> None:
    table, gamma, horizon = problem
    mdp = library(table, gamma)
    swept = rdo.value_iteration(mdp, case.objective, stock=NUMBERS, horizon=horizon)
    improved = rdo.policy_iteration(mdp, case.objective, stock=NUMBERS, horizon=horizon)
    assert improved.converged
    assert improved.iterations <= horizon
    for state in table:
        for stock in STOCKS:
            exact = naive.best_utility(table, gamma, state, horizon, case.f, stock)
            low, high = improved.bounds(state, float(stock))
            assert low == high
            assert close(low, exact)
            assert close(low, swept.objective_value(state, float(stock)))


@settings(modest, max_examples=200)
@given(strategies.tables(max_outcomes=3), st.sampled_from((F(1), F(1, 2))), st.sampled_from(CASES))
def test_equals_value_iteration_without_a_horizon(table: Table, gamma: F, case: Case) -> None:
    mdp = library(table, gamma)
    try:
        improved = rdo.policy_iteration(mdp, case.objective, stock=NUMBERS, memory=2**19)
        swept = rdo.value_iteration(mdp, case.objective, stock=NUMBERS, memory=2**19)
    except (rdo.NotOptimizableError, rdo.MemoryLimitError):
        assume(False)
    assert improved.converged
    for state in table:
        for stock in NUMBERS:
            low, high = swept.bounds(state, stock)
            value, above = improved.bounds(state, stock)
            if np.isinf(low):
                assert value == above == low
                continue
            slack = TINY * max(1.0, abs(low))
            assert low - slack <= value <= above <= value + slack
            assert value <= high + slack


def planes(max_outcomes: int = 2) -> st.SearchStrategy[tuple[Table, int]]:
    """Return tables in two copies with different rewards, as one table with rewards in the plane."""
    return st.tuples(strategies.tables(max_outcomes=max_outcomes, rewards=strategies.INTEGERS), st.integers(0, 3))


@settings(modest, max_examples=60)
@given(
    planes(),
    st.sampled_from((F(1), F(1, 2))),
    st.sampled_from([rdo.Homeostasis(), rdo.Homeostasis(1), rdo.Threshold(), rdo.Shortfall(), rdo.Quadratic()]),
)
def test_vector_rewards(plane: tuple[Table, int], gamma: F, objective: rdo.Objective) -> None:
    table, turn = plane
    flat = {
        s: {a: [(p, n, (r, (turn * r) % 3 - 1.0), e) for p, n, r, e in outcomes] for a, outcomes in rows.items()}
        for s, rows in strategies.floats(table).items()
    }
    mdp = rdo.MDP.from_outcomes(flat, gamma=float(gamma))
    stocks = np.array([[0.0, 0.0], [-1.0, 2.0]])
    swept = rdo.value_iteration(mdp, objective, stock=stocks, horizon=3)
    improved = rdo.policy_iteration(mdp, objective, stock=stocks, horizon=3)
    early = stopped(mdp, objective, stock=stocks, horizon=3, max_iter=1)
    for state in table:
        for stock in stocks:
            best = swept.objective_value(state, stock)
            assert close(improved.objective_value(state, stock), best)
            low, high = early.bounds(state, stock)
            assert low - TINY * max(1, abs(best)) <= best <= high + TINY * max(1, abs(best))
            assert close(low, objective(early.returns(state, stock) + stock))


def test_endless_return_that_is_cut() -> None:
    """A utility that never saturates, gamma < 1: cut where the rest cannot matter, with bounds that say so."""
    table = {
        0: {0: [(1.0, 0, 1.0, False)], 1: [(0.5, 1, 2.0, False), (0.5, 1, 0.0, True)]},
        1: {0: [(1.0, 1, 0.5, False)]},
    }
    mdp = rdo.MDP.from_outcomes(table, gamma=0.5)
    for objective in (rdo.Quadratic(), rdo.ExpectedUtility(lambda x: -np.abs(x), lipschitz=1.0, degree=1.0)):
        swept = rdo.value_iteration(mdp, objective, stock=[-1.0, -2.5])
        improved = rdo.policy_iteration(mdp, objective, stock=[-1.0, -2.5])
        for stock in (-1.0, -2.5):
            low, high = improved.bounds(0, stock)
            assert 0 < high - low <= 1e-11
            assert low == pytest.approx(swept.objective_value(0, stock), abs=1e-11)
            assert objective(improved.returns(0, stock) + stock) == pytest.approx(low, abs=1e-10)


# --------------------------------------------------------------------------------------------------
# every improvement


def swept_from(
    table: Table, gamma: F, f: naive.Utility, start: dict[int, int], state: int, stock: F, horizon: int, k: int
) -> Any:
    """``F T_*^k eta^{pi_0}`` at step 0: the best ``k`` first actions over histories, the start's actions after that."""

    def visit(state: int, t: int, earned: F, weight: F) -> Any:
        if t == horizon or state not in table:
            return f(earned)
        rows = table[state]
        return max(
            sum(
                p * (f(earned + weight * r) if ended else visit(after, t + 1, earned + weight * r, weight * gamma))
                for p, after, r, ended in rows[a]
                if p
            )
            for a in (rows if t < k else [start[state]])
        )

    return visit(state, 0, stock, F(1))


@pytest.mark.theory("4.3")
@settings(modest, max_examples=120)
@given(problems(max_leaves=200), st.sampled_from(CASES), st.data())
def test_monotone_and_never_behind_value_iteration(
    problem: tuple[Table, F, int], case: Case, data: st.DataObject
) -> None:
    """From any first policy, at every augmented state and every k; optimal from k = horizon on."""
    table, gamma, horizon = problem
    mdp = library(table, gamma)
    start = {s: data.draw(st.sampled_from(sorted(rows))) for s, rows in table.items()}
    actions = np.array([start[s] for s in range(len(table))])
    solutions = every_k(mdp, case.objective, stock=NUMBERS, horizon=horizon, start=actions)
    for before, after in itertools.pairwise(solutions):
        old, new = all_values(before), all_values(after)
        assert (new >= old - TINY * np.maximum(1, np.abs(old))).all()
        assert (new > old).any()
    for k in range(horizon + 1):
        solution = solutions[min(k, len(solutions) - 1)]
        assert solution.iterations <= k
        for state in table:
            exact = swept_from(table, gamma, case.f, start, state, STOCKS[2], horizon, k)
            value = solution.objective_value(state, NUMBERS[2])
            assert value >= float(exact) - TINY * max(1.0, abs(float(exact)))
            if k in (0, horizon):
                assert close(value, exact)


@settings(modest, max_examples=120)
@given(problems(max_leaves=200), st.sampled_from(CASES))
def test_values_are_those_of_the_policy(problem: tuple[Table, F, int], case: Case) -> None:
    """The policy after every improvement, replayed over all histories in fractions, is worth what is claimed."""
    table, gamma, horizon = problem
    mdp = library(table, gamma)
    best = {c: naive.best_utility(table, gamma, 0, horizon, case.f, c) for c in STOCKS}
    for solution in every_k(mdp, case.objective, stock=NUMBERS, horizon=horizon):
        for stock in STOCKS:
            law = naive.replay(
                table, gamma, 0, horizon,
                lambda s, c, t, chosen=solution.policy: chosen.action(s, float(c), t), stock,
            )  # fmt: skip
            low, high = solution.bounds(0, float(stock))
            assert close(low, naive.expect(naive.shift(law, stock), case.f))
            assert float(best[stock]) <= high + TINY * max(1.0, abs(high))
            assert low == high or not solution.converged


ENDLESS = [case for case in CASES if case.name in ("Mean", "TargetReturn", "Shortfall", "Surplus", "TwoSlope, falling")]


@pytest.mark.theory("5.3")
@settings(modest, max_examples=80)
@given(strategies.tables(max_outcomes=3), st.sampled_from((F(1, 2), F(1, 3))), st.sampled_from(ENDLESS))
def test_loss_is_below_its_bound(table: Table, gamma: F, case: Case) -> None:
    """After k improvements: L gamma^k width; the values are those of the policy's return law, pushed forward."""
    mdp = library(table, gamma)
    optimum = rdo.value_iteration(mdp, case.objective, stock=NUMBERS)
    solutions = every_k(mdp, case.objective, stock=NUMBERS)
    for k, solution in enumerate(solutions):
        for stock in NUMBERS:
            for state in table:
                low, high = solution.bounds(state, stock)
                best = optimum.objective_value(state, stock)
                slack = TINY * max(1.0, abs(best))
                assert best - low <= bounds.policy_iteration(mdp, case.objective, k, stock) + slack
                assert low - slack <= best <= high + slack
                assert high - low <= bounds.policy_iteration(mdp, case.objective, k, stock) + slack
    law = solutions[0].returns(0, NUMBERS[0]) + NUMBERS[0]
    slack = case.objective.lipschitz * law.w1_error + 1e-9
    assert case.objective(law) == pytest.approx(solutions[0].objective_value(0, NUMBERS[0]), abs=slack)


@pytest.mark.theory("5.3")
def test_bound_by_the_last_improvement() -> None:
    """The computed bound is never above the a-priori one and gets far below it; it contains the optimum for every k."""
    mdp = rdo.MDP.garnet(12, 3, 3, seed=2, gamma=0.5)
    rounded = {
        s: {int(a): [(p, n, round(4 * r) / 4, e) for p, n, r, e in mdp.outcomes(s, a)] for a in mdp.actions(s)}
        for s in range(12)
    }
    mdp = rdo.MDP.from_outcomes(rounded, gamma=0.5)
    optimum = rdo.value_iteration(mdp, rdo.TargetReturn(), stock=-0.5)
    solutions = every_k(mdp, rdo.TargetReturn(), stock=-0.5)
    assert len(solutions) >= 3
    gaps = [s.residual for s in solutions]
    prior = bounds.policy_iteration(mdp, rdo.TargetReturn(), np.arange(len(gaps)), -0.5)
    assert (np.array(gaps) <= prior + TINY).all()
    assert gaps[-1] == 0
    assert gaps[-2] < prior[-2] / 2
    for solution in solutions:
        for state in range(12):
            low, high = solution.bounds(state, -0.5)
            assert low - TINY <= optimum.objective_value(state, -0.5) <= high + TINY


# --------------------------------------------------------------------------------------------------
# continuity


@pytest.mark.theory("5.12")
def test_a_tie_makes_it_worse_without_continuity() -> None:
    """By hand, in fractions: stock 2, A pays -1 and stays, B stops with 0 or -9; P(stock + G > 0), gamma = 1/2."""
    half = F(1, 2)

    def worth(waits: int) -> F:
        """P(c + G > 0) when B is taken after A was taken ``waits`` times."""
        stock, weight = F(2), F(1)
        for _ in range(waits):
            stock, weight = stock - weight, weight * half
        return sum((half for r in (0, -9) if stock + weight * r > 0), F(0))

    assert [worth(n) for n in range(8)] == [half] * 8  # A ties with B, however often it is taken first
    limit = F(2) - 1 / (1 - half)
    assert limit == 0  # but A for ever earns -2 exactly, and 0 > 0 never holds
    trap = rdo.MDP.from_outcomes(
        {0: {0: [(1.0, 0, -1.0, False)], 1: [(0.5, 0, 0.0, True), (0.5, 0, -9.0, True)]}}, gamma=0.5
    )
    positive = rdo.ExpectedUtility(lambda x: np.where(x > 0, 1.0, 0.0), degree=0.0)
    for objective, remedy in ((positive, "declare lipschitz="), (rdo.Threshold(), "use value_iteration")):
        with pytest.raises(rdo.NotOptimizableError, match=f"lacks continuity.*worse.*chapter 9.*{remedy}.*horizon="):
            rdo.policy_iteration(trap, objective, stock=2.0)
    # With a horizon it is safe, and a tie never changes an action.
    solution = rdo.policy_iteration(trap, positive, stock=2.0, horizon=5, start=np.array([1]))
    assert solution.objective_value(0, 2.0) == 1.0  # A until the horizon cuts it off above zero


def test_no_continuity_needed_where_every_path_ends() -> None:
    """Without a horizon and gamma < 1, but with at most two steps: theorem 4.3 applies as with a horizon."""
    table = {
        0: {0: [(1.0, 1, 1.0, False)], 1: [(1.0, 1, 0.0, False)]},
        1: {0: [(0.5, 1, 2.0, True), (0.5, 1, -2.0, True)]},
    }
    mdp = rdo.MDP.from_outcomes(table, gamma=0.5)
    improved = rdo.policy_iteration(mdp, rdo.Threshold(), stock=-2.0, start=np.array([1, 0]))
    assert improved.objective_value(0, -2.0) == 0.5
    assert improved.iterations == 1


# --------------------------------------------------------------------------------------------------
# gamma = 1 without a horizon

# State 0: stay for nothing, or walk (reward -1) to state 1, which stays for nothing or ends with 5.
LAZY = {
    0: {0: [(1.0, 0, 0.0, False)], 1: [(1.0, 1, -1.0, False)]},
    1: {0: [(1.0, 1, 0.0, False)], 1: [(1.0, 1, 5.0, True)], 2: [(1.0, 0, -1.0, False)]},
}


def test_resting_is_worth_its_stock_and_is_left() -> None:
    mdp = rdo.MDP.from_outcomes(LAZY, gamma=1.0)
    resting = stopped(mdp, rdo.Shortfall(), stock=-3.0, max_iter=0)
    assert resting.objective_value(0, -3.0) == -3.0  # action 0 for ever: G = 0
    assert resting.policy.rests(np.array([0]), np.array([-3.0])).all()
    solution = rdo.policy_iteration(mdp, rdo.Shortfall(), stock=-3.0)
    assert solution.objective_value(0, -3.0) == 0.0
    assert not solution.policy.rests(np.array([0]), np.array([-3.0])).any()
    assert solution.returns(0, -3.0).mean() == 4.0


def test_resting_is_found() -> None:
    """Every one-step change ties with a resting action; it is taken where resting for ever is better."""
    mdp = rdo.MDP.from_outcomes({0: {0: [(1.0, 0, -1.0, True)], 1: [(1.0, 0, 0.0, False)]}}, gamma=1.0)
    for objective in (rdo.Mean(), rdo.Threshold(), rdo.Quadratic()):
        solution = rdo.policy_iteration(mdp, objective, stock=0.0)
        assert solution.policy.action(0, 0.0) == 1
        assert solution.iterations == 1
        assert solution.objective_value(0, 0.0) == objective.utility(np.zeros(1))[0]


def test_a_start_that_never_ends_is_named() -> None:
    circle = {0: {0: [(1.0, 1, -1.0, False)], 1: [(1.0, 0, 2.0, True)]}, 1: {0: [(1.0, 0, -1.0, False)]}}
    mdp = rdo.MDP.from_outcomes(circle, gamma=1.0)
    with pytest.raises(
        rdo.InvalidArgumentError, match=r"start does not surely end from state 0, stock.*leave start= out"
    ):
        rdo.policy_iteration(mdp, rdo.Shortfall(), stock=-3.0, start=np.array([0, 0]))
    solution = rdo.policy_iteration(mdp, rdo.Shortfall(), stock=-3.0)  # the default start finds a way out
    assert solution.objective_value(0, -3.0) == -1.0
    assert solution.objective_value(1, -3.0) == -2.0


# --------------------------------------------------------------------------------------------------
# starts, limits, bad input

FORK = rdo.MDP.from_outcomes({0: {0: [(1.0, 0, 1.0, True)], 1: [(0.5, 0, 3.0, True), (0.5, 0, 0.0, True)]}})


class Bold:
    """Gambles where it has something to lose."""

    def actions(self, states: Any, stocks: Any, t: int) -> Any:
        return (np.asarray(stocks) >= -1.0).astype(int)


def test_starts() -> None:
    stocks = np.array([-2.0, -1.0])
    optimum = rdo.value_iteration(FORK, rdo.Threshold(), stock=stocks)
    again = rdo.policy_iteration(FORK, rdo.Threshold(), stock=stocks, start=optimum.policy)
    assert again.iterations == 0
    bold = stopped(FORK, rdo.Threshold(), stock=stocks, start=Bold(), max_iter=0)
    assert (bold.objective_value(0, -2.0), bold.objective_value(0, -1.0)) == (0.0, 0.5)
    assert bold.bounds(0, -1.0) == (0.5, 1.0)
    careful = stopped(FORK, rdo.Threshold(), stock=stocks, start=[0], max_iter=0)
    assert (careful.objective_value(0, -2.0), careful.objective_value(0, -1.0)) == (0.0, 1.0)


def test_a_start_is_asked_once_where_the_stock_matters_no_more() -> None:
    """Returns lie between 0 and 3, so the stock matters between -3 and 0; beyond, at these ends."""
    asked: list[float] = []

    class Recording:
        def actions(self, states: Any, stocks: Any, t: int) -> Any:
            asked.extend(np.asarray(stocks).tolist())
            return (np.asarray(stocks) < -1.0).astype(int)

    solution = stopped(FORK, rdo.TwoSlope(2.0, 0.5), stock=[-9.0, -2.0, -1.0, 9.0], start=Recording(), max_iter=0)
    assert sorted(asked) == [-3.0, -2.0, -1.0, 0.0]
    values = [solution.objective_value(0, c) for c in (-9.0, -2.0, -1.0, 9.0)]
    assert values == [2 * (-9 + 1.5), 0.5 * 0.5 + 0.5 * -4, 0.0, 0.5 * 10]
    assert [solution.policy.action(0, c) for c in (-9.0, -2.0, -1.0, 9.0)] == [1, 1, 0, 0]


def test_only_what_is_better_changes() -> None:
    """A millionth is better; equal stays, even against the lowest index."""
    better = rdo.MDP.from_outcomes({0: {0: [(1.0, 0, 1.0, True)], 1: [(1.0, 0, 1.000001, True)]}})
    solution = rdo.policy_iteration(better, rdo.Mean())
    assert (solution.iterations, solution.policy.action(0, 0.0)) == (1, 1)
    equal = rdo.MDP.from_outcomes({0: {0: [(1.0, 0, 1.0, True)], 1: [(0.5, 0, 0.0, True), (0.5, 0, 2.0, True)]}})
    solution = rdo.policy_iteration(equal, rdo.Mean(), start=[1])
    assert (solution.iterations, solution.policy.action(0, 0.0)) == (0, 1)


def test_early_stop_says_so_once() -> None:
    with pytest.warns(
        UserWarning, match=r"max_iter = 0, and the policy can still be improved.*at most 0.5 above"
    ) as caught:
        solution = rdo.policy_iteration(FORK, rdo.Threshold(), stock=-2.0, max_iter=0)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert (solution.converged, solution.iterations, solution.residual) == (False, 0, 0.5)
    assert "not the last" in solution.method
    done = rdo.policy_iteration(FORK, rdo.Threshold(), stock=-2.0, max_iter=1)
    assert (done.converged, done.iterations, done.residual) == (True, 1, 0.0)


def test_tolerance_stops_early() -> None:
    solution = rdo.policy_iteration(FORK, rdo.Threshold(), stock=-2.0, tol=2.0)
    assert (solution.converged, solution.iterations) == (True, 0)
    assert solution.bounds(0, -2.0) == (0.0, 0.5)


BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (
        lambda: rdo.policy_iteration(FORK, rdo.Mean(), max_iter=-1),
        rdo.InvalidArgumentError,
        "max_iter must be an integer",
    ),
    (
        lambda: rdo.policy_iteration(FORK, rdo.Mean(), max_iter=1.5),
        rdo.InvalidArgumentError,
        "max_iter must be an integer",
    ),  # type: ignore[arg-type]
    (
        lambda: rdo.policy_iteration(FORK, rdo.Mean(), tol=0.0),
        rdo.InvalidArgumentError,
        "tol must be a positive number",
    ),
    (lambda: rdo.policy_iteration(FORK, rdo.Mean(), horizon=0), rdo.InvalidArgumentError, "horizon must be a positive"),
    (lambda: rdo.policy_iteration(FORK, rdo.Mean(), start=[0, 0]), rdo.InvalidArgumentError, r"shape \(1,\)"),
    (lambda: rdo.policy_iteration(FORK, rdo.Mean(), start=[0.5]), rdo.InvalidArgumentError, "integer array"),
    (lambda: rdo.policy_iteration(FORK, rdo.Mean(), start=[7]), rdo.InvalidArgumentError, "action 7 is not available"),
    (lambda: rdo.policy_iteration(FORK, rdo.CVaR(0.5)), rdo.NotOptimizableError, "lacks indifference to mixtures"),
    (
        lambda: rdo.policy_iteration(FORK, rdo.EssInf()),
        rdo.NotOptimizableError,
        "needs an expected utility.*value_iteration",
    ),
    (lambda: rdo.policy_iteration("no", rdo.Mean()), rdo.InvalidArgumentError, "must be an rdo.MDP"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("number", range(len(BAD)))
def test_bad_input(number: int) -> None:
    call, error, words = BAD[number]
    with pytest.raises(error, match=words):
        call()


def test_actions_of_the_wrong_shape() -> None:
    class Wrong:
        def actions(self, states: Any, stocks: Any, t: int) -> Any:
            return np.zeros(len(states) + 1, dtype=int)

    with pytest.raises(rdo.InvalidArgumentError, match="must return 1 integers"):
        rdo.policy_iteration(FORK, rdo.Threshold(), stock=-2.0, start=Wrong())


def test_too_many_augmented_states_are_refused() -> None:
    walk = {0: {0: [(0.5, 0, 1.0, False), (0.4, 0, -1.0, False), (0.1, 0, 0.0, True)]}}
    with pytest.raises(rdo.MemoryLimitError, match=r"perhaps without end; use value_iteration, pass horizon="):
        rdo.policy_iteration(rdo.MDP.from_outcomes(walk), rdo.Quadratic(), memory=2**20)


# --------------------------------------------------------------------------------------------------
# the graph


def test_graph_values_of_a_fixed_choice() -> None:
    """Two nodes in a circle and an exit: by hand, and the way out of each."""
    graph = Graph(
        pair_ptr=np.array([0, 2, 4]),
        base=np.array([1.0, 5.0, 2.0, 0.0]),
        leaks=np.array([False, True, False, False]),
        edge_ptr=np.array([0, 1, 1, 2, 3]),
        edge_to=np.array([1, 0, 1], dtype=np.int32),
        edge_weight=np.array([0.5, 0.5, 0.5]),
        stop=np.full(2, -np.inf),
    )
    never = np.full(2, -np.inf)
    # x = 1 + y / 2, y = 2 + x / 2
    np.testing.assert_allclose(evaluate(graph, np.array([0, 2]), never, discounted=True), [8 / 3, 10 / 3], rtol=1e-15)
    np.testing.assert_allclose(evaluate(graph, np.array([1, 2]), never, discounted=True), [5, 4.5], rtol=1e-15)
    assert evaluate(graph, np.array([0, 2]), never, discounted=False).tolist() == [-np.inf, -np.inf]
    assert evaluate(graph, np.array([1, 3]), np.array([-np.inf, 7.0]), discounted=False).tolist() == [5.0, 7.0]
    assert ways_out(graph).tolist() == [1, 2]
