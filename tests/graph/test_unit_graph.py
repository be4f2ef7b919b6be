import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from modscope.errors import GraphError
from modscope.graph.unit_graph import Block, UnitGraph
from planted.graphs import random_blocks

SEEDS = st.integers(0, 10_000)


def slow_adjacency(graph: UnitGraph, blocks: tuple[Block, ...]) -> np.ndarray:
    adjacency = np.zeros((graph.n_units, graph.n_units))
    for block in blocks:
        sizes = block.sizes if isinstance(block.sizes, np.ndarray) else block.sizes.toarray()
        for i, target in enumerate(block.targets):
            for j, source in enumerate(block.sources):
                if target != source:
                    adjacency[target, source] += sizes[i, j]
                    adjacency[source, target] += sizes[i, j]
    return adjacency


@given(SEEDS)
@settings(max_examples=30)
def test_adjacency_adds_parallel_edges_and_drops_self_loops(seed):
    graph = random_blocks(np.random.default_rng(seed))
    np.testing.assert_allclose(graph.adjacency().toarray(), slow_adjacency(graph, graph.blocks), atol=1e-12)


@given(SEEDS)
@settings(max_examples=30)
def test_degrees_are_the_row_sums_of_the_adjacency(seed):
    graph = random_blocks(np.random.default_rng(seed))
    np.testing.assert_allclose(graph.degrees, graph.adjacency().toarray().sum(axis=1), atol=1e-12)


@given(SEEDS, st.sampled_from([0.01, 0.03, 0.1, 0.3, 1.0]))
@settings(max_examples=60)
def test_components_are_those_of_the_adjacency(seed, density):
    graph = random_blocks(np.random.default_rng(seed), density=density)
    adjacency = graph.adjacency()
    _, expected = connected_components(adjacency, directed=False)
    has_edge = adjacency.sum(axis=0) > 0
    assert np.array_equal(graph.components >= 0, has_edge)
    same = graph.components[:, None] == graph.components
    np.testing.assert_array_equal(same[has_edge][:, has_edge], (expected[:, None] == expected)[has_edge][:, has_edge])
    sizes = np.bincount(graph.components[has_edge])
    assert np.all(np.diff(sizes) <= 0), "the largest component comes first"


@given(SEEDS, st.sampled_from([0.02, 0.05, 0.2]), st.booleans())
@settings(max_examples=60)
def test_colours_exist_exactly_when_minus_the_spectrum_is_the_spectrum(seed, density, is_layered):
    rng = np.random.default_rng(seed)
    graph = layered(rng, density) if is_layered else random_blocks(rng, density=density)
    adjacency = graph.adjacency().toarray()
    values = np.linalg.eigvalsh(adjacency)
    parts = [
        np.linalg.eigvalsh(adjacency[np.ix_(units, units)])
        for units in (np.flatnonzero(graph.components == c) for c in range(graph.connectivity.n_components))
    ]
    is_symmetric = all(abs(part[0] + part[-1]) < 1e-9 * max(1.0, values[-1]) for part in parts)
    assert graph.is_bipartite == is_symmetric
    if graph.colours is not None:
        rows, columns = np.nonzero(adjacency)
        assert np.all(graph.colours[rows] + graph.colours[columns] == 1)


def layered(rng: np.random.Generator, density: float) -> UnitGraph:
    blocks = [
        Block(
            np.arange(10 * i, 10 * i + 10), np.arange(10 * i + 10, 10 * i + 20),
            rng.random((10, 10)) * (rng.random((10, 10)) < density), f"b{i}",
        )
        for i in range(3)
    ]  # fmt: skip
    return UnitGraph(tuple(blocks), np.repeat(np.arange(4), 10), tuple("abcd"))


def test_a_unit_without_edges_is_isolated():
    block = Block(np.array([0]), np.array([2]), np.ones((1, 1), np.float32), "w")
    graph = UnitGraph((block,), np.zeros(4, dtype=np.int64), ("all",))
    np.testing.assert_array_equal(graph.isolated, [1, 3])
    np.testing.assert_array_equal(graph.components, [0, -1, 0, -1])


def test_a_graph_without_edges_has_no_components():
    graph = UnitGraph((), np.zeros(3, dtype=np.int64), ("all",))
    assert graph.connectivity.n_components == 0
    assert graph.adjacency().nnz == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("is_sparse", [False, True])
def test_a_size_that_is_no_number_is_refused_by_the_name_of_its_block(bad, is_sparse):
    sizes = np.array([[1.0, bad]])
    with pytest.raises(GraphError, match=r"1 of 2 .*'layers\.3\.weight'"):
        Block(np.arange(2), np.array([2]), sp.csr_array(sizes) if is_sparse else sizes, "layers.3.weight")


def test_a_negative_size_is_refused():
    with pytest.raises(GraphError, match=r"'w' must be >= 0, got -0\.5"):
        Block(np.arange(2), np.array([2]), np.array([[1.0, -0.5]]), "w")


@pytest.mark.usefixtures("unchecked_shapes")
def test_sizes_that_do_not_join_their_units_are_refused():
    with pytest.raises(GraphError, match=r"\(1, 2\).*need \(1, 3\)"):
        Block(np.arange(3), np.array([5]), np.ones((1, 2)), "w")


def test_a_unit_that_stands_twice_on_a_side_is_refused():
    with pytest.raises(GraphError, match="twice in the sources of 'w'"):
        Block(np.array([0, 1, 0]), np.array([5]), np.ones((1, 3)), "w")


def test_a_block_outside_the_units_is_refused():
    with pytest.raises(GraphError, match="the graph has 2 units"):
        UnitGraph((Block(np.array([0]), np.array([2]), np.ones((1, 1)), "w"),), np.zeros(2, dtype=np.int64), ("a",))


def test_the_summary_says_what_there_is():
    block = Block(np.array([0]), np.array([1]), np.ones((1, 1)), "a<b")
    graph = UnitGraph((block,), np.zeros(3, dtype=np.int64), ("all",))
    assert "3 units" in repr(graph)
    assert "1 isolated" in repr(graph)
    assert "a&lt;b" in graph._repr_html_()
