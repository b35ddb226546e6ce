"""Dynamic programming on the stocks that can be reached, one node per (state, stock).

Endless horizon: the nodes are closed under transitions up to saturation, and the resulting finite graph is solved
exactly (`rdolib._graph`). Finite horizon: one layer of nodes per step, any utility. Endless horizon with a utility
that does not saturate: layers up to a depth at which the rest of the return cannot move the value by more than the
tolerance, closed with the least and the greatest value the rest can have; both bounds are certified.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdolib import _graph
from rdolib._graph import Graph, ranges
from rdolib.errors import InvalidArgumentError
from rdolib.mdp import MDP
from rdolib.objectives import ExpectedUtility
from rdolib.stock import Saturation, Units, resting_pairs

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Codes = NDArray[np.complex128]  # state + 1j * key: numpy sorts complex numbers by state, then by key

_PATIENCE = 50_000_000  # node insertions after which a set that keeps growing is given up: half a second
BYTES_PER_OUTCOME = 120  # of a node, while the graph is built
SAME_STOCK = 1e-11  # a stock whose value is asked for may differ from a node's by this much, relative
QUERY = 1e-9  # and a stock at which an action is asked for by this much: simulated stocks drift


def code(state: NDArray[Any], key: NDArray[Any]) -> Codes:
    out = np.empty(len(state), dtype=np.complex128)
    out.real, out.imag = state, key
    return out


def find(codes: Codes, state: Ints, key: Floats, tolerance: Floats) -> Ints:
    """Index of the node nearest to each (state, key), -1 where none is within the tolerance."""
    if len(codes) == 0:
        return np.full(len(state), -1, dtype=np.int64)
    wanted = code(state, key)
    right = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
    left = np.maximum(right - 1, 0)
    closer = (codes.real[left] == state) & (
        (codes.real[right] != state) | (np.abs(codes.imag[left] - key) < np.abs(codes.imag[right] - key))
    )
    index = np.where(closer, left, right)
    near = np.abs(codes.imag[index] - key) <= tolerance
    return np.where((codes.real[index] == state) & near, index, -1)


@dataclass(frozen=True)
class Problem:
    """What the layers and the endless graph share: an MDP with a scalar reward, a utility, and units of stock."""

    mdp: MDP
    objective: ExpectedUtility
    units: Units
    saturation: Saturation | None  # None for a utility that does not saturate

    @property
    def outcome_reward(self) -> Floats:
        """Rewards in units of the mesh."""
        reward = self.mdp.reward / self.units.mesh
        return np.rint(reward) if self.units.exact else reward

    @property
    def factor(self) -> float:
        """Weight of one step: ``gamma**degree``; 1 where values are kept in the money of step 0."""
        return 1.0 if self.objective.degree is None else self.mdp.gamma**self.objective.degree

    def payoff(self, key: Floats, t: int) -> Floats:
        """Worth of a return that ends with this stock after ``t`` steps."""
        stock = self.units.stock(key)
        if self.objective.degree is None:
            stock = self.mdp.gamma**t * stock
        return self.objective.utility(stock)

    def tolerance(self, stock: Floats, relative: float) -> Floats:
        """How far, in keys, a stock may be from a node and still be that node's."""
        drift = relative * np.maximum(1.0, np.abs(stock)) / self.units.mesh
        return np.maximum(drift, 0.5) if self.units.exact else drift

    def side(self, state: Ints, key: Floats, left: int) -> NDArray[np.int8]:
        if self.saturation is None:
            return np.zeros(len(state), dtype=np.int8)
        return self.saturation.side(state, self.units.stock(key), left)

    def side_asked(self, state: Ints, stock: Floats, left: int, t: int) -> NDArray[np.int8]:
        """`side` for a stock that was carried along for ``t`` steps, each of which divides its error by gamma."""
        if self.saturation is None:
            return np.zeros(len(state), dtype=np.int8)
        slack = QUERY * float(np.exp(min(600.0, -t * np.log(self.mdp.gamma))))
        side = self.saturation.side(state, stock, left)
        return np.where(side != 0, side, self.saturation.side(state, stock, left, slack))


class _Expansion:
    """All outcomes of all actions at some nodes."""

    def __init__(self, problem: Problem, codes: Codes) -> None:
        mdp = problem.mdp
        state, key = codes.real.astype(np.int64), codes.imag
        self.pair, pair_node = ranges(mdp.pair_ptr[state], mdp.pair_ptr[state + 1])
        self.pair_count = mdp.pair_ptr[state + 1] - mdp.pair_ptr[state]
        outcome, self.owner = ranges(mdp.outcome_ptr[self.pair], mdp.outcome_ptr[self.pair + 1])
        self.prob = mdp.prob[outcome]
        self.state = mdp.next_state[outcome].astype(np.int64)
        self.key = problem.units.step(key[pair_node[self.owner]], problem.outcome_reward[outcome])
        self.ended = mdp.terminated[outcome]


