"""Shaped rewards: an ordinary solver on the shaped MDP finds what value iteration on the objective finds.

The second ways: QuantEcon's ``DiscreteDP`` (policy iteration, backward induction), exhaustive search in exact
fractions (`tests.naive`), and the walk along every path.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from fractions import Fraction as F
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from quantecon.markov import DiscreteDP, backward_induction

import rdolib as rdo
from rdolib.shaping import ShapedMDP, shaped_rewards
from rdolib.stock import end_components
from tests import naive, strategies
from tests.naive import Table
from tests.test_beyond import VECTORS, planar
from tests.theory import theory

modest = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
STOCKS = [-1.5, 0.0, 2.0]
GAMMAS = [1.0, 0.5, 0.9]
ZERO = F(0)

#: Objectives, and the same utilities on fractions.
SCALARS: dict[str, tuple[rdo.ExpectedUtility, Callable[[F], Any]]] = {
    "mean": (rdo.Mean(), lambda x: x),
    "two slopes": (rdo.TwoSlope(2.0, 0.5), lambda x: 2 * min(x, ZERO) + max(x, ZERO) / 2),
    "opposite slopes": (rdo.TwoSlope(-1.0, 2.0), lambda x: -min(x, ZERO) + 2 * max(x, ZERO)),
    "distance": (rdo.TargetReturn(), lambda x: -abs(x)),
    "shortfall": (rdo.Shortfall(), lambda x: min(x, ZERO)),
    "surplus": (rdo.Surplus(), lambda x: max(x, ZERO)),
    "threshold": (rdo.Threshold(), lambda x: F(x >= 0)),
    "squares": (rdo.Quadratic(), lambda x: -x * x),
    "cubes": (rdo.ExpectedUtility(lambda x: x**3, degree=3.0), lambda x: x**3),
    "exponential": (rdo.Exponential(-0.5), lambda x: float(np.expm1(-0.5 * float(x)) / -0.5)),
    "sigmoid": (rdo.ExpectedUtility(np.tanh, lipschitz=1.0), lambda x: float(np.tanh(float(x)))),
}
scalars = st.sampled_from(sorted(SCALARS))


def quantecon(shaped: ShapedMDP) -> np.ndarray[Any, Any]:
    """Optimal values of all nodes by QuantEcon."""
    ddp = shaped.to_discrete_dp()
    if shaped.mdp.gamma < 1:
        return np.asarray(ddp.solve(method="policy_iteration").v)
    assert shaped.steps is not None
    return np.asarray(backward_induction(ddp, shaped.steps)[0][0])


def agree(mdp: rdo.MDP, objective: rdo.ExpectedUtility, stocks: Any, horizon: int | None, peer: bool = True) -> None:
    """Both solvers of the shaped MDP against value iteration on the objective, at every state and stock."""
    shaped = shaped_rewards(mdp, objective, stocks, horizon)
    values = quantecon(shaped) if peer and (shaped.mdp.gamma < 1 or shaped.steps) else None
    ordinary = rdo.value_iteration(shaped.mdp, rdo.Mean())
    solution = rdo.value_iteration(mdp, objective, stocks, horizon)
    for state in range(mdp.n_states):
        for stock in stocks:
            node, offset = shaped.index(state, stock), shaped.offset(state, stock)
            low, high = solution.bounds(state, stock)
            assert offset == objective.utility(np.array([stock]), mdp.reward_dim)[0]
            assert shaped.states[node] == (-1 if mdp.terminal[state] else state)
            assert low - 1e-9 <= offset + ordinary.objective_value(node) <= high + 1e-9
            assert high - low <= 2e-12 * max(1.0, abs(low)) or objective.degree == 0 or low == high == -np.inf
            if values is not None:
                assert low - 1e-9 <= offset + values[node] <= high + 1e-9


# --------------------------------------------------------------------------------------------------
# the same optimum


@pytest.mark.parametrize("name", SCALARS)
@pytest.mark.parametrize("gamma", GAMMAS)
def test_finite_horizons(name: str, gamma: float) -> None:
    for seed in range(3):
        mdp = rdo.MDP.garnet(3, 2, 2, seed=seed, gamma=gamma, terminal_probability=0.2)
        for horizon in (1, 2, 5):
            agree(mdp, SCALARS[name][0], STOCKS, horizon)


@theory("7.11")
@modest
@given(strategies.tables(), st.sampled_from(strategies.GAMMAS), scalars, st.integers(1, 3), strategies.stocks())
def test_exhaustive_search(table: Table, gamma: F, name: str, horizon: int, stock: F) -> None:
    """Awkward problems, in exact fractions, with no code of the library in common."""
    mdp = rdo.MDP.from_outcomes(strategies.floats(table), gamma=float(gamma))
    objective, f = SCALARS[name]
    shaped = shaped_rewards(mdp, objective, float(stock), horizon)
    values = quantecon(shaped)
    for state in table:
        exact = naive.best_utility(table, gamma, state, horizon, f, stock)
        found = shaped.offset(state, float(stock)) + values[shaped.index(state, float(stock))]
        assert found == pytest.approx(float(exact), abs=1e-9)


@modest
@given(strategies.tables(layered=True), st.sampled_from(strategies.GAMMAS), scalars, strategies.stocks())
def test_paths_that_end_need_no_horizon(table: Table, gamma: F, name: str, stock: F) -> None:
    mdp = rdo.MDP.from_outcomes(strategies.floats(table), gamma=float(gamma))
    objective, f = SCALARS[name]
    if gamma < 1 and objective.degree is None:
        with pytest.raises(rdo.NotOptimizableError, match="indifference to gamma"):
            shaped_rewards(mdp, objective, float(stock))
        return
    shaped = shaped_rewards(mdp, objective, float(stock))
    assert (shaped.times == 0).all()
    values = quantecon(shaped)
    for state in table:
        exact = naive.best_utility(table, gamma, state, len(table), f, stock)
        found = shaped.offset(state, float(stock)) + values[shaped.index(state, float(stock))]
        assert found == pytest.approx(float(exact), abs=1e-9)


@pytest.mark.parametrize("name", ["mean", "two slopes", "opposite slopes", "distance", "shortfall", "surplus"])
def test_endless_discounted(name: str) -> None:
    """Gamma = 1/2: the stocks lie on a lattice and saturate, so that finitely many matter."""
    for seed in range(4):
        for rewards in (range(-3, 4), (1.0, 2.0), (-2.0, -1.5)):
            mdp = rdo.MDP.garnet(4, 2, 2, seed=seed, gamma=0.5, rewards=rewards, terminal_probability=0.1)
            agree(mdp, SCALARS[name][0], [*STOCKS, -2.75, 0.3], None)


@pytest.mark.parametrize("name", ["mean", "two slopes", "opposite slopes", "distance", "shortfall", "surplus"])
def test_endless_with_rare_rewards(name: str) -> None:
    """Gamma = 0.9, and most steps earn nothing: the stock leaves the band by growing."""
    table = {
        0: {0: [(0.5, 1, 0.0, False), (0.5, 0, 0.0, False)], 1: [(1.0, 1, 1.0, False)]},
        1: {0: [(0.7, 2, 0.0, False), (0.3, 0, 0.0, False)]},
        2: {0: [(0.5, 2, 3.0, True), (0.5, 2, -1.0, True)], 1: [(1.0, 2, 0.5, True)]},
    }
    table[0][1] = [(1.0, 2, 0.25, False)]
    agree(rdo.MDP.from_outcomes(table, gamma=0.9), SCALARS[name][0], STOCKS, None)


@pytest.mark.parametrize("name", ["two slopes", "opposite slopes", "distance", "shortfall", "surplus", "threshold"])
def test_endless_undiscounted(name: str) -> None:
    """Gamma = 1, cycles included; QuantEcon has no method for cycles."""
    shaped, refused = 0, 0
    for seed in range(8):
        for rewards in (range(-3, 4), (-2.0, -1.0), (0.0, 0.0, 1.0)):
            mdp = rdo.MDP.garnet(3, 2, 2, seed=seed, rewards=rewards, terminal_probability=0.4)
            try:
                shaped_rewards(mdp, SCALARS[name][0], STOCKS, memory=2**20)
            except rdo.NotOptimizableError:
                refused += 1
                continue
            agree(mdp, SCALARS[name][0], STOCKS, None, peer=False)
            shaped += 1
    assert shaped >= 3 and refused >= 3


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("gamma", GAMMAS)
def test_vector_rewards(name: str, gamma: float) -> None:
    stocks = [[0.5, -1.0], [2.0, 0.0], [-3.0, 2.0]]
    for seed in range(3):
        agree(planar(seed, gamma), VECTORS[name], stocks, 4)
        ends = {0: {a: [(0.5, 1, (a, -1.0), False), (0.5, 1, (-1.0, seed), False)] for a in range(2)}}
        ends[1] = {a: [(0.5, 2, (1.0, -a), True), (0.5, 2, (a, 0.5), True)] for a in range(2)}
        agree(rdo.MDP.from_outcomes(ends, gamma=gamma), VECTORS[name], stocks, None)


def test_other_methods_of_quantecon() -> None:
    mdp = rdo.MDP.garnet(4, 2, 2, seed=0, gamma=0.5)
    shaped = shaped_rewards(mdp, rdo.Shortfall(), STOCKS)
    ddp = shaped.to_discrete_dp()
    expected = rdo.value_iteration(mdp, rdo.Shortfall(), STOCKS)
    for method in ("value_iteration", "modified_policy_iteration", "policy_iteration"):
        values = ddp.solve(method=method, epsilon=1e-11, max_iter=1000).v
        for state in range(4):
            for stock in STOCKS:
                found = shaped.offset(state, stock) + values[shaped.index(state, stock)]
                assert found == pytest.approx(expected.objective_value(state, stock), abs=1e-9)


def test_the_greedy_policy_of_the_ordinary_solver_attains_the_objective() -> None:
    """QuantEcon's policy, read as a policy on states and stocks, is evaluated on the original problem."""
    mdp = rdo.MDP.garnet(4, 3, 2, seed=5, gamma=0.5)
    shaped = shaped_rewards(mdp, rdo.TargetReturn(), -2.0, horizon=6)
    sigma = shaped.to_discrete_dp().solve(method="policy_iteration").sigma

    class Played:
        def actions(self, states: Any, stocks: Any, t: int) -> Any:
            return np.array([sigma[shaped.index(int(s), c, t)] for s, c in zip(states, stocks, strict=True)])

    best = rdo.value_iteration(mdp, rdo.TargetReturn(), -2.0, horizon=6)
    for state in range(4):
        law = rdo.evaluate(mdp, Played(), horizon=6)(state, -2.0)
        reached = rdo.TargetReturn()(law + -2.0)
        assert reached == pytest.approx(best.objective_value(state, -2.0), abs=1e-9)


