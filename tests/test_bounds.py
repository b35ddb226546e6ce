"""Bounds with computed constants: against numbers worked out by hand, and against true errors in exact fractions.

A bound is right when it is never below the exact constant of the theorem (listed by `tests.theory`), and useful when
it is never above the one that needs only R_max.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable
from fractions import Fraction as F
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings

import rdolib as rdo
from rdolib import bounds, examples
from tests import naive, strategies
from tests.naive import Policies, Sweeps, Table, shift
from tests.theory import (
    GAMMA,
    LIPSCHITZ,
    TWO_SLOPES,
    Case,
    constants,
    exact_optimum,
    extreme,
    lasting,
    modest,
    perpetual,
    theory,
    tidy,
)

ROUNDING = 1e-12
LIBRARY: dict[str, rdo.Objective] = {
    "mean": rdo.Mean(),
    "shortfall": rdo.Shortfall(),
    "surplus": rdo.Surplus(),
    "distance": rdo.TargetReturn(),
    "kinked": rdo.TwoSlope(2.0, 0.5),
    "valley": rdo.TwoSlope(-1.0, 0.5),
    "worst": rdo.EssInf(),
    "best": rdo.EssSup(),
}
PAIRS = [(case, LIBRARY[case.name]) for case in LIPSCHITZ if case.name in LIBRARY]
pairs = pytest.mark.parametrize(("case", "objective"), PAIRS, ids=[case.name for case, _ in PAIRS])

ONE_FOR_EVER = {0: {0: [(1.0, 0, 1.0, False)]}}
#: Action 0 costs 1 and stays; action 1 pays 3 and ends, or pays 1 and stays.
TWO_WAYS = {0: {0: [(1.0, 0, -1.0, False)], 1: [(0.5, 1, 3.0, True), (0.5, 0, 1.0, False)]}}


def made(table: Any, gamma: float = 0.5) -> rdo.MDP:
    return rdo.MDP.from_outcomes(table, gamma=gamma)


def library(table: Table) -> rdo.MDP:
    return made(strategies.floats(table), float(GAMMA))


def greatest(table: Table) -> F:
    return max(abs(r) for rows in table.values() for outcomes in rows.values() for p, _, r, _ in outcomes if p)


# --------------------------------------------------------------------------------------------------
# against exact constants and true errors


@pairs
def test_truncation_lies_between_the_exact_and_the_crude_bound(case: Case, objective: rdo.Objective) -> None:
    @settings(modest, max_examples=40)
    @given(lasting(), strategies.stocks())
    def holds(table: Table, stock: F) -> None:
        mdp, n = library(table), np.arange(5)
        start, _ = constants(table, GAMMA, case)
        assert case.lipschitz is not None
        exact = np.array([float(case.lipschitz * GAMMA**k * start) for k in n])
        crude = float(case.lipschitz) * 0.5**n * float(greatest(table)) * 2
        bound = np.asarray(bounds.truncation(mdp, objective, n, float(stock)))
        assert (exact <= bound + ROUNDING).all() and (bound <= crude + ROUNDING).all()
        run = Sweeps(table, GAMMA, case.K)
        for state in table:
            here = np.asarray(bounds.truncation(mdp, objective, n, float(stock), state=state))
            best = exact_optimum(table, GAMMA, case, state, stock)
            errors = [abs(float(run.value(k, state, stock) - best)) for k in range(5)]
            assert (errors <= here + ROUNDING).all() and (here <= bound + ROUNDING).all()

    holds()


@pairs
def test_losses_of_policies(case: Case, objective: rdo.Objective) -> None:
    """The true loss of the greedy policy and of policy iteration, in fractions, is within the library's bounds."""

    @settings(modest, max_examples=30)
    @given(lasting(), strategies.stocks())
    def holds(table: Table, stock: F) -> None:
        mdp, n, c = library(table), np.arange(4), float(stock)
        run = Sweeps(table, GAMMA, case.K)
        first = Policies(naive.closed(table, GAMMA), GAMMA, case.K, lambda s, held: max(table[s]))
        greedy = np.asarray(bounds.greedy_policy(mdp, objective, n, c))
        improved = np.asarray(bounds.policy_iteration(mdp, objective, n, c))
        assert case.lipschitz is not None
        crude = 4 * float(case.lipschitz * greatest(table)) * 0.5**n
        assert (greedy <= crude / 2 + ROUNDING).all() and (improved <= crude + ROUNDING).all()
        for state, k in itertools.product(table, range(4)):
            best = exact_optimum(table, GAMMA, case, state, stock)
            attained = perpetual(lambda s, held, k=k: run.action(k, s, held), table, GAMMA, state, stock)
            assert float(best - case.K(shift(attained, stock))) <= greedy[k] + ROUNDING
            assert float(best - first.value(k, state, stock)) <= improved[k] + ROUNDING

    holds()


