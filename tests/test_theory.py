"""The theorems on stocks, evaluation, finite horizons and necessity, re-checked word by word in exact fractions.

Every test carries the number of the statement it re-checks; `tools/claims.py` collects them for the book. Both sides
of an inequality are fractions wherever that is possible, so there is no slack: `tests.naive` computes what dynamic
programming does, exhaustive search says what is right. Endless problems are in `tests.test_theory_endless`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from fractions import Fraction as F
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests import naive, strategies
from tests.naive import Eta, Law, Policies, Sweeps, Table, Vector, law, point, shift
from tests.theory import (
    BEYOND,
    CASES,
    HALF,
    LAWS,
    ONE,
    TIES,
    UTILITIES,
    ZERO,
    Case,
    fits,
    gammas,
    layered,
    mean_of,
    modest,
    pay,
    scattered,
    successors,
    theory,
    tidy,
    ties,
)

# --------------------------------------------------------------------------------------------------
# 1, 2: stocks and evaluation


@theory("1.1")
@modest
@given(st.lists(st.sampled_from(strategies.HALVES), min_size=1, max_size=6), st.sampled_from(strategies.GAMMAS))
def test_what_the_stock_preserves(rewards: list[F], gamma: F) -> None:
    """gamma^t C_t is what was earned, and stock plus return stand still, for numbers and for vectors."""
    for path, stock in (
        (rewards, F(-3, 2)),
        ([Vector((r, 1 - r * r)) for r in rewards], Vector((F(1, 3), -2))),
    ):
        held, earned = stock, stock
        total = stock
        for t, r in enumerate(path):
            total = total + gamma**t * r
        for t, r in enumerate(path):
            rest = sum((gamma**i * x for i, x in enumerate(path[t + 1 :])), start=0 * r)
            assert gamma**t * held == earned
            assert gamma**t * (held + (r + gamma * rest)) == total
            assert held + (r + gamma * rest) == gamma * ((held + r) / gamma + rest)
            held, earned = (held + r) / gamma, earned + gamma**t * r


def taxi(x: Vector, y: Vector) -> F:
    return sum((abs(a - b) for a, b in zip(x, y, strict=True)), ZERO)


def farthest(x: Vector, y: Vector) -> F:
    return max(abs(a - b) for a, b in zip(x, y, strict=True))


@st.composite
def randomized(draw: st.DrawFn, table: Table) -> Mapping[int, Mapping[int, F]]:
    """Return probabilities of actions for every state."""
    return {s: dict(zip(rows, draw(strategies.probabilities(len(rows))), strict=True)) for s, rows in table.items()}


def evaluate(table: Table, gamma: F, eta: Eta, chances: Mapping[int, F], state: int, stock: naive.Number) -> Law:
    """Return T_pi eta at one state and stock."""
    return naive.mix((q, naive.backup(table, gamma, eta, state, stock, action)) for action, q in chances.items() if q)


@theory("2.1")
@modest
@given(st.data(), strategies.tables(), st.sampled_from(strategies.GAMMAS), strategies.stocks())
def test_evaluation_contracts(data: st.DataObject, table: Table, gamma: F, stock: F) -> None:
    """W_p(T_pi eta, T_pi eta') <= gamma sup W_p(eta, eta') for p = 1, 2, infinity, randomized policies included."""
    policy = data.draw(randomized(table))
    eta, other = scattered(data.draw(st.integers(0, 4))), scattered(data.draw(st.integers(0, 4)))
    for state in table:
        after = list(successors(table, gamma, state, stock))
        new, new_other = (evaluate(table, gamma, e, policy[state], state, stock) for e in (eta, other))
        for p in (1, 2, 3):
            before = max((naive.w_power(eta(s, c), other(s, c), p) for s, c in after), default=ZERO)
            assert naive.w_power(new, new_other, p) <= gamma**p * before
        before = max((naive.w_inf(eta(s, c), other(s, c)) for s, c in after), default=ZERO)
        assert naive.w_inf(new, new_other) <= gamma * before


CORNERS = (point((0, 0)), law({(1, -1): HALF, (0, 2): HALF}), law({(-1, 0): F(1, 4), (2, 1): F(3, 4)}))
PLANE = tuple(Vector(x) for x in ((0, 0), (1, 0), (0, -1), (F(1, 2), 2)))


def in_the_plane(table: Table) -> Table:
    """Give the terminal state of a table of vectors a vector reward too."""
    return {
        s: {a: [(p, after, r or PLANE[0], ended) for p, after, r, ended in o] for a, o in rows.items()}
        for s, rows in table.items()
    }


@theory("2.2")
@modest
@given(strategies.tables(rewards=PLANE), gammas, st.integers(0, 2))
def test_evaluation_contracts_on_vectors(table: Table, gamma: F, salt: int) -> None:
    """The same with two components, in the norms 1 and infinity, by exact optimal transport."""
    table = in_the_plane(table)

    def corner(shift_by: int) -> Eta:
        return lambda s, c: CORNERS[(s + shift_by + c[0].numerator + 2 * c[1].numerator) % 3]

    eta, other, stock = corner(0), corner(salt), Vector((1, F(-1, 2)))
    for state, rows in table.items():
        action = max(rows)
        new, new_other = (naive.backup(table, gamma, e, state, stock, action) for e in (eta, other))
        for cost in (taxi, farthest):
            before = max(
                (naive.transport(eta(s, c), other(s, c), cost) for s, c in successors(table, gamma, state, stock)),
                default=ZERO,
            )
            assert naive.transport(new, new_other, cost) <= gamma * before


@theory("2.3")
@modest
@given(strategies.tables(), st.integers(0, 4), st.integers(1, 4), strategies.stocks())
def test_proper_policies_contract(table: Table, salt: int, other_salt: int, stock: F) -> None:
    """Without a discount, every policy ending: T_pi contracts by 1 - 1/max xi when distances are measured in xi(s)."""
    table = tidy(table)
    try:
        stay = naive.longest_stay(table)
    except ZeroDivisionError:
        assume(False)
    beta = 1 - 1 / max(stay.values())
    eta, other = scattered(salt), scattered(salt + other_salt)
    for state, rows in table.items():
        for action in rows:
            after = [
                (p, s, stock + r) for p, s, r, ended in rows[action] if not ended and s in table
            ]  # of this action only
            before = max((naive.w_power(eta(s, c), other(s, c)) / stay[s] for _, s, c in after), default=ZERO)
            new, new_other = (naive.backup(table, ONE, e, state, stock, action) for e in (eta, other))
            assert naive.w_power(new, new_other) / stay[state] <= beta * before
            assert sum((p * stay[s] for p, s, _ in after), ZERO) <= stay[state] - 1


# --------------------------------------------------------------------------------------------------
# 3: conditions


@st.composite
def ranked(draw: st.DrawFn, case: Case) -> list[tuple[F, Law, Law]]:
    """Return weights and pairs of laws, the first of each pair at least as good."""
    weights = [w for w in draw(strategies.probabilities(3)) if w]
    parts = []
    for weight in weights:
        nu, mu = (draw(st.sampled_from(LAWS)) for _ in range(2))
        nu = shift(nu, draw(st.sampled_from(strategies.HALVES)))
        parts.append((weight, *((nu, mu) if case.K(nu) >= case.K(mu) else (mu, nu))))
    return parts


@theory("3.1")
@pytest.mark.parametrize("case", BEYOND, ids=repr)
def test_beyond_expected_utilities(case: Case) -> None:
    """Lexicographic orders and essential bounds: both conditions; and 1-Lipschitz for W_inf, not for W_1."""

    @modest
    @given(ranked(case))
    def holds(parts: list[tuple[F, Law, Law]]) -> None:
        nu, mu = (naive.mix((part[0], part[i]) for part in parts) for i in (1, 2))
        assert case.K(nu) >= case.K(mu)
        for _, better, worse in parts:
            assert case.K(shift(better, ZERO, HALF)) >= case.K(shift(worse, ZERO, HALF))
        if case.sup:
            assert abs(case.K(nu) - case.K(mu)) <= naive.w_inf(nu, mu)

    holds()
    if case.sup:
        # A little mass moved far: W_1 is 1/100, the value moves by 1.
        rare = law({0: F(98, 100), 1: F(1, 100), -1: F(1, 100)})
        usual = law({0: F(99, 100), 1: F(1, 100)} if case.K is naive.ess_inf else {0: F(99, 100), -1: F(1, 100)})
        assert abs(case.K(rare) - case.K(usual)) == 1 and naive.w_power(rare, usual) == F(1, 100)
        # Not an expected utility: mixing with a third law must keep a strict order strict, and does not.
        nu, mu, third = point(1), point(0), law({-1: HALF, 2: HALF})
        assert case.K(nu) > case.K(mu)
        mixed = [naive.mix([(HALF, x), (HALF, third)]) for x in (nu, mu)]
        assert case.K(mixed[0]) == case.K(mixed[1])


@theory("3.9")
@pytest.mark.parametrize("gamma", [HALF, F(1, 3)], ids=str)
@pytest.mark.parametrize("case", UTILITIES, ids=repr)
def test_which_utilities_survive_the_discount(case: Case, gamma: F) -> None:
    """E f is indifferent to gamma iff f(gamma x) = alpha f(x) + beta, alpha >= 0; for two discounts: iff homogeneous.

    Ties decide: y for sure against x or z, weighted so that they tie, must tie after the discount too.
    """
    atoms = [F(x, 2) for x in (-8, -4, -3, -2, -1, 0, 1, 2, 3, 4, 8)]
    f = {x: case.K(point(x)) for x in atoms}
    g = {x: case.K(point(gamma * x)) for x in atoms}
    low, high = min(atoms, key=f.__getitem__), max(atoms, key=f.__getitem__)
    alpha = (g[high] - g[low]) / (f[high] - f[low])
    affine = alpha >= 0 and all(g[x] - g[low] == alpha * (f[x] - f[low]) for x in atoms)
    survives = True
    for x, y, z in itertools.permutations(atoms, 3):
        if f[x] <= f[y] <= f[z] and f[x] < f[z]:
            p = (f[z] - f[y]) / (f[z] - f[x])
            gamble = law({x: p, z: 1 - p})
            assert case.K(gamble) == case.K(point(y))
            survives &= case.K(shift(gamble, ZERO, gamma)) == case.K(point(gamma * y)) and g[x] <= g[z]
    assert survives == affine
    assert affine == (case.discounts and (gamma == HALF or case.name != "wavy"))


@theory("3.7")
@pytest.mark.parametrize("case", CASES, ids=repr)
def test_operators_are_monotone(case: Case) -> None:
    """From eta >=_K eta' at every successor follows T_pi eta >=_K T_pi eta', for one and for randomized actions."""

    @settings(modest, max_examples=25)
    @given(st.data(), strategies.tables(), gammas, strategies.stocks())
    def holds(data: st.DataObject, table: Table, gamma: F, stock: F) -> None:
        assume(fits(case, gamma))
        one, two = scattered(data.draw(st.integers(0, 4))), scattered(data.draw(st.integers(0, 4)))

        def sided(better: bool) -> Eta:
            def eta(s: int, c: F) -> Law:
                pair = one(s, c), two(s, c)
                return (max if better else min)(pair, key=lambda nu: case.K(shift(nu, c)))

            return eta

        policy = data.draw(randomized(table))
        for state in table:
            high, low = (evaluate(table, gamma, sided(b), policy[state], state, stock) for b in (True, False))
            assert case.K(shift(high, stock)) >= case.K(shift(low, stock))

    holds()


# --------------------------------------------------------------------------------------------------
# 4: finite horizon


@theory("4.1")
@pytest.mark.parametrize("case", CASES, ids=repr)
def test_value_iteration_is_exact_when_everything_ends(case: Case) -> None:
    """F eta_n = F* for n >= H, from any eta_0 and with any ties, at every state and several stocks."""

    @settings(modest, max_examples=25)
    @given(layered, gammas, ties, st.integers(0, 4), strategies.stocks())
    def holds(table: Table, gamma: F, tie: Any, salt: int, stock: F) -> None:
        assume(fits(case, gamma))
        horizon = len(table)
        run = Sweeps(table, gamma, case.K, scattered(salt), tie)
        for state in table:
            best = naive.best(table, gamma, state, horizon, case.K, stock)
            assert run.value(horizon, state, stock) == run.value(horizon + 1, state, stock) == best

    holds()


@theory("4.2")
@pytest.mark.parametrize("case", CASES, ids=repr)
def test_value_iteration_is_exact_for_a_number_of_steps(case: Case) -> None:
    """H steps and then eta_0: any policy of state, stock and steps left is searched, self-loops included."""

    @settings(modest, max_examples=20)
    @given(strategies.tables(rewards=strategies.INTEGERS), gammas, ties, strategies.stocks())
    def holds(table: Table, gamma: F, tie: Any, stock: F) -> None:
        assume(fits(case, gamma))
        for horizon in (1, 2, 3):
            try:
                laws = naive.laws(table, gamma, 0, horizon, limit=300)
            except naive.TooManyLawsError:
                return
            run = Sweeps(table, gamma, case.K, tie=tie)
            assert run.value(horizon, 0, stock) == max(case.K(shift(nu, stock)) for nu in laws)

    holds()


@theory("4.3")
@pytest.mark.parametrize("case", CASES, ids=repr)
def test_policy_iteration_keeps_ahead_of_value_iteration(case: Case) -> None:
    """F eta^{pi_{k+1}} >= F T_* eta^{pi_k} >= F eta^{pi_k}; ahead of k sweeps from eta^{pi_0}; exact for k >= H."""

    @settings(modest, max_examples=20)
    @given(layered, gammas, ties, st.integers(0, 1), strategies.stocks())
    def holds(table: Table, gamma: F, tie: Any, salt: int, stock: F) -> None:
        assume(fits(case, gamma))

        def first(state: int, held: F) -> int:
            actions = sorted(table[state])
            return actions[(salt + held.numerator) % len(actions)]

        improved = Policies(table, gamma, case.K, first, tie)
        sweeps = Sweeps(table, gamma, case.K, lambda s, c: improved.visit(0, s, c)[1], tie)
        for state in table:
            for k in range(len(table) + 1):
                greedy = Sweeps(table, gamma, case.K, lambda s, c, k=k: improved.visit(k, s, c)[1], tie)
                one_step = greedy.value(1, state, stock)
                assert improved.value(k + 1, state, stock) >= one_step >= improved.value(k, state, stock)
                assert improved.value(k, state, stock) >= sweeps.value(k, state, stock)
            best = naive.best(table, gamma, state, len(table), case.K, stock)
            assert improved.value(len(table), state, stock) == best

    holds()


VECTOR_UTILITIES: dict[str, naive.Utility] = {
    "norm 1": lambda x: -sum(map(abs, x)),
    "norm infinity": lambda x: -max(map(abs, x)),
    "norm 2 squared": lambda x: -sum(a * a for a in x),
    "minimum": min,
    "maximum": max,
    "orthant": lambda x: F(min(x) >= 0),
    "shortfalls": lambda x: sum((min(a, ZERO) for a in x), ZERO),
}


@theory("4.4")
@pytest.mark.parametrize("name", VECTOR_UTILITIES)
def test_value_iteration_on_vectors(name: str) -> None:
    """Two components, gamma 1 and 1/2: the same theorem."""
    functional = mean_of(VECTOR_UTILITIES[name])

    @settings(modest, max_examples=25)
    @given(strategies.tables(layered=True, rewards=PLANE), gammas, ties)
    def holds(table: Table, gamma: F, tie: Any) -> None:
        table, stock = in_the_plane(table), Vector((-1, HALF))
        run = Sweeps(table, gamma, functional, tie=tie)
        for state in table:
            best = naive.best(table, gamma, state, len(table), functional, stock)
            assert run.value(len(table), state, stock) == best

    holds()


@theory("4.5")
@settings(modest, max_examples=40)
@given(
    strategies.tables(rewards=strategies.INTEGERS), st.sampled_from(CASES[-7:-5] + UTILITIES[:2]), strategies.stocks()
)
def test_time_in_the_state_serves_every_utility(table: Table, case: Case, stock: F) -> None:
    """Rewards gamma^t r in states (s, t) and no discount: exact although the utility is not homogeneous."""
    gamma, horizon = HALF, 3
    size = len(table)
    clocked: Table = {
        t * size + s: {
            a: [(p, (t + 1) * size + after, gamma**t * r, ended or t + 1 == horizon) for p, after, r, ended in outcomes]
            for a, outcomes in rows.items()
        }
        for t in range(horizon)
        for s, rows in table.items()
    }
    run = Sweeps(clocked, ONE, case.K)
    try:
        laws = naive.laws(table, gamma, 0, horizon, limit=500)
    except naive.TooManyLawsError:
        assume(False)
    assert run.value(horizon, 0, stock) == max(case.K(shift(nu, stock)) for nu in laws)


@theory("4.6")
@pytest.mark.parametrize("case", CASES, ids=repr)
def test_one_stationary_policy_is_optimal_everywhere(case: Case) -> None:
    """Every policy ends within H steps: the policy greedy for eta_H, of (state, stock) alone, attains F* everywhere."""

    @settings(modest, max_examples=20)
    @given(layered, gammas, ties, strategies.stocks())
    def holds(table: Table, gamma: F, tie: Any, stock: F) -> None:
        assume(fits(case, gamma))
        horizon = len(table)
        run = Sweeps(table, gamma, case.K, tie=tie)
        for state in table:
            attained = naive.replay(table, gamma, state, horizon, lambda s, c, t: run.action(horizon, s, c), stock)
            assert case.K(shift(attained, stock)) == naive.best(table, gamma, state, horizon, case.K, stock)

    holds()


@theory("4.6")
def test_a_stationary_policy_can_lose_when_steps_are_counted() -> None:
    """A pays 1, B pays 2 or 0, two steps, P(c + G >= 0): every policy of the stock alone loses 1/4 somewhere."""
    table: Table = {0: {0: [(ONE, 0, ONE, False)], 1: [(HALF, 0, F(2), False), (HALF, 0, ZERO, False)]}}
    stocks = range(-4, 1)
    best = {c: naive.best(table, ONE, 0, 2, naive.chance, F(c)) for c in stocks}
    losses = []
    for actions in itertools.product((0, 1), repeat=len(stocks) + 4):
        policy = dict(zip(range(-4, 5), actions, strict=True))
        attained = {c: naive.replay(table, ONE, 0, 2, lambda s, x, t, p=policy: p[int(x)], F(c)) for c in stocks}
        losses.append(max(best[c] - naive.chance(shift(nu, F(c))) for c, nu in attained.items()))
    assert min(losses) == F(1, 4)


# --------------------------------------------------------------------------------------------------
# 6: necessity


def fork_of(weights: tuple[F, ...], pairs: list[tuple[Law, Law]]) -> Table:
    """Return the fork: s0 goes to u_i with probability p_i and reward 0; there A pays nu_i and B pays nu'_i."""
    end = len(pairs) + 1
    return {
        0: {0: [(p, i, ZERO, False) for i, p in enumerate(weights, 1)]},
        **{i: {0: pay(nu, end), 1: pay(mu, end)} for i, (nu, mu) in enumerate(pairs, 1)},
    }


