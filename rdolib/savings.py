"""Saving for a goal: monthly returns of the market and of cash, and the decision problem that they make.

Wealth is counted in *levels*: one level is the smallest amount that the plan tells apart, say a thousand. Each month
starts with a flow (a contribution, or minus a withdrawal), then a share ``x`` of the wealth is in the market:

    W' = max(W + flow, 0) (1 + x market + (1 - x) cash).

Months are drawn independently from a sample. As an `MDP` the wealth is a level from 0 to ``top`` and the reward is the
change of the level, so that ``c + G`` with ``c = W_0 - goal`` is what the goal is exceeded by in the end. What falls
between two levels is rounded:

* ``"split"``: to one of the two levels, with the probabilities that keep the mean;
* ``"down"``, ``"up"``: always to the lower, always to the upper level.

``W'`` grows with ``W`` whatever the mix. So, by induction over the months, values for nondecreasing utilities grow with
the wealth, and rounding down (up) every month gives a lower (an upper) bound of the best value for wealth that is not
rounded at all. `Savings.bounds` computes both on cells much finer than a level, and also bounds the value of any given
strategy. At the top: rounding down throws away what exceeds it; rounding up stops there, with all that the utility can
give. That is a bound because the goals lie below the top.

Derived here; the market is that of Fama and French (1993), as it comes with the package ``arch``.
"""

from __future__ import annotations

import gzip
import importlib.util
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rdolib import _kernels, _wealth
from rdolib._canonical import canonical
from rdolib._checks import as_int, float_array
from rdolib._progress import bar
from rdolib._rungs import check_horizon
from rdolib.dp import Policy
from rdolib.errors import InvalidArgumentError, InvalidMDPError
from rdolib.mdp import MDP
from rdolib.objectives import ExpectedUtility
from rdolib.optimize import start_distribution

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Months = NDArray[np.datetime64]
Rounding = Literal["split", "down", "up"]

#: A wealth this many times the top stands for all that may lie above it.
_FAR = 1e6


