"""All augmented states of a problem as one graph of decisions, with nothing optimized yet.

A node is a reachable (state, stock), one set of them for an endless horizon and one for each step otherwise. Where the
stock matters no more, one node for each state and side stands for all stocks: there

    F(s, c) = slope c + m(s),    m(s) = E[slope R + gamma m(S')],

and the node carries ``m``. A policy is one pair for each node; `Unfolded.value` is its exact value at all of them, and
`Unfolded.worth` that of every other pair against it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rdolib import _graph
from rdolib._graph import Graph, total
from rdolib._reachable import Codes, Expansion, Problem, ReachableTable, code
from rdolib.stock import OrthantSaturation, Saturation, resting_pairs

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Rest = tuple[Floats, Floats]  # least and greatest return of each state after the last step


@dataclass(frozen=True)
class _Layer:
    """The nodes of one step, first those in the band, then those where the stock matters no more."""

    codes: Codes
    flat_state: Ints
    flat_side: Ints  # 0: the stock is too low to matter, 1: too high
    first: int
    left: int

    def place(self, state: Ints, key: Floats) -> Ints:
        """Nodes of (state, key) in the band."""
        return self.first + np.searchsorted(self.codes, code(state, key))

    def flat_place(self, n_states: int) -> Ints:
        """(2, S) nodes of each side and state; -1 where there is none."""
        place = np.full((2, n_states), -1, dtype=np.int64)
        place[self.flat_side, self.flat_state] = self.first + len(self.codes) + np.arange(len(self.flat_state))
        return place


@dataclass(frozen=True)
class _Rows:
    """The part of the graph that belongs to some nodes."""

    pair: Ints  # of the MDP
    pair_count: Ints
    base: Floats
    leaks: Bools
    edge_count: Ints
    edge_to: Ints
    edge_weight: Floats

    @classmethod
    def of(cls, pair: Ints, pair_count: Ints, owner: Ints, base: Floats, weight: Floats, to: Ints) -> _Rows:
        """From outcomes; ``to`` is -1 where an outcome leads to no node."""
        on, n = to >= 0, len(pair)
        return cls(
            pair, pair_count, base, np.bincount(owner[~on], minlength=n) > 0, np.bincount(owner[on], minlength=n),
            to[on], weight[on],
        )  # fmt: skip


class Unfolded:
    """The graph of a problem, and policies on it.

    ``closed``: the nodes of the one layer lead to each other and the horizon is endless. Otherwise layer ``t`` leads to
    layer ``t + 1``, and what follows the last one is over, or, with ``rest``, bounded by its least and greatest return.
    """

    def __init__(
        self, problem: Problem, nodes: list[Codes], horizon: int | None, closed: bool, rest: Rest | None = None
    ) -> None:
        self.problem, self.horizon, self.closed = problem, horizon, closed
        self.discounted = closed and problem.factor < 1
        self.layers: list[_Layer] = []
        first = 0
        for t, codes in enumerate(nodes):
            left = 0 if horizon is None else horizon - t
            state, side = flats(problem, left)
            self.layers.append(_Layer(codes, state, side, first, left))
            first += len(codes) + len(state)
        self.cut_off = 0.0  # what the rest of the return can add to any value
        rows = [part for t in range(len(nodes)) for part in (self._band(t, rest), self._flat(t))]
        self.pair = np.concatenate([row.pair for row in rows])
        self.graph = _joined(rows)
        self.state = problem.mdp.pair_state[self.pair[self.graph.pair_ptr[:-1]]].astype(np.int64)
        self._edge_pair = np.repeat(np.arange(len(self.pair)), np.diff(self.graph.edge_ptr))
        self.pair_node = np.repeat(np.arange(first), np.diff(self.graph.pair_ptr))
        self.rest_pair = self._allow_rest()

    # ------------------------------------------------------------- building

    def _band(self, t: int, rest: Rest | None) -> _Rows:
        problem, layer = self.problem, self.layers[t]
        following = layer if self.closed else self.layers[t + 1] if t + 1 < len(self.layers) else None
        step = Expansion(problem, layer.codes, 0 if self.closed else max(0, layer.left - 1))
        worth, to = np.zeros(len(step.state)), np.full(len(step.state), -1, dtype=np.int64)
        over = step.ended if following is not None or rest is not None else np.ones(len(to), dtype=np.bool_)
        worth[over] = problem.payoff(step.key[over], t + 1)
        on = np.flatnonzero(~over)
        if following is None and rest is not None:
            worth[on], high = self._beyond(step.state[on], step.key[on], rest)
            self.cut_off = problem.factor ** (t + 1) * float((high - worth[on]).max(initial=0.0))
        elif following is not None:
            side = problem.side(step.state[on], step.key[on], following.left)
            flat, on = on[side != 0], on[side == 0]
            to[on] = following.place(step.state[on], step.key[on])
            if problem.saturation is not None:
                side = side[side != 0]
                stock = problem.units.stock(step.key[flat])
                sure = _without_mean(problem.saturation)
                worth[flat] = sure.value(step.state[flat], stock, side, following.left)
                to[flat] = following.flat_place(problem.mdp.n_states)[(side > 0).astype(int), step.state[flat]]
        weight = problem.factor * step.prob
        return _Rows.of(
            step.pair, step.pair_count, step.owner, total(step.owner, weight * worth, len(step.pair)), weight, to
        )

    def _flat(self, t: int) -> _Rows:
        mdp, layer = self.problem.mdp, self.layers[t]
        following = layer if self.closed else self.layers[t + 1] if t + 1 < len(self.layers) else None
        state, side = layer.flat_state, layer.flat_side
        pair, pair_row = _graph.ranges(mdp.pair_ptr[state], mdp.pair_ptr[state + 1])
        outcome, owner = _graph.ranges(mdp.outcome_ptr[pair], mdp.outcome_ptr[pair + 1])
        slope = np.asarray(_slopes(self.problem))[side][pair_row[owner]]
        to = np.full(len(outcome), -1, dtype=np.int64)
        if following is not None:
            on = ~mdp.terminated[outcome]
            to[on] = following.flat_place(mdp.n_states)[side[pair_row[owner[on]]], mdp.next_state[outcome[on]]]
        base = total(owner, mdp.prob[outcome] * slope * mdp.reward[outcome], len(pair)) if len(pair) else np.empty(0)
        count = mdp.pair_ptr[state + 1] - mdp.pair_ptr[state]
        return _Rows.of(pair, count, owner, base, mdp.gamma * mdp.prob[outcome], to)

    def _beyond(self, state: Ints, key: Floats, rest: Rest) -> tuple[Floats, Floats]:
        stock, objective = self.problem.units.stock(key), self.problem.objective
        return objective.range_on(stock + rest[0][state], stock + rest[1][state], self.problem.mdp.reward_dim)

    def _allow_rest(self) -> Ints:
        """Allow to stop where a state can go on for ever without reward (gamma = 1); the pairs that do so, else -1."""
        mdp, n = self.problem.mdp, self.graph.n_nodes
        rest = np.full(n, -1, dtype=np.int64)
        self._quiet = np.zeros(len(self.pair), dtype=np.bool_)
        if self.closed and mdp.gamma == 1 and n:
            self._quiet = resting_pairs(mdp)[self.pair]
            quiet = np.flatnonzero(self._quiet)[::-1]
            rest[self.pair_node[quiet]] = quiet
            (layer,) = self.layers
            self._over = np.concatenate([self.problem.payoff(layer.codes.imag, 0), np.zeros(len(layer.flat_state))])
            self.graph.stop[rest >= 0] = self._over[rest >= 0]
        return rest

    # ------------------------------------------------------------- policies

    @property
    def size(self) -> str:
        """How many pairs were looked at, in words."""
        count = sum(len(layer.codes) for layer in self.layers)
        return f"{count} reachable (state, stock) pairs" + ("" if self.closed else f" over {len(self.layers)} steps")

    def stock(self, node: int) -> str:
        """The stock at a node, in words."""
        t = int(np.searchsorted([layer.first for layer in self.layers], node, side="right")) - 1
        return str(self.ask(t)[1][node - self.layers[t].first].tolist())

    def ask(self, t: int) -> tuple[Ints, Floats]:
        """States and stocks at which a policy is asked for its actions at step ``t``.

        Where the stock matters no more it is asked once, at the nearest such stock (0 where the stock never matters).
        """
        layer = self.layers[t]
        stock = self.problem.units.stock(layer.codes.imag)
        if len(layer.flat_state):
            stock = np.concatenate([stock, far_stock(self.problem, layer.flat_state, layer.flat_side, layer.left)])
        return np.concatenate([layer.codes.real.astype(np.int64), layer.flat_state]), stock

    def resting(self, used: Bools) -> Bools:
        """Nodes from which a policy that uses these pairs (n_pairs,) goes on for ever without reward."""
        rests = np.ones(self.graph.n_nodes, dtype=np.bool_)
        rests[self.pair_node[used & ~self._quiet]] = False
        while True:
            new = rests.copy()
            new[self.pair_node[self._edge_pair[used[self._edge_pair] & ~rests[self.graph.edge_to]]]] = False
            if (new == rests).all():
                return rests
            rests = new

    def only(self, chosen: Ints) -> Bools:
        """(n_pairs,) the pairs of a policy that takes pair ``chosen[v]`` at node ``v``."""
        used = np.zeros(len(self.pair), dtype=np.bool_)
        used[chosen] = True
        return used

    def value(self, chosen: Ints) -> Floats:
        """Exact values of the policy that takes pair ``chosen[v]`` at node ``v``; -inf where it never ends or rests."""
        return _graph.evaluate(self.graph, chosen, self._stops(self.only(chosen)), self.discounted)

    def mixed_value(self, weight: Floats) -> Floats:
        """The same when the pairs of each node are drawn with the probabilities ``weight`` (n_pairs,)."""
        return _graph.evaluate_mixed(self.graph, weight, self._stops(weight > 0), self.discounted)

    def _stops(self, used: Bools) -> Floats:
        """What the return is over with, where a policy that uses these pairs rests; else -inf."""
        stop = np.full(self.graph.n_nodes, -np.inf)
        if self._quiet.any():
            rests = self.resting(used)
            stop[rests] = self._over[rests]
        return stop

    def worth(self, value: Floats) -> Floats:
        """Worth of each pair when these values follow."""
        return self.graph.base + total(
            self._edge_pair, self.graph.edge_weight * value[self.graph.edge_to], len(self.pair)
        )

    def best(self, worth: Floats) -> tuple[Floats, Ints]:
        """Greatest worth at each node and the lowest pair that has it, resting only where that is better."""
        if self.graph.n_nodes == 0:
            return np.empty(0), np.empty(0, dtype=np.int64)
        top = np.maximum.reduceat(worth, self.graph.pair_ptr[:-1])
        with np.errstate(invalid="ignore"):
            near = worth >= (top - _graph.TIE * np.maximum(1.0, np.abs(top)))[self.pair_node]
        ties = np.flatnonzero(near)[::-1]
        lowest = self.graph.pair_ptr[:-1].copy()
        lowest[self.pair_node[ties]] = ties
        rests = self.graph.stop > top
        return np.maximum(top, self.graph.stop), np.where(rests, self.rest_pair, lowest)

    def greatest_by_step(self, gain: Floats) -> Floats:
        """(steps,) greatest of the nodes' gains in each layer."""
        ends = [*(layer.first for layer in self.layers), len(gain)]
        return np.array([gain[a:b].max(initial=0.0) for a, b in itertools.pairwise(ends)])

    # ------------------------------------------------------------- result

    def table(self, chosen: Ints, value: Floats) -> ReachableTable:
        """The policy and its values, to be asked at any state and stock."""
        return self.answers(self.problem.mdp.pair_action[self.pair[chosen]], value, self.resting(self.only(chosen)))

    def answers(self, action: NDArray[np.int32], value: Floats, rests: Bools) -> ReachableTable:
        """An action (or any other integer), a value, and whether the policy rests, of every node."""
        problem = self.problem
        if isinstance(problem.saturation, Saturation):
            problem = replace(problem, saturation=self._flat_saturation(problem.saturation, action, value))
        table = ReachableTable(problem, [layer.codes for layer in self.layers], self.horizon)
        table.endless = self.closed
        band = [slice(layer.first, layer.first + len(layer.codes)) for layer in self.layers]
        table.values = [value[here] for here in band]
        table.upper = [value[here] + self.cut_off for here in band]
        table.actions = [action[here] for here in band]
        table.stops = [rests[here] for here in band]
        return table

    def _flat_saturation(self, saturation: Saturation, action: NDArray[np.int32], value: Floats) -> Saturation:
        """The policy's own means and actions where the stock matters no more."""
        means = [saturation.low_mean.copy(), saturation.high_mean.copy()]
        actions = [saturation.low_action.copy(), saturation.high_action.copy()]
        for layer in self.layers:
            here = layer.first + len(layer.codes) + np.arange(len(layer.flat_state))
            for side in (0, 1):
                mine = layer.flat_side == side
                means[side][layer.left, layer.flat_state[mine]] = value[here[mine]]
                actions[side][layer.left, layer.flat_state[mine]] = action[here[mine]]
        if saturation.linear:
            means[1], actions[1] = means[0], actions[0]
        return replace(saturation, low_mean=means[0], high_mean=means[1], low_action=actions[0], high_action=actions[1])


