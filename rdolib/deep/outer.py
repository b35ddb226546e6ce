"""The outer search on what an agent has learned: which initial stock a risk measure wants.

The optimum of every objective of `rdolib.risk` is an extremum, or a root, over a number ``b`` of an expression in
``V_f(-b) = max_pi E f(G - b)`` (the table there). The agent predicts the law of ``G`` at every ``b``, and with it
``V_f(-b)``, so the same expression is searched here, over many candidates.

*Two witnesses.* Where the extremum is a maximum, the objective of the law itself is another function of ``b`` with the
same maximum at the same ``b``: it lies above the expression, and below the optimum, which both attain. The expression
has a sharp peak, whose place is exact only up to errors of prediction; the objective is constant as long as the policy
is, so it tells one policy from the next, but hardly those far from the best. Their sum has the merits of both.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rdolib.errors import InvalidArgumentError
from rdolib.objectives import ExpectedUtility, Quadratic, Shortfall, Surplus, Threshold, TwoSlope
from rdolib.risk import CVaR, Expectile, MeanCVaR, MeanVariance, OptimisticCVaR, OuterSearch, Quantile, Sharpe, Variance

Floats = NDArray[np.float64]


def utility_of(objective: OuterSearch) -> ExpectedUtility:
    """The utility ``f`` of ``G - b`` by which an objective is reached."""
    if isinstance(objective, CVaR):
        return Shortfall()
    if isinstance(objective, OptimisticCVaR):
        return Surplus()
    if isinstance(objective, MeanCVaR):
        return TwoSlope(*objective.two_slopes)
    if isinstance(objective, Expectile):
        return TwoSlope(1.0 - objective.level, objective.level)
    if isinstance(objective, Quantile):
        return Threshold()
    if isinstance(objective, Variance | MeanVariance | Sharpe):
        return Quadratic()
    raise InvalidArgumentError(
        f"choose_stock takes an objective that chooses its initial stock, such as rdo.CVaR(0.1); got {objective!r}"
    )


def require_same_utility(learned: ExpectedUtility, objective: OuterSearch) -> None:
    """`InvalidArgumentError` unless the learned utility is, up to a positive factor, the one the objective needs."""
    needed = utility_of(objective)
    if needed.slopes is None or learned.slopes is None:
        same = type(needed) is type(learned)
    else:
        (a, b), (x, y) = needed.slopes, learned.slopes
        same = abs(a * y - b * x) <= 1e-9 * (abs(a) + abs(b)) * (abs(x) + abs(y)) and a * x + b * y > 0
    if not same:
        raise InvalidArgumentError(
            f"{objective!r} is reached with the utility of {needed!r}, and this agent has learned {learned!r}; train "
            f"one with {needed!r}"
        )


def best(objective: OuterSearch, b: Floats, value: Floats, own: Floats) -> int:
    """Index of the best of ascending candidates ``b`` (n,).

    ``value`` (n,) is ``V_f(-b)`` for the objective's utility, ``own`` (n,) the objective of the law from ``-b``.
    """
    if isinstance(objective, CVaR):
        return int(np.argmax(b + value / objective.level + own))
    if isinstance(objective, OptimisticCVaR):  # a minimum: each b is the price of one more return in the best part
        return int(np.argmin(b + value / objective.level))
    if isinstance(objective, MeanCVaR):
        return int(np.argmax(b + value + own))
    if isinstance(objective, Expectile):
        return int(np.argmin(np.abs(value)))
    if isinstance(objective, Quantile):
        reached = value > 1 - objective.level if objective.side == "lower" else value >= 1 - objective.level
        return int(np.flatnonzero(reached)[-1]) if reached.any() else int(np.argmax(value))
    if isinstance(objective, MeanVariance):
        return int(np.argmax(b + objective.weight * value + own))
    if isinstance(objective, Sharpe):
        positive = np.where(b > 0, b, np.nan)
        return int(np.nanargmax(value / positive**2)) if (b > 0).any() else len(b) - 1
    return int(np.argmax(value + own))  # Variance
