"""What policy iteration and generalized policy improvement share: the graph, one improvement, and what it proves."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdolib import _graph, bounds
from rdolib._checks import as_int
from rdolib._progress import bar
from rdolib._reachable import Problem, ReachableTable, close, layers
from rdolib._rungs import check_effort, cut_depth, require_plannable
from rdolib._tables import Wrapped
from rdolib._unfolded import Unfolded
from rdolib.dp import Policy
from rdolib.errors import InvalidArgumentError, MemoryLimitError, NotOptimizableError
from rdolib.mdp import MDP
from rdolib.objectives import ExpectedUtility, Objective
from rdolib.stock import end_components, ends_within, expected_time, return_range, return_range_by_step

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_MOST = 10_000  # improvements after which rounding must be to blame


# --------------------------------------------------------------------------------------------------
# what can be improved


def require_improvable(mdp: MDP, objective: Objective, horizon: int | None) -> ExpectedUtility:
    """`NotOptimizableError` for objectives under which an improved policy need not be better."""
    require_plannable(mdp, objective, horizon)
    if not isinstance(objective, ExpectedUtility):
        raise NotOptimizableError(
            f"policy iteration needs an expected utility (rdo.ExpectedUtility or one of its kinds); got {objective!r}; "
            "use value_iteration"
        )
    continuous = objective.lipschitz_on(-1.0, 1.0) is not None
    remedy = "use value_iteration" if objective.indicator else "declare lipschitz= if it has a Lipschitz constant"
    if horizon is None and mdp.gamma < 1 and not continuous and ends_within(mdp) is None:
        raise NotOptimizableError(
            f"{objective!r} lacks continuity, and without it, with gamma = {mdp.gamma:.6g} and no horizon, policy "
            "iteration can make a policy worse: a change of action that ties at every step can lose everything in the "
            f"limit (book, chapter 9); {remedy}, or pass horizon="
        )
    return objective


def check_limits(tol: float | None, memory: int, max_iter: int | None) -> None:
    """`InvalidArgumentError` for limits out of range."""
    check_effort(tol, memory)
    count = None if max_iter is None else as_int(max_iter)
    if max_iter is not None and (count is None or count < 0):
        raise InvalidArgumentError(f"max_iter must be an integer of at least 0, or None; got {max_iter!r}")


def unfold(problem: Problem, stocks: Floats, horizon: int | None, memory: int) -> Unfolded:
    """The graph of all augmented states: closed, or by steps, to a depth where the rest of the return cannot matter."""
    mdp = problem.mdp
    states, keys = np.arange(mdp.n_states), problem.units.key(stocks)
    if horizon is not None:
        steps = layers(problem, states, keys, horizon, horizon, memory)
        if steps is not None:
            return Unfolded(problem, steps, horizon, closed=False)
    elif mdp.gamma == 1 or problem.saturation is not None or ends_within(mdp) is not None:
        nodes = close(problem, states, keys, memory)
        if nodes is not None:
            return Unfolded(problem, [nodes], None, closed=True)
    else:
        rest = -return_range(mdp, -1.0), return_range(mdp, 1.0)
        steps = layers(problem, states, keys, cut_depth(problem, stocks, rest), None, memory)
        if steps is not None:
            return Unfolded(problem, steps, None, closed=False, rest=rest)
    shorter = "pass horizon=" if horizon is None else "shorten the horizon"
    raise MemoryLimitError(
        f"policies are evaluated at every (state, stock) that can be reached, and these are more than "
        f"{memory / 2**20:.3g} MiB hold, perhaps without end; use value_iteration, {shorter}, or raise memory="
    )


# --------------------------------------------------------------------------------------------------
# improvement


@dataclass(frozen=True)
class _Last:
    """The last policy: its pairs, its values, and by how much the optimum can exceed them, by state."""

    chosen: Ints
    value: Floats
    count: int
    settled: bool
    error: Floats


def improve(
    unfolded: Unfolded,
    chosen: Ints,
    most: int | None,
    tol: float | None,
    ceiling: Ceiling,
    first: int = 0,
    gains_before: Floats | None = None,
) -> _Last:
    """Improve until nothing improves, at most ``most`` times. The policy given is the ``first``-th.

    ``gains_before``: what the improvement that led to it gained most at each step.
    """
    for count in bar("improving", steps=iter(range(first, _MOST))):
        value = unfolded.value(chosen)
        known = np.where(value > -np.inf, value, 0.0)
        top, best = unfolded.best(unfolded.worth(value))
        gain = np.where(value > -np.inf, top - known, 0.0)
        better = gain > _graph.TIE * np.maximum(1.0, np.abs(known))
        gains = unfolded.greatest_by_step(gain)
        error = ceiling.error(count, gains, gains_before)
        settled = not better.any()
        if settled or count == most or (tol is not None and error.max() <= tol):
            return _Last(chosen, value, count, settled, error)
        chosen, gains_before = np.where(better, best, chosen), gains
    raise NotOptimizableError("policy iteration did not settle; the values of this problem are too ill-conditioned")


@dataclass(frozen=True)
class Ceiling:
    """How far the optimum can lie above the values of the k-th policy.

    With ``gain_k`` the greatest improvement of one step over all augmented states, and ``xi(s)`` a bound of the sum of
    the weights of the steps to come,

        F* <= F_k + gain_k xi(s),    F* <= F_k + gain_{k-1} (xi(s) - 1),    F* <= F_k + L gamma**k width.

    Where nodes are kept by step, the greatest gain of each step has its own weight instead.
    """

    terminal: NDArray[np.bool_]
    steps: Floats | None  # xi, (S,); None where nodes are kept by step
    weights: Floats  # of the steps
    width: float  # L width; infinite where it is not known
    gamma: float

    @classmethod
    def of(cls, unfolded: Unfolded, stocks: Floats) -> Ceiling:
        mdp, factor = unfolded.problem.mdp, unfolded.problem.factor
        steps = None
        if unfolded.closed:
            steps = np.full(mdp.n_states, 1 / (1 - factor) if factor < 1 else np.inf)
            if (end_components(mdp) < 0).all():
                steps = np.minimum(steps, expected_time(mdp))
        width = np.inf
        if mdp.gamma < 1 and unfolded.horizon is None:
            with suppress(NotOptimizableError):  # no Lipschitz constant: then the other bounds stand alone
                width = max(float(bounds.policy_iteration(mdp, unfolded.problem.objective, 0, c)) for c in stocks)
        weights = np.power(factor, np.arange(len(unfolded.layers)), dtype=np.float64)
        return cls(mdp.terminal, steps, weights, width, mdp.gamma)

    def error(self, count: int, gains: Floats, gains_before: Floats | None) -> Floats:
        """(S,) bounds of ``F* - F_k`` for ``k = count``, from the gains of each step now and one policy earlier."""
        now, before = self._sum(gains, 0), np.inf if gains_before is None else self._sum(gains_before, 1)
        return np.where(self.terminal, 0.0, np.fmin(np.fmin(now, before), self.gamma**count * self.width))

    def _sum(self, gains: Floats, first: int) -> Any:
        """Gains that all steps from ``first`` on can bring together."""
        if self.steps is None:
            return self.weights[first:] @ gains[first:]
        with np.errstate(invalid="ignore"):  # 0 times infinity is no bound
            return gains[0] * np.maximum(self.steps - first, 0.0)


@dataclass(frozen=True)
class Stopped(Wrapped):
    """A table whose policy can still be improved: exact values below, a certified bound of the optimum above."""

    table: ReachableTable
    error: Floats
    farthest: tuple[Floats, Floats]  # least and greatest return of each state

    @property
    def exact(self) -> bool:
        return False

    @property
    def rung(self) -> str:
        return f"{self.table.rung}, not the last; the upper bound is certified"

    def bounds(self, state: Ints, stock: Floats) -> tuple[Floats, Floats]:
        lower, upper = self.table.bounds(state, stock)
        with np.errstate(invalid="ignore"):
            above = np.fmin(upper + self.error[state], self._best_possible(state, stock))
        return lower, np.where(lower > -np.inf, np.maximum(above, upper), lower)

    def _best_possible(self, state: Ints, stock: Floats) -> Floats:
        """Utility of the best return there is; infinite where returns have no bounds."""
        dim = self.table.problem.mdp.reward_dim
        low, high = (stock + end[state] for end in self.farthest)
        known = np.isfinite(low + high) if dim == 1 else np.isfinite(low + high).all(axis=1)
        best = np.full(len(state), np.inf)
        best[known] = self.table.problem.objective.range_on(low[known], high[known], dim)[1]
        return best


def farthest_returns(mdp: MDP, horizon: int | None) -> tuple[Floats, Floats]:
    """Least and greatest return of each state."""
    if horizon is None:
        return -return_range(mdp, -1.0), return_range(mdp, 1.0)
    return -return_range_by_step(mdp, -1.0, horizon)[-1], return_range_by_step(mdp, 1.0, horizon)[-1]


def greatest_gap(policy: Policy, stocks: Floats) -> float:
    """Greatest difference of the bounds over all states and all stocks asked for."""
    n_states = policy.mdp.n_states
    lower, upper = policy.table.bounds(np.repeat(np.arange(n_states), len(stocks)), np.concatenate([stocks] * n_states))
    finite = np.isfinite(lower)
    return float((upper[finite] - lower[finite]).max(initial=0.0))
