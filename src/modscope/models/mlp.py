"""What is the multilayer perceptron that the papers train?"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from modscope.errors import WiringError
from modscope.randomness import Rng, generator


def mlp(sizes: Sequence[int], *, rng: Rng) -> nn.Sequential:
    """A perceptron with ReLU between its layers, which are called `hidden1`, `hidden2`, ... and `output`.

    Weights and biases are uniform in +-1/sqrt(inputs of the layer), torch's own rule, but drawn from `rng` alone.

    Args:
        sizes: Units of the input, of every hidden layer, and of the output.
        rng: Draws the weights.

    Raises:
        WiringError: If there are fewer than two sizes, or one is not positive.
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise WiringError(f"an MLP needs the sizes of its input and its output at least, all positive, got {sizes}")
    rng = generator(rng)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for depth, (n_inputs, n_outputs) in enumerate(itertools.pairwise(sizes), start=1):
        if depth == len(sizes) - 1:
            layers["output"] = _linear(n_inputs, n_outputs, rng)
        else:
            layers[f"hidden{depth}"] = _linear(n_inputs, n_outputs, rng)
            layers[f"relu{depth}"] = nn.ReLU()
    return nn.Sequential(layers)


def _linear(n_inputs: int, n_outputs: int, rng: np.random.Generator) -> nn.Linear:
    # Made without values: nn.Linear's own would be drawn from torch's global generator.
    layer = nn.Linear(n_inputs, n_outputs, device="meta").to_empty(device="cpu")
    bound = n_inputs**-0.5
    with torch.no_grad():
        for parameter in (layer.weight, layer.bias):
            parameter.copy_(torch.from_numpy(rng.uniform(-bound, bound, size=parameter.shape)))
    return layer
