"""A linear layer under hard masks: each chunk of the examples is multiplied by a masked copy of the weight of its own.

No copy outlives the product that it is made for, and no gradient of a copy the sum that it joins: both live in one
scratch memory, some rows at a time, and are made again from the name of their random numbers where they are needed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from modscope.masks.compiled import flat, stream
from modscope.masks.gradient_factors import factor_fit

_SCRATCH = 2**20  # numbers: 4 MB, which a processor's outer caches hold


@dataclass(eq=False)
class Scratch:
    """Memory that is written again and again: new memory would be emptied by the system at every step."""

    _numbers: Tensor = field(default_factory=lambda: torch.empty(0))

    def matrices(self, count: int, n_rows: int, n_columns: int) -> Tensor:
        """Some matrices that hold anything."""
        size = count * n_rows * n_columns
        if self._numbers.numel() < size:
            self._numbers = torch.empty(size)
        return self._numbers[:size].view(count, n_rows, n_columns)


def chunked_linear(
    inputs: Float[Tensor, "examples inputs"],
    weight: Float[Tensor, "outputs inputs"],
    logits: Float[Tensor, "outputs inputs"],
    n_samples: int,
    generator: torch.Generator,
    scratch: Scratch,
    kernels: ModuleType,
) -> Float[Tensor, "examples outputs"]:
    """Products of examples with masked weights, without a bias; the logits get Rao-Blackwell gradients.

    Equal to `rao_blackwell` copies of the weight, one for each of `n_samples` chunks of the examples. All tensors are
    of single precision, on a processor; `kernels` are the compiled loops for such (see `kernels_for`).
    """
    bounds = [len(inputs) * sample // n_samples for sample in range(n_samples + 1)]
    return _chunked_linear(
        inputs, weight, logits, list(itertools.pairwise(bounds)), stream(generator), scratch, kernels
    )


class _ChunkedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        weight: Tensor,
        logits: Tensor,
        bounds: list[tuple[int, int]],
        seed: int,
        scratch: Scratch,
        kernels: ModuleType,
    ) -> Tensor:
        inputs, weight, logits = inputs.contiguous(), weight.contiguous(), logits.contiguous()
        ctx.bounds, ctx.seed, ctx.scratch, ctx.kernels = bounds, seed, scratch, kernels
        ctx.save_for_backward(inputs, weight, logits)
        outputs = torch.empty(len(inputs), len(weight))
        for low, high in _row_blocks(weight, len(bounds)):
            copies = _masked(weight[low:high], logits[low:high], seed, low, len(bounds), scratch, kernels)
            for copy, (start, stop) in zip(copies, bounds, strict=True):
                torch.mm(inputs[start:stop], copy.T, out=outputs[start:stop, low:high])
        return outputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight, logits = ctx.saved_tensors
        gradient = gradient.contiguous()
        bounds, kernels = ctx.bounds, ctx.kernels
        for_inputs = torch.zeros_like(inputs) if ctx.needs_input_grad[0] else None
        for_logits = torch.empty_like(logits)
        for low, high in _row_blocks(weight, len(bounds)):
            if for_inputs is None:
                copies = ctx.scratch.matrices(len(bounds), high - low, weight.shape[1])
            else:
                copies = _masked(weight[low:high], logits[low:high], ctx.seed, low, len(bounds), ctx.scratch, kernels)
                for copy, (start, stop) in zip(copies, bounds, strict=True):
                    for_inputs[start:stop].addmm_(gradient[start:stop, low:high], copy)
            for copy, (start, stop) in zip(copies, bounds, strict=True):
                torch.mm(gradient[start:stop, low:high].T, inputs[start:stop], out=copy)
            rows = flat(logits[low:high]), flat(weight[low:high])
            pulls = tuple(flat(copy) for copy in copies)
            place = low * weight.shape[1]
            kernels.follow(ctx.seed, place, *rows, pulls, factor_fit(), flat(for_logits[low:high]))
        return for_inputs, None, for_logits, None, None, None, None


_chunked_linear: Callable[..., Tensor] = _ChunkedLinear.apply


def _masked(
    rows: Tensor, logits: Tensor, seed: int, low: int, n_copies: int, scratch: Scratch, kernels: ModuleType
) -> Tensor:
    copies = scratch.matrices(n_copies, *rows.shape)
    kernels.mask(seed, low * rows.shape[1], flat(logits), flat(rows), tuple(flat(copy) for copy in copies))
    return copies


def _row_blocks(weight: Tensor, n_copies: int) -> Iterator[tuple[int, int]]:
    """First and last row of blocks of about equal size, `n_copies` of which fit in the scratch memory."""
    n_blocks = math.ceil(weight.numel() * n_copies / _SCRATCH)
    n_rows = math.ceil(len(weight) / n_blocks / 4) * 4  # random numbers are drawn by the four
    for low in range(0, len(weight), n_rows):
        yield low, min(low + n_rows, len(weight))
