"""Are p-values uniform where there are no modules, small where there are, and is a wrong test caught by this check?

Every check has a chance of one in a thousand to fail a right program; seeds are fixed, so that it does so always or
never. Tables of more kinds of networks, 500 each, come from `benchmarks/calibration.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import scipy.stats
from jaxtyping import Float

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
from modscope.statistics.experiment import Statistic

N_NETWORKS = 500
N_CAUGHT = 20  # networks that show a wrong test to be wrong
N_SAMPLES = 19
LEVEL = 0.001  # of the checks
EQUAL = SimulatedChain(n_units=16, n_layers=3)
SPREAD = SimulatedChain(n_units=16, n_layers=3, spread=1.0)
ONE_LAYER = SimulatedChain(n_units=20, n_layers=2, spread=1.0)
REGIMES = [  # spread of log scales, density, spread of degrees
    SimulatedChain(n_units=24, n_layers=3, spread=spread, density=density, degree_spread=degree_spread)
    for spread, density, degree_spread in [(0, 1, 0), (1, 1, 0), (0, 0.2, 0), (1, 0.2, 0), (0, 0.2, 0.5), (1, 0.2, 0.5)]
]
HEAVY = SimulatedChain(n_units=24, n_layers=3, spread=1.0, tail="lognormal")
UNEVEN = SimulatedChain(n_units=48, n_layers=3, density=0.2, degree_spread=1.2)
CLUSTERS_NCUT = FoundNCut(Spectral(3))

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def on_one_thread() -> Iterator[None]:
    with one_thread():
        yield


def least_ncut(graph: UnitGraph, rng: np.random.Generator) -> float:
    """What no n-cut of three clusters is below: 3 - the three largest eigenvalues of D^-1/2 A D^-1/2.

    It costs a fifth of a clustering, and whether p is uniform does not depend on the statistic.
    """
    adjacency = graph.adjacency().toarray()
    roots = np.sqrt(adjacency.sum(axis=0))
    return float(3 - np.linalg.eigvalsh(adjacency / np.outer(roots, roots))[-3:].sum())


def comparisons_of(
    network: Callable[[int], UnitGraph], null: NullModel, n: int, statistic: Statistic = least_ncut
) -> list[Comparison]:
    """One test each of networks 0 .. n - 1."""
    return [
        compare(network(i), statistic, null, n_samples=N_SAMPLES, alternative="less", rng=i, n_observed=1)
        for i in range(n)
    ]


def p_values_of(networks: SimulatedChain, null: NullModel, n: int) -> Float[np.ndarray, " networks"]:
    """Of the n-cut that is reported."""
    return p_values(comparisons_of(lambda i: networks(rng=numbered(i, "network")), null, n, CLUSTERS_NCUT))


def p_values(comparisons: list[Comparison]) -> Float[np.ndarray, " networks"]:
    return np.array([comparison.p_value for comparison in comparisons])


def rejects_too_often(p: Float[np.ndarray, " networks"]) -> bool:
    return bool((p <= 0.05 + 1e-9).sum() > scipy.stats.binom.ppf(1 - LEVEL, len(p), 0.05))


def is_too_small(p: Float[np.ndarray, " networks"]) -> bool:
    """Are p-values smaller than uniform ones anywhere, or even 0? Too large ones are no error of this kind."""
    return bool(
        (p <= 0).any() or scipy.stats.kstest(over_their_steps(p), "uniform", alternative="greater").pvalue < LEVEL
    )


def is_not_uniform(p: Float[np.ndarray, " networks"]) -> bool:
    return bool(scipy.stats.kstest(over_their_steps(p), "uniform").pvalue < LEVEL)


def over_their_steps(p: Float[np.ndarray, " networks"]) -> Float[np.ndarray, " networks"]:
    """p-values that come in steps, as a right test without steps would have them."""
    return p - np.random.default_rng(0).random(len(p)) / (N_SAMPLES + 1)


@pytest.fixture(scope="module")
def under_the_null() -> list[Comparison]:
    base = ONE_LAYER(rng=0)
    with one_thread():
        return comparisons_of(lambda i: shuffle_weights(base, numbered(i, "network")), shuffle_weights, N_NETWORKS)


def test_p_is_uniform_for_networks_drawn_from_the_null_itself(under_the_null: list[Comparison]) -> None:
    p = p_values(under_the_null)
    assert not is_not_uniform(p)
    assert not rejects_too_often(p)


def test_p_is_never_too_small_for_networks_drawn_from_keep_unit_scale_itself() -> None:
    """Scales are fitted anew to each of them, which makes the test a little conservative in its middle."""
    base = ONE_LAYER(rng=0)
    p = p_values(comparisons_of(lambda i: keep_unit_scale(base, numbered(i, "network")), keep_unit_scale, N_NETWORKS))
    assert not is_too_small(p)
    assert not rejects_too_often(p)
    assert scipy.stats.kstest(over_their_steps(p), "uniform").statistic < 0.15


def test_keep_unit_scale_rejects_no_more_than_it_may_without_modules() -> None:
    by_regime = [p_values_of(networks, keep_unit_scale, 12) for networks in [*REGIMES, HEAVY, UNEVEN]]
    assert not any(rejects_too_often(p) for p in by_regime)
    assert not rejects_too_often(np.concatenate(by_regime))
    assert not is_too_small(np.concatenate(by_regime))


def test_a_null_that_loses_the_number_of_connections_of_units_rejects_too_often_where_they_differ() -> None:
    """Under the papers' null, as many of these networks as above show what `keep_unit_scale` does not."""
    p = p_values_of(UNEVEN, shuffle_weights, 20)
    assert rejects_too_often(p)
    assert is_too_small(p)


