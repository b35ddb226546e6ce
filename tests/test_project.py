"""Facts about the project that no other test would notice: the lock, versions, imports, addresses."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]


def requirement_lines(name: str) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in (ROOT / name).read_text("utf8").splitlines())
    return [line for line in lines if line]


def pins(name: str) -> dict[str, str]:
    """The pinned versions of a lock file and of the file it includes."""
    pinned: dict[str, str] = {}
    for line in requirement_lines(name):
        if line.startswith("-r "):
            pinned |= pins(line.removeprefix("-r "))
        else:
            pin = re.fullmatch(r"([\w.-]+)==([\w.]+)", line)
            assert pin, f"{name} may hold nothing but exact versions, without addresses: {line}"
            package, version = pin.groups()
            assert canonicalize_name(package) not in pinned, f"{package} is pinned twice"
            pinned[canonicalize_name(package)] = version
    return pinned


def needed(extras: set[str]) -> set[str]:
    """Every package that the library with these extras needs here, however indirectly."""
    seen: set[tuple[str, str]] = set()
    todo = [("rdolib", extra) for extra in {"", *extras}]
    while todo:
        name, extra = todo.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for text in importlib.metadata.requires(name) or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                todo += [(canonicalize_name(requirement.name), more) for more in {"", *requirement.extras}]
    return {name for name, _ in seen} - {"rdolib"}


def test_lock_is_complete_and_installed() -> None:
    locked = pins("requirements.txt")
    assert locked["torch"] == "2.13.0"
    # A build of torch for a graphics card brings its own packages, which torch itself pins.
    assert needed({"book", "deep", "test"}) - locked.keys() == {
        name for name in needed({"deep"}) if name.startswith(("nvidia-", "cuda-", "triton"))
    }
    for name in needed({"book", "deep", "test"}) & locked.keys():
        assert importlib.metadata.version(name).partition("+")[0] == locked[name], name


def test_book_lock_is_complete_without_torch() -> None:
    locked = pins("requirements-book.txt")
    assert needed({"book"}) <= locked.keys()
    assert "torch" not in locked


def test_conda_environment_equals_the_lock() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf8"))
    python, pip, packages = environment["dependencies"]
    assert python == f"python {PROJECT['requires-python']}"
    assert pip == "pip"
    assert packages == {"pip": ["-r requirements.txt"]}


def test_one_version_everywhere() -> None:
    version = PROJECT["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf8"))
    assert str(citation["version"]) == version
    assert f"\n## {version}" in (ROOT / "CHANGELOG.md").read_text("utf8")
    assert importlib.metadata.version("rdolib") == version


def test_no_registry_and_no_path_of_one_machine_stands_in_a_file() -> None:
    # The brackets keep this file from matching itself.
    forbidden = r"py[p]i\.org|python[h]osted|registry\.np[m]js|conda\.ana[c]onda|(?<![\w.-])/(?:roo[t]|wor[k])/"
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    offenders = []
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path.is_file() and "_vendor" not in path.parts:
            text = path.read_bytes().decode("utf8", errors="ignore")
            offenders += [f"{name}: {match}" for match in re.findall(forbidden, text)]
    assert offenders == []


def test_importing_the_library_stays_light() -> None:
    code = "import sys, rdolib; print({'torch', 'matplotlib', 'gymnasium', 'IPython'} & sys.modules.keys())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


# Each module may import only those of its own and of earlier layers. Other private helpers belong to the solvers.
LAYERS = [
    {"errors"},
    {"_kernels", "_canonical", "_checks", "_progress", "_dense", "_outcomes", "_gridworld", "_gymnasium"},
    {"mdp", "stock", "distributions", "_atoms", "_projections", "_transport", "_graph", "_interned"},
    {"objectives"},
    {"risk", "bounds", "examples"},
    {"dp", "evaluation", "improvement", "generalized", "shaping"},
    {"optimize", "simulate"},
    {"constraints", "_surely", "savings"},
    {"plotting"},
    {"notebook", "_book"},
]
SOLVERS = 5


def layer(module: str) -> int:
    ranks = [rank for rank, modules in enumerate(LAYERS) if module in modules]
    if not ranks and module.startswith("_"):
        return SOLVERS
    assert ranks, f"say in LAYERS where rdolib.{module} belongs"
    return ranks[0]


@pytest.mark.parametrize("path", sorted((ROOT / "rdolib").glob("*.py")), ids=lambda path: path.stem)
def test_imports_go_one_way(path: Path) -> None:
    if path.stem == "__init__":
        return
    for imported in run_time_imports(ast.parse(path.read_text("utf8"))):
        assert layer(imported) <= layer(path.stem), f"{path.stem} imports {imported}, which lies above it"


def run_time_imports(tree: ast.AST) -> set[str]:
    """Modules of the library that a module imports, except for annotations only."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rdolib"):
            module = node.module.removeprefix("rdolib").removeprefix(".").partition(".")[0]
            found |= {module} if module else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.name.split(".")[1] for name in node.names if name.name.startswith("rdolib.")}
        else:
            found |= run_time_imports(node)
    return found
