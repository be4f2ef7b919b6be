"""How is a network made more clusterable: by a penalty on its eigenvalues, or by how it starts?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from modscope.errors import GraphError
from modscope.partition.lanczos import largest_eigenpairs, n_blocks
from modscope.randomness import Rng, generator
from modscope.training.chain import chain_of, edge_sizes, spread_over_inputs

LARGEST_EXACT_SIDE = 256  # half graphs with more units on their short side go through Lanczos
LANCZOS_TOLERANCE = 1e-4


@dataclass(frozen=True)
class ClusterabilityPenalty:
    """strength / n_eigenvalues x (the smallest eigenvalues of the normalised Laplacian, without the first, added up).

    A strategy for `fit`: the penalty falls when the weight graph of a chain of layers falls apart more easily. A ReLU
    network can lower it by rescaling alone; `normalise_units` before every step takes that way from it.

    Args:
        strength: lambda of the source.
        n_eigenvalues: How many eigenvalues after the first, which is always 0.
        official_half: Follow half of the gradient, as the papers' program does; its value stays the same.

    Source: Filan et al. 2021, section on training for clusterability (their program's settings are the defaults).
    """

    strength: float = 0.1
    n_eigenvalues: int = 3
    official_half: bool = False

    def __call__(self, model: nn.Module) -> Float[Tensor, ""]:
        """The penalty of the model's weights, with its gradient.

        Raises:
            GraphError: If the model is no chain of layers, or has too few units.
        """
        total = eigenvalue_sum([layer.weight for layer in chain_of(model)], self.n_eigenvalues)
        if self.official_half:
            total = (total + total.detach()) / 2
        return total * (self.strength / self.n_eigenvalues)


def eigenvalue_sum(weights: Sequence[Tensor], n_eigenvalues: int = 3) -> Float[Tensor, ""]:
    """The second to (n + 1)-th smallest eigenvalue of the normalised Laplacian of a chain, added up; differentiable.

    The gradient is the closed form, so nothing is differentiated through an eigendecomposition: with eigenvectors v,
    u = D^-1/2 v and eigenvalues 1 - s, the edge between units m and n has the slope sum of s (u_m^2 + u_n^2) -
    2 u_m u_n. A weight's slope has its sign. Where eigenvalues coincide it is one of many subgradients.

    Args:
        weights: One tensor per layer, first layer first, (out, in) or (out, in, ...) for kernels, whose absolute values
            are added up. Outputs of one are the inputs of the next; after flattening a layer may have several columns
            for one of them.
        n_eigenvalues: How many eigenvalues.

    Raises:
        GraphError: If the layers do not join, or the graph has fewer units on one side than eigenvalues are wanted.

    Source: Filan et al. 2021, with the true factor: their program's gradient is half of it.
    """
    with torch.no_grad():
        sizes = edge_sizes(weights)
        half, root_degrees = _normalised_half(sizes)
        if not 0 < n_eigenvalues < min(half.shape):
            raise GraphError(
                f"the graph's sides have {half.shape[0]} and {half.shape[1]} units, so 1 to {min(half.shape) - 1} "
                f"eigenvalues can be asked for; got {n_eigenvalues}"
            )
        similarities, vectors = _leading(half, root_degrees, n_eigenvalues)
        total = (1 - similarities).sum()
        inverse = torch.where(root_degrees > 0, 1 / root_degrees, 0)
        slopes = _edge_slopes(inverse[:, None] * vectors, similarities, [len(sizes[0][0]), *map(len, sizes)])
    # Equal to `total`, and with the slopes as its gradient.
    linear = sum(
        (spread_over_inputs(slope, weight) * weight.detach().sign() * weight).sum()
        for slope, weight in zip(slopes, weights, strict=True)
    )
    return total + (linear - linear.detach() if isinstance(linear, Tensor) else 0)


def make_clusterable(
    model: nn.Module, *, rng: Rng, n_modules: int = 10, weaker: float = 0.6
) -> tuple[Int[np.ndarray, " units"], ...]:
    """The module of every unit, per layer of weights, after weights within modules were made larger, in place.

    Every unit draws one of `n_modules` modules; where there are no more outputs than modules, output i is in module
    i. In all layers but the first, weights between modules are multiplied by `weaker` and weights within one by
    1 + (1 - weaker) (n_modules - 1), which keeps the mean size.

    Args:
        model: A chain of layers, just initialised.
        rng: Draws the modules.
        n_modules: How many modules.
        weaker: The papers' program has .6 for perceptrons and .8 for convolutional networks.

    Raises:
        GraphError: If the model is no chain of layers, or the arguments are out of range.

    Source: Filan et al. 2021, clusterable initialisation.
    """
    if n_modules < 1 or not 0 <= weaker <= 1:
        raise GraphError(f"needs n_modules >= 1 and 0 <= weaker <= 1, got {n_modules=}, {weaker=}")
    rng = generator(rng)
    layers = chain_of(model)
    modules = [rng.integers(n_modules, size=len(layer.weight)) for layer in layers]
    if len(modules[-1]) <= n_modules:
        modules[-1] = np.arange(len(modules[-1]))
    stronger = 1 + (1 - weaker) * (n_modules - 1)
    for layer, (sources, targets) in zip(layers[1:], pairwise(modules), strict=True):
        factor = torch.from_numpy(np.where(targets[:, None] == sources, stronger, weaker)).to(layer.weight)
        with torch.no_grad():
            layer.weight.mul_(spread_over_inputs(factor, layer.weight))
    return tuple(modules)


@torch.no_grad()
def normalise_units(model: nn.Module) -> None:
    """Rescale every hidden unit, in place, so that its incoming weights and its bias have the norm sqrt(2).

    Outgoing weights are multiplied by what the incoming ones were divided by, so a network whose units are ReLU (or
    anything else with f(c x) = c f(x) for c > 0) computes what it did. Units without incoming weights are left alone.

    Raises:
        GraphError: If the model is no chain of layers, or has weights beside it that rescaling would have to know.

    Source: Filan et al. 2021, training for clusterability.
    """
    layers = chain_of(model)
    known = {id(parameter) for layer in layers for parameter in layer.parameters()}
    others = [name for name, parameter in model.named_parameters() if id(parameter) not in known]
    if others:
        raise GraphError(
            f"units can be rescaled in a chain of layers alone, but the model also has {', '.join(others)}"
        )
    for layer, reader in pairwise(layers):
        incoming = layer.weight.flatten(1)
        if layer.bias is not None:
            incoming = torch.cat([incoming, layer.bias[:, None]], dim=1)
        scale = incoming.norm(dim=1) / 2**0.5
        scale = torch.where(scale > 0, scale, 1)
        layer.weight.div_(scale.reshape(-1, *[1] * (layer.weight.ndim - 1)))
        if layer.bias is not None:
            layer.bias.div_(scale)
        reader.weight.mul_(spread_over_inputs(scale[None, :].expand(len(reader.weight), -1), reader.weight))


def _normalised_half(sizes: Sequence[Tensor]) -> tuple[Float[Tensor, "even odd"], Float[Tensor, " units"]]:
    """Half of D^-1/2 A D^-1/2: units of layers 0, 2, ... by those of layers 1, 3, ...; and the roots of all degrees."""
    widths = [sizes[0].shape[1], *(len(size) for size in sizes)]
    even, odd = (np.cumsum([0, *widths[side::2]]) for side in (0, 1))
    half = sizes[0].new_zeros(int(even[-1]), int(odd[-1]))
    for layer, size in enumerate(sizes):
        position = layer // 2
        if layer % 2 == 0:
            half[even[position] : even[position + 1], odd[position] : odd[position + 1]] = size.T
        else:
            half[even[position + 1] : even[position + 2], odd[position] : odd[position + 1]] = size
    root_degrees = torch.cat([half.sum(dim=1), half.sum(dim=0)]).sqrt()
    inverse = torch.where(root_degrees > 0, 1 / root_degrees, 0)
    return inverse[: len(half), None] * half * inverse[len(half) :], root_degrees


def _leading(
    half: Float[Tensor, "even odd"], root_degrees: Float[Tensor, " units"], n_wanted: int
) -> tuple[Float[Tensor, " wanted"], Float[Tensor, "units wanted"]]:
    """The largest eigenvalues of the whole normalised adjacency after the first, and their vectors of length 1."""
    is_wide = half.shape[0] < half.shape[1]
    tall = half.T if is_wide else half
    known = root_degrees[: len(half)] if is_wide else root_degrees[len(half) :]
    squares, short = _gram_pairs(tall, known / known.norm(), n_wanted)
    similarities = squares.clamp(min=0, max=1).sqrt()
    long = tall @ short / similarities.clamp(min=1e-12)
    both = torch.cat([short, long] if is_wide else [long, short])
    return similarities, both / 2**0.5


def _gram_pairs(
    tall: Float[Tensor, "long short"], known: Float[Tensor, " short"], n_wanted: int
) -> tuple[Float[Tensor, " wanted"], Float[Tensor, "short wanted"]]:
    """The largest eigenpairs of tall' x tall after the first, whose vector is known."""
    n_short = tall.shape[1]
    if n_short <= max(LARGEST_EXACT_SIDE, n_wanted * (n_blocks(n_wanted, n_wanted) + 1)):
        values, vectors = torch.linalg.eigh(tall.T @ tall - torch.outer(known, known))
        return values[-n_wanted:].flip(0), vectors[:, -n_wanted:].flip(1)
    # which start it is matters only where eigenvalues coincide
    start = np.random.default_rng(0).standard_normal((1, n_short, n_wanted))
    found, rows = largest_eigenpairs(
        lambda block: tall.T @ (tall @ block),
        n_wanted,
        locked=known[None, :, None],
        start=torch.as_tensor(start).to(tall),
        tolerance=LANCZOS_TOLERANCE,
    )
    return torch.as_tensor(found[0]).to(tall), rows[0].to(tall)


def _edge_slopes(
    scaled: Float[Tensor, "units wanted"], similarities: Float[Tensor, " wanted"], widths: Sequence[int]
) -> list[Float[Tensor, "outputs inputs"]]:
    """D total / d edge, one matrix per layer; units are numbered even layers first, as in the half graph."""
    order = [*range(0, len(widths), 2), *range(1, len(widths), 2)]
    blocks = dict(zip(order, torch.split(scaled, [widths[layer] for layer in order]), strict=True))
    own = {layer: (similarities * block**2).sum(dim=1) for layer, block in blocks.items()}
    return [
        own[layer + 1][:, None] + own[layer] - 2 * blocks[layer + 1] @ blocks[layer].T
        for layer in range(len(widths) - 1)
    ]
