"""Is it the early or the late layers of a mask that decide?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from modscope.masks.applied import applied
from modscope.masks.mask import Mask
from modscope.records import Record, record_of
from modscope.tasks.task import Task, as_tasks, evaluate

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class HalfMasks:
    """Accuracy of a network of which only the early, or only the late, masked parameters are masked."""

    tasks: tuple[str, ...]
    full: tuple[float, ...]  # all of the mask, per task
    early: tuple[float, ...]  # the first half of its parameters masked, the others whole
    late: tuple[float, ...]  # the other half masked

    def __str__(self) -> str:
        rows = zip(self.tasks, self.full, self.early, self.late, strict=True)
        return "; ".join(
            f"{task}: accuracy {full:.2f} under the mask, {early:.2f} under its early, {late:.2f} under its late half"
            for task, full, early, late in rows
        )

    def to_frame(self) -> pl.DataFrame:
        """One row per task."""
        import polars as pl

        return pl.DataFrame({"task": self.tasks, "full": self.full, "early": self.early, "late": self.late})

    def to_dict(self) -> dict[str, Any]:
        """Every number as plain JSON values."""
        return asdict(self)

    def record(self) -> Record:
        """The same numbers as a `Record`, which can be saved and read again."""
        return record_of("half masks", self.to_dict())

    def _repr_html_(self) -> str:
        return str(self.to_frame()._repr_html_())

    def plot(self, ax: Axes | None = None) -> Axes:
        """Three bars per task: under the whole mask, under its early and under its late half."""
        import matplotlib.pyplot as plt

        axes = plt.subplots()[1] if ax is None else ax
        places = np.arange(len(self.tasks))
        for shift, which in ((-0.25, "full"), (0.0, "early"), (0.25, "late")):
            axes.bar(places + shift, getattr(self, which), width=0.23, label=f"{which} mask")
        axes.set_xticks(places, self.tasks)
        axes.set_ylim(0, 1)
        axes.set_ylabel("accuracy")
        axes.legend()
        return axes


def half_masks(model: nn.Module, mask: Mask, tasks: Task | Sequence[Task]) -> HalfMasks:
    """Accuracy with only the first half of the masked parameters masked ("early"), and with only the rest ("late").

    Of an odd number of parameters the one in the middle is early; a half without parameters leaves the network whole.

    Raises:
        MaskError: If the mask is of another model.

    Source: Csordás et al. 2021, their half-mask control.
    """
    several = as_tasks(tasks)
    half = (len(mask.names) + 1) // 2
    parts = (mask.names, mask.names[:half], mask.names[half:])
    full, early, late = (_accuracies(model, mask, names, several) for names in parts)
    return HalfMasks(tuple(task.name for task in several), full, early, late)


def _accuracies(model: nn.Module, mask: Mask, names: Sequence[str], tasks: Sequence[Task]) -> tuple[float, ...]:
    if not names:
        return tuple(evaluate(model, task).accuracy for task in tasks)
    with applied(model, mask.restrict(names)):
        return tuple(evaluate(model, task).accuracy for task in tasks)
