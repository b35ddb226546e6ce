"""The builder of gridworlds from maps drawn with characters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from rdolib._canonical import Arrays, Floats, Ints32, read_only
from rdolib._checks import check_fraction
from rdolib._outcomes import from_outcomes
from rdolib.errors import InvalidMDPError

#: (row, column) steps of the actions 0 up, 1 right, 2 down, 3 left: the order of CliffWalking.
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))


class Geometry(NamedTuple):
    """The fields of `rdolib.mdp.Grid`."""

    lines: tuple[str, ...]
    states: Ints32
    moves: tuple[tuple[int, int], ...]


def geometry(lines: tuple[str, ...], moves: tuple[tuple[int, int], ...], walls: str = "") -> Geometry:
    """Number the cells of a map that are not walls, row by row."""
    free = np.array([[character not in walls for character in line] for line in lines])
    states = np.full(free.shape, -1, dtype=np.int32)
    states[free] = np.arange(int(free.sum()))
    return Geometry(lines, read_only(states), moves)


def from_grid(
    text: str, slip: float, step_reward: Any, rewards: Mapping[str, Any] | None, terminal: str
) -> tuple[Arrays, Geometry]:
    """The arrays and the map of `rdolib.mdp.MDP.from_grid`."""
    slip = check_fraction(slip, "slip")
    paid: dict[str, Any] = {"X": -100.0, **(rewards or {})}
    lines = _read_map(text, known=set(".#SGX") | set(paid) | set(terminal))
    if set(terminal) & set("#S"):
        raise InvalidMDPError(f"terminal is {terminal!r}; a start 'S' or wall '#' cannot end the return")
    world = geometry(lines, MOVES, walls="#")
    starts = np.array([character == "S" for character in "".join(lines) if character != "#"])
    if not starts.any():
        raise InvalidMDPError("the map has no start; mark at least one cell with 'S'")
    initial: int | Floats = int(np.argmax(starts)) if starts.sum() == 1 else starts / starts.sum()
    return from_outcomes(_table(world, slip, step_reward, paid, terminal), initial), world


def _read_map(text: str, known: set[str]) -> tuple[str, ...]:
    """The lines of a map, all of one length and with known characters only."""
    lines = tuple(line.strip() for line in text.strip().splitlines())
    if not lines:
        raise InvalidMDPError("the map is empty; draw at least one line with a start 'S'")
    for row, line in enumerate(lines):
        if len(line) != len(lines[0]):
            raise InvalidMDPError(
                f"line {row} of the map has {len(line)} cells and line 0 has {len(lines[0])}; "
                "all lines must have the same length (draw free cells as '.', not as spaces)"
            )
        for column, character in enumerate(line):
            if character not in known:
                raise InvalidMDPError(
                    f"unknown character {character!r} at row {row}, column {column} of the map; "
                    f"known are {''.join(sorted(known))!r}: name others in rewards= or terminal=, "
                    "and draw free cells as '.'"
                )
    return lines


def _table(
    world: Geometry, slip: float, step_reward: Any, paid: Mapping[str, Any], terminal: str
) -> list[list[list[Any]]]:
    """The outcomes of every cell, in the form of `from_outcomes`."""
    states = np.pad(world.states, 1, constant_values=-1)  # the map's rim is a wall
    n_moves = len(world.moves)

    def enter(state: int, row: int, column: int) -> tuple[int, Any, bool]:
        target = int(states[row + 1, column + 1])
        if target < 0:
            return state, step_reward, False
        character = world.lines[row][column]
        return target, paid.get(character, step_reward), character in terminal

    table: list[list[list[Any]]] = []
    for state, (row, column) in enumerate(np.argwhere(world.states >= 0)):
        if world.lines[row][column] in terminal:
            stay = (1.0, state, np.zeros_like(step_reward, dtype=np.float64), True)
            table.append([[stay]] * n_moves)
            continue
        reached = [enter(state, row + down, column + right) for down, right in world.moves]
        table.append(
            [
                [
                    (1.0 - slip, *reached[action]),
                    (slip / 2, *reached[action - 1]),
                    (slip / 2, *reached[(action + 1) % n_moves]),
                ]
                for action in range(n_moves)
            ]
        )
    return table