@dataclass(frozen=True, eq=False)
class MonthlyReturns:
    """Simple monthly returns of the market and of cash, without a gap.

    Parameters
    ----------
    months : (n,) datetime64[M] array
        Consecutive months. Anything numpy can turn into months will do: ``["1987-10", "1987-11"]``.
    market, cash : (n,) arrays
        Returns as fractions: 0.01 is one percent.

    Raises
    ------
    InvalidArgumentError
        Months that are missing, twice there or out of order, or returns that are no numbers above -1; the message names
        the months.

    Examples
    --------
    >>> from rdolib.savings import MonthlyReturns
    >>> returns = MonthlyReturns(["1987-09", "1987-10"], [-0.02, -0.23], [0.004, 0.006])
    >>> len(returns), returns.last
    (2, '1987-10')
    """

    months: Months = field(repr=False)
    market: Floats = field(repr=False)
    cash: Floats = field(repr=False)

    def __post_init__(self) -> None:
        months = _as_months(self.months, "months")
        object.__setattr__(self, "months", months)
        for name in ("market", "cash"):
            values = _as_floats(getattr(self, name), name).copy()
            object.__setattr__(self, name, values)
            if values.shape != months.shape or values.ndim != 1 or len(values) == 0:
                raise InvalidArgumentError(
                    f"{name} must hold one return for each month, shape {months.shape}, at least one; got shape "
                    f"{values.shape}"
                )
            bad = ~(np.isfinite(values) & (values > -1))
            if bad.any():
                raise InvalidArgumentError(
                    f"the {name} return of {_named(months[bad])} is not a number above -1; fill it in, or pass a "
                    "stretch of months without it"
                )
        self._require_consecutive()

    def _require_consecutive(self) -> None:
        if np.isnat(self.months).any():
            raise InvalidArgumentError(
                f"month number {int(np.isnat(self.months).argmax())} is NaT, no month; leave it out, with its returns"
            )
        steps = np.diff(self.months).astype(np.int64)
        if (steps <= 0).any():
            raise InvalidArgumentError(
                f"months must ascend, each once; {_named(self.months[1:][steps <= 0])} does not follow the month before"
            )
        missing = np.setdiff1d(np.arange(self.months[0], self.months[-1] + 1), self.months)
        if len(missing):
            raise InvalidArgumentError(
                f"months are missing: {_named(missing)}; fill them in, or pass a stretch without gaps"
            )

    def __len__(self) -> int:
        return len(self.months)

    @property
    def first(self) -> str:
        """The first month, as ``"1926-07"``."""
        return str(self.months[0])

    @property
    def last(self) -> str:
        """The last month."""
        return str(self.months[-1])

    def between(self, first: str, last: str) -> MonthlyReturns:
        """The months from ``first`` to ``last``, both included; an error where one of them is not in the data."""
        ends = _as_months([first, last], "first and last")
        if not self.months[0] <= ends[0] <= ends[1] <= self.months[-1]:
            raise InvalidArgumentError(f"{first} to {last} does not lie in the data, {self.first} to {self.last}")
        inside = (self.months >= ends[0]) & (self.months <= ends[1])
        return MonthlyReturns(self.months[inside], self.market[inside], self.cash[inside])

    def outcomes(self, n: int | None) -> tuple[Floats, Floats, Floats]:
        """Probabilities, market returns and cash returns (n,) of ``n`` outcomes that stand for all months.

        Months are sorted by their market return and cut into ``n`` groups of equal size (to within one month); each
        group becomes its mean. So the mean of every mix is that of the sample. Then the market returns are spread out
        from their mean by the factor that restores their variance. None keeps every month.
        """
        if n is None:
            return np.full(len(self), 1 / len(self)), self.market, self.cash
        count = as_int(n)
        if count is None or not 1 <= count <= len(self):
            raise InvalidArgumentError(f"outcomes must be an integer from 1 to {len(self)}, or None; got {n!r}")
        groups = np.array_split(np.argsort(self.market, kind="stable"), count)
        prob = np.array([len(group) for group in groups]) / len(self)
        market, cash = (np.array([values[group].mean() for group in groups]) for values in (self.market, self.cash))
        mean, kept = self.market.mean(), prob @ (market - self.market.mean()) ** 2
        if kept > 0:
            market = mean + (market - mean) * np.sqrt(self.market.var() / kept)
        return prob, market, cash


def _as_months(values: Any, name: str) -> Months:
    try:
        return np.asarray(values, dtype="datetime64[M]")
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidArgumentError(f'{name} must be months such as "1987-10": {error}') from None


def _as_floats(values: Any, name: str) -> Floats:
    try:
        return float_array(values, name)
    except InvalidMDPError as error:
        raise InvalidArgumentError(str(error)) from None


def _as_number(value: Any, name: str, least: float = -np.inf) -> float:
    if isinstance(value, Real) and not isinstance(value, bool) and least <= float(value) and np.isfinite(float(value)):
        return float(value)
    bound = "" if least == -np.inf else f" of at least {least:g}"
    raise InvalidArgumentError(f"{name} must be a finite number of levels{bound}; got {value!r}")


def _as_steps(horizon: int) -> int:
    steps = check_horizon(horizon)
    if steps is None:
        raise InvalidArgumentError("horizon must be a number of months; got None")
    return steps


def _named(months: Months) -> str:
    shown = ", ".join(str(m) for m in months[:6])
    return shown if len(months) <= 6 else f"{shown}, ... ({len(months)} in all)"


