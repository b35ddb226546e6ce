"""Losses between learned and target laws, as pure functions of tensors.

*Quantile-Huber loss.* For quantiles q_1..q_N at levels tau_1..tau_N and targets t_1..t_M,

    L = sum over i of  1/M  sum over j of  |tau_i - 1{u < 0}| * H(u) / kappa,       u = t_j - q_i,

where Huber's function H is ``u**2 / 2`` up to ``|u| = kappa`` and ``kappa * (|u| - kappa / 2)`` beyond. Divided by
kappa, it keeps the slope 1 far away, and as kappa goes to 0 the loss becomes the quantile loss
``|tau_i - 1{u < 0}| * |u|``, which is what ``kappa=0`` means. That loss is least when q_i is a tau_i-quantile of the
targets; Huber's function rounds off the kink and moves the minimum: for a large kappa it is the tau_i-expectile. The
unit of the loss is that of the returns.

As written, the loss takes N times M terms (`quantile_huber_reference`). `quantile_huber` has the same value and
gradient in O((N + M) log M) from sorted targets and their prefix sums, or on a graphics card from one fused kernel.

*Energy distance* (`energy_distance`), between laws of vectors, where quantiles do not exist.

Targets are constants in both: gradients flow to the first argument only, as in temporal-difference learning.
"""

from __future__ import annotations

import importlib.util
import math
from numbers import Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rdolib.deep import _numba
from rdolib.errors import InvalidArgumentError

__all__ = ["energy_distance", "quantile_huber", "quantile_huber_reference"]

Tensor = torch.Tensor

_HAS_TRITON = importlib.util.find_spec("triton") is not None


def quantile_huber(quantiles: Tensor, targets: Tensor, taus: Tensor, kappa: float = 1.0) -> Tensor:
    """Quantile-Huber loss of every row, exact, with its gradient, in O((N + M) log M).

    The sum over the N quantiles of the mean over the M targets of ``|tau - 1{u < 0}| * H(u) / kappa``, with
    ``u = target - quantile`` and Huber's function H, see the module. Mind the division by kappa: the slope far away is
    tau or 1 - tau for every kappa. Computed in float64, whatever the type of the tensors.

    Parameters
    ----------
    quantiles : Tensor (B, N)
        Learned quantiles in any order, float16 to float64. The gradient flows here and nowhere else.
    targets : Tensor (B, M)
        Equally likely atoms of the target law, in any order. Constants: no gradient flows to them.
    taus : Tensor (N,)
        Levels of the quantiles, each greater than 0 and less than 1. Constants too.
    kappa : float
        Half the width of the rounded part, in the unit of the returns. 0: the quantile loss, whose slope at a target
        equal to the quantile is counted as 0.

    Returns
    -------
    Tensor (B,)
        One loss for each row, of the type of `quantiles`.

    Raises
    ------
    InvalidArgumentError
        If shapes, types or devices do not fit, or `kappa` is negative. On a processor also if a number is not finite or
        a level lies outside (0, 1). On a graphics card a look at the values would wait for the card: there NaN and
        levels outside (0, 1) give NaN.

    Notes
    -----
    On a processor rows are shared between threads. On a graphics card a kernel of triton does the O(N M) arithmetic
    without writing it to memory; without triton `quantile_huber_reference` is used. `torch.compile` takes the function
    as one operation. There are no second derivatives.

    The loss is that of Dabney, Rowland, Bellemare and Munos, "Distributional reinforcement learning with quantile
    regression" (2018), where the division by kappa is left out; at kappa = 1 they agree.

    Examples
    --------
    The median 0 of the targets -1, 0, 3 at kappa = 0, and the same with the corner rounded off:

    >>> import torch
    >>> median = torch.zeros(1, 1, requires_grad=True)
    >>> targets, taus = torch.tensor([[-1.0, 0.0, 3.0]]), torch.tensor([0.5])
    >>> loss = quantile_huber(median, targets, taus, kappa=0)  # (1 + 0 + 3) / 2 / 3
    >>> round(loss.item(), 6)
    0.666667
    >>> loss.sum().backward()
    >>> median.grad.item()
    0.0
    >>> round(quantile_huber(median, targets, taus, kappa=1).item(), 6)  # (0.5 + 0 + 2.5) / 2 / 3
    0.5
    """
    kappa = _check_quantiles(quantiles, targets, taus, kappa)
    if quantiles.is_cpu or (quantiles.is_cuda and _HAS_TRITON):
        loss: Tensor = _loss_and_slope(quantiles, targets.detach(), taus.detach(), kappa)[0]
        return loss
    return quantile_huber_reference(quantiles, targets, taus, kappa)