@pytest.mark.parametrize("slopes", TWO_SLOPES, ids=str)
def test_sweeps_of_the_library(slopes: tuple[F, F]) -> None:
    """`horizon=n` is n sweeps from zero, and the answer without a horizon is F*: on tables with loops."""
    objective = rdo.TwoSlope(*map(float, slopes))

    @settings(modest, max_examples=25)
    @given(strategies.tables(rewards=strategies.INTEGERS), strategies.stocks())
    def holds(table: Table, stock: F) -> None:
        mdp, c = library(table), float(stock)
        exact = naive.best_two_slope(table, GAMMA, *slopes, [stock])
        endless = rdo.value_iteration(mdp, objective, c)
        for n in (1, 2, 4):
            sweeps = rdo.value_iteration(mdp, objective, c, horizon=n)
            for state in table:
                best = float(exact[state, stock])
                assert endless.objective_value(state, c) == pytest.approx(best, abs=ROUNDING)
                bound = bounds.truncation(mdp, objective, n, c, state=state)
                assert abs(sweeps.objective_value(state, c) - best) <= bound + ROUNDING

    holds()


@theory("5.6")
@settings(modest, max_examples=40)
@given(lasting(), strategies.stocks())
def test_local_constant_of_the_square(table: Table, stock: F) -> None:
    case = Case("minus square", lambda nu: naive.expect(nu, lambda x: -x * x))
    run, mdp = Sweeps(table, GAMMA, case.K), library(table)
    bound = np.asarray(bounds.truncation(mdp, rdo.Quadratic(), np.arange(4), float(stock)))
    local = 2 * (abs(stock) + greatest(table) / (1 - GAMMA))
    assert bound[0] <= float(local * greatest(table) / (1 - GAMMA)) + ROUNDING
    for state, n in itertools.product(table, range(4)):
        error = abs(run.value(n, state, stock) - exact_optimum(table, GAMMA, case, state, stock))
        assert float(error) <= bound[n] + ROUNDING


@theory("5.9")
def test_bounds_that_are_attained() -> None:
    for n in range(6):
        one = examples.tight_truncation(n)
        assert one.optimum - one.naive == bounds.truncation(one.mdp, one.objective, n)
    # Fair coins 0 or 1 for ever, projected to the lower median: the error is 1 after every sweep.
    coins = examples.tight_projection()
    for n in range(1, 6):
        one = rdo.value_iteration(coins.mdp, coins.objective, horizon=n, representation=rdo.QuantileGrid(1))
        assert one.returns(0).mean() == coins.naive
        assert bounds.projected(coins.mdp, coins.objective, n, eps=0.5) >= coins.optimum - coins.naive
    assert bounds.projected(coins.mdp, coins.objective, 60, eps=0.5) == pytest.approx(1.0)
    coin = made({0: {0: [(0.5, 0, 1.0, False), (0.5, 0, 1.0, True)]}}, gamma=1.0)
    values = [rdo.value_iteration(coin, rdo.Mean(), horizon=n).objective_value(0) for n in range(1, 6)]
    missing = 2 - np.array(values)
    assert missing == pytest.approx(np.asarray(bounds.stopping(coin, rdo.Mean(), np.arange(1, 6))))
    assert missing == pytest.approx(np.asarray(bounds.proper(coin, rdo.Mean(), np.arange(1, 6))))


