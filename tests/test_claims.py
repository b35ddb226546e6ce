"""The table of claims: what it collects, what it refuses, and that every statement of the theory has a test."""

import sys
from pathlib import Path

import claims
import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
STATEMENT = '[[claim]]\nnumber = "{number}"\nstatement = "It holds."\norigin = "{origin}"\n'
MARKED = """
@pytest.mark.theory("5.1")
@theory("5.8b")
@other("1")
def test_proves_it() -> None: ...


@theory("5.1")
def test_again() -> None: ...
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A tree with two statements, one chapter that states one of them, and a test of both."""
    (tmp_path / "book" / "chapters").mkdir(parents=True)
    (tmp_path / "tests").mkdir()
    statements = "".join(STATEMENT.format(number=n, origin="derived") for n in ("5.1", "5.8b"))
    (tmp_path / "book" / "claims.toml").write_text(statements)
    (tmp_path / "book" / "_toc.yml").write_text("chapters:\n  - file: chapters/08-it\n")
    (tmp_path / "tests" / "test_it.py").write_text(MARKED)
    state(tmp_path, "08-it", "claim-5-1-error")
    return tmp_path


def state(project: Path, chapter: str, label: str) -> None:
    """Write a chapter with one labeled theorem."""
    cell = nbformat.v4.new_markdown_cell(f"```{{prf:theorem}} It\n:label: {label}\nIt holds.\n```")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), project / "book" / "chapters" / f"{chapter}.ipynb")


def run(project: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> int:
    monkeypatch.setattr(sys, "argv", ["claims.py", "--root", str(project), *options])
    return claims.main()


def test_rows_hold_chapter_and_tests(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(project, monkeypatch) == 0
    rows = (project / "book" / "claims.md").read_text("utf8").splitlines()[-2:]
    assert rows == [
        "| 5.1 | It holds. | derived here | {prf:ref}`claim-5-1-error` | it: proves it; it: again |",
        "| 5.8b | It holds. | derived here | – | it: proves it |",
    ]


def test_check_finds_a_stale_page(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(project, monkeypatch, "--check") == 1
    assert not (project / "book" / "claims.md").exists()
    run(project, monkeypatch)
    assert run(project, monkeypatch, "--check") == 0
    state(project, "08-it", "claim-5-8b-proper")
    capsys.readouterr()
    assert run(project, monkeypatch, "--check") == 1
    assert "claims.md is stale" in capsys.readouterr().out


def test_chapters_outside_the_contents_do_not_count(project: Path) -> None:
    state(project, "09-later", "claim-5-8b-proper")
    found, findings = claims.collect(project)
    assert not findings and not found[1].labels


@pytest.mark.parametrize(
    ("number", "origin", "message"),
    [
        ("7.1", "derived", "claim 7.1 has no test marked theory('7.1')"),
        ("5.1", "derived", "two statements in claims.toml have one number"),
        ("5.1", "hearsay", "claim 5.1: origin 'hearsay' is not one of"),
    ],
)
def test_statements_that_are_wrong(project: Path, number: str, origin: str, message: str) -> None:
    path = project / "book" / "claims.toml"
    path.write_text(path.read_text("utf8") + STATEMENT.format(number=number, origin=origin))
    assert any(finding.startswith(message) for finding in claims.collect(project)[1])


def test_a_statement_may_name_its_label(project: Path) -> None:
    path = project / "book" / "claims.toml"
    path.write_text(path.read_text("utf8") + 'label = "prop-old"\n')
    assert claims.collect(project)[1] == ["claim 5.8b: no chapter has the label prop-old"]
    state(project, "08-it", "prop-old")
    found, findings = claims.collect(project)
    assert (found[1].labels, findings) == (["prop-old"], [])


def test_unknown_numbers_are_named(project: Path) -> None:
    state(project, "08-it", "claim-9-9-typo")
    (project / "tests" / "test_more.py").write_text('@theory("9.8")\ndef test_more(): ...\n')
    findings = claims.collect(project)[1]
    assert findings == [
        "the label claim-9-9-typo belongs to no statement in claims.toml",
        "test_more.test_more: theory('9.8') is no statement in claims.toml",
    ]


def test_every_statement_of_the_theory_has_a_test() -> None:
    found, findings = claims.collect(ROOT)
    assert findings == []
    assert len(found) > 40 and all(claim.tests for claim in found)
