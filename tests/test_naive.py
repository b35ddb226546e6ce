"""The oracle against examples worked out by hand.

The derivations stand in the comments: they are the ground on which every other exactness test rests.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from fractions import Fraction as F
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests import naive, strategies
from tests.naive import Law, Table, law, point

quick = settings(max_examples=40, deadline=None, derandomize=True)


def coin(x: int, y: int) -> Law:
    """Return the law of a fair coin between x and y."""
    return law({x: F(1, 2), y: F(1, 2)})


def fork(p: F, a: Law, b: Law, rest: Law) -> Table:
    """Return the fork: s0 goes to s1 with probability p and else to s2; s1 chooses a or b; s2 pays rest."""

    def pay(nu: Law) -> list[naive.Outcome]:
        return [(prob, 3, atom, True) for atom, prob in nu]

    return {
        0: {0: [(p, 1, F(0), False), (1 - p, 2, F(0), False)]},
        1: {0: pay(a), 1: pay(b)},
        2: {0: pay(rest)},
    }


# Each row: p, A, B, the law at s2, the functional, what greedy choice at s1 leads to, and the optimum. The
# greedy value takes at s1 the law that the functional prefers there; the optimum looks at the mixture as a
# whole.
FORKS: dict[str, tuple[F, Law, Law, Law, Callable[[Law], F], F, F]] = {
    # A: 3/5 on 1, 2/5 on 5, median 1. B: 0 w.p. 2/5, 6 w.p. 1/5, 5 w.p. 2/5: F(0) = 2/5 < 1/2, median 5. At
    # s1 alone, the median of B is 0 < 1.
    "median": (
        F(3, 5),
        point(1),
        law({0: F(2, 3), 6: F(1, 3)}),
        point(5),
        lambda nu: naive.lower_quantile(nu, F(1, 2)),
        F(1),
        F(5),
    ),
    # A: 1/3 on 1, so the lower 1/4-quantile is 1. B: 1/6 on 0, 1/6 + 1/3 on 5: the quantile is 5. At s1
    # alone: 0 < 1.
    "quantile": (
        F(1, 3),
        point(1),
        coin(0, 5),
        coin(5, 6),
        lambda nu: naive.lower_quantile(nu, F(1, 4)),
        F(1),
        F(5),
    ),
    # A: {0, 10}, variance 25. B: 0 w.p. 1/4, 10 w.p. 3/4, variance 100 * 3/16 = 75/4. At s1 alone: 0 beats
    # -25.
    "variance": (F(1, 2), point(0), coin(0, 10), point(10), lambda nu: -naive.var(nu), F(-25), F(-75, 4)),
    # A: {1, 10}: 11/2 - 81/4 = -59/4. B: 0, 4 w.p. 1/4 each, 10 w.p. 1/2: mean 6, square 54, variance 18:
    # -12.
    "mean-variance": (
        F(1, 2),
        point(1),
        coin(0, 4),
        point(10),
        lambda nu: naive.mean(nu) - naive.var(nu),
        F(-59, 4),
        F(-12),
    ),
    # A: 5, 6 w.p. 1/8, 4 w.p. 3/4: mean 35/8, square 157/8, variance 31/64, 1225/31.
    # B: 5 w.p. 1/8, 4 w.p. 7/8: mean 33/8, variance 7/64, 1089/7. The optimum takes the dominated action.
    "sharpe": (
        F(1, 4),
        coin(5, 6),
        coin(4, 5),
        point(4),
        naive.signed_sharpe_square,
        F(1225, 31),
        F(1089, 7),
    ),
    # The worst half. A: 1. B: 0 and 4, mean 2. At s1 alone: 1 against 0.
    "cvar": (F(1, 2), point(1), coin(0, 4), point(10), lambda nu: naive.cvar(nu, F(1, 2)), F(1), F(2)),
    # The best half. A: 6, 2 w.p. 1/4 each: 4. B: 5. At s1 alone: 6 against 5.
    "optimistic": (
        F(1, 2),
        coin(1, 6),
        point(5),
        coin(0, 2),
        lambda nu: naive.optimistic_cvar(nu, F(1, 2)),
        F(4),
        F(5),
    ),
    # A: {2, 6}: mean 4, worst half 2: 3. B: 0 w.p. 1/4, 6 w.p. 3/4: mean 9/2, worst half 3: 15/4. Alone: 2
    # against 3/2.
    "mean-cvar": (
        F(1, 2),
        point(2),
        coin(0, 6),
        point(6),
        lambda nu: (naive.mean(nu) + naive.cvar(nu, F(1, 2))) / 2,
        F(3),
        F(15, 4),
    ),
    # A: 4 w.p. 7/8, 0 w.p. 1/8. With 0 < e < 4: 7/8 (4 - e)/4 = 3/4 e/8, so e = 28/10 = 14/5.
    # B: 3, 6 w.p. 3/8, 0, 4 w.p. 1/8. With 3 < e < 4: (3/8 (6-e) + 1/8 (4-e)) = 3 (3/8 (e-3) + 1/8 e), so
    # 22 - 4e = 12e - 27: e = 49/16. At s1 alone: 4 against (6 - e) = 3 (e - 3), e = 15/4.
    "expectile": (
        F(3, 4),
        point(4),
        coin(3, 6),
        coin(0, 4),
        lambda nu: naive.expectile(nu, F(1, 4)),
        F(14, 5),
        F(49, 16),
    ),
}


@pytest.mark.theory("6.1")
@pytest.mark.parametrize("name", FORKS)
def test_fork(name: str) -> None:
    """Greedy choice by the functional itself is fooled by the fork; the search is not."""
    p, a, b, rest, functional, greedy, optimum = FORKS[name]
    table = fork(p, a, b, rest)
    assert naive.laws(table, F(1), 0, 2) == {
        naive.mix([(p, a), (1 - p, rest)]),
        naive.mix([(p, b), (1 - p, rest)]),
    }
    chosen = a if functional(a) >= functional(b) else b
    assert functional(naive.mix([(p, chosen), (1 - p, rest)])) == greedy
    assert naive.best(table, F(1), 0, 2, functional) == optimum


@pytest.mark.theory("6.1")
def test_discounted_exponential_utility() -> None:
    """E[-2^-X] with gamma = 1/2 is not indifferent to gamma: one idle step changes the better action."""

    # With one idle step the returns are halved. A: 2 -> 1: -1/2. B: 0 w.p. 1/3, 8 -> 4 w.p. 2/3:
    # -(1/3 + 2/3/16) = -3/8. Without it A: -1/4, B: -(1/3 + 2/3/256) < -1/4, so a greedy choice takes A.
    def f(x: F) -> F:
        return -(F(2) ** -int(x))

    pays = {0: [(F(1), 2, F(2), True)], 1: [(F(1, 3), 2, F(0), True), (F(2, 3), 2, F(8), True)]}
    table: Table = {0: {0: [(F(1), 1, F(0), False)]}, 1: pays}
    assert naive.best_utility(table, F(1, 2), 1, 1, f) == F(-1, 4)
    assert naive.best_utility(table, F(1, 2), 0, 2, f) == F(-3, 8)
    assert naive.best(table, F(1, 2), 0, 2, lambda nu: naive.expect(nu, f)) == F(-3, 8)


def one_step(*actions: Law) -> Table:
    """Return one state whose actions pay these laws and end."""
    return {0: {a: [(prob, 0, atom, True) for atom, prob in nu] for a, nu in enumerate(actions)}}


def test_cvar_bracket_is_not_concave() -> None:
    """A search over b that assumes one peak fails: A = 1, B = -2 w.p. 1/4 else 5, the worst half."""
    # g(b) = b + 2 max E min(G - b, 0). g(1): A loses nothing: 1. g(2): A: 2 - 2 = 0; B: 2 - 2 = 0 (1/4 * -4 *
    # 2). g(5): A: 5 - 8; B: 5 + 2 (1/4)(-7) = 3/2. So g rises, falls and rises again.
    table = one_step(point(1), law({-2: F(1, 4), 5: F(3, 4)}))

    def g(b: int) -> F:
        return b + 2 * F(naive.best_utility(table, F(1), 0, 1, lambda x: min(x, F(0)), F(-b)))

    assert [g(1), g(2), g(5)] == [1, 0, F(3, 2)]
    assert naive.best_cvar(table, F(1), 0, 1, F(1, 2)) == F(3, 2)
    assert naive.best_cvar_by_stock(table, F(1), 0, 1, F(1, 2)) == F(3, 2)


def test_optimistic_cvar_needs_a_coin() -> None:
    """A = 1, B = 2 w.p. 1/4 else 0, the best half: 1 without a coin, 4/3 with one."""
    # A: 1. B: (2 * 1/4 + 0 * 1/4) / (1/2) = 1. One third A, two thirds B: 2 w.p. 1/6, 1 w.p. 1/3: (1/3 + 1/3)
    # * 2.
    table = one_step(point(1), law({2: F(1, 4), 0: F(3, 4)}))

    def functional(nu: Law) -> F:
        return naive.optimistic_cvar(nu, F(1, 2))

    assert naive.best(table, F(1), 0, 1, functional) == 1
    a, b = (law({1: 1}), law({2: F(1, 4), 0: F(3, 4)}))
    assert functional(naive.mix([(F(1, 3), a), (F(2, 3), b)])) == F(4, 3)
    assert naive.best_optimistic_cvar(table, F(1), 0, 1, F(1, 2)) == F(4, 3)


def test_history_matters() -> None:
    """A policy that sees only state and time cannot reach a target that one with memory reaches."""
    # A fair coin pays -1 or 1, then the player may pay 1, get 1 or get nothing. Target 0: memory repairs
    # either side.
    table: Table = {
        0: {0: [(F(1, 2), 1, F(-1), False), (F(1, 2), 1, F(1), False)]},
        1: {a: [(F(1), 2, F(r), True)] for a, r in enumerate((-1, 0, 1))},
    }
    assert naive.best_utility(table, F(1), 0, 2, lambda x: -abs(x)) == 0
    assert naive.best(table, F(1), 0, 2, lambda nu: naive.expect(nu, lambda x: -abs(x))) == 0
    assert len(naive.laws(table, F(1), 0, 2)) == len(
        {(x - 1, y + 1) if x - 1 < y + 1 else (y + 1, x - 1) for x, y in itertools.product((-1, 0, 1), repeat=2)}
    )


@pytest.mark.theory("4.6")
def test_stationary_policies_lose() -> None:
    """One state, A: +1, B: 2 or 0, threshold 1{x >= 0}, two steps: the action depends on the steps left."""
    table: Table = {0: {0: [(F(1), 0, F(1), False)], 1: [(F(1, 2), 0, F(2), False), (F(1, 2), 0, F(0), False)]}}

    def value(stock: int, horizon: int) -> F:
        return F(naive.best(table, F(1), 0, horizon, naive.chance, F(stock)))

    # From -2 with one step only B has a chance. From -2 with two steps A, A is sure. From -1 with one step A
    # is sure.
    assert [value(-2, 1), value(-2, 2), value(-1, 1), value(-3, 2), value(-4, 2)] == [
        F(1, 2),
        1,
        1,
        F(1, 2),
        F(1, 4),
    ]


def test_terminated_outcome_ends_the_return() -> None:
    """The next state of a terminated outcome does not matter, and equal rows are one row."""
    table: Table = {
        0: {
            0: [(F(1, 2), 0, F(1), True), (F(1, 4), 0, F(0), False), (F(1, 4), 0, F(0), False)],
            1: [(F(0), 0, F(99), True), (F(1), 0, F(-1), False)],
        }
    }
    everything = naive.laws(table, F(1), 0, 2)
    assert law({1: F(3, 4), 0: F(1, 4)}) in everything
    assert law({1: F(1, 2), -1: F(1, 2)}) in everything
    # Three laws with action 0 first or second, and -2: a coin hidden in the two equal rows would add more.
    assert len(everything) == 4
    assert naive.possible_returns(table, F(1), 0, 2) == [-2, -1, 0, 1]


def test_random_start() -> None:
    """A random start is a mixture, and the policy may depend on what was drawn."""
    table: Table = {
        0: {0: [(F(1), 0, F(1), True)]},
        1: {0: [(F(1), 1, F(2), True)], 1: [(F(1), 1, F(3), True)]},
    }
    start = {0: F(1, 3), 1: F(2, 3)}
    assert naive.laws(table, F(1), start, 1) == {law({1: F(1, 3), 2: F(2, 3)}), law({1: F(1, 3), 3: F(2, 3)})}
    assert naive.best_cvar_by_stock(table, F(1), start, 1, F(1, 2)) == (F(1, 3) * 1 + F(1, 6) * 3) * 2


def test_functionals_of_one_law() -> None:
    """A law with a split atom: 0, 1, 4 with probabilities 1/4, 1/2, 1/4."""
    nu = law({0: F(1, 4), 1: F(1, 2), 4: F(1, 4)})
    assert (naive.mean(nu), naive.var(nu)) == (F(3, 2), F(18, 4) - F(9, 4))
    assert naive.cvar(nu, F(1, 2)) == F(1, 2) and naive.cvar(nu, F(1)) == F(3, 2)
    assert naive.optimistic_cvar(nu, F(1, 2)) == F(5, 2)
    # The lower and the upper quantile differ exactly where the distribution function is flat.
    assert [naive.lower_quantile(nu, F(1, 4)), naive.upper_quantile(nu, F(1, 4))] == [0, 1]
    assert [naive.lower_quantile(nu, F(1, 3)), naive.upper_quantile(nu, F(1, 3))] == [1, 1]
    assert naive.expectile(nu, F(1, 2)) == naive.mean(nu)
    assert naive.chance(nu, F(1)) == F(3, 4)


@quick
@given(
    strategies.tables(layered=True),
    st.sampled_from(strategies.GAMMAS),
    strategies.levels(),
    strategies.stocks(),
)
def test_two_searches_agree(table: Table, gamma: F, tau: F, stock: F) -> None:
    """Listing laws and induction over histories are two programs; they give the same optima."""
    horizon = len(table)
    assert naive.best_cvar(table, gamma, 0, horizon, tau) == naive.best_cvar_by_stock(table, gamma, 0, horizon, tau)
    utilities: list[naive.Utility] = [abs, lambda x: -abs(x), lambda x: x * x, lambda x: F(int(x >= 0))]
    for f in utilities:
        by_laws = naive.best(table, gamma, 0, horizon, partial(naive.expect, f=f), stock)
        assert by_laws == naive.best_utility(table, gamma, 0, horizon, f, stock)


@quick
@given(strategies.tables(layered=True), st.sampled_from(strategies.GAMMAS), strategies.levels())
def test_optimistic_optimum_dominates(table: Table, gamma: F, tau: F) -> None:
    """Randomised policies are at least as good as deterministic ones, and below the best return."""
    horizon = len(table)
    randomised = naive.best_optimistic_cvar(table, gamma, 0, horizon, tau)
    assert randomised >= naive.best(table, gamma, 0, horizon, lambda nu: naive.optimistic_cvar(nu, tau))
    assert randomised <= naive.possible_returns(table, gamma, 0, horizon)[-1]


def test_replay_is_one_of_the_laws() -> None:
    """The law of a stock policy is found among the laws of all policies, with the stock in today's money."""
    table: Table = {
        0: {0: [(F(1, 2), 1, F(-1), False), (F(1, 2), 1, F(1), False)]},
        1: {a: [(F(1), 2, F(r), True)] for a, r in enumerate((-2, 0, 2))},
    }
    seen = []

    def policy(state: int, stock: F, t: int) -> int:
        seen.append((state, stock, t))
        return 0 if state == 0 else (1 - (stock > 0) + (stock < 0))

    # gamma = 1/2: after +-1 the stock is +-2, and -+2 next brings the total to zero.
    assert naive.replay(table, F(1, 2), 0, 2, policy) == point(0)
    assert set(seen) == {(0, F(0), 0), (1, F(-2), 1), (1, F(2), 1)}
    assert point(0) in naive.laws(table, F(1, 2), 0, 2)


