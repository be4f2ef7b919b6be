"""Which parts does an analysis have, and do they fit together?"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from modscope.report.content.bridge import Bridge, Cell
from modscope.report.content.lesions import Lesion, Lesions
from modscope.report.content.masks import Masks
from modscope.report.content.network import DataInfo, Edges, Layer, ModelInfo, Module, TaskInfo, Units
from modscope.report.content.part import Missing
from modscope.report.content.run import File, RunInfo, Texts, Verdict, Warning_
from modscope.report.content.stability import Stability
from modscope.report.content.structure import Tests


class Analysis(BaseModel):
    """One network, analysed in full."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    run: RunInfo
    model: ModelInfo
    data: DataInfo | None = None
    tasks: list[TaskInfo] = []
    layers: list[Layer] = []
    modules: list[Module] = []
    units: Units | Missing | None = None
    edges: Edges | Missing | None = None
    verdict: Annotated[list[Verdict], Field(min_length=4, max_length=4)]  # function, structure, importance, bridge
    masks: Masks | Missing | None = None
    tests: Tests | Missing | None = None
    lesions: Lesions | Missing | None = None
    bridge: Bridge | Missing | None = None
    stability: Stability | Missing | None = None
    texts: Texts = Texts()
    warnings: list[Warning_] = []
    files: list[File] = []

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Analysis:
        """Refuse an index, a length or a name in one part that no other part has."""
        _check_verdicts(self)
        _check_modules(self)
        _check_units(self)
        _check_tasks(self)
        return self


class Collection(BaseModel):
    """Several networks side by side. `records` are the contents of "analysis" records, in the order of reading."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    title: str
    text: str = ""  # what the reader is looking at, one or two sentences
    records: Annotated[list[Analysis], Field(min_length=1)]
    texts: Texts = Texts()
    warnings: list[Warning_] = []
    files: list[File] = []


def _check_verdicts(analysis: Analysis) -> None:
    keys = tuple(verdict.key for verdict in analysis.verdict)
    if keys != ("function", "structure", "importance", "bridge"):
        raise ValueError(
            f"verdict must hold function, structure, importance, bridge in this order, got {', '.join(keys)}"
        )


def _check_modules(analysis: Analysis) -> None:
    for index, module in enumerate(analysis.modules):
        if len(module.by_layer) != len(analysis.layers):
            raise ValueError(f"modules[{index}].by_layer must hold one count per layer ({len(analysis.layers)})")
    rows: list[Lesion | Cell] = [
        *(analysis.lesions.rows if isinstance(analysis.lesions, Lesions) else []),
        *(analysis.bridge.cells if isinstance(analysis.bridge, Bridge) else []),
    ]
    if any(row.module >= len(analysis.modules) for row in rows):
        raise ValueError(f"lesions or bridge name a module that is not among the {len(analysis.modules)} modules")


def _check_units(analysis: Analysis) -> None:
    units, edges = analysis.units, analysis.edges
    if isinstance(units, Units):
        n = len(units.layer)
        if {len(units.index), len(units.module)} != {n} or len(units.degree) not in (0, n):
            raise ValueError("units.layer, index, module and degree must be of one length")
        _check_range("units.layer", units.layer, 0, len(analysis.layers))
        _check_range("units.module", units.module, -1, len(analysis.modules))
    if isinstance(edges, Edges):
        if not len(edges.source) == len(edges.target) == len(edges.weight):
            raise ValueError("edges.source, target and weight must be of one length")
        if not isinstance(units, Units):
            raise ValueError("edges name units, but units are missing")
        n = len(units.layer)
        _check_range("edges.source", edges.source, 0, n)
        _check_range("edges.target", edges.target, 0, n)


def _check_range(name: str, values: list[int], low: int, end: int) -> None:
    if values and not (low <= min(values) and max(values) < end):
        raise ValueError(f"{name} must lie between {low} and {end - 1}, got {min(values)} to {max(values)}")


def _check_tasks(analysis: Analysis) -> None:
    known = {task.id for task in analysis.tasks}
    named: set[str] = set()
    if isinstance(analysis.masks, Masks):
        named |= {task for share in analysis.masks.share for task in share.pair}
        named |= {density.task for density in analysis.masks.density}
        named |= {row.task for row in analysis.masks.performance if row.task is not None}
        if any(len(row.accuracy) != len(known) for row in analysis.masks.performance):
            raise ValueError(f"masks.performance needs one accuracy per task ({len(known)})")
    if isinstance(analysis.lesions, Lesions):
        named |= {row.task for row in analysis.lesions.rows}
    if isinstance(analysis.bridge, Bridge):
        named |= {cell.task for cell in analysis.bridge.cells}
    if named - known:
        raise ValueError(f"not among the tasks: {', '.join(sorted(named - known))}")
