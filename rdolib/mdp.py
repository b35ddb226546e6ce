"""Finite Markov decision processes with scalar or vector rewards.

Every builder (`from_arrays`, `from_outcomes`, `from_gymnasium`, `from_grid`, `garnet`) checks its input once
and returns the same flat, sorted, read-only arrays, which the solvers and simulators read directly.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from numbers import Real
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rdolib.errors import InvalidArgumentError, InvalidMDPError

__all__ = ["MDP", "Grid", "Outcome"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Ints32 = NDArray[np.int32]
Bools = NDArray[np.bool_]
_Array = TypeVar("_Array", bound=NDArray[Any])

#: (probability, next_state, reward, terminated); a vector reward is a tuple of floats.
Outcome = tuple[float, int, Any, bool]

#: Probabilities may miss a sum of 1 by this much; they are then divided by their sum.
SUM_TOLERANCE = 1e-9

_LARGEST_INT32 = int(np.iinfo(np.int32).max)

# (row, column) steps of the actions 0 up, 1 right, 2 down, 3 left: the order of CliffWalking.
_GRID_MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))
# FrozenLake's own order: 0 left, 1 down, 2 right, 3 up.
_LAKE_MOVES = ((0, -1), (1, 0), (0, 1), (-1, 0))


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
        return _read_only(cells)


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
        return _read_only(states)

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
        number = _as_int(action)
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
        s = _as_int(state)
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
        discount = _check_gamma(gamma)
        m = _check_size(reward_dim, "reward_dim")
        p = _float_array(P, "P")
        n_states, n_actions = _check_transition_shape(p)
        r = _float_array(R, "R")
        per_next_state = _check_reward_shape(r, n_states, n_actions, m)
        ended = _terminal_mask(terminal, n_states)
        start = _check_initial(initial, n_states)

        _check_dense_probabilities(p, ended)
        _check_dense_rewards(r, p, ended, per_next_state, m)

        live = np.flatnonzero(~ended)
        p = p if live.size == n_states else p[live]
        r = r if live.size == n_states else r[live]
        flat = np.flatnonzero(p)
        rewards = r.reshape(-1, m) if m > 1 else r.reshape(-1)
        counts = np.count_nonzero(p, axis=2).reshape(-1)
        return _canonical(
            n_states=n_states,
            n_actions=n_actions,
            gamma=discount,
            initial=start,
            pair_state=np.repeat(live, n_actions),
            pair_action=np.tile(np.arange(n_actions, dtype=np.int32), live.size),
            counts=counts,
            prob=p.reshape(-1)[flat],
            next_state=(flat % n_states).astype(np.int32),
            terminated=np.zeros(flat.size, dtype=np.bool_),
            reward=rewards[flat] if per_next_state else np.repeat(rewards, counts, axis=0),
        )

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
        return _from_table(table, gamma, initial, grid=None)

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
        discount = _check_gamma(gamma)
        if not isinstance(env, str):
            if kwargs:
                raise InvalidArgumentError(
                    f"{', '.join(kwargs)}: options go to gymnasium.make together with an id; "
                    "this environment is already made"
                )
            return _from_environment(env, discount)
        try:
            import gymnasium
        except ImportError as error:
            raise ImportError(
                "MDP.from_gymnasium needs gymnasium, which is not installed; run: pip install gymnasium"
            ) from error
        made = gymnasium.make(env, **kwargs)
        try:
            return _from_environment(made, discount)
        finally:
            made.close()

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
        discount = _check_gamma(gamma)
        share = _check_fraction(slip, "slip")
        paid: dict[str, Any] = {"X": -100.0, **(rewards or {})}
        lines = _read_map(text, known=set(".#S") | set("GX") | set(paid) | set(terminal))
        if set(terminal) & set("#S"):
            raise InvalidMDPError(f"terminal is {terminal!r}; a start 'S' or wall '#' cannot end the return")
        grid = _grid_of(lines, moves=_GRID_MOVES)
        starts = np.array([lines[row][column] == "S" for row, column in grid.cells])
        if not starts.any():
            raise InvalidMDPError("the map has no start; mark at least one cell with 'S'")
        initial: int | Floats = int(np.argmax(starts)) if starts.sum() == 1 else starts / starts.sum()
        table = _grid_table(grid, share, step_reward, paid, terminal)
        return _from_table(table, discount, initial, grid=grid)

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
        discount = _check_gamma(gamma)
        n_states = _check_size(n_states, "n_states")
        n_actions = _check_size(n_actions, "n_actions")
        n_outcomes = _check_size(n_outcomes, "n_outcomes")
        if n_outcomes > n_states:
            raise InvalidMDPError(
                f"n_outcomes is {n_outcomes} and n_states is {n_states}; "
                "a pair cannot have more distinct next states than there are states"
            )
        ending = _check_fraction(terminal_probability, "terminal_probability")
        values = _float_array(rewards, "rewards")
        if values.ndim not in (1, 2) or values.size == 0:
            raise InvalidMDPError(f"rewards has shape {values.shape}; it must be (n,) or (n, m), and not empty")
        if not np.isfinite(values).all():
            raise InvalidMDPError(f"rewards holds {values[~np.isfinite(values)][0]}; every reward must be finite")

        rng = np.random.default_rng(seed)
        n_pairs = n_states * n_actions
        size = n_pairs * n_outcomes
        next_state = _distinct_integers(rng, n_states, n_outcomes, n_pairs)
        weights = rng.standard_exponential((n_pairs, n_outcomes))  # divided by their sum: uniform on the simplex
        return _canonical(
            n_states=n_states,
            n_actions=n_actions,
            gamma=discount,
            initial=0,
            pair_state=np.repeat(np.arange(n_states), n_actions),
            pair_action=np.tile(np.arange(n_actions, dtype=np.int32), n_states),
            counts=np.full(n_pairs, n_outcomes),
            prob=(weights / weights.sum(axis=1, keepdims=True)).reshape(-1),
            next_state=next_state.reshape(-1),
            terminated=rng.random(size) < ending,
            reward=values[rng.integers(len(values), size=size)],
        )


# -------------------------------------------------------------------- canonical form


def _canonical(
    *,
    n_states: int,
    n_actions: int,
    gamma: float,
    initial: int | Floats,
    pair_state: Ints,
    pair_action: Ints32,
    counts: Ints,
    prob: Floats,
    next_state: Ints32,
    terminated: Bools,
    reward: Floats,
    grid: Grid | None = None,
) -> MDP:
    """Put checked outcomes, listed pair by pair, into canonical form. May change the arrays it is given."""
    if reward.ndim == 2 and reward.shape[1] == 1:
        reward = reward[:, 0]
    reward += 0.0  # -0.0 becomes 0.0
    pair_of = np.repeat(np.arange(pair_state.size), counts)
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

    outcome_ptr = _pointers(np.bincount(pair_of, minlength=pair_state.size))
    if prob.size:
        prob = prob / np.add.reduceat(prob, outcome_ptr[:-1])[pair_of]
    return MDP(
        n_states=n_states,
        n_actions=n_actions,
        reward_dim=1 if reward.ndim == 1 else int(reward.shape[1]),
        gamma=gamma,
        initial=initial if isinstance(initial, int) else _read_only(initial),
        terminal=_read_only(terminal),
        pair_ptr=_read_only(_pointers(np.bincount(pair_state, minlength=n_states))),
        pair_action=_read_only(pair_action),
        outcome_ptr=_read_only(outcome_ptr),
        prob=_read_only(prob),
        next_state=_read_only(next_state),
        terminated=_read_only(terminated),
        reward=_read_only(reward),
        grid=grid,
    )


def _sort_and_merge(
    pair_of: Ints, prob: Floats, next_state: Ints32, terminated: Bools, reward: Floats
) -> tuple[Ints, Floats, Ints32, Bools, Floats]:
    """Sort outcomes by (pair, next state, reward, terminated) and add the probabilities of equal ones."""
    columns = [reward] if reward.ndim == 1 else list(reward.T)
    order = np.lexsort((terminated, *reversed(columns), next_state, pair_of))
    pair_of, prob, next_state = pair_of[order], prob[order], next_state[order]
    terminated, reward = terminated[order], reward[order]
    new = np.ones(prob.size, dtype=np.bool_)
    new[1:] = (pair_of[1:] != pair_of[:-1]) | (next_state[1:] != next_state[:-1]) | (terminated[1:] != terminated[:-1])
    changed = reward[1:] != reward[:-1]
    new[1:] |= changed if reward.ndim == 1 else changed.any(axis=1)
    first = np.flatnonzero(new)
    return pair_of[first], np.add.reduceat(prob, first), next_state[first], terminated[first], reward[first]


def _pointers(counts: Ints) -> Ints:
    pointers = np.zeros(counts.size + 1, dtype=np.int64)
    np.cumsum(counts, out=pointers[1:])
    return pointers


def _read_only(array: _Array) -> _Array:
    array.setflags(write=False)
    return array


# -------------------------------------------------------------------- checks shared by the builders


def _as_int(value: object) -> int | None:
    """The value as an int, or None when it is not an integer (booleans are not)."""
    if isinstance(value, (bool, np.bool_)):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def _check_gamma(gamma: float) -> float:
    if isinstance(gamma, Real) and not isinstance(gamma, bool) and 0 < gamma <= 1:
        return float(gamma)
    raise InvalidMDPError(f"gamma is {gamma!r}; it must be a number greater than 0 and at most 1")


def _check_fraction(value: float, name: str) -> float:
    if isinstance(value, Real) and not isinstance(value, bool) and 0 <= value <= 1:
        return float(value)
    raise InvalidMDPError(f"{name} is {value!r}; it must be a number between 0 and 1")


def _check_size(size: int, name: str) -> int:
    number = _as_int(size)
    if number is None or not 0 < number <= _LARGEST_INT32:
        raise InvalidMDPError(f"{name} is {size!r}; it must be a positive integer")
    return number


def _check_initial(initial: int | ArrayLike, n_states: int) -> int | Floats:
    """The initial state as an int, or its checked probability vector (a copy)."""
    state = _as_int(initial)
    if state is not None:
        if not 0 <= state < n_states:
            raise InvalidMDPError(f"initial state {state} is out of range; states are 0 to {n_states - 1}")
        return state
    vector = _float_array(initial, "initial").copy()
    if vector.ndim == 0:
        raise InvalidMDPError(f"initial is {initial!r}; it must be a state (an integer) or a vector of probabilities")
    if vector.shape != (n_states,):
        raise InvalidMDPError(f"initial has shape {vector.shape}; a vector of probabilities must have ({n_states},)")
    _check_probabilities(vector, lambda k: f"initial probability of state {k}")
    total = float(vector.sum())
    if abs(total - 1) > SUM_TOLERANCE:
        raise InvalidMDPError(f"initial probabilities sum to {_show(total)}; they must sum to 1")
    return vector / total


def _check_probabilities(prob: Floats, place: Callable[[int], str]) -> None:
    bad = ~((prob >= 0) & (prob <= 1 + SUM_TOLERANCE))  # also true for nan
    if bad.any():
        k = int(np.argmax(bad))
        raise InvalidMDPError(f"{place(k)} is {_show(prob.flat[k])}; it must be between 0 and 1")


def _float_array(values: ArrayLike, name: str) -> Floats:
    try:
        given = np.asarray(values)
        if given.dtype.kind not in "biufO":  # objects may be fractions; text and complex numbers are refused
            raise TypeError(f"its entries are of type {given.dtype}")
        return given.astype(np.float64, copy=False)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidMDPError(f"{name} is not an array of numbers: {error}") from error


def _show(number: float) -> str:
    """A number as people would write it; all its digits when it would otherwise look like 1."""
    text = f"{float(number):.12g}"
    return text if text != "1" else repr(float(number))


# -------------------------------------------------------------------- from_arrays


def _check_transition_shape(p: Floats) -> tuple[int, int]:
    if p.ndim != 3 or p.shape[0] != p.shape[2]:
        raise InvalidMDPError(f"P has shape {p.shape}; it must be (S, A, S): state, action, next state")
    n_states, n_actions, _ = p.shape
    if n_states == 0:
        raise InvalidMDPError("P has no states; an MDP needs at least one")
    if n_actions == 0:
        raise InvalidMDPError("P has no actions; every state that is not terminal needs at least one")
    if n_states > _LARGEST_INT32:
        raise InvalidMDPError(f"P has {n_states} states; at most {_LARGEST_INT32} are supported")
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
    mask = np.zeros(n_states, dtype=np.bool_)
    if terminal is None:
        return mask
    given = np.asarray(terminal)
    if given.size == 0:
        return mask
    if given.dtype == np.bool_:
        if given.shape != (n_states,):
            raise InvalidMDPError(f"terminal is a mask of shape {given.shape}; it must be ({n_states},)")
        return given.copy()
    if given.dtype.kind not in "iu" or given.ndim > 1:
        raise InvalidMDPError(f"terminal is {terminal!r}; it must be a list of states (integers) or a boolean mask")
    given = np.atleast_1d(given)
    outside = (given < 0) | (given >= n_states)
    if outside.any():
        raise InvalidMDPError(f"terminal state {given[outside][0]} is out of range; states are 0 to {n_states - 1}")
    mask[given] = True
    return mask


def _check_dense_probabilities(p: Floats, ended: Bools) -> None:
    bad = ~((p >= 0) & (p <= 1 + SUM_TOLERANCE))
    bad[ended] = False
    if bad.any():
        s, a, j = np.unravel_index(int(np.argmax(bad)), p.shape)
        raise InvalidMDPError(
            f"transition probability at state {s}, action {a}, next state {j} is {_show(p[s, a, j])}; "
            "it must be between 0 and 1"
        )
    with np.errstate(invalid="ignore"):  # rows of terminal states may hold anything
        totals = p.sum(axis=2)
    wrong = np.abs(totals - 1) > SUM_TOLERANCE
    wrong[ended] = False
    if wrong.any():
        s, a = np.unravel_index(int(np.argmax(wrong)), totals.shape)
        hint = ""
        if totals[s].sum() == 0:
            hint = f"; if state {s} ends the return, name it in terminal="
        elif totals[s, a] == 0:
            hint = "; if the state lacks this action, use from_outcomes, where states may have different actions"
        raise InvalidMDPError(_sum_message(int(s), int(a), totals[s, a]) + hint)


def _sum_message(state: int, action: int, total: float) -> str:
    place = f"state {state}, action {action}"
    return f"transition probabilities at {place} sum to {_show(total)}; they must sum to 1"


def _check_dense_rewards(r: Floats, p: Floats, ended: Bools, per_next_state: bool, m: int) -> None:
    finite = np.isfinite(r)
    if not finite.all():
        index = np.unravel_index(int(np.argmin(finite)), r.shape)
        names = [
            "state",
            "action",
            *(["next state"] if per_next_state else []),
            *(["component"] if m > 1 else []),
        ]
        place = ", ".join(f"{name} {i}" for name, i in zip(names, index, strict=True))
        raise InvalidMDPError(f"reward at {place} is {_show(r[index])}; every reward must be finite")
    for s in np.flatnonzero(ended):
        paid = r[s] != 0 if m == 1 else (r[s] != 0).any(axis=-1)
        if per_next_state:
            paid = paid & (p[s] > 0)
        if paid.any():
            index = np.unravel_index(int(np.argmax(paid)), paid.shape)
            place = f"action {index[0]}" + (f", next state {index[1]}" if per_next_state else "")
            raise InvalidMDPError(
                f"reward at terminal state {s}, {place} is {r[s][index]}; nothing is paid after the end: "
                "put it on the transition into the state"
            )


# -------------------------------------------------------------------- from_outcomes


def _from_table(table: Any, gamma: float, initial: int | ArrayLike, grid: Grid | None) -> MDP:
    discount = _check_gamma(gamma)
    flat = _flatten(table)
    prob, next_state, reward, terminated = _columns(flat)
    n_states = _check_next_states(flat, next_state, terminated)
    _check_probabilities(prob, lambda k: f"transition probability at {flat.place(k)}, next state {next_state[k]}")
    totals = np.bincount(np.repeat(np.arange(flat.counts.size), flat.counts), weights=prob)
    wrong = np.abs(totals - 1) > SUM_TOLERANCE
    if wrong.any():
        p = int(np.argmax(wrong))
        raise InvalidMDPError(_sum_message(flat.pair_state[p], flat.pair_action[p], totals[p]))
    return _canonical(
        n_states=n_states,
        n_actions=max(flat.pair_action) + 1,
        gamma=discount,
        initial=_check_initial(initial, n_states),
        pair_state=np.array(flat.pair_state, dtype=np.int64),
        pair_action=np.array(flat.pair_action, dtype=np.int32),
        counts=flat.counts,
        prob=prob,
        next_state=next_state.astype(np.int32),
        terminated=terminated,
        reward=reward,
        grid=grid,
    )


@dataclass(frozen=True)
class _Flat:
    """A table's outcomes in one list, with the pair that each belongs to."""

    states: list[int]
    pair_state: list[int]
    pair_action: list[int]
    counts: Ints
    outcomes: list[Any]

    def place(self, k: int) -> str:
        """Where outcome number k stands in the table."""
        p = int(np.searchsorted(np.cumsum(self.counts), k, side="right"))
        return f"state {self.pair_state[p]}, action {self.pair_action[p]}"


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
    return _Flat([state for state, _ in rows], pair_state, pair_action, np.array(counts, dtype=np.int64), outcomes)