def test_no_horizon() -> None:
    """A coin is tossed until heads, one point a toss; or one may stop for 3/2."""
    # The mean number of tosses is 2. E min(G - 3, 0) = -2/2 - 1/4 = -5/4 for the coin and -3/2 for stopping.
    table: Table = {0: {0: [(F(1, 2), 1, F(1), True), (F(1, 2), 0, F(1), False)], 1: [(F(1), 1, F(3, 2), True)]}}
    assert naive.longest_stay(table) == {0: 2}
    for f, stock, exact in ((lambda x: x, F(0), F(2)), (lambda x: min(x, F(0)), F(-3), F(-5, 4))):
        low, high = naive.bracket(table, F(1), 0, 30, f, F(1), stock)
        assert low <= exact <= high and high - low < F(1, 10**7)


def test_no_horizon_with_discount() -> None:
    """One point for ever is 1 / (1 - gamma)."""
    table: Table = {0: {0: [(F(1), 0, F(1), False)]}}
    low, high = naive.bracket(table, F(1, 3), 0, 20, lambda x: -abs(x), F(1), F(-2))
    assert low <= F(-1, 2) <= high and high - low < F(1, 10**8)


def test_expected_time_of_an_endless_policy() -> None:
    """A policy that never ends is reported, not solved."""
    with pytest.raises(ZeroDivisionError, match="never ends"):
        naive.longest_stay({0: {0: [(F(1), 0, F(1), False)]}})


