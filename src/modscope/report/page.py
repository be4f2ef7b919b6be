"""How does a record become one page for the browser?"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from modscope.records import write_whole
from modscope.report.reading import Reportable, read

if TYPE_CHECKING:
    from jinja2 import Environment

    from modscope.report.content import Analysis, Collection, DataInfo, File, Part, Reference, Warning_
    from modscope.report.figure import Figure, FigureKind

AnyPart = TypeVar("AnyPart", bound="Part")

SECTIONS = {
    "network": (
        "The network",
        "Which units hold together? Point at a module to follow it through the figures; click to keep it.",
    ),
    "function": (
        "Function",
        "Do different tasks need different weights? For each task a mask is learned: the weights that the task needs, "
        "while all weights stay as they are.",
    ),
    "structure": (
        "Structure",
        "Do the weights fall into groups with little weight between them, more than chance allows?",
    ),
    "importance": (
        "Importance",
        "Does silencing part of a module cost more than silencing random units of the same layer?",
    ),
    "bridge": ("Bridge", "Do the modules, found from the weights alone, tell which task a unit serves?"),
    "stability": ("Stability", "Would another seed, another clustering or another number of modules say the same?"),
}


@dataclass(frozen=True)
class PageSection:
    """A section of the page with its figures."""

    id: str
    number: int
    title: str
    text: str
    figures: tuple[Figure, ...]

    @property
    def missing(self) -> str:
        """Why nothing in this section was measured, where one reason holds for all figures; otherwise empty."""
        reasons = {figure.missing for figure in self.figures}
        return reasons.pop() if len(reasons) == 1 else ""

    @property
    def codes(self) -> tuple[str, ...]:
        """The lines of Python that measure its figures."""
        return tuple(dict.fromkeys(figure.kind.code for figure in self.figures))


def write_report(run_or_records: Reportable, path: str | os.PathLike[str]) -> Path:
    """Write one offline HTML page about a run, a record, or several of them side by side; return its path.

    The page needs no network and sends nothing. The same records give the same bytes.

    Args:
        run_or_records: A run (anything with `.record()`), a `Record` of kind "analysis" or "collection", or several.
        path: The HTML file to write; an existing file is replaced.

    Raises:
        StudyError: If there is nothing to report.
        RecordError: If a record does not hold what a page needs, or the file cannot be written.
    """
    collection, versions = read(run_or_records)
    return write_whole(path, render(collection, versions).encode("utf-8"))


def render(collection: Collection, versions: dict[str, str]) -> str:
    """The page as text."""
    from modscope.report.island import drawn
    from modscope.report.verdicts import WORDS, questions

    environment = _environment()
    analyses = collection.records
    start = _start(analyses)
    return environment.get_template("page.html").render(
        collection=collection,
        analyses=analyses,
        start=start,
        state_words=WORDS,
        questions=questions(analyses),
        sections=_sections(analyses),
        versions=sorted(versions.items()),
        methods=_methods(collection),
        warnings=_warnings(collection),
        data={"start": start, "runs": [drawn(analysis) for analysis in analyses]},
        style_hash=_hash(environment, "page.css"),
        script_hash=_hash(environment, "page.js"),
    )


def _start(analyses: Sequence[Analysis]) -> str:
    """The network that the page opens with: the one with the most to see, the later of equals."""
    worth = {"yes": 3, "part": 2, "no": 1, "na": 0}
    best = max(range(len(analyses)), key=lambda index: (sum(worth[v.state] for v in analyses[index].verdict), index))
    return analyses[best].run.id


def _sections(analyses: Sequence[Analysis]) -> tuple[PageSection, ...]:
    from modscope.report import about_bridge, about_clusters, about_lesions, about_masks, about_stability

    rooms = (about_masks, about_clusters, about_lesions, about_bridge, about_stability)
    kinds = [kind for room in rooms for kind in room.FIGURES]
    return tuple(
        PageSection(name, number, title, text, _figures([k for k in kinds if k.section == name], number, analyses))
        for number, (name, (title, text)) in enumerate(SECTIONS.items(), start=2)
    )


def _figures(kinds: Sequence[FigureKind], section: int, analyses: Sequence[Analysis]) -> tuple[Figure, ...]:
    from modscope.report.figure import figure_of

    found: list[Figure] = []
    for place, kind in enumerate(kinds, start=1):
        number = f"{section}.{place}"
        if kind.is_side_by_side:
            found.append(figure_of(kind, number, analyses, run=""))
        else:
            found += [figure_of(kind, number, [analysis], run=analysis.run.id) for analysis in analyses]
    return tuple(found)


@dataclass(frozen=True)
class Methods:
    """What stands in the last section; a text that several networks share stands once."""

    paragraphs: tuple[str, ...]
    programs: tuple[str, ...]
    references: tuple[Reference, ...]
    files: tuple[File, ...]
    data: tuple[DataInfo, ...]


def _methods(collection: Collection) -> Methods:
    everything: list[Collection | Analysis] = [collection, *collection.records]
    return Methods(
        paragraphs=tuple(dict.fromkeys(part.texts.methods for part in everything if part.texts.methods)),
        programs=tuple(dict.fromkeys(part.texts.python for part in everything if part.texts.python)),
        references=_distinct([item for part in everything for item in part.texts.references]),
        files=_distinct([item for part in everything for item in part.files]),
        data=_distinct([analysis.data for analysis in collection.records if analysis.data is not None]),
    )


def _distinct(parts: Sequence[AnyPart]) -> tuple[AnyPart, ...]:
    return tuple({part.model_dump_json(): part for part in parts}.values())


def _warnings(collection: Collection) -> list[tuple[str, Warning_]]:
    """All warnings, each with its network; one that all networks share stands once."""
    several = len(collection.records) > 1
    own = [[(warning.level, warning.section, warning.text) for warning in item.warnings] for item in collection.records]
    found = [("", warning) for warning in collection.warnings]
    for index, analysis in enumerate(collection.records):
        for warning, key in zip(analysis.warnings, own[index], strict=True):
            is_common = several and all(key in others for others in own)
            if not is_common:
                found.append((analysis.run.title if several else "", warning))
            elif index == 0:
                found.append(("all networks", warning))
    return found


@cache
def _environment() -> Environment:
    """Templates of the page. Everything that a record brings is escaped; our own style and script are read as text."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(_asset), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # `tojson` escapes <, >, & and quotes; ASCII alone leaves no U+2028 and no lone surrogate.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": True, "ensure_ascii": True, "allow_nan": False}
    return environment


def _asset(name: str) -> str:
    """A file of the page. Style and script are no templates: what looks like a tag in them is text."""
    folder = resources.files("modscope.report") / "assets"
    if name == "page.html":
        return (folder / name).read_text(encoding="utf-8")
    ending = Path(name).suffix
    parts = sorted(item.name for item in folder.iterdir() if item.name.endswith(ending))
    text = "\n".join((folder / part).read_text(encoding="utf-8").strip() for part in parts)
    return "{% raw %}" + text + "{% endraw %}"


def _hash(environment: Environment, name: str) -> str:
    """What the page's content policy lets pass: this style or script and no other."""
    text = environment.get_template(name).render()
    return base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")
