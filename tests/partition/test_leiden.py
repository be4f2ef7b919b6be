import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from modscope.errors import PartitionError
from modscope.graph.weights import chain_graph
from modscope.partition.leiden import Leiden
from modscope.partition.quality import n_cut, newman_modularity
from modscope.partition.spectral import Spectral
from planted.graphs import chain, gaussian_mlp, planted_mlp


def test_leiden_finds_the_planted_modules_and_how_many_there_are():
    weights, modules = planted_mlp()
    graph = chain(weights)
    partition = Leiden()(graph, rng=0)
    assert partition.n_clusters == 4
    assert adjusted_rand_score(modules, partition.labels) == 1
    assert n_cut(graph, partition) == pytest.approx(0.6018403320675518, rel=1e-9)


def test_leiden_has_a_higher_modularity_than_spectral_clustering():
    graph = chain(gaussian_mlp(widths=(60, 50, 40)))
    partition = Leiden()(graph, rng=0)
    other = Spectral(partition.n_clusters)(graph, rng=0)
    assert newman_modularity(graph, partition) >= newman_modularity(graph, other) - 0.01


def test_a_higher_resolution_gives_more_clusters():
    graph = chain(gaussian_mlp(widths=(60, 50, 40)))
    assert Leiden(3.0)(graph, rng=0).n_clusters > Leiden(1.0)(graph, rng=0).n_clusters


def test_isolated_units_are_left_out():
    weights = planted_mlp(widths=(20, 15, 10))[0]
    weights[0][3] = 0
    labels = Leiden()(chain(weights), rng=0).labels
    np.testing.assert_array_equal(np.flatnonzero(labels == -1), [3])


def test_the_same_rng_gives_the_same_partition():
    graph = chain(gaussian_mlp(widths=(60, 50, 40)))
    np.testing.assert_array_equal(Leiden()(graph, rng=7).labels, Leiden()(graph, rng=7).labels)


def test_threads_that_run_at_once_get_what_each_gets_alone():
    """scikit-network draws from C's `rand`, which all threads share."""
    graph = chain(gaussian_mlp(widths=(60, 50, 40)))

    def labels(seed):
        return Leiden(2.0)(graph, rng=seed).labels

    alone = [labels(seed) for seed in range(24)]
    assert any((alone[0] != other).any() for other in alone[1:])  # the seed matters
    patience = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as threads:
            together = list(threads.map(labels, range(24)))
    finally:
        sys.setswitchinterval(patience)
    np.testing.assert_array_equal(together, alone)


def test_a_graph_without_edges_has_no_clusters():
    assert Leiden()(chain_graph([np.zeros((2, 2))]), rng=0).n_clusters == 0


@pytest.mark.parametrize("resolution", [0.0, -1.0, float("nan")])
def test_an_impossible_resolution_is_refused(resolution):
    with pytest.raises(PartitionError, match="resolution must be above 0"):
        Leiden(resolution)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sknetwork.clustering", None)
    with pytest.raises(PartitionError, match="extra 'communities'"):
        Leiden()(chain(gaussian_mlp(widths=(5, 4))), rng=0)
