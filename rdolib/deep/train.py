"""Training: collect with stocks, learn at other stocks.

Each round every environment takes a step, greedy for the objective at its own stock or, with the probability of the
exploration schedule, random. Then transitions are drawn from the replay and learned: for a transition ``(s, a, r, s')``
at a stock ``c`` the successor's stock is ``c' = (c + r) / gamma``, the greedy action there is

    a' = argmax_a mean_i f(c' + q_i(s', c', a)),

and the quantiles of ``(s, c, a)`` move towards ``r + gamma q_i(s', c', a')``. This is a sample of distributional value
iteration. A terminated transition has the target ``r``; one that was cut off has not.

*Stock editing.* Rewards and transitions do not depend on the stock. So ``c`` is not the stock that the transition was
made with but the one it would have had from an initial stock drawn afresh, so that stocks follow the reachable range.

Source: Ávila Pires et al. (2025), the agent there called D-eta-N; Mnih et al. (2015) and van Hasselt et al. (2016) for
the parts it shares with other deep Q-learning; Dabney et al. (2018) for the loss.
"""

from __future__ import annotations

import copy
import csv
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rdolib._progress import bar
from rdolib.deep.adam import Adam, flatten
from rdolib.deep.agent import Agent, Spec
from rdolib.deep.checkpoint import CheckpointError, agent_of, agent_tensors, describe, read, require_like, write
from rdolib.deep.config import Config
from rdolib.deep.envs import Env, TabularEnv, random_action
from rdolib.deep.losses import energy_distance, quantile_huber
from rdolib.deep.networks import FAR, QuantileNetwork, initialize
from rdolib.deep.replay import Replay, Transitions
from rdolib.deep.utility import Utility, action_values, greedy, require_learnable, torch_utility
from rdolib.errors import InvalidArgumentError
from rdolib.objectives import ExpectedUtility, Objective

#: Stocks stop growing here, far beyond where they matter and short of overflow.
_LARGEST = 1e100
_ENV_SEED = 1_000_003  # keeps the environment's random numbers apart from the learner's


def successor_stock(stock: Tensor, reward: Tensor, gamma: float) -> Tensor:
    """``(c + r) / gamma``, in float64."""
    return ((stock + reward.double()) / gamma).clamp(-_LARGEST, _LARGEST)


def targets(
    network: QuantileNetwork,
    chooser: QuantileNetwork,
    utility: Utility,
    batch: Transitions,
    stock: Tensor,
    available: Tensor | None,
    gamma: float,
) -> Tensor:
    """What the quantiles of the actions taken should become: (B, N, m).

    Parameters
    ----------
    network : QuantileNetwork
        Gives the values.
    chooser : QuantileNetwork
        Chooses the greedy action of the successor: the same network, or, with double estimation, the online one.
    stock : (B, m) tensor
        Stocks at which the transitions are learned.
    available : None or (B, A) bool tensor
        Actions of the successors.
    """
    following = successor_stock(stock, batch.reward, gamma)
    values = network(batch.next_observation, following)
    judged = values if chooser is network else chooser(batch.next_observation, following)
    action = greedy(action_values(utility, following, judged), available)
    law = values[torch.arange(len(action), device=action.device), action]
    alive = (~batch.terminated)[:, None, None]
    return batch.reward[:, None, :] + gamma * torch.where(alive, law, 0.0)


