"""Do null models of graphs keep what they say?"""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from modscope.errors import StatisticsError
from modscope.graph.unit_graph import Block, UnitGraph
from modscope.nulls import NULL_MODELS, keep_degrees, keep_unit_scale_rewired, permute_edges, shuffle_weights


def correlations(n_units: int = 12, *, density: float = 0.5, sparse: bool = False, seed: int = 0) -> UnitGraph:
    """A graph of activations: one block of all pairs, as one triangle."""
    rng = np.random.default_rng(seed)
    sizes = np.triu(rng.random((n_units, n_units)) * (rng.random((n_units, n_units)) < density), 1).astype(np.float32)
    units = np.arange(n_units)
    block = Block(units, units, sp.csr_array(sizes) if sparse else sizes, "activations")
    return UnitGraph((block,), np.zeros(n_units, dtype=int), ("all",))


def two_layers() -> UnitGraph:
    rng = np.random.default_rng(3)
    first, second = rng.random((6, 4)).astype(np.float32), rng.random((3, 6)).astype(np.float32)
    second[second < 0.5] = 0
    blocks = (
        Block(np.arange(4), np.arange(4, 10), first, "a"),
        Block(np.arange(4, 10), np.arange(10, 13), second, "b"),
    )
    return UnitGraph(blocks, np.repeat([0, 1, 2], [4, 6, 3]), ("0", "1", "2"))


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("density", [0.1, 0.5, 1.0])
def test_permuted_edges_keep_their_sizes_and_join_no_pair_twice_and_no_unit_with_itself(
    density: float, sparse: bool
) -> None:
    graph = correlations(density=density, sparse=sparse)
    before, after = graph.adjacency(), permute_edges(graph, 1).adjacency()
    assert np.array_equal(np.sort(before.data), np.sort(after.data))
    assert after.diagonal().sum() == 0
    assert not np.array_equal(before.toarray(), after.toarray())


def test_permuted_edges_come_to_every_pair_equally_often() -> None:
    graph = correlations(5, density=0.3, seed=1)
    counts = sum((permute_edges(graph, index).adjacency() > 0).toarray().astype(int) for index in range(1500))
    share = graph.n_edges / 10
    off_diagonal = counts[~np.eye(5, dtype=bool)] / 1500
    assert np.abs(off_diagonal - share).max() < 5 * np.sqrt(share * (1 - share) / 1500)


def test_edges_of_a_layered_graph_move_between_its_layers() -> None:
    graph = two_layers()
    drawn = [permute_edges(graph, index) for index in range(20)]
    assert all(draw.n_edges == graph.n_edges for draw in drawn)
    assert len({draw.blocks[1].n_edges for draw in drawn}) > 1
    assert drawn[0].degrees.sum() == pytest.approx(graph.degrees.sum(), rel=1e-6)


@pytest.mark.parametrize("sparse", [False, True])
def test_degrees_are_kept_on_average_and_positions_exactly(sparse: bool) -> None:
    graph = correlations(30, density=0.8, sparse=sparse)
    scale = np.random.default_rng(5).lognormal(size=30)
    entries = graph.blocks[0].sizes
    scaled = (entries.toarray() if sparse else entries) * np.outer(scale, scale).astype(np.float32)
    block = Block(np.arange(30), np.arange(30), sp.csr_array(scaled) if sparse else scaled, "activations")
    graph = UnitGraph((block,), graph.group_of, graph.group_names)
    draws = [keep_degrees(graph, index) for index in range(30)]
    assert all(np.array_equal((d.adjacency() > 0).toarray(), (graph.adjacency() > 0).toarray()) for d in draws)
    ratio = np.log(np.mean([d.degrees for d in draws], axis=0) / graph.degrees)
    assert ratio.std() < 0.35 * np.log(graph.degrees).std()


def test_a_graph_that_is_all_scale_is_its_own_null() -> None:
    scale = np.random.default_rng(0).lognormal(size=10)
    sizes = np.triu(np.outer(scale, scale), 1).astype(np.float32)
    graph = UnitGraph((Block(np.arange(10), np.arange(10), sizes, "all"),), np.zeros(10, dtype=int), ("all",))
    np.testing.assert_allclose(keep_degrees(graph, 0).adjacency().toarray(), graph.adjacency().toarray(), rtol=2e-3)


def test_a_graph_without_edges_stays_without() -> None:
    graph = correlations(4, density=0.0)
    assert permute_edges(graph, 0).n_edges == keep_degrees(graph, 0).n_edges == 0
    empty = UnitGraph((), np.zeros(3, dtype=int), ("all",))
    assert permute_edges(empty, 0).n_edges == keep_degrees(empty, 0).n_edges == 0


WITHIN_LAYERS = ["shuffle_weights", "shuffle_nonzero_weights", "keep_unit_scale", "permute_within_rows"]


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("density", [0.4, 1.0])
@pytest.mark.parametrize("name", WITHIN_LAYERS)
def test_nulls_of_layers_draw_a_group_with_itself_as_pairs(name: str, density: float, sparse: bool) -> None:
    graph = correlations(density=density, sparse=sparse)
    drawn = NULL_MODELS[name](graph, 3)
    entries = drawn.blocks[0].sizes
    dense = entries.toarray() if sparse else entries
    assert (np.tril(dense) == 0).all()
    assert drawn.n_edges == graph.n_edges
    before, after = (np.sort(g.adjacency().data) for g in (graph, drawn))
    assert np.array_equal(before, after) != (name == "keep_unit_scale")
    assert not np.array_equal(graph.adjacency().toarray(), drawn.adjacency().toarray())


def test_a_symmetric_block_is_drawn_as_its_triangle_of_doubled_sizes() -> None:
    upper = correlations().blocks[0]
    both_ways = Block(upper.sources, upper.targets, upper.sizes + upper.sizes.T, "both")
    graph = UnitGraph((both_ways,), np.zeros(12, dtype=int), ("all",))
    drawn = shuffle_weights(graph, 0)
    assert np.array_equal(np.sort(graph.adjacency().data), np.sort(drawn.adjacency().data))
    assert drawn.adjacency().diagonal().sum() == 0


def test_shuffled_pairs_come_to_every_pair_equally_often() -> None:
    graph = correlations(5, density=0.3, seed=1)
    counts = sum((shuffle_weights(graph, index).adjacency() > 0).toarray().astype(int) for index in range(1500))
    share = graph.n_edges / 10
    off_diagonal = counts[~np.eye(5, dtype=bool)] / 1500
    assert np.abs(off_diagonal - share).max() < 5 * np.sqrt(share * (1 - share) / 1500)


def test_weights_of_a_recurrent_layer_move_everywhere_but_to_the_diagonal() -> None:
    sizes = np.random.default_rng(2).random((6, 6)).astype(np.float32)
    np.fill_diagonal(sizes, 0)
    units = np.arange(6)
    graph = UnitGraph((Block(units, units, sizes, "recurrent"),), np.zeros(6, dtype=int), ("all",))
    for name in WITHIN_LAYERS:
        drawn = NULL_MODELS[name](graph, 0).blocks[0].sizes
        assert (np.diag(drawn) == 0).all()
        assert (drawn > 0).sum() == 30
        assert not np.array_equal(drawn, sizes)


def test_rewiring_pairs_of_one_group_is_refused_and_points_to_a_null_that_fits() -> None:
    with pytest.raises(StatisticsError, match="keep_degrees"):
        keep_unit_scale_rewired(correlations(), 0)
