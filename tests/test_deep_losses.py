"""The losses against their definitions in exact fractions, and the kernels against torch's own gradient."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rdolib as rdo
from rdolib import _kernels

torch = pytest.importorskip("torch")

from rdolib.deep import _numba, losses  # noqa: E402
from rdolib.deep.losses import energy_distance, quantile_huber, quantile_huber_reference  # noqa: E402

Tensor = torch.Tensor
Loss = Callable[[Tensor, Tensor, Tensor, float], Tensor]
KAPPAS = (0.0, 1e-8, 1e-3, 0.3, 1.0, 7.0, 1e8)


def value_and_gradient(loss: Loss, q: Tensor, t: Tensor, taus: Tensor, kappa: float) -> tuple[Tensor, Tensor]:
    q = q.detach().clone().requires_grad_()
    value = loss(q, t, taus, kappa)
    (gradient,) = torch.autograd.grad(value.sum(), q)
    return value.detach(), gradient


def scales(q: Tensor, t: Tensor, taus: Tensor, kappa: float) -> Tensor:
    """Mean over the targets of the absolute terms of each slope: what its relative error refers to."""
    u = t.double()[:, None, :] - q.double()[:, :, None]
    weight = torch.where(u < 0, 1 - taus.double()[:, None], taus.double()[:, None])
    return (weight * (u.sign() if kappa == 0 else (u / kappa).clamp(-1, 1)).abs()).mean(2)


def assert_same(
    q: Tensor, t: Tensor, taus: Tensor, kappa: float, tolerance: float, loss: Loss = quantile_huber
) -> None:
    """Compare `loss` in the type of its arguments with the plain form in float64."""
    value, gradient = value_and_gradient(loss, q, t, taus, kappa)
    right = value_and_gradient(quantile_huber_reference, q.double(), t.double(), taus.double(), kappa)
    assert value.dtype == gradient.dtype == q.dtype
    assert value.shape == (len(q),) and gradient.shape == q.shape
    assert ((value - right[0]).abs() <= tolerance * right[0]).all(), (value, right[0])
    assert ((gradient - right[1]).abs() <= tolerance * scales(q, t, taus, kappa)).all(), (gradient, right[1])


def levels(n: int) -> Tensor:
    return (torch.arange(n, dtype=torch.float64) + 0.5) / n


# --- against the definition ---------------------------------------------------------------------------------------


def exact(q: list[float], t: list[float], taus: list[float], kappa: float) -> tuple[Fraction, list[Fraction]]:
    """Loss and slopes of one row in fractions, as the definition reads."""
    k, total, slopes = Fraction(kappa), Fraction(0), []
    for quantile, level in zip(map(Fraction, q), map(Fraction, taus), strict=True):
        slope = Fraction(0)
        for target in map(Fraction, t):
            u = target - quantile
            weight = abs(level - (1 if u < 0 else 0))
            sign = (u > 0) - (u < 0)
            if k == 0:
                total += weight * abs(u)
                slope -= weight * sign
            elif abs(u) <= k:
                total += weight * u * u / 2 / k
                slope -= weight * u / k
            else:
                total += weight * (abs(u) - k / 2)
                slope -= weight * sign
        slopes.append(slope / len(t))
    return total / len(t), slopes


@st.composite
def rows(draw: st.DrawFn) -> tuple[list[float], list[float], list[float], float]:
    """Few distinct values, so that ties are common, close together or far apart, around some offset; a kappa."""
    scale = draw(st.sampled_from((1e-9, 1e-3, 1.0, 1e6)))
    offset = draw(st.sampled_from((0.0, 1.0, -1e4, 1e12)))
    number = st.one_of(st.integers(-3, 3).map(float), st.floats(-10, 10, allow_subnormal=False))
    value = number.map(lambda x: offset + scale * x)
    q, t = (draw(st.lists(value, min_size=1, max_size=9)) for _ in range(2))
    q += draw(st.lists(st.sampled_from(t), max_size=3))
    taus = draw(st.lists(st.floats(0.01, 0.99), min_size=len(q), max_size=len(q)))
    return q, t, taus, draw(st.one_of(st.sampled_from(KAPPAS), st.floats(1e-8, 1e8), st.just(scale)))


@settings(max_examples=300, deadline=None)
@given(rows())
def test_value_and_gradient_are_those_of_the_definition(
    row: tuple[list[float], list[float], list[float], float],
) -> None:
    q, t, taus, kappa = row
    tensors = [torch.tensor(x, dtype=torch.float64) for x in row[:3]]
    value, slopes = exact(q, t, taus, kappa)
    scale = scales(tensors[0][None], tensors[1][None], tensors[2], kappa)[0]
    for loss, tolerance in ((quantile_huber, 1e-9), (quantile_huber_reference, 1e-12)):
        got, gradient = value_and_gradient(loss, tensors[0][None], tensors[1][None], tensors[2], kappa)
        assert abs(got.item() - float(value)) <= tolerance * float(value)
        for x, slope, size in zip(gradient[0].tolist(), slopes, scale.tolist(), strict=True):
            assert abs(x - float(slope)) <= tolerance * size


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.sampled_from(KAPPAS),
    st.sampled_from((torch.float32, torch.float64)),
    st.sampled_from((0.0, 3.0, -1e5)),
    st.sampled_from((1.0, 1e-4, 1e5)),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_every_size_type_and_kappa_equals_the_plain_form(
    n: int, m: int, kappa: float, dtype: torch.dtype, offset: float, scale: float, tied: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    q, t = (torch.randn(3, size, generator=generator, dtype=torch.float64) for size in (n, m))
    if tied:
        q, t = (2 * q).round(), (2 * t).round()
    q, t = (scale * q + offset).to(dtype), (scale * t + offset).to(dtype)
    assert_same(q, t, levels(n).to(dtype), kappa, 1e-6 if dtype == torch.float32 else 1e-9)


def test_a_narrow_kappa_in_wide_targets_keeps_its_digits() -> None:
    """Clusters narrower than kappa, far apart: one prefix sum over the row would lose the near sums altogether."""
    centers = torch.tensor([0.0, 1.0, 1e3, 1e6], dtype=torch.float64)
    t = (centers[:, None] + 1e-9 * torch.arange(-20, 21)).reshape(1, -1)
    q = (centers[:, None] + 1e-9 * torch.tensor([-17.5, -3.25, 0.0, 0.5, 12.0])).reshape(1, -1)
    for kappa in (1e-8, 3e-9, 1e-7):
        assert_same(q, t, levels(q.shape[1]), kappa, 1e-9)


@pytest.mark.parametrize("spacing", [0.5, 1.0, 63.0, 64.0, 65.0, 200.0])
def test_windows_across_cells(spacing: float) -> None:
    """Evenly spread targets cut the row into many cells, whose edges fall at every place of a window."""
    kappa = 1.0
    t = torch.cat([torch.arange(0, 400, dtype=torch.float64) * spacing / 7, torch.zeros(3, dtype=torch.float64)])[None]
    q = torch.linspace(-5, 400 * spacing / 7 + 5, 301, dtype=torch.float64)[None]
    assert_same(q, t, levels(301), kappa, 1e-9)


def test_convention_by_hand() -> None:
    """One quantile at 0: the slope far away is the level, whatever kappa; at kappa = 1 the classic form."""
    tau, q = torch.tensor([0.25], dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    for target, kappa, value, slope in (
        (10.0, 0.0, 2.5, -0.25),
        (10.0, 2.0, 0.25 * 9, -0.25),
        (-10.0, 2.0, 0.75 * 9, 0.75),
        (1.0, 2.0, 0.25 * 0.25, -0.125),
        (-1.0, 2.0, 0.75 * 0.25, 0.375),
        (2.0, 2.0, 0.25, -0.25),
        (0.0, 2.0, 0.0, 0.0),
        (0.0, 0.0, 0.0, 0.0),
    ):
        t = torch.tensor([[target]], dtype=torch.float64)
        for loss in (quantile_huber, quantile_huber_reference):
            got = value_and_gradient(loss, q, t, tau, kappa)
            assert (got[0].item(), got[1].item()) == (value, slope)


def test_sum_over_quantiles_and_mean_over_targets() -> None:
    q, t, taus = torch.zeros(1, 3), torch.tensor([[1.0, 2.0]]), torch.full((3,), 0.5)
    assert quantile_huber(q, t, taus, 0).tolist() == [3 * 0.5 * 1.5]


def test_the_quantile_loss_is_least_at_the_quantiles() -> None:
    t = torch.tensor([[4.0, 1.0, 3.0, 2.0, 0.0]], dtype=torch.float64)
    taus = levels(5)
    best = quantile_huber(t.sort(1).values, t, taus, 0)
    for i in range(5):
        for step in (-0.5, 0.5):
            q = t.sort(1).values
            q[0, i] += step
            assert (quantile_huber(q, t, taus, 0) > best).all()


# --- torch ---------------------------------------------------------------------------------------------------------


def example(b: int = 4, n: int = 5, m: int = 7, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    q, t = (torch.randn(b, size, generator=generator, dtype=dtype) for size in (n, m))
    return q, t, levels(n).to(dtype)


@pytest.mark.parametrize("kappa", [0.0, 0.1, 1.0, 100.0])
def test_gradient_against_finite_differences(kappa: float) -> None:
    q, t, taus = example()
    assert torch.autograd.gradcheck(lambda x: quantile_huber(x, t, taus, kappa), q.requires_grad_())


def test_gradient_flows_to_the_quantiles_only() -> None:
    for loss in (quantile_huber, quantile_huber_reference):
        q, t, taus = (x.requires_grad_() for x in example())
        weights = torch.tensor([1.0, 0.0, -2.0, 3.0], dtype=torch.float64)
        loss(q, t, taus, 1.0).backward(weights)
        assert t.grad is None and taus.grad is None
        assert q.grad is not None
        plain = value_and_gradient(quantile_huber_reference, q, t, taus, 1.0)[1]
        torch.testing.assert_close(q.grad, weights[:, None] * plain)
        assert not loss(q.detach(), t, taus, 1.0).requires_grad
    with pytest.raises(RuntimeError):
        torch.autograd.grad(torch.autograd.grad(quantile_huber(q, t, taus).sum(), q, create_graph=True)[0].sum(), q)


def test_torch_takes_it_as_one_operation() -> None:
    q, t, taus = example()
    torch.library.opcheck(losses._loss_and_slope, (q.requires_grad_(), t, taus, 1.0))
    compiled = torch.compile(lambda *x: 2 * quantile_huber(*x, 0.5), backend="aot_eager", fullgraph=True)
    doubled = value_and_gradient(lambda *x: compiled(*x[:3]), q, t, taus, 0.5)
    once = value_and_gradient(quantile_huber, q, t, taus, 0.5)
    for x, y in zip(doubled, once, strict=True):
        torch.testing.assert_close(x, 2 * y)


def test_strided_halved_and_empty_tensors() -> None:
    q, t, taus = example(6, 6, 6)
    torch.testing.assert_close(quantile_huber(q.T, t.T, taus), quantile_huber(q.T.clone(), t.T.clone(), taus))
    for dtype in (torch.float16, torch.bfloat16):
        half = q.to(dtype), t.to(dtype), taus.to(dtype)
        value = quantile_huber(*half)
        assert value.dtype == dtype
        torch.testing.assert_close(value, quantile_huber_reference(*(x.double() for x in half)).to(dtype))
    assert quantile_huber(q[:0], t[:0], taus).shape == (0,)
    assert quantile_huber(q, t.float(), taus.float()).dtype == torch.float64


def test_other_devices_get_the_plain_form() -> None:
    value = quantile_huber(*(x.to("meta") for x in example()))
    assert value.shape == (4,) and value.device.type == "meta"


def test_rows_do_not_depend_on_threads_or_on_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    q, t, taus = (x.numpy() for x in example(300, 90, 70))
    monkeypatch.setattr(_kernels, "n_threads", lambda: 1)
    alone = _numba.loss_and_slope(q, t, taus, 1.0)
    monkeypatch.undo()
    together = _numba.loss_and_slope(q, t, taus, 1.0)
    few = _numba.loss_and_slope(q[:3], t[:3], taus, 1.0)
    for x, y, z in zip(alone, together, few, strict=True):
        assert np.array_equal(x, y) and np.array_equal(x[:3], z)


def test_long_rows_need_no_square() -> None:
    """Twenty-five thousand million pairs would not fit in memory; some quantiles are checked alone."""
    n, m = 100_000, 250_000
    generator = torch.Generator().manual_seed(0)
    q, t = (torch.randn(1, size, generator=generator, dtype=torch.float64) for size in (n, m))
    taus = levels(n)
    gradient = value_and_gradient(quantile_huber, q, t, taus, 0.5)[1]
    some = torch.arange(0, n, n // 20)
    alone = value_and_gradient(quantile_huber_reference, q[:, some], t, taus[some], 0.5)
    torch.testing.assert_close(gradient[:, some], alone[1], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(quantile_huber(q[:, some], t, taus[some], 0.5), alone[0], rtol=1e-9, atol=0)


def run_apart(code: str, **environment: str) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_kernel_runs_as_plain_python() -> None:
    code = """
