"""Which findings survive when many tests were done, and how many samples does that take?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from modscope.errors import StatisticsError

LEVEL = 0.05


def benjamini_hochberg(p_values: Sequence[float] | np.ndarray) -> Float[np.ndarray, " tests"]:
    """Adjusted p-values: those <= q are findings with an expected share of false ones of at most q.

    A NaN (a test that is undefined) stays NaN and does not count as a test.

    Raises:
        StatisticsError: If a p-value is not in [0, 1].

    Source: Benjamini & Hochberg 1995.
    """
    p, adjusted, defined = _prepared(p_values)
    order = np.argsort(p)
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    steps = np.minimum.accumulate(scaled[::-1])[::-1]
    return _filled(adjusted, defined, order, np.minimum(steps, 1.0))


def holm(p_values: Sequence[float] | np.ndarray) -> Float[np.ndarray, " tests"]:
    """Adjusted p-values: those <= level are findings, with a chance of any false one of at most `level`.

    A NaN (a test that is undefined) stays NaN and does not count as a test.

    Raises:
        StatisticsError: If a p-value is not in [0, 1].

    Source: Holm 1979.
    """
    p, adjusted, defined = _prepared(p_values)
    order = np.argsort(p)
    scaled = p[order] * (len(p) - np.arange(len(p)))
    return _filled(adjusted, defined, order, np.minimum(np.maximum.accumulate(scaled), 1.0))


def max_t(
    observed: Float[np.ndarray, " tests"], null_samples: Float[np.ndarray, "samples tests"]
) -> Float[np.ndarray, " tests"]:
    """Adjusted p-values of tests that share their null samples, by the largest statistic of each sample.

    Each test is standardised by its own null samples together with its observed value, so that tests of different
    spread count alike and the observed row is treated as one of n + 1 exchangeable rows. High values are claims;
    change both signs for low ones. Dependence between the tests is kept, so it is far less strict than Holm where
    they rise and fall together. Step-down; ties count against us. A test whose values are all equal gets 1.

    Args:
        observed: One statistic per test.
        null_samples: The same statistics of every null sample.

    Raises:
        StatisticsError: If the shapes do not fit, or a value is not finite.

    Source: Westfall & Young 1993, algorithm 4.1 (step-down max-T).
    """
    observed, null_samples = np.asarray(observed, np.float64), np.asarray(null_samples, np.float64)
    if null_samples.ndim != 2 or null_samples.shape[1:] != observed.shape or len(null_samples) == 0:
        raise StatisticsError(f"max_t needs samples x {len(observed)} null values, got shape {null_samples.shape}")
    rows = np.vstack([observed, null_samples])
    if not np.isfinite(rows).all():
        raise StatisticsError("max_t needs finite statistics; leave out tests that are undefined")
    spread = rows.std(axis=0)
    varies = spread > 1e-7 * np.abs(rows).max(axis=0, initial=1e-30)
    standard = np.where(varies, (rows - rows.mean(axis=0)) / np.where(varies, spread, 1.0), -np.inf)
    order = np.argsort(-standard[0])
    # In column j: the largest value among the tests that are not more significant than the j-th one.
    largest = np.maximum.accumulate(standard[1:, order][:, ::-1], axis=1)[:, ::-1]
    n_extreme = (largest >= standard[0, order] - 1e-9).sum(axis=0)
    adjusted = np.empty(len(observed))
    adjusted[order] = np.maximum.accumulate((n_extreme + 1) / (len(null_samples) + 1))
    return adjusted


def samples_needed(n_tests: int, level: float = LEVEL) -> int:
    """The fewest null samples with which one finding can survive the correction over `n_tests` tests.

    That is the smallest n with 1 / (n + 1) <= level / n_tests.

    >>> samples_needed(1), samples_needed(48)
    (19, 959)

    Raises:
        StatisticsError: If there is no test, or the level is not in (0, 1).
    """
    if n_tests < 1:
        raise StatisticsError(f"n_tests must be at least 1, got {n_tests}")
    if not 0 < level < 1:
        raise StatisticsError(f"level must lie between 0 and 1, got {level}")
    return math.ceil(n_tests / level - 1e-9) - 1


def _prepared(p_values: Sequence[float] | np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The defined p-values, an array of NaN to fill, and where they belong in it."""
    p = np.asarray(p_values, dtype=np.float64)
    defined = ~np.isnan(p)
    if ((p[defined] < 0) | (p[defined] > 1)).any():
        raise StatisticsError(f"p-values must lie in [0, 1], got {p[defined].min()} to {p[defined].max()}")
    return p[defined], np.full(p.shape, np.nan), np.flatnonzero(defined)


def _filled(adjusted: np.ndarray, defined: np.ndarray, order: np.ndarray, values: np.ndarray) -> np.ndarray:
    adjusted[defined[order]] = values
    return adjusted
