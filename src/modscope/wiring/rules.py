"""How do ids travel through each operation? One small function per operation.

A rule takes the carry and the operation's own arguments, with a `Value` wherever the operation takes a tensor, and
gives back a `Value` (or a tuple of them). A new operation is a new function; nothing else changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from modscope.wiring.carry import FIRST_HEAD, Carry, as_activation
from modscope.wiring.values import NONE, Parameter, Value, compact, reshaped, spread, thinned

Rule: TypeAlias = Callable[..., Any]
aten = torch.ops.aten
RULES: dict[object, Rule] = {}


def rule(*ops: Any) -> Callable[[Rule], Rule]:
    """Register a function as the rule of some operations (one overload, or all overloads of a name)."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(ops, function))
        return function

    return register


def rule_for(op: Any) -> Rule | None:
    """The rule of an operation, of its name, of its out-of-place twin, or of its class; None if there is none."""
    packet = op.overloadpacket
    name = packet.__name__
    twin = getattr(aten, name[:-1], None) if name.endswith("_") and not name.endswith("__") else None
    for key in (op, packet, twin):
        if key in RULES:
            return RULES[key]
    return elementwise if torch.Tag.pointwise in op.tags else None


# -- shapes: the same operation on the ids -------------------------------------------------------------------------


def _moves(name: str) -> Rule:
    operation = getattr(aten, name)

    def move(_carry: Carry, value: Value, *args: Any, **kwargs: Any) -> Any:
        return value.moved(lambda tensor: operation(tensor, *args, **kwargs))

    return move


for _name in (
    "t transpose permute movedim numpy_T mT swapaxes squeeze unsqueeze expand select slice narrow diagonal flip roll "
    "tril triu repeat rot90 unfold pixel_shuffle pixel_unshuffle channel_shuffle expand_as tile diag_embed"
).split():
    rule(getattr(aten, _name))(_moves(_name))


@rule(aten.repeat_interleave.self_int)
def repeat_interleave(_carry: Carry, value: Value, *args: Any, **kwargs: Any) -> Value:
    """Each unit, several times."""
    kwargs.pop("output_size", None)
    return value.moved(lambda tensor: tensor.repeat_interleave(*args[:2], **kwargs))


@rule(aten.view.default, aten.reshape, aten._unsafe_view, aten.view_as, aten.reshape_as, aten._reshape_alias)
def reshape(_carry: Carry, value: Value, shape: Any, *_: Any) -> Value:
    """The same entries in another shape."""
    target = shape.shape if isinstance(shape, Value) else shape
    full = torch.zeros((), dtype=torch.bool).expand(value.shape).reshape(tuple(target)).shape
    return value.moved(lambda tensor: reshaped(tensor, full))


@rule(aten.flatten, aten.unflatten)
def refold(carry: Carry, value: Value, *args: Any, **kwargs: Any) -> Value:
    """Axes joined into one, or one axis split into several."""
    operation = torch.flatten if carry.op_name.startswith("aten.flatten") else torch.unflatten
    full = operation(torch.zeros((), dtype=torch.bool).expand(value.shape), *args, **kwargs).shape
    return value.moved(lambda tensor: reshaped(tensor, full))


@rule(aten.expand)
def expand(_carry: Carry, value: Value, shape: Sequence[int], **_: Any) -> Value:
    """The same entry, many times."""
    return value.moved(lambda tensor: tensor.expand(tuple(shape)))


def _splits(name: str) -> Rule:
    operation = getattr(aten, name)

    def split(_carry: Carry, value: Value, *args: Any, **kwargs: Any) -> list[Value]:
        n_parts = len(operation(torch.zeros((), dtype=torch.bool).expand(value.shape), *args, **kwargs))
        return [value.moved(lambda t, i=i: operation(t, *args, **kwargs)[i]) for i in range(n_parts)]  # type: ignore[misc]

    return split