def test_limit_is_guarded() -> None:
    """The search says so when a problem is too large for it."""
    table: Table = {0: {a: [(F(1, 2), 0, F(a), False), (F(1, 2), 0, F(-a), False)] for a in range(3)}}
    with pytest.raises(naive.TooManyLawsError):
        naive.laws(table, F(1), 0, 5, limit=100)


# --------------------------------------------------------------------------------------------------
# distances, vectors, endless values


def test_distances_by_hand() -> None:
    """A law against a point, and two coins."""
    # All mass goes to 1: distances 1, 0, 3 with masses 1/4, 1/2, 1/4.
    nu = law({0: F(1, 4), 1: F(1, 2), 4: F(1, 4)})
    assert (naive.w_power(nu, point(1)), naive.w_power(nu, point(1), 2), naive.w_inf(nu, point(1))) == (1, F(10, 4), 3)
    # {0, 2} against {1, 3}: each atom moves by one; crossing would move one of them by 3.
    assert naive.w_power(coin(0, 2), coin(1, 3), 3) == 1
    # Masses 1/3 and 2/3 against halves: 1/3 stays at 0, 1/6 goes from 6 to 0, 1/2 stays at 6.
    assert naive.w_power(law({0: F(1, 3), 6: F(2, 3)}), coin(0, 6)) == 1


