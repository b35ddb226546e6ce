"""Many laws at once, in one representation, and one distributional Bellman backup of all of them.

A row stands for the law of a return. The backup of a row follows its edges: with probability ``prob`` the reward
``reward`` comes first and the law of row ``to`` comes after it, discounted,

    eta_new(i) = Pi law of R + gamma G',        G' ~ eta(to),        to = -1: nothing comes after.

``Pi`` projects the mixture onto the representation. It reports what it moved: an upper bound of the Wasserstein-1
distance between the mixture and the row, which is what every certified error in the library is made of.

* `QuantileRows`: N equally likely atoms a row, scalar.
* `CategoricalRows`: probabilities on one grid, scalar or vector.
* `ExactRows`: every atom, scalar or vector; nothing is moved.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from rdolib import _kernels
from rdolib._atoms import CLOSE
from rdolib._graph import ranges, total
from rdolib._projections import CategoricalGrid, Exact, QuantileGrid, Representation
from rdolib.distributions import Distribution
from rdolib.errors import InvalidArgumentError, MemoryLimitError
from rdolib.mdp import MDP
from rdolib.stock import return_range

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Probability beyond the ends of a grid that is put at the ends, and its way added to the error. More is refused.
OUTSIDE = 1e-9
#: Numbers that one intermediate array may hold.
_CHUNK = 2**22
#: Relative closeness below which two exact atoms are one: some rounding, and well below what a value is exact to.
_SAME = 1e-14
#: Atoms that all rows of an exact representation may have together.
_MOST_ATOMS = 4_000_000


@dataclass(frozen=True)
class Edges:
    """Where rows lead: row ``i`` has the edges ``ptr[i]:ptr[i + 1]``; ``reward`` is (E,) or (E, m)."""

    ptr: Ints
    to: Ints
    prob: Floats
    reward: Floats

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.ptr) - 1

    @cached_property
    def row(self) -> Ints:
        """The row (E,) of each edge."""
        return np.repeat(np.arange(self.n_rows), np.diff(self.ptr))

    def mean(self, x: Floats, ended: float = 0.0) -> Floats:
        """``E x(to)`` for every row, where ``x`` is (rows one step later,)."""
        known = np.append(x, ended)
        return total(self.row, self.prob * known[self.to], self.n_rows)

    @classmethod
    def points(cls, x: Floats) -> Edges:
        """Rows that pay ``x`` and end."""
        n = len(x)
        return cls(np.arange(n + 1), np.full(n, -1), np.ones(n), x)


class Rows(Protocol):
    """A representation of many laws. The type of ``laws`` is its own; ``Floats`` or `Ragged`."""

    @property
    def exact(self) -> bool:
        """Whether nothing is ever moved."""

    def empty(self) -> Any:
        """No rows."""

    def backup(self, edges: Edges, gamma: float, laws: Any) -> tuple[Any, Floats]:
        """The rows one step earlier, and what the projection moved in each (n,)."""

    def expect(self, laws: Any, f: Any, stock: Floats) -> Floats:
        """``E f(stock + G)`` (n,) of every row, for a vectorized ``f`` and stocks (n,) or (n, m)."""

    def stack(self, parts: list[Any]) -> Any:
        """The rows of several laws, one after the other."""

    def take(self, laws: Any, index: Ints) -> Any:
        """Some of the rows."""

    def same(self, one: Any, other: Any) -> bool:
        """Whether all rows agree to the last bit."""

    def law(self, laws: Any, i: int, leftover: float = 0.0, w1_error: float = 0.0) -> Distribution:
        """One row."""


def rows_of(representation: Representation, mdp: MDP) -> Rows:
    """The rows of a representation; `InvalidArgumentError` when it cannot hold the rewards' dimension."""
    if isinstance(representation, Exact):
        return ExactRows(mdp.reward_dim)
    if isinstance(representation, QuantileGrid):
        if mdp.reward_dim > 1:
            raise InvalidArgumentError(
                f"a QuantileGrid holds scalar laws and the MDP has reward_dim = {mdp.reward_dim}; use "
                "CategoricalGrid(low, high, n) with one number per component, or Exact()"
            )
        return QuantileRows(representation.n)
    if isinstance(representation, CategoricalGrid):
        if representation.reward_dim != mdp.reward_dim:
            raise InvalidArgumentError(
                f"the grid has {representation.reward_dim} component(s) and the MDP has reward_dim = {mdp.reward_dim}; "
                "give low, high and n one number per component"
            )
        return CategoricalRows(representation, mdp)
    raise InvalidArgumentError(
        "representation must be None, QuantileGrid(n), CategoricalGrid(low, high, n) or Exact(); "
        f"got {representation!r}"
    )


