"""What does the normalised adjacency of a graph do to a vector?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from torch import Tensor

from modscope.graph.unit_graph import Block, UnitGraph

# A sparse matrix multiplies about this many times slower per entry than a dense one.
SPARSE_COST = 12
PARTLY_EMPTY = 0.7  # a matrix with a smaller share of it covered is multiplied part by part
# numpy and scipy on the CPU, torch on a GPU: all three know @, .T and slices, which is all that is asked of them
Array: TypeAlias = np.ndarray | Tensor
Matrix: TypeAlias = Array | sp.csr_array


@dataclass(frozen=True, eq=False)
class NormalizedOperator:
    """D^-1/2 A D^-1/2 in float32, for the units that have edges.

    Where the graph is bipartite only the half between the two colours is kept: `half`, with one row for each of the
    first `n_first` units and one column for each other unit. Otherwise `half` is the whole symmetric matrix and
    `n_first` is 0.
    """

    units: Int[np.ndarray, " kept"]  # unit ids; colour 0 before colour 1 where the graph is bipartite
    n_first: int
    half: Matrix
    root_degrees: Float[np.ndarray, " kept"]
    rectangles: tuple[tuple[slice, slice], ...] = ()  # where `half` is partly empty: the parts that are not

    @property
    def is_bipartite(self) -> bool:
        """Whether only the half graph is kept."""
        return self.n_first > 0

    @property
    def is_dense(self) -> bool:
        """Whether `half` holds every entry, zeros too."""
        return not sp.issparse(self.half) and getattr(self.half, "layout", torch.strided) == torch.strided

    def like(self, array: Float[np.ndarray, "..."]) -> Array:
        """The array in float32, where the operator is."""
        array = array.astype(np.float32, copy=False)
        return torch.from_numpy(array).to(self.half.device) if isinstance(self.half, Tensor) else array

    def on(self, device: torch.device | str) -> NormalizedOperator:
        """The same operator on a device."""
        return replace(self, half=_on_device(self.half, device)) if not isinstance(self.half, Tensor) else self

    def forward(self, x: Array) -> Array:
        """Half graph times x (a vector, or one per column): from the units of colour 1 to those of colour 0."""
        return _product(self.half, x, self.rectangles)

    def backward(self, y: Array) -> Array:
        """Transposed half graph times y: from the units of colour 0 to those of colour 1."""
        return _product(self.half.T, y, tuple((columns, rows) for rows, columns in self.rectangles))

    def multiply(self, x: Array) -> Array:
        """D^-1/2 A D^-1/2 x, for a vector or one per column."""
        if not self.is_bipartite:
            return self.forward(x)
        first, second = self.forward(x[self.n_first :]), self.backward(x[: self.n_first])
        if isinstance(first, Tensor) and isinstance(second, Tensor):
            return torch.cat([first, second])
        return np.concatenate([first, second])


def normalized_operator(graph: UnitGraph, *, device: torch.device | str = "cpu") -> NormalizedOperator:
    """The operator of the graph; isolated units have no place in it."""
    colours = graph.colours
    if colours is None:
        units = np.flatnonzero(graph.components >= 0)
        positions = _positions(graph.n_units, units)
        parts = [part for block in graph.blocks for part in _both_ways(block, positions)]
        shape, n_first = (len(units), len(units)), 0
        first = second = np.sqrt(graph.degrees[units])
    else:
        sides = np.flatnonzero(colours == 0), np.flatnonzero(colours == 1)
        units, n_first = np.concatenate(sides), len(sides[0])
        side_positions = [_positions(graph.n_units, side) for side in sides]
        parts = [part for block in graph.blocks for part in _across(block, side_positions)]
        shape = (n_first, len(sides[1]))
        first, second = (np.sqrt(graph.degrees[side]) for side in sides)
    half = _assembled(parts, shape, first, second)
    rectangles = _rectangles(parts, shape) if isinstance(half, np.ndarray) else ()
    return NormalizedOperator(units, n_first, half, np.sqrt(graph.degrees[units]), rectangles).on(device)


@dataclass(frozen=True, eq=False)
class _Part:
    """Sizes with their place in the matrix."""

    rows: Int[np.ndarray, " rows"]
    columns: Int[np.ndarray, " columns"]
    sizes: np.ndarray | sp.csr_array


def _positions(n_units: int, units: Int[np.ndarray, " kept"]) -> Int[np.ndarray, " units"]:
    positions = np.full(n_units, -1, dtype=np.int64)
    positions[units] = np.arange(len(units))
    return positions


def _across(block: Block, positions: list[Int[np.ndarray, " units"]]) -> Iterator[_Part]:
    """The edges of a block as entries (colour 0, colour 1), whichever way round the block has them."""
    sizes, targets, sources = block.sizes, block.targets, block.sources
    yield from _part(sizes, positions[0][targets], positions[1][sources])
    yield from _part(sizes.T, positions[0][sources], positions[1][targets])


def _both_ways(block: Block, positions: Int[np.ndarray, " units"]) -> Iterator[_Part]:
    """The edges of a block, and their mirror images."""
    sizes, targets, sources = block.sizes, positions[block.targets], positions[block.sources]
    yield from _part(sizes, targets, sources)
    yield from _part(sizes.T, sources, targets)


def _part(
    sizes: np.ndarray | sp.csr_array, rows: Int[np.ndarray, " rows"], columns: Int[np.ndarray, " columns"]
) -> Iterator[_Part]:
    row_kept, column_kept = np.flatnonzero(rows >= 0), np.flatnonzero(columns >= 0)
    if not len(row_kept) or not len(column_kept):
        return
    sizes = sizes if isinstance(sizes, np.ndarray) else sizes.tocsr()
    if len(row_kept) < len(rows):
        sizes = sizes[row_kept]
    if len(column_kept) < len(columns):
        sizes = sizes[:, column_kept]
    yield _Part(rows[row_kept], columns[column_kept], sizes)


def _assembled(
    parts: list[_Part],
    shape: tuple[int, int],
    first: Float[np.ndarray, " first"],
    second: Float[np.ndarray, " second"],
) -> np.ndarray | sp.csr_array:
    """The parts as one matrix, dense or sparse, whichever multiplies faster; divided by the roots of the degrees."""
    n_edges = sum(np.count_nonzero(part.sizes) if isinstance(part.sizes, np.ndarray) else part.sizes.nnz
                  for part in parts)  # fmt: skip
    row_factor, column_factor = (1 / first).astype(np.float32), (1 / second).astype(np.float32)
    if shape[0] * shape[1] <= SPARSE_COST * n_edges:
        dense = np.zeros(shape, dtype=np.float32)
        for part in parts:
            _add(dense, part)
        dense *= row_factor[:, None]
        dense *= column_factor
        return dense
    entries = [_entries(part) for part in parts]
    rows, columns, sizes = (np.concatenate(several) for several in zip(*entries, strict=True))
    sizes = sizes * row_factor[rows] * column_factor[columns]
    sparse = sp.coo_array((sizes, (rows, columns)), shape=shape).tocsr()
    sparse.sort_indices()
    return sparse


def _add(dense: Float[np.ndarray, "first second"], part: _Part) -> None:
    sizes = part.sizes if isinstance(part.sizes, np.ndarray) else part.sizes.toarray()
    rows, columns = _as_slice(part.rows), _as_slice(part.columns)
    if isinstance(rows, slice) and isinstance(columns, slice):
        dense[rows, columns] += sizes
    else:
        dense[np.ix_(part.rows, part.columns)] += sizes


def _rectangles(parts: list[_Part], shape: tuple[int, int]) -> tuple[tuple[slice, slice], ...]:
    """The parts' places, if each is one run of rows and columns, and they leave much of the matrix empty."""
    places = set()
    for part in parts:
        rows, columns = _as_slice(part.rows), _as_slice(part.columns)
        if not isinstance(rows, slice) or not isinstance(columns, slice):
            return ()
        places.add((rows.start, rows.stop, columns.start, columns.stop))
    area = sum((bottom - top) * (right - left) for top, bottom, left, right in places)
    if area > PARTLY_EMPTY * shape[0] * shape[1] or _overlap(places):
        return ()
    return tuple((slice(top, bottom), slice(left, right)) for top, bottom, left, right in sorted(places))