for _name in "split split_with_sizes chunk unbind tensor_split unsafe_split unsafe_chunk".split():
    rule(getattr(aten, _name))(_splits(_name))


@rule(aten.cat, aten.concat, aten.concatenate)
def concatenate(carry: Carry, values: Sequence[Value], dim: int = 0) -> Value:
    """Entries side by side. A parameter among activations (a class token) writes the units it is put beside."""
    values = [value for value in values if value.shape != (0,)]
    axis = dim % len(values[0].shape)
    values = _with_parameters_placed(carry, values, axis)
    if all(value.ids is None for value in values):
        shape = list(values[0].shape)
        shape[axis] = sum(value.shape[axis] for value in values)
        return Value(tuple(shape))
    ids = _joined([_ids(value) for value in values], axis)
    gains = _joined([_gains(value) for value in values], axis)
    return Value(tuple(ids.shape), ids, gains)


@rule(aten.stack)
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
    neighbour = next((value for value in values if value.ids is not None), None)
    placed = []
    for value in values:
        if value.parameter is None or value.ids is not None:
            placed.append(value)
        elif neighbour is not None and neighbour.ids is not None and not carry.changes(neighbour.ids, [axis]):
            ids = neighbour.ids.narrow(axis, 0, 1).expand(value.shape)
            carry.attach(value.parameter, "bias", _per_entry(carry, value.parameter, ids))
            placed.append(Value(value.shape, ids))
        else:
            placed.append(as_activation(carry, value))
    return placed


@rule(aten.constant_pad_nd)
def pad_constant(_carry: Carry, value: Value, padding: Sequence[int], *_: Any) -> Value:
    """What is padded on belongs to no unit."""
    padded = value.moved(lambda tensor: torch.nn.functional.pad(tensor, list(padding), value=NONE))
    return replace(padded, gains=None if padded.gains is None else padded.gains.clamp(min=0), known=None)


@rule(aten.pad.default)
def pad(carry: Carry, value: Value, padding: Sequence[int], mode: str = "constant", fill: Any = None) -> Value:
    """Padding by a constant, or by the activation's own entries."""
    if mode == "constant":
        return pad_constant(carry, value, padding)
    return value.moved(lambda tensor: torch.nn.functional.pad(tensor.double(), list(padding), mode=mode).long())


# -- element by element --------------------------------------------------------------------------------------------


def elementwise(carry: Carry, *args: Any, **kwargs: Any) -> Value:
    """One operand passes through; several are merged: entries that meet become one unit."""
    values = [value for value in (*args, *kwargs.values()) if isinstance(value, Value)]
    shape = tuple(torch.broadcast_shapes(*(value.shape for value in values)))
    name = carry.op_name.split(".")[1].rstrip("_")
    values = [value.moved(lambda tensor: tensor.expand(shape)) if value.shape != shape else value for value in values]
    activations = [value for value in values if value.ids is not None]
    parameters = [value for value in values if value.ids is None and value.parameter is not None]
    if not activations:  # a weight that is scaled or normalised before it is used stays that weight
        return max(parameters, key=_stored_size) if parameters else Value(shape)
    result = activations[0]
    for value in activations[1:]:
        result = carry.merged(result, value, is_sum=name in SUMS)
    for value in parameters:
        result = _scaled_or_shifted(carry, result, value, is_scale=name in PRODUCTS)
    return replace(result, known=None, parameter=None)


SUMS = {"add", "sub", "rsub", "lerp", "addcmul", "addcdiv", "where", "copy"}
PRODUCTS = {"mul", "div", "multiply", "true_divide"}


def _stored_size(value: Value) -> int:
    return int(np.prod(value.parameter.stored_shape)) if value.parameter is not None else 0


