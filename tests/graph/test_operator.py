import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import modscope.graph.operator as operators
from modscope.graph.operator import normalized_operator
from modscope.graph.unit_graph import UnitGraph
from planted.graphs import chain, gaussian_mlp, pruned, random_blocks


def slow_operator(graph: UnitGraph, units: np.ndarray) -> np.ndarray:
    adjacency = graph.adjacency().toarray()[np.ix_(units, units)]
    root = np.sqrt(graph.degrees[units])
    return adjacency / np.outer(root, root)


def check(graph: UnitGraph) -> None:
    operator = normalized_operator(graph)
    x = np.random.default_rng(0).standard_normal((len(operator.units), 3)).astype(np.float32)
    expected = slow_operator(graph, operator.units) @ x
    np.testing.assert_allclose(operator.multiply(x), expected, atol=1e-5)
    np.testing.assert_allclose(operator.multiply(x[:, 0]), expected[:, 0], atol=1e-5)


@given(st.integers(0, 10_000), st.sampled_from([0.02, 0.1, 0.5]))
@settings(max_examples=40)
def test_the_operator_multiplies_as_its_definition(seed, density):
    graph = random_blocks(np.random.default_rng(seed), density=density)
    if len(graph.isolated) < graph.n_units:
        check(graph)


def test_a_layered_graph_keeps_only_the_half_between_its_colours():
    graph = chain(gaussian_mlp(widths=(9, 8, 7, 6)))
    operator = normalized_operator(graph)
    assert operator.half.shape == (16, 14)
    check(graph)


@pytest.mark.parametrize("mostly_empty", [0.0, 1.0])
def test_a_long_chain_is_multiplied_part_by_part_to_the_same_result(monkeypatch, mostly_empty):
    monkeypatch.setattr(operators, "PARTLY_EMPTY", mostly_empty)
    graph = chain(gaussian_mlp(widths=(9, 8, 7, 6, 5, 4, 3)))
    assert bool(normalized_operator(graph).rectangles) == (mostly_empty == 1)
    check(graph)


def test_isolated_units_have_no_place():
    weights = gaussian_mlp(widths=(9, 8, 7))
    weights[0][2] = 0
    graph = chain(weights)
    assert 2 not in normalized_operator(graph).units
    check(graph)


def test_a_sparse_network_is_kept_sparse():
    graph = chain(pruned(gaussian_mlp(widths=(60, 50, 40)), 0.98))
    assert not normalized_operator(graph).is_dense
    check(graph)
