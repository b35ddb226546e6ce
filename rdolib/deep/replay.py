"""A ring buffer of transitions, allocated once, on the device where it is used.

Stocks are not stored. A step made at time ``t`` of an episode stores what the episode had earned, in the money of time
``t``, and what one unit of initial stock had become:

    stock = scale * start + earned,        scale = gamma**-t.

With this the same step can be learned at the stock it would have had from any other initial stock (stock editing): the
dynamics do not depend on the stock.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from rdolib.errors import InvalidArgumentError


class Transitions(NamedTuple):
    """``n`` transitions. Rewards, starts and earnings have one entry for each reward component.

    ``terminated`` is True where the return is over; a step that was only cut off (truncated) is not, and the return of
    what would have followed counts.
    """

    observation: Tensor  # (n, ...)
    action: Tensor  # (n,) int64
    reward: Tensor  # (n, m) float32
    next_observation: Tensor  # (n, ...)
    terminated: Tensor  # (n,) bool
    start: Tensor  # (n, m) float64: initial stock of the episode
    earned: Tensor  # (n, m) float64
    scale: Tensor  # (n,) float64


class Replay:
    """The last ``capacity`` transitions.

    Parameters
    ----------
    capacity : int
    shape : tuple of int
        Of one observation.
    dtype : torch.dtype
        Of observations.
    reward_dim : int
    device : torch.device or str
    """

    def __init__(
        self, capacity: int, shape: tuple[int, ...], dtype: torch.dtype, reward_dim: int, device: torch.device | str
    ) -> None:
        def room(*size: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(capacity, *size, dtype=dtype, device=device)

        self.capacity = capacity
        self.position = 0
        self.size = 0
        self.data = Transitions(
            observation=room(*shape, dtype=dtype),
            action=room(dtype=torch.int64),
            reward=room(reward_dim, dtype=torch.float32),
            next_observation=room(*shape, dtype=dtype),
            terminated=room(dtype=torch.bool),
            start=room(reward_dim, dtype=torch.float64),
            earned=room(reward_dim, dtype=torch.float64),
            scale=room(dtype=torch.float64),
        )

    def add(self, new: Transitions) -> None:
        """Store transitions; the oldest give way."""
        n = len(new.action)
        if n > self.capacity:
            raise InvalidArgumentError(f"{n} transitions at once do not fit into a replay of {self.capacity}")
        first = min(n, self.capacity - self.position)  # up to the end of the ring; the rest goes to its beginning
        for room, values in zip(self.data, new, strict=True):
            room[self.position : self.position + first] = values[:first]
            room[: n - first] = values[first:]
        self.position = (self.position + n) % self.capacity
        self.size = min(self.size + n, self.capacity)

    def sample(self, n: int, generator: torch.Generator) -> Transitions:
        """``n`` transitions drawn uniformly with replacement."""
        device = self.data.action.device
        rows = torch.randint(self.size, (n,), generator=generator, device=device)
        return Transitions(*(room[rows] for room in self.data))
