"""The examples against exhaustive search in exact fractions, and against the recursion that they fool."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction as F
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rdolib import examples
from rdolib.distributions import CategoricalGrid, Distribution, QuantileGrid, mixture, wasserstein
from rdolib.examples import Example, recursion
from rdolib.mdp import MDP
from rdolib.objectives import Homeostasis, Shortfall, TargetReturn, Threshold
from rdolib.risk import CVaR, Median, OptimisticCVaR, Variance
from tests import naive, strategies
from tests.naive import Law, Table
from tests.test_naive import FORKS

FORK = examples.forks()
#: How many sweeps are tried where a statement holds for every number of them.
SWEEPS = range(1, 25)


def exact(mdp: MDP) -> tuple[Table, F]:
    """The table and the discount of an example, in fractions; its numbers have small denominators."""

    def fraction(x: float) -> F:
        return F(x).limit_denominator(1000)

    table = {
        s: {
            a: [(fraction(p), t, fraction(r), ended) for p, t, r, ended in mdp.outcomes(s, a)]
            for a in mdp.actions(s).tolist()
        }
        for s in range(mdp.n_states)
        if not mdp.terminal[s]
    }
    return table, fraction(mdp.gamma)


def floats(nu: Law) -> Distribution:
    return Distribution([float(x) for x, _ in nu], [float(p) for _, p in nu])


def values(example: Example, horizon: int) -> set[Any]:
    """The objective's value of stock + G for every deterministic policy with any memory."""
    table, gamma = exact(example.mdp)
    laws = naive.laws(table, gamma, int(example.mdp.initial), horizon)
    return {example.objective(floats(nu) + example.stock) for nu in laws}


# The forks.


@pytest.mark.parametrize("name", FORK)
def test_fork_equals_exhaustive_search_and_fools_the_recursion(name: str) -> None:
    one = FORK[name]
    found = values(one, 2)
    assert max(found) == pytest.approx(one.optimum, rel=1e-14)
    assert any(value == pytest.approx(one.naive, rel=1e-14) for value in found)
    value, law, _ = recursion(one.mdp, one.objective, one.stock, 2)
    assert value == pytest.approx(one.naive, rel=1e-14)
    assert value == pytest.approx(one.objective(law), rel=1e-14)
    assert one.naive < one.optimum - 0.1


@pytest.mark.parametrize("name", FORKS)
def test_fork_equals_its_exact_twin(name: str) -> None:
    """The numbers of the examples are those of the oracle's own table, which is in fractions."""
    p, a, b, rest, _, greedy, optimum = FORKS[name]
    table, _ = exact(FORK[name].mdp)
    assert naive.laws(table, F(1), 0, 2) == {naive.mix([(p, x), (1 - p, rest)]) for x in (a, b)}
    power = 2 if name == "sharpe" else 1  # the oracle's Sharpe ratio is squared, to stay rational
    assert FORK[name].naive ** power == pytest.approx(float(greedy), rel=1e-14)
    assert FORK[name].optimum ** power == pytest.approx(float(optimum), rel=1e-14)


def test_every_fork_has_a_twin() -> None:
    assert FORK.keys() - FORKS.keys() == {"exponential"}  # its twin is worked out in test_naive


def test_a_coin_does_not_help_at_the_optimistic_fork() -> None:
    """The optimum of that row is over deterministic policies; here mixing does not beat it."""
    table, gamma = exact(FORK["optimistic"].mdp)
    assert naive.best_optimistic_cvar(table, gamma, 0, 2, F(1, 2)) == 5


def test_fork_takes_laws_in_three_forms() -> None:
    nu = Distribution([0, 4], [0.5, 0.5])
    one = examples.fork(0.5, nu, 1, 1.0)
    two = examples.fork(0.5, {0: 0.5, 4: 0.5}, {1: 1.0}, Distribution([1], [1]))
    for state, actions in ((0, 1), (1, 2), (2, 1)):
        assert one.actions(state).tolist() == list(range(actions))
        for action in range(actions):
            assert one.outcomes(state, action) == two.outcomes(state, action)
    with pytest.raises(ValueError, match=r"sum to 0\.5; they must sum to 1"):
        examples.fork(0.5, 1, 2)  # the other half is missing


