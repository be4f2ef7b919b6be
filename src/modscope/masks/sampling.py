"""How is a weight masked at random, and what gradient does its logit get?

Every estimator takes logits and the weights they mask, and gives independently masked copies of the weights. With
m = 1 with probability sigmoid(l), the gradient for l is the sum over copies of dL/dm times a factor that the estimator
chooses. Source: Csordás et al. 2021 (straight-through Gumbel-sigmoid at temperature 1).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

# (logits, weight, copies, generator, progress in [0, 1]) -> masked copies of the weight
Estimator: TypeAlias = Callable[[Tensor, Tensor, int, torch.Generator, float], tuple[Tensor, ...]]

_TILE = 131_072  # entries that are worked on at once: what fits in a processor's cache
_TABLE_LIMIT, _TABLE_STEPS = 16.0, 256  # factors beyond |l| = 16 are below 2e-6; 256 entries per unit of l


def rao_blackwell(
    logits: Tensor, weight: Tensor, n_copies: int, generator: torch.Generator, progress: float
) -> tuple[Tensor, ...]:
    """Hard samples; the gradient factor is the straight-through factor's mean given the sample.

    The paper's gradient in expectation, with a half to a fifth of its variance: nothing but the sample is random.
    Probabilities are held in 16 bits. The copies share one random number per weight, shifted by equal steps: each copy
    is an independent sample over weights, and together they are more even than independent copies would be.
    """
    del progress
    if kernels_for(logits, weight) is not None:
        return _compiled_copies(logits, weight, n_copies, generator)
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


def conditional_factors(logits: Float[Tensor, "..."]) -> tuple[Float[Tensor, "..."], Float[Tensor, "..."]]:
    """Mean of the straight-through factor y (1 - y) given a kept sample, and given a removed one, in float64.

    With a = e^l and I(l) = a / (1-a)^3 [(a-1) + (1+a)/2 - (1+a) ln((1+a)/2) - 2a/(1+a)] these are
    I(l) / sigmoid(l) and I(-l) / sigmoid(-l).
    """
    double = logits.double()
    kept = _kept_integral(double) / torch.sigmoid(double)
    removed = _kept_integral(-double) / torch.sigmoid(-double)
    return kept, removed


def mean_factor(logits: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Mean of the straight-through factor y (1 - y) over its noise, in float64: 1/6 at 0."""
    double = logits.double()
    return _kept_integral(double) + _kept_integral(-double)


def kept_samples(logits: Tensor, n_copies: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Booleans that are true with probability sigmoid(logit), independent within each copy."""
    uniform = _random_shorts(logits.numel(), logits.device, generator).view(logits.shape)
    return _below(uniform, _thresholds(logits), n_copies)


def kernels_for(logits: Tensor, weight: Tensor) -> ModuleType | None:
    """Compiled loops for these tensors: for single precision on a processor, where the extra `fast` is installed."""
    if logits.device.type != "cpu" or logits.dtype != torch.float32 or weight.dtype != torch.float32:
        return None
    return _kernels()


def stream(generator: torch.Generator) -> int:
    """The name of a new stream of random numbers for the compiled loops."""
    return int(torch.empty((), dtype=torch.int64).random_(generator=generator))


@functools.cache
def factor_fit() -> Float[np.ndarray, "3 5"]:
    """What `kernels.factors` computes the gradient factors from, to 2e-4 of each in single precision.

    Fitted to `conditional_factors`, where l >= 0 (elsewhere kept and removed change places) and z = e^-l: the factor of
    kept weights is z (P(z) + l Q(z)), that of removed ones R(z), with polynomials P, Q, R of degree four.
    """
    near_one = torch.linspace(1e-7, 1, 2001, dtype=torch.float64)
    logits = torch.cat([torch.linspace(0, 25, 4001, dtype=torch.float64), -near_one.log()])
    kept, removed = (factor.numpy() for factor in conditional_factors(logits))
    size = logits.numpy()
    powers = np.exp(-size)[:, None] ** np.arange(6)
    for_kept = np.concatenate([powers[:, 1:], size[:, None] * powers[:, 1:]], axis=1)
    of_kept = np.linalg.lstsq(for_kept / kept[:, None], np.ones(len(size)), rcond=None)[0]
    of_removed = np.linalg.lstsq(powers[:, :5] / removed[:, None], np.ones(len(size)), rcond=None)[0]
    return np.concatenate([of_kept, of_removed]).reshape(3, 5).astype(np.float32)


class _Compiled(torch.autograd.Function):
    """Rao-Blackwell samples by compiled loops: nothing but the name of the random numbers is kept for the gradient."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, weight: Tensor, n_copies: int, generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        logits, weight = logits.detach().contiguous(), weight.detach().contiguous()
        ctx.seed = stream(generator)
        ctx.save_for_backward(logits, weight)
        copies = torch.empty(n_copies, *weight.shape)
        _loops().mask(ctx.seed, 0, flat(logits), flat(weight), tuple(flat(copy) for copy in copies))
        return copies.unbind()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        logits, weight = ctx.saved_tensors
        result = torch.empty_like(logits)
        pulls = tuple(flat(gradient.contiguous()) for gradient in gradients)
        _loops().follow(ctx.seed, 0, flat(logits), flat(weight), pulls, factor_fit(), flat(result))
        return result, None, None, None


def flat(tensor: Tensor) -> np.ndarray:
    """The numbers of a contiguous tensor, one after another, where they lie."""
    return tensor.view(-1).numpy()


def _loops() -> ModuleType:
    kernels = _kernels()
    assert kernels is not None
    return kernels


@functools.cache
def _kernels() -> ModuleType | None:
    if find_spec("numba") is None:
        return None
    from modscope.masks import kernels

    return kernels


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
            removed, excess = _tabulated_factors(tile)
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


_compiled_copies: Callable[..., tuple[Tensor, ...]] = _Compiled.apply
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


def _kept_integral(logits: Tensor) -> Tensor:
    """I(l), the mean of y (1 - y) over the noise that keeps the weight."""
    # Near 0 numerator and denominator vanish as l^3: there the Taylor series, whose next term is below 1e-11.
    is_small = logits.abs() < 0.1
    series = 1 / 12 + logits * (
        1 / 32 + logits * (-1 / 120 + logits * (-1 / 192 + logits * (1 / 2016 + logits * (3 / 5120 - logits / 43200))))
    )
    a = torch.exp(torch.where(is_small, torch.ones_like(logits), logits.clamp(-30, 30)))
    bracket = (a - 1) + (1 + a) / 2 - (1 + a) * torch.log((1 + a) / 2) - 2 * a / (1 + a)
    return torch.where(is_small, series, a / (1 - a) ** 3 * bracket)


@functools.lru_cache(maxsize=8)
def _factor_table(device: torch.device) -> tuple[Tensor, Tensor]:
    grid = torch.linspace(-_TABLE_LIMIT, _TABLE_LIMIT, int(2 * _TABLE_LIMIT * _TABLE_STEPS) + 1, dtype=torch.float64)
    kept, removed = conditional_factors(grid)
    return removed.float().to(device), (kept - removed).float().to(device)


def _tabulated_factors(logits: Tensor) -> tuple[Tensor, Tensor]:
    """For a vector, the factor of removed entries, and what the kept have more, to 0.2 %, from a table."""
    removed, excess = _factor_table(logits.device)
    index = (logits + _TABLE_LIMIT).mul_(_TABLE_STEPS).round_().clamp_(0, len(removed) - 1).int()
    return removed.index_select(0, index), excess.index_select(0, index)
