"""The quantile-Huber loss and its gradient on a graphics card, in one kernel: no array of N times M is ever written.

A program handles one row and up to `BLOCK` of its quantiles, which stay in registers. It reads the targets one at a
time and adds to each quantile's loss and slope. That is O(N M) arithmetic on numbers read once; sorting would save
arithmetic but spend it on exchanging numbers between threads.

Differences are taken between the numbers as they are, so no offset is lost. Up to `CHUNK` terms are added in the type
of the numbers, and these sums in float64: the error of float32 stays at a few times 1e-7, however many targets.

Needs triton, which comes with torch's builds for graphics cards. With ``TRITON_INTERPRET=1`` in the environment before
triton is imported, the same code runs on a processor, slowly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

try:
    import triton  # type: ignore[import-not-found,unused-ignore]
    import triton.language as tl  # type: ignore[import-not-found,unused-ignore]

    jit: Callable[[Any], Any] = triton.jit
except ImportError:  # tools that look at every module may import this one

    def jit(function: Any) -> Any:
        """Leave the function as it is."""
        return function


BLOCK = 256  # quantiles of one program, at most
CHUNK = 16  # terms added in float32


@jit
def _add(loss, slope, u, tau, KAPPA: tl.constexpr, INVERSE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Add the terms of ``u = target - quantile``; s is the slope of Huber's function divided by kappa."""
    if KAPPA > 0:
        s = tl.minimum(tl.maximum(u * INVERSE, -1.0), 1.0)
    else:
        s = tl.where(u > 0, 1.0, tl.where(u < 0, -1.0, 0.0))
    weighted = tl.where(u < 0, 1 - tau, tau) * s
    return loss + weighted * (u - (0.5 * KAPPA) * s), slope - weighted


@jit
def _kernel(  # type: ignore[no-untyped-def]
    q_ptr, t_ptr, tau_ptr, loss_ptr, slope_ptr, n,
    M: tl.constexpr, KAPPA: tl.constexpr, INVERSE: tl.constexpr, BLOCK: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    row, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    place = block * BLOCK + tl.arange(0, BLOCK)
    inside = place < n
    q = tl.load(q_ptr + row * n + place, mask=inside, other=0.0)
    tau = tl.load(tau_ptr + place, mask=inside, other=0.5)
    tau = tl.where((tau > 0) & (tau < 1), tau, float("nan"))
    loss = tl.zeros([BLOCK], tl.float64)
    slope = tl.zeros([BLOCK], tl.float64)
    t_ptr += row * M
    for start in range(0, M - M % CHUNK, CHUNK):
        part_loss, part_slope = tl.zeros_like(q), tl.zeros_like(q)
        for j in tl.static_range(CHUNK):
            u = tl.load(t_ptr + start + j) - q
            part_loss, part_slope = _add(part_loss, part_slope, u, tau, KAPPA, INVERSE)
        loss += part_loss.to(tl.float64)
        slope += part_slope.to(tl.float64)
    part_loss, part_slope = tl.zeros_like(q), tl.zeros_like(q)
    for j in range(M - M % CHUNK, M):
        part_loss, part_slope = _add(part_loss, part_slope, tl.load(t_ptr + j) - q, tau, KAPPA, INVERSE)
    loss += part_loss.to(tl.float64)
    slope += part_slope.to(tl.float64)
    slope = tl.where(loss == loss, slope, loss)  # NaN where the loss is: least and greatest drop it
    tl.store(slope_ptr + row * n + place, (slope / M).to(q.dtype), mask=inside)
    tl.store(loss_ptr + row * tl.num_programs(1) + block, tl.sum(tl.where(inside, loss, 0.0), 0) / M)


def loss_and_slope(
    quantiles: torch.Tensor, targets: torch.Tensor, taus: torch.Tensor, kappa: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Loss (B,) and its slope (B, N) with respect to the quantiles (B, N), for targets (B, M) and taus (N,).

    All of one type, float32 or float64. Nothing is checked, since a look at the values would wait for the card: what
    is not a number, and a tau outside (0, 1), makes its row of the loss NaN. One kernel is compiled for each pair of
    kappa and M.
    """
    (batch, n), m = quantiles.shape, targets.shape[1]
    slope = quantiles.new_empty(batch, n)
    block = min(BLOCK, max(16, triton.next_power_of_2(n)))
    parts = torch.empty(batch, triton.cdiv(n, block), dtype=torch.float64, device=quantiles.device)
    largest = torch.finfo(quantiles.dtype).max
    inverse = min(1 / kappa, largest) if kappa * largest > 1 else largest
    if batch:
        arrays = quantiles.contiguous(), targets.contiguous(), taus.contiguous(), parts, slope
        # Two quantiles for each thread: their terms do not wait for each other.
        warps = max(1, block // 64)
        _kernel[(batch, parts.shape[1])](*arrays, n, m, kappa, inverse, block, CHUNK, num_warps=warps)
    return parts.sum(1).to(quantiles.dtype), slope
