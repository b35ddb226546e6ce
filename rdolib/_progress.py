"""Progress bars, for all that may take longer than two seconds.

A bar shows up after two seconds, on a terminal only: not where the output goes to a file, and not in a notebook, whose
outputs are compared. Set the environment variable ``CI`` or ``TQDM_DISABLE`` for silence on terminals too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

_PATIENCE = 2.0  # seconds


def bar(doing: str, total: int | None = None, steps: Iterable[Any] | None = None) -> Any:
    """``steps`` to iterate over; or, without them, a context manager to call ``update()`` on once a step.

    ``total`` is the number of steps where it is known and ``steps`` does not tell.
    """
    silent = any(os.environ.get(name) for name in ("CI", "TQDM_DISABLE"))
    return tqdm(steps, total=total, desc=doing, delay=_PATIENCE, leave=False, disable=True if silent else None)
