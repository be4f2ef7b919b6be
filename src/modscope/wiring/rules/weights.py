"""How do ids travel through layers? Linear layers, convolutions, embeddings: each row of a weight is a unit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from modscope.wiring.carry import Carry
from modscope.wiring.parameters import as_activation, read, shifted
from modscope.wiring.rules.products import contraction
from modscope.wiring.rules.registry import rule
from modscope.wiring.values import NONE, Value, spread


@rule("linear")
def linear(carry: Carry, value: Value, weight: Value, bias: Value | None = None) -> Value:
    """Each row of the weight is a unit that reads the last axis."""
    free = "abcdefgh"[: len(value.shape) - 1]
    return shifted(carry, contraction(carry, value, weight, (free + "z", "yz", free + "y")), bias)


# -- convolutions --------------------------------------------------------------------------------------------------


@rule("conv1d conv2d conv3d")
def convolution_by_name(carry: Carry, value: Value, weight: Value, bias: Value | None = None, *args: Any) -> Value:
    """Each output channel is a unit that reads its group's input channels."""
    groups = args[3] if len(args) > 3 else 1
    return _convolved(carry, value, weight, bias, groups, is_transposed=False)


@rule("conv_transpose1d conv_transpose2d conv_transpose3d")
def transposed_convolution(carry: Carry, value: Value, weight: Value, bias: Value | None = None, *args: Any) -> Value:
    """As a convolution; the weight is stored with its two sides exchanged."""
    groups = args[3] if len(args) > 3 else 1
    return _convolved(carry, value, weight, bias, groups, is_transposed=True)


@rule("convolution _convolution")
def convolution(
    carry: Carry, value: Value, weight: Value, bias: Value | None, _stride: Any, _padding: Any, _dilation: Any,
    transposed: bool, _output_padding: Any, groups: int, *_: Any,
) -> Value:  # fmt: skip
    """Any convolution, as it is recorded in a run."""
    return _convolved(carry, value, weight, bias, groups, is_transposed=transposed)


def _convolved(
    carry: Carry, value: Value, weight: Value, bias: Value | None, groups: int, *, is_transposed: bool
) -> Value:
    value, shape = as_activation(carry, value), tuple(carry.result.shape)
    axis = len(value.shape) - len(weight.shape) + 1  # zero for an example without a batch
    if weight.parameter is None:
        carry.warn("the kernel is no parameter; all units that go into it are taken as one unit")
        mixed = carry.mixed([value, weight])
        return Value(shape, None if mixed is None else mixed.expand(shape))
    sources, gains = read(carry, value, [axis])
    targets = carry.write(weight.parameter, [shape[axis]], carry.depth_after(sources))
    laid = [_on_kernel(table, weight.shape, groups, is_row=is_transposed) for table in (sources, gains)]
    rows = _on_kernel(targets, weight.shape, groups, is_row=not is_transposed)
    carry.connect(weight.parameter, laid[0], rows, laid[1])
    result = Value(shape, spread(targets, [axis], shape))
    if bias is None:
        return result
    after = len(shape) - axis - 1
    return shifted(carry, result, bias.moved(lambda tensor: tensor[(..., *[None] * after)]))


def _on_kernel(channels: Tensor, weight_shape: Sequence[int], groups: int, *, is_row: bool) -> Tensor:
    """Channels on a stored kernel (rows, columns of one group, positions), along its rows or its columns."""
    positions = [1] * (len(weight_shape) - 2)
    if is_row:
        return channels.reshape(-1, 1, *positions)
    table = channels.reshape(groups, -1)
    if groups > 1:  # each row has the columns of its own group
        table = table.repeat_interleave(weight_shape[0] // groups, 0)
    return table.reshape(*table.shape, *positions)


# -- embeddings ----------------------------------------------------------------------------------------------------


@rule("embedding")
def embedding(carry: Carry, weight: Value, _index: Value, *_: Any, **__: Any) -> Value:
    """Each dimension is a unit that reads no unit; rows of an activation stay the units they were."""
    shape = tuple(carry.result.shape)
    if weight.parameter is None:
        rows = carry.along(weight.unit_ids, range(1, len(weight.shape)))
        return Value(shape, spread(rows, range(len(shape) - rows.ndim, len(shape)), shape))
    targets = carry.write(weight.parameter, weight.shape[1:], 1, key="embedding")
    carry.connect(weight.parameter, torch.full([1] * len(weight.shape), NONE), targets[None])
    return Value(shape, spread(targets, range(len(shape) - targets.ndim, len(shape)), shape))
