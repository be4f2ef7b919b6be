"""What happens where an activation meets a parameter: it is read, shifted or scaled by it, or started from it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from modscope.wiring.carry import Carry
from modscope.wiring.values import NONE, Parameter, Value, spread, thinned


def as_activation(carry: Carry, value: Value) -> Value:
    """A parameter used as an activation (learned queries, a start state) writes units along its last axis."""
    if value.parameter is None or value.ids is not None or not value.shape:
        return value
    last = len(value.shape) - 1
    ids = carry.write(value.parameter, value.shape[-1:], carry.depth_after(), key="activation")
    carry.connect(value.parameter, torch.full([1] * (last + 1), NONE), ids.reshape([1] * last + [-1]))
    return Value(value.shape, spread(ids, [last], value.shape))


def read(carry: Carry, value: Value, axes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Units and the numbers of their gains along some axes, as a weight reads them."""
    if value.ids is None:
        none = torch.full([value.shape[axis] for axis in axes], NONE)
        return none, torch.zeros_like(none)
    gains = value.gain_numbers.permute(*axes, *[axis for axis in range(len(value.shape)) if axis not in axes])
    while gains.ndim > len(axes):
        gains = gains.select(-1, 0)
    return carry.along(value.ids, axes), gains


def shifted(carry: Carry, value: Value, bias: Value | None) -> Value:
    """A layer's result plus its bias (which broadcasts to it)."""
    if bias is None or (bias.parameter is None and bias.ids is None):
        return value
    bias = bias.moved(lambda tensor: tensor.expand(value.shape))
    if bias.ids is not None:
        return carry.merged(value, bias, is_sum=True)
    return scaled_or_shifted(carry, value, bias, is_scale=False) if value.ids is not None else value


def scaled_or_shifted(carry: Carry, value: Value, other: Value, *, is_scale: bool) -> Value:
    """An activation times a parameter of its shape (a gain), or plus one (a bias)."""
    units = per_entry(carry, other.stored, value.unit_ids)
    carry.attach(other.stored, "scale" if is_scale else "bias", units)
    return carry.scaled(value, _numbers(carry, other)) if is_scale else value


def per_entry(carry: Carry, parameter: Parameter, ids: Tensor) -> Tensor:
    """The unit of each entry of a parameter laid over an activation; -1 where an entry meets several units."""
    positions = [thinned(position)[0] for position in parameter.located()]
    axes = [axis for axis in range(ids.ndim) if any(position.shape[axis] > 1 for position in positions)]
    (thin,) = thinned(ids, keep=axes)
    for axis in range(ids.ndim):
        if axis in axes:
            continue
        if carry.changes(thin, [axis]):
            return torch.full([1] * ids.ndim, NONE)
        thin = thin.amax(axis, keepdim=True) if thin.shape[axis] else thin
    return thin


def _numbers(carry: Carry, value: Value) -> Tensor:
    """The stored numbers of a parameter, as it is used."""
    numbers = carry.numbers[value.stored.name].detach()
    thin = [thinned(position)[0] for position in value.stored.located()]
    index = tuple(position.to(numbers.device) for position in thin)
    return numbers[index].expand(value.shape) if index else numbers.expand(value.shape)