# --------------------------------------------------------------------------------------------------
# every path


def paths(
    mdp: rdo.MDP, node: int, t: int, weight: float, choose: Callable[[int, int], int]
) -> list[tuple[float, float]]:
    """(total of discounted rewards, probability) of every path; ``choose(node, t)`` numbers the actions."""
    if mdp.terminal[node]:
        return [(0.0, 1.0)]
    actions = mdp.actions(node)
    found = []
    for prob, after, reward, ended in mdp.outcomes(node, int(actions[choose(node, t) % len(actions)])):
        rest = [(0.0, 1.0)] if ended else paths(mdp, after, t + 1, weight * mdp.gamma, choose)
        found += [(weight * reward + total, prob * p) for total, p in rest]
    return found


@theory("7.11")
@modest
@given(
    strategies.tables(), st.sampled_from(strategies.GAMMAS), scalars, st.integers(1, 4), strategies.stocks(), st.data()
)
def test_the_rewards_of_every_path_add_up(
    table: Table, gamma: F, name: str, horizon: int, stock: F, data: st.DataObject
) -> None:
    """The law of f(c_0) + the sum of shaped rewards is the law of f(c_0 + G), under a policy drawn at random."""
    objective, f = SCALARS[name]
    rule = data.draw(st.lists(st.integers(0, 1), min_size=12, max_size=12))
    shaped = shaped_rewards(
        rdo.MDP.from_outcomes(strategies.floats(table), gamma=float(gamma)), objective, float(stock), horizon
    )

    def action(state: int, t: int) -> int:
        return rule[(3 * t + state) % 12]

    def play(state: int, _: Any, t: int) -> int:
        return sorted(table[state])[action(state, t) % len(table[state])]

    state = min(table)
    assume(len(shaped.mdp.actions(shaped.index(state, float(stock)))) == len(table[state]))
    walked = paths(
        shaped.mdp, shaped.index(state, float(stock)), 0, 1.0, lambda node, t: action(int(shaped.states[node]), t)
    )
    sums = rdo.Distribution([shaped.offset(state, float(stock)) + x for x, _ in walked], [p for _, p in walked])
    true = naive.replay(table, gamma, state, horizon, play)
    worth = rdo.Distribution([float(f(stock + x)) for x, _ in true], [float(p) for _, p in true])
    assert rdo.wasserstein(sums, worth, p=float("inf")) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_each_reward_is_what_the_stock_gains(gamma: float) -> None:
    """The formula itself, node by node, for a utility that never saturates; degree 2 discounts by gamma squared."""
    mdp = rdo.MDP.garnet(3, 2, 2, seed=3, gamma=gamma, terminal_probability=0.3)
    shaped = shaped_rewards(mdp, rdo.Quadratic(), STOCKS, horizon=3)
    assert shaped.mdp.gamma == pytest.approx(gamma**2)
    seen = 0
    for node in range(shaped.mdp.n_states - 1):
        state, stock, t = int(shaped.states[node]), float(shaped.stocks[node]), int(shaped.times[node])
        assert shaped.index(state, stock, t) == node
        for action in mdp.actions(state):
            expected: dict[tuple[int, float], float] = {}
            for prob, after, reward, ended in mdp.outcomes(state, int(action)):
                then = (stock + reward) / gamma
                target = shaped.mdp.n_states - 1 if ended or t == 2 else shaped.index(after, then, t + 1)
                key = target, round(stock**2 - (gamma * then) ** 2, 9)
                expected[key] = expected.get(key, 0.0) + prob
            found: dict[tuple[int, float], float] = {}
            for prob, target, reward, _ in shaped.mdp.outcomes(node, int(action)):
                key = target, round(reward, 9) + 0.0
                found[key] = found.get(key, 0.0) + prob
            assert found == pytest.approx(expected, abs=1e-12)
            seen += 1
    assert seen > 30


