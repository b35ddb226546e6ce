"""A whole curve x -> max P(total >= x) against one query of the model checker Storm: ``python benchmarks/storm.py``.

Two problems, gamma = 1 without a horizon:

- slippery CliffWalking, every step costs 1: the probability to reach the goal within x steps, for x up to 500;
- a Garnet MDP (1000 states, 4 actions, 5 outcomes), where a pair earns 1, 2 or 3 and ends with probability 5 %: the
  probability to earn at least x in total, for x up to 200.

Ours is the whole curve for all states by `value_iteration`, and by the kernel alone. Storm's is a single reward-bounded
query at the largest x, for the initial state; building the model, parsing the formula and the first call are not
timed. Of equivalent queries the fastest counts. Values are compared first, at some x.

Storm is free software under the GPL; install stormpy into an environment of its own if that matters to you. Nothing in
the library imports it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import stormpy
from common import hardware, interleave, save
from numpy.typing import NDArray
from stormpy import datastructures, models

import rdolib as rdo
from rdolib import _kernels
from rdolib._monotone import MonotoneTable
from rdolib.mdp import MDP

Floats = NDArray[np.float64]
ENDS = 0.05


@dataclass
class Problem:
    """An MDP whose reward depends on the pair only, thresholds, and Storm's queries for one of them."""

    mdp: MDP
    thresholds: Floats
    queries: dict[str, Callable[[int], str]]
    complement: tuple[str, ...] = ()  # queries whose answer is one minus the probability

    def solve(self) -> rdo.Solution:
        return rdo.value_iteration(self.mdp, rdo.Threshold(), stock=-self.thresholds)

    def curve(self) -> Floats:
        solution, start = self.solve(), int(self.mdp.initial)
        return np.array([solution.objective_value(start, -x) for x in self.thresholds])


def cliff() -> Problem:
    mdp = MDP.from_gymnasium("CliffWalking-v1", is_slippery=True, gamma=1.0)
    table = {s: {} for s in range(mdp.n_states)}
    for s, j in pairs(mdp):
        outcomes = range(mdp.outcome_ptr[j], mdp.outcome_ptr[j + 1])
        table[s][int(mdp.pair_action[j])] = [
            (float(mdp.prob[k]), int(mdp.next_state[k]), -1.0, bool(mdp.terminated[k])) for k in outcomes
        ]
    steps = MDP.from_outcomes(table, gamma=1.0, initial=int(mdp.initial))
    return Problem(steps, -np.arange(501.0), {"steps at most x": lambda x: f'Pmax=? [F{{"r"}}<={-x} "end"]'})


def garnet() -> Problem:
    mdp = MDP.garnet(1000, 4, 5, seed=0)
    rewards = np.random.default_rng(1).integers(1, 4, len(mdp.pair_action))
    table = {s: {} for s in range(mdp.n_states)}
    for s, j in pairs(mdp):
        outcomes, r = range(mdp.outcome_ptr[j], mdp.outcome_ptr[j + 1]), float(rewards[j])
        going_on = [((1 - ENDS) * float(mdp.prob[k]), int(mdp.next_state[k]), r, False) for k in outcomes]
        table[s][int(mdp.pair_action[j])] = [*going_on, (ENDS, s, r, True)]
    queries = {
        "earned at least x": lambda x: f'Pmax=? [F{{"r"}}>={x} true]',
        "ended with less than x": lambda x: f'Pmin=? [F{{"r"}}<={x - 1} "end"]',
    }
    return Problem(MDP.from_outcomes(table, gamma=1.0), np.arange(201.0), queries, ("ended with less than x",))


def pairs(mdp: MDP) -> list[tuple[int, int]]:
    return [(s, j) for s in range(mdp.n_states) for j in range(mdp.pair_ptr[s], mdp.pair_ptr[s + 1])]


