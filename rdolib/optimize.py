"""From an MDP and an objective to a plan.

For an expected utility the initial stock is given and one solve is enough. `CVaR` chooses its own: with
``V(s, c) = max_pi E min(c + G, 0)``,

    max_pi CVaR_tau(G) = max_b g(b),        g(b) = b + V(s_0, -b) / tau,

and the plan runs the policy that is greedy for ``V`` from the stock ``c_0 = -b``. Three facts make the search exact:

* ``b`` may be restricted to possible returns;
* ``g(b) <= b``, so nothing below the best value found so far has to be tried;
* the slope of ``g`` lies in ``[1 - 1/tau, 1]``, which bounds ``g`` between points that were tried.

``g`` is a maximum of concave functions and not concave itself: it can have several hills, so no point is skipped
without a bound. With ``gamma = 1`` the possible returns form a lattice and all of them are tried; otherwise a branch
and bound narrows ``b`` down.

Sources: Rockafellar and Uryasev (2000); Bäuerle and Ott (2011); Ávila Pires et al. (2025). The bounds on the search
are derived in the book, chapter 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rdolib._graph import ranges
from rdolib._reachable import code
from rdolib._tables import Table
from rdolib.distributions import Distribution
from rdolib.dp import MEMORY, Policy, check_horizon, check_stocks, law, solve_table
from rdolib.errors import InvalidArgumentError, NotOptimizableError
from rdolib.mdp import MDP
from rdolib.objectives import CVaR, Objective, Shortfall
from rdolib.stock import (
    best_mean,
    end_components,
    greatest_common_mesh,
    inverse_discount,
    return_range,
    return_range_by_step,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Relative gap at which the search over the initial stock is finished.
GAP = 1e-10
_FIRST_SCAN = 256  # possible returns tried first on a lattice; doubled until the best is surely among them
_BATCH = 64  # points tried at once by branch and bound
_MOST_POINTS = 1200
_DOUBT = 200  # nodes after which the question whether a gap holds a possible return is given up


@dataclass(frozen=True)
class Plan:
    """An optimal policy for one objective and start, with its certificate.

    Attributes
    ----------
    value : float
        The objective at the start under the plan: of the law of ``stock + G`` for fixed-stock objectives, of the law
        of ``G`` for objectives that choose their stock.
    bounds : (float, float)
        Certified lower and upper bound of the optimum. Equal up to rounding where the solver is exact.
    stock : float
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
    value: float
    bounds: tuple[float, float]
    stock: float
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
        return law(self.policy, start_distribution(self.mdp, self.state), self.stock, self.horizon)


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
    if isinstance(start, np.ndarray):
        return np.asarray(start, dtype=np.float64)
    if isinstance(start, bool) or int(start) != start or not 0 <= start < mdp.n_states:
        raise InvalidArgumentError(f"state {start} does not exist; states are 0 to {mdp.n_states - 1}")
    weights = np.zeros(mdp.n_states)
    weights[int(start)] = 1.0
    return weights


