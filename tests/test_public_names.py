"""Are the public names exactly what the package says, each with a docstring and a place in the docs?"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import modscope as ms

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "modscope" / "__init__.py"
TABLES = [name for name in ms.__all__ if name.isupper()]  # their modules explain them
CLASSES = [name for name in ms.__all__ if name[0].isupper() and name not in TABLES]
CALLABLES = [name for name in ms.__all__ if name not in TABLES]
HEAVY = ("sklearn", "polars", "pydantic", "rich", "jinja2", "matplotlib", "numba", "transformers", "pandas", "dask")


def names_for_type_checkers() -> list[str]:
    """What `__init__.py` imports under TYPE_CHECKING from modscope."""
    block = next(node for node in ast.parse(PACKAGE.read_text()).body if isinstance(node, ast.If))
    return sorted(alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names)


def test_all_is_sorted_and_names_nothing_twice():
    assert ms.__all__ == sorted(set(ms.__all__))


def test_all_the_table_and_the_type_checkers_block_name_the_same():
    assert sorted(ms._MODULE_OF) == ms.__all__
    assert names_for_type_checkers() == ms.__all__


def test_dir_offers_every_public_name():
    assert set(ms.__all__) <= set(dir(ms))


def test_a_name_that_is_not_public_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = ms.no_such_name


@pytest.mark.parametrize("name", ms.__all__)
def test_a_public_name_is_what_its_module_defines(name):
    module = importlib.import_module(ms._MODULE_OF[name])
    assert getattr(ms, name) is getattr(module, name)


@pytest.mark.parametrize("name", CALLABLES)
def test_a_public_name_has_a_docstring(name):
    assert len((inspect.getdoc(getattr(ms, name)) or "").partition("\n")[0]) > 10


@pytest.mark.parametrize("name", CLASSES)
def test_every_public_method_has_a_docstring(name):
    own = {key: entry for key, entry in vars(getattr(ms, name)).items() if not key.startswith("_")}
    methods = {key: entry for key, entry in own.items() if inspect.isfunction(entry) or isinstance(entry, property)}
    assert [key for key, entry in methods.items() if not inspect.getdoc(entry)] == []


@pytest.mark.parametrize("name", ms.__all__)
def test_a_public_name_stands_in_the_docs(name):
    reference = (ROOT / "docs" / "api.md").read_text()
    assert re.search(rf"^::: modscope\S*\.{name}$", reference, re.MULTILINE), f"docs/api.md has no entry for {name}"


def test_the_docs_explain_no_name_that_is_gone():
    documented = re.findall(r"^::: (modscope\S*)\.(\w+)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    assert sorted(name for _, name in documented) == ms.__all__


def test_a_public_name_beats_the_submodule_of_its_name():
    code = "import modscope.progress, modscope; from modscope.progress import track; print(callable(modscope.progress))"
    assert run(code) == "True"


def test_importing_modscope_imports_nothing_heavy():
    """A fact instead of a time: what is not imported costs nothing (torch itself is allowed)."""
    assert run(f"import sys, modscope; print([name for name in {HEAVY} if name in sys.modules])") == "[]"


def test_statistics_records_and_jobs_need_no_torch():
    code = "import sys, modscope.statistics, modscope.records, modscope.jobs.executors; print('torch' in sys.modules)"
    assert run(code) == "False"


def test_using_every_public_name_but_the_page_writer_imports_nothing_heavy():
    names = [name for name in ms.__all__ if name != "write_report"]
    code = f"[getattr(ms, name) for name in {names}]; print([name for name in {HEAVY} if name in sys.modules])"
    assert run(f"import sys, modscope as ms; {code}") == "[]"


def run(code: str) -> str:
    """What the code prints in a Python of its own, where no test has imported anything."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
