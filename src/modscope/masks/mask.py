"""What is a mask, and a set of masks: which weights are kept for a task?"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from modscope.errors import MaskError
from modscope.masks.fitting import are_equal, check_companions, check_kept, check_same_parameters
from modscope.masks.thresholds import kept_above, kept_share
from modscope.records import Record, record_of

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, eq=False)
class Mask:
    """Which entries of some parameters are kept: one boolean tensor per parameter name.

    A parameter that the mask does not name is whole. Masks of the same parameters combine with `&`, `|` and `-`
    ("kept by the first, not by the second"); `~mask` keeps exactly what `mask` removes.

    Args:
        kept: Boolean tensor by dotted parameter name, of the parameter's stored shape.
        logits: What was learned, by the same names: an entry is kept if its logit is above 0. None after set algebra.
        details: How the mask came about, as plain JSON values.
        strata: By the same names, what a fair random mask must match: 0 where the task's loss never feels the weight
            (or the weight is zero), else 1 to 10, the decile of its size in its tensor. None if not known.

    Raises:
        MaskError: If an entry is not a boolean tensor, or the logits or strata do not fit.
    """

    kept: Mapping[str, Tensor]
    logits: Mapping[str, Tensor] | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    strata: Mapping[str, Tensor] | None = None

    def __post_init__(self) -> None:
        check_kept(self.kept)
        for what, tensors in (("logits", self.logits), ("strata", self.strata)):
            check_companions(self.kept, tensors, what)
            if tensors is not None:
                object.__setattr__(self, what, MappingProxyType(dict(tensors)))
        object.__setattr__(self, "kept", MappingProxyType(dict(self.kept)))
        object.__setattr__(self, "details", MappingProxyType(dict(self.details)))

    def __reduce__(self) -> tuple[Any, ...]:
        logits, strata = (None if tensors is None else dict(tensors) for tensors in (self.logits, self.strata))
        return Mask, (dict(self.kept), logits, dict(self.details), strata)

    @property
    def names(self) -> tuple[str, ...]:
        """The masked parameters."""
        return tuple(self.kept)

    def __getitem__(self, name: str) -> Tensor:
        try:
            return self.kept[name]
        except KeyError:
            raise MaskError(f"the mask has no parameter '{name}'; it has {', '.join(self.names)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.kept)

    @cached_property
    def n_weights(self) -> int:
        """Number of masked entries, kept or not."""
        return sum(tensor.numel() for tensor in self.kept.values())

    @cached_property
    def n_kept(self) -> int:
        """Number of kept entries."""
        return sum(int(tensor.sum()) for tensor in self.kept.values())

    @property
    def density(self) -> float:
        """Share of the masked entries that are kept."""
        return self.n_kept / max(self.n_weights, 1)

    @property
    def densities(self) -> dict[str, float]:
        """Share of kept entries by parameter name."""
        return {name: int(tensor.sum()) / max(tensor.numel(), 1) for name, tensor in self.kept.items()}

    def at(self, threshold: float) -> Mask:
        """The mask that keeps every entry whose logit is above `threshold`.

        Raises:
            MaskError: If this mask was not learned.
        """
        kept = kept_above(self.logits, threshold)
        return Mask(kept, self.logits, {**self.details, "threshold": threshold}, self.strata)

    def at_density(self, density: float) -> Mask:
        """The mask that keeps this share of the entries: those with the largest logits, ties to the first.

        Raises:
            MaskError: If this mask was not learned, or `density` is not in [0, 1].
        """
        kept = kept_share(self.logits, density)
        return Mask(kept, self.logits, {**self.details, "density": density}, self.strata)

    def restrict(self, patterns: str | Sequence[str]) -> Mask:
        """The mask on the parameters whose name fits one of the patterns ("layer1.*"); all others become whole.

        Raises:
            MaskError: If a pattern fits no parameter of the mask.
        """
        wanted = [patterns] if isinstance(patterns, str) else list(patterns)
        for pattern in wanted:
            if not any(fnmatch.fnmatchcase(name, pattern) for name in self.names):
                raise MaskError(f"pattern '{pattern}' fits no parameter of the mask; it has {', '.join(self.names)}")
        names = [name for name in self.names if any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted)]
        companions = (self.logits, self.strata)
        logits, strata = (None if all_ is None else {name: all_[name] for name in names} for all_ in companions)
        return Mask({name: self.kept[name] for name in names}, logits, self.details, strata)

    def __and__(self, other: Mask) -> Mask:
        return self._combined(other, torch.logical_and)

    def __or__(self, other: Mask) -> Mask:
        return self._combined(other, torch.logical_or)

    def __sub__(self, other: Mask) -> Mask:
        return self._combined(other, lambda mine, theirs: mine & ~theirs)

    def __invert__(self) -> Mask:
        return Mask({name: ~tensor for name, tensor in self.kept.items()})

    def _combined(self, other: Mask, operation: Callable[[Tensor, Tensor], Tensor]) -> Mask:
        if not isinstance(other, Mask):
            return NotImplemented
        check_same_parameters(self.kept, other.kept)
        return Mask({name: operation(tensor, other.kept[name]) for name, tensor in self.kept.items()})

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mask):
            return NotImplemented
        return are_equal(self.kept, other.kept)

    def __hash__(self) -> int:
        return hash((frozenset(self.names), self.n_kept))

    def __repr__(self) -> str:
        return (
            f"Mask({len(self.kept)} parameters, {self.n_kept:,} of {self.n_weights:,} kept, density {self.density:.3f})"
        )

    def to_frame(self) -> pl.DataFrame:
        """One row per parameter, and one for all: entries, kept entries, density."""
        import polars as pl

        rows = [(name, tensor.numel(), int(tensor.sum())) for name, tensor in self.kept.items()]
        rows.append(("all", self.n_weights, self.n_kept))
        frame = pl.DataFrame(rows, schema=["parameter", "weights", "kept"], orient="row")
        return frame.with_columns((pl.col("kept") / pl.col("weights")).alias("density"))

    def to_dict(self) -> dict[str, Any]:
        """Densities and details as plain JSON values; the tensors themselves go to `save`."""
        return {
            "density": self.density,
            "n_kept": self.n_kept,
            "n_weights": self.n_weights,
            "densities": self.densities,
            "details": dict(self.details),
        }

    def record(self) -> Record:
        """The same numbers as a `Record`, which can be saved and read again."""
        return record_of("mask", self.to_dict())

    def save(self, path: str | Path) -> Path:
        """Write the mask to one safetensors file, whole or not at all; see docs/mask-file-format.md."""
        from modscope.masks.files import write_mask

        return write_mask(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> Mask:
        """The mask in a file that `save` wrote.

        Raises:
            RecordError: If the file is missing, damaged, no mask, or of a newer version.
        """
        from modscope.masks.files import read_mask

        return read_mask(Path(path))


@dataclass(frozen=True, eq=False)
class MaskSet(Mapping[str, Mask]):
    """Masks by task name: one per task, or one per seed of each task.

    `mask_set[name]` is the first seed's mask, `mask_set.seeds(name)` gives all.

    Raises:
        MaskError: If there is no task, a task has no mask, or two masks are of different parameters.
    """

    masks: Mapping[str, Mask | Sequence[Mask]]

    def __post_init__(self) -> None:
        if not isinstance(self.masks, Mapping) or not self.masks:
            raise MaskError(f"a mask set needs at least one task name -> Mask, or one per seed, got {self.masks!r}")
        by_task: dict[str, tuple[Mask, ...]] = {}
        for name, masks in self.masks.items():
            several = (masks,) if isinstance(masks, Mask) else tuple(masks)
            if not several or not all(isinstance(mask, Mask) for mask in several):
                raise MaskError(f"task '{name}' needs a Mask, or one Mask per seed, got {masks!r}")
            by_task[name] = several
        everything = [mask for masks in by_task.values() for mask in masks]
        for mask in everything[1:]:
            check_same_parameters(everything[0].kept, mask.kept)
        object.__setattr__(self, "masks", MappingProxyType(by_task))

    def __reduce__(self) -> tuple[Any, ...]:
        return MaskSet, (dict(self.masks),)

    def seeds(self, name: str) -> tuple[Mask, ...]:
        """The masks of a task, one per seed.

        Raises:
            MaskError: If the set has no such task.
        """
        masks = self.masks.get(name)
        if masks is None:
            raise MaskError(f"no masks of task '{name}'; there are masks of {', '.join(self.masks)}")
        return masks if isinstance(masks, tuple) else (masks,)  # type narrowing: __post_init__ made tuples

    @property
    def n_seeds(self) -> int:
        """Number of seeds that every task has."""
        return min(len(self.seeds(name)) for name in self.masks)

    def __getitem__(self, name: str) -> Mask:
        return self.seeds(name)[0]

    def __iter__(self) -> Iterator[str]:
        return iter(self.masks)

    def __len__(self) -> int:
        return len(self.masks)

    def __contains__(self, name: object) -> bool:
        return name in self.masks

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MaskSet):
            return NotImplemented
        return list(self) == list(other) and all(self.seeds(name) == other.seeds(name) for name in self)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def to_frame(self) -> pl.DataFrame:
        """One row per task, seed and parameter: entries, kept entries, density."""
        import polars as pl

        frames = [
            mask.to_frame().select(pl.lit(name).alias("task"), pl.lit(seed).alias("seed"), pl.all())
            for name in self
            for seed, mask in enumerate(self.seeds(name))
        ]
        return pl.concat(frames)

    def to_dict(self) -> dict[str, Any]:
        """Densities and details of every mask as plain JSON values."""
        return {name: [mask.to_dict() for mask in self.seeds(name)] for name in self}

    def record(self) -> Record:
        """The same numbers as a `Record`, which can be saved and read again."""
        return record_of("mask set", self.to_dict())

    def save_pretrained(self, directory: str | Path) -> Path:
        """Write a folder with one file per mask and `masks.json`, which lists them."""
        from modscope.masks.files import write_mask_set

        return write_mask_set(self, Path(directory))

    @classmethod
    def from_pretrained(cls, directory: str | Path) -> MaskSet:
        """The masks in a folder that `save_pretrained` wrote.

        Raises:
            RecordError: If a file is missing, damaged, or of a newer version.
        """
        from modscope.masks.files import read_mask_set

        return read_mask_set(Path(directory))
