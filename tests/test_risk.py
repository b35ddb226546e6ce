"""Objectives reached by an outer search: their values, their words, and the reductions they name.

Values are compared with the exact functionals of `tests.naive`, and with the extremum over ``b`` that the reduction
rests on, taken over one law. The reductions themselves are carried out as the objectives' own sentences say, with
`rdo.value_iteration`, and compared with a list of the laws of all policies.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction as F
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import rdolib as rdo
from rdolib import risk
from rdolib.objectives import Objective
from tests import naive, strategies
from tests.naive import Law, Table

quick = settings(max_examples=40, deadline=None, derandomize=True)

LEVEL = st.integers(1, 23).map(lambda k: F(k, 24))
WEIGHT = st.integers(0, 4).map(lambda k: F(k, 4))


@st.composite
def exact_laws(draw: st.DrawFn) -> Law:
    """Laws of up to five atoms in halves, so that sums of probabilities hit the levels exactly."""
    atoms = draw(st.lists(st.integers(-8, 8).map(lambda k: F(k, 2)), min_size=1, max_size=5, unique=True))
    weights = [draw(st.integers(1, 4)) for _ in atoms]
    return naive.law({x: F(w, sum(weights)) for x, w in zip(atoms, weights, strict=True)})


def floats(nu: Law) -> rdo.Distribution:
    return rdo.Distribution([float(x) for x, _ in nu], [float(p) for _, p in nu])


def close(a: Any, b: Any, tol: float = 1e-12) -> bool:
    return bool(abs(float(a) - float(b)) <= tol * max(1.0, abs(float(b))))


def below(b: F) -> naive.Utility:
    return lambda x: min(x - b, F(0))


def above(b: F) -> naive.Utility:
    return lambda x: max(x - b, F(0))


# --------------------------------------------------------------------------------------------------
# values


@quick
@given(exact_laws(), LEVEL, WEIGHT)
def test_values_equal_the_exact_functionals(nu: Law, tau: F, weight: F) -> None:
    pairs: list[tuple[Objective, F]] = [
        (risk.CVaR(float(tau)), naive.cvar(nu, tau)),
        (risk.CVaR(1), naive.mean(nu)),
        (risk.OptimisticCVaR(float(tau)), naive.optimistic_cvar(nu, tau)),
        (risk.MeanCVaR(float(tau), float(weight)), (1 - weight) * naive.mean(nu) + weight * naive.cvar(nu, tau)),
        (risk.Expectile(float(tau)), naive.expectile(nu, tau)),
        (risk.Quantile(float(tau)), naive.lower_quantile(nu, tau)),
        (risk.Quantile(float(tau), side="upper"), naive.upper_quantile(nu, tau)),
        (risk.Median(), naive.lower_quantile(nu, F(1, 2))),
        (risk.Variance(), -naive.var(nu)),
        (risk.MeanVariance(float(weight + 1)), naive.mean(nu) - (weight + 1) * naive.var(nu)),
    ]
    for K, exact in pairs:
        assert close(K(floats(nu)), exact), K


@quick
@given(exact_laws())
def test_sharpe_ratio(nu: Law) -> None:
    value, m = risk.Sharpe()(floats(nu)), naive.mean(nu)
    if len(nu) > 1:
        assert close(value * abs(value), naive.signed_sharpe_square(nu))
    else:
        assert value == (math.inf if m > 0 else -math.inf if m < 0 else 0.0)


@quick
@given(exact_laws(), LEVEL, WEIGHT)
def test_values_equal_the_extremum_over_b(nu: Law, tau: F, weight: F) -> None:
    """The formulas of the module's docstring for a single law, with the kinks as candidates for b."""
    X, atoms = floats(nu), [x for x, _ in nu]
    E: Callable[[naive.Utility], F] = lambda f: F(naive.expect(nu, f))  # noqa: E731
    assert close(risk.CVaR(float(tau))(X), max(b + E(below(b)) / tau for b in atoms))
    assert close(risk.OptimisticCVaR(float(tau))(X), min(b + E(above(b)) / tau for b in atoms))
    two_slope = [
        b + (1 - weight) * E(above(b)) + (1 - weight + weight / tau) * E(below(b)) for b in atoms
    ]  # concave and piecewise linear in b, with kinks at the atoms
    assert close(risk.MeanCVaR(float(tau), float(weight))(X), max(two_slope))
    e = F(risk.Expectile(float(tau))(X))
    assert abs(tau * E(above(e)) + (1 - tau) * E(below(e))) < 1e-12
    m, square, w = naive.mean(nu), E(lambda x: x * x), weight + 1
    for b in (m, m + 1, m - F(1, 3)):  # the best b is the mean
        assert -E(lambda x, b=b: (x - b) ** 2) <= risk.Variance()(X) + 1e-12
        # For mean minus w variance the best b is m + 1/(2w).
        shifted = b + 1 / (2 * w)
        bound = shifted - 1 / (4 * w) - w * E(lambda x, b=shifted: (x - b) ** 2)
        assert bound <= risk.MeanVariance(float(w))(X) + 1e-12
        assert b != m or close(bound, risk.MeanVariance(float(w))(X))
    if m > 0 and len(nu) > 1:  # S**2 / (1 + S**2) = m**2 / E X**2, attained at b = E X**2 / m
        b, S = square / m, risk.Sharpe()(X)
        assert close(1 - E(lambda x: (x - b) ** 2) / b**2, S**2 / (1 + S**2))


