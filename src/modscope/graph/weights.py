"""Which graph do the weights of a network make?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modscope.errors import GraphError
from modscope.graph.edge_norms import EDGE_NORMS, EdgeNorm, connection_sizes, kernel_norm
from modscope.graph.rescaling import balanced
from modscope.graph.unit_graph import Block, UnitGraph
from modscope.progress import track
from modscope.wiring.wiring import Connection, Wiring


def weight_graph(
    wiring: Wiring,
    *,
    edge_norm: EdgeNorm = "l1",
    fold_norms: bool = True,
    inputs: bool = True,
    outputs: bool = True,
    rescale: bool = False,
) -> UnitGraph:
    """The graph whose edge between two units is the size of the weights that join them; one block per connection.

    Biases play no part, nor do query-key products. Units whose edges are left out stay, isolated.

    Args:
        wiring: What `read_wiring` found.
        edge_norm: Size of the entries that join two units: "l1" (sum of absolute values), "l2" (root of the sum of
            squares), or what the papers' program computes for a kernel: "official_l1" (the largest column sum of
            |kernel|) and "official_l2" (the largest singular value of |kernel|). For one entry all are its absolute
            value. Where several kernels join two units (packed gates, a flattened image), the official sizes add up.
        fold_norms: Multiply a weight by what the norms beside it (batch norm, gains) multiply its value by.
        inputs: Keep edges of input units.
        outputs: Keep edges of output units.
        rescale: Rescale each hidden unit to as much weight coming in as going out. Scaling a unit's inputs by c and
            its outputs by 1/c, which changes nothing a ReLU network computes, then changes no edge either. A hidden
            unit that no weight reaches, or that none reads, passes nothing on, and has no edges then.

    Raises:
        GraphError: If a weight is NaN or infinite (the message names the parameter), the norm is unknown, or `wiring`
            is no Wiring.
    """
    if not isinstance(wiring, Wiring):
        raise GraphError(
            f"a Wiring is wanted, got {type(wiring).__name__}; read one with read_wiring(model, example_inputs)"
        )
    if edge_norm not in EDGE_NORMS:
        raise GraphError(f"edge_norm must be one of {', '.join(EDGE_NORMS)}; got {edge_norm!r}")
    left_out = {kind for kind, is_kept in (("input", inputs), ("output", outputs)) if not is_kept}
    is_kept = np.array([group.kind not in left_out for group in wiring.groups], dtype=bool)[wiring.group_of]
    # what is left out still says how much comes into a unit, and goes out of it
    is_measured = np.ones_like(is_kept) if rescale else is_kept
    connections = [connection for connection in wiring.connections if connection.kind == "weight"]
    blocks = [
        _block(connection, is_measured, edge_norm=edge_norm, fold_norms=fold_norms)
        for connection in track(connections, "measuring weights")
    ]
    graph = UnitGraph(
        tuple(block for block in blocks if block.sizes.shape[0] and block.sizes.shape[1]),
        wiring.group_of,
        tuple(group.name for group in wiring.groups),
    )
    return balanced(graph, _inner(wiring)).induced(np.flatnonzero(is_kept)) if rescale else graph


def chain_graph(weights: Iterable[Any], *, edge_norm: EdgeNorm = "l1") -> UnitGraph:
    """The graph of a chain of layers, from their weights alone.

    Args:
        weights: One matrix per layer, first layer first: arrays or scipy sparse matrices of shape (out, in), or
            kernels of shape (out, in, height, width). The outputs of one are the inputs of the next.
        edge_norm: As in `weight_graph`.

    Returns:
        A graph with one unit group per layer of units, "layer 0" (the inputs) to "layer n".

    Raises:
        GraphError: If there is no matrix, one has another number of axes, or two do not join; if a weight is NaN
            or infinite.
    """
    if edge_norm not in EDGE_NORMS:
        raise GraphError(f"edge_norm must be one of {', '.join(EDGE_NORMS)}; got {edge_norm!r}")
    sizes = [_chain_sizes(weight, f"weights[{index}]", edge_norm) for index, weight in enumerate(weights)]
    if not sizes:
        raise GraphError("chain_graph needs the weights of at least one layer, got none")
    widths = [sizes[0].shape[1], *(matrix.shape[0] for matrix in sizes)]
    for index, matrix in enumerate(sizes):
        if matrix.shape[1] != widths[index]:
            raise GraphError(
                f"weights[{index}] reads {matrix.shape[1]} units, but weights[{index - 1}] writes {widths[index]}; "
                "matrices are (out, in), first layer first"
            )
    starts = np.concatenate([[0], np.cumsum(widths)])
    units = [np.arange(start, end) for start, end in pairwise(starts)]
    blocks = [Block(units[index], units[index + 1], matrix, f"weights[{index}]") for index, matrix in enumerate(sizes)]
    return UnitGraph(tuple(blocks), _group_of(widths), tuple(f"layer {index}" for index in range(len(widths))))


def _inner(wiring: Wiring) -> Bool[np.ndarray, " units"]:
    """Hidden units whose scale is free, but for those that an embedding writes: what comes into them is no edge."""
    is_hidden = np.array([group.kind in ("hidden", "stream") for group in wiring.groups], dtype=bool)
    is_inner: np.ndarray = is_hidden[wiring.group_of]
    for connection in wiring.connections:
        if connection.kind == "weight" and not (connection.sources >= 0).any():
            is_inner[connection.targets[connection.targets >= 0]] = False
    return is_inner


def _block(connection: Connection, is_kept: np.ndarray, *, edge_norm: EdgeNorm, fold_norms: bool) -> Block:
    targets, sources, sizes = connection_sizes(connection, edge_norm=edge_norm, fold_norms=fold_norms)
    return Block(sources, targets, sizes, connection.parameter).between(is_kept[targets], is_kept[sources])


def _chain_sizes(weight: Any, name: str, edge_norm: EdgeNorm) -> Float[np.ndarray, "targets sources"] | sp.csr_array:
    if sp.issparse(weight):
        sizes = sp.csr_array(abs(weight))
        sizes.sum_duplicates()
        return sizes if np.issubdtype(sizes.dtype, np.floating) else sizes.astype(np.float64)
    matrix = np.asarray(weight.detach().cpu() if isinstance(weight, Tensor) else weight)
    if matrix.dtype == bool or not np.issubdtype(matrix.dtype, np.number) or np.iscomplexobj(matrix):
        raise GraphError(f"{name} must hold real numbers, got {matrix.dtype}")
    if matrix.ndim not in (2, 4):
        raise GraphError(f"{name} has shape {matrix.shape}; wanted (out, in) or (out, in, height, width)")
    sizes = np.abs(matrix if np.issubdtype(matrix.dtype, np.floating) else matrix.astype(np.float64))
    return sizes if matrix.ndim == 2 else kernel_norm(sizes, edge_norm)


def _group_of(widths: Sequence[int]) -> Int[np.ndarray, " units"]:
    return np.repeat(np.arange(len(widths)), widths)
