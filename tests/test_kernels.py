"""The compiled sweep against a plain numpy twin that shares no code with it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from rdolib import _kernels

Law = dict[Fraction, Fraction]  # atom: probability


@dataclass
class Problem:
    """Transitions in the kernels' layout, and values one step later."""

    pair_ptr: NDArray[np.int64]
    outcome_ptr: NDArray[np.int64]
    prob: NDArray[np.float64]
    succ: NDArray[np.int32]
    shift: NDArray[np.int32]
    v_next: NDArray[np.float64]
    pad: int
    n_stocks: int

    @property
    def n_states(self) -> int:
        return len(self.pair_ptr) - 1

    @property
    def transitions(self) -> tuple[NDArray[np.generic], ...]:
        return self.pair_ptr, self.outcome_ptr, self.prob, self.succ, self.shift

    @property
    def box(self) -> tuple[int, int, int, int]:
        return 0, self.n_states, 0, self.n_stocks


def random_problem(seed: int, n_states: int, n_stocks: int, pairs: int, outcomes: int, pad: int = 3) -> Problem:
    """States with 0 to `pairs` pairs of 1 to `outcomes` outcomes each; random values, in the pads too."""
    rng = np.random.default_rng(seed)
    pair_ptr = np.r_[0, np.cumsum(rng.integers(0, pairs + 1, n_states))]
    outcome_ptr = np.r_[0, np.cumsum(rng.integers(1, outcomes + 1, pair_ptr[-1]))]
    n = outcome_ptr[-1]
    prob = rng.random(n)
    for first, last in pairwise(outcome_ptr):
        prob[first:last] /= prob[first:last].sum()
    return Problem(
        pair_ptr,
        outcome_ptr,
        prob,
        rng.integers(0, n_states + 1, n).astype(np.int32),
        rng.integers(-pad, pad + 1, n).astype(np.int32),
        rng.normal(size=(n_states + 1, _kernels.row_width(n_stocks, pad))),
        pad,
        n_stocks,
    )


