"""Which are the largest eigenvalues of symmetric operators, and their vectors?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from modscope.graph.stack import Array, as_numpy, namespace_of

FIRST_CHECK = 5  # blocks in the basis before the first look at the residuals, and as many vectors as twice the wanted
MAX_BLOCKS, MAX_PER_WANTED = 8, 4  # the basis grows to so many blocks, and so many vectors for each wanted one
MAX_PRODUCTS = 600
NOTHING_NEW = 1e-2  # of a block's largest direction; what is smaller is orthogonalised again
ROUNDING = {
    np.dtype(np.float32): 1e-6,
    np.dtype(np.float64): 1e-13,
}  # of a residual, relative to the largest eigenvalue


def largest_eigenpairs(
    multiply: Callable[[Array], Array], n_wanted: int, *, locked: Array, start: Array, tolerance: float
) -> tuple[Float[np.ndarray, "graphs wanted"], Array]:
    """The `n_wanted` largest eigenvalues of each operator, largest first, and their eigenvectors as columns.

    Block Lanczos with thick restarts and full orthogonalisation, for operators of one size side by side, with numpy or
    torch as `locked` is. What is found for one operator does not depend on the others. A block as wide as the number
    of eigenvectors finds those of close eigenvalues together, and a product with many columns costs little more than
    one with a single column.

    Args:
        multiply: The operators on `(graphs, n, columns)`; their eigenvalues are >= 0.
        n_wanted: Number of eigenpairs.
        locked: Eigenvectors that are known already, `(graphs, n, known)`, orthonormal; kept out of the search.
        start: First block, `(graphs, n, width)`; n is at least its width times one more than `n_blocks`, and the locked
            ones.
        tolerance: Largest residual, relative to the eigenvalue; the eigenvalue's own error is about its square.

    Source: Golub & Underwood 1977 (blocks); Wu & Simon 2000, algorithm 3 (restarts).
    """
    search = _Search(multiply, locked, start, n_blocks(n_wanted, int(start.shape[2])))
    values = np.zeros((len(as_numpy(start[:, 0, 0])), n_wanted))
    vectors: Any = None
    is_open = np.ones(len(values), dtype=bool)
    for n_products in range(1, MAX_PRODUCTS + 1):
        search.step()
        if n_products < FIRST_CHECK or search.n_done < 2 * n_wanted:
            continue
        found, weights, is_converged = search.ritz(n_wanted, tolerance)
        is_closed = is_open & (is_converged | (n_products == MAX_PRODUCTS))
        if is_closed.any():
            values[is_closed] = found[is_closed, :n_wanted]
            vectors = _with(vectors, search.combined(weights[..., :n_wanted]), is_closed)
            is_open &= ~is_closed
        if not is_open.any():
            break
        if search.is_full:
            search.restart(found, weights, n_kept=n_wanted + (search.n_done - n_wanted) // 3)
    return values, vectors


def n_blocks(n_wanted: int, width: int) -> int:
    """How many blocks the basis grows to before it shrinks to the best vectors."""
    return max(MAX_BLOCKS, -(-MAX_PER_WANTED * n_wanted // width))


class _Search:
    """The growing bases of a Lanczos search, and the operators' projections on them."""

    def __init__(self, multiply: Callable[[Array], Array], locked: Any, start: Array, n_most: int) -> None:
        self.multiply = multiply
        n_graphs, size, self.width = (int(length) for length in start.shape)
        self.n_locked = int(locked.shape[2])
        self.basis: Any = _empty((n_graphs, size, self.n_locked + (n_most + 1) * self.width), like=start)
        self.basis[..., : self.n_locked] = locked
        self.projection = np.zeros((n_graphs, n_most * self.width, n_most * self.width))
        self.n_done = 0  # vectors that the operator was applied to
        self.beta = np.zeros((n_graphs, self.width, self.width))
        self.append(_without(start, locked))

    @property
    def is_full(self) -> bool:
        """Whether there is room for no further block."""
        return self.n_done + self.width > self.projection.shape[1]

    def append(self, block: Array) -> None:
        """Make what is new in a block the next one, orthonormal; the block has been cleaned of the basis once."""
        row = self.n_locked + self.n_done
        known = self.basis[..., :row]
        block = _without(block, known)
        new, self.beta, is_thin = _orthonormal(block)
        if is_thin:
            linalg = namespace_of(block).linalg
            new, first = linalg.qr(block)
            # What was not new are directions of rounding errors; cleaned again, they are as good as random ones.
            new, second = linalg.qr(_without(_without(new, known), known))
            self.beta = as_numpy(second) @ as_numpy(first)
        self.basis[..., row : row + self.width] = new

    def step(self) -> None:
        """Apply the operators to the newest block, and append what is new in the product."""
        first, last = self.n_done, self.n_done + self.width
        product = self.multiply(self.basis[..., self.n_locked + first : self.n_locked + last])
        known: Any = self.basis[..., : self.n_locked + last]
        weights = known.swapaxes(1, 2) @ product
        column = as_numpy(weights[:, self.n_locked :])
        self.projection[:, :last, first:last] = column
        self.projection[:, first:last, :last] = column.swapaxes(1, 2)
        self.n_done = last
        self.append(product - known @ weights)

    def ritz(
        self, n_wanted: int, tolerance: float
    ) -> tuple[Float[np.ndarray, "graphs m"], Float[np.ndarray, "graphs m m"], Bool[np.ndarray, " graphs"]]:
        """The projections' eigenvalues (largest first), their weights over the bases; whether the wanted ones hold."""
        values, weights = np.linalg.eigh(self.projection[:, : self.n_done, : self.n_done])
        values, weights = values[:, ::-1].copy(), weights[..., ::-1]
        residuals = np.linalg.norm(self.beta @ weights[:, -self.width :, :n_wanted], axis=1)
        rounding = ROUNDING[as_numpy(self.basis[:1, :1, :1]).dtype]
        allowed = tolerance * np.abs(values[:, :n_wanted]) + rounding * np.abs(values[:, :1])
        return values, weights, np.all(residuals <= allowed, axis=1)

    def combined(self, weights: Float[np.ndarray, "graphs m count"]) -> Array:
        """Vectors (columns) with the given weights over the bases."""
        rows = self.basis[..., self.n_locked : self.n_locked + self.n_done]
        vectors: Array = rows @ _like(np.ascontiguousarray(weights), rows)
        return vectors

    def restart(
        self, values: Float[np.ndarray, "graphs m"], weights: Float[np.ndarray, "graphs m m"], *, n_kept: int
    ) -> None:
        """Keep the best vectors, and go on with the newest block."""
        newest = self.n_locked + self.n_done
        best = self.combined(weights[..., :n_kept])
        next_block = self.basis[..., newest : newest + self.width]
        first = self.n_locked + n_kept
        self.basis[..., first : first + self.width] = next_block
        self.basis[..., self.n_locked : first] = best
        self.projection[:] = 0
        self.projection[:, range(n_kept), range(n_kept)] = values[:, :n_kept]
        self.n_done = n_kept


