"""The choice of a table for a problem: exact where one fits, certified otherwise.

For an expected utility ``K(nu) = E f(X)`` the optimal value of the augmented state ``(s, c)`` obeys

    V(s, c) = max_pi E f(c + G),        V(terminal, c) = f(c),
    V(s, c) = gamma**p max_a E V(S', (c + R) / gamma)      when f(g x) = g**p f(x).

Which stocks have to be considered follows from the problem (`rdolib.stock`). An exact table comes first: a lattice of
stocks, or the set of reachable (state, stock) pairs. Otherwise stocks are rounded to a grid and the error is carried
along.
"""

from __future__ import annotations

from contextlib import suppress
from fractions import Fraction
from numbers import Real

import numpy as np
from numpy.typing import NDArray

from rdolib._falling import FallingTable
from rdolib._grid import GridTable
from rdolib._interned import InternedUnits
from rdolib._lattice import WindowTable, rounded_window, window_bytes
from rdolib._lexicographic import LexicographicTable
from rdolib._monotone import MonotoneTable, direction
from rdolib._potential import BYTES_PER_START, PotentialTable, find_potential
from rdolib._reachable import Problem, ReachableTable, close, first_layers, layers
from rdolib._robust import RobustTable
from rdolib._tables import CutTable, Table
from rdolib.errors import InvalidArgumentError, MemoryLimitError, NotOptimizableError
from rdolib.mdp import MDP
from rdolib.objectives import EssInf, ExpectedUtility, Exponential, Lexicographic, Mean, Objective, Quadratic
from rdolib.stock import (
    OrthantSaturation,
    Saturation,
    Units,
    end_components,
    ends_within,
    expected_next,
    expected_time,
    greatest_common_mesh,
    return_range,
    return_range_by_step,
)

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Default limit on the memory a solver may take, in bytes.
MEMORY = 2**30


def check_horizon(horizon: int | None) -> int | None:
    """A positive integer or None."""
    if horizon is None:
        return None
    if not isinstance(horizon, Real) or isinstance(horizon, bool) or not float(horizon).is_integer() or horizon <= 0:
        raise InvalidArgumentError(f"horizon must be a positive integer, or None for endless; got {horizon!r}")
    return int(horizon)


def check_sweeps(max_iter: int) -> int:
    """A positive integer."""
    if isinstance(max_iter, bool) or not isinstance(max_iter, int | np.integer) or max_iter < 1:
        raise InvalidArgumentError(
            f"max_iter must be a positive integer, or None for as many as needed; got {max_iter!r}"
        )
    return int(max_iter)


def check_effort(tol: float | None, memory: int) -> None:
    """`InvalidArgumentError` for a tolerance that is not positive, or a memory that is no positive number of bytes."""
    if not _is_positive(memory) or float(memory) == np.inf:
        raise InvalidArgumentError(f"memory must be a positive number; got {memory!r}; it is a finite count of bytes")
    if tol is not None and not _is_positive(tol):
        raise InvalidArgumentError(f"tol must be a positive number; got {tol!r}")


