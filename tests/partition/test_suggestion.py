import numpy as np
import pytest

from modscope.errors import PartitionError
from modscope.graph.weights import chain_graph
from modscope.partition.suggestion import suggest_n_clusters
from planted.graphs import chain, gaussian_mlp, planted_mlp


def test_all_three_ways_find_the_number_of_planted_modules():
    weights, _ = planted_mlp(n_modules=5, between=0.05, widths=(100, 80, 80, 60))
    found = suggest_n_clusters(chain(weights), max_clusters=9, n_repeats=3, rng=0)
    assert (found.by_eigengap, found.by_stability, found.by_leiden) == (5, 5, 5)


def test_the_right_number_is_more_stable_than_others():
    weights, _ = planted_mlp(n_modules=4, between=0.05, widths=(60, 50, 40))
    found = suggest_n_clusters(chain(weights), max_clusters=8, n_repeats=3, rng=0)
    stability = dict(found.to_frame().select("n_clusters", "stability").rows())
    assert stability[4] > 0.99
    assert stability[8] < 0.9


def test_without_modules_nothing_above_two_is_stable():
    found = suggest_n_clusters(chain(gaussian_mlp(widths=(60, 50, 40))), max_clusters=8, n_repeats=3, rng=0)
    assert found.stability[2:].max() < 0.6


def test_a_record_holds_the_numbers():
    found = suggest_n_clusters(chain(gaussian_mlp(widths=(9, 8, 7))), max_clusters=4, n_repeats=2, rng=0)
    assert found.to_dict()["n_clusters"] == [2, 3, 4]


def test_the_numbers_stop_below_the_number_of_units():
    found = suggest_n_clusters(chain_graph([np.ones((2, 3))]), rng=0)
    np.testing.assert_array_equal(found.n_clusters, [2, 3, 4])


def test_a_graph_of_two_units_has_no_suggestion():
    with pytest.raises(PartitionError, match="at least 3 units"):
        suggest_n_clusters(chain_graph([np.ones((1, 1))]), rng=0)
