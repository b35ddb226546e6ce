"""Environments as many parallel copies that step together on one device.

`TabularEnv` runs an `rdolib.MDP`, the same object that the exact solvers take, so that an agent can be graded against
the optimum. `GymnasiumEnv` runs any vector environment of gymnasium. Both reset a copy as soon as its episode is over,
and keep apart two ways of being over: *terminated*, the return is complete; *truncated*, the episode was only cut off,
and what would have followed still counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from rdolib.errors import InvalidArgumentError
from rdolib.mdp import MDP
from rdolib.stock import return_range


@dataclass(frozen=True)
class Observation:
    """What observations look like.

    Attributes
    ----------
    shape : tuple of int
        Of one observation; () for an index.
    dtype : torch.dtype
    count : int
        Number of values of an index; 0 where observations are vectors or images.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    count: int = 0


class Step(NamedTuple):
    """What one step of ``n`` environments gave."""

    observation: Tensor  # (n, ...): where an episode ended, the first of the next one
    reward: Tensor  # (n, m) float64
    terminated: Tensor  # (n,) bool
    truncated: Tensor  # (n,) bool, never where terminated
    final_observation: Tensor  # (n, ...): the one the step led to


class Env(Protocol):
    """What `train` asks of an environment."""

    num_envs: int
    n_actions: int
    reward_dim: int
    gamma: float
    device: torch.device
    observation: Observation
    #: Whether `state` and `restore` bring back every detail.
    resumable: bool

    def reset(self, seed: int) -> Tensor:
        """Seed everything random, begin new episodes, and return the first observations (n, ...)."""

    def step(self, action: Tensor) -> Step:
        """One step of every environment, with actions (n,) int64."""

    def available(self, observation: Tensor) -> Tensor | None:
        """Which actions can be taken, (n, A) bool; None: all of them."""

    def starts(self) -> tuple[Tensor, Tensor]:
        """First observations (k, ...) and their probabilities (k,)."""

    def state(self) -> dict[str, Tensor]:
        """All that is needed to go on."""

    def restore(self, state: dict[str, Tensor]) -> Tensor:
        """Go on from a state; the current observations."""


