"""How well does a task run on fewer and fewer of the weights that it needs most?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from modscope.errors import MaskError
from modscope.masks.applied import applied
from modscope.masks.mask import Mask
from modscope.masks.removal import accuracy_without, random_like
from modscope.progress import track
from modscope.randomness import Rng, generator
from modscope.records import Record, plain, record_of
from modscope.tasks.task import Task, evaluate

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes

DENSITIES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0)


@dataclass(frozen=True)
class FaithfulnessPoint:
    """What one threshold leaves of the network, and what that can do."""

    threshold: float
    density: float
    accuracy: float  # with the kept weights alone
    inverse: float  # with all but the kept weights
    random: float | None  # with as many random weights per tensor, mean over draws; None without draws


@dataclass(frozen=True)
class Faithfulness:
    """Accuracy against density, over thresholds from the lowest (everything kept) to the highest.

    The masks are nested: a higher threshold keeps a part of what a lower one keeps, so density never rises along the
    points. Accuracy may.
    """

    task: str
    whole_accuracy: float
    points: tuple[FaithfulnessPoint, ...]
    learned: FaithfulnessPoint  # at threshold 0: the mask as it was learned

    def density_for(self, share: float = 0.95) -> float | None:
        """The lowest measured density from which on the masks reach this share of the whole network's accuracy.

        "From which on": all denser points reach it too. None if not even the densest does.
        """
        enough = None
        for point in self.points:
            if point.accuracy < share * self.whole_accuracy:
                break
            enough = point.density
        return enough

    def __str__(self) -> str:
        enough = self.density_for()
        least = "no cut of the mask reaches" if enough is None else f"cut down to {enough:.1%} it still has"
        return (
            f"accuracy on {self.task}: whole {self.whole_accuracy:.2f}, with the mask's {self.learned.density:.1%} of "
            f"the weights {self.learned.accuracy:.2f}; {least} 95 % of the whole network's"
        )

    def to_frame(self) -> pl.DataFrame:
        """One row per threshold."""
        import polars as pl

        return pl.DataFrame([asdict(point) for point in self.points], infer_schema_length=None)

    def to_dict(self) -> dict[str, Any]:
        """Every number as plain JSON values; a threshold that keeps everything, or nothing, is None."""
        points = [{name: _finite(value) for name, value in asdict(point).items()} for point in self.points]
        return {"task": self.task, "whole_accuracy": self.whole_accuracy, "points": plain(points)}

    def record(self) -> Record:
        """The same numbers as a `Record`, which can be saved and read again."""
        return record_of("faithfulness", self.to_dict())

    def _repr_html_(self) -> str:
        return str(self.to_frame()._repr_html_())

    def plot(self, ax: Axes | None = None) -> Axes:
        """Accuracy of the masks, of their inverses and of random masks against density."""
        import matplotlib.pyplot as plt

        axes = plt.subplots()[1] if ax is None else ax
        density = [point.density for point in self.points]
        axes.axhline(self.whole_accuracy, color="0.7", linewidth=1)
        axes.plot(density, [point.accuracy for point in self.points], "o-", label="only these weights")
        axes.plot(density, [point.inverse for point in self.points], "s--", label="all but these")
        if all(point.random is not None for point in self.points):
            random = [np.nan if point.random is None else point.random for point in self.points]
            axes.plot(density, random, ":", color="0.4", label="as many random weights")
        axes.plot(self.learned.density, self.learned.accuracy, "k*", markersize=12, label="the mask as learned")
        axes.set_xscale("symlog", linthresh=max(min((d for d in density if d > 0), default=0.01), 1e-4))
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("share of the weights kept")
        axes.set_ylabel(f"accuracy on {self.task}")
        axes.legend()
        return axes


def faithfulness(
    model: nn.Module,
    mask: Mask,
    task: Task,
    *,
    densities: Sequence[float] = DENSITIES,
    thresholds: Sequence[float] | None = None,
    n_random: int = 0,
    rng: Rng = 0,
) -> Faithfulness:
    """Accuracy against density: the learned mask cut at one threshold after the other.

    Args:
        model: The network that the mask was learned on.
        mask: A learned mask.
        task: What is measured.
        densities: Shares of the weights to keep. Weights of one logit (one row, one unit) stay together, so the
            nearest share that a threshold can keep is taken, from below.
        thresholds: Where to cut instead; -inf keeps everything.
        n_random: Random masks per point, of the same number of weights per tensor (and decile of size, if the mask
            knows them).
        rng: Draws the random masks.

    Raises:
        MaskError: If the mask was not learned, a density is not in [0, 1], or a threshold is NaN.
    """
    if mask.logits is None:
        raise MaskError("only a learned mask has logits to cut; masks made by hand or by & | ~ - have none")
    logits = torch.cat([mask.logits[name].reshape(-1) for name in mask.names])
    cuts = [_threshold(logits, density) for density in densities] if thresholds is None else list(thresholds)
    if np.isnan(cuts).any():
        raise MaskError(f"thresholds must be numbers, got {cuts}")
    rng = generator(rng)
    ordered = sorted({float(cut) for cut in cuts})
    points = tuple(
        _point(model, mask, task, cut, n_random, rng) for cut in track(ordered, f"faithfulness of {task.name}")
    )
    learned = _point(model, mask, task, 0.0, n_random, rng)
    return Faithfulness(task.name, evaluate(model, task).accuracy, points, learned)


def _threshold(logits: Tensor, density: float) -> float:
    """The lowest threshold that keeps at most this share of the logits."""
    if not 0 <= density <= 1:
        raise MaskError(f"a density lies in [0, 1], got {density}")
    n_kept = round(density * len(logits))
    if n_kept == len(logits):
        return -float("inf")
    return float(logits.sort(descending=True).values[n_kept])


def _point(
    model: nn.Module, mask: Mask, task: Task, threshold: float, n_random: int, rng: np.random.Generator
) -> FaithfulnessPoint:
    cut = mask.at(threshold)
    inverse = float(accuracy_without(model, cut, [task])[0])
    strata = mask.strata or {name: torch.ones_like(kept, dtype=torch.uint8) for name, kept in cut.kept.items()}
    drawn = [_accuracy(model, random_like(cut, strata, rng), task) for _ in range(n_random)]
    random = float(np.mean(drawn)) if drawn else None
    return FaithfulnessPoint(threshold, cut.density, _accuracy(model, cut, task), inverse, random)


def _accuracy(model: nn.Module, mask: Mask, task: Task) -> float:
    with applied(model, mask):
        return evaluate(model, task).accuracy


def _finite(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None
