"""A deep agent for return distributions, graded against the exact optimum. Needs torch: ``pip install rdolib[deep]``.

`train` learns quantiles of the return at every observation and stock, and acts greedily for an expected utility at
every stock. `TabularEnv` runs the same `rdolib.MDP` that the exact solvers take; `grade` says how far the agent is
from their optimum. ``import rdolib`` does not import this package.
"""

from rdolib.deep import losses
from rdolib.deep.agent import Agent
from rdolib.deep.checkpoint import CheckpointError, load
from rdolib.deep.config import Config
from rdolib.deep.envs import GymnasiumEnv, TabularEnv
from rdolib.deep.grade import Graded, Report, grade
from rdolib.deep.train import train

__all__ = [
    "Agent",
    "CheckpointError",
    "Config",
    "Graded",
    "GymnasiumEnv",
    "Report",
    "TabularEnv",
    "grade",
    "load",
    "losses",
    "train",
]
