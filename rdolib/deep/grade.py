"""How far an agent is from the exact optimum.

For every (state, stock), or every level of a risk measure, three numbers stand side by side: what the agent's greedy
policy really achieves on the MDP (computed exactly, or simulated with its standard error), the optimum of the exact
solver, and what the uniformly random policy achieves. The regret is the first gap; divided by the second, from the
optimum to the random policy, it has no unit. The predicted law of the return is compared with the true one by their
Wasserstein distance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rdolib._progress import bar
from rdolib._rungs import check_horizon, require_mdp
from rdolib.deep.agent import Agent
from rdolib.distributions import Distribution, mixture, wasserstein
from rdolib.dp import check_stocks, value_iteration
from rdolib.errors import InvalidArgumentError, NotOptimizableError
from rdolib.evaluation import evaluate
from rdolib.mdp import MDP
from rdolib.objectives import Objective
from rdolib.optimize import optimize, start_distribution
from rdolib.risk import OuterSearch
from rdolib.simulate import rollout
from rdolib.stock import greatest_common_mesh

Floats = NDArray[np.float64]

#: Stocks that are graded where none are given.
_STOCKS = 9
#: Episodes, and steps of each, of a policy whose law cannot be computed because it need not end.
_EPISODES, _MOST_STEPS = 2000, 1000


@dataclass(frozen=True)
class Graded:
    """One line of a report.

    Attributes
    ----------
    state : int or None
        None: the initial states of the MDP, with their probabilities.
    stock : float or tuple of m floats
        The initial stock: given, or for a risk measure the one that the agent chose.
    level : float or None
        Of the risk measure.
    optimum, lower : float
        Upper and lower bound of the optimum; equal up to rounding where the solver is exact.
    achieved : float
        Of the agent's greedy policy.
    standard_error : float
        Of ``achieved``; 0 where it was computed exactly.
    random : float
        Of the uniformly random policy; nan where its return need not end.
    w1 : float
        Wasserstein distance between the predicted and the true law of the return; nan where it was not computed. Where
        actions tie, the law depends on which is taken, later too, and the distance can be large without any regret.
    """

    state: int | None
    stock: Any
    level: float | None
    optimum: float
    lower: float
    achieved: float
    standard_error: float
    random: float
    w1: float

    @property
    def regret(self) -> float:
        """Upper bound of the optimum minus achieved; where the bounds differ, the true regret may be smaller."""
        return self.optimum - self.achieved

    @property
    def relative(self) -> float:
        """Regret divided by optimum minus random; nan where these are equal."""
        span = self.optimum - self.random
        return self.regret / span if span > 0 else math.nan


@dataclass(frozen=True)
class Report:
    """The lines of `grade`; columns as arrays."""

    objective: str
    rows: tuple[Graded, ...] = field(repr=False)

    def _column(self, name: str) -> Floats:
        return np.array([getattr(row, name) for row in self.rows], dtype=np.float64)

    @property
    def regret(self) -> Floats:
        """(n,) optimum minus achieved."""
        return self._column("regret")

    @property
    def relative(self) -> Floats:
        """(n,) regret in units of the gap between optimum and random policy; nan where there is no gap."""
        return self._column("relative")

    @property
    def achieved(self) -> Floats:
        """(n,) value of the agent's policy."""
        return self._column("achieved")

    @property
    def optimum(self) -> Floats:
        """(n,) value of the optimal policy."""
        return self._column("optimum")

    @property
    def w1(self) -> Floats:
        """(n,) distance of the predicted from the true law."""
        return self._column("w1")

    @property
    def mean_relative(self) -> float:
        """Mean regret over mean gap between optimum and random policy, over the lines where both are known."""
        gap = self.optimum - self._column("random")
        known = np.isfinite(gap)
        return float(self.regret[known].sum() / gap[known].sum()) if gap[known].sum() > 0 else math.nan

    def to_json(self) -> list[dict[str, Any]]:
        """The lines as dictionaries that JSON can hold; what is not known is None."""
        lines = [asdict(row) | {"regret": row.regret, "relative": row.relative} for row in self.rows]
        return [{name: None if value != value else value for name, value in line.items()} for line in lines]

    def __str__(self) -> str:
        head = f"{'state':>6} {'stock':>12} {'level':>6} {'optimum':>10} {'achieved':>10} {'regret':>10} {'W1':>8}"
        lines = [f"{self.objective}: mean relative regret {self.mean_relative:.3g}", head]
        for row in self.rows:
            state, level = ("start" if row.state is None else row.state), ("" if row.level is None else row.level)
            stock = f"{row.stock:.6g}" if np.ndim(row.stock) == 0 else str(row.stock)
            lines.append(
                f"{state!s:>6} {stock:>12} {level!s:>6} {row.optimum:10.5g} {row.achieved:10.5g} {row.regret:10.3g} "
                f"{row.w1:8.3g}"
            )
        return "\n".join(lines)


