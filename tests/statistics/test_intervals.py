"""Do intervals cover what they say?"""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from modscope.errors import StatisticsError
from modscope.statistics import bootstrap_interval, prediction_interval


def test_prediction_interval_agrees_with_its_formula_and_covers_the_next_draw() -> None:
    draws = np.array([1.0, 2.0, 4.0])
    half = scipy.stats.t.ppf(0.975, 2) * draws.std(ddof=1) * np.sqrt(4 / 3)
    np.testing.assert_allclose(prediction_interval(draws), (7 / 3 - half, 7 / 3 + half))
    rows = np.random.default_rng(0).normal(size=(2000, 6))
    inside = [low <= row[5] <= high for row in rows for low, high in [prediction_interval(row[:5])]]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)


def test_bootstrap_interval_covers_the_mean_of_skewed_values() -> None:
    rows = np.random.default_rng(1).exponential(size=(100, 30))
    inside = [low <= 1.0 <= high for row in rows for low, high in [bootstrap_interval(row, n_resamples=300)]]
    assert np.mean(inside) == pytest.approx(0.92, abs=0.07)


def test_bootstrap_interval_is_reproducible_and_defined_for_equal_and_tied_values() -> None:
    values = np.random.default_rng(2).normal(size=12)
    assert bootstrap_interval(values, rng=3) == bootstrap_interval(values, rng=3)
    assert bootstrap_interval(np.full(5, 0.4)) == (0.4, 0.4)
    low, high = bootstrap_interval(np.array([0.0, 0.0, 0.0, 0.0, 1.0]), np.median)
    assert 0.0 <= low <= high <= 1.0


@pytest.mark.parametrize("values", [[], [1.0], [1.0, np.nan, 2.0]])
def test_too_few_or_undefined_values_are_refused(values: list[float]) -> None:
    with pytest.raises(StatisticsError):
        bootstrap_interval(np.array(values))
    with pytest.raises(StatisticsError):
        prediction_interval(np.array(values[:1]))
