"""How much of each unit's weights does a mask keep?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
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
