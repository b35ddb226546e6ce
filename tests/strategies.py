"""Hypothesis strategies for tiny decision problems, in exact fractions.

The tables are meant to be awkward: self-loops, terminal states, outcomes that end the return although their
next state goes on, outcomes of probability zero, duplicate rows, unreachable states, states with different
actions.
"""

from __future__ import annotations

from fractions import Fraction

from hypothesis import strategies as st

from tests.naive import Table

INTEGERS = tuple(Fraction(n) for n in (-2, -1, 0, 1, 2))
HALVES = tuple(Fraction(n, 2) for n in (-3, -1, 0, 1, 2))
TENTHS = tuple(Fraction(n, 10) for n in (-7, -1, 0, 2, 3))
GAMMAS = (Fraction(1), Fraction(1, 2), Fraction(1, 3), Fraction(9, 10))


def mostly_large(low: int, high: int) -> st.SearchStrategy[int]:
    """Return numbers from low to high, half of them the largest, which make the more telling problems."""
    return st.sampled_from([*range(low, high), *[high] * max(1, high - low)])


@st.composite
def probabilities(draw: st.DrawFn, size: int) -> list[Fraction]:
    """Return ``size`` probabilities with a denominator of at most six, some of them perhaps zero."""
    weights = [draw(st.integers(0, 2)) for _ in range(size)]
    if not any(weights):
        weights[0] = 1
    return [Fraction(w, sum(weights)) for w in weights]


@st.composite
def tables(
    draw: st.DrawFn,
    *,
    max_states: int = 3,
    max_actions: int = 2,
    max_outcomes: int = 2,
    rewards: tuple[Fraction, ...] | None = None,
    layered: bool = False,
) -> Table:
    """Return a table whose states are 0, 1, ..., of which the last may be terminal.

    Parameters
    ----------
    rewards
        The rewards to choose from; ``None`` draws one of the integer, half and tenth sets for the whole
        table.
    layered
        If true, every outcome that does not end the return goes to a larger state, so that every policy ends
        within ``max_states`` steps. If false, anything goes, self-loops included.
    """
    if rewards is None:
        rewards = draw(st.sampled_from((INTEGERS, HALVES, TENTHS)))
    n_states = draw(mostly_large(2 if layered else 1, max_states))
    closed = layered or (n_states > 1 and draw(st.booleans()))
    table: dict[int, dict[int, list[tuple[Fraction, int, Fraction, bool]]]] = {}
    for state in range(n_states):
        if closed and state == n_states - 1:
            # A terminal state, in the form that gymnasium's toy-text tables give it.
            table[state] = {0: [(Fraction(1), state, Fraction(0), True)]}
            continue
        table[state] = {}
        for action in range(draw(mostly_large(1, max_actions))):
            probs = draw(probabilities(draw(mostly_large(1, max_outcomes))))
            table[state][action] = [
                (
                    prob,
                    draw(st.integers(state + 1 if layered else 0, n_states - 1)),
                    draw(st.sampled_from(rewards)),
                    draw(st.sampled_from((False, False, False, True))),
                )
                for prob in probs
            ]
            if draw(st.sampled_from((False, False, False, True))):
                # The same outcome twice, in two rows.
                prob, after, reward, terminated = table[state][action].pop()
                table[state][action] += [(prob / 2, after, reward, terminated)] * 2
    return table


def levels() -> st.SearchStrategy[Fraction]:
    """Return risk levels in (0, 1]."""
    return st.sampled_from(
        [Fraction(1, 20), Fraction(1, 4), Fraction(1, 3), Fraction(1, 2), Fraction(4, 5), Fraction(1)]
    )


def stocks() -> st.SearchStrategy[Fraction]:
    """Return initial stocks, some of which make ties with the return likely."""
    return st.sampled_from([Fraction(n, 2) for n in range(-6, 7)] + [Fraction(1, 10), Fraction(-3, 10)])


def floats(table: Table) -> dict[int, dict[int, list[tuple[float, int, float, bool]]]]:
    """Return the table in floating point, as `rdolib.MDP.from_outcomes` takes it."""
    return {
        state: {
            action: [(float(prob), after, float(reward), ended) for prob, after, reward, ended in outcomes]
            for action, outcomes in rows.items()
        }
        for state, rows in table.items()
    }
