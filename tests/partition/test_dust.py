import numpy as np
import pytest

from modscope.errors import PartitionError
from modscope.graph.unit_graph import UnitGraph
from modscope.partition.dust import WithoutDust
from modscope.partition.leiden import Leiden
from modscope.partition.spectral import Spectral
from planted.graphs import chain, gaussian_mlp


def with_a_pair_apart(seed: int = 0) -> UnitGraph:
    """A network in which unit 0 hangs on unit 40 alone, and unit 40 on little else."""
    weights = gaussian_mlp(seed, widths=(40, 30, 20))
    weights[0][0] = 0
    weights[0][:, 0] *= 1e-3
    weights[1][0] *= 1e-3
    weights[0][0, 0] = 1.0
    return chain(weights)


def test_a_pair_of_units_is_no_cluster_of_its_own():
    graph = with_a_pair_apart()
    labels = Spectral(4)(graph, rng=0).labels
    assert np.bincount(labels).min() == 2
    dusted = WithoutDust(Spectral(4), 0.2)(graph, rng=0)
    assert np.bincount(dusted.labels).min() > 2
    assert dusted.labels[0] == dusted.labels[40]
    assert any("too small to count" in note for note in dusted.notes)


def test_several_numbers_of_clusters_are_those_of_each_alone():
    graph = with_a_pair_apart()
    together = WithoutDust(Spectral(), 0.2).several(graph, (3, 4), rng=2)
    np.testing.assert_array_equal(together[1].labels, WithoutDust(Spectral(4), 0.2)(graph, rng=2).labels)
    assert together[0].n_clusters == 3


def test_several_numbers_of_clusters_need_a_partitioner_that_takes_a_number():
    with pytest.raises(PartitionError, match="need Spectral, got Leiden"):
        WithoutDust(Leiden()).several(with_a_pair_apart(), (3, 4))


@pytest.mark.parametrize("partitioner", [Spectral(4), Leiden()])
def test_many_graphs_are_those_of_each_alone(partitioner):
    strategy = WithoutDust(partitioner, 0.2)
    graphs = [with_a_pair_apart(seed) for seed in range(3)]
    found = strategy.many((graph, np.random.default_rng(7)) for graph in graphs)
    for (graph, partition), given in zip(found, graphs, strict=True):
        assert graph is given
        np.testing.assert_array_equal(partition.labels, strategy(graph, rng=np.random.default_rng(7)).labels)


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_outside_0_and_1_is_refused(share):
    with pytest.raises(PartitionError, match=r"min_share must be in \[0, 1\)"):
        WithoutDust(Spectral(4), share)
