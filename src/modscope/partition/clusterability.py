"""Do a network's units fall into clusters, more than chance allows?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from modscope.errors import StatisticsError
from modscope.graph.unit_graph import UnitGraph, checked_graph
from modscope.graph.weights import weight_graph
from modscope.jobs.executors import map_in_order
from modscope.nulls import NullModel, null_named
from modscope.partition.agreement import mean_agreement
from modscope.partition.dust import Partitioner, WithoutDust
from modscope.partition.partition import Partition
from modscope.partition.quality import n_cut
from modscope.randomness import Rng, numbered, seed_of
from modscope.records import Record, record_of
from modscope.statistics.comparison import Comparison, comparison_of
from modscope.statistics.experiment import Experiment
from modscope.wiring.wiring import Wiring

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes

WEAKER, STRICTER, REWIRED = "shuffle_weights", "keep_unit_scale", "keep_unit_scale_rewired"
LEVEL = 0.05
MIN_EFFECT = 0.01  # of the null's mean n-cut; in a large network any difference at all is significant
SPARSE = 0.5  # density below which most connections are missing
N_OBSERVED = 5  # clusterings of the network itself

VerdictState = Literal["yes", "part", "no", "na"]


@dataclass(frozen=True)
class FoundNCut:
    """The n-cut that a partitioner finds: a statistic for `compare`, the same for a network and its null samples."""

    partitioner: Partitioner

    def __call__(self, subject: UnitGraph | Wiring, rng: np.random.Generator) -> float:
        """n-cut of one clustering."""
        graph = _graph_of(subject)
        return n_cut(graph, self.partitioner(graph, rng=rng))

    def many(self, subjects: Iterable[tuple[UnitGraph | Wiring, np.random.Generator]]) -> Iterator[float]:
        """The n-cut of each, in order; a partitioner that has `many` clusters them side by side."""
        graphs = ((_graph_of(subject), rng) for subject, rng in subjects)
        many = getattr(self.partitioner, "many", None)
        found = many(graphs) if many else ((graph, self.partitioner(graph, rng=rng)) for graph, rng in graphs)
        return (n_cut(graph, partition) for graph, partition in found)


@dataclass(frozen=True, eq=False)
class Clusterability(Mapping[str, Comparison]):
    """The n-cut of a network's clusters against null models: a mapping null name -> Comparison.

    The first of `partitions` is the one that is tested; the others are further clusterings of the same network.
    """

    comparisons: dict[str, Comparison]
    partitions: tuple[Partition, ...]
    density: float  # share of the possible connections that are there

    def __getitem__(self, null: str) -> Comparison:
        if null not in self.comparisons:
            raise StatisticsError(f"null model '{null}' was not run; {', '.join(self.comparisons)} were")
        return self.comparisons[null]

    def __contains__(self, null: object) -> bool:
        return null in self.comparisons

    def __iter__(self) -> Iterator[str]:
        return iter(self.comparisons)

    def __len__(self) -> int:
        return len(self.comparisons)

    @property
    def partition(self) -> Partition:
        """The clusters whose n-cut is tested."""
        return self.partitions[0]

    @property
    def n_cut(self) -> float:
        """The n-cut of `partition`."""
        return next(iter(self.comparisons.values())).observed

    @property
    def interval(self) -> tuple[float, float] | None:
        """Where 95 % of further clusterings' n-cuts fall; None for a partitioner without randomness."""
        return next(iter(self.comparisons.values())).interval

    @cached_property
    def stability(self) -> float | None:
        """Mean agreement (adjusted Rand index) of two clusterings of this network; None if only one was done."""
        return mean_agreement(self.partitions)

    @property
    def verdict(self) -> VerdictState:
        """`yes`, `part`, `no` or `na`; `sentence` says why."""
        return self._judged[0]

    @property
    def sentence(self) -> str:
        """The verdict in words, with its numbers."""
        return self._judged[1]

    @cached_property
    def _judged(self) -> tuple[VerdictState, str]:
        return judged(self.get(WEAKER), self.get(STRICTER), self.get(REWIRED), density=self.density)

    def get(self, null: str, default: Any = None) -> Any:
        """The comparison with this null model, or the default."""
        return self.comparisons.get(null, default)

    def extended(self, n_samples: int, *, executor: Executor | None = None) -> Clusterability:
        """The same test with `n_samples` more samples of every null model: those that a longer first run had drawn.

        Whoever looks and then draws more has more chances to see something, so the verdict then goes by the
        anytime-valid p-values.

        Raises:
            StatisticsError: If `n_samples` is not positive.
        """
        longer = {name: comparison.extended(n_samples, executor=executor) for name, comparison in self.items()}
        return replace(self, comparisons=longer)

    def summary(self) -> dict[str, Any]:
        """The verdict and what holds for all nulls alike."""
        return {
            "verdict": self.verdict,
            "sentence": self.sentence,
            "n_cut": self.n_cut,
            "interval": None if self.interval is None else list(self.interval),
            "n_clusters": self.partition.n_clusters,
            "stability": self.stability,
        }

    def to_dict(self) -> dict[str, Any]:
        """All numbers as plain JSON values."""
        return {
            **self.summary(),
            "labels": self.partition.labels.tolist(),
            "nulls": {name: comparison.to_dict() for name, comparison in self.items()},
        }

    def record(self) -> Record:
        """The same numbers as a `Record`, which can be saved and read again."""
        return record_of("clusterability", self.to_dict())

    def to_frame(self) -> pl.DataFrame:
        """One row per null model: n-cut, null's mean and spread, effect, z, p, floor."""
        import polars as pl

        frame = pl.concat([comparison.to_frame() for comparison in self.values()], how="vertical_relaxed")
        return frame.rename({"observed": "n_cut"})

    def plot(self, ax: Axes | None = None) -> Axes:
        """Histogram of the n-cuts of every null model, with a line at the network's own."""
        from modscope.statistics.pictures import plot_comparisons

        return plot_comparisons(self.comparisons, ax, label="n-cut")

    def __repr__(self) -> str:
        rows = "".join(f"\n  {comparison!r}" for comparison in self.values())
        return f"Clusterability({self.verdict}: {self.sentence}{rows})"

    def _repr_html_(self) -> str:
        from html import escape

        return f"<p><b>{self.verdict}</b>: {escape(self.sentence)}</p>{self.to_frame()._repr_html_()}"


