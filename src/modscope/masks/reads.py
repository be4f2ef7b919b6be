"""Where one example reads each weight once, what comes out of a linear layer under masks?

Local reparameterization samples what comes out instead of the weights.

The sum over many independently masked weights is nearly Gaussian, so its sample needs two matrix products and one
number per output, with noise of its own for every example. It holds for linear layers on vectors; a weight that one
example reads several times (convolutions, sequences, ties) must keep one sample for all reads.
Source: Kingma, Salimans & Welling 2015, section 2.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from modscope.errors import MaskError
from modscope.masks.chunked_linear import Scratch, chunked_linear
from modscope.masks.compiled import flat, kernels_for
from modscope.masks.sampling import rao_blackwell

LARGE = 1 << 17  # entries of a matrix from which on products in bfloat16 are worth their rounding
_OTHERWISE = (
    "the model reads a weight in another way than on the first batch, so its outputs cannot be sampled; "
    'use MaskLearner(estimator="straight_through")'
)


class ReadOtherwise(MaskError):
    """A weight is read in another way than on the first batch, so that its reads cannot be sampled."""


@dataclass(frozen=True, eq=False)
class Moments:
    """A masked weight as a random variable: what it is when kept, and the logits of keeping it."""

    weight: Tensor
    logits: Tensor


class WeightReads(TorchFunctionMode):
    """Notes how a model reads some weights: `once_per_example` are the names that one F.linear reads, on vectors."""

    def __init__(self, weights: Mapping[str, Tensor], n_examples: int) -> None:
        super().__init__()
        self.name_of = {id(weight): name for name, weight in weights.items()}
        self.n_examples = n_examples
        self.n_linear = dict.fromkeys(weights, 0)
        self.n_other = dict.fromkeys(weights, 0)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not _only_looks(func, result):
            of_vectors = _read_by_vectors(func, args, kwargs, self.n_examples)
            for tensor in _tensors((args, kwargs)):
                name = self.name_of.get(id(tensor))
                if name is not None:
                    is_linear = any(tensor is read for read in of_vectors)
                    (self.n_linear if is_linear else self.n_other)[name] += 1
        return result

    @property
    def once_per_example(self) -> frozenset[str]:
        """The weights for which local reparameterization is exact in mean and variance."""
        return frozenset(name for name, count in self.n_linear.items() if count == 1 and not self.n_other[name])


class Sampler(Protocol):
    """What a linear layer on vectors gives under masks."""

    def products(self, inputs: Tensor, weight: Moments) -> Tensor:
        """Examples times a masked weight."""
        ...

    def bias(self, inputs: Tensor, bias: Moments) -> Tensor:
        """A masked bias, for each of the examples."""
        ...


@dataclass(frozen=True, eq=False)
class GaussianOutputs:
    """Outputs with the mean and the variance of masked sums, independent for each example."""

    generator: torch.Generator

    def products(self, inputs: Tensor, weight: Moments) -> Tensor:
        """Samples of the sums."""
        return _sampled_linear(inputs, weight.weight, weight.logits, self._noise(inputs, len(weight.weight)))

    def bias(self, inputs: Tensor, bias: Moments) -> Tensor:
        """Samples of the bias."""
        probability = torch.sigmoid(bias.logits)
        deviation = (probability * (1 - probability)).sqrt()
        return bias.weight * (probability + deviation * self._noise(inputs, len(bias.weight))).to(inputs.dtype)

    def _noise(self, inputs: Tensor, n_outputs: int) -> Tensor:
        return torch.empty(len(inputs), n_outputs, device=inputs.device).normal_(generator=self.generator)


@dataclass(frozen=True, eq=False)
class ChunkedCopies:
    """Hard samples: each of some chunks of the examples has a masked copy of its own, and all share one run."""

    n_samples: int
    generator: torch.Generator
    scratch: Scratch
    kernels: ModuleType

    def products(self, inputs: Tensor, weight: Moments) -> Tensor:
        """Examples times their chunk's copy of the weight."""
        n_chunks = min(self.n_samples, len(inputs))
        inputs = inputs.to(weight.weight.dtype)
        operands = inputs, weight.weight, weight.logits
        return chunked_linear(*operands, n_chunks, self.generator, self.scratch, self.kernels)

    def bias(self, inputs: Tensor, bias: Moments) -> Tensor:
        """Each example's chunk's copy of the bias."""
        n_chunks = min(self.n_samples, len(inputs))
        copies = rao_blackwell(bias.logits, bias.weight, n_chunks, self.generator, 0.0)
        bounds = torch.arange(n_chunks + 1) * len(inputs) // n_chunks
        return torch.stack(copies).repeat_interleave(bounds.diff(), dim=0)


