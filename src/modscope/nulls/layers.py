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
    is_triangle: bool = False  # both sides are the same units, and a position is a pair of them, row < column

    @property
    def n_entries(self) -> int:
        """Number of weights that are not zero."""
        return len(self.sizes)

    @property
    def is_full(self) -> bool:
        """Is every row joined to every column?"""
        return self.positions is None and self.is_grid

    @property
    def is_grid(self) -> bool:
        """Is there one position for each row and column?"""
        return self.row_of is None and not self.is_triangle

    @cached_property
    def rows(self) -> Int[np.ndarray, " entries"]:
        """Target of each entry."""
        return self.all_rows if self.positions is None else self.places_of(self.positions)[0]

    @cached_property
    def columns(self) -> Int[np.ndarray, " entries"]:
        """Source of each entry."""
        return self.all_columns if self.positions is None else self.places_of(self.positions)[1]

    @property
    def all_rows(self) -> Int[np.ndarray, " positions"]:
        """Target of each position."""
        return self.places_of(np.arange(self.n_positions))[0]

    @property
    def all_columns(self) -> Int[np.ndarray, " positions"]:
        """Source of each position."""
        return self.places_of(np.arange(self.n_positions))[1]

    def places_of(
        self, positions: Int[np.ndarray, " some"]
    ) -> tuple[Int[np.ndarray, " some"], Int[np.ndarray, " some"]]:
        """Row and column of these positions."""
        if self.is_triangle:
            return _pair_of(positions)
        if self.row_of is None or self.column_of is None:
            rows, columns = np.divmod(positions, self.shape[1])
            return rows, columns
        return self.row_of[positions], self.column_of[positions]

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
    if isinstance(block.sizes, np.ndarray) and not np.array_equal(block.targets, block.sources):
        flat = block.sizes.reshape(-1)
        positions = None if flat.all() else np.flatnonzero(flat)
        sizes = flat if positions is None else flat[positions]
        return Layer(block.name, (n_rows, n_columns), n_rows * n_columns, sizes, positions)
    rows, columns, sizes = _coordinates(block)
    if np.array_equal(block.targets, block.sources):
        return _layer_within_group(block, rows, columns, sizes)
    positions = rows * n_columns + columns
    order = np.argsort(positions)
    return Layer(block.name, (n_rows, n_columns), n_rows * n_columns, sizes[order], positions[order])


def _layer_within_group(
    block: Block,
    rows: Int[np.ndarray, " entries"],
    columns: Int[np.ndarray, " entries"],
    sizes: Float[np.ndarray, " entries"],
) -> Layer:
    """Entries between units of one group. No position is on the diagonal: an edge of a unit to itself does not count.

    One triangle, or a symmetric matrix (whose halves add up), holds one size for each pair of units. In any other
    matrix, as a recurrent layer's, the two sizes of a pair are two weights.
    """
    n_units = len(block.targets)
    is_above = rows < columns
    is_symmetric = not is_above.all() and is_above.any() and _is_symmetric(block)
    if is_symmetric or is_above.all() or not is_above.any():
        low, high = np.minimum(rows, columns), np.maximum(rows, columns)
        if is_symmetric:
            low, high, sizes = low[is_above], high[is_above], 2 * sizes[is_above]
        positions = high * (high - 1) // 2 + low
        order = np.argsort(positions)
        n_pairs = n_units * (n_units - 1) // 2
        at = None if len(positions) == n_pairs else positions[order]
        return Layer(block.name, (n_units, n_units), n_pairs, sizes[order], at, is_triangle=True)
    row_of, column_of = np.nonzero(~np.eye(n_units, dtype=bool))
    positions = rows * (n_units - 1) + columns - (columns > rows)
    order = np.argsort(positions)
    at = None if len(positions) == len(row_of) else positions[order]
    return Layer(block.name, (n_units, n_units), len(row_of), sizes[order], at, row_of, column_of)


def _coordinates(
    block: Block,
) -> tuple[Int[np.ndarray, " entries"], Int[np.ndarray, " entries"], Float[np.ndarray, " entries"]]:
    if isinstance(block.sizes, np.ndarray):
        rows, columns = np.nonzero(block.sizes)
        return rows, columns, block.sizes[rows, columns]
    entries = block.sizes.tocoo()
    is_there = entries.data != 0
    return entries.row[is_there].astype(np.int64), entries.col[is_there].astype(np.int64), entries.data[is_there]


def _is_symmetric(block: Block) -> bool:
    difference = block.sizes - block.sizes.T
    return not np.any(difference if isinstance(difference, np.ndarray) else difference.data)


def _pair_of(positions: Int[np.ndarray, " some"]) -> tuple[Int[np.ndarray, " some"], Int[np.ndarray, " some"]]:
    """The two units p < q of the pair that is numbered q (q - 1) / 2 + p."""
    high = ((1 + np.sqrt(1 + 8 * positions.astype(np.float64))) / 2).astype(np.int64)
    high -= high * (high - 1) // 2 > positions  # the root may be rounded up to the next unit
    return positions - high * (high - 1) // 2, high


def _redrawn_block(block: Block, draw: LayerDraw, rng: np.random.Generator) -> Block:
    layer = layer_of(block)
    if layer.n_entries == 0:
        return block
    redrawn = draw(layer, rng)
    positions = layer.positions if redrawn.positions is None else redrawn.positions
    return block_with(block, layer, positions, redrawn.sizes)


def block_with(
    block: Block, layer: Layer, positions: Int[np.ndarray, " entries"] | None, sizes: Float[np.ndarray, " entries"]
) -> Block:
    """The block with entries of these sizes at these positions of its layer (None = at all)."""
    sizes = sizes.astype(layer.sizes.dtype, copy=False)
    if positions is None and layer.is_grid and isinstance(block.sizes, np.ndarray):
        return replace(block, sizes=sizes.reshape(layer.shape))
    rows, columns = layer.places_of(np.arange(layer.n_positions) if positions is None else positions)
    if isinstance(block.sizes, np.ndarray):
        dense = np.zeros(layer.shape, dtype=layer.sizes.dtype)
        dense[rows, columns] = sizes
        return replace(block, sizes=dense)
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


def _with_axes(ids: Int[np.ndarray, "..."], n_axes: int) -> Int[np.ndarray, "..."]:
    return ids.reshape((1,) * (n_axes - ids.ndim) + ids.shape)
