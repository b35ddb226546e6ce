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
from rdolib._interned import InternedUnits
from rdolib._progress import bar
from rdolib.errors import InvalidArgumentError
from rdolib.mdp import MDP
from rdolib.objectives import ExpectedUtility
from rdolib.stock import OrthantSaturation, Saturation, Units, resting_pairs

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Codes = NDArray[np.complex128]  # state + 1j * key: numpy sorts complex numbers by state, then by key

_PATIENCE = 50_000_000  # node insertions after which a set that keeps growing is given up: half a second
BYTES_PER_OUTCOME = 120  # of a node, while the graph is built
SAME_STOCK = 1e-11  # a stock whose value is asked for may differ from a node's by this much, relative
_MET = 1e-12  # bounds this close are equal
_DRIFT = 1e-15  # of the largest reward: what a step adds to the rounding of a stock
_MOST_DRIFT = 1e-4  # of the largest reward
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
    """What the layers and the endless graph share: an MDP, a utility, and units of stock.

    Stocks are (n,), or (n, m) for vector rewards; their keys are (n,) in both cases.
    """

    mdp: MDP
    objective: ExpectedUtility
    units: Units | InternedUnits
    saturation: Saturation | OrthantSaturation | None  # None for a utility that does not saturate

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
        return self.utility(stock)

    def utility(self, stock: Floats) -> Floats:
        """The utility of stocks (n,) or (n, m)."""
        return self.objective.utility(stock, self.mdp.reward_dim)

    def locate(self, codes: Codes, state: Ints, stock: Floats, left: int, relative: float, drift: float = 0.0) -> Ints:
        """Index of the node of each (state, stock), -1 where there is none; stocks may have drifted by rounding."""
        stock = self.clamp(state, stock, left)
        key = self.units.key(stock)
        index = find(codes, state, key, self._tolerance(stock, relative, drift))
        if self.units.exact:  # the nearest integer stands for what is near it, not for what lies between
            index[~self._near(stock, self.units.stock(key), drift)] = -1
        lost = np.flatnonzero(index < 0)
        if isinstance(self.units, InternedUnits) and len(lost):
            for keys in self.units.candidates(stock[lost], relative):
                index[lost] = np.where(
                    index[lost] < 0, find(codes, state[lost], keys, np.zeros(len(lost))), index[lost]
                )
        return index

    def clamp(self, state: Ints, stock: Floats, left: int) -> Floats:
        """Stocks with what matters no more at these states made equal."""
        return self.saturation.clamp(state, stock, left) if isinstance(self.saturation, OrthantSaturation) else stock

    def clamped(self, state: Ints, key: Floats, left: int) -> Floats:
        """The same for keys."""
        if not isinstance(self.saturation, OrthantSaturation):
            return key
        return self.units.key(self.clamp(state, self.units.stock(key), left))

    def drift(self, t: int) -> float:
        """How far rounding may move a stock that is carried along for ``t`` steps, each of which divides by gamma."""
        largest = float(np.abs(self.mdp.reward).max(initial=1.0))
        return largest * min(_DRIFT * (t + 1) * self.mdp.gamma**-t, _MOST_DRIFT)

    def _near(self, stock: Floats, other: Floats, drift: float) -> Bools:
        with np.errstate(invalid="ignore"):
            allowed = np.maximum(drift, QUERY * np.maximum(1.0, np.abs(stock)))
            near = (stock == other) | (np.abs(stock - other) <= allowed)
        return np.asarray(near.reshape(-1, self.mdp.reward_dim).all(axis=1))

    def _tolerance(self, stock: Floats, relative: float, drift: float) -> Floats:
        """How far, in keys, a scalar stock may be from a node and still be that node's."""
        if isinstance(self.units, InternedUnits):
            return np.zeros(len(stock))
        allowed = np.maximum(drift, relative * np.maximum(1.0, np.abs(stock))) / self.units.mesh
        return np.maximum(allowed, 0.5) if self.units.exact else allowed

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


class Expansion:
    """All outcomes of all actions at some nodes; ``left``: steps left after them."""

    def __init__(self, problem: Problem, codes: Codes, left: int) -> None:
        mdp = problem.mdp
        state, key = codes.real.astype(np.int64), codes.imag
        self.pair, pair_node = ranges(mdp.pair_ptr[state], mdp.pair_ptr[state + 1])
        self.pair_count = mdp.pair_ptr[state + 1] - mdp.pair_ptr[state]
        outcome, self.owner = ranges(mdp.outcome_ptr[self.pair], mdp.outcome_ptr[self.pair + 1])
        self.prob = mdp.prob[outcome]
        self.state = mdp.next_state[outcome].astype(np.int64)
        self.key = problem.units.step(key[pair_node[self.owner]], problem.outcome_reward[outcome])
        self.ended = mdp.terminated[outcome]
        on = ~self.ended  # what has ended earns nothing more, whatever its state could
        self.key[on] = problem.clamped(self.state[on], self.key[on], left)


