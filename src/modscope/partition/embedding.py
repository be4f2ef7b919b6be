"""Where do the units lie in the space of the graph's slowest vibrations?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from modscope.graph.operator import NormalizedOperator
from modscope.partition.lanczos import largest_eigenpairs

SMALL_SIDE = 256  # up to this many units an eigendecomposition beats Lanczos
GRAM_SIDE, GRAM_ENTRIES = 1024, 1 << 24  # a half graph this narrow and large is worth one pass for its Gram matrix
MIN_SINGULAR_VALUE = 1e-4


@dataclass(frozen=True, eq=False)
class Embedding:
    """Eigenvectors of D^-1/2 A D^-1/2 with the largest eigenvalues, largest first; 1 - eigenvalue is the Laplacian's.

    There can be fewer than asked for: a half graph has no more of them with eigenvalue > 0 than its short side units.
    """

    eigenvalues: Float[np.ndarray, " dimensions"]
    vectors: Float[np.ndarray, "kept dimensions"]


def embed(
    operator: NormalizedOperator, n_dimensions: int, components: Int[np.ndarray, " kept"], rng: np.random.Generator
) -> Embedding:
    """The leading eigenvectors: exact where that is cheap, by Lanczos otherwise.

    A layered network's graph is bipartite; its eigenvectors are then the singular vectors of the half graph, which
    has half the units and needs no inverse. The eigenvectors of eigenvalue 1 are known beforehand, one for each
    component (the root of the degrees), so they are put in rather than searched for.

    Args:
        operator: The normalised adjacency.
        n_dimensions: Number of eigenvectors, those of the components included.
        components: Component of each unit that the operator keeps.
        rng: Start vector of Lanczos.
    """
    n_components = int(components.max()) + 1
    known = np.zeros((len(components), n_components), dtype=np.float32)
    known[np.arange(len(components)), components] = operator.root_degrees
    known /= np.linalg.norm(known, axis=0)
    n_wanted = n_dimensions - n_components
    if n_wanted <= 0:
        return Embedding(np.ones(n_components), known)
    search = _half_pairs if operator.is_bipartite else _full_pairs
    values, vectors = search(operator, n_wanted, known, rng)
    return Embedding(np.concatenate([np.ones(n_components), values]), np.concatenate([known, vectors], axis=1))


def _half_pairs(
    operator: NormalizedOperator, n_wanted: int, known: Float[np.ndarray, "kept components"], rng: np.random.Generator
) -> tuple[Float[np.ndarray, " wanted"], Float[np.ndarray, "kept wanted"]]:
    """Eigenpairs from the singular vectors of the half graph; the known ones are left out."""
    short_side = np.ascontiguousarray(known[operator.n_first :]) * np.float32(np.sqrt(2))
    n_short = len(short_side)
    n_wanted = min(n_wanted, n_short - known.shape[1])
    locked = torch.from_numpy(short_side).to(_device(operator))
    if n_short <= SMALL_SIDE or (n_short <= GRAM_SIDE and _n_entries(operator) >= GRAM_ENTRIES):
        squares, right = _exact(_gram(operator), n_wanted, locked)
    else:
        squares, right = largest_eigenpairs(
            lambda x: operator.backward(operator.forward(x)), n_short, n_wanted, locked=locked, rng=rng
        )
    values = squares.clamp(min=0).sqrt()
    is_nonzero = values > MIN_SINGULAR_VALUE  # others have no partner on the long side
    values, right = values[is_nonzero], right[:, is_nonzero]
    left = operator.forward(right.contiguous()) / values
    vectors = torch.cat([left, right]) / np.sqrt(2)
    return values.cpu().numpy().astype(np.float64), vectors.cpu().numpy()


def _full_pairs(
    operator: NormalizedOperator, n_wanted: int, known: Float[np.ndarray, "kept components"], rng: np.random.Generator
) -> tuple[Float[np.ndarray, " wanted"], Float[np.ndarray, "kept wanted"]]:
    n_units = len(operator.units)
    n_wanted = min(n_wanted, n_units - known.shape[1])
    locked = torch.from_numpy(known).to(_device(operator))
    if n_units <= SMALL_SIDE:
        shifted = (torch.eye(n_units, device=_device(operator)) + operator.matmat(torch.eye(n_units))) / 2
        halves, vectors = _exact(shifted, n_wanted, locked)
    else:
        # (1 + N) / 2 has its eigenvalues in [0, 1]: the largest are also the largest in absolute value
        halves, vectors = largest_eigenpairs(
            lambda x: (x + operator.matmat(x)) / 2, n_units, n_wanted, locked=locked, rng=rng
        )
    return (2 * halves - 1).cpu().numpy().astype(np.float64), vectors.cpu().numpy()


def _exact(
    matrix: Float[Tensor, "n n"], n_wanted: int, locked: Float[Tensor, "n known"]
) -> tuple[Float[Tensor, " wanted"], Float[Tensor, "n wanted"]]:
    """Leading eigenpairs of a small matrix with eigenvalues >= 0 whose eigenpairs `locked` (eigenvalue 1) are known."""
    # eigenvalue 1 becomes -1: out of the way, and never mixed with one of the wanted
    deflated = matrix.double() - 2 * locked.double() @ locked.double().T
    values, vectors = torch.linalg.eigh(deflated)
    values, vectors = values.flip(0)[:n_wanted], vectors.flip(1)[:, :n_wanted]
    return values.float(), vectors.float()


def _gram(operator: NormalizedOperator) -> Float[Tensor, "second second"]:
    half = operator.half
    if isinstance(half, Tensor):
        return half.T @ half if half.layout == torch.strided else (half.T @ half).to_dense()
    return torch.from_numpy((half.T @ half).toarray())


def _n_entries(operator: NormalizedOperator) -> int:
    half = operator.half
    return half.shape[0] * half.shape[1] if isinstance(half, Tensor) and half.layout == torch.strided else 0


def _device(operator: NormalizedOperator) -> torch.device:
    return operator.half.device if isinstance(operator.half, Tensor) else torch.device("cpu")