def _slopes(problem: Problem) -> tuple[float, float]:
    saturation = problem.saturation
    return saturation.slopes if isinstance(saturation, Saturation) and saturation.slopes is not None else (0.0, 0.0)


def flats(problem: Problem, left: int) -> tuple[Ints, Ints]:
    """States and sides whose stock matters no more while the return still does."""
    saturation, live = problem.saturation, ~problem.mdp.terminal
    if not isinstance(saturation, Saturation):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    below, above = _slopes(problem)
    if saturation.linear:
        low, high = live & (below != 0), np.zeros_like(live)
    else:
        low = live & (saturation.greatest[left] < np.inf) & (below != 0)
        high = live & (saturation.least[left] > -np.inf) & (above != 0)
    side, state = np.nonzero(np.stack([low, high]))
    return state, side


def far_stock(problem: Problem, state: Ints, side: Ints, left: int) -> Floats:
    """The nearest stocks that matter no more, one for each of these states and sides; 0 where none matters."""
    saturation = problem.saturation
    assert isinstance(saturation, Saturation)
    if saturation.linear:
        return np.zeros(len(state))
    edge = np.stack([-saturation.greatest[left], -saturation.least[left]])[side, state]
    edge = np.where(np.isfinite(edge), edge, 0.0)
    # A closed set of stocks has a nearest one; an open one does not, and any of its stocks will do.
    return np.where(saturation.side(state, edge, left) != 0, edge, edge - np.maximum(1.0, np.abs(edge)))


def _without_mean(saturation: Saturation | OrthantSaturation) -> Saturation | OrthantSaturation:
    """What is sure at a saturated stock, apart from the mean of the rest of the return."""
    if not isinstance(saturation, Saturation):
        return saturation
    return replace(
        saturation, low_mean=np.zeros_like(saturation.low_mean), high_mean=np.zeros_like(saturation.high_mean)
    )


def _joined(rows: list[_Rows]) -> Graph:
    def ptr(counts: list[Ints]) -> Ints:
        return np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64)

    pair_ptr = ptr([row.pair_count for row in rows])
    return Graph(
        pair_ptr=pair_ptr,
        base=np.concatenate([row.base for row in rows]),
        leaks=np.concatenate([row.leaks for row in rows]),
        edge_ptr=ptr([row.edge_count for row in rows]),
        edge_to=np.concatenate([row.edge_to for row in rows]).astype(np.int32),
        edge_weight=np.concatenate([row.edge_weight for row in rows]),
        stop=np.full(len(pair_ptr) - 1, -np.inf),
    )