def _scaled_or_shifted(carry: Carry, value: Value, other: Value, *, is_scale: bool) -> Value:
    """An activation times a parameter (a gain) or plus one (a bias)."""
    assert value.ids is not None
    assert other.parameter is not None
    units = _per_entry(carry, other.parameter, value.ids)
    carry.attach(other.parameter, "scale" if is_scale else "bias", units)
    return carry.scaled(value, _numbers(carry, other)) if is_scale else value


def _per_entry(carry: Carry, parameter: Parameter, ids: Tensor) -> Tensor:
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


def _numbers(carry: Carry, value: Value) -> Tensor | None:
    """The stored numbers of a parameter, as it is used."""
    assert value.parameter is not None
    numbers = carry.numbers[value.parameter.name]
    if numbers.is_meta:
        return None
    thin = [thinned(position)[0] for position in value.parameter.located()]
    return numbers.detach()[tuple(thin)].expand(value.shape) if thin else numbers.detach().expand(value.shape)


@rule(
    aten.eq, aten.ne, aten.lt, aten.le, aten.gt, aten.ge, aten.logical_and, aten.logical_or, aten.logical_not,
    aten.isnan, aten.isinf, aten.isfinite, aten.sign, aten.bitwise_and, aten.bitwise_or, aten.bitwise_not,
)  # fmt: skip
def compare(_carry: Carry, *args: Any, **_: Any) -> Value:
    """A yes or no is no unit."""
    shapes = [value.shape for value in args if isinstance(value, Value)]
    return Value(tuple(torch.broadcast_shapes(*shapes)))


@rule(aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf)
def where(carry: Carry, condition: Value, *values: Any) -> Value:
    """Either value: both are one unit; the condition is none."""
    return elementwise(carry, Value(condition.shape), *values)


@rule(aten.masked_fill)
def masked_fill(carry: Carry, value: Value, mask: Value, _fill: Any) -> Value:
    """The value, or a constant; the mask is no unit."""
    return elementwise(carry, value, Value(mask.shape))


@rule(
    aten.dropout, aten.alpha_dropout, aten.feature_dropout, aten.native_dropout, aten.contiguous, aten.clone, aten.to,
    aten._to_copy, aten.detach, aten.alias, aten.type_as, aten.lift_fresh_copy, aten.softmax, aten._softmax,
    aten.log_softmax, aten._log_softmax, aten.cumsum, aten.rrelu, aten.float_power, aten.hardswish, aten.relu6,
    aten.nan_to_num, aten.positive, aten.detach_copy, aten._safe_softmax,
    aten.silu, aten.mish, aten.zeros_like, aten.lift_fresh,
)  # fmt: skip
def pass_through(_carry: Carry, value: Value, *_: Any, **__: Any) -> Value:
    """Every entry stays the unit it was."""
    return value


@rule(aten.prelu)
def prelu(carry: Carry, value: Value, slope: Value) -> Value:
    """The slope belongs to its channel."""
    return _affine(carry, value, None, slope, 1)


@rule(aten.glu)
def gated(carry: Carry, value: Value, dim: int = -1) -> Value:
    """A value and its gate are one unit."""
    first, second = (value.moved(lambda tensor, i=i: tensor.chunk(2, dim)[i]) for i in (0, 1))  # type: ignore[misc]
    return carry.merged(first, second, is_sum=False)


# -- norms ---------------------------------------------------------------------------------------------------------


def _affine(carry: Carry, value: Value, gain: Value | None, bias: Value | None, axis: int) -> Value:
    """Gain and bias along the axes from `axis` on that they have; both belong to the units there."""
    for parameter, is_scale in ((gain, True), (bias, False)):
        if parameter is None or parameter.parameter is None or value.ids is None:
            continue
        after = len(value.shape) - axis - len(parameter.shape)
        laid = parameter.moved(lambda tensor: tensor[(..., *[None] * after)].expand(value.shape))
        value = _scaled_or_shifted(carry, value, laid, is_scale=is_scale)
    return value


