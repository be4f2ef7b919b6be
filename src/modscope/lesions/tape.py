"""How are many lesions of one batch run fast?

One forward pass is recorded as a list of operations. For a lesion only those operations run again whose inputs it has
changed; the first of them, a matrix product, is corrected by the silenced columns S alone:
x' W = x W - (x_S - fill_S) W_S.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only, tree_unflatten

from modscope.calling import arguments
from modscope.errors import LesionError
from modscope.lesions.corrections import Correction, can_correct, correction_of
from modscope.lesions.values import Fill
from modscope.wiring.forward.products import Place
from modscope.wiring.forward.reads import Read, ReadMode
from modscope.wiring.wiring import Wiring

aten = torch.ops.aten


class NoTape(Exception):
    """This forward pass cannot be replayed: it writes into what it has read, or decides by what it computes."""


@dataclass(frozen=True)
class Slot:
    """Stands for a tensor that one of the recorded operations has made."""

    number: int


@dataclass(eq=False)
class Reading:
    """What one operation reads, and what it reads instead."""

    place: Place
    fill: Tensor
    correction: Correction | None = None  # made when first needed

    @cached_property
    def ids(self) -> Int[np.ndarray, "..."]:
        """Unit of each entry of the operand."""
        return self.place.ids.cpu().numpy()

    def flags(self, is_silenced: Bool[np.ndarray, " units"]) -> Bool[np.ndarray, "..."] | None:
        """Which entries are silenced; None if none is."""
        flags = is_silenced[self.ids]
        return flags if flags.any() else None

    def replaced(self, flags: Bool[np.ndarray, "..."] | None, operand: Tensor) -> Tensor:
        """The operand with the silenced entries replaced."""
        if flags is None:
            return operand
        return torch.where(torch.from_numpy(flags).to(operand.device), self.fill, operand)


@dataclass(frozen=True, eq=False)
class Step:
    """One recorded operation that a lesion can change."""

    func: Any
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: frozenset[int]
    results: tuple[int, ...]  # -1: not a tensor
    readings: tuple[Reading, ...]

    @cached_property
    def is_plain(self) -> bool:
        """Whether it is a product with a weight that can be corrected column by column."""
        if len(self.readings) != 1 or self.kwargs:
            return False
        place = self.readings[0].place
        return place.ids.shape[0] == place.ids.numel() and can_correct(self.func, self.args, place.argument)


@dataclass(eq=False)
class Tape:
    """A recorded forward pass of one batch."""

    steps: list[Step] = field(default_factory=list)
    values: dict[int, Tensor] = field(default_factory=dict)  # what each slot held
    outputs: list[Any] = field(default_factory=list)
    structure: Any = None
    output_readings: list[Reading] = field(default_factory=list)

    def run(self, lesion: Bool[np.ndarray, " units"]) -> Any:
        """The model's outputs while these units are silenced."""
        is_silenced = np.append(lesion, False)  # the last one: no unit (-1)
        changed: dict[int, Tensor] = {}
        for step in self.steps:
            flags = [reading.flags(is_silenced) for reading in step.readings]
            reads = any(flag is not None for flag in flags)
            if reads or not step.inputs.isdisjoint(changed):
                self._rerun(step, flags, changed)
        leaves = [self._resolved(leaf, changed) for leaf in self.outputs]
        for reading in self.output_readings:
            place = reading.place
            leaves[place.argument] = reading.replaced(reading.flags(is_silenced), leaves[place.argument])
        return tree_unflatten(leaves, self.structure)

    def _rerun(self, step: Step, flags: Sequence[np.ndarray | None], changed: dict[int, Tensor]) -> None:
        """Run an operation again, with what has changed, and with what it reads replaced."""
        if step.is_plain and flags[0] is not None and step.inputs.isdisjoint(changed):
            chosen = flags[0].ravel().nonzero()[0]
            if 2 * len(chosen) <= flags[0].size:
                changed[step.results[0]] = self._corrected(step, torch.from_numpy(chosen))
                return
        args = self._resolved(step.args, changed)
        kwargs = self._resolved(step.kwargs, changed) if step.kwargs else step.kwargs
        if step.func._schema.is_mutable:
            args = tree_map_only(Tensor, torch.clone, args)  # what it writes into is still needed by other lesions
        for reading, flag in zip(step.readings, flags, strict=True):
            argument = reading.place.argument
            args = (*args[:argument], reading.replaced(flag, args[argument]), *args[argument + 1 :])
        result = step.func(*args, **kwargs)
        if isinstance(result, Tensor):
            changed[step.results[0]] = result
            return
        leaves = zip(step.results, tree_leaves(result), strict=True)
        changed.update({number: leaf for number, leaf in leaves if number >= 0})

    def _corrected(self, step: Step, chosen: Tensor) -> Tensor:
        """The product, corrected by the silenced columns S: x' W = x W - (x_S - fill_S) W_S."""
        reading = step.readings[0]
        if reading.correction is None:
            reading.correction = correction_of(step.func, self._resolved(step.args, {}), reading.fill)
        return reading.correction(self.values[step.results[0]], chosen)

    def _resolved(self, value: Any, changed: dict[int, Tensor]) -> Any:
        if type(value) is Slot:
            return changed[value.number] if value.number in changed else self.values[value.number]
        if type(value) in (tuple, list):
            return type(value)(self._resolved(entry, changed) for entry in value)
        if type(value) is dict:
            return {name: self._resolved(entry, changed) for name, entry in value.items()}
        return value


