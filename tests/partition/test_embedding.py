import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import modscope.graph.stack as stacks
import modscope.partition.embedding as embedding
from modscope.graph.operator import normalized_operator
from modscope.graph.unit_graph import UnitGraph
from modscope.graph.weights import chain_graph
from modscope.partition.embedding import embed, laplacian_eigenvalues
from modscope.partition.lanczos import largest_eigenpairs
from planted.graphs import chain, gaussian_mlp, pruned, random_blocks, reference, reference_graphs, sparse_layers


def slow_eigenvalues(graph: UnitGraph) -> np.ndarray:
    """Of the Laplacian, from the definition, without isolated units."""
    adjacency = graph.adjacency().toarray()
    kept = adjacency.sum(axis=0) > 0
    adjacency = adjacency[kept][:, kept]
    root = np.sqrt(adjacency.sum(axis=0))
    return np.linalg.eigvalsh(np.eye(len(root)) - adjacency / np.outer(root, root))


@pytest.mark.parametrize("name", ["mlp_gauss", "mlp_planted4", "mlp_planted4_pruned90", "cnn_small_conv_L1official",
                                  "cnn_small_conv_L1entry"])  # fmt: skip
def test_laplacian_eigenvalues_are_the_reference(name):
    expected = np.array(reference()["sets"][name]["laplacian_sym_smallest13"])
    found = laplacian_eigenvalues(reference_graphs()[name], 13)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@given(st.integers(0, 10_000), st.sampled_from([0.1, 0.4]))
@settings(max_examples=25)
def test_eigenvalues_agree_with_the_definition(seed, density):
    graph = random_blocks(np.random.default_rng(seed), density=density)
    expected = slow_eigenvalues(graph)[:6]
    found = laplacian_eigenvalues(graph, 6)
    assert len(found) == len(expected) or graph.is_bipartite
    np.testing.assert_allclose(found, expected[: len(found)], atol=2e-6)


@pytest.mark.parametrize("is_exact", [True, False])
@pytest.mark.parametrize("widths", [(70, 60, 50), (150, 200, 170, 40)])
def test_the_exact_way_and_lanczos_agree(monkeypatch, is_exact, widths):
    monkeypatch.setattr(embedding, "SMALL_SIDE", 10_000 if is_exact else 0)
    graph = chain(gaussian_mlp(widths=widths))
    np.testing.assert_allclose(laplacian_eigenvalues(graph, 8), slow_eigenvalues(graph)[:8], atol=1e-6)


@pytest.mark.parametrize("is_exact", [True, False])
def test_a_graph_with_odd_cycles_is_embedded_whole(monkeypatch, is_exact):
    monkeypatch.setattr(embedding, "SMALL_SIDE", 10_000 if is_exact else 0)
    graph = random_blocks(np.random.default_rng(0), n_units=80)
    assert not graph.is_bipartite
    np.testing.assert_allclose(laplacian_eigenvalues(graph, 8), slow_eigenvalues(graph)[:8], atol=2e-6)


def test_embedded_vectors_are_orthonormal_eigenvectors():
    graph = chain(gaussian_mlp(widths=(150, 200, 170, 40)))
    operator = normalized_operator(graph)
    found = embed(operator, 6, graph.components[operator.units], rng=np.random.default_rng(0), tolerance=1e-3)
    np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(6), atol=1e-5)
    np.testing.assert_allclose(operator.multiply(found.vectors), found.vectors * found.eigenvalues, atol=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_no_eigenvalue_of_a_close_group_is_missed(seed):
    graph, _ = sparse_layers(30_000, 300_000, n_modules=10, seed=seed)
    operator = normalized_operator(graph)
    found = embed(operator, 12, graph.components[operator.units], rng=np.random.default_rng(seed))
    # the trivial one, one for the depth of the network, and nine for the ten modules
    assert np.count_nonzero(found.eigenvalues > 0.82) == 11


def test_several_components_give_as_many_zeros():
    graph = chain_graph([np.kron(np.eye(3), np.ones((4, 5)))])
    found = laplacian_eigenvalues(graph, 3)
    np.testing.assert_allclose(found, 0, atol=1e-7)


def test_a_narrow_half_graph_has_only_as_many_vectors_as_its_short_side():
    graph = chain(gaussian_mlp(widths=(50, 3)))
    assert len(laplacian_eigenvalues(graph, 10)) == 3


@pytest.mark.parametrize("is_exact", [True, False])
@pytest.mark.parametrize("name", ["layered", "odd cycles", "sparse"])
def test_torch_and_numpy_embed_alike(monkeypatch, is_exact, name):
    graph = {
        "layered": chain(gaussian_mlp(widths=(150, 200, 170, 40))),
        "odd cycles": random_blocks(np.random.default_rng(0), n_units=150, density=0.5),
        "sparse": chain(pruned(gaussian_mlp(widths=(150, 200, 170, 40)), 0.95)),
    }[name]
    monkeypatch.setattr(embedding, "SMALL_SIDE", 10_000 if is_exact else 0)
    monkeypatch.setattr(stacks, "DOUBLE_ENTRIES", 1 << 23 if name != "sparse" else 0)  # a sparse one stays sparse
    expected = laplacian_eigenvalues(graph, 6)
    monkeypatch.setattr(stacks, "is_numpy_best", lambda _: False)  # as on a GPU
    np.testing.assert_allclose(laplacian_eigenvalues(graph, 6), expected, atol=1e-5)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("gap", [1e-2, 1e-4, 0.0])
def test_blocks_with_next_to_nothing_new_stay_orthonormal_and_find_every_eigenvalue(kind, gap):
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.standard_normal((300, 300)))
    values = np.concatenate([[1.0, 1 - gap, 1 - 2 * gap, 0.5], np.zeros(296)])  # after two products, little is new
    matrix = (turn * values @ turn.T).astype(kind)[None]
    start = rng.standard_normal((1, 300, 6)).astype(kind)
    locked = np.empty((1, 300, 0), dtype=kind)
    found, vectors = largest_eigenpairs(lambda x: matrix @ x, 5, locked=locked, start=start, tolerance=1e-4)
    np.testing.assert_allclose(found[0], values[:5], atol=1e-5)
    np.testing.assert_allclose(vectors[0].T @ vectors[0], np.eye(5), atol=1e-5)


def test_the_half_graph_times_itself_gives_the_vectors_that_lanczos_finds(monkeypatch):
    graph = chain(gaussian_mlp(widths=(300, 150, 400)))
    monkeypatch.setattr(stacks, "DOUBLE_ENTRIES", 0)
    operator = normalized_operator(graph)
    found = []
    for short_side in (0, 200):
        monkeypatch.setattr(stacks, "SHORT_SIDE", short_side)
        rng = np.random.default_rng(0)
        found.append(embed(operator, 8, graph.components[operator.units], rng=rng, tolerance=1e-4))
    np.testing.assert_allclose(found[0].eigenvalues, found[1].eigenvalues, atol=1e-5)
    np.testing.assert_allclose(np.abs(np.sum(found[0].vectors * found[1].vectors, axis=0)), 1, atol=1e-4)
