"""At which places of a forward pass are the values of units taken, and where do the examples lie there?

An operation deep inside a model sees examples, tokens and heads folded into its axes in ways of its own. Which axis
holds the examples is found by a trial: two examples change places, and whatever changes places with them is theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Bool, Float, Int
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from modscope.errors import GraphError
from modscope.wiring.forward.products import Written
from modscope.wiring.forward.reads import Read, ReadMode, parameters_beside
from modscope.wiring.wiring import Wiring

Moment: TypeAlias = Literal["before", "after"]
Name: TypeAlias = tuple[str, int]  # "read" or "written", and the key of the connection or product

SAME = 0.02  # of the largest value: how far the numbers of one example may move with its place in the batch

# In order of preference. What a unit says to itself comes last: a recurrent layer's first read is the state that it
# starts from, and a channel that is gated by what it says itself is whole only behind the gate.
WRITTEN_ALONE, READ, READ_BY_NO_WEIGHT, WRITTEN, READ_BY_ITSELF = range(5)


@dataclass(frozen=True, eq=False)
class Sight:
    """An operand or a result that holds units, as a forward pass goes by."""

    name: Name
    tensor: Tensor
    ids: Tensor  # unit of each entry; broadcasts to the tensor, -1 = none
    has_maps: bool  # the axes behind the channels are a map of each


class Watch(ReadMode):
    """Shows everything that some units say to `look`, where it is read and where it is written."""

    def __init__(
        self, model: nn.Module, wiring: Wiring, units: Int[np.ndarray, " some"], look: Callable[[Sight], None]
    ) -> None:
        super().__init__(model, wiring, units, self._read, GraphError)
        self._writing = parameters_beside(wiring, units, "targets")
        self._look = look
        self._has_maps = False

    def before(self, func: Any, _args: tuple[Any, ...], _kwargs: dict[str, Any]) -> None:
        """Note whether what comes is a convolution."""
        self._has_maps = func is torch.ops.aten.convolution.default

    def wrote(self, written: Written, result: Tensor) -> None:
        """Show what a weight has written."""
        ids = torch.from_numpy(np.ascontiguousarray(written.ids)).to(result.device)
        self._look(Sight(("written", written.key), result, ids, self._has_maps))

    def finish(self, outputs: Any) -> Any:
        """Show the output units; a unit that could not be followed is no error here."""
        self._has_maps = False
        leaves = tree_leaves(outputs)
        for place in self.output_places(leaves):
            self._read(Read(place, leaves[place.argument]))
        return outputs

    def _read(self, read: Read) -> Tensor:
        place = read.place
        ids = _thinned(place.ids) if place.by_unit else place.ids
        self._look(Sight(("read", place.key), read.operand, ids, self._has_maps))
        return read.operand


@dataclass(frozen=True)
class Layout:
    """Along which axis the examples lie, and whether they change slowest ("outer") along it."""

    axis: int
    is_outer: bool

    def examples_first(
        self, sight: Sight, n_examples: int
    ) -> tuple[Float[Tensor, "examples ..."], Int[Tensor, "same ..."]]:
        """The tensor with its examples in front (what else lay along their axis keeps its place), and the ids."""
        tensor = self._unfolded(sight.tensor, n_examples)
        ids = sight.ids.reshape((1,) * (sight.tensor.ndim - sight.ids.ndim) + tuple(sight.ids.shape))
        if ids.shape[self.axis] == 1:
            return tensor, ids.unsqueeze(0)
        return tensor, _thinned(self._unfolded(ids, n_examples), axes=(0,))

    def _unfolded(self, tensor: Tensor, n_examples: int) -> Tensor:
        rest = tensor.shape[self.axis] // n_examples
        parts = (n_examples, rest) if self.is_outer else (rest, n_examples)
        shape = (*tensor.shape[: self.axis], *parts, *tensor.shape[self.axis + 1 :])
        return tensor.reshape(shape).movedim(self.axis if self.is_outer else self.axis + 1, 0)


def layouts(sight: Sight, n_examples: int) -> Iterator[Layout]:
    """Every way in which so many examples can lie in what is seen, the plainest first."""
    shape = sight.tensor.shape
    axes = [axis for axis, size in enumerate(shape) if size and size % n_examples == 0]
    axes.sort(key=lambda axis: shape[axis] != n_examples)  # an axis of its own first
    for axis in axes:
        for is_outer in (True, False) if shape[axis] > n_examples else (True,):
            layout = Layout(axis, is_outer)
            if layout.examples_first(sight, n_examples)[1].shape[0] == 1:  # all examples have the same units
                yield layout


def layout_of(sight: Sight, rolled: Sight, n_examples: int) -> Layout | None:
    """Where the examples lie: there the two passes differ as their inputs do, which were rolled by one example.

    None if it cannot be told: some layers see only some of the tokens (experts), or mix the examples.
    """
    if sight.tensor.shape != rolled.tensor.shape:
        return None
    largest = float(sight.tensor.abs().nan_to_num(0, 0, 0).max()) if sight.tensor.numel() else 0.0
    best, smallest = None, SAME * largest
    for layout in layouts(sight, n_examples):
        first, second = (layout.examples_first(seen, n_examples)[0] for seen in (sight, rolled))
        difference = float((first.roll(1, 0) - second).abs().nan_to_num(0, 0, 0).max())
        if difference < smallest or (best is None and difference <= smallest):
            best, smallest = layout, difference
    return best


def layout_by_size(sight: Sight, doubled: Sight) -> Layout | None:
    """Where the examples lie: along the axis that is twice as long when one example is given twice."""
    shapes = zip(sight.tensor.shape, doubled.tensor.shape, strict=False)
    longer = [axis for axis, (size, twice) in enumerate(shapes) if size != twice]
    if len(longer) != 1 or doubled.tensor.shape[longer[0]] != 2 * sight.tensor.shape[longer[0]]:
        return None
    return Layout(longer[0], is_outer=True)  # of one example, inner is the same


@dataclass(frozen=True, eq=False)
class Place:
    """A place of every forward pass where the values of some units are taken."""

    name: Name
    units: Int[np.ndarray, " units"]  # ascending
    counts_last: bool = False  # the last call counts, not the first
    layout: Layout | None = None


def chosen_places(
    names: dict[Name, Tensor], wiring: Wiring, wanted: Bool[np.ndarray, " units"], moment: Moment
) -> list[Place]:
    """One place for each wanted unit that was seen, the best there is.

    Args:
        names: Everything that was seen in a forward pass, first things first, with the ids that it holds.
        wiring: The network.
        wanted: Units that need a place.
        moment: As in `activation_graph`.
    """
    alone = _written_alone(wiring) if moment == "before" else np.zeros(wiring.n_units, dtype=bool)
    recurrent = _recurrent(wiring)
    offers: list[tuple[int, Name, np.ndarray]] = []
    for name, ids in names.items():
        known = ids[ids >= 0].cpu().numpy()
        units, counts = np.unique(known, return_counts=True)
        kind, key = name
        if kind == "written":
            units = units[counts == 1]  # gates that are packed into one weight are not the unit's value
            offers.append((WRITTEN_ALONE, name, units[alone[units]]))
            offers.append((WRITTEN, name, units))
        elif not 0 <= key < len(wiring.connections):
            offers.append((READ_BY_NO_WEIGHT, name, units))
        else:
            offers.append((READ_BY_ITSELF if key in recurrent else READ, name, units))
    is_open, places = wanted.copy(), []
    for rank, name, units in sorted(offers, key=lambda offer: offer[0]):
        units = units[is_open[units]]
        is_open[units] = False
        if len(units):
            places.append(Place(name, units, counts_last=rank == READ_BY_ITSELF))
    return places


def _written_alone(wiring: Wiring) -> Bool[np.ndarray, " units"]:
    """Units that one weight alone writes; what is added to a stream is not the stream's value."""
    written: dict[str, list[np.ndarray]] = {}
    for connection in wiring.connections:
        if connection.kind == "weight":
            written.setdefault(connection.parameter, []).append(connection.targets.ravel())
    n_writers = np.zeros(wiring.n_units, dtype=np.int64)
    for several in written.values():
        units = np.unique(np.concatenate(several))
        n_writers[units[units >= 0]] += 1
    is_layer = np.array([group.kind in ("hidden", "output") for group in wiring.groups], dtype=bool)
    is_alone: np.ndarray = (n_writers == 1) & is_layer[wiring.group_of]
    return is_alone


