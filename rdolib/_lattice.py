"""Backward sweeps over a window of stocks, one row of stocks per state: finite horizons.

A window of vector stocks is a box, laid out in one row like any array: a step is then still a shift of that row. Cells
near the faces of the box read cells beyond them (the row goes on at the opposite face), but the box holds all that can
be reached, and no reachable stock looks there. What cannot be reached is refused when it is asked for.

In the money of step 0 the stock only adds up, ``x_{t+1} = x_t + gamma**t r``, so a sweep is a maximum of sums of
shifted rows. With ``gamma = 1`` and rewards on a lattice the shifts are exact. Otherwise they are rounded to the mesh
``h``, and the error is carried along:

* nondecreasing utility: rounding all shifts down (up) gives a lower (upper) bound, and the policy of the lower one,
  fed the true stock rounded down, attains at least the lower bound;
* otherwise: nearest rounding, and ``L`` times the sum of the largest rounding errors of the steps, on both sides.

Derived in the book, chapter 4.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rdolib import _graph, _kernels
from rdolib._progress import bar
from rdolib._reachable import QUERY, Problem, unknown_stock
from rdolib.errors import MemoryLimitError, NotOptimizableError
from rdolib.stock import Saturation, return_range_by_step

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Rest = tuple[Floats, Floats]  # least and greatest return of each state after the last step
Rounding = Literal["exact", "down", "up", "nearest"]

_NEAR = 1e-6  # a stock asked for may miss an exact lattice by this part of the mesh
_ROUNDING = 1e-15  # actions whose values differ by this part of the largest value of a window surely tie
_SLACK = 1e-9  # part of the mesh by which a stock may lie below a grid point and still count as on it


class Window:
    """Values at step 0 and the policy on one window of stocks ``offset + mesh * (low + i)``, ``0 <= i < shape``.

    ``offset`` and ``low`` have one entry for each component of the reward, as ``shape`` has. ``starts`` are the initial
    stocks; rounding may move a path by up to ``drift`` cells.
    """

    def __init__(
        self, problem: Problem, starts: Floats, offset: Floats, mesh: float, low: Ints, shape: Ints, drift: int = 0
    ) -> None:
        self.problem, self.offset, self.mesh, self.low, self.shape = problem, offset, mesh, low, shape
        self.starts, self.drift = starts, drift
        self.count = int(np.prod(shape))
        self.strides = strides(shape)

    def stocks(self, first: int, last: int) -> Floats:
        """Stocks (n,) or (n, m) of cells; before and after the row only the first component goes on."""
        cell = np.arange(first, last)
        index = np.empty((len(cell), len(self.shape)))
        for j, stride in enumerate(self.strides):
            index[:, j], cell = np.divmod(cell, stride)
        x = self.offset + self.mesh * (self.low + index)
        return x[:, 0] if len(self.shape) == 1 else x

    def place(self, x: Floats) -> Floats:
        """Position (n, m) of stocks (n,) or (n, m) (money of step 0) in the window, in real numbers."""
        return (x.reshape(-1, len(self.shape)) - self.offset) / self.mesh - self.low

    def solve(
        self,
        steps: int,
        horizon: int | None,
        rounding: Rounding,
        rest: Rest | None,
        bound: int,
        with_policy: bool,
    ) -> None:
        """Sweep back from ``steps``; ``bound`` chooses the least (0) or greatest (1) return of the rest."""
        problem, mdp = self.problem, self.problem.mdp
        shifts = [
            _flat(_shift(problem, self.mesh, t, rounding), self.strides)
            for t in (range(steps) if mdp.gamma < 1 else [0])
        ]
        farthest = [int(np.abs(s).max(initial=0)) + 1 for s in shifts]  # of the cells that a step reads
        pad = max(farthest)
        succ = np.where(mdp.terminated, mdp.n_states, mdp.next_state).astype(np.int32)
        width = _kernels.row_width(self.count, pad)
        x = self.stocks(-pad, width - pad)
        value = np.empty((mdp.n_states + 1, width))
        value[:] = problem.utility(x)
        if rest is not None:
            scale = mdp.gamma**steps
            live = np.flatnonzero(~mdp.terminal)
            low, high = x + scale * rest[0][live, None], x + scale * rest[1][live, None]
            value[live] = problem.objective.range_on(low, high, mdp.reward_dim)[bound]
        out = np.empty_like(value)
        out[:] = value[-1]
        self.bands = [self._cells(t, horizon) for t in range(steps)]
        self.policy: list[NDArray[Any]] = []  # of each step, on its band
        transitions, work = (mdp.pair_ptr, mdp.outcome_ptr, mdp.prob, succ), mdp.outcome_ptr[mdp.pair_ptr]
        size = float(np.abs(value[-1]).max())
        tie = _graph.TIE * max(1.0, size)
        if not isinstance(problem.saturation, Saturation):
            # A curved utility may be huge far out, which must not set the tolerance of the stocks that matter.
            tie = _graph.TIE + _ROUNDING * size
        with bar("sweeping", steps) as progress:
            for t in reversed(range(steps)):
                first, last = self.bands[t]
                arrays = (*transitions, shifts[t % len(shifts)], value, pad + first, out)
                policy: tuple[Any, ...] = ()
                if with_policy:
                    layer = np.empty((mdp.n_states, last - first), dtype=_kernels.index_type(mdp.pair_ptr))
                    self.policy.append(layer)
                    policy = layer, tie

                def sweep(
                    box: _kernels.Box, arrays: tuple[Any, ...] = arrays, policy: tuple[Any, ...] = policy
                ) -> None:
                    _kernels.sweep(*arrays, box, *policy)

                _kernels.run_in_boxes(sweep, work, last - first)
                beyond = self._beyond(t, pad, width, farthest[max(0, t - 1) % len(farthest)])
                out[:-1, beyond] = self._outside(x[beyond], t, 0 if horizon is None else horizon - t)
                value, out = out, value
                progress.update()
        self.policy.reverse()
        self.values = value[: mdp.n_states, pad : pad + self.count].copy()

    def _cells(self, t: int, horizon: int | None) -> tuple[int, int]:
        """First and last cell that step ``t`` needs: between saturated stocks, else those that can be reached."""
        low, high = (self.place(end[None, :])[0, 0] for end in band(self.problem, self.starts, t, horizon))
        stride, most = int(self.strides[0]), int(self.shape[0])
        first = int(np.clip(np.floor(low) - self.drift - 1, 0, most - 1))
        last = int(np.clip(np.ceil(high) + self.drift + 2, first + 1, most))
        return first * stride, last * stride

    def _beyond(self, t: int, pad: int, width: int, reads: int) -> Ints:
        """Columns that step ``t`` does not compute and the step before it, which reads so far, may read."""
        if not isinstance(self.problem.saturation, Saturation):
            return np.concatenate([np.arange(pad), np.arange(pad + self.count, width)])
        first, last, low, high = (pad + cell for cell in (*self.bands[t], *self.bands[max(0, t - 1)]))
        return np.concatenate([np.arange(min(first, low - reads), first), np.arange(last, max(last, high + reads))])

    def _outside(self, x: Floats, t: int, left: int) -> Floats:
        """Values beyond the window: saturated, or NaN where no reachable stock looks."""
        problem, mdp = self.problem, self.problem.mdp
        if not isinstance(problem.saturation, Saturation):
            values = np.full((mdp.n_states, len(x)), np.nan)
        else:
            scale = mdp.gamma**t
            stock, state = x[None, :] / scale, np.arange(mdp.n_states)[:, None]
            side = problem.saturation.side(state, stock, left)
            values = problem.saturation.value(state, stock, side, left)
            if problem.saturation.slopes is not None:
                values = scale * values
            values[side == 0] = np.nan
        values[mdp.terminal] = problem.utility(x)
        return values


def strides(shape: Ints) -> Ints:
    """Distance in the row between neighbors along each axis."""
    return np.append(np.cumprod(shape[:0:-1])[::-1], 1).astype(np.int64)


def _flat(shift: NDArray[np.int32], stride: Ints) -> NDArray[np.int32]:
    """Shifts along the row (n,) of shifts of the components (n,) or (n, m)."""
    return np.asarray(shift.reshape(-1, len(stride)) @ stride, dtype=np.int32)


def _shift(problem: Problem, mesh: float, t: int, rounding: Rounding) -> NDArray[np.int32]:
    """Rewards of step ``t`` in mesh units, rounded."""
    steps = problem.mdp.gamma**t * problem.mdp.reward / mesh
    if rounding == "down":
        return np.floor(steps + _SLACK).astype(np.int32)
    if rounding == "up":
        return np.ceil(steps - _SLACK).astype(np.int32)
    return np.rint(steps).astype(np.int32)


def reach(problem: Problem, stocks: Floats, steps: int) -> tuple[Floats, Floats]:
    """Range (m,) of stocks (money of step 0) that can matter: reachable and, at some state and step, not saturated."""
    mdp = problem.mdp
    weights = float(np.sum(mdp.gamma ** np.arange(steps)))
    reward, rows = mdp.reward.reshape(-1, mdp.reward_dim), stocks.reshape(-1, mdp.reward_dim)
    low = rows.min(axis=0) + weights * reward.min(axis=0, initial=0.0)
    high = rows.max(axis=0) + weights * reward.max(axis=0, initial=0.0)
    if isinstance(problem.saturation, Saturation):
        if problem.saturation.linear:
            return rows.min(axis=0), rows.min(axis=0)
        scale = mdp.gamma ** np.arange(len(problem.saturation.least))[::-1, None]
        low = np.maximum(low, float((-problem.saturation.greatest * scale).min()))
        high = np.minimum(high, float((-problem.saturation.least * scale).max()))
    return low, np.maximum(low, high)


def band(problem: Problem, stocks: Floats, t: int, horizon: int | None) -> tuple[Floats, Floats]:
    """Range (m,) of stocks (money of step 0) that matter at step ``t``: between saturated ones, else reachable ones."""
    saturation = problem.saturation
    if not isinstance(saturation, Saturation) or saturation.linear:
        return reach(problem, stocks, t)
    left, live = 0 if horizon is None else horizon - t, ~problem.mdp.terminal
    scale = problem.mdp.gamma**t
    low = scale * float(-saturation.greatest[left, live].max(initial=-np.inf))
    high = scale * float(-saturation.least[left, live].min(initial=np.inf))
    return np.array([low]), np.array([max(low, high)])


def window_cells(problem: Problem, mesh: float, stocks: Floats, steps: int) -> float:
    """Number of stocks of an exact lattice."""
    low, high = reach(problem, stocks, steps)
    return float(np.prod((high - low) / mesh + 3))


def window_bytes(problem: Problem, mesh: float, stocks: Floats, steps: int) -> float:
    """Memory of an exact lattice: two layers of values and the policy."""
    low, high = reach(problem, stocks, steps)
    shape = (high - low) / mesh + 3
    largest = np.abs(problem.mdp.reward.reshape(-1, problem.mdp.reward_dim)).max(axis=0, initial=0.0) / mesh + 1
    pad = float(largest @ np.append(np.cumprod(shape[:0:-1])[::-1], 1.0))
    states, count = problem.mdp.n_states, float(np.prod(shape))
    return states * count * steps + 16 * (states + 1) * (count + 2 * pad)


class WindowTable:
    """Windows of stocks swept over a finite number of steps, exact or with certified rounding."""

    endless = False

    def __init__(
        self, problem: Problem, windows: list[tuple[Window, Window]], steps: int, horizon: int | None,
        rounding: Rounding, error: float, rung: str, returns: Rest | None = None,
    ) -> None:  # fmt: skip
        self.problem, self.windows, self.steps, self.horizon = problem, windows, steps, horizon
        self.rounding, self.error, self.rung = rounding, error, rung
        self.returns = returns
        self.exact = rounding == "exact"
        self.iterations = steps

    @classmethod
    def exact_lattice(cls, problem: Problem, mesh: float, stocks: Floats, horizon: int) -> WindowTable:
        """Gamma = 1 and rewards in multiples of ``mesh``: one window for each offset of the stocks from the lattice."""
        rows = stocks.reshape(-1, problem.mdp.reward_dim)
        offset = rows - np.rint(rows / mesh) * mesh
        offset[np.abs(offset) <= _SLACK * mesh] = 0.0
        _, distinct = np.unique(np.rint(offset / (_SLACK * mesh)), axis=0, return_index=True)
        windows = []
        low, high = reach(problem, stocks, horizon)
        first, last = np.floor(low / mesh).astype(np.int64) - 1, np.ceil(high / mesh).astype(np.int64) + 1
        for one in offset[distinct]:
            window = Window(problem, stocks, one, mesh, first, last - first + 1)
            window.solve(horizon, horizon, "exact", None, 0, with_policy=True)
            windows.append((window, window))
        rung = f"exact: lattice of {_sizes(windows[0][0])} stocks with mesh {mesh:.6g}, {horizon} sweeps"
        return cls(problem, windows, horizon, horizon, "exact", 0.0, rung)

    # ------------------------------------------------------------- reading

    def _choose(self, x: Floats) -> Ints:
        """Number of the window on whose lattice each ``x`` lies (nearest)."""
        if len(self.windows) == 1:
            return np.zeros(len(x), dtype=np.int64)
        places = np.stack([window.place(x) for window, _ in self.windows])
        return np.asarray(np.abs(places - np.rint(places)).max(axis=2).argmin(axis=0))

    def _index(self, window: Window, x: Floats, up: bool = False) -> tuple[Ints, Bools]:
        """Index of each ``x`` in a window, and whether it is one of the window's stocks (or may be rounded to one)."""
        place = window.place(x)
        index = np.rint(place)
        if self.rounding == "down":
            index = np.ceil(place - _SLACK) if up else np.floor(place + _SLACK)
        on = (index >= 0) & (index < window.shape)
        if self.rounding == "exact":
            on &= np.abs(place - index) <= _NEAR + 1e-12 * np.abs(place + window.low)
        inside = np.asarray(on.all(axis=1))
        return np.where(inside, index @ window.strides, 0).astype(np.int64), inside

    def _unreachable(self, x: Floats, t: int) -> Bools:
        """Stocks (money of step 0) that no path from the initial stocks has at step ``t``; nothing is known there."""
        if isinstance(self.problem.saturation, Saturation):
            return np.zeros(len(x), dtype=np.bool_)
        low, high = reach(self.problem, self.windows[0][0].starts, t)
        slack = QUERY * (1.0 + np.maximum(np.abs(low), np.abs(high)))
        rows = x.reshape(-1, len(low))
        return np.asarray(~((rows >= low - slack) & (rows <= high + slack)).all(axis=1))

    def bounds(self, state: Ints, stock: Floats) -> tuple[Floats, Floats]:
        problem = self.problem
        left = self.horizon or 0
        lower, upper = problem.utility(stock), problem.utility(stock)
        live = np.flatnonzero(~problem.mdp.terminal[state])
        side = problem.side(state[live], problem.units.key(stock[live]), left)
        if problem.saturation is not None:
            lower[live] = upper[live] = problem.saturation.value(state[live], stock[live], side, left)
        live = live[side == 0]
        _refuse(state[live], stock[live], 0, self._unreachable(stock[live], 0))
        number = self._choose(stock[live])
        for n, (window, above) in enumerate(self.windows):
            mine = live[number == n]
            down, on = self._index(window, stock[mine])
            up, on_up = self._index(above, stock[mine], up=True)
            _refuse(state[mine], stock[mine], 0, ~(on & on_up))
            lower[mine] = window.values[state[mine], down] - self.error
            upper[mine] = above.values[state[mine], up] + self.error
        if self.returns is not None:  # no bound need be worse than the utility's own range
            least, greatest = (stock[live] + r[state[live]] for r in self.returns)
            low, high = problem.objective.range_on(least, greatest, problem.mdp.reward_dim)
            lower[live], upper[live] = np.maximum(lower[live], low), np.minimum(upper[live], high)
        return lower, upper

    def action(self, state: Ints, stock: Floats, t: int) -> NDArray[np.int32]:
        problem, mdp = self.problem, self.problem.mdp
        action = np.zeros(len(state), dtype=np.int32)
        live = np.flatnonzero(~mdp.terminal[state])
        if t >= self.steps:
            action[live] = mdp.pair_action[mdp.pair_ptr[state[live]]]
            return action
        left = 0 if self.horizon is None else self.horizon - t
        side = problem.side_asked(state[live], stock[live], left, t)
        if problem.saturation is not None:
            action[live] = problem.saturation.action(state[live], side, left)
        live = live[side == 0]
        x = mdp.gamma**t * stock[live]
        _refuse(state[live], stock[live], t, self._unreachable(x, t))
        number = self._choose(x)
        for n, (window, _) in enumerate(self.windows):
            mine = live[number == n]
            index, on = self._index(window, x[number == n])
            _refuse(state[mine], stock[mine], t, ~on)
            choice = window.policy[t][state[mine], index - window.bands[t][0]]
            action[mine] = mdp.pair_action[mdp.pair_ptr[state[mine]] + choice]
        return action

    def side(self, state: Ints, stock: Floats, t: int) -> NDArray[np.int8]:
        """-1 and 1 where the stock matters no more, now and later, being too low or too high; else 0."""
        if self.problem.saturation is None:
            return np.zeros(len(state), dtype=np.int8)
        return self.problem.saturation.side(state, stock, 0 if self.horizon is None else self.horizon - t)

    def rests(self, state: Ints, stock: Floats) -> Bools:
        return np.zeros(len(state), dtype=np.bool_)


