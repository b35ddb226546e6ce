"""Roll-outs: simulated returns of policies that look at the state and the stock."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rdolib._progress import bar
from rdolib.errors import InvalidArgumentError, MemoryLimitError
from rdolib.mdp import MDP
from rdolib.stock import Units, greatest_common_mesh, inverse_discount

__all__ = ["Paths", "Rollouts", "StockPolicy", "rollout"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Ints32 = NDArray[np.int32]
Bools = NDArray[np.bool_]

#: A discounted episode stops when its rest is below this, times the largest reward if that exceeds 1.
NEGLIGIBLE = 1e-12
#: Recorded paths may take this many bytes.
PATHS_LIMIT = 2**30
# Stocks stop growing here, far beyond saturation and short of overflow.
_LARGEST_STOCK = 1e290


class StockPolicy(Protocol):
    """Anything that chooses actions from states, stocks and time.

    Two optional attributes are respected: ``horizon``, the number of steps the policy was made for, and
    ``rests(states, stocks) -> bool array``, True where the policy goes on for ever without further reward.
    """

    def actions(self, states: Any, stocks: Any, t: int) -> Any:
        """Actions (n,) for states (n,) and stocks (n,) or (n, m) at step ``t``."""


@dataclass(frozen=True, eq=False)
class Paths:
    """What happened in each episode, step by step. T is the number of steps of the longest episode.

    Attributes
    ----------
    states : (episodes, T + 1) int32 array
        States, the initial one first; -1 after the end.
    actions : (episodes, T) int32 array
        Actions; -1 after the end.
    rewards : (episodes, T) or (episodes, T, m) float64 array
        Rewards; 0 after the end.
    stocks : (episodes, T + 1) or (episodes, T + 1, m) float64 array
        Stocks, the initial one first; nan after the end.
    """

    states: Ints32
    actions: Ints32
    rewards: Floats
    stocks: Floats


@dataclass(frozen=True, eq=False, repr=False)
class Rollouts:
    """The results of simulated episodes.

    Attributes
    ----------
    returns : (episodes,) or (episodes, m) float64 array
        Discounted sums of rewards, without the initial stock.
    lengths : (episodes,) int64 array
        Numbers of steps.
    terminated : (episodes,) bool array
        True where the episode ended by itself; False where the horizon, a negligible rest of the discounted
        return or `max_steps` cut it.
    unfinished : int
        Number of episodes that `max_steps` cut: their returns are incomplete.
    missing : float
        No reward component of any return is farther than this from its full value; 0 when every episode
        ended or reached the horizon, infinite when episodes without discount were cut.
    paths : Paths or None
        The steps of all episodes, when they were recorded.
    """

    returns: Floats
    lengths: Ints
    terminated: Bools
    unfinished: int
    missing: float
    paths: Paths | None = None

    def __repr__(self) -> str:
        n = len(self.lengths)
        text = f"Rollouts({n} episodes, mean return {_show(self.returns.mean(axis=0))}"
        if n > 1:
            text += f", standard error {_show(self.returns.std(axis=0, ddof=1) / n**0.5)}"
        return f"{text}, {self.unfinished} unfinished)"


def rollout(
    mdp: MDP,
    policy: StockPolicy | Any,
    episodes: int = 10_000,
    seed: int = 0,
    stock: float | ArrayLike | None = None,
    state: int | None = None,
    horizon: int | None = None,
    max_steps: int = 100_000,
    record: bool = False,
) -> Rollouts:
    """Simulate episodes of a policy, all at once; the same seed gives the same episodes.

    Without a horizon, discounted episodes run until the rest of the return cannot exceed 1e-12 (times the
    largest reward, if that exceeds 1), and episodes without discount until they end.

    Parameters
    ----------
    mdp : MDP
        The decision process.
    policy : policy or Plan
        An object with ``actions(states, stocks, t)``, such as ``plan.policy``; or a plan, which brings its
        own stock, state, horizon and, when it is a mixture, its own lottery over policies at the start.
    episodes : int
        Number of episodes.
    seed : int
        Seed of ``numpy.random.default_rng``.
    stock : float or (m,) array, optional
        The initial stock; by default the plan's, or 0 for a policy.
    state : int, optional
        The initial state; by default the plan's, or drawn from ``mdp.initial``.
    horizon : int, optional
        Number of steps; by default that of the plan or policy, and without one endless.
    max_steps : int
        Where to cut episodes that do not end. A warning says how many were cut.
    record : bool
        Whether to keep all states, actions, rewards and stocks.

    Returns
    -------
    Rollouts

    Raises
    ------
    InvalidArgumentError
        If an argument is out of range, or the policy chooses an action that its state does not have.
    MemoryLimitError
        If recorded paths would take more than 1 GiB.

    Notes
    -----
    The stock obeys ``c_next = (c + r) / gamma``, so that ``gamma**t * (c_t + G_t)`` stays ``c_0 + G_0``
    along every path. Where stocks form a lattice they are counted in integers, as the solvers do, and do not
    drift.

    Examples
    --------
    >>> import rdolib as rdo
    >>> coin = rdo.MDP.from_outcomes({0: {0: [(0.5, 1, 1.0, True), (0.5, 1, -1.0, True)]}})
    >>> class OnlyChoice:
    ...     def actions(self, states, stocks, t):
    ...         return 0 * states
    >>> runs = rdo.rollout(coin, OnlyChoice(), episodes=1000, seed=1)
    >>> runs.returns.min(), runs.returns.max(), int(runs.lengths.max())
    (np.float64(-1.0), np.float64(1.0), 1)
    """
    count = _positive(episodes, "episodes")
    longest = _positive(max_steps, "max_steps")
    steps = None if horizon is None else _positive(horizon, "horizon")
    start = None if state is None else _known_state(state, mdp)
    rng = np.random.default_rng(seed)
    members = _members(policy)
    for member in members:
        steps = _horizon_within(steps, member)
    weights = np.array([member.weight for member in members])
    which = rng.choice(len(members), size=count, p=weights / weights.sum()) if len(members) > 1 else None
    stocks = np.array([_stock(member.stock if stock is None else stock, mdp) for member in members])
    if start is None:
        start = members[0].state
    simulation = _Simulation(
        mdp=mdp,
        rng=rng,
        policies=[member.policy for member in members],
        which=np.zeros(count, dtype=np.int64) if which is None else which,
        states=_initial_states(mdp, start, count, rng),
        stocks=stocks,
        record=record,
    )
    runs = simulation.run(steps, longest)
    if runs.unfinished:
        warnings.warn(
            f"{runs.unfinished} of {count} episodes were cut after max_steps={longest} steps, "
            "so their returns are incomplete; raise max_steps, or set a horizon",
            RuntimeWarning,
            stacklevel=2,
        )
    return runs


def _show(value: Floats) -> str:
    numbers = [f"{x:.6g}" for x in np.atleast_1d(value)]
    return numbers[0] if np.ndim(value) == 0 else f"({', '.join(numbers)})"


# -------------------------------------------------------------------- arguments


@dataclass(frozen=True)
class _Member:
    """One policy of a mixture, with what its plan says about the start."""

    weight: float
    policy: Any
    stock: Any
    state: int | None
    horizon: int | None


def _members(policy: Any) -> list[_Member]:
    """The policies to draw from at the start: one, unless a plan is a mixture."""
    mixture: Sequence[tuple[float, Any]] = getattr(policy, "mixture", None) or [(1.0, policy)]
    return [_member(weight, part) for weight, part in mixture if weight > 0]


def _member(weight: float, policy: Any) -> _Member:
    if hasattr(policy, "policy") and not hasattr(policy, "actions"):  # a plan
        horizon = getattr(policy, "horizon", None)
        return _Member(weight, policy.policy, policy.stock, getattr(policy, "state", None), horizon)
    if not callable(getattr(policy, "actions", None)):
        raise InvalidArgumentError(
            f"policy is {type(policy).__name__}; it must be a plan, or have a method actions(states, stocks, t)"
        )
    return _Member(weight, policy, 0.0, None, getattr(policy, "horizon", None))


def _horizon_within(steps: int | None, member: _Member) -> int | None:
    if member.horizon is None:
        return steps
    if steps is not None and steps > member.horizon:
        raise InvalidArgumentError(
            f"horizon is {steps}, but the policy was made for {member.horizon} steps; it must not be larger"
        )
    return member.horizon if steps is None else steps


def _positive(value: int, name: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise InvalidArgumentError(f"{name} is {value!r}; it must be a positive integer")
    return number


def _known_state(state: int, mdp: MDP) -> int:
    try:
        number = operator.index(state)
    except TypeError:
        number = -1
    if not 0 <= number < mdp.n_states:
        raise InvalidArgumentError(f"state is {state!r}; states are the integers 0 to {mdp.n_states - 1}")
    return number


def _stock(stock: Any, mdp: MDP) -> Floats:
    """The initial stock, () or (m,); zero stands for a vector of zeros."""
    try:
        value = np.asarray(stock, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"stock is {stock!r}; it must be made of numbers") from error
    shape = () if mdp.reward_dim == 1 else (mdp.reward_dim,)
    if value.shape == () and value == 0:
        return np.zeros(shape)
    if value.shape != shape:
        vector = f"a vector of {mdp.reward_dim} numbers, like a reward"
        needed = "a number" if mdp.reward_dim == 1 else vector
        raise InvalidArgumentError(f"stock has shape {value.shape}; it must be {needed}")
    if not np.isfinite(value).all():
        raise InvalidArgumentError(f"stock is {stock!r}; it must be finite")
    return value


def _initial_states(mdp: MDP, state: int | None, count: int, rng: np.random.Generator) -> Ints:
    initial = mdp.initial if state is None else state
    if isinstance(initial, int):
        return np.full(count, initial, dtype=np.int64)
    return rng.choice(mdp.n_states, size=count, p=initial)


# -------------------------------------------------------------------- simulation


class _Simulation:
    """Episodes that advance together; those that have ended drop out of every array operation."""

    def __init__(
        self,
        *,
        mdp: MDP,
        rng: np.random.Generator,
        policies: list[Any],
        which: Ints,
        states: Ints,
        stocks: Floats,
        record: bool,
    ) -> None:
        self.mdp = mdp
        self.rng = rng
        self.policies = policies
        self.which = which
        self.units = _units(mdp, stocks)
        self.rewards = mdp.reward / self.units.mesh
        if self.units.exact:
            self.rewards = np.rint(self.rewards)
        self.draw = _OutcomeSampler(mdp, rng)
        self.states = states
        self.keys = self.units.key(stocks)[which]
        self.recorder = _Recorder(states, self.units.stock(self.keys)) if record else None

    def run(self, horizon: int | None, max_steps: int) -> Rollouts:
        mdp = self.mdp
        totals = np.zeros_like(self.keys)  # in units of the mesh
        lengths = np.zeros(len(self.states), dtype=np.int64)
        live = np.flatnonzero(~mdp.terminal[self.states])
        largest = float(np.abs(mdp.reward).max(initial=0.0))
        # With a horizon every step is played, also those that discounting makes invisible.
        negligible = -1.0 if horizon else NEGLIGIBLE * max(1.0, largest)
        t, rest = 0, _rest(mdp.gamma, 0, largest)
        with bar("rolling out", horizon) as progress:
            while live.size and t != horizon and t < max_steps and rest > negligible:
                outcome = self._step(live, t)
                totals[live] += mdp.gamma**t * self.rewards[outcome]
                lengths[live] += 1
                live = live[~mdp.terminated[outcome]]
                if horizon is None and mdp.gamma == 1:
                    live = self._without_resting(live)
                t += 1
                rest = _rest(mdp.gamma, t, largest)
                progress.update()
        terminated = np.ones(len(self.states), dtype=np.bool_)
        terminated[live] = False
        cut = live.size > 0 and t != horizon
        return Rollouts(
            returns=totals * self.units.mesh,
            lengths=lengths,
            terminated=terminated,
            unfinished=int(live.size) if cut and rest > negligible else 0,
            missing=rest if cut else 0.0,
            paths=self.recorder.paths() if self.recorder else None,
        )

    def _step(self, live: Ints, t: int) -> Ints:
        """Advance the live episodes by one step; the outcome of each."""
        states = self.states[live]
        actions = self._actions(live, states, t)
        outcome = self.draw(self.mdp.pair_index(states, actions))
        with np.errstate(over="ignore"):
            keys = self.units.step(self.keys[live], self.rewards[outcome])
        self.keys[live] = np.clip(keys, -_LARGEST_STOCK, _LARGEST_STOCK)
        self.states[live] = self.mdp.next_state[outcome]
        if self.recorder:
            stocks = self.units.stock(self.keys[live])
            self.recorder.add(live, actions, self.states[live], self.mdp.reward[outcome], stocks)
        return outcome

    def _actions(self, live: Ints, states: Ints, t: int) -> Ints:
        stocks = self.units.stock(self.keys[live])
        if len(self.policies) == 1:
            return _checked(self.policies[0].actions(states, stocks, t), states)
        actions = np.empty(len(live), dtype=np.int64)
        for i, policy in enumerate(self.policies):
            mine = self.which[live] == i
            if mine.any():
                actions[mine] = _checked(policy.actions(states[mine], stocks[mine], t), states[mine])
        return actions

    def _without_resting(self, live: Ints) -> Ints:
        """Drop episodes whose policy says that it goes on for ever without any further reward."""
        for i, policy in enumerate(self.policies):
            if live.size and hasattr(policy, "rests"):
                mine = self.which[live] == i
                stocks = self.units.stock(self.keys[live])
                live = live[~(mine & policy.rests(self.states[live], stocks))]
        return live


def _checked(actions: Any, states: Ints) -> Ints:
    chosen = np.asarray(actions)
    if chosen.shape != states.shape or chosen.dtype.kind not in "iu":
        raise InvalidArgumentError(
            f"policy.actions returned {chosen.dtype} of shape {chosen.shape} for {len(states)} states; "
            f"it must return integers of shape {states.shape}"
        )
    return chosen.astype(np.int64)


def _rest(gamma: float, t: int, largest: float) -> float:
    """The most that rewards after step ``t`` can add to a return, in the money of step 0."""
    if largest == 0:
        return 0.0
    return float("inf") if gamma == 1 else gamma**t * largest / (1 - gamma)


def _units(mdp: MDP, stocks: Floats) -> Units:
    """How to count stocks: as the solvers do, and by components for vectors."""
    if mdp.reward_dim == 1:
        return Units.of(mdp, stocks)
    k = inverse_discount(mdp.gamma)
    mesh = None if k is None else greatest_common_mesh(np.concatenate([mdp.reward.ravel(), stocks.ravel()]))
    if k is None or mesh is None:
        return Units.floats(mdp, stocks)
    return Units(float(mesh), float(k), True)


class _OutcomeSampler:
    """Draws an outcome for each of many pairs by bisection in the cumulative probabilities of its pair."""

    def __init__(self, mdp: MDP, rng: np.random.Generator) -> None:
        self.rng = rng
        self.first = mdp.outcome_ptr[:-1]
        self.last = mdp.outcome_ptr[1:] - 1
        counts = np.diff(mdp.outcome_ptr)
        total = np.cumsum(mdp.prob)
        self.cumulative = total - np.repeat(total[self.first] - mdp.prob[self.first], counts)
        self.halvings = int(counts.max(initial=1) - 1).bit_length()

    def __call__(self, pairs: Ints) -> Ints:
        low, high = self.first[pairs], self.last[pairs]
        uniform = self.rng.random(len(pairs))
        for _ in range(self.halvings):
            middle = (low + high) // 2
            above = (uniform >= self.cumulative[middle]) & (middle < high)
            low = np.where(above, middle + 1, low)
            high = np.where(above, high, middle)
        return low


class _Recorder:
    """Keeps the steps of live episodes and lays them out as padded arrays at the end."""

    def __init__(self, states: Ints, stocks: Floats) -> None:
        self.states = states.copy()
        self.stocks = stocks.copy()
        self.bytes_per_step = states.size * 8 + stocks.nbytes * 2
        self.steps: list[tuple[Ints, Ints, Ints, Floats, Floats]] = []

    def add(self, live: Ints, actions: Ints, states: Ints, rewards: Floats, stocks: Floats) -> None:
        self.steps.append((live, actions, states, rewards, stocks))
        if len(self.steps) * self.bytes_per_step > PATHS_LIMIT:
            raise MemoryLimitError(
                f"recording {len(self.states)} episodes of more than {len(self.steps)} steps takes more than "
                f"{PATHS_LIMIT / 2**30:g} GiB; record fewer episodes, or set a horizon"
            )

    def paths(self) -> Paths:
        episodes, length = len(self.states), len(self.steps)
        tail = self.stocks.shape[1:]
        paths = Paths(
            states=np.full((episodes, length + 1), -1, dtype=np.int32),
            actions=np.full((episodes, length), -1, dtype=np.int32),
            rewards=np.zeros((episodes, length, *tail)),
            stocks=np.full((episodes, length + 1, *tail), np.nan),
        )
        paths.states[:, 0] = self.states
        paths.stocks[:, 0] = self.stocks
        for t, (live, actions, states, rewards, stocks) in enumerate(self.steps):
            paths.actions[live, t] = actions
            paths.states[live, t + 1] = states
            paths.rewards[live, t] = rewards
            paths.stocks[live, t + 1] = stocks
        return paths
