"""Distributions against exact fractions, scipy, a linear program and their own laws."""

import builtins
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from rdolib.distributions import CategoricalGrid, Distribution, Exact, QuantileGrid, cramer, mixture, wasserstein
from rdolib.errors import InvalidArgumentError

# Laws whose atoms and probabilities are small fractions, so that the naive twin below is exact.
ATOM = st.integers(-20, 20).map(lambda k: Fraction(k, 4))
LEVEL = st.integers(1, 24).map(lambda k: Fraction(k, 24))


@st.composite
def fraction_laws(draw, max_size=6):
    """Lists of exact atoms (with repetitions) and exact probabilities (some of them zero)."""
    atoms = draw(st.lists(ATOM, min_size=1, max_size=max_size))
    weights = draw(st.lists(st.integers(0, 6), min_size=len(atoms), max_size=len(atoms)).filter(any))
    return atoms, [Fraction(w, sum(weights)) for w in weights]


@st.composite
def float_laws(draw, max_size=30):
    atoms = draw(st.lists(st.floats(-1e3, 1e3, allow_subnormal=False), min_size=1, max_size=max_size))
    weights = np.array(draw(st.lists(st.floats(0.01, 1), min_size=len(atoms), max_size=len(atoms))))
    return Distribution(atoms, weights / weights.sum())


@st.composite
def vector_laws(draw, max_size=5, dimension=2, bound=4):
    """Small vector laws with integer atoms, some of them equal, and fractional probabilities."""
    atom = st.tuples(*[st.integers(-bound, bound)] * dimension)
    atoms = draw(st.lists(atom, min_size=1, max_size=max_size))
    weights = np.array(draw(st.lists(st.integers(0, 6), min_size=len(atoms), max_size=len(atoms)).filter(any)))
    return Distribution(atoms, weights / weights.sum())


def law(exact):
    atoms, probs = exact
    return Distribution([float(x) for x in atoms], [float(p) for p in probs])


# The naive twin: every quantity from its definition, in fractions, by trying all atoms.


def naive_cdf(exact, x, strict=False):
    return sum(p for a, p in zip(*exact, strict=True) if (a < x if strict else a <= x))


def naive_quantile(exact, q, side):
    support = [a for a, p in zip(*exact, strict=True) if p > 0]
    if side == "lower":
        return min(a for a in support if naive_cdf(exact, a) >= q)
    return max(a for a in support if naive_cdf(exact, a, strict=True) <= q)


def naive_cvar(exact, level):
    """Sort the atoms and take them from the worst until `level` of probability is used up."""
    total, left = Fraction(0), level
    for atom, prob in sorted(zip(*exact, strict=True)):
        used = min(prob, left)
        total, left = total + used * atom, left - used
    return total / level


def naive_cvar_as_maximum(exact, level):
    """Maximum over b of b + E min(X - b, 0) / level; a possible atom attains it."""
    return max(b + sum(p * min(a - b, 0) for a, p in zip(*exact, strict=True)) / level for b in exact[0])


def naive_wasserstein_power(first, second, p):
    """W_p**p by walking along the two sorted lists of atoms."""
    a = [[x, w] for x, w in sorted(zip(*first, strict=True)) if w]
    b = [[x, w] for x, w in sorted(zip(*second, strict=True)) if w]
    pieces = []
    while a and b:
        step = min(a[0][1], b[0][1])
        pieces.append((step, abs(a[0][0] - b[0][0])))
        for rest in (a, b):
            rest[0][1] -= step
            if rest[0][1] == 0:
                rest.pop(0)
    return max(d for _, d in pieces) if p == math.inf else sum(w * d**p for w, d in pieces)


# Construction.


@given(fraction_laws(), st.randoms(use_true_random=False))
def test_canonical_form_does_not_depend_on_the_order(exact, random):
    nu = law(exact)
    pairs = list(zip(*exact, strict=True))
    random.shuffle(pairs)
    mu = law(tuple(zip(*pairs, strict=True)))
    np.testing.assert_array_equal(nu.atoms, mu.atoms)
    np.testing.assert_allclose(nu.probs, mu.probs, rtol=1e-15)
    assert (np.diff(nu.atoms) > 0).all()
    assert (nu.probs > 0).all()
    assert nu.probs.sum() == pytest.approx(1, abs=1e-15)
    assert set(nu.atoms) == {float(a) for a, p in zip(*exact, strict=True) if p}
    for atom, prob in zip(nu.atoms, nu.probs, strict=True):
        assert prob == pytest.approx(float(sum(p for a, p in zip(*exact, strict=True) if a == atom)), rel=1e-14)


def test_close_atoms_are_one_atom():
    nu = Distribution([0.3, 0.1 + 0.2, -5.0], [0.25, 0.25, 0.5])
    np.testing.assert_array_equal(nu.atoms, [-5.0, 0.3])
    assert Distribution([1.0, 1.0 + 1e-11], [0.5, 0.5]).n_atoms == 2
    assert Distribution([1e-20, 2e-20], [0.5, 0.5]).n_atoms == 2  # relative to the atoms, not to one
    assert Distribution([1e-20, 2e-20, 1.0], [0.25, 0.25, 0.5]).n_atoms == 2


def test_a_row_of_close_atoms_does_not_collapse():
    # Neighbors 6e-13 apart are close, those two steps apart are not: pairs are merged, the row is not.
    nu = Distribution(np.append(np.arange(1000) * 6e-13, 1.0), np.full(1001, 1 / 1001))
    assert nu.n_atoms == 501
    assert Distribution(nu.atoms, nu.probs).n_atoms == 501
    assert wasserstein(nu, Distribution(np.append(np.arange(1000) * 6e-13, 2.0), np.full(1001, 1 / 1001))) == (
        pytest.approx(1 / 1001, rel=1e-12)
    )


def test_vector_atoms_are_sorted_and_exact_duplicates_merged():
    nu = Distribution([[1, 0], [0, 2], [1, 0], [0, -1], [9, 9]], [0.25, 0.25, 0.25, 0.25, 0.0])
    np.testing.assert_array_equal(nu.atoms, [[0, -1], [0, 2], [1, 0]])
    np.testing.assert_array_equal(nu.probs, [0.25, 0.25, 0.5])
    assert nu.reward_dim == 2
    assert Distribution([[1], [2]], [0.5, 0.5]).atoms.shape == (2,)