class _DenseRows:
    """What rows of equal length share."""

    n: int
    exact = False

    def empty(self) -> Floats:
        return np.empty((0, self.n))

    def stack(self, parts: list[Floats]) -> Floats:
        return np.concatenate(parts)

    def take(self, laws: Floats, index: Ints) -> Floats:
        return laws[index]

    def same(self, one: Floats, other: Floats) -> bool:
        return bool((one == other).all())

    def _run(self, kernel: Any, edges: Edges) -> list[Any]:
        """Call a kernel on boxes of rows, in parallel where that pays; its answers."""
        answers: list[Any] = []

        def work(box: tuple[int, int, int, int]) -> None:
            if box[2] == 0:  # few rows come as boxes that differ in their columns only, and here a row is one piece
                answers.append(kernel((box[0], box[1])))

        _kernels.run_in_boxes(work, edges.ptr, _LOAD * self.n)
        return answers


#: An atom of a quantile or categorical backup costs this many updates of the sweep that `run_in_boxes` was tuned on.
_LOAD = 8


class QuantileRows(_DenseRows):
    """Laws (n, N): N equally likely atoms, ascending."""

    def __init__(self, n: int) -> None:
        self.n = n

    def backup(self, edges: Edges, gamma: float, laws: Floats) -> tuple[Floats, Floats]:
        out, error = np.empty((edges.n_rows, self.n)), np.empty(edges.n_rows)

        def work(box: tuple[int, int]) -> None:
            _kernels.quantile_backup(edges.ptr, edges.to, edges.prob, edges.reward, gamma, laws, out, error, box)

        self._run(work, edges)
        return out, error

    def expect(self, laws: Floats, f: Any, stock: Floats) -> Floats:
        return _by_chunks(len(laws), self.n, lambda i: f(stock[i, None] + laws[i]).mean(axis=1))

    def law(self, laws: Floats, i: int, leftover: float = 0.0, w1_error: float = 0.0) -> Distribution:
        return Distribution(laws[i], np.full(self.n, 1.0 / self.n), leftover, w1_error)


