"""Does a sweep over numbers of clusters give each its own test, and correct for having looked at several?"""

from __future__ import annotations

import json
from concurrent.futures import Executor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modscope.errors import PartitionError, StatisticsError
from modscope.graph.unit_graph import UnitGraph
from modscope.graph.weights import chain_graph
from modscope.nulls import shuffle_weights
from modscope.nulls.simulated import SimulatedChain
from modscope.partition.bands import Band
from modscope.partition.clusterability import clusterability
from modscope.partition.leiden import Leiden
from modscope.partition.partition import Partition
from modscope.partition.quality import n_cut
from modscope.partition.spectral import Spectral
from modscope.partition.sweep import sweep_n_clusters
from reference.workers import assert_same_for_any_number_of_workers

SMALL = SimulatedChain(n_units=24, n_layers=4, n_modules=3)
PLANTED = replace(SMALL, strength=20)


def band_of(observed: list[float], samples: np.ndarray) -> Band:
    return Band("by hand", tuple(range(2, 2 + len(observed))), np.array([observed]), samples)


def test_planted_modules_are_found_at_their_own_number_and_a_network_without_at_none() -> None:
    planted = sweep_n_clusters(PLANTED(rng=0), (2, 3, 4), n_samples=39)
    assert 3 in planted.found
    assert all(band.best == 3 for band in planted.values())
    assert all(band.p_in_all == pytest.approx(1 / 40) for band in planted.values())
    plain = sweep_n_clusters(SMALL(rng=0), (2, 3, 4), n_samples=39)
    assert plain.found == ()
    assert "at none of the 3 numbers" in plain.sentence


def test_each_number_has_the_samples_that_clusterability_draws_for_it() -> None:
    graph = replace(SMALL, strength=4)(rng=1)
    sweep = sweep_n_clusters(graph, (2, 3, 5), n_samples=19, rng=7, n_observed=3)
    for k in sweep.n_clusters:
        alone = clusterability(graph, Spectral(k), n_samples=19, rng=7, n_observed=3)
        for null, comparison in alone.items():
            assert sweep[null][k].observed_draws == pytest.approx(comparison.observed_draws, rel=1e-6)
            assert sweep[null][k].null_samples == pytest.approx(comparison.null_samples, rel=1e-6)
            assert sweep[null][k].p_value == comparison.p_value
        assert sweep.stability[k] == pytest.approx(alone.stability)
        assert sweep.n_cuts[k] == pytest.approx(n_cut(graph, sweep.partitions[k][0]))


def test_each_random_network_is_drawn_once_for_all_numbers() -> None:
    drawn = []

    def counted(graph: UnitGraph, rng: np.random.Generator) -> UnitGraph:
        drawn.append(graph)
        return shuffle_weights(graph, rng)

    sweep = sweep_n_clusters(SMALL(rng=0), range(2, 6), nulls=counted, n_samples=7, n_observed=1)
    assert len(drawn) == 7
    assert sweep["counted"].null_samples.shape == (7, 4)


def test_the_papers_partitioner_and_its_options_are_kept() -> None:
    graph = SMALL(rng=2)
    rough = sweep_n_clusters(graph, (2, 4), partitioner=Spectral(refine=False), n_samples=2, rng=3, n_observed=1)
    for k in (2, 4):
        alone = clusterability(graph, Spectral(k, refine=False), n_samples=2, rng=3, n_observed=1)
        assert rough.n_cuts[k] == pytest.approx(alone.n_cut, rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), n_samples=st.integers(2, 30), n_numbers=st.integers(1, 5))
def test_p_in_all_counts_the_samples_whose_lowest_standardised_n_cut_is_as_low(
    seed: int, n_samples: int, n_numbers: int
) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(rng.normal(0, 5, n_numbers), rng.uniform(0.1, 3, n_numbers), (n_samples + 1, n_numbers))
    band = band_of(rows[0].tolist(), rows[1:])
    z = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    r = sum(z[i].min() <= z[0].min() + 1e-9 for i in range(1, n_samples + 1))
    assert band.p_in_all == pytest.approx((r + 1) / (n_samples + 1))
    for p, k in zip(band.adjusted_p_values, band, strict=True):
        assert p >= band[k].p_value - 1e-12


def test_looking_at_several_numbers_cries_wolf_uncorrected_and_not_corrected() -> None:
    """1,000 networks that are one more draw from their null; neighbouring numbers rise and fall together."""
    rng = np.random.default_rng(0)
    uncorrected = corrected = 0
    for _ in range(1000):
        own = rng.normal(size=(20, 5))
        rows = own + 0.7 * rng.normal(size=(20, 1))
        band = band_of(rows[0].tolist(), rows[1:])
        uncorrected += min(test.p_value for test in band.values()) <= 0.05
        corrected += band.p_in_all <= 0.05
    assert uncorrected > 130  # .05 for one number
    assert corrected <= 70  # 50 expected, sd 7


