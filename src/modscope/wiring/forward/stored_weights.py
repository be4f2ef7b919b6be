"""Which weight is a tensor in memory, and which units stand on its two sides?

A parameter is recognised by the memory that it lives in, so that a view of it (transposed, sliced, reshaped, one of
several parameters in one buffer) is still that parameter, and so is a copy that has been followed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from modscope.errors import ModscopeError
from modscope.wiring.wiring import Connection, Wiring


@dataclass(frozen=True, eq=False)
class StoredWeight:
    """A parameter (or a copy of one) in memory, with the connections that it holds."""

    name: str
    start: int  # first element in its storage
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    connections: tuple[tuple[int, Connection], ...]  # with their index in the wiring
    ids: tuple[tuple[np.ndarray, np.ndarray], ...]  # sources and targets of each connection, broadcastable to `shape`

    @property
    def end(self) -> int:
        """One past the last element in its storage."""
        return self.start + int(np.prod(self.shape))

    def at(self, elements: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Sources and targets, per connection, of the elements with these places in the storage."""
        places = _unravelled(elements - self.start, self.shape, self.strides)
        return [
            (np.broadcast_to(sources, self.shape)[places], np.broadcast_to(targets, self.shape)[places])
            for sources, targets in self.ids
        ]


def _unravelled(elements: np.ndarray, shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Indices of elements of a dense tensor, whatever the order of its axes in memory (channels last, transposed)."""
    indices = [np.zeros_like(elements)] * len(shape)
    rest = elements
    for axis in sorted(range(len(shape)), key=lambda axis: (-strides[axis], -shape[axis])):
        if shape[axis] > 1:
            indices[axis], rest = rest // strides[axis], rest % strides[axis]
    return tuple(indices)


@dataclass(frozen=True, eq=False)
class Sides:
    """The units on the two sides of a weight as one operation uses it."""

    key: int
    sources: np.ndarray  # (..., contracted): one unit per entry that is summed over
    targets: np.ndarray  # (..., outputs)


class WeightTable:
    """Finds which stored weight a tensor is (a view of).

    Args:
        model, wiring: The network.
        wanted: Names of the weights to find.
        error: What to raise if the model and the wiring do not fit.
    """

    def __init__(self, model: nn.Module, wiring: Wiring, wanted: set[str], error: type[ModscopeError]) -> None:
        self._error = error
        self._by_storage: dict[int, list[StoredWeight]] = {}
        self._kept: list[Tensor] = []  # copies of weights stay alive, so that their memory is not used again
        self._sides: dict[tuple[object, ...], list[Sides]] = {}
        parameters = dict(model.named_parameters(remove_duplicate=False))
        for name in sorted(wanted):
            if name not in parameters:
                raise self._error(
                    f"the wiring has a weight '{name}' which the model has not; give the wiring of this very model "
                    "(read_wiring(model, example_inputs))"
                )
            self._add(name, parameters[name], wiring)

    def _add(self, name: str, weight: Tensor, wiring: Wiring) -> None:
        shape = tuple(weight.shape)
        connections = tuple(
            (index, connection) for index, connection in enumerate(wiring.connections) if connection.parameter == name
        )
        for _, connection in connections:
            if tuple(connection.weight.shape) != shape:
                raise self._error(
                    f"weight '{name}' has shape {shape}, the wiring says {tuple(connection.weight.shape)}; give the "
                    "wiring of this very model (read_wiring(model, example_inputs))"
                )
        ids = tuple((connection.sources, connection.targets) for _, connection in connections)
        self._store(weight, StoredWeight(name, int(weight.storage_offset()), shape, weight.stride(), connections, ids))

    def _store(self, tensor: Tensor, stored: StoredWeight) -> None:
        self._by_storage.setdefault(storage_of(tensor), []).append(stored)

    def find(self, tensor: object) -> StoredWeight | None:
        """The stored weight that `tensor` is, or is a view of; None if it is none of ours."""
        if not isinstance(tensor, Tensor):
            return None
        stored = self._by_storage.get(storage_of(tensor))
        if stored is None:
            return None
        offset = tensor.storage_offset()
        return next((weight for weight in stored if weight.start <= offset < weight.end), None)

    def copied(self, original: Tensor, weight: StoredWeight, copy: Tensor, op: Callable[..., Tensor]) -> None:
        """Remember `copy = op(original)`, a copy of a weight with its entries moved, as that weight."""
        elements = op(torch.from_numpy(_elements(original).copy()).to(original.device)).cpu().numpy()
        shape = tuple(copy.shape)
        ids = tuple(weight.at(elements.reshape(shape)))
        self._kept.append(copy)
        self._store(
            copy, StoredWeight(weight.name, int(copy.storage_offset()), shape, copy.stride(), weight.connections, ids)
        )

    def sides(self, tensor: Tensor, weight: StoredWeight, contracted: int) -> list[Sides]:
        """Units on the two sides of `tensor`, per connection that fits: sources lie along axis `contracted` alone."""
        key = (weight.name, id(weight), tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), contracted)
        if key not in self._sides:
            self._sides[key] = list(self._fitting(tensor, weight, contracted))
        return self._sides[key]

    @staticmethod
    def _fitting(tensor: Tensor, weight: StoredWeight, contracted: int) -> Iterator[Sides]:
        outputs = -1 if contracted % tensor.ndim == tensor.ndim - 2 else -2
        along = _elements(tensor, keep=contracted)
        across = _elements(tensor, keep=outputs) if tensor.ndim > 1 else along[..., :1]
        corner = _elements(tensor, keep=contracted, other=-1)
        for (key, _), (sources, targets), (last, _), (_, written) in zip(
            weight.connections, weight.at(along), weight.at(corner), weight.at(across), strict=True
        ):
            if np.array_equal(sources, last) and _constant(targets):
                yield Sides(key, sources, written)


def _constant(targets: np.ndarray) -> bool:
    return bool((targets == targets[..., :1]).all())


def _elements(tensor: Tensor, keep: int | None = None, other: int = 0) -> np.ndarray:
    """Place in the storage of each entry of `tensor`; with `keep`, only along that axis and the batch axes.

    Of the last two axes the one not kept is fixed at its first (`other=0`) or last (-1) entry.
    """
    elements = np.full((), tensor.storage_offset(), dtype=np.int64)
    for axis, (size, stride) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        # a batch axis of step 0 repeats one weight: once is enough, it broadcasts
        steps = np.arange(size if stride or keep is None else 1, dtype=np.int64) * stride
        is_fixed = keep is not None and axis >= tensor.ndim - 2 and axis != keep % tensor.ndim
        elements = elements[..., None] + (steps[:1] if is_fixed and other == 0 else steps[-1:] if is_fixed else steps)
    if keep is None or tensor.ndim < 2:
        return elements
    fixed = tensor.ndim - 1 if keep % tensor.ndim == tensor.ndim - 2 else tensor.ndim - 2
    return elements.squeeze(fixed)


def storage_of(tensor: Tensor) -> int:
    """Where the memory of a tensor begins: the same for all its views."""
    return tensor.untyped_storage().data_ptr()


def channel_sides(weight: StoredWeight, kernel: Tensor, *, is_transposed: bool, n_groups: int) -> list[Sides]:
    """Units of the input and output channels of a convolution; they do not differ within a window."""
    first_taps = kernel.flatten(2)[..., 0] if kernel.ndim > 2 else kernel
    rows = first_taps.shape[0] // n_groups
    found = []
    for (key, _), (sources, targets) in zip(weight.connections, weight.at(_elements(first_taps)), strict=True):
        by_row, by_column = (sources, targets) if is_transposed else (targets, sources)
        # a group's rows all have the same columns
        sides = by_row[:, 0], by_column[::rows].reshape(-1)
        found.append(Sides(key, *(sides if is_transposed else sides[::-1])))
    return found
