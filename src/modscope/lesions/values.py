"""What is read instead of what a silenced unit says?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from modscope.calling import arguments, evaluation_mode, explained, split_batch
from modscope.errors import LesionError, ModscopeError
from modscope.randomness import Rng, numbered, seed_of
from modscope.wiring.forward.kernels import unfused
from modscope.wiring.forward.reads import Read, ReadMode
from modscope.wiring.wiring import Wiring

Value: TypeAlias = Literal["zero", "mean", "resample"]


class Fill(Protocol):
    """What is read instead of what silenced units say."""

    def __call__(self, read: Read) -> Tensor:
        """Values that broadcast to the operand; only those of silenced units are used."""
        ...

    def prepare(self, forward: Callable[..., Any], inputs: Any, number: int) -> None:
        """Called before forward pass `number`, with its inputs."""


class Replacement:
    """Replaces the silenced units' entries of what is read."""

    def __init__(self, fill: Fill, units: np.ndarray, n_units: int) -> None:
        self._fill = fill
        self._is_silenced = torch.zeros(n_units + 1, dtype=torch.bool)  # the last one: no unit (-1)
        self._is_silenced[torch.from_numpy(units)] = True

    def __call__(self, read: Read) -> Tensor:
        """The operand with the silenced units' entries replaced."""
        is_silenced = self._is_silenced.to(read.operand.device)[read.place.ids]
        return torch.where(is_silenced, self._fill(read).to(read.operand.dtype), read.operand)


def fill_for(
    model: nn.Module, wiring: Wiring, units: np.ndarray, *, value: Value, reference: Iterable[Any] | None, rng: Rng
) -> Fill:
    """What to read instead of these units, or of any of them.

    Raises:
        LesionError: If `value` is none of the three, or its reference batches are missing.
    """
    if value == "zero":
        return Zero()
    if value not in ("mean", "resample"):
        raise LesionError(f"value must be 'zero', 'mean' or 'resample', got {value!r}")
    batches = [_inputs(model, batch) for batch in _checked(reference, value)]
    if value == "mean":
        return Mean(model, wiring, units, batches)
    return Resample(model, wiring, units, batches, seed_of(rng))


class Zero:
    """Nothing is said."""

    def __call__(self, read: Read) -> Tensor:
        """Zero."""
        return read.operand.new_zeros(())

    def prepare(self, forward: Callable[..., Any], inputs: Any, number: int) -> None:
        """Zero is zero for all inputs."""


class Mean:
    """The mean of what is read there, a column at a time: over the examples, and over positions that share a weight."""

    def __init__(self, model: nn.Module, wiring: Wiring, units: np.ndarray, batches: Sequence[Any]) -> None:
        self._sums: dict[int, Tensor] = {}
        self._counts: dict[int, Tensor] = {}
        self._n_units = wiring.n_units
        watch = ReadMode(model, wiring, units, self._add, LesionError)
        for inputs in batches:
            _watched(watch, model, model, inputs)
        self._means = {key: total / self._counts[key].clamp(min=1) for key, total in self._sums.items()}

    def __call__(self, read: Read) -> Tensor:
        """The mean of each entry."""
        mean = self._means[read.place.key]
        return mean[read.place.ids.clamp(min=0)] if read.place.by_unit else mean

    def prepare(self, forward: Callable[..., Any], inputs: Any, number: int) -> None:
        """The means are known already."""

    def _add(self, read: Read) -> Tensor:
        total, count = _sums_by_unit(read, self._n_units) if read.place.by_unit else _sums_by_column(read)
        key = read.place.key
        self._sums[key] = self._sums[key] + total if key in self._sums else total
        self._counts[key] = self._counts[key] + count if key in self._counts else count
        return read.operand


def _sums_by_column(read: Read) -> tuple[Tensor, Tensor]:
    shape = (1,) * (read.operand.ndim - read.place.ids.ndim) + tuple(read.place.ids.shape)
    total = read.operand.double().sum_to_size(shape)
    return total, torch.tensor(read.operand.numel() / total.numel(), device=total.device)


