"""How many clusters does a graph have?"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from modscope.errors import PartitionError
from modscope.graph.unit_graph import Block, UnitGraph
from modscope.partition.agreement import agreement
from modscope.partition.embedding import laplacian_eigenvalues
from modscope.partition.leiden import Leiden
from modscope.partition.partition import Partition
from modscope.partition.spectral import Spectral
from modscope.progress import track
from modscope.randomness import Rng, numbered, seed_of
from modscope.records import Record, record_of

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes

AS_STABLE = 0.02  # of two numbers this close in stability the larger one is suggested: merging is stable as well
SHARE_KEPT = 0.8  # of the edges, in each thinned copy of the graph


@dataclass(frozen=True, eq=False)
class Suggestion:
    """Three answers to "how many clusters?", and the numbers behind them. None of them is a test."""

    by_eigengap: int  # after which eigenvalue the widest gap comes
    by_stability: int  # the largest number that gives the same clusters when a fifth of the edges is taken away
    by_leiden: int | None  # how many modularity asks for; None without the extra `communities`
    n_clusters: Int[np.ndarray, " candidates"]
    eigengap: Float[np.ndarray, " candidates"]
    stability: Float[np.ndarray, " candidates"]

    def to_frame(self) -> pl.DataFrame:
        """One row per number of clusters: the gap after that eigenvalue, and the stability (mean ARI)."""
        import polars as pl

        return pl.DataFrame({"n_clusters": self.n_clusters, "eigengap": self.eigengap, "stability": self.stability})

    def plot(self, ax: Axes | None = None) -> Axes:
        """Stability against the number of clusters."""
        from matplotlib import pyplot

        ax = ax if ax is not None else pyplot.figure().add_subplot()
        ax.plot(self.n_clusters, self.stability, marker="o")
        ax.set_xlabel("modules")
        ax.set_ylabel("stability (adjusted Rand index)")
        return ax

    def to_dict(self) -> dict[str, Any]:
        """All numbers as plain values."""
        return {
            "by_eigengap": self.by_eigengap,
            "by_stability": self.by_stability,
            "by_leiden": self.by_leiden,
            "n_clusters": self.n_clusters.tolist(),
            "eigengap": self.eigengap.tolist(),
            "stability": self.stability.tolist(),
        }

    def record(self) -> Record:
        """The same numbers as a `Record`, which can be saved and read again."""
        return record_of("suggestion", self.to_dict())


def suggest_n_clusters(graph: UnitGraph, *, max_clusters: int = 16, n_repeats: int = 5, rng: Rng = 0) -> Suggestion:
    """How many clusters the eigengap, the stability and modularity suggest, from 2 on.

    Args:
        graph: The graph.
        max_clusters: Largest number considered; less where the graph has fewer units with edges.
        n_repeats: Thinned copies of the graph per number of clusters; their clusterings are compared pair by pair.
        rng: Thinning and clustering.

    Raises:
        PartitionError: If the graph has fewer than three units with edges, or fewer than two repeats are asked for.

    Source: von Luxburg 2007, section 8.3 (eigengap); Ben-Hur, Elisseeff & Guyon 2002 (stability).
    """
    n_linked = int(np.count_nonzero(graph.components >= 0))
    last = min(max_clusters, n_linked - 1)
    if last < 2 or n_repeats < 2:
        raise PartitionError(
            f"a suggestion needs at least 3 units with edges, max_clusters >= 2 and n_repeats >= 2; got {n_linked}, "
            f"{max_clusters} and {n_repeats}"
        )
    seed = seed_of(rng)
    candidates = np.arange(2, last + 1)
    values = laplacian_eigenvalues(graph, last + 1, rng=numbered(seed, "eigengap"))
    gaps = np.diff(values)[1:]
    gaps = np.pad(gaps, (0, len(candidates) - len(gaps)))  # a narrow half graph has fewer eigenvalues
    copies = [_thinned(graph, numbered(seed, "thinning", copy)) for copy in range(n_repeats)]
    stability = np.array(
        [_stability(copies, k, seed) for k in track(candidates.tolist(), "trying numbers of clusters")]
    )
    return Suggestion(
        int(candidates[gaps.argmax()]),
        int(candidates[stability >= stability.max() - AS_STABLE].max()),
        _by_leiden(graph, seed),
        candidates,
        gaps,
        stability,
    )


def _stability(copies: list[UnitGraph], n_clusters: int, seed: int) -> float:
    found: list[Partition] = []
    for copy, graph in enumerate(copies):
        if np.count_nonzero(graph.components >= 0) < n_clusters:
            return 0.0
        found.append(Spectral(n_clusters)(graph, rng=numbered(seed, f"stability {n_clusters}", copy)))
    return float(np.mean([agreement(one, other).adjusted_rand for one, other in combinations(found, 2)]))


def _by_leiden(graph: UnitGraph, seed: int) -> int | None:
    from importlib.util import find_spec

    if find_spec("sknetwork") is None:
        return None
    return Leiden()(graph, rng=numbered(seed, "leiden")).n_clusters


def _thinned(graph: UnitGraph, rng: np.random.Generator) -> UnitGraph:
    """The graph without a random fifth of its edges."""
    blocks = []
    for block in graph.blocks:
        is_kept = rng.random(block.entries.shape, dtype=np.float32) < SHARE_KEPT
        if isinstance(block.sizes, np.ndarray):
            sizes = block.sizes * is_kept
        else:
            sizes = block.sizes.copy()
            sizes.data = sizes.data * is_kept
        blocks.append(Block(block.sources, block.targets, sizes, block.name))
    return UnitGraph(tuple(blocks), graph.group_of, graph.group_names)
