"""Reward design: an objective of the return as a reward that is paid step by step, in an ordinary MDP.

Along every path the stock carries what has been earned, ``c_0 + G_0 = gamma**t (c_t + G_t)``. Let ``f`` be continuous
and positively homogeneous of degree ``p``. Paying at every step what the stock has become worth,

    r~ = w f(C') - f(C),        w = gamma**p,        f(c_0 + G) = f(c_0) + sum_t w**t r~_{t+1},

so that maximizing ``E f(c_0 + G)`` is the ordinary problem of maximizing an expected return with discount ``w``, on
states augmented with the stock. With ``gamma = 1`` and paths that end, or a finite horizon, the sum has finitely many
terms and every ``f`` will do; a horizon puts time into the state.

*Saturation.* Where the stock matters no more, ``f`` is replaced by the line on which it will surely end,
``f(x) = a x``, whose shaped reward is ``a r``: one node per state serves all such stocks. Where ``a = 0``, and for the
indicator, nothing more can be gained, and the shaped problem ends.

Sources: the reward is the potential-based shaping of Ng, Harada and Russell (1999) with potential ``f(c)``, except
that the potential does not vanish where the return ends, which is why it changes the problem; its use for objectives
of the return is in Ávila Pires et al. (2025). Saturation, ends and other degrees are derived in the book.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rdolib._canonical import Bools, Floats, Ints, canonical
from rdolib._checks import as_int
from rdolib._graph import total
from rdolib._reachable import code
from rdolib._rungs import MEMORY, build_problem, check_horizon, check_steps, require_mdp, require_plannable
from rdolib._shaped import Nodes, Outcomes
from rdolib.dp import check_stocks
from rdolib.errors import InvalidArgumentError, NotOptimizableError
from rdolib.mdp import MDP
from rdolib.objectives import ExpectedUtility, Objective
from rdolib.stock import end_components, ends_within


@dataclass(frozen=True, eq=False)
class ShapedMDP:
    """The ordinary MDP of a shaped reward. Its states, here called nodes, are (state, stock) pairs.

    For every policy, and so for the best one, ``offset(state, stock)`` plus the expected return of `mdp` from node
    ``index(state, stock)`` is the objective of ``stock + G`` from that state.

    Attributes
    ----------
    mdp : MDP
        Scalar rewards; actions numbered as in the original. The last node is the end of the return.
    objective : ExpectedUtility
    horizon : int or None
    states : (N,) int64 array
        The original state of each node; -1 at the end.
    stocks : (N,) or (N, m) float64 array
        Its stock, in the money of its step. ``inf`` or ``-inf`` where the stock is so high or so low that it matters
        no more (for a linear utility it never does); NaN at the end.
    times : (N,) int64 array
        Its step, for a finite horizon; 0 without one.

    Examples
    --------
    >>> import rdolib as rdo
    >>> mdp = rdo.MDP.from_outcomes({0: {0: [(1.0, 0, 1.0, True)], 1: [(0.5, 0, 3.0, True), (0.5, 0, 0.0, True)]}})
    >>> shaped = rdo.shaped_rewards(mdp, rdo.TargetReturn(), stock=-3.0)
    >>> shaped.mdp.outcomes(shaped.index(0, -3.0), 1)
    [(0.5, 1, 0.0, True), (0.5, 1, 3.0, True)]
    >>> ordinary = rdo.value_iteration(shaped.mdp, rdo.Mean())
    >>> shaped.offset(0, -3.0) + ordinary.objective_value(shaped.index(0, -3.0))
    -1.5
    >>> rdo.value_iteration(mdp, rdo.TargetReturn(), stock=-3.0).objective_value(0, -3.0)
    -1.5
    """

    mdp: MDP
    objective: ExpectedUtility
    horizon: int | None
    states: Ints = field(repr=False)
    stocks: Floats = field(repr=False)
    times: Ints = field(repr=False)
    nodes: Nodes = field(repr=False)

    @cached_property
    def steps(self) -> int | None:
        """Steps within which every path of `mdp` ends, the T of a backward induction; None when there is no limit."""
        return ends_within(self.mdp)

    def index(self, state: int, stock: ArrayLike = 0.0, t: int = 0) -> int:
        """The node of a state and stock, at step ``t`` of a finite horizon; the last one where the return is over.

        Parameters
        ----------
        state : int
            A state of the original MDP.
        stock : float, or (m,) floats for vector rewards, where 0.0 stands for zeros
            In the money of step ``t``.
        t : int
            Does not matter without a horizon.

        Raises
        ------
        InvalidArgumentError
            A state or step out of range, or a stock that cannot be reached from the stocks given.
        """
        s, step = as_int(state), as_int(t)
        n = self.nodes.problem.mdp.n_states
        if s is None or not 0 <= s < n:
            raise InvalidArgumentError(f"state {state!r} does not exist; states are 0 to {n - 1}")
        if step is None or step < 0 or (self.horizon is not None and step > self.horizon):
            last = "" if self.horizon is None else f" and at most the horizon, {self.horizon}"
            raise InvalidArgumentError(f"step t must be an integer of at least 0{last}; got {t!r}")
        held = check_stocks(self.nodes.problem.mdp, stock, several=False)
        return int(self.nodes.find(np.array([s]), held, step)[0])

    def offset(self, state: int, stock: ArrayLike = 0.0) -> float:
        """``f(stock)``, what the shaped rewards start from; the same at every state.

        Parameters
        ----------
        state : int
        stock : float, or (m,) floats for vector rewards, where 0.0 stands for zeros
        """
        held = check_stocks(self.nodes.problem.mdp, stock, several=False)
        return float(self.nodes.problem.utility(held)[0])

    def arrays(self) -> dict[str, Any]:
        """The MDP as most solvers take it: one row per (node, action) pair that exists.

        Returns
        -------
        dict
            ``R`` (L,) expected rewards; ``Q`` (L, N) transition probabilities, a SciPy sparse matrix in CSR form;
            ``beta`` the discount; ``s_indices`` and ``a_indices`` (L,) the node and action of each row. An ended node
            has one row: action 0, reward 0, back to itself. These are the arguments of QuantEcon's ``DiscreteDP``.
        """
        from scipy.sparse import csr_matrix  # not at import: it would lengthen the library's import time

        mdp = self.mdp
        ended = np.flatnonzero(mdp.terminal)
        pair = np.repeat(np.arange(mdp.n_pairs), np.diff(mdp.outcome_ptr))
        node, action = np.append(mdp.pair_state, ended), np.append(mdp.pair_action, np.zeros_like(ended))
        order = np.lexsort((action, node))
        row = np.append(pair, mdp.n_pairs + np.arange(len(ended)))
        entries = np.append(mdp.prob, np.ones(len(ended))), (row, np.append(mdp.next_state, ended))
        return {
            "R": np.append(total(pair, mdp.prob * mdp.reward, mdp.n_pairs), np.zeros(len(ended)))[order],
            "Q": csr_matrix(entries, shape=(len(node), mdp.n_states))[order],
            "beta": mdp.gamma,
            "s_indices": node[order].astype(np.int64),
            "a_indices": action[order].astype(np.int64),
        }

    def to_discrete_dp(self) -> Any:
        """The MDP as a ``quantecon.markov.DiscreteDP``, in its form of state-action pairs.

        With a discount below one every method of ``DiscreteDP.solve`` applies. With discount 1 only
        QuantEcon's ``backward_induction(ddp, T)`` does, with ``T`` at least `steps`: paths that have ended wait
        at reward 0.

        Raises
        ------
        ImportError
            If quantecon is not installed; `arrays` does without it.

        Examples
        --------
        >>> import rdolib as rdo
        >>> from quantecon.markov import backward_induction
        >>> mdp = rdo.MDP.from_outcomes({0: {0: [(1.0, 0, 1.0, True)], 1: [(1.0, 0, -1.0, False)]}})
        >>> shaped = rdo.shaped_rewards(mdp, rdo.Quadratic(), stock=2.0, horizon=4)
        >>> values, _ = backward_induction(shaped.to_discrete_dp(), shaped.steps)
        >>> float(shaped.offset(0, 2.0) + values[0, shaped.index(0, 2.0)])
        0.0
        """
        try:
            from quantecon.markov import DiscreteDP
        except ImportError as error:
            raise ImportError(
                "to_discrete_dp() needs quantecon (pip install quantecon); arrays() gives the same numbers without it"
            ) from error
        with warnings.catch_warnings():  # that discount 1 leaves backward induction alone is said above
            warnings.filterwarnings("ignore", message="infinite horizon solution methods are disabled")
            return DiscreteDP(**self.arrays())


def shaped_rewards(
    mdp: MDP, objective: Objective, stock: ArrayLike = 0.0, horizon: int | None = None, memory: int = MEMORY
) -> ShapedMDP:
    """The reward, paid step by step, whose expected sum is the objective: an ordinary MDP with the same optimum.

    Parameters
    ----------
    mdp : MDP
        With scalar or vector rewards; the shaped reward is a number in either case.
    objective : ExpectedUtility
        Any, with a finite horizon or with ``gamma = 1``. With ``gamma < 1`` and no horizon: homogeneous (with a
        declared degree), and of positive degree and continuous unless every policy ends.
    stock : float or (n,) floats; for vector rewards (m,) or (n, m)
        Initial stocks; each has a node at every state that is not terminal. The shaped MDP's own ``initial`` is the
        original one, with the least of them.
    horizon : int, optional
        Number of steps; None means endless.
    memory : int
        Limit in bytes for the search for the reachable nodes.

    Returns
    -------
    ShapedMDP

    Raises
    ------
    NotOptimizableError
        The objective is no sum of rewards, infinitely many stocks can be reached, or ``gamma = 1`` and a cycle earns
        something for ever.
    InvalidArgumentError, MemoryLimitError

    Examples
    --------
    >>> import rdolib as rdo
    >>> mdp = rdo.MDP.from_outcomes({0: {0: [(1.0, 0, 1.0, False)], 1: [(1.0, 0, 0.0, True)]}}, gamma=0.5)
    >>> shaped = rdo.shaped_rewards(mdp, rdo.TargetReturn(), stock=-1.5)
    >>> shaped.mdp
    MDP(4 states (1 terminal), 2 actions, 6 pairs, 6 outcomes, gamma=0.5, initial=0)
    >>> shaped.stocks.tolist()
    [-1.5, -1.0, inf, nan]
    >>> float(shaped.offset(0, -1.5)), shaped.mdp.outcomes(0, 0)
    (-1.5, [(1.0, 1, 1.0, False)])
    """
    require_mdp(mdp)
    stocks, steps = check_stocks(mdp, stock), check_horizon(horizon)
    utility = _require_shapeable(mdp, objective, steps)
    check_steps(mdp, steps, memory)
    problem = build_problem(mdp, utility, stocks, steps)
    nodes = Nodes.reachable(problem, stocks, steps, memory)
    shaped = _assemble(nodes, stocks[:1])
    return ShapedMDP(shaped, utility, steps, nodes.states(), nodes.stocks(), nodes.times(), nodes)


def _require_shapeable(mdp: MDP, objective: Objective, horizon: int | None) -> ExpectedUtility:
    """The objective, if the shaped rewards of every path add up to it."""
    require_plannable(mdp, objective, horizon)
    if not isinstance(objective, ExpectedUtility):
        raise NotOptimizableError(
            f"{objective!r} is not an expected utility, so no reward paid step by step has it as its expected sum; "
            "use rdo.value_iteration, which solves it directly"
        )
    if horizon is not None or mdp.gamma == 1 or (end_components(mdp) < 0).all():
        return objective
    # What is left: w**t f(C_t) = f(c_0 + G_{0:t}) must tend to f(c_0 + G). On the line, degree p > 0 is enough.
    if objective.degree == 0 or (mdp.reward_dim > 1 and not objective._continuous):
        raise NotOptimizableError(
            f"{objective!r} is not known to be continuous and of positive degree: with gamma = {mdp.gamma:.6g} and "
            "no horizon a path can go on for ever, and its shaped rewards need not add up to the utility of its "
            "return; pass horizon=, or use rdo.value_iteration, which solves it directly"
        )
    return objective


def _assemble(nodes: Nodes, stock: Floats) -> MDP:
    """The shaped MDP, starting as the original one does, with this stock."""
    problem = nodes.problem
    columns, pairs = [], 0
    for t in range(len(nodes.layers)):
        columns.append(_columns(nodes, t, pairs))
        pairs += len(columns[-1][0])
    pair_state, pair_action, pair_of, prob, target, over, reward, pays = map(np.concatenate, zip(*columns, strict=True))
    if not np.isfinite(reward).all():
        raise InvalidArgumentError(
            f"{problem.objective!r} is infinite at a stock that can be reached, so its shaped reward is no number; "
            "use rdo.value_iteration, or a utility that is finite there"
        )
    shaped = MDP(
        gamma=problem.factor,
        **canonical(
            n_states=nodes.end + 1, n_actions=problem.mdp.n_actions, initial=_initial(nodes, stock),
            pair_state=pair_state, pair_action=pair_action, pair_of=pair_of, prob=prob,
            next_state=target.astype(np.int32), terminated=over, reward=reward.copy(),
        ),
    )  # fmt: skip
    if problem.factor == 1 and nodes.horizon is None:
        _refuse_earning_cycles(shaped, nodes, pair_state[pair_of], target, pays)
    return shaped


def _columns(nodes: Nodes, t: int, first_pair: int) -> tuple[NDArray[Any], ...]:
    """Layer ``t``: node and action of each pair; pair, probability, target, end, reward, pays of each outcome."""
    mdp, codes = nodes.problem.mdp, nodes.layers[t]
    out = Outcomes(nodes.problem, codes, max(0, nodes.left(t) - 1), nodes.last(t))
    step, on = out.step, ~out.over
    target = np.full(len(out.key), nodes.end)
    if on.any():
        after = nodes.layer(t + 1)
        place = np.searchsorted(nodes.layers[after], code(step.state[on], out.key[on]))
        target[on] = nodes.first[after] + place
    pair_node = np.repeat(np.arange(len(codes)), step.pair_count) + nodes.first[t]
    pays = (out.earned() != 0).reshape(-1, mdp.reward_dim).any(axis=1) & np.isfinite(codes.imag)[out.node]
    pair = step.owner + first_pair
    return pair_node, mdp.pair_action[step.pair], pair, step.prob, target, out.over, out.rewards(t), pays


def _initial(nodes: Nodes, stock: Floats) -> int | Floats:
    initial = nodes.problem.mdp.initial
    if isinstance(initial, int):
        return int(nodes.find(np.array([initial]), stock, 0)[0])
    states = np.flatnonzero(initial)
    where = nodes.find(states, np.repeat(stock, len(states), axis=0), 0)
    return total(where, initial[states], nodes.end + 1)


def _refuse_earning_cycles(shaped: MDP, nodes: Nodes, tail: Ints, head: Ints, pays: Bools) -> None:
    """Discount 1 without a horizon: where a policy can earn for ever, its return does not settle but the sum might."""
    component = end_components(shaped)
    inside = np.flatnonzero(pays & (component[tail] >= 0) & (component[tail] == component[head]))
    if len(inside):
        members = np.unique(nodes.states()[component == component[tail[inside[0]]]])[:8]
        raise NotOptimizableError(
            f"gamma = 1 without a horizon: the states {members.tolist()} can be cycled through for ever with rewards "
            "that are not all 0, so the return need not settle; pass horizon=, or use gamma < 1"
        )
