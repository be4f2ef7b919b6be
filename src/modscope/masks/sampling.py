"""How is a weight masked at random, and what gradient does its logit get?

Every estimator takes logits and the weights they mask, and gives independently masked copies of the weights. With
m = 1 with probability sigmoid(l), the gradient for l is the sum over copies of dL/dm times a factor that the estimator
chooses. Source: Csordás et al. 2021 (straight-through Gumbel-sigmoid at temperature 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

from modscope.masks.compiled import compiled_copies, kernels_for
from modscope.masks.gradient_factors import tabulated_factors

# (logits, weight, copies, generator, progress in [0, 1]) -> masked copies of the weight
Estimator: TypeAlias = Callable[[Tensor, Tensor, int, torch.Generator, float], tuple[Tensor, ...]]

_TILE = 131_072  # entries that are worked on at once: what fits in a processor's cache


def rao_blackwell(
    logits: Tensor, weight: Tensor, n_copies: int, generator: torch.Generator, progress: float
) -> tuple[Tensor, ...]:
    """Hard samples; the gradient factor is the straight-through factor's mean given the sample.

    The paper's gradient in expectation, with a half to a fifth of its variance: nothing but the sample is random.
    Probabilities are held in 16 bits. The copies share one random number per weight, shifted by equal steps: each copy
    is an independent sample over weights, and together they are more even than independent copies would be.
    """
    del progress
    kernels = kernels_for(logits, weight)
    if kernels is not None:
        return compiled_copies(kernels, logits, weight, n_copies, generator)
    return _rao_blackwell_copies(logits, weight, n_copies, generator)


def straight_through(
    logits: Tensor, weight: Tensor, n_copies: int, generator: torch.Generator, progress: float
) -> tuple[Tensor, ...]:
    """Hard samples of a Gumbel-sigmoid; the gradient factor is y (1 - y) of its relaxed value y: the paper's."""
    del progress
    return _straight_through_copies(logits, weight, n_copies, generator)


def hard_concrete(
    logits: Tensor, weight: Tensor, n_copies: int, generator: torch.Generator, progress: float
) -> tuple[Tensor, ...]:
    """Soft samples stretched to (-0.1, 1.1) and cut to [0, 1]: differentiable, with mass at both ends.

    Source: Louizos, Welling & Kingma 2018, equations 10 and 11, with their temperature 2/3.
    """
    del progress
    copies = []
    for _ in range(n_copies):
        uniform = torch.rand(logits.shape, generator=generator, device=logits.device).clamp_(1e-7, 1 - 1e-7)
        stretched = torch.sigmoid((torch.logit(uniform) + logits) / (2 / 3)) * 1.2 - 0.1
        copies.append(weight * stretched.clamp(0, 1).to(weight.dtype))
    return tuple(copies)


def continuous_sparsification(
    logits: Tensor, weight: Tensor, n_copies: int, generator: torch.Generator, progress: float
) -> tuple[Tensor, ...]:
    """No noise: sigmoid(temperature x logit), the temperature rising from 1 to 200 over the run.

    Source: Savarese, Silva & Maire 2020, section 4.1.
    """
    del generator
    masked = weight * torch.sigmoid(200.0**progress * logits).to(weight.dtype)
    return (masked,) * n_copies


ESTIMATORS: Mapping[str, Estimator] = {
    "rao_blackwell": rao_blackwell,
    "straight_through": straight_through,
    "hard_concrete": hard_concrete,
    "continuous_sparsification": continuous_sparsification,
}


