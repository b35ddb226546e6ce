"""Small problems on which a plausible method goes wrong, and small problems on which a bound is tight.

Every function returns an `Example`: the MDP, the objective, what the careless method returns (`naive`) and what is
best (`optimum`), each derived by hand in the docstring or the note. `recursion` is the careless method itself:
distributional value iteration with the objective applied at every augmented state, whether or not the objective has
the properties that this needs. `rdo.value_iteration` refuses where it would go wrong.

The counterexamples to continuity (`late_gain`, `lexicographic_trap`, `tie_trap`), the forks, and the problems on which
a bound is tight are derived in the book. That one policy for all times can lose (`clock`) and that return
distributions need not settle (`flickering`) is known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rdolib.distributions import Distribution, mixture
from rdolib.mdp import MDP
from rdolib.objectives import ExpectedUtility, Lexicographic, Mean, Objective, Shortfall, Threshold
from rdolib.risk import (
    CVaR,
    Expectile,
    MeanCVaR,
    MeanVariance,
    Median,
    OptimisticCVaR,
    Quantile,
    Sharpe,
    Variance,
)

#: A law: a `Distribution`, a dictionary from atoms to probabilities, or one sure number.
Law = Distribution | Mapping[float, float] | float

_JUST_ABOVE = 1e-12  # rounding that may not turn 0 into a success


@dataclass(frozen=True)
class Example:
    """A problem with the value that a careless method returns and the best value.

    Attributes
    ----------
    mdp : MDP
    objective : Objective
    naive : float or tuple
        What the careless method that the note names gives at ``mdp.initial`` with the initial stock.
    optimum : float or tuple
        The best value there.
    horizon : int or None
        The horizon of the problem; None is none.
    stock : float
        The initial stock.
    note : str
        Where the numbers come from.
    """

    mdp: MDP
    objective: Objective
    naive: Any
    optimum: Any
    horizon: int | None = None
    stock: float = 0.0
    note: str = ""


def recursion(
    mdp: MDP, objective: Objective, stock: ArrayLike = 0.0, horizon: int = 1
) -> tuple[Any, Distribution, int | None]:
    """Distributional value iteration with the objective itself at every (state, stock, steps left), unchecked.

    Each step takes the action whose return law, shifted by the stock, the objective likes best; ties go to the lowest
    action. Every atom is kept, in plain Python: for small problems only. Where the objective is indifferent to
    mixtures (and to gamma) the result is the optimum; elsewhere it is what ``rdo.value_iteration`` refuses to return.

    Parameters
    ----------
    mdp : MDP
        With one initial state.
    objective : Objective
    stock : float or (m,) array
        The initial stock.
    horizon : int
        Number of steps.

    Returns
    -------
    value : float or tuple
        The objective's value of stock + G.
    law : Distribution
        The law of G that the recursion found.
    action : int or None
        The first action; None where there is nothing to do.

    Examples
    --------
    >>> from rdolib import examples
    >>> fork = examples.forks()["median"]
    >>> value, law, _ = examples.recursion(fork.mdp, fork.objective, horizon=2)
    >>> value, fork.optimum
    (1.0, 5.0)
    """
    nothing = Distribution(np.zeros((1, mdp.reward_dim)), [1.0])

    def value_of(held: tuple[float, ...], law: Distribution) -> Any:
        return objective(law + (held if mdp.reward_dim > 1 else held[0]))

    def law_of(state: int, action: int, held: tuple[float, ...], steps: int) -> Distribution:
        parts, weights = [], []
        for prob, after, reward, terminated in mdp.outcomes(state, action):
            stock_next = tuple((np.add(held, reward) / mdp.gamma).tolist())
            rest = nothing if terminated else best(after, stock_next, steps - 1)[0]
            parts.append(mdp.gamma * rest + reward)
            weights.append(prob)
        return mixture(parts, weights)

    @cache
    def best(state: int, held: tuple[float, ...], steps: int) -> tuple[Distribution, int | None]:
        chosen: tuple[Distribution, int | None] = (nothing, None)
        if steps == 0 or mdp.terminal[state]:
            return chosen
        for action in mdp.actions(state).tolist():
            law = law_of(state, action, held, steps)
            if chosen[1] is None or _exceeds(value_of(held, law), value_of(held, chosen[0])):
                chosen = (law, action)
        return chosen

    start = tuple(np.ravel(np.broadcast_to(np.asarray(stock, dtype=np.float64), mdp.reward_dim)).tolist())
    law, action = best(int(mdp.initial), start, horizon)
    return value_of(start, law), law, action


def fork(p: float, a: Law, b: Law, rest: Law | None = None, gamma: float = 1.0) -> MDP:
    """Two steps: with probability `p` to a state with two actions, which pay `a` or `b`; else to one that pays `rest`.

    The smallest problem in which a choice is judged once on its own and once as part of a mixture. States: 0 start,
    1 choice (action 0 pays `a`, action 1 pays `b`), 2 rest, 3 end. Without `rest`, `p` must be 1; then 2 is the end.

    Parameters
    ----------
    p : float
        Probability of the choice.
    a, b, rest : Distribution, dict or float
        Laws of the rewards: a dictionary from atoms to probabilities, or one sure number.
    gamma : float
        The discount.

    Examples
    --------
    >>> from rdolib import examples
    >>> examples.fork(0.5, 1, {0: 0.5, 4: 0.5}, 10).outcomes(1, 1)
    [(0.5, 3, 0.0, True), (0.5, 3, 4.0, True)]
    """
    if rest is None:
        return _branches([p], [[a, b]], gamma)
    return _branches([p, 1 - p], [[a, b], [rest]], gamma)


def necessity(family: Sequence[tuple[float, Law, Law]], gamma: float = 1.0) -> MDP:
    """The two-step problem that turns a violation of indifference to mixtures into a failure of value iteration.

    The start leads to branch i with probability p_i and reward 0. There action 0 pays a reward with law nu_i and
    action 1 one with law mu_i, and the return ends. If K(nu_i) >= K(mu_i) for all i, value iteration on K takes
    action 0 everywhere (ties included), and the start gets K(gamma sum p_i nu_i). Where that is less than K(gamma sum
    p_i mu_i), action 1 everywhere is better. In substance by Ávila Pires et al. (2025).

    Parameters
    ----------
    family : sequence of (p_i, nu_i, mu_i)
        Weights that sum to one, and two laws for each, given as in `fork`.
    gamma : float
        The discount.

    Examples
    --------
    >>> import rdolib as rdo
    >>> from rdolib import examples
    >>> mdp = examples.necessity([(0.5, 1, {0: 0.5, 4: 0.5}), (0.5, 10, 10)])
    >>> examples.recursion(mdp, rdo.CVaR(0.5), horizon=2)[0]  # action 1 would give (0 + 4) / 2
    1.0
    """
    return _branches([p for p, _, _ in family], [[nu, mu] for _, nu, mu in family], gamma)


def forks() -> dict[str, Example]:
    """One fork for each objective that value iteration cannot be run on directly: name to `Example`.

    In each of them `recursion`, with horizon 2 and the objective itself, takes the action that looks better on its
    own, and ends with `naive` instead of `optimum`. The numbers are derived in the notes; {x, y} is a fair coin. The
    last one is an expected utility that is not indifferent to gamma: time belongs into its state.

    Examples
    --------
    >>> from rdolib import examples
    >>> for name, one in examples.forks().items():
    ...     print(f"{name}: {one.naive:.6g} instead of {one.optimum:.6g}")
    median: 1 instead of 5
    quantile: 1 instead of 5
    variance: -25 instead of -18.75
    mean-variance: -14.75 instead of -12
    sharpe: 6.28619 instead of 12.4728
    cvar: 1 instead of 2
    optimistic: 4 instead of 5
    mean-cvar: 3 instead of 3.75
    expectile: 2.8 instead of 3.0625
    exponential: -0.5 instead of -0.375
    """
    return {
        "median": Example(
            fork(3 / 5, 1, {0: 2 / 3, 6: 1 / 3}, 5),
            Median(),
            naive=1.0,
            optimum=5.0,
            horizon=2,
            note="Alone A has median 1, B 0. Mixed, A is 1 w.p. 3/5: median 1. B is 0 w.p. 2/5, 5 w.p. 2/5, 6 w.p. "
            "1/5: median 5.",
        ),
        "quantile": Example(
            fork(1 / 3, 1, _coin(0, 5), _coin(5, 6)),
            Quantile(0.25),
            naive=1.0,
            optimum=5.0,
            horizon=2,
            note="Alone A has 1/4-quantile 1, B 0. Mixed, A is 1 w.p. 1/3: 1. B is 0 w.p. 1/6 only, then 5: 5.",
        ),
        "variance": Example(
            fork(1 / 2, 0, _coin(0, 10), 10),
            Variance(),
            naive=-25.0,
            optimum=-75 / 4,
            horizon=2,
            note="Alone A has variance 0, B 25. Mixed, A is {0, 10}: 25. B is 0 w.p. 1/4, else 10: 100 * 3/16 = 75/4.",
        ),
        "mean-variance": Example(
            fork(1 / 2, 1, _coin(0, 4), 10),
            MeanVariance(1.0),
            naive=-59 / 4,
            optimum=-12.0,
            horizon=2,
            note="Alone A is worth 1, B 2 - 4. Mixed, A is {1, 10}: 11/2 - 81/4 = -59/4. B is 0 or 4 w.p. 1/4 each, "
            "else 10: mean 6, mean square 54, variance 18: -12.",
        ),
        "sharpe": Example(
            fork(1 / 4, _coin(5, 6), _coin(4, 5), 4),
            Sharpe(),
            naive=35 / math.sqrt(31),
            optimum=33 / math.sqrt(7),
            horizon=2,
            note="Alone the deviation is 1/2 both times, and A has the larger mean. Mixed, A is 5 or 6 w.p. 1/8 each, "
            "else 4: mean 35/8, variance 31/64. B is 5 w.p. 1/8, else 4: mean 33/8, variance 7/64. The best plan takes "
            "the action that is worse for certain.",
        ),
        "cvar": Example(
            fork(1 / 2, 1, _coin(0, 4), 10),
            CVaR(0.5),
            naive=1.0,
            optimum=2.0,
            horizon=2,
            note="Alone the worst half of A is 1, of B 0. Mixed, the worst half is A itself: 1, or B itself: 2.",
        ),
        "optimistic": Example(
            fork(1 / 2, _coin(1, 6), 5, _coin(0, 2)),
            OptimisticCVaR(0.5),
            naive=4.0,
            optimum=5.0,
            horizon=2,
            note="Alone the best half of A is 6, of B 5. Mixed, the best half with A is {6, 2}: 4; with B it is 5.",
        ),
        "mean-cvar": Example(
            fork(1 / 2, 2, _coin(0, 6), 6),
            MeanCVaR(0.5, 0.5),
            naive=3.0,
            optimum=15 / 4,
            horizon=2,
            note="Alone A is worth 2, B (3 + 0) / 2. Mixed, A is {2, 6}: (4 + 2) / 2. B is 0 w.p. 1/4, else 6: "
            "(9/2 + 3) / 2.",
        ),
        "expectile": Example(
            fork(3 / 4, 4, _coin(3, 6), _coin(0, 4)),
            Expectile(0.25),
            naive=14 / 5,
            optimum=49 / 16,
            horizon=2,
            note="Alone A is 4; B solves (6 - e) = 3 (e - 3), e = 15/4. Mixed, A is 4 w.p. 7/8, else 0: 7/8 (4 - e) = "
            "3/8 e, e = 14/5. B is 3 or 6 w.p. 3/8 each, 0 or 4 w.p. 1/8 each: 3 (6 - e) + (4 - e) = 9 (e - 3) + 3 e, "
            "e = 49/16.",
        ),
        "exponential": Example(
            fork(1, 2, {0: 1 / 3, 8: 2 / 3}, gamma=0.5),
            ExpectedUtility(_minus_half_to_the),
            naive=-1 / 2,
            optimum=-3 / 8,
            horizon=2,
            note="f(x) = -2**-x, gamma = 1/2. Alone A is worth -1/4, B -(1/3 + 2/3 / 256). From the start returns are "
            "halved: A is 1, worth -1/2; B is 0 or 4, worth -(1/3 + 2/3 / 16) = -3/8.",
        ),
    }


def late_gain() -> Example:
    """A probability that value iteration from zero never finds, although the horizon is endless: gamma = 1/2.

    From the stock -2 the aim is P(stock + G >= 0). Action 0 pays 1 now and for ever: G = 1 + 1/2 + 1/4 + ... = 2, just
    enough, so it is worth 1. Action 1 stops with 4 or 0, a fair coin: worth 1/2. After any number n of sweeps from
    zero, action 0 seems to pay 2 - 2 * 2**-n < 2: worth 0, so value iteration returns action 1 and the value 1/2 for
    every n. The indicator is not continuous. From above, with every law at the largest possible return, it is right
    at once.

    Examples
    --------
    >>> from rdolib import examples
    >>> trap = examples.late_gain()
    >>> [examples.recursion(trap.mdp, trap.objective, trap.stock, n)[0] for n in (1, 10, 20)], trap.optimum
    ([0.5, 0.5, 0.5], 1.0)
    """
    table = {0: {0: [(1.0, 1, 1.0, False)], 1: _pays(_coin(4, 0), 2)}, 1: {0: [(1.0, 1, 1.0, False)]}}
    note = "naive: value iteration from zero, after any number of sweeps"
    return Example(MDP.from_outcomes(table, gamma=0.5), Threshold(), 0.5, 1.0, stock=-2.0, note=note)


def lexicographic_trap() -> Example:
    """Lexicographic (E min(X, 0), E X) without a horizon: an endless return cut anywhere ranks wrongly, gamma = 1/2.

    Action 0 stops with 0: (0, 0). Action 1 pays -1 and then 1 for ever, G = -1 + (1 + 1/2 + ...)/2 = 0, or stops with
    10, a fair coin: (0, 5), the better one. After n sweeps its first branch is -1 + (2 - 2 * 2**-(n-1))/2 =
    -2**-(n-1), so the first criterion is below 0 and action 0 is taken, for every n.

    Examples
    --------
    >>> from rdolib import examples
    >>> trap = examples.lexicographic_trap()
    >>> [examples.recursion(trap.mdp, trap.objective, horizon=n)[0] for n in (1, 10, 20)], trap.optimum
    ([(0.0, 0.0), (0.0, 0.0), (0.0, 0.0)], (0.0, 5.0))
    """
    table = {
        0: {0: [(1.0, 2, 0.0, True)], 1: [(0.5, 1, -1.0, False), (0.5, 2, 10.0, True)]},
        1: {0: [(1.0, 1, 1.0, False)]},
    }
    note = "naive: value iteration from zero, after any number of sweeps"
    objective = Lexicographic(Shortfall(), Mean())
    return Example(MDP.from_outcomes(table, gamma=0.5), objective, (0.0, 0.0), (0.0, 5.0), note=note)


def tie_trap() -> Example:
    """A tie that makes policy iteration worse, for P(stock + G > 0), which is not continuous: gamma = 1/2.

    Action 0 pays -1 and stays; from the stock 2 the next stock is (2 - 1) / (1/2) = 2 again. Action 1 stops with 0 or
    -9, a fair coin: 2 + 0 > 0, worth 1/2. The policy "always action 1" is therefore worth 1/2, and so is "action 0
    once, then action 1": a tie. Resolved in favor of action 0 it gives the policy "always action 0" with G = -2, worth
    P(2 - 2 > 0) = 0. Whoever puts off stopping for any number of steps, but not for ever, gets 1/2.

    Examples
    --------
    >>> from rdolib import examples
    >>> trap = examples.tie_trap()
    >>> trap.naive, trap.optimum
    (0.0, 0.5)
    """
    table = {0: {0: [(1.0, 0, -1.0, False)], 1: _pays(_coin(0, -9), 1)}}
    note = "naive: policy iteration from the policy that always stops (action 1), ties to the lowest action"
    objective = ExpectedUtility(_positive, degree=0.0)
    return Example(MDP.from_outcomes(table, gamma=0.5), objective, 0.0, 0.5, stock=2.0, note=note)


def clock() -> Example:
    """Two steps in one state: a policy that sees (state, stock) but not the time loses 1/4 somewhere.

    Action 0 pays 1, action 1 pays 2 or 0, a fair coin; the aim is P(stock + G >= 0). From the stock -2 with one step
    left only action 1 has a chance, 1/2. With two steps left action 0 twice is sure, and action 1 first is worth
    1/2 + 1/2 * 1/2 = 3/4 at best. A policy without a clock has one action at the stock -2. If it is 1, it loses 1/4
    there. If it is 0, it loses 1/4 at the stock -4: there action 1 twice reaches 0 with probability 1/4, and every
    other way to -2 or below misses.

    Examples
    --------
    >>> from rdolib import examples
    >>> two = examples.clock()
    >>> examples.recursion(two.mdp, two.objective, two.stock, horizon=2)[0], two.naive
    (1.0, 0.75)
    """
    table = {0: {0: [(1.0, 0, 1.0, False)], 1: [(0.5, 0, 2.0, False), (0.5, 0, 0.0, False)]}}
    note = "naive: the best policy without a clock among those that take action 1 at the stock -2"
    return Example(MDP.from_outcomes(table), Threshold(), 0.75, 1.0, horizon=2, stock=-2.0, note=note)


def flickering() -> Example:
    """Return distributions that alternate for ever while their value stands still: gamma = 1/2.

    Action 0 pays 1, -1, 1, -1, ... for ever: cut after n steps G is 1, 1/2, 3/4, 5/8, ..., above 2/3 for odd n and
    below it for even n. Action 1 stops with 1 or 3, a fair coin. From the stock -2/3 the aim is the expected
    shortfall E min(stock + G, 0), which is 0 for action 1. For odd n action 0 ties with it and, having the lower
    number, is taken; for even n it falls short. So the value at the start is 0 after every sweep, and the law of the
    return jumps between a point near 2/3 and {1, 3}, about 4/3 apart, until the cut no longer shows in the digits.
    The objective has every property that the theorems ask for: they promise that values converge, not laws.

    Examples
    --------
    >>> from rdolib import examples
    >>> jumpy = examples.flickering()
    >>> for n in (7, 8, 9):
    ...     value, law, action = examples.recursion(jumpy.mdp, jumpy.objective, jumpy.stock, n)
    ...     print(value, action, law)
    0.0 0 Distribution(1 atom, mean 0.671875, min 0.671875, max 0.671875)
    0.0 1 Distribution(2 atoms, mean 2, min 1, max 3)
    0.0 0 Distribution(1 atom, mean 0.667969, min 0.667969, max 0.667969)
    """
    table = {
        0: {0: [(1.0, 1, 1.0, False)], 1: _pays(_coin(1, 3), 3)},
        1: {0: [(1.0, 2, -1.0, False)]},
        2: {0: [(1.0, 1, 1.0, False)]},
    }
    note = "the value is right after every sweep; the law of the return never settles"
    return Example(MDP.from_outcomes(table, gamma=0.5), Shortfall(), 0.0, 0.0, stock=-2 / 3, note=note)


def two_hills() -> Example:
    """The search over the initial stock for CVaR has two hills: g(b) = b + max_pi E min(G - b, 0) / level.

    Action 0 pays 1; action 1 pays -2 w.p. 1/4, else 5; level 1/2. g(1) = 1 (action 0 loses nothing). g(2) = 0: action
    0 gives 2 - 2 * 1, action 1 gives 2 - 2 * 4/4. g(5) = 3/2: action 1 gives 5 - 2 * 7/4. So g rises to 1, falls to 0
    and rises to 3/2. A climb that starts at b = 1, or a search that assumes one peak, may stop at 1.

    Examples
    --------
    >>> import rdolib as rdo
    >>> from rdolib import examples
    >>> hills = examples.two_hills()
    >>> rdo.optimize(hills.mdp, hills.objective, horizon=1).value, hills.naive
    (1.5, 1.0)
    """
    mdp = _one_step(1, {-2: 1 / 4, 5: 3 / 4})
    return Example(mdp, CVaR(0.5), 1.0, 1.5, horizon=1, note="naive: the search for the best b climbs from b = 1")


def coin_helps() -> Example:
    """The best half of the returns, where a coin between two plans beats both.

    Action 0 pays 1: worth 1. Action 1 pays 2 w.p. 1/4, else 0: its best half is {2, 0}, worth 1. One third action 0 and
    two thirds action 1: 2 w.p. 1/6 and 1 w.p. 1/3 fill the best half: (1/6 * 2 + 1/3 * 1) / (1/2) = 4/3. No mixture is
    better: OCVaR = min_b { b + E max(G - b, 0) / (1/2) }, and at b = 2/3 both actions give 4/3.

    Examples
    --------
    >>> import rdolib as rdo
    >>> from rdolib import examples
    >>> coin = examples.coin_helps()
    >>> laws = rdo.Distribution([1], [1]), rdo.Distribution([0, 2], [3 / 4, 1 / 4])
    >>> round(coin.objective(rdo.mixture(laws, [1 / 3, 2 / 3])), 6), coin.naive
    (1.333333, 1.0)
    """
    mdp = _one_step(1, {2: 1 / 4, 0: 3 / 4})
    return Example(mdp, OptimisticCVaR(0.5), 1.0, 4 / 3, horizon=1, note="naive: the best policy that tosses no coin")


def tight_truncation(n: int = 1) -> Example:
    """A problem on which the bound gamma**n * D_0 of value iteration is the error itself: gamma = 1/2.

    One state pays 1 for ever. The optimum is 2. After n sweeps from zero the mean is 2 - 2 * 2**-n, and the bound is
    2**-n times D_0 = W1(point 0, point 2) = 2.

    Examples
    --------
    >>> from rdolib import examples
    >>> one = examples.tight_truncation(3)
    >>> one.optimum - one.naive, examples.recursion(one.mdp, one.objective, horizon=3)[0]
    (0.25, 1.75)
    """
    mdp = MDP.from_outcomes({0: {0: [(1.0, 0, 1.0, False)]}}, gamma=0.5)
    return Example(mdp, Mean(), 2.0 - 2.0 * 0.5**n, 2.0, note=f"naive: value iteration from zero, {n} sweeps")


def tight_projection() -> Example:
    """A problem on which the bound of projected value iteration is the error itself: gamma = 1/2.

    One state pays 0 or 1, a fair coin, for ever: the optimum of the mean is 1. With `QuantileGrid(1)` each sweep
    turns the point 0 into {0, 1} and projects it to its lower median, the point 0 again. So the value stays 0 and the
    error is 1. Each projection moves epsilon = 1/2, as far as it can at all, and D_0 = W1(point 0, law of G) = 1.
    The bound 2**-n D_0 + epsilon (1 - 2**-n) / (1 - 1/2) is 1 for every n.

    Examples
    --------
    >>> import rdolib as rdo
    >>> from rdolib import examples
    >>> one = examples.tight_projection()
    >>> rdo.Distribution([0, 1], [0.5, 0.5]).project(rdo.QuantileGrid(1))
    Distribution(1 atom, mean 0, min 0, max 0, W1 error 0.5)
    >>> one.naive, one.optimum
    (0.0, 1.0)
    """
    mdp = MDP.from_outcomes({0: {0: [(0.5, 0, 0.0, False), (0.5, 0, 1.0, False)]}}, gamma=0.5)
    return Example(mdp, Mean(), 0.0, 1.0, note="naive: value iteration from zero with QuantileGrid(1)")


def _branches(weights: Sequence[float], choices: Sequence[Sequence[Law]], gamma: float) -> MDP:
    """State 0 leads to state i + 1 with probability weights[i]; its actions pay the laws choices[i] and end."""
    end = len(weights) + 1
    table: dict[int, Any] = {0: {0: [(p, i + 1, 0.0, False) for i, p in enumerate(weights)]}}
    for i, laws in enumerate(choices):
        table[i + 1] = {action: _pays(law, end) for action, law in enumerate(laws)}
    return MDP.from_outcomes(table, gamma=gamma)


def _one_step(*laws: Law) -> MDP:
    """One state whose actions pay these laws and end."""
    return MDP.from_outcomes({0: {action: _pays(law, 1) for action, law in enumerate(laws)}})


def _pays(law: Law, end: int) -> list[tuple[float, int, float, bool]]:
    """Outcomes that pay a law and end the return in state `end`."""
    if isinstance(law, Distribution):
        law = dict(zip(law.atoms.tolist(), law.probs.tolist(), strict=True))
    pairs = law.items() if isinstance(law, Mapping) else [(law, 1.0)]
    return [(p, end, x, True) for x, p in pairs]


def _coin(x: float, y: float) -> dict[float, float]:
    return {x: 0.5, y: 0.5}


def _minus_half_to_the(x: Any) -> Any:
    return -(2.0**-x)


def _positive(x: Any) -> Any:
    return np.where(x > _JUST_ABOVE, 1.0, 0.0)


def _exceeds(x: Any, y: Any) -> bool:
    """Whether a value, a number or a tuple compared from its first entry, is larger by more than rounding."""
    for a, b in zip(np.ravel(x).tolist(), np.ravel(y).tolist(), strict=True):
        if not math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-12):
            return bool(a > b)
    return False
