"""How good is a partition of a graph?"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from modscope.errors import PartitionError
from modscope.graph.unit_graph import Block, UnitGraph, checked_graph
from modscope.partition.partition import Partition

Labels: TypeAlias = Partition | Int[np.ndarray, " units"]

ENTRIES_AT_ONCE = 1 << 20  # of a dense block, turned into float64: 8 MB


def n_cut(graph: UnitGraph, labels: Labels) -> float:
    """Sum over clusters of (weight leaving the cluster) / (volume of the cluster).

    Lower is more clusterable; the range is 0 to the number of clusters. The volume of a cluster is the sum of its
    units' degrees.

    Args:
        graph: Undirected graph; edge weights are non-negative.
        labels: Clusters of the same units. Units labelled -1 join no cluster, but edges to them are cut.

    Raises:
        PartitionError: If a cluster has no edges, there is no cluster, or the two disagree on the number of units.

    Source: Shi & Malik 2000, equation 2; applied to neural networks by Filan et al. 2021.
    """
    return float(n_cut_terms(graph, labels).sum())


def n_cut_terms(graph: UnitGraph, labels: Labels) -> Float[np.ndarray, " clusters"]:
    """(Weight leaving the cluster) / (volume of the cluster) for each cluster, by ascending label.

    Raises:
        PartitionError: As for `n_cut`.
    """
    volumes, within = _volumes_and_within(graph, labels)
    terms: np.ndarray = np.maximum(volumes - within, 0.0) / volumes
    return terms


def newman_modularity(graph: UnitGraph, labels: Labels) -> float:
    """Sum over clusters of (share of weight inside) - (share expected from the degrees alone); at most 1.

    Q = sum_c [within_c / 2m - (volume_c / 2m)^2], with within_c counting every edge inside from both ends and 2m the
    sum of all degrees.

    Raises:
        PartitionError: As for `n_cut`.

    Source: Newman 2006, equation 4.
    """
    volumes, within = _volumes_and_within(graph, labels)
    total = graph.degrees.sum()
    return float(np.sum(within / total - (volumes / total) ** 2))


def in_out_ratio(graph: UnitGraph, labels: Labels) -> float:
    """Weight inside clusters over weight leaving them, for the average cluster: (1 - m) / (2 m), m = n-cut / clusters.

    Infinite where nothing leaves.

    Raises:
        PartitionError: As for `n_cut`.

    Source: Filan et al. 2021 (their `ave_in_out`).
    """
    terms = n_cut_terms(graph, labels)
    mean_cut = float(terms.mean())
    return float("inf") if mean_cut == 0 else (1 - mean_cut) / (2 * mean_cut)


def checked_labels(labels: Labels, n_units: int) -> Int[np.ndarray, " units"]:
    """The labels as an array that fits the graph.

    Raises:
        PartitionError: If they are not whole numbers >= -1, or not one per unit.
    """
    partition = labels if isinstance(labels, Partition) else Partition(np.asarray(labels))
    if partition.n_units != n_units:
        raise PartitionError(f"the partition has {partition.n_units} units, the graph {n_units}")
    return partition.labels


def _volumes_and_within(
    graph: UnitGraph, labels: Labels
) -> tuple[Float[np.ndarray, " clusters"], Float[np.ndarray, " clusters"]]:
    """Volume of each cluster, and the part of it that stays inside."""
    present, dense = np.unique(checked_labels(labels, checked_graph(graph).n_units), return_inverse=True)
    n_clusters = len(present)
    if n_clusters == 0 or (n_clusters == 1 and present[0] == -1):
        raise PartitionError("every unit is left out (label -1); at least one cluster is needed")
    volumes = np.bincount(dense, weights=graph.degrees, minlength=n_clusters)
    within = np.zeros(n_clusters)
    for block in graph.blocks:
        within += 2 * _within(block, dense, n_clusters)
    is_cluster = present >= 0
    if np.any(volumes[is_cluster] <= 0):
        empty = present[is_cluster & (volumes <= 0)]
        raise PartitionError(f"cluster {empty[0]} has no edges; label its units -1")
    return volumes[is_cluster], within[is_cluster]


def _within(block: Block, labels: Int[np.ndarray, " units"], n_clusters: int) -> Float[np.ndarray, " clusters"]:
    rows, columns = labels[block.targets], labels[block.sources]
    if isinstance(block.sizes, np.ndarray):
        return _within_dense(block.sizes, rows, columns, n_clusters)
    return _within_sparse(block.sizes, rows, columns, n_clusters)


def _within_dense(
    sizes: Float[np.ndarray, "targets sources"],
    rows: Int[np.ndarray, " targets"],
    columns: Int[np.ndarray, " sources"],
    n_clusters: int,
) -> Float[np.ndarray, " clusters"]:
    is_member = np.zeros((len(columns), n_clusters))
    is_member[np.arange(len(columns)), columns] = 1.0
    within = np.zeros(n_clusters)
    step = max(1, ENTRIES_AT_ONCE // max(1, len(columns)))
    for start in range(0, len(rows), step):
        some = slice(start, start + step)
        linked = sizes[some].astype(np.float64) @ is_member  # (targets, clusters)
        own = linked[np.arange(len(linked)), rows[some]]
        within += np.bincount(rows[some], weights=own, minlength=n_clusters)
    return within


def _within_sparse(
    sizes: sp.csr_array, rows: Int[np.ndarray, " targets"], columns: Int[np.ndarray, " sources"], n_clusters: int
) -> Float[np.ndarray, " clusters"]:
    row_labels = np.repeat(rows, np.diff(sizes.indptr))
    is_inside = row_labels == columns[sizes.indices]
    within = np.bincount(row_labels[is_inside], weights=sizes.data[is_inside], minlength=n_clusters)
    return within.astype(np.float64, copy=False)  # of nothing, bincount makes whole numbers
