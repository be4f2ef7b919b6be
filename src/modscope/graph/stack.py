"""How are the operators of one graph, or of several at once, multiplied with vectors on a device?"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float
from torch import Tensor

from modscope.graph.operator import NormalizedOperator, Part, Positions, as_dense, places_of

# Up to this many entries products are in float64. Then their rounding errors never move a unit from one cluster to
# another, and a GPU, a batch of graphs and a single graph on the CPU end with the same clusters.
DOUBLE_ENTRIES = 1 << 23
# A half graph with so short a side is multiplied by itself in less time than Lanczos takes, in so many rows at once.
SHORT_SIDE, ROWS_AT_ONCE = 1024, 4096
Array: TypeAlias = np.ndarray | Tensor


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
        dense = [as_dense(part.sizes) for part in parts]
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


def _overlap(positions: Positions, first: int, last: int) -> tuple[Positions, Positions]:
    """Which positions, counted from `first`, lie before `last`, and where they stand in the list."""
    if isinstance(positions, slice):
        start, stop = max(positions.start, first), max(min(positions.stop, last), max(positions.start, first))
        return slice(start - first, stop - first), slice(start - positions.start, stop - positions.start)
    some = np.flatnonzero((positions >= first) & (positions < last))
    return positions[some] - first, some
