import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from modscope.errors import PartitionError
from modscope.graph.correlations import correlation_blocks
from modscope.graph.unit_graph import UnitGraph
from modscope.graph.weights import chain_graph
from modscope.partition.leiden import Leiden
from modscope.partition.nested import Local, Nested, mean_local_n_cut
from modscope.partition.partition import Partition
from modscope.partition.quality import n_cut
from modscope.partition.spectral import Spectral
from planted.graphs import chain, gaussian_mlp, planted_mlp


def planted(widths: tuple[int, ...] = (60, 50, 40)) -> tuple[UnitGraph, np.ndarray]:
    weights, modules = planted_mlp(n_modules=3, between=0.1, widths=widths)
    return chain(weights), modules


def test_local_clusters_lie_within_one_group_and_find_its_modules():
    graph, modules = planted()
    labels = Local(Spectral(3))(graph, rng=0).labels
    for group in range(3):
        units = graph.group_of == group
        assert adjusted_rand_score(modules[units], labels[units]) > 0.9
        assert not np.isin(labels[units], labels[~units]).any()


def test_local_clusters_are_those_of_the_neighbouring_layers_sub_network():
    graph, _ = planted((30, 25, 20, 15))
    first_three = chain(planted_mlp(n_modules=3, between=0.1, widths=(30, 25, 20, 15))[0][:2])
    seen = []

    def spy(part: UnitGraph, *, rng: np.random.Generator) -> Partition:
        seen.append(part)
        return Partition(np.zeros(part.n_units, dtype=np.int64))

    Local(spy)(graph, rng=0)
    around_second = seen[1].adjacency().toarray()
    np.testing.assert_array_equal(around_second[:75, :75], first_three.adjacency().toarray())
    assert not around_second[75:].any()


def test_a_group_gets_as_many_local_clusters_as_it_has_in_another_partition():
    graph, _ = planted()
    like = Partition(np.concatenate([np.arange(60) % 4, np.arange(50) % 2, np.zeros(40, dtype=np.int64)]))
    labels = Local(Spectral(), like=like)(graph, rng=0).labels
    n_found = [len(np.unique(labels[graph.group_of == group])) for group in range(3)]
    # a part has 4 or 2 clusters in all; a group can have fewer of them, never more
    assert n_found[0] <= 4
    assert n_found[1] <= 2
    assert n_found[2] == 1


def test_only_spectral_takes_numbers_of_clusters_from_a_partition():
    graph, _ = planted()
    with pytest.raises(PartitionError, match="only Spectral"):
        Local(Leiden(), like=Partition(graph.group_of))(graph, rng=0)


def test_local_clusters_of_activations_use_edges_inside_the_group():
    rng = np.random.default_rng(0)
    signals = rng.standard_normal((2, 200))
    values = np.repeat(signals, 10, axis=0) + 0.5 * rng.standard_normal((20, 200))
    group_of = np.tile([0, 1], 10)
    blocks = correlation_blocks(np.arange(20), values.astype(np.float32), group_of, ["a", "b"], "pearson")
    graph = UnitGraph(tuple(blocks), group_of, ("a", "b"))
    partition = Local(Spectral(2), around=False)(graph, rng=0)
    for group in range(2):
        units = group_of == group
        assert adjusted_rand_score(np.arange(20)[units] // 10, partition.labels[units]) == 1
    inside = [n_cut(graph.induced(np.flatnonzero(group_of == g)),
                    np.where(group_of == g, partition.labels, -1)) for g in range(2)]  # fmt: skip
    assert mean_local_n_cut(graph, partition) == pytest.approx(np.mean(inside))


def test_a_mean_local_n_cut_without_edges_inside_groups_is_refused():
    graph, _ = planted()
    with pytest.raises(PartitionError, match="no unit group has edges inside"):
        mean_local_n_cut(graph, Partition(graph.group_of))


def test_a_group_of_one_unit_is_one_cluster():
    labels = Local(Spectral(2))(chain_graph([np.ones((1, 3))]), rng=0).labels
    assert labels[3] not in labels[:3]


def test_nested_clusters_lie_within_clusters_of_the_level_before():
    graph = chain(gaussian_mlp(widths=(60, 50, 40)))
    coarse, middle, fine = Nested(Spectral(3), n_levels=3, min_units=6)(graph, rng=0)
    assert coarse.n_clusters < middle.n_clusters < fine.n_clusters
    for upper, lower in ((coarse, middle), (middle, fine)):
        parents = [np.unique(upper.labels[lower.labels == cluster]) for cluster in lower.clusters]
        assert all(len(parent) == 1 for parent in parents)


def test_a_nested_hierarchy_finds_modules_within_modules():
    rng = np.random.default_rng(0)
    fine = np.tile(np.arange(9), 12)
    sizes = np.where(fine[:, None] == fine, 20.0, np.where(fine[:, None] // 3 == fine // 3, 3.0, 0.2))
    graph = chain_graph([sizes * rng.random(sizes.shape)])
    modules = np.concatenate([fine, fine])
    upper, lower = Nested(Spectral(3))(graph, rng=0)
    assert adjusted_rand_score(modules // 3, upper.labels) == 1
    assert adjusted_rand_score(modules, lower.labels) == 1


def test_small_clusters_are_not_split():
    graph, _ = planted((8, 6, 5))
    upper, lower = Nested(Spectral(2), min_units=100)(graph, rng=0)
    np.testing.assert_array_equal(upper.labels, lower.labels)


def test_a_hierarchy_without_levels_is_refused():
    with pytest.raises(PartitionError, match="n_levels"):
        Nested(Spectral(2), n_levels=0)
