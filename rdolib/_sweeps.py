"""Evaluation of one policy by sweeps over the augmented states that it can reach.

A node is a (state, stock); stocks that matter no more (`Behavior.side`) are one low and one high node per state, and a
policy that does not see its stock has one node per state. With ``T`` the Bellman operator of the policy and ``Pi`` the
projection onto the representation, a sweep is ``eta <- Pi T eta``, and beside each law runs a bound of its
Wasserstein-1 distance from the law of the return,

    error(i) <- moved(i) + gamma E error(next),

because ``W1(Pi T eta, eta_pi) <= W1(Pi T eta, T eta) + W1(T eta, T eta_pi)`` and W1 of mixtures is at most the mean.

* Finite horizon: as many sweeps as steps, from the law of what has ended.
* Endless: sweeps from the mean of each return, until what the start may still be wrong by is negligible. That part,
  ``head(i) <- gamma E head(next)``, starts at ``E |sum of rewards|`` plus the mean and fades like ``gamma**n``, or with
  the chance of not having ended when ``gamma = 1``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdolib import _graph
from rdolib._behavior import Behavior
from rdolib._graph import Graph, ranges, total
from rdolib._law import Counter
from rdolib._progress import bar
from rdolib._reachable import Codes, code
from rdolib._rows import Edges, Rows
from rdolib.errors import MemoryLimitError, NotOptimizableError
from rdolib.mdp import MDP

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

#: What the start may still be wrong by when sweeps stop, relative to the size of returns.
NEGLIGIBLE = 1e-10
_MOST_SWEEPS = 1_000_000
_FAR = 1e290  # stocks that matter no more are kept from overflowing


@dataclass(frozen=True)
class _Nodes:
    """Augmented states: their codes, and a stock (as a key) at which to ask the policy."""

    codes: Codes
    key: Floats

    @property
    def state(self) -> Ints:
        return self.codes.real.astype(np.int64)

    def take(self, index: Ints | Bools) -> _Nodes:
        return _Nodes(self.codes[index], self.key[index])

    def distinct(self) -> _Nodes:
        codes, first = np.unique(self.codes, return_index=True)
        return _Nodes(codes, self.key[first])


class Walk:
    """Steps of a policy from augmented state to augmented state."""

    def __init__(self, mdp: MDP, behavior: Behavior, stock: Floats) -> None:
        self.mdp, self.behavior = mdp, behavior
        self.counter = Counter(mdp, stock)

    def start(self, states: Ints, stock: Floats) -> _Nodes:
        """Nodes of states that are not terminal and one stock (1,) or (1, m), sorted."""
        key = np.repeat(self.counter.units.key(stock), len(states))
        return self._grouped(states, key, np.zeros(len(states)), 0).distinct()

    def _grouped(self, state: Ints, key: Floats, parent: Floats, t: int) -> _Nodes:
        """Nodes at step ``t``; ``parent`` is the imaginary part of the code that they come from."""
        if not self.behavior.sees_stock:
            return _Nodes(code(state, np.zeros(len(state))), key)
        side = self.behavior.side(state, self.counter.units.stock(key), t)
        group = np.where(side == 0, key, np.where(side > 0, np.inf, -np.inf))
        # What matters no more stays so, whatever rounding says.
        return _Nodes(code(state, np.where(np.isinf(parent), parent, group)), key)

    def step(self, nodes: _Nodes, t: int, last: bool = False) -> tuple[Edges, _Nodes]:
        """Edges of some nodes, and the node that each edge leads to (meaningless where ``to`` is -1)."""
        mdp, units = self.mdp, self.counter.units
        key = nodes.key if self.behavior.sees_stock else np.zeros(len(nodes.key))
        pair, place, weight = self.behavior.pairs(nodes.state, units.stock(nodes.key), t)
        outcome, owner = ranges(mdp.outcome_ptr[pair], mdp.outcome_ptr[pair + 1])
        place, ended = place[owner], mdp.terminated[outcome] | last
        ptr = np.concatenate([[0], np.cumsum(np.bincount(place, minlength=len(nodes.key)))])
        to = np.where(ended, -1, 0)
        edges = Edges(ptr, to, weight[owner] * mdp.prob[outcome], np.ascontiguousarray(mdp.reward[outcome]))
        state = mdp.next_state[outcome].astype(np.int64)
        if not self.behavior.sees_stock:
            return edges, self._grouped(state, np.zeros(len(state)), key[place], t + 1)
        after = np.zeros(len(state))
        after[~ended] = units.step(key[place[~ended]], self.counter.reward[outcome[~ended]])
        if self.mdp.reward_dim == 1:
            after = np.clip(after, -_FAR, _FAR)
        following = _Nodes(code(state, after), after)
        on = np.flatnonzero(~ended)
        following.codes[on] = self._grouped(state[on], after[on], nodes.codes.imag[place[on]], t + 1).codes
        return edges, following


@dataclass(frozen=True)
class Closed:
    """Nodes that a policy never leaves, sorted by code, and their edges."""

    codes: Codes
    edges: Edges


def close(walk: Walk, start: _Nodes, limit: int) -> Closed | None:
    """All nodes that can follow the start; None when they are more than ``limit``."""
    known = start.codes
    frontier, waves = start, []
    with bar("reachable stocks") as progress:
        while len(frontier.codes):
            edges, following = walk.step(frontier, 0)
            waves.append((frontier, edges, following))
            found = following.take(edges.to >= 0).distinct()
            place = np.searchsorted(known, found.codes)
            new = known[np.minimum(place, len(known) - 1)] != found.codes
            frontier = found.take(new)
            known = np.insert(known, place[new], frontier.codes)
            progress.update()
            if len(known) > limit:
                return None
    return _joined(known, waves)


def _joined(known: Codes, waves: list[tuple[_Nodes, Edges, _Nodes]]) -> Closed:
    """One set of edges, in the order of ``known``."""
    codes = np.concatenate([nodes.codes for nodes, _, _ in waves])
    count = np.concatenate([np.diff(edges.ptr) for _, edges, _ in waves])
    prob, reward = (np.concatenate([getattr(edges, name) for _, edges, _ in waves]) for name in ("prob", "reward"))
    goes = np.concatenate([edges.to >= 0 for _, edges, _ in waves])
    to = np.where(goes, np.searchsorted(known, np.concatenate([after.codes for _, _, after in waves])), -1)
    first = np.cumsum(count) - count
    order = np.argsort(codes)
    edge, _ = ranges(first[order], (first + count)[order])
    ptr = np.concatenate([[0], np.cumsum(count[order])])
    return Closed(known, Edges(ptr, to[edge], prob[edge], np.ascontiguousarray(reward[edge])))


def layered(walk: Walk, start: _Nodes, horizon: int, limit: int) -> list[Edges]:
    """Edges of every step from the start; ``to`` counts the nodes of the next step."""
    nodes, layers, count = start, [], 0
    for t in bar("reachable stocks", steps=range(horizon)):
        edges, following = walk.step(nodes, t, last=t == horizon - 1)
        on = edges.to >= 0
        found = following.take(on).distinct()
        to = np.full(len(on), -1)
        to[on] = np.searchsorted(found.codes, following.codes[on])
        layers.append(Edges(edges.ptr, to, edges.prob, edges.reward))
        nodes, count = found, count + len(found.codes)
        if count > limit:
            raise MemoryLimitError(
                f"the policy reaches more than {limit} (state, stock) pairs within {t + 1} of {horizon} steps; shorten "
                "the horizon, take a coarser representation, or, if the policy does not look at the stock, give it as "
                "an array of actions"
            )
        if not on.any():
            break
    return layers


# ------------------------------------------------------------------------------------------------ sweeps


def unwind(rows: Rows, layers: list[Edges], gamma: float) -> tuple[Any, Floats]:
    """Laws and errors at the nodes of the first step, backward through the layers."""
    laws, error = rows.empty(), np.empty(0)
    for edges in bar("sweeping laws", len(layers), reversed(layers)):
        laws, moved = rows.backup(edges, gamma, laws)
        error = moved + gamma * edges.mean(error)
    return laws, error


def repeat(rows: Rows, edges: Edges, gamma: float, n: int) -> tuple[Any, Floats]:
    """``n`` sweeps over nodes that are the same at every step."""
    laws, error = rows.backup(
        Edges(edges.ptr, np.full_like(edges.to, -1), edges.prob, edges.reward), gamma, rows.empty()
    )
    for _ in bar("sweeping laws", steps=range(n - 1)):
        laws, moved = rows.backup(edges, gamma, laws)
        error = moved + gamma * edges.mean(error)
    return laws, error


def settle(rows: Rows, edges: Edges, gamma: float, tol: float | None) -> tuple[Any, Floats]:
    """Sweeps without a horizon until the start is forgotten; the error is infinite where the return never ends."""
    edges, lost = _cut(edges, gamma)
    mean = _mean(edges, edges.reward, gamma)
    size = np.abs(edges.reward) if edges.reward.ndim == 1 else np.linalg.norm(edges.reward, axis=1)
    head = _mean(edges, size, gamma) + (np.abs(mean) if mean.ndim == 1 else np.linalg.norm(mean, axis=1))
    enough = NEGLIGIBLE * float(head.max(initial=0.0)) if tol is None else tol
    laws, moved = rows.backup(Edges.points(mean), gamma, rows.empty())
    error = moved.copy()
    with bar("evaluating") as progress:
        for _ in range(_MOST_SWEEPS):
            if head.max(initial=0.0) <= enough:
                break
            new, moved = rows.backup(edges, gamma, laws)
            if rows.same(new, laws):  # a fixed point: the start is forgotten, and the error is its own
                error, head = _mean(edges, moved[edges.row], gamma), np.zeros_like(head)
                break
            laws, error, head = new, moved + gamma * edges.mean(error), gamma * edges.mean(head)
            progress.update()
    return laws, np.where(lost, np.inf, error + head)


def _cut(edges: Edges, gamma: float) -> tuple[Edges, Bools]:
    """The edges, ended where nothing is ever paid again or where, without a discount, the return has no end."""
    lost = np.zeros(edges.n_rows, dtype=np.bool_)
    rests = _rests(edges)
    if gamma == 1:
        lost = ~np.isfinite(_solve(_ended(edges, rests), np.zeros(len(edges.to)), gamma))
    return _ended(edges, rests | lost), lost


def _ended(edges: Edges, over: Bools) -> Edges:
    """The edges with the returns of some rows over, at 0."""
    at = over[edges.row]
    reward = edges.reward.copy()
    reward[at] = 0.0
    return Edges(edges.ptr, np.where(at, -1, edges.to), edges.prob, reward)


def _rests(edges: Edges) -> Bools:
    """Rows after which nothing is ever paid and nothing ends."""
    pays = edges.reward != 0 if edges.reward.ndim == 1 else (edges.reward != 0).any(axis=1)
    leaves = pays | (edges.to < 0)
    rests = np.ones(edges.n_rows, dtype=np.bool_)
    while True:
        new = rests.copy()
        new[edges.row[leaves | ~rests[edges.to]]] = False
        if (new == rests).all():
            return rests
        rests = new


def _mean(edges: Edges, reward: Floats, gamma: float) -> Floats:
    """Mean (n,) or (n, m) of the discounted sum of what the edges pay, (E,) or (E, m)."""
    if reward.ndim == 1:
        return _solve(edges, reward, gamma)
    return np.stack([_solve(edges, column, gamma) for column in reward.T], axis=-1)


def _solve(edges: Edges, reward: Floats, gamma: float) -> Floats:
    """The same for numbers; minus infinity where the return does not end although ``gamma = 1``."""
    n, goes = edges.n_rows, edges.to >= 0
    count = np.bincount(edges.row[goes], minlength=n)
    graph = Graph(
        pair_ptr=np.arange(n + 1),
        base=total(edges.row, edges.prob * reward, n),
        leaks=np.bincount(edges.row[~goes], minlength=n) > 0,
        edge_ptr=np.concatenate([[0], np.cumsum(count)]),
        edge_to=edges.to[goes].astype(np.int32),
        edge_weight=gamma * edges.prob[goes],
        stop=np.full(n, -np.inf),
    )
    return _graph.solve(graph, discounted=gamma < 1)[0]


def require_end(error: float, state: int) -> None:
    """`NotOptimizableError` where `settle` found no end."""
    if not np.isfinite(error):
        raise NotOptimizableError(
            f"gamma = 1 without a horizon: from state {state} the policy may go on for ever and be paid for ever, so "
            "its return has no law; pass horizon="
        )


def state_laws(mdp: MDP, rows: Rows, action: NDArray[Any], needed: Bools) -> tuple[Any, Floats, Ints]:
    """Laws and errors of an endless stationary policy of actions (S,), for gamma < 1, at the states it leads to.

    The third answer gives the row of each state (S,), -1 for those that the ``needed`` ones (S,) never reach.
    """
    live = np.flatnonzero(~mdp.terminal)
    pair = np.full(mdp.n_states, -1)
    pair[live] = mdp.pair_index(live, action[live])
    reached = needed & ~mdp.terminal
    while True:
        outcome, _ = ranges(*_span(mdp, pair[reached]))
        new = reached.copy()
        new[mdp.next_state[outcome[~mdp.terminated[outcome]]]] = True
        if (new == reached).all():
            break
        reached = new
    states = np.flatnonzero(reached)
    place = np.full(mdp.n_states, -1)
    place[states] = np.arange(len(states))
    first, last = _span(mdp, pair[states])
    outcome, _ = ranges(first, last)
    to = np.where(mdp.terminated[outcome], -1, place[mdp.next_state[outcome]])
    ptr = np.concatenate([[0], np.cumsum(last - first)])
    edges = Edges(ptr, to, mdp.prob[outcome], np.ascontiguousarray(mdp.reward[outcome]))
    laws, error = settle(rows, edges, mdp.gamma, None)
    return laws, error, place


def _span(mdp: MDP, pair: Ints) -> tuple[Ints, Ints]:
    return mdp.outcome_ptr[pair], mdp.outcome_ptr[pair + 1]
