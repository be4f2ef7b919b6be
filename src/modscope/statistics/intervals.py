"""How far does a number move from draw to draw?"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from modscope.errors import StatisticsError
from modscope.randomness import Rng, generator


def prediction_interval(draws: Float[np.ndarray, " draws"], *, level: float = 0.95) -> tuple[float, float]:
    """Where one more draw of the same normal quantity falls with chance `level`: mean -+ t sd sqrt(1 + 1/n).

    Raises:
        StatisticsError: If there are fewer than two draws.
    """
    from scipy.special import stdtrit

    n = len(draws)
    if n < 2:
        raise StatisticsError(f"an interval needs at least 2 draws, got {n}")
    half = float(stdtrit(n - 1, (1 + level) / 2) * draws.std(ddof=1) * np.sqrt(1 + 1 / n))
    mean = float(draws.mean())
    return mean - half, mean + half


def bootstrap_interval(
    values: Float[np.ndarray, " values"],
    statistic: Callable[[Float[np.ndarray, " values"]], float] = np.mean,
    *,
    level: float = 0.95,
    n_resamples: int = 2000,
    rng: Rng = 0,
) -> tuple[float, float]:
    """Interval of a statistic of independent values, by the bias-corrected bootstrap (BCa).

    Values that are all equal give an interval of no width.

    Raises:
        StatisticsError: If there are fewer than two values, or one is not finite.

    Source: Efron 1987, as in `scipy.stats.bootstrap`.
    """
    values = np.asarray(values, dtype=np.float64)
    if len(values) < 2:
        raise StatisticsError(f"a bootstrap interval needs at least 2 values, got {len(values)}")
    if not np.isfinite(values).all():
        raise StatisticsError(f"a bootstrap interval needs finite values, got {values[~np.isfinite(values)][0]}")
    if np.ptp(values) == 0:
        constant = float(statistic(values))
        return constant, constant
    low, high = _bootstrapped(values, statistic, level, n_resamples, rng, "BCa")
    if np.isnan(low) or np.isnan(high):
        # BCa is undefined where leaving any one value out changes nothing, as for a median of tied values.
        return _bootstrapped(values, statistic, level, n_resamples, rng, "percentile")
    return low, high


def _bootstrapped(
    values: Float[np.ndarray, " values"],
    statistic: Callable[[Float[np.ndarray, " values"]], float],
    level: float,
    n_resamples: int,
    rng: Rng,
    method: str,
) -> tuple[float, float]:
    from scipy.stats import DegenerateDataWarning, bootstrap

    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", DegenerateDataWarning)  # the caller looks for NaN
        interval = bootstrap(
            (values,),
            statistic,
            vectorized=False,
            confidence_level=level,
            n_resamples=n_resamples,
            method=method,
            rng=generator(rng),
        ).confidence_interval
    return float(interval.low), float(interval.high)
