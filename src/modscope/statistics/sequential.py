"""How can a Monte-Carlo test stop early, or go on, without cheating?"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from modscope.errors import StatisticsError

# Shares of extreme samples that the bets are placed on. A bet on c can reach 1/c at most.
BETS = (0.045, 0.01, 0.001, 0.0001)


def anytime_p_value(is_extreme: Bool[np.ndarray, " samples"]) -> float:
    """A p-value valid at every number of samples at once, so that one may look and then draw more.

    A gambler bets, before each sample, that it will not be extreme. If the subject is one more draw from the null,
    his wealth is a fair game, and exceeds 1/p with chance p at most, ever. With r extreme samples among the first t
    his wealth is the mean over c in `BETS` of P(Binomial(t + 1, c) > r) / c; the answer is 1 / (his greatest wealth).

    Args:
        is_extreme: For each null sample, in the order of its index: is it at least as extreme as the observed value?

    Source: Fischer & Ramdas 2024, "Sequential Monte Carlo testing by betting", the binomial mixture strategy.
    """
    from scipy.special import betainc

    r = np.cumsum(is_extreme)
    t = np.arange(1, len(r) + 1)
    wealth = np.mean([betainc(r + 1, t - r + 1, c) / c for c in BETS], axis=0)
    return float(min(1.0, 1.0 / wealth.max(initial=1.0)))


@dataclass(frozen=True)
class EarlyStop:
    """A p-value from as few samples as possible."""

    p_value: float
    n_samples: int
    n_extreme: int
    has_stopped: bool  # before the last sample


def besag_clifford(samples: Iterable[float], is_extreme: Callable[[float], bool], *, h: int = 10) -> EarlyStop:
    """The p-value of a test that stops at the h-th extreme sample: h / n there, (r + 1) / (n_max + 1) at the end.

    Clear negatives end after few samples, and the p-value stays valid, since the rule is fixed before and follows the
    order of the samples' index, never that in which workers finish.

    Args:
        samples: Null samples in the order of their index, drawn as they are asked for; all of them = n_max.
        is_extreme: Is this sample at least as extreme as the observed value (ties: yes)?
        h: Extreme samples to stop at.

    Raises:
        StatisticsError: If there is no sample, or h is not positive.

    Source: Besag & Clifford 1991.
    """
    if h < 1:
        raise StatisticsError(f"h must be at least 1, got {h}")
    n_samples = n_extreme = 0
    for n_samples, sample in enumerate(samples, start=1):
        n_extreme += bool(is_extreme(sample))
        if n_extreme == h:
            return EarlyStop(h / n_samples, n_samples, n_extreme, True)
    if n_samples == 0:
        raise StatisticsError("a test needs at least one null sample, got none")
    return EarlyStop((n_extreme + 1) / (n_samples + 1), n_samples, n_extreme, False)
