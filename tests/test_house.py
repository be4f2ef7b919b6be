"""Is the house in order? Rules that no linter knows, checked on the files as they are."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "modscope"
SOURCES = sorted(SOURCE.rglob("*.py"))
ROOMS = sorted({path.parent for path in SOURCES})

# Paths of one machine, and hosts that packages come from: a stranger has neither. Written so that this file is clean.
PLACES = re.compile(
    r"(?<![\w.~])/(?:work|root|home|opt|Users)/\w|\b(?:pypi|pythonhosted|npmjs|debian)\.(?:org|com|net)\b"
)
TEXT = (".py", ".md", ".toml", ".yml", ".yaml", ".txt", ".cff", ".html", ".css", ".js", ".json", ".cfg", "")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def files_of_the_repository() -> list[Path]:
    """Tracked files that hold text; all files outside a git checkout (a release archive)."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    folders = ("src", "tests", "docs", "benchmarks", "examples", "tools")
    found = (
        [ROOT / line for line in listed.stdout.splitlines()]
        if listed.returncode == 0
        else [path for folder in folders for path in (ROOT / folder).rglob("*")]
    )
    return [path for path in found if path.is_file() and path.suffix in TEXT]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def n_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the body without the docstring, which may be as long as it must."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (function.body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def calls(path: Path) -> Iterator[tuple[str, int]]:
    """Name and line of each call in a file, as written: `torch.manual_seed`, `print`."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node.lineno


def test_no_file_names_a_machine_or_a_registry():
    found = [
        f"{name_of(path)}:{number}: {line.strip()[:100]}"
        for path in files_of_the_repository()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1)
        if PLACES.search(line)
    ]
    assert found == []


def test_every_room_is_a_package():
    assert [name_of(room) for room in ROOMS if not (room / "__init__.py").is_file()] == []


def test_the_first_line_of_a_file_says_what_it_is_for():
    without_code = [path for path in SOURCES if path.name == "__init__.py" and not path.read_text().strip()]
    silent = [path for path in SOURCES if len((ast.get_docstring(tree(path)) or "").partition("\n")[0]) < 20]
    assert [name_of(path) for path in silent if path not in without_code] == []


def test_no_file_has_a_name_that_answers_no_question():
    assert [
        name_of(path) for path in SOURCES if path.stem in ("utils", "util", "helpers", "common", "misc", "base")
    ] == []


def test_every_function_fits_in_the_eye():
    long = [(path, function) for path in SOURCES for function in functions(path) if n_lines(function) > 50]
    assert [f"{name_of(path)}: {function.name}, {n_lines(function)} lines" for path, function in long] == []


def test_every_file_can_be_read_in_one_sitting():
    stories = [
        path for path in SOURCES if not path.stem.endswith("rules")
    ]  # a list of small rules is looked up, not read
    n_lines_of = {name_of(path): len(path.read_text().splitlines()) for path in stories}
    assert {name: lines for name, lines in n_lines_of.items() if lines > 450} == {}


def test_the_core_prints_nothing():
    core = [path for path in SOURCES if path.stem != "cli"]
    assert [f"{name_of(path)}:{line}" for path in core for name, line in calls(path) if name == "print"] == []


def test_the_process_is_seeded_only_where_its_state_is_put_back():
    """What a user's dropout draws can only come from torch's global state: seeded inside `fork_rng`, nowhere else."""
    seeding = ("torch.manual_seed", "torch.random.manual_seed", "torch.seed", "np.random.seed", "random.seed")
    seeded = [(path, line) for path in SOURCES for name, line in calls(path) if name in seeding]
    assert [f"{name_of(path)}:{line}" for path, line in seeded if line not in lines_that_put_the_state_back(path)] == []


def lines_that_put_the_state_back(path: Path) -> set[int]:
    blocks = [node for node in ast.walk(tree(path)) if isinstance(node, ast.With)]
    forked = [block for block in blocks if any("fork_rng" in ast.unparse(item) for item in block.items)]
    return {line for block in forked for line in range(block.lineno, (block.end_lineno or 0) + 1)}


def test_no_error_is_swallowed():
    """An `except` that catches everything must raise, or hand the error on by its name."""
    silent = [
        f"{name_of(path)}:{handler.lineno}"
        for path in SOURCES
        for handler in handlers_of_everything(path)
        if not any(isinstance(node, ast.Raise) for node in ast.walk(handler))
        and not any(isinstance(node, ast.Name) and node.id == handler.name for node in ast.walk(handler))
    ]
    assert silent == []


def handlers_of_everything(path: Path) -> Iterator[ast.ExceptHandler]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler) and (
            node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")
        ):
            yield node


def test_nothing_that_can_run_code_is_loaded():
    unsafe = (
        "pickle.load",
        "pickle.loads",
        "joblib.load",
        "yaml.load",
        "yaml.unsafe_load",
        "eval",
        "exec",
        "os.system",
    )
    assert [f"{name_of(path)}:{line}" for path in SOURCES for name, line in calls(path) if name in unsafe] == []
    loads = [(path, node) for path in SOURCES for node in ast.walk(tree(path)) if is_call_of(node, "torch.load")]
    assert [
        f"{name_of(path)}:{node.lineno}" for path, node in loads if "weights_only=True" not in ast.unparse(node)
    ] == []


def is_call_of(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == name


def test_every_command_and_every_option_has_help():
    from modscope.cli import app

    for name in commands():
        command = app[name]
        assert (command.default_command.__doc__ or "").strip(), f"command '{name}' says nothing about itself"
        for argument in command.assemble_argument_collection():
            assert argument.parameter.help, f"option {argument.name} of '{name}' has no help"


def commands() -> list[str]:
    from modscope.cli import app

    return [name for name in app if not name.startswith("-")]


def test_the_command_line_has_commands():
    assert "demo" in commands()


@pytest.mark.parametrize("words", [["--help"], *([name, "--help"] for name in commands())], ids=" ".join)
def test_help_is_shown_and_ends_well(words):
    code = f"from modscope.cli import main; main({words})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "modscope" in done.stdout


def test_the_pins_hold_every_dependency_once():
    pins = [line.partition("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line]
    names = [name.lower().replace("_", "-") for name, _, _ in pins]
    assert len(names) == len(set(names))
    assert ("torch", "==", "2.13.0") in pins
    assert not any(name.startswith("nvidia") for name in names)
    assert {name.lower() for name in [*core(), *extras()]} <= set(names)


IMPORT_NAME_OF = {"pyyaml": "yaml", "scikit-learn": "sklearn", "scikit-network": "sknetwork", "pillow": "PIL"}
ONLY_FOR_DEVELOPERS = ("dev", "docs")


def test_every_dependency_is_imported_and_explained():
    explained, _, waiting = (ROOT / "docs" / "dependencies.md").read_text().partition("## Not used yet")
    imported = {module for path in SOURCES for module in imports(path)}
    for name in [*core(), *extras()]:
        is_imported = IMPORT_NAME_OF.get(name, name) in imported
        assert is_imported != (f"`{name}`" in waiting.partition("## Pins")[0]), f"{name} is imported: {is_imported}"
        assert re.search(rf"^\| .*\b{name}\b", explained, re.MULTILINE), f"docs/dependencies.md does not explain {name}"


def imports(path: Path) -> set[str]:
    """Top-level packages that a file imports, wherever in the file."""
    nodes = list(ast.walk(tree(path)))
    absolute = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and node.level == 0]
    plain = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return {module.partition(".")[0] for module in [*absolute, *plain]}


def core() -> list[str]:
    """Names of the packages that modscope always needs."""
    return [package_of(entry) for entry in project()["dependencies"]]


def extras() -> list[str]:
    """Names of the packages that a user's extras bring."""
    wanted = project()["optional-dependencies"]
    return [package_of(entry) for extra in wanted if extra not in ONLY_FOR_DEVELOPERS for entry in wanted[extra]]


def package_of(requirement: str) -> str:
    return re.split(r"[\[><=!~; ]", requirement)[0]


@cache
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_a_wheel_holds_the_package_and_nothing_else(tmp_path):
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {str(path.relative_to(SOURCE.parent)) for path in SOURCE.rglob("*") if path.is_file()}
    assert packed == {name for name in wanted if "__pycache__" not in name}
    assert "modscope/py.typed" in packed
    assert any(name.startswith("modscope/report/assets/") for name in packed)
