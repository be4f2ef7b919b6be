"""What does the normalised adjacency of a graph do to vectors?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

from modscope.graph.unit_graph import Block, UnitGraph

# A sparse matrix takes about so many times longer per entry than a dense one to multiply a dozen vectors.
SPARSE_COST = 5
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
    whole = [Part(part.rows, part.columns, as_dense(part.sizes)) for part in dense]
    if sparse:
        rows, columns, sizes = (np.concatenate(several) for several in zip(*map(_entries, sparse), strict=True))
        matrix = sp.coo_array((sizes, (rows, columns)), shape=shape).tocsr()
        matrix.sort_indices()
        whole.append(Part(slice(0, shape[0]), slice(0, shape[1]), matrix))
    return tuple(whole)


def as_dense(sizes: np.ndarray | sp.sparray) -> np.ndarray:
    """The matrix with its zeros."""
    return sizes if isinstance(sizes, np.ndarray) else sizes.toarray()


def _as_slice(positions: Int[np.ndarray, " n"]) -> Positions:
    is_run = positions[-1] - positions[0] == len(positions) - 1 and bool(np.all(positions[1:] > positions[:-1]))
    return slice(int(positions[0]), int(positions[-1]) + 1) if is_run else positions


def _shifted(positions: Positions, by: int) -> Positions:
    return slice(positions.start + by, positions.stop + by) if isinstance(positions, slice) else positions + by


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