def _numbered(level: Any, name: str, kind: str) -> list[tuple[int, Any]]:
    """The entries of a dictionary or list by ascending integer key."""
    if isinstance(level, Mapping):
        entries: list[tuple[int, Any]] = []
        for key, value in level.items():
            number = _as_int(key)
            if number is None or not 0 <= number < _LARGEST_INT32:
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


def _columns(flat: _Flat) -> tuple[Floats, Ints, Floats, Bools]:
    """The outcomes as checked arrays: probabilities, next states, rewards, ends."""
    for k, outcome in enumerate(flat.outcomes):
        if not isinstance(outcome, (tuple, list)) or len(outcome) != 4:
            raise InvalidMDPError(
                f"the outcome {outcome!r} at {flat.place(k)} must have four entries: "
                "(probability, next_state, reward, terminated)"
            )
    probs, nexts, rewards, ends = zip(*flat.outcomes, strict=True)

    next_state = _integer_column(nexts, flat)
    for k, end in enumerate(ends):
        if not isinstance(end, (bool, np.bool_)):
            raise InvalidMDPError(
                f"terminated at {flat.place(k)}, next state {nexts[k]} is {end!r}; it must be True or False "
                "(an outcome is probability, next_state, reward, terminated)"
            )
    prob = _number_column(probs, "transition probability", flat, vectors=False)
    return prob, next_state, _reward_column(rewards, flat), np.array(ends, dtype=np.bool_)


