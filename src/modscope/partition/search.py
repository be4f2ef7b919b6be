"""Which clusters do the eigenvectors of graphs show, one graph or several of one shape side by side?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from modscope.graph.operator import NormalizedOperator, normalized_operator
from modscope.graph.stack import Array, is_numpy_best
from modscope.graph.unit_graph import UnitGraph
from modscope.partition.embedding import embed_alike, shape_of
from modscope.partition.kmeans import k_means
from modscope.partition.lanczos import MAX_BLOCKS
from modscope.partition.refine import refined
from modscope.randomness import numbered

ITERATIONS = 30  # of k-means
# Before refinement: single moves do better what later iterations and worse starts would.
FEW_ITERATIONS, N_FOLLOWED = 3, 2
SHARE_OF_MEMORY = 0.5


@dataclass(frozen=True, eq=False)
class Search:
    """A graph with its operator, and the seed of all that is drawn for it."""

    graph: UnitGraph
    operator: NormalizedOperator
    components: Int[np.ndarray, " kept"]
    seed: int

    @classmethod
    def of(cls, graph: UnitGraph, seed: int) -> Search:
        """The search for a graph's clusters."""
        operator = normalized_operator(graph)
        return cls(graph, operator, graph.components[operator.units], seed)

    def fits_beside(self, other: Search, device: str) -> bool:
        """Whether both can be computed as one stack of matrices."""
        own, others = (shape_of(search.operator, search.components, device) for search in (self, other))
        return own is not None and own == others


def n_side_by_side(search: Search, n_clusters: int, n_starts: int, device: str) -> int:
    """How many graphs of this shape are computed at once: on the CPU one stays in the cache where several do not."""
    if is_numpy_best(device) or shape_of(search.operator, search.components, device) is None:
        return 1
    n_units, n_entries = len(search.operator.units), search.operator.n_entries
    n_numbers = 2 * n_entries + n_units * n_clusters * (2 * (MAX_BLOCKS + 1) + 4 * n_starts)
    return max(1, int(SHARE_OF_MEMORY * _free_memory(device)) // (8 * n_numbers))


def _free_memory(device: str) -> int:
    """Bytes; where the device does not tell, as many as any has."""
    return int(torch.cuda.mem_get_info(device)[0]) if torch.device(device).type == "cuda" else 1 << 31


def embedded(searches: Sequence[Search], n_clusters: int, device: str) -> list[Float[np.ndarray, "kept dimensions"]]:
    """The leading eigenvectors of each graph."""
    found = embed_alike(
        [search.operator for search in searches],
        n_clusters,
        [search.components for search in searches],
        rngs=[numbered(search.seed, "eigenvectors") for search in searches],
        device=device,
    )
    return [embedding.vectors for embedding in found]


def clustered(
    searches: Sequence[Search],
    vectors: Sequence[Float[np.ndarray, "kept dimensions"]],
    n_clusters: int,
    *,
    refine: bool,
    n_starts: int,
    device: str,
) -> list[Int[np.ndarray, " units"]]:
    """Labels of all units of each graph, -1 for units without edges.

    Args:
        searches: Graphs of one shape.
        vectors: Leading eigenvectors of each; there may be more of them than clusters.
        n_clusters: Number of clusters.
        refine: Whether single moves follow k-means.
        n_starts: Number of k-means starts.
        device: Where k-means is computed.
    """
    # with the degrees as weights, k-means in these coordinates is the relaxation of n-cut itself
    points = np.stack([_points(*pair, n_clusters) for pair in zip(searches, vectors, strict=True)])
    weights = np.stack([search.operator.root_degrees**2 for search in searches]).astype(points.dtype)
    found = k_means(
        _on(device, points),
        _on(device, weights),
        n_clusters,
        n_starts=n_starts,
        n_iterations=FEW_ITERATIONS if refine else ITERATIONS,
        n_followed=N_FOLLOWED if refine else None,
        rngs=[numbered(search.seed, "k-means") for search in searches],
    )
    labels = []
    for search, own in zip(searches, found, strict=True):
        of_all = np.full(search.graph.n_units, -1, dtype=np.int64)
        of_all[search.operator.units] = refined(search.operator, own, n_clusters) if refine else own
        labels.append(of_all)
    return labels


def _on(device: str, array: np.ndarray) -> Array:
    return array if is_numpy_best(device) else torch.from_numpy(array).to(device)


def _points(
    search: Search, vectors: Float[np.ndarray, "kept dimensions"], n_clusters: int
) -> Float[np.ndarray, "kept clusters"]:
    """Coordinates of the units; where there are fewer eigenvectors than clusters, the last ones are 0."""
    is_connected = int(search.components.max()) == 0
    # of a connected graph the first is the same for every unit once divided by the root degrees
    chosen = vectors[:, 1:n_clusters] if is_connected and vectors.shape[1] > 1 else vectors[:, :n_clusters]
    points = np.zeros((len(vectors), n_clusters - is_connected), dtype=vectors.dtype)
    points[:, : chosen.shape[1]] = chosen / search.operator.root_degrees[:, None].astype(vectors.dtype)
    return points
