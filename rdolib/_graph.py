"""Exact optimal values on a finite graph of decisions.

A node ``v`` offers pairs ``j``; a pair is worth a known part plus weighted values of other nodes. A node may also be
allowed to stop. The equation solved is

    V(v) = max( stop(v), max_j { base_j + sum_e weight_e V(to_e) } ).

It covers both the average return of an MDP (``base`` = expected reward) and a stock-augmented MDP whose returns end
or saturate (``base`` = the worth of what ends). Strongly connected components are solved successors first: a single
node without a self-loop in one step, a component with cycles by policy iteration with direct linear solves, so that
cyclic problems are as exact as acyclic ones.

With undiscounted weights a policy that never leaves a component and never stops earns nothing that the equation can
see; such policies are not admitted. Policy iteration then starts from a policy that leaves or stops surely, keeps
that property, and ends at the best such policy (Bertsekas and Tsitsiklis, 1991). A node with no such policy is worth
minus infinity.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdolib import _kernels
from rdolib.errors import NotOptimizableError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Two actions tie when their values differ by at most this, relative to max(1, |value|).
TIE = 1e-12

_DENSE = 800  # components up to this size are solved by a dense factorization
_SWEEP = 4000  # discounted components above this size are swept instead of factorized


@dataclass(frozen=True)
class Graph:
    """Arrays of the equation in the module's docstring; see `rdolib.mdp.MDP` for the pointer convention."""

    pair_ptr: Ints
    base: Floats
    leaks: NDArray[np.bool_]  # the pair has an outcome that leaves the graph
    edge_ptr: Ints
    edge_to: NDArray[np.int32]
    edge_weight: Floats
    stop: Floats  # minus infinity where stopping is not allowed

    @property
    def n_nodes(self) -> int:
        return len(self.pair_ptr) - 1


def ranges(first: Ints, last: Ints) -> tuple[Ints, Ints]:
    """Concatenated ``arange(first[i], last[i])`` and, beside each entry, its ``i``."""
    count = last - first
    owner = np.repeat(np.arange(len(first)), count)
    start = np.cumsum(count) - count
    return np.arange(len(owner)) - np.repeat(start - first, count), owner


def total(index: NDArray[Any], weights: Floats, n: int) -> Floats:
    """``(n,)`` sums of the weights with each index."""
    return np.asarray(np.bincount(index, weights=weights, minlength=n), dtype=np.float64)


def solve(graph: Graph, discounted: bool) -> tuple[Floats, Ints]:
    """Optimal values and choices.

    Parameters
    ----------
    graph : Graph
    discounted : bool
        True when the weights of every pair sum to less than one by a fixed factor.

    Returns
    -------
    value : (n,) float
    choice : (n,) int
        Number of the chosen pair within its node, -1 for stopping (or where there is no admissible choice). Ties go
        to the lowest number; in undiscounted components, to the lowest among those that make progress.
    """
    n = graph.n_nodes
    value = np.full(n, -np.inf)
    choice = np.full(n, -1, dtype=np.int64)
    if n == 0:
        return value, choice
    first_edge = graph.edge_ptr[graph.pair_ptr]
    component = np.empty(n, dtype=np.int64)
    cyclic = np.zeros(n, dtype=np.bool_)
    _kernels.strong_components(first_edge, graph.edge_to, component, cyclic)
    order = np.argsort(component, kind="stable")
    # One entry per maximal run of acyclic nodes and one per cyclic component, in the order of solution.
    label = np.where(cyclic[order], component[order], -1)
    cuts = np.flatnonzero(np.diff(label)) + 1
    for nodes in np.split(order, cuts):
        if cyclic[nodes[0]]:
            _solve_component(graph, nodes, value, choice, discounted)
        else:
            _kernels.backup_acyclic(
                nodes, graph.pair_ptr, graph.base, graph.edge_ptr, graph.edge_to, graph.edge_weight, graph.stop,
                TIE, value, choice,
            )  # fmt: skip
    return value, choice


def evaluate(graph: Graph, chosen: Ints, stop: Floats, discounted: bool) -> Floats:
    """Values of one fixed choice: pair ``chosen[v]`` at every node, the return being over where ``stop`` is finite.

    Minus infinity where the choice neither leaves the graph nor stops surely.
    """
    edge, _ = ranges(graph.edge_ptr[chosen], graph.edge_ptr[chosen + 1])
    count = graph.edge_ptr[chosen + 1] - graph.edge_ptr[chosen]
    fixed = Graph(
        pair_ptr=np.arange(len(chosen) + 1),
        base=graph.base[chosen],
        leaks=graph.leaks[chosen],
        edge_ptr=np.concatenate([[0], np.cumsum(count)]),
        edge_to=graph.edge_to[edge],
        edge_weight=graph.edge_weight[edge],
        stop=stop,
    )
    return solve(fixed, discounted)[0]