def test_ended_outcomes_earn_nothing_more() -> None:
    """An outcome that ends the return counts its own stock, whatever its next state could still earn."""
    table = {0: {0: [(0.5, 0, -1.0, True), (0.5, 1, -1.0, False)]}, 1: {0: [(1.0, 2, 5.0, True)]}}
    shaped = shaped_rewards(rdo.MDP.from_outcomes(table, gamma=0.5), rdo.Shortfall(), 0.0)
    value = rdo.value_iteration(shaped.mdp, rdo.Mean()).objective_value(shaped.index(0, 0.0))
    assert value == -0.5  # -1 with one half, and -1 + 5/2 > 0 with the other


def test_saturation_across_zero() -> None:
    """From stock -5 the return is surely 10: worth 5, though the stock is still negative when it is saturated."""
    mdp = rdo.MDP.from_outcomes({0: {0: [(1.0, 1, 0.0, False)]}, 1: {0: [(1.0, 2, 10.0, True)]}})
    shaped = shaped_rewards(mdp, rdo.TwoSlope(3.0, 1.0), -5.0)
    start = shaped.index(0, -5.0)
    assert shaped.offset(0, -5.0) == -15.0
    [(prob, node, reward, ended)] = shaped.mdp.outcomes(start, 0)
    assert (prob, reward, ended) == (1.0, 10.0, False)  # from 3 * -5 to the line 1 * -5
    assert shaped.stocks[node] == np.inf
    assert shaped.mdp.outcomes(node, 0) == [(1.0, shaped.mdp.n_states - 1, 10.0, True)]


