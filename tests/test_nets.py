"""Each net that keeps text, code and figures together is fed a corrupted notebook, and must tear."""

import base64
import io
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import check_pages
import lint_chapters
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import run_chapters
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image, ImageDraw

from rdolib.errors import InvalidArgumentError
from rdolib.notebook import describe, glue, show

ROOT = Path(__file__).resolve().parents[1]
Notebook = nbformat.NotebookNode

# Positions of the cells in the good chapter.
TITLE, IMPORTS, NUMBERS, PLAIN, FIGURE, ASSIGN, VALUE = range(7)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small chapter, executed and in normal form."""
    cells = [
        new_markdown_cell("# A chapter\n\nThe mean is {glue:text}`mean:.3f`, after 1000 episodes."),
        new_code_cell("import matplotlib.pyplot as plt\nimport numpy as np\n\nfrom rdolib.notebook import glue, show"),
        new_code_cell('values = np.arange(7) / 7\nglue("mean", values.mean() + 12)'),
        new_code_cell("print(values.sum())"),
        new_code_cell(
            'figure, ax = plt.subplots()\nax.plot(values, label="a line")\nshow(figure, alt="A rising line")'
        ),
        new_code_cell("x = 3"),
        new_code_cell("x"),
    ]
    path = tmp_path_factory.mktemp("good") / "chapter.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    assert run_chapters.run(path)
    return path


@pytest.fixture
def chapter(good: Path) -> Notebook:
    return run_chapters.read(good)


# --- normal form --------------------------------------------------------------------------------------------


def test_two_runs_give_the_same_bytes(good: Path) -> None:
    before = good.read_bytes()
    assert run_chapters.run(good)
    assert good.read_bytes() == before


def run_check(path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["run_chapters.py", "--check", str(path)])
    return run_chapters.main()


def touch_metadata(nb: Notebook) -> None:
    nb.cells[NUMBERS].metadata["collapsed"] = True


def touch_version(nb: Notebook) -> None:
    nb.metadata.language_info["version"] = "3.11.0"


def touch_id(nb: Notebook) -> None:
    nb.cells[NUMBERS].id = "random"


def add_empty_cell(nb: Notebook) -> None:
    nb.cells.append(new_code_cell(""))


@pytest.mark.parametrize("corrupt", [touch_metadata, touch_version, touch_id, add_empty_cell])
def test_check_finds_what_is_not_in_normal_form(
    corrupt: Callable[[Notebook], None],
    chapter: Notebook,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "chapter.ipynb"
    path.write_text(run_chapters.to_text(chapter), "utf8")
    assert run_check(path, monkeypatch) == 0
    corrupt(chapter)
    nbformat.write(chapter, path)
    assert run_check(path, monkeypatch) == 1
    assert f"{path}: not in normal form" in capsys.readouterr().out


def test_a_failing_chapter_is_named_and_left_alone(
    chapter: Notebook, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chapter.cells[ASSIGN].source = "raise KeyError('lost')"
    path = tmp_path / "chapter.ipynb"
    nbformat.write(chapter, path)
    before = path.read_bytes()
    assert not run_chapters.run(path)
    assert path.read_bytes() == before
    message = capsys.readouterr().err
    assert str(path) in message
    assert "KeyError" in message


def test_pieces_of_a_stream_are_joined() -> None:
    pieces = [new_output("stream", name="stdout", text=text) for text in ("a", "b")]
    (joined,) = run_chapters.merge_streams(pieces)
    assert joined.text == "ab"


# --- re-execution: nbval on the text, book/conftest.py on the rest ------------------------------------------


def change_text(nb: Notebook) -> None:
    nb.cells[PLAIN].outputs[0].text = "3.1\n"


def change_glued_value(nb: Notebook) -> None:
    nb.cells[NUMBERS].outputs[0].data["application/papermill.record/text/plain"] = "12.4287"


def change_glued_name(nb: Notebook) -> None:
    nb.cells[NUMBERS].outputs[0].metadata["scrapbook"]["name"] = "median"


def change_pixels(nb: Notebook) -> None:
    data = nb.cells[FIGURE].outputs[0].data
    picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
    ImageDraw.Draw(picture).rectangle((500, 300, 520, 320), fill="black")
    png = io.BytesIO()
    picture.save(png, "png")
    data["image/png"] = base64.b64encode(png.getvalue()).decode()


def change_data_behind_the_same_picture(nb: Notebook) -> None:
    source = nb.cells[FIGURE].source
    nb.cells[FIGURE].source = source.replace("plot(values", "plot(values * (1 + 2e-5)")
    assert nb.cells[FIGURE].source != source


def change_alt(nb: Notebook) -> None:
    nb.cells[FIGURE].outputs[0].metadata["image/png"]["alt"] = "A falling line"


def drop_picture(nb: Notebook) -> None:
    del nb.cells[FIGURE].outputs[0].data["image/png"]


def drop_output(nb: Notebook) -> None:
    nb.cells[VALUE].outputs = []


def invent_output(nb: Notebook) -> None:
    nb.cells[ASSIGN].outputs = [new_output("execute_result", {"text/plain": "3"}, execution_count=5)]


def never_executed(nb: Notebook) -> None:
    nb.cells[ASSIGN].execution_count = None


def raise_error(nb: Notebook) -> None:
    nb.cells[ASSIGN].source = "x = 1 / 0"


# Corruption, the code cell that must fail (as nbval counts them), words of the report.
CORRUPTIONS = {
    change_text: (2, "mismatch 'stdout'"),
    change_glued_value: (1, "mismatch 'application/papermill.record/text/plain'"),
    change_glued_name: (1, "has name 'median' committed, 'mean' in a fresh run"),
    change_pixels: (3, "The picture of output 1 differs"),
    change_data_behind_the_same_picture: (3, "mismatch 'text/plain'"),
    change_alt: (3, "has alternative text 'A falling line' committed, 'A rising line' in a fresh run"),
    drop_picture: (3, "Output 1 has ['text/plain'] committed"),
    drop_output: (5, "Unexpected output fields"),
    invent_output: (4, "Missing output fields"),
    never_executed: (4, "was never executed"),
    raise_error: (4, "ZeroDivisionError"),
}


@pytest.fixture(scope="module")
def nbval_report(good: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """What one run of the book's own test setup says about the good chapter and every corrupted one."""
    folder = tmp_path_factory.mktemp("nbval")
    shutil.copy(ROOT / "book" / "conftest.py", folder)
    (folder / "pytest.ini").write_text("[pytest]\n")
    shutil.copy(good, folder / "good.ipynb")
    for corrupt in CORRUPTIONS:
        notebook = run_chapters.read(good)
        corrupt(notebook)
        nbformat.write(notebook, folder / f"{corrupt.__name__}.ipynb")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval",
        "--nbval-current-env",
        "--color=no",
        "-rA",
        "--no-header",
    ]
    # The outer run may itself be a worker of pytest-xdist.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
    result = subprocess.run([*command, "."], cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 1, result.stdout + result.stderr
    return result.stdout


@pytest.mark.xdist_group("nbval")
def test_the_good_chapter_passes(nbval_report: str) -> None:
    assert len(re.findall(r"^PASSED good\.ipynb::Cell \d$", nbval_report, re.MULTILINE)) == 6
    assert "FAILED good" not in nbval_report


@pytest.mark.xdist_group("nbval")
@pytest.mark.parametrize("corrupt", CORRUPTIONS, ids=lambda function: function.__name__)
def test_reexecution_catches(corrupt: Callable[[Notebook], None], nbval_report: str) -> None:
    cell, words = CORRUPTIONS[corrupt]
    failed = re.findall(rf"^FAILED {corrupt.__name__}\.ipynb::Cell (\d)", nbval_report, re.MULTILINE)
    assert failed[0] == str(cell)
    if corrupt is not raise_error:  # a cell after an error may fail too
        assert len(failed) == 1
    sections = re.split(r"^_+ (.*?) _+$", nbval_report, flags=re.MULTILINE)
    reports = [
        text for heading, text in zip(sections[1::2], sections[2::2], strict=True) if corrupt.__name__ in heading
    ]
    assert any(words in report for report in reports), reports


# --- lints --------------------------------------------------------------------------------------------------


def findings(chapter: Notebook) -> list[str]:
    return list(lint_chapters.lint(chapter))


def test_the_good_chapter_has_no_findings(chapter: Notebook) -> None:
    assert findings(chapter) == []


def run_out_of_order(nb: Notebook) -> None:
    nb.cells[ASSIGN].execution_count = 17


def trailing_semicolon(nb: Notebook) -> None:
    nb.cells[VALUE].source = "x;  # quiet"


def lose_printed_output(nb: Notebook) -> None:
    nb.cells[PLAIN].outputs = []


def store_error(nb: Notebook) -> None:
    nb.cells[ASSIGN].outputs = [new_output("error", ename="KeyError", evalue="", traceback=[])]


def store_warning(nb: Notebook) -> None:
    nb.cells[ASSIGN].outputs = [new_output("stream", name="stderr", text="DeprecationWarning: old\n")]


def picture_without_alt(nb: Notebook) -> None:
    nb.cells[FIGURE].outputs[0].metadata = {}


def skip_cell(nb: Notebook) -> None:
    nb.cells[ASSIGN].metadata["tags"] = ["nbval-skip"]


def skip_cell_by_comment(nb: Notebook) -> None:
    nb.cells[ASSIGN].source = "# NBVAL_IGNORE_OUTPUT\nx = 3"


def ignore_without_assertion(nb: Notebook) -> None:
    nb.cells[ASSIGN].metadata["tags"] = ["nbval-ignore-output"]


def type_number(nb: Notebook) -> None:
    nb.cells[TITLE].source += " It is 12.43."


def type_percentage(nb: Notebook) -> None:
    nb.cells[TITLE].source += " It is 1,242.9 %."


def type_number_in_exercise(nb: Notebook) -> None:
    nb.cells[TITLE].source += "\n\n```{exercise}\nWhy 12.4286?\n```"


def open_solution(nb: Notebook) -> None:
    nb.cells[TITLE].source += "\n\n````{solution} why\nBecause.\n````"


LINTS = {
    never_executed: (ASSIGN, "not executed"),
    run_out_of_order: (ASSIGN, "executed as number 17 instead of 5"),
    trailing_semicolon: (VALUE, "trailing semicolon"),
    lose_printed_output: (PLAIN, "no output is stored"),
    drop_output: (VALUE, "no output is stored"),
    store_error: (ASSIGN, "ends in KeyError"),
    store_warning: (ASSIGN, "writes to stderr: DeprecationWarning"),
    picture_without_alt: (FIGURE, "a picture without alternative text"),
    change_alt: (FIGURE, "does not open with its alternative text"),
    skip_cell: (ASSIGN, "exempt from execution"),
    skip_cell_by_comment: (ASSIGN, "exempt from execution"),
    ignore_without_assertion: (ASSIGN, "assert something about it"),
    type_number: (TITLE, "'12.43' is typed; write {glue:text}`mean`"),
    type_percentage: (TITLE, "'1,242.9 %' is typed"),
    type_number_in_exercise: (TITLE, "'12.4286' is typed"),
    open_solution: (TITLE, "would stand open"),
}


@pytest.mark.parametrize("corrupt", LINTS, ids=lambda function: function.__name__)
def test_lint_catches(corrupt: Callable[[Notebook], None], chapter: Notebook) -> None:
    corrupt(chapter)
    position, words = LINTS[corrupt]
    (finding,) = findings(chapter)
    assert finding.startswith(f"cell {position + 1}: ")
    assert words in finding


@pytest.mark.parametrize(
    "text",
    [
        "`12.43`",
        "$x = 12.43$",
        "$$\nx = 12.43\n$$",
        "```python\nx = 12.43\n```",
        "```{math}\n12.43\n```",
        "[link](page-12.43)",
        "12.44",  # not equal at the precision printed
        "12",  # too few digits to mean this value
        "version 12.43.1",
        "{glue:text}`mean:.2f`",
    ],
)
def test_numbers_that_are_not_typed(text: str) -> None:
    assert list(lint_chapters.typed_numbers(f"Before.\n\n{text}\n\nAfter.", {"mean": 12.4286})) == []


def test_lint_names_file_and_cell(
    chapter: Notebook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page, path = tmp_path / "page.md", tmp_path / "chapter.ipynb"
    page.write_text("The mean is 12.43.\n")
    trailing_semicolon(chapter)
    nbformat.write(chapter, path)
    monkeypatch.setattr(sys, "argv", ["lint_chapters.py", str(path), str(page)])
    assert lint_chapters.main() == 1
    printed = capsys.readouterr().out
    assert f"{path}: cell 7: a trailing semicolon" in printed
    assert f"{page}: '12.43' is typed" in printed


# --- figures and numbers ------------------------------------------------------------------------------------


def drawings(nudge: float) -> dict[str, Callable[[plt.Axes], object]]:
    """One drawing of each kind, with one value moved by `nudge`."""
    x = np.linspace(1.0, 2.0, 5)
    y = x + nudge * (x == 2.0)
    grid = np.add.outer(x, y)
    return {
        "plot": lambda ax: ax.plot(x, y),
        "scatter": lambda ax: ax.scatter(x, y),
        "scatter colors": lambda ax: ax.scatter(x, x, c=y),
        "scatter sizes": lambda ax: ax.scatter(x, x, s=y),
        "bar": lambda ax: ax.bar(x, y),
        "hist": lambda ax: ax.hist(y, bins=y),
        "stairs": lambda ax: ax.stairs(y[1:], x),
        "fill_between": lambda ax: ax.fill_between(x, y),
        "vlines": lambda ax: ax.vlines(x, 0, y),
        "imshow": lambda ax: ax.imshow(grid),
        "pcolormesh": lambda ax: ax.pcolormesh(grid),
        "contour": lambda ax: ax.contour(grid, levels=[2.6, 3.1]),
        "contourf": lambda ax: ax.contourf(grid, levels=[2.6, 3.1]),
        "quiver": lambda ax: ax.quiver(x, x, x, y),
        "text": lambda ax: ax.text(y[-1], 1, "here"),
        "annotate": lambda ax: ax.annotate("here", (y[-1], 1), (1, 1)),
        "axhline": lambda ax: ax.axhline(y[-1]),
        "errorbar": lambda ax: ax.errorbar(x, x, y),
        "step": lambda ax: ax.step(x, y),
    }


def description(draw: Callable[[plt.Axes], object]) -> str:
    figure, ax = plt.subplots()
    draw(ax)
    text = describe(figure)
    plt.close(figure)
    return text


@pytest.mark.parametrize("kind", drawings(0.0))
def test_digest_sees_a_change_of_the_data(kind: str) -> None:
    as_it_was = description(drawings(0.0)[kind])
    assert description(drawings(0.0)[kind]) == as_it_was
    assert description(drawings(1e-4)[kind]) != as_it_was
    assert description(drawings(1e-13)[kind]) == as_it_was, "rounding noise must not count"


def test_digest_of_labels_and_odd_values() -> None:
    figure, ax = plt.subplots()
    ax.plot([0, 1, np.nan], [np.inf, 1e-20, 3], label="odd")
    ax.plot(np.float32([1, 2]), np.float32([0.1, 0.2]))
    ax.plot([], [])
    ax.set(title="Title", xlabel="stock", ylabel="value")
    lines = describe(figure).splitlines()
    plt.close(figure)
    assert lines[0] == "axes 1: title 'Title'; x 'stock'; y 'value'"
    assert lines[1].startswith("  line 'odd': x 3 values from 0 to 1 #")
    assert "2 values from 0.1 to 0.2, mean 0.15" in lines[2], "float32 carries three digits, and no hash"
    assert "0 values, none finite" in lines[3]


@pytest.mark.parametrize("alt", ["", "  \n"])
def test_show_demands_alternative_text(alt: str) -> None:
    figure = plt.figure()
    with pytest.raises(InvalidArgumentError, match="needs alt"):
        show(figure, alt)
    plt.close(figure)


class Published(list[tuple[dict[str, str], dict[str, object]]]):
    def __call__(self, data: dict[str, str], raw: bool, metadata: dict[str, object]) -> None:
        self.append((data, metadata))


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> Published:
    outputs = Published()
    monkeypatch.setattr("IPython.display.display", outputs)
    return outputs


@pytest.mark.parametrize(
    ("value", "text"),
    [(1 / 3, "0.333333"), (np.float64(2e9 / 3), "666667000.0"), (np.int64(7), "7"), ("seven", "'seven'")],
)
def test_glue_is_the_same_output_as_that_of_myst_nb(value: float | str, text: str, published: Published) -> None:
    glue("key", value)
    glue("key", value, display=True)
    prefix = "application/papermill.record/"
    assert published == [
        ({f"{prefix}text/plain": text}, {"scrapbook": {"name": "key", "mime_prefix": prefix}}),
        ({"text/plain": text}, {"scrapbook": {"name": "key", "mime_prefix": ""}}),
    ]


def test_glue_refuses_arrays() -> None:
    with pytest.raises(InvalidArgumentError, match=r"glue\('key'\) got ndarray"):
        glue("key", np.zeros(3))  # type: ignore[arg-type]


# --- pages --------------------------------------------------------------------------------------------------


def strict_build(folder: Path) -> subprocess.CompletedProcess[str]:
    settings = """
        extensions = ["myst_nb", "rdolib._book"]
        nb_execution_mode = "off"
        nb_render_plugin = "rdolib"
        html_theme = "basic"
    """
    (folder / "conf.py").write_text(textwrap.dedent(settings))
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", ".", "html"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_alternative_text_and_glued_number_reach_the_page(good: Path, tmp_path: Path) -> None:
    shutil.copy(good, tmp_path / "index.ipynb")
    result = strict_build(tmp_path)
    assert result.returncode == 0, result.stderr
    html = (tmp_path / "html" / "index.html").read_text("utf8")
    assert 'alt="A rising line"' in html
    assert '<span class="pasted-text">12.429</span>' in html


@pytest.mark.parametrize("corrupt", [picture_without_alt, change_glued_name], ids=lambda function: function.__name__)
def test_strict_build_catches(corrupt: Callable[[Notebook], None], chapter: Notebook, tmp_path: Path) -> None:
    corrupt(chapter)
    nbformat.write(chapter, tmp_path / "index.ipynb")
    result = strict_build(tmp_path)
    assert result.returncode == 1
    assert "index.ipynb" in result.stderr
    assert ("without alternative text" in result.stderr) == (corrupt is picture_without_alt)


@pytest.mark.parametrize(
    ("html", "words"),
    [
        ('<script src="https://cdn.example/x.js"></script>', "<script> loads https://cdn.example"),
        ('<link rel="stylesheet" href="//fonts.example/x.css">', "<link> loads //fonts.example"),
        ('<img src="a.png">', "picture without alternative text"),
        ('<img src="http://example/a.png" alt="A">', "<img> loads"),
    ],
)
def test_scan_catches(html: str, words: str) -> None:
    (finding,) = check_pages.scan(html)
    assert words in finding


def test_scan_lets_links_and_local_files_pass() -> None:
    links = '<a href="https://example">x</a><link rel="canonical" href="https://example">'
    assert check_pages.scan(links + '<img src="a.png" alt="A">') == []


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium here")
def test_browser_catches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    mathjax = (ROOT / "book/_vendor/_static/mathjax/tex-svg-full.js").as_uri()
    pages = {
        "good": rf'<script src="{mathjax}"></script><p class="math">\(x^2\)</p>',
        "macro": rf'<script src="{mathjax}"></script><p class="math">\(\undefinedmacro\)</p>',
        "broken": rf'<script src="{mathjax}"></script><p class="math">\(\frac{{1}}\)</p>',
        "unclosed": rf'<script src="{mathjax}"></script><p class="math">\(\frac{{1\)</p>',
        "wide": '<div class="bd-article"><div style="width: 900px">wide</div></div>',
        "remote": '<script>fetch("https://example.invalid/x").catch(() => 0)</script>',
        "script": "<script>throw new Error('oops')</script>",
    }
    head = '<!doctype html><meta name="viewport" content="width=device-width">'
    for name, body in pages.items():
        (tmp_path / f"{name}.html").write_text(head + body)
    monkeypatch.setattr(sys, "argv", ["check_pages.py", str(tmp_path)])
    assert check_pages.main() == 1
    printed = capsys.readouterr().out
    assert "good.html" not in printed
    assert re.search(r"macro.html \(phone, 390 px\): undefined macro", printed)
    assert re.search(r"broken.html .*MathJax cannot set", printed)
    assert re.search(r"unclosed.html .*formula was not set", printed)
    assert re.search(r"wide.html \(phone, 390 px\): page is \d+ px too wide: DIV", printed)
    assert not re.search(r"wide.html \(desktop", printed)
    assert "requests https://example.invalid/x" in printed
    assert "oops" in printed
