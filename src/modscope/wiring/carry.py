"""What do weights, additions and norms do to ids? The few things that rules are made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from modscope.wiring.stored import stored
from modscope.wiring.unions import Unions
from modscope.wiring.values import NO_GAIN, NONE, Parameter, Value, compact, spread, thinned

# Attention patterns belong to no unit, but to a head: the id of head h is FIRST_HEAD - h.
FIRST_HEAD = -2


@dataclass(frozen=True)
class Writer:
    """What made ids: an input, a layer's weights, or an operation without a rule."""

    kind: Literal["input", "weight"]
    layer: str
    parameter: str  # or the name of the input


@dataclass(frozen=True, eq=False)
class RawConnection:
    """A connection in ids as they were given: units are found only when all unions are known."""

    parameter: str
    layer: str
    sources: Int[np.ndarray, "..."]
    targets: Int[np.ndarray, "..."]
    source_gains: Int[np.ndarray, "..."]  # same shape as sources
    kind: Literal["weight", "query_key"] = "weight"


@dataclass(frozen=True, eq=False)
class RawUnitParameter:
    """A bias or the gain of a norm, in ids as they were given."""

    parameter: str
    kind: Literal["bias", "scale"]
    units: Int[np.ndarray, "..."]
    layer: str


@dataclass(eq=False)
class Carry:
    """Everything that is found while ids go through a program."""

    numbers: Mapping[str, Tensor]  # parameter name -> its values; for gains
    owners: Mapping[str, Sequence[str]] = field(default_factory=dict)  # parameter name -> the layers that hold it
    unions: Unions = field(default_factory=Unions)
    writers: list[Writer] = field(default_factory=list)
    connections: list[RawConnection] = field(default_factory=list)
    unit_parameters: list[RawUnitParameter] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    heads: list[tuple[int, Int[np.ndarray, "..."]]] = field(default_factory=list)  # (head, ids of its units)
    n_heads: int = 0
    layer: str = ""  # of the step that runs now
    op_name: str = ""
    result: Any = None  # its slots

    def __post_init__(self) -> None:
        self._gains = [np.ones(1)]
        self._n_gains = 1
        self._written: dict[object, Tensor] = {}
        self._used: dict[object, RawConnection] = {}

    @property
    def op_kind(self) -> str:
        """The name of the operation that runs now, without its overload: add, max_pool2d."""
        return self.op_name.split(".")[1].rstrip("_")

    def warn(self, text: str) -> None:
        """Keep a warning, once."""
        where = f"op '{self.op_name}' at layer '{self.layer or '(model)'}': {text}"
        if where not in self.warnings:
            self.warnings.append(where)

    # -- gains ---------------------------------------------------------------------------------------------------

    @property
    def gains(self) -> Float[np.ndarray, " gains"]:
        """The value of each gain; number 0 is 1."""
        if len(self._gains) > 1:
            self._gains = [np.concatenate(self._gains)]
        return self._gains[0]

    def new_gains(self, values: Float[np.ndarray, "*shape"]) -> Int[np.ndarray, "*shape"]:
        """Numbers for new gains."""
        first, self._n_gains = self._n_gains, self._n_gains + values.size
        self._gains.append(values.reshape(-1).astype(np.float64))
        return np.arange(first, self._n_gains).reshape(values.shape)

    def scaled(self, value: Value, factor: Tensor | None) -> Value:
        """The value after a norm's gain (broadcastable to it); None or without numbers: unknown, taken as one."""
        if value.ids is None or factor is None or factor.is_meta:
            return value
        factor = factor.detach().to("cpu", torch.float64).expand(value.shape)
        thin_factor, thin_old = thinned(compact(factor), value.gain_numbers)
        new = self.gains[thin_old.numpy()] * thin_factor.numpy()
        return replace(value, gains=torch.from_numpy(self.new_gains(new)).expand(value.shape))

    def owner(self, parameter: str) -> str:
        """The layer that holds a parameter; of several (tied weights), the one that runs now."""
        owners = self.owners.get(parameter, [parameter.rpartition(".")[0]])
        return self.layer if self.layer in owners else owners[0]

    # -- writing -------------------------------------------------------------------------------------------------

    def write(self, parameter: Parameter, shape: Sequence[int], depth: int, *, key: object = "") -> Tensor:
        """Ids for what a weight computes; the same weight used again writes the same units."""
        located = parameter.positions
        part = "" if located is None else tuple((tuple(p.shape), p.stride(), int(p.reshape(-1)[0])) for p in located)
        full_key = (parameter.name, part, tuple(shape), key)
        if full_key not in self._written:
            self.writers.append(Writer("weight", self.owner(parameter.name), parameter.name))
            ids = self.unions.new(math.prod(shape), writer=len(self.writers) - 1, depth=depth)
            self._written[full_key] = torch.from_numpy(ids).reshape(tuple(shape))
        return self._written[full_key]

    def depth_after(self, *sources: Tensor | None) -> int:
        """Depth of what reads these ids."""
        depths = [0]
        for ids in sources:
            if ids is not None:
                known = ids.numpy()[ids.numpy() >= 0]
                depths.append(int(self.unions.depth(known).max(initial=0)))
        return 1 + max(depths)

    def new_inputs(self, name: str, shape: Sequence[int]) -> Tensor:
        """Ids for a float input: one for each entry of an example; what is read alike becomes one unit later."""
        self.writers.append(Writer("input", "", name))
        entries = tuple(shape[1:]) if len(shape) > 1 else tuple(shape)
        ids = torch.from_numpy(self.unions.new(math.prod(entries), writer=len(self.writers) - 1, depth=0))
        return ids.reshape(entries).expand(tuple(shape))

    # -- reading -------------------------------------------------------------------------------------------------

    def along(self, ids: Tensor, axes: Sequence[int]) -> Tensor:
        """The unit of each position along some axes (in that order); entries that differ elsewhere become one unit."""
        (thin,) = thinned(ids, keep=axes)
        others = [axis for axis in range(thin.ndim) if axis not in axes]
        n_others = math.prod(thin.shape[axis] for axis in others)
        table = thin.permute(*axes, *others).reshape([*(thin.shape[axis] for axis in axes), n_others])
        if table.shape[-1] == 1:
            return table.squeeze(-1)
        first = table.amax(-1) if table.shape[-1] else table.new_full(table.shape[:-1], NONE)
        differ = (table != first.unsqueeze(-1)) & (table >= 0)
        if bool(differ.any()):
            self.unions.union(table[differ].numpy(), first.unsqueeze(-1).expand_as(table)[differ].numpy())
        return first

    def changes(self, ids: Tensor, axes: Sequence[int]) -> bool:
        """Whether different units stand along some of the axes."""
        (thin,) = thinned(ids)
        for axis in axes:
            if thin.shape[axis] > 1:
                units = torch.from_numpy(self.unions.find(thin.numpy()))
                if bool((units != units.narrow(axis, 0, 1)).any()):
                    return True
        return False

    def one_unit_along(self, value: Value, axes: Sequence[int], doing: str) -> Value:
        """The value with all units along some axes taken as one, with a warning if they were several."""
        if value.ids is None or not self.changes(value.ids, axes):
            return value
        self.warn(f"{doing}; all units along the axis are taken as one")
        kept = [axis for axis in range(len(value.shape)) if axis not in axes]
        return value.with_ids(spread(self.along(value.ids, kept), kept, value.shape))

    def connect(self, weight: Parameter, sources: Tensor, targets: Tensor, gains: Tensor | None = None) -> None:
        """Store that a weight joins units; sources and targets broadcast to the weight as it is used."""
        gains = torch.zeros_like(sources) if gains is None else gains
        connection = RawConnection(
            weight.name,
            self.owner(weight.name),
            stored(weight, sources, covers=False),
            stored(weight, targets, covers=True),
            stored(weight, gains, covers=False, missing=NO_GAIN),
        )
        key = (weight.name, connection.sources.shape, connection.targets.shape, connection.targets.tobytes())
        earlier = self._used.setdefault(key, connection)
        if earlier is not connection:  # what one weight reads in one column is one unit, whenever it reads it
            met = (earlier.sources >= 0) & (connection.sources >= 0)
            self.unions.union(earlier.sources[met], connection.sources[met])
        self.connections.append(connection)

    def attach(self, parameter: Parameter, kind: Literal["bias", "scale"], units: Tensor) -> None:
        """Store which unit each entry of a bias or a gain belongs to; `units` broadcasts to it as it is used."""
        where = stored(parameter, units, covers=True)
        self.unit_parameters.append(RawUnitParameter(parameter.name, kind, where, self.owner(parameter.name)))

    # -- merging -------------------------------------------------------------------------------------------------

    def merged(self, left: Value, right: Value, *, is_sum: bool) -> Value:
        """The units of an element-wise operation on two values of one shape: entries that meet are one unit."""
        if left.ids is None or right.ids is None:
            return left if right.ids is None else right
        carried = (left.ids, right.ids, left.gain_numbers, right.gain_numbers)
        a, b, gain_a, gain_b = (tensor.numpy() for tensor in thinned(*carried))
        ids = np.where((a >= 0) | ((a < NONE) & (is_sum | (b < 0))), a, b)
        ids = np.where((b < NONE) & (a >= 0) & is_sum, b, ids)
        gain = np.where(ids == a, np.where((a == b) & (gain_a != gain_b), NO_GAIN, gain_a), gain_b)
        meet = (a >= 0) & (b >= 0) & (a != b)
        if meet.any():
            ids[meet], gain[meet] = self._met(a[meet], b[meet], gain_a[meet], gain_b[meet], is_sum)
        return Value(left.shape, torch.from_numpy(ids).expand(left.shape), torch.from_numpy(gain).expand(left.shape))

    def _met(
        self,
        a: Int[np.ndarray, " entries"],
        b: Int[np.ndarray, " entries"],
        gain_a: Int[np.ndarray, " entries"],
        gain_b: Int[np.ndarray, " entries"],
        is_sum: bool,
    ) -> tuple[Int[np.ndarray, " entries"], Int[np.ndarray, " entries"]]:
        """Ids and gains of entries where two different ids meet."""
        if is_sum:
            self._settle(a, b)
            self._settle(b, a)
        unit_a, unit_b = self.unions.find(a), self.unions.find(b)
        n_pairs = len(np.unique(unit_a * self.unions.n_ids + unit_b))
        n_a, n_b = len(np.unique(unit_a)), len(np.unique(unit_b))
        if n_pairs > min(n_a, n_b):
            self.warn(
                f"{min(n_a, n_b)} units act on {max(n_a, n_b)} others without a weight (a gate or a broadcast); "
                "this coupling is left out of the wiring"
            )
            is_input_a, is_input_b = (not self.unions.depth(ids).any() for ids in (a, b))
            keeps_a = n_a >= n_b if is_input_a == is_input_b else is_input_b  # a mask given as an input keeps nothing
            return (a, gain_a) if keeps_a else (b, gain_b)
        pairs, where, entry = np.unique(a * self.unions.n_ids + b, return_index=True, return_inverse=True)
        del pairs
        first_a, first_b = a[where], b[where]
        depth_a, depth_b = self.unions.depth(first_a), self.unions.depth(first_b)
        new = self.unions.new(len(where), writer=-1, depth=np.maximum(depth_a, depth_b))
        self.unions.mark_stream(new, is_sum & (depth_a != depth_b) & (unit_a[where] != unit_b[where]))
        self.unions.mark_merged(first_a, gain_a[where])
        self.unions.mark_merged(first_b, gain_b[where])
        self.unions.union(new, first_a)
        self.unions.union(new, first_b)
        return new[entry.reshape(-1)], np.zeros(len(a), dtype=np.int64)

    def _settle(self, inputs: Int[np.ndarray, " entries"], others: Int[np.ndarray, " entries"]) -> None:
        """Entries of an input (not yet known to be units) that meet the same unit of several become one unit."""
        units = self.unions.find(others)
        if self.unions.depth(inputs).any() or len(np.unique(units)) < 2:
            return
        _, first, group = np.unique(units, return_index=True, return_inverse=True)
        self.unions.union(inputs, inputs[first][group.reshape(-1)])

    def mixed(self, values: Sequence[Value]) -> Tensor | None:
        """One unit made of all units of some values; None if they have none."""
        ids = [np.unique(value.ids.numpy()) for value in values if value.ids is not None]
        several = np.concatenate([some[some >= 0] for some in ids]) if ids else np.zeros(0, dtype=np.int64)
        if not len(several):
            return None
        self.unions.union(several, np.full(len(several), several[0]))
        return torch.tensor(int(several[0]))

    def couple(self, queries: Tensor, keys: Tensor) -> None:
        """Store that query and key units meet in a product; -1 and repeated pairs left out."""
        pairs = np.unique(np.stack([keys.numpy().reshape(-1), queries.numpy().reshape(-1)]), axis=1)
        sources, targets = pairs[:, (pairs >= 0).all(axis=0)]
        if len(sources):
            zeros = np.zeros_like(sources)
            self.connections.append(RawConnection("", self.layer, sources, targets, zeros, "query_key"))
