"""The builder of MDPs from gymnasium environments that carry their transition table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rdolib._canonical import Arrays
from rdolib._checks import check_initial
from rdolib._gridworld import MOVES, Geometry, geometry
from rdolib._outcomes import from_outcomes
from rdolib.errors import InvalidArgumentError, InvalidMDPError

#: (row, column) steps of FrozenLake's actions 0 left, 1 down, 2 right, 3 up.
_LAKE_MOVES = ((0, -1), (1, 0), (0, 1), (-1, 0))


def from_gymnasium(env: str | Any, options: Mapping[str, Any]) -> tuple[Arrays, Geometry | None]:
    """The arrays and the map, if there is one, of `rdolib.mdp.MDP.from_gymnasium`."""
    if not isinstance(env, str):
        if options:
            raise InvalidArgumentError(
                f"{', '.join(options)}: options go to gymnasium.make together with an id; "
                "this environment is already made"
            )
        return _read(env)
    try:
        import gymnasium
    except ImportError as error:
        raise ImportError(
            "MDP.from_gymnasium needs gymnasium, which is not installed; run: pip install gymnasium"
        ) from error
    made = gymnasium.make(env, **options)
    try:
        return _read(made)
    finally:
        made.close()


def _read(env: Any) -> tuple[Arrays, Geometry | None]:
    bare = getattr(env, "unwrapped", env)
    table = getattr(bare, "P", None)
    name = getattr(getattr(bare, "spec", None), "id", None) or type(bare).__name__
    if not isinstance(table, (Mapping, Sequence)):
        raise InvalidMDPError(
            f"{name} has no transition table (env.unwrapped.P); write its transitions down and use "
            "MDP.from_outcomes(table) or MDP.from_arrays(P, R)"
        )
    if getattr(bare, "fickle_passenger", False):
        raise InvalidMDPError(
            f"{name} with fickle_passenger=True changes the destination outside its transition table, "
            "so the table is not the environment; make it with fickle_passenger=False, "
            "or use MDP.from_outcomes with a table of your own"
        )
    start = getattr(bare, "initial_state_distrib", None)
    initial: int | ArrayLike = 0 if start is None else start
    if start is not None and np.count_nonzero(start) == 1:
        check_initial(start, np.size(start))
        initial = int(np.argmax(start))
    return from_outcomes(table, initial), _map(bare)


def _map(bare: Any) -> Geometry | None:
    """The map of FrozenLake and CliffWalking; None for other environments."""
    try:
        from gymnasium.envs.toy_text.cliffwalking import CliffWalkingEnv
        from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv
    except ImportError:  # an environment object of another make
        return None
    if isinstance(bare, FrozenLakeEnv):
        cells, moves = np.asarray(bare.desc).astype(str), _LAKE_MOVES
    elif isinstance(bare, CliffWalkingEnv):
        cells, moves = np.where(bare._cliff, "C", "."), MOVES
        cells.flat[bare.start_state_index] = "S"
        cells.flat[-1] = "G"
    else:
        return None
    return geometry(tuple("".join(row) for row in cells), moves)
