"""A trained agent: one network that acts greedily for its objective at every stock."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from rdolib.deep.config import Config
from rdolib.deep.envs import Observation
from rdolib.deep.networks import QuantileNetwork
from rdolib.deep.outer import best, require_same_utility, utility_of
from rdolib.deep.utility import action_values, greedy, torch_utility
from rdolib.distributions import Distribution
from rdolib.errors import InvalidArgumentError
from rdolib.objectives import ExpectedUtility
from rdolib.risk import OuterSearch

Floats = NDArray[np.float64]

#: Initial stocks that `Agent.choose_stock` compares.
CANDIDATES = 1025
#: The margin of `rdolib.deep.utility.torch_utility`, as a part of the range of stocks.
MARGIN = 0.005
_AT_ONCE = 4096  # augmented states in one pass of the network


@dataclass(frozen=True)
class Spec:
    """What an agent must know about its environment to be used without it.

    Attributes
    ----------
    observation : Observation
    n_actions, reward_dim : int
    gamma : float
    low, high : tuple of m floats
        Range of initial stocks.
    span_low, span_high : tuple of m floats
        Range of stocks in which the network's features are spread out.
    """

    observation: Observation
    n_actions: int
    reward_dim: int
    gamma: float
    low: tuple[float, ...]
    high: tuple[float, ...]
    span_low: tuple[float, ...]
    span_high: tuple[float, ...]

    @property
    def margin(self) -> float:
        """By how much a predicted return may miss a threshold and still count as having reached it."""
        return MARGIN * max(b - a for a, b in zip(self.span_low, self.span_high, strict=True))

    def network(self, config: Config) -> QuantileNetwork:
        """A network of the right shape, its weights still without values (on the device "meta")."""
        low, high = (torch.tensor(x, dtype=torch.float64) for x in (self.span_low, self.span_high))
        span = torch.where(high > low, high - low, 1.0)
        return QuantileNetwork(
            self.observation.count, self.observation.shape, self.n_actions, config.atoms(self.reward_dim),
            config.hidden, low, low + span, 0.5 * span, device="meta",
        )  # fmt: skip


class Agent:
    """Acts greedily for an expected utility ``f`` of ``stock + G``, at every stock. Made by `train` and `load`.

    Attributes
    ----------
    objective : ExpectedUtility
    config : Config
    spec : Spec
    network : QuantileNetwork
    trained : int
        Rounds of training.
    """

    def __init__(
        self,
        objective: ExpectedUtility,
        config: Config,
        spec: Spec,
        network: QuantileNetwork,
        starts: tuple[Tensor, Tensor],
        has_action: Tensor | None,
        trained: int = 0,
    ) -> None:
        self.objective, self.config, self.spec, self.network = objective, config, spec, network
        self.starts, self.has_action, self.trained = starts, has_action, trained
        self._utility = torch_utility(objective, spec.reward_dim, spec.margin)

    def __repr__(self) -> str:
        return f"Agent({self.objective!r}, trained for {self.trained} rounds)"

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.network.size.device

    # ------------------------------------------------------------------ asking

    def act(self, observation: ArrayLike, stock: ArrayLike = 0.0) -> Any:
        """The greedy action at one observation and stock, an int; or (n,) actions at n of them.

        Parameters
        ----------
        observation : one observation, or n of them
            For a `TabularEnv` with ``observation="index"``: the state, or states (n,).
        stock : float or (n,) floats; for vector rewards (m,) or (n, m)
            One stock serves all observations.

        Raises
        ------
        InvalidArgumentError
            Shapes that do not fit, or a stock that is not finite.
        """
        obs, c, single = self._inputs(observation, stock)
        action = self._greedy(obs, c)[1].cpu().numpy()
        return int(action[0]) if single else action

    def quantiles(self, observation: ArrayLike, stock: ArrayLike = 0.0) -> Floats:
        """Equally likely returns ``G`` (without the stock) of every action, as the agent predicts them.

        Returns
        -------
        (A, N) or (n, A, N) array; for vector rewards with one more axis, m
            Sorted for scalar rewards.
        """
        obs, c, single = self._inputs(observation, stock)
        out = torch.cat([part for part, _ in self._passes(obs, c)]).double().cpu().numpy()
        out = np.sort(out[..., 0], axis=-1) if self.spec.reward_dim == 1 else out
        return np.asarray(out[0] if single else out)

    def returns(self, observation: ArrayLike, stock: ArrayLike = 0.0) -> Distribution:
        """The predicted law of the return of the greedy action at one observation and stock."""
        quantiles = self.quantiles(observation, stock)[self.act(observation, stock)]
        return Distribution(quantiles, np.full(len(quantiles), 1.0 / len(quantiles)))

    def actions(self, states: Any, stocks: Any, t: int = 0) -> NDArray[np.int64]:
        """Actions at states (n,) and stocks (n,) or (n, m): with this `rdolib.evaluate` and `rollout` take the agent.

        The step ``t`` does not matter. For agents of a `TabularEnv`.
        """
        states = np.asarray(states)
        if len(states) == 0:
            return np.zeros(0, dtype=np.int64)
        onehot = not self.spec.observation.count
        observation = np.eye(self.spec.observation.shape[0], dtype=np.float32)[states] if onehot else states
        return np.asarray(self.act(observation, stocks), dtype=np.int64)

    def _inputs(self, observation: ArrayLike, stock: ArrayLike) -> tuple[Tensor, Tensor, bool]:
        """Observations (n, ...) and stocks (n, m) as tensors, and whether one was meant."""
        spec, m = self.spec.observation, self.spec.reward_dim
        obs = np.asarray(observation)
        single = obs.ndim == len(spec.shape)
        obs = obs[None] if single else obs
        if obs.shape[1:] != spec.shape or obs.ndim == 0:
            raise InvalidArgumentError(
                f"an observation has shape {spec.shape}, several have one more axis in front; got {obs.shape}"
            )
        if spec.count and (obs.dtype.kind not in "iu" or (obs < 0).any() or (obs >= spec.count).any()):
            raise InvalidArgumentError(f"observations are integers from 0 to {spec.count - 1}; got {observation!r:.60}")
        c = np.asarray(stock, dtype=np.float64)
        c = np.zeros(m) if c.ndim == 0 and m > 1 and c == 0 else c
        c = c[..., None] if m == 1 else c
        if c.shape not in ((m,), (len(obs), m)) or not np.isfinite(c).all():
            one = "a number" if m == 1 else f"{m} numbers"
            raise InvalidArgumentError(
                f"stock must be {one}, finite, or one for each of the {len(obs)} observations; got {stock!r:.60}"
            )
        rows = np.broadcast_to(c, (len(obs), m)).copy()
        single = single and c.ndim == 1
        return (
            torch.as_tensor(obs, dtype=spec.dtype, device=self.device),
            torch.as_tensor(rows, device=self.device),
            single,
        )

    def _passes(self, obs: Tensor, c: Tensor) -> Any:
        """Quantiles and actions, part by part."""
        with torch.no_grad():
            for first in range(0, len(obs), _AT_ONCE):
                some, stock = obs[first : first + _AT_ONCE], c[first : first + _AT_ONCE]
                out = self.network(some, stock)
                yield out, greedy(action_values(self._utility, stock, out), self._available(some))

    def _greedy(self, obs: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Quantiles (n, N, m) of the greedy actions, and the actions (n,)."""
        laws, actions = [], []
        for out, action in self._passes(obs, c):
            laws.append(out[torch.arange(len(out), device=out.device), action])
            actions.append(action)
        return torch.cat(laws), torch.cat(actions)

    def _available(self, obs: Tensor) -> Tensor | None:
        if self.has_action is None:
            return None
        has = self.has_action[obs if self.spec.observation.count else obs.argmax(-1)]
        return has | ~has.any(-1, keepdim=True)

    # ------------------------------------------------------------------ choosing the stock

    def choose_stock(self, objective: OuterSearch, observation: ArrayLike | None = None) -> float:
        """The initial stock that an objective of the law of ``G``, such as CVaR, wants, by the predicted laws.

        This is the outer search of `rdolib.optimize` on what the agent has learned: one training run with the
        objective's utility (`Shortfall` for CVaR) serves every level.

        Parameters
        ----------
        objective : OuterSearch
            Such as ``rdo.CVaR(0.05)``. For `OptimisticCVaR` the stock of one component of the lottery.
        observation : one observation, optional
            By default the initial ones, with their probabilities.

        Raises
        ------
        InvalidArgumentError
            An objective that needs another utility than the agent's.
        """
        require_same_utility(self.objective, objective)
        starts, weights = self.starts
        if observation is not None:
            starts, _, single = self._inputs(observation, 0.0)
            if not single:
                raise InvalidArgumentError("choose_stock takes one observation, or none for the initial ones")
            weights = torch.ones(1, dtype=torch.float64, device=self.device)
        b = torch.linspace(-self.spec.high[0], -self.spec.low[0], CANDIDATES, dtype=torch.float64, device=self.device)
        utility = torch_utility(utility_of(objective), 1, self.spec.margin)
        atoms = torch.cat(
            [self._greedy(start.expand(CANDIDATES, *start.shape), -b[:, None])[0][..., 0] for start in starts], dim=1
        ).double()
        probs = weights.repeat_interleave(self.config.quantiles) / self.config.quantiles
        value = utility((atoms - b[:, None])[..., None]) @ probs
        own = [objective(Distribution(row, probs.cpu().numpy())) for row in atoms.cpu().numpy()]
        return -float(b[best(objective, b.cpu().numpy(), value.cpu().numpy(), np.array(own))]) + 0.0

    # ------------------------------------------------------------------ keeping

    def save(self, path: str | Path) -> None:
        """Write the agent to a file, atomically; `load` reads it."""
        from rdolib.deep.checkpoint import agent_tensors, describe, write

        write(path, agent_tensors(self), describe(self))
