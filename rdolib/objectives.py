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
    reduction : str
        For objectives that value iteration refuses: what to use instead.
    """

    indifferent_to_mixtures: bool = True
    indifferent_to_gamma: bool = True
    lipschitz: float | None = None
    reduction: str = ""

    def __call__(self, nu: Distribution) -> Any:
        """Value of the objective for the law ``nu``."""
        raise NotImplementedError

    def missing(self, gamma: float, endless: bool) -> tuple[str, ...]:
        """Names of the properties that value iteration needs on this kind of problem and the objective lacks.

        A finite horizon needs indifference to mixtures alone, because time can be put into the state. Without a
        horizon, ``gamma < 1`` needs indifference to gamma as well, and continuity.

        Examples
        --------
        >>> import rdolib as rdo
        >>> rdo.CVaR(0.1).missing(gamma=1.0, endless=False)
        ('indifference to mixtures',)
        >>> rdo.Exponential(-1.0).missing(gamma=0.9, endless=True)
        ('indifference to gamma',)
        """
        lacks: tuple[str, ...] = () if self.indifferent_to_mixtures else ("indifference to mixtures",)
        if not endless or gamma == 1:
            return lacks
        if not self.indifferent_to_gamma:
            lacks += ("indifference to gamma",)
        return lacks if self._continuous else (*lacks, "continuity")

    @property
    def _continuous(self) -> bool:
        """Whether what is cut off an endless return can be made to matter as little as one likes."""
        return True

    def of_mixture(self, weights: Array, values: Array) -> Any:
        """Value of a mixture from the values (n,) or (n, k) of its parts; for objectives indifferent to mixtures."""
        return weights @ values

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class ExpectedUtility(Objective):
    """``K(nu) = E f(X)`` for a utility ``f``.

    Parameters
    ----------
    f : callable
        The utility, vectorized. Scalar rewards: an array of any shape in, an array of that shape out. Vector rewards
        with ``m`` components: shape ``(..., m)`` in, ``(...)`` out.
    lipschitz : float, optional
        A Lipschitz constant of ``f`` (in the Euclidean norm, for vectors). Without it infinite horizons and rounded
        stocks are refused, because their error could not be bounded.
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

    The smaller of two components:

    >>> K = rdo.ExpectedUtility(lambda x: x.min(axis=-1), lipschitz=1.0, degree=1.0)
    >>> K(rdo.Distribution([[0.0, 3.0], [2.0, 1.0]], [0.5, 0.5]))
    0.5
    """

    #: (below, above) for f(x) = below * min(x, 0) + above * max(x, 0); None for every other utility.
    slopes: tuple[float, float] | None = None
    #: True for the indicator of x >= 0.
    indicator: bool = False
    #: True when f is known to be nondecreasing (in every component).
    nondecreasing: bool = False
    #: The norm on vectors in which `lipschitz` holds: 1, 2 or infinity.
    norm: float = 2.0

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

    def utility(self, x: Any, dim: int = 1) -> Array:
        """``f(x)`` for numbers ``x`` of any shape, or vectors ``x`` of shape ``(..., dim)`` when ``dim > 1``.

        Raises `InvalidArgumentError` where the utility is NaN or of the wrong shape.
        """
        x = np.asarray(x, dtype=np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):  # what is no number is refused below
            y = np.asarray(self.f(x) if dim == 1 else self._of_vectors(x), dtype=np.float64)
        shape = x.shape if dim == 1 else x.shape[:-1]
        if y.shape != shape:
            raise InvalidArgumentError(
                f"the utility returned shape {y.shape} for an input of shape {x.shape}; it must be vectorized, "
                f"one value for each stock: shape {shape}" + (" (np.vectorize helps)" if dim == 1 else "")
            )
        bad = np.isnan(y)
        if bad.any():
            where = f"{x[bad].flat[0]:.6g}" if dim == 1 else str(x[bad][0].round(6).tolist())
            raise InvalidArgumentError(
                f"the utility is NaN at x = {where}; it must be a number for every stock that can occur"
            )
        return y

    def _of_vectors(self, x: Array) -> Any:
        """``f`` on vectors (..., m)."""
        return self.f(x)

    def range_on(self, low: Array, high: Array, dim: int = 1) -> tuple[Array, Array]:
        """Bounds ``(least, greatest)`` of ``f`` on the boxes ``[low, high]``; infinite when nothing is known."""
        at_low, at_high = self.utility(low, dim), self.utility(high, dim)
        if self.nondecreasing:
            return at_low, at_high
        if self.lipschitz is None:
            return np.full_like(at_low, -np.inf), np.full_like(at_low, np.inf)
        slack = 0.5 * (self.lipschitz * self.length(high - low, dim) - np.abs(at_high - at_low))
        return np.minimum(at_low, at_high) - slack, np.maximum(at_low, at_high) + slack

    def length(self, x: Array, dim: int) -> Array:
        """``|x|``, in the norm of `lipschitz` for vectors (..., dim)."""
        return np.abs(x) if dim == 1 else np.asarray(np.linalg.norm(x, ord=self.norm, axis=-1))

    def lipschitz_on(self, low: Any, high: Any) -> float | None:
        """A Lipschitz constant of ``f`` on ``[low, high]``, numbers or vectors (m,); or None."""
        return self.lipschitz

    @property
    def _continuous(self) -> bool:
        # The indicator is not, but its limits from above and from below are known (`rdolib._rungs`).
        return (
            self.indicator or self.lipschitz is not None or type(self).lipschitz_on is not ExpectedUtility.lipschitz_on
        )

    def __call__(self, nu: Distribution) -> float:
        """Value of the objective for the law ``nu``."""
        return float(nu.probs @ self.utility(nu.atoms, nu.reward_dim))

    def __repr__(self) -> str:
        if type(self) is ExpectedUtility:
            return f"ExpectedUtility({getattr(self.f, '__name__', repr(self.f))})"
        return f"{type(self).__name__}()"


class TwoSlope(ExpectedUtility):
    """``f(x) = below * min(x, 0) + above * max(x, 0)``: one price for falling short, another for a surplus.

    These are all the Lipschitz scalar utilities that are indifferent to every discount (up to a constant). On vector
    rewards the utilities of the components are added up; so they are for all its kinds below.

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

    norm = 1.0

    def _of_vectors(self, x: Array) -> Any:
        return self.f(x).sum(axis=-1)

    def range_on(self, low: Array, high: Array, dim: int = 1) -> tuple[Array, Array]:
        """Exact bounds of ``f`` on the boxes."""
        corners = self.f(low), self.f(high), self.f(np.clip(0.0, low, high))
        least, greatest = np.minimum.reduce(corners), np.maximum.reduce(corners)
        return (least, greatest) if dim == 1 else (least.sum(axis=-1), greatest.sum(axis=-1))

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

    On vector rewards all components have to reach zero.

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

    def _of_vectors(self, x: Array) -> Any:
        return self.f(x).min(axis=-1)


