"""How do ids travel when positions are joined, picked or written over? Pooling, statistics, indexing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modscope.wiring.carry import Carry
from modscope.wiring.rules.registry import aten, rule
from modscope.wiring.values import Value, compact, spread

# -- pooling -------------------------------------------------------------------------------------------------------


def resized(carry: Carry, value: Value, shape: Sequence[int], axes: Sequence[int]) -> Value:
    """The value with other sizes along some axes, as pooling makes it."""
    for axis in axes:
        if value.ids is not None and carry.changes(value.ids, [axis]):
            value = value.with_ids(_binned(carry, value.ids, axis, shape[axis]))
        else:
            value = value.moved(_stretch(axis, [*value.shape[:axis], shape[axis], *value.shape[axis + 1 :]]))
    return value


def _stretch(axis: int, sizes: Sequence[int]) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor.narrow(axis, 0, 1).expand(tuple(sizes))


def _binned(carry: Carry, ids: Tensor, axis: int, size: int) -> Tensor:
    """Ids along an axis cut into bins, each bin one unit; where bins overlap, the whole axis is one unit."""
    n_bins = size if ids.shape[axis] > size > 0 and ids.shape[axis] % size == 0 else 1
    folded = ids.reshape([*ids.shape[:axis], n_bins, ids.shape[axis] // n_bins, *ids.shape[axis + 1 :]])
    binned = carry.along(folded, [i for i in range(folded.ndim) if i != axis + 1])
    return binned.expand([*ids.shape[:axis], size, *ids.shape[axis + 1 :]])


def _position_axes(carry: Carry, value: Value) -> range:
    """The axes of positions: as many as the operation's name says (max_pool2d: two)."""
    n_axes = int(next(letter for letter in carry.op_name if letter in "123"))
    return range(len(value.shape) - n_axes, len(value.shape))


@rule(
    "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
    "adaptive_avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d upsample_nearest1d upsample_nearest2d "
    "upsample_nearest3d upsample_bilinear2d upsample_bicubic2d upsample_linear1d upsample_trilinear3d "
    "_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_bilinear2d_aa _upsample_bicubic2d_aa "
    "mkldnn_max_pool2d grid_sampler_2d grid_sampler_3d"
)
def pool(carry: Carry, value: Value, *_: Any, **__: Any) -> Value:
    """Positions are joined or spread; channels stay."""
    return resized(carry, value, carry.result.shape, _position_axes(carry, value))


@rule(
    "max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices "
    "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d fractional_max_pool2d"
)
def pool_with_indices(carry: Carry, value: Value, *_: Any, **__: Any) -> tuple[Value, Value]:
    """As pool; the indices are no units."""
    shape = carry.result[0].shape
    return resized(carry, value, shape, _position_axes(carry, value)), Value(shape)


# -- statistics ----------------------------------------------------------------------------------------------------


def reduced(carry: Carry, value: Value, axes: Any, keep: bool) -> Value:
    """A statistic over positions keeps the unit; a statistic over units is no unit."""
    n_axes = len(value.shape)
    given = [axes] if isinstance(axes, int) else list(axes or range(n_axes))
    over = sorted(axis % n_axes for axis in given) if n_axes else []
    first = value.moved(lambda tensor: _first_along(tensor, over, keep))
    if value.ids is None or carry.changes(value.ids, over):
        return Value(first.shape)
    highest = value.ids  # an entry without a unit (a class token's place) says nothing
    for axis in over:
        highest = highest.narrow(axis, 0, 1) if highest.stride(axis) == 0 else highest.amax(axis, keepdim=True)
    return Value(first.shape, highest.reshape(first.shape), first.gains)


