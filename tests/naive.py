"""The slow, obviously right twin of everything fast.

Every number here is a :class:`fractions.Fraction` and every policy is searched: nothing is approximated and
nothing is shared with the library. It only works on tiny problems, and that is its job.

A problem is a plain table ``{state: {action: [(probability, next_state, reward, terminated), ...]}}``. A
state that the table lacks is terminal. An outcome with ``terminated=True`` ends the return whatever its next
state does. A start is a state, or ``{state: probability}``.

A law is a tuple of ``(atom, probability)`` pairs with distinct, ascending atoms.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

Outcome = tuple[Fraction, int, Fraction, bool]
Table = Mapping[int, Mapping[int, Sequence[Outcome]]]
Law = tuple[tuple[Fraction, Fraction], ...]
Start = int | Mapping[int, Fraction]
# An exact utility keeps the result exact; a float utility (an exponential) makes it a float.
Utility = Callable[[Fraction], Any]

ZERO, ONE = Fraction(0), Fraction(1)


class TooManyLawsError(Exception):
    """The problem is too large for exhaustive search."""


# --------------------------------------------------------------------------------------------------
# laws


def law(atoms: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> Law:
    """Return the law with these (atom, probability) pairs: equal atoms merged, zero probabilities dropped."""
    total: dict[Fraction, Fraction] = {}
    for atom, prob in atoms.items() if isinstance(atoms, Mapping) else atoms:
        total[Fraction(atom)] = total.get(Fraction(atom), ZERO) + Fraction(prob)
    return tuple(sorted((atom, prob) for atom, prob in total.items() if prob))


def point(atom: Any) -> Law:
    """Return the law of a sure value."""
    return law({atom: 1})


def shift(nu: Law, offset: Fraction, scale: Fraction = ONE) -> Law:
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
            return {point(0)}
        if (state, steps) not in known:
            found: set[Law] = set()
            for outcomes in table[state].values():
                parts = []
                for prob, after, reward, terminated in merged(outcomes):
                    rest = {point(0)} if terminated else visit(after, steps - 1)
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
    functional: Callable[[Law], Any],
    stock: Fraction = ZERO,
) -> Any:
    """Return the largest ``functional(law of stock + G)`` over all policies, by listing every law."""
    return max(functional(shift(nu, stock)) for nu in laws(table, gamma, start, horizon))


def best_utility(table: Table, gamma: Fraction, start: Start, horizon: int, f: Utility, stock: Fraction = ZERO) -> Any:
    """Return max E f(stock + G) by backward induction over histories, none of which are ever merged.

    Each history has its own best action, and its value is an average over the histories that extend it, so
    this is the optimum over all history-dependent policies for any f whatever.
    """

    def visit(state: int, steps: int, earned: Fraction, weight: Fraction) -> Any:
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

    return sum(prob * visit(state, horizon, Fraction(stock), ONE) for state, prob in start_mix(start).items())


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
    policy: Callable[[int, Fraction, int], int],
    stock: Fraction = ZERO,
) -> Law:
    """Return the law of G when ``policy(state, stock, t)`` chooses every action, by walking every history.

    The stock obeys ``stock_next = (stock + reward) / gamma``.
    """
    paths: list[tuple[Fraction, Fraction]] = []

    def walk(state: int, t: int, prob: Fraction, earned: Fraction, weight: Fraction, held: Fraction) -> None:
        if t == horizon or state not in table:
            paths.append((earned, prob))
            return
        for p, after, reward, terminated in table[state][policy(state, held, t)]:
            if p and terminated:
                paths.append((earned + weight * reward, prob * p))
            elif p:
                walk(after, t + 1, prob * p, earned + weight * reward, weight * gamma, (held + reward) / gamma)

    for state, prob in start_mix(start).items():
        walk(state, 0, prob, ZERO, ONE, Fraction(stock))
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
