"""MDPs: the canonical form, the five builders, and the errors that name rule, place, value and remedy."""

from __future__ import annotations

import sys
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import gymnasium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdolib.errors import InvalidArgumentError, InvalidMDPError
from rdolib.mdp import MDP
from tests.naive import Table
from tests.strategies import floats, tables

ARRAYS = ("terminal", "pair_ptr", "pair_action", "outcome_ptr", "prob", "next_state", "terminated", "reward")


def same(one: MDP, other: MDP, rtol: float = 0.0) -> None:
    assert (one.n_states, one.reward_dim, one.gamma) == (other.n_states, other.reward_dim, other.gamma)
    for name in ARRAYS:
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=rtol, atol=0, err_msg=name)


def as_table(mdp: MDP) -> dict[int, Any]:
    """The MDP written out again; terminal states as self-loops."""
    zero: Any = 0.0 if mdp.reward_dim == 1 else (0.0,) * mdp.reward_dim
    return {
        s: {int(a): mdp.outcomes(s, int(a)) for a in mdp.actions(s)} or {0: [(1.0, s, zero, True)]}
        for s in range(mdp.n_states)
    }


def best_means(mdp: MDP, sweeps: int) -> np.ndarray:
    """Best expected discounted sums of `sweeps` rewards, straight from the definition."""
    value = np.zeros(mdp.n_states)
    for _ in range(sweeps):
        new = np.zeros(mdp.n_states)
        for s in np.flatnonzero(~mdp.terminal):
            new[s] = max(
                sum(p * (r + (0 if end else mdp.gamma * value[j])) for p, j, r, end in mdp.outcomes(int(s), int(a)))
                for a in mdp.actions(int(s))
            )
        value = new
    return value


# -------------------------------------------------------------------- canonical form


def test_outcomes_are_merged_sorted_and_cleaned() -> None:
    table = {
        0: {
            2: [(0.25, 1, 3.0, False), (0.0, 0, 9.0, False), (0.25, 0, 5.0, False), (0.25, 0, -1.0, False),
                (0.25, 1, 3.0, False)],
            0: [(1.0, 2, 0.0, False)],
        },
        1: {5: [(0.5, 0, 1.0, True), (0.5, 0, 1.0, False)]},
        2: {0: [(0.5, 2, 0.0, False), (0.5, 2, -0.0, True)], 1: [(1.0, 2, 0.0, False)]},
    }  # fmt: skip
    mdp = MDP.from_outcomes(table, gamma=0.5)
    # State 2 only stays with reward 0: terminal, without pairs, and entering it ends the return.
    assert mdp.terminal.tolist() == [False, False, True]
    assert mdp.outcomes(0, 0) == [(1.0, 2, 0.0, True)]
    # 1/4 + 1/4 for the duplicate, nothing for probability 0, next state first, then reward.
    assert mdp.outcomes(0, 2) == [(0.25, 0, -1.0, False), (0.25, 0, 5.0, False), (0.5, 1, 3.0, False)]
    # Outcomes that differ only in whether they end stay apart.
    assert mdp.outcomes(1, 5) == [(0.5, 0, 1.0, False), (0.5, 0, 1.0, True)]
    assert [mdp.actions(s).tolist() for s in range(3)] == [[0, 2], [5], []]
    assert (mdp.n_states, mdp.n_actions, mdp.n_pairs, mdp.n_outcomes) == (3, 6, 3, 6)
    assert mdp.pair_ptr.tolist() == [0, 2, 3, 3]
    assert mdp.outcome_ptr.tolist() == [0, 1, 4, 6]
    assert mdp.pair_state.tolist() == [0, 0, 1]


def test_types_are_as_documented() -> None:
    mdp = MDP.garnet(5, 2, 3, seed=0)
    types = {name: str(getattr(mdp, name).dtype) for name in (*ARRAYS, "pair_state")}
    assert types == {
        "terminal": "bool", "pair_ptr": "int64", "pair_action": "int32", "outcome_ptr": "int64",
        "prob": "float64", "next_state": "int32", "terminated": "bool", "reward": "float64",
        "pair_state": "int32",
    }  # fmt: skip
    assert mdp.nbytes == sum(getattr(mdp, name).nbytes for name in ARRAYS)
    for name in (*ARRAYS, "pair_state"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(mdp, name)[0] = 0
    vector = MDP.from_outcomes({0: {0: [(1.0, 0, 1.0, True)]}}, initial=[1.0])
    assert isinstance(vector.initial, np.ndarray)
    with pytest.raises(ValueError, match="read-only"):
        vector.initial[0] = 0.5


def test_probabilities_are_divided_by_a_sum_that_is_almost_one() -> None:
    mdp = MDP.from_outcomes({0: {0: [(0.3, 0, 1.0, True), (0.7 + 5e-10, 0, 2.0, True)]}})
    assert mdp.prob.sum() == pytest.approx(1.0, abs=1e-15)


def test_a_zero_reward_loop_beside_another_action_is_not_terminal() -> None:
    mdp = MDP.from_outcomes({0: {0: [(1.0, 0, 0.0, False)], 1: [(1.0, 0, 1.0, True)]}})
    assert mdp.terminal.tolist() == [False]
    assert mdp.outcomes(0, 0) == [(1.0, 0, 0.0, False)]


def test_an_mdp_may_be_all_terminal() -> None:
    mdp = MDP.from_outcomes({0: {0: [(1.0, 0, 0.0, True)]}})
    assert (mdp.terminal.tolist(), mdp.n_pairs, mdp.n_outcomes) == ([True], 0, 0)
    with pytest.raises(InvalidArgumentError, match="action 0 is not available at state 0; the state is terminal"):
        mdp.outcomes(0, 0)
    assert mdp.pair_index(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)).size == 0


