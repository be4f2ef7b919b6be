"""What does a null model of weights see of a layer, and what does it answer?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float, Int

WIDEST = 1e30  # ratio of sizes up to which 32 bits can hold what the null models multiply and divide


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
    def precision(self) -> np.dtype[np.floating]:
        """Type to calculate with: 64 bits where weight decay has made some weights 1e-40 of others, else as stored."""
        low, high = (float(extreme) for extreme in (self.sizes.min(initial=1), self.sizes.max(initial=1)))
        return np.dtype(np.float64) if low * WIDEST < 1 or high > WIDEST or low * WIDEST < high else self.sizes.dtype

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
        sizes = self.sizes.astype(self.precision, copy=False)
        if self.is_full:
            return sizes.reshape(self.shape)
        return sp.coo_array((sizes, (self.rows, self.columns)), shape=self.shape).tocsr()


@dataclass(frozen=True, eq=False)
class Redrawn:
    """A layer's entries drawn anew: at `positions[i]` stands entry `origins[i]`, scaled to `sizes[i]`."""

    origins: Int[np.ndarray, " entries"]
    sizes: Float[np.ndarray, " entries"]
    positions: Int[np.ndarray, " entries"] | None  # None = where the layer's entries stood


LayerDraw: TypeAlias = Callable[[Layer, np.random.Generator], Redrawn]


def _pair_of(positions: Int[np.ndarray, " some"]) -> tuple[Int[np.ndarray, " some"], Int[np.ndarray, " some"]]:
    """The two units p < q of the pair that is numbered q (q - 1) / 2 + p."""
    high = ((1 + np.sqrt(1 + 8 * positions.astype(np.float64))) / 2).astype(np.int64)
    high -= high * (high - 1) // 2 > positions  # the root may be rounded up to the next unit
    return positions - high * (high - 1) // 2, high
