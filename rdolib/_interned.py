"""Vector stocks as numbers: every stock that occurs is kept once and known by its place in the list.

With that, sets of (state, vector stock) are handled like sets of (state, scalar stock): a key is one number. Stocks
are counted in the units of `rdolib.stock.Units`, component by component, so that they are exact where those are, and
equal stocks reached by different paths are one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rdolib import _kernels
from rdolib.stock import Units

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Odd multipliers that spread the bits of a component over a hash.
_MULTIPLIERS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], dtype=np.uint64)
_FAR = 1e15  # coordinate of an infinite component
_NEAREST = 4  # stored stocks tried for one that was asked for


class InternedUnits:
    """The interface of `Units` for stocks (n, m): keys are places in a list of stocks, held as floats."""

    def __init__(self, units: Units, dim: int) -> None:
        self.units, self.dim = units, dim
        self.mesh, self.exact = units.mesh, units.exact
        self._count = 0
        self._store = np.empty((1024, dim), dtype=np.int64)
        self._table = np.full(4096, -1, dtype=np.int64)

    def key(self, stock: Floats) -> Floats:
        """Keys (n,) of stocks (n, m)."""
        return self._intern(self.units.key(stock))

    def stock(self, key: Floats) -> Floats:
        """Stocks (n, m) of keys (n,)."""
        return self.units.stock(self._rows(key))

    def step(self, key: Floats, reward: Floats) -> Floats:
        """Next keys; ``reward`` (n, m) in units of the mesh."""
        return self._intern(self.units.step(self._rows(key), reward))

    def candidates(self, stock: Floats, relative: float) -> list[Floats]:
        """Keys (n,) that may stand for stocks that drifted by rounding, nearest first; -1 for none."""
        rows = self.units.key(stock)
        known = self._store[: self._count].view(np.float64)
        if len(stock) == 0 or len(known) == 0:
            return [np.full(len(stock), -1.0)]
        from scipy.spatial import KDTree  # not at import: it would double the import time

        points, wanted = _points(known), _points(rows)
        _, near = KDTree(points).query(wanted, k=_NEAREST, p=np.inf)
        near = near.reshape(len(wanted), -1)
        found = np.minimum(near, len(points) - 1)  # where there are fewer than asked for, the number is too large
        miss = np.abs(points[found] - wanted[:, None, :]).max(axis=2)
        size = np.abs(wanted[:, : self.dim]).max(axis=1)
        reach = np.full(len(wanted), 0.5) if self.exact else relative * np.maximum(1.0, size)
        return list(np.where((near < len(points)) & (miss <= reach[:, None]), found, -1.0).T)

    def _rows(self, key: Floats) -> Floats:
        return np.asarray(self._store.view(np.float64)[key.astype(np.int64)])

    def _intern(self, rows: Floats) -> Floats:
        bits = np.ascontiguousarray(rows).view(np.int64).reshape(-1, self.dim)
        self._make_room(len(bits))
        ids = np.empty(len(bits), dtype=np.int64)
        self._count = int(_kernels.intern_rows(bits, _slots(bits), self._table, self._store, self._count, ids))
        return ids.astype(np.float64)

    def _make_room(self, more: int) -> None:
        needed = self._count + more
        if needed > len(self._store):
            store = np.empty((2 * needed, self.dim), dtype=np.int64)
            store[: self._count] = self._store[: self._count]
            self._store = store
        if 2 * needed > len(self._table):
            self._table = np.full(1 << (4 * needed).bit_length(), -1, dtype=np.int64)
            known = self._store[: self._count].copy()
            _kernels.intern_rows(
                known, _slots(known), self._table, self._store, 0, np.empty(len(known), dtype=np.int64)
            )


def _points(rows: Floats) -> Floats:
    """Stocks as points of a finite space: infinite components are marked in further coordinates."""
    infinite = np.isinf(rows)
    return np.concatenate([np.where(infinite, 0.0, rows), np.where(infinite, np.copysign(_FAR, rows), 0.0)], axis=1)


def _slots(bits: Ints) -> Ints:
    """Hashes (n,) of rows (n, m) of bits."""
    mixed = np.zeros(len(bits), dtype=np.uint64)
    for j, column in enumerate(bits.view(np.uint64).T):
        mixed = (mixed ^ column) * _MULTIPLIERS[j % len(_MULTIPLIERS)]
        mixed ^= mixed >> np.uint64(29)
    return mixed.view(np.int64)