def rounded_window(
    problem: Problem,
    stocks: Floats,
    steps: int,
    horizon: int | None,
    rest: Rest | None,
    tol: float | None,
    memory: int,
) -> WindowTable:
    """Certified bounds from rounded shifts, on as fine a mesh as ``tol`` asks for or the memory allows."""
    mdp = problem.mdp
    low, high = reach(problem, stocks, steps)
    low, high = low - 1e-9 * (1 + np.abs(low)), high + 1e-9 * (1 + np.abs(high))
    monotone = problem.objective.nondecreasing
    lipschitz = problem.objective.lipschitz_on(low, high)
    if not monotone and lipschitz is None:
        raise NotOptimizableError(
            f"{problem.objective!r} has too many reachable stocks for an exact table and no Lipschitz constant, so "
            "rounding could not be certified; declare lipschitz=, shorten the horizon, or raise memory="
        )
    work = _WORK if mdp.reward_dim == 1 else _WORK / 2  # the rows of boxes are too long for the caches
    swept = _swept(problem, stocks, steps, horizon)
    room = min(memory / (mdp.n_states * (swept + 48.0)), work / (swept * max(1, mdp.n_outcomes)))
    most = int(room ** (1 / mdp.reward_dim))  # along the longest axis of the window
    while most and np.prod(_box(problem, stocks, steps, (low, high), most)[2]) > room:
        most = int(0.98 * most)
    if most < 64 / mdp.reward_dim:
        raise MemoryLimitError(
            f"even a coarse grid of stocks for {mdp.n_states} states and {steps} steps needs more than "
            f"{memory / 2**20:.0f} MiB or too much work; raise memory=, shorten the horizon, or use fewer states"
        )
    cells = min(most, 1024 if mdp.reward_dim == 1 else 64)
    while True:
        table = _round_once(problem, stocks, steps, horizon, rest, (low, high), cells, lipschitz)
        if cells >= most:
            return table
        every = np.tile(np.arange(len(stocks)), mdp.n_states)
        lower, upper = table.bounds(np.repeat(np.arange(mdp.n_states), len(stocks)), stocks[every])
        size = float(np.abs(lower).max(initial=0.0))
        if float((upper - lower).max()) <= (ENOUGH * size if tol is None else tol):
            return table
        cells = min(most, 4 * cells)


