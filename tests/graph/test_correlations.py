"""Correlations of values, as numbers go wrong: ties, constants, extremes, and too many units to keep all pairs."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import modscope.graph.correlations as correlations
import modscope.graph.strongest as strongest
from modscope.graph.correlations import Correlation, correlation_blocks, ranks, squared_correlations
from modscope.graph.strongest import strongest_edges

FEW_VALUES = hnp.arrays(np.float32, (5, 12), elements=st.sampled_from([-1e30, -2.0, -0.0, 0.0, 1e-30, 1.0, 3e30]))


def matrix_of(values: np.ndarray, correlation: Correlation) -> np.ndarray:
    n_units = len(values)
    blocks = correlation_blocks(np.arange(n_units), values, np.zeros(n_units, dtype=np.int64), ["all"], correlation)
    found = np.zeros((n_units, n_units))
    for block in blocks:
        found[np.ix_(block.targets, block.sources)] += block.sizes
    return found + found.T


def slow_matrix(values: np.ndarray, correlation: Correlation) -> np.ndarray:
    correlate = {"spearman": scipy.stats.spearmanr, "pearson": scipy.stats.pearsonr, "kendall": scipy.stats.kendalltau}
    found = np.zeros((len(values), len(values)))
    for i in range(len(values)):
        for j in range(i):
            if np.ptp(values[i]) > 0 and np.ptp(values[j]) > 0:
                pair = values[i].astype(np.float64), values[j].astype(np.float64)
                found[i, j] = found[j, i] = correlate[correlation](*pair).statistic ** 2
    return found


@pytest.mark.parametrize("correlation", ["spearman", "kendall"])
@given(values=FEW_VALUES)
@settings(max_examples=25, deadline=None)
def test_rank_correlations_of_extreme_and_tied_values_are_those_of_scipy(correlation, values):
    np.testing.assert_allclose(matrix_of(values, correlation), slow_matrix(values, correlation), atol=1e-5)


@given(seed=st.integers(0, 10_000), scale=st.sampled_from([1e-18, 1e-3, 1e6, 1e15]), shift=st.sampled_from([0, 10]))
@settings(max_examples=15, deadline=None)
def test_pearson_does_not_depend_on_scale_or_shift(seed, scale, shift):
    values = np.random.default_rng(seed).standard_normal((4, 30)).astype(np.float32)
    moved = ((values + shift) * scale).astype(np.float32)
    np.testing.assert_allclose(matrix_of(moved, "pearson"), matrix_of(values, "pearson"), atol=1e-4)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_rank_correlations_do_not_change_under_monotone_maps(seed):
    values = np.random.default_rng(seed).standard_normal((4, 30)).astype(np.float32)
    for correlation in ("spearman", "kendall"):
        np.testing.assert_allclose(matrix_of(np.exp(values), correlation), matrix_of(values, correlation), atol=1e-6)


@pytest.mark.parametrize("correlation", ["spearman", "pearson", "kendall"])
def test_equal_and_opposite_units_have_an_edge_of_one_and_never_more(correlation):
    row = np.random.default_rng(0).standard_normal(1001).astype(np.float32)
    found = matrix_of(np.stack([row, row, -row]), correlation)
    np.testing.assert_allclose(found, 1 - np.eye(3), atol=1e-6)
    assert found.max() <= 1


@pytest.mark.parametrize("correlation", ["spearman", "pearson", "kendall"])
def test_constant_units_have_no_edges_and_do_not_touch_the_others(correlation):
    values = np.random.default_rng(0).standard_normal((6, 20)).astype(np.float32)
    values[[0, 3]] = [[0.0], [1e20]]
    found = matrix_of(values, correlation)
    assert not found[[0, 3]].any()
    others = [1, 2, 4, 5]
    np.testing.assert_allclose(found[np.ix_(others, others)], matrix_of(values[others], correlation), atol=1e-7)


def test_a_network_of_dead_units_has_no_edges():
    assert not matrix_of(np.ones((4, 10), dtype=np.float32), "spearman").any()


def test_the_callers_array_stays_as_it_is():
    values = np.random.default_rng(0).standard_normal((4, 10)).astype(np.float32)
    before = values.copy()
    matrix_of(values, "spearman")
    np.testing.assert_array_equal(values, before)


def test_ranks_of_rows_in_pieces_are_the_ranks_of_all_rows(monkeypatch):
    values = np.random.default_rng(0).standard_normal((30, 25)).astype(np.float32)
    whole = matrix_of(values, "spearman")
    monkeypatch.setattr(correlations, "COLUMNS_AT_ONCE", 7)
    np.testing.assert_allclose(matrix_of(values, "spearman"), whole, atol=1e-7)


def test_ranks_of_one_example_are_zero():
    np.testing.assert_array_equal(ranks(torch.randn(3, 1)), np.zeros((3, 1)))


# -- the strongest edges of each unit -------------------------------------------------------------------------------


def slow_strongest(full: np.ndarray, n_kept: int) -> np.ndarray:
    """Entries that are among the largest of their row or of their column; `full` has no ties."""
    weakest = np.sort(full, axis=1)[:, -n_kept]
    return np.where((full >= weakest[:, None]) | (full >= weakest), full, 0)


@given(seed=st.integers(0, 10_000), n_units=st.integers(3, 60), n_kept=st.integers(1, 8), width=st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_the_strongest_edges_are_those_of_the_whole_matrix(seed, n_units, n_kept, width):
    full = np.triu(np.random.default_rng(seed).random((n_units, n_units)), 1).astype(np.float32)
    full += full.T
    numbers = torch.arange(n_units)[None].float()  # columns that say which they are
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strongest, "N_STRONGEST", n_kept)
        patch.setattr(strongest, "ROWS_AT_ONCE", width)
        patch.setattr(strongest, "LONG", 0.1)  # thinned out often
        low, high, sizes = strongest_edges(
            numbers, lambda first, second: torch.from_numpy(full[np.ix_(first[0].int(), second[0].int())])
        )
    assert (low < high).all()
    found = np.zeros((n_units, n_units))
    found[low, high] = sizes
    np.testing.assert_array_equal(found + found.T, slow_strongest(full, min(n_kept, n_units - 1)))


def test_among_equal_edges_each_unit_still_keeps_no_more_than_its_share(monkeypatch):
    monkeypatch.setattr(strongest, "N_STRONGEST", 3)
    monkeypatch.setattr(strongest, "ROWS_AT_ONCE", 4)
    low, high, sizes = strongest_edges(
        torch.zeros(1, 40), lambda first, second: torch.ones(first.shape[1], second.shape[1])
    )
    assert len(np.unique(low * 40 + high)) == len(low) <= 3 * 40
    np.testing.assert_array_equal(sizes, 1)
    assert np.bincount(np.concatenate([low, high]), minlength=40).min() >= 3


def test_many_units_give_a_sparse_block_of_the_same_correlations(monkeypatch):
    values = np.random.default_rng(0).standard_normal((50, 30)).astype(np.float32)
    full = matrix_of(values, "spearman")
    monkeypatch.setattr(correlations, "SPARSE_ABOVE", 40)
    monkeypatch.setattr(strongest, "N_STRONGEST", 5)
    columns = torch.from_numpy(values.T.copy())
    (block,) = squared_correlations(np.arange(50), columns, np.zeros(50, dtype=np.int64), ["all"], "spearman")
    sparse = block.sizes.toarray() + block.sizes.toarray().T
    np.testing.assert_allclose(sparse[sparse > 0], full[sparse > 0], atol=1e-6)
    assert ((sparse > 0).sum(axis=1) >= 5).all()
    assert (sparse > 0).sum() <= 2 * 5 * 50
