"""What is MobileNet v1, as TensorFlow runs it?"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from modscope.errors import DataError


@dataclass(frozen=True)
class ConvLayer:
    """One convolution of a chain: its name, its shape, and whether ReLU6 follows.

    `n_groups` is 1, or the number of input channels where each channel is filtered alone (depthwise).
    """

    name: str
    n_inputs: int
    n_outputs: int
    kernel: int
    stride: int
    n_groups: int
    has_relu6: bool


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding: outputs ceil(size / stride), the odd pixel right and below."""

    def forward(self, input: Float[Tensor, "examples channels y x"]) -> Float[Tensor, "examples outputs v u"]:
        """The convolution of the padded pictures."""
        above, below = self._padding(input.shape[2], 0)
        left, right = self._padding(input.shape[3], 1)
        return super().forward(F.pad(input, (left, right, above, below)))

    def _padding(self, size: int, axis: int) -> tuple[int, int]:
        kernel, stride = self.kernel_size[axis], self.stride[axis]
        n_missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        return n_missing // 2, n_missing - n_missing // 2


def mobilenet_v1(layers: Sequence[ConvLayer]) -> nn.Sequential:
    """A plain chain of convolutions; before the last, `logits`, comes the mean over all pixels.

    The weights have the norms folded in, so there are none here.

    Source: Howard et al. 2017.
    """
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for layer in layers[:-1]:
        modules[layer.name] = _convolution(layer)
        if layer.has_relu6:
            modules[f"{layer.name}_relu6"] = nn.ReLU6()
    modules["mean"] = nn.AdaptiveAvgPool2d(1)
    modules["logits"] = _convolution(layers[-1])
    modules["flatten"] = nn.Flatten()
    return nn.Sequential(modules)


def read_layers(description: str, shapes: dict[str, tuple[int, ...]]) -> list[ConvLayer]:
    """The layers that a checkpoint describes.

    Args:
        description: "Conv2d_0:conv,k3,s2,relu6 | ...": name, kind, kernel, stride and activation of each, in order.
        shapes: Shape (out, in / groups, height, width) of the weight of every layer, by its name.

    Raises:
        DataError: If a layer is described in another way, or has no weight.
    """
    return [_read_layer(entry.strip(), shapes) for entry in description.split("|")]


def _read_layer(entry: str, shapes: dict[str, tuple[int, ...]]) -> ConvLayer:
    name, _, kind = entry.partition(":")
    try:
        layer_kind, kernel, stride, activation = kind.split(",")
        n_outputs, n_inputs = shapes[name][:2]
        is_depthwise = {"conv": False, "depthwise": True}[layer_kind]
        has_relu6 = {"linear": False, "relu6": True}[activation]
        n_groups = n_outputs if is_depthwise else 1
        return ConvLayer(name, n_inputs * n_groups, n_outputs, int(kernel[1:]), int(stride[1:]), n_groups, has_relu6)
    except (KeyError, ValueError) as error:
        raise DataError(f"layer '{entry}' should read 'name:conv,k3,s2,relu6' and have a weight: {error}") from error


def _convolution(layer: ConvLayer) -> SameConv2d:
    return SameConv2d(layer.n_inputs, layer.n_outputs, layer.kernel, layer.stride, groups=layer.n_groups)
