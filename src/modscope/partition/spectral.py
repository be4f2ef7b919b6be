"""Which clusters does the spectrum of a graph show?"""

from __future__ import annotations

import warnings
from dataclasses import KW_ONLY, dataclass
from numbers import Integral

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from modscope.errors import PartitionError
from modscope.graph.operator import NormalizedOperator, normalized_operator
from modscope.graph.unit_graph import UnitGraph, checked_graph
from modscope.partition.embedding import embed
from modscope.partition.kmeans import k_means
from modscope.partition.labels import notes_on, numbered_by_first_unit
from modscope.partition.partition import Partition
from modscope.partition.refine import refined
from modscope.randomness import Rng, generator, seed_of

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
        kept = np.flatnonzero(checked_graph(graph).components >= 0)
        if len(kept) < self.n_clusters:
            raise PartitionError(
                f"{self.n_clusters} clusters were asked for, but only {len(kept)} of {graph.n_units} units have "
                "edges; ask for fewer clusters"
            )
        labels = np.full(graph.n_units, -1, dtype=np.int64)
        if self.n_clusters == 1:
            labels[kept] = 0
        elif self.official:
            labels[kept] = _official_labels(graph, kept, self.n_clusters, rng)
        elif graph.connectivity.n_components >= self.n_clusters:
            labels[kept] = _packed(graph.components[kept], graph.degrees[kept], self.n_clusters)
        else:
            operator = normalized_operator(graph, device=self.device)
            labels[operator.units] = self._clustered(operator, graph.components[operator.units], generator(rng))
        return Partition(numbered_by_first_unit(labels), notes_on(graph, self.n_clusters))

    def _clustered(
        self, operator: NormalizedOperator, components: Int[np.ndarray, " kept"], rng: np.random.Generator
    ) -> Int[np.ndarray, " kept"]:
        vectors = embed(operator, self.n_clusters, components, rng=rng).vectors
        if components.max() == 0 and vectors.shape[1] > 1:
            vectors = vectors[:, 1:]  # the same for every unit once divided by the root degrees
        points = vectors / operator.root_degrees[:, None].astype(np.float32)
        labels = k_means(
            points,
            # with the degrees as weights, k-means in these coordinates is the relaxation of n-cut itself
            (operator.root_degrees**2).astype(np.float32),
            self.n_clusters,
            n_starts=self.n_starts,
            n_iterations=FEW_ITERATIONS if self.refine else ITERATIONS,
            rng=rng,
        )
        return refined(operator, labels, self.n_clusters) if self.refine else labels


def _official_labels(
    graph: UnitGraph, kept: Int[np.ndarray, " kept"], n_clusters: int, rng: Rng
) -> Int[np.ndarray, " kept"]:
    """Filan et al.'s labels: scikit-learn with their settings, on the units that have edges."""
    from sklearn.cluster import SpectralClustering

    adjacency = sp.csr_matrix(graph.adjacency()[kept][:, kept])
    adjacency.indices, adjacency.indptr = adjacency.indices.astype(np.int32), adjacency.indptr.astype(np.int32)
    clustering = SpectralClustering(
        n_clusters=n_clusters,
        eigen_solver="arpack",
        affinity="precomputed",
        assign_labels="kmeans",
        n_init=100 if len(kept) > 2000 else 25,
        random_state=np.random.RandomState(seed_of(rng) % 2**32),  # their generator: the same draws
    )
    with warnings.catch_warnings():
        # several components are reported in the partition's notes
        warnings.filterwarnings("ignore", "Graph is not fully connected", UserWarning)
        labels: np.ndarray = clustering.fit_predict(adjacency)
    return labels.astype(np.int64)


def _packed(
    components: Int[np.ndarray, " kept"], degrees: Float[np.ndarray, " kept"], n_clusters: int
) -> Int[np.ndarray, " kept"]:
    """Whole components put into clusters, the largest volume first, each into the emptiest cluster."""
    volumes = np.bincount(components, weights=degrees)
    cluster_of = np.empty(len(volumes), dtype=np.int64)
    filled = np.zeros(n_clusters)
    for component in np.argsort(-volumes, kind="stable"):
        emptiest = int(filled.argmin())
        cluster_of[component] = emptiest
        filled[emptiest] += volumes[component]
    packed: np.ndarray = cluster_of[components]
    return packed
