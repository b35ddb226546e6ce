"""Statistical functionals of a return, and the properties that decide how they can be planned for.

An objective ``K`` maps the law of a real random variable ``X`` to a number. Two properties matter:

* *indifference to mixtures*: if ``K(nu_i) >= K(mu_i)`` for all ``i`` then ``K(sum p_i nu_i) >= K(sum p_i mu_i)``;
* *indifference to gamma*: if ``K(nu) >= K(mu)`` then ``K(gamma nu) >= K(gamma mu)``, where ``gamma nu`` is the law
  of ``gamma X``. It is needed only when the discount is below one and the horizon is infinite; with a finite
  horizon the library puts time into the state instead.

Expected utilities ``K(nu) = E f(X)`` have the first property for every ``f``, and the second when ``f`` is
positively homogeneous, ``f(g x) = g**p f(x)``. For these, dynamic programming on states augmented with a stock ``c``
finds the policy that maximizes ``E f(c + G)`` at every state and stock at once.

`CVaR` lacks the first property. It is reached from an expected utility by an outer search over the initial stock,

    max_pi CVaR_tau(G) = max_b { b + max_pi E min(G - b, 0) / tau },        c0 = -b.

Sources: Ávila Pires et al. (2025), for the two conditions; Rockafellar and Uryasev (2000), for CVaR as a maximum;
Bäuerle and Ott (2011), for its use with a stock.
"""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdolib.distributions import Distribution
from rdolib.errors import InvalidArgumentError

Array = NDArray[np.float64]

#: A stock this close to zero counts as zero when it is compared with a threshold.
ZERO = 1e-12