def _integer_column(nexts: tuple[Any, ...], flat: _Flat) -> Ints:
    """The next states as integers that fit 32 bits."""
    numbers = np.empty(len(nexts), dtype=np.int64)
    for k, value in enumerate(nexts):
        number = _as_int(value)
        if number is None:
            raise InvalidMDPError(f"next state {value!r} at {flat.place(k)} is not an integer; states are 0 to S - 1")
        if abs(number) > _LARGEST_INT32:
            raise InvalidMDPError(f"next state {number} at {flat.place(k)} is out of range; states are 0 to S - 1")
        numbers[k] = number
    return numbers


def _number_column(values: tuple[Any, ...], name: str, flat: _Flat, vectors: bool) -> Floats:
    """Numbers, or rows of equally many numbers where vectors are allowed, as a float array."""
    try:
        column = np.array(values, dtype=np.float64)
        if column.ndim == 1 or vectors:
            return column
    except (TypeError, ValueError, OverflowError):
        pass
    first = np.shape(values[0])
    for k, value in enumerate(values):  # find the cause and its place
        try:
            shape = np.array(value, dtype=np.float64).shape
        except (TypeError, ValueError, OverflowError):
            raise InvalidMDPError(f"{name} at {flat.place(k)} is {value!r}; it must be a number") from None
        if shape and not vectors:
            raise InvalidMDPError(f"{name} at {flat.place(k)} is {value!r}; it must be a number")
        if shape != first:
            raise InvalidMDPError(
                f"{name} at {flat.place(k)} is {value!r}, but at {flat.place(0)} it is {values[0]!r}; "
                f"every {name} must have the same number of components"
            )
    raise AssertionError("every value is a number of the same shape")


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