@st.composite
def scalar_laws(draw: st.DrawFn) -> Law:
    """Return laws with up to four atoms and awkward masses."""
    atoms = draw(st.lists(st.integers(-4, 4), min_size=1, max_size=4, unique=True))
    weights = [draw(st.integers(1, 4)) for _ in atoms]
    return law((x, F(w, sum(weights))) for x, w in zip(atoms, weights, strict=True))


@quick
@given(scalar_laws(), scalar_laws())
def test_transport_equals_the_monotone_coupling(nu: Law, mu: Law) -> None:
    """Cheapest paths and sorting are two programs; they give the same distance."""
    assert naive.transport(nu, mu, lambda x, y: abs(x - y)) == naive.w_power(nu, mu)
    assert naive.transport(nu, mu, lambda x, y: (x - y) ** 2) == naive.w_power(nu, mu, 2)
    # W_1 is also the area between the distribution functions.
    grid = sorted({x for x, _ in nu + mu})
    area = sum((b - a) * abs(naive.chance(nu, b) - naive.chance(mu, b)) for a, b in itertools.pairwise(grid))
    assert naive.w_power(nu, mu) == area
    assert naive.w_power(nu, mu) <= naive.w_inf(nu, mu)


def test_transport_of_vectors() -> None:
    """Corners of a square: the cheaper of the two ways to pair them, and mass called back."""

    def taxi(x: naive.Number, y: naive.Number) -> F:
        return sum((abs(a - b) for a, b in zip(x, y, strict=True)), F(0))

    # (0,0) and (1,1) against (0,1) and (2,0): 1 + 2 one way, 2 + 1 the other.
    nu = law({(0, 0): F(1, 2), (1, 1): F(1, 2)})
    assert naive.transport(nu, law({(0, 1): F(1, 2), (2, 0): F(1, 2)}), taxi) == F(3, 2)
    # 0 and 1 against 1 and 3 with the square as cost: the greedy first path 1 -> 1 (cost 0) leaves 0 -> 3 (cost 9),
    # and must be called back: 0 -> 1 and 1 -> 3 cost 1 + 4.
    assert naive.transport(coin(0, 1), coin(1, 3), lambda x, y: (x - y) ** 2) == F(5, 2)


