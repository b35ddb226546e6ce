"""Adam on all parameters of a network at once.

The parameters are moved into one flat tensor, and their gradients into another, so that a step of the optimizer is a
handful of operations and copying a network is one. (``torch.optim`` gives the same numbers, and takes seconds to import
what it needs for compiling.)

Source: Kingma and Ba (2015).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_KEEP_MEAN, _KEEP_SQUARE, _TINY = 0.9, 0.999, 1e-8


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
    """The optimizer of one flat tensor of parameters.

    Attributes
    ----------
    flat, gradient : (n,) tensors
        Parameters and their gradients; those of the network are views of them.
    mean, square : (n,) tensors
        Running means of the gradient and of its square.
    """

    def __init__(self, network: nn.Module) -> None:
        self.flat = flatten(network)
        self.gradient = torch.zeros_like(self.flat)
        self.mean = torch.zeros_like(self.flat)
        self.square = torch.zeros_like(self.flat)
        first = 0
        for parameter in network.parameters():
            parameter.grad = self.gradient[first : first + parameter.numel()].view_as(parameter)
            first += parameter.numel()

    @torch.no_grad()
    def step(self, rate: float, count: int) -> None:
        """Step number ``count``, from 1, at a learning rate; then the gradient is set to zero."""
        self.mean.lerp_(self.gradient, 1.0 - _KEEP_MEAN)
        self.square.mul_(_KEEP_SQUARE).addcmul_(self.gradient, self.gradient, value=1.0 - _KEEP_SQUARE)
        size = (self.square / (1.0 - _KEEP_SQUARE**count)).sqrt_().add_(_TINY)
        self.flat.addcdiv_(self.mean, size, value=-rate / (1.0 - _KEEP_MEAN**count))
        self.gradient.zero_()
