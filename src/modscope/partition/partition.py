"""Which cluster does each unit belong to?"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from modscope.errors import PartitionError
from modscope.records import Record, record_of

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class SubCluster:
    """The units of one cluster within one unit group: what a lesion removes."""

    cluster: int
    group: int
    unit_ids: Int[np.ndarray, " units"]

    @property
    def size(self) -> int:
        """Number of units."""
        return len(self.unit_ids)


@dataclass(frozen=True, eq=False)
class Partition:
    """Clusters that cover the units; label -1 = left out of every cluster.

    `notes` say what the partitioner met on its way (isolated units, several components), for the reader.

    Raises:
        PartitionError: If the labels are not a vector of whole numbers >= -1.
    """

    labels: Int[np.ndarray, " units"]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        labels = np.asarray(self.labels)
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
            raise PartitionError(
                f"labels must be one whole number per unit, got {labels.dtype} of shape {labels.shape}"
            )
        if labels.min(initial=0) < -1:
            raise PartitionError(f"labels must be >= -1 (-1: left out), got {labels.min()}")
        object.__setattr__(self, "labels", labels.astype(np.int64))

    @cached_property
    def clusters(self) -> Int[np.ndarray, " clusters"]:
        """The labels that occur, ascending, without -1."""
        labels = np.unique(self.labels)
        return labels[labels >= 0]

    @property
    def n_clusters(self) -> int:
        """Number of clusters that have at least one unit."""
        return len(self.clusters)

    @property
    def n_units(self) -> int:
        """Number of units, those left out too."""
        return len(self.labels)

    @property
    def sizes(self) -> Int[np.ndarray, " clusters"]:
        """Number of units of each of `clusters`."""
        return np.unique(self.labels[self.labels >= 0], return_counts=True)[1]

    def sub_clusters(self, group_of: Int[np.ndarray, " units"]) -> list[SubCluster]:
        """One sub-cluster per cluster and unit group that meet, ordered by cluster, then by group.

        Args:
            group_of: Group index of each unit, as `wiring.group_of` or `graph.group_of`.

        Raises:
            PartitionError: If `group_of` is of another length than the labels.
        """
        if len(group_of) != self.n_units:
            raise PartitionError(f"group_of has {len(group_of)} units, the partition {self.n_units}")
        units = np.flatnonzero(self.labels >= 0)
        units = units[np.lexsort((units, group_of[units], self.labels[units]))]
        keys = np.stack([self.labels[units], group_of[units]], axis=1)  # (units, 2)
        starts = np.flatnonzero(np.any(np.diff(keys, axis=0), axis=1)) + 1
        parts = np.split(units, starts) if len(units) else []
        return [SubCluster(int(self.labels[part[0]]), int(group_of[part[0]]), part) for part in parts]

    def to_frame(self) -> pl.DataFrame:
        """One row per unit: its id and its cluster (-1: left out)."""
        import polars as pl

        return pl.DataFrame({"unit": np.arange(self.n_units), "cluster": self.labels})

    def plot(self, ax: Axes | None = None) -> Axes:
        """Bars: the number of units in each cluster."""
        from matplotlib import pyplot

        ax = ax if ax is not None else pyplot.figure().add_subplot()
        ax.bar([str(label) for label in self.clusters], self.sizes)
        ax.set_xlabel("module")
        ax.set_ylabel("units")
        return ax

    def to_dict(self) -> dict[str, Any]:
        """The partition as plain values."""
        return {"labels": self.labels.tolist(), "n_clusters": self.n_clusters, "notes": list(self.notes)}

    def record(self) -> Record:
        """The same numbers as a `Record`, which can be saved and read again."""
        return record_of("partition", self.to_dict())

    def __repr__(self) -> str:
        n_left_out = int(np.count_nonzero(self.labels < 0))
        return f"Partition({self.n_units} units, {self.n_clusters} clusters, {n_left_out} units left out)"

    def _repr_html_(self) -> str:
        cells = zip(self.clusters, self.sizes, strict=True)
        rows = "".join(f"<tr><td>{cluster}</td><td>{size}</td></tr>" for cluster, size in cells)
        notes = "".join(f"<p>{note}</p>" for note in self.notes)
        return f"<p>{self!r}</p>{notes}<table><tr><th>module</th><th>units</th></tr>{rows}</table>"
