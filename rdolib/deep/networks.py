"""The network: quantiles of the return of every action, given the observation and the stock.

*The stock as an input.* A stock is a number without natural scale, and an agent may meet stocks that it never saw. It
enters as bounded features at several scales, ``tanh((z - center) / width)`` with ``z`` the stock in units of its range,
and one linear feature that is cut off outside. Far away all of them are constant: that is right for utilities that
saturate (there the stock does not matter to the best action), and harmless for others.

*The return as an output.* Outputs are multiplied by the size of returns, so that the last layer works with numbers
around one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rdolib.errors import InvalidArgumentError

#: Numbers of centers at the scales of the stock's features; the width of a feature is the distance of centers.
SCALES = (1, 4, 16, 64)
#: Where the linear feature is cut off, in units of half the range; farther stocks are all alike to the network.
FAR = 1.5
#: Layers of the encoder of images: (channels, kernel, stride).
_CONVOLUTIONS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))


class StockFeatures(nn.Module):
    """From stocks (B, m), float64, to features (B, m * n), float32.

    Parameters
    ----------
    low, high : (m,) tensors
        The range in which features are spread out.
    """

    low: Tensor
    high: Tensor
    centers: Tensor
    widths: Tensor

    def __init__(self, low: Tensor, high: Tensor) -> None:
        super().__init__()
        spread = [(2.0 * torch.arange(n, dtype=torch.float64) + 1.0) / n - 1.0 for n in SCALES]
        self.register_buffer("low", low.double())
        self.register_buffer("high", high.double())
        self.register_buffer("centers", torch.cat(spread))
        self.register_buffer("widths", torch.cat([torch.full_like(c, 2.0 / len(c)) for c in spread]))

    @property
    def count(self) -> int:
        """Number of features."""
        return len(self.low) * (sum(SCALES) + 1)

    def box(self, far: float) -> tuple[Tensor, Tensor]:
        """The range (m,) to (m,), made ``far`` times as wide around its middle."""
        middle, half = 0.5 * (self.low + self.high), 0.5 * (self.high - self.low)
        return middle - far * half, middle + far * half

    def forward(self, stock: Tensor) -> Tensor:
        """Features of stocks."""
        z = (2.0 * (stock - self.low) / (self.high - self.low) - 1.0).unsqueeze(-1)
        bounded = torch.tanh((z - self.centers) / self.widths)
        return torch.cat([bounded, z.clamp(-FAR, FAR)], dim=-1).flatten(1).float()


class QuantileNetwork(nn.Module):
    """From observations (B, ...) and stocks (B, m) to quantiles (B, A, N, m) of the return, without the stock.

    Parameters
    ----------
    count : int
        Number of values of an observation that is an index; 0 for vectors and images.
    shape : tuple of int
        Of one observation: () for an index, (d,) for vectors, (channels, height, width) for images of bytes.
    n_actions, n_quantiles : int
    hidden : sequence of int
    low, high : (m,) tensors
        Range of stocks.
    size : (m,) tensor
        Size of returns.
    device : str
        Of the weights; on "meta" they have shapes only, until `initialize` draws them or a file's are assigned.
    """

    size: Tensor

    def __init__(
        self,
        count: int,
        shape: tuple[int, ...],
        n_actions: int,
        n_quantiles: int,
        hidden: Sequence[int],
        low: Tensor,
        high: Tensor,
        size: Tensor,
        device: str = "cpu",
    ) -> None:
        super().__init__()
        self.outputs = (n_actions, n_quantiles, len(low))
        self.features = StockFeatures(low, high)
        self.register_buffer("size", size.float())
        self.encoder = _encoder(count, shape, hidden[0], device)
        self.stock = nn.Linear(self.features.count, hidden[0], bias=False, device=device)
        layers: list[nn.Module] = []
        for width, following in itertools.pairwise(hidden):
            layers += [nn.Linear(width, following, device=device), nn.ReLU()]
        last = nn.Linear(hidden[-1], math.prod(self.outputs), device=device)
        self.body = nn.Sequential(nn.ReLU(), *layers, last)

    def forward(self, observation: Tensor, stock: Tensor) -> Tensor:
        """Quantiles of every action."""
        both = self.encoder(observation) + self.stock(self.features(stock))
        out: Tensor = self.body(both)
        return out.view(-1, *self.outputs) * self.size


class _Vector(nn.Module):
    """Numbers of any kind, flattened; bytes are divided by 255."""

    def forward(self, x: Tensor) -> Tensor:
        return (x.float() / 255.0 if x.dtype == torch.uint8 else x.float()).flatten(1)


class _Image(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.float() / 255.0


def _encoder(count: int, shape: tuple[int, ...], width: int, device: str) -> nn.Module:
    if count:
        return nn.Embedding(count, width, device=device)  # a linear layer on one-hot vectors
    if len(shape) != 3:
        return nn.Sequential(_Vector(), nn.Linear(math.prod(shape), width, device=device))
    channels, height, breadth = shape
    layers: list[nn.Module] = [_Image()]
    for out, kernel, stride in _CONVOLUTIONS:
        layers += [nn.Conv2d(channels, out, kernel, stride, device=device), nn.ReLU()]
        channels, height, breadth = out, (height - kernel) // stride + 1, (breadth - kernel) // stride + 1
        if height < 1 or breadth < 1:
            raise InvalidArgumentError(f"images of shape {shape} are too small; they must be at least 36 x 36")
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * breadth, width, device=device))


def initialize(network: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights from a generator, on its device, uniformly within one over the root of the number of inputs."""
    device = generator.device
    with torch.no_grad():
        for module in network.modules():
            for name, weight in module.named_parameters(recurse=False):
                setattr(module, name, nn.Parameter(torch.empty_like(weight, device=device)))
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.to(device))
        for module in network.modules():
            if isinstance(module, nn.Embedding):  # a linear layer whose other inputs are zero
                module.weight.uniform_(-1.0, 1.0, generator=generator)
            elif isinstance(module, nn.Linear | nn.Conv2d):
                bound = 1.0 / math.sqrt(module.weight[0].numel())
                module.weight.uniform_(-bound, bound, generator=generator)
                if module.bias is not None:
                    module.bias.uniform_(-bound, bound, generator=generator)