def _starts(problem: Problem, states: Ints, keys: Floats, left: int) -> Codes:
    """Nodes of all (state, key) that need one: not terminal, not saturated."""
    state = np.repeat(states[~problem.mdp.terminal[states]], len(keys))
    key = np.tile(keys, len(state) // max(1, len(keys)))
    keep = problem.side(state, key, left) == 0
    return np.unique(code(state[keep], key[keep]))


def _limit(problem: Problem, memory: int) -> int:
    per_state = problem.mdp.n_outcomes / problem.mdp.n_states
    return int(memory / (BYTES_PER_OUTCOME * max(1.0, per_state)))


def close(problem: Problem, states: Ints, keys: Floats, memory: int) -> Codes | None:
    """All nodes reachable without a horizon; None when they do not fit into the memory or there is no end of them."""
    limit, work = _limit(problem, memory), 0
    nodes = frontier = _starts(problem, states, keys, 0)
    while len(frontier):
        work += len(nodes)
        step = _Expansion(problem, frontier)
        stays = ~step.ended
        stays[stays] = problem.side(step.state[stays], step.key[stays], 0) == 0
        found = np.unique(code(step.state[stays], step.key[stays]))
        place = np.searchsorted(nodes, found)
        known = nodes[np.minimum(place, len(nodes) - 1)] == found
        frontier = found[~known]
        nodes = np.insert(nodes, place[~known], frontier)
        if len(nodes) > limit or work > _PATIENCE:
            return None
    return nodes


def layers(
    problem: Problem, states: Ints, keys: Floats, depth: int, horizon: int | None, memory: int
) -> list[Codes] | None:
    """Nodes reachable at steps 0, 1, ..., depth - 1; None when they do not fit into the memory."""
    limit = _limit(problem, memory)

    def left(t: int) -> int:
        return 0 if horizon is None else horizon - t

    nodes = [_starts(problem, states, keys, left(0))]
    total = len(nodes[0])
    for t in range(1, depth):
        step = _Expansion(problem, nodes[-1])
        stays = ~step.ended
        stays[stays] = problem.side(step.state[stays], step.key[stays], left(t)) == 0
        nodes.append(np.unique(code(step.state[stays], step.key[stays])))
        total += len(nodes[-1])
        if total > limit:
            return None
    return nodes


class ReachableTable:
    """Values and actions at reachable nodes."""

    def __init__(self, problem: Problem, nodes: list[Codes], horizon: int | None) -> None:
        self.problem = problem
        self.nodes = nodes
        self.horizon = horizon
        self.endless = False
        self.exact = True
        self.iterations = len(nodes)
        self.rung = ""

    # ------------------------------------------------------------- solving

    @classmethod
    def solve_endless(cls, problem: Problem, nodes: Codes) -> ReachableTable:
        table = cls(problem, [nodes], None)
        table.endless = True
        table.rung = f"exact: {len(nodes)} reachable (state, stock) pairs" if len(nodes) else "exact: no stock matters"
        graph = table._graph_of(0, None)
        value, choice = _graph.solve(graph, discounted=problem.factor < 1)
        table._store([value], [choice])
        return table

    @classmethod
    def solve_layers(
        cls,
        problem: Problem,
        nodes: list[Codes],
        horizon: int | None,
        rest: tuple[Floats, Floats] | None = None,
    ) -> ReachableTable:
        """Backward through the layers. ``rest``: least and greatest return of each state after the last layer."""
        table = cls(problem, nodes, horizon)
        count = sum(len(n) for n in nodes)
        table.rung = f"exact: {count} reachable (state, stock) pairs over {len(nodes)} steps"
        sides: list[list[Floats]] = []
        for bound in (0, 1) if rest is not None else (0,):
            values: list[Floats] = []
            choices: list[Ints] = []
            following: Floats | None = None
            for t in reversed(range(len(nodes))):
                graph = table._graph_of(t, following, rest, bound)
                following, choice = _graph.solve(graph, discounted=False)
                values.append(following)
                choices.append(choice)
            sides.append(values[::-1])
            if bound == 0:
                kept = choices[::-1]
        table._store(sides[0], kept, sides[-1])
        return table

    def _graph_of(
        self, t: int, following: Floats | None, rest: tuple[Floats, Floats] | None = None, bound: int = 0
    ) -> Graph:
        """Graph of layer ``t``; its successors are the same nodes (endless) or the solved layer ``following``."""
        problem = self.problem
        step = _Expansion(problem, self.nodes[t])
        worth = np.zeros(len(step.state))
        last = not self.endless and t == len(self.nodes) - 1
        left = 0 if self.horizon is None else self.horizon - t - 1
        ended = step.ended
        worth[ended] = problem.payoff(step.key[ended], t + 1)
        on = np.flatnonzero(~ended)
        if last and rest is not None:
            worth[on] = self._rest_payoff(step, on, t + 1, rest, bound)
            on = on[:0]
        elif last:
            worth[on] = problem.payoff(step.key[on], t + 1)
            on = on[:0]
        if problem.saturation is not None:
            side = problem.side(step.state[on], step.key[on], left)
            done = side != 0
            stock = problem.units.stock(step.key[on[done]])
            worth[on[done]] = problem.saturation.value(step.state[on[done]], stock, side[done], left)
            on = on[~done]
        weight = problem.factor * step.prob
        inner = np.zeros(len(worth), dtype=np.bool_)
        inner[on] = True
        target = np.searchsorted(self.nodes[t if self.endless else min(t + 1, len(self.nodes) - 1)],
                                 code(step.state[on], step.key[on]))  # fmt: skip
        n_pairs = len(step.pair)
        stop = np.full(len(self.nodes[t]), -np.inf)
        edge_ptr = np.zeros(n_pairs + 1, dtype=np.int64)
        base = _graph.total(step.owner, weight * worth, n_pairs)
        if self.endless:
            np.cumsum(np.bincount(step.owner[inner], minlength=n_pairs), out=edge_ptr[1:])
            edges, edge_weight = target.astype(np.int32), weight[inner]
        else:
            if following is not None and len(on):
                base += _graph.total(step.owner[inner], weight[inner] * following[target], n_pairs)
            edges, edge_weight = np.empty(0, dtype=np.int32), np.empty(0)
        graph = Graph(
            pair_ptr=np.concatenate([[0], np.cumsum(step.pair_count)]),
            base=base,
            leaks=np.bincount(step.owner[~inner], minlength=n_pairs) > 0,
            edge_ptr=edge_ptr,
            edge_to=edges,
            edge_weight=edge_weight,
            stop=stop,
        )
        if self.endless:
            self._allow_stops(graph, step)
        return graph

    def _rest_payoff(self, step: _Expansion, on: Ints, t: int, rest: tuple[Floats, Floats], bound: int) -> Floats:
        scale = 1.0 if self.problem.objective.degree is not None else self.problem.mdp.gamma**t
        stock = self.problem.units.stock(step.key[on])
        low, high = scale * (stock + rest[0][step.state[on]]), scale * (stock + rest[1][step.state[on]])
        return self.problem.objective.range_on(low, high)[bound]

    def _allow_stops(self, graph: Graph, step: _Expansion) -> None:
        """Where staying for ever is a way to end: resting at reward 0, or (indicator, gamma < 1) inside the band."""
        problem = self.problem
        state = self.nodes[0].real.astype(np.int64)
        if problem.mdp.gamma == 1:
            rests = np.zeros(problem.mdp.n_states, dtype=np.bool_)
            rests[problem.mdp.pair_state[resting_pairs(problem.mdp)]] = True
            here = rests[state]
            graph.stop[here] = problem.payoff(self.nodes[0].imag[here], 0)
        elif problem.objective.indicator:
            # c + G = 0 exactly when the stock never leaves the band, so such a return reaches its target.
            graph.stop[_can_stay(graph)] = 1.0

    def _store(self, values: list[Floats], choices: list[Ints], upper: list[Floats] | None = None) -> None:
        mdp = self.problem.mdp
        self.values = values
        self.upper = values if upper is None else upper
        resting = np.flatnonzero(resting_pairs(mdp))[::-1]
        rest_pair = mdp.pair_ptr[:-1].copy()
        rest_pair[mdp.pair_state[resting]] = resting
        self.stops = [choice < 0 for choice in choices]
        self.actions = []
        for codes, choice in zip(self.nodes, choices, strict=True):
            state = codes.real.astype(np.int64)
            pair = np.where(choice < 0, rest_pair[state], mdp.pair_ptr[state] + choice)
            self.actions.append(mdp.pair_action[pair] if len(pair) else np.empty(0, dtype=np.int32))

    # ------------------------------------------------------------- reading

    def bounds(self, state: Ints, stock: Floats) -> tuple[Floats, Floats]:
        """Lower and upper bound of the optimal value at step 0; equal on exact rungs."""
        problem = self.problem
        key = problem.units.key(stock)
        left = self.horizon or 0
        index = find(self.nodes[0], state, key, problem.tolerance(stock, 0.0 if problem.units.exact else SAME_STOCK))
        ended = problem.mdp.terminal[state]
        side = problem.side(state, key, left)
        unknown = (index < 0) & ~ended & (side == 0)
        if unknown.any():
            raise _unknown_stock(state[unknown][0], stock[unknown][0], 0)
        lower, upper = np.empty(len(state)), np.empty(len(state))
        for out, values in ((lower, self.values[0]), (upper, self.upper[0])):
            if problem.saturation is not None:
                out[:] = problem.saturation.value(state, stock, side, left)
            out[index >= 0] = values[index[index >= 0]]
            out[ended] = problem.objective.utility(stock[ended])
        return lower, upper

    def values_at(self, state: Ints, key: Floats, t: int) -> Floats:
        """Values at step ``t`` of reachable or saturated keys, in the money of that step; NaN elsewhere."""
        problem = self.problem
        left = 0 if self.horizon is None else self.horizon - t
        nodes = self.nodes[0 if self.endless else t]
        stock = problem.units.stock(key)
        index = find(nodes, state, key, problem.tolerance(stock, 0.0 if problem.units.exact else SAME_STOCK))
        side = problem.side(state, key, left)
        value = np.full(len(state), np.nan)
        if problem.saturation is not None:
            sure = problem.saturation.value(state, stock, side, left)
            value[side != 0] = sure[side != 0]
        hit = (index >= 0) & (side == 0)
        value[hit] = self.values[0 if self.endless else t][index[hit]]
        return value

    def action(self, state: Ints, stock: Floats, t: int) -> NDArray[np.int32]:
        problem = self.problem
        action = np.zeros(len(state), dtype=np.int32)
        live = np.flatnonzero(~problem.mdp.terminal[state])
        depth = 0 if self.endless else t
        left = 0 if self.horizon is None else self.horizon - t
        if depth >= len(self.nodes):  # past the last layer: nothing depends on the action any more
            action[live] = problem.mdp.pair_action[problem.mdp.pair_ptr[state[live]]]
            return action
        key = problem.units.key(stock[live])
        index = find(self.nodes[depth], state[live], key, problem.tolerance(stock[live], QUERY))
        if problem.saturation is not None:
            side = problem.side_asked(state[live], stock[live], left, t)
            action[live] = problem.saturation.action(state[live], side, left)
            unknown = (index < 0) & (side == 0)
        else:
            unknown = index < 0
        if unknown.any():
            raise _unknown_stock(state[live][unknown][0], stock[live][unknown][0], t)
        hit = index >= 0
        action[live[hit]] = self.actions[depth][index[hit]]
        return action

    def side(self, state: Ints, stock: Floats, t: int) -> NDArray[np.int8]:
        """-1 and 1 where the stock matters no more, now and later, being too low or too high; else 0."""
        if self.problem.saturation is None:
            return np.zeros(len(state), dtype=np.int8)
        left = 0 if self.horizon is None else self.horizon - t
        return self.problem.saturation.side(state, stock, left)

    def rests(self, state: Ints, stock: Floats) -> Bools:
        """Where the policy goes on for ever without any further reward."""
        if not self.endless or self.problem.mdp.gamma < 1:
            return np.zeros(len(state), dtype=np.bool_)
        index = find(self.nodes[0], state, self.problem.units.key(stock), self.problem.tolerance(stock, QUERY))
        return np.where(index >= 0, self.stops[0][index] if len(self.stops[0]) else False, False)


def _can_stay(graph: Graph) -> Bools:
    """Nodes from which some policy stays in the graph surely and for ever."""
    n_pairs = len(graph.base)
    edge_pair = np.repeat(np.arange(n_pairs), np.diff(graph.edge_ptr))
    pair_node = np.repeat(np.arange(graph.n_nodes), np.diff(graph.pair_ptr))
    keeps = ~graph.leaks
    while True:
        stays = np.zeros(graph.n_nodes, dtype=np.bool_)
        stays[pair_node[keeps]] = True
        new = keeps.copy()
        new[edge_pair[~stays[graph.edge_to]]] = False
        if (new == keeps).all():
            return stays
        keeps = new


def _unknown_stock(state: Any, stock: Any, t: int) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"stock {stock:.12g} at state {state}, step {t} cannot be reached from the stocks this problem was solved for; "
        "solve again with this stock in stock="
    )
