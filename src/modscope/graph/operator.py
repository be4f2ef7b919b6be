"""What does the normalised adjacency of a graph do to vectors?"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from torch import Tensor

from modscope.graph.unit_graph import Block, UnitGraph

# A sparse matrix takes about so many times longer per entry than a dense one to multiply a dozen vectors.
SPARSE_COST = 5
# Up to this many entries products are in float64. Then their rounding errors never move a unit from one cluster to
# another, and a GPU, a batch of graphs and a single graph on the CPU end with the same clusters.
DOUBLE_ENTRIES = 1 << 23
# A half graph with so short a side is multiplied by itself in less time than Lanczos takes, in so many rows at once.
SHORT_SIDE, ROWS_AT_ONCE = 1024, 4096
Array: TypeAlias = np.ndarray | Tensor
Positions: TypeAlias = slice | Int[np.ndarray, " _"]  # rows and columns need not be equally many


@dataclass(frozen=True, eq=False)
class Part:
    """Edge sizes as they are, and their place in the matrix; a position stands once on each side."""

    rows: Positions
    columns: Positions
    sizes: Float[np.ndarray, "rows columns"] | sp.sparray  # float32; dense ones are views of the graph's own

    @property
    def turned(self) -> Part:
        """The same part of the transposed matrix."""
        return Part(self.columns, self.rows, self.sizes.T)

    @property
    def key(self) -> tuple[Any, ...]:
        """The same for parts that lie in the same place."""
        return tuple((side.start, side.stop) if isinstance(side, slice) else side.tobytes()
                     for side in (self.rows, self.columns))  # fmt: skip


@dataclass(frozen=True, eq=False)
class NormalizedOperator:
    """D^-1/2 A D^-1/2 for the units that have edges, A in the parts that it comes in.

    Where the graph is bipartite only the half between the two colours is kept, with one row for each of the first
    `n_first` units and one column for each other unit. Otherwise it is the whole symmetric matrix and `n_first` is 0.
    Dense parts are the graph's own weights: nothing is copied, and vectors are divided by the roots of the degrees
    instead of the weights.
    """

    units: Int[np.ndarray, " kept"]  # unit ids; colour 0 before colour 1 where the graph is bipartite
    n_first: int
    parts: tuple[Part, ...]
    root_degrees: Float[np.ndarray, " kept"]

    @property
    def is_bipartite(self) -> bool:
        """Whether only the half graph is kept."""
        return self.n_first > 0

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the half graph, or of the whole matrix."""
        n_units = len(self.units)
        return (self.n_first, n_units - self.n_first) if self.is_bipartite else (n_units, n_units)

    @property
    def n_entries(self) -> int:
        """Number of entries that the parts store, or would if they were dense and small."""
        return sum(int(np.prod(part.sizes.shape)) for part in self.parts)

    @property
    def is_dense(self) -> bool:
        """Whether no part is sparse."""
        return not any(sp.issparse(part.sizes) for part in self.parts)

    def linked(self, x: Float[np.ndarray, "kept columns"]) -> Float[np.ndarray, "kept columns"]:
        """A x, without the division by degrees."""
        total = np.zeros_like(x)
        for part in self.both_ways():
            total[part.rows] += part.sizes @ x[part.columns]
        return total

    def multiply(self, x: Float[np.ndarray, "kept columns"]) -> Float[np.ndarray, "kept columns"]:
        """D^-1/2 A D^-1/2 x."""
        roots = self.root_degrees[:, None].astype(x.dtype)
        product: np.ndarray = self.linked(x / roots) / roots
        return product

    def both_ways(self) -> Iterator[Part]:
        """Parts of the whole symmetric matrix, also where only half of it is kept."""
        for part in self.parts:
            if not self.is_bipartite:
                yield part
                continue
            across = Part(part.rows, _shifted(part.columns, self.n_first), part.sizes)
            yield across
            yield across.turned


