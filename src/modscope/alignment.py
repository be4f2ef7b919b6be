"""The bridge: do clusters of units and masks of weights agree, beyond what layer, degree and weight size explain?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int
from torch import nn

from modscope.errors import MaskError, PartitionError
from modscope.footprints import IN, OUT, AnyMask, UnitWeights, unit_weights
from modscope.lesions.controls import hidden_units
from modscope.lesions.engine import LesionEngine
from modscope.partition.partition import Partition
from modscope.randomness import Rng, numbered, seed_of
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

    def record(self) -> dict[str, Any]:
        """All numbers as plain JSON values."""
        return {
            "tasks": list(self.tasks),
            "clusters": list(self.clusters),
            "agreement": self.agreement,
            "kept_effect": self.kept_effect,
            "raw": self.raw.record(),
            "controlled": self.controlled.record(),
            "lesions": None if self.lesions is None else self.lesions.record(),
            "cells": self._rows(),
        }

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
    table = _Units(weights, units, wiring.group_of[units], labels, len(clusters))
    if n_samples is None:
        n_samples = samples_needed(2 * len(names) * len(clusters) + 3)
    seed = seed_of(rng)
    permutations = [_permutation(table.groups, seed, index) for index in range(n_samples)]

    raw, controlled = _Agreement(table, table.group_dummies), _Agreement(table, table.covariates)
    cells = np.stack([table.log_odds(np.arange(len(units))), *map(table.log_odds, permutations)])
    controlled_cells = np.stack([controlled.cells(None), *map(controlled.cells, permutations)])
    drops = None if model is None or tasks is None else _drops(model, wiring, partition, tasks, names, clusters)
    return Alignment(
        tasks=names,
        clusters=tuple(int(cluster) for cluster in clusters),
        raw=raw.comparison(permutations, RAW_NULL),
        controlled=controlled.comparison(permutations, CONTROLLED_NULL),
        log_odds=cells[0],
        standard_errors=table.log_odds_errors(),
        p_values=_two_sided_max_t(cells),
        controlled_p_values=_two_sided_max_t(controlled_cells),
        drops=drops,
        lesions=None if drops is None else _lesion_agreement(cells, drops),
    )


@dataclass(frozen=True, eq=False)
class _Units:
    """The hidden units that are in a cluster: their weights, kept weights, group and cluster."""

    weights: UnitWeights
    units: Int[np.ndarray, " units"]
    groups: Int[np.ndarray, " units"]
    labels: Int[np.ndarray, " units"]
    n_clusters: int

    @cached_property
    def n_weights(self) -> Float[np.ndarray, " units"]:
        return np.asarray(self.weights.n_weights[self.units].sum(axis=1))

    @cached_property
    def n_kept(self) -> Float[np.ndarray, "tasks units"]:
        return np.asarray(self.weights.n_kept[:, self.units].sum(axis=2))

    @cached_property
    def footprints(self) -> Float[np.ndarray, "units columns"]:
        """One column per task and direction, then one per task for both directions together."""
        apart = self.weights.footprints[:, self.units]  # (tasks, units, 2)
        with np.errstate(invalid="ignore"):
            together = self.n_kept / self.n_weights
        return np.concatenate([apart[:, :, IN], apart[:, :, OUT], together]).T

    @cached_property
    def indicators(self) -> Float[np.ndarray, "units clusters"]:
        return np.asarray(np.eye(self.n_clusters)[self.labels])

    @cached_property
    def group_dummies(self) -> Float[np.ndarray, "units columns"]:
        """Nothing but which group a unit is in."""
        return np.ones((len(self.units), 1))

    @cached_property
    def covariates(self) -> Float[np.ndarray, "units columns"]:
        """Within each group: size and number of a unit's incoming and outgoing weights, as logarithms, and squares."""
        sizes, counts = np.log1p(self.weights.size[self.units]), np.log1p(self.weights.n_weights[self.units])
        centred = _WithinGroups(self.group_dummies, self.groups)(sizes)
        return np.hstack([self.group_dummies, sizes, counts, centred**2])

    def log_odds(self, places: Int[np.ndarray, " units"]) -> Float[np.ndarray, "tasks clusters"]:
        """Mantel-Haenszel log odds ratio over groups: kept or not, in the cluster or not; units moved to `places`."""
        kept, total = self._sums(places)
        numerator, denominator = _odds_terms(kept, total).sum(axis=2)
        return np.asarray(np.log(numerator / denominator))

    def log_odds_errors(self) -> Float[np.ndarray, "tasks clusters"]:
        """Standard errors by the jackknife over units: the weights of one unit rise and fall together."""
        kept, total = self._sums(np.arange(len(self.units)))
        terms = _odds_terms(kept, total)  # (2, tasks, groups, clusters)
        without = kept[:, self.groups] - self.n_kept[:, :, None] * self.indicators  # (tasks, units, clusters)
        left = total[self.groups] - self.n_weights[:, None] * self.indicators
        # Leaving out one unit changes its group's terms only.
        estimates = np.log(terms.sum(axis=2)[:, :, None] - terms[:, :, self.groups] + _odds_terms(without, left))
        log_odds = estimates[0] - estimates[1]
        n = len(self.units)
        return np.asarray(np.sqrt((n - 1) / n * ((log_odds - log_odds.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)))

    def _sums(self, places: Int[np.ndarray, " units"]) -> tuple[np.ndarray, np.ndarray]:
        """Kept (tasks, groups, clusters) and all (groups, clusters) weights, with unit `places[i]` in i's cluster."""
        n_groups = int(self.groups.max()) + 1
        cell = self.groups * self.n_clusters + self.labels
        shape = (n_groups, self.n_clusters)

        def total(weights: np.ndarray) -> np.ndarray:
            return np.bincount(cell, weights=weights[places], minlength=n_groups * self.n_clusters).reshape(shape)

        return np.stack([total(kept) for kept in self.n_kept]), total(self.n_weights)


def _odds_terms(
    kept: Float[np.ndarray, "tasks strata clusters"], total: Float[np.ndarray, "strata clusters"]
) -> Float[np.ndarray, "2 tasks strata clusters"]:
    """Numerator and denominator, per stratum, of the Mantel-Haenszel odds ratio; half a weight added to every cell.

    A stratum that lies within one cluster, or holds none of it, says nothing.
    """
    rest_kept = kept.sum(axis=-1, keepdims=True) - kept
    rest = total.sum(axis=-1, keepdims=True) - total
    in_kept, in_cut = kept + 0.5, total - kept + 0.5
    out_kept, out_cut = rest_kept + 0.5, rest - rest_kept + 0.5
    n = total.sum(axis=-1, keepdims=True) + 2
    says_something = (total > 0) & (rest > 0)
    terms = np.stack([in_kept * out_cut / n, in_cut * out_kept / n]) * says_something
    return np.asarray(terms + 1e-12)


class _Agreement:
    """Clusters against footprints, with columns of covariates taken out of both within every group."""

    def __init__(self, table: _Units, covariates: Float[np.ndarray, "units columns"]) -> None:
        self._rest = _WithinGroups(covariates, table.groups)
        self._n_columns = 2 * len(table.n_kept)  # the columns apart by direction; those of both together follow
        self._residuals = self._rest(_without_gaps(table.footprints, table.groups))
        indicators = self._rest(table.indicators)
        self._indicators = indicators / np.maximum(np.linalg.norm(indicators, axis=0), 1e-12)
        left, sizes, _ = np.linalg.svd(indicators, full_matrices=False)
        self._basis = left[:, sizes > 1e-8 * max(float(sizes.max(initial=0)), 1e-12)]

    def explained(self, places: Int[np.ndarray, " units"] | None) -> float:
        """Share of variance that the clusters explain, mean over tasks and directions, units moved to `places`."""
        residuals = self._moved(places)[:, : self._n_columns]
        total = (residuals**2).sum(axis=0)
        explained = ((self._basis.T @ residuals) ** 2).sum(axis=0)
        varies = total > 1e-12
        return float((explained[varies] / total[varies]).mean()) if varies.any() else 0.0

    def cells(self, places: Int[np.ndarray, " units"] | None) -> Float[np.ndarray, "tasks clusters"]:
        """Partial correlation of each task's footprint with each cluster, units moved to `places`."""
        residuals = self._moved(places)[:, self._n_columns :]
        sizes = np.maximum(np.linalg.norm(residuals, axis=0), 1e-12)
        return np.asarray((residuals / sizes).T @ self._indicators)

    def comparison(self, permutations: Sequence[np.ndarray], null_name: str) -> Comparison:
        """The agreement against that of permuted units."""
        samples = np.array([self.explained(places) for places in permutations])
        return Comparison(self.explained(None), samples, "greater", null_name, looks=(len(samples),))

    def _moved(self, places: Int[np.ndarray, " units"] | None) -> Float[np.ndarray, "units columns"]:
        return self._residuals if places is None else self._rest(self._residuals[places])


class _WithinGroups:
    """Takes covariates out of columns by regression, group by group; at most one covariate per four units."""

    def __init__(self, covariates: Float[np.ndarray, "units covariates"], groups: Int[np.ndarray, " units"]) -> None:
        self._parts = []
        for group in np.unique(groups):
            rows = np.flatnonzero(groups == group)
            design = covariates[rows][:, : max(1, len(rows) // 4)]
            left, sizes, _ = np.linalg.svd(
                design / np.maximum(np.linalg.norm(design, axis=0), 1e-12), full_matrices=False
            )
            self._parts.append((rows, left[:, sizes > 1e-8]))

    def __call__(self, values: Float[np.ndarray, "units columns"]) -> Float[np.ndarray, "units columns"]:
        rest = np.empty(values.shape)
        for rows, basis in self._parts:
            mine = values[rows]
            rest[rows] = mine - basis @ (basis.T @ mine)
        return rest


def _without_gaps(values: Float[np.ndarray, "units columns"], groups: Int[np.ndarray, " units"]) -> np.ndarray:
    """The mean of its group for a unit without weights in a direction; zero where the whole group has none."""
    filled = values.copy()
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        for column in range(values.shape[1]):
            known = values[rows, column][~np.isnan(values[rows, column])]
            mean = float(known.mean()) if len(known) else 0.0
            filled[rows, column] = np.nan_to_num(values[rows, column], nan=mean)
    return filled


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
