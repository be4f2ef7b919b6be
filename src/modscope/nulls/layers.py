"""What does a null model of weights see of a layer, and how does its draw get back into a wiring or a graph?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias
from weakref import WeakKeyDictionary

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from torch import Tensor

from modscope.errors import StatisticsError
from modscope.graph.unit_graph import Block, UnitGraph
from modscope.wiring.wiring import Connection, Wiring


@dataclass(frozen=True, eq=False)
class Layer:
    """The weights of one layer that are not zero. An entry is one weight, or one whole kernel of a convolution."""

    name: str
    shape: tuple[int, int]  # rows (targets) x columns (sources)
    n_positions: int  # where an entry could stand; more than there are entries if the layer is sparse
    sizes: Float[np.ndarray, " entries"]  # > 0
    positions: Int[np.ndarray, " entries"] | None  # ascending; None = the whole grid of rows x columns, row by row
    row_of: Int[np.ndarray, " positions"] | None = None  # None: position // columns, position % columns
    column_of: Int[np.ndarray, " positions"] | None = None
    signs: Float[np.ndarray, " entries"] | None = None  # -1, 0 (a kernel that sums to zero) or 1; None = not known
    kernel_size: int = 1

    @property
    def n_entries(self) -> int:
        """Number of weights that are not zero."""
        return len(self.sizes)

    @property
    def is_full(self) -> bool:
        """Is every row joined to every column?"""
        return self.positions is None

    @property
    def is_grid(self) -> bool:
        """Is there one position for each row and column?"""
        return self.row_of is None

    @cached_property
    def rows(self) -> Int[np.ndarray, " entries"]:
        """Target of each entry."""
        return _at(self.all_rows, self.positions)

    @cached_property
    def columns(self) -> Int[np.ndarray, " entries"]:
        """Source of each entry."""
        return _at(self.all_columns, self.positions)

    @property
    def all_rows(self) -> Int[np.ndarray, " positions"]:
        """Target of each position."""
        return np.arange(self.n_positions) // self.shape[1] if self.row_of is None else self.row_of

    @property
    def all_columns(self) -> Int[np.ndarray, " positions"]:
        """Source of each position."""
        return np.arange(self.n_positions) % self.shape[1] if self.column_of is None else self.column_of

    @property
    def matrix(self) -> Float[np.ndarray, "rows columns"] | sp.csr_array:
        """Sizes as a matrix to multiply with; entries of one row and column stand beside each other."""
        if self.is_full:
            return self.sizes.reshape(self.shape)
        return sp.coo_array((self.sizes, (self.rows, self.columns)), shape=self.shape).tocsr()


@dataclass(frozen=True, eq=False)
class Redrawn:
    """A layer's entries drawn anew: at `positions[i]` stands entry `origins[i]`, scaled to `sizes[i]`."""

    origins: Int[np.ndarray, " entries"]
    sizes: Float[np.ndarray, " entries"]
    positions: Int[np.ndarray, " entries"] | None  # None = where the layer's entries stood


LayerDraw: TypeAlias = Callable[[Layer, np.random.Generator], Redrawn]

# What is computed once for all null samples: the entries of a block or connection, and, in a Layer, its fitted scales.
_layer_of_block: WeakKeyDictionary[Block, Layer] = WeakKeyDictionary()
_kernels_of_connection: WeakKeyDictionary[Connection, StoredKernels] = WeakKeyDictionary()


def redraw_layers(subject: Wiring | UnitGraph, draw: LayerDraw, rng: np.random.Generator) -> Wiring | UnitGraph:
    """The subject with every layer drawn anew. Shared parameters are drawn once; the subject stays as it is.

    Raises:
        StatisticsError: If a weight is not there (on the meta device) or not finite.
    """
    if isinstance(subject, UnitGraph):
        return replace(subject, blocks=tuple(_redrawn_block(block, draw, rng) for block in subject.blocks))
    return replace_weights(subject, lambda connection: _redrawn_weight(connection, draw, rng))


def replace_weights(wiring: Wiring, new_weight: Callable[[Connection], Tensor]) -> Wiring:
    """The wiring with other weights; a parameter that several connections share is made once."""
    weights: dict[str, Tensor] = {}
    connections = []
    for connection in wiring.connections:
        if connection.kind == "weight":
            if connection.parameter not in weights:
                weights[connection.parameter] = new_weight(connection)
            connections.append(replace(connection, weight=weights[connection.parameter]))
        else:
            connections.append(connection)
    return replace(wiring, connections=tuple(connections))


def layer_of(block: Block) -> Layer:
    """The entries of a block."""
    if block not in _layer_of_block:
        _layer_of_block[block] = _entries_of_block(block)
    return _layer_of_block[block]


def _entries_of_block(block: Block) -> Layer:
    n_rows, n_columns = block.sizes.shape
    if isinstance(block.sizes, np.ndarray):
        flat = block.sizes.reshape(-1)
        positions = None if flat.all() else np.flatnonzero(flat)
        sizes = flat if positions is None else flat[positions]
    else:
        entries = block.sizes.tocoo()
        positions = entries.row.astype(np.int64) * n_columns + entries.col
        order = np.argsort(positions)
        order = order[entries.data[order] != 0]
        positions, sizes = positions[order], entries.data[order]
    return Layer(block.name, (n_rows, n_columns), n_rows * n_columns, sizes, positions)


def _redrawn_block(block: Block, draw: LayerDraw, rng: np.random.Generator) -> Block:
    layer = layer_of(block)
    if layer.n_entries == 0:
        return block
    redrawn = draw(layer, rng)
    positions = layer.positions if redrawn.positions is None else redrawn.positions
    sizes = redrawn.sizes.astype(layer.sizes.dtype, copy=False)
    if positions is None:
        return replace(block, sizes=sizes.reshape(layer.shape))
    if isinstance(block.sizes, np.ndarray):
        dense = np.zeros(layer.n_positions, dtype=layer.sizes.dtype)
        dense[positions] = sizes
        return replace(block, sizes=dense.reshape(layer.shape))
    rows, columns = np.divmod(positions, layer.shape[1])
    return replace(block, sizes=sp.coo_array((sizes, (rows, columns)), shape=layer.shape).tocsr())


def _redrawn_weight(connection: Connection, draw: LayerDraw, rng: np.random.Generator) -> Tensor:
    stored = stored_kernels(connection)
    layer = stored.layer
    if layer.n_entries == 0:
        return connection.weight
    redrawn = draw(layer, rng)
    old_places = stored.places_of(layer.positions)
    factors = (redrawn.sizes / layer.sizes[redrawn.origins]).astype(np.float32)
    drawn = stored.kernels[old_places][redrawn.origins] * factors[:, None]
    kernels = stored.kernels.copy()
    kernels[old_places] = 0.0
    kernels[old_places if redrawn.positions is None else stored.places_of(redrawn.positions)] = drawn
    return stored.as_weight(kernels, connection.weight)


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


def _at(values: Int[np.ndarray, " positions"], at: Int[np.ndarray, " entries"] | None) -> Int[np.ndarray, " entries"]:
    return values if at is None else values[at]


def _with_axes(ids: Int[np.ndarray, "..."], n_axes: int) -> Int[np.ndarray, "..."]:
    return ids.reshape((1,) * (n_axes - ids.ndim) + ids.shape)
