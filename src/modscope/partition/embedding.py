"""Where do the units lie in the space of the graph's slowest vibrations?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from jaxtyping import Float, Int

from modscope.graph.operator import Array, NormalizedOperator, as_numpy, normalized_operator
from modscope.graph.unit_graph import UnitGraph
from modscope.partition.lanczos import largest_eigenpairs
from modscope.randomness import Rng, generator

SMALL_SIDE = 128  # up to this many units an eigendecomposition beats Lanczos
GRAM_SIDE, GRAM_ENTRIES = 1024, 1 << 24  # a half graph this narrow and large is worth one pass for its Gram matrix
MIN_SINGULAR_VALUE = 1e-4
# Residual for clustering, relative to the eigenvalue. Closer to the exact vectors the refined n-cut gets no better.
TOLERANCE = 3e-2
FINE_TOLERANCE = 3e-4  # the error of the eigenvalue is of the order of the square of this


@dataclass(frozen=True, eq=False)
class Embedding:
    """Eigenvectors of D^-1/2 A D^-1/2 with the largest eigenvalues, largest first; 1 - eigenvalue is the Laplacian's.

    There can be fewer than asked for: a half graph has no more of them with eigenvalue > 0 than its short side units.
    """

    eigenvalues: Float[np.ndarray, " dimensions"]
    vectors: Float[np.ndarray, "kept dimensions"]


def embed(
    operator: NormalizedOperator,
    n_dimensions: int,
    components: Int[np.ndarray, " kept"],
    *,
    rng: np.random.Generator,
    tolerance: float = TOLERANCE,
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
        tolerance: Residual of Lanczos, relative to the eigenvalue.
    """
    n_components = int(components.max()) + 1
    known = np.zeros((len(components), n_components), dtype=np.float32)
    known[np.arange(len(components)), components] = operator.root_degrees
    known /= np.linalg.norm(known, axis=0)
    n_wanted = n_dimensions - n_components
    if n_wanted <= 0:
        return Embedding(np.ones(n_components), known)
    search = _half_pairs if operator.is_bipartite else _full_pairs
    values, vectors = search(operator, n_wanted, known, rng, tolerance)
    return Embedding(np.concatenate([np.ones(n_components), values]), np.concatenate([known, vectors], axis=1))


def laplacian_eigenvalues(graph: UnitGraph, n_values: int, *, rng: Rng = 0) -> Float[np.ndarray, " values"]:
    """The smallest eigenvalues of the normalised Laplacian 1 - D^-1/2 A D^-1/2, ascending, to about 1e-7.

    One is 0 for each component. Isolated units have no part in it. There can be fewer than asked for: of a bipartite
    graph only those below 1 come back.
    """
    operator = normalized_operator(graph)
    components = graph.components[operator.units]
    if not len(components):
        return np.empty(0)
    n_values = min(n_values, len(components))
    found = embed(operator, n_values, components, rng=generator(rng), tolerance=FINE_TOLERANCE).eigenvalues
    return 1 - found[:n_values]


def _half_pairs(
    operator: NormalizedOperator,
    n_wanted: int,
    known: Float[np.ndarray, "kept components"],
    rng: np.random.Generator,
    tolerance: float,
) -> tuple[Float[np.ndarray, " wanted"], Float[np.ndarray, "kept wanted"]]:
    """Eigenpairs from the singular vectors of the half graph; the known ones are left out."""
    locked = known[operator.n_first :].T * np.sqrt(2, dtype=np.float32)
    right: Array
    n_short = locked.shape[1]
    n_wanted = min(n_wanted, n_short - len(locked))
    is_narrow = n_short <= GRAM_SIDE and operator.is_dense and operator.n_first * n_short >= GRAM_ENTRIES
    if n_short <= SMALL_SIDE or is_narrow:
        squares, exact = _exact(_gram(operator), n_wanted, locked)
        right = operator.like(exact)
    else:
        squares, right = largest_eigenpairs(
            lambda x: operator.backward(operator.forward(x)),
            n_wanted,
            locked=operator.like(locked),
            rng=rng,
            tolerance=tolerance,
        )
    values = np.sqrt(np.maximum(squares, 0))
    is_nonzero = values > MIN_SINGULAR_VALUE  # others have no partner on the long side
    values, right = values[is_nonzero], right[: int(is_nonzero.sum())]
    left = as_numpy(operator.forward(right.T)) / values.astype(np.float32)
    return values, np.concatenate([left, as_numpy(right).T]) / np.sqrt(2, dtype=np.float32)


def _full_pairs(
    operator: NormalizedOperator,
    n_wanted: int,
    known: Float[np.ndarray, "kept components"],
    rng: np.random.Generator,
    tolerance: float,
) -> tuple[Float[np.ndarray, " wanted"], Float[np.ndarray, "kept wanted"]]:
    n_units = len(operator.units)
    n_wanted = min(n_wanted, n_units - known.shape[1])
    vectors: Array
    if n_units <= SMALL_SIDE:
        identity = np.eye(n_units, dtype=np.float32)
        halves, vectors = _exact(
            (identity + as_numpy(operator.multiply(operator.like(identity)))) / 2, n_wanted, known.T
        )
    else:
        # (1 + N) / 2 has its eigenvalues in [0, 1]: the largest are also the largest in absolute value
        halves, vectors = largest_eigenpairs(
            lambda x: (x + operator.multiply(x)) / 2,
            n_wanted,
            locked=operator.like(np.ascontiguousarray(known.T)),
            rng=rng,
            tolerance=tolerance,
        )
    return 2 * halves - 1, as_numpy(vectors).T


def _exact(
    matrix: Float[np.ndarray, "n n"], n_wanted: int, locked: Float[np.ndarray, "known n"]
) -> tuple[Float[np.ndarray, " wanted"], Float[np.ndarray, "wanted n"]]:
    """Leading eigenpairs of a small matrix with eigenvalues >= 0 whose eigenpairs `locked` (eigenvalue 1) are known."""
    if n_wanted <= 0:
        return np.zeros(0), locked[:0]
    # eigenvalue 1 becomes -1: out of the way, and never mixed with one of the wanted
    deflated = matrix.astype(np.float64) - 2 * locked.T.astype(np.float64) @ locked
    last = len(matrix) - 1
    values, vectors = scipy.linalg.eigh(deflated, subset_by_index=[last - n_wanted + 1, last])
    return values[::-1].copy(), np.ascontiguousarray(vectors.T[::-1], dtype=np.float32)


def _gram(operator: NormalizedOperator) -> Float[np.ndarray, "second second"]:
    half = operator.half
    gram = half.T @ half
    if isinstance(gram, np.ndarray):
        return gram
    dense: np.ndarray = gram.toarray() if hasattr(gram, "toarray") else gram.to_dense().cpu().numpy()
    return dense
