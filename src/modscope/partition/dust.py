"""Which clusters are too small to be a module, and where do their units belong?"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from modscope.errors import PartitionError
from modscope.graph.unit_graph import Block, UnitGraph
from modscope.partition.partition import Partition
from modscope.randomness import Rng, generator

N_ROUNDS = 8


class Partitioner(Protocol):
    """A strategy that finds clusters in a graph."""

    def __call__(self, graph: UnitGraph, *, rng: Rng) -> Partition:
        """Clusters of the graph's units."""


@runtime_checkable
class SpectralPartitioner(Partitioner, Protocol):
    """A partitioner that can share work between numbers of clusters, and between graphs (see `Spectral`)."""

    def several(self, graph: UnitGraph, n_clusters: Sequence[int], *, rng: Rng) -> tuple[Partition, ...]:
        """The clusters for each of several numbers of them."""

    def many(self, graphs: Iterable[tuple[UnitGraph, np.random.Generator]]) -> Iterator[tuple[UnitGraph, Partition]]:
        """Each graph with its clusters, in order."""


@dataclass(frozen=True)
class WithoutDust:
    """A partitioner whose clusters all have some weight.

    A pair of units that hang on each other by one large weight, or a small component, is a cheap cluster for the
    n-cut, and then one cluster fewer is left for all the other units. Sparse networks have many, and whether a random
    one has another decides its n-cut: without this the null distribution is wide and skewed.

    Clusters with less than `min_share` of the average cluster's volume are taken out, and the rest is clustered again.
    In the end each unit taken out joins the cluster that it has most weight with.

    Args:
        partitioner: What finds the clusters.
        min_share: 0 = every cluster counts, as in the papers.
    """

    partitioner: Partitioner
    min_share: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.min_share < 1:
            raise PartitionError(f"min_share must be in [0, 1), got {self.min_share}")

    def __call__(self, graph: UnitGraph, *, rng: Rng = 0) -> Partition:
        """Clusters of the graph's units; -1 for units that are joined to none of them.

        Raises:
            PartitionError: If the partitioner cannot cluster the graph.
        """
        rng = generator(rng)
        return self._dusted(graph, self.partitioner(graph, rng=rng), rng, self._again)

    def several(self, graph: UnitGraph, n_clusters: Sequence[int], *, rng: Rng = 0) -> tuple[Partition, ...]:
        """The clusters for each of several numbers of them, with one search for eigenvectors (see `Spectral.several`).

        Raises:
            PartitionError: If the partitioner has no `several`, or cannot cluster the graph.
        """
        partitioner = self.partitioner
        if not isinstance(partitioner, SpectralPartitioner):
            raise PartitionError(
                f"several numbers of clusters at once need Spectral, got {type(partitioner).__name__}; "
                "call it once for each"
            )
        rng = generator(rng)
        firsts = partitioner.several(graph, n_clusters, rng=rng)
        return tuple(
            self._dusted(graph, first, deepcopy(rng), partial(_clusters, partitioner, number))
            for number, first in zip(n_clusters, firsts, strict=True)
        )

    def many(self, graphs: Iterable[tuple[UnitGraph, np.random.Generator]]) -> Iterator[tuple[UnitGraph, Partition]]:
        """Each graph with its clusters, in order: those that it has alone (see `Spectral.many`).

        Args:
            graphs: Pairs of a graph and its generator; they are taken as they are needed.

        Raises:
            PartitionError: If the partitioner cannot cluster one of the graphs.
        """
        if not isinstance(self.partitioner, SpectralPartitioner):
            for graph, rng in graphs:
                yield graph, self(graph, rng=rng)
            return
        taken: deque[np.random.Generator] = deque()

        def noted() -> Iterator[tuple[UnitGraph, np.random.Generator]]:
            for graph, rng in graphs:
                taken.append(rng)
                yield graph, rng

        for graph, first in self.partitioner.many(noted()):
            yield graph, self._dusted(graph, first, taken.popleft(), self._again)

    def _again(self, rest: UnitGraph, rng: np.random.Generator) -> Partition:
        return self.partitioner(rest, rng=rng)

    def _dusted(
        self,
        graph: UnitGraph,
        first: Partition,
        rng: np.random.Generator,
        again: Callable[[UnitGraph, np.random.Generator], Partition],
    ) -> Partition:
        """The clusters of the graph, `first` being those found with the dust; `again` clusters the rest."""
        partition = first
        is_dust = np.zeros(graph.n_units, dtype=bool)
        rest = graph
        for _ in range(N_ROUNDS):
            is_small = _is_in_small_cluster(rest, partition, self.min_share)
            if not is_small.any():
                break
            is_dust |= is_small
            if int((rest.degrees > 0).sum() - is_small.sum()) < 2 * first.n_clusters:
                return replace(first, notes=(*first.notes, "too few units hang together to leave out small clusters"))
            rest = _without(rest, is_small)
            partition = again(rest, rng)
        if not is_dust.any():
            return partition
        labels = _placed(graph, partition.labels, is_dust)
        note = f"{int(is_dust.sum())} units formed clusters too small to count, and joined their neighbours'"
        return Partition(labels, notes=(*first.notes, note))


