"""Generalized policy improvement: from several policies to one that is at least as good as each of them everywhere.

Policies are evaluated once; their return laws ``eta_i`` then answer every utility (`rdolib.evaluate`). For an expected
utility, ``F_K eta(s, c) = E f(c + G)`` with ``G ~ eta(s, c)``, let each augmented state follow the policy that is best
there,

    eta^(s, c) = eta_{i*}(s, c),        i*(s, c)  in  argmax_i  F_K eta_i(s, c).

Then ``F_K T_* eta^ >= F_K eta^``: one more step of ``i*`` gives ``F_K eta_{i*}``, what follows that step is worth at
least as much under ``eta^``, and the best action is at least as good as the action of ``i*``. By monotonicity of the
Bellman operator the policy that is greedy for ``eta^`` has a return law ``eta'`` with

    F_K eta'  >=  F_K eta^  >=  F_K eta_i       for all i, at every augmented state at once.

Where no action is better than that of ``i*``, its action stays. Without a discount and without a horizon the actions
must also lead to an end: where the lowest of the best actions do not, those are taken that get out in the fewest
stages; and in a tie the first of the best policies is followed, so that no circle of policies that wait for each other
can arise.

Sources: Barreto et al. (2017), for generalized policy improvement in expectation; Ávila Pires et al. (2025), for
generalized policy evaluation of distributions; the improvement of stock-augmented policies is derived in the book,
chapter "Evaluating once, answering everything".
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rdolib import _graph
from rdolib._behavior import Behavior, Planned, behavior_of
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
from rdolib._interned import InternedUnits
from rdolib._reachable import Problem, ReachableTable
from rdolib._rungs import MEMORY, build_problem, check_horizon, check_steps
from rdolib._unfolded import Unfolded, far_stock, flats
from rdolib.dp import Policy, Solution, check_stocks
from rdolib.errors import InvalidArgumentError
from rdolib.evaluation import unwrapped
from rdolib.mdp import MDP
from rdolib.objectives import Objective
from rdolib.stock import Saturation, Units, near_zero

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Improvement(Solution):
    """A policy that is at every augmented state at least as good as each of several old ones.

    ``objective_value`` and ``returns`` belong to the new policy, and ``bounds`` are its value and a certified upper
    bound of the optimum. ``converged`` says that nothing improves the new policy, so that it is optimal.
    """

    _followed: Policy = field(repr=False)  # its "actions" are indices of old policies
    _old: tuple[ReachableTable, ...] = field(repr=False)

    def choice(self, state: int, stock: ArrayLike, t: int = 0) -> int:
        """Index of the old policy that is best at one state, stock and step, the first of them in a tie.

        The new policy takes the action of that one, unless another action is better when the best old policies follow.
        """
        best = self._followed.action(state, stock, t)
        table = self._old[0]
        return best if table.endless or t < len(table.nodes) else 0  # so late that all tie

    def old_values(self, state: int, stock: ArrayLike = 0.0) -> Floats:
        """(n,) values of the objective under the old policies from a state and stock; -inf where one never ends."""
        solutions = [replace(self, policy=replace(self.policy, table=table)) for table in self._old]
        return np.array([one.objective_value(state, stock) for one in solutions])


def generalized_policy_improvement(
    mdp: MDP,
    policies: Sequence[Any],
    objective: Objective,
    stock: ArrayLike = 0.0,
    horizon: int | None = None,
    memory: int = MEMORY,
) -> Improvement:
    """One policy that is at least as good as each of several given ones, at every state and stock at once.

    Every policy is evaluated exactly at all reachable augmented states. The new one is greedy with respect to the best
    of these values at each of them. With one policy given it is the ordinary policy improvement.

    Parameters
    ----------
    mdp : MDP
        With scalar or vector rewards.
    policies : list
        At least one; each is anything that `evaluate` accepts: a Policy, Plan or Solution, actions (S,), probabilities
        (S, A), or an object with ``actions(states, stocks, t)``. Without a horizon, where the augmented states close,
        such an object is taken to be stationary and asked at ``t = 0``.
    objective : ExpectedUtility
        With gamma < 1 and no horizon it must be Lipschitz where the returns are, unless every policy ends soon.
    stock : float or (n,) floats; for vector rewards (m,) or (n, m) floats
        Initial stocks, in units of reward; each is answered.
    horizon : int, optional
        Number of steps; None means endless.
    memory : int
        Limit in bytes.

    Returns
    -------
    Improvement
        A `Solution` with, besides, ``choice(state, stock, t=0)``: the index of the old policy that is best there, and
        ``old_values(state, stock)``: the values of all of them. It is one improvement; the new policy need not be
        optimal, and ``bounds`` say how far from the optimum it can be.

    Raises
    ------
    InvalidArgumentError
        No policy, or one of a wrong form or made for something else; the message has its index. With gamma = 1 and no
        horizon, policies none of which surely ends from some augmented state.
    NotOptimizableError
        The objective lacks a property that policy improvement needs for this horizon and discount.
    MemoryLimitError
        More augmented states than fit can be reached, perhaps infinitely many.

    Examples
    --------
    >>> import rdolib as rdo
    >>> mdp = rdo.MDP.from_outcomes({0: {0: [(1.0, 0, 1.0, True)], 1: [(0.5, 0, 3.0, True), (0.5, 0, 0.0, True)]}})
    >>> better = rdo.generalized_policy_improvement(mdp, [[0], [1]], rdo.Threshold(), stock=[-1.0, -2.0])
    >>> [(better.choice(0, c), better.objective_value(0, c)) for c in (-1.0, -2.0)]
    [(0, 1.0), (1, 0.5)]
    """
    horizon = check_horizon(horizon)
    utility = require_improvable(mdp, objective, horizon)
    check_limits(None, memory, None)
    stocks = check_stocks(mdp, stock)
    behaviors = _behaviors(mdp, policies, horizon)
    check_steps(mdp, horizon, memory)
    problem = _problem(build_problem(mdp, utility, stocks, horizon), horizon, behaviors)
    unfolded = unfold(problem, stocks, horizon, memory)
    best = _Best.of(unfolded, behaviors)
    chosen, gains = _greedy(unfolded, best)
    last = improve(unfolded, chosen, 1, None, Ceiling.of(unfolded, stocks), 1, gains)
    table = unfolded.table(chosen, last.value)
    table.iterations = 1
    table.rung = f"exact: {unfolded.size}, improved once on the best of {len(policies)}"
    answer = table if last.settled else Stopped(table, last.error, farthest_returns(mdp, horizon))
    policy = Policy(mdp, answer, horizon)
    return Improvement(
        mdp, objective, horizon, stocks, policy, last.settled, 1, greatest_gap(policy, stocks), answer.rung,
        _followed=Policy(mdp, _labeled(unfolded, best), horizon),
        _old=tuple(unfolded.table(chosen, value) for value in best.values),
    )  # fmt: skip


# --------------------------------------------------------------------------------------------------
# the old policies


def _behaviors(mdp: MDP, policies: Sequence[Any], horizon: int | None) -> list[Behavior]:
    if not isinstance(policies, list | tuple) or len(policies) == 0:
        raise InvalidArgumentError(f"policies must be a list of at least one policy; got {policies!r:.80}")
    behaviors = []
    for i, policy in enumerate(policies):
        if getattr(policy, "mixture", None):
            raise InvalidArgumentError(
                f"policies[{i}] is a lottery over plans, drawn at the start, and no policy of the state and the stock; "
                "pass its parts, [plan for _, plan in mixture]"
            )
        try:
            behaviors.append(behavior_of(mdp, unwrapped(mdp, policy, horizon)))
        except InvalidArgumentError as error:
            raise InvalidArgumentError(f"policies[{i}]: {error}") from None
    return behaviors


@dataclass(frozen=True)
class _Agreed(Saturation):
    """Saturation where the stock matters no more under any utility with a kink or a jump at zero only."""

    @property
    def linear(self) -> bool:
        """No: a policy may look at the stock although the utility does not."""
        return False

    def side(self, state: Ints, stock: Floats, left: int = 0, slack: float = 0.0) -> NDArray[np.int8]:
        """As for the indicator, whose band is the widest."""
        zero = near_zero(stock, slack)
        sure, lost = stock >= -self.least[left, state] - zero, stock < -self.greatest[left, state] - zero
        return np.where(sure, 1, np.where(lost, -1, 0)).astype(np.int8)


def _problem(problem: Problem, horizon: int | None, behaviors: list[Behavior]) -> Problem:
    """The problem, with stocks taken together only where they matter no more to any of the policies either."""
    mdp, saturation = problem.mdp, problem.saturation
    if saturation is None or not any(behavior.sees_stock for behavior in behaviors):
        return problem
    if isinstance(saturation, Saturation):
        agreed = replace(problem, saturation=_Agreed(*(getattr(saturation, part.name) for part in fields(saturation))))
        if all(_agrees(agreed, horizon, behavior) for behavior in behaviors):
            return agreed
    units = problem.units
    if horizon is None and mdp.gamma < 1:  # keys grow beyond what integers in floats can count
        plain = Units.floats(mdp, np.zeros(1))
        units = plain if mdp.reward_dim == 1 else InternedUnits(plain, mdp.reward_dim)
    return replace(problem, units=units, saturation=None)


def _agrees(problem: Problem, horizon: int | None, behavior: Behavior) -> bool:
    """Whether a policy acts by the state alone wherever the stock matters no more but the return still does."""
    if not behavior.sees_stock:
        return True
    for t in range(horizon or 1):
        left = 0 if horizon is None else horizon - t
        state, side = flats(problem, left)
        if len(state) and not behavior.side(state, far_stock(problem, state, side, left), t).all():
            return False
    return True


def _weights(unfolded: Unfolded, behavior: Behavior, i: int) -> Floats:
    """(n_pairs,) probabilities with which a policy takes the pairs of every node."""
    if unfolded.closed and isinstance(behavior, Planned) and behavior.sees_step:
        raise InvalidArgumentError(
            f"policies[{i}] acts by the step, and without a horizon the policies must not; pass horizon=, or solve for "
            "it with an objective whose optimum is stationary"
        )
    mdp, graph = unfolded.problem.mdp, unfolded.graph
    weight = np.zeros(len(unfolded.pair))
    for t, layer in enumerate(unfolded.layers):
        state, stock = unfolded.ask(t)
        if len(state) == 0:
            continue
        try:
            pair, owner, prob = behavior.pairs(state, stock, t)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(f"policies[{i}]: {error}") from None
        weight[graph.pair_ptr[layer.first + owner] + pair - mdp.pair_ptr[state[owner]]] = prob
    return weight


@dataclass
class _Best:
    """The values of all policies at every node; there, the best value, whose it is, and what that policy does."""

    values: list[Floats]
    value: Floats
    followed: Ints
    weight: Floats

    @classmethod
    def of(cls, unfolded: Unfolded, behaviors: list[Behavior]) -> _Best:
        n = unfolded.graph.n_nodes
        best = cls([], np.full(n, -np.inf), np.zeros(n, dtype=np.int64), np.zeros(len(unfolded.pair)))
        for i, behavior in enumerate(behaviors):
            weight = _weights(unfolded, behavior, i)
            best.add(i, unfolded.mixed_value(weight), weight, unfolded.pair_node)
        return best

    def add(self, i: int, value: Floats, weight: Floats, pair_node: Ints) -> None:
        """One more policy; it is followed only where it is better than all before."""
        better = _exceeds(value, self.value) if i else np.ones(len(value), dtype=np.bool_)
        self.values.append(value)
        self.value = np.where(better, value, self.value)
        self.followed[better] = i
        self.weight = np.where(better[pair_node], weight, self.weight)


# --------------------------------------------------------------------------------------------------
# the new policy


def _exceeds(new: Floats, old: Floats) -> Bools:
    known = np.where(old > -np.inf, old, 0.0)
    return np.where(old > -np.inf, new > known + _graph.TIE * np.maximum(1.0, np.abs(known)), new > -np.inf)


def _greedy(unfolded: Unfolded, best: _Best) -> tuple[Ints, Floats]:
    """The pair of the new policy at every node, and by how much one step improves the best values in each layer."""
    graph, node = unfolded.graph, unfolded.pair_node
    _require_end(unfolded, best.value)
    worth = unfolded.worth(best.value)
    top, _ = unfolded.best(worth)
    better = _exceeds(top, best.value)
    goal = np.where(better, top, best.value)
    slack = np.where(better, 1.0, 10.0) * _graph.TIE * np.maximum(1.0, np.abs(goal))  # the followed pairs always pass
    floor = np.where(goal > -np.inf, goal - slack, -np.inf)
    allowed = (worth >= floor[node]) & (better[node] | (best.weight > 0))
    index = np.flatnonzero(allowed)[::-1]
    chosen = graph.pair_ptr[:-1].copy()
    chosen[node[index]] = index
    if unfolded.closed and not unfolded.discounted and (unfolded.value(chosen) < floor).any():
        chosen = _leading_out(unfolded, allowed, np.where(graph.stop >= floor, graph.stop, -np.inf), chosen)
    known = best.value > -np.inf
    return chosen, unfolded.greatest_by_step(np.where(known, top - np.where(known, best.value, 0.0), 0.0))


def _leading_out(unfolded: Unfolded, allowed: Bools, stop: Floats, otherwise: Ints) -> Ints:
    """Of the allowed pairs of each node one that surely leads to an end, or to a rest where ``stop`` allows it."""
    out = _graph.ways_out(_graph.restrict(unfolded.graph, allowed, stop))
    chosen = np.where(out == -1, unfolded.rest_pair, otherwise)
    chosen[out >= 0] = np.flatnonzero(allowed)[out[out >= 0]]
    return chosen


def _require_end(unfolded: Unfolded, value: Floats) -> None:
    never = value == -np.inf
    if not never.any():
        return
    helped = np.flatnonzero(never & (_graph.ways_out(unfolded.graph) > -2))
    if len(helped):
        raise InvalidArgumentError(
            f"none of the policies surely ends from state {unfolded.state[helped[0]]}, stock "
            f"{unfolded.stock(int(helped[0]))}, so with gamma = 1 and no horizon none has a value there; add one that "
            "ends, or pass horizon="
        )


def _labeled(unfolded: Unfolded, best: _Best) -> ReachableTable:
    """A table whose actions are the policies followed, the first one where all are worth the same."""
    view, saturation = copy(unfolded), unfolded.problem.saturation
    if isinstance(saturation, Saturation):
        zero = np.zeros_like(saturation.low_action)
        saturation = replace(saturation, low_action=zero, high_action=zero)
    elif saturation is not None:
        saturation = replace(saturation, sure_action=np.zeros_like(saturation.sure_action))
    view.problem = replace(unfolded.problem, saturation=saturation)
    return view.answers(best.followed.astype(np.int32), best.value, np.zeros(len(best.value), dtype=np.bool_))
