"""Find what re-executing a chapter cannot: silent cells, warnings on the page, numbers typed in prose.

A number counts as typed if it stands in the prose (not in code, mathematics, links or roles), has at least
three significant digits, and equals a value glued in the same chapter at the precision printed, as it is or
as a percentage. Zeros that only fill an integer do not count, so "1000 episodes" is never reported. Pages
that are not notebooks are compared with the values of every chapter.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat

BOOK = Path(__file__).resolve().parents[1] / "book"
GLUED = "application/papermill.record/text/plain"
DISPLAYING = {"show", "glue", "display", "print"}
# Directives whose body is code or mathematics; the body of any other directive is prose.
LITERAL_DIRECTIVES = {
    "{code-cell}",
    "{code-block}",
    "{code}",
    "{math}",
    "{literalinclude}",
    "{eval-rst}",
    "{glue:math}",
}
NOT_PROSE = [
    r"<!--.*?-->",  # comments
    r"\$\$.*?\$\$",
    r"\\begin\{(\w+\*?)\}.*?\\end\{\1\}",
    r"(?<![\\$])\$(?!\$)[^$]*?(?<!\\)\$",  # mathematics
    r"(?:\{[\w:+-]+\})?(`+)[^`].*?\1",  # code and roles
    r"\]\([^)]*\)",
    r"https?://\S+",  # addresses
]
NUMBER = re.compile(r"(?<![\w.,])[-−+]?(\d{1,3}(?:,\d{3})+|\d+)(\.\d+)?(?![\w]|[.,]\d)(\s?%)?")


def main() -> int:
    """Print every finding in the chapters and pages named on the command line, or in all of them."""
    paths = [Path(name) for name in sys.argv[1:]]
    chapters = [path for path in paths if path.suffix == ".ipynb"] or sorted((BOOK / "chapters").glob("*.ipynb"))
    pages = [path for path in paths if path.suffix == ".md"] or sorted(BOOK.glob("*.md"))
    notebooks = {path: nbformat.read(path, as_version=4) for path in chapters}
    findings = [f"{path}: {finding}" for path, notebook in notebooks.items() for finding in lint(notebook)]
    glued = {key: value for notebook in notebooks.values() for key, value in glued_values(notebook).items()}
    for page in pages:
        findings += [f"{page}: {finding}" for finding in typed_numbers(page.read_text("utf8"), glued)]
    print("\n".join(findings) or f"{len(chapters)} chapters and {len(pages)} pages: nothing found")
    return len(findings) > 0


def lint(notebook: Any) -> Iterator[str]:
    """Findings in one notebook, each with the position of its cell, counted from 1."""
    glued = glued_values(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    for position, cell in enumerate(notebook.cells, 1):
        if cell.cell_type == "markdown":
            findings = [*typed_numbers(cell.source, glued), *open_solutions(cell.source)]
        elif cell in code:
            expected = code.index(cell) + 1
            following = code[expected] if expected < len(code) else None
            findings = [*silent(cell, expected), *bad_outputs(cell), *unchecked(cell, following)]
        else:
            findings = []
        yield from (f"cell {position}: {finding}" for finding in findings)


def silent(cell: Any, expected: int) -> Iterator[str]:
    """Cells whose output nobody compares, because it was not produced or not shown."""
    if cell.execution_count is None:
        yield "not executed (nbval would skip its comparison); run: make run"
    elif cell.execution_count != expected:
        yield f"executed as number {cell.execution_count} instead of {expected}; run: make run"
    if last_token(cell.source) == ";":
        yield "a trailing semicolon does not hide the output everywhere; write _ = ..."
    if cell.execution_count is not None and not cell.outputs and displays(cell.source):
        yield "displays something, but no output is stored; run: make run"


def last_token(source: str) -> str:
    """Give the last piece of code that is neither blank nor comment."""
    blank = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.ENDMARKER,
        tokenize.INDENT,
        tokenize.DEDENT,
    }
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return [token.string for token in tokens if token.type not in blank][-1:][0] if source.strip() else ""


def displays(source: str) -> bool:
    """Tell whether the cell certainly shows something: a displaying call, or a bare value at its end."""
    body = ast.parse(source).body
    calls = [node.value for node in body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)]
    if any(isinstance(call.func, ast.Name) and call.func.id in DISPLAYING for call in calls):
        return True
    bare = ast.Name | ast.Attribute | ast.Subscript | ast.BinOp | ast.Compare | ast.Tuple | ast.List | ast.Dict
    return bool(body) and isinstance(body[-1], ast.Expr) and isinstance(body[-1].value, bare)


def bad_outputs(cell: Any) -> Iterator[str]:
    """Errors, warnings, and pictures without a text twin."""
    for output in cell.outputs:
        if output.output_type == "error":
            yield f"ends in {output.ename}; catch the error and print it"
        if output.get("name") == "stderr":
            yield f"writes to stderr: {output.text.strip().splitlines()[0]}"
        if "image/png" in output.get("data", {}):
            alt = output.metadata.get("image/png", {}).get("alt", "")
            if not alt.strip():
                yield "a picture without alternative text; use rdolib.notebook.show(figure, alt=...)"
            elif not output.data.get("text/plain", "").startswith(f"Figure: {alt}\n"):
                yield "a picture whose text twin does not open with its alternative text; run: make run"


def unchecked(cell: Any, following: Any | None) -> Iterator[str]:
    """Cells exempt from comparison; allowed only with an assertion in the next code cell."""
    tags = set(cell.metadata.get("tags", []))
    if tags & {"nbval-skip", "raises-exception", "nbval-raises-exception"} or "# NBVAL_" in cell.source:
        yield "exempt from execution or comparison; tag it nbval-ignore-output and assert in the next cell"
    if "nbval-ignore-output" in tags and (following is None or "assert" not in following.source):
        yield "its output is not compared; assert something about it in the next code cell"


def open_solutions(source: str) -> Iterator[str]:
    """Solutions that would stand open on the page."""
    for match in re.finditer(r"^[`:]{3,}\{solution(?:-start)?\}.*\n(?::.*\n)*", source, re.MULTILINE):
        if ":class: dropdown" not in match.group():
            yield "a solution without ':class: dropdown' would stand open"


def glued_values(notebook: Any) -> dict[str, float]:
    """Collect the numbers glued in a notebook."""
    values = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "scrapbook" in output.get("metadata", {}):
                text = output.data.get(GLUED) or output.data.get("text/plain", "")
                try:
                    values[output.metadata["scrapbook"]["name"]] = float(text)
                except ValueError:
                    continue  # a glued text
    return values


def typed_numbers(source: str, glued: dict[str, float]) -> Iterator[str]:
    """Numbers in prose that a glued value should print; the rule stands at the top of this file."""
    for match in NUMBER.finditer(prose(source)):
        digits = (match[1] + (match[2] or "")).replace(",", "")
        significant = digits.replace(".", "").lstrip("0") if match[2] else digits.lstrip("0").rstrip("0")
        if len(significant) < 3:
            continue
        scale = 100 if match[3] else 1
        places = len(match[2] or ".") - 1
        for key, value in glued.items():
            if f"{abs(value) * scale:.{places}f}" == digits:
                yield f"{match[0].strip()!r} is typed; write {{glue:text}}`{key}`"
                break


def prose(source: str) -> str:
    """Blank out code, mathematics, roles and addresses."""
    lines: list[str] = []
    fences: list[tuple[str, bool]] = []  # how each open fence began, and whether it holds code
    for line in source.splitlines():
        fence = re.match(r"\s*(`{3,}|~{3,}|:{3,})\s*(\{[\w:-]+\})?(\w*)", line)
        if fence and fences and fence[1].startswith(fences[-1][0]) and not fence[2] and not fence[3]:
            fences.pop()
        elif fence:
            literal = fence[2] in LITERAL_DIRECTIVES if fence[2] else not fence[1].startswith(":")
            fences.append((fence[1], literal))
        elif not any(literal for _, literal in fences):
            lines.append(line)
    text = "\n".join(lines)
    for pattern in NOT_PROSE:
        text = re.sub(pattern, " ", text, flags=re.DOTALL)
    return text


if __name__ == "__main__":
    sys.exit(main())