def grade(
    agent: Agent,
    mdp: MDP,
    objective: Objective | Callable[[float], OuterSearch] | None = None,
    states: ArrayLike | None = None,
    stocks: ArrayLike | None = None,
    levels: Iterable[float] | None = None,
    horizon: int | None = None,
    episodes: int | None = None,
    seed: int = 0,
) -> Report:
    """Compare an agent with the exact optimum of the MDP it was trained on.

    Parameters
    ----------
    agent : Agent
    mdp : MDP
    objective : Objective, or callable from a level to an objective
        None: the one the agent has learned, at all `states` and `stocks`. A family such as ``rdo.CVaR`` needs `levels`;
        the agent chooses its stock for each.
    states : (n,) ints, optional
        By default the initial states.
    stocks : (k,) floats, or (k, m) for vector rewards, optional
        By default nine over the agent's range of initial stocks, on the lattice of the rewards where there is one.
    levels : floats, optional
    horizon : int, optional
        Steps of a return; None: endless, as the agent was trained.
    episodes : int, optional
        None: the law of the agent's return is computed. Otherwise it is simulated with so many episodes.
    seed : int
        Of the simulation.

    Returns
    -------
    Report

    Examples
    --------
    >>> import rdolib as rdo
    >>> from rdolib.deep import Config, TabularEnv, grade, train
    >>> mdp = rdo.MDP.from_outcomes({0: {0: [(1.0, 1, 1.0, True)], 1: [(1.0, 1, 3.0, True)]}})
    >>> config = Config(steps=200, warmup=64, batch=64, quantiles=4, hidden=(32,), learning_rate=0.01)
    >>> agent = train(TabularEnv(mdp, num_envs=16), rdo.TargetReturn(), config)
    >>> report = grade(agent, mdp, stocks=[-1.0, -3.0])
    >>> report.optimum, report.regret
    (array([0., 0.]), array([0., 0.]))
    """
    require_mdp(mdp)
    spec = agent.spec
    states_of_agent = spec.observation.count or (spec.observation.shape or (0,))[0]
    if (states_of_agent, spec.reward_dim) != (mdp.n_states, mdp.reward_dim):
        raise InvalidArgumentError(
            f"the agent was trained on {states_of_agent} states with {spec.reward_dim} reward components; {mdp!r} is "
            "another problem"
        )
    examiner = _Examiner(agent, mdp, check_horizon(horizon), episodes, seed)
    if levels is not None or isinstance(objective, OuterSearch):
        if objective is None or (isinstance(objective, Objective) and levels is not None):
            raise InvalidArgumentError("levels= needs a family of objectives, such as objective=rdo.CVaR")
        if states is not None or stocks is not None:
            raise InvalidArgumentError("a risk measure is graded at the start, and chooses its stock; leave both out")
        make: Any = objective
        family = [(None, make)] if levels is None else [(float(x), make(float(x))) for x in levels]
        return Report(_name(objective), tuple(examiner.levels(family)))
    chosen = agent.objective if objective is None else objective
    if not isinstance(chosen, Objective):
        raise InvalidArgumentError("a family of objectives needs levels=, such as levels=[0.05, 0.25, 1.0]")
    return Report(_name(chosen), tuple(examiner.stocks(chosen, states, stocks)))


def _name(objective: Any) -> str:
    return getattr(objective, "__name__", repr(objective))


