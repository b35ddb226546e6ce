"""What a chapter shows: figures that can be compared, and numbers that the prose can quote.

A picture in a notebook is a bag of pixels, and a number typed in a sentence is not tied to anything. Both
drift. Here a figure is published together with a text twin (its alternative text, its labels and a digest of
the data drawn), so that a re-executed chapter can be compared word by word; and a number is published under a
name, so that the prose quotes the output of the code.

Importing this module applies the book's matplotlib style. The module is for notebooks: it needs IPython.
"""

import base64
import hashlib
import io
from collections.abc import Iterator
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from IPython import display as ipython
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver
from matplotlib.text import Annotation, Text

from rdolib.errors import InvalidArgumentError

__all__ = ["describe", "glue", "show"]

plt.style.use("rdolib.rdolib")

# Pages find glued values under this prefix (the convention of papermill and of MyST-NB).
_GLUE_PREFIX = "application/papermill.record/"


def glue(name: str, value: float | int | str | np.generic, display: bool = False) -> None:
    """Publish a value under a name, so that the prose can quote it.

    Parameters
    ----------
    name : str
        Key, unique within the notebook.
    value : float, int or str
        Floats are rounded to six significant digits: printed numbers must survive another processor.
    display : bool
        Also show the value below the cell.

    Raises
    ------
    InvalidArgumentError
        If the value is not a number or a text.

    Notes
    -----
    In prose write ``{glue:text}`name:.3f` ``, and from another page
    ``{glue:text}`chapter.ipynb::name:.3f` ``. The output is the same as that of ``myst_nb.glue``, without
    importing Sphinx into the reader's kernel.
    """
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, float):
        plain = float(f"{plain:.6g}")
    elif not isinstance(plain, int | str):
        raise InvalidArgumentError(f"glue({name!r}) got {type(value).__name__}; glue one number or text at a time")
    prefix = "" if display else _GLUE_PREFIX
    metadata = {"scrapbook": {"name": name, "mime_prefix": prefix}}
    ipython.display({f"{prefix}text/plain": repr(plain)}, raw=True, metadata=metadata)


def show(figure: Figure, alt: str) -> None:
    """Display a figure as PNG together with its text twin, then close it.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The figure; for an ``Axes`` pass ``ax.figure``.
    alt : str
        Alternative text: what a reader who cannot see the picture should take from it. Numbers in it are
        compared like any other output, so format them from the data.

    Raises
    ------
    InvalidArgumentError
        If ``alt`` is empty.
    """
    if not alt.strip():
        raise InvalidArgumentError("show() needs alt: a sentence that says what the figure shows")
    alt = " ".join(alt.split())
    twin = f"Figure: {alt}\n{describe(figure)}"
    png = io.BytesIO()
    # Without the "Software" entry the bytes do not name the version of matplotlib.
    figure.savefig(png, format="png", metadata={"Software": None})
    plt.close(figure)
    data = {"image/png": base64.b64encode(png.getvalue()).decode(), "text/plain": twin}
    ipython.display(data, raw=True, metadata={"image/png": {"alt": alt}})


def describe(figure: Figure) -> str:
    """Labels and digests of everything drawn in a figure, one artist a line.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The figure, with any number of axes.

    Returns
    -------
    str
        Equal for equal data, whatever the version of matplotlib.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> figure, ax = plt.subplots()
    >>> _ = ax.plot([0, 1, 2], [1, 4, 9], label="squares")
    >>> _ = ax.set(xlabel="n", ylabel="value")
    >>> print(describe(figure))
    axes 1: x 'n'; y 'value'
      line 'squares': x 3 values from 0 to 2 #a8694c7f; y 3 values from 1 to 9 #28849de2
    >>> plt.close(figure)
    """
    return "\n".join(line for number, ax in enumerate(figure.axes, 1) for line in _describe_axes(number, ax))


def _describe_axes(number: int, ax: Axes) -> Iterator[str]:
    labels = {"title": ax.get_title(), "x": ax.get_xlabel(), "y": ax.get_ylabel()}
    named = [f"{key} {_one_line(label)}" for key, label in labels.items() if label]
    yield f"axes {number}: " + ("; ".join(named) or "no labels")
    for line in ax.lines:
        yield _entry("line", line, {"x": line.get_xdata(), "y": line.get_ydata()})
    for collection in ax.collections:
        yield _entry(type(collection).__name__, collection, _collection_data(collection))
    for image in ax.images:
        yield _entry("image", image, {"values": image.get_array(), "extent": image.get_extent()})
    if ax.patches:
        # Bars come as one rectangle each; together they are one thing drawn.
        corners = [patch.get_patch_transform().transform(patch.get_path().vertices) for patch in ax.patches]
        yield _entry("patches", ax.patches[0], {"corners": np.concatenate(corners)})
    for text in ax.texts:
        yield f"  text {_one_line(text.get_text())} at {_point(text)}"


def _collection_data(collection: Collection) -> dict[str, Any]:
    """Where the pieces of a scatter, contour, mesh, fill or quiver lie, and what their colors mean."""
    data: dict[str, Any] = {"offsets": collection.get_offsets()}
    vertices = [path.vertices for path in collection.get_paths()]
    if vertices:
        data["vertices"] = np.concatenate(vertices)
    if collection.get_array() is not None:
        data["values"] = collection.get_array()
    if hasattr(collection, "get_sizes"):
        data["sizes"] = collection.get_sizes()
    if isinstance(collection, Quiver):  # builds its arrows only while drawing
        data |= {"u": collection.U, "v": collection.V}
    return data


def _entry(kind: str, artist: Artist, data: dict[str, Any]) -> str:
    label = str(artist.get_label())
    name = f" {_one_line(label)}" if label and not label.startswith("_") else ""
    return f"  {kind}{name}: " + "; ".join(f"{key} {_digest(values)}" for key, values in data.items())


def _digest(values: Any) -> str:
    """Count, range and hash of the values at six significant digits; float32 carries only three, and no hash.

    Values that are rounding noise beside the largest one count as zero.
    """
    array = np.asarray(np.ma.filled(np.ma.asarray(values).astype(float), np.nan)).ravel()
    finite = np.abs(array[np.isfinite(array)])
    if not finite.size:
        return f"{array.size} values, none finite"
    array = np.where(np.abs(array) < 1e-12 * finite.max(), 0.0, array)
    count = f"{array.size} value" + "s" * (array.size != 1)
    low, high = np.nanmin(array), np.nanmax(array)
    if np.asarray(values).dtype == np.float32:
        return f"{count} from {low:.3g} to {high:.3g}, mean {np.nanmean(array):.3g}"
    rounded = " ".join(f"{x:.5e}" for x in array)
    return f"{count} from {low:.6g} to {high:.6g} #{hashlib.sha256(rounded.encode()).hexdigest()[:8]}"


def _point(text: Text) -> str:
    x, y = text.xy if isinstance(text, Annotation) else text.get_position()
    return f"({float(x):.6g}, {float(y):.6g})"


def _one_line(text: str) -> str:
    return repr(" ".join(text.split()))
