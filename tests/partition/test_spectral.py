import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from modscope.errors import PartitionError
from modscope.graph.unit_graph import Block, UnitGraph
from modscope.graph.weights import chain_graph
from modscope.partition.quality import n_cut
from modscope.partition.spectral import Spectral
from planted.graphs import (
    chain,
    gaussian_mlp,
    glorot_mlp,
    planted_mlp,
    pruned,
    random_blocks,
    reference,
    reference_graphs,
)

SEEDS = st.integers(0, 10_000)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("refine", [True, False])
def test_planted_modules_are_found(seed, refine):
    weights, modules = planted_mlp()
    graph = chain(weights)
    partition = Spectral(4, refine=refine)(graph, rng=seed)
    assert adjusted_rand_score(modules, partition.labels) == 1
    assert n_cut(graph, partition) == pytest.approx(0.6018403320675518, rel=1e-9)


@pytest.mark.parametrize("n_clusters", [2, 4, 7, 10, 12])
@pytest.mark.parametrize("name", ["mlp_gauss", "mlp_planted4", "mlp_planted4_pruned90", "cnn_small_conv_L1official",
                                  "cnn_small_conv_L1entry"])  # fmt: skip
def test_official_mode_reaches_the_n_cut_of_the_papers_program(name, n_clusters):
    graph = reference_graphs()[name]
    expected = reference()["sets"][name]["official"][f"k{n_clusters}"]["ncut_seed42"]
    found = n_cut(graph, Spectral(n_clusters, official=True)(graph, rng=42))
    assert found == pytest.approx(expected, rel=5e-3, abs=1e-9)


@pytest.mark.parametrize("n_clusters", [2, 4, 7, 10, 12])
def test_refinement_beats_the_papers_program(n_clusters):
    graph = reference_graphs()["mlp_gauss"]
    official = np.mean(reference()["sets"]["mlp_gauss"]["official"][f"k{n_clusters}"]["ncut_all"])
    assert n_cut(graph, Spectral(n_clusters)(graph, rng=0)) < 0.985 * official


@pytest.mark.slow
def test_random_initialisation_has_the_papers_n_cut():
    graphs = [chain(glorot_mlp(np.random.default_rng(seed))) for seed in range(20)]
    found = [n_cut(graph, Spectral(12, official=True)(graph, rng=seed)) for seed, graph in enumerate(graphs)]
    assert np.mean(found) == pytest.approx(10.295, abs=0.02)


def test_the_same_rng_gives_the_same_partition():
    graph = chain(gaussian_mlp(widths=(40, 30, 20)))
    first, second = (Spectral(5)(graph, rng=3).labels for _ in range(2))
    np.testing.assert_array_equal(first, second)


@given(SEEDS)
@settings(max_examples=15)
def test_every_unit_with_edges_gets_a_cluster_and_no_cluster_is_empty(seed):
    graph = random_blocks(np.random.default_rng(seed), density=0.15)
    n_clusters = min(4, int(np.count_nonzero(graph.components >= 0)))
    if n_clusters == 0:
        return
    partition = Spectral(n_clusters)(graph, rng=0)
    assert partition.n_clusters == n_clusters
    np.testing.assert_array_equal(partition.labels >= 0, graph.components >= 0)


@given(SEEDS)
@settings(max_examples=15)
def test_refinement_never_raises_the_n_cut(seed):
    graph = random_blocks(np.random.default_rng(seed))
    if np.count_nonzero(graph.components >= 0) < 5:
        return
    plain, refined = (n_cut(graph, Spectral(3, refine=refine)(graph, rng=1)) for refine in (False, True))
    assert refined <= plain + 1e-9


def test_separate_components_are_found_as_clusters_and_reported():
    weights, modules = planted_mlp()
    graph = chain(pruned(weights))
    partition = Spectral(4)(graph, rng=0)
    assert adjusted_rand_score(modules, partition.labels) == 1
    assert n_cut(graph, partition) == pytest.approx(0, abs=1e-12)
    assert any("4 separate components" in note for note in partition.notes)


def test_more_components_than_clusters_are_put_together_evenly():
    graph = chain_graph([np.eye(6)])
    partition = Spectral(3)(graph, rng=0)
    assert n_cut(graph, partition) == 0
    np.testing.assert_array_equal(partition.sizes, [4, 4, 4])


def test_isolated_units_are_left_out_and_reported():
    weights = gaussian_mlp(widths=(12, 10, 8))
    weights[0][3] = 0
    partition = Spectral(3)(chain(weights), rng=0)
    np.testing.assert_array_equal(np.flatnonzero(partition.labels == -1), [3])
    assert any("1 units have no edges" in note for note in partition.notes)


def test_one_cluster_is_everything_with_edges():
    partition = Spectral(1)(chain(gaussian_mlp(widths=(5, 4))), rng=0)
    np.testing.assert_array_equal(partition.labels, 0)