def _first_along(tensor: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    for axis in reversed(axes):
        tensor = tensor.narrow(axis, 0, 1) if keep else tensor.select(axis, 0)
    return tensor


@rule("mean sum amax amin logsumexp nansum nanmean prod.dim_int")
def reduce(carry: Carry, value: Value, dim: Any = None, keepdim: bool = False) -> Value:
    """A statistic along some axes."""
    return reduced(carry, value, dim, keepdim)


@rule("linalg_vector_norm norm.ScalarOpt_dim norm.Scalar")
def vector_norm(carry: Carry, value: Value, _order: Any = 2, dim: Any = None, keepdim: bool = False) -> Value:
    """A norm along some axes."""
    return reduced(carry, value, dim, keepdim)


@rule("std var")
def deviation(carry: Carry, value: Value, dim: Any = None, *args: Any, keepdim: bool = False) -> Value:
    """A deviation along some axes; older forms give (unbiased, keepdim) without names."""
    over = None if isinstance(dim, bool) else dim
    return reduced(carry, value, over, keepdim or bool(args[1:] and args[1]))


@rule("max.dim min.dim median.dim mode")
def extreme(carry: Carry, value: Value, dim: int = -1, keepdim: bool = False) -> tuple[Value, Value]:
    """An extreme along one axis, and where it is."""
    result = reduced(carry, value, dim, keepdim)
    return result, Value(result.shape)


@rule("max.default min.default median.default")
def overall(carry: Carry, value: Value) -> Value:
    """An extreme of everything."""
    return reduced(carry, value, None, False)


@rule("var_mean std_mean")
def two_statistics(carry: Carry, *_: Any, **__: Any) -> tuple[Value, Value]:
    """Statistics that norms use."""
    return Value(carry.result[0].shape), Value(carry.result[1].shape)


# -- picking and placing -------------------------------------------------------------------------------------------

PICKS = "picks entries by a computed index"


def _index(entry: Value) -> Tensor:
    """The index itself where it is known; else the first place, as many times."""
    return torch.zeros(entry.shape, dtype=torch.int64) if entry.known is None else entry.known


@rule("index")
def pick(carry: Carry, value: Value, indices: Sequence[Value | None]) -> Value:
    """Entries at an index; a computed index sees one unit along its axis."""
    axes = [axis for axis, entry in enumerate(indices) if entry is not None]
    if any(entry is not None and entry.known is None for entry in indices):
        value = carry.one_unit_along(value, axes, PICKS)
    index = tuple(slice(None) if entry is None else _index(entry) for entry in indices)
    picked = value.moved(lambda tensor: tensor[index])
    changed = [axis for axis, size in enumerate(carry.result.shape) if picked.shape[axis : axis + 1] != (size,)]
    return resized(carry, replace(picked, parameter=None), carry.result.shape, changed) if changed else picked


@rule("index_select")
def select_by_index(carry: Carry, value: Value, dim: int, index: Value) -> Value:
    """Entries along one axis."""
    return pick(carry, value, [*[None] * (dim % len(value.shape)), index])


@rule("gather take_along_dim")
def gather(carry: Carry, value: Value, dim: int, index: Value, **_: Any) -> Value:
    """Entries along one axis, another choice at every place."""
    if index.known is None:
        value = carry.one_unit_along(value, [dim % len(value.shape)], PICKS)
    return value.moved(lambda tensor: tensor.gather(dim, _index(index)))


@rule("topk sort")
def order(carry: Carry, value: Value, *args: Any, dim: int = -1, **_: Any) -> tuple[Value, Value]:
    """The largest entries along an axis, and where they are."""
    shape = carry.result[0].shape
    numbers = [arg for arg in args if isinstance(arg, int) and not isinstance(arg, bool)]
    is_topk = carry.op_kind == "topk"
    axis = (numbers[is_topk] if len(numbers) > is_topk else dim) % len(shape)
    value = carry.one_unit_along(value, [axis], "puts entries in a computed order")
    return resized(carry, value, shape, [axis]), Value(shape)


def _placed(value: Value, source: Value, view: Callable[[Tensor], Tensor]) -> Value:
    """The value with the source's ids written over a part of it."""

    def written(old: Tensor, new: Tensor) -> Tensor:
        whole = old.clone(memory_format=torch.contiguous_format)
        part = view(whole)
        part.copy_(new.expand(part.shape))
        return compact(whole)

    ids, gains = written(value.unit_ids, source.unit_ids), written(value.gain_numbers, source.gain_numbers)
    return Value(value.shape, ids, gains)


@rule("slice_scatter")
def place_slice(_carry: Carry, value: Value, source: Value, *args: Any, **kwargs: Any) -> Value:
    """A slice, written over."""
    return _placed(value, source, lambda tensor: aten.slice.Tensor(tensor, *args, **kwargs))


@rule("select_scatter")
def place_row(_carry: Carry, value: Value, source: Value, dim: int, index: int) -> Value:
    """A row, written over."""
    return _placed(value, source, lambda tensor: tensor.select(dim, index))


@rule("index_put _index_put_impl")
def place(carry: Carry, value: Value, indices: Sequence[Value | None], source: Value, *_: Any) -> Value:
    """Entries at an index, written over; at a computed index old and new entries are one unit."""
    if all(entry is None or entry.known is not None for entry in indices):
        index = tuple(slice(None) if entry is None else _index(entry) for entry in indices)
        whole = value.unit_ids.clone(memory_format=torch.contiguous_format)
        whole[index] = source.unit_ids.expand(whole[index].shape)
        return value.with_ids(compact(whole))
    if source.ids is None:
        return value
    axes = [axis for axis, entry in enumerate(indices) if entry is not None]
    ids = _along_kept(carry, value, source.ids, axes, [entry for entry in indices if entry is not None])
    if ids is None:
        carry.warn("writes to a computed index; all units on both sides are taken as one")
        mixed = carry.mixed([value, source])
        return value.with_ids(None if mixed is None else mixed.expand(value.shape))
    kept = [axis for axis in range(len(value.shape)) if axis not in axes]
    written = value.with_ids(spread(ids, kept, value.shape))
    return carry.merged(carry.one_unit_along(value, axes, PICKS), written, is_sum=True)


def _along_kept(
    carry: Carry, value: Value, ids: Tensor, axes: Sequence[int], entries: Sequence[Value]
) -> Tensor | None:
    """What is written, along the axes that are not indexed; None where it cannot be told (masks, scattered axes)."""
    n_index = max(len(entry.shape) for entry in entries)
    index_shape = torch.Size(np.broadcast_shapes(*(entry.shape for entry in entries)))
    full = (*value.shape[: axes[0]], *index_shape, *value.shape[axes[-1] + 1 :])
    is_one_block = list(axes) == list(range(axes[0], axes[-1] + 1))
    fits = all(a in (1, b) for a, b in zip(reversed(ids.shape), reversed(full), strict=False))
    if not is_one_block or not fits or ids.ndim > len(full):
        return None
    return carry.along(ids.expand(full), [axis for axis in range(len(full)) if not 0 <= axis - axes[0] < n_index])
