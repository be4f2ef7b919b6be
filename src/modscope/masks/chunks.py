"""How is a batch cut into one chunk per mask sample, and how are the outputs put together again?"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from modscope.calling import Inputs, shapes
from modscope.errors import MaskError, TaskError


def n_examples(inputs: Inputs, batch_dim: int) -> int:
    """Number of examples in a batch: the size of its first tensor along `batch_dim`.

    Raises:
        TaskError: If there is no tensor with that many axes.
    """
    for tensor in leaves(inputs):
        if isinstance(tensor, Tensor) and tensor.ndim > batch_dim:
            return tensor.shape[batch_dim]
    raise TaskError(f"inputs {shapes(inputs)} hold no tensor with axis {batch_dim}; set the task's batch_dim")


def cut(inputs: Inputs, n_chunks: int, batch_dim: int) -> list[Inputs]:
    """The batch in contiguous chunks whose sizes differ by at most one.

    Every tensor that has as many entries as there are examples, along `batch_dim` or else along one other axis, is
    cut there; everything else goes to each chunk whole.
    """
    count = n_examples(inputs, batch_dim)
    bounds = [count * chunk // n_chunks for chunk in range(n_chunks + 1)]
    return [_narrowed(inputs, count, batch_dim, start, stop - start) for start, stop in itertools.pairwise(bounds)]


def first_examples(inputs: Inputs, size: int, batch_dim: int) -> Inputs:
    """The first examples of a batch."""
    narrowed: Inputs = _narrowed(inputs, n_examples(inputs, batch_dim), batch_dim, 0, size)
    return narrowed


def batch_axes(some: Any, fewer: Any) -> list[int | None]:
    """Of each leaf of a model's outputs, the axis along which examples lie; None where there is none.

    Args:
        some: Outputs for a number of examples.
        fewer: Outputs for another number of examples.
    """
    pairs = zip(leaves(some), leaves(fewer), strict=True)
    return [_axis(one, other) for one, other in pairs]


def joined(outputs: Sequence[Any], axes: Sequence[int | None], sizes: Sequence[int]) -> Any:
    """The outputs of all chunks as one.

    Tensors are concatenated along their batch axis; tensors without one (a mean loss, say) are averaged, weighted by
    the examples of each chunk; anything else is the first chunk's.
    """
    if len(outputs) == 1:
        return outputs[0]
    columns = zip(*(list(leaves(output)) for output in outputs), strict=True)
    together = [_joined_leaf(column, axis, sizes) for column, axis in zip(columns, axes, strict=True)]
    return _rebuilt(outputs[0], iter(together))


def leaves(value: Any) -> list[Any]:
    """The entries of nested tuples, lists, dicts and dataclasses, in order."""
    if isinstance(value, Mapping):
        return [leaf for entry in value.values() for leaf in leaves(entry)]
    if isinstance(value, tuple | list):
        return [leaf for entry in value for leaf in leaves(entry)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [leaf for field in dataclasses.fields(value) for leaf in leaves(getattr(value, field.name))]
    return [value]


def _rebuilt(value: Any, entries: Any) -> Any:
    """`value` with its leaves replaced by the next entries."""
    kind: Callable[..., Any] = type(value)
    if isinstance(value, Mapping):
        replaced = {key: _rebuilt(entry, entries) for key, entry in value.items()}
        # transformers' ModelOutput is a dict and a dataclass, and takes keywords
        return kind(**replaced) if dataclasses.is_dataclass(value) else kind(replaced)
    if isinstance(value, tuple | list):
        several = [_rebuilt(entry, entries) for entry in value]
        return kind(*several) if hasattr(value, "_fields") else kind(several)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _rebuilt(getattr(value, field.name), entries) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    return next(entries)


def _narrowed(value: Any, count: int, batch_dim: int, start: int, length: int) -> Any:
    if isinstance(value, Tensor):
        axis = _axis_of_examples(value, count, batch_dim)
        return value if axis is None else value.narrow(axis, start, length)
    if isinstance(value, Mapping):
        return {key: _narrowed(entry, count, batch_dim, start, length) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        several = [_narrowed(entry, count, batch_dim, start, length) for entry in value]
        return type(value)(*several) if hasattr(value, "_fields") else type(value)(several)
    return value


def _axis_of_examples(tensor: Tensor, count: int, batch_dim: int) -> int | None:
    if tensor.ndim > batch_dim and tensor.shape[batch_dim] == count:
        return batch_dim
    fitting = [axis for axis, size in enumerate(tensor.shape) if size == count]
    return fitting[0] if len(fitting) == 1 else None


def _axis(one: Any, other: Any) -> int | None:
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return None
    different = [axis for axis, sizes in enumerate(zip(one.shape, other.shape, strict=True)) if sizes[0] != sizes[1]]
    if len(different) > 1:
        raise MaskError(
            f"an output has shape {tuple(one.shape)} for one number of examples and {tuple(other.shape)} for another: "
            "more than one axis depends on the batch, so it cannot be put together from chunks; take n_samples=1"
        )
    return different[0] if different else None


def _joined_leaf(column: Sequence[Any], axis: int | None, sizes: Sequence[int]) -> Any:
    first = column[0]
    if not isinstance(first, Tensor):
        return first
    if axis is not None:
        return torch.cat(list(column), dim=axis)
    if not first.is_floating_point():
        return first
    total = sum(sizes)
    return torch.stack([part * (size / total) for part, size in zip(column, sizes, strict=True)]).sum(dim=0)
