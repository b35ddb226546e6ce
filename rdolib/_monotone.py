"""Endless problems whose stock moves one way: ``gamma = 1`` and every unfinished reward has the same strict sign.

Successors then lie on rows of stock that are already finished, so one pass over the lattice solves the problem
exactly, from the saturated side on, without any assumption that policies end.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rdolib import _graph, _kernels
from rdolib.errors import InvalidArgumentError, MemoryLimitError
from rdolib.mdp import MDP
from rdolib.objectives import ExpectedUtility
from rdolib.stock import Saturation

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_NEAR = 1e-6  # a stock asked for may miss the lattice by this part of the mesh


def direction(mdp: MDP) -> int:
    """1 when every unfinished reward is negative, -1 when every one is positive, else 0."""
    unfinished = mdp.reward[~mdp.terminated]
    if (unfinished < 0).all():
        return 1
    return -1 if (unfinished > 0).all() else 0


class MonotoneTable:
    """Values and actions on the lattices ``offset + mesh * Z``, one lattice for each offset of the initial stocks."""

    exact = True
    endless = True
    horizon = None
    iterations = 1

    def __init__(
        self,
        mdp: MDP,
        objective: ExpectedUtility,
        saturation: Saturation,
        mesh: float,
        stocks: Floats,
        memory: int,
    ) -> None:
        self.mdp, self.objective, self.saturation, self.mesh = mdp, objective, saturation, mesh
        self.direction = direction(mdp)
        index = np.rint(stocks / mesh)
        offset = stocks - index * mesh
        offset[np.abs(offset) <= 1e-9 * mesh] = 0.0
        self.offsets = _distinct(offset, 1e-9 * mesh)
        edge = self._edge()
        if self.direction > 0:
            self.low, self.high = int(edge), int(max(index.max(), edge))
        else:
            self.low, self.high = int(min(index.min(), edge)), int(edge)
        shift = np.rint(mdp.reward / mesh).astype(np.int64)
        self.pad = int(np.abs(shift).max(initial=0)) + 1
        rows = self.high - self.low + 1
        needed = len(self.offsets) * ((rows + 2 * self.pad) * (mdp.n_states + 1) * 8 + rows * mdp.n_states)
        if needed > memory:
            raise MemoryLimitError(
                f"the stock lattice needs {needed / 2**20:.0f} MiB ({rows} stocks x {mdp.n_states} states), more than "
                f"the limit of {memory / 2**20:.0f} MiB; raise memory=, or use stocks nearer to zero"
            )
        self.values = np.empty((len(self.offsets), rows, mdp.n_states))
        self.choices = np.empty((len(self.offsets), rows, mdp.n_states), dtype=_kernels.index_type(mdp.pair_ptr))
        self.none = int(np.iinfo(self.choices.dtype).max)
        for number, offset_ in enumerate(self.offsets):
            self._solve(number, float(offset_), shift)
        self.rung = f"exact: lattice of {rows} stocks with mesh {mesh:.6g}, one pass"

    def _edge(self) -> float:
        """Index of the last stock, seen from the saturated side, that may be saturated at some state but not all."""
        bound = -self.saturation.greatest[0] if self.direction > 0 else -self.saturation.least[0]
        bound = bound[np.isfinite(bound) & ~self.mdp.terminal]
        if len(bound) == 0:
            return 0.0
        return float(np.floor(bound.min() / self.mesh) if self.direction > 0 else np.ceil(bound.max() / self.mesh))

    def _solve(self, number: int, offset: float, shift: Ints) -> None:
        mdp, pad = self.mdp, self.pad
        padded = np.asarray(offset + self.mesh * np.arange(self.low - pad, self.high + pad + 1), dtype=np.float64)
        stock = padded[pad : len(padded) - pad]
        side_wanted = -1 if self.direction > 0 else 1
        slopes = self.saturation.slopes
        slope = 0.0 if slopes is None else slopes[0 if side_wanted < 0 else 1]
        mean = (self.saturation.low_mean if side_wanted < 0 else self.saturation.high_mean)[0].copy()
        if slopes is None:
            mean[:] = 0.0 if side_wanted < 0 else 1.0
        value = slope * padded[:, None] + np.append(mean, 0.0)
        value[:, -1] = self.objective.utility(padded)
        value[:, :-1][:, mdp.terminal] = value[:, -1:]
        # Sides are monotone in the stock, so a count says it all.
        side = self.saturation.side(np.arange(mdp.n_states), stock[:, None])
        saturated = np.count_nonzero(side == side_wanted, axis=0).astype(np.int64)
        saturated[mdp.terminal] = 0
        succ = np.where(mdp.terminated, mdp.n_states, mdp.next_state).astype(np.int64)
        _kernels.recurse_stocks(
            mdp.pair_ptr, mdp.outcome_ptr, mdp.prob, succ, shift, saturated, mean, slope, stock,
            self.direction, pad, _graph.TIE, value, self.choices[number], self.none,
        )  # fmt: skip
        self.values[number] = value[pad : pad + len(stock), :-1]

    def _locate(self, stock: Floats) -> tuple[Ints, Ints, NDArray[np.bool_]]:
        """Lattice, row, and whether the stock is on one of the lattices."""
        place = (stock[:, None] - self.offsets) / self.mesh
        if len(self.offsets) == 1:
            lattice, place = np.zeros(len(stock), dtype=np.int64), place[:, 0]
        else:
            lattice = np.abs(place - np.rint(place)).argmin(axis=1)
            place = place[np.arange(len(stock)), lattice]
        row = np.rint(place)
        on = np.abs(place - row) <= _NEAR + 1e-12 * np.abs(place)
        on &= (row >= self.low) & (row <= self.high)
        return lattice, np.where(on, row - self.low, 0).astype(np.int64), on

    def bounds(self, state: Ints, stock: Floats) -> tuple[Floats, Floats]:
        lattice, row, on = self._locate(stock)
        side = self.saturation.side(state, stock)
        ended = self.mdp.terminal[state]
        self._refuse_unknown(state, stock, ~on & (side == 0) & ~ended)
        value = np.where(side != 0, self.saturation.value(state, stock, side), self.values[lattice, row, state])
        value = np.where(ended, self.objective.utility(stock), value)
        return value, value

    def action(self, state: Ints, stock: Floats, t: int) -> NDArray[np.int32]:
        lattice, row, on = self._locate(stock)
        side = self.saturation.side(state, stock, slack=_NEAR * self.mesh)
        ended = self.mdp.terminal[state]
        self._refuse_unknown(state, stock, ~on & (side == 0) & ~ended)
        choice = self.choices[lattice, row, state]
        tabled = on & (choice != self.none) & ~ended
        action = self.saturation.action(state, np.where(side == 0, -self.direction, side).astype(np.int8))
        action[tabled] = self.mdp.pair_action[self.mdp.pair_ptr[state[tabled]] + choice[tabled]]
        action[ended] = 0
        return action

    def side(self, state: Ints, stock: Floats, t: int) -> NDArray[np.int8]:
        """-1 and 1 where the stock matters no more, now and later, being too low or too high; else 0."""
        return self.saturation.side(state, stock)

    def rests(self, state: Ints, stock: Floats) -> NDArray[np.bool_]:
        return np.zeros(len(state), dtype=np.bool_)

    def _refuse_unknown(self, state: Ints, stock: Floats, unknown: NDArray[np.bool_]) -> None:
        if unknown.any():
            raise InvalidArgumentError(
                f"stock {stock[unknown][0]:.12g} at state {state[unknown][0]} is outside the lattice this problem was "
                f"solved on ({self.offsets[0] + self.mesh * self.low:.6g} to "
                f"{self.offsets[0] + self.mesh * self.high:.6g}, mesh {self.mesh:.6g}); solve again with it in stock="
            )


def _distinct(values: Floats, width: float) -> Floats:
    ordered = np.sort(values)
    return np.asarray(ordered[np.concatenate([[True], np.diff(ordered) > width])])