# Necessity: any violation of indifference to mixtures gives a problem on which the recursion fails.


@pytest.mark.parametrize("objective", [Median(), Variance(), CVaR(0.5), OptimisticCVaR(0.5)], ids=repr)
def test_every_violation_fools_the_recursion(objective: Any) -> None:
    rng = np.random.default_rng(0)
    violations = 0
    for _ in range(400):
        p = rng.integers(1, 4) / 4
        laws = [Distribution(rng.integers(0, 7, 2), [q, 1 - q]) for q in rng.integers(1, 4, 4) / 4]
        pairs = [sorted(laws[i : i + 2], key=objective, reverse=True) for i in (0, 2)]
        better, worse = (mixture(list(column), [p, 1 - p]) for column in zip(*pairs, strict=True))
        mdp = examples.necessity([(p, *pairs[0]), (1 - p, *pairs[1])])
        value, law, _ = recursion(mdp, objective, horizon=2)
        assert law.allclose(better)
        if objective(better) < objective(worse) - 1e-9:
            violations += 1
            assert value < objective(worse) - 1e-9
    assert violations > 3


def test_an_expected_utility_has_no_such_family() -> None:
    """The same search finds nothing where the objective is indifferent to mixtures."""
    rng = np.random.default_rng(1)
    for _ in range(500):
        laws = [Distribution(rng.integers(-3, 4, 2), [q, 1 - q]) for q in rng.integers(1, 4, 4) / 4]
        pairs = [sorted(laws[i : i + 2], key=Shortfall(), reverse=True) for i in (0, 2)]
        better, worse = (mixture(list(column), [0.25, 0.75]) for column in zip(*pairs, strict=True))
        assert Shortfall()(better) >= Shortfall()(worse) - 1e-12


# The recursion itself, where it is right.


def exact_value(objective: Any) -> Callable[[F], F]:
    return {
        "TargetReturn()": lambda x: -abs(x),
        "Shortfall()": lambda x: min(x, F(0)),
        "Threshold()": lambda x: F(x >= 0),
    }[repr(objective)]


@settings(max_examples=60, deadline=None)
@given(
    strategies.tables(rewards=strategies.HALVES),
    st.sampled_from([F(1), F(1, 2)]),
    strategies.stocks().filter(lambda c: c.denominator <= 2),
    st.sampled_from([TargetReturn(), Shortfall(), Threshold()]),
    st.integers(0, 3),
)
def test_recursion_equals_exhaustive_search_for_expected_utilities(table, gamma, stock, objective, horizon):
    mdp = MDP.from_outcomes(strategies.floats(table), gamma=float(gamma))
    value, law, action = recursion(mdp, objective, float(stock), horizon)
    truth = naive.best_utility(table, gamma, 0, horizon, exact_value(objective), stock)
    assert value == pytest.approx(float(truth), abs=1e-12)
    assert value == pytest.approx(objective(law + float(stock)), abs=1e-12)
    assert (action is None) == (horizon == 0 or bool(mdp.terminal[0]))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([1, 2, np.inf]))
def test_recursion_on_vector_rewards(seed: int, norm: float) -> None:
    """All action sequences of two coins, without chance: the best is found by trying them all."""
    rng = np.random.default_rng(seed)
    rewards = rng.integers(-2, 3, (2, 3, 2))
    table = {s: {a: [(1.0, s + 1, tuple(rewards[s, a]), s == 1)] for a in range(3)} for s in range(2)}
    stock = rng.integers(-2, 3, 2)
    truth = max(-np.linalg.norm(stock + rewards[0, a] + rewards[1, b], norm) for a in range(3) for b in range(3))
    value, law, _ = recursion(MDP.from_outcomes(table), Homeostasis(norm), stock, 2)
    assert value == pytest.approx(truth, rel=1e-14)
    assert law.atoms.shape == (1, 2)