class SampledReads(TorchFunctionMode):
    """While active, a linear layer whose weight is one of `moments` gives what the sampler makes of it."""

    def __init__(self, moments: Mapping[int, Moments], sampler: Sampler) -> None:
        super().__init__()
        self.moments = moments  # by id of the tensor that stands in for the weight
        self.sampler = sampler

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.linear:
            inputs, weight, bias = _linear_arguments(*args, **kwargs)
            if id(weight) in self.moments or id(bias) in self.moments:
                return self._sampled(inputs, weight, bias)
            return func(*args, **kwargs)
        result = func(*args, **kwargs)
        if not _only_looks(func, result) and any(id(tensor) in self.moments for tensor in _tensors((args, kwargs))):
            raise ReadOtherwise(_OTHERWISE)
        return result

    def _sampled(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if inputs.ndim != 2:  # one example reads the weight several times
            raise ReadOtherwise(_OTHERWISE)
        found = self.moments.get(id(weight))
        outputs = F.linear(inputs, weight) if found is None else self.sampler.products(inputs, found)
        if bias is None:
            return outputs
        found = self.moments.get(id(bias))
        return outputs + (bias if found is None else self.sampler.bias(inputs, found))


class _SampledLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, logits: Tensor, noise: Tensor) -> Tensor:
        weight, logits = weight.contiguous(), logits.contiguous()
        mean_weight, variance_weight = _moments(weight, logits)
        squares = (inputs * inputs).to(variance_weight.dtype)
        deviation = F.linear(squares, variance_weight).to(inputs.dtype).clamp_(min=0).sqrt_()
        ctx.save_for_backward(inputs, weight, logits, mean_weight, variance_weight, squares, deviation, noise)
        return F.linear(inputs, mean_weight).addcmul_(deviation, noise.to(inputs.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight, logits, mean_weight, variance_weight, squares, deviation, noise = ctx.saved_tensors
        # d deviation / d variance = 1 / (2 deviation); where there is no variance there is no noise to follow
        for_variance = torch.where(deviation > 0, gradient * noise / (2 * deviation), torch.zeros_like(gradient))
        for_variance = for_variance.to(squares.dtype)
        for_inputs = None
        if ctx.needs_input_grad[0]:
            by_square = (for_variance @ variance_weight).to(inputs.dtype)
            for_inputs = (gradient @ mean_weight).addcmul_(inputs, by_square, value=2)
        by_mean = gradient.T @ inputs
        by_variance = for_variance.T @ squares
        return for_inputs, None, _gradient_of_logits(weight, logits, by_mean, by_variance), None


_sampled_linear: Callable[..., Tensor] = _SampledLinear.apply


def _moments(weight: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Mean w p and variance w^2 p (1 - p) of each masked weight, the variance in the precision that it needs."""
    kernels, precision = kernels_for(logits, weight), variance_precision(weight)
    if kernels is not None:
        means, variances = torch.empty_like(weight), torch.empty_like(weight, dtype=precision)
        kernels.moments(flat(logits.detach()), flat(weight), flat(means), *_single_or_half(variances))
        return means, variances
    means = weight * torch.sigmoid(logits).to(weight.dtype)
    return means, (weight - means).mul_(means).to(precision)


def _gradient_of_logits(weight: Tensor, logits: Tensor, by_mean: Tensor, by_variance: Tensor) -> Tensor:
    """The gradient w p (1 - p) [by mean + w (1 - 2 p) by variance], written over `by_mean`, which is as large."""
    kernels = kernels_for(logits, weight)
    if kernels is not None and by_mean.dtype == torch.float32 and by_variance.dtype in (torch.float32, torch.bfloat16):
        kernels.follow_moments(flat(logits), flat(weight), flat(by_mean), *_single_or_half(by_variance))
        return by_mean
    probability = torch.sigmoid(logits).to(by_mean.dtype)
    by_mean.addcmul_(weight * (1 - 2 * probability), by_variance.to(by_mean.dtype))
    return by_mean.mul_(weight * probability * (1 - probability)).to(torch.float32)


def _single_or_half(numbers: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """The numbers as those of 32 bits, and as the bits of bfloat16 ones; one of the two is empty."""
    if numbers.dtype == torch.bfloat16:
        return np.empty(0, np.float32), flat(numbers.view(torch.int16)).view(np.uint16)
    return flat(numbers), np.empty(0, np.uint16)


def variance_precision(weight: Tensor) -> torch.dtype:
    """The precision in which variances of sums are computed: two digits are enough for how loud noise is.

    Bfloat16 for matrices of single precision, large enough for the saving to exceed what rounding costs, where the
    hardware multiplies it in half the time; else the weight's own.
    """
    is_large = weight.numel() >= LARGE
    if weight.dtype != torch.float32 or not is_large or not _multiplies_halves_quickly(weight.device):
        return weight.dtype
    return torch.bfloat16


@cache
def _multiplies_halves_quickly(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return any(getattr(torch.cpu, f"_is_{kind}_supported")() for kind in ("avx512_bf16", "amx_tile"))


def _only_looks(func: Any, result: Any) -> bool:
    """Whether this asks for a shape or a dtype; a transpose is an attribute too, but a read."""
    return getattr(func, "__name__", "") == "__get__" and not isinstance(result, Tensor)


def _read_by_vectors(
    func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], n_examples: int
) -> tuple[Tensor | None, ...]:
    """Weight and bias, if this is a linear layer on one vector per example; else nothing."""
    if func is not F.linear:
        return ()
    inputs, weight, bias = _linear_arguments(*args, **kwargs)
    return (weight, bias) if inputs.ndim == 2 and len(inputs) == n_examples else ()


def _linear_arguments(
    input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor | None]:
    return input, weight, bias


def _tensors(values: Any) -> Iterable[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from _tensors(value)
    elif isinstance(values, tuple | list):
        for value in values:
            yield from _tensors(value)
