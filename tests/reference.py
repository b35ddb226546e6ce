"""Independent answers to problems that people really use, with certified errors.

Nothing here is shared with the library: transition tables are read straight from gymnasium, and each problem
is solved by the method that its own structure offers, in extended precision (`numpy.longdouble`) or in
fractions.

- `walk`: gamma = 1 and every reward but the last is at most -1, so that the stock only falls and the
  optimum is a recursion without a fixed point (slippery CliffWalking, rainy Taxi); below a floor the problem
  is risk neutral.
- `limited_walk`: the same with a number of steps.
- `lake`: the only reward is 1 at the goal, so that only the time of arrival matters (FrozenLake).
- `dry_lake`: nothing is random, so that only what can be reached matters (FrozenLake without slipping).
- `Discounted`: gamma = 1/k and integer rewards. Unit cells of the stock map to unit cells, which gives the
  value at every stock m / k**n, and certified slopes between them.

Run ``python -m tests.reference FILE`` to write every answer to a JSON file.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import cache
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from scipy.optimize import linprog
from scipy.sparse import coo_array, identity
from scipy.sparse.linalg import splu

Real = npt.NDArray[np.longdouble]
Table = Mapping[int, Mapping[int, Sequence[tuple[Any, int, Any, bool]]]]
LEVELS = (0.05, 0.1, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class Answer:
    """One certified number: the truth is within ``error`` of ``value``.

    ``objective`` is "mean", "threshold", "target" (minus the distance to zero) or "cvar". ``stock`` is the
    initial stock of the first three and ``level`` the level of the last; ``state`` None is the initial
    distribution.
    """

    problem: str
    objective: str
    state: int | None
    value: float
    error: float
    stock: float | None = None
    level: float | None = None
    horizon: int | None = None


@dataclass(frozen=True)
class Arrays:
    """A table as arrays (S, A, K): absent outcomes have probability zero, absent actions ``ok`` False."""

    prob: Real
    after: npt.NDArray[np.int64]
    reward: Real
    ended: npt.NDArray[np.bool_]
    ok: npt.NDArray[np.bool_]

    @property
    def n_states(self) -> int:
        """Number of states."""
        return int(self.prob.shape[0])

    def best(self, ahead: Real) -> Real:
        """Return max over actions of the mean over outcomes; ``ahead`` has shape (..., S, A, K)."""
        return np.asarray(np.where(self.ok, (self.prob * ahead).sum(-1), -np.inf).max(-1))


def arrays(table: Table) -> Arrays:
    """Return the table as arrays; probabilities become the nearest small fractions."""
    n, n_actions = len(table), 1 + max(a for rows in table.values() for a in rows)
    k = max(len(outcomes) for rows in table.values() for outcomes in rows.values())
    prob, reward = np.zeros((2, n, n_actions, k), np.longdouble)
    after = np.zeros((n, n_actions, k), np.int64)
    ended = np.zeros((n, n_actions, k), bool)
    ok = np.zeros((n, n_actions), bool)
    for s, rows in table.items():
        for a, outcomes in rows.items():
            ok[s, a] = True
            for i, (p, s2, r, done) in enumerate(outcomes):
                small = Fraction(p).limit_denominator(1000)
                prob[s, a, i] = np.longdouble(small.numerator) / small.denominator
                after[s, a, i], reward[s, a, i], ended[s, a, i] = int(s2), np.longdouble(float(r)), done
    return Arrays(prob, after, reward, ended, ok)


@cache
def gym_problem(name: str, options: tuple[tuple[str, Any], ...]) -> tuple[Arrays, npt.NDArray[np.float64]]:
    """Return a gymnasium toy-text table as arrays, and the initial distribution."""
    env = gymnasium.make(name, **dict(options)).unwrapped
    table, initial = env.P, env.initial_state_distrib  # type: ignore[attr-defined]
    return arrays(table), np.asarray(initial, float)


def best_mean(mdp: Arrays, gamma: float, sign: int = 1) -> tuple[Real, float]:
    """Return max (``sign`` 1) or min (-1) of E G for every state, and a bound of its error.

    Policy iteration with sparse factorisations, refined in extended precision. For gamma = 1 every reward of
    an outcome that goes on must be at most -1, and some policy must end from everywhere.
    """
    n = mdp.n_states
    reward = sign * mdp.reward
    goes = np.where(mdp.ended, 0, mdp.prob)
    choice = np.argmax(mdp.ok, axis=1)
    if gamma == 1:  # start from a policy that ends: step towards an outcome that ends, layer by layer
        layer = np.full(n, n)
        for depth in range(n):
            near = (np.where(mdp.ended, -1, layer[mdp.after]) < depth) & (mdp.prob > 0)
            hit = near.any(-1) & mdp.ok
            new = hit.any(-1) & (layer == n)
            choice[new], layer[new] = hit.argmax(-1)[new], depth
        assert (layer < n).all(), "some state cannot end"
    rows = np.arange(n)

    def look(v: Real) -> Real:
        return np.where(mdp.ok, (mdp.prob * reward + gamma * goes * v[mdp.after]).sum(-1), -np.inf)

    while True:
        move = coo_array(
            (
                goes[rows, choice].astype(float).ravel(),
                (np.repeat(rows, mdp.prob.shape[2]), mdp.after[rows, choice].ravel()),
            ),
            shape=(n, n),
        )
        lu = splu((identity(n) - gamma * move).tocsc())
        v = np.zeros(n, np.longdouble)
        for _ in range(8):
            v = v + lu.solve((look(v)[rows, choice] - v).astype(float))
        q = look(v)
        better = q.max(1) > q[rows, choice] + 1e-13 * (1 + abs(v))
        if not better.any():
            break
        choice = np.where(better, q.argmax(1), choice)
    residual = float(abs(q.max(1) - v).max())
    steps = 1 / (1 - gamma) if gamma < 1 else 1 + float(mdp.reward.max()) + float(-v.min())
    return sign * v, 2 * residual * steps + 1e-18 * float(abs(v).max())


# --------------------------------------------------------------------------------------------------
# gamma = 1, the stock only falls


def falling(mdp: Arrays, f: Callable[[Real], Real], floor: int, top: int, tail: Real, offset: float = 0.0) -> Real:
    """Return max E f(c + G) for the stocks c = floor + 1 + offset, ..., top + offset, shape (top - floor, S).

    ``tail`` (S,) is the optimal mean of G: at stocks up to ``floor + offset`` f(c + G) must be c + G for sure
    (``tail`` finite) or 0 for sure (``tail`` minus infinity). Rewards are integers, and outcomes that go on
    pay at most -1, so that every stock needs only lower ones.
    """
    reward = mdp.reward.astype(np.int64)
    low = floor + int(reward.min())
    stock = (np.arange(low, top + 1) + np.longdouble(offset))[:, None]
    value = np.where(np.isfinite(tail), stock + tail, np.longdouble(0))
    for c in range(floor + 1, top + 1):
        at = np.where(mdp.ended, 0, c + reward - low)
        ahead = np.where(mdp.ended, f(c + np.longdouble(offset) + mdp.reward), value[at, mdp.after])
        value[c - low] = mdp.best(ahead)
    return value[floor + 1 - low :]


def below(x: Real) -> Real:
    """Return min(x, 0)."""
    return np.minimum(x, np.longdouble(0))


def near(x: Real) -> Real:
    """Return minus the distance to zero."""
    return -abs(x)


def hit(x: Real) -> Real:
    """Return 1 where x >= 0, else 0."""
    return (x >= 0).astype(np.longdouble)


UTILITIES: dict[str, Callable[[Real], Real]] = {"threshold": hit, "target": near}


def walk(
    problem: str, mdp: Arrays, initial: Real, starts: Sequence[int | None], stocks: Sequence[float]
) -> Iterator[Answer]:
    """Answer everything about a problem with gamma = 1, no limit, whose stock only falls."""
    mean, slip = best_mean(mdp, 1.0)
    never = np.full(mdp.n_states, -np.inf, np.longdouble)
    # No return exceeds the largest reward, or -1 if that is negative: at lower stocks the sum is negative for
    # sure.
    floor = min(0, -int(mdp.reward.max()) - 1)

    def at(start: int | None, v: Real) -> np.longdouble:
        return np.longdouble((initial * v).sum() if start is None else v[start])

    for start in starts:
        for c0 in (0.0, 7.0):
            value = c0 + at(start, mean)
            yield Answer(problem, "mean", start, float(value), slip + 1e-15 * float(abs(value)), stock=c0)
    for name, f in UTILITIES.items():
        for c0 in stocks:
            whole = int(np.floor(c0))
            tail = never if name == "threshold" else mean
            if whole > floor:
                v = falling(mdp, f, floor, whole, tail, c0 - whole)[-1]
            else:
                v = np.zeros_like(mean) if name == "threshold" else c0 + mean
            for start in starts:
                value = at(start, v)
                error = (0 if name == "threshold" else slip) + 1e-15 * max(1.0, float(abs(value)))
                yield Answer(problem, name, start, float(value), error, stock=c0)
    top = 256
    while True:
        # b = -c. A b under the best value found cannot win, since the bracket is at most b.
        v = falling(mdp, below, floor, top, mean)
        stock = np.arange(floor + 1, top + 1, dtype=np.longdouble)
        found = {
            (start, level): max(
                np.longdouble(-c + at(start, row) / np.longdouble(level)) for c, row in zip(stock, v, strict=True)
            )
            for start in starts
            for level in LEVELS
        }
        if min(found.values()) > -top:
            break
        top *= 2
    for (start, level), best in found.items():
        # At and below the floor the bracket is the mean plus b (1 - 1/level), largest at the floor.
        edge = -floor + (floor + at(start, mean)) / np.longdouble(level)
        value = max(best, edge)
        error = (slip + 1e-15 * float(abs(value))) / level
        yield Answer(problem, "cvar", start, float(value), error, level=level)


def limited_walk(problem: str, mdp: Arrays, start: int, horizon: int, stocks: Sequence[int]) -> Iterator[Answer]:
    """Answer everything about a problem with gamma = 1, a horizon, and negative integer rewards."""
    reward = mdp.reward.astype(np.int64)
    assert (reward[mdp.prob > 0] < 0).all()
    low, top = int(reward.min()), 224
    grid = np.arange(low, top + 1, dtype=np.longdouble)[:, None]
    at = np.arange(top)[:, None, None, None] + 1 + reward - low  # where stocks 1..top lead

    def solve(f: Callable[[Real], Real], below_zero: bool) -> tuple[Real, Real]:
        """Return the value at stocks 1..top from the start, and the mean."""
        mean = np.zeros(mdp.n_states, np.longdouble)
        value = np.broadcast_to(f(grid), (len(grid), mdp.n_states))
        for _ in range(horizon):
            mean = mdp.best(mdp.reward + np.where(mdp.ended, 0, mean[mdp.after]))
            # Whoever holds nothing and goes on ends below zero: the utility is linear there, or zero.
            value, old = np.where(below_zero, grid + mean, np.longdouble(0)), value
            value[1 - low :] = mdp.best(np.where(mdp.ended, f(grid[at, 0]), old[at, mdp.after]))
        return value[1 - low :, start], mean[start]

    for name, f in UTILITIES.items():
        v, _ = solve(f, name != "threshold")
        for c0 in stocks:
            value = float(v[c0 - 1])
            yield Answer(problem, name, start, value, 1e-15 * max(1, abs(value)), stock=c0, horizon=horizon)
    v, m = solve(below, True)
    yield Answer(problem, "mean", start, float(m), 1e-15 * float(abs(m)), stock=0.0, horizon=horizon)
    for level in LEVELS:
        value = float((-np.arange(1, top + 1) + v / np.longdouble(level)).max())
        value = max(value, float(m) / level)  # b = 0; larger b cannot be returns
        assert value > -top, "a smaller b may be better"
        yield Answer(problem, "cvar", start, value, 1e-14 * abs(value), level=level, horizon=horizon)


# --------------------------------------------------------------------------------------------------
# one reward, at the goal


def lake(problem: str, mdp: Arrays, gamma: Fraction, stocks: Sequence[Fraction | float]) -> Iterator[Answer]:
    """Answer everything about a problem whose only reward is 1, on arrival at a goal, with gamma < 1.

    The return is gamma**t after arriving in step t + 1, and 0 otherwise. So the objective is f(c0) plus a
    bonus f(c0 + gamma**t) - f(c0) on arrival. From some t on the bonus is a multiple of gamma**t, and then
    the best is the largest (or the smallest) mean.
    """
    g = np.longdouble(gamma.numerator) / gamma.denominator
    most, slip = best_mean(mdp, float(gamma))
    least, slip2 = best_mean(mdp, float(gamma), -1)
    slip = max(slip, slip2)
    goal = mdp.ended & (mdp.reward == 1)
    assert (goal == (mdp.reward != 0)).all()

    def arrive(bonus: Real, rest: Real) -> Real:
        """Return (B, S) from the bonuses (T, B) and what remains after T steps (B, S)."""
        value = rest
        for row in bonus[::-1]:
            ahead = np.where(goal, row[:, None, None, None], np.where(mdp.ended, 0, value[:, mdp.after]))
            value = mdp.best(ahead)
        return value

    def powers(n: int) -> Real:
        return np.concatenate([[np.longdouble(1)], np.cumprod(np.full(n - 1, g))])

    everywhere = range(mdp.n_states)
    for s in everywhere:
        yield Answer(problem, "mean", s, float(most[s]), slip, stock=0.0)
    for c0 in stocks:
        c = np.longdouble(float(c0))
        # The first t at which gamma**t <= -c0; exactly so for a fraction, never equal for a generic float.
        n = 0
        while c0 < 0 and (gamma**n > -c0 if isinstance(c0, Fraction) else float(gamma**n) > -c0):
            n += 1
        for name in UTILITIES:
            if name == "threshold":
                if c0 >= 0:
                    v = np.ones(mdp.n_states, np.longdouble)
                else:
                    reached = n + 1 if isinstance(c0, Fraction) and gamma**n == -c0 else n
                    v = arrive(np.ones((reached, 1), np.longdouble), np.zeros((1, mdp.n_states), np.longdouble))[0]
            else:
                bonus = near(c + powers(n + 1)[:n]) + abs(c)
                rest = g**n * (most if c0 < 0 else -least)
                v = -abs(c) + arrive(bonus[:, None], rest[None])[0]
            for s in everywhere:
                error = slip + 1e-15 * max(1.0, abs(float(c0)))
                yield Answer(problem, name, s, float(v[s]), error, stock=float(c0))
    # CVaR: b is 0 (worth 0) or gamma**j. For it the bonus is b on arrival at t <= j, and gamma**t later.
    n = 600
    b = powers(n)
    bonus = np.minimum(b[:, None], b[None, :])
    gain = arrive(bonus, g**n * np.broadcast_to(most, (n, mdp.n_states)))
    ever = chance_to_arrive(mdp, goal)
    for level in LEVELS:
        tau = np.longdouble(level)
        bracket = b[:, None] * (1 - 1 / tau) + gain / tau
        for s in everywhere:
            value = max(float(bracket[:, s].max()), 0.0)
            # A b beyond the list is worth at most b; with chance <= 1 - tau to arrive it is worth at most 0.
            assert value > b[-1] or ever[s] < 1 - level - 1e-6 or ever[s] < 1e-9
            yield Answer(problem, "cvar", s, value, (slip + 1e-15) / level, level=level)


def chance_to_arrive(mdp: Arrays, goal: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return the largest probability of ever arriving at a goal, by linear programming."""
    n, n_actions = mdp.ok.shape
    rows, right = [], []
    for s in range(n):
        for a in range(n_actions):
            row = np.zeros(n)
            np.add.at(row, mdp.after[s, a], np.where(mdp.ended[s, a], 0, mdp.prob[s, a]).astype(float))
            row[s] -= 1
            rows.append(row)
            right.append(-float(mdp.prob[s, a][goal[s, a]].sum()))
    result = linprog(np.ones(n), A_ub=np.array(rows), b_ub=np.array(right), bounds=(0, 1))
    return np.asarray(result.x)