from tests.test_deep_losses import assert_same, example
for kappa in (0.0, 0.01, 1.0): assert_same(*example(), kappa, 1e-9)
"""
    run_apart(code, NUMBA_DISABLE_JIT="1")


# --- the graphics card ---------------------------------------------------------------------------------------------

TRITON = """
import torch
from tests.test_deep_losses import KAPPAS, assert_on_card, example, levels
for kappa in KAPPAS:
    for dtype in (torch.float32, torch.float64):
        assert_on_card(*example(2, 17, 37, dtype), kappa, {device!r})
q, t, taus = example(2, 300, 16, torch.float32)
assert_on_card(q.round() + 1000, t.round() + 1000, taus, 0.5, {device!r})
assert_on_card(q.round(), t.round(), taus, 0.0, {device!r})
assert_on_card(*example(1, 1, 1), 1.0, {device!r})
from rdolib.deep import _triton
q, t, taus = (x.to({device!r}) for x in example(3, 4, 20, torch.float32))
t[1, 3] = float("nan")
for kappa in (0.0, 1.0):
    loss, slope = _triton.loss_and_slope(q, t, taus, kappa)
    assert loss.isnan().tolist() == [False, True, False]
    assert slope.isnan().all(1).tolist() == slope.isnan().any(1).tolist() == [False, True, False]
