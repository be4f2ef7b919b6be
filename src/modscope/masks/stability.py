"""Would another seed find the same mask?"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from modscope.errors import MaskError
from modscope.masks.mask import Mask
from modscope.masks.metric_counts import MEASURES, Counts, counts_of
from modscope.masks.metrics import iou
from modscope.records import Record, plain, record_of

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class StabilityPair:
    """How far the masks of two seeds agree."""

    first: int  # seeds, counted from 0
    second: int
    iou: float  # intersection over union of the whole masks; NaN if both are empty
    chance: float  # the same for random masks with as many weights per tensor, and decile of size where known


@dataclass(frozen=True)
class Stability:
    """How far the masks of one task agree that were learned with different seeds."""

    pairs: tuple[StabilityPair, ...]

    @property
    def mean(self) -> float:
        """Mean intersection over union over every two seeds."""
        return float(np.mean([pair.iou for pair in self.pairs]))

    @property
    def chance(self) -> float:
        """What random masks of these sizes would have on average."""
        return float(np.mean([pair.chance for pair in self.pairs]))

    def __str__(self) -> str:
        least = min(pair.iou for pair in self.pairs)
        return f"masks of two seeds agree: IoU {self.mean:.2f} (least {least:.2f}), by chance {self.chance:.2f}"

    def to_frame(self) -> pl.DataFrame:
        """One row per pair of seeds."""
        import polars as pl

        return pl.DataFrame([asdict(pair) for pair in self.pairs])

    def to_dict(self) -> dict[str, Any]:
        """Every number as plain JSON values; None where undefined."""
        return {"pairs": [plain(pair, undefined_as_null=True) for pair in self.pairs]}

    def record(self) -> Record:
        """The same numbers as a `Record`, which can be saved and read again."""
        return record_of("stability of masks", self.to_dict())

    def _repr_html_(self) -> str:
        return str(self.to_frame()._repr_html_())

    def plot(self, ax: Axes | None = None) -> Axes:
        """Intersection over union of every two seeds, and of random masks."""
        import matplotlib.pyplot as plt

        axes = plt.subplots()[1] if ax is None else ax
        places = np.arange(len(self.pairs))
        axes.plot(places, [pair.iou for pair in self.pairs], "o", label="masks of two seeds")
        axes.plot(places, [pair.chance for pair in self.pairs], "_", color="0.4", markersize=14, label="random masks")
        axes.set_xticks(places, [f"{pair.first}, {pair.second}" for pair in self.pairs])
        axes.set_xlabel("seeds")
        axes.set_ylabel("intersection over union")
        axes.set_ylim(0, 1.02)
        axes.legend()
        return axes


def stability(masks: Sequence[Mask]) -> Stability:
    """Intersection over union of every two masks of one task, learned with different seeds, beside chance.

    Raises:
        MaskError: If there are fewer than two masks, or they are of different parameters.

    Source: Csordás et al. 2021, their mask stability; the chance is ours.
    """
    if len(masks) < 2:
        raise MaskError("stability compares masks of several seeds; learn n_seeds=2 or more")
    numbered = itertools.combinations(range(len(masks)), 2)
    return Stability(tuple(_pair(masks, first, second) for first, second in numbered))


def _pair(masks: Sequence[Mask], first: int, second: int) -> StabilityPair:
    pair = masks[first], masks[second]
    found = MEASURES["iou"].by_chance(_counts(pair))[0]
    return StabilityPair(first, second, iou(*pair), found)


def _counts(pair: tuple[Mask, Mask]) -> Counts:
    """All weights, in cells of one tensor and, where the masks know them, one decile of size."""
    strata = [mask.strata for mask in pair if mask.strata is not None]
    by_name = counts_of(pair, pair[0].names, strata)
    return Counts.together(list(by_name.values()))
