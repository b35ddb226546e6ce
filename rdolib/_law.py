"""The exact law of the return of a policy, by pushing mass forward step by step.

Mass sits on (state, stock); the return so far, in the money of step 0, travels with it. Equal (state, stock) merge,
and then so do their returns, because ``c_0 + G_0 = gamma**t (c_t + G_t)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rdolib._atoms import merge_vectors
from rdolib._behavior import Behavior, behavior_of, innermost
from rdolib._graph import ranges, total
from rdolib._interned import InternedUnits
from rdolib._progress import bar
from rdolib._reachable import ReachableTable, code
from rdolib._tables import Table
from rdolib.distributions import Distribution
from rdolib.errors import MemoryLimitError, NotOptimizableError
from rdolib.mdp import MDP
from rdolib.stock import SAME, Units

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

LEFTOVER = 1e-12  # probability that may still be on its way when an endless law is cut
_CHECK = 2000  # steps after which mass that has not moved towards an end is taken to go on for ever
_MOST_ATOMS = 60_000
_MOST_NODES = 3_000_000  # places of mass after which a law that may not be merged is given up


@dataclass(frozen=True)
class _Mass:
    state: Ints
    key: Floats
    earned: Floats  # return so far, (n,) or (n, m)
    prob: Floats

    def take(self, index: Bools | Ints) -> _Mass:
        return _Mass(self.state[index], self.key[index], self.earned[index], self.prob[index])


class Counter:
    """How stocks and rewards of an MDP are counted along the way."""

    def __init__(self, mdp: MDP, stock: Floats, units: Units | None = None) -> None:
        units = Units.of(mdp, stock) if units is None else units
        self.units = units if mdp.reward_dim == 1 else InternedUnits(units, mdp.reward_dim)
        reward = mdp.reward / units.mesh
        self.reward = np.rint(reward) if units.exact else reward
        self.mdp = mdp
        # Integers in mesh units, so that no error builds up.
        self.whole = mdp.gamma == 1 and units.exact
        self.mesh = units.mesh

    def earn(self, earned: Floats, outcome: Ints, t: int) -> Floats:
        """Returns so far after one more step."""
        if self.whole:
            return np.asarray((np.rint(earned / self.mesh) + self.reward[outcome]) * self.mesh)
        return np.asarray(earned + self.mdp.gamma**t * self.mdp.reward[outcome])


def law_of_return(
    mdp: MDP,
    policy: Table | Behavior,
    start: Floats,
    stock: float | Floats,
    horizon: int | None,
) -> Distribution:
    """Law of ``G_0`` from the state distribution ``start`` (S,) and one initial stock.

    Cut, for an endless horizon, once at most 1e-12 of the mass is left, or once what is left to earn cannot move the
    return by more than that; `Distribution.leftover` and `Distribution.w1_error` say so. Where atoms become too many,
    neighbors are merged into their mean and the W1 error is added up. Under an exact table only those whose stock
    matters no more are merged, which keeps the objective's value; under a certified one any may be: the law is then,
    to within that error, the law of a policy that remembers its stock as coarsely as the merging does.
    """
    behavior: Behavior = policy if hasattr(policy, "pairs") else behavior_of(mdp, policy)  # type: ignore[assignment]
    initial = np.asarray(stock, dtype=np.float64).reshape((1, -1) if mdp.reward_dim > 1 else (1,))
    counter = Counter(mdp, initial, _rounded_units(behavior))
    units = counter.units
    state = np.flatnonzero(start > 0)
    key = np.repeat(units.key(initial), len(state))
    mass = _Mass(state, key, np.zeros((len(state), *initial.shape[1:])), start[state])
    ends: list[tuple[Floats, Floats]] = []
    largest = largest_reward(mdp)
    w1_error, left = 0.0, 0.0
    t, before = 0, np.inf
    with bar("law of the return", horizon) as progress:
        while len(mass.state):
            over = mdp.terminal[mass.state]
            if horizon is None:
                over = over | behavior.rests(mass.state, units.stock(mass.key))
            if over.any():
                ends.append((mass.earned[over], mass.prob[over]))
                mass = mass.take(~over)
            left = float(mass.prob.sum())
            rest = mdp.gamma**t * largest / (1 - mdp.gamma) if mdp.gamma < 1 else np.inf
            # Where merging is allowed the law is approximate anyway: what is left may then double its error.
            small = SAME * largest if behavior.strict(t) else max(SAME * largest, w1_error)
            if t == horizon or (horizon is None and (left <= LEFTOVER or rest <= small)):
                break
            if horizon is None and mdp.gamma == 1 and t % _CHECK == 0:
                _require_progress(left, before)
                before = left
            if len(mass.state) > _MOST_ATOMS:
                side = behavior.side(mass.state, units.stock(mass.key), t)
                free = side != 0 if behavior.strict(t) else np.ones(len(side), dtype=np.bool_)
                mass, moved = _thin(mass, units, side, free & ~_extreme(mass))
                w1_error += moved
            mass, ended = _push(mdp, counter, mass, behavior, t)
            ends.append(ended)
            t += 1
            progress.update()
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


def _rounded_units(behavior: Behavior) -> Units | None:
    """Those of a table that knows no stocks but its own and counts them in rounded floats; else None.

    A discount of ``1/k`` multiplies what rounds differently by ``k`` at every step.
    """
    table = innermost(getattr(behavior, "table", None))
    units = table.problem.units if isinstance(table, ReachableTable) else None
    return units if isinstance(units, Units) and not units.exact else None


def largest_reward(mdp: MDP) -> float:
    """The largest reward in absolute value, or in the 2-norm."""
    size = np.abs(mdp.reward) if mdp.reward_dim == 1 else np.linalg.norm(mdp.reward, axis=1)
    return float(size.max(initial=0.0))


def _require_progress(left: float, before: float) -> None:
    if left > before * (1 - 1e-9):
        raise NotOptimizableError(
            f"under this plan the return goes on for ever with probability about {left:.6g}, so it has no law; "
            "the plan's value holds all the same (pass horizon= for a law)"
        )


def _push(mdp: MDP, counter: Counter, mass: _Mass, behavior: Behavior, t: int) -> tuple[_Mass, tuple[Floats, Floats]]:
    """One step: the mass that goes on, and the returns and probabilities of what has ended."""
    pair, place, weight = behavior.pairs(mass.state, counter.units.stock(mass.key), t)
    outcome, owner = ranges(mdp.outcome_ptr[pair], mdp.outcome_ptr[pair + 1])
    if len(outcome) > _MOST_NODES:
        raise MemoryLimitError(
            f"after {t} steps the exact law has {len(mass.state)} atoms on their way, each with its own stock; pass a "
            "shorter horizon=, or, if the policy does not look at the stock, give it as an array of actions and "
            "evaluate with representation=QuantileGrid(n) or CategoricalGrid(low, high, n)"
        )
    place, weight = place[owner], weight[owner]
    prob = mass.prob[place] * weight * mdp.prob[outcome]
    earned = counter.earn(mass.earned[place], outcome, t)
    ended = mdp.terminated[outcome]
    on = ~ended
    state = mdp.next_state[outcome[on]].astype(np.int64)
    key = counter.units.step(mass.key[place[on]], counter.reward[outcome[on]])
    _, first, inverse = np.unique(code(state, key), return_index=True, return_inverse=True)
    merged = _Mass(state[first], key[first], earned[on][first], total(inverse, prob[on], len(first)))
    return merged, _merge(earned[ended], prob[ended])


def _merge(value: Floats, prob: Floats) -> tuple[Floats, Floats]:
    if value.ndim > 1:
        return merge_vectors(value, prob) if len(value) else (value, prob)
    distinct, inverse = np.unique(value, return_inverse=True)
    return distinct, total(inverse, prob, len(distinct))


def _extreme(mass: _Mass) -> Bools:
    """The least and the greatest return so far at each state, so that merging moves neither end of the law."""
    if mass.earned.ndim > 1:
        return np.zeros(len(mass.state), dtype=np.bool_)
    order = np.lexsort((mass.earned, mass.state))
    first = np.concatenate([[True], np.diff(mass.state[order]) > 0])
    ends = np.zeros(len(order), dtype=np.bool_)
    ends[order] = first | np.append(first[1:], True)
    return ends


def _thin(mass: _Mass, units: Units | InternedUnits, side: NDArray[np.int8], mergeable: Bools) -> tuple[_Mass, float]:
    """Merge neighbors of one state and one side into their mean, where that is allowed; how far they moved (W1)."""
    if not mergeable.any():
        return mass, 0.0
    part = mass.take(mergeable)
    earned = part.earned.reshape(len(part.state), -1)
    cells = max(1.0, (_MOST_ATOMS / (2 * len(np.unique(part.state)))) ** (1 / earned.shape[1]))
    spread = np.ptp(earned, axis=0)
    width = np.where(spread > 0, spread / cells, 1.0)
    cell = np.floor(earned / width)
    if earned.shape[1] == 1:
        place = code(part.state, cell[:, 0] * 3 + side[mergeable])
        _, first, group = np.unique(place, return_index=True, return_inverse=True)
    else:
        rows = np.column_stack([part.state, side[mergeable], cell])
        _, first, group = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    group = group.reshape(-1)
    weight = total(group, part.prob, len(first))

    def average(x: Floats) -> Floats:
        columns = [total(group, part.prob * column, len(first)) / weight for column in x.reshape(len(x), -1).T]
        return np.stack(columns, axis=-1).reshape(len(first), *x.shape[1:])

    mean = average(part.earned)
    moved = float(part.prob @ np.linalg.norm(earned - mean.reshape(len(first), -1)[group], axis=1))
    scalar = isinstance(units, Units)
    key = average(part.key) if scalar else units.key(average(units.stock(part.key)))
    kept = mass.take(~mergeable)
    merged = _Mass(
        np.concatenate([kept.state, part.state[first]]),
        np.concatenate([kept.key, key]),
        np.concatenate([kept.earned, mean]),
        np.concatenate([kept.prob, weight]),
    )
    return merged, moved
