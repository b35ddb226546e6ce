"""What every solver returns: a table that answers for augmented states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Table(Protocol):
    """Bounds at step 0 and actions at every step, for arrays of states and stocks of equal length."""

    @property
    def rung(self) -> str:
        """How exact the answers are, and why."""

    @property
    def exact(self) -> bool:
        """Whether both bounds are the optimum up to rounding."""

    @property
    def iterations(self) -> int:
        """Sweeps or layers of the solver."""

    def bounds(self, state: Ints, stock: Floats) -> tuple[Floats, Floats]:
        """Lower and upper bounds of the optimal values at step 0."""

    def action(self, state: Ints, stock: Floats, t: int) -> NDArray[np.int32]:
        """Actions at step ``t``; 0 at terminal states."""

    def side(self, state: Ints, stock: Floats, t: int) -> NDArray[np.int8]:
        """-1 and 1 where the stock matters no more, now and later, being too low or too high; else 0."""

    def rests(self, state: Ints, stock: Floats) -> NDArray[np.bool_]:
        """Where the policy goes on for ever without any further reward."""


@dataclass(frozen=True)
class Wrapped:
    """A table that is asked through another: what a subclass does not say itself, the table inside says."""

    table: Table

    def own(self, stock: Floats) -> Floats:
        """The stocks of the table inside for stocks of this one."""
        return stock

    @property
    def rung(self) -> str:
        return self.table.rung

    @property
    def exact(self) -> bool:
        return self.table.exact

    @property
    def iterations(self) -> int:
        return self.table.iterations

    def bounds(self, state: Ints, stock: Floats) -> tuple[Floats, Floats]:
        return self.table.bounds(state, self.own(stock))

    def action(self, state: Ints, stock: Floats, t: int) -> NDArray[np.int32]:
        return self.table.action(state, self.own(stock), t)

    def side(self, state: Ints, stock: Floats, t: int) -> NDArray[np.int8]:
        return self.table.side(state, self.own(stock), t)

    def rests(self, state: Ints, stock: Floats) -> NDArray[np.bool_]:
        return self.table.rests(state, self.own(stock))


@dataclass(frozen=True)
class CutTable(Wrapped):
    """A table for a finite horizon that stands for an endless return, with the error of each state."""

    error: Floats
    sharp: bool  # whether the error is rounding

    @property
    def rung(self) -> str:
        return f"{self.table.rung}, standing for an endless return to within {float(self.error.max()):.1g}"

    @property
    def exact(self) -> bool:
        return self.sharp

    def bounds(self, state: Ints, stock: Floats) -> tuple[Floats, Floats]:
        lower, upper = self.table.bounds(state, stock)
        return lower - self.error[state], upper + self.error[state]

    def side(self, state: Ints, stock: Floats, t: int) -> NDArray[np.int8]:
        return np.zeros(len(state), dtype=np.int8)

    def rests(self, state: Ints, stock: Floats) -> NDArray[np.bool_]:
        return np.zeros(len(state), dtype=np.bool_)