@dataclass(frozen=True)
class _Examiner:
    agent: Agent
    mdp: MDP
    horizon: int | None
    episodes: int | None
    seed: int

    def stocks(self, objective: Objective, states: ArrayLike | None, stocks: ArrayLike | None) -> Iterator[Graded]:
        """A line for every state and stock."""
        mdp = self.mdp
        chosen = np.flatnonzero(start_distribution(mdp, None) > 0) if states is None else np.atleast_1d(states)
        several = check_stocks(mdp, self._default_stocks() if stocks is None else stocks)
        solution = value_iteration(mdp, objective, several, self.horizon)
        with bar("grading", len(chosen) * len(several)) as progress:
            for state in chosen.tolist():
                random = self._random(state)
                for c in several:
                    returns, error = self._returns(state, c)
                    stock = float(c) if mdp.reward_dim == 1 else tuple(c.tolist())
                    yield Graded(
                        state, stock, None, *_bounds(solution.bounds(state, c)), float(objective(returns + c)),
                        error(lambda x, c=c: objective(x + c)), _value(objective, random, c),
                        _distance(self.agent.returns(self._see(state), c), returns),
                    )  # fmt: skip
                    progress.update()

    def levels(self, family: Iterable[tuple[float | None, Any]]) -> Iterator[Graded]:
        """A line for every level, from the initial states."""
        weights = start_distribution(self.mdp, None)
        states = np.flatnonzero(weights > 0).tolist()
        random = _mixed([self._random(s) for s in states], weights[states])
        with bar("grading") as progress:
            for level, objective in family:
                c = self.agent.choose_stock(objective)
                returns, error = self._returns(None, np.array(c))
                predicted = _mixed([self.agent.returns(self._see(s), c) for s in states], weights[states])
                yield Graded(
                    None, c, level, *_bounds(optimize(self.mdp, objective, self.horizon).bounds),
                    float(objective(returns)), error(objective), _value(objective, random, None),
                    _distance(predicted, returns),
                )  # fmt: skip
                progress.update()

    def _see(self, state: int) -> Any:
        """The observation of a state."""
        onehot = not self.agent.spec.observation.count
        return np.eye(self.mdp.n_states, dtype=np.float32)[state] if onehot else state

    @cached_property
    def _evaluation(self) -> Any:
        return evaluate(self.mdp, self.agent, self.horizon)

    def _returns(self, state: int | None, stock: Floats) -> tuple[Distribution, Callable[[Any], float]]:
        """Law of the agent's return (None: from the initial states), and the standard error of an objective of it."""
        if self.episodes is None:
            weights = start_distribution(self.mdp, state)
            states = np.flatnonzero(weights > 0)
            try:
                laws = [self._evaluation(s, stock) for s in states.tolist()]
                return (laws[0] if len(laws) == 1 else mixture(laws, weights[states])), lambda _: 0.0
            except NotOptimizableError:  # greedy, it may walk in circles for ever
                pass
        count, steps = self.episodes or _EPISODES, self.horizon
        if steps is None and self.mdp.gamma == 1:
            steps = _MOST_STEPS  # without discount an episode need not end
        runs = rollout(self.mdp, self.agent, count, self.seed, stock, state, steps)
        return _empirical(runs.returns), lambda objective: _standard_error(objective, runs.returns, self.seed)

    def _random(self, state: int) -> Distribution | None:
        """Law of the return of the uniformly random policy; None where it need not end."""
        if self.mdp.terminal[state]:
            return Distribution(np.zeros((1, self.mdp.reward_dim) if self.mdp.reward_dim > 1 else 1), [1.0])
        probs = np.zeros((self.mdp.n_states, self.mdp.n_actions))
        probs[self.mdp.pair_state, self.mdp.pair_action] = 1.0
        probs /= np.maximum(probs.sum(axis=1, keepdims=True), 1.0)
        try:
            return evaluate(self.mdp, probs, self.horizon)(state)
        except NotOptimizableError:
            return None

    def _default_stocks(self) -> Floats:
        spec = self.agent.spec
        stocks = np.linspace(spec.low, spec.high, _STOCKS)
        mesh = greatest_common_mesh(self.mdp.reward)
        if mesh is not None:
            stocks = np.rint(stocks / float(mesh)) * float(mesh)
        return stocks[:, 0] if spec.reward_dim == 1 else stocks


def _bounds(bounds: tuple[float, float]) -> tuple[float, float]:
    """Upper and lower."""
    return float(bounds[1]), float(bounds[0])


def _value(objective: Objective, law: Distribution | None, stock: Floats | None) -> float:
    if law is None:
        return math.nan
    return float(objective(law if stock is None else law + stock))


def _mixed(laws: list[Distribution | None] | list[Distribution], weights: Floats) -> Distribution | None:
    known = [law for law in laws if law is not None]
    return mixture(known, weights) if len(known) == len(laws) else None


def _distance(predicted: Distribution | None, true: Distribution) -> float:
    """W1; not for vectors with so many atoms that the transport problem would take long."""
    if predicted is None or (predicted.reward_dim > 1 and predicted.n_atoms * true.n_atoms > 2**18):
        return math.nan
    return float(wasserstein(predicted, true))


def _empirical(returns: Floats) -> Distribution:
    return Distribution(returns, np.full(len(returns), 1.0 / len(returns)))


def _standard_error(objective: Callable[[Distribution], Any], returns: Floats, seed: int) -> float:
    """Of an objective of simulated returns, by the bootstrap."""
    rng = np.random.default_rng(seed)
    draws = [float(objective(_empirical(returns[rng.integers(len(returns), size=len(returns))]))) for _ in range(100)]
    return float(np.std(draws, ddof=1))