class Exponential(ExpectedUtility):
    """``f(x) = (exp(beta x) - 1) / beta``: averse to risk for ``beta < 0``, seeking it for ``beta > 0``.

    Not indifferent to gamma: with a discount below one it needs a finite horizon. For scalar rewards.

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

    def _of_vectors(self, x: Array) -> Any:
        raise InvalidArgumentError(
            f"{self!r} is a utility of scalar returns; say how the components are to be weighed with "
            "rdo.ExpectedUtility(f), f from shape (..., m) to (...)"
        )

    def lipschitz_on(self, low: Any, high: Any) -> float | None:
        """Largest slope of ``f`` on ``[low, high]``."""
        return float(np.exp(np.max([self.beta * low, self.beta * high])))

    def __repr__(self) -> str:
        return f"Exponential({self.beta:.6g})"


class Quadratic(ExpectedUtility):
    """``-E X**2``: squared distance from zero; with ``stock = -b`` it is minus the variance around ``b``.

    On vector rewards: minus the squared Euclidean distance.

    Examples
    --------
    >>> import rdolib as rdo
    >>> rdo.Quadratic()(rdo.Distribution([-1.0, 3.0], [0.5, 0.5]))
    -5.0
    """

    def __init__(self) -> None:
        super().__init__(lambda x: -np.square(x), degree=2.0)

    def _of_vectors(self, x: Array) -> Any:
        return self.f(x).sum(axis=-1)

    def range_on(self, low: Array, high: Array, dim: int = 1) -> tuple[Array, Array]:
        """Exact bounds of ``f`` on the boxes."""
        farthest = np.maximum(np.abs(low), np.abs(high))
        return self.utility(farthest, dim), self.utility(np.clip(0.0, low, high), dim)

    def lipschitz_on(self, low: Any, high: Any) -> float | None:
        """Largest slope of ``f`` on ``[low, high]``."""
        return 2.0 * float(np.linalg.norm(np.maximum(np.abs(low), np.abs(high)).reshape(-1)))


class Homeostasis(ExpectedUtility):
    """``-E ||X||``: keep every component near zero, in the norm 1, 2 or infinity.

    With ``stock = level - set point`` the levels are kept near the set point. On scalar rewards it is `TargetReturn`.

    Examples
    --------
    >>> import rdolib as rdo
    >>> rdo.Homeostasis()(rdo.Distribution([[3.0, 4.0], [0.0, 0.0]], [0.5, 0.5]))
    -2.5
    >>> rdo.Homeostasis(norm=1)(rdo.Distribution([[3.0, 4.0], [0.0, 0.0]], [0.5, 0.5]))
    -3.5
    """

    slopes = (1.0, -1.0)

    def __init__(self, norm: float = 2) -> None:
        if not isinstance(norm, Real) or norm not in (1, 2, np.inf):
            raise InvalidArgumentError(f"norm must be 1, 2 or infinity (float('inf')); got {norm!r}")
        super().__init__(lambda x: -np.abs(x), lipschitz=1.0, degree=1.0)
        self.norm = float(norm)

    def _of_vectors(self, x: Array) -> Any:
        return -self.length(x, x.shape[-1])

    def range_on(self, low: Array, high: Array, dim: int = 1) -> tuple[Array, Array]:
        """Exact bounds of ``f`` on the boxes."""
        farthest = np.maximum(np.abs(low), np.abs(high))
        return self.utility(farthest, dim), self.utility(np.clip(0.0, low, high), dim)

    def __repr__(self) -> str:
        return f"Homeostasis(norm={self.norm:g})"


class EssInf(Objective):
    """The worst that can happen: the least value of positive probability, for scalar rewards.

    Not an expected utility. It is 1-Lipschitz in the Wasserstein distance of order infinity (not 1), which is enough
    for every horizon and discount. Adding a stock adds it to the value, so the policy never looks at its stock. The law
    of an endless return leaves out what is rarer than its ``leftover`` (1e-12), which this objective does not forgive:
    there the plan's value is right and ``K(plan.returns)`` may be less extreme.

    Examples
    --------
    >>> import rdolib as rdo
    >>> rdo.EssInf()(rdo.Distribution([-1.0, 3.0], [0.25, 0.75]))
    -1.0
    """

    #: +1: the least value; -1: the greatest.
    sign = 1.0

    def __call__(self, nu: Distribution) -> float:
        """Value of the objective for the law ``nu``."""
        require_scalar_law(self, nu)
        return float(self.sign * (self.sign * nu.atoms).min())

    def of_mixture(self, weights: Array, values: Array) -> Any:
        """The worst (best) of the parts that can occur."""
        return self.sign * (self.sign * values[weights > 0]).min()


class EssSup(EssInf):
    """The best that can happen: the greatest value of positive probability, for scalar rewards.

    Examples
    --------
    >>> import rdolib as rdo
    >>> rdo.EssSup()(rdo.Distribution([-1.0, 3.0], [0.75, 0.25]))
    3.0
    """

    sign = -1.0


class Lexicographic(Objective):
    """First things first: maximize the first objective; among its maximizers the second; and so on.

    The value is the tuple of their values. Ties of an earlier objective are taken with the library's tolerance, 1e-12
    relative. Safe for a finite horizon only (or with ``gamma = 1`` where every path ends): an endless discounted return
    cut after any number of steps can rank the first objective wrongly for ever.

    Parameters
    ----------
    *objectives : Objective
        At least two. All but the last must be expected utilities: only these make a strict preference in one branch
        of a mixture a strict preference of the whole.

    Examples
    --------
    >>> import rdolib as rdo
    >>> K = rdo.Lexicographic(rdo.Threshold(), rdo.Mean())
    >>> K(rdo.Distribution([-1.0, 3.0], [0.5, 0.5]))
    (0.5, 1.0)
    """

    def __init__(self, *objectives: Objective) -> None:
        for one in objectives:
            if not isinstance(one, Objective):
                raise InvalidArgumentError(f"Lexicographic takes objectives such as rdo.Mean(); got {one!r}")
            if isinstance(one, Lexicographic):
                raise InvalidArgumentError(f"write one order, not one within another: list the objectives of {one!r}")
        if len(objectives) < 2:
            raise InvalidArgumentError(f"Lexicographic takes at least two objectives; got {len(objectives)}")
        self.objectives = objectives
        self.indifferent_to_mixtures = all(isinstance(one, ExpectedUtility) for one in objectives[:-1]) and (
            objectives[-1].indifferent_to_mixtures
        )
        self.indifferent_to_gamma = all(one.indifferent_to_gamma for one in objectives)
        self.reduction = (
            "put expected utilities first, such as rdo.Threshold or rdo.Shortfall; only the last may be of another kind"
        )

    def missing(self, gamma: float, endless: bool) -> tuple[str, ...]:
        """As for every objective; without a horizon continuity is always missing."""
        return (*super().missing(gamma, endless), "continuity") if endless else super().missing(gamma, endless)

    def __call__(self, nu: Distribution) -> tuple[Any, ...]:
        """Values of all objectives for the law ``nu``."""
        return tuple(one(nu) for one in self.objectives)

    def of_mixture(self, weights: Array, values: Array) -> Any:
        """Component by component."""
        return tuple(one.of_mixture(weights, values[:, j]) for j, one in enumerate(self.objectives))

    def __repr__(self) -> str:
        return f"Lexicographic({', '.join(map(repr, self.objectives))})"


def require_scalar_law(objective: Objective, nu: Distribution) -> None:
    """`InvalidArgumentError` for a vector law."""
    if nu.reward_dim != 1:
        raise InvalidArgumentError(
            f"{objective!r} is defined for scalar returns; this law has {nu.reward_dim} components"
        )
