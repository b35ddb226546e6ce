"""Stocks: which ones can occur, how they are counted exactly, and where they stop mattering.

The stock ``c`` is what has been earned so far, in today's money: ``c_next = (c + r) / gamma``, so that
``c_0 + G_0 = gamma**t (c_t + G_t)``.

*Exact units.* When ``gamma = 1`` or ``gamma = 1/k`` and the rewards are fractions, all stocks reachable from a
fraction lie on a lattice; they are counted in integers. Otherwise stocks are floats whose last bits are rounded away,
so that equal stocks reached by different paths are one.

*Saturation.* Let ``least(s) <= G <= greatest(s)`` over all policies and outcomes from ``s``. For
``f(x) = below min(x, 0) + above max(x, 0)``:

    c >= -least(s):     V(s, c) = above c + max_pi above E G
    c <= -greatest(s):  V(s, c) = below c + max_pi below E G

and for the indicator of ``x >= 0`` the value is 1 and 0. So only the band in between needs a table; this decides the
range of the stock, and no user has to guess it. Derived in the book, chapter "Stock".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from rdolib import _graph, _kernels
from rdolib.errors import NotOptimizableError
from rdolib.mdp import MDP

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

#: Relative distance at which two stocks are one.
SAME = 1e-12
_NOISE = 1e-14  # of the largest stock or reward: what the rounding of a few steps may leave of a zero
_EDGE = 2e-13  # of a stock: what its last kept bits may be off at the edge of an indicator
_LARGEST_DENOMINATOR = 10**6
_LARGEST_INTEGER = 2.0**52


def as_fraction(x: float) -> Fraction | None:
    """The nearest fraction with a denominator up to a million, or None when it is farther than 1e-12 away."""
    fraction = Fraction(float(x)).limit_denominator(_LARGEST_DENOMINATOR)
    return fraction if abs(float(fraction) - x) <= SAME else None


def greatest_common_mesh(values: Floats, mesh: Fraction = Fraction(0)) -> Fraction | None:
    """Largest mesh of which every value, and ``mesh``, is an integer multiple.

    None when a value is no fraction, or when the multiples are integers too large for a float to count.
    """
    for x in np.unique(values):
        fraction = as_fraction(float(x))
        if fraction is None:
            return None
        mesh = Fraction(math.gcd(mesh.numerator * fraction.denominator, fraction.numerator * mesh.denominator),
                        mesh.denominator * fraction.denominator)  # fmt: skip
    if mesh == 0:
        return Fraction(1)
    return mesh if float(np.abs(values).max(initial=0.0)) < _LARGEST_INTEGER * mesh else None


def near_zero(stock: Floats, slack: float = 0.0) -> Floats:
    """How far from the edge of an indicator a stock counts as on it: its rounding, or ``slack`` if that is more."""
    return np.asarray(np.maximum(max(slack, SAME), _EDGE * np.abs(stock)))


def inverse_discount(gamma: float) -> int | None:
    """``k`` when ``gamma = 1/k`` for an integer ``k``, else None."""
    k = round(1.0 / gamma)
    return k if abs(gamma * k - 1.0) <= SAME else None


@dataclass(frozen=True)
class Units:
    """How stocks are counted: ``key = stock / mesh`` and ``key_next = factor * (key + reward)``.

    ``exact``: keys are integers (held in floats below 2**52). Otherwise they are rounded to 44 significant bits, and
    what is smaller than ``noise`` is what rounding has left of zero.
    """

    mesh: float
    factor: float
    exact: bool
    noise: float = 0.0

    @classmethod
    def of(cls, mdp: MDP, stocks: Floats) -> Units:
        """Units in which the stocks reachable from ``stocks`` are integers, if there are any."""
        k = inverse_discount(mdp.gamma)
        rewards = greatest_common_mesh(mdp.reward) if k is not None else None
        if k is not None and rewards is not None:
            for mesh in _meshes(rewards, k, stocks):
                # Stocks beyond this size are saturated, or the caller keeps them from growing.
                size = max(float(np.abs(stocks).max(initial=0.0)), float(np.abs(mdp.reward).max(initial=0.0))) / mesh
                miss = np.abs(stocks / mesh - np.rint(stocks / mesh))
                if size < _LARGEST_INTEGER and (miss <= np.minimum(1e-6, near_zero(stocks) / mesh)).all():
                    return cls(mesh, float(k), True)
        return cls.floats(mdp, stocks)

    @classmethod
    def floats(cls, mdp: MDP, stocks: Floats) -> Units:
        """Units in which stocks are what they are."""
        largest = max(float(np.abs(part).max(initial=0.0)) for part in (stocks, mdp.reward))
        return cls(1.0, 1.0 / mdp.gamma, False, _NOISE * largest)

    def key(self, stock: Floats) -> Floats:
        """Keys of stocks (any shape)."""
        if self.exact:
            return np.asarray(np.rint(stock / self.mesh) + 0.0)
        return _round_bits(np.asarray(stock, dtype=np.float64))

    def stock(self, key: Floats) -> Floats:
        """Stocks of keys (any shape)."""
        return np.asarray(key * self.mesh)

    def step(self, key: Floats, reward: Floats) -> Floats:
        """Next keys; ``reward`` in units of the mesh."""
        total = key + reward
        if not self.exact:
            # A sum that cancels to rounding noise is zero: 0.1 + 0.2 - 0.3 is 0.
            parts = np.maximum(np.abs(key), np.abs(reward))  # (an infinite stock is never noise)
            noise = np.abs(total) < np.maximum(SAME * parts, self.noise)
            total = np.where(noise, 0.0, total)
            return _round_bits(total * self.factor)
        return np.asarray(total * self.factor + 0.0)


def _round_bits(x: Floats) -> Floats:
    mantissa, exponent = np.frexp(x)
    return np.asarray(np.ldexp(np.rint(mantissa * 2.0**44), exponent - 44) + 0.0)


def _meshes(rewards: Fraction, k: int, stocks: Floats) -> Iterator[float]:
    """Meshes to try, coarsest first: the rewards', with more digits in base k, and the fractions' own.

    A stock with j digits in base k reaches the lattice of the rewards after j steps.
    """
    digits = 0
    while k**digits < _LARGEST_INTEGER:
        yield float(rewards / k**digits)
        digits += 1
        if k == 1:
            break
    fractions = greatest_common_mesh(stocks, rewards)
    if fractions is not None:
        yield float(fractions)


def component(mdp: MDP, j: int) -> MDP:
    """The MDP with component ``j`` of a vector reward as its reward."""
    return replace(mdp, reward_dim=1, reward=np.ascontiguousarray(mdp.reward[:, j]))


def _by_component(mdp: MDP, f: Callable[[MDP], Floats]) -> Floats:
    return np.stack([f(component(mdp, j)) for j in range(mdp.reward_dim)], axis=-1)


def return_range(mdp: MDP, sign: float) -> Floats:
    """Supremum over all policies and outcomes of ``sign * G``, by state, for an endless horizon: (S,) or (S, m).

    Infinite where ``gamma = 1`` and a cycle of outcomes gains for ever; minus infinity where no path ever settles.
    With a discount the result is the limit from above, so at any time a valid bound.
    """
    if mdp.reward_dim > 1:
        return _by_component(mdp, lambda one: return_range(one, sign))
    reward = sign * mdp.reward
    first, states = _outcome_rows(mdp)
    open_next = np.where(mdp.terminated, mdp.n_states, mdp.next_state)  # one row more: what has ended is worth 0

    def backup(value: Floats) -> Floats:
        new = value.copy()
        new[states] = np.maximum.reduceat(reward + mdp.gamma * value[open_next], first)
        return new

    if len(states) == 0:
        return np.zeros(mdp.n_states)
    if mdp.gamma < 1:
        value = np.full(mdp.n_states + 1, max(0.0, float(reward.max())) / (1 - mdp.gamma))
        value[mdp.terminal.nonzero()[0]] = 0.0
        value[-1] = 0.0
        for _ in range(20_000):
            new = np.minimum(value, backup(value))
            if (new == value).all():
                break
            value = new
        return value[:-1]
    value = np.full(mdp.n_states + 1, -np.inf)
    value[-1] = 0.0
    value[:-1][mdp.terminal | _rests(mdp)] = 0.0
    for _ in range(mdp.n_states):
        new = np.maximum(value, backup(value))
        if (new == value).all():
            return value[:-1]
        value = new
    # What still grows after S steps lies on a gaining cycle (growth by rounding alone does not count).
    slack = SAME * np.maximum(1.0, np.abs(np.where(np.isfinite(value), value, 0.0)))
    value = np.where(np.maximum(value, backup(value)) > value + slack, np.inf, value)
    for _ in range(mdp.n_states):
        value = np.maximum(value, backup(value))
    return value[:-1]


def return_range_by_step(mdp: MDP, sign: float, horizon: int) -> Floats:
    """``(horizon + 1, S)`` or ``(horizon + 1, S, m)``: the same supremum with ``n`` steps left, row ``n``."""
    if mdp.reward_dim > 1:
        return _by_component(mdp, lambda one: return_range_by_step(one, sign, horizon))
    reward = sign * mdp.reward
    first, states = _outcome_rows(mdp)
    open_next = np.where(mdp.terminated, mdp.n_states, mdp.next_state)
    value = np.zeros((horizon + 1, mdp.n_states + 1))
    if len(states):
        for n in range(1, horizon + 1):
            value[n, states] = np.maximum.reduceat(reward + mdp.gamma * value[n - 1, open_next], first)
    return value[:, :-1]


def _outcome_rows(mdp: MDP) -> tuple[Ints, Ints]:
    """First outcome of every state that has actions, and those states."""
    states = np.flatnonzero(np.diff(mdp.pair_ptr) > 0)
    return mdp.outcome_ptr[mdp.pair_ptr[states]], states


def _pays(mdp: MDP) -> Bools:
    """Outcomes whose reward is not zero."""
    return np.asarray((mdp.reward != 0).reshape(-1, mdp.reward_dim).any(axis=1))


def _rests(mdp: MDP) -> Bools:
    """States from which some sequence of outcomes goes on for ever with reward 0."""
    rests = ~mdp.terminal
    outcome_state = np.repeat(mdp.pair_state, np.diff(mdp.outcome_ptr))
    quiet = ~_pays(mdp) & ~mdp.terminated
    while True:
        new = np.zeros_like(rests)
        new[outcome_state[quiet & rests[mdp.next_state]]] = True
        if (new == rests).all():
            return rests
        rests = new


def resting_pairs(mdp: MDP) -> Bools:
    """Pairs that earn nothing and lead only to states where resting can go on: taking them for ever pays 0."""
    outcome_pair = np.repeat(np.arange(len(mdp.pair_action)), np.diff(mdp.outcome_ptr))
    resting = np.ones(len(mdp.pair_action), dtype=np.bool_)
    resting[outcome_pair[_pays(mdp) | mdp.terminated]] = False
    while True:
        state_rests = np.zeros(mdp.n_states, dtype=np.bool_)
        state_rests[mdp.pair_state[resting]] = True
        new = resting.copy()
        new[outcome_pair[~state_rests[mdp.next_state]]] = False
        if (new == resting).all():
            return resting
        resting = new


def end_components(mdp: MDP) -> Ints:
    """Label of the maximal end component of each state, -1 for none: where a policy can stay for ever.

    No state has one exactly when every policy ends.
    """
    outcome_pair = np.repeat(np.arange(len(mdp.pair_action)), np.diff(mdp.outcome_ptr))
    stays = np.ones(len(mdp.pair_action), dtype=np.bool_)
    stays[outcome_pair[mdp.terminated]] = False
    while True:
        used = stays[outcome_pair]
        component, _ = _strong_components(mdp.n_states, mdp.pair_state[outcome_pair[used]], mdp.next_state[used])
        new = stays.copy()
        new[outcome_pair[component[mdp.pair_state[outcome_pair]] != component[mdp.next_state]]] = False
        has_action = np.zeros(mdp.n_states, dtype=np.bool_)
        has_action[mdp.pair_state[new]] = True
        new[outcome_pair[~has_action[mdp.next_state]]] = False
        if (new == stays).all():
            return np.where(has_action, component, -1)
        stays = new


def ends_within(mdp: MDP) -> int | None:
    """The largest number of steps that any path can take, at least 1; None when some path can go on for ever."""
    outcome_pair = np.repeat(np.arange(len(mdp.pair_action)), np.diff(mdp.outcome_ptr))
    tail, head = mdp.pair_state[outcome_pair][~mdp.terminated], mdp.next_state[~mdp.terminated]
    _, cyclic = _strong_components(mdp.n_states, tail, head)
    if cyclic.any():
        return None
    steps = np.where(mdp.terminal, 0, 1)
    while True:
        longer = steps.copy()
        np.maximum.at(longer, tail, steps[head] + 1)
        if (longer == steps).all():
            return max(1, int(steps.max()))
        steps = longer


def _strong_components(n: int, tail: NDArray[np.int32], head: NDArray[np.int32]) -> tuple[Ints, Bools]:
    order = np.argsort(tail, kind="stable")
    first = np.searchsorted(tail[order], np.arange(n + 1)).astype(np.int64)
    component, cyclic = np.empty(n, dtype=np.int64), np.zeros(n, dtype=np.bool_)
    _kernels.strong_components(first, head[order], component, cyclic)
    return component, cyclic


def _tail(mdp: MDP, weight: float, needed: Bools) -> tuple[Floats, NDArray[np.int32]]:
    """`best_mean`, and where nothing is at stake (weight 0) and nothing ends by itself, the actions of the best mean.

    All actions tie there. Lowest indices could go in circles for ever when ``gamma = 1``.
    """
    value, action = best_mean(mdp, weight, needed)
    if weight == 0 and mdp.gamma == 1:
        with suppress(NotOptimizableError):  # the mean may be infinite; then the actions that lead to an end stand
            action = best_mean(mdp, 1.0, needed)[1]
    return value, action


def expected_time(mdp: MDP) -> Floats:
    """Greatest expected number of steps to the end, by state; only for MDPs in which every policy ends."""
    value, _ = _graph.solve(_state_graph(mdp, np.ones(len(mdp.reward)), rest=False), discounted=False)
    return value


def expected_next(mdp: MDP, value: Floats) -> Floats:
    """``max_a E value(S')`` by state, 0 for what ends: one step of a bound on what is cut off."""
    first = mdp.outcome_ptr[:-1]
    states = np.flatnonzero(np.diff(mdp.pair_ptr) > 0)
    worth = np.add.reduceat(np.where(mdp.terminated, 0.0, mdp.prob * value[mdp.next_state]), first)
    out = np.zeros(mdp.n_states)
    out[states] = np.maximum.reduceat(worth, mdp.pair_ptr[states])
    return out


def best_mean(mdp: MDP, weight: float, needed: Bools) -> tuple[Floats, NDArray[np.int32]]:
    """``max_pi weight * E G`` for an endless horizon and the action that attains it, at the ``needed`` states.

    ``needed`` contains every state that can follow one of its own. Raises `NotOptimizableError` where the maximum
    could be infinite (``gamma = 1`` and a cycle that gains).
    """
    if mdp.gamma == 1 and weight != 0:
        _refuse_gaining_cycles(mdp, weight, needed)
    graph = _state_graph(mdp, weight * mdp.reward, rest=mdp.gamma == 1)
    graph.base[~needed[mdp.pair_state]] = -np.inf
    graph.stop[~needed] = 0.0
    value, choice = _graph.solve(graph, discounted=mdp.gamma < 1)
    value[mdp.terminal] = 0.0
    if weight == 0:
        value[:] = 0.0
    pair = mdp.pair_ptr[:-1] + choice
    # A state that stops rests: it takes its lowest resting pair. Where nothing is admissible any action will do.
    resting = np.flatnonzero(resting_pairs(mdp))[::-1]
    rest_pair = mdp.pair_ptr[:-1].copy()
    rest_pair[mdp.pair_state[resting]] = resting
    pair = np.where(choice < 0, rest_pair, pair)
    action = np.zeros(mdp.n_states, dtype=np.int32)
    action[~mdp.terminal] = mdp.pair_action[pair[~mdp.terminal]]
    return value, action


def _state_graph(mdp: MDP, reward: Floats, rest: bool) -> _graph.Graph:
    """The MDP itself as a graph: nodes are states."""
    outcome_pair = np.repeat(np.arange(len(mdp.pair_action)), np.diff(mdp.outcome_ptr))
    goes_on = ~mdp.terminated
    stop = np.full(mdp.n_states, -np.inf)
    stop[mdp.terminal] = 0.0
    if rest:
        stop[mdp.pair_state[resting_pairs(mdp)]] = 0.0
    edges_of_pair = np.bincount(outcome_pair[goes_on], minlength=len(mdp.pair_action))
    return _graph.Graph(
        pair_ptr=mdp.pair_ptr,
        base=_graph.total(outcome_pair, mdp.prob * reward, len(mdp.pair_action)),
        leaks=np.bincount(outcome_pair[~goes_on], minlength=len(mdp.pair_action)) > 0,
        edge_ptr=np.concatenate([[0], np.cumsum(edges_of_pair)]),
        edge_to=mdp.next_state[goes_on],
        edge_weight=mdp.gamma * mdp.prob[goes_on],
        stop=stop,
    )


def _refuse_gaining_cycles(mdp: MDP, weight: float, needed: Bools) -> None:
    component = np.where(needed, end_components(mdp), -1)
    outcome_pair = np.repeat(np.arange(len(mdp.pair_action)), np.diff(mdp.outcome_ptr))
    state = mdp.pair_state[outcome_pair]
    inside = (component[state] >= 0) & (component[state] == component[mdp.next_state]) & ~mdp.terminated
    gains = np.flatnonzero(inside & (weight * mdp.reward > 0))
    if len(gains):
        o = gains[0]
        members = np.flatnonzero(component == component[state[o]])
        raise NotOptimizableError(
            f"gamma = 1 without a horizon: the states {_listed(members)} can be cycled through for ever, and the "
            f"outcome {state[o]} -> {mdp.next_state[o]} on that cycle pays {mdp.reward[o]:.6g}, so the "
            f"{'greatest' if weight > 0 else 'least'} expected return may be infinite; pass horizon=, or use gamma < 1"
        )


def _listed(states: Ints) -> str:
    shown = ", ".join(str(s) for s in states[:8])
    return f"[{shown}, ... {len(states)} in all]" if len(states) > 8 else f"[{shown}]"


@dataclass(frozen=True)
class Saturation:
    """Where the stock stops mattering, and what the value and the action are there.

    Every array has a leading axis of steps left: ``(1, S)`` for an endless horizon, ``(H + 1, S)`` otherwise.
    ``slopes`` (below, above) belong to the two-slope utilities; the indicator has ``slopes = None``.
    """

    least: Floats
    greatest: Floats
    slopes: tuple[float, float] | None
    low_mean: Floats
    high_mean: Floats
    low_action: NDArray[np.int32]
    high_action: NDArray[np.int32]

    @classmethod
    @lru_cache(maxsize=8)  # a search over the initial stock solves the same problem many times
    def endless(cls, mdp: MDP, slopes: tuple[float, float] | None) -> Saturation:
        """Without a horizon."""
        below, above = slopes if slopes is not None else (0.0, 0.0)
        least, greatest = -return_range(mdp, -1.0), return_range(mdp, 1.0)
        if (mdp.reward[~mdp.terminated] <= 0).all():  # where no return converges, it falls without end
            least[greatest == -np.inf] = -np.inf
        linear = slopes is not None and below == above
        everywhere = np.ones(mdp.n_states, dtype=np.bool_)
        low_mean, low_action = _tail(mdp, below, everywhere if linear else greatest < np.inf)
        high_mean, high_action = (low_mean, low_action) if linear else _tail(mdp, above, least > -np.inf)
        return cls(
            least[None], greatest[None], slopes,
            low_mean[None], high_mean[None], low_action[None], high_action[None],
        )  # fmt: skip

    @classmethod
    @lru_cache(maxsize=8)
    def within(cls, mdp: MDP, slopes: tuple[float, float] | None, horizon: int) -> Saturation:
        """With a horizon, for every number of steps left."""
        below, above = slopes if slopes is not None else (0.0, 0.0)
        low_mean, low_action = best_mean_by_step(mdp, below, horizon)
        same = above == below
        high_mean, high_action = (low_mean, low_action) if same else best_mean_by_step(mdp, above, horizon)
        return cls(
            -return_range_by_step(mdp, -1.0, horizon), return_range_by_step(mdp, 1.0, horizon), slopes,
            low_mean, high_mean, low_action, high_action,
        )  # fmt: skip

    @cached_property
    def linear(self) -> bool:
        """True when the utility is linear, so that no stock matters anywhere."""
        return self.slopes is not None and self.slopes[0] == self.slopes[1]

    def side(self, state: Ints, stock: Floats, left: int = 0, slack: float = 0.0) -> NDArray[np.int8]:
        """-1 where the stock is saturated from below, +1 from above, 0 in the band between.

        With ``slack``, stocks that miss saturation by no more than that count as saturated.
        """
        least, greatest = self.least[left, state], self.greatest[left, state]
        if self.linear:
            return np.full(np.broadcast_shapes(np.shape(state), np.shape(stock)), -1, dtype=np.int8)
        if self.slopes is None:
            zero = near_zero(stock, slack)
            return np.where(stock >= -least - zero, 1, np.where(stock < -greatest - zero, -1, 0)).astype(np.int8)
        return np.where(stock >= -least - slack, 1, np.where(stock <= -greatest + slack, -1, 0)).astype(np.int8)

    def value(self, state: Ints, stock: Floats, side: NDArray[np.int8], left: int = 0) -> Floats:
        """Value at saturated stocks (arbitrary where ``side`` is 0)."""
        if self.slopes is None:
            return np.where(side > 0, 1.0, 0.0)
        low = self.slopes[0] * stock + self.low_mean[left, state]
        high = self.slopes[1] * stock + self.high_mean[left, state]
        return np.asarray(np.where(side > 0, high, low))

    def action(self, state: Ints, side: NDArray[np.int8], left: int = 0) -> NDArray[np.int32]:
        """Optimal actions at saturated stocks (arbitrary where ``side`` is 0)."""
        return np.asarray(np.where(side > 0, self.high_action[left, state], self.low_action[left, state]))


@dataclass(frozen=True)
class OrthantSaturation:
    """Saturation of the indicator that every component of a vector return reaches zero.

    ``least`` and ``greatest`` are (1, S, m) for an endless horizon, else (H + 1, S, m). A component that is sure of
    reaching zero matters no more: it is set to infinity, where it stays, so that such stocks are one.
    """

    least: Floats
    greatest: Floats
    sure_action: NDArray[np.int32]

    #: No linear part, as for the scalar indicator.
    slopes = None
    linear = False

    @classmethod
    def of(cls, mdp: MDP, horizon: int | None) -> OrthantSaturation:
        """With or without a horizon."""
        if horizon is None:
            least, greatest = -return_range(mdp, -1.0)[None], return_range(mdp, 1.0)[None]
            everywhere = np.ones(mdp.n_states, dtype=np.bool_)
            return cls(least, greatest, best_mean(component(mdp, 0), 0.0, everywhere)[1])
        least, greatest = -return_range_by_step(mdp, -1.0, horizon), return_range_by_step(mdp, 1.0, horizon)
        lowest = np.zeros(mdp.n_states, dtype=np.int32)
        live = ~mdp.terminal
        lowest[live] = mdp.pair_action[mdp.pair_ptr[:-1][live]]
        return cls(least, greatest, lowest)

    def clamp(self, state: Ints, stock: Floats, left: int) -> Floats:
        """Stocks (n, m) with their sure components at infinity."""
        return np.where(stock >= -self.least[left, state] - near_zero(stock), np.inf, stock)

    def side(self, state: Ints, stock: Floats, left: int = 0, slack: float = 0.0) -> NDArray[np.int8]:
        """-1 where some component is lost, +1 where all are sure, 0 in between."""
        zero = near_zero(stock, slack)
        sure = (stock >= -self.least[left, state] - zero).all(axis=-1)
        lost = (stock < -self.greatest[left, state] - zero).any(axis=-1)
        return np.where(sure, 1, np.where(lost, -1, 0)).astype(np.int8)

    def value(self, state: Ints, stock: Floats, side: NDArray[np.int8], left: int = 0) -> Floats:
        """Value at saturated stocks (arbitrary where ``side`` is 0)."""
        return np.where(side > 0, 1.0, 0.0)

    def action(self, state: Ints, side: NDArray[np.int8], left: int = 0) -> NDArray[np.int32]:
        """Optimal actions at saturated stocks (arbitrary where ``side`` is 0)."""
        return self.sure_action[state]


def best_mean_by_step(mdp: MDP, weight: float, horizon: int) -> tuple[Floats, NDArray[np.int32]]:
    """``max_pi weight * E G`` with ``n`` steps left, and the first action: two ``(horizon + 1, S)`` arrays."""
    value = np.zeros((horizon + 1, mdp.n_states + 1))
    action = np.zeros((horizon + 1, mdp.n_states), dtype=np.int32)
    states = np.flatnonzero(np.diff(mdp.pair_ptr) > 0)
    if len(states) == 0:
        return value[:, :-1], action
    action[:, states] = mdp.pair_action[mdp.pair_ptr[states]]
    if weight == 0:
        return value[:, :-1], action
    open_next = np.where(mdp.terminated, mdp.n_states, mdp.next_state)
    first_pair = mdp.pair_ptr[states]
    pair_row = np.repeat(np.arange(len(states)), np.diff(mdp.pair_ptr)[states])
    for n in range(1, horizon + 1):
        worth = np.add.reduceat(
            mdp.prob * (weight * mdp.reward + mdp.gamma * value[n - 1, open_next]), mdp.outcome_ptr[:-1]
        )
        best = np.maximum.reduceat(worth, first_pair)
        value[n, states] = best
        ties = np.flatnonzero(worth >= (best - _graph.TIE * np.maximum(1.0, np.abs(best)))[pair_row])[::-1]
        action[n, states[pair_row[ties]]] = mdp.pair_action[ties]
    return value[:, :-1], action
