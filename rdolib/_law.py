"""The exact law of the return of a stock-augmented policy, by pushing mass forward step by step.

Mass sits on (state, stock); the return so far, in the money of step 0, travels with it. Equal (state, stock) merge,
and then so do their returns, because ``c_0 + G_0 = gamma**t (c_t + G_t)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rdolib._graph import ranges, total
from rdolib._reachable import code
from rdolib._tables import Table
from rdolib.distributions import Distribution
from rdolib.errors import NotOptimizableError
from rdolib.mdp import MDP
from rdolib.stock import SAME, Units

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEFTOVER = 1e-12  # probability that may still be on its way when an endless law is cut
_CHECK = 2000  # steps after which mass that has not moved towards an end is taken to go on for ever
_MOST_ATOMS = 60_000


@dataclass(frozen=True)
class _Mass:
    state: Ints
    key: Floats
    earned: Floats  # return so far
    prob: Floats


def law_of_return(
    mdp: MDP,
    table: Table,
    start: Floats,
    stock: float,
    horizon: int | None,
) -> Distribution:
    """Law of ``G_0`` from the state distribution ``start`` (S,) and one initial stock.

    Cut, for an endless horizon, once at most 1e-12 of the mass is left, or once what is left to earn cannot move the
    return by more than that; `Distribution.leftover` and `Distribution.w1_error` say so. Where atoms become too many,
    neighbors are merged into their mean and the W1 error is added up. Under an exact table only those whose stock
    matters no more are merged, which keeps the objective's value; under a certified one any may be: the law is then,
    to within that error, the law of a policy that remembers its stock as coarsely as the merging does.
    """
    units = Units.of(mdp, np.array([stock]))
    reward = mdp.reward / units.mesh
    if units.exact:
        reward = np.rint(reward)
    state = np.flatnonzero(start > 0)
    key = np.broadcast_to(units.key(np.array(stock)), state.shape).astype(np.float64)
    mass = _Mass(state, key, np.zeros(len(state)), start[state])
    ends: list[tuple[Floats, Floats]] = []
    largest = float(np.abs(mdp.reward).max(initial=0.0))
    w1_error = 0.0
    t, before = 0, np.inf
    while len(mass.state):
        over = mdp.terminal[mass.state]
        if horizon is None:
            over |= table.rests(mass.state, units.stock(mass.key))
        if over.any():
            ends.append((mass.earned[over], mass.prob[over]))
            mass = _Mass(mass.state[~over], mass.key[~over], mass.earned[~over], mass.prob[~over])
        left = float(mass.prob.sum())
        rest = mdp.gamma**t * largest / (1 - mdp.gamma) if mdp.gamma < 1 else np.inf
        # Under a certified table the law is approximate anyway: what is left may then double its error.
        small = SAME * largest if table.exact else max(SAME * largest, w1_error)
        if t == horizon or (horizon is None and (left <= LEFTOVER or rest <= small)):
            break
        if horizon is None and mdp.gamma == 1 and t % _CHECK == 0:
            if left > before * (1 - 1e-9):
                raise NotOptimizableError(
                    f"under this plan the return goes on for ever with probability about {left:.6g}, so it has no law; "
                    "the plan's value holds all the same (pass horizon= for a law)"
                )
            before = left
        if len(mass.state) > _MOST_ATOMS:
            side = table.side(mass.state, units.stock(mass.key), t)
            mass, moved = _thin(mass, side, np.ones(len(side), dtype=np.bool_) if not table.exact else side != 0)
            w1_error += moved
        mass, ended = _push(mdp, units, reward, mass, table, t)
        ends.append(ended)
        t += 1
    if len(mass.state):
        settled = t == horizon or (mdp.gamma < 1 and left > LEFTOVER)
        if settled:
            ends.append((mass.earned, mass.prob))
            if horizon is None:
                w1_error += left * rest
            left = 0.0
    else:
        left = 0.0
    earned = np.concatenate([e for e, _ in ends])
    prob = np.concatenate([p for _, p in ends])
    return Distribution(earned, prob / prob.sum(), leftover=left, w1_error=w1_error)


def _push(
    mdp: MDP, units: Units, reward: Floats, mass: _Mass, table: Table, t: int
) -> tuple[_Mass, tuple[Floats, Floats]]:
    """One step: the mass that goes on, and the returns and probabilities of what has ended."""
    pair = mdp.pair_index(mass.state, table.action(mass.state, units.stock(mass.key), t))
    outcome, owner = ranges(mdp.outcome_ptr[pair], mdp.outcome_ptr[pair + 1])
    prob = mass.prob[owner] * mdp.prob[outcome]
    earned = mass.earned[owner] + mdp.gamma**t * mdp.reward[outcome]
    if mdp.gamma == 1 and units.exact:  # integers in mesh units, so that no error builds up
        earned = units.stock(np.rint(mass.earned[owner] / units.mesh) + reward[outcome])
    ended = mdp.terminated[outcome]
    on = ~ended
    state, key = (
        mdp.next_state[outcome[on]].astype(np.int64),
        units.step(mass.key[owner[on]], reward[outcome[on]]),
    )
    _, first, inverse = np.unique(code(state, key), return_index=True, return_inverse=True)
    merged = _Mass(state[first], key[first], earned[on][first], total(inverse, prob[on], len(first)))
    return merged, _merge(earned[ended], prob[ended])


def _merge(value: Floats, prob: Floats) -> tuple[Floats, Floats]:
    distinct, inverse = np.unique(value, return_inverse=True)
    return distinct, total(inverse, prob, len(distinct))


def _thin(mass: _Mass, side: NDArray[np.int8], mergeable: NDArray[np.bool_]) -> tuple[_Mass, float]:
    """Merge neighbors of one state and one side into their mean, where that is allowed; how far they moved (W1)."""
    if not mergeable.any():
        return mass, 0.0
    state, key = mass.state[mergeable], mass.key[mergeable]
    earned, prob = mass.earned[mergeable], mass.prob[mergeable]
    cells = max(1.0, _MOST_ATOMS / (2 * len(np.unique(state))))
    width = max(float(np.ptp(earned)) / cells, np.finfo(float).tiny)
    cell = np.floor(earned / width) * 3 + side[mergeable]
    _, first, group = np.unique(code(state, cell), return_index=True, return_inverse=True)
    weight = total(group, prob, len(first))

    def average(x: Floats) -> Floats:
        return total(group, prob * x, len(first)) / weight

    mean = average(earned)
    moved = float(prob @ np.abs(earned - mean[group]))
    kept = ~mergeable
    merged = _Mass(
        np.concatenate([mass.state[kept], state[first]]),
        np.concatenate([mass.key[kept], average(key)]),
        np.concatenate([mass.earned[kept], mean]),
        np.concatenate([mass.prob[kept], weight]),
    )
    return merged, moved