def _starts(problem: Problem, states: Ints, keys: Floats, left: int) -> Codes:
    """Nodes of all (state, key) that need one: not terminal, not saturated."""
    state = np.repeat(states[~problem.mdp.terminal[states]], len(keys))
    key = problem.clamped(state, np.tile(keys, len(state) // max(1, len(keys))), left)
    keep = problem.side(state, key, left) == 0
    return np.unique(code(state[keep], key[keep]))


def _limit(problem: Problem, memory: int) -> int:
    per_state = problem.mdp.n_outcomes / problem.mdp.n_states
    return int(memory / (BYTES_PER_OUTCOME * max(1.0, per_state)))


def close(problem: Problem, states: Ints, keys: Floats, memory: int) -> Codes | None:
    """All nodes reachable without a horizon; None when they do not fit into the memory or there is no end of them."""
    limit, work = _limit(problem, memory), 0
    nodes = frontier = _starts(problem, states, keys, 0)
    with bar("reachable stocks") as progress:
        while len(frontier):
            work += len(nodes)
            step = Expansion(problem, frontier, 0)
            stays = ~step.ended
            stays[stays] = problem.side(step.state[stays], step.key[stays], 0) == 0
            found = np.unique(code(step.state[stays], step.key[stays]))
            place = np.searchsorted(nodes, found)
            known = nodes[np.minimum(place, len(nodes) - 1)] == found
            frontier = found[~known]
            nodes = np.insert(nodes, place[~known], frontier)
            progress.update()
            if len(nodes) > limit or work > _PATIENCE:
                return None
    return nodes


def layers(
    problem: Problem, states: Ints, keys: Floats, depth: int, horizon: int | None, memory: int
) -> list[Codes] | None:
    """Nodes reachable at steps 0, 1, ..., depth - 1; None when they do not fit into the memory."""
    nodes = first_layers(problem, states, keys, depth, horizon, memory)
    return nodes if len(nodes) == depth else None


def first_layers(
    problem: Problem, states: Ints, keys: Floats, depth: int, horizon: int | None, memory: int
) -> list[Codes]:
    """As many layers as fit into the memory, at most ``depth``."""
    limit = _limit(problem, memory)

    def left(t: int) -> int:
        return 0 if horizon is None else horizon - t

    nodes = [_starts(problem, states, keys, left(0))]
    total = len(nodes[0])
    with bar("reachable stocks", depth) as progress:
        for t in range(1, depth):
            step = Expansion(problem, nodes[-1], left(t))
            stays = ~step.ended
            stays[stays] = problem.side(step.state[stays], step.key[stays], left(t)) == 0
            new = np.unique(code(step.state[stays], step.key[stays]))
            total += len(new)
            if total > limit:
                break
            nodes.append(new)
            progress.update()
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
        table.store([value], [choice])
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
            with bar("sweeping", len(nodes)) as progress:
                for t in reversed(range(len(nodes))):
                    graph = table._graph_of(t, following, rest, bound)
                    following, choice = _graph.solve(graph, discounted=False)
                    values.append(following)
                    choices.append(choice)
                    progress.update()
            sides.append(values[::-1])
            if bound == 0:
                kept = choices[::-1]
        table.store(sides[0], kept, sides[-1])
        if rest is not None:
            apart = table.upper[0] - table.values[0]
            table.exact = bool((apart <= _MET * np.maximum(1.0, np.abs(table.values[0]))).all())
        if not table.exact:
            table.rung = f"certified: {count} reachable (state, stock) pairs over {len(nodes)} steps, the rest bounded"
        return table

    def _graph_of(
        self, t: int, following: Floats | None, rest: tuple[Floats, Floats] | None = None, bound: int = 0
    ) -> Graph:
        """Graph of layer ``t``; its successors are the same nodes (endless) or the solved layer ``following``."""
        step, worth, inner, target = self.outcomes(t, following, rest, bound)
        weight = self.problem.factor * step.prob
        n_pairs = len(step.pair)
        edge_ptr = np.zeros(n_pairs + 1, dtype=np.int64)
        np.cumsum(np.bincount(step.owner[inner], minlength=n_pairs), out=edge_ptr[1:])
        graph = Graph(
            pair_ptr=np.concatenate([[0], np.cumsum(step.pair_count)]),
            base=_graph.total(step.owner, weight * worth, n_pairs),
            leaks=np.bincount(step.owner[~inner], minlength=n_pairs) > 0,
            edge_ptr=edge_ptr,
            edge_to=target.astype(np.int32),
            edge_weight=weight[inner],
            stop=np.full(len(self.nodes[t]), -np.inf),
        )
        if self.endless:
            self._allow_stops(graph)
        return graph

    def outcomes(
        self, t: int, following: Floats | None, rest: tuple[Floats, Floats] | None = None, bound: int = 0
    ) -> tuple[Expansion, Floats, Bools, Ints]:
        """All outcomes of layer ``t``: what each is worth; which lead to unsolved nodes (worth 0), and to which."""
        problem = self.problem
        left = 0 if self.horizon is None else self.horizon - t - 1
        step = Expansion(problem, self.nodes[t], left)
        worth = np.zeros(len(step.state))
        last = not self.endless and t == len(self.nodes) - 1
        worth[step.ended] = problem.payoff(step.key[step.ended], t + 1)
        on = np.flatnonzero(~step.ended)
        if last:
            cut = (
                problem.payoff(step.key[on], t + 1) if rest is None else self._rest_payoff(step, on, t + 1, rest, bound)
            )
            worth[on] = cut
            on = on[:0]
        if problem.saturation is not None:
            side = problem.side(step.state[on], step.key[on], left)
            done = side != 0
            stock = problem.units.stock(step.key[on[done]])
            worth[on[done]] = problem.saturation.value(step.state[on[done]], stock, side[done], left)
            on = on[~done]
        codes = self.nodes[t if self.endless else min(t + 1, len(self.nodes) - 1)]
        target = np.searchsorted(codes, code(step.state[on], step.key[on]))
        inner = np.zeros(len(worth), dtype=np.bool_)
        if self.endless:
            inner[on] = True
        elif following is not None and len(on):
            worth[on] = following[target]
            target = target[:0]
        return step, worth, inner, target

    def _rest_payoff(self, step: Expansion, on: Ints, t: int, rest: tuple[Floats, Floats], bound: int) -> Floats:
        scale = 1.0 if self.problem.objective.degree is not None else self.problem.mdp.gamma**t
        stock = self.problem.units.stock(step.key[on])
        low, high = scale * (stock + rest[0][step.state[on]]), scale * (stock + rest[1][step.state[on]])
        return self.problem.objective.range_on(low, high, self.problem.mdp.reward_dim)[bound]

    def _allow_stops(self, graph: Graph) -> None:
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

    def store(self, values: list[Floats], choices: list[Ints], upper: list[Floats] | None = None) -> None:
        """Keep the solution: values and chosen pairs of every layer, and upper bounds where they differ."""
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
        left = self.horizon or 0
        index = problem.locate(self.nodes[0], state, stock, left, 0.0 if problem.units.exact else SAME_STOCK)
        ended = problem.mdp.terminal[state]
        side = problem.side(state, problem.units.key(stock), left)
        unknown = (index < 0) & ~ended & (side == 0)
        if unknown.any():
            raise unknown_stock(state[unknown][0], stock[unknown][0], 0)
        lower, upper = np.empty(len(state)), np.empty(len(state))
        for out, values in ((lower, self.values[0]), (upper, self.upper[0])):
            if problem.saturation is not None:
                out[:] = problem.saturation.value(state, stock, side, left)
            out[index >= 0] = values[index[index >= 0]]
            out[ended] = problem.utility(stock[ended])
        return lower, upper

    def values_at(self, state: Ints, key: Floats, t: int) -> Floats:
        """Values at step ``t`` of reachable or saturated keys, in the money of that step; NaN elsewhere."""
        problem = self.problem
        left = 0 if self.horizon is None else self.horizon - t
        nodes = self.nodes[0 if self.endless else t]
        stock = problem.units.stock(key)
        index = problem.locate(nodes, state, stock, left, 0.0 if problem.units.exact else SAME_STOCK)
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
        if depth >= len(self.nodes):  # past the last layer: what is saturated has its action, the rest any
            action[live] = problem.mdp.pair_action[problem.mdp.pair_ptr[state[live]]]
            if problem.saturation is not None:
                side = problem.side_asked(state[live], stock[live], max(0, left), t)
                sure = problem.saturation.action(state[live], side, max(0, left))
                action[live] = np.where(side != 0, sure, action[live])
            return action
        index = problem.locate(self.nodes[depth], state[live], stock[live], left, QUERY, problem.drift(t))
        if problem.saturation is not None:
            side = problem.side_asked(state[live], stock[live], left, t)
            action[live] = problem.saturation.action(state[live], side, left)
            unknown = (index < 0) & (side == 0)
        else:
            unknown = index < 0
        if unknown.any():
            raise unknown_stock(state[live][unknown][0], stock[live][unknown][0], t)
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
        index = self.problem.locate(self.nodes[0], state, stock, 0, QUERY)
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


def unknown_stock(state: Any, stock: Any, t: int) -> InvalidArgumentError:
    shown = f"{stock:.12g}" if np.ndim(stock) == 0 else str(np.asarray(stock).tolist())
    return InvalidArgumentError(
        f"stock {shown} at state {state}, step {t} cannot be reached from the stocks this problem was solved for; "
        "solve again with this stock in stock="
    )