@settings(max_examples=100, deadline=None)
@given(tables())
def test_every_step_has_the_law_of_the_table(table: Table) -> None:
    mdp = MDP.from_outcomes(floats(table))
    for s, row in table.items():
        if mdp.terminal[s]:
            assert all(j == s and r == 0 for outs in row.values() for p, j, r, _ in outs if p)
            continue
        assert mdp.actions(s).tolist() == sorted(row)
        for a, outs in row.items():
            law: dict[Any, Fraction] = {}
            for p, j, r, end in outs:
                key = (j, float(r), end or bool(mdp.terminal[j]))
                law[key] = law.get(key, Fraction(0)) + p
            found = {(j, r, end): p for p, j, r, end in mdp.outcomes(s, a)}
            assert found == pytest.approx({key: float(p) for key, p in law.items() if p}, abs=1e-15)


@settings(max_examples=50, deadline=None)
@given(tables())
def test_writing_an_mdp_out_and_reading_it_again_changes_nothing(table: Table) -> None:
    mdp = MDP.from_outcomes(floats(table))
    same(mdp, MDP.from_outcomes(as_table(mdp)), rtol=1e-15)


# -------------------------------------------------------------------- from_arrays


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.booleans(),
    st.booleans(),
)
def test_arrays_and_outcomes_build_the_same_mdp(
    seed: int, n_states: int, n_actions: int, m: int, per_next_state: bool, stop_last: bool
) -> None:
    rng = np.random.default_rng(seed)
    p = rng.random((n_states, n_actions, n_states)) * (rng.random((n_states, n_actions, n_states)) < 0.6)
    p[..., 0] += 0.1
    p /= p.sum(axis=2, keepdims=True)
    shape = (n_states, n_actions, n_states) if per_next_state else (n_states, n_actions)
    r = rng.integers(-2, 3, size=shape if m == 1 else (*shape, m)) / 2
    terminal = [n_states - 1] if stop_last else None
    if terminal:
        r[-1] = 0
    mdp = MDP.from_arrays(p, r, gamma=0.9, terminal=terminal, reward_dim=m)

    zero: Any = 0.0 if m == 1 else (0.0,) * m
    table: dict[int, Any] = {}
    for s in range(n_states):
        table[s] = {
            a: [(p[s, a, j], j, r[s, a, j] if per_next_state else r[s, a], False) for j in range(n_states)]
            for a in range(n_actions)
        }
    if terminal:
        table[n_states - 1] = {0: [(1.0, n_states - 1, zero, False)]}
    same(mdp, MDP.from_outcomes(table, gamma=0.9), rtol=1e-15)
    assert mdp.n_actions == n_actions


def test_terminal_states_may_be_named_in_three_ways_and_their_rows_are_ignored() -> None:
    p = np.array([[[0.5, 0.5]], [[np.nan, -7.0]]])
    r = np.array([[1.0], [0.0]])
    built = [MDP.from_arrays(p, r, terminal=t) for t in (1, [1], np.array([False, True]))]
    for mdp in built:
        same(mdp, built[0])
        assert mdp.outcomes(0, 0) == [(0.5, 0, 1.0, False), (0.5, 1, 1.0, True)]
    rows = MDP.from_arrays(p, np.array([[[0.0, 4.0]], [[0.0, 4.0]]]), terminal=[1])  # paid on entering only
    assert rows.outcomes(0, 0) == [(0.5, 0, 0.0, False), (0.5, 1, 4.0, True)]


def test_arrays_are_not_changed_and_not_shared() -> None:
    p, r, start = np.full((2, 1, 2), 0.5), np.array([[-0.0], [1.0]]), np.array([0.5, 0.5])
    mdp = MDP.from_arrays(p, r, initial=start)
    p[:], r[:], start[:] = 7.0, 7.0, 7.0
    assert mdp.prob.tolist() == [0.5] * 4
    assert mdp.reward.tolist() == [0.0, 0.0, 1.0, 1.0]
    assert not np.signbit(mdp.reward).any()
    np.testing.assert_array_equal(mdp.initial, [0.5, 0.5])


def test_fractions_are_numbers_too() -> None:
    half = Fraction(1, 2)
    mdp = MDP.from_arrays([[[half, half]], [[0, 1]]], [[half], [0]])
    assert mdp.outcomes(0, 0) == [(0.5, 0, 0.5, False), (0.5, 1, 0.5, True)]


# -------------------------------------------------------------------- from_outcomes


def test_a_next_state_outside_the_table_is_terminal_when_every_entry_ends() -> None:
    mdp = MDP.from_outcomes({0: {0: [(1.0, 1, 2.0, True)]}})
    assert mdp.n_states == 2
    assert mdp.terminal.tolist() == [False, True]


def test_lists_serve_as_tables_and_numpy_numbers_as_entries() -> None:
    nested = [[[(np.float32(0.5), np.int64(1), np.int32(2), np.bool_(False)), (0.5, 0, 1, False)]],
              [[(1.0, 0, -1.0, True)], [(1.0, 1, -1.0, False)]]]  # fmt: skip
    mapped = {np.int64(s): dict(enumerate(row)) for s, row in enumerate(nested)}
    same(MDP.from_outcomes(nested), MDP.from_outcomes(mapped))
    assert MDP.from_outcomes(nested).actions(1).tolist() == [0, 1]