# Failures of value iteration without continuity.


def test_late_gain() -> None:
    trap = examples.late_gain()
    for n in SWEEPS:
        assert recursion(trap.mdp, trap.objective, trap.stock, n)[::2] == (trap.naive, 1)
    # For ever: 1 + 2/2 = 2 solves x = 1 + x/2, so action 0 earns exactly what is missing.
    assert F(1) + F(1, 2) * F(2) == 2 == -F(trap.stock)
    solved = {0: {0: [(F(1), 2, F(2), True)], 1: [(F(1, 2), 2, F(4), True), (F(1, 2), 2, F(0), True)]}}
    assert naive.best(solved, F(1), 0, 1, naive.chance, F(trap.stock)) == trap.optimum


def test_lexicographic_trap() -> None:
    trap = examples.lexicographic_trap()
    for n in SWEEPS:
        assert recursion(trap.mdp, trap.objective, trap.stock, n)[::2] == (trap.naive, 0)
    # The first branch of action 1 is worth -1 + 2/2 = 0 for ever; the other ends with 10.
    truth = trap.objective(Distribution([0, 10], [0.5, 0.5]))
    assert max(truth, trap.objective(Distribution([0], [1]))) == truth == trap.optimum
    # Cut after n steps it is -1 + (2 - 2 * 2**-(n-1)) / 2 = -2**-(n-1).
    table, gamma = exact(trap.mdp)
    for n in (1, 2, 5):
        cut = naive.replay(table, gamma, 0, n, lambda s, *_: int(s == 0))
        assert naive.law(cut) == naive.law({-F(1, 2 ** (n - 1)): F(1, 2), 10: F(1, 2)})


def test_tie_trap() -> None:
    trap = examples.tie_trap()
    table, gamma = exact(trap.mdp)
    stock, start = F(trap.stock), int(trap.mdp.initial)

    def above(nu: Law) -> F:
        return sum((p for x, p in nu if x > 0), F(0))

    # Stopping after any number of steps is worth 1/2: the stock is 2 every time.
    for k in range(6):
        law = naive.replay(table, gamma, start, k + 1, lambda s, c, t, k=k: int(t == k), stock)
        assert above(naive.shift(law, stock)) == F(trap.optimum)
    # Greedy improvement on "always stop" sees a tie and takes action 0 ...
    stop = Distribution([0, -9], [0.5, 0.5])
    once = 0.5 * stop - 1
    assert trap.objective(once + trap.stock) == trap.objective(stop + trap.stock) == trap.optimum
    # ... and taken for ever it earns -1 / (1 - 1/2) = -2: nothing is left of the stock.
    assert F(-1) + F(1, 2) * F(-2) == -2 == -stock
    assert trap.objective(Distribution([-2], [1]) + trap.stock) == trap.naive


# Where a clock is needed, and where laws flicker.


def test_clock() -> None:
    two = examples.clock()
    table, gamma = exact(two.mdp)
    stocks = range(-4, 0)
    best = {c: naive.best(table, gamma, 0, 2, naive.chance, F(c)) for c in stocks}
    assert best[-2] == two.optimum == recursion(two.mdp, two.objective, two.stock, 2)[0]
    losses, kept = [], []
    for choice in itertools.product((0, 1), repeat=len(stocks)):
        policy = dict(zip(stocks, choice, strict=True))
        # From 0 upwards every action reaches the aim, below -4 none does.
        act = lambda s, c, t, policy=policy: policy.get(int(c), 0)  # noqa: E731
        value = {c: naive.chance(naive.replay(table, gamma, 0, 2, act, F(c)), F(-c)) for c in stocks}
        losses.append(max(best[c] - value[c] for c in stocks))
        if policy[-2] == 1:
            kept.append(value[-2])
    assert min(losses) == F(1, 4)
    assert max(kept) == two.naive


