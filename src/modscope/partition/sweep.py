"""At which numbers of clusters is a network clustered, more than chance allows?"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, is_dataclass, replace
from numbers import Integral
from typing import Any, cast

import numpy as np

from modscope.errors import PartitionError, StatisticsError
from modscope.graph.unit_graph import UnitGraph, checked_graph
from modscope.graph.weights import weight_graph
from modscope.jobs.executors import map_in_order
from modscope.nulls import NullModel, null_named
from modscope.partition.bands import Band, Sweep
from modscope.partition.clusterability import N_OBSERVED, STRICTER, WEAKER
from modscope.partition.dust import Partitioner, WithoutDust
from modscope.partition.partition import Partition
from modscope.partition.quality import n_cut
from modscope.partition.spectral import Spectral
from modscope.randomness import Rng, numbered, seed_of
from modscope.statistics.experiment import random_subject
from modscope.wiring.wiring import Wiring

PAPERS_NUMBERS = (2, 4, 7, 10, 12)


@dataclass(frozen=True)
class FoundNCuts:
    """The n-cuts that a partitioner finds for several numbers of clusters: one statistic with several values."""

    partitioner: Partitioner  # has a field n_clusters
    n_clusters: tuple[int, ...]
    min_share: float

    def __call__(self, subject: UnitGraph | Wiring, rng: np.random.Generator) -> list[float]:
        """One n-cut for each number of clusters."""
        graph = weight_graph(subject) if isinstance(subject, Wiring) else subject
        return [n_cut(graph, partition) for partition in self.partitions(graph, rng)]

    def partitions(self, graph: UnitGraph, rng: np.random.Generator) -> list[Partition]:
        """One partition for each number of clusters, all from the same state of the generator.

        So the clusters found for one number do not depend on which other numbers are asked for.
        """
        several = getattr(WithoutDust(self.partitioner, self.min_share), "several", None)
        if several is not None and hasattr(self.partitioner, "several"):
            return list(several(graph, self.n_clusters, rng=rng))  # one embedding for all
        return [self._for(k)(graph, rng=copy.deepcopy(rng)) for k in self.n_clusters]

    def _for(self, n_clusters: int) -> WithoutDust:
        return WithoutDust(_with_number(self.partitioner, n_clusters), self.min_share)


def sweep_n_clusters(
    subject: Wiring | UnitGraph,
    n_clusters: Sequence[int] = PAPERS_NUMBERS,
    *,
    partitioner: Partitioner | None = None,
    nulls: str | NullModel | Sequence[str | NullModel] = (WEAKER, STRICTER),
    n_samples: int = 99,
    rng: Rng = 0,
    executor: Executor | None = None,
    n_observed: int = N_OBSERVED,
    min_share: float = 0.01,
) -> Sweep:
    """`clusterability` for several numbers of clusters at once, corrected for having looked at several.

    Each random network is drawn once and clustered for every number, `Spectral` with one set of eigenvectors. With the
    same seed they are the random networks of `clusterability`.

    Args:
        subject: A wiring (its `weight_graph` with default options is clustered), or a graph.
        n_clusters: The numbers of clusters; a range will do. The default is the papers' choice.
        partitioner: `Spectral()` if not given; any other with a field `n_clusters`, which is set to each number.
        nulls: Names from `NULL_MODELS`, or functions `(graph, rng) -> graph`.
        n_samples: Null samples of each.
        rng: Seed, or a generator that one seed is drawn from.
        executor: Where samples are clustered; None = this process.
        n_observed: Clusterings of the network itself, for intervals and stability; the first one is tested.
        min_share: As for `clusterability`.

    Raises:
        StatisticsError: If a null model is unknown or randomises something else, or there is nothing to draw.
        PartitionError: If a number of clusters is not a whole number of at least 1, or the graph cannot be clustered
            so, or the partitioner has no number of clusters.

    Source: Filan et al. 2021 (several k); Westfall & Young 1993 (correction).
    """
    models = [null_named(null) for null in ([nulls] if isinstance(nulls, str) or callable(nulls) else nulls)]
    if not models or not all(isinstance(n, Integral) and n >= 1 for n in (n_samples, n_observed)):
        raise StatisticsError(
            f"at least one null model, sample and clustering are needed, got {len(models)}, {n_samples}, {n_observed}"
        )
    numbers = _checked_numbers(n_clusters)
    partitioner = Spectral() if partitioner is None else partitioner
    _with_number(partitioner, numbers[0])
    graph = weight_graph(subject) if isinstance(subject, Wiring) else checked_graph(subject)
    seed, statistic = seed_of(rng), FoundNCuts(partitioner, numbers, min_share)
    clusterings = map_in_order(
        _Clustering(graph, statistic, seed), range(n_observed), executor=executor, description="clusterings of it"
    )
    observed = np.array([[n_cut(graph, partition) for partition in several] for several in clusterings])
    bands = {}
    for model in models:
        takes_graph = isinstance(graph, getattr(model, "takes", UnitGraph))
        samples = map_in_order(
            _Sample(graph if takes_graph else subject, model, statistic, seed),
            range(n_samples),
            executor=executor,
            description=f"null samples, {model.__name__}",
        )
        bands[model.__name__] = Band(model.__name__, numbers, observed, np.array(samples, dtype=np.float64))
    return Sweep(bands, dict(zip(numbers, zip(*clusterings, strict=True), strict=True)))


@dataclass(frozen=True)
class _Clustering:
    """Clustering `index` of the network itself, with the generator that `clusterability` would use."""

    graph: UnitGraph
    statistic: FoundNCuts
    seed: int

    def __call__(self, index: int) -> list[Partition]:
        return self.statistic.partitions(self.graph, numbered(self.seed, "observed", index))


@dataclass(frozen=True)
class _Sample:
    """The n-cuts of random network `index`."""

    subject: UnitGraph | Wiring
    null: NullModel
    statistic: FoundNCuts
    seed: int

    def __call__(self, index: int) -> list[float]:
        return self.statistic(*random_subject(self.subject, self.null, self.seed, index))


def _checked_numbers(n_clusters: Sequence[int]) -> tuple[int, ...]:
    numbers = list(n_clusters)
    if not numbers or not all(isinstance(k, Integral) and k >= 1 for k in numbers):
        raise PartitionError(f"n_clusters must be whole numbers of at least 1, got {numbers}")
    return tuple(sorted({int(k) for k in numbers}))


def _with_number(partitioner: Partitioner, n_clusters: int) -> Partitioner:
    if not (is_dataclass(partitioner) and hasattr(partitioner, "n_clusters")):
        raise PartitionError(
            f"a sweep sets the partitioner's number of clusters, and {type(partitioner).__name__} has none; use "
            "Spectral, or a dataclass with a field n_clusters"
        )
    return cast("Partitioner", replace(cast("Any", partitioner), n_clusters=n_clusters))