# --------------------------------------------------------------------------------------------------
# the reductions, carried out


def all_laws(table: Table, gamma: F) -> list[Law]:
    try:
        return list(naive.laws(table, gamma, 0, len(table), limit=2000))
    except naive.TooManyLawsError:
        assume(False)
        raise


def solved(table: Table, gamma: F, utility: Objective, bs: list[F]) -> Callable[[F], float]:
    """The map b -> max over policies of E f(G - b), from one call of value iteration."""
    mdp = rdo.MDP.from_outcomes(strategies.floats(table), gamma=float(gamma))
    stocks = [-float(b) for b in bs]
    solution = rdo.value_iteration(mdp, utility, stock=stocks, horizon=len(table))
    return lambda b: solution.objective_value(0, -float(b))


problems = given(strategies.tables(layered=True), st.sampled_from(strategies.GAMMAS), strategies.levels())
few = settings(max_examples=25, deadline=None, derandomize=True)


@few
@problems
def test_reduction_of_mean_and_cvar(table: Table, gamma: F, tau: F) -> None:
    every = all_laws(table, gamma)
    bs = naive.possible_returns(table, gamma, 0, len(table))
    for w in (F(1, 4), F(1)):
        V = solved(table, gamma, rdo.TwoSlope(float(1 - w + w / tau), float(1 - w)), bs)
        exact = max((1 - w) * naive.mean(nu) + w * naive.cvar(nu, tau) for nu in every)
        assert close(max(float(b) + V(b) for b in bs), exact, 1e-9)


@few
@problems
def test_reduction_of_optimistic_cvar(table: Table, gamma: F, tau: F) -> None:
    """A convex function of b, piecewise linear, lowest at a kink of one policy or where two policies cross."""
    every = all_laws(table, gamma)
    kinks = sorted({x for nu in every for x, _ in nu})
    bs = set(kinks)
    for low, high in itertools.pairwise(kinks):
        lines = {(naive.chance(nu, high), sum(p * x for x, p in nu if x >= high)) for nu in every}
        for (p, m), (q, n) in itertools.combinations(lines, 2):
            if p != q and low < (m - n) / (p - q) < high:
                bs.add((m - n) / (p - q))
    V = solved(table, gamma, rdo.Surplus(), sorted(bs))
    least = min(float(b) + V(b) / float(tau) for b in bs)
    assert close(least, naive.best_optimistic_cvar(table, gamma, 0, len(table), tau), 1e-9)
    assert least >= float(max(naive.optimistic_cvar(nu, tau) for nu in every)) - 1e-9


@few
@problems
def test_reduction_of_expectiles(table: Table, gamma: F, tau: F) -> None:
    if tau == 1:
        tau = F(1, 6)
    best = max(naive.expectile(nu, tau) for nu in all_laws(table, gamma))
    V = solved(table, gamma, rdo.TwoSlope(float(1 - tau), float(tau)), [best - 1, best, best + 1])
    assert V(best - 1) > 0 > V(best + 1)
    assert abs(V(best)) < 1e-9


@few
@problems
def test_reduction_of_quantiles(table: Table, gamma: F, tau: F) -> None:
    tau = min(tau, F(23, 24))
    every = all_laws(table, gamma)
    bs = naive.possible_returns(table, gamma, 0, len(table))
    V = solved(table, gamma, rdo.Threshold(), bs)
    slack = 1e-9  # probabilities here have small denominators
    lower = max(b for b in bs if V(b) > float(1 - tau) + slack)
    upper = max(b for b in bs if V(b) >= float(1 - tau) - slack)
    assert lower == max(naive.lower_quantile(nu, tau) for nu in every)
    assert upper == max(naive.upper_quantile(nu, tau) for nu in every)


@few
@problems
def test_reduction_of_variance_and_its_relatives(table: Table, gamma: F, tau: F) -> None:
    """The value at the b that each best law asks for is the optimum, and no b gives more."""
    every, w = all_laws(table, gamma), tau
    least = min(every, key=naive.var)
    mixed = max(every, key=lambda nu: naive.mean(nu) - w * naive.var(nu))
    bs = [naive.mean(least), naive.mean(mixed) + 1 / (2 * w)]
    others = [naive.mean(nu) + d for nu in every[:10] for d in (F(0), F(1, 3))]
    V = solved(table, gamma, rdo.Quadratic(), [*bs, *others])
    assert close(V(bs[0]), -naive.var(least), 1e-9)
    assert close(
        float(bs[1]) - float(1 / (4 * w)) + float(w) * V(bs[1]), naive.mean(mixed) - w * naive.var(mixed), 1e-9
    )
    for b in others:
        assert V(b) <= -float(naive.var(least)) + 1e-9
    wanted = [nu for nu in every if naive.mean(nu) > 0]
    if wanted:
        ratio = {nu: naive.mean(nu) ** 2 / F(naive.expect(nu, lambda x: x * x)) for nu in wanted}
        best = max(wanted, key=lambda nu: ratio[nu])  # S**2 / (1 + S**2) grows with S
        b = F(naive.expect(best, lambda x: x * x)) / naive.mean(best)
        V = solved(table, gamma, rdo.Quadratic(), [b, b + 1])
        assert close(1 + V(b) / float(b) ** 2, ratio[best], 1e-9)
        assert 1 + V(b + 1) / float(b + 1) ** 2 <= float(ratio[best]) + 1e-9