class Recorder(ReadMode):
    """Records a forward pass. Only what comes after a read is kept: the rest is the same for all lesions."""

    def __init__(self, model: nn.Module, wiring: Wiring, units: np.ndarray, fill: Fill) -> None:
        super().__init__(model, wiring, units, self._note, LesionError)
        self._fill = fill
        self._fills: list[Tensor] = []
        self.tape = Tape()
        self._slots: dict[tuple[Any, ...], int] = {}  # where a tensor lies in memory -> its slot
        self._stale: set[tuple[Any, ...]] = set()
        self._taken: tuple[Any, Any] = ((), {})
        self._inputs: frozenset[int] = frozenset()

    def _note(self, read: Read) -> Tensor:
        self._fills.append(self._fill(read).to(read.operand.dtype))
        return read.operand

    def before(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note which recorded tensors an operation takes, and keep those that it is about to overwrite."""
        inputs: set[int] = set()

        def slot_of(tensor: Tensor) -> Any:
            key = _key(tensor)
            if key in self._stale:
                raise NoTape(f"{func} reads memory that an earlier operation has overwritten")
            number = self._slots.get(key)
            if number is None:
                return tensor
            inputs.add(number)
            return Slot(number)

        self._taken = tree_map_only(Tensor, slot_of, (args, kwargs))
        self._inputs = frozenset(inputs)
        if func._schema.is_mutable:
            self._save_overwritten(func, args)

    def _save_overwritten(self, func: Any, args: tuple[Any, ...]) -> None:
        written = [
            value
            for value, argument in zip(args, func._schema.arguments, strict=False)
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        for tensor in tree_leaves(written):
            storage = _key(tensor)[0]
            if self._inputs and _key(tensor) not in self._slots:
                raise NoTape(f"{func} writes into memory that is not its own")
            for key in [key for key in self._slots if key[0] == storage]:
                number = self._slots.pop(key)
                self.tape.values[number] = self.tape.values[number].clone()
                self._stale.add(key)

    def ran(self, func: Any, places: Sequence[Place], result: Any) -> None:
        """Keep an operation that a lesion can change."""
        readings = tuple(Reading(place, fill) for place, fill in zip(places, self._fills, strict=True))
        self._fills.clear()
        if not readings and not self._inputs:
            return
        if _decides(func):
            raise NoTape(f"{func} turns what a lesion changes into a decision")
        results = tuple(self._new_slot(leaf) for leaf in tree_leaves(result))
        self.tape.steps.append(Step(func, *self._taken, self._inputs, results, readings))

    def _new_slot(self, leaf: Any) -> int:
        if not isinstance(leaf, Tensor):
            return -1
        number = len(self.tape.values)
        self._slots[_key(leaf)] = number
        self._stale.discard(_key(leaf))
        self.tape.values[number] = leaf
        return number

    def finish(self, outputs: Any) -> Any:
        """Note what the model gives back."""
        outputs = super().finish(outputs)
        leaves, self.tape.structure = tree_flatten(outputs)
        self.tape.output_readings = [
            Reading(place, fill) for place, fill in zip(self.output_places(leaves), self._fills, strict=True)
        ]
        for leaf in leaves:
            number = self._slots.get(_key(leaf)) if isinstance(leaf, Tensor) else None
            self.tape.outputs.append(leaf if number is None else Slot(number))
        return outputs


def _key(tensor: Tensor) -> tuple[Any, ...]:
    """Where a tensor lies in memory: torch may wrap the same memory in several objects."""
    return (
        tensor.untyped_storage().data_ptr(),
        tensor.storage_offset(),
        tuple(tensor.shape),
        tensor.stride(),
        tensor.dtype,
    )


def _decides(func: Any) -> bool:
    return torch.Tag.data_dependent_output in func.tags or torch.Tag.dynamic_output_shape in func.tags


def recorded(
    model: nn.Module, wiring: Wiring, units: np.ndarray, fill: Fill, inputs: Any, number: int
) -> tuple[Tape, Any]:
    """The tape of batch `number`, and the outputs of the intact model.

    Raises:
        NoTape: If the forward pass cannot be replayed.
    """
    fill.prepare(model.forward, inputs, number)
    recorder = Recorder(model, wiring, units, fill)
    recorder.start()
    positional, keywords = arguments(model, inputs)
    with recorder:
        outputs = model.forward(*positional, **keywords)
    return recorder.tape, recorder.finish(outputs)
