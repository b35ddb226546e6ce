"""Limits that must hold surely, and the best that can be had under them.

A limit ``G_i >= l_i`` holds *surely* when it holds on every path of positive probability. From the stock ``c = -l``,

    max_pi E sum_i min(c_i + G_i, 0) = 0    exactly when one policy meets all limits surely,

because a sum of numbers that are never positive is zero only when each is. Otherwise the maximum is negative, and minus
this number is the least expected shortfall: no policy falls short by less on average. That is a certificate. Whether
the number *is* zero cannot be read off a rounded sum, where a path of probability 1e-20 disappears. So the question is
decided without probabilities:

* one limit: by the best worst case, ``max_pi ess inf G_i >= l_i``;
* several, for a finite horizon: by the expectation of ``0`` where all limits are met and ``-inf`` where one is missed,
  which is ``-inf`` however rare the miss.

The best objective among the policies that meet the limits is the second entry of a `Lexicographic` objective whose
first entry is that expectation. The limits that conflict are found by leaving out one after the other: what cannot be
left out is an irreducible infeasible set.

Sources: Ávila Pires et al. (2025) for sure constraints by the shortfall; Chinneck and Dravnieks (1991) for the
deletion filter. The decision without probabilities is derived in the book.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from rdolib._rungs import MEMORY, require_mdp
from rdolib._surely import (
    Limited,
    check_component,
    check_limits,
    first_surely,
    make_plan,
    part,
    some,
    squeezed,
    varied,
)
from rdolib.dp import plain
from rdolib.errors import InvalidArgumentError, MemoryLimitError, NotOptimizableError
from rdolib.mdp import MDP
from rdolib.objectives import (
    EssInf,
    ExpectedUtility,
    Lexicographic,
    Mean,
    Objective,
    Shortfall,
)
from rdolib.optimize import Plan, optimize

Floats = NDArray[np.float64]

#: Bytes for the bounds of several limits without a horizon: more would take minutes and sharpen them little.
_ENDLESS = 2**24


@dataclass(frozen=True)
class Conflict:
    """Limits that no policy meets together, though without any one of them the rest can be met.

    Attributes
    ----------
    limits : dict of int to float
        Component -> limit.
    shortfall : float
        Certificate: under every policy the expected shortfalls of these limits add up to at least this, which is
        positive.
    without : dict of int to Plan
        For each of several limits a plan that meets all the others surely: none can be spared from the conflict.
        Empty for a single limit; a limit is missing where it stayed open whether the others can be met.
    """

    limits: dict[int, float]
    shortfall: float
    without: dict[int, Plan] = field(repr=False)

    def __str__(self) -> str:
        shown = " and ".join(f"G[{j}] >= {limit:.6g}" for j, limit in self.limits.items())
        if len(self.limits) == 1:
            return f"no policy meets {shown} surely; the expected shortfall is at least {self.shortfall:.6g}"
        needed = ", though without any one of them the rest can be met" if len(self.without) == len(self.limits) else ""
        return (
            f"no policy meets {shown} surely together{needed}; their expected shortfalls add up to at least "
            f"{self.shortfall:.6g}"
        )


@dataclass(frozen=True)
class Feasibility:
    """Whether limits can be met surely, with the evidence.

    Attributes
    ----------
    limits : dict of int to float
        Component -> limit; a scalar return is component 0.
    feasible : bool or None
        Exact for one limit, and for several over a finite horizon whose reachable stocks fit the memory. Otherwise it
        is decided by ``bounds``, to within rounding, and None where they leave it open.
    plan : Plan
        If feasible, it meets every limit surely. Otherwise it falls short least on average: ``plan.value`` is minus its
        expected shortfall.
    bounds : (float, float)
        Certified lower and upper bound of the least expected shortfall (of all limits together).
    conflict : Conflict or None
        If not feasible: an irreducible set of limits that no policy meets together.
    """

    limits: dict[int, float]
    feasible: bool | None
    plan: Plan = field(repr=False)
    bounds: tuple[float, float]
    conflict: Conflict | None


@dataclass(frozen=True)
class ConstraintPrice:
    """The best mean as a function of one limit that must hold surely.

    Attributes
    ----------
    levels : tuple of float
        The limits tried.
    plans : tuple of (Plan or None)
        The best plan under each; None where no policy meets it surely.
    free : float
        The best mean without this limit.
    """

    levels: tuple[float, ...]
    plans: tuple[Plan | None, ...] = field(repr=False)
    free: float

    @property
    def values(self) -> Floats:
        """Best mean under each limit, (n_levels,); NaN where it cannot be met."""
        return np.array([np.nan if plan is None else plan.value for plan in self.plans])

    @property
    def prices(self) -> Floats:
        """What each limit costs on average, ``free - values``."""
        return self.free - self.values


def feasibility(
    mdp: MDP,
    limits: float | Mapping[int, float],
    horizon: int | None = None,
    state: int | None = None,
    memory: int = MEMORY,
) -> Feasibility:
    """Whether some policy meets all limits ``G_i >= l_i`` surely: a plan that does, or the limits that conflict.

    Parameters
    ----------
    mdp : MDP
        With scalar or vector rewards.
    limits : float, or mapping of int to float
        The floor of a scalar return; or component -> floor. What must stay below a ceiling is recorded with a minus
        sign, as a cost.
    horizon : int, optional
        Number of steps; None means endless.
    state : int, optional
        Initial state; None means ``mdp.initial``. If that is a distribution, limits have to hold from each of its
        states.
    memory : int
        Limit in bytes.

    Returns
    -------
    Feasibility

    Raises
    ------
    InvalidArgumentError
        A component that does not exist, a limit that is not a finite number, no limit.
    NotOptimizableError
        Returns that may not converge.

    Notes
    -----
    A limit counts as met when it is missed by at most 1e-10 (times the largest of 1 and the limits), the rounding of
    stocks.

    Sources: Ávila Pires et al. (2025); Chinneck and Dravnieks (1991).

    Examples
    --------
    >>> import rdolib as rdo
    >>> table = {0: {0: [(1.0, 0, 1.0, True)], 1: [(0.5, 0, 3.0, True), (0.5, 0, 0.0, True)]}}
    >>> mdp = rdo.MDP.from_outcomes(table)
    >>> rdo.feasibility(mdp, limits=1.0).feasible
    True
    >>> check = rdo.feasibility(mdp, limits=2.0)
    >>> check.feasible, check.bounds
    (False, (1.0, 1.0))
    >>> print(check.conflict)
    no policy meets G[0] >= 2 surely; the expected shortfall is at least 1
    """
    problem = Limited.of(mdp, limits, horizon, state, memory)
    answer = _decide(problem)
    if answer.feasible is not False:
        return answer
    return replace(answer, conflict=_conflict(problem, answer))


def constrained(
    mdp: MDP,
    limits: float | Mapping[int, float],
    maximize: int | Objective = 0,
    horizon: int | None = None,
    state: int | None = None,
    memory: int = MEMORY,
) -> Plan:
    """The best plan among those that meet all limits ``G_i >= l_i`` surely.

    Parameters
    ----------
    mdp, limits, state, memory
        As for `feasibility`.
    maximize : int or Objective
        A component, for its mean; or an objective of the return ``G`` that can be the last of `Lexicographic`: an
        expected utility, `EssInf`, `EssSup`; or a `Lexicographic` itself.
    horizon : int, optional
        Number of steps; may be left out where every path ends.

    Returns
    -------
    Plan
        ``value`` is the objective of the law of ``G``; ``stock`` is minus the limits, from which the policy is to be
        run (zero for components without one).

    Raises
    ------
    InvalidArgumentError
        Limits that no policy meets surely: the message names those that conflict and by how much. Also as for
        `feasibility`.
    NotOptimizableError
        No horizon where some path can go on for ever; an objective that dynamic programming cannot put second.
    MemoryLimitError

    Notes
    -----
    Sources: Ávila Pires et al. (2025) for the constraint; the order of the two objectives is that of `Lexicographic`.

    Examples
    --------
    >>> import rdolib as rdo
    >>> table = {0: {0: [(1.0, 0, 1.0, True)], 1: [(0.5, 0, 3.0, True), (0.5, 0, 0.0, True)]}}
    >>> mdp = rdo.MDP.from_outcomes(table)
    >>> rdo.constrained(mdp, limits=0.0).value, rdo.constrained(mdp, limits=1.0).value
    (1.5, 1.0)
    """
    problem = Limited.of(mdp, limits, horizon, state, memory)
    if isinstance(maximize, Objective):
        plan = _best_objective(problem, maximize)
    else:
        plan = _best_means(problem, [problem.limits], check_component(mdp, maximize))[0]
    if plan is None:
        raise InvalidArgumentError(f"{_conflict(problem)}; lower a limit (rdo.feasibility has the plans)")
    return plan


def constraint_price(
    mdp: MDP,
    limits: Sequence[float] | Mapping[int, float | Sequence[float]],
    maximize: int = 0,
    horizon: int | None = None,
    state: int | None = None,
    memory: int = MEMORY,
) -> ConstraintPrice:
    """The best mean under each of several limits that must hold surely: what a limit costs, from one solve.

    Parameters
    ----------
    mdp, horizon, state, memory
        As for `constrained`.
    limits : (n,) floats, or mapping of int to float or (n,) floats
        The limits to try for a scalar return; or component -> limit, where exactly one component has several.
    maximize : int
        The component whose mean is maximized.

    Returns
    -------
    ConstraintPrice

    Raises
    ------
    InvalidArgumentError
        Also when the limits that are kept fixed conflict.
    NotOptimizableError, MemoryLimitError
        As for `constrained`.

    Examples
    --------
    >>> import rdolib as rdo
    >>> table = {0: {0: [(1.0, 0, 1.0, True)], 1: [(0.5, 0, 3.0, True), (0.5, 0, 0.0, True)]}}
    >>> curve = rdo.constraint_price(rdo.MDP.from_outcomes(table), limits=[0.0, 1.0, 2.0])
    >>> curve.values.tolist(), curve.prices.tolist()
    ([1.5, 1.0, nan], [0.0, 0.5, nan])
    """
    require_mdp(mdp)
    goal = check_component(mdp, maximize)
    component, levels, fixed = varied(mdp, limits)
    cases = [check_limits(mdp, {**fixed, component: level}) for level in levels]
    problem = Limited.of(mdp, cases[0], horizon, state, memory)
    plans = _best_means(problem, cases, goal)
    if fixed:
        free = float(constrained(mdp, fixed, goal, horizon, state, memory).value)
    else:
        mean = optimize(part(mdp, (goal,)), Mean(), problem.horizon, state, memory=memory)
        free = float(mean.value)
    return ConstraintPrice(tuple(case[component] for case in cases), tuple(plans), free)


# ---------------------------------------------------------------------------------------------------- feasibility


def _decide(problem: Limited) -> Feasibility:
    """Whether the limits can be met, without looking for a conflict."""
    try:
        feasible, plan = _surely(problem)
    except (NotOptimizableError, MemoryLimitError):
        feasible, plan = None, None
    if plan is not None:
        return Feasibility(problem.limits, True, plan, (0.0, 0.0), None)
    components = tuple(problem.limits)
    rough = problem.horizon is None and len(components) > 1
    least = optimize(
        part(problem.mdp, components), Shortfall(), problem.horizon, problem.state,
        plain(squeezed(problem.stock(components))), memory=min(problem.memory, _ENDLESS) if rough else problem.memory,
    )  # fmt: skip
    low, high = (max(0.0, -bound) for bound in reversed(least.bounds))
    if feasible is None and (low > problem.slack or high <= problem.slack):
        feasible = high <= problem.slack
    plan = make_plan(problem, components, least.policy.table, some(problem.mdp, Shortfall(), components), least.bounds)
    return Feasibility(problem.limits, feasible, plan, (low, high), None)


def _surely(problem: Limited) -> tuple[bool | None, Plan | None]:
    """Feasible without regard to probabilities, and the plan if so; None where this way does not lead to an answer."""
    mdp, components = problem.mdp, tuple(problem.limits)
    if len(components) == 1:
        worst = optimize(part(mdp, components), EssInf(), problem.horizon, problem.state, memory=problem.memory)
        table, feasible = worst.policy.table, bool(worst.value >= problem.limits[components[0]] - problem.slack)
    elif problem.horizon is None:
        return None, None
    else:
        table, values = first_surely(problem, components, problem.stock(components)[None], [Shortfall()])
        feasible = bool(values[0, 0] == 0)
    objective = some(mdp, Shortfall(), components)
    return feasible, make_plan(problem, components, table, objective, (0.0, 0.0)) if feasible else None


def _conflict(problem: Limited, whole: Feasibility | None = None) -> Conflict:
    """An irreducible infeasible set within limits that no policy meets."""
    for j, limit in problem.limits.items():
        alone = _decide(replace(problem, limits={j: limit}))
        if alone.feasible is False:
            return Conflict(alone.limits, alone.bounds[0], {})
    kept, last, without = problem.limits, whole, {}
    for j in problem.limits:
        rest = _decide(replace(problem, limits={i: limit for i, limit in kept.items() if i != j}))
        if rest.feasible is False:
            kept, last = rest.limits, rest
        elif rest.feasible:
            without[j] = rest.plan
    last = last or _decide(problem)
    return Conflict(kept, last.bounds[0], without)


# ---------------------------------------------------------------------------------------------------- optimization


def _best_means(problem: Limited, cases: list[dict[int, float]], goal: int) -> list[Plan | None]:
    """For each case of limits (of the same components) the plan of the best mean; None where a limit is missed."""
    components = sorted({goal, *problem.limits})
    place = components.index(goal)
    problems = [replace(problem, limits=limits) for limits in cases]
    stocks = np.array([one.stock(components) for one in problems])
    mean = some(part(problem.mdp, components), Mean(), [place])
    table, values = first_surely(problem, components, stocks, [mean])
    objective = some(problem.mdp, Mean(), [goal])
    return [
        make_plan(one, components, table, objective, (value - float(stock[place]),) * 2) if miss == 0 else None
        for one, stock, (miss, value) in zip(problems, stocks, values.tolist(), strict=True)
    ]


def _best_objective(problem: Limited, objective: Objective) -> Plan | None:
    """The plan of the best objective of the law of ``G``; None where a limit is missed."""
    goals = objective.objectives if isinstance(objective, Lexicographic) else (objective,)
    if not objective.indifferent_to_mixtures:
        raise NotOptimizableError(
            f"{objective!r} lacks indifference to mixtures, so it cannot come after a constraint; maximize a mean, an "
            "expected utility, rdo.EssInf or rdo.EssSup"
        )
    components = range(problem.mdp.reward_dim)
    limits = -problem.stock(components)
    table, values = first_surely(problem, components, -limits[None], [_of_return(one, limits) for one in goals])
    if values[0, 0] != 0:
        return None
    # The worst and the best case of `stock + G` contain the stock; utilities were told to leave it out.
    found = [
        float(v + (limits[0] if isinstance(k, EssInf) else 0.0)) for k, v in zip(goals, values[0, 1:], strict=True)
    ]
    value = tuple(found) if isinstance(objective, Lexicographic) else found[0]
    return make_plan(problem, components, table, objective, (value, value))


def _of_return(objective: Objective, limits: Floats) -> Objective:
    """The objective of ``G`` as one of ``G - limits``, which is what the stock knows."""
    if not isinstance(objective, ExpectedUtility):
        return objective
    shift = squeezed(limits)
    return ExpectedUtility(lambda x: objective.utility(x + shift, len(limits)))
