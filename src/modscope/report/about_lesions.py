"""What do the lesions say? Figures of the section "Importance"."""

from __future__ import annotations

from collections.abc import Sequence

from modscope.report.content import Analysis, Lesion, Lesions, TaskInfo
from modscope.report.figure import FigureKind, Said, Table, layer_label, task_label
from modscope.report.words import count, counted, letter, p_clause, p_text, points

NOT_MEASURED = "Lesions were not measured in this run."
ALPHA = 0.05


def lesions(analysis: Analysis) -> Said:
    """Accuracy lost without each part of each module, against random units."""
    found = _lesions(analysis)
    if isinstance(found, str):
        return Said(missing=found)
    tested = [row for row in found.rows if row.p_adjusted is not None]
    hits = [row for row in tested if _is_significant(row)]
    finding = (
        f"{len(hits)} of {counted(len(tested), 'test')} find a larger loss than random units cause "
        f"(corrected p at most {ALPHA})."
    )
    worst = max(found.rows, key=lambda row: row.drop)
    random = f", random units {points(worst.null_mean)}" if worst.null_mean is not None else ""
    finding += (
        f" The largest: without {_part(analysis, worst)}, {task_label(analysis.tasks, worst.task)} loses "
        f"{points(worst.drop)} points{random}."
    )
    columns = ("module", "layer", "task", "units", "points lost", "random", "2.5%", "97.5%", "p", "corrected p")
    rows = tuple(
        (
            letter(row.module),
            layer_label(analysis.layers, row.layer),
            task_label(analysis.tasks, row.task),
            count(row.n_units),
            *(points(value) for value in (row.drop, row.null_mean, row.null_low, row.null_high)),
            p_text(row.p),
            p_text(row.p_adjusted),
        )
        for row in found.rows
    )
    return Said(finding, Table(columns, rows, 3), found.why)


def dissociation(analysis: Analysis) -> Said:
    """Which parts hurt one task, which the other."""
    found = _lesions(analysis)
    if isinstance(found, str):
        return Said(missing=found)
    if len(analysis.tasks) < 2:
        return Said(missing="A dissociation needs two tasks; this run has one.")
    first, second = analysis.tasks[:2]
    parts = [row for row in found.rows if row.layer is not None] or found.rows
    hit = {
        task.id: {_place(row) for row in parts if row.task == task.id and _is_significant(row)}
        for task in (first, second)
    }
    n_first, n_second = len(hit[first.id] - hit[second.id]), len(hit[second.id] - hit[first.id])
    finding = (
        f"{counted(n_first, 'part')} cost only {first.label}, {n_second} only {second.label}, "
        f"{len(hit[first.id] & hit[second.id])} both (corrected p at most {ALPHA})"
    )
    if found.test is not None and found.test.p is not None:
        finding += f"; all modules together: {p_clause(found.test.p)}"
    return Said(f"{finding}.", _drops(analysis, parts, (first, second)))


def _drops(analysis: Analysis, parts: Sequence[Lesion], tasks: tuple[TaskInfo, TaskInfo]) -> Table:
    """Points lost on two tasks, one row per part."""
    drops = {(_place(row), row.task): row.drop for row in parts}
    rows = tuple(
        (
            letter(module),
            layer_label(analysis.layers, layer),
            *(points(drops.get(((module, layer), task.id))) for task in tasks),
        )
        for module, layer in dict.fromkeys(_place(row) for row in parts)
    )
    return Table(("module", "layer", *(f"{task.label}, points lost" for task in tasks)), rows, 2)


def _part(analysis: Analysis, row: Lesion) -> str:
    name = f"module {letter(row.module)}"
    return name if row.layer is None else f"{name} in {layer_label(analysis.layers, row.layer)}"


def _place(row: Lesion) -> tuple[int, str | None]:
    return row.module, row.layer


def _is_significant(row: Lesion) -> bool:
    return row.p_adjusted is not None and row.p_adjusted <= ALPHA


def _lesions(analysis: Analysis) -> Lesions | str:
    """The lesions, or why there are none."""
    if isinstance(analysis.lesions, Lesions):
        return analysis.lesions if analysis.lesions.rows else analysis.lesions.why or NOT_MEASURED
    return analysis.lesions.why if analysis.lesions is not None else NOT_MEASURED


FIGURES = (
    FigureKind(
        id="lesions",
        section="importance",
        title="Accuracy lost when part of a module is silenced",
        span=12,
        says=lesions,
        how=(
            "Each row silences the units of one module in one layer, or in all layers at once. The number is "
            "accuracy lost, in points; stronger colour is more. Beside it, the grey band is what 95% of random "
            "sets of the same size in the same layer cost; a filled circle marks a corrected p of at most 0.05."
        ),
        formula="drop = accuracy − accuracy without the part",
        source=(
            "Random sets have the same number of units in the same layer; Benjamini–Hochberg over all tests. "
            "Hod et al. 2021."
        ),
        code="ms.importance(model, wiring, partition, tasks)",
    ),
    FigureKind(
        id="dissociation",
        section="importance",
        title="One task lost, the other kept",
        span=6,
        says=dissociation,
        how=(
            "Each mark is a module's part in one layer; those that cost more than random units (corrected p "
            "at most 0.05) carry their letter. Grey is the mean of random units. Near an axis: one task needs "
            "the part, the other does not. Letters along both axes are a double dissociation, which a hard "
            "task alone cannot cause."
        ),
        formula="x = points lost on the first task, y = on the second",
        source="The same lesions as in the figure above. Hod et al. 2021.",
        code="ms.importance(model, wiring, partition, tasks)",
        is_side_by_side=True,
    ),
)
