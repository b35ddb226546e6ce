"""Builders of MDPs whose states all have the same actions: from dense arrays, and at random."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from rdolib._canonical import Arrays, Bools, Floats, Ints, Ints32, canonical
from rdolib._checks import (
    LARGEST_INT32,
    check_fraction,
    check_initial,
    check_probabilities,
    check_size,
    check_sums,
    float_array,
    show,
)
from rdolib.errors import InvalidMDPError


def from_arrays(
    P: ArrayLike, R: ArrayLike, initial: int | ArrayLike, terminal: ArrayLike | None, reward_dim: int
) -> Arrays:
    """The arrays of `rdolib.mdp.MDP.from_arrays`."""
    m = check_size(reward_dim, "reward_dim")
    p = float_array(P, "P")
    n_states, n_actions = _check_transition_shape(p)
    r = float_array(R, "R")
    per_next_state = _check_reward_shape(r, n_states, n_actions, m)
    ended = _terminal_mask(terminal, n_states)
    start = check_initial(initial, n_states)

    live = np.flatnonzero(~ended)
    p_live, r_live = (p[live], r[live]) if ended.any() else (p, r)  # dense arrays are large: copy only if need be
    _check_transitions(p_live, live)
    _check_rewards(r, p, ended, per_next_state, m)

    positive = np.flatnonzero(p_live)
    pair_of, next_state = np.divmod(positive, n_states)
    pair_state, pair_action = _all_pairs(live, n_actions)
    return canonical(
        n_states=n_states,
        n_actions=n_actions,
        initial=start,
        pair_state=pair_state,
        pair_action=pair_action,
        pair_of=pair_of,
        prob=p_live.reshape(-1)[positive],
        next_state=next_state.astype(np.int32),
        terminated=np.zeros(positive.size, dtype=np.bool_),
        reward=r_live.reshape(-1, m)[positive if per_next_state else pair_of],
    )


def garnet(
    n_states: int, n_actions: int, n_outcomes: int, seed: int, rewards: ArrayLike, terminal_probability: float
) -> Arrays:
    """The arrays of `rdolib.mdp.MDP.garnet`."""
    n_states = check_size(n_states, "n_states")
    n_actions = check_size(n_actions, "n_actions")
    n_outcomes = check_size(n_outcomes, "n_outcomes")
    if n_outcomes > n_states:
        raise InvalidMDPError(
            f"n_outcomes is {n_outcomes} and n_states is {n_states}; "
            "a pair cannot have more distinct next states than there are states"
        )
    ending = check_fraction(terminal_probability, "terminal_probability")
    values = float_array(rewards, "rewards")
    if values.ndim not in (1, 2) or values.size == 0:
        raise InvalidMDPError(f"rewards has shape {values.shape}; it must be (n,) or (n, m), and not empty")
    if not np.isfinite(values).all():
        raise InvalidMDPError(f"rewards holds {values[~np.isfinite(values)][0]}; every reward must be finite")

    rng = np.random.default_rng(seed)
    n_pairs = n_states * n_actions
    size = n_pairs * n_outcomes
    next_state = _distinct_integers(rng, n_states, n_outcomes, n_pairs)
    weights = rng.standard_exponential((n_pairs, n_outcomes))  # divided by their sum: uniform on the simplex
    pair_state, pair_action = _all_pairs(np.arange(n_states), n_actions)
    return canonical(
        n_states=n_states,
        n_actions=n_actions,
        initial=0,
        pair_state=pair_state,
        pair_action=pair_action,
        pair_of=np.repeat(np.arange(n_pairs), n_outcomes),
        prob=(weights / weights.sum(axis=1, keepdims=True)).reshape(-1),
        next_state=next_state.reshape(-1),
        terminated=rng.random(size) < ending,
        reward=values[rng.integers(len(values), size=size)],
    )


def _all_pairs(states: Ints, n_actions: int) -> tuple[Ints, Ints32]:
    """State and action of each pair, where each of the states has the actions ``0..n_actions - 1``."""
    return np.repeat(states, n_actions), np.tile(np.arange(n_actions, dtype=np.int32), states.size)


def _check_transition_shape(p: Floats) -> tuple[int, int]:
    """Numbers of states and of actions."""
    if p.ndim != 3 or p.shape[0] != p.shape[2]:
        raise InvalidMDPError(f"P has shape {p.shape}; it must be (S, A, S): state, action, next state")
    n_states, n_actions, _ = p.shape
    if n_states == 0:
        raise InvalidMDPError("P has no states; an MDP needs at least one")
    if n_actions == 0:
        raise InvalidMDPError("P has no actions; every state that is not terminal needs at least one")
    if n_states > LARGEST_INT32:
        raise InvalidMDPError(f"P has {n_states} states; at most {LARGEST_INT32} are supported")
    return n_states, n_actions


def _check_reward_shape(r: Floats, n_states: int, n_actions: int, m: int) -> bool:
    """Whether rewards depend on the next state."""
    tail = (m,) if m > 1 else ()
    per_pair = (n_states, n_actions, *tail)
    per_next_state = (n_states, n_actions, n_states, *tail)
    if r.shape == per_next_state:
        return True
    if r.shape == per_pair:
        return False
    hint = ""
    if m == 1 and r.shape[:-1] in (per_pair, per_next_state):
        hint = f"; for vector rewards pass reward_dim={r.shape[-1]}"
    elif r.shape == (n_states,):
        hint = "; a reward for being in a state goes on its actions: R[:, None].repeat(A, axis=1)"
    raise InvalidMDPError(
        f"R has shape {r.shape}; with P of shape {(n_states, n_actions, n_states)} and reward_dim={m} "
        f"it must be {per_pair} or {per_next_state}{hint}"
    )


def _terminal_mask(terminal: ArrayLike | None, n_states: int) -> Bools:
    """(n_states,) bool array: True where the caller says that the return is over."""
    mask = np.zeros(n_states, dtype=np.bool_)
    if terminal is None:
        return mask
    given = np.asarray(terminal)
    if given.size == 0:
        return mask
    if given.dtype == np.bool_:
        if given.shape != (n_states,):
            raise InvalidMDPError(f"terminal is a mask of shape {given.shape}; it must be ({n_states},)")
        return given
    if given.dtype.kind not in "iu" or given.ndim > 1:
        raise InvalidMDPError(f"terminal is {terminal!r}; it must be a list of states (integers) or a boolean mask")
    given = np.atleast_1d(given)
    outside = (given < 0) | (given >= n_states)
    if outside.any():
        raise InvalidMDPError(f"terminal state {given[outside][0]} is out of range; states are 0 to {n_states - 1}")
    mask[given] = True
    return mask


def _check_transitions(p: Floats, states: Ints) -> None:
    """Check the probabilities ``p[k]`` of each state ``states[k]``."""
    _, n_actions, n_states = p.shape

    def place(row: int) -> str:
        return f"state {states[row // n_actions]}, action {row % n_actions}"

    check_probabilities(p, lambda k: f"transition probability at {place(k // n_states)}, next state {k % n_states}")
    totals = p.sum(axis=2)

    def hint(row: int) -> str:
        if totals[row // n_actions].sum() == 0:
            return f"; if state {states[row // n_actions]} ends the return, name it in terminal="
        if totals.flat[row] == 0:
            return "; if the state lacks this action, use from_outcomes, where states may have different actions"
        return ""

    check_sums(totals, lambda row: f"transition probabilities at {place(row)}", hint)


def _check_rewards(r: Floats, p: Floats, ended: Bools, per_next_state: bool, m: int) -> None:
    """Refuse infinite rewards, and rewards for leaving a state where the return is over."""
    axes = ["state", "action", *["next state"] * per_next_state, *["component"] * (m > 1)]
    finite = np.isfinite(r)
    if not finite.all():
        index = np.unravel_index(int(np.argmin(finite)), r.shape)
        raise InvalidMDPError(f"reward at {_place(axes, index)} is {show(r[index])}; every reward must be finite")
    paid = r[ended] != 0
    if m > 1:
        paid = paid.any(axis=-1)
    if per_next_state:
        paid &= p[ended] > 0
    if paid.any():
        row, *rest = np.unravel_index(int(np.argmax(paid)), paid.shape)
        index = (np.flatnonzero(ended)[row], *rest)
        raise InvalidMDPError(
            f"reward at terminal {_place(axes, index)} is {r[index]}; nothing is paid after the end: "
            "put it on the transition into the state"
        )


def _place(axes: list[str], index: tuple[np.intp, ...]) -> str:
    return ", ".join(f"{axis} {i}" for axis, i in zip(axes, index, strict=False))


def _distinct_integers(rng: np.random.Generator, n: int, k: int, rows: int) -> Ints32:
    """For each row, k distinct integers below n, ascending; all subsets are equally likely (Floyd)."""
    drawn = np.empty((rows, k), dtype=np.int32)
    for i in range(k):
        last = n - k + i
        value = rng.integers(last + 1, size=rows, dtype=np.int32)
        taken = (drawn[:, :i] == value[:, None]).any(axis=1)
        drawn[:, i] = np.where(taken, last, value)
    drawn.sort(axis=1)
    return drawn
