"""The library against answers that were found without it.

Three kinds of witness: exhaustive search in fractions on tiny problems made up by hypothesis (`tests.naive`),
answers with certified errors for problems that people use (`tests.reference`), and the replay of every plan
by an independent walk over all histories. The references themselves are checked first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction as F
from itertools import groupby
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.sparse import coo_array

import rdolib as rdo
from tests import naive, reference, strategies
from tests.naive import Law, Table
from tests.reference import Answer

modest = settings(
    deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


# --------------------------------------------------------------------------------------------------
# the references


def test_reference_fair_coin() -> None:
    """Coins for ever: gamma = 1/2 and 0 or 1 is uniform on [0, 2]; 1/3 and 0 or 2 is the Cantor law."""
    half = F(1, 2)
    uniform = reference.Discounted({0: {0: [(half, 0, F(0), False), (half, 0, F(1), False)]}}, 2)
    assert float(uniform.mean[0]) == 1
    assert float(uniform.target(F(-1))[0]) == -0.5
    assert [float(x[0]) for x in uniform.threshold(F(-1, 2))] == [0.75, 0.75]
    # The mean of the worst tau of a uniform on [0, 2] is tau.
    for level in reference.LEVELS:
        low, high = uniform.cvar(0, level)
        assert low - 1e-15 <= level <= high + 1e-15 and high - low < 1e-12
    # The lower half of the Cantor law is itself, shrunk by three: the worst half has mean 1.5 / 3, the worst
    # quarter 1.5 / 9.
    cantor = reference.Discounted({0: {0: [(half, 0, F(0), False), (half, 0, F(2), False)]}}, 3)
    for level, exact in ((1.0, 1.5), (0.5, 0.5), (0.25, 1 / 6)):
        low, high = cantor.cvar(0, level)
        assert low - 1e-15 <= exact <= high + 1e-15 and high - low < 1e-12


@pytest.mark.parametrize("problem", reference.SMALL)
def test_reference_against_naive_brackets(problem: str) -> None:
    """The zoom lies in the brackets that cutting the histories off gives."""
    table, k = reference.SMALL[problem]
    table = {s: {a: [(F(p), s2, F(r), e) for p, s2, r, e in o] for a, o in rows.items()} for s, rows in table.items()}
    depth = {2: 5, 3: 4}[k]
    for answer in reference.answers(problem):
        if answer.state == 0 and answer.objective == "target":
            stock = F(str(answer.stock))
            low, high = naive.bracket(table, F(1, k), 0, depth, lambda x: -abs(x), F(1), stock)
            assert low <= answer.value <= high
    solver = reference.Discounted(table, k)
    for b in (F(0), F(1, k), F(-5, k)):
        low, high = naive.bracket(table, F(1, k), 0, depth, lambda x: min(x, F(0)), F(1), -b)
        value = solver.cells(np.array([int(-b * k)]), 1).left[0, 0]
        assert low <= float(value) <= high


@pytest.mark.parametrize("problem", reference.SMALL)
def test_reference_slopes_hold_inside_cells(problem: str) -> None:
    """Between the ends of a cell the value keeps within the slopes that are claimed for it."""
    table, k = reference.SMALL[problem]
    solver = reference.Discounted(table, k)
    m = np.arange(-4 * k**2, 4 * k**2)
    cells, parts = solver.cells(m, 2), k**3
    inner = solver.cells((m[:, None] * parts + np.arange(parts)).ravel(), 5)
    rise = inner.left.reshape(len(m), parts, -1) - cells.left[:, None]
    run = (np.arange(parts) / np.longdouble(k) ** 5)[:, None]
    assert (rise <= cells.fast[:, None] * run + 1e-15).all()
    assert (rise >= cells.slow[:, None] * run - 1e-15).all()
    assert (cells.fast - cells.slow).mean() < 0.5


def test_reference_walk_by_linear_programming() -> None:
    """The best chance to finish slippery CliffWalking within 40, as a linear program over (state, stock)."""
    mdp, _ = reference.gym_problem(*reference.GYM["cliff"][:2])
    n, top = mdp.n_states, 40
    exact = reference.falling(mdp, reference.hit, 0, top, np.full(n, -np.inf, np.longdouble))
    s, a, _, c = np.ix_(range(n), range(mdp.ok.shape[1]), range(mdp.prob.shape[2]), range(top + 1))
    left = c + mdp.reward.astype(int)[..., None]
    prob = np.broadcast_to(mdp.prob[..., None], left.shape).astype(float)
    ended = np.broadcast_to(mdp.ended[..., None], left.shape)
    row = np.broadcast_to((s * mdp.ok.shape[1] + a) * (top + 1) + c, left.shape)
    goes = ~ended & (left >= 0)
    column = (np.broadcast_to(mdp.after[..., None], left.shape) * (top + 1) + left)[goes]
    n_rows = n * mdp.ok.shape[1] * (top + 1)
    one = np.arange(n_rows)
    own = (one // (top + 1) // mdp.ok.shape[1]) * (top + 1) + one % (top + 1)
    system = coo_array(
        (np.r_[prob[goes], -np.ones(n_rows)], (np.r_[row[goes], one], np.r_[column, own])),
        shape=(n_rows, n * (top + 1)),
    ).tocsr()
    paid = np.bincount(row.ravel(), (prob * (ended & (left >= 0))).ravel(), minlength=n_rows)
    result = linprog(np.ones(n * (top + 1)), A_ub=system, b_ub=-paid, bounds=(0, 1))
    value = result.x.reshape(n, top + 1)
    assert np.abs(value[:, 1:].T - exact.astype(float)).max() < 1e-7


# --------------------------------------------------------------------------------------------------
# problems that people use


def library_problem(problem: str) -> rdo.MDP:
    """Return a problem of `tests.reference` as the library sees it."""
    if problem in reference.SMALL:
        table, k = reference.SMALL[problem]
        return rdo.MDP.from_outcomes(reference.float_table(table), gamma=1 / k, initial=0)
    name, options, gamma = reference.GYM[problem.removesuffix("-100")]
    return rdo.MDP.from_gymnasium(name, gamma=gamma, **dict(options))


FIXED: dict[str, Callable[[], Any]] = {
    "mean": rdo.Mean,
    "threshold": rdo.Threshold,
    "target": rdo.TargetReturn,
}


def assert_answer(value: float, bounds: tuple[float, float], answer: Answer) -> None:
    """Assert that a value is the answer to 1e-9 relative, and that the certified bounds contain it."""
    slack = answer.error + 1e-9 * abs(answer.value) + 1e-13
    assert abs(value - answer.value) <= slack, answer
    assert bounds[0] - slack <= answer.value <= bounds[1] + slack, (bounds, answer)


@pytest.mark.parametrize("problem", reference.PROBLEMS)
def test_fixed_stock_answers(problem: str) -> None:
    """Mean, threshold and target optima, at every state and stock, by value iteration."""
    mdp = library_problem(problem)
    everything = [a for a in reference.answers(problem) if a.objective in FIXED and a.state is not None]
    for name, group in groupby(sorted(everything, key=lambda a: a.objective), key=lambda a: a.objective):
        cases = list(group)
        stocks = sorted({a.stock for a in cases if a.stock is not None})
        solution = rdo.value_iteration(mdp, FIXED[name](), stock=np.array(stocks), horizon=cases[0].horizon)
        for answer in cases:
            assert answer.state is not None and answer.stock is not None
            value = solution.objective_value(answer.state, answer.stock)
            assert_answer(value, solution.bounds(answer.state, answer.stock), answer)


@pytest.mark.parametrize("problem", reference.PROBLEMS)
def test_plans(problem: str) -> None:
    """Plans for every objective from the first states: value, bounds, and the law of the return."""
    mdp = library_problem(problem)
    states: list[int | None] = list(dict.fromkeys(a.state for a in reference.answers(problem)))[:2]
    for answer in reference.answers(problem):
        if answer.state not in states:
            continue
        if answer.level is not None:
            objective: Any = rdo.CVaR(answer.level)
            plan = rdo.optimize(mdp, objective, horizon=answer.horizon, state=answer.state)
            shown = plan.returns
        else:
            objective = FIXED[answer.objective]()
            plan = rdo.optimize(mdp, objective, horizon=answer.horizon, state=answer.state, stock=answer.stock)
            shown = plan.returns + answer.stock
        assert plan.converged
        assert_answer(plan.value, plan.bounds, answer)
        # Endless returns with gamma = 1/k fill an interval: their law is projected, and only a Lipschitz
        # objective of it is close.
        rough = 1e-5 if problem in reference.SMALL else 1e-9
        if not (problem in reference.SMALL and answer.objective == "threshold"):
            assert objective(shown) == pytest.approx(plan.value, rel=1e-8, abs=rough), answer


@pytest.mark.theory("8.9")
def test_dry_lake_plan_arrives() -> None:
    """A zero-reward self-loop ties with the way to the goal and never arrives; the plan must arrive."""
    mdp = library_problem("dry-lake")
    for objective in (rdo.Mean(), rdo.CVaR(0.5)):
        plan = rdo.optimize(mdp, objective)
        assert plan.value == pytest.approx(1.0)
        state, stock = 0, plan.stock
        moves = dry_moves()
        for t in range(16):
            state, reward, ended = moves[state][plan.policy.action(state, stock, t)]
            stock += reward
            if ended:
                break
        assert reward == 1.0


def dry_moves() -> list[list[tuple[int, float, bool]]]:
    """Return the certain (next state, reward, ended) of every state and action without slipping."""
    mdp, _ = reference.gym_problem(*reference.GYM["dry-lake"][:2])
    return [
        [
            (int(mdp.after[s, a, 0]), float(mdp.reward[s, a, 0]), bool(mdp.ended[s, a, 0]))
            for a in range(mdp.ok.shape[1])
        ]
        for s in range(mdp.n_states)
    ]


# --------------------------------------------------------------------------------------------------
# problems made up by hypothesis


@dataclass(frozen=True)
class Case:
    """An objective of the library beside its exact utility."""

    name: str
    objective: Any
    f: naive.Utility
    homogeneous: bool = True

    def __repr__(self) -> str:
        """Return the name, for hypothesis to print."""
        return self.name


def utility(f: Callable[[Any], Any], name: str) -> Case:
    """Return an expected utility without a declared degree, whose f works on fractions and on arrays."""
    return Case(name, rdo.ExpectedUtility(f), f, homogeneous=False)


CASES = (
    Case("Mean", rdo.Mean(), lambda x: x),
    Case("TargetReturn", rdo.TargetReturn(), lambda x: -abs(x)),
    Case("Shortfall", rdo.Shortfall(), lambda x: min(x, F(0))),
    Case("Surplus", rdo.Surplus(), lambda x: max(x, F(0))),
    Case("TwoSlope", rdo.TwoSlope(2.0, 0.5), lambda x: 2 * min(x, F(0)) + max(x, F(0)) / 2),
    Case("TwoSlope, a valley", rdo.TwoSlope(-1.0, 0.5), lambda x: -min(x, F(0)) + max(x, F(0)) / 2),
    Case("TwoSlope, falling", rdo.TwoSlope(-0.5, -2.0), lambda x: -min(x, F(0)) / 2 - 2 * max(x, F(0))),
    Case("Threshold", rdo.Threshold(), lambda x: F(int(x >= 0))),
    Case("Quadratic", rdo.Quadratic(), lambda x: -x * x),
    Case("Exponential, averse", rdo.Exponential(-0.7), lambda x: (np.exp(-0.7 * float(x)) - 1) / -0.7, False),
    Case("Exponential, seeking", rdo.Exponential(0.5), lambda x: (np.exp(0.5 * float(x)) - 1) / 0.5, False),
    utility(lambda x: x * x * x - x, "a cubic"),
    utility(lambda x: abs(x - 1) - abs(x + 1) / 2, "two kinks"),
    Case("a cap", rdo.ExpectedUtility(lambda x: np.minimum(x, 0.5)), lambda x: min(x, F(1, 2)), False),
    Case("a sine", rdo.ExpectedUtility(np.sin), lambda x: np.sin(float(x)), False),
    # Homogeneous but without a Lipschitz constant: without a horizon it needs paths that all end.
    Case("a cube", rdo.ExpectedUtility(lambda x: x**3, degree=3), lambda x: x**3),
)
TINY = 1e-12


def close(value: float, exact: Any) -> bool:
    """Return whether the value is exact up to rounding."""
    return abs(value - float(exact)) <= TINY * max(1.0, abs(float(exact)))


def fraction(x: float) -> F:
    """Return the fraction that a stock of a tiny problem must be."""
    exact = F(float(x)).limit_denominator(10**7)
    assert abs(float(exact) - x) <= 1e-12 * max(1.0, abs(x))
    return exact


def leaves(table: Table, horizon: int) -> int:
    """Return a bound of the number of histories, to keep the exact search affordable."""
    return int(max(sum(len(outcomes) for outcomes in rows.values()) for rows in table.values()) ** horizon)


def assert_law(shown: rdo.Distribution, exact: Law) -> None:
    """Assert that a distribution of the library is this law."""
    atoms = np.array([float(x) for x, _ in exact])
    np.testing.assert_allclose(np.asarray(shown.atoms, float), atoms, atol=1e-9)
    np.testing.assert_allclose(np.asarray(shown.probs, float), [float(p) for _, p in exact], atol=1e-12)


def assert_plan(
    plan: Any,
    table: Table,
    gamma: F,
    start: naive.Start,
    horizon: int,
    exact: Any,
    value: Callable[[Law, F], Any],
) -> None:
    """Assert that a plan is worth ``exact``, that its policy attains it, and that its return law is right."""
    low, high = plan.bounds
    slack = TINY * max(1.0, abs(float(exact)))
    assert low - slack <= float(exact) <= high + slack
    if high - low <= 4 * slack:
        assert close(plan.value, exact)
    stock = fraction(plan.stock)
    attained = naive.replay(
        table, gamma, start, horizon, lambda s, c, t: int(plan.policy.action(s, float(c), t)), stock
    )
    assert close(plan.value, value(attained, stock))
    assert_law(plan.returns, attained)


@st.composite
def problems(draw: st.DrawFn, max_leaves: int = 3000) -> tuple[Table, F, int]:
    """Return a table, a discount and a horizon for which listing all histories is affordable."""
    table = draw(strategies.tables(max_outcomes=3))
    horizon = draw(strategies.mostly_large(1, 5))
    assume(leaves(table, horizon) <= max_leaves)
    return table, draw(st.sampled_from(strategies.GAMMAS)), horizon


@pytest.mark.theory("4.2")
@pytest.mark.theory("4.5")
@settings(modest, max_examples=300)
@given(problems(), st.sampled_from(CASES), strategies.stocks())
def test_expected_utilities(problem: tuple[Table, F, int], case: Case, stock: F) -> None:
    """Every scalar expected utility with a horizon: value, policy and law against all histories."""
    table, gamma, horizon = problem
    mdp = rdo.MDP.from_outcomes(strategies.floats(table), gamma=float(gamma), initial=0)
    exact = naive.best_utility(table, gamma, 0, horizon, case.f, stock)
    plan = rdo.optimize(mdp, case.objective, horizon=horizon, stock=float(stock), state=0)
    assert close(plan.stock, stock)
    assert_plan(plan, table, gamma, 0, horizon, exact, lambda nu, c: naive.expect(naive.shift(nu, stock), case.f))
    assert case.objective(plan.returns + float(stock)) == pytest.approx(plan.value, rel=1e-11, abs=1e-11)


@settings(modest, max_examples=150)
@given(problems(max_leaves=700), strategies.levels())
def test_cvar(problem: tuple[Table, F, int], level: F) -> None:
    """CVaR with a horizon: the outer search over the stock against all histories and all possible returns."""
    table, gamma, horizon = problem
    assume(len(naive.possible_returns(table, gamma, 0, horizon)) <= 60)
    mdp = rdo.MDP.from_outcomes(strategies.floats(table), gamma=float(gamma), initial=0)
    exact = naive.best_cvar_by_stock(table, gamma, 0, horizon, level)
    plan = rdo.optimize(mdp, rdo.CVaR(float(level)), horizon=horizon, state=0)
    assert_plan(plan, table, gamma, 0, horizon, exact, lambda nu, c: naive.cvar(nu, level))
    assert rdo.CVaR(float(level))(plan.returns) == pytest.approx(plan.value, rel=1e-11, abs=1e-11)


@settings(modest, max_examples=80)
@given(problems(max_leaves=300), st.sampled_from(CASES))
def test_many_stocks_at_once(problem: tuple[Table, F, int], case: Case) -> None:
    """Value iteration answers several stocks at every state, each exactly."""
    table, gamma, horizon = problem
    mdp = rdo.MDP.from_outcomes(strategies.floats(table), gamma=float(gamma), initial=0)
    stocks = [F(-3, 2), F(0), F(1, 3)]
    solution = rdo.value_iteration(mdp, case.objective, stock=np.array([float(c) for c in stocks]), horizon=horizon)
    for state in table:
        for stock in stocks:
            exact = naive.best_utility(table, gamma, state, horizon, case.f, stock)
            assert close(solution.objective_value(state, float(stock)), exact)
            low, high = solution.bounds(state, float(stock))
            slack = TINY * max(1.0, abs(float(exact)))
            assert low - slack <= float(exact) <= high + slack


@settings(modest, max_examples=80)
@given(problems(max_leaves=300), st.sampled_from(CASES), strategies.stocks(), strategies.levels())
def test_random_start(problem: tuple[Table, F, int], case: Case, stock: F, level: F) -> None:
    """A random initial state: one initial stock, and the optimum of the mixture."""
    table, gamma, horizon = problem
    start = {s: F(2 if s == 0 else 1, len(table) + 1) for s in table}
    mdp = rdo.MDP.from_outcomes(
        strategies.floats(table), gamma=float(gamma), initial=np.array([float(start[s]) for s in table])
    )
    exact = naive.best_utility(table, gamma, start, horizon, case.f, stock)
    plan = rdo.optimize(mdp, case.objective, horizon=horizon, stock=float(stock))
    assert_plan(plan, table, gamma, start, horizon, exact, lambda nu, c: naive.expect(naive.shift(nu, stock), case.f))
    assume(len(naive.possible_returns(table, gamma, start, horizon)) <= 40)
    exact = naive.best_cvar_by_stock(table, gamma, start, horizon, level)
    plan = rdo.optimize(mdp, rdo.CVaR(float(level)), horizon=horizon)
    assert_plan(plan, table, gamma, start, horizon, exact, lambda nu, c: naive.cvar(nu, level))


@pytest.mark.theory("4.1")
@pytest.mark.theory("4.6")
@settings(modest, max_examples=150)
@given(
    strategies.tables(max_states=4, layered=True),
    st.sampled_from(strategies.GAMMAS),
    st.sampled_from(CASES),
    strategies.stocks(),
    strategies.levels(),
)
def test_no_horizon(table: Table, gamma: F, case: Case, stock: F, level: F) -> None:
    """Every policy ends and there is no horizon: one stationary policy of (state, stock) is optimal."""
    mdp = rdo.MDP.from_outcomes(strategies.floats(table), gamma=float(gamma), initial=0)
    horizon = len(table)
    if case.homogeneous or gamma == 1:
        exact = naive.best_utility(table, gamma, 0, horizon, case.f, stock)
        plan = rdo.optimize(mdp, case.objective, stock=float(stock))
        assert_plan(plan, table, gamma, 0, horizon, exact, lambda nu, c: naive.expect(naive.shift(nu, stock), case.f))
    else:
        with pytest.raises(rdo.NotOptimizableError):
            rdo.optimize(mdp, case.objective, stock=float(stock))
    exact = naive.best_cvar(table, gamma, 0, horizon, level)
    plan = rdo.optimize(mdp, rdo.CVaR(float(level)))
    assert_plan(plan, table, gamma, 0, horizon, exact, lambda nu, c: naive.cvar(nu, level))
