"""Do masks and modules agree? Figures of the section "Bridge"."""

from __future__ import annotations

from collections.abc import Sequence

from modscope.report.content import Analysis, Bridge, Cell
from modscope.report.figure import FigureKind, Said, Table, task_label
from modscope.report.words import counted, effect, interval, letter, listed, number, p_clause, p_text, signed

NOT_MEASURED = "The agreement of masks and modules was not measured in this run."
ALPHA = 0.05


def alignment(analysis: Analysis) -> Said:
    """Which modules each task's mask prefers, under each control."""
    found = _bridge(analysis)
    if isinstance(found, str):
        return Said(missing=found)
    label = {control.id: control.label for control in found.controls}
    strictest = found.controls[-1].id
    cells = [cell for cell in found.cells if cell.control == strictest]
    sentences = [
        _preference(task_label(analysis.tasks, task.id), [c for c in cells if c.task == task.id])
        for task in analysis.tasks
    ]
    held = f"With {label[strictest]} held fixed: " if len(found.controls) > 1 else ""
    rows = tuple(
        (
            label.get(cell.control, cell.control),
            task_label(analysis.tasks, cell.task),
            letter(cell.module),
            "–" if cell.log_odds is None else signed(cell.log_odds),
            number(cell.se),
            p_text(cell.p_adjusted),
        )
        for cell in found.cells
    )
    columns = ("held fixed", "task", "module", "log-odds", "standard error", "corrected p")
    return Said(held + "; ".join(sentences) + ".", Table(columns, rows, 3))


def _preference(task: str, cells: Sequence[Cell]) -> str:
    sure = [
        cell for cell in cells if cell.p_adjusted is not None and cell.p_adjusted <= ALPHA and cell.log_odds is not None
    ]
    more = listed(letter(cell.module) for cell in sure if (cell.log_odds or 0) > 0)
    less = listed(letter(cell.module) for cell in sure if (cell.log_odds or 0) < 0)
    if not sure:
        return f"{task} prefers no module beyond chance"
    return f"{task} uses " + ", ".join([*([f"more of {more}"] if more else []), *([f"less of {less}"] if less else [])])


def agreement(analysis: Analysis) -> Said:
    """Agreement of all masks and modules, as trivial causes are taken out."""
    found = _bridge(analysis)
    if isinstance(found, str) or not found.agreement:
        return Said(missing=found if isinstance(found, str) else NOT_MEASURED)
    label = {control.id: control.label for control in found.controls}
    said = [
        f"{effect(item.test)} with {label.get(item.control, item.control)} held fixed ({p_clause(item.test.p)})"
        for item in found.agreement
    ]
    rows = tuple(
        (
            label.get(item.control, item.control),
            effect(item.test),
            interval(item.test) or "–",
            p_text(item.test.p),
            p_text(item.test.p_adjusted),
            "–" if item.test.n_null is None else counted(item.test.n_null, "sample"),
        )
        for item in found.agreement
    )
    columns = ("held fixed", "effect", "interval", "p", "corrected p", "null")
    return Said("; ".join(said) + ".", Table(columns, rows))


def _bridge(analysis: Analysis) -> Bridge | str:
    """The bridge, or why there is none."""
    if isinstance(analysis.bridge, Bridge):
        return analysis.bridge if analysis.bridge.controls else NOT_MEASURED
    return analysis.bridge.why if analysis.bridge is not None else NOT_MEASURED


FIGURES = (
    FigureKind(
        id="alignment",
        section="bridge",
        title="Do tasks use the modules that clustering finds?",
        span=7,
        says=alignment,
        how=(
            "Green: the task's mask keeps more of this module's weights than of the others'; purple: fewer. A "
            "dot marks a corrected p of at most 0.05. Hold layer, degree and weight size fixed to see what "
            "trivial causes cannot explain."
        ),
        formula="log [ p ∕ (1 − p) ] − log [ q ∕ (1 − q) ]",
        source="p: share of the module's weights that the mask keeps, q: share of all others.",
        code="ms.alignment(mask_set, wiring, partition)",
        is_side_by_side=True,
    ),
    FigureKind(
        id="agreement",
        section="bridge",
        title="What remains after trivial causes",
        span=5,
        says=agreement,
        how=(
            "Blue is the agreement of masks and modules, the grey band is what shuffled modules give. Only "
            "what lies outside the band under the strictest control is evidence."
        ),
        formula="effect = observed − mean under shuffled modules",
        source="Labels are shuffled within groups of units that are equal in what is held fixed.",
        code="ms.alignment(mask_set, wiring, partition)",
        is_side_by_side=True,
    ),
)
