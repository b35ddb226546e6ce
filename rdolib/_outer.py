"""What all searches over the initial stock share: one start, and the optimum of any utility of ``G - b`` from there.

An objective ``K`` that lacks indifference to mixtures is reached through numbers ``b`` (`rdolib.risk`): with

    V_f(-b) = max_pi E f(G - b),

its optimum is an extremum or a root over ``b`` of an expression in ``V_f(-b)``. `Start` computes ``V_f`` for the
initial states of one problem, counts the solves, and knows between which numbers the return lies.

*Which b.* Where ``gamma = 1/k`` and paths do not end, a solve is exact only for a ``b`` with finitely many digits in
base ``k``, so `Start.snap` rounds to one. On a lattice of returns a ``b`` next to a point is moved to it. Elsewhere it
rounds ``b`` to so few bits that adding rewards to it commits no error. All of this moves ``b`` by a tiny part of the
range of returns, and every bound is computed at the ``b`` that was used.

*Small rewards.* Tables break ties at absolute differences of 1e-12, which squares of small rewards do not reach. Every
objective is homogeneous (`MeanVariance` together with its weight), so `found_by` searches with rewards multiplied by a
power of two, which floats do without error, and divides what it finds. `ScaledTable` answers for the stocks of the
problem as it was given.

*Certified tables.* Where stocks have to be rounded, one table answers for many stocks. A search that has no exact table
to hope for solves it once, for a range of ``b``, and reads it afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rdolib._grid import GridTable
from rdolib._lattice import WindowTable
from rdolib._monotone import MonotoneTable
from rdolib._progress import bar
from rdolib._rungs import check_steps, solve_table
from rdolib._tables import CutTable, Table, Wrapped
from rdolib.distributions import Distribution
from rdolib.dp import Policy, law
from rdolib.errors import NotOptimizableError
from rdolib.mdp import MDP
from rdolib.objectives import ExpectedUtility, Mean, Objective, Quadratic
from rdolib.risk import MeanVariance, OuterSearch, Sharpe, Variance
from rdolib.stock import (
    end_components,
    ends_within,
    greatest_common_mesh,
    inverse_discount,
    return_range,
    return_range_by_step,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
T = TypeVar("T")

#: Points at which a certified table is solved and read.
SCAN = 4001
#: How often a range of ``b`` is halved where a certified table is read.
HALVINGS = 10
#: Relative gap at which a search is finished.
GAP = 1e-12
#: Wasserstein error, relative to the largest return, up to which a law counts as exact.
SHARP = 1e-12
_LIGHT = 2**26  # bytes for each state, where a search solves many tables whose stocks multiply without end
_SMALL = 0.125  # of the largest reward, below which ties of 1e-12 are more than 1e-10 of its square
_MOST_POINTS = 2**20  # of a lattice of returns, up to which all of them are tried
_BITS = 39  # of b, in units of the largest return: then no sum of b and rewards is taken for the noise of a zero
_DIGITS = 2.0**32  # largest b in units of its last digit in a base that floats do not hold exactly


@dataclass(frozen=True)
class Found:
    """An optimum: the value that a policy attains, an upper bound, and the stock and table of the policy.

    ``mixture`` lists (probability, component) where the optimum is a lottery over policies at the start; stock and
    table are then those of the better component.
    """

    value: float
    upper: float
    stock: float
    table: Table
    solves: int
    mixture: tuple[tuple[float, Found], ...] = ()


@dataclass(frozen=True)
class Solved:
    """One solve for several ``b``: the table, and bounds of ``V_f(-b)``, averaged over the initial states."""

    table: Table
    lower: Floats
    upper: Floats


@dataclass
class Start:
    """The initial states of one problem. ``weights`` (S,) is their distribution; ``solves`` counts tables.

    ``scale``: the factor by which the rewards of ``mdp`` exceed those that were given. ``progress``: a bar to move at
    every solve.
    """

    mdp: MDP
    weights: Floats
    horizon: int | None
    tol: float | None
    memory: int
    scale: float = 1.0
    progress: Any = None
    solves: int = 0

    def __post_init__(self) -> None:
        check_steps(self.mdp, self.horizon, self.memory)
        self.states = np.flatnonzero(self.weights > 0)
        if self.horizon is None:
            greatest, least = return_range(self.mdp, 1.0), -return_range(self.mdp, -1.0)
        else:
            greatest = return_range_by_step(self.mdp, 1.0, self.horizon)[-1]
            least = -return_range_by_step(self.mdp, -1.0, self.horizon)[-1]
        self.greatest, self.least = float(greatest[self.states].max()), float(least[self.states].min())
        endless_gain = self.greatest == np.inf and (end_components(self.mdp) >= 0).any()
        if self.greatest == -np.inf or endless_gain:
            where = self.states[~np.isfinite(greatest[self.states])][0]
            raise NotOptimizableError(
                f"from state {where} the greatest possible return is {self.greatest}; a search over the initial stock "
                "needs a return that is bounded above and can end: pass horizon=, or use gamma < 1"
            )

    # ------------------------------------------------------------- solving

    def apart(self, search: Callable[[T], Found], objectives: Iterable[T]) -> list[Found]:
        """What a search finds for each objective; its solves are counted for each."""
        found = []
        for one in objectives:
            self.solves = 0
            found.append(search(one))
        return found

    def solve(self, utility: ExpectedUtility, b: Floats) -> Solved:
        """``V_f(-b)`` at several ``b``, each as exactly as a table can."""
        table = self._solve(utility, b)
        return Solved(table, *self._read(utility, table, b))

    def read(self, utility: ExpectedUtility, table: Table, b: Floats) -> Solved:
        """The same from a table that is at hand."""
        return Solved(table, *self._read(utility, table, b))

    def table_between(self, utility: ExpectedUtility, low: float, high: float) -> Table | None:
        """A certified table for every ``b`` from ``low`` to ``high``; None where each ``b`` needs its own.

        For a utility that is not monotone the bounds hold where ``[low, high]`` is halved, up to `HALVINGS` times.
        """
        table = self._solve(utility, np.linspace(low, high, 2**HALVINGS + 1))
        return table if answers_between(table) else None

    def scan(self, utility: ExpectedUtility) -> tuple[Floats, Solved]:
        """Many ``b`` over the whole range of returns at once, for tables that are certified only."""
        self.require_bounded(utility)
        return self.points, self.solve(utility, self.points)

    def _solve(self, utility: ExpectedUtility, b: Floats) -> Table:
        self.solves += 1
        if self.progress is not None:
            self.progress.update()
        tol = None if self.tol is None else self.tol * self.scale ** (utility.degree or 0.0)
        memory = min(self.memory, _LIGHT * self.mdp.n_states) if self._is_heavy(utility) else self.memory
        return solve_table(self.mdp, utility, np.unique(-b), self.horizon, tol, memory, self.states)

    def _is_heavy(self, utility: ExpectedUtility) -> bool:
        """Whether stocks multiply without end: much memory then buys little, and a search solves many times."""
        return isinstance(utility, Quadratic) and self.tol is None and self.endless

    def _read(self, utility: ExpectedUtility, table: Table, b: Floats) -> tuple[Floats, Floats]:
        n = len(b)
        lower, upper = table.bounds(np.repeat(self.states, n), np.tile(-b, len(self.states)))
        weight = self.weights[self.states]
        low, high = weight @ lower.reshape(-1, n), weight @ upper.reshape(-1, n)
        if not np.isfinite(low).all():
            raise NotOptimizableError(
                f"no policy has a return with a finite expected utility under {utility!r} from the initial state; "
                "pass horizon="
            )
        return low, high

    def law(self, table: Table, b: float) -> Distribution:
        """Law of the return under the policy of a table, from the stock ``-b``."""
        return law(Policy(self.mdp, table, self.horizon), self.weights, -b, self.horizon)

    def sharp(self, law: Distribution) -> bool:
        """Whether a law is that of the policy to rounding: nothing was cut off, no atoms were merged."""
        return law.leftover == 0 and self.shows_quantiles(law)

    def shows_quantiles(self, law: Distribution) -> bool:
        """Whether the atoms of a law are those of the policy to rounding."""
        return law.w1_error <= SHARP * max(self.size, float(np.abs(self.mdp.reward).max(initial=0.0)))

    def given(self, x: float) -> float:
        """A return in units of the rewards that were given."""
        return x / self.scale

    @cached_property
    def best_mean(self) -> tuple[float, Table]:
        """``max_pi E G``, and the table of its policy (for the stock 0, which does not matter)."""
        solved = self.solve(Mean(), np.zeros(1))
        return float(solved.lower[0]), solved.table

    # --------------------------------------------------------------- range

    @property
    def bounded(self) -> bool:
        """Whether returns lie between finite bounds."""
        return bool(np.isfinite([self.least, self.greatest]).all())

    def require_bounded(self, objective: Objective) -> None:
        """`NotOptimizableError` where returns have no finite bounds and no lattice."""
        if not self.bounded:
            raise NotOptimizableError(
                f"{objective!r} with gamma = 1 and no horizon: returns lie between {self.given(self.least):.6g} and "
                f"{self.given(self.greatest):.6g}, and the search has no finite set of candidates here; pass horizon=, "
                "or make the rewards fractions with denominators up to a million"
            )

    @cached_property
    def mesh(self) -> float | None:
        """Mesh of the lattice of possible returns, where ``gamma = 1`` and rewards are fractions."""
        mesh = greatest_common_mesh(self.mdp.reward) if self.mdp.gamma == 1 else None
        return None if mesh is None else float(mesh)

    def scans(self, utility: ExpectedUtility) -> bool:
        """Whether all points of the lattice of returns are to be tried: they are few, or a table holds them anyway."""
        if self.mesh is None:
            return False
        if not self.bounded or self.greatest - self.least <= _MOST_POINTS * self.mesh:
            return True
        some = self.mesh * np.rint(np.linspace(self.least, self.greatest, 16) / self.mesh)
        table = self.solve(utility, some).table
        return table.exact and isinstance(table, WindowTable | MonotoneTable)

    @cached_property
    def endless(self) -> bool:
        """Whether a discount is all that ends some paths."""
        return self.horizon is None and self.mdp.gamma < 1 and ends_within(self.mdp) is None

    @property
    def span(self) -> float:
        """Length of the range of returns, kept away from zero."""
        return max(self.greatest - self.least, 1e-6 * max(1.0, abs(self.greatest)))

    @property
    def size(self) -> float:
        """Largest return in absolute value; 1 where nothing is ever paid."""
        return max(abs(self.least), abs(self.greatest)) or 1.0

    @property
    def points(self) -> Floats:
        """Points (n,) over the range of returns, both ends included."""
        return np.linspace(self.least, self.greatest, SCAN)

    def snap(self, b: float) -> float:
        """The nearest ``b`` that a solve can count without error: a possible return of a lattice, or a few bits."""
        if self.mesh is not None and self.bounded and abs(b - self.on_lattice(b)) <= self.unit:
            return self.on_lattice(b)
        return b if self.unit == 0 else float(np.rint(b / self.unit) * self.unit) + 0.0

    def on_lattice(self, b: float) -> float:
        """The nearest point of the lattice of possible returns; ``b`` itself where there is none."""
        return b if self.mesh is None else float(np.rint(b / self.mesh) * self.mesh) + 0.0

    @cached_property
    def unit(self) -> float:
        """What `snap` rounds to a multiple of; 0 where it does not round."""
        if not self.bounded:
            return 0.0
        k = inverse_discount(self.mdp.gamma)
        mesh = greatest_common_mesh(self.mdp.reward) if k is not None and self.endless else None
        if mesh is None or k is None:
            return float(2.0 ** (np.ceil(np.log2(self.size)) - _BITS))
        finest = self.size / (2.0**_BITS if k & (k - 1) == 0 else _DIGITS)
        digits = max(0, int(np.floor(np.log(float(mesh) / finest) / np.log(k))))
        return float(mesh / k**digits)


def answers_between(table: Table) -> bool:
    """Whether a table is certified and answers for stocks between those it was solved for."""
    while isinstance(table, CutTable):
        table = table.table
    return isinstance(table, GridTable | WindowTable) and not table.exact


@dataclass(frozen=True)
class ScaledTable(Wrapped):
    """A table of a problem with ``scale`` times the rewards, for the stocks of the problem itself."""

    scale: float

    def own(self, stock: Floats) -> Floats:
        return self.scale * stock

    @property
    def rung(self) -> str:
        return f"{self.table.rung}; rewards times {self.scale:.6g}"

    def bounds(self, state: Ints, stock: Floats) -> tuple[Floats, Floats]:
        lower, upper = super().bounds(state, stock)
        power = self.scale ** _degree(self.table)
        return lower / power, upper / power


def _degree(table: Any) -> float:
    """Degree of the utility of a table; those of searches are homogeneous."""
    while hasattr(table, "table"):
        table = table.table
    return float(getattr(table, "problem", table).objective.degree)


def found_by(
    search: Callable[[Start, list[Any]], list[Found]],
    mdp: MDP,
    weights: Floats,
    horizon: int | None,
    tol: float | None,
    memory: int,
    objectives: list[Any],
) -> list[Found]:
    """What a search finds, with the rewards scaled where they are small."""
    scale = _scale(mdp)
    with bar("searching for the initial stock, solves") as progress:
        if scale == 1:
            return search(Start(mdp, weights, horizon, tol, memory, progress=progress), objectives)
        start = Start(replace(mdp, reward=mdp.reward * scale), weights, horizon, tol, memory, scale, progress)
        found = search(start, [_of_scaled(one, scale) for one in objectives])
    return [_unscaled(one, scale, _power(objective)) for one, objective in zip(found, objectives, strict=True)]


def _scale(mdp: MDP) -> float:
    """The power of two that brings the largest reward to between 1 and 2, if it is small; else 1."""
    largest = float(np.abs(mdp.reward).max(initial=0.0))
    return float(np.ldexp(1.0, 1 - int(np.frexp(largest)[1]))) if 0 < largest < _SMALL else 1.0


def _of_scaled(objective: OuterSearch, scale: float) -> OuterSearch:
    """The objective whose value for scaled returns is ``scale**power`` times the value for returns."""
    return MeanVariance(objective.weight / scale) if isinstance(objective, MeanVariance) else objective


def _power(objective: OuterSearch) -> float:
    return 2.0 if isinstance(objective, Variance) else 0.0 if isinstance(objective, Sharpe) else 1.0


def _unscaled(found: Found, scale: float, power: float) -> Found:
    return replace(
        found,
        value=found.value / scale**power,
        upper=found.upper / scale**power,
        stock=found.stock / scale,
        table=ScaledTable(found.table, scale),
        mixture=tuple((p, _unscaled(one, scale, power)) for p, one in found.mixture),
    )