class Learner:
    """A training run: `run` makes it go on, one round at a time; everything about it can be saved and brought back.

    Attributes
    ----------
    step : int
        Rounds that are done.
    updates : int
        Updates of the network that are done.
    """

    def __init__(self, env: Env, objective: Objective, config: Config, seed: int = 0) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise InvalidArgumentError(f"seed must be an integer of at least 0; got {seed!r}")
        self.objective: ExpectedUtility = require_learnable(objective, env.gamma, env.reward_dim)
        self.env, self.config, self.seed, self.device = env, config, seed, env.device
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.spec = make_spec(env, config)
        self.utility = torch_utility(self.objective, env.reward_dim, self.spec.margin)
        self.low, self.high = (
            torch.tensor(x, dtype=torch.float64, device=self.device) for x in (self.spec.low, self.spec.high)
        )
        self.online = self.spec.network(config)
        self.far_low, self.far_high = (x.to(self.device) for x in self.online.features.box(FAR))
        initialize(self.online, self.generator)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.optimizer, self.target_flat = Adam(self.online), flatten(self.target)
        self.loss = torch.compile(self._loss) if config.compiled else self._loss
        self.taus = (torch.arange(config.quantiles, device=self.device) + 0.5) / config.quantiles
        seen = env.observation
        self.replay = Replay(config.capacity, seen.shape, seen.dtype, env.reward_dim, self.device)
        self.step = self.updates = 0
        self._sums = torch.zeros(5, dtype=torch.float64, device=self.device)
        self.first = env.starts()
        self.observation = env.reset(seed + _ENV_SEED)
        self.start = self._draw(env.num_envs, self.low, self.high)
        self.earned = torch.zeros_like(self.start)
        self.scale = torch.ones(env.num_envs, dtype=torch.float64, device=self.device)

    # ------------------------------------------------------------------ the loop

    def run(self) -> Iterator[int]:
        """Go on to the last round; yields the number of rounds done after each."""
        while self.step < self.config.steps:
            self.collect()
            if self.replay.size >= self.config.warmup:
                for _ in range(self.config.updates):
                    self.update()
            self.step += 1
            yield self.step

    @torch.no_grad()
    def collect(self) -> None:
        """One step of every environment into the replay."""
        env, observation = self.env, self.observation
        stock = self.scale[:, None] * self.start + self.earned
        available = env.available(observation)
        best = greedy(action_values(self.utility, stock, self.online(observation, stock)), available)
        random = random_action(available, env.n_actions, observation, self.generator)
        chance = torch.rand(env.num_envs, device=self.device, generator=self.generator)
        action = torch.where(chance < self.config.exploration(self.step), random, best)
        step = env.step(action)
        self.replay.add(
            Transitions(
                observation,
                action,
                step.reward.float(),
                step.final_observation,
                step.terminated,
                self.start,
                self.earned,
                self.scale,
            )
        )
        self._advance(step.reward, step.terminated | step.truncated)
        self.observation = step.observation

    def _advance(self, reward: Tensor, over: Tensor) -> None:
        """Carry the stocks on by a step; where the episode is over, note its return and begin with a new stock."""
        earned = successor_stock(self.earned, reward, self.env.gamma)
        scale = (self.scale / self.env.gamma).clamp(max=_LARGEST)
        returns = earned / scale[:, None]
        worth = self.utility(self.start + returns)
        ended = over.double()
        self._sums[:3] += torch.stack([ended.sum(), (ended * worth).sum(), (ended * returns[:, 0]).sum()])
        self.start = torch.where(over[:, None], self._draw(len(over), self.low, self.high), self.start)
        self.earned = torch.where(over[:, None], 0.0, earned)
        self.scale = torch.where(over, 1.0, scale)

    def update(self) -> None:
        """One step of the optimizer; the target network follows every `Config.target_every` of them."""
        batch = self.replay.sample(self.config.batch, self.generator)
        stock = self.edited(batch)
        loss = self.loss(batch, stock, self.env.available(batch.next_observation))
        loss.backward()  # type: ignore[no-untyped-call]
        self.updates += 1
        self.optimizer.step(self.config.rate(self.step), self.updates)
        if self.updates % self.config.target_every == 0:
            self.target_flat.copy_(self.optimizer.flat.detach())
        self._sums[3:] += torch.stack([loss.detach().double(), torch.ones_like(loss, dtype=torch.float64)])

    def edited(self, batch: Transitions) -> Tensor:
        """Stocks (B, m) at which a batch is learned: from fresh initial stocks, or without editing from its own.

        A stock so far out that the network could not tell it from a farther one is drawn anew from all nearer ones:
        with a discount most stocks of late steps would be such.
        """
        n = len(batch.action)
        if not self.config.editing:
            return batch.scale[:, None] * batch.start + batch.earned
        stock = batch.scale[:, None] * self._draw(n, self.low, self.high) + batch.earned
        near = ((stock >= self.far_low) & (stock <= self.far_high)).all(-1, keepdim=True)
        return torch.where(near, stock, self._draw(n, self.far_low, self.far_high))

    def _loss(self, batch: Transitions, stock: Tensor, available: Tensor | None) -> Tensor:
        with torch.no_grad():
            chooser = self.online if self.config.double else self.target
            wanted = targets(self.target, chooser, self.utility, batch, stock, available, self.env.gamma)
        every = self.online(batch.observation, stock)
        chosen = every[torch.arange(len(batch.action), device=self.device), batch.action]
        size = self.online.size
        if self.env.reward_dim > 1:
            return energy_distance(chosen / size, wanted / size).mean()
        unit = size[0]
        return quantile_huber(chosen[..., 0] / unit, wanted[..., 0] / unit, self.taus, self.config.kappa).mean()

    def _draw(self, n: int, low: Tensor, high: Tensor) -> Tensor:
        """Stocks (n, m), uniform in a box."""
        uniform = torch.rand(n, len(low), dtype=torch.float64, device=self.device, generator=self.generator)
        return low + uniform * (high - low)

    # ------------------------------------------------------------------ reading

    def agent(self) -> Agent:
        """The agent as it is now; it does not change when training goes on."""
        network = copy.deepcopy(self.online).requires_grad_(False)
        has_action = self.env.has_action if isinstance(self.env, TabularEnv) else None
        return Agent(self.objective, self.config, self.spec, network, self.first, has_action, self.step)

    def metrics(self) -> dict[str, float]:
        """What has happened since the last call."""
        episodes, worth, returns, loss, updates = self._sums.tolist()
        self._sums.zero_()
        return {
            "step": self.step,
            "transitions": self.step * self.env.num_envs,
            "updates": self.updates,
            "exploration": self.config.exploration(self.step),
            "learning_rate": self.config.rate(self.step),
            "loss": loss / updates if updates else float("nan"),
            "episodes": episodes,
            "utility": worth / episodes if episodes else float("nan"),
            "return": returns / episodes if episodes else float("nan"),
        }

    # ------------------------------------------------------------------ keeping

    def tensors(self) -> dict[str, Tensor]:
        """Everything that training needs to go on, beside the agent."""
        state = {"loop.start": self.start, "loop.earned": self.earned, "loop.scale": self.scale}
        state |= {"loop.generator": self.generator.get_state(), "loop.sums": self._sums}
        state |= {"optimizer.mean": self.optimizer.mean, "optimizer.square": self.optimizer.square}
        state |= {"loop.target": self.target_flat}
        if self.env.resumable:
            state |= {f"env.{name}": tensor for name, tensor in self.env.state().items()}
            state |= {f"replay.{name}": tensor for name, tensor in self.replay.data._asdict().items()}
        return state

    def save(self, path: str | Path) -> None:
        """Write the whole run to a file, atomically. `load` reads the agent from it, `restore` the run."""
        agent = self.agent()
        run = {
            "seed": self.seed, "step": self.step, "updates": self.updates, "position": self.replay.position,
            "size": self.replay.size, "resumes": "exactly" if self.env.resumable else "with new episodes and replay",
        }  # fmt: skip
        write(path, agent_tensors(agent) | self.tensors(), describe(agent) | {"run": run})

    def restore(self, path: str | Path) -> None:
        """Go on from a file that `save` wrote, for the same environment, objective, settings and seed."""
        tensors, meta = read(path)
        run = self._run_of(path, meta)
        mine = agent_tensors(self.agent()) | self.tensors()
        require_like(path, tensors, mine)
        agent = agent_of(path, tensors, meta, self.objective, self.device)
        self.online.load_state_dict(agent.network.state_dict())
        self.target_flat.copy_(tensors["loop.target"])
        self.optimizer.mean.copy_(tensors["optimizer.mean"])
        self.optimizer.square.copy_(tensors["optimizer.square"])
        self.step, self.updates = run["step"], run["updates"]
        self._sums.copy_(tensors["loop.sums"])
        self.generator.set_state(tensors["loop.generator"])
        if self.env.resumable:
            self._restore_episodes(tensors, run)
        else:
            self.observation = self.env.restore({})

    def _restore_episodes(self, tensors: dict[str, Tensor], run: dict[str, int]) -> None:
        self.observation = self.env.restore(_under("env.", tensors))
        for name in ("start", "earned", "scale"):
            setattr(self, name, tensors[f"loop.{name}"].to(self.device))
        for name, room in self.replay.data._asdict().items():
            room.copy_(tensors[f"replay.{name}"])
        self.replay.position, self.replay.size = run["position"], run["size"]

    def _run_of(self, path: str | Path, meta: dict[str, Any]) -> dict[str, int]:
        """The counters of a file, if it is a run like this one."""
        mine = describe(self.agent()) | {"trained": meta.get("trained")}
        mine = json.loads(json.dumps(mine))
        run = meta.get("run")
        if not isinstance(run, dict):
            raise CheckpointError(f"{path} holds an agent, not a training run; load() reads it")
        for name, value in (mine | {"seed": self.seed}).items():
            found = run.get("seed") if name == "seed" else meta.get(name)
            if found != value:
                raise CheckpointError(
                    f"{path} comes from a run with another {name}: {found!r:.200}, not {value!r:.200}; give the same, "
                    "or another file"
                )
        limits = {"step": self.config.steps, "updates": 2**62, "position": self.config.capacity - 1,
                  "size": self.config.capacity}  # fmt: skip
        for name, most in limits.items():
            if type(run.get(name)) is not int or not 0 <= run[name] <= most:
                raise CheckpointError(f"{path} is inconsistent: {name} is {run.get(name)!r:.40}; it was not loaded")
        return run


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def make_spec(env: Env, config: Config) -> Spec:
    """What the agent must know about the environment; the declared range of stocks, or the environment's own."""
    m = env.reward_dim
    if config.stock_low is not None and config.stock_high is not None:
        if len(config.stock_low) != m:
            raise InvalidArgumentError(
                f"stock_low and stock_high have {len(config.stock_low)} numbers; rewards have {m} components"
            )
        low, high = config.stock_low, config.stock_high
    elif isinstance(env, TabularEnv):
        low, high = (tuple(x.tolist()) for x in env.stock_range())
    else:
        raise InvalidArgumentError(
            "this environment does not know the range of its returns; declare the range of initial stocks with "
            "Config(stock_low=..., stock_high=...), from minus the greatest to minus the least return you care for"
        )
    span = _span(env, low, high)
    return Spec(env.observation, env.n_actions, m, env.gamma, low, high, *span)


