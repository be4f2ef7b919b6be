"""How much of each unit's weights does a mask keep, and how much of that do clusters explain?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from modscope.errors import MaskError
from modscope.wiring.wiring import Wiring


class AnyMask(Protocol):
    """A `Mask`, or a mapping: parameter name -> which entries are kept."""

    def __getitem__(self, name: str, /) -> Tensor:
        """Which entries of a parameter are kept."""

    def __iter__(self) -> Iterator[str]:
        """Names of the parameters."""


IN, OUT = 0, 1


@dataclass(frozen=True, eq=False)
class UnitWeights:
    """Per unit, for its incoming and its outgoing weights: how many, how large, how many a mask keeps.

    Weights that are zero (pruned) count nowhere: a mask that keeps or drops them says nothing.
    """

    n_weights: Float[np.ndarray, "units 2"]
    size: Float[np.ndarray, "units 2"]  # sum of |weight|
    n_kept: Float[np.ndarray, "tasks units 2"]  # mean over the seeds of a task

    @property
    def footprints(self) -> Float[np.ndarray, "tasks units 2"]:
        """Share of a unit's incoming, and of its outgoing, weights that a mask keeps; NaN for a unit without any."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.n_kept / self.n_weights)


def unit_weights(wiring: Wiring, masks: Mapping[str, Sequence[AnyMask]]) -> UnitWeights:
    """Counts over the weights that the masks cover.

    Args:
        wiring: Of the model that the masks are for.
        masks: Task -> its masks, one per seed. A weight that no mask names is left out; one that only some name is kept
            whole by the others.

    Raises:
        MaskError: If a mask does not fit the wiring's weights, or covers none of them.
    """
    named: set[str] = set()
    for task, seeds in masks.items():
        for mask in seeds:
            named |= _checked_names(wiring, task, mask)
    counts = np.zeros((wiring.n_units, 2))
    sizes = np.zeros((wiring.n_units, 2))
    kept = np.zeros((len(masks), wiring.n_units, 2))
    for connection in wiring.connections:
        if connection.kind != "weight" or connection.parameter not in named:
            continue
        weight = connection.weight.detach().abs().cpu()
        alive = weight > 0
        for side, ids in ((IN, connection.targets), (OUT, connection.sources)):
            counts[:, side] += _sums(alive, ids, wiring.n_units)
            sizes[:, side] += _sums(weight, ids, wiring.n_units)
            for index, seeds in enumerate(masks.values()):
                for mask in seeds:
                    chosen = mask[connection.parameter].cpu() & alive if connection.parameter in mask else alive
                    kept[index, :, side] += _sums(chosen, ids, wiring.n_units) / len(seeds)
    return UnitWeights(counts, sizes, kept)


def _sums(values: Tensor, ids: Int[np.ndarray, "..."], n_units: int) -> Float[np.ndarray, " units"]:
    """Sum of the values by unit; axes along which the ids do not vary are summed first."""
    axes = [axis for axis, size in enumerate(ids.shape) if size == 1]
    summed = values.sum(dim=axes, keepdim=True, dtype=torch.float64) if axes else values.double()
    flat, weights = ids.ravel(), summed.numpy().ravel()
    known = flat >= 0
    return np.bincount(flat[known], weights=weights[known], minlength=n_units).astype(np.float64)  # of none: int


def _checked_names(wiring: Wiring, task: str, mask: AnyMask) -> set[str]:
    """The weights of the wiring that a mask covers."""
    shapes = {connection.parameter: tuple(connection.weight.shape) for connection in wiring.connections}
    names = {name for name in mask if name in shapes}
    if not names:
        raise MaskError(
            f"the mask of task '{task}' covers none of the wiring's weights ({', '.join(list(shapes)[:3])}, ...); give "
            "masks and wiring of one model"
        )
    for name in sorted(names):
        if tuple(mask[name].shape) != shapes[name]:
            raise MaskError(
                f"the mask of task '{task}' has shape {tuple(mask[name].shape)} for '{name}', the weight {shapes[name]}"
            )
    return names


@dataclass(frozen=True, eq=False)
class ClusteredUnits:
    """The hidden units that are in a cluster: their weights, kept weights, group and cluster."""

    weights: UnitWeights
    units: Int[np.ndarray, " units"]
    groups: Int[np.ndarray, " units"]
    labels: Int[np.ndarray, " units"]
    n_clusters: int

    @cached_property
    def n_weights(self) -> Float[np.ndarray, " units"]:
        """Weights of each unit, in both directions."""
        return np.asarray(self.weights.n_weights[self.units].sum(axis=1))

    @cached_property
    def n_kept(self) -> Float[np.ndarray, "tasks units"]:
        """Those that each task's mask keeps."""
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
        """Which cluster each unit is in."""
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


class Agreement:
    """Clusters against footprints, with columns of covariates taken out of both within every group."""

    def __init__(self, table: ClusteredUnits, covariates: Float[np.ndarray, "units columns"]) -> None:
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
