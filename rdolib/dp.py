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

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rdolib import _law
from rdolib._projected import EvaluatedTable, ProjectedTable, solve_projected
from rdolib._rungs import MEMORY, check_effort, check_horizon, gap, require_mdp, solve_table
from rdolib._tables import Table
from rdolib.distributions import CategoricalGrid, Distribution, Exact, QuantileGrid
from rdolib.errors import InvalidArgumentError
from rdolib.mdp import MDP
from rdolib.objectives import Objective

Representation = QuantileGrid | CategoricalGrid | Exact
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


#: Bounds this close have met.
CLOSED = 1e-11


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

    def action(self, state: int, stock: ArrayLike, t: int = 0) -> int:
        """The action at one state, stock (a number, or (m,) for vector rewards) and step; 0 in a terminal state."""
        return int(self.actions(np.array([state]), np.array([stock]), t)[0])

    def actions(self, states: ArrayLike, stocks: ArrayLike, t: int = 0) -> NDArray[np.int32]:
        """Actions at ``n`` states (n,) and stocks (n,) or (n, m), all at step ``t``.

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
    objective: Objective
    horizon: int | None
    stock: Floats = field(repr=False)
    policy: Policy = field(repr=False)
    converged: bool
    iterations: int
    residual: float
    method: str

    def objective_value(self, state: int, stock: ArrayLike = 0.0) -> Any:
        """Optimal value of the objective from a state and stock (the lower bound where bounds differ).

        ``stock`` is a number, or (m,) for vector rewards, where 0.0 stands for zeros. A tuple for `Lexicographic`.
        """
        return self.bounds(state, stock)[0]

    def bounds(self, state: int, stock: ArrayLike = 0.0) -> tuple[Any, Any]:
        """Certified lower and upper bound of the optimal value; equal on exact tables."""
        s, c = _augmented(self.mdp, [state], check_stocks(self.mdp, stock, several=False))
        lower, upper = self.policy.table.bounds(s, c)
        return plain(lower[0]), plain(upper[0])

    def returns(self, state: int, stock: ArrayLike = 0.0) -> Distribution:
        """Law of the return ``G`` under the policy (without the stock); in the representation, where there is one."""
        s, c = _augmented(self.mdp, [state], check_stocks(self.mdp, stock, several=False))
        if isinstance(self.policy.table, ProjectedTable | EvaluatedTable):
            return self.policy.table.law(int(s[0]), c[0])
        start = np.zeros(self.mdp.n_states)
        start[s] = 1.0
        return law(self.policy, start, c[0], self.horizon)


def plain(value: Any) -> Any:
    """A value of an objective as a float, or as a tuple of floats."""
    return float(value) if np.ndim(value) == 0 else tuple(float(x) for x in value)


def law(policy: Policy, start: Floats, stock: Floats | float, horizon: int | None) -> Distribution:
    """Law of the return of a solver's policy from a distribution over states and one stock."""
    return _law.law_of_return(policy.mdp, policy.table, start, stock, horizon)


