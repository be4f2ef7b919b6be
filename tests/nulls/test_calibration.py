"""Are p-values uniform where there are no modules, and is a wrong test caught by this very check?

The limits are those of a test at 99.9 %: a right program fails once in a thousand times, and here never, since the
seeds are fixed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.stats

from modscope.graph.unit_graph import UnitGraph
from modscope.jobs.executors import one_thread
from modscope.nulls import keep_unit_scale, shuffle_weights
from modscope.nulls.registry import NullModel
from modscope.nulls.simulated import SimulatedChain
from modscope.partition.clusterability import FoundNCut
from modscope.partition.quality import n_cut
from modscope.partition.spectral import Spectral
from modscope.randomness import numbered
from modscope.statistics import Comparison, compare

N_NETWORKS = 500
N_SAMPLES = 19
EQUAL = SimulatedChain(n_units=16, n_layers=3)
SPREAD = SimulatedChain(n_units=16, n_layers=3, spread=1.0)
STATISTIC = FoundNCut(Spectral(3))

PRule = Callable[[Comparison], float]


def correct_p(comparison: Comparison) -> float:
    return comparison.p_value


def comparisons_of(networks: Callable[[int], UnitGraph], null: NullModel, n: int = N_NETWORKS) -> list[Comparison]:
    return [
        compare(networks(i), STATISTIC, null, n_samples=N_SAMPLES, alternative="less", rng=i, n_observed=1)
        for i in range(n)
    ]


def failures(comparisons: list[Comparison], rule: PRule = correct_p) -> list[str]:
    """What is wrong with these p-values, if the null is true: nothing for a right test."""
    p = np.array([rule(comparison) for comparison in comparisons])
    steps = np.arange(N_SAMPLES + 2) / (N_SAMPLES + 1)  # from 0: a p-value is never 0
    wrong = []
    if not 0.022 <= (p <= 0.05 + 1e-9).mean() <= 0.084:
        wrong.append(f"rejects {(p <= 0.05 + 1e-9).mean():.3f} at .05")
    margin = 3.3 * np.sqrt(steps * (1 - steps) / len(p))
    if ((p[:, None] <= steps + 1e-9).mean(axis=0) > steps + margin + 1e-9).any():
        wrong.append("too many small p-values")
    spread_over_their_step = p - np.random.default_rng(0).random(len(p)) / (N_SAMPLES + 1)
    distance = scipy.stats.kstest(spread_over_their_step, "uniform").statistic
    if distance >= 0.087:
        wrong.append(f"distance {distance:.3f} from uniform")
    return wrong


@pytest.fixture(scope="module")
def on_equal_scales() -> list[Comparison]:
    with one_thread():
        return comparisons_of(lambda i: EQUAL(rng=numbered(i, "network")), shuffle_weights)


@pytest.mark.slow
def test_p_is_uniform_for_shuffled_networks_of_equal_scales(on_equal_scales: list[Comparison]) -> None:
    assert failures(on_equal_scales) == []


@pytest.mark.slow
def test_p_is_nearly_uniform_and_not_too_small_for_networks_drawn_from_keep_unit_scale_itself() -> None:
    """Scales are fitted anew to each of them, which makes the test a little conservative, never liberal."""
    base = SPREAD(rng=0)
    n = 300
    drawn = comparisons_of(lambda i: keep_unit_scale(base, numbered(i, "network")), keep_unit_scale, n)
    p = np.array([comparison.p_value for comparison in drawn])
    assert (p <= 0.05 + 1e-9).mean() <= 0.05 + 2 * np.sqrt(0.05 * 0.95 / n)
    spread_over_their_step = p - np.random.default_rng(0).random(n) / (N_SAMPLES + 1)
    assert scipy.stats.kstest(spread_over_their_step, "uniform").statistic < 0.15
    assert scipy.stats.kstest(spread_over_their_step, "uniform", alternative="greater").statistic < 0.087


@pytest.mark.slow
@pytest.mark.parametrize(
    "networks",
    [
        SPREAD,
        SimulatedChain(n_units=16, n_layers=3, spread=1.0, tail="lognormal"),
        SimulatedChain(n_units=24, n_layers=3, spread=1.0, density=0.3, degree_spread=0.5),
    ],
    ids=["spread", "heavy tails", "sparse"],
)
def test_keep_unit_scale_rejects_no_more_than_it_may_without_modules(networks: SimulatedChain) -> None:
    n = 200
    comparisons = comparisons_of(lambda i: networks(rng=numbered(i, "network")), keep_unit_scale, n)
    rejected = np.mean([comparison.p_value <= 0.05 + 1e-9 for comparison in comparisons])
    assert rejected <= 0.06 + 2 * np.sqrt(0.05 * 0.95 / n)


@pytest.mark.slow
def test_p_equal_to_r_over_n_is_caught(on_equal_scales: list[Comparison]) -> None:
    assert failures(on_equal_scales, lambda c: c.as_low.sum() / c.n_samples)


@pytest.mark.slow
def test_nulls_that_reuse_one_seed_are_caught() -> None:
    """All samples of a comparison are then one sample."""

    class OneSeed:
        __name__ = "one seed"

        def __call__(self, graph: UnitGraph, rng: np.random.Generator) -> UnitGraph:
            return shuffle_weights(graph, 5)

    fixed = FoundNCut(lambda graph, rng: Spectral(3)(graph, rng=0))
    comparisons = [
        compare(EQUAL(rng=i), fixed, OneSeed(), n_samples=N_SAMPLES, alternative="less", rng=i, n_observed=1)
        for i in range(120)
    ]
    assert failures(comparisons)


@pytest.mark.slow
def test_a_null_that_loses_the_scale_of_units_is_caught() -> None:
    assert failures(comparisons_of(lambda i: SPREAD(rng=numbered(i, "network")), shuffle_weights, 200))


@pytest.mark.slow
def test_clusters_chosen_on_the_tested_network_and_kept_for_the_null_are_caught() -> None:
    comparisons = []
    for index in range(120):
        graph = EQUAL(rng=index)
        labels = Spectral(3)(graph, rng=0).labels
        comparisons.append(
            compare(
                graph,
                lambda g, rng, labels=labels: n_cut(g, labels),
                shuffle_weights,
                n_samples=N_SAMPLES,
                alternative="less",
                rng=index,
                n_observed=1,
            )
        )
    assert failures(comparisons)


def coarse_comparisons() -> list[Comparison]:
    """True nulls with a statistic that takes three values."""
    values = np.random.default_rng(0).integers(0, 3, size=(N_NETWORKS, N_SAMPLES + 1)).astype(float)
    return [Comparison(row[0], row[1:], "less", "by hand") for row in values]


def test_ties_in_our_favour_are_caught() -> None:
    coarse = coarse_comparisons()
    assert "too many small p-values" in failures(coarse, lambda c: (1 + (~c.as_high).sum()) / (c.n_samples + 1))
    assert "too many small p-values" not in failures(coarse)