def market_returns() -> MonthlyReturns:
    """Monthly returns of the stock market of the United States and of one-month bills, July 1926 to November 2018.

    The value-weighted market of Fama and French (market minus bills, plus bills), as the package ``arch`` ships it.
    Needs that package: ``pip install rdolib[data]``. It is read, not imported.

    Examples
    --------
    >>> from rdolib.savings import market_returns
    >>> returns = market_returns()
    >>> returns.first, returns.last, len(returns)
    ('1926-07', '2018-11', 1109)
    """
    found = importlib.util.find_spec("arch")
    places = (found.submodule_search_locations or []) if found else []
    files = [Path(place) / "data" / "frenchdata" / "frenchdata.csv.gz" for place in places]
    file = next((file for file in files if file.exists()), None)
    if file is None:
        raise ImportError("the market's returns come with the package arch, which is not installed: rdolib[data]")
    with gzip.open(file, "rt", encoding="utf8") as lines:
        header = next(lines).strip().split(",")
        rows = [line.strip().split(",") for line in lines]
    date, excess, cash = (np.array([row[header.index(name)] for row in rows]) for name in ("Date", "Mkt-RF", "RF"))
    months = [f"{month[:4]}-{month[4:6]}" for month in date]
    bills = cash.astype(np.float64) / 100
    return MonthlyReturns(np.array(months, dtype="datetime64[M]"), excess.astype(np.float64) / 100 + bills, bills)