def test_vectors() -> None:
    """Two components: one step pays either, the next the second; discount one half."""
    e1, e2 = naive.Vector((1, 0)), naive.Vector((0, 1))
    table: Table = {0: {0: [(F(1), 1, e1, False)], 1: [(F(1), 1, e2, False)]}, 1: {0: [(F(1), 2, e2, True)]}}
    assert naive.laws(table, F(1, 2), 0, 2) == {point((1, F(1, 2))), point((0, F(3, 2)))}
    # From the stock (-1, -1) the totals are (0, -1/2) and (-1, 1/2): the smaller component decides.
    stock = naive.Vector((-1, -1))
    assert naive.best_utility(table, F(1, 2), 0, 2, min, stock) == F(-1, 2)
    assert naive.best(table, F(1, 2), 0, 2, lambda nu: naive.expect(nu, min), stock) == F(-1, 2)
    seen = []

    def first(state: int, held: naive.Number, t: int) -> int:
        seen.append(held)
        return 0

    # The stock doubles: (-1, -1) + e1 = (0, -1), then (0, -2).
    assert naive.replay(table, F(1, 2), 0, 2, first, stock) == point((1, F(1, 2)))
    assert seen == [stock, naive.Vector((0, -2))]


def test_endless_values_by_hand() -> None:
    """A fair coin for ever, 1 or 0, gamma = 1/2: uniform on [0, 2]."""
    flips: Table = {0: {0: [(F(1, 2), 0, F(1), False), (F(1, 2), 0, F(0), False)]}}
    # E|U - 1| = 1/2 and E|U - 1/2| = (1/8 + 9/8) / 2 = 5/8.
    values = naive.best_two_slope(flips, F(1, 2), F(1), F(-1), [F(-1), F(-1, 2)])
    assert (values[0, F(-1)], values[0, F(-1, 2)]) == (F(-1, 2), F(-5, 8))
    # Stopping for 3/2 beats one flip and then stopping, 1/2 + 3/4.
    stop: Table = {0: {**flips[0], 1: [(F(1), 1, F(3, 2), True)]}}
    assert naive.best_means(stop, F(1, 2)) == {0: F(3, 2)}
    assert naive.closed({0: {0: [(F(1), 0, F(3), False)]}}, F(1, 2)) == {0: {0: [(F(1), 0, F(6), True)]}}


@pytest.mark.theory("8.2")
@quick
@given(strategies.tables(rewards=strategies.INTEGERS), st.sampled_from((F(1, 2), F(1, 3))), strategies.stocks())
def test_linear_system_lies_in_the_bracket(table: Table, gamma: F, stock: F) -> None:
    """Saturation and one linear system against histories cut off after a few steps."""
    for below, above in ((F(1), F(0)), (F(1), F(-1)), (F(-1, 2), F(2))):

        def f(x: F, below: F = below, above: F = above) -> F:
            return below * min(x, F(0)) + above * max(x, F(0))

        values = naive.best_two_slope(table, gamma, below, above, [stock])
        low, high = naive.bracket(table, gamma, 0, 4, f, max(abs(below), abs(above)), stock)
        assert low <= values[0, stock] <= high