@pytest.mark.parametrize("n_atoms", [1, 4, 16])
def test_projected_sweeps_of_the_library(n_atoms: int) -> None:
    """With quantile grids: the true error and the loss of the policy, for the eps that a projection can cost."""
    mdp, objective, stock = made(TWO_WAYS), rdo.TargetReturn(), -1.0
    best = rdo.value_iteration(mdp, objective, stock).objective_value(0, stock)
    # N quantiles miss a law on an interval of length w by at most w / (2 N); all laws live on [-2, 3].
    low, high = bounds.extremes(mdp)
    eps = float((high - low).max()) / (2 * n_atoms)
    for n in (1, 3, 6):
        solution = rdo.value_iteration(mdp, objective, stock, horizon=n, representation=rdo.QuantileGrid(n_atoms))
        bound = bounds.projected(mdp, objective, n, eps)
        iterated = objective(solution.returns(0, stock) + stock)
        assert abs(iterated - best) <= bound + ROUNDING


@settings(modest, max_examples=40)
@given(strategies.tables(rewards=strategies.INTEGERS))
def test_steps_that_end(table: Table) -> None:
    """Gamma = 1: the proper bound holds for the mean and is never worse than the stopping bound."""
    table = tidy(table)
    try:
        stay, means = naive.longest_stay(table), naive.best_means(table, F(1))
    except ZeroDivisionError:
        assume(False)
    mdp, n = made(strategies.floats(table), 1.0), np.arange(4)
    everywhere = np.asarray(bounds.proper(mdp, rdo.Mean(), n))
    run = Sweeps(table, F(1), naive.mean)
    beta = 1 - 1 / max(stay.values())
    for state in table:
        here = np.asarray(bounds.proper(mdp, rdo.Mean(), n, state=state))
        if not mdp.terminal[state]:
            exact = [float(greatest(table) * beta**k * stay[state]) for k in range(4)]
            if not mdp.terminal.any():
                assert here == pytest.approx(np.array(exact))
        errors = [abs(float(run.value(k, state, F(0)) - means[state])) for k in range(4)]
        assert (errors <= here + 1e-9).all() and (here <= everywhere + ROUNDING).all()
    try:
        stopping = np.asarray(bounds.stopping(mdp, rdo.Mean(), n))
    except rdo.NotOptimizableError:
        return
    assert (everywhere <= stopping + 1e-9).all()


@theory("5.14")
@settings(modest, max_examples=40)
@given(lasting(), strategies.stocks())
def test_brackets_of_the_library(table: Table, stock: F) -> None:
    """`max_iter=n` gives exactly the n sweeps from the least and from the greatest return, indicator included."""
    mdp, c = library(table), float(stock)
    utilities: tuple[tuple[rdo.Objective, Any], ...] = (
        (rdo.Threshold(), lambda x: F(x >= 0)),
        (rdo.Shortfall(), lambda x: min(x, F(0))),
    )
    ends = bounds.extremes(mdp)
    for objective, f in utilities:
        runs = [Sweeps(table, GAMMA, lambda nu, f=f: naive.expect(nu, f), extreme(table, which)) for which in (0, -1)]
        for n in (1, 2, 3):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # brackets that are still open say so
                solution = rdo.value_iteration(mdp, objective, c, max_iter=n)
            for state in table:
                exact = [float(run.value(n, state, stock)) for run in runs]
                assert solution.bounds(state, c) == pytest.approx(exact, abs=ROUNDING)
                assert [float(run.start(state, stock)[0][0]) for run in runs if run.start] == [
                    end[state] for end in ends
                ]


# --------------------------------------------------------------------------------------------------
# by hand


def test_constants_by_hand() -> None:
    """Returns of TWO_WAYS: the least is -2, the cost for ever; the greatest is 3, as 1 + 3/2 is less."""
    mdp = made(TWO_WAYS)
    low, high = bounds.extremes(mdp)
    assert (low[0], high[0]) == (-2.0, 3.0)
    # D = 3; d = min(E|R| = 1, (3 + 1)/2 = 2) = 1; width 5.
    assert bounds.truncation(mdp, rdo.Mean(), 1) == 1.5
    assert bounds.greedy_policy(mdp, rdo.Mean(), 1) == 0.25 * (3 + 1 / 0.5)
    assert bounds.policy_iteration(mdp, rdo.Mean(), 2) == 5 / 4
    # The greatest |R| of a first step is 1 for action 0 and 3 for action 1, so the bound for EssInf has d = 1 too.
    assert bounds.greedy_policy(mdp, rdo.EssInf(), 1) == 0.25 * (3 + 1 / 0.5)
    # The sum of |R| is at most max(3, 1 + B/2) = 3, so from the stock -1 all laws live on [-4, 2]: L = 8.
    assert bounds.truncation(mdp, rdo.Quadratic(), 0, stock=-1.0) == 8 * 3
    assert bounds.projected(mdp, rdo.Mean(), 1, eps=0.5) == 1.5 + 0.5
    assert bounds.projected_greedy(mdp, rdo.Mean(), 1, eps=0.5) == 1.25 + 2 * 0.5 * 0.5 / 0.25
    assert bounds.modulus(np.sqrt, mdp, 0) == math.sqrt(3)