def clusterability(
    subject: Wiring | UnitGraph,
    partitioner: Partitioner,
    *,
    nulls: str | NullModel | Sequence[str | NullModel] = (WEAKER, STRICTER),
    n_samples: int = 100,
    rng: Rng = 0,
    executor: Executor | None = None,
    n_observed: int = N_OBSERVED,
    min_share: float = 0.01,
) -> Clusterability:
    """Whether the clusters that a partitioner finds cut less weight than those it finds in random versions.

    Network and null samples are clustered once each, in the same way: the noise of the clustering is in both.

    Args:
        subject: A wiring (its `weight_graph` with default options is clustered), or a graph.
        partitioner: `Spectral(k)`, `Leiden()`, or any `partitioner(graph, *, rng) -> Partition`.
        nulls: Names from `NULL_MODELS`, or functions `(graph, rng) -> graph`.
        n_samples: Null samples of each.
        rng: Seed, or a generator that one seed is drawn from.
        executor: Where samples are clustered; None = this process.
        n_observed: Clusterings of the network itself, for `interval` and `stability`; the first one is tested.
        min_share: Clusters with less than this share of the average cluster's volume do not count (`WithoutDust`), in
            the network and in null samples; 0 = all count, as in the papers.

    Raises:
        StatisticsError: If a null model is unknown or randomises something else, or there is nothing to draw.
        PartitionError: If the graph cannot be clustered as asked.

    Source: Filan et al. 2021; the null `keep_unit_scale` is ours.
    """
    models = [null_named(null) for null in ([nulls] if isinstance(nulls, str) or callable(nulls) else nulls)]
    if not models or not all(isinstance(n, Integral) and n >= 1 for n in (n_samples, n_observed)):
        raise StatisticsError(
            f"at least one null model, sample and clustering are needed, got {len(models)}, {n_samples}, {n_observed}"
        )
    graph = weight_graph(subject) if isinstance(subject, Wiring) else checked_graph(subject)
    seed, statistic = seed_of(rng), FoundNCut(WithoutDust(partitioner, min_share))
    partitions = _observed_partitions(graph, statistic.partitioner, seed, n_observed)
    observed = [n_cut(graph, partition) for partition in partitions]
    comparisons = {}
    for model in models:
        takes_graph = isinstance(graph, getattr(model, "takes", UnitGraph))
        experiment = Experiment(graph if takes_graph else subject, statistic, model, seed)
        comparisons[model.__name__] = comparison_of(experiment, observed, n_samples, "less", executor)
    return Clusterability(comparisons, tuple(partitions), _density(graph))


