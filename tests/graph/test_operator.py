import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modscope.graph import stack as stacks
from modscope.graph.operator import NormalizedOperator, normalized_operator
from modscope.graph.stack import Stack
from modscope.graph.unit_graph import Block, UnitGraph
from planted.graphs import chain, gaussian_mlp, pruned, random_blocks


def slow_operator(graph: UnitGraph, units: np.ndarray) -> np.ndarray:
    adjacency = graph.adjacency().toarray()[np.ix_(units, units)]
    root = np.sqrt(graph.degrees[units])
    return adjacency / np.outer(root, root)


def slow_operator_of(operator: NormalizedOperator) -> np.ndarray:
    """The (half) matrix, from what the operator does to each unit alone."""
    whole = operator.multiply(np.eye(len(operator.units)))
    return whole[: operator.n_first, operator.n_first :] if operator.is_bipartite else whole


def check(graph: UnitGraph) -> None:
    operator = normalized_operator(graph)
    x = np.random.default_rng(0).standard_normal((len(operator.units), 3)).astype(np.float32)
    expected = slow_operator(graph, operator.units) @ x
    np.testing.assert_allclose(operator.multiply(x), expected, atol=1e-5)


@given(st.integers(0, 10_000), st.sampled_from([0.02, 0.1, 0.5]))
@settings(max_examples=40)
def test_the_operator_multiplies_as_its_definition(seed, density):
    graph = random_blocks(np.random.default_rng(seed), density=density)
    if len(graph.isolated) < graph.n_units:
        check(graph)


def test_a_layered_graph_keeps_only_the_half_between_its_colours():
    graph = chain(gaussian_mlp(widths=(9, 8, 7, 6)))
    operator = normalized_operator(graph)
    assert operator.shape == (16, 14)
    check(graph)


def test_dense_weights_are_not_copied():
    graph = chain([weight.astype(np.float32) for weight in gaussian_mlp(widths=(9, 8, 7, 6))])
    for part, block in zip(normalized_operator(graph).parts, graph.blocks, strict=True):
        assert np.shares_memory(part.sizes, block.sizes)


@pytest.mark.parametrize("share", [0.0, 0.97])
@pytest.mark.parametrize("name", ["layered", "odd cycles"])
def test_a_stack_multiplies_each_operator_with_its_own_vectors(name, share):
    def graph(seed: int) -> UnitGraph:
        if name == "layered":
            return chain(pruned(gaussian_mlp(seed, widths=(90, 80, 70)), share))
        return random_blocks(np.random.default_rng(seed), n_units=40, density=0.5 * (1 - share))

    found = [normalized_operator(graph(seed)) for seed in range(3)]
    x = np.random.default_rng(0).standard_normal((1, found[0].shape[1], 2))
    for operator in found:
        whole = slow_operator_of(operator)
        forward = Stack([operator]).forward(np.resize(x, (1, operator.shape[1], 2)))[0]
        np.testing.assert_allclose(forward, whole @ np.resize(x, (1, operator.shape[1], 2))[0], atol=1e-6)
    if share == 0 and name == "layered":
        together = Stack(found).forward(np.repeat(x, 3, axis=0))
        alone = np.concatenate([Stack([operator]).forward(x) for operator in found])
        np.testing.assert_allclose(together, alone, rtol=1e-12)


@pytest.mark.parametrize("has_mkl", [True, False])
def test_a_large_sparse_operator_multiplies_as_its_definition_both_ways(monkeypatch, has_mkl):
    monkeypatch.setattr(stacks, "DOUBLE_ENTRIES", 0)  # large enough for single precision, and the MKL
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: has_mkl)
    operator = normalized_operator(chain(pruned(gaussian_mlp(widths=(90, 80, 70)), 0.97)))
    stack, whole, rng = Stack([operator]), slow_operator_of(operator), np.random.default_rng(0)
    here, there = (rng.standard_normal((1, n, 3), dtype=np.float32) for n in operator.shape)
    np.testing.assert_allclose(stack.forward(there)[0], whole @ there[0], atol=1e-5)
    np.testing.assert_allclose(stack.backward(here)[0], whole.T @ here[0], atol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_the_half_matrix_times_itself_is_as_defined(monkeypatch, seed):
    monkeypatch.setattr(stacks, "DOUBLE_ENTRIES", 0)
    monkeypatch.setattr(stacks, "ROWS_AT_ONCE", 7)
    monkeypatch.setattr(stacks, "SHORT_SIDE", 40)
    weights = [np.abs(weight) for weight in gaussian_mlp(seed, widths=(50, 20, 60, 15))]
    renumbered = np.random.default_rng(seed).permutation(145)  # parts that are no stretches of units
    graph = chain(weights)
    for blocks in (graph.blocks, tuple(Block(renumbered[b.sources], renumbered[b.targets], b.sizes, b.name)
                                       for b in graph.blocks)):  # fmt: skip
        operator = normalized_operator(UnitGraph(blocks, np.zeros(145, dtype=int), ("all",)))
        stack, half = Stack([operator]), slow_operator_of(operator)
        assert stack.has_cheap_squares
        np.testing.assert_allclose(stack.squares()[0], half.T @ half, atol=1e-5)


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
