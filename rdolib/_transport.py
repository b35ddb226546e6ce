"""Distances between laws: Wasserstein, scalar and vector, and Cramér.

- Wasserstein distance  ``W_p(nu, mu)**p = min of E|X - Y|**p`` over all pairs with ``X ~ nu`` and ``Y ~ mu``;
  ``p = inf`` takes the largest ``|X - Y|`` that a best pair still needs. On the line it is
  ``integral of |q_nu(u) - q_mu(u)|**p over 0 < u < 1``, with the quantile functions ``q``.
- Cramér distance       ``(integral of (F_nu(x) - F_mu(x))**2 dx)**(1/2)``, with the distribution functions ``F``;
  scalar laws only.

Between vector laws the minimum is a transport problem. It is solved by the network simplex of POT (Flamary et al.,
2021), an optional dependency that is imported only when it is needed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rdolib._atoms import CLOSE, SUM_ROUNDING, FloatArray, cumulative, scale
from rdolib.errors import InvalidArgumentError

if TYPE_CHECKING:
    from rdolib.distributions import Distribution

_METRICS = {1.0: "cityblock", 2.0: "euclidean", math.inf: "chebyshev"}
_MOST_PIVOTS = 100_000_000  # of the network simplex: enough for any problem that fits into memory


def wasserstein(nu: Distribution, mu: Distribution, p: float = 1, norm: float = 2) -> float:
    """Wasserstein distance of order `p` between two laws, exact up to rounding.

    Between scalar laws the best coupling joins equal quantile levels, so both quantile functions are merged and
    the distance is ``(sum of width * |x - y|**p)**(1/p)`` over the pieces where both are constant; for p =
    infinity the largest ``|x - y|``. Levels within 1e-12 relative of each other are one level, so rounding
    makes no pieces of its own.

    Between vector laws the best coupling is the solution of a transport problem, found by POT. Masses up to 1e-14
    count as rounding there, and POT compares costs ``|x - y|**p`` to about 1e-15 of the largest one: above p = 10 the
    cheapest of a wide range of costs are a blur to it, and the result may be too large. For p = infinity the distance
    is the smallest `d` such that all mass can travel at most `d`, found by bisection, exact again.

    Parameters
    ----------
    nu, mu : Distribution
        Two scalar laws, or two vector laws with the same number of components.
    p : float
        Order, at least 1; `math.inf` is welcome.
    norm : 1, 2 or inf
        The norm that measures how far a vector atom travels; all three are ``|x - y|`` for numbers.

    Raises
    ------
    InvalidArgumentError
        If p < 1, another norm is named, or the laws have different dimensions.
    ImportError
        If the laws are vectors and POT is not installed.

    Examples
    --------
    >>> import rdolib as rdo
    >>> nu = rdo.Distribution([0, 2], [0.5, 0.5])
    >>> rdo.wasserstein(nu, nu + 3), rdo.wasserstein(nu, rdo.Distribution([0], [1]), p=float("inf"))
    (3.0, 2.0)
    """
    order, metric = _order(p), _metric(norm)
    if nu.reward_dim != mu.reward_dim:
        raise InvalidArgumentError(
            f"the two laws must have the same dimension, got {nu.reward_dim} and {mu.reward_dim}; "
            "compare laws of the same reward"
        )
    if nu.atoms.ndim == 2:
        return _between_vectors(nu, mu, order, metric)
    low_width, i, j = _common_pieces(nu.probs, mu.probs)
    high_width, k, m = _common_pieces(nu.probs[::-1], mu.probs[::-1])
    lower = nu.atoms[i] - mu.atoms[j]
    upper = nu.atoms[::-1][k] - mu.atoms[::-1][m]
    return _power_mean(np.abs(np.concatenate((lower, upper))), np.concatenate((low_width, high_width)), order)


def cramer(nu: Distribution, mu: Distribution) -> float:
    """Cramér distance between two scalar laws: the L2 distance between their distribution functions, exact.

    ``(integral of (F_nu(x) - F_mu(x))**2 dx)**(1/2)``, a sum over the intervals between neighboring atoms, where both
    functions are constant. Its unit is the square root of the unit of the rewards: translation by a large `c` moves a
    law by about ``sqrt(|c|)``, not by ``|c|``.

    Parameters
    ----------
    nu, mu : Distribution
        Scalar laws.

    Raises
    ------
    InvalidArgumentError
        If a law has vector atoms.

    Examples
    --------
    >>> import rdolib as rdo
    >>> rdo.cramer(rdo.Distribution([0], [1]), rdo.Distribution([0, 4], [0.5, 0.5]))
    1.0
    """
    if not nu.atoms.ndim == mu.atoms.ndim == 1:
        raise InvalidArgumentError(
            f"cramer needs scalar laws, got dimensions {nu.reward_dim} and {mu.reward_dim}; "
            "compare one component, or use wasserstein"
        )
    points = np.sort(np.concatenate((nu.atoms, mu.atoms)))
    gap = np.asarray(nu.cdf(points)) - np.asarray(mu.cdf(points))
    return math.sqrt(float((np.diff(points) * gap[:-1] ** 2).sum()))


def _order(p: Any) -> float:
    try:
        order = float(p)
    except (TypeError, ValueError):
        order = math.nan
    if not order >= 1:
        raise InvalidArgumentError(
            f"the order p of a Wasserstein distance must be at least 1, got {p!r}; use 1, 2 or inf"
        )
    return order


def _metric(norm: Any) -> str:
    """The name that scipy gives to the distance of this norm."""
    if norm not in _METRICS:
        raise InvalidArgumentError(f"norm must be 1, 2 or inf, got {norm!r}; choose one of the three")
    return _METRICS[norm]


def _power_mean(distance: FloatArray, width: FloatArray, order: float) -> float:
    """``(sum of width * distance**order)**(1/order)``, or the largest distance for order infinity."""
    largest = float(distance.max())
    if largest == 0 or order == math.inf:
        return largest
    # Divide by the largest distance first: powers of it may overflow.
    return largest * float((width * (distance / largest) ** order).sum() ** (1 / order))


def _between_vectors(nu: Distribution, mu: Distribution, order: float, metric: str) -> float:
    transport = _network_simplex()
    unit = max(scale(nu.atoms), scale(mu.atoms)) or 1.0  # squares of large atoms may overflow
    from scipy.spatial.distance import cdist  # not at import: it would double the import time

    distance = unit * cdist(nu.atoms / unit, mu.atoms / unit, metric)
    if order == math.inf:
        return _bottleneck(transport, nu.probs, mu.probs, distance)
    largest = float(distance.max())
    if largest == 0:
        return 0.0
    plan = transport(nu.probs, mu.probs, (distance / largest) ** order)
    # Masses that differ by rounding send crumbs across; a high order would make them count.
    used = plan > SUM_ROUNDING
    return _power_mean(distance[used], plan[used], order)


def _bottleneck(transport: Callable[..., Any], a: FloatArray, b: FloatArray, distance: FloatArray) -> float:
    """Smallest distance such that a plan exists that sends no mass any further."""
    reach = np.unique(distance)
    crumbs = SUM_ROUNDING * (len(a) + len(b))
    low, high = 0, len(reach) - 1
    while low < high:
        middle = (low + high) // 2
        too_far = (distance > reach[middle]).astype(np.float64)
        if float((transport(a, b, too_far) * too_far).sum()) <= crumbs:
            high = middle
        else:
            low = middle + 1
    return float(reach[low])


def _network_simplex() -> Callable[[FloatArray, FloatArray, FloatArray], FloatArray]:
    """The solver ``(a (N,), b (M,), cost (N, M)) -> optimal plan (N, M)`` of POT."""
    try:
        import ot
    except ImportError:
        raise ImportError(
            "distances between vector laws are transport problems, which POT solves; "
            "install it with: pip install 'rdolib[transport]'"
        ) from None

    def solve(a: FloatArray, b: FloatArray, cost: FloatArray) -> FloatArray:
        return np.asarray(ot.emd(a, b * (a.sum() / b.sum()), cost, numItermax=_MOST_PIVOTS), dtype=np.float64)

    return solve


def _common_pieces(p: FloatArray, q: FloatArray) -> tuple[FloatArray, NDArray[np.intp], NDArray[np.intp]]:
    """Cut the levels (0, 1/2) where two laws step: widths of the pieces and the atom of each law on them."""
    below_p, below_q = cumulative(p), cumulative(q)
    levels = np.sort(np.concatenate((below_p[below_p < 0.5], below_q[below_q < 0.5], [0.5])))
    keep = np.append(np.diff(levels) > CLOSE * levels[1:], True)
    levels = levels[keep]
    width = np.diff(levels, prepend=0.0)
    middle = levels - width / 2
    return width, np.searchsorted(below_p, middle), np.searchsorted(below_q, middle)
