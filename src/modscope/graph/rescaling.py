"""Which of all equivalent ReLU networks stands for them all?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int

from modscope.graph.unit_graph import Block, UnitGraph

MAX_SWEEPS = 200
TOLERANCE = 1e-6  # of the log scales, per sweep; float32 carries seven digits


def balanced(graph: UnitGraph, is_inner: Bool[np.ndarray, " units"]) -> UnitGraph:
    """The graph with each inner unit rescaled so that as much weight comes in as goes out.

    A ReLU network computes the same when a unit's incoming weights are multiplied by t and its outgoing ones divided
    by t. Among all such rescalings exactly one makes the sum of all edge sizes smallest: the one where in and out
    agree at every unit. That network, which does not depend on the scales it is found from, is returned.

    An inner unit that no weight reaches, or that none reads, passes nothing on: it has no edges afterwards (any scale
    would do for them; the smallest sum leaves nothing of them).

    Args:
        graph: Its blocks run from sources to targets.
        is_inner: Units that may be rescaled.
    """
    graph, is_free = _passing(graph, is_inner)
    scale = np.ones(graph.n_units)
    groups = [
        (units, [block for block in graph.blocks if _touches(block, units)]) for units in _free_groups(graph, is_free)
    ]
    for _ in range(MAX_SWEEPS):
        largest = 0.0
        # one group at a time (Gauss-Seidel): all at once would overshoot along a chain
        for units, blocks in groups:
            coming, going = _flows(blocks, scale)
            step = np.sqrt(going[units] / coming[units])
            scale[units] *= step
            largest = max(largest, float(np.abs(np.log(step)).max()))
        if largest < TOLERANCE:
            break
    return UnitGraph(tuple(_rescaled(block, scale) for block in graph.blocks), graph.group_of, graph.group_names)


def _passing(graph: UnitGraph, is_inner: Bool[np.ndarray, " units"]) -> tuple[UnitGraph, Bool[np.ndarray, " units"]]:
    """The graph without edges of inner units that pass nothing on, and the inner units that do."""
    while True:
        coming, going = _flows(graph.blocks, np.ones(graph.n_units))
        is_stuck = is_inner & ((coming > 0) != (going > 0))
        if not is_stuck.any():
            return graph, is_inner & (coming > 0)
        graph = graph.induced(np.flatnonzero(~is_stuck))


def _free_groups(graph: UnitGraph, is_free: Bool[np.ndarray, " units"]) -> list[np.ndarray]:
    groups = (np.flatnonzero(is_free & (graph.group_of == group)) for group in range(len(graph.group_names)))
    return [units for units in groups if len(units)]


def _touches(block: Block, units: Int[np.ndarray, " some"]) -> bool:
    return bool(np.isin(block.targets, units).any() or np.isin(block.sources, units).any())


def _flows(
    blocks: Sequence[Block], scale: Float[np.ndarray, " units"]
) -> tuple[Float[np.ndarray, " units"], Float[np.ndarray, " units"]]:
    """Weight that comes into, and goes out of, each unit by these blocks once rescaled."""
    coming, going = np.zeros(len(scale)), np.zeros(len(scale))
    for block in blocks:
        # in the precision of the sizes: a product with float64 would copy a large matrix
        rows, columns = (scale[ids].astype(block.sizes.dtype) for ids in (block.targets, block.sources))
        coming[block.targets] += scale[block.targets] * (block.sizes @ (1 / columns))
        going[block.sources] += (block.sizes.T @ rows) / scale[block.sources]
    return coming, going


def _rescaled(block: Block, scale: Float[np.ndarray, " units"]) -> Block:
    rows = scale[block.targets].astype(block.sizes.dtype)
    columns = (1 / scale[block.sources]).astype(block.sizes.dtype)
    if isinstance(block.sizes, np.ndarray):
        sizes: np.ndarray | sp.csr_array = block.sizes * rows[:, None] * columns
    else:
        sizes = block.sizes.copy()
        sizes.data = sizes.data * np.repeat(rows, np.diff(sizes.indptr)) * columns[sizes.indices]
    return Block(block.sources, block.targets, sizes, block.name)