def test_as_many_clusters_as_units_puts_each_unit_alone():
    partition = Spectral(9)(chain(gaussian_mlp(widths=(5, 4))), rng=0)
    np.testing.assert_array_equal(np.sort(partition.labels), np.arange(9))


def test_more_clusters_than_units_is_refused():
    with pytest.raises(PartitionError, match=r"10 clusters .* only 9 of 9 units"):
        Spectral(10)(chain(gaussian_mlp(widths=(5, 4))), rng=0)


def test_no_clusters_are_refused():
    with pytest.raises(PartitionError, match="n_clusters must be a whole number of at least 1"):
        Spectral(0)


def test_a_batch_of_no_graphs_is_refused():
    with pytest.raises(PartitionError, match="batch_size must be a whole number of at least 1, got 0"):
        Spectral(batch_size=0)


def test_a_graph_without_edges_is_refused():
    with pytest.raises(PartitionError, match="0 of 4 units have edges"):
        Spectral(2)(chain_graph([np.zeros((2, 2))]), rng=0)


def test_one_unit_per_layer_is_a_path_that_is_cut_in_the_middle():
    graph = chain_graph([np.ones((1, 1))] * 3)
    np.testing.assert_array_equal(Spectral(2)(graph, rng=0).labels, [0, 0, 1, 1])


def test_an_all_zero_layer_splits_the_network():
    weights = gaussian_mlp(widths=(6, 5, 4, 3))
    weights[1][:] = 0
    partition = Spectral(2)(chain(weights), rng=0)
    np.testing.assert_array_equal(partition.labels, np.repeat([0, 1], [11, 7]))


def test_duplicated_units_do_not_stop_the_clustering():
    partition = Spectral(4)(chain_graph([np.ones((6, 8)), np.ones((5, 6))]), rng=0)
    assert partition.n_clusters == 4


def test_a_large_graph_with_fewer_directions_than_clusters_is_clustered():
    graph = chain_graph([np.kron(np.eye(6) + 0.01, np.ones((60, 50)))])  # of rank 6
    assert n_cut(graph, Spectral(6)(graph, rng=0)) == pytest.approx(6 * 0.05 / 1.06, rel=1e-4)
    assert Spectral(12)(graph, rng=0).n_clusters == 12


def test_a_graph_with_odd_cycles_is_clustered_too():
    rng = np.random.default_rng(0)
    sizes = np.triu(np.where(np.arange(60)[:, None] // 20 == np.arange(60) // 20, 1.0, 0.05) * rng.random((60, 60)), 1)
    graph = UnitGraph((Block(np.arange(60), np.arange(60), sizes, "rho"),), np.zeros(60, dtype=np.int64), ("all",))
    assert not graph.is_bipartite
    partition = Spectral(3)(graph, rng=0)
    assert adjusted_rand_score(np.arange(60) // 20, partition.labels) == 1


def test_several_numbers_of_clusters_at_once_give_what_each_gives_alone():
    graph = chain(gaussian_mlp(widths=(60, 50, 40, 30)))
    together = Spectral().several(graph, (1, 3, 8), rng=5)
    for number, partition in zip((1, 3, 8), together, strict=True):
        alone = Spectral(number)(graph, rng=5)
        assert n_cut(graph, partition) == pytest.approx(n_cut(graph, alone), rel=1e-2)
    np.testing.assert_array_equal(together[2].labels, Spectral(8)(graph, rng=5).labels)


def test_the_clusters_of_one_number_do_not_depend_on_smaller_ones_asked_for_beside_it():
    graph = chain(gaussian_mlp(widths=(60, 50, 40, 30)))
    alone, (_, beside) = Spectral(8)(graph, rng=5), Spectral().several(graph, (4, 8), rng=5)
    np.testing.assert_array_equal(alone.labels, beside.labels)


def test_of_several_numbers_each_is_checked():
    with pytest.raises(PartitionError, match="99 clusters were asked for"):
        Spectral().several(chain(gaussian_mlp(widths=(5, 4))), (2, 99))


def test_several_numbers_of_clusters_with_separate_components_are_those_of_each_alone():
    graph = chain(pruned(planted_mlp()[0]))  # four components
    for number, partition in zip((2, 4, 6), Spectral().several(graph, (2, 4, 6)), strict=True):
        assert n_cut(graph, partition) == pytest.approx(n_cut(graph, Spectral(number)(graph)), rel=2e-2, abs=1e-12)


def test_many_graphs_are_clustered_as_each_alone():
    graphs = [chain(gaussian_mlp(seed, widths=(30, 25, 20))) for seed in range(5)]
    pairs = ((graph, np.random.default_rng(index)) for index, graph in enumerate(graphs))
    for index, (graph, partition) in enumerate(Spectral(4).many(pairs)):
        assert graph is graphs[index]
        np.testing.assert_array_equal(partition.labels, Spectral(4)(graph, rng=np.random.default_rng(index)).labels)