def quantile_huber_reference(quantiles: Tensor, targets: Tensor, taus: Tensor, kappa: float = 1.0) -> Tensor:
    """The same loss as its definition reads, all N times M terms, with torch's own gradient.

    For checks, and for devices on which `quantile_huber` has no kernel. Arguments and result are those of
    `quantile_huber`; sums are taken in the type of `quantiles`, and values are not checked.

    Examples
    --------
    >>> import torch
    >>> quantiles, targets = torch.tensor([[0.0, 2.0]]), torch.tensor([[-1.0, 0.0, 3.0]])
    >>> round(quantile_huber_reference(quantiles, targets, torch.tensor([0.25, 0.75])).item(), 6)
    0.791667
    """
    kappa = _check_quantiles(quantiles, targets, taus, kappa)
    u = targets.detach().to(quantiles.dtype)[:, None, :] - quantiles[:, :, None]
    tau = taus.detach().to(quantiles.dtype)[:, None]
    weight = torch.where(u < 0, 1 - tau, tau)
    if kappa == 0:
        return (weight * u.abs()).mean(2).sum(1)
    slope = (u / kappa).clamp(-1, 1)  # of H / kappa, which is slope * (u - kappa * slope / 2), near and far
    return (weight * slope * (u - (0.5 * kappa) * slope)).mean(2).sum(1)


def energy_distance(particles: Tensor, targets: Tensor) -> Tensor:
    """Energy distance between two laws of vectors in every row: ``2 E|X - Y| - E|X - X'| - E|Y - Y'|``.

    X, X' are drawn from the `particles` and Y, Y' from the `targets`, independent and equally likely, and ``|.|`` is
    the Euclidean norm. At least zero, and zero only where both laws are equal. For m = 1 it is twice the integral of
    the squared difference of the distribution functions, that is twice ``rdolib.cramer(...)**2``. All pairs are taken:
    O((N + M)**2 m). Its unit is the unit of the returns.

    Parameters
    ----------
    particles : Tensor (B, N, m)
        Learned particles, float32 or float64. The gradient flows here and nowhere else; two particles at the same
        point do not push each other.
    targets : Tensor (B, M, m)
        Equally likely atoms of the target law. Constants: no gradient flows to them.

    Returns
    -------
    Tensor (B,)

    Raises
    ------
    InvalidArgumentError
        If shapes, types or devices do not fit. On a processor, outside of `torch.compile`, also if a number is not
        finite; elsewhere that gives NaN.

    Notes
    -----
    Székely and Rizzo, "Energy statistics: a class of statistics based on distances" (2013).

    Examples
    --------
    One particle at (0, 0), and targets at (3, 4) and (-3, -4): 2 * 5 - 0 - 10 / 2.

    >>> import torch
    >>> energy_distance(torch.zeros(1, 1, 2), torch.tensor([[[3.0, 4.0], [-3.0, -4.0]]]))
    tensor([5.])
    """
    _check_tensors(particles=particles, targets=targets)
    _check_batch("particles", particles, "targets", targets, ndim=3)
    if particles.shape[2] != targets.shape[2]:
        raise InvalidArgumentError(
            f"particles have {particles.shape[2]} components and targets {targets.shape[2]}; they must have as many"
        )
    if particles.is_cpu and not torch.compiler.is_compiling():
        _check_finite(particles=particles, targets=targets)
    fixed = targets.detach().to(particles.dtype)
    return 2 * _mean_gap(particles, fixed) - _mean_gap(particles, particles) - _mean_gap(fixed, fixed)