def dry_lake(problem: str, mdp: Arrays, stocks: Sequence[float]) -> Iterator[Answer]:
    """Answer everything about a problem without chance, gamma = 1, whose only reward is 1 at the goal.

    A state can have the return 1 if the goal can be reached, and the return 0 if one can end, or walk for
    ever, without it.
    """
    n = mdp.n_states
    one = np.zeros(n, bool)
    zero = np.ones(n, bool)
    after, ended, goal = mdp.after[..., 0], mdp.ended[..., 0], mdp.reward[..., 0] == 1
    for _ in range(n):
        one = (goal | (~ended & one[after])).any(1)
        zero = (~goal & (ended | zero[after])).any(1)
    for s in range(n):
        returns = [x for x, there in ((0.0, zero[s]), (1.0, one[s])) if there]
        yield Answer(problem, "mean", s, max(returns), 0.0, stock=0.0)
        for c0 in stocks:
            yield Answer(problem, "threshold", s, float(max(c0 + x >= 0 for x in returns)), 0.0, stock=c0)
            yield Answer(problem, "target", s, max(-abs(c0 + x) for x in returns), 0.0, stock=c0)
        for level in LEVELS:
            yield Answer(problem, "cvar", s, max(returns), 0.0, level=level)


# --------------------------------------------------------------------------------------------------
# gamma = 1/k, integer rewards


