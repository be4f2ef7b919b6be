"""How far do results repeat? The figure of the section "Stability"."""

from __future__ import annotations

from modscope.report.content import Analysis, Missing, Repeats, Stability
from modscope.report.figure import FigureKind, Said, Table
from modscope.report.words import count, listed, number

NOT_MEASURED = "Nothing was repeated in this run."
ONE_SEED = "One seed only: agreement over seeds is unknown."
STABLE = 0.8  # mean agreement from which readers may name the modules one by one


def repeats(analysis: Analysis) -> Said:
    """Agreement of repeated clusterings, and of masks learned again."""
    part = analysis.stability
    if not isinstance(part, Stability) or not part.repeats:
        return Said(missing=part.why if isinstance(part, Missing) else NOT_MEASURED)
    several = [item for item in part.repeats if item.values]
    if not several:
        return Said(missing=ONE_SEED)
    rows = tuple(
        (
            item.source,
            item.measure,
            number(_mean(item)),
            number(min(item.values, default=None)),
            number(max(item.values, default=None)),
            number(item.chance),
            count(len(item.values)),
        )
        for item in part.repeats
    )
    columns = ("repeated", "measure", "mean", "lowest", "highest", "chance", "pairs")
    alone = [item.source for item in part.repeats if not item.values]
    warning = f"{ONE_SEED} This holds for {listed(alone)}." if alone else ""
    return Said(_finding(several), Table(columns, rows, 2), warning)


def _finding(several: list[Repeats]) -> str:
    means = [(_mean(item) or 0.0, item.source) for item in several]
    (worst, weakest), (best, strongest) = min(means), max(means)
    if len(means) == 1:
        return f"{strongest}: {number(best)} on average."
    if worst >= STABLE:
        return f"All repeat: the least are {weakest} with {number(worst)} on average."
    return f"Most alike: {strongest} ({number(best)}); least: {weakest} ({number(worst)})."


def _mean(item: Repeats) -> float | None:
    return sum(item.values) / len(item.values) if item.values else None


FIGURES = (
    FigureKind(
        id="repeats",
        section="stability",
        title="How far results repeat",
        span=12,
        says=repeats,
        how=(
            "Each dot is a pair of runs that differ in their seed only, the bar is their mean, grey is what random "
            "answers give. 1 means the same answer. Modules that do not repeat should not be named one by one."
        ),
        formula="clusters: adjusted Rand index;   masks: |A ∩ B| ∕ |A ∪ B|",
        source=(
            "Two clusterings of this network, and two masks of one task. Chance for masks: as many random weights in "
            "every tensor. Hubert & Arabie 1985."
        ),
        code="ms.clusterability(wiring, ms.Spectral(4)).stability",
        is_side_by_side=True,
    ),
)