class CategoricalRows(_DenseRows):
    """Laws (n, N): probabilities of the points of a grid."""

    def __init__(self, grid: CategoricalGrid, mdp: MDP) -> None:
        self.grid, self.mdp = grid, mdp
        self.atoms = grid.atoms
        self.n = len(self.atoms)
        self._moves: dict[tuple[float, ...], _Move] = {}

    def backup(self, edges: Edges, gamma: float, laws: Floats) -> tuple[Floats, Floats]:
        if self.grid.reward_dim > 1:
            return self._backup_vectors(edges, gamma, laws)
        out, error = np.empty((edges.n_rows, self.n)), np.empty(edges.n_rows)
        low, step = float(self.grid.low), (self.grid.high - self.grid.low) / (self.n - 1)

        def work(box: tuple[int, int]) -> tuple[float, float, float]:
            answer = _kernels.categorical_backup(
                edges.ptr, edges.to, edges.prob, edges.reward, gamma, low, step, laws, out, error, box
            )
            return float(answer[0]), float(answer[1]), float(answer[2])

        answers = self._run(work, edges)
        mass = max(a[0] for a in answers)
        least, greatest = min(a[1] for a in answers), max(a[2] for a in answers)
        self._require_inside(mass, np.array([least]), np.array([greatest]))
        return out, error + mass * max(self.grid.low - least, greatest - self.grid.high, 0.0)

    def _require_inside(self, mass: float, least: Floats, greatest: Floats) -> None:
        if mass <= OUTSIDE:
            return
        # All returns of the MDP, where they have ends; otherwise what has been seen so far.
        ends = -return_range(self.mdp, -1.0).min(axis=0), return_range(self.mdp, 1.0).max(axis=0)
        if np.isfinite(ends).all():
            least, greatest = np.minimum(least, ends[0]), np.maximum(greatest, ends[1])
        shown = []
        for end in (np.minimum(least, self.grid.low), np.maximum(greatest, self.grid.high)):
            numbers = ", ".join(f"{v:.6g}" for v in end)
            shown.append(f"({numbers})" if len(end) > 1 else numbers)
        raise InvalidArgumentError(
            f"the grid cannot hold the returns: mass {mass:.6g} of one of the laws lies beyond its ends; widen it to "
            f"low={shown[0]}, high={shown[1]}, and leave a cell of room on both sides, because the projection spreads "
            "laws by up to a cell"
        )

    def _backup_vectors(self, edges: Edges, gamma: float, laws: Floats) -> tuple[Floats, Floats]:
        """One matrix for each distinct reward moves a row of probabilities; edges add the moved rows up."""
        from scipy.sparse import csr_array  # not at import: it would double the import time

        out, error = np.zeros((edges.n_rows, self.n)), np.zeros(edges.n_rows)
        rewards, kind = np.unique(edges.reward, axis=0, return_inverse=True)
        kind = kind.reshape(-1)
        least, greatest = self.atoms[0].copy(), self.atoms[-1].copy()
        outside = np.zeros(edges.n_rows)
        known = np.vstack([laws, np.zeros(self.n)])
        for r, reward in enumerate(rewards):
            for ended in (False, True):
                e = np.flatnonzero((kind == r) & ((edges.to < 0) == ended))
                if len(e) == 0:
                    continue
                move = self._move(reward, 0.0 if ended else gamma, ended)
                source = np.ones((1, 1)) if ended else known
                column = np.zeros(len(e), dtype=np.int64) if ended else edges.to[e]
                gather = csr_array((edges.prob[e], (edges.row[e], column)), shape=(edges.n_rows, len(source)))
                weight = gather @ source
                out += weight @ move.matrix
                error += weight @ move.cost
                outside += weight @ move.outside
                if (weight @ move.outside).max() > 0:
                    least, greatest = np.minimum(least, move.least), np.maximum(greatest, move.greatest)
        self._require_inside(float(outside.max(initial=0.0)), least, greatest)
        return out, error

    def _move(self, reward: Floats, gamma: float, ended: bool) -> _Move:
        key = (*reward.tolist(), gamma)
        if key not in self._moves:
            start = np.zeros((1, len(reward))) if ended else self.atoms
            self._moves[key] = _Move.of(self.grid, reward + gamma * start)
        return self._moves[key]

    def expect(self, laws: Floats, f: Any, stock: Floats) -> Floats:
        def part(i: slice) -> Floats:
            return np.asarray((laws[i] * f(stock[i, None] + self.atoms)).sum(axis=1))

        return _by_chunks(len(laws), self.n, part)

    def law(self, laws: Floats, i: int, leftover: float = 0.0, w1_error: float = 0.0) -> Distribution:
        return Distribution(self.atoms, laws[i], leftover, w1_error)


@dataclass(frozen=True)
class _Move:
    """What the projection does to the points ``x`` (N, m) of a moved grid."""

    matrix: Any  # (N, N') sparse: shares of the corners
    cost: Floats  # how far the split moves each point, on average, in the 2-norm
    outside: Floats  # 1 where the point lies beyond the grid (it is put at its end)
    least: Floats
    greatest: Floats

    @classmethod
    def of(cls, grid: CategoricalGrid, x: Floats) -> _Move:
        from scipy.sparse import csr_array

        axes = grid._axes
        low, high = np.array([a[0] for a in axes]), np.array([a[-1] for a in axes])
        near = CLOSE * np.maximum(np.abs(low), np.abs(high))
        outside = ((x < low - near) | (x > high + near)).any(axis=1)
        inside = np.clip(x, low, high)
        place, share = grid._split(cast(Distribution, _Points(inside)))
        point = np.broadcast_to(np.arange(len(x)), place.shape)
        matrix = csr_array((share.ravel(), (point.ravel(), place.ravel())), shape=(len(x), len(grid.atoms)))
        distance = np.linalg.norm(grid.atoms[place] - x, axis=-1)
        return cls(matrix, (share * distance).sum(axis=0), outside.astype(np.float64), x.min(axis=0), x.max(axis=0))


@dataclass(frozen=True)
class Ragged:
    """Laws of different lengths: row ``i`` has the atoms ``ptr[i]:ptr[i + 1]``."""

    ptr: Ints
    atoms: Floats
    probs: Floats