def test_returns_that_end_have_no_error_left() -> None:
    """A state from which every path ends within two steps: the bound at the state is 0 after two sweeps."""
    table = {0: {0: [(0.5, 1, 2.0, False), (0.5, 1, 0.0, True)]}, 1: {0: [(1.0, 2, 4.0, True)]}, 2: ONE_FOR_EVER[0]}
    table[2] = {0: [(1.0, 2, 1.0, False)]}
    mdp = made(table)
    # |G| <= 2 + 4/2 = 4 at first; half of the paths are alive after one step, with 4 to come, discounted to 2.
    assert np.array_equal(bounds.truncation(mdp, rdo.Mean(), [0, 1, 2, 3], state=0), [4, 1, 0, 0])
    assert bounds.truncation(mdp, rdo.Mean(), 2) == 1.0


def test_vectors_by_hand() -> None:
    """Rewards (3, 4) for ever, gamma = 1/2: |G| = 10, 14 or 8 in the norms 2, 1 and infinity."""
    mdp = made({0: {0: [(1.0, 0, (3.0, 4.0), False)]}})
    for norm, size in ((2, 10.0), (1, 14.0), (math.inf, 8.0)):
        K = rdo.Homeostasis(norm=norm)
        assert bounds.truncation(mdp, K, [0, 1]).tolist() == [size, size / 2]  # type: ignore[union-attr]
        assert bounds.greedy_policy(mdp, K, 1, stock=[-1.0, 0.0]) == 0.25 * (size + size)
        assert bounds.policy_iteration(mdp, K, 0) == 2 * size
    # -|x|^2 around the stock (-3, -4): |x| <= 5 + 10.
    assert bounds.truncation(mdp, rdo.Quadratic(), 0, stock=[-3.0, -4.0]) == pytest.approx(30 * 10)


def test_rounding_by_hand() -> None:
    """Half a mesh for the nearest; n meshes without discount; the geometric sum with one."""
    mdp, plain = made(ONE_FOR_EVER), made(ONE_FOR_EVER, 1.0)
    assert bounds.rounding(plain, rdo.TwoSlope(2.0, 1.0), 3, mesh=0.25) == 1.5
    assert bounds.rounding(mdp, rdo.Shortfall(), 2, mesh=1.0) == 0.75
    assert bounds.rounding(mdp, rdo.Shortfall(), None, mesh=1.0, nearest=True) == 0.5
    assert bounds.rounding(plain, rdo.ExpectedUtility(np.tanh, lipschitz=1.0), 2, mesh=1.0) == 2.0


def test_steps() -> None:
    """The least n, at the ends as well as inside."""
    mdp = made(ONE_FOR_EVER)
    for tol in (3.0, 2.0, 1.5, 1.0, 1e-3, 2.0**-40):
        n = bounds.steps(tol, lambda k: bounds.truncation(mdp, rdo.Mean(), k))
        assert bounds.truncation(mdp, rdo.Mean(), n) <= tol
        assert n == 0 or bounds.truncation(mdp, rdo.Mean(), n - 1) > tol


def test_a_posteriori() -> None:
    """One reward for ever: the last change of the mean is 2^-n, and the error of the new value is the same."""
    mdp = made(ONE_FOR_EVER)
    values = [rdo.value_iteration(mdp, rdo.Mean(), horizon=n).objective_value(0) for n in range(1, 7)]
    assert bounds.a_posteriori(np.diff(values), 0.5) == pytest.approx(2 - np.array(values[1:]))