def test_laws_are_frozen_and_own_their_arrays():
    atoms = np.array([0.0, 1.0])
    nu = Distribution(atoms, [0.5, 0.5])
    atoms[0] = 7
    assert nu.atoms[0] == 0
    with pytest.raises(ValueError, match="read-only"):
        nu.atoms[0] = 7
    with pytest.raises(AttributeError):
        nu.probs = None


def test_probabilities_are_renormalized_within_the_tolerance():
    nu = Distribution([0, 1], [0.5, 0.5 + 9e-10])
    assert nu.probs.sum() == pytest.approx(1, abs=1e-15)
    np.testing.assert_array_equal((nu + 1).probs, nu.probs)  # rounding of the sum is not divided out again
    with pytest.raises(InvalidArgumentError, match="sum to 1"):
        Distribution([0, 1], [0.5, 0.5 + 2e-9])


@pytest.mark.parametrize(
    ("atoms", "probs", "message"),
    [
        ([0, 1], [1.0], r"probs must hold one number for each of the 2 atoms.*got shape \(1,\)"),
        ([0, 1], [0.5, 0.48], r"probs sum to 0\.98; they must sum to 1"),
        ([0, 1], [1.5, -0.5], r"nonnegative, got -0\.5 at index 1"),
        ([0, 1], [0.5, np.nan], "finite and nonnegative, got nan at index 1"),
        ([0, np.inf], [0.5, 0.5], "atoms must be finite, got inf at index 1"),
        ([[0, 1], [2, np.nan]], [0.5, 0.5], "atoms must be finite, got nan at index 1, 1"),
        ([], [], r"shape \(N,\) or \(N, m\)"),
        (3.0, [1.0], r"shape \(N,\) or \(N, m\).*got shape \(\)"),
        ([[0, 1], [2]], [0.5, 0.5], "equally long rows"),
        (["a"], [1.0], "real numbers"),
    ],
)
def test_bad_laws_are_refused(atoms, probs, message):
    with pytest.raises(InvalidArgumentError, match=message):
        Distribution(atoms, probs)


def test_bad_reports_are_refused():
    with pytest.raises(InvalidArgumentError, match="leftover"):
        Distribution([0], [1], leftover=-0.1)
    with pytest.raises(InvalidArgumentError, match="w1_error"):
        Distribution([0], [1], w1_error=math.nan)


def test_repr():
    assert repr(Distribution([0, 4, 0.5], [0.5, 0.25, 0.25])) == "Distribution(3 atoms, mean 1.125, min 0, max 4)"
    assert repr(Distribution([1 / 3], [1])) == "Distribution(1 atom, mean 0.333333, min 0.333333, max 0.333333)"
    # 0.1 + 0.2 - 0.3 is not zero in floating point, but a reader should see zero.
    assert "mean 0," in repr(Distribution([0.1, 0.2, -0.3], [0.25, 0.5, 0.25]) + -0.05)
    assert repr(Distribution([[0, 1], [2, 1]], [0.5, 0.5])) == (
        "Distribution(2 atoms in 2 dimensions, mean (1, 1), min (0, 1), max (2, 1))"
    )
    assert repr(Distribution([0], [1], leftover=1e-13, w1_error=0.125)).endswith("leftover 1e-13, W1 error 0.125)")


# Functionals.


@given(fraction_laws(), ATOM)
def test_cdf_and_moments(exact, x):
    nu = law(exact)
    mean = sum(a * p for a, p in zip(*exact, strict=True))
    assert nu.cdf(float(x)) == pytest.approx(float(naive_cdf(exact, x)), abs=1e-15)
    assert nu.mean() == pytest.approx(float(mean), abs=1e-14)
    assert nu.var() == pytest.approx(float(sum(p * (a - mean) ** 2 for a, p in zip(*exact, strict=True))), abs=1e-13)
    assert nu.std() ** 2 == pytest.approx(nu.var())
    assert nu.expect(lambda y: y >= float(x)) == pytest.approx(float(1 - naive_cdf(exact, x, strict=True)), abs=1e-15)


def test_cdf_is_right_continuous_and_forgives_rounding():
    nu = Distribution([0.1 + 0.2, 1], [0.5, 0.5])
    np.testing.assert_array_equal(nu.cdf([-np.inf, 0.3, 0.29999, 1, np.inf]), [0, 0.5, 0, 1, 1])
    with pytest.raises(InvalidArgumentError, match="NaN"):
        nu.cdf([0.0, np.nan])


@given(fraction_laws(), st.integers(0, 24), st.sampled_from(["lower", "upper"]))
def test_quantiles_equal_brute_force(exact, k, side):
    q = Fraction(k, 24)
    # At level 0 the lower quantile is the least atom by convention, and at level 1 the upper one the largest.
    assert law(exact).quantile(float(q), side) == naive_quantile(exact, q, side)


@given(fraction_laws(), st.sampled_from(["lower", "upper"]))
def test_quantiles_at_the_steps_equal_brute_force(exact, side):
    """Levels that are cumulative sums: here rounding would choose the wrong atom."""
    nu = law(exact)
    steps = [naive_cdf(exact, a) for a in exact[0]]
    np.testing.assert_array_equal(
        nu.quantile([float(q) for q in steps], side), [float(naive_quantile(exact, q, side)) for q in steps]
    )


def test_quantiles_of_many_equal_atoms_are_not_moved_by_rounding():
    # A running sum of a million times 1e-6 is wrong by 8e-12, eight thousand times the spacing of floats.
    nu = Distribution(np.arange(1_000_000), np.full(1_000_000, 1e-6))
    levels = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    np.testing.assert_array_equal(nu.quantile(levels), levels * 1e6 - 1)
    np.testing.assert_array_equal(nu.quantile(levels, side="upper"), levels * 1e6)


