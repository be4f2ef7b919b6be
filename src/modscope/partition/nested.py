"""Which clusters lie within one unit group, or within another cluster?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace

import numpy as np
from jaxtyping import Int

from modscope.errors import PartitionError
from modscope.graph.unit_graph import UnitGraph
from modscope.partition.labels import numbered_by_first_unit
from modscope.partition.partition import Partition
from modscope.partition.quality import n_cut
from modscope.partition.spectral import Spectral
from modscope.randomness import Rng, numbered, seed_of

Partitioner = Callable[..., Partition]  # (graph, *, rng) -> Partition


@dataclass(frozen=True)
class Local:
    """Clusters of each unit group by itself, from the part of the graph around it.

    Around a group lie the groups that it has edges with: in a chain, the layer before and the layer after. Clusters
    of different groups are different clusters. A group with too few units to split is one cluster.

    Args:
        partitioner: Clusters the part around each group.
        like: A partition of all groups: each group then gets as many clusters as it has there (for `Spectral`).
        around: Whether the neighbouring groups are taken in; without them only edges inside the group count, which
            weights seldom have, but activations do.

    Source: Hod et al. 2021 (their program). There the first and the last layer take their labels from the part around
    the second and the last but one.
    """

    partitioner: Partitioner
    _: KW_ONLY
    like: Partition | None = None
    around: bool = True

    def __call__(self, graph: UnitGraph, *, rng: Rng = 0) -> Partition:
        """The clusters of a graph."""
        seed = seed_of(rng)
        labels = np.full(graph.n_units, -1, dtype=np.int64)
        for group, name in enumerate(graph.group_names):
            units = np.flatnonzero((graph.group_of == group) & (graph.components >= 0))
            part = self._around(graph, units) if self.around else graph.induced(units)
            found = _split(self._partitioner(units), part, units, numbered(seed, f"local clusters of {name}"))
            labels[units] = np.where(found >= 0, found + labels.max(initial=-1) + 1, -1)
        return Partition(numbered_by_first_unit(labels))

    def _partitioner(self, units: Int[np.ndarray, " units"]) -> Partitioner:
        if self.like is None:
            return self.partitioner
        if not isinstance(self.partitioner, Spectral):
            raise PartitionError("`like` gives numbers of clusters, which only Spectral takes")
        labels = self.like.labels[units]
        return replace(self.partitioner, n_clusters=max(1, len(np.unique(labels[labels >= 0]))))

    @staticmethod
    def _around(graph: UnitGraph, units: Int[np.ndarray, " units"]) -> UnitGraph:
        is_near = np.zeros(graph.n_units, dtype=bool)
        is_near[units] = True
        for block in graph.blocks:
            touches_sources, touches_targets = np.isin(block.sources, units).any(), np.isin(block.targets, units).any()
            if touches_sources or touches_targets:
                is_near[block.sources] = is_near[block.targets] = True
        return graph.induced(np.flatnonzero(is_near))


@dataclass(frozen=True)
class Nested:
    """A hierarchy: each cluster is split again, level by level.

    Args:
        partitioner: Splits the graph, then the part inside each cluster.
        n_levels: Number of partitions that come back.
        min_units: A cluster with fewer units is not split further.
    """

    partitioner: Partitioner
    _: KW_ONLY
    n_levels: int = 2
    min_units: int = 8

    def __post_init__(self) -> None:
        if self.n_levels < 1:
            raise PartitionError(f"n_levels must be at least 1, got {self.n_levels}")

    def __call__(self, graph: UnitGraph, *, rng: Rng = 0) -> tuple[Partition, ...]:
        """Partitions from coarse to fine; each cluster lies within one of the level before."""
        seed = seed_of(rng)
        levels = [self.partitioner(graph, rng=numbered(seed, "nested clusters"))]
        for level in range(1, self.n_levels):
            labels = np.full(graph.n_units, -1, dtype=np.int64)
            for cluster in levels[-1].clusters.tolist():
                units = np.flatnonzero(levels[-1].labels == cluster)
                draws = numbered(seed, f"nested clusters {level}", cluster)
                is_small = len(units) < self.min_units
                found = 0 * units if is_small else _split(self.partitioner, graph.induced(units), units, draws)
                labels[units] = np.maximum(found, 0) + labels.max(initial=-1) + 1  # units cut off join the first part
            levels.append(Partition(numbered_by_first_unit(labels), levels[0].notes))
        return tuple(levels)


def mean_local_n_cut(graph: UnitGraph, partition: Partition) -> float:
    """Mean over unit groups of the n-cut inside the group; groups without inner edges do not count.

    Raises:
        PartitionError: If no group has edges inside.

    Source: Hod et al. 2021 (their program), for correlations of activations within a layer.
    """
    cuts = []
    for group in range(len(graph.group_names)):
        part = graph.induced(np.flatnonzero(graph.group_of == group))
        labels = np.where(part.components >= 0, partition.labels, -1)
        if labels.max(initial=-1) >= 0:
            cuts.append(n_cut(part, labels))
    if not cuts:
        raise PartitionError("no unit group has edges inside; the mean local n-cut is undefined")
    return float(np.mean(cuts))


def _split(
    partitioner: Partitioner, part: UnitGraph, units: Int[np.ndarray, " units"], rng: np.random.Generator
) -> Int[np.ndarray, " units"]:
    """Labels of `units` within a part of the graph; one cluster where there are too few units to split."""
    n_linked = int(np.count_nonzero(part.components >= 0))
    if n_linked < getattr(partitioner, "n_clusters", 2):
        return np.zeros(len(units), dtype=np.int64)
    labels: np.ndarray = partitioner(part, rng=rng).labels[units]
    present, dense = np.unique(labels, return_inverse=True)
    return dense - int(present[0] == -1) if len(present) else labels
