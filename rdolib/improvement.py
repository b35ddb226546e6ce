"""Policy iteration on stock-augmented states: evaluate a policy exactly, improve it everywhere, repeat.

For an expected utility, ``F(s, c) = E f(c + G)`` under a policy ``pi_k`` of (state, stock), or of (state, stock, step)
with a finite horizon, is computed exactly at every augmented state. Then every augmented state changes its action where
another is better against these values,

    pi_{k+1}(s, c)  in  argmax_a  gamma**p E F_k(S', (c + R) / gamma),

and only there: an action that ties stays. Three facts make this useful.

* *Monotone.* ``F_{k+1} >= F_k`` at every augmented state at once, and ``F_k`` is at least what ``k`` sweeps of value
  iteration reach when they start from the values of ``pi_0``. So with a horizon ``H``, ``F_H`` is the optimum.
* *Bounded.* With gamma < 1 and a Lipschitz utility ``F* - F_k <= L gamma**k width`` (`rdolib.bounds.policy_iteration`).
  And always ``F* <= F_k + gain_k xi(s)``, where ``gain_k`` is the greatest improvement of one step and ``xi(s)`` bounds
  the sum of the weights of the steps to come.
* *Not without continuity.* With gamma < 1 and no horizon the indicator of ``x > 0`` can get worse by a change of action
  that ties; the indicators are refused there.

Sources: Howard (1960) for the classical method; Ávila Pires et al. (2025) for the distributional one; the constants are
derived in the book, chapter "Distributional policy iteration".
"""

from __future__ import annotations

import warnings
from contextlib import suppress
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rdolib import _graph, bounds
from rdolib._checks import as_int
from rdolib._reachable import ReachableTable, close, layers
from rdolib._rungs import MEMORY, build_problem, check_horizon, check_steps, cut_depth, require_plannable
from rdolib._unfolded import Unfolded
from rdolib.dp import Policy, Solution, check_stocks
from rdolib.errors import InvalidArgumentError, MemoryLimitError, NotOptimizableError
from rdolib.mdp import MDP
from rdolib.objectives import ExpectedUtility, Objective
from rdolib.stock import end_components, ends_within, expected_time, return_range, return_range_by_step

if TYPE_CHECKING:
    from rdolib.simulate import StockPolicy

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_MOST = 10_000  # improvements after which rounding must be to blame


