"""The canonical form of an MDP: every builder lists its checked outcomes, and `canonical` sorts and merges them."""

from __future__ import annotations

from typing import Any, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Ints32 = NDArray[np.int32]
Bools = NDArray[np.bool_]
_Array = TypeVar("_Array", bound=NDArray[Any])


class Arrays(TypedDict):
    """The fields of `rdolib.mdp.MDP` that hold its transitions, rewards and initial state."""

    n_states: int
    n_actions: int
    reward_dim: int
    initial: int | Floats
    terminal: Bools
    pair_ptr: Ints
    pair_action: Ints32
    outcome_ptr: Ints
    prob: Floats
    next_state: Ints32
    terminated: Bools
    reward: Floats


def canonical(
    *,
    n_states: int,
    n_actions: int,
    initial: int | Floats,
    pair_state: Ints,
    pair_action: Ints32,
    pair_of: Ints,
    prob: Floats,
    next_state: Ints32,
    terminated: Bools,
    reward: Floats,
) -> Arrays:
    """Put checked outcomes into canonical form. May change the arrays it is given.

    Parameters
    ----------
    pair_state, pair_action : (n_pairs,) integer arrays
        State and action of each pair, ascending.
    pair_of : (n,) int64 array
        The pair of each outcome, ascending.
    prob, next_state, terminated : (n,) arrays
        Probabilities, which may be zero, next states and ends.
    reward : (n,) or (n, m) array
        Rewards.
    """
    if reward.ndim == 2 and reward.shape[1] == 1:
        reward = reward[:, 0]
    reward += 0.0  # -0.0 becomes 0.0
    state_of = pair_state[pair_of]

    stays = next_state == state_of
    stays &= reward == 0 if reward.ndim == 1 else (reward == 0).all(axis=1)
    active = np.zeros(n_states, dtype=np.bool_)
    active[state_of[(prob > 0) & ~stays]] = True
    terminal = ~active

    keep = (prob > 0) & active[state_of]
    if not keep.all():
        pair_of, prob, next_state = pair_of[keep], prob[keep], next_state[keep]
        terminated, reward = terminated[keep], reward[keep]
    kept_pairs = active[pair_state]
    pair_of = (np.cumsum(kept_pairs) - 1)[pair_of]
    pair_state, pair_action = pair_state[kept_pairs], pair_action[kept_pairs]
    terminated = terminated | terminal[next_state]

    key = pair_of * n_states + next_state
    if not (key[1:] > key[:-1]).all():
        pair_of, prob, next_state, terminated, reward = _sort_and_merge(pair_of, prob, next_state, terminated, reward)

    outcome_ptr = _pointers(pair_of, pair_state.size)
    if prob.size:
        prob = prob / np.add.reduceat(prob, outcome_ptr[:-1])[pair_of]
    return {
        "n_states": n_states,
        "n_actions": n_actions,
        "reward_dim": 1 if reward.ndim == 1 else int(reward.shape[1]),
        "initial": initial if isinstance(initial, int) else read_only(initial),
        "terminal": read_only(terminal),
        "pair_ptr": read_only(_pointers(pair_state, n_states)),
        "pair_action": read_only(pair_action),
        "outcome_ptr": read_only(outcome_ptr),
        "prob": read_only(prob),
        "next_state": read_only(next_state),
        "terminated": read_only(terminated),
        "reward": read_only(reward),
    }


def _sort_and_merge(
    pair_of: Ints, prob: Floats, next_state: Ints32, terminated: Bools, reward: Floats
) -> tuple[Ints, Floats, Ints32, Bools, Floats]:
    """Sort outcomes by (pair, next state, reward, terminated) and add the probabilities of equal ones."""
    components = [reward] if reward.ndim == 1 else list(reward.T)
    columns: list[NDArray[Any]] = [pair_of, next_state, *components, terminated]
    order = np.lexsort(columns[::-1])
    new = np.zeros(prob.size, dtype=np.bool_)
    new[0] = True
    for column in columns:
        ordered = column[order]
        new[1:] |= ordered[1:] != ordered[:-1]
    first = np.flatnonzero(new)
    prob = np.add.reduceat(prob[order], first)
    chosen = order[first]
    return pair_of[chosen], prob, next_state[chosen], terminated[chosen], reward[chosen]


def _pointers(owner: Ints, n_owners: int) -> Ints:
    """Where the items of each owner begin, and where the last one's end; `owner` is ascending."""
    pointers = np.zeros(n_owners + 1, dtype=np.int64)
    np.cumsum(np.bincount(owner, minlength=n_owners), out=pointers[1:])
    return pointers


def read_only(array: _Array) -> _Array:
    """The same array, closed to writing."""
    array.setflags(write=False)
    return array
