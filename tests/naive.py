"""The slow, obviously right twin of everything fast.

Every number here is a :class:`fractions.Fraction` and every policy is searched: nothing is approximated and
nothing is shared with the library. It only works on tiny problems, and that is its job.

A problem is a plain table ``{state: {action: [(probability, next_state, reward, terminated), ...]}}``. A
state that the table lacks is terminal. An outcome with ``terminated=True`` ends the return whatever its next
state does. A start is a state, or ``{state: probability}``.

A law is a tuple of ``(atom, probability)`` pairs with distinct, ascending atoms.

Rewards, stocks and atoms are fractions or, all of them, a :class:`Vector` of fractions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

# A fraction or a vector of fractions.
Number = Any
Outcome = tuple[Fraction, int, Number, bool]
Table = Mapping[int, Mapping[int, Sequence[Outcome]]]
Law = tuple[tuple[Number, Fraction], ...]
Start = int | Mapping[int, Fraction]
# An exact utility keeps the result exact; a float utility (an exponential) makes it a float.
Utility = Callable[[Number], Any]
Functional = Callable[[Law], Any]
# Return distributions: from a state and a stock to a law.
Eta = Callable[[int, Number], Law]

ZERO, ONE = Fraction(0), Fraction(1)


class TooManyLawsError(Exception):
    """The problem is too large for exhaustive search."""


class Vector(tuple[Fraction, ...]):
    """A vector of fractions, which adds to another one and is scaled by a number."""

    def __new__(cls, values: Iterable[Any]) -> Vector:
        """Make every component a fraction."""
        return super().__new__(cls, map(Fraction, values))

    def __add__(self, other: Any) -> Vector:
        """Add component by component (a tuple would be prolonged)."""
        return Vector(x + y for x, y in zip(self, other, strict=True))

    def __rmul__(self, number: Any) -> Vector:
        """Scale every component."""
        return Vector(number * x for x in self)

    def __truediv__(self, number: Fraction) -> Vector:
        """Divide every component."""
        return Vector(x / number for x in self)


def exact(x: Any) -> Number:
    """Return the number as a fraction, the tuple as a vector."""
    return Vector(x) if isinstance(x, tuple) else Fraction(x)


def nothing(table: Table) -> Number:
    """Return the zero of the table's rewards."""
    return 0 * exact(next(r for rows in table.values() for outcomes in rows.values() for _, _, r, _ in outcomes))


# --------------------------------------------------------------------------------------------------
# laws