BROKEN: dict[str, naive.Functional] = {
    "median": lambda nu: naive.lower_quantile(nu, HALF),
    "variance": lambda nu: -naive.var(nu),
    "mean minus variance": lambda nu: naive.mean(nu) - naive.var(nu),
    "worst half": lambda nu: naive.cvar(nu, HALF),
    "best half": lambda nu: naive.optimistic_cvar(nu, HALF),
    "expectile": lambda nu: naive.expectile(nu, F(1, 4)),
}


def violations(K: naive.Functional) -> Iterator[tuple[tuple[F, F], list[tuple[Law, Law]]]]:
    """Yield families with K nu_i >= K nu'_i for both i and K of the mixtures the other way round."""
    ordered = [(nu, mu) for nu, mu in itertools.product(LAWS, repeat=2) if K(nu) >= K(mu)]
    for p in (F(1, 4), HALF):
        for pairs in itertools.product(ordered, repeat=2):
            weights = (p, 1 - p)
            nu, mu = (naive.mix(zip(weights, [pair[i] for pair in pairs], strict=True)) for i in (0, 1))
            if K(nu) < K(mu):
                yield weights, list(pairs)


@theory("6.2")
@theory("6.3")
@pytest.mark.parametrize("name", BROKEN)
def test_every_violation_is_a_decision_problem(name: str) -> None:
    """DVI and DPI on the fork of a violation are suboptimal after any number of iterations, with ties to A."""
    K, found, strict = BROKEN[name], 0, 0
    for weights, pairs in itertools.islice(violations(K), 40):
        table = fork_of(weights, pairs)
        best = naive.best(table, ONE, 0, 2, K)
        found += 1
        all_strict = all(K(nu) > K(mu) or nu == mu for nu, mu in pairs)
        strict += all_strict
        for tie in TIES if all_strict else (min,):
            run = Sweeps(table, ONE, K, tie=tie)
            assert all(run.value(n, 0, ZERO) < best for n in (2, 3, 5))
            for first in (0, 1):
                improved = Policies(table, ONE, K, lambda s, c, a=first: a if s else 0, tie)
                assert all(improved.value(k, 0, ZERO) < best for k in (1, 2, 4))
        if all_strict:
            # At the u_i only A is optimal, and whoever takes A there is not optimal at s0.
            greedy = naive.mix(zip(weights, [nu for nu, _ in pairs], strict=True))
            assert K(greedy) < best
    assert found and strict


@theory("6.3")
def test_a_violated_discount_is_a_decision_problem() -> None:
    """E[-2^-X], gamma = 1/2: one idle step turns the order of 2 and {0, 8} round; DVI from s0 takes A, -1/2."""

    def f(x: F) -> Any:
        return -(2.0 ** -float(x))

    a, b = point(2), law({0: F(1, 3), 8: F(2, 3)})
    table = fork_of((ONE,), [(a, b)])
    run = Sweeps(table, HALF, mean_of(f))
    assert run.action(1, 1, ZERO) == 0 and mean_of(f)(a) > mean_of(f)(b)
    assert all(run.value(n, 0, ZERO) == -0.5 for n in (2, 3, 5))
    assert naive.best(table, HALF, 0, 2, mean_of(f)) == pytest.approx(-3 / 8, abs=1e-15)