def test_tiny_tails_are_seen():
    nu = Distribution([-1, 0, 1], [1e-14, 1 - 2e-14, 1e-14])
    assert nu.quantile(1e-15) == nu.quantile(0) == nu.quantile(0, side="upper") == -1
    assert nu.quantile(1 - 1e-15) == nu.quantile(1) == nu.quantile(1, side="upper") == 1
    assert nu.quantile(1e-13) == nu.quantile(1 - 1e-13) == 0
    assert nu.cvar(1e-14) == -1
    assert nu.optimistic_cvar(1e-14) == 1


@given(fraction_laws(), LEVEL)
def test_cvar_equals_sorting_and_maximum(exact, level):
    nu = law(exact)
    truth = float(naive_cvar(exact, level))
    assert truth == float(naive_cvar_as_maximum(exact, level))
    assert nu.cvar(float(level)) == pytest.approx(truth, abs=1e-13)
    minimum = min(b + nu.expect(lambda x: np.maximum(x - b, 0)) / float(level) for b in nu.atoms)  # noqa: B023
    assert nu.optimistic_cvar(float(level)) == pytest.approx(minimum, abs=1e-12)


@given(float_laws(), st.floats(0, 1, exclude_min=True))
def test_cvar_identities(nu, level):
    assert nu.cvar(1.0) == pytest.approx(nu.mean(), rel=1e-13, abs=1e-12)
    assert nu.optimistic_cvar(level) == pytest.approx(-(-nu).cvar(level), rel=1e-12, abs=1e-12)
    assert nu.atoms[0] <= nu.cvar(level) + 1e-12
    assert nu.cvar(level) <= nu.quantile(level) + 1e-10


@given(fraction_laws(), st.integers(1, 23).map(lambda k: Fraction(k, 24)))
def test_expectile_solves_its_equation(exact, level):
    e = law(exact).expectile(float(level))

    def balance(x):
        """Decreasing with slope at most -min(level, 1 - level), so its value bounds the error of a root."""
        return sum(p * (level if a > x else 1 - level) * (a - x) for a, p in zip(*exact, strict=True))

    assert abs(balance(Fraction(e))) / min(level, 1 - level) < 1e-12
    assert law(exact).expectile(0.5) == pytest.approx(law(exact).mean(), abs=1e-13)


@pytest.mark.parametrize("level", [0, -0.1, 1.01, math.nan, "x"])
def test_levels_are_checked(level):
    nu = Distribution([0, 1], [0.5, 0.5])
    for functional in (nu.cvar, nu.optimistic_cvar):
        with pytest.raises(InvalidArgumentError, match=r"level must lie in \(0, 1\]"):
            functional(level)
    with pytest.raises(InvalidArgumentError, match="level"):
        nu.expectile(level)


def test_other_bad_arguments():
    nu = Distribution([0, 1], [0.5, 0.5])
    with pytest.raises(InvalidArgumentError, match="strictly between 0 and 1"):
        nu.expectile(1)
    with pytest.raises(InvalidArgumentError, match=r"quantile levels must lie in \[0, 1\], got 5"):
        nu.quantile([0.5, 5])
    with pytest.raises(InvalidArgumentError, match='"lower" or "upper"'):
        nu.quantile(0.5, side="middle")
    with pytest.raises(InvalidArgumentError, match=r"shape \(2,\), got \(\)"):
        nu.expect(lambda x: 1.0)
    with pytest.raises(InvalidArgumentError, match="NaN at 0"):
        nu.expect(lambda x: np.where(x > 0, x, np.nan))
    with pytest.raises(InvalidArgumentError, match=r"Exact\(\), a QuantileGrid or a CategoricalGrid, got int"):
        nu.project(64)


def test_vector_laws_refuse_what_needs_an_order():
    nu = Distribution([[0, 1], [2, 3]], [0.5, 0.5])
    np.testing.assert_array_equal(nu.mean(), [1, 2])
    np.testing.assert_array_equal(nu.var(), [1, 1])
    np.testing.assert_array_equal(nu.std(), [1, 1])
    assert nu.expect(lambda x: x.sum(axis=1)) == 3
    for call in (
        lambda: nu.cdf(0),
        lambda: nu.quantile(0.5),
        lambda: nu.cvar(0.5),
        lambda: nu.optimistic_cvar(0.5),
        lambda: nu.expectile(0.5),
    ):
        with pytest.raises(InvalidArgumentError, match=r"needs a scalar law.*2 components"):
            call()
    with pytest.raises(InvalidArgumentError, match=r"holds scalar laws only.*use CategoricalGrid\(low, high, n\)"):
        nu.project(QuantileGrid(2))
    with pytest.raises(InvalidArgumentError, match="cramer needs scalar laws, got dimensions 2 and 2"):
        cramer(nu, nu)


# New laws from old ones.


@given(float_laws(), st.floats(-100, 100), st.floats(-3, 3))
def test_shift_and_scale(nu, c, gamma):
    for shifted in (nu + c, c + nu, np.float64(c) + nu, nu - (-c)):
        assert shifted.mean() == pytest.approx(nu.mean() + c, rel=1e-12, abs=1e-9)
        assert shifted.var() == pytest.approx(nu.var(), rel=1e-9, abs=1e-9)
    for scaled in (gamma * nu, nu * gamma, np.float64(gamma) * nu):
        assert isinstance(scaled, Distribution)
        assert scaled.mean() == pytest.approx(gamma * nu.mean(), rel=1e-12, abs=1e-9)
        assert scaled.atoms[0] == pytest.approx(min(gamma * nu.atoms[0], gamma * nu.atoms[-1]), abs=1e-9)
    assert (0 * nu).n_atoms == 1
    assert (-1 * -nu).allclose(nu)


def test_operators_carry_the_reports():
    nu = Distribution([0, 1], [0.5, 0.5], leftover=0.25, w1_error=0.5)
    assert ((nu + 1).leftover, (nu + 1).w1_error) == (0.25, 0.5)
    assert ((-2 * nu).leftover, (-2 * nu).w1_error) == (0.25, 1.0)
    mixed = mixture([nu, Distribution([3], [1])], [0.5, 0.5])
    assert (mixed.leftover, mixed.w1_error) == (0.125, 0.25)
    projected = nu.project(QuantileGrid(1))
    assert (projected.leftover, projected.w1_error) == (0.25, 1.0)