def law(atoms: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> Law:
    """Return the law with these (atom, probability) pairs: equal atoms merged, zero probabilities dropped."""
    total: dict[Number, Fraction] = {}
    for atom, prob in atoms.items() if isinstance(atoms, Mapping) else atoms:
        total[exact(atom)] = total.get(exact(atom), ZERO) + Fraction(prob)
    return tuple(sorted((atom, prob) for atom, prob in total.items() if prob))


def point(atom: Any) -> Law:
    """Return the law of a sure value."""
    return law({atom: 1})


def shift(nu: Law, offset: Number, scale: Fraction = ONE) -> Law:
    """Return the law of ``offset + scale * X``."""
    return law((offset + scale * atom, prob) for atom, prob in nu)


def mix(parts: Iterable[tuple[Fraction, Law]]) -> Law:
    """Return the mixture of the laws with these weights."""
    return law((atom, weight * prob) for weight, nu in parts for atom, prob in nu)


# --------------------------------------------------------------------------------------------------
# functionals of one law


def expect(nu: Law, f: Utility) -> Any:
    """Return E f(X)."""
    return sum(prob * f(atom) for atom, prob in nu)


def mean(nu: Law) -> Fraction:
    """Return E X."""
    return Fraction(expect(nu, lambda x: x))


def var(nu: Law) -> Fraction:
    """Return Var X."""
    m = mean(nu)
    return Fraction(expect(nu, lambda x: (x - m) ** 2))


def chance(nu: Law, level: Fraction = ZERO) -> Fraction:
    """Return P(X >= level)."""
    return sum((prob for atom, prob in nu if atom >= level), ZERO)


def lower_quantile(nu: Law, tau: Fraction) -> Fraction:
    """Return inf{x: P(X <= x) >= tau}, for 0 < tau <= 1."""
    below = ZERO
    for atom, prob in nu:
        below += prob
        if below >= tau:
            return atom
    raise AssertionError("the probabilities of a law sum to one")


def upper_quantile(nu: Law, tau: Fraction) -> Fraction:
    """Return sup{x: P(X < x) <= tau}, for 0 <= tau < 1."""
    return max(atom for atom, _ in nu if ONE - chance(nu, atom) <= tau)


def cvar(nu: Law, tau: Fraction) -> Fraction:
    """Return the mean of the worst ``tau`` of the outcomes, atoms split where needed."""
    left, total = Fraction(tau), ZERO
    for atom, prob in nu:
        taken = min(prob, left)
        total += taken * atom
        left -= taken
    return total / tau


def optimistic_cvar(nu: Law, tau: Fraction) -> Fraction:
    """Return the mean of the best ``tau`` of the outcomes."""
    return -cvar(shift(nu, ZERO, Fraction(-1)), tau)


def expectile(nu: Law, tau: Fraction) -> Fraction:
    """Return the root e of tau E(X - e)_+ = (1 - tau) E(e - X)_+, for 0 < tau < 1."""
    # Given which atoms lie below e the equation is linear; exactly one guess agrees with its own root.
    for k in range(len(nu) + 1):
        weights = [(1 - tau) * p for _, p in nu[:k]] + [tau * p for _, p in nu[k:]]
        root = sum((w * x for w, (x, _) in zip(weights, nu, strict=True)), ZERO) / sum(weights, ZERO)
        if all(x <= root for x, _ in nu[:k]) and all(x >= root for x, _ in nu[k:]):
            return root
    raise AssertionError("an expectile always exists")


def signed_sharpe_square(nu: Law) -> Fraction:
    """Return sign(m) m^2 / variance, which orders laws as mean / deviation does and stays rational."""
    m = mean(nu)
    return m * abs(m) / var(nu)


def ess_inf(nu: Law) -> Number:
    """Return the worst that can happen."""
    return nu[0][0]


def ess_sup(nu: Law) -> Number:
    """Return the best that can happen."""
    return nu[-1][0]


def lexicographic(*functionals: Functional) -> Functional:
    """Return the functional whose values are tuples, which Python orders by their first difference."""
    return lambda nu: tuple(functional(nu) for functional in functionals)


# --------------------------------------------------------------------------------------------------
# distances of two laws


def couple(nu: Law, mu: Law) -> list[tuple[Fraction, Fraction, Fraction]]:
    """Return the monotone coupling as (mass, x, y): the k-th smallest part of one with that of the other.

    For scalar laws it is the best one for every convex cost of the distance.
    """
    pieces, left, right = [], list(nu), list(mu)
    while left:
        (x, p), (y, q) = left.pop(0), right.pop(0)
        mass = min(p, q)
        pieces.append((mass, x, y))
        left = [(x, p - mass), *left] if p > mass else left
        right = [(y, q - mass), *right] if q > mass else right
    return pieces


def w_power(nu: Law, mu: Law, p: int = 1) -> Fraction:
    """Return W_p(nu, mu)**p of two scalar laws, a fraction for integer p; W_1 itself for p = 1."""
    return sum((mass * abs(x - y) ** p for mass, x, y in couple(nu, mu)), ZERO)


def w_inf(nu: Law, mu: Law) -> Fraction:
    """Return the Wasserstein distance of order infinity of two scalar laws."""
    return max(abs(x - y) for _, x, y in couple(nu, mu))


def transport(nu: Law, mu: Law, cost: Callable[[Number, Number], Fraction]) -> Fraction:
    """Return the least mean cost of a coupling, for atoms of any kind.

    Mass is sent along cheapest paths, one after the other; mass that was sent before may be called back. Costs of
    cheapest paths only rise, so the result is optimal.
    """
    supply, demand = [p for _, p in nu], [q for _, q in mu]
    price = {(i, j): cost(x, y) for i, (x, _) in enumerate(nu) for j, (y, _) in enumerate(mu)}
    flow = dict.fromkeys(price, ZERO)
    while any(supply):
        # Bellman and Ford: the cheapest way to each source (None, i) and sink (j, None), and the arc it came by.
        ways: dict[tuple[str, int], tuple[Fraction, list[tuple[int, int, int]]]]
        ways = {("source", i): (ZERO, []) for i, p in enumerate(supply) if p}
        for _ in range(len(supply) + len(demand)):
            for (i, j), c in price.items():
                for tail, head, sign in ((("source", i), ("sink", j), 1), (("sink", j), ("source", i), -1)):
                    if tail in ways and (sign > 0 or flow[i, j]):
                        length, arcs = ways[tail]
                        if head not in ways or length + sign * c < ways[head][0]:
                            ways[head] = (length + sign * c, [*arcs, (i, j, sign)])
        _, arcs, end = min((*ways["sink", j], j) for j, q in enumerate(demand) if q)
        mass = min([supply[arcs[0][0]], demand[end], *(flow[i, j] for i, j, sign in arcs if sign < 0)])
        for i, j, sign in arcs:
            flow[i, j] += sign * mass
        supply[arcs[0][0]] -= mass
        demand[end] -= mass
    return sum((flow[arc] * price[arc] for arc in price), ZERO)


# --------------------------------------------------------------------------------------------------
# exhaustive search over policies


def start_mix(start: Start) -> dict[int, Fraction]:
    """Return the start as ``{state: probability}``."""
    return {start: ONE} if isinstance(start, int) else {s: p for s, p in start.items() if p}


def merged(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Merge outcomes that a policy cannot tell apart, and drop impossible ones.

    Without this a policy could act on which of two equal rows of the table was drawn, which is a hidden coin.
    """
    total: dict[tuple[int, Fraction, bool], Fraction] = {}
    for prob, after, reward, terminated in outcomes:
        total[after, reward, terminated] = total.get((after, reward, terminated), ZERO) + prob
    return [(prob, *key) for key, prob in total.items() if prob]


def laws(table: Table, gamma: Fraction, start: Start, horizon: int, limit: int = 20_000) -> set[Law]:
    """Return the return laws of all deterministic history-dependent policies over ``horizon`` steps.

    Parameters
    ----------
    table, gamma, start, horizon
        The problem. The return is the sum of the first ``horizon`` discounted rewards.
    limit
        The largest number of combinations of laws tried for one action; above it `TooManyLawsError` is
        raised.
    """
    known: dict[tuple[int, int], set[Law]] = {}
    none = point(nothing(table))

    def combine(parts: Sequence[tuple[Fraction, set[Law]]]) -> set[Law]:
        size = 1
        for _, choices in parts:
            size *= len(choices)
        if size > limit:
            raise TooManyLawsError(f"{size} combinations of laws")
        weights = [weight for weight, _ in parts]
        return {mix(zip(weights, pick, strict=True)) for pick in itertools.product(*(choices for _, choices in parts))}

    def visit(state: int, steps: int) -> set[Law]:
        if steps == 0 or state not in table:
            return {none}
        if (state, steps) not in known:
            found: set[Law] = set()
            for outcomes in table[state].values():
                parts = []
                for prob, after, reward, terminated in merged(outcomes):
                    rest = {none} if terminated else visit(after, steps - 1)
                    parts.append((prob, {shift(nu, reward, gamma) for nu in rest}))
                found |= combine(parts)
                if len(found) > limit:
                    raise TooManyLawsError(f"{len(found)} laws")
            known[state, steps] = found
        return known[state, steps]

    return combine([(prob, visit(state, horizon)) for state, prob in start_mix(start).items()])


def best(
    table: Table,
    gamma: Fraction,
    start: Start,
    horizon: int,
    functional: Functional,
    stock: Number = ZERO,
) -> Any:
    """Return the largest ``functional(law of stock + G)`` over all policies, by listing every law."""
    return max(functional(shift(nu, stock)) for nu in laws(table, gamma, start, horizon))


def best_utility(table: Table, gamma: Fraction, start: Start, horizon: int, f: Utility, stock: Number = ZERO) -> Any:
    """Return max E f(stock + G) by backward induction over histories, none of which are ever merged.

    Each history has its own best action, and its value is an average over the histories that extend it, so
    this is the optimum over all history-dependent policies for any f whatever.
    """

    def visit(state: int, steps: int, earned: Number, weight: Fraction) -> Any:
        # earned: stock plus the discounted rewards so far; weight: the discount of the next reward.
        if steps == 0 or state not in table:
            return f(earned)
        return max(
            sum(
                prob
                * (
                    f(earned + weight * reward)
                    if terminated
                    else visit(after, steps - 1, earned + weight * reward, weight * gamma)
                )
                for prob, after, reward, terminated in outcomes
                if prob
            )
            for outcomes in table[state].values()
        )

    return sum(prob * visit(state, horizon, exact(stock), ONE) for state, prob in start_mix(start).items())


def possible_returns(table: Table, gamma: Fraction, start: Start, horizon: int) -> list[Fraction]:
    """Return, ascending, every value that G takes with positive probability under some policy."""

    def visit(state: int, steps: int) -> set[Fraction]:
        if steps == 0 or state not in table:
            return {ZERO}
        return {
            reward + gamma * rest
            for outcomes in table[state].values()
            for prob, after, reward, terminated in outcomes
            if prob
            for rest in ({ZERO} if terminated else visit(after, steps - 1))
        }

    return sorted(set().union(*(visit(state, horizon) for state in start_mix(start))))


def best_cvar(table: Table, gamma: Fraction, start: Start, horizon: int, tau: Fraction) -> Fraction:
    """Return the largest CVaR of G over all policies, by listing every law."""
    return Fraction(best(table, gamma, start, horizon, lambda nu: cvar(nu, tau)))


def best_cvar_by_stock(table: Table, gamma: Fraction, start: Start, horizon: int, tau: Fraction) -> Fraction:
    """Return the same number from CVaR(X) = max over b of b + E min(X - b, 0) / tau.

    The two maxima, over b and over policies, commute, and only possible returns matter as b: for one policy
    the bracket is concave and piecewise linear in b, with kinks at the values of its return.
    """
    return max(
        b + Fraction(best_utility(table, gamma, start, horizon, lambda x: min(x, ZERO), -b)) / tau
        for b in possible_returns(table, gamma, start, horizon)
    )


def best_optimistic_cvar(table: Table, gamma: Fraction, start: Start, horizon: int, tau: Fraction) -> Fraction:
    """Return the largest optimistic CVaR of G over randomised policies.

    The functional is concave in the law, so the optimum is min over b of max over policies of b + E max(X -
    b, 0) / tau. The inner maximum is convex and piecewise linear in b; its lowest point is at a value of some
    return or where the lines of two policies cross, and all those points are tried.
    """
    every = laws(table, gamma, start, horizon)

    def height(b: Fraction) -> Fraction:
        return b + max(Fraction(expect(nu, lambda x: max(x - b, ZERO))) for nu in every) / tau

    kinks = sorted({atom for nu in every for atom, _ in nu})
    tries = set(kinks)
    for low, high in itertools.pairwise(kinks):
        # On (low, high) the line of nu is sum of p x over x >= high, minus b times their total probability.
        lines = {(chance(nu, high), sum((p * x for x, p in nu if x >= high), ZERO)) for nu in every}
        for (p, m), (q, n) in itertools.combinations(lines, 2):
            if p != q and low < (m - n) / (p - q) < high:
                tries.add((m - n) / (p - q))
    return min(height(b) for b in tries)


def replay(
    table: Table,
    gamma: Fraction,
    start: Start,
    horizon: int,
    policy: Callable[[int, Number, int], int],
    stock: Number = ZERO,
) -> Law:
    """Return the law of G when ``policy(state, stock, t)`` chooses every action, by walking every history.

    The stock obeys ``stock_next = (stock + reward) / gamma``.
    """
    paths: list[tuple[Number, Fraction]] = []

    def walk(state: int, t: int, prob: Fraction, earned: Number, weight: Fraction, held: Number) -> None:
        if t == horizon or state not in table:
            paths.append((earned, prob))
            return
        for p, after, reward, terminated in table[state][policy(state, held, t)]:
            if p and terminated:
                paths.append((earned + weight * reward, prob * p))
            elif p:
                walk(after, t + 1, prob * p, earned + weight * reward, weight * gamma, (held + reward) / gamma)

    for state, prob in start_mix(start).items():
        walk(state, 0, prob, nothing(table), ONE, exact(stock))
    return law(paths)


# --------------------------------------------------------------------------------------------------
# no horizon


def longest_stay(table: Table) -> dict[int, Fraction]:
    """Return the largest expected number of steps to the end, over all policies, for every state.

    Policy improvement in fractions. Every policy must end almost surely, else the linear system is singular
    and `ZeroDivisionError` is raised (now or in a later improvement).
    """
    choice = {state: next(iter(table[state])) for state in table}

    def after(state: int, action: int, value: Mapping[int, Fraction]) -> Fraction:
        return ONE + sum(
            (p * value[s] for p, s, _, terminated in table[state][action] if not terminated and s in table),
            ZERO,
        )

    while True:
        value = solve(
            {
                state: {
                    other: sum(
                        (p for p, s, _, ended in table[state][choice[state]] if s == other and not ended),
                        ZERO,
                    )
                    for other in table
                }
                for state in table
            },
            dict.fromkeys(table, ONE),
        )
        better = {
            state: max(table[state], key=lambda a, state=state: after(state, a, value))  # type: ignore[misc]
            for state in table
        }
        stuck = {s: a for s, a in better.items() if after(s, a, value) > after(s, choice[s], value)}
        if not stuck:
            return value
        choice.update(stuck)


def solve(matrix: Mapping[int, Mapping[int, Fraction]], right: Mapping[int, Fraction]) -> dict[int, Fraction]:
    """Return the x with ``x = right + matrix x``, by Gauss-Jordan elimination in fractions."""
    rows = {i: {j: (ONE if i == j else ZERO) - matrix[i][j] for j in matrix} for i in matrix}
    x = dict(right)
    pivots: dict[int, int] = {}
    for j in rows:
        pivot = next((i for i in rows if rows[i][j] and i not in pivots.values()), None)
        if pivot is None:
            raise ZeroDivisionError("some policy never ends")
        pivots[j] = pivot
        scale = rows[pivot][j]
        rows[pivot] = {k: v / scale for k, v in rows[pivot].items()}
        x[pivot] /= scale
        for i in rows:
            factor = rows[i][j]
            if i != pivot and factor:
                rows[i] = {k: v - factor * rows[pivot][k] for k, v in rows[i].items()}
                x[i] -= factor * x[pivot]
    return {j: x[i] for j, i in pivots.items()}


def bracket(
    table: Table,
    gamma: Fraction,
    start: int,
    depth: int,
    f: Utility,
    lipschitz: Fraction,
    stock: Fraction = ZERO,
) -> tuple[Any, Any]:
    """Return a lower and an upper bound of max E f(stock + G) without a horizon.

    Histories are followed for ``depth`` steps. What comes after changes the return by at most its discount
    times the largest reward times the expected remaining steps (gamma = 1) or times 1 / (1 - gamma), and a
    Lipschitz utility by at most ``lipschitz`` times that. Equal (state, earned) pairs of one depth are
    merged, so that long truncations are affordable when rewards repeat.
    """
    top = max(abs(r) for rows in table.values() for outcomes in rows.values() for p, _, r, _ in outcomes if p)
    stay = longest_stay(table) if gamma == 1 else dict.fromkeys(table, 1 / (1 - gamma))
    layers: list[set[tuple[int, Fraction]]] = [{(start, Fraction(stock))}]
    for t in range(depth):
        layers.append(
            {
                (after, earned + gamma**t * reward)
                for state, earned in layers[t]
                for outcomes in table[state].values()
                for p, after, reward, terminated in outcomes
                if p and not terminated and after in table
            }
        )
    slack = {s: lipschitz * gamma**depth * top * stay[s] for s in table}
    value = {(s, x): (f(x) - slack[s], f(x) + slack[s]) for s, x in layers[depth]}
    for t in reversed(range(depth)):
        ends: dict[tuple[int, Fraction], tuple[Any, Any]] = {}
        for state, earned in layers[t]:
            bounds = []
            for outcomes in table[state].values():
                pairs = []
                for p, after, reward, terminated in outcomes:
                    x = earned + gamma**t * reward
                    if p:
                        pairs.append((p, (f(x), f(x)) if terminated or after not in table else value[after, x]))
                bounds.append((sum(p * low for p, (low, _) in pairs), sum(p * high for p, (_, high) in pairs)))
            ends[state, earned] = (max(low for low, _ in bounds), max(high for _, high in bounds))
        value = ends
    return value[start, Fraction(stock)]


# --------------------------------------------------------------------------------------------------
# distributional dynamic programming, word by word


def backup(table: Table, gamma: Fraction, eta: Eta, state: int, stock: Number, action: int) -> Law:
    """Return the law of R + gamma G' when G' follows ``eta`` at the next state and stock."""
    none = point(nothing(table))
    return mix(
        (p, shift(none if terminated or after not in table else eta(after, (stock + r) / gamma), r, gamma))
        for p, after, r, terminated in table[state][action]
        if p
    )


class Sweeps:
    """Distributional value iteration: ``eta_{n+1}`` is greedy for ``eta_n``, computed where it is asked for.

    Parameters
    ----------
    table, gamma, functional
        The problem. Values may be anything ordered.
    start
        ``eta_0``; the sure return 0 if None.
    tie
        Picks one of the maximizing actions.
    """

    def __init__(
        self,
        table: Table,
        gamma: Fraction,
        functional: Functional,
        start: Eta | None = None,
        tie: Callable[[Sequence[int]], int] = min,
    ) -> None:
        """Keep the problem; nothing is computed yet."""
        self.table, self.gamma, self.functional, self.start, self.tie = table, gamma, functional, start, tie
        self.known: dict[tuple[int, int, Number], tuple[int, Law]] = {}

    def eta(self, n: int) -> Eta:
        """Return ``eta_n``."""
        if n == 0:
            return self.start or (lambda state, stock: point(nothing(self.table)))
        return lambda state, stock: self.visit(n, state, stock)[1]

    def action(self, n: int, state: int, stock: Number) -> int:
        """Return the action that is greedy for ``eta_n``."""
        return self.visit(n + 1, state, stock)[0]

    def value(self, n: int, state: int, stock: Number) -> Any:
        """Return ``F eta_n``: the functional of stock plus return."""
        return self.functional(shift(self.eta(n)(state, stock), stock))

    def visit(self, n: int, state: int, stock: Number) -> tuple[int, Law]:
        """Return the n-th greedy action and ``eta_n`` at a state of the table."""
        if (n, state, stock) not in self.known:
            laws = {a: backup(self.table, self.gamma, self.eta(n - 1), state, stock, a) for a in self.table[state]}
            self.known[n, state, stock] = greedy(laws, stock, self.functional, self.tie)
        return self.known[n, state, stock]


class Policies:
    """Distributional policy iteration, for problems in which every policy ends: ``pi_{k+1}`` is greedy for pi_k.

    Parameters are those of `Sweeps`, with a first policy of state and stock.
    """

    def __init__(
        self,
        table: Table,
        gamma: Fraction,
        functional: Functional,
        first: Callable[[int, Number], int],
        tie: Callable[[Sequence[int]], int] = min,
    ) -> None:
        """Keep the problem; nothing is computed yet."""
        self.table, self.gamma, self.functional, self.first, self.tie = table, gamma, functional, first, tie
        self.known: dict[tuple[int, int, Number], tuple[int, Law]] = {}

    def visit(self, k: int, state: int, stock: Number) -> tuple[int, Law]:
        """Return the action of pi_k and the law of the return under pi_k."""
        if (k, state, stock) not in self.known:
            action = self.first(state, stock)
            if k > 0:
                laws = {a: self.after(k - 1, state, stock, a) for a in self.table[state]}
                action, _ = greedy(laws, stock, self.functional, self.tie)
            self.known[k, state, stock] = action, self.after(k, state, stock, action)
        return self.known[k, state, stock]

    def after(self, k: int, state: int, stock: Number, action: int) -> Law:
        """Return the law of the return when pi_k takes over after this action."""
        return backup(self.table, self.gamma, lambda s, c: self.visit(k, s, c)[1], state, stock, action)

    def value(self, k: int, state: int, stock: Number) -> Any:
        """Return the functional of stock plus the return of pi_k."""
        return self.functional(shift(self.visit(k, state, stock)[1], stock))


def greedy(
    laws: Mapping[int, Law], stock: Number, functional: Functional, tie: Callable[[Sequence[int]], int]
) -> tuple[int, Law]:
    """Return the action whose law, moved by the stock, is best, and that law."""
    values = {action: functional(shift(nu, stock)) for action, nu in laws.items()}
    top = max(values.values())
    action = tie([action for action, value in values.items() if value == top])
    return action, laws[action]


def closed(table: Table, gamma: Fraction) -> Table:
    """Return the table in which a state that pays the same sure reward for ever pays all of it at once and ends."""

    def rows(state: int) -> Mapping[int, Sequence[Outcome]]:
        (outcomes, *others) = table[state].values()
        if others or len(outcomes) != 1 or outcomes[0][1] != state or outcomes[0][3]:
            return table[state]
        return {next(iter(table[state])): [(ONE, state, outcomes[0][2] / (1 - gamma), True)]}

    return {state: rows(state) for state in table}


# --------------------------------------------------------------------------------------------------
# exact endless values, by finite linear systems

# For every node and action a known part, and the weights of other nodes' values.
Choices = Mapping[Any, Mapping[int, tuple[Fraction, Mapping[Any, Fraction]]]]


def best_values(choices: Choices) -> dict[Any, Fraction]:
    """Return the V with V(k) = max over actions of base + sum of weight times V, by policy improvement."""
    chosen = {node: next(iter(rows)) for node, rows in choices.items()}
    while True:
        taken = {node: choices[node][action] for node, action in chosen.items()}
        matrix = {node: {other: weights.get(other, ZERO) for other in taken} for node, (_, weights) in taken.items()}
        value = solve(matrix, {node: base for node, (base, _) in taken.items()})
        worth = {
            node: {
                a: base + sum((w * value[k] for k, w in weights.items()), ZERO) for a, (base, weights) in rows.items()
            }
            for node, rows in choices.items()
        }
        better = {node: max(rows, key=lambda a, rows=rows: rows[a]) for node, rows in worth.items()}  # type: ignore[misc]
        better = {node: a for node, a in better.items() if worth[node][a] > worth[node][chosen[node]]}
        if not better:
            return value
        chosen.update(better)


def totals(parts: Iterable[tuple[Any, Fraction]]) -> dict[Any, Fraction]:
    """Return the sums of the weights with each key."""
    total: dict[Any, Fraction] = {}
    for key, weight in parts:
        total[key] = total.get(key, ZERO) + weight
    return total


def best_means(table: Table, gamma: Fraction, weight: Fraction = ONE) -> dict[int, Fraction]:
    """Return max E weight * G without a horizon, for every state of the table."""
    return best_values(
        {
            state: {
                a: (
                    sum((p * weight * r for p, _, r, _ in outcomes), ZERO),
                    totals((s, gamma * p) for p, s, _, ended in outcomes if not ended and s in table),
                )
                for a, outcomes in rows.items()
            }
            for state, rows in table.items()
        }
    )


def best_two_slope(
    table: Table, gamma: Fraction, below: Fraction, above: Fraction, stocks: Iterable[Fraction]
) -> dict[tuple[int, Fraction], Fraction]:
    """Return max E f(c + G) without a horizon, f(x) = below min(x, 0) + above max(x, 0), gamma = 1/k.

    With M = max |reward| / (1 - gamma) no return is larger than M, so from |c| >= M on f is linear and the best mean
    of G decides. Stocks below M stay on a lattice, so finitely many (state, stock) pairs remain: one linear system.
    The answer holds every pair that can be reached from the given stocks.
    """
    rewards = [r for rows in table.values() for outcomes in rows.values() for p, _, r, _ in outcomes if p]
    top = max(map(abs, rewards)) / (1 - gamma)
    high, low = (best_means(table, gamma, slope) for slope in (above, below))
    known: dict[tuple[int, Fraction], Fraction] = {}
    choices: dict[tuple[int, Fraction], dict[int, tuple[Fraction, Mapping[Any, Fraction]]]] = {}
    todo = [(state, Fraction(c)) for state in table for c in stocks]

    def worth(state: int, c: Fraction, ended: bool) -> Fraction | None:
        """Return the value if it is known at once; else put it on the list."""
        if ended or state not in table:
            return below * min(c, ZERO) + above * max(c, ZERO)
        if abs(c) >= top:
            return above * c + high[state] if c > 0 else below * c + low[state]
        todo.append((state, c))
        return None

    while todo:
        state, c = todo.pop()
        if abs(c) >= top:
            known[state, c] = worth(state, c, False) or ZERO
        elif (state, c) not in choices:
            choices[state, c] = {}
            for a, outcomes in table[state].items():
                parts = [(gamma * p, s, (c + r) / gamma, ended) for p, s, r, ended in outcomes if p]
                values = [(w, s, x, worth(s, x, ended)) for w, s, x, ended in parts]
                choices[state, c][a] = (
                    sum((w * v for w, _, _, v in values if v is not None), ZERO),
                    totals(((s, x), w) for w, s, x, v in values if v is None),
                )
    return known | best_values(choices)
