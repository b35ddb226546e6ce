"""Value iteration on stock-augmented states.

For an expected utility ``K(nu) = E f(X)`` the optimal value of the augmented state ``(s, c)`` is

    V(s, c) = max_pi E f(c + G),        V(terminal, c) = f(c),
    V(s, c) = gamma**p max_a E V(S', (c + R) / gamma)      when f(g x) = g**p f(x),

and the policy that is greedy for ``V`` attains it at every state and stock at once. With a finite horizon and a
utility that is not homogeneous, time is put into the state and the utility is applied to ``gamma**t c_t``.

Which stocks have to be considered follows from the problem (`rdolib.stock`). The solver looks for an exact table
first and falls back on a certified one, whose bounds contain the optimum:

* *exact*: a lattice of stocks (``gamma = 1``), or the set of reachable (state, stock) pairs;
* *certified*: stocks rounded to a grid, with the error carried along.

Sources: Ávila Pires et al. (2025), sections on distributional value iteration; the saturation and rounding results
are derived in the book.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rdolib import _law
from rdolib._falling import FallingTable
from rdolib._grid import GridTable
from rdolib._lattice import WindowTable, rounded_window, window_bytes
from rdolib._monotone import MonotoneTable, direction
from rdolib._reachable import Problem, ReachableTable, close, layers
from rdolib._tables import CutTable, Table
from rdolib.distributions import Distribution
from rdolib.errors import InvalidArgumentError, MemoryLimitError, NotOptimizableError
from rdolib.mdp import MDP
from rdolib.objectives import CVaR, ExpectedUtility, Exponential, Objective, Quadratic
from rdolib.stock import (
    Saturation,
    Units,
    end_components,
    expected_next,
    expected_time,
    greatest_common_mesh,
    return_range,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Default limit on the memory a solver may take, in bytes.
MEMORY = 2**30


@dataclass(frozen=True)
class Policy:
    """A deterministic policy on (state, stock, step). For an endless horizon the step does not matter.

    Examples
    --------
    >>> import rdolib as rdo
    >>> mdp = rdo.MDP.from_outcomes({0: {0: [(1.0, 0, 1.0, True)], 1: [(0.5, 0, 3.0, True), (0.5, 0, 0.0, True)]}})
    >>> policy = rdo.value_iteration(mdp, rdo.Threshold(), stock=[-1.0, -2.0]).policy
    >>> policy.action(0, -1.0), policy.action(0, -2.0)
    (0, 1)
    """

    mdp: MDP = field(repr=False)
    table: Table = field(repr=False)
    horizon: int | None = None

    def rests(self, states: ArrayLike, stocks: ArrayLike) -> NDArray[np.bool_]:
        """Where (n,) the policy goes on for ever without any further reward; such a return is complete."""
        return self.table.rests(*_augmented(self.mdp, states, stocks))

    def action(self, state: int, stock: float, t: int = 0) -> int:
        """The action at one state, stock and step; 0 in a terminal state."""
        return int(self.actions(np.array([state]), np.array([stock], dtype=np.float64), t)[0])

    def actions(self, states: ArrayLike, stocks: ArrayLike, t: int = 0) -> NDArray[np.int32]:
        """Actions at ``n`` states (n,) and stocks (n,), all at step ``t``.

        Raises
        ------
        InvalidArgumentError
            A state out of range, or a stock that cannot be reached from the stocks the problem was solved for.
        """
        state, stock = _augmented(self.mdp, states, stocks)
        if not isinstance(t, int | np.integer) or t < 0 or (self.horizon is not None and t >= self.horizon):
            last = "" if self.horizon is None else f" and less than the horizon, {self.horizon}"
            raise InvalidArgumentError(f"step t must be an integer of at least 0{last}; got {t}")
        return self.table.action(state, stock, t)


@dataclass(frozen=True)
class Solution:
    """The optimum at every state and at every stock that was asked for.

    Attributes
    ----------
    policy : Policy
        Optimal at all of them at once.
    converged : bool
        False only when a requested ``tol`` was not reached.
    iterations : int
        Sweeps or passes of the solver.
    residual : float
        Greatest gap between the bounds over all states and stocks asked for.
    method : str
        The table that was used: how exact the answer is and why.
    """

    mdp: MDP = field(repr=False)
    objective: ExpectedUtility
    horizon: int | None
    stock: Floats = field(repr=False)
    policy: Policy = field(repr=False)
    converged: bool
    iterations: int
    residual: float
    method: str

    def objective_value(self, state: int, stock: float = 0.0) -> float:
        """Optimal value of the objective from a state and stock (the lower bound where bounds differ)."""
        return self.bounds(state, stock)[0]

    def bounds(self, state: int, stock: float = 0.0) -> tuple[float, float]:
        """Certified lower and upper bound of the optimal value; equal on exact tables."""
        s, c = _augmented(self.mdp, [state], [stock])
        lower, upper = self.policy.table.bounds(s, c)
        return float(lower[0]), float(upper[0])

    def returns(self, state: int, stock: float = 0.0) -> Distribution:
        """Law of the return ``G`` under the policy (without the stock)."""
        s, c = _augmented(self.mdp, [state], [stock])
        start = np.zeros(self.mdp.n_states)
        start[s] = 1.0
        return law(self.policy, start, float(c[0]), self.horizon)


def law(policy: Policy, start: Floats, stock: float, horizon: int | None) -> Distribution:
    """Law of the return of a solver's policy from a distribution over states and one stock."""
    return _law.law_of_return(policy.mdp, policy.table, start, stock, horizon)