def _is_positive(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and float(value) > 0


def check_steps(mdp: MDP, horizon: int | None, memory: int) -> None:
    """`MemoryLimitError` when the ranges and means of a horizon's steps alone would not fit into the memory."""
    check_effort(None, memory)
    needed = 0 if horizon is None else 48 * (horizon + 1) * (mdp.n_states + 1)
    if needed > memory:
        raise MemoryLimitError(
            f"{horizon} steps of {mdp.n_states} states need {needed / 2**20:.3g} MiB, more than the limit of "
            f"{memory / 2**20:.3g} MiB; shorten the horizon, leave it out, or raise memory="
        )


def require_mdp(mdp: MDP) -> None:
    """`InvalidArgumentError` for what is no MDP."""
    if not isinstance(mdp, MDP):
        raise InvalidArgumentError(f"the first argument must be an rdo.MDP; got {type(mdp).__name__}")


def require_scalar(mdp: MDP, objective: Objective) -> None:
    """`NotOptimizableError` for vector rewards under an objective of scalar returns."""
    if mdp.reward_dim != 1:
        raise NotOptimizableError(
            f"{objective!r} is defined for scalar returns, and the MDP has reward_dim = {mdp.reward_dim}; use an "
            "expected utility of the vector (rdo.Homeostasis, rdo.Threshold, rdo.ExpectedUtility), or one component"
        )


def require_plannable(mdp: MDP, objective: Objective, horizon: int | None) -> None:
    """`NotOptimizableError` when dynamic programming on the objective itself would not return the optimum."""
    require_mdp(mdp)
    if not isinstance(objective, Objective):
        raise InvalidArgumentError(f"the objective must be an rdo objective such as rdo.Mean(); got {objective!r}")
    lacks = objective.missing(mdp.gamma, horizon is None)
    if "indifference to mixtures" in lacks:
        raise NotOptimizableError(
            f"{objective!r} lacks indifference to mixtures, so value iteration on it can return a wrong policy "
            f"(book, chapter 7); instead: {objective.reduction or 'use an objective that has this property'}"
        )
    if "indifference to gamma" in lacks:
        raise NotOptimizableError(
            f"{objective!r} lacks indifference to gamma, so with gamma = {mdp.gamma:.6g} and no horizon there is no "
            "stationary optimum to iterate towards (book, chapter 7); pass horizon= (time is then put into the state), "
            "or use gamma = 1, or declare degree= if the utility is homogeneous"
        )
    if "continuity" in lacks and isinstance(objective, Lexicographic):
        raise NotOptimizableError(
            f"{objective!r} lacks continuity: without a horizon, cutting the return can rank its first objective "
            "wrongly after any number of steps (book, chapter 8); pass horizon=, or weigh the objectives against each "
            "other in one utility"
        )


def solve_table(
    mdp: MDP,
    objective: Objective,
    stocks: Floats,
    horizon: int | None,
    tol: float | None,
    memory: int,
    states: Ints,
    max_iter: int | None = None,
) -> Table:
    """The table that answers for all ``states`` and ``stocks``, on the highest rung of exactness that fits."""
    horizon = check_horizon(horizon)
    require_mdp(mdp)
    check_effort(tol, memory)
    if horizon is None and mdp.gamma == 1 and isinstance(objective, Lexicographic):
        horizon = ends_within(mdp)  # where every path ends in time, a finite horizon serves
    require_plannable(mdp, objective, horizon)
    if max_iter is not None and (horizon is None or check_sweeps(max_iter) < horizon):
        return sweeps(mdp, objective, stocks, horizon, memory, states, check_sweeps(max_iter))
    if isinstance(objective, EssInf):
        require_scalar(mdp, objective)
        return RobustTable.solve(mdp, objective, horizon)
    if isinstance(objective, Lexicographic):
        return _lexicographic(mdp, objective, stocks, horizon, memory, states)
    if not isinstance(objective, ExpectedUtility):
        raise NotOptimizableError(
            f"value iteration needs an expected utility (rdo.ExpectedUtility or one of its kinds), rdo.EssInf, "
            f"rdo.EssSup or rdo.Lexicographic; got {type(objective).__name__}"
        )
    if horizon is not None:
        return _within(mdp, objective, stocks, horizon, tol, memory, states)
    if mdp.gamma < 1:
        return _discounted(mdp, objective, stocks, tol, memory, states)
    return _undiscounted(mdp, objective, stocks, tol, memory, states)


def _lexicographic(
    mdp: MDP, objective: Lexicographic, stocks: Floats, horizon: int | None, memory: int, states: Ints
) -> LexicographicTable:
    """Several objectives in order; the nodes are those of no saturation, which serve all."""
    for one in objective.objectives:
        if isinstance(one, EssInf):
            require_scalar(mdp, one)
    assert horizon is not None
    check_steps(mdp, horizon, memory)
    units = Units.of(mdp, stocks)
    own = units if mdp.reward_dim == 1 else InternedUnits(units, mdp.reward_dim)
    problem = Problem(mdp, Mean(), own, None)
    nodes = layers(problem, states, problem.units.key(stocks), horizon, horizon, memory)
    if nodes is None:
        raise MemoryLimitError(
            f"the stocks reachable within {horizon} steps need more than {memory / 2**20:.0f} MiB for {objective!r}; "
            "shorten the horizon, ask for fewer stocks, or raise memory="
        )
    return LexicographicTable(problem, objective, nodes, horizon)


def build_problem(mdp: MDP, objective: ExpectedUtility, stocks: Floats, horizon: int | None) -> Problem:
    """The problem with the units in which its stocks are exact, if there are any, and its saturation, if it has one."""
    saturation: Saturation | OrthantSaturation | None = None
    if mdp.reward_dim == 1 and saturates(objective):
        within = horizon is not None
        saturation = (
            Saturation.within(mdp, objective.slopes, horizon) if within else Saturation.endless(mdp, objective.slopes)
        )
    elif objective.indicator:
        saturation = OrthantSaturation.of(mdp, horizon)
    # Without saturation and without an end, keys would grow beyond what integers in floats can count.
    growing = horizon is None and mdp.gamma < 1 and saturation is None and ends_within(mdp) is None
    units = Units.floats(mdp, stocks) if growing else Units.of(mdp, stocks)
    if mdp.reward_dim == 1:
        return Problem(mdp, objective, units, saturation)
    return Problem(mdp, objective, InternedUnits(units, mdp.reward_dim), saturation)


def saturates(objective: ExpectedUtility) -> bool:
    """Whether a scalar stock stops mattering outside a band."""
    return objective.slopes is not None or objective.indicator


def _undiscounted(
    mdp: MDP, objective: ExpectedUtility, stocks: Floats, tol: float | None, memory: int, states: Ints
) -> Table:
    """Gamma = 1 without a horizon."""
    mesh = greatest_common_mesh(mdp.reward) if mdp.reward_dim == 1 else None
    if mesh is not None and direction(mdp) != 0 and saturates(objective):
        saturation = Saturation.endless(mdp, objective.slopes)
        if not saturation.linear:
            few = _few(mdp, objective, float(mesh), stocks, states, memory)
            return few or MonotoneTable(mdp, objective, saturation, float(mesh), stocks, memory)
    if mesh is not None and direction(mdp) > 0 and isinstance(objective, Quadratic | Exponential):
        few = _few(mdp, objective, float(mesh), stocks, states, memory)
        return few or FallingTable(mdp, objective, float(mesh), stocks, states, tol, memory)
    problem = build_problem(mdp, objective, stocks, None)
    nodes = close(problem, states, problem.units.key(stocks), _exact_memory(memory))
    if nodes is not None:
        return ReachableTable.solve_endless(problem, nodes)
    component = end_components(mdp)
    members = np.flatnonzero(component >= 0)
    if len(members):
        shown = np.flatnonzero(component == component[members[0]])[:8]
        remedy = ", or make every reward on that cycle negative" if saturates(objective) else ""
        raise NotOptimizableError(
            f"gamma = 1 without a horizon: infinitely many stocks can be reached, and the states {shown.tolist()} can "
            f"be cycled through for ever; pass horizon=, or use gamma < 1{remedy}"
        )
    return _ending(mdp, objective, stocks, tol, memory, states)


def _few(
    mdp: MDP, objective: ExpectedUtility, mesh: float, stocks: Floats, states: Ints, memory: int
) -> ReachableTable | None:
    """The reachable pairs of a problem that ends in time, where its lattice is wide and they are few."""
    if ends_within(mdp) is None or np.abs(mdp.reward).max(initial=0.0) <= _WIDE * mesh:
        return None
    problem = build_problem(mdp, objective, stocks, None)
    nodes = close(problem, states, problem.units.key(stocks), min(memory, _SMALL))
    return None if nodes is None else ReachableTable.solve_endless(problem, nodes)


#: A reward of this many meshes makes a lattice wide; so many bytes of reachable pairs are few.
_WIDE, _SMALL = 10_000, 2**24


def _ending(
    mdp: MDP, objective: ExpectedUtility, stocks: Floats, tol: float | None, memory: int, states: Ints
) -> Table:
    """Gamma = 1 without a horizon where every policy ends: cut after enough steps, with the error of what is cut off.

    With ``T`` the time to the end, cutting after ``n`` steps moves the return by at most ``R_max max(T - n, 0)``, and
    leaves it untouched unless ``T > n``.
    """
    largest = largest_reward(mdp, objective)
    if objective.lipschitz is None and not objective.indicator:
        raise NotOptimizableError(
            f"gamma = 1 without a horizon: infinitely many stocks can be reached, and {objective!r} has no Lipschitz "
            "constant that holds at all of them, so the return cannot be cut with a known error; pass horizon="
        )
    weight = 1.0 if objective.indicator else float(objective.lipschitz or 0.0) * largest
    size = 1.0 if objective.indicator else max(weight, float(np.abs(objective.utility(stocks, mdp.reward_dim)).max()))
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


def largest_reward(mdp: MDP, objective: ExpectedUtility) -> float:
    """``R_max``, in the norm in which the objective is Lipschitz."""
    return float(objective.length(mdp.reward, mdp.reward_dim).max(initial=0.0))


#: Steps after which the search for a place to cut an endless return is given up.
_MOST_STEPS = 20_000


def _discounted(
    mdp: MDP, objective: ExpectedUtility, stocks: Floats, tol: float | None, memory: int, states: Ints
) -> Table:
    """Gamma < 1 without a horizon."""
    problem = build_problem(mdp, objective, stocks, None)
    if problem.saturation is not None or ends_within(mdp) is not None:
        nodes = close(problem, states, problem.units.key(stocks), _exact_memory(memory))
        if nodes is not None:
            return ReachableTable.solve_endless(problem, nodes)
    if isinstance(problem.saturation, Saturation):
        return GridTable(problem, stocks, tol, memory)
    rest = -return_range(mdp, -1.0), return_range(mdp, 1.0)
    depth = cut_depth(problem, stocks, rest)
    return _cut(problem, stocks, states, depth, None, rest, tol, memory)


def _cut(
    problem: Problem,
    stocks: Floats,
    states: Ints,
    depth: int,
    horizon: int | None,
    rest: tuple[Floats, Floats] | None,
    tol: float | None,
    memory: int,
) -> Table:
    """``depth`` steps, then the least and the greatest return of the rest (None: nothing is left).

    When the reachable pairs of all steps do not fit, fewer steps with a larger rest compete with rounded stocks.
    """
    mdp = problem.mdp
    nodes = first_layers(problem, states, problem.units.key(stocks), depth, horizon, _exact_memory(memory))
    if len(nodes) == depth:
        return ReachableTable.solve_layers(problem, nodes, horizon, rest)
    if horizon is None and mdp.reward_dim > 1:  # boxes are too coarse for more steps to tell
        depth = min(depth, int(np.ceil(np.log(_COARSE) / np.log(mdp.gamma)))) if mdp.gamma < 1 else depth
    rounded = rounded_window(problem, stocks, depth, horizon, rest, tol, memory)
    if horizon is None:
        later = -return_range(mdp, -1.0), return_range(mdp, 1.0)
    else:
        later = _rest_after(mdp, horizon, len(nodes))
    shallow = ReachableTable.solve_layers(problem, nodes, horizon, later)
    tables: tuple[Table, Table] = (rounded, shallow)
    return min(tables, key=lambda table: gap(table, mdp, states, stocks))


#: Part of the range of an endless return that may be left when vector stocks are rounded.
_COARSE = 1e-3


def _rest_after(mdp: MDP, horizon: int, steps: int) -> tuple[Floats, Floats]:
    """Least and greatest return of the steps of a horizon that remain after the first ones."""
    least, greatest = (return_range_by_step(mdp, sign, horizon - steps)[-1] for sign in (-1.0, 1.0))
    return -least, greatest


def gap(table: Table, mdp: MDP, states: Ints, stocks: Floats) -> float:
    """Greatest distance between the bounds of a table, over all states and stocks."""
    if isinstance(table, PotentialTable | WindowTable) and table.exact:
        return 0.0  # its bounds are one number, and to read them all takes longer than to solve, or is to solve
    at_once = max(1, 2**16 // len(stocks))  # a few states at a time: the table itself is what may be large
    widest = 0.0
    for first in range(0, len(states), at_once):
        some = states[first : first + at_once]
        each = np.tile(np.arange(len(stocks)), len(some))
        lower, upper = table.bounds(np.repeat(some, len(stocks)), stocks[each])
        apart = lower != upper  # (both may be minus infinity, where no policy has a return)
        widest = max(widest, float((upper[apart] - lower[apart]).max(initial=0.0)))
    return widest


def sweeps(
    mdp: MDP, objective: Objective, stocks: Floats, horizon: int | None, memory: int, states: Ints, max_iter: int
) -> Table:
    """The bracket after ``max_iter`` sweeps from the least and from the greatest return that can follow."""
    if not isinstance(objective, ExpectedUtility):
        raise InvalidArgumentError(
            f"max_iter= is for expected utilities; {objective!r} is solved in one go, leave it out"
        )
    problem = build_problem(mdp, objective, stocks, horizon)
    if horizon is not None:
        rest = _rest_after(mdp, horizon, max_iter)
    else:
        rest = -return_range(mdp, -1.0), return_range(mdp, 1.0)
    if not np.isfinite(rest).all():
        raise NotOptimizableError(
            "max_iter= with gamma = 1 and unbounded returns: no number of sweeps gives a bound; leave max_iter= out"
        )
    return _cut(problem, stocks, states, max_iter, horizon, rest, None, memory)


def _within(
    mdp: MDP,
    objective: ExpectedUtility,
    stocks: Floats,
    horizon: int,
    tol: float | None,
    memory: int,
    states: Ints,
) -> Table:
    """A finite horizon: distances from a potential, the lattice or the reachable pairs; rounded stocks otherwise."""
    check_steps(mdp, horizon, memory)
    problem = build_problem(mdp, objective, stocks, horizon)
    mesh = greatest_common_mesh(mdp.reward) if mdp.gamma == 1 else None
    lattice = np.inf if mesh is None else window_bytes(problem, float(mesh), stocks, horizon)
    if mdp.gamma == 1 and mdp.reward_dim == 1:
        apart = _by_potential(problem, mesh, stocks, horizon, memory, lattice)
        if apart is not None:
            return apart
    if mesh is not None and mdp.reward_dim == 1 and lattice <= min(memory, _LATTICE_FIRST):
        try:
            return WindowTable.exact_lattice(problem, float(mesh), stocks, horizon)
        except InvalidArgumentError:  # it holds stocks that no path has, where a logarithm, say, is no number
            lattice = np.inf
    if mesh is None or lattice > memory:
        return _cut(problem, stocks, states, horizon, horizon, None, tol, memory)
    worthwhile = int(min(_exact_memory(memory), lattice))
    nodes = layers(problem, states, problem.units.key(stocks), horizon, horizon, worthwhile)
    if nodes is not None:
        return ReachableTable.solve_layers(problem, nodes, horizon)
    return WindowTable.exact_lattice(problem, float(mesh), stocks, horizon)


def _by_potential(
    problem: Problem, mesh: Fraction | None, stocks: Floats, horizon: int, memory: int, lattice: float
) -> PotentialTable | None:
    """The table for rewards that are changes of a potential, where they are and the problem is large."""
    mdp = problem.mdp
    pairs = len(stocks) * mdp.n_states
    if min(lattice, horizon * pairs if mesh is None else np.inf) <= _ANY_WAY or pairs * BYTES_PER_START > memory:
        return None
    largest = max(float(np.abs(part).max(initial=0.0)) for part in (stocks, mdp.reward))
    whole = mesh is not None and largest < _COUNTED * mesh
    found = find_potential(mdp, float(mesh) if mesh is not None and whole else None)
    if found is None:
        return None
    # Nothing is lost when it cannot be used: it may not fit, or hold stocks that no path has, without a logarithm, say.
    with suppress(MemoryLimitError, InvalidArgumentError):
        return PotentialTable(problem, *found, whole, stocks, horizon, memory)
    return None


#: A stock of up to this many steps of the mesh keeps its place in spite of rounding.
_COUNTED = 1e8

#: A problem of so many bytes is solved in any way: no potential is looked for.
_ANY_WAY = 2**20

#: A lattice of scalar stocks up to this many bytes is swept without looking for a smaller reachable set first.
_LATTICE_FIRST = 2**28


def _exact_memory(memory: int) -> int:
    """Memory granted to the search for a reachable set: past it the search is given up in a second or two."""
    return min(memory, 400 * 2**20)


def cut_depth(problem: Problem, stocks: Floats, rest: tuple[Floats, Floats]) -> int:
    """Steps after which the rest of a discounted return moves the value by at most 1e-13 of its size."""
    least, greatest = rest[0].min(axis=0), rest[1].max(axis=0)
    low, high = stocks.min(axis=0) + least, stocks.max(axis=0) + greatest
    objective, dim = problem.objective, problem.mdp.reward_dim
    lipschitz = objective.lipschitz_on(low, high)
    if lipschitz is None and not objective.indicator:
        raise NotOptimizableError(
            f"{objective!r} declares no Lipschitz constant, so an endless return cannot be cut with a known error; "
            "declare lipschitz=, or pass horizon="
        )
    tiny = np.finfo(float).tiny
    size = max(float(np.abs(objective.utility(np.stack([low, high]), dim)).max()), tiny)
    reach = max((lipschitz or 1.0) * float(objective.length(greatest - least, dim)), tiny)
    return max(1, int(np.ceil(np.log(1e-13 * size / reach) / np.log(problem.mdp.gamma))))
