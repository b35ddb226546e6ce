"""What a policy does, whatever form it was given in: pairs and their probabilities at augmented states.

* `Planned`: a solver's table, deterministic, sees state, stock and step, and knows where stocks stop mattering.
* `Stationary`: probabilities of the pairs of each state; sees the state only.
* `Called`: any object with ``actions(states, stocks, t)``.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from rdolib._graph import ranges
from rdolib._lattice import WindowTable
from rdolib._lexicographic import LexicographicTable
from rdolib._potential import PotentialTable
from rdolib._reachable import ReachableTable
from rdolib._tables import Table
from rdolib.errors import InvalidArgumentError
from rdolib.mdp import MDP

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_SUM = 1e-9  # accepted distance of a sum of probabilities from one


class Behavior(Protocol):
    """How a policy acts at arrays of states and stocks of equal length."""

    @property
    def sees_stock(self) -> bool:
        """Whether the stock matters to the policy."""

    @property
    def sees_step(self) -> bool:
        """Whether the step may matter to the policy when there is no horizon."""

    def strict(self, t: int) -> bool:
        """Whether at step ``t`` stocks may be merged only where they matter no more (see `rdolib._law`)."""

    def pairs(self, state: Ints, stock: Floats, t: int) -> tuple[Ints, Ints, Floats]:
        """Pairs that may be taken, the index of the augmented state of each, and their probabilities."""

    def side(self, state: Ints, stock: Floats, t: int) -> NDArray[np.int8]:
        """-1 and 1 where the stock matters no more, now and later; else 0."""

    def rests(self, state: Ints, stock: Floats) -> Bools:
        """Where the policy goes on for ever without any further reward."""


class Planned:
    """A solver's table."""

    sees_stock = True

    def __init__(self, mdp: MDP, table: Table) -> None:
        self.mdp, self.table = mdp, table
        self.sees_step = _counts_steps(table)

    def strict(self, t: int) -> bool:
        # The table that is asked in the end counts. Reachable nodes know no stocks but their own, up to the last layer.
        last = innermost(self.table)
        if isinstance(last, ReachableTable):
            return last.endless or t < len(last.nodes)
        return bool(last.exact)

    def pairs(self, state: Ints, stock: Floats, t: int) -> tuple[Ints, Ints, Floats]:
        pair = self.mdp.pair_index(state, self.table.action(state, stock, t))
        return pair, np.arange(len(pair)), np.ones(len(pair))

    def side(self, state: Ints, stock: Floats, t: int) -> NDArray[np.int8]:
        return self.table.side(state, stock, t)

    def rests(self, state: Ints, stock: Floats) -> Bools:
        return self.table.rests(state, stock)


def innermost(table: Any) -> Any:
    """The table that is asked in the end."""
    while hasattr(table, "inner") or hasattr(table, "table"):
        table = getattr(table, "inner", getattr(table, "table", None))
    return table


def _counts_steps(table: Any) -> bool:
    """Whether a table for an endless horizon looks at the step: layers do, sets of nodes that are never left do not."""
    last = innermost(table)
    by_step = isinstance(last, WindowTable | PotentialTable | LexicographicTable)
    return by_step or (isinstance(last, ReachableTable) and not last.endless)


class Stationary:
    """``weight`` (n_pairs,): the probability of each pair in its state."""

    sees_stock = False
    sees_step = False

    def __init__(self, mdp: MDP, weight: Floats) -> None:
        self.mdp, self.weight = mdp, weight

    @classmethod
    def of_array(cls, mdp: MDP, policy: Any) -> Stationary:
        """From actions (S,) or probabilities (S, A); rows of terminal states are not looked at."""
        array = np.asarray(policy)
        if array.ndim == 1 and array.dtype.kind in "iu":
            return cls(mdp, _of_actions(mdp, array))
        if array.ndim == 2 and array.dtype.kind in "iuf":
            return cls(mdp, _of_probabilities(mdp, array.astype(np.float64)))
        raise InvalidArgumentError(
            f"a policy array must hold integer actions, shape ({mdp.n_states},), or probabilities, shape "
            f"({mdp.n_states}, {mdp.n_actions}); got shape {array.shape} of type {array.dtype}"
        )

    def strict(self, t: int) -> bool:
        return False

    def pairs(self, state: Ints, stock: Floats, t: int) -> tuple[Ints, Ints, Floats]:
        pair, owner = ranges(self.mdp.pair_ptr[state], self.mdp.pair_ptr[state + 1])
        used = self.weight[pair] > 0
        return pair[used], owner[used], self.weight[pair[used]]

    def side(self, state: Ints, stock: Floats, t: int) -> NDArray[np.int8]:
        return np.zeros(len(state), dtype=np.int8)

    def rests(self, state: Ints, stock: Floats) -> Bools:
        return self._rests[state]

    @cached_property
    def _rests(self) -> Bools:
        """States (S,) after which nothing is ever paid."""
        mdp = self.mdp
        outcome_pair = np.repeat(np.arange(mdp.n_pairs), np.diff(mdp.outcome_ptr))
        used = self.weight[outcome_pair] > 0
        state = mdp.pair_state[outcome_pair]
        pays = mdp.reward != 0 if mdp.reward_dim == 1 else (mdp.reward != 0).any(axis=1)
        rests = np.ones(mdp.n_states, dtype=np.bool_)
        while True:
            new = rests.copy()
            new[state[used & (pays | (~mdp.terminated & ~rests[mdp.next_state]))]] = False
            if (new == rests).all():
                return rests
            rests = new