@dataclass(frozen=True, eq=False)
class Savings:
    """A savings problem: mixes of two assets, a sample of months, a monthly flow. Make one with `from_returns`.

    Attributes
    ----------
    mixes : (A,) array
        Share of the wealth that each action puts into the market.
    growth : (A, K) array
        What each mix multiplies the wealth by in each of the outcomes of a month.
    prob : (K,) array
        Probabilities of the outcomes.
    flow : float
        Added at the start of every month, in levels; negative for withdrawals.
    top : int
        The highest level; levels are 0 to ``top``.
    """

    mixes: Floats
    growth: Floats = field(repr=False)
    prob: Floats = field(repr=False)
    flow: float
    top: int

    @classmethod
    def from_returns(
        cls, returns: MonthlyReturns, top: int, flow: float = 0.0, mixes: int = 11, outcomes: int | None = 21
    ) -> Savings:
        """The problem of a sample of months.

        Parameters
        ----------
        returns : MonthlyReturns
        top : int
            The highest level of wealth. Goals must lie below it.
        flow : float
            Contribution of a month, in levels; negative: a withdrawal.
        mixes : int
            Number of mixes, from all cash to all market in equal steps; at least 2.
        outcomes : int or None
            Number of outcomes of a month (see `MonthlyReturns.outcomes`); None: every month of the sample.

        Examples
        --------
        >>> import rdolib as rdo
        >>> from rdolib.savings import MonthlyReturns, Savings
        >>> returns = MonthlyReturns(["2000-01", "2000-02", "2000-03"], [0.5, 0.0, -0.5], [0.0, 0.0, 0.0])
        >>> savings = Savings.from_returns(returns, top=16, mixes=2, outcomes=None)
        >>> mdp = savings.mdp(wealth=8)
        >>> solution = rdo.value_iteration(mdp, rdo.Threshold(), stock=[8 - 12], horizon=2)
        >>> round(solution.objective_value(8, 8 - 12), 6)  # all in the market: 8 -> 12, or 8 -> 8 -> 12
        0.444444
        """
        levels, n = as_int(top), as_int(mixes)
        if levels is None or levels < 1:
            raise InvalidArgumentError(f"top must be a positive integer, the highest level of wealth; got {top!r}")
        if n is None or n < 2:
            raise InvalidArgumentError(f"mixes must be an integer of at least 2; got {mixes!r}")
        if not isinstance(returns, MonthlyReturns):
            raise InvalidArgumentError(
                f"returns must be MonthlyReturns, as of market_returns(); got {type(returns).__name__}"
            )
        flow = _as_number(flow, "flow")
        prob, market, cash = returns.outcomes(outcomes)
        shares = np.linspace(0.0, 1.0, n)
        growth = 1 + shares[:, None] * market + (1 - shares[:, None]) * cash
        if (growth <= 0).any():
            raise InvalidArgumentError(
                f"{outcomes} outcomes stretch a month to a growth factor of {growth.min():.6g}; use more outcomes, or "
                "None for the months themselves"
            )
        return cls(shares, growth, prob, flow, levels)

    # ---------------------------------------------------------------- as an MDP

    def mdp(self, rounding: Rounding = "split", wealth: int = 0) -> MDP:
        """The problem as an MDP whose states are the levels and whose rewards are changes of the level.

        ``wealth`` is the initial level. See the module's docstring for ``rounding``.
        """
        start = as_int(wealth)
        if start is None or not 0 <= start <= self.top:
            raise InvalidArgumentError(f"wealth must be a level, an integer from 0 to {self.top}; got {wealth!r}")
        if rounding not in ("split", "down", "up"):
            raise InvalidArgumentError(f'rounding must be "split", "down" or "up"; got {rounding!r}')
        level = np.arange(self.top + 1)
        n_mixes = len(self.mixes)
        after = np.maximum(level + self.flow, 0.0)[:, None, None] * self.growth  # (levels, A, K)
        after = np.minimum(after, self.top)
        down = np.floor(after + _wealth.SLACK).astype(np.int32)
        up = np.ceil(after - _wealth.SLACK).astype(np.int32)
        if rounding == "up":
            up[self.top] = self.top
        ends = {"down": [down], "up": [up], "split": [down, up]}[rounding]
        share = np.clip(after - down, 0.0, 1.0)
        weights = [1 - share, share] if rounding == "split" else [np.ones_like(share)]
        next_level = np.stack(ends, axis=-1).reshape(len(level), -1)
        prob = np.stack([self.prob * weight for weight in weights], axis=-1)
        count = next_level.shape[1] // n_mixes
        arrays = canonical(
            n_states=len(level),
            n_actions=n_mixes,
            initial=start,
            pair_state=np.repeat(level, n_mixes),
            pair_action=np.tile(np.arange(n_mixes, dtype=np.int32), len(level)),
            pair_of=np.repeat(np.arange(len(level) * n_mixes), count),
            prob=prob.ravel(),
            next_state=next_level.ravel(),
            terminated=np.zeros(next_level.size, dtype=np.bool_),
            reward=(next_level - level[:, None]).ravel().astype(np.float64),
        )
        return MDP(gamma=1.0, **arrays)

    def strategy(self, policy: Policy, offset: float, horizon: int) -> Ints:
        """The mixes (horizon, levels) that a policy for `mdp` takes when its stock is the level plus ``offset``.

        For a goal and a fixed-stock objective the offset is minus the goal; for a plan of `optimize` it is
        ``plan.stock - wealth``.

        A policy knows the levels that can occur at a step, on small problems perhaps no others. What it does not know
        gets the mix of the nearest level that it knows (of two, the lower). That changes nothing for wealth that is
        rounded as in `mdp`. Wealth that is not rounded may come there; `bounds` and `replay` are then about the mixes
        returned here. For the policy's own mix at every level, solve with ``stock=np.arange(top + 1) + offset``.

        Raises
        ------
        InvalidArgumentError
            An offset with which the policy knows no level whose mix matters, as when it was solved for another one; a
            horizon longer than the policy's; a policy for another number of levels.

        Examples
        --------
        >>> import rdolib as rdo
        >>> from rdolib.savings import MonthlyReturns, Savings
        >>> returns = MonthlyReturns(["2000-01", "2000-02"], [0.5, -0.5], [0.0, 0.0])
        >>> savings = Savings.from_returns(returns, top=16, mixes=2, outcomes=None)
        >>> solution = rdo.value_iteration(savings.mdp(wealth=8), rdo.Threshold(), stock=8 - 12, horizon=2)
        >>> savings.strategy(solution.policy, -12, horizon=2)[:, [4, 8, 12]].tolist()
        [[0, 0, 0], [0, 1, 0]]
        """
        if not isinstance(policy, Policy):
            raise InvalidArgumentError(f"policy must be the policy of a solution or plan; got {policy!r}")
        if policy.mdp.n_states != self.top + 1:
            raise InvalidArgumentError(
                f"policy must be for this problem's mdp(), with {self.top + 1} states; got {policy.mdp.n_states} states"
            )
        level, above, steps = np.arange(self.top + 1), _as_number(offset, "offset"), _as_steps(horizon)
        if policy.horizon is not None and steps > policy.horizon:
            raise InvalidArgumentError(f"horizon must be at most the policy's, {policy.horizon}; got {steps}")
        return np.stack([_nearest_known(policy, level, above, t) for t in range(steps)])

    # ---------------------------------------------------------------- wealth that is not rounded

    def bounds(
        self, objective: ExpectedUtility, goal: float, horizon: int, wealth: float,
        strategy: ArrayLike | None = None, fine: int = 32,
    ) -> tuple[float, float]:  # fmt: skip
        """Certified bounds of ``E f(W - goal)`` after ``horizon`` months, for wealth that is not rounded.

        Parameters
        ----------
        objective : ExpectedUtility
            Nondecreasing and constant above the top, as `Threshold` and `Shortfall` are when the goal is at most the
            top.
        goal, wealth : float
            In levels; the wealth is at least 0.
        horizon : int
        strategy : int array, optional
            The mix of each month and level, (horizon, levels) or anything that numpy broadcasts to it: a number is a
            fixed mix, (horizon, 1) a glide path. Between two levels the lower one counts. None: the best of all
            strategies, which may look at the exact wealth.
        fine : int
            Cells of each level; the bounds close like one over this number.
        """
        steps, wealth = _as_steps(horizon), _as_number(wealth, "wealth", 0)
        value = self._final(objective, goal, fine)
        flow = self.flow * fine
        if strategy is None:
            low, high = (self._best(steps, value[up], flow, bool(up)) for up in (0, 1))
        else:
            low, high = self._follow(self._mixes(strategy, steps), value, flow, fine)
        cell = int(min(wealth, self.top) * fine)
        return float(low[cell]), float(high[cell])

    def _final(self, objective: ExpectedUtility, goal: float, fine: int) -> tuple[Floats, Floats]:
        """Least and greatest utility on every cell after the last month."""
        if as_int(fine) is None or fine < 1:
            raise InvalidArgumentError(f"fine must be a positive integer; got {fine!r}")
        goal = _as_number(goal, "goal")
        edge = np.append(np.arange(self.top * fine + 1) / fine, _FAR * self.top) - goal
        flat = isinstance(objective, ExpectedUtility) and objective.nondecreasing
        if not flat or objective.utility(edge[-2]) != objective.utility(edge[-1]):  # at the top, and far above
            raise InvalidArgumentError(
                f"{objective!r} must be nondecreasing and constant above the top, {self.top} levels, for goal = "
                f"{goal:.6g}: use rdo.Threshold() or rdo.Shortfall() and a goal of at most the top"
            )
        # A cell does not hold its right end: a threshold that lies there is not met.
        inside = np.append(edge[1:-1] - 2e-12, edge[-1])
        return objective.utility(edge[:-1]), objective.utility(inside)

    def _mixes(self, strategy: ArrayLike, steps: int) -> Ints:
        try:
            mixes = np.broadcast_to(np.asarray(strategy), (steps, self.top + 1))
        except ValueError:
            shape = np.asarray(strategy, dtype=object).shape
            raise InvalidArgumentError(
                f"strategy must broadcast to (horizon, levels) = ({steps}, {self.top + 1}); got shape {shape}"
            ) from None
        if mixes.dtype.kind not in "iu" or mixes.min() < 0 or mixes.max() >= len(self.mixes):
            raise InvalidArgumentError(f"strategy must hold numbers of mixes, integers from 0 to {len(self.mixes) - 1}")
        return mixes.astype(np.int64)

    def _best(self, steps: int, value: Floats, flow: float, up: bool) -> Floats:
        """Bounds of the best value on every cell, from below or from above (``up``)."""
        out, work = np.empty_like(value), np.array([0, self.growth.size])
        with bar("bounding", steps) as progress:
            for _ in range(steps):

                def month(box: _kernels.Box, value: Floats = value, out: Floats = out) -> None:
                    _wealth.best(self.growth, self.prob, flow, up, value, out, box[2], box[3])

                _kernels.run_in_boxes(month, work, len(value))
                value, out = out, value
                progress.update()
        return value

    def _follow(self, mixes: Ints, value: tuple[Floats, Floats], flow: float, fine: int) -> tuple[Floats, Floats]:
        """Bounds of the value of a strategy on every cell."""
        out, work = (np.empty_like(value[0]), np.empty_like(value[1])), np.array([0, 4 * len(self.prob)])
        with bar("bounding", len(mixes)) as progress:
            for mix in mixes[::-1]:

                def month(
                    box: _kernels.Box, mix: Ints = mix, value: tuple[Floats, Floats] = value, out: Any = out
                ) -> None:
                    _wealth.follow(self.growth, self.prob, flow, mix, fine, *value, *out, box[2], box[3])

                _kernels.run_in_boxes(month, work, len(value[0]))
                value, out = out, value
                progress.update()
        return value

    def replay(self, strategy: ArrayLike, market: ArrayLike, cash: ArrayLike, wealth: float) -> Floats:
        """Wealth (n, horizon + 1) before the first and after every month, in levels, never rounded and with no top.

        ``market`` and ``cash`` (n, horizon) are returns of at least -1, row by row: stretches of the past, or months
        drawn at random. See `bounds` for ``strategy``.
        """
        market, cash = _as_floats(market, "market"), _as_floats(cash, "cash")
        if market.ndim != 2 or market.shape != cash.shape or market.shape[1] == 0:
            raise InvalidArgumentError(
                f"market and cash must have one shape, (n, horizon); got {market.shape} and {cash.shape}"
            )
        for name, values in (("market", market), ("cash", cash)):
            bad = ~(np.isfinite(values) & (values >= -1))
            if bad.any():
                row, month = np.argwhere(bad)[0]
                raise InvalidArgumentError(
                    f"{name} return {values[row, month]} in row {row}, month {month} is not a number of at least -1"
                )
        mixes = self._mixes(strategy, market.shape[1])
        held = np.full((len(market), market.shape[1] + 1), _as_number(wealth, "wealth", 0))
        for t in range(market.shape[1]):
            share = self.mixes[mixes[t, np.minimum(held[:, t], self.top).astype(np.int64)]]
            growth = 1 + share * market[:, t] + (1 - share) * cash[:, t]
            held[:, t + 1] = np.maximum(held[:, t] + self.flow, 0.0) * growth
        return held


