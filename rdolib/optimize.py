"""From an MDP and an objective to a plan.

For an expected utility the initial stock is given and one solve is enough. The objectives of `rdolib.risk` choose their
own: each is an extremum, or a root, over ``b`` of an expression in ``max_pi E f(G - b)``, and the plan runs the policy
that is greedy from the stock ``-b``. How ``b`` is found depends on the shape of that expression:

=====================================  ==============================================================
`CVaR`, `MeanCVaR`                     hills: a scan of all candidates, or a certified zoom (`_cvar`)
`OptimisticCVaR`                       convex: where two lines meet, over lotteries (`_optimistic`)
`Expectile`, `Quantile`                falling: a root, a bisection (`_roots`)
`Variance`, `MeanVariance`, `Sharpe`   hills below a convex function: branch and bound (`_moments`)
=====================================  ==============================================================

None of them is a local search: the bounds of a plan hold for every ``b`` and every policy.

Sources: Rockafellar and Uryasev (2000); Bäuerle and Ott (2011); Ávila Pires et al. (2025). The searches and their
bounds are derived in the book.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rdolib._cvar import cvar, mean_cvar
from rdolib._moments import mean_variance, sharpe, variance
from rdolib._optimistic import optimistic_cvar
from rdolib._outer import Found, Start, found_by
from rdolib._roots import expectile, quantile
from rdolib._rungs import MEMORY, check_effort, check_horizon, require_mdp, require_scalar, solve_table
from rdolib.distributions import Distribution, mixture
from rdolib.dp import Policy, check_stocks, law, plain
from rdolib.errors import InvalidArgumentError, NotOptimizableError
from rdolib.mdp import MDP
from rdolib.objectives import Objective
from rdolib.risk import (
    CVaR,
    Expectile,
    MeanCVaR,
    MeanVariance,
    OptimisticCVaR,
    OuterSearch,
    Quantile,
    Sharpe,
    Variance,
)

Floats = NDArray[np.float64]

#: How each kind of objective finds its initial stock: from a start and objectives of one kind to what was found.
_SEARCHES: dict[type[OuterSearch], Callable[[Start, list[Any]], list[Found]]] = {
    CVaR: cvar,
    MeanCVaR: mean_cvar,
    OptimisticCVaR: optimistic_cvar,
    Expectile: expectile,
    Quantile: quantile,
    Variance: variance,
    MeanVariance: mean_variance,
    Sharpe: sharpe,
}
#: Relative gap between bounds up to which a search has closed.
_CLOSED = 1e-9


@dataclass(frozen=True)
class Plan:
    """An optimal policy for one objective and start, with its certificate.

    Attributes
    ----------
    value : float (a tuple for `Lexicographic`)
        The objective at the start under the plan: of the law of ``stock + G`` for fixed-stock objectives, of the law
        of ``G`` for objectives that choose their stock.
    bounds : (float, float)
        Certified lower and upper bound of the optimum. Equal up to rounding where the solver is exact.
    stock : float, or a tuple of m floats
        Initial stock ``c_0`` to run the policy from.
    policy : Policy
    converged : bool
        False when a requested ``tol`` was not reached.
    iterations : int
        Number of solves, for objectives that search over the stock; otherwise sweeps of the one solve.
    residual : float
        Gap between the bounds.
    method : str
        How the answer was obtained.
    mixture : tuple of (float, Plan)
        For `OptimisticCVaR`: the lottery over plans at the start that attains the value, as (probability, plan); one
        plan when no coin is needed. Empty for every other objective. ``stock`` and ``policy`` are then those of `pure`.
    """

    mdp: MDP = field(repr=False)
    objective: Objective
    value: Any
    bounds: tuple[Any, Any]
    stock: Any
    policy: Policy = field(repr=False)
    horizon: int | None
    state: int | None
    converged: bool
    iterations: int
    residual: float
    method: str
    mixture: tuple[tuple[float, Plan], ...] = field(default=(), repr=False)

    @property
    def pure(self) -> Plan:
        """A plan without a lottery: the best component of the mixture, or this plan where there is none.

        Its ``residual`` is its gap to the optimum over lotteries. It need not be the best plan without a lottery.
        """
        return max((plan for _, plan in self.mixture), key=lambda plan: plan.value, default=self)

    @cached_property
    def returns(self) -> Distribution:
        """Law of ``G`` under the plan, without the stock; computed on first use."""
        if self.mixture:
            return mixture([plan.returns for _, plan in self.mixture], [p for p, _ in self.mixture])
        return law(self.policy, start_distribution(self.mdp, self.state), np.array(self.stock), self.horizon)


@dataclass(frozen=True)
class Frontier:
    """Plans for a family of objectives, one for each level."""

    levels: tuple[float, ...]
    plans: tuple[Plan, ...] = field(repr=False)

    @property
    def values(self) -> Floats:
        """Value of each plan, (n_levels,)."""
        return np.array([plan.value for plan in self.plans])

    @property
    def bounds(self) -> Floats:
        """Certified bounds of each optimum, (n_levels, 2)."""
        return np.array([plan.bounds for plan in self.plans])


def start_distribution(mdp: MDP, state: int | None) -> Floats:
    """Initial state distribution (S,): a single state, or ``mdp.initial``."""
    start = mdp.initial if state is None else state
    if state is None and isinstance(start, np.ndarray):
        return np.asarray(start, dtype=np.float64)
    if isinstance(start, bool) or not isinstance(start, int | np.integer) or not 0 <= start < mdp.n_states:
        raise InvalidArgumentError(f"state {start} does not exist; states are 0 to {mdp.n_states - 1}")
    weights = np.zeros(mdp.n_states)
    weights[int(start)] = 1.0
    return weights


def optimize(
    mdp: MDP,
    objective: Objective,
    horizon: int | None = None,
    state: int | None = None,
    stock: ArrayLike | None = None,
    tol: float | None = None,
    memory: int = MEMORY,
) -> Plan:
    """The plan that maximizes an objective of the return.

    Parameters
    ----------
    mdp : MDP
    objective : Objective
    horizon : int, optional
        Number of steps; None means endless.
    state : int, optional
        Initial state; None means ``mdp.initial``, which may be a distribution: then one initial stock serves all.
    stock : float or (m,) floats, optional
        Initial stock of a fixed-stock objective, in units of reward; zero when left out.
    tol : float, optional
        Largest gap between the bounds where the answer is certified rather than exact; None: the best the memory
        allows.
    memory : int
        Limit in bytes. Endless discounted searches with squares use at most 64 MiB a solve unless ``tol`` is given.

    Raises
    ------
    NotOptimizableError
        An objective or horizon dynamic programming cannot solve; the message says what to use instead.
    InvalidArgumentError
        Also when ``stock`` is passed with an objective that chooses its own.

    Examples
    --------
    >>> import rdolib as rdo
    >>> table = {0: {0: [(1.0, 0, 1.0, True)], 1: [(0.5, 0, 3.0, True), (0.5, 0, 0.0, True)]}}
    >>> mdp = rdo.MDP.from_outcomes(table)
    >>> rdo.optimize(mdp, rdo.Mean()).value, rdo.optimize(mdp, rdo.CVaR(0.5)).value
    (1.5, 1.0)
    """
    require_mdp(mdp)
    horizon = check_horizon(horizon)
    check_effort(tol, memory)
    if isinstance(objective, OuterSearch):
        if stock is not None:
            raise InvalidArgumentError(f"{objective!r} chooses its own initial stock; leave stock= out")
        return _search(mdp, [objective], horizon, state, tol, memory)[0]
    stocks = check_stocks(mdp, 0.0 if stock is None else stock, several=False)
    start = start_distribution(mdp, state)
    states = np.flatnonzero(start > 0)
    table = solve_table(mdp, objective, stocks, horizon, tol, memory, states)
    lower, upper = table.bounds(states, stocks[np.zeros(len(states), dtype=np.int64)])
    bad = ~np.isfinite(lower + upper).reshape(len(states), -1).all(axis=1)
    if bad.any():
        raise NotOptimizableError(
            f"from state {states[bad][0]} the objective is {lower[bad][0]}: no policy has a return that "
            "converges to a finite value; pass horizon=, or use gamma < 1"
        )
    low, high = (objective.of_mixture(start[states], value) for value in (lower, upper))
    gap = float(np.abs(np.subtract(high, low)).max())
    value, at_most = plain(low), plain(high)
    return Plan(
        mdp, objective, value, (value, at_most), plain(stocks[0]), Policy(mdp, table, horizon), horizon, state,
        table.exact or tol is None or gap <= tol, table.iterations, gap, table.rung,
    )  # fmt: skip


def frontier(
    mdp: MDP,
    objective: Callable[[float], Objective],
    levels: Iterable[float],
    horizon: int | None = None,
    state: int | None = None,
    tol: float | None = None,
    memory: int = MEMORY,
) -> Frontier:
    """Plans for every level of a family of objectives.

    For `CVaR` and `Quantile` one solve serves all levels where returns form a lattice. With a discount all levels of
    `CVaR` share one search; every other level has its own.

    Parameters
    ----------
    mdp : MDP
    objective : callable
        From a level to an objective, such as ``rdo.CVaR`` or ``lambda w: rdo.MeanCVaR(0.1, w)``.
    levels : iterable of float
    horizon, state, tol, memory
        As for `optimize`.

    Raises
    ------
    NotOptimizableError, InvalidArgumentError
        As for `optimize`; also when there is no level.

    Examples
    --------
    >>> import rdolib as rdo
    >>> table = {0: {0: [(1.0, 0, 1.0, True)], 1: [(0.5, 0, 3.0, True), (0.5, 0, 0.0, True)]}}
    >>> front = rdo.frontier(rdo.MDP.from_outcomes(table), rdo.CVaR, levels=[0.5, 0.75, 1.0])
    >>> front.values.round(6).tolist()
    [1.0, 1.0, 1.5]
    """
    require_mdp(mdp)
    horizon = check_horizon(horizon)
    check_effort(tol, memory)
    if not callable(objective) or isinstance(objective, Objective):
        raise InvalidArgumentError("frontier takes a family of objectives, such as rdo.CVaR: a callable from a level")
    level_list = _numbers(levels)
    objectives = [objective(level) for level in level_list]
    first = objectives[0]
    if isinstance(first, OuterSearch) and all(type(one) is type(first) for one in objectives):
        return Frontier(level_list, tuple(_search(mdp, objectives, horizon, state, tol, memory)))
    return Frontier(level_list, tuple(optimize(mdp, one, horizon, state, tol=tol, memory=memory) for one in objectives))


def _numbers(levels: Iterable[float]) -> tuple[float, ...]:
    """The levels as floats; an error where they are not several numbers, one after another."""
    try:
        given = tuple(levels)
    except TypeError:
        raise InvalidArgumentError(f"levels must be several numbers, such as [0.05, 0.5]; got {levels!r}") from None
    if not given:
        raise InvalidArgumentError("levels is empty; give at least one level")
    for level in given:
        if not isinstance(level, Real) or isinstance(level, bool):
            raise InvalidArgumentError(f"each of levels must be a number, such as 0.05; got {level!r}")
    return tuple(float(level) for level in given)


def _search(
    mdp: MDP, objectives: list[Any], horizon: int | None, state: int | None, tol: float | None, memory: int
) -> list[Plan]:
    """Plans for several objectives of one kind that choose their initial stock."""
    require_scalar(mdp, objectives[0])
    search = next((_SEARCHES[kind] for kind in type(objectives[0]).__mro__ if kind in _SEARCHES), None)
    if search is None:
        raise NotOptimizableError(f"{objectives[0]!r} has no search of its own; {objectives[0].reduction}")
    weights = start_distribution(mdp, state)
    found = found_by(search, mdp, weights, horizon, tol, memory, objectives)

    def plan(objective: OuterSearch, one: Found, component: bool = False) -> Plan:
        gap = one.upper - one.value if one.upper > one.value else 0.0
        # On exact tables the search closes to rounding, or says in the gap how far it came.
        closed = gap <= _CLOSED * max(1.0, abs(one.value))
        method = one.table.rung
        if component:
            method += "; one component of a lottery"
        elif one.table.exact and not closed:
            method += f"; search over the stock open to within {gap:.1g}"
        return Plan(
            mdp, objective, one.value, (one.value, one.upper), one.stock, Policy(mdp, one.table, horizon), horizon,
            state, closed or gap <= (np.inf if tol is None else tol), one.solves, gap, method,
            tuple((p, plan(objective, part, len(one.mixture) > 1)) for p, part in one.mixture),
        )  # fmt: skip

    return [plan(objective, one) for objective, one in zip(objectives, found, strict=True)]
