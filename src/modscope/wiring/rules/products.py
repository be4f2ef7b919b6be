"""How do ids travel through sums of products? Weights read and write; queries and keys meet; values are carried."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modscope.wiring.carry import FIRST_HEAD, Carry
from modscope.wiring.parameters import as_activation, read, shifted
from modscope.wiring.rules.registry import rule
from modscope.wiring.values import NONE, Value, spread


def contraction(carry: Carry, left: Value, right: Value, labels: tuple[str, str, str]) -> Value:
    """A sum of products, as einsum writes it: left labels, right labels, labels of the result."""
    left_labels, right_labels, out = labels
    if right.parameter is not None and right.ids is None:
        return _weighted(carry, left, right, labels)
    if left.parameter is not None and left.ids is None:
        return _weighted(carry, right, left, (right_labels, left_labels, out))
    return _product(carry, left, right, labels)


def _sizes(left: Value, right: Value, labels: tuple[str, str, str]) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for value, names in ((left, labels[0]), (right, labels[1])):
        for name, size in zip(names, value.shape, strict=True):
            sizes[name] = sizes.get(name, 1) if size == 1 else size
    return sizes


def _laid(entries: Tensor, names: Sequence[str], shape_of: dict[str, int], over: str) -> Tensor:
    """Entries with one axis per name, laid over the axes `over`; other axes have size one."""
    shape = [shape_of[name] if name in names else 1 for name in over]
    order = sorted(range(len(names)), key=lambda i: over.index(names[i]))
    return entries.permute(order).reshape(shape)


def _weighted(carry: Carry, value: Value, weight: Value, labels: tuple[str, str, str]) -> Value:
    """An activation times a weight: the contracted axes are read, the weight's own axes are written."""
    value_labels, weight_labels, out = labels
    sizes = _sizes(value, weight, labels)
    shape = [sizes[name] for name in out]
    common = [name for name in weight_labels if name in value_labels]  # contracted, or one weight for each
    contracted = [value_labels.index(name) for name in common if name not in out]
    written = [name for name in weight_labels if name in out]
    value = as_activation(carry, value)
    if value.ids is not None and _mixes_positions(
        carry, value.ids, contracted, [value_labels.index(n) for n in common]
    ):
        carry.warn(f"the weight '{weight.stored.name}' joins positions, not units; it is left out of the wiring")
        kept = [name for name in value_labels if name in out]
        first = value.ids.permute(*[value_labels.index(n) for n in kept], *contracted)
        for _ in contracted:
            first = first.select(-1, 0)
        return Value(tuple(shape), spread(first, [out.index(name) for name in kept], shape))
    sources, gains = read(carry, value, [value_labels.index(name) for name in common])
    axes = tuple(weight_labels.index(name) for name in written)
    targets = carry.write(weight.stored, [sizes[name] for name in written], carry.depth_after(sources), key=axes)
    stored_sizes = dict(zip(weight_labels, weight.shape, strict=True))
    carry.connect(
        weight.stored,
        _laid(sources, common, stored_sizes, weight_labels),
        _laid(targets, written, stored_sizes, weight_labels),
        _laid(gains, common, stored_sizes, weight_labels),
    )
    return Value(tuple(shape), spread(targets, [out.index(name) for name in written], shape))


def _mixes_positions(carry: Carry, ids: Tensor, contracted: Sequence[int], common: Sequence[int]) -> bool:
    """Whether units stand along other axes than those that the weight sums over."""
    others = [axis for axis in range(ids.ndim) if axis not in common]
    spans = math.prod(ids.shape[axis] for axis in contracted) > 1
    return spans and not carry.changes(ids, contracted) and carry.changes(ids, others)


def _product(carry: Carry, left: Value, right: Value, labels: tuple[str, str, str]) -> Value:
    """Two activations: units met along the sum are a pattern (query-key); units beside it are carried (values)."""
    left_labels, right_labels, out = labels
    sizes = _sizes(left, right, labels)
    shape = tuple(sizes[name] for name in out)
    summed = [name for name in left_labels if name in right_labels and name not in out]
    changing = [
        value.ids is not None and carry.changes(value.ids, [names.index(name) for name in summed])
        for value, names in ((left, left_labels), (right, right_labels))
    ]
    shared = [name for name in left_labels if name in right_labels and name in out]
    if all(changing):
        return _pattern(carry, left, right, labels, shared, summed, shape)
    _heads_of_product(carry, left, right, labels, shared, sizes)
    for value, names, changes in ((right, right_labels, changing[1]), (left, left_labels, changing[0])):
        if value.ids is None or changes or not bool((value.ids >= 0).any()):
            continue
        kept = [name for name in names if name in out]
        ids = carry.along(value.ids, [names.index(name) for name in kept]) if kept else value.ids.reshape(-1)[0]
        return Value(shape, _spread_named(ids, kept, out, shape))
    if any(changing):
        carry.warn(
            "units are multiplied by numbers that are no parameter; what is read there is left out of the wiring"
        )
    return Value(shape)


def _spread_named(entries: Tensor, names: Sequence[str], out: str, shape: Sequence[int]) -> Tensor:
    return spread(entries, [out.index(name) for name in names], shape)