def test_vector_shifts_and_refusals():
    nu = Distribution([[0, 1], [2, 3]], [0.5, 0.5])
    np.testing.assert_array_equal((nu + np.array([1, -1])).atoms, [[1, 0], [3, 2]])
    np.testing.assert_array_equal((np.array([1, -1]) + nu).atoms, [[1, 0], [3, 2]])
    np.testing.assert_array_equal((nu - [1, -1]).atoms, [[-1, 2], [1, 4]])
    np.testing.assert_array_equal((0.5 * nu).atoms, [[0, 0.5], [1, 1.5]])
    with pytest.raises(InvalidArgumentError, match="shift of this law must be 2 finite numbers"):
        nu + 1
    with pytest.raises(InvalidArgumentError, match="shift of this law must be a finite number"):
        Distribution([0], [1]) + math.inf
    with pytest.raises(InvalidArgumentError, match="the factor must be a finite number"):
        math.nan * nu
    for operation in (lambda: nu + nu, lambda: nu - nu, lambda: nu * nu):
        with pytest.raises(TypeError):  # the sum of two random variables needs their joint law
            operation()


@given(st.lists(fraction_laws(), min_size=1, max_size=4), ATOM)
def test_mixture(laws, x):
    weights = [Fraction(k + 1, sum(range(1, len(laws) + 1))) for k in range(len(laws))]
    mixed = mixture([law(e) for e in laws], [float(w) for w in weights])
    truth = sum(w * naive_cdf(e, x) for w, e in zip(weights, laws, strict=True))
    assert mixed.cdf(float(x)) == pytest.approx(float(truth), abs=1e-14)
    assert mixed.probs.sum() == pytest.approx(1, abs=1e-14)


def test_bad_mixtures():
    nu, mu = Distribution([0], [1]), Distribution([[0, 1]], [1])
    with pytest.raises(InvalidArgumentError, match="one dimension, got 1 and 2"):
        mixture([nu, mu], [0.5, 0.5])
    with pytest.raises(InvalidArgumentError, match="weights must hold one number for each of the 1"):
        mixture([nu], [0.5, 0.5])
    with pytest.raises(InvalidArgumentError, match=r"weights sum to 0\.8;"):
        mixture([nu, nu], [0.5, 0.3])
    with pytest.raises(InvalidArgumentError, match="at least one"):
        mixture([], [])


@given(float_laws(), float_laws(), st.floats(-100, 100))
def test_allclose(nu, mu, c):
    assert nu.allclose(nu)
    assert nu.allclose(nu + 1e-12, atol=1e-11)
    if abs(c) > 1e-6:
        assert not nu.allclose(nu + c, atol=1e-8)
    assert mixture([nu, mu], [0.25, 0.75]).allclose(mixture([mu, nu], [0.75, 0.25]))
    assert not mixture([nu, nu + 3e3], [0.25, 0.75]).allclose(mixture([nu, nu + 3e3], [0.75, 0.25]))


def test_allclose_of_vector_laws_survives_jitter():
    # A jitter of 1e-14 reverses the lexicographic order of the two atoms; the laws are still close.
    nu = Distribution([[1, 0], [1, 5]], [0.25, 0.75])
    mu = Distribution([[1 + 1e-14, 0], [1, 5]], [0.25, 0.75])
    assert nu.allclose(mu)
    assert not nu.allclose(Distribution([[1, 0], [1, 5]], [0.75, 0.25]))
    assert not nu.allclose(Distribution([1], [1]))


# Wasserstein distances.

ORDERS = st.sampled_from([1, 2, 3, math.inf])


@given(fraction_laws(), fraction_laws(), ORDERS)
def test_wasserstein_equals_brute_force(first, second, p):
    truth = float(naive_wasserstein_power(first, second, p)) ** (1 / p if p < math.inf else 1)
    assert wasserstein(law(first), law(second), p) == pytest.approx(truth, rel=1e-12, abs=1e-13)


