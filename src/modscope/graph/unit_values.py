"""Which value does each unit take on each example?

A unit's value is taken where it is first read: by the first weight that multiplies it, so after the nonlinearity and
the norms on the way. That is one place for a unit that many layers write, as in a residual stream. Query and key units
are read by each other, output units by whoever gets the output. Before the nonlinearity, a unit is taken as the weight
writes it that alone does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sized
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from modscope.calling import call, check_model, evaluation_mode, explained, split_batch
from modscope.errors import GraphError, ModscopeError
from modscope.graph.places import Moment, Name, Place, Sight, Watch, chosen_places, layout_by_size, layout_of
from modscope.graph.reductions import Reduction, values_at
from modscope.progress import track
from modscope.wiring.forward.kernels import unfused
from modscope.wiring.wiring import Wiring

N_TRIED = 2  # examples of the trial that tells where examples lie


@dataclass(frozen=True, eq=False)
class UnitValues:
    """Values of the units that could be read, in float32, on the device of the model."""

    units: Int[np.ndarray, " read"]  # ascending
    values: Float[Tensor, "examples read"]


def unit_values(
    model: nn.Module,
    wiring: Wiring,
    batches: Iterable[Any],
    *,
    wanted: Bool[np.ndarray, " units"],
    moment: Moment,
    reduction: Reduction,
    max_examples: int,
) -> UnitValues:
    """The units that could be read, and their values on the first `max_examples` examples.

    Where every place sees the same positions (tokens) each position is an example of its own; otherwise a unit's
    mean over its positions is taken.

    Raises:
        GraphError: If there is no batch, the model fails on one, no wanted unit can be read, or a value is NaN.
    """
    model = check_model(model)
    reader = _Reader(model, wiring, wanted, moment, reduction)
    kept = _Kept(max_examples, n_batches=len(batches) if isinstance(batches, Sized) else None)
    with evaluation_mode(model), torch.no_grad(), unfused(model):
        for batch in track(batches, "reading activations"):
            inputs = batch if isinstance(batch, Tensor) else split_batch(model, batch)[0]
            if n_examples(inputs) == 0:
                continue
            kept.add(reader.read(inputs))
            if kept.is_full:
                break
    if reader.places is None:
        raise GraphError("there are no batches to read activations from; give at least one")
    values = kept.values
    _check_finite(values, reader.units, wiring)
    return UnitValues(reader.units, values)


def n_examples(inputs: Any) -> int:
    """Length of the first axis of the first tensor."""
    sizes = [leaf.shape[0] for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor) and leaf.ndim]
    return int(sizes[0]) if sizes else 1


class _Reader:
    """Reads the wanted units on one batch after the other; the first one tells where they are found."""

    def __init__(
        self,
        model: nn.Module,
        wiring: Wiring,
        wanted: Bool[np.ndarray, " units"],
        moment: Moment,
        reduction: Reduction,
    ) -> None:
        self._model, self._wiring, self._wanted = model, wiring, wanted
        self._moment, self._reduction = moment, reduction
        self._watch = Watch(model, wiring, np.flatnonzero(wanted), self._pass_on)
        self._look: Callable[[Sight], None]
        self._given: Any = None  # the batch, for messages
        self._is_tried = False
        self.places: list[Place] | None = None
        self.units: Int[np.ndarray, " read"] = np.empty(0, dtype=np.int64)

    def read(self, inputs: Any) -> Float[Tensor, "examples read"]:
        """The values on one batch; a column for each of `units`."""
        self._given = inputs
        size = n_examples(inputs)
        if self.places is None:
            self._find(inputs)
        elif size > 1 and not self._is_tried:
            self._locate_again(inputs)
        places = {place.name: place for place in self.places or ()}
        seen: dict[Name, Tensor] = {}

        def keep(sight: Sight) -> None:
            place = places.get(sight.name)
            if place is not None and (place.counts_last or sight.name not in seen):
                seen[sight.name] = values_at(place, sight, size, self._reduction)

        self._run(inputs, keep)
        if missing := [name for name in places if name not in seen]:
            raise GraphError(
                f"{self._described(missing[0])} was not run on a batch of {type(inputs).__name__} inputs, but on the "
                "first one; its units have no values there"
            )
        return self._rows([(places[name], values) for name, values in seen.items()])

    def _rows(self, values: list[tuple[Place, Tensor]]) -> Float[Tensor, "examples read"]:
        has_tokens = len({part.shape[1] for _, part in values}) == 1
        parts = [(part if has_tokens else part.mean(dim=1, keepdim=True)).flatten(0, 1) for _, part in values]
        rows = parts[0].new_empty(len(parts[0]), len(self.units))
        for (place, _), part in zip(values, parts, strict=True):
            columns = torch.from_numpy(np.searchsorted(self.units, place.units)).to(rows.device)
            rows[:, columns] = part.to(rows.device)
        return rows

    def _find(self, inputs: Any) -> None:
        """Choose places from what goes by in one forward pass, and find the examples there in two more."""
        few = _first_examples(inputs, N_TRIED)
        names: dict[Name, Tensor] = {}

        def note(sight: Sight) -> None:
            names.setdefault(sight.name, sight.ids)

        self._run(few, note)
        while True:
            places = chosen_places(names, self._wiring, self._wanted, self._moment)
            located = self._located(places, few)
            lost = {place.name for place in places} - {place.name for place in located}
            if not lost:
                break
            names = {name: ids for name, ids in names.items() if name not in lost}
        if not places:
            raise GraphError("no activation can be read: no weight of the model reads or writes a wanted unit")
        self.places, self.units = located, np.sort(np.concatenate([place.units for place in located]))
        self._is_tried = n_examples(few) > 1

    def _locate_again(self, inputs: Any) -> None:
        """The first batch was a single example, which says less; now there are two."""
        located = self._located(self.places or [], _first_examples(inputs, N_TRIED))
        if len(located) < len(self.places or []):
            raise GraphError(
                "the first batch is a single example, and some layers mix the examples of the next one; give batches "
                "of at least two examples"
            )
        self.places, self._is_tried = located, True

    def _located(self, places: list[Place], few: Any) -> list[Place]:
        """The places with their layouts, without those where no example can be told from another."""
        by_name = {place.name: place for place in places}
        sights: dict[Name, Sight] = {}
        located: dict[Name, Place] = {}

        def keep(sight: Sight) -> None:
            if sight.name in by_name and (by_name[sight.name].counts_last or sight.name not in sights):
                sights[sight.name] = replace(sight, tensor=sight.tensor.clone())

        def compare(sight: Sight) -> None:
            place = by_name.get(sight.name)
            if place is None or sight.name not in sights or (sight.name in located and not place.counts_last):
                return
            seen = sights[sight.name]
            layout = layout_of(seen, sight, n_examples(few)) if n_examples(few) > 1 else layout_by_size(seen, sight)
            if layout is not None:
                located[sight.name] = replace(place, layout=layout)

        self._run(few, keep)
        self._run(_of_each(few, _rolled if n_examples(few) > 1 else _doubled), compare)
        return [located[place.name] for place in places if place.name in located]

    def _run(self, inputs: Any, look: Callable[[Sight], None]) -> None:
        self._look = look
        self._watch.start()
        try:
            with self._watch:
                outputs = call(self._model, inputs)
        except ModscopeError:
            raise
        except Exception as error:
            raise explained(error, "reading activations", self._given, GraphError) from error
        self._watch.finish(outputs)

    def _pass_on(self, sight: Sight) -> None:
        self._look(sight)

    def _described(self, name: Name) -> str:
        key = name[1]
        if 0 <= key < len(self._wiring.connections):
            return f"the layer of weight '{self._wiring.connections[key].parameter}'"
        return "a product of queries and keys" if key < 0 else "an output"


def _first_examples(inputs: Any, count: int) -> Any:
    return _of_each(inputs, lambda tensor: tensor[:count])


def _rolled(tensor: Tensor) -> Tensor:
    return tensor.roll(1, 0)


def _doubled(tensor: Tensor) -> Tensor:
    return torch.cat([tensor, tensor])


def _of_each(inputs: Any, op: Callable[[Tensor], Tensor]) -> Any:
    """Inputs with something done to every tensor that has an entry for each example."""
    size = n_examples(inputs)

    def done(leaf: Any) -> Any:
        return op(leaf) if isinstance(leaf, Tensor) and leaf.ndim and leaf.shape[0] == size else leaf

    return tree_map(done, inputs)


class _Kept:
    """The values so far, in memory that is taken once where the number of batches is known."""

    def __init__(self, max_examples: int, n_batches: int | None) -> None:
        self._max, self._n_batches = max_examples, n_batches
        self._rows: Tensor | None = None
        self._n = 0

    def add(self, rows: Float[Tensor, "examples read"]) -> None:
        """Keep these too, as many as are wanted."""
        rows = rows[: self._max - self._n]
        if self._rows is None:
            self._rows = rows.new_empty(min(self._max, len(rows) * (self._n_batches or 1)), rows.shape[1])
        end = self._n + len(rows)
        if end > len(self._rows):
            more = max(min(self._max, 2 * len(self._rows)), end) - len(self._rows)
            self._rows = torch.cat([self._rows, self._rows.new_empty(more, rows.shape[1])])
        self._rows[self._n : end] = rows
        self._n = end

    @property
    def is_full(self) -> bool:
        return self._n >= self._max

    @property
    def values(self) -> Float[Tensor, "examples read"]:
        return self._rows[: self._n] if self._rows is not None else torch.empty(0, 0)


def _check_finite(values: Float[Tensor, "examples read"], units: np.ndarray, wiring: Wiring) -> None:
    low, high = torch.aminmax(values, dim=0)  # NaN comes through
    is_bad = ~(torch.isfinite(low) & torch.isfinite(high)).cpu().numpy()
    if is_bad.any():
        name = wiring.groups[wiring.group_of[units[is_bad][0]]].name
        raise GraphError(f"{int(is_bad.sum())} units (first in group '{name}') take NaN or infinite values on the data")
