"""What do many p-values say together?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from modscope.errors import StatisticsError


def fisher(p_values: Sequence[float] | np.ndarray, *, n_samples: int | None = None) -> float:
    """Fisher's combined p-value of independent tests: -2 sum log p against chi-square with 2 m degrees of freedom.

    Args:
        p_values: p-values in [0, 1]. A zero gives zero.
        n_samples: Null samples behind each of them, to shift every p by half a step, p - 1 / (2 (n + 1)), as the papers
            do: uncorrected Monte-Carlo p-values are too large on average, and the combination loses power.

    Raises:
        StatisticsError: If there is no p-value, or one is not in [0, 1].

    Source: Fisher 1925; the shift: Hod, Casper et al. 2021.
    """
    p = _checked(p_values)
    if n_samples is not None:
        p = np.clip(p - 0.5 / (n_samples + 1), 0.0, 1.0)
    if (p == 0).any():
        return 0.0  # scipy would warn of a logarithm of zero
    from scipy.special import chdtrc

    return float(chdtrc(2 * len(p), -2 * np.log(p).sum()))


def stouffer(p_values: Sequence[float] | np.ndarray, *, weights: Sequence[float] | np.ndarray | None = None) -> float:
    """Stouffer's combined p-value of independent tests: the weighted sum of normal scores.

    A zero gives zero, a one gives one; both at once say nothing, and give 1.

    Raises:
        StatisticsError: If there is no p-value, one is not in [0, 1], or weights do not fit.
    """
    p = _checked(p_values)
    w = np.ones(len(p)) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != p.shape or not (w > 0).all():
        raise StatisticsError(f"stouffer needs one positive weight per p-value ({len(p)}), got {w.tolist()}")
    if (p == 1).any():
        return 1.0
    if (p == 0).any():
        return 0.0
    from scipy.special import ndtr, ndtri

    return float(ndtr((w * ndtri(p)).sum() / math.sqrt((w**2).sum())))


def bates(p_values: Sequence[float] | np.ndarray) -> float:
    """P(mean of m uniform numbers <= mean of the p-values): the papers' way to combine replicas.

    Exact up to m = 20 by the Irwin-Hall distribution, by its normal limit above.

    Raises:
        StatisticsError: If there is no p-value, or one is not in [0, 1].

    Source: Hall 1927; used by Hod, Casper et al. 2021 over five networks.
    """
    p = _checked(p_values)
    m, total = len(p), float(p.sum())
    if m > 20:
        return 0.5 * math.erfc((m / 2 - total) / math.sqrt(m / 12) / math.sqrt(2))
    if total > m / 2:  # the alternating sum cancels badly on the upper side
        return 1.0 - _irwin_hall_cdf(m - total, m)
    return _irwin_hall_cdf(total, m)


def chi_square_of_ranks(ranks: Int[np.ndarray, " tests"] | Sequence[int], n_samples: int) -> float:
    """p-value of "the observed value is equally likely at each of the n + 1 ranks among its null samples".

    Args:
        ranks: Number of null samples at least as extreme as the observed value, for each test; 0 to `n_samples`.
        n_samples: Null samples of every test.

    Raises:
        StatisticsError: If there is no rank, or one is out of range.

    Source: Hod, Casper et al. 2021 (histogram of ranks against the uniform one, n degrees of freedom).
    """
    counts_of = np.asarray(ranks, dtype=np.int64)
    if len(counts_of) == 0 or counts_of.min() < 0 or counts_of.max() > n_samples:
        raise StatisticsError(f"ranks must lie in 0..{n_samples}, and there must be one; got {counts_of.tolist()}")
    from scipy.special import chdtrc

    counts = np.bincount(counts_of, minlength=n_samples + 1)
    expected = len(counts_of) / (n_samples + 1)
    return float(chdtrc(n_samples, ((counts - expected) ** 2 / expected).sum()))


def _checked(p_values: Sequence[float] | np.ndarray) -> Float[np.ndarray, " tests"]:
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or len(p) == 0:
        raise StatisticsError(f"p-values must be a non-empty list of numbers, got shape {p.shape}")
    if not ((p >= 0) & (p <= 1)).all():  # also false for NaN
        wrong = p[~((p >= 0) & (p <= 1))][0]
        raise StatisticsError(f"p-values must lie in [0, 1], got {wrong}; leave out tests that are undefined")
    return p


def _irwin_hall_cdf(total: float, m: int) -> float:
    terms = [(-1) ** j * math.comb(m, j) * (total - j) ** m for j in range(math.floor(total) + 1)]
    return min(1.0, max(0.0, math.fsum(terms) / math.factorial(m)))