def _span(env: Env, low: tuple[float, ...], high: tuple[float, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Where the stock's features are spread out: the range, and as far as returns from any state matter."""
    if isinstance(env, TabularEnv):
        wide = [tuple(x.tolist()) for x in env.stock_span()]
        return tuple(map(min, low, wide[0])), tuple(map(max, high, wide[1]))
    half = [0.5 * (b - a) for a, b in zip(low, high, strict=True)]
    return (
        tuple(a - h for a, h in zip(low, half, strict=True)),
        tuple(b + h for b, h in zip(high, half, strict=True)),
    )


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """So many processor threads for torch, for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# ---------------------------------------------------------------------- metrics


class Rows:
    """Rows of metrics in a file: CSV, or one JSON object a line for a name that ends in ``.jsonl``.

    When a run resumes, rows after the round it resumes from are taken out.
    """

    def __init__(self, path: str | Path, resumed_at: int) -> None:
        self.path = Path(path)
        if self.path.suffix not in (".csv", ".jsonl"):
            raise InvalidArgumentError(f"metrics go to a file that ends in .csv or .jsonl; got {path}")
        kept = [row for row in self._read() if row["step"] <= resumed_at] if resumed_at else []
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("", "utf8")
        for row in kept:
            self.write(row)

    def write(self, row: dict[str, Any]) -> None:
        """Append a row; it is on the disk when this returns."""
        with open(self.path, "a", encoding="utf8", newline="") as file:
            if self.path.suffix == ".jsonl":
                known = {name: None if value != value else value for name, value in row.items()}
                file.write(json.dumps(known) + "\n")
            else:
                writer = csv.DictWriter(file, list(row), lineterminator="\n")
                if file.tell() == 0:
                    writer.writeheader()
                writer.writerow(row)
            file.flush()
            os.fsync(file.fileno())

    def _read(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        with open(self.path, encoding="utf8", newline="") as file:
            if self.path.suffix == ".jsonl":  # the last line may be half of one
                return [json.loads(line) for line in file if line.endswith("}\n")]
            rows = [row for row in csv.DictReader(file) if None not in row.values()]
            return [row | {"step": int(row["step"])} for row in rows]


def train(
    env: Env,
    objective: Objective,
    config: Config | None = None,
    seed: int = 0,
    metrics: str | Path | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 1000,
    resume: bool = False,
) -> Agent:
    """Train an agent that maximizes ``E f(stock + G)`` at every stock.

    Parameters
    ----------
    env : TabularEnv, GymnasiumEnv, or an object with the methods of `rdolib.deep.envs.Env`
    objective : ExpectedUtility
        One that `rdolib.value_iteration` accepts without a horizon. For CVaR train with ``rdo.Shortfall()`` and choose
        the level afterwards, with `Agent.choose_stock`.
    config : Config, optional
    seed : int
        Same seed, same weights: on one machine, on the CPU, for a `TabularEnv`.
    metrics : str or Path, optional
        A file for rows of metrics, ``.csv`` or ``.jsonl``.
    checkpoint : str or Path, optional
        A file for the whole run, written every `checkpoint_every` rounds and at the end.
    checkpoint_every : int
    resume : bool
        Go on from `checkpoint` where that file exists: exactly as if the run had not been interrupted for a
        `TabularEnv` on the CPU, with new episodes and an empty replay for others.

    Returns
    -------
    Agent

    Raises
    ------
    NotOptimizableError
        An objective that the agent cannot learn; the message says what to use instead.
    InvalidArgumentError, CheckpointError

    Examples
    --------
    >>> import rdolib as rdo
    >>> from rdolib.deep import Config, TabularEnv, train
    >>> mdp = rdo.MDP.from_outcomes({0: {0: [(1.0, 1, 1.0, True)], 1: [(1.0, 1, 3.0, True)]}})
    >>> config = Config(steps=200, warmup=64, batch=64, quantiles=4, hidden=(32,), learning_rate=0.01)
    >>> agent = train(TabularEnv(mdp, num_envs=16), rdo.TargetReturn(), config)
    >>> agent.act(0, stock=-1.0), agent.act(0, stock=-3.0)
    (0, 1)
    """
    if resume and checkpoint is None:
        raise InvalidArgumentError("resume=True needs checkpoint=, the file to go on from")
    learner = Learner(env, objective, config or Config(), seed)
    if checkpoint is not None and resume and Path(checkpoint).exists():
        learner.restore(checkpoint)
    rows = None if metrics is None else Rows(metrics, learner.step)
    settings = learner.config
    with _threads(settings.threads), bar("training", settings.steps) as progress:
        progress.update(learner.step)
        for step in learner.run():
            progress.update()
            if step % settings.log_every == 0 or step == settings.steps:
                row = learner.metrics()
                if rows is not None:
                    rows.write(row)
            if checkpoint is not None and (step % checkpoint_every == 0 or step == settings.steps):
                learner.save(checkpoint)
    return learner.agent()