@given(float_laws(), float_laws())
def test_wasserstein_one_equals_scipy(nu, mu):
    theirs = stats.wasserstein_distance(nu.atoms, mu.atoms, nu.probs, mu.probs)
    assert wasserstein(nu, mu) == pytest.approx(theirs, rel=1e-10, abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(fraction_laws(max_size=4), fraction_laws(max_size=4), st.sampled_from([1, 2, 3]))
def test_wasserstein_equals_the_linear_program(first, second, p):
    nu, mu = law(first), law(second)
    cost = np.abs(nu.atoms[:, None] - mu.atoms) ** p
    rows = np.kron(np.eye(nu.n_atoms), np.ones(mu.n_atoms))
    columns = np.kron(np.ones(nu.n_atoms), np.eye(mu.n_atoms))
    plan = optimize.linprog(
        cost.ravel(),
        A_eq=np.vstack((rows, columns)),
        b_eq=np.concatenate((nu.probs, mu.probs)),
        method="highs",
    )
    # The solver's constraints hold within 1e-7, times the largest cost 10**p.
    assert wasserstein(nu, mu, p) ** p == pytest.approx(plan.fun, abs=1e-6 * 10**p)


@given(float_laws(), float_laws(), st.floats(-100, 100), st.floats(-3, 3), ORDERS)
def test_wasserstein_translation_scaling_symmetry(nu, mu, c, gamma, p):
    distance = wasserstein(nu, mu, p)
    assert wasserstein(nu, nu, p) == 0
    assert wasserstein(nu, nu + c, p) == pytest.approx(abs(c), rel=1e-9, abs=1e-8)
    assert wasserstein(mu, nu, p) == pytest.approx(distance, rel=1e-12, abs=1e-12)
    assert wasserstein(nu + c, mu + c, p) == pytest.approx(distance, rel=1e-9, abs=1e-8)
    assert wasserstein(gamma * nu, gamma * mu, p) == pytest.approx(abs(gamma) * distance, rel=1e-9, abs=1e-8)


@pytest.mark.parametrize("p", [1, 2, 10, 100, math.inf])
def test_rounding_of_probabilities_makes_no_distance(p):
    # Cumulative sums that differ in the last bit must not couple neighbors: at p = 100 even 1e-17 would show.
    probs = np.full(7, 1 / 7)
    nu = Distribution(np.arange(7), probs)
    mu = mixture([Distribution([k], [1]) for k in range(7)], probs[::-1])
    third = Distribution(np.arange(7), [3 / 7 - 2 / 7, 1 / 7, 1 / 7, 1 / 7, 1 / 7, 1 / 7, 1 - 6 / 7])
    assert wasserstein(nu, mu, p) == 0
    assert wasserstein(nu, third, p) == 0
    assert wasserstein(nu + 1e6, third, p) == pytest.approx(1e6, rel=1e-14)


def test_wasserstein_sees_tiny_masses_and_large_distances():
    nu = Distribution([0, 1e200], [1 - 1e-14, 1e-14])
    assert wasserstein(nu, Distribution([0], [1]), math.inf) == 1e200
    assert wasserstein(nu, Distribution([0], [1]), 2) == pytest.approx(1e193)  # no overflow in the square


@pytest.mark.parametrize("p", [0.5, 0, -1, math.nan, "one"])
def test_bad_orders(p):
    nu = Distribution([0], [1])
    with pytest.raises(InvalidArgumentError, match="order p of a Wasserstein distance must be at least 1"):
        wasserstein(nu, nu, p)


# Wasserstein distances of vector laws: a linear program, closed forms, and the exact formula of scalar laws.

NORMS = st.sampled_from([1, 2, math.inf])


def distances(nu, mu, norm):
    return np.linalg.norm(nu.atoms[:, None] - mu.atoms, norm, axis=-1)


def linear_program(nu, mu, cost):
    """The smallest mean cost of a coupling."""
    rows = np.kron(np.eye(nu.n_atoms), np.ones(mu.n_atoms))
    columns = np.kron(np.ones(nu.n_atoms), np.eye(mu.n_atoms))
    right = np.concatenate((nu.probs, mu.probs))
    return optimize.linprog(cost.ravel(), A_eq=np.vstack((rows, columns)), b_eq=right, method="highs").fun


@settings(max_examples=60, deadline=None)
@given(vector_laws(), vector_laws(), st.sampled_from([1, 1.5, 2, 3]), NORMS)
def test_vector_wasserstein_equals_the_linear_program(nu, mu, p, norm):
    # The solver's constraints hold within 1e-7, times the largest cost 16**p.
    truth = linear_program(nu, mu, distances(nu, mu, norm) ** p)
    assert wasserstein(nu, mu, p, norm) ** p == pytest.approx(truth, abs=1e-7 * 16**p)


@settings(max_examples=40, deadline=None)
@given(vector_laws(), vector_laws(), NORMS)
def test_vector_wasserstein_of_order_infinity_equals_the_linear_program(nu, mu, norm):
    """The distance itself is enough for all mass; the next smaller one is not."""
    distance, cost = wasserstein(nu, mu, math.inf, norm), distances(nu, mu, norm)
    assert linear_program(nu, mu, cost > distance + 1e-9) == pytest.approx(0, abs=1e-7)
    assert linear_program(nu, mu, cost > distance - 1e-9) > 1e-3  # masses are multiples of 1/(30 * 30)
    # W_p increases to it, and a mass of at least 1/900 travels as far.
    assert distance * (1 / 900) ** (1 / 8) - 1e-12 <= wasserstein(nu, mu, 8, norm) <= distance + 1e-12


@settings(max_examples=60, deadline=None)
@given(fraction_laws(), fraction_laws(), ORDERS, NORMS, st.sampled_from([(1, 0), (0, 1), (3, 4), (-1, 1)]))
def test_scalar_laws_laid_along_a_line_keep_their_distance(first, second, p, norm, direction):
    """The vector path gives the exact scalar formula, times the length of the direction."""
    nu, mu, v = law(first), law(second), np.array(direction, dtype=float)
    along = [Distribution(x.atoms[:, None] * v, x.probs) for x in (nu, mu)]
    assert wasserstein(*along, p, norm) == pytest.approx(np.linalg.norm(v, norm) * wasserstein(nu, mu, p), abs=1e-10)


@settings(max_examples=60, deadline=None)
@given(vector_laws(dimension=3), st.tuples(*[st.floats(-100, 100)] * 3), ORDERS, NORMS)
def test_vector_wasserstein_closed_forms(nu, c, p, norm):
    zero = Distribution([[0, 0, 0]], [1])
    assert wasserstein(nu, nu, p, norm) == 0
    # The plan x -> x + c is best: |E Y - E X| = |c| bounds every other plan from below.
    assert wasserstein(nu, nu + c, p, norm) == pytest.approx(np.linalg.norm(c, norm), rel=1e-10, abs=1e-12)
    # Only one coupling joins a law to a single atom.
    lengths = np.linalg.norm(nu.atoms, norm, axis=1)
    truth = lengths.max() if p == math.inf else (nu.probs @ lengths**p) ** (1 / p)
    assert wasserstein(nu, zero, p, norm) == pytest.approx(truth, rel=1e-12)
    assert wasserstein(0.5 * nu, zero, p, norm) == pytest.approx(truth / 2, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    fraction_laws(max_size=3), fraction_laws(max_size=3), fraction_laws(max_size=3), fraction_laws(max_size=3), NORMS
)
def test_product_laws_split_into_their_components(a, b, c, d, p):
    """In the norm of order p the p-th powers of the components' distances add (for infinity: the larger one)."""
    first, second = product_law(law(a), law(b)), product_law(law(c), law(d))
    parts = [wasserstein(law(a), law(c), p), wasserstein(law(b), law(d), p)]
    assert wasserstein(first, second, p, norm=p) == pytest.approx(np.linalg.norm(parts, p), rel=1e-10, abs=1e-12)


def product_law(nu, mu):
    pairs = list(itertools.product(range(nu.n_atoms), range(mu.n_atoms)))
    return Distribution(
        [[nu.atoms[i], mu.atoms[j]] for i, j in pairs],
        [nu.probs[i] * mu.probs[j] for i, j in pairs],
    )


@pytest.mark.parametrize("p", [1, 2, 100, math.inf])
def test_rounding_of_probabilities_makes_no_vector_distance(p):
    atoms = [[k, k * k] for k in range(7)]
    nu = Distribution(atoms, np.full(7, 1 / 7))
    mu = Distribution(atoms, [3 / 7 - 2 / 7, 1 / 7, 1 / 7, 1 / 7, 1 / 7, 1 / 7, 1 - 6 / 7])
    assert (nu.probs != mu.probs).any()
    assert wasserstein(nu, mu, p) == 0


def test_large_vector_distances_do_not_overflow():
    nu, mu = Distribution([[3e200, 4e200]], [1]), Distribution([[0, 0]], [1])
    assert wasserstein(nu, mu, 2) == pytest.approx(5e200)


def test_bad_transport_arguments(monkeypatch):
    nu, mu = Distribution([[0, 1], [2, 3]], [0.5, 0.5]), Distribution([0], [1])
    with pytest.raises(InvalidArgumentError, match="must have the same dimension, got 2 and 1"):
        wasserstein(nu, mu)
    for norm in (3, 0, "euclidean", None):
        with pytest.raises(InvalidArgumentError, match="norm must be 1, 2 or inf"):
            wasserstein(nu, nu, norm=norm)
    with pytest.raises(InvalidArgumentError, match=r"at least 1, got 0\.5"):
        wasserstein(nu, nu, 0.5)
    without = builtins.__import__

    def no_pot(name, *rest):
        if name == "ot":
            raise ImportError(name)
        return without(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_pot)
    with pytest.raises(ImportError, match=r"pip install 'rdolib\[transport\]'"):
        wasserstein(nu, nu)
    assert wasserstein(mu, mu + 1) == 1  # scalar laws need no POT
    assert nu.project(CategoricalGrid(0, 3, [2, 3])).w1_error > 0  # nor does a projection


# Cramér distance.


@given(fraction_laws(), fraction_laws())
def test_cramer_equals_brute_force(first, second):
    points = sorted({*first[0], *second[0]})
    square = sum((b - a) * (naive_cdf(first, a) - naive_cdf(second, a)) ** 2 for a, b in itertools.pairwise(points))
    assert cramer(law(first), law(second)) == pytest.approx(math.sqrt(square), rel=1e-12, abs=1e-14)
    assert cramer(law(first), law(first)) == 0


@given(fraction_laws(), fraction_laws())
def test_cramer_equals_the_energy_form(first, second):
    """The integral is E|X - Y| - E|X - X'|/2 - E|Y - Y'|/2 for independent copies (Székely and Rizzo)."""

    def spread(nu, mu):
        return float(nu.probs @ np.abs(nu.atoms[:, None] - mu.atoms) @ mu.probs)

    nu, mu = law(first), law(second)
    energy = spread(nu, mu) - spread(nu, nu) / 2 - spread(mu, mu) / 2
    assert cramer(nu, mu) ** 2 == pytest.approx(energy, abs=1e-13)


@given(float_laws(), float_laws(), st.floats(-100, 100), st.floats(-3, 3))
def test_cramer_translation_and_scaling(nu, mu, c, gamma):
    distance = cramer(nu, mu)
    assert cramer(nu + c, mu + c) == pytest.approx(distance, rel=1e-6, abs=1e-6)
    assert cramer(gamma * nu, gamma * mu) == pytest.approx(math.sqrt(abs(gamma)) * distance, rel=1e-6, abs=1e-6)
    # |F - G| <= 1, and the Cauchy-Schwarz inequality on the interval that holds both laws.
    assert distance**2 <= wasserstein(nu, mu) * (1 + 1e-9) + 1e-9
    width = max(nu.atoms[-1], mu.atoms[-1]) - min(nu.atoms[0], mu.atoms[0])
    assert wasserstein(nu, mu) <= distance * math.sqrt(width) * (1 + 1e-9) + 1e-9


# Projections.


@given(float_laws(), st.integers(1, 20))
def test_quantile_projection(nu, n):
    image = nu.project(QuantileGrid(n))
    assert set(image.atoms) <= set(nu.atoms)
    np.testing.assert_allclose(image.probs * n, np.round(image.probs * n), atol=1e-12)
    assert image.probs.sum() == pytest.approx(1)
    assert image.w1_error == wasserstein(nu, image)
    # Each level moves by at most 1/(2n), so the distance is at most the range over 2n.
    assert image.w1_error <= (nu.atoms[-1] - nu.atoms[0]) / (2 * n) * (1 + 1e-9) + 1e-12
    again = image.project(QuantileGrid(n))
    assert again.allclose(image, atol=1e-15)
    assert again.w1_error == pytest.approx(image.w1_error, abs=1e-12)


@settings(max_examples=40)
@given(fraction_laws(max_size=4), st.integers(1, 3))
def test_quantile_projection_is_nearest_in_w1(exact, n):
    """No choice of n equally likely atoms among the atoms of the law is nearer."""
    nu = law(exact)
    best = min(
        wasserstein(nu, Distribution([*choice], np.full(n, 1 / n)))
        for choice in np.stack(np.meshgrid(*[nu.atoms] * n), axis=-1).reshape(-1, n)
    )
    assert nu.project(QuantileGrid(n)).w1_error == pytest.approx(best, abs=1e-12)


@given(float_laws(), st.integers(2, 40))
def test_categorical_projection(nu, n):
    grid = CategoricalGrid(-1e3, 1e3, n)
    image = nu.project(grid)
    assert set(image.atoms) <= set(grid.atoms)
    assert image.probs.sum() == pytest.approx(1)
    assert image.mean() == pytest.approx(nu.mean(), rel=1e-11, abs=1e-9)
    assert image.var() >= nu.var() - 1e-6  # a mean-preserving spread
    # An atom at a fraction u between two grid points moves by 2 u (1 - u) of the mesh: at most half of it.
    assert image.w1_error == wasserstein(nu, image) <= 2e3 / (n - 1) / 2 + 1e-9
    assert image.project(grid).allclose(image, atol=1e-13)


@given(st.integers(2, 200), st.floats(-10, 10), st.floats(0.01, 10), st.integers(0, 10**6))
def test_atoms_on_the_categorical_grid_stay_whole(n, low, width, seed):
    grid = CategoricalGrid(low, low + width, n)
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(n))
    nu = Distribution(grid.atoms, probs)
    image = nu.project(grid)
    np.testing.assert_array_equal(image.atoms, nu.atoms)
    np.testing.assert_allclose(image.probs, nu.probs, rtol=1e-14)
    assert image.w1_error == 0


