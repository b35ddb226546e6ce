"""What a table of laws can hold: every atom, `n` equally likely atoms, or any weights on a fixed grid.

A projection moves a law to one that its grid can hold. How far it can move a law supported on ``[low, high]``, in
Wasserstein-1 distance, is the number `w1_bound`. By the contraction of the distributional Bellman operator this
number, over ``1 - gamma``, bounds what the representation costs in policy evaluation.

Sources: Bellemare, Dabney and Munos (2017) for the categorical split; Dabney et al. (2018) for quantile midpoints;
Rowland et al. (2018) for the categorical split as a projection in Cramér distance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rdolib._atoms import CLOSE, FloatArray, as_floats, as_number, check_count, scale, short
from rdolib.errors import InvalidArgumentError

if TYPE_CHECKING:
    from rdolib.distributions import Distribution


@dataclass(frozen=True)
class Exact:
    """Every atom is kept. Nothing is lost, and the number of atoms grows with the number of possible returns.

    Examples
    --------
    >>> import rdolib as rdo
    >>> rdo.Distribution([0, 1], [0.5, 0.5]).project(rdo.Exact())
    Distribution(2 atoms, mean 0.5, min 0, max 1)
    """

    def w1_bound(self, low: ArrayLike, high: ArrayLike) -> float:
        """Largest W1 distance that the projection moves a law on ``[low, high]``: 0.

        Examples
        --------
        >>> import rdolib as rdo
        >>> rdo.Exact().w1_bound(0, 1)
        0.0
        """
        _box(low, high)
        return 0.0


@dataclass(frozen=True)
class QuantileGrid:
    """`n` atoms of probability 1/n each, anywhere on the line: the quantile representation of scalar laws.

    The projection puts the atoms at the lower quantiles of the midpoints ``taus = (i + 1/2) / n``. No law
    with `n` equally likely atoms is nearer in Wasserstein-1 distance (Dabney et al., 2018). The mean may move.

    Parameters
    ----------
    n : int
        Number of atoms, at least 1.

    Examples
    --------
    >>> import rdolib as rdo
    >>> rdo.QuantileGrid(4).taus
    array([0.125, 0.375, 0.625, 0.875])
    """

    n: int

    def __post_init__(self) -> None:
        check_count(self.n, "QuantileGrid", 1)

    @property
    def taus(self) -> FloatArray:
        """The midpoint levels, shape (n,).

        Examples
        --------
        >>> import rdolib as rdo
        >>> rdo.QuantileGrid(1).taus
        array([0.5])
        """
        return (np.arange(self.n) + 0.5) / self.n

    def w1_bound(self, low: float, high: float) -> float:
        """Largest W1 distance that the projection moves a law on ``[low, high]``: ``(high - low) / (2 n)``.

        Proof: on the levels from i/n to (i+1)/n the quantile function rises by some ``d_i`` and is replaced by its
        value at the midpoint. On each half, of width 1/(2n), it is off by at most its rise there, which makes at most
        ``d_i / (2 n)``, and the ``d_i`` sum to at most ``high - low``. Attained by `low` with probability 1/(2n), else
        `high`. Derived here.

        Parameters
        ----------
        low, high : float
            Ends of the interval that holds the law.

        Examples
        --------
        >>> import rdolib as rdo
        >>> rdo.QuantileGrid(4).w1_bound(0, 1), rdo.Distribution([0, 1], [1 / 8, 7 / 8]).project(rdo.QuantileGrid(4))
        (0.125, Distribution(2 atoms, mean 0.75, min 0, max 1, W1 error 0.125))
        """
        bottom, top = _box(low, high)
        if len(bottom) > 1:
            raise InvalidArgumentError(_NO_VECTORS)
        return float(top[0] - bottom[0]) / (2 * self.n)

    def _project(self, nu: Distribution) -> tuple[FloatArray, FloatArray]:
        if nu.atoms.ndim == 2:
            raise InvalidArgumentError(_NO_VECTORS)
        return nu.atoms[nu._quantile_index(self.taus, "lower")], np.full(self.n, 1.0 / self.n)


_NO_VECTORS = (
    "a QuantileGrid holds scalar laws only, because vectors have no quantiles; "
    "use CategoricalGrid(low, high, n) with one number per component"
)


@dataclass(frozen=True)
class CategoricalGrid:
    """Equally spaced atoms from `low` to `high`, with any probabilities: the categorical representation.

    The projection splits the probability of an atom between its two neighbors on the grid so that its mean stays, as
    in Bellemare et al. (2017); the result is the law on the grid nearest in Cramér distance (Rowland et al., 2018).
    For vector laws the grid is the product of one such grid per component, and the split is the product of the splits
    of the components, over the corners of a cell: the mean of every component stays. An atom on the grid stays whole
    (on the grid means within 1e-12 of the largest grid value of that component). Nothing is clipped.

    Parameters
    ----------
    low, high : float, or sequence of m floats
        The ends, finite, low < high (in every component).
    n : int, or sequence of m ints
        Number of atoms (of every component), at least 2. Where one of the three is a sequence, a single number in
        another counts for every component.

    Examples
    --------
    >>> import rdolib as rdo
    >>> rdo.CategoricalGrid(-1, 1, 5).atoms
    array([-1. , -0.5,  0. ,  0.5,  1. ])
    >>> grid = rdo.CategoricalGrid([0, 0], [1, 2], n=2)
    >>> grid.atoms.tolist()
    [[0.0, 0.0], [0.0, 2.0], [1.0, 0.0], [1.0, 2.0]]
    >>> rdo.Distribution([[0.5, 2.0]], [1.0]).project(grid).probs  # (0, 2) and (1, 2)
    array([0.5, 0.5])
    """

    low: Any
    high: Any
    n: Any

    def __post_init__(self) -> None:
        lengths = {len(x) for x in (self.low, self.high, self.n) if np.ndim(x) > 0}
        if len(lengths) > 1 or any(np.ndim(x) > 1 for x in (self.low, self.high, self.n)) or 0 in lengths:
            raise InvalidArgumentError(
                "low, high and n must be single numbers or sequences of one length, got "
                f"low {self.low!r}, high {self.high!r}, n {self.n!r}; give one number per component"
            )
        m = max(lengths, default=1)
        columns = [x if np.ndim(x) else [x] * m for x in (self.low, self.high, self.n)]
        for low, high, n in zip(*columns, strict=True):
            _check_axis(low, high, n)
        for name, column in zip(("low", "high", "n"), columns, strict=True):
            numbers = tuple((int if name == "n" else float)(x) for x in column)
            object.__setattr__(self, name, numbers if m > 1 else numbers[0])

    @property
    def reward_dim(self) -> int:
        """Number of components m of the laws that the grid can hold.

        Examples
        --------
        >>> import rdolib as rdo
        >>> rdo.CategoricalGrid([0, 0], [1, 2], n=2).reward_dim
        2
        """
        return np.size(self.n)

    @property
    def atoms(self) -> FloatArray:
        """The grid points in ascending order: shape (n,), or (product of n, m), the last component fastest.

        Examples
        --------
        >>> import rdolib as rdo
        >>> rdo.CategoricalGrid(0, 1, 2).atoms
        array([0., 1.])
        """
        axes = self._axes
        return axes[0] if len(axes) == 1 else np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(axes))

    def w1_bound(self, low: ArrayLike, high: ArrayLike) -> float:
        """Largest W1 distance that the projection moves a law on ``[low, high]``: half a cell, or half its diagonal.

        Proof: by convexity an atom is the worst law. The atom x at the fractions ``u_j`` of a cell with sides ``h_j``
        moves to a random corner with mean x, in the 2-norm by at most the root of its variance, which is
        ``(sum of u_j (1 - u_j) h_j**2)**(1/2) <= (sum of h_j**2)**(1/2) / 2``. Attained by an atom in the middle of a
        cell, as all corners are that far away. Derived here.

        Parameters
        ----------
        low, high : float, or m floats
            Ends of the interval (box) that holds the law; the grid must cover it.

        Raises
        ------
        InvalidArgumentError
            If the grid does not cover the interval.

        Examples
        --------
        >>> import rdolib as rdo
        >>> rdo.CategoricalGrid(0, 4, 3).w1_bound(0, 4), rdo.CategoricalGrid([0, 0], [3, 4], 2).w1_bound([0, 0], [3, 4])
        (1.0, 2.5)
        """
        bottom, top = _box(low, high)
        axes = self._axes
        if len(bottom) != len(axes):
            raise InvalidArgumentError(self._wrong_dimension(len(bottom)))
        for low_j, high_j, grid, place in zip(bottom, top, axes, self._places, strict=True):
            near = CLOSE * scale(grid)
            if low_j < grid[0] - near or high_j > grid[-1] + near:
                raise InvalidArgumentError(
                    f"the grid must cover the law: it runs from {short(grid[0])} to {short(grid[-1])}, "
                    f"the law from {short(low_j)} to {short(high_j)}{place}; widen it"
                )
        return math.hypot(*((grid[-1] - grid[0]) / (len(grid) - 1) for grid in axes)) / 2

    @property
    def _axes(self) -> list[FloatArray]:
        ends = np.broadcast_to(self.low, self.reward_dim), np.broadcast_to(self.high, self.reward_dim)
        sizes = np.broadcast_to(self.n, self.reward_dim)
        return [np.linspace(low, high, n) for low, high, n in zip(*ends, sizes, strict=True)]

    @property
    def _places(self) -> list[str]:
        """How messages name the components; a single one needs no name."""
        return [f" in component {j}" for j in range(self.reward_dim)] if self.reward_dim > 1 else [""]

    def _wrong_dimension(self, m: int) -> str:
        return (
            f"the grid has {self.reward_dim} component{'s' * (self.reward_dim > 1)} and the law has {m}; "
            "give low, high and n one number per component of the reward"
        )

    def _project(self, nu: Distribution) -> tuple[FloatArray, FloatArray]:
        """Atoms and probabilities of the image: only the points of the grid that are used."""
        place, share = self._split(nu)
        used, inverse = np.unique(place, return_inverse=True)
        probs = np.bincount(inverse.ravel(), weights=(share * nu.probs).ravel()).astype(np.float64)
        axes = self._axes
        index = np.unravel_index(used, [len(grid) for grid in axes])
        atoms = np.stack([grid[i] for grid, i in zip(axes, index, strict=True)], axis=-1)
        return atoms if len(axes) > 1 else atoms[:, 0], probs

    def _split_cost(self, nu: Distribution) -> float:
        """What the split itself moves in the 2-norm: an upper bound of the W1 distance from the image."""
        place, share = self._split(nu)
        axes = self._axes
        index = np.unravel_index(place, [len(grid) for grid in axes])
        offset = [grid[i] - x for grid, i, x in zip(axes, index, nu.atoms.T, strict=True)]
        return float((share * nu.probs * np.sqrt(sum(d * d for d in offset))).sum())

    def _split(self, nu: Distribution) -> tuple[NDArray[np.intp], FloatArray]:
        """For every corner of its cell (2**m rows) and every atom: its place on the grid, and the share it gets."""
        if nu.reward_dim != self.reward_dim:
            raise InvalidArgumentError(self._wrong_dimension(nu.reward_dim))
        axes = self._axes
        columns = nu.atoms.reshape(nu.n_atoms, -1).T
        splits = [
            _axis_split(x, nu.probs, grid, place) for x, grid, place in zip(columns, axes, self._places, strict=True)
        ]
        sizes = [len(grid) for grid in axes]
        places, shares = [], []
        for corner in product((0, 1), repeat=len(axes)):
            index = [left + side for side, (left, _) in zip(corner, splits, strict=True)]
            places.append(np.ravel_multi_index(index, sizes))
            part = [right if side else 1 - right for side, (_, right) in zip(corner, splits, strict=True)]
            shares.append(np.prod(part, axis=0))
        return np.array(places), np.array(shares)


Representation = Exact | QuantileGrid | CategoricalGrid


def _axis_split(x: FloatArray, p: FloatArray, grid: FloatArray, place: str) -> tuple[NDArray[np.intp], FloatArray]:
    """The left neighbor on the grid of every number, and the share of its mass that goes to the right one."""
    near = CLOSE * scale(grid)
    _check_inside(x, p, grid, near, place)
    left = np.clip(np.searchsorted(grid, x, side="right") - 1, 0, len(grid) - 2)
    right_share = np.clip((x - grid[left]) / (grid[left + 1] - grid[left]), 0.0, 1.0)
    right_share[x - grid[left] <= near] = 0.0
    right_share[grid[left + 1] - x <= near] = 1.0
    return left, right_share


def _check_inside(x: FloatArray, p: FloatArray, grid: FloatArray, near: float, place: str) -> None:
    low, high = grid[0], grid[-1]
    below = float(p[x < low - near].sum())
    above = float(p[x > high + near].sum())
    if below == 0 and above == 0:
        return
    parts = [f"mass {below:.6g} lies below {low:.6g}"] * (below > 0)
    parts += [f"mass {above:.6g} lies above {high:.6g}"] * (above > 0)
    raise InvalidArgumentError(
        f"the grid must cover the law: {' and '.join(parts)}{place}; "
        f"widen it to low={min(low, x.min()):.6g}, high={max(high, x.max()):.6g} or beyond"
    )


def _check_axis(low: Any, high: Any, n: Any) -> None:
    low, high = as_number(low, "low", -math.inf, math.inf), as_number(high, "high", -math.inf, math.inf)
    if not low < high:
        raise InvalidArgumentError(f"low must be less than high, got low {low:g} and high {high:g}; swap or widen them")
    check_count(n, "CategoricalGrid", 2)


def _box(low: ArrayLike, high: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """The ends as arrays of shape (m,)."""
    bottom, top = np.atleast_1d(as_floats(low, "low")), np.atleast_1d(as_floats(high, "high"))
    if bottom.shape != top.shape or bottom.ndim != 1 or not (np.isfinite(bottom) & np.isfinite(top)).all():
        raise InvalidArgumentError(
            f"low and high must be finite and equally long, got {low!r} and {high!r}; give one number per component"
        )
    if (bottom > top).any():
        raise InvalidArgumentError(f"low must not exceed high, got low {low!r} and high {high!r}; swap them")
    return bottom, top
