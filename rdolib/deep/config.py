"""All settings of a training run, and the schedules that follow from them.

A run makes ``steps`` rounds. In each, every environment takes one step and the network is updated ``updates`` times.
Exploration and learning rate are functions of the round alone, so that a run that was stopped goes on as if it had not
been.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from numbers import Real
from typing import Any

from rdolib.errors import InvalidArgumentError

Box = tuple[float, ...]

_COUNTS = (
    "steps", "updates", "warmup", "batch", "capacity", "quantiles", "particles", "target_every", "threads", "log_every",
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """Settings of `train`. The defaults suit small gridworlds: about a minute on two processor cores.

    Attributes
    ----------
    steps : int
        Rounds of the loop; each is one step of every environment.
    updates : int
        Updates of the network per round, once the replay holds `warmup` transitions.
    warmup : int
        Transitions that are collected before the first update.
    batch : int
        Transitions per update.
    capacity : int
        Transitions that the replay holds; the oldest are overwritten.
    quantiles : int
        Quantiles per action, for scalar rewards. An event rarer than one in so many is hardly seen.
    particles : int
        Particles per action, for vector rewards. Their loss takes time proportional to the square.
    hidden : tuple of int
        Widths of the hidden layers.
    learning_rate, final_learning_rate : float
        Of Adam; it falls from one to the other along a half cosine.
    kappa : float
        Where the quantile loss turns from a parabola to a line, in units of the range of returns (the network learns
        returns in that unit); 0 is the pure quantile loss.
    target_every : int
        Updates after which the target network is set to the online network.
    double : bool
        Double estimation: the online network chooses the greedy action of the successor, the target network values it.
    editing : bool
        Stock editing: every replayed transition is learned at a freshly drawn stock. Without it, at the stock that it
        was made with.
    explore_start, explore_end : float
        Probability of a uniformly random action in the first and from the last round of exploration.
    explore_fraction : float
        Part of the rounds in which that probability falls, along a line.
    stock_low, stock_high : None, or tuple of m floats
        Range from which initial stocks are drawn. None: from minus the greatest to minus the least return, where the
        environment knows its MDP.
    threads : int
        Processor threads of torch while `train` runs; with networks this small more than one slow it down.
    compiled : bool
        Run the loss through ``torch.compile``.
    log_every : int
        Rounds between two rows of metrics.

    Examples
    --------
    >>> from rdolib.deep import Config
    >>> Config(steps=100, stock_low=(-3.0,), stock_high=(0.0,)).stock_low
    (-3.0,)
    """

    steps: int = 10_000
    updates: int = 1
    warmup: int = 2000
    batch: int = 128
    capacity: int = 100_000
    quantiles: int = 200
    particles: int = 32
    hidden: tuple[int, ...] = (128, 128)
    learning_rate: float = 2e-3
    final_learning_rate: float = 2e-5
    kappa: float = 0.001
    target_every: int = 50
    double: bool = False
    editing: bool = True
    explore_start: float = 1.0
    explore_end: float = 0.1
    explore_fraction: float = 0.3
    stock_low: Box | None = None
    stock_high: Box | None = None
    threads: int = 1
    compiled: bool = False
    log_every: int = 100

    def __post_init__(self) -> None:
        for name in _COUNTS:
            _require_positive_int(getattr(self, name), name)
        if not self.hidden or not isinstance(self.hidden, tuple):
            raise InvalidArgumentError(
                f"hidden must be a tuple of layer widths, such as (128, 128); got {self.hidden!r}"
            )
        for width in self.hidden:
            _require_positive_int(width, "each width in hidden")
        for name in ("learning_rate", "final_learning_rate", "kappa"):
            _require_number(getattr(self, name), name, 0.0, math.inf)
        for name in ("explore_start", "explore_end", "explore_fraction"):
            _require_number(getattr(self, name), name, 0.0, 1.0)
        for name in ("double", "editing", "compiled"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidArgumentError(f"{name} must be True or False; got {getattr(self, name)!r}")
        self._require_range()
        if max(self.warmup, self.batch) > self.capacity:
            raise InvalidArgumentError(
                f"warmup = {self.warmup} and batch = {self.batch} must fit into the replay; capacity is {self.capacity}"
            )

    def _require_range(self) -> None:
        low, high = self.stock_low, self.stock_high
        if (low is None) != (high is None):
            raise InvalidArgumentError("give both stock_low and stock_high, or neither")
        if low is None or high is None:
            return
        for name, box in (("stock_low", low), ("stock_high", high)):
            if not isinstance(box, tuple) or not box:
                raise InvalidArgumentError(
                    f"{name} must be a tuple of one float for each reward component; got {box!r}"
                )
            for x in box:
                _require_number(x, name, -math.inf, math.inf)
        if len(low) != len(high) or any(a > b for a, b in zip(low, high, strict=False)):
            raise InvalidArgumentError(f"stock_low must not exceed stock_high; got {low} and {high}")

    def exploration(self, step: int) -> float:
        """Probability of a uniformly random action in round ``step``, counted from 0.

        Examples
        --------
        >>> from rdolib.deep import Config
        >>> config = Config(steps=100, explore_start=1.0, explore_end=0.2, explore_fraction=0.5)
        >>> [round(config.exploration(step), 6) for step in (0, 25, 50, 99)]
        [1.0, 0.6, 0.2, 0.2]
        """
        done = min(1.0, step / (self.explore_fraction * self.steps)) if self.explore_fraction > 0 else 1.0
        return self.explore_start + done * (self.explore_end - self.explore_start)

    def rate(self, step: int) -> float:
        """Learning rate of round ``step``: a half cosine from the first to the final one."""
        done = min(1.0, step / self.steps)
        return self.final_learning_rate + 0.5 * (self.learning_rate - self.final_learning_rate) * (
            1.0 + math.cos(math.pi * done)
        )

    def atoms(self, reward_dim: int) -> int:
        """Number of atoms of a learned law."""
        return self.quantiles if reward_dim == 1 else self.particles

    def to_json(self) -> dict[str, Any]:
        """The settings as a dictionary that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Config:
        """The settings of a dictionary; `InvalidArgumentError` for what is no Config."""
        names = {field.name for field in fields(cls)}
        if not isinstance(data, dict) or set(data) != names:
            wrong = sorted(set(data) ^ names) if isinstance(data, dict) else [type(data).__name__]
            raise InvalidArgumentError(f"not the settings of this version; look at {wrong}")
        values: dict[str, Any] = {name: tuple(x) if isinstance(x, list) else x for name, x in data.items()}
        return cls(**values)


def _require_positive_int(value: object, name: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidArgumentError(f"{name} must be a positive integer; got {value!r}")


def _require_number(value: object, name: str, least: float, most: float) -> None:
    good = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if not good or not least <= float(value) <= most:  # type: ignore[arg-type]
        raise InvalidArgumentError(f"{name} must be a finite number from {least:g} to {most:g}; got {value!r}")
