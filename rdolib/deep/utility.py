"""Which objectives the agent can learn, their utilities on tensors, and the greedy action.

The agent maximizes ``E f(c + G)`` over actions, with the law of ``G`` given by equally likely quantiles. So it serves
the expected utilities that dynamic programming accepts, and no others; refusals are worded by the same function.
Utilities are computed in float64: a large stock must not swallow the return that is added to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rdolib._rungs import require_plannable
from rdolib.errors import NotOptimizableError
from rdolib.mdp import MDP
from rdolib.objectives import (
    ZERO,
    ExpectedUtility,
    Exponential,
    Homeostasis,
    Mean,
    Objective,
    Quadratic,
    Shortfall,
    Surplus,
    TargetReturn,
    Threshold,
    TwoSlope,
)


@dataclass(frozen=True)
class Utility:
    """``f`` from tensors (..., m) to float64 tensors (...), also for scalar rewards, m = 1.

    Attributes
    ----------
    f : callable
    slopes : (float, float) or None
        Of ``f(x) = below * min(x, 0) + above * max(x, 0)`` for scalars, which has a short cut.
    """

    f: Callable[[Tensor], Tensor]
    slopes: tuple[float, float] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """``f(x)``."""
        return self.f(x)


#: Two actions tie when their values differ by at most this, relative to max(1, |value|): the rule of the solvers.
TIE = 1e-12
_TWO_SLOPES = (TwoSlope, Mean, TargetReturn, Shortfall, Surplus)


def require_learnable(objective: Objective, gamma: float, reward_dim: int) -> ExpectedUtility:
    """The objective, if it is an expected utility that dynamic programming accepts without a horizon."""
    require_plannable(MDP.from_outcomes({0: {0: [(1.0, 0, 1.0, True)]}}, gamma=gamma), objective, None)
    if not isinstance(objective, ExpectedUtility):
        raise NotOptimizableError(
            f"the agent learns expected utilities (rdo.ExpectedUtility or one of its kinds); got {objective!r}, which "
            "rdo.value_iteration can plan for"
        )
    if reward_dim > 1:
        objective.utility(np.zeros((1, reward_dim)), reward_dim)  # utilities of scalars say so here
    return objective


def torch_utility(objective: ExpectedUtility, reward_dim: int, margin: float = ZERO) -> Utility:
    """The utility of an objective on tensors.

    The library's own utilities are computed where the tensor is; any other callable goes through NumPy on the CPU.
    What misses zero by less than `margin` counts as zero for `Threshold`: an atom that a network has learned never
    stands exactly where it should.
    """
    formula = _formula(objective, reward_dim, margin)
    if formula is not None:
        slopes = objective.slopes if reward_dim == 1 else None
        return Utility(lambda x: formula(x.double()), slopes)

    def by_numpy(x: Tensor) -> Tensor:
        array = x.detach().double().cpu().numpy()
        worth = objective.utility(array[..., 0] if reward_dim == 1 else array, reward_dim)
        return torch.from_numpy(np.ascontiguousarray(worth)).to(x.device)

    return Utility(by_numpy)


def _formula(objective: ExpectedUtility, reward_dim: int, margin: float) -> Callable[[Tensor], Tensor] | None:
    kind = type(objective)
    if kind in _TWO_SLOPES and objective.slopes is not None:
        below, above = objective.slopes
        return lambda x: (below * x.clamp(max=0) + above * x.clamp(min=0)).sum(-1)
    if isinstance(objective, Homeostasis) and kind is Homeostasis:
        order = objective.norm
        return lambda x: -torch.linalg.vector_norm(x, ord=order, dim=-1)
    if isinstance(objective, Exponential) and kind is Exponential and reward_dim == 1:
        beta = objective.beta
        return lambda x: torch.expm1(beta * x[..., 0]) / beta
    if kind is Threshold:
        return lambda x: (x >= -margin).all(-1).double()
    if kind is Quadratic:
        return lambda x: -x.square().sum(-1)
    return None


def action_values(utility: Utility, stock: Tensor, quantiles: Tensor) -> Tensor:
    """Means (B, A) of ``f(c + quantile)`` for stocks (B, m) and quantiles (B, A, N, m).

    Up to a number that is the same for all actions of a row.
    """
    if utility.slopes is not None:
        return _two_slope_values(*utility.slopes, stock, quantiles[..., 0])
    return utility(stock[:, None, None, :] + quantiles.double()).mean(-1)


def _two_slope_values(below: float, above: float, stock: Tensor, quantiles: Tensor) -> Tensor:
    """The same for two slopes, less ``f(c)``, so that no large stock is added to anything.

    With ``f(x) = above * x + (below - above) * min(x, 0)`` and ``min(c + q, 0) = c + min(q, -c)``. Beyond all quantiles
    it does not matter how large the stock is.
    """
    least, greatest = torch.aminmax(quantiles)
    kink = (-stock).clamp(least, greatest).to(quantiles.dtype)
    short = torch.minimum(quantiles, kink[..., None]).mean(-1) - kink.clamp(max=0.0)
    return above * quantiles.mean(-1).double() + (below - above) * short.double()


def greedy(worth: Tensor, available: Tensor | None) -> Tensor:
    """The best available action (B,) for values (B, A); ties go to the lowest action.

    ``available`` (B, A) is boolean; None means that every action can be taken.
    """
    if available is not None:
        worth = worth.masked_fill(~available, -torch.inf)
    best = worth.amax(-1, keepdim=True)
    slack = TIE * best.abs().clamp(min=1.0)
    good = worth >= torch.where(best.isfinite(), best - slack, best)
    return good.to(torch.uint8).argmax(-1)
