"""Pictures of results: return distributions, frontiers, plans on a map or over the stock.

Every function draws on a matplotlib Axes, its own unless one is given, and returns it. Nothing is solved
here; every number drawn belongs to the result or is an average of the MDP's own rewards. The pictures are made
to be read on a phone: small figures, few words, large type. No meaning rests on color alone: laws and paths also
differ in line style and marker, arrows in direction, and the colors are those of Okabe and Ito (2008), which
color-blind readers tell apart.

`import rdolib` does not import this module, because matplotlib is slow to load; write
``from rdolib import plotting``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.ticker import NullFormatter, StrMethodFormatter
from numpy.typing import ArrayLike, NDArray

from rdolib.distributions import Distribution
from rdolib.errors import InvalidArgumentError
from rdolib.mdp import MDP, Grid

__all__ = ["action_names", "frontier", "grid_plan", "policy_by_stock", "returns", "stock_plane"]

FloatArray = NDArray[np.float64]

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
MARKERS = ("o", "s", "^", "D", "v", "P")

_MOST_BARS = 40  # laws with more atoms are drawn by their distribution function
_INK = "#333333"
_PALE = "#8c8c8c"
# Cells of a map: free, goal, hazard, wall.
_CELLS = ListedColormap(["#ffffff", "#d5efe5", "#f9ddcb", "#5a5a5a"])
_FREE, _GOAL, _HAZARD, _WALL = range(4)
_MOVE_NAMES = {(-1, 0): "up", (1, 0): "down", (0, -1): "left", (0, 1): "right"}


class Policy(Protocol):
    """What is drawn of a policy: the actions it takes."""

    def actions(self, states: Any, stocks: Any, t: int = 0) -> NDArray[Any]:
        """Actions at `states` (n,) with `stocks` (n,) or (n, m), at time `t`."""


class Frontier(Protocol):
    """What is drawn of a frontier: one value, and one certified interval, for each level."""

    @property
    def levels(self) -> Any:
        """Risk levels, (n,)."""

    @property
    def values(self) -> Any:
        """Objective values, (n,)."""


def returns(
    laws: Distribution | Mapping[str, Distribution],
    ax: Axes | None = None,
    kind: Literal["pmf", "cdf"] | None = None,
    mean: bool = False,
    cvar: float | None = None,
) -> Axes:
    """Draw one return distribution, or several over each other.

    Parameters
    ----------
    laws : Distribution or mapping from label to Distribution
        Scalar laws, at most six.
    ax : Axes, optional
        Where to draw.
    kind : {"pmf", "cdf"}, optional
        "pmf": a bar for each atom, or a stem where several laws share the picture. "cdf": the distribution
        function. By default bars while every law has at most 40 atoms.
    mean : bool
        Mark the mean of each law.
    cvar : float, optional
        Mark the CVaR of each law at this level.

    Returns
    -------
    Axes

    Raises
    ------
    InvalidArgumentError
        If a law has vector atoms, there are no laws or too many, or `kind` is another word.

    Examples
    --------
    >>> import rdolib as rdo
    >>> from rdolib import plotting
    >>> ax = plotting.returns(rdo.Distribution([-10, 0, 4], [0.1, 0.4, 0.5]), mean=True, cvar=0.2)
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('return', 'probability')
    """
    named = {"": laws} if isinstance(laws, Distribution) else dict(laws)
    _check_laws(named)
    if kind is None:
        kind = "pmf" if max(nu.n_atoms for nu in named.values()) <= _MOST_BARS else "cdf"
    if kind not in ("pmf", "cdf"):
        raise InvalidArgumentError(f'kind must be "pmf" or "cdf", got {kind!r}; choose one of the two')
    ax = ax or _new_axes(5.0, 3.2)
    low = min(nu.atoms[0] for nu in named.values())
    high = max(nu.atoms[-1] for nu in named.values())
    span = float(high - low) or 1.0
    for i, (label, nu) in enumerate(named.items()):
        if kind == "cdf":
            _draw_cdf(ax, nu, i, label, low - 0.05 * span, high + 0.05 * span)
        elif len(named) == 1:
            _draw_bars(ax, nu, label, span)
        else:
            _draw_stems(ax, nu, i, label)
    ax.set_xlim(low - 0.08 * span, high + 0.08 * span)
    ax.set_ylim(0, 1.02 if kind == "cdf" else 1.1 * max(nu.probs.max() for nu in named.values()))
    ax.set_xlabel("return")
    ax.set_ylabel("P(return ≤ x)" if kind == "cdf" else "probability")
    if mean:
        _mark(ax, [float(nu.mean()) for nu in named.values()], "D", "mean")
    if cvar is not None:
        _mark(ax, [nu.cvar(cvar) for nu in named.values()], "v", f"CVaR {cvar:g}")
    _legend_above(ax)
    return ax


def frontier(front: Frontier, ax: Axes | None = None) -> Axes:
    """Draw the best objective value for each risk level.

    The axis of the levels is logarithmic when they span two powers of ten or more. Where the front has
    ``bounds``, a pair (lower, upper) for each level, and they are apart, the certified interval is shaded.

    Parameters
    ----------
    front : Frontier
        As `rdolib.frontier` returns it; ``levels``, ``values`` and, if there are any, ``bounds`` are read.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> from rdolib import plotting
    >>> ax = plotting.frontier(SimpleNamespace(levels=[0.01, 0.1, 1.0], values=[-9.0, -4.0, -3.0]))
    >>> ax.get_xscale()
    'log'
    """
    levels = np.asarray(front.levels, dtype=np.float64)
    values = np.asarray(front.values, dtype=np.float64)
    order = np.argsort(levels)
    levels, values = levels[order], values[order]
    ax = ax or _new_axes(5.0, 3.2)
    bounds = getattr(front, "bounds", None)
    if bounds is not None:
        lower, upper = np.asarray(bounds, dtype=np.float64)[order].T
        if (upper - lower > 1e-9 * (1 + np.abs(values))).any():
            ax.fill_between(levels, lower, upper, color=COLORS[0], alpha=0.25, lw=0, label="certified interval")
            _legend_above(ax)
    marker = MARKERS[0] if len(levels) <= _MOST_BARS else ""
    ax.plot(levels, values, color=COLORS[0], marker=marker, ms=4)
    if levels[0] > 0 and levels[-1] >= 100 * levels[0]:
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("risk level")
    ax.set_ylabel("objective value")
    return ax


def grid_plan(
    mdp: MDP,
    policy: Policy | None = None,
    stock: ArrayLike = 0.0,
    t: int = 0,
    paths: Mapping[str, Sequence[int]] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a gridworld, what a policy does in it at one stock, and paths through it.

    Walls are dark, S is the start, a star the goal and a cross a hazard: a hole, a pit, the cliff. Cells with
    another letter keep it. The line under the map says so.

    Parameters
    ----------
    mdp : MDP
        With a map: made by `MDP.from_grid`, or from FrozenLake or CliffWalking.
    policy : Policy, optional
        Its action at `stock` is an arrow in each cell where it has a choice to make.
    stock : float or (m,) array_like
        The stock of the arrows, the same in all cells.
    t : int
        The time of the arrows; it matters only for policies that change with time.
    paths : mapping from label to states, optional
        At most six sequences of states. Each is drawn a little beside the others, with a marker at its end; a
        jump (back to the start, for example) leaves a gap.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        Columns along x, rows downwards along y, the first cell at (0, 0).

    Raises
    ------
    InvalidArgumentError
        If the MDP has no map, or a path names a state that it lacks.

    Examples
    --------
    >>> import rdolib as rdo
    >>> from rdolib import plotting
    >>> mdp = rdo.MDP.from_grid("S..G")
    >>> ax = plotting.grid_plan(mdp, paths={"straight": [0, 1, 2, 3]})
    >>> ax.get_xlabel()
    'S start   ★ goal'
    """
    grid = mdp.grid
    if grid is None:
        raise InvalidArgumentError(
            "grid_plan needs an MDP with a map, and this one has none; "
            "use MDP.from_grid, or MDP.from_gymnasium with FrozenLake or CliffWalking"
        )
    named = dict(paths or {})
    _check_paths(named, mdp.n_states)
    rows, columns = grid.shape
    ax = ax or _new_axes(*_map_size(rows, columns, bool(named)))
    codes = _cell_codes(mdp, grid)
    caption = _draw_map(ax, grid, codes, busy=bool(named))
    if policy is not None:
        _draw_arrows(ax, mdp, grid, codes, policy, stock, t, pale=bool(named))
        when = f", time {t}" if t else ""
        caption += f"\n→ action at stock {_written(stock)}{when}"
    for i, (label, states) in enumerate(named.items()):
        _draw_path(ax, grid, states, label, i, len(named))
    _legend_above(ax)
    ax.set_xlabel(caption)
    return ax


