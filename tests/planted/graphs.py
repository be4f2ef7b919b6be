"""Which graphs have modules that we know, or numbers that others measured?"""

from __future__ import annotations

import itertools
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from modscope.graph.unit_graph import Block, UnitGraph
from modscope.graph.weights import chain_graph

MLP_WIDTHS = (784, 256, 256, 256, 256, 10)
VGG_WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)


@cache
def reference() -> dict[str, Any]:
    """What the program of Filan et al. computes on the weights below (n-cuts, eigenvalues, unit vectors)."""
    content: dict[str, Any] = json.loads((Path(__file__).parent / "filan2021_reference.json").read_text())
    return content


def gaussian_mlp(seed: int = 0, widths: tuple[int, ...] = MLP_WIDTHS) -> list[np.ndarray]:
    """Weights (in, out) without modules, normal with variance 1 / in."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((a, b)) / np.sqrt(a) for a, b in itertools.pairwise(widths)]


def glorot_mlp(rng: np.random.Generator, widths: tuple[int, ...] = MLP_WIDTHS) -> list[np.ndarray]:
    """Weights (in, out) without modules, Glorot uniform: the papers' initialisation."""
    bounds = [np.sqrt(6 / (a + b)) for a, b in itertools.pairwise(widths)]
    sizes = itertools.pairwise(widths)
    return [rng.uniform(-bound, bound, size) for bound, size in zip(bounds, sizes, strict=True)]


def planted_mlp(
    seed: int = 0, n_modules: int = 4, between: float = 0.2, widths: tuple[int, ...] = MLP_WIDTHS
) -> tuple[list[np.ndarray], np.ndarray]:
    """Weights (in, out) with modules in every layer, and the module of each unit.

    Weights between modules are multiplied by `between`, those inside by as much as keeps the mean size.
    """
    rng = np.random.default_rng(seed + 1000)
    modules = [rng.integers(0, n_modules, width) for width in widths]
    within = 1 + (1 - between) * (n_modules - 1)
    weights = [
        weight * np.where(modules[layer][:, None] == modules[layer + 1], within, between)
        for layer, weight in enumerate(gaussian_mlp(seed, widths))
    ]
    return weights, np.concatenate(modules)


def pruned(weights: list[np.ndarray], share: float = 0.9) -> list[np.ndarray]:
    """The weights with the smallest `share` of each layer set to zero."""
    kept = []
    for weight in weights:
        threshold = np.partition(np.abs(weight).ravel(), round(share * weight.size))[round(share * weight.size)]
        kept.append(np.where(np.abs(weight) >= threshold, weight, 0.0))
    return kept


def small_cnn(seed: int = 0) -> list[np.ndarray]:
    """Keras weights of the papers' small CNN: three kernels (height, width, in, out), two matrices (in, out)."""
    rng = np.random.default_rng(seed)
    shapes = [(3, 3, 3, 64), (3, 3, 64, 64), (3, 3, 64, 64), (3136, 128), (128, 10)]
    return [rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1])) for shape in shapes]


def vgg_kernels(seed: int = 0) -> list[np.ndarray]:
    """Keras kernels (height, width, in, out) of the papers' VGG; the clustered graph leaves out the first."""
    rng = np.random.default_rng(seed)
    widths = (3, *VGG_WIDTHS)
    pairs = itertools.pairwise(widths)
    return [rng.standard_normal((3, 3, a, b)) / np.sqrt(9 * a) for a, b in pairs]


def chain(weights: list[np.ndarray], *, edge_norm: Any = "l1") -> UnitGraph:
    """The graph of weights that are stored as the papers do: (in, out) or (height, width, in, out)."""
    turned = [weight.T if weight.ndim == 2 else weight.transpose(3, 2, 0, 1) for weight in weights]
    return chain_graph(turned, edge_norm=edge_norm)


def reference_graphs() -> dict[str, UnitGraph]:
    """The graphs that the reference numbers are about, by name."""
    planted = planted_mlp()[0]
    kernels = small_cnn()[1:3]
    return {
        "mlp_gauss": chain(gaussian_mlp()),
        "mlp_planted4": chain(planted),
        "mlp_planted4_pruned90": chain(pruned(planted)),
        "cnn_small_conv_L1official": chain(kernels, edge_norm="official_l1"),
        "cnn_small_conv_L1entry": chain(kernels, edge_norm="l1"),
    }


def sparse_layers(
    n_units: int, n_edges: int, *, n_layers: int = 10, n_modules: int = 1, inside: float = 0.8, seed: int = 0
) -> tuple[UnitGraph, np.ndarray]:
    """A large layered graph with |normal| edge sizes, and the module of each unit.

    A share `inside` of the edges joins units of one module (all edges, where there is one module).
    """
    rng = np.random.default_rng(seed)
    width = n_units // n_layers
    per_block = n_edges // (n_layers - 1)
    modules = np.sort(rng.integers(0, n_modules, (n_layers, width)), axis=1)
    blocks = []
    for layer in range(n_layers - 1):
        source, target = rng.integers(0, width, (2, per_block))
        if n_modules > 1:
            target = _within_modules(source, target, modules[layer], modules[layer + 1], inside, rng)
        sizes = np.abs(rng.standard_normal(per_block, dtype=np.float32))
        matrix = sp.coo_array((sizes, (target, source)), shape=(width, width)).tocsr()
        units = np.arange(width) + layer * width
        blocks.append(Block(units, units + width, matrix, f"layer {layer + 1}"))
    names = tuple(f"layer {layer}" for layer in range(n_layers))
    return UnitGraph(tuple(blocks), np.repeat(np.arange(n_layers), width), names), modules.ravel()


def _within_modules(
    source: np.ndarray, target: np.ndarray, below: np.ndarray, above: np.ndarray, share: float, rng: np.random.Generator
) -> np.ndarray:
    """Targets redrawn, for a share of the edges, from the source's own module (modules are sorted in a layer)."""
    first, last = (np.searchsorted(above, below[source], side=side) for side in ("left", "right"))
    drawn = first + (rng.random(len(source)) * (last - first)).astype(np.int64)
    is_inside = (rng.random(len(source)) < share) & (last > first)
    return np.where(is_inside, drawn, target)


def random_blocks(rng: np.random.Generator, n_units: int = 30, n_blocks: int = 3, density: float = 0.3) -> UnitGraph:
    """A small graph of blocks between any units: with odd cycles, parallel edges, self-loops and isolated units."""
    blocks = []
    for index in range(n_blocks):
        sources = rng.choice(n_units, int(rng.integers(1, n_units)), replace=False)
        targets = rng.choice(n_units, int(rng.integers(1, n_units)), replace=False)
        sizes = rng.random((len(targets), len(sources))) * (rng.random((len(targets), len(sources))) < density)
        matrix = sp.csr_array(sizes) if index % 2 else sizes
        blocks.append(Block(sources, targets, matrix, f"block {index}"))
    return UnitGraph(tuple(blocks), np.arange(n_units) % 4, tuple("abcd"))
