"""What is each of the papers' numbers made of: how many weights do two masks keep, and how many of them do both?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from modscope.masks.chance import random_intersection
from modscope.masks.mask import Mask


@dataclass(frozen=True, eq=False)
class Counts:
    """Per cell of weights, how many there are, and how many each mask of a pair keeps; and how many both keep."""

    sizes: Int[np.ndarray, " cells"]
    first: Int[np.ndarray, " cells"]
    second: Int[np.ndarray, " cells"]
    both: int

    @staticmethod
    def together(parts: Sequence[Counts]) -> Counts:
        """The counts of several tensors as those of one part of the network."""
        return Counts(
            np.concatenate([part.sizes for part in parts]),
            np.concatenate([part.first for part in parts]),
            np.concatenate([part.second for part in parts]),
            sum(part.both for part in parts),
        )

    @property
    def n_first(self) -> int:
        """Weights that the first mask keeps."""
        return int(self.first.sum())

    @property
    def n_second(self) -> int:
        """Weights that the second mask keeps."""
        return int(self.second.sum())

    @cached_property
    def cells(self) -> list[tuple[int, int, int]]:
        """Size, first and second of every cell."""
        return list(zip(self.sizes.tolist(), self.first.tolist(), self.second.tolist(), strict=True))


@dataclass(frozen=True)
class Measure:
    """One of the papers' numbers: how many weights both masks keep, over how many."""

    over: Callable[[Any, int, int], Any]  # (kept by both, by the first, by the second) -> what to divide by

    def of(self, counts: Counts) -> float:
        """The number; NaN where it would divide by 0."""
        return float(self._divided(np.array(float(counts.both)), counts))

    def by_chance(self, counts: Counts) -> tuple[float, float, float]:
        """Its mean over random masks, and the numbers that 2.5 % of them fall below and above."""
        drawn = random_intersection(counts.cells)
        low, high = (float(self._divided(np.array(float(number)), counts)) for number in drawn.quantiles(0.025, 0.975))
        return drawn.mean(lambda both: self._divided(both, counts)), low, high

    def _divided(self, both: Float[np.ndarray, "..."], counts: Counts) -> Float[np.ndarray, "..."]:
        over = np.broadcast_to(self.over(both, counts.n_first, counts.n_second), both.shape)
        return np.asarray(np.divide(both, over, out=np.full(both.shape, np.nan), where=over > 0))


MEASURES: Mapping[str, Measure] = {
    "iou": Measure(lambda both, first, second: first + second - both),
    "io_min": Measure(lambda _, first, second: min(first, second)),
    "shared": Measure(lambda _both, first, _second: first),  # of the first mask, what the others' union keeps
    "remaining": Measure(lambda _both, _first, second: second),  # of the second, the control, what the first keeps
    "transfer_share": Measure(lambda _both, first, _second: first),  # as shared; the others are the earlier ones
}


def counts_of(
    pair: tuple[Mask, Mask], names: Sequence[str], strata: Sequence[Mapping[str, Tensor]] = ()
) -> dict[str, Counts]:
    """The counts of a pair of masks by parameter name.

    Args:
        pair: Two masks of the same parameters.
        names: The parameters.
        strata: Of the masks that are compared: weights of one cell are in one stratum of each. Without any, a tensor
            is one cell.
    """
    counts = {}
    for name in names:
        first, second = (mask.kept[name].cpu().reshape(-1).numpy() for mask in pair)
        cell = _cells([each[name] for each in strata], len(first))
        n_cells = int(cell.max(initial=0)) + 1
        sizes, of_first, of_second = (
            np.bincount(chosen, minlength=n_cells) for chosen in (cell, cell[first], cell[second])
        )
        used = sizes > 0
        counts[name] = Counts(sizes[used], of_first[used], of_second[used], int((first & second).sum()))
    return counts


def _cells(strata: Sequence[Tensor], n_weights: int) -> Int[np.ndarray, " weights"]:
    """Weights in one cell are of one decile of size, and felt by the same tasks."""
    cell = np.zeros(n_weights, dtype=np.int64)
    for each in strata:
        stratum = each.cpu().reshape(-1).numpy().astype(np.int64)
        cell = np.unique(cell * (stratum.max(initial=0) + 1) + stratum, return_inverse=True)[1]
    return cell