def random_table(seed: int, n_states: int, *, ends: bool) -> dict[int, dict[int, list[tuple[Any, int, Any, bool]]]]:
    """Return a small table with integer rewards -2..2 and probabilities in sixths, sevenths or eighths."""
    rng = random.Random(seed)
    table: dict[int, dict[int, list[tuple[Any, int, Any, bool]]]] = {}
    for s in range(n_states):
        table[s] = {}
        for a in range(rng.choice((2, 3))):
            cuts = sorted(rng.sample(range(1, 6), 2))
            total = rng.choice((6, 7, 8))
            weights = (cuts[0], cuts[1] - cuts[0], total - cuts[1])
            table[s][a] = [
                (
                    Fraction(w, total),
                    rng.randrange(n_states),
                    rng.randint(-2, 2),
                    ends and rng.random() < 0.25,
                )
                for w in weights
            ]
    return table


def float_table(table: Table) -> dict[int, dict[int, list[tuple[float, int, float, bool]]]]:
    """Return the table in floating point."""
    return {
        s: {a: [(float(p), s2, float(r), done) for p, s2, r, done in outcomes] for a, outcomes in rows.items()}
        for s, rows in table.items()
    }


@dataclass(frozen=True)
class Cells:
    """Cells [m, m + 1] / k**n of the stock: values at the ends, bounds of the slope inside, all (B, S)."""

    left: Real
    right: Real
    slow: Real
    fast: Real


