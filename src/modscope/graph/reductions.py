"""Which one number stands for a unit that has several entries: a channel with its map, packed gates, two halves?"""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from modscope.errors import GraphError
from modscope.graph.places import Layout, Place, Sight

Reduction: TypeAlias = Literal["mean", "spectral", "max_column"]


def values_at(place: Place, sight: Sight, size: int, reduction: Reduction) -> Float[Tensor, "examples positions units"]:
    """One value per example, position (token) and unit of the place."""
    layout = Layout(0, is_outer=True) if size == 1 else place.layout  # of one example it does not matter
    if layout is None or sight.tensor.ndim <= layout.axis or sight.tensor.shape[layout.axis] % size:
        raise GraphError(
            f"{size} examples do not fit what a layer sees, {tuple(sight.tensor.shape)}; give all batches in one form"
        )
    tensor, ids = layout.examples_first(sight, size)
    if sight.has_maps:
        maps = tensor.flatten(0, 1)  # (examples x positions, channels, *map)
        entries = _reduced(maps, reduction).unflatten(0, tuple(tensor.shape[:2]))
    else:
        along = [axis for axis in range(1, ids.ndim) if ids.shape[axis] > 1]
        others = [axis for axis in range(1, ids.ndim) if axis not in along]
        entries = tensor.permute(0, *others, *along).flatten(1 + len(others)) if along else tensor.unsqueeze(-1)
        entries = entries.reshape(size, -1, entries.shape[-1])
        ids = ids.permute(0, *others, *along)
    return _by_unit(entries.float(), ids.flatten().cpu().numpy(), place.units, reduction)


def _by_unit(
    entries: Float[Tensor, "examples positions entries"],
    ids: Int[np.ndarray, " entries"],
    units: Int[np.ndarray, " units"],
    reduction: Reduction,
) -> Float[Tensor, "examples positions units"]:
    """One value per unit; a flattened map has an entry for each point of it, in order."""
    kept = np.flatnonzero(np.isin(ids, units))
    order = kept[np.argsort(ids[kept], kind="stable")]
    chosen = entries if np.array_equal(order, np.arange(len(ids))) else entries[..., _index(order, entries)]
    counts = np.unique(ids[order], return_counts=True)[1]
    if counts.max() == 1:
        return chosen
    if counts.min() < counts.max():  # no map: a unit that stands in several entries
        owners = _index(np.repeat(np.arange(len(units)), counts), entries)
        sums = entries.new_zeros(*entries.shape[:2], len(units)).index_add_(2, owners, chosen)
        return sums / _index(counts, entries)
    n_each = int(counts[0])
    side = round(n_each**0.5)
    maps = chosen.unflatten(-1, (len(units), n_each)).flatten(0, 1)
    maps = maps.unflatten(-1, (side, -1) if side**2 == n_each else (n_each, 1))
    reduced: Tensor = _reduced(maps, reduction).unflatten(0, tuple(entries.shape[:2]))
    return reduced


def _index(numbers: Int[np.ndarray, " n"], beside: Tensor) -> Tensor:
    return torch.from_numpy(numbers).to(beside.device)


def _reduced(maps: Float[Tensor, "examples channels *map"], reduction: Reduction) -> Float[Tensor, "examples channels"]:
    """One number per map: its mean, its largest singular value, or the largest column sum of absolute values."""
    if reduction == "mean":
        return maps.flatten(2).mean(dim=2, dtype=torch.float32)
    matrices = maps.flatten(3) if maps.ndim > 4 else maps.reshape(*maps.shape[:3], -1)
    norms: Tensor = torch.linalg.matrix_norm(matrices.float(), ord=2 if reduction == "spectral" else 1)
    return norms