def plain_sweep(p: Problem, tol: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Twin: one stock at a time in Python floats; terms added in the order of the table, as promised."""
    values, policy = np.empty((p.n_states, p.n_stocks)), np.zeros((p.n_states, p.n_stocks), dtype=np.int64)
    for s in range(p.n_states):
        for c in range(p.n_stocks):
            column = p.pad + c
            best, chosen = -np.inf, 0
            for index, pair in enumerate(range(p.pair_ptr[s], p.pair_ptr[s + 1])):
                total = 0.0
                for k in range(p.outcome_ptr[pair], p.outcome_ptr[pair + 1]):
                    total += float(p.prob[k]) * float(p.v_next[p.succ[k], column + p.shift[k]])
                if total > best + tol:
                    chosen = index
                best = max(best, total)
            terminal = p.pair_ptr[s] == p.pair_ptr[s + 1]
            values[s, c] = p.v_next[p.n_states, column] if terminal else best
            policy[s, c] = chosen
    return values, policy


def run(
    p: Problem, tol: float = 0.0, dtype: type[np.unsignedinteger] = np.uint8
) -> tuple[NDArray[np.float64], NDArray[np.unsignedinteger]]:
    """The kernel's values and policy, with everything that it must not touch checked."""
    out = np.full_like(p.v_next, 7.0)
    policy = np.full((p.n_states, p.n_stocks), 99, dtype=dtype)
    before = p.v_next.copy()
    _kernels.sweep(*p.transitions, p.v_next, p.pad, out, p.box, policy, tol)
    values = out[: p.n_states, p.pad : p.pad + p.n_stocks].copy()
    out[: p.n_states, p.pad : p.pad + p.n_stocks] = 7.0
    assert (out == 7.0).all(), "wrote outside the stocks"
    np.testing.assert_array_equal(p.v_next, before)
    only_values = np.full_like(p.v_next, 7.0)
    _kernels.sweep(*p.transitions, p.v_next, p.pad, only_values, p.box)
    np.testing.assert_array_equal(only_values[: p.n_states, p.pad : p.pad + p.n_stocks], values)
    return values, policy


def assert_equals_twin(p: Problem) -> None:
    """Bit for bit: the kernel promises the twin's order of operations."""
    values, policy = run(p)
    expected_values, expected_policy = plain_sweep(p, 0.0)
    np.testing.assert_array_equal(values, expected_values)
    np.testing.assert_array_equal(policy, expected_policy)


@pytest.mark.parametrize("n_stocks", [1, 2, 7, 8, 9, 31, 33, 101])
def test_equals_the_twin_bit_for_bit(n_stocks: int) -> None:
    assert_equals_twin(random_problem(n_stocks, n_states=6, n_stocks=n_stocks, pairs=4, outcomes=6))


@pytest.mark.parametrize("outcomes", [1, 2, 5, 7, 12, 19])
def test_any_number_of_outcomes(outcomes: int) -> None:
    assert_equals_twin(random_problem(outcomes, n_states=5, n_stocks=19, pairs=3, outcomes=outcomes, pad=5))


def test_one_state() -> None:
    p = random_problem(3, n_states=1, n_stocks=13, pairs=3, outcomes=3)
    assert p.pair_ptr[1] > 0
    assert_equals_twin(p)


def test_rows_longer_than_a_block() -> None:
    p = random_problem(4, n_states=2, n_stocks=2 * _kernels.BLOCK + 5, pairs=2, outcomes=8)
    assert_equals_twin(p)


def test_shift_without_pad() -> None:
    """Rewards that are all zero need no pad."""
    assert_equals_twin(random_problem(5, n_states=4, n_stocks=11, pairs=2, outcomes=3, pad=0))


def test_terminal_states_take_the_payoff_row_and_no_action() -> None:
    p = random_problem(6, n_states=3, n_stocks=10, pairs=2, outcomes=2)
    p.pair_ptr[:] = 0
    values, policy = run(p)
    np.testing.assert_array_equal(values, np.tile(p.v_next[3, p.pad : p.pad + 10], (3, 1)))
    assert not policy.any()


def one_step(values: list[float], n_stocks: int = 9) -> Problem:
    """One state whose pair j surely ends with value ``values[j]`` at every stock."""
    n = len(values)
    v_next = np.repeat(np.asarray(values)[:, None], _kernels.row_width(n_stocks, 1), axis=1)
    rows = np.vstack([np.zeros_like(v_next[:1]), v_next])  # the row of the state itself is never read
    ones = np.ones(n)
    starts = np.arange(n + 1)
    return Problem(
        np.array([0, n]), starts, ones, starts[1:].astype(np.int32), np.zeros(n, np.int32), rows, 1, n_stocks
    )


@pytest.mark.parametrize(
    ("values", "index"),
    [
        ([1.0, 1.0, 1.0], 0),  # ties go to the lowest index
        ([0.0, 1.0, 1.0], 1),
        ([1.0, 1.0 + 4e-13, 1.0 + 8e-13], 0),  # within the tolerance: rounding
        ([1.0, 1.0 + 4e-13, 1.0 + 3e-12], 2),
        ([1.0, 1.0 + 2e-12], 1),
        ([-np.inf, -np.inf], 0),
        ([-np.inf, 0.0], 1),
    ],
)
def test_ties(values: list[float], index: int) -> None:
    chosen_values, policy = run(one_step(values), tol=1e-12)
    assert (policy == index).all()
    assert (chosen_values == max(values)).all(), "the value is the true maximum even where the policy is not"


def test_chosen_pair_is_within_tolerance_of_the_maximum() -> None:
    """The bound of the docstring: (pairs - 1) tol, here attained nearly: steps of 0.9 tol never take over."""
    tol = 1e-3
    steps = [0.9 * tol * j for j in range(5)]
    values, policy = run(one_step(steps), tol=tol)
    gap = values[0, 0] - steps[policy[0, 0]]
    assert 0 < gap <= 4 * tol


def test_more_than_256_pairs_with_a_wider_policy() -> None:
    values = np.zeros(300)
    values[280] = 1.0
    _, policy = run(one_step(list(values)), dtype=np.uint16)
    assert (policy == 280).all()


def test_boxes_give_the_same_bits() -> None:
    p = random_problem(8, n_states=40, n_stocks=77, pairs=4, outcomes=7)
    whole, policy = run(p)
    updates = p.outcome_ptr[p.pair_ptr]
    for pieces in (1, 2, 3, 5, 50):
        boxes = _kernels.split_in_boxes(updates, p.n_stocks, pieces)
        out, parts = np.full_like(p.v_next, np.nan), np.full_like(policy, 99)
        for box in boxes:
            _kernels.sweep(*p.transitions, p.v_next, p.pad, out, box, parts, 0.0)
        np.testing.assert_array_equal(out[:40, p.pad : p.pad + 77], whole)
        np.testing.assert_array_equal(parts, policy)


@pytest.mark.parametrize(
    ("n_states", "n_stocks", "pieces"), [(1, 1, 4), (3, 100, 4), (100, 3, 4), (64, 64, 8), (5, 9, 1)]
)
def test_boxes_cover_everything_once(n_states: int, n_stocks: int, pieces: int) -> None:
    rng = np.random.default_rng(n_states)
    updates = np.r_[0, np.cumsum(rng.integers(0, 9, n_states))]
    boxes = _kernels.split_in_boxes(updates, n_stocks, pieces)
    seen = np.zeros((n_states, n_stocks), dtype=int)
    for first_state, last_state, first_stock, last_stock in boxes:
        seen[first_state:last_state, first_stock:last_stock] += 1
    assert (seen == 1).all()
    assert len(boxes) <= pieces


def test_boxes_without_any_work() -> None:
    assert _kernels.split_in_boxes(np.zeros(41, dtype=np.int64), 5, 2)
    done = []
    _kernels.run_in_boxes(done.append, np.zeros(41, dtype=np.int64), 5)
    assert done == [(0, 40, 0, 5)]


def test_work_is_shared_by_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads meet at a barrier, so both must have been given a box."""
    monkeypatch.setattr(_kernels, "n_threads", lambda: 2)
    monkeypatch.setattr(_kernels, "THREAD_WORK", 1)
    _kernels._pool.cache_clear()
    barrier = threading.Barrier(2, timeout=10)
    _kernels.run_in_boxes(lambda box: barrier.wait(), np.arange(101), 10)
    _kernels._pool.cache_clear()


@pytest.mark.parametrize("broken", [0, 50])
def test_an_error_in_any_thread_arrives(monkeypatch: pytest.MonkeyPatch, broken: int) -> None:
    monkeypatch.setattr(_kernels, "n_threads", lambda: 2)
    monkeypatch.setattr(_kernels, "THREAD_WORK", 1)
    _kernels._pool.cache_clear()

    def work(box: tuple[int, int, int, int]) -> None:
        if box[0] == broken:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        _kernels.run_in_boxes(work, np.arange(101), 10)
    _kernels._pool.cache_clear()


@pytest.mark.parametrize("n_stocks", [1, 8, 505, 601, 2048])
def test_row_width(n_stocks: int) -> None:
    for pad in (0, 1, 8):
        width = _kernels.row_width(n_stocks, pad)
        assert n_stocks + 2 * pad <= width < n_stocks + 2 * pad + 16
        assert width % 16 == 8  # an odd number of cache lines


def test_nan_is_not_optimized_away() -> None:
    """A NaN is never the maximum; flags that assume its absence would not keep this."""
    values, policy = run(one_step([np.nan, 1.0]))
    assert (values == 1.0).all()
    assert (policy == 1).all()


# ------------------------------------------------------------- projected return distributions


@dataclass
class Backup:
    """Rows of edges into laws, in the kernels' layout."""

    edge_ptr: NDArray[np.int64]
    edge_to: NDArray[np.int32]
    edge_prob: NDArray[np.float64]
    edge_reward: NDArray[np.float64]
    gamma: float

    @property
    def n_rows(self) -> int:
        return len(self.edge_ptr) - 1

    def edges(self, i: int) -> list[tuple[float, float, int]]:
        where = range(self.edge_ptr[i], self.edge_ptr[i + 1])
        return [(float(self.edge_prob[e]), float(self.edge_reward[e]), int(self.edge_to[e])) for e in where]


def backup(rows: list[list[tuple[float, float, int]]], gamma: float = 1.0) -> Backup:
    """Rows given as lists of (weight, reward, row that the edge leads to)."""
    prob, reward, to = zip(*(edge for row in rows for edge in row), strict=True)
    return Backup(
        np.r_[0, np.cumsum([len(row) for row in rows])],
        np.array(to, dtype=np.int32),
        np.array(prob, dtype=np.float64),
        np.array(reward, dtype=np.float64),
        gamma,
    )


def random_backup(seed: int, n_rows: int, n_laws: int, gamma: float) -> Backup:
    """One to nine edges a row, dyadic weights so that levels are met exactly, small rewards so that atoms tie."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n_rows):
        parts = rng.multinomial(16, np.full(9, 1 / 9))
        rows.append([(part / 16, float(rng.integers(-2, 3)), int(rng.integers(-1, n_laws))) for part in parts if part])
    return backup(rows, gamma)


def mixture_of(p: Backup, i: int, atoms: Sequence[Sequence[float]], probs: Sequence[Sequence[Fraction]]) -> Law:
    """Twin: the mixture of row i in exact fractions (of the floats given), as {atom: probability}."""
    law: Law = {}
    for weight, reward, to in p.edges(i):
        for x, q in zip([0.0], [Fraction(1)], strict=True) if to < 0 else zip(atoms[to], probs[to], strict=True):
            atom = Fraction(reward) + Fraction(p.gamma) * Fraction(x)
            law[atom] = law.get(atom, Fraction(0)) + Fraction(weight) * q
    return law


def lower_quantile(law: Law, level: Fraction) -> Fraction:
    below = Fraction(0)
    for x in sorted(law):
        below += law[x]
        if below >= level:
            return x
    raise AssertionError("the law has no mass")


def w1(one: Law, other: Law) -> Fraction:
    """Area between two distribution functions."""
    grid = sorted({*one, *other})
    gap, area = Fraction(0), Fraction(0)
    for x, y in pairwise(grid):
        gap += one.get(x, Fraction(0)) - other.get(x, Fraction(0))
        area += abs(gap) * (y - x)
    return area


def run_quantiles(p: Backup, atoms: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    out, error = np.full((p.n_rows, atoms.shape[1]), np.nan), np.full(p.n_rows, np.nan)
    arrays = p.edge_ptr, p.edge_to, p.edge_prob, p.edge_reward, p.gamma
    _kernels.quantile_backup(*arrays, atoms, out, error, (0, p.n_rows))
    return out, error


@pytest.mark.parametrize("gamma", [1.0, 0.5])
@pytest.mark.parametrize("n", [1, 2, 3, 8, 13])
def test_quantile_backup_equals_the_twin(n: int, gamma: float) -> None:
    """Dyadic numbers: atoms, levels and quantiles are exact, so the atoms agree in every bit."""
    p = random_backup(n, n_rows=12, n_laws=5, gamma=gamma)
    atoms = np.sort(np.random.default_rng(n).integers(-12, 13, (5, n)) / 4.0, axis=1)
    out, error = run_quantiles(p, atoms)
    laws = [[Fraction(1, n)] * n] * 5
    for i in range(p.n_rows):
        law = mixture_of(p, i, atoms.tolist(), laws)
        expected = [lower_quantile(law, Fraction(2 * k + 1, 2 * n)) for k in range(n)]
        assert [Fraction(x) for x in out[i].tolist()] == expected
        image: Law = {}
        for x in expected:
            image[x] = image.get(x, Fraction(0)) + Fraction(1, n)
        assert abs(error[i] - float(w1(law, image))) <= 1e-15 * 8


def test_quantile_levels_survive_rounding() -> None:
    """Ten weights of 0.1 do not add up to 1 in floats; every level is met exactly all the same."""
    atoms = np.arange(11.0)[:, None]  # row j is the number j
    rows = [[(0.1, 0.0, j) for j in range(10)], [(0.1, 0.0, j) for j in reversed(range(10))]]
    out, _ = run_quantiles(backup(rows), np.repeat(atoms, 5, axis=1))  # levels 0.1, 0.3, ..., 0.9
    np.testing.assert_array_equal(out, [[0.0, 2.0, 4.0, 6.0, 8.0]] * 2)
    short = [[(0.3, 0.0, 0), (0.7 - 1e-13, 0.0, 1)], [(0.5 + 1e-13, 0.0, 1), (0.5 - 1e-13, 0.0, 0)]]
    out, _ = run_quantiles(backup(short), atoms)
    np.testing.assert_array_equal(out, [[1.0], [0.0]])


def test_quantile_levels_beyond_the_tolerance_count() -> None:
    out, _ = run_quantiles(backup([[(0.5 - 1e-11, 0.0, 0), (0.5 + 1e-11, 0.0, 1)]]), np.array([[0.0], [1.0]]))
    np.testing.assert_array_equal(out, [[1.0]])


@pytest.mark.parametrize("n", [1, 7, 64])
@pytest.mark.parametrize("edges", [1, 3, 7, 10])
def test_one_law_mixed_with_itself_is_unchanged(n: int, edges: int) -> None:
    law = np.sort(np.random.default_rng(n).normal(size=(1, n)), axis=1)
    out, error = run_quantiles(backup([[(1 / edges, 0.0, 0)] * edges]), law)
    np.testing.assert_array_equal(out, law)
    assert error[0] == 0.0


def test_an_atom_too_light_for_any_level_still_counts_as_error() -> None:
    out, error = run_quantiles(backup([[(1e-6, 1e6, -1), (1 - 1e-6, 0.0, -1)]]), np.zeros((1, 4)))
    np.testing.assert_array_equal(out, np.zeros((1, 4)))
    assert error[0] == pytest.approx(1.0, rel=1e-9)


def test_quantile_boxes_give_the_same_bits() -> None:
    p = random_backup(3, n_rows=20, n_laws=6, gamma=0.9)
    atoms = np.sort(np.random.default_rng(4).normal(size=(6, 16)), axis=1)
    whole, error = run_quantiles(p, atoms)
    out, parts = np.full_like(whole, np.nan), np.full_like(error, np.nan)
    for box in ((0, 7), (7, 8), (8, 20)):
        arrays = p.edge_ptr, p.edge_to.astype(np.int64), p.edge_prob, p.edge_reward, p.gamma
        _kernels.quantile_backup(*arrays, atoms, out, parts, box)
    np.testing.assert_array_equal(out, whole)
    np.testing.assert_array_equal(parts, error)
    assert (np.diff(whole, axis=1) >= 0).all()


def test_quantile_rows_are_sorted_in_batches_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    p = random_backup(7, n_rows=23, n_laws=6, gamma=0.9)
    atoms = np.sort(np.random.default_rng(5).normal(size=(6, 8)), axis=1)
    whole, error = run_quantiles(p, atoms)
    for keys in (1, 300, 1000):  # a row at a time, and a few
        monkeypatch.setattr(_kernels, "KEYS", keys)
        parts, errors = run_quantiles(p, atoms)
        np.testing.assert_array_equal(parts, whole)
        np.testing.assert_array_equal(errors, error)


def test_quantile_atoms_too_near_to_tell_apart_keep_their_values_and_order() -> None:
    """Two edges, one ulp apart: their order is lost in the tag, but the row is ascending and holds these values."""
    x = np.array([[-1.0, 1.0], [np.nextafter(-1.0, -2.0), np.nextafter(1.0, 0.0)]])
    for rows in ([[(0.5, 0.0, 0), (0.5, 0.0, 1)]], [[(0.5, 0.0, 1), (0.5, 0.0, 0)]]):
        out, error = run_quantiles(backup(rows), x)
        assert out[0, 0] in x[:, 0]
        assert out[0, 1] in x[:, 1]
        assert error[0] <= np.spacing(1.0)


def run_categorical(
    p: Backup, low: float, step: float, probs: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[float, float, float]]:
    out, error = np.full((p.n_rows, probs.shape[1]), np.nan), np.full(p.n_rows, np.nan)
    arrays = p.edge_ptr, p.edge_to, p.edge_prob, p.edge_reward, p.gamma
    outside = _kernels.categorical_backup(*arrays, low, step, probs, out, error, (0, p.n_rows))
    return out, error, outside


def split(law: Law, low: Fraction, step: Fraction, n: int) -> tuple[list[Fraction], Fraction]:
    """Twin: every atom to its neighbors on the grid so that its mean stays; also the sum of mass times distance."""
    probs, moved = [Fraction(0)] * n, Fraction(0)
    for x, mass in law.items():
        left = min((x - low) // step, n - 2)
        share = (x - low) / step - left
        probs[left] += mass * (1 - share)
        probs[left + 1] += mass * share
        moved += mass * 2 * share * (1 - share) * step
    return probs, moved


@pytest.mark.parametrize("gamma", [1.0, 0.5])
@pytest.mark.parametrize("n", [9, 12, 33])
def test_categorical_backup_equals_the_twin(n: int, gamma: float) -> None:
    p = random_backup(n, n_rows=10, n_laws=4, gamma=gamma)
    rng = np.random.default_rng(n)
    low, step = -4.0, 8.0 / (n - 1)  # 12: a step that floats do not hold, and no atom on the grid
    counts = rng.multinomial(32, np.full(n, 1 / n), size=4)
    grid = low + step * np.arange(n)
    counts[:, np.abs(grid) > 2] = 0  # rewards up to 2 keep the rest inside
    counts[:, n // 2] += 32 - counts.sum(axis=1)
    out, error, outside = run_categorical(p, low, step, counts / 32)
    assert outside == (0.0, low, low + step * (n - 1))
    for i in range(p.n_rows):
        law = mixture_of(p, i, [grid.tolist()] * 4, [[Fraction(int(c), 32) for c in row] for row in counts])
        probs, moved = split(law, Fraction(low), Fraction(step), n)
        np.testing.assert_allclose(out[i], [float(q) for q in probs], rtol=0, atol=1e-14)
        assert error[i] == pytest.approx(float(moved), abs=1e-14)
        exact = w1(law, {Fraction(x): q for x, q in zip(grid.tolist(), probs, strict=True)})
        assert error[i] >= float(exact) - 1e-14, "an upper bound"


def test_categorical_atoms_near_the_grid_stay_whole() -> None:
    rows = [[(1.0, 0.1 + 0.2, -1)], [(1.0, 1.0 + 1e-13, -1)], [(1.0, -1e-13, -1)]]
    out, error, outside = run_categorical(backup(rows), 0.0, 0.1, np.zeros((1, 11)))
    expected = np.zeros((3, 11))
    expected[[0, 1, 2], [3, 10, 0]] = 1.0
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(error, 0.0)
    assert outside[0] == 0.0


def test_categorical_mass_beyond_the_grid_is_reported() -> None:
    probs = np.array([[0.25, 0.75, 0.0], [1.0, 0.0, 0.0]])
    rows = [[(1.0, 0.0, 0)], [(0.5, 1.5, 0), (0.5, -2.0, 1)]]  # atoms 1.5, 2.5 and -2 on the grid 0, 1, 2
    _, _, (mass, least, greatest) = run_categorical(backup(rows), 0.0, 1.0, probs)
    assert (mass, least, greatest) == (0.5 * 0.75 + 0.5, -2.0, 2.5)


@pytest.mark.slow
def test_runs_without_compilation() -> None:
    """The same file passes as plain Python; the long rows and this test are left out."""
    if os.environ.get("NUMBA_DISABLE_JIT") == "1":
        pytest.skip("already running without compilation")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    left_out = "not longer_than_a_block and not without_compilation"
    result = subprocess.run(
        [*command, "-k", left_out],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
