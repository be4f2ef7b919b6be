"""How do ids travel when entries only change their place? The same operation is done to the ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from modscope.wiring.carry import Carry
from modscope.wiring.parameters import as_activation, per_entry
from modscope.wiring.rules.registry import Rule, aten, named, rule
from modscope.wiring.values import NONE, Value, reshaped

MOVES = (
    "t transpose permute movedim numpy_T mT swapaxes squeeze unsqueeze expand select slice narrow diagonal flip roll "
    "tril triu repeat rot90 unfold pixel_shuffle pixel_unshuffle channel_shuffle tile repeat_interleave.self_int "
    "diag_embed im2col"
)
SPLITS = "split split_with_sizes chunk unbind tensor_split unsafe_split unsafe_chunk"


def _move(operation: Any) -> Rule:
    def move(_carry: Carry, value: Value, *args: Any, **kwargs: Any) -> Value:
        return value.moved(lambda tensor: operation(tensor, *args, **kwargs))

    return move


def _split(operation: Any) -> Rule:
    def split(carry: Carry, value: Value, *args: Any, **kwargs: Any) -> list[Value]:
        def part(index: int) -> Value:
            return value.moved(lambda tensor: operation(tensor, *args, **kwargs)[index])

        return [part(index) for index in range(len(carry.result))]

    return split


for _operation in named(MOVES):
    rule(_operation)(_move(_operation))
for _operation in named(SPLITS):
    rule(_operation)(_split(_operation))


@rule("view.default reshape flatten unflatten _unsafe_view view_as reshape_as _reshape_alias")
def reshape(carry: Carry, value: Value, *_: Any, **__: Any) -> Value:
    """The same entries in another shape."""
    return value.moved(lambda tensor: reshaped(tensor, carry.result.shape))


@rule("as_strided")
def as_strided(_carry: Carry, value: Value, size: Sequence[int], *args: Any) -> Value:
    """A view given by its steps in memory, as if the activation lay there in order."""
    if tuple(size) == value.shape:
        return value
    return value.moved(lambda tensor: tensor.contiguous().as_strided(tuple(size), *args))


@rule("expand_as")
def expand_as(_carry: Carry, value: Value, other: Value) -> Value:
    """The same entries, many times."""
    return value.moved(lambda tensor: tensor.expand(other.shape))


@rule("cat concat concatenate")
def concatenate(carry: Carry, values: Sequence[Value], dim: int = 0) -> Value:
    """Entries side by side. A parameter among activations (a class token) writes the units it is put beside."""
    values = [value for value in values if value.shape != (0,)]
    axis = dim % len(values[0].shape)
    values = _with_parameters_placed(carry, values, axis)
    ids = _joined([value.unit_ids for value in values], axis)
    return Value(tuple(ids.shape), ids, _joined([value.gain_numbers for value in values], axis))


@rule("stack")
def stack(carry: Carry, values: Sequence[Value], dim: int = 0) -> Value:
    """Entries side by side along a new axis."""
    axis = dim % (len(values[0].shape) + 1)
    return concatenate(carry, [value.moved(lambda tensor: tensor.unsqueeze(axis)) for value in values], axis)


def _joined(tensors: Sequence[Tensor], axis: int) -> Tensor:
    """Concatenation that leaves axes free of memory on which no part changes."""
    shape = list(tensors[0].shape)
    shape[axis] = sum(tensor.shape[axis] for tensor in tensors)
    for other in range(len(shape)):
        if other != axis and all(tensor.stride(other) == 0 for tensor in tensors) and shape[other] > 1:
            tensors = [tensor.narrow(other, 0, 1) for tensor in tensors]
    return torch.cat(list(tensors), axis).expand(shape)


def _with_parameters_placed(carry: Carry, values: Sequence[Value], axis: int) -> list[Value]:
    """Parameters beside activations get the ids of their neighbours, if these do not change along the axis."""
    neighbour = next((value.ids for value in values if value.ids is not None), None)
    placed = []
    for value in values:
        if value.parameter is None or value.ids is not None:
            placed.append(value)
        elif neighbour is not None and not carry.changes(neighbour, [axis]):
            ids = neighbour.narrow(axis, 0, 1).expand(value.shape)
            carry.attach(value.parameter, "bias", per_entry(carry, value.parameter, ids))
            placed.append(Value(value.shape, ids))
        else:
            placed.append(as_activation(carry, value))
    return placed


@rule("constant_pad_nd")
def pad_constant(_carry: Carry, value: Value, padding: Sequence[int], *_: Any) -> Value:
    """What is padded on belongs to no unit."""
    padded = value.moved(lambda tensor: torch.nn.functional.pad(tensor, list(padding), value=NONE))
    return replace(padded, gains=None if padded.gains is None else padded.gains.clamp(min=0), parameter=None)


@rule("pad")
def pad(carry: Carry, value: Value, padding: Sequence[int], mode: str = "constant", *_: Any) -> Value:
    """Padding by a constant, or by the activation's own entries."""
    if mode == "constant":
        return pad_constant(carry, value, padding)
    return value.moved(lambda tensor: torch.nn.functional.pad(tensor.double(), list(padding), mode=mode).long())


@rule("reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d")
def pad_by_name(carry: Carry, value: Value, padding: Sequence[int]) -> Value:
    """Padding by the activation's own entries."""
    return pad(carry, value, padding, "reflect" if "reflection" in carry.op_name else "replicate")


__all__ = ["aten", "concatenate"]