def _mean_gap(x: Tensor, y: Tensor) -> Tensor:
    """Mean Euclidean distance (B,) over all pairs; from differences, since expanded squares would lose an offset."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").mean((1, 2))


# --- one operation with a kernel for each kind of device ---------------------------------------------------------
# An operation, rather than a function that records its own gradient, is what torch.compile and CUDA graphs can take
# as a whole. It returns the slope beside the loss, from the same pass; the slope is not differentiable.


@torch.library.custom_op("rdolib::quantile_huber", mutates_args=(), device_types="cpu")
def _loss_and_slope(quantiles: Tensor, targets: Tensor, taus: Tensor, kappa: float) -> tuple[Tensor, Tensor]:
    """Loss (B,) and its slope (B, N) with respect to the quantiles."""
    q, t, levels = (x.to(torch.float64).contiguous().numpy() for x in (quantiles, targets, taus))
    _check_levels(levels)
    loss, slope = _numba.loss_and_slope(q, t, levels, kappa)
    if not np.isfinite(loss).all():  # the sums carry on whatever is not finite
        _check_finite(quantiles=quantiles, targets=targets)
    return torch.from_numpy(loss).to(quantiles.dtype), torch.from_numpy(slope).to(quantiles.dtype)


@_loss_and_slope.register_kernel("cuda")
def _(quantiles: Tensor, targets: Tensor, taus: Tensor, kappa: float) -> tuple[Tensor, Tensor]:
    from rdolib.deep import _triton  # only where there is a card

    dtype = quantiles.dtype if quantiles.dtype == torch.float64 else torch.float32
    loss, slope = _triton.loss_and_slope(quantiles.to(dtype), targets.to(dtype), taus.to(dtype), kappa)
    return loss.to(quantiles.dtype), slope.to(quantiles.dtype)


@_loss_and_slope.register_fake
def _(quantiles: Tensor, targets: Tensor, taus: Tensor, kappa: float) -> tuple[Tensor, Tensor]:
    return quantiles.new_empty(quantiles.shape[:1]), quantiles.new_empty(quantiles.shape)


def _keep_slope(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(output[1])
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, by_loss: Tensor | None, by_slope: Tensor | None) -> tuple[Tensor | None, None, None, None]:
    (slope,) = ctx.saved_tensors
    return None if by_loss is None else by_loss[:, None] * slope, None, None, None


_loss_and_slope.register_autograd(_backward, setup_context=_keep_slope)


# --- checks -------------------------------------------------------------------------------------------------------


def _check_quantiles(quantiles: Tensor, targets: Tensor, taus: Tensor, kappa: float) -> float:
    """Types, devices and shapes of the arguments; kappa as a float."""
    _check_tensors(quantiles=quantiles, targets=targets, taus=taus)
    _check_batch("quantiles", quantiles, "targets", targets, ndim=2)
    if taus.shape != quantiles.shape[1:]:
        raise InvalidArgumentError(
            f"taus have shape {tuple(taus.shape)}; quantiles (B, N) = {tuple(quantiles.shape)} need one level for each "
            f"quantile: ({quantiles.shape[1]},)"
        )
    if not isinstance(kappa, Real) or isinstance(kappa, bool) or not 0 <= kappa < math.inf:
        raise InvalidArgumentError(
            f"kappa is {kappa!r}; it must be a finite number of at least 0, in the unit of the returns "
            "(0 is the quantile loss)"
        )
    return float(kappa)


def _check_tensors(**tensors: Tensor) -> None:
    """Floating-point tensors on one device."""
    devices = {}
    for name, x in tensors.items():
        if not isinstance(x, Tensor):
            raise InvalidArgumentError(f"{name} is {type(x).__name__}; it must be a tensor: torch.as_tensor({name})")
        if not x.is_floating_point():
            raise InvalidArgumentError(f"{name} has dtype {x.dtype}; it must be floating-point: {name}.float()")
        devices[name] = x.device
    if len(set(devices.values())) > 1:
        places = ", ".join(f"{name} on {device}" for name, device in devices.items())
        raise InvalidArgumentError(f"all tensors must be on one device, got {places}")


def _check_batch(name: str, x: Tensor, other: str, y: Tensor, ndim: int) -> None:
    """Two batches of laws: as many rows, at least one atom each."""
    for label, tensor, shape in ((name, x, "(B, N, m)"), (other, y, "(B, M, m)")):
        if tensor.ndim != ndim or 0 in tensor.shape[1:]:
            expected = shape if ndim == 3 else shape.replace(", m", "")
            raise InvalidArgumentError(
                f"{label} has shape {tuple(tensor.shape)}; it must be {expected}, one law in a row, "
                "with at least one atom"
            )
    if len(x) != len(y):
        raise InvalidArgumentError(f"{name} has {len(x)} rows and {other} {len(y)}; they must have as many rows")


def _check_finite(**tensors: Tensor) -> None:
    for name, x in tensors.items():
        bad = ~torch.isfinite(x.detach())
        if bad.any():
            place = tuple(bad.nonzero()[0].tolist())
            raise InvalidArgumentError(
                f"{name}{list(place)} is {x[place].item()}; every number must be finite: look for a reward that is "
                "not, or for a learning rate under which the network diverged"
            )


def _check_levels(taus: NDArray[np.float64]) -> None:
    bad = ~((taus > 0) & (taus < 1))  # also true for nan
    if bad.any():
        place = int(bad.argmax())
        raise InvalidArgumentError(
            f"taus[{place}] is {taus[place]}; every level must be greater than 0 and less than 1, "
            "for instance (torch.arange(N) + 0.5) / N"
        )
