"""From an MDP and an objective to a plan.

For an expected utility the initial stock is given and one solve is enough. `CVaR` chooses its own: with
``V(s, c) = max_pi E min(c + G, 0)``,

    max_pi CVaR_tau(G) = max_b g(b),        g(b) = b + V(s_0, -b) / tau,

and the plan runs the policy that is greedy for ``V`` from the stock ``c_0 = -b``. Three facts make the search exact:

* ``b`` may be restricted to possible returns;
* ``g(b) <= b``, so nothing below the best value found so far has to be tried;
* the slope of ``g`` lies in ``[1 - 1/tau, 1]``, which bounds ``g`` between points that were tried.

``g`` is a maximum of concave functions and not concave itself: it can have several hills, so no point is skipped
without a bound. With ``gamma = 1`` the possible returns form a lattice and all of them are tried; otherwise a
certified zoom narrows ``b`` down.

Sources: Rockafellar and Uryasev (2000); Bäuerle and Ott (2011); Ávila Pires et al. (2025). The bounds on the search
are derived in the book, chapter 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rdolib._cvar import CVaRSearch
from rdolib._rungs import MEMORY, check_horizon, require_mdp, require_scalar, solve_table
from rdolib.distributions import Distribution
from rdolib.dp import Policy, check_stocks, law, plain
from rdolib.errors import InvalidArgumentError, NotOptimizableError
from rdolib.mdp import MDP
from rdolib.objectives import Objective
from rdolib.risk import CVaR, OuterSearch

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


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

    @cached_property
    def returns(self) -> Distribution:
        """Law of ``G`` under the plan, without the stock; computed on first use."""
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
        Limit in bytes.

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
    if isinstance(objective, OuterSearch):
        if stock is not None:
            raise InvalidArgumentError(f"{objective!r} chooses its own initial stock; leave stock= out")
        require_scalar(mdp, objective)
        if isinstance(objective, CVaR):
            return _cvar_plans(mdp, [objective], horizon, state, tol, memory)[0]
        raise NotOptimizableError(f"{objective!r}: {objective.reduction}")
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
    """Plans for every level of a family of objectives. For `CVaR` one solve serves them all.

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
    if not callable(objective) or isinstance(objective, Objective):
        raise InvalidArgumentError("frontier takes a family of objectives, such as rdo.CVaR: a callable from a level")
    if not isinstance(levels, Iterable):
        raise InvalidArgumentError(f"levels must be several numbers, such as [0.05, 0.5]; got {levels!r}")
    level_list = tuple(float(x) for x in levels)
    if not level_list:
        raise InvalidArgumentError("levels is empty; give at least one level")
    objectives = [objective(level) for level in level_list]
    cvars = [one for one in objectives if isinstance(one, CVaR)]
    if len(cvars) == len(objectives):
        require_scalar(mdp, cvars[0])
        return Frontier(level_list, tuple(_cvar_plans(mdp, cvars, horizon, state, tol, memory)))
    return Frontier(level_list, tuple(optimize(mdp, one, horizon, state, tol=tol, memory=memory) for one in objectives))


def _cvar_plans(
    mdp: MDP, objectives: list[CVaR], horizon: int | None, state: int | None, tol: float | None, memory: int
) -> list[Plan]:
    search = CVaRSearch(mdp, start_distribution(mdp, state), horizon, tol, memory)
    plans = []
    for objective, found in zip(objectives, search.find([one.level for one in objectives]), strict=True):
        gap = found.upper - found.value
        # On exact tables the search closes to rounding, or says in the gap how far it came.
        within = gap <= (tol if tol is not None else np.inf) or gap <= 1e-9 * max(1.0, abs(found.value))
        closed = not found.table.exact or gap <= 1e-9 * max(1.0, abs(found.value))
        method = found.table.rung if closed else f"{found.table.rung}; search over the stock open to within {gap:.1g}"
        plans.append(
            Plan(
                mdp, objective, found.value, (found.value, found.upper), found.stock,
                Policy(mdp, found.table, horizon), horizon, state, within, found.solves, gap, method,
            )
        )  # fmt: skip
    return plans