def test_vector_rewards_come_as_tuples_lists_or_arrays() -> None:
    mdp = MDP.from_outcomes(
        {
            0: {
                0: [
                    (0.25, 0, (1, 2.0), True),
                    (0.25, 0, [1.0, 2.0], True),
                    (0.5, 0, np.array([1.0, -3.0]), True),
                ]
            }
        }
    )
    assert mdp.reward_dim == 2
    assert mdp.reward.shape == (2, 2)
    assert mdp.outcomes(0, 0) == [(0.5, 0, (1.0, -3.0), True), (0.5, 0, (1.0, 2.0), True)]
    assert MDP.from_outcomes({0: {0: [(1.0, 0, (3.0,), True)]}}).reward.shape == (1,)


def test_initial_may_be_a_state_or_a_vector() -> None:
    table = {0: {0: [(1.0, 1, 1.0, False)]}, 1: {0: [(1.0, 0, 1.0, True)]}}
    assert MDP.from_outcomes(table, initial=np.int64(1)).initial == 1
    np.testing.assert_array_equal(MDP.from_outcomes(table, initial=(0.25, 0.75)).initial, [0.25, 0.75])


# -------------------------------------------------------------------- reading


def test_pair_index_finds_pairs_with_any_action_numbers() -> None:
    mdp = MDP.from_outcomes({
        0: {1: [(1.0, 1, 1.0, False)], 4: [(1.0, 1, 1.0, False)]},
        1: {0: [(1.0, 1, 1.0, True)]},
        2: {0: [(1.0, 1, 1.0, True)], 1: [(1.0, 1, 2.0, True)]},
    })  # fmt: skip
    assert mdp.pair_index(np.array([2, 0, 1, 0]), np.array([1, 4, 0, 1])).tolist() == [4, 1, 2, 0]
    assert mdp.pair_index(np.array([1, 2, 2]), np.array([0, 0, 1])).tolist() == [2, 3, 4]
    for action in (-1, 0, 2, 5, 10**6):
        with pytest.raises(InvalidArgumentError, match=f"action {action} is not available at state 0; its actions are"):
            mdp.pair_index(np.array([1, 0]), np.array([0, action]))


@pytest.mark.parametrize("state", [-1, 3, 0.5, "0", None, True])
def test_reading_an_unknown_state_is_an_error(state: Any) -> None:
    mdp = MDP.garnet(3, 1, 1)
    with pytest.raises(InvalidArgumentError, match="is not a state; states are 0 to 2"):
        mdp.actions(state)
    with pytest.raises(InvalidArgumentError, match="is not a state"):
        mdp.outcomes(state, 0)
    with pytest.raises(InvalidArgumentError, match=r"action 0\.5 is not an integer"):
        mdp.outcomes(0, 0.5)  # type: ignore[arg-type]


def test_repr_says_what_it_is() -> None:
    table = {0: {0: [(0.5, 0, (1.0, 0.0), False), (0.5, 1, (0.0, 1.0), True)]}}
    assert repr(MDP.from_outcomes(table, gamma=0.9, initial=[1.0, 0.0])) == (
        "MDP(2 states (1 terminal), 1 actions, 1 pairs, 2 outcomes, 2 reward components, gamma=0.9, "
        "initial=distribution)"
    )


# -------------------------------------------------------------------- from_gymnasium

TOY_TEXT = [
    ("FrozenLake-v1", {}),
    ("FrozenLake-v1", {"is_slippery": False}),
    ("FrozenLake-v1", {"map_name": "8x8"}),
    ("FrozenLake8x8-v1", {"is_slippery": False}),
    ("FrozenLake-v1", {"desc": ["SFH", "FFG"], "success_rate": 1.0}),  # outcomes of probability 0
    ("CliffWalking-v1", {}),
    ("CliffWalking-v1", {"is_slippery": True}),
    ("Taxi-v4", {}),
    ("Taxi-v4", {"is_rainy": True}),
    ("Taxi-v4", {"is_rainy": True, "rainy_probability": 0.5, "max_episode_steps": 7}),
]


@pytest.mark.parametrize(("name", "options"), TOY_TEXT)
def test_gymnasium_tables_are_read_as_they_are(name: str, options: dict[str, Any]) -> None:
    env = gymnasium.make(name, **options)
    mdp = MDP.from_gymnasium(env)
    table, start = env.unwrapped.P, env.unwrapped.initial_state_distrib
    env.close()
    assert (mdp.n_states, mdp.n_actions) == (env.observation_space.n, env.action_space.n)
    np.testing.assert_allclose(
        np.eye(mdp.n_states)[mdp.initial] if isinstance(mdp.initial, int) else mdp.initial, start
    )
    for s, row in table.items():
        if mdp.terminal[s]:
            assert all(j == s and r == 0 for outs in row.values() for _, j, r, _ in outs)
            continue
        for a, outs in row.items():
            law: dict[Any, float] = {}
            for p, j, r, end in outs:
                law[int(j), r, bool(end)] = law.get((int(j), r, bool(end)), 0.0) + p
            found = {(j, r, end): p for p, j, r, end in mdp.outcomes(s, a)}
            assert found == pytest.approx({key: p for key, p in law.items() if p}, abs=1e-15)
    same(mdp, MDP.from_gymnasium(name, **options))


