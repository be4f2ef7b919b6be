"""Which columns of which weights does a unit reach? Found by changing numbers, with no knowledge of the wiring's rules.

The model is run with every weight cut: what a weight puts out is replaced by fixed random numbers. Statistics stay
what they were (attention patterns, the scale of norms). Then what some rows of some weights put out is changed, and
the columns whose input changes are those that read these rows: nothing else connects the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

aten = torch.ops.aten
REPLAYED = {aten._softmax.default, aten.rsqrt.default, aten.var_mean.correction, aten._safe_softmax.default}
SHIFTED = {aten.native_layer_norm.default, aten.native_group_norm.default, aten._fused_rms_norm.default}
ATTENTION = {aten._scaled_dot_product_flash_attention_for_cpu.default}


@dataclass
class Cut:
    """One weight in one run: what it is, and what it was given."""

    name: str
    places: Tensor  # place in the stored parameter of each entry: (columns, rows) or (heads, columns, rows); -1 none
    given: Tensor  # (positions, columns) or (heads, positions, columns)
    is_embedding: bool


@dataclass
class CutRun(TorchDispatchMode):
    """One run with every weight cut; `change(cut)` tells which rows to change."""

    names: Mapping[int, tuple[str, Tensor]]
    change: Callable[[Cut], Tensor]
    baseline: list[Any] | None = None  # what each replayed operation gave (and was given) in the first run
    cuts: list[Cut] = field(default_factory=list)
    seen: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in REPLAYED or func in SHIFTED or func in ATTENTION:
            return self.replayed(func, args, kwargs)
        result = func(*args, **kwargs)
        cut = self.cut(func, args)
        if cut is None:
            return result
        self.cuts.append(cut)
        axis = 1 if func is aten.convolution.default else result.ndim - 1
        noise = np.random.default_rng(len(self.cuts)).standard_normal(tuple(result.shape))
        fixed = torch.from_numpy(noise).to(result.dtype)
        rows = self.change(cut)  # (rows,) or (heads, rows)
        signs = torch.from_numpy(np.random.default_rng(0).choice([-9.0, 9.0], tuple(result.shape))).to(result.dtype)
        rows = (
            rows.unsqueeze(1) if rows.ndim == 2 else rows.reshape([-1 if i == axis else 1 for i in range(result.ndim)])
        )
        return fixed + signs * rows

    def replayed(self, func: Any, args: Any, kwargs: Any) -> Any:
        if self.baseline is None:
            result = func(*args, **kwargs)
            self.seen.append(
                tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, (args, kwargs, result))
            )
            return result
        before_args, before_kwargs, before = self.baseline[len(self.seen)]
        self.seen.append(None)
        if func in ATTENTION:  # the pattern that was, on the values that are
            return func(*before_args[:2], args[2], *args[3:], **before_kwargs)
        if func in SHIFTED:
            return (before[0] + (args[0] - before_args[0]), *before[1:])
        return before

    def cut(self, func: Any, args: Any) -> Cut | None:
        if func is aten.embedding.default and (found := self.stored(args[0])):
            return Cut(found[0], found[1], torch.zeros(1, args[0].shape[0]), True)
        if func is aten.convolution.default and (found := self.stored(args[1])):
            return self.convolution(found, args[0], args[1], args[6], args[8])
        index = {aten.addmm.default: 2, aten.mm.default: 1, aten.bmm.default: 1}.get(func)
        if index is None or not (found := self.stored(args[index])):
            return None
        return Cut(found[0], found[1], args[index - 1], False)

    def convolution(
        self, found: tuple[str, Tensor], given: Tensor, weight: Tensor, transposed: bool, groups: int
    ) -> Cut:
        """As a table of (input channels, output channels) with one place of the kernel for each; -1 across groups."""
        name, places = found
        first = places.reshape(*places.shape[:2], -1)[..., 0]  # (out, in of a group), or (in, out of a group)
        n_rows, n_columns = first.shape[0] // groups, first.shape[1]
        table = torch.full((first.shape[0], groups * n_columns), -1)
        for group in range(groups):
            rows, columns = (
                slice(group * n_rows, (group + 1) * n_rows),
                slice(group * n_columns, (group + 1) * n_columns),
            )
            table[rows, columns] = first[rows]
        table = table if transposed else table.t()  # (in, out)
        return Cut(name, table, given.movedim(1, -1).reshape(-1, given.shape[1]), False)

    def stored(self, weight: Tensor) -> tuple[str, Tensor] | None:
        """The parameter that a tensor lies in, and the place there of each of its entries."""
        found = self.names.get(weight.untyped_storage().data_ptr())
        if found is None:
            return None
        name, parameter = found
        places = torch.arange(parameter.numel())
        return name, places.as_strided(weight.shape, weight.stride(), weight.storage_offset())


def cut_run(
    model: nn.Module, call: Callable[[], Any], change: Callable[[Cut], Tensor], baseline: list[Any] | None = None
) -> CutRun:
    """One run of `call` on the model with every weight cut."""
    names = {p.untyped_storage().data_ptr(): (name, p) for name, p in model.named_parameters()}
    run = CutRun(names, change, baseline)
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operation for a whole encoder layer cannot be cut
    try:
        with torch.no_grad(), run:
            call()
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return run


def nothing(cut: Cut) -> Tensor:
    return torch.zeros(cut.places.shape[-1], dtype=torch.bool)


def changed_columns(before: CutRun, after: CutRun) -> list[tuple[Cut, Tensor]]:
    """For every weight that reads, which of its columns were given something else: (columns,) or (heads, columns).

    A weight that is used several times has changed where it did in any of them.
    """
    changed: dict[tuple[str, int, int], tuple[Cut, Tensor]] = {}
    for old, new in zip(before.cuts, after.cuts, strict=True):
        if not old.is_embedding:
            key = (old.name, int(old.places.reshape(-1)[0]), old.places.numel())
            here = (old.given != new.given).any(-2)
            changed[key] = (old, here | changed[key][1] if key in changed else here)
    return list(changed.values())
