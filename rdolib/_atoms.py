"""Arrays of atoms with their probabilities: merging, sums that lose little, and the checks of arguments.

Two tolerances rule here and in the modules built on it. Atoms closer than 1e-12 times the largest absolute atom are
one atom. Sums of probabilities may miss one by 1e-9 and are then divided out.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rdolib.errors import InvalidArgumentError

FloatArray = NDArray[np.float64]

CLOSE = 1e-12  # relative closeness below which two atoms, or two probability levels, are one
SUM_TOLERANCE = 1e-9  # accepted distance of a sum of probabilities from one
SUM_ROUNDING = 1e-14  # distance up to which that sum counts as one


def merge_scalars(x: FloatArray, p: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Sort and merge close atoms into the lowest of them. Shapes (N,) and (N,) to (N',) and (N',)."""
    if (x[1:] < x[:-1]).any():
        order = np.argsort(x, kind="stable")
        x, p = x[order], p[order]
    starts = group_starts(x, CLOSE * scale(x))
    if len(starts) == len(x):
        return x, p
    return x[starts], np.add.reduceat(p, starts)


def group_starts(x: FloatArray, width: float) -> NDArray[np.intp]:
    """Where groups of sorted numbers begin; none is wider than `width`, first members are further apart."""
    starts = np.flatnonzero(np.concatenate(([True], np.diff(x) > width)))
    ends = np.append(starts[1:], len(x))
    chains = np.flatnonzero(x[ends - 1] - x[starts] > width)
    extra = []
    for chain in chains:  # rare: many close atoms in a row; cut the row into groups of the right width
        start, end = starts[chain], ends[chain]
        while True:
            start = start + np.searchsorted(x[start:end], x[start] + width, side="right")
            if start >= end:
                break
            extra.append(start)
    return np.sort(np.append(starts, np.array(extra, dtype=np.intp))) if extra else starts


def merge_vectors(x: FloatArray, p: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Sort by first, second, ... component and merge exact duplicates. Shapes (N, m) and (N,)."""
    order = np.lexsort(x.T[::-1])
    x, p = x[order], p[order]
    starts = np.flatnonzero(np.concatenate(([True], (x[1:] != x[:-1]).any(axis=1))))
    return (x, p) if len(starts) == len(x) else (x[starts], np.add.reduceat(p, starts))


def cluster(x: FloatArray, atol: float) -> NDArray[np.intp]:
    """Label numbers, shape (N,), so that neighbors at most `atol` apart share a label."""
    order = np.argsort(x)
    labels = np.empty(len(x), dtype=np.intp)
    labels[order] = np.cumsum(np.concatenate(([False], np.diff(x[order]) > atol)))
    return labels


def cumulative(p: FloatArray) -> FloatArray:
    """Cumulative sums of `p`, shape (N,), in two levels.

    A running sum of a million numbers can be wrong by 1e-11. Here no number takes part in more than about
    2 * sqrt(N) additions, so a million of them stay within 1e-12.
    """
    n = len(p)
    block = math.isqrt(n - 1) + 1
    rows = np.zeros(block * block)
    rows[:n] = p
    sums = rows.reshape(block, block).cumsum(axis=1)
    sums[1:] += np.cumsum(sums[:-1, -1])[:, None]
    result: FloatArray = sums.reshape(-1)[:n]
    return result


def weighted_sum(p: FloatArray, x: FloatArray) -> float | FloatArray:
    """Sum of p_i x_i over the atoms; x has shape (N,) or (N, m)."""
    if x.ndim == 1:
        return float((p * x).sum())
    total: FloatArray = (p[:, None] * x).sum(axis=0)
    return total


def scale(x: FloatArray) -> float:
    return float(np.abs(x).max())


def checked(atoms: ArrayLike, probs: ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Fresh arrays that obey the rules of the constructor, without atoms of probability zero."""
    x = as_floats(atoms, "atoms")
    if x.ndim not in (1, 2) or x.size == 0:
        raise InvalidArgumentError(
            f"atoms must have shape (N,) or (N, m) with N and m at least 1, got shape {x.shape}; "
            "one atom is [x], one vector atom is [[x, y]]"
        )
    if x.ndim == 2 and x.shape[1] == 1:
        x = x[:, 0]
    bad = np.argwhere(~np.isfinite(x))
    if bad.size:
        place = ", ".join(map(str, bad[0]))
        raise InvalidArgumentError(
            f"atoms must be finite, got {x[tuple(bad[0])]} at index {place}; give it a number or leave it out"
        )
    p = as_probabilities(probs, len(x), "probs")
    positive = p > 0
    # Adding 0.0 turns -0.0 into 0.0, which would print oddly.
    return (x + 0.0, p) if positive.all() else (x[positive] + 0.0, p[positive])


def as_probabilities(values: ArrayLike, count: int, name: str) -> FloatArray:
    p = as_floats(values, name)
    if p.shape != (count,) or count == 0:
        raise InvalidArgumentError(
            f"{name} must hold one number for each of the {count} atoms or laws (at least one), "
            f"got shape {p.shape}; make the two lists equally long"
        )
    bad = np.flatnonzero(~((p >= 0) & np.isfinite(p)))
    if bad.size:
        raise InvalidArgumentError(
            f"{name} must be finite and nonnegative, got {p[bad[0]]:g} at index {bad[0]}; correct that entry"
        )
    total = float(p.sum())
    if abs(total - 1) > SUM_TOLERANCE:
        raise InvalidArgumentError(
            f"{name} sum to {total:.10g}; they must sum to 1 within {SUM_TOLERANCE:g}; divide them by their sum"
        )
    # A sum that is off by rounding only is left alone, so that a law built from another keeps every bit.
    return p if abs(total - 1) <= SUM_ROUNDING else p / total


def as_floats(values: Any, name: str) -> FloatArray:
    """A fresh float64 array."""
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(
            f"{name} must be real numbers in equally long rows: {error}; got {values!r:.80}"
        ) from None


def as_number(value: Any, name: str, low: float, high: float) -> float:
    """A finite float in [low, high]."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and low <= number <= high):
        bounds = "" if math.isinf(low) else f" in [{low:g}, {high:g}]" if math.isfinite(high) else f" >= {low:g}"
        raise InvalidArgumentError(f"{name} must be a finite number{bounds}, got {value!r}; correct that value")
    return number


def as_level(value: Any, tail: str) -> float:
    try:
        level = float(value)
    except (TypeError, ValueError):
        level = math.nan
    if not 0 < level <= 1:
        raise InvalidArgumentError(
            f"level must lie in (0, 1], got {value!r}; it is a fraction: {tail} five percent is level 0.05"
        )
    return level


def check_count(n: Any, name: str, least: int) -> None:
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < least:
        raise InvalidArgumentError(f"n of a {name} must be an integer, at least {least}, got {n!r}; for example n=64")


def plain(values: NDArray[np.float64] | np.float64) -> float | FloatArray:
    """A Python float instead of an array without axes."""
    return float(values) if np.ndim(values) == 0 else np.asarray(values)


def short(x: Any) -> str:
    """Six significant digits; a vector in parentheses."""
    return f"{float(x):.6g}" if np.ndim(x) == 0 else "(" + ", ".join(f"{float(v):.6g}" for v in x) + ")"
