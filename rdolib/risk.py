"""Objectives that are not expected utilities, and the search over the initial stock that reaches them.

Each ``K`` of this module is a functional of the law of the return ``G`` that lacks indifference to mixtures, so value
iteration on ``K`` itself can return a wrong policy. But each is an extremum, or a root, over one number ``b`` of an
expected utility of ``G - b``, and that is what value iteration finds from the initial stock ``-b``. With
``(x)_+ = max(x, 0)``, ``(x)_- = min(x, 0)`` and ``V_f(c) = max_pi E f(c + G)``:

=================  ====================================================  ========================================
objective          optimum                                               utility ``f``
=================  ====================================================  ========================================
CVaR               ``max_b { b + V_f(-b) / level }``                     ``(x)_-``
mean and CVaR      ``max_b { b + V_f(-b) }``                             ``(1-w) (x)_+ + (1-w + w/level) (x)_-``
optimistic CVaR    ``min_b { b + V_f(-b) / level }``                     ``(x)_+``, over randomized policies
expectile          the ``b`` with ``V_f(-b) = 0``                        ``level (x)_+ + (1-level) (x)_-``
lower quantile     the largest ``b`` with ``V_f(-b) > 1 - level``        ``1{x >= 0}``
upper quantile     the largest ``b`` with ``V_f(-b) >= 1 - level``       ``1{x >= 0}``
minus variance     ``max_b V_f(-b)``                                     ``-x**2``
mean - w variance  ``max_b { b - 1/(4w) + w V_f(-b) }``                  ``-x**2``
Sharpe ratio       ``S**2 / (1 + S**2) = max_b { 1 + V_f(-b) / b**2 }``  ``-x**2``, ``b > 0``, if some mean is > 0
=================  ====================================================  ========================================

An extremum that is a maximum commutes with the maximum over policies. A minimum does not: it is exchanged by the
minimax theorem, and then policies must be allowed to toss a coin at the start.

Sources: Rockafellar and Uryasev (2000) for CVaR; Ben-Tal and Teboulle (2007) for its two-slope relatives; Newey and
Powell (1987) for expectiles; Bellini et al. (2014) for their Lipschitz constant; Bäuerle and Ott (2011) and Ávila Pires
et al. (2025) for the use with a stock. The rows on optimistic CVaR, variance and Sharpe ratio are derived in the book.
"""

from __future__ import annotations

import math
from numbers import Real
from typing import Literal

from rdolib.distributions import Distribution
from rdolib.errors import InvalidArgumentError
from rdolib.objectives import Objective, require_scalar_law


class OuterSearch(Objective):
    """A functional of the law of ``G`` (scalar) that chooses its own initial stock.

    Attributes
    ----------
    indifferent_to_mixtures : bool
        False. (At the ends of some parameter ranges the objective is the mean, which has the property: use `Mean`.)
    nondecreasing : bool
        Whether a law that dominates another (``P(X >= x)`` larger for every ``x``) never has a smaller value.
    reduction : str
        What to use instead of value iteration on the objective itself.
    """

    indifferent_to_mixtures = False
    nondecreasing: bool = True

    def __call__(self, nu: Distribution) -> float:
        """Value of the objective for the law ``nu`` of the return, which must be scalar."""
        require_scalar_law(self, nu)
        return self._value(nu)

    def _value(self, nu: Distribution) -> float:
        raise NotImplementedError


class CVaR(OuterSearch):
    """Conditional value at risk: the mean of the worst ``level`` fraction of returns, ``0 < level <= 1``.

    An objective of the law of ``G`` that chooses its own initial stock, like all of this module: `optimize` and
    `frontier` accept it, `value_iteration` does not.

    Examples
    --------
    >>> import rdolib as rdo
    >>> rdo.CVaR(0.5)(rdo.Distribution([0.0, 4.0, 10.0], [0.25, 0.5, 0.25]))
    2.0
    """

    reduction = "rdo.optimize searches over the initial stock with f = min(x, 0)"

    def __init__(self, level: float) -> None:
        self.level = check_level(level)
        self.lipschitz = 1.0 / self.level

    def _value(self, nu: Distribution) -> float:
        return nu.cvar(self.level)

    def __repr__(self) -> str:
        return f"CVaR({self.level:.6g})"