def policy_by_stock(
    policy: Policy,
    state: int,
    stocks: ArrayLike,
    t: int = 0,
    names: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the action that a policy takes in one state, for each stock.

    Parameters
    ----------
    policy : Policy
        For a scalar stock.
    state : int
        The state.
    stocks : (n,) array_like
        The stocks to ask for.
    t : int
        The time; it matters only for policies that change with time.
    names : sequence of str, optional
        A name for each action number. For maps, ``plotting.action_names(mdp)`` has them.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes

    Examples
    --------
    >>> import numpy as np
    >>> from rdolib import plotting
    >>> class Careful:  # plays safe once it has earned something
    ...     def actions(self, states, stocks, t=0):
    ...         return np.where(stocks > 0, 0, 1)
    >>> ax = plotting.policy_by_stock(Careful(), 0, [-1, 0, 1, 2], names=["safe", "bold"])
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['safe', 'bold']
    """
    asked = np.sort(np.asarray(stocks, dtype=np.float64))
    actions = np.asarray(policy.actions(np.full(asked.shape, state), asked, t))
    taken = np.unique(actions)
    ax = ax or _new_axes(5.0, 1.1 + 0.45 * max(2, len(taken)))
    # One row for each action taken: action numbers are names, so their distances mean nothing.
    row = np.searchsorted(taken, actions)
    ax.plot(asked, row, color=_PALE, lw=0.8, drawstyle="steps-mid", zorder=1)
    for i, _ in enumerate(taken):
        here = row == i
        marker = MARKERS[i % len(MARKERS)]
        ax.plot(asked[here], row[here], ls="", marker=marker, ms=5, color=COLORS[i % len(COLORS)])
    ax.set_yticks(range(len(taken)), [str(a) if names is None else names[int(a)] for a in taken])
    ax.set_ylim(-0.6, len(taken) - 0.4)
    ax.set_xlabel("stock")
    ax.set_ylabel(f"action in state {state}")
    return ax


def stock_plane(
    mdp: MDP,
    policy: Policy,
    state: int,
    first: ArrayLike,
    second: ArrayLike,
    t: int = 0,
    names: Sequence[str] | None = None,
    paths: Mapping[str, ArrayLike] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw what a policy does to a stock of two components, as a field of arrows over the stock plane.

    At each stock an arrow shows the change of stock to be expected in one step, ``(c + E R)/gamma - c``, under
    the action taken there. Arrows are centered on their stock and drawn to one scale: the longest fills the gap
    to the next stock. A star marks zero, the set point.

    Parameters
    ----------
    mdp : MDP
        With ``reward_dim=2``.
    policy : Policy
        For its stocks.
    state : int
        The state, not a terminal one.
    first, second : (n,) and (k,) array_like
        The stocks to ask for, component by component, in reward units; at least two of each.
    t : int
        The time; it matters only for policies that change with time.
    names : sequence of str, optional
        A name for each action number, for the legend.
    paths : mapping from label to (steps, 2) array_like, optional
        At most six paths of the stock, for example ``runs.paths.stocks[0]`` of a roll-out, each with a marker at
        its end. With paths the arrows are pale.
    ax : Axes, optional
        Where to draw.

    Returns
    -------
    Axes
        First component along x, second along y.

    Raises
    ------
    InvalidArgumentError
        If rewards do not have two components, the state is not one or is terminal, there are fewer than two
        stocks along an axis, or paths are too many or of another shape.

    Examples
    --------
    >>> import numpy as np
    >>> import rdolib as rdo
    >>> from rdolib import plotting
    >>> mdp = rdo.MDP.from_outcomes({0: {0: [(1.0, 0, (1, 0), False)], 1: [(1.0, 0, (0, 1), False)]}})
    >>> stocks = [(x, y) for x in range(-3, 1) for y in range(-3, 1)]
    >>> policy = rdo.value_iteration(mdp, rdo.Homeostasis(), stock=stocks, horizon=3).policy
    >>> ax = plotting.stock_plane(mdp, policy, 0, range(-3, 1), range(-3, 1), names=["drink", "eat"])
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['drink', 'eat']
    """
    x, y = (np.unique(np.asarray(one, dtype=np.float64)) for one in (first, second))
    named = {label: np.asarray(path, dtype=np.float64) for label, path in (paths or {}).items()}
    _check_plane(mdp, state, x, y, named)
    stocks = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    states = np.full(len(stocks), state)
    actions = np.asarray(policy.actions(states, stocks, t))
    change = (stocks + _mean_reward(mdp, states, actions)) / mdp.gamma - stocks
    gap = float(min(np.diff(x).min(), np.diff(y).min()))
    ax = ax or _new_axes(4.2, 4.2)
    _draw_field(ax, stocks, change, actions, names, gap, pale=bool(named))
    for i, (label, path) in enumerate(named.items()):
        ax.plot(
            *path.T, color=COLORS[-1 - i], linestyle=LINES[i], lw=2.0, marker=MARKERS[i], markevery=[-1], label=label
        )
    ax.plot(0, 0, "*", ms=13, color="white", markeredgecolor="black", zorder=4)
    ax.set_aspect("equal")
    ax.set_xlim(x[0] - 0.7 * gap, x[-1] + 0.7 * gap)
    ax.set_ylim(y[0] - 0.7 * gap, y[-1] + 0.7 * gap)
    ax.set_xlabel("first stock")
    ax.set_ylabel("second stock")
    _legend_above(ax)
    return ax


def action_names(mdp: MDP) -> tuple[str, ...]:
    """Name the actions of a gridworld by where they aim: "up", "right", "down" or "left".

    Parameters
    ----------
    mdp : MDP
        With a map.

    Returns
    -------
    tuple of str
        A name for each action number; the number itself where there is no other.

    Examples
    --------
    >>> import rdolib as rdo
    >>> from rdolib import plotting
    >>> plotting.action_names(rdo.MDP.from_grid("S.G"))
    ('up', 'right', 'down', 'left')
    """
    moves = () if mdp.grid is None else mdp.grid.moves
    return tuple(
        _MOVE_NAMES.get(moves[action], str(action)) if action < len(moves) else str(action)
        for action in range(mdp.n_actions)
    )


# ------------------------------------------------------------------ return distributions


def _draw_bars(ax: Axes, nu: Distribution, label: str, span: float) -> None:
    gap = float(np.diff(nu.atoms).min()) if nu.n_atoms > 1 else span
    # A bar that belongs to its atom alone, yet never too thin to see.
    ax.bar(nu.atoms, nu.probs, width=max(0.8 * min(gap, 0.1 * span), 0.01 * span), color=COLORS[0], label=label)


def _draw_stems(ax: Axes, nu: Distribution, i: int, label: str) -> None:
    ax.vlines(nu.atoms, 0, nu.probs, color=COLORS[i], linestyle=LINES[i], lw=1.6)
    filled = COLORS[i] if i % 2 == 0 else "white"
    ax.plot(
        nu.atoms,
        nu.probs,
        ls="",
        marker=MARKERS[i],
        ms=6,
        color=COLORS[i],
        markerfacecolor=filled,
        label=label,
    )


def _draw_cdf(ax: Axes, nu: Distribution, i: int, label: str, low: float, high: float) -> None:
    x = np.concatenate(([low], nu.atoms, [high]))
    y = np.concatenate(([0.0], np.asarray(nu.cdf(nu.atoms)), [1.0]))
    ax.plot(x, y, drawstyle="steps-post", color=COLORS[i], linestyle=LINES[i], lw=1.8, label=label)


def _mark(ax: Axes, places: Sequence[float], marker: str, word: str) -> None:
    """Draw a thin line across the picture for each law, with a marker where it meets the axis."""
    for i, x in enumerate(places):
        ax.axvline(x, color=COLORS[i], linestyle=LINES[i], lw=0.9, zorder=0)
        ax.plot(x, 0, marker=marker, ms=9, color=COLORS[i], markeredgecolor="white", clip_on=False, zorder=5)
    ax.plot([], [], ls="", marker=marker, ms=7, color=_PALE, label=word)


# ------------------------------------------------------------------ maps


def _cell_codes(mdp: MDP, grid: Grid) -> NDArray[np.int64]:
    """What each cell is, (rows, columns): free, goal, hazard or wall."""
    letters = np.array([list(line) for line in grid.lines])
    codes = np.full(letters.shape, _FREE)
    codes[letters == "G"] = _GOAL
    codes[np.isin(letters, ("H", "X"))] = _HAZARD
    # C is CliffWalking's cliff: whoever steps there is back at the start, so no move ends there. On other
    # maps the letter may mean anything.
    entered = np.isin(grid.states, mdp.next_state)
    codes[(letters == "C") & ~entered] = _HAZARD
    codes[grid.states < 0] = _WALL
    return codes


def _draw_map(ax: Axes, grid: Grid, codes: NDArray[np.int64], busy: bool) -> str:
    """Draw cells and their signs; return the words that explain them. On a busy map the star makes room."""
    rows, columns = grid.shape
    ax.imshow(codes, cmap=_CELLS, vmin=0, vmax=len(_CELLS.colors) - 1, interpolation="nearest")  # type: ignore[arg-type]
    ax.set_xticks(np.arange(columns + 1) - 0.5, [])
    ax.set_yticks(np.arange(rows + 1) - 0.5, [])
    ax.grid(True, color="#bbbbbb", lw=0.6)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(True)
    cell = _cell_points(ax, rows, columns)
    for (row, column), code in np.ndenumerate(codes):
        letter = {_GOAL: "★", _HAZARD: "×", _WALL: ""}.get(int(code), grid.lines[row][column])
        if code == _HAZARD or (code == _GOAL and not busy):
            ax.text(column, row, letter, ha="center", va="center", fontsize=0.6 * cell, color=_INK)
        elif letter not in ".F":  # in the corner, beside the arrow
            ax.text(column - 0.44, row - 0.46, letter, va="top", fontsize=0.36 * cell, weight="bold")
    words = {"S start": any("S" in line for line in grid.lines)}
    words |= {"★ goal": (codes == _GOAL).any(), "× hazard": (codes == _HAZARD).any()}
    return "   ".join(word for word, used in words.items() if used)


def _draw_arrows(
    ax: Axes,
    mdp: MDP,
    grid: Grid,
    codes: NDArray[np.int64],
    policy: Policy,
    stock: ArrayLike,
    t: int,
    pale: bool,
) -> None:
    """Draw an arrow in each free cell that is not terminal; the arrows of one action are one line."""
    free = codes[grid.cells[:, 0], grid.cells[:, 1]] == _FREE
    states = np.flatnonzero(free & ~mdp.terminal)
    shape = (len(states),) if mdp.reward_dim == 1 else (len(states), mdp.reward_dim)
    actions = np.asarray(policy.actions(states, np.broadcast_to(np.asarray(stock, dtype=np.float64), shape), t))
    for action, move in enumerate(grid.moves):
        rows, columns = grid.cells[states[actions == action]].T
        if not len(rows):
            continue
        down, right = np.array(move) / max(1.0, float(np.hypot(*move)))
        # The pen's way along and across the direction of an arrow: tail, tip, one barb, tip, other barb.
        along, across = np.array([[-0.3, 0], [0.3, 0], [0.08, 0.2], [0.3, 0], [0.08, -0.2], [np.nan, np.nan]]).T
        x = columns[:, None] + along * right - across * down
        y = rows[:, None] + along * down + across * right
        ax.plot(
            x.ravel(),
            y.ravel(),
            color=_PALE if pale else _INK,
            lw=1.2 if pale else 1.8,
            solid_capstyle="round",
            solid_joinstyle="round",
            label=f"_action {action}",
            zorder=2,
        )


def _draw_path(ax: Axes, grid: Grid, states: Sequence[int], label: str, i: int, count: int) -> None:
    beside = 0.16 * (i - (count - 1) / 2) if count > 1 else 0.0
    cells = grid.cells[np.asarray(states, dtype=np.int64)].astype(np.float64)
    jumps = np.flatnonzero(np.abs(np.diff(cells, axis=0)).sum(axis=1) > 1) + 1
    y, x = np.insert(cells, jumps, np.nan, axis=0).T + beside
    ax.plot(
        x,
        y,
        color=COLORS[i],
        linestyle=LINES[i],
        lw=2.4,
        marker=MARKERS[i],
        markevery=[len(x) - 1],
        ms=7,
        label=label,
        zorder=3,
    )


def _map_size(rows: int, columns: int, legend: bool) -> tuple[float, float]:
    """Width and height of a figure for a map, in inches."""
    width = min(max(0.6 * columns, 3.2), 5.2)
    return width, width * rows / columns + 0.55 + 0.35 * legend


def _cell_points(ax: Axes, rows: int, columns: int) -> float:
    """Width of a cell in points, so that signs fit in it."""
    box = ax.get_window_extent()
    return min(box.width / columns, box.height / rows) * 72 / ax.figure.dpi


# ------------------------------------------------------------------ the plane of two stocks


def _draw_field(
    ax: Axes,
    stocks: FloatArray,
    change: FloatArray,
    actions: NDArray[np.integer[Any]],
    names: Sequence[str] | None,
    gap: float,
    pale: bool,
) -> None:
    """Draw an arrow at each stock (n, 2), one set of arrows for each action; the longest is as long as the gap."""
    longest = float(np.hypot(*change.T).max()) or 1.0
    for action in np.unique(actions).tolist():
        here = actions == action
        ax.quiver(
            *stocks[here].T,
            *change[here].T,
            color=COLORS[action % len(COLORS)],
            alpha=0.3 if pale else 1.0,
            angles="xy",
            scale_units="xy",
            scale=longest / (0.9 * gap),
            pivot="mid",
            width=0.007,
            label=f"_action {action}" if names is None else names[action],
        )


def _mean_reward(mdp: MDP, states: NDArray[np.int64], actions: NDArray[np.integer[Any]]) -> FloatArray:
    """Expected reward (n, m) of each state and action."""
    weighted = mdp.prob[:, None] * mdp.reward
    return np.asarray(np.add.reduceat(weighted, mdp.outcome_ptr[:-1]))[mdp.pair_index(states, actions)]


def _check_plane(mdp: MDP, state: int, x: FloatArray, y: FloatArray, named: Mapping[str, FloatArray]) -> None:
    if mdp.reward_dim != 2:
        raise InvalidArgumentError(
            f"stock_plane draws stocks of two components, and the MDP has reward_dim = {mdp.reward_dim}; "
            "for one component use policy_by_stock"
        )
    if not len(mdp.actions(state)):
        raise InvalidArgumentError(f"state {state} is terminal, so no action is taken there; draw another state")
    if min(len(x), len(y)) < 2:
        raise InvalidArgumentError(
            f"stock_plane needs at least two different stocks along each axis, got {len(x)} and {len(y)}"
        )
    if len(named) > len(COLORS):
        raise InvalidArgumentError(f"stock_plane draws at most {len(COLORS)} paths, got {len(named)}; draw fewer")
    for label, path in named.items():
        if path.ndim != 2 or path.shape[1] != 2 or not len(path):
            raise InvalidArgumentError(f"path {label!r} must have shape (steps, 2), got {path.shape}")


# ------------------------------------------------------------------ common


def _new_axes(width: float, height: float) -> Axes:
    _, ax = plt.subplots(figsize=(width, height), layout="constrained")
    return ax


def _legend_above(ax: Axes) -> None:
    """Put the legend over the picture, where it hides nothing; no legend where nothing has a name."""
    count = len(ax.get_legend_handles_labels()[0])
    if count:
        columns = 2 if count == 4 else min(count, 3)
        ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, frameon=False, handlelength=2.8)


