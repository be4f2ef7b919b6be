"""Do combined p-values agree with scipy, with hand calculation, and with simulation?"""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from modscope.errors import StatisticsError
from modscope.statistics import bates, chi_square_of_ranks, fisher, stouffer

p_lists = st.lists(st.floats(1e-6, 1 - 1e-6), min_size=1, max_size=12)


@settings(max_examples=40)
@given(p_lists)
def test_fisher_and_stouffer_agree_with_scipy(p_values: list[float]) -> None:
    for ours, method in ((fisher, "fisher"), (stouffer, "stouffer")):
        theirs = scipy.stats.combine_pvalues(p_values, method=method).pvalue
        assert ours(p_values) == pytest.approx(theirs, rel=1e-9, abs=1e-12)


def test_fisher_with_the_papers_shift_is_fisher_of_p_minus_half_a_step() -> None:
    p_values = [0.05, 0.4, 0.75]
    shifted = [p - 1 / 40 for p in p_values]
    assert fisher(p_values, n_samples=19) == pytest.approx(scipy.stats.combine_pvalues(shifted).pvalue, rel=1e-9)


def test_zero_and_one_give_an_answer_without_a_warning() -> None:
    assert fisher([0.0, 0.5]) == 0.0
    assert stouffer([0.0, 0.5]) == 0.0
    assert fisher([1.0, 1.0]) == 1.0
    assert stouffer([1.0, 0.2]) == 1.0
    assert stouffer([0.0, 1.0]) == 1.0


def test_stouffer_gives_a_heavier_test_more_say() -> None:
    assert stouffer([0.01, 0.9], weights=[10, 1]) < stouffer([0.01, 0.9]) < stouffer([0.01, 0.9], weights=[1, 10])


def test_bates_of_one_p_is_p_and_of_two_is_the_triangle() -> None:
    assert bates([0.3]) == pytest.approx(0.3)
    assert bates([0.1, 0.3]) == pytest.approx(0.4**2 / 2)
    assert bates([0.9, 0.7]) == pytest.approx(1 - 0.4**2 / 2)
    assert bates([0.0] * 5) == 0.0
    assert bates([1.0] * 5) == 1.0


@pytest.mark.parametrize("m", [3, 5, 19, 20, 21, 40])
def test_bates_is_uniform_for_uniform_p_values(m: int) -> None:
    draws = np.random.default_rng(m).random((1500, m))
    combined = np.array([bates(row) for row in draws])
    assert scipy.stats.kstest(combined, "uniform").pvalue > 1e-4


def test_chi_square_of_ranks_agrees_with_scipy() -> None:
    ranks = np.random.default_rng(0).integers(0, 20, size=60)
    theirs = scipy.stats.chisquare(np.bincount(ranks, minlength=20)).pvalue
    assert chi_square_of_ranks(ranks, 19) == pytest.approx(theirs, rel=1e-9)
    assert chi_square_of_ranks(np.zeros(60, dtype=int), 19) < 1e-10


@pytest.mark.parametrize("p_values", [[], [0.5, 1.2], [-0.1], [0.5, float("nan")]])
@pytest.mark.parametrize("combine", [fisher, stouffer, bates])
def test_what_is_no_p_value_is_refused(combine, p_values: list[float]) -> None:
    with pytest.raises(StatisticsError):
        combine(p_values)


def test_wrong_weights_and_ranks_are_refused() -> None:
    with pytest.raises(StatisticsError, match="one positive weight"):
        stouffer([0.5, 0.5], weights=[1.0])
    with pytest.raises(StatisticsError, match="one positive weight"):
        stouffer([0.5, 0.5], weights=[1.0, 0.0])
    with pytest.raises(StatisticsError, match="ranks"):
        chi_square_of_ranks([20], 19)
    with pytest.raises(StatisticsError, match="ranks"):
        chi_square_of_ranks([], 19)