def test_flickering() -> None:
    jumpy = examples.flickering()
    results = [recursion(jumpy.mdp, jumpy.objective, jumpy.stock, n) for n in SWEEPS]
    assert {value for value, _, _ in results} == {jumpy.naive} == {jumpy.optimum}
    assert [action for _, _, action in results] == [0, 1] * (len(SWEEPS) // 2)
    # The point cut after n steps is 2/3 (1 + 2**-n) for odd n, and E{1, 3} = 2.
    for n, ((_, nu, _), (_, mu, _)) in zip(SWEEPS, itertools.pairwise(results), strict=False):
        odd = n if n % 2 else n + 1
        assert wasserstein(nu, mu) == pytest.approx(2 - 2 / 3 * (1 + 0.5**odd), rel=1e-12)


# Outer searches.


def test_two_hills() -> None:
    hills = examples.two_hills()
    table, gamma = exact(hills.mdp)

    def g(b: int) -> F:
        return b + 2 * F(naive.best_utility(table, gamma, 0, 1, lambda x: min(x, F(0)), F(-b)))

    assert [g(b) for b in (0, 1, 2, 5, 6)] == [0, F(hills.naive), 0, F(hills.optimum), F(1, 2)]
    assert naive.best_cvar(table, gamma, 0, 1, F(1, 2)) == F(hills.optimum)
    assert recursion(hills.mdp, hills.objective, horizon=1)[0] == hills.optimum  # one step mixes nothing


def test_coin_helps() -> None:
    coin = examples.coin_helps()
    table, gamma = exact(coin.mdp)
    assert max(values(coin, 1)) == coin.naive == recursion(coin.mdp, coin.objective, horizon=1)[0]
    assert float(naive.best_optimistic_cvar(table, gamma, 0, 1, F(1, 2))) == coin.optimum


# Tight bounds.


@pytest.mark.parametrize("n", [0, 1, 2, 10, 30])
def test_tight_truncation(n: int) -> None:
    one = examples.tight_truncation(n)
    value, law, _ = recursion(one.mdp, one.objective, horizon=n)
    limit = Distribution([one.optimum], [1])
    assert value == one.naive
    assert one.optimum - value == 0.5**n * wasserstein(Distribution([0], [1]), limit) == wasserstein(law, limit)


def test_tight_projection() -> None:
    one = examples.tight_projection()
    grid, law, moved = QuantileGrid(1), Distribution([0], [1]), []
    for n in range(1, 12):
        step = mixture([0.5 * law + r for _, _, r, _ in one.mdp.outcomes(0, 0)], [0.5, 0.5])
        law = Distribution(step.project(grid).atoms, [1])
        moved.append(wasserstein(step, law))
        assert one.objective(law) == one.naive
        epsilon = max(moved)
        # G is nonnegative with mean 1, so its distance from the point 0 is 1.
        assert one.optimum - one.naive == 0.5**n * 1 + epsilon * (1 - 0.5**n) / (1 - 0.5)
    assert set(moved) == {grid.w1_bound(0, 1)}
    # A representation that keeps the mean makes no error here.
    assert step.project(CategoricalGrid(0, 2, 3)).mean() == pytest.approx(step.mean(), rel=1e-14)
    # The optimum, by summing: E G = sum of 2**-t / 2.
    assert sum(F(1, 2) ** t / 2 for t in range(60)) == pytest.approx(one.optimum, abs=1e-15)


@given(st.integers(0, 3), st.integers(0, 3))
def test_ties_go_to_the_lowest_action(first: int, second: int) -> None:
    assume(first != second)
    mdp = MDP.from_outcomes({0: {a: [(1.0, 1, 1.0, True)] for a in (first, second)}})
    assert recursion(mdp, Shortfall(), horizon=1)[2] == min(first, second)