def _written(stock: ArrayLike) -> str:
    values = np.asarray(stock, dtype=np.float64)
    text = ", ".join(f"{v:.6g}" for v in values.ravel()).replace("-", "−")
    return f"({text})" if values.ndim else text


def _check_laws(named: Mapping[str, Distribution]) -> None:
    if not 1 <= len(named) <= len(COLORS):
        raise InvalidArgumentError(
            f"returns draws one to {len(COLORS)} laws, got {len(named)}; spread them over several pictures"
        )
    for label, nu in named.items():
        if nu.reward_dim > 1:
            raise InvalidArgumentError(
                f"returns draws scalar laws, and {label or 'this one'} has {nu.reward_dim} components; "
                "draw Distribution(nu.atoms[:, 0], nu.probs), and so on"
            )


def _check_paths(named: Mapping[str, Sequence[int]], n_states: int) -> None:
    if len(named) > len(COLORS):
        raise InvalidArgumentError(f"grid_plan draws at most {len(COLORS)} paths, got {len(named)}; draw fewer")
    for label, states in named.items():
        bad = [s for s in states if not 0 <= s < n_states]
        if bad or not len(states):
            what = f"names state {bad[0]}" if bad else "is empty"
            raise InvalidArgumentError(f"path {label!r} {what}; give at least one state between 0 and {n_states - 1}")
