"""Finite Markov decision processes with scalar or vector rewards.

Every builder (`from_arrays`, `from_outcomes`, `from_gymnasium`, `from_grid`, `garnet`) checks its input once
and returns the same flat, sorted, read-only arrays, which the solvers and simulators read directly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rdolib import _dense, _gridworld, _gymnasium, _outcomes
from rdolib._canonical import Bools, Floats, Ints, Ints32, read_only
from rdolib._checks import as_int, check_gamma
from rdolib.errors import InvalidArgumentError

__all__ = ["MDP", "Grid", "Outcome"]

#: (probability, next_state, reward, terminated); a vector reward is a tuple of floats.
Outcome = tuple[float, int, Any, bool]


@dataclass(frozen=True, eq=False)
class Grid:
    """The geometry of a gridworld, kept so that a plan can be drawn on its map.

    Attributes
    ----------
    lines : tuple of str
        The map, one string a row and one character a cell.
    states : (rows, columns) int32 array
        The state of each cell; -1 where the cell is a wall.
    moves : tuple of (int, int)
        For each action, the (row, column) step it aims at.
    """

    lines: tuple[str, ...]
    states: Ints32
    moves: tuple[tuple[int, int], ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns."""
        return (len(self.lines), len(self.lines[0]))

    @cached_property
    def cells(self) -> Ints32:
        """(n_states, 2) array with the row and column of each state."""
        where = np.argwhere(self.states >= 0)
        cells = np.empty(where.shape, dtype=np.int32)
        cells[self.states[where[:, 0], where[:, 1]]] = where
        return read_only(cells)