def normalized_operator(graph: UnitGraph) -> NormalizedOperator:
    """The operator of the graph; isolated units have no place in it."""
    colours = graph.colours
    if colours is None:
        units, n_first = np.flatnonzero(graph.components >= 0), 0
        positions = _positions(graph.n_units, units)
        parts = [part for block in graph.blocks for part in _both_ways(block, positions)]
        shape = (len(units), len(units))
    else:
        sides = np.flatnonzero(colours == 0), np.flatnonzero(colours == 1)
        units, n_first = np.concatenate(sides), len(sides[0])
        side_positions = [_positions(graph.n_units, side) for side in sides]
        parts = [part for block in graph.blocks for part in _across(block, side_positions)]
        shape = (n_first, len(sides[1]))
    return NormalizedOperator(units, n_first, _gathered(parts, shape), np.sqrt(graph.degrees[units]))


@dataclass(frozen=True, eq=False)
class CompressedRows:
    """A large sparse matrix in this process's memory, multiplied by the MKL inside torch: twice as fast as by scipy."""

    tensor: Tensor

    @staticmethod
    def fits(matrix: sp.csr_array, device: torch.device) -> bool:
        """Whether there is an MKL that can multiply it."""
        return is_numpy_best(device) and torch.backends.mkl.is_available() and matrix.indices.dtype == np.int32

    @classmethod
    def of(cls, matrix: sp.csr_array | sp.csc_array) -> CompressedRows:
        """The matrix row by row."""
        return cls(_compressed(matrix.tocsr(), np.dtype(np.int32)))

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""
        return tuple(self.tensor.shape)

    def __matmul__(self, x: Float[np.ndarray, "n columns"]) -> Float[np.ndarray, "m columns"]:
        product: np.ndarray = (self.tensor @ torch.from_numpy(np.ascontiguousarray(x))).numpy()
        return product


class Stack:
    """The operators of several graphs of one shape on a device, each multiplied with vectors of its own.

    Vectors come as `(graphs, n, columns)`. With one operator, its parts may be sparse.
    """

    def __init__(self, operators: Sequence[NormalizedOperator], device: torch.device | str = "cpu") -> None:
        first = operators[0]
        self.shape, self.device = first.shape, torch.device(device)
        self.is_double = first.n_entries <= DOUBLE_ENTRIES
        self.dtype = np.float64 if self.is_double else np.float32
        self.places = [(part.rows, part.columns) for part in first.parts]
        sizes = [self._sizes([operator.parts[index] for operator in operators]) for index in range(len(first.parts))]
        self.forwards, self.backwards = [pair[0] for pair in sizes], [pair[1] for pair in sizes]
        factors = self.like(np.stack([1 / operator.root_degrees for operator in operators])[..., None])
        self.row_factors = factors[:, : self.shape[0]]
        self.column_factors = factors[:, first.n_first :]

    def like(self, array: Float[np.ndarray, "..."]) -> Any:
        """The array where the operators are, and as exact."""
        array = array.astype(self.dtype, copy=False)  # in its own order of memory
        return array if is_numpy_best(self.device) else torch.from_numpy(array).to(self.device)

    def forward(self, x: Any) -> Any:
        """Each (half) matrix times its x: from the units of colour 1 to those of colour 0."""
        scaled = x * self.column_factors
        return self._product(self.forwards, self.places, self.shape[0], scaled) * self.row_factors

    def backward(self, y: Any) -> Any:
        """Each transposed (half) matrix times its y: from the units of colour 0 to those of colour 1."""
        turned = [(columns, rows) for rows, columns in self.places]
        return self._product(self.backwards, turned, self.shape[1], y * self.row_factors) * self.column_factors

    def both(self, x: Any) -> Any:
        """Forward, and back."""
        return self.backward(self.forward(x))

    @property
    def has_cheap_squares(self) -> bool:
        """Whether the half matrices times themselves cost less than the products that a search makes with them."""
        is_dense = all(isinstance(part, np.ndarray) for part in self.forwards)
        return is_dense and not self.is_double and self.shape[1] <= SHORT_SIDE < self.shape[0]

    def squares(self) -> Float[np.ndarray, "graphs n n"]:
        """Each transposed (half) matrix times itself, where that is cheap."""
        n_graphs, n_columns = len(self.row_factors), self.shape[1]
        total = np.zeros((n_graphs, n_columns, n_columns))
        for first in range(0, self.shape[0], ROWS_AT_ONCE):
            factors = self.row_factors[:, first : first + ROWS_AT_ONCE]
            rows = np.zeros((n_graphs, factors.shape[1], n_columns), dtype=self.dtype)
            for part, (own, columns) in zip(self.forwards, self.places, strict=True):
                here, some = _overlap(own, first, first + factors.shape[1])
                where = (here, columns) if isinstance(columns, slice) else (places_of(here)[:, None], columns)
                rows[:, *where] += part[:, some]
            rows *= factors
            total += rows.swapaxes(1, 2) @ rows
        squares: np.ndarray = self.column_factors * total * self.column_factors.swapaxes(1, 2)
        return squares

    def _sizes(self, parts: Sequence[Part]) -> tuple[Any, Any]:
        """One part of all operators, and the same turned round."""
        if is_alone(parts[0].sizes, self.device):
            own = parts[0].sizes.astype(self.dtype, copy=False)
            if not self.is_double and CompressedRows.fits(own, self.device):
                return CompressedRows.of(own), CompressedRows.of(own.T)
            return _sparse_on(own, self.device), _sparse_on(own.T, self.device)
        dense = [_as_dense(part.sizes) for part in parts]
        stacked = self.like(dense[0][None] if len(dense) == 1 else np.stack(dense))
        return stacked, stacked.swapaxes(1, 2)

    @staticmethod
    def _product(parts: Sequence[Any], places: Sequence[tuple[Any, Any]], n_rows: int, x: Any) -> Any:
        shape = (x.shape[0], n_rows, x.shape[2])
        total = x.new_zeros(shape) if isinstance(x, Tensor) else np.zeros(shape, dtype=x.dtype)
        for part, (rows, columns) in zip(parts, places, strict=True):
            total[:, rows] += part @ x[:, columns] if len(part.shape) == 3 else (part @ x[0, columns])[None]
        return total


