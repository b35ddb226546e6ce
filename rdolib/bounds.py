"""How far dynamic programming is from the optimum, before and after it has run.

Let ``eta_n`` be the return distributions after ``n`` sweeps of distributional value iteration from ``eta_0 = delta_0``,
``F eta (s, c) = K(law of c + G)`` for ``G ~ eta(s, c)``, and ``F*`` the supremum of ``F`` over all history-dependent
policies. For an objective that is indifferent to mixtures and to gamma, and Lipschitz,
``|K(nu) - K(mu)| <= L W1(nu, mu)``::

    values            |F eta_n - F*| <= L gamma**n D                                          `truncation`
    greedy policy     F* - F eta^{pi_n} <= L gamma**(n + 1) (D + d / (1 - gamma))             `greedy_policy`
    policy iteration  F* - F eta^{pi_k} <= L gamma**k width                                   `policy_iteration`
    approximate       |F eta_n - F*| <= L (gamma**n D + eps (1 - gamma**n) / (1 - gamma))     `projected`

No constant is quoted, all are computed from the problem:

* ``D`` is at least the distance of ``delta_0`` from every return law: the greatest ``|G|`` over policies, states and
  outcomes (`rdolib.stock.return_range`), never more than ``R_max / (1 - gamma)``;
* ``d`` is the distance that one sweep moves ``delta_0`` at least: the greatest over states of the least over actions
  of ``E|R|``, never more than ``R_max``;
* ``width`` is the greatest difference of two returns from one state;
* ``L`` is needed only where returns live: on ``[c - B, c + B]`` when ``c`` is the stock and ``B`` the greatest sum of
  discounted ``|R|``. So the square has a constant too, one for each stock.

For vectors ``|.|`` is the objective's ``norm`` (2 unless it says otherwise). Objectives that are Lipschitz for
``W_inf`` instead of ``W1``, as the essential infimum is, have the same bounds with the greatest ``|R|`` in ``d``.

The form of the first three bounds is the one of Ávila Pires et al. (2025); the constants, and the bounds for projected
iteration, for gamma = 1, for a modulus of continuity and for rounded stocks, are derived in the book, chapter
"Distributional value iteration".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rdolib.errors import InvalidArgumentError, NotOptimizableError
from rdolib.mdp import MDP
from rdolib.objectives import EssInf, Objective
from rdolib.stock import end_components, expected_next, expected_time, return_range

__all__ = [
    "a_posteriori",
    "extremes",
    "greedy_policy",
    "modulus",
    "policy_iteration",
    "projected",
    "projected_greedy",
    "proper",
    "rounding",
    "steps",
    "stopping",
    "truncation",
]

Floats = NDArray[np.float64]
#: A number for a number, an array for an array.
Bound = float | Floats

_MOST_STEPS = 2**30


# --------------------------------------------------------------------------------------------------
# bounds as functions of n


def truncation(mdp: MDP, objective: Objective, n: ArrayLike, stock: ArrayLike = 0.0, state: int | None = None) -> Bound:
    """Bound of ``|F eta_n - F*|``, the error of n sweeps from ``delta_0``: ``L gamma**n D``.

    The theorem is the paper's in form, the constant is derived here. Idea: ``F eta_n`` is the best of n steps followed
    by nothing, and what is cut off moves the law by at most ``gamma**n D``. The bound is attained, by one state that
    pays the same reward for ever. No indifference to gamma is needed: with time in the state the n-step optimum is
    the same number.

    Parameters
    ----------
    mdp : MDP
        With ``gamma < 1``.
    objective : Objective
        Indifferent to mixtures and Lipschitz, at least where the returns live.
    n : int or integer array
        Numbers of sweeps.
    stock : float or (m,) floats
        Initial stock; it matters only where the Lipschitz constant is local.
    state : int, optional
        With a state, ``D`` is replaced by the greatest mean of the ``|G|`` that is still to come from the state after
        n steps, which is less where returns can end. Takes n sweeps. None bounds all states.

    Returns
    -------
    float or array, of the shape of `n`

    Raises
    ------
    NotOptimizableError
        The bound does not exist: no Lipschitz constant, no indifference to mixtures, or gamma = 1.
    InvalidArgumentError

    Examples
    --------
    >>> import rdolib as rdo
    >>> mdp = rdo.MDP.from_outcomes({0: {0: [(1.0, 0, 1.0, False)]}}, gamma=0.5)
    >>> truncation(mdp, rdo.Mean(), [0, 1, 2])
    array([2. , 1. , 0.5])
    """
    counts = _counts(n)
    _require_discount(mdp, "truncation")
    lipschitz, sure = _lipschitz(mdp, objective, stock, state)
    left = _reach(mdp, _norm(objective))
    if state is None or sure:
        return _like(n, lipschitz * mdp.gamma**counts * left.max())
    ahead = [left[state]]
    for _ in range(int(counts.max(initial=0))):
        left = mdp.gamma * expected_next(mdp, left)
        ahead.append(left[state])
    return _like(n, lipschitz * np.array(ahead)[counts])


def greedy_policy(mdp: MDP, objective: Objective, n: ArrayLike, stock: ArrayLike = 0.0) -> Bound:
    """Bound of ``F* - F eta^pi`` for the policy that is greedy for ``eta_n``: ``L gamma**(n+1) (D + d / (1-gamma))``.

    The theorem is the paper's in form, the constant is derived here. Idea: the first step is as good as sweep n + 1;
    the k-th use of the policy loses at most ``gamma**(n + k - 1) d`` more, the distance of two sweeps; sum over k >= 2.
    Never more than ``2 L gamma**(n+1) R_max / (1 - gamma)``, without a square of ``1 / (1 - gamma)``.

    Parameters
    ----------
    mdp, n, stock
        As in `truncation`.
    objective : Objective
        Also indifferent to gamma.

    Raises
    ------
    NotOptimizableError, InvalidArgumentError

    Examples
    --------
    >>> import rdolib as rdo
    >>> mdp = rdo.MDP.from_outcomes({0: {0: [(1.0, 0, 1.0, False)]}}, gamma=0.5)
    >>> greedy_policy(mdp, rdo.Mean(), 3)
    0.25
    """
    counts = _counts(n)
    _require_discount(mdp, "greedy_policy")
    _require_gamma(mdp, objective)
    lipschitz, sure = _lipschitz(mdp, objective, stock)
    start, first = _reach(mdp, _norm(objective)).max(), _first_step(mdp, _norm(objective), sure)
    return _like(n, lipschitz * mdp.gamma ** (counts + 1) * (start + first / (1 - mdp.gamma)))


def policy_iteration(mdp: MDP, objective: Objective, n: ArrayLike, stock: ArrayLike = 0.0) -> Bound:
    """Bound of ``F* - F eta^{pi_n}`` after n improvements of any policy: ``L gamma**n width``.

    The form may be the paper's, the constant is derived here. Idea: policy iteration is at least as good as value
    iteration from ``eta^{pi_0}``, whose distance from any return law is at most the width of the returns. No square of
    ``1 / (1 - gamma)`` appears.

    Parameters
    ----------
    mdp, objective, n, stock
        As in `greedy_policy`; n counts improvements.

    Raises
    ------
    NotOptimizableError, InvalidArgumentError

    Examples
    --------
    >>> import rdolib as rdo
    >>> table = {0: {0: [(1.0, 0, 1.0, False)], 1: [(1.0, 0, -1.0, False)]}}
    >>> policy_iteration(rdo.MDP.from_outcomes(table, gamma=0.5), rdo.Mean(), [0, 1])
    array([4., 2.])
    """
    counts = _counts(n)
    _require_discount(mdp, "policy_iteration")
    _require_gamma(mdp, objective)
    lipschitz, _ = _lipschitz(mdp, objective, stock)
    return _like(n, lipschitz * mdp.gamma**counts * _width(mdp, _norm(objective)))


def projected(mdp: MDP, objective: Objective, n: ArrayLike, eps: float, stock: ArrayLike = 0.0) -> Bound:
    """Bound of ``|F eta_n - F*|`` when every sweep is followed by a projection that moves laws by at most `eps`.

    ``L (gamma**n D + eps (1 - gamma**n) / (1 - gamma))``, derived here; the bound is attained. Idea: an error made k
    sweeps ago has been discounted k times since.

    Parameters
    ----------
    mdp, objective, n, stock
        As in `greedy_policy`.
    eps : float
        Greatest W1 distance between a law and its projection. Where the Lipschitz constant is local, projections must
        not leave the range of the returns; those on quantiles do not.

    Raises
    ------
    NotOptimizableError, InvalidArgumentError

    Examples
    --------
    >>> import rdolib as rdo
    >>> mdp = rdo.MDP.from_outcomes({0: {0: [(1.0, 0, 1.0, False)]}}, gamma=0.5)
    >>> projected(mdp, rdo.Mean(), 2, eps=0.25)
    0.875
    """
    gamma, counts, eps = mdp.gamma, _counts(n), _nonnegative(eps, "eps")
    _require_discount(mdp, "projected")
    _require_gamma(mdp, objective)
    lipschitz, _ = _lipschitz(mdp, objective, stock)
    start = _reach(mdp, _norm(objective)).max()
    return _like(n, lipschitz * (gamma**counts * start + eps * (1 - gamma**counts) / (1 - gamma)))


def projected_greedy(mdp: MDP, objective: Objective, n: ArrayLike, eps: float, stock: ArrayLike = 0.0) -> Bound:
    """Bound of the loss of the policy that is greedy after n projected sweeps.

    ``L (gamma**(n+1) (D + d / (1-gamma)) + 2 gamma eps / (1-gamma)**2)``, derived here: `greedy_policy` with the errors
    of all sweeps, made once in the values and once in the policy.

    Parameters
    ----------
    mdp, objective, n, eps, stock
        As in `projected`.

    Raises
    ------
    NotOptimizableError, InvalidArgumentError

    Examples
    --------
    >>> import rdolib as rdo
    >>> mdp = rdo.MDP.from_outcomes({0: {0: [(1.0, 0, 1.0, False)]}}, gamma=0.5)
    >>> projected_greedy(mdp, rdo.Mean(), 3, eps=0.25)
    1.25
    """
    exact = greedy_policy(mdp, objective, n, stock)
    lipschitz, _ = _lipschitz(mdp, objective, stock)
    return exact + lipschitz * 2 * mdp.gamma * _nonnegative(eps, "eps") / (1 - mdp.gamma) ** 2


def stopping(mdp: MDP, objective: Objective, n: ArrayLike) -> Bound:
    """Bound of ``|F eta_n - F*|`` when every step ends the return with probability at least rho.

    ``L (1 - rho)**n R_max / rho``, derived here, for any discount. Idea: to be still alive after n steps has
    probability at most ``(1 - rho)**n``, and then at most ``1 / rho`` steps are to come on average. Attained by a coin
    that pays until it shows heads. `proper` is never worse; this is the form that can be computed in the head.

    Parameters
    ----------
    mdp, n
        As in `truncation`, with any discount.
    objective : Objective
        Indifferent to mixtures and Lipschitz for W1.

    Raises
    ------
    NotOptimizableError
        Also when some action surely goes on.

    Examples
    --------
    >>> import rdolib as rdo
    >>> mdp = rdo.MDP.from_outcomes({0: {0: [(0.5, 0, 1.0, False), (0.5, 0, 1.0, True)]}})
    >>> stopping(mdp, rdo.Mean(), [0, 1, 2])
    array([2. , 1. , 0.5])
    """
    counts, lipschitz = _counts(n), _uniform(objective)
    ends = np.add.reduceat(np.where(mdp.terminated, mdp.prob, 0.0), mdp.outcome_ptr[:-1]) if mdp.n_pairs else np.ones(1)
    rho = float(ends.min())
    if rho == 0.0:
        pair = int(ends.argmin())
        raise NotOptimizableError(
            f"state {mdp.pair_state[pair]}, action {mdp.pair_action[pair]} never ends the return, so no probability of "
            "stopping bounds the error; bounds.proper asks only that every policy ends at last"
        )
    return _like(n, lipschitz * (1 - min(rho, 1.0)) ** counts * _largest(mdp, _norm(objective)) / rho)


def proper(mdp: MDP, objective: Objective, n: ArrayLike, state: int | None = None) -> Bound:
    """Bound of ``|F eta_n - F*|`` when every policy ends: ``L R_max beta**n xi(s)``, for any discount.

    ``xi(s)`` is the greatest expected number of steps from s and ``beta = 1 - 1 / max xi``. Derived here. Idea: one
    step has passed, so ``max_a E xi(S') <= xi(s) - 1 <= beta xi(s)``: the operators contract by beta when distances
    at s are measured in units of ``xi(s)``.

    Parameters
    ----------
    mdp, objective, n
        As in `stopping`.
    state : int, optional
        None bounds all states.

    Raises
    ------
    NotOptimizableError
        Also when some policy can go on for ever; the message names the states.

    Examples
    --------
    >>> import rdolib as rdo
    >>> coin = [(0.5, 1, 1.0, False), (0.5, 1, 0.0, True)]
    >>> mdp = rdo.MDP.from_outcomes({0: {0: [(1.0, 1, -1.0, False)]}, 1: {0: coin}})
    >>> [round(proper(mdp, rdo.Mean(), 2, state=s), 6) for s in (0, 1)]
    [1.333333, 0.888889]
    """
    counts, lipschitz = _counts(n), _uniform(objective)
    endless = np.flatnonzero(end_components(mdp) >= 0)
    if len(endless):
        raise NotOptimizableError(
            f"a policy can stay in the states {endless[:8].tolist()} for ever, so the number of steps has no bound; "
            "with gamma < 1 use bounds.truncation, else pass horizon= to the solver"
        )
    xi = expected_time(mdp)
    beta = 1 - 1 / max(1.0, float(xi.max()))
    here = float(xi.max() if state is None else xi[_state(mdp, state)])
    return _like(n, lipschitz * _largest(mdp, _norm(objective)) * beta**counts * here)


def modulus(w: Callable[[Any], Any], mdp: MDP, n: ArrayLike) -> Bound:
    """Bound of ``|F eta_n - F*|`` for an expected utility with a concave modulus of continuity: ``w(gamma**n D)``.

    ``|f(x) - f(y)| <= w(|x - y|)`` with `w` concave and nondecreasing, for instance ``w = sqrt`` for the square root
    of the positive part. Derived here. Idea: Jensen's inequality under the best coupling.

    Parameters
    ----------
    w : callable
        Vectorized.
    mdp, n
        As in `truncation`.

    Raises
    ------
    NotOptimizableError
        If gamma = 1.

    Examples
    --------
    >>> import numpy as np, rdolib as rdo
    >>> mdp = rdo.MDP.from_outcomes({0: {0: [(1.0, 0, 3.0, False)]}}, gamma=0.25)
    >>> modulus(np.sqrt, mdp, [0, 1, 2])
    array([2. , 1. , 0.5])
    """
    counts = _counts(n)
    _require_discount(mdp, "modulus")
    return _like(n, np.asarray(w(mdp.gamma**counts * _reach(mdp, 2.0).max()), dtype=np.float64))


def rounding(mdp: MDP, objective: Objective, n: ArrayLike | None, mesh: float, nearest: bool = False) -> Bound:
    """Bound of the error when every new stock is rounded to a multiple of `mesh`: ``L mesh sum_{t=1..n} gamma**t``.

    Derived here, for utilities that are homogeneous of degree one, or gamma = 1. Idea: rounding at step t moves
    ``c_0 + G`` by at most ``gamma**t mesh``. For a nondecreasing utility rounding down bounds the optimum from below
    and rounding up from above.

    Parameters
    ----------
    mdp : MDP
    objective : Objective
        Indifferent to mixtures and Lipschitz.
    n : int, integer array or None
        Numbers of steps; None is an endless horizon.
    mesh : float
        Distance of neighboring stocks.
    nearest : bool
        Stocks are rounded to the nearest multiple, which halves the error.

    Raises
    ------
    NotOptimizableError, InvalidArgumentError

    Examples
    --------
    >>> import rdolib as rdo
    >>> mdp = rdo.MDP.from_outcomes({0: {0: [(1.0, 0, 1.0, False)]}}, gamma=0.5)
    >>> rounding(mdp, rdo.Shortfall(), [1, 2], mesh=0.1), rounding(mdp, rdo.Shortfall(), None, mesh=0.1)
    (array([0.05 , 0.075]), 0.1)
    """
    gamma, lipschitz = mdp.gamma, _uniform(objective)
    if gamma < 1 and getattr(objective, "degree", 1.0) != 1:
        raise NotOptimizableError(
            f"rounded stocks: with gamma = {gamma:.6g} the bound needs a utility of degree 1, f(g x) = g f(x); "
            f"{objective!r} is not one"
        )
    step = lipschitz * _nonnegative(mesh, "mesh") * (0.5 if nearest else 1.0)
    if n is None:
        _require_discount(mdp, "rounding")
        return step * gamma / (1 - gamma)
    counts = _counts(n)
    return _like(n, step * (counts if gamma == 1 else gamma * (1 - gamma**counts) / (1 - gamma)))


def a_posteriori(change: ArrayLike, gamma: float, degree: float = 1.0) -> Bound:
    """Bound of ``|F* - F eta_{n+1}|`` from the last change, ``gamma**p / (1 - gamma**p) max|F eta_{n+1} - F eta_n|``.

    Classical, for utilities with ``f(g x) = g**p f(x)``: there ``F eta_{n+1}(s, c) = gamma**p max_a E F eta_n(S', C')``
    is a contraction. The change is the greatest over all states and stocks; with saturation these are finitely many.

    Parameters
    ----------
    change : float or array
        Greatest changes of the last sweeps.
    gamma : float
    degree : float
        The ``p`` above.

    Raises
    ------
    NotOptimizableError
        If ``gamma**p = 1``: then a small change promises nothing.

    Examples
    --------
    >>> a_posteriori(0.125, 0.5), a_posteriori(0.125, 0.5, degree=2)
    (0.125, 0.041666666666666664)
    """
    factor = float(gamma) ** float(degree)
    if not 0 <= factor < 1:
        raise NotOptimizableError(
            f"gamma = {gamma:.6g} and degree {degree:.6g} give no contraction (gamma**degree must be below 1), so the "
            "last change does not bound the error; use the brackets of value_iteration(max_iter=...) instead"
        )
    return _like(change, np.asarray(change, dtype=np.float64) * (factor / (1 - factor)))


def steps(tol: float, bound: Callable[[int], Any]) -> int:
    """Least n with ``bound(n) <= tol``, for a bound that does not increase.

    Parameters
    ----------
    tol : float
        Positive.
    bound : callable
        From n to a number, for example ``lambda n: truncation(mdp, objective, n)``.

    Raises
    ------
    InvalidArgumentError
        If `tol` is not positive, or the bound is still larger after 2**30 steps.

    Examples
    --------
    >>> steps(0.01, lambda n: 0.5**n)
    7
    """
    if not _nonnegative(tol, "tol") > 0:
        raise InvalidArgumentError("tol must be positive; got 0")
    if float(bound(0)) <= tol:
        return 0
    high = 1
    while not float(bound(high)) <= tol:
        high *= 2
        if high > _MOST_STEPS:
            raise InvalidArgumentError(f"the bound is still above tol = {tol:.6g} after {_MOST_STEPS} steps")
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if float(bound(middle)) <= tol else (middle, high)
    return high


# --------------------------------------------------------------------------------------------------
# the two extreme starts


def extremes(mdp: MDP) -> tuple[Floats, Floats]:
    """Least and greatest return over all policies and outcomes, ``(S,)`` each, for an endless horizon.

    Infinite where gamma = 1 and a cycle gains or loses for ever.

    Examples
    --------
    >>> import rdolib as rdo
    >>> mdp = rdo.MDP.from_outcomes({0: {0: [(0.5, 0, 1.0, False), (0.5, 0, 0.0, True)]}}, gamma=0.5)
    >>> extremes(mdp)
    (array([0.]), array([2.]))
    """
    _require_scalar(mdp)
    return 0.0 - return_range(mdp, -1.0), return_range(mdp, 1.0)


# --------------------------------------------------------------------------------------------------
# constants


def _norm(objective: Objective) -> float:
    return float(getattr(objective, "norm", 2.0))


@lru_cache(maxsize=32)
def _sized(mdp: MDP, norm: float) -> MDP:
    """The MDP with the sizes of its rewards as rewards."""
    size = np.abs(mdp.reward) if mdp.reward_dim == 1 else np.linalg.norm(mdp.reward, norm, axis=1)
    return replace(mdp, reward=np.asarray(size), reward_dim=1, grid=None)


@lru_cache(maxsize=32)
def _ball(mdp: MDP, norm: float) -> Floats:
    """(S,) greatest sum of discounted sizes: no part of a return is larger."""
    return return_range(_sized(mdp, norm), 1.0)


@lru_cache(maxsize=32)
def _reach(mdp: MDP, norm: float) -> Floats:
    """(S,) greatest size of a return; for vectors the sum of sizes."""
    if mdp.reward_dim > 1:
        return _ball(mdp, norm)
    return np.maximum(return_range(mdp, 1.0), return_range(mdp, -1.0))


@lru_cache(maxsize=32)
def _width(mdp: MDP, norm: float) -> float:
    """Greatest difference of two returns from one state."""
    if mdp.reward_dim > 1:
        return 2.0 * float(_ball(mdp, norm).max())
    return float((return_range(mdp, 1.0) + return_range(mdp, -1.0)).max())


def _first_step(mdp: MDP, norm: float, sure: bool) -> float:
    """Greatest over states of the least over actions of ``E|R|``, or of the greatest ``|R|`` when ``sure``."""
    if mdp.n_pairs == 0:
        return 0.0
    size = _sized(mdp, norm).reward
    by_outcome = np.maximum.reduceat(size, mdp.outcome_ptr[:-1]) if sure else np.add.reduceat(
        mdp.prob * size, mdp.outcome_ptr[:-1]
    )  # fmt: skip
    states = np.flatnonzero(np.diff(mdp.pair_ptr) > 0)
    return float(np.minimum.reduceat(by_outcome, mdp.pair_ptr[states]).max())


def _largest(mdp: MDP, norm: float) -> float:
    return float(_sized(mdp, norm).reward.max(initial=0.0))


def _lipschitz(mdp: MDP, objective: Objective, stock: ArrayLike, state: int | None = None) -> tuple[float, bool]:
    """Lipschitz constant where the returns from these stocks live, and whether it is one for ``W_inf`` only."""
    _require_mixtures(objective)
    norm = _norm(objective)
    center = np.asarray(stock, dtype=np.float64)
    if center.ndim > 0 and center.shape != (mdp.reward_dim,):
        raise InvalidArgumentError(f"stock must be one stock of {mdp.reward_dim} components; got shape {center.shape}")
    ball = _ball(mdp, norm)
    radius = float(ball.max() if state is None else ball[_state(mdp, state)])
    if mdp.reward_dim == 1:
        low, high = float(center.sum()) - radius, float(center.sum()) + radius
    else:
        radius += float(np.linalg.norm(np.broadcast_to(center, (mdp.reward_dim,)), norm))
        low, high = -radius, radius
    local = getattr(objective, "lipschitz_on", None)
    constant = objective.lipschitz if local is None else local(low, high)
    if constant is not None and np.isfinite(constant):
        return float(constant), False
    if isinstance(objective, EssInf):
        return 1.0, True
    raise NotOptimizableError(_no_constant(objective, f" between {low:.6g} and {high:.6g}"))


def _uniform(objective: Objective) -> float:
    """The Lipschitz constant for all returns."""
    _require_mixtures(objective)
    if objective.lipschitz is None:
        raise NotOptimizableError(_no_constant(objective, ""))
    return float(objective.lipschitz)


def _no_constant(objective: Objective, where: str) -> str:
    return (
        f"{objective!r} has no Lipschitz constant{where}, so no number of sweeps bounds its error; value_iteration "
        "without a horizon solves it exactly where it can, and with max_iter= it brackets a nondecreasing utility from "
        "both sides without any continuity"
    )


# --------------------------------------------------------------------------------------------------
# checks


def _require_mixtures(objective: Objective) -> None:
    if not objective.indifferent_to_mixtures:
        raise NotOptimizableError(
            f"{objective!r} is not indifferent to mixtures, so dynamic programming on it has no error bound; optimize "
            "reaches it through an expected utility, whose bound applies"
        )


def _require_gamma(mdp: MDP, objective: Objective) -> None:
    if mdp.gamma < 1 and not objective.indifferent_to_gamma:
        raise NotOptimizableError(
            f"{objective!r} is not indifferent to gamma, so with gamma = {mdp.gamma:.6g} its greedy policies have no "
            "error bound; pass horizon= to the solver, which then keeps time in the state (bounds.truncation holds)"
        )


def _require_discount(mdp: MDP, name: str) -> None:
    if mdp.gamma == 1:
        raise NotOptimizableError(
            f"bounds.{name} needs gamma < 1; with gamma = 1 and policies that all end use bounds.proper"
        )


def _require_scalar(mdp: MDP) -> None:
    if mdp.reward_dim > 1:
        raise InvalidArgumentError(
            f"the least and the greatest return need scalar rewards; this MDP has {mdp.reward_dim} components"
        )


def _state(mdp: MDP, state: int) -> int:
    if not 0 <= state < mdp.n_states:
        raise InvalidArgumentError(f"state {state!r} is not a state; states are 0 to {mdp.n_states - 1}")
    return int(state)


def _nonnegative(value: float, name: str) -> float:
    number = float(value)
    if not (np.isfinite(number) and number >= 0):
        raise InvalidArgumentError(f"{name} must be a finite number of at least 0; got {value}")
    return number


def _counts(n: ArrayLike) -> NDArray[np.int64]:
    counts = np.asarray(n)
    if counts.dtype.kind not in "iu" or (counts < 0).any():
        raise InvalidArgumentError(f"n must be an integer of at least 0, or an array of them; got {n!r}")
    return counts.astype(np.int64)


def _like(n: ArrayLike, values: Any) -> Bound:
    return float(values) if np.ndim(n) == 0 else np.asarray(values, dtype=np.float64)
