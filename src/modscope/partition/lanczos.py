"""Which are the largest eigenvalues of a symmetric operator, and their vectors?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

TOLERANCE = 3e-4  # residual, relative to the eigenvalue
ROUNDING = 1e-7  # of float32, relative to the largest eigenvalue
MAX_PRODUCTS = 2000
MIN_STEPS = 20  # an early check can take the mixture of two close eigenvectors for one, and miss the other
STEPS_BETWEEN_CHECKS = 5
CANCELLED = 0.7  # a vector that keeps less of its length than this is orthogonalised again (Daniel et al. 1976)


def largest_eigenpairs(
    multiply: Callable[[Float[Tensor, "n 1"]], Float[Tensor, "n 1"]],
    size: int,
    n_wanted: int,
    *,
    locked: Float[Tensor, "n known"],
    rng: np.random.Generator,
    tolerance: float = TOLERANCE,
) -> tuple[Float[Tensor, " wanted"], Float[Tensor, "n wanted"]]:
    """The `n_wanted` largest eigenvalues, largest first, and their eigenvectors, orthogonal to `locked`.

    Thick-restart Lanczos with full orthogonalisation, in float32 on the device of `locked`.

    Args:
        multiply: The operator; its eigenvalues are >= 0.
        size: Number of rows of the operator.
        n_wanted: At most size minus the number of locked vectors.
        locked: Eigenvectors that are known already, orthonormal; they are kept out of the search.
        rng: Draws the start vector.
        tolerance: Largest residual, relative to the eigenvalue; the eigenvalue's own error is about its square.

    Source: Wu & Simon 2000, "Thick-restart Lanczos method for large symmetric eigenvalue problems", algorithm 3.
    """
    if n_wanted <= 0:
        return locked.new_zeros(0), locked.new_zeros(size, 0)
    n_locked = locked.shape[1]
    n_basis = min(size - n_locked, max(3 * n_wanted, n_wanted + 24))
    basis = locked.new_zeros(n_locked + n_basis + 1, size)  # one vector per row
    basis[:n_locked] = locked.T
    first_check = max(MIN_STEPS, 2 * n_wanted)
    search = _Search(multiply, basis, n_locked, rng)
    search.append(search.random_vector())
    for _ in range(MAX_PRODUCTS):
        search.step()
        is_full = search.n_done == n_basis
        if not is_full and (search.n_done < first_check or search.n_done % STEPS_BETWEEN_CHECKS):
            continue
        values, weights, residuals = search.ritz()
        is_converged = np.all(residuals[:n_wanted] <= tolerance * values[:n_wanted] + ROUNDING * values[0])
        if is_converged or search.n_done == size - n_locked:
            break
        if is_full:
            search.restart(values, weights, n_kept=n_wanted + (n_basis - n_wanted) // 3)
    values, weights, _ = search.ritz()
    vectors = search.combined(weights[:, :n_wanted]).T
    return torch.from_numpy(values[:n_wanted]).to(vectors), vectors


class _Search:
    """The growing basis of a Lanczos search, and the operator's projection on it."""

    def __init__(
        self,
        multiply: Callable[[Tensor], Tensor],
        basis: Float[Tensor, "rows n"],
        n_locked: int,
        rng: np.random.Generator,
    ) -> None:
        self.multiply, self.basis, self.n_locked, self.rng = multiply, basis, n_locked, rng
        n_basis = len(basis) - n_locked - 1
        self.projection = np.zeros((n_basis, n_basis))
        self.n_done = 0  # vectors that the operator was applied to
        self.beta = 0.0

    def random_vector(self) -> Float[Tensor, " n"]:
        return torch.from_numpy(self.rng.standard_normal(self.basis.shape[1], dtype=np.float32)).to(self.basis)

    def append(self, vector: Float[Tensor, " n"]) -> None:
        """Normalise a vector orthogonal to the basis, and make it the next."""
        row = self.n_locked + self.n_done
        for _ in range(2):
            vector = vector - self.basis[:row].T @ (self.basis[:row] @ vector)
        self.basis[row] = vector / vector.norm()

    def step(self) -> None:
        """Apply the operator to the newest vector and make the next one of what is new in the product."""
        row = self.n_locked + self.n_done
        product = self.multiply(self.basis[row][:, None])[:, 0]
        known = self.basis[: row + 1]
        before = product.norm()
        coefficients = known @ product
        product = product - known.T @ coefficients
        self.beta = float(product.norm())
        if self.beta < CANCELLED * float(before):
            correction = known @ product
            product -= known.T @ correction
            coefficients += correction
            self.beta = float(product.norm())
        new = coefficients[self.n_locked :].double().cpu().numpy()
        self.projection[self.n_done, : self.n_done + 1] = new
        self.projection[: self.n_done + 1, self.n_done] = new
        self.n_done += 1
        if self.beta > 1e-6:
            self.basis[row + 1] = product / self.beta
        elif self.n_done < len(self.projection):  # the basis is invariant: go on in a new direction
            self.beta = 0.0
            self.append(self.random_vector())

    def ritz(self) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, "m m"], Float[np.ndarray, " m"]]:
        """Eigenvalues of the projection (largest first), their weights over the basis, and their residuals."""
        values, weights = np.linalg.eigh(self.projection[: self.n_done, : self.n_done])
        values, weights = values[::-1].copy(), weights[:, ::-1]
        return values, weights, self.beta * np.abs(weights[-1])

    def combined(self, weights: Float[np.ndarray, "m count"]) -> Float[Tensor, "count n"]:
        rows = self.basis[self.n_locked : self.n_locked + self.n_done]
        return torch.from_numpy(np.ascontiguousarray(weights.T)).to(rows) @ rows

    def restart(self, values: Float[np.ndarray, " m"], weights: Float[np.ndarray, "m m"], *, n_kept: int) -> None:
        """Keep the best vectors and the newest direction."""
        kept = self.combined(weights[:, :n_kept])
        newest = self.basis[self.n_locked + self.n_done].clone()
        self.basis[self.n_locked : self.n_locked + n_kept] = kept
        self.basis[self.n_locked + n_kept] = newest
        self.projection[:] = 0
        self.projection[range(n_kept), range(n_kept)] = values[:n_kept]
        self.n_done = n_kept
