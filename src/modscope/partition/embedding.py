"""Where do the units lie in the space of the graph's slowest vibrations?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from modscope.graph.operator import NormalizedOperator, normalized_operator
from modscope.graph.stack import Array, Stack, as_numpy, is_alone, namespace_of
from modscope.graph.unit_graph import UnitGraph
from modscope.partition.lanczos import largest_eigenpairs, n_blocks
from modscope.randomness import Rng, generator

SMALL_SIDE = 128  # up to this many units an eigendecomposition beats Lanczos
MIN_SINGULAR_VALUE = 1e-4
# Residual for clustering, relative to the eigenvalue. Closer to the exact vectors the refined n-cut gets no better.
TOLERANCE, TOLERANCE_OF_LARGE = 0.15, 0.015
WIDTH_OF_LARGE = 6  # of the blocks of Lanczos: narrow ones need fewer columns; narrower ones miss close eigenvalues
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
    tolerance: float | None = None,
    device: torch.device | str = "cpu",
) -> Embedding:
    """The leading eigenvectors of one graph: exact where that is cheap, by Lanczos otherwise.

    Args:
        operator: The normalised adjacency.
        n_dimensions: Number of eigenvectors, those of the components included.
        components: Component of each unit that the operator keeps.
        rng: Start vectors of Lanczos.
        tolerance: Residual of Lanczos, relative to the eigenvalue; None: what clustering needs.
        device: Where it is computed.
    """
    return embed_alike([operator], n_dimensions, [components], rngs=[rng], tolerance=tolerance, device=device)[0]


def embed_alike(
    operators: Sequence[NormalizedOperator],
    n_dimensions: int,
    components: Sequence[Int[np.ndarray, " kept"]],
    *,
    rngs: Sequence[np.random.Generator],
    tolerance: float | None = None,
    device: torch.device | str = "cpu",
) -> list[Embedding]:
    """The leading eigenvectors of graphs of one shape, side by side: those of each alone.

    A layered network's graph is bipartite; its eigenvectors are then the singular vectors of the half graph, which
    has half the units and needs no inverse. The eigenvectors of eigenvalue 1 are known beforehand, one for each
    component (the root of the degrees), so they are put in rather than searched for.

    Args:
        operators: Of graphs with the same `shape_of`; dense, where there are several.
        n_dimensions: Number of eigenvectors of each, those of the components included.
        components: Component of each unit that an operator keeps, for each operator.
        rngs: Start vectors of Lanczos, for each operator.
        tolerance: Residual of Lanczos, relative to the eigenvalue; None: what clustering needs.
        device: Where they are computed.
    """
    known = np.stack([_known(*pair) for pair in zip(operators, components, strict=True)])
    n_wanted = n_dimensions - known.shape[2]
    if n_wanted <= 0:
        return [Embedding(np.ones(vectors.shape[1]), vectors) for vectors in known]
    stack = Stack(operators, device)
    if tolerance is None:
        tolerance = TOLERANCE if stack.is_double else TOLERANCE_OF_LARGE
    search = _half_pairs if operators[0].is_bipartite else _full_pairs
    values, vectors = search(stack, n_wanted, known, rngs, tolerance)
    ones = np.ones(known.shape[2])
    found = []
    for graph, (value, vector) in enumerate(zip(values, vectors, strict=True)):
        n_real = int(np.count_nonzero(value > (MIN_SINGULAR_VALUE if operators[0].is_bipartite else -np.inf)))
        joined = np.concatenate([known[graph].astype(vector.dtype), vector[:, :n_real]], axis=1)
        found.append(Embedding(np.concatenate([ones, value[:n_real]]), joined))
    return found


def shape_of(
    operator: NormalizedOperator, components: Int[np.ndarray, " kept"], device: torch.device | str = "cpu"
) -> tuple[Any, ...] | None:
    """What two graphs must share to be embedded side by side; None for a graph that must be alone."""
    if any(is_alone(part.sizes, device) for part in operator.parts):
        return None
    places = tuple(part.key for part in operator.parts)
    return operator.shape, operator.n_first, places, int(components.max())


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


def _known(operator: NormalizedOperator, components: Int[np.ndarray, " kept"]) -> Float[np.ndarray, "kept components"]:
    """The eigenvectors of eigenvalue 1."""
    known = np.zeros((len(components), int(components.max()) + 1))
    known[np.arange(len(components)), components] = operator.root_degrees
    known /= np.linalg.norm(known, axis=0)
    return known


def _half_pairs(
    stack: Stack,
    n_wanted: int,
    known: Float[np.ndarray, "graphs kept components"],
    rngs: Sequence[np.random.Generator],
    tolerance: float,
) -> tuple[Float[np.ndarray, "graphs wanted"], Float[np.ndarray, "graphs kept wanted"]]:
    """Eigenpairs from the singular vectors of the half graphs; the known ones are left out."""
    known_right = known[:, stack.shape[0] :] * np.sqrt(2)
    if stack.has_cheap_squares:
        n_there = min(n_wanted, stack.shape[1] - known.shape[2])
        squares, exact = _leading_of(stack.squares(), n_there, known_right)
        right: Any = stack.like(as_numpy(exact))
    else:
        squares, right = _leading(stack.both, n_wanted, known_right, stack, rngs, tolerance)
    values = np.sqrt(np.maximum(squares, 0))
    left = as_numpy(stack.forward(right))
    left /= np.maximum(values, MIN_SINGULAR_VALUE)[:, None]  # smaller ones have no partner on the long side
    return values, np.concatenate([left, as_numpy(right)], axis=1) / np.sqrt(2, dtype=left.dtype)


def _full_pairs(
    stack: Stack,
    n_wanted: int,
    known: Float[np.ndarray, "graphs kept components"],
    rngs: Sequence[np.random.Generator],
    tolerance: float,
) -> tuple[Float[np.ndarray, "graphs wanted"], Float[np.ndarray, "graphs kept wanted"]]:
    # (1 + N) / 2 has its eigenvalues in [0, 1]: the largest are also the largest in absolute value
    values, vectors = _leading(lambda x: (x + stack.forward(x)) / 2, n_wanted, known, stack, rngs, tolerance)
    return 2 * values - 1, as_numpy(vectors)


def _leading(
    multiply: Callable[[Any], Any],
    n_wanted: int,
    known: Float[np.ndarray, "graphs n known"],
    stack: Stack,
    rngs: Sequence[np.random.Generator],
    tolerance: float,
) -> tuple[Float[np.ndarray, "graphs wanted"], Array]:
    """Leading eigenpairs of operators with eigenvalues >= 0 whose eigenvectors of eigenvalue 1 are known."""
    _, size, n_known = known.shape
    width = n_wanted + 1 if stack.is_double else min(n_wanted + 1, WIDTH_OF_LARGE)
    locked = stack.like(np.ascontiguousarray(known))
    if size <= max(SMALL_SIDE, (n_blocks(n_wanted, width) + 1) * width + n_known):
        return _exact(multiply, min(n_wanted, size - n_known), locked, stack)
    start = stack.like(np.stack([rng.standard_normal((size, width), dtype=stack.dtype) for rng in rngs]))
    return largest_eigenpairs(multiply, n_wanted, locked=locked, start=start, tolerance=tolerance)


def _exact(
    multiply: Callable[[Any], Any], n_wanted: int, locked: Any, stack: Stack
) -> tuple[Float[np.ndarray, "graphs wanted"], Array]:
    """The same from the whole matrices."""
    n_graphs, size, _ = locked.shape
    identity = stack.like(np.broadcast_to(np.eye(size), (n_graphs, size, size)).copy())
    return _leading_of(multiply(identity), n_wanted, locked)


def _leading_of(matrices: Any, n_wanted: int, locked: Any) -> tuple[Float[np.ndarray, "graphs wanted"], Array]:
    """The leading eigenpairs of matrices, but for the locked ones of eigenvalue 1."""
    # eigenvalue 1 becomes -1: out of the way, and never mixed with one of the wanted
    deflated = matrices - 2 * locked @ locked.swapaxes(1, 2)
    values, vectors = namespace_of(deflated).linalg.eigh(deflated)
    first = values.shape[1] - n_wanted
    wanted = vectors[..., first:]
    largest_first: Array = wanted.flip(-1) if isinstance(wanted, Tensor) else np.ascontiguousarray(wanted[..., ::-1])
    return as_numpy(values)[:, first:][:, ::-1].copy(), largest_first