taus[2] = 1.0
assert _triton.loss_and_slope(q, t, taus, 1.0)[0].isnan().all()
"""


def assert_on_card(q: Tensor, t: Tensor, taus: Tensor, kappa: float, device: str) -> None:
    """Compare the kernel of the graphics card, on `device`, with the plain form in float64."""
    from rdolib.deep import _triton

    class OnCard(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, *arguments: Tensor) -> Tensor:
            loss, ctx.slope = (x.cpu() for x in _triton.loss_and_slope(*(x.to(device) for x in arguments), kappa))
            return loss

        @staticmethod
        def backward(ctx: object, by_loss: Tensor) -> tuple[Tensor | None, ...]:
            return by_loss[:, None] * ctx.slope, None, None

    tolerance = 1e-6 if q.dtype == torch.float32 else 1e-12
    assert_same(q, t, taus, kappa, tolerance, lambda *x: OnCard.apply(*x[:3]))


COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from rdolib.deep import _triton
for kind in ("fp32", "fp64"):
    for kappa, inverse in ((0.0, 3e38), (0.3, 1 / 0.3), (1e-8, 1e8)):
        types = dict(q_ptr=f"*{kind}", t_ptr=f"*{kind}", tau_ptr=f"*{kind}", loss_ptr="*fp64", slope_ptr=f"*{kind}")
        constants = dict(M=200, KAPPA=kappa, INVERSE=inverse, BLOCK=_triton.BLOCK, CHUNK=_triton.CHUNK)
        types |= dict(n="i32") | dict.fromkeys(constants, "constexpr")
        source = ASTSource(fn=_triton._kernel, signature=types, constexprs=constants)
        assert "cubin" in compile(source, target=GPUTarget("cuda", 90, 32)).asm
"""

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