def test_known_optima_of_the_toy_text_environments() -> None:
    # Along the cliff: one up, eleven right, one down, -1 each.
    assert best_means(MDP.from_gymnasium("CliffWalking-v1"), 20)[36] == -13
    # The shortest way over the lake has six steps; the reward 1 comes with the sixth.
    assert best_means(MDP.from_gymnasium("FrozenLake-v1", is_slippery=False, gamma=0.5), 20)[0] == 0.5**5
    # Taxi: passenger at Red, taxi beside it, to Yellow: west, pick up, four south, drop off: 6 * (-1) + 20.
    state = ((0 * 5 + 1) * 5 + 0) * 4 + 2
    assert best_means(MDP.from_gymnasium("Taxi-v4"), 30)[state] == 14


def test_initial_states_of_the_toy_text_environments() -> None:
    assert MDP.from_gymnasium("CliffWalking-v1").initial == 36
    assert MDP.from_gymnasium("FrozenLake-v1").initial == 0
    initial = MDP.from_gymnasium("Taxi-v4").initial
    assert isinstance(initial, np.ndarray)
    # 25 places, 4 passenger stands, 3 other destinations.
    assert np.count_nonzero(initial) == 300
    np.testing.assert_allclose(initial[initial > 0], 1 / 300)


def test_the_map_of_a_gymnasium_gridworld_is_kept() -> None:
    lake = MDP.from_gymnasium("FrozenLake-v1").grid
    cliff = MDP.from_gymnasium("CliffWalking-v1").grid
    assert lake is not None
    assert cliff is not None
    assert lake.lines == ("SFFF", "FHFH", "FFFH", "HFFG")
    assert cliff.lines == ("............",) * 3 + ("SCCCCCCCCCCG",)
    assert (lake.shape, cliff.shape) == ((4, 4), (4, 12))
    np.testing.assert_array_equal(cliff.cells[36], [3, 0])
    assert MDP.from_gymnasium("Taxi-v4").grid is None


@pytest.mark.parametrize("name", ["FrozenLake-v1", "CliffWalking-v1"])
def test_the_moves_of_a_gymnasium_gridworld_are_those_of_its_table(name: str) -> None:
    mdp = MDP.from_gymnasium(name, is_slippery=False)
    assert mdp.grid is not None
    rows, columns = mdp.grid.shape
    for s in np.flatnonzero(~mdp.terminal):
        for a, move in enumerate(mdp.grid.moves):
            [(_, j, reward, _)] = mdp.outcomes(int(s), a)
            target = np.clip(mdp.grid.cells[s] + move, 0, [rows - 1, columns - 1])
            if reward != -100:  # the cliff sends back to the start
                np.testing.assert_array_equal(mdp.grid.cells[j], target)


class Bare:
    """An environment of somebody else: a table and nothing more."""

    def __init__(self, **attributes: Any) -> None:
        self.closed = False
        self.P = {0: {0: [(1.0, 1, 1.0, False)]}, 1: {0: [(1.0, 1, 0.0, False)]}}
        self.__dict__.update(attributes)

    def close(self) -> None:
        self.closed = True


def test_any_object_with_a_table_is_an_environment() -> None:
    assert MDP.from_gymnasium(Bare()).initial == 0
    start = MDP.from_gymnasium(Bare(initial_state_distrib=np.array([0.5, 0.5]))).initial
    np.testing.assert_array_equal(start, [0.5, 0.5])
    one_hot = MDP.from_gymnasium(Bare(initial_state_distrib=np.array([0.0, 1.0]))).initial
    assert one_hot == 1
    with pytest.raises(InvalidMDPError, match=r"initial probability of state 0 is nan"):
        MDP.from_gymnasium(Bare(initial_state_distrib=np.array([np.nan, np.nan])))
    with pytest.raises(InvalidMDPError, match=r"initial probabilities sum to 0.5"):
        MDP.from_gymnasium(Bare(initial_state_distrib=np.array([0.5, 0.0])))


def test_environments_made_here_are_closed_and_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Bare] = []

    def make(name: str, **options: Any) -> Bare:
        made.append(Bare(**options))
        return made[-1]

    monkeypatch.setattr(gymnasium, "make", make)
    MDP.from_gymnasium("Bare-v0")
    with pytest.raises(InvalidMDPError, match="no transition table"):
        MDP.from_gymnasium("Bare-v0", P=None)
    assert [env.closed for env in made] == [True, True]
    env = Bare()
    MDP.from_gymnasium(env)
    assert not env.closed


def test_without_gymnasium_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ImportError, match="run: pip install gymnasium"):
        MDP.from_gymnasium("FrozenLake-v1")
    monkeypatch.setitem(sys.modules, "gymnasium.envs.toy_text.cliffwalking", None)
    assert MDP.from_gymnasium(Bare()).n_states == 2


# -------------------------------------------------------------------- from_grid


