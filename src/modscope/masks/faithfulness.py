"""How well does a task run on fewer and fewer of the weights that it needs most?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

from modscope.masks.applied import applied
from modscope.masks.mask import Mask
from modscope.masks.removal import accuracy_without
from modscope.progress import track
from modscope.tasks.task import Task, evaluate

if TYPE_CHECKING:
    import polars as pl


def faithfulness(
    model: nn.Module, mask: Mask, task: Task, *, densities: Sequence[float] = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)
) -> pl.DataFrame:
    """Accuracy against density: the mask cut at one threshold after the other, and its inverse beside it."""
    import polars as pl

    rows = []
    for density in track(densities, f"faithfulness of {task.name}"):
        cut = mask.at_density(density)
        with applied(model, cut):
            kept = evaluate(model, task).accuracy
        rows.append({"density": density, "accuracy": kept, "inverse": float(accuracy_without(model, cut, [task])[0])})
    return pl.DataFrame(rows)