def test_numbers_in_numbers_out() -> None:
    mdp = made(ONE_FOR_EVER)
    assert isinstance(bounds.truncation(mdp, rdo.Mean(), 3), float)
    assert isinstance(bounds.truncation(mdp, rdo.Mean(), 3, state=0), float)
    assert np.shape(bounds.truncation(mdp, rdo.Mean(), [[1, 2], [3, 4]], state=0)) == (2, 2)


# --------------------------------------------------------------------------------------------------
# refusals

MDP, PLAIN = made(ONE_FOR_EVER), made(ONE_FOR_EVER, 1.0)
VECTORS = made({0: {0: [(1.0, 0, (3.0, 4.0), False)]}})
REFUSALS: dict[str, tuple[Callable[[], Any], type[rdo.RdoError], str]] = {
    "no constant": (lambda: bounds.truncation(MDP, rdo.Threshold(), 1), rdo.NotOptimizableError, "with max_iter="),
    "no constant, rounding": (
        lambda: bounds.rounding(PLAIN, rdo.Quadratic(), 1, 0.1),
        rdo.NotOptimizableError,
        "has no Lipschitz constant,",
    ),
    "mixtures": (
        lambda: bounds.truncation(MDP, rdo.CVaR(0.1), 1),
        rdo.NotOptimizableError,
        "not indifferent to mixtures",
    ),
    "lexicographic": (
        lambda: bounds.truncation(MDP, rdo.Lexicographic(rdo.Shortfall(), rdo.Mean()), 1),
        rdo.NotOptimizableError,
        "no Lipschitz constant",
    ),
    "gamma": (
        lambda: bounds.greedy_policy(MDP, rdo.Exponential(-1.0), 1),
        rdo.NotOptimizableError,
        "not indifferent to gamma",
    ),
    "no discount": (lambda: bounds.truncation(PLAIN, rdo.Mean(), 1), rdo.NotOptimizableError, "use bounds.proper"),
    "no discount, endless rounding": (
        lambda: bounds.rounding(PLAIN, rdo.Mean(), None, 0.1),
        rdo.NotOptimizableError,
        "needs gamma < 1",
    ),
    "degree": (
        lambda: bounds.rounding(MDP, rdo.ExpectedUtility(np.tanh, lipschitz=1.0), 1, 0.1),
        rdo.NotOptimizableError,
        "of degree 1",
    ),
    "endless": (lambda: bounds.proper(PLAIN, rdo.Mean(), 1), rdo.NotOptimizableError, r"the states \[0\] for ever"),
    "never stops": (lambda: bounds.stopping(PLAIN, rdo.Mean(), 1), rdo.NotOptimizableError, "state 0, action 0 never"),
    "degree zero": (lambda: bounds.a_posteriori(0.1, 0.5, degree=0), rdo.NotOptimizableError, "no contraction"),
    "negative n": (lambda: bounds.truncation(MDP, rdo.Mean(), -1), rdo.InvalidArgumentError, "at least 0"),
    "float n": (lambda: bounds.truncation(MDP, rdo.Mean(), 0.5), rdo.InvalidArgumentError, "n must be an integer"),
    "eps": (lambda: bounds.projected(MDP, rdo.Mean(), 1, eps=-1.0), rdo.InvalidArgumentError, "eps must be"),
    "state": (
        lambda: bounds.truncation(MDP, rdo.Mean(), 1, state=7),
        rdo.InvalidArgumentError,
        "state 7 is not a state; states are 0 to 0",
    ),
    "stock": (
        lambda: bounds.truncation(VECTORS, rdo.Homeostasis(), 1, stock=[1.0, 2.0, 3.0]),
        rdo.InvalidArgumentError,
        "one stock of 2 components",
    ),
    "vectors": (lambda: bounds.extremes(VECTORS), rdo.InvalidArgumentError, "need scalar rewards"),
    "tol": (lambda: bounds.steps(0.0, lambda n: 1.0), rdo.InvalidArgumentError, "tol must be positive"),
    "never below": (lambda: bounds.steps(0.5, lambda n: 1.0), rdo.InvalidArgumentError, "still above tol = 0.5"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_say_what_to_do(case: str) -> None:
    call, error, message = REFUSALS[case]
    with pytest.raises(error, match=message):
        call()