#: Relative gap below which certified bounds are not refined further when no tolerance is asked for.
ENOUGH = 1e-9

#: Updates a certified table may take: a second or two on two cores.
_WORK = 2e9


def _swept(problem: Problem, stocks: Floats, steps: int, horizon: int | None) -> float:
    """What all sweeps together cost, in sweeps over the whole window."""
    low, high = (
        np.stack(ends) for ends in zip(*(band(problem, stocks, t, horizon) for t in range(steps)), strict=True)
    )
    length = (high - low).max(axis=1)
    return float(length.sum() / max(length.max(), 1e-300)) if length.max() > 0 else float(steps)


def _round_once(
    problem: Problem, stocks: Floats, steps: int, horizon: int | None, rest: Rest | None,
    span: tuple[Floats, Floats], cells: int, lipschitz: float | None,
) -> WindowTable:  # fmt: skip
    offset = np.atleast_1d(stocks[0])
    mesh, first, shape, drift = _box(problem, stocks, steps, span, cells)
    monotone = problem.objective.nondecreasing

    def window(rounding: Rounding, bound: int, with_policy: bool) -> Window:
        one = Window(problem, stocks, offset, mesh, first, shape, drift)
        one.solve(steps, horizon, rounding, rest, bound, with_policy)
        return one

    if monotone:
        lower, upper = window("down", 0, True), window("up", 1, False)
        error = (lipschitz or 0.0) * _SLACK * mesh * (steps + 1)
        kind: Rounding = "down"
    else:
        lower = window("nearest", 0, True)
        upper = window("nearest", 1, False) if rest is not None else lower
        norm = problem.objective.norm
        moved = sum(_largest_miss(problem, mesh, t, "nearest", norm) for t in range(steps))
        place = lower.place(stocks)
        moved += mesh * float(_length(problem, place - np.rint(place)).max())
        assert lipschitz is not None
        error, kind = lipschitz * moved, "nearest"
    rung = f"certified: {_sizes(lower)} stocks rounded to a mesh of {mesh:.3g}, {steps} sweeps"
    if rest is None:
        ranges = (return_range_by_step(problem.mdp, sign, steps)[-1] for sign in (-1.0, 1.0))
        rest = -next(ranges), next(ranges)
    return WindowTable(problem, [(lower, upper)], steps, horizon, kind, error, rung, rest)


