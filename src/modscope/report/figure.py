"""What is a figure, apart from its drawing? A finding in words, a table, and how to read it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from modscope.report.content import Analysis, Layer, TaskInfo

Section: TypeAlias = Literal["network", "function", "structure", "importance", "bridge", "stability"]


@dataclass(frozen=True)
class Table:
    """Rows of text; `n_words` leading columns are words, the others are numbers."""

    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    n_words: int = 1


@dataclass(frozen=True)
class Said:
    """What a figure says about one network. `missing` says why there is nothing to draw."""

    finding: str = ""
    table: Table = Table()
    warning: str = ""
    missing: str = ""


@dataclass(frozen=True)
class FigureKind:
    """A figure of the report.

    Args:
        id: Name of its drawing in the page's script.
        section: Where it stands.
        title: What it shows.
        span: Columns of 12 that it takes on a wide page.
        says: Finding and table for one network.
        how: How to read it, in one or two sentences.
        formula: The quantity, in symbols.
        source: The symbols in words, and the paper.
        code: The line of Python that measures it.
        is_side_by_side: All networks are drawn in one figure; otherwise the chosen one.
    """

    id: str
    section: Section
    title: str
    span: int
    says: Callable[[Analysis], Said]
    how: str
    formula: str
    source: str
    code: str
    is_side_by_side: bool = False


@dataclass(frozen=True)
class Finding:
    """A finding, with the name of its network where several stand in one figure."""

    network: str
    text: str


@dataclass(frozen=True)
class Figure:
    """A figure as it stands on the page: its kind, its number, and what it says about the networks it shows."""

    kind: FigureKind
    number: str
    run: str  # id of the network; empty: all of them
    findings: tuple[Finding, ...]
    table: Table
    warnings: tuple[Finding, ...]
    missing: str

    @property
    def key(self) -> str:
        """Unique name on the page."""
        return f"{self.kind.id}-{self.run}" if self.run else self.kind.id

    @property
    def description(self) -> str:
        """The drawing in words: the findings, then every row of the table (at most 40)."""
        findings = " ".join(f"{item.network}: {item.text}" if item.network else item.text for item in self.findings)
        rows = (
            ", ".join(f"{name} {value}" for name, value in zip(self.table.columns, row, strict=True))
            for row in self.table.rows[:40]
        )
        return f"{self.kind.title}. {findings} {'; '.join(rows)}".strip()


def figure_of(kind: FigureKind, number: str, analyses: Sequence[Analysis], *, run: str) -> Figure:
    """The figure about these networks: one, or all side by side."""
    several = len(analyses) > 1
    said = [(item.run.title if several else "", kind.says(item)) for item in analyses]
    findings = tuple(Finding(name, one.missing or one.finding) for name, one in said if one.finding or one.missing)
    warnings = tuple(Finding(name, one.warning) for name, one in said if one.warning)
    is_missing = all(one.missing for _, one in said)
    return Figure(
        kind, number, run, () if is_missing else findings, _joined(said, several), warnings,
        said[0][1].missing if is_missing else "",
    )  # fmt: skip


def _joined(said: Sequence[tuple[str, Said]], several: bool) -> Table:
    tables = [(name, one.table) for name, one in said if one.table.rows]
    if not tables:
        return Table()
    if not several:
        return tables[0][1]
    columns = max((table.columns for _, table in tables), key=len)
    rows = [
        (name, *(dict(zip(table.columns, row, strict=True)).get(column, "–") for column in columns))
        for name, table in tables
        for row in table.rows
    ]
    return Table(("network", *columns), tuple(rows), tables[0][1].n_words + 1)


def layer_label(layers: Sequence[Layer], layer: str | None) -> str:
    """How readers know a layer; None is all of them."""
    if layer is None:
        return "all layers"
    return next((item.label or item.id for item in layers if item.id == layer), layer)


def task_label(tasks: Sequence[TaskInfo], task: str) -> str:
    """How readers know a task."""
    return next((item.label for item in tasks if item.id == task), task)