def test_the_band_holds_nine_tenths_of_the_samples_and_the_extremes_hold_all() -> None:
    samples = np.random.default_rng(1).normal(size=(200, 3))
    band = band_of([0.0, 0.0, 0.0], samples)
    inside = ((samples >= band.low) & (samples <= band.high)).mean(axis=0)
    assert inside == pytest.approx([0.9] * 3)
    for row, column in zip(band.rows(), samples.T, strict=True):
        assert (row["null_min"], row["null_max"]) == (column.min(), column.max())
        assert row["null_low"] == pytest.approx(np.quantile(column, 0.05))


def test_samples_are_identical_for_any_number_of_workers() -> None:
    graph = replace(SMALL, strength=3)(rng=2)

    def samples(executor: Executor | None) -> np.ndarray:
        sweep = sweep_n_clusters(graph, (2, 4), n_samples=12, rng=5, executor=executor, n_observed=2)
        return np.concatenate([np.vstack([band.observed, band.null_samples]) for band in sweep.values()])

    assert_same_for_any_number_of_workers(samples)


def test_one_cluster_and_equal_weights_have_a_defined_answer() -> None:
    sweep = sweep_n_clusters(SMALL(rng=0), (1, 2), n_samples=5, n_observed=1)
    for band in sweep.values():
        assert band[1].observed == 0
        assert band[1].p_value == band.adjusted_p_values[0] == 1
        assert band[1].z_score is None
    assert sweep.stability == {1: None, 2: None}
    equal = sweep_n_clusters(chain_graph([np.ones((9, 9))]), (2, 3), nulls="shuffle_weights", n_samples=5)
    assert equal["shuffle_weights"].p_in_all == 1


def test_a_sweep_comes_as_table_record_picture_and_text() -> None:
    pytest.importorskip("matplotlib").use("agg")
    sweep = sweep_n_clusters(PLANTED(rng=0), (4, 3, 3, 2), n_samples=19)
    frame = sweep.to_frame()
    assert frame["n_clusters"].to_list() == [2, 3, 4] * 2
    assert frame["null"].to_list() == ["shuffle_weights"] * 3 + ["keep_unit_scale"] * 3
    assert frame["p_adjusted"].to_list() == [p for band in sweep.values() for p in band.adjusted_p_values]
    content = json.loads(json.dumps(sweep.record().content, allow_nan=False))
    assert content["n_cuts"] == list(sweep.n_cuts.values())
    assert content["rows"][0]["null_low"] == frame["null_low"][0]
    lines = [line for line in sweep.plot().get_lines() if len(line.get_xdata()) == 3]
    gaps = [line.get_ydata() for line in lines]
    for gap, band in zip(gaps, sweep.values(), strict=True):
        assert gap == pytest.approx(band.observed[0] - band.null_samples.mean(axis=0))
    assert sweep.sentence in repr(sweep)
    assert "<table" in sweep._repr_html_()


def test_what_cannot_be_done_is_refused_in_words() -> None:
    graph = SMALL(rng=0)
    for numbers in ((), (0, 2), (2.5,), ("4",)):
        with pytest.raises(PartitionError, match="whole numbers of at least 1"):
            sweep_n_clusters(graph, numbers)
    with pytest.raises(PartitionError, match="Leiden has none"):
        sweep_n_clusters(graph, partitioner=Leiden())
    with pytest.raises(PartitionError, match="function has none"):
        sweep_n_clusters(graph, partitioner=lambda graph, *, rng=0: Partition(graph.group_of))
    with pytest.raises(PartitionError, match="10000 clusters"):
        sweep_n_clusters(graph, (2, 10_000), n_samples=1)
    with pytest.raises(StatisticsError, match="at least one null model"):
        sweep_n_clusters(graph, nulls=())
    sweep = sweep_n_clusters(graph, (2, 3), nulls="shuffle_weights", n_samples=2, n_observed=1)
    with pytest.raises(StatisticsError, match="4 clusters were not tried; 2, 3 were"):
        sweep["shuffle_weights"][4]
    with pytest.raises(StatisticsError, match="'keep_unit_scale' was not run"):
        sweep["keep_unit_scale"]


@pytest.mark.slow
def test_on_networks_without_modules_p_in_all_holds_its_level_and_the_smallest_p_does_not() -> None:
    """Weights are drawn independently, so a network is one more draw from `shuffle_weights`."""
    smallest, in_all = [], []
    for seed in range(80):
        graph = SimulatedChain(n_units=16, n_layers=3)(rng=seed)
        sweep = sweep_n_clusters(
            graph, (2, 3, 4, 5, 6), nulls="shuffle_weights", n_samples=19, rng=1000 + seed, n_observed=1
        )
        (band,) = sweep.values()
        smallest.append(min(test.p_value for test in band.values()))
        in_all.append(band.p_in_all)
    assert np.mean(np.array(in_all) <= 0.05) <= 0.125  # .05 expected; more than 10 of 80 has chance .002
    assert np.mean(smallest) < np.mean(in_all)
    assert np.mean(np.array(smallest) <= 0.05) > np.mean(np.array(in_all) <= 0.05)