def value_iteration(
    mdp: MDP,
    objective: Objective,
    stock: ArrayLike = 0.0,
    horizon: int | None = None,
    tol: float | None = None,
    memory: int = MEMORY,
) -> Solution:
    """Optimal values and an optimal policy for an expected utility of ``stock + G``, at every state.

    Parameters
    ----------
    mdp : MDP
        With scalar rewards.
    objective : ExpectedUtility
        Any of them; others are reached through `optimize`.
    stock : float or (n,) floats
        Initial stocks, in units of reward; each is answered.
    horizon : int, optional
        Number of steps; None means endless.
    tol : float, optional
        Largest gap between the bounds, for certified tables; None asks for the best the memory allows. Exact tables
        are solved to rounding whatever ``tol``.
    memory : int
        Limit in bytes.

    Returns
    -------
    Solution

    Raises
    ------
    NotOptimizableError
        The objective lacks a property that the horizon and discount need, or returns may not converge.
    InvalidArgumentError, MemoryLimitError

    Examples
    --------
    >>> import rdolib as rdo
    >>> mdp = rdo.MDP.from_outcomes({0: {0: [(1.0, 0, 1.0, True)], 1: [(0.5, 0, 3.0, True), (0.5, 0, 0.0, True)]}})
    >>> solution = rdo.value_iteration(mdp, rdo.Threshold(), stock=[-1.0, -2.0])
    >>> solution.objective_value(0, -1.0), solution.objective_value(0, -2.0)
    (1.0, 0.5)
    """
    require_scalar(mdp)
    stocks, horizon = check_stocks(stock), check_horizon(horizon)
    states = np.arange(mdp.n_states)
    policy = Policy(mdp, solve_table(mdp, objective, stocks, horizon, tol, memory, states), horizon)
    assert isinstance(objective, ExpectedUtility)
    grid_state = np.repeat(states, len(stocks))
    lower, upper = policy.table.bounds(grid_state, np.tile(stocks, mdp.n_states))
    finite = np.isfinite(lower)
    gap = float(np.abs(upper[finite] - lower[finite]).max(initial=0.0))
    return Solution(
        mdp, objective, horizon, stocks, policy, policy.table.exact or tol is None or gap <= tol,
        policy.table.iterations, gap, policy.table.rung,
    )  # fmt: skip


