"""The quantile-Huber loss, forward and backward, against its O(N²) forms in torch: ``python benchmarks/loss.py``.

Problem: a batch of 128 rows with 200 quantiles and 200 targets each, float32, normal random numbers, kappa = 1. The
peer is the loss as N times M terms, written in three ways: as in implementations of QR-DQN (`textbook`), with torch's
`huber_loss`, one pass (`fused`), and as the library's own reference (`slopes`), each eager and compiled by
`torch.compile`. Value and gradient of all are compared with float64 before anything is timed. Growth with the length of
a row is measured for the library alone.

On a graphics card, where there is one: a batch of 32768 rows, the same peers, every call waited for. The bandwidth that
is reached counts quantiles, targets and gradient once each; the arithmetic counts the instructions of one pair in the
compiled kernel. Both are set against ceilings measured in the same run: a copy, and a float32 matrix product.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from common import hardware, interleave, save

from rdolib.deep.losses import quantile_huber, quantile_huber_reference

ROWS, QUANTILES, KAPPA = 128, 200, 1.0
CARD_ROWS, CARD_INSTRUCTIONS = (
    32768,
    10,
)  # instructions of a pair: counted in the machine code of compute capability 9.0
Tensor = torch.Tensor
Loss = Callable[[Tensor, Tensor, Tensor, float], Tensor]


def textbook(quantiles: Tensor, targets: Tensor, taus: Tensor, kappa: float) -> Tensor:
    u = targets[:, None, :] - quantiles[:, :, None]
    size = u.abs()
    huber = torch.where(size > kappa, kappa * (size - 0.5 * kappa), 0.5 * u**2)
    weight = (taus[None, :, None] - (u.detach() < 0).to(u.dtype)).abs()
    return (weight * huber / kappa).mean(2).sum(1)


def fused(quantiles: Tensor, targets: Tensor, taus: Tensor, kappa: float) -> Tensor:
    shape = *quantiles.shape, targets.shape[1]
    q, t = quantiles[:, :, None].expand(shape), targets[:, None, :].expand(shape)
    huber = torch.nn.functional.huber_loss(q, t, reduction="none", delta=kappa)
    return (torch.where(t < q, 1 - taus[:, None], taus[:, None]) * huber).mean(2).sum(1) / kappa


PEERS: dict[str, Loss] = {"textbook": textbook, "fused": fused, "slopes": quantile_huber_reference}


def problem(rows: int, n: int = QUANTILES, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    quantiles, targets = (torch.randn(rows, n, generator=generator).to(device) for _ in range(2))
    return quantiles.requires_grad_(), targets, ((torch.arange(n) + 0.5) / n).to(device)


def forward_and_backward(loss: Loss, quantiles: Tensor, targets: Tensor, taus: Tensor) -> tuple[Tensor, Tensor]:
    value = loss(quantiles, targets, taus, KAPPA)
    (gradient,) = torch.autograd.grad(value.sum(), quantiles)
    if quantiles.is_cuda:
        torch.cuda.synchronize()
    return value.detach(), gradient


def contenders() -> dict[str, Loss]:
    compiled = {f"{name}, compiled": torch.compile(loss, dynamic=False) for name, loss in PEERS.items()}
    return {"rdolib": quantile_huber, **{f"{name}, eager": loss for name, loss in PEERS.items()}, **compiled}


def compare(losses: dict[str, Loss], arguments: tuple[Tensor, Tensor, Tensor]) -> dict[str, list[float]]:
    """Largest errors of value and gradient, relative to the largest entry, against float64."""
    few = [x[:ROWS].detach() if x.ndim == 2 else x for x in arguments]
    right = forward_and_backward(quantile_huber_reference, *(x.double().requires_grad_(x is few[0]) for x in few))
    errors = {}
    for name, loss in losses.items():
        got = (x[:ROWS] for x in forward_and_backward(loss, *arguments))
        errors[name] = [float((x - y).abs().max() / y.abs().max()) for x, y in zip(got, right, strict=True)]
        assert max(errors[name]) <= 1e-5, (name, errors[name])
    assert max(errors["rdolib"]) <= 1e-6
    return errors


def against_peers(rows: int, device: str, turns: int) -> dict[str, Any]:
    losses, arguments = contenders(), problem(rows, device=device)
    errors = compare(losses, arguments)
    calls = {name: partial(forward_and_backward, loss, *arguments) for name, loss in losses.items()}
    times = interleave(calls, turns, calls=5)
    ratios = {
        figure: {name: t[figure] / times["rdolib"][figure] for name, t in times.items()}
        for figure in ("median", "least")
    }
    return {"rows": rows, "errors": errors, "seconds": times, "speed_ratio": ratios}


def growth(turns: int = 15) -> dict[str, Any]:
    """Time of the library for rows of growing length, and the exponent of a power law through them."""
    sizes = [200, 400, 800, 1600, 3200]
    calls = {str(n): partial(forward_and_backward, quantile_huber, *problem(ROWS, n)) for n in sizes}
    times = interleave(calls, turns)
    slope = np.polyfit(np.log(sizes), np.log([times[str(n)]["median"] for n in sizes]), 1)[0]
    return {"seconds": times, "exponent": float(slope)}


def on_card(turns: int = 12) -> dict[str, Any] | str:
    if not torch.cuda.is_available() or importlib.util.find_spec("triton") is None:
        return "not measured"
    result = against_peers(CARD_ROWS, "cuda", turns)
    seconds = result["seconds"]["rdolib"]["median"]
    x, a = torch.empty(2**28, device="cuda"), torch.randn(8192, 8192, device="cuda")
    torch.backends.cuda.matmul.allow_tf32 = False

    def copy() -> None:
        x.clone()
        torch.cuda.synchronize()

    def product() -> None:
        a @ a
        torch.cuda.synchronize()

    ceilings = interleave({"copy": copy, "product": product}, 10)
    bandwidth = 2 * 4 * x.numel() / ceilings["copy"]["least"]
    arithmetic = len(a) ** 3 / ceilings["product"]["least"]
    pairs = CARD_ROWS * QUANTILES**2
    return result | {
        "card": torch.cuda.get_device_name(),
        "bytes_per_second": bandwidth,
        "multiply_adds_per_second": arithmetic,
        "fraction_of_bandwidth": 3 * 4 * CARD_ROWS * QUANTILES / seconds / bandwidth,
        "fraction_of_arithmetic": CARD_INSTRUCTIONS * pairs / seconds / arithmetic,
    }


def measure(turns: int = 12) -> dict[str, Any]:
    return {
        "hardware": hardware("torch") | {"torch_threads": torch.get_num_threads()},
        "problem": {"quantiles": QUANTILES, "targets": QUANTILES, "kappa": KAPPA, "dtype": "float32"},
        "cpu": against_peers(ROWS, "cpu", turns),
        "growth": growth(),
        "card": on_card(),
    }


def table(result: dict[str, Any]) -> None:
    print(f"{'':22}{'ms':>10}{'least':>10}{'rdolib is':>12}{'by least':>12}{'error of value':>16}{'gradient':>10}")
    for name, times in result["seconds"].items():
        ratios = [result["speed_ratio"][figure][name] for figure in ("median", "least")]
        value, gradient = result["errors"][name]
        print(
            f"{name:22}{1e3 * times['median']:10.3f}{1e3 * times['least']:10.3f}"
            f"{ratios[0]:11.1f}x{ratios[1]:11.1f}x{value:16.1e}{gradient:10.1e}"
        )


def show(result: dict[str, Any]) -> None:
    machine = result["hardware"]
    print(f"{machine['cpu']}, {machine['threads']} threads, load {machine['load_average'][0]:.1f}")
    print(f"batch {ROWS}, {QUANTILES} quantiles and targets, forward and backward:\n")
    table(result["cpu"])
    print(f"\ntime grows as the length of a row to the power {result['growth']['exponent']:.2f}")
    card = result["card"]
    if isinstance(card, str):
        print(f"\non a graphics card: {card}")
        return
    print(f"\n{card['card']}, batch {CARD_ROWS}:\n")
    table(card)
    print(f"fraction of the bandwidth {card['fraction_of_bandwidth']:.2f}, ", end="")
    print(f"of the arithmetic {card['fraction_of_arithmetic']:.2f}")


if __name__ == "__main__":
    started = time.perf_counter()
    outcome = measure()
    show(outcome)
    print(f"\nwrote {save('loss', outcome).name} after {time.perf_counter() - started:.0f} s")
