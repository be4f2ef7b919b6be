"""Which layers of a model follow each other, one reading what the one before has written?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from jaxtyping import Float
from torch import Tensor, nn

from modscope.errors import GraphError

Layer: TypeAlias = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


def chain_of(model: nn.Module) -> list[Layer]:
    """The linear and convolutional layers in the order in which they stand in the model.

    Raises:
        GraphError: If there are none, or one does not read the outputs of the one before.
    """
    layers = [module for module in model.modules() if isinstance(module, Layer)]
    if not layers:
        raise GraphError("the model has no linear or convolutional layers")
    edge_sizes([layer.weight for layer in layers])
    return layers


def edge_sizes(weights: Sequence[Tensor]) -> list[Float[Tensor, "outputs inputs"]]:
    """The size of the weights between two units, for every layer: absolute values added up over kernels and pixels.

    Args:
        weights: (out, in, ...) of every layer. A layer after flattening has all pixels of a channel side by side.

    Raises:
        GraphError: If a layer does not read the outputs of the one before.
    """
    sizes: list[Tensor] = []
    for index, weight in enumerate(weights):
        n_inputs = len(weights[index - 1]) if index else weight.shape[1]
        if weight.ndim < 2 or weight.shape[1] % n_inputs:
            raise GraphError(
                f"layer {index} of the chain should read {n_inputs} units (or several values of each), "
                f"but its weights have the shape {tuple(weight.shape)}"
            )
        sizes.append(weight.abs().reshape(len(weight), n_inputs, -1).sum(dim=2))
    return sizes


def spread_over_inputs(factor: Float[Tensor, "outputs inputs"], weight: Tensor) -> Tensor:
    """One factor per pair of units, in a shape that broadcasts to the layer's weight."""
    n_values = weight.shape[1] // factor.shape[1]
    return factor.repeat_interleave(n_values, dim=1).reshape(*weight.shape[:2], *[1] * (weight.ndim - 2))