def test_a_grid_moves_bumps_and_ends() -> None:
    mdp = MDP.from_grid(
        """
        S.G
        #aX
        """,
        rewards={"a": 3.0, "G": 10.0},
        step_reward=-0.5,
    )
    # States: S 0, the free cell 1, G 2, a 3, X 4. Actions: 0 up, 1 right, 2 down, 3 left.
    assert mdp.initial == 0
    assert mdp.terminal.tolist() == [False, False, True, False, True]
    assert [mdp.outcomes(0, a)[0] for a in range(4)] == [
        (1.0, 0, -0.5, False),  # off the map
        (1.0, 1, -0.5, False),
        (1.0, 0, -0.5, False),  # into the wall
        (1.0, 0, -0.5, False),
    ]
    assert mdp.outcomes(1, 1) == [(1.0, 2, 10.0, True)]
    assert mdp.outcomes(1, 2) == [(1.0, 3, 3.0, False)]
    assert mdp.outcomes(3, 2) == [(1.0, 3, -0.5, False)]  # a bump does not enter the cell again
    assert mdp.outcomes(3, 1) == [(1.0, 4, -100.0, True)]
    assert mdp.grid is not None
    assert mdp.grid.lines == ("S.G", "#aX")
    assert mdp.grid.states.tolist() == [[0, 1, 2], [-1, 3, 4]]
    assert mdp.grid.cells.tolist() == [[0, 0], [0, 1], [0, 2], [1, 1], [1, 2]]


def test_slip_shares_its_probability_between_the_two_sides() -> None:
    mdp = MDP.from_grid("...\n.S.\n...", slip=0.5, terminal="")
    # From the middle (state 4), down: half to 7, a quarter each to the left (3) and to the right (5).
    assert mdp.outcomes(4, 2) == [(0.25, 3, -1.0, False), (0.25, 5, -1.0, False), (0.5, 7, -1.0, False)]
    third = MDP.from_grid("...\n.S.\n...", slip=2 / 3, terminal="").outcomes(4, 0)
    np.testing.assert_allclose([p for p, *_ in third], [1 / 3] * 3, rtol=1e-15)
    certain = MDP.from_grid("...\n.S.\n...", slip=1.0, terminal="").outcomes(4, 1)
    assert certain == [(0.5, 1, -1.0, False), (0.5, 7, -1.0, False)]


def test_a_grid_is_the_same_problem_as_gymnasiums_lake() -> None:
    lake = MDP.from_gymnasium("FrozenLake-v1", gamma=0.9)
    grid = MDP.from_grid("S...\n.X.X\n...X\nX..G", gamma=0.9, slip=2 / 3, step_reward=0.0, rewards={"G": 1.0, "X": 0.0})
    np.testing.assert_allclose(best_means(grid, 60), best_means(lake, 60), rtol=1e-12)


def test_several_starts_are_equally_likely() -> None:
    np.testing.assert_array_equal(MDP.from_grid("S.S\nG..").initial, [0.5, 0, 0.5, 0, 0, 0])


def test_a_grid_may_have_vector_rewards_and_other_terminal_cells() -> None:
    mdp = MDP.from_grid("SfT", step_reward=(-1, 0), rewards={"f": (-1, 1)}, terminal="T")
    assert mdp.reward_dim == 2
    assert mdp.outcomes(0, 1) == [(1.0, 1, (-1.0, 1.0), False)]
    assert mdp.outcomes(1, 1) == [(1.0, 2, (-1.0, 0.0), True)]


# -------------------------------------------------------------------- garnet


def test_garnet_repeats_itself() -> None:
    same(MDP.garnet(20, 3, 4, seed=5), MDP.garnet(20, 3, 4, seed=5))
    assert not np.array_equal(MDP.garnet(20, 3, 4, seed=5).prob, MDP.garnet(20, 3, 4, seed=6).prob)


def test_garnet_has_the_sizes_asked_for() -> None:
    mdp = MDP.garnet(np.int64(30), 3, 7, seed=1, gamma=0.9, rewards=[0.5, 2.0])  # type: ignore[arg-type]
    assert (mdp.n_states, mdp.n_actions, mdp.n_pairs, mdp.n_outcomes) == (30, 3, 90, 630)
    assert type(mdp.n_states) is int
    assert set(mdp.reward.tolist()) == {0.5, 2.0}
    rows = mdp.next_state.reshape(90, 7)
    assert (np.diff(rows, axis=1) > 0).all()  # distinct
    assert not mdp.terminated.any()


def test_garnet_draws_subsets_and_probabilities_uniformly() -> None:
    mdp = MDP.garnet(5, 4000, 2, seed=3, rewards=[1.0])
    pairs, counts = np.unique(mdp.next_state.reshape(-1, 2), axis=0, return_counts=True)
    # 20,000 draws of one of ten subsets: each 2,000 times, standard deviation sqrt(20000 * 0.1 * 0.9) = 42.4.
    assert len(pairs) == 10
    assert np.abs(counts - 2000).max() < 4 * 42.4
    # On the simplex of two outcomes a uniform point has a uniform first coordinate: mean 1/2, variance 1/12.
    first = mdp.prob.reshape(-1, 2)[:, 0]
    assert abs(first.mean() - 0.5) < 4 * np.sqrt(1 / 12 / 20_000)
    assert abs(first.var() - 1 / 12) < 4 * np.sqrt(1 / 180 / 20_000)  # var of (U - 1/2)**2 is 1/80 - 1/144 = 1/180


def test_garnet_ends_with_the_probability_asked_for() -> None:
    mdp = MDP.garnet(100, 10, 4, seed=0, terminal_probability=0.2)
    # 4,000 outcomes: standard deviation of the share sqrt(0.2 * 0.8 / 4000) = 0.0063.
    assert abs(mdp.terminated.mean() - 0.2) < 4 * 0.0063
    assert MDP.garnet(10, 2, 3, terminal_probability=1.0).terminated.all()
    assert MDP.garnet(10, 2, 3, rewards=[[1.0, 0.0], [0.0, 1.0]]).reward_dim == 2


