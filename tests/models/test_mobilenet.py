"""MobileNet: TensorFlow's padding, and what a checkpoint says of its layers."""

import pytest
import torch
import torch.nn.functional as F

from modscope.errors import DataError
from modscope.models.mobilenet import ConvLayer, SameConv2d, mobilenet_v1, read_layers


@pytest.mark.parametrize("size", [4, 5, 8, 9])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
def test_same_padding_agrees_with_its_definition(size, stride, kernel):
    """TensorFlow's rule, pixel by pixel: output u reads inputs u * stride - before + offset; outside is zero."""
    convolution = SameConv2d(1, 1, kernel, stride=stride, bias=False)
    picture = torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(size))
    n_outputs = -(-size // stride)
    before = max((n_outputs - 1) * stride + kernel - size, 0) // 2
    expected = torch.zeros(n_outputs, n_outputs)
    for v in range(n_outputs):
        for u in range(n_outputs):
            for j in range(kernel):
                for i in range(kernel):
                    y, x = v * stride - before + j, u * stride - before + i
                    if 0 <= y < size and 0 <= x < size:
                        expected[v, u] += (picture[0, 0, y, x] * convolution.weight[0, 0, j, i]).detach()
    assert torch.allclose(convolution(picture)[0, 0], expected, atol=1e-6)


def test_the_odd_pixel_is_padded_right_and_below():
    convolution = SameConv2d(1, 1, 3, stride=2, bias=False)
    torch.nn.init.ones_(convolution.weight)
    assert convolution(torch.ones(1, 1, 4, 4))[0, 0].tolist() == [[9, 6], [6, 4]]


def test_layers_are_read_from_their_description():
    shapes = {"first": (8, 3, 3, 3), "second": (8, 1, 3, 3), "logits": (5, 8, 1, 1)}
    layers = read_layers("first:conv,k3,s2,relu6 | second:depthwise,k3,s1,relu6 | logits:conv,k1,s1,linear", shapes)
    assert layers == [
        ConvLayer("first", 3, 8, 3, 2, 1, True),
        ConvLayer("second", 8, 8, 3, 1, 8, True),
        ConvLayer("logits", 8, 5, 1, 1, 1, False),
    ]


def test_the_chain_is_what_its_layers_say():
    layers = [ConvLayer("first", 3, 4, 3, 2, 1, True), ConvLayer("logits", 4, 5, 1, 1, 1, False)]
    network = mobilenet_v1(layers)
    pictures = 20 * torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    hidden = F.conv2d(F.pad(pictures, (0, 1, 0, 1)), network.first.weight, network.first.bias, stride=2).clamp(0, 6)
    expected = hidden.mean(dim=(2, 3)) @ network.logits.weight.flatten(1).T + network.logits.bias
    assert torch.allclose(network(pictures), expected, atol=1e-5)


@pytest.mark.parametrize(
    "entry", ["first", "first:pool,k3,s2,relu6", "first:conv,k3,s2,tanh", "third:conv,k3,s2,relu6"]
)
def test_other_descriptions_are_refused(entry):
    with pytest.raises(DataError, match="should read 'name:conv,k3,s2,relu6'"):
        read_layers(entry, {"first": (8, 3, 3, 3)})
