"""Do null models of graphs keep what they say?"""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from modscope.graph.unit_graph import Block, UnitGraph
from modscope.nulls import keep_degrees, permute_edges


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
