"""Vector stocks, worst and best cases, objectives in order: against exhaustive search and against one another."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from fractions import Fraction as F
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import rdolib as rdo
from rdolib import _kernels
from rdolib._interned import InternedUnits
from rdolib._lattice import WindowTable
from rdolib._reachable import ReachableTable, layers
from rdolib._rungs import build_problem
from rdolib.stock import Units, ends_within
from tests import naive, strategies
from tests.naive import Table

modest = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
VECTORS: dict[str, rdo.ExpectedUtility] = {
    "norm 1": rdo.Homeostasis(1),
    "norm 2": rdo.Homeostasis(2),
    "norm inf": rdo.Homeostasis(float("inf")),
    "smallest": rdo.ExpectedUtility(lambda x: x.min(axis=-1), lipschitz=1.0, degree=1.0),
    "all reached": rdo.Threshold(),
    "shortfalls": rdo.Shortfall(),
    "squares": rdo.Quadratic(),
}


def planar(seed: int, gamma: float, rewards: Any = (-1.0, 0.0, 1.0), p_end: float = 0.2, n: int = 3) -> rdo.MDP:
    """A random problem with two actions, two outcomes each, and rewards in the plane."""
    rng = np.random.default_rng(seed)

    def outcome() -> tuple[float, int, tuple[float, ...], bool]:
        return 0.5, int(rng.integers(n)), tuple(rng.choice(rewards, 2).tolist()), bool(rng.random() < p_end)

    return rdo.MDP.from_outcomes({s: {a: [outcome(), outcome()] for a in range(2)} for s in range(n)}, gamma=gamma)


# --------------------------------------------------------------------------------------------------
# stocks as numbers


@pytest.mark.parametrize("exact", [True, False])
def test_interned_stocks_come_back(exact: bool) -> None:
    units = InternedUnits(Units(0.5, 2.0, True) if exact else Units(1.0, 1 / 0.9, False), 3)
    rng = np.random.default_rng(0)
    stock = rng.integers(-20, 21, (3000, 3)) / 2
    key = units.key(stock)
    assert np.abs(units.stock(key) - stock).max() <= 1e-12 * 10
    assert len(np.unique(key)) == len(np.unique(stock, axis=0))
    assert (units.key(stock[::-1]) == key[::-1]).all()
    reward = rng.integers(-2, 3, (3000, 3)).astype(float)
    after = units.stock(units.step(key, reward / units.mesh))
    assert np.abs(after - (stock + reward) / (0.5 if exact else 0.9)).max() <= 1e-11 * 50


def test_interned_stocks_tolerate_rounding_and_infinity() -> None:
    units = InternedUnits(Units(1.0, 1 / 0.9, False), 2)
    stock = np.array([[0.1, 0.2], [np.inf, 0.2], [0.3, -np.inf]])
    key = units.key(stock)
    first = units.candidates(stock * (1 + 1e-13), 1e-9)[0]
    assert (first == key).all()
    assert all((keys == -1).all() for keys in units.candidates(np.array([[0.1, 0.3], [-np.inf, 0.2]]), 1e-9))
    assert (
        units.step(key, np.ones((3, 2)))[1:] == units.key(np.array([[np.inf, 1.2 / 0.9], [1.3 / 0.9, -np.inf]]))
    ).all()


def test_rows_that_collide_stay_apart() -> None:
    """All rows begin their search in the same place of the table."""
    rows = np.arange(40, dtype=np.int64).reshape(20, 2)
    table, store = np.full(64, -1, dtype=np.int64), np.empty((32, 2), dtype=np.int64)
    slot, ids = np.zeros(20, dtype=np.int64), np.empty(20, dtype=np.int64)
    assert _kernels.intern_rows(rows, slot, table, store, 0, ids) == 20
    assert ids.tolist() == list(range(20))
    assert _kernels.intern_rows(rows[::-1].copy(), slot, table, store, 20, ids) == 20
    assert ids.tolist() == list(range(20))[::-1]
    assert (store[:20] == rows).all()


# --------------------------------------------------------------------------------------------------
# vector stocks


@pytest.mark.parametrize("name", VECTORS)
def test_lattice_and_reachable_stocks_agree(name: str) -> None:
    """Both tables of one problem, built side by side."""
    objective, steps, states = VECTORS[name], 5, np.arange(3)
    stocks = np.array([[0.5, -1.0], [2.0, 0.0], [0.25, 0.25]])
    for seed in range(6):
        mdp = planar(seed, 1.0)
        problem = build_problem(mdp, objective, stocks, steps)
        lattice = WindowTable.exact_lattice(problem, 1.0, stocks, steps)
        nodes = layers(problem, states, problem.units.key(stocks), steps, steps, 2**28)
        assert nodes is not None
        reachable = ReachableTable.solve_layers(problem, nodes, steps)
        s, c = np.repeat(states, 3), stocks[np.tile(states, 3)]
        for ours, theirs in zip(lattice.bounds(s, c), reachable.bounds(s, c), strict=True):
            assert ours == pytest.approx(theirs, abs=1e-12)
        assert (lattice.action(s, c, 0) == reachable.action(s, c, 0)).all()


def test_the_smaller_table_is_chosen() -> None:
    walk = rdo.MDP.from_outcomes(
        {0: {a: [(0.5, 0, ((-1.0) ** a, 0.0), False), (0.5, 0, (0.0, (-1.0) ** a), False)] for a in range(2)}}
    )
    long = rdo.value_iteration(walk, rdo.Homeostasis(), stock=(3.0, -2.0), horizon=60)
    assert "lattice of 123 x 123 stocks" in long.method
    sparse = rdo.MDP.from_outcomes({0: {0: [(0.5, 0, (0.0, 0.0), False), (0.5, 0, (30.0, -30.0), True)]}})
    assert "exact: 3 reachable" in rdo.value_iteration(sparse, rdo.Homeostasis(), stock=(3.0, -2.0), horizon=3).method


def test_stocks_that_were_not_asked_for_are_refused() -> None:
    """Cells of a box that no initial stock reaches hold no values; a walk forced to move tells them apart."""
    walk = rdo.MDP.from_outcomes({0: {0: [(0.5, 0, (1.0, 0.0), False), (0.5, 0, (0.0, -1.0), False)]}})
    for steps in (5, 60):
        found = rdo.value_iteration(walk, rdo.Homeostasis(1), stock=[(0.0, 0.0), (2.0, 2.0)], horizon=steps)
        inside = rdo.value_iteration(walk, rdo.Homeostasis(1), stock=(2.0, 2.0), horizon=steps)
        assert found.bounds(0, (2.0, 2.0)) == pytest.approx(inside.bounds(0, (2.0, 2.0)), abs=1e-12)
        for stock in ((3.0, 0.0), (0.0, -1.0), (0.5, 0.5)):
            with pytest.raises(rdo.InvalidArgumentError, match="solve again with this stock"):
                found.bounds(0, stock)
        assert found.policy.action(0, (1.0, -1.0), 2) == 0
        with pytest.raises(rdo.InvalidArgumentError, match="step 2 cannot be reached"):
            found.policy.action(0, (-1.0, 0.0), 2)
    line = rdo.MDP.from_outcomes({0: {0: [(0.5, 0, 1.0, False), (0.5, 0, -1.0, False)]}})
    found = rdo.value_iteration(line, rdo.Quadratic(), stock=0.0, horizon=5)
    assert found.objective_value(0) == pytest.approx(-5.0, abs=1e-12)
    with pytest.raises(rdo.InvalidArgumentError, match="solve again with this stock"):
        found.bounds(0, 3.0)


def test_three_dimensions() -> None:
    """A fair coin for each of three accounts: by symmetry E|x| of each is that of a plain random walk."""
    table = {0: {0: [(0.125, 0, (a, b, c), False) for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)]}}
    mdp = rdo.MDP.from_outcomes(table)
    value = rdo.value_iteration(mdp, rdo.Homeostasis(1), stock=np.zeros(3), horizon=4).objective_value(0, np.zeros(3))
    # |walk of 4 steps|: 0 w.p. 6/16, 2 w.p. 8/16, 4 w.p. 2/16, mean 3/2; three accounts.
    assert value == pytest.approx(-4.5, abs=1e-12)


@pytest.mark.parametrize("gamma", [0.5, 0.9, 1.0])
def test_both_components_reached(gamma: float) -> None:
    """G and -G as components: both are reached exactly when G hits one point, which a scalar utility can say too."""
    rng = np.random.default_rng(3)
    for _ in range(5):
        table: dict[int, Any] = {
            s: {
                a: [(0.5, int(rng.integers(2)), float(rng.integers(-1, 2)), bool(rng.random() < 0.5)) for _ in range(2)]
                for a in range(2)
            }
            for s in range(2)
        }
        table[0][0][0] = (*table[0][0][0][:3], True)
        table[1][1][0] = (*table[1][1][0][:3], True)
        both = {
            s: {a: [(p, z, (r, -r), end) for p, z, r, end in outcomes] for a, outcomes in row.items()}
            for s, row in table.items()
        }
        steps = 12
        plane, line = rdo.MDP.from_outcomes(both, gamma=gamma), rdo.MDP.from_outcomes(table, gamma=gamma)
        found = rdo.value_iteration(plane, rdo.Threshold(), stock=(-1.0, 1.0), horizon=steps)
        hit = rdo.ExpectedUtility(lambda x: np.where(np.abs(x) <= 1e-12, 1.0, 0.0), degree=0.0)
        wanted = rdo.value_iteration(line, hit, stock=-1.0, horizon=steps)
        for s in range(2):
            assert found.objective_value(s, (-1.0, 1.0)) == pytest.approx(wanted.objective_value(s, -1.0), abs=1e-12)


def test_an_outcome_that_ends_earns_nothing_more() -> None:
    """Its next state may be sure of any gain: the return is over all the same."""
    rich: list[Any] = [(1.0, 1, (5.0, 5.0), True)]
    table = {0: {0: [(0.5, 1, (0.0, 0.0), True), (0.5, 1, (0.0, 0.0), False)]}, 1: {0: rich}}
    for gamma, horizon in ((1.0, 3), (1.0, None), (0.5, 3), (0.5, None)):
        mdp = rdo.MDP.from_outcomes(table, gamma=gamma)
        found = rdo.value_iteration(mdp, rdo.Threshold(), stock=(-1.0, -2.0), horizon=horizon)
        assert found.objective_value(0, (-1.0, -2.0)) == 0.5
        assert found.objective_value(1, (-1.0, -2.0)) == 1.0


def test_a_cut_plan_goes_on_well_where_the_stock_matters_no_more() -> None:
    """After one sweep the mean is known exactly from the saturated side; the policy has to attain it in later steps."""
    mdp = rdo.MDP.from_outcomes({0: {0: [(1.0, 0, 0.0, False)], 1: [(1.0, 0, 1.0, False)]}}, gamma=0.5)
    for objective in (rdo.Mean(), rdo.Shortfall()):
        found = rdo.value_iteration(mdp, objective, stock=-9.0, max_iter=1)
        assert found.bounds(0, -9.0) == pytest.approx((-7.0, -7.0))
        assert objective(found.returns(0, -9.0) + -9.0) == pytest.approx(-7.0)


@pytest.mark.parametrize(
    ("objective", "stock", "rewards", "gamma", "memory"),
    [
        (rdo.Quadratic(), -2.0, (1.0, -1.0), 0.5, 10**8),
        (rdo.Homeostasis(), (0.5, 1.0), ((1.0, 0.0), (-1.0, 0.0)), 0.5, 10**8),
    ],
    ids=["square", "norm"],
)
def test_law_of_a_plan_that_looks_only_some_steps_ahead(
    objective: rdo.ExpectedUtility, stock: Any, rewards: Any, gamma: float, memory: int
) -> None:
    """A coin without choice: the law is known to be a sum of discounted coins, whatever the table holds."""
    mdp = rdo.MDP.from_outcomes({0: {0: [(0.5, 0, r, False) for r in rewards]}}, gamma=gamma)
    plan = rdo.optimize(mdp, objective, stock=stock, memory=memory)
    assert "the rest bounded" in plan.method
    law = plan.returns
    assert np.linalg.norm(law.mean() - np.mean(rewards, axis=0) / (1 - gamma)) <= law.w1_error + 1e-9
    value, (low, high) = objective(law + plan.stock), plan.bounds
    slack = 12 * law.w1_error  # the square is 12-Lipschitz where |c + G| is at most 6
    assert low - slack <= value <= high + slack
    assert law.w1_error < 0.01


def test_utilities_that_are_no_number_everywhere() -> None:
    """Stocks from 4 to 8 can occur; the lattice goes further. What can occur decides."""
    mdp = rdo.MDP.from_outcomes({0: {0: [(0.5, 0, 1.0, False), (0.5, 0, -1.0, True)], 1: [(1.0, 0, 0.0, True)]}})
    log = rdo.ExpectedUtility(np.log)
    found = rdo.value_iteration(mdp, log, stock=[1.5, 5.0], horizon=3)
    assert found.objective_value(0, 5.0) == pytest.approx(np.log(5.0), abs=1e-12)
    assert found.objective_value(0, 1.5) == pytest.approx(np.log(1.5), abs=1e-12)
    with pytest.raises(rdo.InvalidArgumentError, match=r"the utility is NaN at x = -0\.5"):
        rdo.value_iteration(mdp, log, stock=0.5, horizon=3)


def test_ties_are_not_decided_by_stocks_far_away() -> None:
    """Squares of far stocks are large; the better of two nearly equal actions is taken all the same."""
    table = {0: {0: [(1.0, 1, 0.95, False)], 1: [(1.0, 1, 1.0, False)]}}
    table[1] = {0: [(1.0, 1, 0.0, False)], 1: [(1.0, 1, 10_000.0, False)]}
    plan = rdo.optimize(rdo.MDP.from_outcomes(table), rdo.Quadratic(), stock=-1.0, horizon=6)
    assert plan.method.startswith("exact: lattice")
    assert plan.value == 0.0
    assert rdo.Quadratic()(plan.returns + plan.stock) == 0.0


def test_merging_atoms_keeps_both_ends_and_idle_components() -> None:
    table = {0: {a: [(0.5, 0, 1.0, False), (0.5, 0, -0.5 * a, False)] for a in range(2)}}
    mdp = rdo.MDP.from_outcomes(table, gamma=0.9)
    for objective in (rdo.EssInf(), rdo.EssSup()):
        plan = rdo.optimize(mdp, objective)
        assert objective(plan.returns) == pytest.approx(plan.value, abs=1e-9)
    plane = {0: {0: [(0.5, 0, (1.0, 1.0), False), (0.5, 0, (0.0, 1.0), False)]}}
    law = rdo.optimize(rdo.MDP.from_outcomes(plane, gamma=0.9), rdo.Homeostasis(), stock=(-2.0, -2.0)).returns
    assert np.linalg.norm(law.mean() - np.array([5.0, 10.0])) <= law.w1_error + 1e-9


@modest
@given(strategies.tables(max_states=3), st.sampled_from([0.5, 1 / 3]), st.sampled_from([-2.0, -1.0, 0.0, 0.5]))
def test_a_second_component_that_does_not_matter(table: Table, gamma: float, stock: float) -> None:
    """Endless indicator: an idle component that is reached leaves the scalar problem, one that is not ends it."""
    flat = strategies.floats(table)
    plane = {s: {a: [(p, z, (r, 0.0), e) for p, z, r, e in o] for a, o in row.items()} for s, row in flat.items()}
    vector, scalar = rdo.MDP.from_outcomes(plane, gamma=gamma), rdo.MDP.from_outcomes(flat, gamma=gamma)
    solved = rdo.value_iteration(vector, rdo.Threshold(), stock=[(stock, 0.0), (stock, -1.0)])
    alone = rdo.value_iteration(scalar, rdo.Threshold(), stock=stock)
    for s in flat:
        low, high = alone.bounds(s, stock)
        found_low, found_high = solved.bounds(s, (stock, 0.0))
        assert found_low <= high + 1e-12
        assert low <= found_high + 1e-12
        if "exact" in solved.method and "exact" in alone.method:
            assert found_low == pytest.approx(low, abs=1e-12)
        assert solved.bounds(s, (stock, -1.0)) == (0.0, 0.0)


@pytest.mark.parametrize("name", [name for name in VECTORS if name != "squares"])
@pytest.mark.parametrize("gamma", [0.5, 0.8])
def test_endless_bounds_contain_long_horizons(name: str, gamma: float) -> None:
    """After n steps the rest of the return is at most gamma**n / (1 - gamma) in each component."""
    objective, stock, n = VECTORS[name], (0.5, -0.75), 9
    mdp = planar(7, gamma, p_end=0.1)
    low, high = rdo.value_iteration(mdp, objective, stock=stock, memory=2**26).bounds(0, stock)
    assert low <= high
    if objective.lipschitz is None:
        return
    rest = objective.lipschitz * gamma**n / (1 - gamma) * 2  # both components, in the largest of the norms
    short = rdo.value_iteration(mdp, objective, stock=stock, horizon=n).bounds(0, stock)
    assert low <= short[1] + rest
    assert short[0] - rest <= high


@pytest.mark.parametrize("name", ["norm 2", "smallest", "shortfalls"])
def test_rounded_boxes_contain_the_exact_value(name: str) -> None:
    """Little memory forces rounding or a cut; the exact table of the same problem is the referee."""
    objective, stock, steps = VECTORS[name], (0.5, -0.75), 9
    mdp = planar(11, 0.9, p_end=0.0)
    exact = rdo.value_iteration(mdp, objective, stock=stock, horizon=steps)
    assert exact.method.startswith("exact")
    rough = rdo.value_iteration(mdp, objective, stock=stock, horizon=steps, memory=2**21)
    assert rough.method.startswith("certified")
    for s in range(3):
        low, high = rough.bounds(s, stock)
        assert low - 1e-12 <= exact.objective_value(s, stock) <= high + 1e-12
        assert high - low > 1e-9


def test_vector_plan_is_replayed() -> None:
    mdp = planar(5, 0.9, p_end=0.3)
    plan = rdo.optimize(mdp, rdo.Homeostasis(), stock=(1.0, -1.0), horizon=6)
    assert plan.stock == (1.0, -1.0)
    assert rdo.Homeostasis()(plan.returns + plan.stock) == pytest.approx(plan.value, abs=1e-11)
    runs = rdo.rollout(mdp, plan, episodes=20_000, seed=0)
    scores = -np.linalg.norm(runs.returns + np.array(plan.stock), axis=1)
    assert abs(scores.mean() - plan.value) < 5 * scores.std() / len(scores) ** 0.5


# --------------------------------------------------------------------------------------------------
# worst and best cases


def least(nu: naive.Law) -> F:
    return nu[0][0]


def greatest(nu: naive.Law) -> F:
    return nu[-1][0]


@modest
@given(strategies.tables(), st.sampled_from(strategies.GAMMAS), st.integers(1, 4), strategies.stocks())
def test_worst_and_best_case(table: Table, gamma: F, horizon: int, stock: F) -> None:
    mdp = rdo.MDP.from_outcomes(strategies.floats(table), gamma=float(gamma))
    for objective, functional in ((rdo.EssInf(), least), (rdo.EssSup(), greatest)):
        try:
            exact = naive.best(table, gamma, 0, horizon, functional, stock)
        except naive.TooManyLawsError:
            return
        plan = rdo.optimize(mdp, objective, stock=float(stock), state=0, horizon=horizon)
        assert plan.value == pytest.approx(float(exact), abs=1e-12)
        assert objective(plan.returns + float(stock)) == pytest.approx(plan.value, abs=1e-11)


@pytest.mark.parametrize("gamma", [0.5, 0.9, 0.999])
def test_endless_worst_case_solves_its_own_equation(gamma: float) -> None:
    """The recursion has one solution; 10 / (1 - gamma) sweeps from both extremes enclose it."""
    mdp = rdo.MDP.garnet(30, 3, 3, gamma=gamma, seed=2)
    for objective in (rdo.EssInf(), rdo.EssSup()):
        solution = rdo.value_iteration(mdp, objective)
        m = np.array([solution.objective_value(s) for s in range(30)])
        worst = np.minimum if isinstance(objective, rdo.EssSup) is False else np.maximum
        after = mdp.reward + gamma * m[mdp.next_state]
        best = np.maximum.reduceat(worst.reduceat(after, mdp.outcome_ptr[:-1]), mdp.pair_ptr[:-1])
        assert best == pytest.approx(m, rel=1e-12, abs=1e-12)
        assert solution.objective_value(3, 2.5) == pytest.approx(m[3] + 2.5)


def test_worst_case_where_every_path_ends() -> None:
    table = {
        0: {0: [(0.5, 1, -1.0, False), (0.5, 1, 4.0, False)], 1: [(1.0, 1, 0.0, False)]},
        1: {0: [(1.0, 1, 2.0, True)]},
    }
    mdp = rdo.MDP.from_outcomes(table)
    assert ends_within(mdp) == 2
    assert rdo.optimize(mdp, rdo.EssInf()).value == 2.0
    assert rdo.optimize(mdp, rdo.EssSup()).value == 6.0
    assert rdo.optimize(mdp, rdo.EssInf()).policy.action(0, 0.0) == 1


# --------------------------------------------------------------------------------------------------
# objectives in order


ORDERS: dict[str, tuple[rdo.Objective, Callable[[naive.Law], Any]]] = {
    "chance, then mean": (
        rdo.Lexicographic(rdo.Threshold(), rdo.Mean()),
        lambda nu: (naive.chance(nu), naive.mean(nu)),
    ),
    "shortfall, then surplus": (
        rdo.Lexicographic(rdo.Shortfall(), rdo.Surplus()),
        lambda nu: (naive.expect(nu, lambda x: min(x, F(0))), naive.expect(nu, lambda x: max(x, F(0)))),
    ),
    "chance, then worst case": (
        rdo.Lexicographic(rdo.Threshold(), rdo.EssInf()),
        lambda nu: (naive.chance(nu), least(nu)),
    ),
    "three": (
        rdo.Lexicographic(rdo.Threshold(), rdo.TargetReturn(), rdo.EssSup()),
        lambda nu: (naive.chance(nu), -naive.expect(nu, abs), greatest(nu)),
    ),
}


@pytest.mark.parametrize("name", ORDERS)
@modest
@given(strategies.tables(), st.sampled_from(strategies.GAMMAS), st.integers(1, 4), strategies.stocks())
def test_objectives_in_order(name: str, table: Table, gamma: F, horizon: int, stock: F) -> None:
    objective, functional = ORDERS[name]
    try:
        exact = naive.best(table, gamma, 0, horizon, functional, stock)
    except naive.TooManyLawsError:
        return
    mdp = rdo.MDP.from_outcomes(strategies.floats(table), gamma=float(gamma))
    plan = rdo.optimize(mdp, objective, stock=float(stock), state=0, horizon=horizon)
    assert isinstance(plan.value, tuple)
    assert plan.value == pytest.approx([float(x) for x in exact], abs=1e-11)
    assert plan.bounds[0] == plan.value
    assert objective(plan.returns + float(stock)) == pytest.approx(plan.value, abs=1e-11)


def test_objectives_in_order_on_vectors() -> None:
    """First both accounts in the black, then close to the set point; every policy of two steps is listed by hand."""
    table = {0: {0: [(0.5, 0, (2.0, -1.0), False), (0.5, 0, (0.0, 1.0), False)], 1: [(1.0, 0, (0.0, 0.0), False)]}}
    mdp = rdo.MDP.from_outcomes(table)
    objective = rdo.Lexicographic(rdo.Threshold(), rdo.Homeostasis(1))
    plan = rdo.optimize(mdp, objective, stock=(0.0, 0.0), horizon=2)
    # Never playing keeps (0, 0): chance 1, distance 0. Nothing is better in the first, nor in the second.
    assert plan.value == (1.0, 0.0)
    # From (-1, 1) a play leads to (1, 0) or (-1, 2). Stop in the first case, play again in the second: 1/2 + 1/4.
    plan = rdo.optimize(mdp, objective, stock=(-1.0, 1.0), horizon=2)
    assert plan.value[0] == pytest.approx(0.75)


# --------------------------------------------------------------------------------------------------
# sweeps


def test_brackets_close_monotonically() -> None:
    mdp = rdo.MDP.garnet(12, 2, 2, gamma=0.5, seed=4)
    for objective in (rdo.TargetReturn(), rdo.Shortfall(), rdo.Threshold(), rdo.Quadratic()):
        exact = rdo.value_iteration(mdp, objective, stock=-0.5)
        before = (-np.inf, np.inf)
        for n in (1, 2, 4, 8, 12):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                cut = rdo.value_iteration(mdp, objective, stock=-0.5, max_iter=n)
            low, high = cut.bounds(0, -0.5)
            assert before[0] - 1e-12 <= low <= exact.bounds(0, -0.5)[1] + 1e-12
            assert exact.bounds(0, -0.5)[0] - 1e-12 <= high <= before[1] + 1e-12
            before = (low, high)


def test_too_few_sweeps_are_confessed_once() -> None:
    mdp = rdo.MDP.garnet(12, 2, 2, gamma=0.5, seed=4)
    with pytest.warns(UserWarning, match="stopped after max_iter = 3 sweeps with bounds up to") as caught:
        cut = rdo.value_iteration(mdp, rdo.Shortfall(), stock=[-0.5, 0.5], max_iter=3)
    assert len(caught) == 1
    assert not cut.converged
    assert cut.residual > 0.01
    full = rdo.value_iteration(mdp, rdo.Shortfall(), stock=[-0.5, 0.5], max_iter=80)  # no warning
    assert full.converged
    short = rdo.value_iteration(mdp, rdo.Shortfall(), horizon=3, max_iter=5)  # more than there is to do
    assert short.converged
    with pytest.raises(rdo.InvalidArgumentError, match="max_iter must be a positive integer"):
        rdo.value_iteration(mdp, rdo.Shortfall(), max_iter=0)


def test_sweeps_within_a_horizon_are_bracketed() -> None:
    mdp = planar(2, 1.0)
    stock = (1.0, -1.0)
    exact = rdo.value_iteration(mdp, rdo.Homeostasis(), stock=stock, horizon=6)
    with pytest.warns(UserWarning, match="max_iter = 4"):
        cut = rdo.value_iteration(mdp, rdo.Homeostasis(), stock=stock, horizon=6, max_iter=4)
    for s in range(3):
        low, high = cut.bounds(s, stock)
        assert low <= exact.objective_value(s, stock) <= high
