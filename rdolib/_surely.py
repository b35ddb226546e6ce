"""The machinery of `rdolib.constraints`: first the limits, whatever the chances, then other objectives.

A problem with ``m`` components is solved for those that matter, limits and what is maximized; the plan that is handed
out takes stocks of all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdolib._checks import as_int
from rdolib._rungs import check_horizon, require_mdp, solve_table
from rdolib._tables import Table, Wrapped
from rdolib.dp import Policy, plain
from rdolib.errors import InvalidArgumentError, NotOptimizableError
from rdolib.mdp import MDP
from rdolib.objectives import ExpectedUtility, Lexicographic, Objective, TwoSlope
from rdolib.optimize import Plan, start_distribution
from rdolib.stock import ends_within

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: A limit missed by no more than this, times the largest of 1 and the limits, is met: stocks are sums of floats.
_ROUNDING = 1e-10


@dataclass(frozen=True)
class Limited:
    """Checked arguments; ``horizon`` is filled in where every path ends."""

    mdp: MDP
    limits: dict[int, float]
    horizon: int | None
    state: int | None
    memory: int

    @classmethod
    def of(cls, mdp: MDP, limits: Any, horizon: int | None, state: int | None, memory: int) -> Limited:
        require_mdp(mdp)
        horizon = check_horizon(horizon)
        return cls(mdp, check_limits(mdp, limits), horizon or ends_within(mdp), state, memory)

    def stock(self, components: Sequence[int]) -> Floats:
        """Minus the limits of the components (k,), zero for those without one."""
        return np.array([-self.limits.get(j, 0.0) for j in components]) + 0.0

    @property
    def slack(self) -> float:
        return _ROUNDING * max(1.0, *map(abs, self.limits.values()))


def check_component(mdp: MDP, component: Any) -> int:
    number = as_int(component)
    if number is None or not 0 <= number < mdp.reward_dim:
        last = mdp.reward_dim - 1
        raise InvalidArgumentError(
            f"component {component!r} of the return does not exist; "
            + ("a scalar return is component 0" if last == 0 else f"components are 0 to {last}")
        )
    return number


def check_limits(mdp: MDP, limits: Any) -> dict[int, float]:
    """Component -> limit."""
    if not isinstance(limits, Mapping):
        if mdp.reward_dim > 1 or np.ndim(limits) > 0:
            raise InvalidArgumentError(
                f"limits must be a mapping from components to limits, such as {{0: 5.0}}, or one number where rewards "
                f"are scalar; got {limits!r} for rewards with {mdp.reward_dim} component(s)"
            )
        limits = {0: limits}
    if not limits:
        raise InvalidArgumentError("limits is empty; give at least one component and its limit, such as {0: 5.0}")
    found: dict[int, float] = {}
    for component, limit in limits.items():
        j = check_component(mdp, component)
        if not isinstance(limit, Real) or isinstance(limit, bool) or not np.isfinite(float(limit)):
            raise InvalidArgumentError(
                f"the limit of component {j} must be a finite number; got {limit!r} (leave out what has no limit)"
            )
        found[j] = float(limit)
    return dict(sorted(found.items()))


def varied(mdp: MDP, limits: Any) -> tuple[int, list[Any], dict[int, Any]]:
    """The component with several limits, these limits, and the limits of the other components."""
    rows = limits if isinstance(limits, Mapping) else {0: limits}
    several = [j for j, limit in rows.items() if np.ndim(limit) == 1 and np.size(limit) > 0]
    if len(several) != 1 or (mdp.reward_dim > 1 and rows is not limits):
        raise InvalidArgumentError(
            "limits must be several numbers, such as [1.0, 2.0], or, for vector rewards, a mapping in which exactly "
            f"one component has several, such as {{0: [1.0, 2.0], 1: 5.0}}; got {limits!r}"
        )
    j = several[0]
    return j, list(rows[j]), {i: limit for i, limit in rows.items() if i != j}


class Surely(ExpectedUtility):
    """0 where all components at these places reach zero, minus infinity elsewhere: however rare a miss, it shows."""

    def __init__(self, places: Sequence[int], slack: float) -> None:
        def f(x: Any) -> Any:
            return np.where(x >= -slack, 0.0, -np.inf)

        super().__init__(f)
        self.places = list(places)

    def _of_vectors(self, x: Any) -> Any:
        return self.f(x[..., self.places]).min(axis=-1)

    def __repr__(self) -> str:
        return "limits surely"


class SomeComponents(ExpectedUtility):
    """A utility that adds up over components, of some of them."""

    def __init__(self, objective: TwoSlope, components: Sequence[int]) -> None:
        super().__init__(objective.f, objective.lipschitz, objective.degree)
        self.objective, self.components = objective, list(components)

    def _of_vectors(self, x: Any) -> Any:
        return self.f(x[..., self.components]).sum(axis=-1)

    def __repr__(self) -> str:
        return f"{self.objective!r} of {', '.join(f'G[{j}]' for j in self.components)}"


def some(mdp: MDP, objective: TwoSlope, components: Sequence[int]) -> ExpectedUtility:
    return objective if len(components) == mdp.reward_dim else SomeComponents(objective, components)


def first_surely(
    problem: Limited, components: Sequence[int], stocks: Floats, goals: Sequence[Objective]
) -> tuple[Table, Floats]:
    """The limits surely, then the goals, for several stocks (n, k) at once: a table and values (n, 1 + goals)."""
    if problem.horizon is None:
        raise NotOptimizableError(
            "the best plan under limits that must hold surely needs a horizon: without one, some path goes on for "
            "ever, and a return that is cut after any number of steps can still miss its limit; pass horizon="
        )
    places = [k for k, j in enumerate(components) if j in problem.limits]
    slack = _ROUNDING * max(1.0, float(np.abs(stocks).max()))
    objective = Lexicographic(Surely(places, slack), *goals)
    start = start_distribution(problem.mdp, problem.state)
    states = np.flatnonzero(start > 0)
    own = squeezed(stocks)
    table = solve_table(
        part(problem.mdp, components), objective, np.unique(own, axis=0), problem.horizon, None, problem.memory, states
    )
    ask = [table.bounds(states, np.repeat(one[None], len(states), axis=0))[0] for one in own]
    return table, np.array([objective.of_mixture(start[states], values) for values in ask])


@dataclass(frozen=True)
class PartialTable(Wrapped):
    """A table for some components of the reward that is asked with stocks of all of them."""

    components: tuple[int, ...]

    def own(self, stock: Floats) -> Floats:
        return squeezed(stock[:, list(self.components)])

    def rests(self, state: Ints, stock: Floats) -> NDArray[np.bool_]:
        return np.zeros(len(state), dtype=np.bool_)  # the other components may go on


def squeezed(x: Floats) -> Floats:
    """One component is kept without an axis of its own."""
    return x[..., 0] if x.shape[-1] == 1 else x


def part(mdp: MDP, components: Sequence[int]) -> MDP:
    """The MDP whose reward has only these components."""
    if len(components) == mdp.reward_dim:
        return mdp
    reward = np.ascontiguousarray(squeezed(mdp.reward[:, list(components)]))
    return replace(mdp, reward_dim=len(components), reward=reward)


def make_plan(
    problem: Limited, components: Sequence[int], table: Table, objective: Objective, bounds: tuple[Any, Any]
) -> Plan:
    """A plan for all components from a table for some."""
    mdp = problem.mdp
    whole = len(components) == mdp.reward_dim
    policy = Policy(mdp, table if whole else PartialTable(table, tuple(components)), problem.horizon)
    stock = plain(squeezed(problem.stock(range(mdp.reward_dim))))
    gap = float(np.abs(np.subtract(bounds[1], bounds[0])).max())
    return Plan(
        mdp, objective, bounds[0], bounds, stock, policy, problem.horizon, problem.state, True, table.iterations, gap,
        table.rung,
    )  # fmt: skip
