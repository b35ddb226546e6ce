"""Kernels for wealth that is a real number, known up to a cell: one month of the savings problem, backwards.

Cell ``i`` holds the wealths of ``[i, i + 1)`` in units of a cell, the last one everything from its left end on. A month
adds ``flow`` (never below zero in sum) and multiplies by a growth factor; where a cell lands is an interval of cells.
Rounding is on the safe side: an end that misses a whole number by `SLACK` counts as on the far side of it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rdolib import _kernels

Floats = NDArray[np.float64]

SLACK = 1e-9  # in cells; far above the rounding of a product of numbers up to a million, far below a cell


def _best(
    growth: Floats, prob: Floats, flow: float, up: bool, value: Floats, out: Floats, first: int, last: int
) -> None:
    """``out[first:last]``: the best mix when wealth is at the lower (or, ``up``, the upper) end of its cell.

    ``growth`` (A, K) and ``prob`` (K,); ``value`` is one month later and nondecreasing. The last cell has no upper end
    and keeps its value.
    """
    top = len(value) - 1
    for i in range(first, last):
        if up and i == top:
            out[i] = value[i]
            continue
        wealth = max(0.0, i + flow + (1.0 if up else 0.0))
        best = -np.inf
        for a in range(growth.shape[0]):
            total = 0.0
            for k in range(growth.shape[1]):
                if up:
                    cell = int(np.ceil(wealth * growth[a, k] + SLACK)) - 1
                else:
                    cell = int(np.floor(wealth * growth[a, k] - SLACK))
                total += prob[k] * value[min(max(cell, 0), top)]
            best = max(best, total)
        out[i] = best


def _follow(
    growth: Floats, prob: Floats, flow: float, mix: NDArray[Any], fine: int,
    low: Floats, high: Floats, low_out: Floats, high_out: Floats, first: int, last: int,
) -> None:  # fmt: skip
    """The least and the greatest value on each cell under the mixes of a strategy, ``mix`` (levels,).

    A level has ``fine`` cells. ``low`` and ``high`` bound the values of one month later; nothing need be monotone.
    """
    top = len(low) - 1
    for i in range(first, last):
        a = mix[min(i // fine, len(mix) - 1)]
        left, right = max(0.0, i + flow), max(0.0, i + 1 + flow)
        low_total, high_total = 0.0, 0.0
        for k in range(growth.shape[1]):
            cell = min(max(int(np.floor(left * growth[a, k] - SLACK)), 0), top)
            end = top if i == top else min(max(int(np.ceil(right * growth[a, k] + SLACK)) - 1, cell), top)
            least, greatest = low[cell], high[cell]
            for j in range(cell + 1, end + 1):
                least, greatest = min(least, low[j]), max(greatest, high[j])
            low_total += prob[k] * least
            high_total += prob[k] * greatest
        low_out[i], high_out[i] = low_total, high_total


best = _kernels.kernel(_best)
follow = _kernels.kernel(_follow)