def _check_next_states(flat: _Flat, next_state: Ints, terminated: Bools) -> int:
    """The number of states, once each is known to be in the table or entered only with terminated=True."""
    negative = next_state < 0
    if negative.any():
        k = int(np.argmax(negative))
        raise InvalidMDPError(f"next state {next_state[k]} at {flat.place(k)} is out of range; states are 0 to S - 1")
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


# -------------------------------------------------------------------- from_gymnasium


def _from_environment(env: Any, gamma: float) -> MDP:
    bare = getattr(env, "unwrapped", env)
    table = getattr(bare, "P", None)
    name = getattr(getattr(bare, "spec", None), "id", None) or type(bare).__name__
    if not isinstance(table, (Mapping, Sequence)):
        raise InvalidMDPError(
            f"{name} has no transition table (env.unwrapped.P); write its transitions down and use "
            "MDP.from_outcomes(table) or MDP.from_arrays(P, R)"
        )
    if getattr(bare, "fickle_passenger", False):
        raise InvalidMDPError(
            f"{name} with fickle_passenger=True changes the destination outside its transition table, "
            "so the table is not the environment; make it with fickle_passenger=False, "
            "or use MDP.from_outcomes with a table of your own"
        )
    start = getattr(bare, "initial_state_distrib", None)
    initial: int | ArrayLike = 0 if start is None else start
    if start is not None and np.count_nonzero(start) == 1:
        _check_initial(start, np.size(start))
        initial = int(np.argmax(start))
    return _from_table(table, gamma, initial, grid=_grid_of_environment(bare))