# -------------------------------------------------------------------- bad input

P = np.array([[[0.5, 0.5], [0.0, 1.0]], [[1.0, 0.0], [0.25, 0.75]]])
R = np.array([[1.0, 2.0], [3.0, 4.0]])
GOOD = {0: {0: [(0.5, 0, 1.0, False), (0.5, 1, 2.0, False)]}, 1: {0: [(1.0, 0, 0.5, True)]}}


def changed(array: np.ndarray, index: Any, value: float) -> np.ndarray:
    array = array.copy()
    array[index] = value
    return array


def arrays(**options: Any) -> Callable[[], MDP]:
    return lambda: MDP.from_arrays(**{"P": P, "R": R, "gamma": 0.9, **options})


def table(rows: Any, **options: Any) -> Callable[[], MDP]:
    return lambda: MDP.from_outcomes(rows, **options)


def outcome(*entries: Any) -> Callable[[], MDP]:
    """A good table whose state 1 has action 3 with this outcome, after a good one."""
    return table({0: GOOD[0], 1: {3: [(0.5, 0, 1.0, True), tuple(entries)]}})


def grid(text: str = "S.G", **options: Any) -> Callable[[], MDP]:
    return lambda: MDP.from_grid(text, **options)


def garnet(*sizes: Any, **options: Any) -> Callable[[], MDP]:
    return lambda: MDP.garnet(*sizes, **options)


