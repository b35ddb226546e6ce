"""Write the table of claims: each statement of the theory, whose it is, the chapter that states it, the tests.

Statements stand in book/claims.toml, once. Chapters state them in directives labeled ``claim-5-1-anything``; tests
re-check them under ``pytest.mark.theory("5.1")``. The table, book/claims.md, is put together from these three and
never typed. With --check nothing is written: fail if the page is stale, if a statement has no test, or if a label or
a mark has a number that is no statement.
"""

import argparse
import ast
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parents[1]
LABEL = re.compile(r"^:label:\s*(claim-(\d+)-(\d+[a-z]?)(?:-\S*)?)\s*$", re.MULTILINE)
ORIGINS = {
    "paper": "the paper's",
    "paper, constant": "the paper's in form; the constant is derived here",
    "perhaps paper": "perhaps the paper's; proved here",
    "classical": "classical",
    "derived": "derived here",
}
INTRODUCTION = """# Claims, chapters, tests

Each statement of the theory, whose it is, where the book states it, and the tests that re-check it. This page is
generated from `book/claims.toml`, from the labels in the chapters and from the marks of the tests; `make lint` fails
when it is stale or when a statement has no test.

"The paper" is {cite:t}`avilapires2025`; a section is named where the statement is its own. We worked from its ideas,
not from its text: statements are reconstructed and proved in the chapters, and wording and constants are ours.

| | statement | whose | stated in | re-checked by |
|---|---|---|---|---|
"""


@dataclass
class Claim:
    """One statement, and where it was found."""

    number: str
    statement: str
    origin: str
    section: str = ""
    labels: list[tuple[str, str]] = field(default_factory=list)  # (chapter number, label)
    tests: list[str] = field(default_factory=list)

    def row(self) -> str:
        """Give the row of the table."""
        whose = ORIGINS[self.origin] + (f", Section {self.section}" if self.section else "")
        stated = ", ".join(f"{chapter}: {{prf:ref}}`{label}`" for chapter, label in self.labels) or "–"
        return f"| {self.number} | {self.statement} | {whose} | {stated} | {', '.join(self.tests)} |"


def main() -> int:
    """Write the page, or check it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if anything is missing or stale")
    parser.add_argument("--root", type=Path, default=ROOT, help="the repository")
    options = parser.parse_args()
    page = options.root / "book" / "claims.md"
    claims, findings = collect(options.root)
    text = INTRODUCTION + "".join(f"{claim.row()}\n" for claim in claims)
    if not options.check:
        page.write_text(text, "utf8", newline="\n")
    elif not page.exists() or page.read_text("utf8") != text:
        findings.append(f"{page.name} is stale; run: python tools/claims.py")
    print("\n".join(findings) or f"{len(claims)} statements, each with a test")
    return len(findings) > 0


def collect(root: Path) -> tuple[list[Claim], list[str]]:
    """Read the statements with their labels and tests, and list what is missing."""
    entries = tomllib.loads((root / "book" / "claims.toml").read_text("utf8"))["claim"]
    claims = [Claim(**entry) for entry in entries]
    findings = [f"claim {c.number}: origin {c.origin!r} is not one of {list(ORIGINS)}" for c in claims
                if c.origin not in ORIGINS]  # fmt: skip
    by_number = {claim.number: claim for claim in claims}
    if len(by_number) < len(claims):
        findings.append("two statements in claims.toml have one number")
    for number, chapter, label in labels(root / "book"):
        if number in by_number:
            by_number[number].labels.append((chapter, label))
        else:
            findings.append(f"chapter {chapter}: the label {label} belongs to no statement in claims.toml")
    for number, tests in marks(root / "tests").items():
        if number in by_number:
            by_number[number].tests += tests
        else:
            findings.append(f"{tests[0]}: theory({number!r}) is no statement in claims.toml")
    findings += [f"claim {claim.number} has no test marked theory({claim.number!r})" for claim in claims
                 if not claim.tests]  # fmt: skip
    return claims, findings


def labels(book: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (number, chapter, label) of every claim stated in a chapter of the table of contents."""
    contents = (book / "_toc.yml").read_text("utf8")
    for path in sorted((book / "chapters").glob("*.ipynb")):
        if f"chapters/{path.stem}" in contents:
            for cell in nbformat.read(path, as_version=4).cells:
                if cell.cell_type == "markdown":
                    for match in LABEL.finditer(cell.source):
                        yield f"{match[2]}.{match[3]}", str(int(path.stem.partition("-")[0])), match[1]


def marks(tests: Path) -> Mapping[str, Sequence[str]]:
    """Names of the tests that carry each theory mark, in order of files and lines."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(tests.glob("test_*.py")):
        for node in ast.parse(path.read_text("utf8")).body:
            if isinstance(node, ast.FunctionDef):
                for number in numbers(node.decorator_list):
                    found[number].append(f"`{path.stem}.{node.name}`")
    return found


def numbers(decorators: Sequence[Any]) -> Iterator[str]:
    """Numbers of the theory marks among decorators, written as pytest.mark.theory("5.1") or theory("5.1")."""
    for call in decorators:
        if isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[-1] == "theory":
            yield from (str(ast.literal_eval(argument)) for argument in call.args)


if __name__ == "__main__":
    sys.exit(main())
