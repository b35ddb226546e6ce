"""Finite return distributions: laws with finitely many atoms, their functionals, projections and distances.

A `Distribution` is a list of atoms `x_i` with probabilities `p_i`. Atoms are numbers, shape (N,), or vectors,
shape (N, m). The quantities are the usual ones, with the lower tail bad:

- distribution function  ``F(x) = P(X <= x)``;
- lower quantile         ``q^-(u) = inf{x : F(x) >= u}``, upper quantile ``q^+(u) = sup{x : P(X < x) <= u}``;
- CVaR                   ``(1/level) * integral of q(u) over 0 < u < level``: the mean of the worst `level`
  fraction;
- optimistic CVaR        the mean of the best `level` fraction, which is ``-CVaR(-X)``;
- expectile              the root `e` of ``level * E(X - e)_+ = (1 - level) * E(e - X)_+``;
- distances              `wasserstein` and `cramer`; projections: `QuantileGrid`, `CategoricalGrid`, `Exact`.

All are computed exactly, up to rounding, from the sorted atoms. Two tolerances are stated once here. Atoms
closer than 1e-12 times the largest absolute atom are one atom. Probability levels closer than 1e-12 times the
smaller of the two tails they cut off are one level, so that ten atoms of probability 0.1 have their
0.3-quantile where it should be. Both tails are summed from their own end, so that an atom of probability
1e-15 is still seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rdolib._atoms import (
    CLOSE,
    FloatArray,
    as_floats,
    as_level,
    as_number,
    as_probabilities,
    checked,
    cluster,
    cumulative,
    merge_scalars,
    merge_vectors,
    plain,
    scale,
    short,
    weighted_sum,
)
from rdolib._projections import CategoricalGrid, Exact, QuantileGrid, Representation
from rdolib._transport import cramer, wasserstein
from rdolib.errors import InvalidArgumentError

__all__ = [
    "CategoricalGrid",
    "Distribution",
    "Exact",
    "QuantileGrid",
    "Representation",
    "cramer",
    "mixture",
    "wasserstein",
]

_NOISE = 1e-14  # of the larger part of a sum: what rounding may leave of a zero


@dataclass(frozen=True, init=False, eq=False, repr=False)
class Distribution:
    """A law with finitely many atoms.

    The constructor brings the law to one form: atoms without probability are dropped, scalar atoms are sorted
    and those closer than 1e-12 times the largest absolute atom are merged into the lowest of them, vector
    atoms are sorted by their first, then second, ... component and exact duplicates are merged. Atoms of
    shape (N, 1) become shape (N,).

    Parameters
    ----------
    atoms : array_like, shape (N,) or (N, m)
        The values, finite, in the unit of the rewards.
    probs : array_like, shape (N,)
        Their probabilities, nonnegative, with sum 1 within 1e-9; a sum off by more than 1e-14 is divided out.
    leftover : float
        Probability mass that was cut off when the law was computed, in [0, 1]. Reported, not used.
    w1_error : float
        Bound on the Wasserstein-1 distance from the law that this one stands for. Reported, not used.

    Raises
    ------
    InvalidArgumentError
        If a value breaks one of the rules above.

    Examples
    --------
    >>> import rdolib as rdo
    >>> nu = rdo.Distribution([4, 0, 1, 0], [0.25, 0.25, 0.25, 0.25])
    >>> nu
    Distribution(3 atoms, mean 1.25, min 0, max 4)
    >>> nu.atoms, nu.probs
    (array([0., 1., 4.]), array([0.5 , 0.25, 0.25]))
    """

    atoms: FloatArray
    probs: FloatArray
    leftover: float = 0.0
    w1_error: float = 0.0

    # Without this line `np.float64(0.5) * nu` would treat `nu` as an array of objects.
    __array_ufunc__ = None

    # The dataclass would type these as arrays; anything that numpy can read is welcome.
    def __init__(self, atoms: ArrayLike, probs: ArrayLike, leftover: float = 0.0, w1_error: float = 0.0) -> None:
        values, weights = checked(atoms, probs)
        values, weights = merge_scalars(values, weights) if values.ndim == 1 else merge_vectors(values, weights)
        values.setflags(write=False)
        weights.setflags(write=False)
        object.__setattr__(self, "atoms", values)
        object.__setattr__(self, "probs", weights)
        object.__setattr__(self, "leftover", as_number(leftover, "leftover", 0.0, 1.0))
        object.__setattr__(self, "w1_error", as_number(w1_error, "w1_error", 0.0, math.inf))

    @property
    def n_atoms(self) -> int:
        """Number of atoms.

        Examples
        --------
        >>> import rdolib as rdo
        >>> rdo.Distribution([0, 1, 1], [0.5, 0.25, 0.25]).n_atoms
        2
        """
        return len(self.probs)

    @property
    def reward_dim(self) -> int:
        """Number of components of an atom: 1 for a scalar law.

        Examples
        --------
        >>> import rdolib as rdo
        >>> rdo.Distribution([[0, 1], [2, 3]], [0.5, 0.5]).reward_dim
        2
        """
        return 1 if self.atoms.ndim == 1 else self.atoms.shape[1]

    # Functionals of scalar and vector laws.

    def mean(self) -> float | FloatArray:
        """Expectation, a float, or shape (m,) for a vector law.

        Examples
        --------
        >>> import rdolib as rdo
        >>> rdo.Distribution([0, 10], [0.75, 0.25]).mean()
        2.5
        """
        return weighted_sum(self.probs, self.atoms)

    def var(self) -> float | FloatArray:
        """Variance (of each component, for a vector law).

        Examples
        --------
        >>> import rdolib as rdo
        >>> rdo.Distribution([0, 10], [0.5, 0.5]).var()
        25.0
        """
        return weighted_sum(self.probs, (self.atoms - self.mean()) ** 2)

    def std(self) -> float | FloatArray:
        """Standard deviation (of each component, for a vector law).

        Examples
        --------
        >>> import rdolib as rdo
        >>> rdo.Distribution([0, 10], [0.5, 0.5]).std()
        5.0
        """
        variance = self.var()
        return math.sqrt(variance) if isinstance(variance, float) else np.sqrt(variance)

    def expect(self, f: Callable[[FloatArray], Any]) -> float:
        """Expectation of ``f(X)``.

        Parameters
        ----------
        f : callable
            Vectorised: shape (N,) to (N,) for a scalar law, (N, m) to (N,) for a vector law. Booleans count
            as 0 and 1.

        Raises
        ------
        InvalidArgumentError
            If `f` returns another shape, or not a number.

        Examples
        --------
        >>> import rdolib as rdo
        >>> nu = rdo.Distribution([-1, 0, 3], [0.25, 0.25, 0.5])
        >>> nu.expect(lambda x: x >= 0)
        0.75
        """
        values = np.asarray(f(self.atoms), dtype=np.float64)
        if values.shape != self.probs.shape:
            raise InvalidArgumentError(
                f"f must be vectorised: atoms of shape {self.atoms.shape} must give values of shape "
                f"{self.probs.shape}, got {values.shape}; use numpy operations that keep the atom axis"
            )
        bad = np.flatnonzero(np.isnan(values))
        if bad.size:
            raise InvalidArgumentError(
                f"f must give a number at every atom; it gives NaN at {short(self.atoms[bad[0]])}; "
                "define f there or leave that atom out of the law"
            )
        return float(weighted_sum(self.probs, values))

    # Functionals of scalar laws.

    @overload
    def cdf(self, x: float) -> float: ...
    @overload
    def cdf(self, x: ArrayLike) -> float | FloatArray: ...
    def cdf(self, x: ArrayLike) -> float | FloatArray:
        """Distribution function ``P(X <= x)``, right-continuous; a scalar law only.

        An `x` within 1e-12 times the largest absolute atom below an atom counts as that atom, so that the
        atom 0.1 + 0.2 is counted by ``cdf(0.3)``.

        Parameters
        ----------
        x : float or array_like
            Where to evaluate; infinite values are welcome.

        Returns
        -------
        float, or array of the shape of `x`

        Examples
        --------
        >>> import rdolib as rdo
        >>> nu = rdo.Distribution([0, 1, 4], [0.5, 0.25, 0.25])
        >>> nu.cdf(1)
        0.75
        >>> nu.cdf([-1, 0, 3.9, 4])
        array([0.  , 0.5 , 0.75, 1.  ])
        """
        self._require_scalar("cdf")
        points = np.asarray(x, dtype=np.float64)
        if np.isnan(points).any():
            raise InvalidArgumentError("cdf needs numbers, got NaN; leave it out")
        count = np.searchsorted(self.atoms, points + CLOSE * scale(self.atoms), side="right")
        return plain(np.concatenate(([0.0], self._below[:-1], [1.0]))[count])

    @overload
    def quantile(self, q: float, side: Literal["lower", "upper"] = "lower") -> float: ...
    @overload
    def quantile(self, q: ArrayLike, side: Literal["lower", "upper"] = "lower") -> float | FloatArray: ...
    def quantile(self, q: ArrayLike, side: Literal["lower", "upper"] = "lower") -> float | FloatArray:
        """Quantile at level `q`; a scalar law only.

        The lower quantile is ``inf{x : F(x) >= q}``, the upper one ``sup{x : P(X < x) <= q}``. They differ
        only where F is flat at height `q`. At level 0 both are the least atom and at level 1 both are the
        largest one. Levels closer to a step of F than 1e-12 times min(q, 1 - q) count as that step.

        Parameters
        ----------
        q : float or array_like
            Levels in [0, 1].
        side : {"lower", "upper"}

        Returns
        -------
        float, or array of the shape of `q`

        Raises
        ------
        InvalidArgumentError
            If a level lies outside [0, 1], or `side` is another word.

        Examples
        --------
        >>> import rdolib as rdo
        >>> nu = rdo.Distribution([0, 1, 4], [0.5, 0.25, 0.25])
        >>> nu.quantile(0.5), nu.quantile(0.5, side="upper")
        (0.0, 1.0)
        """
        self._require_scalar("quantile")
        levels = np.asarray(q, dtype=np.float64)
        bad = levels[~((levels >= 0) & (levels <= 1))]
        if bad.size:
            raise InvalidArgumentError(
                f"quantile levels must lie in [0, 1], got {short(bad[0])}; write five percent as 0.05"
            )
        if side not in ("lower", "upper"):
            raise InvalidArgumentError(f'side must be "lower" or "upper", got {side!r}; choose one of the two')
        return plain(self.atoms[self._quantile_index(levels, side)])

    def cvar(self, level: float) -> float:
        """Conditional value at risk: the mean of the worst `level` fraction; a scalar law only.

        The atom at the edge counts with the part of its probability that is still needed. Level 1 gives the
        mean.

        Parameters
        ----------
        level : float
            In (0, 1].

        Raises
        ------
        InvalidArgumentError
            If `level` lies outside (0, 1].

        Examples
        --------
        >>> import rdolib as rdo
        >>> nu = rdo.Distribution([-10, 0, 4], [0.1, 0.4, 0.5])
        >>> nu.cvar(0.2)  # half -10, half 0
        -5.0
        """
        self._require_scalar("cvar")
        return _tail_mean(self.atoms, self.probs, self._below, as_level(level, "the worst"))

    def optimistic_cvar(self, level: float) -> float:
        """Mean of the best `level` fraction: ``-CVaR(-X)``; a scalar law only.

        Parameters
        ----------
        level : float
            In (0, 1].

        Raises
        ------
        InvalidArgumentError
            If `level` lies outside (0, 1].

        Examples
        --------
        >>> import rdolib as rdo
        >>> nu = rdo.Distribution([-10, 0, 4], [0.1, 0.4, 0.5])
        >>> nu.optimistic_cvar(0.5)
        4.0
        """
        self._require_scalar("optimistic_cvar")
        return _tail_mean(self.atoms[::-1], self.probs[::-1], self._above[::-1], as_level(level, "the best"))

    def expectile(self, level: float) -> float:
        """Expectile: the root `e` of ``level * E(X - e)_+ = (1 - level) * E(e - X)_+``; a scalar law only.

        Level 1/2 gives the mean; lower levels are more careful. Between two neighboring atoms the equation is
        linear, so the root is found exactly: it is the mean of the atoms with weight ``level * p`` above the
        root and ``(1 - level) * p`` below it.

        Parameters
        ----------
        level : float
            In (0, 1), both ends excluded.

        Raises
        ------
        InvalidArgumentError
            If `level` lies outside (0, 1).

        Examples
        --------
        >>> import rdolib as rdo
        >>> nu = rdo.Distribution([0, 10], [0.5, 0.5])
        >>> nu.expectile(0.2)  # 0.2 * (10 - 2) = 0.8 * (2 - 0)
        2.0
        """
        self._require_scalar("expectile")
        level = as_number(level, "level", 0.0, 1.0)
        if level in (0.0, 1.0):
            raise InvalidArgumentError(
                f"level of an expectile must lie strictly between 0 and 1, got {level:g}; "
                "for the least or largest atom use quantile(0) or quantile(1)"
            )
        x = self.atoms - self.mean()  # small numbers, so that little is lost in the sums
        moment_below = cumulative(self.probs * x)
        moment_above = moment_below[-1] - moment_below
        gain = moment_above - self._strictly_above * x  # E(X - x_k)_+
        loss = self._below * x - moment_below  # E(x_k - X)_+
        last_below = np.flatnonzero(level * gain >= (1 - level) * loss)
        cut = int(last_below[-1]) + 1 if last_below.size else 1
        weight = np.where(np.arange(self.n_atoms) < cut, 1 - level, level) * self.probs
        return float((weight * self.atoms).sum() / weight.sum())

    # New laws from old ones.

    def __add__(self, c: Any) -> Distribution:
        """Law of ``X + c``: `c` is a number, or an array of shape (m,) for a vector law.

        A sum within 1e-14 times the larger of its parts from zero is zero.

        Examples
        --------
        >>> import rdolib as rdo
        >>> 3 + rdo.Distribution([0, 1], [0.5, 0.5])
        Distribution(2 atoms, mean 3.5, min 3, max 4)
        """
        if isinstance(c, Distribution):
            return NotImplemented
        shift = as_floats(c, "the shift")
        if shift.shape != self.atoms.shape[1:] or not np.isfinite(shift).all():
            need = "a finite number" if self.atoms.ndim == 1 else f"{self.reward_dim} finite numbers"
            raise InvalidArgumentError(f"a shift of this law must be {need}, got {c!r}; give one number per component")
        atoms = self.atoms + shift
        # What cancels to rounding noise is zero: a threshold that is just met stays met.
        atoms[np.abs(atoms) <= _NOISE * np.maximum(np.abs(self.atoms), np.abs(shift))] = 0.0
        return Distribution(atoms, self.probs, self.leftover, self.w1_error)

    __radd__ = __add__

    def __sub__(self, c: Any) -> Distribution:
        """Law of ``X - c``.

        Examples
        --------
        >>> import rdolib as rdo
        >>> rdo.Distribution([0, 1], [0.5, 0.5]) - 3
        Distribution(2 atoms, mean -2.5, min -3, max -2)
        """
        if isinstance(c, Distribution):
            return NotImplemented
        return self + -as_floats(c, "the shift")

    def __mul__(self, gamma: Any) -> Distribution:
        """Law of ``gamma * X`` for a number `gamma`.

        Examples
        --------
        >>> import rdolib as rdo
        >>> 0.5 * rdo.Distribution([0, 1], [0.5, 0.5])
        Distribution(2 atoms, mean 0.25, min 0, max 0.5)
        """
        if isinstance(gamma, Distribution):
            return NotImplemented
        factor = as_number(gamma, "the factor", -math.inf, math.inf)
        return Distribution(factor * self.atoms, self.probs, self.leftover, abs(factor) * self.w1_error)

    __rmul__ = __mul__

    def __neg__(self) -> Distribution:
        """Law of ``-X``.

        Examples
        --------
        >>> import rdolib as rdo
        >>> -rdo.Distribution([0, 1], [0.5, 0.5])
        Distribution(2 atoms, mean -0.5, min -1, max 0)
        """
        return -1.0 * self

    def project(self, grid: Representation) -> Distribution:
        """The nearest law that the grid can hold, in the sense that the grid defines.

        The Wasserstein-1 distance moved is added to `w1_error` of the result. For vector laws it is the mean
        distance, in the 2-norm, that the split of the grid moves the mass: a bound that needs no transport problem.

        Parameters
        ----------
        grid : QuantileGrid, CategoricalGrid or Exact
            `Exact` gives the law back; a `QuantileGrid` holds scalar laws only.

        Raises
        ------
        InvalidArgumentError
            If atoms lie outside a `CategoricalGrid`; nothing is clipped. If the grid has another dimension.

        Examples
        --------
        >>> import rdolib as rdo
        >>> nu = rdo.Distribution([0, 1, 2, 3], [0.25, 0.25, 0.25, 0.25])
        >>> nu.project(rdo.QuantileGrid(2))
        Distribution(2 atoms, mean 1, min 0, max 2, W1 error 0.5)
        >>> nu.project(rdo.CategoricalGrid(0, 4, 3)).probs  # atoms 0, 2, 4
        array([0.375, 0.5  , 0.125])
        """
        if isinstance(grid, Exact):
            return self
        if not isinstance(grid, QuantileGrid | CategoricalGrid):
            raise InvalidArgumentError(
                f"grid must be Exact(), a QuantileGrid or a CategoricalGrid, got {type(grid).__name__}; "
                "for example nu.project(QuantileGrid(64))"
            )
        image = Distribution(*grid._project(self))
        if isinstance(grid, CategoricalGrid) and self.atoms.ndim == 2:
            moved = grid._split_cost(self)
        else:
            moved = wasserstein(self, image)
        return Distribution(image.atoms, image.probs, self.leftover, self.w1_error + moved)

    def allclose(self, other: Distribution, atol: float = 1e-12) -> bool:
        """Whether two laws agree: pool atoms that `atol` does not separate, then compare probabilities.

        `leftover` and `w1_error` are not compared.

        Parameters
        ----------
        other : Distribution
        atol : float
            Absolute tolerance, for atoms (in every component) and for probabilities.

        Examples
        --------
        >>> import rdolib as rdo
        >>> nu = rdo.Distribution([0.1 + 0.2, 1], [0.5, 0.5])
        >>> nu.allclose(rdo.Distribution([0.3, 1], [0.5, 0.5]))
        True
        """
        if self.atoms.shape[1:] != other.atoms.shape[1:]:
            return False
        pooled = np.concatenate((self.atoms, other.atoms)).reshape(self.n_atoms + other.n_atoms, -1)
        place = cluster(pooled[:, 0], atol)
        for column in pooled.T[1:]:
            pairs = place * len(pooled) + cluster(column, atol)
            place = np.unique(pairs, return_inverse=True)[1]
        surplus = np.bincount(place, weights=np.concatenate((self.probs, -other.probs)))
        return bool(np.abs(surplus).max() <= atol)

    def __repr__(self) -> str:
        dimensions = "" if self.atoms.ndim == 1 else f" in {self.reward_dim} dimensions"
        atoms = f"{self.n_atoms} atom{'s' if self.n_atoms > 1 else ''}{dimensions}"
        mean = np.where(np.abs(self.mean()) < CLOSE * scale(self.atoms), 0.0, self.mean())
        parts = [
            atoms,
            f"mean {short(mean)}",
            f"min {short(self.atoms.min(axis=0))}",
            f"max {short(self.atoms.max(axis=0))}",
        ]
        if self.leftover > 0:
            parts.append(f"leftover {self.leftover:.6g}")
        if self.w1_error > 0:
            parts.append(f"W1 error {self.w1_error:.6g}")
        return f"Distribution({', '.join(parts)})"

    # Private helpers.

    @cached_property
    def _below(self) -> FloatArray:
        """P(X <= x_i), shape (N,), summed from the lower end."""
        return cumulative(self.probs)

    @cached_property
    def _above(self) -> FloatArray:
        """P(X >= x_i), shape (N,), summed from the upper end."""
        return cumulative(self.probs[::-1])[::-1]

    @property
    def _strictly_above(self) -> FloatArray:
        """P(X > x_i), shape (N,)."""
        return np.append(self._above[1:], 0.0)

    def _quantile_index(self, q: FloatArray, side: str) -> NDArray[np.intp]:
        """Index of the quantile atom; levels above 1/2 are read from the upper end."""
        rest = 1.0 - q
        inside = (q > 0) & (q < 1)
        slack = np.where(inside, CLOSE * np.minimum(q, rest) + np.spacing(q), 0.0)
        above = self._above[::-1]  # ascending: P(X >= the largest atom) first
        if side == "lower":
            low = np.searchsorted(self._below, q - slack, side="left")
            high = self.n_atoms - 1 - np.searchsorted(above, rest + slack, side="right")
        else:
            low = np.searchsorted(self._below, q + slack, side="right")
            high = self.n_atoms - 1 - np.searchsorted(above, rest - slack, side="left")
        return np.clip(np.where(q <= 0.5, low, high), 0, self.n_atoms - 1)

    def _require_scalar(self, name: str) -> None:
        if self.atoms.ndim != 1:
            raise InvalidArgumentError(
                f"{name} needs a scalar law; this one has atoms with {self.reward_dim} components; "
                "take one of them with Distribution(nu.atoms[:, 0], nu.probs)"
            )


def mixture(distributions: Sequence[Distribution], weights: ArrayLike) -> Distribution:
    """The law that is `distributions[i]` with probability `weights[i]`.

    Parameters
    ----------
    distributions : sequence of Distribution
        At least one, all of the same dimension.
    weights : array_like
        One nonnegative number for each, with sum 1 within 1e-9.

    Returns
    -------
    Distribution
        Its `leftover` and `w1_error` are the weighted means of theirs.

    Raises
    ------
    InvalidArgumentError
        If the lengths, the dimensions or the weights are wrong.

    Examples
    --------
    >>> import rdolib as rdo
    >>> rdo.mixture([rdo.Distribution([1], [1]), rdo.Distribution([0, 2], [0.5, 0.5])], [0.5, 0.5]).probs
    array([0.25, 0.5 , 0.25])
    """
    laws = list(distributions)
    w = as_probabilities(weights, len(laws), "weights")
    dimensions = sorted({nu.reward_dim for nu in laws})
    if len(dimensions) > 1:
        raise InvalidArgumentError(
            f"the laws of a mixture must have one dimension, got {' and '.join(map(str, dimensions))}; "
            "mix laws of the same reward"
        )
    return Distribution(
        np.concatenate([nu.atoms for nu in laws]),
        np.concatenate([share * nu.probs for share, nu in zip(w, laws, strict=True)]),
        min(1.0, math.fsum(share * nu.leftover for share, nu in zip(w, laws, strict=True))),
        math.fsum(share * nu.w1_error for share, nu in zip(w, laws, strict=True)),
    )


def _tail_mean(atoms: FloatArray, probs: FloatArray, cumulative: FloatArray, level: float) -> float:
    """Mean of the first `level` of probability; the atom at the edge counts in part."""
    before = np.concatenate(([0.0], cumulative[:-1]))
    weight = np.minimum(probs, np.maximum(level - before, 0.0))
    # Dividing by the sum, `level` up to rounding, keeps the result between the atoms. It comes first,
    # because a product with a level near the smallest float would round badly.
    return float((weight / weight.sum() * atoms).sum())
