"""Where in a forward pass is a unit read, and by which weight?

A unit is read where a weight multiplies it. This file watches the operations of one forward pass, recognises a weight
by the memory it lives in (so a transposed, sliced, reshaped or copied parameter is still that parameter), and says
which entries of the other operand belong to which unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_unflatten

from modscope.errors import LesionError
from modscope.lesions.carried import CarriedIds
from modscope.wiring.wiring import Connection, Wiring

aten = torch.ops.aten


@dataclass(frozen=True, eq=False)
class Place:
    """One place where units are read: an argument of an operation, or an output of the model."""

    argument: int  # which argument; of the model's outputs: which of them
    key: int  # index of the connection in the wiring; above these: the number of the output
    ids: Tensor  # unit of each entry of the operand that it broadcasts to, -1 = none
    by_unit: bool = False  # what one unit says lies in several places (an output), or in one column per entry of `ids`


@dataclass(frozen=True, eq=False)
class Read:
    """What is read at one place."""

    place: Place
    operand: Tensor


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
    """Finds which stored weight a tensor is (a view of)."""

    def __init__(self, model: nn.Module, wiring: Wiring, wanted: set[str]) -> None:
        self._by_storage: dict[int, list[StoredWeight]] = {}
        self._kept: list[Tensor] = []  # copies of weights stay alive, so that their memory is not used again
        self._sides: dict[tuple[object, ...], list[Sides]] = {}
        parameters = dict(model.named_parameters(remove_duplicate=False))
        for name in sorted(wanted):
            if name not in parameters:
                raise LesionError(
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
                raise LesionError(
                    f"weight '{name}' has shape {shape}, the wiring says {tuple(connection.weight.shape)}; give the "
                    "wiring of this very model (read_wiring(model, example_inputs))"
                )
        ids = tuple((connection.sources, connection.targets) for _, connection in connections)
        self._store(weight, StoredWeight(name, int(weight.storage_offset()), shape, weight.stride(), connections, ids))

    def _store(self, tensor: Tensor, stored: StoredWeight) -> None:
        self._by_storage.setdefault(_storage(tensor), []).append(stored)

    def find(self, tensor: object) -> StoredWeight | None:
        """The stored weight that `tensor` is, or is a view of; None if it is none of ours."""
        if not isinstance(tensor, Tensor):
            return None
        stored = self._by_storage.get(_storage(tensor))
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


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


# op -> places of the two factors among its arguments
_PRODUCTS: dict[Any, tuple[int, int]] = {
    aten.mm.default: (0, 1),
    aten.bmm.default: (0, 1),
    aten.mv.default: (0, 1),
    aten.addmm.default: (1, 2),
    aten._addmm_activation.default: (1, 2),
    aten.baddbmm.default: (1, 2),
    aten.addmv.default: (1, 2),
}
_COPIES = {aten.clone.default, aten._to_copy.default, aten.contiguous.default}


class ReadMode(TorchDispatchMode):
    """Watches a forward pass, and replaces what is read.

    Args:
        model, wiring: The network.
        units: Units whose reads matter.
        replace: `replace(read)` -> the operand to use instead.
    """

    def __init__(self, model: nn.Module, wiring: Wiring, units: np.ndarray, replace: Callable[[Read], Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._model = model
        self._wiring = wiring
        self._units = units
        self._replace = replace
        self._reading = {wiring.connections[index].parameter for index in readers(wiring, units)}
        self._followed = followed(wiring, units)
        self._writing = {wiring.connections[index].parameter for index in writers(wiring, self._followed)}

    def start(self) -> None:
        """Forget the last forward pass. Parameters are looked up anew: masks may have put others in their place."""
        self._table = WeightTable(self._model, self._wiring, self._reading | self._writing)
        self._carried = CarriedIds(self._followed)
        self._calls: dict[tuple[str, int], int] = {}
        self._unknown: dict[str, str] = {}
        self._known: set[str] = set()

    def finish(self, outputs: Any) -> Any:
        """The outputs with their silenced units replaced.

        Raises:
            LesionError: If a weight was read in a way that we do not know, or an output was lost on its way.
        """
        for name, op in self._unknown.items():
            if name in self._reading and name not in self._known:
                raise LesionError(
                    f"weight '{name}' reads units that should be silenced, but is used by operation '{op}', which we "
                    "cannot silence; leave those units out"
                )
        leaves, structure = tree_flatten(outputs)
        for place in self.output_places(leaves):
            leaves[place.argument] = self._replace(Read(place, leaves[place.argument]))
        return tree_unflatten(leaves, structure)

    def output_places(self, leaves: Sequence[Any]) -> list[Place]:
        """Where the model's outputs hold units that are followed."""
        places = []
        for number, leaf in enumerate(leaves):
            ids = self._carried.of(leaf)
            if ids is not None:
                places.append(Place(number, len(self._wiring.connections) + number, ids, by_unit=True))
        return places

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operation, with what it reads replaced."""
        kwargs = kwargs or {}
        with self:
            decomposed = func.decompose(*args, **kwargs)
        if decomposed is not NotImplemented:
            return decomposed
        place, written = self._product(func, args)
        self.before(func, args, kwargs)
        result = run_replaced(func, args, kwargs, place, self._replace)
        self._follow(func, args, kwargs, result)
        if written is not None:
            self._carried.write(result, written)
        self.ran(func, place, result)
        return result

    def before(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Called before every operation; a recorder overrides it."""

    def ran(self, func: Any, place: Place | None, result: Any) -> None:
        """Called after every operation; a recorder overrides it."""

    def _product(self, func: Any, args: tuple[Any, ...]) -> tuple[Place | None, np.ndarray | None]:
        """Where an operation reads units through a weight, and the units that it writes; None where it does not."""
        if func in _PRODUCTS:
            return self._matrix_product(func, args)
        if func is aten.convolution.default and (weight := self._table.find(args[1])) is not None:
            sides = self._chosen(weight, _channel_sides(weight, args[1], is_transposed=args[6], n_groups=args[8]))
            shape = (-1,) + (1,) * (args[1].ndim - 2)
            if sides is not None:
                return self._place(0, sides.key, sides.sources.reshape(shape), args[0]), sides.targets.reshape(shape)
        if func is aten.embedding.default and (weight := self._table.find(args[0])) is not None:
            sides = self._chosen(weight, self._table.sides(args[0], weight, 0))
            if sides is not None:
                return self._place(1, sides.key, sides.sources, args[1]), sides.targets
        return None, None

    def _matrix_product(self, func: Any, args: tuple[Any, ...]) -> tuple[Place | None, np.ndarray | None]:
        """Matrix times matrix or vector, one of them (a view of) a weight."""
        left, right = _PRODUCTS[func]
        for factor, operand, is_right in ((right, left, True), (left, right, False)):
            weight = self._table.find(args[factor])
            if weight is None:
                continue
            contracted = -2 if is_right and args[factor].ndim > 1 else -1
            sides = self._chosen(weight, self._table.sides(args[factor], weight, contracted))
            if sides is None:
                continue
            ids = _laid(sides.sources, args[operand].ndim, is_right)
            n_axes = max(args[left].ndim + args[right].ndim - 2, 1) if args[right].ndim == 1 else args[left].ndim
            return self._place(operand, sides.key, ids, args[operand]), _laid(sides.targets, n_axes, is_right)
        return None, None

    def _place(self, argument: int, key: int, ids: np.ndarray, operand: Tensor) -> Place | None:
        if not np.isin(ids, self._units).any():
            return None
        return Place(argument, key, torch.from_numpy(np.ascontiguousarray(ids)).to(operand.device))

    def _chosen(self, weight: StoredWeight, sides: list[Sides]) -> Sides | None:
        """The connection that this call of a weight is: a weight that is used twice has one for each use."""
        if not sides:
            return None
        self._known.add(weight.name)
        if all(np.array_equal(side.sources, sides[0].sources) for side in sides):
            return sides[0]
        call = (weight.name, len(sides))
        number = self._calls[call] = self._calls.get(call, -1) + 1
        if number >= len(sides):
            raise LesionError(
                f"weight '{weight.name}' is used more often ({number + 1}) than in the wiring ({len(sides)}); read the "
                "wiring again with inputs of the size that the model now gets"
            )
        return sides[number]

    def _follow(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Follow weights through operations that copy them, and units through all others."""
        for argument in args:
            weight = self._table.find(argument)
            if weight is None:
                continue
            if func in _COPIES:
                self._table.copied(argument, weight, result, _without_dtype(kwargs))
            elif not (isinstance(result, Tensor) and _storage(result) == _storage(argument)):
                self._unknown.setdefault(weight.name, str(func))
        self._carried.carry(func, args, kwargs, result)


def run_replaced(
    func: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    place: Place | None,
    replace: Callable[[Read], Tensor],
) -> Any:
    """The operation's result, with what it reads at `place` replaced.

    An embedding reads tokens as one-hot vectors: where a token is silenced, its row is.
    """
    if place is None:
        return func(*args, **kwargs)
    if func is aten.embedding.default:
        one_hot = nn.functional.one_hot(args[1], len(args[0])).to(args[0].dtype)
        return replace(Read(place, one_hot)) @ args[0]
    operand = replace(Read(place, args[place.argument]))
    return func(*args[: place.argument], operand, *args[place.argument + 1 :], **kwargs)


def _laid(ids: np.ndarray, n_axes: int, is_last: bool) -> np.ndarray:
    """Ids along the last (or, of a matrix, the last but one) axis of a factor or of the product."""
    if n_axes == 1:
        return ids
    if not is_last:
        return ids[..., None]
    return ids[..., None, :] if ids.ndim > 1 else ids


def _channel_sides(weight: StoredWeight, kernel: Tensor, *, is_transposed: bool, n_groups: int) -> list[Sides]:
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


def _without_dtype(kwargs: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    layout = {name: value for name, value in kwargs.items() if name == "memory_format"}
    return lambda elements: torch.clone(elements, **layout)


def readers(wiring: Wiring, units: np.ndarray) -> list[int]:
    """Indices of the connections that read one of these units through a weight."""
    return [
        index
        for index, connection in enumerate(wiring.connections)
        if connection.kind == "weight" and np.isin(connection.sources, units).any()
    ]


def writers(wiring: Wiring, units: np.ndarray) -> list[int]:
    """Indices of the connections that write one of these units."""
    return [index for index, connection in enumerate(wiring.connections) if np.isin(connection.targets, units).any()]


def followed(wiring: Wiring, units: np.ndarray) -> np.ndarray:
    """Those of the units that are read by no weight alone: the model's outputs."""
    outputs = [group.unit_ids for group in wiring.groups if group.kind == "output"]
    return np.intersect1d(units, np.concatenate(outputs)) if outputs else np.zeros(0, dtype=np.int64)