class MeanCVaR(OuterSearch):
    """``(1 - weight) E + weight CVaR``: the average, with the worst ``level`` fraction counted once more.

    Parameters
    ----------
    level : float
        In (0, 1].
    weight : float
        In [0, 1].

    Examples
    --------
    >>> import rdolib as rdo
    >>> rdo.MeanCVaR(0.5, 0.25)(rdo.Distribution([0.0, 4.0, 10.0], [0.25, 0.5, 0.25]))
    3.875
    """

    def __init__(self, level: float, weight: float) -> None:
        self.level = check_level(level)
        if not (_is_number(weight) and 0 <= weight <= 1):
            raise InvalidArgumentError(f"weight of the CVaR must lie in [0, 1]; got {weight!r}")
        self.weight = float(weight)
        #: (below, above): slopes of the utility of ``G - b``.
        self.two_slopes = (1.0 - self.weight + self.weight / self.level, 1.0 - self.weight)
        self.lipschitz = self.two_slopes[0]
        self.reduction = f"rdo.optimize searches over the initial stock with f = {_two_slopes(*self.two_slopes)}"

    def _value(self, nu: Distribution) -> float:
        return (1.0 - self.weight) * float(nu.mean()) + self.weight * nu.cvar(self.level)

    def __repr__(self) -> str:
        return f"MeanCVaR({self.level:.6g}, {self.weight:.6g})"


class OptimisticCVaR(OuterSearch):
    """The mean of the best ``level`` fraction of returns, ``0 < level <= 1``.

    Its optimum over policies may need a coin tossed at the start: ``plan.mixture`` of `optimize` lists the lottery.

    Examples
    --------
    >>> import rdolib as rdo
    >>> rdo.OptimisticCVaR(0.5)(rdo.Distribution([0.0, 4.0, 10.0], [0.25, 0.5, 0.25]))
    7.0
    """

    reduction = "rdo.optimize searches over the initial stock, with f = max(x, 0), and over randomized policies"

    def __init__(self, level: float) -> None:
        self.level = check_level(level)
        self.lipschitz = 1.0 / self.level

    def _value(self, nu: Distribution) -> float:
        return nu.optimistic_cvar(self.level)

    def __repr__(self) -> str:
        return f"OptimisticCVaR({self.level:.6g})"


class Expectile(OuterSearch):
    """The ``e`` at which what is above and what is below balance: ``level E(X-e)_+ = (1-level) E(e-X)_+``.

    Level 1/2 is the mean; lower levels are more careful. ``0 < level < 1``.

    Examples
    --------
    >>> import rdolib as rdo
    >>> rdo.Expectile(0.2)(rdo.Distribution([0.0, 10.0], [0.5, 0.5]))
    2.0
    """

    def __init__(self, level: float) -> None:
        self.level = _inner_level(level, "an expectile")
        # The balance moves by at most max(level, 1-level) W1, and falls in e at least as fast as min(level, 1-level).
        self.lipschitz = max(self.level, 1.0 - self.level) / min(self.level, 1.0 - self.level)
        self.reduction = (
            f"rdo.optimize searches for the initial stock from which the optimum is 0 with f = "
            f"{_two_slopes(1 - self.level, self.level)}"
        )

    def _value(self, nu: Distribution) -> float:
        return nu.expectile(self.level)

    def __repr__(self) -> str:
        return f"Expectile({self.level:.6g})"


class Quantile(OuterSearch):
    """The quantile at ``level``: lower ``inf{x : F(x) >= level}``, or upper ``sup{x : P(X < x) <= level}``.

    Parameters
    ----------
    level : float
        In (0, 1), both ends excluded.
    side : {"lower", "upper"}

    Examples
    --------
    >>> import rdolib as rdo
    >>> nu = rdo.Distribution([0.0, 4.0, 10.0], [0.5, 0.25, 0.25])
    >>> rdo.Quantile(0.5)(nu), rdo.Quantile(0.5, side="upper")(nu)
    (0.0, 4.0)
    """

    def __init__(self, level: float, side: Literal["lower", "upper"] = "lower") -> None:
        self.level = _inner_level(level, "a quantile")
        if side not in ("lower", "upper"):
            raise InvalidArgumentError(f'side must be "lower" or "upper"; got {side!r}')
        self.side: Literal["lower", "upper"] = side
        self.reduction = (
            f"rdo.optimize searches for the largest b that some policy reaches with a probability "
            f"{'above' if side == 'lower' else 'of at least'} {1 - self.level:.6g}"
        )

    @property
    def _continuous(self) -> bool:
        return False  # it jumps where an atom's probability crosses the level

    def _value(self, nu: Distribution) -> float:
        return nu.quantile(self.level, self.side)

    def __repr__(self) -> str:
        upper = ', side="upper"' if self.side == "upper" else ""
        return f"Quantile({self.level:.6g}{upper})"