@rule(aten.batch_norm, aten.instance_norm)
def batch_norm(
    carry: Carry, value: Value, gain: Value | None, bias: Value | None, _mean: Value | None, variance: Value | None,
    uses_batch: bool, _momentum: float, eps: float, *_: Any,
) -> Value:  # fmt: skip
    """Units stay; in evaluation each is multiplied by gain / sqrt(running variance + eps)."""
    if variance is not None and variance.known is not None and not uses_batch:
        factor = (variance.known.double() + eps).rsqrt()
        value = carry.scaled(value, factor.reshape([-1] + [1] * (len(value.shape) - 2)))
    return _affine(carry, value, gain, bias, 1)


@rule(aten._native_batch_norm_legit_no_training)
def batch_norm_no_training(carry: Carry, value: Value, *args: Any) -> tuple[Value, ...]:
    """As batch_norm, in evaluation."""
    gain, bias, mean, variance, momentum, eps = args
    return batch_norm(carry, value, gain, bias, mean, variance, False, momentum, eps), Value((0,)), Value((0,))


@rule(aten.native_batch_norm, aten.cudnn_batch_norm, aten._batch_norm_no_update)
def native_batch_norm(carry: Carry, value: Value, *args: Any) -> tuple[Value, ...]:
    """As batch_norm, with the statistics that it kept."""
    gain, bias, mean, variance, *rest = args
    uses_batch, momentum, eps = rest if len(rest) == 3 else (False, *rest)
    return (batch_norm(carry, value, gain, bias, mean, variance, uses_batch, momentum, eps), *[Value((0,))] * 3)


@rule(aten.layer_norm)
def layer_norm(
    carry: Carry, value: Value, shape: Sequence[int], gain: Value | None = None, bias: Value | None = None, *_: Any
) -> Value:
    """Units stay; gain and bias belong to them."""
    return _affine(carry, value, gain, bias, len(value.shape) - len(shape))


@rule(aten.native_layer_norm)
def native_layer_norm(carry: Carry, value: Value, shape: Sequence[int], *args: Any) -> tuple[Value, ...]:
    """As layer_norm, with the statistics that it used."""
    return layer_norm(carry, value, shape, *args), Value((0,)), Value((0,))


@rule(aten.rms_norm)
def rms_norm(carry: Carry, value: Value, shape: Sequence[int], gain: Value | None = None, *_: Any) -> Value:
    """Units stay; the gain belongs to them."""
    return _affine(carry, value, gain, None, len(value.shape) - len(shape))


@rule(aten._fused_rms_norm)
def fused_rms_norm(carry: Carry, value: Value, shape: Sequence[int], *args: Any) -> tuple[Value, ...]:
    """As rms_norm, with the statistic that it used."""
    return rms_norm(carry, value, shape, *args), Value((0,))


@rule(aten.group_norm)
def group_norm(
    carry: Carry, value: Value, _groups: int, gain: Value | None = None, bias: Value | None = None, *_: Any
) -> Value:
    """Units stay; gain and bias belong to them."""
    return _affine(carry, value, gain, bias, 1)


@rule(aten.native_group_norm)
def native_group_norm(carry: Carry, value: Value, gain: Value | None, bias: Value | None, *_: Any) -> tuple[Value, ...]:
    """As group_norm, with the statistics that it used."""
    return _affine(carry, value, gain, bias, 1), Value((0,)), Value((0,))


# -- fewer or more positions ---------------------------------------------------------------------------------------


def _ids(value: Value) -> Tensor:
    return torch.tensor(NONE).expand(value.shape) if value.ids is None else value.ids


def _gains(value: Value) -> Tensor:
    return torch.tensor(0).expand(value.shape) if value.gains is None else value.gains