def evaluate_mixed(graph: Graph, weight: Floats, stop: Floats, discounted: bool) -> Floats:
    """The same when the pairs of every node are drawn with the probabilities ``weight`` (n_pairs,)."""
    n = graph.n_nodes
    node = np.repeat(np.arange(n), np.diff(graph.pair_ptr))
    used, edge_pair = weight > 0, np.repeat(np.arange(len(weight)), np.diff(graph.edge_ptr))
    edge = np.flatnonzero(used[edge_pair])
    count = np.bincount(node[edge_pair[edge]], minlength=n)
    fixed = Graph(
        pair_ptr=np.arange(n + 1),
        base=total(node[used], (weight * graph.base)[used], n),
        leaks=np.bincount(node[used & graph.leaks], minlength=n) > 0,
        edge_ptr=np.concatenate([[0], np.cumsum(count)]),
        edge_to=graph.edge_to[edge],
        edge_weight=weight[edge_pair[edge]] * graph.edge_weight[edge],
        stop=stop,
    )
    return solve(fixed, discounted)[0]


def restrict(graph: Graph, kept: NDArray[np.bool_], stop: Floats) -> Graph:
    """The graph with only some of its pairs, in their order."""
    node = np.repeat(np.arange(graph.n_nodes), np.diff(graph.pair_ptr))
    pair = np.flatnonzero(kept)
    edge, _ = ranges(graph.edge_ptr[pair], graph.edge_ptr[pair + 1])
    return Graph(
        pair_ptr=np.concatenate([[0], np.cumsum(np.bincount(node[pair], minlength=graph.n_nodes))]),
        base=graph.base[pair],
        leaks=graph.leaks[pair],
        edge_ptr=np.concatenate([[0], np.cumsum(np.diff(graph.edge_ptr)[pair])]),
        edge_to=graph.edge_to[edge],
        edge_weight=graph.edge_weight[edge],
        stop=stop,
    )


def ways_out(graph: Graph) -> Ints:
    """Pair by which each node can leave the graph or stop surely; -1: by stopping here, -2: not at all."""
    part = _Component(graph, np.arange(graph.n_nodes), np.zeros(graph.n_nodes))
    return _proper_start(part, part.base > -np.inf)[2]


class _Component:
    """A strongly connected component with its successors outside already solved."""

    def __init__(self, graph: Graph, nodes: Ints, value: Floats) -> None:
        self.size = len(nodes)
        self.pair, self.pair_node = ranges(graph.pair_ptr[nodes], graph.pair_ptr[nodes + 1])
        self.first_pair = np.searchsorted(self.pair_node, np.arange(self.size))
        edge, edge_pair = ranges(graph.edge_ptr[self.pair], graph.edge_ptr[self.pair + 1])
        local = np.full(graph.n_nodes, -1, dtype=np.int64)
        local[nodes] = np.arange(self.size)
        to = graph.edge_to[edge]
        weight = graph.edge_weight[edge]
        inside = local[to] >= 0
        outer_pair, outer_to, outer_weight = edge_pair[~inside], to[~inside], weight[~inside]
        self.base = graph.base[self.pair] + total(outer_pair, outer_weight * value[outer_to], len(self.pair))
        self.leaks = graph.leaks[self.pair].copy()
        self.leaks[outer_pair] = True
        self.edge_pair, self.edge_to, self.edge_weight = edge_pair[inside], local[to[inside]], weight[inside]
        self.stop = graph.stop[nodes]

    def backup(self, value: Floats) -> Floats:
        """Worth of every pair, given the values of the component's nodes."""
        with np.errstate(invalid="ignore"):
            inner = total(self.edge_pair, self.edge_weight * value[self.edge_to], len(self.base))
        return np.asarray(self.base + inner)

    def best(self, worth: Floats) -> Floats:
        best = self.stop.copy()
        np.maximum.at(best, self.pair_node, worth)
        return best

    def attract(self, allowed: NDArray[np.bool_]) -> Ints:
        """Pair by which each node gets out, fewest stages first, then lowest; -1: stop; -2: no way out.

        Stopping is used only where no allowed pair leads out.
        """
        exit_pair = np.full(self.size, -2, dtype=np.int64)
        for start in (None, np.isfinite(self.stop)):
            if start is not None:
                exit_pair[(exit_pair == -2) & start] = -1
            while True:
                settled = exit_pair > -2
                leads = self.leaks.copy()
                leads[self.edge_pair[settled[self.edge_to]]] = True
                new = np.flatnonzero(allowed & leads & ~settled[self.pair_node])
                if len(new) == 0:
                    break
                exit_pair[self.pair_node[new[::-1]]] = new[::-1]
        return exit_pair

    def evaluate(self, chosen: Ints, alive: NDArray[np.bool_]) -> Floats:
        """Values of the policy that takes pair ``chosen[v]`` (or stops, -1) at the nodes that are alive."""
        index = np.flatnonzero(alive)
        position = np.full(self.size, -1, dtype=np.int64)
        position[index] = np.arange(len(index))
        taken = chosen[index]
        known = np.where(taken >= 0, self.base[taken], self.stop[index])
        pair_row = np.full(len(self.base), -1, dtype=np.int64)
        pair_row[taken[taken >= 0]] = np.flatnonzero(taken >= 0)
        row = pair_row[self.edge_pair]
        used = row >= 0
        row, column, weight = row[used], position[self.edge_to[used]], self.edge_weight[used]
        value = np.full(self.size, -np.inf)
        if len(index) <= _DENSE:
            matrix = np.eye(len(index))
            np.subtract.at(matrix, (row, column), weight)
            value[index] = np.linalg.solve(matrix, known)
        else:
            from scipy.sparse import csc_array, identity  # not at import: it would double the import time
            from scipy.sparse.linalg import spsolve

            matrix = identity(len(index), format="csc") - csc_array((weight, (row, column)), shape=2 * (len(index),))
            value[index] = spsolve(csc_array(matrix), known)
        return value


