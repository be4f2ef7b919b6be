"""Which unit is each entry of an activation? Followed from the weight that writes it, for what no weight reads."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

aten = torch.ops.aten

# operations that move entries, and do the same to their ids
_MOVES = {aten.clone.default, aten._unsafe_view.default, aten.cat.default, aten.stack.default, aten.flip.default,
          aten.index_select.default, aten.repeat.default, aten.roll.default, aten.gather.default}  # fmt: skip


class CarriedIds:
    """Unit ids beside activations, by the memory that these live in: a view needs no rule.

    Args:
        units: Units to follow; the rest is not carried.
    """

    def __init__(self, units: np.ndarray) -> None:
        self._units = units
        self._by_storage: dict[int, Tensor] = {}  # storage -> ids of its elements
        self._kept: list[Tensor] = []  # as long as the ids are known, their memory is not used again

    def write(self, written: Tensor, ids: np.ndarray) -> None:
        """Remember that a weight has written `written`; `ids` broadcast to it."""
        if len(self._units) == 0 or not np.isin(ids, self._units).any():
            return
        spread = torch.from_numpy(np.ascontiguousarray(ids)).to(written.device).expand(written.shape)
        self._remember(written, spread)

    def of(self, tensor: object) -> Tensor | None:
        """Ids of a tensor's entries, -1 = none; None if it holds no unit that is followed."""
        if not isinstance(tensor, Tensor) or not self._by_storage:
            return None
        ids = self._by_storage.get(tensor.untyped_storage().data_ptr())
        return None if ids is None else ids.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())

    def carry(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Take ids through one operation: entries that move take theirs along, entry by entry they stay."""
        if not self._by_storage:
            return
        known = [ids for ids in map(self.of, _tensors(args)) if ids is not None]
        if not known or not isinstance(result, Tensor) or self._shares(result, args):
            return
        if func in _MOVES:
            self._remember(result, func(*_with_ids(args, self), **kwargs))
            return
        spread = [ids for ids in known if _broadcasts(ids, result)]
        if spread:
            self._remember(result, torch.stack([ids.expand(result.shape) for ids in spread]).amax(0))

    def _shares(self, result: Tensor, args: tuple[Any, ...]) -> bool:
        storage = result.untyped_storage().data_ptr()
        return storage in self._by_storage and any(
            storage == argument.untyped_storage().data_ptr() for argument in _tensors(args)
        )

    def _remember(self, tensor: Tensor, ids: Tensor) -> None:
        storage = tensor.untyped_storage()
        flat = torch.full((storage.nbytes() // tensor.element_size(),), -1, dtype=torch.int64, device=tensor.device)
        flat.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset()).copy_(ids)
        self._by_storage[storage.data_ptr()] = flat
        self._kept.append(tensor)


def _broadcasts(ids: Tensor, result: Tensor) -> bool:
    shape = (1,) * (result.ndim - ids.ndim) + tuple(ids.shape)
    return len(shape) == result.ndim and all(a in (1, b) for a, b in zip(shape, result.shape, strict=True))


def _tensors(args: tuple[Any, ...]) -> list[Tensor]:
    flat: list[Tensor] = []
    for argument in args:
        if isinstance(argument, Tensor):
            flat.append(argument)
        elif isinstance(argument, list | tuple):
            flat.extend(entry for entry in argument if isinstance(entry, Tensor))
    return flat


def _with_ids(args: tuple[Any, ...], carried: CarriedIds) -> list[Any]:
    def ids_of(argument: Any, is_first: bool) -> Any:
        if isinstance(argument, list | tuple) and argument and isinstance(argument[0], Tensor):
            return [ids_of(entry, True) for entry in argument]
        if not isinstance(argument, Tensor) or not is_first:
            return argument
        ids = carried.of(argument)
        return torch.full(argument.shape, -1, device=argument.device) if ids is None else ids

    return [ids_of(argument, place == 0) for place, argument in enumerate(args)]
