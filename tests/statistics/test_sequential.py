"""Do tests that stop early, or go on after a look, keep their level?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from scipy.stats import binom

from modscope.errors import StatisticsError
from modscope.statistics import anytime_p_value, besag_clifford
from modscope.statistics.sequential import BETS

N_TESTS = 1500


def ranks_of_random_tests(n_samples: int, seed: int = 0) -> np.ndarray:
    """Which samples are at least as extreme as the observed value, for tests whose null is true."""
    values = np.random.default_rng(seed).random((N_TESTS, n_samples + 1))
    return values[:, 1:] <= values[:, :1]


def test_anytime_p_agrees_with_the_gamblers_wealth_by_hand() -> None:
    is_extreme = np.array([False, False, True, False])
    wealth = []
    for t in range(1, 5):
        r = int(is_extreme[:t].sum())
        wealth.append(np.mean([binom.sf(r, t + 1, c) / c for c in BETS]))
    assert anytime_p_value(is_extreme) == pytest.approx(min(1, 1 / max(wealth)))


def test_looking_often_raises_the_plain_errors_but_not_the_anytime_ones() -> None:
    looks = (19, 39, 99, 199, 999)
    is_extreme = ranks_of_random_tests(looks[-1])
    counts = np.cumsum(is_extreme, axis=1)
    plain = np.min([(counts[:, n - 1] + 1) / (n + 1) for n in looks], axis=0)
    anytime = np.array([anytime_p_value(row) for row in is_extreme])
    margin = 3 * np.sqrt(0.05 * 0.95 / N_TESTS)
    assert (plain <= 0.05).mean() > 0.05 + margin
    for level in (0.01, 0.05, 0.2):
        assert (anytime <= level).mean() <= level + margin


def test_anytime_p_is_close_to_the_plain_one_for_a_clear_effect() -> None:
    for n in (99, 999):
        assert 1 / (n + 1) < anytime_p_value(np.zeros(n, dtype=bool)) < 3 / (n + 1)


def test_besag_clifford_stops_at_the_hth_extreme_sample_and_draws_no_more() -> None:
    drawn = []

    def samples() -> Iterator[float]:
        for index in range(100):
            drawn.append(index)
            yield float(index % 2)

    result = besag_clifford(samples(), lambda sample: sample == 1.0, h=3)
    assert (result.p_value, result.n_samples, result.has_stopped) == (3 / 6, 6, True)
    assert len(drawn) == 6


def test_besag_clifford_without_a_stop_is_the_plain_p_value() -> None:
    result = besag_clifford([0.0] * 18 + [1.0], lambda sample: sample == 1.0)
    assert (result.p_value, result.n_samples, result.has_stopped) == (2 / 20, 19, False)


def test_besag_clifford_keeps_its_level() -> None:
    is_extreme = ranks_of_random_tests(199, seed=5)
    p = np.array([besag_clifford(row.astype(float), lambda extreme: extreme == 1.0).p_value for row in is_extreme])
    for level in (0.05, 0.2, 0.5):
        assert (p <= level).mean() <= level + 3 * np.sqrt(level * (1 - level) / N_TESTS)


def test_a_test_without_samples_is_refused() -> None:
    with pytest.raises(StatisticsError, match="got none"):
        besag_clifford([], lambda sample: True)
    with pytest.raises(StatisticsError, match="h must be"):
        besag_clifford([1.0], lambda sample: True, h=0)