def _recurrent(wiring: Wiring) -> set[int]:
    """Connections by which hidden units act on themselves, alone or by way of other groups."""
    is_hidden = np.array([group.kind == "hidden" for group in wiring.groups], dtype=bool)
    joined: dict[int, np.ndarray] = {}
    for index, connection in enumerate(wiring.connections):
        if connection.kind == "weight":
            sides = [np.unique(ids[ids >= 0]) for ids in (connection.sources, connection.targets)]
            groups = [np.unique(wiring.group_of[units]) for units in sides]
            joined[index] = np.stack(np.meshgrid(*(some[is_hidden[some]] for some in groups))).reshape(2, -1)
    n_groups = len(wiring.groups)
    source, target = np.concatenate([np.zeros((2, 0), dtype=np.int64), *joined.values()], axis=1)
    reads = sp.coo_array((np.ones(len(source)), (source, target)), shape=(n_groups, n_groups))
    cycle = connected_components(reads, connection="strong")[1]
    return {index for index, (first, second) in joined.items() if (cycle[first] == cycle[second]).any()}


def _thinned(ids: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    """The ids with one entry along every axis (or these) on which they do not change."""
    for axis in range(ids.ndim) if axes is None else axes:
        first = ids.narrow(axis, 0, 1)
        if ids.shape[axis] > 1 and bool((ids == first).all()):
            ids = first
    return ids
