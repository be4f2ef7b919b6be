"""Do two partitions of the same units agree?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from modscope.errors import PartitionError
from modscope.partition.partition import Partition
from modscope.records import Record, record_of

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Agreement:
    """How far two partitions agree, over the units that both put into a cluster; 1 is agreement, 0 chance."""

    adjusted_rand: float
    adjusted_mutual_information: float
    n_units: int


@dataclass(frozen=True, eq=False)
class Agreements:
    """Adjusted Rand index of each two of several partitions: checkpoints of a training run, seeds, models."""

    names: tuple[str, ...]
    adjusted_rand: Float[np.ndarray, "partitions partitions"]

    def to_frame(self) -> pl.DataFrame:
        """One row per pair: the names of both, and their adjusted Rand index."""
        import polars as pl

        first, second = np.triu_indices(len(self.names), 1)
        return pl.DataFrame(
            {
                "first": [self.names[i] for i in first],
                "second": [self.names[i] for i in second],
                "adjusted_rand": self.adjusted_rand[first, second],
            }
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """The matrix as colours, 0 to 1."""
        from matplotlib import pyplot

        ax = ax if ax is not None else pyplot.figure().add_subplot()
        ax.imshow(self.adjusted_rand, vmin=0, vmax=1)
        ax.set_xticks(range(len(self.names)), self.names, rotation=90)
        ax.set_yticks(range(len(self.names)), self.names)
        return ax

    def to_dict(self) -> dict[str, Any]:
        """The matrix as plain values."""
        return {"names": list(self.names), "adjusted_rand": self.adjusted_rand.tolist()}

    def record(self) -> Record:
        """The same numbers as a `Record`, which can be saved and read again."""
        return record_of("agreements", self.to_dict())


def agreement(first: Partition, second: Partition) -> Agreement:
    """Adjusted Rand index and adjusted mutual information of two partitions of the same units.

    Raises:
        PartitionError: If they have different numbers of units, or no unit is in a cluster of both.

    Source: Hubert & Arabie 1985; Vinh, Epps & Bailey 2010 (both as in scikit-learn).
    """
    from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score

    labels, others = _common(first, second)
    return Agreement(
        float(adjusted_rand_score(labels, others)), float(adjusted_mutual_info_score(labels, others)), len(labels)
    )


def agreements(partitions: Mapping[str, Partition]) -> Agreements:
    """Agreement of each two of several partitions of the same units, by name.

    For checkpoints of one run it shows when the clusters settle; for two models of one architecture, whether they
    have the same ones (units are compared by their number, so align models with permuted units first).

    Raises:
        PartitionError: As for `agreement`.
    """
    names = tuple(partitions)
    matrix = np.eye(len(names))
    for i, first in enumerate(names):
        for j in range(i):
            matrix[i, j] = matrix[j, i] = agreement(partitions[first], partitions[names[j]]).adjusted_rand
    return Agreements(names, matrix)


def pair_agreements(partitions: Sequence[Partition]) -> list[float]:
    """Adjusted Rand index of each two of several clusterings of one graph; units left out are one more cluster."""
    from sklearn.metrics import adjusted_rand_score

    return [float(adjusted_rand_score(a.labels, b.labels)) for a, b in combinations(partitions, 2)]


def mean_agreement(partitions: Sequence[Partition]) -> float | None:
    """Mean of `pair_agreements`; None if there is only one clustering."""
    scores = pair_agreements(partitions)
    return float(np.mean(scores)) if scores else None


def matched(first: Partition, second: Partition) -> tuple[Partition, Float[np.ndarray, " clusters"]]:
    """`second` with its clusters named after those of `first` that they overlap most, and the overlaps.

    Each cluster has one partner at most (Hungarian method); clusters without one get new numbers. The overlap of
    two clusters is |both| / |either|; there is one for each cluster of `first`, 0 without a partner.

    Raises:
        PartitionError: If they have different numbers of units.
    """
    from scipy.optimize import linear_sum_assignment

    _check_lengths(first, second)
    mine, theirs = first.clusters, second.clusters
    is_mine = first.labels == mine[:, None]  # (clusters, units)
    is_theirs = second.labels == theirs[:, None]
    both = is_mine.astype(np.float64) @ is_theirs.T
    overlap = both / np.maximum(is_mine.sum(axis=1)[:, None] + is_theirs.sum(axis=1) - both, 1)
    rows, columns = linear_sum_assignment(-overlap)
    partner = {int(theirs[column]): int(mine[row]) for row, column in zip(rows, columns, strict=True)}
    new = iter(range(int(mine.max(initial=-1)) + 1, len(mine) + len(theirs) + int(mine.max(initial=-1)) + 1))
    renamed = second.labels.copy()
    for cluster in theirs.tolist():
        renamed[second.labels == cluster] = partner[cluster] if cluster in partner else next(new)
    best = np.zeros(len(mine))
    best[rows] = overlap[rows, columns]
    return Partition(renamed, second.notes), best


def corresponding_units(
    values: Float[np.ndarray, "examples units"],
    others: Float[np.ndarray, "other_examples other_units"],
    group_of: Int[np.ndarray, " grouped_units"],
) -> Int[np.ndarray, " units"]:
    """For each unit of one network, the unit of another of the same architecture that does most nearly the same.

    Two trained networks have their hidden units in different orders. Within each unit group units are paired one to
    one, so that the sum of their absolute correlations over the examples is largest. `Partition(labels[found])` then
    has the second network's clusters in the first one's order, and can be compared with its own.

    Args:
        values: What every unit of the first network does on some examples (`unit_values`).
        others: The same of the second network, on the same examples.
        group_of: Unit group of each unit, as `wiring.group_of`.

    Raises:
        PartitionError: If the shapes do not fit, there are fewer than two examples, or a value is not finite.

    Source: Li, Yosinski, Clune, Lipson & Hopcroft 2016 (one-to-one matching of neurons).
    """
    from scipy.optimize import linear_sum_assignment

    if values.shape != others.shape or values.shape[1:] != group_of.shape or len(values) < 2:
        raise PartitionError(
            "units are paired by their values on the same two or more examples; got shapes "
            f"{values.shape} and {others.shape} for {len(group_of)} units"
        )
    if not (np.isfinite(values).all() and np.isfinite(others).all()):
        raise PartitionError("units can only be paired by finite values; leave out units that were not read")
    found = np.arange(len(group_of))
    for group in np.unique(group_of):
        units = np.flatnonzero(group_of == group)
        likeness = np.abs(_standardised(values[:, units]).T @ _standardised(others[:, units])) / len(values)
        found[units] = units[linear_sum_assignment(-likeness)[1]]
    return found


def _standardised(values: Float[np.ndarray, "examples units"]) -> Float[np.ndarray, "examples units"]:
    """Mean 0 and spread 1; 0 for a unit whose value never changes, which is like no other."""
    centred = values - values.mean(axis=0, dtype=np.float64)
    spread = centred.std(axis=0)
    scaled: np.ndarray = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 1e-9)
    return scaled


def _common(first: Partition, second: Partition) -> tuple[Int[np.ndarray, " common"], Int[np.ndarray, " common"]]:
    _check_lengths(first, second)
    in_both = (first.labels >= 0) & (second.labels >= 0)
    if not in_both.any():
        raise PartitionError("no unit is in a cluster of both partitions; there is nothing to compare")
    return first.labels[in_both], second.labels[in_both]


def _check_lengths(first: Partition, second: Partition) -> None:
    if first.n_units != second.n_units:
        raise PartitionError(f"the partitions have {first.n_units} and {second.n_units} units; they need the same ones")