def check_stocks(stock: ArrayLike) -> Floats:
    """Initial stocks as a flat array; `InvalidArgumentError` for a wrong dimension or a value that is not finite."""
    stocks = _floats(stock)
    if stocks.ndim > 1 or stocks.size == 0:
        raise InvalidArgumentError(
            f"stock must be a number or a one-dimensional array for scalar rewards; got shape {stocks.shape}"
        )
    if not np.isfinite(stocks).all():
        raise InvalidArgumentError(f"stock must be finite; got {stocks[~np.isfinite(stocks)].flat[0]}")
    return np.unique(np.atleast_1d(stocks))


def _floats(stock: ArrayLike) -> Floats:
    try:
        return np.asarray(stock, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidArgumentError(f"stock must be a number or an array of numbers; got {stock!r}") from None


def check_horizon(horizon: int | None) -> int | None:
    """A positive integer or None."""
    if horizon is None:
        return None
    if not isinstance(horizon, Real) or isinstance(horizon, bool) or not float(horizon).is_integer() or horizon <= 0:
        raise InvalidArgumentError(f"horizon must be a positive integer, or None for endless; got {horizon!r}")
    return int(horizon)


def check_steps(mdp: MDP, horizon: int | None, memory: int) -> None:
    """`MemoryLimitError` when the ranges and means of a horizon's steps alone would not fit into the memory."""
    needed = 0 if horizon is None else 48 * (horizon + 1) * (mdp.n_states + 1)
    if needed > memory:
        raise MemoryLimitError(
            f"{horizon} steps of {mdp.n_states} states need {needed / 2**20:.3g} MiB, more than the limit of "
            f"{memory / 2**20:.3g} MiB; shorten the horizon, leave it out, or raise memory="
        )


def require_scalar(mdp: MDP) -> None:
    """`InvalidArgumentError` for what is no MDP, `NotOptimizableError` for vector rewards."""
    if not isinstance(mdp, MDP):
        raise InvalidArgumentError(f"the first argument must be an rdo.MDP; got {type(mdp).__name__}")
    if mdp.reward_dim != 1:
        raise NotOptimizableError(f"this solver handles scalar rewards, and the MDP has reward_dim = {mdp.reward_dim}")


def _augmented(mdp: MDP, states: ArrayLike, stocks: ArrayLike) -> tuple[Ints, Floats]:
    state, stock = np.asarray(states), _floats(stocks)
    if state.dtype.kind not in "iu":
        raise InvalidArgumentError(f"states must be integers; got {states!r}")
    if state.ndim != 1 or stock.shape != state.shape:
        raise InvalidArgumentError(
            f"states and stocks must be one-dimensional and of equal length; got shapes {state.shape} and {stock.shape}"
        )
    outside = (state < 0) | (state >= mdp.n_states)
    if outside.any():
        raise InvalidArgumentError(f"state {state[outside][0]} does not exist; states are 0 to {mdp.n_states - 1}")
    return state.astype(np.int64), stock


def _require_expected_utility(mdp: MDP, objective: Objective) -> ExpectedUtility:
    require_scalar(mdp)
    if isinstance(objective, ExpectedUtility):
        return objective
    if isinstance(objective, CVaR):
        raise NotOptimizableError(
            f"{objective!r} is not indifferent to mixtures, so value iteration on it can return a wrong policy; "
            "use rdo.optimize, which searches over the initial stock (book, chapter 3)"
        )
    raise NotOptimizableError(
        "value iteration needs an expected utility (rdo.ExpectedUtility or one of its kinds); "
        f"got {type(objective).__name__}"
    )


def solve_table(
    mdp: MDP,
    objective: Objective,
    stocks: Floats,
    horizon: int | None,
    tol: float | None,
    memory: int,
    states: Ints,
) -> Table:
    """The table that answers for all ``states`` and ``stocks``, on the highest rung of exactness that fits."""
    utility = _require_expected_utility(mdp, objective)
    horizon = check_horizon(horizon)
    for name, limit in [("memory", memory), *([] if tol is None else [("tol", tol)])]:
        if not (isinstance(limit, Real) and float(limit) > 0):
            raise InvalidArgumentError(f"{name} must be a positive number; got {limit!r}")
    if horizon is not None:
        return _within(mdp, utility, stocks, horizon, tol, memory, states)
    if mdp.gamma < 1 and not utility.indifferent_to_gamma:
        raise NotOptimizableError(
            f"{utility!r} is not indifferent to gamma, so with gamma = {mdp.gamma:.6g} and no horizon there is no "
            "stationary optimum to iterate towards; pass horizon= (time is then put into the state), or use gamma = 1, "
            "or declare degree= if the utility is homogeneous"
        )
    if mdp.gamma < 1:
        return _discounted(mdp, utility, stocks, tol, memory, states)
    return _undiscounted(mdp, utility, stocks, tol, memory, states)


def _saturates(objective: ExpectedUtility) -> bool:
    return objective.slopes is not None or objective.indicator


def _undiscounted(
    mdp: MDP, objective: ExpectedUtility, stocks: Floats, tol: float | None, memory: int, states: Ints
) -> Table:
    """Gamma = 1 without a horizon."""
    saturation = Saturation.endless(mdp, objective.slopes) if _saturates(objective) else None
    mesh = greatest_common_mesh(mdp.reward)
    if saturation is not None and not saturation.linear and mesh is not None and direction(mdp) != 0:
        return MonotoneTable(mdp, objective, saturation, float(mesh), stocks, memory)
    if (
        saturation is None
        and isinstance(objective, Quadratic | Exponential)
        and mesh is not None
        and direction(mdp) > 0
    ):
        return FallingTable(mdp, objective, float(mesh), stocks, states, tol, memory)
    problem = Problem(mdp, objective, Units.of(mdp, stocks), saturation)
    nodes = close(problem, states, problem.units.key(stocks), _exact_memory(memory))
    if nodes is not None:
        return ReachableTable.solve_endless(problem, nodes)
    component = end_components(mdp)
    members = np.flatnonzero(component >= 0)
    if len(members):
        shown = np.flatnonzero(component == component[members[0]])[:8]
        remedy = ", or make every reward on that cycle negative" if _saturates(objective) else ""
        raise NotOptimizableError(
            f"gamma = 1 without a horizon: infinitely many stocks can be reached, and the states {shown.tolist()} can "
            f"be cycled through for ever; pass horizon=, or use gamma < 1{remedy}"
        )
    return _ending(mdp, objective, stocks, tol, memory, states)


def _ending(
    mdp: MDP, objective: ExpectedUtility, stocks: Floats, tol: float | None, memory: int, states: Ints
) -> Table:
    """Gamma = 1 without a horizon where every policy ends: cut after enough steps, with the error of what is cut off.

    With ``T`` the time to the end, cutting after ``n`` steps moves the return by at most ``R_max max(T - n, 0)``, and
    leaves it untouched unless ``T > n``.
    """
    largest = float(np.abs(mdp.reward).max(initial=0.0))
    if objective.lipschitz is None and not objective.indicator:
        raise NotOptimizableError(
            f"gamma = 1 without a horizon: infinitely many stocks can be reached, and {objective!r} has no Lipschitz "
            "constant that holds at all of them, so the return cannot be cut with a known error; pass horizon="
        )
    weight = 1.0 if objective.indicator else float(objective.lipschitz or 0.0) * largest
    size = 1.0 if objective.indicator else max(weight, float(np.abs(objective.utility(stocks)).max()))
    error = np.where(mdp.terminal, 0.0, 1.0) if objective.indicator else expected_time(mdp)
    steps = 0
    while weight * error[states].max(initial=0.0) > (1e-13 * size if tol is None else tol / 4):
        error = expected_next(mdp, error)
        steps += 1
        if steps > _MOST_STEPS:
            raise NotOptimizableError(
                f"gamma = 1 without a horizon: after {_MOST_STEPS} steps the return may still be far from its end; "
                "pass horizon= or a larger tol="
            )
    table = _within(mdp, objective, stocks, max(steps, 1), tol, memory, states)
    return CutTable(table, weight * error, tol is None)


#: Steps after which the search for a place to cut an endless return is given up.
_MOST_STEPS = 20_000


def _discounted(
    mdp: MDP, objective: ExpectedUtility, stocks: Floats, tol: float | None, memory: int, states: Ints
) -> Table:
    """Gamma < 1 without a horizon."""
    if _saturates(objective):
        problem = Problem(mdp, objective, Units.of(mdp, stocks), Saturation.endless(mdp, objective.slopes))
        nodes = close(problem, states, problem.units.key(stocks), _exact_memory(memory))
        if nodes is not None:
            return ReachableTable.solve_endless(problem, nodes)
        return GridTable(problem, stocks, tol, memory)
    problem = Problem(mdp, objective, Units(1.0, 1.0 / mdp.gamma, False), None)
    rest = -return_range(mdp, -1.0), return_range(mdp, 1.0)
    depth = _depth(problem, stocks, rest)
    nodes_by_step = layers(problem, states, problem.units.key(stocks), depth, None, _exact_memory(memory))
    if nodes_by_step is not None:
        return ReachableTable.solve_layers(problem, nodes_by_step, None, rest)
    return rounded_window(problem, stocks, depth, None, rest, tol, memory)


def _within(
    mdp: MDP,
    objective: ExpectedUtility,
    stocks: Floats,
    horizon: int,
    tol: float | None,
    memory: int,
    states: Ints,
) -> Table:
    """A finite horizon."""
    check_steps(mdp, horizon, memory)
    saturation = Saturation.within(mdp, objective.slopes, horizon) if _saturates(objective) else None
    problem = Problem(mdp, objective, Units.of(mdp, stocks), saturation)
    mesh = greatest_common_mesh(mdp.reward) if mdp.gamma == 1 else None
    lattice = np.inf if mesh is None else window_bytes(problem, float(mesh), stocks, horizon)
    if mesh is not None and lattice <= min(memory, _LATTICE_FIRST):
        return WindowTable.exact_lattice(problem, float(mesh), stocks, horizon)
    nodes = layers(problem, states, problem.units.key(stocks), horizon, horizon, _exact_memory(memory))
    if nodes is not None:
        return ReachableTable.solve_layers(problem, nodes, horizon)
    if mesh is not None and lattice <= memory:
        return WindowTable.exact_lattice(problem, float(mesh), stocks, horizon)
    return rounded_window(problem, stocks, horizon, horizon, None, tol, memory)


#: A lattice up to this many bytes is swept without looking for a smaller reachable set first.
_LATTICE_FIRST = 2**28


def _exact_memory(memory: int) -> int:
    """Memory granted to the search for a reachable set: past it the search is given up in a second or two."""
    return min(memory, 400 * 2**20)


def _depth(problem: Problem, stocks: Floats, rest: tuple[Floats, Floats]) -> int:
    """Steps after which the rest of a discounted return moves the value by at most 1e-13 of its size."""
    least, greatest = float(rest[0].min()), float(rest[1].max())
    low, high = float(stocks.min()) + least, float(stocks.max()) + greatest
    lipschitz = problem.objective.lipschitz_on(low, high)
    if lipschitz is None:
        raise NotOptimizableError(
            f"{problem.objective!r} declares no Lipschitz constant, so an endless return cannot be cut with a known "
            "error; declare lipschitz=, or pass horizon="
        )
    size = max(float(np.abs(problem.objective.utility(np.array([low, high]))).max()), np.finfo(float).tiny)
    reach = max(lipschitz * (greatest - least), np.finfo(float).tiny)
    return max(1, int(np.ceil(np.log(1e-13 * size / reach) / np.log(problem.mdp.gamma))))
