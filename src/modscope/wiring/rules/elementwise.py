"""How do ids travel when entries at one place meet? One operand passes through; several become one unit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from modscope.wiring.carry import Carry
from modscope.wiring.parameters import scaled_or_shifted
from modscope.wiring.rules.registry import rule
from modscope.wiring.values import Value

SUMS = {"add", "sub", "rsub", "lerp", "addcmul", "addcdiv", "where", "copy"}
PRODUCTS = {"mul", "div", "multiply", "true_divide"}


def elementwise(carry: Carry, *args: Any, **kwargs: Any) -> Value:
    """Any operation that works entry by entry: entries of its operands that meet are one unit."""
    values = [value for value in (*args, *kwargs.values()) if isinstance(value, Value)]
    shape = np.broadcast_shapes(*(value.shape for value in values))
    values = [value if value.shape == shape else value.moved(lambda tensor: tensor.expand(shape)) for value in values]
    activations = [value for value in values if value.ids is not None]
    parameters = [value for value in values if value.ids is None and value.parameter is not None]
    if not activations:  # a weight that is scaled or normalised before it is used stays that weight
        return max(parameters, key=_stored_size)
    result = activations[0]
    for value in activations[1:]:
        result = carry.merged(result, value, is_sum=carry.op_kind in SUMS)
    for value in parameters:
        result = scaled_or_shifted(carry, result, value, is_scale=carry.op_kind in PRODUCTS)
    return replace(result, known=None, parameter=None)


def _stored_size(value: Value) -> float:
    return 0.0 if value.parameter is None else float(np.prod(value.parameter.stored_shape))


@rule(
    "eq ne lt le gt ge logical_and logical_or logical_not logical_xor isnan isinf isfinite sign "
    "bitwise_and bitwise_or bitwise_not argmax argmin any all argsort bucketize nonzero isin "
    "zero fill uniform normal zeros_like ones_like full_like empty_like rand_like randn_like bernoulli "
    "new_zeros new_ones new_full new_empty"
)
def without_units(carry: Carry, *_: Any, **__: Any) -> Value:
    """A yes or no, a position, or a constant: none of them is a unit."""
    return Value(tuple(carry.result.shape))


@rule("where.self where.ScalarOther where.ScalarSelf")
def where(carry: Carry, condition: Value, *values: Any) -> Value:
    """Either value: both are one unit; the condition is none."""
    return elementwise(carry, Value(condition.shape), *values)


@rule("masked_fill")
def masked_fill(carry: Carry, value: Value, mask: Value, _fill: Any) -> Value:
    """The value, or a constant; the mask is no unit."""
    return elementwise(carry, value, Value(mask.shape))


@rule(
    "dropout alpha_dropout feature_dropout feature_alpha_dropout contiguous clone to _to_copy detach alias type_as "
    "lift_fresh lift_fresh_copy softmax _softmax log_softmax _log_softmax _safe_softmax special_softmax rrelu "
    "float_power hardswish relu6 hardtanh nan_to_num positive detach_copy silu mish elu hardsigmoid logsigmoid "
    "log_sigmoid softplus celu selu"
)
def pass_through(_carry: Carry, value: Value, *_: Any, **__: Any) -> Value:
    """Every entry stays the unit it was; a softmax over units is taken as a norm is."""
    return value


@rule("native_dropout")
def native_dropout(_carry: Carry, value: Value, *_: Any) -> tuple[Value, Value]:
    """Every entry stays the unit it was; the mask is none."""
    return value, Value(value.shape)


@rule("copy")
def copy(_carry: Carry, target: Value, source: Value, *_: Any) -> Value:
    """The target holds what the source held."""
    return source.moved(lambda tensor: tensor.expand(target.shape))


@rule("prelu _prelu_kernel")
def prelu(carry: Carry, value: Value, slope: Value) -> Value:
    """The slope belongs to its channel."""
    if slope.parameter is not None and slope.ids is None:
        after = 0 if len(slope.shape) == len(value.shape) else len(value.shape) - 2
        laid = slope.moved(lambda tensor: tensor[(..., *[None] * after)].expand(value.shape))
        scaled_or_shifted(carry, value, laid, is_scale=True)  # the gain of negative entries only: not folded
    return value


@rule("glu")
def gated(carry: Carry, value: Value, dim: int = -1) -> Value:
    """A value and its gate are one unit."""
    first = value.moved(lambda tensor: tensor.chunk(2, dim)[0])
    return carry.merged(first, value.moved(lambda tensor: tensor.chunk(2, dim)[1]), is_sum=False)


@rule("cumsum cumprod logcumsumexp")
def running_total(carry: Carry, value: Value, dim: int, *_: Any, **__: Any) -> Value:
    """A total over the positions so far keeps its unit; a total over units makes them one."""
    return carry.one_unit_along(value, [dim % len(value.shape)], "adds units up one after the other")
