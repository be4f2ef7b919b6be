"""Do corrections over many tests keep what they promise?"""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from modscope.errors import StatisticsError
from modscope.statistics import benjamini_hochberg, holm, max_t, samples_needed

p_lists = st.lists(st.floats(0, 1), min_size=1, max_size=20)


def slow_holm(p_values: list[float]) -> list[float]:
    """For each test, the lowest level at which the step-down procedure of 1979 still rejects it."""
    n, order = len(p_values), np.argsort(p_values)
    adjusted, highest = [0.0] * n, 0.0
    for step, test in enumerate(order):
        highest = max(highest, (n - step) * p_values[test])
        adjusted[test] = min(1.0, highest)
    return adjusted


@settings(max_examples=40)
@given(p_lists)
def test_benjamini_hochberg_agrees_with_scipy(p_values: list[float]) -> None:
    theirs = scipy.stats.false_discovery_control(p_values)
    np.testing.assert_allclose(benjamini_hochberg(p_values), theirs, rtol=1e-12, atol=1e-12)


@settings(max_examples=40)
@given(p_lists)
def test_holm_agrees_with_its_definition_and_is_never_below_benjamini_hochberg(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    np.testing.assert_allclose(adjusted, slow_holm(p_values), rtol=1e-12)
    assert (adjusted >= benjamini_hochberg(p_values) - 1e-12).all()


@pytest.mark.parametrize("correct", [benjamini_hochberg, holm])
def test_an_undefined_test_stays_undefined_and_does_not_count(correct) -> None:
    adjusted = correct([0.01, float("nan"), 0.04])
    assert np.isnan(adjusted[1])
    np.testing.assert_allclose(adjusted[[0, 2]], correct([0.01, 0.04]))
    assert len(correct([])) == 0
    with pytest.raises(StatisticsError, match="must lie in"):
        correct([1.5])


def test_families_of_true_nulls_keep_their_error_rates() -> None:
    """Reliability 7b: 200 families of 20 true nulls; and 5 true effects among 20."""
    rng = np.random.default_rng(1)
    nulls = rng.random((200, 20))
    for correct in (benjamini_hochberg, holm):
        assert np.mean([(correct(row) <= 0.05).any() for row in nulls]) <= 0.105
    effects = nulls.copy()
    effects[:, :5] = 1e-5
    found = np.array([benjamini_hochberg(row) <= 0.05 for row in effects])
    false_share = found[:, 5:].sum(axis=1) / np.maximum(found.sum(axis=1), 1)
    assert found[:, :5].all()
    assert false_share.mean() <= 0.08


def test_max_t_of_one_test_is_its_own_p_value() -> None:
    samples = np.random.default_rng(0).normal(size=(99, 1))
    adjusted = max_t(np.array([1.5]), samples)
    assert adjusted[0] == pytest.approx((1 + (samples >= 1.5).sum()) / 100)


def test_max_t_of_a_test_told_twice_is_that_of_the_test() -> None:
    samples = np.random.default_rng(0).normal(size=(99, 1))
    once, twice = max_t(np.array([1.7]), samples), max_t(np.array([1.7, 1.7]), np.repeat(samples, 2, axis=1))
    np.testing.assert_allclose(twice, [once[0]] * 2)


def test_max_t_keeps_the_family_wise_error_and_finds_a_large_effect() -> None:
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(300, 40, 12)) * np.arange(1, 13)  # tests of different spread
    adjusted = np.array([max_t(family[0], family[1:]) for family in rows])
    assert (adjusted.min(axis=1) <= 0.05).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 300)
    rows[:, 0, 3] += 6 * 4
    adjusted = np.array([max_t(family[0], family[1:]) for family in rows])
    assert (adjusted[:, 3] <= 0.05).mean() > 0.9


def test_max_t_gives_one_to_a_test_that_never_varies() -> None:
    samples = np.random.default_rng(0).normal(size=(19, 2))
    samples[:, 1] = 3.0
    assert max_t(np.array([5.0, 3.0]), samples)[1] == 1.0


@pytest.mark.usefixtures("unchecked_shapes")
def test_max_t_refuses_what_does_not_fit() -> None:
    samples = np.zeros((19, 2))
    with pytest.raises(StatisticsError, match="samples x 3"):
        max_t(np.zeros(3), samples)
    with pytest.raises(StatisticsError, match="finite"):
        max_t(np.array([np.nan, 1.0]), samples)


@pytest.mark.parametrize(("n_tests", "level", "n"), [(1, 0.05, 19), (48, 0.05, 959), (3, 0.05, 59), (1, 0.01, 99)])
def test_samples_needed_is_the_smallest_number_that_can_be_significant(n_tests: int, level: float, n: int) -> None:
    assert samples_needed(n_tests, level) == n
    assert 1 / (n + 1) <= level / n_tests * (1 + 1e-12)
    assert 1 / n > level / n_tests
    with pytest.raises(StatisticsError):
        samples_needed(0)
    with pytest.raises(StatisticsError):
        samples_needed(1, 1.0)