def optimize(
    mdp: MDP,
    objective: Objective,
    horizon: int | None = None,
    state: int | None = None,
    stock: float | None = None,
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
    stock : float, optional
        Initial stock of a fixed-stock objective, in units of reward; 0 when left out.
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
    horizon = check_horizon(horizon)
    if isinstance(objective, CVaR):
        if stock is not None:
            raise InvalidArgumentError(f"{objective!r} chooses its own initial stock; leave stock= out")
        return _CVaRSearch(mdp, start_distribution(mdp, state), horizon, tol, memory).plan(objective, state)
    stocks = check_stocks(mdp, 0.0 if stock is None else stock)
    if len(stocks) != 1 or np.ndim(0.0 if stock is None else stock) != 0:
        raise InvalidArgumentError("optimize takes one initial stock; value_iteration takes an array of them")
    start = start_distribution(mdp, state)
    states = np.flatnonzero(start > 0)
    table = solve_table(mdp, objective, stocks, horizon, tol, memory, states)
    lower, upper = table.bounds(states, np.full(len(states), stocks[0]))
    low, high = float(start[states] @ lower), float(start[states] @ upper)
    if not np.isfinite([low, high]).all():
        raise NotOptimizableError(
            f"from state {states[~np.isfinite(lower)][0]} the objective is {low}: no policy has a return that "
            "converges to a finite value; pass horizon=, or use gamma < 1"
        )
    gap = high - low
    return Plan(
        mdp, objective, low, (low, high), float(stocks[0]), Policy(mdp, table, horizon), horizon, state,
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
    horizon = check_horizon(horizon)
    level_list = tuple(float(x) for x in levels)
    if not level_list:
        raise InvalidArgumentError("levels is empty; give at least one level")
    objectives = [objective(level) for level in level_list]
    if all(isinstance(one, CVaR) for one in objectives):
        search = _CVaRSearch(mdp, start_distribution(mdp, state), horizon, tol, memory)
        return Frontier(level_list, tuple(search.plans([one for one in objectives if isinstance(one, CVaR)], state)))
    return Frontier(level_list, tuple(optimize(mdp, one, horizon, state, tol=tol, memory=memory) for one in objectives))


class _CVaRSearch:
    """The search over ``b`` for one start; its solves serve every level."""

    def __init__(self, mdp: MDP, start: Floats, horizon: int | None, tol: float | None, memory: int) -> None:
        self.mdp, self.start, self.horizon, self.tol, self.memory = mdp, start, horizon, tol, memory
        self.states = np.flatnonzero(start > 0)
        self.solves = 0
        self.most = greatest = (
            return_range(mdp, 1.0) if horizon is None else return_range_by_step(mdp, 1.0, horizon)[-1]
        )
        self.greatest = float(greatest[self.states].max())
        self.fewest = least = -(
            return_range(mdp, -1.0) if horizon is None else return_range_by_step(mdp, -1.0, horizon)[-1]
        )
        self.least = float(least[self.states].min())
        if self.greatest == np.inf and (end_components(mdp) < 0).all():
            return  # unbounded but ending: the scan finds its own top
        if not np.isfinite(self.greatest):
            where = self.states[~np.isfinite(greatest[self.states])][0]
            raise NotOptimizableError(
                f"from state {where} the greatest possible return is {self.greatest}; CVaR needs a return that is "
                "bounded above and can end: pass horizon=, or use gamma < 1"
            )

    def plan(self, objective: CVaR, state: int | None) -> Plan:
        return self.plans([objective], state)[0]

    def plans(self, objectives: list[CVaR], state: int | None) -> list[Plan]:
        """A plan for each objective, hardest (smallest level) first in the search, returned in the given order."""
        order = sorted(range(len(objectives)), key=lambda i: objectives[i].level)
        mesh = greatest_common_mesh(self.mdp.reward) if self.mdp.gamma == 1 else None
        found: dict[int, Plan] = {}
        if mesh is not None:
            if self.greatest == np.inf:
                self.greatest = self._top(objectives)
            scan = self._scan_lattice(float(mesh), objectives[order[0]].level)
            for i in order:
                found[i] = self._from_points(objectives[i], state, *scan)
        else:
            points = _Points(self)
            for i in order:
                found[i] = self._branch_and_bound(objectives[i], state, points)
        return [found[i] for i in range(len(objectives))]

    def _top(self, objectives: list[CVaR]) -> float:
        """A bound on the best ``b`` for unbounded returns: ``V(-b) <= M - b`` gives ``g(b) <= b + (M - b) / tau``."""
        mean = float(self.start @ best_mean(self.mdp, 1.0, np.ones(self.mdp.n_states, dtype=np.bool_))[0])
        at_zero = float(self.solve(np.zeros(1))[1][0])
        highest = max(one.level for one in objectives)
        if highest == 1:
            raise NotOptimizableError(
                "returns are unbounded above here, and at level 1 CVaR is the mean: use rdo.Mean() for that level"
            )
        return max(0.0, (mean - at_zero) / (1 - highest))

    def solve(self, b: Floats) -> tuple[Table, Floats, Floats]:
        """One solve for the stocks ``-b``, and bounds of ``V`` averaged over the initial states."""
        table = solve_table(self.mdp, Shortfall(), np.unique(-b), self.horizon, None, self.memory, self.states)
        self.solves += 1
        return table, *self.read(table, b)

    def read(self, table: Table, b: Floats) -> tuple[Floats, Floats]:
        n = len(b)
        lower, upper = table.bounds(np.repeat(self.states, n), np.tile(-b, len(self.states)))
        weight = self.start[self.states]
        low, high = weight @ lower.reshape(-1, n), weight @ upper.reshape(-1, n)
        if not np.isfinite(low).all():
            raise NotOptimizableError(
                "no policy has a return with a finite expected shortfall from the initial state; pass horizon="
            )
        return low, high

    def _scan_lattice(self, mesh: float, level: float) -> tuple[Table, Floats, Floats, Floats, float]:
        """All possible returns from the greatest down, until the best for ``level`` is surely among them."""
        last = (self.greatest - self.least) / mesh
        count = _FIRST_SCAN
        while True:
            n = int(min(count, np.rint(last) + 1))
            b = mesh * (np.rint(self.greatest / mesh) - np.arange(n))
            table, lower, upper = self.solve(b)
            best = float((b + lower / level).max())
            if n > last or best >= b[-1]:
                return table, b, lower, upper, 0.0
            count *= 4

    def _from_points(
        self,
        objective: CVaR,
        state: int | None,
        table: Table,
        b: Floats,
        lower: Floats,
        upper: Floats,
        beyond: float,
    ) -> Plan:
        """The best of the points tried; no point left out can be better by more than ``beyond``."""
        g = b + lower / objective.level
        chosen = int(np.argmax(g >= g.max() - 1e-12 * max(1.0, abs(float(g.max())))))
        value = float(g[chosen])
        high = max(float((b + upper / objective.level).max()) + beyond, value)
        gap = high - value
        within = self.tol is None or gap <= self.tol or (table.exact and beyond <= 1e-9 * max(1.0, abs(value)))
        return Plan(
            self.mdp, objective, value, (value, high), -float(b[chosen]) + 0.0, Policy(self.mdp, table, self.horizon),
            self.horizon, state, within, self.solves, gap, table.rung,
        )  # fmt: skip

    # ------------------------------------------------------- gamma < 1

    def _branch_and_bound(self, objective: CVaR, state: int | None, points: _Points) -> Plan:
        level = objective.level
        down = 1.0 / level - 1.0  # g falls no faster than this, and rises no faster than 1
        tried_laws: set[float] = set()
        while points.exact:
            b, g = points.b, points.b + points.lower / level
            best = int(g.argmax())
            size = max(abs(float(g[best])), 1e-3 * (self.greatest - self.least), np.finfo(float).tiny)
            # A plan's own law says at which b it does best: an exact kink that bisection would only approach.
            if b[best] not in tried_laws:
                tried_laws.add(float(b[best]))
                if points.add(np.array([points.near(self._own_quantile(points, best, level))])):
                    continue
            left, right = b[:-1], b[1:]
            peak = np.clip((g[1:] - g[:-1] + left + down * right) / (1 + down), left, right)
            bound = np.minimum(g[:-1] + (peak - left), g[1:] + down * (right - peak))
            open_ = (bound > g[best] + GAP * size) & (right > g[best]) & ~points.empty
            order = np.flatnonzero(open_)[np.argsort(-bound[open_], kind="stable")][:_BATCH]
            if len(order) == 0 or len(b) > _MOST_POINTS:
                break
            points.drop_empty(order)
            order = order[~points.empty[order]]
            if len(order) and not points.add(np.unique([points.between(left[i], right[i]) for i in order])):
                break
        return self._finish(objective, state, points, down)

    def _finish(self, objective: CVaR, state: int | None, points: _Points, down: float) -> Plan:
        b, level = points.b, objective.level
        g_low, g_high = b + points.lower / level, b + points.upper / level
        best = int(g_low.argmax())
        left, right = b[:-1], b[1:]
        peak = np.clip((g_high[1:] - g_high[:-1] + left + down * right) / (1 + down), left, right)
        between = np.minimum(g_high[:-1] + (peak - left), g_high[1:] + down * (right - peak))
        between = np.minimum(between, right)[~points.empty]
        high = max(float(g_high.max()), float(between.max(initial=-np.inf)))
        table = points.table if not points.exact else self.solve(b[best : best + 1])[0]
        beyond = max(0.0, high - float(g_high.max()))
        return self._from_points(
            objective, state, table, b[best : best + 1], points.lower[best : best + 1],
            points.upper[best : best + 1] + level * max(0.0, float(g_high.max() - g_high[best])), beyond,
        )  # fmt: skip

    def _own_quantile(self, points: _Points, best: int, level: float) -> float:
        """The quantile of the return under the policy that is greedy for ``b[best]``."""
        b = float(points.b[best])
        policy = Policy(self.mdp, self.solve(np.array([b]))[0], self.horizon)
        return float(law(policy, self.start, -b, self.horizon).quantile(level))


class _Points:
    """Points ``b`` tried so far, ascending, with bounds of ``V`` there, and gaps known to hold no possible return."""

    def __init__(self, search: _CVaRSearch) -> None:
        self.search = search
        low, high = search.least, search.greatest
        if not np.isfinite([low, high]).all():
            raise NotOptimizableError(
                f"CVaR with gamma = 1 and no horizon: returns lie between {low:.6g} and {high:.6g}, and the rewards "
                "are not fractions with denominators up to a million, so the search has no finite set of candidates; "
                "round the rewards, or pass horizon="
            )
        self.k = inverse_discount(search.mdp.gamma)
        self.mesh = greatest_common_mesh(search.mdp.reward) if self.k is not None else None
        b = np.unique([low, *(self._snap(x, (high - low) / 64) for x in np.linspace(low, high, 17)[1:-1]), high])
        b = b[(b >= low) & (b <= high)]
        self.table, self.lower, self.upper = search.solve(b)
        self.exact = self.table.exact
        if not self.exact:  # one certified table answers for every stock between the ends
            b = np.linspace(low, high, _MOST_POINTS)
            self.lower, self.upper = search.read(self.table, b)
        self.b = b
        self.empty = np.zeros(len(b) - 1, dtype=np.bool_)

    def add(self, new: Floats) -> bool:
        """Try new points; False when none is new."""
        place = np.searchsorted(self.b, new)
        inside = (place > 0) & (place < len(self.b)) & (self.b[np.minimum(place, len(self.b) - 1)] != new)
        new, place = new[inside], place[inside]
        if len(new) == 0:
            return False
        table, lower, upper = self.search.solve(new)
        if not table.exact:
            return False
        self.b = np.insert(self.b, place, new)
        self.lower, self.upper = np.insert(self.lower, place, lower), np.insert(self.upper, place, upper)
        self.empty = np.insert(self.empty, place - 1, self.empty[place - 1])
        return True

    def between(self, left: float, right: float) -> float:
        return self._snap(0.5 * (left + right), 0.5 * (right - left))

    def near(self, x: float) -> float:
        """``x``, up to a part in 2**36 of the range."""
        return self._snap(x, (self.search.greatest - self.search.least) * 2.0**-36)

    def _snap(self, x: float, room: float) -> float:
        """With ``gamma = 1/k``: the nearest multiple of ``mesh / k**j``, for the smallest ``j`` that keeps near enough.

        Such stocks reach the lattice of the rewards after ``j`` steps, so that few stocks are reachable from them.
        """
        if self.mesh is None or self.k is None or room <= 0:
            return x
        unit = float(self.mesh)
        while unit > room:
            unit /= self.k
        return float(np.rint(x / unit) * unit)

    def drop_empty(self, gaps: Ints) -> None:
        """Mark those of the gaps that hold no possible return: there ``g`` is greatest at an end."""
        for i in gaps:
            self.empty[i] = not _may_hold_return(self.search, float(self.b[i]), float(self.b[i + 1]))


def _may_hold_return(search: _CVaRSearch, left: float, right: float) -> bool:
    """Whether some return may lie strictly between, over all policies and outcomes; True when in doubt."""
    mdp = search.mdp
    if search.horizon is not None:
        return True
    state, low, width = search.states, np.full(len(search.states), -right), right - left
    reach = search.greatest - search.least
    while width <= reach:
        outcome, owner = ranges(mdp.outcome_ptr[mdp.pair_ptr[state]], mdp.outcome_ptr[mdp.pair_ptr[state + 1]])
        low, width = (low[owner] + mdp.reward[outcome]) / mdp.gamma, width / mdp.gamma
        slack = 1e-9 * width
        ended = mdp.terminated[outcome]
        if (ended & (low < -slack) & (low + width > slack)).any():
            return True
        after = mdp.next_state[outcome]
        alive = ~ended & (low + width - slack > -search.most[after]) & (low + slack < -search.fewest[after])
        if not alive.any():
            return False
        places = np.unique(code(after[alive], np.round(low[alive] / slack)))
        state, low = places.real.astype(np.int64), places.imag * slack
        if len(state) > _DOUBT:
            return True
    return True