# --------------------------------------------------------------------------------------------------
# words

ALL = [
    risk.CVaR(0.25),
    risk.MeanCVaR(0.25, 0.5),
    risk.OptimisticCVaR(0.25),
    risk.Expectile(0.25),
    risk.Quantile(0.25),
    risk.Quantile(0.25, side="upper"),
    risk.Median(),
    risk.Variance(),
    risk.MeanVariance(0.5),
    risk.Sharpe(),
]


@pytest.mark.parametrize("K", ALL, ids=repr)
def test_repr_gives_the_objective_back(K: risk.OuterSearch) -> None:
    again = eval(repr(K), vars(risk).copy())
    assert type(again) is type(K)
    assert again.reduction == K.reduction and again.lipschitz == K.lipschitz


@pytest.mark.parametrize("K", ALL, ids=repr)
def test_optimize_searches_for_all_of_them_as_their_sentences_say(K: risk.OuterSearch) -> None:
    mdp = rdo.MDP.from_outcomes({0: {0: [(1.0, 0, 1.0, True)]}})
    assert K.reduction.startswith("rdo.optimize searches")
    with pytest.raises(rdo.NotOptimizableError, match=r"instead: rdo\.optimize searches"):
        rdo.value_iteration(mdp, K)
    assert rdo.optimize(mdp, K).value == K(rdo.Distribution([1.0], [1.0]))


@pytest.mark.parametrize("K", ALL, ids=repr)
def test_vector_laws_are_refused(K: risk.OuterSearch) -> None:
    with pytest.raises(rdo.InvalidArgumentError, match=r"scalar returns; this law has 2 components"):
        K(rdo.Distribution([[0.0, 1.0], [2.0, 3.0]], [0.5, 0.5]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: risk.CVaR(0), r"level must lie in \(0, 1\]; got 0"),
        (lambda: risk.CVaR("0.5"), r"level must lie in \(0, 1\]"),  # type: ignore[arg-type]
        (lambda: risk.CVaR(True), r"level must lie in \(0, 1\]"),
        (lambda: risk.CVaR(float("nan")), r"level must lie in \(0, 1\]; got nan"),
        (lambda: risk.OptimisticCVaR(1.5), r"level must lie in \(0, 1\]; got 1.5"),
        (lambda: risk.MeanCVaR(0.5, -0.1), r"weight of the CVaR must lie in \[0, 1\]; got -0.1"),
        (lambda: risk.MeanCVaR(2.0, 0.5), r"level must lie in"),
        (lambda: risk.Expectile(1.0), r"level of an expectile must lie strictly between 0 and 1; got 1.0"),
        (lambda: risk.Quantile(0.0), r"level of a quantile must lie strictly between 0 and 1; got 0.0"),
        (lambda: risk.Quantile(0.5, side="middle"), r'"lower" or "upper"; got \'middle\''),  # type: ignore[arg-type]
        (lambda: risk.MeanVariance(0.0), r"weight of the variance must be a positive number; got 0.0 .*rdo.Mean"),
        (lambda: risk.MeanVariance(float("inf")), r"positive number; got inf"),
    ],
)
def test_bad_parameters(make: Callable[[], Objective], message: str) -> None:
    with pytest.raises(rdo.InvalidArgumentError, match=message):
        make()


def test_expectile_constant_is_attained_in_the_limit() -> None:
    """Moving a rare low atom moves the expectile by nearly (1-level)/level times the mass moved."""
    # At 0 with probability p and 1 otherwise the expectile weighs the low atom (1-t)p against t(1-p). Pushing the
    # low atom down by d costs W1 = p d and moves e by (1-t)p d / ((1-t)p + t(1-p)).
    t, p = 0.1, 1e-4
    K = risk.Expectile(t)
    nu, mu = (rdo.Distribution([x, 1.0], [p, 1 - p]) for x in (0.0, -1.0))
    slope = (K(nu) - K(mu)) / rdo.wasserstein(nu, mu)
    assert K.lipschitz is not None
    assert slope == pytest.approx((1 - t) / ((1 - t) * p + t * (1 - p)), rel=1e-9)
    assert 0.999 * K.lipschitz < slope <= K.lipschitz
    assert np.isclose(K.lipschitz, 9.0)
