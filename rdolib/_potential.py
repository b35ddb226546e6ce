"""Finite horizons with rewards that are changes of a potential: the stock keeps its distance from the potential.

If a number ``phi(s)`` belongs to every state (wealth, say) and every outcome that goes on pays
``r = phi(s') - phi(s)``, then with ``gamma = 1``

    c_{t+1} - phi(s_{t+1}) = c_t - phi(s_t),

so the *distance* ``d = c - phi(s)`` never changes. The augmented states that can be reached from ``(s, c)`` are the
states, each with the one stock ``d + phi``. For each distance the problem is an ordinary one, with the MDP's own
transitions and the payoff ``f(d + phi(S))`` at the end, or ``f(d + phi(s) + r)`` where an outcome ends the return:

    V_t(s) = max_a { sum over outcomes that go on  p V_{t+1}(s')  +  sum over outcomes that end  p f(d + phi(s) + r) }.

All distances are swept at once, side by side in the rows of `_kernels.sweep`, with shifts of zero. Many goals for one
wealth are one distance each, and so is one goal for every wealth. Distances are solved for when they are first needed:
at once those of the MDP's own initial states, those of another state when it is asked for.

A potential is found, or ruled out, by joining states one outcome at a time. Derived here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdolib import _graph, _kernels
from rdolib._progress import bar
from rdolib._reachable import Problem, unknown_stock
from rdolib.errors import MemoryLimitError
from rdolib.mdp import MDP
from rdolib.stock import SAME, Saturation

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_SAME = 1e-9  # part of the mesh by which distances may differ and still be one
_CLOSED = 1e-10  # a cycle of rewards that are no fractions sums to zero if it misses it by this part of the largest
_NEAR = 1e-6  # a stock asked for may miss its distance by this part of the mesh
_BESIDE = 128  # distances swept at once: the rows of many states then stay in the second-level cache
BYTES_PER_START = 80  # of a state and stock that somebody may start from
_ROUNDING = 1e-15  # actions whose values differ by this part of the largest value surely tie


def find_potential(mdp: MDP, mesh: float | None) -> tuple[Floats, float] | None:
    """``phi`` (S,) in some unit, 0 at one state of every connected part, and the unit; None where there is none.

    With a ``mesh`` of the rewards that is the unit, and ``phi`` is whole. Otherwise the unit is a power of two.
    """
    goes_on = ~mdp.terminated
    outcome_state = np.repeat(mdp.pair_state, np.diff(mdp.outcome_ptr))
    tail, head = outcome_state[goes_on], mdp.next_state[goes_on]
    largest = float(np.abs(mdp.reward).max(initial=0.0))
    unit = float(2.0 ** np.ceil(np.log2(largest or 1.0))) if mesh is None else mesh
    rise = mdp.reward[goes_on] / unit
    parent, above = np.arange(mdp.n_states), np.zeros(mdp.n_states)
    found = _join(tail, head, rise if mesh is None else np.rint(rise), parent, above, 0.0 if mesh else _CLOSED)
    return (above, unit) if found else None


def _join_states(tail: Ints, head: Ints, rise: Floats, parent: Ints, above: Floats, tol: float) -> bool:
    """Whether some ``phi`` has ``phi(head) - phi(tail) = rise`` everywhere, to ``tol``; ``above`` (S,) receives it.

    Union-find: ``parent`` (S,) starts as its own indices, and ``above[v]`` is ``phi(v) - phi(parent[v])``.
    """
    for i in range(len(tail)):
        ends = (tail[i], head[i])
        roots, height = [ends[0], ends[1]], [0.0, 0.0]
        for k in range(2):
            v = ends[k]
            while parent[v] != v:
                above[v] += above[parent[v]]
                parent[v] = parent[parent[v]]
                height[k] += above[v]
                v = parent[v]
            roots[k] = v
        gap = height[0] + rise[i] - height[1]
        if roots[0] != roots[1]:
            parent[roots[1]] = roots[0]
            above[roots[1]] = gap
        elif abs(gap) > tol:
            return False
    for v in range(len(parent)):
        while parent[v] != parent[parent[v]]:
            above[v] += above[parent[v]]
            parent[v] = parent[parent[v]]
    return True


_join = _kernels.kernel(_join_states)


@dataclass(frozen=True)
class _Solved:
    """Values at step 0 (S, n) and chosen pairs (horizon, S, n) for some distances."""

    value: Floats
    choice: NDArray[Any]


class PotentialTable:
    """Values and actions for every distance of the stocks from the potential."""

    endless = False
    exact = True

    def __init__(
        self, problem: Problem, potential: Floats, mesh: float, whole: bool, stocks: Floats, horizon: int, memory: int
    ) -> None:
        self.problem, self.potential, self.mesh, self.whole = problem, potential, mesh, whole
        self.horizon, self.iterations, self.memory = horizon, horizon, memory
        live = np.flatnonzero(~problem.mdp.terminal)
        state, stock = np.repeat(live, len(stocks)), np.tile(stocks, len(live))
        matters = problem.side(state, problem.units.key(stock), horizon) == 0
        state, distance = state[matters], self._distance(state[matters], stock[matters])
        order = np.argsort(distance, kind="stable")
        first = np.diff(distance[order], prepend=-np.inf) > _SAME
        self.distances = distance[order][first]
        #: Every (state, distance number) that somebody may start from, by distance.
        self.start_state, self.start_number = state[order], np.cumsum(first) - 1
        self.part = np.full(len(self.distances), -1)  # number of the solved part that holds each distance
        self.column = np.zeros(len(self.distances), dtype=np.int64)
        self.parts: dict[int, _Solved] = {}
        self._solve_for(np.flatnonzero(_initial(problem.mdp)))
        self.rung = (
            f"exact: rewards are changes of a potential, {int((self.part >= 0).sum())} stocks at each of "
            f"{problem.mdp.n_states} states, {horizon} sweeps"
            if len(self.distances)
            else "exact: no stock matters"
        )

    # ------------------------------------------------------------- solving

    def _distance(self, state: Ints, stock: Floats) -> Floats:
        """Stock less potential, in units of the mesh; whole where the potential is and the stock is nearly."""
        place = stock / self.mesh
        if self.whole:
            near = np.rint(place)
            place = np.where(np.abs(place - near) <= _SAME, near, place)
        return place - self.potential[state]

    def _solve_for(self, states: Ints) -> None:
        """Solve for the distances of some states that are not solved yet, together."""
        number = np.unique(self.start_number[np.isin(self.start_state, states)])
        number = number[self.part[number] < 0]
        if len(number) == 0:
            return
        self._make_room(len(number))
        name = max(self.parts, default=-1) + 1
        self.parts[name] = self._solve(self.distances[number])
        self.part[number], self.column[number] = name, np.arange(len(number))

    def _make_room(self, n_distances: int) -> None:
        """Give up the oldest parts until the values and choices of some more distances fit into the memory."""
        mdp = self.problem.mdp
        each = mdp.n_states * (self.horizon * _kernels.index_type(mdp.pair_ptr)().itemsize + 24)
        if n_distances * each > self.memory:
            raise MemoryLimitError(
                f"{n_distances} stocks at one of {mdp.n_states} states over {self.horizon} steps need more than "
                f"{self.memory / 2**20:.0f} MiB; ask for fewer stocks, or raise memory="
            )
        while each * (int((self.part >= 0).sum()) + n_distances) > self.memory:
            oldest = min(self.parts)  # solved again should it be asked for
            del self.parts[oldest]
            self.part[self.part == oldest] = -1

    def _payoffs(self, distance: Floats) -> tuple[Floats, NDArray[np.int32]]:
        """Values after the last step (S + E, width), and the row of every outcome: E rows are for what has ended."""
        mdp = self.problem.mdp
        ended = np.flatnonzero(mdp.terminated)
        outcome_state = np.repeat(mdp.pair_state, np.diff(mdp.outcome_ptr))
        reward = mdp.reward[ended] / self.mesh
        level = self.potential[outcome_state[ended]] + (np.rint(reward) if self.whole else reward)
        ends, row = np.unique(level, return_inverse=True)
        succ = mdp.next_state.astype(np.int32)
        succ[ended] = mdp.n_states + row
        value = np.zeros((mdp.n_states + len(ends), _kernels.row_width(len(distance), 0)))
        level = np.concatenate([self.potential, ends])[:, None]
        stock = distance + level
        stock[np.abs(stock) <= SAME * np.abs(level)] = 0.0  # what cancels to rounding noise is zero
        value[:, : len(distance)] = self.problem.utility(self.mesh * stock)
        return value, succ

    def _solve(self, distance: Floats) -> _Solved:
        mdp, n = self.problem.mdp, len(distance)
        value, succ = self._payoffs(distance)
        out = value.copy()
        choice = np.empty((self.horizon, mdp.n_states, n), dtype=_kernels.index_type(mdp.pair_ptr))
        shift = np.zeros(len(succ), dtype=np.int32)
        tie = _tie(self.problem, float(np.abs(value).max(initial=0.0)))
        work = mdp.outcome_ptr[mdp.pair_ptr]
        with bar("sweeping", self.horizon) as progress:
            for t in reversed(range(self.horizon)):

                def box(part: _kernels.Box, value: Floats = value, out: Floats = out, t: int = t) -> None:
                    for first in range(part[2], part[3], _BESIDE):
                        some = (part[0], part[1], first, min(first + _BESIDE, part[3]))
                        _kernels.sweep(
                            mdp.pair_ptr, mdp.outcome_ptr, mdp.prob, succ, shift, value, 0, out, some, choice[t], tie
                        )

                _kernels.run_in_boxes(box, work, n)
                value, out = out, value
                progress.update()
        return _Solved(value[: mdp.n_states, :n].copy(), choice)

    # ------------------------------------------------------------- reading

    def _numbers(self, state: Ints, stock: Floats, t: int) -> Ints:
        """Number of the distance of each (state, stock); an error where it is none of those solved for."""
        distance = self._distance(state, stock)
        after = np.clip(np.searchsorted(self.distances, distance), 0, max(0, len(self.distances) - 1))
        before = np.maximum(after - 1, 0)
        known = self.distances if len(self.distances) else np.array([np.inf])
        nearer = np.abs(known[before] - distance) < np.abs(known[after] - distance)
        number = np.where(nearer, before, after)
        unknown = ~(np.abs(known[number] - distance) <= _NEAR + 1e-12 * np.abs(stock / self.mesh))
        if unknown.any():
            raise unknown_stock(state[unknown][0], stock[unknown][0], t)
        return number

    def _read(self, number: Ints, read: Any, out: NDArray[Any]) -> None:
        """Fill ``out`` with ``read(part, rows, columns)``, solving what is not solved yet."""
        left = np.arange(len(number))
        while len(left):
            if self.part[number[left[0]]] < 0:
                start = np.searchsorted(self.start_number, number[left[0]])
                self._solve_for(self.start_state[start : start + 1])
            name = self.part[number[left[0]]]
            here = self.part[number[left]] == name
            rows = left[here]
            out[rows] = read(self.parts[int(name)], rows, self.column[number[rows]])
            left = left[~here]

    def bounds(self, state: Ints, stock: Floats) -> tuple[Floats, Floats]:
        problem, left = self.problem, self.horizon
        value = problem.utility(stock)
        live = np.flatnonzero(~problem.mdp.terminal[state])
        side = problem.side(state[live], problem.units.key(stock[live]), left)
        if problem.saturation is not None:
            value[live] = problem.saturation.value(state[live], stock[live], side, left)
        live = live[side == 0]
        inner = np.empty(len(live))
        number = self._numbers(state[live], stock[live], 0)
        self._read(number, lambda part, rows, column: part.value[state[live[rows]], column], inner)
        value[live] = inner
        return value, value.copy()

    def action(self, state: Ints, stock: Floats, t: int) -> NDArray[np.int32]:
        problem, mdp = self.problem, self.problem.mdp
        action = np.zeros(len(state), dtype=np.int32)
        live = np.flatnonzero(~mdp.terminal[state])
        if t >= self.horizon:
            action[live] = mdp.pair_action[mdp.pair_ptr[state[live]]]
            return action
        side = problem.side_asked(state[live], stock[live], self.horizon - t, t)
        if problem.saturation is not None:
            action[live] = problem.saturation.action(state[live], side, self.horizon - t)
        live = live[side == 0]
        choice = np.empty(len(live), dtype=np.int64)
        number = self._numbers(state[live], stock[live], t)
        self._read(number, lambda part, rows, column: part.choice[t, state[live[rows]], column], choice)
        action[live] = mdp.pair_action[mdp.pair_ptr[state[live]] + choice]
        return action

    def side(self, state: Ints, stock: Floats, t: int) -> NDArray[np.int8]:
        """-1 and 1 where the stock matters no more, now and later, being too low or too high; else 0."""
        if self.problem.saturation is None:
            return np.zeros(len(state), dtype=np.int8)
        return self.problem.saturation.side(state, stock, self.horizon - t)

    def rests(self, state: Ints, stock: Floats) -> Bools:
        return np.zeros(len(state), dtype=np.bool_)


def _initial(mdp: MDP) -> Bools:
    """States (S,) that the MDP may start from."""
    if isinstance(mdp.initial, int):
        return np.asarray(np.arange(mdp.n_states) == mdp.initial)
    return np.asarray(mdp.initial > 0)


def _tie(problem: Problem, size: float) -> float:
    """Difference up to which actions tie; a curved utility may be huge far out, which must not matter elsewhere."""
    if isinstance(problem.saturation, Saturation):
        return _graph.TIE * max(1.0, size)
    return _graph.TIE + _ROUNDING * size