def test_an_atom_that_rounding_put_beside_the_grid_stays_whole():
    # linspace gives 0.30000000000000004 for the fourth point; the atom 0.3 is that point.
    assert Distribution([0.3], [1]).project(CategoricalGrid(0, 1, 11)).n_atoms == 1
    assert Distribution([1 + 1e-15], [1]).project(CategoricalGrid(0, 1, 11)).n_atoms == 1


def test_nothing_is_clipped():
    nu = Distribution([-13, -5, 0, 2], [0.02, 0.5, 0.44, 0.04])
    with pytest.raises(InvalidArgumentError) as info:
        nu.project(CategoricalGrid(-10, 1, 12))
    assert str(info.value) == (
        "the grid must cover the law: mass 0.02 lies below -10 and mass 0.04 lies above 1; "
        "widen it to low=-13, high=2 or beyond"
    )
    with pytest.raises(InvalidArgumentError, match=r"mass 0.04 lies above 1; widen it to low=-20, high=2 or beyond"):
        nu.project(CategoricalGrid(-20, 1, 12))


@given(float_laws(), st.integers(2, 12), st.integers(0, 10**6))
def test_categorical_projection_is_nearest_in_cramer(nu, n, seed):
    """On a cell the image's distribution function is one number; the mean of F there is the best one."""
    grid = CategoricalGrid(-1e3, 1e3, n)
    image = nu.project(grid)
    heights = np.asarray(image.cdf(grid.atoms[:-1]))
    means = [
        np.mean(np.minimum(np.maximum(b - nu.atoms, 0), b - a) @ nu.probs) / (b - a)
        for a, b in itertools.pairwise(grid.atoms)
    ]
    np.testing.assert_allclose(heights, means, atol=1e-9)
    other = Distribution(grid.atoms, np.random.default_rng(seed).dirichlet(np.full(n, 0.3)))
    for share in (1e-3, 0.1, 1.0):
        assert cramer(nu, image) <= cramer(nu, mixture([image, other], [1 - share, share])) + 1e-9


