"""Which unit is each entry of an activation? Followed from the weight that writes it, for what no weight reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from modscope.wiring.forward.stored_weights import storage_of

aten = torch.ops.aten

# operations that move entries, and do the same to their ids
_MOVES = {
    aten.clone.default,
    aten._unsafe_view.default,
    aten.cat.default,
    aten.stack.default,
    aten.flip.default,
    aten.index.Tensor,
    aten.index_select.default,
    aten.gather.default,
    aten.repeat.default,
    aten.roll.default,
    aten.pixel_shuffle.default,
    aten.pixel_unshuffle.default,
}
_MEANS = {aten.mean.dim, aten.sum.dim_IntList, aten.amax.default, aten.amin.default}


class CarriedIds:
    """Unit ids beside activations, by the memory that these live in: a view needs no rule.

    Args:
        units: Units to follow; the others are not carried.
    """

    def __init__(self, units: Int[np.ndarray, " units"]) -> None:
        self._units = units
        self._by_storage: dict[int, Tensor] = {}  # storage -> ids of its elements
        self._kept: list[Tensor] = []  # as long as the ids are known, their memory is not used again
        self._written: set[int] = set()
        self._read: set[int] = set()
        self.dropped: set[str] = set()  # operations through which ids could not be followed

    def write(self, written: Tensor, ids: Int[np.ndarray, "..."]) -> None:
        """Remember that a weight has written `written`; `ids` broadcast to it."""
        mine = np.intersect1d(ids, self._units)
        if not len(mine):
            return
        self._written.update(mine.tolist())
        spread = torch.from_numpy(np.ascontiguousarray(ids)).to(written.device).expand(written.shape)
        self._remember(written, spread)

    def of(self, tensor: object) -> Tensor | None:
        """Ids of a tensor's entries, -1 = none; None if it holds no unit that is followed."""
        if not self._by_storage or not isinstance(tensor, Tensor):
            return None
        ids = self._by_storage.get(storage_of(tensor))
        return None if ids is None else ids.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())

    def read(self, tensor: object) -> Tensor | None:
        """The same, of a tensor that is read here."""
        ids = self.of(tensor)
        if ids is None:
            return None
        mine = np.intersect1d(torch.unique(ids).cpu().numpy(), self._units)
        self._read.update(mine.tolist())
        return ids if len(mine) else None

    def lost(self) -> Int[np.ndarray, " units"]:
        """Units that were written, but not read anywhere."""
        return np.array(sorted(self._written - self._read), dtype=np.int64)

    def carry(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """Take ids through an operation: entries that move take theirs along, entry by entry they stay."""
        if not self._by_storage:
            return
        known = [ids for ids in map(self.of, _tensors(args)) if ids is not None]
        results = list(result) if isinstance(result, tuple | list) else [result]
        if not known or not results or not isinstance(results[0], Tensor) or self._shares(results[0], args):
            return
        ids = self._through(func, args, kwargs, results[0], known)
        if ids is not None:
            self._remember(results[0], ids)
        else:
            self.dropped.add(str(func))

    def carry_product(self, factor: object, result: Tensor, *, is_right: bool) -> None:
        """Take ids through a product of activations: those of one factor that do not change along the sum."""
        ids = self.of(factor)
        if ids is None:
            return
        summed = -2 if is_right and ids.ndim > 1 else -1
        first = ids.narrow(summed, 0, 1)
        if bool((ids == first).all()) and _broadcasts(first, result):
            self._remember(result, first.expand(result.shape))

    def _through(
        self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], result: Tensor, known: Sequence[Tensor]
    ) -> Tensor | None:
        if func in _MOVES:
            moved: Tensor = func(*self._in_place_of_tensors(args), **kwargs)
            return moved
        if func is aten.constant_pad_nd.default:
            return torch.nn.functional.pad(known[0], list(args[1]), value=-1)
        if func in _MEANS:
            low, high = (_reduced(reduce, known[0], args, kwargs) for reduce in (torch.amin, torch.amax))
            return low if torch.equal(low, high) else None
        spread = [ids.expand(result.shape) for ids in known if _broadcasts(ids, result)]
        if spread:
            return torch.stack(spread).amax(0)
        return _pooled(known[0], result)

    def _in_place_of_tensors(self, args: tuple[Any, ...]) -> list[Any]:
        def ids_of(tensor: Tensor) -> Tensor:
            ids = self.of(tensor)
            return torch.full(tensor.shape, -1, device=tensor.device) if ids is None else ids

        first = args[0]
        moved = [ids_of(tensor) for tensor in first] if isinstance(first, list | tuple) else ids_of(first)
        return [moved, *args[1:]]

    def _shares(self, result: Tensor, args: tuple[Any, ...]) -> bool:
        """Whether the result is a view of (or is) an argument with ids."""
        storage = storage_of(result)
        return storage in self._by_storage and any(storage == storage_of(tensor) for tensor in _tensors(args))

    def _remember(self, tensor: Tensor, ids: Tensor) -> None:
        storage = tensor.untyped_storage()
        flat = torch.full((storage.nbytes() // tensor.element_size(),), -1, dtype=torch.int64, device=tensor.device)
        flat.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset()).copy_(ids)
        self._by_storage[storage.data_ptr()] = flat
        self._kept.append(tensor)


def _broadcasts(ids: Tensor, result: Tensor) -> bool:
    shape = (1,) * (result.ndim - ids.ndim) + tuple(ids.shape)
    return len(shape) == result.ndim and all(a in (1, b) for a, b in zip(shape, result.shape, strict=True))


def _reduced(reduce: Any, ids: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    axes = args[1] if len(args) > 1 and args[1] else tuple(range(ids.ndim))
    reduced: Tensor = reduce(ids, axes, keepdim=bool(args[2] if len(args) > 2 else kwargs.get("keepdim", False)))
    return reduced


def _pooled(ids: Tensor, result: Tensor) -> Tensor | None:
    """Pooling and resizing keep channels, if each has one unit at all positions."""
    if ids.ndim != result.ndim or ids.ndim < 3 or ids.shape[:2] != result.shape[:2]:
        return None
    first = ids.flatten(2)[..., :1]
    if not bool((ids.flatten(2) == first).all()):
        return None
    return first.reshape(*ids.shape[:2], *[1] * (ids.ndim - 2)).expand(result.shape)


def _tensors(args: tuple[Any, ...]) -> list[Tensor]:
    flat: list[Tensor] = []
    for argument in args:
        if isinstance(argument, Tensor):
            flat.append(argument)
        elif isinstance(argument, list | tuple):
            flat.extend(entry for entry in argument if isinstance(entry, Tensor))
    return flat
