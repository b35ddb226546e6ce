"""Compiled kernels: arrays in, `out` arrays filled, nothing checked.

Callers guarantee what each docstring states; a wrong index here reads foreign memory. The one option set for
all kernels is `kernel` below. Everything also runs as plain Python under ``NUMBA_DISABLE_JIT=1``.

The backward sweep of stock-augmented dynamic programming (gamma = 1, stocks on a lattice) is

    V_out[s, c] = max over pairs (s, a) of  sum over outcomes k of  prob_k * V_next[successor_k, c + shift_k],

a maximum of sums of *shifted rows*. Four choices make it run near the speed of the memory system:

- The stock axis is innermost and contiguous, so that the loop over stocks is a vector loop.
- Rows are padded at both ends, so that ``c + shift`` never leaves its row and the loop has no branch.
- A pair with up to six outcomes is one pass over the stocks: the sum stays in a register, and the maximum and
  the policy are updated in the same pass. More outcomes are summed in a scratch row first.
- Terms are added in the order of the table, each product rounded before it is added. Nothing is fused or
  reordered, so results are the same bit for bit on every processor, thread count and block size, and equal to
  the plain Python run. (Fused multiply-adds were measured: no faster, since loads are the limit.)
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

Function = TypeVar("Function", bound=Callable[..., Any])
Floats = NDArray[np.float64]
Pointers = NDArray[np.int64]
Numbers = NDArray[np.int32]
Box = tuple[int, int, int, int]  # first state, last state, first stock, last stock; ends excluded
Rows = tuple[int, int]  # first row, last row; end excluded

LINE = 8  # float64 numbers in a cache line, and in the widest vector register
BLOCK = 1024  # stocks handled at once: the rows written again and again stay in the first-level cache
FUSED = 6  # outcomes summed in one pass
LARGEST = np.int64(2**63 - 1)
WHOLE = 2**62  # weight of a law where weights are integers
KEYS = 2**15  # integers sorted at a time: they stay in the second-level cache
THREAD_WORK = 400_000  # updates below which waking another thread (some 30 microseconds) does not pay


def kernel(function: Function | None = None, *, inline: bool = False) -> Any:
    """The decorator of every kernel; it owns all of numba's options.

    - ``nogil``: several Python threads run kernels at once (`run_in_boxes`). ``parallel=True`` was measured:
      a fifth faster on an idle machine, but its threads spin while they wait, so that it was several times
      slower on a busy one, and every kernel takes seconds longer to compile.
    - ``cache``: the machine code is kept on disk, so that only the first use on a machine compiles.
    - ``error_model="numpy"``: a division by zero gives infinity or NaN instead of a branch that raises.
    - ``fastmath`` stays off, all of it: no flag was measurably faster, "reassoc" and "contract" would let
      printed numbers change with the processor, "nnan" and "ninf" would delete tests for NaN and infinity.
    - ``inline`` marks pieces that LLVM must inline, because their callers pass constants (the number of
      terms) whose branches have to vanish from the loop. They are cached as parts of their callers.
    """

    def decorate(f: Function) -> Any:
        if inline:
            return njit(f, nogil=True, error_model="numpy", forceinline=True)
        return njit(f, nogil=True, cache=True, error_model="numpy")

    return decorate if function is None else decorate(function)


@kernel(inline=True)
def _terms(prob, succ, shift, k, last, width, start):  # type: ignore[no-untyped-def]
    """Weights of the six outcomes from `k` on, and where in the flat layer their shifted rows begin.

    Beyond outcome `last`, the end of its pair, that one is named again; such terms are not used.
    """
    k1, k2, k3 = min(k + 1, last), min(k + 2, last), min(k + 3, last)
    k4, k5 = min(k + 4, last), min(k + 5, last)
    p = prob[k], prob[k1], prob[k2], prob[k3], prob[k4], prob[k5]
    at = (
        np.uint64(succ[k] * width + shift[k] + start),
        np.uint64(succ[k1] * width + shift[k1] + start),
        np.uint64(succ[k2] * width + shift[k2] + start),
        np.uint64(succ[k3] * width + shift[k3] + start),
        np.uint64(succ[k4] * width + shift[k4] + start),
        np.uint64(succ[k5] * width + shift[k5] + start),
    )
    return p, at


@kernel(inline=True)
def _pass(v, n, out, add, policy, index, tol, count, p, at):  # type: ignore[no-untyped-def]
    """One pass over `n` stocks: a sum of `count` shifted rows, added to `out` or compared with it.

    Row k of the sum is ``v[at[k] : at[k] + n]`` with weight ``p[k]``. `count` and `add` are constants at each
    call and `policy` may be None, so only the work in use remains in the loop. Unsigned indices spare the
    test for negative ones, which would bar vector instructions.
    """
    for j in range(n):
        i = np.uint64(j)
        x = p[0] * v[at[0] + i]
        if add:
            x = out[i] + x
        if count > 1:
            x += p[1] * v[at[1] + i]
        if count > 2:
            x += p[2] * v[at[2] + i]
        if count > 3:
            x += p[3] * v[at[3] + i]
        if count > 4:
            x += p[4] * v[at[4] + i]
        if count > 5:
            x += p[5] * v[at[5] + i]
        if add:
            out[i] = x
        else:
            best = out[i]
            if policy is not None:
                policy[i] = index if x > best + tol else policy[i]
            out[i] = x if x > best else best


@kernel
def sweep(
    pair_ptr: Pointers,
    outcome_ptr: Pointers,
    prob: Floats,
    succ: Numbers,
    shift: Numbers,
    v_next: Floats,
    pad: int,
    out: Floats,
    box: Box,
    policy: NDArray[Any] | None = None,
    tol: float = 0.0,
) -> None:
    """One backward sweep of gamma = 1 dynamic programming on a lattice of stocks.

    Parameters
    ----------
    pair_ptr, outcome_ptr, prob
        (S + 1,), (n_pairs + 1,), (n_outcomes,): the transitions, as in `MDP`. Every pair has an outcome.
    succ
        (n_outcomes,) int32: row of `v_next` that each outcome leads to; the last row where the return ends.
    shift
        (n_outcomes,) int32: reward of each outcome in mesh units, at most `pad` in absolute value.
    v_next
        (S + 1, width) float64, C-contiguous: values one step later, column ``pad + i`` for stock i, with
        ``width >= pad + C + pad`` and the columns outside filled. Row S is the payoff of ended returns.
    pad
        Columns before stock 0.
    out
        (S or more, width) float64: receives the values, the true maximum even where actions tie. States
        without pairs (terminal) receive the last row of `v_next`. Columns outside the stocks are not
        written.
    box
        (first state, last state, first stock, last stock), ends excluded: the part of `out` to compute.
        Threads may compute different boxes at once.
    policy
        (S, C) uint8, or a wider unsigned type where a state has more than 256 pairs: receives the index
        within its state of a maximizing pair, 0 where there is none. None: values only (compiled apart).
    tol
        Tie tolerance, absolute: a later pair takes over only if it beats the best value so far by more than
        this. The chosen pair is thus within ``(pairs of the state - 1) * tol`` of the maximum, and is the
        lowest maximizer where values differ by rounding only.
    """
    first_state, last_state, first_stock, last_stock = box
    v = v_next.reshape(-1)
    width = v_next.shape[1]
    end_row = v_next.shape[0] - 1
    zero = np.uint64(0)
    scratch = np.empty(min(BLOCK, last_stock - first_stock))
    for block in range(first_stock, last_stock, BLOCK):
        n = min(BLOCK, last_stock - block)
        start = pad + block
        for s in range(first_state, last_state):
            first_pair, last_pair = pair_ptr[s], pair_ptr[s + 1]
            row = out[s, start : start + n]
            for i in range(n):
                row[i] = v_next[end_row, start + i] if first_pair == last_pair else -np.inf
            if policy is None:
                owner, index = None, 0
            else:
                owner, index = policy[s, block : block + n], policy.dtype.type(0)
                owner[:] = 0
            for j in range(first_pair, last_pair):
                if policy is not None:
                    index = policy.dtype.type(j - first_pair)
                k, last = outcome_ptr[j], outcome_ptr[j + 1] - 1
                count = last - k + 1
                if count > FUSED:  # sum two at a time in a scratch row, the only term of the final pass
                    for i in range(n):
                        scratch[i] = 0.0
                    for m in range(k, last, 2):
                        p, at = _terms(prob, succ, shift, m, last, width, start)
                        _pass(v, n, scratch, True, None, 0, 0.0, 2, p, at)
                    if count % 2 == 1:
                        p, at = _terms(prob, succ, shift, last, last, width, start)
                        _pass(v, n, scratch, True, None, 0, 0.0, 1, p, at)
                    p, at = (1.0, 0.0, 0.0, 0.0, 0.0, 0.0), (zero, zero, zero, zero, zero, zero)
                    _pass(scratch, n, row, False, owner, index, tol, 1, p, at)
                    continue
                p, at = _terms(prob, succ, shift, k, last, width, start)
                if count == 1:
                    _pass(v, n, row, False, owner, index, tol, 1, p, at)
                elif count == 2:
                    _pass(v, n, row, False, owner, index, tol, 2, p, at)
                elif count == 3:
                    _pass(v, n, row, False, owner, index, tol, 3, p, at)
                elif count == 4:
                    _pass(v, n, row, False, owner, index, tol, 4, p, at)
                elif count == 5:
                    _pass(v, n, row, False, owner, index, tol, 5, p, at)
                else:
                    _pass(v, n, row, False, owner, index, tol, 6, p, at)


@kernel
def strong_components(
    first_edge: Pointers, edge_to: NDArray[Any], component: Pointers, cyclic: NDArray[np.bool_]
) -> None:
    """Strongly connected components by Tarjan's algorithm, numbered successors first.

    Node ``v`` has the edges ``first_edge[v]:first_edge[v + 1]``. Fills ``component`` and sets ``cyclic`` for nodes of
    components with more than one node and for nodes with an edge to themselves.
    """
    n = len(first_edge) - 1
    index = np.full(n, -1, dtype=np.int64)
    low = np.empty(n, dtype=np.int64)
    cursor = first_edge[:-1].copy()
    open_ = np.empty(n, dtype=np.int64)  # nodes whose component is not closed yet
    is_open = np.zeros(n, dtype=np.bool_)
    path = np.empty(n, dtype=np.int64)  # the depth-first path
    n_open = 0
    n_seen = 0
    n_components = 0
    for root in range(n):
        if index[root] >= 0:
            continue
        depth = 0
        path[0] = root
        index[root] = low[root] = n_seen
        n_seen += 1
        open_[n_open] = root
        is_open[root] = True
        n_open += 1
        while depth >= 0:
            v = path[depth]
            if cursor[v] < first_edge[v + 1]:
                w = edge_to[cursor[v]]
                cursor[v] += 1
                if w == v:
                    cyclic[v] = True
                if index[w] < 0:
                    index[w] = low[w] = n_seen
                    n_seen += 1
                    open_[n_open] = w
                    is_open[w] = True
                    n_open += 1
                    depth += 1
                    path[depth] = w
                elif is_open[w]:
                    low[v] = min(low[v], index[w])
                continue
            depth -= 1
            if depth >= 0:
                low[path[depth]] = min(low[path[depth]], low[v])
            if low[v] == index[v]:
                many = open_[n_open - 1] != v
                while True:
                    n_open -= 1
                    w = open_[n_open]
                    is_open[w] = False
                    component[w] = n_components
                    if many:
                        cyclic[w] = True
                    if w == v:
                        break
                n_components += 1


@kernel
def backup_acyclic(
    nodes: Pointers,
    pair_ptr: Pointers,
    base: Floats,
    edge_ptr: Pointers,
    edge_to: NDArray[Any],
    edge_weight: Floats,
    stop: Floats,
    tie: float,
    value: Floats,
    choice: Pointers,
) -> None:
    """Values and lowest maximizing pairs of ``nodes``, each of whose successors is solved before it."""
    for v in nodes:
        best = -np.inf
        for j in range(pair_ptr[v], pair_ptr[v + 1]):
            q = base[j]
            for e in range(edge_ptr[j], edge_ptr[j + 1]):
                q += edge_weight[e] * value[edge_to[e]]
            best = max(best, q)
        chosen = -1
        threshold = best - tie * max(1.0, abs(best))
        for j in range(pair_ptr[v], pair_ptr[v + 1]):
            q = base[j]
            for e in range(edge_ptr[j], edge_ptr[j + 1]):
                q += edge_weight[e] * value[edge_to[e]]
            if q >= threshold:
                chosen = j - pair_ptr[v]
                break
        if stop[v] > best:
            best = stop[v]
            chosen = -1
        value[v] = best
        choice[v] = chosen


@kernel
def recurse_stocks(
    pair_ptr: Pointers,
    outcome_ptr: Pointers,
    prob: Floats,
    succ: Pointers,
    shift: Pointers,
    saturated: Pointers,
    mean: Floats,
    slope: float,
    stock: Floats,
    direction: int,
    pad: int,
    tie: float,
    value: Floats,
    choice: NDArray[Any],
    none: int,
) -> None:
    """One pass over the stocks of an MDP whose every unfinished reward moves the stock in ``direction``.

    ``value`` is (pad + C + pad, S + 1), stock-major, so that a stock's successors are finished rows. Its last column
    is the worth of ended returns and its pads hold saturated values, both filled by the caller. Row ``pad + i``
    belongs to ``stock[i]``. ``saturated[s]`` is the number of rows, in the order of the pass, whose stock is
    saturated at ``s``; there the value is ``slope * stock + mean[s]``. ``choice`` (C, S) gets the lowest maximizing
    pair of each state, ``none`` where saturated.
    """
    n_stocks = len(stock)
    n_states = len(pair_ptr) - 1
    for step in range(n_stocks):
        i = step if direction > 0 else n_stocks - 1 - step
        row = pad + i
        for s in range(n_states):
            if step < saturated[s]:
                value[row, s] = slope * stock[i] + mean[s]
                choice[i, s] = none
                continue
            if pair_ptr[s] == pair_ptr[s + 1]:
                value[row, s] = value[row, n_states]
                choice[i, s] = none
                continue
            best = -np.inf
            chosen = -1
            incumbent = -np.inf
            for j in range(pair_ptr[s], pair_ptr[s + 1]):
                q = 0.0
                for k in range(outcome_ptr[j], outcome_ptr[j + 1]):
                    q += prob[k] * value[row + shift[k], succ[k]]
                best = max(best, q)
                # (a worth of minus infinity has no tolerance around it)
                if chosen < 0 or incumbent == -np.inf or q > incumbent + tie * max(1.0, abs(incumbent)):
                    incumbent = q
                    chosen = j - pair_ptr[s]
            value[row, s] = best
            choice[i, s] = chosen


@kernel
def sweep_grid(
    pair_ptr: Pointers,
    outcome_ptr: Pointers,
    prob: Floats,
    succ: Pointers,
    reward_id: Pointers,
    target: NDArray[np.int32],
    inner: Pointers,
    carried: Floats,
    low: Floats,
    high: Floats,
    slopes: tuple[float, float],
    v: Floats,
    out: Floats,
    box: tuple[int, int, int, int],
    policy: NDArray[Any],
    tie: float,
) -> None:
    """One sweep over a grid of stocks when ``gamma < 1``: a maximum of sums of gathered rows.

    ``target`` (n_rewards, C) is the grid index after each reward, valid for ``inner[r, 0] <= i < inner[r, 1]``;
    before and after, the next stock ``carried[r, i]`` is saturated, worth ``slopes[0] * stock + low[s]`` below and
    ``slopes[1] * stock + high[s]`` above. Row S of ``low``, ``high`` and ``v`` belongs to ended returns. ``prob``
    carries the discount of one step.
    """
    first_state, last_state, first, last = box
    total = np.empty(last - first)
    incumbent = np.empty(last - first)
    for s in range(first_state, last_state):
        if pair_ptr[s] == pair_ptr[s + 1]:
            continue
        out[s, first:last] = -np.inf
        for j in range(pair_ptr[s], pair_ptr[s + 1]):
            total[:] = 0.0
            for k in range(outcome_ptr[j], outcome_ptr[j + 1]):
                r = reward_id[k]
                p = prob[k]
                n = succ[k]
                start = min(max(inner[r, 0], first), last)
                stop = max(min(inner[r, 1], last), start)
                for i in range(first, start):
                    total[i - first] += p * (slopes[0] * carried[r, i] + low[n])
                for i in range(start, stop):
                    total[i - first] += p * v[n, target[r, i]]
                for i in range(stop, last):
                    total[i - first] += p * (slopes[1] * carried[r, i] + high[n])
            index = j - pair_ptr[s]
            for i in range(last - first):
                if index == 0 or total[i] > incumbent[i] + tie * max(1.0, abs(incumbent[i])):
                    incumbent[i] = total[i]
                    policy[s, first + i] = index
                if total[i] > out[s, first + i]:
                    out[s, first + i] = total[i]


@kernel(inline=True)
def _tag_bits(edges):  # type: ignore[no-untyped-def]
    """The last bits of an integer, as many as it takes to number `edges` edges."""
    mask = 0
    while mask < edges - 1:
        mask = 2 * mask + 1
    return mask


@kernel
def _mixture_keys(edge_ptr, edge_to, edge_reward, gamma, atoms, keys, first_row):  # type: ignore[no-untyped-def]
    """Fill row i of `keys` with the atoms of row ``first_row + i``: an integer each, its edge in the last bits.

    The bits of floats, read as integers, are in the order of the floats once those of negative ones are turned.
    """
    n = atoms.shape[1]
    values = keys.view(np.float64)
    for i in range(keys.shape[0]):
        first, last = edge_ptr[first_row + i], edge_ptr[first_row + i + 1]
        tag_bits = _tag_bits(last - first)
        for e in range(first, last):
            place = (e - first) * n
            value, part = values[i, place : place + n], keys[i, place : place + n]
            if edge_to[e] < 0:
                value[:] = edge_reward[e]
            else:
                law = atoms[edge_to[e]]
                for k in range(n):
                    value[k] = edge_reward[e] + gamma * law[k]
            for k in range(n):
                key = part[k] ^ ((part[k] >> 63) & LARGEST)
                part[k] = (key & ~tag_bits) | (e - first)
        keys[i, (last - first) * n :] = LARGEST


@kernel
def _read_quantiles(  # type: ignore[no-untyped-def]
    edge_ptr, edge_to, edge_prob, edge_reward, gamma, atoms, keys, first_row, out, error
):
    """Run through the sorted keys of each row: cumulate the weights and note which atom meets each level."""
    n = atoms.shape[1]
    shift = 0  # an atom of `out` weighs 2**shift
    while n << shift <= WHOLE // 2:
        shift += 1
    unit = np.int64(1) << shift
    half, whole = unit >> 1, n * unit
    edges = keys.shape[1] // n
    weight, seen = np.empty(edges, dtype=np.int64), np.empty(edges, dtype=np.int64)
    tag, met = np.empty(keys.shape[1], dtype=np.int64), np.empty(n + 1, dtype=np.int64)
    values = keys.view(np.float64)
    for i in range(keys.shape[0]):
        row, first = first_row + i, edge_ptr[first_row + i]
        count = edge_ptr[row + 1] - first
        tag_bits, rest, heaviest = _tag_bits(count), unit, 0
        for e in range(count):
            weight[e], seen[e] = np.int64(np.rint(unit * edge_prob[first + e])), 0
            rest -= weight[e]
            heaviest = e if weight[e] > weight[heaviest] else heaviest
        weight[heaviest] += rest
        key, value = keys[i], values[i]
        for m in range(count * n):
            tag[m] = key[m] & tag_bits
            bits = key[m] & ~tag_bits
            key[m] = bits ^ ((bits >> 63) & LARGEST)
        below, k, moved, last = np.int64(0), np.int64(0), 0.0, value[0]
        for m in range(count * n):
            owner = np.uint64(tag[m])
            moved += (value[m] - last) * abs(below - (k << shift))  # area between the two distribution functions
            last = value[m]
            below += weight[owner]
            met[np.uint64(k)] = (seen[owner] << 32) | tag[m]  # the last atom noted for a level is the one that meets it
            seen[owner] += 1
            k = (below + half + (min(below, whole - below) >> 40)) >> shift  # levels met so far
        error[row] = moved / whole
        highest = -np.inf
        for j in range(n):
            edge = np.uint64(first + (met[j] & 0xFFFFFFFF))
            x = edge_reward[edge]
            if edge_to[edge] >= 0:
                x += gamma * atoms[edge_to[edge], np.uint64(met[j] >> 32)]
            highest = max(highest, x)
            out[row, j] = highest


def quantile_backup(
    edge_ptr: Pointers,
    edge_to: NDArray[Any],
    edge_prob: Floats,
    edge_reward: Floats,
    gamma: float,
    atoms: Floats,
    out: Floats,
    error: Floats,
    box: Rows,
) -> None:
    """Bellman backup in the quantile representation: N equally likely atoms stand for a law.

    Row i of `out` gets the lower quantiles at the levels ``(k + 1/2) / N`` of the mixture, over the edges e of row
    i with weights ``edge_prob[e]``, of the laws of ``edge_reward[e] + gamma * X[edge_to[e]]``.

    The atoms of an edge are already in order, yet numpy's sort of integers, which uses vector instructions, was faster
    than merging the edges two at a time, from both ends and without a branch (benchmarks/quantiles.py times both). So
    each atom becomes an integer with its edge in the last bits. Atoms nearer than these bits (2**-49 of their size
    with up to eight edges) may trade places; their values are exact. Weights are integers with the same sum in every
    row (the heaviest edge takes the remainder), so that cumulated weights do not depend on the order of the atoms.
    One that misses a level by less than 2**-40 of the smaller of the two tails, 0.9e-12, counts as that level.

    Parameters
    ----------
    edge_ptr
        (n + 1,): row i of `out` has the edges ``edge_ptr[i]:edge_ptr[i + 1]``, at least one.
    edge_to
        (n_edges,), integers: the row of `atoms` that an edge leads to, -1 for a return that has ended (it is 0).
    edge_prob, edge_reward
        (n_edges,): weights, at least 0, with sum 1 in each row up to rounding; rewards, finite.
    gamma
        Discount, at least 0.
    atoms
        (n_rows, N): finite, each row ascending.
    out
        (n, N): receives the atoms, each row ascending. Not `atoms` itself.
    error
        (n,): receives the Wasserstein-1 distance between the mixture and the row, exact up to rounding.
    box
        (first, last): the rows to compute. Threads may compute different boxes at once.
    """
    first, last = box
    size = int(np.diff(edge_ptr[first : last + 1]).max(initial=1)) * atoms.shape[1]
    step = max(1, KEYS // size)
    buffer = np.empty((min(step, last - first), size), dtype=np.int64)
    for row in range(first, last, step):
        keys = buffer[: min(step, last - row)]
        _mixture_keys(edge_ptr, edge_to, edge_reward, gamma, atoms, keys, row)
        keys.sort(axis=1)
        _read_quantiles(edge_ptr, edge_to, edge_prob, edge_reward, gamma, atoms, keys, row, out, error)


@kernel
def categorical_backup(
    edge_ptr: Pointers,
    edge_to: NDArray[Any],
    edge_prob: Floats,
    edge_reward: Floats,
    gamma: float,
    low: float,
    step: float,
    probs: Floats,
    out: Floats,
    error: Floats,
    box: Rows,
) -> tuple[float, float, float]:
    """Bellman backup in the categorical representation: probabilities of the grid points ``low + step * k``.

    Row i of `out` gets the projection of the mixture, over the edges e of row i with weights ``edge_prob[e]``, of the
    laws of ``edge_reward[e] + gamma * X[edge_to[e]]``: an atom is split between its two neighbors on the grid so that
    its mean stays. One within 1e-12 of the largest grid point stays whole, as in `CategoricalGrid`.

    Parameters
    ----------
    edge_ptr, edge_to, edge_prob, edge_reward, gamma, box
        As in `quantile_backup`.
    low, step
        The grid; step > 0.
    probs
        (n_rows, N), N at least 2: probabilities of the grid points.
    out
        (n, N): receives the probabilities. Not `probs` itself.
    error
        (n,): receives the sum of mass times distance moved, an upper bound of the Wasserstein-1 distance between the
        mixture and the row (attained if no two atoms of the mixture fall between the same two grid points).

    Returns
    -------
    mass, least, greatest
        Where atoms with positive weight lie beyond the grid, they are counted at its end, which is wrong: the caller
        must refuse. `mass` is the largest mass of a row out there, 0 where all is well; `least` and `greatest` are the
        extreme atoms, the ends of the grid if no atom is beyond.
    """
    first_row, last_row = box
    n = probs.shape[1]
    high = low + step * (n - 1)
    near = 1e-12 * max(abs(low), abs(high))
    mass, least, greatest = 0.0, low, high
    for i in range(first_row, last_row):
        out[i, :] = 0.0
        moved, outside = 0.0, 0.0
        for e in range(edge_ptr[i], edge_ptr[i + 1]):
            ended = edge_to[e] < 0
            for k in range(1 if ended else n):
                p = edge_prob[e] if ended else edge_prob[e] * probs[edge_to[e], k]
                if p == 0.0:
                    continue
                x = edge_reward[e] if ended else edge_reward[e] + gamma * (low + step * k)
                if x < low - near or x > high + near:
                    outside += p
                    least, greatest = min(least, x), max(greatest, x)
                at = min(max(x, low), high) - low
                left = min(int(at / step), n - 2)
                above = at - step * left  # distance from the left neighbor
                if above <= near:
                    above = 0.0
                elif step - above <= near:
                    above = step
                out[i, left] += p * (1.0 - above / step)
                out[i, left + 1] += p * (above / step)
                moved += 2.0 * p * above * (1.0 - above / step)
        error[i] = moved
        mass = max(mass, outside)
    return mass, least, greatest


@kernel
def intern_rows(rows: Pointers, slot: Pointers, table: Pointers, store: Pointers, count: int, ids: Pointers) -> int:
    """Numbers of rows in a hash table with open addressing; rows not met before get the next numbers.

    ``rows`` (n, m) int64 (the bits of floats), ``slot`` (n,) where each row's search begins, ``table`` int64 of a power
    of two, -1 where empty, with room for all; ``store`` (capacity, m) holds the rows met so far, ``count`` of them.
    Fills ``ids`` (n,) and returns the new count.
    """
    mask = len(table) - 1
    m = rows.shape[1]
    for i in range(len(rows)):
        at = slot[i] & mask
        while table[at] >= 0:
            known = table[at]
            same = True
            for j in range(m):
                if store[known, j] != rows[i, j]:
                    same = False
                    break
            if same:
                break
            at = (at + 1) & mask
        if table[at] < 0:
            table[at] = count
            for j in range(m):
                store[count, j] = rows[i, j]
            count += 1
        ids[i] = table[at]
    return count


def index_type(pair_ptr: Pointers) -> type[np.unsignedinteger[Any]]:
    """Type of a table of pair numbers within a state, with room for one number that means none."""
    return np.uint8 if int(np.diff(pair_ptr).max(initial=0)) < 256 else np.uint16


def row_width(n_stocks: int, pad: int) -> int:
    """Width of a padded row: at least ``pad + n_stocks + pad``, an odd number of cache lines.

    Rows an even number of lines apart (at worst a power of two) would crowd into few sets of the cache.

    >>> row_width(601, 3)
    616
    """
    lines = -(-(n_stocks + 2 * pad) // LINE)
    return LINE * (lines + 1 - lines % 2)


@cache
def n_threads() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@cache
def _pool() -> ThreadPoolExecutor:
    """The helper threads; the calling thread works too."""
    return ThreadPoolExecutor(n_threads() - 1, thread_name_prefix="rdolib")


if hasattr(os, "register_at_fork"):  # a forked child has no helper threads and must make its own
    os.register_at_fork(after_in_child=_pool.cache_clear)


def split_in_boxes(updates: NDArray[np.integer[Any]], n_stocks: int, pieces: int) -> list[Box]:
    """At most `pieces` boxes (first state, last state, first stock, last stock) of nearly equal work.

    `updates` (S + 1,) counts the outcomes to sum per stock, cumulated over the states: that is
    ``outcome_ptr[pair_ptr]``. Many states are split by states (long rows are fastest), few by stocks.

    >>> split_in_boxes(np.array([0, 2, 2, 4]), 24, 2)
    [(0, 3, 0, 16), (0, 3, 16, 24)]
    """
    n_states = len(updates) - 1
    if n_states >= 8 * pieces:
        targets = updates[-1] * np.arange(1, pieces) // pieces
        cuts = [0, *np.searchsorted(updates, targets).tolist(), n_states]
        return [(a, b, 0, n_stocks) for a, b in pairwise(cuts) if a < b]
    step = LINE * max(1, -(-n_stocks // (LINE * pieces)))
    return [(0, n_states, c, min(c + step, n_stocks)) for c in range(0, n_stocks, step)]


def run_in_boxes(work: Callable[[Box], object], updates: NDArray[np.integer[Any]], n_stocks: int) -> None:
    """Call `work` on boxes that cover all states and stocks, in parallel where that pays.

    One box per thread: smaller ones, taken by whichever thread is free, were no faster, busy machine or idle.
    `work` calls kernels, which release the interpreter; it must not call `run_in_boxes` itself.
    """
    pieces = max(1, min(n_threads(), int(updates[-1]) * n_stocks // THREAD_WORK))
    boxes = split_in_boxes(updates, n_stocks, pieces)
    others = [_pool().submit(work, box) for box in boxes[1:]]
    try:
        work(boxes[0])
    finally:
        for other in others:
            other.result()