def judged(
    weaker: Comparison | None, stricter: Comparison | None, rewired: Comparison | None = None, *, density: float
) -> tuple[VerdictState, str]:
    """The verdict on structure from the null models that it needs, and the reason in words.

    `yes`: p <= .05 under both, and the stricter one keeps at least half of the effect. `part`: the weaker one alone.
    Effects are shares of the n-cut; one below `MIN_EFFECT` is none.

    Where most connections are missing, which ones are there is part of the structure, and a null that keeps them keeps
    part of the effect. There the rewired form, if it was run, says how much of the effect the units' scale and number
    of connections explain, and if it was not, nothing does.
    """
    if weaker is None:
        return "na", f"the null model {WEAKER} was not run, and the verdict needs it"
    unable = [test for test in (weaker, stricter) if test is not None and test.floor > LEVEL]
    if unable:
        return "na", f"{unable[0].n_samples} null samples cannot give p <= .05; at least 19 are needed"
    if not _holds(weaker):
        return "no", f"chance explains the clusters: {_numbers(weaker)}"
    if stricter is None:
        return "part", f"{_numbers(weaker)}, but {STRICTER}, which allows for unit scale, was not run"
    both = f"{_numbers(weaker)}; {_numbers(stricter)}"
    if not _holds(stricter):
        return "part", f"it looks clustered, but the scale of its units explains that: {both}"
    kept = stricter if density >= SPARSE else rewired
    if kept is not None and (kept.effect or 0.0) < (weaker.effect or 0.0) / 2:
        return "part", f"the scale of its units explains over half of the effect: {both}"
    return "yes", f"more clustered than chance and the scale of its units explain: {both}"


def _holds(comparison: Comparison) -> bool:
    return _p_value(comparison) <= LEVEL and (comparison.effect or 0.0) >= MIN_EFFECT


def _p_value(comparison: Comparison) -> float:
    """The plain one; after a second look the one that allows for any number of looks."""
    return comparison.p_value if len(comparison.looks) <= 1 else comparison.anytime_p_value


def _observed_partitions(graph: UnitGraph, partitioner: Partitioner, seed: int, n_observed: int) -> list[Partition]:
    """Clusterings with the generators that `Experiment.observed` would use, so that both give the same n-cut."""

    def clustering(index: int) -> Partition:
        return partitioner(graph, rng=numbered(seed, "observed", index))

    return map_in_order(clustering, range(n_observed), description="clusterings of the network")


def _graph_of(subject: UnitGraph | Wiring) -> UnitGraph:
    return weight_graph(subject) if isinstance(subject, Wiring) else subject


def _density(graph: UnitGraph) -> float:
    n_possible = sum(len(block.targets) * len(block.sources) for block in graph.blocks)
    return graph.n_edges / n_possible if n_possible else 0.0


def _numbers(comparison: Comparison) -> str:
    z = "z undefined" if comparison.z_score is None else f"z = {comparison.z_score:.1f}"
    effect = "" if comparison.effect is None else f", n-cut {100 * comparison.effect:.1f} % below chance"
    looks = f" after {len(comparison.looks)} looks" if len(comparison.looks) > 1 else ""
    return f"{comparison.null_name}: p = {_p_value(comparison):.3g}{looks}, {z}{effect}"
