"""Which layer is a stored parameter, kernel by kernel?"""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from modscope.errors import StatisticsError
from modscope.nulls.layers import Layer
from modscope.wiring.wiring import Connection


@dataclass(frozen=True, eq=False)
class StoredKernels:
    """A stored parameter as a list of kernels: one weight each, or the window of a convolution."""

    layer: Layer
    kernels: Float[np.ndarray, "stored kernel"]
    places: Int[np.ndarray, " positions"]  # which stored kernels join two units: the positions of the layer
    axes: tuple[int, ...]  # order of the parameter's axes in `kernels`: those of units, then those of the window

    def places_of(self, positions: Int[np.ndarray, " entries"] | None) -> Int[np.ndarray, " entries"]:
        """Stored kernels at these positions of the layer (None = at all)."""
        return self.places if positions is None else self.places[positions]

    def as_weight(self, kernels: Float[np.ndarray, "stored kernel"], like: Tensor) -> Tensor:
        """The kernels in the shape, type and place of the stored parameter."""
        moved = kernels.reshape([like.shape[axis] for axis in self.axes]).transpose(np.argsort(self.axes))
        return torch.from_numpy(np.ascontiguousarray(moved)).to(like.device, like.dtype)


_kernels_of_connection: WeakKeyDictionary[Connection, StoredKernels] = WeakKeyDictionary()  # read once for all samples


def stored_kernels(connection: Connection) -> StoredKernels:
    """The weights of a connection, kernel by kernel.

    Raises:
        StatisticsError: If they are not there (on the meta device), or not all finite.
    """
    if connection not in _kernels_of_connection:
        _kernels_of_connection[connection] = _read_connection(connection)
    return _kernels_of_connection[connection]


def _read_connection(connection: Connection) -> StoredKernels:
    values = _readable(connection)
    targets, sources = (_with_axes(ids, values.ndim) for ids in (connection.targets, connection.sources))
    window = [axis for axis in range(values.ndim) if targets.shape[axis] == sources.shape[axis] == 1]
    outer = [axis for axis in range(values.ndim) if axis not in window]
    if len(outer) == 2 and targets.shape[outer[0]] == sources.shape[outer[1]] == 1:
        outer.reverse()  # stored as (in, out): rows are targets all the same
    axes = (*outer, *window)
    outer_shape = [values.shape[axis] for axis in outer]
    kernels = values.transpose(axes).reshape(int(np.prod(outer_shape, dtype=np.int64)), -1)
    # sources and targets have length 1 along the window, so that one unit each is left per kernel
    targets, sources = (ids.transpose(axes).reshape([ids.shape[axis] for axis in outer]) for ids in (targets, sources))
    layer, places = _layer_of_kernels(connection.parameter, targets, sources, outer_shape, kernels)
    return StoredKernels(layer, kernels, places, axes)


def _layer_of_kernels(
    name: str,
    targets: Int[np.ndarray, "..."],
    sources: Int[np.ndarray, "..."],
    outer_shape: list[int],
    kernels: Float[np.ndarray, "stored kernel"],
) -> tuple[Layer, Int[np.ndarray, " positions"]]:
    """The layer, and which stored kernels are its positions."""
    sizes, signs = np.abs(kernels).sum(axis=1), np.sign(kernels.sum(axis=1))
    if _is_grid(targets, sources, outer_shape):
        positions = None if sizes.all() else np.flatnonzero(sizes)
        at = slice(None) if positions is None else positions
        shape = (outer_shape[0], outer_shape[1])
        layer = Layer(name, shape, len(sizes), sizes[at], positions, None, None, signs[at], kernels.shape[1])
        return layer, np.arange(len(sizes))
    targets, sources = (np.broadcast_to(ids, outer_shape).reshape(-1) for ids in (targets, sources))
    places = np.flatnonzero((targets >= 0) & (sources >= 0))
    rows, columns = (np.unique(ids[places], return_inverse=True)[1].reshape(-1) for ids in (targets, sources))
    shape = (int(rows.max(initial=-1)) + 1, int(columns.max(initial=-1)) + 1)
    at = np.flatnonzero(sizes[places])
    present = places[at]
    return (
        Layer(name, shape, len(places), sizes[present], at, rows, columns, signs[present], kernels.shape[1]),
        places,
    )


def _is_grid(targets: np.ndarray, sources: np.ndarray, outer_shape: list[int]) -> bool:
    """Does each axis stand for the units of one side, each unit once?"""
    if len(outer_shape) != 2 or sorted((targets.shape, sources.shape)) != [(1, outer_shape[1]), (outer_shape[0], 1)]:
        return False
    return all(ids.min() >= 0 and len(np.unique(ids)) == ids.size for ids in (targets, sources))


def _readable(connection: Connection) -> Float[np.ndarray, "..."]:
    weight = connection.weight
    if weight.device.type == "meta":
        raise StatisticsError(f"the weights of '{connection.parameter}' are not there (meta device); load them first")
    values: np.ndarray = weight.detach().to("cpu", torch.float32).numpy()
    if not np.isfinite(values).all():
        raise StatisticsError(f"the weights of '{connection.parameter}' are not all finite; repair them first")
    return values


def _with_axes(ids: Int[np.ndarray, "..."], n_axes: int) -> Int[np.ndarray, "..."]:
    return ids.reshape((1,) * (n_axes - ids.ndim) + ids.shape)
