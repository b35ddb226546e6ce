"""The quantile-Huber loss and its gradient on a processor, in O((N + M) log M) for a row of N quantiles and M targets.

One quantile q costs the sum over targets t of ``w(u) h(u)``, where ``u = t - q``, the weight is tau above q and 1 - tau
below it, and h is Huber's function divided by kappa. In the sorted targets the places of ``q - kappa``, q and
``q + kappa`` cut the sum into four: far below, near below, near above, far above. Far away h is a line and near q a
parabola, so each part needs only the number of its targets, their sum and the sum of their squares: differences of
prefix sums. The slope with respect to q needs the same sums.

A difference of prefix sums loses the digits that both have in common: with kappa = 1e-8 and targets between 0 and 1, a
sum of near squares would be all rounding. Hence two kinds of sums:

- Far sums are taken around the middle target. What they lose is small against the loss of the far targets.
- Near sums start anew in every *cell*. A cell begins at a target and holds all targets up to `CELL` times kappa above
  it, and its sums are taken around its first target. So no number in a near sum is larger than kappa times a constant,
  whatever the rewards and their offset. The near targets on one side of q span at most kappa, so they lie in at most
  two cells.

Places are found by the difference ``t - q``, which is exact where t and q are close; ``q - kappa`` may be rounded to q.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rdolib import _kernels
from rdolib._kernels import kernel

Floats = NDArray[np.float64]

#: Width of a cell in units of kappa. Wide cells seldom cut the targets near a quantile in two, narrow ones are more
#: exact: the error is at most about 1e-16 times the number of targets times this width, relative to a slope of 1.
CELL = 64.0

#: One quantile or target costs as much as this many updates of the sweep for which `run_in_boxes` was tuned.
LOAD = 32


@kernel(inline=True)
def _prefix_sums(t, width, x, first, near, squares, far):  # type: ignore[no-untyped-def]
    """Sums over the targets before each target: of the same cell, of their squares, and of all; return the middle.

    `x` receives the targets; it is padded with infinity. `first` receives the place where the cell begins.
    """
    middle, cell = t[len(t) // 2], 0
    total, total_near, total_squares = 0.0, 0.0, 0.0
    for j in range(len(t)):
        x[j] = t[j]
        if t[j] - t[cell] > width:
            cell, total_near, total_squares = j, 0.0, 0.0
        first[j], near[j], squares[j], far[j] = cell, total_near, total_squares, total
        gap = t[j] - t[cell]
        total_near += gap
        total_squares += gap * gap
        total += t[j] - middle
    far[len(t)] = total
    return middle


@kernel(inline=True)
def _count(x, q, limit, closed, out):  # type: ignore[no-untyped-def]
    """For each quantile, the number of targets with ``t - q < limit`` or, if `closed`, ``<=``.

    Binary search for all quantiles at once: the inner loop has no branch and becomes vector instructions. The
    length of `x` is a power of two less one, so that no step leaves it.
    """
    step = (len(x) + 1) // 2
    middle = x[step - 1]
    for i in range(len(q)):
        gap = middle - q[i]
        out[i] = step if gap < limit or (closed and gap == limit) else 0
    while step > 1:
        step //= 2
        for i in range(len(q)):
            gap = x[np.uint64(out[i] + step - 1)] - q[i]
            out[i] += step if gap < limit or (closed and gap == limit) else 0


@kernel(inline=True)
def _near_sums(x, first, near, squares, i, j, q):  # type: ignore[no-untyped-def]
    """Sums of ``q - t`` and of its square over the targets from place i to place j, end excluded."""
    total, total_squares = 0.0, 0.0
    while j > i:
        last, start = j - np.uint64(1), max(first[j - np.uint64(1)], i)
        base = x[first[last]]
        n, d, gap = np.float64(np.int64(j - start)), q - base, x[last] - base
        total_gaps = near[last] + gap - near[start]
        total += n * d - total_gaps
        total_squares += (n * d - 2 * total_gaps) * d + (squares[last] + gap * gap - squares[start])
        j = start
    return total, total_squares


@kernel
def _rows(q, t, taus, kappa, rows, loss, slope):  # type: ignore[no-untyped-def]
    """Loss (B,) and slope (B, N) of the rows from ``rows[0]`` to ``rows[1]``; the targets are sorted in each row."""
    n, m = q.shape[1], t.shape[1]
    size = 1
    while size <= m:
        size *= 2
    x, first = np.full(size - 1, np.inf), np.empty(m, dtype=np.uint64)
    near, squares, far = np.empty(m), np.empty(m), np.empty(m + 1)
    below, at, above = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    for row in range(rows[0], rows[1]):
        middle = _prefix_sums(t[row], CELL * kappa, x, first, near, squares, far)
        _count(x, q[row], -kappa, False, below)
        _count(x, q[row], 0.0, False, at)
        _count(x, q[row], kappa, True, above)
        total = 0.0
        for i in range(n):
            y = q[row, i]
            a, b, c = np.uint64(below[i]), np.uint64(at[i]), np.uint64(above[i])
            under, over, d = np.float64(below[i]), np.float64(m - above[i]), y - middle
            lower, upper = 1 - taus[i], taus[i]
            cost = lower * (under * (d - 0.5 * kappa) - far[a]) + upper * (far[m] - far[c] - over * (d + 0.5 * kappa))
            pull = lower * under - upper * over
            if kappa > 0:  # otherwise nothing is near but targets equal to q, which cost nothing
                gaps, gap_squares = _near_sums(x, first, near, squares, a, b, y)
                more_gaps, more_squares = _near_sums(x, first, near, squares, b, c, y)
                cost += 0.5 * (lower * gap_squares + upper * more_squares) / kappa
                pull += (lower * gaps + upper * more_gaps) / kappa
            slope[row, i] = pull / m
            total += cost
        loss[row] = total / m


def loss_and_slope(quantiles: Floats, targets: Floats, taus: Floats, kappa: float) -> tuple[Floats, Floats]:
    """Loss (B,) and its slope (B, N) with respect to the quantiles (B, N), for finite targets (B, M), taus (N,)."""
    (batch, n), m = quantiles.shape, targets.shape[1]
    ordered = np.sort(targets, axis=1)  # numpy sorts short rows with vector instructions
    loss, slope = np.empty(batch), np.empty((batch, n))

    def work(box: _kernels.Box) -> None:
        if box[2] == 0:  # few rows come as boxes that differ in their columns only, and here a row is one piece
            _rows(quantiles, ordered, taus, kappa, (box[0], box[1]), loss, slope)

    _kernels.run_in_boxes(work, (n + m) * np.arange(batch + 1), LOAD)
    return loss, slope
