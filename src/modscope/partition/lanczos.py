"""Which are the largest eigenvalues of a symmetric operator, and their vectors?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from modscope.graph.operator import Array, as_numpy

ROUNDING = 1e-7  # of float32, relative to the largest eigenvalue
MAX_PRODUCTS = 2000
STEPS_BETWEEN_CHECKS = 5
# A mixture of two close eigenvectors passes for one, and the other is missed. So once all have converged, the search
# goes on from a random direction for some steps, and ends only if no eigenvalue has risen by more than this share.
PROBE_STEPS = 12
NEWS = 1e-3
CANCELLED = 0.5  # a square that shrinks more than this in orthogonalisation is done again (Daniel et al. 1976)


def largest_eigenpairs(
    multiply: Callable[[Array], Array],
    n_wanted: int,
    *,
    locked: Array,
    rng: np.random.Generator,
    tolerance: float,
) -> tuple[Float[np.ndarray, " wanted"], Array]:
    """The `n_wanted` largest eigenvalues, largest first, and their eigenvectors as rows, orthogonal to `locked`.

    Thick-restart Lanczos with full orthogonalisation, in float32, with numpy or torch as `locked` is.

    Args:
        multiply: The operator on a vector; its eigenvalues are >= 0.
        n_wanted: At most the operator's size minus the number of locked vectors.
        locked: Eigenvectors that are known already, orthonormal rows; they are kept out of the search.
        rng: Draws the start vector.
        tolerance: Largest residual, relative to the eigenvalue; the eigenvalue's own error is about its square.

    Source: Wu & Simon 2000, "Thick-restart Lanczos method for large symmetric eigenvalue problems", algorithm 3.
    """
    n_locked, size = int(locked.shape[0]), int(locked.shape[1])
    if n_wanted <= 0:
        return np.zeros(0), locked[:0]
    n_basis = min(size - n_locked, max(3 * n_wanted, n_wanted + 2 * PROBE_STEPS))
    search = _Search(multiply, locked, n_basis, rng)
    next_check = min(n_basis, 2 * PROBE_STEPS)
    found = np.zeros(n_wanted)
    for _ in range(MAX_PRODUCTS):
        search.step()
        if search.n_done < next_check:
            continue
        values, weights, residuals = search.ritz()
        is_converged = np.all(residuals[:n_wanted] <= tolerance * values[:n_wanted] + ROUNDING * values[0])
        is_unchanged = np.all(values[:n_wanted] - found <= NEWS * values[:n_wanted])
        if search.n_done == size - n_locked or (is_converged and is_unchanged):
            break
        if is_converged:
            found = values[:n_wanted]
            next_check = search.restart(values, weights, n_kept=n_wanted, go_on=False) + PROBE_STEPS
        elif search.n_done == n_basis:
            n_kept = n_wanted + (n_basis - n_wanted) // 3
            next_check = search.restart(values, weights, n_kept=n_kept, go_on=True) + STEPS_BETWEEN_CHECKS
        else:
            next_check = search.n_done + STEPS_BETWEEN_CHECKS
        next_check = min(next_check, n_basis)
    values, weights, _ = search.ritz()
    return values[:n_wanted], search.combined(weights[:, :n_wanted])


class _Search:
    """The growing basis of a Lanczos search, and the operator's projection on it."""

    def __init__(
        self, multiply: Callable[[Array], Array], locked: Array, n_basis: int, rng: np.random.Generator
    ) -> None:
        self.multiply, self.rng = multiply, rng
        self.n_locked, size = int(locked.shape[0]), int(locked.shape[1])
        n_rows = self.n_locked + n_basis + 1
        self.basis = _empty(n_rows, size, like=locked)
        self.basis[: self.n_locked] = locked
        self.projection = np.zeros((n_basis, n_basis))
        self.n_done = 0  # vectors that the operator was applied to
        self.beta = 0.0
        self.append_random()

    def append_random(self) -> None:
        """Make a random direction, orthogonal to the basis, the next vector."""
        row = self.n_locked + self.n_done
        vector = self._like(self.rng.standard_normal(self.basis.shape[1]))
        for _ in range(2):
            vector = vector - (self.basis[:row] @ vector) @ self.basis[:row]
        self.basis[row] = vector / float(vector @ vector) ** 0.5

    def step(self) -> None:
        """Apply the operator to the newest vector and make the next one of what is new in the product."""
        row = self.n_locked + self.n_done
        known = self.basis[: row + 1]
        product = self.multiply(self.basis[row])
        before = float(product @ product)
        coefficients = known @ product
        product = product - coefficients @ known
        after = float(product @ product)
        if after < CANCELLED * before:
            correction = known @ product
            product = product - correction @ known
            coefficients = coefficients + correction
            after = float(product @ product)
        new = as_numpy(coefficients)[self.n_locked :]
        self.projection[self.n_done, : self.n_done + 1] = new
        self.projection[: self.n_done + 1, self.n_done] = new
        self.n_done += 1
        self.beta = after**0.5
        if self.beta > ROUNDING:
            self.basis[row + 1] = product / self.beta
        elif self.n_done < len(self.projection):  # the basis is invariant: go on in a new direction
            self.beta = 0.0
            self.append_random()

    def ritz(self) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, "m m"], Float[np.ndarray, " m"]]:
        """Eigenvalues of the projection (largest first), their weights over the basis, and their residuals."""
        values, weights = np.linalg.eigh(self.projection[: self.n_done, : self.n_done])
        values, weights = values[::-1].copy(), weights[:, ::-1]
        return values, weights, self.beta * np.abs(weights[-1])

    def combined(self, weights: Float[np.ndarray, "m count"]) -> Array:
        """Vectors (rows) with the given weights over the basis."""
        rows = self.basis[self.n_locked : self.n_locked + self.n_done]
        vectors: Array = self._like(np.ascontiguousarray(weights.T)) @ rows
        return vectors

    def restart(
        self, values: Float[np.ndarray, " m"], weights: Float[np.ndarray, "m m"], *, n_kept: int, go_on: bool
    ) -> int:
        """Keep the best vectors, and go on in the newest direction or in a random one; how many were kept."""
        kept = self.combined(weights[:, :n_kept])
        self.basis[self.n_locked + n_kept] = self.basis[self.n_locked + self.n_done]
        self.basis[self.n_locked : self.n_locked + n_kept] = kept
        self.projection[:] = 0
        self.projection[range(n_kept), range(n_kept)] = values[:n_kept]
        self.n_done = n_kept
        if not go_on:
            self.append_random()
        return n_kept

    def _like(self, array: Float[np.ndarray, "..."]) -> Array:
        array = array.astype(np.float32)
        return torch.from_numpy(array).to(self.basis.device) if isinstance(self.basis, Tensor) else array


def _empty(n_rows: int, size: int, *, like: Array) -> Any:  # an Array; mypy lets nobody write to one of the two kinds
    return like.new_empty(n_rows, size) if isinstance(like, Tensor) else np.empty((n_rows, size), dtype=like.dtype)