def _without(block: Any, known: Any) -> Any:
    """What of the block is orthogonal to the known vectors; twice, if little of it is."""
    return block - known @ (known.swapaxes(1, 2) @ block)


def _orthonormal(block: Any) -> tuple[Any, Float[np.ndarray, "graphs width width"], bool]:
    """Orthonormal columns, what makes them the block again, and whether some of them are next to nothing in it.

    They come from the columns' products with each other, in a tenth of the time of a QR decomposition. That loses
    digits where a column is next to nothing.

    Source: Stathopoulos & Wu 2002, section 3.
    """
    exact = block.double() if isinstance(block, Tensor) else block.astype(np.float64, copy=False)
    squares, turn = np.linalg.eigh(as_numpy(exact.swapaxes(1, 2) @ exact))
    sizes = np.sqrt(np.maximum(squares, np.finfo(np.float64).tiny))[:, None]
    is_thin = bool(np.any(sizes.min(axis=2) < NOTHING_NEW * sizes.max(axis=2)))
    return block @ _like(turn / sizes, block), (turn * sizes).swapaxes(1, 2), is_thin


def _with(vectors: Any, new: Any, is_new: Bool[np.ndarray, " graphs"]) -> Any:
    """The vectors, with those of some graphs replaced."""
    if vectors is None:
        return new
    vectors[is_new] = new[is_new]
    return vectors


def _empty(shape: tuple[int, ...], *, like: Array) -> Array:
    return like.new_empty(shape) if isinstance(like, Tensor) else np.empty(shape, dtype=like.dtype)


def _like(array: Float[np.ndarray, "..."], other: Array) -> Any:
    if isinstance(other, Tensor):
        return torch.from_numpy(array).to(other)
    return array.astype(other.dtype, copy=False)