class Discounted:
    """A problem with gamma = 1/k and integer rewards, solved on the integers and zoomed into between them."""

    def __init__(self, table: Table, k: int) -> None:
        self.mdp, self.k = arrays(table), k
        self.gamma = 1 / np.longdouble(k)
        self.most, self.least = self._bound(1), self._bound(-1)
        self.mean = self._fixed_point(lambda v: self.mdp.best(self._next(v)))
        # Beyond this stock the sign of c + G is known, and the stock never comes back.
        self.edge = int(np.ceil(float(abs(self.mdp.reward).max()) * k / (k - 1))) + 1
        self.base = self._lattice(below, self.mean, 0 * self.mean, 1)

    def _next(self, v: Real) -> Real:
        return self.mdp.reward + self.gamma * np.where(self.mdp.ended, 0, v[self.mdp.after])

    def _fixed_point(self, step: Callable[[Real], Real]) -> Real:
        # One step halves the error, so that 100 steps leave nothing but rounding.
        v = np.zeros(self.mdp.n_states, np.longdouble)
        for _ in range(100):
            v = step(v)
        return v

    def _bound(self, sign: int) -> Real:
        """Return the largest (or smallest) return of any policy and any luck."""
        possible = self.mdp.prob > 0

        def step(v: Real) -> Real:
            x = np.where(possible, sign * self._next(sign * v), -np.inf)
            return np.asarray(x.max(axis=(1, 2)))

        return sign * self._fixed_point(step)

    def _lattice(self, f: Callable[[Real], Real], low: Real, high: Real, mesh: int) -> Real:
        """Return max E f(c + G) for an f of degree 1 at c = -edge..edge in steps of 1/mesh: (S, C).

        Past the lower and the upper edge the value is f(c) + low and f(c) + high.
        """
        size = self.edge * mesh
        grid = np.arange(-size, size + 1) / np.longdouble(mesh)
        after = self.k * (grid[:, None, None, None] + self.mdp.reward)
        at = np.clip(np.rint(after * mesh).astype(np.int64) + size, 0, 2 * size)
        out = f(after) + np.where(after < 0, low[self.mdp.after], high[self.mdp.after])
        inside = abs(after) <= self.edge
        v = np.broadcast_to(f(grid)[:, None], (2 * size + 1, self.mdp.n_states))
        for _ in range(100):
            v = self.gamma * self.mdp.best(
                np.where(self.mdp.ended, f(after), np.where(inside, v[at, self.mdp.after], out))
            )
        return v.T

    def target(self, stock: Fraction) -> Real:
        """Return max -E|c0 + G| for every state."""
        least = -self._fixed_point(lambda v: self.mdp.best(-self._next(-v)))
        table = self._lattice(near, self.mean, -least, stock.denominator)
        return table[:, self.edge * stock.denominator + stock.numerator]

    def threshold(self, stock: Fraction) -> tuple[Real, Real]:
        """Return bounds of max P(c0 + G >= 0) for every state.

        c + G >= 0 means that the stock never falls under -edge and is not negative at an end: a safety game
        of chance. The upper bound iterates down from 1. The lower bound is the probability of reaching the
        pairs from which one can be safe for sure, iterated up from 0.
        """
        mesh = stock.denominator
        size = self.edge * mesh
        grid = np.arange(-size, size + 1) / np.longdouble(mesh)
        after = self.k * (grid[:, None, None, None] + self.mdp.reward)
        at = np.clip(np.rint(after * mesh).astype(np.int64) + size, 0, 2 * size)
        known = self.mdp.ended | (abs(after) > self.edge)
        settled = hit(after)
        possible = self.mdp.prob > 0

        def step(v: Real) -> Real:
            return self.mdp.best(np.where(known, settled, v[at, self.mdp.after]))

        sure = np.ones((2 * size + 1, self.mdp.n_states), bool)
        for _ in range(sure.size):
            good = np.where(known, settled == 1, sure[at, self.mdp.after]) | ~possible
            new = (good.all(-1) & self.mdp.ok).any(-1)
            if (new == sure).all():
                break
            sure = new
        low, high = sure.astype(np.longdouble), np.ones(sure.shape, np.longdouble)
        for _ in range(3000):
            low, high = np.maximum(step(low), sure), step(high)
            if (high - low).max() < 1e-18:
                break
        at0 = size + stock.numerator
        return low[at0], high[at0]

    def cells(self, m: npt.NDArray[np.int64], n: int) -> Cells:
        """Return the value of f = min(x, 0) on the cells [m, m + 1] / k**n, m of shape (B,).

        A step maps a cell of width k**-n to one of width k**-(n-1), and the slope at c is the mean of the
        slopes where the step leads. So values and bounds of slopes are carried down from the unit cells.
        """
        k, edge = self.k, self.edge
        unit = np.arange(-edge, edge)
        # The slope is P(c + G < 0): 0 or 1 where the sign is known. Bounds of returns have small
        # denominators.
        zero = unit >= -self.least[:, None] - 1e-12
        one = unit + 1 <= -self.most[:, None] + 1e-12
        batch = (len(m), self.mdp.n_states, len(unit))
        # Each array: (B, S, cells), one cell per integer translate of the cell looked at.
        left = np.broadcast_to(self.base[:, :-1], batch)
        right = np.broadcast_to(self.base[:, 1:], batch)
        slow = np.broadcast_to(one.astype(np.longdouble), batch)
        fast = np.broadcast_to(1 - zero.astype(np.longdouble), batch)
        mdp, reward = self.mdp, self.mdp.reward.astype(np.int64)
        here = np.arange(len(m))[:, None, None, None, None]
        for j in range(1, n + 1):
            # The cell at level j is [u, u + 1] / k**j plus an integer i; it goes to i' + [u', u' + 1] / k**(j
            # - 1).
            digit = (m % k**j) // k ** (j - 1)
            u = (m % k ** (j - 1)).astype(np.longdouble) / np.longdouble(k) ** (j - 1)
            width = 1 / np.longdouble(k) ** (j - 1)
            to = k * (unit[:, None, None, None] + reward) + digit[:, None, None, None, None]  # (B, I, S, A, K)
            c = to + u[:, None, None, None, None]
            inside = (to >= -edge) & (to < edge) & ~mdp.ended
            at = np.clip(to + edge, 0, 2 * edge - 1)
            s2 = mdp.after
            rest = np.where(mdp.ended, 0, self.mean[s2])
            negative = to < 0  # the whole cell is
            ql = np.where(inside, left[here, s2, at], np.where(negative, c + rest, 0))
            qr = np.where(inside, right[here, s2, at], np.where(negative, c + width + rest, 0))
            lo = np.where(inside, slow[here, s2, at], negative)
            hi = np.where(inside, fast[here, s2, at], negative)
            ql, qr = ((mdp.prob * x).sum(-1) / k for x in (ql, qr))  # (B, I, S, A)
            lo, hi = ((mdp.prob * x).sum(-1) for x in (lo, hi))
            ql, qr = (np.where(mdp.ok, x, -np.inf) for x in (ql, qr))
            # An action counts unless it is beaten on the whole cell by the best action of one of its ends.
            w = width / k
            best = [np.take_along_axis(x, q.argmax(-1)[..., None], -1) for x, q in ((lo, ql), (hi, qr))]
            out = (ql.max(-1, keepdims=True) - ql) > np.maximum(hi - best[0], 0) * w + 1e-17
            out |= (qr.max(-1, keepdims=True) - qr) > np.maximum(best[1] - lo, 0) * w + 1e-17
            left, right = (np.moveaxis(q.max(-1), 1, 2) for q in (ql, qr))
            slow = np.moveaxis(np.where(out, np.inf, lo).min(-1), 1, 2)
            fast = np.moveaxis(np.where(out, -np.inf, hi).max(-1), 1, 2)
        i = np.clip(m // k**n + edge, 0, 2 * edge - 1)
        rows = np.arange(len(m))
        return Cells(*(x[rows, :, i] for x in (left, right, slow, fast)))

    def cvar(self, state: int, level: float, width: float = 1e-12, depth: int = 45) -> tuple[float, float]:
        """Return certified bounds of the largest CVaR of G: every b is either tried or bounded.

        The bracket is g(c) = V(c) / level - c with b = -c. On a cell, V lies under both lines that start at
        its ends with the extreme slopes. Cells that cannot beat the best end found are dropped, the others
        split in k.
        """
        tau = np.longdouble(level)
        m = np.arange(-int(np.ceil(self.most[state] + 1e-9)), -int(np.floor(self.least[state] - 1e-9)))
        best = np.longdouble(-np.inf)
        top = np.array([np.inf])
        for n in range(depth):
            cell = self.cells(m, n)
            h = 1 / np.longdouble(self.k) ** n
            a, b = cell.left[:, state], cell.right[:, state]
            slow, fast = cell.slow[:, state], cell.fast[:, state]
            c = m * h
            best = max(best, (a / tau - c).max(), (b / tau - c - h).max())
            x = np.where(fast - slow > 1e-17, (b - slow * h - a) / np.where(fast > slow, fast - slow, 1), 0)
            x = np.clip(x, 0, h)
            top = np.stack(
                [np.minimum(a + fast * y, b - slow * (h - y)) / tau - c - y for y in (0 * x, x, 0 * x + h)]
            ).max(0)
            keep = top > best + width / 4
            if not keep.any():
                break
            m = (m[keep][:, None] * self.k + np.arange(self.k)).ravel()
        return float(best), float(max(best + width / 4, top.max()))


def discounted(problem: str, table: Table, k: int, stocks: Sequence[Fraction]) -> Iterator[Answer]:
    """Answer everything about a problem with gamma = 1/k and integer rewards, without a horizon."""
    solver = Discounted(table, k)
    for s in table:
        yield Answer(problem, "mean", s, float(solver.mean[s]), 1e-16, stock=0.0)
    for c0 in stocks:
        low, high = solver.threshold(c0)
        target = solver.target(c0)
        for s in table:
            middle, half = float((low[s] + high[s]) / 2), float(high[s] - low[s]) / 2 + 1e-16
            middle = 0.0 if high[s] < 1e-16 else middle
            yield Answer(problem, "threshold", s, middle, half, stock=float(c0))
            yield Answer(problem, "target", s, float(target[s]), 1e-16, stock=float(c0))
    for s in table:
        for level in LEVELS:
            below_, above = solver.cvar(s, level)
            yield Answer(problem, "cvar", s, (below_ + above) / 2, (above - below_) / 2 + 1e-15, level=level)


SMALL: dict[str, tuple[Table, int]] = {
    "half-ends": (random_table(1, 3, ends=True), 2),
    "half-endless": (random_table(2, 3, ends=False), 2),
    "third-ends": (random_table(3, 3, ends=True), 3),
    "third-endless": (random_table(4, 4, ends=False), 3),
}
SMALL_STOCKS = (*(Fraction(x) for x in (-2, -1, 0, 1)), Fraction(1, 2), Fraction(-3, 5))

GYM: dict[str, tuple[str, tuple[tuple[str, Any], ...], float]] = {
    "frozen-lake": ("FrozenLake-v1", (("map_name", "4x4"), ("is_slippery", True)), 0.95),
    "cliff": ("CliffWalking-v1", (("is_slippery", True),), 1.0),
    "taxi": ("Taxi-v4", (("is_rainy", True),), 1.0),
    "dry-lake": ("FrozenLake-v1", (("map_name", "4x4"), ("is_slippery", False)), 1.0),
}
TAXI_STARTS = (None, 1, 146, 328, 479)
PROBLEMS = (*GYM, "cliff-100", *SMALL)


@cache
def answers(problem: str) -> tuple[Answer, ...]:
    """Return every answer to one of `PROBLEMS`."""
    if problem in SMALL:
        return tuple(discounted(problem, *SMALL[problem], SMALL_STOCKS))
    name, options, _ = GYM[problem.removesuffix("-100")]
    mdp, initial = gym_problem(name, options)
    if problem == "frozen-lake":
        tie = -(Fraction(19, 20) ** 9)
        return tuple(lake(problem, mdp, Fraction(19, 20), (-1.5, -0.9, -0.6, -0.35, tie, -0.1, 0.0, 0.3)))
    if problem == "dry-lake":
        return tuple(dry_lake(problem, mdp, (-2.0, -1.0, -0.5, 0.0, 0.5)))
    if problem == "cliff":
        return tuple(walk(problem, mdp, initial.astype(np.longdouble), (36, 0, 24, 35), (20, 10.5, 60, 200, 0, -5)))
    if problem == "cliff-100":
        return tuple(limited_walk(problem, mdp, 36, 100, (20, 60, 100, 101, 200)))
    weights = initial.astype(np.longdouble)
    return tuple(walk(problem, mdp, weights / weights.sum(), TAXI_STARTS, (0, -8, 5, 10.5, 30, -19, -21)))


if __name__ == "__main__":
    with open(sys.argv[1], "w", encoding="utf-8") as file:
        json.dump([asdict(answer) for problem in PROBLEMS for answer in answers(problem)], file, indent=1)
