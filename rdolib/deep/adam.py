"""torch's Adam on all parameters of a network at once.

The parameters are moved into one flat tensor, and their gradients into another, so that a step of the optimizer is a
handful of operations, copying a network is one, and a checkpoint holds three tensors.

Source: Kingma and Ba (2015).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def flatten(network: nn.Module) -> Tensor:
    """Move all parameters of a network into one tensor (n,), which is returned; they become views of it."""
    parameters = list(network.parameters())
    flat = torch.cat([parameter.detach().reshape(-1) for parameter in parameters])
    first = 0
    for parameter in parameters:
        parameter.data = flat[first : first + parameter.numel()].view_as(parameter)
        first += parameter.numel()
    return flat


class Adam:
    """``torch.optim.Adam`` on one flat tensor of parameters.

    Attributes
    ----------
    flat : (n,) Parameter
        Those of the network, and their gradients, are views of it and of its gradient.
    mean, square : (n,) tensors
        Running means of the gradient and of its square.
    """

    def __init__(self, network: nn.Module) -> None:
        self.flat = nn.Parameter(flatten(network))
        self.flat.grad = gradient = torch.zeros_like(self.flat)
        first = 0
        for parameter in network.parameters():
            parameter.grad = gradient[first : first + parameter.numel()].view_as(parameter)
            first += parameter.numel()
        self.mean, self.square = torch.zeros_like(gradient), torch.zeros_like(gradient)
        self._count = torch.tensor(0.0)
        self._adam = torch.optim.Adam([self.flat])
        self._adam.state[self.flat] = {"step": self._count, "exp_avg": self.mean, "exp_avg_sq": self.square}

    def step(self, rate: float, count: int) -> None:
        """Step number ``count``, from 1, at a learning rate; then the gradient is set to zero."""
        self._count.fill_(count - 1)
        self._adam.param_groups[0]["lr"] = rate
        self._adam.step()
        self._adam.zero_grad(set_to_none=False)
