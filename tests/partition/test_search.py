from collections.abc import Iterator

import numpy as np
import pytest

import modscope.graph.stack as stacks
import modscope.partition.search as searches
from modscope.graph.unit_graph import UnitGraph
from modscope.graph.weights import chain_graph
from modscope.partition.partition import Partition
from modscope.partition.quality import n_cut
from modscope.partition.search import Search, n_side_by_side
from modscope.partition.spectral import Spectral
from planted.graphs import chain, gaussian_mlp, pruned, random_blocks

WIDTHS = (230, 200, 150)  # too many units for the exact way
GRAPHS = {
    "dense": [chain(gaussian_mlp(seed, widths=WIDTHS)) for seed in range(5)],
    "sparse": [chain(pruned(gaussian_mlp(seed, widths=WIDTHS), 0.95)) for seed in range(5)],
    "odd cycles": [random_blocks(np.random.default_rng(seed), n_units=150, density=0.5) for seed in range(4)],
    "small": [chain(gaussian_mlp(seed, widths=(20, 15, 10))) for seed in range(5)],
    "of many kinds": [
        chain(gaussian_mlp(0, widths=WIDTHS)),
        chain(gaussian_mlp(1, widths=WIDTHS)),
        chain(gaussian_mlp(2, widths=(60, 50, 40))),
        chain(pruned(gaussian_mlp(3, widths=WIDTHS), 0.95)),
        chain_graph([np.eye(8)]),  # more components than clusters
        chain(gaussian_mlp(4, widths=WIDTHS)),
    ],
}


def pairs_of(graphs: list[UnitGraph]) -> Iterator[tuple[UnitGraph, np.random.Generator]]:
    return ((graph, np.random.default_rng(index)) for index, graph in enumerate(graphs))


def labels_of(found: Iterator[tuple[UnitGraph, Partition]]) -> list[np.ndarray]:
    return [partition.labels for _, partition in found]


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Torch computes, on the CPU."""
    for module in (stacks, searches):
        monkeypatch.setattr(module, "is_numpy_best", lambda _: False)


@pytest.mark.parametrize("batch_size", [2, 3, 100])
@pytest.mark.parametrize("name", GRAPHS)
def test_graphs_side_by_side_get_the_clusters_that_each_gets_alone(name, batch_size):
    alone = labels_of(Spectral(6).many(pairs_of(GRAPHS[name])))
    together = labels_of(Spectral(6, batch_size=batch_size).many(pairs_of(GRAPHS[name])))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("batch_size", [None, 1, 3])
@pytest.mark.parametrize("name", GRAPHS)
def test_torch_finds_the_n_cuts_that_numpy_finds(request, name, batch_size):
    expected = [n_cut(*pair) for pair in Spectral(6).many(pairs_of(GRAPHS[name]))]
    request.getfixturevalue("as_on_a_gpu")
    found = [n_cut(*pair) for pair in Spectral(6, batch_size=batch_size).many(pairs_of(GRAPHS[name]))]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_without_refinement_torch_and_numpy_agree_too(request):
    strategy = Spectral(6, refine=False, batch_size=2)
    expected = [n_cut(*pair) for pair in strategy.many(pairs_of(GRAPHS["dense"]))]
    request.getfixturevalue("as_on_a_gpu")
    np.testing.assert_allclose([n_cut(*pair) for pair in strategy.many(pairs_of(GRAPHS["dense"]))], expected, atol=1e-4)


@pytest.mark.usefixtures("as_on_a_gpu")
def test_as_many_graphs_are_put_side_by_side_as_half_of_the_memory_holds(monkeypatch):
    search = Search.of(GRAPHS["dense"][0], 0)
    counts = []
    for free in (0, 1 << 24, 1 << 28):
        monkeypatch.setattr(searches, "_free_memory", lambda _, free=free: free)
        counts.append(n_side_by_side(search, 6, 5, "cuda"))
        weights = 8 * search.operator.n_entries * counts[-1]
        assert counts[-1] == 1 or weights < free / 2
    assert counts[0] == 1 < counts[1] < counts[2]


def test_graphs_are_taken_only_as_they_are_needed():
    taken = []

    def noted() -> Iterator[tuple[UnitGraph, np.random.Generator]]:
        for graph, rng in pairs_of(GRAPHS["dense"]):
            taken.append(graph)
            yield graph, rng

    found = Spectral(6, batch_size=2).many(noted())
    next(found)
    assert len(taken) == 2
    one_by_one = Spectral(6).many(noted())
    next(one_by_one)
    assert len(taken) == 3