def is_alone(sizes: np.ndarray | sp.sparray, device: torch.device | str) -> bool:
    """Whether a matrix stays sparse, so that it cannot be stacked with others."""
    return sp.issparse(sizes) and (is_numpy_best(device) or sizes.shape[0] * sizes.shape[1] > DOUBLE_ENTRIES)


def is_numpy_best(device: torch.device | str) -> bool:
    """Whether numpy and scipy compute for this device: on the CPU they multiply faster than torch, by a third."""
    return torch.device(device).type == "cpu"


def as_numpy(array: Array) -> np.ndarray:
    """The array in this process's memory."""
    return array if isinstance(array, np.ndarray) else array.cpu().numpy()


def namespace_of(array: Any) -> Any:
    """The array library, numpy or torch, whichever the array is of; torch takes numpy's names for what both do here."""
    return torch if isinstance(array, Tensor) else np


def _sparse_on(matrix: sp.csr_array | sp.csc_array, device: torch.device) -> Any:
    if is_numpy_best(device):
        return matrix
    return _compressed(matrix.tocsr(), np.dtype(np.int64)).to(device)


def _compressed(rows: sp.csr_array, index_type: np.dtype[Any]) -> Tensor:
    """The matrix in torch, in the memory that it has already where its indices are of the type."""
    first, columns = (torch.from_numpy(index.astype(index_type, copy=False)) for index in (rows.indptr, rows.indices))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse", UserWarning)  # torch calls its sparse matrices a beta
        return torch.sparse_csr_tensor(first, columns, torch.from_numpy(rows.data), rows.shape)


def _positions(n_units: int, units: Int[np.ndarray, " kept"]) -> Int[np.ndarray, " units"]:
    positions = np.full(n_units, -1, dtype=np.int64)
    positions[units] = np.arange(len(units))
    return positions