@needs_triton
def test_card_kernel_in_the_interpreter() -> None:
    run_apart(TRITON.format(device="cpu"), TRITON_INTERPRET="1")


@needs_triton
def test_card_kernel_compiles_without_a_card() -> None:
    """Some operations that the interpreter knows do not exist on the card for float64."""
    run_apart(COMPILE)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no graphics card")
def test_card() -> None:
    run_apart(TRITON.format(device="cuda"))
    q, t, taus = (x.cuda() for x in example(dtype=torch.float32))
    gradient = value_and_gradient(quantile_huber, q, t, taus, 1.0)[1].cpu()
    plain = value_and_gradient(quantile_huber_reference, q.double(), t.double(), taus.double(), 1.0)[1].cpu()
    torch.testing.assert_close(gradient.double(), plain, rtol=1e-6, atol=1e-7)


# --- energy distance -----------------------------------------------------------------------------------------------


def test_energy_distance_is_its_definition() -> None:
    generator = torch.Generator().manual_seed(2)
    x, y = (torch.randn(3, size, 2, generator=generator, dtype=torch.float64) for size in (4, 6))
    for row in range(3):
        across, within, between = (
            np.mean([np.hypot(*(a - b)) for a in first for b in second])
            for first, second in ((x[row].numpy(), y[row].numpy()), (x[row].numpy(),) * 2, (y[row].numpy(),) * 2)
        )
        assert energy_distance(x, y)[row].item() == pytest.approx(2 * across - within - between, rel=1e-12)


def test_energy_distance_of_scalars_is_twice_the_squared_cramer_distance() -> None:
    x, y = np.array([0.0, 1.0, 5.0]), np.array([-2.0, 1.0, 1.5, 4.0])
    got = energy_distance(torch.from_numpy(x)[None, :, None], torch.from_numpy(y)[None, :, None]).item()
    laws = rdo.Distribution(x, np.full(3, 1 / 3)), rdo.Distribution(y, np.full(4, 1 / 4))
    assert got == pytest.approx(2 * rdo.cramer(*laws) ** 2, rel=1e-12)


