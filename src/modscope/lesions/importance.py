"""Does a task need a cluster of units, more than as many random units of the same layers?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float
from torch import nn

from modscope.errors import LesionError
from modscope.lesions.controls import N_FIRST, H, Part, at_least, control_drops, parts_of
from modscope.lesions.dissociation import DissociatedClusters, dissociations
from modscope.lesions.engine import LesionEngine, Metric
from modscope.lesions.values import Value
from modscope.partition.partition import Partition
from modscope.randomness import Rng, seed_of
from modscope.records import Record, record_of
from modscope.statistics import Comparison, benjamini_hochberg, besag_clifford, fisher, samples_needed
from modscope.tasks.task import Task, as_tasks
from modscope.wiring.wiring import Wiring

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes

LEVEL = 0.05
NULL_NAME = "random units of the same groups"


@dataclass(frozen=True, eq=False)
class Importance:
    """What tasks lose with parts of the network, against what they lose with random units.

    A drop is positive where the part was needed: accuracy lost, or loss gained. Tests may stop early: p-values come
    from all samples that a part got, effects and z from the first 99, fixed before, of every part.
    """

    parts: tuple[Part, ...]
    tasks: tuple[str, ...]
    metric: Metric
    value: Value
    intact: Float[np.ndarray, " tasks"]  # accuracy or loss of the intact model
    drops: Float[np.ndarray, "parts tasks"]
    random_drops: Float[np.ndarray, "samples parts tasks"]  # of random units in the same groups; NaN: stopped before
    n_examples: int

    @property
    def n_samples(self) -> int:
        """Largest number of random partitions behind a p-value."""
        return len(self.random_drops)

    @property
    def floor(self) -> float:
        """The smallest p-value that so many samples can give."""
        return 1 / (self.n_samples + 1)

    @property
    def control_drops(self) -> Float[np.ndarray, "samples parts tasks"]:
        """The first samples, of every part: for effects, z and all parts together."""
        return self.random_drops[:N_FIRST]

    @cached_property
    def comparisons(self) -> dict[tuple[str, str], Comparison]:
        """(part, task) -> its drop against the first samples; `p_values` also know the later ones."""
        return {
            (part.name, task): self._comparison(self.drops[i, j], self.control_drops[:, i, j])
            for i, part in enumerate(self.parts)
            for j, task in enumerate(self.tasks)
        }

    @cached_property
    def p_values(self) -> Float[np.ndarray, "parts tasks"]:
        """One-sided p: random units hurt as much, or more; ties count against the part."""
        h = H if self.n_samples > N_FIRST else self.n_samples + 1
        p_values = np.empty(self.drops.shape)
        for i, j in np.ndindex(*self.drops.shape):
            samples = self.random_drops[:, i, j]
            is_extreme = at_least(samples[~np.isnan(samples)], self.drops[i, j])
            p_values[i, j] = besag_clifford(is_extreme, bool, h=h).p_value
        return p_values

    @cached_property
    def adjusted_p_values(self) -> Float[np.ndarray, "parts tasks"]:
        """The same after Benjamini-Hochberg over all tests of the call."""
        return benjamini_hochberg(self.p_values.ravel()).reshape(self.drops.shape)

    @property
    def is_important(self) -> Bool[np.ndarray, "parts tasks"]:
        """Which parts matter to which task: adjusted p at most .05."""
        return self.adjusted_p_values <= LEVEL

    @cached_property
    def combined(self) -> Comparison | None:
        """All sub-clusters together: T against that of whole random partitions; None without sub-clusters.

        T = mean over sub-clusters of the largest drop that any task has, standardised by its own controls. (A mean over
        the tasks would cancel where each task has clusters of its own: what hurts one spares the other.) The observed
        partition and the random ones are treated alike, mean and spread over all n + 1: no independence is needed.
        """
        rows = self._standardised[:, self._is_sub_cluster]
        if rows.shape[1] == 0:
            return None
        statistic = rows.max(axis=2).mean(axis=1)
        return self._comparison(statistic[0], statistic[1:], "random partitions with the same sub-cluster sizes")

    @cached_property
    def fisher_p_value(self) -> float | None:
        """Fisher's p over the sub-clusters of all tasks: the papers' figure. It takes them as independent."""
        p_values = self.p_values[self._is_sub_cluster].ravel()
        return fisher(p_values, n_samples=self.n_samples) if len(p_values) else None

    @cached_property
    def dissociations(self) -> tuple[DissociatedClusters, ...]:
        """For each pair of tasks: do two clusters exist, each of which one task needs and the other does not?"""
        rows = np.flatnonzero(~self._is_sub_cluster)
        clusters = [self.parts[i].cluster for i in rows]
        return dissociations(self._standardised[:, rows], clusters, self.tasks) if len(rows) > 1 else ()

    def owners(self, task: str) -> float | None:
        """How many clusters share a task: exp(entropy) of the clusters' drops beyond chance; None if there are none.

        1: one cluster owns it; k: k clusters have equal shares.
        """
        rows, column = ~self._is_sub_cluster, self._column(task)
        beyond = np.maximum(self.drops[rows, column] - self.control_drops[:, rows, column].mean(axis=0), 0)
        if beyond.sum() <= 0:
            return None
        shares = beyond[beyond > 0] / beyond.sum()
        return float(np.exp(-(shares * np.log(shares)).sum()))

    def to_frame(self) -> pl.DataFrame:
        """One row per part and task: size, drop, the random units' mean drop, effect, z, p, adjusted p."""
        import polars as pl

        return pl.DataFrame(self._rows())

    def plot(self, ax: Axes | None = None) -> Axes:
        """The lesion matrix: rows are clusters, columns are tasks, colour is the drop; a star marks a finding."""
        from modscope.lesions.pictures import plot_importance

        return plot_importance(self, ax)

    def to_dict(self) -> dict[str, Any]:
        """All numbers as plain JSON values."""
        return {
            "metric": self.metric,
            "value": self.value,
            "n_samples": self.n_samples,
            "n_examples": self.n_examples,
            "floor": self.floor,
            "intact": dict(zip(self.tasks, self.intact.tolist(), strict=True)),
            "parts": self._rows(),
            "combined": None if self.combined is None else self.combined.to_dict(),
            "fisher_p_value": self.fisher_p_value,
            "dissociations": [dissociation.to_dict() for dissociation in self.dissociations],
            "owners": {task: self.owners(task) for task in self.tasks},
        }

    def record(self) -> Record:
        """The same numbers as a `Record`, which can be saved and read again."""
        return record_of("importance", self.to_dict())

    def __repr__(self) -> str:
        p = "none" if self.combined is None else f"{self.combined.p_value:.3g}"
        found, tests = int(self.is_important.sum()), self.is_important.size
        return (
            f"Importance({len(self.parts)} parts x {len(self.tasks)} tasks: {found} of {tests} matter, together p={p})"
        )

    def _repr_html_(self) -> str:
        return f"<p>{self!r}</p>{self.to_frame()._repr_html_()}"

    @cached_property
    def _is_sub_cluster(self) -> Bool[np.ndarray, " parts"]:
        return np.array([part.group is not None for part in self.parts], dtype=bool)

    @cached_property
    def _standardised(self) -> Float[np.ndarray, "samples parts tasks"]:
        """Drops of the observed partition (row 0) and of the random ones, in units of each column's spread."""
        rows = np.concatenate([self.drops[None], self.control_drops])
        spread = rows.std(axis=0)
        varies = spread > 1e-12
        return np.where(varies, (rows - rows.mean(axis=0)) / np.where(varies, spread, 1), 0.0)

    def _comparison(self, observed: float, samples: np.ndarray, null_name: str = NULL_NAME) -> Comparison:
        return Comparison(float(observed), samples, "greater", null_name, looks=(len(samples),))

    def _column(self, task: str) -> int:
        if task not in self.tasks:
            raise LesionError(f"no task '{task}' among {', '.join(self.tasks)}")
        return self.tasks.index(task)

    def _rows(self) -> list[dict[str, Any]]:
        rows = []
        for i, part in enumerate(self.parts):
            for j, task in enumerate(self.tasks):
                comparison = self.comparisons[part.name, task]
                rows.append(
                    {
                        "cluster": part.cluster,
                        "group": part.group,
                        "n_units": len(part.unit_ids),
                        "task": task,
                        "drop": float(self.drops[i, j]),
                        "random_drop": float(self.control_drops[:, i, j].mean()),
                        "effect": float(self.drops[i, j] - self.control_drops[:, i, j].mean()),
                        "z_score": comparison.z_score,
                        "p_value": comparison.p_value,
                        "adjusted_p_value": float(self.adjusted_p_values[i, j]),
                        "is_important": bool(self.is_important[i, j]),
                    }
                )
        return rows