class Objective:
    """A statistical functional with its declared properties. Call it on a `Distribution` for its value.

    Attributes
    ----------
    indifferent_to_mixtures, indifferent_to_gamma : bool
        The two properties of the module's docstring.
    lipschitz : float or None
        A constant ``L`` with ``|K(nu) - K(mu)| <= L W1(nu, mu)``; None when there is none.
    """

    indifferent_to_mixtures: bool = True
    indifferent_to_gamma: bool = True
    lipschitz: float | None = None

    def __call__(self, nu: Distribution) -> float:
        """Value of the objective for the law ``nu``."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class ExpectedUtility(Objective):
    """``K(nu) = E f(X)`` for a utility ``f``.

    Parameters
    ----------
    f : callable
        The utility, vectorized: an array of any shape in, an array of that shape out.
    lipschitz : float, optional
        A Lipschitz constant of ``f``. Without it infinite horizons and rounded stocks are refused, because their
        error could not be bounded.
    degree : float, optional
        ``p`` such that ``f(g x) = g**p f(x)`` for ``g > 0``. With it the objective is indifferent to gamma.

    Examples
    --------
    >>> import numpy as np, rdolib as rdo
    >>> K = rdo.ExpectedUtility(np.tanh, lipschitz=1.0)
    >>> K.indifferent_to_gamma
    False
    >>> round(K(rdo.Distribution([0.0, 1.0], [0.5, 0.5])), 6)
    0.380797
    """

    #: (below, above) for f(x) = below * min(x, 0) + above * max(x, 0); None for every other utility.
    slopes: tuple[float, float] | None = None
    #: True for the indicator of x >= 0.
    indicator: bool = False
    #: True when f is known to be nondecreasing.
    nondecreasing: bool = False

    def __init__(
        self,
        f: Callable[[Any], Any],
        lipschitz: float | None = None,
        degree: float | None = None,
    ) -> None:
        if not callable(f):
            raise InvalidArgumentError(f"the utility must be callable, an array in and an array out; got {f!r}")
        if lipschitz is not None and not (np.isfinite(lipschitz) and lipschitz >= 0):
            raise InvalidArgumentError(f"lipschitz must be a finite number >= 0; got {lipschitz}")
        if degree is not None and not (np.isfinite(degree) and degree >= 0):
            raise InvalidArgumentError(f"degree must be a finite number >= 0; got {degree}")
        self.f = f
        self.lipschitz = lipschitz
        self.degree = degree
        self.indifferent_to_gamma = degree is not None

    def utility(self, x: Any) -> Array:
        """``f(x)``, elementwise; raises `InvalidArgumentError` where the utility is NaN or of the wrong shape."""
        x = np.asarray(x, dtype=np.float64)
        y = np.asarray(self.f(x), dtype=np.float64)
        if y.shape != x.shape:
            raise InvalidArgumentError(
                f"the utility returned shape {y.shape} for an input of shape {x.shape}; it must be vectorized, "
                "one value for each stock (np.vectorize helps)"
            )
        bad = np.isnan(y)
        if bad.any():
            raise InvalidArgumentError(
                f"the utility is NaN at x = {x[bad].flat[0]:.6g}; it must be a number for every stock that can occur"
            )
        return y

    def range_on(self, low: Array, high: Array) -> tuple[Array, Array]:
        """Bounds ``(least, greatest)`` of ``f`` on the intervals ``[low, high]``; infinite when nothing is known."""
        at_low, at_high = self.utility(low), self.utility(high)
        if self.nondecreasing:
            return at_low, at_high
        if self.lipschitz is None:
            return np.full_like(at_low, -np.inf), np.full_like(at_low, np.inf)
        slack = 0.5 * (self.lipschitz * (high - low) - np.abs(at_high - at_low))
        return np.minimum(at_low, at_high) - slack, np.maximum(at_low, at_high) + slack

    def lipschitz_on(self, low: float, high: float) -> float | None:
        """A Lipschitz constant of ``f`` on ``[low, high]``, or None."""
        return self.lipschitz

    def __call__(self, nu: Distribution) -> float:
        """Value of the objective for the law ``nu``."""
        return float(nu.probs @ self.utility(nu.atoms))

    def __repr__(self) -> str:
        if type(self) is ExpectedUtility:
            return f"ExpectedUtility({getattr(self.f, '__name__', repr(self.f))})"
        return f"{type(self).__name__}()"


class TwoSlope(ExpectedUtility):
    """``f(x) = below * min(x, 0) + above * max(x, 0)``: one price for falling short, another for a surplus.

    These are all the Lipschitz scalar utilities that are indifferent to every discount (up to a constant).

    Examples
    --------
    >>> import rdolib as rdo
    >>> rdo.TwoSlope(2.0, 1.0)(rdo.Distribution([-1.0, 1.0], [0.5, 0.5]))
    -0.5
    """

    def __init__(self, below: float, above: float) -> None:
        if not all(isinstance(x, Real) and np.isfinite(x) for x in (below, above)):
            raise InvalidArgumentError(f"slopes must be finite numbers; got below={below}, above={above}")
        below, above = float(below), float(above)
        super().__init__(
            lambda x: below * np.minimum(x, 0.0) + above * np.maximum(x, 0.0),
            lipschitz=max(abs(below), abs(above)),
            degree=1.0,
        )
        self.slopes = (below, above)
        self.nondecreasing = below >= 0 and above >= 0

    def range_on(self, low: Array, high: Array) -> tuple[Array, Array]:
        """Exact bounds of ``f`` on the intervals."""
        at_low, at_high, kink = self.utility(low), self.utility(high), np.clip(0.0, low, high)
        at_kink = self.utility(kink)
        return (
            np.minimum(np.minimum(at_low, at_high), at_kink),
            np.maximum(np.maximum(at_low, at_high), at_kink),
        )

    def __repr__(self) -> str:
        if type(self) is TwoSlope and self.slopes is not None:
            return f"TwoSlope({self.slopes[0]:.6g}, {self.slopes[1]:.6g})"
        return f"{type(self).__name__}()"


class Mean(TwoSlope):
    """The average, ``E X``. Of ``stock + G`` in planning, like every fixed-stock objective.

    Examples
    --------
    >>> import rdolib as rdo
    >>> rdo.Mean()(rdo.Distribution([0.0, 3.0], [0.5, 0.5]))
    1.5
    """

    def __init__(self) -> None:
        super().__init__(1.0, 1.0)


class TargetReturn(TwoSlope):
    """``-E|X|``: come as close to zero as possible. With ``stock = -target`` the return aims at the target.

    Examples
    --------
    >>> import rdolib as rdo
    >>> rdo.TargetReturn()(rdo.Distribution([-1.0, 3.0], [0.5, 0.5]))
    -2.0
    """

    def __init__(self) -> None:
        super().__init__(1.0, -1.0)


class Shortfall(TwoSlope):
    """``E min(X, 0)``: only what is missing counts. It is never positive.

    Examples
    --------
    >>> import rdolib as rdo
    >>> rdo.Shortfall()(rdo.Distribution([-1.0, 3.0], [0.5, 0.5]))
    -0.5
    """

    def __init__(self) -> None:
        super().__init__(1.0, 0.0)


class Surplus(TwoSlope):
    """``E max(X, 0)``: only what exceeds zero counts.

    Examples
    --------
    >>> import rdolib as rdo
    >>> rdo.Surplus()(rdo.Distribution([-1.0, 3.0], [0.5, 0.5]))
    1.5
    """

    def __init__(self) -> None:
        super().__init__(0.0, 1.0)


class Threshold(ExpectedUtility):
    """``P(X >= 0)``. With ``stock = -target``: the probability that the return reaches the target.

    A value within 1e-12 of zero counts as zero, so that 0.1 + 0.2 - 0.3 has reached it.

    Examples
    --------
    >>> import rdolib as rdo
    >>> rdo.Threshold()(rdo.Distribution([-1.0, 0.0, 3.0], [0.5, 0.25, 0.25]))
    0.5
    """

    indicator = True
    nondecreasing = True

    def __init__(self) -> None:
        super().__init__(lambda x: np.where(x >= -ZERO, 1.0, 0.0), degree=0.0)


class Exponential(ExpectedUtility):
    """``f(x) = (exp(beta x) - 1) / beta``: averse to risk for ``beta < 0``, seeking it for ``beta > 0``.

    Not indifferent to gamma: with a discount below one it needs a finite horizon.

    Examples
    --------
    >>> import rdolib as rdo
    >>> round(rdo.Exponential(-1.0)(rdo.Distribution([0.0, 1.0], [0.5, 0.5])), 6)
    0.31606
    """

    nondecreasing = True

    def __init__(self, beta: float) -> None:
        if not isinstance(beta, Real) or not np.isfinite(beta) or beta == 0:
            raise InvalidArgumentError(
                f"beta must be a finite number other than 0; got {beta} (Mean() is the limit as beta goes to 0)"
            )
        self.beta: float = float(beta)
        super().__init__(lambda x: np.expm1(self.beta * x) / self.beta)

    def lipschitz_on(self, low: float, high: float) -> float | None:
        """Largest slope of ``f`` on ``[low, high]``."""
        return float(np.exp(max(self.beta * low, self.beta * high)))

    def __repr__(self) -> str:
        return f"Exponential({self.beta:.6g})"


class Quadratic(ExpectedUtility):
    """``-E X**2``: squared distance from zero; with ``stock = -b`` it is minus the variance around ``b``.

    Examples
    --------
    >>> import rdolib as rdo
    >>> rdo.Quadratic()(rdo.Distribution([-1.0, 3.0], [0.5, 0.5]))
    -5.0
    """

    def __init__(self) -> None:
        super().__init__(lambda x: -np.square(x), degree=2.0)

    def range_on(self, low: Array, high: Array) -> tuple[Array, Array]:
        """Exact bounds of ``f`` on the intervals."""
        at_low, at_high = self.utility(low), self.utility(high)
        return np.minimum(at_low, at_high), self.utility(np.clip(0.0, low, high))

    def lipschitz_on(self, low: float, high: float) -> float | None:
        """Largest slope of ``f`` on ``[low, high]``."""
        return 2.0 * max(abs(low), abs(high))


class CVaR(Objective):
    """Conditional value at risk: the mean of the worst ``level`` fraction of returns, ``0 < level <= 1``.

    An objective of the law of ``G`` that chooses its own initial stock: `optimize` and `frontier` accept it,
    `value_iteration` does not.

    Examples
    --------
    >>> import rdolib as rdo
    >>> rdo.CVaR(0.5)(rdo.Distribution([0.0, 4.0, 10.0], [0.25, 0.5, 0.25]))
    2.0
    """

    indifferent_to_mixtures = False

    def __init__(self, level: float) -> None:
        self.level = check_level(level)
        self.lipschitz = 1.0 / self.level

    def __call__(self, nu: Distribution) -> float:
        """Value of the objective for the law ``nu``."""
        return nu.cvar(self.level)

    def __repr__(self) -> str:
        return f"CVaR({self.level:.6g})"


def check_level(level: float) -> float:
    """The level as a float; `InvalidArgumentError` outside ``(0, 1]``."""
    if not (isinstance(level, Real) and 0 < float(level) <= 1):
        raise InvalidArgumentError(f"level must lie in (0, 1]; got {level}")
    return float(level)
