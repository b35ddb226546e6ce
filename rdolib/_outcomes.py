"""The builder of MDPs from a table of outcomes: {state: {action: [(probability, next_state, reward, terminated)]}}."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rdolib._canonical import Arrays, Bools, Floats, Ints, Ints32, canonical
from rdolib._checks import LARGEST_INT32, as_int, check_initial, check_probabilities, check_sums
from rdolib.errors import InvalidMDPError


def from_outcomes(table: Any, initial: int | ArrayLike) -> Arrays:
    """The arrays of `rdolib.mdp.MDP.from_outcomes`."""
    flat = _flatten(table)
    prob, next_state, reward, terminated = _columns(flat)
    n_states = _count_states(flat, next_state, terminated)
    check_probabilities(prob, lambda k: f"transition probability at {flat.place(k)}, next state {next_state[k]}")
    totals = np.bincount(flat.pair_of, weights=prob)
    check_sums(totals, lambda p: f"transition probabilities at {flat.pair(p)}")
    return canonical(
        n_states=n_states,
        n_actions=max(flat.pair_action) + 1,
        initial=check_initial(initial, n_states),
        pair_state=np.array(flat.pair_state, dtype=np.int64),
        pair_action=np.array(flat.pair_action, dtype=np.int32),
        pair_of=flat.pair_of,
        prob=prob,
        next_state=next_state,
        terminated=terminated,
        reward=reward,
    )


@dataclass(frozen=True)
class _Flat:
    """A table's outcomes in one list, with the pair that each belongs to."""

    states: list[int]
    pair_state: list[int]
    pair_action: list[int]
    counts: list[int]
    outcomes: list[Any]

    @cached_property
    def pair_of(self) -> Ints:
        """(n_outcomes,) array: the pair of each outcome."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def pair(self, p: int) -> str:
        """Where pair number p stands in the table."""
        return f"state {self.pair_state[p]}, action {self.pair_action[p]}"

    def place(self, k: int) -> str:
        """Where outcome number k stands in the table."""
        return self.pair(self.pair_of[k])


def _flatten(table: Any) -> _Flat:
    """List the pairs of a table in ascending order, with all their outcomes."""
    rows = _numbered(table, "the table", "state")
    if not rows:
        raise InvalidMDPError("the table is empty; it needs at least one state with one action")
    pair_state: list[int] = []
    pair_action: list[int] = []
    counts: list[int] = []
    outcomes: list[Any] = []
    for state, row in rows:
        columns = _numbered(row, f"the entry of state {state}", "action")
        if not columns:
            raise InvalidMDPError(
                f"state {state} has no action; give it one, or leave the state out of the table and enter it "
                "with terminated=True if it ends the return"
            )
        for action, listed in columns:
            if not isinstance(listed, Iterable) or isinstance(listed, (str, Mapping)):
                raise InvalidMDPError(
                    f"the entry at state {state}, action {action} is {listed!r}; "
                    "it must be a list of outcomes (probability, next_state, reward, terminated)"
                )
            before = len(outcomes)
            outcomes.extend(listed)
            if len(outcomes) == before:
                raise InvalidMDPError(
                    f"state {state}, action {action} has no outcome; list at least one, or leave the action out"
                )
            pair_state.append(state)
            pair_action.append(action)
            counts.append(len(outcomes) - before)
    return _Flat([state for state, _ in rows], pair_state, pair_action, counts, outcomes)


def _numbered(level: Any, name: str, kind: str) -> list[tuple[int, Any]]:
    """The entries of a dictionary or list by ascending integer key."""
    if isinstance(level, Mapping):
        entries: list[tuple[int, Any]] = []
        for key, value in level.items():
            number = as_int(key)
            if number is None or not 0 <= number < LARGEST_INT32:
                raise InvalidMDPError(
                    f"{kind} {key!r} in {name} is not a valid number; {kind}s are the integers from 0 up"
                )
            entries.append((number, value))
        return sorted(entries, key=operator.itemgetter(0))
    if isinstance(level, Sequence) and not isinstance(level, str):
        return list(enumerate(level))
    raise InvalidMDPError(
        f"{name} is {type(level).__name__}; it must be a dictionary or a list of {kind}s, as in "
        "{state: {action: [(probability, next_state, reward, terminated), ...]}}"
    )


def _columns(flat: _Flat) -> tuple[Floats, Ints32, Floats, Bools]:
    """The outcomes as checked arrays: probabilities, next states, rewards, ends."""
    for k, outcome in enumerate(flat.outcomes):
        if not isinstance(outcome, (tuple, list)) or len(outcome) != 4:
            raise InvalidMDPError(
                f"the outcome {outcome!r} at {flat.place(k)} must have four entries: "
                "(probability, next_state, reward, terminated)"
            )
    probs, nexts, rewards, ends = zip(*flat.outcomes, strict=True)

    next_state = _state_column(nexts, flat)
    for k, end in enumerate(ends):
        if not isinstance(end, (bool, np.bool_)):
            raise InvalidMDPError(
                f"terminated at {flat.place(k)}, next state {nexts[k]} is {end!r}; it must be True or False "
                "(an outcome is probability, next_state, reward, terminated)"
            )
    prob = _number_column(probs, "transition probability", flat, vectors=False)
    return prob, next_state, _reward_column(rewards, flat), np.array(ends, dtype=np.bool_)


def _state_column(nexts: tuple[Any, ...], flat: _Flat) -> Ints32:
    """The next states as integers from 0 that fit 32 bits."""
    states = np.empty(len(nexts), dtype=np.int32)
    for k, value in enumerate(nexts):
        number = as_int(value)
        if number is None:
            raise InvalidMDPError(f"next state {value!r} at {flat.place(k)} is not an integer; states are 0 to S - 1")
        if not 0 <= number <= LARGEST_INT32:
            raise InvalidMDPError(f"next state {number} at {flat.place(k)} is out of range; states are 0 to S - 1")
        states[k] = number
    return states


def _number_column(values: tuple[Any, ...], name: str, flat: _Flat, vectors: bool) -> Floats:
    """Numbers, or rows of equally many numbers where vectors are allowed, as a float array."""
    try:
        column = np.array(values, dtype=np.float64)
        if column.ndim == 1 or vectors:
            return column
    except (TypeError, ValueError, OverflowError):
        pass
    first = _number_shape(values[0])
    for k, value in enumerate(values):  # find the cause and its place
        shape = _number_shape(value)
        if shape is None or (shape and not vectors):
            raise InvalidMDPError(f"{name} at {flat.place(k)} is {value!r}; it must be a number")
        if shape != first:
            raise InvalidMDPError(
                f"{name} at {flat.place(k)} is {value!r}, but at {flat.place(0)} it is {values[0]!r}; "
                f"every {name} must have the same number of components"
            )
    raise AssertionError("every value is a number of the same shape")


def _number_shape(value: Any) -> tuple[int, ...] | None:
    """The shape of a value as an array of numbers, or None when it is no such array."""
    try:
        return np.array(value, dtype=np.float64).shape
    except (TypeError, ValueError, OverflowError):
        return None


def _reward_column(rewards: tuple[Any, ...], flat: _Flat) -> Floats:
    reward = _number_column(rewards, "reward", flat, vectors=True)
    if reward.ndim > 2 or reward.size == 0:
        raise InvalidMDPError(
            f"reward at {flat.place(0)} is {rewards[0]!r}; it must be a number or a vector of numbers"
        )
    finite = np.isfinite(reward) if reward.ndim == 1 else np.isfinite(reward).all(axis=1)
    if not finite.all():
        k = int(np.argmin(finite))
        raise InvalidMDPError(
            f"reward at {flat.place(k)}, next state {flat.outcomes[k][1]} is {rewards[k]}; every reward must be finite"
        )
    return reward


def _count_states(flat: _Flat, next_state: Ints32, terminated: Bools) -> int:
    """The number of states, once each is known to be in the table or entered only with terminated=True."""
    listed = np.array(flat.states, dtype=np.int64)
    unlisted = ~np.isin(next_state, listed)
    missing = unlisted & ~terminated
    if missing.any():
        k = int(np.argmax(missing))
        raise InvalidMDPError(
            f"next state {next_state[k]} at {flat.place(k)} is out of range: it is not in the table; add it, "
            "or set terminated=True if the return ends there"
        )
    known = np.union1d(listed, next_state)
    n_states = int(known[-1]) + 1
    if known.size < n_states:
        gap = int(np.argmax(known != np.arange(known.size)))
        raise InvalidMDPError(
            f"state {gap} is missing: the table's largest state is {n_states - 1}, "
            "and states must be numbered 0 to S - 1 without gaps"
        )
    return n_states