def _grid_of_environment(bare: Any) -> Grid | None:
    """The map of FrozenLake and CliffWalking; None for other environments."""
    try:
        from gymnasium.envs.toy_text.cliffwalking import CliffWalkingEnv
        from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv
    except ImportError:  # an environment object of another make
        return None
    if isinstance(bare, FrozenLakeEnv):
        return _grid_of(tuple("".join(row) for row in np.asarray(bare.desc).astype(str)), moves=_LAKE_MOVES, walls="")
    if isinstance(bare, CliffWalkingEnv):
        cells = np.where(bare._cliff, "C", ".")
        cells.flat[bare.start_state_index] = "S"
        cells.flat[-1] = "G"
        return _grid_of(tuple("".join(row) for row in cells), moves=_GRID_MOVES, walls="")
    return None


# -------------------------------------------------------------------- from_grid and garnet


def _read_map(text: str, known: set[str]) -> tuple[str, ...]:
    lines = tuple(line.strip() for line in text.strip().splitlines())
    if not lines:
        raise InvalidMDPError("the map is empty; draw at least one line with a start 'S'")
    for row, line in enumerate(lines):
        if len(line) != len(lines[0]):
            raise InvalidMDPError(
                f"line {row} of the map has {len(line)} cells and line 0 has {len(lines[0])}; "
                "all lines must have the same length (draw free cells as '.', not as spaces)"
            )
        for column, character in enumerate(line):
            if character not in known:
                raise InvalidMDPError(
                    f"unknown character {character!r} at row {row}, column {column} of the map; "
                    f"known are {''.join(sorted(known))!r}: name others in rewards= or terminal=, "
                    "and draw free cells as '.'"
                )
    return lines


