"""Which clusters does the spectrum of a graph show?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from numbers import Integral

import numpy as np
from jaxtyping import Int

from modscope.errors import PartitionError
from modscope.graph.unit_graph import UnitGraph, checked_graph
from modscope.partition.labels import notes_on, numbered_by_first_unit, packed
from modscope.partition.official import official_labels
from modscope.partition.partition import Partition
from modscope.partition.search import Search, clustered, embedded, n_side_by_side
from modscope.randomness import Rng, seed_of


@dataclass(frozen=True)
class Spectral:
    """Spectral clustering: k-means on the leading eigenvectors, then single moves that lower the n-cut.

    Isolated units get label -1. A graph of several components has their indicators among its eigenvectors; with at
    least as many components as clusters, whole components are put together, evenly by volume (n-cut 0).
    Clusters are numbered in the order of their first units. `notes` of the result report what was met.

    Args:
        n_clusters: Number of clusters; 12 is the papers' choice.
        refine: Move single units between clusters for as long as that lowers the n-cut.
        official: Do exactly what Filan et al. do instead (slower by an order of magnitude, and without refinement).
        n_starts: Number of k-means starts.
        device: Where the eigenvectors and k-means are computed.
        batch_size: Graphs that `many` clusters side by side; None: one on the CPU, elsewhere as many as fit in half of
            the free memory.

    Raises:
        PartitionError: If there are fewer than one cluster, start or graph side by side; when called: if there are
            more clusters than units with edges.

    Source: Shi & Malik 2000; von Luxburg 2007; Filan et al. 2021, section 2.
    """

    n_clusters: int = 12
    _: KW_ONLY
    refine: bool = True
    official: bool = False
    n_starts: int = 5
    device: str = "cpu"
    batch_size: int | None = None

    def __post_init__(self) -> None:
        for name in ("n_clusters", "n_starts", "batch_size"):
            value = getattr(self, name)
            if value is None and name == "batch_size":
                continue
            if not isinstance(value, Integral) or value < 1:
                raise PartitionError(f"{name} must be a whole number of at least 1, got {value!r}")

    def __call__(self, graph: UnitGraph, *, rng: Rng = 0) -> Partition:
        """The clusters of a graph."""
        return self.several(graph, (self.n_clusters,), rng=rng)[0]

    def several(self, graph: UnitGraph, n_clusters: Sequence[int], *, rng: Rng = 0) -> tuple[Partition, ...]:
        """The clusters for each of several numbers of them; the eigenvectors are found once, for the largest.

        Each number's clusters are those that it has alone, up to the error of the eigenvectors.

        Raises:
            PartitionError: As for the strategy itself.
        """
        ways, seed = [replace(self, n_clusters=number) for number in n_clusters], seed_of(rng)
        searched = [way.n_clusters for way in ways if way._is_search(graph)]
        search = Search.of(graph, seed) if searched else None
        found = embedded([search], max(searched), self.device) if search is not None else []
        partitions = []
        for way in ways:
            if search is not None and way._is_search(graph):
                partitions.append(way._partition(graph, way._clustered([search], found)[0]))
            else:
                partitions.append(way._partition(graph, way._without_search(graph, seed)))
        return tuple(partitions)

    def many(self, graphs: Iterable[tuple[UnitGraph, np.random.Generator]]) -> Iterator[tuple[UnitGraph, Partition]]:
        """Each graph with its clusters, in order: those that it has alone.

        Graphs of one shape, as the random versions of a network are, are clustered side by side.

        Args:
            graphs: Pairs of a graph and its generator; they are taken as they are needed.

        Raises:
            PartitionError: As for the strategy itself.
        """
        batch: list[Search] = []
        for graph, rng in graphs:
            search = Search.of(graph, seed_of(rng)) if self._is_search(graph) else None
            if batch and (search is None or not search.fits_beside(batch[0], self.device)):
                yield from self._side_by_side(batch)
                batch = []
            if search is None:
                yield graph, self(graph, rng=rng)
                continue
            batch.append(search)
            if len(batch) >= (self.batch_size or n_side_by_side(search, self.n_clusters, self.n_starts, self.device)):
                yield from self._side_by_side(batch)
                batch = []
        yield from self._side_by_side(batch)

    def _side_by_side(self, batch: Sequence[Search]) -> Iterator[tuple[UnitGraph, Partition]]:
        if not batch:
            return
        labels = self._clustered(batch, embedded(batch, self.n_clusters, self.device))
        for search, own in zip(batch, labels, strict=True):
            yield search.graph, self._partition(search.graph, own)

    def _is_search(self, graph: UnitGraph) -> bool:
        """Whether eigenvectors have to be searched for."""
        n_kept = int(np.count_nonzero(checked_graph(graph).components >= 0))
        if n_kept < self.n_clusters:
            raise PartitionError(
                f"{self.n_clusters} clusters were asked for, but only {n_kept} of {graph.n_units} units have edges; "
                "ask for fewer clusters"
            )
        return not self.official and self.n_clusters > max(1, graph.connectivity.n_components)

    def _clustered(self, batch: Sequence[Search], vectors: Sequence[np.ndarray]) -> list[Int[np.ndarray, " units"]]:
        return clustered(
            batch, vectors, self.n_clusters, refine=self.refine, n_starts=self.n_starts, device=self.device
        )

    def _without_search(self, graph: UnitGraph, seed: int) -> Int[np.ndarray, " units"]:
        labels = np.full(graph.n_units, -1, dtype=np.int64)
        kept = np.flatnonzero(graph.components >= 0)
        if self.n_clusters == 1:
            labels[kept] = 0
        elif self.official:
            labels[kept] = official_labels(graph, kept, self.n_clusters, seed)
        else:
            labels[kept] = packed(graph.components[kept], graph.degrees[kept], self.n_clusters)
        return labels

    def _partition(self, graph: UnitGraph, labels: Int[np.ndarray, " units"]) -> Partition:
        return Partition(numbered_by_first_unit(labels), notes_on(graph, self.n_clusters))