def value_iteration(
    mdp: MDP,
    objective: Objective,
    stock: ArrayLike = 0.0,
    horizon: int | None = None,
    tol: float | None = None,
    memory: int = MEMORY,
    representation: Representation | None = None,
    max_iter: int | None = None,
) -> Solution:
    """Optimal values and an optimal policy of an objective of ``stock + G``, at every state.

    Parameters
    ----------
    mdp : MDP
        With scalar or vector rewards.
    objective : Objective
        An expected utility, `EssInf`, `EssSup`, or (with a horizon) `Lexicographic`; others are refused with a remedy.
    stock : float or (n,) floats; for vector rewards (m,) or (n, m)
        Initial stocks, in units of reward; each is answered. For vector rewards 0.0 stands for zeros.
    horizon : int, optional
        Number of steps; None means endless.
    tol : float, optional
        Largest gap between the bounds, for certified tables; None asks for the best the memory allows. Exact tables
        are solved to rounding whatever ``tol``.
    memory : int
        Limit in bytes.
    representation : QuantileGrid, CategoricalGrid or Exact, optional
        Iterate on return distributions of this form instead of on expectations. The bounds then contain the error of
        the projections, and ``solution.returns`` is the law iterated on. For expected utilities.
    max_iter : int, optional
        Stop after this many sweeps, with the bounds reached: one sweep sequence starts from the least return that can
        follow, one from the greatest. For expected utilities.

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
    require_mdp(mdp)
    stocks, horizon = check_stocks(mdp, stock), check_horizon(horizon)
    check_effort(tol, memory)
    states = np.arange(mdp.n_states)
    if representation is not None and max_iter is not None:
        raise InvalidArgumentError("representation= and max_iter= cannot be combined; n sweeps from zero are horizon=n")
    if representation is not None:
        table: Table = solve_projected(mdp, objective, stocks, horizon, tol, memory, representation, states)
    else:
        table = solve_table(mdp, objective, stocks, horizon, tol, memory, states, max_iter)
    reached = gap(table, mdp, states, stocks)
    small = tol if tol is not None else CLOSED if max_iter is not None else np.inf
    converged = table.exact or reached <= small
    if not converged and max_iter is not None:
        warnings.warn(
            f"value iteration stopped after max_iter = {max_iter} sweeps with bounds up to {reached:.3g} apart; raise "
            "max_iter=, or leave it out",
            stacklevel=2,
        )
    policy = Policy(mdp, table, horizon)
    return Solution(
        mdp, objective, horizon, stocks, policy, converged, table.iterations, reached, table.rung,
    )  # fmt: skip


def check_stocks(mdp: MDP, stock: ArrayLike, several: bool = True) -> Floats:
    """Distinct initial stocks (n,), or (n, m) for vector rewards; errors for a wrong shape or a value not finite."""
    stocks, m = _floats(stock), mdp.reward_dim
    if m > 1 and stocks.ndim == 0 and stocks == 0:
        stocks = np.zeros(m)
    shape = stocks.shape if m == 1 else stocks.shape[:-1]
    fits = (m == 1 or (stocks.ndim > 0 and stocks.shape[-1] == m)) and len(shape) <= (1 if several else 0)
    if not fits or stocks.size == 0:
        one = "a number" if m == 1 else f"a vector of {m} numbers, like a reward"
        more = f", or an array of several, shape {'(n,)' if m == 1 else f'(n, {m})'}" if several else ""
        raise InvalidArgumentError(f"stock must be {one}{more}; got shape {stocks.shape}")
    if not np.isfinite(stocks).all():
        raise InvalidArgumentError(f"stock must be finite; got {stocks[~np.isfinite(stocks)].flat[0]}")
    return np.unique(stocks.reshape((-1,) if m == 1 else (-1, m)), axis=0)


def _floats(stock: ArrayLike) -> Floats:
    try:
        return np.asarray(stock, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidArgumentError(f"stock must be a number or an array of numbers; got {stock!r}") from None


def _augmented(mdp: MDP, states: ArrayLike, stocks: ArrayLike) -> tuple[Ints, Floats]:
    state, stock = np.asarray(states), _floats(stocks)
    if state.dtype.kind not in "iu":
        raise InvalidArgumentError(f"states must be integers; got {states!r}")
    shape = state.shape if mdp.reward_dim == 1 else (*state.shape, mdp.reward_dim)
    if state.ndim != 1 or stock.shape != shape:
        raise InvalidArgumentError(
            f"states must be one-dimensional and stocks of shape {shape}; got shapes {state.shape} and {stock.shape}"
        )
    outside = (state < 0) | (state >= mdp.n_states)
    if outside.any():
        raise InvalidArgumentError(f"state {state[outside][0]} does not exist; states are 0 to {mdp.n_states - 1}")
    return state.astype(np.int64), stock
