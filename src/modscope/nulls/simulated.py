"""What does a network without any module look like? Networks to try a null model on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from modscope.graph.unit_graph import Block, UnitGraph
from modscope.randomness import Rng, generator

Tail = Literal[
    "normal", "student", "student 2", "lognormal", "lognormal 1.5", "exponential", "uniform", "rounded", "equal"
]

_SIZES: dict[str, Callable[[np.random.Generator, tuple[int, int]], Float[np.ndarray, "targets sources"]]] = {
    "normal": lambda rng, shape: np.abs(rng.normal(size=shape)),
    "student": lambda rng, shape: np.abs(rng.standard_t(3, size=shape)),
    "student 2": lambda rng, shape: np.abs(rng.standard_t(2, size=shape)),
    "lognormal": lambda rng, shape: rng.lognormal(size=shape),
    "lognormal 1.5": lambda rng, shape: rng.lognormal(sigma=1.5, size=shape),
    "exponential": lambda rng, shape: rng.exponential(size=shape),
    "uniform": lambda rng, shape: 1 - rng.random(shape),
    "rounded": lambda rng, shape: np.ceil(2 * np.abs(rng.normal(size=shape))) / 2,
    "equal": lambda _rng, shape: np.ones(shape),
}


@dataclass(frozen=True)
class SimulatedChain:
    """A chain of layers whose weights know of nothing but their two units' scales (and modules, if asked for).

    Args:
        spread: Standard deviation of the log scales of units, incoming and outgoing.
        density: Share of the connections that are there.
        degree_spread: Standard deviation of the log chance that a unit's connections are there.
        tail: Sizes of single weights: |normal|, |Student t| with 3 or 2 degrees of freedom, log-normal (sd of the log 1
            or 1.5), exponential (weights with Laplace's distribution), uniform, |normal| rounded up to halves, or all
            equal.
        n_units: Units of each layer.
        n_layers: Layers of units.
        dependence: Correlation of a unit's incoming and outgoing log scale.
        n_modules: Modules that each layer's units are dealt to at random.
        strength: Weights within a module are multiplied by it; 1 = there are no modules.
        dead_share: Share of the units whose weights are 30 times smaller (without a floor) or next to nothing (with).
        floor: Normal noise of this size is added to every weight, also where a unit is dead: then sizes are no product.
    """

    spread: float = 0.0
    density: float = 1.0
    degree_spread: float = 0.0
    tail: Tail = "normal"
    n_units: int = 64
    n_layers: int = 5
    dependence: float = 0.0
    n_modules: int = 6
    strength: float = 1.0
    dead_share: float = 0.0
    floor: float = 0.0

    def __call__(self, *, rng: Rng) -> UnitGraph:
        """One network."""
        return self.with_scales(rng=rng)[0]

    def with_scales(self, *, rng: Rng) -> tuple[UnitGraph, tuple[Float[np.ndarray, "targets sources"], ...]]:
        """One network, and the true product of its two units' scales for each weight, block by block."""
        rng = generator(rng)
        scales = np.exp(self.spread * self._log_scales(rng))
        if self.dead_share:
            is_dead = rng.random(scales.shape[1:]) < self.dead_share
            scales = np.where(is_dead, scales * (1e-4 if self.floor else 1 / 30), scales)
        module_of = rng.integers(self.n_modules, size=(self.n_layers, self.n_units))
        blocks, products = [], []
        for layer in range(self.n_layers - 1):
            sizes = _SIZES[self.tail](rng, (self.n_units, self.n_units))
            products.append(np.outer(scales[0, layer + 1], scales[1, layer]))
            sizes *= products[-1]
            is_within = module_of[layer + 1][:, None] == module_of[layer]
            sizes *= np.where(is_within, self.strength, 1.0) * self._present(rng)
            if self.floor:
                sizes = np.abs(sizes + self.floor * rng.normal(size=sizes.shape) * (sizes > 0))
            units = np.arange(self.n_units) + layer * self.n_units
            blocks.append(Block(units, units + self.n_units, sizes.astype(np.float32), f"layer {layer + 1}"))
        group_of = np.repeat(np.arange(self.n_layers), self.n_units)
        names = tuple(f"layer {layer}" for layer in range(self.n_layers))
        return UnitGraph(tuple(blocks), group_of, names), tuple(products)

    def _log_scales(self, rng: np.random.Generator) -> Float[np.ndarray, "2 layers units"]:
        """Incoming and outgoing."""
        incoming, own = rng.normal(size=(2, self.n_layers, self.n_units))
        return np.stack([incoming, self.dependence * incoming + np.sqrt(1 - self.dependence**2) * own])

    def _present(self, rng: np.random.Generator) -> Float[np.ndarray, "targets sources"]:
        if self.density == 1:
            return np.ones((self.n_units, self.n_units))
        factors = np.exp(self.degree_spread * rng.normal(size=(2, self.n_units)))
        chances = np.outer(factors[0], factors[1])
        chances *= self.density / chances.mean()
        present: np.ndarray = rng.random(chances.shape) < chances
        return present.astype(np.float64)
