"""A hundred savings goals from one solve against induction over the wealth: ``python benchmarks/savings.py``.

Problem: 1000 levels of wealth, 360 months, 11 mixes of market and cash, 21 outcomes a month, a contribution of one
level; the months are those of the American market (the package arch), and wealth is rounded down to a level. For 100
goals: the largest probability to reach the goal, and the plan. Ours is `rdo.value_iteration` with one stock a goal, on
a fresh MDP each time (making the MDP is also timed apart).

The peers know that the problem is about wealth and need no stocks. SciPy multiplies a sparse matrix (pairs x levels) by
the values of all goals and takes the maximum over the mixes, with and without the policy. Numpy looks the values of one
goal up by their level; it is timed for a few goals, and its time is for one. All values are compared first.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from common import hardware, interleave, save
from numpy.typing import NDArray
from scipy.sparse import csr_array

import rdolib as rdo
from rdolib.savings import Savings, market_returns

LEVELS, MONTHS, WEALTH, GOALS, FEW = 1000, 360, 100, 100, 2
Floats = NDArray[np.float64]


def problem() -> tuple[Savings, Floats]:
    savings = Savings.from_returns(market_returns(), top=LEVELS - 1, flow=1.0, mixes=11, outcomes=21)
    return savings, np.linspace(210, LEVELS - 1, GOALS).round()


def ours(savings: Savings, goals: Floats) -> Floats:
    mdp = savings.mdp("down", wealth=WEALTH)
    return solve(mdp, goals)


def solve(mdp: rdo.MDP, goals: Floats) -> Floats:
    solution = rdo.value_iteration(mdp, rdo.Threshold(), stock=WEALTH - goals, horizon=MONTHS)
    assert f"{GOALS} stocks at each of {LEVELS} states" in solution.method
    return solution.policy.table.bounds(np.full(len(goals), WEALTH), WEALTH - goals)[0]


def with_scipy(mdp: rdo.MDP, goals: Floats, policy: bool) -> Floats:
    actions = mdp.n_actions
    matrix = csr_array((mdp.prob, mdp.next_state, mdp.outcome_ptr), shape=(mdp.n_pairs, LEVELS))
    value = (np.arange(LEVELS)[:, None] >= goals).astype(float)
    choice = np.empty((MONTHS, LEVELS, len(goals)), dtype=np.uint8) if policy else None
    for t in reversed(range(MONTHS)):
        worth = (matrix @ value).reshape(LEVELS, actions, -1)
        if choice is not None:
            choice[t] = worth.argmax(axis=1)
        value = worth.max(axis=1)
    return value[WEALTH]


def with_numpy(savings: Savings, goals: Floats) -> Floats:
    after = np.minimum((np.arange(LEVELS) + savings.flow)[:, None, None] * savings.growth, LEVELS - 1)
    after = np.floor(after + 1e-9).astype(np.int64)
    values = []
    for goal in goals:
        value = (np.arange(LEVELS) >= goal).astype(float)
        for _ in range(MONTHS):
            value = (value[after] @ savings.prob).max(axis=1)
        values.append(value[WEALTH])
    return np.array(values)


def measure(turns: int = 5) -> dict[str, Any]:
    savings, goals = problem()
    mdp = savings.mdp("down", wealth=WEALTH)
    few = goals[:: GOALS // FEW]
    expected = with_scipy(mdp, goals, policy=False)
    differences = {
        "scipy": float(np.abs(ours(savings, goals) - expected).max()),
        "numpy": float(np.abs(with_numpy(savings, few) - expected[:: GOALS // FEW]).max()),
    }
    assert max(differences.values()) <= 1e-10, differences
    times = interleave(
        {
            "making the MDP": lambda: savings.mdp("down", wealth=WEALTH),
            "rdolib, with the MDP": lambda: ours(savings, goals),
            "scipy, values and plans": lambda: with_scipy(mdp, goals, policy=True),
            "scipy, values only": lambda: with_scipy(mdp, goals, policy=False),
            f"numpy, values of {FEW} goals": lambda: with_numpy(savings, few),
        },
        turns,
    )
    updates = float(mdp.n_outcomes) * GOALS * MONTHS
    return {
        "hardware": hardware(),
        "problem": {
            "levels": LEVELS, "months": MONTHS, "mixes": 11, "outcomes": 21, "goals": GOALS,
            "outcomes after merging": mdp.n_outcomes,
        },
        "differences": differences,
        "seconds": times,
        "updates_per_second": updates / times["rdolib, with the MDP"]["median"],
    }  # fmt: skip


def show(result: dict[str, Any]) -> None:
    print(f"{result['hardware']['cpu']}, {result['hardware']['threads']} threads")
    print(f"differences: {result['differences']}\n")
    print(f"{'':32}{'seconds':>10}{'least':>10}{'greatest':>10}")
    for name, times in result["seconds"].items():
        print(f"{name:32}{times['median']:10.3f}{times['least']:10.3f}{times['greatest']:10.3f}")
    print(f"\nrdolib: {result['updates_per_second']:.3g} updates a second")


if __name__ == "__main__":
    started = time.perf_counter()
    outcome = measure()
    show(outcome)
    print(f"wrote {save('savings', outcome).name} after {time.perf_counter() - started:.0f} s")
