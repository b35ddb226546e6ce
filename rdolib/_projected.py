"""Distributional value iteration with a representation: ``eta <- Pi T_* eta``.

``T_*`` is the Bellman operator of the policy that is greedy for ``F_K eta (s, c) = K(law of c + G)`` with
``G ~ eta(s, c)``. For an expected utility the worth of an action is a mean over its outcomes,

    F(s, c) = gamma**p max_a E U(S', C'),     U(s, c) = E f(c + G),  G ~ eta(s, c),

(``p`` the degree of ``f``; without one, time is in the state and ``f`` is applied to ``gamma**t (c + G)``), so the
utility is evaluated once per node, at all its atoms, and no mixture is formed but that of the chosen action, which is
then projected.

Error. Let ``F*`` be the optimum, ``U`` the functional of the projected law and ``F`` that of the mixture before it was
projected. From ``F* = gamma**p max_a E F*(S', C')`` follows

    |U - F*| (s, c) <= |U - F| (s, c) + gamma**p max_a E |U - F*| (S', C'),

so a bound runs along with the laws. It measures the projection in ``K`` itself and needs no Lipschitz constant; with
one it is at most ``L (gamma**n D_0 + sum of what the projections moved)`` (derived in the book, chapter 8). Only the
start of an endless problem is bounded by the range of ``f`` over possible returns.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdolib._graph import TIE, ranges, total
from rdolib._progress import bar
from rdolib._projections import Exact, Representation
from rdolib._reachable import QUERY, Codes, Problem, ReachableTable, close, code, layers, unknown_stock
from rdolib._rows import Edges, Rows, rows_of
from rdolib._rungs import build_problem, require_plannable, solve_table
from rdolib._sweeps import state_laws
from rdolib._tables import Table
from rdolib.distributions import Distribution
from rdolib.errors import MemoryLimitError, NotOptimizableError
from rdolib.evaluation import Evaluation, evaluate
from rdolib.mdp import MDP
from rdolib.objectives import ExpectedUtility, Objective
from rdolib.stock import Saturation, ends_within, return_range, return_range_by_step

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

#: Part of the error of the start at which endless sweeps stop, and the most that layers may leave of it.
_NEGLIGIBLE, _DEEP = 1e-10, 1e-3
_NODES = 400_000  # (state, stock) pairs of an endless problem, over all steps


class ProjectedTable:
    """Values, actions and laws at reachable nodes. The protocol of `Table`, and `law`."""

    def __init__(self, inner: ReachableTable, representation: Representation, iterations: int, exact: bool) -> None:
        self.inner = inner
        self.representation = representation
        self.iterations = iterations
        self.exact = exact
        count = sum(len(n) for n in inner.nodes)
        self.rung = f"projected: {representation!r} at {count} reachable (state, stock) pairs, {iterations} sweeps"
        self._first: tuple[Rows, Any, Floats] | None = None
        self._evaluation: Evaluation | None = None

    def bounds(self, state: Ints, stock: Floats) -> tuple[Floats, Floats]:
        """Lower and upper bounds of the optimal values at step 0."""
        return self.inner.bounds(state, stock)

    def action(self, state: Ints, stock: Floats, t: int) -> NDArray[np.int32]:
        """Greedy actions at step ``t``."""
        return self.inner.action(state, stock, t)

    def side(self, state: Ints, stock: Floats, t: int) -> NDArray[np.int8]:
        """Where the stock matters no more."""
        return self.inner.side(state, stock, t)

    def rests(self, state: Ints, stock: Floats) -> Bools:
        """Where the policy goes on for ever without any further reward."""
        return self.inner.rests(state, stock)

    def law(self, state: int, stock: Floats | float) -> Distribution:
        """Law of ``G`` under the policy, in the representation, with a bound of its W1 error."""
        if self._first is None:
            if self._evaluation is None:
                self._evaluation = evaluate(self.inner.problem.mdp, self, None, self.representation)
            return self._evaluation(state, stock)
        mdp = self.inner.problem.mdp
        c = np.asarray(stock, dtype=np.float64).reshape((1,) if mdp.reward_dim == 1 else (1, -1))
        if mdp.terminal[state]:
            return Distribution(np.zeros_like(c), [1.0])
        rows, laws, error = self._first
        left = self.inner.horizon or 0
        problem, nodes = self.inner.problem, self.inner.nodes[0]
        index = int(problem.locate(nodes, np.array([state]), c, left, QUERY)[0])
        if index < 0 or np.abs(problem.units.stock(nodes.imag[[index]]) - c).max() > QUERY * max(1.0, np.abs(c).max()):
            raise unknown_stock(state, c[0], 0)
        return rows.law(laws, index, w1_error=float(error[index]))


class EvaluatedTable:
    """An exact or certified table, and the laws of its policy in a representation."""

    def __init__(self, mdp: MDP, table: Table, representation: Representation) -> None:
        self.table = table
        self.exact, self.iterations = table.exact, table.iterations
        self.rung = f"{table.rung}; laws as {representation!r}"
        self.bounds, self.action, self.side, self.rests = table.bounds, table.action, table.side, table.rests
        self._evaluation = evaluate(mdp, table, None, representation)

    def law(self, state: int, stock: Floats | float) -> Distribution:
        """Law of ``G`` under the policy, in the representation, with a bound of its W1 error."""
        return self._evaluation(state, stock)


def solve_projected(
    mdp: MDP,
    objective: Objective,
    stocks: Floats,
    horizon: int | None,
    tol: float | None,
    memory: int,
    representation: Representation,
    states: Ints,
) -> ProjectedTable | EvaluatedTable:
    """Value iteration on laws in a representation, for all ``states`` and ``stocks`` (n,) or (n, m).

    Finite horizon: backward over the layers of reachable nodes. Endless with a discount: sweeps over the closed set of
    nodes where there is one (a utility that saturates, or paths that all end), or layers where few enough go deep
    enough. Otherwise, and endless without a discount, where sweeps need not contract and a greedy policy need not
    arrive, the actions are those of the values of ``F_K`` on the best scalar table (`rdolib._rungs`), and the laws are
    those of that policy.
    """
    rows = rows_of(representation, mdp)
    require_plannable(mdp, objective, horizon)
    if not isinstance(objective, ExpectedUtility):
        raise NotOptimizableError(
            f"with representation= value iteration takes expected utilities; {objective!r} is none: leave it out"
        )
    problem = build_problem(mdp, objective, stocks, horizon)
    bare = Problem(mdp, objective, problem.units, None)
    by_step: list[Codes] | None = None
    if horizon is not None:
        by_step = _all_layers(bare, states, stocks, horizon, memory)
    elif mdp.gamma < 1:
        few = min(memory, 120 * _NODES)
        closes = isinstance(problem.saturation, Saturation) or ends_within(mdp) is not None
        nodes = close(problem, states, problem.units.key(stocks), few) if closes else None
        if nodes is not None:
            return _Sweeps(problem, rows, nodes, stocks, states).solve(representation, tol)
        by_step = None if closes else _deep_layers(bare, states, stocks, few)
    if by_step is None:
        table = solve_table(mdp, objective, stocks, None, tol, memory, states)
        return EvaluatedTable(mdp, table, representation)
    widest = max(len(nodes) for nodes in by_step)
    needed = 24 * widest * getattr(rows, "n", 1)
    if needed > memory:
        raise MemoryLimitError(
            f"{widest} (state, stock) pairs in one step need {needed / 2**20:.0f} MiB as {representation!r}, more than "
            f"the limit of {memory / 2**20:.0f} MiB; take a coarser representation, or raise memory="
        )
    return _backward(bare, rows, by_step, horizon, representation)


# ----------------------------------------------------------------------------------------------- one sweep


@dataclass(frozen=True)
class _Decision:
    """All outcomes of all pairs at some nodes, and what is known about where they lead."""

    pair_ptr: Ints
    owner: Ints  # pair of each outcome
    weight: Floats  # probability times the weight of a step
    edge_prob: Floats
    edge_reward: Floats
    to: Ints  # row of the laws one step later, -1: the return has ended
    worth: Floats  # of outcomes that lead to no node
    node: Ints  # node of the next step that each outcome leads to, -1 for none

    def choose(self, value: Floats, error: Floats) -> tuple[Floats, Floats, Ints]:
        """Best worth of each node, its error, and the number of the lowest maximizing pair within the node."""
        on = self.node >= 0
        worth, slack = self.worth.copy(), np.zeros(len(self.worth))
        worth[on], slack[on] = value[self.node[on]], error[self.node[on]]
        n_pairs = int(self.pair_ptr[-1])
        first = self.pair_ptr[:-1]
        if n_pairs == 0:
            return np.empty(0), np.empty(0), np.empty(0, dtype=np.int64)
        of_pair = total(self.owner, self.weight * worth, n_pairs)
        best = np.maximum.reduceat(of_pair, first)
        pair_node = np.repeat(np.arange(len(first)), np.diff(self.pair_ptr))
        ties = np.flatnonzero(of_pair >= (best - TIE * np.maximum(1.0, np.abs(best)))[pair_node])[::-1]
        choice = np.zeros(len(first), dtype=np.int64)
        choice[pair_node[ties]] = ties - first[pair_node[ties]]
        return best, np.maximum.reduceat(total(self.owner, self.weight * slack, n_pairs), first), choice

    def worst(self, slack: Floats) -> Floats:
        """``max_a E slack`` with the weight of a step, for ``slack`` (outcomes,)."""
        return np.asarray(
            np.maximum.reduceat(total(self.owner, self.weight * slack, int(self.pair_ptr[-1])), self.pair_ptr[:-1])
        )

    def edges(self, choice: Ints) -> Edges:
        """Edges of the chosen pairs."""
        pair = self.pair_ptr[:-1] + choice
        first = np.searchsorted(self.owner, pair)
        last = np.searchsorted(self.owner, pair, side="right")
        edge, _ = ranges(first, last)
        ptr = np.concatenate([[0], np.cumsum(last - first)])
        return Edges(ptr, self.to[edge], self.edge_prob[edge], np.ascontiguousarray(self.edge_reward[edge]))


def _decision(
    table: ReachableTable, t: int, following: Codes | None, cut: Ints | None, tails: Any = None
) -> tuple[_Decision, Any, Ints]:
    """Outcomes of layer ``t``. ``following``: the nodes one step later, None where the last step ends or is cut.

    Cut outcomes lead to the row ``cut[state]`` and have no worth yet: they are the third answer.
    """
    problem = table.problem
    mdp = problem.mdp
    step, worth, _, _ = table.outcomes(t, None)
    outcome, _ = ranges(mdp.outcome_ptr[step.pair], mdp.outcome_ptr[step.pair + 1])
    on = np.flatnonzero(~step.ended)
    node, to = np.full(len(worth), -1), np.full(len(worth), -1)
    rest = np.empty(0, dtype=np.int64)
    if tails is not None:
        side = problem.side(step.state[on], step.key[on], 0)
        to[on] = tails(step.state[on], side)
        on = on[side == 0]
    if following is not None:
        node[on] = to[on] = np.searchsorted(following, code(step.state[on], step.key[on]))
    elif cut is not None:
        to[on] = cut[step.state[on]]
        rest = on
    decision = _Decision(
        pair_ptr=np.concatenate([[0], np.cumsum(step.pair_count)]),
        owner=step.owner,
        weight=problem.factor * step.prob,
        edge_prob=step.prob,
        edge_reward=mdp.reward[outcome],
        to=to,
        worth=worth,
        node=node,
    )
    return decision, step, rest


def _functional(problem: Problem, rows: Rows, laws: Any, stock: Floats, t: int) -> Floats:
    """``E f(c + G)`` of every row, in the money in which values are kept at step ``t``."""
    scale = problem.mdp.gamma**t if problem.objective.degree is None else 1.0
    return rows.expect(laws, lambda x: problem.utility(scale * x), stock)


def _reach(
    problem: Problem, state: Ints, stock: Floats, least: Floats, greatest: Floats, t: int
) -> tuple[Floats, Floats]:
    """Range of the utility over everything that can still happen."""
    scale = problem.mdp.gamma**t if problem.objective.degree is None else 1.0
    low, high = scale * (stock + least[state]), scale * (stock + greatest[state])
    return problem.objective.range_on(low, high, problem.mdp.reward_dim)


# ----------------------------------------------------------------------------------------------- layers


def _all_layers(problem: Problem, states: Ints, stocks: Floats, horizon: int, memory: int) -> list[Codes]:
    found = layers(problem, states, problem.units.key(stocks), horizon, horizon, memory)
    if found is None:
        raise MemoryLimitError(
            f"the stocks reachable within {horizon} steps need more than {memory / 2**20:.0f} MiB; shorten the "
            "horizon, ask for fewer stocks, leave representation= out, or raise memory="
        )
    return found


def _deep_layers(problem: Problem, states: Ints, stocks: Floats, memory: int) -> list[Codes] | None:
    """Layers to a depth after which little of a discounted return is left, the deepest that fits; else None."""
    for part in (_NEGLIGIBLE, 1e-6, _DEEP):
        depth = max(1, int(np.ceil(np.log(part) / np.log(problem.mdp.gamma))))
        found = layers(problem, states, problem.units.key(stocks), depth, None, memory)
        if found is not None:
            return found
    return None


def _backward(
    problem: Problem, rows: Rows, by_step: list[Codes], horizon: int | None, representation: Representation
) -> ProjectedTable:
    """One layer after the other, the last first.

    What comes after the last layer of an endless problem is the law of the lowest actions, which the table takes there.
    """
    mdp = problem.mdp
    table = ReachableTable(problem, by_step, horizon)
    least, greatest, laws, moved, cut = _tail(mdp, rows, horizon)
    value, error, w1 = np.empty(0), np.empty(0), moved
    values, uppers, choices = [], [], []
    with bar("sweeping laws", len(by_step)) as progress:
        for t in reversed(range(len(by_step))):
            last = t == len(by_step) - 1
            decision, step, rest = _decision(table, t, None if last else by_step[t + 1], cut if last else None)
            slack = np.zeros(len(decision.worth))
            if len(rest) and cut is not None:
                stock, state = problem.units.stock(step.key[rest]), step.state[rest]
                known = _functional(problem, rows, rows.take(laws, cut[state]), stock, t + 1)
                low, high = _reach(problem, state, stock, least, greatest, t + 1)
                decision.worth[rest] = known
                slack[rest] = np.maximum(high - known, known - low)
            best, drift, choice = decision.choose(value, error)
            if len(rest):
                drift = decision.worst(slack)
            edges = decision.edges(choice)
            laws, moved = rows.backup(edges, mdp.gamma, laws)
            w1 = moved + mdp.gamma * edges.mean(w1)
            stock = problem.units.stock(by_step[t].imag)
            value = _functional(problem, rows, laws, stock, t)
            error = drift if rows.exact else np.abs(value - best) + drift
            values.append(best - drift)
            uppers.append(best + drift)
            choices.append(choice)
            progress.update()
    low, high = _reach(problem, by_step[0].real.astype(np.int64), stock, *_range(mdp, horizon), 0)
    values[-1], uppers[-1] = np.maximum(values[-1], low), np.minimum(uppers[-1], high)
    table.store(values[::-1], choices[::-1], uppers[::-1])
    result = ProjectedTable(
        table, representation, len(by_step), isinstance(representation, Exact) and horizon is not None
    )
    result._first = rows, laws, w1
    return result


def _range(mdp: MDP, horizon: int | None) -> tuple[Floats, Floats]:
    """Least and greatest return of each state."""
    if horizon is None:
        return -return_range(mdp, -1.0), return_range(mdp, 1.0)
    return -return_range_by_step(mdp, -1.0, horizon)[horizon], return_range_by_step(mdp, 1.0, horizon)[horizon]


def _tail(mdp: MDP, rows: Rows, horizon: int | None) -> tuple[Floats, Floats, Any, Floats, Ints | None]:
    """Ranges of what is left after the last layer, and its laws, errors and rows by state; nothing with a horizon."""
    if horizon is not None:
        return np.empty(0), np.empty(0), rows.empty(), np.empty(0), None
    lowest = np.zeros(mdp.n_states, dtype=np.int32)
    live = ~mdp.terminal
    lowest[live] = mdp.pair_action[mdp.pair_ptr[:-1][live]]
    return *_range(mdp, None), *state_laws(mdp, rows, lowest, live)


# ----------------------------------------------------------------------------------------------- closed sets


class _Sweeps:
    """Sweeps over nodes that are never left, with one low and one high node per state where stocks matter no more."""

    def __init__(self, problem: Problem, rows: Rows, nodes: Codes, stocks: Floats, states: Ints) -> None:
        self.problem, self.rows, self.nodes = problem, rows, nodes
        self.table = ReachableTable(problem, [nodes], None)
        self.table.endless = True
        self.state = nodes.real.astype(np.int64)
        self.stock = problem.units.stock(nodes.imag)
        self.n = len(nodes)
        mdp, live = problem.mdp, ~problem.mdp.terminal
        saturation = problem.saturation
        lowest = np.zeros(mdp.n_states, dtype=np.int32)
        lowest[live] = mdp.pair_action[mdp.pair_ptr[:-1][live]]
        low, high = lowest, lowest
        if isinstance(saturation, Saturation):
            low, high = saturation.low_action[0], saturation.high_action[0]
        needed = {-1: np.zeros(mdp.n_states, dtype=np.bool_), 1: np.zeros(mdp.n_states, dtype=np.bool_)}
        needed[-1][self.state] = True  # sweeps start from the laws of the low policy
        if self.n and saturation is not None:
            step, _, _, _ = self.table.outcomes(0, None)
            on = ~step.ended
            side = problem.side(step.state[on], step.key[on], 0)
            for sign, states_of in needed.items():
                states_of[step.state[on][side == sign]] = True
        self.low, _, self.low_row = state_laws(mdp, rows, low, needed[-1])
        self.high, _, self.high_row = state_laws(mdp, rows, high, needed[1])

    def _tails(self, state: Ints, side: NDArray[np.int8]) -> Ints:
        n_low = int((self.low_row >= 0).sum())
        return np.where(side < 0, self.n + self.low_row[state], self.n + n_low + self.high_row[state])

    def solve(self, representation: Representation, tol: float | None) -> ProjectedTable:
        """Sweep until the error of the start is negligible, or cannot get smaller."""
        if self.n == 0:
            self.table.store([np.empty(0)], [np.empty(0, dtype=np.int64)])
            return ProjectedTable(self.table, representation, 0, True)
        problem, rows, gamma = self.problem, self.rows, self.problem.mdp.gamma
        decision, _, _ = _decision(self.table, 0, self.nodes, None, self._tails)
        functional = partial(_functional, problem, rows, stock=self.stock, t=0)
        laws = rows.take(self.low, self.low_row[self.state])
        value = functional(laws=laws)
        least, greatest = _range(problem.mdp, None)
        low, high = _reach(problem, self.state, self.stock, least, greatest, 0)
        head = np.maximum(high - value, value - low)
        error, start = np.zeros(self.n), head.copy()
        enough = _NEGLIGIBLE * float(start[np.isfinite(start)].max(initial=0.0)) if tol is None else tol / 4
        most = max(1, int(np.ceil(np.log(_NEGLIGIBLE) / np.log(gamma))))
        same, before = False, None
        for n in range(1, most + 1):  # noqa: B007
            best, drift, choice = decision.choose(value, error)
            rest = decision.choose(value, head)[1]
            if float(rest.max()) <= enough:
                break
            if not same:
                new, _ = rows.backup(decision.edges(choice), gamma, rows.stack([laws, self.low, self.high]))
                same = before is not None and rows.same(new, laws) and bool((choice == before).all())
                laws, before, value = new, choice, functional(laws=new)
            error, head = drift if rows.exact else np.abs(value - best) + drift, rest
        total_error = drift + rest
        lower, upper = np.maximum(best - total_error, low), np.minimum(best + total_error, high)
        self.table.store([lower], [choice], [upper])
        return ProjectedTable(self.table, representation, n, False)