def _overlap(places: set[tuple[int, int, int, int]]) -> bool:
    return any(
        one[0] < other[1] and other[0] < one[1] and one[2] < other[3] and other[2] < one[3]
        for one, other in combinations(places, 2)
    )


def _product(matrix: Matrix, x: Array, rectangles: tuple[tuple[slice, slice], ...]) -> Array:
    whole: Any = matrix
    if not rectangles:
        product: Array = whole @ x
        return product
    shape = (whole.shape[0], *x.shape[1:])
    total: Any = x.new_zeros(shape) if isinstance(x, Tensor) else np.zeros(shape, dtype=x.dtype)
    for rows, columns in rectangles:
        total[rows] += whole[rows, columns] @ x[columns]
    summed: Array = total
    return summed


def _as_slice(positions: Int[np.ndarray, " n"]) -> slice | Int[np.ndarray, " n"]:
    is_run = bool(np.all(np.diff(positions) == 1))
    return slice(int(positions[0]), int(positions[-1]) + 1) if is_run else positions


def _entries(part: _Part) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if isinstance(part.sizes, np.ndarray):
        row, column = np.nonzero(part.sizes)
        sizes = part.sizes[row, column]
    else:
        coordinates = part.sizes.tocoo()
        row, column, sizes = coordinates.row, coordinates.col, coordinates.data
    return (
        part.rows[row].astype(np.int32),
        part.columns[column].astype(np.int32),
        sizes.astype(np.float32, copy=False),
    )


def _on_device(matrix: np.ndarray | sp.csr_array, device: torch.device | str) -> Matrix:
    if is_numpy_best(device):
        return matrix
    if isinstance(matrix, np.ndarray):
        return torch.from_numpy(matrix).to(device)
    index = (torch.from_numpy(matrix.indptr.astype(np.int64)), torch.from_numpy(matrix.indices.astype(np.int64)))
    return torch.sparse_csr_tensor(*index, torch.from_numpy(matrix.data), matrix.shape).to(device)


def is_numpy_best(device: torch.device | str) -> bool:
    """Whether numpy and scipy compute for this device: on the CPU they multiply faster than torch, by a third."""
    return torch.device(device).type == "cpu"


def as_numpy(array: Array) -> np.ndarray:
    """The array in this process's memory."""
    return array if isinstance(array, np.ndarray) else array.cpu().numpy()


def namespace_of(array: Any) -> Any:
    """The array library, numpy or torch, whichever the array is of; torch takes numpy's names for all that is asked of both."""
    return torch if isinstance(array, Tensor) else np
