"""Roll-outs: the law of the return, the stock along the way, and honest counts of what was cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdolib import simulate
from rdolib.errors import InvalidArgumentError, MemoryLimitError
from rdolib.mdp import MDP
from rdolib.simulate import Rollouts, rollout
from tests.naive import Table
from tests.strategies import floats, tables


@dataclass
class Rule:
    """A policy made from a function of states, stocks and time, which notes what it was asked."""

    choose: Callable[[Any, Any, int], Any] = lambda states, stocks, t: np.zeros(len(states), dtype=int)
    asked: list[Any] = field(default_factory=list)

    def actions(self, states: Any, stocks: Any, t: int) -> Any:
        self.asked.append((states.copy(), stocks.copy(), t))
        return self.choose(states, stocks, t)


@dataclass
class Plan:
    policy: Any = None
    stock: Any = 0.0
    horizon: int | None = None
    state: int | None = None
    mixture: Any = None


def chain(reward: Any = 1.0, gamma: float = 1.0, end: float = 0.0) -> MDP:
    """One state that pays `reward` each step and ends with probability `end`."""
    return MDP.from_outcomes({0: {0: [(1 - end, 0, reward, False), (end, 0, reward, True)]}}, gamma=gamma)


def lowest(mdp: MDP) -> Callable[[Any, Any, int], Any]:
    """The policy that takes the lowest action of each state."""
    return lambda states, stocks, t: mdp.pair_action[mdp.pair_ptr[states]]


def law_of_return(mdp: MDP, policy: Rule, stock: float, horizon: int, state: int) -> dict[float, float]:
    """The exact law of the first `horizon` discounted rewards, by listing every history."""
    law: dict[float, float] = {}

    def visit(s: int, c: float, t: int, earned: float, chance: float) -> None:
        if t == horizon or mdp.terminal[s]:
            law[round(earned, 9)] = law.get(round(earned, 9), 0.0) + chance
            return
        a = int(policy.choose(np.array([s]), np.array([c]), t)[0])
        for p, j, r, end in mdp.outcomes(s, a):
            total = earned + mdp.gamma**t * r
            if end:
                law[round(total, 9)] = law.get(round(total, 9), 0.0) + chance * p
            else:
                visit(j, (c + r) / mdp.gamma, t + 1, total, chance * p)

    visit(state, stock, 0, 0.0, 1.0)
    return law


# -------------------------------------------------------------------- returns


def test_a_certain_path_has_a_certain_return() -> None:
    # 1 + 1/2 + 1/4 + 1/8
    runs = rollout(chain(gamma=0.5), Rule(), episodes=3, horizon=4)
    assert runs.returns.tolist() == [1.875] * 3
    assert runs.lengths.tolist() == [4] * 3
    assert runs.terminated.tolist() == [False] * 3
    assert (runs.unfinished, runs.missing) == (0, 0.0)
    assert runs.returns.dtype == np.float64
    assert runs.paths is None


def test_frequencies_follow_the_probabilities_of_wide_and_narrow_pairs() -> None:
    probabilities = np.array([0.4, 0.0, 0.3, 0.2, 0.05, 0.05])
    table = {
        0: {0: [(1.0, 1, 0.0, False)]},
        1: {0: [(p, 0, float(i), True) for i, p in enumerate(probabilities)]},
    }
    n = 100_000
    runs = rollout(MDP.from_outcomes(table), Rule(), episodes=n)
    counts = np.bincount(runs.returns.astype(int), minlength=6)
    deviation = np.sqrt(n * probabilities * (1 - probabilities))
    assert (np.abs(counts - n * probabilities) <= 4 * deviation).all()
    assert (runs.lengths == 2).all()
    assert runs.terminated.all()


@settings(max_examples=25, deadline=None)
@given(tables(), st.sampled_from([1.0, 0.5, 1 / 3, 0.9]), st.integers(1, 4), st.sampled_from([0.0, -1.0, 0.5]))
def test_the_simulated_law_is_the_listed_one(table: Table, gamma: float, horizon: int, stock: float) -> None:
    mdp = MDP.from_outcomes(floats(table), gamma=gamma)
    last = mdp.pair_action[np.maximum(mdp.pair_ptr[1:] - 1, 0)] if mdp.n_pairs else np.zeros(mdp.n_states)
    first = mdp.pair_action[np.minimum(mdp.pair_ptr[:-1], max(mdp.n_pairs - 1, 0))] if mdp.n_pairs else last
    policy = Rule(lambda states, stocks, t: np.where(stocks >= 0.25 * t, first[states], last[states]).astype(int))
    n = 2000
    runs = rollout(mdp, policy, episodes=n, seed=1, stock=stock, horizon=horizon)
    found = dict(zip(*np.unique(runs.returns.round(9) + 0.0, return_counts=True), strict=True))
    law = law_of_return(mdp, policy, stock, horizon, 0)
    assert set(found) <= set(law)
    for atom, chance in law.items():
        # 5 standard deviations: among a few thousand comparisons none is expected beyond it.
        assert abs(found.get(atom, 0) - n * chance) <= 5 * np.sqrt(n * chance * (1 - chance)) + 1e-6


def test_the_mean_agrees_with_the_linear_system() -> None:
    mdp = MDP.garnet(30, 3, 4, seed=2, gamma=0.8, terminal_probability=0.1)
    pairs = mdp.pair_ptr[:-1]  # action 0 everywhere
    step, pay = np.zeros((30, 30)), np.zeros(30)
    for s, pair in enumerate(pairs):
        span = slice(mdp.outcome_ptr[pair], mdp.outcome_ptr[pair + 1])
        pay[s] = mdp.prob[span] @ mdp.reward[span]
        np.add.at(step[s], mdp.next_state[span], mdp.prob[span] * ~mdp.terminated[span])
    mean = np.linalg.solve(np.eye(30) - 0.8 * step, pay)[0]
    runs = rollout(mdp, Rule())
    assert abs(runs.returns.mean() - mean) <= 4 * runs.returns.std() / np.sqrt(10_000)
    assert runs.unfinished == 0
    assert runs.missing <= 3e-12


def test_the_same_seed_gives_the_same_episodes() -> None:
    mdp = MDP.garnet(50, 2, 5, gamma=0.9, terminal_probability=0.05)
    one, again, other = (rollout(mdp, Rule(), episodes=100, seed=s) for s in (3, 3, 4))
    np.testing.assert_array_equal(one.returns, again.returns)
    np.testing.assert_array_equal(one.lengths, again.lengths)
    assert not np.array_equal(one.returns, other.returns)


def test_vector_rewards_give_vector_returns_and_stocks() -> None:
    mdp = chain(reward=(1.0, -0.5), gamma=0.5)
    rule = Rule()
    runs = rollout(mdp, rule, episodes=2, horizon=3, stock=(2.0, 0.0), record=True)
    np.testing.assert_array_equal(runs.returns, [[1.75, -0.875]] * 2)  # 1 + 1/2 + 1/4 times the reward
    # c' = 2 (c + r): 2 -> 6 -> 14 -> 30 and 0 -> -1 -> -3 -> -7
    assert runs.paths is not None
    np.testing.assert_array_equal(runs.paths.stocks[0], [[2, 0], [6, -1], [14, -3], [30, -7]])
    assert [stocks.shape for _, stocks, _ in rule.asked] == [(2, 2)] * 3
    np.testing.assert_array_equal(rollout(mdp, Rule(), episodes=1, horizon=1).returns, [[1.0, -0.5]])
    tenth = rollout(chain(reward=(0.1, 0.3), gamma=0.95), Rule(), episodes=1, horizon=2)
    np.testing.assert_allclose(tenth.returns, [[0.195, 0.585]], rtol=1e-15)  # 1.95 times the reward


# -------------------------------------------------------------------- start


def test_the_start_is_the_initial_state_or_its_distribution_or_the_state_asked_for() -> None:
    table = {s: {0: [(1.0, 0, float(s), True)]} for s in range(3)}
    mdp = MDP.from_outcomes(table, initial=[0.25, 0.0, 0.75])
    runs = rollout(mdp, Rule(), episodes=20_000)
    counts = np.bincount(runs.returns.astype(int), minlength=3)
    assert counts[1] == 0
    assert abs(counts[0] - 5000) <= 4 * np.sqrt(20_000 * 0.25 * 0.75)
    assert set(rollout(mdp, Rule(), episodes=5, state=1).returns) == {1.0}
    assert set(rollout(MDP.from_outcomes(table, initial=2), Rule(), episodes=5).returns) == {2.0}


def test_a_terminal_start_ends_at_once() -> None:
    mdp = MDP.from_outcomes({0: {0: [(1.0, 1, 1.0, True)]}}, initial=1)
    runs = rollout(mdp, Rule(), episodes=2, stock=3.0, record=True)
    assert (runs.returns.tolist(), runs.lengths.tolist(), runs.terminated.tolist()) == (
        [0, 0],
        [0, 0],
        [True, True],
    )
    assert runs.paths is not None
    assert (runs.paths.states.tolist(), runs.paths.stocks.tolist()) == ([[1], [1]], [[3.0], [3.0]])


# -------------------------------------------------------------------- stocks


def test_recorded_paths_obey_the_stock_identity() -> None:
    mdp = MDP.garnet(20, 2, 4, seed=3, gamma=0.7, rewards=[-1.3, 0.0, 0.4, 2.0], terminal_probability=0.1)
    runs = rollout(mdp, Rule(lambda s, c, t: (c > 0).astype(int)), episodes=200, stock=-1.5, horizon=15, record=True)
    paths = runs.paths
    assert paths is not None
    for i in range(200):
        n = int(runs.lengths[i])
        rewards, stocks = paths.rewards[i, :n], paths.stocks[i, : n + 1]
        weights = 0.7 ** np.arange(n)
        assert runs.returns[i] == pytest.approx(weights @ rewards, rel=1e-12, abs=1e-12)
        for t in range(n + 1):  # gamma^t (C_t + G_t) = C_0 + G_0
            rest = (0.7 ** np.arange(n - t)) @ rewards[t:]
            assert 0.7**t * (stocks[t] + rest) == pytest.approx(-1.5 + runs.returns[i], rel=1e-9, abs=1e-9)
        assert (paths.actions[i, :n] == (stocks[:-1] > 0)).all()
        # After the end: nothing.
        assert (paths.states[i, n + 1 :] == -1).all()
        assert (paths.actions[i, n:] == -1).all()
        assert (paths.rewards[i, n:] == 0).all()
        assert np.isnan(paths.stocks[i, n + 1 :]).all()
        assert (paths.states[i, : n + 1] >= 0).all()


def test_stocks_on_a_lattice_do_not_drift() -> None:
    # 0.1 is no binary number: 10,000 float additions would miss 1000 by 1e-10 or so.
    rule = Rule()
    runs = rollout(chain(reward=0.1), rule, episodes=1, stock=-1000.0, horizon=10_000)
    assert rule.asked[-1][1][0] == pytest.approx(-0.1, abs=1e-13)
    assert runs.returns[0] == 1000.0
    # gamma = 1/2: c' = 2 (c + 0.3) has the fixed point -0.6; an error of one last bit would double each step.
    rule = Rule()
    rollout(chain(reward=0.3, gamma=0.5), rule, episodes=1, stock=-0.6, horizon=500)
    assert all(stocks[0] == -0.6 for _, stocks, _ in rule.asked)
    rule = Rule()
    rollout(chain(reward=(0.3, 0.2), gamma=1 / 3), rule, episodes=1, stock=(-0.45, -0.3), horizon=300)
    np.testing.assert_allclose(np.array([stocks[0] for _, stocks, _ in rule.asked]), [[-0.45, -0.3]] * 300, rtol=1e-15)


@pytest.mark.parametrize("gamma", [0.5, 0.3, 1e-30])
def test_stocks_grow_without_overflow(gamma: float) -> None:
    rule = Rule()
    runs = rollout(chain(gamma=gamma, reward=3.7), rule, episodes=1, horizon=3000, stock=1.0)
    assert np.isfinite(rule.asked[-1][1]).all()
    assert runs.returns[0] == pytest.approx(3.7 / (1 - gamma), rel=1e-12)
    assert runs.lengths[0] == 3000


# -------------------------------------------------------------------- ends


def test_discounted_episodes_stop_when_nothing_is_left() -> None:
    runs = rollout(chain(gamma=0.9, reward=5.0), Rule(), episodes=1)
    # 0.9^t * 5 / 0.1 <= 5e-12, that is t >= log(1e13) / log(1 / 0.9) = 284.1
    assert runs.lengths.tolist() == [285]
    assert runs.terminated.tolist() == [False]
    assert runs.unfinished == 0
    assert runs.missing == pytest.approx(0.9**285 * 50)
    assert runs.returns[0] == pytest.approx(50.0, rel=1e-12)


def test_no_rewards_need_no_steps() -> None:
    mdp = MDP.from_outcomes({0: {0: [(1.0, 1, 0.0, False)]}, 1: {0: [(1.0, 0, 0.0, False)]}})
    runs = rollout(mdp, Rule(), episodes=2)
    assert (runs.returns.tolist(), runs.missing, runs.unfinished) == ([0.0, 0.0], 0.0, 0)
    assert rollout(mdp, Rule(), episodes=2, horizon=3).lengths.tolist() == [3, 3]


def test_cut_episodes_are_counted_and_warned_about() -> None:
    mdp = chain(end=0.1)
    with pytest.warns(RuntimeWarning, match="of 1000 episodes were cut after max_steps=5 steps") as caught:
        runs = rollout(mdp, Rule(), episodes=1000, max_steps=5)
    assert caught[0].filename == __file__
    assert runs.unfinished == int((~runs.terminated).sum()) > 0
    assert runs.missing == np.inf
    assert (runs.lengths[~runs.terminated] == 5).all()
    assert f"{runs.unfinished} unfinished" in repr(runs)
    with pytest.warns(RuntimeWarning, match="1 of 1 episodes were cut"):
        runs = rollout(chain(gamma=0.9), Rule(), episodes=1, max_steps=10)
    assert runs.missing == pytest.approx(0.9**10 / 0.1)
    # Every episode that ends is complete, whatever the limit.
    assert rollout(mdp, Rule(), episodes=1000).unfinished == 0


def test_a_policy_that_rests_for_ever_has_finished() -> None:
    mdp = MDP.from_outcomes({0: {0: [(1.0, 1, 2.0, False)]}, 1: {0: [(1.0, 1, 0.0, False)], 1: [(1.0, 0, 1.0, True)]}})
    rule = Rule()
    rule.rests = lambda states, stocks: states == 1  # type: ignore[attr-defined]
    runs = rollout(mdp, rule, episodes=3)
    assert (runs.returns.tolist(), runs.lengths.tolist(), runs.unfinished) == ([2.0] * 3, [1] * 3, 0)
    assert runs.terminated.all()


# -------------------------------------------------------------------- plans


def test_a_plan_brings_its_stock_state_and_horizon() -> None:
    mdp = MDP.from_outcomes({s: {0: [(1.0, s, float(s), False)]} for s in (1, 0)} | {2: {0: [(1.0, 1, 5.0, False)]}})
    rule = Rule()
    runs = rollout(mdp, Plan(rule, stock=-3.0, horizon=4, state=2), episodes=2)
    assert runs.returns.tolist() == [8.0, 8.0]  # 5 + 1 + 1 + 1
    assert rule.asked[0][1].tolist() == [-3.0, -3.0]
    # What is passed counts.
    runs = rollout(mdp, Plan(rule, stock=-3.0, horizon=4, state=2), episodes=1, stock=1.0, state=1, horizon=2)
    assert runs.returns.tolist() == [2.0]
    assert rule.asked[-2][1].tolist() == [1.0]


def test_a_policy_may_know_its_horizon() -> None:
    rule = Rule()
    rule.horizon = 6  # type: ignore[attr-defined]
    assert rollout(chain(), rule, episodes=1).lengths.tolist() == [6]
    assert rollout(chain(), rule, episodes=1, horizon=2).lengths.tolist() == [2]
    with pytest.raises(InvalidArgumentError, match="horizon is 7, but the policy was made for 6 steps"):
        rollout(chain(), rule, episodes=1, horizon=7)


def test_a_mixture_is_drawn_at_the_start() -> None:
    mdp = MDP.from_outcomes({0: {a: [(1.0, 0, float(a), False)] for a in range(3)}})

    def always(action: int, stock: float) -> Plan:
        return Plan(Rule(lambda states, stocks, t: np.full(len(states), action)), stock=stock, horizon=3)

    parts = [(0.3, always(1, -1.0)), (0.7, always(2, -2.0)), (0.0, always(0, 0.0))]
    plan = Plan(mixture=parts)
    runs = rollout(mdp, plan, episodes=10_000, record=True)
    # Three times the same action: a return of 3 with probability 0.3, otherwise 6.
    assert set(runs.returns) == {3.0, 6.0}
    ones = runs.returns == 3.0
    assert abs(ones.sum() - 3000) <= 4 * np.sqrt(10_000 * 0.3 * 0.7)
    assert runs.paths is not None
    assert set(runs.paths.stocks[ones, 0]) == {-1.0}
    assert set(runs.paths.stocks[~ones, 0]) == {-2.0}
    assert parts[2][1].policy.asked == []


# -------------------------------------------------------------------- records and errors


def test_records_have_a_memory_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate, "PATHS_LIMIT", 10_000)
    with pytest.raises(MemoryLimitError, match="recording 100 episodes of more than 5 steps takes more than"):
        rollout(chain(), Rule(), episodes=100, horizon=50, record=True)
    assert rollout(chain(), Rule(), episodes=100, horizon=50).lengths.max() == 50


def test_repr_shows_the_mean_and_its_error() -> None:
    zeros = np.zeros(4, dtype=np.int64)
    runs = Rollouts(np.array([1.0, 2.0, 3.0, 4.0]), zeros, zeros == 0, 0, 0.0)
    # standard deviation sqrt(5 / 3), divided by 2
    assert repr(runs) == "Rollouts(4 episodes, mean return 2.5, standard error 0.645497, 0 unfinished)"
    runs = Rollouts(np.array([[1.0, -2.0]]), zeros[:1], zeros[:1] == 0, 0, 0.0)
    assert repr(runs) == "Rollouts(1 episodes, mean return (1, -2), 0 unfinished)"


SCALAR, VECTOR = chain(), chain(reward=(1.0, 2.0))
BAD: list[tuple[dict[str, Any], str]] = [
    *[({"episodes": n}, f"episodes is {n!r}; it must be a positive integer") for n in (0, -1, 1.5, None)],
    *[({"horizon": n}, f"horizon is {n!r}; it must be a positive integer") for n in (0, -3, 2.0)],
    ({"max_steps": 0}, "max_steps is 0; it must be a positive integer"),
    *[({"state": s}, f"state is {s!r}; states are the integers 0 to 0") for s in (1, -1, 0.0, "0")],
    ({"stock": (0.0, 1.0)}, "stock has shape (2,); it must be a number"),
    ({"stock": [1.0]}, "stock has shape (1,); it must be a number"),
    ({"stock": float("nan")}, "stock is nan; it must be finite"),
    ({"stock": -float("inf")}, "stock is -inf; it must be finite"),
    ({"stock": "much"}, "stock is 'much'; it must be made of numbers"),
    ({"mdp": VECTOR, "stock": 1.0}, "stock has shape (); it must be a vector of 2 numbers, like a reward"),
    ({"mdp": VECTOR, "stock": (1.0, 2.0, 3.0)}, "stock has shape (3,); it must be a vector of 2 numbers"),
    ({"policy": None}, "policy is NoneType; it must be a plan, or have a method actions(states, stocks, t)"),
    (
        {"policy": Rule(lambda s, c, t: 0)},
        "policy.actions returned int64 of shape () for 2 states; it must return",
    ),
    ({"policy": Rule(lambda s, c, t: s * 0.0)}, "policy.actions returned float64 of shape (2,) for 2 states"),
    ({"policy": Rule(lambda s, c, t: s + 9)}, "action 9 is not available at state 0; its actions are [0]"),
    (
        {"policy": Plan(mixture=[(0.5, Plan(Rule(lambda s, c, t: s - 1)))])},
        "action -1 is not available at state 0",
    ),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=[message[:50] for _, message in BAD])
def test_bad_arguments_are_named(options: dict[str, Any], message: str) -> None:
    given = {"mdp": SCALAR, "policy": Rule(), "episodes": 2, "horizon": 2, **options}
    with pytest.raises(InvalidArgumentError) as caught:
        rollout(**given)
    assert message in str(caught.value)
