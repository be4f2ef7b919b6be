"""How is a weight read under masks of whole rows and columns? By masking what goes in and what comes out, not it.

A masked column is an input that is multiplied by 0, a masked row an output: no masked copy of the weight is made, and
no gradient of the weight's size is needed. And since every example can meet a sample of its own, all samples of a step
fit into one run of the model, where that gives the same outputs as one run per sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from modscope.errors import MaskError
from modscope.masks.known_reads import INPUT, KNOWN_READS, OUTPUT, Read
from modscope.masks.layout import LogitPerGroup

Along: TypeAlias = tuple[int, Tensor]  # an axis of a stored weight, and the group of each index along it


class UnknownRead(MaskError):
    """A weight was read in a way that cannot be masked for several samples at once."""


@dataclass(frozen=True, eq=False)
class MaskedRead:
    """A weight, and how its reads are masked.

    Args:
        weight: What stands in for the parameter while the model runs.
        factors: By axis of the weight, what each index along it is multiplied by: one row of numbers, or one row for
            each of some equal runs of examples. None if the groups do not lie along axes.
        masked: The weight with its groups masked, for any read but a known one; None with several rows.
    """

    weight: Tensor
    factors: Mapping[int, Tensor] | None
    masked: Callable[[], Tensor] | None


class GroupedReads(TorchFunctionMode):
    """While active, every read of a stand-in is masked, in a run of a model on `n_examples` examples."""

    def __init__(self, reads: Mapping[str, MaskedRead], n_examples: int) -> None:
        super().__init__()
        self.reads, self.n_examples = reads, n_examples
        self.names = {id(read.weight): name for name, read in reads.items()}
        self._copies: dict[str, Tensor] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not (self._holds_stand_in(args) or self._holds_stand_in(kwargs)):
            return func(*args, **kwargs)
        if getattr(func, "__name__", "") == "__get__":
            value = func(*args, **kwargs)
            if not isinstance(value, Tensor):  # a shape or a dtype is no read
                return value
        known = KNOWN_READS.get(func)
        read = None if known is None else known(*args, **kwargs)
        factors = None if read is None else self._factors_for(read)
        if read is None or factors is None:
            return func(*self._with_copies(args), **self._with_copies(kwargs))
        return _masked(read, factors, self.n_examples)

    def _factors_for(self, read: Read) -> Mapping[int, Tensor] | None:
        """What to multiply by around this read; None if it needs a masked copy."""
        name = self.names.get(id(read.weight))
        if name is None or id(read.inputs) in self.names or id(read.bias) in self.names:
            return None
        factors = self.reads[name].factors
        return factors if factors is not None and all(axis in read.places for axis in factors) else None

    def _holds_stand_in(self, values: Any) -> bool:
        # every operation of the model comes through here, so this is kept lean
        for value in values.values() if isinstance(values, Mapping) else values:
            if id(value) in self.names:
                return True
            if isinstance(value, tuple | list | dict) and self._holds_stand_in(value):
                return True
        return False

    def _with_copies(self, values: Any) -> Any:
        if isinstance(values, Tensor):
            name = self.names.get(id(values))
            return values if name is None else self._copy(name)
        if isinstance(values, Mapping):
            return {key: self._with_copies(value) for key, value in values.items()}
        if isinstance(values, tuple | list) and not hasattr(values, "_fields"):
            return type(values)(self._with_copies(value) for value in values)
        return values

    def _copy(self, name: str) -> Tensor:
        masked = self.reads[name].masked
        if masked is None:
            raise UnknownRead(f"'{name}' is read in a way that cannot be masked for several samples at once")
        if name not in self._copies:
            self._copies[name] = masked()
        return self._copies[name]


@dataclass(frozen=True, eq=False)
class GroupSampler:
    """Masks what layers read and write by which groups are kept.

    Args:
        layout: The groups.
        along: By parameter name, the groups by axis of the parameter; None if they do not lie along axes.
        one_run: Whether the samples of a step share one run of the model.
    """

    layout: LogitPerGroup
    along: Mapping[str, tuple[Along, ...] | None]
    one_run: bool = False

    @staticmethod
    def of(layout: LogitPerGroup) -> GroupSampler:
        """With one run of the model per sample."""
        masked = {name: groups for name, groups in layout.learning.items() if groups}
        return GroupSampler(layout, {name: _along(groups, layout.shapes[name]) for name, groups in masked.items()})

    def together(self) -> GroupSampler | None:
        """The same with all samples in one run; None if a weight needs a masked copy."""
        return replace(self, one_run=True) if all(found is not None for found in self.along.values()) else None

    def one_by_one(self) -> GroupSampler:
        """The same with one run per sample."""
        return replace(self, one_run=False)

    def modes(self, samples: tuple[Tensor, ...], weights: Mapping[str, Tensor], sizes: list[int]) -> list[GroupedReads]:
        """What is active in each run of the model.

        Args:
            samples: How much of each group is kept, from 0 to 1, in each sample.
            weights: The masked parameters.
            sizes: Examples in each run.
        """
        if not self.one_run:
            return [self._mode(kept, weights, size) for kept, size in zip(samples, sizes, strict=False)]
        n_examples = sizes[0]
        kept = torch.stack(samples[:n_examples])
        if n_examples % len(kept):  # no equal runs of examples: one row for each example
            kept = kept.index_select(0, _sample_of(n_examples, len(kept), kept.device))
        return [self._mode(kept, weights, n_examples)]

    def _mode(self, kept: Tensor, weights: Mapping[str, Tensor], n_examples: int) -> GroupedReads:
        factors = self._factors(kept)
        reads = {}
        for name in self.along:
            copy = None if self.one_run else self._copy_of(name, weights[name], kept)
            reads[name] = MaskedRead(weights[name], factors.get(name), copy)
        return GroupedReads(reads, n_examples)

    def _factors(self, kept: Tensor) -> dict[str, dict[int, Tensor]]:
        factors: dict[str, dict[int, Tensor]] = {name: {} for name, found in self.along.items() if found is not None}
        if not self._lying:
            return factors
        always = F.pad(kept, (0, 1), value=1.0)  # the last entry: always kept
        # one look-up for all weights, so that its backward pass is one addition, too
        chosen = always.index_select(-1, self._index.to(kept.device))
        for (name, axis, _), piece in zip(self._lying, chosen.split(self._sizes, dim=-1), strict=True):
            factors[name][axis] = factors[name][axis] * piece if axis in factors[name] else piece
        return factors

    @cached_property
    def _lying(self) -> list[tuple[str, int, Tensor]]:
        """Parameter, axis and groups of every array that lies along an axis."""
        return [(name, axis, groups) for name, found in self.along.items() for axis, groups in found or ()]

    @cached_property
    def _index(self) -> Tensor:
        """Their groups one after the other; "in no group" is the last entry of all."""
        return torch.cat([groups for *_, groups in self._lying]).remainder(self.layout.n_groups + 1)

    @cached_property
    def _sizes(self) -> list[int]:
        return [len(groups) for *_, groups in self._lying]

    def _copy_of(self, name: str, weight: Tensor, kept: Tensor) -> Callable[[], Tensor]:
        return lambda: self.layout.masked_weight(name, weight, kept)


@lru_cache(maxsize=16)
def _sample_of(n_examples: int, n_samples: int, device: torch.device) -> Tensor:
    """The sample that each example meets: contiguous runs of examples, as chunks are cut."""
    bounds = torch.arange(n_samples + 1) * n_examples // n_samples
    return torch.arange(n_samples).repeat_interleave(bounds.diff()).to(device)


def _masked(read: Read, factors: Mapping[int, Tensor], n_examples: int) -> Tensor:
    inputs, is_masked_after = read.inputs, False
    for axis, factor in factors.items():
        if read.places[axis] == INPUT:
            inputs = _multiplied(inputs, factor, read.channel, n_examples)
        is_masked_after |= read.places[axis] != INPUT
    if not is_masked_after:
        return read.run(inputs, read.bias)
    outputs = read.run(inputs, None)
    for axis, factor in factors.items():
        if read.places[axis] == OUTPUT:
            outputs = _multiplied(outputs, factor, read.channel, n_examples)
        elif read.places[axis] != INPUT:
            outputs = outputs * _by_token(read.inputs, factor, n_examples).unsqueeze(-1).to(outputs.dtype)
    if read.bias is None:
        return outputs
    return outputs + read.bias.reshape(-1, *[1] * (-1 - read.channel))


def _multiplied(values: Tensor, factor: Tensor, channel: int, n_examples: int) -> Tensor:
    """Values times a number per channel, or per run of examples and channel; examples lie along the first axis."""
    factor = factor.to(values.dtype)
    trailing = [1] * (-1 - channel)
    if factor.ndim == 1:
        return values * factor.reshape(-1, *trailing)
    n_rows, n_runs = values.shape[0], factor.shape[0]
    between = [1] * (values.ndim + channel)  # axes between the runs and the channels
    if n_rows == 1:  # the same for all examples so far
        values = values.expand(n_examples, *values.shape[1:])
    elif n_rows % n_examples:
        raise UnknownRead(f"a layer reads {n_rows} rows for {n_examples} examples")
    # the rows of one run lie together, one for each example or several (positions)
    masked: Tensor = values.unflatten(0, (n_runs, -1)) * factor.reshape(n_runs, *between, -1, *trailing)
    return masked.flatten(0, 1)


def _by_token(tokens: Tensor, factor: Tensor, n_examples: int) -> Tensor:
    """The number of each token, or of each example's token."""
    if factor.ndim == 1:
        return factor[tokens]
    if len(tokens) != n_examples:
        raise UnknownRead(f"an embedding reads {len(tokens)} rows for {n_examples} examples")
    return factor.gather(1, tokens.reshape(len(factor), -1)).reshape(tokens.shape)


def _along(groups: tuple[Tensor, ...], shape: torch.Size) -> tuple[Along, ...] | None:
    """Each array of group numbers as an axis of the parameter and a number per index; None if one varies along two."""
    found = []
    for numbers in groups:
        padded = (1,) * (len(shape) - numbers.ndim) + tuple(numbers.shape)
        axes = [axis for axis, size in enumerate(padded) if size > 1]
        if len(axes) > 1:
            return None
        axis = axes[0] if axes else 0
        found.append((axis, numbers.reshape(-1).expand(shape[axis])))
    return tuple(found)