def storm_model(mdp: MDP) -> Any:
    """The same MDP for Storm: ended returns go to a state "end"; rewards, without sign, belong to choices."""
    end, row, rewards = mdp.n_states, 0, []
    builder = datastructures.SparseMatrixBuilder[float](force_dimensions=False, has_custom_row_grouping=True)
    for s in range(mdp.n_states + 1):
        builder.new_row_group(row)
        choices = range(mdp.pair_ptr[s], mdp.pair_ptr[s + 1]) if s < end else []
        for j in choices:
            outcomes = slice(mdp.outcome_ptr[j], mdp.outcome_ptr[j + 1])
            target = np.where(mdp.terminated[outcomes], end, mdp.next_state[outcomes])
            mass = np.bincount(target, weights=mdp.prob[outcomes])
            for t in np.flatnonzero(mass):
                builder.add_next_value(row, int(t), float(mass[t]))
            rewards.append(float(abs(mdp.reward[outcomes][0])))
            row += 1
        if not choices:
            builder.add_next_value(row, s, 1.0)
            rewards.append(0.0)
            row += 1
    labels = models.StateLabeling(end + 1)
    for label, state in (("init", int(mdp.initial)), ("end", end)):
        labels.add_label(label)
        labels.add_label_to_state(label, state)
    return models.SparseMdp[float](
        models.SparseModelComponents[float](
            transition_matrix=builder.build(),
            state_labeling=labels,
            reward_models={"r": models.SparseRewardModel[float](optional_state_action_reward_vector=rewards)},
        )
    )


def ask(model: Any, formula: Any) -> float:
    answer = stormpy.model_checking(model, formula, only_initial_states=True)
    return float(answer.get_value(model.initial_states[0]))


def compare(problem: Problem, model: Any) -> float:
    """Largest difference of the curve from Storm's answers, all queries, at five thresholds."""
    curve, worst = problem.curve(), 0.0
    for i in np.linspace(1, len(curve) - 1, 5).astype(int):
        for name, query in problem.queries.items():
            answer = ask(model, stormpy.parse_properties(query(int(problem.thresholds[i])))[0])
            answer = 1 - answer if name in problem.complement else answer
            worst = max(worst, abs(answer - float(curve[i])))
    assert worst <= 1e-9, worst
    return worst


def kernel_alone(problem: Problem) -> Callable[[], object]:
    """The call of `recurse_stocks` that solving the problem makes, repeated on the same arrays."""
    calls: list[tuple[Any, ...]] = []
    original = _kernels.recurse_stocks
    _kernels.recurse_stocks = lambda *arrays: (calls.append(arrays), original(*arrays))[1]
    try:
        problem.solve()
    finally:
        _kernels.recurse_stocks = original
    assert len(calls) == 1
    return lambda: original(*calls[0])


def measure_one(problem: Problem, turns: int) -> dict[str, Any]:
    model = storm_model(problem.mdp)
    difference = compare(problem, model)
    assert isinstance(problem.solve().policy.table, MonotoneTable)
    contenders: dict[str, Callable[[], object]] = {
        "rdolib, whole curve": problem.solve,
        "kernel alone, whole curve": kernel_alone(problem),
    }
    last = int(problem.thresholds[-1])
    for name, query in problem.queries.items():
        formula = stormpy.parse_properties(query(last))[0]
        contenders[f"storm, one query: {name}"] = lambda formula=formula: ask(model, formula)
    times = interleave(contenders, turns)
    storm = min(t["median"] for name, t in times.items() if name.startswith("storm"))
    return {
        "states": problem.mdp.n_states,
        "thresholds": len(problem.thresholds),
        "largest_difference": difference,
        "seconds": times,
        "speed_ratio": {
            "whole curve": storm / times["rdolib, whole curve"]["median"],
            "kernel alone": storm / times["kernel alone, whole curve"]["median"],
        },
    }


def measure(turns: int = 31) -> dict[str, Any]:
    problems = {"CliffWalking": cliff(), "Garnet": garnet()}
    return {
        "hardware": hardware("stormpy", "gymnasium"),
        "problems": {name: measure_one(problem, turns) for name, problem in problems.items()},
    }


def show(result: dict[str, Any]) -> None:
    print(f"{result['hardware']['cpu']}, {result['hardware']['threads']} threads")
    for name, one in result["problems"].items():
        print(f"\n{name}: {one['states']} states, {one['thresholds']} thresholds")
        print(f"values differ by at most {one['largest_difference']:.1e}")
        for contender, times in one["seconds"].items():
            print(f"{contender:44}{1e3 * times['median']:10.3f} ms, least {1e3 * times['least']:.3f}")
        print(", ".join(f"{kind}: {ratio:.1f} times faster" for kind, ratio in one["speed_ratio"].items()))


if __name__ == "__main__":
    started = time.perf_counter()
    outcome = measure()
    show(outcome)
    print(f"wrote {save('storm', outcome).name} after {time.perf_counter() - started:.0f} s")
