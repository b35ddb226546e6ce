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
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rdolib import _graph
from rdolib._improving import (
    Ceiling,
    Stopped,
    check_limits,
    farthest_returns,
    greatest_gap,
    improve,
    require_improvable,
    unfold,
)
from rdolib._rungs import MEMORY, build_problem, check_horizon, check_steps
from rdolib._unfolded import Unfolded
from rdolib.dp import Policy, Solution, check_stocks
from rdolib.errors import InvalidArgumentError
from rdolib.mdp import MDP
from rdolib.objectives import Objective

if TYPE_CHECKING:
    from rdolib.simulate import StockPolicy

Ints = NDArray[np.int64]


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
    utility = require_improvable(mdp, objective, horizon)
    check_limits(tol, memory, max_iter)
    stocks = check_stocks(mdp, stock)
    check_steps(mdp, horizon, memory)
    unfolded = unfold(build_problem(mdp, utility, stocks, horizon), stocks, horizon, memory)
    last = improve(unfolded, _first(unfolded, start), max_iter, tol, Ceiling.of(unfolded, stocks))
    table = unfolded.table(last.chosen, last.value)
    table.iterations = last.count
    table.rung = f"exact: {unfolded.size}, improved {last.count} times"
    answer = table if last.settled else Stopped(table, last.error, farthest_returns(mdp, horizon))
    policy = Policy(mdp, answer, horizon)
    gap = greatest_gap(policy, stocks)
    converged = last.settled or (tol is not None and gap <= tol)
    if not converged:
        warnings.warn(
            f"policy iteration stopped at max_iter = {last.count}, and the policy can still be improved; the optimum "
            f"is at most {gap:.6g} above the values (see bounds)",
            stacklevel=2,
        )
    return Solution(mdp, objective, horizon, stocks, policy, converged, last.count, gap, answer.rung)


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