def policy_iteration(
    mdp: MDP,
    objective: Objective,
    stock: ArrayLike = 0.0,
    horizon: int | None = None,
    tol: float | None = None,
    memory: int = MEMORY,
    start: ArrayLike | StockPolicy | None = None,
    max_iter: int | None = None,
) -> Solution:
    """Optimal values and an optimal policy by policy iteration, at every state and stock; or those of its k-th policy.

    Every policy is evaluated exactly at all reachable augmented states and then improved at all of them at once, until
    nothing improves. The k-th policy is at every augmented state at least as good as k sweeps of value iteration that
    start from the first one.

    Parameters
    ----------
    mdp : MDP
        With scalar or vector rewards.
    objective : ExpectedUtility
        With gamma < 1 and no horizon it must be Lipschitz where the returns are, unless every policy ends soon.
    stock : float or (n,) floats; for vector rewards (m,) or (n, m) floats
        Initial stocks, in units of reward; each is answered.
    horizon : int, optional
        Number of steps; None means endless.
    tol : float, optional
        Stop improving once the bounds are this close. None: improve until nothing improves.
    memory : int
        Limit in bytes.
    start : Policy, (S,) integer array, or object with ``actions(states, stocks, t)``; optional
        The first policy; by default the lowest action everywhere, or, where that never ends and gamma = 1 without a
        horizon, an action on a way to the end. For an endless horizon it is asked at ``t = 0``. Where the stock matters
        no more it is asked once for each state, at the nearest such stock.
    max_iter : int, optional
        Stop after this many improvements, with the policy reached and its exact values; 0 evaluates the first policy.

    Returns
    -------
    Solution
        ``iterations`` counts improvements. When it stopped early, ``converged`` is False and ``bounds`` are the exact
        value of the policy and a certified upper bound of the optimum.

    Raises
    ------
    NotOptimizableError
        The objective lacks a property that policy iteration needs for this horizon and discount.
    MemoryLimitError
        More augmented states than fit can be reached, perhaps infinitely many.
    InvalidArgumentError
        An argument out of range, or a start that, with gamma = 1 and no horizon, never ends.

    Warns
    -----
    UserWarning
        Improvement stopped early; the message says how far below the optimum the policy can be.

    Examples
    --------
    >>> import rdolib as rdo
    >>> mdp = rdo.MDP.from_outcomes({0: {0: [(1.0, 0, 1.0, True)], 1: [(0.5, 0, 3.0, True), (0.5, 0, 0.0, True)]}})
    >>> solution = rdo.policy_iteration(mdp, rdo.Threshold(), stock=[-1.0, -2.0])
    >>> solution.objective_value(0, -1.0), solution.objective_value(0, -2.0), solution.iterations
    (1.0, 0.5, 1)
    """
    horizon = check_horizon(horizon)
    utility = _require_improvable(mdp, objective, horizon)
    _check_limits(tol, memory, max_iter)
    stocks = check_stocks(mdp, stock)
    unfolded = _unfold(mdp, utility, stocks, horizon, memory)
    last = _improve(unfolded, _first(unfolded, start), max_iter, tol, _Ceiling.of(unfolded, stocks))
    table = unfolded.table(last.chosen, last.value)
    table.iterations = last.count
    table.rung = f"exact: {unfolded.size}, improved {last.count} times"
    answer = table if last.settled else _Stopped(table, last.error, _farthest(mdp, horizon))
    policy = Policy(mdp, answer, horizon)
    gap = _gap(policy, stocks)
    converged = last.settled or (tol is not None and gap <= tol)
    if not converged:
        warnings.warn(
            f"policy iteration stopped at max_iter = {last.count}, and the policy can still be improved; the optimum "
            f"is at most {gap:.6g} above the values (see bounds)",
            stacklevel=2,
        )
    return Solution(mdp, objective, horizon, stocks, policy, converged, last.count, gap, answer.rung)


# --------------------------------------------------------------------------------------------------
# what can be improved


def _require_improvable(mdp: MDP, objective: Objective, horizon: int | None) -> ExpectedUtility:
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


def _check_limits(tol: float | None, memory: int, max_iter: int | None) -> None:
    for name, limit in [("memory", memory), *([] if tol is None else [("tol", tol)])]:
        if not (isinstance(limit, Real) and float(limit) > 0):
            raise InvalidArgumentError(f"{name} must be a positive number; got {limit!r}")
    count = None if max_iter is None else as_int(max_iter)
    if max_iter is not None and (count is None or count < 0):
        raise InvalidArgumentError(f"max_iter must be an integer of at least 0, or None; got {max_iter!r}")


def _unfold(mdp: MDP, utility: ExpectedUtility, stocks: Floats, horizon: int | None, memory: int) -> Unfolded:
    """The graph of all augmented states: closed, or by steps, to a depth where the rest of the return cannot matter."""
    check_steps(mdp, horizon, memory)
    problem = build_problem(mdp, utility, stocks, horizon)
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
        f"policy iteration evaluates at every (state, stock) that can be reached, and these are more than "
        f"{memory / 2**20:.3g} MiB hold, perhaps without end; use value_iteration, {shorter}, or raise memory="
    )


# --------------------------------------------------------------------------------------------------
# the first policy