# --------------------------------------------------------------------------------------------------
# what the result offers


def test_indices_of_later_steps() -> None:
    mdp = rdo.MDP.from_outcomes({0: {0: [(1.0, 0, 1.0, False)], 1: [(0.5, 0, 2.0, False), (0.5, 1, 0.0, True)]}})
    shaped = shaped_rewards(mdp, rdo.Quadratic(), -3.0, horizon=3)
    end = shaped.mdp.n_states - 1
    assert [shaped.index(0, -3.0, 0), shaped.index(0, -2.0, 1), shaped.index(0, -1.0, 1)] == [0, 1, 2]
    assert shaped.index(1, 0.0, 1) == shaped.index(0, -3.0, 3) == end
    assert shaped.states[end] == -1 and np.isnan(shaped.stocks[end]) and shaped.mdp.terminal[end]
    with pytest.raises(rdo.InvalidArgumentError, match="cannot be reached"):  # no path is under way at step 2
        shaped_rewards(rdo.MDP.from_outcomes({0: {0: [(1.0, 0, 1.0, True)]}}), rdo.Quadratic(), horizon=3).index(
            0, 1.0, 2
        )
    for bad, match in [((0, 7.0, 1), "cannot be reached"), ((5, 0.0), "does not exist"), ((0, 0.0, 4), "at most")]:
        with pytest.raises(rdo.InvalidArgumentError, match=match):
            shaped.index(*bad)