def _box(
    problem: Problem, stocks: Floats, steps: int, span: tuple[Floats, Floats], cells: int
) -> tuple[float, Ints, Ints, int]:
    """Mesh, first cell and shape of a window, ``cells`` long without the ``drift`` that it leaves room for."""
    mesh = max(float((span[1] - span[0]).max()) / cells, 1e-300)
    ways: tuple[Rounding, ...] = ("down", "up") if problem.objective.nondecreasing else ("nearest",)
    drift = 2 + int(max(sum(_largest_miss(problem, mesh, t, way, np.inf) for t in range(steps)) for way in ways) / mesh)
    offset = np.atleast_1d(stocks[0])
    first = np.floor((span[0] - offset) / mesh).astype(np.int64) - drift
    return mesh, first, np.ceil((span[1] - offset) / mesh).astype(np.int64) + drift - first + 1, drift


def _largest_miss(problem: Problem, mesh: float, t: int, rounding: Rounding, norm: float) -> float:
    """How far the rounding of one step moves a path at most."""
    step = problem.mdp.gamma**t * problem.mdp.reward
    miss = step - mesh * _shift(problem, mesh, t, rounding)
    return float(np.linalg.norm(miss.reshape(-1, problem.mdp.reward_dim), ord=norm, axis=1).max(initial=0.0))


def _length(problem: Problem, x: Floats) -> Floats:
    """Lengths (n,) of vectors (n, m) in the norm of the objective."""
    return problem.objective.length(x, 2)


def _sizes(window: Window) -> str:
    return " x ".join(str(n) for n in window.shape)


def _refuse(state: Ints, stock: Floats, t: int, unknown: Bools) -> None:
    if unknown.any():
        raise unknown_stock(state[unknown][0], stock[unknown][0], t)
