"""Plan for the distribution of the return, not only for its mean.

An `MDP` and an objective meet in `optimize`, which returns a `Plan`: value, certified bounds, policy and the law of
the return. `value_iteration` and `policy_iteration` solve fixed-stock objectives at every state; `evaluate` gives the
return distributions of a policy; `frontier` serves many risk levels from one solve; `rollout` simulates. `bounds` has
the a-priori error bounds, `examples` the counterexamples of the theory. Plots are in `rdolib.plotting` (imported
separately).
"""

from rdolib import bounds, examples, savings
from rdolib.constraints import Conflict, ConstraintPrice, Feasibility, constrained, constraint_price, feasibility
from rdolib.distributions import CategoricalGrid, Distribution, Exact, QuantileGrid, cramer, mixture, wasserstein
from rdolib.dp import Policy, Solution, value_iteration
from rdolib.errors import (
    InvalidArgumentError,
    InvalidMDPError,
    MemoryLimitError,
    NotOptimizableError,
    RdoError,
)
from rdolib.evaluation import Evaluation, evaluate
from rdolib.generalized import Improvement, generalized_policy_improvement
from rdolib.improvement import policy_iteration
from rdolib.mdp import MDP
from rdolib.objectives import (
    EssInf,
    EssSup,
    ExpectedUtility,
    Exponential,
    Homeostasis,
    Lexicographic,
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
from rdolib.risk import (
    CVaR,
    Expectile,
    MeanCVaR,
    MeanVariance,
    Median,
    OptimisticCVaR,
    Quantile,
    Sharpe,
    Variance,
)
from rdolib.shaping import ShapedMDP, shaped_rewards
from rdolib.simulate import rollout

__version__ = "0.1.0"

__all__ = [
    "MDP",
    "CVaR",
    "CategoricalGrid",
    "Conflict",
    "ConstraintPrice",
    "Distribution",
    "EssInf",
    "EssSup",
    "Evaluation",
    "Exact",
    "ExpectedUtility",
    "Expectile",
    "Exponential",
    "Feasibility",
    "Frontier",
    "Homeostasis",
    "Improvement",
    "InvalidArgumentError",
    "InvalidMDPError",
    "Lexicographic",
    "Mean",
    "MeanCVaR",
    "MeanVariance",
    "Median",
    "MemoryLimitError",
    "NotOptimizableError",
    "Objective",
    "OptimisticCVaR",
    "Plan",
    "Policy",
    "Quadratic",
    "Quantile",
    "QuantileGrid",
    "RdoError",
    "ShapedMDP",
    "Sharpe",
    "Shortfall",
    "Solution",
    "Surplus",
    "TargetReturn",
    "Threshold",
    "TwoSlope",
    "Variance",
    "bounds",
    "constrained",
    "constraint_price",
    "cramer",
    "evaluate",
    "examples",
    "feasibility",
    "frontier",
    "generalized_policy_improvement",
    "mixture",
    "optimize",
    "policy_iteration",
    "rollout",
    "savings",
    "shaped_rewards",
    "value_iteration",
    "wasserstein",
]
