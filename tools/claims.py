"""Write the table of claims: each statement of the theory, whose it is, the chapter that states it, the tests.

Statements stand in book/claims.toml, once. Chapters state them in directives labeled ``claim-5-1-anything`` (or with
the label that the statement names); tests re-check them under ``pytest.mark.theory("5.1")``. The table,
book/claims.md, is put together from these three and never typed. With --check nothing is written: fail if the
page is stale, if a statement has no test, or if a label or a mark has a number that is no statement.
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
LABEL = re.compile(r"^:label:\s*(\S+)\s*$", re.MULTILINE)
NUMBERED = re.compile(r"claim-(\d+)-(\d+[a-z]?)(-|$)")
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
not from its text: statements are reconstructed and proved in the chapters, and wording and constants are ours. A test
is named by its file and its function, with spaces for underscores: "theory: evaluation contracts" is
`test_evaluation_contracts` in `tests/test_theory.py`.

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
    label: str = ""
    labels: list[str] = field(default_factory=list)
    tests: list[tuple[str, str]] = field(default_factory=list)  # (file, function)

    def row(self) -> str:
        """Give the row of the table."""
        whose = ORIGINS[self.origin] + (f", Section {self.section}" if self.section else "")
        stated = ", ".join(f"{{prf:ref}}`{label}`" for label in self.labels) or "–"
        tests = "; ".join(f"{plain(file)}: {plain(name)}" for file, name in self.tests)
        return f"| {self.number} | {self.statement} | {whose} | {stated} | {tests} |"


def plain(name: str) -> str:
    """Give the name of a test in words."""
    return name.removeprefix("test_").replace("_", " ")


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
    stated = list(labels(root / "book"))
    for label in stated:
        match = NUMBERED.match(label)
        number = f"{match[1]}.{match[2]}" if match else None
        here = [claim for claim in claims if label == claim.label or number == claim.number]
        for claim in here:
            claim.labels.append(label)
        if match and not here:
            findings.append(f"the label {label} belongs to no statement in claims.toml")
    findings += [f"claim {c.number}: no chapter has the label {c.label}" for c in claims
                 if c.label and c.label not in stated]  # fmt: skip
    for number, tests in marks(root / "tests").items():
        if number in by_number:
            by_number[number].tests += tests
        else:
            findings.append(f"{'.'.join(tests[0])}: theory({number!r}) is no statement in claims.toml")
    findings += [f"claim {claim.number} has no test marked theory({claim.number!r})" for claim in claims
                 if not claim.tests]  # fmt: skip
    return claims, findings


def labels(book: Path) -> Iterator[str]:
    """Yield every label in the chapters of the table of contents."""
    contents = (book / "_toc.yml").read_text("utf8")
    for path in sorted((book / "chapters").glob("*.ipynb")):
        if f"chapters/{path.stem}" in contents:
            for cell in nbformat.read(path, as_version=4).cells:
                if cell.cell_type == "markdown":
                    yield from LABEL.findall(cell.source)


def marks(tests: Path) -> Mapping[str, Sequence[tuple[str, str]]]:
    """File and name of the tests that carry each theory mark, in order of files and lines."""
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for path in sorted(tests.glob("test_*.py")):
        for node in ast.parse(path.read_text("utf8")).body:
            if isinstance(node, ast.FunctionDef):
                for number in numbers(node.decorator_list):
                    found[number].append((path.stem, node.name))
    return found


def numbers(decorators: Sequence[Any]) -> Iterator[str]:
    """Numbers of the theory marks among decorators, written as pytest.mark.theory("5.1") or theory("5.1")."""
    for call in decorators:
        if isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[-1] == "theory":
            yield from (str(ast.literal_eval(argument)) for argument in call.args)


if __name__ == "__main__":
    sys.exit(main())