def test_energy_distance_vanishes_between_equal_laws_however_far_away() -> None:
    x = torch.tensor([[[0.0, 1.0], [2.0, 3.0], [4.0, -1.0]]], dtype=torch.float64) + 1e9
    doubled = torch.cat([x.flip(1), x], dim=1).requires_grad_()
    value = energy_distance(doubled, x)
    assert value.item() == pytest.approx(0, abs=1e-14)
    value.sum().backward()  # particles upon each other and upon targets
    assert doubled.grad is not None
    torch.testing.assert_close(doubled.grad, torch.zeros_like(doubled), rtol=0, atol=1e-14)


def test_energy_distance_gradient() -> None:
    generator = torch.Generator().manual_seed(3)
    x, y = (torch.randn(2, size, 3, generator=generator, dtype=torch.float64) for size in (4, 5))
    y.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: energy_distance(z, y), x.requires_grad_())
    energy_distance(x, y).sum().backward()
    assert y.grad is None


# --- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quantiles": torch.zeros(3)}, r"quantiles has shape \(3,\); it must be \(B, N\)"),
        ({"targets": torch.zeros(2, 0)}, r"targets has shape \(2, 0\); it must be \(B, M\).*at least one atom"),
        ({"targets": torch.zeros(4, 3)}, "quantiles has 2 rows and targets 4"),
        ({"taus": torch.full((2,), 0.5)}, r"taus have shape \(2,\).*\(3,\)"),
        ({"taus": torch.full((1, 3), 0.5)}, r"taus have shape \(1, 3\)"),
        ({"taus": torch.tensor([0.5, 1.0, 0.5])}, r"taus\[1\] is 1.0; every level must be greater than 0"),
        ({"taus": torch.tensor([0.0, 0.5, 0.5])}, r"taus\[0\] is 0.0"),
        ({"taus": torch.tensor([0.5, 0.5, float("nan")])}, r"taus\[2\] is nan"),
        ({"kappa": -1.0}, "kappa is -1.0; it must be a finite number of at least 0"),
        ({"kappa": float("nan")}, "kappa is nan"),
        ({"kappa": float("inf")}, "kappa is inf"),
        ({"kappa": True}, "kappa is True"),
        ({"kappa": "1"}, "kappa is '1'"),
        ({"quantiles": torch.zeros(2, 3, dtype=torch.int64)}, "quantiles has dtype torch.int64.*floating-point"),
        ({"targets": np.zeros((2, 3))}, "targets is ndarray; it must be a tensor"),
        ({"targets": torch.zeros(2, 3, device="meta")}, "one device.*targets on meta"),
    ],
)
def test_bad_arguments(change: dict[str, object], message: str) -> None:
    arguments = {"quantiles": torch.zeros(2, 3), "targets": torch.ones(2, 5), "taus": levels(3).float(), "kappa": 1.0}
    with pytest.raises(rdo.RdoError, match=message):
        quantile_huber(**{**arguments, **change})


@pytest.mark.parametrize("name", ["quantiles", "targets"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("kappa", [0.0, 1e-8, 1.0, 1e8])
@pytest.mark.parametrize("column", [0, 2])
def test_numbers_that_are_not_finite_are_named(name: str, value: float, kappa: float, column: int) -> None:
    arguments = {"quantiles": torch.zeros(2, 3), "targets": torch.ones(2, 5)}
    arguments[name][1, column] = value
    with pytest.raises(
        rdo.InvalidArgumentError, match=rf"{name}\[1, {column}\] is {value}; every number must be finite"
    ):
        quantile_huber(**arguments, taus=levels(3), kappa=kappa)


@pytest.mark.parametrize(
    ("particles", "targets", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 3, 1), r"particles has shape \(2, 3\); it must be \(B, N, m\)"),
        (torch.zeros(2, 3, 2), torch.zeros(2, 0, 2), r"targets has shape \(2, 0, 2\); it must be \(B, M, m\)"),
        (torch.zeros(2, 3, 2), torch.zeros(2, 3, 1), "particles have 2 components and targets 1"),
        (torch.zeros(1, 3, 2), torch.zeros(2, 3, 2), "particles has 1 rows and targets 2"),
        (torch.zeros(1, 1, 2), torch.tensor([[[0.0, float("nan")]]]), r"targets\[0, 0, 1\] is nan"),
    ],
)
def test_bad_particles(particles: Tensor, targets: Tensor, message: str) -> None:
    with pytest.raises(rdo.InvalidArgumentError, match=message):
        energy_distance(particles, targets)