WHOLE = "it must be between 0 and 1"
BAD: list[tuple[Callable[[], MDP], str]] = [
    # discount
    *[
        (arrays(gamma=g), f"gamma is {g!r}; it must be a number greater than 0 and at most 1")
        for g in (0, -0.5, 1.0000001, float("nan"), float("inf"), "0.9", None, True)
    ],
    (table(GOOD, gamma=0.0), "gamma is 0.0; it must be a number greater than 0 and at most 1"),
    (lambda: MDP.from_gymnasium("FrozenLake-v1", gamma=2), "gamma is 2;"),
    (grid(gamma=0), "gamma is 0;"),
    (garnet(2, 1, 1, gamma=0), "gamma is 0;"),
    # arrays: shapes
    (arrays(P=np.ones((2, 2))), "P has shape (2, 2); it must be (S, A, S): state, action, next state"),
    (arrays(P=np.ones((2, 2, 3))), "P has shape (2, 2, 3); it must be (S, A, S)"),
    (arrays(P=np.ones((0, 2, 0))), "P has no states"),
    (arrays(P=np.ones((2, 0, 2))), "P has no actions"),
    (arrays(P=[[[1.0], [0.5, 0.5]]]), "P is not an array of numbers"),
    (arrays(P=[[["half", "half"]]]), "P is not an array of numbers: its entries are of type <U4"),
    (arrays(P=P + 0j), "P is not an array of numbers: its entries are of type complex128"),
    (
        arrays(R=[1.0, 2.0]),
        "R has shape (2,); with P of shape (2, 2, 2) and reward_dim=1 it must be (2, 2) or "
        "(2, 2, 2); a reward for being in a state goes on its actions: R[:, None].repeat(A, axis=1)",
    ),
    (
        arrays(R=np.ones((2, 2, 3))),
        "R has shape (2, 2, 3); with P of shape (2, 2, 2) and reward_dim=1 it must be "
        "(2, 2) or (2, 2, 2); for vector rewards pass reward_dim=3",
    ),
    (arrays(R=np.ones((2, 2, 2, 5))), "for vector rewards pass reward_dim=5"),
    (
        arrays(reward_dim=3),
        "R has shape (2, 2); with P of shape (2, 2, 2) and reward_dim=3 it must be (2, 2, 3) or (2, 2, 2, 3)",
    ),
    *[(arrays(reward_dim=m), f"reward_dim is {m!r}; it must be a positive integer") for m in (0, -1, 1.5, None)],
    # arrays: probabilities
    (
        arrays(P=changed(P, (1, 0, 1), -0.25)),
        f"transition probability at state 1, action 0, next state 1 is -0.25; {WHOLE}",
    ),
    (
        arrays(P=changed(P, (1, 0, 1), np.nan)),
        f"transition probability at state 1, action 0, next state 1 is nan; {WHOLE}",
    ),
    (
        arrays(P=changed(P, (1, 0, 1), np.inf)),
        f"transition probability at state 1, action 0, next state 1 is inf; {WHOLE}",
    ),
    (
        arrays(P=changed(P, (1, 1, 1), 0.73)),
        "transition probabilities at state 1, action 1 sum to 0.98; they must sum to 1",
    ),
    (
        arrays(P=changed(P, (1, 1, 1), 0.75 + 2e-9)),
        "transition probabilities at state 1, action 1 sum to 1.000000002; they must sum to 1",
    ),
    (
        arrays(P=changed(P, 1, 0.0)),
        "transition probabilities at state 1, action 0 sum to 0; they must sum to 1; "
        "if state 1 ends the return, name it in terminal=",
    ),
    (
        arrays(P=changed(P, (1, 1), 0.0)),
        "transition probabilities at state 1, action 1 sum to 0; they must sum to 1; "
        "if the state lacks this action, use from_outcomes, where states may have different actions",
    ),
    # arrays: rewards
    (arrays(R=changed(R, (1, 0), np.nan)), "reward at state 1, action 0 is nan; every reward must be finite"),
    (
        arrays(R=changed(P, (1, 0, 1), -np.inf)),
        "reward at state 1, action 0, next state 1 is -inf; every reward must be finite",
    ),
    (
        arrays(R=changed(np.ones((2, 2, 3)), (0, 1, 2), np.inf), reward_dim=3),
        "reward at state 0, action 1, component 2 is inf; every reward must be finite",
    ),
    (
        arrays(terminal=[1]),
        "reward at terminal state 1, action 0 is 3.0; nothing is paid after the end: put it on the "
        "transition into the state",
    ),
    (
        arrays(R=changed(0 * P, (1, 1, 0), 2.0), terminal=[1]),
        "reward at terminal state 1, action 1, next state 0 is 2.0; nothing is paid after the end",
    ),
    # arrays: terminal states
    (arrays(terminal=[2]), "terminal state 2 is out of range; states are 0 to 1"),
    (arrays(terminal=[-1]), "terminal state -1 is out of range"),
    (arrays(terminal=[True]), "terminal is a mask of shape (1,); it must be (2,)"),
    (arrays(terminal=[0.5]), "terminal is [0.5]; it must be a list of states (integers) or a boolean mask"),
    # initial state
    (arrays(initial=2), "initial state 2 is out of range; states are 0 to 1"),
    (arrays(initial=-1), "initial state -1 is out of range; states are 0 to 1"),
    (arrays(initial=0.5), "initial is 0.5; it must be a state (an integer) or a vector of probabilities"),
    (arrays(initial="start"), "initial is not an array of numbers"),
    (arrays(initial=[1.0]), "initial has shape (1,); a vector of probabilities must have (2,)"),
    (arrays(initial=[0.5, 0.4]), "initial probabilities sum to 0.9; they must sum to 1"),
    (arrays(initial=[1.5, -0.5]), f"initial probability of state 0 is 1.5; {WHOLE}"),
    (arrays(initial=[np.nan, 1.0]), f"initial probability of state 0 is nan; {WHOLE}"),
    (table(GOOD, initial=2), "initial state 2 is out of range; states are 0 to 1"),
    # tables: form
    (table({}), "the table is empty; it needs at least one state with one action"),
    (table([]), "the table is empty"),
    (
        table(None),
        "the table is NoneType; it must be a dictionary or a list of states, as in {state: {action:",
    ),
    (table({0: "row"}), "the entry of state 0 is str; it must be a dictionary or a list of actions"),
    (
        table({0: {0: 1.0}}),
        "the entry at state 0, action 0 is 1.0; it must be a list of outcomes (probability,",
    ),
    (
        table({"start": GOOD[0]}),
        "state 'start' in the table is not a valid number; states are the integers from 0 up",
    ),
    (table({0.5: GOOD[0]}), "state 0.5 in the table is not a valid number"),
    (table({-1: GOOD[0]}), "state -1 in the table is not a valid number"),
    (
        table({0: {"left": []}}),
        "action 'left' in the entry of state 0 is not a valid number; actions are the integers",
    ),
    (table({0: {2**40: []}}), "action 1099511627776 in the entry of state 0 is not a valid number"),
    (
        table({**GOOD, 1: {}}),
        "state 1 has no action; give it one, or leave the state out of the table and enter it "
        "with terminated=True if it ends the return",
    ),
    (table({0: {0: []}}), "state 0, action 0 has no outcome; list at least one, or leave the action out"),
    (
        outcome(0.5, 0, 1.0),
        "the outcome (0.5, 0, 1.0) at state 1, action 3 must have four entries: (probability, "
        "next_state, reward, terminated)",
    ),
    (outcome(0.5, 0, 1.0, False, {}), "at state 1, action 3 must have four entries"),
    (table({0: {0: [1.0]}}), "the outcome 1.0 at state 0, action 0 must have four entries"),
    # tables: entries
    (
        table({0: {0: [((1.0,), 0, 1.0, True)]}}),
        "transition probability at state 0, action 0 is (1.0,); it must be a number",
    ),
    (
        outcome(0.48, 0, 1.0, True),
        "transition probabilities at state 1, action 3 sum to 0.98; they must sum to 1",
    ),
    (
        outcome(-0.5, 0, 1.0, True),
        f"transition probability at state 1, action 3, next state 0 is -0.5; {WHOLE}",
    ),
    (
        outcome(float("nan"), 0, 1.0, True),
        f"transition probability at state 1, action 3, next state 0 is nan; {WHOLE}",
    ),
    (
        outcome("half", 0, 1.0, True),
        "transition probability at state 1, action 3 is 'half'; it must be a number",
    ),
    (
        outcome((0.5,), 0, 1.0, True),
        "transition probability at state 1, action 3 is (0.5,); it must be a number",
    ),
    (
        outcome(0.5, 7, 1.0, False),
        "next state 7 at state 1, action 3 is out of range: it is not in the table; add it, "
        "or set terminated=True if the return ends there",
    ),
    (
        outcome(0.5, 7, 1.0, True),
        "state 2 is missing: the table's largest state is 7, and states must be numbered 0 to S - 1 without gaps",
    ),
    (
        outcome(0.5, -1, 1.0, True),
        "next state -1 at state 1, action 3 is out of range; states are 0 to S - 1",
    ),
    (
        outcome(0.5, 10**20, 1.0, True),
        "next state 100000000000000000000 at state 1, action 3 is out of range",
    ),
    (
        outcome(0.5, 1.5, 1.0, True),
        "next state 1.5 at state 1, action 3 is not an integer; states are 0 to S - 1",
    ),
    (outcome(0.5, "goal", 1.0, True), "next state 'goal' at state 1, action 3 is not an integer"),
    (outcome(0.5, (1,), 1.0, True), "next state (1,) at state 1, action 3 is not an integer"),
    (
        outcome(0.5, 0, float("nan"), True),
        "reward at state 1, action 3, next state 0 is nan; every reward must be finite",
    ),
    (
        outcome(0.5, 0, -float("inf"), True),
        "reward at state 1, action 3, next state 0 is -inf; every reward must be",
    ),
    (
        outcome(0.5, 0, None, True),
        "reward at state 1, action 3, next state 0 is None; every reward must be finite",
    ),
    (outcome(0.5, 0, "much", True), "reward at state 1, action 3 is 'much'; it must be a number"),
    (outcome(0.5, 0, 10**400, True), "reward at state 1, action 3 is 1000"),
    (
        outcome(0.5, 0, (1.0, 2.0), True),
        "reward at state 1, action 3 is (1.0, 2.0), but at state 0, action 0 it is 1.0; "
        "every reward must have the same number of components",
    ),
    (
        table({0: {0: [(1.0, 0, (1.0, np.nan), True)]}}),
        "reward at state 0, action 0, next state 0 is (1.0, nan); every",
    ),
    (
        table({0: {0: [(1.0, 0, ((1.0,),), True)]}}),
        "reward at state 0, action 0 is ((1.0,),); it must be a number or a",
    ),
    (
        table({0: {0: [(1.0, 0, (), True)]}}),
        "reward at state 0, action 0 is (); it must be a number or a vector",
    ),
    (
        outcome(0.5, 0, True, 1.0),
        "terminated at state 1, action 3, next state 0 is 1.0; it must be True or False (an "
        "outcome is probability, next_state, reward, terminated)",
    ),
    # environments
    (
        lambda: MDP.from_gymnasium("Blackjack-v1"),
        "Blackjack-v1 has no transition table (env.unwrapped.P); write its "
        "transitions down and use MDP.from_outcomes(table) or MDP.from_arrays(P, R)",
    ),
    (lambda: MDP.from_gymnasium(Bare(P=None)), "Bare has no transition table"),
    (
        lambda: MDP.from_gymnasium("Taxi-v4", fickle_passenger=True),
        "Taxi-v4 with fickle_passenger=True changes the destination outside its transition table",
    ),
    # grids
    (grid(""), "the map is empty; draw at least one line with a start 'S'"),
    (
        grid("S.G\n...."),
        "line 1 of the map has 4 cells and line 0 has 3; all lines must have the same length",
    ),
    (
        grid("S.G\n.k."),
        "unknown character 'k' at row 1, column 1 of the map; known are '#.GSX': name others in "
        "rewards= or terminal=, and draw free cells as '.'",
    ),
    (grid("S G"), "unknown character ' ' at row 0, column 1 of the map"),
    (grid("..G"), "the map has no start; mark at least one cell with 'S'"),
    (grid(slip=1.2), "slip is 1.2; it must be a number between 0 and 1"),
    (grid(slip=float("nan")), "slip is nan; it must be a number between 0 and 1"),
    (grid(terminal="GS"), "terminal is 'GS'; a start 'S' or wall '#' cannot end the return"),
    (
        grid(step_reward=float("nan")),
        "reward at state 0, action 0, next state 0 is nan; every reward must be finite",
    ),
    # garnets
    *[
        (garnet(*sizes), f"{name} is {value!r}; it must be a positive integer")
        for sizes, name, value in (
            ((0, 1, 1), "n_states", 0),
            ((2, -1, 1), "n_actions", -1),
            ((2, 1, 1.5), "n_outcomes", 1.5),
        )
    ],
    (
        garnet(2, 1, 3),
        "n_outcomes is 3 and n_states is 2; a pair cannot have more distinct next states than there are",
    ),
    (
        garnet(2, 1, 1, terminal_probability=-0.1),
        "terminal_probability is -0.1; it must be a number between 0 and 1",
    ),
    (garnet(2, 1, 1, rewards=[]), "rewards has shape (0,); it must be (n,) or (n, m), and not empty"),
    (garnet(2, 1, 1, rewards=[1.0, np.nan]), "rewards holds nan; every reward must be finite"),
]


@pytest.mark.parametrize(("build", "message"), BAD, ids=[message[:60] for _, message in BAD])
def test_bad_input_is_named(build: Callable[[], MDP], message: str) -> None:
    with pytest.raises(InvalidMDPError) as caught:
        build()
    assert message in str(caught.value)


def test_options_for_an_environment_that_is_already_made_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="is_slippery: options go to"):
        MDP.from_gymnasium(Bare(), is_slippery=True)


def test_nothing_large_is_allocated_before_a_table_is_known_to_be_sound() -> None:
    # A next state of two billion would need as many rows; the gap is found before they exist.
    with pytest.raises(InvalidMDPError, match="state 1 is missing: the table's largest state is 2000000000"):
        MDP.from_outcomes({0: {0: [(1.0, 2_000_000_000, 1.0, True)]}})
