"""What is the gradient for a logit, per unit of the gradient for its mask?

Straight-through it is y (1 - y) of the relaxed sample y, a random number; given the hard sample m = [y > 1/2] its mean
is known in closed form. Source: Csordás et al. 2021 (straight-through Gumbel-sigmoid at temperature 1).
"""

from __future__ import annotations

from functools import cache, lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_TABLE_LIMIT, _TABLE_STEPS = 16.0, 256  # factors beyond |l| = 16 are below 2e-6; 256 entries per unit of l


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


@cache
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


@lru_cache(maxsize=8)
def _factor_table(device: torch.device) -> tuple[Tensor, Tensor]:
    grid = torch.linspace(-_TABLE_LIMIT, _TABLE_LIMIT, int(2 * _TABLE_LIMIT * _TABLE_STEPS) + 1, dtype=torch.float64)
    kept, removed = conditional_factors(grid)
    return removed.float().to(device), (kept - removed).float().to(device)


def tabulated_factors(logits: Tensor) -> tuple[Tensor, Tensor]:
    """For a vector, the factor of removed entries, and what the kept have more, to 0.2 %, from a table."""
    removed, excess = _factor_table(logits.device)
    index = (logits + _TABLE_LIMIT).mul_(_TABLE_STEPS).round_().clamp_(0, len(removed) - 1).int()
    return removed.index_select(0, index), excess.index_select(0, index)


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