def _clusters(
    partitioner: SpectralPartitioner, n_clusters: int, graph: UnitGraph, rng: np.random.Generator
) -> Partition:
    return partitioner.several(graph, (n_clusters,), rng=rng)[0]


def _is_in_small_cluster(graph: UnitGraph, partition: Partition, min_share: float) -> Bool[np.ndarray, " units"]:
    labels = partition.labels
    is_in = labels >= 0
    volumes = np.bincount(labels[is_in], weights=graph.degrees[is_in])
    is_small = volumes < min_share * volumes.sum() / max(partition.n_clusters, 1)
    is_in_small: np.ndarray = is_in & np.append(is_small, False)[labels]
    return is_in_small


def _without(graph: UnitGraph, is_out: Bool[np.ndarray, " units"]) -> UnitGraph:
    """The graph without any edge at these units."""
    return replace(graph, blocks=tuple(_without_units(block, is_out) for block in graph.blocks))


def _without_units(block: Block, is_out: Bool[np.ndarray, " units"]) -> Block:
    at_targets, at_sources = is_out[block.targets], is_out[block.sources]
    if not at_targets.any() and not at_sources.any():
        return block
    if isinstance(block.sizes, np.ndarray):
        sizes = block.sizes.copy()
        sizes[at_targets] = 0
        sizes[:, at_sources] = 0
        return replace(block, sizes=sizes)
    entries = block.sizes.tocoo()
    kept = ~(at_targets[entries.row] | at_sources[entries.col])
    entries.data = np.where(kept, entries.data, 0)
    sparse = entries.tocsr()
    sparse.eliminate_zeros()
    return replace(block, sizes=sparse)


def _placed(
    graph: UnitGraph, labels: Int[np.ndarray, " units"], is_dust: Bool[np.ndarray, " units"]
) -> Int[np.ndarray, " units"]:
    """Labels where each unit of the dust has that of the cluster it has most weight with, nearest units first."""
    labels = np.where(is_dust, -1, labels)
    n_clusters = int(labels.max()) + 1
    while True:
        weights = _weight_with_clusters(graph, labels, np.flatnonzero(is_dust & (labels < 0)), n_clusters)
        can_join = weights.max(axis=1, initial=0.0) > 0
        if not can_join.any():
            return labels
        waiting = np.flatnonzero(is_dust & (labels < 0))
        labels[waiting[can_join]] = weights[can_join].argmax(axis=1)


def _weight_with_clusters(
    graph: UnitGraph, labels: Int[np.ndarray, " units"], units: Int[np.ndarray, " waiting"], n_clusters: int
) -> Float[np.ndarray, "waiting clusters"]:
    weights = np.zeros((graph.n_units, n_clusters))
    is_waiting = np.zeros(graph.n_units, dtype=bool)
    is_waiting[units] = True
    for block in graph.blocks:
        for here, there, sizes in (
            (block.targets, block.sources, block.sizes),
            (block.sources, block.targets, block.sizes.T),
        ):
            rows = np.flatnonzero(is_waiting[here])
            if len(rows):
                membership = (labels[there][:, None] == np.arange(n_clusters)).astype(np.float64)
                chosen = sizes[rows] if isinstance(sizes, np.ndarray) else sizes.tocsr()[rows]
                weights[here[rows]] += chosen @ membership
    of_waiting: np.ndarray = weights[units]
    return of_waiting
