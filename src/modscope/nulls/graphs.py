"""What would a graph be if its edges joined other units?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Float, Int

from modscope.graph.unit_graph import Block, UnitGraph
from modscope.nulls.blocks import block_at, block_with, layer_of
from modscope.nulls.registry import null_model
from modscope.nulls.scale_posterior import FittedScales, ScalePosterior, posterior_scales

N_ITERATIONS = 200
CONVERGED = 1e-5


@null_model("graph")
def permute_edges(subject: Any, rng: np.random.Generator) -> Any:
    """Keeps the number and the sizes of edges; destroys which units they join, over all blocks of the graph.

    An edge can come to join any two units that one of the blocks could join. It is the null of the papers for graphs of
    activations, where there is no order of layers to keep.

    Source: Hod, Casper et al. 2021.
    """
    graph: UnitGraph = subject
    if not graph.blocks:
        return graph
    sizes = np.concatenate([layer_of(block).sizes for block in graph.blocks])
    sizes = sizes[rng.permutation(len(sizes))]
    n_possible = np.array([_n_pairs(block) for block in graph.blocks], dtype=np.int64)
    n_edges = rng.multivariate_hypergeometric(n_possible, len(sizes), method="marginals")
    stops = np.cumsum(n_edges)
    parts = [sizes[stop - n : stop] for stop, n in zip(stops, n_edges, strict=True)]
    return replace(graph, blocks=tuple(_filled(*pair, rng) for pair in zip(graph.blocks, parts, strict=True)))


@null_model("graph")
def keep_degrees(subject: Any, rng: np.random.Generator) -> Any:
    """Keeps which units are joined and the scale of each unit's edges, so its degree; destroys the other differences.

    Like `keep_unit_scale`, but with one scale for all edges of a unit and residuals that move over the whole graph:
    w_uv = a_u a_v r_uv. For graphs of activations, and for layers with few weights each.
    """
    graph: UnitGraph = subject
    if not any(layer_of(block).n_entries for block in graph.blocks):
        return graph
    scales, residuals = _fitted(graph)
    drawn = scales.draw(rng)
    residuals = rng.permutation(residuals)
    blocks, start = [], 0
    for block in graph.blocks:
        layer = layer_of(block)
        sizes = residuals[start : start + layer.n_entries]
        sizes = sizes * drawn[block.targets[layer.rows]] * drawn[block.sources[layer.columns]]
        start += layer.n_entries
        blocks.append(block_with(block, layer, layer.positions, sizes))
    return replace(graph, blocks=tuple(blocks))


_fit_of_graph: WeakKeyDictionary[UnitGraph, tuple[ScalePosterior, Float[np.ndarray, " edges"]]] = WeakKeyDictionary()


def _fitted(graph: UnitGraph) -> tuple[ScalePosterior, Float[np.ndarray, " edges"]]:
    """One scale per unit such that w_uv / (a_u a_v) has mean 1 over each unit's edges; and these residuals."""
    if graph in _fit_of_graph:
        return _fit_of_graph[graph]
    layers = [(block, layer_of(block)) for block in graph.blocks]
    targets = np.concatenate([block.targets[layer.rows] for block, layer in layers])
    sources = np.concatenate([block.sources[layer.columns] for block, layer in layers])
    sizes = np.concatenate([layer.sizes for _, layer in layers]).astype(np.float64)
    counts = np.bincount(np.concatenate([targets, sources]), minlength=graph.n_units).astype(np.float64)
    scales = _balancing_scales(targets, sources, sizes, counts)
    residuals = sizes / (scales[targets] * scales[sources])
    n_free = max(len(sizes) - int((counts > 0).sum()), 1)
    cv_squared = float(residuals.var() / residuals.mean() ** 2) * len(sizes) / n_free
    fitted = posterior_scales(FittedScales(np.log(scales), cv_squared / np.maximum(counts, 1), counts > 0))
    _fit_of_graph[graph] = fitted, residuals
    return _fit_of_graph[graph]


def _balancing_scales(
    targets: Int[np.ndarray, " edges"],
    sources: Int[np.ndarray, " edges"],
    sizes: Float[np.ndarray, " edges"],
    counts: Float[np.ndarray, " units"],
) -> Float[np.ndarray, " units"]:
    """Scales a with mean 1 of w_uv / (a_u a_v) over the edges of every unit; 1 for a unit without edges."""
    ends, others, both = np.concatenate([targets, sources]), np.concatenate([sources, targets]), np.tile(sizes, 2)
    scales = np.ones(len(counts))
    for _ in range(N_ITERATIONS):
        means = np.bincount(ends, both / scales[others], len(counts)) / np.maximum(counts, 1)
        new = np.sqrt(scales * np.where(counts > 0, means, 1.0))  # the plain step jumps between two answers
        change = np.abs(new / scales - 1).max()
        scales = new
        if change < CONVERGED:
            break
    return scales


def _n_pairs(block: Block) -> int:
    """How many pairs of different units a block can join."""
    n_common = len(np.intersect1d(block.targets, block.sources))
    return len(block.targets) * len(block.sources) - n_common * (n_common + 1) // 2


def _filled(block: Block, sizes: Float[np.ndarray, " edges"], rng: np.random.Generator) -> Block:
    """The block with these edges at random positions."""
    rows, columns = np.divmod(_random_pairs(block, len(sizes), rng), block.sizes.shape[1])
    return block_at(block, rows, columns, sizes)


def _random_pairs(block: Block, n_pairs: int, rng: np.random.Generator) -> Int[np.ndarray, " edges"]:
    """Different positions of a block, no two for the same two units and none for a unit with itself."""
    n_positions = block.sizes.shape[0] * block.sizes.shape[1]
    if n_pairs > 0.2 * _n_pairs(block):
        allowed = np.arange(n_positions)[_is_once(block, np.arange(n_positions))]
        return rng.choice(allowed, n_pairs, replace=False)
    chosen = np.empty(0, dtype=np.int64)
    while len(chosen) < n_pairs:
        drawn = rng.integers(n_positions, size=2 * (n_pairs - len(chosen)) + 8)
        both = np.concatenate([chosen, drawn[_is_once(block, drawn)]])
        chosen = both[np.sort(np.unique(both, return_index=True)[1])]  # in the order in which they were drawn
    return chosen[:n_pairs]


def _is_once(block: Block, positions: Int[np.ndarray, " positions"]) -> np.ndarray:
    """Which positions join two units, and are the one that is used where a block holds the pair both ways round."""
    rows, columns = np.divmod(positions, block.sizes.shape[1])
    target, source = block.targets[rows], block.sources[columns]
    is_both_ways = np.isin(block.targets, block.sources)[rows] & np.isin(block.sources, block.targets)[columns]
    once: np.ndarray = ~is_both_ways | (target < source)
    return once
