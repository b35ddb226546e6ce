"""The backward sweep against QuantEcon.py's, in one process: ``python benchmarks/sweep.py``.

Problem: a Garnet MDP (1000 states, 4 actions, 5 outcomes, integer rewards -3 to 3), objective
P(stock + return >= 0), gamma = 1, 50 steps, 601 stocks from -300 to 300. Stocks beyond either end count as
the end, so both sides solve the identical finite problem: ours as shifted rows, QuantEcon's `DiscreteDP` as
the explicit product of states and stocks, in the form that is fastest there (state-action pairs, sparse
matrix with 32-bit indices, output array reused, sweeps by `bellman_operator`). Values are compared before
anything is timed.

That is one sweep after the other over all 601 stocks. Besides, the problem as a user has it: `value_iteration` for all
states and these stocks, policies included, against QuantEcon's 50 sweeps with policies. It sweeps at each step only the
stocks that are not saturated yet, and finds out which ones these are, all of which counts.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse
from common import hardware, interleave, save
from numpy.typing import NDArray
from quantecon.markov import DiscreteDP

import rdolib as rdo
from rdolib import _kernels
from rdolib.mdp import MDP

STATES, ACTIONS, OUTCOMES, STOCKS, SWEEPS, MAX_REWARD = 1000, 4, 5, 601, 50, 3
TIE = 1e-12
Floats = NDArray[np.float64]


class Ours:
    """Two value layers, the transitions, and one policy layer."""

    def __init__(self, mdp: MDP, n_stocks: int = STOCKS) -> None:
        self.mdp, self.n_stocks, self.pad = mdp, n_stocks, MAX_REWARD
        self.succ = np.where(mdp.terminated, mdp.n_states, mdp.next_state).astype(np.int32)
        self.shift = mdp.reward.astype(np.int32)
        self.updates = mdp.outcome_ptr[mdp.pair_ptr]
        self.layers = [np.empty((mdp.n_states + 1, _kernels.row_width(n_stocks, self.pad))) for _ in range(2)]
        self.policy = np.zeros((mdp.n_states, n_stocks), dtype=np.uint8)
        self.start()

    def start(self) -> None:
        """The payoff: is the stock, counted from the middle, at least 0?"""
        width = self.layers[0].shape[1]
        self.layers[0][:] = self.layers[1][:] = np.arange(width) >= self.pad + self.n_stocks // 2

    def sweep(self, with_policy: bool, threads: bool = True) -> None:
        value, out = self.layers

        def work(box: _kernels.Box) -> None:
            arrays = (self.mdp.pair_ptr, self.mdp.outcome_ptr, self.mdp.prob, self.succ, self.shift)
            if with_policy:
                _kernels.sweep(*arrays, value, self.pad, out, box, self.policy, TIE)
            else:
                _kernels.sweep(*arrays, value, self.pad, out, box)
            rows, last = out[box[0] : box[1]], self.pad + self.n_stocks  # the threshold is surely missed or met outside
            rows[:, : self.pad], rows[:, last:] = rows[:, self.pad : self.pad + 1], rows[:, last - 1 : last]

        if threads:
            _kernels.run_in_boxes(work, self.updates, self.n_stocks)
        else:
            work((0, self.mdp.n_states, 0, self.n_stocks))
        self.layers = [out, value]

    def values(self) -> Floats:
        return self.layers[0][: self.mdp.n_states, self.pad : self.pad + self.n_stocks]

    def bytes(self) -> dict[str, int]:
        mdp = self.mdp
        transitions = (mdp.pair_ptr, mdp.outcome_ptr, mdp.prob, self.succ, self.shift)
        return {
            "value_layers": sum(layer.nbytes for layer in self.layers),
            "transitions": sum(array.nbytes for array in transitions),
            "policy": self.policy.nbytes,
        }


class Peer:
    """QuantEcon's `DiscreteDP` on states x stocks, stocks innermost."""

    def __init__(self, mdp: MDP) -> None:
        n = mdp.n_states * STOCKS
        stock = np.arange(STOCKS)
        column = np.clip(stock[:, None] + mdp.reward.astype(int), 0, STOCKS - 1) + mdp.next_state * STOCKS
        by_pair = (STATES, STOCKS, ACTIONS, OUTCOMES)
        column = column.reshape(STOCKS, STATES, ACTIONS, OUTCOMES).transpose(1, 0, 2, 3)
        prob = np.broadcast_to(mdp.prob.reshape(STATES, 1, ACTIONS, OUTCOMES), by_pair)
        starts = np.arange(n * ACTIONS + 1, dtype=np.int32) * np.int32(OUTCOMES)
        matrix = scipy.sparse.csr_matrix(
            (prob.ravel(), column.ravel().astype(np.int32), starts), shape=(n * ACTIONS, n)
        )
        with warnings.catch_warnings():  # "infinite horizon methods are disabled with beta=1": none is used
            warnings.simplefilter("ignore")
            self.ddp = DiscreteDP(
                np.zeros(n * ACTIONS),
                matrix,
                1.0,
                np.repeat(np.arange(n), ACTIONS),
                np.tile(np.arange(ACTIONS), n),
            )
        self.payoff = np.tile((stock >= STOCKS // 2).astype(float), STATES)
        self.value, self.out, self.policy = np.empty(n), np.empty(n), np.empty(n, dtype=int)
        self.start()

    def start(self) -> None:
        self.value[:] = self.payoff

    def sweep(self, with_policy: bool) -> None:
        self.ddp.bellman_operator(self.value, Tv=self.out, sigma=self.policy if with_policy else None)
        self.value, self.out = self.out, self.value

    def values(self) -> Floats:
        return self.value.reshape(STATES, STOCKS)

    def bytes(self) -> dict[str, int]:
        q, ddp = self.ddp.Q, self.ddp
        return {
            "matrix": q.data.nbytes + q.indices.nbytes + q.indptr.nbytes,
            "rewards_and_indices": sum(a.nbytes for a in (ddp.R, ddp.s_indices, ddp.a_indices, ddp.a_indptr)),
            "policy": self.policy.nbytes,
        }


def numpy_sweeps(mdp: MDP, n_sweeps: int, v: Floats | None = None) -> Floats:
    """The naive program: twelve lines of numpy, one shifted row at a time."""
    if v is None:
        v = np.tile((np.arange(STOCKS) >= STOCKS // 2).astype(float), (mdp.n_states, 1))
    for _ in range(n_sweeps):
        padded = np.pad(v, ((0, 0), (MAX_REWARD, MAX_REWARD)), mode="edge")
        v = np.full_like(v, -np.inf)
        for s in range(mdp.n_states):
            for pair in range(mdp.pair_ptr[s], mdp.pair_ptr[s + 1]):
                q = np.zeros(STOCKS)
                for k in range(mdp.outcome_ptr[pair], mdp.outcome_ptr[pair + 1]):
                    first = MAX_REWARD + int(mdp.reward[k])
                    q += mdp.prob[k] * padded[mdp.next_state[k], first : first + STOCKS]
                np.maximum(v[s], q, out=v[s])
    return v


def garnet(states: int = STATES, actions: int = ACTIONS, outcomes: int = OUTCOMES) -> MDP:
    return MDP.garnet(states, actions, outcomes, seed=0)


def compare(ours: Ours, peer: Peer, mdp: MDP) -> dict[str, float]:
    """Largest differences of values, and the share of states and stocks where the policies agree."""
    ours.start()
    peer.start()
    ours.sweep(True)
    naive = float(np.abs(ours.values() - numpy_sweeps(mdp, 1)).max())
    peer.sweep(True)
    for _ in range(SWEEPS - 1):
        ours.sweep(True)
        peer.sweep(True)
    difference = float(np.abs(ours.values() - peer.values()).max())
    assert max(naive, difference) <= 1e-12, (naive, difference)
    agree = float((ours.policy == peer.policy.reshape(STATES, STOCKS)).mean())
    return {"quantecon": difference, "numpy": naive, "policies_agree": agree}


def solve(mdp: MDP) -> rdo.Solution:
    """The whole problem through the public function."""
    return rdo.value_iteration(mdp, rdo.Threshold(), stock=np.arange(STOCKS) - float(STOCKS // 2), horizon=SWEEPS)


def solve_peer(peer: Peer) -> None:
    peer.start()
    for _ in range(SWEEPS):
        peer.sweep(True)


def solutions_differ(mdp: MDP, peer: Peer) -> float:
    """Largest difference between the two solutions, where no path of the peer's can have met an end of its window."""
    solve_peer(peer)
    solution, reach = solve(mdp), MAX_REWARD * SWEEPS
    inside = np.arange(reach, STOCKS - reach)
    state, stock = np.repeat(np.arange(mdp.n_states), len(inside)), np.tile(inside - float(STOCKS // 2), mdp.n_states)
    ours = solution.policy.table.bounds(state, stock)[0].reshape(mdp.n_states, -1)
    difference = float(np.abs(ours - peer.values()[:, inside]).max())
    assert difference <= 1e-12, difference
    return difference


def scaling() -> dict[str, dict[str, Any]]:
    """Seconds per sweep along each size, and the exponent of the power law fitted to them."""
    axes: dict[str, tuple[list[int], Callable[[int], Ours]]] = {
        "states": ([500, 1000, 2000, 4000], lambda n: Ours(garnet(states=n))),
        "stocks": ([301, 601, 1201, 2401], lambda n: Ours(garnet(), n)),
        "actions": ([2, 4, 8, 16], lambda n: Ours(garnet(actions=n))),
        "outcomes": ([2, 4, 6, 8, 12, 16], lambda n: Ours(garnet(outcomes=n))),
    }
    result = {}
    for axis, (sizes, build) in axes.items():
        problems = {str(size): build(size) for size in sizes}
        calls = {size: (lambda p=problem: p.sweep(True)) for size, problem in problems.items()}
        seconds = [times["median"] for times in interleave(calls, 30).values()]
        exponent = float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
        result[axis] = {"sizes": sizes, "seconds_per_sweep": seconds, "exponent": exponent}
    return result


def first_call() -> dict[str, float]:
    """Seconds of the first sweep in a fresh process, with an empty and with a filled cache on disk."""
    code = """
import time, numpy as np
from rdolib import _kernels
one, shift, rows = np.array([0, 1]), np.zeros(1, np.int32), np.ones((2, 24))
policy = np.zeros((1, 8), np.uint8)
problem = one, one, np.ones(1), shift, shift, rows, 3, rows.copy(), (0, 1, 0, 8)
for more in (), (policy, 0.0):
    start = time.perf_counter()
    _kernels.sweep(*problem, *more)
    print(time.perf_counter() - start)
"""
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
        for cache in ("empty", "filled"):
            done = subprocess.run(
                [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
            )
            values, policy = (float(word) for word in done.stdout.split())
            result |= {f"{cache}_cache_values": values, f"{cache}_cache_policy": policy}
    return result


@_kernels.kernel
def _vector_unit(row: Floats, rounds: int) -> None:
    """Eight products and eight sums per number read, in the first-level cache: arithmetic is the limit."""
    for _ in range(rounds):
        for i in range(row.size):
            x = row[i]
            y = 0.5 + x * (0.5 + x * (0.5 + x * (0.5 + x * (0.5 + x * (0.5 + x * (0.5 + x * (0.5 + x)))))))
            row[i] = y * 1e-3


@_kernels.kernel
def _stream(layer: Floats, out: Floats, rounds: int) -> None:
    """Read a whole layer, adding its rows up: the cache that holds the layer is the limit."""
    for _ in range(rounds):
        for s in range(layer.shape[0]):
            row = layer[s]
            for i in range(row.size):
                out[i] += row[i]


@_kernels.kernel
def _first_level(v: Floats, out: Floats, rounds: int) -> None:
    """Our pass (five shifted rows, summed and compared) on rows that stay in the first-level cache."""
    n = out.size
    a, b, c, d, e = v[0, 1 : n + 1], v[1, 4 : n + 4], v[2, 2 : n + 2], v[3, 5 : n + 5], v[4, 3 : n + 3]
    for _ in range(rounds):
        for i in range(n):
            x = 0.1 * a[i] + 0.2 * b[i] + 0.3 * c[i] + 0.2 * d[i] + 0.2 * e[i]
            out[i] = x if x > out[i] else out[i]


def ceilings(ours: Ours) -> dict[str, float]:
    """Updates a second (a product, a sum, eight bytes read) that this machine can do, all threads busy."""
    threads, n, layer = _kernels.n_threads(), 600, ours.layers[0]
    work = {  # what one thread does: a kernel, and how many updates that is
        "vector_unit": (lambda: _vector_unit(np.zeros(n), 10_000), 8 * n * 10_000),
        "first_level_cache": (
            lambda: _first_level(np.zeros((5, n + 8)), np.zeros(n), 20_000),
            5 * n * 20_000,
        ),
        "cache_of_the_layer": (lambda: _stream(layer, np.zeros(layer.shape[1]), 20), 20 * layer.size),
    }
    boxes = np.arange(8 * threads + 1) * 10**9, 8 * threads  # so much that every thread gets one box

    def everywhere(call: Callable[[], object]) -> Callable[[], None]:
        return lambda: _kernels.run_in_boxes(lambda box: call(), *boxes)

    times = interleave({name: everywhere(call) for name, (call, _) in work.items()}, 15)
    return {name: threads * amount / times[name]["least"] for name, (_, amount) in work.items()}


def measure() -> dict[str, Any]:
    mdp = garnet()
    ours, peer = Ours(mdp), Peer(mdp)
    differences = compare(ours, peer, mdp)
    contenders: dict[str, Callable[[], object]] = {
        "rdolib": lambda: ours.sweep(False),
        "quantecon": lambda: peer.sweep(False),
        "rdolib with policy": lambda: ours.sweep(True),
        "quantecon with policy": lambda: peer.sweep(True),
        "rdolib one thread": lambda: ours.sweep(False, threads=False),
    }
    times = interleave(contenders, 7, SWEEPS, lambda: (ours.start(), peer.start()))
    times |= interleave({"numpy": lambda: numpy_sweeps(mdp, 1)}, 7)
    differences["solution"] = solutions_differ(mdp, peer)
    solutions = interleave({"rdolib": lambda: solve(mdp), "quantecon": lambda: solve_peer(peer)}, 11)
    updates = STATES * ACTIONS * OUTCOMES * STOCKS
    memory, peer_memory = ours.bytes(), peer.bytes()
    compact = memory["value_layers"] + memory["transitions"]
    limits = ceilings(ours)
    speed = updates / times["rdolib"]["median"]
    return {
        "hardware": hardware("quantecon"),
        "problem": {
            "states": STATES,
            "actions": ACTIONS,
            "outcomes": OUTCOMES,
            "stocks": STOCKS,
            "sweeps": SWEEPS,
        },
        "differences": differences,
        "seconds_per_sweep": times,
        "seconds_per_solution": solutions,
        "updates_per_second": {name: updates / t["median"] for name, t in times.items()},
        "speed_ratio": {
            "values": times["quantecon"]["median"] / times["rdolib"]["median"],
            "with policy": times["quantecon with policy"]["median"] / times["rdolib with policy"]["median"],
            "one thread": times["quantecon"]["median"] / times["rdolib one thread"]["median"],
            "numpy": times["numpy"]["median"] / times["rdolib"]["median"],
            "solution": solutions["quantecon"]["median"] / solutions["rdolib"]["median"],
        },
        "bytes": {"rdolib": memory, "quantecon": peer_memory},
        "memory_ratio": peer_memory["matrix"] / compact,
        "ceilings_updates_per_second": limits,
        "fraction_of_ceiling": {name: speed / limit for name, limit in limits.items()},
        "scaling": scaling(),
        "first_call_seconds": first_call(),
    }


def show(result: dict[str, Any]) -> None:
    machine = result["hardware"]
    print(f"{machine['cpu']}, {machine['threads']} threads, {machine['vector_instructions']}")
    print(", ".join(f"{name} {size}" for name, size in machine["caches"].items()))
    print(", ".join(f"{name} {version}" for name, version in machine["packages"].items()))
    print(f"values differ by at most {result['differences']['quantecon']:.1e}\n")
    print(f"{'':24}{'ms a sweep':>12}{'least':>12}{'updates/s':>12}")
    for name, times in result["seconds_per_sweep"].items():
        speed = result["updates_per_second"][name]
        print(f"{name:24}{1e3 * times['median']:12.3f}{1e3 * times['least']:12.3f}{speed:12.3g}")
    for name, times in result["seconds_per_solution"].items():
        print(f"{'solution, ' + name:24}{1e3 * times['median']:12.1f}{1e3 * times['least']:12.1f}")
    ratios = ", ".join(f"{name} {ratio:.1f}" for name, ratio in result["speed_ratio"].items())
    print(f"\ntimes faster: {ratios}")
    print(f"memory: {result['bytes']}, matrix / (layers + transitions) = {result['memory_ratio']:.1f}")
    for name, limit in result["ceilings_updates_per_second"].items():
        print(f"ceiling {name}: {limit:.3g} updates/s, reached {result['fraction_of_ceiling'][name]:.0%}")
    for axis, fit in result["scaling"].items():
        print(f"time grows as {axis} ** {fit['exponent']:.2f}")
    print(", ".join(f"{name} {seconds:.2f} s" for name, seconds in result["first_call_seconds"].items()))


if __name__ == "__main__":
    started = time.perf_counter()
    outcome = measure()
    show(outcome)
    print(f"wrote {save('sweep', outcome).name} after {time.perf_counter() - started:.0f} s")
