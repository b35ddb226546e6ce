"""What nbval does not compare: pixels of pictures, names and alternative texts of outputs, silent cells."""

import base64
import io
from typing import Any

import numpy as np
import pytest
from nbval.plugin import IPyNbCell
from PIL import Image

# Root-mean-square difference, with colors from 0 to 1: less than one step of an 8-bit color.
PIXEL_TOLERANCE = 1 / 255


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Any:
    """Let nbval run the cell and compare its text, then compare the rest."""
    result = yield
    if isinstance(item, IPyNbCell):
        if item.cell.execution_count is None:
            item.raise_cell_error("The committed cell was never executed, so nothing was compared")
        if item.options["check"]:
            difference = first_difference(item.cell.outputs, item.test_outputs)
            if difference:
                item.raise_cell_error(difference)
    return result


def first_difference(stored: list[Any], fresh: list[Any]) -> str | None:
    """Say how the displayed outputs of a committed cell differ from those of a fresh run."""
    stored, fresh = displayed(stored), displayed(fresh)
    if len(stored) != len(fresh):
        return f"The committed cell shows {len(stored)} outputs, a fresh run shows {len(fresh)}"
    for number, (old, new) in enumerate(zip(stored, fresh, strict=True), 1):
        if old["data"].keys() != new["data"].keys():
            return f"Output {number} has {sorted(old['data'])} committed, {sorted(new['data'])} in a fresh run"
        for what, where in ("name", ("scrapbook", "name")), ("alternative text", ("image/png", "alt")):
            was, is_now = (output["metadata"].get(where[0], {}).get(where[1]) for output in (old, new))
            if was != is_now:
                return f"Output {number} has {what} {was!r} committed, {is_now!r} in a fresh run"
        if "image/png" in old["data"]:
            distance = pixel_distance(old["data"]["image/png"], new["data"]["image/png"])
            if distance > PIXEL_TOLERANCE:
                return (
                    f"The picture of output {number} differs: root-mean-square {distance:.4f}, "
                    f"tolerance {PIXEL_TOLERANCE:.4f}"
                )
    return None


def displayed(outputs: list[Any]) -> list[Any]:
    """Outputs that carry data; nbval compares the printed streams itself."""
    return [output for output in outputs if output["output_type"] in ("display_data", "execute_result")]


def pixel_distance(png: str, other: str) -> float:
    """Root-mean-square difference of two PNGs in base64; infinite if their sizes differ."""
    first, second = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGBA"), dtype=float) / 255
        for text in (png, other)
    )
    if first.shape != second.shape:
        return float("inf")
    return float(np.sqrt(np.mean((first - second) ** 2)))
