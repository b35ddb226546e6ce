"""The reductions of section 7: each optimum as an extremum or a root over the initial stock, in exact fractions.

``V`` is a backward induction over histories for one utility; the optima come from the list of the laws of all
policies. The two know nothing of each other, and neither knows the library.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction as F
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests import naive, strategies
from tests.naive import Law, Table

theory = pytest.mark.theory
modest = settings(
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def lower(x: F) -> F:
    return min(x, F(0))


def upper(x: F) -> F:
    return max(x, F(0))


@dataclass(frozen=True)
class Problem:
    """A tiny problem with the laws of all its policies and its possible returns."""

    table: Table
    gamma: F
    steps: int
    laws: tuple[Law, ...]
    returns: tuple[F, ...]

    def V(self, f: Callable[[F], F], b: F) -> F:
        """Return max E f(G - b) over policies, by backward induction."""
        return F(naive.best_utility(self.table, self.gamma, 0, self.steps, f, -b))

    def best(self, functional: Callable[[Law], Any]) -> Any:
        """Return the best value of a functional of the law, over all policies."""
        return max(functional(nu) for nu in self.laws)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    table, steps = draw(strategies.tables(max_outcomes=3)), draw(st.integers(1, 3))
    gamma = draw(st.sampled_from(strategies.GAMMAS))
    try:
        laws = naive.laws(table, gamma, 0, steps, limit=300)
    except naive.TooManyLawsError:
        assume(False)
        raise
    return Problem(table, gamma, steps, tuple(laws), tuple(naive.possible_returns(table, gamma, 0, steps)))


def inside_levels() -> st.SearchStrategy[F]:
    return strategies.levels().filter(lambda tau: tau < 1)


@theory("7.1")
@modest
@given(problems(), strategies.levels())
def test_both_tails_as_extrema_over_b(problem: Problem, tau: F) -> None:
    for nu in problem.laws[:20]:
        at = [(b + naive.expect(nu, lambda x, b=b: lower(x - b)) / tau, b) for b, _ in nu]
        assert naive.cvar(nu, tau) == max(at)[0]
        lowest, highest = naive.lower_quantile(nu, tau), naive.upper_quantile(nu, tau) if tau < 1 else nu[-1][0]
        assert all((g == max(at)[0]) == (lowest <= b <= highest) for g, b in at)  # the maximizers are the quantiles
        tops = [b + naive.expect(nu, lambda x, b=b: upper(x - b)) / tau for b, _ in nu]
        assert naive.optimistic_cvar(nu, tau) == min(tops)


@theory("7.2")
@modest
@given(problems(), strategies.levels())
def test_only_possible_returns_up_to_a_line(problem: Problem, tau: F) -> None:
    best = problem.best(lambda nu: naive.cvar(nu, tau))
    g = {b: b + problem.V(lower, b) / tau for b in problem.returns}
    assert max(g.values()) == best
    assert all(value <= b for b, value in g.items())  # so no b below the best value is needed
    assert max(value for b, value in g.items() if b >= best) == best


@theory("7.3")
@modest
@given(problems(), strategies.levels(), st.fractions(F(1, 9), F(3), max_denominator=9))
def test_a_scan_with_a_step_loses_little_and_only_downward(problem: Problem, tau: F, step: F) -> None:
    best = problem.best(lambda nu: naive.cvar(nu, tau))
    low, high = problem.returns[0], problem.returns[-1]
    points = [low + step * i for i in range(int((high - low) / step) + 2)]
    g = [b + problem.V(lower, b) / tau for b in points]
    assert all(1 - 1 / tau <= (right - left) / step <= 1 for left, right in pairwise(g))
    assert best - (1 - tau) * step <= max(g) <= best


@theory("7.3")
def test_the_loss_of_a_scan_is_tight() -> None:
    """A sure return in the worst place between two points."""
    tau, step = F(1, 4), F(2)
    sure = (1 - tau) * step  # g rises with slope 1 before it and falls with slope 1 - 1/tau after it
    g = [b + lower(sure - b) / tau for b in (F(0), step)]
    assert sure - max(g) == (1 - tau) * step


@theory("7.3")
@modest
@given(problems(), strategies.levels(), st.fractions(F(0), F(1), max_denominator=9))
def test_an_error_of_the_table_costs_its_share(problem: Problem, tau: F, error: F) -> None:
    best = problem.best(lambda nu: naive.cvar(nu, tau))
    for sign in (-1, 1):
        wrong = max(b + (problem.V(lower, b) + sign * error) / tau for b in problem.returns)
        assert abs(wrong - best) <= error / tau


@theory("7.4")
@modest
@given(problems(), strategies.levels())
def test_the_best_lottery_is_the_lowest_point_over_real_b(problem: Problem, tau: F) -> None:
    """From above by convexity and minimax; attained by two policies; possible returns alone give too much."""
    lowest = naive.best_optimistic_cvar(problem.table, problem.gamma, 0, problem.steps, tau)
    pure = problem.best(lambda nu: naive.optimistic_cvar(nu, tau))
    assert pure <= lowest <= min(b + problem.V(upper, b) / tau for b in problem.returns)
    # Two laws attain it. Along a segment the functional is concave, with kinks where a tail has mass tau.
    if len(problem.laws) <= 12:
        lotteries = [
            naive.mix([(w, nu), (1 - w, mu)])
            for nu in problem.laws
            for mu in problem.laws
            for x in problem.returns
            for w in weights_with_tail(naive.chance(nu, x), naive.chance(mu, x), tau)
        ]
        assert max(naive.optimistic_cvar(nu, tau) for nu in [*problem.laws, *lotteries]) == lowest


def weights_with_tail(p: F, q: F, tau: F) -> list[F]:
    """Return the weight ``w`` in [0, 1] with ``w p + (1 - w) q = tau``, if there is one."""
    return [(tau - q) / (p - q)] if p != q and 0 <= (tau - q) / (p - q) <= 1 else []


@theory("7.4")
def test_one_and_four_thirds_and_three_halves() -> None:
    table: Table = {
        0: {0: [(F(1), 0, F(1), True)], 1: [(F(1, 4), 0, F(2), True), (F(3, 4), 0, F(0), True)]},
    }
    tau = F(1, 2)
    laws = naive.laws(table, F(1), 0, 1)
    assert max(naive.optimistic_cvar(nu, tau) for nu in laws) == 1
    assert naive.best_optimistic_cvar(table, F(1), 0, 1, tau) == F(4, 3)
    sure, gamble = sorted(laws, key=len)
    assert naive.optimistic_cvar(naive.mix([(F(1, 3), sure), (F(2, 3), gamble)]), tau) == F(4, 3)
    restricted = min(b + F(naive.best_utility(table, F(1), 0, 1, upper, -b)) / tau for b in (F(0), F(1), F(2)))
    assert restricted == F(3, 2)


@theory("7.5")
@modest
@given(problems(), strategies.levels(), st.fractions(0, 1, max_denominator=5))
def test_mean_and_cvar_together_are_one_two_slope_utility(problem: Problem, tau: F, weight: F) -> None:
    below, above = 1 - weight + weight / tau, 1 - weight
    best = problem.best(lambda nu: (1 - weight) * naive.mean(nu) + weight * naive.cvar(nu, tau))

    def f(x: F) -> F:
        return above * upper(x) + below * lower(x)

    assert max(b + problem.V(f, b) for b in problem.returns) == best
    if below > above:  # and conversely
        assert (1 - above, (1 - above) / (below - above)) == (weight, tau)


@theory("7.6")
@modest
@given(problems(), inside_levels())
def test_expectiles_are_roots(problem: Problem, tau: F) -> None:
    best = problem.best(lambda nu: naive.expectile(nu, tau))

    def f(x: F) -> F:
        return tau * upper(x) + (1 - tau) * lower(x)

    assert problem.V(f, best) == 0
    assert problem.V(f, best + F(1, 7)) < 0 < problem.V(f, best - F(1, 7))


@theory("7.7")
@modest
@given(problems(), inside_levels())
def test_quantiles_are_steps_of_the_best_chance(problem: Problem, tau: F) -> None:
    chance = {b: problem.V(lambda x: F(x >= 0), b) for b in problem.returns}
    reached = [b for b, p in chance.items() if p >= 1 - tau]
    surely = [b for b, p in chance.items() if p > 1 - tau]
    assert problem.best(lambda nu: naive.upper_quantile(nu, tau)) == max(reached)
    assert problem.best(lambda nu: naive.lower_quantile(nu, tau)) == max(surely)


@theory("7.8")
@modest
@given(problems(), st.fractions(F(1, 8), F(4), max_denominator=8))
def test_variance_by_the_best_square_over_all_b(problem: Problem, weight: F) -> None:
    def square(x: F) -> F:
        return -x * x

    best_variance = problem.best(lambda nu: -naive.var(nu))
    best_both = problem.best(lambda nu: naive.mean(nu) - weight * naive.var(nu))
    means = {naive.mean(nu) for nu in problem.laws}
    everywhere = sorted(means | {m + 1 / (2 * weight) for m in means} | set(problem.returns))
    V = {b: problem.V(square, b) for b in everywhere}
    assert max(V[b] for b in means) == best_variance >= max(V.values())
    score = {b: b - 1 / (4 * weight) + weight * v for b, v in V.items()}
    assert max(score[m + 1 / (2 * weight)] for m in means) == best_both >= max(score.values())
    # h(b) = V + b**2 is the largest of the lines 2 b E G - E G**2: convex, so that chords lie above it.
    h = {b: v + b * b for b, v in V.items()}
    assert all(
        value == max(2 * b * naive.mean(nu) - naive.expect(nu, lambda x: x * x) for nu in problem.laws)
        for b, value in h.items()
    )


@theory("7.9")
@modest
@given(problems())
def test_sharpe_by_the_best_square_over_positive_b(problem: Problem) -> None:
    gains = [nu for nu in problem.laws if naive.mean(nu) > 0]
    assume(gains)
    moments = [(naive.mean(nu), F(naive.expect(nu, lambda x: x * x))) for nu in gains]
    best = max(m * m / s for m, s in moments)  # S**2 / (1 + S**2)
    tried = {s / m for m, s in moments} | {b for b in problem.returns if b > 0}
    score = {b: 1 + problem.V(lambda x: -x * x, b) / (b * b) for b in tried}
    assert max(score.values()) == best


@theory("7.13")
def test_two_hills_and_a_valley() -> None:
    table: Table = {
        0: {0: [(F(1), 0, F(1), True)], 1: [(F(1, 4), 0, F(-2), True), (F(3, 4), 0, F(5), True)]},
    }
    g = [b + F(naive.best_utility(table, F(1), 0, 1, lower, -b)) * 2 for b in (F(1), F(2), F(5))]
    assert g == [1, 0, F(3, 2)]


@theory("7.14")
@modest
@given(problems(), strategies.levels(), st.data())
def test_suprema_need_no_coin(problem: Problem, tau: F, data: st.DataObject) -> None:
    """CVaR, a supremum of expectations, is convex in the law; optimistic CVaR, an infimum, is concave."""
    nu, mu = (data.draw(st.sampled_from(problem.laws)) for _ in range(2))
    w = data.draw(st.fractions(0, 1, max_denominator=6))
    both = naive.mix([(w, nu), (1 - w, mu)])
    assert naive.cvar(both, tau) <= w * naive.cvar(nu, tau) + (1 - w) * naive.cvar(mu, tau)
    apart = w * naive.optimistic_cvar(nu, tau) + (1 - w) * naive.optimistic_cvar(mu, tau)
    assert naive.optimistic_cvar(both, tau) >= apart
