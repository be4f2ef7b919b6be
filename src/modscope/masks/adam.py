"""How do logits follow their gradients? By Adam: PyTorch's for many logits, a few bare operations for few.

PyTorch's fused Adam is quickest for a million logits; for a hundred its bookkeeping costs more than a small network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

_FEW = 16_384  # logits
_BETAS, _EPSILON = (0.9, 0.999), 1e-8  # PyTorch's defaults


class Optimizer(Protocol):
    """What a step of learning needs."""

    def zero_grad(self) -> None:
        """Forget the gradients."""
        ...

    def step(self, learning_rate: float) -> None:
        """Follow the gradients."""
        ...


@dataclass(eq=False)
class BareAdam:
    """Adam on one tensor.

    Source: Kingma & Ba 2015, algorithm 1.
    """

    logits: Tensor
    n_steps: int = 0
    _mean: Tensor = field(init=False)
    _square: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self._mean, self._square = torch.zeros_like(self.logits), torch.zeros_like(self.logits)

    def zero_grad(self) -> None:
        """Forget the gradient."""
        self.logits.grad = None

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Follow the gradient, if there is one."""
        gradient = self.logits.grad
        if gradient is None:
            return
        self.n_steps += 1
        of_mean, of_square = _BETAS
        self._mean.lerp_(gradient, 1 - of_mean)
        self._square.mul_(of_square).addcmul_(gradient, gradient, value=1 - of_square)
        size = self._square.sqrt().div_(math.sqrt(1 - of_square**self.n_steps)).add_(_EPSILON)
        self.logits.addcdiv_(self._mean, size, value=-learning_rate / (1 - of_mean**self.n_steps))


@dataclass(eq=False)
class FusedAdam:
    """PyTorch's Adam on several tensors: a third of the cost of its plain loop, and equal to it."""

    logits: Sequence[Tensor]
    _adam: torch.optim.Adam = field(init=False)

    def __post_init__(self) -> None:
        self._adam = torch.optim.Adam(self.logits, betas=_BETAS, eps=_EPSILON, fused=True)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self._adam.zero_grad(set_to_none=True)

    def step(self, learning_rate: float) -> None:
        """Follow the gradients."""
        self._adam.param_groups[0]["lr"] = learning_rate
        self._adam.step()


def adam(logits: Sequence[Tensor]) -> Optimizer:
    """The quicker of the two."""
    if len(logits) == 1 and logits[0].numel() <= _FEW:
        return BareAdam(logits[0])
    return FusedAdam(logits)