@dataclass(frozen=True, eq=False, repr=False)
class MDP:
    """A finite Markov decision process in canonical form. Make one with a builder, not by hand.

    The outcomes of all (state, action) pairs lie one after the other in flat arrays. State ``s`` owns the
    pairs ``pair_ptr[s]:pair_ptr[s + 1]``, and pair ``p`` owns the outcomes
    ``outcome_ptr[p]:outcome_ptr[p + 1]``.

    Canonical means: outcomes of probability zero are dropped; outcomes with the same next state, reward and
    ``terminated`` are merged; outcomes are sorted by (next state, reward); the probabilities of a pair sum
    to 1; a state where every outcome of every action is "stay here, reward 0" is terminal; terminal states
    have no pairs; ``terminated`` is True wherever the next state is terminal. All arrays are read-only.

    Attributes
    ----------
    n_states, n_actions, reward_dim : int
        Numbers of states, of actions (largest action number plus one) and of reward components.
    gamma : float
        The discount, in (0, 1].
    initial : int or (n_states,) float64 array
        The initial state or its probability vector.
    terminal : (n_states,) bool array
        True where the return is over: no actions, no rewards.
    pair_ptr : (n_states + 1,) int64 array
        Where the pairs of each state begin.
    pair_action : (n_pairs,) int32 array
        The action number of each pair, ascending within a state.
    outcome_ptr : (n_pairs + 1,) int64 array
        Where the outcomes of each pair begin.
    prob : (n_outcomes,) float64 array
        Probabilities, each positive.
    next_state : (n_outcomes,) int32 array
        Next states.
    terminated : (n_outcomes,) bool array
        True where the outcome ends the return, whatever the next state would do.
    reward : (n_outcomes,) float64 array, or (n_outcomes, reward_dim) when reward_dim > 1
        Rewards.
    grid : Grid or None
        The map, when the MDP is a gridworld.

    Examples
    --------
    >>> import rdolib as rdo
    >>> table = {0: {0: [(1.0, 1, 1.0, True)], 1: [(0.5, 0, 2.0, False), (0.5, 1, 0.0, True)]}}
    >>> mdp = rdo.MDP.from_outcomes(table)
    >>> mdp
    MDP(2 states (1 terminal), 2 actions, 2 pairs, 3 outcomes, gamma=1, initial=0)
    >>> mdp.outcomes(0, 1)
    [(0.5, 0, 2.0, False), (0.5, 1, 0.0, True)]
    """

    n_states: int
    n_actions: int
    reward_dim: int
    gamma: float
    initial: int | Floats
    terminal: Bools
    pair_ptr: Ints
    pair_action: Ints32
    outcome_ptr: Ints
    prob: Floats
    next_state: Ints32
    terminated: Bools
    reward: Floats
    grid: Grid | None = None

    # ---------------------------------------------------------------- reading

    @property
    def n_pairs(self) -> int:
        """Number of (state, action) pairs of the states that are not terminal."""
        return int(self.pair_action.size)

    @property
    def n_outcomes(self) -> int:
        """Number of outcomes of all pairs together."""
        return int(self.prob.size)

    @cached_property
    def pair_state(self) -> Ints32:
        """(n_pairs,) int32 array: the state of each pair."""
        states = np.repeat(np.arange(self.n_states, dtype=np.int32), np.diff(self.pair_ptr))
        return read_only(states)

    @property
    def nbytes(self) -> int:
        """Bytes held by the arrays of this MDP."""
        arrays = (getattr(self, field.name) for field in fields(self))
        return sum(a.nbytes for a in arrays if isinstance(a, np.ndarray))

    def actions(self, state: int) -> Ints32:
        """Action numbers available in a state, ascending; empty in a terminal state.

        Raises
        ------
        InvalidArgumentError
            If `state` is not a state of this MDP.
        """
        s = self._state(state)
        return self.pair_action[self.pair_ptr[s] : self.pair_ptr[s + 1]]

    def outcomes(self, state: int, action: int) -> list[Outcome]:
        """Outcomes of an action as tuples (probability, next_state, reward, terminated).

        Raises
        ------
        InvalidArgumentError
            If `state` is not a state of this MDP, or is terminal, or does not have `action`.
        """
        number = as_int(action)
        if number is None:
            raise InvalidArgumentError(f"action {action!r} is not an integer")
        pair = int(self.pair_index(np.array([self._state(state)]), np.array([number]))[0])
        span = slice(int(self.outcome_ptr[pair]), int(self.outcome_ptr[pair + 1]))
        rewards = self.reward[span].tolist()
        if self.reward_dim > 1:
            rewards = [tuple(r) for r in rewards]
        columns = (
            self.prob[span].tolist(),
            self.next_state[span].tolist(),
            rewards,
            self.terminated[span].tolist(),
        )
        return list(zip(*columns, strict=True))

    def pair_index(self, states: NDArray[np.integer[Any]], actions: NDArray[np.integer[Any]]) -> Ints:
        """Positions of (state, action) pairs in the flat arrays.

        Parameters
        ----------
        states, actions : (n,) integer arrays
            States, each in ``0..n_states - 1``, and the action taken in each.

        Returns
        -------
        (n,) int64 array

        Raises
        ------
        InvalidArgumentError
            If an action is not available in its state.
        """
        state, action = np.asarray(states, dtype=np.int64), np.asarray(actions, dtype=np.int64)
        if self.n_pairs or not state.size:
            last = self.n_pairs - 1
            # Most states number their actions 0, 1, 2, ...; the others are found by bisection.
            pair = np.minimum(self.pair_ptr[state] + np.maximum(action, 0), last)
            known = (self.pair_action[pair] == action) & (self.pair_state[pair] == state)
            if known.all():
                return pair
            key = state * self.n_actions + action
            pair = np.minimum(np.searchsorted(self._pair_key, key), last)
            known = (self.pair_action[pair] == action) & (self.pair_state[pair] == state)
            if known.all():
                return pair
            bad = int(np.argmin(known))
        else:
            bad = 0
        at = int(state[bad])
        reason = f"its actions are {self.actions(at).tolist()}"
        if self.terminal[at]:
            reason = "the state is terminal and has no actions"
        raise InvalidArgumentError(f"action {action[bad]} is not available at state {at}; {reason}")

    @cached_property
    def _pair_key(self) -> Ints:
        """(n_pairs,) ascending numbers state * n_actions + action, for look-ups by bisection."""
        return self.pair_state.astype(np.int64) * self.n_actions + self.pair_action

    def _state(self, state: int) -> int:
        s = as_int(state)
        if s is None or not 0 <= s < self.n_states:
            raise InvalidArgumentError(f"state {state!r} is not a state; states are 0 to {self.n_states - 1}")
        return s

    def __repr__(self) -> str:
        n_terminal = int(self.terminal.sum())
        initial = f"{self.initial}" if isinstance(self.initial, int) else "distribution"
        rewards = f", {self.reward_dim} reward components" if self.reward_dim > 1 else ""
        return (
            f"MDP({self.n_states} states ({n_terminal} terminal), {self.n_actions} actions, "
            f"{self.n_pairs} pairs, {self.n_outcomes} outcomes{rewards}, "
            f"gamma={self.gamma:.12g}, initial={initial})"
        )

    # ---------------------------------------------------------------- builders

    @classmethod
    def from_arrays(
        cls,
        P: ArrayLike,
        R: ArrayLike,
        gamma: float = 1.0,
        initial: int | ArrayLike = 0,
        terminal: ArrayLike | None = None,
        reward_dim: int = 1,
    ) -> MDP:
        """Build an MDP from dense arrays; every state has the same actions.

        Parameters
        ----------
        P : (S, A, S) array
            ``P[s, a, j]`` is the probability of going from ``s`` to ``j`` under action ``a``.
        R : (S, A) or (S, A, S) array; (S, A, m) or (S, A, S, m) when ``reward_dim=m > 1``
            Rewards; with a next-state axis they may depend on the next state. A three-dimensional R is (S,
            A, S) unless ``reward_dim > 1``.
        gamma : float
            The discount, in (0, 1].
        initial : int or (S,) array
            The initial state, or the probabilities of the initial states.
        terminal : None, integers, or (S,) bool array
            States where the return is over, as indices or as a mask. Their rows of `P` are ignored; a reward
            paid there is an error, because nothing is paid after the end. States that stay where they are
            with reward 0 under every action are terminal without being named.
        reward_dim : int
            The number of reward components.

        Raises
        ------
        InvalidMDPError
            If a shape, probability, reward, state or the discount is not valid; the message names the place.

        Examples
        --------
        >>> import numpy as np
        >>> import rdolib as rdo
        >>> P = np.array([[[0.5, 0.5], [0.0, 1.0]], [[0.0, 1.0], [0.0, 1.0]]])
        >>> R = np.array([[1.0, 3.0], [0.0, 0.0]])
        >>> rdo.MDP.from_arrays(P, R, gamma=0.9)
        MDP(2 states (1 terminal), 2 actions, 2 pairs, 3 outcomes, gamma=0.9, initial=0)
        """
        discount = check_gamma(gamma)
        return MDP(gamma=discount, **_dense.from_arrays(P, R, initial, terminal, reward_dim))

    @classmethod
    def from_outcomes(
        cls,
        table: Mapping[int, Any] | Sequence[Any],
        gamma: float = 1.0,
        initial: int | ArrayLike = 0,
    ) -> MDP:
        """Build an MDP from a table of outcomes, in the form of gymnasium's toy-text environments.

        Parameters
        ----------
        table : {state: {action: [(probability, next_state, reward, terminated), ...]}}
            Dictionaries or lists at both levels. States are the integers 0 to S - 1. Each state has its own
            actions, any integers from 0. A reward is a number, or a tuple or array of m numbers (the same m
            everywhere). An outcome with ``terminated=True`` ends the return, whatever its next state does. A
            next state that is not in the table is a terminal state when it is only entered with
            ``terminated=True``.
        gamma : float
            The discount, in (0, 1].
        initial : int or (S,) array
            The initial state, or the probabilities of the initial states.

        Raises
        ------
        InvalidMDPError
            If the table is not a finite MDP; the message names the rule, the place and the remedy.

        Examples
        --------
        >>> import rdolib as rdo
        >>> table = {0: {0: [(1.0, 1, -1.0, False)]},
        ...          1: {0: [(0.9, 2, 10.0, True), (0.1, 0, -1.0, False)], 1: [(1.0, 2, 5.0, True)]}}
        >>> mdp = rdo.MDP.from_outcomes(table)
        >>> mdp.n_states, mdp.terminal.tolist(), mdp.actions(1).tolist()
        (3, [False, False, True], [0, 1])
        """
        discount = check_gamma(gamma)
        return MDP(gamma=discount, **_outcomes.from_outcomes(table, initial))

    @classmethod
    def from_gymnasium(cls, env: str | Any, gamma: float = 1.0, **kwargs: Any) -> MDP:
        """Build an MDP from a gymnasium environment that carries its transition table (``env.unwrapped.P``).

        The environment's time limit is ignored (a limit is ``horizon=`` of the solvers), and so are its
        wrappers. States that cannot be reached are kept, so that state numbers are gymnasium's own.

        Parameters
        ----------
        env : str or gymnasium.Env
            An id, such as ``"CliffWalking-v1"``, or any environment object with a table.
        gamma : float
            The discount, in (0, 1].
        **kwargs
            Passed to ``gymnasium.make`` with an id, for instance ``is_slippery=True``.

        Returns
        -------
        MDP
            Its initial state or vector is the environment's ``initial_state_distrib`` (state 0 where there
            is none).

        Raises
        ------
        InvalidMDPError
            If the environment has no table, or one that leaves out part of its dynamics.
        ImportError
            If `env` is an id and gymnasium is not installed.

        Examples
        --------
        >>> import rdolib as rdo
        >>> rdo.MDP.from_gymnasium("CliffWalking-v1", is_slippery=True)
        MDP(48 states (0 terminal), 4 actions, 192 pairs, 524 outcomes, gamma=1, initial=36)
        """
        discount = check_gamma(gamma)
        arrays, world = _gymnasium.from_gymnasium(env, kwargs)
        return MDP(gamma=discount, grid=Grid(*world) if world else None, **arrays)

    @classmethod
    def from_grid(
        cls,
        text: str,
        gamma: float = 1.0,
        slip: float = 0.0,
        step_reward: float | Sequence[float] = -1.0,
        rewards: Mapping[str, float | Sequence[float]] | None = None,
        terminal: str = "GX",
    ) -> MDP:
        """Build a gridworld from a map drawn with characters.

        ``#`` is a wall, ``.`` a free cell, ``S`` a start (several: one of them, equally likely), ``G`` a
        goal and ``X`` a pit. Any other character needs an entry in `rewards` or `terminal`. Blank lines
        around the map and spaces around its lines are ignored. States number the cells that are not walls,
        row by row.

        Actions are 0 up, 1 right, 2 down, 3 left. The move goes the way of the action with probability
        ``1 - slip`` and to each of its two sides with probability ``slip / 2``. A move into a wall or off
        the map stays in place and pays `step_reward`.

        Parameters
        ----------
        text : str
            The map, one line a row.
        gamma : float
            The discount, in (0, 1].
        slip : float
            Probability of a sideways move, in [0, 1]; 2/3 gives the three directions equal probabilities.
        step_reward : float or sequence of m floats
            Paid for every move that `rewards` says nothing about.
        rewards : dict from character to reward
            Paid, in place of `step_reward`, for a move that enters a cell with that character.
            ``X`` pays -100 unless given here (give it when rewards are vectors).
        terminal : str
            Characters of the cells that end the return when entered.

        Raises
        ------
        InvalidMDPError
            If the map is empty or ragged, has an unknown character or no start, or `slip` is out of range.

        Examples
        --------
        >>> import rdolib as rdo
        >>> mdp = rdo.MDP.from_grid('''
        ...     S..G
        ...     .#.X
        ... ''', slip=0.2, rewards={"G": 10.0})
        >>> mdp
        MDP(7 states (2 terminal), 4 actions, 20 pairs, 49 outcomes, gamma=1, initial=0)
        >>> mdp.outcomes(2, 1)  # right, next to the goal: slipping up stays, slipping down moves on
        [(0.1, 2, -1.0, False), (0.8, 3, 10.0, True), (0.1, 5, -1.0, False)]
        """
        discount = check_gamma(gamma)
        arrays, world = _gridworld.from_grid(text, slip, step_reward, rewards, terminal)
        return MDP(gamma=discount, grid=Grid(*world), **arrays)

    @classmethod
    def garnet(
        cls,
        n_states: int,
        n_actions: int,
        n_outcomes: int,
        seed: int = 0,
        gamma: float = 1.0,
        rewards: ArrayLike = range(-3, 4),
        terminal_probability: float = 0.0,
    ) -> MDP:
        """Build a random MDP (a "Garnet"), the same one for the same seed.

        Each pair has `n_outcomes` distinct next states, drawn uniformly, with probabilities uniform on the
        simplex.

        Parameters
        ----------
        n_states, n_actions, n_outcomes : int
            Sizes; ``n_outcomes <= n_states``.
        seed : int
            Seed of ``numpy.random.default_rng``.
        gamma : float
            The discount, in (0, 1].
        rewards : (n,) or (n, m) array
            The values from which the reward of each outcome is drawn, all equally likely.
        terminal_probability : float
            Probability with which an outcome ends the return.

        Raises
        ------
        InvalidMDPError
            If a size, the discount, the rewards or `terminal_probability` is not valid.

        Examples
        --------
        >>> import rdolib as rdo
        >>> rdo.MDP.garnet(1000, 4, 5, seed=1)
        MDP(1000 states (0 terminal), 4 actions, 4000 pairs, 20000 outcomes, gamma=1, initial=0)
        """
        discount = check_gamma(gamma)
        arrays = _dense.garnet(n_states, n_actions, n_outcomes, seed, rewards, terminal_probability)
        return MDP(gamma=discount, **arrays)
