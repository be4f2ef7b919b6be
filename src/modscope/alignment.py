"""The bridge: do clusters of units and masks of weights agree, beyond what layer, degree and weight size explain?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int
from torch import nn

from modscope.errors import MaskError, PartitionError
from modscope.footprints import Agreement, AnyMask, ClusteredUnits, unit_weights
from modscope.lesions.controls import hidden_units
from modscope.lesions.engine import LesionEngine
from modscope.partition.partition import Partition
from modscope.randomness import Rng, numbered, seed_of
from modscope.records import Record, record_of
from modscope.statistics import Comparison, max_t, samples_needed
from modscope.tasks.task import Task, as_tasks
from modscope.wiring.wiring import Wiring

if TYPE_CHECKING:
    import polars as pl
    from matplotlib.axes import Axes

RAW_NULL = "labels permuted within unit group"
CONTROLLED_NULL = "residuals permuted within unit group"


@dataclass(frozen=True, eq=False)
class Alignment:
    """Agreement of clusters and masks, over the hidden units.

    A unit's footprint: the share of its incoming, and of its outgoing, weights that a task's mask keeps. The agreement
    is the share of the footprints' variance within unit groups that the clusters explain (0 to 1).
    """

    tasks: tuple[str, ...]
    clusters: tuple[int, ...]
    raw: Comparison  # agreement; units may still differ in degree and weight size
    controlled: Comparison  # agreement of what degree and weight size leave over
    log_odds: Float[np.ndarray, "tasks clusters"]  # weights of the cluster's units are kept: against the other units
    standard_errors: Float[np.ndarray, "tasks clusters"]
    p_values: Float[np.ndarray, "tasks clusters"]  # two-sided, corrected for all cells by max-T
    controlled_p_values: Float[np.ndarray, "tasks clusters"]
    lesions: Comparison | None = None  # do the clusters that a mask keeps also hurt its task when they are silenced?
    drops: Float[np.ndarray, "tasks clusters"] | None = None

    @property
    def agreement(self) -> float:
        """Share of the footprints' variance within groups that the clusters explain, nothing taken out."""
        return self.raw.observed

    @property
    def kept_effect(self) -> float | None:
        """How much of the effect beyond chance is left when degree and weight size are taken out; None without one."""
        raw = _beyond(self.raw)
        return _beyond(self.controlled) / raw if raw > 0 else None

    def to_frame(self) -> pl.DataFrame:
        """One row per task and cluster: log odds, standard error, corrected p raw and controlled, drop if measured."""
        import polars as pl

        return pl.DataFrame(self._rows())

    def plot(self, ax: Axes | None = None) -> Axes:
        """Heat map of the log odds; a star marks cells that hold with degree and weight size taken out."""
        if ax is None:
            import matplotlib.pyplot as plt

            ax = plt.figure(figsize=(1.5 + len(self.clusters), 1.5 + 0.5 * len(self.tasks))).add_subplot()
        limit = max(float(np.abs(self.log_odds).max()), 1e-12)
        image = ax.imshow(self.log_odds, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
        for row, column in np.ndindex(*self.log_odds.shape):
            star = " *" if self.controlled_p_values[row, column] <= 0.05 else ""
            ax.text(column, row, f"{self.log_odds[row, column]:.2f}{star}", ha="center", va="center", fontsize=8)
        ax.set_xticks(range(len(self.clusters)), [f"module {cluster}" for cluster in self.clusters])
        ax.set_yticks(range(len(self.tasks)), self.tasks)
        ax.figure.colorbar(image, ax=ax, label="log odds of being kept")
        return ax

    def to_dict(self) -> dict[str, Any]:
        """All numbers as plain JSON values."""
        return {
            "tasks": list(self.tasks),
            "clusters": list(self.clusters),
            "agreement": self.agreement,
            "kept_effect": self.kept_effect,
            "raw": self.raw.to_dict(),
            "controlled": self.controlled.to_dict(),
            "lesions": None if self.lesions is None else self.lesions.to_dict(),
            "cells": self._rows(),
        }

    def record(self) -> Record:
        """The same numbers as a `Record`, which can be saved and read again."""
        return record_of("alignment", self.to_dict())

    def __repr__(self) -> str:
        return (
            f"Alignment(agreement={self.agreement:.3f}, p={self.raw.p_value:.3g}; without degree and weight size "
            f"{self.controlled.observed:.3f}, p={self.controlled.p_value:.3g})"
        )

    def _repr_html_(self) -> str:
        return f"<p>{self!r}</p>{self.to_frame()._repr_html_()}"

    def _rows(self) -> list[dict[str, Any]]:
        return [
            {
                "task": task,
                "cluster": cluster,
                "log_odds": float(self.log_odds[i, j]),
                "standard_error": float(self.standard_errors[i, j]),
                "p_value": float(self.p_values[i, j]),
                "controlled_p_value": float(self.controlled_p_values[i, j]),
                "drop": None if self.drops is None else float(self.drops[i, j]),
            }
            for i, task in enumerate(self.tasks)
            for j, cluster in enumerate(self.clusters)
        ]


def alignment(
    mask_set: Mapping[str, AnyMask],
    wiring: Wiring,
    partition: Partition,
    *,
    model: nn.Module | None = None,
    tasks: Task | Sequence[Task] | None = None,
    n_samples: int | None = None,
    rng: Rng = 0,
) -> Alignment:
    """Do the clusters tell which units a task's mask keeps?

    Null: whole unit profiles are permuted over the units of their group, so that dependence among the weights of a
    unit and among tasks is kept. Raw: nothing but the group is taken out. Controlled: numbers and sizes of each unit's
    incoming and outgoing weights are regressed out of footprints and clusters, and residuals are permuted.

    Args:
        mask_set: Task -> mask; a MaskSet with several seeds is averaged over them.
        wiring: What `read_wiring` gave for the model that the masks are for.
        partition: Clusters of the wiring's units.
        model: With it and `tasks`, also: do the clusters that a task's mask keeps hurt that task when silenced?
        tasks: The masks' tasks.
        n_samples: Permutations; None: the fewest that let one finding survive the correction over all tests.
        rng: Draws the permutations.

    Raises:
        MaskError: If the masks do not fit the wiring, or tasks and masks have no name in common.
        PartitionError: If the partition does not fit, or has fewer than two clusters of hidden units.

    Source: Mantel & Haenszel 1959 (log odds over strata), Westfall & Young 1993 (max-T), Freedman & Lane 1983
    (permuted residuals); the combination is ours.
    """
    if not mask_set:
        raise MaskError("alignment needs at least one mask, got none; see learn_masks")
    names, clusters, units = tuple(mask_set), *_clusters(wiring, partition)
    weights = unit_weights(wiring, {name: _seeds(mask_set, name) for name in names})
    labels = np.searchsorted(clusters, partition.labels[units])
    table = ClusteredUnits(weights, units, wiring.group_of[units], labels, len(clusters))
    if n_samples is None:
        n_samples = samples_needed(2 * len(names) * len(clusters) + 3)
    seed = seed_of(rng)
    permutations = [_permutation(table.groups, seed, index) for index in range(n_samples)]

    raw, controlled = Agreement(table, table.group_dummies), Agreement(table, table.covariates)
    cells = np.stack([table.log_odds(np.arange(len(units))), *map(table.log_odds, permutations)])
    controlled_cells = np.stack([controlled.cells(None), *map(controlled.cells, permutations)])
    drops = None if model is None or tasks is None else _drops(model, wiring, partition, tasks, names, clusters)
    return Alignment(
        tasks=names,
        clusters=tuple(int(cluster) for cluster in clusters),
        raw=_comparison(raw, permutations, RAW_NULL),
        controlled=_comparison(controlled, permutations, CONTROLLED_NULL),
        log_odds=cells[0],
        standard_errors=table.log_odds_errors(),
        p_values=_two_sided_max_t(cells),
        controlled_p_values=_two_sided_max_t(controlled_cells),
        drops=drops,
        lesions=None if drops is None else _lesion_agreement(cells, drops),
    )


def _clusters(wiring: Wiring, partition: Partition) -> tuple[np.ndarray, np.ndarray]:
    """Labels of the clusters, and the hidden units that are in one."""
    if len(partition.labels) != wiring.n_units:
        raise PartitionError(f"the partition has {len(partition.labels)} units, the wiring {wiring.n_units}")
    units = np.flatnonzero(hidden_units(wiring) & (partition.labels >= 0))
    clusters = np.unique(partition.labels[units])
    if len(clusters) < 2:
        raise PartitionError(
            f"alignment needs at least two clusters with hidden units, the partition has {len(clusters)}"
        )
    return clusters, units


def _comparison(agreement: Agreement, permutations: Sequence[np.ndarray], null_name: str) -> Comparison:
    samples = np.array([agreement.explained(places) for places in permutations])
    return Comparison(agreement.explained(None), samples, "greater", null_name, looks=(len(samples),))


def _seeds(mask_set: Mapping[str, AnyMask], name: str) -> Sequence[AnyMask]:
    seeds = getattr(mask_set, "seeds", None)
    return (mask_set[name],) if seeds is None else tuple(seeds(name))


def _permutation(groups: Int[np.ndarray, " units"], seed: int, index: int) -> Int[np.ndarray, " units"]:
    """Place -> unit that moves there, of the same group."""
    rng = numbered(seed, "units within groups", index)
    places = np.arange(len(groups))
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        places[rows] = rng.permutation(rows)
    return places


def _two_sided_max_t(cells: Float[np.ndarray, "samples tasks clusters"]) -> Float[np.ndarray, "tasks clusters"]:
    flat = cells.reshape(len(cells), -1)
    both = np.hstack([flat, -flat])
    adjusted = max_t(both[0], both[1:])
    return np.asarray(np.minimum(*np.split(adjusted, 2)).reshape(cells.shape[1:]))


def _drops(
    model: nn.Module,
    wiring: Wiring,
    partition: Partition,
    tasks: Task | Sequence[Task],
    names: Sequence[str],
    clusters: Int[np.ndarray, " clusters"],
) -> Float[np.ndarray, "tasks clusters"]:
    """Accuracy that each masked task loses when each cluster's hidden units are silenced."""
    by_name = {task.name: task for task in as_tasks(tasks)}
    missing = [name for name in names if name not in by_name]
    if missing:
        raise MaskError(f"there is a mask of task '{missing[0]}' but no such task; tasks are {', '.join(by_name)}")
    engine = LesionEngine(model, wiring, [by_name[name] for name in names])
    is_hidden = hidden_units(wiring)
    lesions = [np.zeros(wiring.n_units, dtype=bool), *((partition.labels == c) & is_hidden for c in clusters)]
    scores = engine.scores(lesions, description="lesions of clusters")
    return np.asarray((scores[0] - scores[1:]).T)


def _lesion_agreement(
    cells: Float[np.ndarray, "samples tasks clusters"], drops: Float[np.ndarray, "tasks clusters"]
) -> Comparison:
    """Do the cells that a mask keeps have the large drops? Against permuted units.

    The statistic: how far log odds go in the direction of the drops, after what tasks or clusters have in common. (A
    correlation says nothing of two tasks and two clusters: it is 1 or -1.)
    """
    wanted = _doubly_centred(drops)
    wanted = wanted / max(float(np.linalg.norm(wanted)), 1e-12)
    values = np.array([(_doubly_centred(table) * wanted).sum() for table in cells])
    return Comparison(float(values[0]), values[1:], "greater", RAW_NULL, looks=(len(values) - 1,))


def _doubly_centred(table: Float[np.ndarray, "tasks clusters"]) -> Float[np.ndarray, "tasks clusters"]:
    centred = table - table.mean(axis=1, keepdims=True)
    return np.asarray(centred - centred.mean(axis=0) if len(table) > 1 else centred)


def _beyond(comparison: Comparison) -> float:
    return comparison.observed - float(comparison.null_samples.mean())
