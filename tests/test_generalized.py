"""One evaluation answers every utility; one policy is as good as each of several at every augmented state."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from fractions import Fraction as F
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import rdolib as rdo
from rdolib.generalized import Improvement, generalized_policy_improvement
from rdolib.stock import return_range
from tests import naive, strategies
from tests.naive import Number, Table
from tests.test_exactness import CASES, Case, leaves
from tests.test_policy_iteration import stopped

modest = settings(
    deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
STOCKS = (F(-3, 2), F(0), F(1, 3), F(30))  # the last one is beyond all returns
NUMBERS = np.array([float(c) for c in STOCKS])
TINY = 1e-12

# What a policy does, exactly: probabilities of actions at a state, a stock and a step.
Rule = Callable[[int, Number, int], Mapping[int, F]]


def library(table: Table, gamma: F) -> rdo.MDP:
    return rdo.MDP.from_outcomes(strategies.floats(table), gamma=float(gamma), initial=0)


def close(value: float, exact: Any) -> bool:
    return abs(value - float(exact)) <= TINY * max(1.0, abs(float(exact)))


class Wild:
    """An object that looks at the state, the stock and the step; it never jumps at a stock of a tiny problem."""

    def __init__(self, table: Table, seed: int) -> None:
        self.table, self.seed = table, seed

    def actions(self, states: Any, stocks: Any, t: int) -> Any:
        place = np.floor(0.7 * np.asarray(stocks) + 0.123456).astype(int) + self.seed + t
        menu = [sorted(self.table[int(s)]) for s in states]
        return np.array([m[k % len(m)] for m, k in zip(menu, place + np.asarray(states), strict=True)], dtype=int)


def sure(policy: Any) -> Rule:
    return lambda s, c, t: {int(policy.actions(np.array([s]), np.array([float(c)]), t)[0]): F(1)}


@st.composite
def arrays(draw: st.DrawFn, table: Table) -> tuple[Any, Rule]:
    """Return actions (S,) or probabilities (S, A), and the rule."""
    n_actions = 1 + max(a for rows in table.values() for a in rows)
    if draw(st.booleans()):
        chosen = [draw(st.sampled_from(sorted(table[s]))) for s in range(len(table))]
        return np.array(chosen), lambda s, c, t: {chosen[s]: F(1)}
    rows = {s: dict(zip(sorted(table[s]), draw(strategies.probabilities(len(table[s]))), strict=True)) for s in table}
    probs = np.array([[float(rows[s].get(a, 0)) for a in range(n_actions)] for s in range(len(table))])
    return probs, lambda s, c, t: {a: p for a, p in rows[s].items() if p}


@st.composite
def problems(draw: st.DrawFn, gammas: tuple[F, ...], max_leaves: int = 100) -> tuple[Table, F, int]:
    """Return a table, a discount and a horizon for which listing all histories is affordable."""
    table = draw(strategies.tables(max_outcomes=3))
    horizon = draw(strategies.mostly_large(1, 4))
    assume(leaves(table, horizon) <= max_leaves)
    return table, draw(st.sampled_from(gammas)), horizon


class Histories:
    """Values of rules within a horizon, at every augmented state, by walking over all histories."""

    def __init__(self, table: Table, gamma: F, horizon: int, f: naive.Utility, rules: list[Rule]) -> None:
        self.table, self.gamma, self.horizon, self.f, self.rules = table, gamma, horizon, f, rules
        self.known: dict[Any, Any] = {}

    def over(self, s: int, t: int) -> bool:
        return t == self.horizon or s not in self.table

    def after(self, s: int, earned: Number, t: int, a: int, worth: Callable[[int, Number, int], Any]) -> Any:
        """E of ``worth`` one step on; ``earned``: stock plus rewards so far, in the money of step 0."""
        parts = [(p, n, earned + self.gamma**t * r, end) for p, n, r, end in self.table[s][a] if p]
        return sum(p * (self.f(x) if end else worth(n, x, t + 1)) for p, n, x, end in parts)

    def value(self, i: int, s: int, earned: Number, t: int) -> Any:
        if self.over(s, t):
            return self.f(earned)
        if (i, s, earned, t) not in self.known:
            rule = self.rules[i](s, earned / self.gamma**t, t)
            self.known[i, s, earned, t] = sum(
                q * self.after(s, earned, t, a, lambda *node: self.value(i, *node)) for a, q in rule.items()
            )
        return self.known[i, s, earned, t]

    def best(self, s: int, earned: Number, t: int, n: int) -> Any:
        """``max_i F eta_i``, over the first ``n`` rules."""
        return max(self.value(i, s, earned, t) for i in range(n))

    def nodes(self) -> set[tuple[int, Number, int]]:
        layer = {(s, c) for s in self.table for c in STOCKS}
        found = set()
        for t in range(self.horizon):
            found |= {(s, x, t) for s, x in layer}
            layer = {
                (n, x + self.gamma**t * r)
                for s, x in layer for outcomes in self.table[s].values() for p, n, r, end in outcomes
                if p and not end and n in self.table
            }  # fmt: skip
        return found


def assert_dominates(walk: Histories, better: Improvement) -> None:
    """At every augmented state: what is followed is best, and F of the new policy >= F T_* eta^ >= F eta^."""
    n = len(walk.rules)
    walk.rules.append(sure(better.policy))
    for s, earned, t in walk.nodes():
        stock = float(earned / walk.gamma**t)
        old = [walk.value(i, s, earned, t) for i in range(n)]
        new = walk.value(n, s, earned, t)
        slack = 0 if isinstance(new, F) else TINY * max(1.0, abs(new))
        stepped = max(walk.after(s, earned, t, a, lambda state, x, u: walk.best(state, x, u, n)) for a in walk.table[s])
        assert new >= stepped - slack
        assert stepped >= max(old) - slack
        chosen = better.choice(s, stock, t)
        assert old[chosen] >= max(old) - slack
        assert slack or chosen == old.index(max(old))
        if t == 0:
            assert all(close(*pair) for pair in zip(better.old_values(s, stock), old, strict=True))
            assert close(better.objective_value(s, stock), new)


# --------------------------------------------------------------------------------------------------
# within a horizon


@pytest.mark.theory("7.12")
@settings(modest, max_examples=60)
@given(problems((F(1), F(1, 2), F(9, 10))), st.sampled_from(CASES), st.data())
def test_dominates_at_every_augmented_state(problem: tuple[Table, F, int], case: Case, data: st.DataObject) -> None:
    """Policies of every kind, in exact fractions, at every state, stock and step."""
    table, gamma, horizon = problem
    mdp = library(table, gamma)
    given_policies = data.draw(st.lists(arrays(table), min_size=1, max_size=2))
    if data.draw(st.booleans()):
        other = data.draw(st.sampled_from(CASES))
        solved = rdo.value_iteration(mdp, other.objective, stock=NUMBERS, horizon=horizon)
        given_policies.append((solved, sure(solved.policy)))
    if data.draw(st.booleans()):
        wild = Wild(table, data.draw(st.integers(0, 3)))
        given_policies.append((wild, sure(wild)))
    policies, rules = zip(*given_policies, strict=True)
    better = generalized_policy_improvement(mdp, policies, case.objective, stock=NUMBERS, horizon=horizon)
    assert_dominates(Histories(table, gamma, horizon, case.f, list(rules)), better)
    for s in table:
        for stock, number in zip(STOCKS, NUMBERS, strict=True):
            low, high = better.bounds(s, number)
            best = float(naive.best_utility(table, gamma, s, horizon, case.f, stock))
            assert low - TINY * max(1.0, abs(best)) <= best <= high + TINY * max(1.0, abs(best))
            assert not better.converged or close(low, best)


@pytest.mark.theory("7.12")
@settings(modest, max_examples=40)
@given(problems((F(1), F(1, 2))), st.sampled_from(CASES), st.data())
def test_one_policy_is_policy_improvement(problem: tuple[Table, F, int], case: Case, data: st.DataObject) -> None:
    table, gamma, horizon = problem
    mdp = library(table, gamma)
    start = np.array([data.draw(st.sampled_from(sorted(table[s]))) for s in range(len(table))])
    better = generalized_policy_improvement(mdp, [start], case.objective, stock=NUMBERS, horizon=horizon)
    zero, one = (stopped(mdp, case.objective, stock=NUMBERS, horizon=horizon, start=start, max_iter=k) for k in (0, 1))
    tables: list[Any] = [better.policy.table, one.policy.table]
    inner, other = (getattr(x, "table", x) for x in tables)
    if one.iterations:
        assert better.converged == one.converged
        assert all((a == b).all() for a, b in zip(inner.actions, other.actions, strict=True))
    for s in table:
        for c in NUMBERS:
            assert close(better.old_values(s, c)[0], zero.objective_value(s, c))
            assert close(better.objective_value(s, c), one.objective_value(s, c))
            assert close(better.bounds(s, c)[1], one.bounds(s, c)[1])
            assert better.choice(s, c) == 0


@settings(modest, max_examples=25)
@given(
    strategies.tables(max_outcomes=2, rewards=strategies.INTEGERS),
    st.integers(0, 3),
    st.sampled_from([rdo.Homeostasis(), rdo.Homeostasis(1), rdo.Threshold(), rdo.Quadratic()]),
    st.sampled_from((F(1), F(1, 2))),
    st.data(),
)
def test_vector_rewards(table: Table, turn: int, objective: Any, gamma: F, data: st.DataObject) -> None:
    """Old values are those of the laws; the new value is that of its law, and at least the best."""
    flat = {
        s: {a: [(p, n, (r, (turn * r) % 3 - 1.0), e) for p, n, r, e in outcomes] for a, outcomes in rows.items()}
        for s, rows in strategies.floats(table).items()
    }
    mdp = rdo.MDP.from_outcomes(flat, gamma=float(gamma))
    stocks = np.array([[0.0, 0.0], [-1.0, 2.0]])
    solved = rdo.value_iteration(mdp, rdo.Homeostasis(), stock=stocks, horizon=3)
    policies = [data.draw(arrays(table))[0], solved, data.draw(arrays(table))[0]]
    better = generalized_policy_improvement(mdp, policies, objective, stock=stocks, horizon=3)
    laws = [rdo.evaluate(mdp, policy, horizon=3) for policy in policies]
    for s in table:
        for c in stocks:
            old = [objective(eta(s, c) + c) for eta in laws]
            assert all(close(*pair) for pair in zip(better.old_values(s, c), old, strict=True))
            new = objective(rdo.evaluate(mdp, better, horizon=3)(s, c) + c)
            assert close(better.objective_value(s, c), new)
            assert new >= max(old) - TINY * max(1.0, abs(new))
            assert close(old[better.choice(s, c)], max(old))


@settings(modest, max_examples=25)
@given(
    strategies.tables(max_outcomes=2, rewards=strategies.INTEGERS, layered=True),
    st.integers(0, 3),
    st.sampled_from([rdo.Homeostasis(), rdo.Threshold()]),
    st.data(),
)
def test_vector_rewards_without_a_horizon(table: Table, turn: int, objective: Any, data: st.DataObject) -> None:
    """A discount, every path ends; the old plan of another utility looks at the stock."""
    flat = {
        s: {a: [(p, n, (r, (turn * r) % 3 - 1.0), e) for p, n, r, e in outcomes] for a, outcomes in rows.items()}
        for s, rows in strategies.floats(table).items()
    }
    mdp = rdo.MDP.from_outcomes(flat, gamma=0.5)
    stocks = np.array([[0.0, 0.0], [-1.0, 2.0]])
    policies = [data.draw(arrays(table))[0], rdo.value_iteration(mdp, rdo.Homeostasis(1), stock=stocks)]
    better = generalized_policy_improvement(mdp, policies, objective, stock=stocks)
    laws = [rdo.evaluate(mdp, policy) for policy in [*policies, better]]
    for s in table:
        for c in stocks:
            *old, new = (objective(eta(s, c) + c) for eta in laws)
            assert all(close(*pair) for pair in zip(better.old_values(s, c), old, strict=True))
            assert close(better.objective_value(s, c), new)
            assert new >= max(old) - TINY * max(1.0, abs(new))
            assert close(old[better.choice(s, c)], max(old))


# --------------------------------------------------------------------------------------------------
# without a horizon

ENDLESS = [case for case in CASES if case.name in ("Mean", "TargetReturn", "Shortfall", "Surplus", "TwoSlope, falling")]


def every_value(table: Any) -> np.ndarray:
    """Values at all nodes, and the means where the stock matters no more."""
    inner = getattr(table, "table", table)
    means = [getattr(inner.problem.saturation, name, np.empty(0)).ravel() for name in ("low_mean", "high_mean")]
    return np.concatenate([*inner.values, *means])


def assert_endless(mdp: rdo.MDP, policies: list[Any], objective: Any, better: Improvement) -> None:
    """Values are those of the laws, pushed forward; the new ones dominate at every node; bounds hold the optimum."""
    new = every_value(better.policy.table)
    for table in better._old:
        old = every_value(table)
        assert (new >= old - TINY * np.maximum(1.0, np.abs(old), where=old > -np.inf, out=np.ones(len(old)))).all()
    optimum = rdo.value_iteration(mdp, objective, stock=NUMBERS, memory=2**19)
    grid = rdo.QuantileGrid(64) if objective.lipschitz else None
    laws = [rdo.evaluate(mdp, policy, representation=grid) for policy in [*policies, better]]
    for s in range(mdp.n_states):
        for c in NUMBERS[:2]:
            best, (low, high) = optimum.objective_value(s, c), better.bounds(s, c)
            slack = 1e-9 * max(1.0, abs(best))
            assert low - slack <= best <= high + slack or (low == best == -np.inf)
            for eta, value in zip(laws, [*better.old_values(s, c), low], strict=True):
                with suppress(rdo.NotOptimizableError):  # a return without a law, though the utility may have a limit
                    law = eta(s, c) + c
                    off = objective.lipschitz * law.w1_error if objective.lipschitz else 0.0
                    assert abs(objective(law) - value) <= off + 1e-9 * max(1.0, abs(value))


@pytest.mark.theory("7.12")
@settings(modest, max_examples=60)
@given(strategies.tables(max_outcomes=3), st.sampled_from(ENDLESS), st.data())
def test_with_a_discount(table: Table, case: Case, data: st.DataObject) -> None:
    """Arrays, and optimal policies of utilities whose bands have other ends."""
    mdp = library(table, F(1, 2))
    policies = [policy for policy, _ in data.draw(st.lists(arrays(table), min_size=1, max_size=2))]
    others = [rdo.Threshold(), rdo.Mean(), rdo.Shortfall(), rdo.TwoSlope(-1.0, 0.5)]
    for other in data.draw(st.lists(st.sampled_from(others), max_size=2)):
        policies.append(rdo.value_iteration(mdp, other, stock=NUMBERS))
    better = generalized_policy_improvement(mdp, policies, case.objective, stock=NUMBERS)
    assert_endless(mdp, policies, case.objective, better)


@settings(modest, max_examples=60)
@given(strategies.tables(max_outcomes=3), st.sampled_from([*ENDLESS, CASES[7], CASES[8]]), st.data())
def test_without_a_discount(table: Table, case: Case, data: st.DataObject) -> None:
    """Loops that pay nothing, policies that may never end, coins that lead out in the end."""
    mdp = library(table, F(1))
    assume(np.isfinite(return_range(mdp, 1.0)).all())  # some path settles, and none gains for ever
    policies = [policy for policy, _ in data.draw(st.lists(arrays(table), min_size=1, max_size=3))]
    try:
        better = generalized_policy_improvement(mdp, policies, case.objective, stock=NUMBERS, memory=2**19)
    except rdo.RdoError:  # infinitely many stocks, infinite means, or policies that never end
        assume(False)
    assert_endless(mdp, policies, case.objective, better)


def test_an_object_without_a_horizon() -> None:
    """Where every path ends the augmented states are finitely many, and an object may look at any stock."""
    table = {
        0: {0: [(F(1, 2), 1, F(1), False), (F(1, 2), 1, F(-1), False)], 1: [(F(1), 1, F(0), False)]},
        1: {0: [(F(1, 2), 1, F(2), True), (F(1, 2), 1, F(-2), True)], 1: [(F(1), 1, F(-1, 2), True)]},
    }
    mdp, wild = library(table, F(1)), Wild(table, 0)
    wild_rule = sure(wild)
    better = generalized_policy_improvement(mdp, [wild, [1, 1]], rdo.Shortfall(), stock=NUMBERS)
    rules: list[Rule] = [lambda s, c, t: wild_rule(s, c, 0), lambda s, c, t: {1: F(1)}]
    walk = Histories(table, F(1), 2, lambda x: min(x, F(0)), rules)
    for s in table:
        for stock, number in zip(STOCKS, NUMBERS, strict=True):
            old = [walk.value(i, s, stock, 0) for i in (0, 1)]
            assert all(close(*pair) for pair in zip(better.old_values(s, number), old, strict=True))
            assert better.objective_value(s, number) >= float(max(old)) - TINY


def test_policies_that_wait_for_each_other() -> None:
    """0 and 1 both may end the game or pass it on. Each policy ends at the other state; all values tie."""
    table = {
        0: {0: [(1.0, 1, 0.0, False)], 1: [(1.0, 0, 1.0, True)]},
        1: {0: [(1.0, 0, 0.0, False)], 1: [(1.0, 1, 1.0, True)]},
    }
    mdp = rdo.MDP.from_outcomes(table, gamma=1.0)
    better = generalized_policy_improvement(mdp, [[0, 1], [1, 0]], rdo.Mean())
    assert [better.choice(s, 0.0) for s in (0, 1)] == [0, 0]
    assert [better.objective_value(s) for s in (0, 1)] == [1.0, 1.0]
    assert better.returns(0).mean() == better.returns(1).mean() == 1.0


def test_a_coin_that_leads_out() -> None:
    """Waiting and stopping tie under the coin, and waiting has the lower index; but only stopping ends."""
    mdp = rdo.MDP.from_outcomes({0: {0: [(1.0, 0, 0.0, False)], 1: [(1.0, 0, 1.0, True)]}}, gamma=1.0)
    better = generalized_policy_improvement(mdp, [np.array([[0.5, 0.5]])], rdo.Surplus())
    assert better.old_values(0).tolist() == [1.0]
    assert (better.policy.action(0, 0.0), better.objective_value(0)) == (1, 1.0)


def test_what_never_ends_is_never_followed() -> None:
    circle = {0: {0: [(1.0, 1, -1.0, False)], 1: [(1.0, 0, 2.0, True)]}, 1: {0: [(1.0, 0, -1.0, False)]}}
    mdp = rdo.MDP.from_outcomes(circle, gamma=1.0)
    better = generalized_policy_improvement(mdp, [[0, 0], [1, 0]], rdo.Shortfall(), stock=-3.0)
    assert better.old_values(0, -3.0).tolist() == [-np.inf, -1.0]
    assert better.choice(0, -3.0) == better.choice(1, -3.0) == 1
    with pytest.raises(rdo.InvalidArgumentError, match=r"none of the policies surely ends from state 0.*add one"):
        generalized_policy_improvement(mdp, [[0, 0]], rdo.Shortfall(), stock=-3.0)


def test_endless_and_never_saturated() -> None:
    """A quadratic utility with a discount: cut where the rest cannot matter."""
    table = {
        0: {0: [(1.0, 0, 1.0, False)], 1: [(0.5, 1, 2.0, False), (0.5, 1, 0.0, True)]},
        1: {0: [(1.0, 1, 0.5, False)]},
    }
    mdp = rdo.MDP.from_outcomes(table, gamma=0.5)
    policies = [[0, 0], [1, 0], Wild({0: {0: [], 1: []}, 1: {0: []}}, 1)]
    better = generalized_policy_improvement(mdp, policies, rdo.Quadratic(), stock=[-1.0, -2.5])
    for c in (-1.0, -2.5):
        old = [rdo.Quadratic()(rdo.evaluate(mdp, policy)(0, c) + c) for policy in policies]
        np.testing.assert_allclose(better.old_values(0, c), old, atol=1e-9)
        assert better.objective_value(0, c) >= max(old) - 1e-9
        assert better.choice(0, c) == int(np.argmax(old))
    assert better.choice(0, -1.0, t=10_000) == 0


# --------------------------------------------------------------------------------------------------
# what it is good for

# Three rounds: nothing, a fair bet of one, or a bet of two that wins one time in three.
ROUNDS = {
    t: {
        0: [(1.0, t + 1, 0.0, t == 2)],
        1: [(0.5, t + 1, 1.0, t == 2), (0.5, t + 1, -1.0, t == 2)],
        2: [(1 / 3, t + 1, 2.0, t == 2), (2 / 3, t + 1, -2.0, t == 2)],
    }
    for t in range(3)
}
CONSTANT = [[0, 0, 0, 0], [1, 1, 1, 1], [2, 2, 2, 2]]


@pytest.mark.theory("7.12")
def test_strictly_better_than_all_together() -> None:
    """Which policy is followed depends on the stock, and the mixture over stocks beats each of them."""
    mdp = rdo.MDP.from_outcomes(ROUNDS, gamma=1.0)
    stocks = np.arange(-6.0, 7.0)
    better = generalized_policy_improvement(mdp, CONSTANT, rdo.Threshold(), stock=stocks)
    followed = [better.choice(0, c) for c in stocks]
    assert set(followed) == {0, 1, 2}
    gain = [better.objective_value(0, c) - better.old_values(0, c).max() for c in stocks]
    assert min(gain) >= -TINY
    # At -1, by hand: the bet of one for ever wins at least one with 1/2; the bet of two wins twice or more with 7/27,
    # once or more ... the new policy stops once it has won.
    assert better.old_values(0, -1.0) == pytest.approx([0.0, 1 / 2, 7 / 27])
    optimum = rdo.value_iteration(mdp, rdo.Threshold(), stock=stocks)
    assert better.objective_value(0, -1.0) > 1 / 2 + 0.05
    for c in stocks:
        low, high = better.bounds(0, c)
        assert low - TINY <= optimum.objective_value(0, c) <= high + TINY


@pytest.mark.theory("7.12")
def test_one_evaluation_answers_a_hundred_utilities() -> None:
    """A policy is asked once, however many utilities read its law; each agrees with its own evaluation."""
    mdp = rdo.MDP.from_outcomes(ROUNDS, gamma=1.0)
    asked = []

    class Recording:
        def actions(self, states: Any, stocks: Any, t: int) -> Any:
            asked.append(t)
            return (np.asarray(stocks) < 0.0).astype(int)

    eta = rdo.evaluate(mdp, Recording())
    eta(0, -1.0)
    times = len(asked)
    utilities: list[Any] = [rdo.TwoSlope(0.1 * i, 1.0 - 0.01 * i) for i in range(50)]
    utilities += [rdo.Exponential(0.02 * i + 0.01) for i in range(-25, 25)]
    values = [utility(eta(0, -1.0) + (-1.0)) for utility in utilities]
    assert len(asked) == times
    for utility, value in zip(utilities, values, strict=True):
        alone = rdo.policy_iteration(mdp, utility, stock=-1.0, start=Recording(), max_iter=0, tol=np.inf)
        assert close(alone.objective_value(0, -1.0), value)


# --------------------------------------------------------------------------------------------------
# bad input

GROWING = rdo.MDP.garnet(5, 2, 2, seed=1, gamma=0.9)
FORK = rdo.MDP.from_outcomes({0: {0: [(1.0, 0, 1.0, True)], 1: [(0.5, 0, 3.0, True), (0.5, 0, 0.0, True)]}})


@pytest.mark.parametrize(
    ("policies", "message"),
    [
        ([], "policies must be a list of at least one policy"),
        (np.array([[0], [1]]), "policies must be a list of at least one policy"),
        (rdo.value_iteration(FORK, rdo.Mean()).policy, "policies must be a list of at least one policy"),
        ([[0], [0, 1]], r"policies\[1\]: .*one for each of the 1 states; got 2"),
        ([[0], [7]], r"policies\[1\]: .*action 7"),
        ([[0], [[0.5, 0.4]]], r"policies\[1\]: .*sum to 0.9"),
        ([0], r"policies\[0\]: policy must be a Policy"),
        ([[0], Wild({0: {9: []}}, 0)], r"policies\[1\]: .*action 9"),
        (
            [[0], rdo.value_iteration(FORK, rdo.Mean(), horizon=1)],
            r"policies\[1\]: the policy was made for 1 steps and horizon is None",
        ),
    ],
)
def test_policies_refused(policies: Any, message: str) -> None:
    with pytest.raises(rdo.InvalidArgumentError, match=message):
        generalized_policy_improvement(FORK, policies, rdo.Threshold(), stock=-2.0)


def test_lotteries_and_strangers_are_refused() -> None:
    plan = rdo.optimize(rdo.examples.coin_helps().mdp, rdo.OptimisticCVaR(0.5))
    assert plan.mixture
    with pytest.raises(rdo.InvalidArgumentError, match=r"policies\[0\] is a lottery.*pass its parts"):
        generalized_policy_improvement(plan.policy.mdp, [plan], rdo.Mean())
    near = rdo.value_iteration(FORK, rdo.Quadratic(), horizon=1)
    with pytest.raises(rdo.InvalidArgumentError, match=r"policies\[0\]: stock -2 at state 0.*cannot be reached"):
        generalized_policy_improvement(FORK, [near], rdo.Mean(), stock=-2.0, horizon=1)


def test_policies_that_count_steps_are_refused_where_states_close() -> None:
    """Stocks only fall, so few of them can still end at zero or more; the other plan was cut after many steps."""
    table = {0: {0: [(0.5, 0, -1.0, False), (0.5, 0, 0.0, True)], 1: [(1.0, 0, -1.0, True)]}}
    mdp = rdo.MDP.from_outcomes(table, gamma=1.0)
    steps = rdo.value_iteration(mdp, rdo.ExpectedUtility(np.sin, lipschitz=1.0), stock=2.0)
    with pytest.raises(rdo.InvalidArgumentError, match=r"policies\[1\] acts by the step.*pass horizon="):
        generalized_policy_improvement(mdp, [[0], steps], rdo.Threshold(), stock=2.0)


def test_objectives_refused() -> None:
    with pytest.raises(rdo.NotOptimizableError, match="lacks indifference to mixtures"):
        generalized_policy_improvement(FORK, [[0]], rdo.CVaR(0.5))
    with pytest.raises(rdo.NotOptimizableError, match="needs an expected utility"):
        generalized_policy_improvement(FORK, [[0]], rdo.EssInf())
    endless = rdo.MDP.from_outcomes({0: {0: [(1.0, 0, 1.0, False)]}}, gamma=0.5)
    with pytest.raises(rdo.NotOptimizableError, match="lacks indifference to gamma"):
        generalized_policy_improvement(endless, [[0]], rdo.Exponential(-1.0))
    with pytest.raises(rdo.NotOptimizableError, match="lacks continuity"):
        generalized_policy_improvement(endless, [[0]], rdo.Threshold())
    with pytest.raises(rdo.InvalidArgumentError, match=r"first argument must be an rdo\.MDP"):
        generalized_policy_improvement([[0]], [[0]], rdo.Mean())  # type: ignore[arg-type]
    with pytest.raises(rdo.InvalidArgumentError, match="memory must be a positive number"):
        generalized_policy_improvement(FORK, [[0]], rdo.Mean(), memory=0)
    with pytest.raises(rdo.MemoryLimitError, match=r"every \(state, stock\) that can be reached"):
        generalized_policy_improvement(GROWING, [[0] * 5], rdo.Quadratic(), horizon=40, memory=2**20)
    better = generalized_policy_improvement(FORK, [[0]], rdo.Threshold(), stock=-1.0)
    with pytest.raises(rdo.InvalidArgumentError, match="cannot be reached"):
        better.choice(0, -1.3)
    with pytest.raises(rdo.InvalidArgumentError, match="state 3 does not exist"):
        better.choice(3, -1.0)