def resized(carry: Carry, value: Value, shape: Sequence[int]) -> Value:
    """The value where the last axes have other sizes: entries along an axis that changes its size become one unit."""
    if value.ids is None:
        return Value(tuple(shape))
    changed = [axis for axis in range(len(shape)) if value.shape[axis] != shape[axis]]
    kept = [axis for axis in range(len(shape)) if axis not in changed]
    ids = carry.along(value.ids, kept) if any(value.ids.stride(axis) for axis in changed) else None
    first = value.moved(
        lambda tensor: tensor[tuple(slice(0, 1) if a in changed else slice(None) for a in range(tensor.ndim))]
    )
    ids = first.ids if ids is None else spread(ids, kept, first.shape)
    assert ids is not None
    return Value(
        tuple(shape), ids.expand(tuple(shape)), None if first.gains is None else first.gains.expand(tuple(shape))
    )


@rule(
    aten.max_pool1d, aten.max_pool2d, aten.max_pool3d, aten.avg_pool1d, aten.avg_pool2d, aten.avg_pool3d,
    aten.adaptive_avg_pool1d, aten.adaptive_avg_pool2d, aten.adaptive_avg_pool3d, aten._adaptive_avg_pool2d,
    aten._adaptive_avg_pool3d, aten.upsample_nearest1d, aten.upsample_nearest2d, aten.upsample_nearest3d,
    aten.upsample_bilinear2d, aten.upsample_bicubic2d, aten.upsample_linear1d, aten.upsample_trilinear3d,
    aten._upsample_nearest_exact2d, aten._upsample_bilinear2d_aa, aten._upsample_bicubic2d_aa,
    aten.mkldnn_max_pool2d, aten.fractional_max_pool2d,
)  # fmt: skip
def pool(carry: Carry, value: Value, *_: Any, **__: Any) -> Value:
    """Positions are joined or spread; channels stay."""
    return resized(carry, value, carry.result.shape)


@rule(
    aten.max_pool1d_with_indices, aten.max_pool2d_with_indices, aten.max_pool3d_with_indices,
    aten.adaptive_max_pool1d, aten.adaptive_max_pool2d, aten.adaptive_max_pool3d,
)  # fmt: skip
def pool_with_indices(carry: Carry, value: Value, *_: Any, **__: Any) -> tuple[Value, Value]:
    """As pool; the indices are no units."""
    shape = carry.result[0].shape
    return resized(carry, value, shape), Value(tuple(shape))


def reduced(carry: Carry, value: Value, axes: Sequence[int] | int | None, keep: bool) -> Value:
    """A statistic over positions keeps the unit; a statistic over units is no unit."""
    n_axes = len(value.shape)
    if axes is None or (isinstance(axes, Sequence) and not axes):
        axes = range(n_axes)
    over = sorted({axis % n_axes for axis in ([axes] if isinstance(axes, int) else axes)}) if n_axes else []
    first = value.moved(lambda tensor: _first_along(tensor, over, keep))
    if value.ids is None or carry.changes(value.ids, over):
        return Value(first.shape)
    highest = value.ids
    for axis in over:
        highest = highest.narrow(axis, 0, 1) if highest.stride(axis) == 0 else highest.amax(axis, keepdim=True)
    return Value(first.shape, highest.reshape(first.shape) if first.shape else highest.reshape(()), first.gains)


