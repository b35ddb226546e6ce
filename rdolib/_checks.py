"""Checks that several builders of `rdolib.mdp.MDP` make; each says in words what is wrong and where."""

from __future__ import annotations

import operator
from collections.abc import Callable
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rdolib._canonical import Floats
from rdolib.errors import InvalidMDPError

#: Probabilities may miss a sum of 1 by this much; they are then divided by their sum.
SUM_TOLERANCE = 1e-9

LARGEST_INT32 = int(np.iinfo(np.int32).max)


def as_int(value: object) -> int | None:
    """The value as an int, or None when it is not an integer (booleans are not)."""
    if isinstance(value, (bool, np.bool_)):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def check_gamma(gamma: float) -> float:
    """The discount as a float in (0, 1]."""
    if _is_number(gamma) and 0 < gamma <= 1:
        return float(gamma)
    raise InvalidMDPError(f"gamma is {gamma!r}; it must be a number greater than 0 and at most 1")


def check_fraction(value: float, name: str) -> float:
    """The value as a float in [0, 1]."""
    if _is_number(value) and 0 <= value <= 1:
        return float(value)
    raise InvalidMDPError(f"{name} is {value!r}; it must be a number between 0 and 1")


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def check_size(size: int, name: str) -> int:
    """The size as a positive int."""
    number = as_int(size)
    if number is None or not 0 < number <= LARGEST_INT32:
        raise InvalidMDPError(f"{name} is {size!r}; it must be a positive integer")
    return number


def check_initial(initial: int | ArrayLike, n_states: int) -> int | Floats:
    """The initial state as an int, or its probability vector (a copy)."""
    state = as_int(initial)
    if state is not None:
        if not 0 <= state < n_states:
            raise InvalidMDPError(f"initial state {state} is out of range; states are 0 to {n_states - 1}")
        return state
    vector = float_array(initial, "initial")
    if vector.ndim == 0:
        raise InvalidMDPError(f"initial is {initial!r}; it must be a state (an integer) or a vector of probabilities")
    if vector.shape != (n_states,):
        raise InvalidMDPError(f"initial has shape {vector.shape}; a vector of probabilities must have ({n_states},)")
    check_probabilities(vector, lambda k: f"initial probability of state {k}")
    total: Floats = vector.sum(keepdims=True)
    check_sums(total, lambda _: "initial probabilities")
    return vector / total


def check_probabilities(prob: Floats, name: Callable[[int], str]) -> None:
    """Refuse entries outside [0, 1]; ``name(k)`` says what the entry at flat position k is."""
    bad = ~((prob >= 0) & (prob <= 1 + SUM_TOLERANCE))  # also true for nan
    if bad.any():
        k = int(np.argmax(bad))
        raise InvalidMDPError(f"{name(k)} is {show(prob.flat[k])}; it must be between 0 and 1")


def check_sums(totals: NDArray[Any], name: Callable[[int], str], hint: Callable[[int], str] = lambda _: "") -> None:
    """Refuse sums of probabilities other than 1; ``name(k)`` says what was summed, ``hint(k)`` how to mend it."""
    wrong = np.abs(totals - 1) > SUM_TOLERANCE
    if wrong.any():
        k = int(np.argmax(wrong))
        raise InvalidMDPError(f"{name(k)} sum to {show(totals.flat[k])}; they must sum to 1{hint(k)}")


def float_array(values: ArrayLike, name: str) -> Floats:
    """The values as an array of floats; not a copy where they already are one."""
    try:
        given = np.asarray(values)
        if given.dtype.kind not in "biufO":  # objects may be fractions; text and complex numbers are refused
            raise TypeError(f"its entries are of type {given.dtype}")
        return given.astype(np.float64, copy=False)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidMDPError(f"{name} is not an array of numbers: {error}") from error


def show(number: float) -> str:
    """A number as people would write it; all its digits when it would otherwise look like 1."""
    text = f"{float(number):.12g}"
    return text if text != "1" else repr(float(number))
