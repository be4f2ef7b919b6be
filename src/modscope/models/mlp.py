"""What is the multilayer perceptron that the papers train?"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import nn

from modscope.errors import WiringError
from modscope.randomness import Rng, generator

Initial: TypeAlias = Literal["fan_in", "glorot"]


def mlp(sizes: Sequence[int], *, rng: Rng, initial: Initial = "fan_in") -> nn.Sequential:
    """A perceptron with ReLU between its layers, which are called `hidden1`, `hidden2`, ... and `output`.

    Args:
        sizes: Units of the input, of every hidden layer, and of the output.
        rng: Draws the weights; torch's global generator is not used.
        initial: "fan_in": weights and biases uniform in +-1/sqrt(inputs), torch's own rule, as Csordás et al. 2021;
            "glorot": weights uniform in +-sqrt(6 / (inputs + outputs)), biases 0, as Filan et al. 2021.

    Raises:
        WiringError: If there are fewer than two sizes, one is not positive, or there is no such `initial`.
    """
    if len(sizes) < 2 or min(sizes) < 1:
        raise WiringError(f"an MLP needs the sizes of its input and its output at least, all positive, got {sizes}")
    if initial not in ("fan_in", "glorot"):
        raise WiringError(f"initial must be 'fan_in' or 'glorot', got {initial!r}")
    rng = generator(rng)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for depth, (n_inputs, n_outputs) in enumerate(itertools.pairwise(sizes), start=1):
        if depth == len(sizes) - 1:
            layers["output"] = _linear(n_inputs, n_outputs, rng, initial)
        else:
            layers[f"hidden{depth}"] = _linear(n_inputs, n_outputs, rng, initial)
            layers[f"relu{depth}"] = nn.ReLU()
    return nn.Sequential(layers)


def _linear(n_inputs: int, n_outputs: int, rng: np.random.Generator, initial: Initial) -> nn.Linear:
    # Made without values: nn.Linear's own would be drawn from torch's global generator.
    layer = nn.Linear(n_inputs, n_outputs, device="meta").to_empty(device="cpu")
    fan_in = n_inputs**-0.5
    bounds = (fan_in, fan_in) if initial == "fan_in" else ((6 / (n_inputs + n_outputs)) ** 0.5, 0.0)
    with torch.no_grad():
        for parameter, bound in zip((layer.weight, layer.bias), bounds, strict=True):
            parameter.copy_(torch.from_numpy(rng.uniform(-bound, bound, size=parameter.shape)))
    return layer