@given(fraction_laws(), st.floats(-100, 100), st.integers(1, 12))
def test_projections_move_with_the_law(exact, c, n):
    nu = law(exact)
    image = nu.project(QuantileGrid(n))
    # The shift may merge atoms that rounding brings together, never more.
    assert wasserstein((nu + c).project(QuantileGrid(n)), image + c) <= 1e-9
    grid, moved = CategoricalGrid(-8, 8, n + 1), CategoricalGrid(-8 + c, 8 + c, n + 1)
    assert wasserstein((nu + c).project(moved), nu.project(grid) + c) <= 1e-9


@given(fraction_laws(), st.integers(1, 12), st.randoms(use_true_random=False))
def test_projections_do_not_depend_on_the_order_of_atoms(exact, n, random):
    pairs = list(zip(*exact, strict=True))
    random.shuffle(pairs)
    mu = law(tuple(zip(*pairs, strict=True)))
    for grid in (QuantileGrid(n), CategoricalGrid(-8, 8, n + 1)):
        assert law(exact).project(grid).allclose(mu.project(grid), atol=1e-13)


@given(float_laws(), vector_laws())
def test_exact_keeps_every_atom(nu, mu):
    for kept in (nu, mu, Distribution([0, 1], [0.5, 0.5], leftover=0.25, w1_error=0.5)):
        assert kept.project(Exact()) is kept
    assert Exact().w1_bound(0, 1) == Exact().w1_bound([0, 0], [1, 2]) == 0


# Bounds of projections: never exceeded, and attained.


@given(float_laws(), st.integers(1, 20))
def test_projections_stay_within_their_bounds(nu, n):
    low, high = nu.atoms[0], nu.atoms[-1]
    slack = 1e-9
    assert nu.project(QuantileGrid(n)).w1_error <= QuantileGrid(n).w1_bound(low, high) + slack
    if low < high:
        grid = CategoricalGrid(low, high, n + 1)
        assert nu.project(grid).w1_error <= grid.w1_bound(low, high) + slack


@pytest.mark.parametrize("n", [1, 2, 5, 64])
def test_bounds_are_attained(n):
    low, high = -3.0, 5.0
    worst = Distribution([low, high], [1 / (2 * n), 1 - 1 / (2 * n)])
    assert worst.project(QuantileGrid(n)).w1_error == pytest.approx(QuantileGrid(n).w1_bound(low, high), rel=1e-12)
    grid = CategoricalGrid(low, high, n + 1)
    middle = Distribution([low + (high - low) / (2 * n)], [1])
    assert middle.project(grid).w1_error == pytest.approx(grid.w1_bound(low, high), rel=1e-12)
    square = CategoricalGrid([low, 0], [high, 1], n + 1)
    middle = Distribution([[low + (high - low) / (2 * n), 1 / (2 * n)]], [1])
    assert middle.project(square).w1_error == pytest.approx(square.w1_bound([low, 0], [high, 1]), rel=1e-12)


# The categorical grid of vector laws.


