"""Would learning move the masked network as it moves the whole one?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from modscope.calling import check_model, evaluation_mode
from modscope.masks.applied import masked_parameters
from modscope.masks.mask import Mask
from modscope.masks.task_gradients import task_gradients
from modscope.records import Record, record_of
from modscope.tasks.task import Task

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes

ALL = "all"


@dataclass(frozen=True)
class GradientCosine:
    """Cosine between the whole and the masked network's gradients, on the kept weights. NaN where one is zero."""

    task: str
    by_parameter: Mapping[str, float]
    total: float  # over all kept weights together

    def __str__(self) -> str:
        return f"gradients of {self.task} under the mask and without it: cosine {self.total:.2f}"

    def to_frame(self) -> pl.DataFrame:
        """One row per parameter, and one for all."""
        import polars as pl

        cosines = {**self.by_parameter, ALL: self.total}
        return pl.DataFrame({"parameter": list(cosines), "cosine": list(cosines.values())})

    def to_dict(self) -> dict[str, Any]:
        """Every number as plain JSON values; None where undefined."""
        by_parameter = {name: _defined(cosine) for name, cosine in self.by_parameter.items()}
        return {"task": self.task, "by_parameter": by_parameter, "total": _defined(self.total)}

    def record(self) -> Record:
        """The same numbers as a `Record`, which can be saved and read again."""
        return record_of("gradient cosine", self.to_dict())

    def _repr_html_(self) -> str:
        return str(self.to_frame()._repr_html_())

    def plot(self, ax: Axes | None = None) -> Axes:
        """One bar per parameter, and a line for all kept weights together."""
        import matplotlib.pyplot as plt

        axes = plt.subplots()[1] if ax is None else ax
        places = range(len(self.by_parameter))
        axes.bar(places, list(self.by_parameter.values()), width=0.6)
        axes.axhline(self.total, color="0.4", linestyle="--", label="all kept weights")
        axes.set_xticks(places, list(self.by_parameter), rotation=45, ha="right")
        axes.set_ylim(-1, 1)
        axes.set_ylabel(f"cosine of gradients, {self.task}")
        axes.legend()
        return axes


def gradient_cosine(model: nn.Module, mask: Mask, task: Task) -> GradientCosine:
    """Cosine between the whole and the masked network's loss gradients on the kept weights, per parameter and in all.

    Near 1: learning would move the masked network as it moves the whole one. Gradients are of the test loss.

    Raises:
        MaskError: If the mask is of another model.

    Source: Csordás et al. 2021, their comparison of gradients.
    """
    model = check_model(model)
    parameters = {name: parameter.detach() for name, parameter in masked_parameters(model, mask).items()}
    kept = {name: mask.kept[name].to(weight.device) for name, weight in parameters.items()}
    whole = _summed(model, task, parameters)
    masked = _summed(model, task, {name: weight * kept[name] for name, weight in parameters.items()})
    chosen = {name: (whole[name][kept[name]], masked[name][kept[name]]) for name in parameters}
    one, other = (torch.cat(parts) for parts in zip(*chosen.values(), strict=True))
    return GradientCosine(task.name, {name: _cosine(*pair) for name, pair in chosen.items()}, _cosine(one, other))


def _summed(model: nn.Module, task: Task, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Gradients of the test loss, summed over the batches."""
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    with evaluation_mode(model):
        for batch in task.batches("test"):
            for name, gradient in task_gradients(model, task, batch, weights).items():
                total[name] += gradient
    return total


def _cosine(one: Tensor, other: Tensor) -> float:
    length = one.norm() * other.norm()
    return float((one @ other) / length) if length > 0 else float("nan")


def _defined(number: float) -> float | None:
    return number if math.isfinite(number) else None
