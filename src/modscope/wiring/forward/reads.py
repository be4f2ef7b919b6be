"""Where in a forward pass is a unit read, and where is it written?

A unit is read where a weight multiplies it; query and key units where they multiply each other; an output unit by
whoever gets the output. This file watches the operations of one forward pass, and says which entries of an operand
belong to which unit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from modscope.errors import ModscopeError
from modscope.wiring.forward.carried import CarriedIds
from modscope.wiring.forward.products import PRODUCTS, Place, WeightProducts, Written
from modscope.wiring.forward.stored_weights import WeightTable, storage_of
from modscope.wiring.wiring import Wiring

aten = torch.ops.aten


@dataclass(frozen=True, eq=False)
class Read:
    """What is read at one place."""

    place: Place
    operand: Tensor


Replace = Callable[[Read], Tensor]

_ATTENTION = {
    aten._scaled_dot_product_flash_attention_for_cpu.default,
    aten._scaled_dot_product_flash_attention.default,
    aten._scaled_dot_product_efficient_attention.default,
    aten._scaled_dot_product_fused_attention_overrideable.default,
    aten._scaled_dot_product_cudnn_attention.default,
}
_COPIES = {aten.clone.default, aten._to_copy.default}


class ReadMode(TorchDispatchMode):
    """Watches a forward pass, and replaces what is read.

    Args:
        model, wiring: The network.
        units: Units whose reads matter.
        replace: `replace(read)` -> the operand to use instead.
        error: What to raise where a unit cannot be followed.
    """

    def __init__(
        self, model: nn.Module, wiring: Wiring, units: np.ndarray, replace: Replace, error: type[ModscopeError]
    ) -> None:
        TorchDispatchMode.__init__(self)
        self._model = model
        self._wiring = wiring
        self._units = units
        self._replace = replace
        self._error = error
        self._reading = parameters_beside(wiring, units, "sources")
        self._followed = unread_units(wiring, units)
        self._writing = parameters_beside(wiring, self._followed, "targets")

    def start(self) -> None:
        """Forget the last forward pass. Parameters are looked up anew: masks may have put others in their place."""
        self._table = WeightTable(self._model, self._wiring, self._reading | self._writing, self._error)
        self._carried = CarriedIds(self._followed)
        self._products = WeightProducts(self._table, self._units, self._error)
        self._unknown: dict[str, str] = {}  # weight -> operation that uses it in a way that is no product

    def finish(self, outputs: Any) -> Any:
        """The outputs with their silenced units replaced.

        Raises:
            ModscopeError: If a unit was read in a way that we do not know; of the kind that `error` says.
        """
        for name, op in self._unknown.items():
            if name in self._reading and name not in self._products.known:
                raise self._error(
                    f"weight '{name}' reads units of interest, but is used by operation '{op}', in which we cannot "
                    "follow them; leave those units out"
                )
        leaves, structure = tree_flatten(outputs)
        for place in self.output_places(leaves):
            leaves[place.argument] = self._replace(Read(place, leaves[place.argument]))
        lost = self._carried.lost()
        if len(lost):
            group = self._wiring.groups[self._wiring.group_of[lost[0]]].name
            raise self._error(
                f"unit {lost[0]} of '{group}' could not be followed from its weight to where it is read; on the way: "
                f"{', '.join(sorted(self._carried.dropped)) or 'none'}; leave it out"
            )
        return tree_unflatten(leaves, structure)

    def output_places(self, leaves: Sequence[Any]) -> list[Place]:
        """Where the model's outputs hold units that are followed."""
        first = len(self._wiring.connections)
        found = [(number, self._carried.read(leaf)) for number, leaf in enumerate(leaves)]
        return [Place(number, first + number, ids, by_unit=True) for number, ids in found if ids is not None]

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operation, with what it reads replaced."""
        kwargs = kwargs or {}
        with self:
            decomposed = func.decompose(*args, **kwargs)
        if decomposed is not NotImplemented:
            return decomposed
        places, written = self._products.of(func, args)
        if written is None:
            places = self._activation_product(func, args)
        self.before(func, args, kwargs)
        result = run_replaced(func, args, kwargs, places, self._replace)
        if written is not None:
            self._carried.write(result, written.ids)
            self.wrote(written, result)
        else:
            self._follow(func, args, kwargs, result)
        self.ran(func, places, result)
        return result

    def before(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Called before every operation; a recorder overrides it."""

    def ran(self, func: Any, places: Sequence[Place], result: Any) -> None:
        """Called after every operation; a recorder overrides it."""

    def wrote(self, written: Written, result: Tensor) -> None:
        """Called after every product with a weight; who wants what units say before their nonlinearity overrides it."""

    def _activation_product(self, func: Any, args: tuple[Any, ...]) -> list[Place]:
        """Where an operation multiplies units that are followed (queries, keys) by other activations."""
        arguments = (0, 1, 2) if func in _ATTENTION else PRODUCTS.get(func, ())
        found = [(argument, self._carried.read(args[argument])) for argument in arguments]
        places = []
        for argument, ids in found:
            if ids is not None:
                first_unit = int(ids[ids >= 0].min())
                places.append(Place(argument, -1 - 3 * first_unit - argument, ids, by_unit=True))
        return places

    def _follow(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Follow weights through operations that copy them, and units through all others."""
        for argument in args:
            weight = self._table.find(argument)
            if weight is None:
                continue
            if func in _COPIES:
                self._table.copied(argument, weight, result, _without_dtype(kwargs))
            elif _is_rescaled(func, argument, result):
                self._table.copied(argument, weight, tree_leaves(result)[0], torch.clone)
            elif not (isinstance(result, Tensor) and storage_of(result) == storage_of(argument)):
                self._unknown.setdefault(weight.name, str(func))
        if func in _ATTENTION:
            self._carried.carry_product(args[2], result[0], is_right=True)
        elif func in PRODUCTS:
            left, right = (args[place] for place in PRODUCTS[func])
            self._carried.carry_product(right, result, is_right=True)
            self._carried.carry_product(left, result, is_right=False)
        else:
            self._carried.carry(func, args, kwargs, result)


def run_replaced(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], places: Sequence[Place], replace: Replace
) -> Any:
    """The operation's result, with what it reads replaced."""
    replaced = list(args)
    for place in places:
        replaced[place.argument] = replace(Read(place, replaced[place.argument]))
    return func(*replaced, **kwargs)


def unread_units(wiring: Wiring, units: np.ndarray) -> np.ndarray:
    """Those of the units that are not read by weights alone: outputs, queries and keys."""
    outputs = [group.unit_ids for group in wiring.groups if group.kind == "output"]
    coupled = [
        ids.ravel()
        for connection in wiring.connections
        if connection.kind == "query_key"
        for ids in (connection.sources, connection.targets)
    ]
    return np.intersect1d(units, np.concatenate([np.zeros(0, dtype=np.int64), *outputs, *coupled]))


def parameters_beside(wiring: Wiring, units: np.ndarray, side: str) -> set[str]:
    """Names of the weights that read (`side` "sources") or write ("targets") one of these units."""
    return {
        connection.parameter
        for connection in wiring.connections
        if connection.kind == "weight" and np.isin(getattr(connection, side), units).any()
    }


def _is_rescaled(func: Any, weight: Tensor, result: Any) -> bool:
    """Whether an operation computes a weight from a stored one, entry by entry (weight norm, a sum with another)."""
    first = tree_leaves(result)[0]
    is_entrywise = torch.Tag.pointwise in func.tags or func is aten._weight_norm_interface.default
    return is_entrywise and isinstance(first, Tensor) and first.shape == weight.shape


def _without_dtype(kwargs: dict[str, Any]) -> Callable[[Tensor], Tensor]:
    layout = {name: value for name, value in kwargs.items() if name == "memory_format"}
    return lambda elements: torch.clone(elements, **layout)
