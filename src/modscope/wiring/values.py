"""What travels beside a tensor while a program is run on ids?

Every carried tensor has the shape of the activation it belongs to. Most are the same along most axes, and are kept
as expanded tensors (stride 0), so that an activation of a billion entries costs a few kilobytes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from modscope.errors import WiringError

NONE = -1  # the id of an entry that belongs to no unit; smaller ids are attention heads, see carry.py
NO_GAIN = 0


@dataclass(frozen=True, eq=False)
class Parameter:
    """A stored parameter, or a part of one: for every axis of the stored tensor, the position of each entry on it."""

    name: str
    stored_shape: tuple[int, ...]
    positions: tuple[Tensor, ...] | None = None  # None: the whole tensor, as it is stored

    def located(self) -> tuple[Tensor, ...]:
        """Position of each entry on each stored axis."""
        if self.positions is not None:
            return self.positions
        n_axes = len(self.stored_shape)
        return tuple(
            torch.arange(size).reshape([-1 if i == axis else 1 for i in range(n_axes)]).expand(self.stored_shape)
            for axis, size in enumerate(self.stored_shape)
        )


@dataclass(frozen=True, eq=False)
class Value:
    """One tensor of the program, as far as the wiring needs to know it.

    `ids` is the unit of each entry, `gains` the number of the gain that norms have put on it (None: all none),
    `known` the numbers themselves where no input can change them.
    """

    shape: tuple[int, ...]
    ids: Tensor | None = None
    gains: Tensor | None = None
    known: Tensor | None = None
    parameter: Parameter | None = None

    @property
    def stored(self) -> Parameter:
        """The parameter that this is.

        Raises:
            WiringError: If it is none: a rule took an activation for a weight.
        """
        if self.parameter is None:
            raise WiringError(f"a rule wanted a parameter, got an activation of shape {self.shape}")
        return self.parameter

    @property
    def unit_ids(self) -> Tensor:
        """The unit of each entry; -1 everywhere where there is none."""
        return torch.tensor(NONE).expand(self.shape) if self.ids is None else self.ids

    @property
    def gain_numbers(self) -> Tensor:
        """The gain of each entry, by its number."""
        return torch.tensor(NO_GAIN).expand(self.shape) if self.gains is None else self.gains

    def moved(self, op: Callable[[Tensor], Tensor]) -> Value:
        """The value after a shape operation: each carried tensor goes through it."""
        parameter = self.parameter
        if parameter is not None:
            positions = tuple(op(position) for position in parameter.located())
            parameter = replace(parameter, positions=positions)
        ids, gains, known = (None if t is None else op(t) for t in (self.ids, self.gains, self.known))
        if ids is not None:
            shape = tuple(ids.shape)
        else:
            shape = tuple(op(torch.zeros((), dtype=torch.int64).expand(self.shape)).shape)
        return Value(shape, ids, gains, known, parameter)

    def with_ids(self, ids: Tensor | None, gains: Tensor | None = None) -> Value:
        """An activation of the ids' shape."""
        return Value(self.shape if ids is None else tuple(ids.shape), ids, gains if ids is not None else None)


def spread(entries: Tensor, axes: Sequence[int], shape: Sequence[int]) -> Tensor:
    """`entries` laid along the given axes of a tensor of that shape, the same along all others; costs no memory."""
    view = [1] * len(shape)
    for size, axis in zip(entries.shape, axes, strict=True):
        view[axis] = size
    order = sorted(range(len(axes)), key=lambda i: axes[i])
    return entries.permute(order).reshape(view).expand(tuple(shape))


def thinned(*tensors: Tensor, keep: Sequence[int] = ()) -> tuple[Tensor, ...]:
    """Tensors of one shape, cut to one entry along the axes on which none of them changes (`keep`: axes left whole)."""
    for axis in range(tensors[0].ndim):
        is_same = all(tensor.stride(axis) == 0 for tensor in tensors)
        if axis not in keep and is_same and tensors[0].shape[axis] > 1:
            tensors = tuple(tensor.narrow(axis, 0, 1) for tensor in tensors)
    return tensors


def compact(tensor: Tensor) -> Tensor:
    """The same tensor, with stride 0 wherever it does not change."""
    shape = tensor.shape
    for axis in range(tensor.ndim):
        if tensor.shape[axis] > 1:
            first = tensor.narrow(axis, 0, 1)
            if tensor.stride(axis) == 0 or bool((tensor == first).all()):
                tensor = first
    return tensor.expand(shape)


def reshaped(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """The tensor in another shape; leading axes along which it is the same stay free of memory."""
    old, new = list(tensor.shape), list(shape)
    kept = 0
    while kept < min(len(old), len(new)) and old[kept] == new[kept] and tensor.stride(kept) == 0 and old[kept] > 0:
        kept += 1
    if not kept:
        return tensor.reshape(new)
    inner = tensor[(0,) * kept].reshape(new[kept:])
    return inner.expand(new)
