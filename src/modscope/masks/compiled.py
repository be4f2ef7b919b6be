"""Where do compiled loops take over, and how are tensors given to them?"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modscope.masks.gradient_factors import factor_fit


def kernels_for(logits: Tensor, weight: Tensor) -> ModuleType | None:
    """Compiled loops for these tensors: for single precision on a processor, where the extra `fast` is installed."""
    if logits.device.type != "cpu" or logits.dtype != torch.float32 or weight.dtype != torch.float32:
        return None
    return _kernels()


def stream(generator: torch.Generator) -> int:
    """The name of a new stream of random numbers for the compiled loops."""
    return int(torch.empty((), dtype=torch.int64).random_(generator=generator))


def flat(tensor: Tensor) -> np.ndarray:
    """The numbers of a contiguous tensor, one after another, where they lie."""
    return tensor.view(-1).numpy()


class _Compiled(torch.autograd.Function):
    """Rao-Blackwell samples by compiled loops: nothing but the name of the random numbers is kept for the gradient."""

    @staticmethod
    def forward(
        ctx: Any, kernels: ModuleType, logits: Tensor, weight: Tensor, n_copies: int, generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        logits, weight = logits.detach().contiguous(), weight.detach().contiguous()
        ctx.kernels, ctx.seed = kernels, stream(generator)
        ctx.save_for_backward(logits, weight)
        copies = torch.empty(n_copies, *weight.shape)
        kernels.mask(ctx.seed, 0, flat(logits), flat(weight), tuple(flat(copy) for copy in copies))
        return copies.unbind()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        logits, weight = ctx.saved_tensors
        result = torch.empty_like(logits)
        pulls = tuple(flat(gradient.contiguous()) for gradient in gradients)
        ctx.kernels.follow(ctx.seed, 0, flat(logits), flat(weight), pulls, factor_fit(), flat(result))
        return None, result, None, None, None


compiled_copies: Callable[..., tuple[Tensor, ...]] = _Compiled.apply


@cache
def _kernels() -> ModuleType | None:
    if find_spec("numba") is None:
        return None
    from modscope.masks import kernels

    return kernels
