"""The compiled sweep against a plain numpy twin that shares no code with it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from rdolib import _kernels


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