def kept_samples(logits: Tensor, n_copies: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Booleans that are true with probability sigmoid(logit), independent within each copy."""
    uniform = _random_shorts(logits.numel(), logits.device, generator).view(logits.shape)
    return _below(uniform, _thresholds(logits), n_copies)


class _RaoBlackwell(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, weight: Tensor, n_copies: int, generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        logits, weight = logits.contiguous(), weight.contiguous()
        copies = [torch.empty_like(weight) for _ in range(n_copies)]
        for tile, weights, *masked in _tiles(logits, weight, *copies):
            uniform = _random_shorts(tile.numel(), tile.device, generator)
            for kept, out in zip(_below(uniform, _thresholds(tile), n_copies), masked, strict=True):
                torch.mul(weights, kept.view(torch.int8).to(weight.dtype), out=out)
        ctx.save_for_backward(logits, weight, *copies)
        return tuple(copies)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        logits, weight, *copies = ctx.saved_tensors
        result = torch.empty_like(logits)
        contiguous = [gradient.contiguous() for gradient in gradients]
        for tile, weights, out, *pairs in _tiles(logits, weight, result, *contiguous, *copies):
            parts = [pair.to(tile.dtype) for pair in pairs]
            total, of_kept = parts[0].clone(), parts[0] * parts[len(copies)]
            for gradient, copy in zip(parts[1 : len(copies)], parts[len(copies) + 1 :], strict=True):
                total.add_(gradient)
                of_kept.addcmul_(gradient, copy)
            removed, excess = tabulated_factors(tile)
            # dL/dm = gradient x weight, and copy = m x weight: the factor is `removed` for all, `excess` more for kept
            torch.addcmul(total.mul_(weights).mul_(removed), of_kept, excess, out=out)
        return result, None, None, None


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, weight: Tensor, n_copies: int, generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        copies, factors = [], []
        ctx.tracks_weight = ctx.needs_input_grad[1]
        odds_against = torch.exp(-logits)
        for _ in range(n_copies):
            uniform = torch.rand(logits.shape, generator=generator, device=logits.device)
            relaxed = uniform / (uniform + (1 - uniform) * odds_against)
            copies.append((relaxed > 0.5).to(weight.dtype) * weight)
            factors.append(relaxed * (1 - relaxed))
        ctx.save_for_backward(weight, *factors, *(copies if ctx.tracks_weight else ()))
        return tuple(copies)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, *saved = ctx.saved_tensors
        factors, copies = saved[: len(gradients)], saved[len(gradients) :]
        total = torch.zeros_like(factors[0])
        for gradient, factor in zip(gradients, factors, strict=True):
            total.addcmul_(gradient.to(total.dtype), factor)
        for_weight = None
        if ctx.tracks_weight:
            kept = [gradient * (copy != 0) for gradient, copy in zip(gradients, copies, strict=True)]
            for_weight = torch.stack(kept).sum(dim=0)
        return total * weight, for_weight, None, None


_rao_blackwell_copies: Callable[..., tuple[Tensor, ...]] = _RaoBlackwell.apply
_straight_through_copies: Callable[..., tuple[Tensor, ...]] = _StraightThrough.apply


def _thresholds(logits: Tensor) -> Tensor:
    scaled = torch.sigmoid(logits).mul_(65536).round_().clamp_(max=65535)
    return scaled.sub_(32768).to(torch.int16)


def _below(uniform: Tensor, thresholds: Tensor, n_copies: int) -> Iterator[Tensor]:
    """Whether equally spaced shifts of the uniform numbers lie below the thresholds, shift after shift."""
    shift = 65536 // n_copies
    for copy in range(n_copies):
        if copy:
            uniform = uniform.add_(shift if shift < 32768 else shift - 65536)  # 16-bit numbers wrap around
        yield uniform < thresholds


def _tiles(*tensors: Tensor) -> Iterator[list[Tensor]]:
    """Flat pieces of tensors of one size, small enough for the processor's cache; the whole on an accelerator."""
    flat = [tensor.detach().view(-1) for tensor in tensors]
    size = _TILE if tensors[0].device.type == "cpu" else max(len(flat[0]), 1)
    for start in range(0, len(flat[0]), size):
        yield [tensor[start : start + size] for tensor in flat]


def _random_shorts(count: int, device: torch.device, generator: torch.Generator) -> Tensor:
    """Uniform 16-bit integers, four to each random 64-bit one."""
    longs = torch.empty(math.ceil(count / 4), dtype=torch.int64, device=device)
    return longs.random_(-(2**63), None, generator=generator).view(torch.int16)[:count]
