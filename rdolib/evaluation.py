"""Policy evaluation: the law of the return of a given policy.

The distributional Bellman operator of a policy ``pi`` maps laws at augmented states to laws at augmented states,

    (T_pi eta)(s, c) = law of R + gamma G',    G' ~ eta(S', C'),    C' = (c + R) / gamma,

with the action drawn from ``pi`` and ``(R, S')`` from the MDP. It is a contraction with factor ``gamma`` in the largest
Wasserstein distance over augmented states, so its powers converge to the law of the return. With a representation the
operator is followed by a projection in every sweep, and the error that this makes is bounded as it is made.

Sources: Bellemare, Dabney and Munos (2017), for the operator and its contraction; Ávila Pires et al. (2025), for
stocks; the error bounds that run along are derived in the book, chapter 6.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rdolib import _law
from rdolib._behavior import Behavior, behavior_of
from rdolib._projections import Exact, Representation
from rdolib._reachable import Codes
from rdolib._rows import Edges, Rows, rows_of
from rdolib._rungs import check_horizon
from rdolib._sweeps import Walk, close, layered, repeat, require_end, settle, unwind
from rdolib.distributions import Distribution, mixture
from rdolib.errors import InvalidArgumentError
from rdolib.mdp import MDP

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: Bytes that the laws of one evaluation may take.
_MEMORY = 2**30
_KEPT = 8  # solved sets of nodes kept for later questions
_SAME = 1e-11  # a stock this close to a node's, relative, is that node's


@dataclass(frozen=True)
class _Solved:
    """Laws of all nodes that were reached from one question."""

    walk: Walk
    codes: Codes
    laws: Any
    error: Floats


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Laws of the return of one policy. Call it with a state and a stock.

    Attributes
    ----------
    mdp : MDP
    policy : policy, Plan or array
    horizon : int or None
    representation : QuantileGrid, CategoricalGrid, Exact or None
    """

    mdp: MDP = field(repr=False)
    policy: Any = field(repr=False)
    horizon: int | None
    representation: Representation | None
    tol: float | None = field(repr=False)
    _behavior: Behavior = field(repr=False)
    _rows: Rows | None = field(repr=False)
    _solved: list[_Solved] = field(repr=False, default_factory=list)
    _answers: dict[Any, Distribution] = field(repr=False, default_factory=dict)

    def __call__(self, state: int, stock: ArrayLike = 0.0) -> Distribution:
        """Law of the return ``G`` (without the stock) from a state and stock.

        `Distribution.w1_error` bounds its Wasserstein-1 distance (2-norm, for vectors) from the true law, and
        `Distribution.leftover` is the probability that was still on its way when an endless return was cut.

        Parameters
        ----------
        state : int
        stock : float or (m,) floats
            In units of reward; of no importance to policies that see only the state.
        """
        s, c = self._checked(state, stock)
        if self.mdp.terminal[s]:
            return Distribution(np.zeros((1, *c.shape[1:])), [1.0])
        if not self._behavior.sees_stock:
            c = np.zeros_like(c)
        key = (s, c.tobytes())
        if key not in self._answers:
            self._answers[key] = self._exact(s, c) if self._rows is None else self._projected(s, c, self._rows)
        return self._answers[key]

    def _checked(self, state: int, stock: ArrayLike) -> tuple[int, Floats]:
        if isinstance(state, bool) or not isinstance(state, int | np.integer) or not 0 <= state < self.mdp.n_states:
            raise InvalidArgumentError(f"state {state!r} does not exist; states are 0 to {self.mdp.n_states - 1}")
        m = self.mdp.reward_dim
        try:
            c = np.asarray(stock, dtype=np.float64)
        except (TypeError, ValueError):
            raise InvalidArgumentError(f"stock must be numbers; got {stock!r}") from None
        if c.ndim == 0 and m > 1 and c == 0:
            c = np.zeros(m)
        if c.shape != (() if m == 1 else (m,)) or not np.isfinite(c).all():
            need = "a finite number" if m == 1 else f"{m} finite numbers, one for each component of the reward"
            raise InvalidArgumentError(f"stock must be {need}; got {stock!r}")
        return int(state), c.reshape((1,) if m == 1 else (1, m)) + 0.0

    def _exact(self, s: int, c: Floats) -> Distribution:
        start = np.zeros(self.mdp.n_states)
        start[s] = 1.0
        return _law.law_of_return(self.mdp, self._behavior, start, c, self.horizon)

    def _projected(self, s: int, c: Floats, rows: Rows) -> Distribution:
        for solved in reversed(self._solved):
            index = self._find(solved, s, c)
            if index is not None:
                return self._read(rows, solved, index, s)
        walk = Walk(self.mdp, self._behavior, c)
        start = walk.start(np.array([s]), c)
        width = 24 * getattr(rows, "n", 64) + 200
        stationary = not self._behavior.sees_stock if self.horizon is not None else not self._behavior.sees_step
        closed = close(walk, start, min(200_000, _MEMORY // width)) if stationary else None
        if closed is not None:
            laws, error = self._sweep(rows, closed.edges)
            solved = _Solved(walk, closed.codes, laws, error)
            self._solved[:] = [*self._solved[1 - _KEPT :], solved]
            index = self._find(solved, s, c)
            assert index is not None
            return self._read(rows, solved, index, s)
        if self.horizon is None:
            # Nodes without end, or steps that matter: mass is followed forward, and its law is projected once.
            assert self.representation is not None
            return self._exact(s, c).project(self.representation)
        layers = layered(walk, start, self.horizon, _MEMORY // width)
        laws, error = unwind(rows, layers, self.mdp.gamma)
        return rows.law(laws, 0, w1_error=float(error[0]))

    def _sweep(self, rows: Rows, edges: Edges) -> tuple[Any, Floats]:
        if self.horizon is not None:
            return repeat(rows, edges, self.mdp.gamma, self.horizon)
        return settle(rows, edges, self.mdp.gamma, self.tol)

    def _find(self, solved: _Solved, s: int, c: Floats) -> int | None:
        units = solved.walk.counter.units
        off = np.abs(units.stock(units.key(c)) - c)
        if (off > _SAME * np.maximum(1.0, np.abs(c))).any():
            return None
        wanted = solved.walk.start(np.array([s]), c).codes[0]
        index = int(np.searchsorted(solved.codes, wanted))
        return index if index < len(solved.codes) and solved.codes[index] == wanted else None

    def _read(self, rows: Rows, solved: _Solved, index: int, s: int) -> Distribution:
        require_end(float(solved.error[index]), s)
        return rows.law(solved.laws, index, w1_error=float(solved.error[index]))


@dataclass(frozen=True, eq=False)
class _Mixed:
    """Evaluations of the plans of a lottery that is drawn once, at the start."""

    parts: list[tuple[float, Evaluation]]

    def __call__(self, state: int, stock: ArrayLike = 0.0) -> Distribution:
        return mixture([eta(state, stock) for _, eta in self.parts], [weight for weight, _ in self.parts])


def evaluate(
    mdp: MDP,
    policy: Any,
    horizon: int | None = None,
    representation: Representation | None = None,
    tol: float | None = None,
) -> Evaluation:
    """Laws of the return of a policy, at any state and stock.

    Parameters
    ----------
    mdp : MDP
        With scalar or vector rewards.
    policy : Policy, Plan, array, or object with ``actions(states, stocks, t)``
        An integer array (S,) of actions and an array (S, A) of probabilities are stationary policies that see only
        the state. Entries of terminal states do not matter.
    horizon : int, optional
        Number of steps; None means endless.
    representation : QuantileGrid, CategoricalGrid or Exact, optional
        None and Exact keep every atom while there are few (60,000 on their way at a time); beyond that, neighbors
        whose stock matters no more are merged into their mean, for plans that are only certified any neighbors, and
        ``w1_error`` says how far they moved. The others project in every sweep over the augmented states that the
        policy can reach; where these have no end, the law is followed forward and projected once.
    tol : float, optional
        How far, in W1 distance, the start of endless sweeps may still be felt; None: 1e-10 of the size of returns.

    Returns
    -------
    Evaluation
        ``eta(state, stock=0.0)`` is a `Distribution`; its ``w1_error`` bounds the distance from the true law.

    Raises
    ------
    InvalidArgumentError
        A policy array of the wrong shape, sum or action; a policy asked at a stock it was not solved for; a grid that
        cannot hold the returns.
    NotOptimizableError
        A return without end: ``gamma = 1``, no horizon, and a policy that is paid for ever.
    MemoryLimitError

    Examples
    --------
    >>> import rdolib as rdo
    >>> mdp = rdo.MDP.from_outcomes({0: {0: [(0.5, 0, 1.0, False), (0.5, 0, 0.0, True)]}})
    >>> rdo.evaluate(mdp, [0], horizon=2)(0)
    Distribution(3 atoms, mean 0.75, min 0, max 2)
    >>> rdo.evaluate(mdp, [0], representation=rdo.QuantileGrid(4))(0).atoms
    array([0., 1., 2.])
    """
    if not isinstance(mdp, MDP):
        raise InvalidArgumentError(f"the first argument must be an rdo.MDP; got {type(mdp).__name__}")
    horizon = check_horizon(horizon)
    if tol is not None and not (isinstance(tol, Real) and float(tol) > 0):
        raise InvalidArgumentError(f"tol must be a positive number; got {tol!r}")
    lottery = getattr(policy, "mixture", None)
    if lottery:
        parts = [(float(weight), evaluate(mdp, one, horizon, representation, tol)) for weight, one in lottery]
        return _Mixed(parts)  # type: ignore[return-value]
    policy = unwrapped(mdp, policy, horizon)
    rows = None if representation is None or isinstance(representation, Exact) else rows_of(representation, mdp)
    return Evaluation(mdp, policy, horizon, representation, tol, behavior_of(mdp, policy), rows)


def unwrapped(mdp: MDP, policy: Any, horizon: int | None) -> Any:
    """The policy of a Plan or a Solution, else what was given; errors for one that was made for something else."""
    if not hasattr(policy, "actions") and hasattr(getattr(policy, "policy", None), "actions"):
        policy = policy.policy
    _check_origin(mdp, policy, horizon)
    return policy


def _check_origin(mdp: MDP, policy: Any, horizon: int | None) -> None:
    made_for = getattr(policy, "horizon", None)
    if made_for is not None and (horizon is None or horizon > made_for):
        raise InvalidArgumentError(
            f"the policy was made for {made_for} steps and horizon is {horizon}; pass horizon={made_for} or less, or "
            "solve again for a longer one"
        )
    other = getattr(policy, "mdp", mdp)
    if isinstance(other, MDP) and (other.n_states, other.reward_dim) != (mdp.n_states, mdp.reward_dim):
        raise InvalidArgumentError(
            f"the policy was made for {other!r}, and the MDP to evaluate it on is {mdp!r}; pass the same one"
        )
