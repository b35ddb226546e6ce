"""Memory of an exact solution: two layers of values and one byte per state, stock and step.

``python benchmarks/memory.py`` solves P(stock + return >= 0) on a Garnet MDP (1000 states, 4 actions, 5 outcomes,
integer rewards -3 to 3, gamma = 1) for several horizons and 601 initial stocks, each in a fresh process. Counted are
the arrays that numpy and Python hold at the worst moment (tracemalloc) and the growth of the process (peak resident
set), after a small problem has loaded the compiled code. Beside them stand what the value layers and the policy need,
and what one number per state, stock and action, a table of action values, would need for a single step.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
import tracemalloc
from typing import Any

import numpy as np
from common import hardware, save

import rdolib as rdo
from rdolib import _kernels

STATES, ACTIONS, OUTCOMES, REWARD = 1000, 4, 5, 3
HORIZONS = [10, 50, 200]
STOCKS = np.arange(-300.0, 301.0)


def solve(states: int, horizon: int) -> rdo.Solution:
    mdp = rdo.MDP.garnet(states, ACTIONS, OUTCOMES, seed=0)
    return rdo.value_iteration(mdp, rdo.Threshold(), stock=STOCKS, horizon=horizon)


def peak_bytes() -> int:
    """Largest resident set of this process so far (kilobytes on Linux, bytes on macOS)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def one(horizon: int, traced: bool) -> dict[str, int]:
    """In a process of its own: the peak over solving, traced or of the whole process."""
    solve(10, 2)
    before = peak_bytes()
    if traced:
        tracemalloc.start()
        solve(STATES, horizon)
        return {"arrays_at_peak": tracemalloc.get_traced_memory()[1]}
    solution = solve(STATES, horizon)
    grown = peak_bytes() - before
    window = solution.policy.table.windows[0][0]
    width = _kernels.row_width(window.count, REWARD + 1)
    return {
        "process_growth": grown,
        "stocks": window.count,
        "two_layers": 2 * (STATES + 1) * width * 8,
        "policy": window.policy.nbytes,
        "bytes_per_choice": window.policy.itemsize,
        "action_values_of_one_step": STATES * window.count * ACTIONS * 8,
    }


def in_fresh_process(horizon: int, traced: bool) -> dict[str, int]:
    command = [sys.executable, __file__, str(horizon), str(int(traced))]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure() -> dict[str, Any]:
    rows = {}
    for horizon in HORIZONS:
        row = in_fresh_process(horizon, False) | in_fresh_process(horizon, True)
        needed = row["two_layers"] + row["policy"]
        rows[str(horizon)] = row | {"needed": needed, "peak_over_needed": row["arrays_at_peak"] / needed}
    problem = {"states": STATES, "actions": ACTIONS, "outcomes": OUTCOMES, "initial_stocks": len(STOCKS)}
    return {"hardware": hardware(), "problem": problem, "horizons": rows}


def show(result: dict[str, Any]) -> None:
    print(f"{result['hardware']['cpu']}; megabytes\n")
    columns = ("two_layers", "policy", "needed", "arrays_at_peak", "process_growth", "action_values_of_one_step")
    print(f"{'horizon':>8}{'stocks':>8}" + "".join(f"{name.replace('_', ' '):>26}" for name in columns))
    for horizon, row in result["horizons"].items():
        print(f"{horizon:>8}{row['stocks']:>8}" + "".join(f"{row[name] / 1e6:26.1f}" for name in columns))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(one(int(sys.argv[1]), bool(int(sys.argv[2])))))
    else:
        started = time.perf_counter()
        outcome = measure()
        show(outcome)
        print(f"wrote {save('memory', outcome).name} after {time.perf_counter() - started:.0f} s")
