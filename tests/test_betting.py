"""Three rounds of bets: every objective of the library against the list of all laws, in fractions.

A player starts with two coins and may stake any whole number of the coins in hand, three times. A stake is doubled with
probability ``p`` and lost otherwise. The return is what was won in all, discounted where ``gamma < 1``. The rounds are
counted by the horizon, or by the state, in a problem that ends by itself.

There are a few hundred laws of the return over all policies that remember everything. An optimum over deterministic
policies is the best of that list; over randomized ones it is the lowest point of a convex function made of that list.

The gambler's problem closes the file: one bet after the other until a goal or ruin, where bold play is optimal in an
unfavorable game, and timid play in a favorable one (Dubins and Savage, 1965).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction as F
from functools import cache
from typing import Any

import numpy as np
import pytest

import rdolib as rdo
from rdolib.risk import OuterSearch
from tests import naive, strategies
from tests.naive import Law, Table

TOLERANCE = 1e-9
COINS, ROUNDS = 2, 3
UNFAIR, FAIR, FAVORABLE = F(1, 3), F(1, 2), F(3, 5)


# --------------------------------------------------------------------------------------------------
# the problem


def bet(p: F, stake: int, after: Callable[[int], int], last: bool) -> list[naive.Outcome]:
    """The outcomes of one stake; ``after`` names the next state by what is won."""
    if stake == 0:
        return [(F(1), after(0), F(0), last)]
    return [(p, after(stake), F(stake), last), (1 - p, after(-stake), F(-stake), last)]


def by_horizon(p: F) -> Table:
    """The state is the number of coins."""
    most = COINS * 2**ROUNDS
    return {
        coins: {
            stake: bet(p, stake, lambda won, coins=coins: coins + won, False)  # type: ignore[misc]
            for stake in range(min(coins, most - coins) + 1)
        }
        for coins in range(most + 1)
    }


def by_round(p: F) -> Table:
    """The state counts the rounds as well, and the last one ends the return."""
    found = [(0, COINS)]
    for t, coins in found:
        if t + 1 < ROUNDS:
            found += [(t + 1, x) for x in range(2 * coins + 1) if (t + 1, x) not in found]
    number = {pair: i for i, pair in enumerate(found)}
    return {
        i: {
            stake: bet(p, stake, lambda won, t=t, coins=coins: number.get((t + 1, coins + won), 0), t + 1 == ROUNDS)  # type: ignore[misc]
            for stake in range(coins + 1)
        }
        for (t, coins), i in number.items()
    }


@dataclass(frozen=True)
class Game:
    """One way to write the problem down."""

    p: F
    gamma: F
    rounds_in_state: bool

    @property
    def table(self) -> Table:
        return by_round(self.p) if self.rounds_in_state else by_horizon(self.p)

    @property
    def start(self) -> int:
        return 0 if self.rounds_in_state else COINS

    @property
    def horizon(self) -> int | None:
        return None if self.rounds_in_state else ROUNDS

    @property
    def endless(self) -> bool:
        """Whether the library takes it for a discounted problem without an end."""
        return self.rounds_in_state and self.gamma < 1

    def __str__(self) -> str:
        return f"p={self.p},gamma={self.gamma},{'rounds' if self.rounds_in_state else 'horizon'}"


GAMES = [
    Game(p, gamma, rounds)
    for p, gamma, rounds in itertools.product((UNFAIR, FAIR, FAVORABLE), (F(1), F(1, 2)), (False, True))
]


@cache
def mdp_of(game: Game) -> rdo.MDP:
    return rdo.MDP.from_outcomes(strategies.floats(game.table), gamma=float(game.gamma), initial=game.start)


@cache
def laws_of(game: Game) -> tuple[Law, ...]:
    return tuple(naive.laws(game.table, game.gamma, game.start, ROUNDS))


# --------------------------------------------------------------------------------------------------
# thirty-odd objectives


@dataclass(frozen=True)
class Case:
    """An objective of the library, the stock to run it from, and its exact functional of the law of stock + G."""

    K: rdo.Objective
    exact: Callable[[Law], Any]
    stock: F = F(0)


def expectation(f: naive.Utility) -> Callable[[Law], Any]:
    return lambda nu: naive.expect(nu, f)


def two_slopes(below: F, above: F) -> naive.Utility:
    return lambda x: below * min(x, F(0)) + above * max(x, F(0))


def exponential(beta: float) -> Callable[[Law], float]:
    return lambda nu: math.fsum(float(p) * math.expm1(beta * x) / beta for x, p in nu)


def root(nu: Law) -> float:
    return math.fsum(float(p) * math.sqrt(max(x, 0)) for x, p in nu)


def mean_cvar(tau: F, w: F) -> Callable[[Law], F]:
    return lambda nu: (1 - w) * naive.mean(nu) + w * naive.cvar(nu, tau)


def sharpe(nu: Law) -> float:
    spread = naive.var(nu)
    return float(naive.mean(nu)) / math.sqrt(spread) if spread else math.copysign(math.inf, naive.mean(nu) or -1)


shortfall, surplus = expectation(two_slopes(F(1), F(0))), expectation(two_slopes(F(0), F(1)))
CASES = [
    Case(rdo.Mean(), naive.mean),
    Case(rdo.Shortfall(), shortfall, F(-3)),
    Case(rdo.Surplus(), surplus, F(-3)),
    Case(rdo.TargetReturn(), expectation(lambda x: -abs(x)), F(-3)),
    Case(rdo.TwoSlope(3, 1), expectation(two_slopes(F(3), F(1))), F(-1)),
    Case(rdo.TwoSlope(-1, 2), expectation(two_slopes(F(-1), F(2))), F(-2)),
    Case(rdo.Threshold(), naive.chance, F(-2)),
    Case(rdo.Threshold(), naive.chance, F(1)),
    Case(rdo.Exponential(-0.5), exponential(-0.5)),
    Case(rdo.Exponential(0.25), exponential(0.25)),
    Case(rdo.Quadratic(), expectation(lambda x: -x * x), F(-3)),
    Case(rdo.Homeostasis(), expectation(lambda x: -abs(x)), F(-2)),
    Case(rdo.ExpectedUtility(lambda x: np.sqrt(np.maximum(x, 0)), degree=0.5), root, F(COINS)),
    Case(rdo.ExpectedUtility(lambda x: np.minimum(x, 1), lipschitz=1), expectation(lambda x: min(x, F(1)))),
    Case(rdo.EssInf(), naive.ess_inf),
    Case(rdo.EssSup(), naive.ess_sup),
    Case(rdo.Lexicographic(rdo.Threshold(), rdo.Mean()), naive.lexicographic(naive.chance, naive.mean), F(-2)),
    Case(rdo.Lexicographic(rdo.Shortfall(), rdo.EssSup()), naive.lexicographic(shortfall, naive.ess_sup), F(1)),
    Case(rdo.CVaR(0.25), lambda nu: naive.cvar(nu, F(1, 4))),
    Case(rdo.CVaR(0.75), lambda nu: naive.cvar(nu, F(3, 4))),
    Case(rdo.CVaR(1.0), naive.mean),
    Case(rdo.MeanCVaR(0.25, 0.125), mean_cvar(F(1, 4), F(1, 8))),
    Case(rdo.MeanCVaR(0.5, 0.75), mean_cvar(F(1, 2), F(3, 4))),
    Case(rdo.Expectile(0.25), lambda nu: naive.expectile(nu, F(1, 4))),
    Case(rdo.Expectile(0.875), lambda nu: naive.expectile(nu, F(7, 8))),
    Case(rdo.Quantile(0.375), lambda nu: naive.lower_quantile(nu, F(3, 8))),
    Case(rdo.Quantile(0.375, side="upper"), lambda nu: naive.upper_quantile(nu, F(3, 8))),
    Case(rdo.Quantile(0.875), lambda nu: naive.lower_quantile(nu, F(7, 8))),
    Case(rdo.Median(), lambda nu: naive.lower_quantile(nu, F(1, 2))),
    Case(rdo.Variance(), lambda nu: -naive.var(nu)),
    Case(rdo.MeanVariance(0.03125), lambda nu: naive.mean(nu) - F(1, 32) * naive.var(nu)),
    Case(rdo.MeanVariance(2.0), lambda nu: naive.mean(nu) - 2 * naive.var(nu)),
    Case(rdo.Sharpe(), sharpe),
]
COINS_HELP = [rdo.OptimisticCVaR(level) for level in (0.125, 0.5, 0.75)]


def close(found: Any, exact: Any) -> bool:
    return bool(np.allclose(np.asarray(found, float), np.asarray(exact, dtype=float), rtol=0, atol=TOLERANCE))


def test_every_objective_of_the_library_is_here() -> None:
    used = {type(case.K) for case in CASES} | {rdo.OptimisticCVaR}
    public = {one for one in vars(rdo).values() if isinstance(one, type) and issubclass(one, rdo.Objective)}
    assert public - used <= {rdo.Objective}
    assert len(CASES) + len(COINS_HELP) >= 31


def refused(K: rdo.Objective, game: Game) -> bool:
    """No gain for the Sharpe ratio; without a horizon, a discount for what minds it."""
    if isinstance(K, rdo.Sharpe):
        return game.p <= FAIR
    minds = isinstance(K, rdo.Lexicographic) or not K.indifferent_to_gamma
    return game.endless and minds and not isinstance(K, OuterSearch)


@pytest.mark.parametrize("game", GAMES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.K!r}@{case.stock}")
def test_exact_answers(case: Case, game: Game) -> None:
    """Value, bounds, the law of the plan, and a walk over all histories that asks the policy: all the same number."""
    mdp, laws = mdp_of(game), laws_of(game)
    own = {} if isinstance(case.K, OuterSearch) else {"stock": float(case.stock)}
    if refused(case.K, game):
        with pytest.raises(rdo.NotOptimizableError):
            rdo.optimize(mdp, case.K, horizon=game.horizon, **own)
        return
    exact = max(case.exact(naive.shift(nu, case.stock)) for nu in laws)
    plan = rdo.optimize(mdp, case.K, horizon=game.horizon, **own)
    assert close(plan.value, exact)
    assert all(close(bound, exact) for bound in plan.bounds)
    assert plan.converged
    assert close(case.K(plan.returns + (0.0 if isinstance(case.K, OuterSearch) else plan.stock)), exact)
    walked = naive.replay(
        game.table, game.gamma, game.start, ROUNDS,
        lambda s, c, t: int(plan.policy.action(s, float(c), t)), F(plan.stock),
    )  # fmt: skip
    assert walked in laws
    assert close(case.exact(naive.shift(walked, case.stock)), exact)


# --------------------------------------------------------------------------------------------------
# where coins help


def lowest(laws: tuple[Law, ...], tau: F) -> F:
    """Least over b of max over laws of b + E max(G - b, 0) / tau: convex, made of lines between neighboring returns."""

    def height(b: F) -> F:
        return b + max(F(naive.expect(nu, lambda x: max(x - b, F(0)))) for nu in laws) / tau

    kinks = sorted({x for nu in laws for x, _ in nu})
    heights = [height(b) for b in kinks]
    i = heights.index(min(heights))
    tries = {kinks[i]}
    for low, high in itertools.pairwise(kinks[max(0, i - 1) : i + 2]):
        steepest: dict[F, F] = {}  # between two returns: the highest line of every slope
        for nu in laws:
            p, m = naive.chance(nu, high), F(naive.expect(nu, lambda x, high=high: x if x >= high else F(0)))  # type: ignore[misc]
            steepest[p] = max(m, steepest.get(p, m))
        for (p, m), (q, n) in itertools.combinations(steepest.items(), 2):
            if low < (m - n) / (p - q) < high:
                tries.add((m - n) / (p - q))
    return min(map(height, tries))


@pytest.mark.parametrize("game", GAMES, ids=str)
@pytest.mark.parametrize("K", COINS_HELP, ids=repr)
def test_best_tail_over_lotteries(K: rdo.OptimisticCVaR, game: Game) -> None:
    tau = F(K.level)
    exact = lowest(laws_of(game), tau)
    plan = rdo.optimize(mdp_of(game), K, horizon=game.horizon)
    assert close(plan.value, exact) and all(close(bound, exact) for bound in plan.bounds) and plan.converged
    assert close(K(plan.returns), exact)
    walked = [
        (
            F(p),
            naive.replay(
                game.table, game.gamma, game.start, ROUNDS,
                lambda s, c, t, part=part: int(part.policy.action(s, float(c), t)), F(part.stock),
            ),
        )
        for p, part in plan.mixture
    ]  # fmt: skip
    assert close(naive.optimistic_cvar(naive.mix(walked), tau), exact)
    alone = max(naive.optimistic_cvar(nu, tau) for nu in laws_of(game))
    assert all(plan.pure.value <= float(alone) + TOLERANCE <= float(exact) + 2 * TOLERANCE for _ in walked)


def test_coins_do_help_somewhere() -> None:
    """Else the test above would not tell lotteries from plans."""
    gains = [
        lowest(laws_of(game), F(K.level)) - max(naive.optimistic_cvar(nu, F(K.level)) for nu in laws_of(game))
        for game in GAMES
        for K in COINS_HELP
    ]
    assert min(gains) == 0 < max(gains)


# --------------------------------------------------------------------------------------------------
# many levels, many stocks


@pytest.mark.parametrize("game", GAMES, ids=str)
@pytest.mark.parametrize(
    ("family", "exact"),
    [
        (rdo.CVaR, naive.cvar),
        (rdo.Quantile, naive.lower_quantile),
        (lambda level: rdo.Quantile(level, side="upper"), naive.upper_quantile),
        (rdo.Expectile, naive.expectile),
    ],
    ids=["cvar", "lower quantile", "upper quantile", "expectile"],
)
def test_frontiers(family: Callable[[float], OuterSearch], exact: Callable[[Law, F], F], game: Game) -> None:
    levels = [k / 16 for k in range(1, 16, 2)]
    front = rdo.frontier(mdp_of(game), family, levels=levels, horizon=game.horizon)
    for level, plan in zip(levels, front.plans, strict=True):
        assert close(plan.value, max(exact(nu, F(level)) for nu in laws_of(game))), level


@pytest.mark.parametrize("game", GAMES, ids=str)
def test_chances_of_every_goal(game: Game) -> None:
    goals = [F(k, 2) for k in range(-5, 30)]
    solution = rdo.value_iteration(
        mdp_of(game), rdo.Threshold(), stock=[-float(goal) for goal in goals], horizon=game.horizon
    )
    for goal in goals:
        exact = max(naive.chance(nu, goal) for nu in laws_of(game))
        assert close(solution.objective_value(game.start, -float(goal)), exact), goal


@pytest.mark.parametrize("game", [game for game in GAMES if not game.endless], ids=str)
@pytest.mark.parametrize("most", [F(0), F(1), F(2)])
def test_best_mean_with_a_limit_on_the_loss(game: Game, most: F) -> None:
    """A constraint that must hold surely, put first."""
    plan = rdo.optimize(
        mdp_of(game), rdo.Lexicographic(rdo.Shortfall(), rdo.Mean()), horizon=game.horizon, stock=float(most)
    )
    exact = max(naive.mean(nu) for nu in laws_of(game) if naive.ess_inf(nu) >= -most)
    assert close(plan.value, (0, exact + most))


# --------------------------------------------------------------------------------------------------
# the gambler


def gambler(p: F, goal: int) -> Table:
    """A bet of at least one coin and never more than is needed, until the goal or ruin."""
    return {
        coins: {
            stake - 1: [
                (p, coins + stake, F(stake), coins + stake == goal),
                (1 - p, coins - stake, F(-stake), coins == stake),
            ]
            for stake in range(1, min(coins, goal - coins) + 1)
        }
        for coins in range(1, goal)
    } | {end: {0: [(F(1), end, F(0), True)]} for end in (0, goal)}


def chances(p: F, goal: int, stake: Callable[[int], int]) -> list[F]:
    """Probability of the goal for every number of coins, from the linear equations of one way to play."""
    inner = range(1, goal)
    moves = {x: {x + stake(x): p, x - stake(x): 1 - p} for x in inner}
    solved = naive.solve(
        {x: {y: moves[x].get(y, F(0)) for y in inner} for x in inner}, {x: moves[x].get(goal, F(0)) for x in inner}
    )
    return [F(0), *(solved[x] for x in inner), F(1)]


def bold(x: int, goal: int) -> int:
    return min(x, goal - x)


@pytest.mark.parametrize("p", [F(2, 5), F(1, 4), F(1, 2)])
@pytest.mark.parametrize("goal", [16, 25])
def test_bold_play(p: F, goal: int) -> None:
    mdp = rdo.MDP.from_outcomes(strategies.floats(gambler(p, goal)))
    solution = rdo.value_iteration(mdp, rdo.Threshold(), stock=[float(x - goal) for x in range(1, goal)])
    play = chances(p, goal, lambda x: bold(x, goal))
    for x in range(1, goal):
        assert close(solution.objective_value(x, x - goal), play[x])
        assert close(rdo.optimize(mdp, rdo.Threshold(), state=x, stock=x - goal).value, play[x])


@pytest.mark.parametrize("p", [F(3, 5), F(3, 4)])
def test_timid_play(p: F) -> None:
    goal, odds = 16, (1 - p) / p
    mdp = rdo.MDP.from_outcomes(strategies.floats(gambler(p, goal)))
    solution = rdo.value_iteration(mdp, rdo.Threshold(), stock=[float(x - goal) for x in range(1, goal)])
    for x in range(1, goal):
        assert close(solution.objective_value(x, x - goal), (1 - odds**x) / (1 - odds**goal))


def test_bold_play_on_a_hundred_coins() -> None:
    """The gambler of the textbooks: forty percent, a goal of one hundred; half of it has exactly one good stake."""
    p, goal = F(2, 5), 100
    mdp = rdo.MDP.from_outcomes(strategies.floats(gambler(p, goal)))
    solution = rdo.value_iteration(mdp, rdo.Threshold(), stock=[-50.0, -75.0, -25.0])
    assert close([solution.objective_value(x, x - goal) for x in (50, 75, 25)], [p, p + (1 - p) * p, p * p])
    assert solution.policy.action(50, -50.0) == 49