def importance(
    model: nn.Module,
    wiring: Wiring,
    partition: Partition,
    tasks: Task | Sequence[Task],
    *,
    metric: Metric = "accuracy",
    value: Value = "zero",
    reference: Iterable[Any] | None = None,
    n_samples: int | None = None,
    rng: Rng = 0,
    executor: Executor | None = None,
    n_examples: int | None = 1000,
    min_size: int = 2,
    max_share: float = 0.99,
) -> Importance:
    """What each task loses when a cluster is silenced, against silencing random units.

    Parts are the sub-clusters (a cluster's units in one hidden group) and the whole clusters (all their hidden units).
    Controls come from whole random partitions: labels permuted over the alive units of each hidden group, so that every
    random part has as many units in every group as the part itself.

    Args:
        model: Any module.
        wiring: What `read_wiring` gave for it.
        partition: Clusters of its units; units labelled -1 count as dead: they are neither silenced nor drawn.
        tasks: One task or several; their test data are used.
        metric: "accuracy" (drop = accuracy lost) or "loss" (drop = loss gained).
        value: What is read instead of a silenced unit, see `silenced`.
        reference: Batches for "mean" and "resample".
        n_samples: Random partitions at most; None: the fewest that let one finding survive the correction over all
            tests. Above 99 a test stops at the tenth random part that hurts as much.
        rng: Draws the random partitions.
        executor: Where lesions are run; None = this process.
        n_examples: Test examples of each task that are used (whole batches, the first ones); None: all.
        min_size: Smaller sub-clusters are not tested on their own.
        max_share: Nor are those with a larger share of their group's alive units.

    Raises:
        LesionError: If the partition does not fit the wiring, or there is nothing to test.

    Source: Filan et al. 2021 and Hod, Casper et al. 2021 (lesions against random ones); the combination is ours.
    """
    tasks = as_tasks(tasks)
    parts = parts_of(wiring, partition, min_size=min_size, max_share=max_share)
    n_tests = len(parts) * len(tasks)
    if n_samples is None:
        n_samples = samples_needed(max(n_tests, 1), LEVEL)
    if n_samples < 1 or n_tests == 0:
        raise LesionError(
            f"importance needs a task and at least one random partition, got {len(tasks)} and {n_samples}"
        )
    seed = seed_of(rng)
    engine = LesionEngine(
        model, wiring, tasks, metric=metric, value=value, reference=reference, rng=seed, n_examples=n_examples
    )
    controls = control_drops(
        engine,
        wiring,
        partition,
        parts,
        sign=1 if metric == "accuracy" else -1,
        n_samples=n_samples,
        seed=seed,
        executor=executor,
    )
    return Importance(
        parts=tuple(parts),
        tasks=tuple(task.name for task in tasks),
        metric=metric,
        value=value,
        intact=controls.intact,
        drops=controls.drops,
        random_drops=controls.random_drops,
        n_examples=engine.n_examples,
    )
