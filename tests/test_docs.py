"""Does everything that the docs and the examples show run as it stands?

Each page is one program: its blocks marked `python` run one after the other and share their names. A block that cannot
run here is preceded by `<!-- not run: reason -->`; the reason is part of the page's source.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
BLOCK = re.compile(r"(?P<marker><!--\s*not run:(?P<reason>[^>]*)-->\s*\n)?^```python\n(?P<code>.*?)^```", re.M | re.S)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
SLOW, DATA = "# marks: slow", "# marks: data"


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path) -> list[re.Match[str]]:
    return list(BLOCK.finditer(path.read_text()))


def pages_with_code() -> list[Path]:
    return [path for path in PAGES if blocks(path)]


def marked(path: Path) -> object:
    """An example, with the marks that its own text asks for."""
    text = path.read_text()
    marks = [mark for line, mark in ((SLOW, pytest.mark.slow), (DATA, pytest.mark.data)) if line in text]
    return pytest.param(path, id=name_of(path), marks=marks)


def run(program: Path, folder: Path) -> None:
    """Run a program in a Python and a folder of its own, where a warning is an error: it may register what it likes."""
    environment = os.environ | {"MPLBACKEND": "Agg", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-W", "error", str(program)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def program_of(page: Path) -> str:
    """The code of a page, each line with the number that it has in the page, so that a traceback leads there."""
    lines = [""] * len(page.read_text().splitlines())
    for block in blocks(page):
        if not block["marker"]:
            first = page.read_text()[: block.start("code")].count("\n")
            code = block["code"].splitlines()
            lines[first : first + len(code)] = code
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("page", pages_with_code(), ids=name_of)
def test_the_code_of_a_page_runs(page, tmp_path):
    program = tmp_path / f"{page.stem}.py"
    program.write_text(program_of(page))
    run(program, tmp_path)


def test_the_readme_shows_code_that_runs():
    assert [block for block in blocks(ROOT / "README.md") if not block["marker"]]


def test_a_block_that_is_not_run_says_why():
    unexplained = [
        f"{name_of(page)}: {block['code'].splitlines()[0]}"
        for page in pages_with_code()
        for block in blocks(page)
        if block["marker"] and len(block["reason"].strip()) < 10
    ]
    assert unexplained == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_to_a_file_leads_to_one(page):
    targets = [target for target in LINK.findall(page.read_text()) if "://" not in target and "@" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_asks_nobody(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    pages = "\n".join(page.read_text() for page in tmp_path.rglob("*.html"))
    loaded = re.findall(r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=\"?(https?://[^\"\s>]+)", pages)
    assert loaded == []


def test_the_site_shows_every_page():
    navigation = (ROOT / "mkdocs.yml").read_text()
    pages = [str(path.relative_to(ROOT / "docs")) for path in PAGES if path.is_relative_to(ROOT / "docs")]
    assert [page for page in pages if page not in navigation] == []


@pytest.mark.parametrize("example", [marked(path) for path in EXAMPLES])
def test_an_example_runs(example, tmp_path, request):
    if DATA in example.read_text():
        request.getfixturevalue("data_folder")
    run(example, tmp_path)


def test_the_picture_of_the_house_shows_every_room():
    picture = (ROOT / "docs" / "architecture.md").read_text()
    source = ROOT / "src" / "modscope"
    rooms = [f"{path.name}/" for path in source.iterdir() if list(path.glob("*.py"))]
    files = [path.name for path in source.glob("[!_]*.py")]
    assert [room for room in [*rooms, *files] if f"`{room}`" not in picture] == []
    shown = re.findall(r"`((?:wiring/)?\w+(?:\.py|/))`", picture.partition("## The rooms")[2].partition("`tests/`")[0])
    assert [room for room in shown if not (source / room).exists()] == []


def test_the_floors_of_the_picture_are_the_layers_of_the_contract():
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    layers = [set(re.findall(r"\w+", layer)) for layer in contract]
    rows = re.findall(r"^\| (\d+) \| (.*?) \|", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE)
    rooms = {int(floor): set() for floor, _ in rows}
    for floor, names in rows:
        rooms[int(floor)] |= set(re.findall(r"`(\w+)(?:\.py|/)`", names))
    built = {path.stem for path in (ROOT / "src" / "modscope").iterdir()}
    assert [rooms[floor] for floor in sorted(rooms, reverse=True) if floor > 0] == [
        layer & built for layer in layers[:-2] if layer & built
    ]
    assert rooms[0] == layers[-1] | layers[-2]