def _first(unfolded: Unfolded, start: Any) -> Ints:
    """The pair of the first policy at every node; it ends or rests surely wherever any policy does."""
    chosen = unfolded.graph.pair_ptr[:-1].copy() if start is None else _asked(unfolded, start)
    never = unfolded.value(chosen) == -np.inf
    if not never.any():
        return chosen
    out = _graph.ways_out(unfolded.graph)
    helped = never & (out > -2)
    if start is not None and helped.any():
        node = int(np.flatnonzero(helped)[0])
        raise InvalidArgumentError(
            f"start does not surely end from state {unfolded.state[node]}, stock {unfolded.stock(node)}, so with "
            "gamma = 1 and no horizon it has no value; change its actions there, or leave start= out"
        )
    return np.where(helped, np.where(out >= 0, out, unfolded.rest_pair), chosen)


def _asked(unfolded: Unfolded, start: Any) -> Ints:
    """The pairs that a given policy takes."""
    mdp = unfolded.problem.mdp
    by_state = None if hasattr(start, "actions") else _check_actions(mdp, start)
    pairs = [np.empty(0, dtype=np.int64)]
    for t in range(len(unfolded.layers)):
        state, stock = unfolded.ask(t)
        if by_state is not None:
            action = by_state[state]
        else:
            action = np.asarray(start.actions(state, stock, t) if len(state) else state)
            if action.shape != state.shape or action.dtype.kind not in "iu":
                raise InvalidArgumentError(
                    f"start.actions must return {len(state)} integers for {len(state)} states; got {action!r}"
                )
        pairs.append(mdp.pair_index(state, action) - mdp.pair_ptr[state])
    return np.asarray(unfolded.graph.pair_ptr[:-1] + np.concatenate(pairs))


def _check_actions(mdp: MDP, start: ArrayLike) -> Ints:
    action = np.asarray(start)
    if action.shape != (mdp.n_states,) or action.dtype.kind not in "iu":
        raise InvalidArgumentError(
            f"start must be None, an integer array of shape ({mdp.n_states},) with the action of each state, or an "
            f"object with actions(states, stocks, t); got {start!r}"
        )
    return action.astype(np.int64)


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


def _improve(unfolded: Unfolded, chosen: Ints, most: int | None, tol: float | None, ceiling: _Ceiling) -> _Last:
    gains_before: Floats | None = None
    for count in range(_MOST):
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
class _Ceiling:
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
    def of(cls, unfolded: Unfolded, stocks: Floats) -> _Ceiling:
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
class _Stopped:
    """A table whose policy can still be improved: exact values below, a certified bound of the optimum above."""

    table: ReachableTable
    error: Floats
    farthest: tuple[Floats, Floats]  # least and greatest return of each state
    exact: bool = False

    @property
    def rung(self) -> str:
        return f"{self.table.rung}, not the last; the upper bound is certified"

    @property
    def iterations(self) -> int:
        return self.table.iterations

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

    def action(self, state: Ints, stock: Floats, t: int) -> NDArray[np.int32]:
        return self.table.action(state, stock, t)

    def side(self, state: Ints, stock: Floats, t: int) -> NDArray[np.int8]:
        return self.table.side(state, stock, t)

    def rests(self, state: Ints, stock: Floats) -> NDArray[np.bool_]:
        return self.table.rests(state, stock)


def _farthest(mdp: MDP, horizon: int | None) -> tuple[Floats, Floats]:
    """Least and greatest return of each state."""
    if horizon is None:
        return -return_range(mdp, -1.0), return_range(mdp, 1.0)
    return -return_range_by_step(mdp, -1.0, horizon)[-1], return_range_by_step(mdp, 1.0, horizon)[-1]


def _gap(policy: Policy, stocks: Floats) -> float:
    """Greatest difference of the bounds over all states and all stocks asked for."""
    n_states = policy.mdp.n_states
    lower, upper = policy.table.bounds(np.repeat(np.arange(n_states), len(stocks)), np.concatenate([stocks] * n_states))
    finite = np.isfinite(lower)
    return float((upper[finite] - lower[finite]).max(initial=0.0))
