"""What do the masks say? Figures of the section "Function"."""

from __future__ import annotations

from collections.abc import Sequence

from modscope.report.content import Analysis, Density, Masks, Performance, Share
from modscope.report.figure import FigureKind, Said, Table, layer_label, task_label
from modscope.report.words import count, listed, p_clause, p_text, percent, spread

NOT_MEASURED = "Masks were not measured in this run."
NOTHING_SHARED = "The masks keep no weights that could be compared."


def share(analysis: Analysis) -> Said:
    """Which weights two tasks share, layer by layer."""
    masks = _masks(analysis)
    if isinstance(masks, str) or not masks.share:
        return Said(missing=masks if isinstance(masks, str) else NOTHING_SHARED)
    rows = [
        (
            f"{task_label(analysis.tasks, item.pair[0])}, {task_label(analysis.tasks, item.pair[1])}",
            layer_label(analysis.layers, item.layer),
            *(percent(value, 1) for value in (item.a, item.shared, item.b)),
            *(percent(value, 1) for value in (item.random or (None, None, None))),
            count(item.kept),
            p_text(item.p_adjusted if item.p_adjusted is not None else item.p),
        )
        for item in masks.share
    ]
    columns = ("pair", "layer", "only first", "shared", "only second", "random shared", "2.5%", "97.5%", "kept", "p")
    return Said(_share_finding(analysis, masks.share), Table(columns, tuple(rows), 2))


def _share_finding(analysis: Analysis, rows: Sequence[Share]) -> str:
    pair = rows[0].pair
    mine = [item for item in rows if item.pair == pair]
    whole = next((item for item in mine if item.layer is None), None)
    layers = [item for item in mine if item.layer is not None and item.random]
    first, second = (task_label(analysis.tasks, task) for task in pair)
    found = []
    if whole is not None:
        chance = f"; random masks of the same size share {percent(whole.random[0])}" if whole.random else ""
        found.append(f"Of all weights that {first} or {second} needs, both need {percent(whole.shared)}{chance}.")
    if layers:
        fewer = sum(item.random is not None and item.shared < item.random[1] for item in layers)
        found.append(f"In {fewer} of {len(layers)} layers the masks share less than random ones.")
    return " ".join(found)


def density(analysis: Analysis) -> Said:
    """How many weights each mask keeps, layer by layer."""
    masks = _masks(analysis)
    if isinstance(masks, str) or not masks.density:
        return Said(missing=masks if isinstance(masks, str) else NOT_MEASURED)
    rows = tuple(
        (
            task_label(analysis.tasks, item.task),
            layer_label(analysis.layers, item.layer),
            percent(_kept(item), 1),
            count(item.kept),
            count(item.n),
        )
        for item in masks.density
    )
    whole = [item for item in masks.density if item.layer is None]
    kept = listed(f"{percent(_kept(item))} for {task_label(analysis.tasks, item.task)}" for item in whole)
    finding = f"Share of all weights kept: {kept}." if kept else ""
    return Said(finding, Table(("mask", "layer", "share kept", "kept", "weights"), rows, 2))


def _kept(item: Density) -> float:
    return item.kept / item.n if item.n else 0.0


def overlap(analysis: Analysis) -> Said:
    """Overlap of two tasks against random masks, and against two masks of one task."""
    masks = _masks(analysis)
    if isinstance(masks, str) or not masks.share:
        return Said(missing=masks if isinstance(masks, str) else NOTHING_SHARED)
    whole = next((item for item in masks.share if item.layer is None), masks.share[-1])
    chance = f" against {percent(whole.random[0])} by chance" if whole.random else ""
    p = whole.p_adjusted if whole.p_adjusted is not None else whole.p
    repeat = f"; two masks of one task share {percent(whole.repeat)}" if whole.repeat is not None else ""
    finding = f"{percent(whole.shared)} shared{chance}{f' ({p_clause(p)})' if p is not None else ''}{repeat}."
    rows = tuple(
        (
            layer_label(analysis.layers, item.layer),
            percent(item.shared, 1),
            *(percent(value, 1) for value in (item.random or (None, None, None))),
            percent(item.repeat, 1),
        )
        for item in masks.share
        if item.pair == whole.pair
    )
    return Said(finding, Table(("layer", "shared", "random", "2.5%", "97.5%", "one task, two seeds"), rows))


