"""Temporary home of the graph and recursion kernels; merged into `_kernels` once that file is settled."""
import numpy as np
from rdolib._kernels import kernel


@kernel
def strong_components(first_edge, edge_to, component, cyclic):
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
def backup_acyclic(nodes, pair_ptr, base, edge_ptr, edge_to, edge_weight, stop, tie, value, choice):
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
def recurse_stocks(pair_ptr, outcome_ptr, prob, succ, shift, saturated, mean, slope, stock, direction, pad, tie, value, choice):
    """One pass over the stocks of an MDP whose every unfinished reward moves the stock in ``direction``.

    ``value`` is (pad + C + pad, S + 1), stock-major, so that a stock's successors are finished rows. Its last column
    is the worth of ended returns and its pads hold saturated values, both filled by the caller. Row ``pad + i``
    belongs to ``stock[i]``. ``saturated[s]`` is the number of rows, in the order of the pass, whose stock is
    saturated at ``s``; there the value is ``slope * stock + mean[s]``. ``choice`` (C, S) gets the lowest maximizing
    pair of each state, 255 where saturated.
    """
    n_stocks = len(stock)
    n_states = len(pair_ptr) - 1
    for step in range(n_stocks):
        i = step if direction > 0 else n_stocks - 1 - step
        row = pad + i
        for s in range(n_states):
            if step < saturated[s]:
                value[row, s] = slope * stock[i] + mean[s]
                choice[i, s] = 255
                continue
            if pair_ptr[s] == pair_ptr[s + 1]:
                value[row, s] = value[row, n_states]
                choice[i, s] = 255
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
def sweep_grid(pair_ptr, outcome_ptr, prob, succ, reward_id, target, inner, carried, low, high, slopes, v, out, box, policy, tie):
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