def _first_along(tensor: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    for axis in reversed(axes):
        tensor = tensor.narrow(axis, 0, 1) if keep else tensor.select(axis, 0)
    return tensor


@rule(aten.mean, aten.sum, aten.amax, aten.amin, aten.logsumexp, aten.nansum, aten.norm)
def reduce(carry: Carry, value: Value, dim: Any = None, keepdim: bool = False, **_: Any) -> Value:
    """A statistic along some axes."""
    return reduced(carry, value, dim, keepdim)


@rule(aten.linalg_vector_norm)
def vector_norm(
    carry: Carry, value: Value, _order: Any = 2, dim: Any = None, keepdim: bool = False, **_k: Any
) -> Value:
    """A norm along some axes."""
    return reduced(carry, value, dim, keepdim)


@rule(aten.std, aten.var)
def deviation(carry: Carry, value: Value, dim: Any = None, *args: Any, keepdim: bool = False, **_: Any) -> Value:
    """A deviation along some axes."""
    return reduced(carry, value, None if isinstance(dim, bool) else dim, keepdim or bool(args[1:] and args[1]))


@rule(aten.max.dim, aten.min.dim, aten.median.dim, aten.mode)
def extreme(carry: Carry, value: Value, dim: int = -1, keepdim: bool = False) -> tuple[Value, Value]:
    """An extreme along one axis, and where it is."""
    result = reduced(carry, value, dim, keepdim)
    return result, Value(result.shape)


@rule(aten.argmax, aten.argmin, aten.any, aten.all, aten.argsort, aten.bucketize, aten.nonzero)
def position(carry: Carry, *_: Any, **__: Any) -> Value:
    """A position or a yes or no is no unit."""
    return Value(carry.result.shape)


@rule(aten.var_mean, aten.std_mean)
def two_statistics(carry: Carry, *_: Any, **__: Any) -> tuple[Value, Value]:
    """Statistics that norms use."""
    return Value(carry.result[0].shape), Value(carry.result[1].shape)


# -- picking and placing -------------------------------------------------------------------------------------------


def _any_order(carry: Carry, value: Value, axes: Sequence[int]) -> Value:
    """The value, fit to be picked from at unknown places: entries along these axes are one unit."""
    if value.ids is None or not carry.changes(value.ids, axes):
        return value
    carry.warn("picks entries by a computed index; all units along the axis are taken as one")
    kept = [axis for axis in range(len(value.shape)) if axis not in axes]
    return value.with_ids(spread(carry.along(value.ids, kept), kept, value.shape))


def _index(entry: Value, limit: int) -> Tensor:
    """The index itself where it is known; else the first place, many times."""
    if entry.known is not None:
        return entry.known.cpu()
    return torch.zeros(entry.shape, dtype=torch.int64).clamp(max=max(limit - 1, 0))


@rule(aten.index)
def pick(carry: Carry, value: Value, indices: Sequence[Value | None]) -> Value:
    """Entries at an index; a computed index sees one unit along its axis."""
    indexed = [axis for axis, entry in enumerate(indices) if entry is not None]
    if any(entry is not None and entry.known is None for entry in indices):
        value = _any_order(carry, value, indexed)
    index = tuple(
        slice(None) if entry is None else _index(entry, value.shape[axis]) for axis, entry in enumerate(indices)
    )
    picked = value.moved(lambda tensor: tensor[index])
    if picked.shape == tuple(carry.result.shape):
        return picked
    return resized(carry, replace(picked, parameter=None), carry.result.shape)  # a mask whose count is only known here


@rule(aten.index_select)
def select_by_index(carry: Carry, value: Value, dim: int, index: Value) -> Value:
    """Entries along one axis."""
    return pick(carry, value, [*[None] * (dim % len(value.shape)), index])


@rule(aten.gather)
def gather(carry: Carry, value: Value, dim: int, index: Value, **_: Any) -> Value:
    """Entries along one axis, another choice at every place."""
    value = value if index.known is not None else _any_order(carry, value, [dim % len(value.shape)])
    where = _index(index, value.shape[dim])
    return value.moved(lambda tensor: tensor.gather(dim, where))


@rule(aten.topk, aten.sort)
def order(carry: Carry, value: Value, *args: Any, **_: Any) -> tuple[Value, Value]:
    """The largest entries along an axis, and where they are."""
    shape = carry.result[0].shape
    axes = [i for i in range(len(shape)) if shape[i] != value.shape[i]]
    dim = args[-2] if carry.op_name.startswith("aten.sort") and len(args) > 1 else -1
    value = _any_order(carry, value, axes or [dim % len(shape)])
    return resized(carry, value, shape), Value(tuple(shape))


@rule(aten.copy)
def copy(carry: Carry, target: Value, source: Value, *_: Any) -> Value:
    """The target holds what the source held."""
    return source.moved(lambda tensor: tensor.expand(target.shape))


@rule(aten.zero, aten.fill, aten.uniform, aten.normal, aten.new_zeros, aten.new_ones, aten.new_full, aten.new_empty,
      aten.ones_like, aten.full_like, aten.empty_like, aten.rand_like, aten.randn_like, aten.bernoulli)  # fmt: skip
def constant(carry: Carry, *_: Any, **__: Any) -> Value:
    """Nothing that an input could change."""
    return Value(tuple(carry.result.shape))


def _placed(carry: Carry, value: Value, source: Value, view: Callable[[Tensor], Tensor]) -> Value:
    """The value with the source's ids written over a part of it."""
    ids, gains = _ids(value).clone(), _gains(value).clone()
    part = view(ids)
    part.copy_(_ids(source).expand(part.shape))
    view(gains).copy_(_gains(source).expand(part.shape))
    return Value(value.shape, compact(ids), compact(gains))


@rule(aten.slice_scatter)
def place_slice(carry: Carry, value: Value, source: Value, *args: Any, **kwargs: Any) -> Value:
    """A slice, written over."""
    return _placed(carry, value, source, lambda tensor: aten.slice.Tensor(tensor, *args, **kwargs))


@rule(aten.select_scatter)
def place_row(carry: Carry, value: Value, source: Value, dim: int, index: int) -> Value:
    """A row, written over."""
    return _placed(carry, value, source, lambda tensor: tensor.select(dim, index))


@rule(aten.index_put)
def place(carry: Carry, value: Value, indices: Sequence[Value | None], source: Value, _add: bool = False) -> Value:
    """Entries at an index, written over; at a computed index old and new entries are one unit."""
    if all(entry is None or entry.known is not None for entry in indices):
        index = tuple(slice(None) if entry is None else _index(entry, 0) for entry in indices)
        ids = _ids(value).clone()
        ids[index] = _ids(source).expand(ids[index].shape)
        return value.with_ids(compact(ids))
    if source.ids is None:
        return value
    axes = [axis for axis, entry in enumerate(indices) if entry is not None]
    kept = [axis for axis in range(len(value.shape)) if axis not in axes]
    tail = source.ids.ndim - len(kept)
    ids = carry.along(source.ids, list(range(max(tail, 0), source.ids.ndim)))
    written = value.with_ids(spread(ids, kept[-ids.ndim :] if ids.ndim else [], value.shape))
    return carry.merged(_any_order(carry, value, axes), written, is_sum=True)


# -- attention heads -----------------------------------------------------------------------------------------------


def head_tags(carry: Carry, queries: Tensor, keys: Tensor) -> Tensor:
    """Ids of attention patterns: one head for every different row of query units; queries and keys join their head.

    Args:
        carry: What was found so far; heads are added to it.
        queries: Unit of each (row, query dimension).
        keys: Unit of each (row, key dimension).
    """
    rows, head_of_row = np.unique(carry.unions.find(queries.numpy()), axis=0, return_inverse=True)
    first, carry.n_heads = carry.n_heads, carry.n_heads + len(rows)
    heads = first + head_of_row.reshape(-1)
    for side in (queries.numpy(), keys.numpy()):
        carry.heads.extend(zip(heads.tolist(), side, strict=True))
    return torch.from_numpy(FIRST_HEAD - heads)


def join_heads(carry: Carry, tags: Tensor, values: Tensor) -> None:
    """Value units join the heads of the patterns that they are multiplied by, row by row."""
    for tag, units in zip(tags.tolist(), values.numpy(), strict=True):
        if tag <= FIRST_HEAD:
            carry.heads.append((FIRST_HEAD - tag, units))
