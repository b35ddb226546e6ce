"""Plan for the distribution of the return, not only for its mean.

An `MDP` and an objective meet in `optimize`, which returns a `Plan`: value, certified bounds, policy and the law of
the return. `value_iteration` solves fixed-stock objectives at every state; `frontier` serves many risk levels from one
solve; `rollout` simulates. Plots are in `rdolib.plotting` (imported separately).
"""

from rdolib.distributions import CategoricalGrid, Distribution, QuantileGrid, mixture, wasserstein
from rdolib.dp import Policy, Solution, value_iteration
from rdolib.errors import (
    InvalidArgumentError,
    InvalidMDPError,
    MemoryLimitError,
    NotOptimizableError,
    RdoError,
)
from rdolib.mdp import MDP
from rdolib.objectives import (
    CVaR,
    ExpectedUtility,
    Exponential,
    Mean,
    Objective,
    Quadratic,
    Shortfall,
    Surplus,
    TargetReturn,
    Threshold,
    TwoSlope,
)
from rdolib.optimize import Frontier, Plan, frontier, optimize
from rdolib.simulate import rollout

__version__ = "0.1.0"

__all__ = [
    "MDP",
    "CVaR",
    "CategoricalGrid",
    "Distribution",
    "ExpectedUtility",
    "Exponential",
    "Frontier",
    "InvalidArgumentError",
    "InvalidMDPError",
    "Mean",
    "MemoryLimitError",
    "NotOptimizableError",
    "Objective",
    "Plan",
    "Policy",
    "Quadratic",
    "QuantileGrid",
    "RdoError",
    "Shortfall",
    "Solution",
    "Surplus",
    "TargetReturn",
    "Threshold",
    "TwoSlope",
    "frontier",
    "mixture",
    "optimize",
    "rollout",
    "value_iteration",
    "wasserstein",
]
