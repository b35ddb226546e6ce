"""Execute chapters in place and write them in normal form; with --check, only verify the form.

A notebook file records much that nobody wrote: timings, versions, random cell numbers. The normal form keeps
what a reader sees and drops the rest: two runs give the same bytes, and a diff shows only real changes.
"""

import argparse
import hashlib
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

CHAPTERS = Path(__file__).resolve().parents[1] / "book" / "chapters"
NOTEBOOK_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "pygments_lexer": "ipython3"},
}
CELL_METADATA = {"tags", "mystnb"}
OUTPUT_METADATA = {"scrapbook", "image/png"}


def main() -> int:
    """Run or check the chapters named on the command line, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("chapters", nargs="*", type=Path)
    parser.add_argument("--check", action="store_true", help="execute nothing; fail if a file is not in normal form")
    parser.add_argument("--jobs", type=int, default=2, help="chapters executed at a time")
    options = parser.parse_args()
    paths = options.chapters or sorted(CHAPTERS.glob("*.ipynb"))
    if options.check:
        loose = [path for path in paths if path.read_text("utf8") != to_text(read(path))]
        for path in loose:
            print(f"{path}: not in normal form; run: make run")
        return len(loose) > 0
    with ProcessPoolExecutor(options.jobs) as pool:
        outcomes = list(pool.map(run, paths))
    return not all(outcomes)


def run(path: Path) -> bool:
    """Execute one chapter in a fresh kernel; write it only if every cell ran."""
    notebook = read(path)
    start = time.perf_counter()
    client = NotebookClient(
        notebook, kernel_name="python3", record_timing=False, resources={"metadata": {"path": path.parent}}
    )
    try:
        client.execute()
    except Exception as error:  # whatever a cell raises: name the chapter and go on with the others
        print(f"{path}: {error}", file=sys.stderr)
        return False
    text = to_text(notebook)
    changed = text != path.read_text("utf8")
    if changed:
        path.write_text(text, "utf8", newline="\n")
    print(
        f"{path.name}: {time.perf_counter() - start:.1f} s, {'changed' if changed else 'unchanged'}",
        flush=True,
    )
    return True


def read(path: Path) -> Any:
    """Read a notebook as it stands in the file."""
    return nbformat.reads(path.read_text("utf8"), as_version=4)


def to_text(notebook: Any) -> str:
    """Give the notebook's normal form as the text of a file."""
    cells = [normal_cell(cell) for cell in notebook.cells if cell.source.strip()]
    seen: dict[str, int] = {}
    for cell in cells:
        # The id follows from the text, so that a new cell leaves the others' ids alone.
        digest = hashlib.sha256(cell.source.encode()).hexdigest()[:8]
        seen[digest] = seen.get(digest, 0) + 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
    normal = nbformat.from_dict({"cells": cells, "metadata": NOTEBOOK_METADATA, "nbformat": 4, "nbformat_minor": 5})
    nbformat.validate(normal)
    return str(nbformat.writes(normal)).rstrip("\n") + "\n"


def normal_cell(cell: Any) -> Any:
    """Keep a cell's text, chosen metadata and outputs."""
    normal = nbformat.from_dict({"cell_type": cell.cell_type, "source": cell.source.strip("\n"), "id": "x"})
    normal.metadata = kept(cell.metadata, CELL_METADATA)
    if cell.cell_type == "code":
        normal.execution_count = cell.execution_count
        normal.outputs = merge_streams(cell.outputs)
        for output in normal.outputs:
            if "metadata" in output:
                output.metadata = kept(output.metadata, OUTPUT_METADATA)
    return normal


def merge_streams(outputs: list[Any]) -> list[Any]:
    """Join the pieces of a printed stream: where a kernel flushes is chance."""
    merged: list[Any] = []
    for output in outputs:
        if output.output_type == "stream" and merged and merged[-1].get("name") == output.name:
            merged[-1] = nbformat.from_dict({**output, "text": merged[-1].text + output.text})
        else:
            merged.append(output)
    return merged


def kept(metadata: Any, keys: set[str]) -> Any:
    """Only the entries that a reader or a page can see."""
    return nbformat.from_dict({key: value for key, value in metadata.items() if key in keys})


if __name__ == "__main__":
    sys.exit(main())