def test_stocks_that_matter_no_more_share_a_node() -> None:
    mdp = rdo.MDP.garnet(3, 2, 2, seed=1, gamma=0.5)
    shaped = shaped_rewards(mdp, rdo.TwoSlope(2.0, 1.0), [0.0, 50.0])
    above = [s for s, c in zip(shaped.states, shaped.stocks, strict=True) if c == np.inf]
    assert above == [0, 1, 2]
    assert shaped.index(0, 50.0) != shaped.index(0, 60.0) == shaped.index(0, 70.0)  # the one asked for has its own
    flat = shaped_rewards(mdp, rdo.Shortfall(), 0.0)
    assert not (flat.stocks == np.inf).any()
    assert flat.index(0, 60.0) == flat.mdp.n_states - 1


def test_the_start_is_the_original_one() -> None:
    table = {0: {0: [(1.0, 1, 1.0, False)]}, 1: {0: [(1.0, 2, 1.0, True)]}}
    shaped = shaped_rewards(rdo.MDP.from_outcomes(table, initial=1), rdo.Quadratic(), [0.0, -2.0])
    assert shaped.mdp.initial == shaped.index(1, -2.0)
    mixed = shaped_rewards(rdo.MDP.from_outcomes(table, initial=[0.25, 0.5, 0.25]), rdo.Quadratic(), -2.0)
    assert isinstance(mixed.mdp.initial, np.ndarray)
    for state, prob in ((0, 0.25), (1, 0.5), (2, 0.25)):
        assert mixed.mdp.initial[mixed.index(state, -2.0)] == prob


