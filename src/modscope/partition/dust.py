"""Which clusters are too small to be a module, and where do their units belong?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

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
        first = partition = self.partitioner(graph, rng=rng)
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
            partition = self.partitioner(rest, rng=rng)
        if not is_dust.any():
            return partition
        labels = _placed(graph, partition.labels, is_dust)
        note = f"{int(is_dust.sum())} units formed clusters too small to count, and joined their neighbours'"
        return Partition(labels, notes=(*first.notes, note))


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