def _solve_component(graph: Graph, nodes: Ints, value: Floats, choice: Ints, discounted: bool) -> None:
    part = _Component(graph, nodes, value)
    allowed = part.base > -np.inf
    alive = np.ones(part.size, dtype=np.bool_)
    if not discounted:
        alive, allowed, chosen = _proper_start(part, allowed)
    elif part.size > _SWEEP:
        swept = _sweep_component(part)
        value[nodes] = swept
        choice[nodes] = _select(part, swept, alive, allowed, discounted) - part.first_pair
        return
    else:
        chosen = _lowest(part, np.where(allowed, part.base, -np.inf))
    worth_now = part.evaluate(chosen, alive)
    for _ in range(10_000):
        worth = np.where(allowed, part.backup(np.where(alive, worth_now, 0.0)), -np.inf)
        best = part.best(worth)
        known = np.where(alive, worth_now, 0.0)
        better = alive & (best > known + TIE * np.maximum(1.0, np.abs(known)))
        if not better.any():
            break
        improved = _lowest(part, worth)
        chosen = np.where(better, np.where(part.stop >= best, -1, improved), chosen)
        worth_now = part.evaluate(chosen, alive)
    else:
        raise NotOptimizableError("policy iteration did not settle; the values of this problem are too ill-conditioned")
    value[nodes] = worth_now
    selected = _select(part, worth_now, alive, allowed, discounted)
    # Where the tolerance hides every way out (values nearly flat), the policy that was evaluated stands.
    selected = np.where(alive & (selected == -2), chosen, selected)
    choice[nodes] = np.where(selected >= 0, selected - part.first_pair, -1)


def _proper_start(part: _Component, allowed: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_], Ints]:
    """Nodes that can get out (or stop) surely, the pairs that keep that possible, and a policy that does it."""
    while True:
        chosen = part.attract(allowed)
        alive = chosen > -2
        keeps = allowed & alive[part.pair_node]
        keeps[part.edge_pair[~alive[part.edge_to]]] = False
        if (keeps == allowed).all():
            return alive, allowed, chosen
        allowed = keeps


def _lowest(part: _Component, worth: Floats) -> Ints:
    """Lowest maximizing pair of each node, within the tie tolerance."""
    best = np.full(part.size, -np.inf)
    np.maximum.at(best, part.pair_node, worth)
    ties = np.flatnonzero(worth >= (best - TIE * np.maximum(1.0, np.abs(best)))[part.pair_node])
    lowest = np.full(part.size, -1, dtype=np.int64)
    lowest[part.pair_node[ties[::-1]]] = ties[::-1]
    return lowest


def _select(
    part: _Component, value: Floats, alive: NDArray[np.bool_], allowed: NDArray[np.bool_], discounted: bool
) -> Ints:
    worth = np.where(allowed, part.backup(np.where(alive, value, 0.0)), -np.inf)
    if discounted:
        return _lowest(part, worth)
    tolerance = 10 * TIE * np.maximum(1.0, np.abs(value))
    maximizing = allowed & (worth >= np.where(alive, value - tolerance, np.inf)[part.pair_node])
    part.stop = np.where(part.stop >= value - tolerance, part.stop, -np.inf)
    return part.attract(maximizing)


def _sweep_component(part: _Component) -> Floats:
    """Value iteration to rounding, for discounted components too large to factorize."""
    value = np.zeros(part.size)
    row_sum = total(part.edge_pair, part.edge_weight, len(part.base))
    factor = float(row_sum.max())
    for _ in range(100_000):
        new = part.best(part.backup(value))
        change = float(np.abs(new - value).max())
        value = new
        if change * factor <= 1e-15 * (1 - factor) * max(1.0, float(np.abs(value).max())) or change == 0:
            break
    return value
