"""Which operations read a weight so that masking its rows or columns is masking their outputs or inputs?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

INPUT, OUTPUT, TOKEN = "input", "output", "token"


@dataclass(frozen=True, eq=False)
class Read:
    """One read of a weight by a known operation.

    Args:
        inputs: What the weight is applied to.
        weight: The weight.
        bias: What is added to the outputs.
        places: By axis of the weight, what an index along it is: an input, an output, or a token.
        channel: The axis of inputs and outputs along which inputs and outputs are counted, from the end.
        run: The operation, on other inputs and with another bias.
    """

    inputs: Tensor
    weight: Tensor
    bias: Tensor | None
    places: Mapping[int, str]
    channel: int
    run: Callable[[Tensor, Tensor | None], Tensor]


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Read:
    return Read(input, weight, bias, {0: OUTPUT, 1: INPUT}, -1, lambda x, b: F.linear(x, weight, b))


def _convolution(function: Callable[..., Tensor], n_axes: int) -> Callable[..., Read | None]:
    def read(input: Tensor, weight: Tensor, bias: Tensor | None = None, *args: Any, **kwargs: Any) -> Read | None:
        if input.ndim != n_axes + 2:  # a single picture: its first axis holds no examples
            return None
        n_groups = args[3] if len(args) > 3 else kwargs.get("groups", 1)
        places = {0: OUTPUT, 1: INPUT} if n_groups == 1 else {0: OUTPUT}
        return Read(input, weight, bias, places, -1 - n_axes, lambda x, b: function(x, weight, b, *args, **kwargs))

    return read


def _addmm(input: Tensor, mat1: Tensor, mat2: Tensor, **scales: Any) -> Read | None:
    """The layer of GPT-2, whose weight is stored (inputs, outputs)."""
    if scales or input.ndim != 1:
        return None

    def run(inputs: Tensor, bias: Tensor | None) -> Tensor:
        return inputs @ mat2 if bias is None else torch.addmm(bias, inputs, mat2)

    return Read(mat1, mat2, input, {0: INPUT, 1: OUTPUT}, -1, run)


def _embedding(input: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Read:
    places = {0: TOKEN, 1: OUTPUT}
    return Read(input, weight, None, places, -1, lambda tokens, _: F.embedding(tokens, weight, *args, **kwargs))


KNOWN_READS: Mapping[Any, Callable[..., Read | None]] = {
    F.linear: _linear,
    F.conv1d: _convolution(F.conv1d, 1),
    F.conv2d: _convolution(F.conv2d, 2),
    F.conv3d: _convolution(F.conv3d, 3),
    torch.addmm: _addmm,
    F.embedding: _embedding,
}
