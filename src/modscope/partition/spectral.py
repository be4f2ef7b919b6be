"""Which clusters does the spectrum of a graph show?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from numbers import Integral

import numpy as np
from jaxtyping import Float, Int

from modscope.errors import PartitionError
from modscope.graph.operator import NormalizedOperator, normalized_operator
from modscope.graph.unit_graph import UnitGraph, checked_graph
from modscope.partition.embedding import embed
from modscope.partition.kmeans import k_means
from modscope.partition.labels import notes_on, numbered_by_first_unit, packed
from modscope.partition.official import official_labels
from modscope.partition.partition import Partition
from modscope.partition.refine import refined
from modscope.randomness import Rng, numbered, seed_of

ITERATIONS, FEW_ITERATIONS = 30, 10  # of k-means; single moves do better what its last iterations would


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

    Raises:
        PartitionError: If there are fewer than one cluster or one start; when called: if there are more clusters
            than units with edges.

    Source: Shi & Malik 2000; von Luxburg 2007; Filan et al. 2021, section 2.
    """

    n_clusters: int = 12
    _: KW_ONLY
    refine: bool = True
    official: bool = False
    n_starts: int = 5
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in ("n_clusters", "n_starts"):
            value = getattr(self, name)
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
        ways = [replace(self, n_clusters=number) for number in n_clusters]
        kept = np.flatnonzero(checked_graph(graph).components >= 0)
        for way in ways:
            way._check_units(graph, kept)
        seed, n_components = seed_of(rng), graph.connectivity.n_components
        searched = [way.n_clusters for way in ways if not way.official and way.n_clusters > max(1, n_components)]
        embedded = self._embedded(graph, max(searched), seed) if searched else None
        labels = [way._labels(graph, kept, embedded, seed) for way in ways]
        return tuple(
            Partition(numbered_by_first_unit(some), notes_on(graph, way.n_clusters))
            for way, some in zip(ways, labels, strict=True)
        )

    def many(self, graphs: Iterable[tuple[UnitGraph, np.random.Generator]]) -> Iterator[tuple[UnitGraph, Partition]]:
        """Each graph with its clusters, in order: those that it has alone.

        Args:
            graphs: Pairs of a graph and its generator; they are taken as they are needed.

        Raises:
            PartitionError: As for the strategy itself.
        """
        for graph, rng in graphs:
            yield graph, self(graph, rng=rng)

    def _check_units(self, graph: UnitGraph, kept: Int[np.ndarray, " kept"]) -> None:
        if len(kept) < self.n_clusters:
            raise PartitionError(
                f"{self.n_clusters} clusters were asked for, but only {len(kept)} of {graph.n_units} units have "
                "edges; ask for fewer clusters"
            )

    def _labels(
        self, graph: UnitGraph, kept: Int[np.ndarray, " kept"], embedded: _Embedded | None, seed: int
    ) -> Int[np.ndarray, " units"]:
        labels = np.full(graph.n_units, -1, dtype=np.int64)
        if self.n_clusters == 1:
            labels[kept] = 0
        elif self.official:
            labels[kept] = official_labels(graph, kept, self.n_clusters, seed)
        elif graph.connectivity.n_components >= self.n_clusters:
            labels[kept] = packed(graph.components[kept], graph.degrees[kept], self.n_clusters)
        else:
            assert embedded is not None
            labels[embedded.operator.units] = self._clustered(embedded, seed)
        return labels

    def _embedded(self, graph: UnitGraph, n_clusters: int, seed: int) -> _Embedded:
        operator = normalized_operator(graph, device=self.device)
        components = graph.components[operator.units]
        vectors = embed(operator, n_clusters, components, rng=numbered(seed, "eigenvectors")).vectors
        return _Embedded(operator, vectors, is_connected=bool(components.max() == 0))

    def _clustered(self, embedded: _Embedded, seed: int) -> Int[np.ndarray, " kept"]:
        operator, vectors = embedded.operator, embedded.vectors[:, : self.n_clusters]
        if embedded.is_connected and vectors.shape[1] > 1:
            vectors = vectors[:, 1:]  # the same for every unit once divided by the root degrees
        points = vectors / operator.root_degrees[:, None].astype(np.float32)
        labels = k_means(
            points,
            # with the degrees as weights, k-means in these coordinates is the relaxation of n-cut itself
            (operator.root_degrees**2).astype(np.float32),
            self.n_clusters,
            n_starts=self.n_starts,
            n_iterations=FEW_ITERATIONS if self.refine else ITERATIONS,
            rng=numbered(seed, "k-means"),
        )
        return refined(operator, labels, self.n_clusters) if self.refine else labels


@dataclass(frozen=True, eq=False)
class _Embedded:
    """A graph's leading eigenvectors, and the operator that they are of."""

    operator: NormalizedOperator
    vectors: Float[np.ndarray, "kept dimensions"]
    is_connected: bool
