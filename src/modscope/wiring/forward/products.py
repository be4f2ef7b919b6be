"""Which units does a product with a weight read, and which does it write?

Ids of the units that it reads are laid along the axes of the factor that is not the weight; of those that it writes,
along the axes of the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from modscope.errors import ModscopeError
from modscope.wiring.forward.stored_weights import Sides, StoredWeight, WeightTable, channel_sides

aten = torch.ops.aten

# op -> places of the two factors among its arguments
PRODUCTS: dict[Any, tuple[int, int]] = {
    aten.mm.default: (0, 1),
    aten.bmm.default: (0, 1),
    aten.mv.default: (0, 1),
    aten.addmm.default: (1, 2),
    aten._addmm_activation.default: (1, 2),
    aten.baddbmm.default: (1, 2),
    aten.addmv.default: (1, 2),
}


@dataclass(frozen=True, eq=False)
class Place:
    """One place where units are read: an argument of an operation, or an output of the model."""

    argument: int  # which argument; of the model's outputs: which of them
    key: int  # index of the connection in the wiring; above these: number of the output; below 0: a product's factor
    ids: Tensor  # unit of each entry of the operand that it broadcasts to, -1 = none
    by_unit: bool = False  # one unit lies in several entries of `ids`, and has one mean; or each column has its own


@dataclass(frozen=True, eq=False)
class Written:
    """What a product with a weight writes."""

    key: int  # index of the connection in the wiring
    ids: np.ndarray  # unit of each entry of the result that it broadcasts to


class WeightProducts:
    """The products with a weight of one forward pass.

    Args:
        table: Finds the weights.
        units: Units whose reads matter.
        error: What to raise if the model and the wiring do not fit.
    """

    def __init__(self, table: WeightTable, units: Int[np.ndarray, " units"], error: type[ModscopeError]) -> None:
        self._table = table
        self._units = units
        self._error = error
        self._calls: dict[tuple[str, int], int] = {}
        self.known: set[str] = set()  # weights that were seen in a product

    def of(self, func: Any, args: tuple[Any, ...]) -> tuple[list[Place], Written | None]:
        """Where an operation reads units through a weight, and what it writes; None: it has no weight."""
        if func in PRODUCTS:
            return self._matrix_product(func, args)
        if func is aten.convolution.default and (weight := self._table.find(args[1])) is not None:
            sides = self._chosen(weight, channel_sides(weight, args[1], is_transposed=args[6], n_groups=args[8]))
            shape = (-1,) + (1,) * (args[1].ndim - 2)
            if sides is not None:
                written = Written(sides.key, sides.targets.reshape(shape))
                return self._place(0, sides.key, sides.sources.reshape(shape), args[0]), written
        if func is aten.embedding.default and (weight := self._table.find(args[0])) is not None:
            sides = self._chosen(weight, self._table.sides(args[0], weight, 0))
            if sides is not None:
                return [], Written(sides.key, sides.targets)  # tokens are no units
        return [], None

    def _matrix_product(self, func: Any, args: tuple[Any, ...]) -> tuple[list[Place], Written | None]:
        """Matrix times matrix or vector, one of them (a view of) a weight."""
        left, right = PRODUCTS[func]
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
            written = Written(sides.key, _laid(sides.targets, n_axes, is_right))
            return self._place(operand, sides.key, ids, args[operand]), written
        return [], None

    def _place(self, argument: int, key: int, ids: np.ndarray, operand: Tensor) -> list[Place]:
        if not np.isin(ids, self._units).any():
            return []
        return [Place(argument, key, torch.from_numpy(np.ascontiguousarray(ids)).to(operand.device))]

    def _chosen(self, weight: StoredWeight, sides: list[Sides]) -> Sides | None:
        """The connection that this call of a weight is: a weight that is used twice has one for each use."""
        if not sides:
            return None
        self.known.add(weight.name)
        if all(np.array_equal(side.sources, sides[0].sources) for side in sides):
            return sides[0]
        call = (weight.name, len(sides))
        number = self._calls[call] = self._calls.get(call, -1) + 1
        if number >= len(sides):
            raise self._error(
                f"weight '{weight.name}' is used more often ({number + 1}) than in the wiring ({len(sides)}); read the "
                "wiring again with inputs of the size that the model now gets"
            )
        return sides[number]


def _laid(ids: np.ndarray, n_axes: int, is_last: bool) -> np.ndarray:
    """Ids along the last (or, of a matrix, the last but one) axis of a factor or of the product."""
    if n_axes == 1:
        return ids
    if not is_last:
        return ids[..., None]
    return ids[..., None, :] if ids.ndim > 1 else ids