@settings(max_examples=60, deadline=None)
@given(vector_laws(dimension=2), st.integers(2, 7), st.integers(2, 7))
def test_vector_projection(nu, rows, columns):
    grid = CategoricalGrid([-4, -5], [4, 4], [rows, columns])
    image = nu.project(grid)
    assert grid.atoms.shape == (rows * columns, 2)
    assert {tuple(x) for x in image.atoms} <= {tuple(x) for x in grid.atoms}
    assert image.probs.sum() == pytest.approx(1, abs=1e-14)
    np.testing.assert_allclose(image.mean(), nu.mean(), atol=1e-13)
    assert (image.var() >= nu.var() - 1e-12).all()  # a mean-preserving spread of every component
    again = image.project(grid)
    assert again.allclose(image, atol=1e-13)
    assert again.w1_error - image.w1_error <= 1e-12
    # The error is that of the split: between the distance itself and the bound.
    assert wasserstein(nu, image) <= image.w1_error + 1e-12
    assert image.w1_error <= grid.w1_bound([-4, -5], [4, 4]) + 1e-12
    # Component by component it is the scalar projection.
    for j, (low, high, n) in enumerate(zip(grid.low, grid.high, grid.n, strict=True)):
        marginal = Distribution(image.atoms[:, j], image.probs)
        alone = Distribution(nu.atoms[:, j], nu.probs).project(CategoricalGrid(low, high, n))
        assert marginal.allclose(alone, atol=1e-13)


def test_vector_projection_by_hand():
    # The atom (1/4, 3) lies at the fractions 1/4 and 1/2 of the cell [0, 1] x [2, 4].
    grid = CategoricalGrid([0, 0], [1, 4], [2, 3])
    image = Distribution([[0.25, 3]], [1]).project(grid)
    np.testing.assert_array_equal(image.atoms, [[0, 2], [0, 4], [1, 2], [1, 4]])
    np.testing.assert_allclose(image.probs, [3 / 8, 3 / 8, 1 / 8, 1 / 8], rtol=1e-15)
    truth = (6 / 8) * math.hypot(0.25, 1) + (2 / 8) * math.hypot(0.75, 1)
    assert image.w1_error == pytest.approx(truth, rel=1e-14)


@given(st.integers(2, 9), st.integers(2, 9), st.integers(2, 3), st.integers(0, 10**6))
def test_vector_atoms_on_the_grid_stay_whole(rows, columns, m, seed):
    rng = np.random.default_rng(seed)
    low = rng.uniform(-10, 10, m)
    grid = CategoricalGrid(low, low + rng.uniform(0.01, 10, m), [rows, columns, 3][:m])
    nu = Distribution(grid.atoms, rng.dirichlet(np.ones(len(grid.atoms))))
    image = nu.project(grid)
    np.testing.assert_array_equal(image.atoms, nu.atoms)
    np.testing.assert_allclose(image.probs, nu.probs, rtol=1e-14)
    assert image.w1_error == 0


def test_a_large_grid_costs_only_what_the_law_uses():
    grid = CategoricalGrid([0, 0, 0], [1, 1, 1], 100_000)  # 10**15 points
    assert Distribution([[0.1234567, 0.5, 1]], [1]).project(grid).n_atoms <= 8


def test_one_sequence_of_length_one_is_a_scalar_grid():
    assert CategoricalGrid([0], [1], [3]) == CategoricalGrid(0, 1, 3)
    assert hash(CategoricalGrid([0, 0], [1, 2], 3)) == hash(CategoricalGrid((0, 0), np.array([1, 2]), [3, 3]))


def test_vector_grids_refuse_what_they_cannot_hold():
    nu = Distribution([[0, 1], [2, 3]], [0.25, 0.75])
    with pytest.raises(InvalidArgumentError, match="the grid has 1 component and the law has 2"):
        nu.project(CategoricalGrid(0, 3, 4))
    with pytest.raises(InvalidArgumentError, match="the grid has 3 components and the law has 1"):
        Distribution([0], [1]).project(CategoricalGrid([0] * 3, [1] * 3, 2))
    with pytest.raises(InvalidArgumentError, match=r"mass 0.75 lies above 2 in component 1; widen it to low=0, high=3"):
        nu.project(CategoricalGrid(0, [3, 2], 4))
    with pytest.raises(InvalidArgumentError, match=r"mass 0.25 lies below 1 in component 0; widen it to low=0, high=3"):
        nu.project(CategoricalGrid([1, 0], 3, 4))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: QuantileGrid(0), "n of a QuantileGrid must be an integer, at least 1, got 0"),
        (lambda: QuantileGrid(2.5), "at least 1, got 2.5"),
        (lambda: CategoricalGrid(0, 1, 1), "n of a CategoricalGrid must be an integer, at least 2, got 1"),
        (lambda: CategoricalGrid(1, 1, 3), "low must be less than high, got low 1 and high 1"),
        (lambda: CategoricalGrid(0, math.inf, 3), "high must be a finite number, got inf"),
        (lambda: CategoricalGrid([0, 0], [1, 0], 3), "low must be less than high, got low 0 and high 0"),
        (lambda: CategoricalGrid([0, 0], [1, 1], [3, 1]), "at least 2, got 1"),
        (lambda: CategoricalGrid([0, 0], [1, 1, 1], 3), "single numbers or sequences of one length"),
        (lambda: CategoricalGrid([[0, 0]], [1, 1], 3), "single numbers or sequences of one length"),
        (lambda: CategoricalGrid([], [], 3), "single numbers or sequences of one length"),
        (lambda: CategoricalGrid("ab", 1, 3), "low must be a finite number, got 'ab'"),
        (lambda: QuantileGrid(3).w1_bound([0, 0], [1, 1]), "holds scalar laws only"),
        (lambda: QuantileGrid(3).w1_bound(1, 0), "low must not exceed high"),
        (lambda: QuantileGrid(3).w1_bound(0, math.nan), "must be finite and equally long"),
        (lambda: Exact().w1_bound(0, [1, 2]), "must be finite and equally long"),
        (lambda: CategoricalGrid(0, 1, 3).w1_bound([0, 0], [1, 1]), "has 1 component and the law has 2"),
        (lambda: CategoricalGrid(0, 1, 3).w1_bound(0, 2), "the grid must cover the law: it runs from 0 to 1"),
    ],
)
def test_bad_grids(make, message):
    with pytest.raises(InvalidArgumentError, match=message):
        make()


def test_a_shift_that_cancels_leaves_no_noise() -> None:
    nu = Distribution([0.1 + 0.2, 1.0], [0.5, 0.5])
    assert (nu + -0.3).atoms.tolist() == [0.0, 0.7]
    assert (Distribution([54321.081 + 0.9 * 27.7], [1.0]) - (54321.081 + 24.93)).atoms.tolist() == [0.0]
