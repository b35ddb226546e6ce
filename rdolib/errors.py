"""The small family of errors: each a `ValueError` whose message names the rule, the place, the value, the remedy."""


class RdoError(ValueError):
    """Base class of every error that rdolib raises on purpose."""


class InvalidMDPError(RdoError):
    """A transition table, array or environment that does not describe a finite MDP."""


class InvalidArgumentError(RdoError):
    """An argument outside its range or of the wrong shape: a level, a horizon, a stock, a state, a weight."""


class NotOptimizableError(RdoError):
    """An objective or horizon for which dynamic programming would not return the optimum."""


class MemoryLimitError(RdoError):
    """A problem that needs more memory than the stated limit; raised before anything large is allocated."""