def performance(analysis: Analysis) -> Said:
    """Accuracy on every task with each mask kept or removed."""
    masks = _masks(analysis)
    if isinstance(masks, str) or not masks.performance:
        return Said(missing=masks if isinstance(masks, str) else NOT_MEASURED)
    labels = tuple(task.label for task in analysis.tasks)
    rows = tuple((item.label, *(percent(value, 1) for value in item.accuracy)) for item in masks.performance)
    names = [task.id for task in analysis.tasks]
    kept, removed = (_own_and_other(masks.performance, kind, names) for kind in ("keep", "remove"))
    finding = " ".join(
        f"{words}: own task {spread(own)}{f', other task {spread(other)}' if other else ''}."
        for words, (own, other) in (("Mask alone", kept), ("Mask removed", removed))
        if own
    )
    return Said(finding, Table(("weights used", *labels), rows))


def _own_and_other(rows: Sequence[Performance], kind: str, names: Sequence[str]) -> tuple[list[float], list[float]]:
    """Accuracies of masks on their own task, and on the others."""
    own: list[float] = []
    other: list[float] = []
    for row in rows:
        if row.kind != kind or row.task is None:
            continue
        for name, value in zip(names, row.accuracy, strict=False):
            if value is not None:
                (own if name == row.task else other).append(value)
    return own, other


def _masks(analysis: Analysis) -> Masks | str:
    """The masks, or why there are none."""
    if isinstance(analysis.masks, Masks):
        return analysis.masks
    return analysis.masks.why if analysis.masks is not None else NOT_MEASURED


FIGURES = (
    FigureKind(
        id="share",
        section="function",
        title="Which weights two tasks share",
        span=6,
        says=share,
        how=(
            "Each bar is every weight that either mask keeps. Where the grey part is shorter than the bracket "
            "below it, the two tasks share fewer weights than random masks of the same size would."
        ),
        formula="shared = |A ∩ B| ∕ |A ∪ B|",
        source="A and B are the weights that each mask keeps in one layer. Csordás et al. 2021.",
        code="ms.overlap(mask_set)",
    ),
    FigureKind(
        id="density",
        section="function",
        title="How much of each layer a task needs",
        span=6,
        says=density,
        how=(
            "A longer bar means that the task needs more of the weights in this layer; everything outside can "
            "be set to zero."
        ),
        formula="density = |A| ∕ n",
        source=(
            "n is the number of weights in the layer. Masks are learned while the weights stay frozen. "
            "Csordás et al. 2021."
        ),
        code="ms.learn_masks(model, tasks, ms.MaskLearner())",
    ),
    FigureKind(
        id="overlap",
        section="function",
        title="Shared weights against chance",
        span=6,
        says=overlap,
        how=(
            "Blue is what two tasks share; grey is what random masks of the same size share. "
            "Left of the grey: the tasks keep apart. A diamond, where measured, is two masks of one task: as "
            "equal as masks can be."
        ),
        formula="IoU = |A ∩ B| ∕ |A ∪ B|",
        source="Random masks keep the same number of weights, of similar size, in each layer.",
        code="ms.overlap(mask_set)",
        is_side_by_side=True,
    ),
    FigureKind(
        id="performance",
        section="function",
        title="What each mask can do, and what is lost without it",
        span=6,
        says=performance,
        how=(
            "A row is one set of weights, a column one task, a number accuracy in percent. If tasks are "
            "separate, a mask alone keeps its own task and loses the other, and removing it does the reverse."
        ),
        formula="w′ = w · m   or   w′ = w · (1 − m)",
        source="“Keep” uses only the weights in the mask, “remove” only those outside. Csordás et al. 2021.",
        code="ms.specialization(model, mask_set, tasks)",
        is_side_by_side=True,
    ),
)