def test_a_null_that_loses_the_scale_of_units_has_p_far_from_uniform_where_scales_differ() -> None:
    """And finds no module that there is: p is far too large, which only the two-sided check can see."""
    p = p_values_of(SPREAD, shuffle_weights, N_CAUGHT)
    assert is_not_uniform(p)
    assert not is_too_small(p)
    assert not is_not_uniform(p_values_of(SPREAD, keep_unit_scale, N_CAUGHT))


def test_stronger_modules_are_found_more_often() -> None:
    found = [
        p_values_of(SimulatedChain(0.7, n_units=32, n_layers=3, n_modules=3, strength=strength), keep_unit_scale, 12)
        for strength in (1.5, 3, 6)
    ]
    weak, middle, strong = (float((p <= 0.05 + 1e-9).mean()) for p in found)
    assert weak < 0.4
    assert weak < middle <= strong
    assert strong > 0.9


def test_p_equal_to_r_over_n_is_caught(under_the_null: list[Comparison]) -> None:
    assert is_too_small(np.array([c.as_low.sum() / c.n_samples for c in under_the_null]))


def test_nulls_that_reuse_one_seed_are_caught() -> None:
    """All samples of a comparison are then one sample."""

    class OneSeed:
        __name__ = "one seed"

        def __call__(self, graph: UnitGraph, rng: np.random.Generator) -> UnitGraph:
            return shuffle_weights(graph, 5)

    fixed = FoundNCut(lambda graph, rng: Spectral(3)(graph, rng=0))
    p = p_values(comparisons_of(lambda i: EQUAL(rng=i), OneSeed(), N_CAUGHT, fixed))
    assert is_too_small(p)


def test_clusters_chosen_on_the_tested_network_and_kept_for_the_null_are_caught() -> None:
    p = []
    for index in range(N_CAUGHT):
        graph = EQUAL(rng=index)
        labels = Spectral(3)(graph, rng=0).labels
        p += comparisons_of(lambda _, g=graph: g, shuffle_weights, 1, lambda g, rng, at=labels: n_cut(g, at))
    assert rejects_too_often(p_values(p))


def test_ties_in_our_favour_are_caught() -> None:
    """True nulls with a statistic that takes three values."""
    values = np.random.default_rng(0).integers(0, 3, size=(N_NETWORKS, N_SAMPLES + 1)).astype(float)
    coarse = [Comparison(row[0], row[1:], "less", "by hand") for row in values]
    assert not is_too_small(p_values(coarse))
    assert is_too_small(np.array([(1 + (~c.as_high).sum()) / (c.n_samples + 1) for c in coarse]))