class TabularEnv:
    """Parallel episodes of an MDP, in torch, on any device.

    Parameters
    ----------
    mdp : MDP
        With scalar or vector rewards.
    num_envs : int
    max_steps : int
        Where episodes are cut off (truncated).
    observation : {"index", "onehot"}
        States as integers, or as one-hot vectors. The network treats both alike; integers take less memory.
    device : str or torch.device
    generator : torch.Generator, optional
        On the same device; by default a new one. `reset` seeds it.

    Raises
    ------
    InvalidArgumentError
        A device that is not there, an argument out of range, or an initial state that is terminal.

    Examples
    --------
    >>> import rdolib as rdo, torch
    >>> from rdolib.deep import TabularEnv
    >>> mdp = rdo.MDP.from_outcomes({0: {0: [(1.0, 1, 1.0, False)]}, 1: {0: [(1.0, 0, 2.0, True)]}})
    >>> env = TabularEnv(mdp, num_envs=2)
    >>> env.reset(seed=0)
    tensor([0, 0])
    >>> env.step(torch.tensor([0, 0])).observation
    tensor([1, 1])
    >>> step = env.step(torch.tensor([0, 0]))
    >>> step.observation, step.terminated, step.reward[:, 0]
    (tensor([0, 0]), tensor([True, True]), tensor([2., 2.], dtype=torch.float64))
    """

    resumable = True

    def __init__(
        self,
        mdp: MDP,
        num_envs: int = 64,
        max_steps: int = 200,
        observation: str = "index",
        device: str | torch.device = "cpu",
        generator: torch.Generator | None = None,
    ) -> None:
        if not isinstance(mdp, MDP):
            raise InvalidArgumentError(f"the first argument must be an rdo.MDP; got {type(mdp).__name__}")
        for name, value in (("num_envs", num_envs), ("max_steps", max_steps)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidArgumentError(f"{name} must be a positive integer; got {value!r}")
        if observation not in ("index", "onehot"):
            raise InvalidArgumentError(f'observation must be "index" or "onehot"; got {observation!r}')
        self.mdp, self.num_envs, self.max_steps = mdp, num_envs, max_steps
        self.device = require_device(device)
        self.generator = generator or torch.Generator(self.device)
        if self.generator.device.type != self.device.type:
            raise InvalidArgumentError(f"the generator is on {self.generator.device}, the environment on {self.device}")
        self.n_actions, self.reward_dim, self.gamma = mdp.n_actions, mdp.reward_dim, mdp.gamma
        onehot = Observation((mdp.n_states,), torch.float32)
        self.observation = onehot if observation == "onehot" else Observation((), torch.int64, mdp.n_states)
        self._outcomes()
        self._initial()
        self.states = self._begin(num_envs)
        self.elapsed = torch.zeros(num_envs, dtype=torch.int64, device=self.device)

    # ------------------------------------------------------------------ tables

    def _tensor(self, array: Any, dtype: torch.dtype) -> Tensor:
        return torch.tensor(np.ascontiguousarray(array), dtype=dtype, device=self.device)

    def _outcomes(self) -> None:
        """Flat tables of the MDP's outcomes; the pair of each (state, action), -1 where there is none."""
        mdp = self.mdp
        pair = np.full((mdp.n_states, max(mdp.n_actions, 1)), -1)
        pair[mdp.pair_state, mdp.pair_action] = np.arange(mdp.n_pairs)
        self.pair = self._tensor(pair, torch.int64)
        self.has_action = self.pair >= 0
        self.first = self._tensor(mdp.outcome_ptr[:-1], torch.int64)
        self.last = self._tensor(mdp.outcome_ptr[1:] - 1, torch.int64)
        total = np.cumsum(mdp.prob)
        before = (total - mdp.prob)[mdp.outcome_ptr[:-1]]
        counts = np.diff(mdp.outcome_ptr)
        self.cumulative = self._tensor(total - np.repeat(before, counts), torch.float64)
        self.halvings = int(counts.max(initial=1) - 1).bit_length()
        self.next_state = self._tensor(mdp.next_state, torch.int64)
        self.ends = self._tensor(mdp.terminated, torch.bool)
        self.reward = self._tensor(mdp.reward.reshape(-1, mdp.reward_dim), torch.float64)

    def _initial(self) -> None:
        mdp = self.mdp
        weights = np.eye(1, mdp.n_states, mdp.initial)[0] if isinstance(mdp.initial, int) else mdp.initial
        states = np.flatnonzero(weights > 0)
        if mdp.terminal[states].any():
            where = states[mdp.terminal[states]][0]
            raise InvalidArgumentError(
                f"the initial state {where} is terminal, so there is nothing to learn from it; leave it out of initial="
            )
        self.start_state = self._tensor(states, torch.int64)
        self.start_weight = self._tensor(weights[states], torch.float64)
        self.start_cumulative = self.start_weight.cumsum(0)

    # ------------------------------------------------------------------ episodes

    def _uniform(self, n: int) -> Tensor:
        return torch.rand(n, dtype=torch.float64, device=self.device, generator=self.generator)

    def _begin(self, n: int) -> Tensor:
        """``n`` initial states."""
        if len(self.start_state) == 1:
            return self.start_state.expand(n).clone()
        drawn = torch.searchsorted(self.start_cumulative, self._uniform(n), right=True)
        return self.start_state[drawn.clamp(max=len(self.start_state) - 1)]

    def _draw(self, pair: Tensor) -> Tensor:
        """An outcome of each pair, by bisection in its cumulative probabilities."""
        low, high = self.first[pair], self.last[pair]
        uniform = self._uniform(len(pair))
        for _ in range(self.halvings):
            middle = (low + high) // 2
            above = (uniform >= self.cumulative[middle]) & (middle < high)
            low, high = torch.where(above, middle + 1, low), torch.where(above, high, middle)
        return low

    def reset(self, seed: int) -> Tensor:
        """Seed the generator, begin new episodes, and return their observations."""
        self.generator.manual_seed(seed)
        self.states = self._begin(self.num_envs)
        self.elapsed = torch.zeros_like(self.elapsed)
        return self.observe(self.states)

    def step(self, action: Tensor) -> Step:
        """One step of every environment; episodes that are over begin anew."""
        outcome = self._draw(self._pair(action))
        reached, terminated = self.next_state[outcome], self.ends[outcome]
        self.elapsed = self.elapsed + 1
        truncated = ~terminated & (self.elapsed >= self.max_steps)
        over = terminated | truncated
        self.states = torch.where(over, self._begin(self.num_envs), reached)
        self.elapsed = torch.where(over, 0, self.elapsed)
        return Step(
            self.observe(self.states), self.reward[outcome], terminated, truncated, self.observe(reached)
        )  # fmt: skip

    def _pair(self, action: Tensor) -> Tensor:
        """The (state, action) pair of each environment; on a GPU, which would have to wait, nothing is checked."""
        if self.device.type != "cpu":
            return self.pair[self.states, action]
        if action.shape != self.states.shape or action.dtype.is_floating_point:
            raise InvalidArgumentError(
                f"actions must be integers, one for each of the {self.num_envs} environments; got shape "
                f"{tuple(action.shape)} of {action.dtype}"
            )
        pair = self.pair[self.states, action.clamp(0, self.n_actions - 1)]
        bad = (pair < 0) | (action < 0) | (action >= self.n_actions)
        if bad.any():
            self.mdp.pair_index(self.states[bad].numpy(), action[bad].numpy())
        return pair

    def observe(self, states: Tensor) -> Tensor:
        """Observations of states (n,)."""
        if self.observation.count:
            return states
        return torch.nn.functional.one_hot(states, self.mdp.n_states).float()

    def available(self, observation: Tensor) -> Tensor:
        """Which actions the states have; all, where the return is over and none matters."""
        states = observation if self.observation.count else observation.argmax(-1)
        has = self.has_action[states]
        return has | ~has.any(-1, keepdim=True)

    def starts(self) -> tuple[Tensor, Tensor]:
        """The initial states and their probabilities."""
        return self.observe(self.start_state), self.start_weight

    def state(self) -> dict[str, Tensor]:
        """States, steps and the generator."""
        return {"states": self.states, "elapsed": self.elapsed, "generator": self.generator.get_state()}

    def restore(self, state: dict[str, Tensor]) -> Tensor:
        """Go on from `state`."""
        self.states = state["states"].to(self.device)
        self.elapsed = state["elapsed"].to(self.device)
        self.generator.set_state(state["generator"].cpu())
        return self.observe(self.states)

    # ------------------------------------------------------------------ ranges

    def stock_range(self) -> tuple[Tensor, Tensor]:
        """Initial stocks (m,) to (m,) that matter: minus the greatest to minus the least return from the start.

        Where a return has no bound, episodes of the uniformly random policy take its place (the 5 % quantile).
        """
        return self._stock_range(self.start_state.cpu().numpy())

    def stock_span(self) -> tuple[Tensor, Tensor]:
        """The same from all states that are not terminal: stocks that matter later."""
        low, high = self._stock_range(np.flatnonzero(~self.mdp.terminal))
        first_low, first_high = self.stock_range()
        return torch.minimum(low, first_low), torch.maximum(high, first_high)

    def _stock_range(self, states: Any) -> tuple[Tensor, Tensor]:
        greatest, least = (
            np.where(np.isfinite(bound), bound, tail)
            for bound, tail in zip(self._bounds(states), self._random_tails, strict=True)
        )
        return torch.tensor(-greatest.max(0)), torch.tensor(-least.min(0))

    def _bounds(self, states: Any) -> tuple[Any, Any]:
        """Greatest and least return (n, m) from states; infinite where there is none."""
        shape = (self.mdp.n_states, self.reward_dim)
        greatest, least = return_range(self.mdp, 1.0), -return_range(self.mdp, -1.0)
        return greatest.reshape(shape)[states], least.reshape(shape)[states]

    @cached_property
    def _random_tails(self) -> tuple[Any, Any]:
        """The 95 % and the 5 % quantile (m,) of the return of the uniformly random policy."""
        twin = TabularEnv(self.mdp, 1000, self.max_steps)
        observation, total, weight = twin.reset(0), torch.zeros(1000, self.reward_dim, dtype=torch.float64), 1.0
        alive = torch.ones(1000, 1, dtype=torch.float64)
        for _ in range(self.max_steps):
            step = twin.step(random_action(twin.available(observation), twin.n_actions, observation, twin.generator))
            total += weight * alive * step.reward
            alive = alive * ~(step.terminated | step.truncated)[:, None]
            observation, weight = step.observation, weight * self.gamma
            if not alive.any():
                break
        return total.quantile(0.95, dim=0).numpy(), total.quantile(0.05, dim=0).numpy()


def random_action(available: Tensor | None, n_actions: int, observation: Tensor, generator: torch.Generator) -> Tensor:
    """A uniformly random available action (n,) for each observation."""
    score = torch.rand(len(observation), n_actions, device=observation.device, generator=generator)
    return (score if available is None else score.masked_fill(~available, -1.0)).argmax(-1)


def require_device(device: str | torch.device) -> torch.device:
    """The device; `InvalidArgumentError` where there is none of that name."""
    try:
        found = torch.device(device)
        torch.zeros(1, device=found)
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        raise InvalidArgumentError(
            f'the device {device!r} cannot be used here ({str(error).splitlines()[0]}); use device="cpu"'
        ) from None
    return found


class GymnasiumEnv:
    """A vector environment of gymnasium.

    Parameters
    ----------
    env : str or gymnasium.vector.VectorEnv
        An id, or an environment that resets a copy in the step that ends its episode
        (``autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP``). Observations: numbers (Box) or an index
        (Discrete); images of bytes stay bytes, channels first. Actions: Discrete.
    num_envs : int
        Used with an id.
    gamma : float
    device : str or torch.device
        Where tensors are put; the environment itself runs on the CPU.
    **kwargs
        Passed to ``gymnasium.make_vec`` with an id.

    Notes
    -----
    Training resumes with new episodes and an empty replay: the environment's inner state cannot be saved.
    """

    resumable = False

    def __init__(
        self,
        env: Any,
        num_envs: int = 8,
        gamma: float = 0.99,
        device: str | torch.device = "cpu",
        **kwargs: Any,
    ) -> None:
        import gymnasium
        from gymnasium.vector import AutoresetMode

        if not 0 < gamma <= 1:
            raise InvalidArgumentError(f"gamma must be a number in (0, 1]; got {gamma!r}")
        if isinstance(env, str):
            same = {"autoreset_mode": AutoresetMode.SAME_STEP}
            env = gymnasium.make_vec(env, num_envs, vectorization_mode="sync", vector_kwargs=same, **kwargs)
        if env.metadata.get("autoreset_mode") != AutoresetMode.SAME_STEP:
            raise InvalidArgumentError(
                "the vector environment must reset a copy in the step that ends its episode; make it with "
                "autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP"
            )
        actions = env.single_action_space
        if not isinstance(actions, gymnasium.spaces.Discrete) or actions.start != 0:
            raise InvalidArgumentError(f"actions must be Discrete, numbered from 0; got {actions}")
        self.env, self.num_envs, self.gamma = env, int(env.num_envs), float(gamma)
        self.device = require_device(device)
        self.n_actions, self.reward_dim = int(actions.n), 1
        self.observation = _observation(env.single_observation_space)
        self._seed = 0

    def reset(self, seed: int) -> Tensor:
        """Seed all copies and begin new episodes."""
        self._seed = seed
        observation, _ = self.env.reset(seed=seed)
        return self._tensor(observation)

    def step(self, action: Tensor) -> Step:
        """One step of every copy."""
        observation, reward, terminated, truncated, info = self.env.step(action.cpu().numpy())
        if not np.isfinite(reward).all():
            bad = int(np.flatnonzero(~np.isfinite(reward))[0])
            raise InvalidArgumentError(f"environment {bad} paid the reward {reward[bad]}; rewards must be finite")
        final = np.array(observation)
        for copy in np.flatnonzero(terminated | truncated):
            final[copy] = info["final_obs"][copy]
        ended = torch.as_tensor(terminated, device=self.device)
        cut = torch.as_tensor(truncated & ~terminated, device=self.device)
        paid = torch.as_tensor(reward, dtype=torch.float64, device=self.device)[:, None]
        return Step(self._tensor(observation), paid, ended, cut, self._tensor(final))

    def available(self, observation: Tensor) -> None:
        """Every action, always."""
        return

    def starts(self) -> tuple[Tensor, Tensor]:
        """First observations of the copies, equally likely."""
        first = self.reset(self._seed)
        return first, torch.full((len(first),), 1.0 / len(first), dtype=torch.float64, device=self.device)

    def state(self) -> dict[str, Tensor]:
        """Nothing: see Notes."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> Tensor:
        """New episodes, with a seed of their own."""
        return self.reset(self._seed + 1)

    def _tensor(self, observation: Any) -> Tensor:
        return torch.as_tensor(np.array(observation), dtype=self.observation.dtype, device=self.device)


def _observation(space: Any) -> Observation:
    import gymnasium

    if isinstance(space, gymnasium.spaces.Discrete) and space.start == 0:
        return Observation((), torch.int64, int(space.n))
    if isinstance(space, gymnasium.spaces.Box):
        return Observation(space.shape, torch.uint8 if space.dtype == np.uint8 else torch.float32)
    raise InvalidArgumentError(f"observations must be Box, or Discrete numbered from 0; got {space}")