class ExactRows:
    """Laws with all their atoms, ascending in each row."""

    exact = True

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def empty(self) -> Ragged:
        shape = (0,) if self.dim == 1 else (0, self.dim)
        return Ragged(np.zeros(1, dtype=np.int64), np.empty(shape), np.empty(0))

    def backup(self, edges: Edges, gamma: float, laws: Ragged) -> tuple[Ragged, Floats]:
        goes = np.flatnonzero(edges.to >= 0)
        atom, owner = ranges(laws.ptr[edges.to[goes]], laws.ptr[edges.to[goes] + 1])
        if len(atom) > _MOST_ATOMS:
            raise MemoryLimitError(
                f"representation=Exact() keeps every atom, and here they are {len(atom)}; pass a shorter horizon=, or "
                "representation=QuantileGrid(n) or CategoricalGrid(low, high, n)"
            )
        ended = np.flatnonzero(edges.to < 0)
        edge = np.concatenate([goes[owner], ended])
        after = np.concatenate([gamma * laws.atoms[atom], np.zeros((len(ended), *laws.atoms.shape[1:]))])
        probs = edges.prob[edge] * np.concatenate([laws.probs[atom], np.ones(len(ended))])
        return _merged(edges.row[edge], edges.reward[edge] + after, probs, edges.n_rows), np.zeros(edges.n_rows)

    def expect(self, laws: Ragged, f: Any, stock: Floats) -> Floats:
        row = np.repeat(np.arange(len(stock)), np.diff(laws.ptr))
        return total(row, laws.probs * f(stock[row] + laws.atoms), len(stock))

    def stack(self, parts: list[Ragged]) -> Ragged:
        counts = np.concatenate([np.diff(p.ptr) for p in parts])
        return Ragged(
            np.concatenate([[0], np.cumsum(counts)]),
            np.concatenate([p.atoms for p in parts]),
            np.concatenate([p.probs for p in parts]),
        )

    def take(self, laws: Ragged, index: Ints) -> Ragged:
        atom, _ = ranges(laws.ptr[index], laws.ptr[index + 1])
        counts = np.diff(laws.ptr)[index]
        return Ragged(np.concatenate([[0], np.cumsum(counts)]), laws.atoms[atom], laws.probs[atom])

    def same(self, one: Ragged, other: Ragged) -> bool:
        return all(np.array_equal(a, b) for a, b in zip(vars(one).values(), vars(other).values(), strict=True))

    def law(self, laws: Ragged, i: int, leftover: float = 0.0, w1_error: float = 0.0) -> Distribution:
        part = slice(laws.ptr[i], laws.ptr[i + 1])
        return Distribution(laws.atoms[part], laws.probs[part], leftover, w1_error)


def _merged(row: Ints, x: Floats, p: Floats, n_rows: int) -> Ragged:
    """Sort the atoms of every row and merge those that differ by rounding only."""
    columns = x[:, None] if x.ndim == 1 else x
    near = _SAME * np.abs(columns).max(axis=0, initial=0.0)
    # Components are rounded before they are compared: equal vectors must sort next to each other.
    keys = np.rint(columns / np.where(near > 0, near, 1.0)) if x.ndim > 1 else columns
    order = np.lexsort((*keys.T[::-1], row))
    row, x, p, keys = row[order], x[order], p[order], keys[order]
    gap = np.abs(np.diff(keys, axis=0)) > (near if x.ndim == 1 else 1.0)
    first = np.concatenate([[True], (np.diff(row) != 0) | gap.any(axis=1)]) if len(row) else np.empty(0, dtype=bool)
    start = np.flatnonzero(first)
    count = np.bincount(row[start], minlength=n_rows)
    merged = np.add.reduceat(p, start) if len(start) else p
    return Ragged(np.concatenate([[0], np.cumsum(count)]), x[start], merged)


@dataclass(frozen=True)
class _Points:
    """What the grid's own split looks at: many points at once, as if they were one law."""

    atoms: Floats

    @property
    def n_atoms(self) -> int:
        return len(self.atoms)

    @property
    def reward_dim(self) -> int:
        return int(self.atoms.shape[1])

    @property
    def probs(self) -> Floats:
        return np.ones(len(self.atoms))


def _by_chunks(n: int, width: int, part: Any) -> Floats:
    size = max(1, _CHUNK // width)
    pieces = [part(slice(first, first + size)) for first in range(0, n, size)]
    return np.concatenate(pieces) if pieces else np.empty(0)