def _of_actions(mdp: MDP, actions: Ints) -> Floats:
    if actions.shape != (mdp.n_states,):
        raise InvalidArgumentError(
            f"a policy of actions needs one for each of the {mdp.n_states} states; got {len(actions)} of them"
        )
    live = np.flatnonzero(~mdp.terminal)
    weight = np.zeros(mdp.n_pairs)
    weight[mdp.pair_index(live, actions[live])] = 1.0
    return weight


def _of_probabilities(mdp: MDP, probs: Floats) -> Floats:
    if probs.shape != (mdp.n_states, mdp.n_actions):
        raise InvalidArgumentError(
            f"a policy of probabilities must have shape (states, actions) = ({mdp.n_states}, {mdp.n_actions}); "
            f"got {probs.shape}"
        )
    live = ~mdp.terminal
    bad = np.argwhere(live[:, None] & ~((probs >= 0) & (probs <= 1 + _SUM)))
    if len(bad):
        s, a = bad[0]
        raise InvalidArgumentError(f"policy[{s}, {a}] = {probs[s, a]:g} is no probability; state {s}, action {a}")
    missing = live[:, None] & (probs > 0)
    missing[mdp.pair_state, mdp.pair_action] = False
    if missing.any():
        s, a = np.argwhere(missing)[0]
        raise InvalidArgumentError(
            f"policy[{s}, {a}] = {probs[s, a]:g}, but action {a} is not available at state {s}; "
            f"its actions are {mdp.actions(int(s)).tolist()}"
        )
    off = np.flatnonzero(live & (np.abs(probs.sum(axis=1) - 1) > _SUM))
    if len(off):
        raise InvalidArgumentError(
            f"the action probabilities at state {off[0]} sum to {probs[off[0]].sum():.10g}; they must sum to 1"
        )
    return np.asarray(probs[mdp.pair_state, mdp.pair_action] / probs.sum(axis=1)[mdp.pair_state])


class Called:
    """Any object with ``actions(states, stocks, t)``, deterministic."""

    sees_stock = True
    sees_step = True

    def __init__(self, mdp: MDP, policy: Any) -> None:
        self.mdp, self.policy = mdp, policy

    def strict(self, t: int) -> bool:
        return True

    def pairs(self, state: Ints, stock: Floats, t: int) -> tuple[Ints, Ints, Floats]:
        live = np.flatnonzero(~self.mdp.terminal[state])
        action = np.asarray(self.policy.actions(state[live], stock[live], t))
        if action.shape != (len(live),) or action.dtype.kind not in "iu":
            raise InvalidArgumentError(
                f"policy.actions(states, stocks, t) must return one integer for each of the {len(live)} states; "
                f"got shape {action.shape} of type {action.dtype} at t = {t}"
            )
        return self.mdp.pair_index(state[live], action), live, np.ones(len(live))

    def side(self, state: Ints, stock: Floats, t: int) -> NDArray[np.int8]:
        return np.zeros(len(state), dtype=np.int8)

    def rests(self, state: Ints, stock: Floats) -> Bools:
        rests = getattr(self.policy, "rests", None)
        return np.zeros(len(state), dtype=np.bool_) if rests is None else np.asarray(rests(state, stock))


def behavior_of(mdp: MDP, policy: Any) -> Behavior:
    """The behavior of a table, a policy, an array, or an object with ``actions``."""
    for table in (policy, getattr(policy, "table", None)):
        if all(hasattr(table, name) for name in ("action", "side", "rests", "exact")):
            return Planned(mdp, cast(Table, table))
    if hasattr(policy, "actions"):
        return Called(mdp, policy)
    if isinstance(policy, list | tuple | np.ndarray):
        return Stationary.of_array(mdp, policy)
    raise InvalidArgumentError(
        "policy must be a Policy or Plan, an array of actions (S,) or probabilities (S, A), or an object with "
        f"actions(states, stocks, t); got {policy!r:.80}"
    )
