"""Limits that must hold surely: against exhaustive search over deterministic history policies in exact fractions.

The oracle lists the law of every policy. A policy meets the limits when no atom of its law misses one; everything else
(the least expected shortfall, the best mean, the sets of limits that conflict) is read off that list.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from fractions import Fraction as F
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import rdolib as rdo
from rdolib.constraints import Feasibility, constrained, constraint_price, feasibility
from tests import naive, strategies
from tests.naive import Law, Table, Vector
from tests.test_vectors import made
from tests.theory import modest, theory, tidy

TINY = 1e-12
GAMMAS = pytest.mark.parametrize("gamma", [F(1), F(1, 2), F(9, 10)], ids=str)
LIMITS = st.sampled_from([F(n, 2) for n in range(-5, 4)] + [F(-1, 10), F(1, 4)])
CORNERS = tuple(map(Vector, itertools.product((-1, 0, 1), repeat=3)))
TENTHS = tuple(map(Vector, itertools.product((F(-3, 10), F(1, 10)), (F(-1, 2), F(1)), (F(0), F(1)))))
Limits = Mapping[int, F]


# --------------------------------------------------------------------------------------------------
# the oracle


def parts(x: Any) -> Vector:
    return x if isinstance(x, Vector) else Vector((x,))


def lacking(x: Any, limits: Limits) -> F:
    """Sum of what is missing."""
    return sum((max(limit - parts(x)[j], F(0)) for j, limit in limits.items()), F(0))


def meets(nu: Law, limits: Limits) -> bool:
    return all(lacking(x, limits) == 0 for x, _ in nu)


def possible(every: set[Law], limits: Limits) -> bool:
    return any(meets(nu, limits) for nu in every)


def least_shortfall(every: set[Law], limits: Limits) -> F:
    return min(F(naive.expect(nu, lambda x: lacking(x, limits))) for nu in every)


def best(every: set[Law], limits: Limits, K: Callable[[Law], Any]) -> Any:
    return max(K(nu) for nu in every if meets(nu, limits))


def mean_of(j: int) -> Callable[[Law], F]:
    return lambda nu: F(naive.expect(nu, lambda x: parts(x)[j]))


def all_laws(table: Table, gamma: F, state: int, horizon: int) -> set[Law]:
    """Every law, where they are not too many to list."""
    try:
        return naive.laws(table, gamma, state, horizon, limit=3000)
    except naive.TooManyLawsError:
        assume(False)
        raise


def replayed(plan: rdo.Plan, table: Table, gamma: F, state: int, horizon: int, stock: Any) -> Law:
    def act(s: int, held: Any, t: int) -> int:
        return plan.policy.action(s, [float(a) for a in held] if isinstance(held, Vector) else float(held), t)

    return naive.replay(table, gamma, state, horizon, act, stock)


def stock_of(limits: Limits, dim: int) -> Any:
    stock = Vector(-limits.get(j, F(0)) for j in range(dim))
    return stock if dim > 1 else stock[0]


def as_floats(limits: Limits) -> dict[int, float]:
    return {j: float(x) for j, x in limits.items()}


def close(x: float, y: Any) -> bool:
    return abs(x - float(y)) <= TINY * max(1.0, abs(float(y)))


# --------------------------------------------------------------------------------------------------
# random small problems


def scalar(table: Table, gamma: F) -> rdo.MDP:
    return rdo.MDP.from_outcomes(strategies.floats(table), gamma=float(gamma), initial=0)


@st.composite
def spaces(draw: st.DrawFn) -> Table:
    """Return a table with three components of reward."""
    rewards = draw(st.sampled_from((CORNERS, TENTHS)))
    table = tidy(draw(strategies.tables(max_states=3, rewards=rewards)))
    zero = Vector((0, 0, 0))  # the terminal state of the strategy pays a scalar zero
    return {
        s: {a: [(p, after, r or zero, ended) for p, after, r, ended in o] for a, o in rows.items()}
        for s, rows in table.items()
    }


def some_limits() -> st.SearchStrategy[dict[int, F]]:
    return st.dictionaries(st.integers(0, 2), LIMITS, min_size=1, max_size=3).map(lambda d: dict(sorted(d.items())))


def assert_decided(
    check: Feasibility, every: set[Law], table: Table, gamma: F, horizon: int, limits: Limits, dim: int
) -> None:
    """Assert the answer, the bounds, what the plan attains, and the conflict."""
    assert check.feasible is possible(every, limits)
    shortfall = least_shortfall(every, limits)
    assert check.bounds[0] - TINY <= shortfall <= check.bounds[1] + TINY
    assert check.bounds[1] - check.bounds[0] <= TINY
    attained = replayed(check.plan, table, gamma, 0, horizon, stock_of(limits, dim))
    assert meets(attained, limits) is check.feasible
    assert naive.expect(attained, lambda x: lacking(x, limits)) == pytest.approx(float(shortfall), abs=TINY)
    assert close(-check.plan.value, shortfall)
    if check.feasible:
        assert check.bounds == (0.0, 0.0) and check.conflict is None
        return
    assert check.conflict is not None
    conflict = {j: limits[j] for j in check.conflict.limits}
    assert as_floats(conflict) == check.conflict.limits
    assert close(check.conflict.shortfall, least_shortfall(every, conflict)) and check.conflict.shortfall > 0
    assert not possible(every, conflict)
    for j in conflict:  # by brute force: without any one of them the others can be met
        rest = {i: x for i, x in conflict.items() if i != j}
        assert not rest or possible(every, rest)
        if rest:
            plan = check.conflict.without[j]
            assert meets(replayed(plan, table, gamma, 0, horizon, Vector(plan.stock)), rest)
    assert set(check.conflict.without) == (set(conflict) if len(conflict) > 1 else set())


@theory("7.10")
@GAMMAS
def test_scalar_returns(gamma: F) -> None:
    """Feasibility and the best mean under a floor, self-loops included."""

    @settings(modest, max_examples=60)
    @given(strategies.tables(max_states=3), LIMITS, st.integers(1, 3))
    def holds(table: Table, limit: F, horizon: int) -> None:
        table = tidy(table)
        every = all_laws(table, gamma, 0, horizon)
        mdp, limits = scalar(table, gamma), {0: limit}
        check = feasibility(mdp, float(limit), horizon=horizon)
        assert_decided(check, every, table, gamma, horizon, limits, 1)
        if not check.feasible:
            with pytest.raises(rdo.InvalidArgumentError, match=r"no policy meets G\[0\] >= "):
                constrained(mdp, float(limit), horizon=horizon)
            return
        plan = constrained(mdp, float(limit), horizon=horizon)
        assert close(plan.value, best(every, limits, mean_of(0)))
        attained = replayed(plan, table, gamma, 0, horizon, -limit)
        assert meets(attained, limits) and close(plan.value, naive.mean(attained))
        assert plan.objective(plan.returns) == pytest.approx(plan.value, abs=1e-9)

    holds()


@theory("7.10")
@GAMMAS
def test_vector_returns(gamma: F) -> None:
    """Several limits, on some components, and the best mean of any component."""

    @settings(modest, max_examples=60)
    @given(spaces(), some_limits(), st.integers(0, 2), st.integers(1, 2))
    def holds(table: Table, limits: dict[int, F], goal: int, horizon: int) -> None:
        every = all_laws(table, gamma, 0, horizon)
        mdp = made(table, gamma)
        check = feasibility(mdp, as_floats(limits), horizon=horizon)
        assert_decided(check, every, table, gamma, horizon, limits, 3)
        if not check.feasible:
            with pytest.raises(rdo.InvalidArgumentError, match="no policy meets"):
                constrained(mdp, as_floats(limits), goal, horizon=horizon)
            return
        plan = constrained(mdp, as_floats(limits), goal, horizon=horizon)
        assert close(plan.value, best(every, limits, mean_of(goal)))
        attained = replayed(plan, table, gamma, 0, horizon, stock_of(limits, 3))
        assert meets(attained, limits) and close(plan.value, mean_of(goal)(attained))
        assert plan.objective(plan.returns) == pytest.approx(plan.value, abs=1e-9)

    holds()


def reached(level: F) -> Callable[[Law], F]:
    return lambda nu: naive.chance(nu, level)


@pytest.mark.parametrize(
    ("K", "functional"),
    [
        (rdo.ExpectedUtility(lambda x: (x >= 1 - 1e-9) * 1.0), reached(F(1))),
        (rdo.TargetReturn(), lambda nu: -naive.expect(nu, abs)),
        (rdo.Quadratic(), lambda nu: -naive.expect(nu, lambda x: x * x)),
        (rdo.EssInf(), naive.ess_inf),
        (rdo.EssSup(), naive.ess_sup),
        (
            rdo.Lexicographic(rdo.Threshold(), rdo.EssSup()),
            naive.lexicographic(naive.chance, naive.ess_sup),
        ),
    ],
    ids=lambda x: repr(x) if isinstance(x, rdo.Objective) else "",
)
def test_other_objectives_come_second(K: rdo.Objective, functional: Callable[[Law], Any]) -> None:
    """The objective sees the return itself, not the stock that watches the limit."""

    @settings(modest, max_examples=30)
    @given(strategies.tables(max_states=3, rewards=strategies.HALVES), LIMITS, st.sampled_from((F(1), F(1, 2))))
    def holds(table: Table, limit: F, gamma: F) -> None:
        table = tidy(table)
        every = all_laws(table, gamma, 0, 2)
        assume(possible(every, {0: limit}))
        plan = constrained(scalar(table, gamma), float(limit), K, horizon=2)
        exact = best(every, {0: limit}, functional)
        assert np.abs(np.subtract(plan.value, np.array(exact, dtype=float))).max() <= TINY
        assert np.abs(np.subtract(plan.objective(plan.returns), plan.value)).max() <= 1e-9
        assert meets(replayed(plan, table, gamma, 0, 2, -limit), {0: limit})

    holds()


def test_an_objective_of_vectors() -> None:
    """The least of all components, under a limit of one."""

    @settings(modest, max_examples=30)
    @given(spaces(), LIMITS)
    def holds(table: Table, limit: F) -> None:
        every = all_laws(table, F(1), 0, 2)
        assume(possible(every, {1: limit}))
        K = rdo.ExpectedUtility(lambda x: x.min(axis=-1), lipschitz=1.0, degree=1.0)
        plan = constrained(made(table, F(1)), {1: float(limit)}, K, horizon=2)
        assert close(plan.value, best(every, {1: limit}, lambda nu: naive.expect(nu, min)))

    holds()


def test_every_path_ends() -> None:
    """No horizon is needed where every path ends, whatever the discount."""

    @settings(modest, max_examples=30)
    @given(strategies.tables(max_states=3, layered=True), LIMITS, st.sampled_from((F(1), F(1, 2), F(9, 10))))
    def holds(table: Table, limit: F, gamma: F) -> None:
        table = tidy(table)
        every = all_laws(table, gamma, 0, len(table))
        check = feasibility(scalar(table, gamma), float(limit))
        assert check.feasible is possible(every, {0: limit})
        if check.feasible:
            plan = constrained(scalar(table, gamma), float(limit))
            assert close(plan.value, best(every, {0: limit}, mean_of(0)))

    holds()


def test_a_start_that_is_drawn() -> None:
    """The limits have to hold from every state that the start can draw."""
    table = {
        0: {0: [(1.0, 2, 1.0, True)], 1: [(0.5, 2, 4.0, True), (0.5, 2, 0.0, True)]},
        1: {0: [(1.0, 2, 3.0, True)], 1: [(1.0, 2, 0.0, True)]},
    }
    mdp = rdo.MDP.from_outcomes(table, initial=[0.25, 0.75, 0.0])
    assert constrained(mdp, 0.0).value == 0.25 * 2 + 0.75 * 3
    assert constrained(mdp, 1.0).value == 0.25 * 1 + 0.75 * 3
    check = feasibility(mdp, 2.0)
    assert check.feasible is False and check.bounds == (0.25, 0.25)
    assert feasibility(mdp, 2.0, state=1).feasible is True


# --------------------------------------------------------------------------------------------------
# larger problems, against other solvers of the library


def test_larger_problems_by_other_solvers() -> None:
    """The shortfall first, then the mean, as one `Lexicographic`; the sure event as one of probability one."""
    decided = set()
    for seed in range(4):
        mdp = rdo.MDP.garnet(8, 3, 2, seed=seed)
        mdp = rdo.MDP.from_outcomes(
            {s: {int(a): [(p, z, float(np.rint(2 * r)), e) for p, z, r, e in mdp.outcomes(s, int(a))]
                 for a in mdp.actions(s)} for s in range(8)}, initial=0
        )  # fmt: skip
        for limit in (2.0, 4.0, 6.0, 8.0, 10.0):
            check = feasibility(mdp, limit, horizon=8)
            decided.add(check.feasible)
            both = rdo.optimize(mdp, rdo.Lexicographic(rdo.Shortfall(), rdo.Mean()), horizon=8, stock=-limit)
            chance = rdo.optimize(mdp, rdo.Threshold(), horizon=8, stock=-limit).value
            assert check.feasible == (both.value[0] == 0) == (chance > 1 - 1e-9)
            assert check.bounds[0] == pytest.approx(-both.value[0], abs=1e-12)
            if check.feasible:
                assert constrained(mdp, limit, horizon=8).value == pytest.approx(both.value[1] + limit, abs=1e-12)
    assert decided == {True, False}


# --------------------------------------------------------------------------------------------------
# certainty


def test_rare_misses_count() -> None:
    """A miss of probability 1e-30, or behind a hundred coins, is a miss."""
    rare = {0: {0: [(1.0, 0, 1.0, True), (1e-30, 0, -1.0, True)], 1: [(1.0, 0, 0.0, True)]}}
    mdp = rdo.MDP.from_outcomes(rare)
    assert constrained(mdp, 0.0).value == 0.0 and constrained(mdp, -1.0).value == 1.0
    twice = rdo.MDP.from_outcomes({0: {a: [(p, z, (r, r), e) for p, z, r, e in o] for a, o in rare[0].items()}})
    assert constrained(twice, {0: 0.0, 1: 0.0}).value == 0.0
    assert feasibility(twice, {0: 0.0, 1: 0.0}).plan.policy.action(0, (0.0, 0.0)) == 1
    # At each of 2000 steps a coin decides between 1 and 0; all of them may fail.
    coins = rdo.MDP.from_outcomes({0: {0: [(0.5, 0, 0.0, False), (0.5, 1, 1.0, True)]}})
    assert feasibility(coins, 1.0, horizon=2000).feasible is False
    pair = rdo.MDP.from_outcomes({0: {0: [(0.5, 0, (0.0, 0.0), False), (0.5, 1, (1.0, 1.0), True)]}})
    assert feasibility(pair, {0: 0.0, 1: 1.0}, horizon=2000).feasible is False


def test_rounding_does_not_count() -> None:
    """0.1 + 0.2 reaches 0.3, with and without a discount, for one limit and for two."""
    for gamma in (1.0, 0.7):
        total = 0.1 + gamma * 0.2 + gamma**2 * 0.3
        line = {s: {0: [(1.0, s + 1, r, s == 2)]} for s, r in enumerate((0.1, 0.2, 0.3))}
        mdp = rdo.MDP.from_outcomes(line, gamma=gamma)
        assert feasibility(mdp, total).feasible and constrained(mdp, total).value == pytest.approx(total, abs=1e-12)
        assert feasibility(mdp, total + 1e-8).feasible is False
        plane = {s: {0: [(1.0, s + 1, (r, -r), s == 2)]} for s, r in enumerate((0.1, 0.2, 0.3))}
        mdp = rdo.MDP.from_outcomes(plane, gamma=gamma)
        assert feasibility(mdp, {0: total, 1: -total}).feasible
        assert feasibility(mdp, {0: total, 1: -total + 1e-8}).feasible is False


def test_endless_returns() -> None:
    """One limit is decided by the worst case; several by bounds, which may leave the question open."""
    choice = {0: {0: [(1.0, 0, 1.0, False)], 1: [(0.5, 0, 3.0, False), (0.5, 0, 0.0, False)]}}
    mdp = rdo.MDP.from_outcomes(choice, gamma=0.5)
    assert feasibility(mdp, 2.0).feasible is True
    missed = feasibility(mdp, 2.5)
    assert missed.feasible is False and missed.bounds[0] > 0
    # For ever half to each: 1 and 1 fit, 1 and 1.5 do not, and turns reach (4/3, 2/3) exactly.
    turns = {0: {0: [(1.0, 0, (1.0, 0.0), False)], 1: [(1.0, 0, (0.0, 1.0), False)]}}
    plane = rdo.MDP.from_outcomes(turns, gamma=0.5)
    no = feasibility(plane, {0: 1.0, 1: 1.5})
    assert no.feasible is False and no.conflict is not None and set(no.conflict.limits) == {0, 1}
    assert 0 < no.bounds[0] <= 0.5 + TINY
    fine = feasibility(plane, {0: 0.5, 1: 0.5})
    assert fine.feasible is not False and fine.bounds[0] == 0.0
    # With gamma = 1 and no end: what costs on every cycle has a best shortfall, though no worst case.
    stay = {0: {0: [(0.5, 0, -1.0, False), (0.5, 1, -1.0, True)], 1: [(1.0, 1, -5.0, True)]}}
    walk = rdo.MDP.from_outcomes(stay)
    assert feasibility(walk, -5.0).feasible is True
    assert feasibility(walk, -4.0).feasible is False


def test_too_little_memory() -> None:
    """Without room for the reachable stocks feasibility falls back on bounds; the best mean is refused."""
    rng = np.random.default_rng(0)
    steps = {
        0: {a: [(0.5, 0, tuple(rng.normal(size=2)), False), (0.5, 0, tuple(rng.normal(size=2)), False)] for a in (0, 1)}
    }
    mdp = rdo.MDP.from_outcomes(steps)
    easy, hard = ({0: x, 1: x} for x in (-1000.0, 1000.0))
    check = feasibility(mdp, easy, horizon=20, memory=2**21)
    assert check.feasible is True and check.bounds == (0.0, 0.0)
    check = feasibility(mdp, hard, horizon=20, memory=2**21)
    assert check.feasible is False and check.bounds[0] > 900
    with pytest.raises(rdo.MemoryLimitError, match="raise memory="):
        constrained(mdp, easy, horizon=20, memory=2**21)


# --------------------------------------------------------------------------------------------------
# the price


@GAMMAS
def test_the_price_is_the_best_mean_level_by_level(gamma: F) -> None:
    """All levels at once give what each gives alone; the curve falls, and ends at the best worst case."""

    @settings(modest, max_examples=25)
    @given(strategies.tables(max_states=3), st.integers(1, 3))
    def holds(table: Table, horizon: int) -> None:
        table = tidy(table)
        every = all_laws(table, gamma, 0, horizon)
        mdp = scalar(table, gamma)
        end = max(naive.ess_inf(nu) for nu in every)
        levels = sorted({F(n, 2) for n in range(-4, 5)} | {end, end + F(1, 100)}, reverse=True)
        curve = constraint_price(mdp, [float(x) for x in levels], horizon=horizon)
        assert close(curve.free, max(mean_of(0)(nu) for nu in every))
        for level, value, plan in zip(levels, curve.values, curve.plans, strict=True):
            assert np.isnan(value) == (plan is None) == (level > end)
            if plan is not None:
                assert close(value, best(every, {0: level}, mean_of(0)))
                assert meets(replayed(plan, table, gamma, 0, horizon, -level), {0: level})
        prices = curve.prices[~np.isnan(curve.prices)]
        assert (prices >= -TINY).all() and (np.diff(prices) <= TINY).all()

    holds()


def test_the_price_of_one_of_several_limits() -> None:
    """One component varies, another keeps its limit, a third is maximized."""

    @settings(modest, max_examples=25)
    @given(spaces(), LIMITS)
    def holds(table: Table, kept: F) -> None:
        every = all_laws(table, F(1), 0, 2)
        mdp = made(table, F(1))
        levels = [F(n, 2) for n in range(-4, 3)]
        wish = {0: [float(x) for x in levels], 2: float(kept)}
        if not possible(every, {2: kept}):
            with pytest.raises(rdo.InvalidArgumentError, match=r"no policy meets G\[2\]"):
                constraint_price(mdp, wish, maximize=1, horizon=2)
            return
        curve = constraint_price(mdp, wish, maximize=1, horizon=2)
        assert close(curve.free, best(every, {2: kept}, mean_of(1)))
        for level, value in zip(levels, curve.values, strict=True):
            limits = {0: level, 2: kept}
            assert np.isnan(value) or close(value, best(every, limits, mean_of(1)))
            assert np.isnan(value) != possible(every, limits)

    holds()


# --------------------------------------------------------------------------------------------------
# bad input

CREW = rdo.MDP.from_outcomes(
    {0: {0: [(1.0, 0, (-1.0, 1.0), False)], 1: [(1.0, 0, (0.0, 0.0), False)]}}
)  # (minus the cost, jobs done)
COIN = rdo.MDP.from_outcomes({0: {0: [(0.5, 0, 1.0, False), (0.5, 0, 0.0, True)]}}, gamma=0.9)


def test_conflicts_are_named() -> None:
    """Three jobs for a budget of two: both limits are named, with what is missing; the third limit is spared."""
    with pytest.raises(rdo.InvalidArgumentError) as caught:
        constrained(CREW, {0: -2.0, 1: 3.0}, maximize=1, horizon=5)
    message = str(caught.value)
    assert "G[0] >= -2 and G[1] >= 3" in message and "at least 1;" in message
    alone = feasibility(CREW, {0: -2.0, 1: 6.0}, horizon=5)
    assert alone.conflict is not None and alone.conflict.limits == {1: 6.0} and alone.conflict.shortfall == 1.0
    assert str(alone.conflict).startswith("no policy meets G[1] >= 6 surely; ")


@pytest.mark.parametrize("spare", [0, 1, 2])
def test_what_is_not_needed_is_not_named(spare: int) -> None:
    """Budget and jobs conflict as a pair; a limit that any plan meets is left out, wherever it stands in the list."""

    def place(*pair: float) -> tuple[float, ...]:
        return (*pair[:spare], 0.0, *pair[spare:])

    rows = {0: [(1.0, 0, place(-1.0, 1.0), False)], 1: [(1.0, 0, place(0.0, 0.0), False)]}
    mdp = rdo.MDP.from_outcomes({0: rows})
    limits = dict(enumerate(place(-2.0, 3.0)))
    conflict = feasibility(mdp, limits, horizon=5).conflict
    assert conflict is not None
    pair = {j: x for j, x in limits.items() if j != spare}
    assert conflict.limits == pair and conflict.shortfall == 1.0 and set(conflict.without) == set(pair)
    assert str(conflict).endswith(
        "without any one of them the rest can be met; their expected shortfalls add up to at least 1"
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: feasibility(CREW, {2: 0.0}, horizon=3), "component 2 of the return does not exist"),
        (lambda: feasibility(CREW, {-1: 0.0}, horizon=3), "component -1"),
        (lambda: feasibility(CREW, {"cost": 0.0}, horizon=3), "component 'cost'"),  # type: ignore[dict-item]
        (lambda: feasibility(CREW, {True: 0.0}, horizon=3), "component True"),
        (lambda: feasibility(CREW, {0: float("nan")}, horizon=3), "component 0 must be a finite number; got nan"),
        (lambda: feasibility(CREW, {1: -float("inf")}, horizon=3), "leave out what has no limit"),
        (lambda: feasibility(CREW, {0: "much"}, horizon=3), "finite number; got 'much'"),  # type: ignore[dict-item]
        (lambda: feasibility(CREW, {}, horizon=3), "limits is empty"),
        (lambda: feasibility(CREW, -2.0, horizon=3), "limits must be a mapping"),
        (lambda: feasibility(COIN, [0.0, 1.0], horizon=3), "one number where rewards are scalar"),  # type: ignore[arg-type]
        (lambda: feasibility(COIN, {1: 0.0}, horizon=3), "a scalar return is component 0"),
        (lambda: feasibility(COIN, 0.0, horizon=0), "horizon must be a positive integer"),
        (lambda: feasibility(COIN, 0.0, horizon=3, state=7), "state 7 does not exist"),
        (lambda: feasibility(3, 0.0), "must be an rdo.MDP"),  # type: ignore[arg-type]
        (lambda: constrained(CREW, {0: -2.0}, maximize=2, horizon=3), "component 2"),
        (lambda: constrained(CREW, {0: -2.0}, maximize="jobs", horizon=3), "component 'jobs'"),  # type: ignore[arg-type]
        (lambda: constraint_price(CREW, [-1.0, -2.0], horizon=3), "a mapping in which exactly one component"),
        (lambda: constraint_price(CREW, {0: -1.0}, horizon=3), "limits must be several numbers"),
        (lambda: constraint_price(CREW, {0: [-1.0], 1: [0.0]}, horizon=3), "limits must be several numbers"),
        (lambda: constraint_price(COIN, [], horizon=3), "limits must be several numbers"),
        (lambda: constraint_price(COIN, [0.0, float("nan")], horizon=3), "finite number; got nan"),
        (lambda: constraint_price(COIN, [0.0], rdo.Mean(), horizon=3), r"component Mean\(\)"),  # type: ignore[arg-type]
    ],
)
def test_bad_input(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(rdo.InvalidArgumentError, match=message):
        call()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: constrained(COIN, 0.0), "needs a horizon"),
        (lambda: constrained(CREW, {0: -2.0}, maximize=1), "pass horizon="),
        (lambda: constraint_price(COIN, [0.0]), "needs a horizon"),
        (lambda: constrained(COIN, 0.0, rdo.CVaR(0.1), horizon=3), "cannot come after a constraint"),
        (lambda: constrained(COIN, 0.0, rdo.Lexicographic(rdo.EssInf(), rdo.Mean()), horizon=3), "cannot come after"),
        (lambda: constrained(CREW, {0: -2.0}, rdo.EssInf(), horizon=3), "defined for scalar returns"),
    ],
)
def test_what_cannot_be_planned(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(rdo.NotOptimizableError, match=message):
        call()