def _across(block: Block, positions: list[Int[np.ndarray, " units"]]) -> Iterator[Part]:
    """The edges of a block as entries (colour 0, colour 1), whichever way round the block has them."""
    sizes, targets, sources = block.sizes, block.targets, block.sources
    yield from _part(sizes, positions[0][targets], positions[1][sources])
    yield from _part(sizes.T, positions[0][sources], positions[1][targets])


def _both_ways(block: Block, positions: Int[np.ndarray, " units"]) -> Iterator[Part]:
    """The edges of a block, and their mirror images."""
    sizes, targets, sources = block.sizes, positions[block.targets], positions[block.sources]
    yield from _part(sizes, targets, sources)
    yield from _part(sizes.T, sources, targets)


def _part(
    sizes: np.ndarray | sp.sparray, rows: Int[np.ndarray, " rows"], columns: Int[np.ndarray, " columns"]
) -> Iterator[Part]:
    row_kept, column_kept = np.flatnonzero(rows >= 0), np.flatnonzero(columns >= 0)
    if not len(row_kept) or not len(column_kept):
        return
    sizes = sizes if isinstance(sizes, np.ndarray) else sizes.tocsr()
    if len(row_kept) < len(rows):
        sizes, rows = sizes[row_kept], rows[row_kept]
    if len(column_kept) < len(columns):
        sizes, columns = sizes[:, column_kept], columns[column_kept]
    yield Part(_as_slice(rows), _as_slice(columns), sizes.astype(np.float32, copy=False))


def _gathered(parts: list[Part], shape: tuple[int, int]) -> tuple[Part, ...]:
    """The dense parts as they are, and all sparse ones as one matrix; each as what multiplies faster."""
    dense: list[Part] = []
    sparse: list[Part] = []
    for part in parts:
        n_edges = np.count_nonzero(part.sizes) if isinstance(part.sizes, np.ndarray) else part.sizes.nnz
        is_dense = part.sizes.shape[0] * part.sizes.shape[1] <= SPARSE_COST * n_edges
        (dense if is_dense else sparse).append(part)
    whole = [Part(part.rows, part.columns, _as_dense(part.sizes)) for part in dense]
    if sparse:
        rows, columns, sizes = (np.concatenate(several) for several in zip(*map(_entries, sparse), strict=True))
        matrix = sp.coo_array((sizes, (rows, columns)), shape=shape).tocsr()
        matrix.sort_indices()
        whole.append(Part(slice(0, shape[0]), slice(0, shape[1]), matrix))
    return tuple(whole)


def _as_dense(sizes: np.ndarray | sp.sparray) -> np.ndarray:
    return sizes if isinstance(sizes, np.ndarray) else sizes.toarray()


def _as_slice(positions: Int[np.ndarray, " n"]) -> Positions:
    is_run = positions[-1] - positions[0] == len(positions) - 1 and bool(np.all(positions[1:] > positions[:-1]))
    return slice(int(positions[0]), int(positions[-1]) + 1) if is_run else positions


def _shifted(positions: Positions, by: int) -> Positions:
    return slice(positions.start + by, positions.stop + by) if isinstance(positions, slice) else positions + by


def _overlap(positions: Positions, first: int, last: int) -> tuple[Positions, Positions]:
    """Which positions, counted from `first`, lie before `last`, and where they stand in the list."""
    if isinstance(positions, slice):
        start, stop = max(positions.start, first), max(min(positions.stop, last), max(positions.start, first))
        return slice(start - first, stop - first), slice(start - positions.start, stop - positions.start)
    some = np.flatnonzero((positions >= first) & (positions < last))
    return positions[some] - first, some


def places_of(positions: Positions) -> Int[np.ndarray, " n"]:
    """The positions one by one."""
    return np.arange(positions.start, positions.stop) if isinstance(positions, slice) else positions


def _entries(part: Part) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if isinstance(part.sizes, np.ndarray):
        row, column = np.nonzero(part.sizes)
        sizes = part.sizes[row, column]
    else:
        coordinates = part.sizes.tocoo()
        row, column, sizes = coordinates.row, coordinates.col, coordinates.data
    rows, columns = places_of(part.rows), places_of(part.columns)
    return rows[row].astype(np.int32), columns[column].astype(np.int32), sizes