def _rows(
    carry: Carry, value: Value, names: str, shared: Sequence[str], other: Sequence[str], sizes: dict[str, int]
) -> Tensor:
    """Units of a value: a row for each entry of the shared axes, a column for each of the others."""
    ids = carry.along(value.unit_ids, [names.index(name) for name in (*shared, *other)])
    shape = [sizes[name] for name in shared] + [sizes[name] for name in other]
    return ids.expand(shape).reshape(math.prod(shape[: len(shared)]), -1)


def _pattern(
    carry: Carry, left: Value, right: Value, labels: tuple[str, str, str],
    shared: Sequence[str], summed: Sequence[str], shape: Sequence[int],
) -> Value:  # fmt: skip
    """An attention pattern: no unit, but a head for each different row of query units."""
    sizes = _sizes(left, right, labels)
    queries = _rows(carry, left, labels[0], shared, summed, sizes)
    keys = _rows(carry, right, labels[1], shared, summed, sizes)
    carry.couple(queries, keys)
    tags = head_tags(carry, queries, keys).reshape([sizes[name] for name in shared])
    return Value(tuple(shape), _spread_named(tags, shared, labels[2], shape))


def _heads_of_product(
    carry: Carry, left: Value, right: Value, labels: tuple[str, str, str], shared: Sequence[str], sizes: dict[str, int]
) -> None:
    """If one side is an attention pattern, the other side's units join its heads."""
    for (pattern, names), (value, value_names) in (
        ((left, labels[0]), (right, labels[1])),
        ((right, labels[1]), (left, labels[0])),
    ):
        if pattern.ids is None or value.ids is None or bool((pattern.ids > NONE).any()):
            continue
        own = [name for name in value_names if name in labels[2] and name not in shared]
        own = [name for name in own if carry.changes(value.ids, [value_names.index(name)])]
        tags = _rows(carry, pattern, names, shared, [], sizes)[:, 0]
        join_heads(carry, tags, _rows(carry, value, value_names, shared, own, sizes))


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


# -- operations ----------------------------------------------------------------------------------------------------


@rule("matmul mm bmm mv dot")
def matmul(carry: Carry, left: Value, right: Value) -> Value:
    """A sum over the last axis of the left and the last but one of the right."""
    batch = "abcdefgh"[: max(len(left.shape), len(right.shape), 2) - 2]
    left_labels = batch[len(batch) + 2 - len(left.shape) :] + "xz" if len(left.shape) > 1 else "z"
    right_labels = batch[len(batch) + 2 - len(right.shape) :] + "zy" if len(right.shape) > 1 else "z"
    out = batch + ("x" if len(left.shape) > 1 else "") + ("y" if len(right.shape) > 1 else "")
    return contraction(carry, left, right, (left_labels, right_labels, out))


@rule("addmm baddbmm")
def add_product(carry: Carry, bias: Value, left: Value, right: Value, **_: Any) -> Value:
    """A product plus a bias."""
    return shifted(carry, matmul(carry, left, right), bias)


@rule("einsum")
def einsum(carry: Carry, equation: str, values: Sequence[Value], **_: Any) -> Value:
    """A product, as its equation says."""
    inputs, out = _einsum_labels(equation, [len(value.shape) for value in values])
    result, names = values[0], inputs[0]
    for i in range(1, len(values)):
        later = set("".join(inputs[i + 1 :])) | set(out)
        kept = "".join(dict.fromkeys(name for name in names + inputs[i] if name in later))
        result = contraction(carry, result, values[i], (names, inputs[i], kept))
        names = kept
    return result.moved(lambda tensor: torch.einsum(f"{names}->{out}", tensor)) if names != out else result


def _einsum_labels(equation: str, n_axes: Sequence[int]) -> tuple[list[str], str]:
    """Labels of each operand and of the result, with '...' written out."""
    left, arrow, out = equation.replace(" ", "").partition("->")
    operands = left.split(",")
    spare = [name for name in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if name not in equation]
    n_extra = [n - len(operand.replace("...", "")) for operand, n in zip(operands, n_axes, strict=True)]
    most = max(n_extra)
    extra = "".join(spare[:most])
    full = [operand.replace("...", extra[most - n :]) for operand, n in zip(operands, n_extra, strict=True)]
    if not arrow:
        every = "".join(full)
        out = extra + "".join(sorted(name for name in set(every) - set(extra) if every.count(name) == 1))
    return full, out.replace("...", extra)


@rule(
    "scaled_dot_product_attention _scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_flash_attention "
    "_scaled_dot_product_efficient_attention _scaled_dot_product_attention_math _scaled_dot_product_cudnn_attention "
    "_scaled_dot_product_fused_attention_overrideable"
)
def attention(carry: Carry, query: Value, key: Value, value: Value, *_: Any, **__: Any) -> Any:
    """Values, weighted by a pattern of queries and keys."""
    times = query.shape[-3] // key.shape[-3] if len(query.shape) > 3 else 1
    if times > 1:  # grouped queries: several heads read the same keys and values
        key, value = (v.moved(lambda tensor: tensor.repeat_interleave(times, -3)) for v in (key, value))
    batch = "abcdefgh"[: len(query.shape) - 2]
    pattern = contraction(carry, query, key, (batch + "xz", batch + "yz", batch + "xy"))
    result = contraction(carry, pattern, value, (batch + "xy", batch + "yv", batch + "xv"))
    if not isinstance(carry.result, tuple | list):
        return result
    return (result, *[Value(()) for _ in carry.result[1:]])