def _sums_by_unit(read: Read, n_units: int) -> tuple[Tensor, Tensor]:
    ids = read.place.ids.expand(read.operand.shape)
    known = ids >= 0
    values = read.operand[known].double()
    total = torch.zeros(n_units, dtype=torch.float64, device=values.device).index_add_(0, ids[known], values)
    return total, torch.bincount(ids[known], minlength=n_units)


class Resample:
    """What another example, the donor, has at the same place; donors are drawn anew for every forward pass."""

    def __init__(self, model: nn.Module, wiring: Wiring, units: np.ndarray, batches: Sequence[Any], seed: int) -> None:
        self._model = model
        self._batches = batches
        self._n_examples = [_batch_size(inputs) for inputs in batches]
        self._seed = seed
        self._watch = ReadMode(model, wiring, units, self._keep, LesionError)
        self._donated: dict[int, list[Tensor]] = {}

    def __call__(self, read: Read) -> Tensor:
        """The donors' values: a forward pass reads in the same order as that of its donors."""
        donated = self._donated.get(read.place.key)
        if not donated or donated[0].shape != read.operand.shape:
            raise LesionError(
                "the reference examples have other shapes than the examples that the model now gets "
                f"({tuple(donated[0].shape) if donated else 'none'} and {tuple(read.operand.shape)} where a silenced "
                "unit is read); value='resample' needs reference batches of the same shapes"
            )
        return donated.pop(0)

    def prepare(self, forward: Callable[..., Any], inputs: Any, number: int) -> None:
        """Run as many donors as there are examples, and keep what is read."""
        rng = numbered(self._seed, "donors", number)
        chosen = rng.integers(sum(self._n_examples), size=_batch_size(inputs))
        self._donated = {}
        _watched(self._watch, self._model, forward, _joined(self._batches, self._n_examples, chosen))

    def _keep(self, read: Read) -> Tensor:
        self._donated.setdefault(read.place.key, []).append(read.operand.clone())
        return read.operand


def _watched(watch: ReadMode, model: nn.Module, forward: Callable[..., Any], inputs: Any) -> None:
    """Run reference examples, for the sake of what they read."""
    positional, keywords = arguments(model, inputs)
    with evaluation_mode(model), torch.no_grad(), unfused(model):
        watch.start()
        try:
            with watch:
                outputs = forward(*positional, **keywords)
        except ModscopeError:
            raise
        except Exception as error:
            raise explained(error, "running the model on reference examples", inputs, LesionError) from error
        watch.finish(outputs)


def _checked(reference: Iterable[Any] | None, value: str) -> list[Any]:
    batches = [] if reference is None else list(reference)
    if not batches:
        given = "none" if reference is None else "an empty one"
        raise LesionError(
            f"value='{value}' takes its values from reference batches, got {given}; give reference=task.test"
        )
    return batches


def _inputs(model: nn.Module, batch: Any) -> Any:
    return batch if isinstance(batch, Tensor) else split_batch(model, batch)[0]


def _batch_size(inputs: Any) -> int:
    sizes = [tensor.shape[0] for tensor in tree_leaves(inputs) if isinstance(tensor, Tensor) and tensor.ndim]
    if not sizes:
        raise LesionError("value='resample' needs inputs with at least one tensor that holds one entry per example")
    return int(sizes[0])


def _joined(batches: Sequence[Any], n_examples: Sequence[int], chosen: np.ndarray) -> Any:
    """One batch of the chosen examples, counted through all batches."""

    def pick(*leaves: Any) -> Any:
        of_examples = [
            isinstance(leaf, Tensor) and leaf.ndim > 0 and leaf.shape[0] == size
            for leaf, size in zip(leaves, n_examples, strict=True)
        ]
        return torch.cat(leaves)[torch.from_numpy(chosen)] if all(of_examples) else leaves[0]

    try:
        return tree_map(pick, batches[0], *batches[1:])
    except (RuntimeError, ValueError) as error:
        raise LesionError(f"the reference batches do not fit together as one: {error}") from error