class Median(Quantile):
    """The lower median, ``Quantile(0.5)``.

    Examples
    --------
    >>> import rdolib as rdo
    >>> rdo.Median()(rdo.Distribution([0.0, 4.0, 10.0], [0.25, 0.5, 0.25]))
    4.0
    """

    def __init__(self) -> None:
        super().__init__(0.5)

    def __repr__(self) -> str:
        return "Median()"


class Variance(OuterSearch):
    """Minus the variance, so that greater is better, as for every objective.

    Examples
    --------
    >>> import rdolib as rdo
    >>> rdo.Variance()(rdo.Distribution([0.0, 10.0], [0.5, 0.5]))
    -25.0
    """

    nondecreasing = False
    reduction = "rdo.optimize searches over the initial stock with f = -x**2"

    def _value(self, nu: Distribution) -> float:
        return 0.0 - float(nu.var())  # not a zero with a sign


class MeanVariance(OuterSearch):
    """``E - weight * Var``, ``weight > 0``. Not indifferent to gamma: mean and variance shrink at different rates.

    Examples
    --------
    >>> import rdolib as rdo
    >>> rdo.MeanVariance(0.1)(rdo.Distribution([0.0, 10.0], [0.5, 0.5]))
    2.5
    """

    indifferent_to_gamma = False
    nondecreasing = False
    reduction = "rdo.optimize searches over the initial stock with f = -x**2"

    def __init__(self, weight: float) -> None:
        if not (_is_number(weight) and 0 < weight < math.inf):
            raise InvalidArgumentError(
                f"weight of the variance must be a positive number; got {weight!r} (for the mean alone use rdo.Mean())"
            )
        self.weight = float(weight)

    def _value(self, nu: Distribution) -> float:
        return float(nu.mean()) - self.weight * float(nu.var())

    def __repr__(self) -> str:
        return f"MeanVariance({self.weight:.6g})"


class Sharpe(OuterSearch):
    """Mean over standard deviation. A sure return has +inf, 0 or -inf, by its sign.

    `optimize` needs a policy with a positive mean: among negative means the ratio prefers the larger deviation.

    Examples
    --------
    >>> import rdolib as rdo
    >>> rdo.Sharpe()(rdo.Distribution([0.0, 10.0], [0.5, 0.5])), rdo.Sharpe()(rdo.Distribution([1.0], [1.0]))
    (1.0, inf)
    """

    nondecreasing = False
    reduction = "rdo.optimize searches over the initial stock with f = -x**2, if some policy has a positive mean"

    @property
    def _continuous(self) -> bool:
        return False  # next to a sure 0 there are laws of every ratio

    def _value(self, nu: Distribution) -> float:
        mean = float(nu.mean())
        if nu.n_atoms == 1:  # the sign of 0 is 0, not a zero with a sign
            return math.copysign(math.inf, mean) if mean else 0.0
        return mean / float(nu.std())


def _two_slopes(below: float, above: float) -> str:
    return f"{below:.6g} min(x, 0) + {above:.6g} max(x, 0)"


def check_level(level: float) -> float:
    """The level as a float; `InvalidArgumentError` outside ``(0, 1]``."""
    if not (_is_number(level) and 0 < float(level) <= 1):
        raise InvalidArgumentError(f"level must lie in (0, 1]; got {level}")
    return float(level)


def _inner_level(level: float, of: str) -> float:
    if not (_is_number(level) and 0 < float(level) < 1):
        raise InvalidArgumentError(
            f"level of {of} must lie strictly between 0 and 1; got {level}; the limits are the least and the greatest "
            "possible return"
        )
    return float(level)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
