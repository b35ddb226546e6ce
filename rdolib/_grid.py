"""Certified values on a grid of stocks: ``gamma < 1``, endless, utilities that saturate.

The next stock ``(c + r) / gamma`` is rounded to the grid. For a nondecreasing utility rounding down (up) gives a lower
(upper) bound at every sweep from the least (greatest) possible return; the policy of the lower table, fed the true
stock rounded down, attains at least its bound. For other utilities the nearest grid point is taken and the bounds are
widened by ``L (h / 2) gamma / (1 - gamma)``. Grids are refined by a factor, each warm-started from the one before;
nested grids keep the lower table below its own update, which is what the policy's guarantee needs.
Derived in the book, chapter 4.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdolib import _graph, _kernels
from rdolib._lattice import ENOUGH
from rdolib._progress import bar
from rdolib._reachable import Problem
from rdolib.errors import MemoryLimitError
from rdolib.stock import Saturation

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_FIRST = 256  # cells of the coarsest grid
_REFINE = 4
_SLACK = 1e-9
_BYTES = 40.0  # per state and stock
_WORK = 1e9  # updates in all: a second or two on two cores


class GridTable:
    """Bounds and actions on the finest grid that the tolerance asks for or the memory and the work limit allow."""

    exact = False
    endless = True
    horizon = None

    def __init__(self, problem: Problem, stocks: Floats, tol: float | None, memory: int) -> None:
        assert isinstance(problem.saturation, Saturation)
        self.problem, self.saturation = problem, problem.saturation
        self.monotone = problem.objective.nondecreasing
        mdp = problem.mdp
        live = ~mdp.terminal
        self.low = float((-self.saturation.greatest[0][live]).min(initial=0.0))
        high = float((-self.saturation.least[0][live]).max(initial=0.0))
        self.span = max(high - self.low, 1e-300)
        self.rewards, self.reward_id = np.unique(mdp.reward, return_inverse=True)
        per_cell = _BYTES * (mdp.n_states + 1) + 12.0 * len(self.rewards)
        if _FIRST * per_cell > memory:
            raise MemoryLimitError(
                f"even a coarse grid of {_FIRST} stocks for {mdp.n_states} states needs "
                f"{_FIRST * per_cell / 2**20:.0f} MiB; raise memory="
            )
        self.iterations = 0
        cells, work = _FIRST, 0.0
        lower, upper = self._start(cells)
        while True:
            sweeps = self._improve(cells, lower, upper)
            self.iterations += sweeps
            work += sweeps * 2.0 * cells * mdp.n_outcomes
            gap = self._gap(stocks)
            if gap <= (ENOUGH * float(np.abs(self.upper).max()) if tol is None else tol):
                break
            finer = cells * _REFINE
            # The gap shrinks with the mesh: a tolerance that the memory can reach is worth any work.
            in_reach = tol is not None and gap * cells * per_cell <= tol * memory
            much = work + sweeps * 2.0 * finer * mdp.n_outcomes > _WORK
            if finer * per_cell > memory or (much and not in_reach):
                break
            lower, upper = self._refine(cells, finer)
            cells = finer
        self.rung = f"certified: grid of {cells + 1} stocks with mesh {self.mesh:.3g}, {self.iterations} sweeps"

    # ------------------------------------------------------------- solving

    def _points(self, cells: int) -> Floats:
        return np.asarray(self.low + (self.span / cells) * np.arange(cells + 1), dtype=np.float64)

    def _start(self, cells: int) -> tuple[Floats, Floats]:
        """Least and greatest conceivable values."""
        c = self._points(cells)[None, :]
        lower, upper = self.problem.objective.range_on(
            c + self.saturation.least[0][:, None], c + self.saturation.greatest[0][:, None]
        )
        return self._with_end(lower, cells), self._with_end(upper, cells)

    def _with_end(self, values: Floats, cells: int) -> Floats:
        end = self.problem.objective.utility(self._points(cells))
        values = np.vstack([values, end])
        values[:-1][self.problem.mdp.terminal] = end
        return np.ascontiguousarray(values)

    def _refine(self, cells: int, finer: int) -> tuple[Floats, Floats]:
        index = np.arange(finer + 1)
        down, up = index // _REFINE, -(-index // _REFINE)
        if self.monotone:
            return self._with_end(self.lower[:-1, down], finer), self._with_end(self.upper[:-1, up], finer)
        # V is L-Lipschitz in the stock, and each table lies within its error of V: widened by both, the coarse table
        # starts the fine one from below and from above.
        near = np.rint(index / _REFINE).astype(np.int64)
        assert self.problem.objective.lipschitz is not None
        slack = self.problem.objective.lipschitz * self.span / cells / 2 + 2 * self.error
        return self._with_end(self.lower[:-1, near] - slack, finer), self._with_end(
            self.upper[:-1, near] + slack, finer
        )

    def _improve(self, cells: int, lower: Floats, upper: Floats) -> int:
        """Sweep both bounds until they stop gaining on the rounding error of this mesh."""
        mdp = self.problem.mdp
        gamma = mdp.gamma
        self.cells, self.mesh = cells, self.span / cells
        lipschitz = self.problem.objective.lipschitz
        floor = 1e-8 if lipschitz is None else lipschitz * self.mesh * gamma / (1 - gamma)
        self.error = 0.0 if self.monotone or lipschitz is None else floor / 2
        policy = np.zeros((mdp.n_states, cells + 1), dtype=_kernels.index_type(mdp.pair_ptr))
        unused = np.zeros_like(policy)
        down, up = ("down", "up") if self.monotone else ("nearest", "nearest")
        maps_down, maps_up = self._maps(down), self._maps(up)
        spare = lower.copy()
        spare_up = upper.copy()
        sweeps = 0
        with bar(f"sweeping a grid of {cells} stocks") as progress:
            while True:
                self._sweep(maps_down, lower, spare, policy)
                self._sweep(maps_up, upper, spare_up, unused)
                change = max(_largest(spare - lower), _largest(upper - spare_up))
                lower, spare = spare, lower
                upper, spare_up = spare_up, upper
                sweeps += 1
                progress.update()
                if change * gamma / (1 - gamma) <= 0.02 * floor or sweeps >= 200_000:
                    break
        self.lower, self.upper, self.policy = lower, upper, policy
        return sweeps

    def _maps(self, rounding: str) -> tuple[NDArray[np.int32], Ints, Floats]:
        """For each distinct reward: grid index of the next stock, the range where it is on the grid, and the stock."""
        carried = (self._points(self.cells)[None, :] + self.rewards[:, None]) / self.problem.mdp.gamma
        place = (carried - self.low) / self.mesh
        if rounding == "down":
            index = np.floor(place)
        elif rounding == "up":
            index = np.ceil(place)
        else:
            index = np.rint(place)
        first = np.count_nonzero(place < 0, axis=1)
        last = np.count_nonzero(place <= self.cells, axis=1)
        index = np.clip(index, 0, self.cells).astype(np.int32)  # read only between first and last
        return index, np.stack([first, last], axis=1).astype(np.int64), carried

    def _sweep(
        self, maps: tuple[NDArray[np.int32], Ints, Floats], v: Floats, out: Floats, policy: NDArray[Any]
    ) -> None:
        mdp, saturation = self.problem.mdp, self.saturation
        slopes = saturation.slopes or (0.0, 0.0)
        zero, one = (0.0, 0.0) if saturation.slopes is not None else (0.0, 1.0)
        low = np.append(np.where(mdp.terminal, 0.0, saturation.low_mean[0]), 0.0) + zero
        high = np.append(np.where(mdp.terminal, 0.0, saturation.high_mean[0]), 0.0) + one
        succ = np.where(mdp.terminated, mdp.n_states, mdp.next_state).astype(np.int64)
        prob = self.problem.factor * mdp.prob

        def box(part: tuple[int, int, int, int]) -> None:
            _kernels.sweep_grid(
                mdp.pair_ptr, mdp.outcome_ptr, prob, succ, self.reward_id, *maps, low, high, slopes, v, out, part,
                policy, _graph.TIE,
            )  # fmt: skip

        _kernels.run_in_boxes(box, mdp.outcome_ptr[mdp.pair_ptr], self.cells + 1)

    # ------------------------------------------------------------- reading

    def _gap(self, stocks: Floats) -> float:
        states = np.arange(self.problem.mdp.n_states)
        lower, upper = self.bounds(np.repeat(states, len(stocks)), np.tile(stocks, len(states)))
        return _largest(upper - lower)

    def bounds(self, state: Ints, stock: Floats) -> tuple[Floats, Floats]:
        problem = self.problem
        side = self.saturation.side(state, stock)
        place = np.clip((stock - self.low) / self.mesh, 0.0, float(self.cells))
        if self.monotone:
            below, above = np.floor(place + _SLACK).astype(np.int64), np.ceil(place - _SLACK).astype(np.int64)
            lower, upper = self.lower[state, below], self.upper[state, above]
        else:
            near = np.rint(place).astype(np.int64)
            assert problem.objective.lipschitz is not None
            slack = self.error + problem.objective.lipschitz * self.mesh * np.abs(place - near)
            lower, upper = self.lower[state, near] - slack, self.upper[state, near] + slack
        sure = self.saturation.value(state, stock, side)
        ended = problem.mdp.terminal[state]
        worth = problem.objective.utility(stock)
        least, greatest = problem.objective.range_on(
            stock + self.saturation.least[0, state], stock + self.saturation.greatest[0, state]
        )
        lower, upper = np.maximum(lower, least), np.minimum(upper, greatest)
        lower = np.where(ended, worth, np.where(side != 0, sure, lower))
        return lower, np.where(ended, worth, np.where(side != 0, sure, upper))

    def action(self, state: Ints, stock: Floats, t: int) -> NDArray[np.int32]:
        mdp = self.problem.mdp
        side = self.saturation.side(state, stock)
        place = np.clip((stock - self.low) / self.mesh, 0.0, float(self.cells))
        index = (np.floor(place + _SLACK) if self.monotone else np.rint(place)).astype(np.int64)
        action = self.saturation.action(state, side)
        inside = (side == 0) & ~mdp.terminal[state]
        chosen = self.policy[state[inside], index[inside]]
        action[inside] = mdp.pair_action[mdp.pair_ptr[state[inside]] + chosen]
        action[mdp.terminal[state]] = 0
        return action

    def side(self, state: Ints, stock: Floats, t: int) -> NDArray[np.int8]:
        """-1 and 1 where the stock matters no more, now and later, being too low or too high; else 0."""
        return self.saturation.side(state, stock)

    def rests(self, state: Ints, stock: Floats) -> NDArray[np.bool_]:
        return np.zeros(len(state), dtype=np.bool_)


def _largest(x: Floats) -> float:
    return float(np.abs(x).max(initial=0.0))