def _nearest_known(policy: Policy, level: Ints, offset: float, t: int) -> Ints:
    """Actions (n,) at ascending levels; one that the policy does not know is that of the nearest level it knows."""
    stock = level.astype(np.float64) + offset
    action = _known(policy, level, stock, t)
    known = action >= 0
    if known.all():
        return action
    live = ~policy.mdp.terminal[level]
    if t == 0 and not (known & live & _matters(policy, level, stock)).any():
        raise InvalidArgumentError(
            f"offset {offset:.6g}: the policy knows no level whose mix still matters with a stock of the level plus "
            "this; pass the offset that it was solved for"
        )
    source = np.flatnonzero(known & live if (known & live).any() else known)  # ruin is a mix of nothing
    nearest = np.abs(level[~known, None] - level[source]).argmin(axis=1)
    action[~known] = action[source[nearest]]
    return action


def _matters(policy: Policy, level: Ints, stock: Floats) -> NDArray[np.bool_]:
    """Levels (n,) whose mix at the start says that their stock is meant: what is decided anyway always has a mix."""
    starts = np.isin(level, np.flatnonzero(start_distribution(policy.mdp, None)))
    return np.asarray(starts | (policy.table.side(level, stock, 0) == 0))


def _known(policy: Policy, level: Ints, stock: Floats, t: int) -> Ints:
    """Actions (n,), -1 where the policy has none: halves of what it refuses are asked again."""
    try:
        return policy.actions(level, stock, t).astype(np.int64)
    except InvalidArgumentError:
        if len(level) == 1:
            return np.array([-1])
        half = len(level) // 2
        parts = (slice(half), slice(half, None))
        return np.concatenate([_known(policy, level[part], stock[part], t) for part in parts])
