"""What would two masks share by chance if all weights of a unit moved together?

The weights of one unit rise and fall together, so that a test which takes weights as independent cries wolf. Here
one mask's units change places, whole: rows of a matrix (what a unit reads) and columns (what reads it).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

Residuals = Mapping[str, Float[np.ndarray, "rows columns _within"]]


def residuals(chosen: np.ndarray, strata: np.ndarray, shape: tuple[int, ...]) -> Float[np.ndarray, "_rows _columns _w"]:
    """Chosen (1) or not (0), minus what its stratum's share of chosen weights leads one to expect; 0 in stratum 0.

    Args:
        chosen: One bool per weight, or the share of several masks that choose it.
        strata: One whole number per weight; 0 for weights that do not count.
        shape: Of the parameter. Its first two axes are units (a vector has one column), the others stay together.
    """
    sizes = np.bincount(strata)
    shares = np.bincount(strata, weights=chosen) / np.maximum(sizes, 1)
    left = np.where(strata > 0, chosen - shares[strata], 0).astype(np.float32)
    rows, columns = (*shape, 1, 1)[:2]
    return left.reshape(rows, columns, -1)


@dataclass(frozen=True, eq=False)
class UnitChance:
    """How much two masks share beyond what their strata explain, and how much with units in random places."""

    observed: float  # sum of products of the residuals: shared weights - expected ones
    samples: Float[np.ndarray, " samples"]

    @property
    def p_above(self) -> float:
        """The p that units in random places share at least as much. (r + 1) / (n + 1), ties counting against it."""
        return self._tail(self.samples >= self.observed - self._tie)

    @property
    def p_below(self) -> float:
        """The p that units in random places share at most as much."""
        return self._tail(self.samples <= self.observed + self._tie)

    @staticmethod
    def together(parts: Sequence[UnitChance], scales: Sequence[float]) -> UnitChance:
        """Several pairs of masks as one: the sum of their numbers, each divided by its scale."""
        observed = sum(part.observed / scale for part, scale in zip(parts, scales, strict=True))
        return UnitChance(observed, np.sum([p.samples / scale for p, scale in zip(parts, scales, strict=True)], axis=0))

    @property
    def _tie(self) -> float:
        return 1e-5 * max(abs(self.observed), float(np.abs(self.samples).max(initial=0)), 1e-12)

    def _tail(self, is_as_extreme: Bool[np.ndarray, " samples"]) -> float:
        return (int(is_as_extreme.sum()) + 1) / (len(self.samples) + 1)


def unit_chances(
    first: Residuals, second: Residuals, *, n_samples: int, rng: np.random.Generator
) -> dict[str, UnitChance]:
    """By parameter, and "all": what two masks share, and what they share with the units of one in random places.

    Rows of one parameter and columns of the next are taken as the same units, and move together, where there are
    equally many. Units that no weight counts for stay out.
    """
    axes, used = _axes(first, second)
    observed = np.array([float((first[name] * second[name]).sum()) for name in first])
    samples = np.empty((n_samples, len(first)))
    for index in range(n_samples):
        order = [_moved(in_use, rng) for in_use in used]
        for column, name in enumerate(first):
            rows, columns = axes[name]
            samples[index, column] = _shared(first[name], second[name], order[rows], order[columns])
    by_name = {name: UnitChance(float(observed[i]), samples[:, i]) for i, name in enumerate(first)}
    return {**by_name, "all": UnitChance(float(observed.sum()), samples.sum(axis=1))}


def _axes(first: Residuals, second: Residuals) -> tuple[dict[str, tuple[int, int]], list[np.ndarray]]:
    """The numbers of the units on the two axes of every parameter, and which units count, by that number."""
    axes: dict[str, tuple[int, int]] = {}
    used: list[np.ndarray] = []
    last_rows = -1
    for name in first:
        counts = (first[name] != 0).any(axis=2) | (second[name] != 0).any(axis=2)
        by_row, by_column = counts.any(axis=1), counts.any(axis=0)
        if last_rows >= 0 and len(used[last_rows]) == len(by_column):
            columns = last_rows
            used[columns] = used[columns] | by_column
        else:
            columns = len(used)
            used.append(by_column)
        last_rows = len(used)
        used.append(by_row)
        axes[name] = (last_rows, columns)
    return axes, used


def _moved(in_use: np.ndarray, rng: np.random.Generator) -> Int[np.ndarray, " units"]:
    order = np.arange(len(in_use))
    order[in_use] = rng.permutation(order[in_use])
    return order


def _shared(one: np.ndarray, other: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> float:
    moved = torch.from_numpy(other)[torch.from_numpy(rows)][:, torch.from_numpy(columns)]
    return float((torch.from_numpy(one) * moved).sum())