def test_arrays_are_arguments_of_quantecon_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    shaped = shaped_rewards(rdo.MDP.garnet(3, 2, 2, seed=0, gamma=0.5), rdo.Shortfall(), 0.0)
    arrays = shaped.arrays()
    assert set(arrays) == {"R", "Q", "beta", "s_indices", "a_indices"}
    assert np.abs(arrays["Q"].sum(axis=1) - 1).max() < 1e-12
    end = shaped.mdp.n_states - 1
    assert arrays["R"][arrays["s_indices"] == end].tolist() == [0.0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = DiscreteDP(**arrays).solve(method="policy_iteration").v
    assert ours == pytest.approx(quantecon(shaped), abs=1e-12)
    monkeypatch.setitem(sys.modules, "quantecon.markov", None)
    with pytest.raises(ImportError, match="pip install quantecon"):
        shaped.to_discrete_dp()


# --------------------------------------------------------------------------------------------------
# refusals


def stay() -> rdo.MDP:
    """THEORY 5.10: stock -2, A: 1 for ever reaches zero in the limit only; B: 4 or 0, and the end."""
    return rdo.MDP.from_outcomes({0: {0: [(1.0, 0, 1.0, False)], 1: [(0.5, 1, 4.0, True), (0.5, 1, 0.0, True)]}}, 0.5)


def test_the_threshold_on_endless_paths_is_refused_because_the_sum_would_be_wrong() -> None:
    with pytest.raises(rdo.NotOptimizableError, match="positive degree"):
        shaped_rewards(stay(), rdo.Threshold(), -2.0)
    # Along A the stock stays at -2, so every shaped reward is 0; the return is 2 and its utility 1.
    assert rdo.value_iteration(stay(), rdo.Threshold(), -2.0).objective_value(0, -2.0) == 1.0
    # With a horizon, or where every policy ends, the sum has finitely many terms.
    agree(stay(), rdo.Threshold(), [-2.0, -1.0], 5)
    ends = rdo.MDP.from_outcomes({0: {0: [(0.5, 0, 1.0, False), (0.5, 0, 0.0, True)]}}, 0.5)
    assert (end_components(ends) < 0).all()
    agree(ends, rdo.Threshold(), [-1.0, -1.75, 0.0], None, peer=False)


@pytest.mark.parametrize(
    ("objective", "match"),
    [
        (rdo.EssInf(), "not an expected utility"),
        (rdo.EssSup(), "not an expected utility"),
        (rdo.Lexicographic(rdo.Threshold(), rdo.Mean()), "not an expected utility"),
        (rdo.CVaR(0.1), "indifference to mixtures"),
        (rdo.Median(), "indifference to mixtures"),
        (rdo.Variance(), "indifference to mixtures"),
    ],
)
def test_objectives_that_are_no_sum_of_rewards(objective: rdo.Objective, match: str) -> None:
    with pytest.raises(rdo.NotOptimizableError, match=match):
        shaped_rewards(stay(), objective, horizon=3)


def test_other_refusals() -> None:
    with pytest.raises(rdo.NotOptimizableError, match="indifference to gamma"):
        shaped_rewards(stay(), rdo.Exponential(-1.0))
    with pytest.raises(rdo.NotOptimizableError, match="infinitely many"):
        shaped_rewards(stay(), rdo.Quadratic(), 1.0)
    with pytest.raises(rdo.NotOptimizableError, match="infinitely many"):
        shaped_rewards(rdo.MDP.garnet(3, 2, 2, gamma=0.9), rdo.Shortfall(), memory=2**22)
    with pytest.raises(rdo.MemoryLimitError, match="shorten the horizon"):
        shaped_rewards(rdo.MDP.garnet(3, 2, 2, gamma=0.9), rdo.Shortfall(), horizon=60, memory=2**20)
    ratio = rdo.ExpectedUtility(lambda x: x[..., 0] / (1e-300 + np.abs(x).sum(axis=-1)), degree=1.0)
    with pytest.raises(rdo.NotOptimizableError, match="continuous"):
        shaped_rewards(planar(0, 0.5, p_end=0.0), ratio)
    log = rdo.ExpectedUtility(lambda x: np.log(np.maximum(x, 0.0)))
    with pytest.raises(rdo.InvalidArgumentError, match="infinite"):
        shaped_rewards(rdo.MDP.from_outcomes({0: {0: [(1.0, 1, 1.0, True)]}}), log)
    with pytest.raises(rdo.InvalidArgumentError, match="horizon"):
        shaped_rewards(stay(), rdo.Mean(), horizon=0)
    with pytest.raises(rdo.InvalidArgumentError, match=r"rdo\.MDP"):
        shaped_rewards("mdp", rdo.Mean())  # type: ignore[arg-type]


def test_a_cycle_that_earns_is_refused_because_the_sum_need_not_settle() -> None:
    """+1 and -1 for ever: the sum of the shaped rewards would settle at the utility 1, but the return never does."""
    leave = [(0.5, 1, -3.0, True), (0.5, 1, -2.0, True)]
    mdp = rdo.MDP.from_outcomes({0: {0: [(1.0, 1, 1.0, False)], 1: leave}, 1: {0: [(1.0, 0, -1.0, False)]}})
    with pytest.raises(rdo.NotOptimizableError, match=r"states \[0, 1\] can be cycled"):
        shaped_rewards(mdp, rdo.Threshold(), 2.0)
    assert rdo.value_iteration(mdp, rdo.Threshold(), 2.0).objective_value(0, 2.0) == 0.5
    agree(mdp, rdo.Threshold(), [2.0], 3)


def test_resting_is_an_end() -> None:
    """A state in which nothing is earned any more, with gamma = 1: the return has settled."""
    mdp = rdo.MDP.from_outcomes(
        {
            0: {0: [(1.0, 0, 0.0, False)], 1: [(0.5, 1, 2.0, False), (0.5, 1, -3.0, False)]},
            1: {0: [(1.0, 0, 0.0, False)]},
        }
    )
    with pytest.raises(rdo.NotOptimizableError):  # it can play again and again
        shaped_rewards(mdp, rdo.Quadratic(), -1.0)
    once = rdo.MDP.from_outcomes(
        {
            0: {0: [(1.0, 0, 0.0, False)], 1: [(0.5, 1, 2.0, False), (0.5, 1, -3.0, False)]},
            1: {0: [(1.0, 1, 0.0, False)]},
        }
    )
    agree(once, rdo.Quadratic(), [-1.0, 0.0, 1.0, 3.0], None, peer=False)
