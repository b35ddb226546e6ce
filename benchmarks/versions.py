"""From twelve lines of numpy to the compiled sweep, version by version: ``python benchmarks/versions.py``.

All versions compute one backward sweep of the problem of `sweep.py`, and must agree bit for bit before they are timed.
Beside each time stand the bytes that the version moves for one update (a product and a sum), counted by hand from what
its loops read and write; with the measured ceilings of the machine they make a roofline.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse
from common import hardware, interleave, save
from numpy.typing import NDArray
from sweep import ACTIONS, MAX_REWARD, OUTCOMES, STATES, STOCKS, Ours, ceilings, garnet, numpy_sweeps

from rdolib import _kernels
from rdolib.mdp import MDP

Floats = NDArray[np.float64]

#: Bytes read or written for an update, an eight-byte number each.
BYTES = {
    "numpy": 8 * (5 + 3 / OUTCOMES),  # read a row, write and read the product, read and write the sum; then a maximum
    "sparse matrix": 12 + 8 + 8 * (1 + 1 + 1 / ACTIONS) / OUTCOMES,  # weight, index, value; product out, in, maximum
    "loops as written": 8 + 16 / OUTCOMES,  # read a value; read and write the best one so far
    "one outcome at a time": 8 * 3 + 8 * (3 + 1) / OUTCOMES,  # read a row, read and write the sum; clear, then compare
    "short blocks": 8 + 16 / OUTCOMES,
    "one pass": 8 + 16 / OUTCOMES,
    "one pass, with policy": 8 + 18 / OUTCOMES,
    "one pass, all threads": 8 + 16 / OUTCOMES,
}
SHORT = 64  # stocks in a short block: the block of every state fits the second-level cache


@_kernels.kernel
def loops_as_written(pair_ptr, outcome_ptr, prob, succ, shift, v, out):  # type: ignore[no-untyped-def]
    """The definition, one number at a time; stocks beyond the ends count as the ends."""
    n_states, n_stocks = out.shape
    for s in range(n_states):
        for c in range(n_stocks):
            best = -np.inf
            for j in range(pair_ptr[s], pair_ptr[s + 1]):
                q = 0.0
                for k in range(outcome_ptr[j], outcome_ptr[j + 1]):
                    q += prob[k] * v[succ[k], min(max(c + shift[k], 0), n_stocks - 1)]
                best = max(best, q)
            out[s, c] = best


@_kernels.kernel
def one_outcome_at_a_time(pair_ptr, outcome_ptr, prob, succ, shift, v, pad, out, n_stocks):  # type: ignore[no-untyped-def]
    """Shifted, padded rows, added up in a scratch row: what numpy does, compiled."""
    total = np.empty(n_stocks)
    for s in range(len(pair_ptr) - 1):
        best = out[s, pad : pad + n_stocks]
        best[:] = -np.inf
        for j in range(pair_ptr[s], pair_ptr[s + 1]):
            total[:] = 0.0
            for k in range(outcome_ptr[j], outcome_ptr[j + 1]):
                p, row = prob[k], v[succ[k], pad + shift[k] : pad + shift[k] + n_stocks]
                for i in range(n_stocks):
                    total[i] += p * row[i]
            for i in range(n_stocks):
                best[i] = total[i] if total[i] > best[i] else best[i]


def sparse_sweep(mdp: MDP) -> Callable[[Floats], Floats]:
    """The sweep as a sparse matrix on the product of states and stocks, and a maximum over the actions."""
    stock = np.arange(STOCKS)
    column = mdp.next_state[:, None] * STOCKS + np.clip(stock + mdp.reward.astype(int)[:, None], 0, STOCKS - 1)
    pairs = STATES * ACTIONS
    column = column.reshape(pairs, OUTCOMES, STOCKS).transpose(0, 2, 1)
    weight = np.broadcast_to(mdp.prob.reshape(pairs, 1, OUTCOMES), column.shape)
    starts = np.arange(pairs * STOCKS + 1, dtype=np.int32) * np.int32(OUTCOMES)
    matrix = scipy.sparse.csr_array(
        (weight.ravel(), column.ravel().astype(np.int32), starts), shape=(pairs * STOCKS, STATES * STOCKS)
    )
    return lambda v: (matrix @ v.ravel()).reshape(STATES, ACTIONS, STOCKS).max(axis=1)


def measure(turns: int = 30) -> dict[str, Any]:
    mdp = garnet()
    ours, pad = Ours(mdp), MAX_REWARD
    for _ in range(20):  # values that are no longer zeros and ones
        ours.sweep(True)
    padded, out = ours.layers[0], ours.layers[1]
    v = ours.values().copy()
    plain = np.empty_like(v)
    arrays = mdp.pair_ptr, mdp.outcome_ptr, mdp.prob, ours.succ, ours.shift
    whole = 0, STATES, 0, STOCKS
    short = [(0, STATES, c, min(c + SHORT, STOCKS)) for c in range(0, STOCKS, SHORT)]
    by_matrix = sparse_sweep(mdp)

    def window() -> Floats:
        return out[:STATES, pad : pad + STOCKS]

    def one_pass(box: _kernels.Box) -> None:
        _kernels.sweep(*arrays, padded, pad, out, box)

    versions: dict[str, tuple[Callable[[], object], Callable[[], Floats]]] = {
        "numpy": (lambda: numpy_sweeps(mdp, 1, v), lambda: numpy_sweeps(mdp, 1, v)),
        "sparse matrix": (lambda: by_matrix(v), lambda: by_matrix(v)),
        "loops as written": (lambda: loops_as_written(*arrays, v, plain), lambda: plain),
        "one outcome at a time": (lambda: one_outcome_at_a_time(*arrays, padded, pad, out, STOCKS), window),
        "short blocks": (lambda: [one_pass(box) for box in short], window),
        "one pass": (lambda: one_pass(whole), window),
        "one pass, with policy": (
            lambda: _kernels.sweep(*arrays, padded, pad, out, whole, ours.policy, 1e-12),
            window,
        ),
        "one pass, all threads": (lambda: _kernels.run_in_boxes(one_pass, ours.updates, STOCKS), window),
    }
    expected = numpy_sweeps(mdp, 1, v)
    for name, (call, answer) in versions.items():
        out[:], plain[:] = np.nan, np.nan
        call()
        np.testing.assert_array_equal(answer(), expected, err_msg=name)
    times = interleave({name: call for name, (call, _) in versions.items()}, turns)
    updates = STATES * ACTIONS * OUTCOMES * STOCKS
    return {
        "hardware": hardware(),
        "problem": {"states": STATES, "actions": ACTIONS, "outcomes": OUTCOMES, "stocks": STOCKS},
        "short_block": SHORT,
        "seconds_per_sweep": times,
        "updates_per_second": {name: updates / t["median"] for name, t in times.items()},
        "bytes_per_update": BYTES,
        "ceilings_updates_per_second": ceilings(ours),
    }


def show(result: dict[str, Any]) -> None:
    print(f"{result['hardware']['cpu']}, {result['hardware']['threads']} threads\n")
    print(f"{'':26}{'ms a sweep':>12}{'least':>12}{'updates/s':>12}{'bytes/update':>14}")
    for name, times in result["seconds_per_sweep"].items():
        speed, bytes_ = result["updates_per_second"][name], result["bytes_per_update"][name]
        print(f"{name:26}{1e3 * times['median']:12.3f}{1e3 * times['least']:12.3f}{speed:12.3g}{bytes_:14.1f}")
    for name, limit in result["ceilings_updates_per_second"].items():
        print(f"ceiling {name}: {limit:.3g} updates/s")


if __name__ == "__main__":
    started = time.perf_counter()
    outcome = measure()
    show(outcome)
    print(f"wrote {save('versions', outcome).name} after {time.perf_counter() - started:.0f} s")
