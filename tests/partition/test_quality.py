import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modscope.errors import PartitionError
from modscope.graph.unit_graph import Block, UnitGraph
from modscope.graph.weights import chain_graph
from modscope.partition.partition import Partition
from modscope.partition.quality import in_out_ratio, n_cut, n_cut_terms, newman_modularity
from planted.graphs import chain, random_blocks, reference, reference_graphs

SEEDS = st.integers(0, 10_000)


def slow_n_cut(graph: UnitGraph, labels: np.ndarray) -> float:
    adjacency = graph.adjacency().toarray()
    total = 0.0
    for cluster in set(labels.tolist()) - {-1}:
        inside = labels == cluster
        total += adjacency[inside][:, ~inside].sum() / adjacency[inside].sum()
    return total


def slow_modularity(graph: UnitGraph, labels: np.ndarray) -> float:
    adjacency = graph.adjacency().toarray()
    degrees, total = adjacency.sum(axis=1), adjacency.sum()
    same = (labels[:, None] == labels) & (labels >= 0)
    return float((same * (adjacency - np.outer(degrees, degrees) / total)).sum() / total)


def labelled_graph(seed: int) -> tuple[UnitGraph, np.ndarray]:
    rng = np.random.default_rng(seed)
    graph = random_blocks(rng)
    labels = rng.integers(-1, 4, graph.n_units)
    labels[graph.isolated] = -1
    if labels.max() < 0:
        labels[graph.components >= 0] = 0
    return graph, labels


@given(SEEDS)
@settings(max_examples=40)
def test_n_cut_agrees_with_its_definition(seed):
    graph, labels = labelled_graph(seed)
    assert n_cut(graph, labels) == pytest.approx(slow_n_cut(graph, labels), rel=1e-12, abs=1e-12)


@given(SEEDS)
@settings(max_examples=40)
def test_modularity_agrees_with_its_definition(seed):
    graph, labels = labelled_graph(seed)
    assert newman_modularity(graph, labels) == pytest.approx(slow_modularity(graph, labels), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("name", ["mlp_gauss", "mlp_planted4", "mlp_planted4_pruned90", "cnn_small_conv_L1official",
                                  "cnn_small_conv_L1entry"])  # fmt: skip
def test_n_cut_of_given_labels_is_the_reference(name):
    graph = reference_graphs()[name]
    for labels_name, expected in reference()["sets"][name]["ncut_given_labels"].items():
        if labels_name == "planted":
            continue
        labels = graph.group_of if labels_name == "layer_index" else np.arange(graph.n_units) % int(labels_name[11:])
        assert n_cut(graph, labels) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["ncut_small_repo_test", "ncut_big_repo_test"])
def test_n_cut_of_the_papers_own_test_vectors(name):
    vector = reference()["test_vectors"][name]
    graph = chain([np.array(weight, dtype=np.float64) for weight in vector["weights"]])
    assert n_cut(graph, np.array(vector["labels"])) == pytest.approx(vector["ncut"], rel=1e-9)


def test_n_cut_of_one_cluster_per_unit_group_is_the_number_of_groups():
    graph = reference_graphs()["mlp_planted4"]
    assert n_cut(graph, graph.group_of) == pytest.approx(len(graph.group_names), rel=1e-12)


@given(SEEDS)
@settings(max_examples=20)
def test_n_cut_is_unchanged_when_units_are_renumbered(seed):
    graph, labels = labelled_graph(seed)
    order = np.random.default_rng(seed).permutation(graph.n_units)
    blocks = tuple(Block(order[b.sources], order[b.targets], b.sizes, b.name) for b in graph.blocks)
    moved = UnitGraph(blocks, graph.group_of, graph.group_names)
    moved_labels = np.empty_like(labels)
    moved_labels[order] = labels
    assert n_cut(moved, moved_labels) == pytest.approx(n_cut(graph, labels), rel=1e-12, abs=1e-12)


@given(SEEDS)
@settings(max_examples=20)
def test_n_cut_is_unchanged_by_a_null_unit(seed):
    graph, labels = labelled_graph(seed)
    larger = UnitGraph(graph.blocks, np.append(graph.group_of, 0), graph.group_names)
    for label in (-1, int(labels.max())):
        assert n_cut(larger, np.append(labels, label)) == pytest.approx(n_cut(graph, labels), rel=1e-12, abs=1e-12)


def test_n_cut_of_two_disconnected_pairs_is_zero():
    graph = chain_graph([np.eye(2)])
    assert n_cut(graph, np.array([0, 1, 0, 1])) == 0


def test_edges_to_units_left_out_are_cut():
    graph = chain_graph([np.array([[1.0, 3.0]])])  # units 0 and 1 read by unit 2
    np.testing.assert_allclose(n_cut_terms(graph, np.array([0, -1, 0])), [3 / 5])


def test_labels_may_have_gaps():
    graph = chain_graph([np.ones((2, 2))])
    assert n_cut(graph, np.array([0, 7, 0, 7])) == n_cut(graph, np.array([0, 1, 0, 1]))


def test_in_out_ratio_of_half_the_weight_cut_is_one_half():
    graph = chain_graph([np.ones((2, 2))])
    assert in_out_ratio(graph, np.array([0, 1, 0, 1])) == pytest.approx(0.5)
    assert in_out_ratio(chain_graph([np.eye(2)]), np.array([0, 1, 0, 1])) == np.inf


def test_a_cluster_without_edges_is_refused():
    graph = chain_graph([np.array([[1.0, 0.0]])])
    with pytest.raises(PartitionError, match="cluster 1 has no edges"):
        n_cut(graph, np.array([0, 1, 0]))


def test_labels_of_another_number_of_units_are_refused():
    with pytest.raises(PartitionError, match="2 units, the graph 3"):
        n_cut(chain_graph([np.ones((1, 2))]), Partition(np.array([0, 1])))


def test_a_partition_that_leaves_out_every_unit_is_refused():
    with pytest.raises(PartitionError, match="every unit is left out"):
        n_cut(chain_graph([np.ones((1, 2))]), np.array([-1, -1, -1]))
