"""One distributional backup in the quantile representation against numpy: ``python benchmarks/quantiles.py``.

Problem: every state-action pair of a Garnet MDP (1000 states, 4 actions, 5 outcomes, integer rewards -3 to 3), gamma =
0.95, laws of 64 equally likely atoms, random. A backup moves the atoms of each outcome, mixes them, and keeps the 64
quantiles at the middle levels, with the Wasserstein-1 distance that this costs. Numpy does it in two ways: on whole
arrays, as one would write it, and on pieces of rows that fit the second-level cache. A compiled version that merges the
runs of the outcomes instead of sorting runs beside ours. All results are compared before anything is timed.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from common import hardware, interleave, save
from numpy.typing import NDArray

from rdolib import _kernels
from rdolib._rows import Edges, QuantileRows
from rdolib.mdp import MDP

STATES, ACTIONS, OUTCOMES, ATOMS, GAMMA, PIECE = 1000, 4, 5, 64, 0.95, 128
Floats = NDArray[np.float64]
LEAST, GREATEST = np.int64(-(2**63)), np.int64(2**63 - 1)


def problem() -> tuple[Edges, Floats]:
    mdp = MDP.garnet(STATES, ACTIONS, OUTCOMES, seed=0)
    laws = np.sort(np.random.default_rng(1).normal(size=(STATES, ATOMS)), axis=1)
    return Edges(mdp.outcome_ptr, mdp.next_state, mdp.prob, mdp.reward), laws


def with_numpy(edges: Edges, laws: Floats, distance: bool = True) -> tuple[Floats, Floats]:
    """The backup on whole arrays: sort, cumulate, and repeat each atom as often as its mass meets levels."""
    n = edges.n_rows
    x = (edges.reward[:, None] + GAMMA * laws[edges.to]).reshape(n, OUTCOMES * ATOMS)
    order = np.argsort(x, axis=1)
    x = np.take_along_axis(x, order, axis=1)
    weight = np.repeat(edges.prob.reshape(n, OUTCOMES), ATOMS, axis=1)
    below = np.cumsum(np.take_along_axis(weight, order, axis=1), axis=1)  # the unit is the mass 1 / ATOMS
    met = np.floor(below + (0.5 + 1e-12))
    met[:, -1] = ATOMS
    times = np.diff(met, axis=1, prepend=0.0).astype(np.int64)
    quantiles = np.repeat(x.ravel(), times.ravel()).reshape(n, ATOMS)
    if not distance:
        return quantiles, np.zeros(n)
    return quantiles, (np.diff(x, axis=1) * np.abs(below - met)[:, :-1]).sum(axis=1) / ATOMS


def in_pieces(edges: Edges, laws: Floats) -> tuple[Floats, Floats]:
    parts = []
    for row in range(0, edges.n_rows, PIECE):
        ptr = edges.ptr[row : row + PIECE + 1]
        part = slice(ptr[0], ptr[-1])
        parts.append(with_numpy(Edges(ptr - ptr[0], edges.to[part], edges.prob[part], edges.reward[part]), laws))
    return np.concatenate([q for q, _ in parts]), np.concatenate([d for _, d in parts])


@_kernels.kernel(inline=True)
def _merge(x, i, n_left, j, n_right, y, k):  # type: ignore[no-untyped-def]
    """Merge the runs that begin at places `i` and `j` of `x` into one that begins at place `k` of `y`.

    A place holds two integers, a key and a weight. Before and after each run there is a fence, the least and the
    greatest key, so that no loop tests for the end of a run. Merged is from both ends at once: the two chains of
    comparisons do not wait for each other. There is no branch in the loop, so nothing can be mispredicted.
    """
    n, one, two = n_left + n_right, np.uint64(1), np.uint64(2)
    i, j, k = np.uint64(2 * i), np.uint64(2 * j), np.uint64(2 * k)
    a, b, c = i + np.uint64(2 * n_left) - two, j + np.uint64(2 * n_right) - two, k + np.uint64(2 * n) - two
    for _ in range(n // 2):
        left = x[i] <= x[j]
        least = i if left else j
        y[k] = x[least]
        y[k + one] = x[least + one]
        i += np.uint64(left) << one
        j += np.uint64(not left) << one
        k += two
        right = x[a] <= x[b]
        greatest = b if right else a
        y[c] = x[greatest]
        y[c + one] = x[greatest + one]
        b -= np.uint64(right) << one
        a -= np.uint64(not right) << one
        c -= two
    if n % 2 == 1:
        least = i if x[i] <= x[j] else j
        y[k] = x[least]
        y[k + one] = x[least + one]


@_kernels.kernel(inline=True)
def _merge_runs(x, y, run, size):  # type: ignore[no-untyped-def]
    """Merge runs of `run` places, all fenced, until one is left, which the array returned first holds at place 1."""
    while run < size:
        done, source, target = 0, 1, 1
        while done < size:
            n_left = min(run, size - done)
            n_right = min(run, size - done - n_left)
            n = n_left + n_right
            if n_right > 0:
                _merge(x, source, n_left, source + n_left + 2, n_right, y, target)
                source += 2
            else:
                for m in range(2 * n):
                    y[2 * target + m] = x[2 * source + m]
            y[2 * target - 2], y[2 * (target + n)] = LEAST, GREATEST
            source, target, done = source + n + 2, target + n + 2, done + n
        x, y = y, x
        run *= 2
    return x, y


@_kernels.kernel
def by_merging(edge_ptr, edge_to, edge_prob, edge_reward, gamma, atoms, out, error):  # type: ignore[no-untyped-def]
    """The backup with the runs of the outcomes merged two at a time, for comparison; the library sorts."""
    n = atoms.shape[1]
    half = _kernels.WHOLE // (2 * n)  # half the weight of an atom of `out`
    level = np.empty(n + 1, dtype=np.int64)
    for k in range(n):
        level[k] = (2 * k + 1) * half - np.int64(1e-12 * half * min(2 * k + 1, 2 * n - 2 * k - 1))
    level[n] = GREATEST
    edges = np.diff(edge_ptr).max()
    x, y = np.empty(2 * edges * (n + 2), dtype=np.int64), np.empty(2 * edges * (n + 2), dtype=np.int64)
    for i in range(len(edge_ptr) - 1):
        first_edge, last_edge = edge_ptr[i], edge_ptr[i + 1]
        rest, heaviest = 2 * half, first_edge
        for e in range(first_edge, last_edge):
            rest -= np.int64(np.rint(2 * half * edge_prob[e]))
            if edge_prob[e] > edge_prob[heaviest]:
                heaviest = e
        value = x.view(np.float64)
        place = 1
        for e in range(first_edge, last_edge):
            weight = np.int64(np.rint(2 * half * edge_prob[e])) + (rest if e == heaviest else 0)
            x[2 * place - 2], x[2 * (place + n)] = LEAST, GREATEST
            for k in range(n):
                z = 0.0 if edge_to[e] < 0 else atoms[edge_to[e], k]
                value[2 * (place + k)] = edge_reward[e] + gamma * z
                x[2 * (place + k)] ^= (x[2 * (place + k)] >> 63) & GREATEST
                x[2 * (place + k) + 1] = weight
            place += n + 2
        size = (last_edge - first_edge) * n
        x, y = _merge_runs(x, y, n, size)
        value = x.view(np.float64)
        for m in range(1, size + 1):
            x[2 * m] ^= (x[2 * m] >> 63) & GREATEST
        # Integrate the distance between the two distribution functions from each atom to the next.
        below, k, moved, last = 0, 0, 0.0, value[2]
        for m in range(1, size + 1):
            moved += (value[2 * m] - last) * abs(below - 2 * half * k)
            last = value[2 * m]
            below += x[2 * m + 1]
            while below >= level[k]:
                out[i, k] = last
                k += 1
        error[i] = moved / (2 * half * n)


def compare(edges: Edges, laws: Floats) -> dict[str, float]:
    """Largest differences of the quantiles and of the distances."""
    ours, expected, pieces = (
        QuantileRows(ATOMS).backup(edges, GAMMA, laws),
        with_numpy(edges, laws),
        in_pieces(edges, laws),
    )
    merged = np.empty_like(ours[0]), np.empty_like(ours[1])
    by_merging(edges.ptr, edges.to, edges.prob, edges.reward, GAMMA, laws, *merged)
    differences = {
        "quantiles": float(np.abs(ours[0] - expected[0]).max()),
        "distances": float(np.abs(ours[1] - expected[1]).max()),
        "merging": float(np.abs(merged[0] - expected[0]).max()),
        "pieces": float(np.abs(pieces[0] - expected[0]).max()),
    }
    assert max(differences.values()) <= 1e-12, differences
    return differences


def measure(turns: int = 40) -> dict[str, Any]:
    edges, laws = problem()
    differences = compare(edges, laws)
    rows = QuantileRows(ATOMS)
    out, error = np.empty((edges.n_rows, ATOMS)), np.empty(edges.n_rows)
    arrays = edges.ptr, edges.to, edges.prob, edges.reward, GAMMA, laws, out, error
    times = interleave(
        {
            "rdolib": lambda: rows.backup(edges, GAMMA, laws),
            "rdolib one thread": lambda: _kernels.quantile_backup(*arrays, (0, edges.n_rows)),
            "merging, one thread": lambda: by_merging(*arrays),
            "numpy": lambda: with_numpy(edges, laws),
            "numpy without the distance": lambda: with_numpy(edges, laws, distance=False),
            "numpy in pieces": lambda: in_pieces(edges, laws),
        },
        turns,
    )
    ours = times["rdolib"]["median"]
    return {
        "hardware": hardware(),
        "problem": {"rows": edges.n_rows, "outcomes": OUTCOMES, "atoms": ATOMS},
        "differences": differences,
        "seconds_per_backup": times,
        "speed_ratio": {name: t["median"] / ours for name, t in times.items()},
        "atoms_per_second": {name: edges.n_rows * OUTCOMES * ATOMS / t["median"] for name, t in times.items()},
    }


def show(result: dict[str, Any]) -> None:
    print(f"{result['hardware']['cpu']}, {result['hardware']['threads']} threads")
    print(f"differences: {result['differences']}\n")
    print(f"{'':28}{'ms a backup':>12}{'least':>12}{'atoms/s':>12}{'rdolib is':>12}")
    for name, times in result["seconds_per_backup"].items():
        speed, ratio = result["atoms_per_second"][name], result["speed_ratio"][name]
        print(f"{name:28}{1e3 * times['median']:12.3f}{1e3 * times['least']:12.3f}{speed:12.3g}{ratio:11.1f}x")


if __name__ == "__main__":
    started = time.perf_counter()
    outcome = measure()
    show(outcome)
    print(f"wrote {save('quantiles', outcome).name} after {time.perf_counter() - started:.0f} s")