def _grid_of(lines: tuple[str, ...], moves: tuple[tuple[int, int], ...], walls: str = "#") -> Grid:
    cells = np.array([list(line) for line in lines])
    free = ~np.isin(cells, list(walls))
    states = np.full(cells.shape, -1, dtype=np.int32)
    states[free] = np.arange(int(free.sum()))
    return Grid(lines, _read_only(states), moves)


def _grid_table(
    grid: Grid, slip: float, step_reward: Any, paid: Mapping[str, Any], terminal: str
) -> dict[int, dict[int, list[Any]]]:
    """The outcomes of every cell of a gridworld, in the form of `from_outcomes`."""
    states = np.pad(grid.states, 1, constant_values=-1)  # the map's rim is a wall

    def step(state: int, move: tuple[int, int]) -> tuple[int, Any, bool]:
        row, column = grid.cells[state]
        target = int(states[row + 1 + move[0], column + 1 + move[1]])
        if target < 0:
            return state, step_reward, False
        character = grid.lines[row + move[0]][column + move[1]]
        return target, paid.get(character, step_reward), character in terminal

    table: dict[int, dict[int, list[Any]]] = {}
    for state, (row, column) in enumerate(grid.cells):
        if grid.lines[row][column] in terminal:
            stay = (1.0, state, np.zeros_like(step_reward, dtype=np.float64), True)
            table[state] = {action: [stay] for action in range(len(grid.moves))}
            continue
        reached = [step(state, move) for move in grid.moves]
        table[state] = {
            action: [
                (1.0 - slip, *reached[action]),
                (slip / 2, *reached[action - 1]),
                (slip / 2, *reached[(action + 1) % len(reached)]),
            ]
            for action in range(len(reached))
        }
    return table


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
