"""Policy evaluation against walks over all histories, linear equations, and its own certificates."""

from __future__ import annotations

from fractions import Fraction as F
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import rdolib as rdo
from rdolib._projections import Exact
from rdolib.evaluation import evaluate
from tests import naive, strategies
from tests.naive import Law, Table

modest = settings(
    deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
ROUNDING = 1e-11
COIN = {0: {0: [(0.5, 0, 1.0, False), (0.5, 0, 0.0, False)]}}
#: gamma = 1/2 and a fair coin of 0 or 1 for ever: the return is uniform on [0, 2].
UNIFORM = rdo.MDP.from_outcomes(COIN, gamma=0.5)


def library(table: Table, gamma: F) -> rdo.MDP:
    return rdo.MDP.from_outcomes(strategies.floats(table), gamma=float(gamma), initial=0)


def replay(table: Table, gamma: F, state: int, horizon: int, probs: dict[int, dict[int, F]]) -> Law:
    """The law of a randomized policy that sees the state, by the recursion of the definition, in fractions."""
    if horizon == 0 or state not in table:
        return naive.point(0)
    return naive.mix(
        (
            weight * p,
            naive.shift(naive.point(0) if ended else replay(table, gamma, after, horizon - 1, probs), r, gamma),
        )
        for action, weight in probs[state].items()
        for p, after, r, ended in table[state][action]
        if p
    )


def floats(nu: Law) -> rdo.Distribution:
    return rdo.Distribution([float(x) for x, _ in nu], [float(p) for _, p in nu])


@st.composite
def randomized(draw: st.DrawFn) -> tuple[Table, F, int, dict[int, dict[int, F]], np.ndarray[Any, Any]]:
    """A table, a discount, a horizon, and a policy as exact probabilities and as an array."""
    table = draw(strategies.tables())
    gamma, horizon = draw(st.sampled_from(strategies.GAMMAS)), draw(st.integers(1, 4))
    mdp = library(table, gamma)
    probs, array = {}, np.zeros((mdp.n_states, mdp.n_actions))
    for state, rows in table.items():
        weights = draw(strategies.probabilities(len(rows)))
        probs[state] = dict(zip(rows, weights, strict=True))
        for action, weight in probs[state].items():
            if not mdp.terminal[state]:
                array[state, action] = float(weight)
    return table, gamma, horizon, probs, array


@settings(modest, max_examples=120)
@given(randomized())
def test_exact_laws_of_stationary_policies(case: Any) -> None:
    """Every atom of every state's law, against the definition in fractions."""
    table, gamma, horizon, probs, array = case
    mdp = library(table, gamma)
    for representation in (None, Exact()):
        eta = evaluate(mdp, array, horizon=horizon, representation=representation)
        for state in table:
            assert eta(state).allclose(floats(replay(table, gamma, state, horizon, probs)), 1e-11)


@settings(modest, max_examples=120)
@given(randomized(), st.integers(1, 9))
def test_certified_errors_with_a_horizon(case: Any, n: int) -> None:
    """The W1 error beside a projected law is never less than its distance from the exact one."""
    table, gamma, horizon, probs, array = case
    mdp = library(table, gamma)
    assume(mdp.n_outcomes > 0)
    room = horizon * float(np.abs(mdp.reward).max()) + 1.0
    for representation in (rdo.QuantileGrid(n), rdo.CategoricalGrid(-room - 1, room + 2, 5 * n)):
        try:
            eta = evaluate(mdp, array, horizon=horizon, representation=representation)
            laws = {state: eta(state) for state in table}
        except rdo.InvalidArgumentError:
            assert isinstance(representation, rdo.CategoricalGrid) and n < 5
            continue
        for state, nu in laws.items():
            exact = floats(replay(table, gamma, state, horizon, probs))
            assert rdo.wasserstein(nu, exact) <= nu.w1_error + ROUNDING
            if isinstance(representation, rdo.CategoricalGrid):  # this projection keeps means
                assert nu.mean() == pytest.approx(exact.mean(), abs=1e-10)


@settings(modest, max_examples=60)
@given(
    strategies.tables(max_outcomes=2),
    st.sampled_from(strategies.GAMMAS),
    st.integers(1, 4),
    strategies.stocks(),
    st.sampled_from((rdo.TargetReturn(), rdo.Threshold(), rdo.Shortfall())),
)
def test_policies_that_see_the_stock(table: Table, gamma: F, horizon: int, stock: F, objective: Any) -> None:
    """A solver's policy, exact and projected, and the same policy as a bare object, against all histories."""
    mdp = library(table, gamma)
    solution = rdo.value_iteration(mdp, objective, stock=float(stock), horizon=horizon)
    nu = floats(naive.replay(
        table, gamma, 0, horizon, lambda s, c, t: int(solution.policy.action(s, float(c), t)), stock
    ))  # fmt: skip

    class Bare:
        def actions(self, states: Any, stocks: Any, t: int) -> Any:
            return solution.policy.actions(states, stocks, t)

    for policy in (solution.policy, Bare()):
        assert evaluate(mdp, policy, horizon=horizon)(0, float(stock)).allclose(nu, 1e-9)
        shown = evaluate(mdp, policy, horizon=horizon, representation=rdo.QuantileGrid(8))(0, float(stock))
        assert rdo.wasserstein(shown, nu) <= shown.w1_error + ROUNDING


# --------------------------------------------------------------------------------------------------
# no horizon


def test_uniform_law() -> None:
    """The coin's return is uniform on [0, 2]: quantiles at the midpoints, and a mean of the grid's own."""
    for n in (1, 2, 8, 64, 256):
        eta = evaluate(UNIFORM, [0], representation=rdo.QuantileGrid(n))(0)
        exact = rdo.Distribution((np.arange(4096) + 0.5) / 2048, np.full(4096, 1 / 4096), w1_error=1 / 4096)
        assert rdo.wasserstein(eta, exact) <= eta.w1_error + 1 / 4096 + ROUNDING
    grid = evaluate(UNIFORM, [0], representation=rdo.CategoricalGrid(-0.5, 2.5, 61))(0)
    assert grid.mean() == pytest.approx(1.0, abs=1e-9)
    assert rdo.wasserstein(grid, exact) <= grid.w1_error + 1 / 4096


def test_rates() -> None:
    """Certified and measured errors fall like 1/n: doubling the atoms halves both, within a fifth."""
    mdp = rdo.MDP.garnet(12, 2, 3, seed=5, gamma=0.7)
    policy = np.full((12, 2), 0.5)
    exact = evaluate(mdp, policy, tol=1e-9)(0)
    for make in (rdo.QuantileGrid, lambda n: rdo.CategoricalGrid(-11.0, 11.0, n + 1)):
        certified, measured = [], []
        for n in (32, 64, 128, 256, 512):
            nu = evaluate(mdp, policy, representation=make(n))(0)
            certified.append(nu.w1_error)
            measured.append(rdo.wasserstein(nu, exact))
            assert measured[-1] <= certified[-1] + exact.w1_error + ROUNDING
        slope = np.polyfit(np.log([32, 64, 128, 256, 512]), np.log(certified), 1)[0]
        assert slope == pytest.approx(-1.0, abs=0.2)
        # The measured error of a categorical law falls faster, because the split moves mass both ways.
        assert np.polyfit(np.log([32, 64, 128, 256, 512]), np.log(measured), 1)[0] < -0.8


@pytest.mark.parametrize("gamma", [0.5, 0.9, 1.0])
def test_moments_solve_linear_equations(gamma: float) -> None:
    """Mean and second moment of every state, by Bellman's equations for moments, against the laws."""
    mdp = rdo.MDP.garnet(6, 2, 2, seed=3, gamma=gamma, terminal_probability=0.3 if gamma < 1 else 0.7)
    rng = np.random.default_rng(0)
    policy = rng.dirichlet([1.0, 1.0], size=6)
    pair_weight = policy[mdp.pair_state, mdp.pair_action]
    weight = np.repeat(pair_weight, np.diff(mdp.outcome_ptr)) * mdp.prob
    state = np.repeat(mdp.pair_state, np.diff(mdp.outcome_ptr))
    goes = ~mdp.terminated
    P = np.zeros((6, 6))
    np.add.at(P, (state[goes], mdp.next_state[goes]), weight[goes])
    first = np.bincount(state, weights=weight * mdp.reward, minlength=6)
    mean = np.linalg.solve(np.eye(6) - gamma * P, first)
    after = np.where(goes, mean[mdp.next_state], 0.0)
    square = np.bincount(state, weights=weight * (mdp.reward**2 + 2 * gamma * mdp.reward * after), minlength=6)
    second = np.linalg.solve(np.eye(6) - gamma**2 * P, square)
    fine = evaluate(mdp, policy, representation=rdo.CategoricalGrid(-60.0, 60.0, 601))
    followed = evaluate(mdp, policy)
    for s in range(6):
        for nu in (fine(s), followed(s)):
            # Means are 1-Lipschitz in W1, and squares of returns, on average, 2 * 60-Lipschitz at most.
            assert nu.mean() == pytest.approx(mean[s], abs=1e-7 + nu.w1_error)
            assert nu.expect(np.square) == pytest.approx(second[s], abs=1e-6 + 120 * nu.w1_error)
        assert fine(s).mean() == pytest.approx(mean[s], abs=1e-7)  # the split keeps means
        assert rdo.wasserstein(fine(s), followed(s)) <= fine(s).w1_error + followed(s).w1_error + ROUNDING


@pytest.mark.parametrize("gamma", [0.5, 1.0])
@pytest.mark.parametrize("objective", [rdo.TargetReturn(), rdo.Shortfall(), rdo.Threshold(), rdo.Mean()])
def test_endless_policies_with_stock(gamma: float, objective: Any) -> None:
    """Closed sets of nodes, with stocks that matter no more, against the mass followed forward."""
    mdp = rdo.MDP.garnet(5, 2, 2, seed=4, gamma=gamma, rewards=[-2.0, -1.0], terminal_probability=0.2)
    solution = rdo.value_iteration(mdp, objective, stock=[4.0, 9.0])
    followed = evaluate(mdp, solution.policy)
    eta = evaluate(mdp, solution.policy, representation=rdo.QuantileGrid(64))
    for state in range(5):
        for stock in (4.0, 9.0):
            nu, exact = eta(state, stock), followed(state, stock)
            assert rdo.wasserstein(nu, exact) <= nu.w1_error + exact.w1_error + 1e-9
            assert nu.w1_error < 0.5
            assert objective(exact + stock) == pytest.approx(solution.objective_value(state, stock), abs=1e-6)


def test_tol_bounds_the_start() -> None:
    """A larger tol means fewer sweeps: the error says by how much, and still holds."""
    mdp = rdo.MDP.garnet(5, 1, 2, seed=0, gamma=0.9)
    grid = rdo.CategoricalGrid(-31.0, 31.0, 621)
    fine, coarse = (evaluate(mdp, np.zeros(5, int), representation=grid, tol=tol)(0) for tol in (1e-9, 0.5))
    assert rdo.wasserstein(fine, coarse) > 1e-4
    assert fine.w1_error < coarse.w1_error <= fine.w1_error + 0.5 + ROUNDING


def test_rest_and_no_end() -> None:
    """Gamma = 1: resting at reward 0 for ever is a return of 0; being paid for ever has no law."""
    mdp = rdo.MDP.from_outcomes(
        {
            0: {0: [(0.5, 1, 3.0, False), (0.5, 2, 1.0, False)]},
            1: {0: [(1.0, 1, 0.0, False)], 1: [(1.0, 1, 1.0, False)]},
            2: {0: [(1.0, 2, 0.0, True)]},
        }
    )
    for representation in (None, rdo.QuantileGrid(4), rdo.CategoricalGrid(0, 4, 5)):
        eta = evaluate(mdp, [0, 0, 0], representation=representation)
        assert eta(0).allclose(rdo.Distribution([1.0, 3.0], [0.5, 0.5]), 1e-9)
        assert eta(1).allclose(rdo.Distribution([0.0], [1.0]))
    eta = evaluate(mdp, [0, 1, 0], representation=rdo.QuantileGrid(4))
    assert eta(2).allclose(rdo.Distribution([0.0], [1.0]))
    with pytest.raises(rdo.NotOptimizableError, match="go on for ever"):
        eta(0)


def test_gamma_one_contracts_in_the_weighted_distance() -> None:
    """THEORY 2.3: with xi the longest expected stay, T contracts sup W1 / xi by 1 - 1 / max xi."""
    mdp = rdo.MDP.garnet(6, 1, 2, seed=1, terminal_probability=0.3)
    policy = np.zeros(6, int)
    P = np.zeros((6, 6))
    state = np.repeat(mdp.pair_state, np.diff(mdp.outcome_ptr))
    np.add.at(P, (state[~mdp.terminated], mdp.next_state[~mdp.terminated]), mdp.prob[~mdp.terminated])
    xi = np.linalg.solve(np.eye(6) - P, np.ones(6))
    beta = 1 - 1 / xi.max()
    sweeps = [evaluate(mdp, policy, horizon=n) for n in range(1, 9)]
    steps = [max(rdo.wasserstein(a(s), b(s)) / xi[s] for s in range(6)) for a, b in pairwise(sweeps)]
    assert all(later <= beta * now + ROUNDING for now, later in pairwise(steps))


@pytest.mark.parametrize("p", [1, 2, float("inf")])
def test_sweeps_contract(p: float) -> None:
    """THEORY 2.1: the operator contracts the largest W_p distance over states by gamma; here tight for p = 1."""
    mdp = rdo.MDP.garnet(5, 2, 2, seed=7, gamma=0.8)
    policy = np.full((5, 2), 0.5)
    sweeps = [evaluate(mdp, policy, horizon=n) for n in range(1, 8)]
    steps = [max(rdo.wasserstein(a(s), b(s), p=p) for s in range(5)) for a, b in pairwise(sweeps)]
    assert all(later <= 0.8 * now + ROUNDING for now, later in pairwise(steps))
    chain = rdo.MDP.from_outcomes({0: {0: [(1.0, 0, 1.0, False)]}}, gamma=0.8)
    ones = [evaluate(chain, [0], horizon=n)(0) for n in (1, 2, 3)]
    assert rdo.wasserstein(ones[1], ones[2], p=p) == pytest.approx(0.8 * rdo.wasserstein(ones[0], ones[1], p=p))


# --------------------------------------------------------------------------------------------------
# vectors


def vector_law(mdp: rdo.MDP, policy: np.ndarray[Any, Any], state: int, horizon: int) -> dict[tuple[float, ...], float]:
    """The law by walking every history."""
    out: dict[tuple[float, ...], float] = {}
    if horizon == 0 or mdp.terminal[state]:
        return {(0.0,) * mdp.reward_dim: 1.0}
    for action in mdp.actions(state):
        for p, after, reward, ended in mdp.outcomes(state, int(action)):
            rest = {(0.0,) * mdp.reward_dim: 1.0} if ended else vector_law(mdp, policy, after, horizon - 1)
            for atom, q in rest.items():
                x = tuple(round(r + mdp.gamma * a, 12) for r, a in zip(reward, atom, strict=True))
                out[x] = out.get(x, 0.0) + policy[state, action] * p * q
    return out


@pytest.mark.parametrize("gamma", [1.0, 0.5])
def test_vectors(gamma: float) -> None:
    """Vector returns, exact and on a product grid with its certified error in the 2-norm."""
    mdp = rdo.MDP.garnet(4, 2, 2, seed=1, gamma=gamma, rewards=[(1, 0), (0, 1), (-1, 1)], terminal_probability=0.2)
    policy = np.full((4, 2), 0.5)
    grid = rdo.CategoricalGrid([-5.5, -2.0], [6.0, 6.5], [24, 18])
    for state in range(4):
        walked = vector_law(mdp, policy, state, 4)
        exact = rdo.Distribution(list(walked), list(walked.values()))
        assert evaluate(mdp, policy, horizon=4)(state).allclose(exact, 1e-11)
        nu = evaluate(mdp, policy, horizon=4, representation=grid)(state)
        assert rdo.wasserstein(nu, exact) <= nu.w1_error + ROUNDING
        np.testing.assert_allclose(nu.mean(), exact.mean(), atol=1e-11)
    if gamma < 1:
        endless = evaluate(mdp, policy, representation=grid)(0)
        followed = evaluate(mdp, policy, tol=1e-6)(0)
        np.testing.assert_allclose(endless.mean(), followed.mean(), atol=1e-6)


# --------------------------------------------------------------------------------------------------
# refusals


def test_refusals() -> None:
    """Every bad argument is named, with its place and the remedy."""
    mdp = rdo.MDP.from_outcomes(
        {0: {0: [(1.0, 1, 1.0, False)], 2: [(1.0, 1, 0.0, False)]}, 1: {1: [(1.0, 1, 5.0, True)]}}
    )
    cases: list[tuple[Any, str]] = [
        ([0], "one for each of the 2 states"),
        ([0, 0], "action 0 is not available at state 1"),
        (np.full((2, 2), 0.5), r"shape \(states, actions\) = \(2, 3\)"),
        (np.array([[0.5, 0.0, 0.4], [0.0, 1.0, 0.0]]), "action probabilities at state 0 sum to 0.9"),
        (
            np.array([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]),
            r"policy\[0, 1\] = 0.5, but action 1 is not available at state 0",
        ),
        (np.array([[1.5, 0.0, -0.5], [0.0, 1.0, 0.0]]), r"policy\[0, 0\] = 1.5 is no probability"),
        (np.array([[np.nan, 0.0, 1.0], [0.0, 1.0, 0.0]]), r"policy\[0, 0\] = nan is no probability"),
        (np.array([0.5, 0.5]), "integer actions"),
        ("greedy", "policy must be a Policy or Plan"),
    ]
    for policy, message in cases:
        with pytest.raises(rdo.InvalidArgumentError, match=message):
            evaluate(mdp, policy)
    with pytest.raises(rdo.InvalidArgumentError, match="horizon must be a positive integer"):
        evaluate(mdp, [0, 1], horizon=0)
    with pytest.raises(rdo.InvalidArgumentError, match="tol must be a positive number"):
        evaluate(mdp, [0, 1], tol=-1.0)
    with pytest.raises(rdo.InvalidArgumentError, match="representation must be None, QuantileGrid"):
        evaluate(mdp, [0, 1], representation=64)  # type: ignore[arg-type]
    eta = evaluate(mdp, [0, 1])
    with pytest.raises(rdo.InvalidArgumentError, match="state 2 does not exist"):
        eta(2)
    with pytest.raises(rdo.InvalidArgumentError, match="stock must be a finite number"):
        eta(0, [1.0, 2.0])


def test_grid_that_cannot_hold_the_returns() -> None:
    """The message names the mass outside and a grid that would do."""
    mdp = rdo.MDP.from_outcomes({0: {0: [(0.25, 0, 7.0, True), (0.75, 0, 1.0, True)]}})
    with pytest.raises(rdo.InvalidArgumentError, match=r"mass 0.25 .* low=0, high=7"):
        evaluate(mdp, [0], representation=rdo.CategoricalGrid(0, 4, 5))(0)
    assert evaluate(mdp, [0], representation=rdo.CategoricalGrid(0, 7, 8))(0).w1_error == 0
    vector = rdo.MDP.from_outcomes({0: {0: [(0.25, 0, (7.0, 0.0), True), (0.75, 0, (1.0, 1.0), True)]}})
    with pytest.raises(rdo.InvalidArgumentError, match=r"mass 0.25 .* high=\(7, 2\)"):
        evaluate(vector, [0], representation=rdo.CategoricalGrid([0, 0], [4, 2], 5))(0)
    with pytest.raises(rdo.InvalidArgumentError, match="QuantileGrid holds scalar laws"):
        evaluate(vector, [0], representation=rdo.QuantileGrid(4))
    with pytest.raises(rdo.InvalidArgumentError, match="one number per component"):
        evaluate(vector, [0], representation=rdo.CategoricalGrid(0, 4, 5))


def test_policy_used_beyond_what_it_was_made_for() -> None:
    """A longer horizon than the policy's, and a stock it was not solved for."""
    mdp = rdo.MDP.garnet(4, 2, 2, seed=0)
    policy = rdo.value_iteration(mdp, rdo.ExpectedUtility(np.tanh), stock=0.5, horizon=3).policy
    with pytest.raises(rdo.InvalidArgumentError, match="made for 3 steps and horizon is 4"):
        evaluate(mdp, policy, horizon=4)
    with pytest.raises(rdo.InvalidArgumentError, match="made for 3 steps and horizon is None"):
        evaluate(mdp, policy)
    for representation in (None, rdo.QuantileGrid(8)):
        eta = evaluate(mdp, policy, horizon=3, representation=representation)
        assert eta(0, 0.5).n_atoms > 1
        with pytest.raises(rdo.InvalidArgumentError, match=r"stock 0.25 at state 0"):
            eta(0, 0.25)


def test_policies_of_the_wrong_form() -> None:
    """An object whose actions have the wrong shape or are not available."""

    class Wrong:
        def __init__(self, answer: Any) -> None:
            self.answer = answer

        def actions(self, states: Any, stocks: Any, t: int) -> Any:
            return self.answer

    with pytest.raises(rdo.InvalidArgumentError, match="must return one integer for each of the 1 states"):
        evaluate(UNIFORM, Wrong(np.zeros(3, int)), horizon=2)(0)
    with pytest.raises(rdo.InvalidArgumentError, match="action 4 is not available at state 0"):
        evaluate(UNIFORM, Wrong(np.array([4])), horizon=2)(0)


def test_lottery_over_plans() -> None:
    """A mixture of plans is a lottery at the start, so its law is the mixture of their laws."""

    class Lottery:
        mixture = ((0.25, [0, 0]), (0.75, [1, 0]))

    mdp = rdo.MDP.from_outcomes(
        {0: {0: [(1.0, 1, 1.0, True)], 1: [(1.0, 1, 2.0, True)]}, 1: {0: [(1.0, 1, 0.0, True)]}}
    )
    assert evaluate(mdp, Lottery())(0).allclose(rdo.Distribution([1.0, 2.0], [0.25, 0.75]))


def test_an_object_with_actions_of_its_own_is_not_unwrapped() -> None:
    """A wrapper that keeps a plan's policy in an attribute is asked itself."""
    mdp = rdo.MDP.from_outcomes({0: {0: [(1.0, 0, 1.0, True)], 1: [(1.0, 0, 2.0, True)]}})

    class Contrary:
        policy = rdo.optimize(mdp, rdo.Mean()).policy

        def actions(self, states: Any, stocks: Any, t: int) -> Any:
            return 1 - self.policy.actions(states, stocks, t)

    assert evaluate(mdp, Contrary(), horizon=1)(0).mean() == 1.0
    assert rdo.rollout(mdp, Contrary(), episodes=3, seed=0, stock=0.0, horizon=1).returns.tolist() == [1.0] * 3
