"""Which layer is a block of a unit graph, and which block is a layer drawn anew?"""

from __future__ import annotations

from dataclasses import replace
from weakref import WeakKeyDictionary

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from modscope.graph.unit_graph import Block
from modscope.nulls.layers import Layer

_layer_of_block: WeakKeyDictionary[Block, Layer] = WeakKeyDictionary()  # read once for all null samples


def layer_of(block: Block) -> Layer:
    """The entries of a block."""
    if block not in _layer_of_block:
        _layer_of_block[block] = _entries_of_block(block)
    return _layer_of_block[block]


def block_with(
    block: Block, layer: Layer, positions: Int[np.ndarray, " entries"] | None, sizes: Float[np.ndarray, " entries"]
) -> Block:
    """The block with entries of these sizes at these positions of its layer (None = at all)."""
    if positions is None and layer.is_grid and isinstance(block.sizes, np.ndarray):
        return replace(block, sizes=sizes.astype(block.sizes.dtype, copy=False).reshape(layer.shape))
    rows, columns = layer.places_of(np.arange(layer.n_positions) if positions is None else positions)
    return block_at(block, rows, columns, sizes)


def block_at(
    block: Block,
    rows: Int[np.ndarray, " entries"],
    columns: Int[np.ndarray, " entries"],
    sizes: Float[np.ndarray, " entries"],
) -> Block:
    """The block with entries of these sizes in these rows and columns, stored as before, and no others."""
    shape, sizes = block.sizes.shape, sizes.astype(block.entries.dtype, copy=False)
    if isinstance(block.sizes, np.ndarray):
        dense = np.zeros(shape, dtype=sizes.dtype)
        dense[rows, columns] = sizes
        return replace(block, sizes=dense)
    return replace(block, sizes=sp.coo_array((sizes, (rows, columns)), shape=shape).tocsr())


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
